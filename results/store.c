/*
 * store.c - prepared statements, transactions, waiting for others, closing, and SQLite's errors in words.
 *
 * Every commit checks that the open file is still the one that its name leads to. SQLite writes on into a file
 * that was removed or replaced, and what it writes there is gone with the program.
 */
#include "results/store.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- errors ---- */

int store_error(mb_store *store, int rc, const char *doing, mb_error *err)
{
    const char *path = store->path;
    int primary = rc & 0xff;
    int number = store->db ? sqlite3_system_errno(store->db) : 0;
    switch (primary) {
    case SQLITE_FULL:
        return mb_fail(err, MB_E_SYSTEM,
                       "%s: the disk is full while %s: free some space and start the same command again, what is "
                       "stored stays",
                       path, doing);
    case SQLITE_IOERR:
        return mb_fail(err, MB_E_SYSTEM,
                       "%s: the disk refused while %s (%s): free some space or choose another place, and start "
                       "the same command again, what is stored stays",
                       path, doing, number ? strerror(number) : sqlite3_errstr(rc));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        if (store->gave_up)
            return mb_fail(err, MB_E_STOP, "%s: interrupted while another program held it", path);
        if (store->opened)
            return mb_fail(err, MB_E_SYSTEM,
                           "%s: another program holds it while %s: end that program and start the same command "
                           "again, what is stored stays",
                           path, doing);
        return mb_fail(
            err, MB_E_INPUT,
            "%s: another program is writing to it, or reading it: wait until it ends, or choose another file with "
            "--db",
            path);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return mb_fail(err, MB_E_INPUT, "%s: %s: move it away, or choose another file with --db", path,
                       primary == SQLITE_NOTADB ? "not an SQLite database" : "the database is damaged");
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return mb_fail(err, MB_E_INPUT, "%s: the file or its folder is read-only: choose another file with --db",
                       path);
    case SQLITE_CANTOPEN:
        return mb_fail(err, MB_E_INPUT, "%s: cannot open it (%s)", path,
                       number ? strerror(number) : "does the folder exist, and may it be written?");
    case SQLITE_NOMEM:
        return mb_fail(err, MB_E_SYSTEM, "%s: out of memory while %s", path, doing);
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
        return mb_fail(err, MB_E_BUG, "%s: a value broke a rule of the schema while %s: %s", path, doing,
                       sqlite3_errmsg(store->db));
    default:
        return mb_fail(err, MB_E_SYSTEM, "%s: %s failed: %s", path, doing,
                       store->db ? sqlite3_errmsg(store->db) : sqlite3_errstr(rc));
    }
}

int store_writable(mb_store *store, mb_error *err)
{
    if (store->mode != MB_STORE_READ)
        return MB_OK;
    return mb_fail(err, MB_E_BUG, "%s: was opened for reading and is being written to", store->path);
}

/* ---- statements ---- */

sqlite3_stmt *store_statement(mb_store *store, const char *sql, mb_error *err)
{
    for (size_t i = 0; i < store->statement_count; i++) {
        if (store->texts[i] == sql) {
            sqlite3_reset(store->statements[i]);
            sqlite3_clear_bindings(store->statements[i]);
            return store->statements[i];
        }
    }
    if (store->statement_count == STORE_STATEMENTS) {
        mb_fail(err, MB_E_BUG, "more than %d prepared statements", STORE_STATEMENTS);
        return NULL;
    }
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL);
    if (rc != SQLITE_OK) {
        store_error(store, rc, "preparing a statement", err);
        return NULL;
    }
    store->texts[store->statement_count] = sql;
    store->statements[store->statement_count++] = statement;
    return statement;
}

void store_bind(sqlite3_stmt *statement, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    /* A failed bind (out of memory) leaves NULL, which a NOT NULL rule or the caller's step then reports. */
    for (int i = 1; *format; format++, i++) {
        switch (*format) {
        case 't': {
            const char *text = va_arg(args, const char *);
            if (text)
                sqlite3_bind_text(statement, i, text, -1, SQLITE_STATIC);
            break;
        }
        case 'b': {
            const void *bytes = va_arg(args, const void *);
            size_t size = va_arg(args, size_t);
            if (bytes)
                sqlite3_bind_blob64(statement, i, bytes, size, SQLITE_STATIC);
            break;
        }
        case 'i':
            sqlite3_bind_int64(statement, i, va_arg(args, int64_t));
            break;
        case 'j':
            sqlite3_bind_int(statement, i, va_arg(args, int));
            break;
        case 'd': {
            double value = va_arg(args, double);
            if (!isnan(value))
                sqlite3_bind_double(statement, i, value);
            break;
        }
        case 'k': {
            int64_t value = va_arg(args, int64_t);
            if (value >= 0)
                sqlite3_bind_int64(statement, i, value);
            break;
        }
        }
    }
    va_end(args);
}

int store_step(mb_store *store, sqlite3_stmt *statement, const char *doing, mb_error *err)
{
    int rc;
    do
        rc = sqlite3_step(statement);
    while (rc == SQLITE_ROW);
    int result = rc == SQLITE_DONE ? MB_OK : store_error(store, rc, doing, err);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return result;
}

int store_step_integer(mb_store *store, sqlite3_stmt *statement, int64_t *value, bool *found, const char *doing,
                       mb_error *err)
{
    int rc = sqlite3_step(statement);
    *found = rc == SQLITE_ROW;
    if (*found)
        *value = sqlite3_column_int64(statement, 0);
    if (rc == SQLITE_ROW) /* finish, so that an INSERT ... RETURNING is complete */
        rc = sqlite3_step(statement);
    int result = rc == SQLITE_DONE || rc == SQLITE_ROW ? MB_OK : store_error(store, rc, doing, err);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return result;
}

int store_exec(mb_store *store, const char *sql, const char *doing, mb_error *err)
{
    int rc = sqlite3_exec(store->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? MB_OK : store_error(store, rc, doing, err);
}

int store_begin(mb_store *store, mb_error *err)
{
    int rc = store_writable(store, err);
    return rc != MB_OK ? rc : store_exec(store, "BEGIN IMMEDIATE", "starting to write", err);
}

/* ---- the name and the file ---- */

/* Does the name lead to another file than the open one, or to none? */
static bool has_moved(mb_store *store)
{
    struct stat held, named;
    int moved = 0;
    if (store->lock_fd < 0 || fstat(store->lock_fd, &held) != 0)
        return false;
    if (stat(store->file, &named) != 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    if (held.st_ino != named.st_ino || held.st_dev != named.st_dev)
        return true;
    return sqlite3_file_control(store->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) == SQLITE_OK && moved;
}

/* All rows of the open file, also those that no name leads to any more, as a file beside the name. */
static int save_beside(mb_store *store, mb_error *err)
{
    int rc = mb_folder_make_parent(store->file, err);
    char *sql = sqlite3_mprintf("VACUUM INTO '%q.saved-%d'", store->file, (int)getpid());
    if (rc == MB_OK)
        rc = sql ? store_exec(store, sql, "saving the rows", err) : mb_no_memory(err, "saving the rows");
    sqlite3_free(sql);
    /* The log lies under the name: a file that took the name must not get what is in it. */
    sqlite3_busy_timeout(store->db, 500);
    sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    return rc;
}

/* MB_OK while the name leads to the open file; else the rows are saved, once, and the sentence says where. */
static int check_name(mb_store *store, mb_error *err)
{
    mb_error reason = {0};
    if (!store->moved && !has_moved(store))
        return MB_OK;
    if (!store->moved && save_beside(store, &reason) != MB_OK)
        return mb_fail(
            err, MB_E_SYSTEM,
            "%s was removed, renamed or replaced while it was written to, and its rows could not be saved "
            "(%s)",
            store->path, reason.text);
    store->moved = true;
    return mb_fail(err, MB_E_SYSTEM,
                   "%s was removed, renamed or replaced while it was written to. What was stored so far is in "
                   "%s.saved-%d: give that file the name %s and start the same command again",
                   store->path, store->path, (int)getpid(), store->path);
}

int store_end(mb_store *store, int rc, mb_error *err)
{
    if (rc == MB_OK)
        rc = store_exec(store, "COMMIT", "writing", err);
    if (rc == MB_OK)
        return check_name(store, err);
    /* A full disk rolls back by itself; after any other failure this does. */
    if (!sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* ---- waiting ---- */

#define WAITS_A_SECOND 20
#define WAIT_SECONDS 10 /* where nobody is asked */

/* SQLite calls this while another connection holds the lock that we want; 0 gives up. */
static int on_busy(void *self, int count)
{
    mb_store *store = self;
    int seconds = count / WAITS_A_SECOND;
    if (count % WAITS_A_SECOND == 0 && store->wait && !store->wait(store->wait_self, seconds)) {
        store->gave_up = true;
        return 0;
    }
    if (!store->wait && seconds >= WAIT_SECONDS)
        return 0;
    usleep(1000000 / WAITS_A_SECOND);
    return 1;
}

void store_wait(mb_store *store)
{
    sqlite3_busy_handler(store->db, on_busy, store);
}

void mb_store_on_wait(mb_store *store, bool (*wait)(void *self, int seconds), void *self)
{
    store->wait = wait;
    store->wait_self = self;
}

/* ---- closing ---- */

/* The log's rows into the file. A reader that is still there keeps the log: not an error, the content is safe. */
static int put_log_away(mb_store *store, int rc, mb_error *err)
{
    sqlite3_busy_timeout(store->db, 10000);
    int code = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY && (code & 0xff) != SQLITE_LOCKED && rc == MB_OK)
        return store_error(store, code, "closing", err);
    return rc;
}

/* A file whose header says that it has a log cannot be opened by anybody in a folder that may not be written. With
 * a reader that is still there the header stays as it is, and the next one who writes says it anew. */
static void leave_log(mb_store *store)
{
    sqlite3_busy_timeout(store->db, 500);
    sqlite3_exec(store->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
}

int mb_store_close(mb_store *store, mb_error *err)
{
    int rc = MB_OK;
    if (!store)
        return MB_OK;
    store_absorb_end(store);
    for (size_t i = 0; i < store->statement_count; i++)
        sqlite3_finalize(store->statements[i]);
    if (store->db && store->mode == MB_STORE_WRITE && store->opened) {
        if (!store->moved)
            rc = check_name(store, err);
        rc = put_log_away(store, rc, err);
    }
    if (store->db && store->logs && !store->moved)
        leave_log(store);
    if (store->db && sqlite3_close(store->db) != SQLITE_OK && rc == MB_OK)
        rc = mb_fail(err, MB_E_BUG, "%s: closed while a statement was in use", store->path);
    store_unlock(store); /* after SQLite: closing any descriptor of the file drops the locks that it has on it */
    free(store->path);
    free(store->file);
    free(store);
    return rc;
}
