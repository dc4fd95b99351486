/*
 * suite_reuse.c - deciding what is reused, and the ring of earlier blocks, against plain loops in double. Blocks
 * of the ring that are not filled hold exact copies of the rows to be matched, or NaN: neither may be found.
 */
#include "tests/kernels/suite.h"

#include <math.h>
#include <string.h>

typedef struct sizes {
    mb_kernel_case problem; /* a name for messages */
    int32_t batch, rows, heads, kv, dim, blocks;
    uint8_t ages[4];
} sizes;

static const sizes all_sizes[] = {
    {{.name = "ring of 3, one not filled"}, 2, 8, 4, 2, 16, 3, {2, 0, 1}},
    {{.name = "ring of 4"}, 1, 32, 14, 2, 128, 4, {3, 2, 1, 4}},
    {{.name = "ring of 1, odd sizes"}, 3, 5, 3, 3, 40, 1, {1}},
    {{.name = "empty ring"}, 1, 4, 2, 1, 64, 2, {0, 0}},
};

typedef struct ring_data {
    const sizes *z;
    int64_t states;
    float *a, *q, *out, *lse; /* host; a: [states][dim], the others [blocks][states][dim] */
    void *device_a;
    mb_state_ring ring; /* device */
} ring_data;

static void make_ring(suite *s, const sizes *z, ring_data *d)
{
    int64_t states = (int64_t)z->batch * z->rows * z->heads, n = states * z->blocks;
    d->z = z;
    d->states = states;
    d->a = suite_random(s, states * z->dim, 1.0);
    d->q = suite_random(s, n * z->dim, 1.0);
    d->out = suite_random(s, n * z->dim, 1.0);
    d->lse = suite_own(s, (size_t)n * sizeof *d->lse);
    for (int64_t i = 0; i < n; i++) {
        d->lse[i] = (float)mb_random_unit(&s->random);
        int64_t at = i % states;
        float *q = d->q + i * z->dim;
        if (!z->ages[i / states])
            for (int32_t c = 0; c < z->dim; c++)
                q[c] = at % 3 ? d->a[at * z->dim + c] : NAN;
        else if (at % 5 == 0) /* every filled block holds this row: a tie at distance 0 */
            memcpy(q, d->a + at * z->dim, (size_t)z->dim * sizeof *q);
        else if (at % 7 == 0)
            q[0] = NAN;
    }
    uint8_t *ages = s->kernels->alloc(s->device, 64);
    suite_ok(s, s->kernels->upload(s->device, ages, z->ages, (size_t)z->blocks), "upload");
    d->device_a = suite_put(s, d->a, states * z->dim, s->type);
    d->ring = (mb_state_ring){z->blocks,
                              states,
                              ages,
                              suite_put(s, d->q, n * z->dim, s->type),
                              suite_put(s, d->out, n * z->dim, s->type),
                              suite_put(s, d->lse, n, MB_F32)};
}

/* Where row r of a sequence and head lies in block `block` of the ring. */
static int64_t stored_at(const sizes *z, int64_t states, int64_t at, int32_t block, int32_t r)
{
    int64_t b = at / z->heads / z->rows;
    return block * states + (b * z->rows + r) * z->heads + at % z->heads;
}

static double distance_to(const ring_data *d, int64_t at, int64_t from, double *norm)
{
    double sum = 0;
    *norm = 0;
    for (int32_t c = 0; c < d->z->dim; c++) {
        double y = (double)d->q[from * d->z->dim + c];
        sum += ((double)d->a[at * d->z->dim + c] - y) * ((double)d->a[at * d->z->dim + c] - y);
        *norm += y * y;
    }
    return sum;
}

/* The nearest filled slot by the plain loop; -1 where all are NaN or nothing is filled. */
static int32_t nearest(const ring_data *d, int64_t at, int any, double *distance, double *norm)
{
    const sizes *z = d->z;
    int32_t row = (int32_t)(at / z->heads % z->rows), best = -1;
    *distance = INFINITY;
    *norm = 0;
    for (int32_t age = 1; age < 256; age++) /* from young to old: the first of equals stays */
        for (int32_t block = 0; block < z->blocks; block++)
            for (int32_t r = any ? 0 : row; z->ages[block] == age && r <= (any ? z->rows - 1 : row); r++) {
                double own, x = distance_to(d, at, stored_at(z, d->states, at, block, r), &own);
                if (x < *distance) {
                    *distance = x;
                    *norm = own;
                    best = block * z->rows + r;
                }
            }
    return best;
}

static mb_row_shape shape_of(const sizes *z)
{
    return (mb_row_shape){z->batch, z->rows, z->heads, z->kv, z->dim};
}

static void match_and_gather(suite *s, const ring_data *d, int any)
{
    const sizes *z = d->z;
    int32_t *slot = suite_poison(s, d->states, MB_F32);
    float *distance = suite_poison(s, d->states, MB_F32), *norm = suite_poison(s, d->states, MB_F32);
    void *out = suite_poison(s, d->states * z->dim, s->type);
    float *lse = suite_poison(s, d->states, MB_F32);
    suite_ok(s,
             s->kernels->ring_match(
                 s->device, &(mb_ring_match){shape_of(z), d->device_a, d->ring, any, slot, distance, norm}),
             "ring_match");
    suite_ok(s, s->kernels->ring_gather(s->device, &(mb_ring_gather){shape_of(z), slot, d->ring, out, lse}),
             "ring_gather");
    int32_t *got = suite_get_ints(s, slot, d->states);
    float *far = suite_get_guarded(s, distance, d->states, MB_F32, "distance");
    float *norms = suite_get_guarded(s, norm, d->states, MB_F32, "norm");
    float *state = suite_get_guarded(s, out, d->states * z->dim, s->type, "state");
    float *lses = suite_get_guarded(s, lse, d->states, MB_F32, "lse");
    for (int64_t at = 0; at < d->states; at++) {
        double want, own, least;
        int32_t best = nearest(d, at, any, &least, &own);
        if (best < 0 || got[at] < 0 || got[at] >= z->blocks * z->rows || !z->ages[got[at] / z->rows]) {
            suite_expect(s, best < 0 && got[at] == -1, "row %lld matches slot %d, not %d", (long long)at, got[at],
                         best);
            suite_expect(s, isinf(far[at]) && isinf(lses[at]) && lses[at] < 0, "row %lld without a match",
                         (long long)at);
            for (int32_t c = 0; c < z->dim; c++)
                suite_close(s, "state of nothing", at, (double)state[at * z->dim + c], 0.0, 0.0);
            continue;
        }
        if (least == 0) /* a tie: which one is defined */
            suite_expect(s, got[at] == best, "row %lld matches slot %d, not %d", (long long)at, got[at], best);
        int64_t from = stored_at(z, d->states, at, got[at] / z->rows, got[at] % z->rows);
        want = distance_to(d, at, from, &own);
        suite_expect(s, want <= least * (1 + 1e-5), "row %lld: slot %d is not nearest", (long long)at, got[at]);
        suite_close(s, "distance", at, (double)far[at], want, 1e-5 * want);
        suite_close(s, "norm", at, (double)norms[at], own, 1e-5 * own);
        suite_close(s, "lse", at, (double)lses[at], (double)d->lse[from], 0.0);
        for (int32_t c = 0; c < z->dim; c++)
            suite_close(s, "state", at, (double)state[at * z->dim + c], (double)d->out[from * z->dim + c], 0.0);
    }
}

/* variant 0: nothing is overwritten out of active heads; 1: their missed rows are; 2: all their rows are. */
static void reach(suite *s, const ring_data *d, int32_t age, int variant)
{
    const sizes *z = d->z;
    int32_t group = z->heads / z->kv, bhs = z->batch * z->kv;
    int32_t *slot = suite_own(s, (size_t)d->states * 4), *missed = suite_own(s, (size_t)d->states * 4);
    int32_t *active = suite_own(s, (size_t)bhs * 4), *found = suite_own(s, (size_t)bhs * 4);
    for (int64_t i = 0; i < d->states; i++) {
        slot[i] = (int32_t)mb_random_below(&s->random, (uint64_t)(z->blocks * z->rows) + 1) - 1;
        missed[i] = (int32_t)mb_random_below(&s->random, 2);
    }
    for (int32_t i = 0; i < bhs && variant > 0; i++)
        active[i] = i % 2 ? -1 : 0;
    int32_t *heads = suite_poison(s, bhs, MB_F32), *reached = suite_poison(s, d->states, MB_F32);
    suite_ok(s,
             s->kernels->ring_reach(
                 s->device,
                 &(mb_ring_reach){shape_of(z),
                                  d->ring,
                                  {suite_put_ints(s, slot, d->states), age, suite_put_ints(s, active, bhs),
                                   variant == 2 ? NULL : suite_put_ints(s, missed, d->states), heads, reached}}),
             "ring_reach");
    int32_t *got = suite_get_ints(s, reached, d->states), *flags = suite_get_ints(s, heads, bhs);
    for (int64_t at = 0; at < d->states; at++) {
        int64_t bh = at / z->heads / z->rows * z->kv + at % z->heads / group;
        bool over = active[bh] && (variant == 2 || missed[at]);
        bool want = slot[at] >= 0 && z->ages[slot[at] / z->rows] >= age && !over;
        found[bh] |= want;
        suite_expect(s, got[at] == want, "age %d: row %lld is %d", age, (long long)at, got[at]);
    }
    for (int32_t i = 0; i < bhs; i++)
        suite_expect(s, flags[i] == -found[i], "age %d: head %d is %d", age, i, flags[i]);
}

/* Heads by turns: all rows hit, every other one, none, all but the first; some misses are NaN. */
static void decide(suite *s, const ring_data *d, int relative, float share)
{
    const sizes *z = d->z;
    int32_t group = z->heads / z->kv, bhs = z->batch * z->kv;
    float *distance = suite_own(s, (size_t)d->states * 4), *norm = suite_own(s, (size_t)d->states * 4);
    double want[7] = {1, 2, 3, 4, 5, 6, 7}, got[7];
    int32_t *misses = suite_own(s, (size_t)bhs * 4);
    for (int64_t at = 0; at < d->states; at++) {
        int64_t bh = at / z->heads / z->rows * z->kv + at % z->heads / group;
        norm[at] = 2.0f;
        int32_t r = (int32_t)(at / z->heads % z->rows), g = (int32_t)(at % z->heads % group);
        const bool hits[4] = {true, at % 2 == 1, false, r + g > 0};
        bool hit = hits[bh % 4];
        distance[at] = (hit ? 0.5f : 3.0f) * (relative ? 2.0f : 1.0f);
        if (!hit && at % 4 == 0)
            distance[at] = NAN;
        misses[bh] += !hit;
        want[0] += hit;
        want[1] += 1;
    }
    for (int32_t i = 0; i < bhs; i++) {
        want[2] += misses[i] > share * (float)(z->rows * group);
        want[3] += 1;
        want[4 + (misses[i] == 0 ? 0 : misses[i] < z->rows * group ? 1 : 2)] += 1;
    }
    double *counts = s->kernels->alloc(s->device, sizeof want), start[7] = {1, 2, 3, 4, 5, 6, 7};
    suite_ok(s, s->kernels->upload(s->device, counts, start, sizeof start), "upload");
    int32_t *active = suite_poison(s, bhs, MB_F32), *missed = suite_poison(s, d->states, MB_F32);
    suite_ok(s,
             s->kernels->reuse_decide(s->device,
                                      &(mb_reuse_decide){shape_of(z),
                                                         {suite_put(s, distance, d->states, MB_F32),
                                                          suite_put(s, norm, d->states, MB_F32), 1.0f, relative,
                                                          share, active, missed, counts, counts + 4}}),
             "reuse_decide");
    suite_ok(s, s->kernels->download(s->device, got, counts, sizeof got), "download");
    for (int i = 0; i < 7; i++)
        suite_close(s, "count", i, got[i], want[i], 0.0);
    int32_t *flags = suite_get_ints(s, active, bhs);
    for (int32_t i = 0; i < bhs; i++)
        suite_expect(s, flags[i] == (misses[i] > share * (float)(z->rows * group) ? -1 : 0), "head %d is %d", i,
                     flags[i]);
}

static void count_read(suite *s, const ring_data *d)
{
    const sizes *z = d->z;
    int32_t bhs = z->batch * z->kv, capacity = 3;
    int32_t lengths[4] = {37, 5, 64, 0}, ids[64] = {0}, counts[16], active[16];
    double want = 11, got = 11;
    for (int32_t i = 0; i < bhs; i++) {
        int32_t n = lengths[i / z->kv], pages = (n + 15) / 16;
        counts[i] = i % 3 == 2 ? -1 : pages < capacity ? pages : capacity;
        active[i] = i % 2 ? -1 : 0;
        int32_t read = counts[i] < 0 ? n : 0;
        for (int32_t j = 0; j < counts[i]; j++) { /* the last pages: one of them is cut */
            ids[i * capacity + j] = pages - counts[i] + j;
            int32_t left = n - ids[i * capacity + j] * 16;
            read += left < 16 ? left : 16;
        }
        want += (active[i] ? read : 0) + n; /* once with flags, once the whole prefix of all */
    }
    mb_page_set pages = {16, capacity, suite_put_ints(s, ids, bhs * capacity), suite_put_ints(s, counts, bhs)};
    mb_rows rows = {.batch = z->batch,
                    .rows = z->rows,
                    .prefix_len = suite_put_ints(s, lengths, z->batch),
                    .max_prefix = 64,
                    .block_keys = z->rows};
    double *tokens = s->kernels->alloc(s->device, sizeof got);
    suite_ok(s, s->kernels->upload(s->device, tokens, &got, sizeof got), "upload");
    suite_ok(s,
             s->kernels->count_read(s->device,
                                    &(mb_key_count){rows, z->kv, &pages, suite_put_ints(s, active, bhs), tokens}),
             "count_read");
    suite_ok(s, s->kernels->count_read(s->device, &(mb_key_count){rows, z->kv, NULL, NULL, tokens}), "count_read");
    suite_ok(s, s->kernels->download(s->device, &got, tokens, sizeof got), "download");
    suite_close(s, "read", 0, got, want, 0.0);
}

void suite_reuse(suite *s)
{
    for (size_t i = 0; suite_is_chosen("reuse") && i < sizeof all_sizes / sizeof *all_sizes; i++) {
        const sizes *z = &all_sizes[i];
        for (int part = 0; part < 5; part++) { /* host memory is given back after each */
            ring_data d;
            suite_begin(s, &z->problem);
            make_ring(s, z, &d);
            if (part < 2)
                match_and_gather(s, &d, part);
            for (int32_t age = 1; part == 2 && age <= 4; age++)
                for (int variant = 0; variant < 3; variant++)
                    reach(s, &d, age, variant);
            for (int variant = 0; part == 3 && variant < 4; variant++)
                decide(s, &d, variant % 2, variant < 2 ? 0.0f : 0.5f);
            if (part == 4)
                count_read(s, &d);
            suite_finish(s);
        }
    }
}
