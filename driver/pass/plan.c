/*
 * plan.c - estimated seconds and memory of a run's parts, from the model's dimensions and two assumed rates.
 *
 * A forward takes the longer of its FLOPs and its bytes: 2 FLOPs for each weight that a token meets and for each
 * of the two products of attention, the weights and the KV cache read once. Methods are counted as exact
 * attention: what a sparse one saves is what the run is to find out. The rates are assumptions; the bar corrects
 * them with the time that work really took, so that only the proportions of the parts matter to it.
 */
#include "driver/pass/plan.h"

#include "driver/pass/latency.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CPU_FLOPS 1e10 /* a thread */
#define CPU_BYTES 1e10
#define GPU_FLOPS 2.5e14
#define GPU_BYTES 2.5e12
#define OVERHEAD_BLOCKS 3 /* of a case: warm-up, launch modes */
#define PROFILED_BLOCKS 4

mb_plan_rate mb_plan_rate_of(const mb_run *run)
{
    const double devices = run->config->parallel;
    if (run->kernels && strcmp(run->kernels->name, "cpu") != 0)
        return (mb_plan_rate){devices * GPU_FLOPS, devices * GPU_BYTES};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = run->config->threads > 0 ? run->config->threads : cores > 0 ? (int)cores : 1;
    return (mb_plan_rate){CPU_FLOPS * threads, CPU_BYTES};
}

/* Weights that one token meets: all but the experts that it does not go to. */
static double active_weights(const mb_model_config *c)
{
    const mb_moe *moe = &c->moe;
    double all = (double)mb_model_weight_bytes(c, MB_BF16) / 2;
    double idle = moe->experts > moe->per_token ? moe->experts - moe->per_token : 0;
    return all - idle * 3.0 * c->hidden * moe->size * (c->layers - moe->dense_layers);
}

/* One forward of `rows` tokens of each of `batch` sequences behind `context` keys. */
static double forward_seconds(const mb_run *run, double rows, double context, double batch)
{
    const mb_model_config *c = &run->model_config;
    mb_plan_rate rate = mb_plan_rate_of(run);
    double element = (double)mb_type_size(run->config->type), weights = active_weights(c);
    double flops = rows * batch * (2 * weights + 4.0 * context * c->layers * c->query_heads * c->head_dim);
    double bytes = element * (weights + 2.0 * batch * context * c->layers * c->kv_heads * c->head_dim);
    return fmax(flops / rate.flops, bytes / rate.bytes);
}

double mb_plan_sample_seconds(const mb_run *run, const mb_task_spec *task)
{
    const mb_run_config *config = run->config;
    int32_t block = run->model_config.block, answer = mb_run_new_tokens(run, task);
    double prompt = (double)mb_task_extent_of(task->task, task->options).prompt_tokens;
    double steps = config->samplers.count && run->samplers[0].schedule == MB_SCHEDULE_FIXED
                       ? run->samplers[0].steps
                       : block / 2.0;
    if (!(prompt > 0))
        prompt = config->max_length ? config->max_length : run->model_config.positions;
    double decode = ceil((double)answer / block) * (steps + 1) * forward_seconds(run, block, prompt, 1);
    /* a prompt is prefilled once for all arms */
    return decode + forward_seconds(run, prompt, prompt / 2, 1) / (run->arm_count ? (double)run->arm_count : 1);
}

static double block_seconds(const mb_run *run, int32_t context, int32_t batch, int32_t steps)
{
    return (steps + 1) * forward_seconds(run, run->model_config.block, context, batch);
}

static double latency_seconds(const mb_run *run, int32_t context, int32_t batch, int32_t steps)
{
    const mb_latency_spec *spec = &run->config->latency;
    double block = block_seconds(run, context, batch, steps);
    double least = spec->blocks_min * block, most = spec->blocks_max * block;
    double measured = fmin(fmax(spec->seconds, least), fmax(most, least));
    return (double)run->config->method_count * (OVERHEAD_BLOCKS * block + measured);
}

static double breakdown_seconds(const mb_run *run, int32_t context, int32_t batch, int32_t steps)
{
    return (double)run->config->method_count * PROFILED_BLOCKS * block_seconds(run, context, batch, steps);
}

bool mb_plan_case_fits(const mb_run *run, const mb_plan_case *c, mb_memory_plan *plan)
{
    mb_device_info info;
    run->kernels->info(run->device, &info);
    mb_plan_memory(run, c->batch, mb_latency_capacity(run, c->context), plan);
    return plan->total <= info.arena_free;
}

double mb_plan_case_seconds(const mb_run *run, const mb_plan_case *c)
{
    mb_memory_plan plan;
    if (!mb_plan_case_fits(run, c, &plan))
        return 0;
    return c->breakdown ? breakdown_seconds(run, c->context, c->batch, c->steps)
                        : latency_seconds(run, c->context, c->batch, c->steps);
}

/* The cases of one context: every batch. Returns their seconds. */
static double walk_batches(const mb_run *run, mb_plan_case c, mb_plan_visit visit, void *self)
{
    const mb_latency_spec *spec = &run->config->latency;
    double sum = 0;
    for (size_t b = 0; b < spec->batches.count; b++) {
        c.batch = spec->batches.values[b];
        sum += mb_plan_case_seconds(run, &c);
        if (visit)
            visit(self, run, &c);
    }
    return sum;
}

double mb_plan_cases(const mb_run *run, mb_plan_visit visit, void *self)
{
    const mb_latency_spec *spec = &run->config->latency;
    const int32_t block = run->model_config.block;
    int32_t longest = 0;
    double sum = 0;
    for (size_t s = 0; s < spec->steps.count; s++)
        longest = spec->steps.values[s] > longest ? spec->steps.values[s] : longest;
    for (size_t x = 0; (run->config->passes & MB_RUN_LATENCY) && x < spec->contexts.count; x++)
        for (size_t s = 0; s < spec->steps.count; s++) {
            int32_t steps = spec->steps.values[s] ? spec->steps.values[s] : block;
            sum += walk_batches(run, (mb_plan_case){.context = spec->contexts.values[x], .steps = steps}, visit,
                                self);
        }
    if (!(run->config->passes & MB_RUN_BREAKDOWN) || !run->kernels->profile_begin)
        return sum;
    for (size_t x = 0; x < spec->breakdown_contexts.count; x++) {
        mb_plan_case c = {
            .breakdown = true, .context = spec->breakdown_contexts.values[x], .steps = longest ? longest : block};
        sum += walk_batches(run, c, visit, self);
    }
    return sum;
}

void mb_plan_memory(const mb_run *run, int32_t batch, int32_t capacity, mb_memory_plan *plan)
{
    const mb_arm *reference = mb_run_reference_arm(run, 0);
    mb_run_memory(run, batch, capacity, 0, reference, reference ? 1 : 0, plan);
}

void mb_plan_print_memory(const mb_memory_plan *plan, char *text, size_t cap)
{
    snprintf(text, cap, "%.2f GiB: weights %.2f, KV %.2f, index %.2f, scratch %.2f", (double)plan->total / 0x1p30,
             (double)plan->weights / 0x1p30, (double)plan->kv / 0x1p30, (double)plan->methods / 0x1p30,
             (double)(plan->activations + plan->logits + plan->statistics) / 0x1p30);
}

static int refuse(const mb_run *run, const char *what, const mb_memory_plan *plan, size_t free_bytes,
                  mb_error *err)
{
    char parts[160];
    mb_plan_print_memory(plan, parts, sizeof parts);
    return mb_fail(err, MB_E_INPUT,
                   "%s cannot fit %s: it takes %s; %.2f GiB are free. A smaller model, context or batch does",
                   what, run->kernels->name, parts, (double)free_bytes / 0x1p30);
}

/* The smallest case of each context: the others are rows with their reason when their turn comes. */
static int check_contexts(const mb_run *run, const mb_key_ints *contexts, size_t free_bytes, mb_error *err)
{
    const mb_latency_spec *spec = &run->config->latency;
    int32_t batch = spec->largest_batch || spec->batches.count == 0 ? 1 : spec->batches.values[0];
    for (size_t b = 0; b < spec->batches.count; b++)
        batch = spec->batches.values[b] < batch ? spec->batches.values[b] : batch;
    for (size_t x = 0; x < contexts->count; x++) {
        char what[96];
        mb_memory_plan plan;
        mb_plan_memory(run, batch, mb_latency_capacity(run, contexts->values[x]), &plan);
        snprintf(what, sizeof what, "a latency case of %d tokens, batch %d,", contexts->values[x], batch);
        if (plan.total > free_bytes)
            return refuse(run, what, &plan, free_bytes, err);
    }
    return MB_OK;
}

int mb_plan_check(const mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    mb_device_info info;
    mb_memory_plan plan;
    run->kernels->info(run->device, &info);
    mb_plan_memory(run, 1, run->capacity, &plan);
    if ((config->passes & MB_RUN_SAMPLES) && plan.total > info.arena_free)
        return refuse(run, "the session of the samples", &plan, info.arena_free, err);
    int rc = config->passes & MB_RUN_LATENCY ? check_contexts(run, &config->latency.contexts, info.arena_free, err)
                                             : MB_OK;
    if (rc == MB_OK && (config->passes & MB_RUN_BREAKDOWN) && run->kernels->profile_begin)
        rc = check_contexts(run, &config->latency.breakdown_contexts, info.arena_free, err);
    return rc;
}
