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

/* The cache of the call's layer, with the keys that a method's copy of the call names. */
static mb_kv kv_of(const mb_call *call)
{
    mb_kv kv = view_of(call)->kv;
    kv.k = (void *)call->k;
    return kv;
}

mb_attention mb_call_attention(const mb_call *call)
{
    const mb_call_view *view = view_of(call);
    return (mb_attention){.rows = view->rows,
                          .kv = kv_of(call),
                          .query_heads = view->session->config->query_heads,
                          .q = call->q,
                          .scope = MB_SCOPE_ALL};
}

const float *mb_call_row_weight(const mb_call *call, mb_row_set rows)
{
    const mb_session *session = session_of(call);
    mb_input input = mb_session_input(session);
    if (rows == MB_ROWS_MASKED)
        return mb_input_at(session, input.masked_weight);
    return rows == MB_ROWS_CENTRE ? mb_input_at(session, input.centre_weight) : NULL;
}

/* Rows of scores with an entry for each page of so many tokens. */
static mb_scores scores_of(const mb_call *call, const float *values, int32_t page)
{
    const mb_session *session = session_of(call);
    return (mb_scores){.values = (float *)values,
                       .stride = session->stride,
                       .batch = view_of(call)->rows.batch,
                       .kv_heads = session->config->kv_heads,
                       .prefix_len = call->prefix_len,
                       .max_prefix = call->max_prefix,
                       .page = page};
}

static mb_row_shape shape_of(const mb_call *call)
{
    const mb_model_config *config = session_of(call)->config;
    return (mb_row_shape){.batch = view_of(call)->rows.batch,
                          .rows = call->rows,
                          .query_heads = config->query_heads,
                          .kv_heads = config->kv_heads,
                          .head_dim = config->head_dim};
}

/* The operation `name` of the call's backend on arguments of its struct. */
#define RUN(name, arguments, ...)                                                                                 \
    session_of(call)->kernels->name(session_of(call)->device, &(arguments){__VA_ARGS__})

/* ---- memory and messages ---- */

static void host_log(const mb_host *host, int level, const char *message)
{
    const mb_attender *attender = host->internal;
    mb_text shown = {0};
    mb_text_visible(&shown, message, "");
    fprintf(stderr, "%s: %s%s\n", attender->method.name, level > 0 ? "warning: " : "",
            shown.data ? shown.data : "");
    mb_text_free(&shown);
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

/* As large as any cache of this shape: a block's slots behind the largest prefix. */
static void *host_keys_alloc(const mb_host *host)
{
    const mb_attender *attender = host->internal;
    const mb_shape *shape = &attender->shape;
    return host_alloc(host, (size_t)shape->batch * (size_t)shape->kv_heads *
                                (size_t)(shape->capacity + shape->block) * (size_t)shape->head_dim *
                                (size_t)shape->element_size);
}

static int host_upload(const mb_host *host, void *dst, const void *src, size_t bytes)
{
    mb_attender *attender = host->internal;
    if (!attender->opening) {
        attender->late_allocations++;
        return MB_E_BUG;
    }
    if (!attender->session || attender->exhausted)
        return MB_OK; /* open() is measured, or has failed already */
    return attender->session->kernels->upload(attender->session->device, dst, src, bytes);
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
    args.scope = scope;
    args.active = active;
    args.out = out;
    args.lse = lse;
    return session_of(call)->kernels->attend(session_of(call)->device, &args);
}

static int host_attend_pages(const mb_host *host, const mb_call *call, const mb_page_set *set, mb_scope scope,
                             const int32_t *active, void *out, float *lse)
{
    mb_attention args = mb_call_attention(call);
    (void)host;
    args.scope = scope;
    args.active = active;
    args.pages = set;
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
    args.scope = normaliser == MB_OVER_PREFIX ? MB_SCOPE_PREFIX : MB_SCOPE_ALL;
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
    return rc == MB_OK ? RUN(votes, mb_votes, args, k, scores, stats, session->buffer[MB_BUFFER_SCRATCH]) : rc;
}

/* ---- page bounds and linear scores ---- */

static int host_page_bounds(const mb_host *host, const mb_call *call, int32_t page, int whole, void *bounds)
{
    const mb_attender *attender = host->internal;
    const mb_call_view *view = view_of(call);
    return RUN(page_bounds, mb_page_bounds, view->rows, kv_of(call), page, page_capacity(&attender->shape, page),
               whole, bounds);
}

static int host_page_scores(const mb_host *host, const mb_call *call, int32_t page, const void *bounds,
                            mb_merge merge, mb_row_set rows, float *scores)
{
    const mb_attender *attender = host->internal;
    mb_attention args = mb_call_attention(call);
    args.row_weight = mb_call_row_weight(call, rows);
    return RUN(page_scores, mb_page_scores, args, page, page_capacity(&attender->shape, page), bounds, merge,
               scores, session_of(call)->stride);
}

static int host_key_scores(const mb_host *host, const mb_call *call, const int32_t *channels,
                           int32_t channel_count, mb_row_set rows, float *scores)
{
    mb_attention args = mb_call_attention(call);
    (void)host;
    args.row_weight = mb_call_row_weight(call, rows);
    return RUN(key_scores, mb_key_scores, args, channels, channel_count, scores, session_of(call)->stride);
}

static int host_key_measures(const mb_host *host, const mb_call *call, mb_key_measure measure, float *mean,
                             float *scores)
{
    (void)host;
    return RUN(key_measures, mb_key_measures, scores_of(call, scores, 1), kv_of(call), measure, mean);
}

/* ---- choosing ---- */

static int host_top_k(const mb_host *host, const mb_call *call, const float *scores, int32_t k,
                      const int32_t *k_dynamic, mb_page_set *set)
{
    (void)host;
    return RUN(top_k, mb_top_k, scores_of(call, scores, set->granularity), k, k_dynamic, *set,
               session_of(call)->buffer[MB_BUFFER_SCRATCH]);
}

static int host_top_p(const mb_host *host, const mb_call *call, const float *scores, float p, int32_t k_min,
                      int32_t k_max, mb_page_set *set)
{
    (void)host;
    return RUN(top_p, mb_top_p, scores_of(call, scores, set->granularity), p, k_min, k_max, *set,
               session_of(call)->buffer[MB_BUFFER_SCRATCH]);
}

static int host_score_edges(const mb_host *host, const mb_call *call, int32_t page, int32_t first, int32_t last,
                            float value, float *scores)
{
    (void)host;
    return RUN(score_edges, mb_score_edges, scores_of(call, scores, page), first, last, value);
}

static int host_score_pool(const mb_host *host, const mb_call *call, const float *scores, int32_t page,
                           mb_pooling pooling, float *out)
{
    (void)host;
    return RUN(score_pool, mb_score_pool, scores_of(call, scores, 1), page, pooling, out,
               session_of(call)->stride);
}

static int host_score_smooth(const mb_host *host, const mb_call *call, const float *scores, int32_t kernel,
                             mb_pooling pooling, float *out)
{
    (void)host;
    return RUN(score_smooth, mb_score_smooth, scores_of(call, scores, 1), kernel, pooling, out);
}

static int host_score_axpby(const mb_host *host, const mb_call *call, float a, const float *x, float b, float *y)
{
    mb_scores all = scores_of(call, y, 1);
    (void)host;
    return RUN(score_axpby, mb_score_axpby, a, x, b, y, (int64_t)all.batch * all.kv_heads * all.stride);
}

static int host_score_head_mean(const mb_host *host, const mb_call *call, float *scores)
{
    mb_scores all = scores_of(call, scores, 1);
    (void)host;
    return session_of(call)->kernels->score_head_mean(session_of(call)->device, &all);
}

static int host_score_random(const mb_host *host, const mb_call *call, uint64_t seed, float *scores)
{
    (void)host;
    return RUN(score_random, mb_score_random, scores_of(call, scores, 1), seed);
}

static int host_score_recent(const mb_host *host, const mb_call *call, float below, float value, float *scores)
{
    (void)host;
    return RUN(score_recent, mb_score_recent, scores_of(call, scores, 1), below, value);
}

static int host_score_every(const mb_host *host, const mb_call *call, int32_t every, int32_t first, float value,
                            float *scores)
{
    (void)host;
    return RUN(score_every, mb_score_every, scores_of(call, scores, 1), every, first, value);
}

static int host_score_keep(const mb_host *host, const mb_call *call, const mb_page_set *set, float value,
                           float *scores)
{
    (void)host;
    return RUN(score_keep, mb_score_keep, scores_of(call, scores, 1), *set, value);
}

static int host_budget_ratio(const mb_host *host, const mb_call *call, int32_t page, double ratio, int32_t extra,
                             int32_t *budgets)
{
    (void)host;
    return RUN(budget_ratio, mb_budget_ratio, scores_of(call, NULL, page), ratio, extra, budgets);
}

static int host_budget_layers(const mb_host *host, const mb_call *call, const float *stats, int32_t layers,
                              int32_t k, int32_t k_min, int32_t k_max, int32_t *budgets)
{
    (void)host;
    return RUN(budget_layers, mb_budget_layers, scores_of(call, NULL, 1), stats, layers, k, k_min, k_max, budgets);
}

static int host_budget_heads(const mb_host *host, const mb_call *call, const float *scores, int32_t k,
                             int32_t k_min, int32_t *budgets, void *scratch)
{
    (void)host;
    return RUN(budget_heads, mb_budget_heads, scores_of(call, scores, 1), k, k_min, budgets, scratch);
}

static int host_heavy_channels(const mb_host *host, const mb_call *call, int same_token, int32_t count,
                               int32_t *channels, float *scratch)
{
    (void)host;
    return RUN(heavy_channels, mb_heavy_channels, mb_call_attention(call), count, same_token, channels, scratch);
}

/* ---- choosing by less than the whole attention ---- */

static int host_query_pick(const mb_host *host, const mb_call *call, const int32_t *channels, int32_t count,
                           int32_t bits, void *out)
{
    (void)host;
    return RUN(query_pick, mb_query_pick, shape_of(call), call->q, channels, count, bits, out);
}

static int host_key_pick(const mb_host *host, const mb_call *call, const int32_t *channels, int32_t count,
                         int32_t bits, int whole, void *out)
{
    (void)host;
    return RUN(key_pick, mb_key_pick, view_of(call)->rows, kv_of(call), channels, count, bits, whole, out);
}

static int host_tile_gaps(const mb_host *host, const mb_call *call, int32_t page, float least, float *gaps,
                          float *scratch)
{
    (void)host;
    return RUN(tile_gaps, mb_tile_gaps, mb_call_attention(call), page, least, gaps, session_of(call)->stride,
               scratch);
}

static int host_score_spread(const mb_host *host, const mb_call *call, int32_t page, const float *scores,
                             float *out)
{
    (void)host;
    return RUN(score_spread, mb_score_spread, scores_of(call, scores, page), out);
}

static int host_score_interleave(const mb_host *host, const mb_call *call, const float *scores,
                                 const mb_page_set *best, float *out)
{
    (void)host;
    return RUN(score_interleave, mb_score_interleave, scores_of(call, scores, 1), *best, out);
}

/* ---- states ---- */

static int64_t states_of(const mb_call *call)
{
    return (int64_t)view_of(call)->rows.batch * call->rows * session_of(call)->config->query_heads;
}

static int host_state_merge(const mb_host *host, const mb_call *call, const mb_state *a, const mb_state *b,
                            const mb_state *out)
{
    (void)host;
    return RUN(state_merge, mb_state_pair, states_of(call), session_of(call)->config->head_dim, *a, *b, *out);
}

static int host_state_downdate(const mb_host *host, const mb_call *call, const mb_state *total,
                               const mb_state *part, const mb_state *rest)
{
    (void)host;
    return RUN(state_downdate, mb_state_pair, states_of(call), session_of(call)->config->head_dim, *total, *part,
               *rest);
}

static int host_row_distance(const mb_host *host, const mb_call *call, const void *a, const void *b,
                             float *distance, float *norm)
{
    (void)host;
    return RUN(row_distance, mb_row_distance, a, b, states_of(call), session_of(call)->config->head_dim, distance,
               norm);
}

/* ---- reuse of states ---- */

static int host_reuse_decide(const mb_host *host, const mb_call *call, const mb_reuse *reuse)
{
    (void)host;
    return RUN(reuse_decide, mb_reuse_decide, shape_of(call), *reuse);
}

static int host_rows_copy(const mb_host *host, const mb_call *call, const int32_t *active, const int32_t *missed,
                          const void *src, const float *src_lse, void *dst, float *dst_lse)
{
    (void)host;
    return RUN(rows_copy, mb_rows_copy, shape_of(call), active, missed, src, src_lse, dst, dst_lse);
}

static int host_row_top(const mb_host *host, const mb_call *call, const float *distance, int32_t count,
                        int32_t *chosen)
{
    (void)host;
    return RUN(row_top, mb_row_top, shape_of(call), distance, count, chosen);
}

/* ---- a ring of blocks: its arrays have as many rows as a block, so a part of one cannot be looked up ---- */

static int host_ring_match(const mb_host *host, const mb_call *call, const void *a, const mb_state_ring *ring,
                           int any, int32_t *slot, float *distance, float *norm)
{
    (void)host;
    return call->rows == session_of(call)->block
               ? RUN(ring_match, mb_ring_match, shape_of(call), a, *ring, any, slot, distance, norm)
               : MB_E_SYSTEM;
}

static int host_ring_gather(const mb_host *host, const mb_call *call, const int32_t *slot,
                            const mb_state_ring *ring, void *out, float *lse)
{
    (void)host;
    return call->rows == session_of(call)->block
               ? RUN(ring_gather, mb_ring_gather, shape_of(call), slot, *ring, out, lse)
               : MB_E_SYSTEM;
}

static int host_ring_reach(const mb_host *host, const mb_call *call, const mb_state_ring *ring,
                           const mb_reach *reach)
{
    (void)host;
    return call->rows == session_of(call)->block ? RUN(ring_reach, mb_ring_reach, shape_of(call), *ring, *reach)
                                                 : MB_E_SYSTEM;
}

/* As attention.c counts what answers show: denoising forwards, where anything is counted. */
static int host_count_read(const mb_host *host, const mb_call *call, const mb_page_set *set, const int32_t *active)
{
    mb_session *session = session_of(call);
    (void)host;
    if (call->phase == MB_PHASE_COMMIT || !session->measure.counting)
        return MB_OK;
    return RUN(count_read, mb_key_count, view_of(call)->rows, session->config->kv_heads, set, active,
               session->buffer[MB_BUFFER_WORK]);
}

#define ENTRY(name) .name = host_##name

void mb_host_fill(mb_attender *attender, uint64_t seed)
{
    attender->host = (mb_host){.abi = MB_METHOD_ABI,
                               .size = sizeof(mb_host),
                               .internal = attender,
                               .seed = seed,
                               ENTRY(log),
                               ENTRY(alloc),
                               ENTRY(pages_alloc),
                               ENTRY(scores_alloc),
                               ENTRY(copy),
                               ENTRY(fill),
                               ENTRY(attend),
                               ENTRY(attend_pages),
                               ENTRY(mass),
                               ENTRY(key_scores),
                               ENTRY(top_k),
                               ENTRY(top_p),
                               ENTRY(score_edges),
                               ENTRY(score_smooth),
                               ENTRY(score_pool),
                               ENTRY(votes),
                               ENTRY(heavy_channels),
                               ENTRY(bounds_alloc),
                               ENTRY(page_bounds),
                               ENTRY(page_scores),
                               ENTRY(key_measures),
                               ENTRY(score_every),
                               ENTRY(score_random),
                               ENTRY(score_recent),
                               ENTRY(score_keep),
                               ENTRY(score_axpby),
                               ENTRY(score_head_mean),
                               ENTRY(budget_ratio),
                               ENTRY(budget_layers),
                               ENTRY(budget_heads),
                               ENTRY(state_merge),
                               ENTRY(state_downdate),
                               ENTRY(row_distance),
                               ENTRY(row_top),
                               ENTRY(rows_copy),
                               ENTRY(reuse_decide),
                               ENTRY(ring_match),
                               ENTRY(ring_gather),
                               ENTRY(ring_reach),
                               ENTRY(count_read),
                               ENTRY(keys_alloc),
                               ENTRY(upload),
                               ENTRY(query_pick),
                               ENTRY(key_pick),
                               ENTRY(tile_gaps),
                               ENTRY(score_spread),
                               ENTRY(score_interleave)};
}
