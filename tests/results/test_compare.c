/*
 * test_compare.c - two runs side by side: differences, items lost and won and ratios that were worked out by hand,
 * rows that only one run has, runs without a common item, times, builds of one run.
 */
#include "tests/results/small_store.h"

#include "results/contrast.h"

#include <math.h>

typedef struct pair {
    small_store a, b;
} pair;

static const contrast_row *row_of(const contrast *c, const char *config, const char *task)
{
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->rows[i].config, config) == 0 && strcmp(c->rows[i].task, task) == 0)
            return &c->rows[i];
    fail_msg("no row of %s on %s", config, task);
    return NULL;
}

static void make_pair(pair *p, const char *name)
{
    char other[64];
    memset(p, 0, sizeof *p);
    snprintf(other, sizeof other, "%s-b", name);
    small_path(&p->a, name);
    small_path(&p->b, other);
    small_open(&p->a, 7);
    small_open(&p->b, 7);
}

static void end_pair(pair *p)
{
    small_close(&p->a);
    small_close(&p->b);
    unlink(p->a.path);
    unlink(p->b.path);
}

/* scores: a letter an item from 'a' on, '-' = not there, digits are tenths. */
static void put_scores(small_store *s, const char *method, const char *scores)
{
    int64_t cell = small_cell(s, small_config(s, method, 0, 64), "quality");
    for (int i = 0; scores[i]; i++) {
        char key[2] = {(char)('a' + i), '\0'};
        if (scores[i] != '-')
            small_sample(s, cell, key, (scores[i] - '0') / 10.0);
    }
}

static contrast load(pair *p)
{
    contrast c = {0};
    mb_error err = {0};
    OK(contrast_load(p->a.store, NULL, NULL, &c.a, &err));
    OK(contrast_load(p->b.store, NULL, NULL, &c.b, &err));
    OK(contrast_compute(&c, &err));
    return c;
}

static void pairs_by_item(void **state)
{
    (void)state;
    pair p;
    make_pair(&p, "pairs");
    put_scores(&p.a, "m", "5555-9");
    put_scores(&p.b, "m", "4565990"); /* e and g are B's alone; a lost 0.1, c won 0.1 */
    put_scores(&p.a, "gone", "5");
    put_scores(&p.b, "new", "5");
    contrast c = load(&p);
    const contrast_row *m = row_of(&c, "m k=64", "*");
    assert_true(m->paired);
    assert_int_equal(m->n, 5);
    assert_int_equal(m->lost, 1);
    assert_int_equal(m->won, 1);
    assert_int_equal(m->only_a, 0);
    assert_int_equal(m->only_b, 2);
    assert_float_equal(m->score_a, (0.5 * 4 + 0.9) / 5, 1e-12);
    assert_float_equal(m->score.mean, 0, 1e-12);
    assert_true(m->score.low < 0 && m->score.high > 0);
    assert_float_equal(m->p, 1, 1e-12);
    assert_float_equal(m->forwards.mean, 1, 1e-12);
    assert_float_equal(m->work.mean, 0, 1e-12);
    assert_true(row_of(&c, "gone k=64", "*")->in_a && !row_of(&c, "gone k=64", "*")->in_b);
    assert_true(!row_of(&c, "new k=64", "*")->in_a && row_of(&c, "new k=64", "*")->in_b);
    contrast_free(&c);
    end_pair(&p);
}

/* Another seed draws other items: the difference of two means, with the interval of two means. */
static void says_that_nothing_is_paired(void **state)
{
    (void)state;
    pair p;
    make_pair(&p, "unpaired");
    put_scores(&p.a, "m", "2468");
    put_scores(&p.b, "m", "----1357");
    contrast c = load(&p);
    const contrast_row *m = row_of(&c, "m k=64", "*");
    double variance = 2 * (0.05 / 3); /* each side: 0.05 within, four items */
    assert_false(m->paired);
    assert_int_equal(m->lost + m->won, 0);
    assert_float_equal(m->score.mean, -0.1, 1e-12);
    assert_float_equal(m->score.high - m->score.mean, 1.959964 * sqrt(variance), 1e-6);
    contrast_free(&c);
    end_pair(&p);
}

static void put_times(small_store *s, const char *method, double us)
{
    mb_latency_row rows[20];
    int64_t cell = small_cell(s, small_config(s, method, 8, -1), "latency");
    for (int i = 0; i < 20; i++)
        rows[i] = (mb_latency_row){.phase = "block",
                                   .context = 1024,
                                   .batch = 1,
                                   .steps = 8,
                                   .us = us + i - 9.5,
                                   .throttle = -1,
                                   .temperature = NAN,
                                   .power = NAN,
                                   .other_processes = -1,
                                   .kept = true,
                                   .timer = "host_clock"};
    OK(mb_store_latency(s->store, cell, rows, 20, &s->err));
}

static void compares_times(void **state)
{
    (void)state;
    pair p;
    make_pair(&p, "times");
    put_times(&p.a, "exact", 2000);
    put_times(&p.b, "exact", 1000);
    int64_t cell = small_cell(&p.a, small_config(&p.a, "exact", 8, -1), "quality");
    small_sample(&p.a, cell, "k", 1);
    cell = small_cell(&p.b, small_config(&p.b, "exact", 8, -1), "quality");
    small_sample(&p.b, cell, "k", 1);
    contrast c = load(&p);
    const contrast_row *m = row_of(&c, "exact", "*");
    assert_int_equal(m->cases, 1);
    assert_float_equal(m->faster.mean, 2, 1e-9);
    assert_true(m->faster.low < 2 && m->faster.low > 1.97 && m->faster.high > 2 && m->faster.high < 2.03);
    contrast_free(&c);
    end_pair(&p);
}

/* 6 to 20 values: the ranks of a table of binomial confidence limits for the median. */
static void median_has_the_interval_of_ranks(void **state)
{
    static const struct {
        int n, low; /* rank from 1 of the lower end; 0: none */
    } limits[] = {{5, 0}, {6, 1}, {9, 2}, {12, 3}, {15, 4}, {20, 6}};
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        double values[20];
        for (int k = 0; k < limits[i].n; k++)
            values[k] = limits[i].n - k;
        interval v = median_interval(values, (size_t)limits[i].n);
        assert_float_equal(v.mean, 0.5 * (limits[i].n + 1), 1e-12);
        if (limits[i].low == 0)
            assert_true(isnan(v.low));
        else
            assert_float_equal(v.low, limits[i].low, 1e-12);
        if (limits[i].low)
            assert_float_equal(v.high, limits[i].n + 1 - limits[i].low, 1e-12);
    }
}

static void prints_as_many_digits_as_the_interval_allows(void **state)
{
    static const struct {
        interval v;
        const char *text;
    } cases[] = {{{7.7612, 7.74, 7.78},
                  "7.761 \xc2\xb1"
                  "0.020"},
                 {{1234.5, 1200, 1270},
                  "1234 \xc2\xb1"
                  "35"},
                 {{3, NAN, NAN}, "3"},
                 {{NAN, NAN, NAN}, "-"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mb_text out = {0};
        times_text(&out, &cases[i].v, 1);
        assert_string_equal(out.data, cases[i].text);
        mb_text_free(&out);
    }
}

static char *compare(pair *p, mb_table_format format, mb_compare_result *result)
{
    mb_error err = {0};
    mb_text out = {0};
    mb_compare_side a = {p->a.store, "a.db", NULL, NULL}, b = {p->b.store, "b.db", NULL, NULL};
    OK(mb_compare(&a, &b, &(mb_report_options){.format = format, .full = true}, &out, result, &err));
    return mb_text_take(&out);
}

static void every_format_says_the_same(void **state)
{
    static const mb_table_format formats[] = {MB_TABLE_TERMINAL, MB_TABLE_MARKDOWN, MB_TABLE_LATEX, MB_TABLE_HTML};
    (void)state;
    pair p;
    make_pair(&p, "formats");
    put_scores(&p.a, "m", "99999999");
    put_scores(&p.b, "m", "11111111");
    put_scores(&p.a, "gone", "5");
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        mb_compare_result result;
        char *text = compare(&p, formats[i], &result);
        assert_non_null(strstr(text, "8 items lost, 0 won of 8; WORSE, p = 0.0078"));
        assert_non_null(strstr(text, "vanished: gone k=64"));
        assert_float_equal(result.worst, -0.8, 1e-12);
        assert_string_equal(result.worst_config, "m k=64");
        assert_int_equal(result.compared, 1);
        assert_true(result.vanished > 0);
        free(text);
    }
    end_pair(&p);
}

/* What a program changed: rows of an older build against today's, in one file. */
static void compares_builds(void **state)
{
    (void)state;
    pair p;
    make_pair(&p, "builds");
    OK(mb_store_build(p.a.store, "aaaa1111", "one", &p.a.err));
    put_scores(&p.a, "m", "5555");
    small_close(&p.a);
    small_open(&p.a, 7);
    OK(mb_store_build(p.a.store, "bbbb2222", "two", &p.a.err));
    put_scores(&p.a, "m", "5559");
    contrast c = {0};
    mb_error err = {0};
    OK(contrast_load(p.a.store, NULL, "aaaa", &c.a, &err));
    OK(contrast_load(p.a.store, NULL, NULL, &c.b, &err));
    OK(contrast_compute(&c, &err));
    assert_int_equal(row_of(&c, "m k=64", "*")->won, 1);
    contrast_free(&c);
    assert_int_equal(contrast_load(p.a.store, NULL, "cccc", &c.a, &err), MB_E_INPUT);
    contrast_free(&c);
    end_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_by_item),
        cmocka_unit_test(says_that_nothing_is_paired),
        cmocka_unit_test(compares_times),
        cmocka_unit_test(median_has_the_interval_of_ranks),
        cmocka_unit_test(prints_as_many_digits_as_the_interval_allows),
        cmocka_unit_test(every_format_says_the_same),
        cmocka_unit_test(compares_builds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
