/*
 * attender_ops.c - struct mb_host over struct mb_kernels: turns a method's mb_call back into kernel arguments.
 *
 * Every operation takes its sizes from the session, never from the method, so that a method cannot ask for more
 * rows or keys than there are. All enqueue and return; scratch memory is the session's and lives for one
 * operation only.
 */
#include "model/engine/engine.h"

#include <stdio.h>
#include <string.h>

static mb_session *session_of(const mb_call *call)
{
    return ((const mb_call_view *)call->internal)->session;
}

static const mb_call_view *view_of(const mb_call *call)
{
    return call->internal;
}

mb_attention mb_call_attention(const mb_call *call)
{
    const mb_call_view *view = view_of(call);
    return (mb_attention){.rows = view->rows,
                          .kv = view->kv,
                          .query_heads = view->session->config->query_heads,
                          .q = call->q,
                          .span = MB_SPAN_ALL};
}

const float *mb_call_row_weight(const mb_call *call, mb_row_set rows)
{
    const mb_session *session = session_of(call);
    mb_input input = mb_session_input(session);
    if (rows == MB_ROWS_MASKED)
        return mb_input_at(session, input.masked_weight);
    return rows == MB_ROWS_CENTRE ? mb_input_at(session, input.centre_weight) : NULL;
}

static int32_t kv_heads(const mb_call *call)
{
    return session_of(call)->config->kv_heads;
}

static mb_pages pages_of(const mb_page_set *set)
{
    return (mb_pages){
        .granularity = set->granularity, .capacity = set->capacity, .ids = set->ids, .counts = set->counts};
}

static mb_span span_of(mb_scope scope)
{
    return scope == MB_SCOPE_PREFIX ? MB_SPAN_PREFIX : scope == MB_SCOPE_BLOCK ? MB_SPAN_BLOCK : MB_SPAN_ALL;
}

/* ---- memory and messages ---- */

static void host_log(const mb_host *host, int level, const char *message)
{
    const mb_attender *attender = host->internal;
    fprintf(stderr, "%s: %s%s\n", attender->method.name, level > 0 ? "warning: " : "", message);
}

static void *host_alloc(const mb_host *host, size_t bytes)
{
    static _Alignas(256) unsigned char nowhere[256]; /* what a measured open() gets: never read or written */
    mb_attender *attender = host->internal;
    if (!attender->opening) {
        attender->late_allocations++;
        return NULL;
    }
    attender->counted += bytes == 0 ? 256 : (bytes + 255) / 256 * 256;
    if (!attender->session)
        return nowhere;
    void *memory = attender->session->kernels->alloc(attender->session->device, bytes);
    attender->exhausted = attender->exhausted || !memory;
    return memory;
}

static int32_t page_capacity(const mb_shape *shape, int32_t page)
{
    return (shape->capacity + page - 1) / page;
}

static int host_pages_alloc(const mb_host *host, int32_t granularity, int32_t capacity, mb_page_set *set)
{
    const mb_attender *attender = host->internal;
    size_t heads = (size_t)attender->shape.batch * (size_t)attender->shape.kv_heads;
    memset(set, 0, sizeof *set);
    if (granularity < 1 || capacity < 1)
        return MB_E_BUG;
    int32_t most = page_capacity(&attender->shape, granularity);
    capacity = capacity < most ? capacity : most;
    set->granularity = granularity;
    set->capacity = capacity;
    size_t ids = heads * (size_t)capacity * sizeof *set->ids, counts = heads * sizeof *set->counts;
    set->ids = host_alloc(host, ids + MB_GUARD_BYTES);
    set->counts = host_alloc(host, counts + MB_GUARD_BYTES);
    if (!set->ids || !set->counts)
        return MB_E_SYSTEM;
    int rc = mb_guard_add(host->internal, (char *)set->ids + ids);
    return rc == MB_OK ? mb_guard_add(host->internal, (char *)set->counts + counts) : rc;
}

static float *host_scores_alloc(const mb_host *host)
{
    const mb_attender *attender = host->internal;
    const mb_shape *shape = &attender->shape;
    return host_alloc(host,
                      (size_t)shape->batch * (size_t)shape->kv_heads * (size_t)shape->stride * sizeof(float));
}

static void *host_bounds_alloc(const mb_host *host, int32_t page)
{
    const mb_attender *attender = host->internal;
    const mb_shape *shape = &attender->shape;
    if (page < 1)
        return NULL;
    return host_alloc(host, (size_t)shape->batch * (size_t)shape->kv_heads * (size_t)page_capacity(shape, page) *
                                2 * (size_t)shape->head_dim * (size_t)shape->element_size);
}

static int host_copy(const mb_host *host, const mb_call *call, void *dst, const void *src, size_t bytes)
{
    (void)host;
    return session_of(call)->kernels->copy(session_of(call)->device, dst, src, bytes);
}

static int host_fill(const mb_host *host, const mb_call *call, void *dst, int byte, size_t bytes)
{
    (void)host;
    return session_of(call)->kernels->fill(session_of(call)->device, dst, byte, bytes);
}

/* ---- attention ---- */

static int host_attend(const mb_host *host, const mb_call *call, mb_scope scope, const int32_t *active, void *out,
                       float *lse)
{
    mb_attention args = mb_call_attention(call);
    (void)host;
    args.span = span_of(scope);
    args.active = active;
    args.out = out;
    args.lse = lse;
    return session_of(call)->kernels->attend(session_of(call)->device, &args);
}

static int host_attend_pages(const mb_host *host, const mb_call *call, const mb_page_set *set, mb_scope scope,
                             const int32_t *active, void *out, float *lse)
{
    mb_attention args = mb_call_attention(call);
    mb_pages pages = pages_of(set);
    (void)host;
    args.span = span_of(scope);
    args.active = active;
    args.pages = &pages;
    args.out = out;
    args.lse = lse;
    return session_of(call)->kernels->attend_sparse(session_of(call)->device, &args);
}

static int host_mass(const mb_host *host, const mb_call *call, const float *lse, mb_row_set rows,
                     mb_normaliser normaliser, float *scores)
{
    mb_session *session = session_of(call);
    mb_attention args = mb_call_attention(call);
    (void)host;
    args.span = normaliser == MB_OVER_PREFIX ? MB_SPAN_PREFIX : MB_SPAN_ALL;
    args.mass = scores;
    args.mass_stride = session->stride;
    args.row_weight = mb_call_row_weight(call, rows);
    args.lse = lse ? (float *)lse : session->buffer[MB_BUFFER_LSE_BLOCK];
    return lse ? session->kernels->mass(session->device, &args) : session->kernels->attend(session->device, &args);
}

static int host_votes(const mb_host *host, const mb_call *call, const float *lse, int32_t k, float *scores,
                      float *stats)
{
    mb_session *session = session_of(call);
    mb_attention args = mb_call_attention(call);
    int rc = MB_OK;
    (void)host;
    args.lse = lse ? (float *)lse : session->buffer[MB_BUFFER_LSE_BLOCK];
    if (!lse)
        rc = session->kernels->attend(session->device, &args);
    args.mass_stride = session->stride; /* the row stride of votes too */
    if (rc == MB_OK && session->kernels->votes_scratch(&args, k) > session->scratch_bytes)
        rc = MB_E_SYSTEM;
    return rc == MB_OK ? session->kernels->votes(session->device, &args, k, scores, stats,
                                                 session->buffer[MB_BUFFER_SCRATCH])
                       : rc;
}

/* ---- page bounds and linear scores ---- */

static int host_page_bounds(const mb_host *host, const mb_call *call, int32_t page, int whole, void *bounds)
{
    const mb_attender *attender = host->internal;
    const mb_call_view *view = view_of(call);
    return view->session->kernels->page_bounds(view->session->device, &view->rows, &view->kv, page,
                                               page_capacity(&attender->shape, page), whole, bounds);
}

static int host_page_scores(const mb_host *host, const mb_call *call, int32_t page, const void *bounds,
                            mb_merge_rule rule, mb_row_set rows, float *scores)
{
    const mb_attender *attender = host->internal;
    mb_session *session = session_of(call);
    mb_attention args = mb_call_attention(call);
    mb_merge merge = rule == MB_BOUND_MAX          ? MB_MERGE_MAX
                     : rule == MB_BOUND_MEAN_QUERY ? MB_MERGE_QUERY
                     : rule == MB_BOUND_SOFTMAX    ? MB_MERGE_SOFTMAX
                                                   : MB_MERGE_MEAN;
    args.row_weight = mb_call_row_weight(call, rows);
    return session->kernels->page_scores(session->device, &args, page, page_capacity(&attender->shape, page),
                                         bounds, merge, scores, session->stride);
}

static int host_key_scores(const mb_host *host, const mb_call *call, const int32_t *channels,
                           int32_t channel_count, mb_row_set rows, float *scores)
{
    mb_session *session = session_of(call);
    mb_attention args = mb_call_attention(call);
    (void)host;
    args.row_weight = mb_call_row_weight(call, rows);
    return session->kernels->key_scores(session->device, &args, channels, channel_count, scores, session->stride);
}

/* ---- choosing ---- */

static int host_top_k(const mb_host *host, const mb_call *call, const float *scores, int32_t k,
                      const int32_t *k_dynamic, mb_page_set *set)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->top_k(session->device, scores, session->stride, view_of(call)->rows.batch,
                                   kv_heads(call), call->prefix_len, call->max_prefix, set->granularity, k,
                                   k_dynamic, set->capacity, set->ids, set->counts,
                                   session->buffer[MB_BUFFER_SCRATCH]);
}

static int host_top_p(const mb_host *host, const mb_call *call, const float *scores, float p, int32_t k_min,
                      int32_t k_max, mb_page_set *set)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->top_p(session->device, scores, session->stride, view_of(call)->rows.batch,
                                   kv_heads(call), call->prefix_len, call->max_prefix, set->granularity, p, k_min,
                                   k_max, set->capacity, set->ids, set->counts,
                                   session->buffer[MB_BUFFER_SCRATCH]);
}

static int host_score_edges(const mb_host *host, const mb_call *call, int32_t page, int32_t first, int32_t last,
                            float value, float *scores)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->score_edges(session->device, scores, session->stride, view_of(call)->rows.batch,
                                         kv_heads(call), call->prefix_len, page, first, last, value);
}

static int host_score_pool(const mb_host *host, const mb_call *call, const float *scores, int32_t page,
                           int32_t mode, float *out)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->score_pool(session->device, scores, session->stride, view_of(call)->rows.batch,
                                        kv_heads(call), call->prefix_len, call->max_prefix, page, mode, out,
                                        session->stride);
}

static int host_score_smooth(const mb_host *host, const mb_call *call, const float *scores, int32_t kernel,
                             int32_t mode, float *out)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->score_smooth(session->device, scores, session->stride, view_of(call)->rows.batch,
                                          kv_heads(call), call->prefix_len, call->max_prefix, kernel, mode, out);
}

static int host_score_axpby(const mb_host *host, const mb_call *call, float a, const float *x, float b, float *y)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->score_axpby(session->device, a, x, b, y,
                                         (int64_t)view_of(call)->rows.batch * kv_heads(call) * session->stride);
}

static int host_score_head_mean(const mb_host *host, const mb_call *call, float *scores)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->score_head_mean(session->device, scores, session->stride, view_of(call)->rows.batch,
                                             kv_heads(call), call->prefix_len, call->max_prefix);
}

static int host_score_random(const mb_host *host, const mb_call *call, uint64_t seed, float *scores)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->score_random(session->device, seed, view_of(call)->rows.batch, kv_heads(call),
                                          call->max_prefix, scores, session->stride);
}

static int host_score_recent(const mb_host *host, const mb_call *call, float below, float value, float *scores)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->score_recent(session->device, scores, session->stride, view_of(call)->rows.batch,
                                          kv_heads(call), call->prefix_len, call->max_prefix, below, value);
}

static int host_budget_ratio(const mb_host *host, const mb_call *call, int32_t page, double ratio, int32_t extra,
                             int32_t *budgets)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->budget_ratio(session->device, view_of(call)->rows.batch, kv_heads(call),
                                          call->prefix_len, page, ratio, extra, budgets);
}

static int host_budget_layers(const mb_host *host, const mb_call *call, const float *stats, int32_t layers,
                              int32_t k, int32_t k_min, int32_t k_max, int32_t *budgets)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->budget_layers(session->device, stats, layers, view_of(call)->rows.batch,
                                           kv_heads(call), call->prefix_len, k, k_min, k_max, budgets);
}

static int host_budget_heads(const mb_host *host, const mb_call *call, const float *scores, int32_t k,
                             int32_t k_min, int32_t *budgets, void *scratch)
{
    mb_session *session = session_of(call);
    (void)host;
    if (!session->kernels->budget_heads)
        return MB_E_SYSTEM;
    return session->kernels->budget_heads(session->device, scores, session->stride, view_of(call)->rows.batch,
                                          kv_heads(call), call->prefix_len, call->max_prefix, k, k_min, budgets,
                                          scratch);
}

static int host_score_keep(const mb_host *host, const mb_call *call, const mb_page_set *set, float value,
                           float *scores)
{
    mb_session *session = session_of(call);
    mb_pages pages = pages_of(set);
    (void)host;
    if (!session->kernels->score_keep)
        return MB_E_SYSTEM;
    return session->kernels->score_keep(session->device, &pages, view_of(call)->rows.batch, kv_heads(call),
                                        call->prefix_len, call->max_prefix, value, scores, session->stride);
}

static int host_heavy_channels(const mb_host *host, const mb_call *call, int32_t count, int32_t *channels,
                               float *scratch)
{
    mb_session *session = session_of(call);
    mb_attention args = mb_call_attention(call);
    (void)host;
    if (!session->kernels->heavy_channels)
        return MB_E_SYSTEM;
    args.span = MB_SPAN_PREFIX;
    return session->kernels->heavy_channels(session->device, &args, count, channels, scratch);
}

/* ---- states ---- */

static int64_t states_of(const mb_call *call)
{
    return (int64_t)view_of(call)->rows.batch * call->rows * session_of(call)->config->query_heads;
}

static mb_type type_of(const mb_session *session, uint32_t fp32_flags, int bit)
{
    return fp32_flags >> bit & 1u ? MB_F32 : session->type;
}

static int host_state_merge(const mb_host *host, const mb_call *call, const void *o_a, const float *lse_a,
                            const void *o_b, const float *lse_b, uint32_t fp32_flags, void *o_out, float *lse_out)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->state_merge(
        session->device, states_of(call), session->config->head_dim, o_a, type_of(session, fp32_flags, 0), lse_a,
        o_b, type_of(session, fp32_flags, 1), lse_b, o_out, type_of(session, fp32_flags, 2), lse_out);
}

static int host_state_downdate(const mb_host *host, const mb_call *call, const void *o_total,
                               const float *lse_total, const void *o_part, const float *lse_part,
                               uint32_t fp32_flags, void *o_rest, float *lse_rest)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->state_downdate(session->device, states_of(call), session->config->head_dim, o_total,
                                            type_of(session, fp32_flags, 0), lse_total, o_part,
                                            type_of(session, fp32_flags, 1), lse_part, o_rest,
                                            type_of(session, fp32_flags, 2), lse_rest);
}

static int host_row_distance(const mb_host *host, const mb_call *call, const void *a, const void *b,
                             float *distance, float *norm)
{
    mb_session *session = session_of(call);
    (void)host;
    return session->kernels->row_distance(session->device, a, b, states_of(call), session->config->head_dim,
                                          distance, norm);
}

/* ---- reuse of states ---- */

static int host_reuse_groups(const mb_host *host, const mb_call *call, const float *distance, const float *norm,
                             float threshold, int relative, float share, int32_t *active, int32_t *missed,
                             double *counts, double *groups)
{
    mb_session *session = session_of(call);
    (void)host;
    if (!session->kernels->reuse_decide)
        return MB_E_SYSTEM;
    return session->kernels->reuse_decide(session->device, view_of(call)->rows.batch, call->rows,
                                          session->config->query_heads, kv_heads(call), distance, norm, threshold,
                                          relative, share, active, missed, counts, groups);
}

static int host_reuse_decide(const mb_host *host, const mb_call *call, const float *distance, const float *norm,
                             float threshold, int relative, float share, int32_t *active, int32_t *missed,
                             double *counts)
{
    return host_reuse_groups(host, call, distance, norm, threshold, relative, share, active, missed, counts, NULL);
}

static int host_rows_copy(const mb_host *host, const mb_call *call, const int32_t *active, const int32_t *missed,
                          const void *src, const float *src_lse, void *dst, float *dst_lse)
{
    mb_session *session = session_of(call);
    (void)host;
    if (!session->kernels->rows_copy)
        return MB_E_SYSTEM;
    return session->kernels->rows_copy(session->device, view_of(call)->rows.batch, call->rows,
                                       session->config->query_heads, kv_heads(call), session->config->head_dim,
                                       active, missed, src, src_lse, dst, dst_lse);
}

static int host_row_match(const mb_host *host, const mb_call *call, const void *a, const void *ring, int32_t slots,
                          int32_t *slot, float *distance, float *norm)
{
    mb_session *session = session_of(call);
    (void)host;
    if (!session->kernels->row_match)
        return MB_E_SYSTEM;
    return session->kernels->row_match(session->device, view_of(call)->rows.batch, call->rows,
                                       session->config->query_heads, session->config->head_dim, a, ring, slots,
                                       slot, distance, norm);
}

static int host_row_gather(const mb_host *host, const mb_call *call, const int32_t *slot, const void *ring,
                           const float *ring_lse, int32_t slots, void *out, float *lse)
{
    mb_session *session = session_of(call);
    (void)host;
    if (!session->kernels->row_gather)
        return MB_E_SYSTEM;
    return session->kernels->row_gather(session->device, view_of(call)->rows.batch, call->rows,
                                        session->config->query_heads, session->config->head_dim, slot, ring,
                                        ring_lse, slots, out, lse);
}

static int host_row_top(const mb_host *host, const mb_call *call, const float *distance, int32_t count,
                        int32_t *chosen)
{
    mb_session *session = session_of(call);
    (void)host;
    if (!session->kernels->row_top)
        return MB_E_SYSTEM;
    return session->kernels->row_top(session->device, view_of(call)->rows.batch, call->rows,
                                     session->config->query_heads, distance, count, chosen);
}

/* ---- a ring of blocks: its arrays have as many rows as a block, so a part of one cannot be looked up ---- */

static mb_state_ring ring_of(const mb_ring *ring)
{
    return (mb_state_ring){.blocks = ring->blocks,
                           .pitch = ring->pitch,
                           .ages = ring->ages,
                           .q = ring->q,
                           .out = ring->out,
                           .lse = ring->lse};
}

static int host_ring_match(const mb_host *host, const mb_call *call, const void *a, const mb_ring *ring, int any,
                           int32_t *slot, float *distance, float *norm)
{
    mb_session *session = session_of(call);
    mb_state_ring states = ring_of(ring);
    (void)host;
    if (!session->kernels->ring_match || call->rows != session->block)
        return MB_E_SYSTEM;
    return session->kernels->ring_match(session->device, view_of(call)->rows.batch, call->rows,
                                        session->config->query_heads, session->config->head_dim, a, &states, any,
                                        slot, distance, norm);
}

static int host_ring_gather(const mb_host *host, const mb_call *call, const int32_t *slot, const mb_ring *ring,
                            void *out, float *lse)
{
    mb_session *session = session_of(call);
    mb_state_ring states = ring_of(ring);
    (void)host;
    if (!session->kernels->ring_gather || call->rows != session->block)
        return MB_E_SYSTEM;
    return session->kernels->ring_gather(session->device, view_of(call)->rows.batch, call->rows,
                                         session->config->query_heads, session->config->head_dim, slot, &states,
                                         out, lse);
}

static int host_ring_reach(const mb_host *host, const mb_call *call, const int32_t *slot, const mb_ring *ring,
                           int32_t age, const int32_t *active, const int32_t *missed, int32_t *heads,
                           int32_t *reached)
{
    mb_session *session = session_of(call);
    mb_state_ring states = ring_of(ring);
    (void)host;
    if (!session->kernels->ring_reach || call->rows != session->block)
        return MB_E_SYSTEM;
    return session->kernels->ring_reach(session->device, view_of(call)->rows.batch, call->rows,
                                        session->config->query_heads, kv_heads(call), slot, &states, age, active,
                                        missed, heads, reached);
}

/* As attention.c counts what answers show: denoising forwards, where anything is counted. */
static int host_count_read(const mb_host *host, const mb_call *call, const mb_page_set *set, const int32_t *active)
{
    mb_session *session = session_of(call);
    mb_pages pages = set ? pages_of(set) : (mb_pages){0};
    (void)host;
    if (call->phase == MB_PHASE_COMMIT || !session->measure.counting)
        return MB_OK;
    return session->kernels->count_read(session->device, &view_of(call)->rows, kv_heads(call), set ? &pages : NULL,
                                        active, session->buffer[MB_BUFFER_WORK]);
}

void mb_host_fill(mb_attender *attender, uint64_t seed)
{
    attender->host = (mb_host){.abi = MB_METHOD_ABI,
                               .size = sizeof(mb_host),
                               .internal = attender,
                               .seed = seed,
                               .log = host_log,
                               .alloc = host_alloc,
                               .pages_alloc = host_pages_alloc,
                               .scores_alloc = host_scores_alloc,
                               .copy = host_copy,
                               .fill = host_fill,
                               .attend = host_attend,
                               .attend_pages = host_attend_pages,
                               .mass = host_mass,
                               .votes = host_votes,
                               .bounds_alloc = host_bounds_alloc,
                               .page_bounds = host_page_bounds,
                               .page_scores = host_page_scores,
                               .key_scores = host_key_scores,
                               .top_k = host_top_k,
                               .top_p = host_top_p,
                               .score_edges = host_score_edges,
                               .score_pool = host_score_pool,
                               .score_smooth = host_score_smooth,
                               .score_axpby = host_score_axpby,
                               .score_head_mean = host_score_head_mean,
                               .score_random = host_score_random,
                               .state_merge = host_state_merge,
                               .state_downdate = host_state_downdate,
                               .row_distance = host_row_distance,
                               .score_recent = host_score_recent,
                               .budget_ratio = host_budget_ratio,
                               .budget_layers = host_budget_layers,
                               .budget_heads = host_budget_heads,
                               .score_keep = host_score_keep,
                               .heavy_channels = host_heavy_channels,
                               .reuse_decide = host_reuse_decide,
                               .rows_copy = host_rows_copy,
                               .row_match = host_row_match,
                               .row_gather = host_row_gather,
                               .row_top = host_row_top,
                               .reuse_groups = host_reuse_groups,
                               .ring_match = host_ring_match,
                               .ring_gather = host_ring_gather,
                               .ring_reach = host_ring_reach,
                               .count_read = host_count_read};
}
