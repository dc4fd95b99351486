/*
 * test_golden_longbench.c - every row of published LongBench predictions against the official scorer's per-row
 * scores, and every task against the published result.json. The predictions are not ours to redistribute: the test
 * runs where MASKBENCH_GOLDEN names a folder with pred/, pred_e/, golden_scores/, golden_scores_e/, and is skipped
 * elsewhere (test_metrics.c covers the metrics with cases of our own).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "datasets/internal.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *golden(void)
{
    const char *folder = getenv("MASKBENCH_GOLDEN");
    if (!folder || !*folder)
        skip();
    return folder;
}

static mb_sample *sample_of(const cJSON *row)
{
    mb_sample *sample = mb_sample_new();
    const cJSON *item;
    assert_non_null(sample);
    cJSON_ArrayForEach(item, mb_json_member(row, "answers")) {
        assert_true(mb_sample_add_answer(sample, item->valuestring, strlen(item->valuestring)));
    }
    cJSON_ArrayForEach(item, mb_json_member(row, "all_classes")) {
        assert_true(mb_sample_add_class(sample, item->valuestring, strlen(item->valuestring)));
    }
    return sample;
}

/* Compares one task row by row; returns the number of rows. */
static size_t task_compare(const char *pred, const char *scores, const char *task)
{
    mb_jsonl *p = NULL, *g = NULL;
    cJSON *row = NULL, *want = NULL;
    mb_error err = {0};
    size_t rows = 0, wrong = 0;
    assert_int_equal(mb_jsonl_open(&p, pred, &err), MB_OK);
    assert_int_equal(mb_jsonl_open(&g, scores, &err), MB_OK);
    while (mb_jsonl_next(p, &row, &err) == 1) {
        double score = -1;
        assert_int_equal(mb_jsonl_next(g, &want, &err), 1);
        mb_sample *sample = sample_of(row);
        int rc = mb_sample_score(task, sample, mb_json_string(row, "pred"), &score, &err);
        double expected = mb_json_member(want, "score")->valuedouble;
        if (rc != MB_OK || fabs(score - expected) > 1e-9) {
            if (wrong++ < 3)
                print_message("%s row %zu: %.12f, official %.12f %s\n", task, rows, score, expected,
                              rc == MB_OK ? "" : err.text);
        }
        rows++;
        mb_sample_free(sample);
        cJSON_Delete(row);
        cJSON_Delete(want);
    }
    assert_int_equal(mb_jsonl_next(g, &want, &err), 0);
    print_message("    %-22s %4zu rows, %zu differ\n", task, rows, wrong);
    mb_jsonl_close(p);
    mb_jsonl_close(g);
    assert_int_equal(wrong, 0);
    return rows;
}

/* Every number of `want` must stand in `have` with the same value to the printed digits. */
static size_t results_compare(const cJSON *have, const cJSON *want)
{
    size_t numbers = 0;
    for (const cJSON *item = want->child; item; item = item->next) {
        const cJSON *mine = mb_json_member(have, item->string);
        if (!mine)
            fail_msg("%s is missing", item->string);
        if (cJSON_IsObject(item)) {
            numbers += results_compare(mine, item);
            continue;
        }
        if (fabs(mine->valuedouble - item->valuedouble) > 1e-9)
            fail_msg("%s: %.4f, official %.4f", item->string, mine->valuedouble, item->valuedouble);
        numbers++;
    }
    return numbers;
}

static void folder_compare(const char *pred, const char *scores)
{
    static const char ending[] = ".scores.jsonl";
    struct dirent *model, *file;
    size_t rows = 0, numbers = 0;
    char path[1024], other[1024], task[128];
    mb_error err = {0};
    char *root = mb_string_format("%s/%s", golden(), pred);
    DIR *models = opendir(root);
    assert_non_null(models);
    while ((model = readdir(models))) {
        if (model->d_name[0] == '.')
            continue;
        print_message("%s/%s\n", pred, model->d_name);
        snprintf(path, sizeof path, "%s/%s/%s", golden(), scores, model->d_name);
        DIR *files = opendir(path);
        assert_non_null(files);
        while ((file = readdir(files))) {
            size_t n = strlen(file->d_name);
            if (n < sizeof ending || strcmp(file->d_name + n - (sizeof ending - 1), ending) != 0)
                continue;
            snprintf(task, sizeof task, "%.*s", (int)(n - (sizeof ending - 1)), file->d_name);
            snprintf(path, sizeof path, "%s/%s/%s.jsonl", root, model->d_name, task);
            snprintf(other, sizeof other, "%s/%s/%s/%s", golden(), scores, model->d_name, file->d_name);
            rows += task_compare(path, other, task);
        }
        closedir(files);
        mb_text text = {0};
        char *official = NULL;
        size_t size;
        snprintf(path, sizeof path, "%s/%s", root, model->d_name);
        if (mb_score_folder(path, &text, &err) != MB_OK || err.text[0])
            fail_msg("%s", err.text);
        snprintf(path, sizeof path, "%s/%s/result.json", root, model->d_name);
        assert_int_equal(mb_file_read(path, 1 << 20, &official, &size, &err), MB_OK);
        cJSON *have = cJSON_Parse(text.data), *want = cJSON_Parse(official);
        assert_non_null(have);
        assert_non_null(want);
        assert_int_equal(cJSON_GetArraySize(have), cJSON_GetArraySize(want));
        assert_int_equal(strlen(text.data), size); /* same layout: only the order of the tasks is free */
        numbers += results_compare(have, want);
        cJSON_Delete(have);
        cJSON_Delete(want);
        free(official);
        mb_text_free(&text);
    }
    closedir(models);
    free(root);
    print_message("%s: %zu rows and %zu published numbers are equal\n", pred, rows, numbers);
    assert_true(rows > 0);
}

static void every_row_and_task(void **state)
{
    (void)state;
    folder_compare("pred", "golden_scores");
}

static void every_row_and_bucket(void **state)
{
    (void)state;
    folder_compare("pred_e", "golden_scores_e");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row_and_task),
                                       cmocka_unit_test(every_row_and_bucket)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
