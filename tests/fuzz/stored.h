/*
 * stored.h - a run with a sample that has rows in every table below it, for the targets that read databases.
 */
#ifndef TESTS_FUZZ_STORED_H
#define TESTS_FUZZ_STORED_H

#include "results/results.h"

#include <stdlib.h>

static void must(int rc)
{
    if (rc != MB_OK)
        abort();
}

static int64_t stored_run(mb_store *store)
{
    int64_t env = 0, run = 0, model = 0;
    must(mb_store_env(store, &(mb_env_row){.host = "h", .threads = 2}, &env, NULL));
    must(mb_store_model(store, &(mb_model_row){.name = "m", .layers = 2, .block = 8}, &model, NULL));
    must(mb_store_run(store, &(mb_run_row){.name = "r", .identity = "{}", .env = env, .shard = {1, 1, 2}}, &run,
                      NULL));
    return run;
}

static void stored_rows(mb_store *store, int64_t run)
{
    int64_t model = 0, data = 0, sampler = 0, config = 0, cell = 0;
    must(mb_store_model(store, &(mb_model_row){.name = "m", .layers = 2, .block = 8}, &model, NULL));
    must(mb_store_dataset(store, &(mb_dataset_row){.task = "t", .max_new_tokens = 8}, &data, NULL));
    must(mb_store_sampler(store, &(mb_sampler_row){.schedule = "fixed", .steps = 2}, &sampler, NULL));
    must(mb_store_config(store, &(mb_config_row){.method = "x", .label = "x", .k = 4}, &config, NULL));
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
}

/* The bytes of a good file with pairs of (offset, byte) laid over them, or the input's own: malloc'ed. */
static char *stored_bytes(const char *good, size_t good_size, const uint8_t *data, size_t size, size_t *length)
{
    char *bytes = malloc(good_size + size + 1);
    *length = good_size;
    if (!bytes)
        abort();
    for (size_t i = 0; i < good_size; i++)
        bytes[i] = good[i];
    if (size && data[0] % 2 == 0) {
        *length = size - 1;
        for (size_t i = 0; i < size - 1; i++)
            bytes[i] = (char)data[i + 1];
    }
    for (size_t i = 1; size && data[0] % 2 && i + 4 <= size; i += 4)
        bytes[((size_t)data[i] << 16 | (size_t)data[i + 1] << 8 | data[i + 2]) % good_size] = (char)data[i + 3];
    return bytes;
}

/* One input of 64, whatever a fuzzer prefers: those that go the long way. */
static bool stored_is_one_of_64(const uint8_t *data, size_t size)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ data[i]) * 16777619u;
    return sum >> 26 == 1;
}

#endif
