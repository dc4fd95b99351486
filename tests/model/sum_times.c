/*
 * sum_times.c - how long a sum over the GPUs of one model takes, by size: no test by itself (tests/gpu_two.sh runs
 * it).
 *
 *   build/tests/model/sum_times [RANKS]
 *
 * SUMS sums of one array follow each other in a graph, as in a forward; the median of ROUNDS replays, divided by
 * SUMS, on rank 0. The values are checked: ranks add 1, 2, ... and all must have the total.
 */
#include "model/engine/team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUMS 64
#define ROUNDS 21

typedef struct bench {
    mb_team *team;
    int64_t n;
    double us;
} bench;

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static int fail(const mb_place *p, const char *what, mb_error *err)
{
    return mb_fail(err, MB_E_SYSTEM, "rank %d, %s: %s", p->rank, what, p->kernels->error(p->device));
}

static int check(const mb_place *p, float *data, int64_t n, mb_error *err)
{
    float *host = malloc((size_t)n * sizeof *host), total = 0;
    int rc = host ? MB_OK : mb_no_memory(err, "%lld numbers", (long long)n);
    for (int64_t i = 0; rc == MB_OK && i < n; i++)
        host[i] = (float)(p->rank + 1);
    for (int32_t r = 0; r < p->ranks; r++)
        total += (float)(r + 1);
    if (rc == MB_OK && (p->kernels->upload(p->device, data, host, (size_t)n * sizeof *host) != MB_OK ||
                        mb_comm_sum(p->comm, data, n, MB_F32) != MB_OK ||
                        p->kernels->download(p->device, host, data, (size_t)n * sizeof *host) != MB_OK))
        rc = fail(p, "a sum", err);
    for (int64_t i = 0; rc == MB_OK && i < n; i++)
        if (host[i] != total)
            rc = mb_fail(err, MB_E_BUG, "rank %d: number %lld is %g, not %g", p->rank, (long long)i,
                         (double)host[i], (double)total);
    free(host);
    return rc;
}

static int measure(void *user, int32_t rank, mb_error *err)
{
    bench *b = user;
    const mb_place *p = mb_team_place(b->team, rank);
    const mb_kernels *k = p->kernels;
    double us[ROUNDS];
    mb_graph *graph = NULL;
    size_t mark = k->mark(p->device);
    float *data = k->alloc(p->device, (size_t)b->n * sizeof *data);
    int rc = data ? check(p, data, b->n < 65536 ? b->n : 65536, err) : fail(p, "no memory", err);
    rc = mb_comm_agree(p->comm, rc, NULL, 0, err);
    /* Once before the capture: a library prepares what a size needs when it first meets it. */
    if (rc == MB_OK && mb_comm_sum(p->comm, data, b->n, MB_BF16) != MB_OK)
        rc = fail(p, "a sum", err);
    rc = mb_comm_agree(p->comm, rc, NULL, 0, err);
    if (rc == MB_OK && k->capture_begin(p->device) != MB_OK)
        rc = fail(p, "capture", err);
    for (int i = 0; rc == MB_OK && i < SUMS; i++)
        if (mb_comm_sum(p->comm, data, b->n, MB_BF16) != MB_OK)
            rc = fail(p, "a sum", err);
    if (rc == MB_OK && k->capture_end(p->device, &graph) != MB_OK)
        rc = fail(p, "capture", err);
    rc = mb_comm_agree(p->comm, rc, NULL, 0, err);
    for (int i = 0; rc == MB_OK && i < ROUNDS; i++) {
        rc = mb_comm_agree(p->comm, rc, NULL, 0, err);
        if (rc == MB_OK &&
            (k->timer_mark(p->device, 0) != MB_OK || k->graph_launch(p->device, graph) != MB_OK ||
             k->timer_mark(p->device, 1) != MB_OK || k->timer_elapsed(p->device, 0, 1, &us[i]) != MB_OK))
            rc = fail(p, "a replay", err);
    }
    k->graph_free(p->device, graph);
    k->release(p->device, mark);
    if (rc == MB_OK && rank == 0) {
        qsort(us, ROUNDS, sizeof *us, by_value);
        b->us = us[ROUNDS / 2] / SUMS;
    }
    return rc;
}

int main(int argc, char **argv)
{
    static const int64_t rows[] = {1, 32, 64, 128, 256, 512, 1024, 2048};
    const int32_t ranks = argc > 1 ? atoi(argv[1]) : 2, width = 3584;
    mb_device_options options = {.type = MB_BF16, .arena_bytes = (size_t)1 << 28};
    const mb_kernels *kernels = NULL;
    mb_device *device = NULL;
    mb_error err = {0}, note = {0};
    bench b = {0};
    int rc = mb_device_open("cuda", &options, &kernels, &device, &note, &err);
    if (rc == MB_OK)
        rc = mb_team_open(&b.team, kernels, device, &options, ranks, NULL, &err);
    for (size_t i = 0; rc == MB_OK && i < sizeof rows / sizeof rows[0]; i++) {
        b.n = rows[i] * width;
        rc = mb_team_run(b.team, measure, &b, &err);
        if (rc == MB_OK)
            printf("%5lld x %d bf16 over %d GPUs: %8.1f us, %6.1f GB/s\n", (long long)rows[i], width, ranks, b.us,
                   2.0 * (double)b.n / b.us * 1e-3);
    }
    if (rc != MB_OK)
        fprintf(stderr, "sum_times: %s\n", err.text);
    mb_team_close(b.team);
    if (device)
        kernels->close(device);
    return rc == MB_OK ? 0 : 1;
}
