/*
 * backend.h - what the files of the CUDA backend share: the device and the launchers of its kernels.
 *
 * Host code is C and owns memory, graphs, cuBLASLt and the table; kernels are CUDA C behind extern "C" launchers
 * that enqueue on a stream and return cudaError_t. A launcher neither allocates nor waits.
 */
#ifndef MB_CUDA_BACKEND_H
#define MB_CUDA_BACKEND_H

#include "base/base.h"
#include "kernels/cuda/attention.cuh"
#include "kernels/kernels.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mb_cuda_nvml mb_cuda_nvml;       /* telemetry.c */
typedef struct mb_cuda_profile mb_cuda_profile; /* profile.c */
typedef struct mb_cuda_gemm mb_cuda_gemm; /* cuBLASLt handle and the algorithms chosen per shape */

#define MB_RETIRED_MAX 16

struct mb_device {
    mb_cuda_chip chip;
    mb_type type;
    cudaStream_t stream;
    cudaEvent_t timers[MB_TIMER_SLOTS];
    char *arena;
    size_t arena_bytes, arena_used;
    void *workspace;          /* of the attention kernels; grows only outside a capture */
    size_t workspace_bytes;
    void *retired[MB_RETIRED_MAX]; /* earlier workspaces that captured graphs still write to */
    int retired_count, graph_count;
    float *partials;          /* of top1 and the row means: fixed size */
    mb_cuda_gemm *gemm;
    mb_cuda_nvml *nvml;
    mb_cuda_profile *profile;
    cudaStream_t beside;      /* a capture's second branch: `stream` while operations go there */
    cudaEvent_t forked, done; /* where it left the first, and its end */
    bool capturing, branching, unjoined;
    char name[128], detail[256];
    mb_error error;
};

/* Remembers a failed call's text in the device; 0 or MB_E_SYSTEM. */
int mb_cuda_check(mb_device *device, cudaError_t status, const char *what);

/* ---- gemm.c ---- */
/* Loads cuBLASLt (dlopen) and reads the algorithms that earlier runs measured on this GPU. */
int mb_cuda_gemm_open(mb_cuda_gemm **gemm, const mb_device *device, mb_error *err);
void mb_cuda_gemm_close(mb_cuda_gemm *gemm);
int mb_cuda_gemm_run(mb_device *device, const void *a, const void *weight, const void *bias, int64_t m, int64_t n,
                     int64_t k, void *out);

/* ---- telemetry.c, profile.c ---- */
mb_cuda_nvml *mb_cuda_nvml_open(int ordinal);   /* NULL or without a handle: everything is unknown */
void mb_cuda_nvml_close(mb_cuda_nvml *nvml);
void mb_cuda_profile_close(mb_cuda_profile *profile);
/* Kernels launched between the two belong to part; one comparison when no profile is open. */
void mb_cuda_part_begin(mb_device *device, mb_part part);
void mb_cuda_part_end(mb_device *device);

/* ---- elementwise.cu ---- */
cudaError_t mb_launch_embed(cudaStream_t stream, mb_type type, const int32_t *ids, int64_t n, const void *table,
                            int64_t vocab, int64_t width, void *out);
cudaError_t mb_launch_add_rmsnorm(cudaStream_t stream, mb_type type, void *x, const void *delta,
                                  const void *weight, float eps, int one_rounding, int64_t n, int64_t width,
                                  void *out);
cudaError_t mb_launch_qkv_finish(cudaStream_t stream, mb_type type, const mb_qkv *args);
cudaError_t mb_launch_swiglu(cudaStream_t stream, mb_type type, const void *gate_up, int64_t n, int64_t width,
                             void *out);
cudaError_t mb_launch_copy(cudaStream_t stream, void *dst, const void *src, size_t bytes); /* not overlapping */
/* ---- router.cu, experts.cu ---- */
cudaError_t mb_launch_router_logits(cudaStream_t stream, mb_type type, const mb_router *args);
cudaError_t mb_launch_router_choice(cudaStream_t stream, mb_type type, const mb_router *args);
cudaError_t mb_launch_experts_lists(cudaStream_t stream, const mb_experts *args);
cudaError_t mb_launch_experts_products(cudaStream_t stream, mb_type type, const mb_experts *args);
cudaError_t mb_launch_experts_combine(cudaStream_t stream, mb_type type, const mb_experts *args);

/* ---- top1.cu ---- */
/* partials: MB_TOP1_PARTIALS floats for each row of a call. */
#define MB_TOP1_CHUNKS 32
#define MB_TOP1_PARTIALS (4 * MB_TOP1_CHUNKS)
#define MB_TOP1_ROWS 4096
cudaError_t mb_launch_top1(cudaStream_t stream, mb_type type, const void *logits, int64_t n, int64_t vocab,
                           mb_type confidence, float *partials, int32_t *ids, float *probability);

/* ---- pages.cu ---- */
#define MB_MEAN_FLOATS ((size_t)4 << 20) /* capacity of the row-mean buffer: [batch][kv_heads][2][head_dim] */
cudaError_t mb_launch_page_bounds(cudaStream_t stream, mb_type type, const mb_rows *rows, const mb_kv *kv,
                                  int32_t page, int32_t page_capacity, int whole, void *bounds);
cudaError_t mb_launch_page_scores(cudaStream_t stream, const mb_cuda_chip *chip, mb_type type,
                                  const mb_attention *args, int32_t page, int32_t page_capacity,
                                  const void *bounds, mb_merge merge, float *means, float *scores,
                                  int64_t score_stride);
cudaError_t mb_launch_key_scores(cudaStream_t stream, const mb_cuda_chip *chip, mb_type type,
                                 const mb_attention *args, const int32_t *channels, int32_t channel_count,
                                 float *means, float *scores, int64_t score_stride);

/* ---- select.cu ---- */
size_t mb_cuda_top_k_scratch(int32_t batch, int32_t kv_heads, int32_t max_entries);
cudaError_t mb_launch_top_k(cudaStream_t stream, const mb_cuda_chip *chip, const float *scores,
                            int64_t score_stride, int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                            int32_t max_prefix, int32_t page, int32_t k, const int32_t *k_dynamic,
                            int32_t capacity, int32_t *ids, int32_t *counts, void *scratch);
cudaError_t mb_launch_top_p(cudaStream_t stream, const mb_cuda_chip *chip, const float *scores,
                            int64_t score_stride, int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                            int32_t max_prefix, int32_t page, float p, int32_t k_min, int32_t k_max,
                            int32_t capacity, int32_t *ids, int32_t *counts, void *scratch);
/* ---- votes.cu ---- */
size_t mb_cuda_votes_scratch(const mb_attention *args, int32_t k);
/* 0 or a negative code with a sentence in err, like the launchers of attention.cuh. */
int mb_cuda_votes(const mb_cuda_chip *chip, mb_type type, const mb_attention *args, int32_t k, float *votes,
                  float *stats, void *scratch, cudaStream_t stream, mb_error *err);

/* ---- scores.cu ---- */
cudaError_t mb_launch_score_edges(cudaStream_t stream, float *scores, int64_t score_stride, int32_t batch,
                                  int32_t kv_heads, const int32_t *prefix_len, int32_t page, int32_t first_n,
                                  int32_t last_n, float value);
cudaError_t mb_launch_score_pool(cudaStream_t stream, const float *scores, int64_t score_stride, int32_t batch,
                                 int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t page,
                                 int32_t mode, float *out, int64_t out_stride);
cudaError_t mb_launch_score_smooth(cudaStream_t stream, const float *scores, int64_t score_stride, int32_t batch,
                                   int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t kernel,
                                   int32_t mode, float *out);
cudaError_t mb_launch_score_axpby(cudaStream_t stream, float a, const float *x, float b, float *y, int64_t n);
cudaError_t mb_launch_score_head_mean(cudaStream_t stream, float *scores, int64_t score_stride, int32_t batch,
                                      int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix);
cudaError_t mb_launch_score_random(cudaStream_t stream, uint64_t seed, int32_t batch, int32_t kv_heads,
                                   int32_t max_prefix, float *scores, int64_t score_stride);
cudaError_t mb_launch_score_recent(cudaStream_t stream, float *scores, int64_t score_stride, int32_t batch,
                                   int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, float below,
                                   float value);
cudaError_t mb_launch_budget_ratio(cudaStream_t stream, int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                                   int32_t page, double ratio, int32_t extra, int32_t *budgets);
cudaError_t mb_launch_budget_layers(cudaStream_t stream, const float *stats, int32_t layers, int32_t batch,
                                    int32_t kv_heads, const int32_t *prefix_len, int32_t k, int32_t k_min,
                                    int32_t k_max, int32_t *budgets);

/* ---- state.cu ---- */
cudaError_t mb_launch_state_merge(cudaStream_t stream, int64_t states, int32_t head_dim, const void *o_a,
                                  mb_type type_a, const float *lse_a, const void *o_b, mb_type type_b,
                                  const float *lse_b, void *o_out, mb_type type_out, float *lse_out);
cudaError_t mb_launch_state_downdate(cudaStream_t stream, int64_t states, int32_t head_dim, const void *o_total,
                                     mb_type type_total, const float *lse_total, const void *o_part,
                                     mb_type type_part, const float *lse_part, void *o_rest, mb_type type_rest,
                                     float *lse_rest);
cudaError_t mb_launch_row_distance(cudaStream_t stream, mb_type type, const void *a, const void *b, int64_t n,
                                   int32_t head_dim, float *distance, float *norm);
cudaError_t mb_launch_count_work(cudaStream_t stream, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages,
                                 double *tokens);
cudaError_t mb_launch_count_read(cudaStream_t stream, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages,
                                 const int32_t *active, double *tokens);

/* ---- ring.cu ---- */
cudaError_t mb_launch_ring_match(cudaStream_t stream, mb_type type, int32_t batch, int32_t rows,
                                 int32_t query_heads, int32_t head_dim, const void *a, const mb_state_ring *ring,
                                 int any, int32_t *slot, float *distance, float *norm);
cudaError_t mb_launch_ring_gather(cudaStream_t stream, mb_type type, int32_t batch, int32_t rows,
                                  int32_t query_heads, int32_t head_dim, const int32_t *slot,
                                  const mb_state_ring *ring, void *out, float *lse);
cudaError_t mb_launch_ring_reach(cudaStream_t stream, int32_t batch, int32_t rows, int32_t query_heads,
                                 int32_t kv_heads, const int32_t *slot, const mb_state_ring *ring, int32_t age,
                                 const int32_t *active, const int32_t *missed, int32_t *heads, int32_t *reached);

/* ---- reuse.cu ---- */
cudaError_t mb_launch_reuse_decide(cudaStream_t stream, int32_t batch, int32_t rows, int32_t query_heads,
                                   int32_t kv_heads, const float *distance, const float *norm, float threshold,
                                   int relative, float share, int32_t *active, int32_t *missed, double *counts,
                                   double *groups);
cudaError_t mb_launch_rows_copy(cudaStream_t stream, mb_type type, int32_t batch, int32_t rows,
                                int32_t query_heads, int32_t kv_heads, int32_t head_dim, const int32_t *active,
                                const int32_t *missed, const void *src, const float *src_lse, void *dst,
                                float *dst_lse);
cudaError_t mb_launch_row_match(cudaStream_t stream, mb_type type, int32_t batch, int32_t rows,
                                int32_t query_heads, int32_t head_dim, const void *a, const void *ring,
                                int32_t slots, int32_t *slot, float *distance, float *norm);
cudaError_t mb_launch_row_gather(cudaStream_t stream, mb_type type, int32_t batch, int32_t rows,
                                 int32_t query_heads, int32_t head_dim, const int32_t *slot, const void *ring,
                                 const float *ring_lse, int32_t slots, void *out, float *lse);
cudaError_t mb_launch_row_top(cudaStream_t stream, int32_t batch, int32_t rows, int32_t query_heads,
                              const float *distance, int32_t count, int32_t *chosen);
cudaError_t mb_launch_score_keep(cudaStream_t stream, const mb_pages *pages, int32_t batch, int32_t kv_heads,
                                 const int32_t *prefix_len, int32_t max_prefix, float value, float *scores,
                                 int64_t score_stride);
cudaError_t mb_launch_heavy_channels(cudaStream_t stream, mb_type type, const mb_attention *args, int32_t count,
                                     int32_t *channels, void *scratch);
cudaError_t mb_launch_budget_heads(cudaStream_t stream, const float *scores, int64_t score_stride, int32_t batch,
                                   int32_t kv_heads, const int32_t *prefix_len, int32_t max_prefix, int32_t k,
                                   int32_t k_min, int32_t *budgets);

#ifdef __cplusplus
}
#endif
#endif
