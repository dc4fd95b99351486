/*
 * fuzz_merge.c - any bytes as a database that is merged. The bytes are laid over a good one: pairs of (offset,
 * byte) where the first byte is odd, the whole file where it is even. Merging ends with a sentence and no result,
 * or with a result that is whole; and what it took, it takes again without a change.
 *
 * One result serves all inputs, each in a transaction that is rolled back: SQLite takes long to make and open it,
 * and longer for the gates of its runs. One input of 64 has a result of its own:
 * with gates, closed and opened again. The source has no views, which nobody asks for there and which are two
 * thirds of its schema.
 */
#include "results/merge.h"
#include "tests/fuzz/stored.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/mb_fuzz_merge_XXXXXX";
static char source[64], result[64], kept[64];
static merging keeping; /* the result that serves all */
static char *good;
static size_t good_size;

static void drop(const char *path)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    char name[80];
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
}

static void drop_folder(void)
{
    merge_tables_close(&keeping.tables);
    must(mb_store_close(keeping.out, NULL));
    drop(source);
    drop(result);
    drop(kept);
    rmdir(folder);
    free(good);
}

static void drop_views(mb_store *store)
{
    mb_text names = {0};
    must(mb_table_query(
        store, "SELECT group_concat('DROP VIEW ' || name, ';') AS x FROM sqlite_master WHERE type = 'view'",
        MB_TABLE_CSV, 0, &names, NULL));
    must(store_exec(store, strchr(names.data, '\n') + 1, "dropping views", NULL));
    must(store_exec(store, "VACUUM", "dropping views", NULL));
    mb_text_free(&names);
}

static void make_good(void)
{
    mb_store *store = NULL;
    if (!mkdtemp(folder))
        abort();
    snprintf(source, sizeof source, "%s/source.db", folder);
    snprintf(result, sizeof result, "%s/result.db", folder);
    snprintf(kept, sizeof kept, "%s/kept.db", folder);
    atexit(drop_folder);
    must(mb_store_open(&store, source, MB_STORE_WRITE, NULL));
    int64_t run = stored_run(store);
    stored_rows(store, run);
    must(mb_store_run_end(store, run, "done", 1, 1, NULL));
    drop_views(store);
    must(mb_store_close(store, NULL));
    must(mb_file_read(source, 1 << 24, &good, &good_size, NULL));
    must(merge_open(&keeping, kept, NULL));
}

static void write_source(const uint8_t *data, size_t size)
{
    size_t length = 0;
    char *bytes = stored_bytes(good, good_size, data, size, &length);
    drop(source);
    must(mb_file_write(source, bytes, length, NULL));
    free(bytes);
}

static char *query(mb_store *store, const char *sql)
{
    mb_text out = {0};
    must(mb_table_query(store, sql, MB_TABLE_CSV, 0, &out, NULL));
    return mb_text_take(&out);
}

/* Everything in the result, as text. */
static char *content(void)
{
    mb_store *store = NULL;
    must(mb_store_open(&store, result, MB_STORE_READ, NULL));
    char *text = query(store, "SELECT * FROM v_content ORDER BY 1, 2, 3");
    must(mb_store_close(store, NULL));
    return text;
}

/* Rows of every table of the result that is kept: v_content takes ten times as long as a merge. */
static char *counts(void)
{
    mb_text sql = {0};
    for (size_t i = 0; i < keeping.tables.count; i++)
        mb_text_printf(&sql, "%s (SELECT count(*) FROM \"%s\")", i ? "," : "SELECT",
                       keeping.tables.all[i].declared->name);
    char *text = query(keeping.out, sql.data);
    mb_text_free(&sql);
    return text;
}

static void expect_equal(char *once, char *twice)
{
    if (!once || !twice || strcmp(once, twice) != 0)
        abort();
    free(once);
    free(twice);
}

static int merge_for_good(const char *const *paths, mb_text *notes, mb_error *err)
{
    drop(result);
    int rc = mb_store_merge(result, paths, 1, NULL, notes, err);
    if (rc != MB_OK) {
        if (mb_file_exists(result))
            abort();
        return rc;
    }
    char *once = content();
    must(mb_store_merge(result, paths, 1, NULL, notes, NULL));
    expect_equal(once, content());
    return rc;
}

static int merge_for_now(const char *const *paths, mb_text *notes, mb_error *err)
{
    must(store_begin(keeping.out, NULL));
    int rc = merge_files(&keeping, paths, 1, notes, err);
    if (rc == MB_OK) {
        char *once = counts();
        must(merge_files(&keeping, paths, 1, notes, NULL));
        expect_equal(once, counts());
    }
    store_end(keeping.out, MB_E_STOP, NULL);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *paths[] = {source};
    mb_error err = {0};
    mb_text notes = {0};
    if (!good)
        make_good();
    write_source(data, size);
    int rc =
        stored_is_one_of_64(data, size) ? merge_for_good(paths, &notes, &err) : merge_for_now(paths, &notes, &err);
    if (rc != MB_OK && !err.text[0])
        abort();
    mb_text_free(&notes);
    return 0;
}
