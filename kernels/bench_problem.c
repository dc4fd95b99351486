/*
 * bench_problem.c - the arrays of a bench case and its call. Inputs are normal random numbers: a few MiB are drawn
 * on the host and repeated on the device from another start for every array, so a cache of gigabytes costs no
 * transfer and nothing is timed on zeros. Sets of one case differ in everything a call reads, but for the KV cache
 * of attend_sparse and qkv_finish and the table of embed: there the sets differ in what they pick from it.
 */
#include "kernels/bench_problem.h"

#include <stdlib.h>
#include <string.h>

/* Arena memory, or NULL when dry or after a failure. */
static void *take(mb_bench_problem *p, int64_t bytes)
{
    p->memory += ((size_t)bytes + 255) / 256 * 256;
    if (p->dry || p->rc != MB_OK)
        return NULL;
    void *memory = p->kernels->alloc(p->device, (size_t)bytes);
    if (!memory)
        p->rc = MB_E_SYSTEM;
    return memory;
}

/* Repeats the noise over dst: first from the phase to its end, then by doubling what is there. */
static void repeat(mb_bench_problem *p, void *dst, size_t bytes, const void *noise, size_t element)
{
    size_t have = (size_t)(MB_BENCH_NOISE - p->phase) * element;
    have = have < bytes ? have : bytes;
    if (dst && p->rc == MB_OK)
        p->rc = p->kernels->copy(p->device, dst, (const char *)noise + (size_t)p->phase * element, have);
    while (dst && p->rc == MB_OK && have < bytes) {
        size_t next = have < bytes - have ? have : bytes - have;
        p->rc = p->kernels->copy(p->device, (char *)dst + have, dst, next);
        have += next;
    }
    p->phase = (p->phase + 64 * 977) % (MB_BENCH_NOISE / 2); /* 256-byte steps keep vector loads aligned */
}

void *mb_bench_values(mb_bench_problem *p, int64_t n)
{
    size_t bytes = (size_t)n * mb_type_size(p->type);
    void *dst = take(p, (int64_t)bytes);
    repeat(p, dst, bytes, p->noise, mb_type_size(p->type));
    return dst;
}

static float *floats(mb_bench_problem *p, int64_t n)
{
    float *dst = take(p, n * 4);
    repeat(p, dst, (size_t)n * 4, p->noise_f32, 4);
    return dst;
}

static int32_t *integers(mb_bench_problem *p, const int32_t *host, int64_t n)
{
    int32_t *dst = take(p, n * 4);
    if (dst && p->rc == MB_OK)
        p->rc = p->kernels->upload(p->device, dst, host, (size_t)n * 4);
    return dst;
}

int mb_bench_noise(mb_bench_problem *p)
{
    int64_t n = MB_BENCH_NOISE;
    size_t size = mb_type_size(p->type);
    float *values = malloc((size_t)n * 4);
    uint16_t *halves = malloc((size_t)n * 2);
    void *noise = take(p, n * (int64_t)size);
    float *noise_f32 = take(p, n * 4);
    if (!values || !halves)
        p->rc = MB_E_SYSTEM;
    for (int64_t i = 0; p->rc == MB_OK && i < n; i++) {
        /* Sum of four uniforms, variance 1: as good as normal here. */
        double sum = -2.0;
        uint32_t bits;
        for (int j = 0; j < 4; j++)
            sum += mb_random_unit(&p->random);
        values[i] = (float)(sum * 1.7320508075688772);
        memcpy(&bits, &values[i], 4);
        halves[i] = (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16); /* nearest, ties to even */
    }
    if (p->rc == MB_OK)
        p->rc =
            p->kernels->upload(p->device, noise, size == 2 ? (void *)halves : (void *)values, (size_t)n * size);
    if (p->rc == MB_OK)
        p->rc = p->kernels->upload(p->device, noise_f32, values, (size_t)n * 4);
    p->noise = noise;
    p->noise_f32 = noise_f32;
    free(values);
    free(halves);
    return p->rc;
}

/* ---- parts that several operations share ---- */

static int32_t longest(const mb_kernel_case *c)
{
    int32_t most = 0;
    for (int i = 0; i < 4 && i < c->batch; i++)
        most = c->prefix[i] > most ? c->prefix[i] : most;
    return most;
}

static int32_t visible_block(const mb_kernel_case *c)
{
    return c->block_keys ? c->block_keys : c->rows + c->row_offset;
}

static mb_rows rows_of(const mb_bench_problem *p)
{
    const mb_kernel_case *c = p->problem;
    return (mb_rows){.batch = c->batch,
                     .rows = c->rows,
                     .row_offset = c->row_offset,
                     .prefix_len = p->prefix,
                     .max_prefix = longest(c) + c->slack,
                     .block_keys = visible_block(c)};
}

static mb_kv make_kv(mb_bench_problem *p, int32_t capacity)
{
    const mb_kernel_case *c = p->problem;
    int64_t n = (int64_t)c->batch * c->kv_heads * capacity * c->head_dim;
    mb_kv kv = {.batch = c->batch, .kv_heads = c->kv_heads, .capacity = capacity, .head_dim = c->head_dim};
    kv.k = mb_bench_values(p, n);
    kv.v = mb_bench_values(p, n);
    return kv;
}

static bool shares_kv(const mb_kernel_case *c)
{
    return c->operation == MB_CASE_SPARSE || c->operation == MB_CASE_QKV;
}

/* k distinct pages per (sequence, KV head), one drawn from each of k equal stretches of the prefix. */
static void make_pages(mb_bench_problem *p, mb_bench_set *s)
{
    const mb_kernel_case *c = p->problem;
    int64_t heads = (int64_t)c->batch * c->kv_heads;
    int32_t *ids = malloc((size_t)(heads * c->k) * 4), *counts = malloc((size_t)heads * 4);
    if (!ids || !counts)
        p->rc = MB_E_SYSTEM;
    for (int64_t h = 0; p->rc == MB_OK && h < heads; h++) {
        int64_t stretch = c->prefix[h / c->kv_heads % 4] / c->page / c->k;
        counts[h] = (int32_t)c->k;
        for (int64_t i = 0; i < c->k; i++)
            ids[h * c->k + i] = (int32_t)(i * stretch + (int64_t)mb_random_below(&p->random, (uint64_t)stretch));
    }
    s->ids = integers(p, ids, heads * c->k);
    s->counts = integers(p, counts, heads);
    s->pages = (mb_pages){.granularity = c->page, .capacity = (int32_t)c->k, .ids = s->ids, .counts = s->counts};
    free(ids);
    free(counts);
}

static void make_attention(mb_bench_problem *p, mb_bench_set *s)
{
    const mb_kernel_case *c = p->problem;
    int64_t queries = (int64_t)c->batch * c->rows * c->query_heads, heads = (int64_t)c->batch * c->kv_heads;
    int64_t stride = ((int64_t)longest(c) + c->slack + 63) / 64 * 64;
    mb_attention *a = &s->attention;
    *a = (mb_attention){.rows = rows_of(p), .query_heads = c->query_heads, .span = c->span};
    a->kv = shares_kv(c) ? p->kv : make_kv(p, longest(c) + visible_block(c));
    a->q = mb_bench_values(p, queries * c->head_dim);
    a->out = take(p, queries * c->head_dim * (int64_t)mb_type_size(p->type));
    a->lse = take(p, queries * 4);
    a->mass_stride = stride;
    a->tile_stride = stride / 64;
    if (c->flags & (MB_CASE_MASS_OUT | MB_CASE_TOKENS) || c->operation == MB_CASE_MASS)
        a->mass = take(p, heads * stride * 4);
    if (c->flags & (MB_CASE_MASS_OUT | MB_CASE_TILES))
        a->tile_mass = take(p, heads * stride / 64 * 4);
}

/* mass and votes read the log-sum-exp of the exact attention: computed once, outside the timing. */
static void make_lse(mb_bench_problem *p, mb_bench_set *s)
{
    mb_attention exact = s->attention;
    exact.mass = exact.tile_mass = NULL;
    if (!p->dry && p->rc == MB_OK)
        p->rc = p->kernels->attend(p->device, &exact);
}

static void make_qkv(mb_bench_problem *p, mb_bench_set *s)
{
    const mb_kernel_case *c = p->problem;
    int64_t rows = (int64_t)c->batch * c->rows, size = (int64_t)mb_type_size(p->type);
    s->qkv = (mb_qkv){.rows = rows_of(p),
                      .kv = p->kv,
                      .query_heads = c->query_heads,
                      .norm_eps = 1e-6f,
                      .norm_one_rounding = c->mode,
                      .rotary_dim = (int32_t)c->k,
                      .cos_sin = p->cos_sin};
    s->qkv.qkv = mb_bench_values(p, rows * (c->query_heads + 2 * c->kv_heads) * c->head_dim);
    if (c->flags & MB_CASE_NORM) {
        s->qkv.q_norm = mb_bench_values(p, c->head_dim);
        s->qkv.k_norm = mb_bench_values(p, c->head_dim);
    }
    s->qkv.q_out = take(p, rows * c->query_heads * c->head_dim * size);
    if (c->flags & MB_CASE_PRE)
        s->qkv.q_pre = take(p, rows * c->query_heads * c->head_dim * size);
}

static void make_embed(mb_bench_problem *p, mb_bench_set *s)
{
    const mb_kernel_case *c = p->problem;
    int32_t *ids = malloc((size_t)c->m * 4);
    if (!ids)
        p->rc = MB_E_SYSTEM;
    for (int64_t i = 0; ids && i < c->m; i++)
        ids[i] = (int32_t)mb_random_below(&p->random, (uint64_t)c->n);
    s->ids = integers(p, ids, c->m);
    s->out = take(p, c->m * c->k * (int64_t)mb_type_size(p->type));
    free(ids);
}

static void make_route(mb_bench_problem *p, mb_bench_set *s)
{
    const mb_kernel_case *c = p->problem;
    s->router = (mb_router){.n = c->m,
                            .width = c->k,
                            .experts = c->experts,
                            .top_k = c->chosen,
                            .groups = c->groups,
                            .groups_kept = c->groups_kept,
                            .score = (mb_score)c->mode,
                            .normalise = 1,
                            .scale = 2.5f};
    s->router.hidden = mb_bench_values(p, c->m * c->k);
    s->router.weight = mb_bench_values(p, c->experts * c->k);
    s->router.bias = c->flags & MB_CASE_BIAS ? floats(p, c->experts) : NULL;
    s->router.logits = take(p, c->m * c->experts * 4);
    s->router.ids = take(p, c->m * c->chosen * 4);
    s->router.weights = take(p, c->m * c->chosen * 4);
}

static void make_experts(mb_bench_problem *p, mb_bench_set *s)
{
    const mb_kernel_case *c = p->problem;
    int64_t size = (int64_t)mb_type_size(p->type);
    int32_t *ids = malloc((size_t)(c->m * c->chosen) * 4), turn = (int32_t)(s - p->sets) * 37;
    mb_random draws = mb_bench_draws(c);
    if (!ids)
        p->rc = MB_E_SYSTEM;
    for (int64_t r = 0; ids && r < c->m; r++) {
        mb_bench_draw(c, &draws, ids + r * c->chosen);
        for (int32_t k = 0; k < c->chosen; k++)
            ids[r * c->chosen + k] = (ids[r * c->chosen + k] + turn) % c->experts;
    }
    s->experts = (mb_experts){.n = c->m,
                              .width = c->k,
                              .experts = c->experts,
                              .top_k = c->chosen,
                              .size = (int32_t)c->n,
                              .combine = (mb_combine)c->mode};
    s->experts.hidden = mb_bench_values(p, c->m * c->k);
    s->experts.ids = integers(p, ids, c->m * c->chosen);
    s->experts.weights = floats(p, c->m * c->chosen);
    s->experts.gate_up = mb_bench_values(p, c->experts * 2 * c->n * c->k);
    s->experts.down = mb_bench_values(p, c->experts * c->n * c->k);
    s->experts.add = c->flags & MB_CASE_DELTA ? mb_bench_values(p, c->m * c->k) : NULL;
    s->experts.out = take(p, c->m * c->k * size);
    s->experts.scratch =
        take(p, (int64_t)mb_experts_scratch(c->m, c->k, c->experts, c->chosen, (int32_t)c->n, p->type));
    free(ids);
}

/* ---- all operations ---- */

static void make_set(mb_bench_problem *p, mb_bench_set *s)
{
    const mb_kernel_case *c = p->problem;
    int64_t size = (int64_t)mb_type_size(p->type), heads = (int64_t)c->batch * c->kv_heads;
    int64_t entries = c->page ? (longest(c) + c->slack + c->page - 1) / c->page : 0;
    switch (c->operation) {
    case MB_CASE_EMBED:
        make_embed(p, s);
        break;
    case MB_CASE_RMSNORM:
        s->a = mb_bench_values(p, c->m * c->k);
        s->b = c->flags & MB_CASE_DELTA ? mb_bench_values(p, c->m * c->k) : NULL;
        s->c = mb_bench_values(p, c->k);
        s->out = take(p, c->m * c->k * size);
        break;
    case MB_CASE_GEMM:
        s->a = mb_bench_values(p, c->m * c->k);
        s->b = mb_bench_values(p, c->n * c->k);
        s->c = c->flags & MB_CASE_BIAS ? mb_bench_values(p, c->n) : NULL;
        s->out = take(p, c->m * c->n * size);
        break;
    case MB_CASE_QKV:
        make_qkv(p, s);
        break;
    case MB_CASE_SWIGLU:
        s->a = mb_bench_values(p, 2 * c->m * c->k);
        s->out = take(p, c->m * c->k * size);
        break;
    case MB_CASE_ROUTE:
        make_route(p, s);
        break;
    case MB_CASE_EXPERTS:
        make_experts(p, s);
        break;
    case MB_CASE_TOP1:
        s->a = mb_bench_values(p, c->m * c->n);
        s->ids = take(p, c->m * 4);
        s->fout = take(p, c->m * 4);
        break;
    case MB_CASE_ATTEND:
    case MB_CASE_MASS:
    case MB_CASE_KEY_SCORES:
    case MB_CASE_VOTES:
        make_attention(p, s);
        if (c->operation == MB_CASE_MASS || c->operation == MB_CASE_VOTES)
            make_lse(p, s);
        if (c->operation == MB_CASE_KEY_SCORES || c->operation == MB_CASE_VOTES)
            s->fout = take(p, heads * s->attention.mass_stride * 4);
        if (c->operation == MB_CASE_VOTES) {
            s->stats = take(p, heads * 8);
            s->scratch = take(p, (int64_t)p->kernels->votes_scratch(&s->attention, (int32_t)c->k));
        }
        break;
    case MB_CASE_SPARSE:
        make_attention(p, s);
        make_pages(p, s);
        s->attention.pages = &s->pages;
        break;
    case MB_CASE_PREFILL: /* sequence 0 is computed */
        s->attention.kv = make_kv(p, (int32_t)(c->n + c->m));
        s->a = mb_bench_values(p, c->m * c->query_heads * c->head_dim);
        s->out = take(p, c->m * c->query_heads * c->head_dim * size);
        break;
    case MB_CASE_PAGE_BOUNDS:
        s->attention.kv = make_kv(p, longest(c) + visible_block(c));
        s->attention.rows = rows_of(p);
        entries = (s->attention.kv.capacity + c->page - 1) / c->page;
        s->out = take(p, heads * entries * 2 * c->head_dim * size);
        break;
    case MB_CASE_PAGE_SCORES: /* the bound reads no keys: a cache of one row stands for it */
        s->attention = (mb_attention){.rows = rows_of(p), .query_heads = c->query_heads, .span = c->span};
        s->attention.kv = make_kv(p, 1);
        s->attention.kv.capacity = longest(c) + visible_block(c);
        s->attention.q = mb_bench_values(p, (int64_t)c->batch * c->rows * c->query_heads * c->head_dim);
        s->a = mb_bench_values(p, heads * entries * 2 * c->head_dim);
        s->fout = take(p, heads * entries * 4);
        break;
    case MB_CASE_TOP_K:
        s->fa = floats(p, heads * entries);
        s->ids = take(p, heads * c->k * 4);
        s->counts = take(p, heads * 4);
        s->scratch = take(p, (int64_t)p->kernels->top_k_scratch(c->batch, c->kv_heads, (int32_t)entries));
        break;
    case MB_CASE_MERGE:
    case MB_CASE_DOWNDATE:
        s->a = c->mode & 1 ? (void *)floats(p, c->m * c->head_dim) : mb_bench_values(p, c->m * c->head_dim);
        s->b = c->mode & 2 ? (void *)floats(p, c->m * c->head_dim) : mb_bench_values(p, c->m * c->head_dim);
        s->fa = floats(p, c->m);
        s->fb = floats(p, c->m);
        s->out = take(p, c->m * c->head_dim * (c->mode & 4 ? 4 : size));
        s->fout = take(p, c->m * 4);
        break;
    case MB_CASE_DISTANCE:
        s->a = mb_bench_values(p, c->m * c->head_dim);
        s->b = mb_bench_values(p, c->m * c->head_dim);
        s->fout = take(p, c->m * 4);
        s->stats = take(p, c->m * 4);
        break;
    case MB_CASE_TOP_P:
    case MB_CASE_SCORES:
    case MB_CASE_COUNT_WORK:
        break;
    }
}

int mb_bench_make(mb_bench_problem *p, int count, bool dry)
{
    const mb_kernel_case *c = p->problem;
    p->dry = dry;
    p->rc = MB_OK;
    p->memory = 0;
    p->phase = 0;
    p->count = count;
    memset(p->sets, 0, sizeof p->sets);
    if (c->batch) {
        int32_t prefix[64];
        for (int32_t b = 0; b < c->batch; b++)
            prefix[b] = c->prefix[b % 4];
        p->prefix = integers(p, prefix, c->batch);
    }
    if (shares_kv(c))
        p->kv = make_kv(p, longest(c) + visible_block(c));
    if (c->operation == MB_CASE_QKV)
        p->cos_sin = floats(p, (int64_t)p->kv.capacity * c->head_dim);
    if (c->operation == MB_CASE_EMBED)
        p->table = mb_bench_values(p, c->n * c->k);
    for (int i = 0; i < count && p->rc == MB_OK; i++)
        make_set(p, &p->sets[i]);
    return p->rc;
}

int mb_bench_launch(const mb_bench_problem *p, int set)
{
    const mb_kernel_case *c = p->problem;
    const mb_bench_set *s = &p->sets[set];
    const mb_kernels *k = p->kernels;
    mb_device *device = p->device;
    const mb_attention *a = &s->attention;
    const mb_type ta = c->mode & 1 ? MB_F32 : p->type, tb = c->mode & 2 ? MB_F32 : p->type,
                  to = c->mode & 4 ? MB_F32 : p->type;
    const int32_t most = longest(c) + c->slack, entries = c->page ? (most + c->page - 1) / c->page : 0;
    switch (c->operation) {
    case MB_CASE_EMBED:
        return k->embed(device, s->ids, c->m, p->table, c->n, c->k, s->out);
    case MB_CASE_RMSNORM:
        return k->add_rmsnorm(device, s->a, s->b, s->c, 1e-6f, c->mode, c->m, c->k, s->out);
    case MB_CASE_GEMM:
        return k->gemm(device, s->a, s->b, s->c, c->m, c->n, c->k, s->out);
    case MB_CASE_QKV:
        return k->qkv_finish(device, &s->qkv);
    case MB_CASE_SWIGLU:
        return k->swiglu(device, s->a, c->m, c->k, s->out);
    case MB_CASE_ROUTE:
        return k->route(device, &s->router);
    case MB_CASE_EXPERTS:
        return k->experts(device, &s->experts);
    case MB_CASE_TOP1:
        return k->top1(device, s->a, c->m, c->n, (mb_type)c->mode, s->ids, s->fout);
    case MB_CASE_ATTEND:
        return k->attend(device, a);
    case MB_CASE_SPARSE:
        return k->attend_sparse(device, a);
    case MB_CASE_PREFILL:
        return k->attend_prefill(device, &a->kv, 0, c->query_heads, s->a, c->n, c->m, (int32_t)c->k, s->out);
    case MB_CASE_MASS:
        return k->mass(device, a);
    case MB_CASE_VOTES:
        return k->votes(device, a, (int32_t)c->k, s->fout, s->stats, s->scratch);
    case MB_CASE_PAGE_BOUNDS:
        return k->page_bounds(device, &a->rows, &a->kv, c->page, (a->kv.capacity + c->page - 1) / c->page, c->mode,
                              s->out);
    case MB_CASE_PAGE_SCORES:
        return k->page_scores(device, a, c->page, entries, s->a, (mb_merge)c->mode, s->fout, entries);
    case MB_CASE_KEY_SCORES:
        return k->key_scores(device, a, NULL, c->head_dim, s->fout, a->mass_stride);
    case MB_CASE_TOP_K:
        return k->top_k(device, s->fa, entries, c->batch, c->kv_heads, p->prefix, most, c->page, (int32_t)c->k,
                        NULL, (int32_t)c->k, s->ids, s->counts, s->scratch);
    case MB_CASE_MERGE:
        return k->state_merge(device, c->m, c->head_dim, s->a, ta, s->fa, s->b, tb, s->fb, s->out, to, s->fout);
    case MB_CASE_DOWNDATE:
        return k->state_downdate(device, c->m, c->head_dim, s->a, ta, s->fa, s->b, tb, s->fb, s->out, to, s->fout);
    case MB_CASE_DISTANCE:
        return k->row_distance(device, s->a, s->b, c->m, c->head_dim, s->fout, s->stats);
    case MB_CASE_TOP_P:
    case MB_CASE_SCORES:
    case MB_CASE_COUNT_WORK:
        break;
    }
    return MB_E_BUG;
}
