/*
 * identity.h - finding what identity.c stored: a run by the name that a user gives it. Inside of results/.
 *
 * Everybody else uses results.h.
 */
#ifndef MB_RESULTS_IDENTITY_H
#define MB_RESULTS_IDENTITY_H

#include "results/store.h"

/* Row of a run by label, else by number; name NULL or "": the one started last. label (optional) is malloc'ed. */
int store_find_run(mb_store *store, const char *name, int64_t *id, char **label, mb_error *err);

#endif
