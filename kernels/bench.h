/*
 * bench.h - times the operations of a backend on the bench cases of cases.h and sets each beside the machine's own
 * ceilings. Knows tables and cases only; printing is the caller's.
 *
 * The floor of a case is the larger of its bytes over the measured copy rate and its FLOPs over the measured rate
 * of a large matrix product, both taken on the same device in the same run. Bytes count each input read once and
 * each output written once, whatever the implementation does; FLOPs are those of the definition.
 */
#ifndef MB_KERNELS_BENCH_H
#define MB_KERNELS_BENCH_H

#include "kernels/cases.h"

typedef struct mb_bench_time {
    double median_us, p10_us, p90_us; /* of one call; the percentiles are over samples */
    int32_t samples;                  /* timed samples */
    int32_t calls;                    /* calls in a sample: nodes of the graph where the backend has graphs */
} mb_bench_time;

typedef struct mb_bench_ceilings {
    mb_bench_time copy, gemm;
    double copy_rate;   /* bytes read plus bytes written per second */
    double gemm_rate;   /* FLOP per second */
    size_t copy_bytes;  /* of the block that was copied */
    int64_t gemm_width; /* m = n = k */
} mb_bench_ceilings;

typedef struct mb_bench_row {
    const mb_kernel_case *problem;
    mb_bench_time time;
    int32_t sets;        /* input sets that consecutive calls rotate through */
    double bytes, flops; /* of one call */
    double floor_us;
    double over_floor; /* median over floor */
    size_t memory;     /* bytes of one input set with everything the calls share */
    char skipped[160]; /* "" or why this case was not timed here */
} mb_bench_row;

/* Both ceilings through the table's own copy and gemm. 0, or negative with one sentence in err. */
int mb_bench_measure_ceilings(const mb_kernels *kernels, mb_device *device, mb_type type,
                              mb_bench_ceilings *ceilings, mb_error *err);

/* Fills *row for a bench case. memory_limit: a case whose arrays need more is skipped with a line in row->skipped;
 * 0 = what the arena has left. The arena is as before on return. */
int mb_bench_case(const mb_kernels *kernels, mb_device *device, mb_type type, const mb_kernel_case *problem,
                  const mb_bench_ceilings *ceilings, size_t memory_limit, mb_bench_row *row, mb_error *err);

#endif
