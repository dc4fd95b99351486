/*
 * unicode.c - NFC on top of utf8proc's tables.
 *
 * utf8proc's own decomposition sorts combining marks by swapping neighbours, which takes quadratic time on a long
 * run of them. Here characters are decomposed one by one, runs of marks are sorted by counting, and utf8proc only
 * composes; the result is the same by definition of the canonical ordering.
 */
#include "model/tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- NFC ---- */

/* Characters that never take part in a normalisation, as long as all their neighbours are of this kind too:
 * NFC_Quick_Check is Yes and the combining class 0 in these ranges. Covers most text of any length. */
static bool inert(uint32_t c)
{
    return c < 0x300 || (c >= 0x400 && c < 0x483) || (c >= 0x2010 && c < 0x2028) || (c >= 0x3000 && c < 0x302a) ||
           (c >= 0x3041 && c < 0x3097) || (c >= 0x4e00 && c < 0xa000) || (c >= 0xac00 && c < 0xd7a4) ||
           (c >= 0xff01 && c < 0xff61) || (c >= 0xfffc && c < 0xfffe) || (c >= 0x1f300 && c < 0x1fb00);
}

/* The quick check: one pass without tables, which ends NFC for most texts. */
static bool needs_work(const char *bytes, size_t n)
{
    uint32_t character;
    for (size_t i = 0; i < n;) {
        if ((unsigned char)bytes[i] < 0xcc) { /* below U+0300 */
            i++;
            continue;
        }
        i += mb_utf8_next(bytes + i, n - i, &character);
        if (!inert(character))
            return true;
    }
    return false;
}

static unsigned combining_class(utf8proc_int32_t character)
{
    return (unsigned)utf8proc_get_property(character)->combining_class & 255u;
}

/* Stable sort of a run of marks by combining class; scratch has room for the run. */
static void sort_run(utf8proc_int32_t *run, size_t n, utf8proc_int32_t *scratch)
{
    if (n < 16) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t mark = run[i];
            size_t j = i;
            for (; j > 0 && combining_class(run[j - 1]) > combining_class(mark); j--)
                run[j] = run[j - 1];
            run[j] = mark;
        }
        return;
    }
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++)
        start[combining_class(run[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        start[c] += start[c - 1];
    for (size_t i = 0; i < n; i++)
        scratch[start[combining_class(run[i])]++] = run[i];
    memcpy(run, scratch, n * sizeof *run);
}

static void order_marks(utf8proc_int32_t *buffer, size_t n, utf8proc_int32_t *scratch)
{
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && combining_class(buffer[end]) != 0)
            end++;
        if (end - i > 1)
            sort_run(buffer + i, end - i, scratch);
        i = end > i ? end : i + 1;
    }
}

bool mb_unicode_nfc(mb_text *text, const char *bytes, size_t n)
{
    /* A character of k bytes decomposes into at most 4 others; 1-byte characters do not decompose. */
    enum { EXPANSION = 4 };
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_int32_t *buffer, *scratch;
    size_t length = 0;
    int last_class = 0;
    if (!needs_work(bytes, n)) {
        mb_text_append(text, bytes, n);
        return !text->failed;
    }
    buffer = malloc((n * EXPANSION + 16) * sizeof *buffer);
    scratch = malloc((n * EXPANSION + 16) * sizeof *scratch);
    bool ok = buffer && scratch;
    for (size_t i = 0; ok && i < n;) {
        uint32_t character;
        i += mb_utf8_next(bytes + i, n - i, &character);
        utf8proc_ssize_t made =
            utf8proc_decompose_char((utf8proc_int32_t)character, buffer + length, EXPANSION, options, &last_class);
        ok = made >= 1 && made <= EXPANSION;
        length += ok ? (size_t)made : 0;
    }
    if (ok) {
        order_marks(buffer, length, scratch);
        utf8proc_ssize_t left = utf8proc_normalize_utf32(buffer, (utf8proc_ssize_t)length, options);
        ok = left >= 0;
        for (utf8proc_ssize_t i = 0; ok && i < left; i++) {
            utf8proc_uint8_t encoded[4];
            utf8proc_ssize_t size = utf8proc_encode_char(buffer[i], encoded);
            mb_text_append(text, (const char *)encoded, (size_t)size);
        }
    }
    free(buffer);
    free(scratch);
    return ok && !text->failed;
}
