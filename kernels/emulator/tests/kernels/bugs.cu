// Kernels with one planted bug each, and correct ones that look dangerous. In a buggy kernel, the line that the emulator must
// name ends with a BUG mark.
#include "primitives.cuh"

// ---- Races ----

extern "C" __global__ void race_without_barrier(float* y) {
    __shared__ float tile[128];
    tile[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = tile[threadIdx.x / 2];  // BUG: no __syncthreads
}

extern "C" __global__ void race_inside_a_warp(float* y) {
    __shared__ float tile[32];
    tile[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = tile[threadIdx.x ^ 1];  // BUG: no __syncwarp
}

extern "C" __global__ void race_of_a_reused_tile(const float* x, float* y) {
    __shared__ float tile[64];
    float sum = 0;
    for (int i = 0; i < 3; i++) {
        tile[threadIdx.x] = x[i * 64 + threadIdx.x];
        __syncthreads();
        sum += tile[63 - threadIdx.x];  // BUG: others may write the next one already
    }
    y[threadIdx.x] = sum;
}

extern "C" __global__ void race_between_blocks(float* y) {
    if (threadIdx.x == 0) y[0] = blockIdx.x;  // BUG: each block writes its own
}

extern "C" __global__ void race_with_an_atomic(int* y) {
    if (threadIdx.x == 0) atomicAdd(y, 1);
    if (threadIdx.x == 32) y[1] = y[0];  // BUG: nothing orders the two
}

// ---- Bounds, alignment, what was not written ----

extern "C" __global__ void read_past_the_end(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i + 1] - x[i];  // BUG: i + 1 == n
}

extern "C" __global__ void write_past_the_end(float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) y[i] = i;  // BUG: i == n
}

extern "C" __global__ void shared_overrun(float* y, int n) {
    __shared__ float a[32];
    __shared__ float b[32];
    b[threadIdx.x] = threadIdx.x;
    if (threadIdx.x == 0)
        for (int i = 0; i < n; i++) a[i] = i;  // BUG: n is 33
    __syncthreads();
    y[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
}

extern "C" __global__ void dynamic_shared_overrun(float* y, int n) {
    extern __shared__ float dynamic[];
    dynamic[threadIdx.x + n] = threadIdx.x;  // BUG: launched with too few bytes
    __syncthreads();
    y[threadIdx.x] = dynamic[threadIdx.x + n];
}

extern "C" __global__ void misaligned_vector(const float* x, float* y, int offset) {
    float4 v = *reinterpret_cast<const float4*>(x + offset);  // BUG: offset is 1
    y[threadIdx.x] = v.x + v.y + v.z + v.w;
}

extern "C" __global__ void shared_not_written(float* y, int n) {
    __shared__ float tile[64];
    if (threadIdx.x < n) tile[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];  // BUG: n is 63
}

extern "C" __global__ void global_not_written(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];  // BUG: the host never filled x
}

extern "C" __global__ void use_after_free(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];  // BUG: the host freed x
}

extern "C" __global__ void local_overrun(float* y, int n) {
    float a[8];
    for (int i = 0; i < 8; i++) a[i] = i * n;
    y[threadIdx.x] = a[n];  // BUG: n is 100
}

__constant__ float table[32];
extern "C" __global__ void write_to_a_constant(float* y, int n) {
    // The compiler refuses the assignment.
    asm volatile("st.f32 [%0], %1;" ::"l"(&table[threadIdx.x]), "f"((float)n) : "memory");  // BUG: constant memory
    y[threadIdx.x] = table[threadIdx.x];
}

// ---- Asynchronous copies ----

INLINE void begin_copy(float* to, const float* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
INLINE void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

extern "C" __global__ void copy_without_wait(const float* x, float* y) {
    __shared__ __align__(16) float tile[256];
    begin_copy(tile + threadIdx.x * 4, x + threadIdx.x * 4);
    end_group();
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];  // BUG: no cp.async.wait_group
}

extern "C" __global__ void copy_without_barrier(const float* x, float* y) {
    __shared__ __align__(16) float tile[256];
    begin_copy(tile + threadIdx.x * 4, x + threadIdx.x * 4);
    end_group();
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    y[threadIdx.x] = tile[threadIdx.x];  // BUG: another thread's copy, and no __syncthreads
}

extern "C" __global__ void refill_before_the_readers_are_done(const float* x, float* y) {
    __shared__ __align__(16) float tile[256];
    float sum = 0;
    for (int i = 0; i < 2; i++) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(tile + threadIdx.x * 4)), "l"(x + i * 256 + threadIdx.x * 4) : "memory");  // BUG
        end_group();
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
        sum += tile[255 - threadIdx.x];
    }
    y[threadIdx.x] = sum;
}

// ---- Barriers and lanes ----

extern "C" __global__ void barrier_in_a_branch(float* y) {
    if (threadIdx.x % 2) __syncthreads();  // BUG: even threads never come
    y[threadIdx.x] = 1;
}

extern "C" __global__ void barrier_after_a_return(float* y, int n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = 1;
    __syncthreads();  // BUG: n is 40, in the middle of a warp
    y[threadIdx.x] += 1;
}

extern "C" __global__ void barrier_that_a_warp_skips(float* y) {
    if (threadIdx.x < 32) __syncthreads();  // BUG: the other warp never comes
    y[threadIdx.x] = 1;
}

extern "C" __global__ void barriers_that_disagree(float* y) {
    if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;" ::: "memory");
    else asm volatile("bar.sync 1, 96;" ::: "memory");  // BUG: 64 or 96?
    y[threadIdx.x] = 1;
}

extern "C" __global__ void mask_without_the_lane(float* y) {
    y[threadIdx.x] = __shfl_sync(0xffffu, (float)threadIdx.x, 0);  // BUG: lanes 16 to 31 are not in the mask
}

extern "C" __global__ void shuffle_from_an_absent_lane(float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffu, (float)threadIdx.x, 20);  // BUG: lane 20 is not there
}

extern "C" __global__ void mask_of_lanes_that_wait_elsewhere(float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffffffu, (float)threadIdx.x, 0);  // BUG: the others are at the barrier
    __syncthreads();
}

// ---- Ends ----

extern "C" __global__ void endless_wait(volatile int* flag) {
    while (*flag == 0) {}  // BUG: nobody sets it
}

extern "C" __global__ void gives_up(float* y) {
    if (threadIdx.x == 5) asm volatile("trap;");  // BUG
    y[threadIdx.x] = 1;
}

// ---- Correct ----

extern "C" __global__ void correct_block_sum(const float* x, float* y) {
    __shared__ float partial[4];
    float v = warp_sum(x[threadIdx.x]);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = warp_sum(threadIdx.x < 4 ? partial[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) y[0] = v;
    }
}

extern "C" __global__ void correct_double_buffer(const float* x, float* y, int tiles) {
    __shared__ __align__(16) float ring[2][256];
    begin_copy(ring[0] + threadIdx.x * 4, x + threadIdx.x * 4);
    end_group();
    float sum = 0;
    for (int i = 0; i < tiles; i++) {
        if (i + 1 < tiles) begin_copy(ring[(i + 1) % 2] + threadIdx.x * 4, x + (i + 1) * 256 + threadIdx.x * 4);
        end_group();
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        __syncthreads();
        sum += ring[i % 2][255 - threadIdx.x] + ring[i % 2][threadIdx.x];
        __syncthreads();
    }
    y[threadIdx.x] = sum;
}

// Warp 0 makes, warp 1 uses; neither waits at the other's barrier.
extern "C" __global__ void correct_producer_and_consumer(float* y) {
    __shared__ float tile[32];
    for (int i = 0; i < 3; i++) {
        if (threadIdx.x < 32) {
            if (i > 0) asm volatile("bar.sync 2, 64;" ::: "memory");  // empty again
            tile[threadIdx.x] = i * 32 + threadIdx.x;
            asm volatile("bar.arrive 1, 64;" ::: "memory");  // full
        } else {
            asm volatile("bar.sync 1, 64;" ::: "memory");
            y[i * 32 + threadIdx.x - 32] = tile[63 - threadIdx.x];
            if (i < 2) asm volatile("bar.arrive 2, 64;" ::: "memory");
        }
    }
}

// Each block publishes a part; the last one to do so adds them up.
extern "C" __global__ void correct_last_block(const float* x, float* parts, unsigned* count, float* y) {
    __shared__ bool last;
    float v = warp_sum(x[blockIdx.x * 32 + threadIdx.x]);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = v;
        __threadfence();
        last = atomicAdd(count, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float sum = 0;
        for (int i = 0; i < gridDim.x; i++) sum += parts[i];
        y[0] = sum;
    }
}

extern "C" __global__ void correct_early_return(float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    for (int k = 0; k < i % 7; k++) y[i] += k;
}

extern "C" __global__ void correct_warp_exchange(float* y) {
    __shared__ float tile[64];
    for (int i = 0; i < 3; i++) {
        tile[threadIdx.x] = threadIdx.x + i;
        __syncwarp();
        float v = tile[threadIdx.x ^ 5];
        __syncwarp();
        y[threadIdx.x] = v;
    }
}
