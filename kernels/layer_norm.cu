// LayerNorm (Ba, Kiros and Hinton, arXiv 1607.06450): y = (x - mean) rstd weight + bias over the last dimension.
//
// Layouts: x [T, C] with x_stride elements between rows; y, dy, dx [T, C] contiguous; weight, bias [C] f32; mean, rstd [T]
// f32. Forward: a warp has a row. Backward: a block has BACKWARD_ROWS rows, warp w of W the rows w, w + W, ..; shared memory
// W * 2 * C floats: W is BLOCK_WARPS, or as many as fit; partials [ceil(T / BACKWARD_ROWS), 2, C], which column_sums of
// reduce.cu then adds up in order. Preconditions: C > 0.
// Bytes: forward 2 T C, backward 3 T C elements. FLOPs: about 8 and 14 an element.
#include "layer_norm.cuh"

template <typename T>
DEVICE void forward(const T* x, uint64_t x_stride, const float* weight, const float* bias, T* y, float* mean, float* rstd,
                    uint32_t rows, uint32_t width, float eps) {
  const uint32_t row = row_of_warp();
  if (row >= rows) return;
  x += row * x_stride;
  const auto read = [&](uint32_t channel, float (&v)[VECTOR]) { load(v, x + channel, width - channel); };
  float held[HELD][VECTOR];
  const Statistics s = row_statistics(width, eps, held, read, read);
  if (lane_index() == 0) mean[row] = s.mean, rstd[row] = s.rstd;
  y += static_cast<uint64_t>(row) * width;
  normalize_row(width, s, weight, bias, held, read,
                [&](uint32_t channel, float (&v)[VECTOR]) { store(y + channel, v, width - channel); });
}

template <typename T>
DEVICE void backward(const T* dy, const T* x, uint64_t x_stride, const float* weight, const float* mean, const float* rstd,
                     T* dx, float* partials, uint32_t rows, uint32_t width) {
  extern __shared__ float sums[];
  clear_sums(sums, 2 * width);
  float* dweight = sums + warp_index() * 2 * width;
  const uint32_t end = min(rows, (blockIdx.x + 1) * BACKWARD_ROWS);
  for (uint32_t row = blockIdx.x * BACKWARD_ROWS + warp_index(); row < end; row += blockDim.x / WARP) {
    const uint64_t at = static_cast<uint64_t>(row) * width;
    layer_norm_backward_row(dy + at, x + row * x_stride, weight, {mean[row], rstd[row]}, width, dweight, dweight + width,
                            [&](uint32_t channel, float (&g)[VECTOR]) { store(dx + at + channel, g, width - channel); });
  }
  write_sums(sums, partials, 2 * width);
}

#define LAYER_NORM(T, suffix)                                                                                           \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                                                           \
  LAUNCH(grid(ceil_div(rows, BLOCK_WARPS)), block(BLOCK_THREADS))                                                       \
  layer_norm_forward_##suffix(const T* x, uint64_t x_stride, const float* weight, const float* bias, T* y, float* mean, \
                              float* rstd, uint32_t rows, uint32_t width, float eps) {                                  \
    forward(x, x_stride, weight, bias, y, mean, rstd, rows, width, eps);                                                \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                                                           \
  LAUNCH(with(warps), grid(ceil_div(rows, BACKWARD_ROWS)), block(WARP * warps), shared(4 * 2 * width * warps))          \
  layer_norm_backward_##suffix(const T* dy, const T* x, uint64_t x_stride, const float* weight, const float* mean,      \
                               const float* rstd, T* dx, float* partials, uint32_t rows, uint32_t width) {              \
    backward(dy, x, x_stride, weight, mean, rstd, dx, partials, rows, width);                                           \
  }
LAYER_NORM(float, f32)
LAYER_NORM(bf16, bf16)
