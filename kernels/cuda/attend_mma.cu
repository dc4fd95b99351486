/*
 * attend_mma.cu - attention on mma.sync (sm_80 and later), bf16, head_dim 64 or 128: the sparse block attention
 * of every GPU, and the dense and prefill fallback where the sm_90a kernels do not serve.
 *
 * One block holds 64 packed query rows and walks its part of the key list in tiles of 64 keys, gathered row by row
 * (16-byte copies) straight from the cache, two tiles in flight. Eight warps: 16 rows and half of each tile's keys
 * each, because a few hundred keys are a matter of latency, and two warps a scheduler hide twice as much of it;
 * the halves are merged at the end. The parts of one unit are merged in a fixed order: by a cluster of up to 8
 * blocks through distributed shared memory on sm_90 and later (one launch, which is what a few hundred keys need),
 * else through partial states in the workspace.
 */
#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/key_list.cuh"
#include "kernels/cuda/mma.cuh"

#include <cooperative_groups.h>

namespace mb_cuda {
namespace {

constexpr int ROWS = 64;      /* packed query rows of a block */
constexpr int TILE = 64;      /* keys of a tile */
constexpr int THREADS = 256;  /* warps 0-3 take keys 0..31 of a tile, warps 4-7 keys 32..63 */
constexpr int SPAN = 32;      /* keys of a tile that one warp works on */
constexpr int CLUSTER_MAX = 8;

template <int D> constexpr int tile_bytes = TILE * D * 2;
template <int D> constexpr int shared_bytes = ROWS * D * 2 + 4 * tile_bytes<D>;

/* Rows of a tile that one thread copies: rows thread / CHUNKS + i * STRIDE, one 16-byte chunk each. */
template <int D> constexpr int CHUNKS = D / 8;
template <int D> constexpr int STRIDE = THREADS / CHUNKS<D>;
template <int D> constexpr int SHARE = TILE / STRIDE<D>;

/* Cache slots of this thread's rows of the tile at list position `first`; -1 where there is no key. All lookups
 * come before the copies, so that they are in flight together. */
template <int D, Source SOURCE>
__device__ __forceinline__ void find_slots(int (&slot)[SHARE<D>], const KeyList &list, int first, int end)
{
#pragma unroll
    for (int i = 0; i < SHARE<D>; i++) {
        int position = first + (int)threadIdx.x / CHUNKS<D> + i * STRIDE<D>;
        bool there = position < end && key_there<SOURCE>(list, position);
        slot[i] = there ? key_slot<SOURCE>(list, position) : -1;
    }
}

/* One tile of keys and values into shared memory; rows without a key are zeroed, so that whatever the cache holds
 * elsewhere (even NaN) cannot reach a product with probability zero. */
template <int D>
__device__ __forceinline__ void load_tile(const __nv_bfloat16 *k, const __nv_bfloat16 *v,
                                          const int (&slot)[SHARE<D>], uint32_t k_tile, uint32_t v_tile)
{
    int row = (int)threadIdx.x / CHUNKS<D>, chunk = (int)threadIdx.x % CHUNKS<D>;
#pragma unroll
    for (int i = 0; i < SHARE<D>; i++) {
        int64_t offset = slot[i] >= 0 ? (int64_t)slot[i] * D + chunk * 8 : 0;
        copy_async16(k_tile + swizzled<D>(row + i * STRIDE<D>, chunk), k + offset, slot[i] >= 0);
    }
#pragma unroll
    for (int i = 0; i < SHARE<D>; i++) {
        int64_t offset = slot[i] >= 0 ? (int64_t)slot[i] * D + chunk * 8 : 0;
        copy_async16(v_tile + swizzled<D>(row + i * STRIDE<D>, chunk), v + offset, slot[i] >= 0);
    }
}

/* Running state of a warp's 16 rows: each thread holds two rows (lane / 4 and + 8). */
template <int D> struct State {
    float o[D / 8][4];
    float top[2], sum[2];
};

/* This warp's half of one tile: logits, running maximum, probabilities, output. `first` is the list position of
 * the half's first key. FULL: all its keys are there and seen by every row; else sixteens of keys past `end` are
 * skipped and single keys masked. */
template <int D, Source SOURCE, bool FULL>
__device__ __forceinline__ void step(State<D> &state, uint32_t q_tile, uint32_t k_tile, uint32_t v_tile,
                                     const KeyList &list, int first, int end, const int (&limit)[2],
                                     float scale_log2)
{
    int lane = (int)threadIdx.x & 31;
    int groups = FULL ? SPAN / 16 : (end - first + 15) / 16;
    float s[SPAN / 8][4];
#pragma unroll
    for (int n = 0; n < SPAN / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] = 0.0f;
    int key_row = (lane & 7) + ((lane >> 4) << 3), key_chunk = (lane >> 3) & 1;
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        uint32_t q[4];
        load_matrix4(q, q_tile + swizzled<D>(lane & 15, c * 2 + (lane >> 4)));
#pragma unroll
        for (int g = 0; g < SPAN / 16; g++) {
            if (FULL || g < groups) {
                uint32_t b[4];
                load_matrix4(b, k_tile + swizzled<D>(g * 16 + key_row, c * 2 + key_chunk));
                multiply(s[2 * g], q, b[0], b[1]);
                multiply(s[2 * g + 1], q, b[2], b[3]);
            }
        }
    }
    float top[2] = {state.top[0], state.top[1]};
#pragma unroll
    for (int n = 0; n < SPAN / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (!FULL) {
                int position = first + n * 8 + (lane & 3) * 2 + (e & 1);
                bool seen = position < end && key_there<SOURCE>(list, position);
                seen = seen && (SOURCE != PREFILL || position < limit[e >> 1]);
                s[n][e] = seen ? s[n][e] : -INFINITY;
            }
            top[e >> 1] = fmaxf(top[e >> 1], s[n][e]);
        }
    float shift[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        top[i] = quad_max(top[i]);
        shift[i] = top[i] == -INFINITY ? 0.0f : top[i] * scale_log2;   /* no key yet: keep exp2's input -inf */
        float old = fast_exp2(state.top[i] * scale_log2 - shift[i]);
        state.top[i] = top[i];
        state.sum[i] *= old;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            state.o[n][2 * i] *= old;
            state.o[n][2 * i + 1] *= old;
        }
    }
#pragma unroll
    for (int n = 0; n < SPAN / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            s[n][e] = fast_exp2(s[n][e] * scale_log2 - shift[e >> 1]);
            state.sum[e >> 1] += s[n][e];
        }
    int value_row = (lane & 7) + (((lane >> 3) & 1) << 3), value_chunk = lane >> 4;
#pragma unroll
    for (int g = 0; g < SPAN / 16; g++) {
        if (FULL || g < groups) {
            uint32_t a[4] = {pack_bf16(s[2 * g][0], s[2 * g][1]), pack_bf16(s[2 * g][2], s[2 * g][3]),
                             pack_bf16(s[2 * g + 1][0], s[2 * g + 1][1]),
                             pack_bf16(s[2 * g + 1][2], s[2 * g + 1][3])};
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                uint32_t b[4];
                load_matrix4_transposed(b, v_tile + swizzled<D>(g * 16 + value_row, n * 2 + value_chunk));
                multiply(state.o[2 * n], a, b[0], b[1]);
                multiply(state.o[2 * n + 1], a, b[2], b[3]);
            }
        }
    }
}

/* Rows of fp32 in shared memory, padded against bank conflicts; the per-row log-sum-exps follow. */
template <int D> constexpr int KEPT_STRIDE = D + 8;
template <int D> constexpr int KEPT_FLOATS = ROWS * KEPT_STRIDE<D> + ROWS;

/* A thread's two rows, normalised, to such a place. */
template <int D>
__device__ __forceinline__ void keep_rows(float *kept, const State<D> &state, const float (&inverse)[2],
                                          const float (&lse2)[2])
{
    int lane = (int)threadIdx.x & 31, row = (((int)threadIdx.x >> 5) & 3) * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 2; i++, row += 8) {
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *(float2 *)(kept + row * KEPT_STRIDE<D> + n * 8 + (lane & 3) * 2) =
                make_float2(state.o[n][2 * i] * inverse[i], state.o[n][2 * i + 1] * inverse[i]);
        if ((lane & 3) == 0)
            kept[ROWS * KEPT_STRIDE<D> + row] = lse2[i];
    }
}

/* Adds the other half's rows to this thread's: afterwards inverse and lse2 are of both. */
template <int D>
__device__ __forceinline__ void add_rows(const float *kept, State<D> &state, float (&inverse)[2], float (&lse2)[2])
{
    int lane = (int)threadIdx.x & 31, row = (((int)threadIdx.x >> 5) & 3) * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < 2; i++, row += 8) {
        float other = kept[ROWS * KEPT_STRIDE<D> + row], top = fmaxf(lse2[i], other);
        float mine = lse2[i] > -INFINITY ? fast_exp2(lse2[i] - top) : 0.0f;
        float theirs = other > -INFINITY ? fast_exp2(other - top) : 0.0f;
        float sum = mine + theirs, scale = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            float2 x = *(const float2 *)(kept + row * KEPT_STRIDE<D> + n * 8 + (lane & 3) * 2);
            state.o[n][2 * i] = (state.o[n][2 * i] * inverse[i] * mine + x.x * theirs) * scale;
            state.o[n][2 * i + 1] = (state.o[n][2 * i + 1] * inverse[i] * mine + x.y * theirs) * scale;
        }
        inverse[i] = 1.0f;
        lse2[i] = sum > 0.0f ? top + log2f(sum) : -INFINITY;
    }
}

/* Merges the cluster's partial states: every block left 64 normalised rows and their base-2
 * log-sum-exps in its shared memory; block `rank` finishes rows rank, rank + size, ... */
template <int D>
__device__ __forceinline__ void merge_cluster(const Problem &p, float *rows, int b, int h, int row0)
{
#if __CUDA_ARCH__ >= 900
    namespace cg = cooperative_groups;
    cg::cluster_group cluster = cg::this_cluster();
    cluster.sync();
    int size = (int)cluster.num_blocks(), rank = (int)cluster.block_rank();
    int warp = (int)threadIdx.x >> 5, lane = (int)threadIdx.x & 31;
    constexpr int PAIRS = D / 64;
    for (int row = rank + size * warp; row < ROWS && row0 + row < p.packed; row += size * (THREADS / 32)) {
        float lse[CLUSTER_MAX], top = -INFINITY, sum = 0.0f;
        float2 o[PAIRS];
#pragma unroll
        for (int i = 0; i < CLUSTER_MAX; i++) {
            lse[i] = i < size ? cluster.map_shared_rank(rows, i)[ROWS * KEPT_STRIDE<D> + row] : -INFINITY;
            top = fmaxf(top, lse[i]);
        }
#pragma unroll
        for (int n = 0; n < PAIRS; n++)
            o[n] = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int i = 0; i < CLUSTER_MAX; i++) {
            if (i < size && lse[i] > -INFINITY) {
                float weight = fast_exp2(lse[i] - top);
                const float2 *part = (const float2 *)(cluster.map_shared_rank(rows, i) + row * KEPT_STRIDE<D>);
                sum += weight;
#pragma unroll
                for (int n = 0; n < PAIRS; n++) {
                    float2 x = part[n * 32 + lane];
                    o[n].x += weight * x.x;
                    o[n].y += weight * x.y;
                }
            }
        }
        float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
        int64_t state = state_of(p, b, h, row0 + row);
        if (p.out) {
            uint32_t *out = (uint32_t *)((__nv_bfloat16 *)p.out + state * D);
#pragma unroll
            for (int n = 0; n < PAIRS; n++)
                out[n * 32 + lane] = pack_bf16(o[n].x * inverse, o[n].y * inverse);
        }
        if (p.lse && lane == 0)
            p.lse[state] = sum > 0.0f ? (top + log2f(sum)) * LN2 : -INFINITY;
    }
    cluster.sync();   /* nobody leaves while others read its shared memory */
#endif
}

/* One finished row of a thread (i = 0, 1): to its slot of the partial states, or, slot -1, to the result. */
template <int D, Source SOURCE>
__device__ __forceinline__ void store_row(const Problem &p, const State<D> &state, int i, float inverse,
                                          float lse2, int64_t index, int64_t slot)
{
    int column = ((int)threadIdx.x & 3) * 2;
    bool partial = SOURCE != PREFILL && slot >= 0;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        float x = state.o[n][2 * i] * inverse, y = state.o[n][2 * i + 1] * inverse;
        if (partial)
            *(float2 *)(p.part_out + slot * D + n * 8 + column) = make_float2(x, y);
        else if (p.out)
            *(uint32_t *)((__nv_bfloat16 *)p.out + index * D + n * 8 + column) = pack_bf16(x, y);
    }
    if (column == 0 && partial)
        p.part_lse[slot] = lse2 * LN2;
    else if (column == 0 && SOURCE != PREFILL && p.lse)
        p.lse[index] = lse2 * LN2;
}

/* Grid: (splits, row tiles, units). CLUSTER: gridDim.x is also the cluster's size. */
template <int D, Source SOURCE, bool CLUSTER>
__global__ void __launch_bounds__(THREADS, 2) attend_mma(const __grid_constant__ Problem p)
{
    extern __shared__ __align__(128) unsigned char shared[];
    int unit = (int)blockIdx.z, split = (int)blockIdx.x, splits = (int)gridDim.x;
    int row_tile = SOURCE == PREFILL ? (int)(gridDim.y - 1 - blockIdx.y) : (int)blockIdx.y;   /* longest first */
    int b = SOURCE == PREFILL ? p.sequence : unit / p.kv_heads;
    int h = SOURCE == PREFILL ? unit / p.group : unit % p.kv_heads;
    int rows = SOURCE == PREFILL ? p.prefill_rows : p.packed;
    int row0 = row_tile * ROWS;
    if (SOURCE != PREFILL && !is_active(p, b, h))
        return;
    int warp = (int)threadIdx.x >> 5, lane = (int)threadIdx.x & 31;
    uint32_t q_tile = shared_address(shared);
    uint32_t tiles = q_tile + ROWS * D * 2;   /* k0 k1 v0 v1 */

    /* Selections: look up the ids of the first tile before the count is known, as if every entry were used. The
     * chain count -> ids -> keys of three memory latencies becomes two. */
    int slot[SHARE<D>], guess = 0, guess_end = 0;
    if (SOURCE == PAGES) {
        int keys = (p.span == MB_SPAN_BLOCK ? 0 : p.page_capacity << p.page_shift), shift = p.page_shift;
        int64_t groups = (keys + (p.span == MB_SPAN_PREFIX ? 0 : p.block_keys) + 15) / 16;
        guess = (int)(groups * split / splits) * 16;
        guess_end = (int)(groups * (split + 1) / splits) * 16;
        const int32_t *ids = p.page_ids + (int64_t)unit * p.page_capacity;
#pragma unroll
        for (int i = 0; i < SHARE<D>; i++) {
            int position = guess + (int)threadIdx.x / CHUNKS<D> + i * STRIDE<D>;
            slot[i] = -1;
            if (position < keys && position < guess_end)
                slot[i] = (int)((uint32_t)ids[position >> shift] << shift) + (position & ((1 << shift) - 1));
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS<D> / THREADS; i++) {
        int row = (int)threadIdx.x / CHUNKS<D> + i * STRIDE<D>, chunk = (int)threadIdx.x % CHUNKS<D>;
        bool inside = row0 + row < rows;
        int64_t state = inside ? row_state<SOURCE>(p, b, h, unit, row0 + row) : 0;
        copy_async16(q_tile + swizzled<D>(row, chunk), (const __nv_bfloat16 *)p.q + state * D + chunk * 8, inside);
    }
    bool guessed = false;
    int pages = -1, used = 0;   /* used: positions below this belong to chosen pages */
    if (SOURCE == PAGES) {
        int count = p.page_counts[unit];
        guessed = count <= p.page_capacity && 2 * count >= p.page_capacity && p.span != MB_SPAN_BLOCK;
        pages = guessed ? p.page_capacity : -1;
        used = guessed ? count << p.page_shift : 0;
    }
    KeyList list = key_list<SOURCE>(p, b, h, row0 + ROWS < rows ? row0 + ROWS : rows, pages);
    /* Parts are cut at multiples of 16 keys, the smallest group that the matrix product works on. */
    int64_t groups = (list.total + 15) / 16;
    int begin = guessed ? guess : (int)(groups * split / splits) * 16;
    int end = guessed ? guess_end : (int)(groups * (split + 1) / splits) * 16;
    end = end < list.total ? end : list.total;
    const __nv_bfloat16 *k = (const __nv_bfloat16 *)p.k + cache_offset(p, b, h);
    const __nv_bfloat16 *v = (const __nv_bfloat16 *)p.v + cache_offset(p, b, h);
    auto load = [&](int first) {
        int stage = ((first - begin) / TILE) & 1;
        if (first < end) {
            if (SOURCE == PAGES && guessed && first == begin) {
#pragma unroll
                for (int i = 0; i < SHARE<D>; i++) {
                    int position = first + (int)threadIdx.x / CHUNKS<D> + i * STRIDE<D>;
                    if (position >= end)
                        slot[i] = -1;
                    else if (position >= list.selected)
                        slot[i] = list.prefix + (position - list.selected);
                    else if (position >= used || slot[i] >= list.prefix || slot[i] < 0)
                        slot[i] = -1;   /* an unused entry, or behind the end of the last page */
                }
            } else {
                find_slots<D, SOURCE>(slot, list, first, end);
            }
            load_tile<D>(k, v, slot, tiles + stage * tile_bytes<D>, tiles + (2 + stage) * tile_bytes<D>);
        }
        copy_commit();
    };
    load(begin);
    load(begin + TILE);

    State<D> state;
    state.top[0] = state.top[1] = -INFINITY;
    state.sum[0] = state.sum[1] = 0.0f;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            state.o[n][e] = 0.0f;
    int limit[2] = {0, 0};
    if (SOURCE == PREFILL)
        for (int i = 0; i < 2; i++)
            limit[i] = prefill_limit(p, row0 + (warp & 3) * 16 + lane / 4 + 8 * i);
    uint32_t q_rows = q_tile + (warp & 3) * 16 * D * 2;   /* a multiple of eight rows: the swizzle is unchanged */
    for (int first = begin; first < end; first += TILE) {
        copy_wait<1>();
        __syncthreads();
        int stage = ((first - begin) / TILE) & 1;
        int half = first + (warp >> 2) * SPAN, last = half + SPAN;   /* this warp's keys */
        uint32_t k_tile = tiles + stage * tile_bytes<D> + (warp >> 2) * SPAN * D * 2;
        uint32_t v_tile = k_tile + 2 * tile_bytes<D>;
        bool full = last <= end;
        if (SOURCE == PAGES)
            full = full && (last <= list.hole || half >= list.selected);
        if (SOURCE == PREFILL)
            full = full && last <= prefill_limit(p, row0);
        if (full)
            step<D, SOURCE, true>(state, q_rows, k_tile, v_tile, list, half, end, limit, p.scale_log2);
        else if (half < end)
            step<D, SOURCE, false>(state, q_rows, k_tile, v_tile, list, half, end, limit, p.scale_log2);
        __syncthreads();
        load(first + 2 * TILE);
    }
    copy_wait<0>();
    __syncthreads();

    float lse2[2], inverse[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = quad_sum(state.sum[i]);
        inverse[i] = sum > 0.0f ? 1.0f / sum : 0.0f;
        lse2[i] = sum > 0.0f ? state.top[i] * p.scale_log2 + log2f(sum) : -INFINITY;
    }
    static_assert(2 * KEPT_FLOATS<D> * sizeof(float) <= shared_bytes<D>, "both halves fit in the tiles' place");
    float *other = (float *)shared, *kept = other + KEPT_FLOATS<D>;
    if (warp >= 4)
        keep_rows<D>(other, state, inverse, lse2);
    __syncthreads();
    if (warp < 4)
        add_rows<D>(other, state, inverse, lse2);
    if constexpr (CLUSTER) {
        if (warp < 4)
            keep_rows<D>(kept, state, inverse, lse2);
        merge_cluster<D>(p, kept, b, h, row0);
    } else if (warp < 4) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = row0 + warp * 16 + lane / 4 + 8 * i;
            if (row < rows)
                store_row<D, SOURCE>(p, state, i, inverse[i], lse2[i], row_state<SOURCE>(p, b, h, unit, row),
                                     splits > 1 ? ((int64_t)unit * splits + split) * p.packed + row : -1);
        }
    }
}

typedef void (*Kernel)(const Problem);

template <int D> Kernel choose(Source source, bool cluster)
{
    if (source == PREFILL)
        return attend_mma<D, PREFILL, false>;
    if (source == PAGES)
        return cluster ? attend_mma<D, PAGES, true> : attend_mma<D, PAGES, false>;
    return cluster ? attend_mma<D, DENSE, true> : attend_mma<D, DENSE, false>;
}

int launch(Kernel kernel, const Problem &p, dim3 grid, bool cluster, cudaStream_t stream, mb_error *err)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = grid;
    config.blockDim = dim3(THREADS, 1, 1);
    config.dynamicSmemBytes = (size_t)(p.head_dim == 64 ? shared_bytes<64> : shared_bytes<128>);
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

bool mma_serves(mb_type type, int head_dim) { return type == MB_BF16 && (head_dim == 64 || head_dim == 128); }

/* How many parts a unit's keys are cut into: enough blocks for two a multiprocessor, parts of 64 keys or more
 * where a cluster merges them, of 256 where a second kernel does. */
int mma_splits(const mb_cuda_chip *chip, const Problem &p, bool sparse)
{
    int64_t units = (int64_t)p.batch * p.kv_heads * ((p.packed + ROWS - 1) / ROWS);
    int64_t keys = p.span == MB_SPAN_BLOCK ? 0 : sparse ? (int64_t)p.page_capacity << p.page_shift : p.max_prefix;
    keys += p.block_keys;
    int64_t room = units > 0 ? 2 * chip->multiprocessors / units : 1;
    int64_t most = keys / 64;
    int64_t wanted = room < most ? room : most;
    if (chip->capability >= 90 && (sparse || wanted <= 2 * CLUSTER_MAX || keys < 2048)) {
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

int mma_attend(const mb_cuda_chip *chip, const Problem &p, bool sparse, cudaStream_t stream, mb_error *err)
{
    bool cluster = mma_cluster_merges(chip, p.splits);
    Source source = sparse ? PAGES : DENSE;
    Kernel kernel = p.head_dim == 64 ? choose<64>(source, cluster) : choose<128>(source, cluster);
    dim3 grid((unsigned)p.splits, (unsigned)((p.packed + ROWS - 1) / ROWS), (unsigned)(p.batch * p.kv_heads));
    int rc = launch(kernel, p, grid, cluster, stream, err);
    if (rc == MB_OK && p.splits > 1 && !cluster)
        rc = merge_splits(p, MB_BF16, stream, err);
    return rc;
}

int mma_prefill(const Problem &p, cudaStream_t stream, mb_error *err)
{
    Kernel kernel = p.head_dim == 64 ? choose<64>(PREFILL, false) : choose<128>(PREFILL, false);
    dim3 grid(1, (unsigned)((p.prefill_rows + ROWS - 1) / ROWS), (unsigned)p.query_heads);
    return launch(kernel, p, grid, false, stream, err);
}

int mma_setup(mb_error *err)
{
    for (int source = DENSE; source <= PREFILL; source++)
        for (int cluster = 0; cluster <= (source == PREFILL ? 0 : 1); cluster++) {
            cudaFuncSetAttribute(choose<64>((Source)source, cluster), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 shared_bytes<64>);
            cudaFuncSetAttribute(choose<128>((Source)source, cluster), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 shared_bytes<128>);
        }
    return check_launch("setting the attention kernels' shared memory", err);
}

} /* namespace mb_cuda */
