/*
 * gemm.c - out = T(a * weight^T + bias), fp32 inside.
 *
 * The activations are the few rows, the weights the bulk. So the product is computed transposed: 32 output
 * features at a time are widened from T into a thread's scratch (contiguous rows, cheap) and multiplied with
 * the activations, which were transposed once into panels of 32 rows. No copy of the weights is kept: they stay
 * in T, at half of fp32's memory traffic. Error against real arithmetic on the same T inputs: k * 2^-24
 * relative to sum |a||w|, then one rounding to T.
 */
#include "kernels/cpu/cpu.h"

#define FEATURES 32 /* output features of a piece */
#define PANEL 32    /* activation rows of a panel */
#define GROUP 256   /* activation rows of a piece */
#define DEPTH 512   /* k of one pass: 32 widened weight rows stay in the L2 cache */

typedef struct gemm_job {
    mb_device *device;
    const void *a, *weight, *bias;
    void *out;
    int64_t m, n, k, groups;
    float *panels; /* [panel][k][width]; width is PANEL, or 16 for a last panel of up to 16 rows */
} gemm_job;

static int64_t panel_width(const gemm_job *job, int64_t panel)
{
    int64_t rows = job->m - panel * PANEL;
    return rows >= PANEL ? PANEL : mb_cpu_round_up(rows, MB_LANES);
}

/* Widens and transposes one panel of activation rows; missing rows become zeros. */
static void pack_panel(void *arg, int64_t panel, int worker)
{
    const gemm_job *job = arg;
    int64_t width = panel_width(job, panel), k = job->k;
    int64_t rows = job->m - panel * PANEL < PANEL ? job->m - panel * PANEL : PANEL;
    float *to = job->panels + panel * PANEL * k;
    float *rows32 = job->device->private_scratch[worker];
    for (int64_t first = 0; first < k; first += DEPTH) {
        int64_t depth = k - first < DEPTH ? k - first : DEPTH;
        for (int64_t r = 0; r < rows; r++)
            mb_load_row(job->device->type, job->a, (panel * PANEL + r) * k + first, depth, rows32 + r * DEPTH);
        memset(rows32 + rows * DEPTH, 0, (size_t)((width - rows) * DEPTH) * sizeof(float));
        mb_cpu_transpose(rows32, DEPTH, width, depth, to + first * width, width);
    }
}

/* Asks the caches for columns first .. first+depth-1 of `count` features. */
static void prefetch_features(const gemm_job *job, int64_t feature, int64_t count, int64_t first, int64_t depth)
{
    int64_t size = (int64_t)mb_type_size(job->device->type);
    for (int64_t i = 0; i < count && feature + i < job->n; i++)
        for (int64_t c = 0; c < depth * size; c += 64)
            __builtin_prefetch((const char *)job->weight + ((feature + i) * job->k + first) * size + c);
}

/* Adds the bias to `rows` lines of features and stores them. */
static void store_piece(const gemm_job *job, int64_t row, int64_t rows, int64_t feature, int64_t features,
                        float *turned)
{
    mb_type type = job->device->type;
    float bias[FEATURES] = {0};
    if (job->bias)
        mb_load_row(type, job->bias, feature, features, bias);
    for (int64_t r = 0; r < rows; r++) {
        float *line = turned + r * FEATURES;
        if (job->bias)
            for (int64_t f = 0; f < features; f++)
                line[f] += bias[f];
        mb_store_row(type, job->out, (row + r) * job->n + feature, features, line);
    }
}

static void gemm_piece(void *arg, int64_t index, int worker)
{
    const gemm_job *job = arg;
    mb_type type = job->device->type;
    int64_t feature = index / job->groups * FEATURES, row = index % job->groups * GROUP;
    int64_t features = job->n - feature < FEATURES ? job->n - feature : FEATURES;
    int64_t rows = job->m - row < GROUP ? job->m - row : GROUP;
    float *wide = job->device->private_scratch[worker]; /* [FEATURES][DEPTH] */
    float *sums = wide + FEATURES * DEPTH;              /* [FEATURES][GROUP] */
    float *turned = sums + FEATURES * GROUP;            /* [GROUP][FEATURES] */
    /* With one panel of rows a few features at a time, while the cache fetches the next ones; with several panels
     * all features, so that a panel is read once. */
    int64_t step = rows <= PANEL ? 8 : FEATURES;
    for (int64_t first = 0; first < job->k; first += DEPTH) {
        int64_t depth = job->k - first < DEPTH ? job->k - first : DEPTH;
        for (int64_t f = 0; f < features; f += step) {
            int64_t n = features - f < step ? features - f : step;
            for (int64_t i = f; i < f + n; i++)
                mb_load_row(type, job->weight, (feature + i) * job->k + first, depth, wide + (i - f) * DEPTH);
            prefetch_features(job, feature + f + n, n, first, depth);
            for (int64_t r = 0; r < rows; r += PANEL) {
                int64_t panel = (row + r) / PANEL, width = panel_width(job, panel);
                mb_cpu_product(&(mb_cpu_factors){.m = n,
                                                 .n = width,
                                                 .k = depth,
                                                 .a = wide,
                                                 .a_row = DEPTH,
                                                 .a_col = 1,
                                                 .b = job->panels + panel * PANEL * job->k + first * width,
                                                 .ldb = width,
                                                 .c = sums + f * GROUP + r,
                                                 .ldc = GROUP,
                                                 .accumulate = first > 0});
            }
        }
    }
    mb_cpu_transpose(sums, GROUP, features, rows, turned, FEATURES);
    store_piece(job, row, rows, feature, features, turned);
}

int mb_cpu_gemm(mb_device *device, const mb_gemm *args)
{
    int64_t m = args->m, n = args->n, k = args->k;
    if (m < 0 || n < 0 || k < 1)
        return mb_cpu_fail(device, MB_E_BUG, "gemm: impossible shape %lld x %lld x %lld", (long long)m,
                           (long long)n, (long long)k);
    if (m == 0 || n == 0)
        return MB_OK;
    int64_t panels = (m + PANEL - 1) / PANEL;
    size_t each = (FEATURES * DEPTH + 2 * FEATURES * GROUP) * sizeof(float);
    int rc = mb_cpu_reserve(device, (size_t)(panels * PANEL * k) * sizeof(float) + 64, each);
    if (rc != MB_OK)
        return rc;
    gemm_job job = {.device = device,
                    .a = args->a,
                    .weight = args->weight,
                    .bias = args->bias,
                    .out = args->out,
                    .m = m,
                    .n = n,
                    .k = k,
                    .groups = (m + GROUP - 1) / GROUP,
                    .panels = device->shared};
    mb_cpu_run(device, panels, pack_panel, &job);
    mb_cpu_run(device, (n + FEATURES - 1) / FEATURES * job.groups, gemm_piece, &job);
    return MB_OK;
}
