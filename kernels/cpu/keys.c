/*
 * keys.c - what prefix keys are by themselves, without queries: their length, their distance to the mean key,
 * their cosine with the mean unit key. A piece is one KV head of a sequence; sums are in double, keys in order, so
 * the result does not depend on the number of threads.
 */
#include "kernels/cpu/cpu.h"

#include <string.h>

enum { MOST_DIM = MB_CPU_MOST_DIM };

typedef struct measures_job {
    mb_device *device;
    const mb_key_measures *args;
} measures_job;

static double length_of(const float *key, int64_t dim)
{
    double sum = 0.0;
    for (int64_t c = 0; c < dim; c++)
        sum += (double)key[c] * (double)key[c];
    return sqrt(sum);
}

/* The mean over n keys, each divided by its length where `unit` is set. */
static void mean_of(mb_type type, const mb_key_measures *args, int64_t bh, int64_t n, float *mean)
{
    int64_t dim = args->kv.head_dim;
    bool unit = args->measure == MB_KEY_COSINE;
    double sum[MOST_DIM] = {0};
    float key[MOST_DIM];
    for (int64_t j = 0; j < n; j++) {
        mb_load_row(type, args->kv.k, (bh * args->kv.capacity + j) * dim, dim, key);
        double length = unit ? length_of(key, dim) : 1.0;
        for (int64_t c = 0; c < dim; c++)
            sum[c] += length != 0.0 ? (double)key[c] / length : 0.0;
    }
    for (int64_t c = 0; c < dim; c++)
        mean[c] = n > 0 ? (float)(sum[c] / (double)n) : 0.0f;
}

static double measure_of(mb_key_measure measure, const float *key, const float *mean, int64_t dim)
{
    double length = length_of(key, dim), sum = 0.0;
    if (measure == MB_KEY_NORM)
        return length;
    if (measure == MB_KEY_DISTANCE) {
        for (int64_t c = 0; c < dim; c++)
            sum += ((double)key[c] - (double)mean[c]) * ((double)key[c] - (double)mean[c]);
        return sqrt(sum);
    }
    for (int64_t c = 0; c < dim; c++)
        sum += (double)key[c] * (double)mean[c];
    double lengths = length * length_of(mean, dim);
    return lengths != 0.0 ? sum / lengths : 0.0; /* a NaN stays one */
}

static void measures_piece(void *arg, int64_t bh, int worker)
{
    const measures_job *job = arg;
    const mb_key_measures *args = job->args;
    int64_t dim = args->kv.head_dim, n = args->scores.prefix_len[bh / args->kv.kv_heads];
    float key[MOST_DIM], *mean = args->measure == MB_KEY_NORM ? NULL : args->mean + bh * dim;
    (void)worker;
    if (mean)
        mean_of(job->device->type, args, bh, n, mean);
    for (int64_t j = 0; j < n; j++) {
        mb_load_row(job->device->type, args->kv.k, (bh * args->kv.capacity + j) * dim, dim, key);
        args->scores.values[bh * args->scores.stride + j] = (float)measure_of(args->measure, key, mean, dim);
    }
}

int mb_cpu_key_measures(mb_device *device, const mb_key_measures *args)
{
    measures_job job = {device, args};
    if (args->kv.head_dim > MOST_DIM || (args->measure != MB_KEY_NORM && !args->mean))
        return mb_cpu_fail(device, MB_E_BUG, "key_measures: keys of %d numbers, measure %d", args->kv.head_dim,
                           (int)args->measure);
    mb_cpu_run(device, (int64_t)args->scores.batch * args->kv.kv_heads, measures_piece, &job);
    return MB_OK;
}

static void slots_copy_side(mb_device *device, const mb_slots_copy *args, void *to, const void *from)
{
    const size_t row = (size_t)args->from.head_dim * mb_type_size(device->type);
    for (size_t head = 0; head < (size_t)args->from.batch * (size_t)args->from.kv_heads; head++)
        memcpy((char *)to + (head * (size_t)args->to.capacity + (size_t)args->into) * row,
               (const char *)from + (head * (size_t)args->from.capacity + (size_t)args->first) * row,
               (size_t)args->n * row);
}

int mb_cpu_slots_copy(mb_device *device, const mb_slots_copy *args)
{
    if (args->first < 0 || args->into < 0 || args->n < 0 || args->first + args->n > args->from.capacity ||
        args->into + args->n > args->to.capacity)
        return mb_cpu_fail(device, MB_E_BUG, "slots_copy: %d slots from %d of %d to %d of %d", args->n,
                           args->first, args->from.capacity, args->into, args->to.capacity);
    slots_copy_side(device, args, args->to.k, args->from.k);
    slots_copy_side(device, args, args->to.v, args->from.v);
    return MB_OK;
}
