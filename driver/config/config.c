/*
 * config.c - from a JSON file and the flags to struct mb_run_config. Checks come first and are complete: a run
 * never starts with a key that it does not understand.
 */
#include "driver/config/config.h"
#include "driver/config/methods.h"
#include "driver/os/paths.h"

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

/* The member of an object or, by its number, the entry of a list; NULL = it has none. */
static cJSON *child_of(const cJSON *at, const char *name)
{
    char *end = NULL;
    if (!cJSON_IsArray(at))
        return cJSON_GetObjectItemCaseSensitive(at, name);
    long index = strtol(name, &end, 10);
    return *name && !*end && index >= 0 && index < cJSON_GetArraySize(at) ? cJSON_GetArrayItem(at, (int)index)
                                                                          : NULL;
}

/* value in place of the child, or as a new member of an object. */
static void put_child(cJSON *at, const char *name, cJSON *value)
{
    cJSON *old = child_of(at, name);
    if (cJSON_IsArray(at)) {
        cJSON_ReplaceItemViaPointer(at, old, value);
        return;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(at, name);
    cJSON_AddItemToObject(at, name, value);
}

/* A model or a task may be given as text: the object that says the same, so that a key can be put beside it. */
static cJSON *as_object(cJSON *at, const char *name, cJSON *child, bool is_task)
{
    if (!cJSON_IsString(child) || (!is_task && strcmp(name, "model") != 0))
        return child;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, is_task ? "task" : "path", child->valuestring);
    put_child(at, name, object);
    return object;
}

/* Puts value at the dotted path below root, making objects on the way. */
static int set_path(cJSON *root, const char *path, cJSON *value, mb_error *err)
{
    char *copy = mb_string_copy(path);
    cJSON *at = root, *tasks = cJSON_GetObjectItemCaseSensitive(root, "tasks");
    int rc = MB_OK;
    char *name = copy, *dot;
    if (!copy || !value) {
        rc = mb_no_memory(err, "--set %s", path);
        goto out;
    }
    while ((dot = strchr(name, '.')) != NULL) {
        *dot = '\0';
        cJSON *next = as_object(at, name, child_of(at, name), at == tasks);
        if (!next && cJSON_IsObject(at))
            next = cJSON_AddObjectToObject(at, name);
        if (!cJSON_IsObject(next) && !cJSON_IsArray(next)) {
            rc = mb_fail(err, MB_E_INPUT, "--set %s: %s is not an object in this config", path, name);
            goto out;
        }
        at = next;
        name = dot + 1;
    }
    if (*name == '\0') {
        rc = mb_fail(err, MB_E_INPUT, "--set %s: the key is empty", path);
    } else if (cJSON_IsArray(at) && !child_of(at, name)) {
        rc =
            mb_fail(err, MB_E_INPUT,
                    "--set %s: that is a list of %d here; name one of its entries by number, e.g. sampler.0.steps",
                    path, cJSON_GetArraySize(at));
    } else {
        put_child(at, name, value);
        value = NULL;
    }
out:
    cJSON_Delete(value);
    free(copy);
    return rc;
}

/* --set key=value: the value is JSON where it parses as JSON, else text. */
static int apply_set(cJSON *root, const char *assignment, mb_error *err)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment)
        return mb_fail(err, MB_E_INPUT, "--set %s: write it as key=value, e.g. --set limit=20", assignment);
    char *path = mb_string_copy(assignment);
    if (!path)
        return mb_no_memory(err, "--set");
    path[equals - assignment] = '\0';
    cJSON *value = cJSON_ParseWithOpts(equals + 1, NULL, true);
    if (!value)
        value = cJSON_CreateString(equals + 1);
    int rc = set_path(root, path, value, err);
    free(path);
    return rc;
}

static cJSON *split_list(const char *list)
{
    cJSON *array = cJSON_CreateArray();
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");
        if (n) {
            char *item = mb_string_format("%.*s", (int)n, p);
            cJSON_AddItemToArray(array, cJSON_CreateString(item ? item : ""));
            free(item);
        }
        p += n + (p[n] == ',');
    }
    return array;
}

/* --tasks keeps the config's own keys of a task that it names. */
static cJSON *choose_tasks(const cJSON *tasks, const char *list)
{
    cJSON *names = split_list(list), *chosen = cJSON_CreateArray();
    const cJSON *name, *task;
    cJSON_ArrayForEach(name, names)
    {
        bool found = false;
        cJSON_ArrayForEach(task, tasks)
        {
            const char *known = cJSON_IsString(task)
                                    ? task->valuestring
                                    : cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(task, "task"));
            if (known && strcmp(known, name->valuestring) == 0) {
                cJSON_AddItemToArray(chosen, cJSON_Duplicate(task, true));
                found = true;
            }
        }
        if (!found)
            cJSON_AddItemToArray(chosen, cJSON_CreateString(name->valuestring));
    }
    cJSON_Delete(names);
    return chosen;
}

/* --methods keeps the config's options of a method that it names; others run with their defaults. */
static cJSON *choose_methods(const cJSON *methods, const char *list)
{
    cJSON *names = split_list(list), *chosen = cJSON_CreateObject();
    const cJSON *name;
    cJSON_ArrayForEach(name, names)
    {
        const cJSON *known = cJSON_GetObjectItemCaseSensitive(methods, name->valuestring);
        cJSON_DeleteItemFromObjectCaseSensitive(chosen, name->valuestring);
        cJSON_AddItemToObject(chosen, name->valuestring,
                              known ? cJSON_Duplicate(known, true) : cJSON_CreateObject());
    }
    cJSON_Delete(names);
    return chosen;
}

static void replace(cJSON *root, const char *key, cJSON *value)
{
    cJSON_DeleteItemFromObjectCaseSensitive(root, key);
    cJSON_AddItemToObject(root, key, value);
}

/* The flags win over --set, which wins over the file. */
static int apply_flags(cJSON *root, const mb_config_flags *flags, mb_error *err)
{
    for (size_t i = 0; i < flags->set_count; i++) {
        int rc = apply_set(root, flags->sets[i], err);
        if (rc != MB_OK)
            return rc;
    }
    if (flags->model) {
        cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model");
        if (cJSON_IsObject(model)) {
            cJSON_DeleteItemFromObjectCaseSensitive(model, "shape");
            cJSON_DeleteItemFromObjectCaseSensitive(model, "weights");
            replace(model, "path", cJSON_CreateString(flags->model));
        } else {
            replace(root, "model", cJSON_CreateString(flags->model));
        }
    }
    if (flags->data)
        replace(root, "data", cJSON_CreateString(flags->data));
    if (flags->device)
        replace(root, "device", cJSON_CreateString(flags->device));
    if (flags->limit >= 0)
        replace(root, "limit", cJSON_CreateNumber((double)flags->limit));
    if (flags->seed >= 0)
        replace(root, "seed", cJSON_CreateNumber((double)flags->seed));
    if (flags->database)
        replace(root, "results", cJSON_CreateString(flags->database));
    if (flags->plots)
        replace(root, "plots", cJSON_CreateString(flags->plots));
    if (flags->tasks)
        replace(root, "tasks", choose_tasks(cJSON_GetObjectItemCaseSensitive(root, "tasks"), flags->tasks));
    if (flags->methods)
        replace(root, "methods",
                choose_methods(cJSON_GetObjectItemCaseSensitive(root, "methods"), flags->methods));
    return MB_OK;
}

/* ---- typed reads of keys that mb_config_check has already checked ---- */

static const char *text_of(const cJSON *object, const char *name, const char *preset)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : preset;
}

static double number_of(const cJSON *object, const char *name, double preset)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(value) ? value->valuedouble : preset;
}

static bool truth_of(const cJSON *object, const char *name, bool preset)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsBool(value) ? cJSON_IsTrue(value) : preset;
}

static int ints_of(const cJSON *object, const char *name, int32_t preset, int32_t **values, size_t *count)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name), *item;
    size_t n = cJSON_IsArray(value) ? (size_t)cJSON_GetArraySize(value) : 1;
    *values = calloc(n, sizeof **values);
    if (!*values)
        return MB_E_SYSTEM;
    *count = n;
    if (cJSON_IsArray(value)) {
        size_t i = 0;
        cJSON_ArrayForEach(item, value)(*values)[i++] = (int32_t)item->valuedouble;
    } else {
        (*values)[0] = cJSON_IsNumber(value) ? (int32_t)value->valuedouble : preset;
    }
    return MB_OK;
}

static int read_model(mb_run_config *config, mb_error *err)
{
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(config->json, "model");
    config->type = MB_BF16;
    config->model_seed = 1;
    config->graphs = true;
    if (!model || cJSON_IsString(model)) {
        config->model_path = mb_shared_path(model ? model->valuestring : "models/tiny");
        return MB_OK;
    }
    int rc = mb_config_check(model, "model", "model", err);
    if (rc != MB_OK)
        return rc;
    const char *path = text_of(model, "path", ""), *shape = text_of(model, "shape", "");
    bool synthetic = strcmp(text_of(model, "weights", "checkpoint"), "random") == 0;
    if (synthetic && !*shape)
        return mb_fail(err, MB_E_INPUT,
                       "config key model.weights is random: model.shape must name the dimensions");
    if (!synthetic && !*path)
        return mb_fail(
            err, MB_E_INPUT,
            "config key model.path must name a checkpoint folder (or model.shape with \"weights\": \"random\")");
    if (synthetic)
        config->model_shape = mb_string_copy(shape);
    else
        config->model_path = mb_shared_path(path);
    config->model_seed = (uint64_t)number_of(model, "seed", 1);
    config->type = strcmp(text_of(model, "type", "bf16"), "f32") == 0 ? MB_F32 : MB_BF16;
    config->block = (int32_t)number_of(model, "block", 0);
    config->positions = (int32_t)number_of(model, "positions", 0);
    config->prefill_chunk = (int32_t)number_of(model, "prefill_chunk", 0);
    config->graphs = truth_of(model, "graphs", true);
    return MB_OK;
}

static int read_passes(mb_run_config *config, mb_error *err)
{
    const cJSON *passes = cJSON_GetObjectItemCaseSensitive(config->json, "passes"), *pass;
    if (!passes) {
        config->pass_quality = true;
        return MB_OK;
    }
    const struct {
        const char *name;
        bool *flag;
    } known[] = {{"quality", &config->pass_quality},
                 {"recall", &config->pass_recall},
                 {"forced", &config->pass_forced},
                 {"latency", &config->pass_latency},
                 {"breakdown", &config->pass_breakdown}};
    if (!cJSON_IsArray(passes) || !passes->child)
        return mb_fail(err, MB_E_INPUT,
                       "config key passes must be a list that is not empty, such as [\"quality\", \"recall\"]");
    cJSON_ArrayForEach(pass, passes)
    {
        const char *name = cJSON_GetStringValue(pass);
        size_t i = 0, n = sizeof known / sizeof known[0];
        while (name && i < n && strcmp(known[i].name, name) != 0)
            i++;
        if (!name || i == n)
            return mb_fail(err, MB_E_INPUT,
                           "config key passes: \"%s\" is none of quality, recall, forced, latency, breakdown",
                           name ? name : "?");
        *known[i].flag = true;
    }
    return MB_OK;
}

static int read_samplers(mb_run_config *config, mb_error *err)
{
    const cJSON *sampler = cJSON_GetObjectItemCaseSensitive(config->json, "sampler");
    if (!sampler)
        sampler = cJSON_AddObjectToObject(config->json, "sampler");
    size_t n = cJSON_IsArray(sampler) ? (size_t)cJSON_GetArraySize(sampler) : 1;
    if (n == 0)
        return mb_fail(err, MB_E_INPUT, "config key sampler is an empty list");
    config->samplers = calloc(n, sizeof *config->samplers);
    if (!config->samplers)
        return mb_no_memory(err, "the config");
    config->sampler_count = n;
    for (size_t i = 0; i < n; i++) {
        char path[64];
        config->samplers[i] = cJSON_IsArray(sampler) ? cJSON_GetArrayItem(sampler, (int)i) : sampler;
        snprintf(path, sizeof path, n > 1 ? "sampler[%zu]" : "sampler", i);
        int rc = mb_config_check(config->samplers[i], "sampler", path, err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

static int read_latency(mb_run_config *config, mb_error *err)
{
    cJSON *latency = cJSON_GetObjectItemCaseSensitive(config->json, "latency");
    mb_latency_spec *spec = &config->latency;
    if (latency) {
        int rc = mb_config_check(latency, "latency", "latency", err);
        if (rc != MB_OK)
            return rc;
    }
    spec->blocks_min = (int32_t)number_of(latency, "blocks_min", 2);
    spec->blocks_max = (int32_t)number_of(latency, "blocks_max", 100);
    if (spec->blocks_max < spec->blocks_min)
        return mb_fail(err, MB_E_INPUT, "config key latency.blocks_max is smaller than latency.blocks_min");
    spec->seconds = number_of(latency, "seconds", 15);
    spec->error = number_of(latency, "error", 0.005);
    spec->synthetic_cache = truth_of(latency, "synthetic_cache", true);
    spec->prefill = truth_of(latency, "prefill", true);
    spec->largest_from = (int32_t)number_of(latency, "largest_from", 0);
    bool chosen = cJSON_HasObjectItem(latency, "breakdown_contexts");
    /* "largest" may stand among the batches; the numbers are what remains. */
    cJSON *numbers = cJSON_CreateArray();
    const cJSON *batches = cJSON_GetObjectItemCaseSensitive(latency, "batches"), *item;
    int rc = MB_OK;
    if (batches && !cJSON_IsArray(batches))
        cJSON_AddItemToArray(numbers, cJSON_Duplicate(batches, true));
    cJSON_ArrayForEach(item, batches)
    {
        if (cJSON_IsString(item) && strcmp(item->valuestring, "largest") == 0)
            spec->largest_batch = true;
        else
            cJSON_AddItemToArray(numbers, cJSON_Duplicate(item, true));
    }
    if (!batches)
        cJSON_AddItemToArray(numbers, cJSON_CreateNumber(1));
    cJSON_ArrayForEach(item, numbers)
    {
        if (!cJSON_IsNumber(item) || item->valuedouble < 1 || item->valuedouble > 1024 ||
            item->valuedouble != (double)(int)item->valuedouble)
            rc = mb_fail(err, MB_E_INPUT,
                         "config key latency.batches holds something that is neither 1..1024 nor \"largest\"");
    }
    cJSON *wrapped = cJSON_CreateObject();
    cJSON_AddItemToObject(wrapped, "batches", numbers);
    if (rc == MB_OK && (ints_of(latency, "contexts", 4096, &spec->contexts, &spec->context_count) != MB_OK ||
                        ints_of(wrapped, "batches", 1, &spec->batches, &spec->batch_count) != MB_OK ||
                        ints_of(latency, chosen ? "breakdown_contexts" : "contexts", 4096,
                                &spec->breakdown_contexts, &spec->breakdown_count) != MB_OK ||
                        ints_of(latency, "steps", 0, &spec->steps, &spec->step_count) != MB_OK))
        rc = mb_no_memory(err, "the config");
    cJSON_Delete(wrapped);
    return rc;
}

/* The file's name without folder and ending. */
static char *stem_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t n = strcspn(name, ".");
    return mb_string_format("%.*s", (int)(n ? n : 1), n ? name : "run");
}

static int read_all(mb_run_config *config, const char *path, mb_error *err)
{
    cJSON *json = config->json;
    int rc = mb_config_check(json, "", "", err);
    if (rc != MB_OK)
        return rc;
    char *stem = stem_of(path);
    config->name = mb_string_copy(text_of(json, "name", stem ? stem : "run"));
    free(stem);
    if (!config->name || !*config->name || strchr(config->name, '/'))
        return mb_fail(err, MB_E_INPUT, "config key name must be text without a slash");
    const char *results = text_of(json, "results", NULL), *plots = text_of(json, "plots", NULL);
    config->results = results ? mb_string_copy(results) : mb_string_format("results/%s.db", config->name);
    config->plots = plots ? mb_string_copy(plots) : mb_string_format("results/%s", config->name);
    config->path = mb_string_copy(path);
    config->seed = (uint64_t)number_of(json, "seed", 1);
    config->device = mb_string_copy(text_of(json, "device", "auto"));
    config->threads = (int32_t)number_of(json, "threads", 0);
    config->memory_gib = number_of(json, "memory_gib", 0);
    config->plugin_seconds = number_of(json, "plugin_seconds", 600);
    config->data = mb_shared_path(text_of(json, "data", "datasets/data"));
    config->limit = (int64_t)number_of(json, "limit", 0);
    config->max_length = (int32_t)number_of(json, "max_length", 0);
    config->max_new_tokens = (int32_t)number_of(json, "max_new_tokens", 0);
    const cJSON *recall = cJSON_GetObjectItemCaseSensitive(json, "recall");
    if (recall && (rc = mb_config_check(recall, "recall", "recall", err)) != MB_OK)
        return rc;
    config->recall_limit = (int64_t)number_of(recall, "limit", 0);
    if ((rc = read_model(config, err)) != MB_OK || (rc = read_passes(config, err)) != MB_OK ||
        (rc = read_samplers(config, err)) != MB_OK || (rc = read_latency(config, err)) != MB_OK ||
        (rc = mb_config_read_methods(config, err)) != MB_OK || (rc = mb_config_read_tasks(config, err)) != MB_OK)
        return rc;
    if (!config->results || !config->plots || !config->path || !config->device || !config->data)
        return mb_no_memory(err, "the config");
    if (config->task_count == 0 && (config->pass_quality || config->pass_recall || config->pass_forced))
        return mb_fail(err, MB_E_INPUT,
                       "config key tasks is empty but the passes need tasks; see `./harness list tasks`");
    return MB_OK;
}

int mb_config_read(mb_run_config *config, const char *text, size_t size, const char *name,
                   const mb_config_flags *flags, mb_error *err)
{
    memset(config, 0, sizeof *config);
    int rc = parse_text(text, size, name, &config->json, err);
    if (rc == MB_OK)
        rc = apply_flags(config->json, flags, err);
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
    free((void *)config->samplers);
    free(config->latency.contexts);
    free(config->latency.breakdown_contexts);
    free(config->latency.batches);
    free(config->latency.steps);
    char *strings[] = {config->name,        config->path, config->device,  config->model_path,
                       config->model_shape, config->data, config->results, config->plots};
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++)
        free(strings[i]);
    cJSON_Delete(config->json);
    memset(config, 0, sizeof *config);
}

int mb_config_sampler(const mb_run_config *config, size_t i, const mb_model_config *model, mb_sampler *sampler,
                      mb_error *err)
{
    const cJSON *json = config->samplers[i];
    mb_sampler_default(model, sampler);
    const char *schedule = text_of(json, "schedule", NULL), *confidence = text_of(json, "confidence", NULL);
    if (schedule)
        sampler->schedule = strcmp(schedule, "fixed") == 0 ? MB_SCHEDULE_FIXED : MB_SCHEDULE_THRESHOLD;
    if (confidence)
        sampler->confidence = strcmp(confidence, "f32") == 0   ? MB_F32
                              : strcmp(confidence, "f16") == 0 ? MB_F16
                                                               : MB_BF16;
    int32_t preset = sampler->schedule == MB_SCHEDULE_FIXED || sampler->steps <= 0 ? model->block : sampler->steps;
    sampler->steps = (int32_t)number_of(json, "steps", preset);
    sampler->threshold = number_of(json, "threshold", sampler->threshold);
    sampler->dynamic = truth_of(json, "dynamic", sampler->dynamic);
    sampler->block_cache = truth_of(json, "block_cache", sampler->block_cache);
    sampler->compat_prompt_bug = truth_of(json, "compat_prompt_bug", sampler->compat_prompt_bug);
    if (sampler->steps > model->block)
        return mb_fail(err, MB_E_INPUT, "config key sampler.steps is %d but a block of this model has %d tokens",
                       sampler->steps, model->block);
    return MB_OK;
}
