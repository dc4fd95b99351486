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

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAGE_BYTES ((size_t)16 << 20)
#define RANDOM_BLOCK 256 /* random values made together; STAGE_BYTES holds a whole number of them */
#define THREADS_MAX 16

/* What the loading functions share; owned by mb_model_open(). */
struct loading {
    mb_model *model;
    const mb_checkpoint *checkpoint; /* NULL: random weights */
    uint64_t seed;
    unsigned char *stage; /* STAGE_BYTES */
    const char *folder;
    mb_error *err;
};

/* The name a part has in the checkpoint; layer -1 = outside the layers. copy: the expert, where there are several.
 */
static void part_name(char *name, size_t cap, const mb_weight_part *part, int32_t layer, int32_t copy)
{
    const char *number = strstr(part->name, "%d");
    size_t used = layer < 0 ? 0 : (size_t)snprintf(name, cap, "model.layers.%d.", layer);
    if (number)
        snprintf(name + used, cap - used, "%.*s%d%s", (int)(number - part->name), part->name, copy, number + 2);
    else
        snprintf(name + used, cap - used, "%s", part->name);
}

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
    part_name(name, sizeof name, part, -1, copy); /* written again: "007" is no number of an expert */
    return strcmp(rest, name) == 0;
}

/* ---- checks ---- */

/* There, of a type that can be read, and of the shape that the configuration asks for. */
static int check_part(const struct loading *load, const mb_weight_part *part, int32_t layer, int32_t copy)
{
    char name[128];
    part_name(name, sizeof name, part, layer, copy);
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
    if (tensor->rank != (vector ? 1 : 2) || tensor->shape[0] != part->rows ||
        (!vector && tensor->shape[1] != part->cols)) {
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

/* Tensors that the configuration knows nothing of would change the result if they were left out. Only buffers
 * that can be recomputed and a tied head may be ignored. */
static int check_extra(const struct loading *load)
{
    const mb_model_config *config = &load->model->config;
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    const mb_tensor *tensor;
    for (size_t i = 0; (tensor = mb_checkpoint_tensor(load->checkpoint, i)) != NULL; i++) {
        int layer = -1, used = 0;
        const char *rest = tensor->name;
        if (strstr(tensor->name, "rotary_emb.inv_freq") ||
            (config->tied && strcmp(tensor->name, "lm_head.weight") == 0))
            continue;
        if (sscanf(tensor->name, "model.layers.%9d.%n", &layer, &used) == 1 && used > 0)
            rest = tensor->name + used;
        else
            layer = -1;
        int n = layer >= 0 ? mb_layout_layer(config, layer, parts) : mb_layout_model(config, parts);
        bool known = layer < config->layers;
        if (known) {
            known = false;
            for (int k = 0; k < n; k++)
                known = known || is_part(&parts[k], rest);
        }
        if (!known)
            return mb_fail(load->err, MB_E_INPUT,
                           "%s: the weights have a tensor %.200s that config.json does not explain (%d layers, "
                           "q/k/v bias %s, q/k norm %s, %d experts)",
                           load->folder, tensor->name, config->layers, config->qkv_bias ? "on" : "off",
                           config->qk_norm ? "on" : "off", config->moe.experts);
    }
    return MB_OK;
}

static int check_parts(const struct loading *load, const mb_weight_part *parts, int n, int32_t layer)
{
    int rc = MB_OK;
    for (int i = 0; i < n && rc == MB_OK; i++)
        for (int32_t copy = 0; copy < mb_layout_copies(&parts[i]) && rc == MB_OK; copy++)
            rc = check_part(load, &parts[i], layer, copy);
    return rc;
}

/* With tied embeddings the head is the embedding, whatever else is stored as lm_head.weight. Where that differs,
 * transformers 4 computes with the embedding and 5 with the head, so the file does not say which. */
static int check_tied_head(const struct loading *load)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    char name[128];
    const mb_tensor *head = mb_checkpoint_find(load->checkpoint, "lm_head.weight"), *embed;
    if (!load->model->config.tied || !head)
        return MB_OK;
    mb_layout_model(&load->model->config, parts);
    part_name(name, sizeof name, &parts[0], -1, 0);
    embed = mb_checkpoint_find(load->checkpoint, name);
    size_t count = (size_t)(parts[0].rows * parts[0].cols), chunk = STAGE_BYTES / sizeof(float) / 2;
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
static int check_all(const struct loading *load)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    const mb_model_config *config = &load->model->config;
    int rc = check_parts(load, parts, mb_layout_model(config, parts), -1);
    for (int32_t layer = 0; layer < config->layers && rc == MB_OK; layer++)
        rc = check_parts(load, parts, mb_layout_layer(config, layer, parts), layer);
    if (rc == MB_OK)
        rc = check_tied_head(load);
    return rc == MB_OK ? check_extra(load) : rc;
}

/* ---- values ---- */

/* Standard deviation of a random part. With unit inputs from the norms every projection gives outputs of order
 * one, and the 2*layers additions to the residual stream sum up to order one, at any depth and width. */
static double random_deviation(const mb_model_config *config, const mb_weight_part *part)
{
    switch (part->kind) {
    case MB_WEIGHT_EMBED:
        return 0.02;
    case MB_WEIGHT_BIAS:
        return 0.1;
    case MB_WEIGHT_BALANCE: /* a trained one evens out how often experts are chosen; random ones are even */
        return 0.0;
    case MB_WEIGHT_OUTPUT:
        return 1.0 / sqrt((double)part->cols * 2.0 * config->layers);
    default:
        return 1.0 / sqrt((double)part->cols);
    }
}

/* One thread's share of a chunk of random values. */
struct share {
    unsigned char *out;
    mb_type type;
    uint64_t stream;
    uint64_t first; /* index of the first value in its tensor: a multiple of RANDOM_BLOCK */
    size_t n;
    double deviation;
};

/* Uniform values. Value i depends on (stream, i) alone, so that any split into chunks and threads gives the same:
 * a 32-bit counter hash per pair of values (Wellons' lowbias32), 16 bits for each. */
static void *random_values(void *argument)
{
    const struct share *share = argument;
    const float scale = (float)(share->deviation * sqrt(12.0) / 65536.0), centre = 32767.5f * scale;
    float block[RANDOM_BLOCK];
    for (size_t done = 0; done < share->n; done += RANDOM_BLOCK) {
        size_t count = share->n - done < RANDOM_BLOCK ? share->n - done : RANDOM_BLOCK;
        uint64_t pair = (share->first + done) / 2;
        uint32_t key = (uint32_t)(share->stream >> 32) ^ (uint32_t)(pair >> 32) * 0x85ebca6bu;
        for (uint32_t i = 0; i < RANDOM_BLOCK / 2; i++) {
            uint32_t h = ((uint32_t)pair + i + (uint32_t)share->stream) ^ key;
            h = (h ^ h >> 16) * 0x21f0aaadu;
            h = (h ^ h >> 15) * 0x735a2d97u;
            h ^= h >> 15;
            block[i] = (float)(int32_t)(h & 0xffffu) * scale - centre;
            block[RANDOM_BLOCK / 2 + i] = (float)(int32_t)(h >> 16) * scale - centre;
        }
        mb_type_convert(share->out + done * mb_type_size(share->type), share->type, block, MB_F32, count);
    }
    return NULL;
}

/* Fills n values with up to THREADS_MAX threads; a thread that cannot be started is replaced by this one. */
static void random_fill(unsigned char *out, mb_type type, uint64_t stream, uint64_t first, size_t n,
                        double deviation)
{
    struct share shares[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    bool started[THREADS_MAX] = {false};
    cpu_set_t usable;
    int cores = sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : 1;
    size_t count = (size_t)(cores < THREADS_MAX ? cores : THREADS_MAX);
    size_t each = (n / count / RANDOM_BLOCK + 1) * RANDOM_BLOCK;
    for (size_t k = 0; k < count; k++) {
        size_t begin = k * each < n ? k * each : n, end = begin + each < n ? begin + each : n;
        shares[k] =
            (struct share){out + begin * mb_type_size(type), type, stream, first + begin, end - begin, deviation};
        if (k > 0 && begin < end)
            started[k] = pthread_create(&threads[k], NULL, random_values, &shares[k]) == 0;
    }
    for (size_t k = 0; k < count; k++)
        if (!started[k])
            random_values(&shares[k]);
    for (size_t k = 1; k < count; k++)
        if (started[k])
            pthread_join(threads[k], NULL);
}

/* The backend's own sentence, with what was being done in front. */
static int device_fail(const struct loading *load, int rc, const char *what)
{
    return mb_fail(load->err, rc, "loading %s into the device: %s", what,
                   load->model->kernels->error(load->model->device));
}

/* One tensor of the checkpoint to its place: straight from the mapped file when the types agree, else through the
 * staging buffer in chunks. */
static int upload_tensor(const struct loading *load, const char *name, mb_type type, size_t n, unsigned char *dst)
{
    const mb_model *model = load->model;
    const mb_kernels *kernels = model->kernels;
    const mb_tensor *source = mb_checkpoint_find(load->checkpoint, name);
    const size_t element = mb_type_size(type), stage = STAGE_BYTES / sizeof(float);
    if (source->type == type && !source->quant && source->interleaved == 0) {
        int rc = kernels->upload(model->device, dst, source->data, n * element);
        return rc < 0 ? device_fail(load, rc, name) : MB_OK;
    }
    for (size_t done = 0; done < n; done += stage) {
        size_t count = n - done < stage ? n - done : stage;
        mb_tensor_read(source, done, count, load->stage, type);
        int rc = kernels->upload(model->device, dst + done * element, load->stage, count * element);
        if (rc < 0)
            return device_fail(load, rc, name);
    }
    return MB_OK;
}

/* n random values of a part's kind. */
static int upload_random(const struct loading *load, const mb_weight_part *part, const char *name, mb_type type,
                         size_t n, unsigned char *dst)
{
    const mb_model *model = load->model;
    const uint64_t stream = mb_random_named(load->seed, name).state;
    const size_t element = mb_type_size(type), stage = STAGE_BYTES / sizeof(float);
    for (size_t done = 0; done < n; done += stage) {
        size_t count = n - done < stage ? n - done : stage;
        if (part->kind == MB_WEIGHT_NORM) {
            for (size_t i = 0; i < count; i++)
                mb_type_convert(load->stage + i * element, type, &(const float){1.0f}, MB_F32, 1);
        } else {
            random_fill(load->stage, type, stream, done, count, random_deviation(&model->config, part));
        }
        int rc = model->kernels->upload(model->device, dst + done * element, load->stage, count * element);
        if (rc < 0)
            return device_fail(load, rc, name);
    }
    return MB_OK;
}

/* One part, with all its copies, into its rows of the device tensor. The experts of a random model are drawn as
 * one tensor, gate and up together: thousands of small pieces would each start the threads anew. */
static int upload_part(const struct loading *load, const mb_weight_part *part, int32_t layer,
                       unsigned char *tensor)
{
    const mb_type type = mb_layout_type(part, load->model->type);
    const size_t element = mb_type_size(type), n = (size_t)(part->rows * part->cols);
    char name[128];
    int rc = MB_OK;
    part_name(name, sizeof name, part, layer, 0);
    if (!load->checkpoint && part->copies > 0)
        return part->first_row > 0
                   ? MB_OK
                   : upload_random(load, part, name, type, (size_t)(part->tensor_rows * part->cols), tensor);
    for (int32_t copy = 0; copy < mb_layout_copies(part) && rc == MB_OK; copy++) {
        unsigned char *dst = tensor + (size_t)((part->first_row + copy * part->copy_rows) * part->cols) * element;
        part_name(name, sizeof name, part, layer, copy);
        rc = load->checkpoint ? upload_tensor(load, name, type, n, dst)
                              : upload_random(load, part, name, type, n, dst);
    }
    return rc;
}

/* Allocates and fills the device tensors of one list of parts; `base` is the struct that holds their pointers. */
static int load_parts(const struct loading *load, const mb_weight_part *parts, int n, int32_t layer, void *base)
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
        rc = upload_part(load, &parts[i], layer, *field);
    }
    return rc;
}

/* As the families' rotary code: frequencies and angles in fp32, cosine and sine (times the attention factor)
 * rounded to T. */
static int load_cos_sin(const struct loading *load)
{
    mb_model *model = load->model;
    const mb_model_config *config = &model->config;
    const size_t width = (size_t)config->rotary_dim, pairs = width / 2;
    const size_t rows = STAGE_BYTES / (width * sizeof(float));
    float *table = (float *)(void *)load->stage, frequency[MB_ROPE_PAIRS_MAX];
    model->cos_sin = model->kernels->alloc(model->device, (size_t)config->positions * width * sizeof(float));
    if (!model->cos_sin)
        return mb_fail(load->err, MB_E_SYSTEM, "the device arena has no room for the RoPE table of %d positions",
                       config->positions);
    const float attention = mb_rope_frequencies(config, frequency);
    for (size_t first = 0; first < (size_t)config->positions; first += rows) {
        size_t count = (size_t)config->positions - first < rows ? (size_t)config->positions - first : rows;
        for (size_t p = 0; p < count; p++) {
            for (size_t j = 0; j < pairs; j++) {
                float sine, cosine;
                sincosf((float)(first + p) * frequency[j], &sine, &cosine);
                table[p * width + j] = mb_type_round(cosine * attention, model->type);
                table[p * width + pairs + j] = mb_type_round(sine * attention, model->type);
            }
        }
        int rc = model->kernels->upload(model->device, model->cos_sin + first * width, table,
                                        count * width * sizeof(float));
        if (rc < 0)
            return device_fail(load, rc, "the RoPE table");
    }
    return MB_OK;
}

/* What is allocated here is exactly what mb_model_weight_bytes() adds up; a test compares the two. */
static int load_all(const struct loading *load)
{
    mb_model *model = load->model;
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    int rc = load_parts(load, parts, mb_layout_model(&model->config, parts), -1, model);
    if (rc == MB_OK && model->config.tied)
        model->lm_head = model->embed;
    for (int32_t layer = 0; layer < model->config.layers && rc == MB_OK; layer++)
        rc = load_parts(load, parts, mb_layout_layer(&model->config, layer, parts), layer, &model->layers[layer]);
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
static int hash_sources(const struct loading *load, const mb_model_request *request)
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

int mb_model_open(mb_model **model, const mb_model_request *request, const mb_kernels *kernels, mb_device *device,
                  mb_type type, mb_error *err)
{
    mb_checkpoint *checkpoint = NULL;
    struct loading load = {.seed = request->seed, .folder = request->path, .err = err};
    mb_model *opened = calloc(1, sizeof *opened);
    int rc;
    *model = NULL;
    if (!opened)
        return mb_no_memory(err, "opening the model");
    opened->kernels = kernels;
    opened->device = device;
    opened->type = type;
    /* Taken before anything is allocated: close() releases to here on every path. */
    opened->arena_mark = kernels->mark(device);
    load.model = opened;
    rc = mb_model_inspect(request, &opened->config, err);
    if (rc != MB_OK)
        goto out;
    opened->layers = calloc((size_t)opened->config.layers, sizeof *opened->layers);
    load.stage = malloc(STAGE_BYTES);
    if (!opened->layers || !load.stage) {
        rc = mb_no_memory(err, "loading %s", opened->config.name);
        goto out;
    }
    if (request->path) {
        rc = open_tokenizer(opened, request->path, err);
        if (rc == MB_OK)
            rc = open_chat(opened, request, err);
        if (rc == MB_OK)
            rc = mb_checkpoint_open(&checkpoint, request->path, err);
        load.checkpoint = checkpoint;
        if (rc == MB_OK)
            rc = check_all(&load);
    }
    if (rc == MB_OK && !request->unloaded)
        rc = load_all(&load);
    if (rc == MB_OK)
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

void mb_model_close(mb_model *model)
{
    if (!model)
        return;
    mb_tokenizer_close(model->tokenizer);
    mb_chat_template_close(model->chat_template);
    free((char *)(uintptr_t)model->chat.system);
    free(model->chat_error);
    model->kernels->release(model->device, model->arena_mark);
    free(model->layers);
    free(model);
}

const mb_model_config *mb_model_config_of(const mb_model *model)
{
    return &model->config;
}

const mb_tokenizer *mb_model_tokenizer(const mb_model *model)
{
    return model->tokenizer;
}

void mb_model_hashes(const mb_model *model, char config[MB_HASH_CAP], char weights[MB_HASH_CAP],
                     char tokenizer[MB_HASH_CAP])
{
    memcpy(config, model->config.files_hash, MB_HASH_CAP);
    memcpy(weights, model->weights_hash, MB_HASH_CAP);
    memcpy(tokenizer, model->tokenizer_hash, MB_HASH_CAP);
}
