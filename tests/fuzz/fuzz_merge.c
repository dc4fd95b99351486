/*
 * fuzz_merge.c - any bytes as a database that is merged. The bytes are laid over a good one: pairs of (offset,
 * byte) where the first byte is odd, the whole file where it is even. Merging ends with a sentence and no result,
 * or with a result that is whole; and what it took, it takes again without a change.
 */
#include "tests/fuzz/stored.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/mb_fuzz_merge_XXXXXX";
static char source[64], result[64];
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
    drop(source);
    drop(result);
    rmdir(folder);
    free(good);
}

static void make_good(void)
{
    mb_store *store = NULL;
    if (!mkdtemp(folder))
        abort();
    snprintf(source, sizeof source, "%s/source.db", folder);
    snprintf(result, sizeof result, "%s/result.db", folder);
    atexit(drop_folder);
    must(mb_store_open(&store, source, MB_STORE_WRITE, NULL));
    int64_t run = stored_run(store);
    stored_rows(store, run);
    must(mb_store_run_end(store, run, "done", 1, 1, NULL));
    must(mb_store_close(store, NULL));
    must(mb_file_read(source, 1 << 24, &good, &good_size, NULL));
}

static void write_source(const uint8_t *data, size_t size)
{
    size_t length = 0;
    char *bytes = stored_bytes(good, good_size, data, size, &length);
    drop(source);
    must(mb_file_write(source, bytes, length, NULL));
    free(bytes);
}

/* Everything in the result, as text. */
static char *content(void)
{
    mb_store *store = NULL;
    mb_text out = {0};
    mb_error err = {0};
    if (mb_store_open(&store, result, MB_STORE_READ, &err) != MB_OK ||
        mb_table_query(store, "SELECT * FROM v_content ORDER BY 1, 2, 3", MB_TABLE_CSV, 0, &out, &err) != MB_OK ||
        mb_store_close(store, &err) != MB_OK)
        abort();
    return mb_text_take(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *paths[] = {source};
    mb_error err = {0};
    mb_text notes = {0};
    if (!good)
        make_good();
    write_source(data, size);
    drop(result);
    int rc = mb_store_merge(result, paths, 1, NULL, &notes, &err);
    if (rc != MB_OK && (!err.text[0] || mb_file_exists(result)))
        abort();
    if (rc == MB_OK) {
        char *once = content();
        must(mb_store_merge(result, paths, 1, NULL, &notes, &err));
        char *twice = content();
        if (!once || !twice || strcmp(once, twice) != 0)
            abort();
        free(once);
        free(twice);
    }
    mb_text_free(&notes);
    return 0;
}
