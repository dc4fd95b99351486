/*
 * training.c - writing the file of a training. Every step is a transaction: a kill loses at most the step in
 * flight, and a step that comes after the last checkpoint is written again when the training goes on.
 */
#include "results/training.h"

#include <math.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define APPLICATION 0x4d42544c /* "MBTL" */
#define VERSION 2
#define BUSY_MS 10000

struct mb_training_log {
    sqlite3 *db;
    char *path;
    int64_t id;
};

static int failed(const mb_training_log *log, mb_error *err)
{
    return mb_fail(err, MB_E_SYSTEM, "%s: %s", log->path, sqlite3_errmsg(log->db));
}

static int run(const mb_training_log *log, const char *sql, mb_error *err)
{
    return sqlite3_exec(log->db, sql, NULL, NULL, NULL) == SQLITE_OK ? MB_OK : failed(log, err);
}

static int integer(const mb_training_log *log, const char *sql, int64_t *value, mb_error *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(log->db, sql, -1, &statement, NULL) == SQLITE_OK &&
                     sqlite3_step(statement) == SQLITE_ROW
                 ? MB_OK
                 : failed(log, err);
    if (rc == MB_OK)
        *value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return rc;
}

/* An empty file gets the tables; another program's, or a store of runs, is refused. */
static int lay_out(const mb_training_log *log, mb_error *err)
{
    int64_t application = 0, version = 0, tables = 0;
    const char *schema = mb_embedded_find("results/training.sql", NULL);
    int rc = integer(log, "PRAGMA application_id", &application, err);
    if (rc != MB_OK)
        return mb_fail(err, MB_E_INPUT, "%s is no file of a training: %s", log->path, sqlite3_errmsg(log->db));
    if ((rc = integer(log, "PRAGMA user_version", &version, err)) != MB_OK ||
        (rc = integer(log, "SELECT count(*) FROM sqlite_master", &tables, err)) != MB_OK)
        return rc;
    if (tables > 0 && (application != APPLICATION || version != VERSION))
        return mb_fail(err, MB_E_INPUT,
                       "%s is no file of a training (version %d); name another one with --set results=FILE",
                       log->path, VERSION);
    if (tables > 0)
        return MB_OK;
    char *text =
        mb_string_format("BEGIN IMMEDIATE; PRAGMA application_id = %d; PRAGMA user_version = %d; %s COMMIT;",
                         APPLICATION, VERSION, schema ? schema : "");
    rc = text && schema ? run(log, text, err) : mb_fail(err, MB_E_BUG, "results/training.sql was not compiled in");
    free(text);
    return rc;
}

/* Values of one statement, by letters: t text (NULL as NULL), i int64_t, r double (NAN as NULL). */
static int execute(const mb_training_log *log, mb_error *err, const char *sql, const char *kinds, ...)
{
    sqlite3_stmt *statement = NULL;
    va_list args;
    if (sqlite3_prepare_v2(log->db, sql, -1, &statement, NULL) != SQLITE_OK)
        return failed(log, err);
    va_start(args, kinds);
    for (int i = 0; kinds[i]; i++) {
        if (kinds[i] == 't') {
            const char *text = va_arg(args, const char *);
            sqlite3_bind_text(statement, i + 1, text, -1, SQLITE_TRANSIENT);
        } else if (kinds[i] == 'i') {
            sqlite3_bind_int64(statement, i + 1, va_arg(args, int64_t));
        } else {
            const double value = va_arg(args, double);
            if (!isnan(value))
                sqlite3_bind_double(statement, i + 1, value);
        }
    }
    va_end(args);
    const int code = sqlite3_step(statement);
    const int rc = code == SQLITE_DONE || code == SQLITE_ROW ? MB_OK : failed(log, err);
    sqlite3_finalize(statement);
    return rc;
}

static int add_training(mb_training_log *log, const mb_training_row *row, mb_error *err)
{
    static const char sql[] =
        "INSERT INTO training (name, identity, config, model, recipe, parameters, steps, seed, device, threads, "
        "build,"
        " git, started_at, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
        " strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), 'running') ON CONFLICT (identity) DO UPDATE SET"
        " config = excluded.config, threads = excluded.threads, build = excluded.build, git = excluded.git,"
        " state = 'running', ended_at = NULL, reason = NULL";
    int rc = execute(log, err, sql, "tttttiiititt", row->name, row->identity, row->config, row->model, row->recipe,
                     row->parameters, row->steps, (int64_t)row->seed, row->device, (int64_t)row->threads,
                     row->build, row->git);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v2(log->db, "SELECT training_id FROM training WHERE identity = ?1", -1, &statement,
                           NULL) != SQLITE_OK)
        return failed(log, err);
    sqlite3_bind_text(statement, 1, row->identity, -1, SQLITE_STATIC);
    rc = sqlite3_step(statement) == SQLITE_ROW ? MB_OK : failed(log, err);
    log->id = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return rc;
}

int mb_training_log_open(mb_training_log **out, const char *path, const mb_training_row *row, mb_error *err)
{
    mb_training_log *log = calloc(1, sizeof *log);
    *out = NULL;
    if (!log || !(log->path = mb_string_copy(path))) {
        free(log);
        return mb_no_memory(err, "opening %s", path);
    }
    int rc = mb_folder_make_parent(path, err);
    if (rc == MB_OK &&
        sqlite3_open_v2(path, &log->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
        rc = failed(log, err);
    if (rc == MB_OK) {
        sqlite3_busy_timeout(log->db, BUSY_MS);
        rc = lay_out(log, err);
    }
    if (rc == MB_OK)
        rc = run(log, "PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", err);
    if (rc == MB_OK)
        rc = add_training(log, row, err);
    if (rc == MB_OK)
        *out = log;
    else
        mb_training_log_close(log);
    return rc;
}

int mb_training_log_cut(mb_training_log *log, int64_t step, mb_error *err)
{
    return execute(log, err, "DELETE FROM training_step WHERE training_id = ?1 AND step > ?2", "ii", log->id,
                   step);
}

int mb_training_log_step(mb_training_log *log, const mb_training_step_row *row, mb_error *err)
{
    return execute(
        log, err,
        "INSERT OR REPLACE INTO training_step (training_id, step, length, tokens, targets, loss, ce, kl,"
        " causal, accuracy, gradient_norm, lr, seconds)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        "iiiiirrrrrrrr", log->id, row->step, row->length, row->tokens, row->targets, row->loss, row->ce, row->kl,
        row->causal, row->accuracy, row->gradient_norm, row->lr, row->seconds);
}

int mb_training_log_end(mb_training_log *log, const char *state, const char *reason, mb_error *err)
{
    return execute(log, err,
                   "UPDATE training SET state = ?2, reason = ?3, ended_at = strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
                   " WHERE training_id = ?1",
                   "itt", log->id, state, reason);
}

void mb_training_log_close(mb_training_log *log)
{
    if (!log)
        return;
    if (log->db)
        sqlite3_close(log->db);
    free(log->path);
    free(log);
}
