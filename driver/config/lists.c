/*
 * lists.c - keys that may hold a list where a run needs one value: a run for each entry, and for each combination
 * where several keys hold one. The rows say which keys those are. Every run gets the config with one value in the
 * place of the list, so that it is the run that a file with this value alone would make.
 */
#include "driver/config/keys.h"

#include <string.h>

#define MAX_RUNS 4096 /* more is a typing error */

static int check_list(const cJSON *list, const mb_key *key, size_t *total, mb_error *err)
{
    if (!list->child)
        return mb_fail(err, MB_E_INPUT, "config key %s is an empty list", key->name);
    for (const cJSON *a = list->child; a; a = a->next)
        for (const cJSON *b = a->next; b; b = b->next)
            if (cJSON_Compare(a, b, true))
                return mb_fail(err, MB_E_INPUT, "config key %s: two entries of the list are the same", key->name);
    *total *= (size_t)cJSON_GetArraySize(list);
    return *total <= MAX_RUNS
               ? MB_OK
               : mb_fail(err, MB_E_INPUT, "config key %s: that is more than %d runs", key->name, MAX_RUNS);
}

int mb_config_count(const cJSON *json, size_t *total, mb_error *err)
{
    int rc = MB_OK;
    *total = 1;
    for (const mb_key *key = mb_config_keys; rc == MB_OK && key->name; key++) {
        const cJSON *list = key->lists ? cJSON_GetObjectItemCaseSensitive(json, key->name) : NULL;
        if (cJSON_IsArray(list))
            rc = check_list(list, key, total, err);
    }
    return rc;
}

cJSON *mb_config_pick(const cJSON *json, size_t number, mb_text *label)
{
    cJSON *picked = cJSON_Duplicate(json, true);
    for (const mb_key *key = mb_config_keys; picked && key->name; key++) {
        cJSON *list = key->lists ? cJSON_GetObjectItemCaseSensitive(picked, key->name) : NULL;
        if (!cJSON_IsArray(list))
            continue;
        size_t count = (size_t)cJSON_GetArraySize(list);
        cJSON *value = cJSON_DetachItemFromArray(list, (int)(number % count));
        number /= count;
        char *text = cJSON_IsString(value) ? mb_string_copy(value->valuestring) : cJSON_PrintUnformatted(value);
        mb_text_printf(label, "%s%s %s", label->length ? ", " : "", key->name, text ? text : "?");
        cJSON_free(text);
        cJSON_ReplaceItemInObjectCaseSensitive(picked, key->name, value);
    }
    return picked;
}
