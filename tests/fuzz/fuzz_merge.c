/*
 * fuzz_merge.c - any bytes as a database that is merged. The bytes are laid over a good one: pairs of (offset,
 * byte) where the first byte is odd, the whole file where it is even. Merging ends with a sentence and no result,
 * or with a result that is whole; and what it took, it takes again without a change.
 */
#include "results/results.h"

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

static void must(int rc)
{
    if (rc != MB_OK)
        abort();
}

/* A run with a sample that has rows in every table below it. */
static void make_good(void)
{
    mb_store *store = NULL;
    int64_t env = 0, model = 0, data = 0, sampler = 0, run = 0, config = 0, cell = 0;
    if (!mkdtemp(folder))
        abort();
    snprintf(source, sizeof source, "%s/source.db", folder);
    snprintf(result, sizeof result, "%s/result.db", folder);
    atexit(drop_folder);
    must(mb_store_open(&store, source, MB_STORE_WRITE, NULL));
    must(mb_store_env(store, &(mb_env_row){.host = "h", .threads = 2}, &env, NULL));
    must(mb_store_model(store, &(mb_model_row){.name = "m", .layers = 2, .block = 8}, &model, NULL));
    must(mb_store_dataset(store, &(mb_dataset_row){.task = "t", .max_new_tokens = 8}, &data, NULL));
    must(mb_store_sampler(store, &(mb_sampler_row){.schedule = "fixed", .steps = 2}, &sampler, NULL));
    must(mb_store_config(store, &(mb_config_row){.method = "x", .label = "x", .k = 4}, &config, NULL));
    must(mb_store_run(store, &(mb_run_row){.name = "r", .identity = "{}", .env = env, .shard = {1, 1, 2}}, &run,
                      NULL));
    must(mb_store_cell(store, &(mb_cell_key){run, model, data, config, sampler, "quality"}, &cell, NULL));
    const mb_recall_row recall = {.layer = 1, .step = 1, .blocks = 1, .index_recall = 0.5, .mass_recall = 0.5};
    const mb_counter_row counter = {"hits", "", "higher", "sum", 2};
    const mb_grid_row grid = {"rate", "", "higher", "mean", 0, 1, 3, 4};
    const int32_t histogram[2] = {0, 1};
    must(mb_store_sample(store,
                         &(mb_sample_row){.cell = cell,
                                          .key = "k",
                                          .status = "ok",
                                          .token_hash = "t",
                                          .score = 1,
                                          .depth = -1,
                                          .recalls = &recall,
                                          .recall_count = 1,
                                          .counters = &counter,
                                          .counter_count = 1,
                                          .grids = &grid,
                                          .grid_count = 1,
                                          .forwards_histogram = histogram,
                                          .histogram_size = 2},
                         NULL));
    must(mb_store_latency(store, cell, &(mb_latency_row){.phase = "block", .context = 8, .batch = 1, .us = 3}, 1,
                          NULL));
    must(mb_store_event(store, run, "note", "text", NULL));
    must(mb_store_run_end(store, run, "done", 1, 1, NULL));
    must(mb_store_close(store, NULL));
    must(mb_file_read(source, 1 << 24, &good, &good_size, NULL));
}

static void write_source(const uint8_t *data, size_t size)
{
    char *bytes = malloc(good_size + size);
    size_t length = good_size;
    if (!bytes)
        abort();
    memcpy(bytes, good, good_size);
    if (size && data[0] % 2 == 0)
        memcpy(bytes, data + 1, length = size - 1);
    for (size_t i = 1; size && data[0] % 2 && i + 4 <= size; i += 4)
        bytes[((size_t)data[i] << 16 | (size_t)data[i + 1] << 8 | data[i + 2]) % good_size] = (char)data[i + 3];
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
