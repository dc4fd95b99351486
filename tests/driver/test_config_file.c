/*
 * test_config_file.c - config files as people write them: comments and closing commas, files based on others,
 * lists that make several runs, what a mistake is blamed on, and the JSON Schema that is printed for editors.
 */
#include "driver/config/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/maskbench_config_XXXXXX";

static char *write_config(const char *name, const char *text)
{
    mb_error err = {0};
    char *path = mb_string_format("%s/%s", folder, name);
    char *parent = mb_string_format("%s/below", folder);
    assert_int_equal(mb_folder_make(parent, &err), MB_OK);
    assert_int_equal(mb_file_write(path, text, strlen(text), &err), MB_OK);
    free(parent);
    return path;
}

/* Loads a file with one --set (may be NULL). */
static int load(const char *path, const char *set, mb_config_list *list, mb_error *err)
{
    mb_config_flags flags = {.sets = &set, .set_count = set != NULL};
    *err = (mb_error){0};
    return mb_config_load(list, path, &flags, err);
}

static void expect_failure(const char *path, const char *set, const char *part)
{
    mb_config_list list;
    mb_error err;
    assert_int_equal(load(path, set, &list, &err), MB_E_INPUT);
    if (!strstr(err.text, part))
        fail_msg("%s: \"%s\" lacks \"%s\"", path, err.text, part);
}

/* ---- comments ---- */

static char *plain(const char *text)
{
    cJSON *json;
    mb_error err = {0};
    if (mb_config_text(text, strlen(text), "c", &json, &err) != MB_OK)
        return mb_string_copy(err.text);
    char *out = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    return out;
}

static void comments_are_blanks(void **state)
{
    static const char *const cases[][2] = {
        {"{}", "{}"},
        {"// first\n{\"a\": 1} // last", "{\"a\":1}"},
        {"{/**/\"a\"/* x */:/* // */ 1,}", "{\"a\":1}"},
        {"{\"a\": [1, 2, // two\n /* three */ ], }", "{\"a\":[1,2]}"},
        {"{\"a\": \"// no /* comment */ ,]\"}", "{\"a\":\"// no /* comment */ ,]\"}"},
        {"{\"a\": \"\\\"// no\",}", "{\"a\":\"\\\"// no\"}"},
        {"{\"a\": \"\\\\\", /* yes */ \"b\": 1}", "{\"a\":\"\\\\\",\"b\":1}"},
        /* what is wrong stays wrong, where it stands */
        {"{\n  // c\n  \"a\": x}", "c is not valid JSON at line 3, column 8"},
        {"{\n  /* c\n */ \"a\": x}", "c is not valid JSON at line 3, column 10"},
        {"{\"a\": 1 /* open\n", "c: the comment that begins at line 1, column 9 has no end"},
        {"{\"a\": [,]}", "c is not valid JSON at line 1, column 8"},
        {"{,}", "c is not valid JSON at line 1, column 3"},
        {"{\"a\": 1,,}", "c is not valid JSON at line 1, column 10"},
        {"{\"a\": 1 / 2}", "c is not valid JSON at line 1, column 9"},
        {"{\"a\": \"open // }", "c is not valid JSON at line 1, column 8"},
        {"/* */", "c is not valid JSON at line 1, column 6"},
        {"[1,]", "c must hold one JSON object"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *out = plain(cases[i][0]);
        assert_string_equal(out, cases[i][1]);
        free(out);
    }
}

/* ---- files based on others ---- */

#define BASE                                                                                                      \
    "{\"seed\": 4, \"model\": \"models/tiny\", \"tasks\": [\"niah_single\"], \"limit\": 3, "                      \
    "\"methods\": {\"exact\": {}, \"quest\": {\"k\": 64, \"merge\": \"max\"}}}"

static char *identity_of(const char *path)
{
    mb_config_list list;
    mb_error err;
    char *stored, *identity;
    if (load(path, NULL, &list, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(list.count, 1);
    assert_int_equal(mb_config_identity(&list.configs[0], "cpu", &stored, &identity, &err), MB_OK);
    free(identity);
    mb_config_list_free(&list);
    return stored;
}

/* A file on top of its base is the file that says all of it. */
static void a_base_is_merged(void **state)
{
    (void)state;
    char *base = write_config("base.json", BASE);
    char *middle = write_config(
        "below/middle.json", "{\"extends\": \"../base.json\", \"model\": {\"type\": \"f32\"}, \"limit\": null}");
    char *top = write_config("top.json", "{\"extends\": \"below/middle.json\", \"name\": \"top\", \"methods\": "
                                         "{\"quest\": {\"k\": [16, 32]}, \"exact\": null, \"window\": {}}}");
    char *whole = write_config(
        "whole.json", "{\"seed\": 4, \"model\": {\"path\": \"models/tiny\", \"type\": \"f32\"}, \"tasks\": "
                      "[\"niah_single\"], \"methods\": {\"quest\": {\"k\": [16, 32], \"merge\": \"max\"}, "
                      "\"window\": {}}, \"name\": \"top\"}");
    char *merged = identity_of(top), *written = identity_of(whole);
    assert_string_equal(merged, written);
    free(merged);
    free(written);
    /* A checkpoint in place of a base's random weights is what counts. */
    char *drawn = write_config("drawn.json", "{\"model\": {\"shape\": \"tiny\", \"weights\": \"random\"}, "
                                             "\"methods\": {\"exact\": {}}, \"passes\": [\"latency\"]}");
    char *read =
        write_config("read.json", "{\"extends\": \"drawn.json\", \"model\": {\"path\": \"models/tiny\"}}");
    mb_config_list list;
    mb_error err;
    assert_int_equal(load(read, NULL, &list, &err), MB_OK);
    assert_string_equal(list.configs[0].model_path, "models/tiny");
    mb_config_list_free(&list);
    free(base);
    free(middle);
    free(top);
    free(whole);
    free(drawn);
    free(read);
}

static void a_bad_base_is_one_error(void **state)
{
    (void)state;
    char *one = write_config("one.json", "{\"extends\": \"two.json\"}");
    char *two = write_config("two.json", "{\"extends\": \"below/../one.json\"}");
    char *self = write_config("self.json", "{\"extends\": \"self.json\"}");
    char *lost = write_config("lost.json", "{\"extends\": \"nowhere.json\"}");
    char *number = write_config("number.json", "{\"extends\": 3}");
    char *broken = write_config("broken.json", "{\"seed\": }");
    char *on_broken = write_config("on_broken.json", "{\"extends\": \"broken.json\"}");
    char *twice =
        write_config("twice.json", "{\"extends\": \"base.json\", \"methods\": {\"exact\": {}, \"exact\": {}}}");
    char *wrong = write_config("wrong.json", "{\"extends\": \"base.json\", \"limit\": \"many\"}");
    expect_failure(one, NULL, "is based on itself: ");
    expect_failure(one, NULL, "one.json -> ");
    expect_failure(self, NULL, "is based on itself");
    expect_failure(lost, NULL,
                   "nowhere.json, which is not there; the path in \"extends\" is relative to the file");
    expect_failure(number, NULL, "number.json: config key extends must be text in quotes");
    expect_failure(on_broken, NULL, "broken.json is not valid JSON at line 1, column 10");
    expect_failure(twice, NULL, "config key methods.exact is given twice");
    expect_failure(wrong, NULL, "wrong.json: config key limit must be a whole number");
    expect_failure(NULL, "extends=base.json",
                   "--set extends=base.json: config key extends is read from a file only");
    free(one);
    free(two);
    free(self);
    free(lost);
    free(number);
    free(broken);
    free(on_broken);
    free(twice);
    free(wrong);
}

/* ---- lists ---- */

static void lists_make_runs(void **state)
{
    mb_config_list list;
    mb_error err;
    (void)state;
    char *path = write_config("many.json", "{\"seed\": [5, 6, 7], \"model\": [\"models/tiny\", {\"path\": "
                                           "\"models/tiny\", \"type\": \"f32\"}], \"methods\": {\"exact\": {}}, "
                                           "\"tasks\": [\"niah_single\"]}");
    char *single =
        write_config("many2.json", "{\"seed\": 6, \"model\": {\"path\": \"models/tiny\", \"type\": \"f32\"}, "
                                   "\"methods\": {\"exact\": {}}, \"tasks\": [\"niah_single\"]}");
    assert_int_equal(load(path, NULL, &list, &err), MB_OK);
    assert_int_equal(list.count, 6);
    char *alone = identity_of(single);
    int seeds = 0, same = 0;
    for (size_t i = 0; i < list.count; i++) {
        char *stored, *identity;
        seeds += (int)list.configs[i].seed;
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(list.configs[i].label, list.configs[j].label);
        assert_string_equal(list.configs[i].results, "results/many.db"); /* one database */
        assert_int_equal(mb_config_identity(&list.configs[i], "cpu", &stored, &identity, &err), MB_OK);
        same += strcmp(stored, alone) == 0; /* the run that a file with these values makes */
        free(stored);
        free(identity);
    }
    assert_int_equal(seeds, 2 * (5 + 6 + 7));
    assert_int_equal(same, 1);
    assert_string_equal(list.configs[1].label, "seed 6, model models/tiny");
    mb_config_list_free(&list);
    assert_int_equal(load(path, "seed=9", &list, &err), MB_OK);
    assert_int_equal(list.count, 2);
    mb_config_list_free(&list);
    expect_failure(path, "seed=[]", "--set seed=[]: config key seed is an empty list");
    expect_failure(path, "seed=[1,1]", "two entries of the list are the same");
    expect_failure(path, "seed=[1,\"x\"]", "--set seed=[1,\"x\"]: config key seed must be a whole number");
    expect_failure(path, "limit=[1,2]", "--set limit=[1,2]: config key limit must be a whole number");
    const mb_config_value flag = {mb_config_flag("--seed"), "3,4"};
    mb_config_flags flags = {.values = &flag, .value_count = 1};
    assert_int_equal(mb_config_load(&list, single, &flags, &err), MB_OK);
    assert_int_equal(list.count, 2);
    mb_config_list_free(&list);
    free(alone);
    free(path);
    free(single);
}

/* ---- blame ---- */

static void a_mistake_names_what_brought_it(void **state)
{
    (void)state;
    char *good = write_config("good.json", BASE);
    char *bad =
        write_config("bad.json", "{\"seed\": 1.5, \"methods\": {\"exact\": {}}, \"tasks\": [\"niah_single\"]}");
    expect_failure(bad, NULL, "bad.json: config key seed");
    expect_failure(bad, "limit=3", "bad.json: config key seed");
    expect_failure(good, "seed=1.5", "--set seed=1.5: config key seed");
    expect_failure(good, "methods.quest.kk=3", "--set methods.quest.kk=3: methods.quest.kk: quest has no option");
    expect_failure(good, "limti=3", "--set limti=3: unknown config key limti; did you mean limit?");
    expect_failure(good, "methods.quset.k=3", "did you mean quest?");
    expect_failure(good, "tasks=[\"niah_singel\"]", "did you mean niah_single?");
    const char *sets[] = {"limit=1", "seed=x", "name=n"};
    const mb_config_value flag = {mb_config_flag("--methods"), "exact,wndow"};
    mb_config_flags flags = {.sets = sets, .set_count = 3};
    mb_config_list list;
    mb_error err = {0};
    assert_int_equal(mb_config_load(&list, good, &flags, &err), MB_E_INPUT);
    assert_int_equal(strncmp(err.text, "--set seed=x: ", 14), 0);
    flags = (mb_config_flags){.sets = sets, .set_count = 1, .values = &flag, .value_count = 1};
    assert_int_equal(mb_config_load(&list, good, &flags, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "--methods exact,wndow: unknown method \"wndow\"; did you mean window?"));
    free(good);
    free(bad);
}

/* ---- schema ---- */

/* Every row is a property of its section, with its help; every method and option is there. */
static void the_schema_has_every_row(void **state)
{
    (void)state;
    cJSON *schema = mb_config_schema();
    const cJSON *definitions = cJSON_GetObjectItem(schema, "definitions");
    size_t rows = 0;
    for (const mb_key *key = mb_config_keys; key->name; key++, rows++) {
        const cJSON *section =
            *key->section ? cJSON_GetObjectItemCaseSensitive(definitions, key->section) : schema;
        const cJSON *row = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItem(section, "properties"), key->name);
        assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(row, "description")), key->help);
        const bool several = key->lists || (key->type == MB_KEY_INT && key->choices);
        const cJSON *form = several ? cJSON_GetObjectItem(row, "anyOf")->child : row;
        if (key->type == MB_KEY_INT || key->type == MB_KEY_REAL) {
            assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(form, "minimum")) == key->min);
            assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(form, "maximum")) == key->max);
        }
        if (key->type == MB_KEY_CHOICE)
            for (const mb_key_choice *c = key->choices; c->word; c++) {
                bool found = false;
                const cJSON *word;
                cJSON_ArrayForEach(word, cJSON_GetObjectItem(form, "enum"))
                    found = found || (cJSON_IsString(word) && strcmp(word->valuestring, c->word) == 0);
                assert_true(found);
            }
    }
    assert_true(rows > 40);
    const cJSON *methods = cJSON_GetObjectItem(
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItem(schema, "properties"), "methods"), "properties");
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *method = mb_registry_at(i);
        const cJSON *entry = cJSON_GetObjectItemCaseSensitive(methods, method->name);
        const cJSON *options = cJSON_GetObjectItem(cJSON_GetObjectItem(entry, "anyOf")->child, "properties");
        for (const mb_option *o = method->options; o && o->name; o++)
            assert_non_null(cJSON_GetObjectItemCaseSensitive(options, o->name));
    }
    cJSON_Delete(schema);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(comments_are_blanks),
                                       cmocka_unit_test(a_base_is_merged),
                                       cmocka_unit_test(a_bad_base_is_one_error),
                                       cmocka_unit_test(lists_make_runs),
                                       cmocka_unit_test(a_mistake_names_what_brought_it),
                                       cmocka_unit_test(the_schema_has_every_row)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
