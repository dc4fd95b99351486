/*
 * small_store.h - short cuts of the store tests: one environment, model, task, sampler and run, and samples of a
 * line.
 */
#ifndef TESTS_RESULTS_SMALL_STORE_H
#define TESTS_RESULTS_SMALL_STORE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "results/results.h"

typedef struct small_store {
    mb_store *store;
    char path[128];
    mb_error err;
    int64_t env, model, data, sampler, run;
} small_store;

#define OK(call) assert_int_equal((call), MB_OK)

static inline void small_path(small_store *s, const char *name)
{
    const char *folder = getenv("TMPDIR");
    char other[160];
    snprintf(s->path, sizeof s->path, "%s/mb-%s-%ld.db", folder ? folder : "/tmp", name, (long)getpid());
    const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(other, sizeof other, "%s%s", s->path, ends[i]);
        unlink(other);
    }
}

static inline void small_open(small_store *s, uint64_t seed)
{
    mb_env_row env = {.host = "h", .cpu = "c", .device = "cpu", .git = "g", .threads = 2};
    mb_model_row model = {.name = "tiny",
                          .family = "sdar",
                          .config_hash = "a",
                          .weights_hash = "b",
                          .tokenizer_hash = "c",
                          .type = "f32",
                          .layers = 4,
                          .query_heads = 4,
                          .kv_heads = 2,
                          .head_dim = 32,
                          .hidden = 128,
                          .block = 16,
                          .vocab = 100};
    mb_dataset_row data = {"qa", "longbench", "single-doc QA", "en", "qa_f1", "f", "p", NULL, 32};
    mb_sampler_row sampler = {"fixed", 8, 16, 16, 0, false, false, "f32", NULL};
    OK(mb_store_open(&s->store, s->path, MB_STORE_WRITE, &s->err));
    OK(mb_store_env(s->store, &env, &s->env, &s->err));
    OK(mb_store_model(s->store, &model, &s->model, &s->err));
    OK(mb_store_dataset(s->store, &data, &s->data, &s->err));
    OK(mb_store_sampler(s->store, &sampler, &s->sampler, &s->err));
    mb_run_row run = {"small", "{\"tasks\": [\"qa\"], \"limit\": 4}", "{}", "cmd", seed, s->env, {0}};
    OK(mb_store_run(s->store, &run, &s->run, &s->err));
}

static inline void small_close(small_store *s)
{
    OK(mb_store_close(s->store, &s->err));
    s->store = NULL;
}

static inline int64_t small_config(small_store *s, const char *method, uint64_t caps, int64_t k)
{
    char label[64];
    int64_t id = 0;
    if (k >= 0)
        snprintf(label, sizeof label, "%s k=%lld", method, (long long)k);
    else
        snprintf(label, sizeof label, "%s", method);
    mb_config_row row = {method, "1", "words", "paper", NULL, "{}", caps, k, label};
    OK(mb_store_config(s->store, &row, &id, &s->err));
    return id;
}

static inline int64_t small_cell(small_store *s, int64_t config, const char *pass)
{
    mb_cell_key key = {s->run, s->model, strcmp(pass, "latency") ? s->data : 0, config, s->sampler, pass};
    int64_t id = 0;
    OK(mb_store_cell(s->store, &key, &id, &s->err));
    return id;
}

static inline mb_sample_row small_row(int64_t cell, const char *key, double score)
{
    return (mb_sample_row){.cell = cell,
                           .key = key,
                           .status = "ok",
                           .prediction = "answer",
                           .answers_json = "[\"a\"]",
                           .token_hash = key,
                           .score = score,
                           .length = 10,
                           .prompt_tokens = 100,
                           .new_tokens = 16,
                           .blocks = 1,
                           .denoise_forwards = 8,
                           .commit_forwards = 1,
                           .depth = -1,
                           .engaged = 0.5,
                           .work_attend = 0.25,
                           .work_select = 0.125,
                           .prefill_us = 1000,
                           .decode_us = 2000};
}

static inline void small_sample(small_store *s, int64_t cell, const char *key, double score)
{
    mb_sample_row row = small_row(cell, key, score);
    OK(mb_store_sample(s->store, &row, &s->err));
}

/* Result of a query as CSV without its head. */
static inline char *small_query(mb_store *store, const char *sql)
{
    static char text[65536];
    mb_error err = {0};
    mb_text out = {0};
    int rc = mb_table_query(store, sql, MB_TABLE_CSV, 0, &out, &err);
    if (rc != MB_OK)
        fail_msg("%s: %s", sql, err.text);
    const char *line = out.data ? strchr(out.data, '\n') : NULL;
    snprintf(text, sizeof text, "%s", line ? line + 1 : "");
    mb_text_free(&out);
    return text;
}

#endif
