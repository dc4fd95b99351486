/*
 * select.cu - exact top-k and top-p of score rows, ties to the lower index, ids ascending, bit-equal every run.
 *
 * top-k: a cluster of eight blocks shares a row; each block owns a contiguous eighth and, up to 128K entries,
 * keeps its keys in registers, so scores are read once. Three radix passes (11, 11, 10 bits) find the k-th key:
 * every block counts in its shared memory and then sums one eighth of the bins over the cluster, so that few words
 * cross between multiprocessors; the eighth that holds the k-th key is read by all. A last count per warp gives
 * every chosen entry its place in index order. Integer counts only, so the order of arrival does not matter. GPUs
 * before sm_90 run the same code with one block a row. Long rows of which little is chosen go to select_groups.cu.
 */
#include "kernels/cuda/select_groups.cuh"

#include <cooperative_groups.h>

namespace cg = cooperative_groups;
using namespace mb_cuda;

constexpr int TOP_THREADS = 512;
constexpr int TOP_WARPS = TOP_THREADS / 32;
constexpr int CACHED = 32; /* keys a thread keeps in registers */
constexpr int CLUSTER_BLOCKS = 8;

struct TopArgs {
    const float *scores;
    int64_t stride;
    int32_t kv_heads, page, k, capacity;
    const int32_t *prefix_len, *k_dynamic;
    int32_t *ids, *counts;
};

__device__ __forceinline__ int64_t entries_of(const TopArgs &a, int bh)
{
    int64_t n = ((int64_t)a.prefix_len[bh / a.kv_heads] + a.page - 1) / a.page;
    return n < 0 ? 0 : n < a.stride ? n : a.stride;
}

/* CLUSTER blocks a row; KEEP: keys stay in registers (n <= CLUSTER * TOP_THREADS * CACHED). */
template <int CLUSTER, bool KEEP> __global__ void __launch_bounds__(TOP_THREADS, 2) top_k_kernel(TopArgs a)
{
    constexpr int SLICE = BINS / CLUSTER, PER = (SLICE + TOP_THREADS - 1) / TOP_THREADS;
    __shared__ int histogram[BINS], slice[SLICE], slice_total, totals[CLUSTER];
    __shared__ int scan[32], picked[2], warp_counts[2][TOP_WARPS], block_counts[2];
    int bh = blockIdx.x / CLUSTER, rank = blockIdx.x % CLUSTER, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int n = (int)entries_of(a, bh);
    int k = a.k_dynamic ? a.k_dynamic[bh] : a.k;
    k = k < 0 ? 0 : k > a.capacity ? a.capacity : k;
    /* Warp w of block r owns `per` consecutive entries, in rounds of 32. */
    int rounds = (n + CLUSTER * TOP_THREADS - 1) / (CLUSTER * TOP_THREADS);
    int first = (rank * TOP_WARPS + warp) * rounds * 32;
    const float *row = a.scores + (int64_t)bh * a.stride;
    uint32_t kept[KEEP ? CACHED : 1];
    if (KEEP) {
#pragma unroll
        for (int i = 0; i < CACHED; i++) {
            int j = first + i * 32 + lane;
            kept[i] = i < rounds && j < n ? key_of(row[j]) : KEY_NEVER;
        }
    }
    auto each = [&](auto &&visit) {
        if (KEEP) {
#pragma unroll
            for (int i = 0; i < CACHED; i++)
                if (i < rounds)
                    visit(first + i * 32 + lane, kept[i]);
        } else {
            for (int i = 0; i < rounds; i++) {
                int j = first + i * 32 + lane;
                visit(j, j < n ? key_of(row[j]) : KEY_NEVER);
            }
        }
    };
#if __CUDA_ARCH__ >= 900
    cg::cluster_group cluster = cg::this_cluster();
#endif
    uint32_t prefix = 0, mask = 0;
    int wanted = k;
    bool all = false, none = k == 0;
    for (int pass = 0; pass < 3; pass++) {
        for (int i = threadIdx.x; i < BINS; i += TOP_THREADS)
            histogram[i] = 0;
        __syncthreads();
        int shift = digit_shift(pass);
        uint32_t digits = digit_mask(pass);
        each([&](int, uint32_t key) {
            if (key != KEY_NEVER && (key & mask) == prefix)
                atomicAdd(&histogram[(key >> shift) & digits], 1);
        });
        /* My slice of the bins, summed over the cluster. */
        int sum = 0, total, ignored;
        if (CLUSTER > 1) {
#if __CUDA_ARCH__ >= 900
            cluster.sync();
#endif
        } else {
            __syncthreads();
        }
        for (int i = threadIdx.x; i < SLICE; i += TOP_THREADS) {
            int x = 0;
            for (int r = 0; r < CLUSTER; r++) {
#if __CUDA_ARCH__ >= 900
                x += (CLUSTER > 1 ? cluster.map_shared_rank(histogram, r) : histogram)[rank * SLICE + i];
#else
                x += histogram[rank * SLICE + i];
#endif
            }
            slice[i] = x;
            sum += x;
        }
        block_scan(sum, scan, &total);
        if (threadIdx.x == 0)
            slice_total = total;
        if (CLUSTER > 1) {
#if __CUDA_ARCH__ >= 900
            cluster.sync(); /* slices are whole, and nobody reads a histogram any more */
            if (threadIdx.x < CLUSTER)
                totals[threadIdx.x] = *cluster.map_shared_rank(&slice_total, (int)threadIdx.x);
#endif
        } else if (threadIdx.x == 0) {
            totals[0] = total;
        }
        __syncthreads();
        if (pass == 0) {
            total = 0;
            for (int r = 0; r < CLUSTER; r++)
                total += totals[r];
            all = total <= k; /* fewer than k can be chosen: take them all */
            none = none || total == 0;
        }
        if (!all && !none) { /* the same in every block of the cluster */
            int from = CLUSTER - 1, above = 0;
            while (from > 0 && above + totals[from] < wanted)
                above += totals[from--];
            const int *bins = slice;
#if __CUDA_ARCH__ >= 900
            if (CLUSTER > 1)
                bins = cluster.map_shared_rank(slice, from);
#endif
            /* Thread t owns PER bins going down from the slice's top, so a scan runs from the largest digit. */
            int own[PER], mine = 0;
            for (int i = 0; i < PER; i++) {
                int at = SLICE - 1 - ((int)threadIdx.x * PER + i);
                own[i] = at >= 0 ? bins[at] : 0;
                mine += own[i];
            }
            int before = above + block_scan(mine, scan, &ignored);
            if (before < wanted && before + mine >= wanted) {
                for (int i = 0; i < PER; i++) {
                    if (before + own[i] >= wanted) {
                        picked[0] = from * SLICE + SLICE - 1 - ((int)threadIdx.x * PER + i);
                        picked[1] = before;
                        break;
                    }
                    before += own[i];
                }
            }
            __syncthreads();
            wanted -= picked[1];
            prefix |= (uint32_t)picked[0] << shift;
            mask |= digits << shift;
        }
        __syncthreads();
    }
    /* Chosen: keys above prefix, and the first `wanted` of its equals. */
    if (all) {
        prefix = KEY_NEVER;
        wanted = 0;
    }
    int greater = 0, equal = 0;
    each([&](int, uint32_t key) {
        greater += __popc(__ballot_sync(0xffffffffu, !none && key > prefix));
        equal += __popc(__ballot_sync(0xffffffffu, !none && !all && key == prefix));
    });
    if (lane == 0) {
        warp_counts[0][warp] = greater;
        warp_counts[1][warp] = equal;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
        int sum = 0;
        for (int w = 0; w < TOP_WARPS; w++) {
            int x = warp_counts[threadIdx.x][w];
            warp_counts[threadIdx.x][w] = sum; /* now: counts before warp w */
            sum += x;
        }
        block_counts[threadIdx.x] = sum;
    }
    int greater_before, equal_before, greater_all = 0, equal_all = 0;
    if (CLUSTER > 1) {
#if __CUDA_ARCH__ >= 900
        cluster.sync();
        int g = 0, e = 0;
        for (int r = 0; r < CLUSTER; r++) {
            const int *theirs = cluster.map_shared_rank(block_counts, r);
            g = r == rank ? greater_all : g;
            e = r == rank ? equal_all : e;
            greater_all += theirs[0];
            equal_all += theirs[1];
        }
        cluster.sync(); /* nobody leaves while its counts are read */
        greater_before = g;
        equal_before = e;
#else
        greater_before = equal_before = 0;
#endif
    } else {
        __syncthreads();
        greater_before = equal_before = 0;
        greater_all = block_counts[0];
        equal_all = block_counts[1];
    }
    greater_before += warp_counts[0][warp];
    equal_before += warp_counts[1][warp];
    int32_t *ids = a.ids + (int64_t)bh * a.capacity;
    uint32_t below = (1u << lane) - 1u;
    each([&](int j, uint32_t key) {
        bool is_greater = !none && key > prefix, is_equal = !none && !all && key == prefix;
        uint32_t g = __ballot_sync(0xffffffffu, is_greater), e = __ballot_sync(0xffffffffu, is_equal);
        int equals = equal_before + __popc(e & below);
        if (is_greater || (is_equal && equals < wanted))
            ids[greater_before + __popc(g & below) + (equals < wanted ? equals : wanted)] = j;
        greater_before += __popc(g);
        equal_before += __popc(e);
    });
    if (rank == 0 && threadIdx.x == 0)
        a.counts[bh] = none ? 0 : greater_all + (equal_all < wanted ? equal_all : wanted);
}

template <int CLUSTER, bool KEEP> static cudaError_t launch(cudaStream_t stream, const TopArgs &a, int heads)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = dim3(heads * CLUSTER);
    config.blockDim = dim3(TOP_THREADS);
    config.stream = stream;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {CLUSTER, 1, 1};
    config.attrs = &attribute;
    config.numAttrs = CLUSTER > 1 ? 1 : 0;
    return cudaLaunchKernelEx(&config, top_k_kernel<CLUSTER, KEEP>, a);
}

/* The budgets that top-p finds come first in the scratch memory. */
static size_t budget_bytes(int64_t heads)
{
    return (size_t)((heads * (int64_t)sizeof(int32_t) + 255) / 256 * 256);
}

extern "C" size_t mb_cuda_top_k_scratch(int32_t batch, int32_t kv_heads, int32_t entries)
{
    int64_t heads = (int64_t)batch * kv_heads;
    return budget_bytes(heads) + (size_t)(heads * top_groups_words(entries)) * sizeof(uint32_t);
}

MB_CUDA_OPERATION(top_k, mb_top_k, MB_PART_SELECTION)
{
    const mb_scores *scores = &args->scores;
    const mb_page_set *chosen = &args->chosen;
    TopArgs a = {scores->values, scores->stride, scores->kv_heads, scores->page, args->k, chosen->capacity,
                 scores->prefix_len, args->k_dynamic, chosen->ids, chosen->counts};
    cudaStream_t stream = device->stream;
    int64_t entries = ((int64_t)scores->max_prefix + a.page - 1) / a.page;
    int heads = scores->batch * scores->kv_heads;
    if (a.page < 1 || chosen->granularity != a.page || a.capacity < 0)
        return cudaErrorInvalidValue;
    if (heads == 0)
        return cudaSuccess;
    GroupArgs groups = {scores->values,
                        scores->stride,
                        scores->kv_heads,
                        a.page,
                        args->k,
                        a.capacity,
                        0,
                        0,
                        scores->prefix_len,
                        args->k_dynamic,
                        chosen->ids,
                        chosen->counts,
                        (uint32_t *)((char *)args->scratch + budget_bytes(heads))};
    if (top_groups_serves(scores->values, scores->stride, entries, a.capacity, heads, &groups))
        return launch_top_groups(&device->chip, stream, groups, heads);
    if (device->chip.capability >= 90 && entries > TOP_THREADS * CACHED / 4)
        return entries <= (int64_t)CLUSTER_BLOCKS * TOP_THREADS * CACHED
                   ? launch<CLUSTER_BLOCKS, true>(stream, a, heads)
                   : launch<CLUSTER_BLOCKS, false>(stream, a, heads);
    return entries <= TOP_THREADS * CACHED ? launch<1, true>(stream, a, heads)
                                           : launch<1, false>(stream, a, heads);
}

/* ---- top-p ---- */

__device__ double block_sum_double(double x, double *shared)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    for (int offset = 16; offset; offset >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    __syncthreads();
    if (lane == 0)
        shared[warp] = x;
    __syncthreads();
    x = lane < warps ? shared[lane] : 0.0;
    for (int offset = 16; offset; offset >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

/* How many entries, best first, hold p of the total: the threshold key bit by bit from the top, each bit one pass
 * over the row (scores stay in cache), then how many of the equals are needed. */
__global__ void __launch_bounds__(1024) top_p_budget(TopArgs a, float p, int k_min, int k_max, int32_t *budgets)
{
    __shared__ double shared[32];
    __shared__ int counts[32];
    int bh = blockIdx.x, n = (int)entries_of(a, bh);
    const float *row = a.scores + (int64_t)bh * a.stride;
    auto mass_from = [&](uint32_t threshold, bool strictly) {
        double sum = 0.0;
        for (int j = threadIdx.x; j < n; j += blockDim.x) {
            uint32_t key = key_of(row[j]);
            if (key != KEY_NEVER && (strictly ? key > threshold : key >= threshold))
                sum += row[j] > 0.0f ? (double)row[j] : 0.0;
        }
        return block_sum_double(sum, shared);
    };
    double target = (double)p * mass_from(0, false);
    uint32_t threshold = 0;
    for (int bit = 31; bit >= 0; bit--)
        if (mass_from(threshold | 1u << bit, false) >= target)
            threshold |= 1u << bit;
    int greater = 0, eligible = 0, total;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        uint32_t key = key_of(row[j]);
        eligible += key != KEY_NEVER;
        greater += key != KEY_NEVER && key > threshold;
    }
    block_scan(eligible, counts, &eligible);
    block_scan(greater, counts, &total);
    double rest = target - mass_from(threshold, true);
    if (threadIdx.x == 0) {
        uint32_t bits = threshold & 0x80000000u ? threshold & 0x7fffffffu : ~threshold;
        double value = (double)__uint_as_float(bits);
        int budget = target > 0.0 && value > 0.0 ? total + (int)ceil(rest / value) : 0;
        budget = budget < k_min ? k_min : budget;
        budget = budget > k_max ? k_max : budget;
        budgets[bh] = budget < eligible ? budget : eligible;
    }
}

MB_CUDA_OPERATION(top_p, mb_top_p, MB_PART_SELECTION)
{
    const mb_scores *scores = &args->scores;
    int32_t *budgets = (int32_t *)args->scratch;
    TopArgs a = {scores->values, scores->stride, scores->kv_heads, scores->page, 0, args->chosen.capacity,
                 scores->prefix_len, NULL, args->chosen.ids, args->chosen.counts};
    mb_top_k by_budget = {*scores, 0, budgets, args->chosen, args->scratch};
    if (a.page < 1 || a.capacity < 0)
        return cudaErrorInvalidValue;
    if (scores->batch * scores->kv_heads == 0)
        return cudaSuccess;
    top_p_budget<<<scores->batch * scores->kv_heads, 1024, 0, device->stream>>>(a, args->p, args->k_min, args->k_max,
                                                                               budgets);
    cudaError_t status = cudaGetLastError();
    return status != cudaSuccess ? status : launch_top_k(device, &by_budget);
}
