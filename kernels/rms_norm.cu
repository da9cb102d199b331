// RMSNorm (Zhang and Sennrich, arXiv 1910.07467): y = x rstd weight over the last dimension, rstd = 1 / sqrt(mean(x^2) + eps).
//
// Layouts: x [T, C] with x_stride elements between rows; y, dy, dx [T, C] contiguous; weight [C] f32; rstd [T] f32. Forward:
// a warp has a row. Backward: a block has BACKWARD_ROWS rows, warp w of W the rows w, w + W, ..; shared memory W * C floats: W is
// BLOCK_WARPS, or as many as fit; partials [ceil(T / BACKWARD_ROWS), C], which column_sums of reduce.cu then adds up in order.
// Preconditions: C > 0.
// Bytes: forward 2 T C, backward 3 T C elements. FLOPs: 4 and 9 an element.
#include "layer_norm.cuh"

template <typename T>
DEVICE void forward(const T* x, uint64_t x_stride, const float* weight, T* y, float* rstd, uint32_t rows, uint32_t width,
                    float eps) {
  const uint32_t row = row_of_warp();
  if (row >= rows) return;
  x += row * x_stride;
  y += static_cast<uint64_t>(row) * width;
  const auto read = [&](uint32_t channel, float (&v)[VECTOR]) { load(v, x + channel, width - channel); };
  float held[HELD][VECTOR];
  float squares = 0;
  visit_row(width, held, [](uint32_t, float (&)[VECTOR]) {}, [&](uint32_t channel, float (&v)[VECTOR]) {
    read(channel, v);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) squares = fmaf(v[i], v[i], squares);  // zeros past the end
  });
  const float scale = 1.0f / sqrtf(warp_sum(squares) / width + eps);
  if (lane_index() == 0) rstd[row] = scale;
  visit_row(width, held, read, [&](uint32_t channel, float (&v)[VECTOR]) {
    float w[VECTOR];
    load(w, weight + channel, width - channel);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) v[i] *= scale * w[i];
    store(y + channel, v, width - channel);
  });
}

// What backward holds of a vector: x_hat = x rstd and g = dy weight.
struct Vectors { float x_hat[VECTOR], g[VECTOR]; };

// dx = rstd (g - x_hat mean(g x_hat)), dweight = the rows' sum of dy x_hat; a lane has its own channels of its warp's sums.
template <typename T>
DEVICE void backward(const T* dy, const T* x, uint64_t x_stride, const float* weight, const float* rstd, T* dx,
                     float* partials, uint32_t rows, uint32_t width) {
  extern __shared__ float sums[];
  clear_sums(sums, width);
  float* dweight = sums + warp_index() * width;
  const uint32_t end = min(rows, (blockIdx.x + 1) * BACKWARD_ROWS);
  for (uint32_t row = blockIdx.x * BACKWARD_ROWS + warp_index(); row < end; row += blockDim.x / WARP) {
    const uint64_t at = static_cast<uint64_t>(row) * width;
    const float scale = rstd[row];
    float sum = 0;
    Vectors held[HELD];
    const auto read = [&](uint32_t channel, Vectors& v, bool add) {
      const uint32_t valid = width - channel;
      float w[VECTOR];
      load(v.x_hat, x + row * x_stride + channel, valid);
      load(v.g, dy + at + channel, valid);
      load(w, weight + channel, valid);
#pragma unroll
      for (uint32_t i = 0; i < VECTOR; i++) {
        v.x_hat[i] *= scale;
        if (add && i < valid) dweight[channel + i] += v.g[i] * v.x_hat[i];
        v.g[i] *= w[i];  // zero past the end
        if (add) sum = fmaf(v.g[i], v.x_hat[i], sum);
      }
    };
    const auto again = [&](uint32_t channel, Vectors& v) { read(channel, v, false); };
    visit_row(width, held, [](uint32_t, Vectors&) {}, [&](uint32_t channel, Vectors& v) { read(channel, v, true); });
    const float mean = warp_sum(sum) / width;
    visit_row(width, held, again, [&](uint32_t channel, Vectors& v) {
#pragma unroll
      for (uint32_t i = 0; i < VECTOR; i++) v.g[i] = scale * (v.g[i] - v.x_hat[i] * mean);
      store(dx + at + channel, v.g, width - channel);
    });
  }
  write_sums(sums, partials, width);
}

#define RMS_NORM(T, suffix)                                                                                             \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                                                           \
  LAUNCH(grid(ceil_div(rows, BLOCK_WARPS)), block(BLOCK_THREADS))                                                       \
  rms_norm_forward_##suffix(const T* x, uint64_t x_stride, const float* weight, T* y, float* rstd, uint32_t rows,       \
                            uint32_t width, float eps) {                                                                \
    forward(x, x_stride, weight, y, rstd, rows, width, eps);                                                            \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                                                           \
  LAUNCH(with(warps), grid(ceil_div(rows, BACKWARD_ROWS)), block(WARP * warps), shared(4 * width * warps))              \
  rms_norm_backward_##suffix(const T* dy, const T* x, uint64_t x_stride, const float* weight, const float* rstd, T* dx, \
                             float* partials, uint32_t rows, uint32_t width) {                                          \
    backward(dy, x, x_stride, weight, rstd, dx, partials, rows, width);                                                 \
  }
RMS_NORM(float, f32)
RMS_NORM(bf16, bf16)
