/*
 * votes.cuh - what the two ways to count votes share (votes.cu: any type and shape; votes_sm90.cu: bf16, head_dim
 * 128 on sm_90a): the line that cuts a row of logits, and the fast way's entry.
 */
#ifndef MB_CUDA_VOTES_CUH
#define MB_CUDA_VOTES_CUH

#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/select.cuh"

namespace mb_cuda {

struct LineShared {
    int histogram[BINS], scan[32], picked[2];
    int32_t last;
};

/* The k best of logits[0 .. n) are those with a key above *key, and its equals up to index *last; *last -2: none.
 * All THREADS threads of the block call it and get both. */
template <int THREADS>
__device__ __forceinline__ void find_line(const float *logits, int n, int k, LineShared &shared, uint32_t *key,
                                          int32_t *last)
{
    constexpr int PER = BINS / THREADS;
    uint32_t prefix = 0, mask = 0;
    int wanted = k, total = 0;
    for (int pass = 0; pass < 3; pass++) {
        int shift = digit_shift(pass), sum = 0;
        uint32_t digits = digit_mask(pass);
        for (int i = threadIdx.x; i < BINS; i += THREADS)
            shared.histogram[i] = 0;
        __syncthreads();
        for (int j = threadIdx.x; j < n; j += THREADS) {
            uint32_t x = key_of(logits[j]);
            if (x != KEY_NEVER && (x & mask) == prefix)
                atomicAdd(&shared.histogram[(x >> shift) & digits], 1);
        }
        __syncthreads();
        int own[PER];
        for (int i = 0; i < PER; i++)
            sum += own[i] = shared.histogram[BINS - 1 - ((int)threadIdx.x * PER + i)];
        if (pass == 0) {
            block_scan(sum, shared.scan, &total);
            if (total <= k || k <= 0) { /* everything that is eligible, or nothing at all */
                *key = KEY_NEVER;
                *last = total > 0 && k > 0 ? -1 : -2;
                return;
            }
            __syncthreads();
        }
        int bin, above;
        find_bin(own, wanted, shared.scan, shared.picked, &bin, &above);
        wanted -= above;
        prefix |= (uint32_t)bin << shift;
        mask |= digits << shift;
        __syncthreads();
    }
    /* Thread t owns a contiguous piece, so a scan in thread order counts equals in index order. */
    int per = (n + THREADS - 1) / THREADS, first = threadIdx.x * per, end = first + per < n ? first + per : n,
        equal = 0;
    for (int j = first; j < end; j++)
        equal += key_of(logits[j]) == prefix;
    int before = block_scan(equal, shared.scan, &total);
    if (before < wanted && before + equal >= wanted)
        for (int j = first; j < end; j++)
            if (key_of(logits[j]) == prefix && ++before == wanted)
                shared.last = j;
    __syncthreads();
    *key = prefix;
    *last = shared.last;
}

__device__ __forceinline__ bool above_line(uint32_t x, int64_t j, uint32_t key, int32_t last)
{
    return last != -2 && (x > key || (x == key && x != KEY_NEVER && j <= last));
}

/* Whether the fast way can do this in `bytes` of scratch, and its launches. votes, stats: as in kernels.h. */
bool sm90_votes_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p, int32_t k, size_t bytes);
int sm90_votes(const mb_cuda_chip *chip, const Problem &p, const mb_votes *call, size_t bytes, cudaStream_t stream,
               mb_error *err);

} /* namespace mb_cuda */

#endif
