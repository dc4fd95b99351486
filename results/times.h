/*
 * times.h - the measured times of a run as medians with intervals, read once for the report and for the comparison
 * of two runs.
 */
#ifndef MB_RESULTS_TIMES_H
#define MB_RESULTS_TIMES_H

#include "results/store.h"

typedef struct timed_case {                 /* the newest measurement of a case, the faster of graph and eager */
    char *model, *sampler, *config, *phase; /* sampler: what was timed, as in v_latency */
    char *measured;                         /* day */
    int64_t context, batch, steps, n;
    interval us; /* median with its 95 % interval: order statistics, so it is made of measured times */
    bool is_reference, is_oracle;
} timed_case;

typedef struct times {
    timed_case
        *cases; /* by model, sampler, context, batch, steps, phase, the reference first, then configuration */
    size_t count;
} times;

int times_load(mb_store *store, int64_t run_id, times *out, mb_error *err);
void times_free(times *t);
/* The reference's case that this one is compared with; NULL: none. */
const timed_case *times_reference(const times *t, const timed_case *c);
/* a / b with the interval that the two intervals allow at most. */
interval times_ratio(const interval *a, const interval *b);
/* "7.76 ±0.02": as many digits as the interval allows. NAN: no interval, four digits. */
void times_text(mb_text *out, const interval *v, double scale);

#endif
