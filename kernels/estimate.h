/*
 * estimate.h - arguments of the operations that choose keys by less than their whole attention: few channels, few
 * bits, the maximum of a tile, ranks in place of scores. Included by kernels.h, whose types it uses.
 */
#ifndef MB_KERNELS_ESTIMATE_H
#define MB_KERNELS_ESTIMATE_H

/* Sums over sequences of what a KV head's G*rows query rows and its keys have in a channel c:
 * same_token 0: (sum over the rows of |q_c|) * (sum over prefix keys of |k_c|), which is the sum over all pairs;
 * same_token 1: sum over the rows of |q_c k_c|, k the key of the row's own slot (Double Sparsity, arXiv
 * 2408.07092, takes tokens of a calibration text). The `count` channels with the largest sums; ties: lower
 * channel. */
typedef struct mb_heavy_channels {
    mb_attention attention;
    int32_t count, same_token;
    int32_t *channels; /* [kv_heads][count], ascending */
    float *scratch;    /* [kv_heads][head_dim] */
} mb_heavy_channels;

/* Queries with less in them: their values in `count` channels of the KV head, 0 in all others.
 * channels NULL: for each (sequence, KV head) those with the largest sum over its G*rows rows of |q_c| (ties:
 * lower channel; arXiv 2502.14051, section 3). bits 0: the values as they are; else 1 .. 8:
 * each row's values rounded to 2^bits equally spaced levels from the smallest to the largest of them, half to
 * even. */
typedef struct mb_query_pick {
    mb_row_shape shape;
    const void *q;
    const int32_t *channels; /* NULL, or [kv_heads][count] */
    int32_t count, bits;
    void *out; /* as q, another array */
} mb_query_pick;

/* Keys with less in them, by the same rule: each key alone. channels NULL: all of head_dim. */
typedef struct mb_key_pick {
    mb_rows rows;
    mb_kv kv;
    const int32_t *channels; /* NULL, or [kv_heads][count] */
    int32_t count, bits;
    int32_t whole; /* 1: keys of [0, prefix_len); 0: those of the slots prefix_len .. +block_keys-1 */
    void *out;     /* as kv.k, another array; other keys of it are left alone */
} mb_key_pick;

/* How far the best logit of a tile of `page` prefix keys is below the best one up to and with it, for the row that
 * comes nearest: max over the G*rows rows of (m[t] - max over u <= t of m[u]), m[t] = max over keys j of tile t of
 * scale * q.k. Gaps below `least` become -INFINITY (arXiv 2512.12087, section 3: the tile is skipped). */
typedef struct mb_tile_gaps {
    mb_attention attention; /* row_weight and active are not used */
    int32_t page;
    float least;
    float *gaps; /* [batch][kv_heads][stride]; tiles >= ceil(prefix_len/page) get -INFINITY up to max_prefix */
    int64_t stride;
    float *scratch; /* [batch][rows][query_heads][ceil(max_prefix/page)] */
} mb_tile_gaps;

/* Scores of pages to all of their tokens: out[j] = scores[j / page] for j < prefix_len. */
typedef struct mb_score_spread {
    mb_scores scores; /* an entry for each page of scores.page tokens */
    float *out;       /* [batch][kv_heads][stride], another array */
} mb_score_spread;

/* The sets of all KV heads of a sequence in one order: everyone's first choice, head by head, then everyone's
 * second one ... (arXiv 2508.07101, section 3). best: what top_k chose by these scores, granularity 1.
 * A token of rank i in the set of head h (larger score first; ties: lower index) has the place i*kv_heads + h;
 * out[j] = -(its smallest place) for every head alike, -INFINITY where no head has it. Exact below 2^24 places. */
typedef struct mb_score_interleave {
    mb_scores scores; /* page 1 */
    mb_page_set best;
    float *out; /* as scores.values, another array */
} mb_score_interleave;

#endif
