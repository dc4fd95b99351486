/*
 * test_jieba.c - Chinese segmentation against jieba itself (jieba_cases.jsonl, written by make_jieba_cases.py)
 * with a small made-up dictionary and HMM, so that no package is needed; damaged tables; the Chinese metrics.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "datasets/internal.h"
#include "datasets/metric/jieba_table.h"
#include "datasets/metric/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void every_text(void **state)
{
    mb_jsonl *cases = NULL;
    cJSON *row = NULL;
    mb_error err = {0};
    size_t count = 0, wrong = 0;
    (void)state;
    assert_int_equal(mb_jsonl_open(&cases, "tests/datasets/jieba_cases.jsonl", &err), MB_OK);
    while (mb_jsonl_next(cases, &row, &err) == 1) {
        const char *text = mb_json_string(row, "text");
        mb_runes runes = {0};
        size_t *ends = NULL, tokens = 0, from = 0;
        mb_text have = {0}, want = {0};
        const cJSON *token;
        mb_runes_decode(&runes, text, strlen(text));
        if (mb_jieba_cut(runes.at, runes.count, &ends, &tokens, &err) != MB_OK)
            fail_msg("%s", err.text);
        for (size_t t = 0; t < tokens; from = ends[t++]) {
            mb_runes_encode(runes.at + from, ends[t] - from, &have);
            mb_text_puts(&have, "|");
        }
        assert_int_equal(from, runes.count); /* nothing is lost */
        cJSON_ArrayForEach(token, mb_json_member(row, "tokens")) {
            mb_text_printf(&want, "%s|", token->valuestring);
        }
        if (strcmp(have.data ? have.data : "", want.data ? want.data : "") != 0) {
            print_message("cut %s\ninstead of %s\n", have.data, want.data);
            wrong++;
        }
        count++;
        free(ends);
        mb_runes_free(&runes);
        mb_text_free(&have);
        mb_text_free(&want);
        cJSON_Delete(row);
    }
    mb_jsonl_close(cases);
    assert_true(count > 400);
    assert_int_equal(wrong, 0);
}

/* The same tables as one JSON file give the same numbers as the Python files. */
static void json_tables(void **state)
{
    mb_hmm python = {.emit = NULL}, json = {.emit = NULL};
    char folder[] = "/tmp/mb_jieba_XXXXXX", path[128];
    mb_error err = {0};
    mb_text text = {0};
    (void)state;
    assert_int_equal(mb_hmm_load(&python, "tests/datasets/jieba", &err), MB_OK);
    mb_text_puts(&text, "{");
    static const char *const names[] = {"start", "trans", "emit"};
    for (int i = 0; i < 3; i++) {
        char *data = NULL;
        size_t size;
        snprintf(path, sizeof path, "tests/datasets/jieba/finalseg/prob_%s.py", names[i]);
        assert_int_equal(mb_file_read(path, 1 << 20, &data, &size, &err), MB_OK);
        for (char *p = data; *p; p++)
            *p = *p == '\'' ? '"' : *p;
        mb_text_printf(&text, "%s\"%s\": %s", i ? ", " : "", names[i], strchr(data, '{'));
        free(data);
    }
    mb_text_puts(&text, "}");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/hmm.json", folder);
    assert_int_equal(mb_file_write(path, text.data, text.length, &err), MB_OK);
    assert_int_equal(mb_hmm_load(&json, folder, &err), MB_OK);
    assert_memory_equal(python.start, json.start, sizeof json.start);
    assert_memory_equal(python.trans, json.trans, sizeof json.trans);
    assert_memory_equal(python.emit, json.emit, MB_HAN_COUNT * sizeof *json.emit);
    assert_true(json.start[MB_HMM_E] == MB_HMM_NEVER && json.trans[MB_HMM_B][MB_HMM_B] == MB_HMM_NEVER);
    unlink(path);
    rmdir(folder);
    free(python.emit);
    free(json.emit);
    mb_text_free(&text);
}

/* A table that is not one is refused with its name; nothing is loaded halfway. */
static void damaged_tables(void **state)
{
    static const char *const dictionaries[] = {"天地\n", "天地 x\n", "天地 -3\n", "天地 3x n\n", ""};
    static const char *const models[] = {
        "", "{", "P={'B': }", "{\"start\": {\"B\": {\"x\": {\"y\": 1}}}}", "P={'X': 1}", "P={'B': 'x'}", "P={'B"};
    char folder[] = "/tmp/mb_jieba_XXXXXX", dict[128], hmm[128];
    mb_error err = {0};
    mb_jieba jieba;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(dict, sizeof dict, "%s/dict.txt", folder);
    snprintf(hmm, sizeof hmm, "%s/hmm.json", folder);
    for (size_t i = 0; i < sizeof dictionaries / sizeof *dictionaries; i++) {
        assert_int_equal(mb_file_write(dict, dictionaries[i], strlen(dictionaries[i]), &err), MB_OK);
        assert_int_equal(mb_jieba_load(&jieba, folder, &err), MB_E_INPUT);
        assert_non_null(strstr(err.text, dict));
    }
    assert_int_equal(mb_file_write(dict, "天地 3\n", strlen("天地 3\n"), &err), MB_OK);
    assert_int_equal(mb_jieba_load(&jieba, folder, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "hmm.json")); /* says what is missing */
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        assert_int_equal(mb_file_write(hmm, models[i], strlen(models[i]), &err), MB_OK);
        assert_int_equal(mb_jieba_load(&jieba, folder, &err), MB_E_INPUT);
        assert_non_null(strstr(err.text, hmm));
    }
    unlink(dict);
    unlink(hmm);
    rmdir(folder);
}

/* Scores by hand: the words are 日月 and 火山, marks and blanks vanish. */
static void chinese_metrics(void **state)
{
    double score;
    mb_error err = {0};
    (void)state;
    assert_int_equal(mb_metric_qa_f1_zh("日月，火山。", "火山 日月", &score, &err), MB_OK);
    assert_true(score == 1.0);
    assert_int_equal(mb_metric_qa_f1_zh("日月火山", "日月", &score, &err), MB_OK);
    assert_true(fabs(score - 2 * 0.5 / 1.5) < 1e-12);
    assert_int_equal(mb_metric_qa_f1_zh("《日月", "日月", &score, &err), MB_OK);
    assert_true(fabs(score - 2 * 0.5 / 1.5) < 1e-12); /* U+300A is no mark of the official set */
    assert_int_equal(mb_metric_qa_f1_zh("，。", "！", &score, &err), MB_OK);
    assert_true(score == 0);
    /* words 日月|，|火山 and 火山|日月: one common word, 3 and 2 distinct ones */
    assert_int_equal(mb_metric_rouge_l_zh("日月，火山", "火山日月", &score, &err), MB_OK);
    double p = 1.0 / 3, r = 1.0 / 2;
    assert_true(fabs(score - 2 * p * r / (p + r + 1e-8)) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_text),
        cmocka_unit_test(json_tables),
        cmocka_unit_test(damaged_tables),
        cmocka_unit_test(chinese_metrics),
    };
    setenv("MASKBENCH_JIEBA_DICT", "tests/datasets/jieba", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
