/*
 * pages.c - scores of keys and pages that need no softmax: page bounds and their upper bounds of q.k (arXiv
 * 2406.10774, section 3; how the rows of a block share them is ours), and plain mean logits over chosen channels.
 *
 * ub = sum_c max(q_c M_c, q_c m_c) = q+ . M - q- . m with q+ = max(q, 0), q- = max(-q, 0): a product of
 * [q+, -q-] with [M; m], exactly. It is linear in (q+, q-), so the mean over rows is the bound of the mean
 * (q+, q-), one row instead of R. fp32; error about 2 * head_dim * 2^-24 relative to sum |q||bound|. A KV head
 * whose active flag is 0 keeps its scores. When all row weights are 0 the scores are 0.
 */
#include "kernels/cpu/attention.h"

#define PAGE_CHUNK 128 /* pages of a piece */

typedef struct bounds_job {
    mb_device *device;
    const mb_page_bounds *args;
    int64_t chunks;
} bounds_job;

static void bounds_piece(void *arg, int64_t index, int worker)
{
    const bounds_job *job = arg;
    const mb_page_bounds *args = job->args;
    const mb_kv *kv = &args->kv;
    mb_type type = job->device->type;
    int64_t head = index / job->chunks, chunk = index % job->chunks, dim = kv->head_dim, page = args->page;
    int64_t prefix = args->rows.prefix_len[head / kv->kv_heads];
    int64_t end = args->whole ? prefix : prefix + args->rows.block_keys;
    int64_t first = args->whole ? 0 : prefix / page, last = (end + page - 1) / page;
    const void *base = mb_cpu_head_base(type, kv, kv->k, head);
    float most[MB_CPU_MOST_DIM], least[MB_CPU_MOST_DIM], key[MB_CPU_MOST_DIM];
    (void)worker;
    first += chunk * PAGE_CHUNK;
    last = last < first + PAGE_CHUNK ? last : first + PAGE_CHUNK;
    last = last < args->page_capacity ? last : args->page_capacity;
    for (int64_t p = first; p < last; p++) {
        int64_t stop = (p + 1) * page < end ? (p + 1) * page : end;
        for (int64_t c = 0; c < dim; c++) {
            most[c] = -INFINITY;
            least[c] = INFINITY;
        }
        for (int64_t j = p * page; j < stop; j++) {
            mb_load_row(type, base, j * dim, dim, key);
            for (int64_t c = 0; c < dim; c++) {
                most[c] = key[c] > most[c] ? key[c] : most[c];
                least[c] = key[c] < least[c] ? key[c] : least[c];
            }
        }
        int64_t at = (head * args->page_capacity + p) * 2 * dim;
        mb_store_row(type, args->bounds, at, dim, most);
        mb_store_row(type, args->bounds, at + dim, dim, least);
    }
}

int mb_cpu_page_bounds(mb_device *device, const mb_page_bounds *args)
{
    const mb_rows *rows = &args->rows;
    int32_t page = args->page;
    if (page < 1 || args->kv.head_dim < 1 || args->kv.head_dim > MB_CPU_MOST_DIM)
        return mb_cpu_fail(device, MB_E_BUG, "page_bounds: page %d, head_dim %d", page, args->kv.head_dim);
    int64_t pages = args->whole ? (rows->max_prefix + page - 1) / page : rows->block_keys / page + 2;
    bounds_job job = {device, args, (pages + PAGE_CHUNK - 1) / PAGE_CHUNK};
    mb_cpu_run(device, (int64_t)rows->batch * args->kv.kv_heads * job.chunks, bounds_piece, &job);
    return MB_OK;
}

typedef struct score_job {
    mb_device *device;
    const mb_attention *args;
    mb_cpu_rows rows;
    int32_t page, page_capacity, channel_count;
    const int32_t *channels;
    const void *bounds;
    mb_merge merge;
    float *scores;
    int64_t stride, entries, chunks; /* entries written of each row; pieces of a row */
    int64_t wide;                    /* length of a query vector here: dim, or 2 * dim split by sign */
    float *mean;                     /* [heads][wide]: weighted mean query */
    float *weights;                  /* [heads][padded] */
    float *sums;                     /* [heads]: sum of weights */
    float *q;                        /* [heads][padded * wide] packed in panels: MAX and SOFTMAX */
    float *row_m, *row_l;            /* [heads][chunks][padded], SOFTMAX */
    float *row_lse;                  /* [heads][padded] */
} score_job;

/* One row's query vector, split by sign when wide is 2 * dim: [q+, -q-]. */
static void split_row(const score_job *job, int64_t head, int64_t i, float *to)
{
    const mb_attention *args = job->args;
    int64_t dim = job->rows.dim, group = job->rows.group;
    int64_t b = head / args->kv.kv_heads, h = head % args->kv.kv_heads;
    int64_t at = (b * args->rows.rows + i / group) * args->query_heads + h * group + i % group;
    mb_load_row(job->device->type, args->q, at * dim, dim, to);
    for (int64_t c = 0; job->wide > dim && c < dim; c++) {
        to[dim + c] = to[c] < 0.0f ? to[c] : 0.0f;
        to[c] = to[c] < 0.0f ? 0.0f : to[c];
    }
}

/* Per head: weights, and either the weighted mean query or all rows packed. */
static void prepare_piece(void *arg, int64_t head, int worker)
{
    const score_job *job = arg;
    const mb_cpu_rows *rows = &job->rows;
    int64_t wide = job->wide, dim = rows->dim;
    float *lines = job->device->private_scratch[worker], *w = job->weights + head * rows->padded;
    float *mean = job->mean + head * wide;
    float sum = job->sums[head] = mb_cpu_rows_weights(job->args, rows, head, w);
    bool packed = job->merge == MB_MERGE_MAX || job->merge == MB_MERGE_SOFTMAX;
    for (int64_t p = 0; packed && p < rows->panels; p++) {
        int64_t width = mb_cpu_panel_width(rows, p), row = p * MB_PANEL;
        memset(lines, 0, (size_t)(width * wide) * sizeof(float));
        for (int64_t i = row; i < row + width && i < rows->count; i++)
            if (w[i] != 0.0f)
                split_row(job, head, i, lines + (i - row) * wide);
        mb_cpu_transpose(lines, wide, width, wide, job->q + (head * rows->padded + row) * wide, width);
    }
    memset(mean, 0, (size_t)wide * sizeof(float));
    for (int64_t i = 0; !packed && i < rows->count; i++) {
        if (w[i] == 0.0f)
            continue;
        split_row(job, head, i, lines);
        for (int64_t c = 0; c < wide; c++)
            mean[c] += w[i] * lines[c];
    }
    for (int64_t c = 0; c < wide; c++)
        mean[c] = sum > 0.0f ? mean[c] / sum : 0.0f;
    for (int64_t c = 0; job->merge == MB_MERGE_QUERY && wide > dim && c < dim; c++) {
        float q = mean[c] + mean[dim + c]; /* the mean query itself, split again */
        mean[c] = q < 0.0f ? 0.0f : q;
        mean[dim + c] = q < 0.0f ? q : 0.0f;
    }
}

static int64_t pages_of(const score_job *job, int64_t head)
{
    int64_t pages = (job->args->rows.prefix_len[head / job->args->kv.kv_heads] + job->page - 1) / job->page;
    return pages < job->entries ? pages : job->entries;
}

/* logits[n][width] = bounds[n][wide] . q of one panel. */
static void bound_logits(const score_job *job, int64_t width, const float *bounds, int64_t n, const float *q,
                         float *logits)
{
    mb_cpu_product(&(mb_cpu_factors){.m = n,
                                     .n = width,
                                     .k = job->wide,
                                     .a = bounds,
                                     .a_row = job->wide,
                                     .a_col = 1,
                                     .b = q,
                                     .ldb = width,
                                     .c = logits,
                                     .ldc = width});
}

/* MERGE_SOFTMAX, first pass: maximum and sum of exp(scale * bound) of every row over a chunk of pages. */
static void normaliser_piece(void *arg, int64_t index, int worker)
{
    const score_job *job = arg;
    const mb_cpu_rows *rows = &job->rows;
    int64_t head = index / job->chunks, first = index % job->chunks * PAGE_CHUNK, wide = job->wide;
    int64_t n = pages_of(job, head) - first;
    float *bounds = job->device->private_scratch[worker], *logits = bounds + PAGE_CHUNK * wide;
    float *m = job->row_m + index * rows->padded, *l = job->row_l + index * rows->padded;
    n = n < 0 ? 0 : n < PAGE_CHUNK ? n : PAGE_CHUNK;
    mb_load_row(job->device->type, job->bounds, (head * job->page_capacity + first) * wide, n * wide, bounds);
    for (int64_t p = 0; p < rows->panels; p++) {
        int64_t width = mb_cpu_panel_width(rows, p), row = p * MB_PANEL;
        bound_logits(job, width, bounds, n, job->q + (head * rows->padded + row) * wide, logits);
        for (int64_t i = 0; i < width; i++) {
            m[row + i] = -INFINITY;
            l[row + i] = 0.0f;
        }
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < width; i++) {
                float s = rows->scale * logits[j * width + i];
                m[row + i] = s > m[row + i] ? s : m[row + i];
            }
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < width; i++)
                l[row + i] += mb_exp(rows->scale * logits[j * width + i] - m[row + i]);
    }
}

static void fold_normalisers(void *arg, int64_t head, int worker)
{
    const score_job *job = arg;
    const mb_cpu_rows *rows = &job->rows;
    (void)worker;
    for (int64_t i = 0; i < rows->padded; i++) {
        float m = -INFINITY, l = 0.0f;
        for (int64_t c = 0; c < job->chunks; c++) {
            float chunk = job->row_m[(head * job->chunks + c) * rows->padded + i];
            m = chunk > m ? chunk : m;
        }
        for (int64_t c = 0; c < job->chunks; c++) {
            int64_t at = (head * job->chunks + c) * rows->padded + i;
            if (job->row_m[at] != -INFINITY)
                l += job->row_l[at] * mb_exp(job->row_m[at] - m);
        }
        job->row_lse[head * rows->padded + i] = m + logf(l);
    }
}

/* Folds one panel of rows into the scores: logits [n][width], w and lse of the panel's first row. */
static void merge_panel(const score_job *job, const float *logits, int64_t n, int64_t width, const float *w,
                        const float *lse, float *to)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < width; i++) {
            float s = logits[j * width + i];
            if (w[i] == 0.0f)
                continue;
            if (job->merge == MB_MERGE_MAX)
                to[j] = s > to[j] ? s : to[j];
            else
                to[j] += w[i] * mb_exp(job->rows.scale * s - lse[i]);
        }
}

/* The merged score of n pages whose bounds are in `bounds`. */
static void merge_pages(const score_job *job, int64_t head, const float *bounds, int64_t n, float *logits,
                        float *to)
{
    const mb_cpu_rows *rows = &job->rows;
    const float *w = job->weights + head * rows->padded, *lse = job->row_lse + head * rows->padded;
    int64_t wide = job->wide;
    if (job->merge == MB_MERGE_MEAN || job->merge == MB_MERGE_QUERY || !(job->sums[head] > 0.0f)) {
        for (int64_t j = 0; j < n; j++)
            to[j] = job->sums[head] > 0.0f ? mb_cpu_dot(bounds + j * wide, job->mean + head * wide, wide) : 0.0f;
        return;
    }
    for (int64_t j = 0; j < n; j++)
        to[j] = job->merge == MB_MERGE_MAX ? -INFINITY : 0.0f;
    for (int64_t p = 0; p < rows->panels; p++) {
        int64_t width = mb_cpu_panel_width(rows, p), row = p * MB_PANEL;
        bound_logits(job, width, bounds, n, job->q + (head * rows->padded + row) * wide, logits);
        merge_panel(job, logits, n, width, w + row, lse + row, to);
    }
    for (int64_t j = 0; job->merge == MB_MERGE_SOFTMAX && j < n; j++)
        to[j] /= job->sums[head];
}

static void page_scores_piece(void *arg, int64_t index, int worker)
{
    const score_job *job = arg;
    int64_t head = index / job->chunks, first = index % job->chunks * PAGE_CHUNK, wide = job->wide;
    int64_t pages = pages_of(job, head),
            last = first + PAGE_CHUNK < job->entries ? first + PAGE_CHUNK : job->entries;
    int64_t n = pages - first < 0 ? 0 : pages - first < last - first ? pages - first : last - first;
    float *bounds = job->device->private_scratch[worker], *logits = bounds + PAGE_CHUNK * wide;
    float *to = job->scores + head * job->stride + first;
    if (job->args->active && !job->args->active[head])
        return;
    mb_load_row(job->device->type, job->bounds, (head * job->page_capacity + first) * wide, n * wide, bounds);
    merge_pages(job, head, bounds, n, logits, to);
    for (int64_t j = n; j < last - first; j++)
        to[j] = -INFINITY;
}

/* Cuts the shared scratch of a score job, twice as everywhere: counting, then for real. */
static int score_begin(score_job *job, bool packed, size_t each)
{
    mb_cpu_rows *rows = &job->rows;
    void *base = NULL;
    size_t states = (size_t)(rows->heads * rows->padded);
    for (int pass = 0; pass < 2; pass++) {
        size_t used = 0, chunk_rows = packed ? states * (size_t)job->chunks : 0;
        job->mean = mb_cpu_cut(base, &used, (size_t)(rows->heads * job->wide) * sizeof(float));
        job->sums = mb_cpu_cut(base, &used, (size_t)rows->heads * sizeof(float));
        job->weights = mb_cpu_cut(base, &used, states * sizeof(float));
        job->row_lse = mb_cpu_cut(base, &used, states * sizeof(float));
        job->q = mb_cpu_cut(base, &used, packed ? states * (size_t)job->wide * sizeof(float) : 0);
        job->row_m = mb_cpu_cut(base, &used, chunk_rows * sizeof(float));
        job->row_l = mb_cpu_cut(base, &used, chunk_rows * sizeof(float));
        int rc = pass == 0 ? mb_cpu_reserve(job->device, used, each) : MB_OK;
        if (rc != MB_OK)
            return rc;
        base = job->device->shared;
    }
    mb_cpu_run(job->device, rows->heads, prepare_piece, job);
    return MB_OK;
}

int mb_cpu_page_scores(mb_device *device, const mb_page_scores *call)
{
    const mb_attention *args = &call->attention;
    int32_t page = call->page;
    mb_merge merge = call->merge;
    score_job job = {.device = device,
                     .args = args,
                     .page = page,
                     .page_capacity = call->page_capacity,
                     .bounds = call->bounds,
                     .merge = merge,
                     .scores = call->scores,
                     .stride = call->stride};
    int rc = mb_cpu_check_attention(device, "page_scores", args);
    if (rc != MB_OK)
        return rc;
    if (page < 1)
        return mb_cpu_fail(device, MB_E_BUG, "page_scores: page %d", page);
    mb_cpu_rows_make(args, &job.rows);
    job.wide = 2 * job.rows.dim;
    job.entries = (args->rows.max_prefix + page - 1) / page;
    job.entries = job.entries < job.page_capacity ? job.entries : job.page_capacity;
    job.entries = job.entries < job.stride ? job.entries : job.stride;
    job.chunks = (job.entries + PAGE_CHUNK - 1) / PAGE_CHUNK;
    bool packed = merge == MB_MERGE_MAX || merge == MB_MERGE_SOFTMAX;
    rc = score_begin(&job, packed,
                     (size_t)((PAGE_CHUNK + MB_PANEL) * job.wide + PAGE_CHUNK * MB_PANEL) * sizeof(float));
    if (rc != MB_OK)
        return rc;
    if (merge == MB_MERGE_SOFTMAX) {
        mb_cpu_run(device, job.rows.heads * job.chunks, normaliser_piece, &job);
        mb_cpu_run(device, job.rows.heads, fold_normalisers, &job);
    }
    mb_cpu_run(device, job.rows.heads * job.chunks, page_scores_piece, &job);
    return MB_OK;
}

/* mean_r q_r . k = (mean_r q_r) . k, over all channels or the listed ones; behind the prefix -INFINITY. */
static void key_scores_piece(void *arg, int64_t index, int worker)
{
    const score_job *job = arg;
    mb_type type = job->device->type;
    int64_t head = index / job->chunks, first = index % job->chunks * MB_KEY_CHUNK, dim = job->rows.dim;
    int64_t h = head % job->args->kv.kv_heads, prefix = job->args->rows.prefix_len[head / job->args->kv.kv_heads];
    int64_t last = first + MB_KEY_CHUNK < job->entries ? first + MB_KEY_CHUNK : job->entries;
    const void *base = mb_cpu_head_base(type, &job->args->kv, job->args->kv.k, head);
    float mask[MB_CPU_MOST_DIM] = {0}, key[MB_CPU_MOST_DIM];
    (void)worker;
    if (job->args->active && !job->args->active[head])
        return;
    for (int32_t c = 0; job->channels && c < job->channel_count; c++)
        mask[job->channels[h * job->channel_count + c]] = 1.0f;
    for (int64_t c = 0; c < dim; c++)
        mask[c] = job->channels && mask[c] == 0.0f ? 0.0f : job->mean[head * dim + c];
    for (int64_t j = first; j < last; j++) {
        float *to = &job->scores[head * job->stride + j];
        *to = -INFINITY;
        if (j < prefix) {
            mb_load_row(type, base, j * dim, dim, key);
            *to = mb_cpu_dot(key, mask, dim);
        }
    }
}

int mb_cpu_key_scores(mb_device *device, const mb_key_scores *call)
{
    const mb_attention *args = &call->attention;
    const int32_t *channels = call->channels;
    score_job job = {.device = device,
                     .args = args,
                     .channels = channels,
                     .channel_count = call->channel_count,
                     .merge = MB_MERGE_QUERY,
                     .scores = call->scores,
                     .stride = call->stride};
    int rc = mb_cpu_check_attention(device, "key_scores", args);
    if (rc != MB_OK)
        return rc;
    mb_cpu_rows_make(args, &job.rows);
    for (int64_t c = 0; channels && c < (int64_t)args->kv.kv_heads * call->channel_count; c++)
        if (channels[c] < 0 || channels[c] >= args->kv.head_dim)
            return mb_cpu_fail(device, MB_E_BUG, "key_scores: channel %d of %d", channels[c], args->kv.head_dim);
    job.wide = job.rows.dim;
    job.entries = mb_cpu_round_up(args->rows.max_prefix, 64);
    job.entries = job.entries < job.stride ? job.entries : job.stride;
    job.chunks = (job.entries + MB_KEY_CHUNK - 1) / MB_KEY_CHUNK;
    rc = score_begin(&job, false, (size_t)(MB_PANEL * job.wide) * sizeof(float));
    if (rc == MB_OK)
        mb_cpu_run(device, job.rows.heads * job.chunks, key_scores_piece, &job);
    return rc;
}
