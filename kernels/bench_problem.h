/*
 * bench_problem.h - one bench case as arrays on a device: the inputs of every set, the call, what it must move and
 * compute. Used by bench.c alone.
 */
#ifndef MB_KERNELS_BENCH_PROBLEM_H
#define MB_KERNELS_BENCH_PROBLEM_H

#include "base/base.h"
#include "kernels/cases.h"

#define MB_BENCH_SETS 128

/* The arrays of one call. Which of them an operation uses: make_set() in bench_problem.c. */
typedef struct mb_bench_set {
    void *a, *b, *c, *d; /* inputs */
    float *fa, *fb;      /* fp32 inputs */
    void *out;
    float *fout, *stats;   /* fp32 outputs */
    int32_t *ids, *counts; /* inputs of embed and attend_sparse, outputs of top1 and top_k */
    void *scratch;
    mb_attention attention;
    mb_pages pages;
    mb_qkv qkv;
    mb_router router;
    mb_experts experts;
} mb_bench_set;

typedef struct mb_bench_problem {
    const mb_kernels *kernels;
    mb_device *device;
    mb_type type;
    const mb_kernel_case *problem;
    mb_random random;
    const void *noise;      /* MB_BENCH_NOISE normal values of T, device */
    const float *noise_f32; /* the same many fp32 */
    bool dry;               /* only adds up `memory`: nothing is allocated or filled */
    size_t memory;          /* bytes that make() asked for */
    int rc;                 /* first failure of an allocation or copy */
    int64_t phase;          /* where in the noise the next array starts, so that sets differ */
    mb_kv kv;               /* of all sets when they share one */
    int32_t *prefix;        /* device [batch] */
    float *cos_sin;
    void *table; /* of embed, all sets */
    int count;
    mb_bench_set sets[MB_BENCH_SETS];
} mb_bench_problem;

#define MB_BENCH_NOISE ((int64_t)1 << 20)

/* Uploads the noise; once per device. Returns 0 or a code (text: kernels->error). */
int mb_bench_noise(mb_bench_problem *p);
/* Arrays of `count` sets; dry: only p->memory. */
int mb_bench_make(mb_bench_problem *p, int count, bool dry);
/* Device array of n elements of T from the noise. NULL when dry or after a failure. */
void *mb_bench_values(mb_bench_problem *p, int64_t n);
/* Enqueues one call with the arrays of a set. */
int mb_bench_launch(const mb_bench_problem *p, int set);
/* Draws the experts of one row, all equally likely: chosen [problem->chosen], distinct. Rows drawn one after the
 * other from mb_bench_draws() are those of every set but for a rotation of the experts, so that sets differ and
 * use the same number of experts. */
mb_random mb_bench_draws(const mb_kernel_case *problem);
void mb_bench_draw(const mb_kernel_case *problem, mb_random *draws, int32_t *chosen);
/* What one call has to move and compute. False: no formula, the operation cannot be timed. */
bool mb_bench_work(const mb_kernel_case *problem, mb_type type, double *bytes, double *flops);

#endif
