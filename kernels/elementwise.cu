// Arithmetic element by element on contiguous arrays of one shape, and the copy that makes any view contiguous.
//
// a, b, x, y [n]: a thread has eight elements. Broadcasts go through strided_copy first: y[i] contiguous over dims, x read
// with strides (0 repeats), of which a thread has one element.
// Bytes: 2 or 3 n elements.
#include "elementwise.cuh"

struct Add { DEVICE float operator()(float a, float b) const { return a + b; } };
struct Sub { DEVICE float operator()(float a, float b) const { return a - b; } };
struct Mul { DEVICE float operator()(float a, float b) const { return a * b; } };
struct Div { DEVICE float operator()(float a, float b) const { return a / b; } };
struct Neg { DEVICE float operator()(float x) const { return -x; } };
struct Exp { DEVICE float operator()(float x) const { return expf(x); } };
struct Ln { DEVICE float operator()(float x) const { return logf(x); } };
struct Sqrt { DEVICE float operator()(float x) const { return sqrtf(x); } };
struct SqrtBackward { DEVICE float operator()(float dy, float y) const { return dy / (y + y); } };
struct Affine {
  float factor, term;
  DEVICE float operator()(float x) const { return x * factor + term; }
};

BINARY(add, Add())
BINARY(sub, Sub())
BINARY(mul, Mul())
BINARY(div, Div())
UNARY(neg, Neg())
UNARY(exp_forward, Exp())
UNARY(ln_forward, Ln())
UNARY(sqrt_forward, Sqrt())
BINARY(sqrt_backward, SqrtBackward())

// y = factor x + term.
#define AFFINE(T, suffix)                                                                                               \
  extern "C" __global__ void LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))                          \
  affine_##suffix(const T* x, T* y, uint64_t n, float factor, float term) { map(x, y, n, Affine{factor, term}); }
AFFINE(float, f32)
AFFINE(bf16, bf16)

// y = value; does not read y, which may hold anything.
template <typename T> DEVICE void fill(T* y, uint64_t n, float value) {
  const uint64_t i = first_element();
  if (i >= n) return;
  float v[VECTOR];
#pragma unroll
  for (uint32_t j = 0; j < VECTOR; j++) v[j] = value;
  store(y + i, v, n - i);
}
#define FILL(T, suffix)                                                                                                 \
  extern "C" __global__ void LAUNCH(grid(ceil_div(n, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))                          \
  fill_##suffix(T* y, uint64_t n, float value) { fill(y, n, value); }
FILL(float, f32)
FILL(bf16, bf16)

// A tensor of up to six dimensions.
struct View {
  uint64_t dims[6];     // of the result, leading ones 1
  uint64_t strides[6];  // of x, in elements; 0 repeats
};
template <typename T> DEVICE void copy(const T* x, T* y, uint64_t n, const View& view) {
  const uint64_t i = static_cast<uint64_t>(blockIdx.x) * ELEMENT_THREADS + threadIdx.x;
  if (i >= n) return;
  uint64_t rest = i, at = 0;
#pragma unroll
  for (int d = 5; d >= 0; d--) {
    at += rest % view.dims[d] * view.strides[d];
    rest /= view.dims[d];
  }
  y[i] = x[at];
}
#define STRIDED_COPY(T, suffix)                                                                                         \
  extern "C" __global__ void LAUNCH(grid(ceil_div(n, ELEMENT_THREADS)), block(ELEMENT_THREADS))                         \
  strided_copy_##suffix(const T* x, T* y, uint64_t n, View view) { copy(x, y, n, view); }
STRIDED_COPY(float, f32)
STRIDED_COPY(bf16, bf16)
