/* host_ops.c - struct mb_host over a kernel table: arguments are put together, nothing is computed here. */
#include "tests/methods/host.h"

static mb_stage *stage_of(const mb_host *host)
{
    return host->internal;
}

mb_attention mb_stage_attention(const mb_stage *stage, const mb_call *call, mb_span span)
{
    const mb_shape *shape = &stage->shape;
    return (mb_attention){
        .rows = {shape->batch, call->rows, call->row_offset, call->prefix_len, call->max_prefix, shape->block},
        .kv = {(void *)(uintptr_t)call->k, (void *)(uintptr_t)call->v, shape->batch, shape->kv_heads,
               shape->capacity + shape->block, shape->head_dim},
        .query_heads = shape->query_heads,
        .q = call->q,
        .span = span,
        .mass_stride = shape->stride};
}

const float *mb_stage_weights(const mb_stage *stage, mb_row_set rows)
{
    return rows == MB_ROWS_MASKED ? stage->weights_masked : rows == MB_ROWS_CENTRE ? stage->weights_centre : NULL;
}

static void op_log(const mb_host *host, int level, const char *message)
{
    (void)host, (void)level, (void)message;
}

static void *op_alloc(const mb_host *host, size_t bytes)
{
    mb_stage *stage = stage_of(host);
    if (!stage->opening) {
        stage->hot_allocations++;
        return NULL;
    }
    return stage->env->kernels->alloc(stage->env->device, bytes);
}

static size_t heads_of(const mb_stage *stage)
{
    return (size_t)stage->shape.batch * (size_t)stage->shape.kv_heads;
}

static int op_pages_alloc(const mb_host *host, int32_t granularity, int32_t capacity, mb_page_set *set)
{
    size_t heads = heads_of(stage_of(host));
    set->granularity = granularity;
    set->capacity = capacity;
    set->ids = op_alloc(host, heads * (size_t)capacity * sizeof *set->ids);
    set->counts = op_alloc(host, heads * sizeof *set->counts);
    return set->ids && set->counts ? 0 : MB_E_SYSTEM;
}

static float *op_scores_alloc(const mb_host *host)
{
    const mb_stage *stage = stage_of(host);
    return op_alloc(host, heads_of(stage) * (size_t)stage->shape.stride * sizeof(float));
}

static int op_copy(const mb_host *host, const mb_call *call, void *dst, const void *src, size_t bytes)
{
    const mb_stage *stage = stage_of(host);
    (void)call;
    return stage->env->kernels->copy(stage->env->device, dst, src, bytes);
}

static int op_fill(const mb_host *host, const mb_call *call, void *dst, int byte, size_t bytes)
{
    const mb_stage *stage = stage_of(host);
    (void)call;
    return stage->env->kernels->fill(stage->env->device, dst, byte, bytes);
}

static int op_attend(const mb_host *host, const mb_call *call, mb_scope scope, const int32_t *active, void *out,
                     float *lse)
{
    const mb_stage *stage = stage_of(host);
    mb_attention args = mb_stage_attention(stage, call, (mb_span)scope);
    args.active = active;
    args.out = out;
    args.lse = lse;
    return stage->env->kernels->attend(stage->env->device, &args);
}

static int op_attend_pages(const mb_host *host, const mb_call *call, const mb_page_set *set, mb_scope scope,
                           const int32_t *active, void *out, float *lse)
{
    const mb_stage *stage = stage_of(host);
    mb_attention args = mb_stage_attention(stage, call, (mb_span)scope);
    mb_pages pages = {set->granularity, set->capacity, set->ids, set->counts};
    args.pages = &pages;
    args.active = active;
    args.out = out;
    args.lse = lse;
    return stage->env->kernels->attend_sparse(stage->env->device, &args);
}

/* The log-sum-exp that a mass or a vote divides by: the caller's, or one more pass. */
static int normaliser_lse(const mb_stage *stage, const mb_call *call, const float *lse, mb_normaliser normaliser,
                          mb_attention *args)
{
    *args = mb_stage_attention(stage, call, normaliser == MB_OVER_ALL ? MB_SPAN_ALL : MB_SPAN_PREFIX);
    args->lse = lse ? (float *)(uintptr_t)lse : stage->lse;
    return lse ? 0 : stage->env->kernels->attend(stage->env->device, args);
}

static int op_mass(const mb_host *host, const mb_call *call, const float *lse, mb_row_set rows,
                   mb_normaliser normaliser, float *scores)
{
    const mb_stage *stage = stage_of(host);
    mb_attention args;
    int rc = normaliser_lse(stage, call, lse, normaliser, &args);
    args.mass = scores;
    args.row_weight = mb_stage_weights(stage, rows);
    return rc == 0 ? stage->env->kernels->mass(stage->env->device, &args) : rc;
}

static int op_votes(const mb_host *host, const mb_call *call, const float *lse, int32_t k, float *scores,
                    float *stats)
{
    const mb_stage *stage = stage_of(host);
    const mb_kernels *kernels = stage->env->kernels;
    mb_attention args;
    int rc = normaliser_lse(stage, call, lse, MB_OVER_ALL, &args);
    size_t mark = kernels->mark(stage->env->device);
    void *scratch = kernels->alloc(stage->env->device, kernels->votes_scratch(&args, k));
    if (rc == 0)
        rc = scratch ? kernels->votes(stage->env->device, &args, k, scores, stats, scratch) : MB_E_SYSTEM;
    kernels->release(stage->env->device, mark);
    return rc;
}

static int32_t page_capacity(const mb_stage *stage, int32_t page)
{
    return (stage->shape.capacity + stage->shape.block + page - 1) / page;
}

static void *op_bounds_alloc(const mb_host *host, int32_t page)
{
    const mb_stage *stage = stage_of(host);
    return op_alloc(host, heads_of(stage) * (size_t)page_capacity(stage, page) * 2 *
                              (size_t)stage->shape.head_dim * mb_type_size(stage->env->type));
}

static int op_page_bounds(const mb_host *host, const mb_call *call, int32_t page, int whole, void *bounds)
{
    const mb_stage *stage = stage_of(host);
    mb_attention args = mb_stage_attention(stage, call, MB_SPAN_ALL);
    return stage->env->kernels->page_bounds(stage->env->device, &args.rows, &args.kv, page,
                                            page_capacity(stage, page), whole, bounds);
}

static int op_page_scores(const mb_host *host, const mb_call *call, int32_t page, const void *bounds,
                          mb_merge_rule rule, mb_row_set rows, float *scores)
{
    const mb_stage *stage = stage_of(host);
    mb_attention args = mb_stage_attention(stage, call, MB_SPAN_PREFIX);
    args.row_weight = mb_stage_weights(stage, rows);
    return stage->env->kernels->page_scores(stage->env->device, &args, page, page_capacity(stage, page), bounds,
                                            (mb_merge)rule, scores, stage->shape.stride);
}

static int op_key_scores(const mb_host *host, const mb_call *call, const int32_t *channels, int32_t channel_count,
                         mb_row_set rows, float *scores)
{
    const mb_stage *stage = stage_of(host);
    mb_attention args = mb_stage_attention(stage, call, MB_SPAN_PREFIX);
    args.row_weight = mb_stage_weights(stage, rows);
    return stage->env->kernels->key_scores(stage->env->device, &args, channels, channel_count, scores,
                                           stage->shape.stride);
}

/* top_k and top_p differ in what they call; both need scratch of the same size. */
static void *top_scratch(const mb_stage *stage, const mb_page_set *set, int32_t *entries)
{
    *entries = (stage->shape.capacity + set->granularity - 1) / set->granularity;
    return stage->env->kernels->alloc(
        stage->env->device,
        stage->env->kernels->top_k_scratch(stage->shape.batch, stage->shape.kv_heads, *entries));
}

static int op_top_k(const mb_host *host, const mb_call *call, const float *scores, int32_t k,
                    const int32_t *k_dynamic, mb_page_set *set)
{
    const mb_stage *stage = stage_of(host);
    const mb_kernels *kernels = stage->env->kernels;
    size_t mark = kernels->mark(stage->env->device);
    int32_t entries;
    void *scratch = top_scratch(stage, set, &entries);
    int rc = kernels->top_k(stage->env->device, scores, stage->shape.stride, stage->shape.batch,
                            stage->shape.kv_heads, call->prefix_len, call->max_prefix, set->granularity, k,
                            k_dynamic, set->capacity, set->ids, set->counts, scratch);
    kernels->release(stage->env->device, mark);
    return rc;
}

static int op_top_p(const mb_host *host, const mb_call *call, const float *scores, float p, int32_t k_min,
                    int32_t k_max, mb_page_set *set)
{
    const mb_stage *stage = stage_of(host);
    const mb_kernels *kernels = stage->env->kernels;
    size_t mark = kernels->mark(stage->env->device);
    int32_t entries;
    void *scratch = top_scratch(stage, set, &entries);
    int rc = kernels->top_p(stage->env->device, scores, stage->shape.stride, stage->shape.batch,
                            stage->shape.kv_heads, call->prefix_len, call->max_prefix, set->granularity, p, k_min,
                            k_max, set->capacity, set->ids, set->counts, scratch);
    kernels->release(stage->env->device, mark);
    return rc;
}

static int op_score_edges(const mb_host *host, const mb_call *call, int32_t page, int32_t first, int32_t last,
                          float value, float *scores)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->score_edges(stage->env->device, scores, stage->shape.stride, stage->shape.batch,
                                            stage->shape.kv_heads, call->prefix_len, page, first, last, value);
}

static int op_score_pool(const mb_host *host, const mb_call *call, const float *scores, int32_t page, int32_t mode,
                         float *out)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->score_pool(stage->env->device, scores, stage->shape.stride, stage->shape.batch,
                                           stage->shape.kv_heads, call->prefix_len, call->max_prefix, page, mode,
                                           out, stage->shape.stride);
}

static int op_score_smooth(const mb_host *host, const mb_call *call, const float *scores, int32_t kernel,
                           int32_t mode, float *out)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->score_smooth(stage->env->device, scores, stage->shape.stride, stage->shape.batch,
                                             stage->shape.kv_heads, call->prefix_len, call->max_prefix, kernel,
                                             mode, out);
}

static int op_score_axpby(const mb_host *host, const mb_call *call, float a, const float *x, float b, float *y)
{
    const mb_stage *stage = stage_of(host);
    (void)call;
    return stage->env->kernels->score_axpby(stage->env->device, a, x, b, y,
                                            (int64_t)heads_of(stage) * stage->shape.stride);
}

static int op_score_head_mean(const mb_host *host, const mb_call *call, float *scores)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->score_head_mean(stage->env->device, scores, stage->shape.stride,
                                                stage->shape.batch, stage->shape.kv_heads, call->prefix_len,
                                                call->max_prefix);
}

static int op_score_random(const mb_host *host, const mb_call *call, uint64_t seed, float *scores)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->score_random(stage->env->device, seed, stage->shape.batch, stage->shape.kv_heads,
                                             call->max_prefix, scores, stage->shape.stride);
}

static mb_type flagged(const mb_stage *stage, uint32_t flags, uint32_t bit)
{
    return flags & bit ? MB_F32 : stage->env->type;
}

static int64_t states_of(const mb_stage *stage, const mb_call *call)
{
    return (int64_t)stage->shape.batch * call->rows * stage->shape.query_heads;
}

static int op_state_merge(const mb_host *host, const mb_call *call, const void *o_a, const float *lse_a,
                          const void *o_b, const float *lse_b, uint32_t flags, void *o_out, float *lse_out)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->state_merge(stage->env->device, states_of(stage, call), stage->shape.head_dim, o_a,
                                            flagged(stage, flags, 1), lse_a, o_b, flagged(stage, flags, 2), lse_b,
                                            o_out, flagged(stage, flags, 4), lse_out);
}

static int op_state_downdate(const mb_host *host, const mb_call *call, const void *o_total, const float *lse_total,
                             const void *o_part, const float *lse_part, uint32_t flags, void *o_rest,
                             float *lse_rest)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->state_downdate(
        stage->env->device, states_of(stage, call), stage->shape.head_dim, o_total, flagged(stage, flags, 1),
        lse_total, o_part, flagged(stage, flags, 2), lse_part, o_rest, flagged(stage, flags, 4), lse_rest);
}

static int op_row_distance(const mb_host *host, const mb_call *call, const void *a, const void *b, float *distance,
                           float *norm)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->row_distance(stage->env->device, a, b, states_of(stage, call),
                                             stage->shape.head_dim, distance, norm);
}

static int op_score_recent(const mb_host *host, const mb_call *call, float below, float value, float *scores)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->score_recent(stage->env->device, scores, stage->shape.stride, stage->shape.batch,
                                             stage->shape.kv_heads, call->prefix_len, call->max_prefix, below,
                                             value);
}

static int op_budget_ratio(const mb_host *host, const mb_call *call, int32_t page, double ratio, int32_t extra,
                           int32_t *budgets)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->budget_ratio(stage->env->device, stage->shape.batch, stage->shape.kv_heads,
                                             call->prefix_len, page, ratio, extra, budgets);
}

static int op_budget_layers(const mb_host *host, const mb_call *call, const float *stats, int32_t layers,
                            int32_t k, int32_t k_min, int32_t k_max, int32_t *budgets)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->budget_layers(stage->env->device, stats, layers, stage->shape.batch,
                                              stage->shape.kv_heads, call->prefix_len, k, k_min, k_max, budgets);
}

static int op_budget_heads(const mb_host *host, const mb_call *call, const float *scores, int32_t k, int32_t k_min,
                           int32_t *budgets, void *scratch)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->budget_heads(stage->env->device, scores, stage->shape.stride, stage->shape.batch,
                                             stage->shape.kv_heads, call->prefix_len, call->max_prefix, k, k_min,
                                             budgets, scratch);
}

static int op_score_keep(const mb_host *host, const mb_call *call, const mb_page_set *set, float value,
                         float *scores)
{
    const mb_stage *stage = stage_of(host);
    mb_pages pages = {set->granularity, set->capacity, set->ids, set->counts};
    return stage->env->kernels->score_keep(stage->env->device, &pages, stage->shape.batch, stage->shape.kv_heads,
                                           call->prefix_len, call->max_prefix, value, scores, stage->shape.stride);
}

static int op_heavy_channels(const mb_host *host, const mb_call *call, int32_t count, int32_t *channels,
                             float *scratch)
{
    const mb_stage *stage = stage_of(host);
    mb_attention args = mb_stage_attention(stage, call, MB_SPAN_PREFIX);
    return stage->env->kernels->heavy_channels(stage->env->device, &args, count, channels, scratch);
}

static int op_reuse_decide(const mb_host *host, const mb_call *call, const float *distance, const float *norm,
                           float threshold, int relative, float share, int32_t *active, int32_t *missed,
                           double *counts)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->reuse_decide(stage->env->device, stage->shape.batch, call->rows,
                                             stage->shape.query_heads, stage->shape.kv_heads, distance, norm,
                                             threshold, relative, share, active, missed, counts, NULL);
}

static int op_reuse_groups(const mb_host *host, const mb_call *call, const float *distance, const float *norm,
                           float threshold, int relative, float share, int32_t *active, int32_t *missed,
                           double *counts, double *groups)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->reuse_decide(stage->env->device, stage->shape.batch, call->rows,
                                             stage->shape.query_heads, stage->shape.kv_heads, distance, norm,
                                             threshold, relative, share, active, missed, counts, groups);
}

static int op_rows_copy(const mb_host *host, const mb_call *call, const int32_t *active, const int32_t *missed,
                        const void *src, const float *src_lse, void *dst, float *dst_lse)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->rows_copy(stage->env->device, stage->shape.batch, call->rows,
                                          stage->shape.query_heads, stage->shape.kv_heads, stage->shape.head_dim,
                                          active, missed, src, src_lse, dst, dst_lse);
}

static int op_row_match(const mb_host *host, const mb_call *call, const void *a, const void *ring, int32_t slots,
                        int32_t *slot, float *distance, float *norm)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->row_match(stage->env->device, stage->shape.batch, call->rows,
                                          stage->shape.query_heads, stage->shape.head_dim, a, ring, slots, slot,
                                          distance, norm);
}

static int op_row_gather(const mb_host *host, const mb_call *call, const int32_t *slot, const void *ring,
                         const float *ring_lse, int32_t slots, void *out, float *lse)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->row_gather(stage->env->device, stage->shape.batch, call->rows,
                                           stage->shape.query_heads, stage->shape.head_dim, slot, ring, ring_lse,
                                           slots, out, lse);
}

static int op_row_top(const mb_host *host, const mb_call *call, const float *distance, int32_t count,
                      int32_t *chosen)
{
    const mb_stage *stage = stage_of(host);
    return stage->env->kernels->row_top(stage->env->device, stage->shape.batch, call->rows,
                                        stage->shape.query_heads, distance, count, chosen);
}

static mb_state_ring ring_of(const mb_ring *ring)
{
    return (mb_state_ring){ring->blocks, ring->pitch, ring->ages, ring->q, ring->out, ring->lse};
}

static int op_ring_match(const mb_host *host, const mb_call *call, const void *a, const mb_ring *ring, int any,
                         int32_t *slot, float *distance, float *norm)
{
    const mb_stage *stage = stage_of(host);
    mb_state_ring states = ring_of(ring);
    return stage->env->kernels->ring_match(stage->env->device, stage->shape.batch, call->rows,
                                           stage->shape.query_heads, stage->shape.head_dim, a, &states, any, slot,
                                           distance, norm);
}

static int op_ring_gather(const mb_host *host, const mb_call *call, const int32_t *slot, const mb_ring *ring,
                          void *out, float *lse)
{
    const mb_stage *stage = stage_of(host);
    mb_state_ring states = ring_of(ring);
    return stage->env->kernels->ring_gather(stage->env->device, stage->shape.batch, call->rows,
                                            stage->shape.query_heads, stage->shape.head_dim, slot, &states, out,
                                            lse);
}

static int op_ring_reach(const mb_host *host, const mb_call *call, const int32_t *slot, const mb_ring *ring,
                         int32_t age, const int32_t *active, const int32_t *missed, int32_t *heads,
                         int32_t *reached)
{
    const mb_stage *stage = stage_of(host);
    mb_state_ring states = ring_of(ring);
    return stage->env->kernels->ring_reach(stage->env->device, stage->shape.batch, call->rows,
                                           stage->shape.query_heads, stage->shape.kv_heads, slot, &states, age,
                                           active, missed, heads, reached);
}

static int op_count_read(const mb_host *host, const mb_call *call, const mb_page_set *set, const int32_t *active)
{
    const mb_stage *stage = stage_of(host);
    mb_attention args = mb_stage_attention(stage, call, MB_SPAN_PREFIX);
    mb_pages pages = {0};
    if (set)
        pages = (mb_pages){set->granularity, set->capacity, set->ids, set->counts};
    return stage->env->kernels->count_read(stage->env->device, &args.rows, stage->shape.kv_heads,
                                           set ? &pages : NULL, active, stage->work);
}

void mb_stage_host_fill(mb_stage *stage)
{
    stage->host = (mb_host){.abi = MB_METHOD_ABI,
                            .size = sizeof(mb_host),
                            .internal = stage,
                            .seed = 12345,
                            .log = op_log,
                            .alloc = op_alloc,
                            .pages_alloc = op_pages_alloc,
                            .scores_alloc = op_scores_alloc,
                            .copy = op_copy,
                            .fill = op_fill,
                            .attend = op_attend,
                            .attend_pages = op_attend_pages,
                            .mass = op_mass,
                            .votes = op_votes,
                            .bounds_alloc = op_bounds_alloc,
                            .page_bounds = op_page_bounds,
                            .page_scores = op_page_scores,
                            .key_scores = op_key_scores,
                            .top_k = op_top_k,
                            .top_p = op_top_p,
                            .score_edges = op_score_edges,
                            .score_pool = op_score_pool,
                            .score_smooth = op_score_smooth,
                            .score_axpby = op_score_axpby,
                            .score_head_mean = op_score_head_mean,
                            .score_random = op_score_random,
                            .state_merge = op_state_merge,
                            .state_downdate = op_state_downdate,
                            .row_distance = op_row_distance,
                            .score_recent = op_score_recent,
                            .budget_ratio = op_budget_ratio,
                            .budget_layers = op_budget_layers,
                            .budget_heads = op_budget_heads,
                            .score_keep = op_score_keep,
                            .heavy_channels = op_heavy_channels,
                            .reuse_decide = op_reuse_decide,
                            .rows_copy = op_rows_copy,
                            .row_match = op_row_match,
                            .row_gather = op_row_gather,
                            .row_top = op_row_top,
                            .reuse_groups = op_reuse_groups,
                            .ring_match = op_ring_match,
                            .ring_gather = op_ring_gather,
                            .ring_reach = op_ring_reach,
                            .count_read = op_count_read};
}
