/*
 * test_utf8.c - UTF-8 and JSON strings of base/: the maximal subparts of Unicode's own table, and what Python 3's
 * json.dumps(text, ensure_ascii=False) writes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/base.h"

static void check_repair(const char *bytes, const char *wanted)
{
    mb_text text = {0};
    mb_text_append(&text, "", 0);
    mb_utf8_repair(&text, bytes, strlen(bytes));
    assert_string_equal(text.data, wanted);
    mb_text_free(&text);
}

#define BAD "\xef\xbf\xbd"

static void broken_sequences(void **state)
{
    (void)state;
    /* The Unicode Standard, tables 3-8 to 3-11: overlong forms, surrogates, out of range, truncated. */
    check_repair("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", BAD BAD BAD BAD BAD BAD BAD BAD "A");
    check_repair("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", BAD BAD BAD BAD BAD BAD BAD BAD "A");
    check_repair("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", BAD BAD BAD BAD BAD "A" BAD BAD "B");
    check_repair("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", BAD BAD BAD BAD "A");
    check_repair("a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80", "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80");
}

/* Every code point, written by hand, is read back; every surrogate is refused. */
static void all_characters(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char bytes[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        uint32_t back = 0;
        for (size_t i = 0; i < n; i++)
            bytes[i] = (char)(0x80 | (c >> (6 * (n - 1 - i)) & 0x3f));
        if (n == 1)
            bytes[0] = (char)c;
        else
            bytes[0] = (char)((0xf00 >> n & 0xff) | c >> (6 * (n - 1)));
        bool surrogate = c >= 0xd800 && c <= 0xdfff;
        size_t used = mb_utf8_next(bytes, n, &back), offset = 9;
        assert_int_equal(back, surrogate ? MB_UTF8_INVALID : c);
        assert_true(surrogate || used == n);
        assert_int_equal(mb_utf8_check(bytes, n, &offset), !surrogate);
        assert_int_equal(offset, surrogate ? 0 : 9);
    }
}

static void json_strings(void **state)
{
    mb_text text = {0};
    (void)state;
    mb_text_json(&text, "a \"q\" \\ \n\r\t\b\f\x01\x1f\x7f \xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80 \xe2\x80\xa8 /");
    assert_string_equal(text.data, "a \\\"q\\\" \\\\ \\n\\r\\t\\b\\f\\u0001\\u001f\x7f \xc3\xa9 \xe4\xb8\xad "
                                   "\xf0\x9f\x98\x80 \xe2\x80\xa8 /");
    mb_text_clear(&text);
    mb_text_json(&text, "cut \xe4\xb8"); /* a generation that ends inside a character */
    assert_string_equal(text.data, "cut " BAD);
    mb_text_clear(&text);
    mb_text_json(&text, "a\xC0\x80"
                        "b\xED\xA0\xBD"); /* byte 0 and half of a surrogate pair */
    assert_string_equal(text.data, "a\\u0000b\\ud83d");
    mb_text_clear(&text);
    mb_text_json(&text, "");
    assert_int_equal(text.length, 0);
    mb_text_free(&text);
}

/* Bytes to a C string and back: nothing is lost, whatever they are. */
static void byte_zero(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *spelled;
    } cases[] = {{"", 0, ""},
                 {"a", 1, "a"},
                 {"\0", 1, "\xC0\x80"},
                 {"a\0\0b", 4,
                  "a\xC0\x80\xC0\x80"
                  "b"},
                 {"ab\0", 3, "ab\xC0\x80"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_text text = {0}, back = {0};
        mb_text_spell(&text, cases[i].bytes, cases[i].n);
        assert_string_equal(text.data ? text.data : "", cases[i].spelled);
        mb_text_unspell(&back, text.data ? text.data : "");
        assert_int_equal(back.length, cases[i].n);
        assert_true(cases[i].n == 0 || memcmp(back.data, cases[i].bytes, cases[i].n) == 0);
        mb_text_free(&text);
        mb_text_free(&back);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_sequences),
        cmocka_unit_test(all_characters),
        cmocka_unit_test(json_strings),
        cmocka_unit_test(byte_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
