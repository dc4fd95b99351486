/*
 * cases.h - one list of named problems for every operation, used by the tests of all backends and by the kernel
 * benchmark: an operation, a shape, what is unusual about it; and a recipe for each operation, which makes the
 * arguments of a case out of arrays that the test or the benchmark hands out.
 */
#ifndef MB_KERNELS_CASES_H
#define MB_KERNELS_CASES_H

#include "base/base.h"
#include "kernels/kernels.h"

/* MB_OP_embed .. MB_OP_ring_reach: an operation as a number. */
#define MB_OPERATION_NUMBER(name, arguments) MB_OP_##name,
typedef enum mb_operation { MB_OPERATIONS(MB_OPERATION_NUMBER) MB_OPERATION_COUNT } mb_operation;
#undef MB_OPERATION_NUMBER

/* The arguments of any operation. */
#define MB_OPERATION_MEMBER(name, arguments) arguments name;
typedef union mb_operation_arguments {
    MB_OPERATIONS(MB_OPERATION_MEMBER)
} mb_operation_arguments;
#undef MB_OPERATION_MEMBER

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
    mb_operation operation;
    unsigned use;
    int64_t m, n, k;
    int32_t batch, query_heads, kv_heads, head_dim;
    int32_t rows, row_offset, block_keys; /* block_keys 0: as many as rows + row_offset */
    int32_t prefix[4];                    /* of sequence b: prefix[b % 4] */
    int32_t slack;                        /* max_prefix = longest prefix + slack */
    mb_scope scope;
    int32_t page, mode;
    int32_t experts, chosen, groups, groups_kept;
    unsigned flags;
} mb_kernel_case;

/* Case 0, 1, ...; NULL behind the last. */
const mb_kernel_case *mb_kernel_case_at(size_t index);

/* "attend", "top_k", ...: the operation as bench-kernels prints it. */
const char *mb_operation_name(mb_operation operation);
/* Enqueues the operation. */
int mb_operation_run(const mb_kernels *kernels, mb_device *device, mb_operation operation,
                     const mb_operation_arguments *args);

/* ---- arguments of a case ---- */

typedef enum mb_case_array_kind {
    MB_CASE_IN,     /* random numbers */
    MB_CASE_SHARED, /* the same; calls of one case that differ in other inputs may have it in common */
    MB_CASE_INOUT,  /* read and changed */
    MB_CASE_OUT,    /* written in full */
    MB_CASE_SCRATCH /* contents mean nothing */
} mb_case_array_kind;

/* Who makes the arrays. array() and upload() return device memory, or NULL after a failure (rc) or when dry. */
typedef struct mb_case_maker mb_case_maker;
struct mb_case_maker {
    const mb_kernels *kernels;
    mb_device *device;
    mb_type type; /* T of the device */
    const mb_kernel_case *problem;
    mb_random random; /* for what a recipe draws itself */
    int call;         /* running number of the call, so that calls of one case can differ */
    bool dry;         /* nothing is allocated, filled or run */
    int rc;           /* the first failure */
    double bytes;     /* that the call has to read and write, as far as its arrays say */
    void *(*array)(mb_case_maker *maker, mb_case_array_kind kind, int64_t n, mb_type type);
    void *(*upload)(mb_case_maker *maker, const int32_t *values, int64_t n);
};

typedef struct mb_case_call {
    mb_operation_arguments args;
    mb_page_set pages; /* what args may point to */
} mb_case_call;

/* The arguments of one call of the maker's case. */
void mb_case_fill(mb_case_maker *maker, mb_case_call *call);

/* ---- for the recipes ---- */

typedef void mb_case_recipe(mb_case_maker *maker, mb_case_call *call);
void *mb_case_array(mb_case_maker *maker, mb_case_array_kind kind, int64_t n, mb_type type);
int32_t *mb_case_upload(mb_case_maker *maker, const int32_t *values, int64_t n);
int32_t mb_case_longest(const mb_kernel_case *problem);    /* longest prefix + slack */
int32_t *mb_case_prefix(mb_case_maker *maker);             /* [batch] */
int32_t mb_case_cache_rows(const mb_kernel_case *problem); /* slots of the cache: prefix and block */
mb_rows mb_case_rows(mb_case_maker *maker);
mb_kv mb_case_kv(mb_case_maker *maker, mb_case_array_kind kind, int32_t capacity);
/* Draws the experts of one row, all equally likely: chosen [problem->chosen], distinct. Rows drawn one after the
 * other from mb_case_expert_draws() are those of every call but for a rotation of the experts, so that calls
 * differ and use the same number of experts. */
mb_random mb_case_expert_draws(const mb_kernel_case *problem);
void mb_case_draw_experts(const mb_kernel_case *problem, mb_random *draws, int32_t *chosen);

/* Cases and their operations' recipes: one file of cases each. A new operation needs both in one of them. */
typedef struct mb_case_list {
    const mb_kernel_case *cases;
    size_t count;
    mb_case_recipe *const *recipes; /* [MB_OPERATION_COUNT], NULL = another file's */
} mb_case_list;
extern const mb_case_list mb_cases_model, mb_cases_attention, mb_cases_estimate;

#endif
