/*
 * folder.c - the configuration of a checkpoint folder: which of its files are read and what its name and its
 * tokenizer say beside config.json.
 *
 * Only small files are opened, so this is what a plan and `list models` cost.
 */
#include "model/checkpoint/config.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/source.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX ((size_t)16 << 20)
#define TOKENIZER_MAX ((size_t)256 << 20)
#define NAME_BLOCK_MAX 1024

/* ---- the name ---- */

/* The part of a path before `end` that lies between slashes. */
static size_t part_begin(const char *path, size_t end)
{
    while (end > 0 && path[end - 1] != '/')
        end--;
    return end;
}

static size_t without_slashes(const char *path, size_t end)
{
    while (end > 1 && path[end - 1] == '/')
        end--;
    return end;
}

/* "models/tiny/" -> "tiny", "a/b.gguf" -> "b", into a buffer of 64. */
static void folder_name(const char *path, char name[64])
{
    size_t end = without_slashes(path, strlen(path)), begin = part_begin(path, end);
    if (end - begin > 5 && memcmp(path + end - 5, ".gguf", 5) == 0)
        end -= 5;
    size_t n = end - begin < 63 ? end - begin : 63;
    memcpy(name, path + begin, n);
    name[n] = '\0';
}

int32_t mb_config_block_of(const char *path)
{
    size_t end = without_slashes(path, strlen(path)), begin = part_begin(path, end);
    int32_t block = 0;
    /* .../models--owner--name/snapshots/<commit>: the folder is called by a hash. */
    size_t parent_end = begin > 0 ? without_slashes(path, begin) : 0, parent = part_begin(path, parent_end);
    if (parent_end - parent == strlen("snapshots") && memcmp(path + parent, "snapshots", 9) == 0 && parent > 0) {
        end = without_slashes(path, parent);
        begin = part_begin(path, end);
    }
    for (size_t i = begin; i + 2 < end; i++) {
        if (path[i] != '-' || path[i + 1] != 'b' || !isdigit((unsigned char)path[i + 2]))
            continue;
        char *after = NULL;
        long value = strtol(path + i + 2, &after, 10);
        bool whole = after == path + end || *after == '-' || *after == '_' || *after == '.';
        if (whole && value >= 1 && value <= NAME_BLOCK_MAX)
            block = (int32_t)value;
    }
    return block;
}

/* ---- the tokenizer's mask token ---- */

/* tokenizer_config.json writes a special token as text or as an object with "content". */
static const char *token_text(const cJSON *root, const char *key)
{
    const cJSON *token = mb_json_member(root, key);
    return cJSON_IsObject(token)   ? mb_json_string(token, "content")
           : cJSON_IsString(token) ? token->valuestring
                                   : NULL;
}

static bool same_text(const cJSON *item, const char *text)
{
    return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

/* Its id in {"151669": {"content": ...}}; -1 = not there. */
static int32_t id_in_decoder(const cJSON *decoder, const char *text)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, decoder) {
        char *end = NULL;
        long id = strtol(item->string, &end, 10);
        if (same_text(mb_json_member(item, "content"), text) && end != item->string && !*end && id >= 0 &&
            id <= INT32_MAX)
            return (int32_t)id;
    }
    return -1;
}

/* In tokenizer.json's list [{"id": 151669, "content": ...}] or added_tokens.json's {"text": id}. */
static int32_t id_in_added(const cJSON *root, const char *text)
{
    const cJSON *list = mb_json_member(root, "added_tokens"), *item, *id = mb_json_member(root, text);
    int64_t value = -1;
    cJSON_ArrayForEach(item, list) {
        if (same_text(mb_json_member(item, "content"), text))
            id = mb_json_member(item, "id");
    }
    return mb_model_json_integer(id, 0, INT32_MAX, &value) ? (int32_t)value : -1;
}

/* A JSON file of the checkpoint; *root stays NULL when it has none. */
static int read_json(const char *folder, const char *name, cJSON **root, mb_error *err)
{
    char *text = NULL, *where = mb_string_format("%s/%s", folder, name);
    size_t size = 0;
    *root = NULL;
    int rc = where ? mb_source_read(folder, name, TOKENIZER_MAX, &text, &size, err)
                   : mb_no_memory(err, "reading %s", folder);
    if (rc == MB_OK && text)
        rc = mb_model_json_parse(root, text, size, where, err);
    free(text);
    free(where);
    return rc;
}

/* *id = -1: the folder names no mask token. A damaged file is the tokenizer's to tell. */
static int find_mask(const char *folder, int32_t *id, mb_error *err)
{
    static const char *const roles[] = {"tokenizer_config.json", "special_tokens_map.json"};
    static const char *const ids[] = {"tokenizer_config.json", "tokenizer.json", "added_tokens.json"};
    char *text = NULL;
    int rc = MB_OK;
    *id = -1;
    for (size_t i = 0; i < 2 && !text && rc == MB_OK; i++) {
        cJSON *root = NULL;
        rc = read_json(folder, roles[i], &root, err);
        const char *token = token_text(root, "mask_token");
        if (token && !(text = mb_string_copy(token)))
            rc = mb_no_memory(err, "reading %s", folder);
        cJSON_Delete(root);
    }
    for (size_t i = 0; i < 3 && text && *id < 0 && rc == MB_OK; i++) {
        cJSON *root = NULL;
        rc = read_json(folder, ids[i], &root, err);
        *id = i == 0 ? id_in_decoder(mb_json_member(root, "added_tokens_decoder"), text) : id_in_added(root, text);
        cJSON_Delete(root);
    }
    free(text);
    return rc;
}

/* ---- the folder ---- */

/* One file has the hash of its bytes; with a second one the length of the first tells where that begins. */
static int hash_files(const mb_config_files *files, char hex[MB_HASH_CAP], mb_error *err)
{
    mb_hash *hash = mb_hash_new();
    if (!hash)
        return mb_no_memory(err, "hashing the model");
    mb_hash_add(hash, files->json, files->json_size);
    if (files->generation) {
        uint64_t length = files->json_size;
        mb_hash_add(hash, &length, sizeof length);
        mb_hash_add(hash, files->generation, files->generation_size);
    }
    mb_hash_end(hash, hex);
    return MB_OK;
}

static int read_folder(const mb_model_request *request, mb_model_config *config, mb_error *err)
{
    char *path = mb_string_format("%s/config.json", request->path), *json = NULL, *generation = NULL;
    mb_config_files files = {.where = path, .mask_id = -1, .block = mb_config_block_of(request->path)};
    if (!path)
        return mb_no_memory(err, "reading %s", request->path);
    int rc = mb_source_read(request->path, "config.json", CONFIG_MAX, &json, &files.json_size, err);
    if (rc == MB_OK && !json)
        rc = mb_fail(err, MB_E_INPUT,
                     "%s is missing: give the checkpoint folder with --model DIR (a folder as downloaded from "
                     "the Hugging Face hub), or a GGUF file",
                     path);
    if (rc == MB_OK)
        rc = mb_source_read(request->path, "generation_config.json", CONFIG_MAX, &generation,
                            &files.generation_size, err);
    files.json = json;
    files.generation = generation;
    if (rc == MB_OK)
        rc = find_mask(request->path, &files.mask_id, err);
    if (rc == MB_OK)
        rc = mb_config_parse(config, &files, request, err);
    if (rc == MB_OK)
        folder_name(request->path, config->name);
    if (rc == MB_OK)
        rc = hash_files(&files, config->files_hash, err);
    free(path);
    free(json);
    free(generation);
    return rc;
}

int mb_model_inspect(const mb_model_request *request, mb_model_config *config, mb_error *err)
{
    *config = (mb_model_config){0};
    if (!request->path && !request->shape)
        return mb_fail(err, MB_E_INPUT, "no model: give a checkpoint folder with --model DIR, or a named shape");
    if (request->shape && request->path)
        return mb_fail(err, MB_E_INPUT, "both the folder %s and the shape %s are given: choose one", request->path,
                       request->shape);
    return request->shape ? mb_config_shape(config, request, err) : read_folder(request, config, err);
}
