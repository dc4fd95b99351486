/*
 * keys_sm90.cuh - the transposed product S^T = K Q^T on sm_90a, bf16, head_dim 128: what mass_sm90.cu and
 * votes_sm90.cu share. 64 keys are the rows of a warpgroup's accumulator and N packed query rows its columns, so
 * nothing is padded to 64 rows and whatever is gathered over query rows of a key stays inside four lanes, whatever
 * is gathered over keys of a query row inside a thread.
 *
 * Accumulator element 4n + i: key 16 * warp + lane / 4 + 8 * (i / 2), query row 8n + 2 * (lane % 4) + i % 2.
 */
#ifndef MB_CUDA_KEYS_SM90_CUH
#define MB_CUDA_KEYS_SM90_CUH

#include "kernels/cuda/flash_sm90.cuh"

namespace mb_cuda {

constexpr int KEYS_TILE = 64;
constexpr uint32_t KEYS_TILE_BYTES = KEYS_TILE * FLASH_D * 2; /* two panels of 64 channels, one box each */
constexpr int KEYS_GROUPS = 3;                                /* consumer warpgroups */
constexpr int KEYS_THREADS = 128 * (1 + KEYS_GROUPS);
/* setmaxnreg moves registers within what the launch got: 128 a thread. */
static_assert(128 * KEYS_THREADS >= 24 * 128 + 160 * KEYS_GROUPS * 128, "the consumers' registers must exist");

/* Query rows of one product: all, or half. */
template <int N> constexpr int keys_chunk = N > 128 ? N / 2 : N;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Queries of unit (b, h) into two panels of N rows, and per row lse / ln 2 - log2 w; a row that counts nothing,
 * and rows past the packed ones, get +INF. */
template <int N>
__device__ __forceinline__ void load_queries(const Problem &p, unsigned char *q, float *shift, int b, int h,
                                             int thread, int threads)
{
    for (int i = thread; i < N * 16; i += threads) {
        int row = i / 16, chunk = i % 16;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (row < p.packed)
            x = *(const uint4 *)((const __nv_bfloat16 *)p.q + state_of(p, b, h, row) * FLASH_D + chunk * 8);
        *(uint4 *)(q + (chunk / 8) * (N * 128) + row * 128 + (((chunk % 8) ^ (row & 7)) << 4)) = x;
    }
    for (int row = thread; row < N; row += threads) {
        float value = INFINITY;
        if (row < p.packed) {
            float w = p.row_weight ? p.row_weight[(int64_t)b * p.rows + row / p.group] : 1.0f;
            float lse = p.lse[state_of(p, b, h, row)];
            if (w > 0.0f && lse != -INFINITY) /* NaN stays */
                value = lse * LOG2E - log2f(w);
        }
        shift[row] = value;
    }
    proxy_fence();
}

/* Logits of one key tile against C query rows from `row` on. */
template <int N, int C>
__device__ __forceinline__ void multiply_rows(float (&s)[C / 2], uint32_t k_tile, uint32_t q, int row)
{
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < FLASH_D / 16; c++)
        wgmma_shared<C>(s, rows_descriptor(k_tile + (c / 4) * (KEYS_TILE * 128) + (c % 4) * 32),
                        rows_descriptor(q + row * 128 + (c / 4) * (N * 128) + (c % 4) * 32), c != 0);
    wgmma_commit();
}

/* Adds the exponentials of C query rows to this thread's two keys. */
template <int C>
__device__ __forceinline__ void add_rows(const float (&s)[C / 2], const float *shift, float scale_log2,
                                         float (&sum)[4])
{
#pragma unroll
    for (int n = 0; n < C / 8; n++) {
        float2 x = *(const float2 *)(shift + n * 8);
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[i] += fast_exp2(fmaf(s[4 * n + i], scale_log2, i & 1 ? -x.y : -x.x));
    }
}

/* Both panels of the tile from slot `slot` of head `head` on, into `place`. One thread. */
__device__ __forceinline__ void copy_keys(uint32_t place, const CUtensorMap *map, uint32_t barrier, int slot,
                                          int head)
{
    barrier_expect(barrier, KEYS_TILE_BYTES);
    copy_box(place, map, barrier, 0, slot, head);
    copy_box(place + KEYS_TILE * 128, map, barrier, 64, slot, head);
}

#endif

} /* namespace mb_cuda */

#endif
