/*
 * contain.c - scores of generated tasks: containment (the rule of RULER and of needle studies), keyword recall
 * and digit recall.
 *
 * Both sides are lower-cased as Python does it; nothing else is normalised, because RULER compares plain
 * substrings.
 */
#include "datasets/metric/metrics.h"
#include "datasets/read/unicode.h"

#include <stdlib.h>
#include <string.h>

char *mb_text_lower(const char *text)
{
    mb_runes runes = {0}, lower = {0};
    mb_text out = {0};
    char *copy = NULL;
    mb_runes_decode(&runes, text, strlen(text));
    mb_runes_lower(runes.at, runes.count, &lower);
    mb_text_append(&out, "", 0);
    mb_runes_encode(lower.at, lower.count, &out);
    if (!runes.failed && !lower.failed)
        copy = mb_text_take(&out);
    mb_text_free(&out);
    mb_runes_free(&runes);
    mb_runes_free(&lower);
    return copy;
}

int mb_contains_score(const mb_sample *sample, const char *prediction, bool any, double *score)
{
    char *have = mb_text_lower(prediction);
    size_t hits = 0;
    *score = 0;
    if (!have)
        return MB_E_SYSTEM;
    for (size_t i = 0; i < sample->answer_count; i++) {
        char *want = mb_text_lower(sample->answers[i]);
        if (!want) {
            free(have);
            return MB_E_SYSTEM;
        }
        hits += strstr(have, want) != NULL;
        free(want);
    }
    free(have);
    if (any)
        *score = hits ? 1 : 0;
    else if (sample->answer_count)
        *score = (double)hits / (double)sample->answer_count;
    return MB_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

/* The next word at or after *at; its length, 0 at the end. */
static size_t next_word(const char *text, size_t *at)
{
    size_t i = *at, n = 0;
    while (text[i] && is_blank(text[i]))
        i++;
    while (text[i + n] && !is_blank(text[i + n]))
        n++;
    *at = i;
    return n;
}

/* Whether the word is one of the words of text before `end` (end = SIZE_MAX: of all words). */
static bool has_word(const char *text, size_t end, const char *word, size_t length)
{
    for (size_t at = 0, n; (n = next_word(text, &at)) && at < end; at += n)
        if (n == length && memcmp(text + at, word, n) == 0)
            return true;
    return false;
}

int mb_keyword_score(const mb_sample *sample, const char *prediction, double *score)
{
    char *have = mb_text_lower(prediction);
    double sum = 0;
    *score = 0;
    if (!have)
        return MB_E_SYSTEM;
    for (size_t i = 0; i < sample->answer_count; i++) {
        char *want = mb_text_lower(sample->answers[i]);
        if (!want) {
            free(have);
            return MB_E_SYSTEM;
        }
        size_t words = 0, hits = 0;
        for (size_t at = 0, n; (n = next_word(want, &at)); at += n) {
            words++;
            if (!has_word(want, at, want + at, n)) /* its first occurrence: the numerator counts a set */
                hits += has_word(have, SIZE_MAX, want + at, n);
        }
        sum += words ? (double)hits / (double)words : 0;
        free(want);
    }
    free(have);
    *score = sample->answer_count ? sum / (double)sample->answer_count : 0;
    return MB_OK;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

int mb_digit_score(const mb_sample *sample, const char *prediction, double *score)
{
    double sum = 0;
    for (size_t a = 0; a < sample->answer_count; a++) {
        char want[64];
        size_t digits = 0, best = 0;
        for (const char *c = sample->answers[a]; *c; c++)
            if (is_digit(*c) && digits < sizeof want)
                want[digits++] = *c;
        for (const char *c = prediction; *c;) {
            size_t run = 0, hits = 0;
            while (is_digit(c[run]))
                run++;
            for (size_t i = 0; i < run && i < digits; i++)
                hits += c[i] == want[i];
            if (hits > best)
                best = hits;
            c += run ? run : 1;
        }
        sum += digits ? (double)best / (double)digits : 0;
    }
    *score = sample->answer_count ? sum / (double)sample->answer_count : 0;
    return MB_OK;
}
