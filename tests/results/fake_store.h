/*
 * fake_store.h - a store as a large run would leave it, for the tests of reports, exports and figures: eight
 * methods at three budgets, tasks of two benchmarks, recall by layer and step, latency at four contexts, memory,
 * breakdowns, counters, also by layer and step, failures. The numbers are invented by formulas (they look like
 * what the literature reports and mean nothing); the same seed gives the same store.
 */
#ifndef TESTS_RESULTS_FAKE_STORE_H
#define TESTS_RESULTS_FAKE_STORE_H

#include "results/results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct fake_method {
    const char *name;
    uint64_t caps;
    double quality; /* share of the top k's mass that it finds at the first step */
    double decay;   /* loss per later step */
    double select;  /* cost of the first step's selection, share of an exact step */
    double later;   /* the same for later steps */
    bool budgeted;
} fake_method;

static const fake_method fake_methods[] = {
    {"exact", 8, 1.00, 0.000, 0.00, 0.00, false}, {"mage", 0, 0.97, 0.006, 0.08, 0.01, true},
    {"oracle", 4, 1.00, 0.000, 1.20, 1.20, true}, {"quest", 0, 0.84, 0.001, 0.06, 0.06, true},
    {"random", 0, 0.22, 0.000, 0.02, 0.02, true}, {"sparsed", 0, 0.90, 0.010, 0.35, 0.01, true},
    {"tidal", 0, 0.92, 0.004, 0.10, 0.04, true},  {"window", 0, 0.55, 0.003, 0.00, 0.00, true},
};
enum {
    FAKE_METHODS = sizeof fake_methods / sizeof *fake_methods,
    FAKE_LAYERS = 12,
    FAKE_STEPS = 8,
    FAKE_HEADS = 2
};

static const char *const fake_tasks[][4] = {
    /* task, category, language, metric */
    {"qasper", "single-doc QA", "en", "qa_f1"},
    {"hotpotqa", "multi-doc QA", "en", "qa_f1"},
    {"gov_report", "summarization", "en", "rouge_l"},
    {"trec", "few-shot", "en", "classification"},
    {"passage_retrieval_en", "synthetic", "en", "retrieval"},
    {"lcc", "code", "python", "code_sim"},
};
enum { FAKE_TASKS = sizeof fake_tasks / sizeof *fake_tasks };

#define FAKE_CHECK(call)                                                                                          \
    do {                                                                                                          \
        if ((call) != MB_OK) {                                                                                    \
            fprintf(stderr, "%s: %s\n", #call, (err)->text);                                                      \
            return MB_E_BUG;                                                                                      \
        }                                                                                                         \
    } while (0)

/* How good a method is at a budget of k tokens in a context, 0..1. */
static double fake_recall(const fake_method *m, int64_t k, int layer, int step)
{
    double budget = k > 0 ? 1 - 0.35 * pow(128.0 / (double)k, 0.6) : 1;
    double shape = 1 - 0.10 * fabs(layer - FAKE_LAYERS * 0.6) / FAKE_LAYERS;
    double r = m->quality * (m->quality < 1 ? budget * shape : 1) - m->decay * (step - 1);
    return r < 0 ? 0 : r > 1 ? 1 : r;
}

static int fake_sample(mb_store *store, int64_t cell, const fake_method *m, int64_t k, const char *task,
                       const char *key, bool adaptive, bool recall, double depth, int32_t context, mb_error *err)
{
    mb_random draw = mb_random_named(7, key); /* the item is as hard for every method */
    mb_random own = mb_random_named(7, task);
    double r = fake_recall(m, k, 6, 3), hard = mb_random_unit(&draw), noise = mb_random_unit(&own) * 0.04;
    int32_t histogram[17] = {0};
    mb_recall_row rows[FAKE_LAYERS * FAKE_STEPS];
    float index_head[FAKE_HEADS], mass_head[FAKE_HEADS];
    char token_hash[MB_HASH_CAP];
    mb_sample_row s = {.cell = cell,
                       .key = key,
                       .status = "ok",
                       .answers_json = "[\"forty-two\", \"42\"]",
                       .token_hash = token_hash,
                       .length = 5000,
                       .prompt_tokens = context ? context : 6000,
                       .context = context,
                       .new_tokens = 64,
                       .blocks = 4,
                       .commit_forwards = 4,
                       .depth = depth,
                       .score = depth >= 0 ? (hard < 0.2 + r * r ? 1 : 0)
                                           : fmin(1, fmax(0, (0.75 - 0.5 * hard + noise) * (0.4 + 0.6 * r))),
                       .prediction = depth >= 0 ? "the magic number is 42" : "forty-two\nand more",
                       .engaged = 1,
                       .work_attend = 1,
                       .prefill_us = 3e5 + 1e4 * mb_random_unit(&own),
                       .decode_us = 2e5};
    mb_counter_row counter = {"refreshes", "selections", "lower", "mean", 3 + hard};
    mb_hash_bytes(key, strlen(key), token_hash);
    for (int b = 0; b < s.blocks; b++) {
        int forwards = adaptive ? 2 + (int)(mb_random_unit(&draw) * (4 + 6 * (1 - r))) : FAKE_STEPS;
        histogram[forwards]++;
        s.denoise_forwards += forwards;
    }
    if (m->budgeted) {
        s.engaged = 10.0 / 12;
        s.work_attend = 2.0 / 12 + 10.0 / 12 * (double)k / 6000 + 0.1 * m->select;
    }
    s.forwards_histogram = histogram;
    s.histogram_size = 17;
    if (m->budgeted && strcmp(m->name, "mage") == 0) {
        s.counters = &counter;
        s.counter_count = 1;
    }
    mb_grid_row places[FAKE_LAYERS * FAKE_STEPS];
    for (int i = 0; s.counters && i < FAKE_LAYERS * FAKE_STEPS; i++) {
        int layer = i / FAKE_STEPS, step = 1 + i % FAKE_STEPS;
        places[i] = (mb_grid_row){
            "hit_rate", "", "higher", "mean", layer, step, 64.0 * (layer + step) / (FAKE_LAYERS + FAKE_STEPS), 64};
        s.grids = places;
        s.grid_count = FAKE_LAYERS * FAKE_STEPS;
    }
    if (recall) {
        for (int layer = 2; layer < FAKE_LAYERS; layer++) { /* two layers dense: no rows */
            for (int step = 1; step <= FAKE_STEPS; step++) {
                double mass = fake_recall(m, k, layer, step) - 0.02 * hard * (m->quality < 1);
                mb_recall_row *row = &rows[s.recall_count++];
                for (int h = 0; h < FAKE_HEADS; h++) {
                    mass_head[h] = (float)mass;
                    index_head[h] = (float)(mass * mass);
                }
                *row = (mb_recall_row){layer, step,       4,          FAKE_HEADS, mass * mass,
                                       mass,  mass * 0.8, index_head, mass_head};
            }
        }
        s.recalls = rows;
        s.sparse_calls = 10 * FAKE_STEPS;
        s.dense_calls = 2 * FAKE_STEPS;
    }
    return mb_store_sample(store, &s, err);
}

/* Times of one method at one context: first, later, commit steps, blocks; raw samples with 3 % jitter. */
static int fake_latency(mb_store *store, int64_t cell, const fake_method *m, int64_t k, int32_t context,
                        int32_t steps, mb_error *err)
{
    enum { REPEATS = 12 };
    static const char *const phases[] = {"first_step", "later_step", "commit", "block", "prefill"};
    mb_latency_row rows[5 * REPEATS];
    double weights_us = 4200, exact_us = 0.12 * context,
           sparse_us = 0.12 * (double)k + 0.02 * context * (2.0 / 12);
    double later = weights_us + (m->budgeted ? exact_us * 2 / 12 + sparse_us + m->later * exact_us : exact_us);
    double first = weights_us + (m->budgeted ? exact_us + m->select * exact_us : exact_us);
    double commit = weights_us + exact_us;
    double times[] = {first, later, commit, first + (steps - 1) * later + commit, context * 45.0};
    mb_random draw = mb_random_named(3, m->name);
    size_t n = 0;
    for (int p = 0; p < 5; p++)
        for (int i = 0; i < REPEATS; i++)
            rows[n++] = (mb_latency_row){.phase = phases[p],
                                         .context = context,
                                         .batch = 1,
                                         .steps = steps,
                                         .us = times[p] * (0.985 + 0.03 * mb_random_unit(&draw)),
                                         .sm_mhz = 1755,
                                         .throttle = 0,
                                         .temperature = 54,
                                         .power = 512,
                                         .graph = true,
                                         .kept = i != 3,
                                         .timer = "cuda_event"};
    FAKE_CHECK(mb_store_latency(store, cell, rows, n, err));
    mb_memory_row memory = {context,
                            1,
                            15000000000ll,
                            context * 57344ll,
                            m->budgeted ? context * (int64_t)(1000 + 4000 * m->select) : 0,
                            600000000ll,
                            0};
    memory.peak = memory.weights + memory.kv + memory.index + memory.scratch;
    FAKE_CHECK(mb_store_memory(store, cell, &memory, err));
    return MB_OK;
}

static int fake_breakdown(mb_store *store, int64_t cell, const fake_method *m, int64_t k, int32_t context,
                          mb_error *err)
{
    double exact_us = 0.12 * context;
    mb_breakdown_row rows[] = {
        {context, 1, "later", "gemm", 3600, 196},
        {context, 1, "later", "dense attention", m->budgeted ? exact_us / 6 : exact_us, m->budgeted ? 4 : 28},
        {context, 1, "later", "selection", m->budgeted ? m->later * exact_us + 40 : 0, 56},
        {context, 1, "later", "sparse attention", m->budgeted ? 0.12 * (double)k + 90 : 0, 24},
        {context, 1, "later", "in-block attention", 110, 28},
        {context, 1, "later", "norms and element-wise", 320, 140},
        {context, 1, "later", "sampler", 90, 6},
        {context, 1, "later", "idle", 80, 0},
    };
    return mb_store_breakdown(store, cell, rows, sizeof rows / sizeof *rows, err);
}

/* All cells of one method configuration. data[FAKE_TASKS] are the tasks' datasets, the last one NIAH's. */
static int fake_arm(mb_store *store, const mb_cell_key *base, const fake_method *m, int64_t k, const int64_t *data,
                    const int64_t *samplers, int samples, mb_error *err)
{
    char key[64];
    for (int adaptive = 0; adaptive < 2; adaptive++) {
        for (int t = 0; t <= FAKE_TASKS; t++) {
            for (int recall = 0; recall < (m->budgeted && !adaptive && t < 2 ? 2 : 1); recall++) {
                mb_cell_key cell_key = *base;
                int64_t cell;
                cell_key.dataset = data[t];
                cell_key.sampler = samplers[adaptive];
                cell_key.pass = recall ? "recall" : "quality";
                FAKE_CHECK(mb_store_cell(store, &cell_key, &cell, err));
                for (int i = 0; i < samples; i++) {
                    if (t < FAKE_TASKS) {
                        snprintf(key, sizeof key, "%s-%03d", fake_tasks[t][0], i);
                        FAKE_CHECK(
                            fake_sample(store, cell, m, k, fake_tasks[t][0], key, adaptive, recall, -1, 0, err));
                        continue;
                    }
                    for (int d = 0; d <= 4; d++) { /* NIAH: a length per i, five depths, three needles */
                        for (int needle = 0; needle < 3; needle++) {
                            int32_t length = 4096 << (i % 4);
                            snprintf(key, sizeof key, "len%d_depth%d_%d_%d", length, 25 * d, needle, i);
                            FAKE_CHECK(fake_sample(store, cell, m, k, "niah_single", key, adaptive, recall,
                                                   25.0 * d, length, err));
                        }
                    }
                }
            }
        }
    }
    mb_cell_key cell_key = *base;
    int64_t cell;
    cell_key.sampler = samplers[0];
    cell_key.pass = "latency";
    FAKE_CHECK(mb_store_cell(store, &cell_key, &cell, err));
    for (int32_t context = 16384; context <= 131072; context *= 2)
        for (int32_t steps = 4; steps <= 32; steps *= 2)
            FAKE_CHECK(fake_latency(store, cell, m, k, context, steps, err));
    cell_key.pass = "breakdown";
    FAKE_CHECK(mb_store_cell(store, &cell_key, &cell, err));
    for (int32_t context = 32768; context <= 131072; context *= 2)
        FAKE_CHECK(fake_breakdown(store, cell, m, k, context, err));
    return MB_OK;
}

/* Writes the store. samples: items per task (NIAH: 15 times as many prompts). */
static int fake_store(const char *path, int samples)
{
    char label[64];
    mb_error failure = {0}, *err = &failure;
    mb_store *store = NULL;
    int64_t env, model, data[FAKE_TASKS + 1], samplers[2], run, cell, config;
    mb_env_row env_row = {.host = "bench",
                          .os = "Linux",
                          .cpu = "a CPU",
                          .gpu = "a GPU",
                          .device = "cuda",
                          .git = "0123456789ab",
                          .build = "test",
                          .threads = 16};
    mb_model_row model_row = {.name = "fake-1b",
                              .family = "sdar",
                              .config_hash = "c",
                              .weights_hash = "w",
                              .tokenizer_hash = "t",
                              .type = "bf16",
                              .layers = FAKE_LAYERS,
                              .query_heads = 8,
                              .kv_heads = FAKE_HEADS,
                              .head_dim = 64,
                              .hidden = 512,
                              .block = 32,
                              .vocab = 1000};
    mb_sampler_row fixed = {"fixed", FAKE_STEPS, 32, 32, 0, false, false, "bf16", NULL};
    mb_sampler_row adaptive = {"threshold", 32, 32, 32, 0.9, true, false, "bf16", NULL};
    FAKE_CHECK(mb_store_open(&store, path, MB_STORE_WRITE, err));
    FAKE_CHECK(mb_store_env(store, &env_row, &env, err));
    FAKE_CHECK(mb_store_model(store, &model_row, &model, err));
    FAKE_CHECK(mb_store_sampler(store, &fixed, &samplers[0], err));
    FAKE_CHECK(mb_store_sampler(store, &adaptive, &samplers[1], err));
    for (int t = 0; t <= FAKE_TASKS; t++) {
        bool niah = t == FAKE_TASKS;
        mb_dataset_row row = {niah ? "niah_single" : fake_tasks[t][0],
                              niah ? "niah" : "longbench",
                              niah ? "needle" : fake_tasks[t][1],
                              niah ? "en" : fake_tasks[t][2],
                              niah ? "contains" : fake_tasks[t][3],
                              "file",
                              "prompt",
                              NULL,
                              64};
        FAKE_CHECK(mb_store_dataset(store, &row, &data[t], err));
    }
    mb_run_row row_run = {"fake", "{\"methods\": [\"all\"]}", "{}", "harness", 42, env, {0}};
    FAKE_CHECK(mb_store_run(store, &row_run, &run, err));
    for (int m = 0; m < FAKE_METHODS; m++) {
        for (int64_t k = 256; k <= (fake_methods[m].budgeted ? 1024 : 256); k *= 2) {
            snprintf(label, sizeof label, fake_methods[m].budgeted ? "%s k=%lld" : "%s", fake_methods[m].name,
                     (long long)k);
            mb_config_row row = {fake_methods[m].name,
                                 "1",
                                 "summary",
                                 "paper",
                                 "",
                                 "{}",
                                 fake_methods[m].caps,
                                 fake_methods[m].budgeted ? k : -1,
                                 label};
            FAKE_CHECK(mb_store_config(store, &row, &config, err));
            mb_cell_key key = {.run = run, .model = model, .config = config};
            FAKE_CHECK(fake_arm(store, &key, &fake_methods[m], k, data, samplers, samples, err));
        }
    }
    mb_config_row mac = {"mac", "1", "reuse", "paper", "", "{}", 1, 512, "mac k=512"};
    FAKE_CHECK(mb_store_config(store, &mac, &config, err));
    mb_cell_key key = {run, model, data[0], config, samplers[0], "quality"};
    FAKE_CHECK(mb_store_cell(store, &key, &cell, err));
    FAKE_CHECK(mb_store_cell_state(store, cell, "skipped",
                                   "needs queries before RoPE, which this model does not keep", err));
    FAKE_CHECK(mb_store_event(store, run, "note", "the store of a test", err));
    FAKE_CHECK(mb_gates_run(store, run, err));
    FAKE_CHECK(mb_store_run_end(store, run, "done", 12.5, 1 << 28, err));
    FAKE_CHECK(mb_store_close(store, err));
    return MB_OK;
}

#endif
