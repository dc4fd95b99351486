/*
 * training.h - the file of a training: a SQLite file of its own kind, a row a step. training.sql is compiled in.
 */
#ifndef MB_RESULTS_TRAINING_H
#define MB_RESULTS_TRAINING_H

#include "base/base.h"

typedef struct mb_training_log mb_training_log;

/* Texts are the caller's. */
typedef struct mb_training_row {
    const char *name, *identity, *config, *model, *recipe, *device, *build, *git;
    int64_t parameters, steps;
    uint64_t seed;
    int32_t threads;
} mb_training_row;

typedef struct mb_training_step_row {
    int64_t step, length, tokens, targets;
    double loss, ce, kl, causal; /* kl NAN: no teacher; causal NAN: no autoregressive loss */
    double accuracy, gradient_norm, lr, seconds;
} mb_training_step_row;

/* Creates the file where there is none. A file of another kind is MB_E_INPUT. The training of this identity is
 * found or made, and is running from now on. */
int mb_training_log_open(mb_training_log **log, const char *path, const mb_training_row *row, mb_error *err);
/* Steps after `step` are forgotten: a run that goes on from a checkpoint writes them again. */
int mb_training_log_cut(mb_training_log *log, int64_t step, mb_error *err);
int mb_training_log_step(mb_training_log *log, const mb_training_step_row *row, mb_error *err);
/* state: done, interrupted or failed; reason NULL where there is none. */
int mb_training_log_end(mb_training_log *log, const char *state, const char *reason, mb_error *err);
void mb_training_log_close(mb_training_log *log);

#endif
