/*
 * test_reuse.c - methods that keep attention states, against brute force: for every prefix key the reference knows
 * whose query read it last, so chains of reuse, mixed groups and moving coverage are all one formula. The
 * bookkeeping of the match is simulated here in double, row by row.
 */
#include "methods/registry/registry.h"
#include "tests/methods/recorder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KEYS 160
#define ROWS 64   /* batch * block * query heads of the cases here */

static mb_stage_env env;
static const mb_stage_case small = {.layers = 3, .kv_heads = 2, .group = 2, .head_dim = 16, .block = 8, .steps = 5,
                                    .blocks = 3, .batch = 2, .prefix = {104, 72}, .seed = 5};

static int open_env(void **state)
{
    char err[256] = "";
    mb_device_options options = {.type = MB_F32, .threads = 1, .arena_bytes = (size_t)64 << 20};
    (void)state;
    env = (mb_stage_env){mb_kernels_cpu(), NULL, MB_F32};
    return env.kernels->open(&env.device, &options, err, sizeof err);
}

static int close_env(void **state)
{
    (void)state;
    env.kernels->close(env.device);
    return 0;
}

static mb_recording record(const mb_stage_case *c)
{
    mb_recording recording;
    char err[512] = "";
    if (mb_record(&env, c, &recording, err, sizeof err) != 0)
        fail_msg("%s", err);
    return recording;
}

static void *options_of(const mb_method *method, const char *settings)
{
    char err[512] = "";
    void *options = mb_options_new(method);
    char *copy = mb_string_copy(settings), *rest = copy;
    for (char *word; *settings && (word = strsep(&rest, " "));) {
        char *value = strchr(word, '=');
        *value++ = '\0';
        if (mb_options_set(method, options, word, value, word, err, sizeof err) != 0)
            fail_msg("%s", err);
    }
    free(copy);
    return options;
}

static mb_stage_run play(const mb_stage_case *c, const char *name, const char *settings)
{
    const mb_method *method = mb_registry_find(name);
    void *options = options_of(method, settings);
    mb_stage_run run;
    char err[512] = "";
    if (mb_stage_play(&env, c, method, options, &run, err, sizeof err) != 0)
        fail_msg("%s %s: %s", name, settings, err);
    free(options);
    return run;
}

/* readers: [batch*block*Hq][KEYS], as the rows of the output. */
static void expect_output(const mb_recording *recording, const mb_stage_event *e, mb_reader (*readers)[KEYS])
{
    const mb_shape *s = &recording->shape;
    const mb_snapshot *now = mb_recording_at(recording, e->block, e->step, e->layer);
    for (int32_t at = 0; at < s->batch * s->block * s->query_heads; at++) {
        int32_t a = at % s->query_heads, r = at / s->query_heads % s->block, b = at / s->query_heads / s->block;
        double out[256];
        mb_recording_attend(recording, now, b, r, a, readers[at], out);
        for (int32_t i = 0; i < s->head_dim; i++) {
            double got = (double)e->out[at * s->head_dim + i];
            if (!(fabs(got - out[i]) <= 2e-4 * (1.0 + fabs(out[i]))))
                fail_msg("block %d step %d layer %d row %d head %d: %g, expected %g", e->block, e->step, e->layer,
                         r, a, got, out[i]);
        }
    }
}

static mb_reader (*new_readers(void))[KEYS]
{
    mb_reader (*readers)[KEYS] = calloc(2 * ROWS, sizeof *readers);
    assert_non_null(readers);
    return readers;
}

static void read_all(const mb_recording *recording, const mb_snapshot *query, mb_reader (*readers)[KEYS])
{
    const mb_shape *s = &recording->shape;
    for (int32_t at = 0; at < s->batch * s->block * s->query_heads; at++)
        for (int32_t j = 0; j < KEYS; j++)
            readers[at][j] = (mb_reader){query, at / s->query_heads % s->block};
}

/* ---- flashblock ---- */

static void test_flashblock(void **state)
{
    static const struct {
        const char *settings;
        int source[6];   /* of steps 1..5: the step whose queries read the prefix */
    } cases[] = {{"tau=100", {0, 1, 1, 1, 1, 1}},            /* four chained reuses */
                 {"tau=1", {0, 1, 2, 3, 4, 5}},
                 {"tau=2", {0, 1, 1, 3, 3, 5}},              /* 8 6.. rows are masked: 1, 2, 1, 2 change */
                 {"tau=100 refresh=2", {0, 1, 1, 3, 3, 5}},
                 {"tau=100 refresh=3", {0, 1, 1, 1, 4, 4}}};
    mb_recording recording = record(&small);
    mb_reader (*readers)[KEYS] = new_readers();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_stage_run run = play(&small, "flashblock", cases[i].settings);
        double reused = 0;
        for (int32_t block = 0; block < small.blocks; block++)
            for (int32_t step = 1; step <= small.steps; step++)
                for (int32_t l = 0; l < small.layers; l++) {
                    const mb_stage_event *e = mb_stage_find(&run, block, step, l);
                    int source = cases[i].source[step];
                    read_all(&recording, mb_recording_at(&recording, block, source, l), readers);
                    expect_output(&recording, e, readers);
                    assert_int_equal(e->counts[0], source == step ? -1 : 0);   /* the work it reports */
                    reused += source != step && l == 0;
                }
        double rate = reused / (double)(small.blocks * (small.steps - 1));
        assert_true(fabs(run.counters[0] - rate) < 1e-12);
        mb_stage_free(&run);
    }
    free(readers);
    mb_recording_free(&recording);
}

/* ---- mage_residual ---- */

static void test_residual(void **state)
{
    /* Near rho = 1: all keys but one are selected, the rest is what rounding leaves of one key. */
    static const char *const settings[] = {"k=24 dense_layers=0", "k=1 dense_layers=0", "k=127 dense_layers=0",
                                           "k=103 dense_layers=0"};
    mb_recording recording = record(&small);
    mb_reader (*readers)[KEYS] = new_readers();
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

static double squared_distance(const mb_recording *recording, const float *x, const float *y, int32_t at_x,
                               int32_t at_y)
{
    int32_t dim = recording->shape.head_dim;
    double sum = 0;
    for (int32_t i = 0; i < dim; i++) {
        double d = (double)x[at_x * dim + i] - (double)y[at_y * dim + i];
        sum += d * d;
    }
    return sum;
}

static void test_losa(void **state)
{
    mb_recording recording = record(&small);
    mb_reader (*readers)[KEYS] = new_readers();
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
                    change[i / s->query_heads] += squared_distance(&recording, now->q, last->q,
                                                                   b * s->block * s->query_heads + i,
                                                                   b * s->block * s->query_heads + i);
                for (int32_t r = 0; r < s->block; r++) {
                    int rank = 0;
                    for (int32_t other = 0; other < s->block; other++)
                        rank += change[other] > change[r];
                    for (int32_t a = 0; a < s->query_heads && rank < 3; a++) {   /* active: pages only */
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

/* ---- mac ---- */

typedef struct rules {
    const char *settings;
    double threshold;        /* on d^2, or on d^2 / norm */
    bool relative, steps, blocks, any, keep;
    double share;
    int32_t amend, refresh;
} rules;

typedef struct memory {
    mb_reader (*keys)[KEYS];     /* whose query read each key */
    mb_reader query[ROWS * 2];   /* what a row is matched against */
} memory;

typedef struct tally {
    int mixed_heads, idle_heads, hits, rows;
} tally;

/* d^2 and norm of row `at` of now against what memory holds for row `from`. */
static double match_distance(const mb_recording *recording, const mb_snapshot *now, const memory *m, int32_t at,
                             int32_t from, bool relative)
{
    const mb_shape *s = &recording->shape;
    int32_t b = from / s->query_heads / s->block, a = from % s->query_heads;
    int32_t stored = (b * s->block + m->query[from].row) * s->query_heads + a;
    const mb_snapshot *query = m->query[from].query;
    double d = squared_distance(recording, now->q_pre, query->q_pre, at, stored), norm = 0;
    for (int32_t i = 0; i < s->head_dim; i++)
        norm += pow((double)query->q_pre[stored * s->head_dim + i], 2);
    return relative ? d / norm : d;
}

/* One forward of one layer: decides per row and per KV head, and updates the memory. */
static tally simulate(const mb_recording *recording, const rules *k, const mb_snapshot *now, const int32_t *ends,
                      bool match, bool moves, bool any, memory *m)
{
    const mb_shape *s = &recording->shape;
    int32_t rows = s->batch * s->block * s->query_heads, group = s->query_heads / s->kv_heads;
    bool missed[ROWS * 2];
    tally t = {0, 0, 0, 0};
    memory old = {new_readers(), {{NULL, 0}}};
    memcpy(old.keys, m->keys, (size_t)rows * sizeof *old.keys);
    memcpy(old.query, m->query, sizeof old.query);
    for (int32_t at = 0; at < rows; at++) {
        int32_t r = at / s->query_heads % s->block, b = at / s->query_heads / s->block, best = at;
        for (int32_t slot = 0; match && any && slot < s->block; slot++) {
            int32_t from = (b * s->block + slot) * s->query_heads + at % s->query_heads;
            double d = match_distance(recording, now, &old, at, from, false);
            double least = match_distance(recording, now, &old, at, best, false);
            if (slot == 0 || d < least)
                best = from;
        }
        missed[at] = !match || !(match_distance(recording, now, &old, at, best, k->relative) < k->threshold);
        t.hits += match && !missed[at];
        t.rows += match;
        if (moves) {   /* the entry of the matched row, and the band up to the new end */
            memcpy(m->keys[at], old.keys[best], sizeof m->keys[at]);
            for (int32_t j = ends[b]; j < KEYS; j++)
                m->keys[at][j] = (mb_reader){now, r};
            m->query[at] = (mb_reader){now, r};
        }
    }
    for (int32_t bh = 0; bh < s->batch * s->kv_heads; bh++) {
        int misses = 0, all = s->block * group;
        int32_t first = bh / s->kv_heads * s->block * s->query_heads + bh % s->kv_heads * group;
        for (int32_t i = 0; i < all; i++)
            misses += missed[first + i / group * s->query_heads + i % group];
        t.mixed_heads += misses > 0 && misses < all;
        t.idle_heads += misses <= k->share * all;
        for (int32_t i = 0; i < all && misses > k->share * all; i++) {
            int32_t r = i / group, at = first + r * s->query_heads + i % group;
            if (k->keep && !missed[at])
                continue;
            for (int32_t j = 0; j < KEYS; j++)
                m->keys[at][j] = (mb_reader){now, r};
            m->query[at] = (mb_reader){now, r};
        }
    }
    free(old.keys);
    return t;
}

/* The output: the memory's readers up to N-amend, the present queries behind. */
static void expect_mac(const mb_recording *recording, const rules *k, const mb_stage_event *e, const memory *m)
{
    const mb_shape *s = &recording->shape;
    const mb_snapshot *now = mb_recording_at(recording, e->block, e->step, e->layer);
    mb_reader (*readers)[KEYS] = new_readers();
    for (int32_t at = 0; at < s->batch * s->block * s->query_heads; at++)
        for (int32_t j = 0; j < KEYS; j++) {
            int32_t end = now->prefix[at / s->query_heads / s->block] - k->amend;
            readers[at][j] = j < end ? m->keys[at][j] : (mb_reader){now, at / s->query_heads % s->block};
        }
    expect_output(recording, e, readers);
    free(readers);
}

static void copy_memory(memory *to, const memory *from)
{
    memcpy(to->keys, from->keys, 2 * ROWS * sizeof *to->keys);
    memcpy(to->query, from->query, sizeof to->query);
}

/* Plays and simulates; returns what happened at each step of the first layer's first block. */
static tally check_mac(const mb_stage_case *c, const rules *k, tally steps[8])
{
    mb_recording recording = record(c);
    mb_stage_run run = play(c, "mac", k->settings);
    tally sum = {0, 0, 0, 0};
    for (int32_t l = 0; l < c->layers; l++) {
        memory now = {new_readers(), {{NULL, 0}}}, ring = {new_readers(), {{NULL, 0}}};
        for (int32_t block = 0; block < c->blocks; block++)
            for (int32_t step = 1, age = 0; step <= c->steps; step++, age++) {
                const mb_snapshot *at = mb_recording_at(&recording, block, step, l);
                const mb_stage_event *e = mb_stage_find(&run, block, step, l);
                int32_t ends[MB_STAGE_BATCH];   /* of the entries that the ring holds */
                for (int32_t b = 0; b < c->batch; b++)
                    ends[b] = at->prefix[b] - c->block - k->amend;
                bool first = step == 1, ringed = first && k->blocks && block > 0;
                age = k->refresh > 0 && age >= k->refresh ? 0 : age;
                if (!first && !k->steps) {
                    assert_int_equal(e->answer.answer, MB_DENSE);
                    continue;
                }
                if (ringed)
                    copy_memory(&now, &ring);
                tally t = simulate(&recording, k, at, ends, ringed || (!first && age > 0), ringed,
                                   ringed && k->any, &now);
                if (first)
                    copy_memory(&ring, &now);
                if (l == 0 && block == 0 && steps)
                    steps[step] = t;
                sum.hits += t.hits;
                sum.rows += t.rows;
                sum.mixed_heads += t.mixed_heads;
                sum.idle_heads += t.idle_heads;
                expect_mac(&recording, k, e, &now);
                int idle = 0;
                for (int32_t bh = 0; bh < c->batch * c->kv_heads; bh++)
                    idle += e->counts[bh] == 0;
                assert_int_equal(idle, t.idle_heads);   /* the work it reports */
            }
        free(now.keys);
        free(ring.keys);
    }
    assert_true(fabs(run.counters[0] - (sum.rows ? (double)sum.hits / sum.rows : 0)) < 1e-12);
    mb_stage_free(&run);
    mb_recording_free(&recording);
    return sum;
}

static double near_of(double threshold)
{
    return (1 - threshold) * (1 - threshold);
}

static void test_mac_steps(void **state)
{
    const double d = 2.0 * small.head_dim;
    const rules all[] = {
        {"threshold=1", 0, false, true, false, false, true, 0, 0, 0},                   /* exact */
        {"threshold=-10", d * near_of(-10), false, true, false, false, true, 0, 0, 0}, /* four chained reuses */
        {"threshold=0.6", d * near_of(0.6), false, true, false, false, true, 0, 0, 0},
        {"threshold=0.6 mixed=refresh", d * near_of(0.6), false, true, false, false, false, 0, 0, 0},
        {"threshold=0.6 miss_share=0.5", d * near_of(0.6), false, true, false, false, true, 0.5, 0, 0},
        {"threshold=-10 amend=16", d * near_of(-10), false, true, false, false, true, 0, 16, 0},
        {"threshold=-10 refresh=2", d * near_of(-10), false, true, false, false, true, 0, 0, 2},
        {"threshold=0.65 rule=relative", near_of(0.65), true, true, false, false, true, 0, 0, 0},
        {"distance=2.3", 2.3 * 2.3, false, true, false, false, true, 0, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        tally t = check_mac(&small, &all[i], NULL);
        print_message("%-32s %d of %d rows hit, %d mixed, %d idle heads\n", all[i].settings, t.hits, t.rows,
                      t.mixed_heads, t.idle_heads);
        assert_int_equal(i == 0 ? 0 : i == 1 || i == 5 ? t.rows : t.hits, t.hits);
        if (i == 2 || i == 3)
            assert_true(t.mixed_heads > 0);
    }
}

/* The paper's authors met a bug in exactly this order: a mixed group, then a step in which everything hits. */
static void test_mac_mixed_then_hit(void **state)
{
    const double d = 2.0 * small.head_dim;
    const rules keep = {"threshold=0.9", d * near_of(0.9), false, true, false, false, true, 0, 0, 0};
    rules refresh = keep;
    refresh.settings = "threshold=0.9 mixed=refresh";
    refresh.keep = false;
    mb_stage_case c = small;
    tally steps[8];
    (void)state;
    c.still = true;
    c.moving_rows = 3;
    for (int i = 0; i < 2; i++) {
        check_mac(&c, i ? &refresh : &keep, steps);
        assert_int_equal(steps[2].mixed_heads, 4);   /* all KV heads of both sequences */
        assert_int_equal(steps[2].hits, 5 * 2 * 4);  /* rows * sequences * query heads */
        for (int step = 3; step <= c.steps; step++)
            assert_int_equal(steps[step].idle_heads, 4);
    }
}

static void test_mac_blocks(void **state)
{
    const double d = 2.0 * small.head_dim;
    const rules all[] = {
        {"axis=blocks threshold=-10 amend=16", d * near_of(-10), false, false, true, false, true, 0, 16, 0},
        {"axis=blocks threshold=-10 amend=0", d * near_of(-10), false, false, true, false, true, 0, 0, 0},
        {"axis=blocks threshold=-10 amend=16 match=any", d * near_of(-10), false, false, true, true, true, 0, 16,
         0},
        {"axis=blocks threshold=0.3 amend=16", d * near_of(0.3), false, false, true, false, true, 0, 16, 0},
        {"axis=both threshold=-10 amend=16", d * near_of(-10), false, true, true, false, true, 0, 16, 0},
        {"axis=both threshold=0.4 amend=16 match=any", d * near_of(0.4), false, true, true, true, true, 0, 16, 0},
        {"axis=both threshold=0.3 amend=8 mixed=refresh", d * near_of(0.3), false, true, true, false, false, 0, 8,
         0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        tally t = check_mac(&small, &all[i], NULL);
        print_message("%-48s %d of %d rows hit, %d mixed\n", all[i].settings, t.hits, t.rows, t.mixed_heads);
        assert_true(t.hits > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flashblock), cmocka_unit_test(test_residual),
        cmocka_unit_test(test_losa),       cmocka_unit_test(test_mac_steps),
        cmocka_unit_test(test_mac_mixed_then_hit), cmocka_unit_test(test_mac_blocks),
    };
    return cmocka_run_group_tests(tests, open_env, close_env);
}
