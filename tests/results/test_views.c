/*
 * test_views.c - the views against numbers worked out by hand (the arithmetic stands beside each).
 */
#include "tests/results/small_store.h"

#include "results/store.h"

static void times(small_store *s, int64_t cell, const char *phase, int32_t context, bool graph, const double *us,
                  int n)
{
    mb_latency_row rows[16];
    for (int i = 0; i < n; i++)
        rows[i] = (mb_latency_row){.phase = phase,
                                   .context = context,
                                   .batch = 1,
                                   .steps = 4,
                                   .us = fabs(us[i]),
                                   .graph = graph,
                                   .kept = us[i] > 0,
                                   .throttle = -1,
                                   .temperature = NAN,
                                   .power = NAN,
                                   .other_processes = -1}; /* negative: dropped */
    OK(mb_store_latency(s->store, cell, rows, (size_t)n, &s->err));
}

static void accuracy_and_pairs(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "views");
    small_open(&s, 7);
    int64_t exact = small_cell(&s, small_config(&s, "alpha", 8, -1), "quality");
    int64_t sparse = small_cell(&s, small_config(&s, "beta", 0, 64), "quality");
    small_sample(&s, exact, "a", 1.0);
    small_sample(&s, exact, "b", 0.5);
    small_sample(&s, exact, "c", 0.0);
    small_sample(&s, sparse, "a", 0.5);
    small_sample(&s, sparse, "b", 0.5);
    mb_sample_row row = small_row(sparse, "c", 0.25);
    row.denoise_forwards = 14;
    row.blocks = 2;
    row.prediction = "another";
    row.engaged = 1;
    OK(mb_store_sample(s.store, &row, &s.err));
    mb_sample_row bad = {
        .cell = sparse, .key = "d", .status = "failed", .error = "why", .score = NAN, .depth = -1};
    OK(mb_store_sample(s.store, &bad, &s.err));
    small_sample(&s, exact, "d", 1.0);
    /* beta: (0.5 + 0.5 + 0.25) / 3; engaged (0.5 + 0.5 + 1) / 3; forwards (8 + 8 + 14) / (1 + 1 + 2) = 7.5 */
    assert_string_equal(small_query(s.store,
                                    "SELECT config, k, round(score, 6), n, round(engaged, 6), work, "
                                    "forwards_per_block, failed, is_reference FROM v_accuracy ORDER BY config_id"),
                        "alpha,,0.625,4,0.5,0.375,8,0,1\nbeta k=64,64,0.416667,3,0.666667,0.375,7.5,1,0\n");
    /* differences -0.5, 0, +0.25 on a, b, c; d failed and has no pair: mean -1/12 */
    assert_string_equal(small_query(s.store,
                                    "SELECT round(mean, 6), n, wins, losses, ties, round(same_prediction, 6), "
                                    "forwards_per_block, reference_forwards_per_block FROM v_paired "
                                    "WHERE is_reference = 0"),
                        "-0.083333,3,1,1,1,0.666667,7.5,8\n");
    /* Other prompt tokens are another prompt: no pair. */
    row = small_row(sparse, "e", 1);
    OK(mb_store_sample(s.store, &row, &s.err));
    row.cell = exact;
    row.token_hash = "other tokens";
    OK(mb_store_sample(s.store, &row, &s.err));
    assert_string_equal(small_query(s.store, "SELECT n FROM v_paired WHERE is_reference = 0"), "3\n");
    assert_string_equal(small_query(s.store, "SELECT what, status, item, reason FROM v_failures"),
                        "sample,failed,d,why\n");
    assert_string_equal(small_query(s.store, "SELECT samples, failed, state, seed FROM v_runs"),
                        "10,1,running,7\n");
    small_close(&s);
    unlink(s.path);
}

static void recall_is_weighted_by_blocks(void **state)
{
    (void)state;
    small_store s = {0};
    const float index_a[2] = {0.5f, 0.25f}, mass_a[2] = {1, 0.5f}, index_b[2] = {1, 1}, mass_b[2] = {0.5f, 0.5f};
    small_path(&s, "recall");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "beta", 0, 64), "recall");
    mb_recall_row a[2] = {{1, 1, 3, 2, 0.375, 0.75, 0.1, index_a, mass_a},
                          {1, 2, 1, 2, 0.5, 0.5, 0.1, NULL, NULL}};
    mb_recall_row b = {1, 1, 1, 2, 1, 0.5, 0.1, index_b, mass_b};
    mb_sample_row row = small_row(cell, "a", NAN);
    row.recalls = a;
    row.recall_count = 2;
    OK(mb_store_sample(s.store, &row, &s.err));
    row = small_row(cell, "b", NAN);
    row.recalls = &b;
    row.recall_count = 1;
    OK(mb_store_sample(s.store, &row, &s.err));
    /* layer 1 step 1: index (3*0.375 + 1*1) / 4 = 0.53125, mass (3*0.75 + 1*0.5) / 4 = 0.6875, two samples */
    assert_string_equal(
        small_query(s.store, "SELECT layer, step, index_recall, mass_recall, n, blocks FROM v_recall"),
        "1,1,0.53125,0.6875,2,4\n1,2,0.5,0.5,1,1\n");
    /* head 0: (3*0.5 + 1) / 4 and (3*1 + 0.5) / 4; head 1: (3*0.25 + 1) / 4 and 0.5; step 2 told no heads */
    assert_string_equal(small_query(s.store, "SELECT step, head, index_recall, mass_recall, n FROM v_recall_head"),
                        "1,0,0.625,0.875,2\n1,1,0.4375,0.5,2\n");
    /* over all: index (4*0.53125 + 0.5) / 5 = 0.525, mass (4*0.6875 + 0.5) / 5 = 0.65 */
    assert_string_equal(small_query(s.store, "SELECT round(index_recall, 9), round(mass_recall, 9), layers, steps "
                                             "FROM v_recall_config"),
                        "0.525,0.65,1,2\n");
    small_close(&s);
    unlink(s.path);
}

/* Two samples: a share is the sum of its numerators over that of its denominators, a sum and a maximum are what
 * they are called, and a place that one sample alone counted has that sample's value. */
static void grids_are_weighted_by_what_was_counted(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "grids");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "quality");
    const mb_grid_row one[] = {{"hits", "", "higher", "mean", 2, 1, 3, 4},
                               {"hits", "", "higher", "mean", 2, 2, 1, 2},
                               {"most", "", "", "max", -1, 1, 5, 1},
                               {"reads", "keys", "", "sum", 0, -1, 7, 1}};
    const mb_grid_row two[] = {{"hits", "", "higher", "mean", 2, 1, 1, 12},
                               {"most", "", "", "max", -1, 1, 4, 1},
                               {"reads", "keys", "", "sum", 0, -1, 8, 1}};
    for (int i = 0; i < 2; i++) {
        mb_sample_row row = small_row(cell, i ? "b" : "a", 1);
        row.grids = i ? two : one;
        row.grid_count = i ? 3 : 4;
        OK(mb_store_sample(s.store, &row, &s.err));
    }
    /* (3 + 1) / (4 + 12), not the mean of 3/4 and 1/12 */
    assert_string_equal(
        small_query(s.store, "SELECT name, layer, step, value, weight, n FROM v_counter_grid ORDER BY 1, 2, 3"),
        "hits,2,1,0.25,16,2\nhits,2,2,0.5,2,1\nmost,,1,5,2,2\nreads,0,,15,2,2\n");
    mb_sample_row bad = small_row(cell, "c", 1);
    const mb_grid_row nothing = {"hits", "", "higher", "mean", 2, 1, 0, 0};
    bad.grids = &nothing;
    bad.grid_count = 1;
    assert_int_equal(mb_store_sample(s.store, &bad, &s.err), MB_E_BUG); /* a share of nothing */
    assert_string_equal(small_query(s.store, "SELECT count(*) FROM v_samples"), "2\n");
    small_close(&s);
    unlink(s.path);
}

static void latency_quantiles(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "latency");
    small_open(&s, 7);
    int64_t exact = small_cell(&s, small_config(&s, "alpha", 8, -1), "latency");
    int64_t sparse = small_cell(&s, small_config(&s, "beta", 0, 64), "latency");
    int64_t oracle = small_cell(&s, small_config(&s, "gamma", 4, 64), "latency");
    const double eleven[] = {110, 10, 100, 20, 90, 30, 80, 40, 70, 50, 60, -1}; /* the last one was dropped */
    const double four[] = {40, 10, 30, 20}, one[] = {60}, eager[] = {200, 200};
    times(&s, exact, "later_step", 64, false, eleven, 12);
    times(&s, sparse, "later_step", 64, false, eager, 2);
    times(&s, sparse, "later_step", 64, true, four, 4);
    times(&s, oracle, "later_step", 64, false, one, 1);
    /* 11 values 10..110: median 60, p10 at rank 1: 20, p90 at rank 9: 100. 4 values: median 25, p10 at 0.3: 13,
     * p90 at 2.7: 37; the graph mode is the faster one. */
    assert_string_equal(small_query(s.store,
                                    "SELECT config, median_us, round(p10_us, 9), round(p90_us, 9), n, dropped, "
                                    "graph FROM v_latency ORDER BY config_id"),
                        "alpha,60,20,100,11,1,0\nbeta k=64,25,13,37,4,0,1\ngamma k=64,60,60,60,1,0,0\n");
    assert_string_equal(small_query(s.store,
                                    "SELECT config, speedup, round(low, 9), round(high, 9), is_oracle FROM "
                                    "v_speedup WHERE is_reference = 0 ORDER BY config_id"),
                        "beta k=64,2.4,0.540540541,7.692307692,0\ngamma k=64,1,0.333333333,1.666666667,1\n");
    /* first 130, later 25, exact 60: 130 + (T-1) 25 <= 60 T from T = (130 - 25) / (60 - 25) = 3 */
    const double first[] = {130};
    times(&s, sparse, "first_step", 64, true, first, 1);
    times(&s, exact, "first_step", 64, false, one, 1);
    assert_string_equal(small_query(s.store, "SELECT config, break_even_steps FROM v_break_even"),
                        "beta k=64,3\n");
    /* blocks: speed-ups 0.5 at 64, 1.5 at 128: crossing 1 halfway */
    const double block_exact_64[] = {50}, block_exact_128[] = {150}, block_sparse[] = {100};
    times(&s, exact, "block", 64, false, block_exact_64, 1);
    times(&s, exact, "block", 128, false, block_exact_128, 1);
    times(&s, sparse, "block", 64, false, block_sparse, 1);
    times(&s, sparse, "block", 128, false, block_sparse, 1);
    assert_string_equal(
        small_query(s.store, "SELECT config, crossover_context, at_most, best_speedup FROM v_crossover"),
        "beta k=64,96,0,1.5\n");
    /* tokens/s of a block of 16 in 100 us */
    assert_string_equal(small_query(s.store,
                                    "SELECT DISTINCT tokens_per_s FROM v_latency WHERE phase = 'block' AND "
                                    "method = 'beta'"),
                        "160000\n");
    small_close(&s);
    unlink(s.path);
}

static void breakdown_and_needles(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "parts");
    small_open(&s, 7);
    int64_t configs[2] = {small_config(&s, "alpha", 8, -1), small_config(&s, "beta", 0, 64)};
    mb_breakdown_row parts[2][2] = {{{64, 1, "later", "gemm", 20, 2}, {64, 1, "later", "dense attention", 60, 1}},
                                    {{64, 1, "later", "gemm", 20, 2}, {64, 1, "later", "sparse attention", 5, 1}}};
    for (int i = 0; i < 2; i++)
        OK(mb_store_breakdown(s.store, small_cell(&s, configs[i], "breakdown"), parts[i], 2, &s.err));
    assert_string_equal(small_query(s.store, "SELECT config, part, us, share, relative FROM v_breakdown "
                                             "ORDER BY config_id, part_order"),
                        "alpha,gemm,20,0.25,0.25\nalpha,dense attention,60,0.75,0.75\n"
                        "beta k=64,gemm,20,0.8,0.25\nbeta k=64,sparse attention,5,0.2,0.0625\n");
    int64_t cell = small_cell(&s, configs[1], "quality");
    for (int i = 0; i < 6; i++) {
        char key[32];
        snprintf(key, sizeof key, "n%d", i);
        mb_sample_row row = small_row(cell, key, i % 3 == 0);
        row.context = i < 3 ? 512 : 1024;
        row.depth = i % 3 == 2 ? 100 : 0;
        OK(mb_store_sample(s.store, &row, &s.err));
    }
    assert_string_equal(small_query(s.store, "SELECT context, depth, score, n FROM v_niah ORDER BY 1, 2"),
                        "512,0,0.5,2\n512,100,0,1\n1024,0,0.5,2\n1024,100,0,1\n");
    int32_t histogram[4] = {0, 1, 0, 3};
    mb_sample_row row = small_row(cell, "h", 1);
    row.forwards_histogram = histogram;
    row.histogram_size = 4;
    OK(mb_store_sample(s.store, &row, &s.err));
    assert_string_equal(small_query(s.store, "SELECT forwards, blocks, share FROM v_forwards"),
                        "1,1,0.25\n3,3,0.75\n");
    small_close(&s);
    unlink(s.path);
}

static void longbench_means(void **state)
{
    (void)state;
    static const struct {
        const char *task, *category, *language;
        double score;
    } tasks[] = {
        {"a", "one", "en", 0.5},
        {"b", "one", "zh", 0.75},
        {"c", "two", "python", 0.25},
    };
    small_store s = {0};
    small_path(&s, "longbench");
    small_open(&s, 7);
    int64_t config = small_config(&s, "beta", 0, 64);
    for (int i = 0; i < 3; i++) {
        mb_dataset_row data = {tasks[i].task, "longbench", tasks[i].category, tasks[i].language, "qa_f1", "f", "p",
                               NULL,          32};
        OK(mb_store_dataset(s.store, &data, &s.data, &s.err));
        small_sample(&s, small_cell(&s, config, "quality"), "x", tasks[i].score);
    }
    /* categories: one (0.5 + 0.75) / 2 = 0.625, two 0.25: mean 0.4375; not Chinese: (0.5 + 0.25) / 2 = 0.375 */
    assert_string_equal(small_query(s.store, "SELECT category_mean, categories, tasks, mean_16, tasks_16 FROM "
                                             "v_longbench"),
                        "0.4375,2,3,0.375,2\n");
    small_close(&s);
    unlink(s.path);
}

/* Binomial tails and the interval's behaviour, known without our code. */
static void statistics(void **state)
{
    (void)state;
    assert_float_equal(sign_test(0, 0), 1, 1e-12);
    assert_float_equal(sign_test(5, 0), 1.0 / 32, 1e-12);
    assert_float_equal(sign_test(8, 2), 56.0 / 1024, 1e-12); /* 45 + 10 + 1 of 2^10 */
    assert_float_equal(sign_test(0, 7), 1, 1e-12);
    assert_true(sign_test(1100, 900) < 1e-5 && sign_test(1100, 900) > 1e-6); /* z = 4.45 */
    double values[200];
    int32_t groups[200];
    for (int i = 0; i < 200; i++) {
        values[i] = i % 2 ? 1 : -1;
        groups[i] = i / 100;
    }
    interval a = paired_interval(values, groups, 200);
    assert_float_equal(a.mean, 0, 1e-12);
    /* standard error 1 / sqrt(200) = 0.0707: 95 % is +-0.1386 */
    assert_float_equal(a.high, 0.1386, 0.02);
    assert_float_equal(a.low, -0.1386, 0.02);
    double uneven[] = {1, 0, 0, 0, 0};
    int32_t two[] = {0, 1, 1, 1, 1};
    assert_float_equal(paired_interval(uneven, two, 5).mean, 0.5, 1e-12); /* groups weigh the same */
    assert_true(isnan(paired_interval(uneven, two, 1).low));
    double singles[] = {1, 0, 1, 0, 1, 0, 1, 0}; /* eight tasks of one item: se 0.5 / sqrt(8) = 0.177, not 0 */
    int32_t eight[] = {0, 1, 2, 3, 4, 5, 6, 7};
    interval c = paired_interval(singles, eight, 8);
    assert_true(c.low > 0.05 && c.low < 0.3 && c.high > 0.7 && c.high < 0.95);
    /* Below 20 items that differ the exact sign test: 5 wins of 5 is 2/32, ties do not count. */
    double few[] = {1, 0.5, 1, 1, 0.25, 0, 0};
    int32_t one[7] = {0};
    assert_float_equal(paired_p(few, one, 7), 2.0 / 32, 1e-12);
    few[0] = -1; /* 4 of 5: 2 * (5 + 1) / 32 */
    assert_float_equal(paired_p(few, one, 7), 12.0 / 32, 1e-12);
    assert_float_equal(paired_p(few + 5, one, 2), 1, 0);
    /* From 20 on the sign-flip test: 30 wins of 1, 10 losses of 1: z = 20 / sqrt(40), p = 0.00157 */
    for (int i = 0; i < 40; i++)
        values[i] = i < 30 ? 1 : -1;
    int32_t same[40] = {0};
    assert_float_equal(paired_p(values, same, 40), 0.0015654, 1e-6);
    /* Ratio of sums: (3 + 1) / (2 + 2) and 6 / 3, groups weighted alike. */
    double up[] = {3, 1, 6}, down[] = {2, 2, 3};
    int32_t pair[] = {0, 0, 1};
    assert_float_equal(paired_ratio(up, down, pair, 3).mean, 1.5, 1e-12);
    /* Holm, by hand: 0.01 x 3, 0.02 x 2, 0.04 x 1 (not below the one before); NAN is no test. */
    double p[] = {0.04, 0.01, NAN, 0.02};
    holm_adjust(p, 4);
    assert_float_equal(p[1], 0.03, 1e-12);
    assert_float_equal(p[3], 0.04, 1e-12);
    assert_float_equal(p[0], 0.04, 1e-12);
    assert_true(isnan(p[2]));
}

/* Gates, each seen passing and failing. */
static void gates(void **state)
{
    (void)state;
    small_store s = {0};
    const float head[1] = {1};
    small_path(&s, "gates");
    small_open(&s, 7);
    OK(mb_gates_run(s.store, s.run, &s.err));
    assert_string_equal(small_query(s.store, "SELECT DISTINCT verdict FROM v_gates"), "skip\n");
    int64_t exact = small_cell(&s, small_config(&s, "alpha", 8, -1), "quality");
    int64_t full = small_cell(&s, small_config(&s, "beta", 0, 4096), "quality");
    /* No budget makes a method exact that hands on states of earlier queries (MB_CAP_REUSE). */
    int64_t reuse = small_cell(&s, small_config(&s, "zeta", 16, 4096), "quality");
    int64_t narrow_config = small_config(&s, "beta", 0, 64), narrow = small_cell(&s, narrow_config, "quality");
    for (int i = 0; i < 12; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%d", i);
        small_sample(&s, exact, key, 0.5);
        small_sample(&s, full, key, 0.5);
        small_sample(&s, narrow, key, i % 2 ? 0.25 : 0.75);
        small_sample(&s, reuse, key, i % 2 ? 0.75 : 0.25);
    }
    mb_recall_row recall = {1, 1, 1, 1, 1, 0.9, 0.5, head, head};
    mb_sample_row row = small_row(small_cell(&s, small_config(&s, "gamma", 4, 64), "recall"), "k0", NAN);
    row.recalls = &recall;
    row.recall_count = 1;
    OK(mb_store_sample(s.store, &row, &s.err));
    recall.mass_recall = 0.8;
    row.cell = small_cell(&s, narrow_config, "recall");
    OK(mb_store_sample(s.store, &row, &s.err));
    OK(mb_gates_run(s.store, s.run, &s.err));
    assert_string_equal(small_query(s.store, "SELECT name, verdict FROM v_gates ORDER BY name"),
                        "full budget equals the reference,pass\ngraph and eager agree,skip\n"
                        "no sparse arm above the reference,pass\noracle bounds the recall,pass\n");
    /* Now an arm that wins everywhere, whose recall beats the oracle's and whose full budget differs. */
    int64_t cheat_config = small_config(&s, "delta", 0, 4096), cheat = small_cell(&s, cheat_config, "quality");
    for (int i = 0; i < 12; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%d", i);
        small_sample(&s, cheat, key, 1);
    }
    recall.mass_recall = 0.95;
    row.key = "k1";
    row.token_hash = "k1";
    row.cell = small_cell(&s, small_config(&s, "epsilon", 0, 64), "recall");
    OK(mb_store_sample(s.store, &row, &s.err));
    OK(mb_store_gate(s.store, s.run, "graph and eager agree", "pass", "12 outputs", &s.err));
    OK(mb_gates_run(s.store, s.run, &s.err));
    assert_string_equal(small_query(s.store, "SELECT name, verdict FROM v_gates ORDER BY name"),
                        "full budget equals the reference,fail\ngraph and eager agree,pass\n"
                        "no sparse arm above the reference,fail\noracle bounds the recall,fail\n");
    small_close(&s);
    unlink(s.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accuracy_and_pairs),
        cmocka_unit_test(recall_is_weighted_by_blocks),
        cmocka_unit_test(grids_are_weighted_by_what_was_counted),
        cmocka_unit_test(latency_quantiles),
        cmocka_unit_test(breakdown_and_needles),
        cmocka_unit_test(longbench_means),
        cmocka_unit_test(statistics),
        cmocka_unit_test(gates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
