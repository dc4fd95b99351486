/*
 * report.h - inside of the report: its parts, one file each, and what they share.
 */
#ifndef MB_RESULTS_REPORT_H
#define MB_RESULTS_REPORT_H

#include "results/comparison.h"
#include "results/paper.h"

/* Text of a column, "" for NULL. */
const char *report_text(sqlite3_stmt *s, int column);
/* A statement with the run bound as ?1; NULL: err is filled. */
sqlite3_stmt *report_query(const paper *p, const char *sql, mb_error *err);
int report_query_end(const paper *p, sqlite3_stmt *s, int code, mb_error *err);

/* ---- report_head.c ---- */
/* Begins the paper: run, machine and models in a few lines. */
int report_head(const paper *p, const char *label, mb_error *err);
/* In full one line a gate; else what failed, and how many of each. */
int report_gates(const paper *p, mb_error *err);
/* What the exact attention of this run's device is against public kernels: a speed-up is over it. */
int report_baseline(const paper *p, mb_error *err);
/* Rows of earlier starts, and in short where everything else is. */
int report_files(const paper *p, const char *label, mb_error *err);

/* ---- report_scores.c ---- */
/* A real in a cell; NAN: no value. */
void report_real(table *t, double value, const char *format);
typedef double (*arm_value)(const arm *a);
/* Has any arm this number? */
bool report_any_value(const comparison *c, arm_value value);
double report_index_recall(const arm *a);
/* "mage k=64", with a word where the arm is lossless and not the reference. */
void report_put_label(table *t, const arm *a);
/* "-4.2 ±3.1" points and the mark of a difference that its test calls real. */
void report_put_delta(table *t, const arm *a, const arm_score *s);
/* Rows are configurations, columns tasks, then what they cost; deltas: paired differences instead. */
void report_scores(const paper *p, const comparison *c, bool deltas);
/* Tasks that are in no mean, by name. */
void report_unused_tasks(const paper *p, const comparison *c);

/* ---- report_short.c ---- */
/* All comparisons in one table, a configuration a row: what fits a screen. */
int report_short(const paper *p, const comparison *list, size_t count, mb_error *err);

/* ---- report_work.c, report_times.c, report_spread.c, report_joint.c, report_answers.c, report_figures.c,
 * report_programs.c ----
 */
int report_equal_work(const paper *p, const comparison *c, mb_error *err);
int report_times(const paper *p, mb_error *err);
/* Scores by context length. */
int report_contexts(const paper *p, const comparison *c, mb_error *err);
/* The runs of one config with lists of models and seeds in one table: a column a model, mean and standard
 * deviation over the seeds; nothing where the run has no others beside it. Read before the store is frozen to one
 * run. */
int report_joint(const paper *p, mb_error *err);
/* Items to open, with references and answers; HTML only. */
int report_answers(const paper *p, mb_error *err);
/* The drawings that mb_plot_all() left in folder (NULL: none); HTML only. */
int report_figures(const paper *p, const char *label, const char *folder, mb_error *err);
int report_for_programs(const paper *p, const char *label, const comparison *list, size_t count);

#endif
