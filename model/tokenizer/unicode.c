/*
 * unicode.c - NFC (Unicode Standard Annex 15) on tables of our own, so that the ids of a text are the same on
 * every machine.
 *
 * Characters are decomposed one by one, runs of marks are sorted by counting (a run may be a megabyte), then
 * everything is composed in one pass. Hangul syllables are computed, as the standard defines them.
 */
#include "model/tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

/* Hangul: syllable = S_BASE + (lead * V_COUNT + vowel) * T_COUNT + trail. */
enum {
    S_BASE = 0xAC00,
    L_BASE = 0x1100,
    V_BASE = 0x1161,
    T_BASE = 0x11A7,
    L_COUNT = 19,
    V_COUNT = 21,
    T_COUNT = 28,
    S_COUNT = L_COUNT * V_COUNT * T_COUNT
};

/* A character decomposes into at most 4 others (U+1F82 and its like). */
enum { EXPANSION = 4 };

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

static unsigned combining_class(uint32_t c)
{
    size_t low = 0, high = mb_nfc_mark_count;
    if (inert(c))
        return 0;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (mb_nfc_marks[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < mb_nfc_mark_count && c >= mb_nfc_marks[low].first ? mb_nfc_marks[low].combining : 0;
}

/* Writes the full decomposition of c and returns its length; the table holds one step, the first part may have
 * more. */
static size_t decompose(uint32_t c, uint32_t out[EXPANSION])
{
    size_t low = 0, high = mb_nfc_pair_count, made;
    if (c < 0xc0) {
        out[0] = c;
        return 1;
    }
    if (c - S_BASE < S_COUNT) { /* unsigned: false below S_BASE */
        uint32_t s = c - S_BASE;
        out[0] = L_BASE + s / (V_COUNT * T_COUNT);
        out[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
        out[2] = T_BASE + s % T_COUNT;
        return s % T_COUNT ? 3 : 2;
    }
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (mb_nfc_pairs[middle].whole < c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == mb_nfc_pair_count || mb_nfc_pairs[low].whole != c) {
        out[0] = c;
        return 1;
    }
    made = decompose(mb_nfc_pairs[low].first, out);
    if (mb_nfc_pairs[low].second)
        made += decompose(mb_nfc_pairs[low].second, out + made);
    return made;
}

/* The character that two compose to, or 0. */
static uint32_t compose(uint32_t first, uint32_t second)
{
    size_t low = 0, high = mb_nfc_composed_count;
    if (first - L_BASE < L_COUNT && second - V_BASE < V_COUNT)
        return S_BASE + ((first - L_BASE) * V_COUNT + (second - V_BASE)) * T_COUNT;
    if (first - S_BASE < S_COUNT && (first - S_BASE) % T_COUNT == 0 && second > T_BASE &&
        second < T_BASE + T_COUNT)
        return first + (second - T_BASE);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct mb_nfc_pair *pair = &mb_nfc_pairs[mb_nfc_composed[middle]];
        if (pair->first == first && pair->second == second)
            return pair->whole;
        if (pair->first < first || (pair->first == first && pair->second < second))
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* Stable sort of a run of marks by combining class; scratch has room for the run. */
static void sort_run(uint32_t *run, size_t n, uint32_t *scratch)
{
    if (n < 16) {
        for (size_t i = 1; i < n; i++) {
            uint32_t mark = run[i];
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

static void order_marks(uint32_t *buffer, size_t n, uint32_t *scratch)
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

/* In place; returns how many are left. A character composes with the last starter when nothing of its own class or
 * a higher one stands between them. */
static size_t compose_all(uint32_t *buffer, size_t n)
{
    size_t out = 0, starter = 0;
    bool have_starter = false;
    unsigned last = 0; /* class of the last character that stayed behind the starter */
    for (size_t i = 0; i < n; i++) {
        uint32_t c = buffer[i];
        unsigned class = combining_class(c);
        bool reachable = have_starter && (out == starter + 1 || last < class);
        uint32_t whole = reachable ? compose(buffer[starter], c) : 0;
        if (whole) {
            buffer[starter] = whole;
            continue;
        }
        if (class == 0) {
            starter = out;
            have_starter = true;
        }
        last = class;
        buffer[out++] = c;
    }
    return out;
}

bool mb_unicode_nfc(mb_text *text, const char *bytes, size_t n)
{
    size_t length = 0;
    if (!needs_work(bytes, n)) {
        mb_text_append(text, bytes, n);
        return !text->failed;
    }
    uint32_t *buffer = malloc((n * EXPANSION + EXPANSION) * sizeof *buffer);
    uint32_t *scratch = malloc((n * EXPANSION + EXPANSION) * sizeof *scratch);
    bool ok = buffer && scratch;
    for (size_t i = 0; ok && i < n;) {
        uint32_t character;
        i += mb_utf8_next(bytes + i, n - i, &character);
        length += decompose(character, buffer + length);
    }
    if (ok) {
        order_marks(buffer, length, scratch);
        length = compose_all(buffer, length);
        for (size_t i = 0; i < length; i++) {
            char encoded[4];
            mb_text_append(text, encoded, mb_utf8_put(encoded, buffer[i]));
        }
    }
    free(buffer);
    free(scratch);
    return ok && !text->failed;
}
