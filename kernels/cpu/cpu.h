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

#define MB_CPU_MOST_DIM 512 /* of a head */

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

/* c[i*ldc + j] = (accumulate ? c[i*ldc + j] : 0) + sum over p < k, in this order, of a[i*a_row + p*a_col] *
 * b[p*ldb + j] for i < m, j < n; n a multiple of MB_LANES. Each element is summed in the same order whatever m, n
 * are. */
typedef struct mb_cpu_factors {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_col;
    const float *b;
    int64_t ldb;
    float *c;
    int64_t ldc;
    bool accumulate;
} mb_cpu_factors;
void mb_cpu_product(const mb_cpu_factors *f);
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

/* Query heads of a KV head; 0 where they do not divide. */
static inline int32_t mb_cpu_group(const mb_row_shape *shape)
{
    return shape->kv_heads < 1 || shape->query_heads % shape->kv_heads ? 0 : shape->query_heads / shape->kv_heads;
}

/* ---- what the table holds ---- */

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

#define MB_CPU_DECLARE(name, arguments) int mb_cpu_##name(mb_device *device, const arguments *args);
MB_OPERATIONS(MB_CPU_DECLARE)
#undef MB_CPU_DECLARE
size_t mb_cpu_votes_scratch(const mb_attention *args, int32_t k);
size_t mb_cpu_top_k_scratch(int32_t batch, int32_t kv_heads, int32_t entries);

#endif
