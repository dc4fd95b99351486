/*
 * report_joint.c - runs of one config that differ in the model and the seed, in one table: what a config with
 * lists for the two makes. A row is a configuration, a model has its columns, numbers are means over the seeds
 * with the standard deviation between them. In full a second table has the tasks.
 */
#include "results/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 24, MODELS = 24, PER_MODEL = 4, HEAD = 96 }; /* rows on a screen; models and columns of one */

/* Runs that belong together: one name, and one text but for what a list replaces and what no result depends on. */
#define LIST_TEXT(run) "json_remove(" run ".config_json, '$.seed', '$.results', '$.plots', '$.threads', '$.model')"
#define SIBLINGS                                                                                                  \
    "(SELECT b.* FROM run a JOIN run b ON b.name = a.name AND " LIST_TEXT("b") " IS " LIST_TEXT(                  \
        "a") " "                                                                                                  \
             "WHERE a.id = ?1)"

typedef struct joint_cell { /* a configuration of a model over the seeds; its texts are its own */
    char *config, *sampler, *config_text;
    char head[HEAD]; /* the model */
    char type[16], path[HEAD];
    double score, score_sd, delta, delta_sd, work;
    int64_t seeds, n;
    bool is_reference;
} joint_cell;

typedef struct joint {
    joint_cell *cells;
    size_t count, capacity;
    const joint_cell *models[MODELS]; /* the first cell of each */
    size_t model_count;
    bool several_samplers;
} joint;

static double real_or_nan(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? NAN : sqlite3_column_double(s, column);
}

static void joint_free(joint *j)
{
    for (size_t i = 0; i < j->count; i++) {
        free(j->cells[i].config);
        free(j->cells[i].sampler);
        free(j->cells[i].config_text);
    }
    free(j->cells);
}

static int add_cell(joint *j, sqlite3_stmt *s, mb_error *err)
{
    if (j->count == j->capacity) {
        size_t more = j->capacity ? 2 * j->capacity : 64;
        joint_cell *grown = realloc(j->cells, more * sizeof *grown);
        if (!grown)
            return mb_no_memory(err, "the runs of a list");
        j->cells = grown;
        j->capacity = more;
    }
    joint_cell *c = &j->cells[j->count++];
    *c = (joint_cell){.config = mb_string_copy(report_text(s, 2)),
                      .sampler = mb_string_copy(report_text(s, 3)),
                      .config_text = mb_string_copy(report_text(s, 4)),
                      .seeds = sqlite3_column_int64(s, 6),
                      .score = 100 * sqlite3_column_double(s, 7),
                      .score_sd = 100 * sqrt(real_or_nan(s, 8)),
                      .delta = 100 * real_or_nan(s, 9),
                      .delta_sd = 100 * sqrt(real_or_nan(s, 10)),
                      .work = real_or_nan(s, 11),
                      .n = sqlite3_column_int64(s, 12),
                      .is_reference = sqlite3_column_int(s, 13) != 0};
    snprintf(c->head, sizeof c->head, "%.60s", report_text(s, 0));
    snprintf(c->type, sizeof c->type, "%.15s", report_text(s, 1));
    snprintf(c->path, sizeof c->path, "%.90s", report_text(s, 5));
    return c->config && c->sampler && c->config_text ? MB_OK : mb_no_memory(err, "the runs of a list");
}

static int read_cells(const paper *p, joint *j, mb_error *err)
{
    sqlite3_stmt *s = report_query(
        p,
        "SELECT q.model, q.type, q.config, q.sampler, q.config_text, "
        "coalesce(json_extract(q.config_text, '$.model.path'), json_extract(q.config_text, '$.model')), "
        "q.seeds, q.score, q.variance, q.delta, q.delta_variance, q.work, q.n, q.is_reference "
        "FROM v_seeds q, (SELECT name, " LIST_TEXT(
            "run") " AS text FROM run WHERE id = ?1) r "
                   "WHERE q.name = r.name AND q.list_text IS r.text "
                   "ORDER BY q.first_run_id, q.sampler, q.is_reference DESC, q.first_config_id",
        err);
    int code = SQLITE_DONE, rc = MB_OK;
    if (!s)
        return MB_E_SYSTEM;
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW)
        rc = add_cell(j, s, err);
    if (rc == MB_OK)
        return report_query_end(p, s, code, err);
    sqlite3_reset(s);
    return rc;
}

/* ---- who the models are ---- */

static bool same_model(const joint_cell *a, const joint_cell *b)
{
    return strcmp(a->config_text, b->config_text) == 0;
}

/* What must stand behind a model's name, or in its place, so that no other model of the table is called so:
 * nothing, its number type, or where it came from. */
static const char *what_tells_apart(const joint *j, const joint_cell *m)
{
    const char *more = "";
    for (size_t i = 0; i < j->model_count; i++) {
        const joint_cell *other = j->models[i];
        if (other == m || strcmp(m->head, other->head) != 0)
            continue;
        if (strcmp(m->type, other->type) == 0)
            return m->path;
        more = m->type;
    }
    return more;
}

static void tell_apart(joint *j)
{
    char heads[MODELS][HEAD];
    for (size_t m = 0; m < j->model_count; m++) {
        const joint_cell *model = j->models[m];
        const char *more = what_tells_apart(j, model);
        snprintf(heads[m], HEAD, "%.60s%s%.15s", model->head, *more ? " " : "", more);
        if (more == model->path)
            snprintf(heads[m], HEAD, "%.90s", more);
    }
    for (size_t i = 0; i < j->count; i++)
        for (size_t m = 0; m < j->model_count; m++)
            if (same_model(j->models[m], &j->cells[i]))
                memcpy(j->cells[i].head, heads[m], HEAD);
}

static void find_models(joint *j)
{
    for (size_t i = 0; i < j->count; i++) {
        size_t m = 0;
        while (m < j->model_count && !same_model(j->models[m], &j->cells[i]))
            m++;
        if (m == j->model_count && m < MODELS)
            j->models[j->model_count++] = &j->cells[i];
        j->several_samplers = j->several_samplers || strcmp(j->cells[0].sampler, j->cells[i].sampler) != 0;
    }
    tell_apart(j);
}

static bool same_row(const joint_cell *a, const joint_cell *b)
{
    return strcmp(a->config, b->config) == 0 && strcmp(a->sampler, b->sampler) == 0;
}

static const joint_cell *find_cell(const joint *j, const joint_cell *row, const joint_cell *model)
{
    for (size_t i = 0; i < j->count; i++)
        if (same_row(&j->cells[i], row) && same_model(&j->cells[i], model))
            return &j->cells[i];
    return NULL;
}

/* ---- the table ---- */

/* "52.1 ±1.3"; without a deviation the mean alone. */
static void put_mean(table *t, double mean, double sd, const char *format)
{
    char text[48];
    if (isnan(mean)) {
        table_put(t, NULL, true);
        return;
    }
    int n = snprintf(text, sizeof text, format, mean);
    if (!isnan(sd) && n > 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, " \xc2\xb1%.1f", sd);
    table_put(t, text, true);
}

static bool seeds_differ(const joint *j)
{
    for (size_t i = 1; i < j->count; i++)
        if (j->cells[i].seeds != j->cells[0].seeds)
            return true;
    return false;
}

static void put_row(table *t, const joint *j, const joint_cell *row, bool seeds)
{
    table_put(t, row->config, false);
    if (j->several_samplers)
        table_put(t, row->sampler, false);
    for (size_t m = 0; m < j->model_count; m++) {
        const joint_cell *c = find_cell(j, row, j->models[m]);
        put_mean(t, c ? c->score : NAN, c ? c->score_sd : NAN, "%.1f");
        put_mean(t, c && !c->is_reference ? c->delta : NAN, c ? c->delta_sd : NAN, "%+.1f");
        report_real(t, c ? c->work : NAN, "%.2f");
        if (seeds && c)
            table_printf(t, true, "%lld", (long long)c->seeds);
        else if (seeds)
            table_put(t, NULL, true);
    }
}

static void joint_table(const paper *p, const joint *j)
{
    const char *names[2 + MODELS * PER_MODEL];
    char heads[MODELS][HEAD + 8];
    bool seeds = seeds_differ(j);
    size_t columns = 0, rows = 0, left = 0;
    table t;
    names[columns++] = "method";
    if (j->several_samplers)
        names[columns++] = "sampler";
    for (size_t m = 0; m < j->model_count; m++) {
        snprintf(heads[m], sizeof heads[m], "%s mean", j->models[m]->head);
        names[columns++] = heads[m];
        names[columns++] = "paired \xce\x94";
        names[columns++] = "work";
        if (seeds)
            names[columns++] = "seeds";
    }
    table_init(&t, columns, names);
    for (size_t i = 0; i < j->count; i++) {
        size_t first = 0;
        while (!same_row(&j->cells[first], &j->cells[i]))
            first++;
        if (first < i)
            continue;
        if (!p->full && rows == ROWS) {
            left++;
            continue;
        }
        put_row(&t, j, &j->cells[i], seeds);
        rows++;
    }
    paper_table(p, &t, true);
    if (left)
        paper_note(p, "%zu more configurations: --full", left);
    table_free(&t);
}

/* ---- tasks ---- */

static int task_names(const paper *p, table *names, mb_error *err)
{
    sqlite3_stmt *s = report_query(p,
                                   "SELECT a.task FROM v_accuracy a JOIN " SIBLINGS " r ON r.id = a.run_id "
                                   "WHERE a.n > 0 GROUP BY a.task ORDER BY min(a.dataset_id), a.task",
                                   err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        table_put(names, report_text(s, 0), false);
    return report_query_end(p, s, code, err);
}

static int put_tasks(const paper *p, const joint *j, const joint_cell *c, const table *tasks, table *t,
                     mb_error *err)
{
    char label[2 * HEAD];
    snprintf(label, sizeof label, "%s, %.60s%s%.20s", c->head, c->config, j->several_samplers ? ", " : "",
             j->several_samplers ? c->sampler : "");
    table_put(t, label, false);
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < tasks->cell_count; i++) {
        sqlite3_stmt *s = report_query(
            p,
            "SELECT avg(a.score), CASE WHEN count(1) > 1 THEN max(0.0, sum(a.score * a.score) - count(1) * "
            "avg(a.score) * avg(a.score)) / (count(1) - 1) END FROM v_accuracy a JOIN " SIBLINGS " r "
            "ON r.id = a.run_id WHERE a.n > 0 AND a.task = ?2 AND a.config = ?3 AND a.sampler = ?4 AND "
            "json_remove(r.config_json, '$.seed', '$.results', '$.plots', '$.threads') IS ?5",
            err);
        int code;
        if (!s)
            return MB_E_SYSTEM;
        store_bind(s, "itttt", p->run, tasks->cells[i].text, c->config, c->sampler, c->config_text);
        while ((code = sqlite3_step(s)) == SQLITE_ROW)
            put_mean(t, 100 * real_or_nan(s, 0), 100 * sqrt(real_or_nan(s, 1)), "%.1f");
        rc = report_query_end(p, s, code, err);
    }
    return rc;
}

static int task_table(const paper *p, const joint *j, mb_error *err)
{
    static const char *const one[] = {"task"};
    table tasks, t;
    table_init(&tasks, 1, one);
    int rc = task_names(p, &tasks, err);
    const char **names = calloc(tasks.cell_count + 1, sizeof *names);
    if (rc == MB_OK && (!names || tasks.failed))
        rc = mb_no_memory(err, "the report");
    if (rc == MB_OK && names && tasks.cell_count > 1) {
        names[0] = "model, method";
        for (size_t i = 0; i < tasks.cell_count; i++)
            names[i + 1] = tasks.cells[i].text;
        table_init(&t, tasks.cell_count + 1, names);
        for (size_t i = 0; rc == MB_OK && i < j->count; i++)
            rc = put_tasks(p, j, &j->cells[i], &tasks, &t, err);
        if (rc == MB_OK) {
            paper_section(p, "the same runs by task");
            paper_table(p, &t, true);
        }
        table_free(&t);
    }
    free(names);
    table_free(&tasks);
    return rc;
}

/* ---- what stands around it ---- */

/* The red gates of the other runs: no number of theirs stands without them. */
static int other_gates(const paper *p, mb_error *err)
{
    sqlite3_stmt *s = report_query(p,
                                   "SELECT g.run, g.name, g.detail FROM v_gates g JOIN " SIBLINGS " r "
                                   "ON r.id = g.run_id WHERE g.verdict = 'fail' AND g.run_id <> ?1 "
                                   "ORDER BY g.run_id, g.name",
                                   err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        paper_line(p, PAPER_BAD, "FAIL  run %s: %s: %s", report_text(s, 0), report_text(s, 1), report_text(s, 2));
    return report_query_end(p, s, code, err);
}

static int put_joint(const paper *p, int64_t runs, mb_error *err)
{
    joint j = {0};
    char title[160];
    int rc = read_cells(p, &j, err);
    if (rc == MB_OK && j.count) {
        find_models(&j);
        snprintf(title, sizeof title,
                 "scores in percent of %lld runs of this config: %zu model%s, mean over the seeds \xc2\xb1 "
                 "standard deviation between them",
                 (long long)runs, j.model_count, j.model_count > 1 ? "s" : "");
        paper_section(p, title);
        joint_table(p, &j);
        if (!seeds_differ(&j))
            paper_note(p, "seeds behind every number: %lld; one run by itself: --run NAME, names: list runs",
                       (long long)j.cells[0].seeds);
        if (p->full)
            rc = task_table(p, &j, err);
        if (rc == MB_OK)
            rc = other_gates(p, err);
        mb_text_puts(p->out, p->format == MB_TABLE_HTML ? "" : "\n");
    }
    joint_free(&j);
    return rc;
}

int report_joint(const paper *p, mb_error *err)
{
    sqlite3_stmt *s = report_query(p, "SELECT count(*) FROM " SIBLINGS, err);
    if (!s)
        return MB_E_SYSTEM;
    int64_t runs = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    if (runs < 2) /* only then is it worth asking all of them */
        return MB_OK;
    int rc = store_freeze(p->store, -1, err);
    return store_thaw(p->store, rc == MB_OK ? put_joint(p, runs, err) : rc, err);
}
