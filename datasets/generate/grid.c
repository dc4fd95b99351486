/*
 * grid.c - the grid of a needle test: context lengths and needle depths, given as lists or as ranges.
 *
 * Depths as in the original test: linear = whole percents of numpy's linspace, half to even; sigmoid = the
 * logistic curve with slope 0.1 around 50, the ends kept, three decimals. The rounding hides the last bit of
 * exp(), which differs between C libraries; the order is ascending.
 */
#include "datasets/generate/generate.h"

#include <math.h>
#include <stdlib.h>

#define MAX_POINTS 10000
#define MAX_LENGTH 16777216

/* numpy.linspace: low + i * step, the last point exactly high. */
static double point(double low, double high, size_t n, size_t i)
{
    if (n == 1)
        return low;
    return i + 1 == n ? high : low + (double)i * ((high - low) / (double)(n - 1));
}

void mb_niah_grid_depths(double low, double high, size_t n, bool sigmoid, double *out)
{
    for (size_t i = 0; i < n; i++) {
        double x = point(low, high, n, i);
        if (!sigmoid)
            out[i] = nearbyint(x);
        else if (x <= 0.0 || x >= 100.0)
            out[i] = x;
        else
            out[i] = nearbyint(1000.0 * (100.0 / (1.0 + exp(-0.1 * (x - 50.0))))) / 1000.0;
    }
}

/* What a key of the grid may hold. */
typedef struct allowed {
    const char *key;
    double low, high;
    bool whole;
} allowed;

static const allowed lengths_allowed = {"lengths", 16, MAX_LENGTH, true};
static const allowed depths_allowed = {"depths", 0, 100, false};

/* {"from": a, "to": b, "count": n}; from and to keep their values where the object names none. */
static int read_range(const mb_task_keys *keys, const allowed *rule, const cJSON *item, double *from, double *to,
                      size_t *count, mb_error *err)
{
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(item, "from");
    const cJSON *b = cJSON_GetObjectItemCaseSensitive(item, "to");
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(item, "count");
    for (const cJSON *part = item->child; part; part = part->next)
        if (part != a && part != b && part != n)
            return mb_fail(err, MB_E_INPUT, "\"%s\" of task %s knows from, to and count, not \"%s\"", rule->key,
                           keys->task, part->string);
    if (a && cJSON_IsNumber(a))
        *from = a->valuedouble;
    if (b && cJSON_IsNumber(b))
        *to = b->valuedouble;
    if ((a && !cJSON_IsNumber(a)) || (b && !cJSON_IsNumber(b)) || !cJSON_IsNumber(n) || !(*from >= rule->low) ||
        !(*to <= rule->high) || !(*from <= *to) || !(n->valuedouble >= 1) || n->valuedouble > MAX_POINTS ||
        n->valuedouble != floor(n->valuedouble))
        return mb_fail(err, MB_E_INPUT, "\"%s\" of task %s needs %g <= from <= to <= %g and a count from 1 to %d",
                       rule->key, keys->task, rule->low, rule->high, MAX_POINTS);
    *count = (size_t)n->valuedouble;
    return MB_OK;
}

/* A list of numbers that the rule allows into a malloc'ed array. */
static int read_list(const mb_task_keys *keys, const allowed *rule, const cJSON *item, double **values,
                     size_t *count, mb_error *err)
{
    int n = cJSON_GetArraySize(item);
    if (n < 1 || n > MAX_POINTS)
        return mb_fail(err, MB_E_INPUT, "\"%s\" of task %s must list 1 to %d numbers", rule->key, keys->task,
                       MAX_POINTS);
    *values = calloc((size_t)n, sizeof **values);
    if (!*values)
        return mb_fail(err, MB_E_SYSTEM, "no memory for \"%s\" of task %s", rule->key, keys->task);
    for (const cJSON *part = item->child; part; part = part->next) {
        double v = cJSON_IsNumber(part) ? part->valuedouble : NAN;
        if (!(v >= rule->low && v <= rule->high) || (rule->whole && v != floor(v)))
            return mb_fail(err, MB_E_INPUT, "\"%s\" of task %s: entry %zu must be a%s number from %g to %g",
                           rule->key, keys->task, *count, rule->whole ? " whole" : "", rule->low, rule->high);
        (*values)[(*count)++] = v;
    }
    return MB_OK;
}

static int read_lengths(mb_niah_grid *grid, const mb_task_keys *keys, const cJSON *item, mb_error *err)
{
    double *values = NULL, from = 1000, to = 16000;
    size_t count = 0;
    int rc = MB_OK;
    if (cJSON_IsArray(item))
        rc = read_list(keys, &lengths_allowed, item, &values, &count, err);
    else if (cJSON_IsObject(item))
        rc = read_range(keys, &lengths_allowed, item, &from, &to, &count, err);
    else
        rc = mb_fail(err, MB_E_INPUT,
                     "\"lengths\" of task %s must be a list of token counts or {\"from\", \"to\", \"count\"}",
                     keys->task);
    if (rc < 0)
        goto out;
    grid->lengths = calloc(count, sizeof *grid->lengths);
    if (!grid->lengths) {
        rc = mb_fail(err, MB_E_SYSTEM, "no memory for \"lengths\" of task %s", keys->task);
        goto out;
    }
    grid->length_count = count;
    for (size_t i = 0; i < count; i++)
        grid->lengths[i] = (int32_t)nearbyint(values ? values[i] : point(from, to, count, i));
out:
    free(values);
    return rc;
}

static int read_depths(mb_niah_grid *grid, const mb_task_keys *keys, const cJSON *item, bool sigmoid,
                       mb_error *err)
{
    double from = 0, to = 100;
    size_t count = 0;
    if (cJSON_IsArray(item))
        return read_list(keys, &depths_allowed, item, &grid->depths, &grid->depth_count, err);
    if (cJSON_IsNumber(item)) {
        if (!(item->valuedouble >= 1 && item->valuedouble <= MAX_POINTS) ||
            item->valuedouble != floor(item->valuedouble))
            return mb_fail(err, MB_E_INPUT, "\"depths\" of task %s, as a count, must be from 1 to %d", keys->task,
                           MAX_POINTS);
        count = (size_t)item->valuedouble;
    } else if (cJSON_IsObject(item)) {
        int rc = read_range(keys, &depths_allowed, item, &from, &to, &count, err);
        if (rc < 0)
            return rc;
    } else
        return mb_fail(
            err, MB_E_INPUT,
            "\"depths\" of task %s must be a list of percents, a count, or {\"from\", \"to\", \"count\"}",
            keys->task);
    grid->depths = calloc(count, sizeof *grid->depths);
    if (!grid->depths)
        return mb_fail(err, MB_E_SYSTEM, "no memory for \"depths\" of task %s", keys->task);
    grid->depth_count = count;
    mb_niah_grid_depths(from, to, count, sigmoid, grid->depths);
    return MB_OK;
}

int mb_niah_grid_read(mb_niah_grid *grid, const mb_task_keys *keys, const int32_t *lengths, size_t length_count,
                      const double *depths, size_t depth_count, mb_error *err)
{
    static const char *const spacings[] = {"linear", "sigmoid", NULL};
    const char *spacing = "linear";
    *grid = (mb_niah_grid){0};
    int rc = mb_task_keys_string(keys, "spacing", spacings, &spacing, err);
    if (rc < 0)
        return rc;
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(keys->root, "lengths");
    if (given)
        rc = read_lengths(grid, keys, given, err);
    else if ((grid->lengths = calloc(length_count, sizeof *lengths))) {
        for (size_t i = 0; i < length_count; i++)
            grid->lengths[i] = lengths[i];
        grid->length_count = length_count;
    }
    if (rc < 0)
        return rc;
    given = cJSON_GetObjectItemCaseSensitive(keys->root, "depths");
    if (given)
        rc = read_depths(grid, keys, given, spacing[0] == 's', err);
    else if (depth_count && (grid->depths = calloc(depth_count, sizeof *depths))) {
        for (size_t i = 0; i < depth_count; i++)
            grid->depths[i] = depths[i];
        grid->depth_count = depth_count;
    }
    if (rc == MB_OK && (!grid->lengths || (depth_count && !grid->depths)))
        rc = mb_no_memory(err, "the grid of task %s", keys->task);
    return rc;
}

void mb_niah_grid_free(mb_niah_grid *grid)
{
    free(grid->lengths);
    free(grid->depths);
    *grid = (mb_niah_grid){0};
}
