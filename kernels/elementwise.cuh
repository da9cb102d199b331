// Loops of element-by-element kernels: a thread owns eight neighbouring elements.
#pragma once
#include "primitives.cuh"

constexpr uint32_t ELEMENT_THREADS = 256, BLOCK_ELEMENTS = ELEMENT_THREADS * VECTOR;

DEVICE uint64_t first_element() { return static_cast<uint64_t>(blockIdx.x) * BLOCK_ELEMENTS + threadIdx.x * VECTOR; }

template <typename T, typename F> DEVICE void map(const T* x, T* y, uint64_t n, F f) {
  const uint64_t i = first_element();
  if (i >= n) return;
  float v[VECTOR];
  load(v, x + i, n - i);
#pragma unroll
  for (uint32_t j = 0; j < VECTOR; j++) v[j] = f(v[j]);
  store(y + i, v, n - i);
}

template <typename T, typename F> DEVICE void map2(const T* a, const T* b, T* y, uint64_t n, F f) {
  const uint64_t i = first_element();
  if (i >= n) return;
  float v[VECTOR], w[VECTOR];
  load(v, a + i, n - i);
  load(w, b + i, n - i);
#pragma unroll
  for (uint32_t j = 0; j < VECTOR; j++) v[j] = f(v[j], w[j]);
  store(y + i, v, n - i);
}

// Both dtypes of `y = f(x)` and of `y = f(a, b)`.
#define UNARY(name, f)                                                                                                  \
  extern "C" __global__ void LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))                          \
  name##_f32(const float* x, float* y, uint64_t n) { map(x, y, n, f); }                                                 \
  extern "C" __global__ void LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))                          \
  name##_bf16(const bf16* x, bf16* y, uint64_t n) { map(x, y, n, f); }
#define BINARY(name, f)                                                                                                 \
  extern "C" __global__ void LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))                          \
  name##_f32(const float* a, const float* b, float* y, uint64_t n) { map2(a, b, y, n, f); }                             \
  extern "C" __global__ void LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))                          \
  name##_bf16(const bf16* a, const bf16* b, bf16* y, uint64_t n) { map2(a, b, y, n, f); }
