/*
 * merge.c - databases of runs become one: row by row from each file into one transaction of the result.
 *
 * A row is found by what tells it apart (a content hash, or the rows that it belongs to), never by its number. It
 * is new, or equal to the one that is there, or in conflict with it, which ends the merge without a change. So a
 * file that is merged twice changes nothing, and shards of a run, which have its identity, become the run.
 */
#include "results/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- ids ---- */

static merge_entry *find_entry(const merge_table *of, int64_t from)
{
    size_t low = 0, high = of->entry_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (of->entries[middle].from < from)
            low = middle + 1;
        else
            high = middle;
    }
    return low < of->entry_count && of->entries[low].from == from ? &of->entries[low] : NULL;
}

/* Remembers what became of the row at hand. Rows come in the order of their ids. */
static int note_entry(merging *m, merge_table *of, int64_t to, merge_fate fate, mb_error *err)
{
    if (of->id < 0)
        return MB_OK;
    if (of->entry_count == of->entry_capacity) {
        size_t capacity = of->entry_capacity ? 2 * of->entry_capacity : 64;
        merge_entry *grown = realloc(of->entries, capacity * sizeof *grown);
        if (!grown)
            return mb_no_memory(err, "merging %s", m->source->path);
        of->entries = grown;
        of->entry_capacity = capacity;
    }
    of->entries[of->entry_count++] =
        (merge_entry){.from = sqlite3_column_int64(m->row, of->id), .to = to, .fate = fate};
    return MB_OK;
}

/* Where the row at hand points to, in our ids. */
static int map_row(merging *m, const merge_table *of, mb_error *err)
{
    for (size_t i = 0; i < of->column_count; i++) {
        const merge_column *c = &of->columns[i];
        if (c->references < 0 || sqlite3_column_type(m->row, (int)i) == SQLITE_NULL)
            continue;
        const merge_table *target = &m->tables.all[c->references];
        const merge_entry *entry = find_entry(target, sqlite3_column_int64(m->row, (int)i));
        if (!entry)
            return mb_fail(err, MB_E_INPUT,
                           "%s: the database is damaged: a row of %s points to row %lld of %s, which is not there",
                           m->source->path, of->declared->name, (long long)sqlite3_column_int64(m->row, (int)i),
                           target->declared->name);
        m->mapped[i] = entry->to;
    }
    return MB_OK;
}

static bool is_pointer(const merging *m, const merge_table *of, size_t i)
{
    return of->columns[i].references >= 0 && sqlite3_column_type(m->row, (int)i) != SQLITE_NULL;
}

static void bind_row(const merging *m, const merge_table *of, sqlite3_stmt *to)
{
    int parameters = sqlite3_bind_parameter_count(to);
    for (size_t i = 0; i < of->column_count && (int)i < parameters; i++) {
        if (is_pointer(m, of, i))
            sqlite3_bind_int64(to, (int)i + 1, m->mapped[i]);
        else
            sqlite3_bind_value(to, (int)i + 1, sqlite3_column_value(m->row, (int)i));
    }
}

/* ---- conflicts ---- */

static bool same_value(const merging *m, const merge_table *of, size_t i, sqlite3_stmt *stored)
{
    int type = sqlite3_column_type(m->row, (int)i);
    if (type != sqlite3_column_type(stored, (int)i))
        return false;
    if (is_pointer(m, of, i))
        return m->mapped[i] == sqlite3_column_int64(stored, (int)i);
    double a, b;
    int size;
    switch (type) {
    case SQLITE_NULL:
        return true;
    case SQLITE_INTEGER:
        return sqlite3_column_int64(m->row, (int)i) == sqlite3_column_int64(stored, (int)i);
    case SQLITE_FLOAT: /* bit for bit */
        a = sqlite3_column_double(m->row, (int)i);
        b = sqlite3_column_double(stored, (int)i);
        return memcmp(&a, &b, sizeof a) == 0;
    default:
        size = sqlite3_column_bytes(m->row, (int)i);
        return size == sqlite3_column_bytes(stored, (int)i) &&
               (size == 0 || memcmp(sqlite3_column_blob(m->row, (int)i), sqlite3_column_blob(stored, (int)i),
                                    (size_t)size) == 0);
    }
}

static void put_value(mb_text *text, sqlite3_stmt *s, size_t i)
{
    char number[40];
    switch (sqlite3_column_type(s, (int)i)) {
    case SQLITE_NULL:
        mb_text_puts(text, "nothing");
        break;
    case SQLITE_FLOAT:
        snprintf(number, sizeof number, "%.17g", sqlite3_column_double(s, (int)i));
        mb_text_puts(text, number);
        break;
    case SQLITE_INTEGER:
        mb_text_printf(text, "%lld", sqlite3_column_int64(s, (int)i));
        break;
    default:
        mb_text_printf(text, "\"%.100s\"", merge_text(s, (int)i));
    }
}

/* "cell (...), layer 3, step 1" of the row at hand. */
static void describe_row(merging *m, const merge_table *of, mb_text *text)
{
    const char *joint = " (";
    mb_text_puts(text, of->declared->name);
    for (size_t i = 0; i < of->column_count; i++) {
        if (of->columns[i].role != MERGE_KEY || sqlite3_column_type(m->row, (int)i) == SQLITE_NULL)
            continue;
        mb_text_printf(text, "%s", joint);
        joint = ", ";
        if (is_pointer(m, of, i))
            merge_describe(m->out, &m->tables, of->columns[i].references, m->mapped[i], 1, text);
        else
            mb_text_printf(text, "%s %.60s", of->columns[i].name, merge_text(m->row, (int)i));
    }
    mb_text_puts(text, ")");
}

/* stored NULL: the row is missing there. */
static int conflict(merging *m, const merge_table *of, size_t i, sqlite3_stmt *stored, mb_error *err)
{
    mb_text text = {0};
    mb_text_printf(&text, "conflict in ");
    describe_row(m, of, &text);
    if (stored) {
        mb_text_printf(&text, ": %s is ", of->columns[i].name);
        put_value(&text, m->row, i);
        mb_text_printf(&text, " in %s and ", m->source->path);
        put_value(&text, stored, i);
        mb_text_printf(&text, " in %s or what was merged before", m->out->path);
    } else {
        mb_text_printf(&text, ": stored in %s, and missing in %s or what was merged before", m->source->path,
                       m->out->path);
    }
    int rc = mb_fail(err, MB_E_INPUT,
                     "%s. One identity with two values is no result: nothing was merged; leave one of the two out",
                     text.data && !text.failed ? text.data : "conflict");
    mb_text_free(&text);
    return rc;
}

static int compare(merging *m, const merge_table *of, sqlite3_stmt *stored, mb_error *err)
{
    for (size_t i = 0; i < of->column_count; i++) {
        merge_role role = of->columns[i].role;
        bool either = sqlite3_column_type(m->row, (int)i) == SQLITE_NULL ||
                      sqlite3_column_type(stored, (int)i) == SQLITE_NULL;
        if (role != MERGE_VALUE && !(role == MERGE_FILL && !either))
            continue;
        if (!same_value(m, of, i, stored))
            return conflict(m, of, i, stored, err);
    }
    return MB_OK;
}

/* ---- storing ---- */

/* A step of one of our statements: what it refuses is the fault of the file that the row comes from. */
static int step(merging *m, const merge_table *of, sqlite3_stmt *s, mb_error *err)
{
    int code = sqlite3_step(s), rc = MB_OK;
    if ((code & 0xff) == SQLITE_CONSTRAINT || (code & 0xff) == SQLITE_MISMATCH)
        rc = mb_fail(err, MB_E_INPUT, "%s: the database is damaged: a row of %s breaks a rule of the schema: %s",
                     m->source->path, of->declared->name, sqlite3_errmsg(m->out->db));
    else if (code != SQLITE_DONE && code != SQLITE_ROW)
        rc = store_error(m->out, code, "merging", err);
    sqlite3_reset(s);
    return rc;
}

/* A label that no run has: that of the file, or its name with a number. */
static int bind_label(merging *m, const merge_table *of, mb_error *err)
{
    int place = merge_find_column(of, "label"), name = merge_find_column(of, "name");
    char *label = mb_string_copy(merge_text(m->row, place));
    for (int number = 2; label; number++) {
        int64_t one = 0;
        bool found = false;
        sqlite3_stmt *s = store_statement(m->out, "SELECT 1 FROM run WHERE label = ?", err);
        if (!s)
            break;
        store_bind(s, "t", label);
        if (store_step_integer(m->out, s, &one, &found, "naming a run", err) != MB_OK)
            break;
        if (!found) {
            sqlite3_bind_text(of->inserting, place + 1, label, -1, SQLITE_TRANSIENT);
            free(label);
            return MB_OK;
        }
        free(label);
        label = mb_string_format("%s#%d", merge_text(m->row, name), number);
    }
    free(label);
    return mb_no_memory(err, "naming a run");
}

static int insert(merging *m, merge_table *of, mb_error *err)
{
    bind_row(m, of, of->inserting);
    int rc = merge_find_column(of, "label") >= 0 && strcmp(of->declared->name, "run") == 0 ? bind_label(m, of, err)
                                                                                           : MB_OK;
    if (rc == MB_OK)
        rc = step(m, of, of->inserting, err);
    return rc == MB_OK ? note_entry(m, of, sqlite3_last_insert_rowid(m->out->db), MERGE_NEW, err) : rc;
}

static bool text_is(sqlite3_stmt *s, const merge_table *of, const char *column, const char *value)
{
    const char *text = (const char *)sqlite3_column_text(s, merge_find_column(of, column));
    return text && strcmp(text, value) == 0;
}

/* Did the session of the row at hand start after that of the stored one? */
static int is_newer(merging *m, const merge_table *of, sqlite3_stmt *stored, bool *newer, mb_error *err)
{
    int column = merge_find_column(of, "session_id");
    int64_t one = 0;
    *newer = false;
    if (!is_pointer(m, of, (size_t)column))
        return MB_OK;
    sqlite3_stmt *s =
        store_statement(m->out,
                        "SELECT a.started_at > b.started_at OR (a.started_at = b.started_at AND a.id >= "
                        "b.id) FROM session a JOIN session b ON b.id = ?2 WHERE a.id = ?1",
                        err);
    bool found = false;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ii", m->mapped[column], sqlite3_column_int64(stored, column));
    int rc = store_step_integer(m->out, s, &one, &found, "comparing sessions", err);
    *newer = !found || one;
    return rc;
}

/* The stored row with its id gives way: it and what belongs to it. */
static int forget(merging *m, const merge_table *of, int64_t id, mb_error *err)
{
    const int self = (int)(of - m->tables.all);
    char sql[96];
    for (size_t i = 0; i < m->tables.count; i++) {
        merge_table *child = &m->tables.all[i];
        if (!child->child || child->columns[child->owner].references != self)
            continue;
        sqlite3_bind_int64(child->forgetting, 1, id);
        int rc = step(m, child, child->forgetting, err);
        if (rc != MB_OK)
            return rc;
    }
    snprintf(sql, sizeof sql, "DELETE FROM \"%s\" WHERE id = %lld", of->declared->name, (long long)id);
    return store_exec(m->out, sql, "merging", err);
}

/* The row is there already. */
static int meet(merging *m, merge_table *of, sqlite3_stmt *stored, mb_error *err)
{
    int64_t id = of->id >= 0 ? sqlite3_column_int64(stored, of->id) : 0;
    bool update = of->updating != NULL && of->declared->fill != NULL;
    int rc = MB_OK;
    switch (of->declared->rule) {
    case MERGE_SUCCESS:
        if (text_is(m->row, of, "status", "failed"))
            return note_entry(m, of, id, MERGE_LEFT_OUT, err);
        if (text_is(stored, of, "status", "failed")) {
            sqlite3_reset(of->finding);
            rc = forget(m, of, id, err);
            return rc == MB_OK ? insert(m, of, err) : rc;
        }
        break;
    case MERGE_ENDED:
        update = sqlite3_column_type(stored, merge_find_column(of, "ended_at")) == SQLITE_NULL;
        break;
    case MERGE_NEWEST:
        rc = is_newer(m, of, stored, &update, err);
        break;
    case MERGE_FIRST:
    case MERGE_NONE:
        break;
    }
    if (rc == MB_OK)
        rc = compare(m, of, stored, err);
    if (rc == MB_OK && update) {
        bind_row(m, of, of->updating);
        sqlite3_bind_int64(of->updating, (int)of->column_count + 1, id);
        rc = step(m, of, of->updating, err);
    }
    return rc == MB_OK ? note_entry(m, of, id, MERGE_SAME, err) : rc;
}

static int merge_row(merging *m, merge_table *of, mb_error *err)
{
    if (m->session && strcmp(of->declared->name, "env") == 0)
        return note_entry(m, of, 0, MERGE_LEFT_OUT, err);
    if (m->session && strcmp(of->declared->name, "session") == 0)
        return note_entry(m, of, m->session, MERGE_SAME, err);
    int rc = map_row(m, of, err);
    merge_entry *owner = NULL;
    if (rc != MB_OK)
        return rc;
    if (of->owner >= 0 && is_pointer(m, of, (size_t)of->owner))
        owner =
            find_entry(&m->tables.all[of->columns[of->owner].references], sqlite3_column_int64(m->row, of->owner));
    if (owner && owner->fate == MERGE_LEFT_OUT)
        return MB_OK;
    if (owner && owner->fate == MERGE_NEW)
        return insert(m, of, err);
    bind_row(m, of, of->finding);
    int code = sqlite3_step(of->finding);
    if (code == SQLITE_ROW)
        rc = meet(m, of, of->finding, err);
    else if (code != SQLITE_DONE)
        rc = store_error(m->out, code, "merging", err);
    else
        rc = of->child && owner ? conflict(m, of, 0, NULL, err) : insert(m, of, err);
    sqlite3_reset(of->finding);
    if (owner)
        owner->rows++;
    return rc;
}

/* Equal samples have the same number of rows that belong to them. */
static int compare_counts(merging *m, merge_table *of, mb_error *err)
{
    merge_table *owners = &m->tables.all[of->columns[of->owner].references];
    for (size_t i = 0; i < owners->entry_count; i++) {
        merge_entry *owner = &owners->entries[i];
        if (owner->fate != MERGE_SAME)
            continue;
        sqlite3_bind_int64(of->counting, 1, owner->to);
        int code = sqlite3_step(of->counting);
        int64_t count = code == SQLITE_ROW ? sqlite3_column_int64(of->counting, 0) : -1;
        sqlite3_reset(of->counting);
        if (code != SQLITE_ROW)
            return store_error(m->out, code, "merging", err);
        if (count != owner->rows) {
            mb_text text = {0};
            merge_describe(m->out, &m->tables, (int)(owners - m->tables.all), owner->to, 1, &text);
            int rc = mb_fail(err, MB_E_INPUT,
                             "conflict in %s: it has %lld rows of %s in %s and %lld in %s or what was merged "
                             "before: nothing was merged; leave one of the two out",
                             text.data ? text.data : "a row", (long long)owner->rows, of->declared->name,
                             m->source->path, (long long)count, m->out->path);
            mb_text_free(&text);
            return rc;
        }
        owner->rows = 0;
    }
    return MB_OK;
}

static int merge_table_rows(merging *m, merge_table *of, mb_error *err)
{
    int code, rc = MB_OK;
    if (of->declared->rule == MERGE_NONE)
        return MB_OK;
    of->entry_count = 0;
    code = sqlite3_prepare_v2(m->source->db, of->read, -1, &m->row, NULL);
    while (rc == MB_OK && code == SQLITE_OK && (code = sqlite3_step(m->row)) == SQLITE_ROW) {
        code = SQLITE_OK;
        rc = m->stop && *m->stop ? mb_fail(err, MB_E_STOP, "interrupted: nothing was merged")
                                 : merge_row(m, of, err);
    }
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(m->source, code, "reading it", err);
    sqlite3_finalize(m->row);
    m->row = NULL;
    return rc == MB_OK && of->child ? compare_counts(m, of, err) : rc;
}

int merge_rows(merging *m, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < m->tables.count; i++)
        rc = merge_table_rows(m, &m->tables.all[i], err);
    return rc;
}

/* ---- one file ---- */

/* The whole file is read anyway; a damaged page shows before its rows are. */
static int check_source(merging *m, mb_error *err)
{
    sqlite3_stmt *s = NULL;
    int rc = store_exec(m->source, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; BEGIN", "reading it",
                        err);
    if (rc != MB_OK)
        return rc;
    int code = sqlite3_prepare_v2(m->source->db, "PRAGMA quick_check(1)", -1, &s, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(s);
    if (code == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
        code = SQLITE_CORRUPT;
    rc = code == SQLITE_ROW ? MB_OK : store_error(m->source, code, "checking it", err);
    sqlite3_finalize(s);
    return rc == MB_OK ? merge_tables_check(&m->tables, m->source, err) : rc;
}

static int merge_file(merging *m, const char *path, mb_text *notes, mb_error *err)
{
    struct stat ours, theirs;
    if (stat(m->out->file, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
        ours.st_ino == theirs.st_ino)
        return MB_OK; /* the pattern of the files fits the result, too */
    if (mb_file_exists(path) &&
        mb_store_is_blank(path)) { /* a shard that was killed early: it is missing, no more */
        mb_text_visible(notes, path, "");
        mb_text_puts(notes, ": nothing was stored in it yet\n");
        return MB_OK;
    }
    int rc = store_open_rows(&m->source, path, err);
    if (rc != MB_OK)
        return rc;
    rc = check_source(m, err);
    if (rc == MB_OK)
        rc = merge_rows(m, err);
    mb_store_close(m->source, NULL);
    m->source = NULL;
    return rc;
}

int merge_files(merging *m, const char *const *paths, size_t count, mb_text *notes, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < count; i++)
        rc = merge_file(m, paths[i], notes, err);
    return rc;
}

int merge_open(merging *m, const char *result, mb_error *err)
{
    int rc = mb_store_open(&m->out, result, MB_STORE_WRITE, err);
    /* Every pointer is looked up here; SQLite need not do it once more for each row. */
    if (rc == MB_OK)
        rc = store_exec(m->out, "PRAGMA foreign_keys = OFF; PRAGMA cache_size = -65536", "merging", err);
    return rc == MB_OK ? merge_tables_open(&m->tables, m->out, err) : rc;
}

int mb_store_merge(const char *result, const char *const *paths, size_t count, const volatile int *stop,
                   mb_text *notes, mb_error *err)
{
    merging m = {.stop = stop};
    int rc = merge_open(&m, result, err);
    if (!m.out)
        return rc;
    if (rc == MB_OK)
        rc = store_begin(m.out, err);
    if (rc == MB_OK) {
        rc = merge_files(&m, paths, count, notes, err);
        if (rc == MB_OK)
            rc = merge_end(m.out, &m.tables, notes, err);
        rc = store_end(m.out, rc, err);
    }
    merge_tables_close(&m.tables);
    bool made = m.out->made;
    char *file = mb_string_copy(m.out->file);
    mb_error own = {0};
    int closed = mb_store_close(m.out, &own);
    if (rc != MB_OK && made && file) /* it was not there before */
        store_remove_files(file);
    free(file);
    return rc == MB_OK && closed != MB_OK ? mb_fail(err, closed, "%s", own.text) : rc;
}
