/*
 * folder.c - a trained model as a Hugging Face folder: config.json with the sizes and type that were written,
 * model.safetensors, and the small files of the folder that the training began with (tokenizer, chat template,
 * code).
 */
#include "training/loop.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define COPY_MAX ((size_t)256 << 20)

/* A size as config.json calls it. */
typedef struct named_size {
    const char *name;
    int32_t value;
} named_size;

static void put(cJSON *root, const char *name, cJSON *value)
{
    cJSON_DeleteItemFromObjectCaseSensitive(root, name);
    cJSON_AddItemToObject(root, name, value);
}

/* Block and mask of the request, under the names that the file has for them. */
static void put_block(cJSON *root, const mb_train_request *r)
{
    if (r->block > 0)
        put(root, cJSON_HasObjectItem(root, "bd_size") ? "bd_size" : "block_size", cJSON_CreateNumber(r->block));
    if (r->mask > 0)
        put(root, "mask_token_id", cJSON_CreateNumber(r->mask));
}

static int write_config(const mb_training *t, mb_error *err)
{
    const mb_model_config *c = &t->network.config;
    const named_size sizes[] = {
        {"num_hidden_layers", c->layers},     {"hidden_size", c->hidden}, {"num_attention_heads", c->query_heads},
        {"num_key_value_heads", c->kv_heads}, {"head_dim", c->head_dim},  {"intermediate_size", c->intermediate}};
    char *from = mb_string_format("%s/config.json", t->request->model), *text = NULL, *written = NULL;
    char *to = mb_string_format("%s/config.json", t->request->out);
    size_t size = 0;
    int rc = from && to ? mb_file_read(from, COPY_MAX, &text, &size, err) : mb_no_memory(err, "a path");
    cJSON *root = rc == MB_OK ? cJSON_Parse(text) : NULL;
    if (rc == MB_OK && !root)
        rc = mb_fail(err, MB_E_INPUT, "%s is not valid JSON", from);
    for (size_t i = 0; rc == MB_OK && i < sizeof sizes / sizeof sizes[0]; i++)
        if (cJSON_HasObjectItem(root, sizes[i].name) || strcmp(sizes[i].name, "head_dim") != 0 ||
            c->head_dim * c->query_heads != c->hidden)
            put(root, sizes[i].name, cJSON_CreateNumber(sizes[i].value));
    if (rc == MB_OK) {
        put_block(root, t->request);
        put(root, cJSON_HasObjectItem(root, "dtype") ? "dtype" : "torch_dtype",
            cJSON_CreateString(t->request->output == MB_BF16 ? "bfloat16" : "float32"));
        written = cJSON_Print(root);
        rc = written ? mb_file_write(to, written, strlen(written), err) : mb_no_memory(err, "config.json");
    }
    cJSON_free(written);
    cJSON_Delete(root);
    free(text);
    free(from);
    free(to);
    return rc;
}

/* Small files that a model is used with; weights and their index are not among them. */
static bool is_companion(const char *name)
{
    static const char *const endings[] = {".json", ".jinja", ".txt", ".py", ".model"};
    const size_t n = strlen(name);
    if (*name == '.' || strcmp(name, "config.json") == 0 || strstr(name, ".index.json"))
        return false;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        const size_t k = strlen(endings[i]);
        if (n > k && strcmp(name + n - k, endings[i]) == 0)
            return true;
    }
    return false;
}

static int copy_file(const mb_training *t, const char *name, mb_error *err)
{
    char *from = mb_string_format("%s/%s", t->request->model, name), *data = NULL;
    char *to = mb_string_format("%s/%s", t->request->out, name);
    size_t size = 0;
    int rc = from && to ? MB_OK : mb_no_memory(err, "a path");
    if (rc == MB_OK && !mb_folder_exists(from)) {
        rc = mb_file_read(from, COPY_MAX, &data, &size, err);
        if (rc == MB_OK)
            rc = mb_file_write(to, data, size, err);
    }
    free(data);
    free(from);
    free(to);
    return rc;
}

static int copy_companions(const mb_training *t, mb_error *err)
{
    DIR *folder = opendir(t->request->model);
    int rc = folder ? MB_OK : mb_fail(err, MB_E_INPUT, "cannot read the folder %s", t->request->model);
    const struct dirent *entry;
    while (rc == MB_OK && (entry = readdir(folder)) != NULL)
        if (is_companion(entry->d_name))
            rc = copy_file(t, entry->d_name, err);
    if (folder)
        closedir(folder);
    return rc;
}

/* The adapter as files of its own, and added to the weights. */
static int merge(mb_training *t, mb_error *err)
{
    const mb_network *n = &t->network;
    float *adapter = t->host + n->floats;
    char *folder = mb_string_format("%s/adapter", t->request->out);
    int rc =
        folder ? mb_network_fetch_trained(&t->network, adapter, n->trained, err) : mb_no_memory(err, "a path");
    if (rc == MB_OK)
        rc = mb_adapter_write(&n->adapter, adapter, t->request->model, folder, err);
    if (rc == MB_OK)
        mb_adapter_merge(&n->adapter, adapter, t->host);
    free(folder);
    return rc;
}

int mb_training_export(mb_training *t, mb_error *err)
{
    int rc = mb_network_fetch(&t->network, t->host, t->network.weights.base, err);
    if (rc == MB_OK && t->network.adapter.count > 0)
        rc = merge(t, err);
    if (rc == MB_OK)
        rc = write_config(t, err);
    if (rc == MB_OK)
        rc = copy_companions(t, err);
    return rc == MB_OK ? mb_parameters_write(&t->network.config, t->host, t->request->output, t->request->out, err)
                       : rc;
}
