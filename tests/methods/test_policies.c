/*
 * test_policies.c - built-in methods whose promises need no reference arithmetic: which steps are dense,
 * the fixed window, the random draw, what a model cannot run; and the operations that budgets are computed with.
 */
#include "tests/methods/cpu_stage.h"

#include <math.h>

static const mb_stage_case small = {.layers = 6,
                                    .kv_heads = 2,
                                    .group = 3,
                                    .head_dim = 16,
                                    .block = 8,
                                    .steps = 4,
                                    .blocks = 2,
                                    .batch = 2,
                                    .prefix = {104, 72},
                                    .seed = 3};

static void test_tidal_supports(void **state)
{
    const mb_method *tidal = mb_registry_find("tidal");
    void *options = mb_method_options_new(tidal);
    mb_error why = {0};
    mb_error err = {0};
    mb_shape shape = {.size = sizeof shape, .layers = 6};
    (void)state;
    assert_int_equal(tidal->supports(&shape, options, &why), 0);
    mb_method_options_set(tidal, options, "select_layer", "6", "s", &err);
    assert_int_equal(tidal->supports(&shape, options, &why), 1);
    assert_string_equal(why.text, "select_layer 6 does not exist: the model has layers 0 to 5");
    mb_method_options_set(tidal, options, "select_layer", "4", "s", &err);
    mb_method_options_set(tidal, options, "reselect_layer", "4", "s", &err);
    assert_int_equal(tidal->supports(&shape, options, &why), 1);
    assert_non_null(strstr(why.text, "must be above select_layer 4"));
    free(options);
}

/* ---- dense steps ---- */

/* Number of dense steps of a block; 0 = all were. */
static int32_t dense_steps(int32_t steps, bool adaptive, const char *settings)
{
    mb_stage_case c = small;
    int32_t first_sparse = 0;
    c.layers = 1;
    c.block = 32;
    c.steps = steps;
    c.blocks = 1;
    c.adaptive = adaptive;
    mb_stage_run run = play(&c, "sparsed", settings);
    for (int32_t step = steps; step >= 1; step--)
        if (mb_stage_find(&run, 0, step, 0)->answer.answer == MB_SPARSE)
            first_sparse = step;
    for (int32_t step = 1; step <= steps; step++) {
        const mb_stage_event *e = mb_stage_find(&run, 0, step, 0);
        assert_int_equal(e->answer.answer == MB_SPARSE, first_sparse && step >= first_sparse);
        assert_int_equal(e->answer.want != 0, step == first_sparse - 1);
    }
    mb_stage_free(&run);
    return first_sparse ? first_sparse - 1 : 0;
}

static void test_sparsed_steps(void **state)
{
    (void)state;
    assert_int_equal(dense_steps(4, false, "k=32"), 1);
    assert_int_equal(dense_steps(10, false, "k=32"), 2);
    assert_int_equal(dense_steps(15, false, "k=32"), 3);
    assert_int_equal(dense_steps(32, false, "k=32"), 7);
    assert_int_equal(dense_steps(32, false, "k=32 inclusive=true"), 8); /* steps 0 .. int(6.4)+1 of the code */
    assert_int_equal(dense_steps(8, false, "k=32 skip=0"), 1);          /* something has to be chosen from */
    assert_int_equal(dense_steps(8, true, "k=32"), 2);
    assert_int_equal(dense_steps(8, true, "k=32 early_steps=5"), 5);
}

/* ---- window, random ---- */

static void test_window_ids(void **state)
{
    (void)state;
    mb_stage_run run = play(&small, "window", "k=20 commit=sparse");
    for (size_t i = 0; i < run.count; i++) {
        const mb_stage_event *e = &run.events[i];
        assert_int_equal(e->answer.answer, e->layer < 2 ? MB_DENSE : MB_SPARSE);
        for (int32_t bh = 0; e->counts && bh < 4; bh++) {
            assert_int_equal(e->counts[bh], 20);
            for (int32_t at = 0; at < 20; at++)
                assert_int_equal(e->ids[bh * e->capacity + at], at < 4 ? at : e->prefix[bh / 2] - 20 + at);
        }
    }
    mb_stage_free(&run);
    run = play(&small, "window", "k=8 sink=64"); /* sinks never exceed the budget */
    const mb_stage_event *e = mb_stage_find(&run, 0, 1, 2);
    assert_int_equal(e->counts[0], 8);
    assert_int_equal(e->ids[7], 7);
    mb_stage_free(&run);
}

static void test_random_draws(void **state)
{
    mb_stage_case c = {.layers = 4,
                       .kv_heads = 2,
                       .group = 1,
                       .head_dim = 8,
                       .block = 4,
                       .steps = 1,
                       .blocks = 1,
                       .batch = 1,
                       .prefix = {64},
                       .seed = 1};
    int hits[64] = {0}, draws = 0, distinct = 0;
    (void)state;
    for (int seed = 0; seed < 100; seed++) {
        char settings[64];
        char *text = mb_string_format("k=16 dense_layers=0 seed=%d", seed);
        snprintf(settings, sizeof settings, "%s", text);
        free(text);
        mb_stage_run run = play(&c, "random", settings);
        for (int32_t l = 0; l < c.layers; l++, draws++) {
            const mb_stage_event *e = mb_stage_find(&run, 0, 1, l);
            assert_int_equal(e->counts[0], 16);
            assert_true(same_index(e, e, 1));
            assert_memory_equal(e->ids, e->ids + e->capacity, 16 * sizeof *e->ids); /* one draw for all heads */
            distinct += l > 0 && !same_index(e, mb_stage_find(&run, 0, 1, l - 1), 0);
            for (int32_t at = 0; at < 16; at++)
                hits[e->ids[at]]++;
        }
        mb_stage_free(&run);
    }
    assert_true(distinct > 295); /* of 300: layers draw their own */
    double chi = 0, expected = draws / 4.0, variance = draws * 0.25 * 0.75;
    for (int j = 0; j < 64; j++)
        chi += (hits[j] - expected) * (hits[j] - expected) / variance;
    /* 64 terms with 63 degrees of freedom: mean 64, standard deviation near 11.3. */
    if (!(chi > 64 - 45 && chi < 64 + 45))
        fail_msg("chi square %g of 64 positions", chi);
}

/* ---- operations that the device computes budgets with ---- */

static void test_budget_operations(void **state)
{
    const mb_kernels *k = env.kernels;
    int32_t prefix[2] = {10, 40}, budgets[16];
    float scores[4][64] = {{0}};
    (void)state;
    scores[1][3] = 2.0f;
    mb_scores of = {scores[0], 64, 2, 2, prefix, 40, 1}, pages = of, one = of;
    pages.page = 16;
    one.batch = 1;
    one.prefix_len = prefix + 1;
    assert_int_equal(k->score_recent(env.device, &(mb_score_recent){of, 1.0f, 0.5f}), 0);
    for (int32_t j = 0; j < 64; j++) {
        float expected = j >= 10 ? 0.0f : j == 3 ? 2.0f : 0.5f * (float)(j + 1) / 11.0f;
        assert_true(fabsf(scores[1][j] - expected) < 1e-6f);
    }
    assert_true(scores[3][39] < 0.5f && scores[3][39] > scores[3][38] && scores[3][40] == 0.0f);
    /* 10 tokens are 1 page of 16, 40 are 3: int(0.3*1)+1, int(0.3*3)+1. */
    assert_int_equal(k->budget_ratio(env.device, &(mb_budget_ratio){pages, 0.3, 1, budgets}), 0);
    assert_int_equal(budgets[0], 1);
    assert_int_equal(budgets[2], 1);
    assert_int_equal(k->budget_ratio(env.device, &(mb_budget_ratio){of, 0.3, 1, budgets}), 0);
    assert_int_equal(budgets[1], 4);
    assert_int_equal(budgets[3], 13);
    assert_int_equal(k->budget_ratio(env.device, &(mb_budget_ratio){of, 1.0, 1, budgets}), 0);
    assert_int_equal(budgets[0], 10);
    /* Two layers of one sequence, two heads: s = 100*(1 - ln 1) and 50*(1 - ln e^-1) = 100: half each. */
    float e1 = (float)exp(-1.0), stats[2][4] = {{100, 1, 10, 1}, {50, e1, 1, 1}};
    assert_int_equal(k->budget_layers(env.device, &(mb_budget_layers){one, stats[0], 2, 8, 2, 40, budgets}), 0);
    for (int i = 0; i < 4; i++)
        assert_true(budgets[i] == 8 || budgets[i] == 7); /* 0.5*16, floored after a rounding of e^-1 */
    stats[1][0] = 1;
    stats[1][1] = 1; /* 100 against 1: 15.8 and 0.16, raised to k_min */
    assert_int_equal(k->budget_layers(env.device, &(mb_budget_layers){one, stats[0], 2, 8, 2, 40, budgets}), 0);
    assert_int_equal(budgets[0], 15);
    assert_int_equal(budgets[3], 2);
    assert_int_equal(k->budget_layers(env.device, &(mb_budget_layers){one, stats[0], 2, 8, 2, 12, budgets}), 0);
    assert_int_equal(budgets[0], 12);
    one.prefix_len = prefix;
    assert_int_equal(k->budget_layers(env.device, &(mb_budget_layers){one, stats[0], 2, 10, 2, 40, budgets}), 0);
    assert_int_equal(budgets[3], 40); /* the whole prefix fits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tidal_supports),    cmocka_unit_test(test_sparsed_steps),
        cmocka_unit_test(test_window_ids),        cmocka_unit_test(test_random_draws),
        cmocka_unit_test(test_budget_operations),
    };
    return cmocka_run_group_tests(tests, open_env, close_env);
}
