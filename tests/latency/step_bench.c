/*
 * step_bench.c - one step of a block, by itself: exact, MAGE's first, MAGE's later ones, in turn, on random
 * weights and keys, as graphs:
 *
 *     make build/tests/latency/step_bench && build/tests/latency/step_bench cuda fast_dllm_v2_7b 131072 1 512 1 5
 *
 * device, shape, prefix tokens, batch, budget; then any number of factors P, each a measurement with every key P
 * times its length: at 1 a row's attention is flat, at 5 it is peaked. The line says how much of a row's attention
 * its `budget` best keys hold: the mean over rows, heads and sequences of the last layer. Times are medians over
 * three rounds, microseconds. Reads no file and stores nothing.
 */
#include "kernels/kernels.h"
#include "methods/registry/registry.h"
#include "model/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 3
#define BLOCKS 3
#define STEPS 4

struct bench {
    const mb_kernels *kernels;
    mb_device *device;
    mb_model *model;
    mb_session *session;
    int32_t tokens, batch, budget;
    float length; /* of the keys, in their own lengths at first */
};

/* A method and its times. */
struct arm {
    const char *name;
    mb_attender *attender;
    mb_decode_result result;
};

static int say(const char *what, const mb_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    return 1;
}

static int open_all(struct bench *b, char **args, mb_error *err)
{
    mb_error note = {0};
    b->tokens = atoi(args[3]);
    b->batch = atoi(args[4]);
    b->budget = atoi(args[5]);
    b->length = 1;
    mb_device_options device = {
        .type = MB_BF16, .threads = 1, .arena_bytes = strcmp(args[1], "cpu") ? 0 : (size_t)2 << 30};
    mb_model_request model = {.shape = args[2], .seed = 1, .positions = b->tokens + 128};
    int rc = mb_device_open(args[1], &device, &b->kernels, &b->device, &note, err);
    if (rc == MB_OK)
        rc = mb_model_open(&b->model, &model, b->kernels, b->device, MB_BF16, err);
    mb_session_request request = {.batch = b->batch, .capacity = b->tokens + 64, .graphs = true};
    if (rc == MB_OK)
        rc = mb_session_open(&b->session, b->model, &request, err);
    return rc == MB_OK ? mb_session_fill_random(b->session, b->tokens, 1, err) : rc;
}

static int open_arm(struct bench *b, struct arm *arm, const char *method_name, mb_error *err)
{
    const mb_method *method = mb_registry_find(method_name);
    bool unsupported = false;
    char budget[16];
    if (!method)
        return mb_fail(err, MB_E_INPUT, "no method %s", method_name);
    void *options = mb_method_options_new(method);
    snprintf(budget, sizeof budget, "%d", b->budget);
    if (mb_method_options_budget(method, options) >= 0 &&
        mb_method_options_set(method, options, "k", budget, "k", err) != MB_OK)
        return MB_E_INPUT;
    return mb_attender_open(&arm->attender, b->session, method, options, STEPS, 1, &unsupported, err);
}

/* Norms of keys of random directions are that of random normals: a norm to length 1 and a factor make them
 * `length` times as long. */
static int stretch(struct bench *b, float length, mb_error *err)
{
    const mb_kv kv = mb_session_kv_of(b->session, 0, 0);
    for (int32_t l = 0; l < b->session->config->layers; l++) {
        void *k = mb_session_kv_of(b->session, l, 0).k;
        mb_rmsnorm norm = {.x = k,
                           .out = k,
                           .eps = 1e-6f,
                           .factor = length,
                           .n = (int64_t)b->batch * kv.kv_heads * kv.capacity,
                           .width = kv.head_dim};
        int rc = length == b->length ? MB_OK : b->kernels->add_rmsnorm(b->device, &norm);
        if (rc != MB_OK)
            return mb_fail(err, rc, "%s", b->kernels->error(b->device));
    }
    b->length = length;
    return MB_OK;
}

/* The share of a row's attention that its best keys hold, in the last layer of the forward that ran last. */
static int share_held(struct bench *b, double *share, mb_error *err)
{
    const mb_kernels *kernels = b->kernels;
    const mb_session *session = b->session;
    const int32_t layer = session->config->layers - 1, rows = session->block;
    const mb_kv kv = mb_session_kv_of(session, layer, 0);
    const size_t heads = (size_t)b->batch * (size_t)kv.kv_heads, mark = kernels->mark(b->device);
    const int64_t stride = (b->tokens + 63) / 64 * 64;
    float *stats = malloc(heads * 2 * sizeof *stats);
    mb_votes votes = {.attention = {.rows = {.batch = b->batch,
                                             .rows = rows,
                                             .prefix_len = mb_input_at(session, mb_session_input(session).prefix),
                                             .max_prefix = b->tokens,
                                             .block_keys = rows},
                                    .kv = kv,
                                    .query_heads = session->config->query_heads,
                                    .q = session->buffer[MB_BUFFER_Q],
                                    .scope = MB_SCOPE_ALL,
                                    .mass_stride = stride},
                      .k = b->budget};
    mb_attention *a = &votes.attention;
    a->kv.batch = b->batch;
    a->lse = kernels->alloc(b->device, (size_t)b->batch * (size_t)rows * (size_t)a->query_heads * sizeof(float));
    votes.votes = kernels->alloc(b->device, heads * (size_t)stride * sizeof(float));
    votes.stats = kernels->alloc(b->device, heads * 2 * sizeof(float));
    votes.scratch = kernels->alloc(b->device, kernels->votes_scratch(a, b->budget));
    int rc = stats && a->lse && votes.votes && votes.stats && votes.scratch ? MB_OK : MB_E_SYSTEM;
    if (rc == MB_OK)
        rc = kernels->attend(b->device, a);
    if (rc == MB_OK)
        rc = kernels->votes(b->device, &votes);
    if (rc == MB_OK)
        rc = kernels->download(b->device, stats, votes.stats, heads * 2 * sizeof *stats);
    *share = 0;
    for (size_t i = 0; rc == MB_OK && i < heads; i++)
        *share += (double)stats[2 * i + 1] / (double)heads;
    kernels->release(b->device, mark);
    free(stats);
    return rc == MB_OK ? MB_OK : mb_fail(err, rc, "the share: %s", kernels->error(b->device));
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *us, size_t count)
{
    qsort(us, count, sizeof *us, by_size);
    return count ? us[count / 2] : 0;
}

/* All arms in turn, after a round that captures their graphs and is not counted. */
static int measure(struct bench *b, struct arm *arms, size_t count, mb_error *err)
{
    for (int round = 0; round <= ROUNDS; round++)
        for (size_t i = 0; i < count; i++) {
            if (round == 1) {
                mb_decode_result_free(&arms[i].result);
                arms[i].result = (mb_decode_result){0};
            }
            b->session->rotation = (uint64_t)round * 1000; /* the same tokens for every arm */
            int rc = mb_decode_fixed_work(b->session, arms[i].attender, BLOCKS, STEPS, NULL, &arms[i].result, err);
            if (rc != MB_OK)
                return rc;
        }
    return MB_OK;
}

static int report(struct bench *b, struct arm *arms, size_t count, mb_error *err)
{
    double share = 0;
    int rc = measure(b, arms, count, err);
    if (rc == MB_OK)
        rc = share_held(b, &share, err);
    if (rc != MB_OK)
        return rc;
    printf("keys x %g: a row's %d best hold %.3f\n", (double)b->length, b->budget, share);
    for (size_t i = 0; i < count; i++) {
        mb_decode_result *r = &arms[i].result;
        double first = median(r->first_us, r->first_count), later = median(r->later_us, r->later_count);
        printf("  %-18s first %8.1f later %8.1f commit %8.1f tokens %016llx\n", arms[i].name, first, later,
               median(r->commit_us, r->commit_count), (unsigned long long)r->digest);
        mb_decode_result_free(r);
        *r = (mb_decode_result){0};
    }
    fflush(stdout);
    return MB_OK;
}

int main(int argc, char **args)
{
    struct bench b = {0};
    struct arm arms[2] = {{.name = "exact"}, {.name = "mage"}};
    mb_error err = {0};
    if (argc < 6) {
        fprintf(stderr, "usage: step_bench DEVICE SHAPE TOKENS BATCH BUDGET [P]...\n");
        return 2;
    }
    if (open_all(&b, args, &err) != MB_OK || open_arm(&b, &arms[0], "exact", &err) != MB_OK ||
        open_arm(&b, &arms[1], "mage", &err) != MB_OK)
        return say("opening", &err);
    printf("%s, %s, %s tokens, batch %s, k = %s\n", args[1], args[2], args[3], args[4], args[5]);
    if (report(&b, arms, 2, &err) != MB_OK)
        return say("measuring", &err);
    for (int i = 6; i < argc; i++)
        if (stretch(&b, strtof(args[i], NULL), &err) != MB_OK || report(&b, arms, 2, &err) != MB_OK)
            return say(args[i], &err);
    return 0;
}
