/*
 * test_draw.c - drawn tokens: the distribution of temperature, top_k and top_p against one that is enumerated here
 * (chi-square, fixed seed), the tokens that are kept, the confidence, numbers that depend on seed, position and
 * step alone, and whole decodings that repeat.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/model/stub_network.h"

enum { TOKENS = 12, UNSEEN = 1, DRAWS = 60000 }; /* UNSEEN: [MASK], among the likeliest, is never drawn */

/* Logits with ties and no order. */
static const float logits[TOKENS] = {0.5f,  2.0f,  -1.0f, 2.0f,  0.0f,  1.25f,
                                     -3.0f, 1.25f, 1.25f, -0.5f, 0.75f, -8.0f};

struct rule {
    double temperature, top_p;
    int32_t top_k;
    mb_confidence_over over;
};

static const struct rule rules[] = {{1, 1, 0, MB_CONFIDENCE_KEPT},   {0.5, 1, 0, MB_CONFIDENCE_KEPT},
                                    {2, 1, 0, MB_CONFIDENCE_KEPT},   {1, 0.7, 0, MB_CONFIDENCE_KEPT},
                                    {1, 1, 4, MB_CONFIDENCE_KEPT},   {1.5, 0.8, 6, MB_CONFIDENCE_ALL},
                                    {1, 1e-6, 0, MB_CONFIDENCE_ALL}, {1, 1, 1, MB_CONFIDENCE_ALL}};
enum { RULES = sizeof rules / sizeof rules[0] };

/* Token by token from the largest, as the families' code does it with sorted tensors. Returns how many are kept;
 * share: of all tokens, kept: of those that stay. */
static int32_t enumerate(const struct rule *rule, double share[TOKENS], double kept[TOKENS])
{
    int32_t order[TOKENS], count = 0, tokens = 0;
    double all = 0, some = 0, front = 0, sum = 0;
    for (int32_t v = 0; v < TOKENS; v++) {
        int32_t at = tokens;
        for (; v != UNSEEN && at > 0 && logits[order[at - 1]] < logits[v]; at--)
            order[at] = order[at - 1];
        if (v != UNSEEN)
            order[at] = v;
        tokens += v != UNSEEN;
        share[v] = exp((double)logits[v] / rule->temperature);
        all += share[v];
        kept[v] = 0;
    }
    int32_t among = rule->top_k > 0 ? rule->top_k : tokens;
    while (among < tokens && logits[order[among]] >= logits[order[among - 1]])
        among++; /* ties with the k-th */
    for (int32_t i = 0; i < among; i++)
        some += share[order[i]];
    for (int32_t i = 0; i < among && (i == 0 || front / some <= rule->top_p); i++) {
        kept[order[i]] = share[order[i]];
        front += share[order[i]];
        sum += share[order[i]];
        count++;
    }
    for (int32_t v = 0; v < TOKENS; v++) {
        share[v] /= all;
        kept[v] /= sum;
    }
    return count;
}

static void prepare(const struct rule *rule, mb_sampler *sampler, mb_sampling *sampling)
{
    *sampler = (mb_sampler){.temperature = rule->temperature,
                            .top_p = rule->top_p,
                            .top_k = rule->top_k,
                            .confidence = MB_F32,
                            .confidence_over = rule->over};
    *sampling = (mb_sampling){.sampler = sampler, .vocab = TOKENS, .mask_id = UNSEEN};
}

/* 60,000 draws a rule. The limits are the 0.999 quantiles of chi-square; a wrong order of top_k and top_p, a token
 * too many or a temperature at the wrong place is beyond them by a factor of ten and more. */
static void distribution(void **state)
{
    static const double limits[TOKENS] = {0,     10.83, 13.82, 16.27, 18.47, 20.52,
                                          22.46, 24.32, 26.12, 27.88, 29.59, 31.26};
    float scratch[TOKENS];
    double weights[TOKENS];
    (void)state;
    for (size_t r = 0; r < RULES; r++) {
        double share[TOKENS], kept[TOKENS], chi = 0;
        int32_t seen[TOKENS] = {0}, count = enumerate(&rules[r], share, kept);
        mb_sampler sampler;
        mb_sampling sampling;
        mb_error err = {0};
        mb_draw draw = {.scratch = scratch, .weights = weights};
        prepare(&rules[r], &sampler, &sampling);
        for (int32_t i = 0; i < DRAWS; i++) {
            double u = mb_draw_unit(7, i / 100, i % 100);
            assert_true(u >= 0 && u < 1);
            assert_int_equal(mb_draw_token(&sampling, logits, u, &draw, &err), MB_OK);
            assert_true(kept[draw.id] > 0);
            double wanted = rules[r].over == MB_CONFIDENCE_KEPT ? kept[draw.id] : share[draw.id];
            assert_true(fabs((double)draw.confidence - wanted) < 1e-6);
            seen[draw.id]++;
        }
        for (int32_t v = 0; v < TOKENS; v++)
            if (kept[v] > 0)
                chi += pow(seen[v] - DRAWS * kept[v], 2) / (DRAWS * kept[v]);
        if (chi > limits[count - 1])
            fail_msg("rule %zu: chi-square %.2f with %d degrees of freedom", r, chi, count - 1);
    }
}

/* Numbers of one place are the same again, of other places others; pairs fill the square evenly. */
static void numbers(void **state)
{
    int32_t cells[64] = {0};
    double chi = 0;
    (void)state;
    assert_true(mb_draw_unit(3, 40, 2) == mb_draw_unit(3, 40, 2));
    assert_true(mb_draw_unit(3, 40, 2) != mb_draw_unit(3, 40, 3));
    assert_true(mb_draw_unit(3, 40, 2) != mb_draw_unit(3, 41, 2));
    assert_true(mb_draw_unit(3, 40, 2) != mb_draw_unit(4, 40, 2));
    for (int32_t i = 0; i < 32000; i++) {
        int32_t x = (int32_t)(8 * mb_draw_unit(1, i, 1)), y = (int32_t)(8 * mb_draw_unit(1, i, 2));
        cells[8 * x + y]++;
    }
    for (int32_t c = 0; c < 64; c++)
        chi += pow(cells[c] - 500.0, 2) / 500.0;
    assert_true(chi < 103.4); /* 0.999 quantile, 63 degrees of freedom */
}

static void entropies(void **state)
{
    const float even[4] = {1, 1, 1, 1}, sharp[4] = {40, 0, 0, 0};
    double weights[4];
    mb_sampler sampler = {.temperature = 0};
    mb_sampling sampling = {.sampler = &sampler, .vocab = 4, .mask_id = 3};
    (void)state;
    assert_true(fabs(mb_draw_entropy(&sampling, even, weights) - log(4)) < 1e-12);
    assert_true(mb_draw_entropy(&sampling, sharp, weights) < 1e-10);
    sampler.temperature = 1e6; /* flat */
    assert_true(fabs(mb_draw_entropy(&sampling, sharp, weights) - log(4)) < 1e-6);
}

/* ---- whole decodings: the stub predicts, its logits are drawn from ---- */

struct drawing {
    struct stub stub;
    int32_t offset; /* of the last forward's rows */
};

static int drawing_denoise(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset,
                           int32_t *ids, float *probability, mb_error *err)
{
    struct drawing *d = self;
    d->offset = row_offset;
    return stub_denoise(&d->stub, step, tokens, rows, row_offset, ids, probability, err);
}

/* Two likely tokens, [MASK] and the rest: all depends on the position alone. */
static int drawing_logits(void *self, int32_t row, float *values, mb_error *err)
{
    const struct drawing *d = self;
    int32_t g = d->stub.cached + d->offset + row + d->stub.shift;
    (void)err;
    for (int32_t v = 0; v < VOCAB; v++)
        values[v] = 0;
    values[d->stub.target[g]] = 5;
    values[(d->stub.target[g] + 1) % 50] = 4.99f;
    values[MASK] = 6;
    return MB_OK;
}

static int32_t *draw_text(mb_family family, const mb_sampler *sampler, uint64_t seed, int32_t *count)
{
    struct drawing d = {
        .stub = {.shift = family == MB_FAMILY_FAST_DLLM_V2, .block = 32, .levels = graded, .confidence = MB_BF16}};
    mb_error err = {0};
    for (int32_t k = 0; k < TARGETS; k++)
        d.stub.target[k] = (5 * k + 3) % 50;
    mb_sampling sampling = {.sampler = sampler,
                            .family = family,
                            .block = 32,
                            .sub_block = family == MB_FAMILY_FAST_DLLM_V2 ? 8 : 32,
                            .mask_id = MASK,
                            .vocab = VOCAB,
                            .seed = seed,
                            .stop_ids = {STOP},
                            .stop_count = 1,
                            .max_new_tokens = 160};
    mb_network network = {.self = &d,
                          .prefill = stub_prefill,
                          .denoise = drawing_denoise,
                          .logits = drawing_logits,
                          .commit = stub_commit};
    if (mb_sampling_run(&sampling, &network, d.stub.target, 45, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(count_masks(sampling.tokens, sampling.count), 0);
    int32_t *tokens = malloc((size_t)sampling.count * sizeof *tokens);
    assert_non_null(tokens);
    memcpy(tokens, sampling.tokens, (size_t)sampling.count * sizeof *tokens);
    *count = sampling.count;
    release(&d.stub, &sampling);
    return tokens;
}

/* The same seed, the same text; another, another; top_k = 1 is the best token of every row. */
static void texts_repeat(void **state)
{
    static const mb_family families[3] = {MB_FAMILY_SDAR, MB_FAMILY_FAST_DLLM_V2, MB_FAMILY_LLADA2};
    (void)state;
    for (int f = 0; f < 3; f++) {
        mb_sampler sampler = {.threshold = 0.9,
                              .temperature = 1,
                              .top_p = 0.9,
                              .editing_threshold = 2,
                              .confidence = MB_BF16,
                              .ignore_stop = true};
        int32_t n[4], differ = 0;
        int32_t *a = draw_text(families[f], &sampler, 1, &n[0]), *b = draw_text(families[f], &sampler, 1, &n[1]),
                *c = draw_text(families[f], &sampler, 2, &n[2]);
        sampler.top_k = 1;
        int32_t *best = draw_text(families[f], &sampler, 1, &n[3]);
        assert_true(n[0] == n[1] && n[0] == n[2] && n[0] == n[3]);
        assert_memory_equal(a, b, (size_t)n[0] * sizeof *a);
        for (int32_t i = 45; i < n[0]; i++) {
            differ += a[i] != c[i];
            assert_int_equal(best[i], (5 * i + 3) % 50);
        }
        assert_true(differ > 10);
        free(a);
        free(b);
        free(c);
        free(best);
    }
}

/* A network without logits cannot be drawn from, and says so. */
static void greedy_networks(void **state)
{
    struct stub stub = {.block = 32, .levels = graded, .confidence = MB_BF16};
    mb_sampler sampler = {.threshold = 0.9, .temperature = 1, .top_p = 1};
    mb_error err = {0};
    (void)state;
    mb_sampling sampling = {.sampler = &sampler,
                            .family = MB_FAMILY_SDAR,
                            .block = 32,
                            .sub_block = 32,
                            .mask_id = MASK,
                            .vocab = VOCAB,
                            .max_new_tokens = 32};
    mb_network network = {.self = &stub, .prefill = stub_prefill, .denoise = stub_denoise, .commit = stub_commit};
    assert_int_equal(mb_sampling_run(&sampling, &network, stub.target, 32, &err), MB_E_BUG);
    release(&stub, &sampling);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distribution), cmocka_unit_test(numbers),         cmocka_unit_test(entropies),
        cmocka_unit_test(texts_repeat), cmocka_unit_test(greedy_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
