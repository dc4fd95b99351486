/*
 * methods.c - methods and tasks of a config. Options are validated by the methods' own tables and tasks'
 * keys by the tasks, so nothing here knows one of either.
 */
#include "driver/config/methods.h"

#include "driver/os/paths.h"
#include "datasets/datasets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SWEEP 4096 /* configurations of one method: more is a typing error */

/* The text of a scalar JSON value as the option parser takes it; malloc'ed, NULL for anything else. */
static char *scalar_text(const cJSON *value)
{
    if (cJSON_IsString(value))
        return mb_string_copy(value->valuestring);
    if (cJSON_IsBool(value))
        return mb_string_copy(cJSON_IsTrue(value) ? "true" : "false");
    if (cJSON_IsNumber(value))
        return mb_string_format("%.17g", value->valuedouble);
    return NULL;
}

/* Label: the method's name and the keys that the config sets. */
static char *make_label(const mb_method *method, const cJSON *options, const size_t *choice)
{
    mb_text label = {0};
    size_t i = 0;
    mb_text_puts(&label, method->name);
    for (const cJSON *o = options->child; o; o = o->next, i++) {
        const cJSON *value = cJSON_IsArray(o) ? cJSON_GetArrayItem(o, (int)choice[i]) : o;
        if (cJSON_IsString(value))
            mb_text_printf(&label, " %s=%s", o->string, value->valuestring);
        else if (cJSON_IsBool(value))
            mb_text_printf(&label, " %s=%s", o->string, cJSON_IsTrue(value) ? "true" : "false");
        else
            mb_text_printf(&label, " %s=%.15g", o->string, value->valuedouble); /* 1048576 is not 1.04858e+06 */
    }
    return mb_text_take(&label);
}

/* One configuration: choice[i] is the index into the i-th option's list. */
static int add_method(mb_run_config *config, const mb_method *method, const cJSON *options, const size_t *choice,
                      mb_error *err)
{
    mb_method_spec *grown = realloc(config->methods, (config->method_count + 1) * sizeof *grown);
    if (!grown)
        return mb_no_memory(err, "the config");
    config->methods = grown;
    mb_method_spec *spec = &config->methods[config->method_count];
    memset(spec, 0, sizeof *spec);
    config->method_count++;
    spec->method = method;
    spec->options = mb_options_new(method);
    size_t i = 0;
    for (const cJSON *o = options->child; o; o = o->next, i++) {
        char path[256];
        const cJSON *value = cJSON_IsArray(o) ? cJSON_GetArrayItem(o, (int)choice[i]) : o;
        snprintf(path, sizeof path, "methods.%s.%s", method->name, o->string);
        char *text = scalar_text(value);
        int rc = text ? mb_options_set(method, spec->options, o->string, text, path, err)
                      : mb_fail(err, MB_E_INPUT, "config key %s must be a value or a list of values", path);
        free(text);
        if (rc != MB_OK)
            return rc;
    }
    spec->json = mb_options_json(method, spec->options);
    spec->label = make_label(method, options, choice);
    spec->k = mb_options_budget(method, spec->options);
    if (!spec->json || !spec->label)
        return mb_no_memory(err, "the config");
    for (size_t j = 0; j + 1 < config->method_count; j++)
        if (config->methods[j].method == method && strcmp(config->methods[j].json, spec->json) == 0)
            return mb_fail(err, MB_E_INPUT, "config key methods.%s: the configuration %s is listed twice",
                           method->name, spec->label);
    return MB_OK;
}

static int sweep_method(mb_run_config *config, const cJSON *options, mb_error *err)
{
    const mb_method *method = mb_registry_find(options->string);
    size_t count = 0, total = 1;
    if (!method) {
        mb_text known = {0};
        for (size_t i = 0; i < mb_registry_count(); i++)
            mb_text_printf(&known, "%s%s", i ? ", " : "", mb_registry_at(i)->name);
        int rc = mb_fail(err, MB_E_INPUT, "unknown method \"%s\"; known: %s", options->string,
                         known.data ? known.data : "");
        mb_text_free(&known);
        return rc;
    }
    if (!cJSON_IsObject(options))
        return mb_fail(err, MB_E_INPUT, "config key methods.%s must be an object of options, {} for the defaults",
                       options->string);
    char path[256];
    snprintf(path, sizeof path, "methods.%s", options->string);
    int rc = mb_config_check_once(options, path, err);
    if (rc != MB_OK)
        return rc;
    for (const cJSON *o = options->child; o; o = o->next, count++) {
        if (cJSON_IsArray(o) && cJSON_GetArraySize(o) == 0)
            return mb_fail(err, MB_E_INPUT, "config key methods.%s.%s is an empty list", options->string,
                           o->string);
        total *= cJSON_IsArray(o) ? (size_t)cJSON_GetArraySize(o) : 1;
        if (total > MAX_SWEEP)
            return mb_fail(err, MB_E_INPUT, "config key methods.%s sweeps more than %d configurations",
                           options->string, MAX_SWEEP);
    }
    size_t *choice = calloc(count + 1, sizeof *choice);
    rc = choice ? MB_OK : mb_no_memory(err, "the config");
    for (size_t n = 0; rc == MB_OK && n < total; n++) {
        size_t rest = n, i = count;
        /* last option varies fastest */
        for (const cJSON *o = options->child ? options->child->prev : NULL; o && i-- > 0; o = o->prev) {
            size_t values = cJSON_IsArray(o) ? (size_t)cJSON_GetArraySize(o) : 1;
            choice[i] = rest % values;
            rest /= values;
        }
        rc = add_method(config, method, options, choice, err);
    }
    free(choice);
    return rc;
}

int mb_config_read_methods(mb_run_config *config, mb_error *err)
{
    const cJSON *methods = cJSON_GetObjectItemCaseSensitive(config->json, "methods"), *method;
    if (!cJSON_IsObject(methods) || !methods->child)
        return mb_fail(err, MB_E_INPUT,
                       "config key methods must be an object such as {\"NAME\": {\"k\": [256, 512]}}; see "
                       "`./harness list methods`");
    int rc = mb_config_check_once(methods, "methods", err);
    if (rc != MB_OK)
        return rc;
    cJSON_ArrayForEach(method, methods)
    {
        rc = sweep_method(config, method, err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

/* The keys that every task object may have; the others are the task's own and checked by it. */
static int check_task(const cJSON *task, const char *path, mb_error *err)
{
    const cJSON *folder = cJSON_GetObjectItemCaseSensitive(task, "data");
    const cJSON *limit = cJSON_GetObjectItemCaseSensitive(task, "limit");
    if (folder && !cJSON_IsString(folder))
        return mb_fail(err, MB_E_INPUT, "config key %s.data must be text in quotes", path);
    if (limit && (!cJSON_IsNumber(limit) || limit->valuedouble < 0 || limit->valuedouble > 1e9 ||
                  limit->valuedouble != (double)(int64_t)limit->valuedouble))
        return mb_fail(err, MB_E_INPUT, "config key %s.limit must be a whole number from 0 to 1000000000", path);
    return mb_config_check_once(task, path, err);
}

static int add_task(mb_run_config *config, const char *name, const cJSON *own, const char *folder, int64_t limit,
                    mb_error *err)
{
    mb_task_spec *grown = realloc(config->tasks, (config->task_count + 1) * sizeof *grown);
    if (!grown)
        return mb_no_memory(err, "the config");
    config->tasks = grown;
    mb_task_spec *spec = &config->tasks[config->task_count++];
    memset(spec, 0, sizeof *spec);
    spec->task = mb_string_copy(name);
    spec->folder = mb_string_copy(folder);
    spec->limit = limit;
    if (own && own->child)
        spec->options = cJSON_PrintUnformatted(own);
    if (!spec->task || !spec->folder || (own && own->child && !spec->options))
        return mb_no_memory(err, "the config");
    return MB_OK;
}

int mb_config_read_tasks(mb_run_config *config, mb_error *err)
{
    const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(config->json, "tasks"), *task;
    int rc = MB_OK, index = 0;
    if (tasks && !cJSON_IsArray(tasks))
        return mb_fail(err, MB_E_INPUT, "config key tasks must be a list");
    cJSON_ArrayForEach(task, tasks)
    {
        char path[32];
        snprintf(path, sizeof path, "tasks[%d]", index++);
        const char *group = cJSON_IsString(task)
                                ? task->valuestring
                                : cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(task, "task"));
        if (!group)
            return mb_fail(err, MB_E_INPUT, "config key %s must be a task name or {\"task\": NAME, ...}", path);
        if (cJSON_IsObject(task) && (rc = check_task(task, path, err)) != MB_OK)
            return rc;
        cJSON *own = cJSON_IsObject(task) ? cJSON_Duplicate(task, true) : NULL;
        const cJSON *folder = cJSON_GetObjectItemCaseSensitive(own, "data");
        const cJSON *limit = cJSON_GetObjectItemCaseSensitive(own, "limit");
        char *data = mb_shared_path(cJSON_IsString(folder) ? folder->valuestring : config->data);
        int64_t most = cJSON_IsNumber(limit) ? (int64_t)limit->valuedouble : config->limit;
        if (config->limit && (most == 0 || most > config->limit))
            most = config->limit; /* --limit is a promise for every task */
        const char **names = NULL;
        size_t count = 0;
        cJSON_DeleteItemFromObjectCaseSensitive(own, "task");
        cJSON_DeleteItemFromObjectCaseSensitive(own, "data");
        cJSON_DeleteItemFromObjectCaseSensitive(own, "limit");
        rc = mb_task_expand(group, &names, &count, err);
        if (rc != MB_OK)
            mb_fail_prefix(err, rc, "config key %s", path);
        for (size_t i = 0; rc == MB_OK && i < count; i++)
            rc = add_task(config, names[i], own, data ? data : "", most, err);
        free((void *)names);
        free(data);
        cJSON_Delete(own);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}
