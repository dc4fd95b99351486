/*
 * test_tokenizer_folders.c - folders of tokenizer files as transformers reads them: added_tokens.json of another
 * age, tokens that are special by flag or by role, post processors that add nothing, byte 0 in a token, added
 * tokens that are looked for in normalised text. Every wanted value was seen with transformers 4.57.1 and 5.24.0;
 * where the two differ (additional_special_tokens) the older one counts, which the families' code runs on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/model.h"
#include "tests/model/folder.h"

#include <time.h>

#define FIXTURES "tests/model/fixtures/"
#define ADDED "\"added_tokens\":["
/* Two more added tokens for tokenizer.json, 663 and 664, as files of people have them: no flag. */
#define PLAIN(id, content, normalized)                                                                            \
    "{\"id\":" #id ",\"content\":\"" content "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"        \
    "\"normalized\":" normalized ",\"special\":false},"
#define DECODER(id, content, special)                                                                             \
    "\"" #id "\":{\"content\":\"" content "\",\"lstrip\":false,\"rstrip\":false,\"single_word\":false,"           \
    "\"normalized\":false,\"special\":" special "}"

typedef struct {
    char *path;
    mb_tokenizer *tokenizer;
} folder;

/* The fixture's tokenizer.json with `from` (NULL: nothing) replaced by `to`. */
static char *edited(const char *from, const char *to)
{
    char *text = NULL;
    size_t size = 0;
    assert_int_equal(mb_file_read(FIXTURES "bpe/tokenizer.json", 1 << 24, &text, &size, NULL), MB_OK);
    if (!from)
        return text;
    char *at = strstr(text, from);
    assert_non_null(at);
    char *result = mb_string_format("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    free(text);
    return result;
}

static folder new_folder(const char *from, const char *to)
{
    folder f = {.path = folder_new()};
    char *text = edited(from, to);
    folder_put_text(f.path, "tokenizer.json", text);
    free(text);
    return f;
}

static void open_it(folder *f)
{
    mb_error err = {0};
    if (mb_tokenizer_open(&f->tokenizer, f->path, &err) != MB_OK)
        fail_msg("%s", err.text);
}

static void done(folder *f)
{
    mb_tokenizer_close(f->tokenizer);
    folder_remove(f->path);
    free(f->path);
}

/* Ids of the text, and the text that is left of them without special tokens. */
static void check(const folder *f, const char *text, size_t length, const char *want_ids, const char *want)
{
    int32_t *ids = NULL;
    size_t n = 0, back_n = 0;
    char *back = NULL;
    mb_text list = {0};
    assert_int_equal(mb_tokenizer_encode(f->tokenizer, text, length, true, &ids, &n, NULL), MB_OK);
    for (size_t i = 0; i < n; i++)
        mb_text_printf(&list, i ? " %d" : "%d", ids[i]);
    if (strcmp(list.data, want_ids) != 0)
        fail_msg("ids of \"%s\": %s, expected %s", text, list.data, want_ids);
    assert_int_equal(mb_tokenizer_decode(f->tokenizer, ids, n, true, &back, &back_n, NULL), MB_OK);
    if (back_n != strlen(want) || memcmp(back, want, back_n) != 0)
        fail_msg("left of \"%s\": \"%s\", expected \"%s\"", text, back, want);
    free(back);
    free(ids);
    mb_text_free(&list);
}

static const char two[] = ADDED PLAIN(663, "<M>", "false") PLAIN(664, "<X>", "false");
static const char text[] = "a<M>b<|im_end|>c<X>";
static const char two_ids[] = "64 663 65 658 66 664";

static void special_by_flag_or_role(void **state)
{
    (void)state;
    static const struct {
        const char *config, *map, *left;
    } cases[] = {
        {"{}", NULL, "a<M>bc<X>"},
        {"{\"mask_token\":\"<M>\"}", NULL, "abc<X>"},
        {"{\"mask_token\":{\"content\":\"<M>\"}}", NULL, "abc<X>"},
        {"{\"sep_token\":\"<M>\",\"cls_token\":\"<X>\"}", NULL, "abc"},
        {"{\"mask_token\":\"<M>\",\"added_tokens_decoder\":{" DECODER(663, "<M>", "false") "}}", NULL, "abc<X>"},
        {"{\"added_tokens_decoder\":{" DECODER(663, "<M>", "true") "}}", NULL, "abc<X>"},
        {"{\"additional_special_tokens\":[\"<X>\"]}", NULL, "a<M>bc"},
        {"{\"additional_special_tokens\":[{\"content\":\"<X>\"}]}", NULL, "a<M>bc"},
        {"{\"eos_token\":\"a\"}", NULL, "<M>bc<X>"}, /* a token of the vocabulary */
        {"{\"eos_token\":\"no such token\",\"pad_token\":null}", NULL, "a<M>bc<X>"},
        {"{}", "{\"mask_token\":\"<M>\"}", "abc<X>"},
        {"{\"added_tokens_decoder\":{" DECODER(663, "<M>", "false") "}}", "{\"mask_token\":\"<M>\"}", "a<M>bc<X>"},
        {NULL, "{\"mask_token\":\"<M>\"}", "abc<X>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        folder f = new_folder(ADDED, two);
        if (cases[i].config)
            folder_put_text(f.path, "tokenizer_config.json", cases[i].config);
        if (cases[i].map)
            folder_put_text(f.path, "special_tokens_map.json", cases[i].map);
        open_it(&f);
        print_message("case %zu\n", i);
        check(&f, text, strlen(text), two_ids, cases[i].left);
        done(&f);
    }
}

static void added_tokens_of_another_age(void **state)
{
    (void)state;
    static const char old[] = "{\"<Q>\": 663, \"<X>\": 700, \"<|im_end|>\": 658}";
    static const char config[] =
        "{\"added_tokens_decoder\":{" DECODER(663, "<M>", "false") "," DECODER(664, "<X>", "false") "}}";
    folder f = new_folder(ADDED, two);
    folder_put_text(f.path, "added_tokens.json", old);
    open_it(&f); /* tokenizer.json wins */
    check(&f, text, strlen(text), two_ids, "a<M>bc<X>");
    assert_int_equal(mb_tokenizer_id(f.tokenizer, "<Q>"), -1);
    mb_tokenizer_close(f.tokenizer);
    folder_put_text(f.path, "tokenizer_config.json", config);
    open_it(&f); /* not looked at */
    check(&f, text, strlen(text), two_ids, "a<M>bc<X>");
    mb_tokenizer_close(f.tokenizer);
    folder_put_text(f.path, "added_tokens.json", "no JSON at all");
    open_it(&f);
    done(&f);
    /* The older layout: without the entry the file counts, with it it does not. */
    f = (folder){.path = folder_new()};
    folder_copy(f.path, "vocab.json", FIXTURES "bpe_pair/vocab.json");
    folder_copy(f.path, "merges.txt", FIXTURES "bpe_pair/merges.txt");
    folder_put_text(f.path, "added_tokens.json", "{\"<Q>\": 663, \"<X>\": 664}");
    folder_put_text(f.path, "tokenizer_config.json", "{\"mask_token\":\"<X>\"}");
    open_it(&f);
    check(&f, "a<Q><X>", 7, "64 663 664", "a<Q>");
    mb_tokenizer_close(f.tokenizer);
    folder_put_text(f.path, "tokenizer_config.json", config);
    open_it(&f);
    check(&f, "a<M><X>", 7, "64 663 664", "a<M><X>");
    assert_int_equal(mb_tokenizer_id(f.tokenizer, "<Q>"), -1);
    done(&f);
}

#define POST                                                                                                      \
    "\"post_processor\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":false,\"use_regex\":"  \
    "true}"
#define TEMPLATE(single)                                                                                          \
    "{\"type\":\"TemplateProcessing\",\"single\":[" single                                                        \
    "],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"                                                    \
    "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{}}"
#define SEQUENCE_A "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"
#define SPECIAL_B "{\"SpecialToken\":{\"id\":\"<|endoftext|>\",\"type_id\":0}}"

static void post_processors(void **state)
{
    (void)state;
    static const struct {
        const char *post;
        bool good;
    } cases[] = {
        {"\"post_processor\":null", true},
        {"\"post_processor\":" TEMPLATE(SEQUENCE_A), true},
        {"\"post_processor\":{\"type\":\"Sequence\",\"processors\":[" LEVEL "]}", true},
        {"\"post_processor\":{\"type\":\"Sequence\",\"processors\":[" LEVEL "," TEMPLATE(SEQUENCE_A) "]}", true},
        {"\"post_processor\":{\"type\":\"Sequence\",\"processors\":[]}", true},
        {"\"post_processor\":" TEMPLATE(SPECIAL_B "," SEQUENCE_A), false},
        {"\"post_processor\":" TEMPLATE(SEQUENCE_A "," SPECIAL_B), false},
        {"\"post_processor\":" TEMPLATE(SEQUENCE_A "," SEQUENCE_A), false}, /* the text twice */
        {"\"post_processor\":" TEMPLATE(SPECIAL_B), false},
        {"\"post_processor\":{\"type\":\"Sequence\",\"processors\":[" TEMPLATE(SPECIAL_B "," SEQUENCE_A) "]}",
         false},
        {"\"post_processor\":{\"type\":\"RobertaProcessing\"}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        folder f = new_folder(POST, cases[i].post);
        mb_error err = {0};
        int rc = mb_tokenizer_open(&f.tokenizer, f.path, &err);
        if ((rc == MB_OK) != cases[i].good || (rc != MB_OK && !strstr(err.text, "post_processor adds tokens")))
            fail_msg("case %zu: %d, %s", i, rc, err.text);
        if (rc == MB_OK)
            check(&f, "a<|im_end|>c", 12, "64 658 66", "ac");
        done(&f);
    }
}

/* A token may hold byte 0, in the middle too; JSON spells it \u0000. */
static void byte_zero_in_tokens(void **state)
{
    (void)state;
    folder f = new_folder(ADDED, ADDED PLAIN(663, "<\\u0000>", "false"));
    int32_t *ids = NULL;
    size_t n = 0, length = 0;
    char *back = NULL;
    open_it(&f);
    assert_int_equal(mb_tokenizer_encode(f.tokenizer, "a<\0>b\0", 6, true, &ids, &n, NULL), MB_OK);
    assert_int_equal(n, 4);
    assert_int_equal(ids[1], 663);
    assert_int_equal(mb_tokenizer_decode(f.tokenizer, ids, n, true, &back, &length, NULL), MB_OK);
    assert_int_equal(length, 6);
    assert_memory_equal(back, "a<\0>b\0", 6);
    free(back);
    free(ids);
    done(&f);
    /* In the vocabulary, outside the byte-level alphabet: no merge makes it, but its id stands for its text. */
    f = new_folder("\"vocab\":{", "\"vocab\":{\"\\u0000 x\":663,");
    open_it(&f);
    assert_int_equal(mb_tokenizer_decode(f.tokenizer, (const int32_t[]){663}, 1, true, &back, &length, NULL),
                     MB_OK);
    assert_int_equal(length, 3);
    assert_memory_equal(back, "\0 x", 3);
    free(back);
    done(&f);
}

/* Normalised ones match text that becomes them, behind all others; raw ones match as they stand. */
static void normalized_added_tokens(void **state)
{
    (void)state;
    static const char composed[] = "<\u00e9>", apart[] = "<e\u0301>";
    folder f = new_folder(ADDED, ADDED PLAIN(663, "<\\u00e9>", "true"));
    open_it(&f);
    check(&f, composed, strlen(composed), "663", composed);
    check(&f, apart, strlen(apart), "663", composed);
    done(&f);
    f = new_folder(ADDED, ADDED PLAIN(663, "<e\\u0301>", "true")); /* itself not in NFC */
    open_it(&f);
    check(&f, composed, strlen(composed), "663", apart);
    done(&f);
    f = new_folder(ADDED, ADDED PLAIN(663, "<\\u00e9>", "false"));
    open_it(&f);
    check(&f, composed, strlen(composed), "663", composed);
    assert_int_equal(mb_tokenizer_id(f.tokenizer, composed), 663);
    int32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(mb_tokenizer_encode(f.tokenizer, apart, strlen(apart), true, &ids, &n, NULL), MB_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_not_equal(ids[i], 663);
    free(ids);
    done(&f);
    /* A raw token is found first, although the normalised one begins further left. */
    f = new_folder(ADDED, ADDED PLAIN(663, "ab<X", "true") PLAIN(664, "<X>", "false"));
    open_it(&f);
    check(&f, "ab<X>", 5, "64 65 664", "ab<X>");
    done(&f);
}

/* CPU seconds to open a tokenizer with so many added tokens more, all of which are found. */
static double seconds_to_open(int count)
{
    mb_text list = {0};
    mb_text_puts(&list, ADDED);
    for (int i = 0; i < count; i++)
        mb_text_printf(&list, "{\"id\":%d,\"content\":\"<more %d>\",\"special\":true},", 1000 + i, i);
    folder f = new_folder(ADDED, list.data);
    clock_t begin = clock();
    open_it(&f);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    assert_int_equal(mb_tokenizer_id(f.tokenizer, "<more 0>"), 1000);
    snprintf(list.data, list.length, "<more %d>", count - 1);
    assert_int_equal(mb_tokenizer_id(f.tokenizer, list.data), 999 + count);
    assert_int_equal(mb_tokenizer_id(f.tokenizer, "<more -1>"), -1);
    mb_text_free(&list);
    done(&f);
    return seconds;
}

/* 60,000 took a quarter of a minute when each was compared with all before it: 36 times as long as 10,000. */
static void many_added_tokens(void **state)
{
    (void)state;
    double few = seconds_to_open(10000), many = seconds_to_open(60000);
    if (many > 18 * few + 0.2)
        fail_msg("10000 added tokens take %.3f s, 60000 %.3f s", few, many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_by_flag_or_role), cmocka_unit_test(added_tokens_of_another_age),
        cmocka_unit_test(post_processors),         cmocka_unit_test(byte_zero_in_tokens),
        cmocka_unit_test(normalized_added_tokens), cmocka_unit_test(many_added_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
