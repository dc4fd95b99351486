/*
 * test_metrics.c - the metrics against expectations that Python and the benchmarks' own libraries computed
 * (metric_cases.jsonl, written by make_metric_cases.py): unicode white space, digits and case, empty texts, lists
 * that shrink while iterated, set-based ROUGE with its ties, ratios with halves and with auto-junk.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "datasets/internal.h"
#include "datasets/metric/metrics.h"
#include "datasets/score/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int function_score(const char *fn, const char *pred, const char *ref, double *score, mb_error *err)
{
    if (strcmp(fn, "qa_f1") == 0)
        return mb_metric_qa_f1(pred, ref, score);
    if (strcmp(fn, "rouge_l") == 0)
        return mb_metric_rouge_l(pred, ref, score);
    if (strcmp(fn, "rouge_l_plain") == 0)
        return mb_metric_rouge_l_plain(pred, ref, score);
    if (strcmp(fn, "count") == 0)
        return mb_metric_count(pred, ref, score);
    if (strcmp(fn, "retrieval") == 0)
        return mb_metric_retrieval(pred, ref, "Paragraph ", score, err);
    if (strcmp(fn, "code") == 0)
        return mb_metric_code(pred, ref, score);
    if (strcmp(fn, "code_indel") == 0)
        return mb_metric_code_indel(pred, ref, score);
    fail_msg("no function %s", fn);
    return MB_E_BUG;
}

static mb_sample *sample_of(const cJSON *row)
{
    mb_sample *sample = mb_sample_new();
    const cJSON *item;
    assert_non_null(sample);
    cJSON_ArrayForEach(item, mb_json_member(row, "answers")) {
        assert_true(mb_sample_add_answer(sample, item->valuestring, strlen(item->valuestring)));
    }
    cJSON_ArrayForEach(item, mb_json_member(row, "classes")) {
        assert_true(mb_sample_add_class(sample, item->valuestring, strlen(item->valuestring)));
    }
    return sample;
}

static void every_case(void **state)
{
    mb_jsonl *cases = NULL;
    cJSON *row = NULL;
    mb_error err = {0};
    size_t count = 0, wrong = 0;
    int rc;
    (void)state;
    assert_int_equal(mb_jsonl_open(&cases, "tests/datasets/metric_cases.jsonl", &err), MB_OK);
    while ((rc = mb_jsonl_next(cases, &row, &err)) == 1) {
        const char *fn = mb_json_string(row, "fn"), *pred = mb_json_string(row, "pred");
        double score = -1, want = mb_json_member(row, "score")->valuedouble;
        mb_sample *sample = NULL;
        if (fn) {
            rc = function_score(fn, pred, mb_json_string(row, "ref"), &score, &err);
        } else {
            sample = sample_of(row);
            rc = mb_sample_score(mb_json_string(row, "task"), sample, pred, &score, &err);
        }
        if (rc != MB_OK || fabs(score - want) > 1e-12) {
            char *text = cJSON_PrintUnformatted(row);
            print_message("line %lld: %.15f instead of %.15f: %.300s\n", (long long)mb_jsonl_line(cases), score,
                          want, text);
            free(text);
            wrong++;
        }
        mb_sample_free(sample);
        cJSON_Delete(row);
        count++;
    }
    assert_int_equal(rc, 0);
    mb_jsonl_close(cases);
    print_message("%zu cases\n", count);
    assert_true(count > 1000);
    assert_int_equal(wrong, 0);
}

/* What cannot be scored is told, not counted as wrong. */
static void no_number_in_the_reference(void **state)
{
    double score = 1;
    mb_error err = {0};
    (void)state;
    assert_int_equal(mb_metric_retrieval("5", "Paragraph five", "Paragraph ", &score, &err), MB_E_SAMPLE);
    assert_non_null(strstr(err.text, "Paragraph five"));
    assert_int_equal(mb_sample_score("no such task", NULL, "", &score, &err), MB_E_INPUT);
}

/* Python: bytes.decode("utf-8", "replace") puts one U+FFFD for a maximal broken part. */
static void broken_bytes(void **state)
{
    static const struct {
        const char *bytes;
        size_t runes;
    } cases[] = {{"\xff", 1},           {"\xe4\xb8", 1},        {"\xe4\xb8x", 2}, {"\xed\xa0", 2},
                 {"\xf0\x9f\x98", 1},   {"\xc0\xaf", 2},        {"\x80\x80", 2},  {"\xf4\x90\x80\x80", 4},
                 {"a\xe4\xb8\xadz", 3}, {"\xf0\x80\x80\x80", 4}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_runes runes = {0};
        mb_runes_decode(&runes, cases[i].bytes, strlen(cases[i].bytes));
        assert_int_equal(runes.count, cases[i].runes);
        mb_runes_free(&runes);
    }
    double score = 0;
    assert_int_equal(mb_metric_qa_f1("\xff word", "\xfe word", &score), MB_OK);
    assert_true(score == 1.0); /* both bytes are the same replacement character */
}

/* U+0000 and lone surrogates are characters of a Python text like any other. Values of LongBench's metrics.py. */
static void odd_characters(void **state)
{
    mb_runes runes = {0};
    mb_text back = {0};
    double score = 0;
    (void)state;
    mb_runes_decode(&runes, "a\xc0\x80\xed\xa0\xbdz\xed\xb8\x80", 10);
    assert_int_equal(runes.count, 5);
    assert_int_equal(runes.at[1], 0);
    assert_int_equal(runes.at[2], 0xD83D);
    assert_int_equal(runes.at[4], 0xDE00);
    mb_runes_encode(runes.at, runes.count, &back);
    assert_string_equal(back.data, "a\xc0\x80\xed\xa0\xbdz\xed\xb8\x80");
    mb_runes_free(&runes);
    mb_text_free(&back);
    assert_int_equal(mb_metric_qa_f1("red\xc0\x80 door", "red door", &score), MB_OK);
    assert_true(score == 0.5); /* the word with the NUL matches nothing, what stands behind it counts */
    assert_int_equal(mb_metric_rouge_l("one \xed\xa0\xbd two", "one \xed\xa0\xbd two", &score), MB_OK);
    assert_true(score > 0.999);
    assert_int_equal(mb_metric_rouge_l("one \xed\xa0\xbd two", "one \xed\xa0\xbe two", &score), MB_OK);
    assert_true(score > 0.6 && score < 0.7); /* two different surrogates are two different words */
}

/* Sums in numpy's order: the plain sum of this series differs in the last bits. Value from numpy 2.4.6. */
static void pairwise_sum(void **state)
{
    double v[1000], plain = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        v[i] = 1.0 / (i + 1);
        plain += v[i];
    }
    assert_true(mb_sum_pairwise(v, 1000) == 0x1.df11f45f4e61ap+2);
    assert_true(plain != 0x1.df11f45f4e61ap+2);
    assert_true(isnan(mb_mean_pairwise(v, 0)));
    assert_true(mb_sum_pairwise(v, 7) == 1 + 0.5 + 1.0 / 3 + 0.25 + 0.2 + 1.0 / 6 + 1.0 / 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),   cmocka_unit_test(no_number_in_the_reference),
        cmocka_unit_test(broken_bytes), cmocka_unit_test(odd_characters),
        cmocka_unit_test(pairwise_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
