/*
 * chat.c - the chat template of a checkpoint folder: its file, its variables, and the checks that nothing of a
 * conversation is lost in it.
 *
 * Variables are those of transformers' apply_chat_template (5.24): messages, tools and documents (none),
 * add_generation_prompt, and the tokenizer's named special tokens.
 */
#include "model/template/chat.h"

#include "model/checkpoint/json.h"
#include "model/checkpoint/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX (64u << 20)

struct mb_chat_template {
    mb_template *tpl;
    char *file;
    cJSON *config; /* tokenizer_config.json, or NULL */
    char hash[MB_HASH_CAP];
};

mb_value mb_value_from_json(mb_arena *arena, const cJSON *json)
{
    const cJSON *item;
    mb_value value = mb_value_none();
    if (cJSON_IsBool(json))
        return mb_value_bool(cJSON_IsTrue(json));
    if (cJSON_IsNumber(json)) {
        double v = json->valuedouble;
        bool whole = v == floor(v) && fabs(v) < 9e15;
        return whole ? mb_value_int((int64_t)v) : (mb_value){.kind = MB_KIND_REAL, .real = v};
    }
    if (cJSON_IsString(json)) {
        size_t n = strlen(json->valuestring);
        char *copy = mb_arena_take(arena, n + 1);
        if (copy)
            memcpy(copy, json->valuestring, n);
        return copy ? mb_value_text(copy, n) : (mb_value){0};
    }
    if (!cJSON_IsArray(json) && !cJSON_IsObject(json))
        return value;
    value = cJSON_IsArray(json) ? mb_value_list(arena, MB_LIST) : mb_value_dict(arena);
    bool ok = value.kind != MB_KIND_UNDEFINED;
    cJSON_ArrayForEach(item, json) {
        mb_value inner = mb_value_from_json(arena, item);
        ok = ok && inner.kind != MB_KIND_UNDEFINED;
        if (ok && cJSON_IsArray(json))
            ok = mb_list_add(arena, value, inner);
        else if (ok) {
            size_t n = strlen(item->string);
            char *key = mb_arena_take(arena, n + 1);
            ok = key != NULL;
            if (ok)
                memcpy(key, item->string, n);
            ok = ok && mb_dict_put(arena, value, mb_value_text(key, n), inner);
        }
    }
    return ok ? value : (mb_value){0};
}

/* ---- the folder ---- */

/* The template among named ones: "default". */
static const cJSON *default_of(const cJSON *list)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        const cJSON *name = mb_json_member(item, "name"), *text = mb_json_member(item, "template");
        if (cJSON_IsString(name) && cJSON_IsString(text) && strcmp(name->valuestring, "default") == 0)
            return text;
    }
    return NULL;
}

/* "chat_template" of a JSON file, as text (malloc'ed) in *source; NULL = there is none. */
static int from_json(const cJSON *root, const char *where, char **source, mb_error *err)
{
    const cJSON *item = mb_json_member(root, "chat_template");
    if (!item)
        return MB_OK;
    if (cJSON_IsArray(item)) {
        item = default_of(item);
        if (!item)
            return mb_fail(err, MB_E_INPUT, "%s: \"chat_template\" lists no template called \"default\"", where);
    }
    if (!cJSON_IsString(item))
        return mb_fail(err, MB_E_INPUT, "%s: \"chat_template\" must be a text, or a list of {name, template}",
                       where);
    *source = mb_string_copy(item->valuestring);
    return *source ? MB_OK : mb_no_memory(err, "%s", where);
}

/* A JSON file of the folder; *root stays NULL when there is none. */
static int read_json(const char *folder, const char *name, cJSON **root, mb_error *err)
{
    char *text = NULL, *where = mb_string_format("%s/%s", folder, name);
    size_t size = 0;
    int rc = where ? mb_source_read(folder, name, FILE_MAX, &text, &size, err)
                   : mb_no_memory(err, "the chat template of %s", folder);
    if (rc == MB_OK && text)
        rc = mb_model_json_parse(root, text, size, where, err);
    free(text);
    free(where);
    return rc;
}

/* The text of the template and its length; *source stays NULL when the folder has none. */
static int find_source(mb_chat_template *chat, const char *folder, char **source, size_t *size, mb_error *err)
{
    static const char *const files[] = {"chat_template.jinja", "tokenizer_config.json", "chat_template.json"};
    int rc = MB_OK;
    for (int i = 0; i < 3 && rc == MB_OK && !*source; i++) {
        free(chat->file);
        chat->file = mb_string_format("%s/%s", folder, files[i]);
        if (!chat->file)
            return mb_no_memory(err, "the chat template of %s", folder);
        if (i == 0) {
            rc = mb_source_read(folder, files[i], MB_TEMPLATE_SOURCE_MAX, source, size, err);
            continue;
        }
        cJSON *other = NULL;
        if (i == 2)
            rc = read_json(folder, files[i], &other, err);
        if (rc == MB_OK)
            rc = from_json(i == 2 ? other : chat->config, chat->file, source, err);
        *size = *source ? strlen(*source) : 0;
        cJSON_Delete(other);
    }
    return rc;
}

int mb_chat_template_open(mb_chat_template **out, const char *folder, mb_error *err)
{
    char *source = NULL;
    size_t size = 0;
    *out = NULL;
    mb_chat_template *chat = calloc(1, sizeof *chat);
    if (!chat)
        return mb_no_memory(err, "the chat template of %s", folder);
    int rc = read_json(folder, "tokenizer_config.json", &chat->config, err);
    if (rc == MB_OK)
        rc = find_source(chat, folder, &source, &size, err);
    if (rc == MB_OK && source) {
        mb_hash_bytes(source, size, chat->hash);
        rc = mb_template_open(&chat->tpl, source, size, chat->file, err);
    }
    free(source);
    if (rc != MB_OK || !chat->tpl) {
        mb_chat_template_close(chat);
        return rc;
    }
    *out = chat;
    return MB_OK;
}

void mb_chat_template_close(mb_chat_template *chat)
{
    if (!chat)
        return;
    mb_template_close(chat->tpl);
    cJSON_Delete(chat->config);
    free(chat->file);
    free(chat);
}

const char *mb_chat_template_hash(const mb_chat_template *chat)
{
    return chat->hash;
}

const char *mb_chat_template_file(const mb_chat_template *chat)
{
    return chat->file;
}

/* ---- a conversation ---- */

static bool put(mb_arena *arena, mb_value dict, const char *key, mb_value value)
{
    return mb_dict_put(arena, dict, mb_value_string(key), value);
}

static bool add_message(mb_arena *arena, mb_value messages, const char *role, mb_value content)
{
    mb_value message = mb_value_dict(arena);
    return put(arena, message, "role", mb_value_string(role)) && put(arena, message, "content", content) &&
           mb_list_add(arena, messages, message);
}

/* bos_token and the others by name: a text, or an object with "content". */
static bool put_special_tokens(const mb_chat_template *chat, mb_arena *arena, mb_value variables)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    bool ok = true;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && ok; i++) {
        const cJSON *item = mb_json_member(chat->config, names[i]);
        if (cJSON_IsObject(item))
            item = mb_json_member(item, "content");
        if (cJSON_IsString(item))
            ok = put(arena, variables, names[i], mb_value_string(item->valuestring));
    }
    return ok;
}

static bool put_variables(const mb_chat_template *chat, const mb_conversation *c, mb_arena *arena,
                          mb_value variables, mb_value content)
{
    mb_value messages = mb_value_list(arena, MB_LIST);
    bool ok = put_special_tokens(chat, arena, variables);
    if (c->system)
        ok = ok && add_message(arena, messages, "system", mb_value_string(c->system));
    ok = ok && add_message(arena, messages, "user", content) && put(arena, variables, "messages", messages) &&
         put(arena, variables, "tools", mb_value_none()) && put(arena, variables, "documents", mb_value_none()) &&
         put(arena, variables, "add_generation_prompt", mb_value_bool(true));
    if (c->thinking >= 0)
        ok = ok && put(arena, variables, "enable_thinking", mb_value_bool(c->thinking)) &&
             put(arena, variables, "thinking", mb_value_bool(c->thinking));
    return ok;
}

/* Templates may take the white space around a message, not the message. */
static bool holds(const mb_text *out, size_t from, const char *text, size_t length)
{
    while (length > 0 && (unsigned char)text[0] <= ' ') {
        text++;
        length--;
    }
    while (length > 0 && (unsigned char)text[length - 1] <= ' ')
        length--;
    return length == 0 || memmem(out->data + from, out->length - from, text, length) != NULL;
}

static int check_text(const mb_chat_template *chat, const mb_conversation *c, const mb_text *out, size_t from,
                      const mb_text *clean, mb_error *err)
{
    if (!out->data || !holds(out, from, clean->data ? clean->data : "", clean->length))
        return mb_fail(err, MB_E_INPUT,
                       "%s: the template leaves out the message or changes its text: use \"chat\": {\"template\": "
                       "\"family\"}",
                       chat->file);
    if (c->system && !holds(out, from, c->system, strlen(c->system)))
        return mb_fail(err, MB_E_INPUT, "%s: the template leaves out the system message: do without \"system\"",
                       chat->file);
    return MB_OK;
}

int mb_chat_template_write(const mb_chat_template *chat, const mb_conversation *c, mb_text *out, mb_error *err)
{
    mb_arena arena = {0};
    mb_text clean = {0};
    const size_t from = out->length;
    if (c->thinking >= 0 && !mb_template_uses(chat->tpl, "enable_thinking") &&
        !mb_template_uses(chat->tpl, "thinking"))
        return mb_fail(err, MB_E_INPUT,
                       "%s: the template has no switch for thinking (enable_thinking): do without \"thinking\"",
                       chat->file);
    mb_utf8_repair(&clean, c->text, c->length);
    mb_value variables = mb_value_dict(&arena);
    int rc = MB_OK;
    if (clean.failed ||
        !put_variables(chat, c, &arena, variables, mb_value_text(clean.data ? clean.data : "", clean.length)))
        rc = mb_no_memory(err, "a prompt of %zu bytes", c->length);
    if (rc == MB_OK)
        rc = mb_template_render(chat->tpl, &arena, variables, clean.length + (c->system ? strlen(c->system) : 0),
                                c->now, out, err);
    if (rc == MB_OK)
        rc = check_text(chat, c, out, from, &clean, err);
    mb_text_free(&clean);
    mb_arena_free(&arena);
    return rc;
}
