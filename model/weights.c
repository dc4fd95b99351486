/*
 * weights.c - numbers onto the device: tensors of a checkpoint or random ones, whole or a rank's slice of them.
 *
 * A slice of a checkpoint reads those rows and columns of the mapped file that it holds and no others. A slice of
 * a random model has the numbers that the whole model has there: they depend on their place in the whole tensor.
 * Uploads go through one host buffer of bounded size, whatever the size of the model.
 */
#include "model/weights.h"

#include "model/checkpoint/convert.h"
#include "model/checkpoint/quant.h"
#include "model/checkpoint/slice.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANDOM_BLOCK 256              /* random values made together */
#define SHARE_LEAST ((size_t)1 << 16) /* values that are worth a thread */
#define THREADS_MAX 16

void mb_weights_name(char *name, size_t cap, const mb_weight_part *part, const char *prefix, int32_t layer,
                     int32_t copy)
{
    const char *number = strstr(part->name, "%d");
    if (part->name[0] == '/') {
        snprintf(name, cap, "%.*s%d%s", (int)(number - part->name - 1), part->name + 1, layer, number + 2);
        return;
    }
    size_t used = layer < 0 ? 0 : (size_t)snprintf(name, cap, "%s%d.", prefix, layer);
    if (number)
        snprintf(name + used, cap - used, "%.*s%d%s", (int)(number - part->name), part->name, copy, number + 2);
    else
        snprintf(name + used, cap - used, "%s", part->name);
}

/* ---- random numbers ---- */

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
    count = n / SHARE_LEAST + 1 < count ? n / SHARE_LEAST + 1 : count;
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

int mb_weights_failed(const mb_weights *load, int rc, const char *what)
{
    return mb_fail(load->err, rc, "loading %s into the device: %s", what,
                   load->model->kernels->error(load->model->device));
}

/* ---- onto the device ---- */

/* Where a part's numbers come from: a tensor of the checkpoint, or a place in a random tensor. */
struct origin {
    const mb_tensor *tensor; /* NULL: random */
    uint64_t stream;
    double deviation;
    bool ones;         /* a norm of a random model */
    int64_t first_row; /* of the part in the random tensor */
    int64_t cols;      /* of the whole part */
    mb_type type;      /* on the device */
    const char *name;
};

/* n numbers from `first` on, in the device's type, somewhere in the stage; its last RANDOM_BLOCK are room to begin
 * at a whole block. */
static const unsigned char *read_numbers(const mb_weights *load, const struct origin *o, size_t first, size_t n)
{
    const size_t element = mb_type_size(o->type), lead = o->tensor || o->ones ? 0 : first % RANDOM_BLOCK;
    const float one = 1.0f;
    if (o->tensor)
        mb_tensor_read(o->tensor, first, n, load->stage, o->type);
    else if (!o->ones)
        random_fill(load->stage, o->type, o->stream, first - lead, n + lead, o->deviation);
    for (size_t i = 0; o->ones && i < n; i++)
        mb_type_convert(load->stage + i * element, o->type, &one, MB_F32, 1);
    return load->stage + lead * element;
}

static int send(const mb_weights *load, const struct origin *o, unsigned char *dst, const void *numbers, size_t n)
{
    const mb_model *model = load->model;
    int rc = model->kernels->upload(model->device, dst, numbers, n * mb_type_size(o->type));
    return rc < 0 ? mb_weights_failed(load, rc, o->name) : MB_OK;
}

/* Numbers that follow each other: straight from the mapped file when the types agree, else through the stage. */
static int send_stretch(const mb_weights *load, const struct origin *o, size_t first, size_t n, unsigned char *dst)
{
    const size_t element = mb_type_size(o->type), most = MB_STAGE_BYTES / sizeof(float) - RANDOM_BLOCK;
    if (o->tensor && o->tensor->type == o->type && !o->tensor->quant && o->tensor->interleaved == 0)
        return send(load, o, dst, o->tensor->data + first * element, n);
    int rc = MB_OK;
    for (size_t done = 0; done < n && rc == MB_OK; done += most) {
        size_t count = n - done < most ? n - done : most;
        rc = send(load, o, dst + done * element, read_numbers(load, o, first + done, count), count);
    }
    return rc;
}

/* The columns [column, column + cols) of `rows` rows. Of a random tensor whole rows are drawn and cut. */
static int send_columns(const mb_weights *load, const struct origin *o, const mb_slice_band *band, int64_t column,
                        int64_t cols, unsigned char *dst)
{
    const size_t element = mb_type_size(o->type), width = (size_t)cols * element;
    const int64_t most = (int64_t)(MB_STAGE_BYTES / sizeof(float) - RANDOM_BLOCK) / o->cols;
    int rc = MB_OK;
    for (int64_t done = 0; done < band->rows && rc == MB_OK; done += most) {
        int64_t count = band->rows - done < most ? band->rows - done : most;
        int64_t first = (o->first_row + band->first + done) * o->cols;
        const unsigned char *rows =
            o->tensor ? NULL : read_numbers(load, o, (size_t)first, (size_t)(count * o->cols));
        for (int64_t i = 0; i < count; i++) {
            unsigned char *to = load->stage + (size_t)i * width;
            if (rows)
                memmove(to, rows + (size_t)(i * o->cols + column) * element, width);
            else
                mb_tensor_read(o->tensor, (size_t)(first + i * o->cols + column), (size_t)cols, to, o->type);
        }
        rc = send(load, o, dst + (size_t)done * width, load->stage, (size_t)(count * cols));
    }
    return rc;
}

/* One tensor of a part to its rows of the device tensor. */
static int send_part(const mb_weights *load, const mb_weight_part *whole, const mb_weight_part *part,
                     const struct origin *o, unsigned char *dst)
{
    const mb_model *model = load->model;
    const mb_slice_place place = {&model->whole, &model->config, model->ranks, model->rank};
    const int64_t column = mb_slice_column(whole, part, &place);
    mb_slice_band bands[MB_SLICE_BANDS];
    const int n = mb_slice_bands(whole, part, &place, bands);
    int rc = MB_OK;
    for (int i = 0; i < n && rc == MB_OK; i++) {
        rc = part->cols == whole->cols ? send_stretch(load, o, (size_t)((o->first_row + bands[i].first) * o->cols),
                                                      (size_t)(bands[i].rows * o->cols), dst)
                                       : send_columns(load, o, &bands[i], column, part->cols, dst);
        dst += (size_t)(bands[i].rows * part->cols) * mb_type_size(o->type);
    }
    return rc;
}

/* The experts of a random model are drawn as one tensor, gate and up together. On one device they go up as one,
 * too: thousands of small pieces would each start the threads anew. */
int mb_weights_upload(const mb_weights *load, const mb_weight_part *whole, const mb_weight_part *part,
                      int32_t layer, unsigned char *tensor)
{
    const mb_model_config *config = &load->model->whole;
    const mb_type type = mb_layout_type(part, load->model->type);
    const bool drawn = !load->checkpoint && part->copies > 0;
    char name[128];
    struct origin o = {.deviation = random_deviation(config, whole),
                       .ones = !load->checkpoint && part->kind == MB_WEIGHT_NORM,
                       .cols = whole->cols,
                       .type = type,
                       .name = name};
    int rc = MB_OK;
    const mb_weight_part *named = part;
    while (drawn && named->first_row > 0)
        named--;
    mb_weights_name(name, sizeof name, named, mb_layout_prefix(&load->model->whole), layer, 0);
    o.stream = mb_random_named(load->seed, name).state;
    if (drawn && load->model->ranks == 1)
        return part->first_row > 0 ? MB_OK
                                   : send_stretch(load, &o, 0, (size_t)(part->tensor_rows * part->cols), tensor);
    for (int32_t copy = 0; copy < mb_layout_copies(part) && rc == MB_OK; copy++) {
        int64_t row = part->first_row + copy * part->copy_rows;
        if (drawn)
            o.first_row = whole->first_row + copy * whole->copy_rows;
        else
            mb_weights_name(name, sizeof name, part, mb_layout_prefix(&load->model->whole), layer, copy);
        if (load->checkpoint)
            o.tensor = mb_checkpoint_find(load->checkpoint, name);
        rc = send_part(load, whole, part, &o, tensor + (size_t)(row * part->cols) * mb_type_size(type));
    }
    return rc;
}
