/*
 * setup.c - opening a run. Everything that can be refused is refused here, before any work: dimensions against
 * the config, memory against the device, options against the methods.
 */
#include "driver/worker/isolate.h"
#include "driver/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKER_OVERHEAD ((size_t)1 << 30) /* context and work memory of one more process on a GPU */
#define CHAT_ALLOWANCE 256                /* tokens that a chat wrapper may add, before it is measured */

static mb_model_request model_request(const mb_run *run)
{
    const mb_run_config *config = run->config;
    return (mb_model_request){.path = config->model_path,
                              .shape = config->model_shape,
                              .seed = config->model_seed,
                              .block = config->block_size,
                              .positions = config->positions,
                              .unloaded = run->flags.dry_run};
}

/* Largest number under a key of the task's own options, alone, in a list or in a range; 0 = it has none. */
static int32_t largest_option(const mb_task_spec *task, const char *key)
{
    cJSON *options = task->options ? cJSON_Parse(task->options) : NULL;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(options, key), *item;
    double largest = cJSON_IsNumber(value) ? value->valuedouble : 0;
    cJSON_ArrayForEach(item, value)
    {
        if (cJSON_IsNumber(item) && item->valuedouble > largest)
            largest = item->valuedouble;
    }
    cJSON_Delete(options);
    return largest > 0 && largest < 1e9 ? (int32_t)largest : 0;
}

int32_t mb_run_new_tokens(const mb_run *run, const mb_task_spec *task)
{
    const mb_task_info *info = mb_task_find(task->task);
    int32_t own = largest_option(task, "max_new_tokens"), n = info ? info->max_new_tokens : 0;
    n = run->config->max_new_tokens ? run->config->max_new_tokens : own ? own : n;
    return n > 0 ? n : run->shape.block;
}

/* Tokens per sequence that the longest prompt of the config and its answer take. */
static int find_capacity(mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    int64_t need = 0;
    for (size_t i = 0; i < config->task_count; i++) {
        const mb_task_spec *task = &config->tasks[i];
        int64_t answer = mb_run_new_tokens(run, task) + 2 * run->shape.block;
        int64_t prompt = largest_option(task, "lengths"); /* of a generated prompt; 0: the text decides */
        if (prompt > run->shape.positions)
            return mb_fail(
                err, MB_E_INPUT,
                "task %s asks for %lld tokens but %s has %d positions; choose shorter lengths or another model",
                task->task, (long long)prompt, run->shape.name, run->shape.positions);
        if (prompt == 0)
            prompt = config->max_length ? config->max_length : run->shape.positions;
        if (prompt + CHAT_ALLOWANCE + answer > need)
            need = prompt + CHAT_ALLOWANCE + answer;
    }
    if (need > run->shape.positions)
        need = run->shape.positions;
    run->capacity = (int32_t)(need / run->shape.block * run->shape.block);
    return MB_OK;
}

int mb_run_inspect(mb_run *run, mb_error *err)
{
    mb_run_config *config = run->config;
    mb_model_request request = model_request(run);
    int rc = mb_model_inspect(&request, &run->shape, err);
    if (rc != MB_OK)
        return rc;
    if (config->max_length > run->shape.positions)
        return mb_fail(err, MB_E_INPUT, "config key max_length is %d but %s has %d positions", config->max_length,
                       run->shape.name, run->shape.positions);
    run->samplers = calloc(config->samplers.count, sizeof *run->samplers);
    run->sampler_ids = calloc(config->samplers.count, sizeof *run->sampler_ids);
    if (!run->samplers || !run->sampler_ids)
        return mb_no_memory(err, "the run");
    for (size_t i = 0; i < config->samplers.count; i++)
        if ((rc = mb_config_sampler(config, i, &run->shape, &run->samplers[i], err)) != MB_OK)
            return rc;
    if (run->shape.synthetic && (config->passes & MB_RUN_SAMPLES))
        return mb_fail(err, MB_E_INPUT,
                       "%s has random weights and no tokenizer: only the passes latency and breakdown make sense",
                       run->shape.name);
    run->arm_count = config->method_count * config->samplers.count;
    run->arms = calloc(run->arm_count, sizeof *run->arms);
    if (!run->arms)
        return mb_no_memory(err, "the run");
    for (size_t i = 0; i < run->arm_count; i++) {
        run->arms[i].spec = &config->methods[i % config->method_count];
        run->arms[i].sampler = i / config->method_count;
    }
    return find_capacity(run, err);
}

int32_t mb_run_scheduled_steps(const mb_run *run, size_t index)
{
    const mb_sampler *sampler = &run->samplers[index];
    return sampler->schedule == MB_SCHEDULE_FIXED ? sampler->steps : 0;
}

void mb_run_plan(const mb_run *run, int32_t batch, int32_t capacity, int32_t steps, const mb_arm *arms,
                 size_t count, mb_memory_plan *plan)
{
    mb_session_request request = {.batch = batch,
                                  .capacity = capacity,
                                  .prefill_chunk = run->config->prefill_chunk,
                                  .graphs = run->config->graphs};
    size_t methods = 0;
    for (size_t i = 0; i < count; i++) {
        mb_shape shape;
        mb_shape_make(&run->shape, run->config->type, batch, capacity,
                      steps >= 0 ? steps : mb_run_scheduled_steps(run, arms[i].sampler), &shape);
        methods += mb_attender_bytes(arms[i].spec->method, &shape, arms[i].spec->options);
    }
    mb_memory_plan_make(&run->shape, run->config->type, &request, methods, plan);
}

/* Whether a worker of its own runs the method's hooks: a plug-in's, unless this process is that worker. */
static bool is_isolated(const mb_run *run, const mb_arm *arm)
{
    return !run->serving && mb_isolate_is_plugin(arm->spec);
}

/* The plan of the arms that are opened in this process; *workers: whether there are others. */
static int plan_arms(const mb_run *run, mb_memory_plan *plan, bool *workers, mb_error *err)
{
    size_t count = 0;
    mb_arm *arms = calloc(run->arm_count + 1, sizeof *arms);
    if (!arms)
        return mb_no_memory(err, "the run");
    for (size_t i = 0; i < run->arm_count; i++)
        if (!is_isolated(run, &run->arms[i]))
            arms[count++] = run->arms[i];
    *workers = count < run->arm_count;
    mb_run_plan(run, 1, run->capacity, -1, arms, count, plan);
    free(arms);
    return MB_OK;
}

static int open_device(mb_run *run, mb_error *err)
{
    mb_run_config *config = run->config;
    mb_memory_plan plan;
    mb_error note = {0};
    bool workers = false;
    int rc = plan_arms(run, &plan, &workers, err);
    if (rc != MB_OK)
        return rc;
    mb_device_options options = {.type = config->type, .threads = config->threads, .arena_bytes = plan.total};
    if (config->memory_gib > 0 && (double)plan.total > config->memory_gib * 0x1p30)
        return mb_fail(err, MB_E_INPUT,
                       "the plan needs %.2f GiB and memory_gib allows %.2f: fewer methods, a smaller max_length "
                       "or shorter lengths help",
                       (double)plan.total / 0x1p30, config->memory_gib);
    /* Latency cases differ in size and are planned one by one: they share all that there is, less one worker. */
    if (config->passes & MB_RUN_TIMES) {
        options.arena_bytes = (size_t)(config->memory_gib * 0x1p30);
        if (workers && (config->passes & MB_RUN_SAMPLES))
            options.spare_bytes = plan.total + plan.total / 4 + WORKER_OVERHEAD;
    }
    rc = mb_device_open(config->device, &options, &run->kernels, &run->device, &note, err);
    if (rc != MB_OK)
        return mb_fail_prefix(
            err, rc,
            "the plan needs %.2f GiB (weights %.2f, KV cache %.2f, methods %.2f, work %.2f; fewer "
            "methods, a smaller max_length or shorter lengths help)",
            (double)plan.total / 0x1p30, (double)plan.weights / 0x1p30, (double)plan.kv / 0x1p30,
            (double)plan.methods / 0x1p30, (double)(plan.activations + plan.logits + plan.statistics) / 0x1p30);
    run->kernels->info(run->device, &run->device_info);
    if (*note.text)
        mb_progress_note(&run->progress, "%s", note.text);
    mb_progress_note(&run->progress, "device %s: %s (%s)", run->kernels->name, run->device_info.name,
                     run->device_info.detail);
    return MB_OK;
}

static int codec_encode(void *self, const char *text, size_t length, int32_t **ids, size_t *n)
{
    return mb_tokenizer_encode(self, text, length, false, ids, n, NULL);
}

static int codec_decode(void *self, const int32_t *ids, size_t n, char **text)
{
    size_t length;
    return mb_tokenizer_decode(self, ids, n, true, text, &length, NULL);
}

/* Tokens of an empty prompt in the chat wrapper. */
static int measure_chat(mb_run *run, mb_error *err)
{
    mb_prompt_request request = {.text = "", .chat = true, .hard_limit = run->shape.positions};
    int32_t *ids = NULL;
    size_t n = 0;
    bool truncated;
    int rc = mb_prompt_build(run->model, &request, &ids, &n, &truncated, err);
    run->chat_overhead = (int32_t)n;
    free(ids);
    return rc;
}

int mb_run_open_model(mb_run *run, mb_error *err)
{
    mb_model_request request = model_request(run);
    int rc = open_device(run, err);
    return rc == MB_OK ? mb_model_open(&run->model, &request, run->kernels, run->device, run->config->type, err)
                       : rc;
}

int mb_run_open_session(mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    mb_session_request request = {
        .batch = 1, .capacity = run->capacity, .prefill_chunk = config->prefill_chunk, .graphs = config->graphs};
    return mb_session_open(&run->session, run->model, &request, err);
}

int mb_run_open(mb_run *run, mb_error *err)
{
    mb_run_config *config = run->config;
    int rc = mb_run_open_model(run, err);
    if (rc != MB_OK || config->task_count == 0)
        return rc;
    const mb_tokenizer *tokenizer = mb_model_tokenizer(run->model);
    if (!tokenizer)
        return mb_fail(err, MB_E_INPUT, "%s has no tokenizer, so tasks cannot run", run->shape.name);
    run->codec = (mb_codec){(void *)(uintptr_t)tokenizer, codec_encode, codec_decode};
    if ((rc = measure_chat(run, err)) != MB_OK)
        return rc;
    if (run->flags.dry_run || !(config->passes & MB_RUN_SAMPLES))
        return MB_OK;
    rc = mb_run_open_session(run, err);
    for (size_t i = 0; rc == MB_OK && i < run->arm_count; i++) {
        mb_arm *arm = &run->arms[i];
        bool unsupported = false;
        if (is_isolated(run, arm)) {
            rc = mb_isolate_open(run, arm, err);
            continue;
        }
        rc = mb_attender_open(&arm->attender, run->session, arm->spec->method, arm->spec->options,
                              mb_run_scheduled_steps(run, arm->sampler), config->seed, &unsupported, err);
        if (rc != MB_OK && unsupported) {
            snprintf(arm->reason, sizeof arm->reason, "%s", err->text);
            rc = MB_OK;
        } else if (rc != MB_OK) {
            mb_fail_prefix(err, rc, "method %s", arm->spec->label);
        }
    }
    return rc;
}

mb_arm *mb_run_reference_arm(const mb_run *run, size_t sampler)
{
    for (size_t i = 0; i < run->arm_count; i++)
        if (run->arms[i].sampler == sampler && !mb_isolate_is_plugin(run->arms[i].spec) &&
            (run->arms[i].spec->method->caps & MB_CAP_LOSSLESS))
            return &run->arms[i];
    return NULL;
}

mb_arm *mb_run_reference(const mb_run *run, size_t sampler)
{
    mb_arm *arm = mb_run_reference_arm(run, sampler);
    return arm && arm->attender ? arm : NULL;
}

static const char *type_name(mb_type type)
{
    return type == MB_F32 ? "f32" : type == MB_BF16 ? "bf16" : "f16";
}

static int store_identities(mb_run *run, mb_error *err)
{
    mb_environment environment;
    char config_hash[MB_HASH_CAP], weights_hash[MB_HASH_CAP], tokenizer_hash[MB_HASH_CAP];
    bool gpu = strcmp(run->kernels->name, "cpu") != 0;
    mb_environment_read(&environment, run->config->threads);
    mb_env_row env = {.host = environment.host,
                      .os = environment.os,
                      .cpu = environment.cpu,
                      .gpu = gpu ? run->device_info.name : "",
                      .gpu_uuid = "",
                      .driver = "",
                      .cuda = "",
                      .device = run->kernels->name,
                      .git = environment.git,
                      .build = environment.build,
                      .detail = run->device_info.detail,
                      .threads = environment.threads};
    int rc = mb_store_env(run->store, &env, &run->env_id, err);
    if (rc != MB_OK)
        return rc;
    mb_model_hashes(run->model, config_hash, weights_hash, tokenizer_hash);
    mb_model_row model = {.name = run->shape.name,
                          .family = mb_family_name(run->shape.family),
                          .config_hash = config_hash,
                          .weights_hash = weights_hash,
                          .tokenizer_hash = tokenizer_hash,
                          .type = type_name(run->config->type),
                          .layers = run->shape.layers,
                          .query_heads = run->shape.query_heads,
                          .kv_heads = run->shape.kv_heads,
                          .head_dim = run->shape.head_dim,
                          .hidden = run->shape.hidden,
                          .block = run->shape.block,
                          .vocab = run->shape.vocab,
                          .synthetic = run->shape.synthetic};
    if ((rc = mb_store_model(run->store, &model, &run->model_id, err)) != MB_OK)
        return rc;
    for (size_t i = 0; i < run->config->samplers.count; i++) {
        const mb_sampler *s = &run->samplers[i];
        mb_sampler_row row = {.schedule = s->schedule == MB_SCHEDULE_FIXED ? "fixed" : "threshold",
                              .steps = s->steps,
                              .block = run->shape.block,
                              .sub_block = run->shape.sub_block,
                              .threshold = s->threshold,
                              .dynamic = s->dynamic,
                              .block_cache = s->block_cache,
                              .confidence = type_name(s->confidence)};
        if ((rc = mb_store_sampler(run->store, &row, &run->sampler_ids[i], err)) != MB_OK)
            return rc;
    }
    for (size_t i = 0; i < run->arm_count; i++) {
        const mb_method_spec *spec = run->arms[i].spec;
        char origin[MB_HASH_CAP] = "";
        const char *path = mb_registry_origin(spec->method);
        if (*path && (rc = mb_hash_file(path, origin, err)) != MB_OK)
            return rc;
        mb_config_row row = {.method = spec->method->name,
                             .version = spec->method->version,
                             .summary = spec->method->summary,
                             .reference = spec->method->reference,
                             .origin_hash = origin,
                             .options_json = spec->json,
                             .caps = spec->method->caps,
                             .k = spec->k,
                             .label = spec->label};
        if ((rc = mb_store_config(run->store, &row, &run->arms[i].config_id, err)) != MB_OK)
            return rc;
    }
    return MB_OK;
}

int mb_run_open_store(mb_run *run, const char *command, mb_error *err)
{
    int rc = store_identities(run, err);
    if (rc != MB_OK)
        return rc;
    char *stored = NULL, *identity = NULL;
    rc = mb_config_identity(run->config, run->kernels->name, &stored, &identity, err);
    if (rc != MB_OK)
        return rc;
    mb_run_row row = {.name = run->config->name,
                      .config_json = stored,
                      .identity = identity,
                      .command = command,
                      .seed = run->config->seed,
                      .env = run->env_id};
    rc = mb_store_run(run->store, &row, &run->run_id, err);
    free(stored);
    free(identity);
    return rc;
}

void mb_run_close(mb_run *run)
{
    mb_isolate_end(run);
    for (size_t i = run->arm_count; i-- > 0;)
        mb_attender_close(run->arms[i].attender);
    mb_session_close(run->session);
    mb_model_close(run->model);
    if (run->device)
        run->kernels->close(run->device);
    free(run->arms);
    free(run->faults);
    free(run->samplers);
    free(run->sampler_ids);
    run->arms = NULL;
    run->arm_count = 0;
}
