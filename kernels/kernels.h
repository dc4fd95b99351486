/*
 * kernels.h - the one table of operations that everything numerical goes through.
 *
 * A backend (kernels/cpu, kernels/cuda) fills struct mb_kernels; the model and, through it, the attention
 * methods call nothing else. This room knows no model and no method: it sees tensors, a KV cache, row ranges.
 *
 * Rules every operation keeps
 *  - Arguments are device pointers unless the comment says "host". Shapes are in elements, row-major.
 *  - Storage type T is MB_F32, MB_BF16 or MB_F16, one per device (mb_device_options.type). Every operator output
 *    is rounded to T; accumulation is fp32. Statistics (log-sum-exp, masses, scores) are always fp32.
 *  - Log-sum-exp is natural; an empty set of keys gives output 0 and log-sum-exp -INFINITY.
 *  - Operations are enqueued in order. None allocates and none waits for the device, except where stated, so a
 *    CUDA graph can capture them; they read lengths from device memory so that a replay sees new values.
 *  - Bit-equal from run to run on the same device and arguments, whatever the number of threads.
 *  - They return 0 or a negative MB_E_* code; the text is in mb_kernels.error(device).
 */
#ifndef MB_KERNELS_H
#define MB_KERNELS_H

#include "base/base.h"
#include "kernels/comm.h"
#include "kernels/device.h"
#include "kernels/experts.h"
#include "kernels/words.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The KV cache of one layer: k and v are [batch][kv_heads][capacity][head_dim] of T, keys after RoPE.
 * Rows prefix_len .. prefix_len+rows-1 are the scratch slots of the block that is being denoised. */
typedef struct mb_kv {
    void *k, *v;
    int32_t batch, kv_heads, capacity, head_dim;
} mb_kv;

/* The rows of one forward: `rows` query rows per sequence, row r of sequence b at absolute position
 * prefix_len[b] + row_offset + r. */
typedef struct mb_rows {
    int32_t batch, rows, row_offset;
    const int32_t *prefix_len; /* [batch], device: committed tokens in front of the block */
    int32_t max_prefix;        /* host: an upper bound of prefix_len (sizes grids; 0 .. capacity) */
    int32_t block_keys;        /* keys of the current block that are visible: slots prefix_len .. +block_keys-1 */
} mb_rows;

/* Attention of packed block rows. q, out: [batch][rows][query_heads][head_dim] of T; scale head_dim^-0.5.
 * Query head a reads KV head a / G, G = query_heads / kv_heads; the G*rows rows of a KV head share its keys.
 * The mass of prefix key j is sum_r w[r] exp(s[r,j] - lse[r]) / sum_r w[r] over the G*rows rows r of a KV head;
 * entries j >= prefix_len get 0 up to max_prefix rounded up to 64. The operation `mass` computes it alone: lse is
 * its input, scope says over which keys that lse was taken. */
typedef struct mb_attention {
    mb_rows rows;
    mb_kv kv;
    int32_t query_heads;
    const void *q;
    mb_scope scope;
    const int32_t *active;    /* NULL, or [batch][kv_heads]: 0 = leave everything of this KV head untouched */
    const mb_page_set *pages; /* attend_sparse: the prefix keys; NULL for attend */
    void *out;                /* NULL = the log-sum-exp only */
    float *lse;               /* NULL, or [batch][rows][query_heads] over the covered keys */
    /* Optional by-products of attend (scope ALL or PREFIX), over prefix keys; NULL = not wanted. */
    float *mass;      /* [batch][kv_heads][mass_stride]: see above */
    float *tile_mass; /* [batch][kv_heads][tile_stride]: mass summed over tiles of 64 keys */
    int64_t mass_stride, tile_stride;
    const float *row_weight; /* NULL = every row counts 1; else [batch][rows], e.g. 1 for masked rows */
} mb_attention;

/* Rotary embedding and normalisation of freshly projected q, k, v. */
typedef struct mb_qkv {
    mb_rows rows;
    mb_kv kv; /* where k and v are written: slots prefix_len + row_offset + r */
    int32_t query_heads;
    const void *qkv;             /* [batch*rows][(query_heads + 2*kv_heads) * head_dim]: all q | all k | all v */
    const void *q_norm, *k_norm; /* NULL (Qwen2) or [head_dim] weights of T (Qwen3) */
    float norm_eps;
    int32_t norm_one_rounding; /* as in mb_rmsnorm.one_rounding */
    int32_t rotary_dim;        /* how many dimensions turn, pairs j and j + rotary_dim/2; even; 0 = head_dim */
    const float *cos_sin;      /* [positions][rotary_dim]: cos of rotary_dim/2 angles, then sin; rounded to T */
    void *q_out;               /* [batch][rows][query_heads][head_dim] after RoPE */
    int32_t v_norm;            /* 1: v = T(v * rstd) over its head, with norm_eps */
    int32_t v_of_k;            /* 1: qkv is all q | all k, and v is made of what k was before its norm */
    float q_scale;             /* 0 = 1; else q_out is T(q after RoPE * q_scale); q_pre is not scaled */
    void *q_pre;               /* NULL, or the same shape before RoPE (after q-norm) */
} mb_qkv;

/* ---- transformer ---- */

/* out[i] = table[ids[i]], or T(scale * it). */
typedef struct mb_embed {
    const int32_t *ids; /* [n] */
    int64_t n;
    const void *table; /* [vocab][width] of T */
    int64_t vocab, width;
    void *out;   /* [n][width] */
    float scale; /* 0 = none */
} mb_embed;

/* out = T(T(p * table) * scale), p = T(softmax(T(logits / *temperature))): the embedding that a row of logits
 * expects (self-conditioning). The softmax is in fp32. */
typedef struct mb_soft_embed {
    const void *logits; /* [n][vocab] of T */
    int64_t n, vocab, width;
    const float *temperature; /* device: one number above 0 */
    const void *table;        /* [vocab][width] of T */
    float scale;
    void *out;     /* [n][width] of T */
    void *scratch; /* mb_soft_embed_scratch() bytes */
} mb_soft_embed;
static inline size_t mb_soft_embed_scratch(int64_t n, int64_t vocab)
{
    return ((size_t)n * (size_t)vocab + 64) * sizeof(float);
}

/* values = T(cap * tanh(values / cap)), in place. */
typedef struct mb_softcap {
    void *values; /* [n] of T */
    int64_t n;
    float cap; /* above 0 */
} mb_softcap;

/* With delta: x = T(x + delta), in place. With scale: x = T(x * *scale), in place. Then out = RMSNorm(x)*weight.
 */
typedef struct mb_rmsnorm {
    void *x;            /* [n][width] */
    const void *delta;  /* NULL, or [n][width] */
    const void *weight; /* NULL = T(x*rstd) */
    float eps;
    int32_t one_rounding; /* 0: T(w * T(x*rstd)) (Hugging Face, Qwen2/Fast-dLLM v2); 1: T(x*rstd*w) (SDAR) */
    int64_t n, width;
    void *out;         /* [n][width]; may be x */
    const void *scale; /* NULL, or one number of T */
    float factor;      /* 0 = none; else out is T(that * factor) */
} mb_rmsnorm;

/* out = T(a * weight^T + bias). */
typedef struct mb_gemm {
    const void *a, *weight; /* [m][k], [n][k] */
    const void *bias;       /* NULL, or [n] of T: added before rounding */
    int64_t m, n, k;
    void *out;         /* [m][n] */
    int32_t invariant; /* 1: a row of out has the same bits for every m; 0: the fastest way for this m */
} mb_gemm;

/* out[i][j] = T(T(act(gate)) * up). */
typedef struct mb_swiglu {
    const void *gate_up; /* [n][2*width] = gate | up */
    int64_t n, width;
    void *out; /* [n][width] */
    mb_activation activation;
} mb_swiglu;

/* Best token of each row of logits and its softmax probability; nothing else is written. */
typedef struct mb_top1 {
    const void *logits; /* [n][vocab] of T */
    int64_t n, vocab;
    mb_type confidence; /* MB_BF16, MB_F16: the probabilities are rounded to that type before the argmax (lowest id
                         * on ties) as the reference samplers do; MB_F32: argmax of the logits, lowest id */
    int32_t *ids;       /* [n] */
    float *probability; /* [n] */
} mb_top1;

/* Block-causal prefill of n new rows at positions first .. first+n-1 of one sequence, whose keys are already in
 * the cache: position i sees keys < (i/block+1)*block, as far as they exist: < first+n. With a window it sees none
 * below i - window + 1. */
typedef struct mb_prefill {
    mb_kv kv;
    int32_t sequence, query_heads;
    const void *q; /* [n][query_heads][head_dim] */
    int64_t first, n;
    int32_t block;
    void *out;      /* as q */
    int32_t window; /* 0 = none; a block is then 1 */
} mb_prefill;

/* Keys and values of n slots of a cache into another of as many sequences and heads, whose capacity may differ:
 * slot first + i of `from` becomes slot into + i of `to`. The two do not overlap. */
typedef struct mb_slots_copy {
    mb_kv from, to;
    int32_t first, into, n;
} mb_slots_copy;

/* ---- selection ---- */

/* Each of the G*rows rows of a KV head names its k best prefix keys by logit (ties: lower index). */
typedef struct mb_votes {
    mb_attention attention; /* lse is the input normaliser; mass_stride is the row stride of votes */
    int32_t k;
    float *votes;  /* [batch][kv_heads][mass_stride]: rows that name the key */
    float *stats;  /* [batch][kv_heads][2]: size of the union; mean over rows of the softmax mass it captures */
    void *scratch; /* votes_scratch() bytes */
} mb_votes;

/* Per-page channel bounds of the keys. */
typedef struct mb_page_bounds {
    mb_rows rows;
    mb_kv kv;
    int32_t page, page_capacity; /* tokens of a page; pages between two rows of bounds */
    int32_t whole;               /* 1: pages of [0, prefix_len); 0: only those that overlap the slots prefix_len ..
                                  * +block_keys-1 (their older keys included) */
    void *bounds;                /* [batch][kv_heads][page_capacity] of { max[head_dim], min[head_dim] } of T */
} mb_page_bounds;

/* Upper bound of q.k over a page, sum_c max(q_c M_c, q_c m_c), merged over the G*rows rows. */
typedef struct mb_page_scores {
    mb_attention attention; /* row_weight as there */
    int32_t page, page_capacity;
    const void *bounds; /* of page_bounds */
    mb_merge merge;
    float *scores; /* [batch][kv_heads][stride]; pages >= ceil(prefix_len/page) get -INFINITY */
    int64_t stride;
} mb_page_scores;

/* Linear scores without softmax: mean over rows of q.k over the channels listed. q_pre is never used. */
typedef struct mb_key_scores {
    mb_attention attention;
    const int32_t *channels; /* NULL = all of head_dim; else [kv_heads][channel_count] */
    int32_t channel_count;
    float *scores; /* [batch][kv_heads][stride] */
    int64_t stride;
} mb_key_scores;

/* Rows of scores: row (b, h) has an entry for each page of `page` tokens of the prefix, so
 * n_b = ceil(prefix_len[b] / page) of them. */
typedef struct mb_scores {
    float *values; /* [batch][kv_heads][stride]; only read where the operation does not say more */
    int64_t stride;
    int32_t batch, kv_heads;
    const int32_t *prefix_len; /* [batch], device */
    int32_t max_prefix;        /* host: an upper bound of prefix_len */
    int32_t page;              /* tokens of an entry; 1 = an entry for each token */
} mb_scores;

/* The min(k, n_b) best entries. Ties: lower index (+0 and -0 tie). NaN comes after every number; -INFINITY is
 * never chosen. */
typedef struct mb_top_k {
    mb_scores scores;
    int32_t k;
    const int32_t *k_dynamic; /* NULL, or [batch][kv_heads]: in place of k, clamped to the capacity */
    mb_page_set chosen;       /* written; granularity is scores.page */
    void *scratch;            /* top_k_scratch() bytes */
} mb_top_k;

/* The fewest entries, best first, that add up to p times the total (scores >= 0). */
typedef struct mb_top_p {
    mb_scores scores;
    float p;
    int32_t k_min, k_max; /* at least, at most so many */
    mb_page_set chosen;   /* as in mb_top_k, and scratch too */
    void *scratch;
} mb_top_p;

/* Entries [0, first) and [n_b - last, n_b) become value. */
typedef struct mb_score_edges {
    mb_scores scores;
    int32_t first, last;
    float value;
} mb_score_edges;

/* Scores per token into pages: over the page's tokens < prefix_len. SUM or MAX. */
typedef struct mb_score_pool {
    mb_scores scores; /* page 1 */
    int32_t page;
    mb_pooling pooling;
    float *out; /* [batch][kv_heads][out_stride] */
    int64_t out_stride;
} mb_score_pool;

/* 1-D smoothing along keys with an odd kernel, stride 1. Edges are shortened; PADDED: zeros stand beyond them. */
typedef struct mb_score_smooth {
    mb_scores scores;
    int32_t kernel;
    mb_pooling pooling; /* SUM, PADDED: the mean of the kernel's entries */
    float *out;         /* as scores.values, another array */
} mb_score_smooth;

/* y = a*x + b*y over n floats; an array whose factor is 0 is not read (x may then be NULL). */
typedef struct mb_score_axpby {
    float a;
    const float *x;
    float b;
    float *y;
    int64_t n;
} mb_score_axpby;

/* What each prefix key is by itself (small norms: arXiv 2406.11430; small cosines: KeyDiff, arXiv 2504.15364). */
typedef struct mb_key_measures {
    mb_scores scores; /* page 1; written */
    mb_kv kv;
    mb_key_measure measure;
    float *mean; /* [batch][kv_heads][head_dim]: the mean, of unit keys for the cosine; NULL with MB_KEY_NORM */
} mb_key_measures;

/* Entries first, first + every, first + 2*every ... below prefix_len become value. */
typedef struct mb_score_every {
    mb_scores scores; /* page 1 */
    int32_t every, first;
    float value;
} mb_score_every;

/* Uniform [0,1) from a counter hash of (seed, token): equal on every device and every head. */
typedef struct mb_score_random {
    mb_scores scores; /* page 1; prefix_len is not read: max_prefix entries are written */
    uint64_t seed;
} mb_score_random;

/* Scores of entries j < prefix_len[b] below `below` become value*(j+1)/(prefix_len[b]+1): ranked by recency. */
typedef struct mb_score_recent {
    mb_scores scores; /* page 1 */
    float below, value;
} mb_score_recent;

/* Scores of prefix keys that are not in a page of kept become value; a count of -1 keeps all. */
typedef struct mb_score_keep {
    mb_scores scores; /* page 1 */
    mb_page_set kept;
    float value;
} mb_score_keep;

/* ---- budgets that the device computes: entries for each (sequence, KV head), for mb_top_k.k_dynamic ---- */

/* min(n_b, floor(ratio*n_b) + extra), computed in double. */
typedef struct mb_budget_ratio {
    mb_scores scores; /* values are not read */
    double ratio;
    int32_t extra;
    int32_t *budgets; /* [batch][kv_heads] */
} mb_budget_ratio;

/* A mean budget of k entries shared among layers: s[l] = max over heads of union*(1 - ln coverage), budget =
 * min(k_max, max(k_min, floor(s[l] / sum(s) * k * layers))), in double; k_max for all layers of a sequence with
 * prefix_len <= k. Coverage is taken as at least 1e-30, at most 1. */
typedef struct mb_budget_layers {
    mb_scores scores;   /* values are not read */
    const float *stats; /* [layers][batch][kv_heads][2] of votes */
    int32_t layers, k, k_min, k_max;
    int32_t *budgets; /* [layers][batch][kv_heads] */
} mb_budget_layers;

/* k*kv_heads entries of a sequence shared among its heads: each gets its min(k_min, n_b) best, the rest goes to
 * the best remaining scores of all heads (ties: lower head; NaN and -INFINITY never). */
typedef struct mb_budget_heads {
    mb_scores scores; /* page 1 */
    int32_t k, k_min;
    int32_t *budgets; /* [batch][kv_heads] */
    void *scratch;    /* kv_heads*max_prefix*12 bytes */
} mb_budget_heads;

/* ---- states over disjoint key sets ---- */

/* state_merge: out = a and b together. state_downdate: out = a without b, with guards where little is left. out
 * may alias a or b; its lse may be NULL. */
typedef struct mb_state_pair {
    int64_t states;
    int32_t head_dim;
    mb_state a, b, out;
} mb_state_pair;

/* distance[i] = sum_c (a[i][c]-b[i][c])^2 and norm[i] = sum_c b[i][c]^2. */
typedef struct mb_row_distance {
    const void *a, *b; /* [n][head_dim] of T */
    int64_t n;
    int32_t head_dim;
    float *distance, *norm; /* [n]; norm may be NULL */
} mb_row_distance;

/* Prefix keys that the active KV heads (NULL = all) read of pages (NULL or a count of -1 = the whole prefix),
 * summed over (sequence, KV head). */
typedef struct mb_key_count {
    mb_rows rows;
    int32_t kv_heads;
    const mb_page_set *pages;
    const int32_t *active; /* [batch][kv_heads] */
    double *tokens;        /* device: [0] grows by the keys read; count_work: [1] by all prefix keys */
} mb_key_count;

/* ---- reuse of states between forwards ---- */

/* Rows are query-shaped: vectors [batch][rows][query_heads][head_dim] of T, numbers [batch][rows][query_heads]. */
typedef struct mb_row_shape {
    int32_t batch, rows, query_heads, kv_heads, head_dim;
} mb_row_shape;

typedef struct mb_reuse_decide {
    mb_row_shape shape; /* head_dim is not used */
    mb_reuse reuse;
} mb_reuse_decide;

/* dst = src for rows whose KV head is active and which are missed (NULL: all are). */
typedef struct mb_rows_copy {
    mb_row_shape shape;
    const int32_t *active, *missed;
    const void *src;
    const float *src_lse; /* either of the two NULL: only the vectors */
    void *dst;
    float *dst_lse;
} mb_rows_copy;

/* chosen = 1 for the `count` rows of a sequence with the largest sum over query heads of distance (ties: lower
 * row; NaN counts as largest), else 0. */
typedef struct mb_row_top {
    mb_row_shape shape; /* kv_heads and head_dim are not used */
    const float *distance;
    int32_t count;
    int32_t *chosen;
} mb_row_top;

/* The nearest of ring.q to each row of a, same sequence and query head. */
typedef struct mb_ring_match {
    mb_row_shape shape; /* kv_heads is not used */
    const void *a;
    mb_state_ring ring;
    int32_t any;            /* 1: over all rows of the filled blocks; 0: over the row at the same place */
    int32_t *slot;          /* block*rows + row (ties: younger block, lower row); -1 where there is none */
    float *distance, *norm; /* squared, of the stored vector; INFINITY and 0 where there is none */
} mb_ring_match;

/* out, lse = what the ring holds at slot; slot -1: 0 and -INFINITY. */
typedef struct mb_ring_gather {
    mb_row_shape shape; /* kv_heads is not used */
    const int32_t *slot;
    mb_state_ring ring;
    void *out;
    float *lse;
} mb_ring_gather;

typedef struct mb_ring_reach {
    mb_row_shape shape; /* head_dim is not used */
    mb_state_ring ring;
    mb_reach reach;
} mb_ring_reach;

#include "kernels/estimate.h"

/* ---- all operations: X(name, its arguments) ---- */

/* The one list. The table below, the backends' declarations and tables, the names and numbers of the tests' and
 * the benchmark's cases come from it. */
#define MB_OPERATIONS(X)                                                                                          \
    X(embed, mb_embed)                                                                                            \
    X(add_rmsnorm, mb_rmsnorm)                                                                                    \
    X(gemm, mb_gemm)                                                                                              \
    X(qkv_finish, mb_qkv)                                                                                         \
    X(swiglu, mb_swiglu)                                                                                          \
    X(soft_embed, mb_soft_embed)                                                                                  \
    X(softcap, mb_softcap)                                                                                        \
    X(route, mb_router)    /* a router's choice */                                                                \
    X(experts, mb_experts) /* what the chosen experts make of the rows */                                         \
    X(top1, mb_top1)                                                                                              \
    X(attend, mb_attention)        /* exact, over scope */                                                        \
    X(attend_sparse, mb_attention) /* over pages and, with MB_SCOPE_ALL, the whole block, in one softmax */       \
    X(attend_prefill, mb_prefill)                                                                                 \
    X(slots_copy, mb_slots_copy)                                                                                  \
    X(mass, mb_attention) /* block-average attention mass: see mb_attention */                                    \
    X(votes, mb_votes)                                                                                            \
    X(page_bounds, mb_page_bounds)                                                                                \
    X(page_scores, mb_page_scores)                                                                                \
    X(key_scores, mb_key_scores)                                                                                  \
    X(key_measures, mb_key_measures)                                                                              \
    X(top_k, mb_top_k)                                                                                            \
    X(top_p, mb_top_p)                                                                                            \
    X(score_edges, mb_score_edges)                                                                                \
    X(score_pool, mb_score_pool)                                                                                  \
    X(score_smooth, mb_score_smooth)                                                                              \
    X(score_axpby, mb_score_axpby)                                                                                \
    X(score_head_mean, mb_scores) /* mean over the KV heads, written to every head; page 1 */                     \
    X(score_random, mb_score_random)                                                                              \
    X(score_recent, mb_score_recent)                                                                              \
    X(score_every, mb_score_every)                                                                                \
    X(score_keep, mb_score_keep)                                                                                  \
    X(budget_ratio, mb_budget_ratio)                                                                              \
    X(budget_layers, mb_budget_layers)                                                                            \
    X(budget_heads, mb_budget_heads)                                                                              \
    X(state_merge, mb_state_pair)                                                                                 \
    X(state_downdate, mb_state_pair)                                                                              \
    X(row_distance, mb_row_distance)                                                                              \
    X(count_work, mb_key_count) /* what a forward read, and what it could have read */                            \
    X(count_read, mb_key_count) /* what was read once more */                                                     \
    X(query_pick, mb_query_pick)                                                                                  \
    X(key_pick, mb_key_pick)                                                                                      \
    X(tile_gaps, mb_tile_gaps)                                                                                    \
    X(score_spread, mb_score_spread)                                                                              \
    X(score_interleave, mb_score_interleave)                                                                      \
    X(heavy_channels, mb_heavy_channels)                                                                          \
    X(reuse_decide, mb_reuse_decide)                                                                              \
    X(rows_copy, mb_rows_copy)                                                                                    \
    X(row_top, mb_row_top)                                                                                        \
    X(ring_match, mb_ring_match)                                                                                  \
    X(ring_gather, mb_ring_gather)                                                                                \
    X(ring_reach, mb_ring_reach)

typedef struct mb_kernels {
    const char *name; /* "cpu", "cuda" */

    /* ---- device ---- */
    /* 0 and *device, or negative with one sentence in err. The only place that may create memory pools. */
    int (*open)(mb_device **device, const mb_device_options *options, mb_error *err);
    void (*close)(mb_device *device);
    void (*info)(mb_device *device, mb_device_info *info);
    const char *(*error)(mb_device *device); /* text of the last failure, never NULL */
    /* Bump allocation from the arena, 256-byte aligned and zeroed; NULL when the arena is used up (the
     * caller planned it, so that is a bug in the plan). mark/release free in LIFO order. */
    void *(*alloc)(mb_device *device, size_t bytes);
    size_t (*mark)(mb_device *device);
    void (*release)(mb_device *device, size_t mark);
    int (*upload)(mb_device *device, void *dst, const void *host, size_t bytes);   /* returns after the copy */
    int (*download)(mb_device *device, void *host, const void *src, size_t bytes); /* waits for the device */
    int (*copy)(mb_device *device, void *dst, const void *src, size_t bytes);      /* device to device */
    int (*fill)(mb_device *device, void *dst, int byte, size_t bytes);
    int (*sync)(mb_device *device);

    /* ---- graphs and clocks ---- */
    /* Between begin and end nothing runs; end hands out a graph. A backend without graphs has NULL here. */
    int (*capture_begin)(mb_device *device);
    int (*capture_end)(mb_device *device, mb_graph **graph);
    /* Inside a capture, what is enqueued between branch_begin and branch_end may run beside what follows
     * branch_end, until branch_join: neither side may write what the other touches; gemm and top1, which share
     * work memory, stay outside the branch, attention inside. One branch at a time. Outside a capture, and with
     * nothing to join, these do nothing: everything stays in order. NULL without graphs. */
    int (*branch_begin)(mb_device *device);
    int (*branch_end)(mb_device *device);
    int (*branch_join)(mb_device *device);
    int (*graph_launch)(mb_device *device, mb_graph *graph);
    void (*graph_free)(mb_device *device, mb_graph *graph);
    int (*timer_mark)(mb_device *device, int slot); /* event in the stream; host clock on the CPU */
    int (*timer_elapsed)(mb_device *device, int from, int to, double *us); /* waits for `to` */
    void (*range_push)(mb_device *device, const char *name);               /* NVTX; nothing on CPU */
    void (*range_pop)(mb_device *device);

    /* ---- operations ---- */
#define MB_OPERATION_ENTRY(name, arguments) int (*name)(mb_device *, const arguments *);
    MB_OPERATIONS(MB_OPERATION_ENTRY)
#undef MB_OPERATION_ENTRY
    /* Bytes of scratch of two of them: votes, whose other arguments count; top_k and top_p over rows of up to
     * `entries`. */
    size_t (*votes_scratch)(const mb_attention *args, int32_t k);
    size_t (*top_k_scratch)(int32_t batch, int32_t kv_heads, int32_t entries);

    /* ---- looking at the device; NULL where a backend cannot ---- */
    int (*telemetry)(mb_device *device, mb_telemetry *telemetry);
    /* Records every kernel between begin and end; both wait for the device. Kernels of a graph replay get their
     * parts from the last profile of the same operations run one by one: order and names must agree, or end says
     * so. *records malloc'ed, in order of start. MB_E_INPUT where no profiler can be had (another one is attached,
     * CUPTI is missing): the caller then has no breakdown and says why. Dropped records are an error. */
    int (*profile_begin)(mb_device *device);
    int (*profile_end)(mb_device *device, mb_kernel_record **records, size_t *count);
    /* The CUDA stream that everything is enqueued on; NULL where a backend has none. */
    void *(*stream)(mb_device *device);
    const mb_link *link; /* sums over several devices (comm.h); NULL where a backend has none */
} mb_kernels;

/* The CPU backend: the reference. Always there. */
const mb_kernels *mb_kernels_cpu(void);
/* The CUDA backend, or NULL when this build has none. */
const mb_kernels *mb_kernels_cuda(void);
/* Number of usable CUDA devices; 0 with a reason ("this build has no CUDA", "no driver", ...) in why. */
int mb_cuda_device_count(mb_error *why);

/* "gemm", "dense attention", ...: a part as it is stored and drawn. */
const char *mb_part_name(mb_part part);

/* "auto", "cpu", "cuda", "cuda:N": opens the backend. *kernels and *device are set together. auto falls back to
 * the CPU and says why in note. */
int mb_device_open(const char *spec, const mb_device_options *options, const mb_kernels **kernels,
                   mb_device **device, mb_error *note, mb_error *err);

#ifdef __cplusplus
}
#endif
#endif
