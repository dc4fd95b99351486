/*
 * suite_index.c - what selections are made from: mass, votes, page bounds, page scores, key scores; against the
 * definitions (kernels.h) in double precision.
 */
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Uploads the log-sum-exp over the case's scope, computed here, as the input normaliser. */
static float *put_lse(suite *s, suite_attention *a)
{
    int64_t queries = (int64_t)a->args.rows.batch * a->args.rows.rows * a->args.query_heads;
    float *lse = suite_own(s, (size_t)queries * sizeof *lse);
    int32_t *slots = suite_own(s, (size_t)a->args.kv.capacity * 4);
    for (int64_t head = 0; head < a->heads; head++) {
        int64_t n = suite_slots(a, head, false, slots);
        for (int64_t row = 0; row < a->rows; row++)
            lse[suite_row_at(a, head, row)] = (float)suite_lse(a, head, row, slots, n);
    }
    a->args.lse = suite_put(s, lse, queries, MB_F32);
    return lse;
}

static void mass_case(suite *s)
{
    suite_attention a;
    suite_attention_make(s, &a);
    float *lse = put_lse(s, &a);
    int64_t stride = a.args.mass_stride = (a.args.rows.max_prefix + 63) / 64 * 64;
    a.args.mass = suite_poison(s, a.heads * stride, MB_F32);
    a.args.out = NULL;
    suite_ok(s, s->kernels->mass(s->device, &a.args), "mass");
    float *got = suite_get_guarded(s, a.args.mass, a.heads * stride, MB_F32, "mass");
    for (int64_t head = 0; head < a.heads; head++) {
        int64_t prefix = a.prefix[head / a.args.kv.kv_heads];
        for (int64_t j = 0; j < stride; j++) {
            double sum = 0.0, weight = 0.0;
            for (int64_t row = 0; row < a.rows; row++) {
                double w = suite_row_weight(&a, head, row);
                weight += w;
                if (w > 0.0 && j < prefix)
                    sum += w * exp(suite_logit(&a, head, row, j) - (double)lse[suite_row_at(&a, head, row)]);
            }
            if (a.active && !a.active[head])
                suite_expect(s, isnan(got[head * stride + j]), "inactive head %lld was written", (long long)head);
            else
                suite_close(s, "mass", head * stride + j, (double)got[head * stride + j], sum / weight,
                            s->bounds.mass * (sum / weight + (prefix ? 1.0 / (double)prefix : 0.0)));
        }
    }
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* Which keys a row names is certain only where no other logit lies within `close` of the k-th. */
static void votes_case(suite *s)
{
    const double close = 1e-4;
    suite_attention a;
    suite_attention_make(s, &a);
    float *lse = put_lse(s, &a);
    int64_t stride = a.args.mass_stride = (a.args.rows.max_prefix + 63) / 64 * 64, k = s->problem->k;
    float *votes = suite_poison(s, a.heads * stride, MB_F32), *stats = suite_poison(s, a.heads * 2, MB_F32);
    size_t bytes = s->kernels->votes_scratch(&a.args, (int32_t)k);
    void *scratch = suite_poison(s, (int64_t)bytes / 4, MB_F32);
    suite_ok(s, s->kernels->votes(s->device, &(mb_votes){a.args, (int32_t)k, votes, stats, scratch}), "votes");
    mb_hash *digest = s->digest; /* scratch is no output: lists in it may be in any order */
    s->digest = NULL;
    suite_get_guarded(s, scratch, (int64_t)bytes / 4, MB_F32, "scratch");
    s->digest = digest;
    float *got = suite_get_guarded(s, votes, a.heads * stride, MB_F32, "votes");
    float *got_stats = suite_get_guarded(s, stats, a.heads * 2, MB_F32, "stats");
    double *logit = suite_own(s, (size_t)stride * sizeof *logit),
           *sorted = suite_own(s, (size_t)stride * sizeof *sorted);
    for (int64_t head = 0; head < a.heads; head++) {
        int64_t n = a.prefix[head / a.args.kv.kv_heads], named = 0, total = 0;
        double *least = suite_own(s, (size_t)stride * sizeof *least),
               *most = suite_own(s, (size_t)stride * sizeof *most);
        double mass = 0.0;
        for (int64_t row = 0; row < a.rows; row++) {
            for (int64_t j = 0; j < n; j++)
                sorted[j] = logit[j] = suite_logit(&a, head, row, j);
            qsort(sorted, (size_t)n, sizeof *sorted, descending);
            double line = k < n ? sorted[k - 1] : -INFINITY, next = k < n ? sorted[k] : -INFINITY;
            for (int64_t j = 0; j < n; j++) {
                least[j] += k >= n || logit[j] > next + close;
                most[j] += k >= n || logit[j] >= line - close;
                if (got[head * stride + j] > 0.0f)
                    mass += exp(logit[j] - (double)lse[suite_row_at(&a, head, row)]);
            }
        }
        for (int64_t j = 0; j < stride; j++) {
            double vote = (double)got[head * stride + j];
            suite_expect(s, j < n ? vote >= least[j] && vote <= most[j] : vote == 0.0,
                         "votes[%lld] is %g, not %g to %g", (long long)j, vote, least[j], most[j]);
            named += vote > 0.0;
            total += (int64_t)vote;
        }
        suite_expect(s, total == a.rows * (k < n ? k : n), "%lld votes were cast", (long long)total);
        suite_close(s, "union", head, (double)got_stats[2 * head], (double)named, 0.0);
        suite_close(s, "coverage", head, (double)got_stats[2 * head + 1], mass / (double)a.rows, s->bounds.mass);
    }
}

static void bounds_case(suite *s)
{
    suite_attention a;
    suite_attention_make(s, &a);
    int32_t page = s->problem->page, whole = s->problem->mode, block = a.args.rows.block_keys;
    int64_t capacity = (a.args.rows.max_prefix + block + page - 1) / page + 1, dim = a.dim;
    void *bounds = suite_poison(s, a.heads * capacity * 2 * dim, s->type);
    suite_ok(s,
             s->kernels->page_bounds(
                 s->device, &(mb_page_bounds){a.args.rows, a.args.kv, page, (int32_t)capacity, whole, bounds}),
             "page_bounds");
    float *got = suite_get_guarded(s, bounds, a.heads * capacity * 2 * dim, s->type, "bounds");
    for (int64_t head = 0; head < a.heads; head++) {
        int64_t prefix = a.prefix[head / a.args.kv.kv_heads], end = whole ? prefix : prefix + block;
        int64_t first = whole ? 0 : prefix / page, last = (end + page - 1) / page;
        for (int64_t p = 0; p < capacity; p++)
            for (int64_t c = 0; c < dim; c++) {
                int64_t at = (head * capacity + p) * 2 * dim + c;
                double most = -INFINITY, least = INFINITY;
                if (p < first || p >= last) {
                    suite_expect(s, p < first ? isnan(got[at]) : true, "page %lld was written", (long long)p);
                    continue;
                }
                for (int64_t j = p * page; j < (p + 1) * page && j < end; j++) {
                    double key = (double)a.k[(head * a.args.kv.capacity + j) * dim + c];
                    most = fmax(most, key);
                    least = fmin(least, key);
                }
                suite_close(s, "max", at, (double)got[at], most, 0.0);
                suite_close(s, "min", at + dim, (double)got[at + dim], least, 0.0);
            }
    }
}

/* The bound of one row and page, and the sum of its terms' sizes. */
static double bound_of(const double *q, const float *bounds, int64_t dim, double *size)
{
    double sum = 0.0;
    for (int64_t c = 0; c < dim; c++) {
        double term = fmax(q[c] * (double)bounds[c], q[c] * (double)bounds[dim + c]);
        sum += term;
        *size += fabs(q[c]) * fmax(fabs((double)bounds[c]), fabs((double)bounds[dim + c]));
    }
    return sum;
}

static double merged_score(suite *s, const suite_attention *a, int64_t head, const float *bounds, int64_t p,
                           int64_t n, double *size)
{
    int64_t dim = a->dim;
    double q[256], sum = 0.0, weight = 0.0, most = -INFINITY;
    mb_merge merge = (mb_merge)s->problem->mode;
    double mean[256] = {0};
    *size = 0.0;
    for (int64_t row = 0; row < a->rows; row++) {
        double w = suite_row_weight(a, head, row), row_size = 0.0;
        if (w == 0.0)
            continue;
        weight += w;
        for (int64_t c = 0; c < dim; c++) {
            q[c] = (double)a->q[suite_row_at(a, head, row) * dim + c];
            mean[c] += w * q[c];
        }
        double bound = bound_of(q, bounds + p * 2 * dim, dim, &row_size);
        most = fmax(most, bound);
        *size = fmax(*size, row_size);
        if (merge == MB_MERGE_SOFTMAX) {
            double top = -INFINITY, total = 0.0, unused = 0.0, scale = 1.0 / sqrt((double)dim);
            double *all = malloc((size_t)n * sizeof *all);
            for (int64_t i = 0; i < n; i++) {
                all[i] = scale * bound_of(q, bounds + i * 2 * dim, dim, &unused);
                top = fmax(top, all[i]);
            }
            for (int64_t i = 0; i < n; i++)
                total += exp(all[i] - top);
            sum += w * exp(all[p] - top) / total;
            free(all);
        } else {
            sum += w * bound;
        }
    }
    if (merge == MB_MERGE_MAX)
        return most;
    if (merge == MB_MERGE_SOFTMAX)
        *size = 20.0 * sum / weight; /* an error in the exponent is relative */
    if (merge != MB_MERGE_QUERY)
        return sum / weight;
    for (int64_t c = 0; c < dim; c++)
        mean[c] /= weight;
    double unused = 0.0;
    return bound_of(mean, bounds + p * 2 * dim, dim, &unused);
}

static void page_scores_case(suite *s)
{
    suite_attention a;
    suite_attention_make(s, &a);
    int32_t page = s->problem->page;
    int64_t capacity = (a.args.rows.max_prefix + page - 1) / page, dim = a.dim, stride = capacity + 3;
    float *bounds = suite_own(s, (size_t)(a.heads * capacity * 2 * dim) * sizeof *bounds);
    for (int64_t head = 0; head < a.heads; head++)
        for (int64_t p = 0; p < capacity; p++)
            for (int64_t c = 0; c < dim; c++) {
                float *at = bounds + (head * capacity + p) * 2 * dim + c;
                int64_t prefix = a.prefix[head / a.args.kv.kv_heads];
                at[0] = p * page < prefix ? -INFINITY : NAN;
                at[dim] = p * page < prefix ? INFINITY : NAN;
                for (int64_t j = p * page; j < (p + 1) * page && j < prefix; j++) {
                    float key = a.k[(head * a.args.kv.capacity + j) * dim + c];
                    at[0] = fmaxf(at[0], key);
                    at[dim] = fminf(at[dim], key);
                }
            }
    float *scores = suite_poison(s, a.heads * stride, MB_F32);
    suite_ok(s,
             s->kernels->page_scores(s->device,
                                     &(mb_page_scores){a.args, page, (int32_t)capacity,
                                                       suite_put(s, bounds, a.heads * capacity * 2 * dim, s->type),
                                                       (mb_merge)s->problem->mode, scores, stride}),
             "page_scores");
    float *got = suite_get_guarded(s, scores, a.heads * stride, MB_F32, "scores");
    for (int64_t head = 0; head < a.heads; head++) {
        int64_t n = (a.prefix[head / a.args.kv.kv_heads] + page - 1) / page;
        for (int64_t p = 0; p < capacity; p++) {
            double size = 0.0, at = (double)got[head * stride + p];
            if (a.active && !a.active[head])
                suite_expect(s, isnan(at), "inactive head %lld was written", (long long)head);
            else if (p >= n)
                suite_expect(s, at == -INFINITY, "page %lld behind the prefix has score %g", (long long)p, at);
            else {
                double want = merged_score(s, &a, head, bounds + head * capacity * 2 * dim, p, n, &size);
                suite_close(s, "score", head * stride + p, at, want, s->bounds.product * size + 1e-12);
            }
        }
    }
}

static void key_scores_case(suite *s)
{
    suite_attention a;
    suite_attention_make(s, &a);
    int64_t stride = (a.args.rows.max_prefix + 63) / 64 * 64, dim = a.dim, kv_heads = a.args.kv.kv_heads;
    int32_t count = (int32_t)s->problem->k, *channels = suite_own(s, (size_t)(kv_heads * (count + 1)) * 4);
    for (int64_t h = 0; h < kv_heads; h++)
        for (int32_t c = 0; c < count; c++)
            channels[h * count + c] = (int32_t)((c * 7 + h * 3) % dim); /* distinct: 7 and dim share no factor */
    float *scores = suite_poison(s, a.heads * stride, MB_F32);
    suite_ok(s,
             s->kernels->key_scores(
                 s->device, &(mb_key_scores){a.args, count ? suite_put_ints(s, channels, kv_heads * count) : NULL,
                                             count, scores, stride}),
             "key_scores");
    float *got = suite_get_guarded(s, scores, a.heads * stride, MB_F32, "scores");
    for (int64_t head = 0; head < a.heads; head++)
        for (int64_t j = 0; j < a.prefix[head / kv_heads]; j++) {
            double sum = 0.0, weight = 0.0, size = 0.0;
            for (int64_t row = 0; row < a.rows; row++) {
                double w = suite_row_weight(&a, head, row);
                weight += w;
                for (int64_t c = 0; w > 0.0 && c < (count ? count : dim); c++) {
                    int64_t channel = count ? channels[head % kv_heads * count + c] : c;
                    double term = (double)a.q[suite_row_at(&a, head, row) * dim + channel] *
                                  (double)a.k[(head * a.args.kv.capacity + j) * dim + channel];
                    sum += w * term;
                    size += w * fabs(term);
                }
            }
            suite_close(s, "score", head * stride + j, (double)got[head * stride + j], sum / weight,
                        s->bounds.product * size / weight);
        }
}

/* The mean of n keys in double, each divided by its length where `unit` is set. */
static void mean_key(const float *keys, int64_t n, int64_t dim, bool unit, double *mean)
{
    memset(mean, 0, (size_t)dim * sizeof *mean);
    for (int64_t j = 0; j < n; j++) {
        double length = 0.0;
        for (int64_t c = 0; c < dim; c++)
            length += (double)keys[j * dim + c] * (double)keys[j * dim + c];
        for (int64_t c = 0; c < dim; c++)
            mean[c] += (double)keys[j * dim + c] / (unit ? sqrt(length) : 1.0) / (double)n;
    }
}

static void key_measures_case(suite *s)
{
    suite_attention a;
    suite_attention_make(s, &a);
    int64_t stride = (a.args.rows.max_prefix + 63) / 64 * 64, dim = a.dim, kv_heads = a.args.kv.kv_heads;
    mb_key_measure measure = (mb_key_measure)s->problem->mode;
    float *scores = suite_poison(s, a.heads * stride, MB_F32), *mean = suite_poison(s, a.heads * dim, MB_F32);
    mb_scores of = {
        scores, stride, a.args.rows.batch, a.args.kv.kv_heads, a.args.rows.prefix_len, a.args.rows.max_prefix, 1};
    mb_key_measures args = {of, a.args.kv, measure, measure == MB_KEY_NORM ? NULL : mean};
    suite_ok(s, s->kernels->key_measures(s->device, &args), "key_measures");
    float *got = suite_get_guarded(s, scores, a.heads * stride, MB_F32, "scores");
    for (int64_t head = 0; head < a.heads; head++) {
        const float *keys = a.k + head * a.args.kv.capacity * dim;
        int64_t n = a.prefix[head / kv_heads];
        double m[256];
        mean_key(keys, n, dim, measure == MB_KEY_COSINE, m);
        for (int64_t j = 0; j < n; j++) {
            double own = 0.0, other = 0.0, away = 0.0, product = 0.0;
            for (int64_t c = 0; c < dim; c++) {
                double x = (double)keys[j * dim + c];
                own += x * x;
                other += m[c] * m[c];
                away += (x - m[c]) * (x - m[c]);
                product += x * m[c];
            }
            double want = measure == MB_KEY_NORM       ? sqrt(own)
                          : measure == MB_KEY_DISTANCE ? sqrt(away)
                                                       : product / sqrt(own * other);
            suite_close(s, "measure", head * stride + j, (double)got[head * stride + j], want,
                        1e-6 * (1.0 + sqrt(own)));
        }
    }
}

void suite_index_case(suite *s)
{
    switch (s->problem->operation) {
    case MB_OP_mass:
        mass_case(s);
        break;
    case MB_OP_votes:
        votes_case(s);
        break;
    case MB_OP_page_bounds:
        bounds_case(s);
        break;
    case MB_OP_page_scores:
        page_scores_case(s);
        break;
    case MB_OP_key_measures:
        key_measures_case(s);
        break;
    default:
        key_scores_case(s);
        break;
    }
}
