/*
 * kernels.h - the one table of operations that everything numerical goes through.
 *
 * A backend (kernels/cpu, kernels/cuda) fills struct mb_kernels; the model and, through it, the attention
 * methods call nothing else. This room knows no model and no method: it sees tensors, a KV cache, row ranges.
 *
 * Rules every operation keeps
 *  - Arguments are device pointers unless the comment says "host". Shapes are in elements, row-major.
 *  - Storage type T is MB_F32 or MB_BF16, one per device (mb_device_options.type). Every operator output is
 *    rounded to T; accumulation is fp32. Statistics (log-sum-exp, masses, scores) are always fp32.
 *  - Log-sum-exp is natural; an empty set of keys gives output 0 and log-sum-exp -INFINITY.
 *  - Operations are enqueued in order. None allocates and none waits for the device, except where stated, so a
 *    CUDA graph can capture them; they read lengths from device memory so that a replay sees new values.
 *  - Bit-equal from run to run on the same device and arguments, whatever the number of threads.
 *  - They return 0 or a negative MB_E_* code; the text is in mb_kernels.error(device).
 */
#ifndef MB_KERNELS_H
#define MB_KERNELS_H

#include "base/base.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mb_type { MB_F32 = 0, MB_BF16 = 1, MB_F16 = 2, MB_I32 = 3 } mb_type;

/* Bytes of one element of a type. */
static inline size_t mb_type_size(mb_type type)
{
    return type == MB_BF16 || type == MB_F16 ? 2 : 4;
}

typedef struct mb_device mb_device; /* opaque: one CPU thread pool or one GPU with its stream and arena */
typedef struct mb_graph mb_graph;   /* opaque: a captured sequence of operations */

typedef struct mb_device_options {
    mb_type type;       /* storage type T of activations and KV cache */
    int threads;        /* CPU: worker threads, 0 = all cores this process may use */
    int ordinal;        /* CUDA: device number */
    size_t arena_bytes; /* what alloc() may hand out in all; the CPU only reserves address space. 0: as much as
                         * there is (a GPU keeps 1 GiB back for graphs and libraries) */
    size_t spare_bytes; /* with arena_bytes 0 a GPU leaves these free as well, for other processes */
} mb_device_options;

typedef struct mb_device_info {
    char name[128];      /* "NVIDIA H200", "AMD EPYC ..." */
    char detail[256];    /* driver, compute capability, SM count; or ISA and threads */
    size_t memory_total; /* bytes */
    size_t memory_free;  /* bytes, now */
    size_t arena_free;   /* bytes that alloc() can still hand out */
} mb_device_info;

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

/* A selection of prefix keys for each (sequence, KV head): `count` pages of `granularity` consecutive keys.
 * Page p covers keys p*granularity .. min((p+1)*granularity, prefix_len)-1. ids ascend and are distinct.
 * count -1 means all of the prefix (a batch may mix dense and sparse entries in one launch). */
typedef struct mb_pages {
    int32_t granularity;   /* 1, 16, 32, 64 or 128 tokens */
    int32_t capacity;      /* entries reserved per (sequence, KV head) */
    const int32_t *ids;    /* [batch][kv_heads][capacity], device */
    const int32_t *counts; /* [batch][kv_heads], device */
} mb_pages;

/* Which keys a dense attention covers. */
typedef enum mb_span {
    MB_SPAN_ALL = 0,    /* prefix and current block: the exact attention of a step */
    MB_SPAN_PREFIX = 1, /* prefix only: the state a method may keep and reuse */
    MB_SPAN_BLOCK = 2   /* current block only */
} mb_span;

/* States of earlier blocks, as many rows each as a call has: arrays [batch][rows][query_heads] of a block begin
 * `pitch` states behind those of the one before. ages: device [blocks], 0 = not filled, else blocks ago. */
typedef struct mb_state_ring {
    int32_t blocks;
    int64_t pitch;
    const uint8_t *ages;
    const void *q, *out;
    const float *lse;
} mb_state_ring;

/* Attention of packed block rows. q, out: [batch][rows][query_heads][head_dim] of T; scale head_dim^-0.5.
 * Query head a reads KV head a / (query_heads / kv_heads). */
typedef struct mb_attention {
    mb_rows rows;
    mb_kv kv;
    int32_t query_heads;
    const void *q;
    mb_span span;
    const int32_t *active; /* NULL, or [batch][kv_heads]: 0 = leave everything of this KV head untouched */
    const mb_pages *pages; /* attend_sparse: the prefix keys; NULL for attend */
    void *out;             /* NULL = the log-sum-exp only */
    float *lse;            /* NULL, or [batch][rows][query_heads] over the covered keys */
    /* Optional by-products of attend (span ALL or PREFIX), over prefix keys; NULL = not wanted. */
    float *mass;      /* [batch][kv_heads][mass_stride]: see mb_kernels.mass */
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
    int32_t norm_one_rounding; /* as in mb_kernels.add_rmsnorm */
    int32_t rotary_dim;        /* how many dimensions turn, pairs j and j + rotary_dim/2; even; 0 = head_dim */
    const float *cos_sin;      /* [positions][rotary_dim]: cos of rotary_dim/2 angles, then sin; rounded to T */
    void *q_out;               /* [batch][rows][query_heads][head_dim] after RoPE */
    void *q_pre;               /* NULL, or the same shape before RoPE (after q-norm) */
} mb_qkv;

/* ---- mixture of experts (models.md 4.2, 5.3) ---- */

/* How the logits of a router become scores. */
typedef enum mb_score {
    MB_SCORE_SOFTMAX = 0, /* over all experts (Qwen3-MoE, SDAR-MoE) */
    MB_SCORE_SIGMOID = 1  /* each expert by itself (LLaDA2) */
} mb_score;

/* Experts for each of n rows. z = hidden * weight^T in fp32, s = score(z) in fp32, choice c = s + bias. With
 * groups the experts are that many equal stretches; a group counts the sum of its two largest c (its only one,
 * where a group is one expert); only the groups_kept best groups compete. The top_k largest c win. Ties, of groups
 * and of experts: lower index; NaN comes after every number. A winner weighs s (bias never counts), divided by the
 * winners' sum + 1e-20 when normalise, then times scale, in fp32. */
typedef struct mb_router {
    int64_t n, width;
    int32_t experts, top_k;      /* up to MB_EXPERTS_MAX; up to MB_TOP_EXPERTS_MAX and the experts that compete */
    int32_t groups, groups_kept; /* 1, 1 = no groups; groups divides experts */
    mb_score score;
    int32_t round_logits;  /* z is rounded to T first, as a linear layer of T does */
    int32_t round_weights; /* the weights are rounded to T */
    int32_t normalise;
    float scale;
    const void *hidden; /* [n][width] of T */
    const void *weight; /* [experts][width] of T */
    const float *bias;  /* [experts] fp32, or NULL */
    float *logits;      /* [n][experts]: z; also the operation's scratch */
    int32_t *ids;       /* [n][top_k], by falling c */
    float *weights;     /* [n][top_k] */
} mb_router;

#define MB_EXPERTS_MAX 1024
#define MB_TOP_EXPERTS_MAX 32

/* How the outputs of a row's experts are added up. */
typedef enum mb_combine {
    MB_COMBINE_SUM = 0,  /* y = T(sum of weight * output in fp32), in the order of the row's list (LLaDA2) */
    MB_COMBINE_STEPS = 1 /* y = T(y + T(weight * output)), by rising expert, from 0 (Qwen3-MoE, SDAR-MoE) */
} mb_combine;

/* The feed-forward layer of the chosen experts: expert e maps a row h to T(m * down[e]^T) with
 * m = T(T(silu(T(h * gate[e]^T))) * T(h * up[e]^T)). out = y, or T(y + add); out may be add. Weights of an expert
 * that no row chose are not read. */
typedef struct mb_experts {
    int64_t n, width;             /* rows; H */
    int32_t experts, top_k, size; /* size: I, the inner width of one expert */
    mb_combine combine;
    const void *hidden;   /* [n][width] of T */
    const int32_t *ids;   /* [n][top_k], distinct in a row */
    const float *weights; /* [n][top_k] */
    const void *gate_up;  /* [experts][2*size][width] of T: gate rows, then up rows */
    const void *down;     /* [experts][width][size] of T */
    const void *add;      /* NULL, or [n][width] of T */
    void *out;            /* [n][width] of T; not hidden */
    void *scratch;        /* mb_experts_scratch() bytes */
} mb_experts;

/* Bytes of the three parts of an expert layer's scratch, each a multiple of 256: which pairs (row, place in its
 * list) an expert has; inner activations; outputs of the pairs. The same for every backend, so that a plan needs
 * no device. */
static inline size_t mb_experts_lists_bytes(int64_t n, int32_t experts, int32_t top_k)
{
    return ((size_t)experts + 1 + (size_t)n * (size_t)top_k + 63) / 64 * 256;
}
static inline size_t mb_experts_inner_bytes(int64_t n, int32_t top_k, int32_t size, mb_type type)
{
    size_t rows = (size_t)n * (size_t)(top_k > 3 ? top_k : 3); /* the CPU: gate, up and product of one expert */
    return (rows * (size_t)size * mb_type_size(type) + 255) / 256 * 256;
}
static inline size_t mb_experts_scratch(int64_t n, int64_t width, int32_t experts, int32_t top_k, int32_t size,
                                        mb_type type)
{
    size_t outputs = ((size_t)n * (size_t)top_k * (size_t)width * mb_type_size(type) + 255) / 256 * 256;
    return mb_experts_lists_bytes(n, experts, top_k) + mb_experts_inner_bytes(n, top_k, size, type) + outputs;
}

/* How page bounds of several query rows become one score per page and KV head (methods.md 2.7). */
typedef enum mb_merge {
    MB_MERGE_MEAN = 0,   /* mean over rows of the bound */
    MB_MERGE_MAX = 1,    /* max over rows of the bound */
    MB_MERGE_QUERY = 2,  /* bound of the mean query: cheapest */
    MB_MERGE_SOFTMAX = 3 /* softmax over pages of scale*bound per row, then mean */
} mb_merge;

#define MB_TIMER_SLOTS 64

/* What a GPU kernel was for: the stacked parts of a breakdown. */
typedef enum mb_part {
    MB_PART_GEMM = 0,
    MB_PART_DENSE_ATTENTION = 1, /* exact attention over the prefix (and block), prefill */
    MB_PART_SELECTION = 2,       /* masses, scores, bounds, top-k */
    MB_PART_SPARSE_ATTENTION = 3,
    MB_PART_BLOCK_ATTENTION = 4, /* the block on its own keys, merges of states */
    MB_PART_ELEMENTWISE = 5,     /* embedding, norms, RoPE, SwiGLU */
    MB_PART_SAMPLER = 6,         /* best token, probabilities */
    MB_PART_COPY = 7,            /* copies and fills */
    MB_PART_METHOD = 8,          /* kernels that a method brought itself */
    MB_PART_COUNT = 9
} mb_part;

/* One kernel that ran while a profile was open. */
typedef struct mb_kernel_record {
    char name[96];
    double start_us, end_us; /* on the device's clock, from the first kernel of the profile */
    mb_part part;
} mb_kernel_record;

/* State of the device around a timed sample. */
typedef struct mb_telemetry {
    int32_t sm_mhz, sm_reference_mhz; /* 0 = unknown; reference: the highest clock that applications get */
    int64_t throttle;                 /* NVML's bit mask of reasons, -1 = unknown */
    double temperature, power;        /* Celsius, watt; NAN = unknown */
    int32_t other_processes;          /* that compute on this device, -1 = unknown */
} mb_telemetry;

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

    /* ---- transformer ---- */
    /* out[i] = table[ids[i]]; ids [n] int32, table [vocab][width] of T, out [n][width]. */
    int (*embed)(mb_device *, const int32_t *ids, int64_t n, const void *table, int64_t vocab, int64_t width,
                 void *out);
    /* If delta: x = T(x + delta), in place. Then out = RMSNorm(x)*weight. one_rounding 0: T(w * T(x*rstd))
     * (Hugging Face, Qwen2/Fast-dLLM v2); 1: T(x*rstd*w) (SDAR's fused kernel). x, delta, out [n][width]. */
    int (*add_rmsnorm)(mb_device *, void *x, const void *delta, const void *weight, float eps, int one_rounding,
                       int64_t n, int64_t width, void *out);
    /* out[m][n] = T(a[m][k] * weight[n][k]^T + bias[n]); bias NULL or [n] of T, added before rounding. */
    int (*gemm)(mb_device *, const void *a, const void *weight, const void *bias, int64_t m, int64_t n, int64_t k,
                void *out);
    int (*qkv_finish)(mb_device *, const mb_qkv *args);
    /* out[i][j] = T(T(silu(gate)) * up) with gate_up [n][2*width] = gate | up. */
    int (*swiglu)(mb_device *, const void *gate_up, int64_t n, int64_t width, void *out);
    /* A router's choice, and what the chosen experts make of the rows. */
    int (*route)(mb_device *, const mb_router *args);
    int (*experts)(mb_device *, const mb_experts *args);
    /* Best token and its softmax probability per row of logits [n][vocab] of T, nothing else written.
     * confidence MB_BF16/MB_F16: the probabilities are rounded to that type before the argmax (lowest id on
     * ties) as the reference samplers do (models.md 2.7); MB_F32: argmax of the logits, lowest id. */
    int (*top1)(mb_device *, const void *logits, int64_t n, int64_t vocab, mb_type confidence, int32_t *ids,
                float *probability);

    /* ---- attention ---- */
    /* Exact attention over span, all G*rows query rows of a KV head against each KV tile. */
    int (*attend)(mb_device *, const mb_attention *args);
    /* Over args->pages of the prefix and, with span ALL, the whole current block, in one softmax.
     * span PREFIX leaves the block out. */
    int (*attend_sparse)(mb_device *, const mb_attention *args);
    /* Block-causal prefill of n new rows at positions first .. first+n-1 of sequence `sequence`, whose keys are
     * already in the cache: position i sees keys < (i/block+1)*block, as far as they exist: < first+n.
     * q, out [n][query_heads][head_dim]. */
    int (*attend_prefill)(mb_device *, const mb_kv *kv, int32_t sequence, int32_t query_heads, const void *q,
                          int64_t first, int64_t n, int32_t block, void *out);

    /* ---- selection ---- */
    /* Block-average attention mass: mass[b][h][j] = sum_r w[r] exp(s[r,j] - lse[r]) / sum_r w[r]
     * over the G*rows query rows of KV head h and prefix keys j. args->lse is an INPUT here; its span decides
     * the normaliser. args->mass receives; entries j >= prefix_len get 0 up to max_prefix rounded up to 64. */
    int (*mass)(mb_device *, const mb_attention *args);
    /* Votes: each of the G*rows rows names its top `k` prefix keys by logit (ties: lower index).
     * votes[b][h][j] = number of rows naming j; stats[b][h] = { |union|, mean over rows of the softmax mass
     * that the union captures (args->lse is the input normaliser) }. scratch: votes_scratch() bytes. */
    int (*votes)(mb_device *, const mb_attention *args, int32_t k, float *votes, float *stats, void *scratch);
    size_t (*votes_scratch)(const mb_attention *args, int32_t k);
    /* Per-page channel bounds of the keys: bounds[b][h][p] = { max[head_dim], min[head_dim] } of T, page of
     * `page` tokens, stride page_capacity pages. whole: pages of [0, prefix_len); else only pages that overlap
     * the slots prefix_len .. prefix_len+block_keys-1 (their older keys included). */
    int (*page_bounds)(mb_device *, const mb_rows *rows, const mb_kv *kv, int32_t page, int32_t page_capacity,
                       int whole, void *bounds);
    /* Upper bound of q.k over a page, sum_c max(q_c M_c, q_c m_c), merged over the G*rows rows: scores[b][h][p],
     * stride score_stride; pages >= ceil(prefix_len/page) get -INFINITY. row_weight as in mb_attention. */
    int (*page_scores)(mb_device *, const mb_attention *args, int32_t page, int32_t page_capacity,
                       const void *bounds, mb_merge merge, float *scores, int64_t score_stride);
    /* Linear scores without softmax: scores[b][h][j] = mean over rows of q . k over the channels listed.
     * channels NULL = all head_dim; else [kv_heads][channel_count]. q_pre is never used. */
    int (*key_scores)(mb_device *, const mb_attention *args, const int32_t *channels, int32_t channel_count,
                      float *scores, int64_t score_stride);
    /* The min(k, n) best of scores[b][h][0 .. n_b): n_b = ceil(prefix_len[b]/page). Ties: lower index (+0 and
     * -0 tie). NaN comes after every number. -INFINITY is never chosen. ids ascend; counts = how many.
     * k_dynamic NULL or [batch][kv_heads]: replaces k (clamped to capacity). scratch: top_k_scratch() bytes. */
    int (*top_k)(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                 const int32_t *prefix_len, int32_t max_prefix, int32_t page, int32_t k, const int32_t *k_dynamic,
                 int32_t capacity, int32_t *ids, int32_t *counts, void *scratch);
    size_t (*top_k_scratch)(int32_t batch, int32_t kv_heads, int32_t max_entries);
    /* The fewest pages, best first, whose scores add up to p times the total (scores >= 0), at least k_min and
     * at most k_max of them. Same outputs and scratch as top_k. */
    int (*top_p)(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                 const int32_t *prefix_len, int32_t max_prefix, int32_t page, float p, int32_t k_min,
                 int32_t k_max, int32_t capacity, int32_t *ids, int32_t *counts, void *scratch);
    /* scores of entries [0, first_n) and [n_b - last_n, n_b) become value; n_b = ceil(prefix_len/page). */
    int (*score_edges)(mb_device *, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                       const int32_t *prefix_len, int32_t page, int32_t first_n, int32_t last_n, float value);
    /* Pool scores per token into pages: out[b][h][p] = sum (mode 0), max (1) over the page's tokens < n. */
    int (*score_pool)(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                      const int32_t *prefix_len, int32_t max_prefix, int32_t page, int32_t mode, float *out,
                      int64_t out_stride);
    /* 1-D smoothing along keys, odd kernel, stride 1, edges shortened: mode 0 mean, 1 max. out != scores. */
    int (*score_smooth)(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                        const int32_t *prefix_len, int32_t max_prefix, int32_t kernel, int32_t mode, float *out);
    /* y = a*x + b*y over n floats; an array whose factor is 0 is not read (x may then be NULL). */
    int (*score_axpby)(mb_device *, float a, const float *x, float b, float *y, int64_t n);
    /* Mean over the KV heads, written to every head. */
    int (*score_head_mean)(mb_device *, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                           const int32_t *prefix_len, int32_t max_prefix);
    /* scores[b][h][j] = uniform [0,1) from a counter hash of (seed, j): equal on every device and every head. */
    int (*score_random)(mb_device *, uint64_t seed, int32_t batch, int32_t kv_heads, int32_t max_prefix,
                        float *scores, int64_t score_stride);

    /* ---- states (output, log-sum-exp) over disjoint key sets, methods.md 0.4 ---- */
    /* out = merge(a, b). All o: [batch][rows][query_heads][head_dim] of T (or fp32 where o_type says so),
     * lse [batch][rows][query_heads]. out may alias a or b. */
    int (*state_merge)(mb_device *, int64_t states, int32_t head_dim, const void *o_a, mb_type type_a,
                       const float *lse_a, const void *o_b, mb_type type_b, const float *lse_b, void *o_out,
                       mb_type type_out, float *lse_out);
    /* rest = total minus part; see methods.md 0.4 (b) for the guards. o_rest fp32 or T by type_rest. */
    int (*state_downdate)(mb_device *, int64_t states, int32_t head_dim, const void *o_total, mb_type type_total,
                          const float *lse_total, const void *o_part, mb_type type_part, const float *lse_part,
                          void *o_rest, mb_type type_rest, float *lse_rest);
    /* distance[i] = sum_c (a[i][c]-b[i][c])^2 and norm[i] = sum_c b[i][c]^2 over n vectors of head_dim (T). */
    int (*row_distance)(mb_device *, const void *a, const void *b, int64_t n, int32_t head_dim, float *distance,
                        float *norm);
    /* Counts what a forward read: tokens[0] += sum over (b, h) of prefix keys in pages (prefix_len when pages is
     * NULL or count is -1), tokens[1] += sum over (b, h) of prefix_len. tokens: 2 doubles. */
    int (*count_work)(mb_device *, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages, double *tokens);

    /* ---- ranking by recency, budgets that the device computes ---- */
    /* Scores of entries j < prefix_len[b] below `below` become value*(j+1)/(prefix_len[b]+1). */
    int (*score_recent)(mb_device *, float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                        const int32_t *prefix_len, int32_t max_prefix, float below, float value);
    /* budgets[b][h] = min(n_b, floor(ratio*n_b) + extra), n_b = ceil(prefix_len/page); computed in double. */
    int (*budget_ratio)(mb_device *, int32_t batch, int32_t kv_heads, const int32_t *prefix_len, int32_t page,
                        double ratio, int32_t extra, int32_t *budgets);
    /* stats [layers][batch][kv_heads][2] as votes() writes them; s[l] = max over heads of union*(1 - ln coverage);
     * budgets[l][b][h] = min(k_max, max(k_min, floor(s[l] / sum(s) * k * layers))), in double; k_max for all
     * layers of a sequence with prefix_len <= k. Coverage is taken as at least 1e-30, at most 1. */
    int (*budget_layers)(mb_device *, const float *stats, int32_t layers, int32_t batch, int32_t kv_heads,
                         const int32_t *prefix_len, int32_t k, int32_t k_min, int32_t k_max, int32_t *budgets);
    /* k*kv_heads entries of a sequence shared among its heads: each gets its min(k_min, n_b) best, the rest goes
     * to the best remaining scores of all heads (ties: lower head; NaN and -INFINITY never). n_b = prefix_len.
     * scratch: 12 bytes for every score of a sequence, kv_heads*max_prefix*12. */
    int (*budget_heads)(mb_device *, const float *scores, int64_t score_stride, int32_t batch, int32_t kv_heads,
                        const int32_t *prefix_len, int32_t max_prefix, int32_t k, int32_t k_min, int32_t *budgets,
                        void *scratch);
    /* Scores of prefix keys that are not in pages (granularity 1) become value; count -1 keeps all. */
    int (*score_keep)(mb_device *, const mb_pages *pages, int32_t batch, int32_t kv_heads,
                      const int32_t *prefix_len, int32_t max_prefix, float value, float *scores,
                      int64_t score_stride);

    /* ---- reuse of states between forwards ---- */
    /* channels [kv_heads][count], ascending: the `count` with the largest sum over sequences of (sum over the
     * head's G*rows query rows of |q_c|) * (sum over prefix keys of |k_c|); ties: lower channel. scratch:
     * kv_heads*head_dim floats. */
    int (*heavy_channels)(mb_device *, const mb_attention *args, int32_t count, int32_t *channels, void *scratch);
    /* A row (b, r, a) misses unless distance < threshold, or with relative distance < threshold*norm; NaN misses.
     * active[b][h] = -1 where more than share*rows*G rows of KV head h miss, else 0. missed NULL or
     * [batch][rows][query_heads]. counts NULL, or 4 doubles += rows that hit, rows, active heads, heads. groups
     * NULL, or 3 doubles += heads whose rows all hit, some of whose rows hit, none of whose rows hits. */
    int (*reuse_decide)(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                        const float *distance, const float *norm, float threshold, int relative, float share,
                        int32_t *active, int32_t *missed, double *counts, double *groups);
    /* dst = src for rows whose KV head is active and which are missed (NULL: all); lse NULL: only the vectors. */
    int (*rows_copy)(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                     int32_t head_dim, const int32_t *active, const int32_t *missed, const void *src,
                     const float *src_lse, void *dst, float *dst_lse);
    /* For each row of a [batch][rows][query_heads][head_dim] the nearest of ring [batch][slots][query_heads]
     * [head_dim], same query head: slot (ties: lower), squared distance, squared norm of the stored vector. */
    int (*row_match)(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                     const void *a, const void *ring, int32_t slots, int32_t *slot, float *distance, float *norm);
    /* out[b][r][a] = ring[b][slot[b][r][a]][a], lse likewise; out must not be ring. */
    int (*row_gather)(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                      const int32_t *slot, const void *ring, const float *ring_lse, int32_t slots, void *out,
                      float *lse);
    /* chosen[b][r][a] = 1 for the `count` rows of a sequence with the largest sum over a of distance (ties: lower
     * row; NaN counts as largest), else 0. */
    int (*row_top)(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, const float *distance,
                   int32_t count, int32_t *chosen);
    /* For each row of a [batch][rows][query_heads][head_dim] the nearest of ring->q, same sequence and query head,
     * over all rows of the filled blocks (any) or over the row at the same place: slot = block*rows + row (ties:
     * younger block, lower row), squared distance, squared norm; -1, INFINITY and 0 where there is none. */
    int (*ring_match)(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                      const void *a, const mb_state_ring *ring, int any, int32_t *slot, float *distance,
                      float *norm);
    /* out[b][r][a] = ring->out at slot[b][r][a], lse likewise; slot -1: 0 and -INFINITY. */
    int (*ring_gather)(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                       const int32_t *slot, const mb_state_ring *ring, void *out, float *lse);
    /* reached[b][r][a] = 1 where slot is of a block of at least that age and rows_copy(active, missed) would not
     * overwrite the row, else 0; heads[b][h] = -1 where KV head h has such a row, else 0. */
    int (*ring_reach)(mb_device *, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                      const int32_t *slot, const mb_state_ring *ring, int32_t age, const int32_t *active,
                      const int32_t *missed, int32_t *heads, int32_t *reached);
    /* *tokens += sum over (b, h) that are active (NULL = all) of prefix keys in pages, as count_work counts them.
     */
    int (*count_read)(mb_device *, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages,
                      const int32_t *active, double *tokens);

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
 * the CPU and says why in note (a host buffer of note_cap bytes). */
int mb_device_open(const char *spec, const mb_device_options *options, const mb_kernels **kernels,
                   mb_device **device, mb_error *note, mb_error *err);

#ifdef __cplusplus
}
#endif
#endif
