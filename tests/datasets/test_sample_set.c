/*
 * test_sample_set.c - the LongBench-format set that comes with the project: every task opens, every row is whole,
 * the facts of the answerable tasks stand in their prompts once, and the set stays small.
 */
#include "datasets/datasets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static mb_error err;

static void test_rows(void **state)
{
    (void)state;
    static const char *const tasks[] = {
        "narrativeqa",
        "qasper",
        "multifieldqa_en",
        "multifieldqa_zh",
        "hotpotqa",
        "2wikimqa",
        "musique",
        "dureader",
        "gov_report",
        "qmsum",
        "multi_news",
        "vcsum",
        "trec",
        "triviaqa",
        "samsum",
        "lsht",
        "passage_count",
        "passage_retrieval_en",
        "passage_retrieval_zh",
        "lcc",
        "repobench-p",
    };
    size_t total = 0, answerable = 0;
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        const mb_task_request request = {.task = tasks[t], .folder = "datasets/sample"};
        mb_task *task = NULL;
        mb_sample *sample = NULL;
        if (mb_task_open(&task, &request, &err) != MB_OK)
            fail_msg("%s", err.text);
        size_t rows = 0;
        for (int rc; (rc = mb_task_next(task, &sample, &err)) != 0; mb_sample_free(sample), rows++) {
            if (rc != 1)
                fail_msg("%s", err.text);
            const mb_task_info *info = mb_task_find(tasks[t]);
            bool classes = strcmp(info->metric, "classification") == 0 || strstr(info->metric, "class");
            assert_int_equal(strlen(sample->key), 48);
            assert_true(sample->answer_count > 0 && sample->answers[0][0]);
            assert_true(sample->length > 20);
            assert_int_equal(sample->class_count > 0, classes);
            total += strlen(sample->prompt);
            /* Seven digits: a fact in the tiny model's wording. It stands in the prompt, once. */
            const char *answer = sample->answers[0];
            if (strlen(answer) == 7 && strspn(answer, "0123456789") == 7) {
                const char *at = strstr(sample->prompt, answer);
                assert_non_null(at);
                assert_null(strstr(at + 1, answer));
                answerable++;
            }
            /* A perfect prediction scores 1 (Chinese tasks: where the dictionary is installed). */
            double score = 0;
            int got = mb_sample_score(tasks[t], sample, answer, &score, &err);
            if (got == MB_OK && score < 0.999)
                fail_msg("%s: the reference itself scores %g", sample->source, score);
            assert_true(got == MB_OK || strcmp(sample->language, "zh") == 0);
        }
        assert_true(rows >= 3);
        mb_task_close(task);
    }
    assert_int_equal(answerable, 24); /* six tasks of four rows */
    assert_true(total < 400000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
