/*
 * budget.c - ranking by recency, and budgets (entries per sequence and KV head) that depend on what only the
 * device knows: the length of the prefix, statistics of the votes. Tiny arrays, computed in double by one thread;
 * a host that waited for them would cost more than the arithmetic.
 */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>

int mb_cpu_score_recent(mb_device *device, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                        const int32_t *prefix_len, int32_t max_prefix, float below, float value)
{
    (void)device, (void)max_prefix;
    for (int64_t bh = 0; bh < (int64_t)batch * kv_heads; bh++) {
        float *row = scores + bh * score_stride;
        int64_t n = prefix_len[bh / kv_heads];
        for (int64_t j = 0; j < n; j++)
            if (row[j] < below)
                row[j] = value * ((float)(j + 1) / (float)(n + 1));
    }
    return MB_OK;
}

int mb_cpu_budget_ratio(mb_device *device, int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                        int32_t page, double ratio, int32_t extra, int32_t *budgets)
{
    if (page < 1 || !(ratio >= 0.0 && ratio <= 1.0))
        return mb_cpu_fail(device, MB_E_BUG, "budget_ratio: ratio %g of pages of %d tokens", ratio, page);
    for (int64_t bh = 0; bh < (int64_t)batch * kv_heads; bh++) {
        int64_t n = (prefix_len[bh / kv_heads] + (int64_t)page - 1) / page;
        int64_t budget = (int64_t)floor(ratio * (double)n) + extra;
        budgets[bh] = (int32_t)(budget < n ? budget : n);
    }
    return MB_OK;
}

/* How diffuse one layer is: the widest union of its heads, weighted by what that union misses. */
static double diffuseness(const float *stats, int32_t kv_heads)
{
    double most = 0.0;
    for (int32_t h = 0; h < kv_heads; h++) {
        double coverage = (double)stats[2 * h + 1];
        coverage = coverage > 1e-30 ? coverage : 1e-30;
        double s = (double)stats[2 * h] * (1.0 - log(coverage < 1.0 ? coverage : 1.0));
        most = s > most ? s : most;
    }
    return most;
}

int mb_cpu_budget_layers(mb_device *device, const float *stats, int32_t layers, int32_t batch, int32_t kv_heads,
                         const int32_t *prefix_len, int32_t k, int32_t k_min, int32_t k_max, int32_t *budgets)
{
    int64_t heads = (int64_t)batch * kv_heads;
    if (k_min < 0 || k_min > k_max || k < 0)
        return mb_cpu_fail(device, MB_E_BUG, "budget_layers: k %d between %d and %d", k, k_min, k_max);
    for (int32_t b = 0; b < batch; b++) {
        double sum = 0.0;
        for (int32_t l = 0; l < layers; l++)
            sum += diffuseness(stats + (l * heads + b * (int64_t)kv_heads) * 2, kv_heads);
        for (int32_t l = 0; l < layers; l++) {
            double s = diffuseness(stats + (l * heads + b * (int64_t)kv_heads) * 2, kv_heads);
            double share = sum > 0.0 ? floor(s / sum * (double)k * layers) : k;
            share = share < k_min ? k_min : share;
            int32_t budget = prefix_len[b] <= k || share > k_max ? k_max : (int32_t)share;
            for (int32_t h = 0; h < kv_heads; h++)
                budgets[l * heads + b * (int64_t)kv_heads + h] = budget;
        }
    }
    return MB_OK;
}

int mb_cpu_score_keep(mb_device *device, const mb_pages *pages, int32_t batch, int32_t kv_heads,
                      const int32_t *prefix_len, int32_t max_prefix, float value, float *scores,
                      int64_t score_stride)
{
    (void)max_prefix;
    if (pages->granularity != 1)
        return mb_cpu_fail(device, MB_E_BUG, "score_keep: pages of %d tokens", pages->granularity);
    for (int64_t bh = 0; bh < (int64_t)batch * kv_heads; bh++) {
        const int32_t *ids = pages->ids + bh * pages->capacity;
        int64_t next = 0, count = pages->counts[bh], n = prefix_len[bh / kv_heads];
        for (int64_t j = 0; j < n && count >= 0; j++) {
            if (next < count && ids[next] == j)
                next++;
            else
                scores[bh * score_stride + j] = value;
        }
    }
    return MB_OK;
}

/* ---- one budget for all heads of a sequence ---- */

typedef struct candidate {
    float score;
    int32_t head, index;
} candidate;

_Static_assert(sizeof(candidate) <= 12, "what kernels.h asks the caller to provide");

/* Best first: score, then lower head, then lower index. */
static int by_score(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->head != y->head ? (x->head < y->head ? -1 : 1) : (x->index < y->index ? -1 : x->index > y->index);
}

int mb_cpu_budget_heads(mb_device *device, const float *scores, int64_t score_stride, int32_t batch,
                        int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t k, int32_t k_min,
                        int32_t *budgets, void *scratch)
{
    candidate *pool = scratch;
    if (k < 0 || k_min < 0 || k_min > k)
        return mb_cpu_fail(device, MB_E_BUG, "budget_heads: k %d, k_min %d", k, k_min);
    for (int32_t b = 0; b < batch; b++) {
        int64_t n = prefix_len[b] < max_prefix ? prefix_len[b] : max_prefix;
        int64_t left = (int64_t)k * kv_heads, count = 0;
        for (int32_t h = 0; h < kv_heads; h++) {
            const float *row = scores + ((int64_t)b * kv_heads + h) * score_stride;
            candidate *first = pool + count;
            int64_t own = 0;
            for (int64_t j = 0; j < n; j++)
                if (row[j] > -INFINITY) /* false for NaN, too */
                    first[own++] = (candidate){row[j], h, (int32_t)j};
            qsort(first, (size_t)own, sizeof *first, by_score);
            int64_t given = own < k_min ? own : k_min;
            budgets[(int64_t)b * kv_heads + h] = (int32_t)given;
            left -= given;
            memmove(first, first + given, (size_t)(own - given) * sizeof *first);
            count += own - given;
        }
        qsort(pool, (size_t)count, sizeof *pool, by_score);
        for (int64_t i = 0; i < count && i < left; i++)
            budgets[(int64_t)b * kv_heads + pool[i].head]++;
    }
    return MB_OK;
}
