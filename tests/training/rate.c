/*
 * rate.c - how fast a training is, by length of its documents, and which kernels its time goes to.
 *
 *   rate CONFIG.json KEY=VALUE...
 *
 * The config is a training's; the device is its `device`. For each of its lengths one batch is made and gone
 * through `steps` times with the optimiser's step, weights and all; nothing is written. Printed: what making the
 * batch takes on the host, the median of a step, rows a second, and on a GPU the kernels of one step by their
 * time.
 */
#include "driver/config/training.h"
#include "training/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 1000
#define KERNELS_MAX 256
#define SHOWN 14

/* The kernels of one name. */
typedef struct total {
    const char *name;
    double us;
    int launches;
} total;

static int by_time(const void *a, const void *b)
{
    const double x = ((const total *)a)->us, y = ((const total *)b)->us;
    return (x < y) - (x > y);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One step from a batch that is there already. */
static int run_step(mb_training *t, int64_t step, mb_error *err)
{
    const mb_train_request *r = t->request;
    const mb_update update = {.step = step,
                              .lr = 1e-6,
                              .beta1 = r->beta1,
                              .beta2 = r->beta2,
                              .eps = r->eps,
                              .decay = r->decay,
                              .clip = r->clip};
    mb_losses losses = {0};
    double norm;
    int rc = mb_recipe_step(t, &t->feed.batches[0], t->feed.batches[0].weight_sum, &losses, err);
    if (rc == MB_OK)
        rc = mb_network_update(&t->network, &update, &norm, err);
    return rc == MB_OK ? t->network.kernels->sync(t->network.device) : rc;
}

/* Kernels of a step, the longest first. */
static int print_kernels(mb_training *t, mb_error *err)
{
    static total totals[KERNELS_MAX];
    const mb_network *n = &t->network;
    mb_kernel_record *records = NULL;
    size_t count = 0, names = 0;
    double all = 0;
    int rc = n->kernels->profile_begin(n->device);
    if (rc == MB_OK)
        rc = run_step(t, 1, err);
    if (rc == MB_OK)
        rc = n->kernels->profile_end(n->device, &records, &count);
    if (rc != MB_OK)
        return mb_fail(err, rc, "the profile: %s", n->kernels->error(n->device));
    memset(totals, 0, sizeof totals);
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < names && strcmp(totals[at].name, records[i].name) != 0)
            at++;
        if (at == KERNELS_MAX)
            continue;
        if (at == names)
            totals[names++].name = records[i].name;
        totals[at].us += records[i].end_us - records[i].start_us;
        totals[at].launches++;
        all += records[i].end_us - records[i].start_us;
    }
    qsort(totals, names, sizeof totals[0], by_time);
    printf("  kernels %.0f us in %zu launches\n", all, count);
    for (size_t i = 0; i < names && i < SHOWN; i++)
        printf("  %9.0f us %5d x %s\n", totals[i].us, totals[i].launches, totals[i].name);
    free(records);
    return MB_OK;
}

static int time_length(const mb_train_request *request, const mb_kernels *kernels, mb_device *device,
                       mb_error *err)
{
    static double ms[STEPS_MAX];
    mb_training t;
    int rc = mb_training_open(&t, request, kernels, device, err);
    if (rc != MB_OK)
        return rc;
    const uint64_t began = mb_clock_ns();
    rc = mb_training_feed(&t, 1, err);
    const double made = (double)(mb_clock_ns() - began) * 1e-6;
    for (int64_t step = 1; rc == MB_OK && step <= 3; step++) /* warms up */
        rc = run_step(&t, step, err);
    const int64_t steps = request->steps < STEPS_MAX ? request->steps : STEPS_MAX;
    for (int64_t step = 0; rc == MB_OK && step < steps; step++) {
        const uint64_t from = mb_clock_ns();
        rc = run_step(&t, step + 4, err);
        ms[step] = (double)(mb_clock_ns() - from) * 1e-6;
    }
    if (rc == MB_OK) {
        const int64_t rows = mb_train_rows(&t.feed.batches[0].layout);
        qsort(ms, (size_t)steps, sizeof ms[0], by_value);
        printf("length %d: %d documents, %lld rows, %d targets; data %.1f ms; step %.2f ms (least %.2f), %.0f "
               "rows/s\n",
               t.feed.batches[0].layout.clean, t.feed.batches[0].layout.documents, (long long)rows,
               t.feed.batches[0].targets, made, ms[steps / 2], ms[0], (double)rows / ms[steps / 2] * 1e3);
        if (kernels->profile_begin)
            rc = print_kernels(&t, err);
        fflush(stdout);
    }
    mb_training_close(&t);
    return rc;
}

int main(int argc, char **argv)
{
    mb_error err = {0}, note;
    mb_train_config config;
    mb_train_plan plan;
    mb_device *device = NULL;
    const mb_kernels *kernels = NULL;
    const mb_config_flags flags = {.sets = (const char *const *)(argv + 2), .set_count = (size_t)(argc - 2)};
    int rc = argc < 2 ? mb_fail(&err, MB_E_INPUT, "see the head of tests/training/rate.c")
                      : mb_train_config_load(&config, argv[1], &flags, &err);
    if (rc == MB_OK)
        rc = mb_train_plan_make(&config.request, &plan, &err);
    const mb_device_options options = {.type = MB_F32,
                                       .threads = config.threads,
                                       .arena_bytes = plan.total,
                                       .reduced = config.products == MB_PRODUCTS_MIXED};
    if (rc == MB_OK)
        rc = mb_device_open(config.device, &options, &kernels, &device, &note, &err);
    const mb_train_request all = config.request;
    for (size_t i = 0; rc == MB_OK && i < all.length_count; i++) {
        mb_train_request one = all;
        one.lengths = all.lengths + i;
        one.tails = all.tails + i;
        one.length_count = 1;
        one.tail_count = all.tail_count ? 1 : 0;
        rc = time_length(&one, kernels, device, &err);
    }
    if (device)
        kernels->close(device);
    if (rc != MB_OK)
        fprintf(stderr, "rate: %s\n", err.text);
    return rc == MB_OK ? 0 : 1;
}
