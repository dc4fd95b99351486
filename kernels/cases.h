/*
 * cases.h - one list of named problems for every operation, used by the tests of all backends and by the kernel
 * benchmark: an operation, a shape, what is unusual about it. Data only; who uses a case makes its inputs.
 */
#ifndef MB_KERNELS_CASES_H
#define MB_KERNELS_CASES_H

#include "kernels/kernels.h"

typedef enum mb_case_operation {
    MB_CASE_EMBED,       /* m ids, vocabulary n, width k */
    MB_CASE_RMSNORM,     /* m rows, width k; mode: one_rounding; flag DELTA */
    MB_CASE_GEMM,        /* m x n x k; flag BIAS */
    MB_CASE_QKV,         /* mode: norm_one_rounding; k: rotary_dim; flags NORM, PRE */
    MB_CASE_SWIGLU,      /* m rows, width k */
    MB_CASE_TOP1,        /* m rows, vocabulary n; mode: mb_type of the confidence */
    MB_CASE_ROUTE,       /* m rows, width k, experts; mode: mb_score; flags BIAS, ROUND, TIES */
    MB_CASE_EXPERTS,     /* m rows, width k, experts of size n; mode: mb_combine; flags DELTA, SKEWED */
    MB_CASE_ATTEND,      /* flags WEIGHTS, ACTIVE, MASS */
    MB_CASE_SPARSE,      /* page, k pages; flags ACTIVE, MIXED, EMPTY, FULL */
    MB_CASE_PREFILL,     /* m rows from position n, block k */
    MB_CASE_MASS,        /* flags WEIGHTS, ACTIVE */
    MB_CASE_VOTES,       /* k */
    MB_CASE_PAGE_BOUNDS, /* page; mode: whole */
    MB_CASE_PAGE_SCORES, /* page; mode: mb_merge; flag WEIGHTS */
    MB_CASE_KEY_SCORES,  /* k channels, 0 = all; flag WEIGHTS */
    MB_CASE_TOP_K,       /* page, k; flag DYNAMIC */
    MB_CASE_TOP_P,       /* page, k = least, n = most; p = mode / 100 */
    MB_CASE_SCORES,      /* page: edges, pool, smooth, axpby, head mean, random */
    MB_CASE_MERGE,       /* m states of head_dim; mode: bit 0, 1, 2 = a, b, out are fp32 */
    MB_CASE_DOWNDATE,    /* the same */
    MB_CASE_DISTANCE,    /* m vectors of head_dim */
    MB_CASE_COUNT_WORK   /* page, k; flags MIXED, DENSE */
} mb_case_operation;

#define MB_CASE_TEST 1u  /* use: small and awkward, compared with a reference */
#define MB_CASE_BENCH 2u /* use: real sizes, timed */

#define MB_CASE_DELTA 1u
#define MB_CASE_BIAS 2u
#define MB_CASE_NORM 4u
#define MB_CASE_PRE 8u
#define MB_CASE_WEIGHTS 16u   /* row weights, some 0 */
#define MB_CASE_ACTIVE 32u    /* every other (sequence, KV head) is inactive */
#define MB_CASE_MASS_OUT 64u  /* attend also gives mass and tile mass */
#define MB_CASE_MIXED 128u    /* some (sequence, KV head) dense: count -1 */
#define MB_CASE_NOTHING 256u  /* some (sequence, KV head) with an empty index */
#define MB_CASE_FULL 512u     /* the index names every page */
#define MB_CASE_DYNAMIC 1024u /* k_dynamic */
#define MB_CASE_DENSE 2048u   /* no pages at all */
#define MB_CASE_TOKENS 4096u  /* attend also gives mass, and not tile mass */
#define MB_CASE_TILES 8192u   /* attend also gives tile mass, and not mass */
#define MB_CASE_ROUND 16384u  /* route: logits and weights are rounded to T, nothing is normalised */
#define MB_CASE_TIES 32768u   /* route: experts in equal pairs and groups, a row of zeros */
#define MB_CASE_SKEWED 65536u /* experts: every row has the first one, the last half of them has none */

typedef struct mb_kernel_case {
    const char *name;
    mb_case_operation operation;
    unsigned use;
    int64_t m, n, k;
    int32_t batch, query_heads, kv_heads, head_dim;
    int32_t rows, row_offset, block_keys; /* block_keys 0: as many as rows + row_offset */
    int32_t prefix[4];                    /* of sequence b: prefix[b % 4] */
    int32_t slack;                        /* max_prefix = longest prefix + slack */
    mb_span span;
    int32_t page, mode;
    int32_t experts, chosen, groups, groups_kept;
    unsigned flags;
} mb_kernel_case;

extern const mb_kernel_case mb_kernel_cases[];
extern const size_t mb_kernel_case_count;

/* "attend", "top_k", ...: the operation as bench-kernels prints it. */
const char *mb_case_operation_name(mb_case_operation operation);

#endif
