/*
 * group_bench.c - arms decoded per second, one after the other and together, in turn, on random weights and keys:
 *
 *     make build/tests/latency/group_bench && build/tests/latency/group_bench cuda fast_dllm_v2_7b 8192 8
 *
 * device, shape, prefix tokens, arms (exact and up to seven methods at a budget of 1024). Fixed T = 8, two blocks.
 * Nothing is stored: it is a throughput, and no quality. It also says whether all tokens are those of the arms
 * alone.
 */
#include "methods/registry/registry.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 8
#define ROUNDS 3

static int say(const char *what, const mb_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    return 1;
}

struct bench {
    const mb_kernels *kernels;
    mb_device *device;
    mb_model *model;
    mb_session *session;
    mb_group_arm arms[MOST];
    mb_decode_request request;
    mb_sampler sampler;
    size_t count;
};

static int open_arms(struct bench *b, size_t wanted, mb_error *err)
{
    static const char *const names[MOST] = {"exact",  "mage",   "quest",  "oracle",
                                            "window", "snapkv", "random", "keydiff"};
    for (size_t i = 0; i < wanted; i++) {
        const mb_method *method = mb_registry_find(names[i]);
        bool unsupported = false;
        if (!method)
            continue;
        void *options = mb_method_options_new(method);
        if (mb_method_options_budget(method, options) >= 0 &&
            mb_method_options_set(method, options, "k", "1024", "k", err) != MB_OK)
            return MB_E_INPUT;
        int rc =
            mb_attender_open(&b->arms[b->count].attender, b->session, method, options, 8, 1, &unsupported, err);
        if (rc != MB_OK)
            return rc;
        b->arms[b->count++].request = &b->request;
    }
    return MB_OK;
}

static int open_all(struct bench *b, char **args, mb_error *err)
{
    mb_error note = {0};
    int32_t tokens = atoi(args[3]), lanes = atoi(args[4]);
    mb_session_request session = {
        .batch = 1, .capacity = tokens + 128, .graphs = true, .lanes = lanes, .invariant = true};
    mb_device_options device = {
        .type = MB_BF16, .threads = 1, .arena_bytes = strcmp(args[1], "cpu") ? 0 : (size_t)2 << 30};
    mb_model_request model = {.shape = args[2], .seed = 1, .positions = tokens + 128};
    int rc = mb_device_open(args[1], &device, &b->kernels, &b->device, &note, err);
    if (rc == MB_OK)
        rc = mb_model_open(&b->model, &model, b->kernels, b->device, MB_BF16, err);
    if (rc == MB_OK)
        rc = mb_session_open(&b->session, b->model, &session, err);
    if (rc == MB_OK)
        rc = mb_session_fill_random(b->session, tokens, 1, err);
    if (rc != MB_OK)
        return rc;
    mb_sampler_default(mb_model_config_of(b->model), &b->sampler);
    b->sampler.schedule = MB_SCHEDULE_FIXED;
    b->sampler.steps = 8;
    b->request = (mb_decode_request){.sampler = &b->sampler, .max_new_tokens = 64, .extra_stop_id = -1};
    return open_arms(b, (size_t)lanes, err);
}

static bool same(const mb_decode_result *x, const mb_decode_result *y)
{
    return x->count == y->count && memcmp(x->ids, y->ids, x->count * sizeof *x->ids) == 0;
}

/* One arm after the other; then all of them: seconds[2]. */
static int round_of(struct bench *b, double seconds[2], size_t *differ, mb_error *err)
{
    mb_decode_result alone[MOST], together[MOST];
    int rc = MB_OK;
    uint64_t start = mb_clock_ns();
    for (size_t i = 0; rc == MB_OK && i < b->count; i++)
        rc = mb_decode(b->session, b->arms[i].attender, &b->request, &alone[i], err);
    seconds[0] = (double)(mb_clock_ns() - start) * 1e-9;
    for (size_t i = 0; i < b->count; i++)
        b->arms[i].result = &together[i];
    start = mb_clock_ns();
    if (rc == MB_OK)
        rc = mb_decode_group(b->session, b->arms, b->count, err);
    seconds[1] = (double)(mb_clock_ns() - start) * 1e-9;
    *differ = 0;
    for (size_t i = 0; rc == MB_OK && i < b->count; i++) {
        if (b->arms[i].rc != MB_OK)
            return mb_fail(err, b->arms[i].rc, "%s", b->arms[i].error.text);
        *differ += !same(&alone[i], &together[i]);
        mb_decode_result_free(&alone[i]);
        mb_decode_result_free(&together[i]);
    }
    return rc;
}

int main(int argc, char **args)
{
    struct bench b = {.count = 0};
    mb_error err = {0};
    if (argc != 5 || atoi(args[4]) < 1 || atoi(args[4]) > MOST) {
        fprintf(stderr, "usage: group_bench DEVICE SHAPE TOKENS ARMS (up to %d)\n", MOST);
        return 2;
    }
    if (open_all(&b, args, &err) != MB_OK)
        return say("opening", &err);
    printf("%s, %s, %s tokens, %zu arms; seconds alone, together, ratio, arms with other tokens\n", args[1],
           args[2], args[3], b.count);
    for (int i = 0; i <= ROUNDS; i++) {
        double seconds[2];
        size_t differ = 0;
        if (round_of(&b, seconds, &differ, &err) != MB_OK)
            return say("decoding", &err);
        printf("%s %.4f %.4f %.2f %zu\n", i ? "round  " : "warm-up", seconds[0], seconds[1],
               seconds[0] / seconds[1], differ);
        fflush(stdout);
    }
    return 0;
}
