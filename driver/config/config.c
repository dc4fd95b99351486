/*
 * config.c - from a JSON file and the flags to struct mb_run_config. Checks come first and are complete: a run
 * never starts with a key that it does not understand.
 */
#include "driver/config/keys.h"

#include "driver/os/paths.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX_BYTES (4u << 20)
#define EMBEDDED_CONFIG "configs/quick.json"

/* Line and column of a byte in text, for the sentence about broken JSON. */
static void locate(const char *text, const char *at, int *line, int *column)
{
    *line = 1;
    *column = 1;
    for (; text < at; text++) {
        (*column)++;
        if (*text == '\n') {
            (*line)++;
            *column = 1;
        }
    }
}

static int parse_text(const char *text, size_t size, const char *path, cJSON **json, mb_error *err)
{
    const char *end = NULL;
    if (memchr(text, '\0', size))
        return mb_fail(err, MB_E_INPUT, "%s is not a text file", path);
    *json = cJSON_ParseWithLengthOpts(text, size + 1, &end, true);
    if (!*json) {
        int line, column;
        if (!end || end > text + size)
            end = text + size;
        locate(text, end, &line, &column);
        return mb_fail(err, MB_E_INPUT, "%s is not valid JSON at line %d, column %d", path, line, column);
    }
    if (!cJSON_IsObject(*json))
        return mb_fail(err, MB_E_INPUT, "%s must hold one JSON object", path);
    return MB_OK;
}

/* Which of path and shape counts, as weights says. */
static int finish_model(mb_run_config *config, mb_error *err)
{
    bool synthetic = config->weights == MB_WEIGHTS_DRAWN;
    char **used = synthetic ? &config->model_shape : &config->model_path;
    char **unused = synthetic ? &config->model_path : &config->model_shape;
    free(*unused);
    *unused = NULL;
    if (*used && **used)
        return MB_OK;
    if (synthetic)
        return mb_fail(err, MB_E_INPUT,
                       "config key model.weights is random: model.shape must name the dimensions");
    return mb_fail(err, MB_E_INPUT,
                   "config key model.path must name a checkpoint folder (or model.shape with \"weights\": "
                   "\"random\")");
}

/* "largest" may stand among the batches; the numbers are what remains. */
static int finish_latency(mb_latency_spec *spec, mb_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < spec->batches.count; i++) {
        if (spec->batches.values[i] == MB_BATCH_LARGEST)
            spec->largest_batch = true;
        else
            spec->batches.values[n++] = spec->batches.values[i];
    }
    spec->batches.count = n;
    if (spec->blocks_max < spec->blocks_min)
        return mb_fail(err, MB_E_INPUT, "config key latency.blocks_max is smaller than latency.blocks_min");
    if (spec->breakdown_contexts.values)
        return MB_OK;
    spec->breakdown_contexts.values = calloc(spec->contexts.count, sizeof *spec->breakdown_contexts.values);
    if (!spec->breakdown_contexts.values)
        return mb_no_memory(err, "the config");
    spec->breakdown_contexts.count = spec->contexts.count;
    memcpy(spec->breakdown_contexts.values, spec->contexts.values,
           spec->contexts.count * sizeof *spec->contexts.values);
    return MB_OK;
}

/* The file's name without folder and ending. */
static char *stem_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t n = strcspn(name, ".");
    return mb_string_format("%.*s", (int)(n ? n : 1), n ? name : "run");
}

/* Presets that other values give. */
static int finish_names(mb_run_config *config, const char *path, mb_error *err)
{
    if (!config->name)
        config->name = stem_of(path);
    if (!config->name || !*config->name || strchr(config->name, '/'))
        return mb_fail(err, MB_E_INPUT, "config key name must be text without a slash");
    if (!config->results)
        config->results = mb_string_format("results/%s.db", config->name);
    if (!config->plots)
        config->plots = mb_string_format("results/%s", config->name);
    config->path = mb_string_copy(path);
    return config->results && config->plots && config->path ? MB_OK : mb_no_memory(err, "the config");
}

static int read_all(mb_run_config *config, const char *path, mb_error *err)
{
    int rc = mb_config_check(config->json, "", "", false, err);
    if (rc == MB_OK)
        rc = mb_config_complete(config->json, err);
    if (rc == MB_OK)
        rc = mb_config_fill(config->json, "", config, err);
    if (rc == MB_OK)
        rc = finish_names(config, path, err);
    if (rc == MB_OK)
        rc = finish_model(config, err);
    if (rc == MB_OK)
        rc = finish_latency(&config->latency, err);
    for (const mb_key *key = mb_config_keys; rc == MB_OK && key->name; key++)
        if (key->read)
            rc = key->read(config, err);
    if (rc == MB_OK && config->task_count == 0 && (config->passes & MB_RUN_SAMPLES))
        rc = mb_fail(err, MB_E_INPUT,
                     "config key tasks is empty but the passes need tasks; see `./harness list tasks`");
    return rc;
}

int mb_config_read(mb_run_config *config, const char *text, size_t size, const char *name,
                   const mb_config_flags *flags, mb_error *err)
{
    memset(config, 0, sizeof *config);
    int rc = parse_text(text, size, name, &config->json, err);
    if (rc == MB_OK)
        rc = mb_config_apply(config->json, flags, err);
    if (rc == MB_OK)
        rc = read_all(config, name, err);
    if (rc == MB_OK)
        return rc;
    mb_config_free(config);
    return strstr(err->text, name) ? rc : mb_fail_prefix(err, rc, "%s", name);
}

int mb_config_load(mb_run_config *config, const char *path, const mb_config_flags *flags, mb_error *err)
{
    char *text = NULL, *found = NULL;
    size_t size = 0;
    int rc = MB_OK;
    memset(config, 0, sizeof *config);
    if (path) {
        found = mb_shared_path(path);
        rc = mb_file_read(found ? found : path, CONFIG_MAX_BYTES, &text, &size, err);
        if (rc != MB_OK)
            goto out;
    } else {
        const char *embedded = mb_embedded_find(EMBEDDED_CONFIG, &size);
        text = mb_string_copy(embedded);
        path = EMBEDDED_CONFIG;
        if (!text) {
            rc = mb_fail(err, MB_E_BUG, "the default config was not compiled in; give one with --config FILE");
            goto out;
        }
    }
    rc = mb_config_read(config, text, size, path, flags, err);
out:
    free(found);
    free(text);
    return rc;
}

void mb_config_free(mb_run_config *config)
{
    for (size_t i = 0; i < config->task_count; i++) {
        free(config->tasks[i].task);
        free(config->tasks[i].options);
        free(config->tasks[i].folder);
    }
    for (size_t i = 0; i < config->method_count; i++) {
        free(config->methods[i].options);
        free(config->methods[i].json);
        free(config->methods[i].label);
    }
    free(config->tasks);
    free(config->methods);
    free(config->path);
    mb_config_release("", config);
    cJSON_Delete(config->json);
    memset(config, 0, sizeof *config);
}

int mb_config_sampler(const mb_run_config *config, size_t i, const mb_model_config *model, mb_sampler *sampler,
                      mb_error *err)
{
    mb_sampler_default(model, sampler);
    const int32_t preset = sampler->steps;
    sampler->steps = 0;
    int rc = mb_config_fill(config->samplers.values[i], "sampler", sampler, err);
    if (rc != MB_OK)
        return rc;
    if (sampler->steps == 0)
        sampler->steps = sampler->schedule == MB_SCHEDULE_FIXED || preset <= 0 ? model->block : preset;
    if (sampler->steps > model->block)
        return mb_fail(err, MB_E_INPUT, "config key sampler.steps is %d but a block of this model has %d tokens",
                       sampler->steps, model->block);
    return MB_OK;
}

int mb_config_identity(mb_run_config *config, const char *device, char **stored, char **identity, mb_error *err)
{
    const char *key_device = MB_CONFIG_KEY_OF(device)->name;
    /* "auto" is no identity: results of a GPU and of a CPU are two runs. */
    cJSON_DeleteItemFromObjectCaseSensitive(config->json, key_device);
    cJSON_AddStringToObject(config->json, key_device, device);
    cJSON *plain = cJSON_Duplicate(config->json, true);
    for (const mb_key *key = mb_config_keys; plain && key->name; key++)
        if (!*key->section && key->extends)
            cJSON_DeleteItemFromObjectCaseSensitive(plain, key->name);
    *stored = cJSON_PrintUnformatted(config->json);
    *identity = plain ? cJSON_PrintUnformatted(plain) : NULL;
    cJSON_Delete(plain);
    if (*stored && *identity)
        return MB_OK;
    free(*stored);
    free(*identity);
    *stored = *identity = NULL;
    return mb_no_memory(err, "the run");
}
