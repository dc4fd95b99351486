/*
 * test_tokenizer.c - ids equal to the reference implementation's (fixtures/golden.json, made by
 * fixtures/make_tokenizer.py), decoding of broken bytes, refusal of damaged files, and texts that make a careless
 * implementation quadratic. With MASKBENCH_QWEN_TOKENIZER=path/to/tokenizer.json the published vectors of the real
 * Qwen tokenizer are checked too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/model.h"
#include "tests/model/folder.h"

#include <cjson/cJSON.h>
#include <pthread.h>

#define FIXTURES "tests/model/fixtures/"

static mb_tokenizer *open_folder(const char *folder)
{
    mb_tokenizer *tokenizer = NULL;
    mb_error err = {0};
    if (mb_tokenizer_open(&tokenizer, folder, &err) != MB_OK)
        fail_msg("%s", err.text);
    return tokenizer;
}

static cJSON *read_golden(void)
{
    char *text = NULL;
    mb_error err = {0};
    size_t size = 0;
    assert_int_equal(mb_file_read(FIXTURES "golden.json", 1 << 24, &text, &size, &err), MB_OK);
    cJSON *root = cJSON_Parse(text);
    assert_non_null(root);
    free(text);
    return root;
}

static const char *string_of(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_true(cJSON_IsString(item));
    return item->valuestring;
}

static void check_ids(const mb_tokenizer *tokenizer, const char *text, size_t length, const int32_t *want,
                      size_t want_n)
{
    int32_t *ids = NULL;
    size_t n = 0;
    mb_error err = {0};
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, length, true, &ids, &n, &err), MB_OK);
    bool same = n == want_n && (n == 0 || memcmp(ids, want, n * sizeof *ids) == 0);
    for (size_t i = 0; !same && i < n; i++)
        fprintf(stderr, "%d ", ids[i]);
    if (!same)
        fail_msg("ids of \"%s\" differ (%zu, expected %zu)", text, n, want_n);
    free(ids);
}

static void check_text(const mb_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip, const char *want)
{
    char *text = NULL;
    mb_error err = {0};
    size_t length = 0;
    assert_int_equal(mb_tokenizer_decode(tokenizer, ids, n, skip, &text, &length, &err), MB_OK);
    assert_string_equal(text, want);
    assert_int_equal(length, strlen(want));
    free(text);
}

static size_t ids_of(const cJSON *entry, int32_t *ids, size_t cap)
{
    size_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(entry, "ids")) {
        assert_true(n < cap);
        ids[n++] = item->valueint;
    }
    return n;
}

/* Both layouts of the same tokenizer against the same golden ids. */
static void golden_folder(const char *folder)
{
    mb_tokenizer *tokenizer = open_folder(folder);
    cJSON *golden = read_golden();
    const cJSON *entry;
    int32_t ids[4096];
    size_t texts = 0;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(golden, "texts")) {
        size_t n = ids_of(entry, ids, 4096);
        const char *text = string_of(entry, "text");
        check_ids(tokenizer, text, strlen(text), ids, n);
        check_text(tokenizer, ids, n, false, string_of(entry, "decoded"));
        check_text(tokenizer, ids, n, true, string_of(entry, "skipped"));
        texts++;
    }
    assert_true(texts >= 90);
    cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(golden, "broken")) {
        size_t n = ids_of(entry, ids, 4096);
        check_text(tokenizer, ids, n, false, string_of(entry, "decoded"));
    }
    cJSON_Delete(golden);
    mb_tokenizer_close(tokenizer);
}

static void golden_ids(void **state)
{
    (void)state;
    golden_folder(FIXTURES "bpe");
}

static void golden_ids_of_pair(void **state)
{
    (void)state;
    golden_folder(FIXTURES "bpe_pair");
}

/* Invalid UTF-8 must encode as the same text with U+FFFD in place of each maximal invalid part. */
static void invalid_utf8(void **state)
{
    (void)state;
    mb_tokenizer *tokenizer = open_folder(FIXTURES "bpe");
    cJSON *golden = read_golden();
    const cJSON *entry;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(golden, "repair")) {
        const char *hex = string_of(entry, "hex"), *want = string_of(entry, "text");
        char bytes[256];
        mb_error err = {0};
        size_t length = strlen(hex) / 2, n = 0;
        int32_t *ids = NULL;
        for (size_t i = 0; i < length; i++) {
            char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};
            bytes[i] = (char)strtoul(pair, NULL, 16);
        }
        assert_int_equal(mb_tokenizer_encode(tokenizer, want, strlen(want), true, &ids, &n, &err), MB_OK);
        check_ids(tokenizer, bytes, length, ids, n);
        check_text(tokenizer, ids, n, false, want);
        free(ids);
    }
    cJSON_Delete(golden);
    mb_tokenizer_close(tokenizer);
}

static void special_off_is_plain_text(void **state)
{
    (void)state;
    mb_tokenizer *tokenizer = open_folder(FIXTURES "bpe");
    const char *text = "a<|im_end|>b";
    int32_t *ids = NULL, end = mb_tokenizer_id(tokenizer, "<|im_end|>");
    size_t n = 0, length = 0;
    char *back = NULL;
    mb_error err = {0};
    assert_int_equal(end, 658);
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, strlen(text), false, &ids, &n, &err), MB_OK);
    for (size_t i = 0; i < n; i++)
        assert_true(ids[i] < 656);
    assert_int_equal(mb_tokenizer_decode(tokenizer, ids, n, true, &back, &length, &err), MB_OK);
    assert_string_equal(back, text);
    free(back);
    free(ids);
    /* Special ones are dropped on request, other added tokens never; unknown ids stand for nothing. */
    check_text(tokenizer, (const int32_t[]){657, 659, 658, 700000}, 4, true, "<tool_call>");
    assert_int_equal(mb_tokenizer_id(tokenizer, "no such token"), -1);
    assert_int_equal(mb_tokenizer_id(tokenizer, ""), -1);
    assert_true(mb_tokenizer_id(tokenizer, "\n") >= 0);
    mb_tokenizer_close(tokenizer);
}

static void zero_bytes_survive(void **state)
{
    (void)state;
    mb_tokenizer *tokenizer = open_folder(FIXTURES "bpe");
    const char text[] = "nul\0byte";
    int32_t *ids = NULL;
    size_t n = 0, length = 0;
    char *back = NULL;
    mb_error err = {0};
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, 8, true, &ids, &n, &err), MB_OK);
    assert_int_equal(mb_tokenizer_decode(tokenizer, ids, n, false, &back, &length, &err), MB_OK);
    assert_int_equal(length, 8);
    assert_memory_equal(back, text, 9);
    free(back);
    free(ids);
    mb_tokenizer_close(tokenizer);
}

/* Texts on which a quadratic step would take minutes; they must come back as they went in. */
static void long_runs(void **state)
{
    (void)state;
    static const char *const units[] = {"a", " ", " \n", "ab", "\u0301\u0316", "\u0f73", "!", "\u4f60", "x y"};
    mb_tokenizer *tokenizer = open_folder(FIXTURES "bpe");
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        mb_text text = {0};
        int32_t *ids = NULL;
        size_t n = 0, length = 0;
        char *back = NULL;
        mb_error err = {0};
        while (text.length < 1000000)
            mb_text_puts(&text, units[u]);
        assert_int_equal(mb_tokenizer_encode(tokenizer, text.data, text.length, true, &ids, &n, &err), MB_OK);
        assert_int_equal(mb_tokenizer_decode(tokenizer, ids, n, false, &back, &length, &err), MB_OK);
        if ((unsigned char)units[u][0] < 0x80 || (unsigned char)units[u][0] == 0xe4) { /* NFC leaves these alone */
            assert_int_equal(length, text.length);
            assert_memory_equal(back, text.data, length);
        }
        free(back);
        free(ids);
        mb_text_free(&text);
    }
    mb_tokenizer_close(tokenizer);
}

static void *encode_in_thread(void *tokenizer)
{
    for (int round = 0; round < 50; round++) {
        int32_t *ids = NULL;
        size_t n = 0;
        mb_error err = {0};
        const char *text = "Hello world, I'm here: 1 2 3 <|im_end|> 你好";
        if (mb_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &n, &err) != MB_OK || n < 10)
            return "failed";
        free(ids);
    }
    return NULL;
}

static void threads_share_one(void **state)
{
    (void)state;
    mb_tokenizer *tokenizer = open_folder(FIXTURES "bpe");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_in_thread, tokenizer), 0);
    for (int i = 0; i < 4; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    mb_tokenizer_close(tokenizer);
}

/* ---- damaged files ---- */

/* The fixture's tokenizer.json with the first `from` replaced by `to`. */
static char *edited(const char *from, const char *to)
{
    char *text = NULL;
    mb_error err = {0};
    size_t size = 0;
    assert_int_equal(mb_file_read(FIXTURES "bpe/tokenizer.json", 1 << 24, &text, &size, &err), MB_OK);
    char *at = strstr(text, from);
    assert_non_null(at);
    char *result = mb_string_format("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    free(text);
    return result;
}

static void damaged_files(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"{", "{{", "not valid JSON"},
        {"\"type\":\"NFC\"", "\"type\":\"NFKC\"", "normalizer"},
        {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "not BPE"},
        {"\"byte_fallback\":false", "\"byte_fallback\":true", "U+2581 for a space"},
        {"\"dropout\":null", "\"dropout\":0.1", "dropout"},
        {"\"behavior\":\"Isolated\"", "\"behavior\":\"Removed\"", "pre_tokenizer"},
        {"\"Regex\":\"", "\"Regex\":\"(", "not closed"},
        {"\"Regex\":\"", "\"Regex\":\"+|", "does not compile"},
        {"\"Regex\":\"", "\"Regex\":\"^a|", "^ or $"},
        {"\"Regex\":\"", "\"Regex\":\"\\\\p{N}{1,3}+|", "second repetition"},
        {"\"Regex\":\"", "\"Regex\":\"\\\\p{Han}|", "no general category"},
        {"\"Regex\":\"", "\"Regex\":\"\\\\w|", "backslash"},
        {"\"Regex\":\"", "\"Regex\":\"[a[b]]|", "a class inside a class"},
        {"\"Regex\":\"", "\"Regex\":\"[a&&b]|", "&&"},
        {"\"Regex\":\"", "\"Regex\":\"[^ä]|", "beyond ASCII"},
        {"\"Regex\":\"", "\"Regex\":\"(?x)a|", "an option or a group"},
        {"\"Regex\":\"", "\"Regex\":\"(?i:st)|", "(?i:"},
        {"\"!\":0,", "", "byte 33"},
        {"\"!\":0,", "\"!\":1,", "used twice"},
        {"\"!\":0,", "\"!\":-1,", "whole number"},
        {"\"!\":0,", "\"!\":1.5,", "whole number"},
        {"\"!\":0,", "\"!\":1e300,", "whole number"},
        {"\"!\":0,", "\"!\":99999999,", "outside"},
        {"\"merges\":[", "\"merges\":[[\"!\",\"\\u4f60\"],", "vocabulary lacks"},
        {"\"merges\":[", "\"merges\":[\"! ! !\",", "one space"},
        {"\"merges\":[", "\"merges\":[7,", "merge 1"},
        {"\"merges\":[", "\"merges\":[[\"Ġ\",\"Ġ\"],[\"Ġ\",\"Ġ\"],", "twice"},
        {"\"id\":656", "\"id\":3", "vocabulary gives to another"},
        {"\"id\":656", "\"id\":657", "contradicts"},
        {"\"id\":656", "\"id\":null", "no id"},
        {"\"content\":\"<|endoftext|>\"", "\"content\":\"\"", "empty"},
        {"\"lstrip\":false", "\"lstrip\":true", "lstrip"},
        {"\"post_processor\":{\"type\":\"ByteLevel\"", "\"post_processor\":{\"type\":\"TemplateProcessing\"",
         "adds tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *folder = folder_new(), *text = edited(cases[i].from, cases[i].to);
        mb_error err = {0};
        mb_tokenizer *tokenizer = NULL;
        folder_put_text(folder, "tokenizer.json", text);
        int rc = mb_tokenizer_open(&tokenizer, folder, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].says) || !strstr(err.text, folder))
            fail_msg("case %zu: rc %d, \"%s\", expected \"%s\"", i, rc, err.text, cases[i].says);
        assert_null(tokenizer);
        folder_remove(folder);
        free(folder);
        free(text);
    }
}

static void missing_and_contradicting_files(void **state)
{
    (void)state;
    char *folder = folder_new();
    mb_error err = {0};
    mb_tokenizer *tokenizer = NULL;
    assert_int_equal(mb_tokenizer_open(&tokenizer, folder, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "neither tokenizer.json nor vocab.json"));
    folder_copy(folder, "vocab.json", FIXTURES "bpe_pair/vocab.json");
    assert_int_equal(mb_tokenizer_open(&tokenizer, folder, &err), MB_E_INPUT);
    folder_copy(folder, "merges.txt", FIXTURES "bpe_pair/merges.txt");
    folder_put_text(folder, "added_tokens.json", "{\"<|end|>\": 5}");
    assert_int_equal(mb_tokenizer_open(&tokenizer, folder, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "another token"));
    folder_put_text(folder, "added_tokens.json", "{\"<|end|>\": 9000}"); /* gaps in the numbering are legal */
    assert_int_equal(mb_tokenizer_open(&tokenizer, folder, &err), MB_OK);
    assert_int_equal(mb_tokenizer_id(tokenizer, "<|end|>"), 9000);
    check_text(tokenizer, (const int32_t[]){9000, 8000}, 2, true, "<|end|>");
    mb_tokenizer_close(tokenizer);
    folder_remove(folder);
    free(folder);
}

/* Published vectors of Qwen2.5's tokenizer; its mask token is absent from other releases, so the token is added
 * here the way such a checkpoint does. */
static void qwen_vectors(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int32_t ids[40];
    } vectors[] = {
        {"Hello world", {9707, 1879}},
        {" Hello world", {21927, 1879}},
        {"I'm can'T don't WE'RE", {40, 2776, 646, 17323, 1513, 944, 19677, 94153}},
        {"  two  spaces\n\n\nx \n y\t\tz ", {220, 1378, 220, 12621, 1406, 87, 715, 379, 197, 20832, 220}},
        {"1234567 3.14", {16, 17, 18, 19, 20, 21, 22, 220, 18, 13, 16, 19}},
        {"e\u0301 \u00e9", {963, 3958}},
        {"\u4f60\u597d\uff0c\u4e16\u754c\uff01", {108386, 3837, 99489, 6313}},
        {"\U0001f600\U0001f44d\U0001f3fd", {141334, 144349, 145375}},
        {"a\r\nb\r\n\r\n", {64, 319, 65, 871}},
        {"x = foo(bar)[0];  // c\n", {87, 284, 15229, 54630, 6620, 15, 5265, 220, 442, 272, 198}},
        {"\u00a0nbsp\u3000ideographic", {4102, 5674, 22441, 94007}},
        {"<|im_start|>user\nhi<|im_end|>\n|<MASK>|", {151644, 872, 198, 6023, 151645, 198, 151665}},
        {"\ufb01 \u00bd \u2163 \u00b2", {144300, 220, 26062, 220, 70467, 96, 220, 29456}},
        {"\u1e9b\u0323", {149616, 136, 96}},
        {"\u0130stanbul \u017ftra\u00dfe", {47780, 45116, 25917, 123, 2172, 23455}},
        {"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nGive me a short "
         "introduction to large language model.<|im_end|>\n<|im_start|>assistant\n",
         {151644, 8948, 198,  2610,  525, 264,  10950, 17847, 13, 151645, 198, 151644, 872,   198, 35127,
          752,    264,  2805, 16800, 311, 3460, 4128,  1614,  13, 151645, 198, 151644, 77091, 198}},
    };
    const char *path = getenv("MASKBENCH_QWEN_TOKENIZER");
    if (!path) {
        print_message("MASKBENCH_QWEN_TOKENIZER is not set: the vectors of the real tokenizer are skipped\n");
        skip();
    }
    char *folder = folder_new();
    folder_copy(folder, "tokenizer.json", path);
    mb_tokenizer *tokenizer = open_folder(folder);
    bool has_mask = mb_tokenizer_id(tokenizer, "|<MASK>|") == 151665;
    if (!has_mask && mb_tokenizer_id(tokenizer, "<tool_response>") < 0) { /* Qwen2.5's file: 151665 is free */
        mb_tokenizer_close(tokenizer);
        folder_put_text(folder, "added_tokens.json", "{\"|<MASK>|\": 151665}");
        tokenizer = open_folder(folder);
        has_mask = true;
    }
    size_t checked = 0;
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        size_t n = 0, length = strlen(vectors[i].text);
        while (n < 40 && vectors[i].ids[n])
            n++;
        if (!has_mask && strstr(vectors[i].text, "|<MASK>|")) { /* Qwen3: 151665 means something else there */
            length -= strlen("|<MASK>|");
            n--;
        }
        check_ids(tokenizer, vectors[i].text, length, vectors[i].ids, n);
        checked++;
    }
    print_message("%zu vectors of %s\n", checked, path);
    mb_tokenizer_close(tokenizer);
    folder_remove(folder);
    free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_ids),
        cmocka_unit_test(golden_ids_of_pair),
        cmocka_unit_test(invalid_utf8),
        cmocka_unit_test(special_off_is_plain_text),
        cmocka_unit_test(zero_bytes_survive),
        cmocka_unit_test(long_runs),
        cmocka_unit_test(threads_share_one),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(missing_and_contradicting_files),
        cmocka_unit_test(qwen_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
