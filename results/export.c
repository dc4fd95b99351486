/*
 * export.c - the store's samples in the layouts of others: the benchmark's pred/ folder, CSV, JSON lines,
 * Markdown.
 *
 * The pred line is {"pred", "answers", "all_classes", "length"} as the official scorer reads it; references were
 * stored as JSON and are copied as they are.
 */
#include "results/identity.h"
#include "results/store.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A folder or file name of a label: what a file system or a shell could stumble over becomes "_". */
void store_file_name(mb_text *out, const char *label)
{
    for (; *label; label++) {
        char c = *label;
        bool plain = isalnum((unsigned char)c) || (unsigned char)c >= 0x80 || strchr("._-=+", c);
        mb_text_append(out, plain ? &c : "_", 1);
    }
}

int store_path_once(mb_text *seen, const char *path, mb_error *err)
{
    char *line = mb_string_format("\n%s\n", path);
    bool known = line && seen->data && strstr(seen->data, line);
    if (line && !known)
        mb_text_puts(seen, line);
    free(line);
    if (known)
        return mb_fail(err, MB_E_INPUT,
                       "two labels become one file name, %s: export their runs apart with --run, or choose other "
                       "labels",
                       path);
    return line && !seen->failed ? MB_OK : mb_no_memory(err, "file names");
}

static const char *text_at(sqlite3_stmt *s, int column)
{
    return (const char *)sqlite3_column_text(s, column);
}

static void put_line(mb_text *out, sqlite3_stmt *s)
{
    const char *answers = text_at(s, 1), *classes = text_at(s, 2);
    mb_text_puts(out, "{\"pred\": \"");
    mb_text_json(out, text_at(s, 0));
    mb_text_printf(out, "\", \"answers\": %s, \"all_classes\": %s, \"length\": ", answers ? answers : "[]",
                   classes ? classes : "null");
    if (sqlite3_column_type(s, 3) == SQLITE_NULL)
        mb_text_puts(out, "null}\n");
    else
        mb_text_printf(out, "%lld}\n", (long long)sqlite3_column_int64(s, 3));
}

/* One file: all predictions of one cell, in the order of the benchmark's file (the order of storing). */
static int export_cell(mb_store *store, int64_t cell, const char *path, mb_error *err)
{
    mb_text lines = {0};
    int code;
    sqlite3_stmt *s = store_statement(store,
                                      "SELECT prediction, answers, classes, length FROM v_samples "
                                      "WHERE cell_id = ? AND prediction IS NOT NULL ORDER BY item_id",
                                      err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", cell);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        put_line(&lines, s);
    sqlite3_reset(s);
    int rc = code != SQLITE_DONE ? store_error(store, code, "exporting predictions", err)
             : lines.failed      ? mb_no_memory(err, "exporting %s", path)
                                 : mb_file_write(path, lines.data ? lines.data : "", lines.length, err);
    mb_text_free(&lines);
    return rc;
}

/* The run that a user names; *id -1 where none is named: all of them. */
static int chosen_run(mb_store *store, const char *run, int64_t *id, mb_error *err)
{
    *id = -1;
    return run ? store_find_run(store, run, id, NULL, err) : MB_OK;
}

/* folder/pred/<run> <model> <config> <sampler>/<task>.jsonl; the run only where several are exported. */
static char *pred_path(const char *folder, sqlite3_stmt *s, size_t *folder_length)
{
    mb_text path = {0};
    mb_text_printf(&path, "%s/pred/", folder);
    if (sqlite3_column_int(s, 6)) {
        store_file_name(&path, text_at(s, 5));
        mb_text_puts(&path, "-");
    }
    store_file_name(&path, text_at(s, 2));
    mb_text_puts(&path, "-");
    store_file_name(&path, text_at(s, 3));
    if (sqlite3_column_int(s, 7)) {
        mb_text_puts(&path, "-");
        store_file_name(&path, text_at(s, 4));
    }
    *folder_length = path.length;
    mb_text_puts(&path, "/");
    store_file_name(&path, text_at(s, 1));
    mb_text_puts(&path, ".jsonl");
    return mb_text_take(&path);
}

static int export_file(mb_store *store, int64_t cell, char *path, size_t folder_length, mb_error *err)
{
    path[folder_length] = '\0';
    int rc = mb_folder_make(path, err);
    path[folder_length] = '/';
    return rc == MB_OK ? export_cell(store, cell, path, err) : rc;
}

/* All cells; without `write` only their paths are looked at. */
static int export_cells(mb_store *store, int64_t run, const char *folder, bool write, mb_error *err)
{
    mb_text seen = {0};
    int code = SQLITE_DONE, rc = MB_OK;
    sqlite3_stmt *s = store_statement(
        store,
        "SELECT c.cell_id, c.task, c.model, c.config, c.sampler, c.run, ?1 IS NULL AND (SELECT count(*) FROM run) "
        "> 1, "
        "(SELECT count(DISTINCT x.sampler_id) FROM cell x WHERE x.run_id = c.run_id AND x.pass = 'quality') > 1 "
        "FROM v_cell c WHERE c.run_id = coalesce(?1, c.run_id) AND c.pass = 'quality' AND EXISTS (SELECT 1 FROM "
        "sample s WHERE s.cell_id = c.cell_id "
        "AND s.prediction IS NOT NULL) ORDER BY c.cell_id",
        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "k", run);
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        size_t length = 0;
        char *path = pred_path(folder, s, &length);
        rc = !path   ? mb_no_memory(err, "exporting into %s", folder)
             : write ? export_file(store, sqlite3_column_int64(s, 0), path, length, err)
                     : store_path_once(&seen, path, err);
        free(path);
    }
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(store, code, "exporting predictions", err);
    sqlite3_reset(s);
    mb_text_free(&seen);
    return rc;
}

int mb_export_pred(mb_store *store, const char *run, const char *folder, mb_error *err)
{
    int64_t id = -1;
    int rc = chosen_run(store, run, &id, err);
    if (rc == MB_OK)
        rc = export_cells(store, id, folder, false, err);
    return rc == MB_OK ? export_cells(store, id, folder, true, err) : rc;
}

int mb_export(mb_store *store, const char *run, mb_table_format format, mb_text *out, mb_error *err)
{
    int64_t id = -1;
    if (!(format == MB_TABLE_CSV || format == MB_TABLE_JSONL))
        return mb_report(store, run, &(mb_report_options){.format = format, .full = true}, out, err);
    int rc = chosen_run(store, run, &id, err);
    if (rc != MB_OK)
        return rc;
    char *sql = sqlite3_mprintf(
        "SELECT run, benchmark, task, item, bucket, model, method, config, k, sampler, pass, status, error, "
        "score, "
        "metric, prediction, answers, classes, length, context, depth, prompt_tokens, truncated, token_hash, "
        "new_tokens, stopped, blocks, denoise_forwards, commit_forwards, engaged, work, work_select, agree, "
        "compared, "
        "dense_calls, sparse_calls, prefill_us, decode_us, synthetic FROM v_samples "
        "WHERE %lld < 0 OR run_id = %lld ORDER BY run_id, cell_id, item_id",
        (sqlite3_int64)id, (sqlite3_int64)id);
    rc = sql ? mb_table_query(store, sql, format, 0, out, err) : mb_no_memory(err, "exporting samples");
    sqlite3_free(sql);
    return rc;
}
