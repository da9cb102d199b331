// The bf16 product on tensor cores with f32 accumulation: y = x W^T (nt), dx = dy W (nn), dW = dy^T x (tn).
//
// Ownership: a block of 8 warps (2 x 4) has 128 x 128 of C, a warp 64 x 32. Tiles of depth 32 of A and B pass through a ring of
// three stages of shared memory (48 KiB) filled by asynchronous copies; chunks of 16 bytes are swizzled, so that ldmatrix
// meets no bank conflict without padding. Grid (ceil(N / 128), ceil(M / 128), splits).
// Layouts: a [M, K] (nt, nn) or [K, M] (tn), b [N, K] (nt) or [K, N] (nn, tn), c, pre [M, N], leading dimensions lda, ldb, ldc.
// Epilogues: nt: y = x W^T + bias (bias f32 or null), or gelu of it, saving it in `pre` unless null. tn: f32; with splits,
// each split's part of K to c + split M ldc, which column_sums of reduce.cu adds up in order; with accumulate (no splits), +=.
// Preconditions: a, b 16-byte aligned, lda and ldb multiples of 8 (else gemm_simt.cu). Tails of M, N, K are masked here.
// FLOPs: 2 M N K.
#include "gelu.cuh"

constexpr uint32_t BM = 128, BN = 128, BK = 32, STAGES = 3, THREADS = 256;
constexpr uint32_t STAGE_BYTES = (BM + BN) * BK * 2;

struct Shape { uint32_t m, n, k, lda, ldb, ldc, accumulate, reserved; };

// A tile of 128 rows x 32 of K in shared memory. K_MAJOR: rows of 32 neighbours in K; else 32 rows of 128 neighbours.
template <bool K_MAJOR> struct Operand {
  // Byte offset of a chunk of eight elements.
  static DEVICE uint32_t place(uint32_t row, uint32_t chunk) {
    return K_MAJOR ? row * 64 + ((chunk ^ (row / 2 % 4)) * 16) : row * 256 + ((chunk ^ (row % 8)) * 16);
  }
  // From row r0 and depth k0 on, of `rows` and `k_end`.
  static DEVICE void fill(uint32_t tile, const bf16* source, uint32_t ld, uint32_t r0, uint32_t rows, uint32_t k0, uint32_t k_end) {
#pragma unroll
    for (uint32_t i = threadIdx.x; i < 512; i += THREADS) {
      const uint32_t row = K_MAJOR ? i / 4 : i / 16, chunk = K_MAJOR ? i % 4 : i % 16;
      const uint32_t outer = (K_MAJOR ? r0 : k0) + row, inner = (K_MAJOR ? k0 : r0) + chunk * 8;
      const uint32_t outer_end = K_MAJOR ? rows : k_end, inner_end = K_MAJOR ? k_end : rows;
      const uint32_t valid = outer < outer_end && inner < inner_end ? min(8u, inner_end - inner) : 0;
      copy_async(tile + place(row, chunk), valid ? source + static_cast<uint64_t>(outer) * ld + inner : source, valid * 2);
    }
  }
  // 16 rows from r on, depth 16 k on, as a left operand; or as two right operands of eight rows (b0, b1, b0, b1).
  static DEVICE void left(uint32_t (&a)[4], uint32_t tile, uint32_t r, uint32_t k) {
    const uint32_t l = lane_index();
    if (K_MAJOR) load_matrices(a, tile + place(r + l % 16, k * 2 + l / 16));
    else load_matrices_transposed(a, tile + place(k * 16 + l % 8 + l / 16 * 8, r / 8 + l / 8 % 2));
  }
  static DEVICE void right(uint32_t (&b)[4], uint32_t tile, uint32_t r, uint32_t k) {
    const uint32_t l = lane_index();
    if (K_MAJOR) load_matrices(b, tile + place(r + l % 8 + l / 16 * 8, k * 2 + l / 8 % 2));
    else load_matrices_transposed(b, tile + place(k * 16 + l % 16, r / 8 + l / 16));
  }
};

// Calls epilogue(row, column, x0, x1) for pairs of neighbouring columns; column may be the last.
template <bool A_K_MAJOR, bool B_K_MAJOR, typename Epilogue>
DEVICE void product(const bf16* a, const bf16* b, const Shape& s, Epilogue epilogue) {
  __shared__ __align__(128) unsigned char ring[STAGES * STAGE_BYTES];
  const uint32_t base = shared_address(ring), row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
  const uint32_t warp_row = warp_index() / 4 * 64, warp_column = warp_index() % 4 * 32;
  // Whole tiles of K to each split.
  const uint32_t tiles = ceil_div(s.k, BK), per_split = ceil_div(tiles, gridDim.z);
  const uint32_t first = min(tiles, blockIdx.z * per_split), count = min(tiles - first, per_split);
  const uint32_t k_end = min(s.k, (first + count) * BK);
  const auto fill = [&](uint32_t i) {
    if (i < count) {
      const uint32_t stage = base + i % STAGES * STAGE_BYTES, k0 = (first + i) * BK;
      Operand<A_K_MAJOR>::fill(stage, a, s.lda, row0, s.m, k0, k_end);
      Operand<B_K_MAJOR>::fill(stage + BM * BK * 2, b, s.ldb, column0, s.n, k0, k_end);
    }
    copy_commit();  // an empty group keeps the count
  };
  float acc[4][4][4] = {};
#pragma unroll
  for (uint32_t i = 0; i < STAGES - 1; i++) fill(i);
  for (uint32_t i = 0; i < count; i++) {
    copy_wait<STAGES - 2>();
    __syncthreads();  // tile i is there for all, and tile i - 1, whose place is filled next, has been used by all
    fill(i + STAGES - 1);
    const uint32_t a_tile = base + i % STAGES * STAGE_BYTES, b_tile = a_tile + BM * BK * 2;
#pragma unroll
    for (uint32_t k = 0; k < BK / 16; k++) {
      uint32_t left[4][4], right[2][4];
#pragma unroll
      for (uint32_t m = 0; m < 4; m++) Operand<A_K_MAJOR>::left(left[m], a_tile, warp_row + m * 16, k);
#pragma unroll
      for (uint32_t n = 0; n < 2; n++) Operand<B_K_MAJOR>::right(right[n], b_tile, warp_column + n * 16, k);
#pragma unroll
      for (uint32_t m = 0; m < 4; m++)
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) multiply(acc[m][n], left[m], right[n / 2][n % 2 * 2], right[n / 2][n % 2 * 2 + 1]);
    }
  }
  copy_wait<0>();
  const uint32_t g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
  for (uint32_t m = 0; m < 4; m++)
#pragma unroll
    for (uint32_t n = 0; n < 4; n++)
#pragma unroll
      for (uint32_t half = 0; half < 2; half++) {
        const uint32_t row = row0 + warp_row + m * 16 + g + half * 8, column = column0 + warp_column + n * 8 + 2 * t;
        if (row < s.m && column < s.n) epilogue(row, column, acc[m][n][2 * half], acc[m][n][2 * half + 1]);
      }
}

DEVICE void store_pair(bf16* c, const Shape& s, uint32_t row, uint32_t column, float x0, float x1) {
  bf16* out = c + static_cast<uint64_t>(row) * s.ldc + column;
  if (column + 1 < s.n && (reinterpret_cast<uint64_t>(out) & 3) == 0) {
    *reinterpret_cast<uint32_t*>(out) = pack_bf16(x0, x1);
  } else {
    out[0] = from_float<bf16>(x0);
    if (column + 1 < s.n) out[1] = from_float<bf16>(x1);
  }
}

template <typename F>
DEVICE void linear(const bf16* x, const bf16* weight, const float* bias, bf16* pre, bf16* y, const Shape& s, F f) {
  product<true, true>(x, weight, s, [&](uint32_t row, uint32_t column, float x0, float x1) {
    if (bias) {
      x0 += bias[column];
      if (column + 1 < s.n) x1 += bias[column + 1];
    }
    if (pre) store_pair(pre, s, row, column, x0, x1);
    store_pair(y, s, row, column, f(x0), f(x1));
  });
}

struct Identity { DEVICE float operator()(float x) const { return x; } };
struct GeluErf { DEVICE float operator()(float x) const { return gelu_erf(x); } };
struct GeluTanh { DEVICE float operator()(float x) const { return gelu_tanh(x); } };

extern "C" __global__ void __launch_bounds__(256)
gemm_nt_bf16(const bf16* x, const bf16* weight, const float* bias, bf16* y, Shape s) {
  linear(x, weight, bias, static_cast<bf16*>(nullptr), y, s, Identity());
}
extern "C" __global__ void __launch_bounds__(256)
gemm_nt_gelu_erf_bf16(const bf16* x, const bf16* weight, const float* bias, bf16* pre, bf16* y, Shape s) {
  linear(x, weight, bias, pre, y, s, GeluErf());
}
extern "C" __global__ void __launch_bounds__(256)
gemm_nt_gelu_tanh_bf16(const bf16* x, const bf16* weight, const float* bias, bf16* pre, bf16* y, Shape s) {
  linear(x, weight, bias, pre, y, s, GeluTanh());
}
extern "C" __global__ void __launch_bounds__(256)
gemm_nn_bf16(const bf16* dy, const bf16* weight, bf16* dx, Shape s) {
  product<true, false>(dy, weight, s, [&](uint32_t row, uint32_t column, float x0, float x1) {
    store_pair(dx, s, row, column, x0, x1);
  });
}
extern "C" __global__ void __launch_bounds__(256)
gemm_tn_bf16_f32(const bf16* dy, const bf16* x, float* dweight, Shape s) {
  dweight += static_cast<uint64_t>(blockIdx.z) * s.m * s.ldc;
  product<false, false>(dy, x, s, [&](uint32_t row, uint32_t column, float x0, float x1) {
    float* out = dweight + static_cast<uint64_t>(row) * s.ldc + column;
    out[0] = s.accumulate ? out[0] + x0 : x0;
    if (column + 1 < s.n) out[1] = s.accumulate ? out[1] + x1 : x1;
  });
}
