/*
 * suite.h - the tests of every operation as functions of a backend: they see its table and an open device and
 * move data with upload and download only, so the same bodies judge the CPU and CUDA.
 *
 * Each test fills one problem of kernels/cases.h with random data, poisons outputs and unused memory with NaN,
 * runs the operation, and compares with a straightforward reference in double precision that works on the same,
 * already rounded, inputs. Outputs are followed by a guard that must survive.
 */
#ifndef MB_TESTS_KERNELS_SUITE_H
#define MB_TESTS_KERNELS_SUITE_H

#include <math.h>

#include "base/base.h"
#include "kernels/cases.h"
#include "kernels/kernels.h"

/* How far a backend may be from the reference, beyond one rounding of the result to T. */
typedef struct suite_bounds {
    double product;     /* gemm, scores: relative to the sum of |terms| */
    double attention;   /* outputs: relative to the largest |v| */
    double lse;         /* absolute */
    double mass;        /* relative to the mass, plus as much of the mean mass */
    double probability; /* top1, relative */
    double slips;       /* share of rounded results that may be a neighbour of the reference's rounding */
    bool same_bits;     /* attend and attend_sparse over all keys agree bit for bit */
} suite_bounds;

typedef struct suite {
    const mb_kernels *kernels;
    mb_device *device;
    mb_type type;
    suite_bounds bounds;
    mb_hash *digest; /* NULL, or collects every downloaded byte */
    int every;       /* of an operation's cases only every so many, the first among them; 0: all */
    /* set per case */
    const mb_kernel_case *problem;
    mb_random random;
    void *owned[256]; /* host memory of the running case */
    int owned_count;
    size_t mark;
    int failures;
} suite;

/* Runs one case; prints what differs and counts it in failures. */
void suite_run(suite *s, const mb_kernel_case *problem);
/* Runs the test cases of an operation; returns how many there were. */
int suite_run_operation(suite *s, mb_operation operation);

/* ---- for the files of the suite ---- */

void *suite_own(suite *s, size_t bytes);                /* zeroed host memory, freed after the case */
float suite_round(mb_type type, double x);              /* to T, nearest, ties to even */
float *suite_random(suite *s, int64_t n, double scale); /* uniform in +-scale, rounded to T */
void *suite_put(suite *s, const float *values, int64_t n, mb_type type); /* device array of `type` */
int32_t *suite_put_ints(suite *s, const int32_t *values, int64_t n);
void *suite_poison(suite *s, int64_t n, mb_type type); /* device array of NaN and a guard behind it */
float *suite_get(suite *s, const void *device, int64_t n, mb_type type); /* also checks nothing but copies */
float *suite_get_guarded(suite *s, const void *device, int64_t n, mb_type type, const char *what);
int32_t *suite_get_ints(suite *s, const int32_t *device, int64_t n);
void suite_expect(suite *s, bool good, const char *format, ...) MB_PRINTF(3, 4);
void suite_ok(suite *s, int rc, const char *operation);
/* |got - want| <= limit; a NaN in either fails. */
void suite_close(suite *s, const char *what, int64_t at, double got, double want, double limit);
double suite_rounding(mb_type type, double x); /* half a step of T at x, and a bit */

/* One KV head's worth of block attention, on the host: all arrays as T values in float. */
typedef struct suite_attention {
    mb_attention args; /* device pointers */
    int32_t prefix[64];
    int64_t heads, group, dim, rows;
    float *q, *k, *v, *weight; /* host; weight NULL = 1 */
    int32_t *active;           /* host, NULL = all */
    double largest_v;
    int32_t *ids, *counts; /* host pages */
} suite_attention;

/* Queries, cache (NaN outside the visible slots), lengths, weights and flags of a case; out and lse poisoned. */
void suite_attention_make(suite *s, suite_attention *a);
/* scale * q . k of packed row i (r * group + g) of a (sequence, KV head) with a cache slot. */
double suite_logit(const suite_attention *a, int64_t head, int64_t row, int64_t slot);
int64_t suite_row_at(const suite_attention *a, int64_t head, int64_t row); /* index into [batch][rows][heads] */
double suite_row_weight(const suite_attention *a, int64_t head, int64_t row);
/* log-sum-exp of a row over `n` slots. */
double suite_lse(const suite_attention *a, int64_t head, int64_t row, const int32_t *slots, int64_t n);
/* The slots that a head covers: scope and, when pages is true, its pages. Returns their number. */
int64_t suite_slots(const suite_attention *a, int64_t head, bool pages, int32_t *slots);
void suite_pages_make(suite *s, suite_attention *a, int32_t page, int32_t count);

void suite_transformer(suite *s); /* one of embed .. top1 */
void suite_experts(suite *s);     /* route, experts */
void suite_attention_case(suite *s);
void suite_index_case(suite *s);  /* mass .. key_scores */
void suite_scores_case(suite *s); /* top_k .. count_work */
/* Any other operation, by its recipe in kernels/cases*.c: the backend against the CPU's, on the same inputs. */
void suite_parity_case(suite *s);
/* Around a problem: its name for messages and random numbers; memory back and everything enqueued done. */
void suite_begin(suite *s, const mb_kernel_case *problem);
void suite_finish(suite *s);
/* Every problem of reuse_decide, the ring and count_read: they have no case in cases.h. */
void suite_reuse(suite *s);
/* Whether $MASKBENCH_TEST_OPERATIONS, names between spaces, lets an operation run; unset: all run. For tools that
 * make a program a hundred times slower. */
bool suite_is_chosen(const char *operation);

/* The function of a gate in double precision. */
static inline double suite_activated(mb_activation activation, double x)
{
    if (activation == MB_GELU_TANH)
        return x /
               (1.0 + exp(-2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x))); /* 1 + tanh() cancels */
    return x / (1.0 + exp(-x));
}

#endif
