/*
 * mass.c - what the rows of a block pay attention to: the average mass per prefix key (arXiv 2602.14209 v2,
 * equation 5).
 *
 * The logits are recomputed chunk by chunk, because each row's normaliser is known only after a whole pass.
 * fp32, error about 1e-6 relative to the mass plus the error of the log-sum-exp. A row of weight 0 is not looked
 * at, not even for NaN; when all weights are 0 so is the mass. A KV head whose active flag is 0 keeps its mass.
 */
#include "kernels/cpu/attention.h"

typedef struct mass_job {
    mb_device *device;
    const mb_attention *args;
    const mb_cpu_rows *rows;
    const float *q, *lse;
    int64_t chunks;
} mass_job;

size_t mb_cpu_mass_scratch(const mb_cpu_rows *rows)
{
    return (size_t)(MB_KEY_CHUNK * (rows->dim + MB_PANEL + MB_LANES) + 2 * rows->padded + MB_LANES) *
           sizeof(float);
}

/* sums[j][lane] += w * exp(logit - lse) over the rows of a panel. */
static void add_mass(const float *logits, int64_t n, int64_t width, float scale, const float *w, const float *lse,
                     float *restrict sums)
{
    for (int64_t v = 0; v < width; v += MB_LANES)
        for (int64_t j = 0; j < n; j++)
            for (int i = 0; i < MB_LANES; i++) {
                float e = w[v + i] * mb_exp(logits[j * width + v + i] * scale - lse[v + i]);
                sums[j * MB_LANES + i] += w[v + i] == 0.0f ? 0.0f : e;
            }
}

/* Adds up the lanes of n keys from `first` on, and writes each key's mass and each tile's. */
static void write_mass(const mass_job *job, int64_t head, int64_t first, int64_t n, const float *sums,
                       float weight)
{
    const mb_attention *args = job->args;
    float tile = 0.0f;
    int64_t end = mb_cpu_round_up(args->rows.max_prefix, 64);
    for (int64_t j = 0; j < MB_KEY_CHUNK && first + j < end; j++) {
        float sum = 0.0f;
        for (int i = 0; j < n && i < MB_LANES; i++)
            sum += sums[j * MB_LANES + i];
        sum = weight > 0.0f ? sum / weight : 0.0f;
        if (args->mass && first + j < args->mass_stride)
            args->mass[head * args->mass_stride + first + j] = sum;
        tile += sum;
        if (j % 64 == 63) {
            int64_t t = (first + j) / 64;
            if (args->tile_mass && t < args->tile_stride)
                args->tile_mass[head * args->tile_stride + t] = tile;
            tile = 0.0f;
        }
    }
}

static void mass_piece(void *arg, int64_t index, int worker)
{
    const mass_job *job = arg;
    const mb_attention *args = job->args;
    const mb_cpu_rows *rows = job->rows;
    mb_type type = job->device->type;
    int64_t head = index / job->chunks, first = index % job->chunks * MB_KEY_CHUNK, dim = rows->dim;
    int64_t prefix = args->rows.prefix_len[head / args->kv.kv_heads];
    int64_t n = prefix - first < 0 ? 0 : prefix - first < MB_KEY_CHUNK ? prefix - first : MB_KEY_CHUNK;
    if (args->active && !args->active[head])
        return;
    float *k = job->device->private_scratch[worker], *logits = k + MB_KEY_CHUNK * dim;
    float *sums = logits + MB_KEY_CHUNK * MB_PANEL, *w = sums + MB_KEY_CHUNK * MB_LANES, *lse = w + rows->padded;
    mb_cpu_keys keys = {.picked = prefix, .total = prefix, .granularity = 1};
    float weight = mb_cpu_rows_weights(args, rows, head, w);
    memcpy(lse, job->lse + head * rows->padded, (size_t)rows->padded * sizeof(float));
    for (int64_t i = 0; i < rows->padded; i++) /* a row that saw no key has no mass to give */
        w[i] = lse[i] == -INFINITY ? 0.0f : w[i];
    memset(sums, 0, (size_t)(n * MB_LANES) * sizeof(float));
    mb_cpu_keys_load(type, &keys, mb_cpu_head_base(type, &args->kv, args->kv.k, head), dim, first, n, k);
    for (int64_t p = 0; p < rows->panels && n > 0; p++) {
        int64_t width = mb_cpu_panel_width(rows, p), row = p * MB_PANEL;
        mb_cpu_logits(rows, width, k, n, job->q + (head * rows->padded + row) * dim, logits);
        add_mass(logits, n, width, rows->scale, w + row, lse + row, sums);
    }
    write_mass(job, head, first, n, sums, weight);
}

int mb_cpu_mass_run(mb_device *device, const mb_attention *args, const mb_cpu_rows *rows, const float *q,
                    const float *lse)
{
    mass_job job = {device, args, rows, q, lse, (args->rows.max_prefix + MB_KEY_CHUNK - 1) / MB_KEY_CHUNK};
    mb_cpu_run(device, rows->heads * job.chunks, mass_piece, &job);
    return MB_OK;
}

int mb_cpu_mass(mb_device *device, const mb_attention *args)
{
    mb_cpu_rows rows;
    int rc = mb_cpu_check_attention(device, "mass", args);
    if (rc != MB_OK)
        return rc;
    if (!args->lse || (!args->mass && !args->tile_mass))
        return mb_cpu_fail(device, MB_E_BUG, "mass: it needs the log-sum-exp as input and somewhere to write");
    mb_cpu_rows_make(args, &rows);
    size_t bytes = 0;
    mb_cpu_cut(NULL, &bytes, (size_t)(rows.heads * rows.padded * rows.dim) * sizeof(float));
    mb_cpu_cut(NULL, &bytes, (size_t)(rows.heads * rows.padded) * sizeof(float));
    size_t pack = (size_t)(MB_PANEL * rows.dim) * sizeof(float), each = mb_cpu_mass_scratch(&rows);
    rc = mb_cpu_reserve(device, bytes, each > pack ? each : pack);
    if (rc != MB_OK)
        return rc;
    bytes = 0;
    float *q = mb_cpu_cut(device->shared, &bytes, (size_t)(rows.heads * rows.padded * rows.dim) * sizeof(float));
    float *lse = mb_cpu_cut(device->shared, &bytes, (size_t)(rows.heads * rows.padded) * sizeof(float));
    for (int64_t head = 0; head < rows.heads; head++)
        mb_cpu_rows_gather(args, &rows, args->lse, true, head, -INFINITY, lse + head * rows.padded);
    mb_cpu_rows_pack(device, args, &rows, q);
    return mb_cpu_mass_run(device, args, &rows, q, lse);
}
