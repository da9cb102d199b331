// Sums over rows, in two deterministic stages, and squared norms.
//
// row_sums (a bias gradient): x [T, C], x_stride between rows, to partials [ceil(T / 64), C] f32. A warp has 256 columns of
// a block's 64 rows; block 32, grid (ceil(C / 256), ceil(T / 64)).
// column_sums: partials [rows, C] f32, rows added in order within eight strands and the strands in order; the first `split`
// sums to y, the others to z unless it is null. Block 256 (32 columns x 8 strands), grid ceil(C / 32). It also adds up the partials of
// layer_norm_backward and of a split gemm_backward, where y is dweight and z dbias.
// Bytes: T C elements once.
#include "primitives.cuh"

constexpr uint32_t ROWS = 64;

template <typename T>
DEVICE void sum(const T* x, uint64_t x_stride, float* partials, uint32_t rows, uint32_t width) {
  const uint32_t channel = (blockIdx.x * WARP + lane_index()) * VECTOR;
  if (channel >= width) return;
  const uint32_t end = min(rows, (blockIdx.y + 1) * ROWS);
  float total[VECTOR] = {};
  for (uint32_t row = blockIdx.y * ROWS; row < end; row++) {
    float v[VECTOR];
    load(v, x + row * x_stride + channel, width - channel);
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) total[i] += v[i];
  }
  store(partials + static_cast<uint64_t>(blockIdx.y) * width + channel, total, width - channel);
}

extern "C" __global__ void __launch_bounds__(32)
row_sums_f32(const float* x, uint64_t x_stride, float* partials, uint32_t rows, uint32_t width) {
  sum(x, x_stride, partials, rows, width);
}
extern "C" __global__ void __launch_bounds__(32)
row_sums_bf16(const bf16* x, uint64_t x_stride, float* partials, uint32_t rows, uint32_t width) {
  sum(x, x_stride, partials, rows, width);
}

extern "C" __global__ void __launch_bounds__(256)
column_sums(const float* partials, float* y, float* z, uint32_t rows, uint64_t width, uint64_t split) {
  __shared__ float strands[8][WARP];
  const uint64_t column = static_cast<uint64_t>(blockIdx.x) * WARP + lane_index();
  float sum = 0;
  if (column < width)
    for (uint32_t row = warp_index(); row < rows; row += 8) sum += partials[row * width + column];
  strands[warp_index()][lane_index()] = sum;
  __syncthreads();
  if (warp_index() == 0 && column < width) {
    for (uint32_t i = 1; i < 8; i++) sum += strands[i][lane_index()];
    if (column < split) y[column] = sum;
    else if (z) z[column - split] = sum;
  }
}
