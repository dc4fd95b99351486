/*
 * words.h - the types that the kernels' operations and a method's operations have in common. A method's only
 * header is methods/method.h, and the kernels know no method: so the text stands in both, whichever is included
 * first defines the types, and tests/driver/check_modules.sh holds the two texts equal.
 */
#ifndef MB_KERNELS_WORDS_H
#define MB_KERNELS_WORDS_H

#include <stdint.h>

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

#endif
