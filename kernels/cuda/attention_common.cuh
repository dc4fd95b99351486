/*
 * attention_common.cuh - what every attention kernel of this folder shares: the argument block that travels by
 * value into the kernels, the key ranges, and the packing of query rows.
 *
 * Packing: the G * rows query rows that read one KV head form one matrix of R = G * rows rows; packed row p is
 * query row p / G of query head h * G + p % G. A "state" is one (sequence, row, query head); its number indexes
 * q and out (times head_dim) and the log-sum-exp. Inside kernels logits are kept unscaled and exponentials are
 * base 2: exp(scale * s - m) = exp2(s * scale_log2 - m2).
 */
#ifndef MB_CUDA_ATTENTION_COMMON_CUH
#define MB_CUDA_ATTENTION_COMMON_CUH

#include "base/base.h"
#include "kernels/cuda/attention.cuh"

#include <cuda_bf16.h>
#include <math.h>

namespace mb_cuda {

constexpr float LN2 = 0.6931471805599453f;
constexpr float LOG2E = 1.4426950408889634f;

/* Everything a kernel needs, by value. Pointers are device memory. */
struct Problem {
    const void *q, *k, *v;
    void *out;                 /* NULL: not wanted */
    float *lse;                /* NULL: not wanted */
    float *part_out;           /* partial states, fp32, normalised: [...][D]; NULL: one part only */
    float *part_lse;           /* their natural log-sum-exp */
    int2 *part_list;           /* attend_sm90.cu: where the parts of a unit are */
    const int32_t *prefix_len, *active;
    const int32_t *page_ids, *page_counts;
    const float *row_weight;
    float *mass, *tile_mass;   /* outputs of the mass kernels */
    float *tile_part;          /* per-row 64-key tile sums on their way to tile_mass (attend_sm90.cu) */
    int64_t mass_stride, tile_stride;
    int64_t first;             /* prefill: position of row 0 */
    int32_t batch, rows, query_heads, kv_heads, group, packed, capacity, head_dim, block_keys, span;
    int32_t page_shift, page_capacity, splits, max_prefix;
    int32_t prefill_rows, prefill_block, sequence;
    int32_t prefill_window;    /* 0: none; the plain path alone has one */
    int32_t prefill_whole;     /* prefill_sm90.cu: items of whole rounds */
    float scale, scale_log2;
};

struct KeyRange {
    int begin, end, prefix;    /* keys begin .. end-1 of the cache; prefix = committed keys */
};

/* Keys that `span` covers for sequence b. Lengths are clamped to the cache, so a wrong length cannot make a
 * kernel read outside it. */
__device__ __forceinline__ KeyRange key_range(const Problem &p, int b)
{
    KeyRange range;
    int n = p.prefix_len[b];
    n = n < 0 ? 0 : n > p.capacity ? p.capacity : n;
    int all = n + p.block_keys > p.capacity ? p.capacity : n + p.block_keys;
    range.prefix = n;
    range.begin = p.span == MB_SCOPE_BLOCK ? n : 0;
    range.end = p.span == MB_SCOPE_PREFIX ? n : all;
    return range;
}

__device__ __forceinline__ bool is_active(const Problem &p, int b, int h)
{
    return !p.active || p.active[b * p.kv_heads + h] != 0;
}

/* State number of packed row `row` of (b, h). */
__device__ __forceinline__ int64_t state_of(const Problem &p, int b, int h, int row)
{
    int r = row / p.group;
    return ((int64_t)b * p.rows + r) * p.query_heads + h * p.group + (row - r * p.group);
}

/* First element of the keys (or values) of (b, h), in elements. */
__device__ __forceinline__ int64_t cache_offset(const Problem &p, int b, int h)
{
    return ((int64_t)b * p.kv_heads + h) * p.capacity * p.head_dim;
}

__device__ __forceinline__ float fast_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two floats to packed bf16, `low` in the lower half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

/* Sum of row weights over the packed rows of sequence b; every thread gets the same bits. */
__device__ __forceinline__ float weight_total(const Problem &p, int b)
{
    if (!p.row_weight)
        return (float)p.packed;
    float sum = 0.0f;
    for (int r = 0; r < p.rows; r++)
        sum += p.row_weight[(int64_t)b * p.rows + r];
    return sum * (float)p.group;
}

/* ---- between the files of this folder (host) ---- */

/* Largest split count a merge expects. */
constexpr int MAX_SPLITS = 64;

/* Fills the kernel arguments from the contract's struct. */
Problem problem_from(const mb_attention *args);
int check_launch(const char *what, mb_error *err);

/* mma.sync path: bf16 and f16, head_dim 64 or 128. */
bool mma_serves(mb_type type, int head_dim);
int mma_splits(const mb_cuda_chip *chip, const Problem &p, int64_t keys);
bool mma_cluster_merges(const mb_cuda_chip *chip, int splits);
int mma_attend(const mb_cuda_chip *chip, mb_type type, const Problem &p, cudaStream_t stream, mb_error *err);
int mma_prefill(mb_type type, const Problem &p, cudaStream_t stream, mb_error *err);
int mma_mass(mb_type type, const Problem &p, cudaStream_t stream, mb_error *err);
int mma_setup(mb_error *err);
int mma_mass_setup(mb_error *err);

/* Sparse attention on mma.sync, same types and sizes. */
int pages_splits(const mb_cuda_chip *chip, const Problem &p);
int pages_attend(const mb_cuda_chip *chip, mb_type type, const Problem &p, cudaStream_t stream, mb_error *err);
int pages_setup(mb_cuda_chip *chip, mb_error *err);

/* Plain path: any type, any head_dim up to 512. */
int plain_attend(mb_type type, const Problem &p, bool sparse, cudaStream_t stream, mb_error *err);
int plain_prefill(mb_type type, const Problem &p, cudaStream_t stream, mb_error *err);
int plain_mass(mb_type type, const Problem &p, cudaStream_t stream, mb_error *err);

/* Merges p.splits partial states of every packed row: slot (unit * splits + split) * packed + row. */
int merge_splits(const Problem &p, mb_type type, cudaStream_t stream, mb_error *err);

/* sm_90a path: bf16, head_dim 64, 80, 96, 128, 256. */
bool sm90_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p);
size_t sm90_partial_bytes(const mb_cuda_chip *chip, const Problem &p);
size_t sm90_tile_bytes(const Problem &p);
int sm90_attend(const mb_cuda_chip *chip, const Problem &p, cudaStream_t stream, mb_error *err);
bool sm90_mass_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p);
int sm90_mass(const mb_cuda_chip *chip, const Problem &p, cudaStream_t stream, mb_error *err);
int sm90_prefill(const mb_cuda_chip *chip, const Problem &p, cudaStream_t stream, mb_error *err);
int sm90_setup(mb_cuda_chip *chip, mb_error *err);
int sm90_mass_setup(mb_error *err);
int sm90_votes_setup(mb_error *err); /* the rest: votes.cuh */

} /* namespace mb_cuda */

#endif
