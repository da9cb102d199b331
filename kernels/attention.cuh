// What the attention kernels share: the rows of a sequence, and the dropout of one probability.
#pragma once
#include "primitives.cuh"

// Arguments of every kernel. qkv [T, 3C] (query | key | value, C = H D) with qkv_stride elements between rows; out, dout
// [rows, C]; lse, delta [H, rows] f32; rows = T, or B if first_only (the first row of each sequence is its only query).
struct Attention {
  uint64_t qkv_stride;   // elements between rows of qkv
  uint32_t heads;        // H
  uint32_t head_size;    // D
  uint32_t rows;         // of the output: T, or B if first_only
  uint32_t first_only;   // 1 if only the first row of each sequence is a query, else 0
  float softmax_scale;   // what scores are multiplied by
  uint32_t reserved;     // padding that is written
};

// One head of one sequence: blockIdx.y and blockIdx.z.
struct Span {
  uint32_t sequence, head;
  uint32_t begin;      // first row in qkv
  uint32_t length;     // keys
  uint32_t queries;    // query rows: all, or the first one under first_only
  uint32_t out_begin;  // first row in out
  uint32_t out_rows;   // rows in out: the query rows; under first_only always one, also of an empty sequence
  uint32_t width;      // C
};
DEVICE Span span_of(const Attention& a, const uint32_t* offsets) {
  Span s;
  s.sequence = blockIdx.z;
  s.head = blockIdx.y;
  s.begin = offsets[s.sequence];
  s.length = offsets[s.sequence + 1] - s.begin;
  s.out_rows = a.first_only ? 1 : s.length;
  s.queries = min(s.out_rows, s.length);
  s.out_begin = a.first_only ? s.sequence : s.begin;
  s.width = a.heads * a.head_size;
  return s;
}

DEVICE float keep_scale(const Dropout& dropout) { return dropout.threshold ? dropout.scale : 1.0f; }

// Whether (query, key) is kept: the readable definition, one call of Philox for one draw.
DEVICE bool is_kept(const Dropout& dropout, const Span& s, uint32_t query, uint32_t key) {
  if (!dropout.threshold) return true;
  const uint32_t row = query % 16, column = key % 16;
  const uint4 r = attention_draws(dropout, s.head, s.sequence, query, key, (row % 8) * 4 + (column % 8) / 2);
  const uint32_t words[4] = {r.x, r.y, r.z, r.w};
  uint32_t word = words[0];
#pragma unroll
  for (uint32_t i = 1; i < 4; i++)
    if (i == row / 8 * 2 + column / 8) word = words[i];
  return draw(word, column % 2) >= dropout.threshold;
}
