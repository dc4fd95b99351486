/*
 * attend_mma.cu - attention on mma.sync (sm_80 and later), bf16 or f16, head_dim 64 or 128: the dense and
 * prefill fallback where the sm_90a kernels do not serve. Sparse attention: attend_pages.cu.
 *
 * One block holds 64 packed query rows and walks its part of the keys in tiles of 64, two tiles in flight. The
 * parts of one unit are merged in a fixed order: by a cluster of up to 8 blocks through distributed shared memory
 * on sm_90 and later (one launch, which is what a few hundred keys need), else through partial states in the
 * workspace.
 */
#include "kernels/cuda/mma_attention.cuh"

namespace mb_cuda
{
namespace
{

constexpr int ROWS = 64; /* packed query rows of a block */

template <typename T, int D> using Block = Shape<T, D, ROWS / 16, 2>;
template <class S> constexpr int shared_bytes = S::ROW_BYTES + 4 * S::TILE_BYTES;

/* Cache slots of this thread's rows of the tile at list position `first`; -1 where there is no key. */
template <class S, Source SOURCE>
__device__ __forceinline__ void find_slots(int (&slot)[S::SHARE], const KeyList &list, int first, int end)
{
#pragma unroll
    for (int i = 0; i < S::SHARE; i++) {
        int position = first + (int)threadIdx.x / S::CHUNKS + i * S::STRIDE;
        slot[i] = position < end ? key_slot<SOURCE>(list, position) : -1;
    }
}

/* Grid: (splits, row tiles, units). CLUSTER: gridDim.x is also the cluster's size. */
template <class S, Source SOURCE, bool CLUSTER>
__global__ void __launch_bounds__(S::THREADS, 2) attend_mma(const __grid_constant__ Problem p)
{
    typedef typename S::T T;
    extern __shared__ __align__(128) unsigned char shared[];
    int unit = (int)blockIdx.z, split = (int)blockIdx.x, splits = (int)gridDim.x;
    int row_tile = SOURCE == PREFILL ? (int)(gridDim.y - 1 - blockIdx.y) : (int)blockIdx.y; /* longest first */
    int b = SOURCE == PREFILL ? p.sequence : unit / p.kv_heads;
    int h = SOURCE == PREFILL ? unit / p.group : unit % p.kv_heads;
    int rows = SOURCE == PREFILL ? p.prefill_rows : p.packed;
    int row0 = row_tile * ROWS;
    if (SOURCE != PREFILL && !is_active(p, b, h))
        return;
    int warp = (int)threadIdx.x >> 5;
    uint32_t q_tile = shared_address(shared);
    uint32_t tiles = q_tile + S::ROW_BYTES; /* k0 v0 k1 v1 */
    load_rows<S, SOURCE>(p, q_tile, b, h, unit, row0, rows);
    KeyList list = key_list<SOURCE>(p, b, h, row0 + ROWS < rows ? row0 + ROWS : rows);
    /* Parts are cut at multiples of 16 keys, the smallest group that the matrix product works on. */
    int64_t groups = (list.total + 15) / 16;
    int begin = (int)(groups * split / splits) * 16, end = (int)(groups * (split + 1) / splits) * 16;
    end = end < list.total ? end : list.total;
    const T *k = (const T *)p.k + cache_offset(p, b, h), *v = (const T *)p.v + cache_offset(p, b, h);
    auto load = [&](int first) {
        if (first < end) {
            int slot[S::SHARE];
            uint32_t place = tiles + (uint32_t)((((first - begin) / TILE) & 1) * 2 * S::TILE_BYTES);
            find_slots<S, SOURCE>(slot, list, first, end);
            load_tile<S>(k, v, slot, place, place + S::TILE_BYTES);
        }
        copy_commit();
    };
    load(begin);
    load(begin + TILE);

    State<S> state;
    clear(state);
    Part part = {0, end, {0, 0}};
    if (SOURCE == PREFILL)
        for (int i = 0; i < 2; i++)
            part.limit[i] = prefill_limit(p, row0 + first_row<S>() + 8 * i);
    uint32_t q_rows = q_tile + warp % S::RG * 16 * S::D * 2; /* a multiple of eight rows: the swizzle is unchanged */
    for (int first = begin; first < end; first += TILE) {
        copy_wait<1>();
        __syncthreads();
        int offset = warp / S::RG * S::SPAN, stage = ((first - begin) / TILE) & 1;
        part.first = first + offset; /* this warp's keys */
        int last = part.first + S::SPAN;
        uint32_t k_tile = tiles + (uint32_t)(stage * 2 * S::TILE_BYTES + offset * S::D * 2);
        uint32_t v_tile = k_tile + S::TILE_BYTES;
        if (last <= end && (SOURCE != PREFILL || last <= prefill_limit(p, row0)))
            step<S, SOURCE, true>(state, q_rows, k_tile, v_tile, list, part, p.scale_log2);
        else if (part.first < end)
            step<S, SOURCE, false>(state, q_rows, k_tile, v_tile, list, part, p.scale_log2);
        __syncthreads();
        load(first + 2 * TILE);
    }
    copy_wait<0>();
    static_assert(S::MERGE_BYTES <= shared_bytes<S>, "the parts fit in the tiles' place");
    merge_and_store<S, SOURCE, CLUSTER>(p, shared, state, b, h, unit, row0, rows,
                                        splits > 1 ? ((int64_t)unit * splits + split) * p.packed + row0 : -1);
}

typedef void (*Kernel)(const Problem);

template <class S> Kernel choose(Source source, bool cluster)
{
    if (source == PREFILL)
        return attend_mma<S, PREFILL, false>;
    return cluster ? attend_mma<S, DENSE, true> : attend_mma<S, DENSE, false>;
}

Kernel choose(mb_type type, int head_dim, Source source, bool cluster)
{
    if (type == MB_F16)
        return head_dim == 64 ? choose<Block<__half, 64>>(source, cluster)
                              : choose<Block<__half, 128>>(source, cluster);
    return head_dim == 64 ? choose<Block<__nv_bfloat16, 64>>(source, cluster)
                          : choose<Block<__nv_bfloat16, 128>>(source, cluster);
}

/* Of both types. */
int bytes_of(int head_dim)
{
    return head_dim == 64 ? shared_bytes<Block<__half, 64>> : shared_bytes<Block<__half, 128>>;
}

int launch(Kernel kernel, const Problem &p, dim3 grid, bool cluster, cudaStream_t stream, mb_error *err)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = grid;
    config.blockDim = dim3(Block<__half, 128>::THREADS, 1, 1);
    config.dynamicSmemBytes = (size_t)bytes_of(p.head_dim);
    config.stream = stream;
    if (cluster) {
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim.x = grid.x;
        attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
        config.attrs = &attribute;
        config.numAttrs = 1;
    }
    cudaLaunchKernelEx(&config, kernel, p);
    return check_launch("attention (mma.sync)", err);
}

} /* namespace */

bool mma_serves(mb_type type, int head_dim)
{
    return (type == MB_BF16 || type == MB_F16) && (head_dim == 64 || head_dim == 128);
}

/* How many parts a unit's keys are cut into: enough blocks for two a multiprocessor, parts of 64 keys or more
 * where a cluster merges them, of 256 where a second kernel does. */
int mma_splits(const mb_cuda_chip *chip, const Problem &p, int64_t keys)
{
    int64_t units = (int64_t)p.batch * p.kv_heads * ((p.packed + ROWS - 1) / ROWS);
    int64_t room = units > 0 ? 2 * chip->multiprocessors / units : 1;
    int64_t most = keys / 64;
    int64_t wanted = room < most ? room : most;
    if (chip->capability >= 90 && (wanted <= 2 * CLUSTER_MAX || keys < 2048)) {
        int splits = 1;
        while (splits * 2 <= wanted && splits < CLUSTER_MAX)
            splits *= 2;
        return splits;
    }
    most = keys / 256;
    wanted = room < most ? room : most;
    return wanted < 1 ? 1 : wanted > MAX_SPLITS ? MAX_SPLITS : (int)wanted;
}

/* True when the splits are merged inside the attention kernel, so that no workspace is needed. */
bool mma_cluster_merges(const mb_cuda_chip *chip, int splits)
{
    return chip->capability >= 90 && splits > 1 && splits <= CLUSTER_MAX && (splits & (splits - 1)) == 0;
}

int mma_attend(const mb_cuda_chip *chip, mb_type type, const Problem &p, cudaStream_t stream, mb_error *err)
{
    bool cluster = mma_cluster_merges(chip, p.splits);
    Kernel kernel = choose(type, p.head_dim, DENSE, cluster);
    dim3 grid((unsigned)p.splits, (unsigned)((p.packed + ROWS - 1) / ROWS), (unsigned)(p.batch * p.kv_heads));
    int rc = launch(kernel, p, grid, cluster, stream, err);
    if (rc == MB_OK && p.splits > 1 && !cluster)
        rc = merge_splits(p, type, stream, err);
    return rc;
}

int mma_prefill(mb_type type, const Problem &p, cudaStream_t stream, mb_error *err)
{
    Kernel kernel = choose(type, p.head_dim, PREFILL, false);
    dim3 grid(1, (unsigned)((p.prefill_rows + ROWS - 1) / ROWS), (unsigned)p.query_heads);
    return launch(kernel, p, grid, false, stream, err);
}

int mma_setup(mb_error *err)
{
    for (int way = 0; way < 12; way++) {
        mb_type type = way < 6 ? MB_BF16 : MB_F16;
        int head_dim = way % 2 ? 64 : 128, kind = way / 2 % 3;
        cudaFuncSetAttribute(choose(type, head_dim, kind < 2 ? DENSE : PREFILL, kind == 1),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, bytes_of(head_dim));
    }
    return check_launch("setting the attention kernels' shared memory", err);
}

} /* namespace mb_cuda */
