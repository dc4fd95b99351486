/*
 * estimate.c - choosing keys by less than their whole attention (kernels/estimate.h): few channels and few bits of
 * queries and keys, the maximum of a tile of keys, scores of pages for tokens, ranks in place of scores. A piece
 * is one KV head of a sequence or one sequence, so the result does not depend on the number of threads.
 */
#include "kernels/cpu/attention.h"

enum { MOST_DIM = MB_CPU_MOST_DIM };

/* ---- few channels, few bits ---- */

/* row[dim]: values outside channels[count] become 0; the others, with bits, one of 2^bits levels. */
static void pick(const int32_t *channels, int32_t count, int32_t bits, int64_t dim, float *row)
{
    float kept[MOST_DIM], least = INFINITY, most = -INFINITY;
    for (int32_t i = 0; i < count; i++) {
        float x = kept[i] = row[channels ? channels[i] : i];
        least = x < least ? x : least;
        most = x > most ? x : most;
    }
    float levels = (float)((1 << bits) - 1), step = bits > 0 && most > least ? levels / (most - least) : 1.0f;
    for (int64_t c = 0; c < dim; c++)
        row[c] = 0.0f;
    for (int32_t i = 0; i < count; i++) {
        float level = rintf((kept[i] - least) * step);
        level = level > levels ? levels : level;
        row[channels ? channels[i] : i] = bits > 0 ? level / step + least : kept[i];
    }
}

/* The `count` channels with the largest sum of |q_c| over the rows of a KV head, ascending. */
static void largest_channels(const mb_device *device, const mb_query_pick *args, int64_t bh, int32_t *channels)
{
    const mb_row_shape *s = &args->shape;
    int64_t dim = s->head_dim, group = s->query_heads / s->kv_heads, b = bh / s->kv_heads, h = bh % s->kv_heads;
    double sums[MOST_DIM] = {0};
    float row[MOST_DIM];
    for (int64_t i = 0; i < s->rows * group; i++) {
        int64_t at = (b * s->rows + i / group) * s->query_heads + h * group + i % group;
        mb_load_row(device->type, args->q, at * dim, dim, row);
        for (int64_t c = 0; c < dim; c++)
            sums[c] += (double)fabsf(row[c]);
    }
    for (int32_t c = 0, found = 0; c < dim && found < args->count; c++) {
        int64_t ahead = 0;
        for (int64_t d = 0; d < dim; d++)
            ahead += sums[d] > sums[c] || (sums[d] == sums[c] && d < c);
        if (ahead < args->count)
            channels[found++] = c;
    }
}

typedef struct pick_job {
    mb_device *device;
    const mb_query_pick *queries;
    const mb_key_pick *keys;
} pick_job;

static void query_piece(void *arg, int64_t bh, int worker)
{
    const pick_job *job = arg;
    const mb_query_pick *args = job->queries;
    const mb_row_shape *s = &args->shape;
    int64_t dim = s->head_dim, group = s->query_heads / s->kv_heads, b = bh / s->kv_heads, h = bh % s->kv_heads;
    int32_t own[MOST_DIM] = {0};
    const int32_t *channels = args->channels ? args->channels + h * args->count : own;
    float row[MOST_DIM];
    (void)worker;
    if (!args->channels)
        largest_channels(job->device, args, bh, own);
    for (int64_t i = 0; i < s->rows * group; i++) {
        int64_t at = (b * s->rows + i / group) * s->query_heads + h * group + i % group;
        mb_load_row(job->device->type, args->q, at * dim, dim, row);
        pick(channels, args->count, args->bits, dim, row);
        mb_store_row(job->device->type, args->out, at * dim, dim, row);
    }
}

static bool can_pick(int32_t count, int32_t bits, int32_t dim)
{
    return dim <= MOST_DIM && count >= 1 && count <= dim && bits >= 0 && bits <= 8;
}

int mb_cpu_query_pick(mb_device *device, const mb_query_pick *args)
{
    const mb_row_shape *s = &args->shape;
    pick_job job = {.device = device, .queries = args};
    if (!can_pick(args->count, args->bits, s->head_dim) || args->out == args->q)
        return mb_cpu_fail(device, MB_E_BUG, "query_pick: %d of %d channels, %d bits", args->count, s->head_dim,
                           args->bits);
    mb_cpu_run(device, (int64_t)s->batch * s->kv_heads, query_piece, &job);
    return MB_OK;
}

static void key_piece(void *arg, int64_t bh, int worker)
{
    const pick_job *job = arg;
    const mb_key_pick *args = job->keys;
    const mb_kv *kv = &args->kv;
    int64_t dim = kv->head_dim, prefix = args->rows.prefix_len[bh / kv->kv_heads];
    int64_t first = args->whole ? 0 : prefix, last = args->whole ? prefix : prefix + args->rows.block_keys;
    const int32_t *channels = args->channels ? args->channels + bh % kv->kv_heads * args->count : NULL;
    float row[MOST_DIM];
    (void)worker;
    for (int64_t j = first; j < last && j < kv->capacity; j++) {
        mb_load_row(job->device->type, kv->k, (bh * kv->capacity + j) * dim, dim, row);
        pick(channels, channels ? args->count : kv->head_dim, args->bits, dim, row);
        mb_store_row(job->device->type, args->out, (bh * kv->capacity + j) * dim, dim, row);
    }
}

int mb_cpu_key_pick(mb_device *device, const mb_key_pick *args)
{
    const mb_kv *kv = &args->kv;
    pick_job job = {.device = device, .keys = args};
    if (!can_pick(args->channels ? args->count : kv->head_dim, args->bits, kv->head_dim) || args->out == kv->k)
        return mb_cpu_fail(device, MB_E_BUG, "key_pick: %d of %d channels, %d bits", args->count, kv->head_dim,
                           args->bits);
    mb_cpu_run(device, (int64_t)args->rows.batch * kv->kv_heads, key_piece, &job);
    return MB_OK;
}

/* ---- tiles ---- */

typedef struct gaps_job {
    mb_device *device;
    const mb_tile_gaps *args;
} gaps_job;

/* The row's best logit of each tile goes to scratch; then gaps[t] = max(gaps[t], m[t] - max of m[0..t]). */
static void gap_row(const gaps_job *job, int64_t bh, const float *query, float *best)
{
    const mb_tile_gaps *args = job->args;
    const mb_kv *kv = &args->attention.kv;
    int64_t dim = kv->head_dim, n = args->attention.rows.prefix_len[bh / kv->kv_heads];
    float key[MOST_DIM], scale = 1.0f / sqrtf((float)dim), running = -INFINITY;
    for (int64_t t = 0; t * args->page < n; t++) {
        int64_t last = (t + 1) * args->page < n ? (t + 1) * args->page : n;
        best[t] = -INFINITY;
        for (int64_t j = t * args->page; j < last; j++) {
            mb_load_row(job->device->type, kv->k, (bh * kv->capacity + j) * dim, dim, key);
            float s = scale * mb_cpu_dot(query, key, dim);
            best[t] = s > best[t] ? s : best[t];
        }
        running = best[t] > running ? best[t] : running;
        float gap = best[t] - running, *to = args->gaps + bh * args->stride + t;
        *to = gap > *to ? gap : *to;
    }
}

static void gaps_piece(void *arg, int64_t bh, int worker)
{
    const gaps_job *job = arg;
    const mb_tile_gaps *args = job->args;
    const mb_attention *a = &args->attention;
    int64_t dim = a->kv.head_dim, group = a->query_heads / a->kv.kv_heads, b = bh / a->kv.kv_heads;
    int64_t tiles = ((int64_t)a->rows.max_prefix + args->page - 1) / args->page, h = bh % a->kv.kv_heads;
    float query[MOST_DIM], *to = args->gaps + bh * args->stride;
    (void)worker;
    for (int64_t t = 0; t < tiles; t++)
        to[t] = -INFINITY;
    for (int64_t i = 0; i < a->rows.rows * group; i++) {
        int64_t at = (b * a->rows.rows + i / group) * a->query_heads + h * group + i % group;
        mb_load_row(job->device->type, a->q, at * dim, dim, query);
        gap_row(job, bh, query, args->scratch + at * tiles);
    }
    for (int64_t t = 0; t < tiles; t++)
        if (to[t] < args->least)
            to[t] = -INFINITY;
}

int mb_cpu_tile_gaps(mb_device *device, const mb_tile_gaps *args)
{
    gaps_job job = {device, args};
    const mb_kv *kv = &args->attention.kv;
    if (args->page < 1 || kv->head_dim > MOST_DIM)
        return mb_cpu_fail(device, MB_E_BUG, "tile_gaps: tiles of %d keys of %d numbers", args->page,
                           kv->head_dim);
    mb_cpu_run(device, (int64_t)args->attention.rows.batch * kv->kv_heads, gaps_piece, &job);
    return MB_OK;
}

/* ---- scores ---- */

static void spread_piece(void *arg, int64_t bh, int worker)
{
    const mb_score_spread *args = arg;
    const mb_scores *s = &args->scores;
    (void)worker;
    for (int64_t j = 0; j < s->prefix_len[bh / s->kv_heads]; j++)
        args->out[bh * s->stride + j] = s->values[bh * s->stride + j / s->page];
}

int mb_cpu_score_spread(mb_device *device, const mb_score_spread *args)
{
    if (args->scores.page < 1 || args->out == args->scores.values)
        return mb_cpu_fail(device, MB_E_BUG, "score_spread: pages of %d tokens into another array",
                           args->scores.page);
    mb_cpu_run(device, (int64_t)args->scores.batch * args->scores.kv_heads, spread_piece, (void *)args);
    return MB_OK;
}

/* Places of one head's set into the row `out` of the sequence's first head. */
static void place_head(const mb_score_interleave *args, int64_t bh, float *out)
{
    const mb_scores *s = &args->scores;
    const int32_t *ids = args->best.ids + bh * args->best.capacity;
    const float *score = s->values + bh * s->stride;
    for (int32_t i = 0; i < args->best.counts[bh]; i++) {
        int64_t rank = 0;
        for (int32_t o = 0; o < args->best.counts[bh]; o++)
            rank += score[ids[o]] > score[ids[i]] || (score[ids[o]] == score[ids[i]] && o < i);
        float place = -(float)(rank * s->kv_heads + bh % s->kv_heads);
        out[ids[i]] = place > out[ids[i]] ? place : out[ids[i]];
    }
}

static void interleave_piece(void *arg, int64_t b, int worker)
{
    const mb_score_interleave *args = arg;
    const mb_scores *s = &args->scores;
    float *first = args->out + b * s->kv_heads * s->stride;
    (void)worker;
    for (int64_t j = 0; j < s->prefix_len[b]; j++)
        first[j] = -INFINITY;
    for (int64_t h = 0; h < s->kv_heads; h++)
        place_head(args, b * s->kv_heads + h, first);
    for (int64_t h = 1; h < s->kv_heads; h++)
        memcpy(first + h * s->stride, first, (size_t)s->prefix_len[b] * sizeof *first);
}

int mb_cpu_score_interleave(mb_device *device, const mb_score_interleave *args)
{
    if (args->best.granularity != 1 || args->out == args->scores.values)
        return mb_cpu_fail(device, MB_E_BUG, "score_interleave: pages of %d tokens into another array",
                           args->best.granularity);
    mb_cpu_run(device, args->scores.batch, interleave_piece, (void *)args);
    return MB_OK;
}
