/*
 * parameters.c - the flat array of a model's parameters: its layout, where it comes from (a checkpoint, random
 * numbers), where it goes to (model.safetensors). The names and shapes are those of model/checkpoint/layout.c.
 */
#include "training/parameters.h"

#include "model/checkpoint/convert.h"
#include "model/checkpoint/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64 /* floats: a tensor begins at a multiple of 256 bytes */
#define NAME_CAP 160

int mb_parameters_check(const mb_model_config *config, mb_error *err)
{
    if (config->moe.experts > 0)
        return mb_fail(err, MB_E_INPUT,
                       "%s is a mixture of experts; training knows dense models only in this version",
                       config->name);
    if (config->synthetic)
        return mb_fail(err, MB_E_INPUT, "%s is a synthetic shape without a tokenizer: training needs a folder",
                       config->name);
    return MB_OK;
}

/* Walks the parts of one list; *at is the flat array's end so far. */
static int walk_parts(const mb_weight_part *parts, int n, int32_t layer, size_t *at, mb_parameter_visit *visit,
                      void *user)
{
    int rc = MB_OK;
    size_t first = *at;
    for (int i = 0; rc == MB_OK && i < n; i++) {
        char name[NAME_CAP];
        const mb_weight_part *part = &parts[i];
        if (part->first_row == 0) {
            first = *at;
            *at += ((size_t)(part->tensor_rows * part->cols) + ALIGN - 1) / ALIGN * ALIGN;
        }
        if (layer < 0)
            snprintf(name, sizeof name, "%s", part->name);
        else
            snprintf(name, sizeof name, "model.layers.%d.%s", layer, part->name);
        mb_parameter parameter = {.name = name,
                                  .part = part,
                                  .first = first + (size_t)(part->first_row * part->cols),
                                  .n = (size_t)(part->rows * part->cols),
                                  .matrix = !mb_layout_is_vector(part)};
        if (visit)
            rc = visit(user, &parameter);
    }
    return rc;
}

/* *end: floats of the flat array; NULL = not wanted. */
static int walk(const mb_model_config *config, mb_parameter_visit *visit, void *user, size_t *end)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    size_t at = 0;
    int rc = walk_parts(parts, mb_layout_model(config, parts), -1, &at, visit, user);
    for (int32_t layer = 0; rc == MB_OK && layer < config->layers; layer++)
        rc = walk_parts(parts, mb_layout_layer(config, layer, parts), layer, &at, visit, user);
    if (end)
        *end = at;
    return rc;
}

int mb_parameters_each(const mb_model_config *config, mb_parameter_visit *visit, void *user)
{
    return walk(config, visit, user, NULL);
}

static int add_size(void *user, const mb_parameter *parameter)
{
    *(size_t *)user += parameter->n;
    return MB_OK;
}

size_t mb_parameters_count(const mb_model_config *config, size_t *exact)
{
    size_t sum = 0, end = 0;
    walk(config, add_size, &sum, &end);
    if (exact)
        *exact = sum;
    return end;
}

/* ---- pointers ---- */

typedef struct mapping {
    mb_parameters *parameters;
    int32_t layer;
} mapping;

static int map_one(void *user, const mb_parameter *parameter)
{
    mapping *map = user;
    void *base = &map->parameters->top;
    if (sscanf(parameter->name, "model.layers.%d.", &map->layer) == 1)
        base = &map->parameters->layers[map->layer];
    if (parameter->part->first_row == 0)
        *(void **)(void *)((char *)base + parameter->part->field) = map->parameters->base + parameter->first;
    return MB_OK;
}

int mb_parameters_map(const mb_model_config *config, float *base, mb_parameters *parameters, mb_error *err)
{
    mapping map = {parameters, 0};
    *parameters = (mb_parameters){.base = base, .layers = calloc((size_t)config->layers, sizeof(struct mb_layer))};
    if (!parameters->layers)
        return mb_no_memory(err, "the parameters");
    walk(config, map_one, &map, NULL);
    if (config->tied)
        parameters->top.lm_head = parameters->top.embed;
    return MB_OK;
}

void mb_parameters_free(mb_parameters *parameters)
{
    free(parameters->layers);
    *parameters = (mb_parameters){0};
}

/* ---- from a checkpoint ---- */

typedef struct reading {
    const mb_checkpoint *checkpoint;
    const char *folder;
    float *host;
    mb_error *err;
} reading;

static int read_one(void *user, const mb_parameter *parameter)
{
    const reading *r = user;
    const mb_weight_part *part = parameter->part;
    const mb_tensor *tensor = mb_checkpoint_find(r->checkpoint, parameter->name);
    if (!tensor || !tensor->usable)
        return mb_fail(r->err, MB_E_INPUT, "%s: tensor %s is missing or of a type that cannot be read", r->folder,
                       parameter->name);
    bool fits = tensor->rank == (parameter->matrix ? 2 : 1) && tensor->shape[0] == part->rows &&
                (!parameter->matrix || tensor->shape[1] == part->cols);
    if (!fits)
        return mb_fail(r->err, MB_E_INPUT,
                       "%s: tensor %s has not the shape [%lld, %lld] that config.json gives it", r->folder,
                       parameter->name, (long long)part->rows, (long long)part->cols);
    mb_tensor_read(tensor, 0, parameter->n, r->host + parameter->first, MB_F32);
    return MB_OK;
}

int mb_parameters_read(const mb_model_config *config, const char *folder, float *host, mb_error *err)
{
    mb_checkpoint *checkpoint = NULL;
    int rc = mb_checkpoint_open(&checkpoint, folder, err);
    reading r = {checkpoint, folder, host, err};
    memset(host, 0, mb_parameters_count(config, NULL) * sizeof *host);
    if (rc == MB_OK)
        rc = mb_parameters_each(config, read_one, &r);
    mb_checkpoint_close(checkpoint);
    return rc;
}

/* ---- random ---- */

typedef struct drawing {
    const mb_model_config *config;
    uint64_t seed;
    float *host;
} drawing;

static int draw_one(void *user, const mb_parameter *parameter)
{
    const drawing *d = user;
    const mb_weight_part *part = parameter->part;
    mb_random random = mb_random_named(d->seed, parameter->name);
    double deviation = 0.5 / sqrt((double)part->cols);
    float *to = d->host + parameter->first;
    if (part->kind == MB_WEIGHT_EMBED || part->kind == MB_WEIGHT_HEAD)
        deviation = 0.05;
    else if (part->kind == MB_WEIGHT_OUTPUT)
        deviation /= sqrt(2.0 * d->config->layers);
    for (size_t i = 0; i < parameter->n; i++) {
        if (!parameter->matrix) {
            to[i] = part->kind == MB_WEIGHT_NORM ? 1.0f : 0.0f;
            continue;
        }
        double u = 1.0 - mb_random_unit(&random), v = mb_random_unit(&random); /* Box and Muller */
        to[i] = (float)(deviation * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
    }
    return MB_OK;
}

int mb_parameters_draw(const mb_model_config *config, uint64_t seed, float *host)
{
    drawing d = {config, seed, host};
    memset(host, 0, mb_parameters_count(config, NULL) * sizeof *host);
    return mb_parameters_each(config, draw_one, &d);
}

/* ---- to model.safetensors ---- */

typedef struct writing {
    mb_type type;
    const float *host;
    size_t offset; /* bytes of data so far */
    mb_text header, data;
} writing;

static int describe_one(void *user, const mb_parameter *parameter)
{
    writing *w = user;
    const size_t bytes = parameter->n * mb_type_size(w->type);
    mb_text_printf(&w->header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld", parameter->name,
                   w->type == MB_BF16 ? "BF16" : "F32", (long long)parameter->part->rows);
    if (parameter->matrix)
        mb_text_printf(&w->header, ",%lld", (long long)parameter->part->cols);
    mb_text_printf(&w->header, "],\"data_offsets\":[%zu,%zu]}", w->offset, w->offset + bytes);
    w->offset += bytes;
    return MB_OK;
}

static int append_one(void *user, const mb_parameter *parameter)
{
    writing *w = user;
    const size_t element = mb_type_size(w->type);
    unsigned char chunk[4096];
    for (size_t done = 0; done < parameter->n;) {
        size_t n = parameter->n - done < sizeof chunk / 4 ? parameter->n - done : sizeof chunk / 4;
        mb_type_convert(chunk, w->type, w->host + parameter->first + done, MB_F32, n);
        mb_text_append(&w->data, (const char *)chunk, n * element);
        done += n;
    }
    return MB_OK;
}

int mb_parameters_write(const mb_model_config *config, const float *host, mb_type type, const char *folder,
                        mb_error *err)
{
    writing w = {.type = type, .host = host};
    char *path = mb_string_format("%s/model.safetensors", folder);
    mb_text_puts(&w.header, "{\"__metadata__\":{\"format\":\"pt\"}");
    mb_parameters_each(config, describe_one, &w);
    mb_text_puts(&w.header, "}");
    while (!w.header.failed && w.header.length % 8)
        mb_text_puts(&w.header, " ");
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)w.header.length >> (8 * i));
    mb_text_append(&w.data, (const char *)length, sizeof length);
    mb_text_append(&w.data, w.header.data, w.header.length);
    mb_parameters_each(config, append_one, &w);
    int rc = path && !w.header.failed && !w.data.failed
                 ? mb_file_write(path, w.data.data, w.data.length, err)
                 : mb_no_memory(err, "model.safetensors (%zu bytes)", w.offset);
    mb_text_free(&w.header);
    mb_text_free(&w.data);
    free(path);
    return rc;
}
