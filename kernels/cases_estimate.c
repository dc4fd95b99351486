/*
 * cases_estimate.c - cases of the operations that choose keys by less than their whole attention
 * (kernels/estimate.h), and what k, m, page and mode of a case mean to them.
 */
#include "kernels/case_macros.h"

#include <math.h>
#include <stdlib.h>

static const mb_kernel_case cases[] = {
    {CASE("query of 5 channels", query_pick), TEST, HEADS(8, 2, 64), .rows = 8, LENGTHS(2, 40, 3), .k = 5},
    {CASE("query listed 4 bits", query_pick), TEST, HEADS(14, 2, 128), .rows = 5, LENGTHS(1, 9), .k = 16, .m = 4,
     .mode = 1},
    {CASE("query all channels 1 bit", query_pick), TEST, HEADS(3, 3, 8), .rows = 1, LENGTHS(1, 1), .k = 8, .m = 1},
    {CASE("keys 4 bits", key_pick), TEST, HEADS(8, 2, 64), .rows = 8, LENGTHS(3, 0, 65, 300), .m = 4},
    {CASE("keys listed 2 bits", key_pick), TEST, HEADS(4, 4, 128), .rows = 4, LENGTHS(2, 1, 130), .k = 16, .m = 2,
     .mode = 1, .slack = 9},
    {CASE("keys of the block", key_pick), TEST, HEADS(6, 3, 96), .rows = 16, LENGTHS(2, 17, 64), .k = 24, .m = 8,
     .mode = 1, .flags = MB_CASE_NOTHING},
    {CASE("tile gaps", tile_gaps), TEST, HEADS(8, 2, 64), .rows = 8, LENGTHS(4, 0, 1, 65, 500), .page = 32,
     .slack = 40},
    {CASE("tile gaps dim 256", tile_gaps), TEST, HEADS(4, 1, 256), .rows = 3, LENGTHS(1, 300), .page = 128},
    {CASE("tile gaps of tokens", tile_gaps), TEST, HEADS(2, 2, 8), .rows = 1, LENGTHS(2, 70, 3), .page = 1},
    {CASE("spread 16", score_spread), TEST, .kv_heads = 3, LENGTHS(4, 0, 1, 65, 900), .page = 16, .slack = 20},
    {CASE("spread 5", score_spread), TEST, .kv_heads = 1, LENGTHS(1, 33), .page = 5},
    {CASE("interleave", score_interleave), TEST, .kv_heads = 3, LENGTHS(3, 90, 120, 1000), .k = 30},
    {CASE("interleave one head", score_interleave), TEST, .kv_heads = 1, LENGTHS(1, 200), .k = 50, .slack = 9},
    {CASE("interleave many", score_interleave), TEST, .kv_heads = 8, LENGTHS(1, 2000), .k = 600},

    {CASE("7b 128k query channels", query_pick), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072), .k = 32},
    {CASE("7b 128k keys 4 bits", key_pick), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072), .m = 4},
    {CASE("7b 128k tile gaps", tile_gaps), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072), .page = 128},
    {CASE("7b 128k spread", score_spread), BENCH, .kv_heads = 4, EQUAL(1, 131072), .page = 16},
    {CASE("7b 128k interleave", score_interleave), BENCH, .kv_heads = 4, EQUAL(1, 131072), .k = 512},
};

static int64_t heads_of(const mb_kernel_case *c)
{
    return (int64_t)c->batch * c->kv_heads;
}

/* [kv_heads][k] every second channel, others for each head; NULL without mode. */
static const int32_t *channels_of(mb_case_maker *m)
{
    const mb_kernel_case *c = m->problem;
    int64_t n = c->kv_heads * c->k;
    int32_t *channels = c->mode ? malloc((size_t)n * sizeof *channels) : NULL;
    for (int64_t i = 0; channels && i < n; i++)
        channels[i] = (int32_t)(i % c->k * 2 + i / c->k % 2);
    const int32_t *uploaded = channels ? mb_case_upload(m, channels, n) : NULL;
    m->rc = c->mode && !channels ? MB_E_SYSTEM : m->rc;
    free(channels);
    return uploaded;
}

/* k channels, m bits; mode 1: listed. */
static void query_pick(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    int64_t n = (int64_t)c->batch * c->rows * c->query_heads * c->head_dim;
    mb_query_pick *a = &call->args.query_pick;
    *a = (mb_query_pick){.shape = {c->batch, c->rows, c->query_heads, c->kv_heads, c->head_dim},
                         .channels = channels_of(m),
                         .count = (int32_t)c->k,
                         .bits = (int32_t)c->m};
    a->q = mb_case_array(m, MB_CASE_IN, n, m->type);
    a->out = mb_case_array(m, MB_CASE_OUT, n, m->type);
}

/* k channels of mode 1, m bits; flag NOTHING: the keys of the block. */
static void key_pick(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_key_pick *a = &call->args.key_pick;
    *a = (mb_key_pick){.rows = mb_case_rows(m),
                       .kv = mb_case_kv(m, MB_CASE_IN, mb_case_cache_rows(c)),
                       .channels = channels_of(m),
                       .count = (int32_t)c->k,
                       .bits = (int32_t)c->m,
                       .whole = !(c->flags & MB_CASE_NOTHING)};
    a->out = mb_case_array(m, MB_CASE_INOUT, heads_of(c) * a->kv.capacity * c->head_dim, m->type);
}

/* page. */
static void tile_gaps(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    int64_t states = (int64_t)c->batch * c->rows * c->query_heads;
    int64_t tiles = (mb_case_longest(c) + c->page - 1) / c->page;
    mb_tile_gaps *a = &call->args.tile_gaps;
    *a = (mb_tile_gaps){.page = c->page, .least = -INFINITY, .stride = tiles};
    a->attention = (mb_attention){.rows = mb_case_rows(m), .query_heads = c->query_heads, .scope = c->scope};
    a->attention.kv = mb_case_kv(m, MB_CASE_IN, mb_case_cache_rows(c));
    a->attention.q = mb_case_array(m, MB_CASE_IN, states * c->head_dim, m->type);
    a->gaps = mb_case_array(m, MB_CASE_OUT, heads_of(c) * tiles, MB_F32);
    a->scratch = mb_case_array(m, MB_CASE_SCRATCH, states * tiles, MB_F32);
}

/* page 0 = 1. Rows have an entry for each token, whatever the page. */
static mb_scores scores_of(mb_case_maker *m)
{
    const mb_kernel_case *c = m->problem;
    mb_scores scores = {.stride = mb_case_longest(c),
                        .batch = c->batch,
                        .kv_heads = c->kv_heads,
                        .prefix_len = mb_case_prefix(m),
                        .max_prefix = mb_case_longest(c),
                        .page = c->page ? c->page : 1};
    scores.values = mb_case_array(m, MB_CASE_IN, heads_of(c) * scores.stride, MB_F32);
    return scores;
}

static void score_spread(mb_case_maker *m, mb_case_call *call)
{
    mb_score_spread *a = &call->args.score_spread;
    *a = (mb_score_spread){.scores = scores_of(m)};
    a->out = mb_case_array(m, MB_CASE_INOUT, heads_of(m->problem) * a->scores.stride, MB_F32);
}

/* k entries of each head: every third token, from another one for each head. */
static void score_interleave(mb_case_maker *m, mb_case_call *call)
{
    int64_t k = m->problem->k, heads = heads_of(m->problem);
    int32_t *ids = calloc((size_t)(heads * k), sizeof *ids), *counts = calloc((size_t)heads, sizeof *counts);
    if (!ids || !counts)
        m->rc = MB_E_SYSTEM;
    for (int64_t i = 0; m->rc == MB_OK && i < heads * k; i++)
        ids[i] = (int32_t)(i % k * 3 + i / k % 3 / 2);
    for (int64_t h = 0; m->rc == MB_OK && h < heads; h++)
        counts[h] = (int32_t)(k - h % 3);
    mb_score_interleave *a = &call->args.score_interleave;
    *a = (mb_score_interleave){
        scores_of(m), {1, (int32_t)k, mb_case_upload(m, ids, heads * k), mb_case_upload(m, counts, heads)}, NULL};
    a->out = mb_case_array(m, MB_CASE_INOUT, heads * a->scores.stride, MB_F32);
    free(ids);
    free(counts);
}

static mb_case_recipe *const recipes[MB_OPERATION_COUNT] = {
    MB_CASE_RECIPE(query_pick),   MB_CASE_RECIPE(key_pick),         MB_CASE_RECIPE(tile_gaps),
    MB_CASE_RECIPE(score_spread), MB_CASE_RECIPE(score_interleave),
};

const mb_case_list mb_cases_estimate = {cases, sizeof cases / sizeof *cases, recipes};
