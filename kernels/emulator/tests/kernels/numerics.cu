// Kernels that exercise arithmetic, conversions, atomics, votes, local and constant memory, calls and named barriers.
#include "primitives.cuh"

__constant__ float TABLE[4] = {1.0f, 2.0f, 4.0f, 8.0f};
__device__ int counter;
struct Tensors { float* data[4]; int length[4]; };

// out[k * n + i] = f_k(x[i]), single precision.
extern "C" __global__ void functions(const float* x, float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    out[0 * n + i] = expf(v);
    out[1 * n + i] = logf(fabsf(v) + 0.5f);
    out[2 * n + i] = tanhf(v);
    out[3 * n + i] = erff(v);
    out[4 * n + i] = sinf(v * 1000000.0f);
    out[5 * n + i] = cosf(v);
    out[6 * n + i] = powf(fabsf(v) + 0.1f, 1.7f);
    out[7 * n + i] = sqrtf(fabsf(v));
    out[8 * n + i] = 1.0f / (v + 10.0f);
    out[9 * n + i] = floorf(v) + ceilf(v) * 0.5f + truncf(v) * 0.25f + rintf(v);
    out[10 * n + i] = __expf(v);
    out[11 * n + i] = __logf(fabsf(v) + 0.5f);
    out[12 * n + i] = fmodf(v, 0.7f);
    out[13 * n + i] = copysignf(2.0f, v) + fminf(v, 0.5f) + fmaxf(v, -0.5f) + (isnan(v) ? 1.0f : 0.0f);
    out[14 * n + i] = exp2f(v) + log1pf(fabsf(v)) + cbrtf(v) + __sinf(v) + __cosf(v);
    out[15 * n + i] = __frcp_rn(v + 10.0f) + __fdividef(v, 3.0f) + rsqrtf(fabsf(v) + 1.0f) + __saturatef(v);
}

extern "C" __global__ void doubles(const double* x, double* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i];
    out[0 * n + i] = exp(v);
    out[1 * n + i] = log(fabs(v) + 0.5);
    out[2 * n + i] = sqrt(fabs(v)) / (v + 10.0);
    out[3 * n + i] = sin(v * 1e9);
    out[4 * n + i] = (double)(float)v + (double)(int)v + (double)(long long)(v * 100.0) + rint(v);
    out[5 * n + i] = erf(v) + tanh(v) + rsqrt(fabs(v) + 1.0);
}

// Integer identities, one result a lane: out[k * n + i] = g_k(a[i], b[i]).
extern "C" __global__ void integers(const int* a, const int* b, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int x = a[i], y = b[i];
    u32 ux = x, uy = y;
    out[0 * n + i] = x / y;
    out[1 * n + i] = x % y;
    out[2 * n + i] = ux / uy;
    out[3 * n + i] = ux % uy;
    out[4 * n + i] = __mulhi(x, y);
    out[5 * n + i] = __umulhi(ux, uy);
    out[6 * n + i] = (int)(((long long)x * y) >> 7);
    out[7 * n + i] = __popc(ux) + __clz(x) * 64 + __ffs(x) * 4096;
    out[8 * n + i] = __brev(ux);
    out[9 * n + i] = __byte_perm(ux, uy, 0x2741);
    out[10 * n + i] = __funnelshift_l(ux, uy, uy & 31);
    out[11 * n + i] = __funnelshift_r(ux, uy, 13);
    out[12 * n + i] = (x & y) ^ (~x | (y >> 3));
    out[13 * n + i] = min(x, y) + max(ux, uy) + abs(x);
    out[14 * n + i] = (ux << (uy & 31)) + (x >> (uy & 31));
    out[15 * n + i] = (short)x * (short)y + (signed char)x + (unsigned char)y;
    out[16 * n + i] = (int)__umul64hi((u64)ux << 32 | uy, (u64)uy << 32 | ux);
    out[17 * n + i] = (int)((long long)ux * 1000003ll / (y | 1)) + __clzll((u64)ux << 9) + __popcll((u64)x);
    out[18 * n + i] = __sad(x, y, ux) + __dp4a(x, y, 7);
}

extern "C" __global__ void halves(const __half* a, const __half* b, __half* h, const bf16* c, const bf16* d, bf16* f, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    h[i] = __hfma(a[i], b[i], __hadd(a[i], b[i]));
    h[n + i] = __hmax(__hmul(a[i], b[i]), __hsub(a[i], b[i]));
    h[2 * n + i] = __float2half(__half2float(a[i]) * 3.0f);
    f[i] = __hfma(c[i], d[i], __hadd(c[i], d[i]));
    f[n + i] = __hmin(__hmul(c[i], d[i]), __hsub(c[i], d[i]));
    f[2 * n + i] = __double2bfloat16((double)__bfloat162float(c[i]) * 3.0);
    if (i % 2 == 0) {
        *(__half2*)(h + 3 * n + i) = __hfma2(*(__half2*)(a + i), *(__half2*)(b + i), *(__half2*)(a + i));
        *(__nv_bfloat162*)(f + 3 * n + i) = __hfma2(*(__nv_bfloat162*)(c + i), *(__nv_bfloat162*)(d + i), *(__nv_bfloat162*)(c + i));
    }
}

__device__ __noinline__ float polynomial(float x, int degree) {
    float y = 0.0f;
    for (int i = degree; i >= 0; i--) y = y * x + TABLE[i];
    return y;
}
extern "C" __global__ void calls(const float* x, float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = polynomial(x[i], i % 4) + polynomial(-x[i], 3);
}

// A switch wide enough for a jump table.
extern "C" __global__ void jumps(const int* which, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int r = i;
    switch (which[i]) {
        case 0: r = r * 3 + 1; break;
        case 1: r = r ^ 0x55; break;
        case 2: r = r / 3; break;
        case 3: r = __popc(r); break;
        case 4: r = r * r; break;
        case 5: r = r - 1000; break;
        case 6: r = r % 7; break;
        case 7: r = -r; break;
        default: r = 0;
    }
    out[i] = r;
}

extern "C" __global__ void multi_tensor(Tensors tensors, float scale) {
    int t = blockIdx.y;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < tensors.length[t]; i += gridDim.x * blockDim.x)
        tensors.data[t][i] *= scale;
}

// Sum of integers by shared atomics, global atomics, votes; the last block writes the total of all partial sums.
extern "C" __global__ void reductions(const int* x, int* partial, int* total, float* largest, int n) {
    __shared__ int sum, odd;
    __shared__ bool last;
    if (threadIdx.x == 0) sum = 0, odd = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = i < n ? x[i] : 0;
    atomicAdd(&sum, v);
    u32 ballot = __ballot_sync(FULL, v & 1);
    if (threadIdx.x % 32 == 0) atomicAdd(&odd, __popc(ballot));
    int group = __reduce_add_sync(FULL, v);
    u32 peers = __match_any_sync(FULL, v & 3);
    if (__any_sync(FULL, v < 0) && __all_sync(FULL, v > 1000)) atomicExch(largest, -1.0f);
    __syncthreads();
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        atomicAdd(total + 1, odd);
        atomicMax((int*)total + 2, group);
        atomicAdd(total + 3, __popc(peers));
        atomicAdd(largest, (float)sum);
        __threadfence();
        last = atomicAdd(&counter, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    int all = 0;
    for (int b = threadIdx.x; b < gridDim.x; b += blockDim.x) all += partial[b];
    for (int offset = 16; offset > 0; offset /= 2) all += __shfl_down_sync(FULL, all, offset);
    if (threadIdx.x == 0) *total = all, counter = 0;
}

// Two producer and two consumer warps meet at named barriers.
extern "C" __global__ void named_barriers(const float* x, float* out) {
    __shared__ float stage[64];
    if (threadIdx.x < 64) {
        stage[threadIdx.x] = x[threadIdx.x] * 2.0f;
        asm volatile("bar.arrive 1, 128;" ::: "memory");
    } else {
        asm volatile("bar.sync 1, 128;" ::: "memory");
        out[threadIdx.x - 64] = stage[127 - threadIdx.x];
    }
}

// Eight bytes a lane through local memory with indices the compiler cannot see.
extern "C" __global__ void local_memory(const int* order, const float4* x, float4* out) {
    float values[8];
    float4 a = x[threadIdx.x * 2], b = x[threadIdx.x * 2 + 1];
    values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
    values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
    float4 r;
    r.x = values[order[0] & 7], r.y = values[order[1] & 7], r.z = values[order[2] & 7], r.w = values[order[3] & 7];
    out[threadIdx.x] = r;
}
