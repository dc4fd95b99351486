/*
 * run.h - a run from its config to its plots. setup.c opens everything in order (config -> model dimensions ->
 * device -> weights -> session -> methods -> store), the passes are in pass/, run.c drives them and finishes with
 * gates, table and plots.
 */
#ifndef MB_RUN_H
#define MB_RUN_H

#include "driver/arm.h"

/* The whole of `./harness --config ...`; returns the program's exit code (0, 1, 2, 3, 4 or 130). */
int mb_run_main(mb_run_config *config, const mb_run_flags *flags, const char *command);

#endif
