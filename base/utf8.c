/*
 * utf8.c - UTF-8, strict, one character at a time, and text inside JSON strings. A broken sequence counts as one
 * character for each maximal subpart (Unicode 3.9, U+FFFD substitution), as Python's decoder and the tokenizers
 * do.
 */
#include "base/json.h"

#include <stdio.h>
#include <string.h>

size_t mb_utf8_next(const char *bytes, size_t n, uint32_t *character)
{
    const unsigned char *p = (const unsigned char *)bytes;
    unsigned char low = 0x80, high = 0xbf; /* what the second byte may be */
    size_t need;
    uint32_t value;
    *character = MB_UTF8_INVALID;
    if (p[0] < 0x80) {
        *character = p[0];
        return 1;
    }
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        need = 1;
        value = p[0] & 0x1fu;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        need = 2;
        value = p[0] & 0x0fu;
        low = p[0] == 0xe0 ? 0xa0 : 0x80;  /* no overlong forms */
        high = p[0] == 0xed ? 0x9f : 0xbf; /* no surrogates */
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        need = 3;
        value = p[0] & 0x07u;
        low = p[0] == 0xf0 ? 0x90 : 0x80;
        high = p[0] == 0xf4 ? 0x8f : 0xbf; /* nothing beyond U+10FFFF */
    } else {
        return 1;
    }
    for (size_t i = 1; i <= need; i++) {
        if (i >= n || p[i] < low || p[i] > high)
            return i; /* the bytes so far are the maximal subpart */
        value = value << 6 | (p[i] & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    *character = value;
    return need + 1;
}

bool mb_utf8_check(const char *bytes, size_t n, size_t *offset)
{
    for (size_t i = 0; i < n;) {
        uint32_t character;
        if ((unsigned char)bytes[i] < 0x80) { /* most texts are little else */
            i++;
            continue;
        }
        size_t used = mb_utf8_next(bytes + i, n - i, &character);
        if (character == MB_UTF8_INVALID) {
            if (offset)
                *offset = i;
            return false;
        }
        i += used;
    }
    return true;
}

void mb_utf8_repair(mb_text *text, const char *bytes, size_t n)
{
    size_t good = 0; /* start of the well-formed stretch that is not yet copied */
    for (size_t i = 0; i < n;) {
        uint32_t character;
        size_t used = mb_utf8_next(bytes + i, n - i, &character);
        if (character == MB_UTF8_INVALID) {
            mb_text_append(text, bytes + good, i - good);
            mb_text_append(text, "\xef\xbf\xbd", 3);
            good = i + used;
        }
        i += used;
    }
    mb_text_append(text, bytes + good, n - good);
}

/* The escape of a byte that may not stand in a JSON string as it is; NULL = it may. */
static const char *escape(unsigned char byte, char room[8])
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: the byte, its letter */
    for (size_t i = 0; i + 1 < sizeof named; i += 2)
        if ((unsigned char)named[i] == byte) {
            room[0] = '\\';
            room[1] = named[i + 1];
            room[2] = '\0';
            return room;
        }
    if (byte >= 0x20)
        return NULL;
    for (int i = 0; i < 4; i++)
        room[2 + i] = "0123456789abcdef"[byte >> (12 - 4 * i) & 15];
    room[0] = '\\';
    room[1] = 'u';
    room[6] = '\0';
    return room;
}

void mb_text_json(mb_text *text, const char *string)
{
    size_t n = strlen(string), plain = 0; /* start of the stretch that is copied as it is */
    for (size_t i = 0, step; i < n; i += step) {
        char room[16];
        uint32_t c;
        step = mb_utf8_python(string + i, n - i, &c);
        bool half = c >= 0xD800 && c < 0xE000;
        const char *instead = c == MB_UTF8_INVALID ? "\xEF\xBF\xBD"
                              : c < 0x80           ? escape((unsigned char)c, room)
                                                   : NULL;
        if (half) { /* Python reads and writes it like this */
            snprintf(room, sizeof room, "\\u%04x", (unsigned)c);
            instead = room;
        }
        if (!instead)
            continue;
        mb_text_append(text, string + plain, i - plain);
        mb_text_puts(text, instead);
        plain = i + step;
    }
    mb_text_append(text, string + plain, n - plain);
}

void mb_text_spell(mb_text *text, const char *bytes, size_t n)
{
    for (const char *zero; n && (zero = memchr(bytes, 0, n));) {
        mb_text_append(text, bytes, (size_t)(zero - bytes));
        mb_text_append(text, "\xC0\x80", 2);
        n -= (size_t)(zero + 1 - bytes);
        bytes = zero + 1;
    }
    mb_text_append(text, bytes, n);
}

void mb_text_unspell(mb_text *bytes, const char *text)
{
    for (const char *zero; (zero = strstr(text, "\xC0\x80")); text = zero + 2) {
        mb_text_append(bytes, text, (size_t)(zero - text));
        mb_text_append(bytes, "", 1);
    }
    mb_text_puts(bytes, text);
}

size_t mb_utf8_put(char bytes[4], uint32_t character)
{
    static const unsigned char lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    size_t n = character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; character >>= 6)
        bytes[i] = (char)(0x80 | (character & 0x3F));
    bytes[0] = (char)(lead[n] | character);
    return n;
}
