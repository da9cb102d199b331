// Sums over rows, in two deterministic stages, and maxima.
//
// row_sums (a bias gradient): x [T, C], x_stride between rows, to partials [ceil(T / ROWS), C] f32. A warp has 256
// columns of a block's ROWS rows.
// column_sums: partials [rows, C] f32, rows added in order within eight strands and the strands in order; the first `split`
// sums to y, the others to z unless it is null. A block has 32 columns. It also adds up the partials of layer_norm_backward and
// of a split gemm_backward, where y is dweight and z dbias.
// Bytes: T C elements once.
//
// max_forward: of x [outer, length, inner], length > 0, the largest elements y [outer, inner] and where along the length they are
// first, indices u32. NaN is larger than any number. A warp has a result.
// max_backward: dy to where the maximum was found in dx, which holds zeros. A thread has a result.
#include "primitives.cuh"

constexpr uint32_t ROWS = 64, STRANDS = 8, THREADS = 256;

template <typename T>
DEVICE void sum(const T* x, uint64_t x_stride, float* partials, uint32_t rows, uint32_t width) {
  const uint32_t channel = (blockIdx.x * WARP + lane_index()) * VECTOR;
  if (channel >= width) return;
  const uint32_t end = min(rows, (blockIdx.y + 1) * ROWS);
  float total[VECTOR] = {};
  for (uint32_t row = blockIdx.y * ROWS; row < end; row++) {
    float v[VECTOR];
    load(v, x + row * x_stride + channel, width - channel);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) total[i] += v[i];
  }
  store(partials + static_cast<uint64_t>(blockIdx.y) * width + channel, total, width - channel);
}

#define ROW_SUMS(T, suffix)                                                                                             \
  extern "C" __global__ void __launch_bounds__(WARP)                                                                    \
  LAUNCH(grid(ceil_div(width, WARP * VECTOR), ceil_div(rows, ROWS)), block(WARP))                                       \
  row_sums_##suffix(const T* x, uint64_t x_stride, float* partials, uint32_t rows, uint32_t width) {                    \
    sum(x, x_stride, partials, rows, width);                                                                            \
  }
ROW_SUMS(float, f32)
ROW_SUMS(bf16, bf16)

extern "C" __global__ void __launch_bounds__(STRANDS * WARP)
LAUNCH(grid(ceil_div(width, WARP)), block(STRANDS * WARP))
column_sums(const float* partials, float* y, float* NULLABLE z, uint32_t rows, uint64_t width, uint64_t split) {
  __shared__ float strands[STRANDS][WARP];
  const uint64_t column = static_cast<uint64_t>(blockIdx.x) * WARP + lane_index();
  float sum = 0;
  if (column < width)
    for (uint32_t row = warp_index(); row < rows; row += STRANDS) sum += partials[row * width + column];
  strands[warp_index()][lane_index()] = sum;
  __syncthreads();
  if (warp_index() == 0 && column < width) {
    for (uint32_t i = 1; i < STRANDS; i++) sum += strands[i][lane_index()];
    if (column < split) y[column] = sum;
    else if (z) z[column - split] = sum;
  }
}

// Whether a at i is the maximum rather than b at j.
DEVICE bool beats(float a, uint32_t i, float b, uint32_t j) {
  const bool a_is_nan = a != a, b_is_nan = b != b;
  if (a_is_nan != b_is_nan) return a_is_nan;
  return a_is_nan || a == b ? i < j : a > b;
}

template <typename T>
DEVICE void max_forward(const T* x, T* y, uint32_t* indices, uint64_t results, uint32_t length, uint64_t inner) {
  const uint64_t result = static_cast<uint64_t>(blockIdx.x) * BLOCK_WARPS + warp_index();
  if (result >= results) return;
  x += result / inner * length * inner + result % inner;
  // Loses against every element.
  float best = -INFINITY;
  uint32_t index = 0xffffffffu;
  for (uint32_t i = lane_index(); i < length; i += WARP) {
    const float here = to_float(x[i * inner]);
    if (beats(here, i, best, index)) best = here, index = i;
  }
#pragma unroll
  for (int distance = 16; distance; distance /= 2) {
    const float other = __shfl_xor_sync(ALL_LANES, best, distance);
    const uint32_t at = __shfl_xor_sync(ALL_LANES, index, distance);
    if (beats(other, at, best, index)) best = other, index = at;
  }
  if (lane_index() == 0) y[result] = from_float<T>(best), indices[result] = index;
}

template <typename T>
DEVICE void max_backward(const T* dy, const uint32_t* indices, T* dx, uint64_t results, uint32_t length, uint64_t inner) {
  const uint64_t result = static_cast<uint64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (result >= results || indices[result] >= length) return;
  dx[(result / inner * length + indices[result]) * inner + result % inner] = dy[result];
}

#define MAX(T, suffix)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                                                           \
  LAUNCH(grid(ceil_div(results, BLOCK_WARPS)), block(BLOCK_THREADS))                                                    \
  max_forward_##suffix(const T* x, T* y, uint32_t* indices, uint64_t results, uint32_t length, uint64_t inner) {        \
    max_forward(x, y, indices, results, length, inner);                                                                 \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
  LAUNCH(grid(ceil_div(results, THREADS)), block(THREADS))                                                              \
  max_backward_##suffix(const T* dy, const uint32_t* indices, T* dx, uint64_t results, uint32_t length, uint64_t inner) { \
    max_backward(dy, indices, dx, results, length, inner);                                                              \
  }
MAX(float, f32)
MAX(bf16, bf16)
