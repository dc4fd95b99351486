/* test_registry.c - what the registry holds, what the plug-in loader refuses and with which words, options. */
#include "methods/registry/registry.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char plugins[PATH_MAX]; /* build/plugins, beside the test programs */

static int find_plugins(void **state)
{
    ssize_t n = readlink("/proc/self/exe", plugins, sizeof plugins - 64);
    (void)state;
    for (int up = 0; n > 0 && up < 3; up++)
        *strrchr(plugins, '/') = '\0';
    strcat(plugins, "/plugins");
    return n > 0 ? 0 : -1;
}

/* Loads a plug-in by name below build/plugins; the sentence goes to err. */
static int load(const char *name, mb_error *err)
{
    char *path = mb_string_format("%s/%s.so", plugins, name);
    int rc = mb_registry_load(path, err);
    free(path);
    return rc;
}

static void expect_text(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
    if (strchr(text, '\n'))
        fail_msg("\"%s\" has more than one line", text);
}

/* ---- the list ---- */

static void test_builtins(void **state)
{
    static const char *const expected[] = {"exact",  "mage",    "oracle", "quest",
                                           "random", "sparsed", "tidal",  "window"};
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const mb_method *method = mb_registry_find(expected[i]);
        assert_non_null(method);
        assert_string_equal(mb_registry_origin(method), "");
        assert_int_equal(method->abi, MB_METHOD_ABI);
        assert_int_equal(method->size, sizeof(mb_method));
    }
    for (size_t i = 1; i < mb_registry_count(); i++)
        assert_true(strcmp(mb_registry_at(i - 1)->name, mb_registry_at(i)->name) < 0);
    assert_null(mb_registry_find("nothing"));
    assert_null(mb_registry_find(NULL));
    assert_null(mb_registry_at(mb_registry_count()));
}

/* ---- the loader ---- */

static void test_bad_plugins(void **state)
{
    static const struct {
        const char *name, *says;
    } cases[] = {
        {"bad/no_symbol", "the symbol mb_method_entry is missing"},
        {"bad/undefined", "missing_everywhere"},
        {"bad/other_abi", "it was built for ABI version 7, this program has version 2"},
        {"bad/refuses", "it does not serve ABI version 2"},
        {"bad/tiny_struct", "its struct has 16 bytes, a method needs at least"},
        {"bad/no_open", "method \"no_open\": the required hook open() is missing"},
        {"bad/no_select", "method \"no_select\": the required hook select() is missing"},
        {"bad/bad_name", "\"My Method\" must be 1 to 63 characters of a-z, 0-9, _ and -"},
        {"bad/taken_name", "the name \"exact\" is taken by a built-in method"},
        {"bad/no_summary", "version, summary and reference must not be NULL"},
        {"bad/option_offset", "option \"k\": offset 8 plus 8 bytes is beyond options_size 12"},
        {"bad/option_preset", "option \"k\": the preset 0 is not between 1 and 9"},
        {"bad/option_choice", "option \"rule\": a choice needs the list of its words"},
        {"bad/option_twice", "option \"k\": the table has two rows of this name"},
        {"bad/counter_silent", "counters are declared but the report() hook is missing"},
        {"bad/grid_silent", "counter maps are declared but the report_maps() hook is missing"},
        {"bad/grid_axes", "counter map \"hits\": axes are MB_BY_LAYER, MB_BY_STEP or both"},
        {"bad/grid_twice", "counter map \"hits\": the table has two rows of this name"},
    };
    size_t count = mb_registry_count();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_error err = {0};
        if (load(cases[i].name, &err) != MB_E_INPUT)
            fail_msg("%s was not refused", cases[i].name);
        expect_text(err.text, "plug-in ");
        expect_text(err.text, cases[i].name);
        expect_text(err.text, cases[i].says);
        assert_int_equal(mb_registry_count(), count);
    }
}

static void test_bad_paths(void **state)
{
    char path[] = "/tmp/mb_plugin_XXXXXX";
    mb_error err = {0};
    (void)state;
    assert_int_equal(mb_registry_load("/no/such/plugin.so", &err), MB_E_INPUT);
    expect_text(err.text, "plug-in /no/such/plugin.so: cannot open it: No such file or directory");
    assert_int_equal(mb_registry_load("/tmp", &err), MB_E_INPUT);
    expect_text(err.text, "it is not a file");
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, "not a library\n", 14), 14);
    close(file);
    assert_int_equal(mb_registry_load(path, &err), MB_E_INPUT);
    expect_text(err.text, "it cannot be loaded as a shared object");
    unlink(path);
    assert_int_equal(mb_registry_load_path("/no/such/folder", &err), MB_E_INPUT);
    expect_text(err.text, "plug-in folder /no/such/folder: cannot read it");
    assert_int_equal(mb_registry_load_path("", &err), MB_OK);
    assert_int_equal(mb_registry_load_path(NULL, &err), MB_OK);
}

static void test_good_plugin(void **state)
{
    mb_error err = {0};
    size_t count = mb_registry_count();
    (void)state;
    if (load("example", &err) != MB_OK)
        fail_msg("%s", err.text);
    const mb_method *method = mb_registry_find("example");
    assert_non_null(method);
    assert_ptr_equal(mb_registry_at(count), method);
    expect_text(mb_registry_origin(method), "/plugins/example.so");
    assert_int_equal(load("example", &err), MB_OK); /* the same file again is no second method */
    assert_int_equal(mb_registry_count(), count + 1);
    void *options = mb_method_options_new(method);
    assert_int_equal(mb_method_options_budget(method, options), 512);
    free(options);
    mb_registry_unload();
    assert_null(mb_registry_find("example"));
    assert_int_equal(mb_registry_count(), count);
}

/* The program reads no byte behind the end of an older plug-in's struct. */
static void test_older_plugin(void **state)
{
    mb_error err = {0};
    (void)state;
    if (load("bad/older", &err) != MB_OK)
        fail_msg("%s", err.text);
    const mb_method *method = mb_registry_find("older");
    assert_non_null(method->select);
    assert_null(method->observe);
    assert_null(method->step_end);
    assert_null(method->report);
    assert_null(method->maps);
    assert_null(method->report_maps);
    mb_registry_unload();
}

static void test_folder(void **state)
{
    char folder[] = "/tmp/mb_folder_XXXXXX";
    mb_error err = {0};
    (void)state;
    assert_non_null(mkdtemp(folder));
    char *b = mb_string_format("%s/b.so", folder), *a = mb_string_format("%s/a.so", folder);
    char *note = mb_string_format("%s/README", folder), *list = mb_string_format(":%s:", folder);
    char *example = mb_string_format("%s/example.so", plugins);
    char *older = mb_string_format("%s/bad/older.so", plugins);
    assert_int_equal(symlink(older, a), 0);
    assert_int_equal(symlink(example, b), 0);
    assert_int_equal(mb_file_write(note, "x", 1, &err), MB_OK);
    size_t count = mb_registry_count();
    if (mb_registry_load_path(list, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(mb_registry_count(), count + 2);
    assert_string_equal(mb_registry_at(count)->name, "older"); /* file-name order */
    assert_string_equal(mb_registry_at(count + 1)->name, "example");
    mb_registry_unload();
    unlink(a), unlink(b), unlink(note), rmdir(folder);
    free(a), free(b), free(note), free(list), free(example), free(older);
}

/* ---- options ---- */

static void set(const char *method_name, void *options, const char *name, const char *value, const char *says)
{
    mb_error err = {0};
    int rc = mb_method_options_set(mb_registry_find(method_name), options, name, value, "methods.here", &err);
    if (!says) {
        if (rc != MB_OK)
            fail_msg("%s", err.text);
        return;
    }
    if (rc != MB_E_INPUT)
        fail_msg("%s=%s was not refused", name, value);
    expect_text(err.text, "methods.here: ");
    expect_text(err.text, says);
}

static void test_options(void **state)
{
    const mb_method *mage = mb_registry_find("mage"), *sparsed = mb_registry_find("sparsed");
    void *o = mb_method_options_new(mage), *s = mb_method_options_new(sparsed);
    (void)state;
    char *json = mb_method_options_json(mage, o);
    assert_string_equal(json, "{\"k\":512,\"dense_layers\":2,\"rows\":\"all\",\"normaliser\":\"all\","
                              "\"rule\":\"mass\",\"budget\":\"fixed\",\"k_min\":64,\"k_max\":0,\"refresh\":0,"
                              "\"refresh_at\":\"\",\"commit\":\"dense\"}");
    free(json);
    set("mage", o, "k", "1024", NULL);
    set("mage", o, "rule", "votes", NULL);
    set("sparsed", s, "ratio", "0.1", NULL);
    set("sparsed", s, "skip", "-0", NULL);
    set("sparsed", s, "inclusive", "true", NULL);
    assert_int_equal(mb_method_options_budget(mage, o), 1024);
    json = mb_method_options_json(sparsed, s);
    assert_string_equal(json, "{\"k\":512,\"ratio\":0.1,\"page\":\"32\",\"skip\":0,\"inclusive\":true,"
                              "\"early_steps\":2,\"dense_layers\":0,\"rows\":\"all\","
                              "\"commit\":\"dense\"}");
    free(json);
    set("mage", o, "k", "0", "must be between 1 and 16777216 tokens, not 0");
    set("mage", o, "k", "99999999999999999999", "must be between");
    set("mage", o, "k", "5.5", "must be a whole number, not \"5.5\"");
    set("mage", o, "k", "", "must be a whole number");
    set("mage", o, "k", " 5", "must be a whole number");
    set("mage", o, "k", "5x", "must be a whole number");
    set("mage", o, "rule", "vote", "must be one of mass, votes, not \"vote\"");
    set("mage", o, "rule", "", "must be one of mass, votes");
    set("mage", o, "kk", "5", "mage has no option \"kk\"; did you mean k?; it has k, dense_layers, rows");
    set("exact", NULL, "k", "5", "exact has no option \"k\"; it has none at all");
    set("sparsed", s, "ratio", "1.5", "must be between 0 and 1, not 1.5");
    set("sparsed", s, "ratio", "nan", "must be a number");
    set("sparsed", s, "ratio", "inf", "must be between 0 and 1");
    set("sparsed", s, "ratio", "half", "must be a number, not \"half\"");
    set("sparsed", s, "inclusive", "yes", "must be true or false, not \"yes\"");
    assert_int_equal(mb_method_options_budget(mage, o), 1024); /* a refused value changes nothing */
    free(o);
    free(s);
    assert_null(mb_method_options_new(mb_registry_find("exact")));
    assert_int_equal(mb_method_options_budget(mb_registry_find("exact"), NULL), -1);
    json = mb_method_options_json(mb_registry_find("exact"), NULL);
    assert_string_equal(json, "{}");
    free(json);
}

/* Every table survives its own round trip: JSON of the presets, read back value by value, is the same JSON. */
static void test_all_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *method = mb_registry_at(i);
        void *options = mb_method_options_new(method);
        char *json = mb_method_options_json(method, options), *rest = json + 1;
        mb_error err = {0};
        char *before = mb_string_copy(json);
        for (char *pair; options && (pair = strsep(&rest, ",}")) && *pair;) {
            char *name = strsep(&pair, ":");
            name[strlen(name) - 1] = '\0';
            if (*pair == '"') {
                pair[strlen(pair) - 1] = '\0';
                pair++;
            }
            if (mb_method_options_set(method, options, name + 1, pair, name + 1, &err) != MB_OK)
                fail_msg("%s: %s", method->name, err.text);
        }
        char *after = mb_method_options_json(method, options), *help = mb_method_help(method);
        assert_string_equal(before, after);
        for (const mb_option *o = method->options; o && o->name; o++)
            if (!strstr(help, o->name) || !strstr(help, o->help))
                fail_msg("help %s does not explain %s", method->name, o->name);
        for (const mb_counter *c = method->counters; c && c->name; c++)
            if (!strstr(help, c->name) || !strstr(help, c->help))
                fail_msg("help %s does not explain the counter %s", method->name, c->name);
        for (const mb_counter_map *g = method->maps; g && g->name; g++)
            if (!strstr(help, g->name) || !strstr(help, g->help))
                fail_msg("help %s does not explain the map %s", method->name, g->name);
        assert_non_null(strstr(help, method->reference));
        free(json), free(before), free(after), free(help), free(options);
    }
}

/* ---- lists and files ---- */

typedef struct more_options {
    mb_option_list steps;
    mb_option_file table;
} more_options;

static const mb_option more_rows[] = {
    {"steps", MB_OPTION_LIST, offsetof(more_options, steps), 0, 2, 99, NULL, "steps", "some steps"},
    {"table", MB_OPTION_FILE, offsetof(more_options, table), 0, 0, 0, NULL, "", "a table"},
    {0}};
static const mb_method more = {
    .name = "more", .version = "1", .options = more_rows, .options_size = sizeof(more_options)};

static int set_more(void *options, const char *name, const char *value, mb_error *err)
{
    return mb_method_options_set(&more, options, name, value, name, err);
}

static void test_lists(void **state)
{
    static const char *const bad[] = {"2,2", "5,3", "1", "100", "2,", ",2", "2;3", "2, 3", "two"};
    more_options *options = mb_method_options_new(&more);
    mb_error err = {0};
    (void)state;
    assert_int_equal(options->steps.count, 0);
    assert_int_equal(set_more(options, "steps", "2,5,99", &err), 0);
    assert_int_equal(options->steps.count, 3);
    assert_int_equal(options->steps.values[2], 99);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(set_more(options, "steps", bad[i], &err), MB_E_INPUT);
        expect_text(err.text, "steps: must be");
    }
    char *json = mb_method_options_json(&more, options);
    assert_string_equal(json, "{\"steps\":\"2,5,99\",\"table\":\"\"}");
    free(json);
    assert_int_equal(set_more(options, "steps", "", &err), 0);
    assert_int_equal(options->steps.count, 0);
    char *help = mb_method_help(&(mb_method){.name = "more",
                                             .version = "1",
                                             .summary = "",
                                             .reference = "",
                                             .options = more_rows,
                                             .options_size = sizeof(more_options)});
    assert_non_null(strstr(help, "default none; a list, as 2,5,9, of 2 .. 99 steps"));
    assert_non_null(strstr(help, "default none; a file"));
    free(help);
    free(options);
}

/* The configuration of a content: the same wherever it lies, another one once it is changed. */
static void test_files(void **state)
{
    char folder[] = "/tmp/maskbench-table-XXXXXX", *json[3], *path[2];
    more_options *options = mb_method_options_new(&more), *early;
    mb_error err = {0};
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(set_more(options, "table", folder, &err), MB_E_INPUT);
    expect_text(err.text, "table: ");
    for (int i = 0; i < 2; i++) {
        path[i] = mb_string_format("%s/%d", folder, i);
        mkdir(path[i], 0700);
        free(path[i]);
        path[i] = mb_string_format("%s/%d/gates.bin", folder, i);
    }
    assert_int_equal(set_more(options, "table", path[0], &err), MB_E_INPUT);
    expect_text(err.text, "gates.bin");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mb_file_write(path[i], "1 2\0 3", 6, &err), 0);
        assert_int_equal(set_more(options, "table", path[i], &err), 0);
        assert_int_equal(options->table.size, 6);
        assert_memory_equal(options->table.bytes, "1 2\0 3", 7);
        json[i] = mb_method_options_json(&more, options);
    }
    early = mb_method_options_new(&more);
    assert_int_equal(set_more(early, "table", path[0], &err), 0);
    assert_int_equal(mb_file_write(path[0], "1 2 4", 5, &err), 0);
    assert_int_equal(set_more(options, "table", path[0], &err), 0);
    assert_memory_equal(early->table.bytes, "1 2\0 3", 7); /* what was read stays */
    json[2] = mb_method_options_json(&more, options);
    assert_string_equal(json[0], json[1]);
    assert_string_not_equal(json[0], json[2]);
    assert_non_null(strstr(json[0], "\"gates.bin "));
    assert_int_equal(set_more(options, "table", "", &err), 0);
    assert_null(options->table.bytes);
    for (int i = 0; i < 2; i++) {
        remove(path[i]);
        *strrchr(path[i], '/') = '\0';
        rmdir(path[i]);
        free(path[i]);
    }
    rmdir(folder);
    for (int i = 0; i < 3; i++)
        free(json[i]);
    free(options);
    free(early);
}

/* A plug-in's words are shown: no command to a terminal, no line of their own. */
static void test_hostile_words(void **state)
{
    static const char bad[] = "a\nharness: all is well\033[2J\xc2\x9b";
    static const mb_counter counters[] = {{"c", bad, "", "mean", bad}, {0}};
    static const mb_counter_map maps[] = {{"g", bad, "", "mean", bad, MB_BY_LAYER}, {0}};
    static const mb_option options[] = {
        {"o", MB_OPTION_INT, 0, 1, 0, 2, NULL, bad, bad}, {"w", MB_OPTION_CHOICE, 8, 0, 0, 0, bad, "", bad}, {0}};
    int shown = 0;
    (void)state;
    char *help = mb_method_help(&(mb_method){.name = "words",
                                             .version = bad,
                                             .summary = bad,
                                             .reference = bad,
                                             .options = options,
                                             .counters = counters,
                                             .maps = maps});
    assert_null(strchr(help, '\033'));
    assert_null(strstr(help, "\xc2\x9b"));
    assert_null(strstr(help, "\nharness"));
    for (const char *at = help; (at = strstr(at, "a\\x0aharness: all is well\\x1b[2J\\x9b")); at++)
        shown++;
    assert_int_equal(shown, 3 + 4 + 5); /* of the method, of counter and map, of the options */
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtins),    cmocka_unit_test(test_bad_plugins),   cmocka_unit_test(test_bad_paths),
        cmocka_unit_test(test_good_plugin), cmocka_unit_test(test_older_plugin),  cmocka_unit_test(test_folder),
        cmocka_unit_test(test_options),     cmocka_unit_test(test_all_tables),    cmocka_unit_test(test_lists),
        cmocka_unit_test(test_files),       cmocka_unit_test(test_hostile_words),
    };
    return cmocka_run_group_tests(tests, find_plugins, NULL);
}
