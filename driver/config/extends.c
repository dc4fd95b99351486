/*
 * extends.c - a config that is based on another one. The base is read first and the file is put on top of it, as a
 * JSON merge patch (RFC 7396): objects are merged member by member, null takes a member away, and anything else, a
 * list too, takes the place of what was there. Two things are read as a config means them: text that stands for a
 * section (a model's folder) is the object that says the same, and a key that rules another one out removes it.
 */
#include "driver/config/keys.h"

#include <stdlib.h>
#include <string.h>

/* The files from the one being read up to the one that was asked for. */
typedef struct chain {
    const char *path, *real;
    const struct chain *up;
} chain;

/* "a.json -> b.json -> a.json", in the order in which they name each other. */
static void name_chain(const chain *link, mb_text *out)
{
    if (link->up)
        name_chain(link->up, out);
    mb_text_printf(out, "%s -> ", link->path);
}

/* The object that a section's text stands for; NULL: no memory. */
static cJSON *object_of(const mb_key *key, const cJSON *text)
{
    cJSON *object = cJSON_CreateObject();
    if (cJSON_AddStringToObject(object, key->shorthand, text->valuestring))
        return object;
    cJSON_Delete(object);
    return NULL;
}

static int merge(cJSON *base, const cJSON *over, const mb_key *section, mb_error *err);

/* One member of a file on top of base. key: its row, for members of the top level. */
static int merge_member(cJSON *base, const cJSON *value, const mb_key *key, mb_error *err)
{
    cJSON *old = cJSON_GetObjectItemCaseSensitive(base, value->string), *made = NULL;
    if (cJSON_IsNull(value)) {
        cJSON_DeleteItemFromObjectCaseSensitive(base, value->string);
        return MB_OK;
    }
    if (!cJSON_IsObject(value))
        made = cJSON_Duplicate(value, true);
    else if (cJSON_IsString(old) && key && key->shorthand)
        made = object_of(key, old);
    else if (!cJSON_IsObject(old))
        made = cJSON_CreateObject();
    else
        return merge(old, value, key, err);
    if (!made)
        return mb_no_memory(err, "the config");
    if (old)
        cJSON_ReplaceItemInObjectCaseSensitive(base, value->string, made);
    else
        cJSON_AddItemToObject(base, value->string, made);
    return cJSON_IsObject(value) ? merge(made, value, key, err) : MB_OK;
}

/* section: the row of the object that both are, NULL for the file itself and for objects inside of others. */
static int merge(cJSON *base, const cJSON *over, const mb_key *section, mb_error *err)
{
    const cJSON *value;
    bool top = !section && base->string == NULL;
    int rc = mb_config_check_once(over, over->string ? over->string : "", err);
    for (const mb_key *key = mb_config_keys; section && key->name; key++)
        if (strcmp(key->section, section->name) == 0 && key->rival &&
            cJSON_HasObjectItem(over, key->rival)) /* the base's own choice gives way */
            cJSON_DeleteItemFromObjectCaseSensitive(base, key->name);
    cJSON_ArrayForEach(value, over) {
        if (rc == MB_OK)
            rc = merge_member(base, value, top ? mb_config_key("", value->string) : NULL, err);
    }
    return rc;
}

/* Where base lies, as path says it: relative to the folder of the file that names it. */
static char *path_beside(const char *path, const char *base)
{
    const char *slash = strrchr(path, '/');
    if (*base == '/' || !slash)
        return mb_string_copy(base);
    return mb_string_format("%.*s/%s", (int)(slash - path), path, base);
}

static int resolve(cJSON **json, const chain *self, mb_error *err);

/* The base at path, with what it is based on itself. */
static int read_base(const char *path, const chain *self, cJSON **json, mb_error *err)
{
    char *text = NULL, *real = realpath(path, NULL);
    size_t size = 0;
    mb_text names = {0};
    int rc = MB_OK;
    *json = NULL;
    if (!real) {
        return mb_fail(
            err, MB_E_INPUT,
            "%s is based on %s, which is not there; the path in \"%s\" is relative to the file that says "
            "it",
            self->path, path, MB_CONFIG_KEY_OF(base)->name);
    }
    for (const chain *link = self; rc == MB_OK && link; link = link->up)
        if (strcmp(link->real, real) == 0) {
            name_chain(self, &names);
            rc = mb_fail(err, MB_E_INPUT, "%s is based on itself: %s%s", path, names.data ? names.data : "", path);
        }
    if (rc == MB_OK)
        rc = mb_file_read(path, MB_CONFIG_MAX_BYTES, &text, &size, err);
    if (rc == MB_OK)
        rc = mb_config_text(text, size, path, json, err);
    if (rc == MB_OK)
        rc = resolve(json, &(chain){path, real, self}, err);
    mb_text_free(&names);
    free(text);
    free(real);
    return rc;
}

/* Puts *json on top of what it is based on; the key that says so is gone then. */
static int resolve(cJSON **json, const chain *self, mb_error *err)
{
    const mb_key *key = MB_CONFIG_KEY_OF(base);
    cJSON *base = NULL;
    int rc = mb_config_check_once(*json, "", err);
    cJSON *named = rc == MB_OK ? cJSON_DetachItemFromObjectCaseSensitive(*json, key->name) : NULL;
    if (rc != MB_OK || !named)
        return rc == MB_OK || strstr(err->text, self->path) ? rc : mb_fail_prefix(err, rc, "%s", self->path);
    char *path = cJSON_IsString(named) ? path_beside(self->path, named->valuestring) : NULL;
    if (!cJSON_IsString(named))
        rc = mb_fail(err, MB_E_INPUT, "%s: config key %s must be text in quotes: the path of a config", self->path,
                     key->name);
    else
        rc = path ? read_base(path, self, &base, err) : mb_no_memory(err, "the config");
    if (rc == MB_OK)
        rc = merge(base, *json, NULL, err);
    if (rc == MB_OK) {
        cJSON_Delete(*json);
        *json = base;
        base = NULL;
    }
    cJSON_Delete(base);
    cJSON_Delete(named);
    free(path);
    return rc;
}

int mb_config_resolve(cJSON **json, const char *path, mb_error *err)
{
    char *real = realpath(path, NULL);
    int rc = resolve(json, &(chain){path, real ? real : path, NULL}, err);
    free(real);
    return rc;
}
