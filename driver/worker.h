/*
 * worker.h - a job in a process of its own: whatever it does to memory, and however long it takes, costs nobody
 * else. For code that is not ours (isolate.c).
 */
#ifndef MB_WORKER_H
#define MB_WORKER_H

#include "base/base.h"
#include "model/model.h"

/* Part of the sentence about a worker whose time was up. */
#define MB_WORKER_HUNG "did not come back for"

typedef struct mb_worker_job {
    const char *name;            /* of the method, for sentences */
    double seconds;              /* without a sign of life in the note, until the process is killed */
    const volatile int *stop;    /* nonzero: kill it and return MB_E_STOP */
    /* Runs in the child. What it appends to answer comes back; so do its result code and sentence. */
    int (*run)(void *context, mb_attender_note *note, mb_text *answer, char *err, size_t err_cap);
    void *context;
} mb_worker_job;

/* The job's own code, or MB_E_SAMPLE and a sentence with hook, layer and step when the process crashed, left or
 * was killed. answer is empty unless the result is MB_OK or the job's. */
int mb_worker_run(const mb_worker_job *job, mb_text *answer, char *err, size_t err_cap);

#endif
