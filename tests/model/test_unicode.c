/*
 * test_unicode.c - the tables behind token ids: which version of Unicode they are of, NFC with marks that are
 * younger than the reference's tables, and patterns on codes. check_reference.sh compares all code points with the
 * reference where that is installed; what stands here holds everywhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/unicode.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/unicode.h"

/* Characters that versions disagree about: assigned in 15.1 and 16.0, and in 17.0 only. */
static void categories_are_of_16(void **state)
{
    (void)state;
    static const struct {
        uint32_t c;
        enum mb_category category;
    } cases[] = {
        {'a', MB_LL},     {'Z', MB_LU},      {'7', MB_ND},      {' ', MB_ZS},      {'\n', MB_CC},
        {0x00, MB_CC},    {0xAA, MB_LO},     {0x1C5, MB_LT},    {0x2B0, MB_LM},    {0x301, MB_MN},
        {0x903, MB_MC},   {0x20DD, MB_ME},   {0x2163, MB_NL},   {0xBD, MB_NO},     {0x2028, MB_ZL},
        {0x180E, MB_CF},  {0x4E00, MB_LO},   {0x9FFF, MB_LO},   {0xD7A3, MB_LO},   {0xD7A4, MB_CN},
        {0xD800, MB_CS},  {0xE000, MB_CO},   {0xFFFF, MB_CN},   {0x1D2C0, MB_NO},  {0x31350, MB_LO},
        {0x2EBF0, MB_LO}, {0x10D40, MB_ND},  {0x1C89, MB_LU},   {0x1E5D0, MB_LO},  {0x11DE0, MB_CN},
        {0x3347A, MB_CN}, {0x10FFFF, MB_CN}, {0x10FFFD, MB_CO}, {0x110000, MB_CN}, {UINT32_MAX, MB_CN},
    };
    assert_string_equal(MB_UNICODE_VERSION, "16.0.0");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (mb_unicode_category(cases[i].c) != cases[i].category)
            fail_msg("U+%04X has category %d", (unsigned)cases[i].c, (int)mb_unicode_category(cases[i].c));
    size_t letters = 0, numbers = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        enum mb_category category = mb_unicode_category(c);
        letters += category >= MB_LU && category <= MB_LO;
        numbers += category >= MB_ND && category <= MB_NO;
    }
    assert_int_equal(letters, 141028); /* counted with the reference, tokenizers 0.23.3 */
    assert_int_equal(numbers, 1911);
}

static void lower_case_and_columns(void **state)
{
    (void)state;
    static const uint32_t pairs[][2] = {
        {'A', 'a'},       {'z', 'z'},       {0xC0, 0xE0},       {0xD7, 0xD7},       {0x100, 0x101},
        {0x101, 0x101},   {0x178, 0xFF},    {0x130, 'i'},       {0x1C4, 0x1C6},     {0x1C5, 0x1C6},
        {0x212A, 'k'},    {0x1E9E, 0xDF},   {0x10400, 0x10428}, {0xA7DC, 0x19B},    {0x10D50, 0x10D70},
        {0x13A0, 0xAB70}, {0x13F5, 0x13FD}, {0x16EA0, 0x16EA0}, {0x1D400, 0x1D400}, {0x3A3, 0x3C3}};
    static const uint32_t columns[][2] = {{'a', 1},    {0x301, 0},  {0x4F60, 2}, {0xFF21, 2},  {0x1F600, 2},
                                          {0x200B, 0}, {0xAD, 1},   {0xAC00, 2}, {0x3000, 2},  {0x20000, 2},
                                          {0xE9, 1},   {0x2028, 0}, {0x7F, 0},   {0x3FFFD, 2}, {0x0, 0}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        assert_int_equal(mb_unicode_lower(pairs[i][0]), pairs[i][1]);
    static const uint32_t capitals[][2] = {{'a', 'A'},         {0xE0, 0xC0},   {0xDF, 0xDF},  {0xFF, 0x178},
                                           {0x1C6, 0x1C4},     {0x1C5, 0x1C4}, {0xB5, 0x39C}, {0x19B, 0xA7DC},
                                           {0x10D70, 0x10D50}, {0x131, 'I'}};
    for (size_t i = 0; i < sizeof capitals / sizeof capitals[0]; i++)
        assert_int_equal(mb_unicode_upper(capitals[i][0]), capitals[i][1]);
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        assert_int_equal(mb_unicode_columns(columns[i][0]), columns[i][1]);
}

static void check_nfc(const char *text, const char *want)
{
    mb_text out = {0};
    assert_true(mb_unicode_nfc(&out, text, strlen(text)));
    if (out.length != strlen(want) || memcmp(out.data, want, out.length) != 0)
        fail_msg("NFC of \"%s\" is \"%s\"", text, out.data);
    mb_text_free(&out);
}

static void nfc_is_of_9(void **state)
{
    (void)state;
    assert_string_equal(MB_NFC_VERSION, "9.0.0");
    check_nfc("e\u0301", "\u00e9");
    check_nfc("\u1e9b\u0323", "\u1e9b\u0323");
    check_nfc("q\u0307\u0323", "q\u0323\u0307");           /* order of marks */
    check_nfc("a\u0302\u0301\u0323", "\u1ead\u0301");      /* over a mark of another class */
    check_nfc("\u1f80\u0300", "\u1f82");                   /* four characters, three of them marks */
    check_nfc("\u212b\u2126\uf900", "\u00c5\u03a9\u8c48"); /* stand for one other character */
    check_nfc("\u0958\ufb1d", "\u0915\u093c\u05d9\u05b4"); /* never composed again */
    check_nfc("\u1112\u1161\u11ab\uae00\u11a8", "\ud55c\uae00\u11a8");
    check_nfc("\uac00\u11a8", "\uac01");
    check_nfc("\uac00\u11a7", "\uac00\u11a7"); /* the place before the first trailing consonant */
    check_nfc("\u0301e\u0301", "\u0301\u00e9");
    check_nfc("\u09c7\u0334\u09be", "\u09c7\u0334\u09be"); /* class 0 composes only with its neighbour */
    check_nfc("\u09c7\u09be", "\u09cb");
    /* Marks of 9.0 change places, those of 10.0 and later keep theirs and let nothing pass. */
    check_nfc("a\u1dfb\u0334", "a\u0334\u1dfb");
    check_nfc("a\u1df6\u0334", "a\u1df6\u0334");
    check_nfc("a\u1df6\u0301", "a\u1df6\u0301");
    check_nfc("a\u0301\u0898\u0316", "\u00e1\u0898\u0316");
    check_nfc("\U00011935\U00011930", "\U00011935\U00011930"); /* a pair of 13.0 */
    check_nfc("\U00011938", "\U00011938");
    check_nfc("\U000105d2\u0307", "\U000105d2\u0307"); /* of 16.0 */
}

/* The pieces of a text, joined by "|" (which no text here has). */
static void check_pieces(const char *pattern, const char *text, size_t n, const char *want)
{
    mb_error err = {0};
    pcre2_code *code = NULL;
    mb_split split = {0};
    mb_text joined = {0};
    if (mb_split_compile(&code, pattern, "test", &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_true(mb_split_open(&split, code, n));
    assert_true(mb_split_text(&split, text, n));
    for (size_t from = 0; from < n;) {
        size_t end = mb_split_next(&split);
        assert_true(end > from && end <= n);
        mb_text_append(&joined, "|", from ? 1 : 0);
        for (size_t i = from; i < end; i++)
            mb_text_append(&joined, text[i] ? text + i : "0", 1);
        from = end;
    }
    if (strcmp(joined.data, want) != 0)
        fail_msg("pattern %s: \"%s\", expected \"%s\"", pattern ? pattern : "of Qwen", joined.data, want);
    mb_text_free(&joined);
    mb_split_close(&split);
    pcre2_code_free(code);
}

/* Wanted pieces are those of tokenizers 0.23.3, pre_tokenizers.Split(Regex(pattern), "isolated"). */
static void pieces(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text, *want;
    } cases[] = {
        {NULL, "I'm can'T WE'RE x'\u017f", "I|'m| can|'T| WE|'RE| x|'\u017f"},
        {NULL, "a\u1c89b \U0002ebf0\U00031350", "a\u1c89b| \U0002ebf0\U00031350"},
        {NULL, "1\U0001d2c0\U00010d402", "1|\U0001d2c0|\U00010d40|2"},
        {NULL, "x  \u180e\u2028 y", "x| | \u180e|\u2028| y"},
        {"(?i:[sk]x)|.", "SX\u017fx\u212aXsyk", "SX|\u017fx|\u212aX|s|y|k"},
        {"(?i:[^s]x)|.", "sxbx\u017fx", "s|x|bx|\u017f|x"},
        {"\\p{N}{1,3}|\\P{N}+", "ab12345c", "ab|123|45|c"},
        {" ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|.", " !?\n\na", " !?\n\n|a"},
        {"[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\s+(?!\\S)|\\s+", "  ab  ", " | ab|  "},
        {"[a-c\\-x]+|.", "abd-cx", "ab|d|-cx"},
        {"[-a]+|[\\]\\[]|.", "a-]b[", "a-|]|b|["},
        {"\\d+|\\D", "\u0661\u06622\u00bd", "\u0661\u06622|\u00bd"},
        {"(?<=a)b+|(?:c|d){2}", "abbcdcb", "a|bb|cd|cb"},
        {"[\\p{Lu}\\p{Lt}]+[\\p{Ll}\\p{M}]*|.", "\u01c5\u0301AbcD", "\u01c5\u0301|Abc|D"},
        {"\\p{^L}+|.", "12a!", "12|a|!"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_pieces(cases[i].pattern, cases[i].text, strlen(cases[i].text), cases[i].want);
    check_pieces(NULL, "ab\0cd \0", 7, "ab|0cd| 0"); /* byte 0 is a character like any other sign */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(categories_are_of_16),
        cmocka_unit_test(lower_case_and_columns),
        cmocka_unit_test(nfc_is_of_9),
        cmocka_unit_test(pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
