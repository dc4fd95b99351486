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
/* Of one case of the latency pass: its blocks for every method, at least; and of one of the breakdown pass. */
double mb_plan_latency_seconds(const mb_run *run, int32_t context, int32_t batch, int32_t steps);
double mb_plan_breakdown_seconds(const mb_run *run, int32_t context, int32_t batch, int32_t steps);

/* Memory of a session with the reference, or of the session alone where there is none. */
void mb_plan_memory(const mb_run *run, int32_t batch, int32_t capacity, mb_memory_plan *plan);
/* "0.28 GiB: weights 0.01, KV 0.20, index 0.00, scratch 0.07" */
void mb_plan_print_memory(const mb_memory_plan *plan, char *text, size_t cap);
/* MB_E_INPUT when the samples' session does not fit the open device, or a context has no batch that does. */
int mb_plan_check(const mb_run *run, mb_error *err);

#endif
