// Attention on tensor cores: bf16, head sizes 32 and 64, over unpadded sequences (FlashAttention-2: Dao, arXiv 2307.08691).
// Formulas, shapes and options: crates/tensor/src/ops/attention/mod.rs; the same in plain FMAs: attention_general.cu.
//
// Ownership: a block of four warps has 64 rows of one head of one sequence (queries; keys in backward_dkv), a warp 16 of
// them; the other side passes in tiles of 64 rows, two in flight. Blocks past the end of their sequence
// return. Scores and their gradients stay in registers: an accumulator of one product is the left operand of
// the next. Static shared memory (D = 64): forward 45 KiB, backward 37 KiB; rows are padded by 16 bytes against conflicts.
// Preconditions: rows of qkv, out and dout 16-byte aligned (qkv_stride a multiple of 8); backward_dq before
// backward_dkv.
// backward_dq sums delta_i = sum_j P_ij dP_ij in a pass of its own, as the CPU does, and leaves it to backward_dkv. O_i . dO_i is
// the same number and costs no pass, but in bf16 it leaves the keys' bias a gradient of rounding errors.
// FLOPs: 4 D a pair forward; 18 D backward: 4 D more than with atomics on dQ, which would not be deterministic, and 4 D for delta.
#include "attention.cuh"

constexpr uint32_t TILE = 64, THREADS = 128, NT = TILE / 8;

template <uint32_t D> struct Tile {
  static constexpr uint32_t LD = D + 8;
  bf16 rows[TILE * LD];

  // 64 rows from `source` on, of which `valid` exist; zeros after them.
  DEVICE void fill(const bf16* source, uint64_t stride, uint32_t valid) {
#pragma unroll
    for (uint32_t i = threadIdx.x; i < TILE * (D / 8); i += THREADS) {
      const uint32_t row = i / (D / 8), column = i % (D / 8) * 8;
      const bool exists = row < valid;
      copy_async(shared_address(rows + row * LD + column), source + (exists ? row : 0) * stride + column, exists ? 16 : 0);
    }
  }
  // The warp's 16 rows as left operands, one for each 16 channels.
  DEVICE void left(uint32_t (&a)[D / 16][4]) const {
    const uint32_t row = warp_index() * 16 + lane_index() % 16, column = lane_index() / 16 * 8;
#pragma unroll
    for (uint32_t k = 0; k < D / 16; k++) load_matrices(a[k], shared_address(rows + row * LD + k * 16 + column));
  }
};

// s[16 x 64] = a tile^T: tile rows are the columns of s.
template <uint32_t D> DEVICE void scores(float (&s)[NT][4], const uint32_t (&a)[D / 16][4], const Tile<D>& tile) {
  const uint32_t lane = lane_index(), row = lane % 8 + lane / 16 * 8, column = lane / 8 % 2 * 8;
#pragma unroll
  for (uint32_t n = 0; n < NT; n++)
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) s[n][i] = 0.0f;
#pragma unroll
  for (uint32_t k = 0; k < D / 16; k++)
#pragma unroll
    for (uint32_t n = 0; n < NT; n += 2) {
      uint32_t b[4];
      load_matrices(b, shared_address(tile.rows + (n * 8 + row) * Tile<D>::LD + k * 16 + column));
      multiply(s[n], a[k], b[0], b[1]);
      multiply(s[n + 1], a[k], b[2], b[3]);
    }
}

// acc[16 x D] += p[16 x 64] tile, with p packed from accumulators.
template <uint32_t D> DEVICE void accumulate(float (&acc)[D / 8][4], const uint32_t (&p)[NT / 2][4], const Tile<D>& tile) {
  const uint32_t row = lane_index() % 16, column = lane_index() / 16 * 8;
#pragma unroll
  for (uint32_t k = 0; k < NT / 2; k++)
#pragma unroll
    for (uint32_t n = 0; n < D / 8; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, shared_address(tile.rows + (k * 16 + row) * Tile<D>::LD + n * 8 + column));
      multiply(acc[n], p[k], b[0], b[1]);
      multiply(acc[n + 1], p[k], b[2], b[3]);
    }
}

// Accumulators of 16 x 64 as the left operands of a product over the 64.
DEVICE void pack(uint32_t (&p)[NT / 2][4], const float (&s)[NT][4]) {
#pragma unroll
  for (uint32_t n = 0; n < NT; n++) {
    p[n / 2][n % 2 * 2] = pack_bf16(s[n][0], s[n][1]);
    p[n / 2][n % 2 * 2 + 1] = pack_bf16(s[n][2], s[n][3]);
  }
}

// The warp's 16 rows times scale, row i to `out + i stride`, those below `valid`.
template <uint32_t D>
DEVICE void write(bf16* out, uint64_t stride, uint32_t valid, const float (&acc)[D / 8][4], const float (&scale)[2]) {
  const uint32_t g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
  for (uint32_t half = 0; half < 2; half++) {
    const uint32_t row = g + half * 8;
    if (row >= valid) continue;
#pragma unroll
    for (uint32_t n = 0; n < D / 8; n++)
      *reinterpret_cast<uint32_t*>(out + row * stride + n * 8 + 2 * t) =
          pack_bf16(acc[n][2 * half] * scale[half], acc[n][2 * half + 1] * scale[half]);
  }
}

DEVICE uint32_t below(uint32_t end, uint32_t start) { return end > start ? end - start : 0; }

// One bit an element of a 16 x 64 tile of queries x keys, bit 4 (n % 8) + i for s[n][i]: set if kept. The lanes' own draws.
DEVICE uint32_t kept_bits(const Dropout& dropout, const Span& s, uint32_t query, uint32_t key) {
  uint32_t bits = 0;
#pragma unroll
  for (uint32_t block = 0; block < NT / 2; block++) {
    const uint4 r = attention_draws(dropout, s.head, s.sequence, query, key + block * 16, lane_index());
    const uint32_t words[4] = {r.x, r.z, r.y, r.w};  // s[2 block][0..2], [2..4], then s[2 block + 1]
#pragma unroll
    for (uint32_t i = 0; i < 8; i++)
      bits |= static_cast<uint32_t>(draw(words[i / 2], i % 2) >= dropout.threshold) << (block * 8 + i);
  }
  return bits;
}

// The same for the transposed tile, keys x queries: another lane's draws, fetched by shuffles.
DEVICE uint32_t kept_bits_transposed(const Dropout& dropout, const Span& s, uint32_t query, uint32_t key) {
  const uint32_t g = lane_index() / 4, t = lane_index() % 4;
  uint32_t bits = 0;
#pragma unroll
  for (uint32_t block = 0; block < NT / 2; block++) {
    const uint4 r = attention_draws(dropout, s.head, s.sequence, query + block * 16, key, lane_index());
    const uint32_t words[4] = {r.x, r.y, r.z, r.w};  // of (query half, key half)
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
      // Element i: query half i / 4, key half i / 2 % 2, query 2 t + i % 2, key g.
      const uint32_t word = __shfl_sync(ALL_LANES, words[i / 2], (2 * t + i % 2) * 4 + g / 2);
      bits |= static_cast<uint32_t>(draw(word, g % 2) >= dropout.threshold) << (block * 8 + i);
    }
  }
  return bits;
}

template <uint32_t D>
DEVICE void forward(const bf16* qkv, const uint32_t* offsets, bf16* out, float* lse, const Attention& a, const Dropout& dropout) {
  __shared__ __align__(16) Tile<D> query, key[2], value[2];
  const Span s = span_of(a, offsets);
  const uint32_t first = blockIdx.x * TILE, lane = lane_index(), g = lane / 4, t = lane % 4;
  if (first >= s.out_rows) return;
  const bf16* base = qkv + s.begin * a.qkv_stride + s.head * D;
  const auto fill = [&](uint32_t start, uint32_t stage) {
    key[stage].fill(base + s.width + start * a.qkv_stride, a.qkv_stride, below(s.length, start));
    value[stage].fill(base + 2 * s.width + start * a.qkv_stride, a.qkv_stride, below(s.length, start));
    copy_commit();
  };
  const uint32_t my_query = first + warp_index() * 16;
  const float scale = a.softmax_scale * LOG2_E;
  float acc[D / 8][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  uint32_t q[D / 16][4];
  if (s.length) {
    query.fill(base + first * a.qkv_stride, a.qkv_stride, below(s.queries, first));
    fill(0, 0);
  }
  for (uint32_t start = 0, stage = 0; start < s.length; start += TILE, stage ^= 1) {
    if (start + TILE < s.length) {
      fill(start + TILE, stage ^ 1);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    if (start == 0) query.left(q);
    float x[NT][4];
    scores<D>(x, q, key[stage]);
    float top[2] = {max[0], max[1]};
#pragma unroll
    for (uint32_t n = 0; n < NT; n++)
#pragma unroll
      for (uint32_t i = 0; i < 4; i++) {
        x[n][i] = start + n * 8 + 2 * t + i % 2 < s.length ? x[n][i] * scale : -INFINITY;
        top[i / 2] = fmaxf(top[i / 2], x[n][i]);
      }
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
      // Over the four lanes of a row. Every tile has a key, so the maximum is finite.
      top[half] = fmaxf(top[half], __shfl_xor_sync(ALL_LANES, top[half], 1));
      top[half] = fmaxf(top[half], __shfl_xor_sync(ALL_LANES, top[half], 2));
      const float shrink = ex2(max[half] - top[half]);
      max[half] = top[half];
      sum[half] *= shrink;
#pragma unroll
      for (uint32_t n = 0; n < D / 8; n++) acc[n][2 * half] *= shrink, acc[n][2 * half + 1] *= shrink;
    }
    const uint32_t kept = dropout.threshold ? kept_bits(dropout, s, my_query, start) : ~0u;
#pragma unroll
    for (uint32_t n = 0; n < NT; n++)
#pragma unroll
      for (uint32_t i = 0; i < 4; i++) {
        const float p = ex2(x[n][i] - max[i / 2]);
        sum[i / 2] += p;
        x[n][i] = kept >> (n * 4 + i) & 1 ? p : 0.0f;
      }
    uint32_t p[NT / 2][4];
    pack(p, x);
    accumulate<D>(acc, p, value[stage]);
    __syncthreads();
  }
  float inverse[2];
#pragma unroll
  for (uint32_t half = 0; half < 2; half++) {
    sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 1);
    sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 2);
    inverse[half] = sum[half] > 0 ? keep_scale(dropout) / sum[half] : 0.0f;
    const uint32_t row = my_query + g + half * 8;
    if (t == 0 && row < s.out_rows)
      lse[static_cast<uint64_t>(s.head) * a.rows + s.out_begin + row] = max[half] * LN_2 + logf(sum[half]);
  }
  const uint64_t row = s.out_begin + my_query;
  write<D>(out + row * s.width + s.head * D, s.width, below(s.out_rows, my_query), acc, inverse);
}

// A block has 64 queries and passes over the keys. Rows that are no query get zeros.
template <uint32_t D>
DEVICE void backward_dq(const bf16* qkv, const uint32_t* offsets, const bf16* dout, const float* lse, float* delta,
                        bf16* dqkv, const Attention& a, const Dropout& dropout) {
  __shared__ __align__(16) Tile<D> key[2], value[2];
  const Span s = span_of(a, offsets);
  const uint32_t first = blockIdx.x * TILE, lane = lane_index(), g = lane / 4, t = lane % 4;
  if (first >= s.length) return;
  const bf16* base = qkv + s.begin * a.qkv_stride + s.head * D;
  const bf16* dbase = dout + static_cast<uint64_t>(s.out_begin) * s.width + s.head * D;
  const uint32_t my_query = first + warp_index() * 16;
  // The block's own rows pass through the second stage, before it is needed.
  key[1].fill(base + first * a.qkv_stride, a.qkv_stride, below(s.queries, first));
  value[1].fill(dbase + static_cast<uint64_t>(first) * s.width, s.width, below(s.queries, first));
  copy_commit();
  copy_wait<0>();
  __syncthreads();
  uint32_t q[D / 16][4], dz[D / 16][4];
  key[1].left(q);
  value[1].left(dz);
  __syncthreads();
  const uint64_t statistic = static_cast<uint64_t>(s.head) * a.rows + s.out_begin;
  float shift[2], row_delta[2];
#pragma unroll
  for (uint32_t half = 0; half < 2; half++) {
    const uint32_t row = my_query + g + half * 8;
    shift[half] = row < s.queries ? lse[statistic + row] * LOG2_E : INFINITY;  // probabilities of 0
    row_delta[half] = 0.0f;
  }
  const auto fill = [&](uint32_t start, uint32_t stage) {
    key[stage].fill(base + s.width + start * a.qkv_stride, a.qkv_stride, below(s.length, start));
    value[stage].fill(base + 2 * s.width + start * a.qkv_stride, a.qkv_stride, below(s.length, start));
    copy_commit();
  };
  const float scale = a.softmax_scale * LOG2_E, keep = keep_scale(dropout);
  float acc[D / 8][4] = {}, delta_sum[2] = {};
  // The first pass sums delta.
#pragma unroll 1
  for (uint32_t pass = 0; pass < 2; pass++) {
  fill(0, 0);
  for (uint32_t start = 0, stage = 0; start < s.length; start += TILE, stage ^= 1) {
    if (start + TILE < s.length) {
      fill(start + TILE, stage ^ 1);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    float x[NT][4], dp[NT][4];
    scores<D>(x, q, key[stage]);
    scores<D>(dp, dz, value[stage]);
    const uint32_t kept = dropout.threshold ? kept_bits(dropout, s, my_query, start) : ~0u;
#pragma unroll
    for (uint32_t n = 0; n < NT; n++)
#pragma unroll
      for (uint32_t i = 0; i < 4; i++) {
        const bool exists = start + n * 8 + 2 * t + i % 2 < s.length;
        const float p = exists ? ex2(x[n][i] * scale - shift[i / 2]) : 0.0f;
        const float dprobability = kept >> (n * 4 + i) & 1 ? keep * dp[n][i] : 0.0f;
        x[n][i] = p * (dprobability - row_delta[i / 2]);  // row_delta is 0 while it is summed
        delta_sum[i / 2] += x[n][i];
      }
    if (pass == 1) {
      uint32_t ds[NT / 2][4];
      pack(ds, x);
      accumulate<D>(acc, ds, key[stage]);
    }
    __syncthreads();
  }
    if (pass == 1) break;
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
      delta_sum[half] += __shfl_xor_sync(ALL_LANES, delta_sum[half], 1);
      row_delta[half] = delta_sum[half] + __shfl_xor_sync(ALL_LANES, delta_sum[half], 2);
      const uint32_t row = my_query + g + half * 8;
      if (t == 0 && row < s.queries) delta[statistic + row] = row_delta[half];
    }
  }
  const float scales[2] = {a.softmax_scale, a.softmax_scale};
  bf16* row = dqkv + static_cast<uint64_t>(s.begin + my_query) * 3 * s.width + s.head * D;
  write<D>(row, 3 * s.width, below(s.length, my_query), acc, scales);
}

// A block has 64 keys and passes over the queries. Scores are transposed (keys x queries), so that P^T and dS^T are left
// operands as they stand.
template <uint32_t D>
DEVICE void backward_dkv(const bf16* qkv, const uint32_t* offsets, const bf16* dout, const float* lse, float* delta,
                         bf16* dqkv, const Attention& a, const Dropout& dropout) {
  __shared__ __align__(16) Tile<D> query[2], dz[2];
  __shared__ float row_shift[2][TILE], row_delta[2][TILE];
  const Span s = span_of(a, offsets);
  const uint32_t first = blockIdx.x * TILE, t = lane_index() % 4, g = lane_index() / 4;
  if (first >= s.length) return;
  const bf16* base = qkv + s.begin * a.qkv_stride + s.head * D;
  const bf16* dbase = dout + static_cast<uint64_t>(s.out_begin) * s.width + s.head * D;
  const uint32_t my_key = first + warp_index() * 16;
  query[1].fill(base + s.width + first * a.qkv_stride, a.qkv_stride, below(s.length, first));
  dz[1].fill(base + 2 * s.width + first * a.qkv_stride, a.qkv_stride, below(s.length, first));
  copy_commit();
  copy_wait<0>();
  __syncthreads();
  uint32_t key[D / 16][4], value[D / 16][4];
  query[1].left(key);
  dz[1].left(value);
  __syncthreads();
  const uint64_t statistic = static_cast<uint64_t>(s.head) * a.rows + s.out_begin;
  const auto fill = [&](uint32_t start, uint32_t stage) {
    query[stage].fill(base + start * a.qkv_stride, a.qkv_stride, below(s.queries, start));
    dz[stage].fill(dbase + static_cast<uint64_t>(start) * s.width, s.width, below(s.queries, start));
    copy_commit();
    if (threadIdx.x < TILE) {
      const bool is_query = start + threadIdx.x < s.queries;
      row_shift[stage][threadIdx.x] = is_query ? lse[statistic + start + threadIdx.x] * LOG2_E : INFINITY;
      row_delta[stage][threadIdx.x] = is_query ? delta[statistic + start + threadIdx.x] : 0.0f;
    }
  };
  const float scale = a.softmax_scale * LOG2_E, keep = keep_scale(dropout);
  float dkey[D / 8][4] = {}, dvalue[D / 8][4] = {};
  fill(0, 0);
  for (uint32_t start = 0, stage = 0; start < s.queries; start += TILE, stage ^= 1) {
    if (start + TILE < s.queries) {
      fill(start + TILE, stage ^ 1);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    float x[NT][4], dp[NT][4];
    scores<D>(x, key, query[stage]);
    scores<D>(dp, value, dz[stage]);
    const uint32_t kept = dropout.threshold ? kept_bits_transposed(dropout, s, start, my_key) : ~0u;
#pragma unroll
    for (uint32_t n = 0; n < NT; n++)
#pragma unroll
      for (uint32_t i = 0; i < 4; i++) {
        const uint32_t column = n * 8 + 2 * t + i % 2;
        const bool exists = my_key + g + i / 2 * 8 < s.length;
        const float p = exists ? ex2(x[n][i] * scale - row_shift[stage][column]) : 0.0f;
        const float k = kept >> (n * 4 + i) & 1 ? keep : 0.0f;
        x[n][i] = k * p;
        dp[n][i] = p * (k * dp[n][i] - row_delta[stage][column]);
      }
    uint32_t packed[NT / 2][4];
    pack(packed, x);
    accumulate<D>(dvalue, packed, dz[stage]);
    pack(packed, dp);
    accumulate<D>(dkey, packed, query[stage]);
    __syncthreads();
  }
  const float scales[2] = {a.softmax_scale, a.softmax_scale}, ones[2] = {1.0f, 1.0f};
  bf16* row = dqkv + static_cast<uint64_t>(s.begin + my_key) * 3 * s.width + s.head * D;
  write<D>(row + s.width, 3 * s.width, below(s.length, my_key), dkey, scales);
  write<D>(row + 2 * s.width, 3 * s.width, below(s.length, my_key), dvalue, ones);
}

#define ATTENTION(D)                                                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
  LAUNCH(with(longest, sequences), by(attention.head_size),                                                             \
         grid(ceil_div(longest, TILE), attention.heads, sequences), block(THREADS))                                     \
  attention_forward_##D##_bf16(const bf16* qkv, const uint32_t* offsets, bf16* out, float* lse, Attention attention,    \
                               Dropout dropout) {                                                                       \
    forward<D>(qkv, offsets, out, lse, attention, dropout);                                                             \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
  LAUNCH(with(longest, sequences), by(attention.head_size),                                                             \
         grid(ceil_div(longest, TILE), attention.heads, sequences), block(THREADS))                                     \
  attention_backward_dq_##D##_bf16(const bf16* qkv, const uint32_t* offsets, const bf16* dout, const float* lse,        \
                                   float* delta, bf16* dqkv, Attention attention, Dropout dropout) {                    \
    backward_dq<D>(qkv, offsets, dout, lse, delta, dqkv, attention, dropout);                                           \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
  LAUNCH(with(longest, sequences), by(attention.head_size),                                                             \
         grid(ceil_div(longest, TILE), attention.heads, sequences), block(THREADS))                                     \
  attention_backward_dkv_##D##_bf16(const bf16* qkv, const uint32_t* offsets, const bf16* dout, const float* lse,       \
                                    float* delta, bf16* dqkv, Attention attention, Dropout dropout) {                   \
    backward_dkv<D>(qkv, offsets, dout, lse, delta, dqkv, attention, dropout);                                          \
  }
ATTENTION(32)
ATTENTION(64)
