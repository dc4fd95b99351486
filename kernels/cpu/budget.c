/*
 * budget.c - budgets (entries per sequence and KV head) that depend on what only the device knows: the length of
 * the prefix, statistics of the votes, scores. Tiny arrays, computed in double by one thread; a host that waited
 * for them would cost more than the arithmetic.
 */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>

int mb_cpu_budget_ratio(mb_device *device, const mb_budget_ratio *args)
{
    const mb_scores *scores = &args->scores;
    if (scores->page < 1 || !(args->ratio >= 0.0 && args->ratio <= 1.0))
        return mb_cpu_fail(device, MB_E_BUG, "budget_ratio: ratio %g of pages of %d tokens", args->ratio,
                           scores->page);
    for (int64_t bh = 0; bh < (int64_t)scores->batch * scores->kv_heads; bh++) {
        int64_t n = (scores->prefix_len[bh / scores->kv_heads] + (int64_t)scores->page - 1) / scores->page;
        int64_t budget = (int64_t)floor(args->ratio * (double)n) + args->extra;
        args->budgets[bh] = (int32_t)(budget < n ? budget : n);
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

int mb_cpu_budget_layers(mb_device *device, const mb_budget_layers *args)
{
    const int32_t *prefix_len = args->scores.prefix_len;
    int32_t kv_heads = args->scores.kv_heads, k = args->k;
    int64_t heads = (int64_t)args->scores.batch * kv_heads;
    if (args->k_min < 0 || args->k_min > args->k_max || k < 0)
        return mb_cpu_fail(device, MB_E_BUG, "budget_layers: k %d between %d and %d", k, args->k_min, args->k_max);
    for (int32_t b = 0; b < args->scores.batch; b++) {
        double sum = 0.0;
        for (int32_t l = 0; l < args->layers; l++)
            sum += diffuseness(args->stats + (l * heads + b * (int64_t)kv_heads) * 2, kv_heads);
        for (int32_t l = 0; l < args->layers; l++) {
            double s = diffuseness(args->stats + (l * heads + b * (int64_t)kv_heads) * 2, kv_heads);
            double share = sum > 0.0 ? floor(s / sum * (double)k * args->layers) : k;
            share = share < args->k_min ? args->k_min : share;
            int32_t budget = prefix_len[b] <= k || share > args->k_max ? args->k_max : (int32_t)share;
            for (int32_t h = 0; h < kv_heads; h++)
                args->budgets[l * heads + b * (int64_t)kv_heads + h] = budget;
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

int mb_cpu_budget_heads(mb_device *device, const mb_budget_heads *args)
{
    const mb_scores *scores = &args->scores;
    candidate *pool = args->scratch;
    int32_t kv_heads = scores->kv_heads;
    if (args->k < 0 || args->k_min < 0 || args->k_min > args->k)
        return mb_cpu_fail(device, MB_E_BUG, "budget_heads: k %d, k_min %d", args->k, args->k_min);
    for (int32_t b = 0; b < scores->batch; b++) {
        int64_t n = scores->prefix_len[b] < scores->max_prefix ? scores->prefix_len[b] : scores->max_prefix;
        int64_t left = (int64_t)args->k * kv_heads, count = 0;
        int32_t *budgets = args->budgets + (int64_t)b * kv_heads;
        for (int32_t h = 0; h < kv_heads; h++) {
            const float *row = scores->values + ((int64_t)b * kv_heads + h) * scores->stride;
            candidate *first = pool + count;
            int64_t own = 0;
            for (int64_t j = 0; j < n; j++)
                if (row[j] > -INFINITY) /* false for NaN, too */
                    first[own++] = (candidate){row[j], h, (int32_t)j};
            qsort(first, (size_t)own, sizeof *first, by_score);
            int64_t given = own < args->k_min ? own : args->k_min;
            budgets[h] = (int32_t)given;
            left -= given;
            memmove(first, first + given, (size_t)(own - given) * sizeof *first);
            count += own - given;
        }
        qsort(pool, (size_t)count, sizeof *pool, by_score);
        for (int64_t i = 0; i < count && i < left; i++)
            budgets[pool[i].head]++;
    }
    return MB_OK;
}
