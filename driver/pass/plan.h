/* plan.h - what a run will take before it starts: estimated seconds of its parts, memory of its cases, and a
 * refusal of what cannot fit. Nothing here computes or loads anything. */
#ifndef MB_PLAN_H
#define MB_PLAN_H

#include "driver/arm.h"

/* What a forward is estimated with: assumed, not measured; the device's own speed may be half or twice of it. */
typedef struct mb_plan_rate {
    double flops, bytes; /* a second */
} mb_plan_rate;
mb_plan_rate mb_plan_rate_of(const mb_run *run);

/* Estimated seconds of one decode of a sample of the task by one arm; the same for a forced decode. */
double mb_plan_sample_seconds(const mb_run *run, const mb_task_spec *task);

/* A case of the passes over fixed work, as the config names it. */
typedef struct mb_plan_case {
    bool breakdown; /* else latency */
    int32_t context, batch, steps;
} mb_plan_case;
typedef void (*mb_plan_visit)(void *self, const mb_run *run, const mb_plan_case *c);
/* Calls visit for every case that the run's passes measure, in their order. "largest" has no number before the
 * device is asked, and is no case here. visit may be NULL. Returns the sum of their seconds: what a plan prints is
 * what the progress bar counts. */
double mb_plan_cases(const mb_run *run, mb_plan_visit visit, void *self);
/* Estimated seconds of a case: its blocks for every method, at least; 0 where it does not fit, for then nothing is
 * measured. */
double mb_plan_case_seconds(const mb_run *run, const mb_plan_case *c);
/* Whether the reference's session of a case fits the open device; *plan: what it takes. */
bool mb_plan_case_fits(const mb_run *run, const mb_plan_case *c, mb_memory_plan *plan);

/* Memory of a session with the reference, or of the session alone where there is none. */
void mb_plan_memory(const mb_run *run, int32_t batch, int32_t capacity, mb_memory_plan *plan);
/* "0.28 GiB: weights 0.01, KV 0.20, index 0.00, scratch 0.07" */
void mb_plan_print_memory(const mb_memory_plan *plan, char *text, size_t cap);
/* MB_E_INPUT when the samples' session does not fit the open device, or a context has no batch that does. */
int mb_plan_check(const mb_run *run, mb_error *err);

#endif
