// Conversion between f32 and bf16, rounding to nearest even.
//
// x, y [n]. A thread has eight elements. Bytes: 6 an element.
#include "elementwise.cuh"

template <typename X, typename Y> DEVICE void cast(const X* x, Y* y, uint64_t n) {
  const uint64_t i = first_element();
  if (i >= n) return;
  float v[VECTOR];
  load(v, x + i, n - i);
  store(y + i, v, n - i);
}

extern "C" __global__ void LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))
cast_f32_bf16(const float* x, bf16* y, uint64_t n) { cast(x, y, n); }
extern "C" __global__ void LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))
cast_bf16_f32(const bf16* x, float* y, uint64_t n) { cast(x, y, n); }
