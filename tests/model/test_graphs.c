/*
 * test_graphs.c - every method decodes the same tokens with graphs as without, in forwards that count no work, as
 * timed ones: only those put what observe() does on a branch of the graph, and no task scores what they decode. On
 * the device that MASKBENCH_TEST_DEVICE names (tests/gpu.sh); the CPU has no graphs, and the test says so.
 */
#include "tests/model/engine_fixture.h"

#include "methods/registry/registry.h"

enum { CAPACITY = 512, NEW_TOKENS = 96 };

static int captured_graphs(const mb_attender *attender)
{
    int count = 0;
    for (size_t i = 0; i < attender->graph_count; i++)
        count += attender->graphs[i].graph != NULL;
    return count;
}

/* Decodes with or without graphs; false where the method does not support the model. */
static bool decode(mb_session *session, const mb_method *method, const mb_sampler *sampler, bool graphs,
                   mb_decode_result *result, int *captured)
{
    mb_error err = {0};
    mb_attender *attender = NULL;
    bool unsupported = false;
    void *options = mb_method_options_new(method);
    *captured = 0;
    mb_session_use_graphs(session, graphs);
    mb_session_measure(session, &(mb_measure){.counting = false});
    int rc = mb_attender_open(&attender, session, method, options, 0, 1, &unsupported, &err);
    if (unsupported) {
        free(options);
        return false;
    }
    mb_decode_request request = {
        .sampler = sampler, .max_new_tokens = NEW_TOKENS, .extra_stop_id = -1, .request = 77};
    if (rc != MB_OK || mb_decode(session, attender, &request, result, &err) != MB_OK)
        fail_msg("%s, %s graphs: %s", method->name, graphs ? "with" : "without", err.text);
    *captured = captured_graphs(attender);
    if (graphs && mb_attender_replays(attender) && *captured == 0)
        fail_msg("%s: no forward was captured", method->name);
    mb_attender_close(attender);
    free(options);
    return true;
}

static void graphs_change_nothing(void **state)
{
    const char *spec = getenv("MASKBENCH_TEST_DEVICE");
    mb_error note = {0}, err = {0};
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        opened o = {0};
        mb_type type = wide ? MB_F32 : MB_BF16;
        mb_device_options options = {.type = type, .threads = 2, .arena_bytes = (size_t)1 << 30};
        mb_model_request wanted = {.path = "models/tiny"};
        if (mb_device_open(spec ? spec : "cpu", &options, &o.kernels, &o.device, &note, &err) != MB_OK ||
            mb_model_open(&o.model, &wanted, o.kernels, o.device, type, &err) != MB_OK)
            fail_msg("%s", err.text);
        if (!o.kernels->capture_begin) {
            printf("skipped: %s has no graphs\n", o.kernels->name);
            close_model(&o);
            skip();
        }
        mb_session *session = NULL;
        mb_session_request request = {.batch = 1, .capacity = CAPACITY, .graphs = true};
        if (mb_session_open(&session, o.model, &request, &err) != MB_OK)
            fail_msg("%s", err.text);
        size_t n = 0;
        int32_t *ids = needle_prompt(&o, "amber-hill", "55012", 8, &n);
        mb_sampler sampler = fixed_sampler(4);
        sampler.ignore_stop = true;
        assert_int_equal(mb_session_prefill(session, 0, ids, n, NULL, &err), MB_OK);
        for (size_t i = 0; i < mb_registry_count(); i++) {
            const mb_method *method = mb_registry_at(i);
            mb_decode_result eager = {0}, replay = {0};
            int none = 0, captured = 0;
            if (!decode(session, method, &sampler, false, &eager, &none))
                continue;
            assert_true(decode(session, method, &sampler, true, &replay, &captured));
            assert_int_equal(none, 0);
            if (eager.count != replay.count || memcmp(eager.ids, replay.ids, eager.count * sizeof *eager.ids) != 0)
                fail_msg("%s: other tokens with graphs than without", method->name);
            print_message("%s %s: %zu tokens, %d graphs captured\n", method->name, wide ? "fp32" : "bf16",
                          eager.count, captured);
            mb_decode_result_free(&eager);
            mb_decode_result_free(&replay);
        }
        free(ids);
        mb_session_close(session);
        close_model(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(graphs_change_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
