// Dropout of hidden values; its gradient is the same kernel on dy, because the mask is drawn again, not saved.
//
// Layouts: x [T, C] with x_stride elements between rows, y [T, C], offsets [B + 1]. A thread has eight channels of a row,
// one call of Philox. Bytes: 2 T C elements.
#include "primitives.cuh"

constexpr uint32_t THREADS = 128;

template <typename T>
DEVICE void forward(const T* x, uint64_t x_stride, const uint32_t* offsets, T* y, uint32_t width, uint32_t sequences,
                    const Dropout& dropout) {
  const uint32_t channel = (blockIdx.y * THREADS + threadIdx.x) * VECTOR, row = blockIdx.x;
  if (channel >= width) return;
  const uint32_t sequence = sequence_of(offsets, sequences, row);
  float v[VECTOR];
  load(v, x + row * x_stride + channel, width - channel);
  apply_dropout(v, dropout, row - offsets[sequence], sequence, channel / VECTOR);
  store(y + static_cast<uint64_t>(row) * width + channel, v, width - channel);
}

#define DROPOUT(T, suffix)                                                                                              \
  extern "C" __global__ void LAUNCH(with(rows), grid(rows, ceil_div(width, THREADS * VECTOR)), block(THREADS))          \
  dropout_forward_##suffix(const T* x, uint64_t x_stride, const uint32_t* offsets, T* y, uint32_t width,                \
                           uint32_t sequences, Dropout dropout) {                                                       \
    forward(x, x_stride, offsets, y, width, sequences, dropout);                                                        \
  }
DROPOUT(float, f32)
DROPOUT(bf16, bf16)
