/*
 * fill.c - objects of a config against the rows of the key table: the check of what stands there, and the one loop
 * that carries values, or presets where there are none, to the fields that the rows name.
 */
#include "driver/config/keys.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- check ---- */

/* The words of a row, for a sentence: "a|b" with bar "|". malloc'ed. */
static char *words_of(const mb_key *key, const char *bar)
{
    mb_text text = {0};
    for (const mb_key_choice *c = key->choices; c && c->word; c++)
        mb_text_printf(&text, "%s%s", c > key->choices ? bar : "", c->word);
    return mb_text_take(&text);
}

/* The choice that the value names; NULL = none. */
static const mb_key_choice *choice_of(const mb_key *key, const cJSON *value)
{
    const char *text =
        cJSON_IsBool(value) ? (cJSON_IsTrue(value) ? "true" : "false") : cJSON_GetStringValue(value);
    for (const mb_key_choice *c = key->choices; text && c && c->word; c++)
        if (strcmp(c->word, text) == 0)
            return c;
    return NULL;
}

static int check_number(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    const char *what = key->type == MB_KEY_REAL ? "number" : "whole number";
    double number = value->valuedouble;
    if (!cJSON_IsNumber(value) || !isfinite(number) || (key->type != MB_KEY_REAL && number != floor(number)))
        return mb_fail(err, MB_E_INPUT, "config key %s must be a %s%s%s%s", path, what,
                       key->choices ? " or \"" : "", key->choices ? key->choices->word : "",
                       key->choices ? "\"" : "");
    if (number < key->min || number > key->max)
        return mb_fail(err, MB_E_INPUT, "config key %s is %.16g; %s must be a %s from %.16g to %.16g", path,
                       number, path, what, key->min, key->max);
    return MB_OK;
}

static int check_ints(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    const cJSON *item;
    int rc = MB_OK;
    if (!cJSON_IsArray(value))
        return choice_of(key, value) ? MB_OK : check_number(value, key, path, err);
    if (cJSON_GetArraySize(value) == 0)
        return mb_fail(err, MB_E_INPUT, "config key %s must be a whole number or a list of them", path);
    cJSON_ArrayForEach(item, value) {
        if (rc == MB_OK && !choice_of(key, item))
            rc = check_number(item, key, path, err);
    }
    return rc;
}

static int check_choices(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    const cJSON *item;
    if (!cJSON_IsArray(value) || !value->child)
        return mb_fail(err, MB_E_INPUT, "config key %s must be a list that is not empty, such as [\"%s\", \"%s\"]",
                       path, key->choices[0].word, key->choices[1].word);
    cJSON_ArrayForEach(item, value) {
        if (choice_of(key, item))
            continue;
        const char *text = cJSON_GetStringValue(item);
        char *words = words_of(key, ", ");
        int rc = mb_fail(err, MB_E_INPUT, "config key %s: \"%s\" is none of %s", path, text ? text : "?",
                         words ? words : "its words");
        free(words);
        return rc;
    }
    return MB_OK;
}

static int check_choice(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    if (choice_of(key, value))
        return MB_OK;
    char *words = words_of(key, "|");
    int rc = mb_fail(err, MB_E_INPUT, "config key %s must be one of %s", path, words ? words : "its words");
    free(words);
    return rc;
}

/* An object with the keys of a section, or a list of such objects. */
static int check_sections(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    int count = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : 1, rc = MB_OK;
    if (count == 0)
        return mb_fail(err, MB_E_INPUT, "config key %s is an empty list", path);
    for (int i = 0; rc == MB_OK && i < count; i++) {
        char entry[256];
        snprintf(entry, sizeof entry, count > 1 ? "%s[%d]" : "%s", path, i);
        rc = mb_config_check(cJSON_IsArray(value) ? cJSON_GetArrayItem(value, i) : value, key->name, entry, false,
                             err);
    }
    return rc;
}

static int check_value(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    switch (key->type) {
    case MB_KEY_TEXT:
    case MB_KEY_PATH:
        return cJSON_IsString(value) ? MB_OK
                                     : mb_fail(err, MB_E_INPUT, "config key %s must be text in quotes", path);
    case MB_KEY_BOOL:
        return cJSON_IsBool(value) ? MB_OK : mb_fail(err, MB_E_INPUT, "config key %s must be true or false", path);
    case MB_KEY_INT:
    case MB_KEY_REAL:
        return choice_of(key, value) ? MB_OK : check_number(value, key, path, err);
    case MB_KEY_INTS:
        return check_ints(value, key, path, err);
    case MB_KEY_CHOICE:
        return check_choice(value, key, path, err);
    case MB_KEY_CHOICES:
        return check_choices(value, key, path, err);
    case MB_KEY_SECTION:
        return key->shorthand && cJSON_IsString(value) ? MB_OK
                                                       : mb_config_check(value, key->name, path, false, err);
    case MB_KEY_SECTIONS:
        return check_sections(value, key, path, err);
    case MB_KEY_OWN:
        break;
    }
    return MB_OK;
}

int mb_config_check_once(const cJSON *object, const char *path, mb_error *err)
{
    const cJSON *value;
    cJSON_ArrayForEach(value, object) {
        for (const cJSON *other = value->next; other; other = other->next)
            if (value->string && strcmp(other->string, value->string) == 0)
                return mb_fail(err, MB_E_INPUT, "config key %s%s%s is given twice", path, *path ? "." : "",
                               value->string);
    }
    return MB_OK;
}

static int unknown_key(const char *section, const char *path, mb_error *err)
{
    mb_text known = {0};
    mb_guess guess = {.word = strrchr(path, '.') ? strrchr(path, '.') + 1 : path};
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (strcmp(key->section, section) == 0) {
            mb_text_printf(&known, "%s%s", known.length ? ", " : "", key->name);
            mb_guess_offer(&guess, key->name, strlen(key->name));
        }
    int rc = mb_fail(err, MB_E_INPUT, "unknown config key %s%s; known here: %s", path, mb_guess_phrase(&guess),
                     known.data ? known.data : "");
    mb_text_free(&known);
    return rc;
}

int mb_config_check(const cJSON *object, const char *section, const char *path, bool open, mb_error *err)
{
    const cJSON *value;
    if (!cJSON_IsObject(object))
        return mb_fail(err, MB_E_INPUT, "config key %s must be an object { ... }", path);
    int rc = mb_config_check_once(object, path, err);
    cJSON_ArrayForEach(value, object) {
        const mb_key *key = mb_config_key(section, value->string);
        char full[256];
        snprintf(full, sizeof full, "%s%s%s", path, *path ? "." : "", value->string);
        if (rc == MB_OK && key)
            rc = check_value(value, key, full, err);
        else if (rc == MB_OK && !open)
            rc = unknown_key(section, full, err);
    }
    return rc;
}

/* ---- fill ---- */

static void *field_of(void *base, const mb_key *key)
{
    return (char *)base + key->offset;
}

static int store_text(void *field, const mb_key *key, const char *text)
{
    char *copy = key->type == MB_KEY_PATH && *text ? mb_shared_path(text) : mb_string_copy(text);
    memcpy(field, &copy, sizeof copy);
    return copy ? MB_OK : MB_E_SYSTEM;
}

static void store_int(void *field, const mb_key *key, int64_t number)
{
    int32_t narrow = (int32_t)number;
    if (key->size == sizeof narrow)
        memcpy(field, &narrow, sizeof narrow);
    else
        memcpy(field, &number, sizeof number);
}

/* A number that check_number() let through: within the key's range, so that the cast is defined. */
static int64_t integer_of(const mb_key *key, const cJSON *value)
{
    int64_t number = 0;
    mb_json_integer(value, (int64_t)key->min, (int64_t)key->max, &number);
    return number;
}

static int32_t int_of(const mb_key *key, const cJSON *item)
{
    const mb_key_choice *choice = choice_of(key, item);
    return choice ? choice->value : (int32_t)integer_of(key, item);
}

static int store_ints(void *field, const mb_key *key, const cJSON *value)
{
    mb_key_ints *ints = field;
    const cJSON *item;
    ints->count = 0;
    ints->values = calloc(cJSON_IsArray(value) ? (size_t)cJSON_GetArraySize(value) : 1, sizeof *ints->values);
    if (!ints->values)
        return MB_E_SYSTEM;
    if (!cJSON_IsArray(value))
        ints->values[ints->count++] = int_of(key, value);
    else
        cJSON_ArrayForEach(item, value)
            ints->values[ints->count++] = int_of(key, item);
    return MB_OK;
}

static int store_objects(void *field, const cJSON *value)
{
    mb_key_objects *objects = field;
    const cJSON *item;
    objects->count = 0;
    objects->values =
        calloc(cJSON_IsArray(value) ? (size_t)cJSON_GetArraySize(value) : 1, sizeof *objects->values);
    if (!objects->values)
        return MB_E_SYSTEM;
    if (!cJSON_IsArray(value))
        objects->values[objects->count++] = value;
    else
        cJSON_ArrayForEach(item, value)
            objects->values[objects->count++] = item;
    return MB_OK;
}

static int store_value(void *base, const mb_key *key, const cJSON *value)
{
    void *field = field_of(base, key);
    const cJSON *item;
    uint32_t bits = 0;
    switch (key->type) {
    case MB_KEY_TEXT:
    case MB_KEY_PATH:
        return store_text(field, key, value->valuestring);
    case MB_KEY_INT:
        store_int(field, key, choice_of(key, value) ? choice_of(key, value)->value : integer_of(key, value));
        break;
    case MB_KEY_REAL:
        memcpy(field, &value->valuedouble, sizeof value->valuedouble);
        break;
    case MB_KEY_BOOL:
        *(bool *)field = cJSON_IsTrue(value);
        break;
    case MB_KEY_INTS:
        return store_ints(field, key, value);
    case MB_KEY_CHOICE:
        store_int(field, key, choice_of(key, value)->value);
        break;
    case MB_KEY_CHOICES:
        cJSON_ArrayForEach(item, value)
            bits |= (uint32_t)choice_of(key, item)->value;
        memcpy(field, &bits, sizeof bits);
        break;
    case MB_KEY_SECTIONS:
        return store_objects(field, value);
    case MB_KEY_SECTION:
    case MB_KEY_OWN:
        break;
    }
    return MB_OK;
}

cJSON *mb_key_preset(const mb_key *key)
{
    bool quoted = key->type == MB_KEY_TEXT || key->type == MB_KEY_PATH || key->type == MB_KEY_CHOICE ||
                  (key->type == MB_KEY_SECTION && key->shorthand);
    if (!key->preset)
        return NULL;
    return quoted ? cJSON_CreateString(key->preset) : cJSON_Parse(key->preset);
}

/* The keys of a section from an object, or from the text that stands for its shorthand key. */
static int fill_section(const cJSON *value, const mb_key *key, void *base, mb_error *err)
{
    cJSON *object = NULL;
    if (cJSON_IsString(value)) {
        object = cJSON_CreateObject();
        if (!cJSON_AddStringToObject(object, key->shorthand, value->valuestring)) {
            cJSON_Delete(object);
            return mb_no_memory(err, "the config");
        }
    }
    int rc = mb_config_fill(object ? object : value, key->name, base, err);
    cJSON_Delete(object);
    return rc;
}

int mb_config_complete(cJSON *root, mb_error *err)
{
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (!*key->section && key->type == MB_KEY_SECTIONS && !cJSON_HasObjectItem(root, key->name) &&
            !cJSON_AddItemToObject(root, key->name, mb_key_preset(key)))
            return mb_no_memory(err, "the config");
    return MB_OK;
}

int mb_config_fill(const cJSON *object, const char *section, void *base, mb_error *err)
{
    int rc = MB_OK;
    for (const mb_key *key = mb_config_table(section); rc == MB_OK && key->name; key++) {
        if (strcmp(key->section, section) != 0)
            continue;
        const cJSON *given = cJSON_GetObjectItemCaseSensitive(object, key->name);
        cJSON *preset = given ? NULL : mb_key_preset(key);
        const cJSON *value = given ? given : preset;
        if (!value && key->preset)
            rc = mb_no_memory(err, "the config");
        else if (value && key->type == MB_KEY_SECTION)
            rc = fill_section(value, key, base, err);
        else if (value && store_value(base, key, value) != MB_OK)
            rc = mb_no_memory(err, "the config");
        cJSON_Delete(preset);
    }
    return rc;
}

void mb_config_release(const char *section, void *base)
{
    for (const mb_key *key = mb_config_table(section); key->name; key++) {
        void *owned = NULL, *field = field_of(base, key);
        if (strcmp(key->section, section) != 0)
            continue;
        if (key->type == MB_KEY_SECTION)
            mb_config_release(key->name, base);
        if (key->type == MB_KEY_TEXT || key->type == MB_KEY_PATH || key->type == MB_KEY_INTS ||
            key->type == MB_KEY_SECTIONS)
            memcpy(&owned, field, sizeof owned); /* the pointer is the first member of both structs */
        free(owned);
    }
}
