// BERT's embeddings: y = LayerNorm(word[id] + token_type[type] + position[position]), and a plain table look-up's gradient
// is segment_sum of movement.cu: tokens grouped by id on the host, no atomics.
//
// Layouts: tables [rows, C] contiguous; ids, token_types, positions [T]; y, sum [T, C]; weight, bias [C] f32; mean, rstd [T]
// f32. A warp has a token. Backward = layer_norm_backward on `sum`, then segment_sum for each
// table. Preconditions: indices in range (checked on the host), C > 0. Bytes: 5 T C elements.
#include "primitives.cuh"

template <typename T>
DEVICE void forward(const uint32_t* ids, const uint32_t* token_types, const uint32_t* positions, const T* word,
                    const T* token_type, const T* position, const float* weight, const float* bias, T* y, T* sum,
                    float* mean, float* rstd, uint32_t rows, uint32_t width, float eps) {
  const uint32_t row = row_of_warp();
  if (row >= rows) return;
  const uint64_t at = static_cast<uint64_t>(row) * width;
  word += static_cast<uint64_t>(ids[row]) * width;
  token_type += static_cast<uint64_t>(token_types[row]) * width;
  position += static_cast<uint64_t>(positions[row]) * width;
  const auto add = [&](uint32_t channel, float (&v)[VECTOR]) {
    const uint32_t valid = width - channel;
    float t[VECTOR], p[VECTOR];
    load(v, word + channel, valid);
    load(t, token_type + channel, valid);
    load(p, position + channel, valid);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) v[i] = rounded<T>(v[i] + t[i] + p[i]);
    store(sum + at + channel, v, valid);
  };
  const auto again = [&](uint32_t channel, float (&v)[VECTOR]) { load(v, sum + at + channel, width - channel); };
  float held[HELD][VECTOR];
  const Statistics s = row_statistics(width, eps, held, add, again);
  if (lane_index() == 0) mean[row] = s.mean, rstd[row] = s.rstd;
  normalize_row(width, s, weight, bias, held, again,
                [&](uint32_t channel, float (&v)[VECTOR]) { store(y + at + channel, v, width - channel); });
}

#define EMBED(T, suffix)                                                                                                \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 6)                                                        \
  LAUNCH(grid(ceil_div(rows, BLOCK_WARPS)), block(BLOCK_THREADS))                                                       \
  embed_layer_norm_forward_##suffix(                                                                                    \
      const uint32_t* ids, const uint32_t* token_types, const uint32_t* positions, const T* word, const T* token_type,  \
      const T* position, const float* weight, const float* bias, T* y, T* sum, float* mean, float* rstd,                \
      uint32_t rows, uint32_t width, float eps) {                                                                       \
    forward(ids, token_types, positions, word, token_type, position, weight, bias, y, sum, mean, rstd, rows, width, eps); \
  }
EMBED(float, f32)
EMBED(bf16, bf16)
