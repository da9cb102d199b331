// What all kernels share, and the only file with inline PTX: 16-byte loads and stores, warp and block sums, tensor-core
// products, asynchronous copies, Philox.
//
// Conventions of every kernel:
// - A thread owns eight neighbouring channels (VECTOR): one 16-byte access in bf16, two in f32, and exactly one call of
//   Philox for dropout. Tails and unaligned rows fall back to single elements inside load() and store().
// - bf16 is storage only: load() widens to f32, all arithmetic is f32, store() rounds once, to nearest even.
// - No float atomics, and sums in an order that depends on shapes alone: the same bits on every run.
#pragma once
#include <cuda_bf16.h>

typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef __nv_bfloat16 bf16;

#define DEVICE __device__ __forceinline__
#define INFINITY __int_as_float(0x7f800000)
#define ALL_LANES 0xffffffffu

// What the `ptx` tool generates launches from; the compiler sees nothing of it. LAUNCH stands before a kernel's name and has
// with(..): numbers that only the launch needs; by(..): which number stands in the kernel's name, where it exists for several;
// grid(x, y, z), block(threads), shared(bytes): in constants of the file, arguments, and numbers of `with`.
// NULLABLE is a pointer that may be null.
#define LAUNCH(...)
#define NULLABLE

constexpr uint32_t VECTOR = 8;
constexpr uint32_t WARP = 32;

DEVICE uint32_t lane_index() { return threadIdx.x % WARP; }
DEVICE uint32_t warp_index() { return threadIdx.x / WARP; }
DEVICE uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// ---- Loads and stores ----

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T> DEVICE T from_float(float x);
template <> DEVICE float from_float<float>(float x) { return x; }
template <> DEVICE bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// x as the storage type holds it: what backward will read.
template <typename T> DEVICE float rounded(float x) { return to_float(from_float<T>(x)); }

// Two floats as bf16 in one register, the first in the low half.
DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

DEVICE bool is_aligned(const void* p) { return (reinterpret_cast<uint64_t>(p) & 15) == 0; }

DEVICE void load_all(float (&out)[VECTOR], const float* p) {
  const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}
DEVICE void load_all(float (&out)[VECTOR], const bf16* p) {
  const uint4 v = *reinterpret_cast<const uint4*>(p);
  const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    // A bf16 is the upper half of an f32.
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
DEVICE void store_all(float* p, const float (&x)[VECTOR]) {
  reinterpret_cast<float4*>(p)[0] = make_float4(x[0], x[1], x[2], x[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
DEVICE void store_all(bf16* p, const float (&x)[VECTOR]) {
  *reinterpret_cast<uint4*>(p) =
      make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

// The first min(valid, 8) elements at p; zeros after them.
template <typename T> DEVICE void load(float (&out)[VECTOR], const T* p, uint64_t valid) {
  if (valid >= VECTOR && is_aligned(p)) {
    load_all(out, p);
  } else {
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) out[i] = i < valid ? to_float(p[i]) : 0.0f;
  }
}
template <typename T> DEVICE void store(T* p, const float (&x)[VECTOR], uint64_t valid) {
  if (valid >= VECTOR && is_aligned(p)) {
    store_all(p, x);
  } else {
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++)
      if (i < valid) p[i] = from_float<T>(x[i]);
  }
}

// ---- Sums over a warp and a block ----

// Every lane gets the sum: a butterfly, so all lanes hold the same bits.
template <typename T> DEVICE T warp_sum(T x) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
  return x;
}
DEVICE float warp_max(float x) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
  return x;
}

// Every thread gets the sum over the block (whole warps, at most 32), which is added up in the order of warps.
template <typename T> DEVICE T block_sum(T x) {
  __shared__ T parts[32];
  x = warp_sum(x);
  if (lane_index() == 0) parts[warp_index()] = x;
  __syncthreads();
  T sum = parts[0];
  for (uint32_t i = 1; i < blockDim.x / WARP; i++) sum += parts[i];
  __syncthreads();
  return sum;
}
DEVICE float block_max(float x) {
  __shared__ float parts[32];
  x = warp_max(x);
  if (lane_index() == 0) parts[warp_index()] = x;
  __syncthreads();
  float max = parts[0];
  for (uint32_t i = 1; i < blockDim.x / WARP; i++) max = fmaxf(max, parts[i]);
  __syncthreads();
  return max;
}

// ---- Functions ----

// 2^x to 2 units in the last place.
DEVICE float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// ---- Tensor cores and asynchronous copies ----

DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Copies 16 bytes from global to shared memory asynchronously: `bytes` of them, then zeros; only those are read.
DEVICE void copy_async(uint32_t shared, const void* global, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N of the committed groups are under way.
template <int N> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8 x 8 matrices of bf16: lane l gives the address of row l % 8 of matrix l / 8, and gets of each matrix the elements
// (l / 4, 2 (l % 4)) and the one after; with _transposed, of its transpose.
DEVICE void load_matrices(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared) : "memory");
}
DEVICE void load_matrices_transposed(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared) : "memory");
}

// d[16 x 8] += a[16 x 16] b[16 x 8]. With g = lane / 4 and t = lane % 4, a lane holds
// d: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1);
// a: rows g, g + 8, g, g + 8 at columns 2t.. (first two) and 2t + 8..; b: rows 2t.. and 2t + 8.. of column g.
DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- Randomness: crates/tensor/src/random.rs, bit for bit ----

// Philox 4x32-10 (Salmon et al., SC 2011).
DEVICE uint4 philox(uint4 c, uint64_t seed) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
    c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// What decides one mask: a structure by value. A threshold of 0 means no dropout.
struct Dropout {
  uint64_t seed;            // the Philox key
  uint32_t step;            // the optimizer step
  uint32_t site;            // where in the model
  uint32_t first_sequence;  // the first sequence's index within the optimizer step
  uint32_t threshold;       // a 16-bit draw below it drops; 0 for no dropout
  float scale;              // 65536 / (65536 - threshold)
  uint32_t reserved;        // padding that is written
};

DEVICE uint32_t draw(uint32_t word, uint32_t half) { return (word >> (16 * half)) & 0xffff; }

// x of the eight channels from 8 * block on, dropped or scaled.
DEVICE void apply_dropout(float (&x)[VECTOR], const Dropout& dropout, uint32_t position, uint32_t sequence, uint32_t block) {
  const uint4 c = make_uint4(position, dropout.site << 16 | block, dropout.first_sequence + sequence, dropout.step);
  const uint4 r = philox(c, dropout.seed);
  const uint32_t words[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
  for (uint32_t i = 0; i < VECTOR; i++)
    x[i] = draw(words[i / 2], i % 2) < dropout.threshold ? 0.0f : x[i] * dropout.scale;
}

// Call `call` (0..32) of the 16 x 16 block of attention probabilities that holds (query, key); see random.rs.
DEVICE uint4 attention_draws(const Dropout& dropout, uint32_t head, uint32_t sequence, uint32_t query, uint32_t key, uint32_t call) {
  const uint32_t block = (query / 16) << 17 | (key / 16) << 5 | call;
  return philox(make_uint4(block, dropout.site << 16 | head, dropout.first_sequence + sequence, dropout.step), dropout.seed);
}

// The sequence of a row: the last that begins at or before it, empty ones before it passed over. offsets [B + 1].
DEVICE uint32_t sequence_of(const uint32_t* offsets, uint32_t sequences, uint32_t row) {
  uint32_t low = 0, high = sequences;  // offsets[low] <= row < offsets[high]
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (offsets[middle] <= row) low = middle; else high = middle;
  }
  return low;
}

// ---- Rows owned by a warp ----

// Rows, and so warps, of a block.
constexpr uint32_t BLOCK_WARPS = 4, BLOCK_THREADS = BLOCK_WARPS * WARP;

DEVICE uint32_t row_of_warp() { return blockIdx.x * BLOCK_WARPS + warp_index(); }

// Vector i of lane l begins at channel 8 (32 i + l). The first HELD vectors stay in registers between passes over the
// row, which covers 1024 channels; wider rows are read again, from a cache, by `again(channel, x)`. V is what is held of a vector.
constexpr uint32_t HELD = 4;
template <typename V, typename Again, typename Visit>
DEVICE void visit_row(uint32_t width, V (&held)[HELD], Again again, Visit visit) {
#pragma unroll
  for (uint32_t i = 0; i < HELD; i++) {
    const uint32_t channel = (i * WARP + lane_index()) * VECTOR;
    if (channel < width) visit(channel, held[i]);
  }
  for (uint32_t channel = (HELD * WARP + lane_index()) * VECTOR; channel < width; channel += WARP * VECTOR) {
    V x;
    again(channel, x);
    visit(channel, x);
  }
}

// Mean and 1 / sqrt(variance + eps) of a row in two passes; `held` is filled by `first(channel, x)`.
struct Statistics { float mean, rstd; };
template <typename First, typename Again>
DEVICE Statistics row_statistics(uint32_t width, float eps, float (&held)[HELD][VECTOR], First first, Again again) {
  float sum = 0;
  visit_row(width, held, [&](uint32_t, float (&)[VECTOR]) {}, [&](uint32_t channel, float (&x)[VECTOR]) {
    first(channel, x);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) sum += x[i];  // zeros past the end
  });
  const float mean = warp_sum(sum) / width;
  float squares = 0;
  visit_row(width, held, again, [&](uint32_t channel, float (&x)[VECTOR]) {
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++)
      if (channel + i < width) squares += (x[i] - mean) * (x[i] - mean);
  });
  return {mean, 1.0f / sqrtf(warp_sum(squares) / width + eps)};
}

// y = (x - mean) * rstd * weight + bias; calls `emit(channel, y)`.
template <typename Again, typename Emit>
DEVICE void normalize_row(uint32_t width, Statistics s, const float* weight, const float* bias, float (&held)[HELD][VECTOR],
                          Again again, Emit emit) {
  visit_row(width, held, again, [&](uint32_t channel, float (&x)[VECTOR]) {
    float w[VECTOR], b[VECTOR];
    load(w, weight + channel, width - channel);
    load(b, bias + channel, width - channel);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) x[i] = fmaf((x[i] - s.mean) * s.rstd, w[i], b[i]);
    emit(channel, x);
  });
}
