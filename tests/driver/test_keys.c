/*
 * test_keys.c - what holds for every row of the key table, whatever keys there are: it fills its own field and no
 * other, refuses what is outside of its type and range with its path in the sentence, its flag is a spelling of
 * --set, and another value makes another run exactly when the row does not say that it extends one. Where it does,
 * another value is told apart by a stored row, or the row of the table says why no result depends on it.
 */
#include "driver/config/keys.h"
#include "driver/setup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_TEXT "{\"model\": \"models/tiny\", \"methods\": {\"exact\": {}}, \"tasks\": [\"niah_single\"]}"

/* What a section's keys fill. */
typedef union filled {
    mb_run_config config;
    mb_sampler sampler;
    mb_task_spec task;
} filled;

static bool is_scalar(const mb_key *key)
{
    return key->type == MB_KEY_INT || key->type == MB_KEY_REAL || key->type == MB_KEY_BOOL ||
           key->type == MB_KEY_CHOICE || key->type == MB_KEY_CHOICES;
}

/* The n-th valid value of a key as JSON text; false: it has no more that a test could name. */
static bool valid_value(const mb_key *key, int n, char text[128])
{
    double whole = key->min + n < key->max ? key->min + n : key->max;
    switch (key->type) {
    case MB_KEY_INT:
        snprintf(text, 128, "%.0f", whole);
        return n < 3;
    case MB_KEY_REAL:
        snprintf(text, 128, "%.17g", n ? key->min + (key->max - key->min) / 2 : key->max);
        return n < 2;
    case MB_KEY_BOOL:
        snprintf(text, 128, n ? "true" : "false");
        return n < 2;
    case MB_KEY_CHOICE:
        snprintf(text, 128, "\"%s\"", key->choices[n].word ? key->choices[n].word : "");
        return key->choices[n].word != NULL;
    case MB_KEY_CHOICES:
        snprintf(text, 128, "[\"%s\"]", key->choices[n].word ? key->choices[n].word : "");
        return key->choices[n].word != NULL;
    case MB_KEY_INTS:
        snprintf(text, 128, "[%.0f, %.0f]", whole, key->max);
        return n < 2;
    case MB_KEY_TEXT:
    case MB_KEY_PATH:
        snprintf(text, 128, "\"some%d\"", n);
        return n < 2;
    default:
        return false;
    }
}

static void fill(const mb_key *key, const char *value, filled *out)
{
    mb_error err = {0};
    mb_text text = {0};
    memset(out, 0, sizeof *out);
    if (key)
        mb_text_printf(&text, "{\"%s\": %s}", key->name, value);
    cJSON *object = cJSON_Parse(key ? text.data : "{}");
    assert_non_null(object);
    if (key) {
        assert_int_equal(mb_config_check(object, key->section, "", false, &err), MB_OK);
        assert_int_equal(mb_config_fill(object, key->section, out, &err), MB_OK);
    }
    cJSON_Delete(object);
    mb_text_free(&text);
}

static void presets(const char *section, filled *out)
{
    mb_error err = {0};
    cJSON *object = cJSON_CreateObject();
    memset(out, 0, sizeof *out);
    assert_int_equal(mb_config_fill(object, section, out, &err), MB_OK);
    cJSON_Delete(object);
}

static const void *at(const filled *f, const mb_key *key)
{
    return (const char *)f + key->offset;
}

/* A value other than the preset changes the key's own field and leaves those of its section alone. */
static void fills_its_own_field(void **state)
{
    (void)state;
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        bool changed = false;
        char value[128];
        filled before, after;
        if (key->type == MB_KEY_SECTION || key->type == MB_KEY_SECTIONS || key->type == MB_KEY_OWN)
            continue;
        presets(key->section, &before);
        for (int n = 0; !changed && valid_value(key, n, value); n++) {
            fill(key, value, &after);
            changed = memcmp(at(&before, key), at(&after, key), key->size) != 0;
            for (const mb_key *other = mb_config_keys; other->name; other++)
                if (other != key && is_scalar(other) && strcmp(other->section, key->section) == 0 &&
                    memcmp(at(&before, other), at(&after, other), other->size) != 0)
                    fail_msg("%s.%s = %s changes the field of %s", key->section, key->name, value, other->name);
            mb_config_release(key->section, &after);
        }
        if (!changed)
            fail_msg("no value of %s.%s reaches its field", key->section, key->name);
        mb_config_release(key->section, &before);
    }
}

/* Another type, and a number on the wrong side of either end: one sentence with the key's path. */
static void refuses_what_is_outside(void **state)
{
    (void)state;
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        char values[3][64] = {"{\"x\": 1}", "", ""}, path[128];
        bool number = key->type == MB_KEY_INT || key->type == MB_KEY_REAL || key->type == MB_KEY_INTS;
        if (key->type == MB_KEY_OWN)
            continue;
        if (number) {
            snprintf(values[1], sizeof values[1], "%.17g", key->max * 2 + 1);
            snprintf(values[2], sizeof values[2], "%.17g", key->min - 1);
        }
        snprintf(path, sizeof path, "here.%s", key->name);
        for (int i = 0; i < 3 && *values[i]; i++) {
            mb_error err = {0};
            mb_text text = {0};
            mb_text_printf(&text, "{\"%s\": %s}", key->name, values[i]);
            cJSON *object = cJSON_Parse(text.data);
            if (mb_config_check(object, key->section, "here", false, &err) != MB_E_INPUT)
                fail_msg("%s.%s = %s is not refused", key->section, key->name, values[i]);
            if (!strstr(err.text, path))
                fail_msg("%s.%s = %s: the sentence does not name the key: %s", key->section, key->name, values[i],
                         err.text);
            cJSON_Delete(object);
            mb_text_free(&text);
        }
    }
}

/* A row says all that the help, the flags and the file need, once. */
static void rows_are_complete(void **state)
{
    (void)state;
    mb_text help = {0}, markdown = {0};
    mb_config_help(&help);
    mb_config_help_markdown(&markdown);
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        assert_true(key->help && *key->help && (key->preset || key->preset_words));
        assert_non_null(strstr(help.data, key->help));
        assert_non_null(strstr(markdown.data, key->help));
        assert_null(strchr(key->help, '|')); /* it would end a cell of the table */
        assert_ptr_equal(mb_config_key(key->section, key->name), key);
        assert_true(!*key->section || (!key->extends && !key->read && !key->choose));
        if (key->flag)
            assert_ptr_equal(mb_config_flag(key->flag), NULL); /* with its placeholder it is no word */
        if (key->type == MB_KEY_SECTION || key->type == MB_KEY_SECTIONS) {
            const mb_key *inner = mb_config_keys;
            while (inner->name && strcmp(inner->section, key->name) != 0)
                inner++;
            assert_non_null(inner->name);
        }
    }
    mb_text_free(&help);
    mb_text_free(&markdown);
}

static int read_with(mb_run_config *config, const char *set, const mb_config_value *value, mb_error *err)
{
    mb_config_flags flags = {
        .sets = &set, .set_count = set != NULL, .values = value, .value_count = value != NULL};
    return mb_config_read(config, FILE_TEXT, strlen(FILE_TEXT), "the test's config", &flags, err);
}

/* The run's text with a --set or a flag on top, as it is stored, or as identity; malloc'ed. */
static char *text_with(const char *set, const mb_config_value *value, bool identity)
{
    mb_run_config config;
    mb_error err = {0};
    char *stored, *own;
    if (read_with(&config, set, value, &err) != MB_OK)
        fail_msg("%s: %s", set ? set : value->text, err.text);
    assert_int_equal(mb_config_identity(&config, "cpu", &stored, &own, &err), MB_OK);
    free(identity ? stored : own);
    mb_config_free(&config);
    return identity ? own : stored;
}

/* A value that suits every key of a type. */
static const char *some_text(const mb_key *key)
{
    switch (key->type) {
    case MB_KEY_INT:
    case MB_KEY_INTS:
        return "3";
    case MB_KEY_REAL:
        return "1";
    case MB_KEY_BOOL:
        return "true";
    case MB_KEY_CHOICE:
        return key->choices->word;
    default:
        return "cpu";
    }
}

/* A flag gives the text that --set gives. */
static void flags_spell_set(void **state)
{
    (void)state;
    size_t seen = 0;
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        char set[160], word[64];
        const char *text = some_text(key);
        if (!key->flag || key->choose)
            continue;
        mb_config_value value = {key, text};
        snprintf(set, sizeof set, "%s%s%s=%s", key->section, *key->section ? "." : "", key->name, text);
        snprintf(word, sizeof word, "%.*s", (int)strcspn(key->flag, " "), key->flag);
        assert_ptr_equal(mb_config_flag(word), key);
        char *by_set = text_with(set, NULL, false), *by_flag = text_with(NULL, &value, false);
        assert_string_equal(by_set, by_flag);
        free(by_set);
        free(by_flag);
        seen++;
    }
    assert_true(seen > 3);
}

/* --model keeps the other keys of a model that the file gives as an object, but not those that would outdo it. */
static void a_shorthand_flag_keeps_the_object(void **state)
{
    (void)state;
    static const char text[] = "{\"model\": {\"shape\": \"tiny\", \"weights\": \"random\", \"block\": 16}, "
                               "\"methods\": {\"exact\": {}}, \"tasks\": [\"niah_single\"]}";
    mb_config_value value = {mb_config_flag("--model"), "somewhere"};
    mb_config_flags flags = {.values = &value, .value_count = 1};
    mb_run_config config;
    mb_error err = {0};
    assert_int_equal(mb_config_read(&config, text, strlen(text), "c", &flags, &err), MB_OK);
    assert_string_equal(config.model_path, "somewhere");
    assert_null(config.model_shape);
    assert_int_equal(config.block_size, 16);
    mb_config_free(&config);
}

/* A --set that gives a top-level key another value; false: the key is not to be tried. */
static bool another_value(const mb_key *key, char set[256])
{
    char value[128];
    if (key == MB_CONFIG_KEY_OF(device)) /* the identity has the device that was opened */
        return false;
    if (key == MB_CONFIG_KEY_OF(base)) /* read from files only: test_config_file.c */
        return false;
    if (key->type == MB_KEY_SECTION && key->shorthand) {
        snprintf(set, 256, "%s=elsewhere", key->name);
        return true;
    }
    if (key->type == MB_KEY_SECTION || key->type == MB_KEY_SECTIONS) {
        for (const mb_key *inner = mb_config_keys; inner->name; inner++)
            if (strcmp(inner->section, key->name) == 0 && inner->type == MB_KEY_INT) {
                valid_value(inner, 1, value);
                snprintf(set, 256, "%s.%s=%s", key->name, inner->name, value);
                return true;
            }
        return false;
    }
    if (key->type == MB_KEY_OWN) {
        snprintf(set, 256, "%s",
                 key == MB_CONFIG_KEY_OF(methods) ? "methods={\"window\": {}}" : "tasks=[\"qasper\"]");
        return true;
    }
    for (int n = 0; valid_value(key, n, value); n++)
        if (!key->preset || strcmp(value, key->preset) != 0) {
            snprintf(set, 256, "%s=%s", key->name, value);
            return true;
        }
    return false;
}

static void extending_keys_keep_the_run(void **state)
{
    (void)state;
    char *plain = text_with(NULL, NULL, true);
    size_t extending = 0, others = 0;
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        char set[256];
        if (*key->section || !another_value(key, set))
            continue;
        char *changed = text_with(set, NULL, true);
        if ((strcmp(plain, changed) == 0) != key->extends)
            fail_msg("%s %s another run", set, key->extends ? "makes" : "does not make");
        free(changed);
        *(key->extends ? &extending : &others) += 1;
    }
    assert_true(extending > 5 && others > 5);
    free(plain);
}

/* The top-level row that a key belongs to; itself at the top. */
static const mb_key *owner_of(const mb_key *key)
{
    return !*key->section                      ? key
           : strcmp(key->section, "task") == 0 ? MB_CONFIG_KEY_OF(tasks)
                                               : mb_config_key("", key->section);
}

static bool is_section(const mb_key *key)
{
    return key->type == MB_KEY_SECTION || key->type == MB_KEY_SECTIONS;
}

/* A value of a section's key that is not its preset makes another run. */
static void check_separates(const mb_key *key, const char *plain)
{
    char value[128], set[256];
    for (int n = 0; valid_value(key, n, value); n++) {
        if (key->preset && strcmp(value, key->preset) == 0)
            continue;
        snprintf(set, sizeof set, "%s.%s=%s", key->section, key->name, value);
        if (key->rival || strcmp(key->name, "path") == 0) /* one of the two is read */
            snprintf(set, sizeof set, "model={\"weights\": \"random\", \"shape\": \"s%d\"}", n);
        char *changed = text_with(set, NULL, true);
        if (strcmp(plain, changed) == 0)
            fail_msg("%s makes no other run", set);
        free(changed);
        return;
    }
    fail_msg("no value of %s.%s to try", key->section, key->name);
}

/* "table.column" is in the schema. */
static void check_column(const mb_key *key)
{
    const char *schema = mb_embedded_find("results/schema.sql", NULL), *dot = strchr(key->stored, '.');
    char table[64], column[64];
    assert_non_null(schema);
    assert_non_null(dot);
    snprintf(table, sizeof table, "CREATE TABLE %.*s (", (int)(dot - key->stored), key->stored);
    snprintf(column, sizeof column, "%s ", dot + 1);
    const char *at = strstr(schema, table), *end = at ? strstr(at, ") STRICT") : NULL;
    const char *found = at ? strstr(at, column) : NULL;
    if (!found || !end || found > end)
        fail_msg("%s.%s: the store has no %s", key->section, key->name, key->stored);
}

/* Every key of the file, the sections' too: another run, other rows, or a reason why nothing depends on it. */
static void every_key_is_in_an_identity(void **state)
{
    (void)state;
    size_t runs = 0, rows = 0, reasons = 0;
    char *plain = text_with(NULL, NULL, true);
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        const mb_key *owner = owner_of(key);
        bool makes_run = *key->section ? !owner->extends || key->separates : !key->extends;
        if (is_section(key))
            continue; /* its keys say it */
        if (makes_run + (key->stored != NULL) + (key->harmless != NULL) != 1)
            fail_msg("%s.%s must make another run, name the column that tells its values apart, or say why no "
                     "result depends on it: one of the three",
                     key->section, key->name);
        if (makes_run && *key->section)
            check_separates(key, plain);
        if (key->stored)
            check_column(key);
        runs += makes_run;
        rows += key->stored != NULL;
        reasons += key->harmless != NULL;
    }
    assert_true(runs > 5 && rows > 5 && reasons > 5);
    mb_run_config config; /* the device is the one that was opened */
    mb_error err = {0};
    char *stored, *cpu, *cuda;
    assert_int_equal(read_with(&config, NULL, NULL, &err), MB_OK);
    assert_int_equal(mb_config_identity(&config, "cpu", &stored, &cpu, &err), MB_OK);
    free(stored);
    assert_int_equal(mb_config_identity(&config, "cuda", &stored, &cuda, &err), MB_OK);
    assert_string_not_equal(cpu, cuda);
    free(stored);
    free(cpu);
    free(cuda);
    mb_config_free(&config);
    free(plain);
}

/* A sampler with any one key changed is another row of the store. */
static void samplers_are_rows_of_their_own(void **state)
{
    (void)state;
    char folder[] = "/tmp/mb-keys-XXXXXX", path[64], value[128];
    const mb_model_config model = {.family = MB_FAMILY_FAST_DLLM_V2, .block = 32, .sub_block = 8};
    mb_store *store = NULL;
    mb_error err = {0};
    mb_sampler plain;
    int64_t first, again;
    size_t seen = 0;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/s.db", folder);
    assert_int_equal(mb_store_open(&store, path, MB_STORE_WRITE, &err), MB_OK);
    mb_sampler_default(&model, &plain);
    assert_int_equal(mb_run_store_sampler(store, &model, &plain, &first, &err), MB_OK);
    assert_int_equal(mb_run_store_sampler(store, &model, &plain, &again, &err), MB_OK);
    assert_int_equal(first, again);
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        if (strcmp(key->section, "sampler") != 0)
            continue;
        bool changed = false;
        for (int n = 0; !changed && valid_value(key, n, value); n++) {
            mb_sampler other = plain;
            mb_text text = {0};
            mb_text_printf(&text, "{\"%s\": %s}", key->name, value);
            cJSON *object = cJSON_Parse(text.data);
            assert_int_equal(mb_config_fill(object, "sampler", &other, &err), MB_OK);
            changed = memcmp((char *)&plain + key->offset, (char *)&other + key->offset, key->size) != 0;
            assert_int_equal(mb_run_store_sampler(store, &model, &other, &again, &err), MB_OK);
            if (changed && again == first)
                fail_msg("sampler.%s = %s is stored as the sampler without it", key->name, value);
            cJSON_Delete(object);
            mb_text_free(&text);
        }
        assert_true(changed);
        seen++;
    }
    assert_true(seen > 5);
    mb_store_close(store, NULL);
    for (int i = 0; i < 4; i++) {
        static const char *const ends[] = {"", "-wal", "-shm", "-lock"};
        char file[80];
        snprintf(file, sizeof file, "%s%s", path, ends[i]);
        unlink(file);
    }
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fills_its_own_field),
                                       cmocka_unit_test(refuses_what_is_outside),
                                       cmocka_unit_test(rows_are_complete),
                                       cmocka_unit_test(flags_spell_set),
                                       cmocka_unit_test(extending_keys_keep_the_run),
                                       cmocka_unit_test(every_key_is_in_an_identity),
                                       cmocka_unit_test(samplers_are_rows_of_their_own),
                                       cmocka_unit_test(a_shorthand_flag_keeps_the_object)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
