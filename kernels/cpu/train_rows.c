/*
 * train_rows.c - gradients of what works on rows: RMSNorm, q/k norm with RoPE, SwiGLU; gathering and adding rows.
 *
 * Weight gradients are sums over rows: each piece of MB_TRAIN_PIECE rows adds its own, the pieces are folded in
 * order.
 */
#include "kernels/cpu/train.h"

/* ---- RMSNorm ---- */

/* y = x * r * w with r = (mean x^2 + eps)^-1/2. dx = r w dy - x r^3/width sum(w dy x); dw += dy x r. weight and dw
 * NULL: y = x. add: dx is added to. */
static void norm_gradient(const float *x, const float *dy, const float *w, int64_t width, float eps, bool add,
                          float *dx, float *dw)
{
    float r = 1.0f / sqrtf(mb_cpu_dot(x, x, width) / (float)width + eps), dot = 0.0f;
    for (int64_t c = 0; c < width; c++)
        dot += w[c] * dy[c] * x[c];
    const float share = r * r * r * dot / (float)width;
    for (int64_t c = 0; c < width; c++) {
        float d = r * w[c] * dy[c] - share * x[c];
        dw[c] += dy[c] * x[c] * r;
        dx[c] = add ? dx[c] + d : d;
    }
}

typedef struct norm_job {
    const mb_rmsnorm_gradient *args;
    float *partial; /* [pieces][width] */
} norm_job;

static void norm_piece(void *arg, int64_t index, int worker)
{
    const norm_job *job = arg;
    const mb_rmsnorm_gradient *args = job->args;
    int64_t width = args->width, last = mb_train_last(index, args->n);
    float *dw = job->partial + index * width;
    (void)worker;
    memset(dw, 0, (size_t)width * sizeof *dw);
    for (int64_t i = index * MB_TRAIN_PIECE; i < last; i++)
        norm_gradient(args->x + i * width, args->dy + i * width, args->weight, width, args->eps, args->add,
                      args->dx + i * width, dw);
}

int mb_cpu_rmsnorm_gradient(mb_device *device, const mb_rmsnorm_gradient *args)
{
    int64_t pieces = mb_train_pieces(args->n);
    int rc = mb_train_check(device, "rmsnorm_gradient");
    if (rc == MB_OK)
        rc = mb_cpu_reserve(device, (size_t)(pieces * args->width) * sizeof(float), 0);
    if (rc != MB_OK)
        return rc;
    norm_job job = {args, device->shared};
    mb_cpu_run(device, pieces, norm_piece, &job);
    mb_train_fold(job.partial, pieces, args->width, args->dweight);
    return MB_OK;
}

/* ---- q/k norm and RoPE ---- */

/* In place: pairs j and j + rotary_dim/2 turn by the row's angles; backwards with sign -1. */
static void turn(float *x, const float *cos_sin, int32_t rotary_dim, float sign)
{
    const int32_t half = rotary_dim / 2;
    for (int32_t j = 0; j < half; j++) {
        float c = cos_sin[j], s = sign * cos_sin[half + j], a = x[j], b = x[half + j];
        x[j] = a * c - b * s;
        x[half + j] = b * c + a * s;
    }
}

typedef struct qkv_job {
    const mb_train_qkv *args;
    float *partial; /* gradient: [pieces][2][head_dim] */
} qkv_job;

static void qkv_piece(void *arg, int64_t index, int worker)
{
    const mb_train_qkv *args = ((const qkv_job *)arg)->args;
    const int32_t dim = args->head_dim, turned = args->query_heads + args->kv_heads;
    const int64_t width = (int64_t)(turned + args->kv_heads) * dim, last = mb_train_last(index, args->n);
    (void)worker;
    for (int64_t i = index * MB_TRAIN_PIECE; i < last; i++) {
        const float *angles = args->cos_sin + (int64_t)args->positions[i] * args->rotary_dim;
        memcpy(args->out + i * width, args->qkv + i * width, (size_t)width * sizeof(float));
        for (int32_t h = 0; h < turned; h++) {
            float *x = args->out + i * width + (int64_t)h * dim;
            const float *w = h < args->query_heads ? args->q_norm : args->k_norm;
            float r = w ? 1.0f / sqrtf(mb_cpu_dot(x, x, dim) / (float)dim + args->norm_eps) : 1.0f;
            for (int32_t c = 0; w && c < dim; c++)
                x[c] = x[c] * r * w[c];
            turn(x, angles, args->rotary_dim, 1.0f);
        }
    }
}

int mb_cpu_train_qkv(mb_device *device, const mb_train_qkv *args)
{
    qkv_job job = {args, NULL};
    int rc = mb_train_check(device, "train_qkv");
    if (rc == MB_OK)
        mb_cpu_run(device, mb_train_pieces(args->n), qkv_piece, &job);
    return rc;
}

static void qkv_gradient_piece(void *arg, int64_t index, int worker)
{
    const qkv_job *job = arg;
    const mb_train_qkv *args = job->args;
    const int32_t dim = args->head_dim, turned = args->query_heads + args->kv_heads;
    const int64_t width = (int64_t)(turned + args->kv_heads) * dim, last = mb_train_last(index, args->n);
    float *dw = job->partial + index * 2 * dim, line[256];
    (void)worker;
    memset(dw, 0, (size_t)(2 * dim) * sizeof *dw);
    for (int64_t i = index * MB_TRAIN_PIECE; i < last; i++) {
        const float *angles = args->cos_sin + (int64_t)args->positions[i] * args->rotary_dim;
        for (int32_t h = 0; h < turned; h++) {
            const int64_t at = i * width + (int64_t)h * dim;
            const bool query = h < args->query_heads;
            const float *w = query ? args->q_norm : args->k_norm;
            memcpy(line, args->dout + at, (size_t)dim * sizeof *line);
            turn(line, angles, args->rotary_dim, -1.0f);
            if (w)
                norm_gradient(args->qkv + at, line, w, dim, args->norm_eps, false, args->dqkv + at,
                              dw + (query ? 0 : dim));
            else
                memcpy(args->dqkv + at, line, (size_t)dim * sizeof *line);
        }
        const int64_t values = i * width + (int64_t)turned * dim;
        memcpy(args->dqkv + values, args->dout + values, (size_t)(args->kv_heads * dim) * sizeof(float));
    }
}

int mb_cpu_train_qkv_gradient(mb_device *device, const mb_train_qkv *args)
{
    int64_t pieces = mb_train_pieces(args->n), dim = args->head_dim;
    int rc = mb_train_check(device, "train_qkv_gradient");
    if (rc == MB_OK && dim > 256)
        rc = mb_cpu_fail(device, MB_E_BUG, "train_qkv_gradient: head dimension %lld, 256 is the most",
                         (long long)dim);
    if (rc == MB_OK)
        rc = mb_cpu_reserve(device, (size_t)(pieces * 2 * dim) * sizeof(float), 0);
    if (rc != MB_OK)
        return rc;
    qkv_job job = {args, device->shared};
    mb_cpu_run(device, pieces, qkv_gradient_piece, &job);
    for (int64_t p = 0; p < pieces; p++) {
        if (args->dq_norm)
            mb_train_fold(job.partial + p * 2 * dim, 1, dim, args->dq_norm);
        if (args->dk_norm)
            mb_train_fold(job.partial + p * 2 * dim + dim, 1, dim, args->dk_norm);
    }
    return MB_OK;
}

/* ---- SwiGLU ---- */

static void swiglu_piece(void *arg, int64_t index, int worker)
{
    const mb_swiglu_gradient *args = arg;
    int64_t width = args->width, last = mb_train_last(index, args->n);
    (void)worker;
    for (int64_t i = index * MB_TRAIN_PIECE; i < last; i++) {
        const float *gate = args->gate_up + i * 2 * width, *up = gate + width, *dy = args->dy + i * width;
        float *dgate = args->dgate_up + i * 2 * width, *dup = dgate + width;
        for (int64_t c = 0; c < width; c++) {
            float s = 1.0f / (1.0f + mb_exp(-gate[c])), silu = gate[c] * s;
            float d = dy[c] * up[c] * (s + silu * (1.0f - s)), u = dy[c] * silu;
            dgate[c] = d;
            dup[c] = u;
        }
    }
}

int mb_cpu_swiglu_gradient(mb_device *device, const mb_swiglu_gradient *args)
{
    mb_swiglu_gradient copy = *args;
    int rc = mb_train_check(device, "swiglu_gradient");
    if (rc == MB_OK)
        mb_cpu_run(device, mb_train_pieces(args->n), swiglu_piece, &copy);
    return rc;
}

/* ---- rows ---- */

int mb_cpu_train_gather(mb_device *device, const mb_train_gather *args)
{
    int rc = mb_train_check(device, "train_gather");
    for (int64_t i = 0; rc == MB_OK && i < args->n; i++)
        memcpy(args->out + i * args->width, args->x + args->rows[i] * args->width,
               (size_t)args->width * sizeof(float));
    return rc;
}

int mb_cpu_train_scatter(mb_device *device, const mb_train_gather *args)
{
    int rc = mb_train_check(device, "train_scatter");
    for (int64_t i = 0; rc == MB_OK && i < args->n; i++)
        for (int64_t c = 0; c < args->width; c++)
            args->x[args->rows[i] * args->width + c] += args->out[i * args->width + c];
    return rc;
}

int mb_cpu_train_add(mb_device *device, const mb_train_add *args)
{
    int rc = mb_train_check(device, "train_add");
    for (int64_t i = 0; rc == MB_OK && i < args->n; i++)
        args->out[i] = args->x[i] + args->y[i];
    return rc;
}
