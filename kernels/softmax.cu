// Softmax and its logarithm over the last dimension, forward and backward.
//
// Layouts: x, y, dy, dx [rows, C], x with x_stride elements between rows. A block has a row; its threads are whole
// warps, as many as C alone decides, so that sums have one order. `logarithm` selects log_softmax. Preconditions: C > 0. A row of -inf alone gives NaN.
// Bytes: forward a write and three reads (two from cache), backward a write and four reads (two from cache) of rows x C.
#include "primitives.cuh"

constexpr uint32_t MAX_THREADS = 256;

template <typename T>
DEVICE void forward(const T* x, uint64_t x_stride, T* y, uint32_t width, uint32_t logarithm) {
  x += blockIdx.x * x_stride;
  y += static_cast<uint64_t>(blockIdx.x) * width;
  float max = -INFINITY, sum = 0;
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) max = fmaxf(max, to_float(x[i]));
  max = block_max(max);
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) sum += expf(to_float(x[i]) - max);
  sum = block_sum(sum);
  const float log_sum = logf(sum);
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float shifted = to_float(x[i]) - max;
    y[i] = from_float<T>(logarithm ? shifted - log_sum : expf(shifted) / sum);
  }
}

template <typename T>
DEVICE void backward(const T* dy, const T* y, T* dx, uint32_t width, uint32_t logarithm) {
  const uint64_t at = static_cast<uint64_t>(blockIdx.x) * width;
  float sum = 0;
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x)
    sum += logarithm ? to_float(dy[at + i]) : to_float(dy[at + i]) * to_float(y[at + i]);
  sum = block_sum(sum);
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float g = to_float(dy[at + i]), out = to_float(y[at + i]);
    dx[at + i] = from_float<T>(logarithm ? g - expf(out) * sum : out * (g - sum));
  }
}

#define SOFTMAX(T, suffix)                                                                                              \
  extern "C" __global__ void __launch_bounds__(MAX_THREADS)                                                             \
  LAUNCH(with(rows), grid(rows), block(min(MAX_THREADS, WARP * ceil_div(width, WARP))))                                 \
  softmax_forward_##suffix(const T* x, uint64_t x_stride, T* y, uint32_t width, uint32_t logarithm) {                   \
    forward(x, x_stride, y, width, logarithm);                                                                          \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(MAX_THREADS)                                                             \
  LAUNCH(with(rows), grid(rows), block(min(MAX_THREADS, WARP * ceil_div(width, WARP))))                                 \
  softmax_backward_##suffix(const T* dy, const T* y, T* dx, uint32_t width, uint32_t logarithm) {                       \
    backward(dy, y, dx, width, logarithm);                                                                              \
  }
SOFTMAX(float, f32)
SOFTMAX(bf16, bf16)
