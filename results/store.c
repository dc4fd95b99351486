/*
 * store.c - opening and closing the store, prepared statements, transactions, and SQLite's errors in words.
 *
 * Opening for writing does, in this order: the folder, the lock file (one program writes), the SQLite file, is it
 * ours and whole, WAL, BEGIN IMMEDIATE (nobody else writes, the folder and the disk allow it), schema and views.
 * Invariant: after a failed open nothing of an existing file has changed.
 */
#include "results/store.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A store up to this size is checked for damage at every start; a larger one when a page is read. */
#define CHECK_BYTES (64ll << 20)

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
        return mb_fail(
            err, MB_E_INPUT,
            "%s: another program is writing to it: wait until it ends, or choose another file with --db", path);
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

int store_end(mb_store *store, int rc, mb_error *err)
{
    if (rc == MB_OK)
        rc = store_exec(store, "COMMIT", "writing", err);
    /* A full disk rolls back by itself; after any other failure this does. */
    if (rc != MB_OK && !sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* ---- the lock file ---- */

/* flock() on PATH-lock: released by the kernel when the program dies. The file is removed at the end, so after
 * locking we check that the name still leads to the file that we locked. */
static int lock_take(mb_store *store, mb_error *err)
{
    store->lock_path = mb_string_format("%s-lock", store->path);
    if (!store->lock_path)
        return mb_no_memory(err, "opening %s", store->path);
    for (int attempt = 0; attempt < 100; attempt++) {
        struct stat held, named;
        int fd = open(store->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0)
            return mb_fail(err, errno == ENOSPC || errno == EDQUOT ? MB_E_SYSTEM : MB_E_INPUT,
                           "%s: cannot write in its folder (%s): choose another file with --db", store->path,
                           strerror(errno));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int number = errno;
            close(fd);
            if (number == EINTR)
                continue;
            if (number != EWOULDBLOCK)
                return mb_fail(err, MB_E_INPUT, "%s: cannot lock %s (%s): choose another file with --db",
                               store->path, store->lock_path, strerror(number));
            return store_error(store, SQLITE_BUSY, "opening", err);
        }
        if (fstat(fd, &held) == 0 && stat(store->lock_path, &named) == 0 && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev) {
            store->lock_fd = fd;
            return MB_OK;
        }
        close(fd);
    }
    return store_error(store, SQLITE_BUSY, "opening", err);
}

static void lock_release(mb_store *store)
{
    if (store->lock_fd >= 0) {
        unlink(store->lock_path);
        close(store->lock_fd);
    }
    free(store->lock_path);
}

/* ---- open ---- */

/* Value of an integer PRAGMA or SELECT. */
static int query_integer(mb_store *store, const char *sql, int64_t *value, mb_error *err)
{
    sqlite3_stmt *statement = NULL;
    *value = 0;
    int rc = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *value = sqlite3_column_int64(statement, 0);
    int result = rc == SQLITE_ROW || rc == SQLITE_DONE ? MB_OK : store_error(store, rc, "reading", err);
    sqlite3_finalize(statement);
    return result;
}

/* Ours, of this version or one that can be brought to it (*version), or empty (*fresh)? */
static int identify(mb_store *store, bool *fresh, int64_t *version, mb_error *err)
{
    int64_t application = 0, objects = 0;
    int rc = query_integer(store, "PRAGMA application_id", &application, err);
    if (rc == MB_OK)
        rc = query_integer(store, "PRAGMA user_version", version, err);
    if (rc == MB_OK)
        rc = query_integer(store, "SELECT count(*) FROM sqlite_master", &objects, err);
    if (rc != MB_OK)
        return rc;
    *fresh = objects == 0 && application == 0;
    if (*fresh)
        return store->mode == MB_STORE_WRITE
                   ? MB_OK
                   : mb_fail(err, MB_E_INPUT, "%s: is empty: no run was stored in it", store->path);
    if (application != STORE_APPLICATION_ID)
        return mb_fail(err, MB_E_INPUT,
                       "%s: is an SQLite database of another program: choose another file with --db", store->path);
    if (*version != STORE_VERSION && *version != STORE_VERSION_BEFORE)
        return mb_fail(
            err, MB_E_INPUT,
            "%s: has schema version %lld; this program reads versions %d and %d: choose another file with "
            "--db, or export it with the program that wrote it (export DB --csv)",
            store->path, (long long)*version, STORE_VERSION_BEFORE, STORE_VERSION);
    return MB_OK;
}

/* A damaged page is better found now than in the middle of a run. */
static int check_whole(mb_store *store, mb_error *err)
{
    int64_t pages = 0, page = 0;
    int rc = query_integer(store, "PRAGMA page_count", &pages, err);
    if (rc == MB_OK)
        rc = query_integer(store, "PRAGMA page_size", &page, err);
    if (rc != MB_OK || pages * page > CHECK_BYTES)
        return rc;
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(statement, 0), "ok") != 0)
        code = SQLITE_CORRUPT;
    rc = code == SQLITE_ROW || code == SQLITE_DONE ? MB_OK : store_error(store, code, "checking it", err);
    sqlite3_finalize(statement);
    return rc;
}

/* The views text with "CREATE TEMP VIEW": an older file is read through this program's views. */
static char *temporary_views(const char *views)
{
    mb_text text = {0};
    for (const char *from = views, *hit; *from; from = hit) {
        hit = strstr(from + 1, "CREATE VIEW ");
        if (!hit)
            hit = from + strlen(from);
        if (strncmp(from, "CREATE VIEW ", 12) == 0) {
            mb_text_puts(&text, "CREATE TEMP VIEW ");
            from += 12;
        }
        mb_text_append(&text, from, (size_t)(hit - from));
    }
    return mb_text_take(&text);
}

/* Is the text of the stored views this program's? */
static int views_current(mb_store *store, const char *hash, bool *current, mb_error *err)
{
    sqlite3_stmt *statement = NULL;
    int rc =
        sqlite3_prepare_v2(store->db, "SELECT value FROM meta WHERE key = 'views_hash'", -1, &statement, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    *current = rc == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(statement, 0), hash) == 0;
    int result = rc == SQLITE_ROW || rc == SQLITE_DONE ? MB_OK : store_error(store, rc, "reading", err);
    sqlite3_finalize(statement);
    return result;
}

static int drop_views(mb_store *store, mb_error *err)
{
    mb_text drops = {0};
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(store->db,
                                "SELECT name FROM sqlite_master WHERE type = 'view' AND name LIKE 'v~_%' "
                                "ESCAPE '~'",
                                -1, &statement, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        mb_text_printf(&drops, "DROP VIEW \"%s\";", (const char *)sqlite3_column_text(statement, 0));
        rc = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    int result = rc == SQLITE_DONE ? MB_OK : store_error(store, rc, "reading", err);
    if (result == MB_OK && drops.failed)
        result = mb_no_memory(err, "opening %s", store->path);
    if (result == MB_OK && drops.data)
        result = store_exec(store, drops.data, "renewing the views", err);
    mb_text_free(&drops);
    return result;
}

/* An older file becomes one of this version. Views go first: they name what changes. */
static int migrate(mb_store *store, mb_error *err)
{
    const char *steps = mb_embedded_find("results/migrate_2.sql", NULL);
    if (!steps)
        return mb_fail(err, MB_E_BUG, "results/migrate_2.sql is not compiled in");
    int rc = drop_views(store, err);
    return rc == MB_OK ? store_exec(store, steps, "bringing it to this program's version", err) : rc;
}

/* Schema for a new file; an older one is migrated; views whenever their text changed. Runs inside one transaction.
 */
static int lay_out(mb_store *store, bool fresh, int64_t version, mb_error *err)
{
    const char *schema = mb_embedded_find("results/schema.sql", NULL);
    const char *views = mb_embedded_find("results/views.sql", NULL);
    char hash[MB_HASH_CAP], *text = NULL;
    bool current = false;
    int rc = MB_OK;
    if (!schema || !views)
        return mb_fail(err, MB_E_BUG, "results/schema.sql is not compiled in");
    mb_hash_bytes(views, strlen(views), hash);
    if (fresh) {
        rc = store_exec(store, schema, "creating the tables", err);
        text = mb_string_format(
            "PRAGMA application_id = %d; PRAGMA user_version = %d;"
            "INSERT INTO meta VALUES ('created_at', strftime('%%Y-%%m-%%dT%%H:%%M:%%SZ', 'now'));",
            STORE_APPLICATION_ID, STORE_VERSION);
        if (rc == MB_OK)
            rc = text ? store_exec(store, text, "creating the tables", err)
                      : mb_no_memory(err, "opening %s", store->path);
        free(text);
        text = NULL;
    } else if (version == STORE_VERSION_BEFORE) {
        rc = migrate(store, err);
    } else {
        rc = views_current(store, hash, &current, err);
    }
    if (rc != MB_OK || current)
        return rc;
    rc = drop_views(store, err);
    if (rc == MB_OK)
        rc = store_exec(store, views, "creating the views", err);
    if (rc == MB_OK) {
        text = mb_string_format("INSERT OR REPLACE INTO meta VALUES ('views_hash', '%s')", hash);
        rc = text ? store_exec(store, text, "creating the views", err)
                  : mb_no_memory(err, "opening %s", store->path);
    }
    free(text);
    return rc;
}

static int open_for_writing(mb_store *store, mb_error *err)
{
    char *folder = mb_string_copy(store->path);
    int64_t version = 0;
    bool fresh = false;
    int rc = MB_OK;
    if (!folder)
        return mb_no_memory(err, "opening %s", store->path);
    char *slash = strrchr(folder, '/');
    if (slash && slash != folder) {
        *slash = '\0';
        rc = mb_folder_make(folder, err);
    }
    free(folder);
    if (rc == MB_OK && mb_folder_exists(store->path))
        rc = mb_fail(err, MB_E_INPUT, "%s is a folder: --db wants a file", store->path);
    if (rc == MB_OK)
        rc = lock_take(store, err);
    if (rc != MB_OK)
        return rc;
    int code = sqlite3_open_v2(store->path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (code != SQLITE_OK)
        return store_error(store, code, "opening", err);
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, 500);
    rc = identify(store, &fresh, &version, err);
    if (rc == MB_OK && sqlite3_db_readonly(store->db, "main") == 1)
        rc = store_error(store, SQLITE_READONLY, "opening", err);
    if (rc == MB_OK && !fresh)
        rc = check_whole(store, err);
    if (rc == MB_OK)
        rc = store_exec(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON",
                        "opening", err);
    if (rc != MB_OK)
        return rc;
    rc = store_exec(store, "BEGIN IMMEDIATE", "opening", err);
    if (rc != MB_OK)
        return rc;
    rc = identify(store, &fresh, &version, err); /* now nobody else can change it */
    if (rc == MB_OK)
        rc = lay_out(store, fresh, version, err);
    /* One page is written even when nothing is new: a full disk or a read-only one shows here. */
    if (rc == MB_OK)
        rc = store_exec(store,
                        "INSERT OR REPLACE INTO meta VALUES ('opened_at', "
                        "strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
                        "opening", err);
    rc = store_end(store, rc, err);
    sqlite3_busy_timeout(store->db, 10000); /* a reader's checkpoint may hold us up for a moment */
    return rc;
}

/* A read-only connection to a file that is ours. */
static int open_read_only(mb_store *store, int64_t *version, mb_error *err)
{
    bool fresh = false;
    if (!mb_file_exists(store->path))
        return mb_fail(err, MB_E_INPUT, "%s: there is no such file: a run with --db %s makes it", store->path,
                       store->path);
    int code = sqlite3_open_v2(store->path, &store->db, SQLITE_OPEN_READONLY, NULL);
    if (code == SQLITE_OK) {
        sqlite3_busy_timeout(store->db, 10000);
        code = sqlite3_exec(store->db, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL);
    }
    if ((code & 0xff) == SQLITE_CANTOPEN || (code & 0xff) == SQLITE_READONLY) {
        /* A WAL file in a folder that we may not write: it can be read as it is when nobody writes. */
        char *uri = sqlite3_mprintf("file:%s?immutable=1", store->path);
        sqlite3_close(store->db);
        store->db = NULL;
        if (!uri)
            return mb_no_memory(err, "opening %s", store->path);
        code = sqlite3_open_v2(uri, &store->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
        sqlite3_free(uri);
    }
    if (code != SQLITE_OK)
        return store_error(store, code, "opening", err);
    sqlite3_extended_result_codes(store->db, 1);
    return identify(store, &fresh, version, err);
}

/* The connection changes over to a copy of the file in memory, with this program's tables and views. */
static int copy_to_memory(mb_store *store, int64_t version, mb_error *err)
{
    sqlite3 *copy = NULL;
    int code = sqlite3_open_v2(":memory:", &copy, SQLITE_OPEN_READWRITE, NULL);
    sqlite3_backup *backup = code == SQLITE_OK ? sqlite3_backup_init(copy, "main", store->db, "main") : NULL;
    if (backup) {
        code = sqlite3_backup_step(backup, -1);
        sqlite3_backup_finish(backup);
    }
    if (!backup || code != SQLITE_DONE) {
        int rc = store_error(store, backup ? code : SQLITE_NOMEM, "copying it into memory", err);
        sqlite3_close(copy);
        return rc;
    }
    sqlite3_close(store->db);
    store->db = copy;
    sqlite3_extended_result_codes(store->db, 1);
    int rc = store_exec(store, "BEGIN", "copying it into memory", err);
    return rc == MB_OK ? store_end(store, lay_out(store, false, version, err), err) : rc;
}

static int open_for_reading(mb_store *store, mb_error *err)
{
    const char *views = mb_embedded_find("results/views.sql", NULL);
    char hash[MB_HASH_CAP];
    int64_t version = 0;
    bool current = false;
    int rc = open_read_only(store, &version, err);
    if (rc == MB_OK && !views)
        rc = mb_fail(err, MB_E_BUG, "results/views.sql is not compiled in");
    if (rc != MB_OK)
        return rc;
    if (version != STORE_VERSION) /* an older file is not touched: it is read through a copy */
        return copy_to_memory(store, version, err);
    mb_hash_bytes(views, strlen(views), hash);
    rc = views_current(store, hash, &current, err);
    if (rc == MB_OK && !current) {
        char *text = temporary_views(views);
        rc =
            text ? store_exec(store, text, "making the views", err) : mb_no_memory(err, "opening %s", store->path);
        free(text);
    }
    return rc;
}

static int open_scratch(mb_store *store, mb_error *err)
{
    int64_t version = 0;
    int rc = open_read_only(store, &version, err);
    return rc == MB_OK ? copy_to_memory(store, version, err) : rc;
}

int mb_store_open(mb_store **store, const char *path, mb_store_mode mode, mb_error *err)
{
    *store = NULL;
    if (!path || !*path)
        return mb_fail(err, MB_E_INPUT, "no database file was named: use --db FILE");
    mb_store *s = calloc(1, sizeof *s);
    if (!s || !(s->path = mb_string_copy(path))) {
        free(s);
        return mb_no_memory(err, "opening %s", path);
    }
    s->mode = mode;
    s->lock_fd = -1;
    int rc = mode == MB_STORE_WRITE  ? open_for_writing(s, err)
             : mode == MB_STORE_READ ? open_for_reading(s, err)
                                     : open_scratch(s, err);
    if (rc != MB_OK) {
        mb_store_close(s, NULL);
        return rc;
    }
    *store = s;
    return MB_OK;
}

int mb_store_close(mb_store *store, mb_error *err)
{
    int rc = MB_OK;
    if (!store)
        return MB_OK;
    for (size_t i = 0; i < store->statement_count; i++)
        sqlite3_finalize(store->statements[i]);
    if (store->db && store->mode == MB_STORE_WRITE && store->lock_fd >= 0) {
        /* A reader that is still there keeps the WAL: not an error, the content is safe in it. */
        int code = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
        if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY && (code & 0xff) != SQLITE_LOCKED)
            rc = store_error(store, code, "closing", err);
    }
    if (store->db && sqlite3_close(store->db) != SQLITE_OK && rc == MB_OK)
        rc = mb_fail(err, MB_E_BUG, "%s: closed while a statement was in use", store->path);
    lock_release(store);
    free(store->path);
    free(store);
    return rc;
}
