/*
 * test_group.c - arms that decode together give what they give alone, bit by bit: tokens, forwards, work and
 * counters of every built-in method, under both samplers, in groups of several sizes and orders; with experts;
 * when one of them fails; after another prompt; where graphs are replayed. And a product whose bits depend on its
 * rows is found out.
 */
#include "methods/registry/registry.h"
#include "tests/model/engine_fixture.h"
#include "tests/model/replay_kernels.h"

#define MOST 128
#define LANES 16

static opened model;
static mb_session *session;

static void prefill(uint64_t seed)
{
    int32_t ids[160];
    mb_random random = mb_random_seed(seed);
    mb_error err = {0};
    for (size_t i = 0; i < 160; i++)
        ids[i] = (int32_t)mb_random_below(&random, 600);
    if (mb_session_prefill(session, 0, ids, 160, NULL, &err) != MB_OK)
        fail_msg("%s", err.text);
}

/* Blocks in parts where the family has them: forwards of a part read keys that earlier ones of the block wrote. */
static void open_in_parts(const char *fixture)
{
    model = open_fixture(fixture, MB_BF16);
    mb_model_config *config = &model.model->config;
    if (config->family == MB_FAMILY_FAST_DLLM_V2)
        config->sub_block = config->block / 4;
}

static void open_on(const char *fixture, int32_t lanes)
{
    mb_error err = {0};
    mb_session_request request = {.batch = 1, .capacity = 256, .lanes = lanes, .answer = 64, .invariant = true};
    open_in_parts(fixture);
    if (mb_session_open(&session, model.model, &request, &err) != MB_OK)
        fail_msg("%s", err.text);
    prefill(1);
}

static void close_on(void)
{
    mb_session_close(session);
    close_model(&model);
}

/* The arms of a sample: every method or some of them, under a fixed schedule and under a threshold. */
struct arms {
    mb_attender *attender[MOST];
    void *options[MOST];
    mb_decode_result alone[MOST];
    mb_decode_request request[MOST];
    mb_sampler sampler[2];
    size_t count;
};

static void arms_open(struct arms *arms, size_t every)
{
    memset(arms, 0, sizeof *arms);
    mb_sampler_default(mb_model_config_of(model.model), &arms->sampler[0]);
    arms->sampler[1] = arms->sampler[0];
    arms->sampler[0].schedule = MB_SCHEDULE_FIXED;
    arms->sampler[0].steps = 3;
    arms->sampler[1].threshold = 0.1;    /* of random weights: some tokens a step */
    arms->sampler[1].block_cache = true; /* where the sampler has it: forwards of a part of the block */
    for (size_t i = 0; i < 2 * mb_registry_count() && i < MOST; i += every) {
        const mb_method *method = mb_registry_at(i / 2);
        mb_error err = {0};
        bool unsupported = false;
        size_t n = arms->count;
        arms->options[n] = mb_method_options_new(method);
        if (mb_method_options_budget(method, arms->options[n]) >= 0)
            assert_int_equal(mb_method_options_set(method, arms->options[n], "k", "32", "k", &err), MB_OK);
        if (mb_attender_open(&arms->attender[n], session, method, arms->options[n], i % 2 ? 0 : 3, 1, &unsupported,
                             &err) != MB_OK) {
            assert_true(unsupported);
            free(arms->options[n]);
            continue;
        }
        arms->request[n] = (mb_decode_request){
            .sampler = &arms->sampler[i % 2], .max_new_tokens = 64, .extra_stop_id = -1, .seed = 7};
        arms->count++;
    }
    assert_true(every > 1 ? arms->count >= 8 : arms->count >= 30);
}

static void decode_alone(struct arms *arms)
{
    for (size_t i = 0; i < arms->count; i++) {
        mb_error err = {0};
        if (mb_decode(session, arms->attender[i], &arms->request[i], &arms->alone[i], &err) != MB_OK)
            fail_msg("%s", err.text);
    }
}

static void arms_close(struct arms *arms)
{
    for (size_t i = arms->count; i-- > 0;) {
        mb_attender_close(arms->attender[i]);
        mb_decode_result_free(&arms->alone[i]);
        free(arms->options[i]);
    }
}

static bool same(const mb_decode_result *a, const mb_decode_result *b)
{
    return a->count == b->count && memcmp(a->ids, b->ids, a->count * sizeof *a->ids) == 0 &&
           a->denoise_forwards == b->denoise_forwards && a->blocks == b->blocks && a->stopped == b->stopped &&
           a->work == b->work && a->work_select == b->work_select && a->engaged == b->engaged &&
           memcmp(a->counters, b->counters, sizeof a->counters) == 0 && a->map_count == b->map_count &&
           (a->map_count == 0 || memcmp(a->maps, b->maps, a->map_count * sizeof *a->maps) == 0);
}

/* All arms in groups of `size`, from `first` on in steps of `stride`: how many differ from the arm alone. */
static int different(const struct arms *arms, size_t size, size_t first, size_t stride)
{
    int count = 0;
    for (size_t done = 0; done < arms->count; done += size) {
        mb_group_arm group[LANES];
        mb_decode_result results[LANES];
        size_t which[LANES], n = 0;
        mb_error err = {0};
        for (; n < size && done + n < arms->count; n++) {
            which[n] = (first + (done + n) * stride) % arms->count;
            group[n] = (mb_group_arm){
                .attender = arms->attender[which[n]], .request = &arms->request[which[n]], .result = &results[n]};
        }
        if (mb_decode_group(session, group, n, &err) != MB_OK)
            fail_msg("%s", err.text);
        for (size_t i = 0; i < n; i++) {
            if (group[i].rc != MB_OK)
                fail_msg("%s", group[i].error.text);
            count += !same(&arms->alone[which[i]], &results[i]);
            mb_decode_result_free(&results[i]);
        }
    }
    return count;
}

/* A stride without a factor in common with the number of arms visits all of them. */
static size_t stride_for(size_t count)
{
    size_t stride = 7;
    while (count % stride == 0)
        stride += 2;
    return stride;
}

static void test_sizes(void **state)
{
    static const size_t sizes[] = {2, 3, 8, 16};
    struct arms arms;
    (void)state;
    open_on("qwen2_tied", LANES);
    arms_open(&arms, 1);
    decode_alone(&arms);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_int_equal(different(&arms, sizes[i], i, i % 2 ? stride_for(arms.count) : 1), 0);
    arms_close(&arms);
    close_on();
}

/* Experts, a router, a sampler of another family. */
static void test_experts(void **state)
{
    static const char *const fixtures[] = {"llada2", "sdar_moe"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct arms arms;
        open_on(fixtures[i], LANES);
        arms_open(&arms, 5);
        decode_alone(&arms);
        assert_int_equal(different(&arms, 8, 0, 1), 0);
        arms_close(&arms);
        close_on();
    }
}

/* The lanes get the prompt of the next sample, too. */
static void test_next_prompt(void **state)
{
    struct arms arms;
    (void)state;
    open_on("qwen2_tied", LANES);
    arms_open(&arms, 5);
    decode_alone(&arms);
    assert_int_equal(different(&arms, 8, 0, 1), 0);
    prefill(2);
    assert_true(different(&arms, 8, 0, 1) > 0); /* they decode another text now */
    for (size_t i = 0; i < arms.count; i++)
        mb_decode_result_free(&arms.alone[i]);
    decode_alone(&arms);
    assert_int_equal(different(&arms, 8, 0, 1), 0);
    arms_close(&arms);
    close_on();
}

/* Where there are graphs an arm's part of a layer is captured the second time and replayed from then on. */
static void test_graphs(void **state)
{
    mb_kernels replaying = replay_kernels();
    mb_session_request request = {.batch = 1, .capacity = 256, .lanes = LANES, .invariant = true, .graphs = true};
    mb_error err = {0};
    struct arms arms;
    (void)state;
    open_in_parts("qwen2_tied");
    model.model->kernels = &replaying;
    if (mb_session_open(&session, model.model, &request, &err) != MB_OK)
        fail_msg("%s", err.text);
    prefill(1);
    arms_open(&arms, 3);
    mb_session_use_graphs(session, false);
    decode_alone(&arms);
    assert_int_equal(replay_launches, 0);
    mb_session_use_graphs(session, true);
    for (size_t round = 0; round < 3; round++) { /* the last in another order: an arm has another lane */
        size_t before = replay_launches;
        assert_int_equal(different(&arms, 8, round / 2, round / 2 ? stride_for(arms.count) : 1), 0);
        assert_true(replay_launches > before);
    }
    prefill(2); /* nothing of the first prompt is in a graph */
    mb_session_use_graphs(session, false);
    for (size_t i = 0; i < arms.count; i++)
        mb_decode_result_free(&arms.alone[i]);
    decode_alone(&arms);
    mb_session_use_graphs(session, true);
    assert_int_equal(different(&arms, 8, 0, 1), 0);
    arms_close(&arms);
    close_on();
    assert_int_equal(replay_alive, 0);
}

/* ---- one that fails ---- */

static int failing_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)out;
    return call->block == 1 && call->step == 2 && call->layer == 1 ? mb_fail(err, MB_E_SAMPLE, "as planned") : 0;
}

static int nan_attend(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    uint16_t *values = out;
    (void)self, (void)err;
    for (int32_t i = 0; i < call->rows * 4; i++) {
        lse[i] = 0;
        for (int32_t c = 0; c < 8; c++)
            values[i * 8 + c] = 0x7fc0; /* NaN in bf16 */
    }
    return 0;
}

static int nan_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)err;
    out->answer = call->step == 2 ? MB_ATTEND : MB_DENSE;
    return 0;
}

static const mb_method failing_method = {.abi = MB_METHOD_ABI,
                                         .size = sizeof(mb_method),
                                         .name = "failing",
                                         .open = dense_open,
                                         .select = failing_select};
static const mb_method nan_method = {.abi = MB_METHOD_ABI,
                                     .size = sizeof(mb_method),
                                     .name = "nan",
                                     .open = dense_open,
                                     .select = nan_select,
                                     .attend = nan_attend};

static void test_failing_arm(void **state)
{
    const mb_method *bad[2] = {&failing_method, &nan_method};
    struct arms arms;
    (void)state;
    open_on("qwen2_tied", LANES);
    arms_open(&arms, 5);
    decode_alone(&arms);
    for (size_t b = 0; b < 2; b++) {
        mb_group_arm group[4];
        mb_decode_result results[4];
        mb_error err = {0};
        mb_attender *attender = open_attender(session, bad[b], NULL);
        for (size_t i = 0; i < 4; i++)
            group[i] = (mb_group_arm){.attender = i == 1 ? attender : arms.attender[2 * i],
                                      .request = &arms.request[2 * i],
                                      .result = &results[i]};
        assert_int_equal(mb_decode_group(session, group, 4, &err), MB_OK);
        for (size_t i = 0; i < 4; i++) {
            if (i == 1) {
                assert_int_equal(group[i].rc, MB_E_SAMPLE);
                assert_non_null(strstr(group[i].error.text, bad[b]->name));
                continue;
            }
            if (group[i].rc != MB_OK)
                fail_msg("%s", group[i].error.text);
            assert_true(same(&arms.alone[2 * i], &results[i]));
            mb_decode_result_free(&results[i]);
        }
        mb_attender_close(attender);
    }
    arms_close(&arms);
    close_on();
}

/* ---- a product that looks at its company ---- */

static int (*honest_gemm)(mb_device *, const mb_gemm *);

/* Another last bit for all rows where there are more than a block's. */
static int moody_gemm(mb_device *device, const mb_gemm *args)
{
    int rc = honest_gemm(device, args);
    uint16_t *out = args->out;
    for (int64_t i = 0; args->m > 32 && i < args->m * args->n; i++)
        out[i] ^= 1;
    return rc;
}

static void test_company_is_noticed(void **state)
{
    struct arms arms;
    (void)state;
    open_on("qwen2_tied", LANES);
    arms_open(&arms, 5);
    decode_alone(&arms);
    mb_kernels moody = *model.kernels;
    honest_gemm = moody.gemm;
    moody.gemm = moody_gemm;
    for (int32_t i = 0; i < LANES; i++)
        session->lane[i]->kernels = &moody;
    assert_int_equal(different(&arms, 1, 0, 1), 0);
    assert_true(different(&arms, 8, 0, 1) > 0);
    for (int32_t i = 0; i < LANES; i++)
        session->lane[i]->kernels = model.kernels;
    arms_close(&arms);
    close_on();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),       cmocka_unit_test(test_experts),
        cmocka_unit_test(test_next_prompt), cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_failing_arm), cmocka_unit_test(test_company_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
