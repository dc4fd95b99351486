/*
 * arm.c - what the passes of a run share: which arm is the reference, what arms need of the device, the cells and
 * rows that they fill, and what a decode asks of the model.
 */
#include "driver/arm.h"

#include "driver/os/os.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- sizes ---- */

int32_t mb_run_new_tokens(const mb_run *run, const mb_task_spec *task)
{
    int32_t own = mb_task_extent_of(task->task, task->options).new_tokens;
    int32_t n = run->config->max_new_tokens ? run->config->max_new_tokens : own;
    return n > 0 ? n : run->model_config.block;
}

int32_t mb_run_scheduled_steps(const mb_run *run, size_t index)
{
    const mb_sampler *sampler = &run->samplers[index];
    return sampler->schedule == MB_SCHEDULE_FIXED ? sampler->steps : 0;
}

void mb_run_memory(const mb_run *run, int32_t batch, int32_t capacity, int32_t steps, const mb_arm *arms,
                   size_t count, mb_memory_plan *plan)
{
    mb_session_request request = {.batch = batch,
                                  .capacity = capacity,
                                  .prefill_chunk = run->config->prefill_chunk,
                                  .graphs = run->config->graphs,
                                  .lanes = steps < 0 ? run->lanes : 1,
                                  .answer = run->answer};
    size_t methods = 0;
    for (size_t i = 0; i < count; i++) {
        mb_shape shape;
        mb_shape_make(&run->rank_config, run->config->type, batch, capacity,
                      steps >= 0 ? steps : mb_run_scheduled_steps(run, arms[i].sampler), &shape);
        methods += mb_attender_bytes(arms[i].spec->method, &shape, arms[i].spec->options);
    }
    mb_memory_plan_make(&run->rank_config, run->config->type, &request, methods, plan);
}

int32_t mb_latency_capacity(const mb_run *run, int32_t context)
{
    return context + 2 * run->model_config.block;
}

/* ---- arms ---- */

mb_arm *mb_run_reference_arm(const mb_run *run, size_t sampler)
{
    for (size_t i = 0; i < run->arm_count; i++)
        if (run->arms[i].sampler == sampler && !mb_arm_is_plugin(&run->arms[i]) &&
            (run->arms[i].spec->method->caps & MB_CAP_LOSSLESS))
            return &run->arms[i];
    return NULL;
}

mb_arm *mb_run_reference(const mb_run *run, size_t sampler)
{
    mb_arm *arm = mb_run_reference_arm(run, sampler);
    return arm && arm->attender ? arm : NULL;
}

bool mb_arm_is_plugin(const mb_arm *arm)
{
    return *mb_registry_origin(arm->spec->method) != '\0';
}

bool mb_arm_wants_worker(const mb_run *run, const mb_arm *arm)
{
    return !run->serving && mb_arm_is_plugin(arm);
}

/* Methods of the tree are held to their budgets by tests; some share k among layers. */
int64_t mb_arm_budget(const mb_arm *arm)
{
    bool shared = arm->spec->method->caps & MB_CAP_LAYER_BUDGET;
    return mb_arm_is_plugin(arm) && !shared ? mb_attender_budget(arm->spec->method, arm->spec->options) : 0;
}

const char *mb_arm_fault(const mb_run *run, const mb_arm *arm, int32_t context)
{
    for (size_t i = 0; i < run->fault_count; i++)
        if (run->faults[i].spec == arm->spec && run->faults[i].context == context)
            return run->faults[i].reason;
    return NULL;
}

/* ---- samples ---- */

int32_t mb_run_answer_tokens(const mb_run *run, const mb_sample *sample)
{
    return run->config->max_new_tokens ? run->config->max_new_tokens : sample->max_new_tokens;
}

int mb_run_prefill(mb_run *run, mb_prepared *prepared, mb_error *err)
{
    if (prepared->prefilled)
        return MB_OK;
    int rc = mb_session_prefill(run->session, 0, prepared->ids, prepared->count, &prepared->prefill_us, err);
    prepared->prefilled = rc == MB_OK;
    return rc;
}

void mb_run_sample_row(const mb_prepared *prepared, int64_t cell, mb_sample_row *row)
{
    const mb_sample *sample = prepared->sample;
    *row = (mb_sample_row){.cell = cell,
                           .key = sample->key,
                           .status = "ok",
                           .answers_json = prepared->answers_json,
                           .classes_json = prepared->classes_json,
                           .group = sample->group,
                           .token_hash = prepared->token_hash,
                           .score = NAN,
                           .length = sample->length,
                           .prompt_tokens = (int32_t)prepared->count,
                           .context = sample->context,
                           .depth = sample->depth,
                           .truncated = prepared->truncated,
                           .prefill_us = prepared->prefill_us};
}

int mb_run_cell(mb_run *run, const mb_arm *arm, int64_t dataset_id, const char *pass, int64_t *cell, mb_error *err)
{
    mb_cell_key key = {.run = run->run_id,
                       .model = run->model_id,
                       .dataset = dataset_id,
                       .config = arm->config_id,
                       .sampler = run->sampler_ids[arm->sampler],
                       .pass = pass};
    return mb_store_cell(run->store, &key, cell, err);
}

size_t mb_pass_index(const char *pass)
{
    static const char *const passes[MB_SAMPLE_PASSES] = {"quality", "recall", "forced"};
    size_t i = 0;
    while (i + 1 < MB_SAMPLE_PASSES && strcmp(passes[i], pass) != 0)
        i++;
    return i;
}

bool mb_run_stored(mb_run *run, const mb_prepared *prepared, const mb_arm *arm, const char *pass, int64_t cell)
{
    bool stored = run->stored ? run->stored[mb_pass_index(pass) * run->arm_count + (size_t)(arm - run->arms)]
                              : mb_store_has_sample(run->store, cell, prepared->sample->key);
    run->reused += stored;
    return stored;
}

/* Of what is drawn for an item: the run's seed and the item's key, so that neither the arm, nor its place in the
 * run, nor the items before it count. */
static uint64_t item_seed(const mb_run *run, const char *key)
{
    mb_random random = mb_random_named(run->config->seed, key);
    return mb_random_next(&random);
}

void mb_run_request(const mb_run *run, const mb_prepared *prepared, size_t sampler, mb_decode_request *request)
{
    const mb_sample *sample = prepared->sample;
    *request = (mb_decode_request){.sampler = &run->samplers[sampler],
                                   .max_new_tokens = mb_run_answer_tokens(run, sample),
                                   .min_new_tokens = sample->stop_newline ? 1 : 0,
                                   .extra_stop_id = -1,
                                   .request = prepared->number,
                                   .seed = item_seed(run, sample->key),
                                   .stop = &mb_interrupted};
    if (sample->stop_newline) { /* the last token of "\n", as the benchmark takes it */
        int32_t *ids = NULL;
        size_t n = 0;
        if (run->codec.encode(run->codec.self, "\n", 1, &ids, &n) == MB_OK && n > 0)
            request->extra_stop_id = ids[n - 1];
        free(ids);
    }
}
