// The first lesson in GEMM, and the exact f32 product: C[M x N] = A[M x K] B[K x N] (+ bias) with one FMA a product, in the
// order of k. Any strides, so x W^T, dy W and dy^T x are one kernel; a batch in blockIdx.z.
//
// Ownership: a block of 256 threads has 64 x 64 of C, a thread 4 x 4 (rows 4 ty.., columns 4 tx..); tiles of 64 x 16 of A and B
// pass through shared memory. c is contiguous [batch, M, N]; bias [N] f32 or null; so_far, of c's shape and type or null, is
// added too. dtypes: operands f32 or bf16, c f32 (_f32, _bf16_f32) or bf16 (_bf16). This is also the path for bf16 operands
// that gemm.cu refuses (unaligned rows). FLOPs: 2 M N K.
#include "primitives.cuh"

constexpr uint32_t TILE = 64, DEPTH = 16, THREADS = 256;

// Sizes and strides.
struct Gemm {
  uint64_t a_row, a_column, a_batch;  // elements between rows, columns and matrices of A
  uint64_t b_row, b_column, b_batch;  // the same of B
  uint32_t m, n, k;
  uint32_t reserved;                  // padding that is written
};

template <typename T, typename C>
DEVICE void product(const T* a, const T* b, const float* bias, const C* so_far, C* c, const Gemm& g) {
  __shared__ __align__(16) float as[DEPTH][TILE], bs[DEPTH][TILE];
  const uint32_t row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
  const uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  a += blockIdx.z * g.a_batch;
  b += blockIdx.z * g.b_batch;
  float acc[4][4] = {};
  for (uint32_t k0 = 0; k0 < g.k; k0 += DEPTH) {
#pragma unroll
    for (uint32_t i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
      // Neighbouring threads read along the dimension whose elements are neighbours in memory.
      const uint32_t ka = g.a_column == 1 ? i % DEPTH : i / TILE, row = g.a_column == 1 ? i / DEPTH : i % TILE;
      const uint32_t kb = g.b_row == 1 ? i % DEPTH : i / TILE, column = g.b_row == 1 ? i / DEPTH : i % TILE;
      const bool in_a = row0 + row < g.m && k0 + ka < g.k, in_b = column0 + column < g.n && k0 + kb < g.k;
      as[ka][row] = in_a ? to_float(a[(row0 + row) * g.a_row + (k0 + ka) * g.a_column]) : 0.0f;
      bs[kb][column] = in_b ? to_float(b[(k0 + kb) * g.b_row + (column0 + column) * g.b_column]) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (uint32_t k = 0; k < DEPTH; k++) {
      const float4 x = *reinterpret_cast<const float4*>(&as[k][4 * ty]), y = *reinterpret_cast<const float4*>(&bs[k][4 * tx]);
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) acc[i][j] = fmaf(xs[i], ys[j], acc[i][j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (uint32_t i = 0; i < 4; i++)
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
      const uint32_t row = row0 + 4 * ty + i, column = column0 + 4 * tx + j;
      if (row >= g.m || column >= g.n) continue;
      const uint64_t at = (static_cast<uint64_t>(blockIdx.z) * g.m + row) * g.n + column;
      const float x = acc[i][j] + (bias ? bias[column] : 0.0f);
      c[at] = from_float<C>(so_far ? x + to_float(so_far[at]) : x);
    }
}

#define GEMM_SIMT(T, C, suffix)                                                                                         \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
  LAUNCH(with(batch), grid(ceil_div(gemm.n, TILE), ceil_div(gemm.m, TILE), batch), block(THREADS))                      \
  gemm_simt_##suffix(const T* a, const T* b, const float* NULLABLE bias, const C* NULLABLE so_far, C* c, Gemm gemm) {   \
    product(a, b, bias, so_far, c, gemm);                                                                               \
  }
GEMM_SIMT(float, float, f32)
GEMM_SIMT(bf16, bf16, bf16)
GEMM_SIMT(bf16, float, bf16_f32)
