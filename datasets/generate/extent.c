/*
 * extent.c - how much room a task's samples take, from the keys that generated tasks have of their own, before any
 * sample is made: what a session must hold is planned with it.
 */
#include "datasets/datasets.h"

#include <cjson/cJSON.h>
#include <stddef.h>

/* Largest number under a key, alone, in a list or in a range; 0 = it has none. */
static int32_t largest(const cJSON *options, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(options, key), *item;
    double most = cJSON_IsNumber(value) ? value->valuedouble : 0;
    cJSON_ArrayForEach(item, value) {
        if (cJSON_IsNumber(item) && item->valuedouble > most)
            most = item->valuedouble;
    }
    return most > 0 && most < 1e9 ? (int32_t)most : 0;
}

mb_task_extent mb_task_extent_of(const char *task, const char *options)
{
    const mb_task_info *info = mb_task_find(task);
    cJSON *json = options ? cJSON_Parse(options) : NULL;
    mb_task_extent extent = {.prompt_tokens = largest(json, "lengths"),
                             .new_tokens = largest(json, "max_new_tokens")};
    if (extent.new_tokens == 0 && info)
        extent.new_tokens = info->max_new_tokens;
    cJSON_Delete(json);
    return extent;
}
