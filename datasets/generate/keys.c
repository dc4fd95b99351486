/*
 * keys.c - reads a generated task's own keys (a JSON object) and the prompt files of the generators.
 *
 * Every refusal names the task, the key and what is allowed, because the sentence reaches the user as it is.
 */
#include "datasets/generate/generate.h"

#include <math.h>
#include <string.h>

int mb_task_keys_open(mb_task_keys *keys, const char *task, const char *json, const char *const *known,
                      mb_error *err)
{
    *keys = (mb_task_keys){.task = task};
    if (!json || !*json)
        return MB_OK;
    keys->root = cJSON_Parse(json);
    if (!cJSON_IsObject(keys->root)) {
        mb_task_keys_close(keys);
        return mb_fail(err, MB_E_INPUT, "the options of task %s are no JSON object", task);
    }
    for (const cJSON *item = keys->root->child; item; item = item->next) {
        size_t i = 0;
        while (known[i] && strcmp(known[i], item->string) != 0)
            i++;
        if (known[i])
            continue;
        mb_text list = {0};
        for (i = 0; known[i]; i++)
            mb_text_printf(&list, "%s%s", i ? ", " : "", known[i]);
        int rc = mb_fail(err, MB_E_INPUT, "task %s has no option \"%s\"; it knows %s", task, item->string,
                         list.data ? list.data : "none");
        mb_text_free(&list);
        mb_task_keys_close(keys);
        return rc;
    }
    return MB_OK;
}

void mb_task_keys_close(mb_task_keys *keys)
{
    cJSON_Delete(keys->root);
    keys->root = NULL;
}

static const cJSON *option(const mb_task_keys *keys, const char *key)
{
    return keys->root ? cJSON_GetObjectItemCaseSensitive(keys->root, key) : NULL;
}

int mb_task_keys_int(const mb_task_keys *keys, const char *key, int64_t low, int64_t high, int64_t *value,
                     mb_error *err)
{
    const cJSON *item = option(keys, key);
    if (!item)
        return MB_OK;
    int64_t number = 0;
    if (!mb_json_integer(item, low, high, &number) || (double)number != item->valuedouble)
        return mb_fail(err, MB_E_INPUT, "option \"%s\" of task %s must be a whole number from %lld to %lld", key,
                       keys->task, (long long)low, (long long)high);
    *value = number;
    return MB_OK;
}

int mb_task_keys_bool(const mb_task_keys *keys, const char *key, bool *value, mb_error *err)
{
    const cJSON *item = option(keys, key);
    if (!item)
        return MB_OK;
    if (!cJSON_IsBool(item))
        return mb_fail(err, MB_E_INPUT, "option \"%s\" of task %s must be true or false", key, keys->task);
    *value = cJSON_IsTrue(item);
    return MB_OK;
}

int mb_task_keys_string(const mb_task_keys *keys, const char *key, const char *const *choices, const char **value,
                        mb_error *err)
{
    const cJSON *item = option(keys, key);
    if (!item)
        return MB_OK;
    bool good = cJSON_IsString(item) && item->valuestring[0];
    if (good && choices) {
        size_t i = 0;
        while (choices[i] && strcmp(choices[i], item->valuestring) != 0)
            i++;
        good = choices[i] != NULL;
    }
    if (!good) {
        mb_text list = {0};
        for (size_t i = 0; choices && choices[i]; i++)
            mb_text_printf(&list, "%s\"%s\"", i ? ", " : " of ", choices[i]);
        int rc = mb_fail(err, MB_E_INPUT, "option \"%s\" of task %s must be %s%s", key, keys->task,
                         choices ? "one" : "a text that is not empty", list.data ? list.data : "");
        mb_text_free(&list);
        return rc;
    }
    *value = item->valuestring;
    return MB_OK;
}

int mb_prompts_load(const char *name, cJSON **root, mb_error *err)
{
    size_t size = 0;
    const char *text = mb_prompt_find(name, &size);
    *root = text ? cJSON_ParseWithLength(text, size) : NULL;
    if (!*root)
        return mb_fail(err, MB_E_BUG, "datasets/prompts/%s is missing from the program or is no JSON", name);
    return MB_OK;
}

int mb_generated_open(mb_task_keys *keys, cJSON **prompts, int64_t *samples, const char *task, const char *json,
                      const char *const *known, const char *prompt_file, mb_error *err)
{
    int rc = mb_task_keys_open(keys, task, json, known, err);
    if (rc == MB_OK)
        rc = mb_prompts_load(prompt_file, prompts, err);
    return rc == MB_OK ? mb_task_keys_int(keys, "samples", 1, 1000000, samples, err) : rc;
}

mb_sample *mb_generated_sample(const char *key, int32_t length, int32_t max_new_tokens, mb_error *err)
{
    mb_sample *sample = mb_sample_new();
    if (sample) {
        sample->key = mb_string_copy(key);
        sample->language = mb_string_copy("en");
        sample->source = mb_string_copy("generated");
        sample->max_new_tokens = max_new_tokens;
        sample->chat = true;
        sample->context = length;
    }
    if (sample && sample->key && sample->language && sample->source)
        return sample;
    mb_sample_free(sample);
    mb_no_memory(err, "sample %s", key);
    return NULL;
}
