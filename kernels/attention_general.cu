// Attention for any head size up to 128, f32 or bf16, in plain FMAs: the readable version of attention.cu, and the one that
// runs for f32. Formulas, shapes and options: crates/tensor/src/ops/attention/mod.rs.
//
// Ownership: a block of 128 threads has 32 rows (queries; keys in backward_dkv) of one head of one sequence.
// Thread (r, s) = (threadIdx / 4, threadIdx % 4) has row r and of the other side's 32 rows, and
// of the D channels, every fourth from s on; the four threads of a row are neighbours in a warp.
// Shared memory is dynamic: tiles of 32 x (D + 1) and 32 x 33 floats.
// FLOPs: 4 D a pair forward, 18 D backward (scores are computed in both backward kernels: no atomics on dQ; delta as in
// attention.cu). backward_dq runs before backward_dkv.
#include "attention.cuh"

constexpr uint32_t TILE = 32, THREADS = 128, LD = TILE + 1, MAX_PER_THREAD = 32, MAX_HEAD_SIZE = 4 * MAX_PER_THREAD;

// 32 rows of D channels from row `first` on, as f32; zeros from row `end` on.
template <typename T>
DEVICE void load_tile(float* tile, const T* source, uint64_t stride, uint32_t first, uint32_t end, uint32_t size) {
  for (uint32_t i = threadIdx.x; i < TILE * size; i += THREADS) {
    const uint32_t row = i / size, d = i % size;
    tile[row * (size + 1) + d] = first + row < end ? to_float(source[(first + row) * stride + d]) : 0.0f;
  }
}

DEVICE float dot(const float* a, const float* b, uint32_t size) {
  float sum = 0;
  for (uint32_t d = 0; d < size; d++) sum = fmaf(a[d], b[d], sum);
  return sum;
}

// Over the four threads of a row.
DEVICE float row_sum(float x) { x += __shfl_xor_sync(ALL_LANES, x, 1); return x + __shfl_xor_sync(ALL_LANES, x, 2); }
DEVICE float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
  return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// acc[d] += sum over k of weights[k] tile[k][d], for the thread's channels.
DEVICE void accumulate(float (&acc)[MAX_PER_THREAD], const float* weights, const float* tile, uint32_t size) {
  const uint32_t s = threadIdx.x % 4;
  for (uint32_t k = 0; k < TILE; k++) {
    const float w = weights[k];
#pragma unroll
    for (uint32_t i = 0; i < MAX_PER_THREAD; i++)
      if (s + 4 * i < size) acc[i] = fmaf(w, tile[k * (size + 1) + s + 4 * i], acc[i]);
  }
}
template <typename T> DEVICE void write(T* row, const float (&acc)[MAX_PER_THREAD], float scale, uint32_t size) {
  const uint32_t s = threadIdx.x % 4;
#pragma unroll
  for (uint32_t i = 0; i < MAX_PER_THREAD; i++)
    if (s + 4 * i < size) row[s + 4 * i] = from_float<T>(acc[i] * scale);
}

template <typename T>
DEVICE void forward(const T* qkv, const uint32_t* offsets, T* out, float* lse, const Attention& a, const Dropout& dropout) {
  extern __shared__ float shared[];
  const Span s = span_of(a, offsets);
  const uint32_t first = blockIdx.x * TILE, size = a.head_size, r = threadIdx.x / 4, strand = threadIdx.x % 4;
  if (first >= s.out_rows) return;
  float *query = shared, *key = query + TILE * (size + 1), *value = key + TILE * (size + 1), *score = value + TILE * (size + 1);
  const T* base = qkv + s.begin * a.qkv_stride + s.head * size;
  load_tile(query, base, a.qkv_stride, first, s.queries, size);
  float max = -INFINITY, sum = 0, acc[MAX_PER_THREAD] = {};
  for (uint32_t start = 0; start < s.length; start += TILE) {
    __syncthreads();
    load_tile(key, base + s.width, a.qkv_stride, start, s.length, size);
    load_tile(value, base + 2 * s.width, a.qkv_stride, start, s.length, size);
    __syncthreads();
    float scores[TILE / 4], top = max;
#pragma unroll
    for (uint32_t i = 0; i < TILE / 4; i++) {
      const uint32_t k = strand + 4 * i;
      const float x = dot(query + r * (size + 1), key + k * (size + 1), size) * a.softmax_scale;
      scores[i] = start + k < s.length ? x : -INFINITY;
      top = fmaxf(top, scores[i]);
    }
    top = row_max(top);
    const float shrink = expf(max - top);  // 0 for the first tile; every tile has a key, so top is finite
    max = top;
    sum *= shrink;
#pragma unroll
    for (uint32_t i = 0; i < MAX_PER_THREAD; i++) acc[i] *= shrink;
#pragma unroll
    for (uint32_t i = 0; i < TILE / 4; i++) {
      const uint32_t k = strand + 4 * i;
      const float p = expf(scores[i] - max);
      sum += p;
      score[r * LD + k] = is_kept(dropout, s, first + r, start + k) ? p : 0.0f;
    }
    __syncwarp();
    accumulate(acc, score + r * LD, value, size);
    __syncwarp();
  }
  sum = row_sum(sum);
  if (first + r >= s.out_rows) return;
  const uint64_t row = s.out_begin + first + r;
  write(out + row * s.width + s.head * size, acc, sum > 0 ? keep_scale(dropout) / sum : 0.0f, size);
  if (strand == 0) lse[static_cast<uint64_t>(s.head) * a.rows + row] = max + logf(sum);
}

// Both gradients of the scores' sides: with DKV the block has keys and loops over queries, else the reverse.
template <bool DKV, typename T>
DEVICE void backward(const T* qkv, const uint32_t* offsets, const T* dout, const float* lse, float* delta, T* dqkv,
                     const Attention& a, const Dropout& dropout) {
  extern __shared__ float shared[];
  const Span s = span_of(a, offsets);
  const uint32_t mine = blockIdx.x * TILE, size = a.head_size, r = threadIdx.x / 4, strand = threadIdx.x % 4;
  if (mine >= s.length) return;
  const uint32_t tile = TILE * (size + 1);
  float *query = shared, *key = query + tile, *value = key + tile, *dz = value + tile;
  float *p_kept = dz + tile, *ds = p_kept + TILE * LD, *row_lse = ds + TILE * LD, *row_delta = row_lse + TILE;
  const T* base = qkv + s.begin * a.qkv_stride + s.head * size;
  const T* dbase = dout + static_cast<uint64_t>(s.out_begin) * s.width + s.head * size;
  const uint64_t statistic = static_cast<uint64_t>(s.head) * a.rows + s.out_begin;
  const auto load_queries = [&](uint32_t start) {
    load_tile(query, base, a.qkv_stride, start, s.queries, size);
    load_tile(dz, dbase, s.width, start, s.queries, size);
    if (threadIdx.x < TILE) {
      const bool is_query = start + threadIdx.x < s.queries;
      row_lse[threadIdx.x] = is_query ? lse[statistic + start + threadIdx.x] : INFINITY;  // probabilities of 0
      row_delta[threadIdx.x] = DKV && is_query ? delta[statistic + start + threadIdx.x] : 0.0f;
    }
  };
  const auto load_keys = [&](uint32_t start) {
    load_tile(key, base + s.width, a.qkv_stride, start, s.length, size);
    load_tile(value, base + 2 * s.width, a.qkv_stride, start, s.length, size);
  };
  if (DKV) load_keys(mine); else load_queries(mine);
  float first_acc[MAX_PER_THREAD] = {}, second_acc[MAX_PER_THREAD] = {};
  const float scale = keep_scale(dropout);
  const uint32_t end = DKV ? s.queries : s.length;
  float delta_sum = 0;
  // The first pass of backward_dq sums delta.
#pragma unroll 1
  for (uint32_t pass = DKV ? 1 : 0; pass < 2; pass++)
  for (uint32_t start = 0; start < end; start += TILE) {
    __syncthreads();
    if (DKV) load_queries(start); else load_keys(start);
    __syncthreads();
#pragma unroll
    for (uint32_t i = 0; i < TILE / 4; i++) {
      const uint32_t other = strand + 4 * i, q = DKV ? other : r, k = DKV ? r : other;
      const uint32_t query_index = (DKV ? start : mine) + q, key_index = (DKV ? mine : start) + k;
      const float x = dot(query + q * (size + 1), key + k * (size + 1), size) * a.softmax_scale;
      const float p = key_index < s.length ? expf(x - row_lse[q]) : 0.0f;
      const float keep = is_kept(dropout, s, query_index, key_index) ? scale : 0.0f;
      const float dp = keep * dot(dz + q * (size + 1), value + k * (size + 1), size);
      if (pass == 0) {
        delta_sum = fmaf(p, dp, delta_sum);
        continue;
      }
      p_kept[r * LD + other] = keep * p;
      ds[r * LD + other] = p * (dp - row_delta[q]);
    }
    if (pass == 0) {
      if (start + TILE >= end) {
        const float sum = row_sum(delta_sum);
        if (strand == 0) row_delta[r] = sum;
        if (strand == 0 && mine + r < s.queries) delta[statistic + mine + r] = sum;
        __syncwarp();
      }
      continue;
    }
    __syncwarp();
    if (DKV) {
      accumulate(first_acc, ds + r * LD, query, size);
      accumulate(second_acc, p_kept + r * LD, dz, size);
    } else {
      accumulate(first_acc, ds + r * LD, key, size);
    }
    __syncwarp();
  }
  if (mine + r >= s.length) return;
  T* row = dqkv + static_cast<uint64_t>(s.begin + mine + r) * 3 * s.width + s.head * size;
  write(row + (DKV ? s.width : 0), first_acc, a.softmax_scale, size);
  if (DKV) write(row + 2 * s.width, second_acc, 1.0f, size);
}

// Probabilities before dropout of chosen heads, f32: for sequence b [chosen, queries, length] from starts[b] on. A block
// has a query; longest is 1 if first_only.
template <typename T>
DEVICE void probabilities(const T* qkv, const uint32_t* offsets, const float* lse, const uint32_t* chosen,
                          const uint64_t* starts, float* out, const Attention& a) {
  const Span s = span_of(a, offsets);
  const uint32_t query = blockIdx.x, head = chosen[blockIdx.y];
  if (query >= s.queries) return;
  const T* q = qkv + (s.begin + query) * a.qkv_stride + head * a.head_size;
  const T* keys = qkv + s.begin * a.qkv_stride + s.width + head * a.head_size;
  const float shift = lse[static_cast<uint64_t>(head) * a.rows + s.out_begin + query];
  out += starts[s.sequence] + (static_cast<uint64_t>(blockIdx.y) * s.out_rows + query) * s.length;
  for (uint32_t k = threadIdx.x; k < s.length; k += THREADS) {
    float sum = 0;
    for (uint32_t d = 0; d < a.head_size; d++) sum = fmaf(to_float(q[d]), to_float(keys[k * a.qkv_stride + d]), sum);
    out[k] = expf(sum * a.softmax_scale - shift);
  }
}

#define ATTENTION(T, suffix)                                                                                            \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
  LAUNCH(with(longest, sequences), grid(ceil_div(longest, TILE), attention.heads, sequences), block(THREADS),           \
         shared(4 * (3 * TILE * (attention.head_size + 1) + TILE * LD)))                                                \
  attention_general_forward_##suffix(const T* qkv, const uint32_t* offsets, T* out, float* lse, Attention attention,    \
                                     Dropout dropout) {                                                                 \
    forward(qkv, offsets, out, lse, attention, dropout);                                                                \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                              \
  LAUNCH(with(longest, sequences), grid(ceil_div(longest, TILE), attention.heads, sequences), block(THREADS),           \
         shared(4 * (4 * TILE * (attention.head_size + 1) + 2 * TILE * LD + 2 * TILE)))                                 \
  attention_general_backward_dq_##suffix(const T* qkv, const uint32_t* offsets, const T* dout, const float* lse,        \
                                         float* delta, T* dqkv, Attention attention, Dropout dropout) {                 \
    backward<false>(qkv, offsets, dout, lse, delta, dqkv, attention, dropout);                                          \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                              \
  LAUNCH(with(longest, sequences), grid(ceil_div(longest, TILE), attention.heads, sequences), block(THREADS),           \
         shared(4 * (4 * TILE * (attention.head_size + 1) + 2 * TILE * LD + 2 * TILE)))                                 \
  attention_general_backward_dkv_##suffix(const T* qkv, const uint32_t* offsets, const T* dout, const float* lse,       \
                                          float* delta, T* dqkv, Attention attention, Dropout dropout) {                \
    backward<true>(qkv, offsets, dout, lse, delta, dqkv, attention, dropout);                                           \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
  LAUNCH(with(longest, chosen_count, sequences), grid(longest, chosen_count, sequences), block(THREADS))                \
  attention_probabilities_##suffix(const T* qkv, const uint32_t* offsets, const float* lse, const uint32_t* chosen,     \
                                   const uint64_t* starts, float* out, Attention attention) {                           \
    probabilities(qkv, offsets, lse, chosen, starts, out, attention);                                                   \
  }
ATTENTION(float, f32)
ATTENTION(bf16, bf16)
