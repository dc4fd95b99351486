/*
 * setup.c - a run set up and closed: everything open.c opens, one attender or worker an arm, and the identities of
 * the run in the store.
 */
#include "driver/setup.h"

#include "driver/open.h"
#include "driver/os/os.h"
#include "driver/worker/isolate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    mb_prompt_request request = {.text = "", .chat = true, .hard_limit = run->model_config.positions};
    int32_t *ids = NULL;
    size_t n = 0;
    bool truncated;
    char hash[MB_HASH_CAP];
    int rc = mb_prompt_build(run->model, &request, &ids, &n, &truncated, err);
    const char *file = mb_model_chat(run->model, hash);
    run->chat_overhead = (int32_t)n;
    free(ids);
    if (rc == MB_OK && file)
        mb_progress_note(&run->progress, "chat template of the folder: %s (%.8s)", file, hash);
    else if (rc == MB_OK)
        mb_progress_note(&run->progress, "chat format built in for the family %s%s",
                         mb_family_name(run->model_config.family),
                         run->config->chat.source == MB_CHAT_FAMILY ? "" : ": the folder has no chat template");
    return rc;
}

int mb_run_open(mb_run *run, mb_error *err)
{
    mb_run_config *config = run->config;
    int rc = mb_run_open_model(run, err);
    if (rc != MB_OK || config->task_count == 0)
        return rc;
    const mb_tokenizer *tokenizer = mb_model_tokenizer(run->model);
    if (!tokenizer && run->flags.dry_run && run->model_config.synthetic) /* a plan needs the shape alone */
        return MB_OK;
    if (!tokenizer)
        return mb_fail(err, MB_E_INPUT, "%s has no tokenizer, so tasks cannot run", run->model_config.name);
    run->codec = (mb_codec){(void *)(uintptr_t)tokenizer, codec_encode, codec_decode};
    if ((rc = measure_chat(run, err)) != MB_OK)
        return rc;
    const char *rule = mb_sampler_origin(&run->model_config);
    if (rule)
        mb_progress_note(&run->progress, "sampler: %s", rule);
    if (run->flags.dry_run || run->devices || !(config->passes & MB_RUN_SAMPLES))
        return MB_OK;
    rc = mb_run_open_session(run, err);
    for (size_t i = 0; rc == MB_OK && i < run->arm_count; i++) {
        mb_arm *arm = &run->arms[i];
        bool unsupported = false;
        if (mb_arm_wants_worker(run, arm)) {
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

/* What computes a built-in method's rows: another code is another configuration. */
static int built_in_code(const char *name, char hash[MB_HASH_CAP], mb_error *err)
{
    char object[128];
    snprintf(object, sizeof object, "methods/%s", name);
    const char *code = mb_code_hash(object);
    if (!code)
        return mb_fail(err, MB_E_BUG, "method %s has no hash of its code: was it built by this Makefile?", name);
    memcpy(hash, code, MB_HASH_CAP);
    return MB_OK;
}

int mb_run_store_sampler(mb_store *store, const mb_model_config *model, const mb_sampler *sampler, int64_t *id,
                         mb_error *err)
{
    char *options = NULL;
    int rc = mb_config_sampler_options(sampler, model, &options, err);
    mb_sampler_row row = {.schedule = sampler->schedule == MB_SCHEDULE_FIXED ? "fixed" : "threshold",
                          .steps = sampler->steps,
                          .block = model->block,
                          .sub_block = model->sub_block,
                          .threshold = sampler->threshold,
                          .dynamic = sampler->remasking == MB_REMASK_DYNAMIC,
                          .block_cache = sampler->block_cache,
                          .confidence = mb_type_name(sampler->confidence),
                          .options = options};
    if (rc == MB_OK)
        rc = mb_store_sampler(store, &row, id, err);
    free(options);
    return rc;
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
                      .gpu_uuid = run->device_info.uuid,
                      .driver = run->device_info.driver,
                      .cuda = run->device_info.runtime,
                      .device = run->kernels->name,
                      .git = environment.git,
                      .build = environment.build,
                      .detail = run->device_info.detail,
                      .threads = environment.threads};
    int rc = mb_store_env(run->store, &env, &run->env_id, err);
    if (rc == MB_OK)
        rc = mb_store_build(run->store, mb_code_hash("program"), env.git, err);
    if (rc != MB_OK)
        return rc;
    mb_model_hashes(run->model, config_hash, weights_hash, tokenizer_hash);
    mb_model_row model = {.name = run->model_config.name,
                          .family = mb_family_name(run->model_config.family),
                          .config_hash = config_hash,
                          .weights_hash = weights_hash,
                          .tokenizer_hash = tokenizer_hash,
                          .type = mb_type_name(run->config->type),
                          .layers = run->model_config.layers,
                          .query_heads = run->model_config.query_heads,
                          .kv_heads = run->model_config.kv_heads,
                          .head_dim = run->model_config.head_dim,
                          .hidden = run->model_config.hidden,
                          .block = run->model_config.block,
                          .vocab = run->model_config.vocab,
                          .synthetic = run->model_config.synthetic};
    if ((rc = mb_store_model(run->store, &model, &run->model_id, err)) != MB_OK)
        return rc;
    for (size_t i = 0; i < run->config->samplers.count; i++) {
        rc = mb_run_store_sampler(run->store, &run->model_config, &run->samplers[i], &run->sampler_ids[i], err);
        if (rc != MB_OK)
            return rc;
    }
    for (size_t i = 0; i < run->arm_count; i++) {
        const mb_method_spec *spec = run->arms[i].spec;
        char origin[MB_HASH_CAP] = "";
        const char *path = mb_registry_origin(spec->method);
        if (*path && (rc = mb_hash_file(path, origin, err)) != MB_OK)
            return rc;
        if (!*path && (rc = built_in_code(spec->method->name, origin, err)) != MB_OK)
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

int mb_run_register(mb_run *run, const char *command, mb_error *err)
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
                      .env = run->env_id,
                      .shard = run->flags.shard};
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
    mb_team_close(run->team);
    if (run->device)
        run->kernels->close(run->device);
    free(run->arms);
    free(run->faults);
    free(run->samplers);
    free(run->sampler_ids);
    run->arms = NULL;
    run->arm_count = 0;
}
