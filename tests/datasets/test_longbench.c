/*
 * test_longbench.c - LongBench v1, E, v2 and LongGenBench as streams: the official table, byte-exact prompts, file
 * layouts, rows with missing fields, limits and hashes. All rows are made up here.
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
    strcpy(folder, "/tmp/mb_longbench_XXXXXX");
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
    char path[256], *slash;
    mb_error err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    slash = strrchr(path, '/');
    *slash = '\0';
    assert_int_equal(mb_folder_make(path, &err), MB_OK);
    *slash = '/';
    if (mb_file_write(path, text, strlen(text), &err) != MB_OK)
        fail_msg("%s", err.text);
}

static mb_task *opened(const char *name, int64_t limit)
{
    mb_task *task = NULL;
    mb_error err = {0};
    mb_task_request request = {.task = name, .folder = folder, .limit = limit};
    if (mb_task_open(&task, &request, &err) != MB_OK)
        fail_msg("%s", err.text);
    return task;
}

/* The official table (README and config of LongBench): limit, chat template, class of the metric. */
static const struct {
    const char *name, *metric;
    int32_t tokens;
    bool chat;
} official[] = {
    {"narrativeqa", "qa_f1", 128, true},
    {"qasper", "qa_f1", 128, true},
    {"multifieldqa_en", "qa_f1", 64, true},
    {"multifieldqa_zh", "qa_f1_zh", 64, true},
    {"hotpotqa", "qa_f1", 32, true},
    {"2wikimqa", "qa_f1", 32, true},
    {"musique", "qa_f1", 32, true},
    {"dureader", "rouge_l_zh", 128, true},
    {"gov_report", "rouge_l", 512, true},
    {"qmsum", "rouge_l", 512, true},
    {"multi_news", "rouge_l", 512, true},
    {"vcsum", "rouge_l_zh", 512, true},
    {"trec", "classification", 64, false},
    {"triviaqa", "qa_f1", 32, false},
    {"samsum", "rouge_l", 128, false},
    {"lsht", "classification", 64, false},
    {"passage_count", "count", 32, true},
    {"passage_retrieval_en", "retrieval", 32, true},
    {"passage_retrieval_zh", "retrieval_zh", 32, true},
    {"lcc", "code_sim", 64, false},
    {"repobench-p", "code_sim", 64, false},
};

static void the_table(void **state)
{
    size_t extended = 0;
    (void)state;
    for (size_t i = 0; i < sizeof official / sizeof *official; i++) {
        char name[64];
        const mb_task_info *row = mb_task_find(official[i].name);
        assert_non_null(row);
        assert_string_equal(row->metric, official[i].metric);
        assert_int_equal(row->max_new_tokens, official[i].tokens);
        assert_int_equal(row->chat, official[i].chat);
        assert_string_equal(row->benchmark, "longbench");
        snprintf(name, sizeof name, "%s_e", row->name);
        const mb_task_info *e = mb_task_find(name);
        if (e) {
            assert_string_equal(e->benchmark, "longbench_e");
            assert_string_equal(e->metric, row->metric);
            assert_int_equal(e->max_new_tokens, row->max_new_tokens);
            assert_string_equal(e->prompt_hash, row->prompt_hash);
            extended++;
        }
    }
    assert_int_equal(extended, 13);
    assert_null(mb_task_find("nothing"));
    assert_null(mb_task_at(mb_task_count()));
}

static void groups(void **state)
{
    static const struct {
        const char *group;
        size_t count;
    } cases[] = {{"longbench", 21},   {"longbench_en", 16}, {"longbench_zh", 5}, {"longbench_e", 13},
                 {"longbench_v2", 1}, {"longgenbench", 4},  {"hotpotqa", 1}};
    const char **names = NULL;
    size_t count = 0;
    mb_error err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mb_task_expand(cases[i].group, &names, &count, &err), MB_OK);
        assert_int_equal(count, cases[i].count);
        free(names);
    }
    assert_int_equal(mb_task_expand("nonsense", &names, &count, &err), MB_E_INPUT);
    assert_null(names);
    assert_non_null(strstr(err.text, "nonsense"));
    assert_non_null(strstr(err.text, "longbench_e"));
}

/* XXH3-128 of the official templates, computed with python-xxhash from the official config. */
static void prompt_hashes(void **state)
{
    (void)state;
    static const struct {
        const char *task, *hash;
    } cases[] = {
        {"narrativeqa", "4b1255d90fc9e0463c9f67cc9c4a6568"},
        {"qasper", "79c2252d7365bb18f9659960b1c75bd5"},
        {"multifieldqa_en", "b7074b45f010a1c85cd985d6bcab47fd"},
        {"multifieldqa_zh", "b12f87fc14402fab2ec3fb35a51d2363"},
        {"hotpotqa", "b6a24c483918e3adf2e76bfc959f0d25"},
        {"2wikimqa", "b6a24c483918e3adf2e76bfc959f0d25"},
        {"musique", "b6a24c483918e3adf2e76bfc959f0d25"},
        {"dureader", "eeb3cfa29a760dfecc9b61006e0fa0ae"},
        {"gov_report", "6281c2bedd8cd4a5fa81a16e937502d9"},
        {"qmsum", "0b16773d3415bc82ab9d2d44727e93d5"},
        {"multi_news", "b20d124f824b1c2285243f66700d404b"},
        {"vcsum", "6945e2a33a25974fe97225433d5e8f58"},
        {"trec", "54e50506322812cf125c5c56fac1c475"},
        {"triviaqa", "f6654c6a8588a4cece1150c9ec62f88b"},
        {"samsum", "e97a468f0f2834dffdbacadb5137c8bb"},
        {"lsht", "90a2b71c368baa9f5e24b0a3faf040d6"},
        {"passage_count", "1b75acdc3ba15b8ce2aeb7e8024e4a62"},
        {"passage_retrieval_en", "614ca791b33fca6ae7676fbd22099420"},
        {"passage_retrieval_zh", "a31a4ee739664646ed394f8caf8e5507"},
        {"lcc", "550e2c846a9f6628f2ad2e4caf8e32e2"},
        {"repobench-p", "110e1487e3b71a580a9f918d0f9f622d"},
        {"longbench_v2", "1bc8185e157cb682aad0ed781ce4e44b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(mb_task_find(cases[i].task)->prompt_hash, cases[i].hash);
}

static void prompts_and_fields(void **state)
{
    mb_sample *s = NULL;
    mb_error err = {0};
    (void)state;
    put("data/samsum.jsonl",
        "{\"_id\":\"k1\",\"context\":\"C {input} {{x}}\",\"input\":\"I {context}\",\"answers\":"
        "[\"one\",\"two\"],\"length\":7,\"dataset\":\"samsum\",\"language\":\"en\","
        "\"all_classes\":null}\n");
    mb_task *task = opened("samsum", 0);
    assert_int_equal(mb_task_size(task), 1);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    assert_string_equal(s->prompt,
                        "Summarize the dialogue into a few short sentences. The following are some examples."
                        "\n\nC {input} {{x}}\n\nI {context}"); /* filled once, data not expanded */
    assert_string_equal(s->key, "k1");
    assert_string_equal(s->answer_prefix, "");
    assert_int_equal(s->answer_count, 2);
    assert_string_equal(s->answers[1], "two");
    assert_int_equal(s->length, 7);
    assert_int_equal(s->max_new_tokens, 128);
    assert_true(s->stop_newline && s->truncate_middle && !s->cut_joined && !s->chat && !s->group && !s->classes);
    assert_true(s->depth < 0);
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), 0);
    mb_task_close(task);
    /* A file beside the folder "data" is found as well; classes come along. */
    put("trec.jsonl", "{\"_id\":\"t\",\"context\":\"C\",\"input\":\"I\",\"answers\":[\"B\"],\"length\":1,"
                      "\"all_classes\":[\"A\",\"B\"]}\n");
    task = opened("trec", 0);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    assert_int_equal(s->class_count, 2);
    assert_string_equal(s->language, "en");
    assert_string_equal(
        s->prompt,
        "Please determine the type of the question below. Here are some examples of questions.\n\nC\nI");
    assert_false(s->stop_newline);
    mb_sample_free(s);
    mb_task_close(task);
}

static void buckets(void **state)
{
    static const char *const want[] = {"0-4k", "0-4k", "4-8k", "4-8k", "8k+"};
    mb_sample *s = NULL;
    mb_error err = {0};
    (void)state;
    put("data/lcc_e.jsonl",
        "{\"_id\":\"1\",\"context\":\"x\",\"input\":\"\",\"answers\":[\"y\"],\"length\":0}\n"
        "{\"_id\":\"2\",\"context\":\"x\",\"input\":\"\",\"answers\":[\"y\"],\"length\":3999}\n"
        "{\"_id\":\"3\",\"context\":\"x\",\"input\":\"\",\"answers\":[\"y\"],\"length\":4000}\n"
        "{\"_id\":\"4\",\"context\":\"x\",\"input\":\"\",\"answers\":[\"y\"],\"length\":7999}\n"
        "{\"_id\":\"5\",\"context\":\"x\",\"input\":\"\",\"answers\":[\"y\"],\"length\":8000}\n");
    mb_task *task = opened("lcc_e", 0);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(mb_task_next(task, &s, &err), 1);
        assert_string_equal(s->group, want[i]);
        assert_string_equal(s->prompt, "Please complete the code given below. \nxNext line of code:\n");
        mb_sample_free(s);
    }
    mb_task_close(task);
}

/* Each bad row is told with file, line and field, carries key and source, and the next row comes. */
static void bad_rows(void **state)
{
    static const struct {
        const char *row, *word, *key;
    } cases[] = {
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":[\"a\"]}", "\"length\" is missing", "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":[\"a\"],\"length\":\"5\"}", "\"length\"",
         "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":[\"a\"],\"length\":1e30}",
         "\"length\" is no length", "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":[\"a\"],\"length\":-1e30}",
         "\"length\" is no length", "k"},
        {"{\"_id\":\"k\",\"context\":5,\"input\":\"i\",\"answers\":[\"a\"],\"length\":5}",
         "\"context\" is no text", "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"answers\":[\"a\"],\"length\":5}", "\"input\" is missing", "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"length\":5}", "\"answers\" is missing", "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":null,\"length\":5}", "\"answers\"", "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":[],\"length\":5}", "\"answers\"", "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":\"a\",\"length\":5}", "\"answers\"", "k"},
        {"{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":[5],\"length\":5}", "\"answers\"", "k"},
        {"{\"context\":\"c\",\"input\":\"i\",\"answers\":[\"a\"],\"length\":5}", "\"_id\" is missing", "row_14"},
        {"{\"_id\":\"k\",\"context\":\"c", "JSON", "row_15"},
        {"\xff", "UTF-8", "row_16"},
    };
    mb_text file = {0};
    mb_sample *s = NULL;
    char source[256];
    mb_error err = {0};
    const size_t n = sizeof cases / sizeof *cases;
    (void)state;
    mb_text_puts(&file,
                 "{\"_id\":\"first\",\"context\":\"c\",\"input\":\"i\",\"answers\":[\"a\"],\"length\":5}\n\n");
    for (size_t i = 0; i < n; i++)
        mb_text_printf(&file, "%s\n", cases[i].row);
    mb_text_puts(&file, "{\"_id\":\"last\",\"context\":\"c\",\"input\":\"i\",\"answers\":[\"a\"],\"length\":5}");
    put("data/qasper.jsonl", file.data);
    mb_text_free(&file);
    mb_task *task = opened("qasper", 0);
    assert_int_equal(mb_task_size(task), n + 2);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    mb_sample_free(s);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(mb_task_next(task, &s, &err), MB_E_SAMPLE);
        snprintf(source, sizeof source, "%s/data/qasper.jsonl:%zu", folder, i + 3);
        assert_non_null(s);
        if (strcmp(s->source, source) != 0 || strncmp(err.text, source, strlen(source)) != 0 ||
            !strstr(err.text, cases[i].word))
            fail_msg("source %s, sentence %s, wanted %s and %s", s->source, err.text, source, cases[i].word);
        if (strcmp(cases[i].key, "k") == 0)
            assert_string_equal(s->key, "k");
        else
            assert_memory_equal(s->key, "row_", 4);
        mb_sample_free(s);
    }
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    assert_string_equal(s->key, "last");
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), 0);
    mb_task_close(task);
    /* The limit counts rows, bad ones too. */
    task = opened("qasper", 2);
    assert_int_equal(mb_task_size(task), 2);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), MB_E_SAMPLE);
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), 0);
    mb_task_close(task);
    put("data/lsht.jsonl", "{\"_id\":\"k\",\"context\":\"c\",\"input\":\"i\",\"answers\":[\"a\"],\"length\":5}\n");
    task = opened("lsht", 0);
    assert_int_equal(mb_task_next(task, &s, &err), MB_E_SAMPLE);
    assert_non_null(strstr(err.text, "all_classes"));
    mb_sample_free(s);
    mb_task_close(task);
}

static void missing_and_empty_files(void **state)
{
    mb_task *task = NULL;
    mb_sample *s = NULL;
    char hex[MB_HASH_CAP], other[MB_HASH_CAP], path[256];
    mb_error err = {0};
    mb_task_request request = {.task = "musique", .folder = folder};
    (void)state;
    assert_int_equal(mb_task_open(&task, &request, &err), MB_E_INPUT);
    assert_null(task);
    snprintf(path, sizeof path, "%s/data/musique.jsonl", folder);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "datasets/fetch.sh longbench"));
    assert_non_null(strstr(err.text, "--data DIR"));
    request.task = "nonsense";
    assert_int_equal(mb_task_open(&task, &request, &err), MB_E_INPUT);
    put("data/musique.jsonl", "");
    task = opened("musique", 0);
    assert_int_equal(mb_task_size(task), 0);
    assert_int_equal(mb_task_next(task, &s, &err), 0);
    mb_task_hash(task, hex);
    mb_task_close(task);
    mb_hash_bytes("", 0, other);
    assert_string_equal(hex, other); /* the hash is the file's */
    request = (mb_task_request){.task = "musique", .folder = folder, .options = "{\"depths\": 3}"};
    assert_int_equal(mb_task_open(&task, &request, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "depths"));
}

static void version_two(void **state)
{
    mb_sample *s = NULL;
    mb_error err = {0};
    (void)state;
    /* "$Q$" inside the document is replaced too, as the official replacement order does; fields are stripped. */
    put("longbench_v2/data.json",
        "[\n{\"_id\":\"v\",\"domain\":\"d\",\"sub_domain\":\"s\",\"difficulty\":\"hard\",\"length\":\"long\","
        "\"question\":\" Why?\\n\",\"choice_A\":\"a "
        "$DOC$\",\"choice_B\":\"b\\u3000\",\"choice_C\":\"c\",\"choice_D\":"
        "\"\\u00a0d\",\"answer\":\"C\",\"context\":\"\\n Text $Q$ $C_D$ \"},\n{\"_id\":\"w\"}\n]\n");
    mb_task *task = opened("longbench_v2", 0);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    assert_string_equal(s->prompt,
                        "Please read the following text and answer the question below.\n\n<text>\n"
                        "Text Why? d\n</text>\n\nWhat is the correct answer to this question: Why?\nChoices:"
                        "\n(A) a $DOC$\n(B) b\n(C) c\n(D) d\n\nFormat your response as follows: \"The correct "
                        "answer is (insert answer here)\".");
    assert_string_equal(s->group, "hard/long");
    assert_string_equal(s->answers[0], "C");
    assert_int_equal(s->max_new_tokens, 128);
    assert_true(s->chat && s->truncate_middle && s->cut_joined);
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), MB_E_SAMPLE);
    assert_string_equal(s->key, "w");
    assert_non_null(strstr(err.text, "data.json:3: field \"answer\" is missing"));
    mb_sample_free(s);
    mb_task_close(task);
}

static void plans(void **state)
{
    static const struct {
        const char *prediction;
        double score;
    } cases[] = {
        {"", 0.25}, /* the prefix holds Week 1 */
        {"#*# Week 2: x #*# Week 3 #*# Week 4", 1.0},
        {"#*# Week 2 Week 3 #*# Week 2", 0.5},      /* the first number of a block counts, once */
        {"#*# Week x Week 3 #*# week 4", 0.5},      /* search goes on; case counts */
        {"#*# Week 5 #*# Week 0 #*# Week 04", 0.5}, /* outside 1..4; int("04") is 4 */
        {"#*# Week 2 *** finished #*# Week 3", 0.5},
        {"#*# Weeks 2 #*# Week  3", 0.25},
    };
    mb_sample *s = NULL;
    mb_error err = {0};
    (void)state;
    put("longgenbench/Dataset_short.json",
        "[{\"prompt\":\"P\",\"checks_once\":\"{'1': "
        "'x'}\",\"checks_range\":\"{}\",\"checks_periodic\":\"{}\",\"type\":"
        "\"Week\",\"prefix\":\"#*# Week 1 "
        "\",\"number\":\"4\"},{\"prompt\":\"P\",\"type\":\"Week\",\"prefix\":\"\","
        "\"number\":\"four\"}]");
    mb_task *task = opened("longgenbench_short", 0);
    assert_int_equal(mb_task_size(task), 2);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    assert_string_equal(s->prompt, "P");
    assert_int_equal(s->max_new_tokens, 16000);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double score = -1;
        assert_int_equal(mb_sample_score("longgenbench_short", s, cases[i].prediction, &score, &err), MB_OK);
        if (score != cases[i].score)
            fail_msg("\"%s\": %f instead of %f", cases[i].prediction, score, cases[i].score);
    }
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), MB_E_SAMPLE);
    assert_non_null(strstr(err.text, "\"number\""));
    mb_sample_free(s);
    mb_task_close(task);
}

static void batched_questions(void **state)
{
    mb_sample *s = NULL;
    mb_task *task = NULL;
    mb_error err = {0};
    mb_task_request request = {.task = "longgenbench_gsm8k", .folder = folder, .options = "{\"batch\": 2}"};
    (void)state;
    assert_int_equal(mb_task_open(&task, &request, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "gsm8k_prompt.txt"));
    put("gsm8k_prompt.txt", "EX");
    put("gsm8k_test.jsonl",
        "{\"question\":\"q1\",\"answer\":\"#### 1\"}\n{\"question\":\"q2\",\"answer\":\"#### 2\"}\n"
        "{\"question\":\"q3\",\"answer\":\"#### 3\"}\n");
    assert_int_equal(mb_task_open(&task, &request, &err), MB_OK);
    assert_int_equal(mb_task_size(task), 2);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    assert_non_null(strstr(s->prompt, "regardless of their number.\n\nExamples: \nEX\n\nFollowing Question: \n"
                                      "Question_9:\nq1\nQuestion_10:\nq2\n\n"));
    assert_int_equal(s->answer_count, 2);
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    assert_string_equal(s->key, "batch_1");
    assert_int_equal(s->answer_count, 1);
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), 0);
    mb_task_close(task);
    /* MMLU: quoted cells; a question with a blank line fills two numbers, as in the official script. */
    put("mmlu_prompt.json", "{\"high_x\":\"Intro.\\n\\nQ: e1\\nA: r1\\n\\nQ: e2\\nA: r2\",\"gone\":\"\"}");
    put("mmlu/test/high_x_test.csv", "\"a \"\"b\"\", c\",1,2,3,4,A\n\"d\n\ne\",5,6,7,8,B\nf,1,2,3,4,C\n");
    request = (mb_task_request){.task = "longgenbench_mmlu", .folder = folder, .options = "{\"batch\": 2}"};
    assert_int_equal(mb_task_open(&task, &request, &err), MB_OK);
    assert_int_equal(mb_task_next(task, &s, &err), 1);
    assert_non_null(strstr(s->prompt,
                           "(with answers) about  high x.\n\nExamples: \nQuestion_1:\ne1\n\nQuestion_2:\ne2\n\n"
                           "Answer_1:\nr1\n\nAnswer_2:\nr2\n\nFollowing Question: \nQuestion_6:\na \"b\", c\n"
                           "(A) 1(B) 2(C) 3(D) 4\n\nQuestion_7:\nd\n\n"));
    assert_null(strstr(s->prompt, "(A) 5"));
    assert_string_equal(s->answers[1], "B");
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), MB_E_SAMPLE); /* a subject without a file */
    assert_string_equal(s->key, "gone");
    mb_sample_free(s);
    assert_int_equal(mb_task_next(task, &s, &err), 0);
    mb_task_close(task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table),
        cmocka_unit_test(groups),
        cmocka_unit_test(prompt_hashes),
        cmocka_unit_test_setup_teardown(prompts_and_fields, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(buckets, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(bad_rows, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(missing_and_empty_files, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(version_two, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(plans, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(batched_questions, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
