/*
 * schema.c - the rows of the key table, the options of the methods and the names of the tasks as a JSON Schema
 * (draft 7, which editors read): what `./harness schema` prints. A definition a section, a property a row.
 */
#include "driver/config/keys.h"

#include "datasets/datasets.h"

#include <stdlib.h>
#include <string.h>

#define DRAFT "http://json-schema.org/draft-07/schema#"
#define TYPE "type" /* of the schema's language, not of a config */

static cJSON *typed(const char *type)
{
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, TYPE, type);
    return schema;
}

static cJSON *reference(const char *section)
{
    char *path = mb_string_format("#/definitions/%s", section);
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, "$ref", path ? path : "");
    free(path);
    return schema;
}

/* One of two; both become its own. */
static cJSON *either(cJSON *a, cJSON *b)
{
    cJSON *schema = cJSON_CreateObject(), *any = cJSON_AddArrayToObject(schema, "anyOf");
    cJSON_AddItemToArray(any, a);
    cJSON_AddItemToArray(any, b);
    return schema;
}

/* A list that is not empty; items becomes its own. */
static cJSON *list_of(cJSON *items)
{
    cJSON *schema = typed("array");
    cJSON_AddItemToObject(schema, "items", items);
    cJSON_AddNumberToObject(schema, "minItems", 1);
    return schema;
}

static cJSON *value_or_list(cJSON *value)
{
    cJSON *items = cJSON_Duplicate(value, true);
    return either(value, list_of(items));
}

static cJSON *number_in(const char *type, double min, double max)
{
    cJSON *schema = typed(type);
    cJSON_AddNumberToObject(schema, "minimum", min);
    cJSON_AddNumberToObject(schema, "maximum", max);
    return schema;
}

/* "true" and "false" among the words are the JSON values, too. */
static cJSON *words_of(const mb_key_choice *choices)
{
    cJSON *schema = cJSON_CreateObject(), *words = cJSON_AddArrayToObject(schema, "enum");
    for (const mb_key_choice *c = choices; c && c->word; c++) {
        cJSON_AddItemToArray(words, cJSON_CreateString(c->word));
        if (strcmp(c->word, "true") == 0 || strcmp(c->word, "false") == 0)
            cJSON_AddItemToArray(words, cJSON_CreateBool(*c->word == 't'));
    }
    return schema;
}

static cJSON *own_form(const mb_key *key)
{
    cJSON *integer;
    switch (key->type) {
    case MB_KEY_TEXT:
    case MB_KEY_PATH:
        return typed("string");
    case MB_KEY_INT:
        integer = number_in("integer", key->min, key->max);
        return key->choices ? either(integer, words_of(key->choices)) : integer;
    case MB_KEY_REAL:
        return number_in("number", key->min, key->max);
    case MB_KEY_BOOL:
        return typed("boolean");
    case MB_KEY_INTS:
        integer = number_in("integer", key->min, key->max);
        return value_or_list(key->choices ? either(integer, words_of(key->choices)) : integer);
    case MB_KEY_CHOICE:
        return words_of(key->choices);
    case MB_KEY_CHOICES:
        return list_of(words_of(key->choices));
    case MB_KEY_SECTION:
        return key->shorthand ? either(typed("string"), reference(key->name)) : reference(key->name);
    case MB_KEY_SECTIONS:
        return value_or_list(reference(key->name));
    case MB_KEY_OWN:
        break;
    }
    return key->describe ? key->describe() : cJSON_CreateObject();
}

static cJSON *describe_row(const mb_key *key)
{
    cJSON *schema = key->lists ? value_or_list(own_form(key)) : own_form(key);
    cJSON *preset = key->preset_words ? NULL : mb_key_preset(key);
    if (cJSON_HasObjectItem(schema, "$ref")) { /* beside a reference draft 7 reads nothing */
        cJSON *all = cJSON_CreateObject();
        cJSON_AddItemToArray(cJSON_AddArrayToObject(all, "allOf"), schema);
        schema = all;
    }
    cJSON_AddStringToObject(schema, "description", key->help);
    if (preset)
        cJSON_AddItemToObject(schema, "default", preset);
    return schema;
}

/* The object of a section. open: it may have keys of somebody else, too. */
static cJSON *describe_section(const char *section, bool open)
{
    cJSON *schema = typed("object"), *properties = cJSON_AddObjectToObject(schema, "properties");
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (strcmp(key->section, section) == 0)
            cJSON_AddItemToObject(properties, key->name, describe_row(key));
    if (!open)
        cJSON_AddFalseToObject(schema, "additionalProperties");
    return schema;
}

/* A section that a key of the type OWN reads: entries of tasks have keys of the task itself. */
static bool is_open(const char *section)
{
    const mb_key *key = mb_config_key("", section);
    return !key || (key->type != MB_KEY_SECTION && key->type != MB_KEY_SECTIONS);
}

cJSON *mb_config_schema(void)
{
    cJSON *schema = describe_section("", false), *definitions = cJSON_AddObjectToObject(schema, "definitions");
    cJSON_AddStringToObject(schema, "$schema", DRAFT);
    cJSON_AddStringToObject(schema, "title", "maskbench config");
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (*key->section && !cJSON_HasObjectItem(definitions, key->section))
            cJSON_AddItemToObject(definitions, key->section,
                                  describe_section(key->section, is_open(key->section)));
    return schema;
}

/* ---- methods and tasks ---- */

static cJSON *describe_option(const mb_option *option)
{
    cJSON *value = NULL, *words;
    switch (option->type) {
    case MB_OPTION_INT:
        value = number_in("integer", option->min, option->max);
        break;
    case MB_OPTION_REAL:
        value = number_in("number", option->min, option->max);
        break;
    case MB_OPTION_BOOL:
        value = typed("boolean");
        break;
    case MB_OPTION_CHOICE:
        value = cJSON_CreateObject();
        words = cJSON_AddArrayToObject(value, "enum");
        for (const char *word = option->choices; *word;) {
            size_t n = strcspn(word, "|");
            char *copy = mb_string_format("%.*s", (int)n, word);
            cJSON_AddItemToArray(words, cJSON_CreateString(copy ? copy : ""));
            if (copy && n && strspn(copy, "0123456789") == n) /* a config may leave the quotes off */
                cJSON_AddItemToArray(words, cJSON_CreateNumber(strtod(copy, NULL)));
            free(copy);
            word += n + (word[n] == '|');
        }
        break;
    case MB_OPTION_LIST:
    case MB_OPTION_FILE:
        value = typed("string");
        break;
    }
    cJSON *schema = value_or_list(value);
    cJSON_AddStringToObject(schema, "description", option->help);
    return schema;
}

/* Every method of the registry with its options; null takes one away that the base of a config has. */
cJSON *mb_config_describe_methods(void)
{
    cJSON *schema = typed("object"), *methods = cJSON_AddObjectToObject(schema, "properties");
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *method = mb_registry_at(i);
        cJSON *own = typed("object"), *options = cJSON_AddObjectToObject(own, "properties");
        for (const mb_option *o = method->options; o && o->name; o++)
            cJSON_AddItemToObject(options, o->name, describe_option(o));
        cJSON_AddFalseToObject(own, "additionalProperties");
        cJSON *entry = either(own, typed("null"));
        cJSON_AddStringToObject(entry, "description", method->summary);
        cJSON_AddItemToObject(methods, method->name, entry);
    }
    cJSON_AddFalseToObject(schema, "additionalProperties");
    return schema;
}

/* Names for an editor to offer; a group's name is text as well. */
cJSON *mb_config_describe_tasks(void)
{
    cJSON *names = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(names, "enum");
    for (size_t i = 0; i < mb_task_count(); i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(mb_task_at(i)->name));
    cJSON *schema = typed("array");
    cJSON_AddItemToObject(schema, "items",
                          either(either(names, typed("string")), reference(MB_CONFIG_KEY_OF(tasks)->shorthand)));
    return schema;
}
