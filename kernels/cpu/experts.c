/*
 * experts.c - the feed-forward layer of chosen experts: for each expert its rows are gathered, go through the GEMM
 * of this backend, SwiGLU, the second GEMM; then every row adds up what its experts made of it.
 *
 * Roundings are those of gemm and swiglu; the sum's are named in kernels.h (mb_combine). Pairs (row, place in its
 * list) of an expert are in rising order, so a result does not depend on the other rows of the batch.
 */
#include "kernels/cpu/cpu.h"

typedef struct experts_job {
    mb_device *device;
    const mb_experts *args;
    int32_t *place; /* [n*top_k] where the output of a pair lies */
    char *outputs;  /* of all pairs, by expert */
} experts_job;

/* Stable counting sort of the pairs by expert. starts [experts + 1]. */
static int sort_pairs(mb_device *device, const mb_experts *args, int32_t *starts, int32_t *order)
{
    int64_t pairs = args->n * args->top_k;
    memset(starts, 0, ((size_t)args->experts + 1) * sizeof *starts);
    for (int64_t p = 0; p < pairs; p++) {
        if (args->ids[p] < 0 || args->ids[p] >= args->experts)
            return mb_cpu_fail(device, MB_E_BUG, "experts: expert %d at row %lld is not in 0..%d", args->ids[p],
                               (long long)(p / args->top_k), args->experts - 1);
        starts[args->ids[p] + 1]++;
    }
    for (int32_t e = 0; e < args->experts; e++)
        starts[e + 1] += starts[e];
    for (int64_t p = 0; p < pairs; p++)
        order[starts[args->ids[p]]++] = (int32_t)p;
    for (int32_t e = args->experts; e > 0; e--) /* each start has moved to its end */
        starts[e] = starts[e - 1];
    starts[0] = 0;
    return MB_OK;
}

static void add_row(float *y, const float *x, float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += weight * x[i];
}

/* y = T(y + T(weight * x)). */
static void step_row(mb_type type, float *y, const float *x, float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = mb_round_to(type, y[i] + mb_round_to(type, weight * x[i]));
}

/* The place in a row's list that comes next: the list's order, or by rising expert behind `expert`. */
static int32_t next_place(const mb_experts *args, const int32_t *ids, int32_t step, int32_t expert)
{
    int32_t best = -1;
    if (args->combine == MB_COMBINE_SUM)
        return step;
    for (int32_t k = 0; k < args->top_k; k++)
        if (ids[k] > expert && (best < 0 || ids[k] < ids[best]))
            best = k;
    return best;
}

static void combine_piece(void *arg, int64_t row, int worker)
{
    const experts_job *job = arg;
    const mb_experts *args = job->args;
    mb_type type = job->device->type;
    int64_t width = args->width;
    float *y = job->device->private_scratch[worker], *x = y + mb_cpu_round_up(width, MB_LANES);
    const int32_t *ids = args->ids + row * args->top_k;
    int32_t expert = -1;
    memset(y, 0, (size_t)width * sizeof *y);
    for (int32_t step = 0; step < args->top_k; step++) {
        int32_t k = next_place(args, ids, step, expert);
        if (k < 0)
            break;
        expert = ids[k];
        mb_load_row(type, job->outputs, (int64_t)job->place[row * args->top_k + k] * width, width, x);
        if (args->combine == MB_COMBINE_SUM)
            add_row(y, x, args->weights[row * args->top_k + k], width);
        else
            step_row(type, y, x, args->weights[row * args->top_k + k], width);
    }
    if (args->add) {
        mb_load_row(type, args->add, row * width, width, x);
        for (int64_t i = 0; i < width; i++)
            y[i] = mb_round_to(type, y[i]) + x[i];
    }
    mb_store_row(type, args->out, row * width, width, y);
}

int mb_cpu_experts(mb_device *device, const mb_experts *args)
{
    if (args->n < 0 || args->width < 1 || args->size < 1 || args->experts < 1 || args->top_k < 1 ||
        args->top_k > args->experts || args->out == args->hidden)
        return mb_cpu_fail(device, MB_E_BUG, "experts: %d of %d experts of %lld x %d do not fit", args->top_k,
                           args->experts, (long long)args->width, args->size);
    const size_t element = mb_type_size(device->type), width = (size_t)args->width, size = (size_t)args->size;
    const int64_t pairs = args->n * args->top_k;
    char *inner = (char *)args->scratch + mb_experts_lists_bytes(args->n, args->experts, args->top_k);
    char *outputs = inner + mb_experts_inner_bytes(args->n, args->top_k, args->size, device->type);
    char *product = inner + (size_t)args->n * 2 * size * element; /* behind gate and up of one expert */
    int32_t *starts = args->scratch, *order = starts + args->experts + 1;
    int rc = sort_pairs(device, args, starts, order);
    for (int32_t e = 0; e < args->experts && rc == MB_OK; e++) {
        int64_t rows = starts[e + 1] - starts[e];
        char *at = outputs + (size_t)starts[e] * width * element;
        if (rows == 0)
            continue;
        /* The gathered inputs lie where the outputs will be. */
        for (int64_t i = 0; i < rows; i++)
            memcpy(at + (size_t)i * width * element,
                   (const char *)args->hidden + (size_t)(order[starts[e] + i] / args->top_k) * width * element,
                   width * element);
        rc = mb_cpu_gemm(device,
                         &(mb_gemm){.a = at,
                                    .weight = (const char *)args->gate_up + (size_t)e * 2 * size * width * element,
                                    .m = rows,
                                    .n = 2 * args->size,
                                    .k = args->width,
                                    .out = inner});
        if (rc == MB_OK)
            rc = mb_cpu_swiglu(device, &(mb_swiglu){inner, rows, args->size, product, args->activation});
        if (rc == MB_OK)
            rc = mb_cpu_gemm(device,
                             &(mb_gemm){.a = product,
                                        .weight = (const char *)args->down + (size_t)e * width * size * element,
                                        .m = rows,
                                        .n = args->width,
                                        .k = args->size,
                                        .out = at});
    }
    if (rc == MB_OK)
        rc = mb_cpu_reserve(device, (size_t)pairs * sizeof(int32_t) + 64,
                            2 * (size_t)mb_cpu_round_up(args->width, MB_LANES) * sizeof(float));
    if (rc != MB_OK)
        return rc;
    experts_job job = {device, args, device->shared, outputs};
    for (int64_t i = 0; i < pairs; i++)
        job.place[order[i]] = (int32_t)i;
    mb_cpu_run(device, args->n, combine_piece, &job);
    return MB_OK;
}
