/*
 * report.c - the comparison of a run for people (terminal, Markdown, LaTeX, HTML) and programs (CSV, JSON lines).
 *
 * Short, it is one table and what a reader must know beside it; in full, all that the views hold. Scores are in
 * percent, differences to the reference are paired by item and carry a 95 % bootstrap interval.
 */
#include "results/report.h"
#include "results/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A titled table of a query, nothing when it has no rows. sql holds one %lld for the run. */
static int listing(const paper *p, const char *title, const char *sql, mb_error *err)
{
    mb_text body = {0};
    char *text = sqlite3_mprintf(sql, (sqlite3_int64)p->run);
    if (!text)
        return mb_no_memory(err, "the report");
    int rc = mb_table_query(p->store, text, p->format, p->width, &body, err);
    sqlite3_free(text);
    if (rc == MB_OK && body.data && strcmp(body.data, "(no rows)\n") != 0) {
        paper_section(p, title);
        mb_text_append(p->out, body.data, body.length);
    }
    mb_text_free(&body);
    return rc;
}

/* The two factors of what a user waits for, at the longest measured context and block. */
static const char end_to_end_sql[] =
    "SELECT config AS method, sampler, context, batch, forwards_factor, cost_factor, speedup AS product, "
    "request_speedup AS request, n FROM (SELECT *, max(context) OVER (PARTITION BY run_id) AS longest, "
    "max(steps) OVER (PARTITION BY run_id) AS most FROM v_end_to_end WHERE run_id = %lld) "
    "WHERE context = longest AND steps = most AND is_reference = 0 AND is_oracle = 0 "
    "ORDER BY model_id, sampler_id, batch, config_id";

/* Ends and mean of each grid; the places themselves are in a figure. */
static const char grid_sql[] =
    "SELECT config AS method, name, unit, better, aggregate, min(value) AS lowest, "
    "CASE aggregate WHEN 'sum' THEN sum(value) WHEN 'max' THEN max(value) "
    "ELSE sum(value * weight) / sum(weight) END AS value, max(value) AS highest, count(DISTINCT layer) AS layers, "
    "count(DISTINCT step) AS steps, max(n) AS n FROM v_counter_grid WHERE run_id = %lld AND pass = 'quality' "
    "GROUP BY model_id, sampler_id, config_id, name ORDER BY model_id, sampler_id, config_id, name";

static const char counters_sql[] =
    "SELECT config AS method, name, unit, better, aggregate, avg(value) AS value, sum(n) AS n FROM v_counters "
    "WHERE run_id = %lld AND pass = 'quality' GROUP BY config_id, name ORDER BY config_id, name";

static const char failures_sql[] =
    "SELECT status, what, pass, config AS method, task, count(*) AS n, reason FROM v_failures WHERE run_id = %lld "
    "GROUP BY status, what, pass, config, task, reason ORDER BY status, n DESC, config, task LIMIT 40";

typedef struct written { /* what a report is made of beside the views of its run */
    const char *label, *figures;
    const char *joint; /* the table over runs of one list, made before the views were frozen to this one */
    bool chosen;       /* somebody asked for this run, not for what the file holds */
} written;

/* Scores, differences, lengths and equal work of one model and sampler. */
static int whole_comparison(const paper *p, const comparison *c, mb_error *err)
{
    char title[256];
    snprintf(title, sizeof title, "scores in percent, sampler %s, model %s", c->sampler, c->model);
    paper_section(p, title);
    report_scores(p, c, false);
    report_unused_tasks(p, c);
    if (c->arm_count > 1 && c->arms[0].is_reference) {
        snprintf(title, sizeof title,
                 "paired difference to %s in points, \xc2\xb1 half of the 95 %% bootstrap interval, sampler %s",
                 c->arms[0].label, c->sampler);
        paper_section(p, title);
        report_scores(p, c, true);
    }
    int rc = report_contexts(p, c, err);
    return rc == MB_OK ? report_equal_work(p, c, err) : rc;
}

static void explain(const paper *p)
{
    paper_note(
        p,
        "+ and - after a score: better or worse than the reference at 5 %%, two-sided, paired by item; below 20 "
        "items that differ\nthe exact sign test decides, else the sign-flip test; Holm's correction over all "
        "scores of the table.\n"
        "recall: against the exact top k, layers and steps that ran dense left out.\n"
        "work: prefix tokens read to attend and to select, share of exact's. engaged: share of sparse layer "
        "calls.\nforwards /exact: denoising forwards of a block over the reference's, paired by item; its "
        "interval is in the CSV.");
}

static int speed(const paper *p, mb_error *err)
{
    int rc = report_times(p, err);
    if (rc == MB_OK)
        rc = listing(p,
                     "end to end: fewer or more forwards x cheaper forwards = speed-up (request: measured as one)",
                     end_to_end_sql, err);
    return rc == MB_OK ? report_baseline(p, err) : rc;
}

static int rest(const paper *p, mb_error *err)
{
    int rc = listing(p, "counters of methods", counters_sql, err);
    if (rc == MB_OK)
        rc = listing(p, "counters by layer and step: places in v_counter_grid", grid_sql, err);
    if (rc == MB_OK)
        rc = listing(p, "failed and skipped", failures_sql, err);
    if (rc == MB_OK && p->format != MB_TABLE_HTML) /* a page has them at its top */
        rc = report_gates(p, err);
    if (rc == MB_OK)
        rc = report_answers(p, err);
    return rc;
}

static int in_full(const paper *p, const written *w, const comparison *list, size_t count, mb_error *err)
{
    int rc = report_head(p, w->label, err);
    if (rc == MB_OK && p->format == MB_TABLE_HTML) { /* a page begins with what a screen has */
        mb_text_puts(p->out, w->joint);
        rc = report_short(p, list, count, err);
        if (rc == MB_OK)
            rc = report_gates(p, err);
        if (rc == MB_OK)
            rc = report_figures(p, w->label, w->figures, err);
    }
    if (p->format != MB_TABLE_HTML)
        mb_text_puts(p->out, w->joint);
    for (size_t i = 0; rc == MB_OK && i < count; i++)
        rc = whole_comparison(p, &list[i], err);
    if (rc == MB_OK && count)
        explain(p);
    if (rc == MB_OK)
        rc = speed(p, err);
    if (rc == MB_OK)
        rc = rest(p, err);
    if (rc == MB_OK)
        rc = report_files(p, w->label, err);
    return rc;
}

static int on_a_screen(const paper *p, const written *w, const comparison *list, size_t count, mb_error *err)
{
    int rc = report_head(p, w->label, err);
    if (*w->joint && !w->chosen) /* one table: of all runs of the list */
        mb_text_puts(p->out, w->joint);
    else if (rc == MB_OK)
        rc = report_short(p, list, count, err);
    if (rc == MB_OK)
        rc = report_baseline(p, err);
    if (rc == MB_OK)
        rc = report_gates(p, err);
    if (rc == MB_OK)
        rc = report_files(p, w->label, err);
    return rc;
}

static int write_report(const paper *p, const written *w, mb_error *err)
{
    comparison *list = NULL;
    size_t count = 0;
    int rc = comparison_load(p->store, p->run, &list, &count, err);
    if (rc == MB_OK && paper_for_programs(p->format))
        rc = report_for_programs(p, w->label, list, count);
    else if (rc == MB_OK)
        rc = p->full ? in_full(p, w, list, count, err) : on_a_screen(p, w, list, count, err);
    if (rc == MB_OK)
        paper_end(p);
    comparison_free(list, count);
    return rc;
}

int mb_report(mb_store *store, const char *run, const mb_report_options *options, mb_text *out, mb_error *err)
{
    mb_text joint = {0};
    char *label = NULL;
    paper p = paper_make(options->format, options->max_width, out);
    p.store = store;
    p.full = options->full;
    int rc = store_find_run(store, run, &p.run, &label, err);
    if (rc == MB_OK && !paper_for_programs(p.format)) {
        paper aside = p;
        aside.out = &joint;
        rc = report_joint(&aside, err);
    }
    if (rc == MB_OK)
        rc = store_freeze(store, p.run, err);
    if (rc == MB_OK)
        rc = store_thaw(store,
                        write_report(&p,
                                     &(written){.label = label,
                                                .figures = options->figures,
                                                .joint = joint.data ? joint.data : "",
                                                .chosen = run != NULL},
                                     err),
                        err);
    if (rc == MB_OK && (out->failed || joint.failed))
        rc = mb_no_memory(err, "the report");
    mb_text_free(&joint);
    free(label);
    return rc;
}
