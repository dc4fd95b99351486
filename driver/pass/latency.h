/*
 * latency.h - what the files of the latency and breakdown passes share.
 *
 * latency.c walks over the cases (context, batch, steps); latency_common.c opens them and the methods in them;
 * latency_case.c measures the methods of one case in turn; latency_store.c turns samples into rows;
 * latency_request.c times requests with the real sampler; breakdown.c asks the profiler where the time of a step
 * goes.
 */
#ifndef MB_DRIVER_LATENCY_H
#define MB_DRIVER_LATENCY_H

#include "driver/arm.h"

/* What a time stands for. The first three are single forwards. */
typedef enum mb_time_phase {
    MB_TIME_FIRST,
    MB_TIME_LATER,
    MB_TIME_COMMIT,
    MB_TIME_BLOCK,
    MB_TIME_PHASES
} mb_time_phase;

/* A time with the worst of the device's state before and after it. */
typedef struct mb_time_sample {
    mb_time_phase phase;
    bool graph;
    double us;
    mb_telemetry state;
} mb_time_sample;

/* One method in one case. Samples outlive the attender: a reference is opened once per group. */
typedef struct mb_latency_slot {
    const mb_arm *arm;
    mb_attender *attender; /* NULL while its group is not open */
    mb_time_sample *samples;
    size_t count, capacity;
    bool replays;       /* graphs are possible */
    bool graph;         /* the faster mode, in which the headline is measured */
    double window[2];   /* median of the last block's steps, by mode */
    uint64_t digest[2]; /* predicted tokens on the same inputs, by mode */
    bool warm, done, capped, failed;
    int32_t groups; /* in which it was measured */
    uint64_t turns; /* blocks so far: the n-th of every method has the same inputs */
    mb_audit audit;
    char reason[MB_ERROR_CAP]; /* why it is not measured here; "" = it is */
} mb_latency_slot;

typedef struct mb_latency_case {
    mb_run *run;
    int32_t context, batch, steps;
    mb_latency_slot *slots; /* one per method configuration */
    size_t count;
    mb_session *session;
    /* While a block runs: */
    mb_latency_slot *current;
    bool graph, recording, spoiled; /* spoiled: a forward of the block has no time */
    mb_telemetry before, block_state;
    uint64_t telemetry_ns;
    mb_random audits;
} mb_latency_case;

/* Over all cases of a run: the gate on graphs and what was never measured. */
typedef struct mb_latency_totals {
    int64_t compared, different, dropped, timed, audited, audited_layers;
    char first_different[128];
    bool *measured, *opaque_told; /* [methods] */
    char (*reasons)[256];         /* [methods] the last one */
} mb_latency_totals;

/* ---- latency_common.c ---- */
/* What a time of this forward stands for; never MB_TIME_BLOCK. */
mb_time_phase mb_time_phase_of(mb_phase phase);
/* As stored: "first_step", "later_step", "commit", "block". */
const char *mb_time_phase_name(mb_time_phase phase);
double mb_median(double *values, size_t n); /* sorts; NAN when n is 0 */
const char *mb_latency_timer(const mb_run *run);
void mb_telemetry_read(const mb_run *run, mb_telemetry *telemetry);
void mb_telemetry_join(mb_telemetry *state, const mb_telemetry *other); /* the worse of both */
/* The first arm, and so the slot, that equals exact attention; the number of methods: there is none. */
size_t mb_latency_reference(const mb_run *run);
/* Device bytes beyond the weights of a session of the case's context with these methods. */
size_t mb_latency_bytes(const mb_latency_case *c, int32_t batch, const mb_arm *arms, size_t count);
size_t mb_latency_bytes_free(const mb_run *run);
/* Calls `work` with a session and attenders open for each group of slots that fits the device together. Slots that
 * do not fit or are unsupported get a reason. */
int mb_latency_groups(mb_latency_case *c, int (*work)(mb_latency_case *c, void *user, mb_error *err), void *user,
                      mb_error *err);
int mb_latency_case_open(mb_latency_case *c, mb_run *run, int32_t context, int32_t batch, int32_t steps,
                         mb_error *err);
void mb_latency_case_close(mb_latency_case *c);
/* Whether a start before this one has timed the case (phase, context, batch, steps of *which) for every method, or
 * for the reference alone; counts it as reused. A method that came later is timed together with all others, in new
 * rows: ratios need one process. */
int mb_latency_stored(mb_run *run, const mb_latency_row *which, bool everyone, bool *stored, mb_error *err);
/* Context and steps against the model. */
int mb_latency_check(const mb_run *run, int32_t context, int32_t steps, mb_error *err);
/* A method's failure fails only its own cells: stored, counted, MB_OK. */
int mb_latency_failed(mb_latency_case *c, mb_latency_slot *slot, const char *pass, const char *reason,
                      mb_error *err);
/* An event of the run with the case in front. */
int mb_latency_event(mb_latency_case *c, const char *level, const char *who, const char *text, mb_error *err);

/* ---- latency_case.c ---- */
/* All slots that have an attender: warm-up, both launch modes, measuring until the medians stand still. */
int mb_latency_measure(mb_latency_case *c, mb_latency_totals *totals, mb_error *err);
/* --profile: one block each, in named ranges, without events. */
int mb_latency_ranges(mb_latency_case *c, mb_error *err);

/* ---- latency_store.c ---- */
int mb_latency_store(mb_latency_case *c, mb_latency_totals *totals, mb_error *err);
int mb_latency_store_memory(mb_latency_case *c, const mb_latency_slot *slot, mb_error *err);
/* One row of a phase that is measured once: "prefill", "request". */
int mb_latency_store_one(mb_run *run, const mb_arm *arm, const mb_latency_row *row, mb_error *err);
int mb_latency_store_gate(mb_run *run, const mb_latency_totals *totals, mb_error *err);

/* ---- latency_request.c ---- */
/* Requests with the run's first sampler on a real model: time = forwards x cost of a forward. */
int mb_latency_requests(mb_run *run, mb_error *err);

#endif
