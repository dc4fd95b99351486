/* setup.h - the parts of a run that run.c puts together, beside the passes. */
#ifndef MB_SETUP_H
#define MB_SETUP_H

#include "driver/arm.h"

/* Device, weights, session and one attender or worker an arm; after mb_run_inspect(). */
int mb_run_open(mb_run *run, mb_error *err);
/* The identities of this run in the store that is open: environment, model, samplers, configurations, the run. */
int mb_run_register(mb_run *run, const char *command, mb_error *err);
/* The row of one sampler; part of the former. */
int mb_run_store_sampler(mb_store *store, const mb_model_config *model, const mb_sampler *sampler, int64_t *id,
                         mb_error *err);
void mb_run_close(mb_run *run);

#endif
