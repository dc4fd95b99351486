/*
 * table.c - the CPU's table of operations. There are no graphs here: the capture entries are NULL, which tells
 * the model to run every forward eagerly.
 *
 * Everything else is filled: a caller may use any other entry without asking.
 */
#include "kernels/cpu/cpu.h"

static const mb_kernels table = {
    .name = "cpu",
    .open = mb_cpu_open,
    .close = mb_cpu_close,
    .info = mb_cpu_info,
    .error = mb_cpu_error,
    .alloc = mb_cpu_alloc,
    .mark = mb_cpu_mark,
    .release = mb_cpu_release,
    .upload = mb_cpu_upload,
    .download = mb_cpu_download,
    .copy = mb_cpu_copy,
    .fill = mb_cpu_fill,
    .sync = mb_cpu_sync,
    .capture_begin = NULL,
    .capture_end = NULL,
    .graph_launch = NULL,
    .graph_free = NULL,
    .timer_mark = mb_cpu_timer_mark,
    .timer_elapsed = mb_cpu_timer_elapsed,
    .range_push = mb_cpu_range_push,
    .range_pop = mb_cpu_range_pop,
    .embed = mb_cpu_embed,
    .add_rmsnorm = mb_cpu_add_rmsnorm,
    .gemm = mb_cpu_gemm,
    .qkv_finish = mb_cpu_qkv_finish,
    .swiglu = mb_cpu_swiglu,
    .top1 = mb_cpu_top1,
    .attend = mb_cpu_attend,
    .attend_sparse = mb_cpu_attend_sparse,
    .attend_prefill = mb_cpu_attend_prefill,
    .mass = mb_cpu_mass,
    .votes = mb_cpu_votes,
    .votes_scratch = mb_cpu_votes_scratch,
    .page_bounds = mb_cpu_page_bounds,
    .page_scores = mb_cpu_page_scores,
    .key_scores = mb_cpu_key_scores,
    .top_k = mb_cpu_top_k,
    .top_k_scratch = mb_cpu_top_k_scratch,
    .top_p = mb_cpu_top_p,
    .score_edges = mb_cpu_score_edges,
    .score_pool = mb_cpu_score_pool,
    .score_smooth = mb_cpu_score_smooth,
    .score_axpby = mb_cpu_score_axpby,
    .score_head_mean = mb_cpu_score_head_mean,
    .score_random = mb_cpu_score_random,
    .state_merge = mb_cpu_state_merge,
    .state_downdate = mb_cpu_state_downdate,
    .row_distance = mb_cpu_row_distance,
    .count_work = mb_cpu_count_work,
    .score_recent = mb_cpu_score_recent,
    .budget_ratio = mb_cpu_budget_ratio,
    .budget_layers = mb_cpu_budget_layers,
    .budget_heads = mb_cpu_budget_heads,
    .score_keep = mb_cpu_score_keep,
    .heavy_channels = mb_cpu_heavy_channels,
    .reuse_decide = mb_cpu_reuse_decide,
    .ring_match = mb_cpu_ring_match,
    .ring_gather = mb_cpu_ring_gather,
    .ring_reach = mb_cpu_ring_reach,
    .count_read = mb_cpu_count_read,
    .rows_copy = mb_cpu_rows_copy,
    .row_match = mb_cpu_row_match,
    .row_gather = mb_cpu_row_gather,
    .row_top = mb_cpu_row_top,
};

const mb_kernels *mb_kernels_cpu(void)
{
    return &table;
}
