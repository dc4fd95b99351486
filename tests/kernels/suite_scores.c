/*
 * suite_scores.c - top-k and top-p against a full sort, the arithmetic on score rows, states, distances, counts.
 */
#include "tests/kernels/suite.h"

#include "kernels/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct ranked {
    float score;
    int32_t index;
} ranked;

/* Best first: numbers by value, then NaN; equals by index. -INFINITY is left out before. */
static int better(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (isnan(x->score) != isnan(y->score))
        return isnan(x->score) ? 1 : -1;
    if (!isnan(x->score) && x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

typedef struct rows {
    int32_t prefix[64], longest;
    int64_t heads, stride;
    int32_t *lengths; /* device */
} rows;

static void rows_make(suite *s, rows *r, int32_t page)
{
    const mb_kernel_case *p = s->problem;
    r->longest = 0;
    for (int32_t b = 0; b < p->batch; b++) {
        r->prefix[b] = p->prefix[b % 4];
        r->longest = r->prefix[b] > r->longest ? r->prefix[b] : r->longest;
    }
    r->longest += p->slack;
    r->heads = (int64_t)p->batch * p->kv_heads;
    r->stride = (r->longest + page - 1) / page + 7;
    r->lengths = suite_put_ints(s, r->prefix, p->batch);
}

static mb_scores scores_of(const suite *s, const rows *r, float *values, int32_t page)
{
    const mb_kernel_case *p = s->problem;
    return (mb_scores){values, r->stride, p->batch, p->kv_heads, r->lengths, r->longest, page};
}

static void top_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    bool share = p->operation == MB_OP_top_p;
    rows r;
    rows_make(s, &r, p->page);
    int32_t capacity = (int32_t)(share ? p->n : p->k);
    float *scores = suite_own(s, (size_t)(r.heads * r.stride) * sizeof *scores);
    int32_t *wanted = suite_own(s, (size_t)r.heads * 4);
    for (int64_t i = 0; i < r.heads * r.stride; i++) {
        uint64_t kind = mb_random_below(&s->random, 40);
        /* Many ties; multiples of 1/64, so that sums in fp64 are the same in any order. */
        scores[i] = (float)mb_random_below(&s->random, 500) / 64.0f - (share ? 0.0f : 3.0f);
        if (!share && kind < 4)
            scores[i] = kind == 0 ? NAN : kind == 1 ? -INFINITY : kind == 2 ? -0.0f : 0.0f;
        if (i % r.stride >= (r.prefix[i / r.stride / p->kv_heads] + p->page - 1) / p->page)
            scores[i] = 1e30f; /* behind the prefix: would win */
    }
    for (int64_t i = 0; !share && p->mode && i < r.heads * r.stride;
         i++) /* the best are neighbours; no best at all */
        scores[i] = p->mode == 1 ? (float)(i % r.stride) : 0.5f;
    for (int64_t i = 0; !share && !p->mode && i < r.stride; i++) /* first head: hardly anything eligible */
        if (i > 5 && r.heads > 1)
            scores[i] = i % 2 ? -INFINITY : NAN;
    for (int64_t h = 0; h < r.heads; h++)
        wanted[h] = (int32_t)(h * 37 % (2 * p->k)); /* dynamic: 0 .. beyond the capacity */
    float *device_scores = suite_put(s, scores, r.heads * r.stride, MB_F32);
    int32_t *ids = suite_poison(s, r.heads * capacity, MB_F32), *counts = suite_poison(s, r.heads, MB_F32);
    void *scratch =
        suite_poison(s, (int64_t)s->kernels->top_k_scratch(p->batch, p->kv_heads, (int32_t)r.stride) / 4, MB_F32);
    bool dynamic = p->flags & MB_CASE_DYNAMIC;
    mb_scores of = scores_of(s, &r, device_scores, p->page);
    mb_page_set chosen = {p->page, capacity, ids, counts};
    mb_top_p by_share = {of, (float)p->mode / 100.0f, (int32_t)p->k, (int32_t)p->n, chosen, scratch};
    mb_top_k by_number = {of, (int32_t)p->k, dynamic ? suite_put_ints(s, wanted, r.heads) : NULL, chosen, scratch};
    int rc = share ? s->kernels->top_p(s->device, &by_share) : s->kernels->top_k(s->device, &by_number);
    suite_ok(s, rc, share ? "top_p" : "top_k");
    int32_t *got = suite_get_ints(s, ids, r.heads * capacity), *got_counts = suite_get_ints(s, counts, r.heads);
    ranked *order = suite_own(s, (size_t)r.stride * sizeof *order);
    int32_t *best = suite_own(s, (size_t)r.stride * sizeof *best);
    for (int64_t h = 0; h < r.heads; h++) {
        int64_t n = (r.prefix[h / p->kv_heads] + p->page - 1) / p->page, eligible = 0, k = 0;
        double total = 0.0, sum = 0.0;
        for (int64_t i = 0; i < n; i++)
            if (scores[h * r.stride + i] != -INFINITY)
                order[eligible++] = (ranked){scores[h * r.stride + i], (int32_t)i};
        qsort(order, (size_t)eligible, sizeof *order, better);
        for (int64_t i = 0; i < eligible; i++)
            total += (double)order[i].score;
        if (share) {
            while (k < eligible && k < p->n && (k < p->k || sum < (double)((float)p->mode / 100.0f) * total))
                sum += (double)order[k++].score;
        } else {
            k = dynamic ? wanted[h] : p->k;
            k = k < capacity ? k : capacity;
            k = k < eligible ? k : eligible;
        }
        for (int64_t i = 0; i < k; i++)
            best[i] = order[i].index;
        qsort(best, (size_t)k, sizeof *best, ascending);
        suite_expect(s, got_counts[h] == k, "head %lld has %d entries, not %lld", (long long)h, got_counts[h],
                     (long long)k);
        for (int64_t i = 0; i < k && got_counts[h] == k; i++)
            suite_expect(s, got[h * capacity + i] == best[i], "head %lld: entry %lld is %d, not %d", (long long)h,
                         (long long)i, got[h * capacity + i], best[i]);
    }
}

static void edges_and_mean(suite *s, const rows *r, const float *scores)
{
    const mb_kernel_case *p = s->problem;
    int64_t all = r->heads * r->stride;
    float *edged = suite_put(s, scores, all, MB_F32), *mean = suite_put(s, scores, all, MB_F32);
    mb_scores averaged = scores_of(s, r, mean, 1);
    suite_ok(
        s, s->kernels->score_edges(s->device, &(mb_score_edges){scores_of(s, r, edged, p->page), 1, 2, INFINITY}),
        "score_edges");
    suite_ok(s, s->kernels->score_head_mean(s->device, &averaged), "score_head_mean");
    float *got_edged = suite_get(s, edged, all, MB_F32), *got_mean = suite_get(s, mean, all, MB_F32);
    for (int64_t h = 0; h < r->heads; h++) {
        int64_t prefix = r->prefix[h / p->kv_heads], pages = (prefix + p->page - 1) / p->page;
        for (int64_t i = 0; i < r->stride; i++) {
            bool edge = i < pages && (i < 1 || i >= pages - 2);
            double sum = 0.0;
            suite_close(s, "edges", h * r->stride + i, (double)got_edged[h * r->stride + i],
                        edge ? INFINITY : (double)scores[h * r->stride + i], 0.0);
            for (int32_t other = 0; other < p->kv_heads; other++)
                sum += (double)scores[(h / p->kv_heads * p->kv_heads + other) * r->stride + i];
            if (i < prefix)
                suite_close(s, "head mean", h * r->stride + i, (double)got_mean[h * r->stride + i],
                            sum / p->kv_heads, 1e-6);
        }
    }
}

static void pool_and_smooth(suite *s, const rows *r, const float *scores, float *device_scores)
{
    const mb_kernel_case *p = s->problem;
    int64_t pages = (r->longest + p->page - 1) / p->page, out_stride = pages + 2, half = 3;
    mb_scores of = scores_of(s, r, device_scores, 1);
    for (mb_pooling mode = MB_POOL_SUM; mode <= MB_POOL_PADDED; mode++) {
        float *pooled = suite_poison(s, r->heads * out_stride, MB_F32);
        float *smooth = suite_poison(s, r->heads * r->stride, MB_F32);
        bool max = mode == MB_POOL_MAX;
        suite_ok(s,
                 s->kernels->score_pool(
                     s->device, &(mb_score_pool){of, p->page, max ? mode : MB_POOL_SUM, pooled, out_stride}),
                 "score_pool");
        suite_ok(
            s, s->kernels->score_smooth(s->device, &(mb_score_smooth){of, (int32_t)(2 * half + 1), mode, smooth}),
            "score_smooth");
        float *got_pool = suite_get_guarded(s, pooled, r->heads * out_stride, MB_F32, "pool");
        float *got_smooth = suite_get_guarded(s, smooth, r->heads * r->stride, MB_F32, "smooth");
        for (int64_t h = 0; h < r->heads; h++) {
            int64_t prefix = r->prefix[h / p->kv_heads];
            const float *row = scores + h * r->stride;
            for (int64_t i = 0; i * p->page < prefix; i++) {
                double sum = 0.0, most = -INFINITY;
                for (int64_t j = i * p->page; j < (i + 1) * p->page && j < prefix; j++) {
                    sum += (double)row[j];
                    most = fmax(most, (double)row[j]);
                }
                suite_close(s, "pool", h * out_stride + i, (double)got_pool[h * out_stride + i], max ? most : sum,
                            max ? 0.0 : 1e-5);
            }
            for (int64_t j = 0; j < prefix; j++) {
                double sum = 0.0, most = -INFINITY, n = 0.0;
                for (int64_t i = j - half; i <= j + half; i++) {
                    if (i < 0 || i >= prefix)
                        continue;
                    sum += (double)row[i];
                    most = fmax(most, (double)row[i]);
                    n += 1.0;
                }
                suite_close(s, "smooth", h * r->stride + j, (double)got_smooth[h * r->stride + j],
                            max ? most : sum / (mode == MB_POOL_PADDED ? 2.0 * (double)half + 1.0 : n),
                            max ? 0.0 : 1e-6);
            }
        }
    }
}

static void scores_case(suite *s)
{
    rows r;
    rows_make(s, &r, 1);
    int64_t all = r.heads * r.stride;
    float *x = suite_own(s, (size_t)all * sizeof *x), *y = suite_own(s, (size_t)all * sizeof *y);
    for (int64_t i = 0; i < all; i++) {
        x[i] = (float)mb_random_unit(&s->random) - 0.3f;
        y[i] = (float)mb_random_unit(&s->random);
    }
    float *device_x = suite_put(s, x, all, MB_F32), *device_y = suite_put(s, y, all, MB_F32);
    edges_and_mean(s, &r, x);
    pool_and_smooth(s, &r, x, device_x);
    suite_ok(s, s->kernels->score_axpby(s->device, &(mb_score_axpby){0.25f, device_x, 0.5f, device_y, all}),
             "score_axpby");
    float *got = suite_get(s, device_y, all, MB_F32);
    for (int64_t i = 0; i < all; i++)
        suite_close(s, "axpby", i, (double)got[i], 0.25 * (double)x[i] + 0.5 * (double)y[i], 1e-7);
    float *fresh = suite_poison(s, all, MB_F32); /* a factor of 0 does not read NaN */
    suite_ok(s, s->kernels->score_axpby(s->device, &(mb_score_axpby){1.0f, device_x, 0.0f, fresh, all}),
             "score_axpby");
    got = suite_get_guarded(s, fresh, all, MB_F32, "axpby");
    for (int64_t i = 0; i < all; i++)
        suite_close(s, "axpby", i, (double)got[i], (double)x[i], 0.0);
    float *random = suite_poison(s, all, MB_F32);
    suite_ok(s, s->kernels->score_random(s->device, &(mb_score_random){scores_of(s, &r, random, 1), 77}),
             "score_random");
    got = suite_get_guarded(s, random, all, MB_F32, "random");
    double mean = 0.0;
    for (int64_t h = 0; h < r.heads; h++)
        for (int64_t j = 0; j < r.longest; j++) {
            float want = mb_hash_unit(77, (uint64_t)j);
            suite_expect(s, want >= 0.0f && want < 1.0f, "hash of %lld is %g", (long long)j, (double)want);
            suite_close(s, "random", j, (double)got[h * r.stride + j], (double)want, 0.0);
            mean += (double)want / (double)(r.heads * r.longest);
        }
    suite_expect(s, r.longest < 600 || fabs(mean - 0.5) < 0.05, "random scores have mean %g", mean);
}

static void state_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    int64_t dim = p->head_dim, n = p->m * dim;
    bool down = p->operation == MB_OP_state_downdate;
    mb_type types[3];
    int32_t fp32[3];
    for (int i = 0; i < 3; i++) {
        fp32[i] = p->mode >> i & 1;
        types[i] = fp32[i] ? MB_F32 : s->type;
    }
    float *a = suite_random(s, n, 1.0), *b = suite_random(s, n, 1.0);
    float *lse_a = suite_own(s, (size_t)p->m * 4), *lse_b = suite_own(s, (size_t)p->m * 4);
    for (int64_t i = 0; i < p->m; i++) {
        lse_a[i] = (float)(20.0 * mb_random_unit(&s->random) - 5.0);
        lse_b[i] = lse_a[i] + (float)((down ? -4.0 : 8.0) * (mb_random_unit(&s->random) - (down ? -0.02 : 0.5)));
        if (i % 7 == 3)
            lse_b[i] = -INFINITY;
        if (i % 11 == 5)
            lse_a[i] = -INFINITY;
        if (down && i % 13 == 6)
            lse_b[i] = lse_a[i]; /* nothing is left */
        if (down && i % 17 == 8)
            lse_b[i] = lse_a[i] + 1.0f;     /* inconsistent */
        for (int64_t c = 0; c < dim; c++) { /* what an empty state holds does not matter */
            a[i * dim + c] = lse_a[i] == -INFINITY ? NAN : a[i * dim + c];
            b[i * dim + c] = lse_b[i] == -INFINITY ? NAN : b[i * dim + c];
        }
    }
    void *out = suite_poison(s, n, types[2]);
    float *lse = suite_poison(s, p->m, MB_F32);
    void *da = suite_put(s, a, n, types[0]), *db = suite_put(s, b, n, types[1]);
    float *la = suite_put(s, lse_a, p->m, MB_F32), *lb = suite_put(s, lse_b, p->m, MB_F32);
    mb_state_pair pair = {p->m, p->head_dim, {da, la, fp32[0]}, {db, lb, fp32[1]}, {out, lse, fp32[2]}};
    int rc = (down ? s->kernels->state_downdate : s->kernels->state_merge)(s->device, &pair);
    suite_ok(s, rc, down ? "state_downdate" : "state_merge");
    float *got = suite_get_guarded(s, out, n, types[2], "state"),
          *got_lse = suite_get_guarded(s, lse, p->m, MB_F32, "lse");
    for (int64_t i = 0; i < p->m; i++) {
        double x = (double)lse_a[i], y = (double)lse_b[i], both, wa, wb;
        if (!down) {
            double m = fmax(x, y);
            both = m == -INFINITY ? m : m + log(exp(x - m) + exp(y - m));
            wa = both == -INFINITY ? 0.0 : exp(x - both);
            wb = both == -INFINITY ? 0.0 : exp(y - both);
        } else if (x == -INFINITY || fabs(expm1(y - x)) <= 1e-5) {
            both = -INFINITY;
            wa = wb = 0.0;
        } else if (y > x) {
            both = x;
            wa = 1.0;
            wb = 0.0;
        } else {
            double part = exp(y - x);
            both = x + log(fmax(1.0 - part + 1e-7, 1e-30));
            wa = exp(x - both);
            wb = -wa * part;
        }
        suite_close(s, "lse", i, (double)got_lse[i], both, 4e-6 * (1.0 + fabs(wa)));
        for (int64_t c = 0; c < dim; c++) {
            double want =
                (wa == 0.0 ? 0.0 : wa * (double)a[i * dim + c]) + (wb == 0.0 ? 0.0 : wb * (double)b[i * dim + c]);
            suite_close(s, "o", i * dim + c, (double)got[i * dim + c], want,
                        8e-6 * (1.0 + wa * wa) + suite_rounding(types[2], want));
        }
    }
    if (down || types[0] != types[2])
        return;
    pair.out = pair.a;
    rc = s->kernels->state_merge(s->device, &pair);
    suite_ok(s, rc, "state_merge in place");
    suite_expect(s, memcmp(got, suite_get(s, da, n, types[2]), (size_t)n * sizeof *got) == 0, "in place differs");
}

static void distance_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    int64_t dim = p->head_dim, n = p->m * dim;
    float *a = suite_random(s, n, 1.0), *b = suite_random(s, n, 1.0);
    float *distance = suite_poison(s, p->m, MB_F32), *norm = suite_poison(s, p->m, MB_F32);
    suite_ok(s,
             s->kernels->row_distance(s->device,
                                      &(mb_row_distance){suite_put(s, a, n, s->type), suite_put(s, b, n, s->type),
                                                         p->m, p->head_dim, distance, norm}),
             "row_distance");
    float *got = suite_get_guarded(s, distance, p->m, MB_F32, "distance");
    float *got_norm = suite_get_guarded(s, norm, p->m, MB_F32, "norm");
    for (int64_t i = 0; i < p->m; i++) {
        double far = 0.0, size = 0.0;
        for (int64_t c = i * dim; c < (i + 1) * dim; c++) {
            far += ((double)a[c] - (double)b[c]) * ((double)a[c] - (double)b[c]);
            size += (double)b[c] * (double)b[c];
        }
        suite_close(s, "distance", i, (double)got[i], far, 1e-5 * far);
        suite_close(s, "norm", i, (double)got_norm[i], size, 1e-5 * size);
    }
}

static void count_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    rows r;
    rows_make(s, &r, 1);
    int32_t *ids = suite_own(s, (size_t)(r.heads * p->k) * 4), *counts = suite_own(s, (size_t)r.heads * 4);
    double want[2] = {5.0, 7.0}, got[2];
    for (int64_t h = 0; h < r.heads; h++) {
        int32_t prefix = r.prefix[h / p->kv_heads], pages = (prefix + p->page - 1) / p->page;
        counts[h] = h % 3 == 1 ? -1 : h % 3 == 2 ? 0 : (int32_t)(pages < p->k ? pages : p->k);
        want[1] += prefix;
        want[0] += counts[h] < 0 || p->flags & MB_CASE_DENSE ? prefix : 0;
        for (int32_t i = 0; i < counts[h]; i++) { /* the last pages, so that the partial one is among them */
            int32_t page = ids[h * p->k + i] = pages - counts[h] + i;
            if (!(p->flags & MB_CASE_DENSE))
                want[0] += (page + 1) * p->page <= prefix ? p->page : prefix - page * p->page;
        }
    }
    mb_page_set pages = {.granularity = p->page,
                         .capacity = (int32_t)p->k,
                         .ids = suite_put_ints(s, ids, r.heads * p->k),
                         .counts = suite_put_ints(s, counts, r.heads)};
    mb_rows args = {
        .batch = p->batch, .rows = 4, .prefix_len = r.lengths, .max_prefix = r.longest, .block_keys = 4};
    double *tokens = suite_poison(s, 4, MB_F32), start[2] = {5.0, 7.0};
    suite_ok(s, s->kernels->upload(s->device, tokens, start, sizeof start), "upload");
    suite_ok(
        s,
        s->kernels->count_work(
            s->device, &(mb_key_count){args, p->kv_heads, p->flags & MB_CASE_DENSE ? NULL : &pages, NULL, tokens}),
        "count_work");
    suite_ok(s, s->kernels->download(s->device, got, tokens, sizeof got), "download");
    suite_close(s, "read", 0, got[0], want[0], 0.0);
    suite_close(s, "there", 1, got[1], want[1], 0.0);
}

void suite_scores_case(suite *s)
{
    switch (s->problem->operation) {
    case MB_OP_top_k:
    case MB_OP_top_p:
        top_case(s);
        break;
    case MB_OP_score_edges:
        scores_case(s);
        break;
    case MB_OP_state_merge:
    case MB_OP_state_downdate:
        state_case(s);
        break;
    case MB_OP_row_distance:
        distance_case(s);
        break;
    default:
        count_case(s);
        break;
    }
}
