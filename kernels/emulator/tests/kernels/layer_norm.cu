// One block a row: y = (x - mean) * rstd * weight + bias.
#include "primitives.cuh"

INLINE float block_sum(float v) {
    __shared__ float partial[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0) partial[warp] = v;
    __syncthreads();
    return warp_sum(lane < warps ? partial[lane] : 0.0f);
}

extern "C" __global__ void layer_norm(const bf16* __restrict__ x, const float* __restrict__ weight,
                                      const float* __restrict__ bias, bf16* __restrict__ y, int width, float eps) {
    x += (size_t)blockIdx.x * width;
    y += (size_t)blockIdx.x * width;
    float sum = 0.0f, squares = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += __bfloat162float(x[i]);
    float mean = block_sum(sum) / width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float d = __bfloat162float(x[i]) - mean;
        squares += d * d;
    }
    float rstd = rsqrtf(block_sum(squares) / width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        y[i] = __float2bfloat16((__bfloat162float(x[i]) - mean) * rstd * weight[i] + bias[i]);
}
