/*
 * unicode.h - properties of code points, from tables of our own.
 *
 * Token ids and scores hang on them, so they may not depend on the libraries of a machine. One version of Unicode
 * for all of it, but for NFC, which lives with the tokenizer.
 */
#ifndef MB_BASE_UNICODE_H
#define MB_BASE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MB_UNICODE_VERSION "16.0.0"
/* The reference's normaliser is older than its regex engine: marks that are younger than this keep their place and
 * compose with nothing (model/tokenizer/unicode.c). */
#define MB_NFC_VERSION "9.0.0"

/* General categories, in the order of tools/unicode_tables.py. */
enum mb_category {
    MB_CN,
    MB_LU,
    MB_LL,
    MB_LT,
    MB_LM,
    MB_LO,
    MB_MN,
    MB_MC,
    MB_ME,
    MB_ND,
    MB_NL,
    MB_NO,
    MB_PC,
    MB_PD,
    MB_PS,
    MB_PE,
    MB_PI,
    MB_PF,
    MB_PO,
    MB_SM,
    MB_SC,
    MB_SK,
    MB_SO,
    MB_ZS,
    MB_ZL,
    MB_ZP,
    MB_CC,
    MB_CF,
    MB_CS,
    MB_CO,
    MB_CATEGORIES
};

/* MB_CN for unassigned code points and for numbers that are none. */
enum mb_category mb_unicode_category(uint32_t c);
/* The small letter of a capital or title-case letter, else c: the simple mapping, one code point each. */
uint32_t mb_unicode_lower(uint32_t c);
/* The capital letter of a small one, else c; c as well when the upper case is several characters (U+00DF). */
uint32_t mb_unicode_upper(uint32_t c);
/* Columns on a terminal: 2 for East Asian wide characters, 0 for marks, format and control characters, else 1. */
unsigned mb_unicode_columns(uint32_t c);

/* ---- unicode_tables.c (generated) ---- */
struct mb_unicode_case {
    uint32_t first, last;
    int32_t step, move; /* first, first + step, ... last have their other letter `move` further on */
};
extern const uint32_t mb_unicode_runs[]; /* first code point << 5 | category, rising */
extern const size_t mb_unicode_run_count;
extern const uint16_t mb_unicode_blocks[]; /* the run that holds code point i << 12 */
extern const struct mb_unicode_case mb_unicode_lower_ranges[];
extern const size_t mb_unicode_lower_count;
extern const struct mb_unicode_case mb_unicode_upper_ranges[];
extern const size_t mb_unicode_upper_count;
extern const uint32_t mb_unicode_wide[][2];
extern const size_t mb_unicode_wide_count;

#endif
