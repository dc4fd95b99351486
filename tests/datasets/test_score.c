/*
 * test_score.c - scoring of prediction folders: the layout of result.json, buckets with NaN, LongBench v2's table,
 * averages, refusals; and the prediction line, byte for byte as Python's json.dumps(..., ensure_ascii=False).
 * Expected numbers of the folders were computed with Python and numpy from the same rows.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "datasets/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/mb_score_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void put(const char *name, const char *text)
{
    char path[256];
    mb_error err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (mb_file_write(path, text, strlen(text), &err) != MB_OK)
        fail_msg("%s", err.text);
}

static void result_is(const char *where, const char *want)
{
    mb_text out = {0};
    mb_error err = {.text = "x"};
    if (mb_score_folder(where, &out, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_string_equal(out.data, want);
    assert_string_equal(err.text, "");
    mb_text_free(&out);
}

static void refused(const char *word)
{
    mb_text out = {0};
    mb_error err = {0};
    assert_int_equal(mb_score_folder(folder, &out, &err), MB_E_INPUT);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not say \"%s\"", err.text, word);
    mb_text_free(&out);
}

static void layouts(void **state)
{
    (void)state;
    result_is("tests/datasets/folders/pred/model", "{\n    \"hotpotqa\": 41.93\n}");
    result_is("tests/datasets/folders/pred_e/model", "{\n    \"hotpotqa\": {\n        \"0-4k\": 40.89,\n"
                                                     "        \"4-8k\": 42.62,\n        \"8k+\": NaN\n    }\n}");
}

/* One decimal stays, halves are rounded as Python rounds the binary value, tasks come in the table's order. */
static void numbers_and_order(void **state)
{
    mb_text rows = {0};
    (void)state;
    put("repobench-p.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"],\"all_classes\":null,\"length\":1}\n");
    put("hotpotqa.jsonl", "{\"pred\":\"x\",\"answers\":[\"y\"],\"all_classes\":null,\"length\":1}\n");
    for (int i = 0; i < 800; i++) /* 801 rows are right of 1600: 50.0625 -> 50.06 */
        mb_text_printf(&rows, "{\"pred\":\"x\",\"answers\":[\"%s\"]}\n{\"pred\":\"x\",\"answers\":[\"x\"]}\n",
                       i ? "y" : "x");
    put("qasper.jsonl", rows.data);
    mb_text_free(&rows);
    put("notes.txt", "not looked at");
    result_is(folder, "{\n    \"qasper\": 50.06,\n    \"hotpotqa\": 0.0,\n    \"repobench-p\": 100.0\n}");
    put("hotpotqa_e.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"],\"length\":8000}\n");
    put("qasper.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"]}\n{\"pred\":\"x\",\"answers\":[]}");
    result_is(folder,
              "{\n    \"qasper\": 50.0,\n    \"hotpotqa\": 0.0,\n    \"repobench-p\": 100.0,\n"
              "    \"hotpotqa_e\": {\n        \"0-4k\": NaN,\n        \"4-8k\": NaN,\n        \"8k+\": 100.0\n"
              "    }\n}");
}

static void refusals(void **state)
{
    mb_text out = {0};
    mb_error err = {0};
    (void)state;
    assert_int_equal(mb_score_folder("/nonexistent", &out, &err), MB_E_INPUT);
    refused("no <task>.jsonl");
    put("nonsense.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"]}\n");
    refused("nonsense");
    char path[256];
    snprintf(path, sizeof path, "%s/nonsense.jsonl", folder);
    remove(path);
#define GOOD "{\"pred\":\"x\",\"answers\":[\"x\"],\"all_classes\":[\"x\"]}\n"
    put("trec.jsonl", GOOD "{\"pred\":null,\"answers\":[\"x\"]}\n");
    refused("trec.jsonl:2");
    put("trec.jsonl", GOOD "{\"pred\":\"x\"");
    refused("trec.jsonl:2");
    /* Without the classes there is no score, and 0.0 would be one. */
    static const char *const classless[] = {"", ",\"all_classes\":null", ",\"all_classes\":[]"};
    for (size_t i = 0; i < 3; i++) {
        char text[512];
        snprintf(text, sizeof text, GOOD "{\"pred\":\"x\",\"answers\":[\"x\"]%s}\n", classless[i]);
        put("trec.jsonl", text);
        refused("trec.jsonl:2: task trec is scored against the list \"all_classes\"");
    }
    put("trec.jsonl", "{\"pred\":\"x\",\"answers\":[5]}");
    refused("trec.jsonl:1");
    put("trec.jsonl", "\n");
    refused("no prediction");
    put("trec.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"],\"all_classes\":[\"x\"]}");
    put("passage_retrieval_en.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"]}");
    refused("passage_retrieval_en.jsonl:1");
}

/* A LongBench-E prediction without a length belongs to no bucket; Python's scorer gives NaN or raises. */
static void lengths_missing(void **state)
{
    static const char *const rows[] = {"", ",\"length\":null", ",\"length\":\"9000\"", ",\"length\":-1",
                                       ",\"length\":NaN"};
    char command[256], text[512], where[256];
    mb_text out = {0};
    mb_error err = {0};
    (void)state;
    snprintf(where, sizeof where, "%s/pred_e/m", folder);
    assert_int_equal(mb_folder_make(where, &err), MB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(text, sizeof text,
                 "{\"pred\":\"x\",\"answers\":[\"x\"],\"length\":5000}\n{\"pred\":\"x\",\"answers\":[\"x\"]%s}\n",
                 rows[i]);
        put("pred_e/m/hotpotqa.jsonl", text);
        assert_int_equal(mb_score_folder(where, &out, &err), MB_E_INPUT);
        assert_non_null(strstr(err.text, "hotpotqa.jsonl:2: \"length\""));
    }
    put("pred_e/m/hotpotqa.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"],\"length\":5000}\n");
    result_is(where, "{\n    \"hotpotqa\": {\n        \"0-4k\": NaN,\n        \"4-8k\": 100.0,\n        \"8k+\": "
                     "NaN\n    }\n}");
    mb_text_free(&out);
    snprintf(command, sizeof command, "rm -rf %s/pred_e", folder);
    assert_int_equal(system(command), 0);
}

/* Outside of LongBench-E nobody looks at the length, whatever it is. */
static void lengths_unused(void **state)
{
    (void)state;
    put("hotpotqa.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"],\"length\":-1}\n"
                          "{\"pred\":\"x\",\"answers\":[\"x\"],\"length\":NaN}\n"
                          "{\"pred\":\"x\",\"answers\":[\"x\"],\"length\":1e30}\n"
                          "{\"pred\":\"x\",\"answers\":[\"x\"],\"length\":\"9000\"}\n");
    result_is(folder, "{\n    \"hotpotqa\": 100.0\n}");
}

/* NVIDIA/RULER's prediction files: names without "ruler_", "outputs"; values of its evaluate.py. niah_multivalue
 * is the name of a task of this project, too. */
static void ruler_folder(void **state)
{
    (void)state;
    put("niah_multivalue.jsonl",
        "{\"index\":0,\"pred\":\"7 and 8\",\"outputs\":[\"7\",\"8\",\"9\"],\"others\":{}}\n"
        "{\"index\":1,\"pred\":\"\",\"outputs\":[\"7\",\"8\",\"9\"],\"others\":{}}\n");
    put("qa_1.jsonl", "{\"index\":0,\"pred\":\"a Red door\",\"outputs\":[\"green\",\"red\"]}\n"
                      "{\"index\":1,\"pred\":\"no\",\"outputs\":[\"green\",\"red\"]}\n");
    put("vt.jsonl", "{\"index\":0,\"pred\":\"\\u0000AB\",\"outputs\":[\"AB\"]}\n");
    result_is(folder, "{\n    \"niah_multivalue\": 33.33,\n    \"vt\": 100.0,\n    \"qa_1\": 50.0\n}");
    put("vt.jsonl", "{\"index\":0,\"pred\":\"AB\",\"outputs\":[]}\n");
    refused("vt.jsonl:1: the list \"outputs\" is empty");
}

/* Without the dictionary the Chinese tasks are left out and named; the others are scored. */
static void without_dictionary(void **state)
{
    mb_text out = {0};
    mb_error err = {0};
    mb_sample *sample = mb_sample_new();
    double score = 5;
    (void)state;
    put("vcsum.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"]}\n");
    put("lcc.jsonl", "{\"pred\":\"x\",\"answers\":[\"x\"]}\n");
    put("passage_retrieval_zh.jsonl", "{\"pred\":\"3\",\"answers\":[\"\xe6\xae\xb5\xe8\x90\xbd"
                                      "3\"]}\n");
    assert_int_equal(mb_score_folder(folder, &out, &err), MB_OK);
    assert_string_equal(out.data, "{\n    \"passage_retrieval_zh\": 100.0,\n    \"lcc\": 100.0\n}");
    assert_non_null(strstr(err.text, "not scored: vcsum"));
    assert_non_null(strstr(err.text, "/nonexistent/dictionary"));
    mb_text_free(&out);
    assert_int_equal(mb_task_ready("vcsum", &err), MB_E_SAMPLE);
    assert_int_equal(mb_task_ready("lsht", &err), MB_OK);
    assert_int_equal(mb_task_ready("nonsense", &err), MB_E_INPUT);
    assert_true(mb_sample_add_answer(sample, "x", 1));
    assert_int_equal(mb_sample_score("dureader", sample, "x", &score, &err), MB_E_SAMPLE);
    mb_sample_free(sample);
}

static void version_two_table(void **state)
{
    (void)state;
    put("m-1.5.jsonl", "{\"pred\":\"A\",\"judge\":true,\"difficulty\":\"easy\",\"length\":\"short\"}\n"
                       "{\"pred\":\"A\",\"judge\":false,\"difficulty\":\"easy\",\"length\":\"medium\"}\n"
                       "{\"pred\":null,\"judge\":false,\"difficulty\":\"hard\",\"length\":\"short\"}\n");
    result_is(folder, "Model\tOverall\tEasy\tHard\tShort\tMedium\tLong\nm-1.5\t33.3\t50.0\t0.0\t50.0\t0.0\t-");
    put("n.jsonl", "{\"pred\":\"A\",\"judge\":1,\"difficulty\":\"easy\",\"length\":\"short\"}\n");
    refused("n.jsonl:1");
}

/* Scores of GPT-3.5 and the averages printed for it (LongBench's README): 44.0 in English. */
static void averages(void **state)
{
    static const char all[] =
        "{\"narrativeqa\": 23.6, \"qasper\": 43.3, \"multifieldqa_en\": 52.3, \"multifieldqa_zh\": 61.2, "
        "\"hotpotqa\": "
        "51.6, \"2wikimqa\": 37.7, \"musique\": 26.9, \"dureader\": 28.7, \"gov_report\": 29.5, \"qmsum\": 23.4, "
        "\"multi_news\": 26.7, \"vcsum\": 16, \"trec\": 68, \"triviaqa\": 91.4, \"samsum\": 41.7, \"lsht\": 29.2, "
        "\"passage_count\": 4.5, \"passage_retrieval_en\": 71, \"passage_retrieval_zh\": 77.5, \"lcc\": 54.7, "
        "\"repobench-p\": 53.6}";
    mb_text out = {0};
    mb_error err = {0};
    (void)state;
    assert_int_equal(mb_score_summary(all, &out, &err), MB_OK);
    assert_non_null(strstr(out.data, "(six category means), English: 43.99\n"));
    assert_non_null(strstr(out.data, "(six category means), Chinese: 44.46\n"));
    assert_non_null(strstr(out.data, "16 non-Chinese tasks: 43.74\n"));
    mb_text_clear(&out);
    assert_int_equal(mb_score_summary("{\"lcc\": 50}", &out, &err), MB_OK);
    assert_non_null(strstr(out.data, "not complete (without narrativeqa"));
    mb_text_clear(&out);
    assert_int_equal(mb_score_summary("{\"lcc\": {\"0-4k\": 50.0, \"4-8k\": NaN}}", &out, &err), MB_OK);
    assert_non_null(strstr(out.data, "0-4k: not complete"));
    assert_int_equal(mb_score_summary("text", &out, &err), MB_E_INPUT);
    mb_text_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),
        cmocka_unit_test_setup_teardown(numbers_and_order, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(refusals, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(lengths_missing, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(lengths_unused, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(ruler_folder, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(without_dictionary, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(version_two_table, make_folder, drop_folder),
        cmocka_unit_test(averages),
    };
    setenv("MASKBENCH_JIEBA_DICT", "/nonexistent/dictionary", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
