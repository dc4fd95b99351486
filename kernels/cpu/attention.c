/*
 * attention.c - attention of packed block rows over a list of keys: attend, attend_sparse.
 *
 * Flash attention cut along the keys. A piece is one (sequence, KV head) and 256 consecutive keys of its list:
 * its keys and values are widened to fp32 once, then for each panel of 32 query rows logits, maximum, exponential
 * and the product with V give a partial state (m, l, o). Partial states are folded in the order of the keys, so
 * the result depends on the list alone: dense attention and pages that cover everything agree bit for bit.
 * Probabilities stay fp32; the only rounding to T is the output's. Against fp64 on the same T inputs the error is
 * about 1e-6 relative to max |v| before that rounding.
 */
#include "kernels/cpu/attention.h"

#define WAVE_BYTES ((size_t)256 << 20) /* partial states kept at a time */

typedef struct attend_job {
    mb_device *device;
    const mb_attention *args;
    mb_cpu_rows rows;
    int64_t value_width;     /* head_dim rounded up to 16 */
    const mb_cpu_keys *keys; /* [heads] */
    const int64_t *first;    /* [heads + 1]: the first piece of each head; a skipped head has none */
    float *q;                /* packed, [heads][padded * dim] */
    float *m, *l, *o;        /* folded so far: [heads][padded], same, [heads][padded][value_width] */
    float *part;             /* pieces of this wave: m [padded], l [padded], o [padded][value_width] */
    size_t part_floats;
    int64_t wave_first, wave_last;
    bool want_out;
} attend_job;

static int64_t head_of_piece(const attend_job *job, int64_t piece)
{
    int64_t low = 0, high = job->rows.heads - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (job->first[middle] <= piece)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void attend_piece(void *arg, int64_t index, int worker)
{
    const attend_job *job = arg;
    const mb_attention *args = job->args;
    const mb_cpu_rows *rows = &job->rows;
    mb_type type = job->device->type;
    int64_t piece = job->wave_first + index, head = head_of_piece(job, piece), dim = rows->dim;
    int64_t first = (piece - job->first[head]) * MB_KEY_CHUNK, values = job->value_width;
    const mb_cpu_keys *keys = &job->keys[head];
    int64_t n = keys->total - first < MB_KEY_CHUNK ? keys->total - first : MB_KEY_CHUNK;
    float *k = job->device->private_scratch[worker]; /* [n][dim] */
    float *v = k + MB_KEY_CHUNK * dim;               /* panels of columns: [n][32], the last [n][16 or 32] */
    float *logits = v + MB_KEY_CHUNK * values;       /* [n][width] */
    float *part = job->part + (size_t)index * job->part_floats;
    float *m = part, *l = m + rows->padded, *o = l + rows->padded, old[MB_PANEL];
    const void *base_k = mb_cpu_head_base(type, &args->kv, args->kv.k, head);
    const void *base_v = mb_cpu_head_base(type, &args->kv, args->kv.v, head);
    mb_cpu_keys_prefetch(type, keys, base_v, dim, first, job->want_out ? n : 0);
    mb_cpu_keys_load(type, keys, base_k, dim, first, n, k);
    if (job->want_out)
        mb_cpu_values_load(type, keys, base_v, dim, first, n, v);
    /* Most likely this thread's next piece. */
    mb_cpu_keys_prefetch(type, keys, base_k, dim, first + job->device->threads * MB_KEY_CHUNK, MB_KEY_CHUNK);
    for (int64_t p = 0; p < rows->panels; p++) {
        int64_t width = mb_cpu_panel_width(rows, p), row = p * MB_PANEL;
        int64_t real = rows->count - row < width ? rows->count - row : width;
        mb_cpu_logits(rows, width, k, n, job->q + (head * rows->padded + row) * dim, logits);
        for (int64_t i = row; i < row + width; i++) {
            m[i] = -INFINITY;
            l[i] = 0.0f;
        }
        mb_cpu_soften(logits, n, width, rows->scale, m + row, l + row, old);
        for (int64_t c = 0; job->want_out && c < values; c += MB_PANEL) {
            int64_t columns = values - c < MB_PANEL ? values - c : MB_PANEL;
            mb_cpu_product(&(mb_cpu_factors){.m = real,
                                             .n = columns,
                                             .k = n,
                                             .a = logits,
                                             .a_row = 1,
                                             .a_col = width,
                                             .b = v + c * n,
                                             .ldb = columns,
                                             .c = o + row * values + c,
                                             .ldc = values});
        }
    }
}

/* Adds the wave's partial states to the folded ones, keys in order; one piece is a panel of one head's rows. */
static void fold_piece(void *arg, int64_t index, int worker)
{
    const attend_job *job = arg;
    const mb_cpu_rows *rows = &job->rows;
    int64_t head = index / rows->panels, row = index % rows->panels * MB_PANEL, values = job->value_width;
    int64_t last_row = row + MB_PANEL < rows->count ? row + MB_PANEL : rows->count;
    int64_t from = job->first[head] > job->wave_first ? job->first[head] : job->wave_first;
    int64_t to = job->first[head + 1] < job->wave_last ? job->first[head + 1] : job->wave_last;
    float *m = job->m + head * rows->padded, *l = job->l + head * rows->padded;
    (void)worker;
    for (int64_t piece = from; piece < to; piece++) {
        const float *part = job->part + (size_t)(piece - job->wave_first) * job->part_floats;
        const float *part_l = part + rows->padded, *part_o = part_l + rows->padded;
        for (int64_t i = row; i < last_row; i++) {
            if (part[i] == -INFINITY && part_l[i] == 0.0f)
                continue;
            float most = part[i] > m[i] ? part[i] : m[i];
            float old = m[i] == -INFINITY ? 0.0f : mb_exp_falling(m[i] - most);
            float new = part[i] == -INFINITY ? 1.0f : mb_exp_falling(part[i] - most);
            float *o = job->o + (head * rows->padded + i) * values;
            const float *add = part_o + i * values;
            m[i] = most;
            l[i] = l[i] * old + part_l[i] * new;
            for (int64_t c = 0; job->want_out && c < values; c++)
                o[c] = o[c] * old + add[c] * new;
        }
    }
}

/* Folded states of a head's panel to out and log-sum-exp; job->l becomes the log-sum-exp. */
static void finish_piece(void *arg, int64_t index, int worker)
{
    const attend_job *job = arg;
    const mb_attention *args = job->args;
    const mb_cpu_rows *rows = &job->rows;
    int64_t head = index / rows->panels, row = index % rows->panels * MB_PANEL, dim = rows->dim;
    int64_t last_row = row + MB_PANEL < rows->count ? row + MB_PANEL : rows->count;
    int64_t b = head / args->kv.kv_heads, h = head % args->kv.kv_heads;
    float line[MB_CPU_MOST_DIM];
    (void)worker;
    if (args->active && !args->active[head])
        return;
    for (int64_t i = row; i < last_row; i++) {
        int64_t at =
            (b * args->rows.rows + i / rows->group) * args->query_heads + h * rows->group + i % rows->group;
        float *l = job->l + head * rows->padded + i;
        const float *o = job->o + (head * rows->padded + i) * job->value_width;
        for (int64_t c = 0; c < dim; c++)
            line[c] = *l == 0.0f ? 0.0f : o[c] / *l;
        if (job->want_out)
            mb_store_row(job->device->type, args->out, at * dim, dim, line);
        *l = *l == 0.0f ? -INFINITY : job->m[head * rows->padded + i] + logf(*l);
        if (args->lse)
            args->lse[at] = *l;
    }
}

/* Lists every head's keys and counts its pieces. */
static void list_keys(const mb_attention *args, int64_t heads, mb_cpu_keys *keys, int64_t *first)
{
    first[0] = 0;
    for (int64_t head = 0; head < heads; head++) {
        mb_cpu_keys_make(args, head, &keys[head]);
        bool skipped = args->active && !args->active[head];
        first[head + 1] = first[head] + (skipped ? 0 : (keys[head].total + MB_KEY_CHUNK - 1) / MB_KEY_CHUNK);
    }
}

static int attend_over(mb_device *device, const mb_attention *args)
{
    attend_job job = {.device = device, .args = args, .want_out = args->out != NULL};
    const mb_cpu_rows *rows = &job.rows;
    mb_cpu_rows_make(args, &job.rows);
    bool want_mass = args->mass || args->tile_mass;
    int64_t values = job.value_width = mb_cpu_round_up(rows->dim, MB_LANES);
    int64_t longest = args->rows.max_prefix + args->rows.block_keys, states = rows->heads * rows->padded;
    size_t each = (size_t)(MB_KEY_CHUNK * (rows->dim + values + MB_PANEL)) * sizeof(float);
    if (want_mass && mb_cpu_mass_scratch(rows) > each)
        each = mb_cpu_mass_scratch(rows);
    if (each < (size_t)(MB_PANEL * rows->dim) * sizeof(float))
        each = (size_t)(MB_PANEL * rows->dim) * sizeof(float);
    job.part_floats = (size_t)(rows->padded * (2 + (job.want_out ? values : 0)));
    int64_t most = rows->heads * ((longest + MB_KEY_CHUNK - 1) / MB_KEY_CHUNK);
    int64_t wave = (int64_t)(WAVE_BYTES / (job.part_floats * sizeof(float)));
    wave = wave < 64 ? 64 : wave;
    wave = wave < most ? wave : most;

    /* Twice over: first only counting, then cutting the block that was reserved. */
    mb_cpu_keys *keys = NULL;
    int64_t *first = NULL;
    void *base = NULL;
    for (int pass = 0; pass < 2; pass++) {
        size_t used = 0;
        keys = mb_cpu_cut(base, &used, (size_t)rows->heads * sizeof *keys);
        first = mb_cpu_cut(base, &used, (size_t)(rows->heads + 1) * sizeof *first);
        job.q = mb_cpu_cut(base, &used, (size_t)(states * rows->dim) * sizeof(float));
        job.m = mb_cpu_cut(base, &used, (size_t)states * sizeof(float));
        job.l = mb_cpu_cut(base, &used, (size_t)states * sizeof(float));
        job.o = mb_cpu_cut(base, &used, (size_t)(states * values) * sizeof(float));
        job.part = mb_cpu_cut(base, &used, (size_t)wave * job.part_floats * sizeof(float));
        if (pass == 0) {
            int rc = mb_cpu_reserve(device, used, each);
            if (rc != MB_OK)
                return rc;
            base = device->shared;
        }
    }
    list_keys(args, rows->heads, keys, first);
    job.keys = keys;
    job.first = first;
    mb_cpu_rows_pack(device, args, rows, job.q);
    for (int64_t i = 0; i < states; i++)
        job.m[i] = -INFINITY;
    memset(job.l, 0, (size_t)states * sizeof(float));
    memset(job.o, 0, (size_t)(states * values) * sizeof(float));
    for (int64_t at = 0; at < first[rows->heads]; at += wave) {
        job.wave_first = at;
        job.wave_last = at + wave < first[rows->heads] ? at + wave : first[rows->heads];
        mb_cpu_run(device, job.wave_last - at, attend_piece, &job);
        mb_cpu_run(device, rows->heads * rows->panels, fold_piece, &job);
    }
    mb_cpu_run(device, rows->heads * rows->panels, finish_piece, &job);
    return want_mass ? mb_cpu_mass_run(device, args, rows, job.q, job.l) : MB_OK;
}

int mb_cpu_attend(mb_device *device, const mb_attention *args)
{
    int rc = mb_cpu_check_attention(device, "attend", args);
    if (rc != MB_OK)
        return rc;
    if (args->pages)
        return mb_cpu_fail(device, MB_E_BUG, "attend: pages belong to attend_sparse");
    if ((args->mass || args->tile_mass) && args->scope == MB_SCOPE_BLOCK)
        return mb_cpu_fail(device, MB_E_BUG, "attend: the block alone has no mass over the prefix");
    return attend_over(device, args);
}

int mb_cpu_attend_sparse(mb_device *device, const mb_attention *args)
{
    int rc = mb_cpu_check_attention(device, "attend_sparse", args);
    if (rc != MB_OK)
        return rc;
    if (!args->pages || args->pages->granularity < 1)
        return mb_cpu_fail(device, MB_E_BUG, "attend_sparse: no pages");
    if (args->mass || args->tile_mass)
        return mb_cpu_fail(device, MB_E_BUG, "attend_sparse: mass is a by-product of attend only");
    return attend_over(device, args);
}
