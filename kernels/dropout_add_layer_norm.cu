// The end of each half of a layer: sum = residual + dropout(x), y = LayerNorm(sum). Backward: dresidual = dsum, and
// dx = dropout(dsum) with the mask drawn again.
//
// Layouts: x, residual, y, sum, dy, dresidual, dx [T, C] contiguous; weight, bias [C] f32; mean, rstd [T] f32; offsets
// [B + 1]. x and dx may be bf16 beside an f32 residual stream (_bf16_f32); then `rounded_y` is y in bf16, for the product that
// reads it next, and else null. Ownership, shared memory and partials as layer_norm.cu. With dropout.threshold = 0 offsets
// are not read; dx may be null then. Statistics are of the stored (rounded) sum, so that backward normalises the very same values.
// Bytes: forward 4 T C (and rounded_y), backward 4 T C elements (3 without dropout). Philox: one call for eight channels.
#include "layer_norm.cuh"

template <typename X, typename T>
DEVICE void forward(const X* x, const T* residual, const float* weight, const float* bias, const uint32_t* offsets, T* y,
                    X* rounded_y, T* sum, float* mean, float* rstd, uint32_t rows, uint32_t width, uint32_t sequences,
                    float eps, const Dropout& dropout) {
  const uint32_t row = row_of_warp();
  if (row >= rows) return;
  const uint64_t at = static_cast<uint64_t>(row) * width;
  const uint32_t sequence = dropout.threshold ? sequence_of(offsets, sequences, row) : 0;
  const uint32_t position = dropout.threshold ? row - offsets[sequence] : 0;
  const auto add = [&](uint32_t channel, float (&v)[VECTOR]) {
    const uint32_t valid = width - channel;
    float r[VECTOR];
    load(v, x + at + channel, valid);
    load(r, residual + at + channel, valid);
    if (dropout.threshold) apply_dropout(v, dropout, position, sequence, channel / VECTOR);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) v[i] = rounded<T>(v[i] + r[i]);
    store(sum + at + channel, v, valid);
  };
  const auto again = [&](uint32_t channel, float (&v)[VECTOR]) { load(v, sum + at + channel, width - channel); };
  float held[HELD][VECTOR];
  const Statistics s = row_statistics(width, eps, held, add, again);
  if (lane_index() == 0) mean[row] = s.mean, rstd[row] = s.rstd;
  normalize_row(width, s, weight, bias, held, again, [&](uint32_t channel, float (&v)[VECTOR]) {
    store(y + at + channel, v, width - channel);
    if (rounded_y) store(rounded_y + at + channel, v, width - channel);
  });
}

template <typename X, typename T>
DEVICE void backward(const T* dy, const T* sum, const float* weight, const float* mean, const float* rstd,
                     const uint32_t* offsets, T* dresidual, X* dx, float* partials, uint32_t rows, uint32_t width,
                     uint32_t sequences, const Dropout& dropout) {
  extern __shared__ float sums[];
  clear_sums(sums, 2 * width);
  float* dweight = sums + warp_index() * 2 * width;
  const uint32_t end = min(rows, (blockIdx.x + 1) * BACKWARD_ROWS);
  for (uint32_t row = blockIdx.x * BACKWARD_ROWS + warp_index(); row < end; row += blockDim.x / WARP) {
    const uint64_t at = static_cast<uint64_t>(row) * width;
    const uint32_t sequence = dropout.threshold ? sequence_of(offsets, sequences, row) : 0;
    const uint32_t position = dropout.threshold ? row - offsets[sequence] : 0;
    layer_norm_backward_row(dy + at, sum + at, weight, {mean[row], rstd[row]}, width, dweight, dweight + width,
                            [&](uint32_t channel, float (&g)[VECTOR]) {
      store(dresidual + at + channel, g, width - channel);
      if (!dx) return;
#pragma unroll
      for (uint32_t i = 0; i < VECTOR; i++) g[i] = rounded<T>(g[i]);
      if (dropout.threshold) apply_dropout(g, dropout, position, sequence, channel / VECTOR);
      store(dx + at + channel, g, width - channel);
    });
  }
  write_sums(sums, partials, 2 * width);
}

#define DROPOUT_ADD_LAYER_NORM(X, T, suffix)                                                                            \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 6)                                                        \
  LAUNCH(grid(ceil_div(rows, BLOCK_WARPS)), block(BLOCK_THREADS))                                                       \
  dropout_add_layer_norm_forward_##suffix(                                                                              \
      const X* x, const T* residual, const float* weight, const float* bias, const uint32_t* offsets, T* y,             \
      X* NULLABLE rounded_y, T* sum, float* mean, float* rstd, uint32_t rows, uint32_t width, uint32_t sequences,       \
      float eps, Dropout dropout) {                                                                                     \
    forward(x, residual, weight, bias, offsets, y, rounded_y, sum, mean, rstd, rows, width, sequences, eps, dropout);   \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                                                           \
  LAUNCH(with(warps), grid(ceil_div(rows, BACKWARD_ROWS)), block(WARP * warps), shared(4 * 2 * width * warps))          \
  dropout_add_layer_norm_backward_##suffix(                                                                             \
      const T* dy, const T* sum, const float* weight, const float* mean, const float* rstd, const uint32_t* offsets,    \
      T* dresidual, X* NULLABLE dx, float* partials, uint32_t rows, uint32_t width, uint32_t sequences,                 \
      Dropout dropout) {                                                                                                \
    backward(dy, sum, weight, mean, rstd, offsets, dresidual, dx, partials, rows, width, sequences, dropout);           \
  }
DROPOUT_ADD_LAYER_NORM(float, float, f32)
DROPOUT_ADD_LAYER_NORM(bf16, bf16, bf16)
DROPOUT_ADD_LAYER_NORM(bf16, float, bf16_f32)
