/*
 * prefill.c - block-causal attention of many new rows: position i sees the keys below (i / block + 1) * block,
 * as far as they exist, that is below first + n.
 *
 * A piece is one KV head and a tile of consecutive positions, about 64 packed rows; it walks the keys in chunks
 * of 256 from 0 with an online softmax. Only the chunks that straddle a row's limit need the mask: keys behind
 * the limit get the logit -INFINITY. Chunks start at absolute positions and a row's arithmetic does not depend on
 * its neighbours, so cutting a prompt into other prefill calls gives the same bits.
 */
#include "kernels/cpu/attention.h"

#define TILE_ROWS 64

typedef struct prefill_job {
    mb_device *device;
    const mb_kv *kv;
    const void *q;
    void *out;
    int64_t sequence, heads, group, first, n, block, window, tile, tiles, values;
} prefill_job;

/* Keys that position first + r sees. */
static int64_t limit_of(const prefill_job *job, int64_t r)
{
    int64_t limit = ((job->first + r) / job->block + 1) * job->block;
    return limit < job->first + job->n ? limit : job->first + job->n;
}

/* The first key that position first + r sees. */
static int64_t begin_of(const prefill_job *job, int64_t r)
{
    int64_t begin = job->first + r - job->window + 1;
    return job->window > 0 && begin > 0 ? begin : 0;
}

/* One tile of positions of one KV head: its rows are (position, query head of the group) pairs. */
typedef struct tile {
    int64_t start, head, count, padded; /* first position, KV head; rows, rounded up to whole vectors */
    float *k, *v, *logits;              /* a chunk of keys [n][dim], its values in panels, logits [n][width] */
    float *q, *o, *m, *l, *old;         /* rows packed, sums of values, the softmax's state by row */
} tile;

static int64_t width_of(const tile *t, int64_t row)
{
    return t->padded - row < MB_PANEL ? t->padded - row : MB_PANEL;
}

/* First element of row i in q and out. */
static int64_t row_at(const prefill_job *job, const tile *t, int64_t i)
{
    return ((t->start + i / job->group) * job->heads + t->head * job->group + i % job->group) * job->kv->head_dim;
}

static void begin_tile(const prefill_job *job, const tile *t)
{
    int64_t dim = job->kv->head_dim;
    for (int64_t row = 0; row < t->padded; row += MB_PANEL) {
        int64_t width = width_of(t, row);
        memset(t->k, 0, (size_t)(width * dim) * sizeof(float));
        for (int64_t i = row; i < row + width && i < t->count; i++)
            mb_load_row(job->device->type, job->q, row_at(job, t, i), dim, t->k + (i - row) * dim);
        mb_cpu_transpose(t->k, dim, width, dim, t->q + row * dim, width);
    }
    memset(t->o, 0, (size_t)(t->padded * job->values) * sizeof(float));
    for (int64_t i = 0; i < t->padded; i++) {
        t->m[i] = -INFINITY;
        t->l[i] = 0.0f;
    }
}

/* A panel of rows from `row` on against the n keys from `first` on that are loaded. */
static void add_chunk(const prefill_job *job, const tile *t, int64_t row, int64_t first, int64_t n)
{
    int64_t dim = job->kv->head_dim, values = job->values, width = width_of(t, row);
    int64_t real = t->count - row < width ? t->count - row : width;
    mb_cpu_product(&(mb_cpu_factors){.m = n,
                                     .n = width,
                                     .k = dim,
                                     .a = t->k,
                                     .a_row = dim,
                                     .a_col = 1,
                                     .b = t->q + row * dim,
                                     .ldb = width,
                                     .c = t->logits,
                                     .ldc = width});
    for (int64_t i = 0; i < real; i++) {
        int64_t position = t->start + (row + i) / job->group;
        int64_t seen = limit_of(job, position) - first, begin = begin_of(job, position) - first;
        for (int64_t j = 0; j < begin && j < n; j++)
            t->logits[j * width + i] = -INFINITY;
        for (int64_t j = seen < 0 ? 0 : seen; j < n; j++)
            t->logits[j * width + i] = -INFINITY;
    }
    mb_cpu_soften(t->logits, n, width, 1.0f / sqrtf((float)dim), t->m + row, t->l + row, t->old + row);
    for (int64_t i = row; i < row + real; i++)
        for (int64_t c = 0; first > 0 && c < values; c++) /* the sums are 0 before the first chunk */
            t->o[i * values + c] *= t->old[i];
    for (int64_t c = 0; c < values; c += MB_PANEL) {
        int64_t columns = values - c < MB_PANEL ? values - c : MB_PANEL;
        mb_cpu_product(&(mb_cpu_factors){.m = real,
                                         .n = columns,
                                         .k = n,
                                         .a = t->logits,
                                         .a_row = 1,
                                         .a_col = width,
                                         .b = t->v + c * n,
                                         .ldb = columns,
                                         .c = t->o + row * values + c,
                                         .ldc = values,
                                         .accumulate = true});
    }
}

static void prefill_piece(void *arg, int64_t index, int worker)
{
    const prefill_job *job = arg;
    mb_type type = job->device->type;
    int64_t dim = job->kv->head_dim, kv_heads = job->kv->kv_heads, h = index % kv_heads, values = job->values;
    int64_t start = (job->tiles - 1 - index / kv_heads) * job->tile; /* the longest pieces first */
    int64_t positions = job->n - start < job->tile ? job->n - start : job->tile;
    int64_t most = mb_cpu_round_up(job->tile * job->group, MB_LANES), end = limit_of(job, start + positions - 1);
    tile t = {
        .start = start, .head = h, .count = positions * job->group, .k = job->device->private_scratch[worker]};
    t.padded = mb_cpu_round_up(t.count, MB_LANES);
    t.v = t.k + MB_KEY_CHUNK * dim;
    t.logits = t.v + MB_KEY_CHUNK * values;
    t.q = t.logits + MB_KEY_CHUNK * MB_PANEL;
    t.o = t.q + most * dim;
    t.m = t.o + most * values;
    t.l = t.m + most;
    t.old = t.l + most;
    const void *base_k = mb_cpu_head_base(type, job->kv, job->kv->k, job->sequence * kv_heads + h);
    const void *base_v = mb_cpu_head_base(type, job->kv, job->kv->v, job->sequence * kv_heads + h);
    mb_cpu_keys keys = {.picked = end, .total = end, .granularity = 1};
    begin_tile(job, &t);
    /* Chunks that no row of the tile sees are left out: the softmax of the first one with a key begins anew. */
    int64_t from = begin_of(job, start) / MB_KEY_CHUNK * MB_KEY_CHUNK;
    for (int64_t first = from; first < end; first += MB_KEY_CHUNK) {
        int64_t n = end - first < MB_KEY_CHUNK ? end - first : MB_KEY_CHUNK;
        mb_cpu_keys_load(type, &keys, base_k, dim, first, n, t.k);
        mb_cpu_values_load(type, &keys, base_v, dim, first, n, t.v);
        for (int64_t row = 0; row < t.padded; row += MB_PANEL)
            add_chunk(job, &t, row, first, n);
    }
    for (int64_t i = 0; i < t.count; i++) {
        float *line = t.o + i * values;
        for (int64_t c = 0; c < dim; c++)
            line[c] = t.l[i] == 0.0f ? 0.0f : line[c] / t.l[i];
        mb_store_row(type, job->out, row_at(job, &t, i), dim, line);
    }
}

int mb_cpu_attend_prefill(mb_device *device, const mb_prefill *args)
{
    const mb_kv *kv = &args->kv;
    int64_t dim = kv->head_dim, first = args->first, n = args->n;
    int32_t sequence = args->sequence, query_heads = args->query_heads, block = args->block;
    if (dim < 8 || dim > MB_CPU_MOST_DIM || dim % 8 || kv->kv_heads < 1 || query_heads < 1 ||
        query_heads % kv->kv_heads)
        return mb_cpu_fail(device, MB_E_BUG,
                           "attend_prefill: head_dim %lld, %d query heads, %d KV heads do not fit", (long long)dim,
                           query_heads, kv->kv_heads);
    if (first < 0 || n < 0 || first + n > kv->capacity || block < 1 || args->window < 0 ||
        (args->window && block > 1) || sequence < 0 || sequence >= kv->batch)
        return mb_cpu_fail(device, MB_E_BUG,
                           "attend_prefill: rows %lld .. %lld of sequence %d, block %d, on a cache "
                           "of %d x %d",
                           (long long)first, (long long)(first + n), sequence, block, kv->batch, kv->capacity);
    prefill_job job = {.device = device,
                       .kv = kv,
                       .q = args->q,
                       .out = args->out,
                       .sequence = sequence,
                       .heads = query_heads,
                       .group = query_heads / kv->kv_heads,
                       .first = first,
                       .n = n,
                       .block = block,
                       .window = args->window,
                       .values = mb_cpu_round_up(dim, MB_LANES)};
    job.tile = job.group >= TILE_ROWS ? 1 : TILE_ROWS / job.group;
    job.tiles = (n + job.tile - 1) / job.tile;
    int64_t most = mb_cpu_round_up(job.tile * job.group, MB_LANES);
    int64_t floats = MB_KEY_CHUNK * (dim + job.values + MB_PANEL) + most * (dim + job.values + 3);
    int rc = mb_cpu_reserve(device, 0, (size_t)floats * sizeof(float));
    if (rc == MB_OK)
        mb_cpu_run(device, job.tiles * kv->kv_heads, prefill_piece, &job);
    return rc;
}
