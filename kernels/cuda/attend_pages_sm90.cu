/*
 * attend_pages_sm90.cu - sparse block attention on sm_90a, bf16, head_dim 128, for selections of more than a few
 * hundred keys: the same cut, copies and merge as attend_pages.cu, with warpgroup products.
 *
 * There a warp's fragments of keys and values come out of shared memory again for every sixteen rows, which is
 * what thousands of keys are bound by. Here the tensor cores read a tile once for 64 rows. The keys of a block are
 * cut once more into parts, each with warpgroups, tiles and barriers of its own: no part waits for another before
 * the merge.
 */
#include "kernels/cuda/depend.cuh"
#include "kernels/cuda/mma_attention.cuh"
#include "kernels/cuda/tma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace mb_cuda
{

/* A tile of 48 keys: more logits do not fit in the registers of 512 threads. */
#define MB_NAMES24 MB_N0 MB_N1 "%16,%17,%18,%19,%20,%21,%22,%23"
#define MB_FLOATS24(d) MB_SIXTEEN(d, 0), MB_EIGHT(d, 16)
MB_WGMMA(48, 24, 24, 25, 26, 27, 28, 29)

namespace
{

/* RG row groups of sixteen, KP parts, KEYS keys a tile, STAGES tiles of a part in shared memory. */
template <int RG, int KP, int KEYS_, int STAGES_> struct Group : Shape<__nv_bfloat16, 128, RG, KP> {
    typedef Shape<__nv_bfloat16, 128, RG, KP> Base;
    static constexpr int KEYS = KEYS_, STAGES = STAGES_, LOADERS = Base::THREADS / KP;
    static constexpr int HALVES = LOADERS / 16, TURNS = KEYS / HALVES; /* sixteen lanes copy a row */
    static constexpr int PANEL = KEYS * 128, HALF = 2 * PANEL, STAGE = 2 * HALF;
    static constexpr int Q_PANEL = Base::ROWS * 128;
    static constexpr int BYTES = 2 * Q_PANEL + KP * STAGES * STAGE + 1024; /* aligned by hand */
    static_assert(KEYS % HALVES == 0 && TURNS <= 16 && KEYS % 16 == 0 && PANEL % 1024 == 0, "whole turns");
    static_assert(Base::MERGE_BYTES <= BYTES - 1024, "the parts fit in the tiles' place");
};
typedef Group<4, 4, 48, 2> Narrow;
typedef Group<8, 2, 48, 4> Wide;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Chunk `chunk` (8 channels) of row `row` of a tile of two panels. */
__device__ __forceinline__ uint32_t in_panels(int row, int chunk, int panel)
{
    return (uint32_t)((chunk >> 3) * panel + row * 128 + (((chunk & 7) ^ (row & 7)) << 4));
}

/* Lane i of sixteen knows where the row of turn i is: its list position. */
template <class S> __device__ __forceinline__ int position_of(int thread, int first)
{
    return first + thread / 16 + (thread & 15) * S::HALVES;
}

/* Cache slot of that position as the ids have it, nothing checked but the array's bounds. */
template <class S>
__device__ __forceinline__ int look_up(const int32_t *ids, int shift, int thread, int first, int end)
{
    int position = position_of<S>(thread, first);
    if ((thread & 15) >= S::TURNS || position >= end)
        return -1;
    return (int)((uint32_t)ids[position >> shift] << shift) + (position & ((1 << shift) - 1));
}

/* The same once the list is known; used as in attend_pages.cu. */
template <class S>
__device__ __forceinline__ int settle(int slot, const KeyList &list, int used, int thread, int first, int end)
{
    int position = position_of<S>(thread, first);
    if (position >= end || (thread & 15) >= S::TURNS)
        return -1;
    if (position >= list.selected)
        return list.prefix + (position - list.selected);
    return position >= used || slot >= list.prefix || slot < 0 ? -1 : slot;
}

/* A tile's keys, then its values; zeros where there is no key. */
template <class S>
__device__ __forceinline__ void copy_tile(const __nv_bfloat16 *k, const __nv_bfloat16 *v, int slot, int thread,
                                          uint32_t place)
{
    int chunk = thread & 15;
#pragma unroll
    for (int side = 0; side < 2; side++) {
#pragma unroll
        for (int i = 0; i < S::TURNS; i++) {
            int from = __shfl_sync(0xffffffffu, slot, i, 16);
            const __nv_bfloat16 *row = (side ? v : k) + (from >= 0 ? (int64_t)from * 128 + chunk * 8 : 0);
            copy_async16(place + side * S::HALF + in_panels(thread / 16 + i * S::HALVES, chunk, S::PANEL), row,
                         from >= 0);
        }
    }
}

/* Logits to exponentials, the running reference and sums as in mma_attention.cuh's step(). */
template <class S, bool FULL>
__device__ __forceinline__ void soften(float (&s)[S::KEYS / 2], float (&o)[64], float (&state_top)[2],
                                       float (&state_sum)[2], const KeyList &list, int first, int end,
                                       float scale_log2)
{
    int lane = (int)threadIdx.x & 31;
    float top[2] = {state_top[0], state_top[1]}, shift[2];
#pragma unroll
    for (int i = 0; i < S::KEYS / 2; i++) {
        if (!FULL) {
            int position = first + (i / 4) * 8 + (lane & 3) * 2 + (i & 1);
            s[i] = position < end && key_there<PAGES>(list, position) ? s[i] : -INFINITY;
        }
        top[(i >> 1) & 1] = fmaxf(top[(i >> 1) & 1], s[i]);
    }
    bool raise = false;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = quad_max(top[r]);
        if (!((top[r] - state_top[r]) * scale_log2 > RISE)) /* also where no key was seen yet: -inf - -inf */
            top[r] = state_top[r];
        raise = raise || top[r] != state_top[r];
        shift[r] = top[r] == -INFINITY ? 0.0f : top[r] * scale_log2;
    }
    if (__any_sync(0xffffffffu, raise)) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float old = fast_exp2(state_top[r] * scale_log2 - shift[r]);
            state_top[r] = top[r];
            state_sum[r] *= old;
#pragma unroll
            for (int n = 0; n < 16; n++) {
                o[4 * n + 2 * r] *= old;
                o[4 * n + 2 * r + 1] *= old;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < S::KEYS / 2; i++) {
        s[i] = fast_exp2(s[i] * scale_log2 - shift[(i >> 1) & 1]);
        state_sum[(i >> 1) & 1] += s[i];
    }
}

/* One tile: a warpgroup's 64 rows. */
template <class S>
__device__ __forceinline__ void tile_step(uint64_t q, uint32_t place, float (&o)[64], float (&top)[2],
                                          float (&sum)[2], const KeyList &list, int first, int end,
                                          float scale_log2)
{
    float s[S::KEYS / 2];
    uint32_t w[S::KEYS / 4];
    uint64_t k = rows_descriptor(place), v = columns_descriptor(place + S::HALF, S::PANEL);
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < 8; c++)
        wgmma_shared<S::KEYS>(s, further(q, (c / 4) * S::Q_PANEL + (c % 4) * 32),
                              further(k, (c / 4) * S::PANEL + (c % 4) * 32), c != 0);
    wgmma_commit();
    wgmma_wait<0>();
    hold(s);
    int last = first + S::KEYS;
    if (last <= end && (last <= list.hole || first >= list.selected))
        soften<S, true>(s, o, top, sum, list, first, end, scale_log2);
    else
        soften<S, false>(s, o, top, sum, list, first, end, scale_log2);
#pragma unroll
    for (int i = 0; i < S::KEYS / 4; i++)
        w[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < S::KEYS / 16; c++)
        wgmma_registers<128, 1>(o, w + 4 * c, further(v, c * 2048), true);
    wgmma_commit();
    wgmma_wait<0>();
    hold(o);
}

#endif

/* Grid: (splits, row tiles, units), as attend_pages.cu's kernel. */
template <class S, bool CLUSTER>
__global__ void __launch_bounds__(S::THREADS, 1) attend_pages_wide(const __grid_constant__ Problem p)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char unaligned[];
    unsigned char *shared = unaligned + ((1024 - (shared_address(unaligned) & 1023)) & 1023);
    int unit = (int)blockIdx.z, split = (int)blockIdx.x, splits = (int)gridDim.x;
    int b = unit / p.kv_heads, h = unit % p.kv_heads, row0 = (int)blockIdx.y * S::ROWS;
    let_dependents_start();
    wait_for_dependency();
    if (!is_active(p, b, h))
        return;
    const int part = (int)threadIdx.x / S::LOADERS, thread = (int)threadIdx.x % S::LOADERS;
    const int cut = split * S::KP + part, cuts = splits * S::KP;
    const int32_t *ids = p.page_ids + (int64_t)unit * p.page_capacity;
    uint32_t q_tile = shared_address(shared), tiles = q_tile + 2 * S::Q_PANEL + part * S::STAGES * S::STAGE;

    /* Before the count is known: this part's share as if every entry were used. */
    int slot[S::STAGES], shift = p.page_shift;
    int keys = p.span == MB_SCOPE_BLOCK ? 0 : p.page_capacity << shift;
    int64_t groups = (keys + (p.span == MB_SCOPE_PREFIX ? 0 : p.block_keys) + 15) / 16;
    int begin = (int)(groups * cut / cuts) * 16, end = (int)(groups * (cut + 1) / cuts) * 16;
#pragma unroll
    for (int t = 0; t < S::STAGES; t++)
        slot[t] = look_up<S>(ids, shift, thread, begin + t * S::KEYS, keys < end ? keys : end);
#pragma unroll
    for (int i = 0; i < S::ROWS / (S::THREADS / 16); i++) {
        int row = (int)threadIdx.x / 16 + i * (S::THREADS / 16), chunk = (int)threadIdx.x & 15;
        bool inside = row0 + row < p.packed;
        int64_t state = inside ? state_of(p, b, h, row0 + row) : 0;
        copy_async16(q_tile + in_panels(row, chunk, S::Q_PANEL),
                     (const __nv_bfloat16 *)p.q + state * 128 + chunk * 8, inside);
    }
    int count = p.page_counts[unit];
    bool guessed = count <= p.page_capacity && 2 * count >= p.page_capacity && p.span != MB_SCOPE_BLOCK;
    KeyList list = key_list<PAGES>(p, b, h, p.packed, guessed ? p.page_capacity : -1);
    int used = guessed ? count << shift : list.selected;
    if (!guessed) { /* cut anew: few entries are used, or all of the prefix is wanted */
        groups = (list.total + 15) / 16;
        begin = (int)(groups * cut / cuts) * 16;
        end = (int)(groups * (cut + 1) / cuts) * 16;
#pragma unroll
        for (int t = 0; t < S::STAGES; t++)
            slot[t] =
                look_up<S>(ids, shift, thread, begin + t * S::KEYS, list.selected < end ? list.selected : end);
    }
    end = end < list.total ? end : list.total;
    int listed = list.selected < end ? list.selected : end;
    const __nv_bfloat16 *k = (const __nv_bfloat16 *)p.k + cache_offset(p, b, h);
    const __nv_bfloat16 *v = (const __nv_bfloat16 *)p.v + cache_offset(p, b, h);
#pragma unroll
    for (int t = 0; t < S::STAGES; t++) {
        int first = begin + t * S::KEYS;
        if (first < end)
            copy_tile<S>(k, v, settle<S>(slot[t], list, used, thread, first, end), thread, tiles + t * S::STAGE);
        copy_commit();
    }
    copy_wait<S::STAGES - 1>(); /* the queries, which all parts have copied, came with the first tile */
    proxy_fence();
    __syncthreads();
    State<S> state;
    clear(state);
    float o[64];
#pragma unroll
    for (int i = 0; i < 64; i++)
        o[i] = 0.0f;
    uint64_t q = rows_descriptor(q_tile + (thread / 128) * 64 * 128);
    int stage = 0;
    for (int first = begin; first < end; first += S::KEYS) {
        int next = first + S::STAGES * S::KEYS;
        int later = next < end ? look_up<S>(ids, shift, thread, next, listed) : -1;
        copy_wait<S::STAGES - 1>();
        proxy_fence();
        named_sync(1 + part, S::LOADERS); /* this tile has arrived for everyone */
        tile_step<S>(q, tiles + stage * S::STAGE, o, state.top, state.sum, list, first, end, p.scale_log2);
        if (next < end) {
            named_sync(1 + part, S::LOADERS); /* everyone is done with it */
            copy_tile<S>(k, v, settle<S>(later, list, used, thread, next, end), thread, tiles + stage * S::STAGE);
        }
        copy_commit();
        stage = stage == S::STAGES - 1 ? 0 : stage + 1;
    }
    copy_wait<0>();
#pragma unroll
    for (int i = 0; i < 64; i++)
        state.o[i / 4][i % 4] = o[i];
    merge_and_store<S, PAGES, CLUSTER>(p, shared, state, b, h, unit, row0, p.packed,
                                       splits > 1 ? ((int64_t)unit * splits + split) * p.packed + row0 : -1);
#else
    (void)p;
#endif
}

template <class S> PagesKernel kernel_of()
{
    return {
        attend_pages_wide<S, false>, attend_pages_wide<S, true>, S::ROWS, S::THREADS, S::BYTES, S::KP, S::KEYS};
}

} /* namespace */

PagesKernel pages_sm90_kernel(bool wide)
{
    return wide ? kernel_of<Wide>() : kernel_of<Narrow>();
}

bool pages_sm90_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p)
{
    return chip->allow_sm90 && chip->pair_clusters > 0 && type == MB_BF16 && p.head_dim == 128;
}

} /* namespace mb_cuda */
