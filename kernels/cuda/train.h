/*
 * train.h - the CUDA side of kernels/training.h: declarations of its operations, how a .cu file defines one, and
 * the steps that several of them share.
 *
 * Everything is fp32 in memory. device->reduced says whether products may round their operands; sums
 * are in fp32 either way. Sums over rows are taken in pieces that the shapes alone give: results
 * are bit-equal from run to run, there are no floating-point atomics.
 */
#ifndef MB_CUDA_TRAIN_H
#define MB_CUDA_TRAIN_H

#include "kernels/cuda/backend.h"
#include "kernels/training.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MB_CUDA_TRAINING_DECLARE(name, arguments) int mb_cuda_##name(mb_device *device, const arguments *args);
MB_TRAINING_OPERATIONS(MB_CUDA_TRAINING_DECLARE)
#undef MB_CUDA_TRAINING_DECLARE

/* Defines one of them in a .cu file, as MB_CUDA_OPERATION does. What it enqueues finds `work`, device memory of at
 * least `bytes` bytes that holds nothing between calls. */
#define MB_CUDA_TRAINING_OPERATION(name, arguments, part, bytes)                                                  \
    static cudaError_t launch_##name(mb_device *device, const arguments *args, void *work);                       \
    extern "C" int mb_cuda_##name(mb_device *device, const arguments *args)                                       \
    {                                                                                                             \
        int rc = mb_cuda_train_work(device, #name, (size_t)(bytes));                                              \
        if (rc != MB_OK)                                                                                          \
            return rc;                                                                                            \
        mb_cuda_part_begin(device, part);                                                                         \
        cudaError_t status = launch_##name(device, args, device->workspace);                                      \
        mb_cuda_part_end(device);                                                                                 \
        return mb_cuda_check(device, status, #name);                                                              \
    }                                                                                                             \
    static cudaError_t launch_##name(mb_device *device, const arguments *args, void *work)

/* The device was opened for fp32, and its work memory has room. */
int mb_cuda_train_work(mb_device *device, const char *operation, size_t bytes);

/* total[n] += column sums of x [m][n]; work: of mb_cuda_train_column_sums_work() bytes. */
size_t mb_cuda_train_column_sums_work(int64_t m, int64_t n);
cudaError_t mb_launch_train_column_sums(cudaStream_t stream, const float *x, int64_t m, int64_t n, float *total,
                                        void *work);
/* total[width] += partial[pieces][width], in an order that the shape gives. */
cudaError_t mb_launch_train_fold(cudaStream_t stream, const float *partial, int64_t pieces, int64_t width,
                                 int64_t stride, float *total);

/* The sum of squares of x [n], in double, to the beginning of work (mb_cuda_square_sum_work() bytes). */
size_t mb_cuda_square_sum_work(void);
cudaError_t mb_launch_square_sum(cudaStream_t stream, const float *x, int64_t n, void *work);

/* ---- attention: train_attention_plain.cu takes every shape, in fp32 ---- */
int mb_cuda_train_attend_plain(mb_device *device, const mb_train_attention *args);
int mb_cuda_train_attend_gradient_plain(mb_device *device, const mb_train_attention *args);

#ifdef __cplusplus
}
#endif
#endif
