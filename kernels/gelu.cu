// GELU in both forms, ReLU and tanh, forward and backward, alone and with the bias before them.
//
// Ownership: a thread has 8 neighbouring elements. Layouts: x, y, dy, dx [n]; with a bias: product, y [rows, N] contiguous,
// bias [N] f32.
// Preconditions: none but n > 0. Bytes: 2 n (forward) and 3 n (backward) elements moved, about 20 to 40 FLOPs each.
#include "elementwise.cuh"
#include "gelu.cuh"

struct GeluErf { DEVICE float operator()(float x) const { return gelu_erf(x); } };
struct GeluErfBackward { DEVICE float operator()(float dy, float x) const { return dy * gelu_erf_slope(x); } };
struct GeluTanh { DEVICE float operator()(float x) const { return gelu_tanh(x); } };
struct GeluTanhBackward { DEVICE float operator()(float dy, float x) const { return dy * gelu_tanh_slope(x); } };
// NaN stays NaN.
struct Relu { DEVICE float operator()(float x) const { return x < 0.0f ? 0.0f : x; } };
struct ReluBackward { DEVICE float operator()(float dy, float y) const { return y > 0.0f ? dy : 0.0f; } };
struct Tanh { DEVICE float operator()(float x) const { return tanhf(x); } };
struct TanhBackward { DEVICE float operator()(float dy, float y) const { return dy * fmaf(-y, y, 1.0f); } };

UNARY(gelu_erf_forward, GeluErf())
BINARY(gelu_erf_backward, GeluErfBackward())
UNARY(gelu_tanh_forward, GeluTanh())
BINARY(gelu_tanh_backward, GeluTanhBackward())
UNARY(relu_forward, Relu())
BINARY(relu_backward, ReluBackward())
UNARY(tanh_forward, Tanh())
BINARY(tanh_backward, TanhBackward())

// y = f(product + bias). If save_pre, the sum takes the product's place: what backward needs.
template <typename T, typename F>
DEVICE void bias_map(T* product, const float* bias, T* y, uint32_t width, uint32_t save_pre, F f) {
  const uint32_t channel = (blockIdx.y * ELEMENT_THREADS + threadIdx.x) * VECTOR;
  if (channel >= width) return;
  const uint64_t at = static_cast<uint64_t>(blockIdx.x) * width + channel;
  const uint32_t valid = width - channel;
  float x[VECTOR], b[VECTOR];
  load(x, product + at, valid);
  load(b, bias + channel, valid);
#pragma unroll
  for (uint32_t i = 0; i < VECTOR; i++) x[i] += b[i];
  if (save_pre) store(product + at, x, valid);
#pragma unroll
  for (uint32_t i = 0; i < VECTOR; i++) x[i] = f(x[i]);
  store(y + at, x, valid);
}

#define BIASED(name, f)                                                                                                 \
  extern "C" __global__ void LAUNCH(with(rows), grid(rows, ceil_div(width, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))    \
  name##_f32(float* product, const float* bias, float* y, uint32_t width, uint32_t save_pre) {                          \
    bias_map(product, bias, y, width, save_pre, f);                                                                     \
  }                                                                                                                     \
  extern "C" __global__ void LAUNCH(with(rows), grid(rows, ceil_div(width, BLOCK_ELEMENTS)), block(ELEMENT_THREADS))    \
  name##_bf16(bf16* product, const float* bias, bf16* y, uint32_t width, uint32_t save_pre) {                           \
    bias_map(product, bias, y, width, save_pre, f);                                                                     \
  }
BIASED(bias_gelu_erf_forward, GeluErf())
BIASED(bias_gelu_tanh_forward, GeluTanh())
BIASED(bias_relu_forward, Relu())
BIASED(bias_tanh_forward, Tanh())
