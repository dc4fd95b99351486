/* pass.h - the passes of a run, and the stream of samples that feeds those that need any. */
#ifndef MB_PASS_H
#define MB_PASS_H

#include "driver/arm.h"

/* ---- samples.c ---- */
/* All tasks: streams samples, prepares each once and hands it to the passes that want it. */
int mb_run_tasks(mb_run *run, mb_error *err);
/* Opens a task to learn its size (-1 = only the file knows) and, with a store, its identity there. A missing file
 * is found here, before any work. */
int mb_run_dataset(mb_run *run, const mb_task_spec *spec, int64_t *samples, int64_t *id, mb_error *err);

/* A task that is read sample by sample, by a worker that gets places of samples. Zero-initialise. */
typedef struct mb_sample_stream {
    mb_task *task;
    size_t number; /* of the task in the config */
    int64_t next, dataset_id;
} mb_sample_stream;
/* The passes over one sample: place within the task, running number within the run. */
int mb_run_sample_at(mb_run *run, mb_sample_stream *stream, size_t task, int64_t index, int64_t number,
                     mb_error *err);
void mb_sample_stream_close(mb_sample_stream *stream);

/* ---- group.c ---- */
/* A decode that is to come: an arm of this process, its cell and what it asks for. */
typedef struct mb_pending {
    mb_arm *arm;
    int64_t cell;
    mb_decode_request request;
    struct mb_recorder *recorder; /* NULL: nothing is kept to look at */
} mb_pending;
/* Decodes all of them, together where there is more than one: results and rcs [count], errors [count]. Now and
 * then an arm of a group decodes again alone, for the gate "company does not matter". Fails where the gate cannot
 * be stored or nothing could begin. */
int mb_pending_decode(mb_run *run, const mb_pending *pending, size_t count, mb_group_arm *arms,
                      mb_decode_result *results, mb_error *err);
enum { MB_PENDING_MAX = 16 };
/* Adds arms that decoded again alone, those of them with other tokens and the last of these, here or in a worker,
 * and stores the gate. Nothing where none did. */
int mb_group_gate(mb_run *run, int64_t again, int64_t differ, size_t arm, mb_error *err);

/* ---- quality.c, recall.c, latency.c, breakdown.c ---- */
int mb_quality_sample(mb_run *run, mb_prepared *prepared, mb_error *err);
int mb_forced_sample(mb_run *run, mb_prepared *prepared, mb_error *err);
int mb_recall_sample(mb_run *run, mb_prepared *prepared, mb_error *err);
int mb_latency_pass(mb_run *run, mb_error *err);
int mb_breakdown_pass(mb_run *run, mb_error *err);

#endif
