/*
 * panel.c - the inner product kernels of the CPU backend: a block of up to 8 x 32 results stays in vector
 * registers while one pass over k adds outer products to it.
 *
 * Written with compiler vectors instead of intrinsics: the same source serves AVX-512, AVX2 and others. OpenBLAS
 * packs both operands on every call, which at the 32 rows of a block costs a third of the time (measured: 80
 * against 116 GFLOP/s a core); here the callers lay out operands so that nothing is packed twice.
 * Invariant: an element is one chain of multiply-adds in order of k, so its bits depend neither on the position
 * in the block nor on how the caller cut m and n.
 */
#include "kernels/cpu/cpu.h"

#include <string.h>

#ifdef __AVX512F__
#define BLOCK_ROWS 8 /* 8 x 2 accumulators of 32 registers */
#define BLOCK_VECTORS 2
#else
#define BLOCK_ROWS 6 /* 6 x 1 accumulators take 12 of 16 AVX registers */
#define BLOCK_VECTORS 1
#endif

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#define UNROLL_ALL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#define UNROLL_ALL _Pragma("GCC unroll 16")
#endif

typedef struct block {
    const float *a, *b;
    float *c;
    int64_t a_row, a_col, ldb, ldc, k;
    bool accumulate;
} block;

/* rows x (vectors * MB_LANES) results; rows and vectors are constants where this is inlined. */
static inline __attribute__((always_inline)) void block_product(const block *t, const int rows, const int vectors)
{
    mb_lanes sum[8][2];
    const float *a = t->a, *b = t->b;
    int64_t a_row = t->a_row, a_col = t->a_col, ldb = t->ldb;
    UNROLL
    for (int i = 0; i < rows; i++) {
        const float *c = t->c + i * t->ldc;
        sum[i][0] = t->accumulate ? *(const mb_lanes *)c : (mb_lanes){0};
        if (vectors > 1)
            sum[i][1] = t->accumulate ? *(const mb_lanes *)(c + MB_LANES) : (mb_lanes){0};
    }
    for (int64_t p = t->k; p > 0; p--) {
        mb_lanes b0 = *(const mb_lanes *)b;
        mb_lanes b1 = vectors > 1 ? *(const mb_lanes *)(b + MB_LANES) : b0;
        UNROLL
        for (int i = 0; i < rows; i++) {
            float x = a[i * a_row];
            sum[i][0] += x * b0;
            if (vectors > 1)
                sum[i][1] += x * b1;
        }
        a += a_col;
        b += ldb;
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        float *c = t->c + i * t->ldc;
        *(mb_lanes *)c = sum[i][0];
        if (vectors > 1)
            *(mb_lanes *)(c + MB_LANES) = sum[i][1];
    }
}

#define BLOCK_CASE(r)                                                                                             \
    case r:                                                                                                       \
        if (vectors > 1)                                                                                          \
            block_product(t, r, BLOCK_VECTORS);                                                                   \
        else                                                                                                      \
            block_product(t, r, 1);                                                                               \
        break

static void block_any(const block *t, int64_t rows, int vectors)
{
    switch (rows) {
        BLOCK_CASE(1);
        BLOCK_CASE(2);
        BLOCK_CASE(3);
        BLOCK_CASE(4);
        BLOCK_CASE(5);
        BLOCK_CASE(6);
#if BLOCK_ROWS > 6
        BLOCK_CASE(7);
        BLOCK_CASE(8);
#endif
    default:
        break;
    }
}

void mb_cpu_product(const mb_cpu_factors *f)
{
    const int64_t m = f->m, n = f->n;
    block t = {.a_row = f->a_row,
               .a_col = f->a_col,
               .ldb = f->ldb,
               .ldc = f->ldc,
               .k = f->k,
               .accumulate = f->accumulate};
    for (int64_t j = 0; j < n;) {
        int vectors = n - j >= BLOCK_VECTORS * MB_LANES ? BLOCK_VECTORS : 1;
        for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
            t.a = f->a + i * f->a_row;
            t.b = f->b + j;
            t.c = f->c + i * f->ldc + j;
            block_any(&t, m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS, vectors);
        }
        j += vectors * MB_LANES;
    }
}

/* Interleaves the first (LOW) or last (HIGH) halves of two vectors. */
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef INTERLEAVE
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (mb_lane_mask){__VA_ARGS__})
#endif

/* A block of 16 x 16 in registers: four rounds of interleaving row i with row i + 8 are a transposition. */
static void transpose_block(const float *src, int64_t lds, float *dst, int64_t ldd)
{
    mb_lanes one[MB_LANES], two[MB_LANES];
    UNROLL_ALL
    for (int i = 0; i < MB_LANES; i++)
        one[i] = *(const mb_lanes *)(src + i * lds);
    UNROLL_ALL
    for (int round = 0; round < 2; round++) {
        UNROLL
        for (int i = 0; i < MB_LANES / 2; i++) {
            two[2 * i] = INTERLEAVE(one[i], one[i + 8], LOW);
            two[2 * i + 1] = INTERLEAVE(one[i], one[i + 8], HIGH);
        }
        UNROLL
        for (int i = 0; i < MB_LANES / 2; i++) {
            one[2 * i] = INTERLEAVE(two[i], two[i + 8], LOW);
            one[2 * i + 1] = INTERLEAVE(two[i], two[i + 8], HIGH);
        }
    }
    UNROLL_ALL
    for (int i = 0; i < MB_LANES; i++)
        *(mb_lanes *)(dst + i * ldd) = one[i];
}

void mb_cpu_transpose(const float *src, int64_t lds, int64_t rows, int64_t cols, float *dst, int64_t ldd)
{
    int64_t whole_rows = rows / MB_LANES * MB_LANES, whole_cols = cols / MB_LANES * MB_LANES;
    for (int64_t r = 0; r < whole_rows; r += MB_LANES)
        for (int64_t c = 0; c < whole_cols; c += MB_LANES)
            transpose_block(src + r * lds + c, lds, dst + c * ldd + r, ldd);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; c++)
            dst[c * ldd + r] = src[r * lds + c];
}

float mb_cpu_dot(const float *x, const float *y, int64_t n)
{
    float sum[MB_LANES] = {0};
    int64_t i = 0;
    for (; i + MB_LANES <= n; i += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            sum[l] += x[i + l] * y[i + l];
    for (int l = 0; i + l < n; l++)
        sum[l] += x[i + l] * y[i + l];
    float total = 0.0f;
    for (int l = 0; l < MB_LANES; l++)
        total += sum[l];
    return total;
}
