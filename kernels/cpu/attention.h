/*
 * attention.h - what every operation on packed block rows shares: the query rows of a KV head laid out for the
 * product, and the keys it covers as one list.
 *
 * R = group * rows query rows read the same KV head; row index i = r * group + g, so a KV head's rows of one
 * position lie together. They are packed in panels of 32: panel p is [head_dim][width], width 32 or, for a last
 * panel of up to 16 rows, 16; unused columns are 0. Logits are computed transposed, [keys][width], so that the
 * softmax runs along contiguous rows and never sums across a vector.
 */
#ifndef MB_KERNELS_CPU_ATTENTION_H
#define MB_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/cpu.h"

#define MB_PANEL 32      /* query rows of a panel */
#define MB_KEY_CHUNK 256 /* keys of a piece; a multiple of the 64 of tile_mass */

typedef struct mb_cpu_rows {
    int64_t heads;                        /* batch * kv_heads: (sequence, KV head) pairs */
    int64_t group, count, padded, panels; /* G; R; R rounded up to 16; panels of a head */
    int64_t dim;
    float scale;
} mb_cpu_rows;

void mb_cpu_rows_make(const mb_attention *args, mb_cpu_rows *rows);
static inline int64_t mb_cpu_panel_width(const mb_cpu_rows *rows, int64_t panel)
{
    int64_t left = rows->padded - panel * MB_PANEL;
    return left < MB_PANEL ? left : MB_PANEL;
}
/* to: [heads][padded * dim]. Uses each thread's first MB_PANEL * dim floats of scratch. */
void mb_cpu_rows_pack(mb_device *device, const mb_attention *args, const mb_cpu_rows *rows, float *to);
/* One value per query row out of [batch][rows][query_heads] (by_head) or [batch][rows], to [padded]; the unused
 * entries become `rest`. */
void mb_cpu_rows_gather(const mb_attention *args, const mb_cpu_rows *rows, const float *from, bool by_head,
                        int64_t head, float rest, float *to);
/* Row weights of a sequence as above; NULL row_weight counts as 1. Returns their sum. */
float mb_cpu_rows_weights(const mb_attention *args, const mb_cpu_rows *rows, int64_t head, float *to);

/* Keys of one (sequence, KV head): `picked` prefix keys (all, or those of the pages, in order), then the block's.
 */
typedef struct mb_cpu_keys {
    const int32_t *ids; /* NULL: the picked keys are 0 .. picked-1 */
    int64_t granularity, picked, block_first, total;
} mb_cpu_keys;

void mb_cpu_keys_make(const mb_attention *args, int64_t head, mb_cpu_keys *keys);
/* Widens keys first .. first+n-1 of the list to dst[n][dim]. base: the (sequence, KV head)'s first slot in kv.k or
 * kv.v, dim columns a slot. */
void mb_cpu_keys_load(mb_type type, const mb_cpu_keys *keys, const void *base, int64_t dim, int64_t first,
                      int64_t n, float *dst);
/* The same for values, as the product's right side: panels of 32 columns, [n][32], the last one [n][16] where 16
 * are enough; columns behind dim are 0. dst: n * (dim rounded up to 16) floats; panel of column c at dst + c*n. */
void mb_cpu_values_load(mb_type type, const mb_cpu_keys *keys, const void *base, int64_t dim, int64_t first,
                        int64_t n, float *dst);
/* Asks the caches for consecutive prefix keys that will be loaded soon; does nothing where it would not pay. */
void mb_cpu_keys_prefetch(mb_type type, const mb_cpu_keys *keys, const void *base, int64_t dim, int64_t first,
                          int64_t n);
const void *mb_cpu_head_base(mb_type type, const mb_kv *kv, const void *cache, int64_t head);

/* Unscaled logits^T of one panel: to[n][width] = k[n][dim] . q; the softmax multiplies by rows->scale in fp32. */
static inline void mb_cpu_logits(const mb_cpu_rows *rows, int64_t width, const float *k, int64_t n, const float *q,
                                 float *to)
{
    mb_cpu_product(&(mb_cpu_factors){.m = n,
                                     .n = width,
                                     .k = rows->dim,
                                     .a = k,
                                     .a_row = rows->dim,
                                     .a_col = 1,
                                     .b = q,
                                     .ldb = width,
                                     .c = to,
                                     .ldc = width});
}

/* In place, for n keys of a panel of width rows: logits become exp(scale * logit - m). m holds a row's maximum so
 * far (scaled; -INFINITY: none), l its sum; both are carried on, and old receives the factor by which sums before
 * these keys shrink: exp(old m - new m), 0 where there were none. */
void mb_cpu_soften(float *logits, int64_t n, int64_t width, float scale, float *m, float *l, float *old);

/* The mass of every prefix key, given each row's log-sum-exp: lse [heads][padded], q as packed. */
int mb_cpu_mass_run(mb_device *device, const mb_attention *args, const mb_cpu_rows *rows, const float *q,
                    const float *lse);
/* Scratch of one thread that mb_cpu_mass_run and the packing need, bytes. */
size_t mb_cpu_mass_scratch(const mb_cpu_rows *rows);

#endif
