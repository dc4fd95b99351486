/*
 * job.h - what isolate.c asks of a worker and serve.c answers. Both are the same program, so the structs travel as
 * they are; lengths are checked all the same, because a plug-in can write over anything in a worker.
 */
#ifndef MB_JOB_H
#define MB_JOB_H

#include <stdint.h>

typedef enum mb_job_kind {
    MB_JOB_OPEN = 0,    /* behind the job: JSON text. Answer: empty, or why the method cannot run here */
    MB_JOB_DECODE = 1,  /* behind the job: prompt ids, forced ids. Answer: a decode result */
    MB_JOB_SHADOW = 2,  /* the same. Answer: a recall */
    MB_JOB_REHEARSE = 3 /* no answer but the code */
} mb_job_kind;

typedef struct mb_job {
    int32_t kind;
    int32_t max_new_tokens, min_new_tokens, extra_stop_id; /* as in mb_decode_request */
    int64_t request;
    uint64_t seed;
    uint64_t prompt_count, forced_count; /* int32 each */
    int32_t context, batch, steps;       /* REHEARSE */
} mb_job;

/* Keys of the JSON behind MB_JOB_OPEN. */
#define MB_JOB_CONFIG "config"   /* the run's, with all flags in it */
#define MB_JOB_METHODS "methods" /* "exact,mine": the reference, if any, and the method */
#define MB_JOB_LABEL "label"     /* of the configuration */
#define MB_JOB_SAMPLER "sampler" /* its index */
#define MB_JOB_DEVICE "device"
#define MB_JOB_REHEARSAL "rehearsal" /* true: no session yet, each rehearsal opens its own */

#endif
