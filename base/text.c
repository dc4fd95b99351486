/* text.c - error sentences and growable text. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mb_fail(mb_error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return code;
}

int mb_fail_prefix(mb_error *err, int code, const char *format, ...)
{
    if (!err)
        return code;
    mb_error old = *err; /* the old sentence is source and target */
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    err->code = code;
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %.*s", MB_ERROR_CAP - 3 - n, old.text);
    return code;
}

int mb_no_memory(mb_error *err, const char *format, ...)
{
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return mb_fail(err, MB_E_SYSTEM, "no memory for %s", what);
}

/* Makes room for n more bytes and the terminator. */
static bool text_reserve(mb_text *text, size_t n)
{
    if (text->failed)
        return false;
    if (n > SIZE_MAX / 4 || text->length > SIZE_MAX / 4) { /* the doubling below cannot wrap around then */
        text->failed = true;
        return false;
    }
    size_t need = text->length + n + 1;
    if (need > text->capacity) {
        size_t capacity = text->capacity ? text->capacity : 64;
        while (capacity < need)
            capacity *= 2;
        char *data = realloc(text->data, capacity);
        if (!data) { /* kept until somebody asks: a chain of appends needs one check at its end */
            text->failed = true;
            return false;
        }
        text->data = data;
        text->capacity = capacity;
    }
    return true;
}

void mb_text_append(mb_text *text, const char *bytes, size_t n)
{
    if (!text_reserve(text, n))
        return;
    if (n)
        memcpy(text->data + text->length, bytes, n);
    text->length += n;
    text->data[text->length] = '\0';
}

void mb_text_puts(mb_text *text, const char *string)
{
    mb_text_append(text, string, strlen(string));
}

/* Measured first, written second: a text of any length comes out whole. */
static void text_vprintf(mb_text *text, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0)
        text->failed = true;
    else if (text_reserve(text, (size_t)n)) {
        vsnprintf(text->data + text->length, (size_t)n + 1, format, again);
        text->length += (size_t)n;
    }
    va_end(again);
}

void mb_text_printf(mb_text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_vprintf(text, format, args);
    va_end(args);
}

void mb_text_clear(mb_text *text)
{
    text->length = 0;
    text->failed = false;
    if (text->data)
        text->data[0] = '\0';
}

void mb_text_free(mb_text *text)
{
    free(text->data);
    *text = (mb_text){0};
}

char *mb_text_take(mb_text *text)
{
    if (!text->data)
        mb_text_append(text, "", 0);
    char *data = text->data;
    if (text->failed) {
        free(data);
        data = NULL;
    }
    *text = (mb_text){0};
    return data;
}

char *mb_string_copy(const char *string)
{
    return string ? strdup(string) : NULL;
}

char *mb_string_format(const char *format, ...)
{
    mb_text text = {0};
    va_list args;
    va_start(args, format);
    text_vprintf(&text, format, args);
    va_end(args);
    return mb_text_take(&text);
}

void mb_text_visible(mb_text *text, const char *string, const char *kept)
{
    size_t left = strlen(string);
    while (left) {
        uint32_t code = 0;
        size_t n = mb_utf8_next(string, left, &code);
        if (code == MB_UTF8_INVALID)
            mb_text_puts(text, "\xef\xbf\xbd");
        else if ((code < 0x20 || (code >= 0x7f && code < 0xa0)) && !(code < 0x80 && strchr(kept, (int)code)))
            mb_text_printf(text, "\\x%02x", (unsigned)code);
        else
            mb_text_append(text, string, n);
        string += n;
        left -= n;
    }
}
