/*
 * comparison.c - reads a comparison from the views: v_accuracy, v_task_used, v_paired_item, v_recall_config,
 * v_curve and v_latency, and adds the intervals that SQL cannot compute.
 */
#include "results/comparison.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const arm_score no_score = {.score = NAN,
                                   .delta = {NAN, NAN, NAN},
                                   .p = NAN,
                                   .work = NAN,
                                   .work_select = NAN,
                                   .engaged = NAN,
                                   .forwards = NAN,
                                   .forwards_ratio = {NAN, NAN, NAN},
                                   .index_recall = NAN,
                                   .mass_recall = NAN};

static int no_memory(mb_error *err)
{
    return mb_no_memory(err, "the comparison of methods");
}

static double column_real(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? NAN : sqlite3_column_double(s, column);
}

/* A statement with run, model and sampler bound as ?1, ?2, ?3. */
static sqlite3_stmt *query(mb_store *store, const comparison *c, const char *sql, mb_error *err)
{
    sqlite3_stmt *s = store_statement(store, sql, err);
    if (s)
        store_bind(s, "iii", c->run_id, c->model_id, c->sampler_id);
    return s;
}

static int query_end(mb_store *store, sqlite3_stmt *s, int code, mb_error *err)
{
    int rc = code == SQLITE_DONE ? MB_OK : store_error(store, code, "comparing", err);
    sqlite3_reset(s);
    return rc;
}

static arm *find_arm(const comparison *c, int64_t config)
{
    for (size_t i = 0; i < c->arm_count; i++)
        if (c->arms[i].config_id == config)
            return &c->arms[i];
    return NULL;
}

static int find_task(const comparison *c, int64_t dataset)
{
    for (size_t t = 0; t < c->task_count; t++)
        if (c->datasets[t] == dataset)
            return (int)t;
    return -1;
}

/* ---- the grid: tasks x configurations ---- */

static int load_tasks(mb_store *store, comparison *c, mb_error *err)
{
    sqlite3_stmt *s =
        query(store, c,
              "SELECT DISTINCT a.dataset_id, a.task, coalesce(t.used, 0) FROM v_accuracy a LEFT JOIN "
              "v_task_used t ON t.run_id = a.run_id AND t.model_id = a.model_id AND t.dataset_id = "
              "a.dataset_id WHERE a.run_id = ? AND a.model_id = ? AND a.sampler_id = ? AND "
              "a.dataset_id IS NOT NULL ORDER BY 1",
              err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        char **tasks = realloc(c->tasks, (c->task_count + 1) * sizeof *tasks);
        c->tasks = tasks ? tasks : c->tasks;
        int64_t *datasets = realloc(c->datasets, (c->task_count + 1) * sizeof *datasets);
        c->datasets = datasets ? datasets : c->datasets;
        bool *used = realloc(c->used, (c->task_count + 1) * sizeof *used);
        c->used = used ? used : c->used;
        char *name = mb_string_copy((const char *)sqlite3_column_text(s, 1));
        if (!tasks || !datasets || !used || !name) {
            free(name);
            sqlite3_reset(s);
            return no_memory(err);
        }
        tasks[c->task_count] = name;
        used[c->task_count] = sqlite3_column_int(s, 2) != 0;
        datasets[c->task_count++] = sqlite3_column_int64(s, 0);
    }
    return query_end(store, s, code, err);
}

static int add_arm(comparison *c, sqlite3_stmt *s, mb_error *err)
{
    arm *arms = realloc(c->arms, (c->arm_count + 1) * sizeof *arms);
    if (!arms)
        return no_memory(err);
    c->arms = arms;
    arm *a = &arms[c->arm_count++];
    *a = (arm){.config_id = sqlite3_column_int64(s, 0), .first_us = NAN, .later_us = NAN, .all = no_score};
    a->label = mb_string_copy((const char *)sqlite3_column_text(s, 1));
    a->method = mb_string_copy((const char *)sqlite3_column_text(s, 2));
    a->k = sqlite3_column_type(s, 3) == SQLITE_NULL ? -1 : sqlite3_column_int64(s, 3);
    a->is_reference = sqlite3_column_int(s, 4);
    a->is_lossless = sqlite3_column_int(s, 5);
    a->is_oracle = sqlite3_column_int(s, 6);
    a->tasks = calloc(c->task_count + 1, sizeof *a->tasks);
    if (!a->label || !a->method || !a->tasks)
        return no_memory(err);
    for (size_t t = 0; t < c->task_count; t++)
        a->tasks[t] = no_score;
    return MB_OK;
}

static int load_scores(mb_store *store, comparison *c, mb_error *err)
{
    sqlite3_stmt *s = query(
        store, c,
        "SELECT config_id, config, method, k, is_reference, is_lossless, is_oracle, "
        "dataset_id, score, n, work, engaged, forwards_per_block, work_select FROM v_accuracy WHERE run_id = ? "
        "AND model_id = ? AND sampler_id = ? AND dataset_id IS NOT NULL "
        "ORDER BY is_reference DESC, config_id, dataset_id",
        err);
    int code, rc;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t config = sqlite3_column_int64(s, 0);
        if (!find_arm(c, config) && (rc = add_arm(c, s, err)) != MB_OK) {
            sqlite3_reset(s);
            return rc;
        }
        int t = find_task(c, sqlite3_column_int64(s, 7));
        if (t < 0)
            continue;
        arm_score *score = &find_arm(c, config)->tasks[t];
        score->score = column_real(s, 8);
        score->n = sqlite3_column_int64(s, 9);
        score->work = column_real(s, 10);
        score->engaged = column_real(s, 11);
        score->forwards = column_real(s, 12);
        score->work_select = column_real(s, 13);
    }
    return query_end(store, s, code, err);
}

static int load_curves(mb_store *store, comparison *c, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(store, "SELECT config_id, curve FROM v_curve WHERE run_id = ? AND model_id = ?", err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ii", c->run_id, c->model_id);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        arm *a = find_arm(c, sqlite3_column_int64(s, 0));
        if (a && !(a->curve = mb_string_copy((const char *)sqlite3_column_text(s, 1)))) {
            sqlite3_reset(s);
            return no_memory(err);
        }
    }
    return query_end(store, s, code, err);
}

/* Mean of one number over the used tasks; NAN where a used task lacks it: an incomplete mean compares apples with
 * pears. measured: tasks that lack it are left out, because an arm that runs dense on one task has no recall
 * there. */
static double mean_of_tasks(const comparison *c, const arm *a, double (*value)(const arm_score *), bool measured)
{
    double sum = 0;
    size_t n = 0;
    for (size_t t = 0; t < c->task_count; t++) {
        if (!c->used[t] || (measured && isnan(value(&a->tasks[t]))))
            continue;
        sum += value(&a->tasks[t]);
        n++;
    }
    return n ? sum / (double)n : NAN;
}

static double score_of(const arm_score *s)
{
    return s->score;
}
static double work_of(const arm_score *s)
{
    return s->work;
}
static double select_of(const arm_score *s)
{
    return s->work_select;
}
static double engaged_of(const arm_score *s)
{
    return s->engaged;
}
static double forwards_of(const arm_score *s)
{
    return s->forwards;
}

static void add_totals(comparison *c)
{
    for (size_t i = 0; i < c->arm_count; i++) {
        arm *a = &c->arms[i];
        a->all.score = mean_of_tasks(c, a, score_of, false);
        a->all.work = mean_of_tasks(c, a, work_of, false);
        a->all.work_select = mean_of_tasks(c, a, select_of, false);
        a->all.engaged = mean_of_tasks(c, a, engaged_of, false);
        a->all.forwards = mean_of_tasks(c, a, forwards_of, false);
        for (size_t t = 0; t < c->task_count; t++)
            a->all.n += c->used[t] ? a->tasks[t].n : 0;
    }
}

/* ---- paired differences ---- */

typedef struct pairs { /* items of one arm that have a pair, by task */
    double *values;    /* [CHANNELS][capacity]: difference, forwards per block of both sides */
    int32_t *groups;   /* task index, ascending */
    size_t n, capacity;
} pairs;
enum { DIFFERENCE = 0, FORWARDS = 1, REFERENCE_FORWARDS = 2, CHANNELS = 3 };

static double *channel(const pairs *p, int which)
{
    return p->values + (size_t)which * p->capacity;
}

static bool pairs_grow(pairs *p)
{
    size_t capacity = p->capacity ? 2 * p->capacity : 256;
    double *values = malloc(CHANNELS * capacity * sizeof *values);
    int32_t *groups = realloc(p->groups, capacity * sizeof *groups);
    p->groups = groups ? groups : p->groups;
    if (!values || !groups) {
        free(values);
        return false;
    }
    for (int k = 0; k < CHANNELS && p->n; k++)
        memcpy(values + (size_t)k * capacity, channel(p, k), p->n * sizeof *values);
    free(p->values);
    p->values = values;
    p->capacity = capacity;
    return true;
}

static void fill_pairs(arm_score *s, const pairs *p, size_t from, size_t n)
{
    s->delta = paired_interval(channel(p, DIFFERENCE) + from, p->groups + from, n);
    s->p = paired_p(channel(p, DIFFERENCE) + from, p->groups + from, n);
    s->forwards_ratio =
        paired_ratio(channel(p, FORWARDS) + from, channel(p, REFERENCE_FORWARDS) + from, p->groups + from, n);
}

/* Intervals of one arm: by task, then over the used tasks, whose items move to the front. */
static void arm_intervals(const comparison *c, arm *a, pairs *p)
{
    size_t kept = 0;
    for (size_t i = 0, n; i < p->n; i += n) {
        for (n = 1; i + n < p->n && p->groups[i + n] == p->groups[i];)
            n++;
        fill_pairs(&a->tasks[p->groups[i]], p, i, n);
        if (!c->used[p->groups[i]])
            continue;
        for (int k = 0; k < CHANNELS; k++)
            memmove(channel(p, k) + kept, channel(p, k) + i, n * sizeof *p->values);
        memmove(p->groups + kept, p->groups + i, n * sizeof *p->groups);
        kept += n;
    }
    if (kept)
        fill_pairs(&a->all, p, 0, kept);
}

/* Two tables are read: the means (one test an arm) and the tasks (one an arm and task). */
static bool adjust_for_many(comparison *c)
{
    size_t cells = c->arm_count * c->task_count;
    double *p = malloc((cells + c->arm_count + 1) * sizeof *p);
    if (!p)
        return false;
    for (size_t i = 0; i < c->arm_count; i++)
        p[i] = c->arms[i].all.p;
    holm_adjust(p, c->arm_count);
    for (size_t i = 0; i < c->arm_count; i++)
        c->arms[i].all.p = p[i];
    for (size_t i = 0; i < cells; i++)
        p[i] = c->arms[i / c->task_count].tasks[i % c->task_count].p;
    holm_adjust(p, cells);
    for (size_t i = 0; i < cells; i++)
        c->arms[i / c->task_count].tasks[i % c->task_count].p = p[i];
    free(p);
    return true;
}

static bool pairs_add(pairs *p, sqlite3_stmt *s, int32_t task)
{
    if (p->n == p->capacity && !pairs_grow(p))
        return false;
    channel(p, DIFFERENCE)[p->n] = sqlite3_column_double(s, 2);
    /* per block, so that a request that ends in another block weighs like one that does not */
    double blocks = sqlite3_column_double(s, 4), others = sqlite3_column_double(s, 6);
    channel(p, FORWARDS)[p->n] = blocks > 0 ? sqlite3_column_double(s, 3) / blocks : 0;
    channel(p, REFERENCE_FORWARDS)[p->n] = others > 0 ? sqlite3_column_double(s, 5) / others : 0;
    p->groups[p->n++] = task;
    return true;
}

static int load_pairs(mb_store *store, comparison *c, mb_error *err)
{
    sqlite3_stmt *s = query(store, c,
                            "SELECT config_id, dataset_id, difference, denoise_forwards, blocks, "
                            "reference_forwards, reference_blocks FROM v_paired_item WHERE run_id = ? "
                            "AND model_id = ? AND sampler_id = ? AND is_reference = 0 "
                            "ORDER BY config_id, dataset_id, item",
                            err);
    pairs p = {0};
    int64_t config = 0;
    int code, rc = MB_OK;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        arm *before = find_arm(c, config);
        if (sqlite3_column_int64(s, 0) != config && p.n) {
            if (before)
                arm_intervals(c, before, &p);
            p.n = 0;
        }
        config = sqlite3_column_int64(s, 0);
        int t = find_task(c, sqlite3_column_int64(s, 1));
        if (t >= 0 && !pairs_add(&p, s, t)) {
            sqlite3_reset(s);
            rc = no_memory(err);
            goto out;
        }
    }
    if (p.n && find_arm(c, config))
        arm_intervals(c, find_arm(c, config), &p);
    rc = query_end(store, s, code, err);
    if (rc == MB_OK && !adjust_for_many(c))
        rc = no_memory(err);
out:
    free(p.values);
    free(p.groups);
    return rc;
}

/* ---- recall and latency ---- */

static double index_of(const arm_score *s)
{
    return s->index_recall;
}
static double mass_of(const arm_score *s)
{
    return s->mass_recall;
}

static int load_recall(mb_store *store, comparison *c, mb_error *err)
{
    sqlite3_stmt *s = query(store, c,
                            "SELECT config_id, dataset_id, index_recall, mass_recall FROM "
                            "v_recall_config WHERE run_id = ? AND model_id = ? AND sampler_id = ? AND "
                            "pass = 'recall' ORDER BY config_id",
                            err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        arm *a = find_arm(c, sqlite3_column_int64(s, 0));
        int t = find_task(c, sqlite3_column_int64(s, 1));
        if (!a || t < 0)
            continue;
        a->tasks[t].index_recall = sqlite3_column_double(s, 2);
        a->tasks[t].mass_recall = sqlite3_column_double(s, 3);
    }
    for (size_t i = 0; i < c->arm_count; i++) {
        c->arms[i].all.index_recall = mean_of_tasks(c, &c->arms[i], index_of, true);
        c->arms[i].all.mass_recall = mean_of_tasks(c, &c->arms[i], mass_of, true);
    }
    return query_end(store, s, code, err);
}

static int load_latency(mb_store *store, comparison *c, mb_error *err)
{
    /* The last row of a configuration stays: its longest context, largest batch. */
    sqlite3_stmt *s =
        query(store, c,
              "SELECT config_id, phase, median_us, context, batch FROM v_latency WHERE "
              "run_id = ? AND model_id = ? AND sampler_id = ? AND phase IN ('first_step', 'later_step') "
              "ORDER BY context, batch, steps",
              err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        arm *a = find_arm(c, sqlite3_column_int64(s, 0));
        if (!a)
            continue;
        bool first = strcmp((const char *)sqlite3_column_text(s, 1), "first_step") == 0;
        *(first ? &a->first_us : &a->later_us) = sqlite3_column_double(s, 2);
        a->context = sqlite3_column_int64(s, 3);
        a->batch = sqlite3_column_int64(s, 4);
    }
    return query_end(store, s, code, err);
}

/* ---- all of it ---- */

static int load_one(mb_store *store, comparison *c, mb_error *err)
{
    int rc = load_tasks(store, c, err);
    if (rc == MB_OK)
        rc = load_scores(store, c, err);
    if (rc == MB_OK)
        rc = load_curves(store, c, err);
    if (rc == MB_OK)
        add_totals(c);
    if (rc == MB_OK)
        rc = load_pairs(store, c, err);
    if (rc == MB_OK)
        rc = load_recall(store, c, err);
    if (rc == MB_OK)
        rc = load_latency(store, c, err);
    return rc;
}

int comparison_load(mb_store *store, int64_t run_id, comparison **list, size_t *count, mb_error *err)
{
    *list = NULL;
    *count = 0;
    sqlite3_stmt *s = store_statement(store,
                                      "SELECT DISTINCT model_id, sampler_id, model, sampler FROM v_accuracy "
                                      "WHERE run_id = ? AND n > 0 ORDER BY 1, 2",
                                      err);
    int code, rc = MB_OK;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run_id);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        comparison *grown = realloc(*list, (*count + 1) * sizeof *grown);
        if (grown) {
            *list = grown;
            grown[*count] = (comparison){.run_id = run_id,
                                         .model_id = sqlite3_column_int64(s, 0),
                                         .sampler_id = sqlite3_column_int64(s, 1),
                                         .model = mb_string_copy((const char *)sqlite3_column_text(s, 2)),
                                         .sampler = mb_string_copy((const char *)sqlite3_column_text(s, 3))};
            (*count)++;
        }
        if (!grown || !grown[*count - 1].model || !grown[*count - 1].sampler) {
            rc = no_memory(err);
            break;
        }
    }
    int ended = query_end(store, s, rc == MB_OK ? code : SQLITE_DONE, err);
    rc = rc == MB_OK ? ended : rc;
    for (size_t i = 0; rc == MB_OK && i < *count; i++)
        rc = load_one(store, &(*list)[i], err);
    if (rc != MB_OK) {
        comparison_free(*list, *count);
        *list = NULL;
        *count = 0;
    }
    return rc;
}

void comparison_free(comparison *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        comparison *c = &list[i];
        for (size_t t = 0; t < c->task_count; t++)
            free(c->tasks[t]);
        for (size_t a = 0; a < c->arm_count; a++) {
            free(c->arms[a].label);
            free(c->arms[a].method);
            free(c->arms[a].curve);
            free(c->arms[a].tasks);
        }
        free(c->tasks);
        free(c->datasets);
        free(c->used);
        free(c->arms);
        free(c->model);
        free(c->sampler);
    }
    free(list);
}
