/*
 * attend_pages.cu - sparse block attention on mma.sync (sm_80 and later), bf16 or f16, head_dim 64 or 128: the keys of
 * a selection, gathered row by row straight from the cache, and the current block.
 *
 * A few hundred to a few thousand keys are a matter of latency: ids, then keys, then short products. So the ids of
 * the first tiles are read before the count is known, the ids of a later tile one tile ahead of its copies, and as
 * many tiles are in flight as shared memory holds (four of 64 keys on Hopper). Parts of a unit's keys are merged
 * in a fixed order: by a cluster of up to 8 blocks through distributed shared memory on sm_90 and later, else
 * through partial states in the workspace.
 */
#include "kernels/cuda/depend.cuh"
#include "kernels/cuda/mma_attention.cuh"

namespace mb_cuda
{
namespace
{

constexpr int FEW = 2, MANY = 5; /* stages of the ring of key tiles */

/* Blocks: 64 rows in 8 warps where shared memory holds few tiles; else 64 rows in 16, or 128. */
template <typename T, int D> using Plain = Shape<T, D, 4, 2>;
template <typename T, int D> using Narrow = Shape<T, D, 4, 4>;
template <typename T, int D> using Wide = Shape<T, D, 8, 2>;

template <class S, int STAGES> constexpr int shared_bytes = S::ROW_BYTES + STAGES * 2 * S::TILE_BYTES;

/* Cache slots of list positions as the ids have them, nothing checked but the array's bounds. */
template <class S>
__device__ __forceinline__ void look_up(int (&slot)[S::SHARE], const int32_t *ids, int shift, int first, int end)
{
#pragma unroll
    for (int i = 0; i < S::SHARE; i++) {
        int position = first + (int)threadIdx.x / S::CHUNKS + i * S::STRIDE;
        slot[i] = -1;
        if (position < end)
            slot[i] = (int)((uint32_t)ids[position >> shift] << shift) + (position & ((1 << shift) - 1));
    }
}

/* The same, once the list is known: -1 where there is no key, and the slots of the block. used: positions below
 * this belong to chosen pages. */
template <class S>
__device__ __forceinline__ void settle(int (&slot)[S::SHARE], const KeyList &list, int used, int first, int end)
{
#pragma unroll
    for (int i = 0; i < S::SHARE; i++) {
        int position = first + (int)threadIdx.x / S::CHUNKS + i * S::STRIDE;
        if (position >= end)
            slot[i] = -1;
        else if (position >= list.selected)
            slot[i] = list.prefix + (position - list.selected);
        else if (position >= used || slot[i] >= list.prefix || slot[i] < 0)
            slot[i] = -1; /* an unused entry, or behind the end of the last page */
    }
}

/* Grid: (splits, row tiles, units). CLUSTER: gridDim.x is also the cluster's size. */
template <class S, int STAGES, bool CLUSTER>
__global__ void __launch_bounds__(S::THREADS, STAGES == FEW ? 2 : 1)
    attend_pages(const __grid_constant__ Problem p)
{
    extern __shared__ __align__(128) unsigned char shared[];
    typedef typename S::T T;
    constexpr int ROWS = S::ROWS, AHEAD = STAGES - 1;
    int unit = (int)blockIdx.z, split = (int)blockIdx.x, splits = (int)gridDim.x;
    int b = unit / p.kv_heads, h = unit % p.kv_heads, row0 = (int)blockIdx.y * ROWS;
    let_dependents_start();
    wait_for_dependency();
    if (!is_active(p, b, h))
        return;
    int warp = (int)threadIdx.x >> 5;
    uint32_t q_tile = shared_address(shared), tiles = q_tile + S::ROW_BYTES; /* stages of k, then v */
    const int32_t *ids = p.page_ids + (int64_t)unit * p.page_capacity;

    /* Before the count is known: the share of this block as if every entry were used. */
    int slot[AHEAD][S::SHARE], shift = p.page_shift;
    int keys = p.span == MB_SCOPE_BLOCK ? 0 : p.page_capacity << shift;
    int64_t groups = (keys + (p.span == MB_SCOPE_PREFIX ? 0 : p.block_keys) + 15) / 16;
    int begin = (int)(groups * split / splits) * 16, end = (int)(groups * (split + 1) / splits) * 16;
#pragma unroll
    for (int t = 0; t < AHEAD; t++)
        look_up<S>(slot[t], ids, shift, begin + t * TILE, keys < end ? keys : end);
    load_rows<S, PAGES>(p, q_tile, b, h, unit, row0, p.packed);
    int count = p.page_counts[unit];
    bool guessed = count <= p.page_capacity && 2 * count >= p.page_capacity && p.span != MB_SCOPE_BLOCK;
    KeyList list = key_list<PAGES>(p, b, h, p.packed, guessed ? p.page_capacity : -1);
    int used = guessed ? count << shift : list.selected;
    if (!guessed) { /* cut anew: few entries are used, or all of the prefix is wanted */
        groups = (list.total + 15) / 16;
        begin = (int)(groups * split / splits) * 16;
        end = (int)(groups * (split + 1) / splits) * 16;
#pragma unroll
        for (int t = 0; t < AHEAD; t++)
            look_up<S>(slot[t], ids, shift, begin + t * TILE, list.selected < end ? list.selected : end);
    }
    end = end < list.total ? end : list.total;
    int listed = list.selected < end ? list.selected : end;
    const T *k = (const T *)p.k + cache_offset(p, b, h), *v = (const T *)p.v + cache_offset(p, b, h);
    auto load = [&](int(&from)[S::SHARE], int first, int stage) {
        if (first < end) {
            settle<S>(from, list, used, first, end);
            uint32_t place = tiles + (uint32_t)(stage * 2 * S::TILE_BYTES);
            load_tile<S>(k, v, from, place, place + S::TILE_BYTES);
        }
        copy_commit();
    };
#pragma unroll
    for (int t = 0; t < AHEAD; t++)
        load(slot[t], begin + t * TILE, t);
    look_up<S>(slot[0], ids, shift, begin + AHEAD * TILE, listed);
    State<S> state;
    clear(state);
    int offset = warp / S::RG * S::SPAN; /* of this warp's keys in a tile */
    /* A multiple of eight rows further: the swizzle is unchanged. */
    uint32_t q_rows = q_tile + warp % S::RG * 16 * S::D * 2;
    auto work = [&](int first, int stage) {
        Part part = {first + offset, end, {0, 0}};
        int last = part.first + S::SPAN;
        uint32_t k_tile = tiles + (uint32_t)(stage * 2 * S::TILE_BYTES + offset * S::D * 2);
        uint32_t v_tile = k_tile + S::TILE_BYTES;
        if (last <= end && (last <= list.hole || part.first >= list.selected))
            step<S, PAGES, true>(state, q_rows, k_tile, v_tile, list, part, p.scale_log2);
        else if (part.first < end)
            step<S, PAGES, false>(state, q_rows, k_tile, v_tile, list, part, p.scale_log2);
    };
    int stage = 0;
    for (int first = begin; first < end; first += TILE) {
        copy_wait<STAGES - 2>();
        __syncthreads(); /* this tile has arrived, and everyone has left the one before it */
        load(slot[0], first + AHEAD * TILE, stage == 0 ? STAGES - 1 : stage - 1);
        look_up<S>(slot[0], ids, shift, first + STAGES * TILE, listed);
        work(first, stage);
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }
    copy_wait<0>();
    static_assert(S::MERGE_BYTES <= shared_bytes<S, STAGES>, "the parts fit in the tiles' place");
    merge_and_store<S, PAGES, CLUSTER>(p, shared, state, b, h, unit, row0, p.packed,
                                       splits > 1 ? ((int64_t)unit * splits + split) * p.packed + row0 : -1);
}

template <class S, int STAGES> PagesKernel kernel_of()
{
    return {attend_pages<S, STAGES, false>,
            attend_pages<S, STAGES, true>,
            S::ROWS,
            S::THREADS,
            shared_bytes<S, STAGES>,
            1,
            TILE};
}

enum Kind { PLAIN, NARROW, WIDE, NARROW_SM90, WIDE_SM90, KINDS };

template <typename T, int D> PagesKernel kernel_of_kind(int kind)
{
    return kind == PLAIN    ? kernel_of<Plain<T, D>, FEW>()
           : kind == NARROW ? kernel_of<Narrow<T, D>, MANY>()
                            : kernel_of<Wide<T, D>, MANY>();
}

/* The types differ in the kernels alone. */
PagesKernel kernel_of_kind(mb_type type, int head_dim, int kind)
{
    if (kind >= NARROW_SM90)
        return pages_sm90_kernel(kind == WIDE_SM90);
    if (type == MB_F16)
        return head_dim == 64 ? kernel_of_kind<__half, 64>(kind) : kernel_of_kind<__half, 128>(kind);
    return head_dim == 64 ? kernel_of_kind<__nv_bfloat16, 64>(kind) : kernel_of_kind<__nv_bfloat16, 128>(kind);
}

int64_t keys_of(const Problem &p)
{
    return (p.span == MB_SCOPE_BLOCK ? 0 : (int64_t)p.page_capacity << p.page_shift) + p.block_keys;
}

/* How a call is cut. */
struct Cut {
    int kind, splits;
};

/* Where a cluster merges and shared memory holds many tiles, one block runs on a multiprocessor at a time: the
 * cheapest of all ways, in tenths of a microsecond as an H200 takes them (a tile of keys; start and end). A
 * cluster's blocks lie in one group of multiprocessors (16 to 18 of them), so not every size fills the chip. Else
 * as mma_attend cuts dense keys. */
Cut cut(const mb_cuda_chip *chip, mb_type type, const Problem &p)
{
    static const int a_tile[] = {0, 15, 24, 20, 24}, ends[] = {0, 70, 90, 66, 75}, merging = 8;
    const int kinds = pages_sm90_serves(chip, type, p) ? KINDS : NARROW_SM90;
    int64_t units = (int64_t)p.batch * p.kv_heads, keys = keys_of(p), least = INT64_MAX;
    Cut best = {PLAIN, 1};
    if (chip->resident_clusters[1] < 1) {
        best.splits = mma_splits(chip, p, keys);
        return best;
    }
    for (int kind = NARROW; kind < kinds; kind++) {
        const PagesKernel block = kernel_of_kind(type, p.head_dim, kind);
        const int rows = block.rows;
        for (int splits = 1; splits <= CLUSTER_MAX && (splits == 1 || keys >= TILE * splits); splits++) {
            int64_t clusters = units * ((p.packed + rows - 1) / rows), most = chip->resident_clusters[splits];
            if (most < 1 || (chip->sparse_cut && chip->sparse_cut != 10 * kind + splits))
                continue;
            int64_t rounds = (clusters + most - 1) / most, span = (int64_t)block.keys * block.parts * splits;
            int64_t tiles = (keys + span - 1) / span;
            int64_t cost = rounds * (tiles * a_tile[kind] + ends[kind] + (splits > 1 ? merging : 0));
            if (cost < least) {
                least = cost;
                best.kind = kind;
                best.splits = splits;
            }
        }
    }
    if (least == INT64_MAX) /* a cut was asked for that this call cannot have */
        best.kind = NARROW;
    return best;
}

} /* namespace */

/* For the partial states in the workspace, which no kernel of sm_90a leaves. */
int pages_splits(const mb_cuda_chip *chip, const Problem &p)
{
    return cut(chip, MB_F16, p).splits;
}

int pages_attend(const mb_cuda_chip *chip, mb_type type, const Problem &given, cudaStream_t stream, mb_error *err)
{
    Problem p = given;
    Cut way = cut(chip, type, p);
    PagesKernel block = kernel_of_kind(type, p.head_dim, way.kind);
    bool cluster = way.kind == PLAIN ? mma_cluster_merges(chip, way.splits) : way.splits > 1;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    config.gridDim = dim3((unsigned)way.splits, (unsigned)((p.packed + block.rows - 1) / block.rows),
                          (unsigned)(p.batch * p.kv_heads));
    config.blockDim = dim3((unsigned)block.threads);
    config.dynamicSmemBytes = (size_t)block.bytes;
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
    cudaLaunchKernelEx(&config, cluster ? block.merged : block.alone, p);
    int rc = check_launch("sparse attention", err);
    p.splits = way.splits;
    return rc == MB_OK && p.splits > 1 && !cluster ? merge_splits(p, type, stream, err) : rc;
}

/* How many clusters of a size run at once, one block on a multiprocessor. */
static int count_clusters(const PagesKernel &block, int size)
{
    int count = 0;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = dim3((unsigned)size);
    config.blockDim = dim3((unsigned)block.threads);
    config.dynamicSmemBytes = (size_t)block.bytes;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = (unsigned)size;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cudaOccupancyMaxActiveClusters(&count, block.merged, &config) == cudaSuccess ? count : 0;
}

static void allow_shared(const PagesKernel &block)
{
    cudaFuncSetAttribute(block.alone, cudaFuncAttributeMaxDynamicSharedMemorySize, block.bytes);
    cudaFuncSetAttribute(block.merged, cudaFuncAttributeMaxDynamicSharedMemorySize, block.bytes);
}

int pages_setup(mb_cuda_chip *chip, mb_error *err)
{
    for (int way = 0; way < 4 * NARROW_SM90; way++) {
        PagesKernel block = kernel_of_kind(way & 1 ? MB_F16 : MB_BF16, way & 2 ? 128 : 64, way / 4);
        if (block.bytes <= chip->shared_bytes)
            allow_shared(block);
    }
    if (chip->capability == 90)
        for (int wide = 0; wide < 2; wide++)
            allow_shared(pages_sm90_kernel(wide));
    PagesKernel largest = kernel_of_kind(MB_BF16, 128, WIDE);
    if (chip->capability >= 90 && largest.bytes <= chip->shared_bytes)
        for (int size = 1; size <= CLUSTER_MAX; size++)
            chip->resident_clusters[size] = count_clusters(largest, size);
    return check_launch("setting the sparse attention kernels' shared memory", err);
}

} /* namespace mb_cuda */
