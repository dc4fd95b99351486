/*
 * train_gemm.c - a product with what is added to it, its gradients, and those of an embedding.
 *
 * y = a W^T + b with y [m][n], a [m][k], W [n][k]. Then da = dy W and dW += dy^T a, both products of row-major
 * matrices whose right side lies as mb_cpu_product wants it, so that nothing is packed. Depth is cut into
 * stretches that keep the right side's columns in the cache; each element is one chain over the depth, whatever
 * the threads.
 */
#include "kernels/cpu/train.h"

#define ROWS 64    /* of a result's piece */
#define COLUMNS 64 /* of a result's piece */
#define DEPTH 256  /* of one pass */

typedef struct product_job {
    mb_cpu_factors all;
    int64_t across; /* pieces of a line */
} product_job;

static void product_piece(void *arg, int64_t index, int worker)
{
    const product_job *job = arg;
    const mb_cpu_factors *all = &job->all;
    int64_t row = index / job->across * ROWS, column = index % job->across * COLUMNS;
    (void)worker;
    for (int64_t first = 0; first < all->k; first += DEPTH) {
        mb_cpu_factors f = *all;
        f.m = all->m - row < ROWS ? all->m - row : ROWS;
        f.n = all->n - column < COLUMNS ? all->n - column : COLUMNS;
        f.k = all->k - first < DEPTH ? all->k - first : DEPTH;
        f.a = all->a + row * all->a_row + first * all->a_col;
        f.b = all->b + first * all->ldb + column;
        f.c = all->c + row * all->ldc + column;
        f.accumulate = all->accumulate || first > 0;
        mb_cpu_product_any(&f);
    }
}

static void run_product(mb_device *device, const mb_cpu_factors *factors)
{
    product_job job = {*factors, (factors->n + COLUMNS - 1) / COLUMNS};
    mb_cpu_run(device, (factors->m + ROWS - 1) / ROWS * job.across, product_piece, &job);
}

typedef struct sum_job {
    const float *dy;
    float *dbias;
    int64_t m, n;
} sum_job;

/* Column sums of MB_TRAIN_PIECE columns. */
static void sum_piece(void *arg, int64_t index, int worker)
{
    const sum_job *job = arg;
    int64_t last = mb_train_last(index, job->n);
    (void)worker;
    for (int64_t r = 0; r < job->m; r++)
        for (int64_t c = index * MB_TRAIN_PIECE; c < last; c++)
            job->dbias[c] += job->dy[r * job->n + c];
}

int mb_cpu_train_gemm(mb_device *device, const mb_train_gemm *args)
{
    int rc = mb_train_check(device, "train_gemm");
    if (rc == MB_OK)
        rc = mb_cpu_gemm(device, &(mb_gemm){.a = args->a,
                                            .weight = args->weight,
                                            .bias = args->bias,
                                            .m = args->m,
                                            .n = args->n,
                                            .k = args->k,
                                            .out = args->out});
    for (int64_t i = 0; rc == MB_OK && args->add && i < args->m * args->n; i++)
        args->out[i] = args->add[i] + args->out[i];
    return rc;
}

int mb_cpu_gemm_gradient(mb_device *device, const mb_gemm_gradient *args)
{
    int rc = mb_train_check(device, "gemm_gradient");
    if (rc != MB_OK)
        return rc;
    int64_t m = args->m, n = args->n, k = args->k;
    if (args->da)
        run_product(device, &(mb_cpu_factors){.m = m,
                                              .n = k,
                                              .k = n,
                                              .a = args->dy,
                                              .a_row = n,
                                              .a_col = 1,
                                              .b = args->weight,
                                              .ldb = k,
                                              .c = args->da,
                                              .ldc = k});
    if (args->dweight)
        run_product(device, &(mb_cpu_factors){.m = n,
                                              .n = k,
                                              .k = m,
                                              .a = args->dy,
                                              .a_row = 1,
                                              .a_col = n,
                                              .b = args->a,
                                              .ldb = k,
                                              .c = args->dweight,
                                              .ldc = k,
                                              .accumulate = true});
    if (args->dbias) {
        sum_job job = {args->dy, args->dbias, m, n};
        mb_cpu_run(device, mb_train_pieces(n), sum_piece, &job);
    }
    return MB_OK;
}

/* A piece owns columns of the table: two rows with the same id are added in the order of the batch. */
static void embed_piece(void *arg, int64_t index, int worker)
{
    const mb_embed_gradient *args = arg;
    int64_t last = mb_train_last(index, args->width);
    (void)worker;
    for (int64_t i = 0; i < args->n; i++)
        for (int64_t c = index * MB_TRAIN_PIECE; c < last; c++)
            args->dtable[args->ids[i] * args->width + c] += args->dy[i * args->width + c];
}

int mb_cpu_embed_gradient(mb_device *device, const mb_embed_gradient *args)
{
    mb_embed_gradient copy = *args;
    int rc = mb_train_check(device, "embed_gradient");
    for (int64_t i = 0; rc == MB_OK && i < args->n; i++)
        if (args->ids[i] < 0 || args->ids[i] >= args->vocab)
            rc = mb_cpu_fail(device, MB_E_BUG, "embed_gradient: token id %d at row %lld is not in 0..%lld",
                             args->ids[i], (long long)i, (long long)args->vocab - 1);
    if (rc == MB_OK)
        mb_cpu_run(device, mb_train_pieces(args->width), embed_piece, &copy);
    return rc;
}
