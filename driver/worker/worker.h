/*
 * worker.h - the program started once more, to run code that is not ours: whatever it does to memory, and however
 * long it takes, harms nobody else. One worker serves one method configuration and outlives its jobs.
 *
 * A new program and no fork: a GPU cannot be used across a fork, and one mechanism should serve every device. Each
 * side sends messages over one socket; where the method is, the worker says in a shared page (mb_attender_note),
 * which outlives it. serve.c is the other side; what the messages say is between isolate.c and serve.c.
 */
#ifndef MB_WORKER_H
#define MB_WORKER_H

#include "base/base.h"
#include "model/model.h"

/* Part of the sentence about a worker whose time was up. */
#define MB_WORKER_HUNG "did not come back for"

typedef struct mb_worker mb_worker;

typedef struct mb_worker_question {
    const char *name;         /* of the method, for sentences */
    const mb_text *text;      /* what is asked */
    double seconds;           /* without a sign of life of the method, until the worker is ended */
    const volatile int *stop; /* nonzero: end it and return MB_E_STOP */
} mb_worker_question;

/* Starts ./harness worker with `plugin` (a shared object) loaded. MB_E_SYSTEM with a sentence. */
int mb_worker_start(mb_worker **worker, const char *plugin, mb_error *err);
/* Starts ./harness worker samples, with the plug-ins loaded, for mb_worker_post(); what: for sentences. */
int mb_worker_start_samples(mb_worker **worker, const char *const *plugins, size_t count, const char *what,
                            mb_error *err);
#define MB_WORKER_SAMPLES "samples"
/* Sends a question and does not wait for the answer. */
int mb_worker_post(mb_worker *worker, const mb_text *question, mb_error *err);
/* How long workers may be silent. A process that was stopped (SIGSTOP) for `seconds` is told to go on, three times
 * a question, and is ended when it is stopped once more. Whatever else takes that long is waited for, and said:
 * after seconds, twice seconds, four times, ... */
typedef struct mb_worker_watch {
    const volatile int *stop; /* nonzero: MB_E_STOP */
    double seconds;
    void (*say)(void *self, size_t which, const char *sentence);
    void *self;
} mb_worker_watch;
/* Waits until one of the workers (NULL: none there) has answered or ended: *which. The answer, appended, with the
 * worker's own code and sentence; MB_E_SAMPLE and a sentence when its process ended; MB_E_STOP. */
int mb_worker_wait(mb_worker *const *workers, size_t count, const mb_worker_watch *watch, size_t *which,
                   mb_text *answer, mb_error *err);
/* The answer, appended to *answer, with the worker's own code and sentence; or MB_E_SAMPLE and a sentence with
 * hook, layer and step when the method crashed, left, hung or broke the device. After anything but MB_OK end the
 * worker. */
int mb_worker_ask(mb_worker *worker, const mb_worker_question *question, mb_text *answer, mb_error *err);
void mb_worker_end(mb_worker *worker);          /* NULL is fine */
int mb_worker_process(const mb_worker *worker); /* its process id */

/* ---- the worker's own side ---- */

/* What a worker answers; *note is told where the method is. Appends to answer and returns code and sentence. */
typedef int (*mb_worker_answer_fn)(void *context, mb_attender_note *note, const mb_text *question, mb_text *answer,
                                   mb_error *err);
/* Answers questions until the other side is gone. MB_E_INPUT: mb_worker_start() did not start this process. */
int mb_worker_serve(mb_worker_answer_fn answer, void *context, mb_error *err);

#endif
