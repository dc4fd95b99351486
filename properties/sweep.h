/*
 * sweep.h - configurations of a method around a given one, made from its table of options: each word of a choice,
 * both values of a switch, both ends of a range, one option at a time. The budget k is left alone, because the
 * properties set it themselves. What a test of a method goes over when nobody has chosen settings for it.
 */
#ifndef MB_SWEEP_H
#define MB_SWEEP_H

#include "base/base.h"
#include "methods/method.h"

typedef struct mb_sweep_entry {
    char *label;   /* "" for the given configuration, else "rule=votes" */
    void *options; /* the method's struct; NULL where it has none */
} mb_sweep_entry;

typedef struct mb_sweep {
    mb_sweep_entry *entries; /* the given one first, then in the table's order; no two are equal */
    size_t count;
} mb_sweep;

/* options: the given configuration, borrowed. MB_E_SYSTEM: no memory. Free it in any case. */
int mb_sweep_make(mb_sweep *sweep, const mb_method *method, const void *options, mb_error *err);
void mb_sweep_free(mb_sweep *sweep);

#endif
