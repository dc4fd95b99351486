/*
 * test_tokenizer_characters.c - the tokenizer over characters with byte fallback (Gemma's kind): ids and texts
 * equal to the reference implementation's (fixtures/characters/golden.json, made by fixtures/make_characters.py),
 * runs of byte tokens that are no UTF-8, the tokens in front of a text, and files that ask for something else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/model.h"
#include "tests/model/folder.h"

#include <cjson/cJSON.h>

#define FIXTURE "tests/model/fixtures/characters/"

/* *text: the caller frees it. */
static void read_file(const char *path, char **text)
{
    size_t size = 0;
    if (mb_file_read(path, 1 << 24, text, &size, NULL) != MB_OK)
        fail_msg("%s cannot be read", path);
}

static mb_tokenizer *open_fixture(void)
{
    mb_tokenizer *tokenizer = NULL;
    char *folder = folder_new();
    mb_error err = {0};
    folder_copy(folder, "tokenizer.json", FIXTURE "tokenizer.json");
    if (mb_tokenizer_open(&tokenizer, folder, &err) != MB_OK)
        fail_msg("%s", err.text);
    folder_remove(folder);
    free(folder);
    return tokenizer;
}

static size_t ids_of(const cJSON *list, int32_t *ids, size_t cap)
{
    size_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        assert_true(n < cap);
        ids[n++] = item->valueint;
    }
    return n;
}

static void check_decoding(const mb_tokenizer *tokenizer, const cJSON *entry, const int32_t *ids, size_t n)
{
    static const char *const keys[2] = {"decoded", "skipped"};
    for (int skip = 0; skip < 2; skip++) {
        char *text = NULL;
        size_t length = 0;
        assert_int_equal(mb_tokenizer_decode(tokenizer, ids, n, skip, &text, &length, NULL), MB_OK);
        assert_string_equal(text, cJSON_GetObjectItem(entry, keys[skip])->valuestring);
        free(text);
    }
}

static void golden(void **state)
{
    (void)state;
    mb_tokenizer *tokenizer = open_fixture();
    char *json = NULL;
    read_file(FIXTURE "golden.json", &json);
    cJSON *root = cJSON_Parse(json);
    const cJSON *entry;
    int32_t want[2048];
    size_t texts = 0, broken = 0, n = 0;
    assert_non_null(root);
    cJSON_ArrayForEach(entry, cJSON_GetObjectItem(root, "texts")) {
        const char *text = cJSON_GetObjectItem(entry, "text")->valuestring;
        size_t want_n = ids_of(cJSON_GetObjectItem(entry, "ids"), want, 2048);
        int32_t *ids = NULL;
        assert_int_equal(mb_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &n, NULL), MB_OK);
        if (n != want_n || memcmp(ids, want, n * sizeof *ids) != 0)
            fail_msg("ids of \"%s\" differ", text);
        free(ids);
        check_decoding(tokenizer, entry, want, want_n);
        texts++;
    }
    cJSON_ArrayForEach(entry, cJSON_GetObjectItem(root, "broken")) {
        check_decoding(tokenizer, entry, want, ids_of(cJSON_GetObjectItem(entry, "ids"), want, 2048));
        broken++;
    }
    assert_true(texts > 80 && broken == 8);
    const int32_t *begin = mb_tokenizer_begin(tokenizer, &n);
    assert_int_equal(n, ids_of(cJSON_GetObjectItem(root, "begin"), want, 2048));
    assert_memory_equal(begin, want, n * sizeof *begin);
    cJSON_Delete(root);
    free(json);
    mb_tokenizer_close(tokenizer);
}

/* One long line is one piece here: it must not become quadratic. */
static void long_text(void **state)
{
    (void)state;
    mb_tokenizer *tokenizer = open_fixture();
    const size_t size = 1 << 20;
    char *text = malloc(size), *back = NULL;
    int32_t *ids = NULL;
    size_t n = 0, length = 0;
    assert_non_null(text);
    for (size_t i = 0; i < size; i++)
        text[i] = i % 7 == 6 ? ' ' : 'a';
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, size, true, &ids, &n, NULL), MB_OK);
    assert_int_equal(mb_tokenizer_decode(tokenizer, ids, n, true, &back, &length, NULL), MB_OK);
    assert_int_equal(length, size);
    assert_memory_equal(back, text, size);
    free(back);
    free(ids);
    free(text);
    mb_tokenizer_close(tokenizer);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"}",
         "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"}", "normalizer"},
        {"\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"}",
         "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"\\u2581\"}", "pre_tokenizer"},
        {"\"single\":[", "\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},", "post_processor"},
        {"{\"type\":\"ByteFallback\"}", "{\"type\":\"Metaspace\"}", "decoder"},
        {"\"<0xE4>\"", "\"<0xe4>\"", "<0xE4>"},
        {"\"ids\":[2]", "\"ids\":[99999]", "does not exist"},
        {"\"ids\":[2]", "\"ids\":[2,2,2,2,2]", "more than 4"},
        {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "not BPE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *folder = folder_new(), *text = NULL;
        read_file(FIXTURE "tokenizer.json", &text);
        char *at = strstr(text, cases[i].from);
        mb_error err = {0};
        mb_tokenizer *tokenizer = NULL;
        if (!at)
            fail_msg("case %zu: the fixture has no %s", i, cases[i].from);
        char *edited =
            mb_string_format("%.*s%s%s", (int)(at - text), text, cases[i].to, at + strlen(cases[i].from));
        folder_put_text(folder, "tokenizer.json", edited);
        int rc = mb_tokenizer_open(&tokenizer, folder, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: rc %d, \"%s\", expected \"%s\"", i, rc, err.text, cases[i].says);
        folder_remove(folder);
        free(folder);
        free(edited);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(long_text),
        cmocka_unit_test(other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
