/*
 * mma_attention.cuh - the pieces that the mma.sync attention kernels share: one warp's part of a key tile, its
 * running softmax, and merging partial states inside a block and inside a cluster.
 *
 * A block of eight warps holds 64 * MT packed query rows: warps 0 to 3 take keys 0..31 of each tile of 64, warps 4
 * to 7 keys 32..63, each for 16 * MT rows. Two warps a scheduler hide twice as much latency; the halves are merged
 * at the end. MT = 2 reads each key tile from shared memory half as often for the same products.
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
constexpr int THREADS = 256;
constexpr int SPAN = 32; /* keys of a tile that one warp works on */
constexpr int CLUSTER_MAX = 8;
constexpr float RISE = 8.0f; /* probabilities are kept relative to a reference, up to 2^RISE times it */

template <int D> constexpr int tile_bytes = TILE *D * 2;

/* Rows of a tile that one thread copies: rows thread / CHUNKS + i * STRIDE, one 16-byte chunk each. */
template <int D> constexpr int CHUNKS = D / 8;
template <int D> constexpr int STRIDE = THREADS / CHUNKS<D>;
template <int D> constexpr int SHARE = TILE / STRIDE<D>;

/* One tile of keys and values into shared memory; rows without a key (slot -1) are zeroed, so that whatever the
 * cache holds elsewhere (even NaN) cannot reach a product with probability zero. */
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

/* The block's query rows into shared memory, zeros behind the last one. */
template <int D, int MT, Source SOURCE>
__device__ __forceinline__ void load_rows(const Problem &p, uint32_t q_tile, int b, int h, int unit, int row0,
                                          int rows)
{
#pragma unroll
    for (int i = 0; i < 64 * MT * CHUNKS<D> / THREADS; i++) {
        int row = (int)threadIdx.x / CHUNKS<D> + i * STRIDE<D>, chunk = (int)threadIdx.x % CHUNKS<D>;
        bool inside = row0 + row < rows;
        int64_t state = inside ? row_state<SOURCE>(p, b, h, unit, row0 + row) : 0;
        copy_async16(q_tile + swizzled<D>(row, chunk), (const __nv_bfloat16 *)p.q + state * D + chunk * 8, inside);
    }
}

/* Running state of a warp's 16 * MT rows: each thread holds two rows (lane / 4 and + 8) of each 16. top: the logit
 * that a row's exponentials are relative to. */
template <int D, int MT> struct State {
    float o[MT][D / 8][4];
    float top[MT][2], sum[MT][2];
};

template <int D, int MT> __device__ __forceinline__ void clear(State<D, MT> &state)
{
#pragma unroll
    for (int m = 0; m < MT; m++) {
        state.top[m][0] = state.top[m][1] = -INFINITY;
        state.sum[m][0] = state.sum[m][1] = 0.0f;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                state.o[m][n][e] = 0.0f;
    }
}

/* Which keys of a warp's half tile take part. `first` is the list position of the half's first key. */
struct Half {
    int first, end;
    int limit[2]; /* PREFILL: keys that the thread's two rows see */
};

/* This warp's half of one tile: logits, running maximum, probabilities, output. FULL: all its keys are there and
 * seen by every row; else sixteens of keys past the end are skipped and single keys masked. */
template <int D, int MT, Source SOURCE, bool FULL>
__device__ __forceinline__ void step(State<D, MT> &state, uint32_t q_tile, uint32_t k_tile, uint32_t v_tile,
                                     const KeyList &list, const Half &half, float scale_log2)
{
    int lane = (int)threadIdx.x & 31;
    int groups = FULL ? SPAN / 16 : (half.end - half.first + 15) / 16;
    float s[MT][SPAN / 8][4];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < SPAN / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[m][n][e] = 0.0f;
    int key_row = (lane & 7) + ((lane >> 4) << 3), key_chunk = (lane >> 3) & 1;
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        uint32_t q[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
            load_matrix4(q[m], q_tile + swizzled<D>(m * 16 + (lane & 15), c * 2 + (lane >> 4)));
#pragma unroll
        for (int g = 0; g < SPAN / 16; g++) {
            if (FULL || g < groups) {
                uint32_t b[4];
                load_matrix4(b, k_tile + swizzled<D>(g * 16 + key_row, c * 2 + key_chunk));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    multiply(s[m][2 * g], q[m], b[0], b[1]);
                    multiply(s[m][2 * g + 1], q[m], b[2], b[3]);
                }
            }
        }
    }
#pragma unroll
    for (int m = 0; m < MT; m++) {
        float top[2] = {state.top[m][0], state.top[m][1]}, shift[2];
#pragma unroll
        for (int n = 0; n < SPAN / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                if (!FULL) {
                    int position = half.first + n * 8 + (lane & 3) * 2 + (e & 1);
                    bool seen = position < half.end && key_there<SOURCE>(list, position);
                    seen = seen && (SOURCE != PREFILL || position < half.limit[e >> 1]);
                    s[m][n][e] = seen ? s[m][n][e] : -INFINITY;
                }
                top[e >> 1] = fmaxf(top[e >> 1], s[m][n][e]);
            }
        /* The reference of a row's exponentials follows its maximum only where that is RISE powers of two above:
         * then all that was summed is scaled, which is rare after the first tiles. */
        bool raise = false;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            top[i] = quad_max(top[i]);
            if (!((top[i] - state.top[m][i]) * scale_log2 >
                  RISE)) /* also where no key was seen yet: -inf - -inf */
                top[i] = state.top[m][i];
            raise = raise || top[i] != state.top[m][i];
            shift[i] = top[i] == -INFINITY ? 0.0f : top[i] * scale_log2; /* keep exp2's input -inf */
        }
        if (__any_sync(0xffffffffu, raise)) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float old = fast_exp2(state.top[m][i] * scale_log2 - shift[i]);
                state.top[m][i] = top[i];
                state.sum[m][i] *= old;
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    state.o[m][n][2 * i] *= old;
                    state.o[m][n][2 * i + 1] *= old;
                }
            }
        }
#pragma unroll
        for (int n = 0; n < SPAN / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[m][n][e] = fast_exp2(s[m][n][e] * scale_log2 - shift[e >> 1]);
                state.sum[m][e >> 1] += s[m][n][e];
            }
    }
    int value_row = (lane & 7) + (((lane >> 3) & 1) << 3), value_chunk = lane >> 4;
#pragma unroll
    for (int g = 0; g < SPAN / 16; g++) {
        if (FULL || g < groups) {
            uint32_t a[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                a[m][0] = pack_bf16(s[m][2 * g][0], s[m][2 * g][1]);
                a[m][1] = pack_bf16(s[m][2 * g][2], s[m][2 * g][3]);
                a[m][2] = pack_bf16(s[m][2 * g + 1][0], s[m][2 * g + 1][1]);
                a[m][3] = pack_bf16(s[m][2 * g + 1][2], s[m][2 * g + 1][3]);
            }
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                uint32_t b[4];
                load_matrix4_transposed(b, v_tile + swizzled<D>(g * 16 + value_row, n * 2 + value_chunk));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    multiply(state.o[m][2 * n], a[m], b[0], b[1]);
                    multiply(state.o[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
}

/* Rows of fp32 in shared memory, padded against bank conflicts; the per-row log-sum-exps follow. */
template <int D> constexpr int KEPT_STRIDE = D + 8;
template <int D, int MT> constexpr int KEPT_FLOATS = 64 * MT *KEPT_STRIDE<D> + 64 * MT;

/* What a thread knows of its rows at the end: 1 / sum and the base-2 log-sum-exp. */
template <int MT> struct Finish {
    float inverse[MT][2], lse2[MT][2];
};

template <int D, int MT> __device__ __forceinline__ Finish<MT> finish(const State<D, MT> &state, float scale_log2)
{
    Finish<MT> f;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = quad_sum(state.sum[m][i]);
            f.inverse[m][i] = sum > 0.0f ? 1.0f / sum : 0.0f;
            f.lse2[m][i] = sum > 0.0f ? state.top[m][i] * scale_log2 + log2f(sum) : -INFINITY;
        }
    return f;
}

/* First of a thread's rows within the block. */
template <int MT> __device__ __forceinline__ int first_row()
{
    return (((int)threadIdx.x >> 5) & 3) * 16 * MT + ((int)threadIdx.x & 31) / 4;
}

/* A thread's rows, normalised, to such a place. */
template <int D, int MT>
__device__ __forceinline__ void keep_rows(float *kept, const State<D, MT> &state, const Finish<MT> &f)
{
    int column = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = first_row<MT>() + m * 16 + i * 8;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *(float2 *)(kept + row * KEPT_STRIDE<D> + n * 8 + column) = make_float2(
                    state.o[m][n][2 * i] * f.inverse[m][i], state.o[m][n][2 * i + 1] * f.inverse[m][i]);
            if (column == 0)
                kept[64 * MT * KEPT_STRIDE<D> + row] = f.lse2[m][i];
        }
}

/* Adds the other half's rows to this thread's: afterwards f is of both. */
template <int D, int MT>
__device__ __forceinline__ void add_rows(const float *kept, State<D, MT> &state, Finish<MT> &f)
{
    int column = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = first_row<MT>() + m * 16 + i * 8;
            float other = kept[64 * MT * KEPT_STRIDE<D> + row], top = fmaxf(f.lse2[m][i], other);
            float mine = f.lse2[m][i] > -INFINITY ? fast_exp2(f.lse2[m][i] - top) : 0.0f;
            float theirs = other > -INFINITY ? fast_exp2(other - top) : 0.0f;
            float sum = mine + theirs, scale = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                float2 x = *(const float2 *)(kept + row * KEPT_STRIDE<D> + n * 8 + column);
                state.o[m][n][2 * i] = (state.o[m][n][2 * i] * f.inverse[m][i] * mine + x.x * theirs) * scale;
                state.o[m][n][2 * i + 1] =
                    (state.o[m][n][2 * i + 1] * f.inverse[m][i] * mine + x.y * theirs) * scale;
            }
            f.inverse[m][i] = 1.0f;
            f.lse2[m][i] = sum > 0.0f ? top + log2f(sum) : -INFINITY;
        }
}

/* Merges the cluster's partial states: every block left its normalised rows and their base-2 log-sum-exps in its
 * shared memory; block `rank` finishes rows rank, rank + size, ... */
template <int D, int MT>
__device__ __forceinline__ void merge_cluster(const Problem &p, float *rows, int b, int h, int row0)
{
#if __CUDA_ARCH__ >= 900
    namespace cg = cooperative_groups;
    cg::cluster_group cluster = cg::this_cluster();
    cluster.sync();
    int size = (int)cluster.num_blocks(), rank = (int)cluster.block_rank();
    int warp = (int)threadIdx.x >> 5, lane = (int)threadIdx.x & 31;
    constexpr int PAIRS = D / 64, ROWS = 64 * MT;
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
    cluster.sync(); /* nobody leaves while others read its shared memory */
#endif
}

/* A thread's finished rows: to their slots of the partial states (slot0 = slot of the block's row 0), or, slot0
 * -1, to the result. */
template <int D, int MT, Source SOURCE>
__device__ __forceinline__ void store_rows(const Problem &p, const State<D, MT> &state, const Finish<MT> &f, int b,
                                           int h, int unit, int row0, int rows, int64_t slot0)
{
    int column = ((int)threadIdx.x & 3) * 2;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = first_row<MT>() + m * 16 + i * 8;
            if (row0 + row >= rows)
                continue;
            int64_t index = row_state<SOURCE>(p, b, h, unit, row0 + row), slot = slot0 + row;
            bool partial = SOURCE != PREFILL && slot0 >= 0;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                float x = state.o[m][n][2 * i] * f.inverse[m][i], y = state.o[m][n][2 * i + 1] * f.inverse[m][i];
                if (partial)
                    *(float2 *)(p.part_out + slot * D + n * 8 + column) = make_float2(x, y);
                else if (p.out)
                    *(uint32_t *)((__nv_bfloat16 *)p.out + index * D + n * 8 + column) = pack_bf16(x, y);
            }
            if (column == 0 && partial)
                p.part_lse[slot] = f.lse2[m][i] * LN2;
            else if (column == 0 && SOURCE != PREFILL && p.lse)
                p.lse[index] = f.lse2[m][i] * LN2;
        }
}

/* The end of every kernel: the two halves of the block merged in the place of the tiles, then the cluster's
 * blocks, or the rows stored. slot0 as in store_rows. All copies must have arrived. */
template <int D, int MT, Source SOURCE, bool CLUSTER>
__device__ __forceinline__ void merge_and_store(const Problem &p, unsigned char *shared, State<D, MT> &state,
                                                int b, int h, int unit, int row0, int rows, int64_t slot0)
{
    Finish<MT> f = finish(state, p.scale_log2);
    float *other = (float *)shared, *kept = other + KEPT_FLOATS<D, MT>;
    int warp = (int)threadIdx.x >> 5;
    __syncthreads(); /* everyone is done with the tiles */
    if (warp >= 4)
        keep_rows<D, MT>(other, state, f);
    __syncthreads();
    if (warp < 4)
        add_rows<D, MT>(other, state, f);
    if constexpr (CLUSTER) {
        if (warp < 4)
            keep_rows<D, MT>(kept, state, f);
        merge_cluster<D, MT>(p, kept, b, h, row0);
    } else if (warp < 4) {
        store_rows<D, MT, SOURCE>(p, state, f, b, h, unit, row0, rows, slot0);
    }
}

} /* namespace */
} /* namespace mb_cuda */

#endif
