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
    int64_t sequence, heads, group, first, n, block, tile, tiles, values;
} prefill_job;

/* Keys that position first + r sees. */
static int64_t limit_of(const prefill_job *job, int64_t r)
{
    int64_t limit = ((job->first + r) / job->block + 1) * job->block;
    return limit < job->first + job->n ? limit : job->first + job->n;
}

static void prefill_piece(void *arg, int64_t index, int worker)
{
    const prefill_job *job = arg;
    mb_type type = job->device->type;
    int64_t dim = job->kv->head_dim, kv_heads = job->kv->kv_heads, h = index % kv_heads;
    int64_t start = (job->tiles - 1 - index / kv_heads) * job->tile; /* the longest pieces first */
    int64_t positions = job->n - start < job->tile ? job->n - start : job->tile;
    int64_t count = positions * job->group, padded = mb_cpu_round_up(count, MB_LANES), values = job->values;
    int64_t most = mb_cpu_round_up(job->tile * job->group, MB_LANES), end = limit_of(job, start + positions - 1);
    float *k = job->device->private_scratch[worker], *v = k + MB_KEY_CHUNK * dim;
    float *logits = v + MB_KEY_CHUNK * values, *q = logits + MB_KEY_CHUNK * MB_PANEL, *o = q + most * dim;
    float *m = o + most * values, *l = m + most, *old = l + most;
    const void *base_k = mb_cpu_head_base(type, job->kv, job->kv->k, job->sequence * kv_heads + h);
    const void *base_v = mb_cpu_head_base(type, job->kv, job->kv->v, job->sequence * kv_heads + h);
    mb_cpu_keys keys = {.picked = end, .total = end, .granularity = 1};
    float scale = 1.0f / sqrtf((float)dim);
    for (int64_t row = 0; row < padded; row += MB_PANEL) {
        int64_t width = padded - row < MB_PANEL ? padded - row : MB_PANEL;
        memset(k, 0, (size_t)(width * dim) * sizeof(float));
        for (int64_t i = row; i < row + width && i < count; i++)
            mb_load_row(type, job->q,
                        ((start + i / job->group) * job->heads + h * job->group + i % job->group) * dim, dim,
                        k + (i - row) * dim);
        mb_cpu_transpose(k, dim, width, dim, q + row * dim, width);
    }
    memset(o, 0, (size_t)(padded * values) * sizeof(float));
    for (int64_t i = 0; i < padded; i++) {
        m[i] = -INFINITY;
        l[i] = 0.0f;
    }
    for (int64_t first = 0; first < end; first += MB_KEY_CHUNK) {
        int64_t n = end - first < MB_KEY_CHUNK ? end - first : MB_KEY_CHUNK;
        mb_cpu_keys_load(type, &keys, base_k, dim, first, n, 0, dim, k);
        mb_cpu_values_load(type, &keys, base_v, dim, first, n, v);
        for (int64_t row = 0; row < padded; row += MB_PANEL) {
            int64_t width = padded - row < MB_PANEL ? padded - row : MB_PANEL;
            int64_t real = count - row < width ? count - row : width;
            mb_cpu_product(n, width, dim, k, dim, 1, q + row * dim, width, logits, width, false);
            for (int64_t i = 0; i < real; i++) {
                int64_t seen = limit_of(job, start + (row + i) / job->group) - first;
                for (int64_t j = seen < 0 ? 0 : seen; j < n; j++)
                    logits[j * width + i] = -INFINITY;
            }
            mb_cpu_soften(logits, n, width, scale, m + row, l + row, old + row);
            for (int64_t i = row; i < row + real; i++)
                for (int64_t c = 0; first > 0 && c < values; c++)
                    o[i * values + c] *= old[i];
            for (int64_t c = 0; c < values; c += MB_PANEL) {
                int64_t columns = values - c < MB_PANEL ? values - c : MB_PANEL;
                mb_cpu_product(real, columns, n, logits, 1, width, v + c * n, columns, o + row * values + c,
                               values, true);
            }
        }
    }
    for (int64_t i = 0; i < count; i++) {
        float *line = o + i * values;
        for (int64_t c = 0; c < dim; c++)
            line[c] = l[i] == 0.0f ? 0.0f : line[c] / l[i];
        mb_store_row(type, job->out,
                     ((start + i / job->group) * job->heads + h * job->group + i % job->group) * dim, dim, line);
    }
}

int mb_cpu_attend_prefill(mb_device *device, const mb_prefill *args)
{
    const mb_kv *kv = &args->kv;
    int64_t dim = kv->head_dim, first = args->first, n = args->n;
    int32_t sequence = args->sequence, query_heads = args->query_heads, block = args->block;
    if (dim < 8 || dim > 256 || dim % 8 || kv->kv_heads < 1 || query_heads < 1 || query_heads % kv->kv_heads)
        return mb_cpu_fail(device, MB_E_BUG,
                           "attend_prefill: head_dim %lld, %d query heads, %d KV heads do not fit", (long long)dim,
                           query_heads, kv->kv_heads);
    if (first < 0 || n < 0 || first + n > kv->capacity || block < 1 || sequence < 0 || sequence >= kv->batch)
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
