/*
 * test_export.c - predictions in the official layout, the long export, the example queries, and that two runs with
 * one seed leave the same content, also when one was stored in pieces and in another order.
 */
#include "tests/results/small_store.h"

#include <cjson/cJSON.h>

#include "tests/results/fake_store.h"

static char *folder_of(const char *name)
{
    mb_error err = {0};
    const char *base = getenv("TMPDIR");
    char *path = mb_string_format("%s/mb-%s-%ld", base ? base : "/tmp", name, (long)getpid());
    OK(mb_folder_make(path, &err));
    return path;
}

static void remove_tree(const char *path)
{
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

/* ---- pred/ ---- */

static void exports_predictions(void **state)
{
    small_store s = {0};
    char *folder = folder_of("pred"), *data = NULL;
    size_t size = 0;
    (void)state;
    small_path(&s, "pred");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "beta", 0, 64), "quality");
    small_cell(&s, small_config(&s, "gamma", 0, 64), "quality"); /* no sample: no file */
    mb_sample_row row = small_row(cell, "z", 1);
    row.prediction = "say \"\xe4\xb8\xad\"\n\ttab \\ end\x01";
    row.answers_json = "[\"one\", \"two\"]";
    row.classes_json = "[\"c1\", \"c2\"]";
    row.length = 4321;
    OK(mb_store_sample(s.store, &row, &s.err));
    row = small_row(cell, "a", 0);
    row.prediction = "";
    OK(mb_store_sample(s.store, &row, &s.err));
    mb_sample_row bad = {.cell = cell, .key = "b", .status = "failed", .error = "why", .score = NAN, .depth = -1};
    OK(mb_store_sample(s.store, &bad, &s.err));
    OK(mb_export_pred(s.store, NULL, folder, &s.err));
    char *path = mb_string_format("%s/pred/tiny-beta_k=64/qa.jsonl", folder);
    OK(mb_file_read(path, 1 << 20, &data, &size, &s.err));
    /* In the order of storing; the failed sample has no line. */
    assert_string_equal(data,
                        "{\"pred\": \"say \\\"\xe4\xb8\xad\\\"\\n\\ttab \\\\ end\\u0001\", \"answers\": [\"one\", "
                        "\"two\"], \"all_classes\": [\"c1\", \"c2\"], \"length\": 4321}\n"
                        "{\"pred\": \"\", \"answers\": [\"a\"], \"all_classes\": null, \"length\": 10}\n");
    cJSON *json = cJSON_ParseWithOpts(data, NULL, 0); /* an independent reader agrees on the first line */
    assert_string_equal(cJSON_GetObjectItem(json, "pred")->valuestring,
                        row.cell ? "say \"\xe4\xb8\xad\"\n\ttab \\ end\x01" : "");
    cJSON_Delete(json);
    char *none = mb_string_format("%s/pred/tiny-gamma_k=64", folder);
    assert_false(mb_folder_exists(none));
    free(none);
    free(data);
    free(path);
    small_close(&s);
    unlink(s.path);
    remove_tree(folder);
    free(folder);
}

/* ---- content and queries ---- */

static char *content(const char *path)
{
    mb_error err = {0};
    mb_store *store = NULL;
    mb_text out = {0};
    OK(mb_store_open(&store, path, MB_STORE_READ, &err));
    const char *sql = mb_embedded_find("results/queries/content.sql", NULL);
    assert_non_null(sql);
    OK(mb_table_query(store, sql, MB_TABLE_CSV, 0, &out, &err));
    mb_store_close(store, NULL);
    return mb_text_take(&out);
}

static void same_seed_same_content(void **state)
{
    char *folder = folder_of("content"), *a = mb_string_format("%s/a.db", folder),
         *b = mb_string_format("%s/b.db", folder);
    (void)state;
    OK(fake_store(a, 2));
    OK(fake_store(b, 2));
    char *first = content(a), *second = content(b);
    assert_true(strlen(first) > 100000);
    assert_string_equal(first, second);
    free(second);
    /* b as of a run that was killed: some samples are lost and stored again, later than their neighbours. */
    sqlite3 *db;
    assert_int_equal(sqlite3_open(b, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA foreign_keys = ON; DELETE FROM sample WHERE id % 3 = 0", NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
    OK(fake_store(b, 2));
    second = content(b);
    assert_string_equal(first, second);
    free(second);
    /* And a change of one bit of one score shows. */
    assert_int_equal(sqlite3_open(b, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db,
                     "UPDATE sample SET score = score + 1.2e-16 WHERE id = (SELECT min(id) FROM sample "
                     "WHERE score > 0.3 AND score < 0.9)",
                     NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_changes(db), 1);
    sqlite3_close(db);
    second = content(b);
    assert_string_not_equal(first, second);
    free(first);
    free(second);
    remove_tree(folder);
    free(folder);
    free(a);
    free(b);
}

static void runs_every_example_query(void **state)
{
    char *folder = folder_of("queries"), *path = mb_string_format("%s/a.db", folder);
    mb_error err = {0};
    mb_store *store = NULL;
    int queries = 0;
    (void)state;
    OK(fake_store(path, 2));
    OK(mb_store_open(&store, path, MB_STORE_READ, &err));
    for (size_t i = 0; mb_embedded_path(i); i++) {
        mb_text out = {0};
        if (strncmp(mb_embedded_path(i), "results/queries/", 16) != 0)
            continue;
        queries++;
        const char *sql = mb_embedded_find(mb_embedded_path(i), NULL);
        assert_true(strncmp(sql, "-- ", 3) == 0); /* says what it is for */
        if (mb_table_query(store, sql, MB_TABLE_TERMINAL, 0, &out, &err) != MB_OK)
            fail_msg("%s: %s", mb_embedded_path(i), err.text);
        if (!out.data || strcmp(out.data, "(no rows)\n") == 0)
            fail_msg("%s gives no rows", mb_embedded_path(i));
        mb_text_free(&out);
    }
    assert_true(queries >= 8);
    /* Every view answers too. test_show fills the three that hold what a run records on demand. */
    static const char *const on_demand[] = {"v_accuracy_bucket", "v_record", "v_selection", "v_trace"};
    char *views = mb_string_copy(small_query(store, "SELECT name FROM sqlite_master WHERE type = 'view'"));
    assert_non_null(views);
    for (char *name = strtok(views, "\n"); name; name = strtok(NULL, "\n")) {
        char sql[128];
        assert_true(strlen(name) < 64);
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %.64s", name);
        bool may_be_empty = false;
        for (size_t i = 0; i < sizeof on_demand / sizeof *on_demand; i++)
            may_be_empty = may_be_empty || strcmp(name, on_demand[i]) == 0;
        if (strcmp(small_query(store, sql), "0\n") == 0 && !may_be_empty)
            fail_msg("%s is empty", name);
    }
    free(views);
    mb_store_close(store, NULL);
    remove_tree(folder);
    free(folder);
    free(path);
}

static void exports_the_long_form(void **state)
{
    small_store s = {0};
    mb_text out = {0};
    (void)state;
    small_path(&s, "long");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "beta", 0, 64), "quality");
    small_sample(&s, cell, "a", 0.1);
    OK(mb_export(s.store, NULL, MB_TABLE_JSONL, &out, &s.err));
    cJSON *json = cJSON_Parse(out.data);
    assert_non_null(json);
    assert_float_equal(cJSON_GetObjectItem(json, "score")->valuedouble, 0.1, 0);
    assert_string_equal(cJSON_GetObjectItem(json, "item")->valuestring, "a");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "depth")));
    cJSON_Delete(json);
    mb_text_clear(&out);
    OK(mb_export(s.store, NULL, MB_TABLE_CSV, &out, &s.err));
    assert_true(strncmp(out.data, "run,benchmark,task,item,", 24) == 0);
    mb_text_clear(&out);
    OK(mb_export(s.store, NULL, MB_TABLE_MARKDOWN, &out, &s.err));
    assert_non_null(strstr(out.data, "| method |"));
    mb_text_free(&out);
    small_close(&s);
    unlink(s.path);
}

/* ---- lm-evaluation-harness ---- */

static cJSON *read_json(const char *folder, const char *name)
{
    mb_error err = {0};
    char *path = mb_string_format("%s/%s", folder, name), *data = NULL;
    size_t size = 0;
    OK(mb_file_read(path, 1 << 20, &data, &size, &err));
    cJSON *json = cJSON_ParseWithOpts(data, NULL, 0);
    assert_non_null(json);
    free(path);
    free(data);
    return json;
}

/* The name of the one file of a folder that begins so. */
static void find_name(const char *folder, const char *begin, char name[256])
{
    char command[512];
    snprintf(command, sizeof command, "ls '%s' | grep '^%s'", folder, begin);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(name, 256, pipe));
    name[strcspn(name, "\n")] = '\0';
    char more[256];
    assert_null(fgets(more, sizeof more, pipe));
    pclose(pipe);
}

static double number_of(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItem(object, key);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

/* What the table tool of lm-evaluation-harness 0.4.13 asks for: the mean, its error, and one line a sample. */
static void exports_as_lm_eval(void **state)
{
    small_store s = {0};
    char *folder = folder_of("lm"), name[256];
    (void)state;
    small_path(&s, "lm");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "beta", 0, 64), "quality");
    small_sample(&s, cell, "a", 0.1);
    small_sample(&s, cell, "b", 0.5);
    small_sample(&s, cell, "c", 0.9);
    small_cell(&s, small_config(&s, "gamma", 0, 64), "quality"); /* no sample: no folder */
    mb_sample_row bad = {.cell = cell, .key = "d", .status = "failed", .error = "why", .score = NAN, .depth = -1};
    OK(mb_store_sample(s.store, &bad, &s.err));
    OK(mb_export_lm_eval(s.store, NULL, folder, &s.err));
    char *inside = mb_string_format("%s/tiny__beta_k=64", folder),
         *other = mb_string_format("%s/tiny__gamma_k=64", folder);
    assert_false(mb_folder_exists(other));
    find_name(inside, "results_", name);
    assert_non_null(strstr(name, ".json"));
    cJSON *json = read_json(inside, name);
    const cJSON *task = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "results"), "qa");
    assert_float_equal(number_of(task, "qa_f1,none"), 0.5, 1e-15);
    assert_float_equal(number_of(task, "qa_f1_stderr,none"), 0.4 / sqrt(3), 1e-15); /* of the sample, over n */
    assert_int_equal(number_of(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "n-samples"), "qa"), "effective"), 3);
    const char *const sections[] = {"versions", "n-shot", "configs", "higher_is_better"};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        assert_non_null(cJSON_GetObjectItem(cJSON_GetObjectItem(json, sections[i]), "qa"));
    cJSON_Delete(json);
    find_name(inside, "samples_qa_", name);
    json = read_json(inside, name); /* the first line */
    assert_string_equal(cJSON_GetObjectItem(json, "target")->valuestring, "a");
    assert_float_equal(number_of(json, "qa_f1"), 0.1, 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "filtered_resps")), 1);
    cJSON_Delete(json);
    assert_int_equal(mb_export_lm_eval(s.store, "other", folder, &s.err), MB_E_INPUT);
    free(inside);
    free(other);
    small_close(&s);
    unlink(s.path);
    remove_tree(folder);
    free(folder);
}

/* ---- for old versions of SQLite ---- */

static void exports_without_strict(void **state)
{
    small_store s = {0};
    char *path =
        mb_string_format("%s/mb-compat-%ld.db", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (long)getpid());
    mb_text out = {0};
    (void)state;
    small_path(&s, "strict");
    small_open(&s, 7);
    small_sample(&s, small_cell(&s, small_config(&s, "beta", 0, 64), "quality"), "a", 0.25);
    unlink(path);
    OK(mb_export_sqlite(s.store, path, &s.err));
    assert_int_equal(mb_export_sqlite(s.store, path, &s.err), MB_E_INPUT); /* never over a file */
    assert_non_null(strstr(s.err.text, "not overwritten"));
    char *before = content(s.path), *after = content(path);
    assert_string_equal(before, after);
    mb_store *copy = NULL;
    OK(mb_store_open(&copy, path, MB_STORE_READ, &s.err));
    /* Words of SQLite 3.28 and later, as far as a text shows them: a named window on another one, STRICT. */
    OK(mb_table_query(copy,
                      "SELECT name FROM main.sqlite_master WHERE sql GLOB '*) STRICT*' OR sql GLOB "
                      "'*AS (whole*' OR sql GLOB '*NULLS LAST*' OR sql GLOB '*iif(*' OR sql GLOB '*->*' OR "
                      "sql GLOB '*MATERIALIZED*' OR sql GLOB '*FILTER (*'",
                      MB_TABLE_CSV, 0, &out, &s.err));
    assert_string_equal(out.data, "name\n");
    mb_text_free(&out);
    mb_store_close(copy, NULL);
    free(before);
    free(after);
    small_close(&s);
    unlink(s.path);
    unlink(path);
    free(path);
}

static size_t lines_of(const mb_text *text)
{
    size_t lines = 0;
    for (size_t i = 0; i < text->length; i++)
        lines += text->data[i] == '\n';
    return lines;
}

/* Two runs of one name in a store: all of them without a run, one of them with it. */
static void exports_one_run(void **state)
{
    small_store s = {0};
    char *folder = folder_of("runs");
    mb_text out = {0};
    (void)state;
    small_path(&s, "runs");
    small_open(&s, 7);
    small_sample(&s, small_cell(&s, small_config(&s, "beta", 0, 64), "quality"), "a", 0.1);
    OK(mb_store_close(s.store, &s.err));
    small_open(&s, 8);
    int64_t cell = small_cell(&s, small_config(&s, "beta", 0, 64), "quality");
    small_sample(&s, cell, "a", 0.2);
    small_sample(&s, cell, "b", 0.3);
    OK(mb_export(s.store, NULL, MB_TABLE_JSONL, &out, &s.err));
    assert_int_equal(lines_of(&out), 3);
    mb_text_clear(&out);
    OK(mb_export(s.store, "small#2", MB_TABLE_JSONL, &out, &s.err));
    assert_int_equal(lines_of(&out), 2);
    assert_null(strstr(out.data, "\"run\": \"small\""));
    mb_text_clear(&out);
    OK(mb_export(s.store, "small", MB_TABLE_MARKDOWN, &out, &s.err));
    assert_non_null(strstr(out.data, "run small\n"));
    assert_int_equal(mb_export(s.store, "other", MB_TABLE_CSV, &out, &s.err), MB_E_INPUT);
    assert_int_equal(mb_export_pred(s.store, "other", folder, &s.err), MB_E_INPUT);
    OK(mb_export_pred(s.store, "small", folder, &s.err));
    char *one = mb_string_format("%s/pred/tiny-beta_k=64/qa.jsonl", folder);
    char *labelled = mb_string_format("%s/pred/small_2-tiny-beta_k=64/qa.jsonl", folder);
    assert_true(mb_file_exists(one));
    assert_false(mb_file_exists(labelled));
    OK(mb_export_pred(s.store, NULL, folder, &s.err));
    assert_true(mb_file_exists(labelled));
    free(one);
    free(labelled);
    mb_text_free(&out);
    small_close(&s);
    unlink(s.path);
    remove_tree(folder);
    free(folder);
}

/* Labels that a file name does not keep apart: refused, and nothing is written. */
static void refuses_one_name_for_two(void **state)
{
    static const char *const labels[] = {"a b", "a_b"};
    small_store s = {0};
    char *folder = folder_of("names");
    sqlite3 *db = NULL;
    int drawn = 0;
    (void)state;
    small_path(&s, "names");
    for (uint64_t i = 0; i < 2; i++) {
        small_open(&s, 7 + i);
        small_sample(&s, small_cell(&s, small_config(&s, labels[i], 0, -1), "quality"), "a", 0.1);
        small_sample(&s, small_cell(&s, small_config(&s, labels[0], 0, -1), "quality"), "b", 0.1);
        OK(mb_store_close(s.store, &s.err));
    }
    assert_int_equal(sqlite3_open(s.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE run SET label = 'small 2' WHERE label = 'small'", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    OK(mb_store_open(&s.store, s.path, MB_STORE_READ, &s.err));
    assert_int_equal(mb_export_pred(s.store, "small#2", folder, &s.err), MB_E_INPUT);
    assert_non_null(strstr(s.err.text, "tiny-a_b"));
    assert_int_equal(mb_export_lm_eval(s.store, "small#2", folder, &s.err), MB_E_INPUT);
    assert_non_null(strstr(s.err.text, "tiny__a_b"));
    assert_int_equal(mb_export_pred(s.store, NULL, folder, &s.err), MB_E_INPUT);
    assert_int_equal(mb_plot_all(s.store, "small#2", folder, &drawn, &s.err), MB_E_INPUT);
    assert_non_null(strstr(s.err.text, "small_2"));
    assert_int_equal(rmdir(folder), 0); /* it is empty */
    OK(mb_export_pred(s.store, "small 2", folder, &s.err));
    small_close(&s);
    unlink(s.path);
    remove_tree(folder);
    free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exports_predictions),    cmocka_unit_test(exports_one_run),
        cmocka_unit_test(same_seed_same_content), cmocka_unit_test(runs_every_example_query),
        cmocka_unit_test(exports_the_long_form),  cmocka_unit_test(exports_as_lm_eval),
        cmocka_unit_test(exports_without_strict), cmocka_unit_test(refuses_one_name_for_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
