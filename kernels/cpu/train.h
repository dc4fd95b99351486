/*
 * train.h - what the files of the CPU's training operations share: their declarations, products of any width, and
 * a job over rows.
 */
#ifndef MB_KERNELS_CPU_TRAIN_H
#define MB_KERNELS_CPU_TRAIN_H

#include "kernels/cpu/cpu.h"
#include "kernels/training.h"

#define MB_TRAINING_DECLARE(name, arguments) int mb_cpu_##name(mb_device *device, const arguments *args);
MB_TRAINING_OPERATIONS(MB_TRAINING_DECLARE)
#undef MB_TRAINING_DECLARE

/* As mb_cpu_product, for any n: columns behind the last whole vector are summed one by one, in the same order. */
static inline void mb_cpu_product_any(const mb_cpu_factors *f)
{
    mb_cpu_factors whole = *f;
    whole.n = f->n / MB_LANES * MB_LANES;
    if (whole.n > 0)
        mb_cpu_product(&whole);
    for (int64_t i = 0; i < f->m; i++)
        for (int64_t j = whole.n; j < f->n; j++) {
            float sum = f->accumulate ? f->c[i * f->ldc + j] : 0.0f;
            for (int64_t p = 0; p < f->k; p++)
                sum += f->a[i * f->a_row + p * f->a_col] * f->b[p * f->ldb + j];
            f->c[i * f->ldc + j] = sum;
        }
}

/* Rows of a piece whose partial sums over rows are added up afterwards: from no shape but this. */
#define MB_TRAIN_PIECE 64
static inline int64_t mb_train_pieces(int64_t n)
{
    return (n + MB_TRAIN_PIECE - 1) / MB_TRAIN_PIECE;
}
static inline int64_t mb_train_last(int64_t piece, int64_t n)
{
    return (piece + 1) * MB_TRAIN_PIECE < n ? (piece + 1) * MB_TRAIN_PIECE : n;
}

/* total[width] += partial[piece][width], pieces in order. */
static inline void mb_train_fold(const float *partial, int64_t pieces, int64_t width, float *total)
{
    for (int64_t p = 0; p < pieces; p++)
        for (int64_t c = 0; c < width; c++)
            total[c] += partial[p * width + c];
}

/* Every operation here is fp32. */
static inline int mb_train_check(mb_device *device, const char *operation)
{
    return device->type == MB_F32
               ? MB_OK
               : mb_cpu_fail(device, MB_E_BUG, "%s: the device was not opened for fp32", operation);
}

#endif
