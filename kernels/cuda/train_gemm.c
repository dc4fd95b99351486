/*
 * train_gemm.c - the products of a training through cuBLASLt: y = a W^T (+ bias, + what is added), and their
 * gradients da = dy W, dW += dy^T a.
 *
 * Their shapes change from step to step with the number of targets, so nothing is measured: the library's own
 * first proposal is taken, which depends on the shape, the GPU and the library's version alone. Proposals that add
 * partial sums in an undefined order are left out. So two trainings are bit-equal.
 */
#include "kernels/cuda/blas.h"
#include "kernels/cuda/table.h"
#include "kernels/cuda/train.h"

#include <stdlib.h>
#include <string.h>

#define PROPOSALS 4096 /* shapes that are remembered; further ones are asked for again */

/* Row-major out[m][n] = A B (+ bias) (+ added). A is a[m][k], or a[k][m] turned; B is b[k][n], or b[n][k] turned.
 */
typedef struct product {
    const float *a, *b, *bias, *added;
    float *out;
    int64_t m, n, k;
    bool a_turned, b_turned;
} product;

/* The product as cuBLASLt describes it: a row-major matrix is a column-major one on its side, so the two change
 * places. */
typedef struct description {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t left, right, output;
} description;

static void description_free(const mb_cuda_blas *blas, description *d)
{
    if (d->output)
        blas->layout_destroy(d->output);
    if (d->right)
        blas->layout_destroy(d->right);
    if (d->left)
        blas->layout_destroy(d->left);
    if (d->operation)
        blas->desc_destroy(d->operation);
}

static cublasStatus_t set_operation(const mb_cuda_blas *blas, const product *p, cublasLtMatmulDesc_t operation)
{
    const cublasOperation_t left = p->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t right = p->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t s = blas->desc_set(operation, CUBLASLT_MATMUL_DESC_TRANSA, &left, sizeof left);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = blas->desc_set(operation, CUBLASLT_MATMUL_DESC_TRANSB, &right, sizeof right);
    if (s == CUBLAS_STATUS_SUCCESS && p->bias)
        s = blas->desc_set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (s == CUBLAS_STATUS_SUCCESS && p->bias)
        s = blas->desc_set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
    return s;
}

static cublasStatus_t describe(const mb_cuda_blas *blas, const product *p, bool reduced, description *d)
{
    const uint64_t m = (uint64_t)p->m, n = (uint64_t)p->n, k = (uint64_t)p->k;
    *d = (description){0};
    cublasStatus_t s =
        blas->desc_create(&d->operation, reduced ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = set_operation(blas, p, d->operation);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = p->b_turned ? blas->layout_create(&d->left, CUDA_R_32F, k, n, p->k)
                        : blas->layout_create(&d->left, CUDA_R_32F, n, k, p->n);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = p->a_turned ? blas->layout_create(&d->right, CUDA_R_32F, m, k, p->m)
                        : blas->layout_create(&d->right, CUDA_R_32F, k, m, p->k);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = blas->layout_create(&d->output, CUDA_R_32F, n, m, p->n);
    return s;
}

/* ---- which algorithm ---- */

/* What all arrays are aligned to, 256 bytes at most. */
static int32_t alignment_of(const product *p)
{
    const uintptr_t all =
        (uintptr_t)p->a | (uintptr_t)p->b | (uintptr_t)p->out | (uintptr_t)p->added | (uintptr_t)p->bias | 256;
    return (int32_t)(all & -all);
}

static mb_blas_shape shape_of(const product *p, bool reduced)
{
    mb_blas_shape shape;
    memset(&shape, 0, sizeof shape); /* compared as bytes */
    shape.m = p->m;
    shape.n = p->n;
    shape.k = p->k;
    shape.a_turned = p->a_turned;
    shape.b_turned = p->b_turned;
    shape.bias = p->bias != NULL;
    shape.added = p->added != NULL;
    shape.reduced = reduced;
    shape.alignment = alignment_of(p);
    return shape;
}

/* The library's first proposal; false where it has none. */
static bool propose(const mb_cuda_blas *blas, const description *d, int32_t alignment,
                    cublasLtMatmulAlgo_t *algorithm)
{
    static const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, aligned = (uint32_t)alignment;
    const size_t bytes = MB_BLAS_WORKSPACE;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    if (blas->preference_create(&preference) != CUBLAS_STATUS_SUCCESS)
        return false;
    bool good = blas->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes) ==
                    CUBLAS_STATUS_SUCCESS &&
                blas->preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                                     sizeof schemes) == CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; good && i < sizeof sides / sizeof sides[0]; i++)
        good = blas->preference_set(preference, sides[i], &aligned, sizeof aligned) == CUBLAS_STATUS_SUCCESS;
    good = good &&
           blas->heuristic(blas->handle, d->operation, d->left, d->right, d->output, d->output, preference, 1,
                           &result, &found) == CUBLAS_STATUS_SUCCESS &&
           found > 0 && result.state == CUBLAS_STATUS_SUCCESS;
    if (good)
        *algorithm = result.algo;
    blas->preference_destroy(preference);
    return good;
}

static bool choose(mb_cuda_blas *blas, const product *p, const description *d, bool reduced,
                   cublasLtMatmulAlgo_t *algorithm)
{
    const mb_blas_shape shape = shape_of(p, reduced);
    for (int i = 0; i < blas->proposal_count; i++)
        if (memcmp(&blas->proposals[i].shape, &shape, sizeof shape) == 0) {
            *algorithm = blas->proposals[i].algorithm;
            return true;
        }
    if (!propose(blas, d, shape.alignment, algorithm))
        return false;
    if (!blas->proposals)
        blas->proposals = calloc(PROPOSALS, sizeof *blas->proposals);
    if (blas->proposals && blas->proposal_count < PROPOSALS)
        blas->proposals[blas->proposal_count++] = (mb_blas_proposal){shape, *algorithm};
    return true;
}

static int multiply(mb_device *device, const product *p)
{
    mb_cuda_blas *blas = device->blas;
    const float one = 1.0f, beta = p->added ? 1.0f : 0.0f;
    cublasLtMatmulAlgo_t algorithm;
    description d;
    const char *failed = NULL;
    if (p->m == 0 || p->n == 0)
        return MB_OK;
    if (describe(blas, p, device->reduced, &d) != CUBLAS_STATUS_SUCCESS)
        failed = "refuses";
    else if (!choose(blas, p, &d, device->reduced, &algorithm))
        failed = "has no algorithm for";
    else if (blas->matmul(blas->handle, d.operation, &one, p->b, d.left, p->a, d.right, &beta,
                          p->added ? p->added : p->out, d.output, p->out, d.output, &algorithm, blas->workspace,
                          MB_BLAS_WORKSPACE, device->stream) != CUBLAS_STATUS_SUCCESS)
        failed = "did not start";
    description_free(blas, &d);
    return failed ? mb_fail(&device->error, MB_E_SYSTEM, "cuBLASLt %s a %lld x %lld x %lld product of a training",
                            failed, (long long)p->m, (long long)p->n, (long long)p->k)
                  : MB_OK;
}

/* ---- operations ---- */

int mb_cuda_train_gemm(mb_device *device, const mb_train_gemm *args)
{
    int rc = mb_cuda_train_work(device, "train_gemm", 0);
    if (rc != MB_OK)
        return rc;
    mb_cuda_part_begin(device, MB_PART_GEMM);
    rc = multiply(device, &(product){.a = args->a,
                                     .b = args->weight,
                                     .b_turned = true,
                                     .bias = args->bias,
                                     .added = args->add,
                                     .out = args->out,
                                     .m = args->m,
                                     .n = args->n,
                                     .k = args->k});
    mb_cuda_part_end(device);
    return rc;
}

int mb_cuda_gemm_gradient(mb_device *device, const mb_gemm_gradient *args)
{
    int rc = mb_cuda_train_work(device, "gemm_gradient",
                                args->dbias ? mb_cuda_train_column_sums_work(args->m, args->n) : 0);
    if (rc != MB_OK)
        return rc;
    mb_cuda_part_begin(device, MB_PART_GEMM);
    if (args->da)
        rc = multiply(
            device,
            &(product){
                .a = args->dy, .b = args->weight, .out = args->da, .m = args->m, .n = args->k, .k = args->n});
    if (rc == MB_OK && args->dweight)
        rc = multiply(device, &(product){.a = args->dy,
                                         .a_turned = true,
                                         .b = args->a,
                                         .added = args->dweight,
                                         .out = args->dweight,
                                         .m = args->n,
                                         .n = args->k,
                                         .k = args->m});
    if (rc == MB_OK && args->dbias)
        rc = mb_cuda_check(device,
                           mb_launch_train_column_sums(device->stream, args->dy, args->m, args->n, args->dbias,
                                                       device->workspace),
                           "gemm_gradient");
    mb_cuda_part_end(device);
    return rc;
}
