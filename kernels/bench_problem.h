/*
 * bench_problem.h - one bench case as arrays on a device: the arguments of every call, and what a call must move
 * and compute. Used by bench.c alone.
 */
#ifndef MB_KERNELS_BENCH_PROBLEM_H
#define MB_KERNELS_BENCH_PROBLEM_H

#include "base/base.h"
#include "kernels/cases.h"

#define MB_BENCH_CALLS 128 /* sets of arguments */

typedef struct mb_bench_problem {
    mb_case_maker maker;    /* first: what the recipes see */
    const void *noise;      /* MB_BENCH_NOISE normal values of T, device */
    const float *noise_f32; /* the same many fp32 */
    size_t memory;          /* bytes that make() asked for */
    int64_t phase;          /* where in the noise the next array starts, so that calls differ */
    void *shared[8];        /* arrays that all calls have in common, in the order of the recipe */
    int shared_count;
    int count;
    mb_case_call calls[MB_BENCH_CALLS];
} mb_bench_problem;

#define MB_BENCH_NOISE ((int64_t)1 << 20)

/* malloc'ed, without arrays; NULL = no memory. */
mb_bench_problem *mb_bench_problem_new(const mb_kernels *kernels, mb_device *device, mb_type type,
                                       const mb_kernel_case *problem);
/* Uploads the noise; once per device. Returns 0 or a code (text: kernels->error). */
int mb_bench_noise(mb_bench_problem *p);
/* The arguments of `count` calls; dry: only p->memory and p->maker.bytes. */
int mb_bench_make(mb_bench_problem *p, int count, bool dry);
/* Device array of n elements of T from the noise. NULL when dry or after a failure. */
void *mb_bench_values(mb_bench_problem *p, int64_t n);
/* Enqueues one call. */
int mb_bench_launch(const mb_bench_problem *p, int call);
/* What one call has to move and compute, where there is a formula; else false: every array once, no arithmetic. */
bool mb_bench_work(const mb_kernel_case *problem, mb_type type, double *bytes, double *flops);

#endif
