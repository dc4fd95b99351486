/*
 * cases_attention.c - cases of the operations that look at the KV cache, and what m, n, k and mode of a case mean
 * to them. Calls of one case differ in everything they read, but for the KV cache of attend_sparse: there they
 * differ in the pages.
 */
#include "kernels/case_macros.h"

#include <stdlib.h>

static const mb_kernel_case cases[] = {
    {CASE("attend G1", attend), TEST, HEADS(2, 2, 64), .rows = 4, LENGTHS(4, 0, 1, 15, 16)},
    {CASE("attend G4", attend), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(4, 17, 63, 64, 65), .slack = 100},
    {CASE("attend G6", attend), TEST, HEADS(12, 2, 128), .rows = 8, LENGTHS(2, 1000, 255),
     .flags = MB_CASE_ACTIVE},
    {CASE("attend G7", attend), TEST, HEADS(14, 2, 128), .rows = 32, LENGTHS(2, 513, 1), .slack = 7},
    {CASE("attend G8", attend), TEST, HEADS(8, 1, 128), .rows = 16, LENGTHS(1, 1000)},
    {CASE("attend G16", attend), TEST, HEADS(16, 1, 64), .rows = 64, LENGTHS(1, 300)},
    {CASE("attend dim 8", attend), TEST, HEADS(2, 1, 8), .rows = 3, LENGTHS(2, 33, 0)},
    {CASE("attend dim 256", attend), TEST, HEADS(4, 2, 256), .rows = 5, LENGTHS(1, 129)},
    {CASE("attend prefix only", attend), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(4, 0, 16, 64, 1000),
     .scope = MB_SCOPE_PREFIX},
    {CASE("attend block only", attend), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(2, 0, 100),
     .scope = MB_SCOPE_BLOCK},
    {CASE("attend sub-block", attend), TEST, HEADS(12, 2, 128), .rows = 8, .row_offset = 16, .block_keys = 32,
     LENGTHS(2, 320, 64)},
    {CASE("attend mass", attend), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(4, 0, 65, 512, 1000), .slack = 70,
     .flags = MB_CASE_MASS_OUT},
    {CASE("attend mass weights", attend), TEST, HEADS(14, 2, 128), .rows = 32, LENGTHS(2, 300, 64),
     .flags = MB_CASE_MASS_OUT | MB_CASE_WEIGHTS},
    {CASE("attend mass prefix", attend), TEST, HEADS(4, 4, 128), .rows = 4, LENGTHS(2, 257, 63),
     .scope = MB_SCOPE_PREFIX, .flags = MB_CASE_MASS_OUT | MB_CASE_WEIGHTS | MB_CASE_ACTIVE},

    {CASE("sparse tokens", attend_sparse), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(4, 0, 65, 512, 1000),
     .page = 1, .k = 50},
    {CASE("sparse pages of 16", attend_sparse), TEST, HEADS(14, 2, 128), .rows = 32, LENGTHS(4, 17, 15, 1000, 64),
     .page = 16, .k = 9},
    {CASE("sparse pages of 32 mixed", attend_sparse), TEST, HEADS(12, 2, 128), .rows = 8,
     LENGTHS(4, 300, 100, 31, 1000), .page = 32, .k = 5, .flags = MB_CASE_MIXED | MB_CASE_NOTHING},
    {CASE("sparse pages of 64", attend_sparse), TEST, HEADS(8, 1, 128), .rows = 16, LENGTHS(2, 1000, 63),
     .page = 64, .k = 6, .flags = MB_CASE_MIXED},
    {CASE("sparse pages of 128 G16", attend_sparse), TEST, HEADS(16, 1, 64), .rows = 64, LENGTHS(1, 700),
     .page = 128, .k = 3},
    {CASE("sparse all keys", attend_sparse), TEST, HEADS(4, 4, 64), .rows = 4, LENGTHS(4, 1, 16, 65, 1000),
     .page = 16, .k = 63, .flags = MB_CASE_FULL},
    {CASE("sparse prefix only", attend_sparse), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(3, 0, 100, 1000),
     .page = 1, .k = 64, .scope = MB_SCOPE_PREFIX, .flags = MB_CASE_NOTHING | MB_CASE_ACTIVE},
    {CASE("sparse sub-block", attend_sparse), TEST, HEADS(12, 2, 128), .rows = 8, .row_offset = 8,
     .block_keys = 32, LENGTHS(1, 480), .page = 16, .k = 8},

    {CASE("prefill from 0", attend_prefill), TEST, HEADS(8, 2, 64), .batch = 2, SHAPE(160, 0, 32)},
    {CASE("prefill continued", attend_prefill), TEST, HEADS(14, 2, 128), .batch = 1, SHAPE(64, 448, 32)},
    {CASE("prefill cut block", attend_prefill), TEST, HEADS(12, 2, 64), .batch = 1, SHAPE(45, 64, 16)},
    {CASE("prefill block 4", attend_prefill), TEST, HEADS(4, 4, 128), .batch = 1, SHAPE(300, 0, 4)},
    {CASE("prefill window", attend_prefill), TEST, HEADS(4, 2, 64), .batch = 1, SHAPE(300, 500, 1), .page = 40},
    {CASE("prefill window 512", attend_prefill), TEST, HEADS(2, 1, 512), .batch = 1, SHAPE(70, 0, 1), .page = 9},
    {CASE("prefill 512", attend_prefill), TEST, HEADS(4, 1, 512), .batch = 1, SHAPE(40, 20, 1)},
    {CASE("prefill G16", attend_prefill), TEST, HEADS(16, 1, 64), .batch = 1, SHAPE(70, 20, 64)},

    {CASE("mass", mass), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(4, 1, 64, 700, 1000), .slack = 30},
    {CASE("mass weights", mass), TEST, HEADS(14, 2, 128), .rows = 16, LENGTHS(2, 0, 333),
     .flags = MB_CASE_WEIGHTS | MB_CASE_ACTIVE},
    {CASE("mass G1 prefix", mass), TEST, HEADS(3, 3, 64), .rows = 4, LENGTHS(1, 513), .scope = MB_SCOPE_PREFIX},

    {CASE("votes", votes), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(2, 1000, 64), .k = 40},
    {CASE("votes all", votes), TEST, HEADS(6, 1, 128), .rows = 8, LENGTHS(3, 0, 20, 33), .k = 33, .slack = 5},
    {CASE("votes G7", votes), TEST, HEADS(14, 2, 128), .rows = 5, LENGTHS(1, 300), .k = 1},
    {CASE("votes long", votes), TEST, HEADS(14, 2, 128), .rows = 4, LENGTHS(2, 9000, 2500), .k = 100},
    {CASE("votes long G7", votes), TEST, HEADS(7, 1, 128), .rows = 32, LENGTHS(1, 5001), .k = 64, .slack = 40},
    {CASE("votes long and many", votes), TEST, HEADS(4, 1, 128), .rows = 12, LENGTHS(1, 8000), .k = 700},

    {CASE("page bounds 16", page_bounds), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(4, 0, 17, 64, 1000),
     .page = 16, .mode = 1},
    {CASE("page bounds 64", page_bounds), TEST, HEADS(4, 4, 128), .rows = 32, LENGTHS(2, 65, 640), .page = 64,
     .mode = 1, .slack = 99},
    {CASE("page bounds of the block", page_bounds), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(4, 0, 24, 64, 1000),
     .page = 16},
    {CASE("page bounds of a small block", page_bounds), TEST, HEADS(8, 2, 64), .rows = 4, LENGTHS(2, 60, 62),
     .page = 32},

    {CASE("page scores mean", page_scores), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(4, 0, 15, 64, 1000),
     .page = 16, .mode = MB_MERGE_MEAN},
    {CASE("page scores max", page_scores), TEST, HEADS(14, 2, 128), .rows = 8, LENGTHS(2, 1, 900), .page = 16,
     .mode = MB_MERGE_MAX, .flags = MB_CASE_WEIGHTS},
    {CASE("page scores query", page_scores), TEST, HEADS(12, 2, 128), .rows = 32, LENGTHS(2, 65, 640), .page = 32,
     .mode = MB_MERGE_QUERY, .flags = MB_CASE_WEIGHTS},
    {CASE("page scores softmax", page_scores), TEST, HEADS(8, 1, 64), .rows = 16, LENGTHS(3, 0, 1000, 3000),
     .page = 16, .mode = MB_MERGE_SOFTMAX, .slack = 64, .flags = MB_CASE_WEIGHTS},
    {CASE("page scores inactive", page_scores), TEST, HEADS(4, 4, 64), .rows = 4, LENGTHS(1, 200), .page = 64,
     .mode = MB_MERGE_MEAN, .flags = MB_CASE_ACTIVE},

    {CASE("key norms", key_measures), TEST, HEADS(8, 2, 64), .rows = 4, LENGTHS(4, 0, 1, 65, 1000)},
    {CASE("key distances", key_measures), TEST, HEADS(3, 3, 128), .rows = 4, LENGTHS(3, 0, 65, 1000), .slack = 30,
     .mode = MB_KEY_DISTANCE},
    {CASE("key cosines", key_measures), TEST, HEADS(4, 2, 96), .rows = 4, LENGTHS(4, 0, 1, 65, 1000),
     .mode = MB_KEY_COSINE},
    {CASE("key cosines dim 256", key_measures), TEST, HEADS(2, 1, 256), .rows = 4, LENGTHS(1, 333),
     .mode = MB_KEY_COSINE},

    {CASE("key scores", key_scores), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(3, 0, 65, 1000)},
    {CASE("key scores channels", key_scores), TEST, HEADS(14, 2, 128), .rows = 8, LENGTHS(2, 300, 16), .k = 16,
     .flags = MB_CASE_WEIGHTS},

    /* ---- timed ---- */

    {CASE("heavy channels", heavy_channels), TEST, HEADS(8, 2, 64), .rows = 8, LENGTHS(3, 100, 1, 65), .k = 12},
    {CASE("heavy channels G7", heavy_channels), TEST, HEADS(14, 2, 128), .rows = 32, LENGTHS(1, 33), .k = 1},
    {CASE("heavy channels same token", heavy_channels), TEST, HEADS(8, 2, 64), .rows = 8, LENGTHS(3, 100, 0, 65),
     .k = 12, .mode = 1},

    {CASE("tiny 2k", attend), BENCH, HEADS(8, 2, 64), .rows = 32, LENGTHS(1, 2048)},
    {CASE("tiny 8k", attend), BENCH, HEADS(8, 2, 64), .rows = 32, LENGTHS(1, 8192)},
    {CASE("7b 32k", attend), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 32768)},
    {CASE("7b 32k batch 8", attend), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(8, 32768)},
    {CASE("7b 128k", attend), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072)},
    {CASE("7b 128k batch 8", attend), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(8, 131072)},
    {CASE("1.5b 32k", attend), BENCH, HEADS(12, 2, 128), .rows = 32, EQUAL(1, 32768)},
    {CASE("1.5b 32k batch 8", attend), BENCH, HEADS(12, 2, 128), .rows = 32, EQUAL(8, 32768)},
    {CASE("1.5b 128k", attend), BENCH, HEADS(12, 2, 128), .rows = 32, EQUAL(1, 131072)},
    {CASE("1.5b 128k batch 8", attend), BENCH, HEADS(12, 2, 128), .rows = 32, EQUAL(8, 131072)},
    {CASE("8b 32k", attend), BENCH, HEADS(32, 8, 128), .rows = 32, EQUAL(1, 32768)},
    {CASE("8b 32k batch 8", attend), BENCH, HEADS(32, 8, 128), .rows = 32, EQUAL(8, 32768)},
    {CASE("8b 128k", attend), BENCH, HEADS(32, 8, 128), .rows = 32, EQUAL(1, 131072)},
    {CASE("8b 128k batch 8", attend), BENCH, HEADS(32, 8, 128), .rows = 32, EQUAL(8, 131072)},
    {CASE("7b 128k mass", attend), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072),
     .flags = MB_CASE_TOKENS},
    {CASE("7b 128k mass batch 8", attend), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(8, 131072),
     .flags = MB_CASE_TOKENS},
    {CASE("7b 128k tile mass", attend), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072),
     .flags = MB_CASE_TILES},
    {CASE("7b 128k tile mass batch 8", attend), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(8, 131072),
     .flags = MB_CASE_TILES},

    {CASE("tiny k64", attend_sparse), BENCH, HEADS(8, 2, 64), .rows = 32, LENGTHS(1, 2048), .page = 1, .k = 64},
    {CASE("7b k512", attend_sparse), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072), .page = 1, .k = 512},
    {CASE("7b k512 batch 8", attend_sparse), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(8, 131072), .page = 1,
     .k = 512},
    {CASE("7b 32 pages of 16", attend_sparse), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072), .page = 16,
     .k = 32},

    {CASE("tiny prefill", attend_prefill), BENCH, HEADS(8, 2, 64), .batch = 1, SHAPE(256, 0, 32)},
    {CASE("7b prefill 2048 at 32k", attend_prefill), BENCH, HEADS(28, 4, 128), .batch = 1, SHAPE(2048, 30720, 32)},
    {CASE("7b prefill 2048 at 128k", attend_prefill), BENCH, HEADS(28, 4, 128), .batch = 1,
     SHAPE(2048, 129024, 32)},
    {CASE("7b prefill 32k", attend_prefill), BENCH, HEADS(28, 4, 128), .batch = 1, SHAPE(32768, 0, 32)},

    {CASE("tiny mass", mass), BENCH, HEADS(8, 2, 64), .rows = 32, LENGTHS(1, 2048)},
    {CASE("7b 128k mass alone", mass), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072)},
    {CASE("tiny votes", votes), BENCH, HEADS(8, 2, 64), .rows = 32, LENGTHS(1, 2048), .k = 64},
    {CASE("7b 128k votes", votes), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072), .k = 512},
    {CASE("tiny page bounds", page_bounds), BENCH, HEADS(8, 2, 64), .rows = 32, LENGTHS(1, 2048), .page = 16,
     .mode = 1},
    {CASE("7b 128k page bounds", page_bounds), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072), .page = 16,
     .mode = 1},
    {CASE("tiny page scores", page_scores), BENCH, HEADS(8, 2, 64), .rows = 32, LENGTHS(1, 2048), .page = 16},
    {CASE("7b 128k page scores", page_scores), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072), .page = 16},
    {CASE("7b 128k page scores batch 8", page_scores), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(8, 131072),
     .page = 16},
    {CASE("7b 128k page scores query", page_scores), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(8, 131072),
     .page = 16, .mode = MB_MERGE_QUERY},
    {CASE("7b 128k key scores", key_scores), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072)},
};

static void *values(mb_case_maker *m, int64_t n)
{
    return mb_case_array(m, MB_CASE_IN, n, m->type);
}

static void *out(mb_case_maker *m, int64_t n)
{
    return mb_case_array(m, MB_CASE_OUT, n, m->type);
}

static int64_t heads_of(const mb_kernel_case *c)
{
    return (int64_t)c->batch * c->kv_heads;
}

static mb_attention attention_of(mb_case_maker *m, mb_case_array_kind cache)
{
    const mb_kernel_case *c = m->problem;
    int64_t queries = (int64_t)c->batch * c->rows * c->query_heads;
    mb_attention a = {.rows = mb_case_rows(m), .query_heads = c->query_heads, .scope = c->scope};
    a.kv = mb_case_kv(m, cache, mb_case_cache_rows(c));
    a.q = values(m, queries * c->head_dim);
    a.mass_stride = ((int64_t)mb_case_longest(c) + 63) / 64 * 64;
    a.tile_stride = a.mass_stride / 64;
    return a;
}

static void attention_results(mb_case_maker *m, mb_attention *a)
{
    const mb_kernel_case *c = m->problem;
    int64_t queries = (int64_t)c->batch * c->rows * c->query_heads;
    a->out = out(m, queries * c->head_dim);
    a->lse = mb_case_array(m, MB_CASE_OUT, queries, MB_F32);
}

/* Flags WEIGHTS, ACTIVE, MASS_OUT, TOKENS, TILES. */
static void attend(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_attention *a = &call->args.attend;
    *a = attention_of(m, MB_CASE_IN);
    attention_results(m, a);
    if (c->flags & (MB_CASE_MASS_OUT | MB_CASE_TOKENS))
        a->mass = mb_case_array(m, MB_CASE_OUT, heads_of(c) * a->mass_stride, MB_F32);
    if (c->flags & (MB_CASE_MASS_OUT | MB_CASE_TILES))
        a->tile_mass = mb_case_array(m, MB_CASE_OUT, heads_of(c) * a->tile_stride, MB_F32);
}

/* k distinct pages per (sequence, KV head), one drawn from each of k equal stretches of the prefix. */
static mb_page_set make_pages(mb_case_maker *m)
{
    const mb_kernel_case *c = m->problem;
    int64_t heads = heads_of(c);
    int32_t *ids = malloc((size_t)(heads * c->k) * sizeof *ids), *counts = malloc((size_t)heads * sizeof *counts);
    mb_page_set set = {.granularity = c->page, .capacity = (int32_t)c->k};
    if (!ids || !counts)
        m->rc = MB_E_SYSTEM;
    for (int64_t h = 0; m->rc == MB_OK && h < heads; h++) {
        int64_t stretch = c->prefix[h / c->kv_heads % 4] / c->page / c->k;
        counts[h] = (int32_t)c->k;
        for (int64_t i = 0; i < c->k; i++)
            ids[h * c->k + i] = (int32_t)(i * stretch + (int64_t)mb_random_below(&m->random, (uint64_t)stretch));
    }
    set.ids = mb_case_upload(m, ids, heads * c->k);
    set.counts = mb_case_upload(m, counts, heads);
    free(ids);
    free(counts);
    return set;
}

/* page, k pages; flags ACTIVE, MIXED, NOTHING, FULL. */
static void attend_sparse(mb_case_maker *m, mb_case_call *call)
{
    mb_attention *a = &call->args.attend_sparse;
    *a = attention_of(m, MB_CASE_SHARED);
    attention_results(m, a);
    call->pages = make_pages(m);
    a->pages = &call->pages;
}

/* m rows from position n, block k; page: the window; sequence 0. */
static void attend_prefill(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_prefill *a = &call->args.attend_prefill;
    *a = (mb_prefill){
        .query_heads = c->query_heads, .first = c->n, .n = c->m, .block = (int32_t)c->k, .window = c->page};
    a->kv = mb_case_kv(m, MB_CASE_IN, (int32_t)(c->n + c->m));
    a->q = values(m, c->m * c->query_heads * c->head_dim);
    a->out = out(m, c->m * c->query_heads * c->head_dim);
}

/* mass and votes read the log-sum-exp of the exact attention: computed once, outside of what is timed. */
static mb_attention attention_with_lse(mb_case_maker *m)
{
    mb_attention a = attention_of(m, MB_CASE_IN);
    attention_results(m, &a);
    if (!m->dry && m->rc == MB_OK)
        m->rc = m->kernels->attend(m->device, &a);
    return a;
}

/* Flags WEIGHTS, ACTIVE. */
static void mass(mb_case_maker *m, mb_case_call *call)
{
    mb_attention *a = &call->args.mass;
    *a = attention_with_lse(m);
    a->mass = mb_case_array(m, MB_CASE_OUT, heads_of(m->problem) * a->mass_stride, MB_F32);
}

/* k. */
static void votes(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_votes *a = &call->args.votes;
    *a = (mb_votes){.attention = attention_with_lse(m), .k = (int32_t)c->k};
    a->votes = mb_case_array(m, MB_CASE_OUT, heads_of(c) * a->attention.mass_stride, MB_F32);
    a->stats = mb_case_array(m, MB_CASE_OUT, heads_of(c) * 2, MB_F32);
    a->scratch =
        mb_case_array(m, MB_CASE_SCRATCH, (int64_t)m->kernels->votes_scratch(&a->attention, a->k) / 4 + 1, MB_F32);
}

/* page; mode: whole. */
static void page_bounds(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_page_bounds *a = &call->args.page_bounds;
    *a = (mb_page_bounds){.rows = mb_case_rows(m), .page = c->page, .whole = c->mode};
    a->kv = mb_case_kv(m, MB_CASE_IN, mb_case_cache_rows(c));
    a->page_capacity = (a->kv.capacity + c->page - 1) / c->page;
    a->bounds = out(m, heads_of(c) * a->page_capacity * 2 * c->head_dim);
}

/* page; mode: mb_merge; flag WEIGHTS. The bound reads no keys: a cache of one row stands for it. */
static void page_scores(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    int32_t entries = (mb_case_longest(c) + c->page - 1) / c->page;
    mb_page_scores *a = &call->args.page_scores;
    *a =
        (mb_page_scores){.page = c->page, .page_capacity = entries, .merge = (mb_merge)c->mode, .stride = entries};
    a->attention = (mb_attention){.rows = mb_case_rows(m), .query_heads = c->query_heads, .scope = c->scope};
    a->attention.kv = mb_case_kv(m, MB_CASE_IN, 1);
    a->attention.kv.capacity = mb_case_cache_rows(c);
    a->attention.q = values(m, (int64_t)c->batch * c->rows * c->query_heads * c->head_dim);
    a->bounds = values(m, heads_of(c) * entries * 2 * c->head_dim);
    a->scores = mb_case_array(m, MB_CASE_OUT, heads_of(c) * entries, MB_F32);
}

/* mode: mb_key_measure. */
static void key_measures(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_rows rows = mb_case_rows(m);
    mb_key_measures *a = &call->args.key_measures;
    *a = (mb_key_measures){.kv = mb_case_kv(m, MB_CASE_IN, mb_case_cache_rows(c)),
                           .measure = (mb_key_measure)c->mode};
    a->scores = (mb_scores){.stride = ((int64_t)mb_case_longest(c) + 63) / 64 * 64,
                            .batch = c->batch,
                            .kv_heads = c->kv_heads,
                            .prefix_len = rows.prefix_len,
                            .max_prefix = rows.max_prefix,
                            .page = 1};
    a->scores.values = mb_case_array(m, MB_CASE_OUT, heads_of(c) * a->scores.stride, MB_F32);
    if (a->measure != MB_KEY_NORM)
        a->mean = mb_case_array(m, MB_CASE_OUT, heads_of(c) * c->head_dim, MB_F32);
}

/* k channels, 0 = all (the benchmark reads all); flag WEIGHTS. */
static void key_scores(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_key_scores *a = &call->args.key_scores;
    *a = (mb_key_scores){.attention = attention_of(m, MB_CASE_IN), .channel_count = c->head_dim};
    a->stride = a->attention.mass_stride;
    a->scores = mb_case_array(m, MB_CASE_OUT, heads_of(c) * a->stride, MB_F32);
}

/* k channels; mode: same_token. */
static void heavy_channels(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_heavy_channels *a = &call->args.heavy_channels;
    *a = (mb_heavy_channels){
        .attention = attention_of(m, MB_CASE_IN), .count = (int32_t)c->k, .same_token = c->mode};
    a->channels = mb_case_array(m, MB_CASE_OUT, c->kv_heads * c->k, MB_I32);
    a->scratch = mb_case_array(m, MB_CASE_SCRATCH, (int64_t)c->kv_heads * c->head_dim, MB_F32);
}

static mb_case_recipe *const recipes[MB_OPERATION_COUNT] = {
    MB_CASE_RECIPE(attend),       MB_CASE_RECIPE(attend_sparse), MB_CASE_RECIPE(attend_prefill),
    MB_CASE_RECIPE(mass),         MB_CASE_RECIPE(votes),         MB_CASE_RECIPE(page_bounds),
    MB_CASE_RECIPE(page_scores),  MB_CASE_RECIPE(key_scores),    MB_CASE_RECIPE(heavy_channels),
    MB_CASE_RECIPE(key_measures),
};

const mb_case_list mb_cases_attention = {cases, sizeof cases / sizeof *cases, recipes};
