/* dry_run.h - what --dry-run shows. */
#ifndef MB_DRY_RUN_H
#define MB_DRY_RUN_H

#include "driver/arm.h"

/* Cells, samples, tokens, memory, and what is stored already; of a run that is open, and registered if it has a
 * store. */
int mb_run_print_plan(mb_run *run, mb_error *err);

#endif
