/*
 * method.h - the contract between maskbench and an attention method. The only header a method needs.
 *
 * A method decides, for each layer of each forward, which keys of the frozen prefix the current block reads.
 * The harness owns the model, the KV cache, the kernels and the clock; a method owns its index and its state.
 * One forward, one layer:
 *
 *      select() --- MB_DENSE ---> harness attends exactly, by-products as asked --> observe()
 *          |------- MB_SPARSE --> harness attends to selection.pages + current block
 *          `------- MB_ATTEND --> attend(): the method returns the prefix state (output, log-sum-exp) itself;
 *                                 the harness merges the current block into it
 *
 * The current block is always attended densely by the harness: budgets count prefix tokens per KV head.
 *
 * Rules
 *  - abi and size come first; fields are only ever appended; the host reads missing trailing fields as NULL.
 *  - Pointers in mb_call are DEVICE memory (plain memory on the CPU, GPU memory under CUDA). A method reads and
 *    writes them through the operations in mb_host, or with kernels of its own on call->stream. Written against
 *    mb_host alone it runs on both.
 *  - Hooks return 0, or a negative number with one sentence in err. A failing hook fails only its own cell.
 *  - Between open() and close(), hooks must not allocate (mb_host.alloc works in open() only) and must not wait
 *    for the device. A method that fills step_mode() runs under CUDA graphs: the forward is captured once per
 *    mode and replayed, so hooks then may not depend on any host value but the mode, phase, layer and sizes.
 *  - Same inputs, same seed: bit-equal index.
 */
#ifndef MB_METHOD_H
#define MB_METHOD_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MB_METHOD_ABI 2u

/* ---- errors ---- */

/* What went wrong, in one sentence without a newline. The host's own struct of the same name. */
#ifndef MB_ERROR_CAP
#define MB_ERROR_CAP 1024
typedef struct mb_error {
    int code;
    char text[MB_ERROR_CAP]; /* always terminated */
} mb_error;
#endif

/* Writes the sentence (cut at MB_ERROR_CAP; err may be NULL) and returns -1, which a hook hands on. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static inline int
mb_method_fail(mb_error *err, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = -1;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return -1;
}

/* ---- what a method is told ---- */

/* What a KV element is: for methods with kernels of their own. */
typedef enum mb_element { MB_ELEMENT_F32 = 0, MB_ELEMENT_BF16 = 1, MB_ELEMENT_F16 = 2 } mb_element;

/* Fixed from open() to close(). */
typedef struct mb_shape {
    uint32_t size;        /* sizeof(mb_shape) of the host */
    int32_t layers;       /* L */
    int32_t query_heads;  /* Hq */
    int32_t kv_heads;     /* Hkv; query head a reads KV head a / (Hq/Hkv) */
    int32_t head_dim;     /* D; attention scale is D^-0.5 */
    int32_t block;        /* B, tokens of a block */
    int32_t batch;        /* sequences that share a launch */
    int32_t capacity;     /* largest prefix, tokens; score rows have `stride` entries */
    int32_t stride;       /* capacity rounded up to 64: row stride of every score array [batch][Hkv][stride] */
    int32_t steps;        /* denoising steps T scheduled per block; 0 = adaptive, unknown */
    int32_t element_size; /* bytes of a KV element */
    int32_t first_layer;  /* 0 .. L: the layers below it are dense and call no hook (option dense_layers) */
    mb_element element;   /* appended: a host whose `size` ends before it has fp32 or bf16, as element_size says */
} mb_shape;

typedef enum mb_phase {
    MB_PHASE_PREFILL = 0,    /* only kv_added() sees this: the whole prefix is new */
    MB_PHASE_FIRST_STEP = 1, /* step 1: the block is all [MASK], or as masked as it will ever be */
    MB_PHASE_LATER_STEP = 2,
    MB_PHASE_COMMIT = 3 /* the clean forward that appends the block's keys and values */
} mb_phase;

/* Where the run is. Under graph replay only mode, phase, layer and the sizes are meaningful. */
typedef struct mb_call {
    uint32_t size;
    int64_t request; /* running number of the sample */
    int32_t block;   /* running number of the block within the request, from 0 */
    int32_t step;    /* 1 .. T; 0 for a commit */
    int32_t mode;    /* what step_mode() answered; 0 without it */
    mb_phase phase;
    int32_t layer;             /* 0 .. L-1 */
    int32_t rows;              /* query rows per sequence in this forward: B, or a sub-block */
    int32_t row_offset;        /* first row's slot within the block */
    int32_t masked_rows;       /* rows that are still [MASK], sequence 0 */
    int32_t max_prefix;        /* host upper bound of prefix_len: 0 .. capacity */
    const int32_t *prefix_len; /* [batch] committed tokens N in front of the block */
    const float *masked;       /* [batch][rows] 1 where the row is [MASK], else 0 */
    const void *q;             /* [batch][rows][Hq][D] queries after RoPE */
    const void *q_pre;         /* same before RoPE (after q-norm); NULL unless MB_CAP_PRE_ROPE */
    const void *k, *v;         /* [batch][Hkv][cache rows][D] this layer's cache, keys after RoPE; use mb_host: the
                                * stride is opaque. A method's own copy of the call may name other queries
                                * (query_pick) and keys (key_pick): operations on it read those. */
    const float *lse;          /* observe(): [batch][rows][Hq] of the dense pass, when asked for */
    const float *mass;         /* observe(): [batch][Hkv][stride] block-average mass, when asked for */
    void *stream;              /* cudaStream_t under CUDA, NULL on the CPU */
    void *internal;            /* the host's */
} mb_call;

/* ---- words that kernels and methods share: kernels/kernels.h and methods/method.h hold the same text ---- */
#ifndef MB_SHARED_WORDS
#define MB_SHARED_WORDS

/* A selection of prefix keys for each (sequence, KV head), in device memory: `count` pages of `granularity`
 * consecutive keys. Page p covers keys p*granularity .. min((p+1)*granularity, prefix_len)-1. ids ascend and are
 * distinct. A count of -1 means all of the prefix: a batch may mix dense and sparse entries in one launch. */
typedef struct mb_page_set {
    int32_t granularity; /* 1, 16, 32, 64 or 128 tokens */
    int32_t capacity;    /* entries per (sequence, KV head) */
    int32_t *ids;        /* [batch][kv_heads][capacity] */
    int32_t *counts;     /* [batch][kv_heads] */
} mb_page_set;

/* Which keys an attention covers. */
typedef enum mb_scope {
    MB_SCOPE_ALL = 0,    /* prefix and current block: the exact attention of a step */
    MB_SCOPE_PREFIX = 1, /* prefix only: the state a method may keep and reuse */
    MB_SCOPE_BLOCK = 2   /* current block only */
} mb_scope;

/* How the bounds of several query rows become one score per page and KV head. */
typedef enum mb_merge {
    MB_MERGE_MEAN = 0,   /* mean over rows of the bound */
    MB_MERGE_MAX = 1,    /* maximum over rows of the bound */
    MB_MERGE_QUERY = 2,  /* bound of the mean query: cheapest */
    MB_MERGE_SOFTMAX = 3 /* softmax over pages of scale*bound per row, then the mean */
} mb_merge;

/* How scores of neighbouring tokens are taken together. */
typedef enum mb_pooling { MB_POOL_SUM = 0, MB_POOL_MAX = 1, MB_POOL_PADDED = 2 } mb_pooling;

/* What a key is measured by. Keys are those of the cache, after RoPE. */
typedef enum mb_key_measure {
    MB_KEY_NORM = 0,     /* its length */
    MB_KEY_DISTANCE = 1, /* its distance to the mean of the prefix's keys */
    MB_KEY_COSINE = 2    /* its cosine with the mean of the prefix's keys, each divided by its length */
} mb_key_measure;

/* Attention states: what attending to some keys gave each row. */
typedef struct mb_state {
    void *o;      /* [batch][rows][query_heads][head_dim] of T, the storage type of the KV cache */
    float *lse;   /* [batch][rows][query_heads] natural log-sum-exp */
    int32_t fp32; /* 1: o is fp32, whatever T is */
} mb_state;

/* States of earlier blocks, in device memory: a block's arrays are [batch][rows][query_heads][head_dim] of T and
 * [batch][rows][query_heads], with as many rows as a call has; block s of the ring begins s*pitch states on. */
typedef struct mb_state_ring {
    int32_t blocks;
    int64_t pitch;       /* states = (sequence, row, query head) */
    const uint8_t *ages; /* [blocks]: how many blocks ago it was stored, from 1; 0 = nothing is stored */
    const void *q, *out;
    const float *lse;
} mb_state_ring;

/* Which KV heads must read their prefix again. A row misses unless distance < threshold or, with relative 1,
 * distance < threshold*norm; NaN misses. */
typedef struct mb_reuse {
    const float *distance, *norm; /* [batch][rows][query_heads], as row_distance and ring_match write them */
    float threshold;
    int32_t relative;
    float share;     /* a head is active where more than this share of its rows misses, or the distance of one is
                      * infinite: nothing is stored for it */
    int32_t *active; /* [batch][kv_heads]: -1 or 0, as counts of a page set: what is read again */
    int32_t *missed; /* NULL, or [batch][rows][query_heads]: 1 where a row misses, else 0 */
    double *counts;  /* NULL, or 4 sums that grow by rows that hit, rows, active heads, heads */
    double *groups;  /* NULL, or 3 that grow by heads whose rows all hit, some of whose rows hit, none hits */
} mb_reuse;

/* Which rows look at least `age` blocks back in a ring. Rows that rows_copy(active, missed) would overwrite do not
 * count. */
typedef struct mb_reach {
    const int32_t *slot; /* [batch][rows][query_heads] of ring_match: block of the ring * rows + row; -1 = none */
    int32_t age;         /* from 1 */
    const int32_t *active, *missed; /* as in rows_copy */
    int32_t *heads;                 /* [batch][kv_heads]: -1 where a row of the head is reached, else 0 */
    int32_t *reached;               /* [batch][rows][query_heads]: 1 or 0 */
} mb_reach;

#endif /* MB_SHARED_WORDS */

/* ---- what a method answers ---- */

typedef enum mb_answer { MB_DENSE = 0, MB_SPARSE = 1, MB_ATTEND = 2 } mb_answer;

/* By-products of a dense pass, delivered to observe(). */
#define MB_WANT_LSE 1u  /* call->lse */
#define MB_WANT_MASS 2u /* call->mass; implies the log-sum-exp */

/* Which rows an average runs over. */
typedef enum mb_row_set {
    MB_ROWS_ALL = 0,
    MB_ROWS_MASKED = 1, /* rows that are [MASK]; all rows when none is */
    MB_ROWS_CENTRE = 2  /* the one row in the middle of the block */
} mb_row_set;

/* Over which keys the softmax behind a mass is normalised. */
typedef enum mb_normaliser { MB_OVER_ALL = 0, MB_OVER_PREFIX = 1 } mb_normaliser;

typedef struct mb_selection {
    mb_answer answer;
    uint32_t want;            /* MB_DENSE: MB_WANT_* */
    mb_row_set rows;          /* with MB_WANT_MASS */
    mb_normaliser normaliser; /* with MB_WANT_MASS */
    const mb_page_set *pages; /* MB_SPARSE: the index. MB_ATTEND: the one used, or NULL (opaque, count_read()) */
    double select_tokens;     /* prefix tokens' worth of K+V bytes per KV head read to choose, for the work */
} mb_selection;

/* ---- what a method may call ---- */

/* What the host does for a method, in groups by need: the 15 of the first one are enough for most methods. Device
 * operations work on the call's queries and cache, enqueue and return 0, or an error. Score arrays are fp32
 * [batch][Hkv][stride]: one number a prefix key, or one a page where a page size is given. */
typedef struct mb_host mb_host;
struct mb_host {
    uint32_t abi, size;
    void *internal;
    uint64_t seed; /* of the run; the same for every method */

    /* ---- What most methods need: memory, attention, one score a key, the best of them. ---- */

    /* One line to the user, level 0 = note, 1 = warning. */
    void (*log)(const mb_host *, int level, const char *message);
    /* Device memory, zeroed, 256-byte aligned, freed by the host after close(). open() only; NULL = over plan: the
     * host then fails open() itself, so open() may go on without looking. */
    void *(*alloc)(const mb_host *, size_t bytes);
    /* Fills set with memory for `capacity` entries per (sequence, KV head), but no more than the largest prefix
     * has; counts 0. 0 or negative. */
    int (*pages_alloc)(const mb_host *, int32_t granularity, int32_t capacity, mb_page_set *set);
    float *(*scores_alloc)(const mb_host *); /* one [batch][Hkv][stride] array, or NULL */
    int (*copy)(const mb_host *, const mb_call *, void *dst, const void *src, size_t bytes);
    int (*fill)(const mb_host *, const mb_call *, void *dst, int byte, size_t bytes);
    /* Exact attention over scope: out [batch][rows][Hq][D] of the storage type, lse [batch][rows][Hq].
     * active NULL or [batch][Hkv] device flags: 0 leaves that KV head's out and lse as they were. out may be
     * NULL: log-sum-exp only. */
    int (*attend)(const mb_host *, const mb_call *, mb_scope scope, const int32_t *active, void *out, float *lse);
    /* Attention over pages of the prefix (scope PREFIX), or pages + block (ALL), with log-sum-exp. */
    int (*attend_pages)(const mb_host *, const mb_call *, const mb_page_set *pages, mb_scope scope,
                        const int32_t *active, void *out, float *lse);
    /* Block-average attention mass of every prefix key (MAGE eq. 5). lse NULL: computed here over normaliser. */
    int (*mass)(const mb_host *, const mb_call *, const float *lse, mb_row_set rows, mb_normaliser normaliser,
                float *scores);
    /* Mean over rows of q.k, no softmax; channels NULL or device [Hkv][channel_count]. */
    int (*key_scores)(const mb_host *, const mb_call *, const int32_t *channels, int32_t channel_count,
                      mb_row_set rows, float *scores);
    /* Best k entries of scores into set (granularity and capacity from set; entries are pages of that
     * granularity). Ties: lower index; -INFINITY never. k_dynamic NULL or device [batch][Hkv]. */
    int (*top_k)(const mb_host *, const mb_call *, const float *scores, int32_t k, const int32_t *k_dynamic,
                 mb_page_set *set);
    /* Fewest entries that hold p of the total, between k_min and k_max. */
    int (*top_p)(const mb_host *, const mb_call *, const float *scores, float p, int32_t k_min, int32_t k_max,
                 mb_page_set *set);
    /* Entries [0,first) and the last `last` of the prefix (in pages of `page` tokens) become value. */
    int (*score_edges)(const mb_host *, const mb_call *, int32_t page, int32_t first, int32_t last, float value,
                       float *scores);
    /* Smoothing along keys with an odd kernel: SUM is the mean over the keys there are, PADDED the mean with zeros
     * in front of the first and behind the last key. out must not be scores. */
    int (*score_smooth)(const mb_host *, const mb_call *, const float *scores, int32_t kernel, mb_pooling pooling,
                        float *out);
    /* Per-token scores to pages: SUM or MAX. */
    int (*score_pool)(const mb_host *, const mb_call *, const float *scores, int32_t page, mb_pooling pooling,
                      float *out);

    /* ---- Other ways to score keys and pages, and arithmetic on scores. ---- */

    /* Votes (MAGE v1): scores[j] = rows whose top k holds key j; stats [batch][Hkv][2] = {union size, coverage}.
     * lse as in mass(). */
    int (*votes)(const mb_host *, const mb_call *, const float *lse, int32_t k, float *scores, float *stats);
    /* The `count` channels of each KV head with the largest sum over the batch of (sum over rows of |q|) * (sum
     * over prefix keys of |k|), or with same_token of |q k| over rows and the keys of their own slots; channels
     * [Hkv][count] ascend, for key_scores. scratch: [Hkv][D] floats. */
    int (*heavy_channels)(const mb_host *, const mb_call *, int same_token, int32_t count, int32_t *channels,
                          float *scratch);
    /* Page bounds (Quest): bounds from bounds_alloc(page). whole 1: all pages of the prefix; 0: only those that
     * the block's slots touch (after a commit). */
    void *(*bounds_alloc)(const mb_host *, int32_t page);
    int (*page_bounds)(const mb_host *, const mb_call *, int32_t page, int whole, void *bounds);
    int (*page_scores)(const mb_host *, const mb_call *, int32_t page, const void *bounds, mb_merge merge,
                       mb_row_set rows, float *scores);
    /* What each prefix key is by itself: the one measure without queries. mean: [batch][Hkv][D] floats, is
     * overwritten; NULL with MB_KEY_NORM. Keys of length 0 have the cosine 0. */
    int (*key_measures)(const mb_host *, const mb_call *, mb_key_measure measure, float *mean, float *scores);
    /* Entries of the prefix at position first, first + every, first + 2*every ... become value. */
    int (*score_every)(const mb_host *, const mb_call *, int32_t every, int32_t first, float value, float *scores);
    /* Uniform [0,1) from a counter hash of (seed, key position): the same for every head and device. */
    int (*score_random)(const mb_host *, const mb_call *, uint64_t seed, float *scores);
    /* Scores of prefix keys below `below` become value*(j+1)/(N+1): what they stood for is ranked by recency. */
    int (*score_recent)(const mb_host *, const mb_call *, float below, float value, float *scores);
    /* Scores of the prefix keys outside set become value. */
    int (*score_keep)(const mb_host *, const mb_call *, const mb_page_set *set, float value, float *scores);
    int (*score_axpby)(const mb_host *, const mb_call *, float a, const float *x, float b, float *y);
    int (*score_head_mean)(const mb_host *, const mb_call *, float *scores);

    /* ---- Budgets that are not one number. ---- */

    /* budgets [batch][Hkv] = min(n, floor(ratio*n) + extra) entries, n = ceil(N/page); for top_k's k_dynamic. */
    int (*budget_ratio)(const mb_host *, const mb_call *, int32_t page, double ratio, int32_t extra,
                        int32_t *budgets);
    /* A mean budget of k entries shared among layers by how diffuse they are. stats [layers][batch][Hkv][2] of
     * votes(): s = max over heads of union*(1 - ln coverage); budgets [layers][batch][Hkv] =
     * max(k_min, floor(s / sum of s * k * layers)), at most k_max. All k_max where N <= k. */
    int (*budget_layers)(const mb_host *, const mb_call *, const float *stats, int32_t layers, int32_t k,
                         int32_t k_min, int32_t k_max, int32_t *budgets);
    /* k*Hkv entries of each sequence shared among its KV heads: every head gets its k_min best, the rest goes to
     * the best remaining scores of all heads (ties: lower head). budgets [batch][Hkv], for top_k's k_dynamic.
     * scratch: the bytes of three score arrays. */
    int (*budget_heads)(const mb_host *, const mb_call *, const float *scores, int32_t k, int32_t k_min,
                        int32_t *budgets, void *scratch);

    /* ---- Attention states: for a method that answers MB_ATTEND and keeps what it computed. ---- */

    /* States over disjoint key sets: out = a merged with b; rest = total without part. out may be one of the
     * others; the lse of a result may be NULL. */
    int (*state_merge)(const mb_host *, const mb_call *, const mb_state *a, const mb_state *b,
                       const mb_state *out);
    int (*state_downdate)(const mb_host *, const mb_call *, const mb_state *total, const mb_state *part,
                          const mb_state *rest);
    /* Squared distance of two query-shaped arrays per (sequence, row, query head), and the norm of b. */
    int (*row_distance)(const mb_host *, const mb_call *, const void *a, const void *b, float *distance,
                        float *norm);
    /* The `count` rows of each sequence with the largest distance summed over query heads (ties: lower row):
     * chosen [batch][rows][Hq] = 1, all others 0. */
    int (*row_top)(const mb_host *, const mb_call *, const float *distance, int32_t count, int32_t *chosen);
    /* dst = src for rows whose KV head is active and which are missed (NULL = all are). Vectors are query-shaped,
     * of the KV type; the log-sum-exps go along unless NULL. */
    int (*rows_copy)(const mb_host *, const mb_call *, const int32_t *active, const int32_t *missed,
                     const void *src, const float *src_lse, void *dst, float *dst_lse);
    /* Which rows miss, and which KV heads must read their prefix again. */
    int (*reuse_decide)(const mb_host *, const mb_call *, const mb_reuse *reuse);
    /* The nearest vector of ring->q to each row of a, same query head, over all blocks that the ring holds: all of
     * their rows with any 1, the row at the same place with any 0. slot = block of the ring * B + row, or -1 where
     * nothing is stored, with the distance INFINITY; distance and norm as in row_distance(). Ties: the
     * youngest block, then the lower row. Needs a call of B rows. */
    int (*ring_match)(const mb_host *, const mb_call *, const void *a, const mb_state_ring *ring, int any,
                      int32_t *slot, float *distance, float *norm);
    /* out, lse = what the ring holds at slot; slot -1: zeros and -INFINITY, the state over no key. */
    int (*ring_gather)(const mb_host *, const mb_call *, const int32_t *slot, const mb_state_ring *ring, void *out,
                       float *lse);
    /* Which rows' slots are of a block of at least an age. */
    int (*ring_reach)(const mb_host *, const mb_call *, const mb_state_ring *ring, const mb_reach *reach);
    /* For a method that attends itself and shows no index: the KV heads that are active (NULL = all) read these
     * pages (NULL = the whole prefix) once more. Adds to the work of the run; free where nothing is counted. */
    int (*count_read)(const mb_host *, const mb_call *, const mb_page_set *pages, const int32_t *active);

    /* ---- Choosing by less than the whole attention: few channels, few bits, tiles, ranks; tables of your own.
     * ---- */

    /* Memory for other keys of a layer, laid out as its cache is: see mb_call.k. open() only. */
    void *(*keys_alloc)(const mb_host *);
    /* dst (of alloc()) = a table in host memory, of at most what was allocated. open() only: 0 or negative. */
    int (*upload)(const mb_host *, void *dst, const void *src, size_t bytes);
    /* Queries with less in them: out (query-shaped, another array) is 0 outside of `count` channels of the KV
     * head: those of channels [Hkv][count], or with NULL those with the largest sum over its rows of |q|. bits 1
     * .. 8: each row's values there become one of 2^bits equal steps from their smallest to their largest; 0: as
     * they are. */
    int (*query_pick)(const mb_host *, const mb_call *, const int32_t *channels, int32_t count, int32_t bits,
                      void *out);
    /* The same for each key, into keys_alloc()'s memory; channels NULL: all of D. whole as in page_bounds(). */
    int (*key_pick)(const mb_host *, const mb_call *, const int32_t *channels, int32_t count, int32_t bits,
                    int whole, void *out);
    /* How far the best logit of each page of keys is below the best one up to and with it, for the row that comes
     * nearest; below `least`: -INFINITY. scratch: [batch][B][Hq][pages] floats. */
    int (*tile_gaps)(const mb_host *, const mb_call *, int32_t page, float least, float *gaps, float *scratch);
    /* Scores of pages become scores of their tokens. out must not be scores. */
    int (*score_spread)(const mb_host *, const mb_call *, int32_t page, const float *scores, float *out);
    /* best: what top_k() chose by scores, granularity 1. out[j], the same for all heads = -(place of key j where
     * every head names its best key, then every head its second best ...); -INFINITY where none has it in its set.
     */
    int (*score_interleave)(const mb_host *, const mb_call *, const float *scores, const mb_page_set *best,
                            float *out);
};

/* ---- options: data, not code ---- */

typedef enum mb_option_type {
    MB_OPTION_INT = 0,    /* int64_t */
    MB_OPTION_REAL = 1,   /* double */
    MB_OPTION_BOOL = 2,   /* int32_t 0 or 1 */
    MB_OPTION_CHOICE = 3, /* int32_t index into `choices` */
    MB_OPTION_LIST = 4,   /* mb_option_list; its text is "2,5,9", the preset is "" */
    MB_OPTION_FILE = 5    /* mb_option_file; its text is a path, the preset is "" */
} mb_option_type;

/* Whole numbers between the row's min and max that ascend. */
#define MB_OPTION_LIST_CAP 64
typedef struct mb_option_list {
    int32_t count;
    int32_t values[MB_OPTION_LIST_CAP];
} mb_option_list;

/* A file as it was when the config was read: weights that were learnt, a table that was calibrated. A relative
 * path is looked for beside the config, then in the working folder. The hash of the content makes another
 * configuration of another content. Memory is the host's, for the life of the program. All NULL and 0 without a
 * file. */
typedef struct mb_option_file {
    const char *path;
    const void *bytes; /* with a NUL behind the last one, which size does not count; at most 256 MiB */
    size_t size;
    const char *hash;
} mb_option_file;

/* One row a key: validates the config, prints `./harness help METHOD`, is stored with every result. The host
 * writes the value at `offset` of the method's option struct. A row named "k" is the token budget. */
typedef struct mb_option {
    const char *name;
    mb_option_type type;
    size_t offset;
    double preset, min,
        max;             /* preset: the default; for CHOICE the index; 0 for LIST and FILE; min/max inclusive */
    const char *choices; /* CHOICE: "a|b|c" */
    const char *unit;    /* "tokens", "", ... */
    const char *help;    /* one sentence; says when a paper leaves the value open */
} mb_option;             /* the table ends with a row whose name is NULL */

/* ---- options that the host applies ----
 * Two rows that most methods have. The host keeps their values and acts on them before the method is asked, so a
 * method reads neither: layers below shape->first_layer and, with "dense", the commit forward attend exactly
 * without select(). Without a row, all layers and the commit ask the method. */
#define MB_OPTION_OF_HOST ((size_t)-1) /* the offset of such a row */

/* preset: how many layers; help: what the paper has. */
#define MB_OPTION_DENSE_LAYERS(preset, help)                                                                      \
    {                                                                                                             \
        "dense_layers", MB_OPTION_INT, MB_OPTION_OF_HOST, preset, 0, 1024, NULL, "layers", help                   \
    }
/* other: the word for what the method does in a commit forward, "sparse" or "reuse". */
#define MB_OPTION_COMMIT_AS(other, help)                                                                          \
    {                                                                                                             \
        "commit", MB_OPTION_CHOICE, MB_OPTION_OF_HOST, 0, 0, 0, "dense|" other, "", help                          \
    }
#define MB_OPTION_COMMIT                                                                                          \
    MB_OPTION_COMMIT_AS(                                                                                          \
        "sparse", "attention of the forward that stores a finished block; dense keeps the stored keys exact")

/* Their values, behind the method's own struct: the host's business, not a method's. */
typedef struct mb_host_options {
    int64_t dense_layers;
    int32_t commit; /* 0 dense */
} mb_host_options;
#define MB_HOST_OPTIONS_AT(method) (((method)->options_size + 7) / 8 * 8)

/* A counter the method reports at the end of a request. */
typedef struct mb_counter {
    const char *name, *unit;
    const char *better;    /* "higher", "lower" or "" */
    const char *aggregate; /* "mean", "sum", "max" */
    const char *help;
} mb_counter; /* ends with name NULL */

/* A counter map: a counter with a value per layer, per denoising step, or per layer and step. */
#define MB_BY_LAYER 1u
#define MB_BY_STEP 2u
typedef struct mb_counter_map {
    const char *name, *unit, *better, *aggregate, *help; /* as in mb_counter; names apart from those */
    uint32_t axes;                                       /* MB_BY_LAYER, MB_BY_STEP or both */
} mb_counter_map;                                        /* ends with name NULL */

/* Takes one value of row `map` of the table: layer 0 .. L-1, step 1 .. T or 0 = commits; -1 on an axis that the
 * map does not have. "mean": sum / weight, and over requests sum of sums / sum of weights, so a share hands in
 * its numerator and its denominator. "sum" and "max": the number is in sum, weight is 1. Weight 0 is not stored: a
 * place where nothing was counted has no value. Each place once. Returns 0, or negative: give it back. */
typedef int (*mb_counter_put)(void *to, int32_t map, int32_t layer, int32_t step, double sum, double weight);

/* ---- the method ---- */

#define MB_CAP_PRE_ROPE 1ull  /* needs call->q_pre */
#define MB_CAP_OPAQUE 2ull    /* MB_ATTEND without an index: left out of recall */
#define MB_CAP_REFERENCE 4ull /* costs more than exact by design (oracles): never drawn in speed plots */
#define MB_CAP_LOSSLESS                                                                                           \
    8ull /* equals exact attention for any options; believed of the tree's own methods only                       \
          */
#define MB_CAP_REUSE                                                                                              \
    16ull /* keeps attention states across forwards: exact at a full budget only while queries                    \
           * stay the same */
#define MB_CAP_LAYER_BUDGET 32ull /* k is a mean over the layers: a single one may read more */
#define MB_CAP_RESIDUAL                                                                                           \
    64ull /* attend() adds what other keys contributed in an earlier forward to the keys of its index: exact at   \
           * a full budget, but its output is not attention over that index alone */
#define MB_CAP_HEAD_ORDER 128ull /* its choice depends on the order of the KV heads */

typedef struct mb_method {
    uint32_t abi;  /* MB_METHOD_ABI, for ever the first field */
    uint32_t size; /* sizeof(mb_method) this was built with */
    const char *name, *version;
    const char *summary;   /* one line */
    const char *reference; /* paper, section */
    uint64_t caps;
    const mb_option *options;   /* or NULL */
    size_t options_size;        /* of the struct that the rows write into */
    const mb_counter *counters; /* or NULL */

    /* Optional. 0 = runs, 1 = cannot run here and why (stored as a skipped row). */
    int (*supports)(const mb_shape *shape, const void *options, mb_error *why);
    /* Optional. Device bytes that open() will ask for; the plan of the run counts them. Without it the host
     * measures open() once on a counting allocator, so alloc() must not depend on its own results. */
    size_t (*memory)(const mb_shape *shape, const void *options);
    /* Required. options: the filled struct, valid until close(). *self may stay NULL. */
    int (*open)(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err);
    void (*close)(void *self); /* optional */

    /* Optional. A number that tells apart steps whose hooks enqueue different work: 0..7. Filling it promises
     * that the work depends on nothing else, so that forwards can be captured in graphs. */
    int (*step_mode)(void *self, const mb_call *call);

    /* Optional life cycle. kv_added: per layer, after a prefill (whole prefix) or inside a commit forward (the
     * block's slots, row_offset 0). block_begin/step_begin/step_end/block_end: layer is -1; they are never part of
     * a graph, and a commit has no step_begin and step_end. */
    int (*request_begin)(void *self, const mb_call *call, mb_error *err);
    int (*kv_added)(void *self, const mb_call *call, mb_error *err);
    int (*block_begin)(void *self, const mb_call *call, mb_error *err);
    int (*step_begin)(void *self, const mb_call *call, mb_error *err);

    /* Required. Fill *out (zeroed by the host, i.e. MB_DENSE, nothing wanted). */
    int (*select)(void *self, const mb_call *call, mb_selection *out, mb_error *err);
    /* Required when a selection wants by-products. */
    int (*observe)(void *self, const mb_call *call, mb_error *err);
    /* Required when select() answers MB_ATTEND. Prefix state of every row: out [batch][rows][Hq][D] of the KV
     * type, lse [batch][rows][Hq]. */
    int (*attend)(void *self, const mb_call *call, void *out, float *lse, mb_error *err);

    int (*step_end)(void *self, const mb_call *call, mb_error *err);
    int (*block_end)(void *self, const mb_call *call, mb_error *err);
    /* Optional. Values in the order of `counters`, NAN where nothing was counted; called between requests, so it
     * may wait for the device with `read` (device to host). */
    int (*report)(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                  double *values, mb_error *err);

    const mb_counter_map *maps; /* or NULL: counters by layer and step */
    /* Required with maps; called after report(), under the same terms. put() is called for every value. What
     * kernels count per step is filed by step_begin and step_end: they run live at every denoising step, also
     * where the forward between them is replayed, so a copy that they enqueue may depend on call->step. */
    int (*report_maps)(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                       mb_counter_put put, void *to, mb_error *err);

    /* Optional: bytes of the method's state, and what it has more for each layer. When state_size is not 0, open()
     * finds *self set to that much zeroed host memory, which the host frees after close(). */
    size_t state_size, state_layer_size;
} mb_method;

/* ---- modes: the usual answers of step_mode() ---- */

enum { MB_MODE_SELECT = 1, MB_MODE_REUSE = 2 };

/* For .step_mode: choose at the first step of a block, keep the choice to its end. */
static inline int mb_mode_by_block(void *self, const mb_call *call)
{
    (void)self;
    return call->phase == MB_PHASE_FIRST_STEP ? MB_MODE_SELECT : MB_MODE_REUSE;
}

/* Begins a method's struct, the last thing in its file: MB_METHOD_DEFINE = {.abi = MB_METHOD_ABI, ...};
 * In the tree the build names the file (MB_METHOD_FILE), and the struct is the mb_method_NAME that the registry
 * lists. Elsewhere it comes with the entry function of a shared object. */
#ifdef MB_METHOD_FILE
#define MB_METHOD_JOIN(file) mb_method_##file
#define MB_METHOD_SYMBOL(file) MB_METHOD_JOIN(file)
#define MB_METHOD_DEFINE const mb_method MB_METHOD_SYMBOL(MB_METHOD_FILE)
#else
#define MB_METHOD_DEFINE                                                                                          \
    static const mb_method mb_method_here;                                                                        \
    const mb_method *mb_method_entry(uint32_t host_abi);                                                          \
    const mb_method *mb_method_entry(uint32_t host_abi)                                                           \
    {                                                                                                             \
        return host_abi == MB_METHOD_ABI ? &mb_method_here : NULL;                                                \
    }                                                                                                             \
    static const mb_method mb_method_here
#endif

/* The one symbol of an out-of-tree method. Returns NULL when it cannot serve this ABI. */
typedef const mb_method *(*mb_method_entry_fn)(uint32_t host_abi);
#define MB_METHOD_ENTRY "mb_method_entry"

#ifdef __cplusplus
}
#endif
#endif
