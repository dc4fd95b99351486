/*
 * methods.c - methods and tasks of a config: the lists, and what --methods and --tasks choose of them. Options are
 * validated by the methods' own tables and tasks' keys by the tasks, so nothing here knows one of either.
 */
#include "driver/config/keys.h"

#include "datasets/datasets.h"

#include <stddef.h>
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
        const char *text = cJSON_IsString(value) ? value->valuestring : NULL;
        const char *slash = text && mb_method_options_is_file(method, o->string) ? strrchr(text, '/') : NULL;
        if (text)
            mb_text_printf(&label, " %s=%s", o->string, slash ? slash + 1 : text);
        else if (cJSON_IsBool(value))
            mb_text_printf(&label, " %s=%s", o->string, cJSON_IsTrue(value) ? "true" : "false");
        else
            mb_text_printf(&label, " %s=%.15g", o->string, value->valuedouble); /* 1048576 is not 1.04858e+06 */
    }
    return mb_text_take(&label);
}

/* A path that is relative and names a file beside the config becomes that file's path; others stay. */
static int place_file(const char *config_path, cJSON *value, mb_error *err)
{
    const char *slash = config_path ? strrchr(config_path, '/') : NULL;
    if (!slash || !cJSON_IsString(value) || *value->valuestring == '/' || !*value->valuestring)
        return MB_OK;
    char *beside = mb_string_format("%.*s/%s", (int)(slash - config_path), config_path, value->valuestring);
    bool placed = beside && (!mb_file_exists(beside) || cJSON_SetValuestring(value, beside));
    free(beside);
    return placed ? MB_OK : mb_no_memory(err, "a path of the config");
}

/* Options that name files, of all methods. The path is written back: a worker reads the same text elsewhere. */
static int place_files(mb_run_config *config, cJSON *methods, mb_error *err)
{
    cJSON *options, *option, *value;
    int rc = MB_OK;
    cJSON_ArrayForEach(options, methods) {
        const mb_method *method = mb_registry_find(options->string);
        cJSON_ArrayForEach(option, options) {
            if (!method || !option->string || !mb_method_options_is_file(method, option->string))
                continue;
            if (rc == MB_OK && !cJSON_IsArray(option))
                rc = place_file(config->path, option, err);
            else
                cJSON_ArrayForEach(value, option)
                    rc = rc == MB_OK ? place_file(config->path, value, err) : rc;
        }
    }
    return rc;
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
    spec->options = mb_method_options_new(method);
    size_t i = 0;
    for (const cJSON *o = options->child; o; o = o->next, i++) {
        char path[256];
        const cJSON *value = cJSON_IsArray(o) ? cJSON_GetArrayItem(o, (int)choice[i]) : o;
        snprintf(path, sizeof path, "methods.%s.%s", method->name, o->string);
        char *text = scalar_text(value);
        int rc = text ? mb_method_options_set(method, spec->options, o->string, text, path, err)
                      : mb_fail(err, MB_E_INPUT, "config key %s must be a value or a list of values", path);
        free(text);
        if (rc != MB_OK)
            return rc;
    }
    spec->json = mb_method_options_json(method, spec->options);
    spec->label = make_label(method, options, choice);
    spec->k = mb_method_options_budget(method, spec->options);
    if (!spec->json || !spec->label)
        return mb_no_memory(err, "the config");
    for (size_t j = 0; j + 1 < config->method_count; j++)
        if (config->methods[j].method == method && strcmp(config->methods[j].json, spec->json) == 0)
            return mb_fail(err, MB_E_INPUT, "config key methods.%s: the configuration %s is listed twice",
                           method->name, spec->label);
    return MB_OK;
}

static int unknown_method(const char *name, mb_error *err)
{
    mb_text known = {0};
    mb_guess guess = {.word = name};
    for (size_t i = 0; i < mb_registry_count(); i++) {
        mb_text_printf(&known, "%s%s", i ? ", " : "", mb_registry_at(i)->name);
        mb_guess_offer(&guess, mb_registry_at(i)->name, strlen(mb_registry_at(i)->name));
    }
    int rc = mb_fail(err, MB_E_INPUT, "unknown method \"%s\"%s; known: %s", name, mb_guess_phrase(&guess),
                     known.data ? known.data : "");
    mb_text_free(&known);
    return rc;
}

/* Values of one option: a list's, or one. */
static size_t value_count(const cJSON *option)
{
    return cJSON_IsArray(option) ? (size_t)cJSON_GetArraySize(option) : 1;
}

/* How many options there are, and configurations of their values. */
static int measure_sweep(const cJSON *options, size_t *count, size_t *total, mb_error *err)
{
    *count = 0;
    *total = 1;
    for (const cJSON *o = options->child; o; o = o->next, (*count)++) {
        if (value_count(o) == 0)
            return mb_fail(err, MB_E_INPUT, "config key methods.%s.%s is an empty list", options->string,
                           o->string);
        *total *= value_count(o);
        if (*total > MAX_SWEEP)
            return mb_fail(err, MB_E_INPUT, "config key methods.%s sweeps more than %d configurations",
                           options->string, MAX_SWEEP);
    }
    return MB_OK;
}

/* The n-th configuration's index into each option's list; the last option varies fastest. */
static void choose(const cJSON *options, size_t n, size_t count, size_t *choice)
{
    for (const cJSON *o = options->child ? options->child->prev : NULL; o && count-- > 0; o = o->prev) {
        choice[count] = n % value_count(o);
        n /= value_count(o);
    }
}

static int sweep_method(mb_run_config *config, const cJSON *options, mb_error *err)
{
    const mb_method *method = mb_registry_find(options->string);
    size_t count, total;
    char path[256];
    if (!method)
        return unknown_method(options->string, err);
    if (!cJSON_IsObject(options))
        return mb_fail(err, MB_E_INPUT, "config key methods.%s must be an object of options, {} for the defaults",
                       options->string);
    snprintf(path, sizeof path, "methods.%s", options->string);
    int rc = mb_config_check_once(options, path, err);
    if (rc == MB_OK)
        rc = measure_sweep(options, &count, &total, err);
    if (rc != MB_OK)
        return rc;
    size_t *indices = calloc(count + 1, sizeof *indices);
    rc = indices ? MB_OK : mb_no_memory(err, "the config");
    for (size_t n = 0; rc == MB_OK && n < total; n++) {
        choose(options, n, count, indices);
        rc = add_method(config, method, options, indices, err);
    }
    free(indices);
    return rc;
}

int mb_config_read_methods(mb_run_config *config, mb_error *err)
{
    cJSON *methods = cJSON_GetObjectItemCaseSensitive(config->json, MB_CONFIG_KEY_OF(methods)->name);
    const cJSON *method;
    if (!cJSON_IsObject(methods) || !methods->child)
        return mb_fail(err, MB_E_INPUT,
                       "config key methods must be an object such as {\"NAME\": {\"k\": [256, 512]}}; see "
                       "`./harness list methods`");
    int rc = mb_config_check_once(methods, "methods", err);
    if (rc == MB_OK)
        rc = place_files(config, methods, err);
    if (rc != MB_OK)
        return rc;
    cJSON_ArrayForEach(method, methods) {
        rc = sweep_method(config, method, err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

/* ---- tasks ---- */

/* The name of a task or group: an entry's text or its shorthand key; NULL = it has none. */
static const char *task_name(const cJSON *task)
{
    const mb_key *key = MB_CONFIG_KEY_OF(tasks);
    return cJSON_GetStringValue(cJSON_IsString(task) ? task
                                                     : cJSON_GetObjectItemCaseSensitive(task, key->shorthand));
}

/* One task by name. common: limit and folder; own: the keys that the task itself checks, or NULL. */
static int add_task(mb_run_config *config, const char *name, const mb_task_spec *common, const cJSON *own,
                    mb_error *err)
{
    mb_task_spec *grown = realloc(config->tasks, (config->task_count + 1) * sizeof *grown);
    if (!grown)
        return mb_no_memory(err, "the config");
    config->tasks = grown;
    mb_task_spec *spec = &config->tasks[config->task_count++];
    *spec = (mb_task_spec){.task = mb_string_copy(name), .limit = common->limit};
    spec->folder = mb_string_copy(common->folder);
    if (own && own->child)
        spec->options = cJSON_PrintUnformatted(own);
    if (!spec->task || !spec->folder || (own && own->child && !spec->options))
        return mb_no_memory(err, "the config");
    return MB_OK;
}

/* All tasks of one entry of the list. */
static int read_task(mb_run_config *config, const cJSON *task, const char *path, mb_error *err)
{
    mb_task_spec common = {.limit = config->limit};
    cJSON *own = NULL;
    const char **names = NULL;
    size_t count = 0;
    int rc = MB_OK;
    if (!task_name(task))
        return mb_fail(err, MB_E_INPUT, "config key %s must be a task name or {\"task\": NAME, ...}", path);
    if (cJSON_IsObject(task)) {
        rc = mb_config_check(task, "task", path, true, err);
        if (rc == MB_OK)
            rc = mb_config_fill(task, "task", &common, err);
        own = cJSON_Duplicate(task, true);
        for (const mb_key *key = mb_config_keys; key->name; key++)
            if (strcmp(key->section, "task") == 0)
                cJSON_DeleteItemFromObjectCaseSensitive(own, key->name);
    }
    if (config->limit && (common.limit == 0 || common.limit > config->limit))
        common.limit = config->limit; /* --limit is a promise for every task */
    if (rc == MB_OK && !common.folder && !(common.folder = mb_string_copy(config->data)))
        rc = mb_no_memory(err, "the config");
    if (rc == MB_OK && (rc = mb_task_expand(task_name(task), &names, &count, err)) != MB_OK)
        mb_fail_prefix(err, rc, "config key %s", path);
    for (size_t i = 0; rc == MB_OK && i < count; i++)
        rc = add_task(config, names[i], &common, own, err);
    free((void *)names);
    mb_config_release("task", &common);
    cJSON_Delete(own);
    return rc;
}

int mb_config_read_tasks(mb_run_config *config, mb_error *err)
{
    const char *name = MB_CONFIG_KEY_OF(tasks)->name;
    const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(config->json, name), *task;
    int rc = MB_OK, index = 0;
    if (tasks && !cJSON_IsArray(tasks))
        return mb_fail(err, MB_E_INPUT, "config key %s must be a list", name);
    cJSON_ArrayForEach(task, tasks) {
        char path[64];
        snprintf(path, sizeof path, "%s[%d]", name, index++);
        if ((rc = read_task(config, task, path, err)) != MB_OK)
            return rc;
    }
    return rc;
}

/* ---- what the flags choose ---- */

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
cJSON *mb_config_choose_tasks(const cJSON *present, const char *list)
{
    cJSON *names = split_list(list), *chosen = cJSON_CreateArray();
    const cJSON *name, *task;
    cJSON_ArrayForEach(name, names) {
        bool found = false;
        cJSON_ArrayForEach(task, present) {
            const char *known = task_name(task);
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
cJSON *mb_config_choose_methods(const cJSON *present, const char *list)
{
    cJSON *names = split_list(list), *chosen = cJSON_CreateObject();
    const cJSON *name;
    cJSON_ArrayForEach(name, names) {
        const cJSON *known = cJSON_GetObjectItemCaseSensitive(present, name->valuestring);
        cJSON_DeleteItemFromObjectCaseSensitive(chosen, name->valuestring);
        cJSON_AddItemToObject(chosen, name->valuestring,
                              known ? cJSON_Duplicate(known, true) : cJSON_CreateObject());
    }
    cJSON_Delete(names);
    return chosen;
}
