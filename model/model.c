/*
 * model.c - opening a model: tensors of a checkpoint, or random ones, into the device's arena; the RoPE table;
 * tokenizer and hashes.
 *
 * All tensors are checked against the configuration before the first byte is uploaded, so a wrong folder costs
 * no minutes. Uploads go through one host buffer of bounded size, whatever the size of the model.
 */
#include "model/checkpoint/config.h"
#include "model/checkpoint/convert.h"
#include "model/checkpoint/layout.h"
#include "model/checkpoint/quant.h"
#include "model/checkpoint/rope.h"
#include "model/template/chat.h"
#include "model/checkpoint/safetensors.h"
#include "model/tokenizer/tokenizer.h"
#include "model/weights.h"
#include "model/engine/team.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether a tensor is one of the part's; rest: its name behind "model.layers.N.". */
static bool is_part(const mb_weight_part *part, const char *rest)
{
    char name[128];
    const char *number = strstr(part->name, "%d");
    int copy = 0;
    if (!number)
        return strcmp(rest, part->name) == 0;
    if (strncmp(rest, part->name, (size_t)(number - part->name)) != 0 ||
        sscanf(rest + (number - part->name), "%9d", &copy) != 1 || copy < 0 || copy >= part->copies)
        return false;
    mb_weights_name(name, sizeof name, part, "", -1, copy); /* written again: "007" is no number of an expert */
    return strcmp(rest, name) == 0;
}

/* ---- checks ---- */

/* A vector, a matrix, or the matrices of all experts in one tensor. */
static bool has_shape(const mb_tensor *tensor, const mb_weight_part *part)
{
    const int64_t *shape = tensor->shape;
    if (mb_layout_is_vector(part))
        return tensor->rank == 1 && shape[0] == part->rows;
    if (part->planes > 0)
        return tensor->rank == 3 && shape[0] == part->planes && shape[1] * part->planes == part->rows &&
               shape[2] == part->cols;
    return tensor->rank == 2 && shape[0] == part->rows && shape[1] == part->cols;
}

/* There, of a type that can be read, and of the shape that the configuration asks for. */
static int check_part(const mb_weights *load, const mb_weight_part *part, int32_t layer, int32_t copy)
{
    char name[128];
    mb_weights_name(name, sizeof name, part, mb_layout_prefix(&load->model->whole), layer, copy);
    const mb_tensor *tensor = mb_checkpoint_find(load->checkpoint, name);
    if (!tensor)
        return mb_fail(load->err, MB_E_INPUT,
                       "%s: tensor %s is missing from the weights, config.json asks for it%s", load->folder, name,
                       mb_checkpoint_lacks(load->checkpoint, name)
                           ? " and the index lists it: download the whole folder again"
                           : "");
    if (!tensor->usable)
        return mb_fail(load->err, MB_E_INPUT, "%s: tensor %s has dtype %s; BF16, F16 and F32 can be loaded",
                       load->folder, name, tensor->dtype);
    bool vector = mb_layout_is_vector(part);
    if (!has_shape(tensor, part)) {
        mb_text found = {0};
        for (int32_t i = 0; i < tensor->rank; i++)
            mb_text_printf(&found, "%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
        if (vector)
            mb_fail(load->err, 0, "%s: tensor %s has shape [%s], config.json makes it [%lld]", load->folder, name,
                    found.data ? found.data : "", (long long)part->rows);
        else
            mb_fail(load->err, 0, "%s: tensor %s has shape [%s], config.json makes it [%lld, %lld]", load->folder,
                    name, found.data ? found.data : "", (long long)part->rows, (long long)part->cols);
        mb_text_free(&found);
        return MB_E_INPUT;
    }
    return MB_OK;
}

/* A tensor of a part of the model that no text needs. */
static bool is_skipped(const mb_model_config *config, const char *name)
{
    const char *prefix;
    for (size_t i = 0; mb_layout_skipped(config, i, &prefix); i++)
        if (strncmp(name, prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

/* A tensor of a layer whose whole name stands in the table. */
static bool is_whole_name(const mb_model_config *config, const char *name)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    char whole[128];
    for (int32_t layer = 0; layer < config->layers && config->wrapped; layer++) {
        int n = mb_layout_layer(config, layer, parts);
        for (int i = 0; i < n; i++) {
            if (parts[i].name[0] != '/')
                continue;
            mb_weights_name(whole, sizeof whole, &parts[i], "", layer, 0);
            if (strcmp(whole, name) == 0)
                return true;
        }
    }
    return false;
}

/* Whether the layout has a tensor of this name, or needs none. */
static bool is_known(const mb_model_config *config, const char *name)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    const char *prefix = mb_layout_prefix(config), *rest = name;
    int layer = -1, used = 0;
    if (strstr(name, "rotary_emb.inv_freq") || (config->tied && strcmp(name, "lm_head.weight") == 0) ||
        is_skipped(config, name) || is_whole_name(config, name))
        return true;
    if (strncmp(name, prefix, strlen(prefix)) == 0 &&
        sscanf(name + strlen(prefix), "%9d.%n", &layer, &used) == 1 && used > 0)
        rest = name + strlen(prefix) + used;
    else
        layer = -1;
    if (layer >= config->layers)
        return false;
    int n = layer >= 0 ? mb_layout_layer(config, layer, parts) : mb_layout_model(config, parts);
    for (int k = 0; k < n; k++)
        if (is_part(&parts[k], rest))
            return true;
    return false;
}

/* Tensors that the configuration knows nothing of would change the result if they were left out. Only buffers
 * that can be recomputed, a tied head and what no text needs may be ignored. */
static int check_extra(const mb_weights *load)
{
    const mb_model_config *config = &load->model->whole;
    const mb_tensor *tensor;
    for (size_t i = 0; (tensor = mb_checkpoint_tensor(load->checkpoint, i)) != NULL; i++) {
        if (!is_known(config, tensor->name))
            return mb_fail(load->err, MB_E_INPUT,
                           "%s: the weights have a tensor %.200s that config.json does not explain (%d layers, "
                           "q/k/v bias %s, q/k norm %s, %d experts)",
                           load->folder, tensor->name, config->layers, config->qkv_bias ? "on" : "off",
                           config->qk_norm ? "on" : "off", config->moe.experts);
    }
    return MB_OK;
}

static int check_parts(const mb_weights *load, const mb_weight_part *parts, int n, int32_t layer)
{
    int rc = MB_OK;
    for (int i = 0; i < n && rc == MB_OK; i++)
        for (int32_t copy = 0; copy < mb_layout_copies(&parts[i]) && rc == MB_OK; copy++)
            rc = check_part(load, &parts[i], layer, copy);
    return rc;
}

/* With tied embeddings the head is the embedding, whatever else is stored as lm_head.weight. Where that differs,
 * transformers 4 computes with the embedding and 5 with the head, so the file does not say which. */
static int check_tied_head(const mb_weights *load)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    char name[128];
    const mb_tensor *head = mb_checkpoint_find(load->checkpoint, "lm_head.weight"), *embed;
    if (!load->model->whole.tied || !head)
        return MB_OK;
    mb_layout_model(&load->model->whole, parts);
    mb_weights_name(name, sizeof name, &parts[0], "", -1, 0);
    embed = mb_checkpoint_find(load->checkpoint, name);
    size_t count = (size_t)(parts[0].rows * parts[0].cols), chunk = MB_STAGE_BYTES / sizeof(float) / 2;
    bool same =
        head->usable && head->rank == 2 && head->shape[0] == parts[0].rows && head->shape[1] == parts[0].cols;
    for (size_t done = 0; done < count && same; done += chunk) {
        size_t n = count - done < chunk ? count - done : chunk;
        float *a = (float *)(void *)load->stage, *b = a + n;
        mb_tensor_read(head, done, n, a, MB_F32);
        mb_tensor_read(embed, done, n, b, MB_F32);
        same = memcmp(a, b, n * sizeof *a) == 0;
    }
    return same
               ? MB_OK
               : mb_fail(load->err, MB_E_INPUT,
                         "%s: tie_word_embeddings is true, but lm_head.weight differs from %s: transformers 4 "
                         "computes with the latter, 5 with the head; write \"tie_word_embeddings\": false to take "
                         "the head, or remove it from the file",
                         load->folder, name);
}

/* Everything that will be read, then everything that would not be. */
static int check_all(const mb_weights *load)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    const mb_model_config *config = &load->model->whole;
    int rc = check_parts(load, parts, mb_layout_model(config, parts), -1);
    for (int32_t layer = 0; layer < config->layers && rc == MB_OK; layer++)
        rc = check_parts(load, parts, mb_layout_layer(config, layer, parts), layer);
    if (rc == MB_OK)
        rc = check_tied_head(load);
    return rc == MB_OK ? check_extra(load) : rc;
}

/* ---- what is loaded ---- */

/* Allocates and fills the device tensors of one list of parts; `base` is the struct that holds their pointers. */
static int load_parts(const mb_weights *load, const mb_weight_part *whole, const mb_weight_part *parts, int n,
                      int32_t layer, void *base)
{
    const mb_model *model = load->model;
    int rc = MB_OK;
    for (int i = 0; i < n && rc == MB_OK; i++) {
        void **field = (void **)(void *)((char *)base + parts[i].field);
        if (parts[i].first_row == 0) {
            size_t bytes = (size_t)(parts[i].tensor_rows * parts[i].cols) *
                           mb_type_size(mb_layout_type(&parts[i], model->type));
            *field = model->kernels->alloc(model->device, bytes);
            if (!*field)
                return mb_fail(load->err, MB_E_SYSTEM,
                               "the device arena has no room for the weights of %s (%zu bytes in all)",
                               model->config.name, mb_model_weight_bytes(&model->config, model->type));
        }
        rc = mb_weights_upload(load, &whole[i], &parts[i], layer, *field);
    }
    return rc;
}

/* The RoPE tables of both kinds of layers. */
static int load_cos_sin(const mb_weights *load)
{
    mb_model *model = load->model;
    int rc = mb_rope_table(model, &model->config, load->stage, MB_STAGE_BYTES, &model->cos_sin, load->err);
    if (rc != MB_OK || model->config.local.window == 0)
        return rc;
    mb_model_config *local = malloc(sizeof *local);
    if (!local)
        return mb_no_memory(load->err, "the RoPE table");
    *local = model->config;
    local->rotary_dim = local->local.rotary_dim;
    local->rope_theta = local->local.rope_theta;
    local->rope = local->local.rope;
    rc = mb_rope_table(model, local, load->stage, MB_STAGE_BYTES, &model->local_cos_sin, load->err);
    free(local);
    return rc;
}

/* What is allocated here is exactly what mb_model_weight_bytes() adds up; a test compares the two. */
static int load_all(const mb_weights *load)
{
    mb_model *model = load->model;
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX], whole[MB_WEIGHT_PARTS_MAX];
    mb_layout_model(&model->whole, whole);
    int rc = load_parts(load, whole, parts, mb_layout_model(&model->config, parts), -1, model);
    if (rc == MB_OK && model->config.tied)
        model->lm_head = model->embed;
    for (int32_t layer = 0; layer < model->config.layers && rc == MB_OK; layer++) {
        mb_layout_layer(&model->whole, layer, whole);
        rc = load_parts(load, whole, parts, mb_layout_layer(&model->config, layer, parts), layer,
                        &model->layers[layer]);
    }
    return rc == MB_OK ? load_cos_sin(load) : rc;
}

/* ---- identity ---- */

/* Ids beyond the embedding's rows would read outside of it, so such a pair of files is refused. */
static int open_tokenizer(mb_model *model, const char *folder, mb_error *err)
{
    const mb_model_config *config = &model->config;
    int rc = mb_tokenizer_open(&model->tokenizer, folder, err);
    if (rc != MB_OK)
        return rc;
    int32_t size = mb_tokenizer_size(model->tokenizer);
    if (size > config->vocab)
        return mb_fail(err, MB_E_INPUT,
                       "%s: the tokenizer has ids up to %d, config.json a vocabulary of %d: they do not belong "
                       "together",
                       folder, size - 1, config->vocab);
    mb_tokenizer_hash(model->tokenizer, model->tokenizer_hash);
    return MB_OK;
}

/* A template that is not supported is told when a prompt is made with it: logits need none. */
static int open_chat(mb_model *model, const mb_model_request *request, mb_error *err)
{
    mb_error reason = {0};
    model->chat = request->chat;
    model->chat.system = NULL;
    if (request->chat.system && !(model->chat.system = mb_string_copy(request->chat.system)))
        return mb_no_memory(err, "the system message");
    if (!request->path || request->chat.source == MB_CHAT_FAMILY)
        return MB_OK;
    int rc = mb_chat_template_open(&model->chat_template, request->path, &reason);
    if (rc == MB_OK && !model->chat_template && request->chat.source == MB_CHAT_FOLDER)
        return mb_fail(err, MB_E_INPUT,
                       "%s has no chat template (chat_template.jinja, or \"chat_template\" in "
                       "tokenizer_config.json): use \"chat\": {\"template\": \"family\"}",
                       request->path);
    if (rc == MB_OK && model->chat_template) { /* ids depend on the template as they do on the tokenizer */
        char both[2 * MB_HASH_CAP];
        int n = snprintf(both, sizeof both, "%s:%s", model->tokenizer_hash,
                         mb_chat_template_hash(model->chat_template));
        mb_hash_bytes(both, (size_t)n, model->tokenizer_hash);
    }
    if (rc == MB_E_INPUT) {
        model->chat_error = mb_string_copy(reason.text);
        return model->chat_error ? MB_OK : mb_no_memory(err, "the chat template");
    }
    return rc == MB_OK ? rc : mb_fail(err, rc, "%s", reason.text);
}

/* The identity stored with every result: bytes of the files, or the shape and seed that define random weights. */
static int hash_sources(const mb_weights *load, const mb_model_request *request)
{
    mb_model *model = load->model;
    if (!load->checkpoint) {
        char text[128];
        int n = snprintf(text, sizeof text, "%s:%llu", request->shape, (unsigned long long)request->seed);
        mb_hash_bytes(text, (size_t)n, model->weights_hash);
        mb_hash_bytes("", 0, model->tokenizer_hash);
        return MB_OK;
    }
    return mb_checkpoint_hash(load->checkpoint, model->weights_hash, load->err);
}

/* The files that only rank 0 needs. */
static int open_texts(mb_model *model, const mb_model_request *request, mb_error *err)
{
    if (!request->path || model->rank > 0)
        return MB_OK;
    int rc = open_tokenizer(model, request->path, err);
    return rc == MB_OK ? open_chat(model, request, err) : rc;
}

int mb_model_open_rank(mb_model **model, const mb_model_request *request, const mb_place *place, mb_type type,
                       mb_error *err)
{
    mb_checkpoint *checkpoint = NULL;
    mb_weights load = {.seed = request->seed, .folder = request->path, .err = err};
    mb_model *opened = calloc(1, sizeof *opened);
    *model = NULL;
    if (!opened)
        return mb_no_memory(err, "opening the model");
    opened->kernels = place->kernels;
    opened->device = place->device;
    opened->comm = place->comm;
    opened->rank = place->rank;
    opened->ranks = place->ranks;
    opened->type = type;
    /* Taken before anything is allocated: close() releases to here on every path. */
    opened->arena_mark = place->kernels->mark(place->device);
    load.model = opened;
    int rc = mb_model_inspect(request, &opened->whole, err);
    if (rc == MB_OK)
        rc = mb_model_slice(&opened->whole, place->ranks, &opened->config, err);
    if (rc != MB_OK)
        goto out;
    opened->layers = calloc((size_t)opened->config.layers, sizeof *opened->layers);
    load.stage = malloc(MB_STAGE_BYTES);
    if (!opened->layers || !load.stage) {
        rc = mb_no_memory(err, "loading %s", opened->config.name);
        goto out;
    }
    rc = open_texts(opened, request, err);
    if (rc == MB_OK && request->path)
        rc = mb_checkpoint_open(&checkpoint, request->path, err);
    load.checkpoint = checkpoint;
    if (rc == MB_OK && checkpoint)
        rc = check_all(&load);
    if (rc == MB_OK && !request->unloaded)
        rc = load_all(&load);
    if (rc == MB_OK && opened->rank == 0)
        rc = hash_sources(&load, request);
    if (rc == MB_OK) {
        *model = opened;
        opened = NULL;
    }
out:
    mb_checkpoint_close(checkpoint);
    free(load.stage);
    mb_model_close(opened);
    return rc;
}

int mb_model_open(mb_model **model, const mb_model_request *request, const mb_kernels *kernels, mb_device *device,
                  mb_type type, mb_error *err)
{
    if (request->team)
        return mb_team_model_open(model, request, type, err);
    return mb_model_open_rank(model, request, &(mb_place){kernels, device, NULL, 0, 1}, type, err);
}

void mb_model_close(mb_model *model)
{
    if (!model)
        return;
    if (mb_team_leads(model->team)) {
        mb_team_model_close(model);
        return;
    }
    mb_tokenizer_close(model->tokenizer);
    mb_chat_template_close(model->chat_template);
    free((char *)(uintptr_t)model->chat.system);
    free(model->chat_error);
    model->kernels->release(model->device, model->arena_mark);
    free(model->layers);
    free(model->peers);
    free(model);
}

const mb_model_config *mb_model_config_of(const mb_model *model)
{
    return &model->whole;
}

const mb_tokenizer *mb_model_tokenizer(const mb_model *model)
{
    return model->tokenizer;
}

void mb_model_hashes(const mb_model *model, char config[MB_HASH_CAP], char weights[MB_HASH_CAP],
                     char tokenizer[MB_HASH_CAP])
{
    memcpy(config, model->whole.files_hash, MB_HASH_CAP);
    memcpy(weights, model->weights_hash, MB_HASH_CAP);
    memcpy(tokenizer, model->tokenizer_hash, MB_HASH_CAP);
}
