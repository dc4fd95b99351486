/*
 * test_ruler_score.c - RULER's scoring: cases by hand and, with MASKBENCH_GOLDEN naming a folder that holds
 * ruler/, 6500 real predictions with their per-row scores and the 13 published task scores.
 */
#include "datasets/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static mb_error err;
static const char *const tasks[] = {
    "ruler_niah_single_1",
    "ruler_niah_single_2",
    "ruler_niah_single_3",
    "ruler_niah_multikey_1",
    "ruler_niah_multikey_2",
    "ruler_niah_multikey_3",
    "ruler_niah_multivalue",
    "ruler_niah_multiquery",
    "ruler_vt",
    "ruler_cwe",
    "ruler_fwe",
    "ruler_qa_1",
    "ruler_qa_2",
};

static double score(const char *task, const char *const *answers, const char *prediction)
{
    mb_sample *s = mb_sample_new();
    double value = -1;
    for (; *answers; answers++)
        mb_sample_add_answer(s, *answers, strlen(*answers));
    assert_int_equal(mb_sample_score(task, s, prediction, &value, &err), MB_OK);
    mb_sample_free(s);
    return value;
}

static void test_scores(void **state)
{
    (void)state;
    static const char *const four[] = {"Alpha", "beta", "\xc3\x89tude", "x\ny", NULL};
    assert_true(score("ruler_niah_multivalue", four, "ALPHA and \xc3\xa9TUDE") == 0.5);
    assert_true(score("ruler_vt", four, "x\ty") == 0.25);      /* control characters become newlines */
    assert_true(score("ruler_cwe", four, "alphabeta") == 0.5); /* a plain substring counts: alpha, beta */
    assert_true(score("ruler_fwe", four, "") == 0);
    assert_true(score("ruler_qa_1", four, "it is Beta") == 1);
    assert_true(score("ruler_qa_2", four, "gamma") == 0);
    static const char *const end[] = {"end ", NULL}; /* the prediction is stripped, the reference not */
    assert_true(score("ruler_qa_1", end, " the end \n") == 0);
}

/* Real predictions: per task 100 * mean, two decimals, equals the published file. */
static void test_golden(void **state)
{
    (void)state;
    const char *golden = getenv("MASKBENCH_GOLDEN");
    if (!golden)
        skip();
    char *path = mb_string_format("%s/ruler/kvpress_llama3.1-8b_ruler4096_cr0.25_predictions.jsonl", golden);
    char *published = mb_string_format("%s/ruler/kvpress_llama3.1-8b_ruler4096_cr0.25_metrics.json", golden),
         *data;
    size_t size, compared = 0;
    double sums[sizeof tasks / sizeof *tasks] = {0};
    size_t counts[sizeof tasks / sizeof *tasks] = {0};
    mb_jsonl *reader = NULL;
    cJSON *row = NULL;
    assert_int_equal(mb_jsonl_open(&reader, path, &err), MB_OK);
    for (int rc; (rc = mb_jsonl_next(reader, &row, &err)) == 1; cJSON_Delete(row)) {
        char name[64];
        snprintf(name, sizeof name, "ruler_%s", mb_json_string(row, "task"));
        for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
            if (strcmp(tasks[t], name) != 0)
                continue;
            const char *answers[16] = {NULL}, *prediction = mb_json_string(row, "pred");
            size_t n = 0;
            for (const cJSON *a = mb_json_member(row, "outputs")->child; a && n < 15; a = a->next)
                answers[n++] = a->valuestring;
            double value = score(name, answers, prediction ? prediction : "");
            assert_true(value ==
                        mb_json_member(row, "score")->valuedouble); /* per row, as computed from RULER's code */
            sums[t] += value;
            counts[t]++;
        }
    }
    mb_jsonl_close(reader);
    assert_int_equal(mb_file_read(published, 1 << 20, &data, &size, &err), MB_OK);
    cJSON *metrics = cJSON_Parse(data);
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        const cJSON *metric = mb_json_member(metrics, tasks[t] + strlen("ruler_"));
        char ours[32], theirs[32];
        assert_non_null(metric);
        snprintf(ours, sizeof ours, "%.2f", 100 * sums[t] / (double)counts[t]);
        snprintf(theirs, sizeof theirs, "%.2f", mb_json_member(metric, "string_match")->valuedouble);
        assert_string_equal(ours, theirs);
        compared++;
    }
    assert_int_equal(compared, 13);
    cJSON_Delete(metrics);
    free(data);
    free(path);
    free(published);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scores), cmocka_unit_test(test_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
