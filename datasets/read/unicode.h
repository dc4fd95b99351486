/*
 * unicode.h - text as Python sees it: sequences of code points, with str.lower, str.split and the classes of the
 * re module. The benchmarks' scorers are Python programs, so their idea of a digit, a blank and a lower-case
 * letter decides scores. Private to datasets/.
 */
#ifndef MB_DATASETS_UNICODE_H
#define MB_DATASETS_UNICODE_H

#include "base/base.h"

/* A growable array of code points. Zero-initialise; failed = an allocation failed, the content is not to be used.
 */
typedef struct mb_runes {
    uint32_t *at;
    size_t count, capacity;
    bool failed;
} mb_runes;

void mb_runes_push(mb_runes *runes, uint32_t rune);
void mb_runes_append(mb_runes *runes, const uint32_t *at, size_t count);
/* Appends the code points of n bytes. A broken sequence becomes U+FFFD, one per maximal subpart (bytes.decode
 * with errors="replace" does the same). U+0000 and lone surrogates as base/json.h writes them are read. */
void mb_runes_decode(mb_runes *runes, const char *bytes, size_t n);
/* U+0000 and surrogates are written as base/json.h writes them. */
void mb_runes_encode(const uint32_t *at, size_t count, mb_text *out);
void mb_runes_free(mb_runes *runes);

/* str.lower(): full mapping, with U+0130 -> "i" U+0307 and the final sigma. */
void mb_runes_lower(const uint32_t *at, size_t count, mb_runes *out);

bool mb_rune_is_space(uint32_t rune);             /* str.split(), re \s */
bool mb_rune_is_digit(uint32_t rune);             /* re \d: category Nd */
bool mb_rune_is_word(uint32_t rune);              /* re \w: letters, numbers, underscore; no combining marks */
bool mb_rune_is_ascii_punctuation(uint32_t rune); /* string.punctuation, 32 characters */

/* ---- words: equal strings of code points get equal numbers, counted from 0 in order of appearance ---- */
typedef struct mb_lexicon mb_lexicon;
mb_lexicon *mb_lexicon_new(void);
/* The code points are borrowed: they live as long as the lexicon. -1: out of memory. */
int32_t mb_lexicon_number(mb_lexicon *lexicon, const uint32_t *at, size_t count);
size_t mb_lexicon_count(const mb_lexicon *lexicon);
void mb_lexicon_free(mb_lexicon *lexicon);

#endif
