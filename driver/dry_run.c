/* dry_run.c - what a run would do: cells, samples, memory, and what is stored already. Nothing is computed. */
#include "driver/dry_run.h"

#include "driver/config/keys.h"
#include "driver/os/os.h"
#include "driver/pass/latency.h"
#include "driver/pass/pass.h"
#include "driver/pass/plan.h"

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
        mb_print(stdout, "             %s", run->config->methods[i].label);
    printf("samplers   %zu\n", run->config->samplers.count);
    for (size_t i = 0; i < run->config->samplers.count; i++) {
        const mb_sampler *s = &run->samplers[i];
        if (s->schedule == MB_SCHEDULE_FIXED)
            printf("             fixed, %d steps per block of %d\n", s->steps, run->model_config.block);
        else
            printf("             threshold %g, blocks of %d\n", s->threshold, run->model_config.block);
    }
}

/* What one pass over the samples does: decodes, and the forwards of one prompt each. */
static double print_samples(const mb_run *run, uint32_t pass, const char *name, double decodes, double seconds)
{
    if (!(run->config->passes & pass))
        return 0;
    printf("%-10s %.0f decodes, about %.0f s\n", name, decodes, seconds);
    return seconds;
}

static void print_case(void *self, const mb_run *run, const mb_plan_case *c)
{
    char memory[160];
    mb_memory_plan plan;
    bool fits = mb_plan_case_fits(run, c, &plan);
    (void)self;
    mb_plan_print_memory(&plan, memory, sizeof memory);
    printf("%-10s %d tokens, batch %d, %d steps x %zu methods: about %.0f s; exact takes %s%s\n",
           c->breakdown ? "breakdown" : "latency", c->context, c->batch, c->steps, run->config->method_count,
           mb_plan_case_seconds(run, c), memory, fits ? "" : " - DOES NOT FIT, will not be measured");
}

/* Every case of the passes over fixed work; their seconds. */
static double print_cases(const mb_run *run)
{
    double sum = mb_plan_cases(run, print_case, NULL);
    if ((run->config->passes & MB_RUN_BREAKDOWN) && !run->kernels->profile_begin)
        printf("%-10s no case: this device has no profiler of kernels\n", "breakdown");
    return sum;
}

/* The session of the samples against what is free. */
static void print_memory(const mb_run *run)
{
    char memory[160];
    mb_memory_plan plan;
    mb_device_info info;
    run->kernels->info(run->device, &info);
    size_t count = 0;
    while (count < run->arm_count && !mb_arm_is_plugin(&run->arms[count]))
        count++;
    mb_run_memory(run, 1, run->capacity, -1, run->arms, count, &plan);
    mb_plan_print_memory(&plan, memory, sizeof memory);
    printf("memory     %s; %.2f GiB free\n", memory, (double)info.arena_free / 0x1p30);
    if (run->lanes > 1) {
        const mb_model_config *config = &run->rank_config;
        double token =
            2.0 * config->layers * config->kv_heads * config->head_dim * (double)mb_type_size(run->config->type);
        printf("groups     %d arms of a sample at once; the prompt's keys are there once, each arm has %.1f MiB "
               "for an answer of up to %d tokens\n",
               run->lanes, token * (run->answer + 2 * config->block) / 0x1p20, run->answer);
    }
}

int mb_run_print_plan(mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    int64_t decodes = 0, recalls = 0;
    double seconds = 0, recall_seconds = 0;
    mb_print(stdout, "config     %s", config->path);
    if (run->flags.shard.last)
        printf("shard      %d of %d to %d: the numbers of samples below are those of all shards\n",
               run->flags.shard.number, run->flags.shard.first, run->flags.shard.last);
    mb_print(stdout, "model      %s: %d layers, %d/%d heads of %d, block %d, %d positions%s",
             run->model_config.name, run->model_config.layers, run->model_config.query_heads,
             run->model_config.kv_heads, run->model_config.head_dim, run->model_config.block,
             run->model_config.positions, run->model_config.synthetic ? ", random weights (synthetic)" : "");
    mb_print(stdout, "device     %s, %s", run->kernels->name, run->device_info.name);
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
        samples = samples > 0 ? samples : spec->limit;
        int64_t shadowed = config->recall_limit && config->recall_limit < samples ? config->recall_limit : samples;
        decodes += samples * (int64_t)run->arm_count;
        recalls += shadowed;
        seconds += (double)(samples * (int64_t)run->arm_count) * mb_plan_sample_seconds(run, spec);
        recall_seconds += (double)shadowed * mb_plan_sample_seconds(run, spec);
    }
    if (config->passes & MB_RUN_SAMPLES)
        print_memory(run);
    double all = print_samples(run, MB_RUN_QUALITY, "quality", (double)decodes, seconds) +
                 print_samples(run, MB_RUN_FORCED, "forced", (double)decodes, seconds) +
                 print_samples(run, MB_RUN_RECALL, "recall", (double)recalls, recall_seconds) + print_cases(run);
    mb_plan_rate rate = mb_plan_rate_of(run);
    printf("time       about %.0f s in all: an estimate from the model's FLOPs and bytes at an assumed %.3g "
           "GFLOP/s and "
           "%.3g GB/s, measured nowhere\n",
           all, rate.flops * 1e-9, rate.bytes * 1e-9);
    mb_print(stdout, "in all     %lld decodes at least; results in %s, figures in %s", (long long)decodes,
             config->results, *config->plots ? config->plots : "(none)");
    return MB_OK;
}
