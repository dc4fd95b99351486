/*
 * suite_attention.c - attend, attend_sparse and attend_prefill against softmax in double precision, key by key.
 * Slots of the cache that an operation may not see hold NaN, so that reading one shows.
 */
#include "tests/kernels/suite.h"

#include <math.h>
#include <string.h>

static int32_t prefix_of(const mb_kernel_case *p, int32_t b)
{
    return p->prefix[b % 4];
}

void suite_attention_make(suite *s, suite_attention *a)
{
    const mb_kernel_case *p = s->problem;
    int32_t block_keys = p->block_keys ? p->block_keys : p->rows + p->row_offset, longest = 0;
    memset(a, 0, sizeof *a);
    for (int32_t b = 0; b < p->batch; b++) {
        a->prefix[b] = prefix_of(p, b);
        longest = a->prefix[b] > longest ? a->prefix[b] : longest;
    }
    int32_t capacity = longest + p->slack + block_keys + 5;
    a->heads = (int64_t)p->batch * p->kv_heads;
    a->group = p->query_heads / p->kv_heads;
    a->dim = p->head_dim;
    a->rows = a->group * p->rows;
    int64_t slots = a->heads * capacity, queries = (int64_t)p->batch * p->rows * p->query_heads;
    /* Logits of a standard deviation of about 2: a softmax that is neither flat nor a maximum. */
    a->q = suite_random(s, queries * a->dim, 3.0);
    a->k = suite_random(s, slots * a->dim, 2.0);
    a->v = suite_random(s, slots * a->dim, 1.0);
    a->largest_v = 1.0;
    for (int64_t i = 0; i < slots; i++) {
        int64_t slot = i % capacity, b = i / capacity / p->kv_heads;
        for (int64_t c = 0; slot >= a->prefix[b] + block_keys && c < a->dim; c++)
            a->k[i * a->dim + c] = a->v[i * a->dim + c] = NAN;
    }
    if (p->flags & MB_CASE_WEIGHTS) {
        a->weight = suite_own(s, (size_t)p->batch * (size_t)p->rows * sizeof *a->weight);
        for (int32_t r = 0; r < p->batch * p->rows; r++)
            a->weight[r] = r % 3 == 1 ? 0.0f : r % 3 == 0 ? 1.0f : 0.5f;
        for (int64_t i = 0; p->rows > 1 && i < a->dim; i++) /* a row that counts nothing may hold anything */
            a->q[p->query_heads * a->dim + i] = p->operation == MB_OP_attend ? 0.5f : NAN;
    }
    if (p->flags & MB_CASE_ACTIVE) {
        a->active = suite_own(s, (size_t)a->heads * sizeof *a->active);
        for (int64_t h = 0; h < a->heads; h++)
            a->active[h] = h % 2 == 0;
    }
    a->args = (mb_attention){.rows = {.batch = p->batch,
                                      .rows = p->rows,
                                      .row_offset = p->row_offset,
                                      .prefix_len = suite_put_ints(s, a->prefix, p->batch),
                                      .max_prefix = longest + p->slack,
                                      .block_keys = block_keys},
                             .kv = {.k = suite_put(s, a->k, slots * a->dim, s->type),
                                    .v = suite_put(s, a->v, slots * a->dim, s->type),
                                    .batch = p->batch,
                                    .kv_heads = p->kv_heads,
                                    .capacity = capacity,
                                    .head_dim = p->head_dim},
                             .query_heads = p->query_heads,
                             .q = suite_put(s, a->q, queries * a->dim, s->type),
                             .scope = p->scope,
                             .active = a->active ? suite_put_ints(s, a->active, a->heads) : NULL,
                             .out = suite_poison(s, queries * a->dim, s->type),
                             .lse = suite_poison(s, queries, MB_F32),
                             .row_weight =
                                 a->weight ? suite_put(s, a->weight, (int64_t)p->batch * p->rows, MB_F32) : NULL};
}

int64_t suite_row_at(const suite_attention *a, int64_t head, int64_t row)
{
    int64_t kv_heads = a->args.kv.kv_heads, b = head / kv_heads, h = head % kv_heads;
    return (b * a->args.rows.rows + row / a->group) * a->args.query_heads + h * a->group + row % a->group;
}

double suite_row_weight(const suite_attention *a, int64_t head, int64_t row)
{
    int64_t b = head / a->args.kv.kv_heads;
    return a->weight ? (double)a->weight[b * a->args.rows.rows + row / a->group] : 1.0;
}

double suite_logit(const suite_attention *a, int64_t head, int64_t row, int64_t slot)
{
    const float *q = a->q + suite_row_at(a, head, row) * a->dim;
    const float *k = a->k + (head * a->args.kv.capacity + slot) * a->dim;
    double sum = 0.0;
    for (int64_t c = 0; c < a->dim; c++)
        sum += (double)q[c] * (double)k[c];
    return sum / sqrt((double)a->dim);
}

double suite_lse(const suite_attention *a, int64_t head, int64_t row, const int32_t *slots, int64_t n)
{
    double most = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < n; j++)
        most = fmax(most, suite_logit(a, head, row, slots[j]));
    for (int64_t j = 0; j < n; j++)
        sum += exp(suite_logit(a, head, row, slots[j]) - most);
    return n ? most + log(sum) : -INFINITY;
}

int64_t suite_slots(const suite_attention *a, int64_t head, bool pages, int32_t *slots)
{
    int64_t n = 0, prefix = a->prefix[head / a->args.kv.kv_heads];
    bool dense = !pages || a->counts[head] < 0;
    for (int32_t j = 0; dense && a->args.scope != MB_SCOPE_BLOCK && j < prefix; j++)
        slots[n++] = j;
    for (int32_t i = 0; !dense && a->args.scope != MB_SCOPE_BLOCK && i < a->counts[head]; i++) {
        int32_t page = a->ids[head * a->args.pages->capacity + i], size = a->args.pages->granularity;
        for (int32_t j = page * size; j < (page + 1) * size && j < prefix; j++)
            slots[n++] = j;
    }
    for (int32_t j = 0; a->args.scope != MB_SCOPE_PREFIX && j < a->args.rows.block_keys; j++)
        slots[n++] = (int32_t)prefix + j;
    return n;
}

void suite_pages_make(suite *s, suite_attention *a, int32_t page, int32_t count)
{
    unsigned flags = s->problem->flags;
    mb_page_set *pages = suite_own(s, sizeof *pages);
    a->ids = suite_own(s, (size_t)(a->heads * count) * 4);
    a->counts = suite_own(s, (size_t)a->heads * 4);
    for (int64_t h = 0; h < a->heads; h++) {
        int32_t there = (a->prefix[h / a->args.kv.kv_heads] + page - 1) / page,
                left = there < count ? there : count;
        if (flags & MB_CASE_MIXED && h % 3 == 1) {
            a->counts[h] = -1;
            continue;
        }
        if (flags & MB_CASE_NOTHING && h % 3 == 2)
            continue;
        /* `left` of the pages in ascending order, every choice equally likely; the last, partial one too. */
        for (int32_t p = 0; p < there; p++)
            if ((int32_t)mb_random_below(&s->random, (uint64_t)(there - p)) < left - a->counts[h] ||
                (p == there - 1 && a->counts[h] < left))
                a->ids[h * count + a->counts[h]++] = p;
    }
    *pages = (mb_page_set){.granularity = page,
                           .capacity = count,
                           .ids = suite_put_ints(s, a->ids, a->heads * count),
                           .counts = suite_put_ints(s, a->counts, a->heads)};
    a->args.pages = pages;
}

/* Compares out and lse of every head with the softmax over its slots. */
static void check_attention(suite *s, const suite_attention *a, bool pages)
{
    int64_t queries = (int64_t)a->args.rows.batch * a->args.rows.rows * a->args.query_heads, dim = a->dim;
    float *out = suite_get_guarded(s, a->args.out, queries * dim, s->type, "out");
    float *lse = suite_get_guarded(s, a->args.lse, queries, MB_F32, "lse");
    int32_t *slots = suite_own(s, (size_t)a->args.kv.capacity * 4);
    double *chance = suite_own(s, (size_t)a->args.kv.capacity * sizeof *chance), want[256];
    for (int64_t head = 0; head < a->heads; head++) {
        int64_t n = suite_slots(a, head, pages, slots);
        for (int64_t row = 0; row < a->rows; row++) {
            int64_t at = suite_row_at(a, head, row);
            if (a->active && !a->active[head]) {
                suite_expect(s, isnan(lse[at]) && isnan(out[at * dim]), "inactive head %lld was written",
                             (long long)head);
                continue;
            }
            double all = suite_lse(a, head, row, slots, n);
            memset(want, 0, sizeof want);
            for (int64_t j = 0; j < n; j++) {
                const float *v = a->v + (head * a->args.kv.capacity + slots[j]) * dim;
                chance[j] = exp(suite_logit(a, head, row, slots[j]) - all);
                for (int64_t c = 0; c < dim; c++)
                    want[c] += chance[j] * (double)v[c];
            }
            suite_close(s, "lse", at, (double)lse[at], all, s->bounds.lse);
            for (int64_t c = 0; c < dim; c++)
                suite_close(s, "out", at * dim + c, (double)out[at * dim + c], want[c],
                            s->bounds.attention * a->largest_v + suite_rounding(s->type, want[c]));
        }
    }
}

/* The by-products of attend against the definition. */
static void check_mass(suite *s, const suite_attention *a, const float *mass, const float *tiles)
{
    int64_t stride = a->args.mass_stride, tile_stride = a->args.tile_stride;
    int32_t *slots = suite_own(s, (size_t)a->args.kv.capacity * 4);
    double *want = suite_own(s, (size_t)stride * sizeof *want);
    for (int64_t head = 0; head < a->heads; head++) {
        int64_t prefix = a->prefix[head / a->args.kv.kv_heads], n = suite_slots(a, head, false, slots);
        double weight = 0.0;
        if (a->active && !a->active[head])
            continue;
        memset(want, 0, (size_t)stride * sizeof *want);
        for (int64_t row = 0; row < a->rows; row++) {
            double w = suite_row_weight(a, head, row), all = w > 0.0 ? suite_lse(a, head, row, slots, n) : 0.0;
            weight += w;
            for (int64_t j = 0; w > 0.0 && j < prefix; j++)
                want[j] += w * exp(suite_logit(a, head, row, j) - all);
        }
        double mean = prefix ? 1.0 / (double)prefix : 0.0;
        for (int64_t j = 0; j < stride; j++)
            suite_close(s, "mass", head * stride + j, (double)mass[head * stride + j], want[j] / weight,
                        s->bounds.mass * (want[j] / weight + mean));
        for (int64_t t = 0; tiles && t < tile_stride; t++) {
            double sum = 0.0;
            for (int64_t j = t * 64; j < (t + 1) * 64 && j < stride; j++)
                sum += want[j] / weight;
            suite_close(s, "tile_mass", head * tile_stride + t, (double)tiles[head * tile_stride + t], sum,
                        s->bounds.mass * (sum + 64.0 * mean));
        }
    }
}

static void attend_case(suite *s)
{
    suite_attention a;
    suite_attention_make(s, &a);
    bool mass = s->problem->flags & MB_CASE_MASS_OUT;
    int64_t stride = (a.args.rows.max_prefix + 63) / 64 * 64;
    if (mass) {
        a.args.mass_stride = stride;
        a.args.tile_stride = stride / 64;
        a.args.mass = suite_poison(s, a.heads * stride, MB_F32);
        a.args.tile_mass = suite_poison(s, a.heads * stride / 64, MB_F32);
    }
    suite_ok(s, s->kernels->attend(s->device, &a.args), "attend");
    check_attention(s, &a, false);
    if (mass)
        check_mass(s, &a, suite_get_guarded(s, a.args.mass, a.heads * stride, MB_F32, "mass"),
                   suite_get_guarded(s, a.args.tile_mass, a.heads * stride / 64, MB_F32, "tile_mass"));
}

static void sparse_case(suite *s)
{
    suite_attention a;
    suite_attention_make(s, &a);
    suite_pages_make(s, &a, s->problem->page, (int32_t)s->problem->k);
    suite_ok(s, s->kernels->attend_sparse(s->device, &a.args), "attend_sparse");
    check_attention(s, &a, true);
    if (!(s->problem->flags & MB_CASE_FULL) || !s->bounds.same_bits)
        return;
    int64_t n = (int64_t)a.args.rows.batch * a.args.rows.rows * a.args.query_heads * a.dim;
    float *sparse = suite_get(s, a.args.out, n, s->type);
    a.args.pages = NULL;
    suite_ok(s, s->kernels->attend(s->device, &a.args), "attend");
    suite_expect(s, memcmp(sparse, suite_get(s, a.args.out, n, s->type), (size_t)n * sizeof *sparse) == 0,
                 "all pages and no pages differ");
}

static void prefill_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    int64_t dim = p->head_dim, heads = p->query_heads, group = heads / p->kv_heads, end = p->n + p->m;
    int64_t capacity = end + 9, slots = (int64_t)p->batch * p->kv_heads * capacity, sequence = p->batch - 1;
    float *q = suite_random(s, p->m * heads * dim, 3.0), *k = suite_random(s, slots * dim, 2.0);
    float *v = suite_random(s, slots * dim, 1.0);
    for (int64_t i = 0; i < slots; i++)
        for (int64_t c = 0; (i % capacity >= end || i / capacity / p->kv_heads != sequence) && c < dim; c++)
            k[i * dim + c] = v[i * dim + c] = NAN;
    void *out = suite_poison(s, p->m * heads * dim, s->type);
    mb_kv kv = {.k = suite_put(s, k, slots * dim, s->type),
                .v = suite_put(s, v, slots * dim, s->type),
                .batch = p->batch,
                .kv_heads = p->kv_heads,
                .capacity = (int32_t)capacity,
                .head_dim = p->head_dim};
    suite_ok(s,
             s->kernels->attend_prefill(s->device, &(mb_prefill){kv, (int32_t)sequence, p->query_heads,
                                                                 suite_put(s, q, p->m * heads * dim, s->type),
                                                                 p->n, p->m, (int32_t)p->k, out, p->page}),
             "attend_prefill");
    float *got = suite_get_guarded(s, out, p->m * heads * dim, s->type, "out");
    double *logit = suite_own(s, (size_t)end * sizeof *logit), want[512];
    for (int64_t r = 0; r < p->m; r++)
        for (int64_t h = 0; h < heads; h++) {
            int64_t limit = ((p->n + r) / p->k + 1) * p->k, at = (r * heads + h) * dim;
            int64_t base = (sequence * p->kv_heads + h / group) * capacity;
            int64_t from = p->page > 0 && p->n + r - p->page + 1 > 0 ? p->n + r - p->page + 1 : 0;
            double most = -INFINITY, sum = 0.0;
            limit = limit < end ? limit : end;
            memset(want, 0, sizeof want);
            for (int64_t j = from; j < limit; j++) {
                logit[j] = 0.0;
                for (int64_t c = 0; c < dim; c++)
                    logit[j] += (double)q[at + c] * (double)k[(base + j) * dim + c];
                logit[j] /= sqrt((double)dim);
                most = fmax(most, logit[j]);
            }
            for (int64_t j = from; j < limit; j++) {
                double e = exp(logit[j] - most);
                sum += e;
                for (int64_t c = 0; c < dim; c++)
                    want[c] += e * (double)v[(base + j) * dim + c];
            }
            for (int64_t c = 0; c < dim; c++)
                suite_close(s, "out", at + c, (double)got[at + c], want[c] / sum,
                            s->bounds.attention + suite_rounding(s->type, want[c] / sum));
        }
}

void suite_attention_case(suite *s)
{
    if (s->problem->operation == MB_OP_attend)
        attend_case(s);
    else if (s->problem->operation == MB_OP_attend_sparse)
        sparse_case(s);
    else
        prefill_case(s);
}
