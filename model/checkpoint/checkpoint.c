/*
 * checkpoint.c - the weight files of a folder as one set of tensors: a single model.safetensors, or the shards
 * that model.safetensors.index.json lists; or those of one GGUF file.
 *
 * The index is believed only as far as it can be checked: shard names must be plain file names of this folder. A
 * listed tensor that is not in its shard matters only where it is needed (a tied head is often listed and never
 * stored). metadata.total_size is not looked at: some writers count tensors there and some whole files.
 */
#include "model/checkpoint/json.h"
#include "model/checkpoint/source.h"

#include <stdlib.h>
#include <string.h>

#define INDEX_MAX ((size_t)64 << 20)
#define SHARDS_MAX 4096

struct shard {
    char *name, *path;
    const unsigned char *data;
    size_t size;
    mb_safetensors table;
};

struct mb_checkpoint {
    char *index; /* the index' bytes; NULL = a single file */
    size_t index_size;
    struct shard *shards; /* sorted by name */
    size_t shard_count;
    const mb_tensor **tensors; /* those that count, sorted by name */
    size_t tensor_count;
    char **absent; /* names that the index lists and its shards lack, sorted */
    size_t absent_count;
};

/* Both comparisons are byte order, so that an order is the same on every machine and locale. */
static int by_tensor_name(const void *a, const void *b)
{
    return strcmp((*(const mb_tensor *const *)a)->name, (*(const mb_tensor *const *)b)->name);
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A plain file name of the folder itself: no separators, no hidden files, nothing that climbs out. */
static bool plain_name(const char *name)
{
    size_t n = strlen(name);
    const char *suffix = ".safetensors";
    if (n <= strlen(suffix) || n > 255 || name[0] == '.' || strcmp(name + n - strlen(suffix), suffix) != 0)
        return false;
    for (const char *p = name; *p; p++)
        if (*p == '/' || *p == '\\' || (unsigned char)*p < 32)
            return false;
    return true;
}

/* Maps and validates one file. On failure the shard holds what was acquired; mb_checkpoint_close() frees it. */
static int open_shard(struct shard *shard, const char *folder, const char *name, mb_error *err)
{
    shard->name = mb_string_copy(name);
    shard->path = mb_string_format("%s/%s", folder, name);
    if (!shard->name || !shard->path)
        return mb_no_memory(err, "opening %s/%s", folder, name);
    if (!mb_file_exists(shard->path))
        return mb_fail(err, MB_E_INPUT,
                       "%s is missing, but model.safetensors.index.json lists it: download the whole folder",
                       shard->path);
    int rc = mb_file_map(shard->path, &shard->data, &shard->size, err);
    if (rc == MB_OK)
        rc = mb_safetensors_parse(&shard->table, shard->data, shard->size, shard->path, err);
    return rc;
}

/* Distinct shard names of the weight map, sorted; *names holds pointers into the JSON tree. */
static int shard_names(const cJSON *map, const char *where, char ***names, size_t *count, mb_error *err)
{
    size_t n = (size_t)cJSON_GetArraySize(map), distinct = 0;
    char **all = calloc(n + 1, sizeof *all);
    *names = all;
    *count = 0;
    if (!all)
        return mb_fail(err, MB_E_SYSTEM, "%s: no memory for %zu entries", where, n);
    n = 0;
    for (const cJSON *entry = map->child; entry; entry = entry->next) {
        if (!cJSON_IsString(entry))
            return mb_fail(err, MB_E_INPUT, "%s: weight_map: the file of %.200s must be a string", where,
                           entry->string);
        if (!plain_name(entry->valuestring))
            return mb_fail(err, MB_E_INPUT,
                           "%s: weight_map: \"%.100s\" is refused as the file of %.200s: only plain names of "
                           ".safetensors files in the same folder are read",
                           where, entry->valuestring, entry->string);
        all[n++] = entry->valuestring;
    }
    /* A weight map names the same few files thousands of times: sort, then keep one of each run. */
    qsort(all, n, sizeof *all, by_string);
    for (size_t i = 0; i < n; i++)
        if (distinct == 0 || strcmp(all[distinct - 1], all[i]) != 0)
            all[distinct++] = all[i];
    if (distinct == 0 || distinct > SHARDS_MAX)
        return mb_fail(err, MB_E_INPUT, "%s: weight_map names %zu files; 1 to %d are possible", where, distinct,
                       SHARDS_MAX);
    *count = distinct;
    return MB_OK;
}

/* Looks up every entry of the weight map in its shard. */
static int collect_tensors(mb_checkpoint *checkpoint, const cJSON *map, const char *where, mb_error *err)
{
    size_t listed = (size_t)cJSON_GetArraySize(map) + 1;
    checkpoint->tensors = calloc(listed, sizeof *checkpoint->tensors);
    checkpoint->absent = calloc(listed, sizeof *checkpoint->absent);
    if (!checkpoint->tensors || !checkpoint->absent)
        return mb_no_memory(err, "the tensors of %s", where);
    for (const cJSON *entry = map->child; entry; entry = entry->next) {
        const mb_tensor *tensor = NULL;
        for (size_t i = 0; i < checkpoint->shard_count && !tensor; i++)
            if (strcmp(checkpoint->shards[i].name, entry->valuestring) == 0)
                tensor = mb_safetensors_find(&checkpoint->shards[i].table, entry->string);
        if (tensor)
            checkpoint->tensors[checkpoint->tensor_count++] = tensor;
        else if (!(checkpoint->absent[checkpoint->absent_count++] = mb_string_copy(entry->string)))
            return mb_no_memory(err, "the tensors of %s", where);
    }
    qsort(checkpoint->tensors, checkpoint->tensor_count, sizeof *checkpoint->tensors, by_tensor_name);
    qsort(checkpoint->absent, checkpoint->absent_count, sizeof *checkpoint->absent, by_string);
    return MB_OK;
}

/* A folder with an index: all shards it names, then the tensors it lists. */
static int open_index(mb_checkpoint *checkpoint, const char *folder, const char *path, mb_error *err)
{
    cJSON *root = NULL;
    char **names = NULL;
    size_t count = 0;
    int rc = mb_model_json_load(&root, path, INDEX_MAX, &checkpoint->index, &checkpoint->index_size, err);
    if (rc != MB_OK)
        goto out;
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    if (!cJSON_IsObject(map)) {
        rc = mb_fail(err, MB_E_INPUT, "%s: \"weight_map\" is missing or no object", path);
        goto out;
    }
    rc = shard_names(map, path, &names, &count, err);
    if (rc != MB_OK)
        goto out;
    checkpoint->shards = calloc(count, sizeof *checkpoint->shards);
    if (!checkpoint->shards) {
        rc = mb_fail(err, MB_E_SYSTEM, "%s: no memory for %zu files", path, count);
        goto out;
    }
    for (size_t i = 0; i < count && rc == MB_OK; i++) {
        checkpoint->shard_count = i + 1; /* first, so that close() sees a half-opened one */
        rc = open_shard(&checkpoint->shards[i], folder, names[i], err);
    }
    if (rc == MB_OK)
        rc = collect_tensors(checkpoint, map, path, err);
out:
    free(names);
    cJSON_Delete(root);
    return rc;
}

/* Maps a GGUF file; as open_shard(). */
static int open_gguf(struct shard *shard, const char *path, mb_error *err)
{
    shard->path = mb_string_copy(path);
    int rc =
        shard->path ? mb_file_map(path, &shard->data, &shard->size, err) : mb_no_memory(err, "opening %s", path);
    return rc == MB_OK ? mb_source_tensors(&shard->table, shard->data, shard->size, path, err) : rc;
}

/* One file, in a folder or by itself: every tensor in it counts. The table is sorted already. */
static int open_single(mb_checkpoint *checkpoint, const char *folder, bool gguf, mb_error *err)
{
    checkpoint->shards = calloc(1, sizeof *checkpoint->shards);
    if (!checkpoint->shards)
        return mb_no_memory(err, "opening %s", folder);
    checkpoint->shard_count = 1;
    struct shard *shard = &checkpoint->shards[0];
    int rc = gguf ? open_gguf(shard, folder, err) : open_shard(shard, folder, "model.safetensors", err);
    if (rc != MB_OK)
        return rc;
    checkpoint->tensors = calloc(shard->table.count + 1, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return mb_no_memory(err, "the tensors of %s", shard->path);
    for (size_t i = 0; i < shard->table.count; i++)
        checkpoint->tensors[checkpoint->tensor_count++] = &shard->table.tensors[i];
    return MB_OK;
}

int mb_checkpoint_open(mb_checkpoint **checkpoint, const char *folder, mb_error *err)
{
    char *single = mb_string_format("%s/model.safetensors", folder);
    char *index = mb_string_format("%s/model.safetensors.index.json", folder);
    mb_checkpoint *opened = calloc(1, sizeof *opened);
    int rc;
    *checkpoint = NULL;
    if (!single || !index || !opened)
        rc = mb_no_memory(err, "opening %s", folder);
    else if (mb_source_is_file(folder))
        rc = open_single(opened, folder, true, err);
    else if (mb_file_exists(single)) /* the hub's own order: a single file comes first */
        rc = open_single(opened, folder, false, err);
    else if (mb_file_exists(index))
        rc = open_index(opened, folder, index, err);
    else
        rc = mb_fail(err, MB_E_INPUT,
                     "%s has neither model.safetensors nor model.safetensors.index.json: the weights are missing "
                     "(pytorch_model.bin files are not read)",
                     folder);
    if (rc == MB_OK) {
        *checkpoint = opened;
        opened = NULL;
    }
    mb_checkpoint_close(opened);
    free(single);
    free(index);
    return rc;
}

void mb_checkpoint_close(mb_checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    for (size_t i = 0; i < checkpoint->shard_count; i++) {
        struct shard *shard = &checkpoint->shards[i];
        mb_safetensors_free(&shard->table);
        mb_file_unmap(shard->data, shard->size);
        free(shard->name);
        free(shard->path);
    }
    for (size_t i = 0; i < checkpoint->absent_count; i++)
        free(checkpoint->absent[i]);
    free(checkpoint->absent);
    free(checkpoint->index);
    free(checkpoint->shards);
    free(checkpoint->tensors);
    free(checkpoint);
}

const mb_tensor *mb_checkpoint_find(const mb_checkpoint *checkpoint, const char *name)
{
    mb_tensor key = {.name = name};
    const mb_tensor *pointer = &key;
    const mb_tensor *const *found = NULL;
    if (checkpoint->tensor_count)
        found = bsearch(&pointer, checkpoint->tensors, checkpoint->tensor_count, sizeof pointer, by_tensor_name);
    return found ? *found : NULL;
}

bool mb_checkpoint_lacks(const mb_checkpoint *checkpoint, const char *name)
{
    return checkpoint->absent_count &&
           bsearch(&name, checkpoint->absent, checkpoint->absent_count, sizeof *checkpoint->absent, by_string);
}

const mb_tensor *mb_checkpoint_tensor(const mb_checkpoint *checkpoint, size_t i)
{
    return i < checkpoint->tensor_count ? checkpoint->tensors[i] : NULL;
}

/* One hash over the bytes of all files in the order of their names: the same download gives the same hash
 * everywhere, and a single file has the hash that mb_hash_file() gives. An index decides which tensors count. */
int mb_checkpoint_hash(const mb_checkpoint *checkpoint, char hex[MB_HASH_CAP], mb_error *err)
{
    mb_hash *hash = mb_hash_new();
    if (!hash)
        return mb_no_memory(err, "hashing the weights");
    for (size_t i = 0; i < checkpoint->shard_count; i++)
        mb_hash_add(hash, checkpoint->shards[i].data, checkpoint->shards[i].size);
    if (checkpoint->index)
        mb_hash_add(hash, checkpoint->index, checkpoint->index_size);
    mb_hash_end(hash, hex);
    return MB_OK;
}
