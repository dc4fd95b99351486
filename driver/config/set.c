/*
 * set.c - what the command line puts on top of a config file: --set KEY=VALUE, and the flags, each a spelling of
 * --set for the key whose row declares it. The flags win over --set, which wins over the file.
 */
#include "driver/config/keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* A section or an entry of a list may be given as text (a model, a task): the object that says the same, so that a
 * key can be put beside it. key: of the section, or of the list. */
static cJSON *as_object(cJSON *at, const char *name, cJSON *child, const mb_key *key)
{
    bool whole = cJSON_IsArray(at) || (key && strcmp(key->name, name) == 0);
    if (!cJSON_IsString(child) || !key || !key->shorthand || !whole)
        return child;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, key->shorthand, child->valuestring);
    put_child(at, name, object);
    return object;
}

/* Puts value at the dotted path below root, making objects on the way. */
static int set_path(cJSON *root, const char *path, cJSON *value, mb_error *err)
{
    char *copy = mb_string_copy(path);
    cJSON *at = root;
    const mb_key *key = NULL; /* the top-level key that the path begins with */
    int rc = MB_OK;
    char *name = copy, *dot;
    if (!copy || !value) {
        rc = mb_no_memory(err, "--set %s", path);
        goto out;
    }
    int depth = 0;
    while ((dot = strchr(name, '.')) != NULL) {
        if (++depth > MB_CONFIG_MAX_DEPTH) {
            rc = mb_fail(err, MB_E_INPUT, "--set: a path of more than %d names: no key is that deep",
                         MB_CONFIG_MAX_DEPTH);
            goto out;
        }
        *dot = '\0';
        if (at == root)
            key = mb_config_key("", name);
        cJSON *next = as_object(at, name, child_of(at, name), key);
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

/* The JSON value that a flag's text stands for; the caller's. */
static int value_of(const mb_config_value *flag, cJSON **value, mb_error *err)
{
    const mb_key *key = flag->key;
    char *end = NULL;
    *value = NULL;
    if (key->lists && key->type == MB_KEY_INT && strchr(flag->text, ',')) { /* "--seed 1,2,3" */
        char *list = mb_string_format("[%s]", flag->text);
        *value = list ? cJSON_ParseWithOpts(list, NULL, true) : NULL;
        free(list);
    } else if (key->type == MB_KEY_INT) {
        errno = 0;
        long long number = strtoll(flag->text, &end, 10);
        if (errno || end == flag->text || *end || number < (long long)key->min || number > (long long)key->max)
            return mb_fail(err, MB_E_INPUT, "%.*s takes a whole number from %.16g to %.16g, not \"%s\"",
                           (int)strcspn(key->flag, " "), key->flag, key->min, key->max, flag->text);
        *value = cJSON_CreateNumber((double)number);
    } else if (key->type == MB_KEY_REAL || key->type == MB_KEY_BOOL || key->type == MB_KEY_INTS ||
               key->type == MB_KEY_CHOICE) {
        *value = cJSON_ParseWithOpts(flag->text, NULL, true); /* what is none is refused by the check to come */
        char *list = !*value && key->type == MB_KEY_INTS ? mb_string_format("[%s]", flag->text) : NULL;
        if (list)
            *value = cJSON_ParseWithOpts(list, NULL, true);
        free(list);
    }
    if (!*value)
        *value = cJSON_CreateString(flag->text);
    return *value ? MB_OK : mb_no_memory(err, "%s", key->flag);
}

int mb_config_value_check(const mb_config_value *flag, mb_error *err)
{
    cJSON *value = NULL;
    int rc = value_of(flag, &value, err);
    cJSON_Delete(value);
    return rc;
}

/* The value at the end of root, in place of the one that is there. */
static void replace(cJSON *root, const char *key, cJSON *value)
{
    cJSON_DeleteItemFromObjectCaseSensitive(root, key);
    cJSON_AddItemToObject(root, key, value);
}

/* Text for a section that the file gives as an object: the shorthand's key of it, and not the keys beside which
 * that one would not count. */
static void replace_shorthand(cJSON *section, const mb_key *key, cJSON *value)
{
    for (const mb_key *other = mb_config_keys; other->name; other++)
        if (strcmp(other->section, key->name) == 0 && other->rival && strcmp(other->rival, key->shorthand) == 0)
            cJSON_DeleteItemFromObjectCaseSensitive(section, other->name);
    replace(section, key->shorthand, value);
}

static int apply_value(cJSON *root, const mb_config_value *flag, mb_error *err)
{
    const mb_key *key = flag->key;
    cJSON *present = cJSON_GetObjectItemCaseSensitive(root, key->name), *value = NULL;
    int rc = MB_OK;
    if (!key->choose)
        rc = value_of(flag, &value, err);
    else if (!(value = key->choose(present, flag->text)))
        rc = mb_no_memory(err, "%s", key->flag);
    if (rc != MB_OK)
        return rc;
    if (*key->section) {
        char path[128];
        snprintf(path, sizeof path, "%s.%s", key->section, key->name);
        return set_path(root, path, value, err);
    }
    if (key->type == MB_KEY_SECTION && key->shorthand && cJSON_IsObject(present))
        replace_shorthand(present, key, value);
    else
        replace(root, key->name, value);
    return MB_OK;
}

int mb_config_apply(cJSON *root, const mb_config_flags *flags, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < flags->set_count; i++)
        rc = apply_set(root, flags->sets[i], err);
    for (size_t i = 0; rc == MB_OK && i < flags->value_count; i++)
        rc = apply_value(root, &flags->values[i], err);
    return rc;
}
