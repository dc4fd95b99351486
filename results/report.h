/*
 * report.h - inside of the report: what it is written with, and the tables of scores that report_scores.c draws.
 */
#ifndef MB_RESULTS_REPORT_H
#define MB_RESULTS_REPORT_H

#include "results/comparison.h"

typedef struct paper { /* what a report is written with */
    mb_store *store;
    int64_t run;
    mb_table_format format;
    int width;
    bool colour; /* the reader is a terminal */
    mb_text *out;
} paper;

/* A real in a cell; NAN: no value. */
void report_real(table *t, double value, const char *format);
void report_section(const paper *p, const char *title);
typedef double (*arm_value)(const arm *a);
/* Has any arm this number? */
bool report_any_value(const comparison *c, arm_value value);
double report_index_recall(const arm *a);
/* Rows are configurations, columns tasks, then what they cost; deltas: paired differences instead. */
void report_scores(const paper *p, const comparison *c, bool deltas);
/* Tasks that are in no mean, by name. */
void report_unused_tasks(const paper *p, const comparison *c);

#endif
