/*
 * select.cuh - the order of scores on the GPU, as in the CPU's select.h: higher score, larger key; +0 and -0 share
 * one; NaN after every number; -INFINITY never chosen. And the block-wide pieces of radix selection.
 */
#ifndef MB_CUDA_SELECT_CUH
#define MB_CUDA_SELECT_CUH

#include "kernels/cuda/common.cuh"

namespace mb_cuda {

constexpr uint32_t KEY_NEVER = 0u, KEY_NAN = 1u;
constexpr int BINS = 2048;

__device__ __forceinline__ uint32_t key_of(float score)
{
    uint32_t bits = __float_as_uint(score + 0.0f);
    uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    key = bits == 0xff800000u ? KEY_NEVER : key;
    return (bits & 0x7fffffffu) > 0x7f800000u ? KEY_NAN : key;
}

/* The digits of the three passes: 11, 11 and 10 bits from the top. */
__device__ __forceinline__ int digit_shift(int pass)
{
    return pass == 0 ? 21 : pass == 1 ? 10 : 0;
}
__device__ __forceinline__ uint32_t digit_mask(int pass)
{
    return pass == 2 ? 1023u : 2047u;
}

/* Exclusive sum over the block's threads in thread order; *total receives the sum. shared: 32 ints. */
__device__ __forceinline__ int block_scan(int x, int *shared, int *total)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, inclusive = x;
    for (int offset = 1; offset < 32; offset <<= 1) {
        int y = __shfl_up_sync(0xffffffffu, inclusive, offset);
        inclusive += lane >= offset ? y : 0;
    }
    __syncthreads();
    if (lane == 31)
        shared[warp] = inclusive;
    __syncthreads();
    int sum = lane < warps ? shared[lane] : 0, running = sum;
    for (int offset = 1; offset < 32; offset <<= 1) {
        int y = __shfl_up_sync(0xffffffffu, running, offset);
        running += lane >= offset ? y : 0;
    }
    *total = __shfl_sync(0xffffffffu, running, 31);
    int before = __shfl_sync(0xffffffffu, running - sum, warp);
    return before + inclusive - x;
}

/* From the histogram of one digit, the bin that holds the wanted-th largest, and how many lie above it. Every
 * thread gets both. own[i] = count of bin i for the thread's bins: thread t owns the bins BINS-1-t*per ... going
 * down, so that a scan in thread order runs from the largest digit. wanted >= 1 and <= the total. */
template <int PER>
__device__ __forceinline__ void find_bin(const int (&own)[PER], int wanted, int *shared, int *picked, int *bin,
                                         int *above)
{
    int sum = 0, total;
    for (int i = 0; i < PER; i++)
        sum += own[i];
    int before = block_scan(sum, shared, &total);
    if (before < wanted && before + sum >= wanted) {
        int running = before;
        for (int i = 0; i < PER; i++) {
            if (running + own[i] >= wanted) {
                picked[0] = BINS - 1 - ((int)threadIdx.x * PER + i);
                picked[1] = running;
                break;
            }
            running += own[i];
        }
    }
    __syncthreads();
    *bin = picked[0];
    *above = picked[1];
}

} // namespace mb_cuda

#endif
