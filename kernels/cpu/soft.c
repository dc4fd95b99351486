/*
 * soft.c - what stands around a network whose logits go back into it: the capped logits, and the embedding that a
 * row of logits expects (self-conditioning of a canvas).
 *
 * The sum over the vocabulary is in fp32 and in its order, a row of the table after the other, so it does not
 * depend on the number of threads. Roundings are those of eager PyTorch in T.
 */
#include "kernels/cpu/cpu.h"

#define VALUES 4096 /* values of a piece of softcap */
#define COLUMNS 64  /* columns of a piece of the expected embedding */

typedef struct cap_job {
    mb_device *device;
    const mb_softcap *args;
} cap_job;

static void cap_piece(void *arg, int64_t index, int worker)
{
    const cap_job *job = arg;
    const mb_softcap *args = job->args;
    int64_t first = index * VALUES, n = args->n - first < VALUES ? args->n - first : VALUES;
    float *v = job->device->private_scratch[worker];
    mb_load_row(job->device->type, args->values, first, n, v);
    for (int64_t i = 0; i < n; i++)
        v[i] = tanhf(v[i] / args->cap) * args->cap;
    mb_store_row(job->device->type, args->values, first, n, v);
}

int mb_cpu_softcap(mb_device *device, const mb_softcap *args)
{
    cap_job job = {device, args};
    if (!(args->cap > 0.0f) || args->n < 0)
        return mb_cpu_fail(device, MB_E_BUG, "softcap: %lld values, cap %g", (long long)args->n,
                           (double)args->cap);
    int rc = mb_cpu_reserve(device, 0, VALUES * sizeof(float));
    if (rc == MB_OK)
        mb_cpu_run(device, (args->n + VALUES - 1) / VALUES, cap_piece, &job);
    return rc;
}

typedef struct embed_job {
    mb_device *device;
    const mb_soft_embed *args;
    float *shares; /* [n][vocab] */
    int64_t pieces;
} embed_job;

/* The probabilities of a row, rounded to T. */
static void shares_piece(void *arg, int64_t row, int worker)
{
    const embed_job *job = arg;
    const mb_soft_embed *args = job->args;
    mb_type type = job->device->type;
    float *p = job->shares + row * args->vocab, top = -INFINITY, sum = 0.0f;
    (void)worker;
    mb_load_row(type, args->logits, row * args->vocab, args->vocab, p);
    for (int64_t i = 0; i < args->vocab; i++) {
        p[i] = mb_round_to(type, p[i] / *args->temperature);
        top = p[i] > top ? p[i] : top;
    }
    for (int64_t i = 0; i < args->vocab; i++)
        sum += p[i] = expf(p[i] - top);
    for (int64_t i = 0; i < args->vocab; i++)
        p[i] = mb_round_to(type, p[i] / sum);
}

/* Some columns of some row. */
static void expect_piece(void *arg, int64_t index, int worker)
{
    const embed_job *job = arg;
    const mb_soft_embed *args = job->args;
    mb_type type = job->device->type;
    int64_t row = index / job->pieces, first = index % job->pieces * COLUMNS;
    int64_t n = args->width - first < COLUMNS ? args->width - first : COLUMNS;
    const float *p = job->shares + row * args->vocab;
    float sum[COLUMNS] = {0}, entry[COLUMNS];
    (void)worker;
    for (int64_t i = 0; i < args->vocab; i++) {
        if (p[i] == 0.0f)
            continue;
        mb_load_row(type, args->table, i * args->width + first, n, entry);
        for (int64_t c = 0; c < n; c++)
            sum[c] += p[i] * entry[c];
    }
    for (int64_t c = 0; c < n; c++)
        sum[c] = mb_round_to(type, sum[c]) * args->scale;
    mb_store_row(type, args->out, row * args->width + first, n, sum);
}

int mb_cpu_soft_embed(mb_device *device, const mb_soft_embed *args)
{
    if (args->n < 0 || args->vocab < 1 || args->width < 1 || !(*args->temperature > 0.0f))
        return mb_cpu_fail(device, MB_E_BUG, "soft_embed: %lld rows of %lld logits, width %lld, temperature %g",
                           (long long)args->n, (long long)args->vocab, (long long)args->width,
                           (double)*args->temperature);
    embed_job job = {device, args, args->scratch, (args->width + COLUMNS - 1) / COLUMNS};
    mb_cpu_run(device, args->n, shares_piece, &job);
    mb_cpu_run(device, args->n * job.pieces, expect_piece, &job);
    return MB_OK;
}
