/*
 * statistics.c - intervals and tests for paired differences.
 *
 * Differences between methods are a few points on some hundred samples, so every one is paired by item and comes
 * with an interval and a test. The random draws are the same for all: equal data have equal intervals, whatever
 * they are called, and a report is the same every time it is printed.
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

/* Where each group of ascending numbers begins; start [n + 1]. Returns the number of groups. */
static size_t group_starts(const int32_t *groups, size_t n, size_t *start)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || groups[i] != groups[i - 1])
            start[count++] = i;
    start[count] = n;
    return count;
}

/* What is resampled: differences, or a ratio where b is not NULL. */
typedef struct paired_data {
    const double *a, *b;
    const size_t *start; /* [group_count + 1] */
    size_t group_count;
} paired_data;

/* Mean over groups of the group's mean (or ratio of sums); draw NULL: the items themselves, else items drawn with
 * replacement within each group. draw_groups: the groups are drawn with replacement too. NAN: no group counts. */
static double grouped_mean(const paired_data *d, mb_random *draw, bool draw_groups)
{
    double total = 0;
    size_t counted = 0;
    for (size_t g = 0; g < d->group_count; g++) {
        size_t group = draw_groups ? (size_t)mb_random_below(draw, d->group_count) : g;
        size_t n = d->start[group + 1] - d->start[group];
        double sum = 0, other = 0;
        for (size_t i = 0; i < n; i++) {
            size_t at = d->start[group] + (draw ? (size_t)mb_random_below(draw, n) : i);
            sum += d->a[at];
            other += d->b ? d->b[at] : 1;
        }
        if (other == 0)
            continue;
        total += sum / other;
        counted++;
    }
    return counted ? total / (double)counted : NAN;
}

/* Percentile by linear interpolation; sorted [n]. */
static double percentile(const double *sorted, size_t n, double p)
{
    double h = p * (double)(n - 1);
    size_t i = (size_t)h;
    double next = i + 1 < n ? sorted[i + 1] : sorted[i];
    return sorted[i] + (h - (double)i) * (next - sorted[i]);
}

static interval bootstrap(const double *a, const double *b, const int32_t *groups, size_t n)
{
    interval result = {NAN, NAN, NAN};
    size_t *start = calloc(n + 1, sizeof *start);
    double *means = malloc(RESAMPLES * sizeof *means);
    if (!start || !means || n == 0)
        goto out;
    paired_data d = {a, b, start, group_starts(groups, n, start)};
    result.mean = grouped_mean(&d, NULL, false);
    if (n < 2 || isnan(result.mean))
        goto out;
    /* One stream for all: the same data under two names are the same finding. */
    mb_random draw = mb_random_named(1, "bootstrap");
    /* A group of one item shows no spread of its own: the spread between groups stands in for it. */
    bool draw_groups = false;
    for (size_t g = 0; g < d.group_count; g++)
        draw_groups = draw_groups || start[g + 1] - start[g] < 2;
    size_t count = 0;
    for (size_t r = 0; r < RESAMPLES; r++) {
        double mean = grouped_mean(&d, &draw, draw_groups);
        if (!isnan(mean))
            means[count++] = mean;
    }
    qsort(means, count, sizeof *means, compare_doubles);
    if (count) {
        result.low = percentile(means, count, 0.025);
        result.high = percentile(means, count, 0.975);
    }
out:
    free(start);
    free(means);
    return result;
}

interval paired_interval(const double *values, const int32_t *groups, size_t n)
{
    return bootstrap(values, NULL, groups, n);
}

interval paired_ratio(const double *a, const double *b, const int32_t *groups, size_t n)
{
    return bootstrap(a, b, groups, n);
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

double paired_p(const double *values, const int32_t *groups, size_t n)
{
    int64_t wins = 0, losses = 0;
    double mean = 0, variance = 0;
    for (size_t i = 0, size; i < n; i += size) {
        for (size = 1; i + size < n && groups[i + size] == groups[i];)
            size++;
        for (size_t j = i; j < i + size; j++) { /* under a sign flip an item adds +-value / size, groups alike */
            wins += values[j] > 0;
            losses += values[j] < 0;
            mean += values[j] / (double)size;
            variance += values[j] * values[j] / ((double)size * (double)size);
        }
    }
    if (wins + losses == 0)
        return 1;
    if (wins + losses < SIGN_TEST_BELOW) {
        double p = 2 * sign_test(wins > losses ? wins : losses, wins > losses ? losses : wins);
        return p > 1 ? 1 : p;
    }
    return erfc(fabs(mean) / sqrt(2 * variance));
}

void holm_adjust(double *p, size_t n)
{
    double floor = 0;
    size_t counted = 0;
    for (size_t i = 0; i < n; i++)
        counted += !isnan(p[i]);
    bool *done = calloc(n + 1, sizeof *done);
    for (size_t rank = 0; done && rank < counted; rank++) { /* smallest first; arms are few */
        size_t least = n;
        for (size_t i = 0; i < n; i++)
            if (!done[i] && !isnan(p[i]) && (least == n || p[i] < p[least]))
                least = i;
        double adjusted = p[least] * (double)(counted - rank);
        floor = adjusted > floor ? adjusted : floor;
        p[least] = floor > 1 ? 1 : floor;
        done[least] = true;
    }
    for (size_t i = 0; !done && i < n; i++) /* no memory: nothing is called significant */
        p[i] = isnan(p[i]) ? p[i] : 1;
    free(done);
}
