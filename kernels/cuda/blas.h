/*
 * blas.h - what the two files that call cuBLASLt share: the library's functions, its handle and work memory, and
 * the algorithms that were chosen. gemm.c opens it and multiplies by weights; train_gemm.c computes the products
 * of a training.
 */
#ifndef MB_CUDA_BLAS_H
#define MB_CUDA_BLAS_H

#include "kernels/cuda/backend.h"

#include <cublasLt.h>

#define MB_BLAS_WORKSPACE ((size_t)64 << 20)
#define MB_BLAS_SHAPES 512

/* An algorithm that was measured for a product by weights. */
typedef struct mb_blas_choice {
    int64_t m, n, k;
    int bias, type;
    cublasLtMatmulAlgo_t algorithm;
} mb_blas_choice;

/* What a product of a training is, as far as its algorithm depends on it. */
typedef struct mb_blas_shape {
    int64_t m, n, k;
    int32_t a_turned, b_turned, bias, added, reduced, alignment; /* alignment: of all arrays, bytes */
} mb_blas_shape;

typedef struct mb_blas_proposal {
    mb_blas_shape shape;
    cublasLtMatmulAlgo_t algorithm;
} mb_blas_proposal;

struct mb_cuda_blas {
    void *library;
    cublasLtHandle_t handle;
    void *workspace;
    cudaEvent_t begin, end;
    mb_blas_choice choices[MB_BLAS_SHAPES];
    int count;
    char *cache_path;
    mb_blas_proposal *proposals; /* [proposal_count] of train_gemm.c; owned */
    int proposal_count;
    /* the library's functions */
    __typeof__(&cublasLtCreate) create;
    __typeof__(&cublasLtDestroy) destroy;
    __typeof__(&cublasLtMatmul) matmul;
    __typeof__(&cublasLtMatmulDescCreate) desc_create;
    __typeof__(&cublasLtMatmulDescDestroy) desc_destroy;
    __typeof__(&cublasLtMatmulDescSetAttribute) desc_set;
    __typeof__(&cublasLtMatrixLayoutCreate) layout_create;
    __typeof__(&cublasLtMatrixLayoutDestroy) layout_destroy;
    __typeof__(&cublasLtMatmulPreferenceCreate) preference_create;
    __typeof__(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    __typeof__(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    __typeof__(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    __typeof__(&cublasLtMatmulAlgoCheck) algorithm_check;
    __typeof__(&cublasLtMatmulAlgoConfigGetAttribute) algorithm_get;
    __typeof__(&cublasLtGetVersion) version;
};

#endif
