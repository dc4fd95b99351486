/*
 * scores.c - arithmetic on score rows [batch][kv_heads][stride]: edges, pooling, smoothing, mixing, random,
 * ranking by recency, every n-th entry, keeping what an index names.
 *
 * Only entries of the prefix are read; entries behind it are written where the function's comment says so.
 * Memory-bound and small next to the attention: a piece is one row, or a fixed run of floats.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/hash.h"

#define RUN 16384 /* floats of a piece where rows do not matter */

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static float *row_of(const mb_scores *scores, int64_t bh)
{
    return scores->values + bh * scores->stride;
}

static int64_t prefix_of(const mb_scores *scores, int64_t bh)
{
    return scores->prefix_len[bh / scores->kv_heads];
}

/* A piece for each row; args begins with its scores, as the arguments of every operation here do. */
static int each_row(mb_device *device, const mb_scores *scores, mb_cpu_piece *piece, const void *args)
{
    mb_cpu_run(device, (int64_t)scores->batch * scores->kv_heads, piece, (void *)args);
    return MB_OK;
}

static void edges_piece(void *arg, int64_t bh, int worker)
{
    const mb_score_edges *args = arg;
    float *row = row_of(&args->scores, bh);
    int64_t n = (prefix_of(&args->scores, bh) + args->scores.page - 1) / args->scores.page;
    int64_t last = args->last < 0 ? 0 : args->last;
    (void)worker;
    for (int64_t i = 0; i < smaller(args->first, n); i++)
        row[i] = args->value;
    for (int64_t i = n > last ? n - last : 0; i < n; i++)
        row[i] = args->value;
}

int mb_cpu_score_edges(mb_device *device, const mb_score_edges *args)
{
    return each_row(device, &args->scores, edges_piece, args);
}

/* Pages behind the prefix, up to max_prefix, get what adds nothing: 0 to a sum, -INFINITY to a maximum. */
static void pool_piece(void *arg, int64_t bh, int worker)
{
    const mb_score_pool *args = arg;
    const float *from = row_of(&args->scores, bh);
    float *to = args->out + bh * args->out_stride;
    int64_t prefix = prefix_of(&args->scores, bh), page = args->page;
    int64_t pages = smaller((args->scores.max_prefix + page - 1) / page, args->out_stride);
    (void)worker;
    for (int64_t p = 0; p < pages; p++) {
        int64_t last = smaller((p + 1) * page, prefix);
        double sum = 0.0;
        float most = -INFINITY;
        for (int64_t j = p * page; j < last; j++) {
            sum += (double)from[j];
            most = from[j] > most ? from[j] : most;
        }
        to[p] = args->pooling == MB_POOL_SUM ? (float)sum : most;
    }
}

int mb_cpu_score_pool(mb_device *device, const mb_score_pool *args)
{
    if (args->page < 1)
        return mb_cpu_fail(device, MB_E_BUG, "score_pool: page %d", args->page);
    return each_row(device, &args->scores, pool_piece, args);
}

/* Neighbourhoods are cut at both ends of the prefix; a mean divides by what is left, or with padding by the whole
 * kernel. Entries behind the prefix are untouched. */
static void smooth_piece(void *arg, int64_t bh, int worker)
{
    const mb_score_smooth *args = arg;
    const float *from = row_of(&args->scores, bh);
    float *to = args->out + bh * args->scores.stride;
    int64_t prefix = prefix_of(&args->scores, bh), half = args->kernel / 2;
    (void)worker;
    for (int64_t j = 0; j < prefix; j++) {
        int64_t first = j > half ? j - half : 0, last = smaller(j + half + 1, prefix);
        double sum = 0.0;
        float most = -INFINITY;
        for (int64_t i = first; i < last; i++) {
            sum += (double)from[i];
            most = from[i] > most ? from[i] : most;
        }
        int64_t count = args->pooling == MB_POOL_PADDED ? args->kernel : last - first;
        to[j] = args->pooling == MB_POOL_MAX ? most : (float)(sum / (double)count);
    }
}

int mb_cpu_score_smooth(mb_device *device, const mb_score_smooth *args)
{
    if (args->kernel < 1 || args->kernel % 2 == 0 || args->out == args->scores.values)
        return mb_cpu_fail(device, MB_E_BUG, "score_smooth: kernel %d must be odd, and out another array",
                           args->kernel);
    return each_row(device, &args->scores, smooth_piece, args);
}

/* A factor of 0 means that its array is not read: NaN in it does not matter, and x may be NULL. */
static void axpby_piece(void *arg, int64_t index, int worker)
{
    const mb_score_axpby *args = arg;
    int64_t first = index * RUN, last = smaller(first + RUN, args->n);
    (void)worker;
    for (int64_t i = first; i < last; i++) {
        float x = args->a == 0.0f ? 0.0f : args->a * args->x[i];
        float y = args->b == 0.0f ? 0.0f : args->b * args->y[i];
        args->y[i] = x + y;
    }
}

int mb_cpu_score_axpby(mb_device *device, const mb_score_axpby *args)
{
    mb_cpu_run(device, (args->n + RUN - 1) / RUN, axpby_piece, (void *)args);
    return MB_OK;
}

static void head_mean_piece(void *arg, int64_t b, int worker)
{
    const mb_scores *scores = arg;
    float *rows = row_of(scores, b * scores->kv_heads);
    (void)worker;
    for (int64_t j = 0; j < scores->prefix_len[b]; j++) {
        float sum = 0.0f;
        for (int32_t h = 0; h < scores->kv_heads; h++)
            sum += rows[h * scores->stride + j];
        for (int32_t h = 0; h < scores->kv_heads; h++)
            rows[h * scores->stride + j] = sum / (float)scores->kv_heads;
    }
}

int mb_cpu_score_head_mean(mb_device *device, const mb_scores *scores)
{
    mb_cpu_run(device, scores->batch, head_mean_piece, (void *)scores);
    return MB_OK;
}

static void random_piece(void *arg, int64_t bh, int worker)
{
    const mb_score_random *args = arg;
    float *row = row_of(&args->scores, bh);
    (void)worker;
    for (int64_t j = 0; j < smaller(args->scores.max_prefix, args->scores.stride); j++)
        row[j] = mb_hash_unit(args->seed, (uint64_t)j);
}

int mb_cpu_score_random(mb_device *device, const mb_score_random *args)
{
    return each_row(device, &args->scores, random_piece, args);
}

static void recent_piece(void *arg, int64_t bh, int worker)
{
    const mb_score_recent *args = arg;
    float *row = row_of(&args->scores, bh);
    int64_t n = prefix_of(&args->scores, bh);
    (void)worker;
    for (int64_t j = 0; j < n; j++)
        if (row[j] < args->below)
            row[j] = args->value * ((float)(j + 1) / (float)(n + 1));
}

int mb_cpu_score_recent(mb_device *device, const mb_score_recent *args)
{
    return each_row(device, &args->scores, recent_piece, args);
}

static void every_piece(void *arg, int64_t bh, int worker)
{
    const mb_score_every *args = arg;
    (void)worker;
    for (int64_t j = args->first; j < prefix_of(&args->scores, bh); j += args->every)
        row_of(&args->scores, bh)[j] = args->value;
}

int mb_cpu_score_every(mb_device *device, const mb_score_every *args)
{
    if (args->every < 1 || args->first < 0)
        return mb_cpu_fail(device, MB_E_BUG, "score_every: every %d entries from %d", args->every, args->first);
    return each_row(device, &args->scores, every_piece, args);
}

static void keep_piece(void *arg, int64_t bh, int worker)
{
    const mb_score_keep *args = arg;
    float *row = row_of(&args->scores, bh);
    const int32_t *ids = args->kept.ids + bh * args->kept.capacity;
    int64_t next = 0, count = args->kept.counts[bh], n = prefix_of(&args->scores, bh);
    (void)worker;
    for (int64_t j = 0; j < n && count >= 0; j++) {
        int64_t page = j / args->kept.granularity;
        while (next < count && ids[next] < page)
            next++;
        if (next == count || ids[next] != page)
            row[j] = args->value;
    }
}

int mb_cpu_score_keep(mb_device *device, const mb_score_keep *args)
{
    if (args->kept.granularity < 1)
        return mb_cpu_fail(device, MB_E_BUG, "score_keep: pages of %d tokens", args->kept.granularity);
    return each_row(device, &args->scores, keep_piece, args);
}
