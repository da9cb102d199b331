// The two GELUs of crates/tensor/src/ops/gelu.rs and their derivatives, used alone and in the epilogue of a GEMM.
#pragma once
#include "primitives.cuh"

constexpr float SQRT_2_OVER_PI = 0.7978845608028654f;
constexpr float CUBIC = 0.044715f;

// Phi(x) = (1 + erf(x / sqrt 2)) / 2
DEVICE float normal_cdf(float x) { return fmaf(erff(x * 0.7071067811865476f), 0.5f, 0.5f); }

DEVICE float gelu_erf(float x) { return x * normal_cdf(x); }
DEVICE float gelu_erf_slope(float x) {
  const float density = expf(x * x * -0.5f) * (0.5f * SQRT_2_OVER_PI);
  return fmaf(x, density, normal_cdf(x));
}

// (1 + tanh u) / 2 = 1 / (1 + e^-2u) and its derivative by x; neither loses digits where tanh is near -1 or 1.
struct Gate { float value, slope; };
DEVICE Gate gelu_gate(float x) {
  const float square = fminf(144.0f, x * x);  // beyond |x| = 12 the gate is 0 or 1
  const float u = x * fmaf(square, SQRT_2_OVER_PI * CUBIC, SQRT_2_OVER_PI);
  const float du = fmaf(square, 3.0f * SQRT_2_OVER_PI * CUBIC, SQRT_2_OVER_PI);
  const float e = expf(-2.0f * fabsf(u)), larger = 1.0f / (1.0f + e), smaller = e * larger;
  return {u < 0.0f ? smaller : larger, 2.0f * larger * smaller * du};
}
DEVICE float gelu_tanh(float x) { return x * gelu_gate(x).value; }
DEVICE float gelu_tanh_slope(float x) {
  const Gate gate = gelu_gate(x);
  return fmaf(x, gate.slope, gate.value);
}
