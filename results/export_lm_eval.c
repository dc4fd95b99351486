/*
 * export_lm_eval.c - runs in the layout of lm-evaluation-harness 0.4: a folder a model, in it results_<date>.json
 * and samples_<task>_<date>.jsonl, as its --output_path with --log_samples leaves them (lm_eval/result_schema.py).
 *
 * There a model is what is compared; here it is a model with a configuration and a sampler, so each of those has a
 * folder of its own. Metrics of a task are its score and its work. Every number is written with a point: the
 * tables print a whole number in another way.
 */
#include "results/identity.h"
#include "results/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One folder: a configuration of a model under a sampler in a run. Texts belong to the statement that walks. */
typedef struct group {
    int64_t run, model, config, sampler;
    const char *model_name, *label, *sampler_text, *git, *device, *date;
    int64_t seed;
    const char *folder;
} group;

/* The parts of results_<date>.json that have an entry a task. */
typedef struct sections {
    mb_text results, configs, versions, shots, higher, counts;
} sections;

/* Sum and sum of squares of what has a value. */
typedef struct moments {
    double sum, squares;
    int64_t n;
} moments;

static const char *text_at(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return text ? text : "";
}

static void put_string(mb_text *out, const char *text)
{
    mb_text_puts(out, "\"");
    mb_text_json(out, text);
    mb_text_puts(out, "\"");
}

/* A number that JSON readers take for a real one. */
static void put_real(mb_text *out, double value)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%.17g", value);
    mb_text_printf(out, "%s%s", digits, strpbrk(digits, ".en") ? "" : ".0");
}

static void add(moments *m, sqlite3_stmt *s, int column)
{
    if (sqlite3_column_type(s, column) == SQLITE_NULL)
        return;
    double value = sqlite3_column_double(s, column);
    m->sum += value;
    m->squares += value * value;
    m->n++;
}

/* "score,none": 0.5, "score_stderr,none": 0.1 - the error of the mean of a sample, "N/A" for a single value. */
static void put_mean(mb_text *out, const char *name, const moments *m)
{
    double n = (double)m->n, mean = m->sum / n;
    mb_text_puts(out, ", \"");
    mb_text_json(out, name);
    mb_text_puts(out, ",none\": ");
    put_real(out, mean);
    mb_text_puts(out, ", \"");
    mb_text_json(out, name);
    mb_text_puts(out, "_stderr,none\": ");
    if (m->n > 1)
        put_real(out, sqrt(fmax(0, m->squares - n * mean * mean) / (n - 1) / n));
    else
        mb_text_puts(out, "\"N/A\"");
}

enum { /* columns of samples_sql */
       S_TASK,
       S_BENCHMARK,
       S_METRIC,
       S_ITEM,
       S_ANSWERS,
       S_TARGET,
       S_PREDICTION,
       S_SCORE,
       S_WORK,
       S_TOKEN_HASH,
       S_PROMPT,
       S_CONTEXT,
       S_DEPTH,
       S_LENGTH
};
static const char samples_sql[] =
    "SELECT s.task, s.benchmark, s.metric, s.item, coalesce(s.answers, '[]'), "
    "CASE json_array_length(s.answers) WHEN 1 THEN json_extract(s.answers, '$[0]') ELSE s.answers END, "
    "s.prediction, s.score, s.work, s.token_hash, r.prompt, s.context, s.depth, s.length "
    "FROM v_samples s LEFT JOIN v_record r ON r.sample_id = s.sample_id "
    "WHERE s.run_id = ? AND s.model_id = ? AND s.config_id = ? AND s.sampler_id = ? AND s.pass = 'quality' "
    "AND s.score IS NOT NULL ORDER BY s.task, s.dataset_id, s.item_id";

static void put_optional(mb_text *out, sqlite3_stmt *s, const char *name, int column)
{
    if (sqlite3_column_type(s, column) != SQLITE_NULL)
        mb_text_printf(out, ", \"%s\": %s", name, text_at(s, column));
}

static void put_hash(mb_text *out, const char *name, const char *first, const char *second)
{
    char hex[MB_HASH_CAP];
    mb_hash *hash = mb_hash_new();
    if (!hash) {
        out->failed = true;
        return;
    }
    mb_hash_add(hash, first, strlen(first) + 1);
    mb_hash_add(hash, second, strlen(second));
    mb_hash_end(hash, hex);
    mb_text_printf(out, ", \"%s\": \"%s\"", name, hex);
}

/* One line of samples_<task>: SampleResult of their schema. A prompt that was not recorded is "". */
static void put_sample(mb_text *out, sqlite3_stmt *s, int64_t number)
{
    const char *metric = text_at(s, S_METRIC);
    mb_text_printf(out, "{\"doc_id\": %lld, \"doc\": {\"item\": ", (long long)number);
    put_string(out, text_at(s, S_ITEM));
    mb_text_printf(out, ", \"answers\": %s", text_at(s, S_ANSWERS));
    put_optional(out, s, "context", S_CONTEXT);
    put_optional(out, s, "depth", S_DEPTH);
    put_optional(out, s, "length", S_LENGTH);
    mb_text_puts(out, "}, \"target\": ");
    put_string(out, text_at(s, S_TARGET));
    mb_text_puts(out, ", \"arguments\": {\"gen_args_0\": {\"arg_0\": ");
    put_string(out, text_at(s, S_PROMPT));
    mb_text_puts(out, ", \"arg_1\": {}}}, \"resps\": [[");
    put_string(out, text_at(s, S_PREDICTION));
    mb_text_puts(out, "]], \"filtered_resps\": [");
    put_string(out, text_at(s, S_PREDICTION));
    mb_text_puts(out, "], \"filter\": \"none\", \"metrics\": [");
    put_string(out, metric);
    mb_text_puts(out, "], ");
    put_string(out, metric);
    mb_text_puts(out, ": ");
    put_real(out, sqlite3_column_double(s, S_SCORE));
    put_hash(out, "doc_hash", text_at(s, S_TASK), text_at(s, S_ITEM));
    mb_text_printf(out, ", \"prompt_hash\": \"%s\"", text_at(s, S_TOKEN_HASH));
    put_hash(out, "target_hash", "", text_at(s, S_TARGET));
    mb_text_puts(out, "}\n");
}

/* Begins the entry of a task in a section: comma, name, colon. */
static void entry(mb_text *out, const char *task)
{
    mb_text_puts(out, out->length ? ", " : "");
    put_string(out, task);
    mb_text_puts(out, ": ");
}

static void put_task(sections *all, const group *g, const char *task, const char *benchmark, const char *metric,
                     const moments *score, const moments *work)
{
    entry(&all->results, task);
    mb_text_puts(&all->results, "{\"name\": ");
    put_string(&all->results, task);
    mb_text_puts(&all->results, ", \"alias\": ");
    put_string(&all->results, task);
    mb_text_printf(&all->results, ", \"sample_len\": %lld", (long long)score->n);
    put_mean(&all->results, metric, score);
    if (work->n)
        put_mean(&all->results, "work", work);
    mb_text_puts(&all->results, "}");

    entry(&all->configs, task);
    mb_text_puts(&all->configs, "{\"task\": ");
    put_string(&all->configs, task);
    mb_text_puts(&all->configs, ", \"dataset_path\": ");
    put_string(&all->configs, benchmark);
    mb_text_puts(&all->configs, ", \"output_type\": \"generate_until\", \"num_fewshot\": 0, \"repeats\": 1, "
                                "\"metric_list\": [{\"metric\": ");
    put_string(&all->configs, metric);
    mb_text_puts(&all->configs, ", \"aggregation\": \"mean\", \"higher_is_better\": true}]}");

    entry(&all->versions, task);
    put_string(&all->versions, g->git); /* prompts and metrics are the program's: its commit is their version */
    entry(&all->shots, task);
    mb_text_puts(&all->shots, "0");
    entry(&all->higher, task);
    mb_text_puts(&all->higher, "{");
    put_string(&all->higher, metric);
    mb_text_puts(&all->higher, ": true, \"work\": false}");
    entry(&all->counts, task);
    mb_text_printf(&all->counts, "{\"original\": %lld, \"effective\": %lld}", (long long)score->n,
                   (long long)score->n);
}

static int write_file(const group *g, const char *kind, const char *task, const char *end, mb_text *text,
                      mb_error *err)
{
    mb_text path = {0};
    mb_text_printf(&path, "%s/%s_", g->folder, kind);
    if (task) {
        store_file_name(&path, task);
        mb_text_puts(&path, "_");
    }
    mb_text_printf(&path, "%s.%s", g->date, end);
    int rc = path.failed || text->failed
                 ? mb_no_memory(err, "exporting into %s", g->folder)
                 : mb_file_write(path.data, text->data ? text->data : "", text->length, err);
    mb_text_free(&path);
    mb_text_clear(text);
    return rc;
}

/* Walks the samples of a group by task: writes the lines of each, and collects its entries. */
static int put_tasks(mb_store *store, const group *g, sections *all, mb_error *err)
{
    mb_text lines = {0}, task = {0}, benchmark = {0}, metric = {0};
    moments score = {0}, work = {0};
    int code, rc = MB_OK;
    sqlite3_stmt *s = store_statement(store, samples_sql, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "iiii", g->run, g->model, g->config, g->sampler);
    do {
        code = sqlite3_step(s);
        bool other = code != SQLITE_ROW || !task.data || strcmp(task.data, text_at(s, S_TASK)) != 0;
        if (other && score.n) {
            put_task(all, g, task.data, benchmark.data, metric.data, &score, &work);
            rc = write_file(g, "samples", task.data, "jsonl", &lines, err);
        }
        if (code != SQLITE_ROW || rc != MB_OK)
            break;
        if (other) {
            score = work = (moments){0};
            mb_text_clear(&task);
            mb_text_clear(&benchmark);
            mb_text_clear(&metric);
            mb_text_puts(&task, text_at(s, S_TASK));
            mb_text_puts(&benchmark, text_at(s, S_BENCHMARK));
            mb_text_puts(&metric, text_at(s, S_METRIC));
        }
        if (task.failed || benchmark.failed || metric.failed)
            rc = mb_no_memory(err, "exporting into %s", g->folder);
        put_sample(&lines, s, score.n);
        add(&score, s, S_SCORE);
        add(&work, s, S_WORK);
    } while (rc == MB_OK);
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(store, code, "exporting results", err);
    sqlite3_reset(s);
    mb_text_free(&lines);
    mb_text_free(&task);
    mb_text_free(&benchmark);
    mb_text_free(&metric);
    return rc;
}

static void put_section(mb_text *out, const char *name, const mb_text *section)
{
    mb_text_printf(out, ", \"%s\": {%s}", name, section->data ? section->data : "");
    out->failed = out->failed || section->failed;
}

static int write_results(const group *g, const sections *all, double seconds, mb_error *err)
{
    mb_text out = {0}, name = {0};
    mb_text_printf(&name, "%s, %s, %s", g->model_name, g->label, g->sampler_text);
    mb_text_printf(&out, "{\"results\": {%s}, \"group_subtasks\": {}", all->results.data ? all->results.data : "");
    put_section(&out, "configs", &all->configs);
    put_section(&out, "versions", &all->versions);
    put_section(&out, "n-shot", &all->shots);
    put_section(&out, "higher_is_better", &all->higher);
    put_section(&out, "n-samples", &all->counts);
    mb_text_puts(&out, ", \"config\": {\"model\": \"maskbench\", \"model_args\": {\"pretrained\": ");
    put_string(&out, g->model_name);
    mb_text_puts(&out, ", \"method\": ");
    put_string(&out, g->label);
    mb_text_puts(&out, ", \"sampler\": ");
    put_string(&out, g->sampler_text);
    mb_text_puts(&out, "}, \"batch_size\": \"1\", \"device\": ");
    put_string(&out, g->device);
    mb_text_printf(&out, ", \"limit\": null, \"bootstrap_iters\": 0, \"gen_kwargs\": null, \"random_seed\": %lld}",
                   (long long)g->seed);
    mb_text_puts(&out, ", \"git_hash\": ");
    put_string(&out, g->git);
    mb_text_puts(&out, ", \"model_source\": \"maskbench\", \"model_name\": ");
    put_string(&out, name.data ? name.data : "");
    mb_text_puts(&out, ", \"model_name_sanitized\": ");
    put_string(&out, strrchr(g->folder, '/') + 1);
    mb_text_printf(&out, ", \"total_evaluation_time_seconds\": \"%.3f\"}\n", seconds);
    out.failed = out.failed || name.failed || all->results.failed;
    int rc = write_file(g, "results", NULL, "json", &out, err);
    mb_text_free(&out);
    mb_text_free(&name);
    return rc;
}

static int export_group(mb_store *store, const group *g, double seconds, mb_error *err)
{
    sections all = {0};
    int rc = mb_folder_make(g->folder, err);
    if (rc == MB_OK)
        rc = put_tasks(store, g, &all, err);
    if (rc == MB_OK)
        rc = write_results(g, &all, seconds, err);
    mb_text *const texts[] = {&all.results, &all.configs, &all.versions, &all.shots, &all.higher, &all.counts};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        mb_text_free(texts[i]);
    return rc;
}

/* folder/<model>__<config>[__<sampler>], with the run in front where several are exported. */
static char *folder_of(const char *folder, sqlite3_stmt *s, int run_column)
{
    mb_text path = {0};
    mb_text_printf(&path, "%s/", folder);
    if (sqlite3_column_int(s, run_column)) {
        store_file_name(&path, text_at(s, run_column + 2));
        mb_text_puts(&path, "__");
    }
    store_file_name(&path, text_at(s, 4));
    mb_text_puts(&path, "__");
    store_file_name(&path, text_at(s, 5));
    if (sqlite3_column_int(s, run_column + 1)) {
        mb_text_puts(&path, "__");
        store_file_name(&path, text_at(s, 6));
    }
    return path.failed ? NULL : mb_text_take(&path);
}

/* All groups; without `write` only their folders are looked at. */
static int export_groups(mb_store *store, int64_t id, const char *folder, bool write, mb_error *err)
{
    mb_text seen = {0};
    int code = SQLITE_DONE, rc = MB_OK;
    sqlite3_stmt *s = store_statement(
        store,
        "SELECT c.run_id, c.model_id, c.config_id, c.sampler_id, c.model, c.config, c.sampler, c.method, "
        "coalesce(max(c.build_git), ''), max(r.device), replace(substr(max(r.started_at), 1, 19), ':', '-'), "
        "max(r.seed), coalesce(max(r.wall_us), 0) / 1e6, "
        "?1 IS NULL AND (SELECT count(*) FROM v_runs) > 1, "
        "(SELECT count(DISTINCT x.sampler_id) FROM v_cell x WHERE x.run_id = c.run_id AND x.pass = 'quality') > "
        "1, "
        "c.run FROM v_cell c JOIN v_runs r ON r.run_id = c.run_id "
        "WHERE c.run_id = coalesce(?1, c.run_id) AND c.pass = 'quality' AND EXISTS (SELECT 1 FROM v_samples v "
        "WHERE v.cell_id = c.cell_id AND v.score IS NOT NULL) "
        "GROUP BY c.run_id, c.run, c.model_id, c.model, c.config_id, c.config, c.sampler_id, c.sampler, c.method "
        "ORDER BY c.run_id, c.model_id, c.config_id, c.sampler_id",
        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "k", id);
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        char *path = folder_of(folder, s, 13);
        group g = {.run = sqlite3_column_int64(s, 0),
                   .model = sqlite3_column_int64(s, 1),
                   .config = sqlite3_column_int64(s, 2),
                   .sampler = sqlite3_column_int64(s, 3),
                   .model_name = text_at(s, 4),
                   .label = text_at(s, 5),
                   .sampler_text = text_at(s, 6),
                   .git = text_at(s, 8),
                   .device = text_at(s, 9),
                   .date = text_at(s, 10),
                   .seed = sqlite3_column_int64(s, 11),
                   .folder = path};
        rc = !path   ? mb_no_memory(err, "exporting into %s", folder)
             : write ? export_group(store, &g, sqlite3_column_double(s, 12), err)
                     : store_path_once(&seen, path, err);
        free(path);
    }
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(store, code, "exporting results", err);
    sqlite3_reset(s);
    mb_text_free(&seen);
    return rc;
}

int mb_export_lm_eval(mb_store *store, const char *run, const char *folder, mb_error *err)
{
    int64_t id = -1;
    int rc = run ? store_find_run(store, run, &id, NULL, err) : MB_OK;
    if (rc == MB_OK)
        rc = export_groups(store, id, folder, false, err);
    return rc == MB_OK ? export_groups(store, id, folder, true, err) : rc;
}
