// The gradient of one normalised row, shared by layer_norm.cu and dropout_add_layer_norm.cu.
#pragma once
#include "primitives.cuh"

// Rows of a block of the backward kernels; each block writes one partial sum of the gradients of parameters.
constexpr uint32_t BACKWARD_ROWS = 32;

// With x_hat = (x - mean) rstd and g = dy weight: dx = rstd (g - mean(g) - x_hat mean(g x_hat)); calls
// `emit(channel, dx)`. Adds dy x_hat and dy to this warp's sums in shared memory, where a lane has its own channels.
template <typename T, typename Emit>
DEVICE void layer_norm_backward_row(const T* dy, const T* x, const float* weight, Statistics s, uint32_t width,
                                    float* dweight, float* dbias, Emit emit) {
  float sum_g = 0, sum_gx = 0;
  float x_hats[HELD][VECTOR], gs[HELD][VECTOR];
  const auto read = [&](uint32_t channel, float (&x_hat)[VECTOR], float (&g)[VECTOR], bool add) {
    const uint32_t valid = width - channel;
    float w[VECTOR];
    load(x_hat, x + channel, valid);
    load(g, dy + channel, valid);
    load(w, weight + channel, valid);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) {
      x_hat[i] = (x_hat[i] - s.mean) * s.rstd;
      if (add && i < valid) {
        dweight[channel + i] += g[i] * x_hat[i];
        dbias[channel + i] += g[i];
      }
      g[i] *= w[i];  // zero past the end
      if (add) sum_g += g[i], sum_gx = fmaf(g[i], x_hat[i], sum_gx);
    }
  };
  const uint32_t stride = WARP * VECTOR, first = lane_index() * VECTOR;
#pragma unroll
  for (uint32_t i = 0; i < HELD; i++)
    if (first + i * stride < width) read(first + i * stride, x_hats[i], gs[i], true);
  for (uint32_t channel = first + HELD * stride; channel < width; channel += stride) {
    float x_hat[VECTOR], g[VECTOR];
    read(channel, x_hat, g, true);
  }
  const float mean_g = warp_sum(sum_g) / width, mean_gx = warp_sum(sum_gx) / width;
  const auto finish = [&](uint32_t channel, const float (&x_hat)[VECTOR], float (&g)[VECTOR]) {
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) g[i] = s.rstd * (g[i] - mean_g - x_hat[i] * mean_gx);
    emit(channel, g);
  };
#pragma unroll
  for (uint32_t i = 0; i < HELD; i++)
    if (first + i * stride < width) finish(first + i * stride, x_hats[i], gs[i]);
  for (uint32_t channel = first + HELD * stride; channel < width; channel += stride) {
    float x_hat[VECTOR], g[VECTOR];
    read(channel, x_hat, g, false);
    finish(channel, x_hat, g);
  }
}

// Zeroes the warps' sums in shared memory, [warps][count].
DEVICE void clear_sums(float* sums, uint32_t count) {
  for (uint32_t i = threadIdx.x; i < blockDim.x / WARP * count; i += blockDim.x) sums[i] = 0.0f;
  __syncthreads();
}

// Adds the warps' sums in their order into row blockIdx.x of partials [ceil(T / BACKWARD_ROWS), count].
DEVICE void write_sums(const float* sums, float* partials, uint32_t count) {
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    float sum = sums[i];
    for (uint32_t warp = 1; warp < blockDim.x / WARP; warp++) sum += sums[warp * count + i];
    partials[static_cast<uint64_t>(blockIdx.x) * count + i] = sum;
  }
}
