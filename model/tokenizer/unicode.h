/*
 * unicode.h - the little Unicode that a tokenizer needs beyond base.h's UTF-8: NFC. Internal to model/.
 */
#ifndef MB_MODEL_UNICODE_H
#define MB_MODEL_UNICODE_H

#include "base/base.h"

/* Appends the NFC form of well-formed UTF-8. Time is linear in n, whatever the text. False: out of memory. */
bool mb_unicode_nfc(mb_text *text, const char *bytes, size_t n);

#endif
