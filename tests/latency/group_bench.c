/*
 * group_bench.c - arms decoded per second, one after the other and together, in turn, on random weights and keys:
 *
 *     make build/tests/latency/group_bench && build/tests/latency/group_bench cuda fast_dllm_v2_7b 8192 8 16
 *
 * device, shape, prefix tokens, arms (exact and one to seven methods at a budget of 1024), prompts. Fixed T = 8,
 * two blocks. "ungrouped" is a run with decode.group 1: a session of its own, products of any algorithm, CUDA
 * graphs. "alone" are the arms one after the other on the session of the group, "together" is the group. Nothing
 * is stored: it is a throughput, and no quality. Tokens must be those of the arms alone. A line has the memory of
 * the device that the session of a group and its arms take, beside that of decode.group 1; graphs, which come with
 * the first rounds and lie outside of the arena, are in the last line. A sixth word, "kernels", adds which kernels
 * a group's decode ran, and for how long.
 */
#include "methods/registry/registry.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 8
#define ROUNDS 3
#define NAMES 256

static int say(const char *what, const mb_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    return 1;
}

/* A session with its arms. */
struct side {
    mb_session *session;
    mb_group_arm arms[MOST];
    size_t count;
    double mib; /* of the device's arena, session and arms */
};

struct bench {
    const mb_kernels *kernels;
    mb_device *device;
    mb_model *model;
    struct side single, group;
    mb_decode_request request;
    mb_sampler sampler;
    int32_t tokens, prompts;
};

static int open_arms(struct bench *b, struct side *side, size_t wanted, mb_error *err)
{
    static const char *const names[MOST] = {"exact",  "mage",   "quest",  "oracle",
                                            "window", "snapkv", "random", "h2o"};
    for (size_t i = 0; i < wanted; i++) {
        const mb_method *method = mb_registry_find(names[i]);
        bool unsupported = false;
        if (!method)
            return mb_fail(err, MB_E_BUG, "there is no method %s", names[i]);
        void *options = mb_method_options_new(method);
        if (mb_method_options_budget(method, options) >= 0 &&
            mb_method_options_set(method, options, "k", "1024", "k", err) != MB_OK)
            return MB_E_INPUT;
        int rc = mb_attender_open(&side->arms[side->count].attender, side->session, method, options, 8, 1,
                                  &unsupported, err);
        if (rc != MB_OK)
            return rc;
        side->arms[side->count++].request = &b->request;
    }
    return MB_OK;
}

/* MiB that alloc() can still hand out, or that the device has free. */
static double free_mib(const struct bench *b, bool arena)
{
    mb_device_info info = {0};
    b->kernels->info(b->device, &info);
    return (double)(arena ? info.arena_free : info.memory_free) / (1 << 20);
}

/* The session and its arms: exact and the methods. */
static int open_side(struct bench *b, struct side *side, int32_t lanes, size_t wanted, mb_error *err)
{
    const double before = free_mib(b, true);
    mb_session_request request = {.batch = 1,
                                  .capacity = b->tokens + 128,
                                  .graphs = true,
                                  .lanes = lanes > 1 ? lanes : 0,
                                  .invariant = lanes > 1};
    int rc = mb_session_open(&side->session, b->model, &request, err);
    if (rc == MB_OK)
        rc = open_arms(b, side, wanted, err);
    side->mib = before - free_mib(b, true);
    return rc;
}

static int open_all(struct bench *b, char **args, mb_error *err)
{
    mb_error note = {0};
    int32_t lanes = atoi(args[4]);
    b->tokens = atoi(args[3]);
    mb_device_options device = {
        .type = MB_BF16, .threads = 1, .arena_bytes = strcmp(args[1], "cpu") ? 0 : (size_t)2 << 30};
    mb_model_request model = {.shape = args[2], .seed = 1, .positions = b->tokens + 128};
    int rc = mb_device_open(args[1], &device, &b->kernels, &b->device, &note, err);
    if (rc == MB_OK)
        rc = mb_model_open(&b->model, &model, b->kernels, b->device, MB_BF16, err);
    if (rc != MB_OK)
        return rc;
    mb_sampler_default(mb_model_config_of(b->model), &b->sampler);
    b->sampler.schedule = MB_SCHEDULE_FIXED;
    b->sampler.steps = 8;
    b->request = (mb_decode_request){.sampler = &b->sampler, .max_new_tokens = 64, .extra_stop_id = -1};
    rc = open_side(b, &b->single, 1, (size_t)lanes, err);
    return rc == MB_OK ? open_side(b, &b->group, lanes, (size_t)lanes, err) : rc;
}

static bool same(const mb_decode_result *x, const mb_decode_result *y)
{
    return x->count == y->count && memcmp(x->ids, y->ids, x->count * sizeof *x->ids) == 0;
}

/* The arms of a side one after the other. */
static int one_by_one(struct bench *b, struct side *side, mb_decode_result *results, double *seconds,
                      mb_error *err)
{
    int rc = MB_OK;
    uint64_t start = mb_clock_ns();
    for (size_t i = 0; rc == MB_OK && i < side->count; i++)
        rc = mb_decode(side->session, side->arms[i].attender, &b->request, &results[i], err);
    *seconds += (double)(mb_clock_ns() - start) * 1e-9;
    return rc;
}

static int together(struct side *side, mb_decode_result *results, double *seconds, mb_error *err)
{
    for (size_t i = 0; i < side->count; i++)
        side->arms[i].result = &results[i];
    uint64_t start = mb_clock_ns();
    int rc = mb_decode_group(side->session, side->arms, side->count, err);
    *seconds += (double)(mb_clock_ns() - start) * 1e-9;
    for (size_t i = 0; rc == MB_OK && i < side->count; i++)
        if (side->arms[i].rc != MB_OK)
            rc = mb_fail(err, side->arms[i].rc, "%s", side->arms[i].error.text);
    return rc;
}

/* One prompt in each of the three ways; seconds [3] and the arms with other tokens are added up. */
static int prompt_of(struct bench *b, uint64_t seed, double seconds[3], size_t *differ, mb_error *err)
{
    mb_decode_result results[3][MOST] = {0};
    int rc = mb_session_fill_random(b->single.session, b->tokens, seed, err);
    if (rc == MB_OK)
        rc = mb_session_fill_random(b->group.session, b->tokens, seed, err);
    if (rc == MB_OK)
        rc = one_by_one(b, &b->single, results[0], &seconds[0], err);
    if (rc == MB_OK)
        rc = one_by_one(b, &b->group, results[1], &seconds[1], err);
    if (rc == MB_OK)
        rc = together(&b->group, results[2], &seconds[2], err);
    for (size_t i = 0; i < b->group.count; i++) {
        *differ += rc == MB_OK && !same(&results[1][i], &results[2][i]);
        for (int k = 0; k < 3; k++)
            mb_decode_result_free(&results[k][i]);
    }
    return rc;
}

/* ---- which kernels ---- */

struct sum {
    const char *name;
    double us;
    size_t count;
};

static int by_time(const void *a, const void *b)
{
    const struct sum *x = a, *y = b;
    return (x->us < y->us) - (x->us > y->us);
}

static void print_kernels(const mb_kernel_record *records, size_t count, double seconds)
{
    struct sum sums[NAMES] = {0};
    size_t names = 0;
    double busy = 0, end = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = 0;
        while (n < names && strcmp(sums[n].name, records[i].name) != 0)
            n++;
        if (n == NAMES)
            continue;
        names += n == names;
        sums[n].name = records[i].name;
        sums[n].us += records[i].end_us - records[i].start_us;
        sums[n].count++;
        busy += records[i].end_us - records[i].start_us;
        end = records[i].end_us > end ? records[i].end_us : end;
    }
    printf("kernels: %zu, %.1f ms busy of %.1f ms; the call took %.1f ms\n", count, busy * 1e-3, end * 1e-3,
           seconds * 1e3);
    qsort(sums, names, sizeof *sums, by_time);
    for (size_t n = 0; n < names && n < 40; n++)
        printf("  %9.1f us %6zu x %7.2f  %.80s\n", sums[n].us, sums[n].count, sums[n].us / (double)sums[n].count,
               sums[n].name);
}

/* A group's decode under the profiler, first eager, then with graphs. */
static int kernels_of(struct bench *b, mb_error *err)
{
    int rc = MB_OK;
    for (int graphs = 0; graphs < 2 && rc == MB_OK; graphs++) {
        mb_decode_result results[MOST] = {0};
        mb_kernel_record *records = NULL;
        size_t count = 0;
        double seconds = 0;
        mb_session_use_graphs(b->group.session, graphs > 0);
        if (b->kernels->profile_begin(b->device) != MB_OK)
            return mb_fail(err, MB_E_SYSTEM, "%s", b->kernels->error(b->device));
        rc = together(&b->group, results, &seconds, err);
        if (b->kernels->profile_end(b->device, &records, &count) != MB_OK)
            printf("profile: %s\n", b->kernels->error(b->device));
        printf("%s ", graphs ? "with graphs," : "one by one,");
        print_kernels(records, count, seconds);
        for (size_t i = 0; i < b->group.count; i++)
            mb_decode_result_free(&results[i]);
        free(records);
    }
    return rc;
}

int main(int argc, char **args)
{
    struct bench b = {.prompts = argc > 5 ? atoi(args[5]) : 1};
    mb_error err = {0};
    if (argc < 5 || atoi(args[4]) < 2 || atoi(args[4]) > MOST || b.prompts < 1) {
        fprintf(stderr, "usage: group_bench DEVICE SHAPE TOKENS ARMS (2 to %d) [PROMPTS] [kernels]\n", MOST);
        return 2;
    }
    if (open_all(&b, args, &err) != MB_OK)
        return say("opening", &err);
    printf("%s, %s, %s tokens, %zu arms, %d prompts; arms per second ungrouped, alone, together; together / "
           "ungrouped; arms with other tokens than alone\n",
           args[1], args[2], args[3], b.group.count, b.prompts);
    printf("MiB of device memory: decode.group 1 %.0f, a group %.0f, %.0f more\n", b.single.mib, b.group.mib,
           b.group.mib - b.single.mib);
    const double opened = free_mib(&b, false);
    for (int i = 0; i <= ROUNDS; i++) {
        double seconds[3] = {0}, arms = (double)b.group.count * b.prompts;
        size_t differ = 0;
        for (int32_t p = 0; p < b.prompts; p++)
            if (prompt_of(&b, (uint64_t)p + 1, seconds, &differ, &err) != MB_OK)
                return say("decoding", &err);
        printf("%s %.2f %.2f %.2f %.2f %zu\n", i ? "round  " : "warm-up", arms / seconds[0], arms / seconds[1],
               arms / seconds[2], seconds[0] / seconds[2], differ);
        fflush(stdout);
    }
    printf("MiB that the device had free before the rounds and not after them (graphs, libraries, other "
           "programs): %.0f\n",
           opened - free_mib(&b, false));
    if (argc > 6 && b.kernels->profile_begin && kernels_of(&b, &err) != MB_OK)
        return say("kernels", &err);
    return 0;
}
