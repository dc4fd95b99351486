/*
 * unicode.c - code points with Python's semantics. Categories and simple case mappings come from base/unicode.h
 * (Unicode 16.0, as CPython 3.14 has it); what Python does on top (special casing, the cased and case-ignorable
 * properties, the white-space set) is here. Checked against CPython 3.11 over all code points that both Unicode
 * versions know (tests/datasets).
 */
#include "datasets/read/unicode.h"

#include "base/json.h"
#include "base/unicode.h"

#include <stdlib.h>
#include <string.h>

static bool runes_reserve(mb_runes *runes, size_t n)
{
    if (runes->failed)
        return false;
    if (n > SIZE_MAX / 16 - runes->count) {
        runes->failed = true;
        return false;
    }
    if (runes->count + n > runes->capacity) {
        size_t capacity = runes->capacity ? runes->capacity : 64;
        while (capacity < runes->count + n)
            capacity *= 2;
        uint32_t *at = realloc(runes->at, capacity * sizeof *at);
        if (!at) {
            runes->failed = true;
            return false;
        }
        runes->at = at;
        runes->capacity = capacity;
    }
    return true;
}

void mb_runes_push(mb_runes *runes, uint32_t rune)
{
    if (runes_reserve(runes, 1))
        runes->at[runes->count++] = rune;
}

void mb_runes_append(mb_runes *runes, const uint32_t *at, size_t count)
{
    if (count && runes_reserve(runes, count)) {
        memcpy(runes->at + runes->count, at, count * sizeof *at);
        runes->count += count;
    }
}

void mb_runes_free(mb_runes *runes)
{
    free(runes->at);
    *runes = (mb_runes){0};
}

void mb_runes_decode(mb_runes *runes, const char *bytes, size_t n)
{
    if (!runes_reserve(runes, n)) /* at most one rune a byte */
        return;
    for (size_t i = 0; i < n;) {
        uint32_t rune = 0;
        i += mb_utf8_python(bytes + i, n - i, &rune);
        runes->at[runes->count++] = rune == MB_UTF8_INVALID ? 0xFFFD : rune;
    }
}

void mb_runes_encode(const uint32_t *at, size_t count, mb_text *out)
{
    for (size_t i = 0; i < count; i++) {
        char bytes[4];
        if (at[i])
            mb_text_append(out, bytes, mb_utf8_put(bytes, at[i]));
        else
            mb_text_append(out, "\xC0\x80", 2); /* a byte 0 would end the text */
    }
}

bool mb_rune_is_space(uint32_t c)
{
    if (c < 0x80)
        return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool mb_rune_is_digit(uint32_t c)
{
    if (c < 0x80)
        return c >= '0' && c <= '9';
    return mb_unicode_category(c) == MB_ND;
}

bool mb_rune_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    switch (mb_unicode_category(c)) {
    case MB_LU:
    case MB_LL:
    case MB_LT:
    case MB_LM:
    case MB_LO:
    case MB_ND:
    case MB_NL:
    case MB_NO:
        return true;
    default:
        return false;
    }
}

bool mb_rune_is_ascii_punctuation(uint32_t c)
{
    return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
           (c >= 0x7B && c <= 0x7E);
}

/* ---- lower case ---- */
static bool in_ranges(uint32_t c, const uint32_t (*ranges)[2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    }
    return false;
}

/* Unicode property Cased: Lu, Ll, Lt, and Other_Lowercase / Other_Uppercase, which no category tells. */
static bool rune_is_cased(uint32_t c)
{
    static const uint32_t other[][2] = {
        {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2B0, 0x2B8},     {0x2C0, 0x2C1},     {0x2E0, 0x2E4},
        {0x345, 0x345},     {0x37A, 0x37A},     {0x1D2C, 0x1D6A},   {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},
        {0x2071, 0x2071},   {0x207F, 0x207F},   {0x2090, 0x209C},   {0x2160, 0x217F},   {0x24B6, 0x24E9},
        {0x2C7C, 0x2C7D},   {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F8, 0xA7F9},   {0xAB5C, 0xAB5F},
        {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}, {0x10780, 0x10780}, {0x10783, 0x10785},
        {0x10787, 0x107B0}, {0x107B2, 0x107BA}};
    enum mb_category category = mb_unicode_category(c);
    return category == MB_LU || category == MB_LL || category == MB_LT ||
           in_ranges(c, other, sizeof other / sizeof other[0]);
}

/* Unicode property Case_Ignorable: marks, format, modifiers, and the word-internal punctuation. */
static bool rune_is_case_ignorable(uint32_t c)
{
    static const uint32_t inner[][2] = {{0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
                                        {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
                                        {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
                                        {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A}};
    switch (mb_unicode_category(c)) {
    case MB_MN:
    case MB_ME:
    case MB_CF:
    case MB_LM:
    case MB_SK:
        return true;
    default:
        return in_ranges(c, inner, sizeof inner / sizeof inner[0]);
    }
}

/* Capital sigma at i is final: a cased letter before it and none after it, case-ignorable ones passed over. */
static bool sigma_is_final(const uint32_t *at, size_t count, size_t i)
{
    size_t before = i;
    while (before > 0 && rune_is_case_ignorable(at[before - 1]))
        before--;
    if (before == 0 || !rune_is_cased(at[before - 1]))
        return false;
    size_t after = i + 1;
    while (after < count && rune_is_case_ignorable(at[after]))
        after++;
    return after == count || !rune_is_cased(at[after]);
}

void mb_runes_lower(const uint32_t *at, size_t count, mb_runes *out)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t c = at[i];
        if (c < 0x80) {
            mb_runes_push(out, c >= 'A' && c <= 'Z' ? c + 32 : c);
        } else if (c == 0x130) {
            mb_runes_push(out, 'i');
            mb_runes_push(out, 0x307);
        } else if (c == 0x3A3) {
            mb_runes_push(out, sigma_is_final(at, count, i) ? 0x3C2 : 0x3C3);
        } else {
            mb_runes_push(out, mb_unicode_lower(c));
        }
    }
}
