/* open.h - the steps of opening that a run and its workers share, in their order. */
#ifndef MB_OPEN_H
#define MB_OPEN_H

#include "driver/arm.h"

/* What a config asks of a model; borrows from it. unloaded: no weight is read. */
mb_model_request mb_open_request(const mb_run_config *config, bool unloaded);
/* Model dimensions, samplers, arms, checks that need both; no device yet. */
int mb_run_inspect(mb_run *run, mb_error *err);
/* The device with memory for the plan, and the weights on it. */
int mb_run_open_model(mb_run *run, mb_error *err);
/* The session of the passes that need samples. */
int mb_run_open_session(mb_run *run, mb_error *err);

#endif
