/*
 * bench.c - timing. On a backend with graphs a sample is one replay of a graph of many calls, so that launch gaps
 * of the host stay out; calls rotate through several input sets when one set would stay in the chip's L2 cache. On
 * the CPU a sample is a number of plain calls. Every figure is a median over at least 20 samples after a warm-up.
 */
#include "kernels/bench.h"
#include "kernels/bench_problem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 25
#define SAMPLE_US 2000.0 /* a sample takes at least this long where a call is shorter */
#define MAX_CALLS 512
#define CACHED_BYTES ((double)(120u << 20)) /* smaller working sets could live in a 60 MB L2 */
#define ROTATED_BYTES ((double)(240u << 20))
#define COPY_BYTES_GRAPHS ((size_t)4 << 30)
#define COPY_BYTES_PLAIN ((size_t)64 << 20)
#define GEMM_WIDTH_GRAPHS 8192
#define GEMM_WIDTH_PLAIN 512

typedef int (*call)(void *context, int64_t i);

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Calls i = 0 .. n-1 in one graph. The capture is closed on failure too: the device must stay usable. */
static int capture(const mb_kernels *kernels, mb_device *device, call work, void *context, int32_t n,
                   mb_graph **graph)
{
    int rc = kernels->capture_begin(device);
    if (rc != MB_OK)
        return rc;
    for (int32_t i = 0; rc == MB_OK && i < n; i++)
        rc = work(context, i);
    int end = kernels->capture_end(device, graph);
    return rc != MB_OK ? rc : end;
}

static int sample(const mb_kernels *kernels, mb_device *device, mb_graph *graph, call work, void *context,
                  int32_t n, double *us)
{
    int rc = kernels->timer_mark(device, 0);
    if (rc == MB_OK && graph)
        rc = kernels->graph_launch(device, graph);
    for (int32_t i = 0; rc == MB_OK && !graph && i < n; i++)
        rc = work(context, i);
    if (rc == MB_OK)
        rc = kernels->timer_mark(device, 1);
    if (rc == MB_OK)
        rc = kernels->timer_elapsed(device, 0, 1, us);
    return rc;
}

/* sets: calls i and i + sets use the same arrays; a sample holds whole rounds. graphs: replay a graph of the
 * calls. */
static int measure(const mb_kernels *kernels, mb_device *device, call work, void *context, int32_t sets,
                   bool graphs, mb_bench_time *time)
{
    mb_graph *graph = NULL;
    double us[SAMPLES], estimate = 0.0;
    int rc = MB_OK;
    for (int i = 0; rc == MB_OK && i < 2;
         i++) /* the first call of a shape may choose algorithms and grow buffers */
        rc = work(context, i % sets);
    if (rc == MB_OK)
        rc = kernels->sync(device);
    if (rc == MB_OK)
        rc = sample(kernels, device, NULL, work, context, 1, &estimate);
    if (rc != MB_OK)
        goto out;
    double rounds = SAMPLE_US / (estimate > 0.5 ? estimate : 0.5) / sets;
    int32_t calls = rounds > (double)MAX_CALLS / sets ? MAX_CALLS / sets : (int32_t)rounds + 1;
    calls *= sets;
    if (graphs)
        rc = capture(kernels, device, work, context, calls, &graph);
    for (int i = 0; rc == MB_OK && graph && i < 2; i++)
        rc = kernels->graph_launch(device, graph);
    for (int i = 0; rc == MB_OK && i < SAMPLES; i++)
        rc = sample(kernels, device, graph, work, context, calls, &us[i]);
    if (rc != MB_OK)
        goto out;
    qsort(us, SAMPLES, sizeof *us, ascending);
    *time = (mb_bench_time){.median_us = us[SAMPLES / 2] / calls,
                            .p10_us = us[SAMPLES / 10] / calls,
                            .p90_us = us[SAMPLES - 1 - SAMPLES / 10] / calls,
                            .samples = SAMPLES,
                            .calls = calls};
out:
    if (graph)
        kernels->graph_free(device, graph);
    return rc;
}

/* ---- ceilings ---- */

typedef struct copy_work {
    const mb_kernels *kernels;
    mb_device *device;
    void *to, *from;
    size_t bytes;
} copy_work;

static int copy_call(void *context, int64_t i)
{
    const copy_work *w = context;
    (void)i;
    return w->kernels->copy(w->device, w->to, w->from, w->bytes);
}

static int problem_call(void *context, int64_t i)
{
    const mb_bench_problem *p = context;
    return mb_bench_launch(p, (int)(i % p->count));
}

int mb_bench_measure_ceilings(const mb_kernels *kernels, mb_device *device, mb_type type,
                              mb_bench_ceilings *ceilings, mb_error *err)
{
    const bool graphs = kernels->capture_begin != NULL;
    const int64_t width = graphs ? GEMM_WIDTH_GRAPHS : GEMM_WIDTH_PLAIN;
    const mb_kernel_case gemm = {
        .name = "ceiling", .operation = MB_OP_gemm, .use = MB_CASE_BENCH, .m = width, .n = width, .k = width};
    mb_bench_problem *p = mb_bench_problem_new(kernels, device, type, &gemm);
    size_t mark = kernels->mark(device), bytes = graphs ? COPY_BYTES_GRAPHS : COPY_BYTES_PLAIN;
    mb_device_info info;
    int rc = p ? mb_bench_noise(p) : MB_E_SYSTEM;
    kernels->info(device, &info);
    while (bytes > info.arena_free / 4)
        bytes /= 2;
    memset(ceilings, 0, sizeof *ceilings);
    if (rc == MB_OK) {
        size_t inner = kernels->mark(device);
        copy_work work = {.kernels = kernels, .device = device, .bytes = bytes};
        work.from = mb_bench_values(p, (int64_t)(bytes / mb_type_size(type)));
        work.to = mb_bench_values(p, (int64_t)(bytes / mb_type_size(type)));
        /* Plain calls: as a graph's node the same copy was seen at 2.8 TB/s on an H200, against 4.26 TB/s for one
         * that PyTorch enqueued in the same session. A ceiling must not be the slower of two ways. */
        rc = p->maker.rc != MB_OK ? p->maker.rc
                                  : measure(kernels, device, copy_call, &work, 1, false, &ceilings->copy);
        kernels->release(device, inner);
    }
    if (rc == MB_OK)
        rc = mb_bench_make(p, 1, false);
    if (rc == MB_OK)
        rc = measure(kernels, device, problem_call, p, 1, graphs, &ceilings->gemm);
    if (rc == MB_OK) {
        ceilings->copy_bytes = bytes;
        ceilings->copy_rate = 2.0 * (double)bytes / (ceilings->copy.median_us * 1e-6);
        ceilings->gemm_width = width;
        ceilings->gemm_rate =
            2.0 * (double)width * (double)width * (double)width / (ceilings->gemm.median_us * 1e-6);
    } else {
        mb_fail(err, rc, "measuring the machine's ceilings: %s",
                *kernels->error(device) ? kernels->error(device) : "out of memory");
    }
    kernels->release(device, mark);
    free(p);
    return rc;
}

/* ---- cases ---- */

/* Input sets so that a round through them is several times the cache; 1 on the CPU, whose caches a case may fill.
 */
static int32_t choose_sets(const mb_bench_problem *p, const mb_bench_row *row, size_t memory_limit)
{
    if (!p->maker.kernels->capture_begin || row->bytes >= CACHED_BYTES)
        return 1;
    int64_t sets = (int64_t)(ROTATED_BYTES / row->bytes) + 1, room = (int64_t)(memory_limit / (row->memory + 1));
    sets = sets > MB_BENCH_CALLS ? MB_BENCH_CALLS : sets;
    return (int32_t)(room < 1 ? 1 : sets < room ? sets : room);
}

int mb_bench_case(const mb_kernels *kernels, mb_device *device, mb_type type, const mb_kernel_case *problem,
                  const mb_bench_ceilings *ceilings, size_t memory_limit, mb_bench_row *row, mb_error *err)
{
    mb_bench_problem *p = mb_bench_problem_new(kernels, device, type, problem);
    size_t mark = kernels->mark(device), limit;
    mb_device_info info;
    int rc = p ? mb_bench_noise(p) : MB_E_SYSTEM;
    memset(row, 0, sizeof *row);
    row->problem = problem;
    if (rc != MB_OK)
        goto failed;
    mb_bench_make(p, 1, true);
    if (!mb_bench_work(problem, type, &row->bytes, &row->flops))
        row->bytes = p->maker.bytes;
    row->memory = p->memory;
    kernels->info(device, &info);
    limit = memory_limit && memory_limit < info.arena_free ? memory_limit : info.arena_free;
    if (row->memory > limit) {
        snprintf(row->skipped, sizeof row->skipped, "skipped: needs %.0f MB, %.0f MB %s",
                 (double)row->memory * 1e-6, (double)limit * 1e-6,
                 limit == memory_limit ? "is the limit on this device" : "are free");
        goto out;
    }
    row->sets = choose_sets(p, row, info.arena_free);
    rc = mb_bench_make(p, row->sets, false);
    if (rc == MB_OK)
        rc = measure(kernels, device, problem_call, p, row->sets, kernels->capture_begin != NULL, &row->time);
    if (rc != MB_OK)
        goto failed;
    double by_bytes = row->bytes / ceilings->copy_rate, by_flops = row->flops / ceilings->gemm_rate;
    row->floor_us = (by_bytes > by_flops ? by_bytes : by_flops) * 1e6;
    row->over_floor = row->time.median_us / row->floor_us;
    goto out;
failed:
    mb_fail(err, rc, "case \"%s\": %s", problem->name,
            *kernels->error(device) ? kernels->error(device) : "out of memory");
out:
    kernels->release(device, mark);
    free(p);
    return rc;
}
