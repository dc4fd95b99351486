/*
 * report_short.c - the report that fits a screen: one table with a configuration a row, all models and samplers in
 * it; the columns that tell methods apart and no other.
 */
#include "results/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 24, PER_SAMPLER = 5 }; /* rows that are shown; columns of a sampler at most */

static double mean_work(const arm *a)
{
    return a->all.work;
}
static double mean_forwards(const arm *a)
{
    return a->is_reference ? NAN : a->all.forwards_ratio.mean;
}
static double mass_recall(const arm *a)
{
    return a->all.mass_recall;
}

/* One arm's speed-up under its own sampler, at the longest measured context and smallest batch; NAN: none. */
static int speedup_of(const paper *p, const comparison *c, const arm *a, double *speedup, mb_error *err)
{
    sqlite3_stmt *s =
        report_query(p,
                     "SELECT speedup FROM v_pareto WHERE run_id = ?1 AND model_id = ?2 AND sampler_id "
                     "= ?3 AND config_id = ?4 AND speedup IS NOT NULL ORDER BY context DESC, batch "
                     "LIMIT 1",
                     err);
    int code;
    *speedup = NAN;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "iiii", p->run, c->model_id, c->sampler_id, a->config_id);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        *speedup = sqlite3_column_double(s, 0);
    return report_query_end(p, s, code, err);
}

typedef struct group { /* the columns of one sampler */
    int64_t sampler_id;
    const char *sampler;
    bool work, forwards, speed;
} group;

typedef struct plan {
    group *groups;
    size_t group_count;
    bool several_models, recall;
    bool timed; /* v_speedup has rows: asking every arm is worth it */
} plan;

static bool any_speed(const paper *p, mb_error *err)
{
    sqlite3_stmt *s = report_query(p, "SELECT count(*) FROM v_speedup WHERE run_id = ?1", err);
    bool any = s && sqlite3_step(s) == SQLITE_ROW && sqlite3_column_int64(s, 0) > 0;
    if (s)
        sqlite3_reset(s);
    return any;
}

static bool make_plan(const paper *p, const comparison *list, size_t count, plan *out, mb_error *err)
{
    *out = (plan){.groups = calloc(count + 1, sizeof *out->groups), .timed = any_speed(p, err)};
    for (size_t i = 0; out->groups && i < count; i++) {
        const comparison *c = &list[i];
        size_t g = 0;
        while (g < out->group_count && out->groups[g].sampler_id != c->sampler_id)
            g++;
        if (g == out->group_count)
            out->groups[out->group_count++] = (group){.sampler_id = c->sampler_id, .sampler = c->sampler};
        out->groups[g].work = out->groups[g].work || report_any_value(c, mean_work);
        out->groups[g].forwards = out->groups[g].forwards || report_any_value(c, mean_forwards);
        out->several_models = out->several_models || c->model_id != list[0].model_id;
        out->recall = out->recall || report_any_value(c, mass_recall);
    }
    return out->groups;
}

static const arm *find_arm(const comparison *c, int64_t config)
{
    for (size_t i = 0; i < c->arm_count; i++)
        if (c->arms[i].config_id == config)
            return &c->arms[i];
    return NULL;
}

static const comparison *find_comparison(const comparison *list, size_t count, int64_t model, int64_t sampler)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].model_id == model && list[i].sampler_id == sampler)
            return &list[i];
    return NULL;
}

static void name_columns(table *t, const plan *w)
{
    const char *names[4 + 64 * PER_SAMPLER];
    char heads[64][64];
    size_t n = 0;
    if (w->several_models)
        names[n++] = "model";
    names[n++] = "method";
    for (size_t g = 0; g < w->group_count && g < 64; g++) {
        if (w->group_count > 1)
            snprintf(heads[g], sizeof heads[g], "%.56s mean", w->groups[g].sampler);
        else
            snprintf(heads[g], sizeof heads[g], "mean");
        names[n++] = heads[g];
        names[n++] = "paired \xce\x94";
        if (w->groups[g].work)
            names[n++] = "work";
        if (w->groups[g].forwards)
            names[n++] = "forwards /exact";
        if (w->timed)
            names[n++] = "speed-up";
    }
    if (w->recall)
        names[n++] = "recall mass";
    names[n++] = "n";
    table_init(t, n, names);
}

static int put_group(const paper *p, table *t, const plan *w, const group *g, const comparison *c, const arm *a,
                     mb_error *err)
{
    double speedup = NAN;
    int rc = w->timed && c && a && !a->is_oracle ? speedup_of(p, c, a, &speedup, err) : MB_OK;
    report_real(t, a ? 100 * a->all.score : NAN, "%.1f");
    if (a)
        report_put_delta(t, a, &a->all);
    else
        table_put(t, NULL, true);
    if (g->work)
        report_real(t, a ? a->all.work : NAN, "%.2f");
    if (g->forwards)
        report_real(t, a ? mean_forwards(a) : NAN, "%.2f");
    if (w->timed)
        report_real(t, speedup, "%.2f");
    return rc;
}

/* One configuration of a model under all samplers. first: the comparison that it is listed by. */
static int put_row(const paper *p, table *t, const plan *w, const comparison *list, size_t count,
                   const comparison *first, const arm *own, mb_error *err)
{
    double recall = NAN;
    int rc = MB_OK;
    if (w->several_models)
        table_put(t, first->model, false);
    report_put_label(t, own);
    for (size_t g = 0; rc == MB_OK && g < w->group_count; g++) {
        const comparison *c = find_comparison(list, count, first->model_id, w->groups[g].sampler_id);
        const arm *a = c ? find_arm(c, own->config_id) : NULL;
        if (a && isnan(recall))
            recall = a->all.mass_recall;
        rc = put_group(p, t, w, &w->groups[g], c, a, err);
    }
    if (w->recall)
        report_real(t, recall, "%.3f");
    table_printf(t, true, "%lld", (long long)own->all.n);
    return rc;
}

/* Is the arm in a comparison of the same model before this one? */
static bool listed_before(const comparison *list, size_t at, int64_t config)
{
    for (size_t i = 0; i < at; i++)
        if (list[i].model_id == list[at].model_id && find_arm(&list[i], config))
            return true;
    return false;
}

int report_short(const paper *p, const comparison *list, size_t count, mb_error *err)
{
    plan w;
    table t = {0};
    size_t rows = 0, left = 0;
    int rc = MB_OK;
    if (count == 0)
        return report_times(p, err);
    if (!make_plan(p, list, count, &w, err))
        return mb_no_memory(err, "the report");
    name_columns(&t, &w);
    for (size_t i = 0; rc == MB_OK && i < count; i++)
        for (size_t a = 0; rc == MB_OK && a < list[i].arm_count; a++) {
            if (listed_before(list, i, list[i].arms[a].config_id))
                continue;
            if (rows == ROWS) {
                left++;
                continue;
            }
            rc = put_row(p, &t, &w, list, count, &list[i], &list[i].arms[a], err);
            rows++;
        }
    if (rc == MB_OK) {
        mb_text_puts(p->out, p->format == MB_TABLE_HTML ? "" : "\n");
        paper_table(p, &t, true);
        if (left)
            paper_note(p, "%zu more configurations: --full", left);
        report_unused_tasks(p, &list[0]);
        mb_text_puts(p->out, p->format == MB_TABLE_HTML ? "" : "\n");
    }
    table_free(&t);
    free(w.groups);
    return rc;
}
