/*
 * elementwise.c - embedding rows, residual + RMSNorm, q/k norm + RoPE + KV append, SwiGLU.
 *
 * The rounding points are those of eager PyTorch in T, one after every operator; each function's comment names
 * them. Against the same formula in real arithmetic a bf16 result differs by at most one bf16 step (where fp32
 * error crosses a rounding boundary), an fp32 result by a few 1e-7 relative.
 */
#include "kernels/cpu/cpu.h"

/* Rows of `width` that make a piece worth a thread's while; from the shape alone. */
static int64_t rows_per_piece(int64_t width)
{
    int64_t rows = 8192 / (width > 0 ? width : 1);
    return rows < 1 ? 1 : rows;
}

typedef struct embed_job {
    mb_device *device;
    const mb_embed *args;
    int64_t rows;
    size_t row_bytes;
} embed_job;

static void embed_piece(void *arg, int64_t index, int worker)
{
    const embed_job *job = arg;
    const mb_embed *args = job->args;
    int64_t last = (index + 1) * job->rows < args->n ? (index + 1) * job->rows : args->n;
    size_t bytes = job->row_bytes;
    float *row = job->device->private_scratch[worker];
    for (int64_t i = index * job->rows; i < last; i++) {
        memcpy((char *)args->out + (size_t)i * bytes, (const char *)args->table + (size_t)args->ids[i] * bytes,
               bytes);
        if (args->scale == 0.0f)
            continue;
        mb_load_row(job->device->type, args->out, i * args->width, args->width, row);
        for (int64_t c = 0; c < args->width; c++)
            row[c] *= args->scale;
        mb_store_row(job->device->type, args->out, i * args->width, args->width, row);
    }
}

int mb_cpu_embed(mb_device *device, const mb_embed *args)
{
    for (int64_t i = 0; i < args->n; i++)
        if (args->ids[i] < 0 || args->ids[i] >= args->vocab)
            return mb_cpu_fail(device, MB_E_BUG, "embed: token id %d at row %lld is not in 0..%lld", args->ids[i],
                               (long long)i, (long long)args->vocab - 1);
    embed_job job = {device, args, rows_per_piece(args->width), (size_t)args->width * mb_type_size(device->type)};
    int rc = mb_cpu_reserve(device, 0, (size_t)mb_cpu_round_up(args->width, MB_LANES) * sizeof(float));
    if (rc == MB_OK)
        mb_cpu_run(device, (args->n + job.rows - 1) / job.rows, embed_piece, &job);
    return rc;
}

/* y = RMSNorm(v) * w in place: v and w fp32 images of T values, w NULL: ones. Roundings: one_rounding 0:
 * T(w * T(v * rstd)), 1: T(v * rstd * w). The caller rounds the last product by storing it. */
static void normalise(mb_type type, float *v, const float *w, int64_t width, float eps, int one_rounding)
{
    float rstd = 1.0f / sqrtf(mb_cpu_dot(v, v, width) / (float)width + eps);
    if (!w)
        for (int64_t i = 0; i < width; i++)
            v[i] *= rstd;
    else if (one_rounding || type == MB_F32)
        for (int64_t i = 0; i < width; i++)
            v[i] = v[i] * rstd * w[i];
    else {
        for (int64_t i = 0; i < width; i++)
            v[i] *= rstd;
        mb_round_row(type, v, width);
        for (int64_t i = 0; i < width; i++)
            v[i] *= w[i];
    }
}

typedef struct norm_job {
    mb_device *device;
    const mb_rmsnorm *args;
    int64_t rows;
} norm_job;

static void norm_piece(void *arg, int64_t index, int worker)
{
    const norm_job *job = arg;
    const mb_rmsnorm *args = job->args;
    mb_type type = job->device->type;
    int64_t width = args->width, stride = mb_cpu_round_up(width, MB_LANES);
    int64_t last = (index + 1) * job->rows < args->n ? (index + 1) * job->rows : args->n;
    float *w = job->device->private_scratch[worker], *v = w + stride, *d = v + stride, scale = 1.0f;
    if (args->weight)
        mb_load_row(type, args->weight, 0, width, w);
    if (args->scale)
        mb_load_row(type, args->scale, 0, 1, &scale);
    for (int64_t row = index * job->rows; row < last; row++) {
        mb_load_row(type, args->x, row * width, width, v);
        if (args->delta) {
            mb_load_row(type, args->delta, row * width, width, d);
            for (int64_t i = 0; i < width; i++)
                v[i] += d[i];
            mb_store_row(type, args->x, row * width, width, v);
            mb_load_row(type, args->x, row * width, width, v);
        }
        if (args->scale) {
            for (int64_t i = 0; i < width; i++)
                v[i] *= scale;
            mb_store_row(type, args->x, row * width, width, v);
            mb_load_row(type, args->x, row * width, width, v);
        }
        normalise(type, v, args->weight ? w : NULL, width, args->eps, args->one_rounding);
        for (int64_t i = 0; args->factor != 0.0f && i < width; i++)
            v[i] = mb_round_to(type, v[i]) * args->factor;
        mb_store_row(type, args->out, row * width, width, v);
    }
}

int mb_cpu_add_rmsnorm(mb_device *device, const mb_rmsnorm *args)
{
    norm_job job = {device, args, rows_per_piece(args->width)};
    int rc = mb_cpu_reserve(device, 0, (size_t)mb_cpu_round_up(args->width, MB_LANES) * 3 * sizeof(float));
    if (rc == MB_OK)
        mb_cpu_run(device, (args->n + job.rows - 1) / job.rows, norm_piece, &job);
    return rc;
}

typedef struct swiglu_job {
    mb_device *device;
    const mb_swiglu *args;
    int64_t rows;
} swiglu_job;

/* 0.5 x (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3), as x / (1 + exp(-2 u)), which keeps what 1 + tanh()
 * loses below 0. */
static float gelu_tanh(float x)
{
    return x / (1.0f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

/* Roundings: T(T(act(gate)) * up). */
static void swiglu_piece(void *arg, int64_t index, int worker)
{
    const swiglu_job *job = arg;
    const mb_swiglu *args = job->args;
    mb_type type = job->device->type;
    int64_t width = args->width;
    int64_t last = (index + 1) * job->rows < args->n ? (index + 1) * job->rows : args->n;
    float *gate = job->device->private_scratch[worker], *up = gate + mb_cpu_round_up(width, MB_LANES);
    for (int64_t row = index * job->rows; row < last; row++) {
        mb_load_row(type, args->gate_up, row * 2 * width, width, gate);
        mb_load_row(type, args->gate_up, (row * 2 + 1) * width, width, up);
        if (args->activation == MB_GELU_TANH)
            for (int64_t i = 0; i < width; i++)
                gate[i] = gelu_tanh(gate[i]);
        else
            for (int64_t i = 0; i < width; i++)
                gate[i] = gate[i] / (1.0f + mb_exp(-gate[i]));
        mb_round_row(type, gate, width);
        for (int64_t i = 0; i < width; i++)
            gate[i] *= up[i];
        mb_store_row(type, args->out, row * width, width, gate);
    }
}

int mb_cpu_swiglu(mb_device *device, const mb_swiglu *args)
{
    swiglu_job job = {device, args, rows_per_piece(2 * args->width)};
    int rc = mb_cpu_reserve(device, 0, (size_t)mb_cpu_round_up(args->width, MB_LANES) * 2 * sizeof(float));
    if (rc == MB_OK)
        mb_cpu_run(device, (args->n + job.rows - 1) / job.rows, swiglu_piece, &job);
    return rc;
}

typedef struct qkv_job {
    mb_device *device;
    const mb_qkv *args;
    int64_t rows; /* query rows of a piece */
} qkv_job;

/* rotate() where the products are rounded; inlined with a constant type, so that the loop has no branch. */
static inline void rotate_rounded(mb_type type, const float *v, const float *cosine, const float *sine,
                                  int64_t half, float *out)
{
    for (int64_t j = 0; j < half; j++) {
        out[j] = mb_round_to(type, v[j] * cosine[j]) + mb_round_to(type, -v[j + half] * sine[j]);
        out[j + half] = mb_round_to(type, v[j + half] * cosine[j]) + mb_round_to(type, v[j] * sine[j]);
    }
}

/* RoPE of the first `turned` dimensions, halves convention: out = T( T(v*cos) + T(rot(v)*sin) ), rot(v) = [-second
 * half; first half]; the dimensions behind them pass. */
static void rotate(mb_type type, const float *v, const float *cos_sin, int64_t turned, int64_t dim, float *out)
{
    int64_t half = turned / 2;
    const float *cosine = cos_sin, *sine = cos_sin + half;
    if (type == MB_BF16) {
        rotate_rounded(MB_BF16, v, cosine, sine, half, out);
    } else if (type == MB_F16) {
        rotate_rounded(MB_F16, v, cosine, sine, half, out);
    } else {
        for (int64_t j = 0; j < half; j++) {
            out[j] = v[j] * cosine[j] - v[j + half] * sine[j];
            out[j + half] = v[j + half] * cosine[j] + v[j] * sine[j];
        }
    }
    for (int64_t j = turned; j < dim; j++)
        out[j] = v[j];
}

/* 0 means all of the head. */
static int64_t rotary_dim(const mb_qkv *args)
{
    return args->rotary_dim ? args->rotary_dim : args->kv.head_dim;
}

/* One head's vector of T from src[at]: optional norm, a copy before RoPE, RoPE. */
static void finish_head(const qkv_job *job, int64_t at, const float *norm, const float *cos_sin, void *pre,
                        float scale, void *dst, int64_t dst_at)
{
    mb_type type = job->device->type;
    int64_t dim = job->args->kv.head_dim;
    float v[MB_CPU_MOST_DIM], turned[MB_CPU_MOST_DIM];
    mb_load_row(type, job->args->qkv, at, dim, v);
    if (norm) {
        normalise(type, v, norm, dim, job->args->norm_eps, job->args->norm_one_rounding);
        mb_round_row(type, v, dim);
    }
    if (pre)
        mb_store_row(type, pre, dst_at, dim, v);
    rotate(type, v, cos_sin, rotary_dim(job->args), dim, turned);
    for (int64_t i = 0; scale != 0.0f && i < dim; i++)
        turned[i] = mb_round_to(type, turned[i]) * scale;
    mb_store_row(type, dst, dst_at, dim, turned);
}

/* A head's value from src[at]: as it is, or normalised without a weight. */
static void finish_value(const qkv_job *job, int64_t at, int64_t to)
{
    const mb_qkv *args = job->args;
    mb_type type = job->device->type;
    int64_t dim = args->kv.head_dim;
    float v[MB_CPU_MOST_DIM];
    mb_load_row(type, args->qkv, at, dim, v);
    if (args->v_norm)
        normalise(type, v, NULL, dim, args->norm_eps, args->norm_one_rounding);
    mb_store_row(type, args->kv.v, to, dim, v);
}

static void qkv_piece(void *arg, int64_t index, int worker)
{
    const qkv_job *job = arg;
    const mb_qkv *args = job->args;
    mb_type type = job->device->type;
    int64_t dim = args->kv.head_dim, heads = args->query_heads, kv_heads = args->kv.kv_heads;
    int64_t width = (heads + (args->v_of_k ? 1 : 2) * kv_heads) * dim;
    int64_t total = (int64_t)args->rows.batch * args->rows.rows;
    int64_t last = (index + 1) * job->rows < total ? (index + 1) * job->rows : total;
    float q_norm[MB_CPU_MOST_DIM], k_norm[MB_CPU_MOST_DIM];
    (void)worker;
    if (args->q_norm)
        mb_load_row(type, args->q_norm, 0, dim, q_norm);
    if (args->k_norm)
        mb_load_row(type, args->k_norm, 0, dim, k_norm);
    for (int64_t row = index * job->rows; row < last; row++) {
        int64_t b = row / args->rows.rows;
        int64_t slot = args->rows.prefix_len[b] + args->rows.row_offset + row % args->rows.rows;
        const float *cos_sin = args->cos_sin + slot * rotary_dim(args);
        for (int64_t h = 0; h < heads; h++)
            finish_head(job, row * width + h * dim, args->q_norm ? q_norm : NULL, cos_sin, args->q_pre,
                        args->q_scale, args->q_out, (row * heads + h) * dim);
        for (int64_t h = 0; h < kv_heads; h++) {
            int64_t to = ((b * kv_heads + h) * args->kv.capacity + slot) * dim;
            finish_head(job, row * width + (heads + h) * dim, args->k_norm ? k_norm : NULL, cos_sin, NULL, 0,
                        args->kv.k, to);
            finish_value(job, row * width + (heads + (args->v_of_k ? 0 : kv_heads) + h) * dim, to);
        }
    }
}

int mb_cpu_qkv_finish(mb_device *device, const mb_qkv *args)
{
    int64_t dim = args->kv.head_dim;
    if (dim < 8 || dim > MB_CPU_MOST_DIM || dim % 8 || args->kv.kv_heads < 1 ||
        args->query_heads % args->kv.kv_heads)
        return mb_cpu_fail(device, MB_E_BUG, "qkv_finish: head_dim %lld, %d query heads, %d KV heads do not fit",
                           (long long)dim, args->query_heads, args->kv.kv_heads);
    if (args->rotary_dim < 0 || args->rotary_dim > dim || args->rotary_dim % 2)
        return mb_cpu_fail(device, MB_E_BUG, "qkv_finish: %d of %lld dimensions cannot turn", args->rotary_dim,
                           (long long)dim);
    for (int32_t b = 0; b < args->rows.batch; b++)
        if (args->rows.prefix_len[b] < 0 ||
            args->rows.prefix_len[b] + args->rows.row_offset + args->rows.rows > args->kv.capacity)
            return mb_cpu_fail(device, MB_E_BUG,
                               "qkv_finish: sequence %d, slots %d + %d + %d rows exceed the cache "
                               "of %d",
                               b, args->rows.prefix_len[b], args->rows.row_offset, args->rows.rows,
                               args->kv.capacity);
    int64_t width = (args->query_heads + 2 * args->kv.kv_heads) * dim;
    qkv_job job = {device, args, rows_per_piece(2 * width)};
    int64_t total = (int64_t)args->rows.batch * args->rows.rows;
    mb_cpu_run(device, (total + job.rows - 1) / job.rows, qkv_piece, &job);
    return MB_OK;
}
