// Dropout of hidden values; its gradient is the same kernel on dy, because the mask is drawn again, not saved.
//
// Layouts: x [T, C] with x_stride elements between rows, y [T, C], offsets [B + 1]. A thread has eight channels of a row,
// one call of Philox; block 128, grid (T, ceil(C / 1024)). Bytes: 2 T C elements.
#include "primitives.cuh"

template <typename T>
DEVICE void forward(const T* x, uint64_t x_stride, const uint32_t* offsets, T* y, uint32_t width, uint32_t sequences,
                    const Dropout& dropout) {
  const uint32_t channel = (blockIdx.y * blockDim.x + threadIdx.x) * VECTOR, row = blockIdx.x;
  if (channel >= width) return;
  const uint32_t sequence = sequence_of(offsets, sequences, row);
  float v[VECTOR];
  load(v, x + row * x_stride + channel, width - channel);
  apply_dropout(v, dropout, row - offsets[sequence], sequence, channel / VECTOR);
  store(y + static_cast<uint64_t>(row) * width + channel, v, width - channel);
}

extern "C" __global__ void dropout_f32(const float* x, uint64_t x_stride, const uint32_t* offsets, float* y,
                                       uint32_t width, uint32_t sequences, Dropout dropout) {
  forward(x, x_stride, offsets, y, width, sequences, dropout);
}
extern "C" __global__ void dropout_bf16(const bf16* x, uint64_t x_stride, const uint32_t* offsets, bf16* y,
                                        uint32_t width, uint32_t sequences, Dropout dropout) {
  forward(x, x_stride, offsets, y, width, sequences, dropout);
}
