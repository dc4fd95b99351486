/*
 * votes_rows.cuh - what happens to rows and heads between and after the two passes of votes_sm90.cu: the bound
 * that follows from a row's peaks, the choice among its candidates, the rare row without a list, the totals of a
 * head.
 */
#ifndef MB_CUDA_VOTES_ROWS_CUH
#define MB_CUDA_VOTES_ROWS_CUH

#include "kernels/cuda/keys_sm90.cuh"
#include "kernels/cuda/votes.cuh"

namespace mb_cuda {

constexpr int TILE = KEYS_TILE;
constexpr int COUNT_STRIDE = 32; /* counters in lines of their own: all blocks add to all of them */
constexpr int SMALL_THREADS = 256, RESCUE_THREADS = 512, TOTAL_BLOCKS = 64;

/* Consumer warpgroups of a pass: peaks need many registers, picks much arithmetic. */
template <bool PICK> constexpr int pass_groups = PICK ? KEYS_GROUPS : 2;
template <bool PICK> constexpr int pass_threads = 128 * (1 + pass_groups<PICK>);

struct Votes {
    int32_t unit0, units; /* (sequence, KV head) of this launch */
    int32_t parts;        /* times that a thread of the first pass writes peaks */
    int32_t peaks;        /* room for a row's peaks */
    int32_t capacity;     /* of a row's list of candidates */
    int32_t budget, blocks, rescuers;
    int64_t stride, votes_stride, written;
    float *lines;      /* [units][packed] */
    int32_t *counts;   /* [units][packed][COUNT_STRIDE]: length of the list; above capacity: overflow */
    uint2 *candidates; /* [units][packed][capacity]: key of the logit, index */
    float *mass;       /* [units][stride] */
    double *partial;   /* [units][TOTAL_BLOCKS][2] */
    int32_t *tickets;  /* [units] */
    float *pool;       /* [units][packed][peaks]; later [rescuers][stride] */
    float *votes, *stats;
};

__device__ __forceinline__ int prefix_of(const Problem &p, int unit)
{
    int n = p.prefix_len[unit / p.kv_heads];
    n = n < p.max_prefix ? n : p.max_prefix;
    return n < 0 ? 0 : n;
}

/* Lanes of a warp that share a group: 2^fold, so that the peaks of `slots` warpgroups fit. */
__device__ __forceinline__ int fold_of(int slots, int peaks)
{
    int fold = 0;
    while (fold < 3 && slots * (32 >> fold) > peaks)
        fold++;
    return fold;
}

/* Smallest and largest key over the block. shared: 64 words. */
__device__ __forceinline__ void block_range(uint32_t least, uint32_t most, uint32_t *shared, uint32_t *from,
                                            uint32_t *to)
{
    int warp = threadIdx.x >> 5;
    least = __reduce_min_sync(0xffffffffu, least);
    most = __reduce_max_sync(0xffffffffu, most);
    if ((threadIdx.x & 31) == 0) {
        shared[2 * warp] = least;
        shared[2 * warp + 1] = most;
    }
    __syncthreads();
    *from = shared[0];
    *to = shared[1];
    for (int i = 1; i < SMALL_THREADS / 32; i++) {
        *from = shared[2 * i] < *from ? shared[2 * i] : *from;
        *to = shared[2 * i + 1] > *to ? shared[2 * i + 1] : *to;
    }
}

/* Bits that a number needs. */
__device__ __forceinline__ int width_of(uint32_t x)
{
    return 32 - __clz((int)x);
}

/* Grid (packed, units): the bound of a row, the lower edge of one of 2048 equal steps between its smallest and
 * largest peak; empty lists. */
static __global__ void __launch_bounds__(SMALL_THREADS) vote_bounds(Problem p, Votes v)
{
    __shared__ int histogram[BINS], scan[32], picked[2];
    __shared__ uint32_t range[64];
    constexpr int PER = BINS / SMALL_THREADS;
    int64_t line = (int64_t)blockIdx.y * p.packed + blockIdx.x;
    const float *peaks = v.pool + line * v.peaks;
    int tiles = (prefix_of(p, v.unit0 + (int)blockIdx.y) + TILE - 1) / TILE;
    int slots = v.blocks * pass_groups<false> * v.parts, total = 0, own[PER], sum = 0, bin, above;
    uint32_t least = 0xffffffffu, most = 0, from, to;
    slots = tiles < slots ? tiles : slots;
    int n = slots * (32 >> fold_of(slots, v.peaks));
    for (int i = threadIdx.x; i < BINS; i += SMALL_THREADS)
        histogram[i] = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < n; i += SMALL_THREADS) {
        uint32_t key = key_of(peaks[i]);
        least = key != KEY_NEVER && key < least ? key : least;
        most = key > most ? key : most;
    }
    block_range(least, most, range, &from, &to);
    int shift = to > from ? width_of(to - from) - 11 : 0;
    shift = shift > 0 ? shift : 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < n; i += SMALL_THREADS) {
        uint32_t key = key_of(peaks[i]);
        if (key != KEY_NEVER)
            atomicAdd(&histogram[(key - from) >> shift], 1);
    }
    __syncthreads();
    for (int i = 0; i < PER; i++)
        sum += own[i] = histogram[BINS - 1 - ((int)threadIdx.x * PER + i)];
    block_scan(sum, scan, &total);
    bool enough = v.budget > 0 && total >= v.budget;
    __syncthreads();
    if (enough)
        find_bin(own, v.budget, scan, picked, &bin, &above);
    if (threadIdx.x == 0) {
        uint32_t edge = enough ? from + ((uint32_t)bin << shift) : 0;
        v.lines[line] = v.budget < 1 ? INFINITY
                        : !enough    ? -INFINITY /* nothing, or everything */
                                     : __uint_as_float(edge & 0x80000000u ? edge ^ 0x80000000u : ~edge);
        v.counts[line * COUNT_STRIDE] = 0;
        if (blockIdx.x == 0)
            v.tickets[blockIdx.y] = 0;
    }
}

/* Grid (packed, units): votes for the best of a row's candidates. Radix selection over the logit's key, counted
 * from the least one, and then, where equals do not all fit, over the index, low ones first; it ends as soon as a
 * digit separates. The line is what (key - from) >> key_down must
 * reach, and at equality (2^24 - 1 - index) >> index_down. */
static __global__ void __launch_bounds__(SMALL_THREADS) vote_choose(Problem p, Votes v)
{
    __shared__ int histogram[BINS], scan[32], picked[2];
    __shared__ uint32_t range[64];
    constexpr int PER = BINS / SMALL_THREADS;
    int64_t line = (int64_t)blockIdx.y * p.packed + blockIdx.x;
    int n = v.counts[line * COUNT_STRIDE], wanted = v.budget, key_down = 0, index_down = 32;
    const uint2 *list = v.candidates + line * v.capacity;
    uint32_t least = 0xffffffffu, most = 0, from, to, key_line = 0, index_line = 0;
    if (n > v.capacity || n == 0 || wanted < 1)
        return;
#pragma unroll 4
    for (int i = threadIdx.x; i < n; i += SMALL_THREADS) {
        uint32_t key = list[i].x;
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    block_range(least, most, range, &from, &to);
    int top = to > from ? width_of(to - from) : 1;
    bool separated = n <= wanted, by_index = false;
    while (!separated) {
        int low = top > 11 ? top - 11 : 0, own[PER], bin, above;
        for (int i = threadIdx.x; i < BINS; i += SMALL_THREADS)
            histogram[i] = 0;
        __syncthreads();
#pragma unroll 4
        for (int i = threadIdx.x; i < n; i += SMALL_THREADS) {
            uint2 x = list[i];
            uint32_t word = by_index ? 0xffffffu - x.y : x.x - from,
                     line_so_far = by_index ? index_line : key_line;
            if ((!by_index || x.x - from == key_line) && (uint64_t)word >> top == line_so_far)
                atomicAdd(&histogram[(word >> low) & ((1u << (top - low)) - 1)], 1);
        }
        __syncthreads();
        for (int i = 0; i < PER; i++)
            own[i] = histogram[BINS - 1 - ((int)threadIdx.x * PER + i)];
        find_bin(own, wanted, scan, picked, &bin, &above);
        wanted -= above;
        separated = histogram[bin] == wanted;
        uint32_t next = (by_index ? index_line : key_line) << (top - low) | (uint32_t)bin;
        key_line = by_index ? key_line : next;
        index_line = by_index ? next : index_line;
        key_down = by_index ? key_down : low;
        index_down = by_index ? low : index_down;
        top = low;
        if (top == 0 && !by_index) { /* equal logits: on to the index, 24 bits */
            by_index = true;
            top = 24;
        }
        __syncthreads();
    }
    float *votes = v.votes + (v.unit0 + blockIdx.y) * v.votes_stride;
#pragma unroll 4
    for (int i = threadIdx.x; i < n; i += SMALL_THREADS) {
        uint2 x = list[i];
        uint32_t key = (x.x - from) >> key_down;
        if (key > key_line ||
            (key == key_line && (index_down == 32 || (0xffffffu - x.y) >> index_down >= index_line)))
            atomicAdd(votes + x.y, 1.0f);
    }
}

/* Rows whose list overflowed, one at a time a block: all logits, in memory, and their line. */
static __global__ void __launch_bounds__(RESCUE_THREADS) vote_rescue(Problem p, Votes v)
{
    __shared__ LineShared shared;
    __shared__ float q[FLASH_D];
    float *logits = v.pool + (int64_t)blockIdx.x * v.stride;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, part = lane & 3, any = 0;
    for (int64_t line = threadIdx.x; line < (int64_t)v.units * p.packed; line += RESCUE_THREADS)
        any |= v.counts[line * COUNT_STRIDE] > v.capacity;
    if (!__syncthreads_or(any)) /* as nearly always */
        return;
    for (int64_t line = blockIdx.x; line < (int64_t)v.units * p.packed; line += gridDim.x) {
        if (v.counts[line * COUNT_STRIDE] <= v.capacity)
            continue;
        int unit = v.unit0 + (int)(line / p.packed), row = (int)(line % p.packed), n = prefix_of(p, unit);
        int b = unit / p.kv_heads, h = unit % p.kv_heads;
        const __nv_bfloat16 *k = (const __nv_bfloat16 *)p.k + cache_offset(p, b, h);
        __syncthreads();
        if (threadIdx.x < FLASH_D)
            q[threadIdx.x] = load((const __nv_bfloat16 *)p.q + state_of(p, b, h, row) * FLASH_D + threadIdx.x);
        __syncthreads();
        for (int first = warp * 8; first < n; first += RESCUE_THREADS / 4) { /* four lanes a key */
            int j = first + lane / 4;
            float sum = 0.0f, x[8];
            for (int c = part; j < n && c < FLASH_D / 8; c += 4) {
                load8(k + (int64_t)j * FLASH_D + c * 8, x);
                for (int i = 0; i < 8; i++)
                    sum += q[c * 8 + i] * x[i];
            }
            sum = quad_sum(sum);
            if (part == 0 && j < n)
                logits[j] = sum;
        }
        __syncthreads();
        uint32_t key;
        int32_t last;
        find_line<RESCUE_THREADS>(logits, n, v.budget, shared, &key, &last);
        for (int j = threadIdx.x; j < n; j += RESCUE_THREADS)
            if (above_line(key_of(logits[j]), j, key, last))
                atomicAdd(v.votes + unit * v.votes_stride + j, 1.0f);
    }
}

/* Grid (TOTAL_BLOCKS, units): size of the union and the mass on it; the last block of a unit adds up in order. */
static __global__ void __launch_bounds__(SMALL_THREADS) vote_totals(Problem p, Votes v)
{
    __shared__ double sums[2][SMALL_THREADS];
    int unit = v.unit0 + (int)blockIdx.y, n = prefix_of(p, unit), each = (n + TOTAL_BLOCKS - 1) / TOTAL_BLOCKS;
    int first = (int)blockIdx.x * each, last = first + each < n ? first + each : n;
    const float *votes = v.votes + unit * v.votes_stride, *mass = v.mass + blockIdx.y * v.stride;
    double named = 0.0, held = 0.0;
#pragma unroll 8
    for (int j = first + (int)threadIdx.x; j < last; j += SMALL_THREADS) {
        float x = mass[j];
        bool counts = votes[j] > 0.0f;
        named += counts ? 1.0 : 0.0;
        held += counts ? (double)x : 0.0;
    }
    sums[0][threadIdx.x] = named;
    sums[1][threadIdx.x] = held;
    for (int half = SMALL_THREADS / 2; half; half >>= 1) {
        __syncthreads();
        if ((int)threadIdx.x < half) {
            sums[0][threadIdx.x] += sums[0][threadIdx.x + half];
            sums[1][threadIdx.x] += sums[1][threadIdx.x + half];
        }
    }
    if (threadIdx.x)
        return;
    double *partial = v.partial + blockIdx.y * TOTAL_BLOCKS * 2;
    partial[2 * blockIdx.x] = sums[0][0];
    partial[2 * blockIdx.x + 1] = sums[1][0];
    __threadfence();
    if (atomicAdd(v.tickets + blockIdx.y, 1) != TOTAL_BLOCKS - 1)
        return;
    __threadfence();
    named = held = 0.0;
#pragma unroll 16
    for (int i = 0; i < TOTAL_BLOCKS; i++) {
        named += __ldcg(partial + 2 * i);
        held += __ldcg(partial + 2 * i + 1);
    }
    v.stats[2 * unit] = (float)named;
    v.stats[2 * unit + 1] = (float)held;
}

} /* namespace mb_cuda */

#endif
