/*
 * attend_pages.cu - sparse block attention on mma.sync (sm_80 and later), bf16, head_dim 64 or 128: the keys of a
 * selection, gathered row by row straight from the cache, and the current block.
 *
 * A few hundred to a few thousand keys are a matter of latency: ids, then keys, then short products. So the ids of
 * the first tiles are read before the count is known, the ids of a later tile one tile ahead of its copies, and as
 * many tiles are in flight as shared memory holds (four of 64 keys on Hopper). Parts of a unit's keys are merged
 * in a fixed order: by a cluster of up to 8 blocks through distributed shared memory on sm_90 and later, else
 * through partial states in the workspace.
 */
#include "kernels/cuda/depend.cuh"
#include "kernels/cuda/mma_attention.cuh"
#include "kernels/cuda/tma.cuh"

namespace mb_cuda
{
namespace
{

constexpr int FEW = 2, MANY = 5; /* stages of the ring of key tiles */

template <int D, int MT, int STAGES> constexpr int shared_bytes = 64 * MT *D * 2 + STAGES * 2 * tile_bytes<D>;

#if __CUDA_ARCH__ >= 900
/* Arrives at a barrier in shared memory when this thread's copies so far are there. */
__device__ __forceinline__ void copy_arrive(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
#endif

/* Cache slots of list positions as the ids have them, nothing checked but the array's bounds. */
template <int D>
__device__ __forceinline__ void look_up(int (&slot)[SHARE<D>], const int32_t *ids, int shift, int first, int end)
{
#pragma unroll
    for (int i = 0; i < SHARE<D>; i++) {
        int position = first + (int)threadIdx.x / CHUNKS<D> + i * STRIDE<D>;
        slot[i] = -1;
        if (position < end)
            slot[i] = (int)((uint32_t)ids[position >> shift] << shift) + (position & ((1 << shift) - 1));
    }
}

/* The same, once the list is known: -1 where there is no key, and the slots of the block. used: positions below
 * this belong to chosen pages. */
template <int D>
__device__ __forceinline__ void settle(int (&slot)[SHARE<D>], const KeyList &list, int used, int first, int end)
{
#pragma unroll
    for (int i = 0; i < SHARE<D>; i++) {
        int position = first + (int)threadIdx.x / CHUNKS<D> + i * STRIDE<D>;
        if (position >= end)
            slot[i] = -1;
        else if (position >= list.selected)
            slot[i] = list.prefix + (position - list.selected);
        else if (position >= used || slot[i] >= list.prefix || slot[i] < 0)
            slot[i] = -1; /* an unused entry, or behind the end of the last page */
    }
}

/* Grid: (splits, row tiles, units). CLUSTER: gridDim.x is also the cluster's size. */
template <int D, int MT, int STAGES, bool CLUSTER>
__global__ void __launch_bounds__(THREADS, STAGES == FEW ? 2 : 1) attend_pages(const __grid_constant__ Problem p)
{
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ uint64_t full[MANY], empty[MANY]; /* of the ring's stages: every thread's copies; every warp */
    constexpr int ROWS = 64 * MT, AHEAD = STAGES - 1;
    int unit = (int)blockIdx.z, split = (int)blockIdx.x, splits = (int)gridDim.x;
    int b = unit / p.kv_heads, h = unit % p.kv_heads, row0 = (int)blockIdx.y * ROWS;
    let_dependents_start();
    wait_for_dependency();
    if (!is_active(p, b, h))
        return;
#if __CUDA_ARCH__ >= 900
    if (STAGES == MANY) {
        if (threadIdx.x == 0) {
            for (int i = 0; i < STAGES; i++) {
                barrier_init(shared_address(full + i), THREADS);
                barrier_init(shared_address(empty + i), THREADS / 32);
            }
            barrier_init_fence();
        }
        __syncthreads();
    }
#endif
    int warp = (int)threadIdx.x >> 5;
    uint32_t q_tile = shared_address(shared), tiles = q_tile + ROWS * D * 2; /* stages of k, then v */
    const int32_t *ids = p.page_ids + (int64_t)unit * p.page_capacity;

    /* Before the count is known: the share of this block as if every entry were used. */
    int slot[AHEAD][SHARE<D>], shift = p.page_shift;
    int keys = p.span == MB_SPAN_BLOCK ? 0 : p.page_capacity << shift;
    int64_t groups = (keys + (p.span == MB_SPAN_PREFIX ? 0 : p.block_keys) + 15) / 16;
    int begin = (int)(groups * split / splits) * 16, end = (int)(groups * (split + 1) / splits) * 16;
#pragma unroll
    for (int t = 0; t < AHEAD; t++)
        look_up<D>(slot[t], ids, shift, begin + t * TILE, keys < end ? keys : end);
    load_rows<D, MT, PAGES>(p, q_tile, b, h, unit, row0, p.packed);
    int count = p.page_counts[unit];
    bool guessed = count <= p.page_capacity && 2 * count >= p.page_capacity && p.span != MB_SPAN_BLOCK;
    KeyList list = key_list<PAGES>(p, b, h, p.packed, guessed ? p.page_capacity : -1);
    int used = guessed ? count << shift : list.selected;
    if (!guessed) { /* cut anew: few entries are used, or all of the prefix is wanted */
        groups = (list.total + 15) / 16;
        begin = (int)(groups * split / splits) * 16;
        end = (int)(groups * (split + 1) / splits) * 16;
#pragma unroll
        for (int t = 0; t < AHEAD; t++)
            look_up<D>(slot[t], ids, shift, begin + t * TILE, list.selected < end ? list.selected : end);
    }
    end = end < list.total ? end : list.total;
    int listed = list.selected < end ? list.selected : end;
    const __nv_bfloat16 *k = (const __nv_bfloat16 *)p.k + cache_offset(p, b, h);
    const __nv_bfloat16 *v = (const __nv_bfloat16 *)p.v + cache_offset(p, b, h);
    auto load = [&](int(&from)[SHARE<D>], int first, int stage) {
        if (first < end) {
            settle<D>(from, list, used, first, end);
            uint32_t place = tiles + (uint32_t)(stage * 2 * tile_bytes<D>);
            load_tile<D>(k, v, from, place, place + tile_bytes<D>);
#if __CUDA_ARCH__ >= 900
            if (STAGES == MANY)
                copy_arrive(shared_address(full + stage));
#endif
        }
        copy_commit();
    };
#pragma unroll
    for (int t = 0; t < AHEAD; t++)
        load(slot[t], begin + t * TILE, t);
    look_up<D>(slot[0], ids, shift, begin + AHEAD * TILE, listed);
    State<D, MT> state;
    clear(state);
    uint32_t q_rows =
        q_tile + (warp & 3) * 16 * MT * D * 2; /* a multiple of eight rows: the swizzle is unchanged */
    auto work = [&](int first, int stage) {
        Half half = {first + (warp >> 2) * SPAN, end, {0, 0}};
        int last = half.first + SPAN;
        uint32_t k_tile = tiles + (uint32_t)(stage * 2 * tile_bytes<D>)+(warp >> 2) * SPAN * D * 2;
        uint32_t v_tile = k_tile + tile_bytes<D>;
        if (last <= end && (last <= list.hole || half.first >= list.selected))
            step<D, MT, PAGES, true>(state, q_rows, k_tile, v_tile, list, half, p.scale_log2);
        else if (half.first < end)
            step<D, MT, PAGES, false>(state, q_rows, k_tile, v_tile, list, half, p.scale_log2);
    };
    if constexpr (STAGES == MANY) {
#if __CUDA_ARCH__ >= 900
        /* Warps run up to two tiles apart, so that some multiply while others exponentiate. */
        int tile = 0;
        for (int first = begin; first < end; first += TILE, tile++) {
            int next = tile + AHEAD - 1;
            if (tile > 0) {
                if (next >= STAGES)
                    barrier_wait(shared_address(empty + next % STAGES), (uint32_t)(next / STAGES - 1) & 1);
                load(slot[0], begin + next * TILE, next % STAGES);
                look_up<D>(slot[0], ids, shift, begin + (next + 1) * TILE, listed);
            }
            barrier_wait(shared_address(full + tile % STAGES), (uint32_t)(tile / STAGES) & 1);
            work(first, tile % STAGES);
            __syncwarp();
            if ((threadIdx.x & 31) == 0)
                barrier_arrive(shared_address(empty + tile % STAGES));
        }
#endif
    } else {
        int stage = 0;
        for (int first = begin; first < end; first += TILE) {
            copy_wait<STAGES - 2>();
            __syncthreads(); /* this tile has arrived, and everyone has left the one before it */
            load(slot[0], first + AHEAD * TILE, stage == 0 ? STAGES - 1 : stage - 1);
            look_up<D>(slot[0], ids, shift, first + STAGES * TILE, listed);
            work(first, stage);
            stage = stage == STAGES - 1 ? 0 : stage + 1;
        }
    }
    copy_wait<0>();
    merge_and_store<D, MT, PAGES, CLUSTER>(p, shared, state, b, h, unit, row0, p.packed,
                                           splits > 1 ? ((int64_t)unit * splits + split) * p.packed + row0 : -1);
}

typedef void (*Kernel)(const Problem);

template <int D> Kernel choose(int mt, bool many, bool cluster)
{
    static_assert(2 * KEPT_FLOATS<D, 1> * sizeof(float) <= shared_bytes<D, 1, FEW>, "both halves fit");
    static_assert(2 * KEPT_FLOATS<D, 2> * sizeof(float) <= shared_bytes<D, 2, MANY>, "both halves fit");
    if (!many)
        return cluster ? attend_pages<D, 1, FEW, true> : attend_pages<D, 1, FEW, false>;
    if (mt == 1)
        return cluster ? attend_pages<D, 1, MANY, true> : attend_pages<D, 1, MANY, false>;
    return cluster ? attend_pages<D, 2, MANY, true> : attend_pages<D, 2, MANY, false>;
}

template <int D> int bytes_of(int mt, bool many)
{
    return !many ? shared_bytes<D, 1, FEW> : mt == 1 ? shared_bytes<D, 1, MANY> : shared_bytes<D, 2, MANY>;
}

int64_t keys_of(const Problem &p)
{
    return (p.span == MB_SPAN_BLOCK ? 0 : (int64_t)p.page_capacity << p.page_shift) + p.block_keys;
}

/* How a call is cut. Where a cluster merges and shared memory holds many tiles, one block runs on a multiprocessor
 * at a time: the cheapest of sixteen ways, in tenths of the time that a block of 64 rows needs for a tile (128
 * rows take 1.4 times that, start and end four to five tiles; H200). A cluster's blocks lie in one group of
 * multiprocessors (16 to 18 of them), so not every size fills the chip. Else as mma_attend cuts dense keys. */
struct Cut {
    int mt, splits;
    bool many;
};

Cut cut(const mb_cuda_chip *chip, const Problem &p)
{
    Cut best = {1, 1, chip->resident_clusters[1] > 0};
    if (!best.many) {
        best.splits = mma_splits(chip, p, keys_of(p));
        return best;
    }
    int64_t units = (int64_t)p.batch * p.kv_heads, keys = keys_of(p), least = INT64_MAX;
    for (int mt = 1; mt <= 2; mt++)
        for (int splits = 1; splits <= CLUSTER_MAX && (splits == 1 || keys >= 64 * splits); splits++) {
            int64_t clusters = units * ((p.packed + 64 * mt - 1) / (64 * mt)),
                    most = chip->resident_clusters[splits];
            if (most < 1)
                continue;
            int64_t rounds = (clusters + most - 1) / most, tiles = (keys + TILE * splits - 1) / (TILE * splits);
            int64_t cost = rounds * (tiles * (mt == 1 ? 10 : 14) + (splits > 1 ? 50 : 40));
            if (cost < least) {
                least = cost;
                best.mt = mt;
                best.splits = splits;
            }
        }
    return best;
}

} /* namespace */

int pages_splits(const mb_cuda_chip *chip, const Problem &p)
{
    return cut(chip, p).splits;
}

int pages_attend(const mb_cuda_chip *chip, const Problem &p, cudaStream_t stream, mb_error *err)
{
    Cut way = cut(chip, p);
    bool cluster = way.many ? way.splits > 1 : mma_cluster_merges(chip, way.splits);
    Kernel kernel =
        p.head_dim == 64 ? choose<64>(way.mt, way.many, cluster) : choose<128>(way.mt, way.many, cluster);
    int bytes = p.head_dim == 64 ? bytes_of<64>(way.mt, way.many) : bytes_of<128>(way.mt, way.many);
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    config.gridDim = dim3((unsigned)way.splits, (unsigned)((p.packed + 64 * way.mt - 1) / (64 * way.mt)),
                          (unsigned)(p.batch * p.kv_heads));
    config.blockDim = dim3(THREADS, 1, 1);
    config.dynamicSmemBytes = (size_t)bytes;
    config.stream = stream;
    config.attrs = attributes;
    if (chip->capability >= 90) {
        attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[0].val.programmaticStreamSerializationAllowed = 1;
        attributes[1].id = cudaLaunchAttributeClusterDimension;
        attributes[1].val.clusterDim.x = cluster ? (unsigned)way.splits : 1;
        attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
        config.numAttrs = 2;
    }
    cudaLaunchKernelEx(&config, kernel, p);
    int rc = check_launch("sparse attention", err);
    return rc == MB_OK && p.splits > 1 && !cluster ? merge_splits(p, MB_BF16, stream, err) : rc;
}

template <int D> static void allow_shared_memory(const mb_cuda_chip *chip)
{
    for (int way = 0; way < 6; way++) {
        int mt = way < 4 ? 1 : 2, bytes = bytes_of<D>(mt, way >= 2);
        if (bytes <= chip->shared_bytes)
            cudaFuncSetAttribute(choose<D>(mt, way >= 2, way & 1), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 bytes);
    }
}

/* How many clusters of a size run at once, one block on a multiprocessor. */
static void count_clusters(mb_cuda_chip *chip)
{
    constexpr int bytes = shared_bytes<128, 2, MANY>;
    if (chip->capability < 90 || chip->shared_bytes < bytes)
        return;
    for (int size = 1; size <= CLUSTER_MAX; size++) {
        cudaLaunchConfig_t config = {};
        cudaLaunchAttribute attribute = {};
        config.gridDim = dim3((unsigned)size);
        config.blockDim = dim3(THREADS);
        config.dynamicSmemBytes = bytes;
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim.x = (unsigned)size;
        attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
        config.attrs = &attribute;
        config.numAttrs = 1;
        if (cudaOccupancyMaxActiveClusters(&chip->resident_clusters[size], choose<128>(2, true, true), &config) !=
            cudaSuccess)
            chip->resident_clusters[size] = 0;
    }
}

int pages_setup(mb_cuda_chip *chip, mb_error *err)
{
    allow_shared_memory<64>(chip);
    allow_shared_memory<128>(chip);
    count_clusters(chip);
    return check_launch("setting the sparse attention kernels' shared memory", err);
}

} /* namespace mb_cuda */
