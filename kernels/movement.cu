// Choosing rows, and the deterministic sum of chosen rows: the gradient of any look-up.
//
// gather_rows: y[b] = x[indices[b]]. A thread has eight channels of a row.
// segment_sum: for piece (row, begin, end): y[row] = sum over i in begin..end, in order, of x[index[i]] (x[i] if index is
// null). Rows without a piece are left alone. The host groups tokens by row (a counting sort) and cuts long groups: pieces
// of at most PIECE tokens; a row of one piece goes straight into the table, a row of several into scratch rows, which a second
// launch (index null, f32) adds into the table.
// Layouts: x [.., C] with x_stride between rows, y [.., C] contiguous. Bytes: every chosen row once, every written row once.
#include "primitives.cuh"

constexpr uint32_t THREADS = 128, PIECE = 64;

template <typename T>
DEVICE void gather(const T* x, uint64_t x_stride, const uint32_t* indices, T* y, uint32_t width) {
  const uint32_t channel = (blockIdx.y * THREADS + threadIdx.x) * VECTOR;
  if (channel >= width) return;
  float v[VECTOR];
  load(v, x + indices[blockIdx.x] * x_stride + channel, width - channel);
  store(y + static_cast<uint64_t>(blockIdx.x) * width + channel, v, width - channel);
}

// y[row] becomes the sum over begin..end of the index.
struct Piece {
  uint32_t row;
  uint32_t begin;
  uint32_t end;  // one past the last
};

template <typename T>
DEVICE void sum(const T* x, uint64_t x_stride, const uint32_t* index, const Piece* pieces, float* y, uint32_t width) {
  const uint32_t channel = (blockIdx.y * THREADS + threadIdx.x) * VECTOR;
  if (channel >= width) return;
  const Piece piece = pieces[blockIdx.x];
  float total[VECTOR] = {};
  for (uint32_t i = piece.begin; i < piece.end; i++) {
    float v[VECTOR];
    load(v, x + (index ? index[i] : i) * x_stride + channel, width - channel);
#pragma unroll
    for (uint32_t j = 0; j < VECTOR; j++) total[j] += v[j];
  }
  store(y + static_cast<uint64_t>(piece.row) * width + channel, total, width - channel);
}

#define ROWS(T, suffix)                                                                                                 \
  extern "C" __global__ void LAUNCH(with(rows), grid(rows, ceil_div(width, THREADS * VECTOR)), block(THREADS))          \
  gather_rows_##suffix(const T* x, uint64_t x_stride, const uint32_t* indices, T* y, uint32_t width) {                  \
    gather(x, x_stride, indices, y, width);                                                                             \
  }                                                                                                                     \
  extern "C" __global__ void LAUNCH(with(piece_count), grid(piece_count, ceil_div(width, THREADS * VECTOR)), block(THREADS)) \
  segment_sum_##suffix(const T* x, uint64_t x_stride, const uint32_t* NULLABLE index, const Piece* pieces, float* y,    \
                       uint32_t width) {                                                                                \
    sum(x, x_stride, index, pieces, y, width);                                                                          \
  }
ROWS(float, f32)
ROWS(bf16, bf16)
