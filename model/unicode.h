/*
 * unicode.h - the little Unicode that a tokenizer needs: reading UTF-8 that may be broken, and NFC. Internal to
 * model/.
 */
#ifndef MB_MODEL_UNICODE_H
#define MB_MODEL_UNICODE_H

#include "base/base.h"

#define MB_UNICODE_INVALID 0xffffffffu

/* Reads one character of at least one byte. Returns the bytes it took; *character is MB_UNICODE_INVALID for an
 * ill-formed sequence, of which the maximal subpart is taken (Unicode 3.9, as Rust and Python replace them). */
size_t mb_unicode_next(const char *bytes, size_t n, uint32_t *character);
/* Appends the bytes to text with each maximal ill-formed subpart replaced by U+FFFD. */
void mb_unicode_repair(mb_text *text, const char *bytes, size_t n);
/* True when the bytes are well-formed UTF-8. */
bool mb_unicode_valid(const char *bytes, size_t n);
/* Appends the NFC form of well-formed UTF-8. Time is linear in n, whatever the text. False: out of memory. */
bool mb_unicode_nfc(mb_text *text, const char *bytes, size_t n);

#endif
