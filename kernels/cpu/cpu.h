/*
 * cpu.h - what the files of the CPU backend share: the device with its thread pool and scratch memory, the
 * panel product that every GEMM and attention is built from, and a fast exponential.
 *
 * How results stay bit-equal whatever the number of threads: an operation is cut into pieces whose bounds
 * depend on shapes alone; a piece writes memory that no other piece writes; partial results are added up
 * afterwards in the order of the pieces. Which thread runs a piece decides only whose scratch it uses.
 */
#ifndef MB_KERNELS_CPU_CPU_H
#define MB_KERNELS_CPU_CPU_H

#include "base/base.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/lanes.h"
#include "kernels/kernels.h"

#include <math.h>

typedef struct mb_cpu_pool mb_cpu_pool;

struct mb_device {
    mb_type type;
    int threads;
    mb_cpu_pool *pool;
    unsigned char *arena; /* reserved address space; pages become real when touched */
    size_t arena_bytes, arena_used;
    void *shared; /* scratch of the running operation, seen by all threads */
    size_t shared_bytes;
    void **private_scratch; /* [threads] scratch of each thread */
    size_t private_bytes;
    uint64_t timers[MB_TIMER_SLOTS];
    mb_error error;
};

/* Notes the sentence for mb_kernels.error() and returns code. */
int mb_cpu_fail(mb_device *device, int code, const char *format, ...) MB_PRINTF(3, 4);

/* ---- pool.c: threads and scratch ---- */

/* Runs piece(arg, 0 .. pieces-1, worker) on all threads, in any order, and returns when all are done. */
typedef void mb_cpu_piece(void *arg, int64_t index, int worker);
void mb_cpu_run(mb_device *device, int64_t pieces, mb_cpu_piece *piece, void *arg);
mb_cpu_pool *mb_cpu_pool_new(int threads); /* NULL: the machine gave no thread or memory */
void mb_cpu_pool_free(mb_cpu_pool *pool);

/* Makes sure of `bytes` of shared scratch and `each` bytes for every thread, 64-byte aligned, contents undefined.
 * Valid until the next call. It only ever grows, so that a repeated operation allocates nothing. */
int mb_cpu_reserve(mb_device *device, size_t bytes, size_t each);

/* Cuts the next array out of a scratch block; with base NULL it only counts. */
static inline void *mb_cpu_cut(void *base, size_t *used, size_t bytes)
{
    void *at = base ? (unsigned char *)base + *used : NULL;
    *used += (bytes + 63) & ~(size_t)63;
    return at;
}

/* ---- panel.c: products ---- */

/* Columns of a product come in multiples of MB_LANES. */
static inline int64_t mb_cpu_round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* c[i][j] = (accumulate ? c[i][j] : 0) + sum over p < k, in this order, of a[i*a_row + p*a_col] * b[p*ldb + j]
 * for i < m, j < n; n a multiple of MB_LANES. Each element is summed in the same order whatever m, n are. */
void mb_cpu_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_col, const float *b,
                    int64_t ldb, float *c, int64_t ldc, bool accumulate);
/* dst[c*ldd + r] = src[r*lds + c] for r < rows, c < cols. */
void mb_cpu_transpose(const float *src, int64_t lds, int64_t rows, int64_t cols, float *dst, int64_t ldd);
/* Sum of x[i]*y[i] in MB_LANES interleaved partial sums, then those in order. */
float mb_cpu_dot(const float *x, const float *y, int64_t n);

/* ---- the exponential of every softmax ---- */

/* exp(x) to 1e-7 relative for -87.3 <= x <= 88. No branch and no table: loops around it vectorise. Range reduction
 * by ln 2 in two parts, then the minimax polynomial of the Cephes library (Moshier). */
static inline float mb_exp_inside(float x)
{
    float shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the low bits now hold round(x/ln2) */
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return y * mb_float_of((mb_bits_of(shifted) << 23) + 0x3f800000u);
}

/* For x <= 88, as in a softmax relative to its maximum: 0 below -87.3, NaN stays NaN. */
static inline float mb_exp_falling(float x)
{
    float y = mb_exp_inside(x < -87.3f ? -87.3f : x);
    return x < -87.3f ? 0.0f : y;
}

/* For any x: 0 below -87.3, +infinity above 88.3. */
static inline float mb_exp(float x)
{
    float y = mb_exp_falling(x > 88.3f ? 88.3f : x);
    return x > 88.3f ? INFINITY : y;
}

/* ---- checks ---- */

/* Shapes that the whole room relies on; a breach is a bug of the caller. */
int mb_cpu_check_attention(mb_device *device, const char *operation, const mb_attention *args);

/* ---- the operations, by file ---- */

int mb_cpu_open(mb_device **device, const mb_device_options *options, mb_error *err);
void mb_cpu_close(mb_device *device);
void mb_cpu_info(mb_device *device, mb_device_info *info);
const char *mb_cpu_error(mb_device *device);
void *mb_cpu_alloc(mb_device *device, size_t bytes);
size_t mb_cpu_mark(mb_device *device);
void mb_cpu_release(mb_device *device, size_t mark);
int mb_cpu_upload(mb_device *device, void *dst, const void *host, size_t bytes);
int mb_cpu_download(mb_device *device, void *host, const void *src, size_t bytes);
int mb_cpu_copy(mb_device *device, void *dst, const void *src, size_t bytes);
int mb_cpu_fill(mb_device *device, void *dst, int byte, size_t bytes);
int mb_cpu_sync(mb_device *device);
int mb_cpu_timer_mark(mb_device *device, int slot);
int mb_cpu_timer_elapsed(mb_device *device, int from, int to, double *us);
void mb_cpu_range_push(mb_device *device, const char *name);
void mb_cpu_range_pop(mb_device *device);

int mb_cpu_embed(mb_device *, const int32_t *ids, int64_t n, const void *table, int64_t vocab, int64_t width,
                 void *out);
int mb_cpu_add_rmsnorm(mb_device *, void *x, const void *delta, const void *weight, float eps, int one_rounding,
                       int64_t n, int64_t width, void *out);
int mb_cpu_gemm(mb_device *, const void *a, const void *weight, const void *bias, int64_t m, int64_t n, int64_t k,
                void *out);
int mb_cpu_qkv_finish(mb_device *, const mb_qkv *args);
int mb_cpu_swiglu(mb_device *, const void *gate_up, int64_t n, int64_t width, void *out);
int mb_cpu_route(mb_device *, const mb_router *args);
int mb_cpu_experts(mb_device *, const mb_experts *args);
int mb_cpu_top1(mb_device *, const void *logits, int64_t n, int64_t vocab, mb_type confidence, int32_t *ids,
                float *probability);

int mb_cpu_attend(mb_device *, const mb_attention *args);
int mb_cpu_attend_sparse(mb_device *, const mb_attention *args);
int mb_cpu_attend_prefill(mb_device *, const mb_kv *kv, int32_t sequence, int32_t query_heads, const void *q,
                          int64_t first, int64_t n, int32_t block, void *out);

int mb_cpu_mass(mb_device *, const mb_attention *args);
int mb_cpu_votes(mb_device *, const mb_attention *args, int32_t k, float *votes, float *stats, void *scratch);
size_t mb_cpu_votes_scratch(const mb_attention *args, int32_t k);
int mb_cpu_page_bounds(mb_device *, const mb_rows *rows, const mb_kv *kv, int32_t page, int32_t page_capacity,
                       int whole, void *bounds);
int mb_cpu_page_scores(mb_device *, const mb_attention *args, int32_t page, int32_t page_capacity,
                       const void *bounds, mb_merge merge, float *scores, int64_t score_stride);
int mb_cpu_key_scores(mb_device *, const mb_attention *args, const int32_t *channels, int32_t channel_count,
                      float *scores, int64_t score_stride);
int mb_cpu_top_k(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                 const int32_t *prefix_len, int32_t max_prefix, int32_t page, int32_t k, const int32_t *k_dynamic,
                 int32_t capacity, int32_t *ids, int32_t *counts, void *scratch);
size_t mb_cpu_top_k_scratch(int32_t batch, int32_t kv_heads, int32_t max_entries);
int mb_cpu_top_p(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                 const int32_t *prefix_len, int32_t max_prefix, int32_t page, float p, int32_t k_min,
                 int32_t k_max, int32_t capacity, int32_t *ids, int32_t *counts, void *scratch);
int mb_cpu_score_edges(mb_device *, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                       const int32_t *prefix_len, int32_t page, int32_t first_n, int32_t last_n, float value);
int mb_cpu_score_pool(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                      const int32_t *prefix_len, int32_t max_prefix, int32_t page, int32_t mode, float *out,
                      int64_t out_stride);
int mb_cpu_score_smooth(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                        const int32_t *prefix_len, int32_t max_prefix, int32_t kernel, int32_t mode, float *out);
int mb_cpu_score_axpby(mb_device *, float a, const float *x, float b, float *y, int64_t n);
int mb_cpu_score_head_mean(mb_device *, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                           const int32_t *prefix_len, int32_t max_prefix);
int mb_cpu_score_random(mb_device *, uint64_t seed, int32_t batch, int32_t kv_heads, int32_t max_prefix,
                        float *scores, int64_t score_stride);

int mb_cpu_state_merge(mb_device *, int64_t states, int32_t head_dim, const void *o_a, mb_type type_a,
                       const float *lse_a, const void *o_b, mb_type type_b, const float *lse_b, void *o_out,
                       mb_type type_out, float *lse_out);
int mb_cpu_state_downdate(mb_device *, int64_t states, int32_t head_dim, const void *o_total, mb_type type_total,
                          const float *lse_total, const void *o_part, mb_type type_part, const float *lse_part,
                          void *o_rest, mb_type type_rest, float *lse_rest);
int mb_cpu_row_distance(mb_device *, const void *a, const void *b, int64_t n, int32_t head_dim, float *distance,
                        float *norm);
int mb_cpu_count_work(mb_device *, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages, double *tokens);
int mb_cpu_count_read(mb_device *, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages,
                      const int32_t *active, double *tokens);

int mb_cpu_score_recent(mb_device *, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                        const int32_t *prefix_len, int32_t max_prefix, float below, float value);
int mb_cpu_budget_ratio(mb_device *, int32_t batch, int32_t kv_heads, const int32_t *prefix_len, int32_t page,
                        double ratio, int32_t extra, int32_t *budgets);
int mb_cpu_budget_layers(mb_device *, const float *stats, int32_t layers, int32_t batch, int32_t kv_heads,
                         const int32_t *prefix_len, int32_t k, int32_t k_min, int32_t k_max, int32_t *budgets);
int mb_cpu_budget_heads(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                        const int32_t *prefix_len, int32_t max_prefix, int32_t k, int32_t k_min, int32_t *budgets,
                        void *scratch);
int mb_cpu_score_keep(mb_device *, const mb_pages *pages, int32_t batch, int32_t kv_heads,
                      const int32_t *prefix_len, int32_t max_prefix, float value, float *scores,
                      int64_t score_stride);

int mb_cpu_heavy_channels(mb_device *, const mb_attention *args, int32_t count, int32_t *channels, void *scratch);
int mb_cpu_reuse_decide(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                        const float *distance, const float *norm, float threshold, int relative, float share,
                        int32_t *active, int32_t *missed, double *counts, double *groups);
int mb_cpu_rows_copy(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                     int32_t head_dim, const int32_t *active, const int32_t *missed, const void *src,
                     const float *src_lse, void *dst, float *dst_lse);
int mb_cpu_row_match(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                     const void *a, const void *ring, int32_t slots, int32_t *slot, float *distance, float *norm);
int mb_cpu_row_gather(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                      const int32_t *slot, const void *ring, const float *ring_lse, int32_t slots, void *out,
                      float *lse);
int mb_cpu_row_top(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, const float *distance,
                   int32_t count, int32_t *chosen);

int mb_cpu_ring_match(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                      const void *a, const mb_state_ring *ring, int any, int32_t *slot, float *distance,
                      float *norm);
int mb_cpu_ring_gather(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                       const int32_t *slot, const mb_state_ring *ring, void *out, float *lse);
int mb_cpu_ring_reach(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                      const int32_t *slot, const mb_state_ring *ring, int32_t age, const int32_t *active,
                      const int32_t *missed, int32_t *heads, int32_t *reached);

#endif
