/*
 * mma_attention.cuh - the pieces that the mma.sync attention kernels share: one warp's part of a key tile, its
 * running softmax, and merging partial states inside a block and inside a cluster.
 *
 * A block holds 16 * RG packed query rows in RG * KP warps: warp w takes rows w % RG * 16 .. of them and, of each
 * tile of 64 keys, part w / RG of KP. Few keys are a matter of latency, and more warps a scheduler hide more of
 * it; the parts are merged at the end.
 */
#ifndef MB_CUDA_MMA_ATTENTION_CUH
#define MB_CUDA_MMA_ATTENTION_CUH

#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/key_list.cuh"
#include "kernels/cuda/mma.cuh"

#include <cooperative_groups.h>

namespace mb_cuda
{
namespace
{

constexpr int TILE = 64; /* keys of a tile */
constexpr int CLUSTER_MAX = 8;
constexpr float RISE = 8.0f; /* probabilities are kept relative to a reference, up to 2^RISE times it */

/* How a block is laid out; T: bf16 or f16. A thread copies rows thread / CHUNKS + i * STRIDE of a tile, one 16-byte chunk each. */
template <typename T_, int D_, int RG_, int KP_> struct Shape {
    typedef T_ T;
    static constexpr int D = D_, RG = RG_, KP = KP_;
    static constexpr int WARPS = RG * KP, THREADS = 32 * WARPS, ROWS = 16 * RG, SPAN = TILE / KP;
    static constexpr int TILE_BYTES = TILE * D * 2, ROW_BYTES = ROWS * D * 2;
    static constexpr int CHUNKS = D / 8, STRIDE = THREADS / CHUNKS, SHARE = TILE / STRIDE;
    /* Rows of fp32 in shared memory, padded against bank conflicts; the per-row log-sum-exps follow. */
    static constexpr int KEPT_STRIDE = D + 8, KEPT_FLOATS = ROWS * KEPT_STRIDE + ROWS;
    static constexpr int MERGE_BYTES = (KP / 2 + 1) * KEPT_FLOATS * 4;
    static_assert(SPAN % 16 == 0 && SHARE >= 1, "parts of sixteens, a copy for every thread");
};

/* One tile of keys and values into shared memory; rows without a key (slot -1) are zeroed, so that whatever the
 * cache holds elsewhere (even NaN) cannot reach a product with probability zero. */
template <class S>
__device__ __forceinline__ void load_tile(const typename S::T *k, const typename S::T *v,
                                          const int (&slot)[S::SHARE], uint32_t k_tile, uint32_t v_tile)
{
    int row = (int)threadIdx.x / S::CHUNKS, chunk = (int)threadIdx.x % S::CHUNKS;
#pragma unroll
    for (int i = 0; i < S::SHARE; i++) {
        int64_t offset = slot[i] >= 0 ? (int64_t)slot[i] * S::D + chunk * 8 : 0;
        copy_async16(k_tile + swizzled<S::D>(row + i * S::STRIDE, chunk), k + offset, slot[i] >= 0);
    }
#pragma unroll
    for (int i = 0; i < S::SHARE; i++) {
        int64_t offset = slot[i] >= 0 ? (int64_t)slot[i] * S::D + chunk * 8 : 0;
        copy_async16(v_tile + swizzled<S::D>(row + i * S::STRIDE, chunk), v + offset, slot[i] >= 0);
    }
}

/* The block's query rows into shared memory, zeros behind the last one. */
template <class S, Source SOURCE>
__device__ __forceinline__ void load_rows(const Problem &p, uint32_t q_tile, int b, int h, int unit, int row0,
                                          int rows)
{
    typedef typename S::T T;
#pragma unroll
    for (int i = 0; i < S::ROWS / S::STRIDE; i++) {
        int row = (int)threadIdx.x / S::CHUNKS + i * S::STRIDE, chunk = (int)threadIdx.x % S::CHUNKS;
        bool inside = row0 + row < rows;
        int64_t state = inside ? row_state<SOURCE>(p, b, h, unit, row0 + row) : 0;
        copy_async16(q_tile + swizzled<S::D>(row, chunk), (const T *)p.q + state * S::D + chunk * 8,
                     inside);
    }
}

/* Running state of a warp's 16 rows: each thread holds two (lane / 4 and + 8). top: the logit that a row's
 * exponentials are relative to. */
template <class S> struct State {
    float o[S::D / 8][4];
    float top[2], sum[2];
};

template <class S> __device__ __forceinline__ void clear(State<S> &state)
{
    state.top[0] = state.top[1] = -INFINITY;
    state.sum[0] = state.sum[1] = 0.0f;
#pragma unroll
    for (int n = 0; n < S::D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            state.o[n][e] = 0.0f;
}

/* Which keys of a warp's part of a tile take part. `first` is the list position of the part's first key. */
struct Part {
    int first, end;
    int limit[2]; /* PREFILL: keys that the thread's two rows see */
};

/* This warp's part of one tile: logits, reference, probabilities, output. FULL: all its keys are there and seen by
 * every row; else sixteens of keys past the end are skipped and single keys masked. */
template <class S, Source SOURCE, bool FULL>
__device__ __forceinline__ void step(State<S> &state, uint32_t q_tile, uint32_t k_tile, uint32_t v_tile,
                                     const KeyList &list, const Part &part, float scale_log2)
{
    typedef typename S::T T;
    constexpr int D = S::D, SPAN = S::SPAN;
    int lane = (int)threadIdx.x & 31;
    int groups = FULL ? SPAN / 16 : (part.end - part.first + 15) / 16;
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
                multiply<T>(s[2 * g], q, b[0], b[1]);
                multiply<T>(s[2 * g + 1], q, b[2], b[3]);
            }
        }
    }
    float top[2] = {state.top[0], state.top[1]}, shift[2];
#pragma unroll
    for (int n = 0; n < SPAN / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (!FULL) {
                int position = part.first + n * 8 + (lane & 3) * 2 + (e & 1);
                bool seen = position < part.end && key_there<SOURCE>(list, position);
                seen = seen && (SOURCE != PREFILL || position < part.limit[e >> 1]);
                s[n][e] = seen ? s[n][e] : -INFINITY;
            }
            top[e >> 1] = fmaxf(top[e >> 1], s[n][e]);
        }
    /* The reference of a row's exponentials follows its maximum only where that is RISE powers of two above: then
     * all that was summed is scaled, which is rare after the first tiles. */
    bool raise = false;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        top[i] = quad_max(top[i]);
        if (!((top[i] - state.top[i]) * scale_log2 > RISE)) /* also where no key was seen yet: -inf - -inf */
            top[i] = state.top[i];
        raise = raise || top[i] != state.top[i];
        shift[i] = top[i] == -INFINITY ? 0.0f : top[i] * scale_log2; /* keep exp2's input -inf */
    }
    if (__any_sync(0xffffffffu, raise)) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float old = fast_exp2(state.top[i] * scale_log2 - shift[i]);
            state.top[i] = top[i];
            state.sum[i] *= old;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                state.o[n][2 * i] *= old;
                state.o[n][2 * i + 1] *= old;
            }
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
            uint32_t a[4] = {pack<T>(s[2 * g][0], s[2 * g][1]), pack<T>(s[2 * g][2], s[2 * g][3]),
                             pack<T>(s[2 * g + 1][0], s[2 * g + 1][1]), pack<T>(s[2 * g + 1][2], s[2 * g + 1][3])};
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                uint32_t b[4];
                load_matrix4_transposed(b, v_tile + swizzled<D>(g * 16 + value_row, n * 2 + value_chunk));
                multiply<T>(state.o[2 * n], a, b[0], b[1]);
                multiply<T>(state.o[2 * n + 1], a, b[2], b[3]);
            }
        }
    }
}

/* What a thread knows of its two rows at the end: 1 / sum and the base-2 log-sum-exp. */
struct Finish {
    float inverse[2], lse2[2];
};

template <class S> __device__ __forceinline__ Finish finish(const State<S> &state, float scale_log2)
{
    Finish f;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = quad_sum(state.sum[i]);
        f.inverse[i] = sum > 0.0f ? 1.0f / sum : 0.0f;
        f.lse2[i] = sum > 0.0f ? state.top[i] * scale_log2 + log2f(sum) : -INFINITY;
    }
    return f;
}

/* First of a thread's rows within the block; the other is eight further. */
template <class S> __device__ __forceinline__ int first_row()
{
    return ((int)threadIdx.x >> 5) % S::RG * 16 + ((int)threadIdx.x & 31) / 4;
}

/* A thread's rows, normalised, to a place in shared memory. */
template <class S> __device__ __forceinline__ void keep_rows(float *kept, const State<S> &state, const Finish &f)
{
    int column = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = first_row<S>() + i * 8;
#pragma unroll
        for (int n = 0; n < S::D / 8; n++)
            *(float2 *)(kept + row * S::KEPT_STRIDE + n * 8 + column) =
                make_float2(state.o[n][2 * i] * f.inverse[i], state.o[n][2 * i + 1] * f.inverse[i]);
        if (column == 0)
            kept[S::ROWS * S::KEPT_STRIDE + row] = f.lse2[i];
    }
}

/* Adds another part's rows to this thread's: afterwards state and f are of both. */
template <class S> __device__ __forceinline__ void add_rows(const float *kept, State<S> &state, Finish &f)
{
    int column = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = first_row<S>() + i * 8;
        float other = kept[S::ROWS * S::KEPT_STRIDE + row], top = fmaxf(f.lse2[i], other);
        float mine = f.lse2[i] > -INFINITY ? fast_exp2(f.lse2[i] - top) : 0.0f;
        float theirs = other > -INFINITY ? fast_exp2(other - top) : 0.0f;
        float sum = mine + theirs, scale = sum > 0.0f ? 1.0f / sum : 0.0f;
        mine *= f.inverse[i] * scale;
        theirs *= scale;
#pragma unroll
        for (int n = 0; n < S::D / 8; n++) {
            float2 x = *(const float2 *)(kept + row * S::KEPT_STRIDE + n * 8 + column);
            state.o[n][2 * i] = state.o[n][2 * i] * mine + x.x * theirs;
            state.o[n][2 * i + 1] = state.o[n][2 * i + 1] * mine + x.y * theirs;
        }
        f.inverse[i] = 1.0f;
        f.lse2[i] = sum > 0.0f ? top + log2f(sum) : -INFINITY;
    }
}

/* Merges the cluster's partial states: every block left its normalised rows and their base-2 log-sum-exps in its
 * shared memory; block `rank` finishes rows rank, rank + size, ... */
template <class S>
__device__ __forceinline__ void merge_cluster(const Problem &p, float *rows, int b, int h, int row0)
{
#if __CUDA_ARCH__ >= 900
    namespace cg = cooperative_groups;
    typedef typename S::T T;
    cg::cluster_group cluster = cg::this_cluster();
    cluster.sync();
    int size = (int)cluster.num_blocks(), rank = (int)cluster.block_rank();
    int warp = (int)threadIdx.x >> 5, lane = (int)threadIdx.x & 31;
    constexpr int D = S::D, PAIRS = D / 64, ROWS = S::ROWS;
    for (int row = rank + size * warp; row < ROWS && row0 + row < p.packed; row += size * S::WARPS) {
        float lse[CLUSTER_MAX], top = -INFINITY, sum = 0.0f;
        float2 o[PAIRS];
#pragma unroll
        for (int i = 0; i < CLUSTER_MAX; i++) {
            lse[i] = i < size ? cluster.map_shared_rank(rows, i)[ROWS * S::KEPT_STRIDE + row] : -INFINITY;
            top = fmaxf(top, lse[i]);
        }
#pragma unroll
        for (int n = 0; n < PAIRS; n++)
            o[n] = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int i = 0; i < CLUSTER_MAX; i++) {
            if (i < size && lse[i] > -INFINITY) {
                float weight = fast_exp2(lse[i] - top);
                const float2 *part = (const float2 *)(cluster.map_shared_rank(rows, i) + row * S::KEPT_STRIDE);
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
            uint32_t *out = (uint32_t *)((T *)p.out + state * D);
#pragma unroll
            for (int n = 0; n < PAIRS; n++)
                out[n * 32 + lane] = pack<T>(o[n].x * inverse, o[n].y * inverse);
        }
        if (p.lse && lane == 0)
            p.lse[state] = sum > 0.0f ? (top + log2f(sum)) * LN2 : -INFINITY;
    }
    cluster.sync(); /* nobody leaves while others read its shared memory */
#endif
}

/* A thread's finished rows: to their slots of the partial states (slot0 = slot of the block's row 0), or, slot0
 * -1, to the result. */
template <class S, Source SOURCE>
__device__ __forceinline__ void store_rows(const Problem &p, const State<S> &state, const Finish &f, int b, int h,
                                           int unit, int row0, int rows, int64_t slot0)
{
    typedef typename S::T T;
    int column = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = first_row<S>() + i * 8;
        if (row0 + row >= rows)
            continue;
        int64_t index = row_state<SOURCE>(p, b, h, unit, row0 + row), slot = slot0 + row;
        bool partial = SOURCE != PREFILL && slot0 >= 0;
#pragma unroll
        for (int n = 0; n < S::D / 8; n++) {
            float x = state.o[n][2 * i] * f.inverse[i], y = state.o[n][2 * i + 1] * f.inverse[i];
            if (partial)
                *(float2 *)(p.part_out + slot * S::D + n * 8 + column) = make_float2(x, y);
            else if (p.out)
                *(uint32_t *)((T *)p.out + index * S::D + n * 8 + column) = pack<T>(x, y);
        }
        if (column == 0 && partial)
            p.part_lse[slot] = f.lse2[i] * LN2;
        else if (column == 0 && SOURCE != PREFILL && p.lse)
            p.lse[index] = f.lse2[i] * LN2;
    }
}

/* The end of every kernel: the parts of the block merged pairwise in the place of the tiles, then the cluster's
 * blocks, or the rows stored. slot0 as in store_rows. All copies must have arrived. */
template <class S, Source SOURCE, bool CLUSTER>
__device__ __forceinline__ void merge_and_store(const Problem &p, unsigned char *shared, State<S> &state, int b,
                                                int h, int unit, int row0, int rows, int64_t slot0)
{
    Finish f = finish(state, p.scale_log2);
    float *places = (float *)shared;
    int part = ((int)threadIdx.x >> 5) / S::RG;
#pragma unroll
    for (int half = S::KP / 2; half > 0; half /= 2) {
        __syncthreads(); /* everyone is done with the tiles, or with the round before */
        if (part >= half && part < 2 * half)
            keep_rows<S>(places + (part - half) * S::KEPT_FLOATS, state, f);
        __syncthreads();
        if (part < half)
            add_rows<S>(places + part * S::KEPT_FLOATS, state, f);
    }
    if constexpr (CLUSTER) {
        float *kept = places + S::KP / 2 * S::KEPT_FLOATS;
        if (part == 0)
            keep_rows<S>(kept, state, f);
        merge_cluster<S>(p, kept, b, h, row0);
    } else if (part == 0) {
        store_rows<S, SOURCE>(p, state, f, b, h, unit, row0, rows, slot0);
    }
}

} /* namespace */

/* A sparse kernel as the host sees it: blocks of so many rows, whose keys are cut into parts that walk tiles of
 * `keys`. */
struct PagesKernel {
    void (*alone)(const Problem);  /* parts merged elsewhere, or one part */
    void (*merged)(const Problem); /* by a cluster */
    int rows, threads, bytes, parts, keys;
};

/* attend_pages_sm90.cu: blocks of 128 rows, or of 64; bf16, head_dim 128, merged by a cluster. */
PagesKernel pages_sm90_kernel(bool wide);
bool pages_sm90_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p);

} /* namespace mb_cuda */

#endif
