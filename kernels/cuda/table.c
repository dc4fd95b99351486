/* table.c - the CUDA side of struct mb_kernels: arguments to launchers, status to codes. */
#include "kernels/cuda/backend.h"
#include "kernels/cuda/table.h"

#include <string.h>

/* One launcher's call under its part. */
#define CHECK_PART(part, call, what) (mb_cuda_part_begin(device, (part)), finish(device, (call), (what)))

static int finish(mb_device *device, cudaError_t status, const char *what)
{
    mb_cuda_part_end(device);
    return mb_cuda_check(device, status, what);
}

/* The same for launchers that write their own sentence. */
static int finish_code(mb_device *device, int rc)
{
    mb_cuda_part_end(device);
    return rc;
}

static int embed(mb_device *device, const int32_t *ids, int64_t n, const void *table, int64_t vocab, int64_t width,
                 void *out)
{
    return CHECK_PART(MB_PART_ELEMENTWISE,
                      mb_launch_embed(device->stream, device->type, ids, n, table, vocab, width, out), "embed");
}

static int add_rmsnorm(mb_device *device, void *x, const void *delta, const void *weight, float eps,
                       int one_rounding, int64_t n, int64_t width, void *out)
{
    return CHECK_PART(
        MB_PART_ELEMENTWISE,
        mb_launch_add_rmsnorm(device->stream, device->type, x, delta, weight, eps, one_rounding, n, width, out),
        "add_rmsnorm");
}

static int qkv_finish(mb_device *device, const mb_qkv *args)
{
    return CHECK_PART(MB_PART_ELEMENTWISE, mb_launch_qkv_finish(device->stream, device->type, args), "qkv_finish");
}

static int swiglu(mb_device *device, const void *gate_up, int64_t n, int64_t width, void *out)
{
    return CHECK_PART(MB_PART_ELEMENTWISE, mb_launch_swiglu(device->stream, device->type, gate_up, n, width, out),
                      "swiglu");
}

static int route(mb_device *device, const mb_router *args)
{
    int rc = CHECK_PART(MB_PART_GEMM, mb_launch_router_logits(device->stream, device->type, args), "route");
    return rc != MB_OK ? rc
                       : CHECK_PART(MB_PART_ELEMENTWISE, mb_launch_router_choice(device->stream, device->type, args),
                                    "route");
}

static int experts(mb_device *device, const mb_experts *args)
{
    int rc = CHECK_PART(MB_PART_ELEMENTWISE, mb_launch_experts_lists(device->stream, args), "experts");
    if (rc == MB_OK)
        rc = CHECK_PART(MB_PART_GEMM, mb_launch_experts_products(device->stream, device->type, args), "experts");
    return rc != MB_OK ? rc
                       : CHECK_PART(MB_PART_ELEMENTWISE, mb_launch_experts_combine(device->stream, device->type, args),
                                    "experts");
}

/* The partial results have room for MB_TOP1_ROWS rows: more go in pieces. */
static int top1(mb_device *device, const void *logits, int64_t n, int64_t vocab, mb_type confidence, int32_t *ids,
                float *probability)
{
    int rc = MB_OK;
    for (int64_t i = 0; rc == MB_OK && i < n; i += MB_TOP1_ROWS) {
        int64_t rows = n - i < MB_TOP1_ROWS ? n - i : MB_TOP1_ROWS;
        const char *from = (const char *)logits + (size_t)(i * vocab) * mb_type_size(device->type);
        rc = CHECK_PART(MB_PART_SAMPLER,
                        mb_launch_top1(device->stream, device->type, from, rows, vocab, confidence,
                                       device->partials, ids + i, probability + i),
                        "top1");
    }
    return rc;
}

/* ---- attention ---- */

static int attend(mb_device *device, const mb_attention *args)
{
    int rc = mb_cuda_workspace(device, mb_cuda_attend_workspace(&device->chip, device->type, args));
    if (rc != MB_OK)
        return rc;
    mb_cuda_part_begin(device, args->span == MB_SPAN_BLOCK ? MB_PART_BLOCK_ATTENTION : MB_PART_DENSE_ATTENTION);
    return finish_code(device, mb_cuda_attend(&device->chip, device->type, args, device->workspace,
                                              device->workspace_bytes, device->stream, &device->error));
}

static int attend_sparse(mb_device *device, const mb_attention *args)
{
    int rc = mb_cuda_workspace(device, mb_cuda_attend_sparse_workspace(&device->chip, device->type, args));
    if (rc != MB_OK)
        return rc;
    mb_cuda_part_begin(device, MB_PART_SPARSE_ATTENTION);
    return finish_code(device, mb_cuda_attend_sparse(&device->chip, device->type, args, device->workspace,
                                                     device->workspace_bytes, device->stream, &device->error));
}

static int attend_prefill(mb_device *device, const mb_kv *kv, int32_t sequence, int32_t query_heads, const void *q,
                          int64_t first, int64_t n, int32_t block, void *out)
{
    mb_cuda_part_begin(device, MB_PART_DENSE_ATTENTION);
    return finish_code(device,
                       mb_cuda_attend_prefill(&device->chip, device->type, kv, sequence, query_heads, q, first, n,
                                              block, out, device->stream, &device->error));
}

static int mass(mb_device *device, const mb_attention *args)
{
    /* Beside other work on half the chip: those are products that wait for memory, this one computes. The result
     * does not depend on it. */
    mb_cuda_chip chip = device->chip;
    if (device->branching)
        chip.multiprocessors = (chip.multiprocessors + 1) / 2;
    mb_cuda_part_begin(device, MB_PART_SELECTION);
    return finish_code(device, mb_cuda_mass(&chip, device->type, args, device->stream, &device->error));
}

/* ---- selection ---- */

static int votes(mb_device *device, const mb_attention *args, int32_t k, float *out, float *stats, void *scratch)
{
    mb_cuda_part_begin(device, MB_PART_SELECTION);
    return finish_code(device, mb_cuda_votes(&device->chip, device->type, args, k, out, stats, scratch,
                                             device->stream, &device->error));
}

static int page_bounds(mb_device *device, const mb_rows *rows, const mb_kv *kv, int32_t page,
                       int32_t page_capacity, int whole, void *bounds)
{
    return CHECK_PART(
        MB_PART_SELECTION,
        mb_launch_page_bounds(device->stream, device->type, rows, kv, page, page_capacity, whole, bounds),
        "page_bounds");
}

static int page_scores(mb_device *device, const mb_attention *args, int32_t page, int32_t page_capacity,
                       const void *bounds, mb_merge merge, float *scores, int64_t score_stride)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_page_scores(device->stream, &device->chip, device->type, args, page, page_capacity,
                                            bounds, merge, device->partials, scores, score_stride),
                      "page_scores");
}

static int key_scores(mb_device *device, const mb_attention *args, const int32_t *channels, int32_t channel_count,
                      float *scores, int64_t score_stride)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_key_scores(device->stream, &device->chip, device->type, args, channels,
                                           channel_count, device->partials, scores, score_stride),
                      "key_scores");
}

static int top_k(mb_device *device, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                 const int32_t *prefix_len, int32_t max_prefix, int32_t page, int32_t k, const int32_t *k_dynamic,
                 int32_t capacity, int32_t *ids, int32_t *counts, void *scratch)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_top_k(device->stream, &device->chip, scores, score_stride, batch, kv_heads,
                                      prefix_len, max_prefix, page, k, k_dynamic, capacity, ids, counts, scratch),
                      "top_k");
}

static int top_p(mb_device *device, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                 const int32_t *prefix_len, int32_t max_prefix, int32_t page, float p, int32_t k_min,
                 int32_t k_max, int32_t capacity, int32_t *ids, int32_t *counts, void *scratch)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_top_p(device->stream, &device->chip, scores, score_stride, batch, kv_heads,
                                      prefix_len, max_prefix, page, p, k_min, k_max, capacity, ids, counts,
                                      scratch),
                      "top_p");
}

static int score_edges(mb_device *device, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                       const int32_t *prefix_len, int32_t page, int32_t first_n, int32_t last_n, float value)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_score_edges(device->stream, scores, score_stride, batch, kv_heads, prefix_len,
                                            page, first_n, last_n, value),
                      "score_edges");
}

static int score_pool(mb_device *device, const float *scores, int64_t score_stride, int32_t batch,
                      int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t page, int32_t mode,
                      float *out, int64_t out_stride)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_score_pool(device->stream, scores, score_stride, batch, kv_heads, prefix_len,
                                           max_prefix, page, mode, out, out_stride),
                      "score_pool");
}

static int score_smooth(mb_device *device, const float *scores, int64_t score_stride, int32_t batch,
                        int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t kernel,
                        int32_t mode, float *out)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_score_smooth(device->stream, scores, score_stride, batch, kv_heads, prefix_len,
                                             max_prefix, kernel, mode, out),
                      "score_smooth");
}

static int score_axpby(mb_device *device, float a, const float *x, float b, float *y, int64_t n)
{
    return CHECK_PART(MB_PART_SELECTION, mb_launch_score_axpby(device->stream, a, x, b, y, n), "score_axpby");
}

static int score_head_mean(mb_device *device, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                           const int32_t *prefix_len, int32_t max_prefix)
{
    return CHECK_PART(
        MB_PART_SELECTION,
        mb_launch_score_head_mean(device->stream, scores, score_stride, batch, kv_heads, prefix_len, max_prefix),
        "score_head_mean");
}

static int score_random(mb_device *device, uint64_t seed, int32_t batch, int32_t kv_heads, int32_t max_prefix,
                        float *scores, int64_t score_stride)
{
    return CHECK_PART(
        MB_PART_SELECTION,
        mb_launch_score_random(device->stream, seed, batch, kv_heads, max_prefix, scores, score_stride),
        "score_random");
}

static int score_recent(mb_device *device, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                        const int32_t *prefix_len, int32_t max_prefix, float below, float value)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_score_recent(device->stream, scores, score_stride, batch, kv_heads, prefix_len,
                                             max_prefix, below, value),
                      "score_recent");
}

static int budget_ratio(mb_device *device, int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                        int32_t page, double ratio, int32_t extra, int32_t *budgets)
{
    return CHECK_PART(
        MB_PART_SELECTION,
        mb_launch_budget_ratio(device->stream, batch, kv_heads, prefix_len, page, ratio, extra, budgets),
        "budget_ratio");
}

static int budget_layers(mb_device *device, const float *stats, int32_t layers, int32_t batch, int32_t kv_heads,
                         const int32_t *prefix_len, int32_t k, int32_t k_min, int32_t k_max, int32_t *budgets)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_budget_layers(device->stream, stats, layers, batch, kv_heads, prefix_len, k, k_min,
                                              k_max, budgets),
                      "budget_layers");
}

/* ---- states ---- */

static int state_merge(mb_device *device, int64_t states, int32_t head_dim, const void *o_a, mb_type type_a,
                       const float *lse_a, const void *o_b, mb_type type_b, const float *lse_b, void *o_out,
                       mb_type type_out, float *lse_out)
{
    return CHECK_PART(MB_PART_BLOCK_ATTENTION,
                      mb_launch_state_merge(device->stream, states, head_dim, o_a, type_a, lse_a, o_b, type_b,
                                            lse_b, o_out, type_out, lse_out),
                      "state_merge");
}

static int state_downdate(mb_device *device, int64_t states, int32_t head_dim, const void *o_total,
                          mb_type type_total, const float *lse_total, const void *o_part, mb_type type_part,
                          const float *lse_part, void *o_rest, mb_type type_rest, float *lse_rest)
{
    return CHECK_PART(MB_PART_BLOCK_ATTENTION,
                      mb_launch_state_downdate(device->stream, states, head_dim, o_total, type_total, lse_total,
                                               o_part, type_part, lse_part, o_rest, type_rest, lse_rest),
                      "state_downdate");
}

static int row_distance(mb_device *device, const void *a, const void *b, int64_t n, int32_t head_dim,
                        float *distance, float *norm)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_row_distance(device->stream, device->type, a, b, n, head_dim, distance, norm),
                      "row_distance");
}

static int count_work(mb_device *device, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages,
                      double *tokens)
{
    return CHECK_PART(MB_PART_SELECTION, mb_launch_count_work(device->stream, rows, kv_heads, pages, tokens),
                      "count_work");
}

static int count_read(mb_device *device, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages,
                      const int32_t *active, double *tokens)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_count_read(device->stream, rows, kv_heads, pages, active, tokens), "count_read");
}

/* ---- reuse of states, choices across heads and channels ---- */

static int budget_heads(mb_device *device, const float *scores, int64_t score_stride, int32_t batch,
                        int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t k, int32_t k_min,
                        int32_t *budgets, void *scratch)
{
    (void)scratch;
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_budget_heads(device->stream, scores, score_stride, batch, kv_heads, prefix_len,
                                             max_prefix, k, k_min, budgets),
                      "budget_heads");
}

static int score_keep(mb_device *device, const mb_pages *pages, int32_t batch, int32_t kv_heads,
                      const int32_t *prefix_len, int32_t max_prefix, float value, float *scores,
                      int64_t score_stride)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_score_keep(device->stream, pages, batch, kv_heads, prefix_len, max_prefix, value,
                                           scores, score_stride),
                      "score_keep");
}

static int heavy_channels(mb_device *device, const mb_attention *args, int32_t count, int32_t *channels,
                          void *scratch)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_heavy_channels(device->stream, device->type, args, count, channels, scratch),
                      "heavy_channels");
}

static int reuse_decide(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                        const float *distance, const float *norm, float threshold, int relative, float share,
                        int32_t *active, int32_t *missed, double *counts, double *groups)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_reuse_decide(device->stream, batch, rows, query_heads, kv_heads, distance, norm,
                                             threshold, relative, share, active, missed, counts, groups),
                      "reuse_decide");
}

static int ring_match(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                      const void *a, const mb_state_ring *ring, int any, int32_t *slot, float *distance, float *norm)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_ring_match(device->stream, device->type, batch, rows, query_heads, head_dim, a, ring,
                                           any, slot, distance, norm),
                      "ring_match");
}

static int ring_gather(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                       const int32_t *slot, const mb_state_ring *ring, void *out, float *lse)
{
    return CHECK_PART(MB_PART_COPY,
                      mb_launch_ring_gather(device->stream, device->type, batch, rows, query_heads, head_dim, slot,
                                            ring, out, lse),
                      "ring_gather");
}

static int ring_reach(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                      const int32_t *slot, const mb_state_ring *ring, int32_t age, const int32_t *active,
                      const int32_t *missed, int32_t *heads, int32_t *reached)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_ring_reach(device->stream, batch, rows, query_heads, kv_heads, slot, ring, age,
                                           active, missed, heads, reached),
                      "ring_reach");
}

static int rows_copy(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                     int32_t head_dim, const int32_t *active, const int32_t *missed, const void *src,
                     const float *src_lse, void *dst, float *dst_lse)
{
    return CHECK_PART(MB_PART_COPY,
                      mb_launch_rows_copy(device->stream, device->type, batch, rows, query_heads, kv_heads,
                                          head_dim, active, missed, src, src_lse, dst, dst_lse),
                      "rows_copy");
}

static int row_match(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                     const void *a, const void *ring, int32_t slots, int32_t *slot, float *distance, float *norm)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_row_match(device->stream, device->type, batch, rows, query_heads, head_dim, a,
                                          ring, slots, slot, distance, norm),
                      "row_match");
}

static int row_gather(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                      const int32_t *slot, const void *ring, const float *ring_lse, int32_t slots, void *out,
                      float *lse)
{
    return CHECK_PART(MB_PART_COPY,
                      mb_launch_row_gather(device->stream, device->type, batch, rows, query_heads, head_dim, slot,
                                           ring, ring_lse, slots, out, lse),
                      "row_gather");
}

static int row_top(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, const float *distance,
                   int32_t count, int32_t *chosen)
{
    return CHECK_PART(MB_PART_SELECTION,
                      mb_launch_row_top(device->stream, batch, rows, query_heads, distance, count, chosen),
                      "row_top");
}

static int gemm(mb_device *device, const void *a, const void *weight, const void *bias, int64_t m, int64_t n,
                int64_t k, void *out)
{
    mb_cuda_part_begin(device, MB_PART_GEMM);
    return finish_code(device, mb_cuda_gemm_run(device, a, weight, bias, m, n, k, out));
}

static const mb_kernels table = {
    .name = "cuda",
    .open = mb_cuda_open,
    .close = mb_cuda_close,
    .info = mb_cuda_info,
    .error = mb_cuda_error,
    .alloc = mb_cuda_alloc,
    .mark = mb_cuda_mark,
    .release = mb_cuda_release,
    .upload = mb_cuda_upload,
    .download = mb_cuda_download,
    .copy = mb_cuda_copy,
    .fill = mb_cuda_fill,
    .sync = mb_cuda_sync,
    .capture_begin = mb_cuda_capture_begin,
    .capture_end = mb_cuda_capture_end,
    .branch_begin = mb_cuda_branch_begin,
    .branch_end = mb_cuda_branch_end,
    .branch_join = mb_cuda_branch_join,
    .graph_launch = mb_cuda_graph_launch,
    .graph_free = mb_cuda_graph_free,
    .timer_mark = mb_cuda_timer_mark,
    .timer_elapsed = mb_cuda_timer_elapsed,
    .range_push = mb_cuda_range_push,
    .range_pop = mb_cuda_range_pop,
    .embed = embed,
    .add_rmsnorm = add_rmsnorm,
    .gemm = gemm,
    .qkv_finish = qkv_finish,
    .swiglu = swiglu,
    .route = route,
    .experts = experts,
    .top1 = top1,
    .attend = attend,
    .attend_sparse = attend_sparse,
    .attend_prefill = attend_prefill,
    .mass = mass,
    .votes = votes,
    .votes_scratch = mb_cuda_votes_scratch,
    .page_bounds = page_bounds,
    .page_scores = page_scores,
    .key_scores = key_scores,
    .top_k = top_k,
    .top_k_scratch = mb_cuda_top_k_scratch,
    .top_p = top_p,
    .score_edges = score_edges,
    .score_pool = score_pool,
    .score_smooth = score_smooth,
    .score_axpby = score_axpby,
    .score_head_mean = score_head_mean,
    .score_random = score_random,
    .state_merge = state_merge,
    .state_downdate = state_downdate,
    .row_distance = row_distance,
    .count_work = count_work,
    .score_recent = score_recent,
    .budget_ratio = budget_ratio,
    .budget_layers = budget_layers,
    .budget_heads = budget_heads,
    .score_keep = score_keep,
    .heavy_channels = heavy_channels,
    .reuse_decide = reuse_decide,
    .ring_match = ring_match,
    .ring_gather = ring_gather,
    .ring_reach = ring_reach,
    .count_read = count_read,
    .rows_copy = rows_copy,
    .row_match = row_match,
    .row_gather = row_gather,
    .row_top = row_top,
    .telemetry = mb_cuda_telemetry,
    .profile_begin = mb_cuda_profile_begin,
    .profile_end = mb_cuda_profile_end,
    .stream = mb_cuda_stream,
};

const mb_kernels *mb_kernels_cuda(void)
{
    return &table;
}
