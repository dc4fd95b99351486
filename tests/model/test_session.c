/*
 * test_session.c - what a session takes and refuses: the memory plan against the arena, limits in clear words, and
 * the fixed work of latency runs.
 */
#include "tests/model/fake_method.h"

/* ---- memory, limits, fixed work ---- */

static void plan_equals_allocation(void **state)
{
    static const struct {
        int32_t batch, capacity, chunk;
        mb_type type;
    } cases[] = {{1, 512, 0, MB_F32}, {3, 1000, 96, MB_BF16}, {1, 33, 0, MB_BF16}, {2, 4096, 128, MB_F32}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        opened o = open_model("models/tiny", cases[i].type, 1);
        mb_session_request request = {
            .batch = cases[i].batch, .capacity = cases[i].capacity, .prefill_chunk = cases[i].chunk};
        mb_memory_plan plan;
        mb_session *session = NULL;
        mb_error err = {0};
        mb_memory_plan_make(mb_model_config_of(o.model), cases[i].type, &request, 4096, &plan);
        size_t before = o.kernels->mark(o.device);
        assert_int_equal(before, plan.weights);
        assert_int_equal(mb_session_open(&session, o.model, &request, &err), MB_OK);
        size_t after = o.kernels->mark(o.device);
        assert_int_equal(after - before, plan.total - plan.weights - plan.methods);
        assert_int_equal(plan.methods, 4096);
        assert_int_equal(plan.total,
                         plan.weights + plan.kv + plan.activations + plan.logits + plan.statistics + 4096);
        assert_true(plan.kv >= 2 * 6 * (size_t)cases[i].batch * 2 * 64 * (size_t)cases[i].capacity *
                                   mb_type_size(cases[i].type));
        mb_session_close(session);
        assert_int_equal(o.kernels->mark(o.device), before);
        close_model(&o);
    }
}

static void limits_speak(void **state)
{
    (void)state;
    opened o = open_model("models/tiny", MB_F32, 1);
    mb_session *session = NULL;
    mb_error err = {0};
    int32_t ids[200] = {0};
    mb_session_request request = {.batch = 1, .capacity = 40000};
    assert_int_equal(mb_session_open(&session, o.model, &request, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "32768 positions"));
    request.capacity = 31;
    assert_int_equal(mb_session_open(&session, o.model, &request, &err), MB_E_INPUT);
    request.capacity = 128;
    assert_int_equal(mb_session_open(&session, o.model, &request, &err), MB_OK);
    assert_int_equal(mb_session_prefill(session, 0, ids, 97, NULL, &err), MB_E_SAMPLE);
    ids[5] = 2048;
    assert_int_equal(mb_session_prefill(session, 0, ids, 60, NULL, &err), MB_E_SAMPLE);
    assert_non_null(strstr(err.text, "token 5"));
    ids[5] = 0;
    assert_int_equal(mb_session_prefill(session, 0, ids, 60, NULL, &err), MB_OK);
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    mb_sampler sampler = fixed_sampler(4);
    volatile int stop = 1;
    mb_decode_request decode = {.sampler = &sampler, .max_new_tokens = 68, .extra_stop_id = -1, .stop = &stop};
    mb_decode_result result;
    assert_int_equal(mb_decode(session, attender, &decode, &result, &err), MB_E_STOP);
    assert_int_equal(session->prefix[0], 32);
    decode.max_new_tokens = 69; /* 60 + 69 = 129 tokens, rounded up to five blocks */
    assert_int_equal(mb_decode(session, attender, &decode, &result, &err), MB_E_SAMPLE);
    assert_non_null(strstr(err.text, "cache of 160 tokens"));
    mb_attender_close(attender);
    mb_session_close(session);
    close_model(&o);
}

static void fixed_work(void **state)
{
    (void)state;
    opened o = open_model("models/tiny", MB_BF16, 2);
    mb_session *session = open_session(&o, 3, 320);
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    mb_error err = {0};
    mb_decode_result result = {0};
    assert_int_equal(mb_session_fill_random(session, 256, 3, &err), MB_OK);
    /* Norms as of normal numbers, no two heads alike. */
    const uint16_t *k = session->kv[2].k, *other = session->kv[3].k;
    assert_memory_not_equal(k, other, 64 * 2);
    for (int repeat = 0; repeat < 2; repeat++)
        if (mb_decode_fixed_work(session, attender, 2, 5, NULL, &result, &err) != MB_OK)
            fail_msg("%s", err.text);
    assert_int_equal(result.blocks, 4);
    assert_int_equal(result.first_count, 4);
    assert_int_equal(result.later_count, 16);
    assert_int_equal(result.commit_count, 4);
    assert_int_equal(result.denoise_forwards, 20);
    assert_int_equal(result.forwards_histogram[5], 4);
    assert_true(result.work == 1 && result.engaged == 0);
    for (int b = 0; b < 3; b++)
        assert_int_equal(session->prefix[b], 256);
    mb_decode_result_free(&result);
    /* The real sampler runs on random keys too. */
    mb_sampler sampler = fixed_sampler(4);
    sampler.ignore_stop = true;
    mb_decode_request request = {.sampler = &sampler, .max_new_tokens = 64, .extra_stop_id = -1};
    assert_int_equal(mb_decode(session, attender, &request, &result, &err), MB_OK);
    assert_int_equal(result.count, 64);
    assert_int_equal(result.denoise_forwards, 8);
    mb_decode_result_free(&result);
    volatile int stop = 1;
    assert_int_equal(mb_decode_fixed_work(session, attender, 1, 5, &stop, &result, &err), MB_E_STOP);
    assert_int_equal(mb_decode_fixed_work(session, attender, 1, 33, NULL, &result, &err), MB_E_INPUT);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
    mb_session_close(session);
    close_model(&o);
}

/* What fixed work feeds to a forward depends on its number alone, however badly a method attends. */
static void fixed_work_is_the_same_for_all(void **state)
{
    static const struct fake_options options[] = {{.behaviour = DENSE}, {.behaviour = WORST, .k = 1}};
    uint64_t inputs[3] = {0};
    (void)state;
    opened o = open_model("models/tiny", MB_BF16, 2);
    mb_session *session = open_session(&o, 2, 320);
    mb_error err = {0};
    assert_int_equal(mb_session_fill_random(session, 256, 3, &err), MB_OK);
    for (int i = 0; i < 3; i++) {
        mb_attender *attender = open_attender(session, &fake_method, &options[i % 2]);
        mb_decode_result result = {0};
        mb_session_rotate(session, i == 2 ? 8 : 7);
        assert_int_equal(mb_decode_fixed_work(session, attender, 2, 8, NULL, &result, &err), MB_OK);
        inputs[i] = last_fake->inputs;
        mb_decode_result_free(&result);
        mb_attender_close(attender);
    }
    assert_true(inputs[0] == inputs[1] && inputs[0] != inputs[2]);
    mb_session_close(session);
    close_model(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_equals_allocation),
        cmocka_unit_test(limits_speak),
        cmocka_unit_test(fixed_work),
        cmocka_unit_test(fixed_work_is_the_same_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
