/*
 * config.c - from a JSON file and the flags to struct mb_run_config. Checks come first and are complete: a run
 * never starts with a key that it does not understand.
 */
#include "driver/config/keys.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EMBEDDED_CONFIG "configs/quick.json"

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

/* The run of this JSON, which becomes its own. */
static int read_one(mb_run_config *config, cJSON *json, const char *path, mb_error *err)
{
    memset(config, 0, sizeof *config);
    config->json = json;
    int rc = json ? read_all(config, path, err) : mb_no_memory(err, "the config");
    if (rc != MB_OK)
        mb_config_free(config);
    return rc;
}

int mb_config_flags_only(mb_run_config *config, const mb_config_flags *flags, mb_error *err)
{
    memset(config, 0, sizeof *config);
    config->json = cJSON_CreateObject();
    /* Text that stands for a section's object, so that a flag for another key of it adds to it. */
    for (const mb_key *key = mb_config_keys; config->json && key->name; key++)
        if (!*key->section && key->type == MB_KEY_SECTION && key->shorthand)
            cJSON_AddItemToObject(config->json, key->name, mb_key_preset(key));
    int rc = config->json ? mb_config_apply(config->json, flags, err) : mb_no_memory(err, "the flags");
    if (rc == MB_OK)
        rc = mb_config_complete(config->json, err);
    if (rc == MB_OK)
        rc = mb_config_check(config->json, "", "", false, err);
    if (rc == MB_OK)
        rc = mb_config_fill(config->json, "", config, err);
    if (rc != MB_OK)
        mb_config_free(config);
    return rc;
}

void mb_config_list_free(mb_config_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mb_config_free(&list->configs[i]);
    free(list->configs);
    *list = (mb_config_list){NULL, 0};
}

/* All runs of a file with the flags on top. */
static int read_list(mb_config_list *list, const cJSON *file, const char *path, const mb_config_flags *flags,
                     mb_error *err)
{
    cJSON *json = cJSON_Duplicate(file, true);
    size_t total = 0;
    *list = (mb_config_list){NULL, 0};
    int rc = json ? mb_config_apply(json, flags, err) : mb_no_memory(err, "the config");
    if (rc == MB_OK && cJSON_HasObjectItem(json, MB_CONFIG_KEY_OF(base)->name))
        rc = mb_fail(err, MB_E_INPUT, "config key %s is read from a file only: write a config that has it",
                     MB_CONFIG_KEY_OF(base)->name);
    if (rc == MB_OK)
        rc = mb_config_count(json, &total, err);
    if (rc == MB_OK && !(list->configs = calloc(total, sizeof *list->configs)))
        rc = mb_no_memory(err, "the runs");
    for (size_t i = 0; rc == MB_OK && i < total; i++) {
        mb_text label = {0};
        rc = read_one(&list->configs[i], mb_config_pick(json, i, &label), path, err);
        if (rc == MB_OK) {
            list->count++;
            list->configs[i].label = mb_text_take(&label);
        }
        mb_text_free(&label);
    }
    cJSON_Delete(json);
    if (rc != MB_OK)
        mb_config_list_free(list);
    return rc;
}

/* What brought the mistake that err speaks of: the first --set or flag with which it is there, else the file. */
static int blame(const cJSON *file, const char *path, const mb_config_flags *flags, mb_error *err)
{
    const size_t total = flags->set_count + flags->value_count;
    if (strncmp(err->text, "--", 2) == 0)
        return err->code;
    for (size_t n = 0; n <= total; n++) {
        mb_config_flags some = *flags;
        mb_config_list list;
        mb_error own = {0};
        some.set_count = n < flags->set_count ? n : flags->set_count;
        some.value_count = n - some.set_count;
        if (read_list(&list, file, path, &some, &own) == MB_OK)
            mb_config_list_free(&list);
        else if (strcmp(own.text, err->text) == 0 && n == 0)
            return strstr(err->text, path) ? err->code : mb_fail_prefix(err, err->code, "%s", path);
        else if (strcmp(own.text, err->text) == 0 && n <= flags->set_count)
            return mb_fail_prefix(err, err->code, "--set %s", flags->sets[n - 1]);
        else if (strcmp(own.text, err->text) == 0) {
            const mb_config_value *value = &flags->values[n - 1 - flags->set_count];
            return mb_fail_prefix(err, err->code, "%.*s %s", (int)strcspn(value->key->flag, " "), value->key->flag,
                                  value->text);
        }
    }
    return err->code;
}

static int read_text(mb_config_list *list, const char *text, size_t size, const char *path,
                     const mb_config_flags *flags, mb_error *err)
{
    cJSON *file = NULL;
    mb_error own = {0};
    *list = (mb_config_list){NULL, 0};
    int rc = mb_config_text(text, size, path, &file, &own);
    if (rc == MB_OK)
        rc = mb_config_resolve(&file, path, &own);
    if (rc == MB_OK && (rc = read_list(list, file, path, flags, &own)) != MB_OK)
        blame(file, path, flags, &own);
    cJSON_Delete(file);
    return rc == MB_OK ? rc : mb_fail(err, rc, "%s", own.text);
}

int mb_config_read(mb_run_config *config, const char *text, size_t size, const char *name,
                   const mb_config_flags *flags, mb_error *err)
{
    mb_config_list list;
    memset(config, 0, sizeof *config);
    int rc = read_text(&list, text, size, name, flags, err);
    if (rc == MB_OK && list.count != 1)
        rc = mb_fail(err, MB_E_INPUT, "%s stands for %zu runs where one is wanted", name, list.count);
    if (rc == MB_OK) {
        *config = list.configs[0];
        list.count = 0;
    }
    mb_config_list_free(&list);
    return rc;
}

int mb_config_load(mb_config_list *list, const char *path, const mb_config_flags *flags, mb_error *err)
{
    char *text = NULL, *found = NULL;
    size_t size = 0;
    int rc = MB_OK;
    *list = (mb_config_list){NULL, 0};
    if (path) {
        found = mb_shared_path(path);
        path = found ? found : path;
        rc = mb_file_read(path, MB_CONFIG_MAX_BYTES, &text, &size, err);
    } else {
        const char *embedded = mb_embedded_find(EMBEDDED_CONFIG, &size);
        text = mb_string_copy(embedded);
        path = EMBEDDED_CONFIG;
        if (!text)
            rc = mb_fail(err, MB_E_BUG, "the default config was not compiled in; give one with --config FILE");
    }
    if (rc == MB_OK)
        rc = read_text(list, text, size, path, flags, err);
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
    free(config->label);
    mb_config_release("", config);
    cJSON_Delete(config->json);
    memset(config, 0, sizeof *config);
}

int mb_config_sampler(const mb_run_config *config, size_t i, const mb_model_config *model, mb_sampler *sampler,
                      mb_error *err)
{
    const cJSON *object = config->samplers.values[i];
    mb_sampler_default(model, sampler);
    /* Schedule and mode choose the presets of the other keys, so the object is read twice. */
    int rc = mb_config_fill(object, "sampler", sampler, err);
    if (rc != MB_OK)
        return rc;
    mb_sampler_preset(model, sampler->schedule, sampler->mode, sampler);
    if ((rc = mb_config_fill(object, "sampler", sampler, err)) != MB_OK)
        return rc;
    if (model->canvas.steps == 0 && sampler->steps > model->block)
        return mb_fail(err, MB_E_INPUT, "config key sampler.steps is %d but a block of this model has %d tokens",
                       sampler->steps, model->block);
    return mb_sampler_check(model, sampler, err);
}

static void put_value(mb_text *text, const mb_key *key, const void *base)
{
    const char *field = (const char *)base + key->offset;
    int32_t narrow = 0;
    int64_t wide = 0;
    double real = 0;
    if (key->type == MB_KEY_REAL)
        memcpy(&real, field, sizeof real);
    else if (key->size == sizeof wide)
        memcpy(&wide, field, sizeof wide);
    else if (key->type == MB_KEY_BOOL)
        wide = *(const bool *)field;
    else
        wide = (memcpy(&narrow, field, sizeof narrow), narrow);
    mb_text_printf(text, "%s%s=", text->length ? " " : "", key->name);
    for (const mb_key_choice *c = key->choices; c && c->word; c++)
        if (c->value == wide) {
            mb_text_puts(text, c->word);
            return;
        }
    if (key->type == MB_KEY_BOOL)
        mb_text_puts(text, wide ? "true" : "false");
    else if (key->type == MB_KEY_REAL)
        mb_text_printf(text, "%.17g", real);
    else
        mb_text_printf(text, "%lld", (long long)wide);
}

int mb_config_sampler_options(const mb_sampler *sampler, const mb_model_config *model, char **text, mb_error *err)
{
    mb_text options = {0};
    mb_sampler preset;
    mb_sampler_preset(model, sampler->schedule, MB_SAMPLER_PLAIN, &preset);
    *text = NULL;
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (key->stored && strcmp(key->stored, MB_KEY_SAMPLER_OPTIONS) == 0 &&
            memcmp((const char *)sampler + key->offset, (const char *)&preset + key->offset, key->size) != 0)
            put_value(&options, key, sampler);
    if (options.length == 0 && !options.failed)
        return MB_OK;
    *text = mb_text_take(&options);
    return *text ? MB_OK : mb_no_memory(err, "the options of a sampler");
}

/* What a section that only extends a run has of keys that make another one, where they are not at their preset. */
static void keep_separating(cJSON *plain, const mb_key *section)
{
    cJSON *given = cJSON_DetachItemFromObjectCaseSensitive(plain, section->name), *kept = cJSON_CreateObject();
    for (const mb_key *key = mb_config_keys; key->name && cJSON_IsObject(given); key++) {
        if (strcmp(key->section, section->name) != 0 || !key->separates)
            continue;
        cJSON *value = cJSON_DetachItemFromObjectCaseSensitive(given, key->name),
              *preset = cJSON_Parse(key->preset);
        if (value && !cJSON_Compare(value, preset, true))
            cJSON_AddItemToObject(kept, key->name, value);
        else
            cJSON_Delete(value);
        cJSON_Delete(preset);
    }
    cJSON_Delete(given);
    if (kept && kept->child)
        cJSON_AddItemToObject(plain, section->name, kept);
    else
        cJSON_Delete(kept);
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
            keep_separating(plain, key);
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
