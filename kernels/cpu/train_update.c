/*
 * train_update.c - the two ends of a backward pass: losses of rows of logits with their gradient, and what is done
 * with the gradients: their norm, AdamW.
 */
#include "kernels/cpu/train.h"

#define ELEMENTS 16384 /* of a piece of a flat array */

/* The log of sum exp of a line, and its largest entry's place (lowest on ties). */
static float log_sum(const float *x, int64_t n, int64_t *best)
{
    float most = x[0], sum = 0.0f;
    *best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > most) {
            most = x[i];
            *best = i;
        }
    for (int64_t i = 0; i < n; i++)
        sum += mb_exp_falling(x[i] - most);
    return most + logf(sum);
}

/* sum p (log p - log q), in double: its terms cancel where the two agree. */
static double divergence(const float *z, float lse, const float *t, float teacher_lse, int64_t n)
{
    double kl = 0.0;
    for (int64_t i = 0; i < n; i++) {
        float log_p = z[i] - lse;
        kl += (double)(mb_exp_falling(log_p) * (log_p - (t[i] - teacher_lse)));
    }
    return kl;
}

static void loss_row(const mb_train_loss *args, int64_t row)
{
    const float *z = args->logits + row * args->vocab;
    const float *t = args->teacher ? args->teacher + row * args->vocab : NULL;
    const int64_t n = args->vocab, target = args->targets[row];
    int64_t best, unused;
    const float lse = log_sum(z, n, &best), teacher_lse = t ? log_sum(t, n, &unused) : 0.0f;
    const double kl = t ? divergence(z, lse, t, teacher_lse, n) : 0.0;
    args->ce[row] = lse - z[target];
    args->correct[row] = best == target;
    if (t)
        args->kl[row] = (float)kl;
    if (!args->dlogits)
        return;
    float *d = args->dlogits + row * n;
    const float weight = args->weight[row], distil = t ? args->distil[row] : 0.0f, mean = (float)kl;
    for (int64_t i = 0; i < n; i++) {
        const float log_p = z[i] - lse, p = mb_exp_falling(log_p);
        float value = weight * p;
        if (t)
            value += distil * p * (log_p - (t[i] - teacher_lse) - mean);
        d[i] = i == target ? value - weight : value;
    }
}

static void loss_piece(void *arg, int64_t index, int worker)
{
    const mb_train_loss *args = arg;
    (void)worker;
    loss_row(args, index);
}

int mb_cpu_train_loss(mb_device *device, const mb_train_loss *args)
{
    mb_train_loss copy = *args;
    int rc = mb_train_check(device, "train_loss");
    for (int64_t i = 0; rc == MB_OK && i < args->n; i++)
        if (args->targets[i] < 0 || args->targets[i] >= args->vocab)
            rc = mb_cpu_fail(device, MB_E_BUG, "train_loss: target %d at row %lld is not in 0..%lld",
                             args->targets[i], (long long)i, (long long)args->vocab - 1);
    if (rc == MB_OK)
        mb_cpu_run(device, args->n, loss_piece, &copy);
    return rc;
}

static void adamw_piece(void *arg, int64_t index, int worker)
{
    const mb_adamw *a = arg;
    const int64_t last = (index + 1) * ELEMENTS < a->n ? (index + 1) * ELEMENTS : a->n;
    const float step = (float)((double)a->lr / a->correction1), root = (float)sqrt(a->correction2);
    const float keep = 1.0f - a->lr * a->decay;
    (void)worker;
    for (int64_t i = index * ELEMENTS; i < last; i++) {
        const float g = a->gradient[i] * a->scale;
        a->m[i] += (1.0f - a->beta1) * (g - a->m[i]);
        a->v[i] = a->beta2 * a->v[i] + (1.0f - a->beta2) * g * g;
        a->weight[i] = a->weight[i] * keep - step * a->m[i] / (sqrtf(a->v[i]) / root + a->eps);
    }
}

int mb_cpu_adamw(mb_device *device, const mb_adamw *args)
{
    mb_adamw copy = *args;
    int rc = mb_train_check(device, "adamw");
    if (rc == MB_OK)
        mb_cpu_run(device, (args->n + ELEMENTS - 1) / ELEMENTS, adamw_piece, &copy);
    return rc;
}

typedef struct square_job {
    const mb_square_sum *args;
    double *partial;
} square_job;

static void square_piece(void *arg, int64_t index, int worker)
{
    const square_job *job = arg;
    const int64_t n = job->args->n, last = (index + 1) * ELEMENTS < n ? (index + 1) * ELEMENTS : n;
    double sum = 0.0;
    (void)worker;
    for (int64_t i = index * ELEMENTS; i < last; i++)
        sum += (double)job->args->x[i] * (double)job->args->x[i];
    job->partial[index] = sum;
}

int mb_cpu_square_sum(mb_device *device, const mb_square_sum *args)
{
    const int64_t pieces = (args->n + ELEMENTS - 1) / ELEMENTS;
    int rc = mb_train_check(device, "square_sum");
    if (rc == MB_OK)
        rc = mb_cpu_reserve(device, (size_t)pieces * sizeof(double), 0);
    if (rc != MB_OK)
        return rc;
    square_job job = {args, device->shared};
    mb_cpu_run(device, pieces, square_piece, &job);
    for (int64_t p = 0; p < pieces; p++)
        *args->sum += job.partial[p];
    return MB_OK;
}
