/*
 * unicode.h - NFC, the one thing of Unicode that a tokenizer needs beyond base/unicode.h. Internal to model/.
 */
#ifndef MB_TOKENIZER_UNICODE_H
#define MB_TOKENIZER_UNICODE_H

#include "base/base.h"
#include "base/unicode.h"

/* Appends the NFC form of well-formed UTF-8. Time is linear in n, whatever the text. False: out of memory. */
bool mb_unicode_nfc(mb_text *text, const char *bytes, size_t n);

/* ---- unicode_tables.c (generated) ---- */
struct mb_nfc_marks {
    uint32_t first, last, combining; /* one combining class, 1 to 254 */
};
struct mb_nfc_pair {
    uint32_t whole, first, second; /* second 0: a character that stands for one other */
};
extern const struct mb_nfc_marks mb_nfc_marks[]; /* by code point */
extern const size_t mb_nfc_mark_count;
extern const struct mb_nfc_pair mb_nfc_pairs[]; /* by whole */
extern const size_t mb_nfc_pair_count;
extern const uint16_t mb_nfc_composed[]; /* places in mb_nfc_pairs, by (first, second) */
extern const size_t mb_nfc_composed_count;

#endif
