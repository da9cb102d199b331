// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over all parameters in three launches: partial squared norms, the
// global norm and clip factor, the update. No host synchronisation between them.
//
// Tables in device memory, made once: tensors [n] and chunks [grid] (below), each chunk up to CHUNK elements of one tensor.
// A block has a chunk, a thread eight elements.
// Preconditions: all arrays 16-byte aligned for speed only. Bytes: 4 (norm) + 28 (update) + 2 (bf16 copy) an element.
#include "primitives.cuh"

constexpr uint32_t THREADS = 256, CHUNK = THREADS * VECTOR, NORM_THREADS = 1024;

// A row of the table of tensors.
struct Tensor {
  float* param;          // the master
  const float* grad;
  float* first_moment;
  float* second_moment;
  bf16* compute;         // the bf16 copy that the model multiplies with, or null
  uint64_t len;          // elements
  double weight_decay;   // decoupled
};
// A row of the table of chunks.
struct Chunk {
  uint32_t tensor;  // a row of the table of tensors
  uint32_t index;   // the chunk's elements begin at CHUNK * index
};
// In device memory, so that a captured graph can run every step with new numbers.
struct Settings {
  double lr;
  double beta1;          // decay of the first moment
  double beta2;          // decay of the second moment
  double eps;            // added to the root of the second moment
  double correction1;    // 1 - beta1^step
  double correction2;    // 1 - beta2^step
  double max_grad_norm;  // gradients with a larger global norm are scaled down to it; 0: no clipping
};

// partials[chunk] = sum of squares, f64 over f32 products of threads.
extern "C" __global__ void __launch_bounds__(THREADS)
LAUNCH(with(chunk_count), grid(chunk_count), block(THREADS))
adamw_squares(const Tensor* tensors, const Chunk* chunks, double* partials) {
  const Chunk chunk = chunks[blockIdx.x];
  const Tensor& tensor = tensors[chunk.tensor];
  const uint64_t i = static_cast<uint64_t>(chunk.index) * CHUNK + threadIdx.x * VECTOR;
  float sum = 0;
  if (i < tensor.len) {
    float g[VECTOR];
    load(g, tensor.grad + i, tensor.len - i);
#pragma unroll
    for (uint32_t j = 0; j < VECTOR; j++) sum = fmaf(g[j], g[j], sum);
  }
  const double total = block_sum(static_cast<double>(sum));
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// One block: norm[0] = the global norm, norm[1] = min(1, max_grad_norm / (norm + 1e-6)).
extern "C" __global__ void __launch_bounds__(NORM_THREADS)
LAUNCH(grid(1), block(NORM_THREADS))
adamw_norm(const double* partials, uint32_t count, const Settings* settings, float* norm) {
  double sum = 0;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    const double root = sqrt(sum), limit = settings->max_grad_norm;
    norm[0] = static_cast<float>(root);
    norm[1] = limit > 0 && limit < root + 1e-6 ? static_cast<float>(limit / (root + 1e-6)) : 1.0f;
  }
}

// m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, p = p (1 - lr wd) - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).
extern "C" __global__ void __launch_bounds__(THREADS)
LAUNCH(with(chunk_count), grid(chunk_count), block(THREADS))
adamw_update(const Tensor* tensors, const Chunk* chunks, const Settings* settings, const float* norm) {
  const Chunk chunk = chunks[blockIdx.x];
  const Tensor tensor = tensors[chunk.tensor];
  const uint64_t i = static_cast<uint64_t>(chunk.index) * CHUNK + threadIdx.x * VECTOR;
  if (i >= tensor.len) return;
  const Settings s = *settings;
  const float scale = norm[1], beta1 = s.beta1, beta2 = s.beta2, rest1 = 1 - s.beta1, rest2 = 1 - s.beta2;
  const float keep = 1 - s.lr * tensor.weight_decay, rate = s.lr / s.correction1;
  const float root_scale = 1 / sqrt(s.correction2), eps = s.eps;
  const uint64_t valid = tensor.len - i;
  float p[VECTOR], g[VECTOR], m[VECTOR], v[VECTOR];
  load(p, tensor.param + i, valid);
  load(g, tensor.grad + i, valid);
  load(m, tensor.first_moment + i, valid);
  load(v, tensor.second_moment + i, valid);
#pragma unroll
  for (uint32_t j = 0; j < VECTOR; j++) {
    const float gradient = g[j] * scale;
    m[j] = beta1 * m[j] + rest1 * gradient;
    v[j] = beta2 * v[j] + rest2 * gradient * gradient;
    p[j] = p[j] * keep - rate * m[j] / fmaf(sqrtf(v[j]), root_scale, eps);
  }
  store(tensor.param + i, p, valid);
  store(tensor.first_moment + i, m, valid);
  store(tensor.second_moment + i, v, valid);
  if (tensor.compute) store(tensor.compute + i, p, valid);
}
