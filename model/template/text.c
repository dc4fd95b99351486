/*
 * text.c - text by characters, as Python's str has it: length, offsets, strip, replace, find, upper and lower
 * case.
 */
#include "model/template/value.h"

#include "base/unicode.h"

#include <string.h>

/* The text is valid UTF-8: it was repaired or decoded before it became a value. */
size_t mb_text_characters(const char *text, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

size_t mb_text_offset(const char *text, size_t length, size_t n)
{
    size_t at = 0;
    while (n-- > 0 && at < length) {
        at++;
        while (at < length && ((unsigned char)text[at] & 0xc0) == 0x80)
            at++;
    }
    return at;
}

bool mb_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Whether the character of n bytes at p is to be taken. */
static bool in_set(const char *p, size_t n, const mb_value *set)
{
    uint32_t c;
    if (!set) {
        mb_utf8_next(p, n, &c);
        return mb_is_space(c);
    }
    for (size_t at = 0, m; at < set->length; at += m) {
        m = mb_utf8_next(set->text + at, set->length - at, &c);
        if (m == n && memcmp(set->text + at, p, n) == 0)
            return true;
    }
    return false;
}

mb_value mb_text_strip(mb_value text, int sides, const mb_value *set)
{
    const char *begin = text.text, *end = text.text + text.length;
    while ((sides & 1) && begin < end) {
        size_t n = mb_text_offset(begin, (size_t)(end - begin), 1);
        if (!in_set(begin, n, set))
            break;
        begin += n;
    }
    while ((sides & 2) && begin < end) {
        const char *last = end - 1;
        while (last > begin && ((unsigned char)*last & 0xc0) == 0x80)
            last--;
        if (!in_set(last, (size_t)(end - last), set))
            break;
        end = last;
    }
    return mb_value_text(begin, (size_t)(end - begin));
}

size_t mb_text_find(mb_value text, size_t from, mb_value part)
{
    if (from > text.length || part.length > text.length - from)
        return SIZE_MAX;
    if (part.length == 0)
        return from;
    const char *place = memmem(text.text + from, text.length - from, part.text, part.length);
    return place ? (size_t)(place - text.text) : SIZE_MAX;
}

mb_value mb_text_replace(struct mb_render *r, mb_value text, mb_value old, mb_value put, int64_t most)
{
    mb_text out = {0};
    size_t at = 0;
    if (!mb_render_work(r, text.length / 64))
        return (mb_value){0};
    /* An empty `old` stands in front of every character and at the end. */
    for (int64_t n = 0; n != most && out.length <= r->out_limit; n++) {
        size_t place = mb_text_find(text, at, old), step;
        if (place == SIZE_MAX)
            break;
        mb_text_append(&out, text.text + at, place - at);
        mb_text_append(&out, put.text, put.length);
        at = place + old.length;
        if (old.length > 0)
            continue;
        if (at == text.length)
            break;
        step = mb_text_offset(text.text + at, text.length - at, 1);
        mb_text_append(&out, text.text + at, step);
        at += step;
    }
    if (out.length > r->out_limit) {
        mb_text_free(&out);
        return mb_render_fail(r, "replace() makes a text of more than %zu bytes", r->out_limit);
    }
    if (at < text.length)
        mb_text_append(&out, text.text + at, text.length - at);
    return mb_value_take(r, &out);
}

/* Characters whose upper or lower case is several characters, or depends on their neighbours (Unicode's
 * SpecialCasing.txt), and title case letters. */
static bool has_special_case(uint32_t c)
{
    return c == 0xdf || c == 0x130 || c == 0x149 || c == 0x1f0 || c == 0x345 || c == 0x390 || c == 0x3a3 ||
           c == 0x3b0 || c == 0x587 || (c >= 0x1c4 && c <= 0x1cc) || (c >= 0x1f1 && c <= 0x1f3) ||
           (c >= 0x10d0 && c <= 0x10ff) || (c >= 0x1e96 && c <= 0x1e9e) || (c >= 0x1f50 && c <= 0x1fff) ||
           (c >= 0xfb00 && c <= 0xfb17);
}

/* Whether the character at `at` begins a word: the method title() begins one behind everything but a letter. */
static bool follows_no_letter(const char *text, size_t at)
{
    return at == 0 ||
           !((text[at - 1] >= 'a' && text[at - 1] <= 'z') || (text[at - 1] >= 'A' && text[at - 1] <= 'Z'));
}

/* The same as the filter "title" sees words. */
static bool begins_word(const char *text, size_t at)
{
    return at == 0 || (unsigned char)text[at - 1] <= ' ' || strchr("-({[<", text[at - 1]) != NULL;
}

mb_value mb_text_case(struct mb_render *r, mb_value text, char way)
{
    char *out = mb_arena_take(r->arena, text.length * 2 + 4);
    size_t at = 0, n = 0;
    if (!out)
        return mb_render_no_memory(r);
    if (!mb_render_work(r, text.length / 16))
        return (mb_value){0};
    while (at < text.length && n + 4 <= text.length * 2 + 4) {
        uint32_t c;
        size_t step = mb_utf8_next(text.text + at, text.length - at, &c);
        if (has_special_case(c) || ((way | 32) == 't' && c >= 0x80))
            return mb_render_fail(r, "upper and lower case of U+%04X is not supported", (unsigned)c);
        bool up = way == 'u' || (way == 'c' && at == 0) || (way == 't' && begins_word(text.text, at)) ||
                  (way == 'T' && follows_no_letter(text.text, at));
        n += mb_utf8_put(out + n, up ? mb_unicode_upper(c) : mb_unicode_lower(c));
        at += step;
    }
    return mb_value_text(out, n);
}
