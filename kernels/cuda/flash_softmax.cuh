/*
 * flash_softmax.cuh - what a consumer warpgroup of flash_sm90.cuh does with the logits of a tile: masking,
 * exponentials and their sums, and the sums by 64 keys that become tile masses.
 *
 * Exponentials do not wait for the tile's maximum. They are taken relative to a shift that is fixed by a row's
 * first tile; their sum shows when a later tile's logits lie so far above it that the shift has to move. Only then
 * are the logits computed again, by the warp alone, and their maximum looked for. That takes a third of the
 * instructions out of the loop, which are what it would be bound by.
 */
#ifndef MB_CUDA_FLASH_SOFTMAX_CUH
#define MB_CUDA_FLASH_SOFTMAX_CUH

#include "kernels/cuda/flash_plan.cuh"
#include "kernels/cuda/mma.cuh"

namespace mb_cuda
{

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* A row's exponentials are taken relative to a shift: the maximum of its first tile, and of a later one only when
 * a sum of that tile's exponentials shows that the maximum has run far ahead. Softmax does not depend on the shift
 * as long as nothing overflows, and neither 2^16 nor its products with values do. */
constexpr float FLASH_MOST = 65536.0f; /* of a thread's sum over a row of one tile */
constexpr float FLASH_SLACK = 8.0f;    /* base-2 exponent by which a maximum must lead to become the shift */

/* A warpgroup's share of one piece, in registers. */
template <class S> struct FlashState {
    float o[S::D / 2];      /* 64 rows x D channels */
    float shift[2], sum[2]; /* of rows lane / 4 and + 8; base-2 exponent; this thread's part of the sum */
};

/* Sums of exponentials of one tile by row and half of the keys, kept until the tensor cores are busy again. */
struct TileSums {
    float sum[2][2]; /* [row lane / 4, + 8][half], this thread's part */
    float shift[2];  /* base-2 exponent that the sums are relative to */
    int first;       /* cache slot of the tile's first key */
};

/* -INF for keys that a row does not see. limit[0] <= limit[1]. */
template <class S>
__device__ __forceinline__ void flash_mask(const Piece &piece, float (&s)[S::KEYS / 2], int first,
                                           const int (&limit)[2])
{
    int lane = (int)threadIdx.x & 31;
    bool cut = first + S::KEYS > (is_prefill(S::MODE) ? limit[0] : piece.end);
    if (is_prefill(S::MODE))
        cut = __any_sync(0xffffffffu, cut);
    if (cut)
#pragma unroll
        for (int i = 0; i < S::KEYS / 2; i++) {
            int key = first + (i / 4) * 8 + (lane & 3) * 2 + (i & 1);
            int end = is_prefill(S::MODE) ? limit[(i >> 1) & 1] : piece.end;
            s[i] = key < end ? s[i] : -INFINITY;
        }
}

/* Makes the maximum of the logits the shift of every row that it leads by far; factor: what was accumulated before
 * is to be multiplied by it. */
template <class S>
__device__ __forceinline__ void flash_raise(const Problem &p, const float (&s)[S::KEYS / 2], FlashState<S> &state,
                                            float (&factor)[2])
{
    float top[2][4]; /* several chains: a dependent maximum costs more than an issue slot */
#pragma unroll
    for (int n = 0; n < S::KEYS / 8; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float both = fmaxf(s[4 * n + 2 * r], s[4 * n + 2 * r + 1]);
            top[r][n & 3] = n < 4 ? both : fmaxf(top[r][n & 3], both);
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float shift = quad_max(fmaxf(fmaxf(top[r][0], top[r][1]), fmaxf(top[r][2], top[r][3]))) * p.scale_log2;
        shift = shift > state.shift[r] + FLASH_SLACK ? shift : state.shift[r];
        factor[r] = fast_exp2(state.shift[r] - shift);
        state.shift[r] = shift;
    }
}

/* Logits to exponentials: their sums by row and half of the tile, and as left operand of the output product. */
template <class S>
__device__ __forceinline__ void flash_exponentials(const Problem &p, float (&s)[S::KEYS / 2],
                                                   const FlashState<S> &state, TileSums &sums,
                                                   uint32_t (&w)[S::KEYS / 4])
{
#pragma unroll
    for (int r = 0; r < 2; r++)
        sums.sum[r][0] = sums.sum[r][1] = 0.0f;
#pragma unroll
    for (int n = 0; n < S::KEYS / 8; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float &x = s[4 * n + 2 * r], &y = s[4 * n + 2 * r + 1];
            x = fast_exp2(fmaf(x, p.scale_log2, -state.shift[r]));
            y = fast_exp2(fmaf(y, p.scale_log2, -state.shift[r]));
            sums.sum[r][n / (S::KEYS / 16)] += x;
            sums.sum[r][n / (S::KEYS / 16)] += y;
            if (!S::AHEAD)
                w[2 * n + r] = pack_bf16(x, y);
        }
}

template <class S>
__device__ __forceinline__ void flash_pack(const float (&s)[S::KEYS / 2], uint32_t (&w)[S::KEYS / 4])
{
#pragma unroll
    for (int i = 0; i < S::KEYS / 4; i++)
        w[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

/* The logits of this warp's rows once more, with the warp's own matrix product: the exponentials have taken their
 * place by the time that they are found too large. Rare, and slow. */
template <class S>
__device__ __forceinline__ void flash_again(float (&s)[S::KEYS / 2], const uint32_t *q, uint32_t q_tile,
                                            uint32_t k)
{
    int lane = (int)threadIdx.x & 31, row = (((int)threadIdx.x & 127) >> 5) * 16 + (lane & 15);
#pragma unroll
    for (int i = 0; i < S::KEYS / 2; i++)
        s[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < S::D / 16; c += S::D % 32 ? 1 : 2) {
        constexpr int STEPS = S::D % 32 ? 1 : 2;
        uint32_t a[STEPS][4];
#pragma unroll
        for (int j = 0; j < STEPS; j++)
            if constexpr (S::HELD) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    a[j][i] = q[4 * (c + j) + i];
            } else {
                load_matrix4(a[j], q_tile + ((c + j) / 4) * (64 * 128) + row * 128 +
                                       (((((c + j) % 4) * 2 + (lane >> 4)) ^ (row & 7)) << 4));
            }
#pragma unroll
        for (int n = 0; n < S::KEYS / 8; n++) {
            uint32_t b[4];
            int chunk = c * 2 + (STEPS == 2 ? lane >> 3 : (lane >> 3) & 1);
            load_matrix4(b, k + (chunk / 8) * S::PANEL + (n * 8 + (lane & 7)) * 128 +
                                (((chunk % 8) ^ (lane & 7)) << 4));
            float d[4] = {s[4 * n], s[4 * n + 1], s[4 * n + 2], s[4 * n + 3]};
#pragma unroll
            for (int j = 0; j < STEPS; j++)
                multiply<__nv_bfloat16>(d, a[j], b[2 * j], b[2 * j + 1]);
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[4 * n + i] = d[i];
        }
    }
}

/* Softmax of one tile's logits in place. True when a row's shift moved: what was accumulated before is then to be
 * multiplied by factor. */
template <class S, bool FIRST>
__device__ __forceinline__ bool flash_softmax(const Problem &p, const Piece &piece, float (&s)[S::KEYS / 2],
                                              FlashState<S> &state, float (&factor)[2], TileSums &sums, int tile,
                                              const int (&limit)[2], uint32_t (&w)[S::KEYS / 4], const uint32_t *q,
                                              uint32_t q_tile, uint32_t k)
{
    int lane = (int)threadIdx.x & 31, first = piece.first + tile * S::KEYS;
    bool moved = false;
    flash_mask<S>(piece, s, first, limit);
    if (FIRST) {
        flash_raise<S>(p, s, state, factor);
        state.sum[0] *= factor[0];
        state.sum[1] *= factor[1];
    }
    flash_exponentials<S>(p, s, state, sums, w);
    if (!FIRST) {
        moved = __any_sync(0xffffffffu, !(sums.sum[0][0] + sums.sum[0][1] < FLASH_MOST) ||
                                            !(sums.sum[1][0] + sums.sum[1][1] < FLASH_MOST));
        if (moved) {
            flash_again<S>(s, q, q_tile, k);
            flash_mask<S>(piece, s, first, limit);
            flash_raise<S>(p, s, state, factor);
            flash_exponentials<S>(p, s, state, sums, w);
            state.sum[0] *= factor[0];
            state.sum[1] *= factor[1];
        }
    }
    sums.first = first;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sums.shift[r] = state.shift[r];
        state.sum[r] += sums.sum[r][0] + sums.sum[r][1];
    }
    if (S::MODE == FLASH_BLOCK_TILES && first + S::KEYS > piece.prefix) { /* leave the block's keys out */
        sums.sum[0][0] = sums.sum[0][1] = sums.sum[1][0] = sums.sum[1][1] = 0.0f;
#pragma unroll
        for (int i = 0; i < S::KEYS / 2; i++)
            if (first + (i / 4) * 8 + (lane & 3) * 2 + (i & 1) < piece.prefix)
                sums.sum[(i >> 1) & 1][i / (S::KEYS / 4)] += s[i];
    }
    return moved;
}

/* Where this thread's row sums of a piece go: of the four lanes that share two rows each writes one (row, half of
 * the tile's keys), as a base-2 logarithm, to tile_part [unit][64-key tile][packed row]. */
struct TilePlace {
    float *part;
    int end; /* first keys at or past this slot are not written */
};

__device__ __forceinline__ TilePlace flash_tile_place(const Problem &p, const Piece &piece, int row)
{
    int lane = (int)threadIdx.x & 31, half = (lane >> 1) & 1, tiles = (p.max_prefix + 63) / 64;
    TilePlace place;
    row += 8 * (lane & 1);
    place.part = p.tile_part + ((int64_t)(piece.b * p.kv_heads + piece.h) * tiles + half) * p.packed + row;
    place.end = (piece.prefix < tiles * 64 ? piece.prefix : tiles * 64) - 64 * half;
    place.end = row < p.packed ? place.end : 0;
    return place;
}

/* The lane number is taken through shared memory, as plus 0: the assembler otherwise moves all this in front of
 * the products that it is to run behind. */
__device__ __forceinline__ void flash_emit(const Problem &p, const TilePlace &place, const TileSums &sums,
                                           const int *zero)
{
    int lane = ((int)threadIdx.x & 31) + *(volatile const int *)zero;
    bool half = lane & 2, r = lane & 1;
    float low = half ? sums.sum[0][1] : sums.sum[0][0], high = half ? sums.sum[1][1] : sums.sum[1][0];
    low += __shfl_xor_sync(0xffffffffu, half ? sums.sum[0][0] : sums.sum[0][1], 2);
    high += __shfl_xor_sync(0xffffffffu, half ? sums.sum[1][0] : sums.sum[1][1], 2);
    float sum = (r ? high : low) + __shfl_xor_sync(0xffffffffu, r ? low : high, 1), log;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(log) : "f"(sum));
    if (sums.first < place.end)
        place.part[(int64_t)(sums.first / 64) * p.packed] = (r ? sums.shift[1] : sums.shift[0]) + log;
}

#endif

} /* namespace mb_cuda */

#endif
