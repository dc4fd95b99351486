/*
 * test_selectors.c - the choices of the further selectors against brute force in double: what each of them scores,
 * how it pools, evicts and shares budgets. Sets are compared by the score they hold, so that ties do not matter.
 */
#include "tests/methods/cpu_stage.h"
#include "tests/methods/recorder.h"

#include <math.h>

#define KEYS 160

static mb_recording recording;
static const mb_stage_case small = {.layers = 4,
                                    .kv_heads = 2,
                                    .group = 2,
                                    .head_dim = 16,
                                    .block = 8,
                                    .steps = 4,
                                    .blocks = 3,
                                    .batch = 2,
                                    .prefix = {104, 72},
                                    .seed = 9};

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

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The head's index has min(count, n) entries and holds as much as the best set of that size. */
static void expect_best(const mb_stage_event *e, int32_t bh, const double *score, int32_t n, int32_t count)
{
    double sorted[KEYS], best = 0, held = 0;
    assert_int_equal(e->answer.answer, MB_SPARSE);
    memcpy(sorted, score, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    count = count < n ? count : n;
    assert_int_equal(e->counts[bh], count);
    for (int32_t i = 0; i < count; i++) {
        best += sorted[i];
        held += score[e->ids[(size_t)bh * (size_t)e->capacity + (size_t)i]];
    }
    if (!(fabs(held - best) <= 2e-5 * (1.0 + fabs(best))))
        fail_msg("block %d step %d layer %d head %d: holds %.9g of %.9g", e->block, e->step, e->layer, bh, held,
                 best);
}

static const mb_snapshot *at(int32_t block, int32_t step, int32_t layer)
{
    return mb_recording_at(&recording, block, step, layer);
}

static void mass_of(int32_t block, int32_t step, int32_t layer, int32_t bh, double *mass)
{
    mb_recording_mass(&recording, at(block, step, layer), bh / 2, bh % 2, -1, true, mass);
}

static void test_herald(void **state)
{
    mb_stage_run run = play(&small, "herald", "k=20");
    double mass[KEYS];
    (void)state;
    for (int32_t block = 0; block < small.blocks; block++)
        for (int32_t bh = 0; bh < 4; bh++) {
            const mb_snapshot *first = at(block, 1, 3);
            mb_recording_mass(&recording, first, bh / 2, bh % 2, small.block / 2, true, mass);
            expect_best(mb_stage_find(&run, block, 2, 3), bh, mass, first->prefix[bh / 2], 20);
            expect_best(mb_stage_find(&run, block, 4, 3), bh, mass, first->prefix[bh / 2], 20);
        }
    mb_stage_free(&run);
}

/* The fewest keys: without its lightest one the set is below p, with it at or above. */
static void test_top_p(void **state)
{
    mb_stage_run run = play(&small, "oracle_top_p", "p=0.6 k_min=1");
    mb_stage_run bounded = play(&small, "oracle_top_p", "p=0.6 k_min=10 k_max=12");
    (void)state;
    for (int32_t step = 1; step <= small.steps; step++)
        for (int32_t bh = 0; bh < 4; bh++) {
            const mb_stage_event *e = mb_stage_find(&run, 1, step, 2);
            int32_t n = at(1, step, 2)->prefix[bh / 2];
            double mass[KEYS], total = 0, held = 0, lightest = 1;
            mass_of(1, step, 2, bh, mass);
            for (int32_t j = 0; j < n; j++)
                total += mass[j];
            for (int32_t i = 0; i < e->counts[bh]; i++) {
                double m = mass[e->ids[bh * e->capacity + i]];
                held += m;
                lightest = m < lightest ? m : lightest;
            }
            assert_true(held >= 0.6 * total - 1e-6 && held - lightest < 0.6 * total + 1e-6);
            expect_best(e, bh, mass, n, e->counts[bh]);
            int32_t count = mb_stage_find(&bounded, 1, step, 2)->counts[bh];
            assert_true(count >= 10 && count <= 12);
        }
    mb_stage_free(&run);
    mb_stage_free(&bounded);
}

static void test_head_budget(void **state)
{
    mb_stage_run run = play(&small, "head_budget", "k=20 k_min=6 dense_layers=0");
    int uneven = 0;
    (void)state;
    for (int32_t l = 0; l < small.layers; l++)
        for (int32_t b = 0; b < 2; b++) {
            const mb_stage_event *e = mb_stage_find(&run, 0, 2, l);
            int32_t n = at(0, 1, l)->prefix[b], other[2] = {0, 0};
            double mass[2][KEYS], sorted[2][KEYS];
            for (int32_t h = 0; h < 2; h++) {
                mb_recording_mass(&recording, at(0, 1, l), b, h, -1, false, mass[h]);
                memcpy(sorted[h], mass[h], sizeof sorted[h]);
                qsort(sorted[h], (size_t)n, sizeof sorted[h][0], by_value);
            }
            for (int taken = 0; taken < 40; taken++) { /* guaranteed ones first, then the better head's next */
                int h = other[0] < 6 ? 0 : other[1] < 6 ? 1 : sorted[0][other[0]] >= sorted[1][other[1]] ? 0 : 1;
                other[h]++;
            }
            for (int32_t h = 0; h < 2; h++)
                expect_best(e, b * 2 + h, mass[h], n, other[h]);
            assert_int_equal(e->counts[2 * b] + e->counts[2 * b + 1], 40); /* the cost of k = 20 a head */
            uneven += other[0] != other[1];
        }
    assert_true(uneven > 0);
    mb_stage_free(&run);
}

static void test_snapkv(void **state)
{
    mb_stage_run run = play(&small, "snapkv", "k=30 window=6 kernel=5");
    (void)state;
    for (int32_t bh = 0; bh < 4; bh++) {
        int32_t prompt = small.prefix[bh / 2];
        double mass[KEYS], score[KEYS];
        mass_of(0, 1, 2, bh, mass);
        for (int32_t j = 0; j < prompt; j++) {
            double sum = 0;
            for (int32_t i = j - 2; i <= j + 2; i++) /* zeros in front; the window is cut off before the pool */
                sum += i >= 0 && i < prompt - 6 ? mass[i] : 0;
            score[j] = j >= prompt - 6 ? 1000 : sum / 5;
        }
        for (int32_t block = 0; block < small.blocks; block++) {
            for (int32_t j = prompt; j < prompt + block * small.block; j++)
                score[j] = 2000; /* generated tokens stay */
            expect_best(mb_stage_find(&run, block, 3, 2), bh, score, prompt + block * small.block, 30);
        }
    }
    assert_int_equal(mb_stage_find(&run, 1, 1, 2)->answer.answer, MB_SPARSE); /* one dense step a request */
    mb_stage_free(&run);
}

static void check_h2o(const char *settings, int32_t recent, bool evict)
{
    mb_stage_run run = play(&small, "h2o", settings);
    for (int32_t bh = 0; bh < 4; bh++) {
        double counts[KEYS] = {0}, mass[KEYS], score[KEYS];
        for (int32_t block = 0; block < small.blocks; block++) {
            const mb_stage_event *e = mb_stage_find(&run, block, 2, 3);
            int32_t n = at(block, 1, 3)->prefix[bh / 2];
            mass_of(block, 1, 3, bh, mass);
            for (int32_t j = 0; j < n; j++) {
                counts[j] += mass[j];
                score[j] = j >= n - recent ? 1000 : counts[j];
            }
            expect_best(e, bh, score, n, 24);
            bool kept[KEYS] = {false};
            for (int32_t i = 0; i < e->counts[bh]; i++)
                kept[e->ids[bh * e->capacity + i]] = true;
            for (int32_t j = 0; j < n && evict; j++)
                counts[j] = kept[j] ? counts[j] : -1e9;
        }
    }
    mb_stage_free(&run);
}

static void test_h2o(void **state)
{
    (void)state;
    check_h2o("k=24", 12, true);
    check_h2o("k=24 evict=false recent=0.25", 6, false);
}

static void test_sparse_dllm(void **state)
{
    mb_stage_run run = play(&small, "sparse_dllm", "k=20");
    mb_stage_run own = play(&small, "sparse_dllm", "k=0 ratio=0.25 share=false kernel=1");
    (void)state;
    for (int32_t b = 0; b < 2; b++) {
        const mb_snapshot *second = at(1, 2, 1); /* the second step chooses */
        int32_t n = second->prefix[b];
        double logit[2][KEYS] = {{0}}, pooled[KEYS];
        for (int32_t a = 0; a < 4; a++)
            for (int32_t r = 0; r < small.block; r++)
                for (int32_t j = 0; j < n; j++)
                    logit[a / 2][j] += mb_recording_logit(&recording, second, second, b, r, a, j) * 4.0 / 16;
        for (int32_t j = 0; j < n; j++) {
            pooled[j] = -INFINITY;
            for (int32_t i = j - 1; i <= j + 1; i++)
                if (i >= 0 && i < n)
                    pooled[j] = fmax(pooled[j], (logit[0][i] + logit[1][i]) / 2);
        }
        for (int32_t h = 0; h < 2; h++) {
            expect_best(mb_stage_find(&run, 1, 3, 1), b * 2 + h, pooled, n, 20);
            expect_best(mb_stage_find(&own, 1, 4, 1), b * 2 + h, logit[h], n, n / 4);
        }
    }
    assert_int_equal(mb_stage_find(&run, 1, 2, 1)->answer.answer, MB_DENSE);
    mb_stage_free(&run);
    mb_stage_free(&own);
}

static void test_double_sparsity(void **state)
{
    mb_stage_run run = play(&small, "double_sparsity", "k=20 factor=4 statistic=pairs bits=0");
    const mb_shape *s = &recording.shape;
    (void)state;
    for (int32_t h = 0; h < 2; h++) {
        const mb_snapshot *first = at(0, 1, 2);
        double weight[16] = {0};
        bool heavy[16];
        for (int32_t b = 0; b < 2; b++)
            for (int32_t c = 0; c < 16; c++) {
                double q = 0, k = 0;
                for (int32_t i = 0; i < s->block * s->query_heads; i++)
                    q += i % s->query_heads / 2 == h
                             ? fabs((double)first->q[(b * s->block * s->query_heads + i) * 16 + c])
                             : 0;
                for (int32_t j = 0; j < first->prefix[b]; j++)
                    k += fabs((double)first->k[((b * 2 + h) * (s->capacity + s->block) + j) * 16 + c]);
                weight[c] += q * k;
            }
        for (int32_t c = 0; c < 16; c++) {
            int rank = 0;
            for (int32_t d = 0; d < 16; d++)
                rank += weight[d] > weight[c];
            heavy[c] = rank < 4;
        }
        for (int32_t b = 0; b < 2; b++) { /* calibrated at the request's first step, used at all others */
            const mb_snapshot *now = at(2, 3, 2);
            double score[KEYS] = {0};
            for (int32_t i = 0; i < s->block * 2; i++)
                for (int32_t j = 0; j < now->prefix[b]; j++)
                    for (int32_t c = 0; c < 16; c++) {
                        int32_t row = (b * s->block + i / 2) * s->query_heads + h * 2 + i % 2;
                        int32_t key = (b * 2 + h) * (s->capacity + s->block) + j;
                        double product = (double)now->q[row * 16 + c] * (double)now->k[key * 16 + c];
                        score[j] += heavy[c] ? product / 16 : 0;
                    }
            expect_best(mb_stage_find(&run, 2, 3, 2), b * 2 + h, score, now->prefix[b], 20);
        }
    }
    mb_stage_free(&run);
}

/* ---- keys by position and by themselves ---- */

static const mb_host *lone_host;
static mb_shape lone_shape;
static mb_page_set lone_set;
static float *lone_scores, *lone_mean, *lone_zero;
static int lone_rule, lone_checked; /* an mb_key_measure, or 3: every 5th key from 2 */

static int lone_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)options, (void)err;
    lone_shape = *shape;
    lone_host = host;
    lone_scores = host->scores_alloc(host);
    lone_zero = host->scores_alloc(host);
    lone_mean = host->alloc(host, (size_t)shape->batch * (size_t)shape->kv_heads * (size_t)shape->head_dim * 4);
    host->pages_alloc(host, 1, 6, &lone_set);
    return 0;
}

static int lone_choose(const mb_host *host, const mb_call *call)
{
    int rc = lone_rule == 3 ? host->score_recent(host, call, INFINITY, -1.0f, lone_scores)
                            : host->key_measures(host, call, (mb_key_measure)lone_rule, lone_mean, lone_scores);
    if (rc == 0 && lone_rule == 3)
        rc = host->score_every(host, call, 5, 2, 1.0f, lone_scores);
    else if (rc == 0) /* the smallest */
        rc = host->score_axpby(host, call, 0.0f, lone_zero, -1.0f, lone_scores);
    return rc == 0 ? host->top_k(host, call, lone_scores, 6, NULL, &lone_set) : rc;
}

/* The measure of key j of a head, from the cache and the mean key that the host wrote. */
static double lone_measure(const mb_call *call, int32_t bh, int32_t j)
{
    int32_t dim = lone_shape.head_dim, rows = lone_shape.capacity + lone_shape.block;
    const float *key = (const float *)call->k + ((size_t)bh * (size_t)rows + (size_t)j) * (size_t)dim;
    const float *mean = lone_mean + (size_t)bh * (size_t)dim;
    double own = 0, other = 0, away = 0, product = 0;
    for (int32_t c = 0; c < dim; c++) {
        double x = (double)key[c], m = (double)mean[c];
        own += x * x;
        other += m * m;
        away += (x - m) * (x - m);
        product += x * m;
    }
    return lone_rule == MB_KEY_NORM       ? sqrt(own)
           : lone_rule == MB_KEY_DISTANCE ? sqrt(away)
                                          : product / sqrt(own * other);
}

/* What was chosen has the smallest measure, or stands at 2, 7, 12 ... */
static int lone_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self;
    int rc = lone_choose(lone_host, call);
    for (int32_t bh = 0; bh < small.batch * small.kv_heads && rc == 0; bh++) {
        const int32_t *ids = lone_set.ids + (size_t)bh * (size_t)lone_set.capacity;
        const float *row = lone_scores + (size_t)bh * (size_t)lone_shape.stride;
        int32_t n = call->prefix_len[bh / small.kv_heads], ahead = 0;
        float least = INFINITY;
        if (lone_set.counts[bh] != 6)
            return mb_fail(err, -1, "%d keys chosen", lone_set.counts[bh]);
        for (int32_t i = 0; i < 6; i++, lone_checked++) {
            least = row[ids[i]] < least ? row[ids[i]] : least;
            if (lone_rule == 3 && ids[i] != 2 + 5 * i)
                return mb_fail(err, -1, "key %d is no fifth one", ids[i]);
        }
        for (int32_t j = 0; j < n; j++) {
            ahead += row[j] > least;
            if (lone_rule != 3 && !(fabs(lone_measure(call, bh, j) + (double)row[j]) < 1e-5))
                return mb_fail(err, -1, "key %d measures %g, not %g", j, -(double)row[j],
                               lone_measure(call, bh, j));
        }
        if (lone_rule != 3 && ahead > 5)
            return mb_fail(err, -1, "%d keys are smaller than the largest chosen one", ahead);
    }
    out->answer = MB_SPARSE;
    out->pages = &lone_set;
    return rc;
}

static void test_lone_keys(void **state)
{
    static const mb_method method = {.abi = MB_METHOD_ABI,
                                     .size = sizeof(mb_method),
                                     .name = "lone",
                                     .version = "1",
                                     .summary = "",
                                     .reference = "",
                                     .open = lone_open,
                                     .select = lone_select};
    (void)state;
    for (lone_rule = MB_KEY_NORM; lone_rule <= 3; lone_rule++) {
        mb_stage_run run;
        mb_error err = {0};
        if (mb_stage_play(&env, &small, &method, NULL, &run, &err) != 0)
            fail_msg("rule %d: %s", lone_rule, err.text);
        mb_stage_free(&run);
    }
    assert_true(lone_checked > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_herald),      cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_head_budget), cmocka_unit_test(test_lone_keys),
        cmocka_unit_test(test_snapkv),      cmocka_unit_test(test_h2o),
        cmocka_unit_test(test_sparse_dllm), cmocka_unit_test(test_double_sparsity),
    };
    return cmocka_run_group_tests(tests, open_recorded, close_recorded);
}
