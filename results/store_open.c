/*
 * store_open.c - opening a store: for writing, for reading, and as a copy that nobody else sees.
 *
 * Opening for writing does, in this order: the folder, the lock on the file (one program writes), is it ours and
 * whole, WAL, BEGIN IMMEDIATE (nobody else writes, the folder and the disk allow it), schema and views.
 * Invariant: after a failed open nothing of an existing file has changed.
 */
#include "results/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A store up to this size is checked for damage at every start; a larger one when a page is read. */
#define CHECK_BYTES (64ll << 20)

/* ---- the lock ---- */

/* The byte that a writer locks: far behind those that SQLite locks (1 GiB and 512 bytes on). */
#define LOCK_BYTE ((off_t)1 << 62)

/* A descriptor of the file, which is made where there is none. */
static int open_file(mb_store *store, int *fd, mb_error *err)
{
    struct stat st;
    *fd = open(store->file, O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (*fd < 0 && errno == ENOENT) {
        *fd = open(store->file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
        store->made = *fd >= 0;
    }
    if (*fd < 0) {
        int number = errno;
        return mb_fail(err, number == ENOSPC || number == EDQUOT ? MB_E_SYSTEM : MB_E_INPUT,
                       "%s: cannot write it (%s): choose another file with --db", store->path, strerror(number));
    }
    if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode))
        return MB_OK;
    close(*fd);
    return mb_fail(err, MB_E_INPUT, "%s is not a regular file: choose another file with --db", store->path);
}

/* Locks the file itself and not a name beside it: a symlink and a hard link lead to the same lock. The lock
 * belongs to the open file, so that SQLite's closing of its own descriptors leaves it alone, and the kernel
 * releases it when the program dies. Not flock(), which NFS turns into a lock of all bytes, SQLite's among them.
 */
static int lock_take(mb_store *store, mb_error *err)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        struct stat held, named;
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE, .l_len = 1};
        int fd = -1, rc = open_file(store, &fd, err);
        if (rc != MB_OK)
            return rc;
        if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
            int number = errno;
            close(fd);
            if (number == EINTR)
                continue;
            return number == EAGAIN || number == EACCES
                       ? store_error(store, SQLITE_BUSY, "opening", err)
                       : mb_fail(err, MB_E_INPUT, "%s: cannot lock it (%s): choose another file with --db",
                                 store->path, strerror(number));
        }
        /* Between opening and locking the name may have gone to another file. */
        if (fstat(fd, &held) == 0 && stat(store->file, &named) == 0 && held.st_ino == named.st_ino &&
            held.st_dev == named.st_dev) {
            store->lock_fd = fd;
            return MB_OK;
        }
        close(fd);
    }
    return store_error(store, SQLITE_BUSY, "opening", err);
}

void store_unlock(mb_store *store)
{
    struct stat st;
    if (store->lock_fd < 0)
        return;
    /* Refused before there was anything in it: no empty file stays behind. */
    if (store->made && !store->opened && fstat(store->lock_fd, &st) == 0 && st.st_size == 0)
        unlink(store->file);
    close(store->lock_fd);
}

/* ---- what is in the file ---- */

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
    *fresh = store->blank = objects == 0 && application == 0;
    if (*fresh)
        return store->mode == MB_STORE_WRITE
                   ? MB_OK
                   : mb_fail(err, MB_E_INPUT, "%s: is empty: no run was stored in it", store->path);
    if (application != STORE_APPLICATION_ID)
        return mb_fail(err, MB_E_INPUT,
                       "%s: is an SQLite database of another program: choose another file with --db", store->path);
    if (*version < STORE_VERSION_OLDEST || *version > STORE_VERSION)
        return mb_fail(
            err, MB_E_INPUT,
            "%s: has schema version %lld; this program reads versions %d to %d: choose another file with "
            "--db, or export it with the program that wrote it (export DB --csv)",
            store->path, (long long)*version, STORE_VERSION_OLDEST, STORE_VERSION);
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

/* Are the views in the file as this program writes them? The views are compared, not a mark that says which were
 * written: somebody may have dropped or changed one. */
static int views_current(mb_store *store, const char *views, bool *current, mb_error *err)
{
    sqlite3 *own = NULL;
    sqlite3_stmt *wanted = NULL, *stored = NULL;
    *current = true;
    int code = sqlite3_open_v2(":memory:", &own, SQLITE_OPEN_READWRITE, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(own, views, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code =
            sqlite3_prepare_v2(own, "SELECT name, sql FROM sqlite_master WHERE type = 'view'", -1, &wanted, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(store->db,
                                  "SELECT 1 FROM main.sqlite_master WHERE type = 'view' AND name = ? AND sql = ?",
                                  -1, &stored, NULL);
    while (code == SQLITE_OK && *current && (code = sqlite3_step(wanted)) == SQLITE_ROW) {
        for (int i = 0; i < 2; i++)
            sqlite3_bind_value(stored, i + 1, sqlite3_column_value(wanted, i));
        code = sqlite3_step(stored);
        *current = code == SQLITE_ROW;
        code = code == SQLITE_ROW || code == SQLITE_DONE ? sqlite3_reset(stored) : code;
    }
    int rc = code == SQLITE_OK || code == SQLITE_DONE ? MB_OK : store_error(store, code, "reading its views", err);
    sqlite3_finalize(wanted);
    sqlite3_finalize(stored);
    sqlite3_close(own);
    return rc;
}

/* Drops what a query names; the query is of one column. */
static int drop_all(mb_store *store, const char *kind, const char *query, mb_error *err)
{
    mb_text drops = {0};
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(store->db, query, -1, &statement, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        char *name = sqlite3_mprintf("%w", sqlite3_column_text(statement, 0));
        mb_text_printf(&drops, "DROP %s \"%s\";", kind, name ? name : "");
        sqlite3_free(name);
        rc = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    int result = rc == SQLITE_DONE ? MB_OK : store_error(store, rc, "reading", err);
    if (result == MB_OK && drops.failed)
        result = mb_no_memory(err, "opening %s", store->path);
    if (result == MB_OK && drops.data)
        result = store_exec(store, drops.data, "renewing it", err);
    mb_text_free(&drops);
    return result;
}

static int drop_views(mb_store *store, mb_error *err)
{
    return drop_all(store, "VIEW",
                    "SELECT name FROM sqlite_master WHERE type = 'view' AND name LIKE 'v~_%' ESCAPE '~'", err);
}

/* An older file becomes one of this version. Views go first: they name what changes. */
static int migrate(mb_store *store, int64_t version, mb_error *err)
{
    int rc = drop_views(store, err);
    for (; rc == MB_OK && version < STORE_VERSION; version++) {
        char name[64];
        snprintf(name, sizeof name, "results/migrate_%d.sql", (int)version);
        const char *steps = mb_embedded_find(name, NULL);
        rc = steps ? store_exec(store, steps, "bringing it to this program's version", err)
                   : mb_fail(err, MB_E_BUG, "%s is not compiled in", name);
    }
    return rc;
}

int store_create_tables(mb_store *store, mb_error *err)
{
    const char *schema = mb_embedded_find("results/schema.sql", NULL);
    int rc = schema ? store_exec(store, schema, "creating the tables", err)
                    : mb_fail(err, MB_E_BUG, "results/schema.sql is not compiled in");
    char *text =
        mb_string_format("PRAGMA application_id = %d; PRAGMA user_version = %d;"
                         "INSERT INTO meta VALUES ('created_at', strftime('%%Y-%%m-%%dT%%H:%%M:%%SZ', 'now'));",
                         STORE_APPLICATION_ID, STORE_VERSION);
    if (rc == MB_OK)
        rc = text ? store_exec(store, text, "creating the tables", err)
                  : mb_no_memory(err, "opening %s", store->path);
    free(text);
    return rc;
}

/* Schema for a new file; an older one is migrated; views whenever they are not this program's. Runs inside one
 * transaction. */
static int lay_out(mb_store *store, bool fresh, int64_t version, mb_error *err)
{
    const char *views = mb_embedded_find("results/views.sql", NULL);
    bool current = false;
    int rc = MB_OK;
    if (!views)
        return mb_fail(err, MB_E_BUG, "results/views.sql is not compiled in");
    if (fresh)
        rc = store_create_tables(store, err);
    else if (version < STORE_VERSION)
        rc = migrate(store, version, err);
    else
        rc = views_current(store, views, &current, err);
    if (rc != MB_OK || current)
        return rc;
    rc = drop_views(store, err);
    return rc == MB_OK ? store_exec(store, views, "creating the views", err) : rc;
}

/* ---- for writing ---- */

/* The log for the time of writing: whoever closes the file in order leaves it without one. A reader in the middle
 * of a query holds this up for as long as the query takes. */
static int use_log(mb_store *store, mb_error *err)
{
    sqlite3_busy_timeout(store->db, 5000);
    int rc = store_exec(store, "PRAGMA journal_mode = WAL", "opening", err);
    store->logs = rc == MB_OK;
    sqlite3_busy_timeout(store->db, 500);
    return rc == MB_OK ? store_exec(store, "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON", "opening", err)
                       : rc;
}

static int open_for_writing(mb_store *store, mb_error *err)
{
    int64_t version = 0;
    bool fresh = false;
    int rc = mb_folder_make_parent(store->file, err);
    if (rc == MB_OK && mb_folder_exists(store->path))
        rc = mb_fail(err, MB_E_INPUT, "%s is a folder: --db wants a file", store->path);
    if (rc == MB_OK)
        rc = lock_take(store, err);
    if (rc != MB_OK)
        return rc;
    int code = sqlite3_open_v2(store->file, &store->db, SQLITE_OPEN_READWRITE, NULL);
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
        rc = use_log(store, err);
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
    store->opened = rc == MB_OK;
    store_wait(store);
    return rc;
}

int mb_store_renew(mb_store *store, mb_error *err)
{
    int rc = store_writable(store, err);
    if (rc == MB_OK)
        rc = store_exec(store, "PRAGMA foreign_keys = OFF", "emptying it", err);
    if (rc == MB_OK)
        rc = store_begin(store, err);
    if (rc != MB_OK)
        return rc;
    rc = drop_all(store, "VIEW", "SELECT name FROM sqlite_master WHERE type = 'view'", err);
    if (rc == MB_OK)
        rc = drop_all(
            store, "TABLE",
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'", err);
    if (rc == MB_OK)
        rc = lay_out(store, true, STORE_VERSION, err);
    rc = store_end(store, rc, err);
    if (rc == MB_OK)
        rc = store_exec(store, "PRAGMA foreign_keys = ON", "emptying it", err);
    if (rc == MB_OK) /* gives the room back; a reader may forbid it, which is no error */
        sqlite3_exec(store->db, "VACUUM", NULL, NULL, NULL);
    return rc;
}

/* ---- for reading ---- */

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

/* Opens a copy of file and log in a folder of our own, changes over to memory and removes the copy. */
static int open_copy(mb_store *store, mb_error *err)
{
    const char *temporary = getenv("TMPDIR");
    char *real = realpath(store->file, NULL);
    char *folder = mb_string_format("%s/maskbench-XXXXXX", temporary && *temporary ? temporary : "/tmp");
    char *copy = NULL;
    int64_t version = 0;
    bool fresh = false;
    int rc = MB_OK;
    if (!real || !folder) {
        rc = mb_no_memory(err, "opening %s", store->path);
        goto out;
    }
    if (!mkdtemp(folder)) {
        rc = mb_fail(err, MB_E_SYSTEM, "%s lies in a read-only folder and cannot be copied into %s: %s",
                     store->path, folder, strerror(errno));
        goto out;
    }
    copy = mb_string_format("%s/copy.db", folder);
    rc = copy ? store_copy_files(real, copy, err) : mb_no_memory(err, "opening %s", store->path);
    if (rc == MB_OK) {
        int code = sqlite3_open_v2(copy, &store->db, SQLITE_OPEN_READWRITE, NULL);
        rc = code == SQLITE_OK ? identify(store, &fresh, &version, err) : store_error(store, code, "opening", err);
    }
    if (rc == MB_OK)
        rc = copy_to_memory(store, version, err);
    store->copied = rc == MB_OK;
    if (rc != MB_OK) {
        sqlite3_close(store->db);
        store->db = NULL;
    }
out:
    if (copy)
        store_remove_files(copy);
    if (folder)
        rmdir(folder);
    free(copy);
    free(folder);
    free(real);
    return rc;
}

/* A read-only connection to a file that is ours. */
static int open_read_only(mb_store *store, int64_t *version, mb_error *err)
{
    bool fresh = false;
    if (!mb_file_exists(store->path))
        return mb_fail(err, MB_E_INPUT, "%s: there is no such file: a run with --db %s makes it", store->path,
                       store->path);
    int code = sqlite3_open_v2(store->file, &store->db, SQLITE_OPEN_READONLY, NULL);
    if (code == SQLITE_OK) {
        sqlite3_busy_timeout(store->db, 10000);
        code = sqlite3_exec(store->db, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL);
    }
    if ((code & 0xff) == SQLITE_CANTOPEN || (code & 0xff) == SQLITE_READONLY) {
        /* A folder that we may not write has no room for the index of the log. Opened as if nobody could write it,
         * the file would be read without the log, in which the newest rows are. */
        sqlite3_close(store->db);
        store->db = NULL;
        return open_copy(store, err);
    }
    if (code != SQLITE_OK)
        return store_error(store, code, "opening", err);
    sqlite3_extended_result_codes(store->db, 1);
    return identify(store, &fresh, version, err);
}

/* The path as SQLite gets it: from the root, so that no word of it is taken for a URI or a memory database, and so
 * that nobody's chdir() makes it another file. */
static char *whole_path(const char *path)
{
    char *folder = path[0] == '/' ? NULL : getcwd(NULL, 0);
    char *file = path[0] == '/' ? mb_string_copy(path) : folder ? mb_string_format("%s/%s", folder, path) : NULL;
    free(folder);
    return file;
}

/* Read as any reader does: the journal of a program that was killed may have to be played back first, in a copy.
 */
bool mb_store_is_blank(const char *path)
{
    mb_store store = {.mode = MB_STORE_READ, .path = mb_string_copy(path), .file = whole_path(path)};
    mb_error own = {0};
    int64_t version = 0;
    if (store.path && store.file)
        open_read_only(&store, &version, &own);
    sqlite3_close(store.db);
    free(store.file);
    free(store.path);
    return store.blank;
}

static int open_for_reading(mb_store *store, mb_error *err)
{
    const char *views = mb_embedded_find("results/views.sql", NULL);
    int64_t version = 0;
    bool current = false;
    int rc = open_read_only(store, &version, err);
    if (rc == MB_OK && !views)
        rc = mb_fail(err, MB_E_BUG, "results/views.sql is not compiled in");
    if (rc != MB_OK || store->copied || (store->rows && version == STORE_VERSION))
        return rc;
    if (version != STORE_VERSION) /* an older file is not touched: it is read through a copy */
        return copy_to_memory(store, version, err);
    rc = views_current(store, views, &current, err);
    return rc == MB_OK && !current ? store_use_own_views(store, err) : rc;
}

static int open_scratch(mb_store *store, mb_error *err)
{
    int64_t version = 0;
    int rc = open_read_only(store, &version, err);
    return rc == MB_OK && !store->copied ? copy_to_memory(store, version, err) : rc;
}

static int open_store(mb_store **store, const char *path, mb_store_mode mode, bool rows, mb_error *err)
{
    *store = NULL;
    if (!path || !*path)
        return mb_fail(err, MB_E_INPUT, "no database file was named: use --db FILE");
    if (strcmp(path, ":memory:") == 0)
        return mb_fail(err, MB_E_INPUT, "%s names no file, and a store is one: use --db FILE", path);
    mb_store *s = calloc(1, sizeof *s);
    if (!s || !(s->path = mb_string_copy(path)) || !(s->file = whole_path(path))) {
        free(s ? s->path : NULL);
        free(s);
        return mb_no_memory(err, "opening %s", path);
    }
    s->mode = mode;
    s->rows = rows;
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

int mb_store_open(mb_store **store, const char *path, mb_store_mode mode, mb_error *err)
{
    return open_store(store, path, mode, false, err);
}

int store_open_rows(mb_store **store, const char *path, mb_error *err)
{
    return open_store(store, path, MB_STORE_READ, true, err);
}
