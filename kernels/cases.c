/*
 * cases.c - the list of cases (cases.h says what the fields mean), and the cases and recipes of operations on
 * scores, states and rows. Test cases are small and awkward: every group size of 1, 4, 6, 7, 8, 16, head_dim 64,
 * 128 and odd ones, blocks of 4 to 64, prefixes around tile and page borders, several lengths in one batch.
 */
#include "kernels/case_macros.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const mb_kernel_case cases[] = {
    {CASE("top_k tokens", top_k), TEST, .kv_heads = 2, LENGTHS(4, 0, 10, 1000, 64), .page = 1, .k = 64},
    {CASE("top_k pages", top_k), TEST, .kv_heads = 3, LENGTHS(4, 17, 1000, 4000, 16), .page = 16, .k = 20,
     .slack = 9},
    {CASE("top_k dynamic", top_k), TEST, .kv_heads = 2, LENGTHS(2, 500, 3000), .page = 1, .k = 100,
     .flags = MB_CASE_DYNAMIC},
    {CASE("top_k long", top_k), TEST, .kv_heads = 1, LENGTHS(1, 200000), .page = 1, .k = 512},
    {CASE("top_k long dynamic", top_k), TEST, .kv_heads = 2, LENGTHS(3, 131072, 99, 33333), .page = 1, .k = 700,
     .flags = MB_CASE_DYNAMIC},
    {CASE("top_k rising", top_k), TEST, .kv_heads = 1, LENGTHS(3, 70001, 131072, 500), .page = 1, .k = 512,
     .mode = 1},
    {CASE("top_k one value", top_k), TEST, .kv_heads = 1, LENGTHS(2, 70001, 131072), .page = 1, .k = 512,
     .mode = 2},
    {CASE("top_k of a million", top_k), TEST, .kv_heads = 1, LENGTHS(2, 1048576, 300001), .page = 1, .k = 512},
    {CASE("top_k long pages", top_k), TEST, .kv_heads = 2, LENGTHS(2, 1000000, 70000), .page = 16, .k = 300},
    {CASE("top_k one cluster a row", top_k), TEST, .kv_heads = 1, LENGTHS(3, 20001, 4097, 0), .page = 1, .k = 300},
    {CASE("top_k many rows", top_k), TEST, .kv_heads = 5, LENGTHS(4, 30000, 7, 131000, 5000), .page = 1, .k = 200,
     .flags = MB_CASE_DYNAMIC},
    {CASE("top_p half", top_p), TEST, .kv_heads = 2, LENGTHS(4, 0, 100, 1000, 3000), .page = 16, .k = 2, .n = 100,
     .mode = 50},
    {CASE("top_p everything", top_p), TEST, .kv_heads = 2, LENGTHS(2, 300, 77), .page = 1, .k = 1, .n = 300,
     .mode = 100},
    {CASE("top_p bounded", top_p), TEST, .kv_heads = 1, LENGTHS(2, 300, 5), .page = 1, .k = 10, .n = 20,
     .mode = 90},

    {CASE("scores pages of 16", score_edges), TEST, .kv_heads = 2, LENGTHS(4, 0, 1, 65, 1000), .page = 16,
     .slack = 40},
    {CASE("scores pages of 64", score_edges), TEST, .kv_heads = 3, LENGTHS(2, 64, 640), .page = 64},

    {CASE("merge", state_merge), TEST, .m = 333, .head_dim = 128},
    {CASE("merge fp32 a", state_merge), TEST, .m = 70, .head_dim = 64, .mode = 1},
    {CASE("merge fp32 all", state_merge), TEST, .m = 70, .head_dim = 72, .mode = 7},
    {CASE("downdate", state_downdate), TEST, .m = 333, .head_dim = 128, .mode = 7},
    {CASE("downdate stored", state_downdate), TEST, .m = 100, .head_dim = 64, .mode = 4},
    {CASE("distance", row_distance), TEST, .m = 200, .head_dim = 128},
    {CASE("distance dim 24", row_distance), TEST, .m = 3, .head_dim = 24},
    {CASE("count work", count_work), TEST, .kv_heads = 2, LENGTHS(3, 100, 1000, 0), .page = 16, .k = 7,
     .flags = MB_CASE_MIXED | MB_CASE_NOTHING},
    {CASE("count dense work", count_work), TEST, .kv_heads = 2, LENGTHS(2, 100, 1000), .page = 16, .k = 7,
     .flags = MB_CASE_DENSE},

    /* ---- timed ---- */
    {CASE("pool 128k to pages of 16", score_pool), BENCH, .kv_heads = 4, EQUAL(1, 131072), .k = 16},
    {CASE("smooth 128k by 7", score_smooth), BENCH, .kv_heads = 4, EQUAL(1, 131072), .k = 7},
    {CASE("budget of heads 128k", budget_heads), BENCH, .kv_heads = 4, EQUAL(1, 131072), SHAPE(0, 8, 512)},
    {CASE("7b match in a ring of 4", ring_match), BENCH, HEADS(28, 4, 128), .rows = 32, .batch = 8, .k = 4,
     .mode = 1},
    {CASE("7b copy rows", rows_copy), BENCH, HEADS(28, 4, 128), .rows = 32, .batch = 8},
    {CASE("pool sum", score_pool), TEST, .kv_heads = 3, LENGTHS(3, 0, 37, 1000), .slack = 11, .k = 16},
    {CASE("pool max", score_pool), TEST, .kv_heads = 2, LENGTHS(2, 129, 65), .k = 64, .mode = MB_POOL_MAX},
    {CASE("smooth mean", score_smooth), TEST, .kv_heads = 3, LENGTHS(3, 0, 37, 1000), .k = 7},
    {CASE("smooth max", score_smooth), TEST, .kv_heads = 2, LENGTHS(2, 3, 300), .k = 13, .mode = MB_POOL_MAX},
    {CASE("axpby", score_axpby), TEST, .m = 33333},
    {CASE("head mean", score_head_mean), TEST, .kv_heads = 5, LENGTHS(3, 0, 37, 1000), .slack = 9},
    {CASE("random scores", score_random), TEST, .kv_heads = 2, LENGTHS(2, 5, 700)},
    {CASE("smooth padded", score_smooth), TEST, .kv_heads = 2, LENGTHS(3, 0, 3, 300), .k = 7,
     .mode = MB_POOL_PADDED},
    {CASE("every third from 2", score_every), TEST, .kv_heads = 3, LENGTHS(4, 0, 2, 3, 900), .k = 3, .m = 2,
     .slack = 20},
    {CASE("every one", score_every), TEST, .kv_heads = 1, LENGTHS(2, 1, 300), .k = 1},
    {CASE("recency", score_recent), TEST, .kv_heads = 3, LENGTHS(4, 0, 1, 64, 900), .slack = 20},
    {CASE("keep", score_keep), TEST, .kv_heads = 3, LENGTHS(3, 90, 37, 1000), .k = 30},
    {CASE("keep pages", score_keep), TEST, .kv_heads = 3, LENGTHS(3, 90, 37, 1000), .k = 9, .m = 16},
    {CASE("ratio of tokens", budget_ratio), TEST, .kv_heads = 3, LENGTHS(4, 0, 1, 64, 900), .mode = 30, .k = 1},
    {CASE("ratio of pages", budget_ratio), TEST, .kv_heads = 2, LENGTHS(3, 17, 16, 900), .page = 16, .mode = 12},
    {CASE("budget of layers", budget_layers), TEST, .kv_heads = 4, LENGTHS(3, 8, 37, 1000), SHAPE(7, 4, 24)},
    {CASE("budget of heads", budget_heads), TEST, .kv_heads = 4, LENGTHS(4, 0, 5, 64, 1000), SHAPE(0, 8, 60)},
    {CASE("budget of one head", budget_heads), TEST, .kv_heads = 1, LENGTHS(2, 50, 70), SHAPE(0, 0, 60)},

    {CASE("count what is read", count_read), TEST, .kv_heads = 3, LENGTHS(4, 0, 1, 64, 900)},
    {CASE("decide reuse", reuse_decide), TEST, HEADS(8, 2, 64), .rows = 32, .batch = 3},
    {CASE("decide reuse, relative", reuse_decide), TEST, HEADS(3, 3, 40), .rows = 5, .batch = 2, .mode = 1},
    {CASE("copy rows", rows_copy), TEST, HEADS(8, 2, 64), .rows = 16, .batch = 3},
    {CASE("copy rows of dim 40", rows_copy), TEST, HEADS(3, 3, 40), .rows = 5, .batch = 2},
    {CASE("rows that moved", row_top), TEST, HEADS(8, 2, 64), .rows = 32, .batch = 3, .k = 5},
    {CASE("match in a ring", ring_match), TEST, HEADS(8, 2, 64), .rows = 16, .batch = 2, .k = 3, .mode = 1},
    {CASE("match in place", ring_match), TEST, HEADS(14, 2, 128), .rows = 8, .batch = 1, .k = 4},
    {CASE("gather from a ring", ring_gather), TEST, HEADS(8, 2, 64), .rows = 16, .batch = 2, .k = 3},
    {CASE("reach in a ring", ring_reach), TEST, HEADS(8, 2, 64), .rows = 16, .batch = 2, .k = 4},

    {CASE("64 of 2k", top_k), BENCH, .kv_heads = 2, LENGTHS(1, 2048), .page = 1, .k = 64},
    {CASE("512 of 128k", top_k), BENCH, .kv_heads = 4, EQUAL(1, 131072), .page = 1, .k = 512},
    {CASE("512 of 128k batch 8", top_k), BENCH, .kv_heads = 4, EQUAL(8, 131072), .page = 1, .k = 512},
    {CASE("512 of 1m", top_k), BENCH, .kv_heads = 4, EQUAL(1, 1048576), .page = 1, .k = 512},
    {CASE("tiny merge", state_merge), BENCH, .m = 256, .head_dim = 64},
    {CASE("7b merge", state_merge), BENCH, .m = 896, .head_dim = 128},
    {CASE("7b merge batch 8", state_merge), BENCH, .m = 7168, .head_dim = 128},
    {CASE("7b downdate batch 8", state_downdate), BENCH, .m = 7168, .head_dim = 128, .mode = 4},
    {CASE("7b distance batch 8", row_distance), BENCH, .m = 7168, .head_dim = 128},
};

const char *mb_operation_name(mb_operation operation)
{
#define NAME(name, arguments) #name,
    static const char *const names[] = {MB_OPERATIONS(NAME)};
#undef NAME
    return names[operation];
}

int mb_operation_run(const mb_kernels *kernels, mb_device *device, mb_operation operation,
                     const mb_operation_arguments *args)
{
    switch (operation) {
#define RUN(name, arguments)                                                                                      \
    case MB_OP_##name:                                                                                            \
        return kernels->name(device, &args->name);
        MB_OPERATIONS(RUN)
#undef RUN
    case MB_OPERATION_COUNT:
        break;
    }
    return MB_E_BUG;
}

/* ---- for the recipes ---- */

void *mb_case_array(mb_case_maker *maker, mb_case_array_kind kind, int64_t n, mb_type type)
{
    double bytes = (double)n * (double)mb_type_size(type);
    maker->bytes += kind == MB_CASE_SCRATCH ? 0.0 : kind == MB_CASE_INOUT ? 2.0 * bytes : bytes;
    return maker->array(maker, kind, n, type);
}

int32_t *mb_case_upload(mb_case_maker *maker, const int32_t *values, int64_t n)
{
    maker->bytes += (double)n * (double)sizeof *values;
    return maker->rc == MB_OK ? maker->upload(maker, values, n) : NULL;
}

int32_t mb_case_longest(const mb_kernel_case *problem)
{
    int32_t most = 0;
    for (int i = 0; i < 4 && i < problem->batch; i++)
        most = problem->prefix[i] > most ? problem->prefix[i] : most;
    return most + problem->slack;
}

int32_t *mb_case_prefix(mb_case_maker *maker)
{
    int32_t prefix[64];
    for (int32_t b = 0; b < maker->problem->batch; b++)
        prefix[b] = maker->problem->prefix[b % 4];
    return mb_case_upload(maker, prefix, maker->problem->batch);
}

/* ---- for the recipes: rows behind a KV cache ---- */

static int32_t visible_block(const mb_kernel_case *c)
{
    return c->block_keys ? c->block_keys : c->rows + c->row_offset;
}

int32_t mb_case_cache_rows(const mb_kernel_case *problem)
{
    return mb_case_longest(problem) + visible_block(problem);
}

mb_rows mb_case_rows(mb_case_maker *maker)
{
    const mb_kernel_case *c = maker->problem;
    return (mb_rows){.batch = c->batch,
                     .rows = c->rows,
                     .row_offset = c->row_offset,
                     .prefix_len = mb_case_prefix(maker),
                     .max_prefix = mb_case_longest(c),
                     .block_keys = visible_block(c)};
}

mb_kv mb_case_kv(mb_case_maker *maker, mb_case_array_kind kind, int32_t capacity)
{
    const mb_kernel_case *c = maker->problem;
    int64_t n = (int64_t)c->batch * c->kv_heads * capacity * c->head_dim;
    mb_kv kv = {.batch = c->batch, .kv_heads = c->kv_heads, .capacity = capacity, .head_dim = c->head_dim};
    kv.k = mb_case_array(maker, kind, n, maker->type);
    kv.v = mb_case_array(maker, kind, n, maker->type);
    return kv;
}

/* ---- recipes: scores; entries are pages of `page` tokens ---- */

static float *floats(mb_case_maker *m, mb_case_array_kind kind, int64_t n)
{
    return mb_case_array(m, kind, n, MB_F32);
}

static int32_t *integers_out(mb_case_maker *m, int64_t n)
{
    return mb_case_array(m, MB_CASE_OUT, n, MB_I32);
}

static int64_t heads_of(const mb_case_maker *m)
{
    return (int64_t)m->problem->batch * m->problem->kv_heads;
}

static mb_scores scores_of(mb_case_maker *m, mb_case_array_kind kind)
{
    const mb_kernel_case *c = m->problem;
    int32_t page = c->page ? c->page : 1, longest = mb_case_longest(c);
    mb_scores scores = {.stride = (longest + page - 1) / page,
                        .batch = c->batch,
                        .kv_heads = c->kv_heads,
                        .prefix_len = mb_case_prefix(m),
                        .max_prefix = longest,
                        .page = page};
    scores.values = floats(m, kind, heads_of(m) * scores.stride);
    return scores;
}

static mb_page_set chosen_of(mb_case_maker *m, int64_t capacity)
{
    mb_page_set set = {.granularity = m->problem->page, .capacity = (int32_t)capacity};
    set.ids = integers_out(m, heads_of(m) * capacity);
    set.counts = integers_out(m, heads_of(m));
    return set;
}

static void *top_scratch(mb_case_maker *m, int64_t entries)
{
    const mb_kernel_case *c = m->problem;
    return floats(m, MB_CASE_SCRATCH,
                  (int64_t)m->kernels->top_k_scratch(c->batch, c->kv_heads, (int32_t)entries) / 4 + 1);
}

/* page, k. */
static void top_k(mb_case_maker *m, mb_case_call *call)
{
    mb_top_k *a = &call->args.top_k;
    *a = (mb_top_k){.scores = scores_of(m, MB_CASE_IN), .k = (int32_t)m->problem->k};
    a->chosen = chosen_of(m, m->problem->k);
    a->scratch = top_scratch(m, a->scores.stride);
}

/* page; k = least, n = most; p = mode / 100. */
static void top_p(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_top_p *a = &call->args.top_p;
    *a = (mb_top_p){.scores = scores_of(m, MB_CASE_IN), .p = (float)c->mode / 100.0f};
    a->k_min = (int32_t)c->k;
    a->k_max = (int32_t)c->n;
    a->chosen = chosen_of(m, c->n);
    a->scratch = top_scratch(m, a->scores.stride);
}

/* page; the first m and the last n entries. */
static void score_edges(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    call->args.score_edges = (mb_score_edges){scores_of(m, MB_CASE_INOUT), (int32_t)c->m, (int32_t)c->n, 9.0f};
}

/* Pages of k tokens; mode: mb_pooling. */
static void score_pool(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_score_pool *a = &call->args.score_pool;
    *a =
        (mb_score_pool){.scores = scores_of(m, MB_CASE_IN), .page = (int32_t)c->k, .pooling = (mb_pooling)c->mode};
    a->out_stride = (a->scores.stride + c->k - 1) / c->k;
    a->out = floats(m, MB_CASE_OUT, heads_of(m) * a->out_stride);
}

/* A kernel of k; mode: mb_pooling. */
static void score_smooth(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_score_smooth *a = &call->args.score_smooth;
    *a = (mb_score_smooth){scores_of(m, MB_CASE_IN), (int32_t)c->k, (mb_pooling)c->mode, NULL};
    a->out = floats(m, MB_CASE_OUT, heads_of(m) * a->scores.stride);
}

/* m floats. */
static void score_axpby(mb_case_maker *m, mb_case_call *call)
{
    int64_t n = m->problem->m;
    call->args.score_axpby =
        (mb_score_axpby){0.25f, floats(m, MB_CASE_IN, n), 0.5f, floats(m, MB_CASE_INOUT, n), n};
}

static void score_head_mean(mb_case_maker *m, mb_case_call *call)
{
    call->args.score_head_mean = scores_of(m, MB_CASE_INOUT);
}

static void score_random(mb_case_maker *m, mb_case_call *call)
{
    call->args.score_random = (mb_score_random){scores_of(m, MB_CASE_OUT), 77};
}

static void score_recent(mb_case_maker *m, mb_case_call *call)
{
    call->args.score_recent = (mb_score_recent){scores_of(m, MB_CASE_INOUT), 0.25f, 0.125f};
}

/* Every k entries from m. */
static void score_every(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    call->args.score_every = (mb_score_every){scores_of(m, MB_CASE_INOUT), (int32_t)c->k, (int32_t)c->m, 9.0f};
}

/* k of the entries are kept, in pages of m (0 = 1), every other head keeps all. */
static void score_keep(mb_case_maker *m, mb_case_call *call)
{
    int64_t k = m->problem->k, heads = heads_of(m);
    int32_t *ids = calloc((size_t)(heads * k), sizeof *ids), *counts = calloc((size_t)heads, sizeof *counts);
    if (!ids || !counts)
        m->rc = MB_E_SYSTEM;
    for (int64_t i = 0; m->rc == MB_OK && i < heads * k; i++)
        ids[i] = (int32_t)(i % k * 3 + i / k % 3); /* ascending, distinct, different for each head */
    for (int64_t h = 0; m->rc == MB_OK && h < heads; h++)
        counts[h] = h % 2 ? -1 : (int32_t)k;
    mb_page_set kept = {m->problem->m ? (int32_t)m->problem->m : 1, (int32_t)k, mb_case_upload(m, ids, heads * k),
                        mb_case_upload(m, counts, heads)};
    call->args.score_keep = (mb_score_keep){scores_of(m, MB_CASE_INOUT), kept, -INFINITY};
    free(ids);
    free(counts);
}

/* ---- recipes: budgets ---- */

/* page; ratio = mode / 100, k more entries. */
static void budget_ratio(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_scores scores = scores_of(m, MB_CASE_SCRATCH);
    call->args.budget_ratio =
        (mb_budget_ratio){scores, (double)c->mode / 100.0, (int32_t)c->k, integers_out(m, heads_of(m))};
}

/* m layers, k entries each, n at least. */
static void budget_layers(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_budget_layers *a = &call->args.budget_layers;
    *a = (mb_budget_layers){.scores = scores_of(m, MB_CASE_SCRATCH), .layers = (int32_t)c->m};
    a->stats = floats(m, MB_CASE_IN, c->m * heads_of(m) * 2);
    a->k = (int32_t)c->k;
    a->k_min = (int32_t)c->n;
    a->k_max = 4 * a->k;
    a->budgets = integers_out(m, c->m * heads_of(m));
}

/* k entries for each head, n at least. */
static void budget_heads(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_budget_heads *a = &call->args.budget_heads;
    *a = (mb_budget_heads){.scores = scores_of(m, MB_CASE_IN), .k = (int32_t)c->k, .k_min = (int32_t)c->n};
    a->budgets = integers_out(m, heads_of(m));
    a->scratch = floats(m, MB_CASE_SCRATCH, (int64_t)c->kv_heads * a->scores.max_prefix * 3);
}

/* ---- recipes: states ---- */

static mb_state state_of(mb_case_maker *m, mb_case_array_kind kind, int bit)
{
    const mb_kernel_case *c = m->problem;
    int32_t fp32 = c->mode >> bit & 1;
    void *o = mb_case_array(m, kind, c->m * c->head_dim, fp32 ? MB_F32 : m->type);
    return (mb_state){o, floats(m, kind, c->m), fp32};
}

/* m states of head_dim; mode: bit 0, 1, 2 = a, b, out are fp32. */
static void state_pair(mb_case_maker *m, mb_case_call *call)
{
    mb_state a = state_of(m, MB_CASE_IN, 0), b = state_of(m, MB_CASE_IN, 1), out = state_of(m, MB_CASE_OUT, 2);
    call->args.state_merge = (mb_state_pair){m->problem->m, m->problem->head_dim, a, b, out};
}

/* m vectors of head_dim. */
static void row_distance(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_row_distance *a = &call->args.row_distance;
    *a = (mb_row_distance){.n = c->m, .head_dim = c->head_dim};
    a->a = mb_case_array(m, MB_CASE_IN, c->m * c->head_dim, m->type);
    a->b = mb_case_array(m, MB_CASE_IN, c->m * c->head_dim, m->type);
    a->distance = floats(m, MB_CASE_OUT, c->m);
    a->norm = floats(m, MB_CASE_OUT, c->m);
}

/* The whole prefix of all heads, into sums that begin at 0. */
static void key_count(mb_case_maker *m, mb_case_call *call)
{
    static const int32_t nothing[4] = {0};
    mb_scores scores = scores_of(m, MB_CASE_SCRATCH);
    mb_rows rows = {
        .batch = scores.batch, .rows = 1, .prefix_len = scores.prefix_len, .max_prefix = scores.max_prefix};
    void *tokens = mb_case_upload(m, nothing, 4);
    call->args.count_work = (mb_key_count){.rows = rows, .kv_heads = scores.kv_heads, .tokens = tokens};
}

/* ---- recipes: rows kept between forwards ---- */

static mb_row_shape shape_of(const mb_case_maker *m)
{
    const mb_kernel_case *c = m->problem;
    return (mb_row_shape){c->batch, c->rows, c->query_heads, c->kv_heads, c->head_dim};
}

static int64_t states_of(const mb_case_maker *m)
{
    return (int64_t)m->problem->batch * m->problem->rows * m->problem->query_heads;
}

/* Every third entry is `set`, the others 0. */
static int32_t *flags_of(mb_case_maker *m, int64_t n, int32_t set)
{
    int32_t *host = calloc((size_t)n, sizeof *host);
    if (!host)
        m->rc = MB_E_SYSTEM;
    for (int64_t i = 0; host && i < n; i += 3)
        host[i] = set;
    int32_t *flags = mb_case_upload(m, host, n);
    free(host);
    return flags;
}

/* mode: relative. */
static void reuse_decide(mb_case_maker *m, mb_case_call *call)
{
    mb_reuse *a = &call->args.reuse_decide.reuse;
    call->args.reuse_decide.shape = shape_of(m);
    *a = (mb_reuse){.threshold = 0.125f, .relative = m->problem->mode, .share = 0.5f};
    a->distance = floats(m, MB_CASE_IN, states_of(m));
    a->norm = floats(m, MB_CASE_IN, states_of(m));
    a->active = integers_out(m, heads_of(m));
    a->missed = integers_out(m, states_of(m));
}

static void rows_copy(mb_case_maker *m, mb_case_call *call)
{
    mb_rows_copy *a = &call->args.rows_copy;
    int64_t n = states_of(m), dim = m->problem->head_dim;
    *a = (mb_rows_copy){.shape = shape_of(m), .active = flags_of(m, heads_of(m), -1), .missed = flags_of(m, n, 1)};
    a->src = mb_case_array(m, MB_CASE_IN, n * dim, m->type);
    a->src_lse = floats(m, MB_CASE_IN, n);
    a->dst = mb_case_array(m, MB_CASE_INOUT, n * dim, m->type);
    a->dst_lse = floats(m, MB_CASE_INOUT, n);
}

/* k rows. */
static void row_top(mb_case_maker *m, mb_case_call *call)
{
    mb_row_top *a = &call->args.row_top;
    *a = (mb_row_top){.shape = shape_of(m), .count = (int32_t)m->problem->k};
    a->distance = floats(m, MB_CASE_IN, states_of(m));
    a->chosen = integers_out(m, states_of(m));
}

/* k blocks of ages 1 to k. */
static mb_state_ring ring_of(mb_case_maker *m)
{
    int64_t blocks = m->problem->k, n = blocks * states_of(m);
    uint8_t ages[64] = {0};
    for (int64_t i = 0; i < blocks && i < (int64_t)sizeof ages; i++)
        ages[i] = (uint8_t)(i + 1);
    mb_state_ring ring = {.blocks = (int32_t)blocks, .pitch = states_of(m)};
    ring.ages = (const uint8_t *)mb_case_upload(m, (const int32_t *)(const void *)ages, sizeof ages / 4);
    ring.q = mb_case_array(m, MB_CASE_IN, n * m->problem->head_dim, m->type);
    ring.out = mb_case_array(m, MB_CASE_IN, n * m->problem->head_dim, m->type);
    ring.lse = floats(m, MB_CASE_IN, n);
    return ring;
}

/* The place in the ring that each row looks at: all blocks and rows by turns. */
static int32_t *slots_of(mb_case_maker *m)
{
    int64_t n = states_of(m), slots = m->problem->k * m->problem->rows;
    int32_t *host = malloc((size_t)n * sizeof *host);
    if (!host)
        m->rc = MB_E_SYSTEM;
    for (int64_t i = 0; host && i < n; i++)
        host[i] = (int32_t)(i * 7 % (slots + 1)) - 1;
    int32_t *slot = mb_case_upload(m, host, n);
    free(host);
    return slot;
}

/* k blocks; mode: any. */
static void ring_match(mb_case_maker *m, mb_case_call *call)
{
    mb_ring_match *a = &call->args.ring_match;
    *a = (mb_ring_match){.shape = shape_of(m), .ring = ring_of(m), .any = m->problem->mode};
    a->a = mb_case_array(m, MB_CASE_IN, states_of(m) * m->problem->head_dim, m->type);
    a->slot = integers_out(m, states_of(m));
    a->distance = floats(m, MB_CASE_OUT, states_of(m));
    a->norm = floats(m, MB_CASE_OUT, states_of(m));
}

/* k blocks. */
static void ring_gather(mb_case_maker *m, mb_case_call *call)
{
    mb_ring_gather *a = &call->args.ring_gather;
    *a = (mb_ring_gather){.shape = shape_of(m), .slot = slots_of(m), .ring = ring_of(m)};
    a->out = mb_case_array(m, MB_CASE_OUT, states_of(m) * m->problem->head_dim, m->type);
    a->lse = floats(m, MB_CASE_OUT, states_of(m));
}

/* k blocks, of which the oldest half is looked at. */
static void ring_reach(mb_case_maker *m, mb_case_call *call)
{
    mb_ring_reach *a = &call->args.ring_reach;
    *a = (mb_ring_reach){.shape = shape_of(m), .ring = ring_of(m)};
    a->reach = (mb_reach){.slot = slots_of(m),
                          .age = (int32_t)(m->problem->k + 1) / 2,
                          .active = flags_of(m, heads_of(m), -1),
                          .missed = flags_of(m, states_of(m), 1)};
    a->reach.heads = integers_out(m, heads_of(m));
    a->reach.reached = integers_out(m, states_of(m));
}

static mb_case_recipe *const recipes[MB_OPERATION_COUNT] = {
    MB_CASE_RECIPE(top_k),
    MB_CASE_RECIPE(top_p),
    MB_CASE_RECIPE(score_edges),
    MB_CASE_RECIPE(score_pool),
    MB_CASE_RECIPE(score_smooth),
    MB_CASE_RECIPE(score_axpby),
    MB_CASE_RECIPE(score_head_mean),
    MB_CASE_RECIPE(score_random),
    MB_CASE_RECIPE(score_recent),
    MB_CASE_RECIPE(score_every),
    MB_CASE_RECIPE(score_keep),
    MB_CASE_RECIPE(budget_ratio),
    MB_CASE_RECIPE(budget_layers),
    MB_CASE_RECIPE(budget_heads),
    MB_CASE_RECIPE(row_distance),
    MB_CASE_RECIPE(reuse_decide),
    MB_CASE_RECIPE(rows_copy),
    MB_CASE_RECIPE(row_top),
    MB_CASE_RECIPE(ring_match),
    MB_CASE_RECIPE(ring_gather),
    MB_CASE_RECIPE(ring_reach),
    [MB_OP_state_merge] = state_pair,
    [MB_OP_state_downdate] = state_pair,
    [MB_OP_count_work] = key_count,
    [MB_OP_count_read] = key_count,
};

static const mb_case_list own = {cases, sizeof cases / sizeof *cases, recipes};

static const mb_case_list *const lists[] = {&mb_cases_model, &mb_cases_attention, &mb_cases_estimate, &own};

const mb_kernel_case *mb_kernel_case_at(size_t index)
{
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (index < lists[i]->count)
            return &lists[i]->cases[index];
        index -= lists[i]->count;
    }
    return NULL;
}

void mb_case_fill(mb_case_maker *maker, mb_case_call *call)
{
    mb_case_recipe *recipe = NULL;
    for (size_t i = 0; i < sizeof lists / sizeof *lists && !recipe; i++)
        recipe = lists[i]->recipes[maker->problem->operation];
    memset(call, 0, sizeof *call);
    maker->bytes = 0.0;
    if (recipe)
        recipe(maker, call);
    else
        maker->rc = MB_E_BUG;
}
