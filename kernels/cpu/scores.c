/*
 * scores.c - arithmetic on score rows [batch][kv_heads][stride]: edges, pooling, smoothing, mixing, random.
 *
 * Only entries of the prefix are read; entries behind it are written where the function's comment says so.
 * Memory-bound and small next to the attention: a piece is one row, or a fixed run of floats.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/hash.h"

#define RUN 16384 /* floats of a piece where rows do not matter */

typedef struct scores_job {
    float *scores;
    const float *from;
    int64_t stride, from_stride, n;
    int32_t kv_heads, batch, page, first_n, last_n, mode, max_prefix, kernel;
    const int32_t *prefix_len;
    float a, b, value;
    uint64_t seed;
} scores_job;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void edges_piece(void *arg, int64_t bh, int worker)
{
    const scores_job *job = arg;
    float *row = job->scores + bh * job->stride;
    int64_t n = (job->prefix_len[bh / job->kv_heads] + job->page - 1) / job->page;
    (void)worker;
    for (int64_t i = 0; i < smaller(job->first_n, n); i++)
        row[i] = job->value;
    for (int64_t i = n > job->last_n ? n - job->last_n : 0; i < n; i++)
        row[i] = job->value;
}

int mb_cpu_score_edges(mb_device *device, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                       const int32_t *prefix_len, int32_t page, int32_t first_n, int32_t last_n, float value)
{
    scores_job job = {.scores = scores,
                      .stride = score_stride,
                      .kv_heads = kv_heads,
                      .prefix_len = prefix_len,
                      .page = page,
                      .first_n = first_n,
                      .last_n = last_n < 0 ? 0 : last_n,
                      .value = value};
    mb_cpu_run(device, (int64_t)batch * kv_heads, edges_piece, &job);
    return MB_OK;
}

/* Pages behind the prefix, up to max_prefix, get what adds nothing: 0 to a sum, -INFINITY to a maximum. */
static void pool_piece(void *arg, int64_t bh, int worker)
{
    const scores_job *job = arg;
    const float *from = job->from + bh * job->from_stride;
    float *to = job->scores + bh * job->stride;
    int64_t prefix = job->prefix_len[bh / job->kv_heads];
    int64_t pages = smaller((job->max_prefix + job->page - 1) / job->page, job->stride);
    (void)worker;
    for (int64_t p = 0; p < pages; p++) {
        int64_t last = smaller((p + 1) * job->page, prefix);
        double sum = 0.0;
        float most = -INFINITY;
        for (int64_t j = p * job->page; j < last; j++) {
            sum += (double)from[j];
            most = from[j] > most ? from[j] : most;
        }
        to[p] = job->mode == 0 ? (float)sum : most;
    }
}

int mb_cpu_score_pool(mb_device *device, const float *scores, int64_t score_stride, int32_t batch,
                      int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t page, int32_t mode,
                      float *out, int64_t out_stride)
{
    scores_job job = {.from = scores,
                      .from_stride = score_stride,
                      .scores = out,
                      .stride = out_stride,
                      .kv_heads = kv_heads,
                      .prefix_len = prefix_len,
                      .max_prefix = max_prefix,
                      .page = page,
                      .mode = mode};
    if (page < 1)
        return mb_cpu_fail(device, MB_E_BUG, "score_pool: page %d", page);
    mb_cpu_run(device, (int64_t)batch * kv_heads, pool_piece, &job);
    return MB_OK;
}

/* Neighbourhoods are cut at both ends of the prefix; a mean divides by what is left. Entries behind it are
 * untouched. */
static void smooth_piece(void *arg, int64_t bh, int worker)
{
    const scores_job *job = arg;
    const float *from = job->from + bh * job->stride;
    float *to = job->scores + bh * job->stride;
    int64_t prefix = job->prefix_len[bh / job->kv_heads], half = job->kernel / 2;
    (void)worker;
    for (int64_t j = 0; j < prefix; j++) {
        int64_t first = j > half ? j - half : 0, last = smaller(j + half + 1, prefix);
        double sum = 0.0;
        float most = -INFINITY;
        for (int64_t i = first; i < last; i++) {
            sum += (double)from[i];
            most = from[i] > most ? from[i] : most;
        }
        to[j] = job->mode == 0 ? (float)(sum / (double)(last - first)) : most;
    }
}

int mb_cpu_score_smooth(mb_device *device, const float *scores, int64_t score_stride, int32_t batch,
                        int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t kernel,
                        int32_t mode, float *out)
{
    scores_job job = {.from = scores,
                      .scores = out,
                      .stride = score_stride,
                      .kv_heads = kv_heads,
                      .prefix_len = prefix_len,
                      .kernel = kernel,
                      .mode = mode};
    (void)max_prefix;
    if (kernel < 1 || kernel % 2 == 0 || out == scores)
        return mb_cpu_fail(device, MB_E_BUG, "score_smooth: kernel %d must be odd, and out another array", kernel);
    mb_cpu_run(device, (int64_t)batch * kv_heads, smooth_piece, &job);
    return MB_OK;
}

/* A factor of 0 means that its array is not read: NaN in it does not matter, and x may be NULL. */
static void axpby_piece(void *arg, int64_t index, int worker)
{
    const scores_job *job = arg;
    int64_t first = index * RUN, last = smaller(first + RUN, job->n);
    (void)worker;
    for (int64_t i = first; i < last; i++) {
        float x = job->a == 0.0f ? 0.0f : job->a * job->from[i];
        float y = job->b == 0.0f ? 0.0f : job->b * job->scores[i];
        job->scores[i] = x + y;
    }
}

int mb_cpu_score_axpby(mb_device *device, float a, const float *x, float b, float *y, int64_t n)
{
    scores_job job = {.scores = y, .from = x, .a = a, .b = b, .n = n};
    mb_cpu_run(device, (n + RUN - 1) / RUN, axpby_piece, &job);
    return MB_OK;
}

static void head_mean_piece(void *arg, int64_t b, int worker)
{
    const scores_job *job = arg;
    float *rows = job->scores + b * job->kv_heads * job->stride;
    (void)worker;
    for (int64_t j = 0; j < job->prefix_len[b]; j++) {
        float sum = 0.0f;
        for (int32_t h = 0; h < job->kv_heads; h++)
            sum += rows[h * job->stride + j];
        for (int32_t h = 0; h < job->kv_heads; h++)
            rows[h * job->stride + j] = sum / (float)job->kv_heads;
    }
}

int mb_cpu_score_head_mean(mb_device *device, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                           const int32_t *prefix_len, int32_t max_prefix)
{
    scores_job job = {.scores = scores, .stride = score_stride, .kv_heads = kv_heads, .prefix_len = prefix_len};
    (void)max_prefix;
    mb_cpu_run(device, batch, head_mean_piece, &job);
    return MB_OK;
}

static void random_piece(void *arg, int64_t bh, int worker)
{
    const scores_job *job = arg;
    float *row = job->scores + bh * job->stride;
    (void)worker;
    for (int64_t j = 0; j < smaller(job->max_prefix, job->stride); j++)
        row[j] = mb_hash_unit(job->seed, (uint64_t)j);
}

int mb_cpu_score_random(mb_device *device, uint64_t seed, int32_t batch, int32_t kv_heads, int32_t max_prefix,
                        float *scores, int64_t score_stride)
{
    scores_job job = {.scores = scores, .stride = score_stride, .max_prefix = max_prefix, .seed = seed};
    mb_cpu_run(device, (int64_t)batch * kv_heads, random_piece, &job);
    return MB_OK;
}
