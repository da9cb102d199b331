// The bf16 product on tensor cores with f32 accumulation: y = x W^T, and all of its gradients in one launch.
//
// Ownership: a block of 8 warps (2 x 4) has 128 x 128 of C, a warp 64 x 32. Tiles of depth 32 of A and B pass through a ring of
// three stages of shared memory (48 KiB) filled by asynchronous copies; chunks of 16 bytes are swizzled, so that ldmatrix
// meets no bank conflict without padding.
// Layouts: x [T, K], weight [N, K], y, pre, dy [T, N], rows lda, ldb, .. elements apart; results contiguous.
// gemm_nt: y = x W^T + bias (bias f32 or null), or gelu of it, saving it in `pre` unless null.
// gemm_backward: the first weight_blocks = splits ceil(N / BM) rows of blocks have dweight = dy^T x (f32; each split's part of
// T to dweight + split (N K + N), which column_sums of reduce.cu adds up in order), those of the first column also dbias, the
// sums of dy's columns, unless null. The other dx_blocks = ceil(T / BM) rows have dx = so_far + dy W, where so_far is what
// other operations gave x, or null. Either kind may be missing.
// Preconditions: operands 16-byte aligned, their strides multiples of 8 (else gemm_simt.cu). Tails are masked here.
// FLOPs: 2 T N K, backward twice that.
#include "gelu.cuh"

constexpr uint32_t BM = 128, BN = 128, BK = 32, STAGES = 3, THREADS = 256;
constexpr uint32_t STAGE_BYTES = (BM + BN) * BK * 2;
constexpr uint32_t ONES = 0x3f803f80;  // 1.0 twice

// Of C [m x n] = A [m x k] B [k x n].
struct Shape {
  uint32_t m, n, k;
  uint32_t lda;  // elements between the stored rows of A: a multiple of 8
  uint32_t ldb;  // the same of B
};
// Which tile of C a block has, and which of `splits` parts of K.
struct Place { uint32_t row0, column0, split, splits; };

// One ring for all products of a kernel, which are one after the other or in different blocks.
DEVICE uint32_t ring_address() {
  __shared__ __align__(128) unsigned char ring[STAGES * STAGE_BYTES];
  return shared_address(ring);
}

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

// Calls epilogue(row, column, x0, x1) for pairs of neighbouring columns; column may be the last. Unless null, row_sums gets
// the sums of the rows of A.
template <bool A_K_MAJOR, bool B_K_MAJOR, typename Epilogue>
DEVICE void product(const bf16* a, const bf16* b, const Shape& s, const Place& place, float* row_sums, Epilogue epilogue) {
  const uint32_t base = ring_address(), row0 = place.row0, column0 = place.column0;
  const uint32_t warp_row = warp_index() / 4 * 64, warp_column = warp_index() % 4 * 32;
  // Whole tiles of K to each split.
  const uint32_t tiles = ceil_div(s.k, BK), per_split = ceil_div(tiles, place.splits);
  const uint32_t first = min(tiles, place.split * per_split), count = min(tiles - first, per_split);
  const uint32_t k_end = min(s.k, (first + count) * BK);
  const auto fill = [&](uint32_t i) {
    if (i < count) {
      const uint32_t stage = base + i % STAGES * STAGE_BYTES, k0 = (first + i) * BK;
      Operand<A_K_MAJOR>::fill(stage, a, s.lda, row0, s.m, k0, k_end);
      Operand<B_K_MAJOR>::fill(stage + BM * BK * 2, b, s.ldb, column0, s.n, k0, k_end);
    }
    copy_commit();  // an empty group keeps the count
  };
  float acc[4][4][4] = {}, sums[4] = {};
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
      // A times ones. Four warps hold the same 64 rows of A: each has 16 of them, one product beside its 16.
#pragma unroll
      for (uint32_t m = 0; m < 4; m++)
        if (row_sums && m == warp_index() % 4) multiply(sums, left[m], ONES, ONES);
    }
  }
  copy_wait<0>();
  const uint32_t g = lane_index() / 4, t = lane_index() % 4;
  const uint32_t summed = row0 + warp_row + warp_index() % 4 * 16 + g;
  if (row_sums && t == 0) {  // all columns are the same
    if (summed < s.m) row_sums[summed] = sums[0];
    if (summed + 8 < s.m) row_sums[summed + 8] = sums[2];
  }
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

// Two neighbours of a row of `width`, or its last element.
DEVICE void store_pair(bf16* out, uint32_t column, uint32_t width, float x0, float x1) {
  if (column + 1 < width && (reinterpret_cast<uint64_t>(out) & 3) == 0) {
    *reinterpret_cast<uint32_t*>(out) = pack_bf16(x0, x1);
  } else {
    out[0] = from_float<bf16>(x0);
    if (column + 1 < width) out[1] = from_float<bf16>(x1);
  }
}
DEVICE void store_pair(float* out, uint32_t column, uint32_t width, float x0, float x1) {
  if (column + 1 < width && (reinterpret_cast<uint64_t>(out) & 7) == 0) {
    *reinterpret_cast<float2*>(out) = make_float2(x0, x1);
  } else {
    out[0] = x0;
    if (column + 1 < width) out[1] = x1;
  }
}

template <typename F>
DEVICE void linear(const bf16* x, const bf16* weight, const float* bias, bf16* pre, bf16* y, const Shape& s, F f) {
  const Place place = {blockIdx.y * BM, blockIdx.x * BN, 0, 1};
  product<true, true>(x, weight, s, place, nullptr, [&](uint32_t row, uint32_t column, float x0, float x1) {
    const uint64_t at = static_cast<uint64_t>(row) * s.n + column;
    if (bias) {
      x0 += bias[column];
      if (column + 1 < s.n) x1 += bias[column + 1];
    }
    if (pre) store_pair(pre + at, column, s.n, x0, x1);
    store_pair(y + at, column, s.n, f(x0), f(x1));
  });
}

// Of gemm_backward: dy [rows x n], weight [n x k], x [rows x k].
struct BackwardShape {
  uint32_t rows, n, k;
  uint32_t dy_stride;      // elements between rows of dy: a multiple of 8, as the next two
  uint32_t weight_stride;
  uint32_t x_stride;
  uint32_t splits;         // parts of T, for the weight's gradient
  uint32_t weight_blocks;  // splits times the tiles of rows of the weight's gradient, or 0 where it is not wanted
};

template <typename T>
DEVICE void backward(const bf16* dy, const bf16* weight, const bf16* x, const T* so_far, T* dx, float* dweight, float* dbias,
                     const BackwardShape& b) {
  const uint32_t column0 = blockIdx.x * BN;
  if (blockIdx.y < b.weight_blocks) {
    const Place place = {blockIdx.y / b.splits * BM, column0, blockIdx.y % b.splits, b.splits};
    const uint64_t part = place.split * (static_cast<uint64_t>(b.n) * b.k + b.n);
    float* row_sums = dbias && blockIdx.x == 0 ? dbias + part : nullptr;
    product<false, false>(dy, x, {b.n, b.k, b.rows, b.dy_stride, b.x_stride}, place, row_sums,
                          [&](uint32_t row, uint32_t column, float x0, float x1) {
      store_pair(dweight + part + static_cast<uint64_t>(row) * b.k + column, column, b.k, x0, x1);
    });
  } else {
    const Place place = {(blockIdx.y - b.weight_blocks) * BM, column0, 0, 1};
    product<true, false>(dy, weight, {b.rows, b.k, b.n, b.dy_stride, b.weight_stride}, place, nullptr,
                         [&](uint32_t row, uint32_t column, float x0, float x1) {
      const uint64_t at = static_cast<uint64_t>(row) * b.k + column;
      if (so_far) {
        x0 += to_float(so_far[at]);
        if (column + 1 < b.k) x1 += to_float(so_far[at + 1]);
      }
      store_pair(dx + at, column, b.k, x0, x1);
    });
  }
}

struct Identity { DEVICE float operator()(float x) const { return x; } };
struct GeluErf { DEVICE float operator()(float x) const { return gelu_erf(x); } };
struct GeluTanh { DEVICE float operator()(float x) const { return gelu_tanh(x); } };

extern "C" __global__ void __launch_bounds__(THREADS)
LAUNCH(grid(ceil_div(shape.n, BN), ceil_div(shape.m, BM)), block(THREADS))
gemm_nt_bf16(const bf16* x, const bf16* weight, const float* NULLABLE bias, bf16* y, Shape shape) {
  linear(x, weight, bias, static_cast<bf16*>(nullptr), y, shape, Identity());
}
extern "C" __global__ void __launch_bounds__(THREADS)
LAUNCH(grid(ceil_div(shape.n, BN), ceil_div(shape.m, BM)), block(THREADS))
gemm_nt_gelu_erf_bf16(const bf16* x, const bf16* weight, const float* NULLABLE bias, bf16* NULLABLE pre, bf16* y, Shape shape) {
  linear(x, weight, bias, pre, y, shape, GeluErf());
}
extern "C" __global__ void __launch_bounds__(THREADS)
LAUNCH(grid(ceil_div(shape.n, BN), ceil_div(shape.m, BM)), block(THREADS))
gemm_nt_gelu_tanh_bf16(const bf16* x, const bf16* weight, const float* NULLABLE bias, bf16* NULLABLE pre, bf16* y, Shape shape) {
  linear(x, weight, bias, pre, y, shape, GeluTanh());
}
extern "C" __global__ void __launch_bounds__(THREADS)
LAUNCH(with(dx_blocks), grid(ceil_div(shape.k, BN), shape.weight_blocks + dx_blocks), block(THREADS))
gemm_backward_bf16(const bf16* dy, const bf16* weight, const bf16* x, const bf16* NULLABLE so_far, bf16* NULLABLE dx,
                   float* NULLABLE dweight, float* NULLABLE dbias, BackwardShape shape) {
  backward(dy, weight, x, so_far, dx, dweight, dbias, shape);
}
extern "C" __global__ void __launch_bounds__(THREADS)
LAUNCH(with(dx_blocks), grid(ceil_div(shape.k, BN), shape.weight_blocks + dx_blocks), block(THREADS))
gemm_backward_bf16_f32(const bf16* dy, const bf16* weight, const bf16* x, const float* NULLABLE so_far, float* NULLABLE dx,
                       float* NULLABLE dweight, float* NULLABLE dbias, BackwardShape shape) {
  backward(dy, weight, x, so_far, dx, dweight, dbias, shape);
}
