/*
 * test_estimates.c - methods that choose by less than the whole attention, against brute force in double: one set
 * for all heads by turns, tiles below a running maximum, keys of few bits, few channels of pages. What is compared
 * is written down from the methods' definitions and uses none of the kernels' arithmetic.
 */
#include "tests/methods/cpu_stage.h"
#include "tests/methods/recorder.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#define KEYS 160
#define DIM 16

static mb_recording recording;
static const mb_stage_case small = {.layers = 5,
                                    .kv_heads = 2,
                                    .group = 2,
                                    .head_dim = DIM,
                                    .block = 8,
                                    .steps = 4,
                                    .blocks = 2,
                                    .batch = 2,
                                    .prefix = {104, 72},
                                    .seed = 11};

static int open_recorded(void **state)
{
    mb_error err = {0};
    int rc = open_env(state);
    return rc == 0 ? mb_record(&env, &small, &recording, &err) : rc;
}

static int close_recorded(void **state)
{
    mb_recording_free(&recording);
    return close_env(state);
}

static const mb_snapshot *at(int32_t block, int32_t step, int32_t layer)
{
    return mb_recording_at(&recording, block, step, layer);
}

static const float *query_of(const mb_snapshot *now, int32_t b, int32_t r, int32_t a)
{
    return now->q + ((b * small.block + r) * small.kv_heads * small.group + a) * DIM;
}

static const float *key_of(const mb_snapshot *now, int32_t bh, int32_t j)
{
    return now->k + (bh * (recording.shape.capacity + small.block) + j) * DIM;
}

/* How many of the scores are larger, or equal at a lower index. */
static int32_t rank_of(const double *score, int32_t first, int32_t last, int32_t j)
{
    int32_t rank = 0;
    for (int32_t i = first; i < last; i++)
        rank += score[i] > score[j] || (score[i] == score[j] && i < j);
    return rank;
}

static bool holds(const mb_stage_event *e, int32_t bh, int32_t key)
{
    for (int32_t i = 0; i < e->counts[bh]; i++)
        if (e->ids[bh * e->capacity + i] == key)
            return true;
    return false;
}

static int32_t expect_set(const mb_stage_event *e, int32_t bh, const bool *want, int32_t n)
{
    int32_t count = 0;
    for (int32_t j = 0; j < n; j++) {
        count += want[j];
        if (want[j] != holds(e, bh, j))
            fail_msg("block %d step %d layer %d head %d: key %d is %s", e->block, e->step, e->layer, bh, j,
                     want[j] ? "missing" : "too much");
    }
    assert_int_equal(e->counts[bh], count);
    return count;
}

/* The literal union: names are read in turns, and every new one is taken until there are `middle`. */
static void test_less_is_more(void **state)
{
    mb_stage_run run = play(&small, "less_is_more", "k=24 recent=0.5 sink=3 reselect_layer=9");
    (void)state;
    for (int32_t b = 0; b < 2; b++) {
        const mb_snapshot *now = at(1, 2, 2); /* layer 2 chooses at every step */
        int32_t n = now->prefix[b], first = 3, last = n - 9, taken = 0;
        bool want[KEYS] = {false};
        double mass[2][KEYS];
        for (int32_t h = 0; h < 2; h++)
            mb_recording_mass(&recording, now, b, h, -1, true, mass[h]);
        for (int32_t rank = 0; taken < 12; rank++)
            for (int32_t h = 0; h < 2 && taken < 12; h++)
                for (int32_t j = first; j < last; j++)
                    if (rank_of(mass[h], first, last, j) == rank && !want[j]) {
                        want[j] = true;
                        taken++;
                    }
        for (int32_t j = 0; j < n; j++)
            want[j] = want[j] || j < first || j >= last;
        for (int32_t h = 0; h < 2; h++)
            assert_int_equal(expect_set(mb_stage_find(&run, 1, 2, 4), b * 2 + h, want, n), 24);
    }
    assert_int_equal(mb_stage_find(&run, 1, 2, 2)->answer.answer, MB_DENSE);
    mb_stage_free(&run);
}

static double logit(const mb_snapshot *now, int32_t b, int32_t r, int32_t a, int32_t j)
{
    return mb_recording_logit(&recording, now, now, b, r, a, j);
}

/* Rows walk over the tiles one after the other, as a flash loop does. */
static void test_blasst(void **state)
{
    mb_stage_run run = play(&small, "blasst", "lambda=0.3 tile=16 dense_layers=0");
    int skipped = 0;
    (void)state;
    for (int32_t layer = 0; layer < small.layers; layer++)
        for (int32_t bh = 0; bh < 4; bh++) {
            const mb_snapshot *now = at(1, 3, layer);
            int32_t b = bh / 2, n = now->prefix[b];
            bool want[KEYS] = {false};
            for (int32_t i = 0; i < small.block * 2; i++) {
                double running = -INFINITY;
                for (int32_t t = 0; t * 16 < n; t++) {
                    double best = -INFINITY;
                    for (int32_t j = t * 16; j < n && j < (t + 1) * 16; j++)
                        best = fmax(best, logit(now, b, i / 2, bh % 2 * 2 + i % 2, j));
                    running = fmax(running, best);
                    want[t] = want[t] || best - running >= log(0.3);
                }
            }
            const mb_stage_event *e = mb_stage_find(&run, 1, 3, layer);
            assert_int_equal(e->answer.answer, MB_ATTEND);
            skipped += (n + 15) / 16 - expect_set(e, bh, want, (n + 15) / 16);
        }
    assert_true(skipped > 0);
    mb_stage_free(&run);
}

/* x[DIM] in `bits` steps between its extremes. */
static void rounded(const float *x, int bits, double *to)
{
    double least = INFINITY, most = -INFINITY, levels = (1 << bits) - 1;
    for (int c = 0; c < DIM; c++) {
        least = fmin(least, (double)x[c]);
        most = fmax(most, (double)x[c]);
    }
    for (int c = 0; c < DIM; c++)
        to[c] = least + rint(((double)x[c] - least) * levels / (most - least)) * (most - least) / levels;
}

/* The block's mean probability of each prefix key, keys of `bits`. */
static void rounded_mass(const mb_snapshot *now, int32_t bh, int bits, double *mass)
{
    int32_t b = bh / 2, n = now->prefix[b];
    double weight[KEYS], key[KEYS][DIM];
    for (int32_t j = 0; j < n; j++) {
        rounded(key_of(now, bh, j), bits, key[j]);
        mass[j] = 0;
    }
    for (int32_t i = 0; i < small.block * 2; i++) {
        const float *q = query_of(now, b, i / 2, bh % 2 * 2 + i % 2);
        double total = 0;
        for (int32_t j = 0; j < n; j++) {
            double sum = 0;
            for (int c = 0; c < DIM; c++)
                sum += (double)q[c] * key[j][c];
            total += weight[j] = exp(sum / sqrt(DIM));
        }
        for (int32_t j = 0; j < n; j++)
            mass[j] += weight[j] / total / (small.block * 2);
    }
}

/* Mean over the rows of the upper bounds of a page of 16. */
static double bound_of(const mb_snapshot *now, int32_t bh, int32_t page)
{
    int32_t n = now->prefix[bh / 2];
    double sum = 0;
    for (int32_t i = 0; i < small.block * 2; i++)
        for (int c = 0; c < DIM; c++) {
            double q = (double)query_of(now, bh / 2, i / 2, bh % 2 * 2 + i % 2)[c], most = -INFINITY;
            for (int32_t j = page * 16; j < n && j < (page + 1) * 16; j++)
                most = fmax(most, q * (double)key_of(now, bh, j)[c]);
            sum += most;
        }
    return sum;
}

static void check_twilight(const char *settings, bool base)
{
    mb_stage_run run = play(&small, "twilight", settings);
    for (int32_t bh = 0; bh < 4; bh++) {
        const mb_snapshot *now = at(1, 2, 3); /* after a commit: the first block's keys are rounded, too */
        int32_t n = now->prefix[bh / 2], pages = (n + 15) / 16;
        double mass[KEYS], bounds[KEYS], total = 0, held = 0, lightest = 1;
        rounded_mass(now, bh, 3, mass);
        for (int32_t p = 0; p < pages; p++)
            bounds[p] = bound_of(now, bh, p);
        for (int32_t j = 0; j < n; j++) {
            mass[j] = base && rank_of(bounds, 0, pages, j / 16) >= 3 ? 0 : mass[j];
            total += mass[j];
        }
        const mb_stage_event *e = mb_stage_find(&run, 1, 2, 3);
        for (int32_t i = 0; i < e->counts[bh]; i++) {
            double m = mass[e->ids[bh * e->capacity + i]];
            held += m;
            lightest = fmin(lightest, m);
        }
        for (int32_t j = 0; j < n; j++) /* nothing heavier is left out */
            assert_true(mass[j] <= lightest + 1e-7 || holds(e, bh, j));
        assert_true(held >= 0.7 * total - 1e-6 && held - lightest < 0.7 * total + 1e-6);
        assert_true(lightest > 0);
    }
    mb_stage_free(&run);
}

static void test_twilight(void **state)
{
    (void)state;
    check_twilight("p=0.7 bits=3 candidates=48", true);
    check_twilight("p=0.7 bits=3 base=none", false);
}

/* Stage 1 from the request's first step, stage 2 from the step itself. */
static void test_rocketkv(void **state)
{
    enum { K = 12, KEEP = 40, PAGE = 5, CHANNELS = 6, WINDOW = 8, HALF = 3 };
    mb_stage_run run = play(&small, "rocketkv", "k=12 keep=40 page=5 channels=6 window=8 kernel=7");
    (void)state;
    for (int32_t bh = 0; bh < 4; bh++) {
        const mb_snapshot *first = at(0, 1, 3), *now = at(1, 3, 3);
        int32_t b = bh / 2, prompt = first->prefix[b], n = now->prefix[b];
        double mass[KEYS], pooled[KEYS], weight[DIM] = {0}, mean[DIM] = {0}, score[KEYS];
        mb_recording_mass(&recording, first, b, bh % 2, -1, true, mass);
        for (int32_t j = 0; j < prompt; j++) {
            pooled[j] = j >= prompt - WINDOW ? 1000 : 0;
            for (int32_t i = j - HALF; i <= j + HALF && j < prompt - WINDOW; i++)
                pooled[j] = i >= 0 && i < prompt - WINDOW ? fmax(pooled[j], mass[i]) : pooled[j];
        }
        for (int32_t i = 0; i < small.block * 2; i++)
            for (int c = 0; c < DIM; c++) {
                double q = (double)query_of(now, b, i / 2, bh % 2 * 2 + i % 2)[c];
                weight[c] += fabs(q);
                mean[c] += q / (small.block * 2);
            }
        for (int32_t j = 0; j < n; j++) {
            score[j] = 0;
            for (int c = 0; c < DIM; c++) {
                double best = -INFINITY;
                for (int32_t i = j / PAGE * PAGE; i < n && i < (j / PAGE + 1) * PAGE; i++)
                    best = fmax(best, mean[c] * (double)key_of(now, bh, i)[c]);
                score[j] += rank_of(weight, 0, DIM, c) < CHANNELS ? best : 0;
            }
            if (j < prompt && rank_of(pooled, 0, prompt, j) >= KEEP)
                score[j] = -INFINITY;
        }
        double held = 0, best = 0;
        const mb_stage_event *e = mb_stage_find(&run, 1, 3, 3);
        for (int32_t i = 0; i < e->counts[bh]; i++)
            held += score[e->ids[bh * e->capacity + i]];
        for (int32_t j = 0; j < n; j++)
            best += rank_of(score, 0, n, j) < K ? score[j] : 0;
        assert_int_equal(e->counts[bh], K);
        assert_true(fabs(held - best) < 1e-4 * (1 + fabs(best)));
    }
    assert_int_equal(mb_stage_find(&run, 1, 1, 3)->answer.answer, MB_SPARSE); /* one dense step a request */
    mb_stage_free(&run);
}

/* to = x; channels that are left out repeat one that is in, so that extremes are those of the latter. */
static void pick_of(const float *x, const bool *heavy, float *to)
{
    int first = 0;
    while (!heavy[first])
        first++;
    for (int c = 0; c < DIM; c++)
        to[c] = x[heavy[c] ? c : first];
}

/* Channels of a file are uploaded; without one the first block's own pairs choose them. */
static void check_double_sparsity(const char *settings, const bool heavy[2][DIM])
{
    enum { K = 20 };
    mb_stage_run run = play(&small, "double_sparsity", settings);
    for (int32_t bh = 0; bh < 4; bh++) {
        const mb_snapshot *now = at(1, 3, 2);
        int32_t n = now->prefix[bh / 2];
        double score[KEYS] = {0}, held = 0, best = 0, label[KEYS][DIM];
        float few[DIM];
        for (int32_t j = 0; j < n; j++) {
            pick_of(key_of(now, bh, j), heavy[bh % 2], few);
            rounded(few, 4, label[j]);
        }
        for (int32_t i = 0; i < small.block * 2; i++) {
            const float *q = query_of(now, bh / 2, i / 2, bh % 2 * 2 + i % 2);
            double query[DIM];
            pick_of(q, heavy[bh % 2], few);
            rounded(few, 4, query);
            for (int32_t j = 0; j < n; j++)
                for (int c = 0; c < DIM; c++)
                    score[j] += heavy[bh % 2][c] ? query[c] * label[j][c] / (small.block * 2) : 0;
        }
        const mb_stage_event *e = mb_stage_find(&run, 1, 3, 2);
        for (int32_t i = 0; i < e->counts[bh]; i++)
            held += score[e->ids[bh * e->capacity + i]];
        for (int32_t j = 0; j < n; j++)
            best += rank_of(score, 0, n, j) < K ? score[j] : 0;
        assert_int_equal(e->counts[bh], K);
        assert_true(fabs(held - best) < 1e-4 * (1 + fabs(best)));
    }
    mb_stage_free(&run);
}

static void test_double_sparsity(void **state)
{
    bool heavy[2][DIM] = {{false}};
    char path[] = "/tmp/maskbench-channels-XXXXXX", settings[256];
    FILE *file = fdopen(mkstemp(path), "w");
    (void)state;
    assert_non_null(file);
    for (int32_t h = 0; h < 2; h++) {
        double weight[DIM] = {0};
        for (int32_t b = 0; b < 2; b++)
            for (int32_t i = 0; i < small.block * 2; i++)
                for (int c = 0; c < DIM; c++) {
                    const mb_snapshot *first = at(0, 1, 2);
                    int32_t slot = first->prefix[b] + i / 2;
                    weight[c] += fabs((double)query_of(first, b, i / 2, h * 2 + i % 2)[c] *
                                      (double)key_of(first, b * 2 + h, slot)[c]);
                }
        for (int c = 0; c < DIM; c++)
            heavy[h][c] = rank_of(weight, 0, DIM, c) < 4;
    }
    check_double_sparsity("k=20 factor=4", heavy);
    for (int i = 0; i < small.layers * 2; i++) /* of layer i / 2, head i % 2: every fourth channel from i % 2 */
        fprintf(file, "%d %d\n %d\t%d\n", i % 2, 4 + i % 2, 8 + i % 2, 12 + i % 2);
    fclose(file);
    for (int c = 0; c < 2 * DIM; c++)
        heavy[c / DIM][c % DIM] = c % DIM % 4 == c / DIM;
    snprintf(settings, sizeof settings, "k=20 factor=4 channels=%s", path);
    check_double_sparsity(settings, heavy);
    remove(path);
}

/* The listed steps choose anew, the first one always. */
static void test_refresh_at(void **state)
{
    mb_stage_run run = play(&small, "mage", "k=20 refresh_at=2,4");
    (void)state;
    for (int32_t step = 1; step <= 4; step++)
        assert_int_equal(mb_stage_find(&run, 1, step, 3)->answer.answer, step == 3 ? MB_SPARSE : MB_DENSE);
    mb_stage_free(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_less_is_more),    cmocka_unit_test(test_blasst),
        cmocka_unit_test(test_twilight),        cmocka_unit_test(test_rocketkv),
        cmocka_unit_test(test_double_sparsity), cmocka_unit_test(test_refresh_at),
    };
    return cmocka_run_group_tests(tests, open_recorded, close_recorded);
}
