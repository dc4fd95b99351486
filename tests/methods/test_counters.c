/*
 * test_counters.c - counters of methods in the real decoder: what graphs replay is counted as what runs, requests
 * do not leak into each other, places by layer and step agree with the forwards that the sampler counted, and
 * values that make no sense fail the method's sample. $MASKBENCH_TEST_DEVICE=cuda runs it on a GPU; the CPU has
 * no graphs, so there both launches are eager (test_mac.c replays forwards of its own).
 */
#include "methods/registry/registry.h"
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STEPS 8
#define BLOCKS 3

static const mb_kernels *kernels;
static mb_device *device;
static mb_model *model;
static mb_session *session;
static mb_sampler sampler;

static int open_all(void **state)
{
    static const char words[] = " Two boats waited at the pier with their sails down. A baker opened his shop.";
    const char *spec = getenv("MASKBENCH_TEST_DEVICE");
    mb_error note = {0};
    mb_error err = {0};
    mb_device_options options = {.type = MB_BF16, .threads = 2, .arena_bytes = (size_t)1 << 30};
    mb_model_request request = {.path = "models/tiny"};
    mb_session_request session_request = {.batch = 1, .capacity = 1024, .graphs = true};
    mb_text text = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    (void)state;
    for (int i = 0; i < 20; i++)
        mb_text_puts(&text, words);
    int rc = mb_device_open(spec ? spec : "cpu", &options, &kernels, &device, &note, &err);
    if (rc == MB_OK)
        rc = mb_model_open(&model, &request, kernels, device, MB_BF16, &err);
    if (rc == MB_OK)
        rc = mb_session_open(&session, model, &session_request, &err);
    if (rc == MB_OK)
        rc = mb_tokenizer_encode(mb_model_tokenizer(model), text.data, text.length, true, &ids, &n, &err);
    if (rc == MB_OK)
        rc = mb_session_prefill(session, 0, ids, n, NULL, &err);
    if (rc == MB_OK) {
        mb_sampler_default(mb_model_config_of(model), &sampler);
        sampler.schedule = MB_SCHEDULE_FIXED;
        sampler.steps = STEPS;
        sampler.ignore_stop = true;
    } else {
        print_error("%s\n", err.text);
    }
    mb_text_free(&text);
    free(ids);
    return rc;
}

static int close_all(void **state)
{
    (void)state;
    mb_session_close(session);
    mb_model_close(model);
    kernels->close(device);
    return 0;
}

/* ---- decoding ---- */

static mb_attender *open_method(const mb_method *method, const char *settings, void **options)
{
    mb_attender *attender = NULL;
    char *copy = mb_string_copy(settings), *rest = copy;
    mb_error err = {0};
    bool unsupported;
    *options = mb_method_options_new(method);
    for (char *word; *settings && (word = strsep(&rest, " "));) {
        char *value = strchr(word, '=');
        *value++ = '\0';
        if (mb_method_options_set(method, *options, word, value, word, &err) != MB_OK)
            fail_msg("%s", err.text);
    }
    free(copy);
    if (mb_attender_open(&attender, session, method, *options, STEPS, 1, &unsupported, &err) != MB_OK)
        fail_msg("%s", err.text);
    return attender;
}

static int decode(mb_attender *attender, int64_t number, mb_decode_result *result, mb_error *err)
{
    mb_decode_request request = {
        .sampler = &sampler, .max_new_tokens = BLOCKS * 32, .extra_stop_id = -1, .request = number};
    return mb_decode(session, attender, &request, result, err);
}

static void expect_same(const char *what, const mb_decode_result *a, const mb_decode_result *b)
{
    if (a->count != b->count || memcmp(a->ids, b->ids, a->count * sizeof *a->ids) != 0)
        fail_msg("%s: other tokens", what);
    if (memcmp(a->counters, b->counters, sizeof a->counters) != 0)
        fail_msg("%s: other counters", what);
    if (a->map_count != b->map_count ||
        (a->map_count && memcmp(a->maps, b->maps, a->map_count * sizeof *a->maps) != 0))
        fail_msg("%s: other counters by layer and step", what);
    if (a->work != b->work)
        fail_msg("%s: work %g, then %g", what, a->work, b->work);
}

/* Every method that counts, and the settings of those that count most: the same request eagerly, replayed, and
 * replayed again after another one. */
static void test_replay(void **state)
{
    static const char *const settings[][2] = {
        {"mac", "axis=both ring=3 threshold=0.6 amend=32 match=any commit=reuse"},
        {"mac", "axis=blocks ring=2 threshold=0.2 amend=0"},
        {"mac", "threshold=0.7 refresh=3"},
        {"flashblock", "tau=20 refresh=3"}};
    size_t more = sizeof settings / sizeof *settings;
    (void)state;
    for (size_t i = 0; i < mb_registry_count() + more; i++) {
        const mb_method *method = i < more ? mb_registry_find(settings[i][0]) : mb_registry_at(i - more);
        const char *with = i < more ? settings[i][1] : "";
        mb_decode_result results[3];
        void *options;
        char what[256];
        mb_error err = {0};
        if (!method->counters && !method->maps)
            continue;
        mb_attender *attender = open_method(method, with, &options);
        for (int run = 0; run < 3; run++) {
            mb_session_use_graphs(session, run > 0);
            if (decode(attender, run, &results[run], &err) != MB_OK)
                fail_msg("%s", err.text);
        }
        for (int run = 1; run < 3; run++) {
            snprintf(what, sizeof what, "%s %s, %s", method->name, with,
                     run == 1 ? "replayed" : "a later request");
            expect_same(what, &results[0], &results[run]);
        }
        assert_true((results[0].map_count > 0) == (method->maps != NULL));
        for (int run = 0; run < 3; run++)
            mb_decode_result_free(&results[run]);
        mb_attender_close(attender);
        free(options);
    }
}

/* ---- places against the forwards ---- */

static int32_t grid_row(const mb_method *method, const char *name)
{
    for (int32_t i = 0; method->maps[i].name; i++)
        if (strcmp(method->maps[i].name, name) == 0)
            return i;
    fail_msg("no map %s", name);
    return -1;
}

/* A matched step weighs as many rows or heads as there were blocks at it: no step is filed under another. */
static void test_places(void **state)
{
    const mb_method *method = mb_registry_find("mac");
    const mb_model_config *config = mb_model_config_of(model);
    int32_t hits = grid_row(method, "hit_rate"), missed = grid_row(method, "groups_missed");
    mb_decode_result result;
    void *options;
    mb_error err = {0};
    (void)state;
    mb_attender *attender = open_method(method, "axis=both ring=2 threshold=0.7 amend=32", &options);
    mb_session_use_graphs(session, true);
    if (decode(attender, 1, &result, &err) != MB_OK)
        fail_msg("%s", err.text);
    double sum = 0, rows = 0;
    int places = 0, with_steps[STEPS + 2] = {0}; /* blocks that had so many steps or more */
    for (int forwards = 1; forwards <= STEPS; forwards++)
        for (int step = 1; step <= forwards; step++)
            with_steps[step] += result.forwards_histogram[forwards];
    assert_int_equal(result.blocks, with_steps[1]);
    for (size_t i = 0; i < result.map_count; i++) {
        const mb_counter_place *v = &result.maps[i];
        assert_true(v->layer >= 0 && v->layer < config->layers && v->step >= 1 && v->step <= STEPS);
        int blocks = with_steps[v->step] - (v->step == 1); /* nothing is there to match at the first one */
        if (v->map == hits) {
            assert_true(v->weight == (double)blocks * config->block * config->query_heads);
            sum += v->sum;
            rows += v->weight;
            places++;
        } else {
            assert_true(v->weight == (double)blocks * config->kv_heads);
        }
        assert_true(v->sum >= 0 && v->sum <= v->weight && v->map <= missed);
    }
    assert_int_equal(places, config->layers * STEPS);
    assert_int_equal(result.map_count, 4 * places);
    assert_true(sum > 0 && sum < rows);
    assert_true(fabs(result.counters[0] - sum / rows) < 1e-12);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
    free(options);
}

/* ---- values that make no sense ---- */

static const struct bad {
    const char *says; /* NULL: it is fine */
    struct {
        int32_t map, layer, step;
        double sum, weight;
    } put[2];
    bool fails;
} bads[] = {
    {NULL, {{0, 0, 1, 1, 2}, {1, 0, -1, 5, 1}}, false},
    {NULL, {{2, -1, 0, 1, 2}, {0, 0, 1, 9, 0}}, false}, /* weight 0 is no value */
    {"counter map ?, layer 0, step 1: the table has no such row", {{3, 0, 1, 1, 1}}, false},
    {"counter map both, layer 99, step 1: there is no such place", {{0, 99, 1, 1, 1}}, false},
    {"counter map both, layer -1, step 1: there is no such place", {{0, -1, 1, 1, 1}}, false},
    {"counter map layers, layer 0, step 1: there is no such place", {{1, 0, 1, 1, 1}}, false},
    {"counter map steps, layer 0, step 1: there is no such place", {{2, 0, 1, 1, 1}}, false},
    {"counter map both, layer 0, step 1: not a finite value", {{0, 0, 1, NAN, 1}}, false},
    {"counter map both, layer 0, step 1: not a finite value", {{0, 0, 1, 1, -1}}, false},
    {"counter map both, layer 1, step 2: there are two values", {{0, 1, 2, 1, 1}, {0, 1, 2, 1, 1}}, false},
    {"method counting failed in report_maps(): a sensor is broken", {{0, 0, 1, 1, 1}}, true},
};
static const struct bad *now;

static int counting_open(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                         mb_error *err)
{
    (void)self, (void)host, (void)shape, (void)options, (void)err;
    return 0;
}

static int counting_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)call, (void)out, (void)err;
    return 0;
}

static int counting_report(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                           mb_counter_put put, void *to, mb_error *err)
{
    (void)self, (void)read;
    for (int i = 0; i < 2; i++) /* refusals are ignored: the host remembers them */
        if (now->put[i].weight != 0 || now->put[i].sum != 0)
            put(to, now->put[i].map, now->put[i].layer, now->put[i].step, now->put[i].sum, now->put[i].weight);
    return now->fails ? mb_fail(err, -1, "a sensor is broken") : 0;
}

static void test_values(void **state)
{
    static const mb_counter_map rows[] = {{"both", "", "", "mean", "b", MB_BY_LAYER | MB_BY_STEP},
                                          {"layers", "keys", "", "sum", "l", MB_BY_LAYER},
                                          {"steps", "", "", "mean", "s", MB_BY_STEP},
                                          {0}};
    const mb_method method = {.abi = MB_METHOD_ABI,
                              .size = sizeof method,
                              .name = "counting",
                              .open = counting_open,
                              .select = counting_select,
                              .maps = rows,
                              .report_maps = counting_report};
    mb_method older = method;
    mb_attender *attender = NULL;
    mb_decode_result result;
    mb_error err = {0};
    bool unsupported;
    (void)state;
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        now = &bads[i];
        assert_int_equal(mb_attender_open(&attender, session, &method, NULL, 0, 1, &unsupported, &err), MB_OK);
        int rc = decode(attender, 1, &result, &err);
        assert_int_equal(rc, now->says ? MB_E_SAMPLE : MB_OK);
        if (now->says && !strstr(err.text, now->says))
            fail_msg("\"%s\" does not say \"%s\"", err.text, now->says);
        if (!now->says) {
            assert_int_equal(result.map_count, i == 0 ? 2 : 1);
            assert_true(result.maps[0].map == (i == 0 ? 0 : 2) && result.maps[0].sum == 1);
            mb_decode_result_free(&result);
        }
        mb_attender_close(attender);
    }
    /* A method of before there were maps: what lies behind its end is not read. */
    older.size = offsetof(mb_method, maps);
    assert_int_equal(mb_attender_open(&attender, session, &older, NULL, 0, 1, &unsupported, &err), MB_OK);
    if (decode(attender, 1, &result, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_true(result.map_count == 0 && !result.maps);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_values),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
