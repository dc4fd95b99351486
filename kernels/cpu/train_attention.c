/*
 * train_attention.c - attention over the training layout [clean | noisy] and its gradient.
 *
 * All rows of a block see the same keys: clean keys (all up to a bound, or those of an index), then, for a noisy
 * block, its own. So the unit of work is one (document, KV head, block): the group's query rows of the block
 * against a list of keys, as dense matrices. The forward runs the units in any order. The gradient of a key is a
 * sum over the blocks that see it: a piece there is a (document, KV head), whose blocks run in order.
 */
#include "kernels/cpu/train.h"

typedef struct unit {
    int64_t document, head, block;
    bool noisy;
    int64_t first_row; /* of the block's rows in the batch */
    int64_t clean_row; /* of the document's clean rows */
    int64_t entry;     /* noisy: number of (document, noisy block) */
    int64_t picked, keys, padded;
    const int32_t *ids; /* NULL: the picked keys are clean rows 0 .. picked-1 */
} unit;

typedef struct attend_job {
    mb_device *device;
    const mb_train_attention *args;
    int64_t group, rows, dim, wide, width, blocks, clean_blocks; /* wide: dim rounded up; width: floats of a row */
    int64_t most;                                                /* keys of the longest unit, rounded up */
    float scale;
} attend_job;

/* Scratch of one thread, cut out of its block. */
typedef struct work {
    float *q;  /* [rows][dim], scaled; or dO */
    float *kt; /* [dim][padded] */
    float *v;  /* [padded][wide]; or K */
    float *s;  /* [rows][padded]: logits, then probabilities */
    float *dp; /* [rows][padded] */
    float *o;  /* [rows][wide] */
    float *dk; /* [padded][wide] */
    float *d;  /* [rows][dim]: dO */
} work;

static void cut_work(const attend_job *job, void *base, work *w, size_t *used)
{
    size_t rows = (size_t)job->rows, dim = (size_t)job->dim, wide = (size_t)job->wide, most = (size_t)job->most;
    *used = 0;
    w->q = mb_cpu_cut(base, used, rows * wide * sizeof(float));
    w->kt = mb_cpu_cut(base, used, dim * most * sizeof(float));
    w->v = mb_cpu_cut(base, used, most * wide * sizeof(float));
    w->s = mb_cpu_cut(base, used, rows * most * sizeof(float));
    w->dp = mb_cpu_cut(base, used, rows * most * sizeof(float));
    w->o = mb_cpu_cut(base, used, rows * wide * sizeof(float));
    w->dk = mb_cpu_cut(base, used, most * wide * sizeof(float));
    w->d = mb_cpu_cut(base, used, rows * wide * sizeof(float));
}

static void make_unit(const attend_job *job, int64_t document, int64_t head, int64_t index, unit *u)
{
    const mb_train_attention *args = job->args;
    const mb_train_layout *layout = &args->layout;
    const int64_t block = layout->block, tail_blocks = layout->tail / block;
    *u = (unit){.document = document, .head = head, .noisy = index >= job->clean_blocks};
    u->clean_row = document * (layout->clean + layout->tail);
    u->block = u->noisy ? job->clean_blocks - tail_blocks + index - job->clean_blocks : index;
    u->first_row = u->clean_row + index * block;
    u->picked = u->noisy ? u->block * block : (u->block + 1) * block;
    u->entry = u->noisy ? document * tail_blocks + index - job->clean_blocks : 0;
    if (u->noisy && args->index) {
        const int64_t at = u->entry * args->kv_heads + head;
        u->picked = args->index->counts[at];
        u->ids = args->index->ids + at * args->index->capacity;
    }
    u->keys = u->picked + (u->noisy ? block : 0);
    u->padded = mb_cpu_round_up(u->keys, MB_LANES);
}

/* The batch row of the i-th key. */
static inline int64_t key_row(const unit *u, int64_t i)
{
    return i >= u->picked ? u->first_row + i - u->picked : u->clean_row + (u->ids ? u->ids[i] : i);
}

/* Query row r of the unit: batch row and query head. */
static inline int64_t query_at(const attend_job *job, const unit *u, int64_t r, int64_t *head)
{
    *head = u->head * job->group + r % job->group;
    return u->first_row + r / job->group;
}

/* Rows of one head out of packed rows of `width`, each times factor, to [rows][wide]. */
static void load_rows(const attend_job *job, const unit *u, const float *from, int64_t width, float factor,
                      float *to)
{
    for (int64_t r = 0; r < job->rows; r++) {
        int64_t head, row = query_at(job, u, r, &head);
        const float *x = from + row * width + head * job->dim;
        for (int64_t c = 0; c < job->dim; c++)
            to[r * job->wide + c] = x[c] * factor;
    }
}

/* Keys (part 0) or values (part 1) to [padded][wide], zeros behind. */
static void load_keys(const attend_job *job, const unit *u, int part, float *to)
{
    const int64_t offset = (job->args->query_heads + (int64_t)part * job->args->kv_heads + u->head) * job->dim;
    memset(to, 0, (size_t)(u->padded * job->wide) * sizeof *to);
    for (int64_t i = 0; i < u->keys; i++)
        memcpy(to + i * job->wide, job->args->qkv + key_row(u, i) * job->width + offset,
               (size_t)job->dim * sizeof *to);
}

/* c [rows][padded] = a [rows][wide] times the transpose of b [padded][wide]. turned: scratch for it. */
static void times_keys(const attend_job *job, const unit *u, const float *a, const float *b, float *turned,
                       float *c)
{
    mb_cpu_transpose(b, job->wide, u->padded, job->dim, turned, u->padded);
    mb_cpu_product(&(mb_cpu_factors){.m = job->rows,
                                     .n = u->padded,
                                     .k = job->dim,
                                     .a = a,
                                     .a_row = job->wide,
                                     .a_col = 1,
                                     .b = turned,
                                     .ldb = u->padded,
                                     .c = c,
                                     .ldc = u->padded});
}

/* A line of logits to probabilities; returns the log-sum-exp. Columns behind the keys become 0. */
static float soften(float *s, int64_t keys, int64_t padded)
{
    float most = -INFINITY, sum = 0.0f;
    for (int64_t j = 0; j < keys; j++)
        most = s[j] > most ? s[j] : most;
    for (int64_t j = 0; j < keys; j++)
        s[j] = mb_exp_falling(s[j] - most);
    for (int64_t j = 0; j < keys; j++)
        sum += s[j];
    for (int64_t j = 0; j < keys; j++)
        s[j] /= sum;
    memset(s + keys, 0, (size_t)(padded - keys) * sizeof *s);
    return most + logf(sum);
}

static void forward_piece(void *arg, int64_t index, int worker)
{
    const attend_job *job = arg;
    const mb_train_attention *args = job->args;
    work w;
    unit u;
    size_t used;
    cut_work(job, job->device->private_scratch[worker], &w, &used);
    make_unit(job, index / job->blocks / args->kv_heads, index / job->blocks % args->kv_heads, index % job->blocks,
              &u);
    load_rows(job, &u, args->qkv, job->width, job->scale, w.q);
    load_keys(job, &u, 0, w.v);
    times_keys(job, &u, w.q, w.v, w.kt, w.s);
    for (int64_t r = 0; r < job->rows; r++) {
        int64_t head, row = query_at(job, &u, r, &head);
        args->lse[row * args->query_heads + head] = soften(w.s + r * u.padded, u.keys, u.padded);
    }
    load_keys(job, &u, 1, w.v);
    mb_cpu_product(&(mb_cpu_factors){.m = job->rows,
                                     .n = job->wide,
                                     .k = u.keys,
                                     .a = w.s,
                                     .a_row = u.padded,
                                     .a_col = 1,
                                     .b = w.v,
                                     .ldb = job->wide,
                                     .c = w.o,
                                     .ldc = job->wide});
    for (int64_t r = 0; r < job->rows; r++) {
        int64_t head, row = query_at(job, &u, r, &head);
        memcpy(args->out + (row * args->query_heads + head) * job->dim, w.o + r * job->wide,
               (size_t)job->dim * sizeof(float));
    }
    if (!args->mass || !u.noisy)
        return;
    float *mass = args->mass + (u.entry * args->kv_heads + u.head) * args->layout.clean;
    memset(mass, 0, (size_t)args->layout.clean * sizeof *mass);
    for (int64_t r = 0; r < job->rows; r++)
        for (int64_t j = 0; j < u.picked; j++)
            mass[j] += w.s[r * u.padded + j] / (float)job->rows;
}

/* to [padded][wide], added to the keys' places in dqkv. */
static void add_keys(const attend_job *job, const unit *u, int part, const float *from)
{
    const int64_t offset = (job->args->query_heads + (int64_t)part * job->args->kv_heads + u->head) * job->dim;
    for (int64_t i = 0; i < u->keys; i++) {
        float *to = job->args->dqkv + key_row(u, i) * job->width + offset;
        for (int64_t c = 0; c < job->dim; c++)
            to[c] += from[i * job->wide + c];
    }
}

/* c [padded][wide] = p^T [padded][rows] times x [rows][wide]. */
static void keys_times(const attend_job *job, const unit *u, const float *p, const float *x, float *c)
{
    mb_cpu_product(&(mb_cpu_factors){.m = u->keys,
                                     .n = job->wide,
                                     .k = job->rows,
                                     .a = p,
                                     .a_row = 1,
                                     .a_col = u->padded,
                                     .b = x,
                                     .ldb = job->wide,
                                     .c = c,
                                     .ldc = job->wide});
}

/* With P the probabilities: dV += P^T dO, dP = dO V^T, dS = P (dP - delta), delta = dO . O, dQ = scale dS K,
 * dK += scale dS^T Q. */
static void gradient_unit(const attend_job *job, const unit *u, const work *w)
{
    const mb_train_attention *args = job->args;
    const int64_t heads = args->query_heads, out_width = heads * job->dim;
    load_rows(job, u, args->qkv, job->width, job->scale, w->q);
    load_rows(job, u, args->dout, out_width, 1.0f, w->d);
    load_keys(job, u, 1, w->v);
    times_keys(job, u, w->d, w->v, w->kt, w->dp);
    load_keys(job, u, 0, w->v);
    times_keys(job, u, w->q, w->v, w->kt, w->s);
    for (int64_t r = 0; r < job->rows; r++) {
        int64_t head, row = query_at(job, u, r, &head);
        const float lse = args->lse[row * heads + head];
        const int64_t at = row * out_width + head * job->dim;
        const float delta = mb_cpu_dot(args->dout + at, args->out + at, job->dim);
        float *s = w->s + r * u->padded, *dp = w->dp + r * u->padded;
        for (int64_t j = 0; j < u->keys; j++) {
            s[j] = mb_exp_falling(s[j] - lse);
            dp[j] = s[j] * (dp[j] - delta);
        }
    }
    keys_times(job, u, w->s, w->d, w->dk);
    add_keys(job, u, 1, w->dk);
    keys_times(job, u, w->dp, w->q, w->dk);
    add_keys(job, u, 0, w->dk);
    mb_cpu_product(&(mb_cpu_factors){.m = job->rows,
                                     .n = job->wide,
                                     .k = u->keys,
                                     .a = w->dp,
                                     .a_row = u->padded,
                                     .a_col = 1,
                                     .b = w->v,
                                     .ldb = job->wide,
                                     .c = w->o,
                                     .ldc = job->wide});
    for (int64_t r = 0; r < job->rows; r++) {
        int64_t head, row = query_at(job, u, r, &head);
        float *to = args->dqkv + row * job->width + head * job->dim;
        for (int64_t c = 0; c < job->dim; c++)
            to[c] = w->o[r * job->wide + c] * job->scale;
    }
}

static void gradient_piece(void *arg, int64_t index, int worker)
{
    const attend_job *job = arg;
    work w;
    unit u;
    size_t used;
    cut_work(job, job->device->private_scratch[worker], &w, &used);
    for (int64_t block = 0; block < job->blocks; block++) {
        make_unit(job, index / job->args->kv_heads, index % job->args->kv_heads, block, &u);
        gradient_unit(job, &u, &w);
    }
}

static int prepare(mb_device *device, const mb_train_attention *args, const char *name, attend_job *job)
{
    const mb_train_layout *layout = &args->layout;
    int rc = mb_train_check(device, name);
    if (rc != MB_OK)
        return rc;
    if (layout->block < 1 || layout->clean % layout->block || layout->tail % layout->block ||
        layout->tail > layout->clean || args->kv_heads < 1 || args->query_heads % args->kv_heads)
        return mb_cpu_fail(device, MB_E_BUG, "%s: impossible layout: %d clean, %d tail, block %d, %d/%d heads",
                           name, layout->clean, layout->tail, layout->block, args->query_heads, args->kv_heads);
    const int32_t group = args->query_heads / args->kv_heads;
    const int64_t dim = args->head_dim;
    *job = (attend_job){.device = device,
                        .args = args,
                        .group = group,
                        .rows = (int64_t)group * layout->block,
                        .dim = dim,
                        .wide = mb_cpu_round_up(dim, MB_LANES),
                        .width = (args->query_heads + 2 * (int64_t)args->kv_heads) * dim,
                        .clean_blocks = layout->clean / layout->block,
                        .blocks = (layout->clean + layout->tail) / layout->block,
                        .most = mb_cpu_round_up(layout->clean + layout->block, MB_LANES),
                        .scale = 1.0f / sqrtf((float)dim)};
    work w;
    size_t each;
    cut_work(job, NULL, &w, &each);
    return mb_cpu_reserve(device, 64, each);
}

int mb_cpu_train_attend(mb_device *device, const mb_train_attention *args)
{
    attend_job job;
    int rc = prepare(device, args, "train_attend", &job);
    if (rc == MB_OK && args->mass && args->index)
        rc = mb_cpu_fail(device, MB_E_BUG, "train_attend: mass is of the exact attention");
    if (rc == MB_OK)
        mb_cpu_run(device, args->layout.documents * args->kv_heads * job.blocks, forward_piece, &job);
    return rc;
}

int mb_cpu_train_attend_gradient(mb_device *device, const mb_train_attention *args)
{
    attend_job job;
    int rc = prepare(device, args, "train_attend_gradient", &job);
    if (rc != MB_OK)
        return rc;
    memset(args->dqkv, 0, (size_t)(mb_train_rows(&args->layout) * job.width) * sizeof(float));
    mb_cpu_run(device, args->layout.documents * args->kv_heads, gradient_piece, &job);
    return MB_OK;
}
