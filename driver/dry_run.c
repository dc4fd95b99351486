/* dry_run.c - what a run would do: cells, samples, memory, and what is stored already. Nothing is computed. */
#include "driver/dry_run.h"

#include "driver/config/keys.h"
#include "driver/pass/pass.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stored rows of the quality cells of one task over all arms. */
static int64_t stored_rows(mb_run *run, int64_t dataset_id, const char *pass)
{
    int64_t stored = 0, cell = 0; /* looking a cell up makes it: the store of a plan is a copy */
    for (size_t i = 0; run->store && i < run->arm_count; i++)
        if (mb_run_cell(run, &run->arms[i], dataset_id, pass, &cell, NULL) == MB_OK)
            stored += mb_store_cell_samples(run->store, cell);
    return stored;
}

static void print_methods(const mb_run *run)
{
    printf("methods    %zu configurations\n", run->config->method_count);
    for (size_t i = 0; i < run->config->method_count; i++)
        printf("             %s\n", run->config->methods[i].label);
    printf("samplers   %zu\n", run->config->samplers.count);
    for (size_t i = 0; i < run->config->samplers.count; i++) {
        const mb_sampler *s = &run->samplers[i];
        if (s->schedule == MB_SCHEDULE_FIXED)
            printf("             fixed, %d steps per block of %d\n", s->steps, run->model_config.block);
        else
            printf("             threshold %g, blocks of %d\n", s->threshold, run->model_config.block);
    }
}

int mb_run_print_plan(mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    int64_t decodes = 0;
    printf("config     %s\n", config->path);
    printf("model      %s: %d layers, %d/%d heads of %d, block %d, %d positions%s\n", run->model_config.name,
           run->model_config.layers, run->model_config.query_heads, run->model_config.kv_heads,
           run->model_config.head_dim, run->model_config.block, run->model_config.positions,
           run->model_config.synthetic ? ", random weights (synthetic)" : "");
    printf("device     %s, %s\n", run->kernels->name, run->device_info.name);
    print_methods(run);
    printf("passes    ");
    for (const mb_key_choice *pass = MB_CONFIG_KEY_OF(passes)->choices; pass->word; pass++)
        if (config->passes & (uint32_t)pass->value)
            printf(" %s", pass->word);
    printf("\n");
    printf("prompts    at most %d tokens with the answer\n", run->capacity);
    printf("%-24s %9s %9s %9s %9s\n", "task", "samples", "new tok", "decodes", "stored");
    for (size_t i = 0; i < config->task_count; i++) {
        int64_t samples = -1, dataset_id = 0, stored = 0;
        const mb_task_spec *spec = &config->tasks[i];
        int rc = mb_run_dataset(run, spec, &samples, &dataset_id, err);
        if (rc != MB_OK)
            return rc;
        stored = stored_rows(run, dataset_id, "quality");
        printf("%-24s ", spec->task);
        if (samples < 0)
            printf("%9s %9d %9s", "in file", mb_run_new_tokens(run, spec), "?");
        else
            printf("%9lld %9d %9lld", (long long)samples, mb_run_new_tokens(run, spec),
                   (long long)(samples * (int64_t)run->arm_count));
        printf(" %9lld\n", (long long)stored);
        decodes += samples > 0 ? samples * (int64_t)run->arm_count : 0;
    }
    if (config->passes & MB_RUN_LATENCY)
        printf("latency    %zu contexts x %zu batches x %zu step counts x %zu methods\n",
               config->latency.contexts.count, config->latency.batches.count + config->latency.largest_batch,
               config->latency.steps.count, config->method_count);
    printf("in all     %lld decodes at least; results in %s, figures in %s\n", (long long)decodes, config->results,
           *config->plots ? config->plots : "(none)");
    return MB_OK;
}
