/*
 * test_reuse.c - methods that keep attention states, against brute force (reuse_fixture.h); mac has a test of its
 * own.
 */
#include "tests/methods/reuse_fixture.h"

/* ---- flashblock ---- */

static void test_flashblock(void **state)
{
    static const struct {
        const char *settings;
        int steps;
        int source[9];                               /* of steps 1..: the step whose queries read the prefix */
    } cases[] = {{"tau=100", 5, {0, 1, 1, 1, 1, 1}}, /* four chained reuses */
                 {"tau=1", 5, {0, 1, 2, 3, 4, 5}},
                 {"tau=2", 5, {0, 1, 1, 3, 3, 5}}, /* 8 6.. rows are masked: 1, 2, 1, 2 change */
                 {"tau=4", 5, {0, 1, 1, 1, 4, 4}}, /* 1 + 2 + 1 since the last read, no step alone changes 4 */
                 {"tau=2", 8, {0, 1, 1, 3, 3, 5, 5, 7, 7}}, /* 1 in every step */
                 {"tau=3", 8, {0, 1, 1, 1, 4, 4, 4, 7, 7}},
                 {"tau=100 refresh=2", 5, {0, 1, 1, 3, 3, 5}},
                 {"tau=100 refresh=3", 5, {0, 1, 1, 1, 4, 4}}};
    mb_reader(*readers)[KEYS] = new_readers();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_stage_case c = small;
        c.steps = cases[i].steps;
        mb_recording recording = record(&c);
        mb_stage_run run = play(&c, "flashblock", cases[i].settings);
        double reused = 0;
        for (int32_t block = 0; block < c.blocks; block++)
            for (int32_t step = 1; step <= c.steps; step++)
                for (int32_t l = 0; l < c.layers; l++) {
                    const mb_stage_event *e = mb_stage_find(&run, block, step, l);
                    int source = cases[i].source[step];
                    read_all(&recording, mb_recording_at(&recording, block, source, l), readers);
                    expect_output(&recording, e, readers);
                    assert_int_equal(e->counts[0], source == step ? -1 : 0); /* the work it reports */
                    reused += source != step && l == 0;
                }
        double rate = reused / (double)(c.blocks * (c.steps - 1));
        assert_true(fabs(run.counters[0] - rate) < 1e-12);
        mb_stage_free(&run);
        mb_recording_free(&recording);
    }
    free(readers);
}

/* ---- mage_residual ---- */

static void test_residual(void **state)
{
    /* Near rho = 1: all keys but one are selected, the rest is what rounding leaves of one key. */
    static const char *const settings[] = {"k=24 dense_layers=0", "k=1 dense_layers=0", "k=127 dense_layers=0",
                                           "k=103 dense_layers=0"};
    mb_recording recording = record(&small);
    mb_reader(*readers)[KEYS] = new_readers();
    const mb_shape *s = &recording.shape;
    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        mb_stage_run run = play(&small, "mage_residual", settings[i]);
        for (int32_t block = 0; block < small.blocks; block++)
            for (int32_t step = 1; step <= small.steps; step++)
                for (int32_t l = 0; l < small.layers; l++) {
                    const mb_stage_event *e = mb_stage_find(&run, block, step, l);
                    read_all(&recording, mb_recording_at(&recording, block, 1, l), readers);
                    for (int32_t at = 0; at < s->batch * s->block * s->query_heads; at++) {
                        int32_t bh = at / s->query_heads / s->block * s->kv_heads + at % s->query_heads / 2;
                        for (int32_t x = 0; x < e->counts[bh]; x++)
                            readers[at][e->ids[bh * e->capacity + x]].query =
                                mb_recording_at(&recording, block, step, l);
                    }
                    expect_output(&recording, e, readers);
                }
        mb_stage_free(&run);
    }
    free(readers);
    mb_recording_free(&recording);
}

/* ---- losa ---- */

static void test_losa(void **state)
{
    mb_recording recording = record(&small);
    mb_reader(*readers)[KEYS] = new_readers();
    const mb_shape *s = &recording.shape;
    mb_stage_run run = play(&small, "losa", "k=32 active=3 dense_layers=1");
    (void)state;
    for (int32_t block = 0; block < small.blocks; block++)
        for (int32_t step = 1; step <= small.steps; step++) {
            const mb_snapshot *now = mb_recording_at(&recording, block, step, 2);
            const mb_stage_event *e = mb_stage_find(&run, block, step, 2);
            for (int32_t b = 0; b < s->batch && step > 1; b++) {
                const mb_snapshot *last = mb_recording_at(&recording, block, step - 1, 2);
                double change[8] = {0};
                for (int32_t i = 0; i < s->block * s->query_heads; i++)
                    change[i / s->query_heads] +=
                        squared_distance(&recording, now->q, last->q, b * s->block * s->query_heads + i,
                                         b * s->block * s->query_heads + i);
                for (int32_t r = 0; r < s->block; r++) {
                    int rank = 0;
                    for (int32_t other = 0; other < s->block; other++)
                        rank += change[other] > change[r];
                    for (int32_t a = 0; a < s->query_heads && rank < 3; a++) { /* active: pages only */
                        int32_t at = (b * s->block + r) * s->query_heads + a, bh = b * s->kv_heads + a / 2;
                        memset(readers[at], 0, sizeof readers[at]);
                        for (int32_t x = 0; x < e->counts[bh] * 16; x++) {
                            int32_t j = e->ids[bh * e->capacity + x / 16] * 16 + x % 16;
                            if (j < KEYS)
                                readers[at][j] = (mb_reader){now, r};
                        }
                    }
                }
            }
            if (step == 1)
                read_all(&recording, now, readers);
            expect_output(&recording, e, readers);
        }
    mb_stage_free(&run);
    free(readers);
    mb_recording_free(&recording);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flashblock),
        cmocka_unit_test(test_residual),
        cmocka_unit_test(test_losa),
    };
    return cmocka_run_group_tests(tests, open_env, close_env);
}
