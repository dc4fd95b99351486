/*
 * votes.c - votes of query rows (arXiv 2602.14209 v1, algorithm 1): every query row names its best k prefix
 * keys; how often was each key named, how many were named at all, and how much softmax mass do they hold together.
 *
 * One KV head at a time: (1) logits of all rows, row by row in the caller's scratch, pieces of 256 keys; (2) each
 * row's cut line, by radix selection; (3) counts and mass, pieces of 256 keys again, added up in order. A row
 * names keys by fp32 logits: keys whose logits agree to 1e-6 may swap against another implementation. row_weight
 * is not used. A KV head whose active flag is 0 keeps votes and stats as they were.
 */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/select.h"

typedef struct votes_job {
    mb_device *device;
    const mb_attention *args;
    mb_cpu_rows rows;
    int64_t head, prefix, stride, k, end; /* stride: of a logits row; end: entries of votes that are written */
    const float *q;
    float *logits, *lse;    /* [count][stride], [padded] */
    mb_cpu_cut_line *lines; /* [count] */
    bool *any;              /* [count]: the row named something */
    double *partial;        /* [chunks][2]: union, mass */
    float *votes;
} votes_job;

static void logits_piece(void *arg, int64_t chunk, int worker)
{
    const votes_job *job = arg;
    const mb_cpu_rows *rows = &job->rows;
    mb_type type = job->device->type;
    int64_t first = chunk * MB_KEY_CHUNK, dim = rows->dim;
    int64_t n = job->prefix - first < MB_KEY_CHUNK ? job->prefix - first : MB_KEY_CHUNK;
    float *k = job->device->private_scratch[worker], *logits = k + MB_KEY_CHUNK * dim;
    mb_cpu_keys keys = {.picked = job->prefix, .total = job->prefix, .granularity = 1};
    mb_cpu_keys_load(type, &keys, mb_cpu_head_base(type, &job->args->kv, job->args->kv.k, job->head), dim, first,
                     n, k);
    for (int64_t p = 0; p < rows->panels; p++) {
        int64_t width = mb_cpu_panel_width(rows, p), row = p * MB_PANEL;
        int64_t real = rows->count - row < width ? rows->count - row : width;
        mb_cpu_logits(rows, width, k, n, job->q + (job->head * rows->padded + row) * dim, logits);
        mb_cpu_transpose(logits, width, n, real, job->logits + row * job->stride + first, job->stride);
    }
}

static void line_piece(void *arg, int64_t row, int worker)
{
    const votes_job *job = arg;
    const float *logits = job->logits + row * job->stride;
    uint32_t *keys = job->device->private_scratch[worker];
    for (int64_t j = 0; j < job->prefix; j++)
        keys[j] = mb_cpu_key_of(logits[j]);
    job->any[row] = job->k > 0 && mb_cpu_cut_find(keys, job->prefix, job->k, &job->lines[row]);
}

static void count_piece(void *arg, int64_t chunk, int worker)
{
    const votes_job *job = arg;
    int64_t first = chunk * MB_KEY_CHUNK;
    int64_t last = first + MB_KEY_CHUNK < job->end ? first + MB_KEY_CHUNK : job->end;
    double named = 0.0, mass = 0.0;
    (void)worker;
    for (int64_t j = first; j < last; j++)
        job->votes[j] = 0.0f;
    last = last < job->prefix ? last : job->prefix;
    for (int64_t row = 0; row < job->rows.count; row++) {
        const float *logits = job->logits + row * job->stride;
        for (int64_t j = first; job->any[row] && j < last; j++)
            job->votes[j] += mb_cpu_cut_above(&job->lines[row], mb_cpu_key_of(logits[j]), j) ? 1.0f : 0.0f;
    }
    for (int64_t j = first; j < last; j++)
        named += job->votes[j] > 0.0f ? 1.0 : 0.0;
    for (int64_t row = 0; row < job->rows.count; row++) {
        const float *logits = job->logits + row * job->stride;
        float lse = job->lse[row];
        for (int64_t j = first; j < last; j++)
            if (job->votes[j] > 0.0f)
                mass += (double)mb_exp(logits[j] * job->rows.scale - lse);
    }
    job->partial[2 * chunk] = named;
    job->partial[2 * chunk + 1] = mass;
}

/* Cuts the caller's scratch; with base NULL it counts. Sized by the bound max_prefix, not by what is there. */
static size_t cut_scratch(const mb_attention *args, votes_job *job, void *base)
{
    size_t used = 0;
    int64_t stride = mb_cpu_round_up(args->rows.max_prefix, 64), count = job->rows.count;
    job->stride = stride;
    job->logits = mb_cpu_cut(base, &used, (size_t)(count * stride) * sizeof(float));
    job->lse = mb_cpu_cut(base, &used, (size_t)job->rows.padded * sizeof(float));
    job->lines = mb_cpu_cut(base, &used, (size_t)count * sizeof *job->lines);
    job->any = mb_cpu_cut(base, &used, (size_t)count * sizeof *job->any);
    job->partial = mb_cpu_cut(base, &used, (size_t)(stride / MB_KEY_CHUNK + 1) * 2 * sizeof(double));
    return used;
}

size_t mb_cpu_votes_scratch(const mb_attention *args, int32_t k)
{
    votes_job job;
    (void)k;
    mb_cpu_rows_make(args, &job.rows);
    return cut_scratch(args, &job, NULL);
}

int mb_cpu_votes(mb_device *device, const mb_votes *call)
{
    const mb_attention *args = &call->attention;
    votes_job job = {.device = device, .args = args, .k = call->k};
    int rc = mb_cpu_check_attention(device, "votes", args);
    if (rc != MB_OK)
        return rc;
    if (!args->lse || args->mass_stride < args->rows.max_prefix)
        return mb_cpu_fail(device, MB_E_BUG,
                           "votes: it needs the log-sum-exp as input and rows of %d entries "
                           "(mass_stride %lld)",
                           args->rows.max_prefix, (long long)args->mass_stride);
    mb_cpu_rows_make(args, &job.rows);
    const mb_cpu_rows *rows = &job.rows;
    cut_scratch(args, &job, call->scratch);
    job.end = job.stride < args->mass_stride ? job.stride : args->mass_stride;
    size_t each = (size_t)(MB_KEY_CHUNK * (rows->dim + MB_PANEL)) * sizeof(float);
    each = each > (size_t)job.stride * 4 ? each : (size_t)job.stride * 4;
    rc = mb_cpu_reserve(device, (size_t)(rows->heads * rows->padded * rows->dim) * sizeof(float), each);
    if (rc != MB_OK)
        return rc;
    job.q = device->shared;
    mb_cpu_rows_pack(device, args, rows, device->shared);
    for (int64_t head = 0; head < rows->heads; head++) {
        double named = 0.0, mass = 0.0;
        if (args->active && !args->active[head])
            continue;
        job.head = head;
        job.prefix = args->rows.prefix_len[head / args->kv.kv_heads];
        job.votes = call->votes + head * args->mass_stride;
        mb_cpu_rows_gather(args, rows, args->lse, true, head, 0.0f, job.lse);
        mb_cpu_run(device, (job.prefix + MB_KEY_CHUNK - 1) / MB_KEY_CHUNK, logits_piece, &job);
        mb_cpu_run(device, rows->count, line_piece, &job);
        int64_t chunks = (job.end + MB_KEY_CHUNK - 1) / MB_KEY_CHUNK;
        mb_cpu_run(device, chunks, count_piece, &job);
        for (int64_t c = 0; c < chunks; c++) {
            named += job.partial[2 * c];
            mass += job.partial[2 * c + 1];
        }
        call->stats[2 * head] = (float)named;
        call->stats[2 * head + 1] = (float)(mass / (double)rows->count);
    }
    return MB_OK;
}
