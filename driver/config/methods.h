/* methods.h - the two lists of a config that other rooms define: methods and tasks. */
#ifndef MB_CONFIG_METHODS_H
#define MB_CONFIG_METHODS_H

#include "driver/config/config.h"

/* Expands every list of option values to the product of configurations, in the order of the file. */
int mb_config_read_methods(mb_run_config *config, mb_error *err);
/* Expands task groups and attaches each task's own keys. */
int mb_config_read_tasks(mb_run_config *config, mb_error *err);

#endif
