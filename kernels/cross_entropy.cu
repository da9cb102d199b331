// Mean cross entropy of rows of logits: loss = 1/B sum_b (logsumexp(x_b) - x_b[label_b]), and its gradient
// dx = dloss / B (softmax(x) - onehot(label)).
//
// Layouts: logits [B, K] with `stride` elements between rows; probabilities, dlogits [B, K]; labels [B]; losses [B] f32;
// loss, dloss f32 scalars in device memory. A block has a row; its threads are whole warps, as many as K
// alone decides, so that sums have one order. mean_loss is one block that adds in f64. Preconditions: labels < K, B > 0, K > 0.
// Bytes: 3 reads (2 from cache) and a write of B K. FLOPs: about 8 an element.
#include "primitives.cuh"

// The most threads of a block that has a row; mean_loss has as many.
constexpr uint32_t MAX_THREADS = 256;

template <typename T>
DEVICE void forward(const T* logits, uint64_t stride, const uint32_t* labels, T* probabilities, float* losses, uint32_t classes) {
  const uint32_t row = blockIdx.x;
  logits += row * stride;
  probabilities += static_cast<uint64_t>(row) * classes;
  float max = -INFINITY, sum = 0;
  for (uint32_t k = threadIdx.x; k < classes; k += blockDim.x) max = fmaxf(max, to_float(logits[k]));
  max = block_max(max);
  for (uint32_t k = threadIdx.x; k < classes; k += blockDim.x) sum += expf(to_float(logits[k]) - max);
  sum = block_sum(sum);
  for (uint32_t k = threadIdx.x; k < classes; k += blockDim.x)
    probabilities[k] = from_float<T>(expf(to_float(logits[k]) - max) / sum);
  if (threadIdx.x == 0) losses[row] = logf(sum) + (max - to_float(logits[labels[row]]));
}

template <typename T>
DEVICE void backward(const float* dloss, const T* probabilities, const uint32_t* labels, T* dlogits, uint32_t classes) {
  const uint32_t row = blockIdx.x, label = labels[row];
  const float scale = *dloss / gridDim.x;
  const uint64_t at = static_cast<uint64_t>(row) * classes;
  for (uint32_t k = threadIdx.x; k < classes; k += blockDim.x)
    dlogits[at + k] = from_float<T>((to_float(probabilities[at + k]) - (k == label ? 1.0f : 0.0f)) * scale);
}

#define CROSS_ENTROPY(T, suffix)                                                                                        \
  extern "C" __global__ void __launch_bounds__(MAX_THREADS)                                                             \
  LAUNCH(with(rows), grid(rows), block(min(MAX_THREADS, WARP * ceil_div(classes, WARP))))                               \
  cross_entropy_forward_##suffix(const T* logits, uint64_t stride, const uint32_t* labels, T* probabilities,            \
                                 float* losses, uint32_t classes) {                                                     \
    forward(logits, stride, labels, probabilities, losses, classes);                                                    \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(MAX_THREADS)                                                             \
  LAUNCH(with(rows), grid(rows), block(min(MAX_THREADS, WARP * ceil_div(classes, WARP))))                               \
  cross_entropy_backward_##suffix(const float* dloss, const T* probabilities, const uint32_t* labels, T* dlogits,       \
                                  uint32_t classes) {                                                                   \
    backward(dloss, probabilities, labels, dlogits, classes);                                                           \
  }
CROSS_ENTROPY(float, f32)
CROSS_ENTROPY(bf16, bf16)

extern "C" __global__ void __launch_bounds__(MAX_THREADS)
LAUNCH(grid(1), block(MAX_THREADS))
mean_loss(const float* losses, float* loss, uint32_t rows) {
  double sum = 0;
  for (uint32_t i = threadIdx.x; i < rows; i += MAX_THREADS) sum += losses[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / rows);
}
