/*
 * statistics.c - intervals and tests for paired differences.
 *
 * Differences between methods are a few points on some hundred samples, so every one is paired by item and comes
 * with an interval. Random draws depend on seed and name only: a report is the same every time it is printed.
 */
#include "results/store.h"

#include <math.h>
#include <stdlib.h>

#define RESAMPLES 2000

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Mean over groups of the mean over their items; draw NULL: the items themselves, else items drawn with
 * replacement within each group. draw_groups: the groups are drawn with replacement too. start [group_count + 1].
 */
static double grouped_mean(const double *values, const size_t *start, size_t group_count, mb_random *draw,
                           bool draw_groups)
{
    double total = 0;
    for (size_t g = 0; g < group_count; g++) {
        size_t group = draw_groups ? (size_t)mb_random_below(draw, group_count) : g;
        size_t n = start[group + 1] - start[group];
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += values[start[group] + (draw ? (size_t)mb_random_below(draw, n) : i)];
        total += sum / (double)n;
    }
    return total / (double)group_count;
}

/* Percentile by linear interpolation; sorted [n]. */
static double percentile(const double *sorted, size_t n, double p)
{
    double h = p * (double)(n - 1);
    size_t i = (size_t)h;
    double next = i + 1 < n ? sorted[i + 1] : sorted[i];
    return sorted[i] + (h - (double)i) * (next - sorted[i]);
}

interval paired_interval(const double *values, const int32_t *groups, size_t n, uint64_t seed, const char *name)
{
    interval result = {NAN, NAN, NAN};
    size_t group_count = 0;
    size_t *start = calloc(n + 1, sizeof *start);
    double *means = malloc(RESAMPLES * sizeof *means);
    if (!start || !means || n == 0)
        goto out;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || groups[i] != groups[i - 1])
            start[group_count++] = i;
    start[group_count] = n;
    result.mean = grouped_mean(values, start, group_count, NULL, false);
    if (n < 2)
        goto out;
    mb_random draw = mb_random_named(seed, name);
    /* A group of one item shows no spread of its own: the spread between groups stands in for it. */
    bool draw_groups = false;
    for (size_t g = 0; g < group_count; g++)
        draw_groups = draw_groups || start[g + 1] - start[g] < 2;
    for (size_t r = 0; r < RESAMPLES; r++)
        means[r] = grouped_mean(values, start, group_count, &draw, draw_groups);
    qsort(means, RESAMPLES, sizeof *means, compare_doubles);
    result.low = percentile(means, RESAMPLES, 0.025);
    result.high = percentile(means, RESAMPLES, 0.975);
out:
    free(start);
    free(means);
    return result;
}

double sign_test(int64_t wins, int64_t losses)
{
    int64_t n = wins + losses;
    double total = 0;
    for (int64_t i = wins; i <= n; i++) /* in logarithms: 2^-n leaves the range of doubles at n = 1075 */
        total += exp(lgamma((double)n + 1) - lgamma((double)i + 1) - lgamma((double)(n - i) + 1) -
                     (double)n * log(2.0));
    return n == 0 || total > 1 ? 1 : total;
}
