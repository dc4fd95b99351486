/*
 * test_methods.c - what each built-in method promises beyond the inherited properties. The reference is brute
 * force in double on the same queries and keys, recorded by a probe that plays as a method (CPU: device memory is
 * plain memory); nothing of the kernels' arithmetic is used for it.
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

static bool same_indices(const mb_stage_event *a, const mb_stage_event *b)
{
    for (int32_t bh = 0; bh < small.batch * small.kv_heads; bh++)
        if (!same_index(a, b, bh))
            return false;
    return true;
}

/* ---- the probe ---- */

#define MOST_KEYS 128

/* Of one (block, step, layer, sequence, KV head): per prefix key, in double. */
typedef struct truth {
    double mass[MOST_KEYS];   /* mean over rows of the probability, prefix and block under the softmax */
    double prefix[MOST_KEYS]; /* the same, prefix only under the softmax */
    double masked[MOST_KEYS]; /* as mass, over masked rows */
    double logit[MOST_KEYS];  /* mean over rows of q.k */
    int votes[MOST_KEYS];     /* rows that have the key among their VOTE_K best */
    double unions, coverage;  /* of those votes */
    double bound_mean[16], bound_max[16], bound_query[16]; /* largest true q.k of a page of 16, by merge rule */
    int32_t n;
} truth;
#define VOTE_K 24

typedef struct probe {
    truth *cells; /* [blocks][steps+1][layers][batch][kv_heads] */
    mb_stage_case c;
    int failures;
} probe;
static probe probing;
static mb_shape probe_shape;

static truth *truth_of(int32_t block, int32_t step, int32_t layer, int32_t bh)
{
    const mb_stage_case *c = &probing.c;
    return &probing.cells[((block * (c->steps + 1) + step) * c->layers + layer) * c->batch * c->kv_heads + bh];
}

static int probe_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)host, (void)options, (void)err;
    probe_shape = *shape;
    return 0;
}

static double dot(const float *a, const float *b, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Adds one row's logits to the sums. z: q.k of all keys, prefix first, then block. */
static void probe_row(truth *t, const double *z, int32_t n, int32_t keys, double scale, bool masked)
{
    double most = -INFINITY, all = 0, part = 0;
    for (int32_t j = 0; j < keys; j++)
        most = z[j] > most ? z[j] : most;
    for (int32_t j = 0; j < keys; j++) {
        all += exp(scale * (z[j] - most));
        part += j < n ? exp(scale * (z[j] - most)) : 0;
    }
    for (int32_t j = 0; j < n; j++) {
        double weight = exp(scale * (z[j] - most));
        t->mass[j] += weight / all;
        t->prefix[j] += weight / part;
        t->masked[j] += masked ? weight / all : 0;
        t->logit[j] += z[j];
        int better = 0;
        for (int32_t i = 0; i < n; i++)
            better += z[i] > z[j] || (z[i] == z[j] && i < j);
        t->votes[j] += better < VOTE_K;
    }
}

static int probe_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    const mb_shape *s = &probe_shape;
    int32_t group = s->query_heads / s->kv_heads, dim = s->head_dim, slots = s->capacity + s->block;
    (void)self, (void)out, (void)err;
    for (int32_t bh = 0; bh < s->batch * s->kv_heads; bh++) {
        truth *t = truth_of(call->block, call->step, call->layer, bh);
        int32_t b = bh / s->kv_heads, h = bh % s->kv_heads, n = call->prefix_len[b], keys = n + s->block;
        const float *k = (const float *)call->k + (size_t)bh * (size_t)slots * (size_t)dim;
        int rows = 0, masked_rows = 0;
        memset(t, 0, sizeof *t);
        t->n = n;
        for (int p = 0; p < 16; p++)
            t->bound_max[p] = -INFINITY;
        double(*z)[MOST_KEYS + 64] = calloc((size_t)(s->block * group), sizeof *z);
        double mean_query[256] = {0};
        for (int32_t r = 0; r < s->block; r++)
            for (int32_t g = 0; g < group; g++, rows++) {
                const float *q =
                    (const float *)call->q +
                    ((size_t)(b * s->block + r) * (size_t)s->query_heads + (size_t)(h * group + g)) * (size_t)dim;
                bool masked = call->masked[b * s->block + r] > 0;
                masked_rows += masked;
                for (int32_t j = 0; j < keys; j++)
                    z[rows][j] = dot(q, k + (size_t)j * (size_t)dim, dim);
                for (int32_t i = 0; i < dim; i++)
                    mean_query[i] += (double)q[i];
                probe_row(t, z[rows], n, keys, 1.0 / sqrt(dim), masked);
                for (int32_t p = 0; p * 16 < n; p++) {
                    double best = -INFINITY;
                    for (int32_t j = p * 16; j < n && j < p * 16 + 16; j++)
                        best = z[rows][j] > best ? z[rows][j] : best;
                    t->bound_mean[p] += best;
                    t->bound_max[p] = best > t->bound_max[p] ? best : t->bound_max[p];
                }
            }
        for (int32_t p = 0; p * 16 < n; p++) {
            t->bound_mean[p] /= rows;
            t->bound_query[p] = -INFINITY;
            for (int32_t j = p * 16; j < n && j < p * 16 + 16; j++) {
                double product = 0;
                for (int32_t i = 0; i < dim; i++)
                    product += mean_query[i] / rows * (double)k[(size_t)j * (size_t)dim + (size_t)i];
                t->bound_query[p] = product > t->bound_query[p] ? product : t->bound_query[p];
            }
        }
        for (int32_t j = 0; j < n; j++) {
            t->mass[j] /= rows;
            t->prefix[j] /= rows;
            t->masked[j] = masked_rows ? t->masked[j] / masked_rows : t->mass[j];
            t->logit[j] /= rows;
            t->unions += t->votes[j] > 0;
            t->coverage += t->votes[j] > 0 ? t->mass[j] : 0;
        }
        free(z);
    }
    return 0;
}

static void probe_case(const mb_stage_case *c)
{
    static const mb_method method = {.abi = MB_METHOD_ABI,
                                     .size = sizeof(mb_method),
                                     .name = "probe",
                                     .version = "1",
                                     .summary = "",
                                     .reference = "",
                                     .open = probe_open,
                                     .select = probe_select};
    mb_stage_run run;
    mb_error err = {0};
    free(probing.cells);
    probing.c = *c;
    probing.cells =
        calloc((size_t)(c->blocks * (c->steps + 1) * c->layers * c->batch * c->kv_heads), sizeof *probing.cells);
    assert_non_null(probing.cells);
    if (mb_stage_play(&env, c, &method, NULL, &run, &err) != 0)
        fail_msg("%s", err.text);
    mb_stage_free(&run);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The index of one head holds as much of `score` as the best set of its size does: a top-k up to rounding. */
static void expect_best(const mb_stage_event *e, int32_t bh, const double *score, int32_t n, int32_t count)
{
    double sorted[MOST_KEYS], best = 0, held = 0;
    memcpy(sorted, score, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    count = count < n ? count : n;
    assert_int_equal(e->counts[bh], count);
    for (int32_t i = 0; i < count; i++) {
        best += sorted[i];
        held += score[e->ids[(size_t)bh * (size_t)e->capacity + (size_t)i]];
    }
    if (!(fabs(held - best) <= 1e-5 * (1.0 + fabs(best))))
        fail_msg("block %d step %d layer %d head %d: holds %.9g of %.9g", e->block, e->step, e->layer, bh, held,
                 best);
}

enum { BY_MASS, BY_PREFIX, BY_MASKED, BY_LOGIT };

static const double *score_of(const truth *t, int kind)
{
    return kind == BY_PREFIX ? t->prefix : kind == BY_MASKED ? t->masked : kind == BY_LOGIT ? t->logit : t->mass;
}

/* Every sparse event with step >= first holds the best k keys of (its block, from_step or its own, its layer). */
static void expect_choice(const mb_stage_run *run, int32_t from_step, int32_t k, int kind)
{
    size_t checked = 0;
    for (size_t i = 0; i < run->count; i++) {
        const mb_stage_event *e = &run->events[i];
        for (int32_t bh = 0; e->answer.answer == MB_SPARSE && bh < small.batch * small.kv_heads; bh++, checked++) {
            const truth *t = truth_of(e->block, from_step ? from_step : e->step, e->layer, bh);
            expect_best(e, bh, score_of(t, kind), t->n, k);
        }
    }
    assert_true(checked > 0);
}

/* ---- oracle, mage ---- */

static void test_oracle_is_exact_top_k(void **state)
{
    (void)state;
    probe_case(&small);
    mb_stage_run run = play(&small, "oracle", "k=20 commit=sparse");
    expect_choice(&run, 0, 20, BY_MASS);
    mb_stage_free(&run);
    run = play(&small, "oracle", "k=20 normaliser=prefix");
    expect_choice(&run, 0, 20, BY_PREFIX);
    mb_stage_free(&run);
    run = play(&small, "oracle", "k=20 rows=masked commit=sparse");
    expect_choice(&run, 0, 20, BY_MASKED);
    mb_stage_free(&run);
}

static void test_mage_chooses_at_step_1(void **state)
{
    (void)state;
    probe_case(&small);
    mb_stage_run run = play(&small, "mage", "k=20 commit=sparse"), oracle = play(&small, "oracle", "k=20");
    expect_choice(&run, 1, 20, BY_MASS);
    for (int32_t block = 0; block < small.blocks; block++)
        for (int32_t l = 0; l < small.layers; l++) {
            const mb_stage_event *first = mb_stage_find(&run, block, 1, l);
            assert_int_equal(first->answer.answer, MB_DENSE);
            assert_int_equal(first->answer.want != 0, l >= 2);
            for (int32_t step = 2; step <= small.steps; step++) {
                const mb_stage_event *e = mb_stage_find(&run, block, step, l);
                assert_int_equal(e->answer.answer, l < 2 ? MB_DENSE : MB_SPARSE);
                if (l >= 2) /* equal to the oracle of step 1, and kept */
                    assert_true(same_indices(e, mb_stage_find(&oracle, block, 1, l)));
            }
        }
    assert_false(same_indices(mb_stage_find(&run, 0, 2, 3), mb_stage_find(&run, 1, 2, 3)));
    assert_false(same_indices(mb_stage_find(&run, 0, 2, 3), mb_stage_find(&oracle, 0, 4, 3)));
    mb_stage_free(&run);
    mb_stage_free(&oracle);
    run = play(&small, "mage", "k=20 rows=masked normaliser=prefix");
    expect_choice(&run, 1, 20, BY_PREFIX); /* all rows are masked at step 1 */
    mb_stage_free(&run);
}

static void test_mage_refresh(void **state)
{
    (void)state;
    mb_stage_run run = play(&small, "mage", "k=20 refresh=2"), oracle = play(&small, "oracle", "k=20");
    assert_true(same_indices(mb_stage_find(&run, 0, 2, 4), mb_stage_find(&oracle, 0, 1, 4)));
    assert_int_equal(mb_stage_find(&run, 0, 3, 4)->answer.answer, MB_DENSE);
    assert_true(same_indices(mb_stage_find(&run, 0, 4, 4), mb_stage_find(&oracle, 0, 3, 4)));
    mb_stage_free(&run);
    mb_stage_free(&oracle);
}

static void test_mage_votes(void **state)
{
    (void)state;
    probe_case(&small);
    mb_stage_run run = play(&small, "mage", "k=24 rule=votes"); /* k is VOTE_K: the rows' own top-k */
    for (int32_t l = 2; l < small.layers; l++)
        for (int32_t bh = 0; bh < small.batch * small.kv_heads; bh++) {
            const truth *t = truth_of(0, 1, l, bh);
            double rank[MOST_KEYS];
            for (int32_t j = 0; j < t->n; j++) /* votes first, then mass; recency below both */
                rank[j] = t->votes[j] > 0 ? t->votes[j] + 0.25 * t->mass[j] : 0.5 * (j + 1) / (t->n + 1);
            const mb_stage_event *e = mb_stage_find(&run, 0, 2, l);
            bool held[MOST_KEYS] = {false};
            double worst = INFINITY, missed = -INFINITY; /* sums would hide a tie broken the wrong way */
            for (int32_t i = 0; i < e->counts[bh]; i++)
                held[e->ids[bh * e->capacity + i]] = true;
            for (int32_t j = 0; j < t->n; j++) {
                worst = held[j] && rank[j] < worst ? rank[j] : worst;
                missed = !held[j] && rank[j] > missed ? rank[j] : missed;
            }
            assert_int_equal(e->counts[bh], VOTE_K);
            assert_true(worst > missed - 1e-5);
        }
    mb_stage_free(&run);
}

static void test_mage_layer_budgets(void **state)
{
    static const int32_t k_min = 20;
    (void)state;
    probe_case(&small);
    mb_stage_run run = play(&small, "mage", "k=24 rule=votes budget=layer_adaptive k_min=20");
    int different = 0;
    for (int32_t b = 0; b < small.batch; b++) {
        double s[16], sum = 0;
        for (int32_t l = 2; l < small.layers; l++) {
            s[l] = 0;
            for (int32_t h = 0; h < small.kv_heads; h++) {
                const truth *t = truth_of(0, 1, l, b * small.kv_heads + h);
                double head = t->unions * (1.0 - log(t->coverage));
                s[l] = head > s[l] ? head : s[l];
            }
            sum += s[l];
        }
        for (int32_t l = 2; l < small.layers; l++) {
            int32_t budget = (int32_t)floor(s[l] / sum * 24 * (small.layers - 2));
            budget = budget < k_min ? k_min : budget;
            different += budget != 24;
            for (int32_t h = 0; h < small.kv_heads; h++) {
                int32_t n = truth_of(0, 1, l, b * small.kv_heads + h)->n;
                assert_int_equal(mb_stage_find(&run, 0, 2, l)->counts[b * small.kv_heads + h],
                                 budget < n ? budget : n);
            }
        }
    }
    assert_true(different > 0);
    mb_stage_free(&run);
    run = play(&small, "mage", "k=112 budget=layer_adaptive"); /* N <= k: everything */
    assert_int_equal(mb_stage_find(&run, 0, 2, 3)->counts[0], 104);
    assert_int_equal(mb_stage_find(&run, 0, 2, 3)->counts[2], 72);
    mb_stage_free(&run);
}

/* ---- quest ---- */

static mb_merge bound_rule;
static void *probe_bounds;
static float *bound_scores;
static const mb_host *bound_host;
static int bounds_checked;

static int bound_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)options, (void)err;
    probe_shape = *shape;
    bound_host = host;
    probe_bounds = host->bounds_alloc(host, 16);
    bound_scores = host->scores_alloc(host);
    return 0;
}

static int bound_kv_added(void *self, const mb_call *call, mb_error *err)
{
    (void)self, (void)err;
    return bound_host->page_bounds(bound_host, call, 16, call->phase == MB_PHASE_PREFILL, probe_bounds);
}

/* The bound of each page is at least the largest true product in it, and no page is missing. */
static int bound_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)out;
    int rc = bound_host->page_scores(bound_host, call, 16, probe_bounds, bound_rule, MB_ROWS_ALL, bound_scores);
    for (int32_t bh = 0; bh < small.batch * small.kv_heads && rc == 0; bh++) {
        const truth *t = truth_of(call->block, call->step, call->layer, bh);
        const double *least = bound_rule == MB_MERGE_MAX     ? t->bound_max
                              : bound_rule == MB_MERGE_QUERY ? t->bound_query
                                                             : t->bound_mean;
        for (int32_t p = 0; p * 16 < t->n; p++, bounds_checked++) {
            double score = (double)bound_scores[(size_t)bh * (size_t)probe_shape.stride + (size_t)p];
            if (!(score >= least[p] - 1e-4))
                return mb_fail(err, -1, "page %d: bound %g below a true product %g", p, score, least[p]);
        }
    }
    return rc;
}

static void test_quest_bounds(void **state)
{
    static const mb_method method = {.abi = MB_METHOD_ABI,
                                     .size = sizeof(mb_method),
                                     .name = "bounds",
                                     .version = "1",
                                     .summary = "",
                                     .reference = "",
                                     .open = bound_open,
                                     .kv_added = bound_kv_added,
                                     .select = bound_select};
    mb_stage_case c = small;
    (void)state;
    c.layers = 1; /* the probe has one array of bounds */
    probe_case(&c);
    for (int rule = MB_MERGE_MEAN; rule <= MB_MERGE_QUERY; rule++) {
        mb_stage_run run;
        mb_error err = {0};
        bound_rule = (mb_merge)rule;
        if (mb_stage_play(&env, &c, &method, NULL, &run, &err) != 0)
            fail_msg("rule %d: %s", rule, err.text);
        mb_stage_free(&run);
    }
    assert_true(bounds_checked > 100);
}

static void test_quest_pages(void **state)
{
    (void)state;
    mb_stage_run run = play(&small, "quest", "k=48");
    const mb_stage_event *a = mb_stage_find(&run, 0, 1, 2);
    int changes = 0;
    assert_int_equal(a->answer.answer, MB_SPARSE); /* no dense step */
    assert_int_equal(mb_stage_find(&run, 0, 1, 1)->answer.answer, MB_DENSE);
    assert_int_equal(mb_stage_find(&run, 0, 0, 2)->answer.answer, MB_DENSE);
    assert_int_equal(a->granularity, 16);
    assert_int_equal(a->counts[0], 3);
    assert_true(a->answer.select_tokens == 104 / 16.0);
    for (int32_t bh = 0; bh < 4; bh++) /* blocks of 8 do not fill pages of 16: the last page is kept */
        assert_int_equal(a->ids[bh * a->capacity + 2], (a->prefix[bh / 2] - 1) / 16);
    for (int32_t l = 2; l < small.layers; l++)
        for (int32_t step = 2; step <= small.steps; step++)
            changes += !same_indices(mb_stage_find(&run, 0, 1, l), mb_stage_find(&run, 0, step, l));
    assert_true(changes > 0); /* estimated anew */
    mb_stage_free(&run);
    run = play(&small, "quest", "k=48 refresh=0 commit=sparse");
    assert_true(same_indices(mb_stage_find(&run, 0, 1, 2), mb_stage_find(&run, 0, 4, 2)));
    assert_true(same_indices(mb_stage_find(&run, 0, 1, 2), mb_stage_find(&run, 0, 0, 2)));
    assert_true(mb_stage_find(&run, 0, 4, 2)->answer.select_tokens == 0);
    mb_stage_free(&run);
    run = play(&small, "quest", "k=50"); /* whole pages, rounded up */
    assert_int_equal(mb_stage_find(&run, 0, 1, 2)->counts[0], 4);
    mb_stage_free(&run);
    static const struct {
        const char *settings;
        int32_t pages;
    } official[] = {{"k=79 rounding=official", 4}, {"k=50 rounding=official", 3}, {"k=16 rounding=official", 3}};
    for (size_t i = 0; i < sizeof official / sizeof official[0]; i++) { /* max(3, k / 16) */
        run = play(&small, "quest", official[i].settings);
        assert_int_equal(mb_stage_find(&run, 0, 1, 2)->counts[0], official[i].pages);
        mb_stage_free(&run);
    }
}

/* ---- tidal ---- */

static void test_tidal_layers(void **state)
{
    mb_stage_case c = small;
    (void)state;
    c.layers = 12; /* round(12*13/32) = 5 */
    probe_case(&c);
    mb_stage_run run = play(&c, "tidal", "k=20");
    for (int32_t step = 0; step <= c.steps; step++)
        for (int32_t l = 0; l < c.layers; l++) {
            const mb_stage_event *e = mb_stage_find(&run, 0, step, l);
            bool dense = step == 0 || l <= 2 || l == 5;
            assert_int_equal(e->answer.answer, dense ? MB_DENSE : MB_SPARSE);
            assert_int_equal(e->answer.want != 0, step != 0 && (l == 2 || l == 5));
            for (int32_t bh = 0; !dense && bh < 4; bh++) {
                const truth *t = truth_of(0, step, l < 5 ? 2 : 5, bh);
                expect_best(e, bh, t->mass, t->n, 20);
            }
        }
    mb_stage_free(&run);
    run = play(&c, "tidal", "k=20 score=logits reselect_layer=99 commit=sparse");
    for (int32_t step = 0; step <= c.steps; step++)
        for (int32_t l = 3; l < c.layers; l++)
            for (int32_t bh = 0; bh < 4; bh++) {
                const truth *t = truth_of(0, step, 2, bh);
                expect_best(mb_stage_find(&run, 0, step, l), bh, t->logit, t->n, 20);
            }
    mb_stage_free(&run);
    run = play(&c, "tidal", "k=20 share=all");
    const mb_stage_event *e = mb_stage_find(&run, 1, 3, 8);
    for (int32_t b = 0; b < 2; b++) {
        double mean[MOST_KEYS];
        const truth *t = truth_of(1, 3, 5, 2 * b);
        for (int32_t j = 0; j < t->n; j++)
            mean[j] = (t->mass[j] + truth_of(1, 3, 5, 2 * b + 1)->mass[j]) / 2;
        expect_best(e, 2 * b, mean, t->n, 20);
        expect_best(e, 2 * b + 1, mean, t->n, 20);
    }
    mb_stage_free(&run);
}

/* ---- sparsed ---- */

static void test_sparsed_blocks(void **state)
{
    (void)state;
    probe_case(&small);
    mb_stage_run run = play(&small, "sparsed", "k=32 page=16"), ratio = play(&small, "sparsed", "k=0 page=16");
    for (int32_t at = 0; at < small.blocks * small.layers * 4; at++) {
        int32_t block = at / 4 / small.layers, l = at / 4 % small.layers, bh = at % 4;
        const truth *t = truth_of(block, 1, l, bh);
        double pages[16] = {0};
        int32_t n = (t->n + 15) / 16;
        for (int32_t j = 0; j < t->n; j++)
            pages[j / 16] += t->mass[j];
        expect_best(mb_stage_find(&run, block, 2, l), bh, pages, n, 2);
        expect_best(mb_stage_find(&ratio, block, 2, l), bh, pages, n, (int32_t)(n * 0.3) + 1);
    }
    assert_true(same_indices(mb_stage_find(&run, 0, 2, 5), mb_stage_find(&run, 0, 4, 5)));
    mb_stage_free(&run);
    mb_stage_free(&ratio);
    mb_stage_case c = small; /* a block that ends within the dense steps has no pattern for a sparse commit */
    c.adaptive = true;
    run = play(&c, "sparsed", "k=32 early_steps=9 commit=sparse");
    assert_int_equal(mb_stage_find(&run, 1, 0, 3)->answer.answer, MB_DENSE);
    mb_stage_free(&run);
    run = play(&c, "sparsed", "k=32 commit=sparse");
    assert_int_equal(mb_stage_find(&run, 1, 0, 3)->answer.answer, MB_SPARSE);
    mb_stage_free(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle_is_exact_top_k), cmocka_unit_test(test_mage_chooses_at_step_1),
        cmocka_unit_test(test_mage_refresh),          cmocka_unit_test(test_mage_votes),
        cmocka_unit_test(test_mage_layer_budgets),    cmocka_unit_test(test_quest_bounds),
        cmocka_unit_test(test_quest_pages),           cmocka_unit_test(test_tidal_layers),
        cmocka_unit_test(test_sparsed_blocks),
    };
    int rc = cmocka_run_group_tests(tests, open_env, close_env);
    free(probing.cells);
    return rc;
}
