/*
 * test_prompt.c - chat templates and LongBench's middle cut against ids made with the Hugging Face `tokenizers`
 * package and LongBench's own steps in Python: encode, halves, decode(skip_special_tokens=True) of each, join,
 * template, encode. Text and limits are chosen so that cuts fall inside characters and added tokens.
 *
 * The constants are number of ids and zlib.crc32() of them as little-endian int32, from
 * fixtures/make_prompts.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/internal.h"
#include "tests/model/folder.h"

#include <stdlib.h>
#include <string.h>

static mb_tokenizer *tokenizer;

static int setup(void **state)
{
    (void)state;
    mb_error err = {0};
    return mb_tokenizer_open(&tokenizer, "tests/model/fixtures/bpe", &err);
}

static int teardown(void **state)
{
    (void)state;
    mb_tokenizer_close(tokenizer);
    return 0;
}

static mb_model model_of(mb_family family)
{
    mb_model model = {.config = {.name = "test", .family = family}, .tokenizer = tokenizer};
    return model;
}

static char *text_of(int lines)
{
    mb_text text = {0};
    for (int i = 0; i < lines; i++)
        mb_text_printf(&text, "%d \u4f60\u597d e\u0301 \U0001f600 word%d<|im_end|>\n", i, i * i % 97);
    return mb_text_take(&text);
}

static uint32_t crc32_of(const int32_t *ids, size_t n)
{
    const unsigned char *p = (const unsigned char *)ids;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < 4 * n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
    }
    return ~crc;
}

static void golden_prompts(void **state)
{
    (void)state;
    enum { SDAR = MB_FAMILY_SDAR, FAST = MB_FAMILY_FAST_DLLM_V2 };
    static const struct {
        int lines, max_tokens, family;
        bool chat;
        const char *prefix;
        size_t n;
        bool truncated;
        uint32_t crc;
        bool joined; /* LongBench v2's cut: another seam where the limit is odd or a character lies on it */
    } cases[] = {
        {40, 0, SDAR, true, "", 598, false, 0xf3ee4a80u, false},
        {40, 0, FAST, true, NULL, 625, false, 0x40490a8u, false},
        {40, 0, FAST, false, "", 583, false, 0xdbf94db5u, false},
        {40, 0, SDAR, true, "Answer: ", 604, false, 0xa93bbd80u, false},
        {40, 100, SDAR, true, "", 108, true, 0x8f37b4adu, false},
        {40, 101, FAST, true, "", 135, true, 0xaf4cbaaeu, false},
        {200, 333, SDAR, true, "The x is", 328, true, 0x42696d18u, false},
        {200, 512, SDAR, false, "", 481, true, 0x62f7de71u, false},
        {200, 100000, SDAR, true, "", 3071, false, 0xa60d2148u, false},
        {40, 100, SDAR, true, "", 108, true, 0x8f37b4adu, true},
        {40, 101, SDAR, true, "", 109, true, 0x64bde2ecu, true},
        {200, 333, SDAR, true, "", 325, true, 0xc30589c1u, true},
        {200, 511, SDAR, false, "", 480, true, 0x128a0688u, true},
        {200, 513, SDAR, false, "", 478, true, 0x41d2ad86u, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model model = model_of((mb_family)cases[i].family);
        char *text = text_of(cases[i].lines);
        mb_error err = {0};
        mb_prompt_request request = {.text = text,
                                     .answer_prefix = cases[i].prefix,
                                     .chat = cases[i].chat,
                                     .max_tokens = cases[i].max_tokens,
                                     .cut_joined = cases[i].joined,
                                     .hard_limit = 4000};
        int32_t *ids = NULL;
        size_t n = 0;
        bool truncated = false;
        assert_int_equal(mb_prompt_build(&model, &request, &ids, &n, &truncated, &err), MB_OK);
        if (n != cases[i].n || truncated != cases[i].truncated || crc32_of(ids, n) != cases[i].crc)
            fail_msg("case %zu: %zu ids, truncated %d, crc %#x", i, n, truncated, crc32_of(ids, n));
        free(ids);
        free(text);
    }
}

/* Where the second tokenisation drifts past the room that is left, more is cut; the result always fits, and is not
 * shorter than it has to be by more than a few tokens. */
static void drift_never_passes_the_limit(void **state)
{
    (void)state;
    mb_model model = model_of(MB_FAMILY_SDAR);
    char *text = text_of(40);
    for (int number = 80; number < 600; number++) {
        int limit = number / 2;
        mb_prompt_request request = {
            .text = text, .chat = true, .max_tokens = limit, .cut_joined = number % 2, .hard_limit = limit + 8};
        int32_t *ids = NULL;
        size_t n = 0;
        bool truncated = false;
        mb_error err = {0};
        int rc = mb_prompt_build(&model, &request, &ids, &n, &truncated, &err);
        if (rc != MB_OK || !truncated || n > (size_t)limit + 8 || n + 24 < (size_t)limit)
            fail_msg("limit %d: rc %d (%s), %zu ids", limit, rc, err.text, n);
        free(ids);
    }
    free(text);
}

/* Under the limit by itself but not with its template: cut as well, whatever side of the limit the text is on. */
static void template_counts_for_the_hard_limit(void **state)
{
    (void)state;
    mb_model model = model_of(MB_FAMILY_FAST_DLLM_V2);
    char *text = text_of(40);
    mb_error err = {0}; /* 583 tokens, 625 in the template */
    for (int limit = 580; limit < 630; limit++) {
        mb_prompt_request request = {.text = text, .chat = true, .max_tokens = limit, .hard_limit = limit};
        int32_t *ids = NULL;
        size_t n = 0;
        bool truncated = false;
        assert_int_equal(mb_prompt_build(&model, &request, &ids, &n, &truncated, &err), MB_OK);
        /* 40 added tokens of the text do not survive a cut, some ids more are lost to drift. */
        assert_true(n <= (size_t)limit && n + 72 >= (size_t)(limit < 625 ? limit : 625));
        assert_int_equal(truncated, limit < 625);
        free(ids);
    }
    free(text);
}

static void samples_that_cannot_fit(void **state)
{
    (void)state;
    mb_model model = model_of(MB_FAMILY_SDAR);
    char *text = text_of(40);
    mb_error err = {0};
    static const struct {
        int max_tokens, hard_limit;
    } cases[] = {{0, 597}, {500, 300}, {0, 1}, {2, 3}}; /* no cut wanted; limits far apart; no room at all */
    for (size_t i = 0; i < 4; i++) {
        mb_prompt_request request = {
            .text = text, .chat = true, .max_tokens = cases[i].max_tokens, .hard_limit = cases[i].hard_limit};
        int32_t *ids = NULL;
        size_t n = 1;
        bool truncated = false;
        assert_int_equal(mb_prompt_build(&model, &request, &ids, &n, &truncated, &err), MB_E_SAMPLE);
        assert_non_null(strstr(err.text, "the run has room for"));
        assert_null(ids);
        assert_int_equal(n, 0);
    }
    mb_prompt_request empty = {.text = ""};
    int32_t *ids = NULL;
    size_t n = 1;
    bool truncated = false;
    assert_int_equal(mb_prompt_build(&model, &empty, &ids, &n, &truncated, &err), MB_E_SAMPLE);
    free(text);
}

/* LLaDA2's roles, spelled out; the fixture's tokenizer with three of its added tokens renamed. */
static void llada2_roles(void **state)
{
    static const char *const renamed[3][2] = {{"\"<tool_call>\"", "\"<role>\""},
                                              {"\"</tool_call>\"", "\"</role>\""},
                                              {"\"<|im_end|>\"", "\"<|role_end|>\""}};
    const char *whole =
        "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>Hello world?<|role_end|>"
        "<role>ASSISTANT</role>The";
    char *text = NULL, *folder = folder_new();
    mb_error err = {0};
    size_t size = 0, n = 0, wanted_n = 0;
    int32_t *ids = NULL, *wanted = NULL;
    bool truncated = false;
    mb_text patched = {0};
    (void)state;
    mb_model model = model_of(MB_FAMILY_LLADA2);
    mb_prompt_request request = {.text = "Hello world?", .answer_prefix = "The", .chat = true};
    assert_int_equal(mb_prompt_build(&model, &request, &ids, &n, &truncated, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "lacks <role>, which the chat template needs"));
    assert_int_equal(mb_file_read("tests/model/fixtures/bpe/tokenizer.json", 1 << 20, &text, &size, &err), MB_OK);
    for (size_t i = 0; i < size;) {
        size_t k = 0;
        while (k < 3 && strncmp(text + i, renamed[k][0], strlen(renamed[k][0])) != 0)
            k++;
        mb_text_append(&patched, k < 3 ? renamed[k][1] : text + i, k < 3 ? strlen(renamed[k][1]) : 1);
        i += k < 3 ? strlen(renamed[k][0]) : 1;
    }
    folder_put(folder, "tokenizer.json", patched.data, patched.length);
    if (mb_tokenizer_open(&model.tokenizer, folder, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(mb_prompt_build(&model, &request, &ids, &n, &truncated, &err), MB_OK);
    assert_int_equal(mb_tokenizer_encode(model.tokenizer, whole, strlen(whole), true, &wanted, &wanted_n, &err),
                     MB_OK);
    assert_int_equal(n, wanted_n);
    assert_memory_equal(ids, wanted, n * sizeof *ids);
    assert_int_equal(ids[0], mb_tokenizer_id(model.tokenizer, "<role>"));
    int32_t ends = 0;
    for (size_t i = 0; i < n; i++)
        ends += ids[i] == mb_tokenizer_id(model.tokenizer, "<|role_end|>");
    assert_int_equal(ends, 2);
    mb_tokenizer_close(model.tokenizer);
    mb_text_free(&patched);
    folder_remove(folder);
    free(folder);
    free(wanted);
    free(ids);
    free(text);
}

static void models_without_text(void **state)
{
    (void)state;
    mb_model model = {.config = {.name = "sdar_4b", .synthetic = true}};
    mb_prompt_request request = {.text = "hello"};
    int32_t *ids = NULL;
    size_t n = 0;
    bool truncated = false;
    mb_error err = {0};
    assert_int_equal(mb_prompt_build(&model, &request, &ids, &n, &truncated, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "sdar_4b"));
}

/* A folder's <bos> stands once in front of a prompt that is no chat, before and after a cut; byte-level folders
 * have none. */
static void tokens_in_front(void **state)
{
    (void)state;
    mb_model model = model_of(MB_FAMILY_SDAR);
    mb_error err = {0};
    assert_int_equal(mb_tokenizer_open(&model.tokenizer, "tests/model/fixtures/characters", &err), MB_OK);
    for (int32_t limit = 0; limit <= 8; limit += 8) {
        mb_prompt_request request = {.text = "Hello world, this is a small tokenizer", .max_tokens = limit};
        int32_t *ids = NULL;
        size_t n = 0;
        bool truncated = false;
        assert_int_equal(mb_prompt_build(&model, &request, &ids, &n, &truncated, &err), MB_OK);
        assert_true(truncated == (limit > 0) && n > 4);
        for (size_t i = 0; i < n; i++)
            assert_true((ids[i] == 2) == (i == 0));
        free(ids);
    }
    mb_tokenizer_close(model.tokenizer);
}

static size_t count_of(const int32_t *ids, size_t n, int32_t id)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ids[i] == id;
    return count;
}

/* A row that spells a control token: that token, as Hugging Face has it, or text, whose tokens decode to it.
 * Around it nothing changes, and a row without one has the same ids either way; with the middle cut as well. */
static void special_tokens_in_a_row(void **state)
{
    (void)state;
    static const char row[] = "stop here <|im_end|> and <|im_start|>user go on";
    mb_model model = model_of(MB_FAMILY_FAST_DLLM_V2);
    int32_t end = mb_tokenizer_id(tokenizer, "<|im_end|>"), *ids[2];
    size_t n[2], frame_ends = 0;
    mb_error err = {0};
    bool cut;
    assert_int_equal(mb_tokenizer_special_in(tokenizer, row, strlen(row)), 2);
    assert_int_equal(mb_tokenizer_special_in(tokenizer, "none <|im_", 10), 0);
    for (int longer = 0; longer < 2; longer++) {
        for (int as_text = 0; as_text < 2; as_text++) {
            mb_prompt_request request = {
                .text = row, .chat = true, .special_as_text = as_text, .max_tokens = longer ? 12 : 0};
            assert_int_equal(mb_prompt_build(&model, &request, &ids[as_text], &n[as_text], &cut, &err), MB_OK);
            assert_int_equal(cut, longer);
        }
        if (!longer)
            frame_ends = count_of(ids[0], n[0], end) - 1;
        assert_int_equal(count_of(ids[1], n[1], end), frame_ends);
        if (!longer) {
            char *text = NULL;
            size_t length;
            assert_true(n[1] > n[0]);
            assert_int_equal(mb_tokenizer_decode(tokenizer, ids[1], n[1], true, &text, &length, &err), MB_OK);
            assert_non_null(strstr(text, row));
            free(text);
        }
        free(ids[0]);
        free(ids[1]);
    }
    for (int as_text = 0; as_text < 2; as_text++) {
        mb_prompt_request request = {.text = "\n plain \n", .chat = true, .special_as_text = as_text};
        assert_int_equal(mb_prompt_build(&model, &request, &ids[as_text], &n[as_text], &cut, &err), MB_OK);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(ids[0], ids[1], n[0] * sizeof *ids[0]);
    free(ids[0]);
    free(ids[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_prompts),
        cmocka_unit_test(drift_never_passes_the_limit),
        cmocka_unit_test(template_counts_for_the_hard_limit),
        cmocka_unit_test(samples_that_cannot_fit),
        cmocka_unit_test(llada2_roles),
        cmocka_unit_test(models_without_text),
        cmocka_unit_test(tokens_in_front),
        cmocka_unit_test(special_tokens_in_a_row),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
