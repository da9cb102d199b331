// Causal attention forward, head size 64, tiles of 64 queries x 64 keys, four warps; query, key, value, out: [heads][length][64].
#include "primitives.cuh"
constexpr int TILE = 64, HEAD = 64, STRIDE = 72;

INLINE void load_tile(bf16* tile, const bf16* rows, int first, int length) {
    for (int i = threadIdx.x; i < TILE * 8; i += 128) {
        int row = i / 8, column = i % 8 * 8;
        bool inside = first + row < length;
        copy_async(tile + row * STRIDE + column, rows + (size_t)(inside ? first + row : 0) * HEAD + column, inside);
    }
}

extern "C" __global__ void __launch_bounds__(128)
attention(const bf16* __restrict__ query, const bf16* __restrict__ key, const bf16* __restrict__ value,
          bf16* __restrict__ out, int length, float scale_log2) {
    extern __shared__ __align__(16) bf16 shared[];
    bf16 *q_tile = shared, *k_tile = q_tile + TILE * STRIDE, *v_tile = k_tile + 2 * TILE * STRIDE;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, pair = lane % 4;
    size_t head = (size_t)blockIdx.y * length * HEAD;
    query += head, key += head, value += head, out += head;
    load_tile(q_tile, query, blockIdx.x * TILE, length);
    load_tile(k_tile, key, 0, length);
    load_tile(v_tile, value, 0, length);
    copy_commit();
    u32 q[4][4];
    float o[8][4] = {}, top[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {};
    int tiles = blockIdx.x + 1, first_row = blockIdx.x * TILE + warp * 16 + group;
    for (int t = 0; t < tiles; t++) {
        int stage = t % 2;
        if (t + 1 < tiles) {
            load_tile(k_tile + (1 - stage) * TILE * STRIDE, key, (t + 1) * TILE, length);
            load_tile(v_tile + (1 - stage) * TILE * STRIDE, value, (t + 1) * TILE, length);
            copy_commit();
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        if (t == 0)
            for (int k = 0; k < 4; k++) load_matrices(q[k], q_tile + (warp * 16 + lane % 16) * STRIDE + k * 16 + lane / 16 * 8);
        const bf16 *keys = k_tile + stage * TILE * STRIDE, *values = v_tile + stage * TILE * STRIDE;
        float s[8][4] = {};
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int n = 0; n < 4; n++) {
                u32 b[4];
                load_matrices(b, keys + (n * 16 + lane % 8 + lane / 16 * 8) * STRIDE + k * 16 + lane / 8 % 2 * 8);
                mma(s[2 * n], q[k], b[0], b[1]);
                mma(s[2 * n + 1], q[k], b[2], b[3]);
            }
        float p[8][4];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float best = top[h];
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++) {
                    int column = t * TILE + n * 8 + pair * 2 + i % 2;
                    s[n][i] = column <= first_row + h * 8 && column < length ? s[n][i] * scale_log2 : NEGATIVE_INFINITY;
                    best = fmaxf(best, s[n][i]);
                }
            best = fmaxf(best, __shfl_xor_sync(FULL, best, 1));
            best = fmaxf(best, __shfl_xor_sync(FULL, best, 2));
            float shrink = best == NEGATIVE_INFINITY ? 1.0f : exp2_approx(top[h] - best);
            top[h] = best;
            sum[h] *= shrink;
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++) {
                    o[n][i] *= shrink;
                    p[n][i] = s[n][i] == NEGATIVE_INFINITY ? 0.0f : exp2_approx(s[n][i] - best);
                    sum[h] += p[n][i];
                }
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            u32 a[4] = {pack(p[2 * k][0], p[2 * k][1]), pack(p[2 * k][2], p[2 * k][3]),
                        pack(p[2 * k + 1][0], p[2 * k + 1][1]), pack(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
            for (int n = 0; n < 4; n++) {
                u32 b[4];
                load_matrices_transposed(b, values + (k * 16 + lane % 16) * STRIDE + n * 16 + lane / 16 * 8);
                mma(o[2 * n], a, b[0], b[1]);
                mma(o[2 * n + 1], a, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(FULL, sum[h], 1);
        sum[h] += __shfl_xor_sync(FULL, sum[h], 2);
        int row = first_row + h * 8;
        if (row >= length) continue;
        for (int n = 0; n < 8; n++)
            *(u32*)(out + (size_t)row * HEAD + n * 8 + pair * 2) = pack(o[n][2 * h] / sum[h], o[n][2 * h + 1] / sum[h]);
    }
}
