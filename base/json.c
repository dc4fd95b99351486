/*
 * json.c - Python's JSON on top of cJSON: what the two read differently is rewritten before parsing or settled in
 * the tree after it. Most files hold none of it and are parsed as they are.
 */
#include "base/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A text that no file holds by chance stands for NaN until the tree is there: cJSON has no number for it. */
#define NAN_MARK "\x01\x02NaN\x02\x01"

/* ---- before parsing ---- */

static bool contains(const char *text, size_t n, const char *part)
{
    return memmem(text, n, part, strlen(part)) != NULL;
}

/* \u and four hexadecimal digits at p. */
static bool read_escape(const char *p, size_t n, uint32_t *unit)
{
    *unit = 0;
    if (n < 6 || p[0] != '\\' || p[1] != 'u')
        return false;
    for (int i = 2; i < 6; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return false;
        *unit = *unit << 4 | (uint32_t)digit;
    }
    return true;
}

/* An escape inside a text, p[0] is the backslash: rewritten when cJSON cannot read it. Returns its bytes; 0 = a
 * broken \u, of which cJSON would make U+0000. */
static size_t copy_escape(const char *p, size_t n, mb_text *out)
{
    uint32_t unit, low;
    if (!read_escape(p, n, &unit)) {
        size_t length = n < 2 ? n : p[1] == 'u' ? 0 : 2;
        mb_text_append(out, p, length);
        return length;
    }
    if (unit >= 0xD800 && unit < 0xDC00 && read_escape(p + 6, n - 6, &low) && low >= 0xDC00 && low < 0xE000) {
        mb_text_append(out, p, 12);
        return 12;
    }
    if (unit == 0) {
        mb_text_append(out, "\xC0\x80", 2);
    } else if (unit >= 0xD800 && unit < 0xE000) {
        const char bytes[3] = {(char)0xED, (char)(0x80 | (unit >> 6 & 0x3F)), (char)(0x80 | (unit & 0x3F))};
        mb_text_append(out, bytes, 3);
    } else {
        mb_text_append(out, p, 6);
    }
    return 6;
}

/* Outside of texts: Python's three words become what cJSON reads. Returns the bytes taken. */
static size_t copy_value(const char *p, size_t n, mb_text *out)
{
    static const struct {
        const char *word, *number;
    } words[] = {{"NaN", "\"" NAN_MARK "\""}, {"Infinity", "1e999"}};
    for (size_t i = 0; i < 2; i++) {
        size_t length = strlen(words[i].word);
        if (n >= length && memcmp(p, words[i].word, length) == 0) {
            mb_text_puts(out, words[i].number);
            return length;
        }
    }
    mb_text_append(out, p, 1);
    return 1;
}

/* Returns n, or the place of a broken escape. */
static size_t rewrite(const char *text, size_t n, mb_text *out)
{
    bool inside = false;
    for (size_t i = 0; i < n;) {
        size_t plain = i;
        while (plain < n && text[plain] != '"' && text[plain] != (inside ? '\\' : 'N') &&
               (inside || text[plain] != 'I'))
            plain++;
        mb_text_append(out, text + i, plain - i);
        i = plain;
        if (i == n)
            break;
        if (text[i] == '"') {
            inside = !inside;
            mb_text_append(out, text + i++, 1);
        } else {
            size_t taken = inside ? copy_escape(text + i, n - i, out) : copy_value(text + i, n - i, out);
            if (!taken)
                return i;
            i += taken;
        }
    }
    return n;
}

/* ---- after parsing ---- */

static uint64_t name_hash(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

/* Python's dict: the member keeps its first place and takes the last value. False: out of memory. */
static bool drop_repeated(cJSON *object)
{
    size_t count = 0, places = 8;
    for (const cJSON *item = object->child; item; item = item->next)
        count++;
    while (places < 2 * count)
        places *= 2;
    cJSON **table = count > 1 ? calloc(places, sizeof *table) : NULL;
    if (count < 2)
        return true;
    if (!table)
        return false;
    for (cJSON *item = object->child, *next; item; item = next) {
        size_t at = (size_t)name_hash(item->string) & (places - 1);
        next = item->next;
        while (table[at] && strcmp(table[at]->string, item->string) != 0)
            at = (at + 1) & (places - 1);
        if (table[at]) {
            cJSON_DetachItemViaPointer(object, item);
            cJSON_ReplaceItemViaPointer(object, table[at], item);
        }
        table[at] = item;
    }
    free(table);
    return true;
}

/* Settles one value and all below it; the depth is what cJSON allows. */
static bool settle(cJSON *value, bool keep_all, bool marked)
{
    if (marked && cJSON_IsString(value) && strcmp(value->valuestring, NAN_MARK) == 0) {
        cJSON_free(value->valuestring);
        value->valuestring = NULL;
        value->type = (value->type & ~0xFF) | cJSON_Number;
        value->valuedouble = NAN;
        return true;
    }
    if (cJSON_IsObject(value) && !keep_all && !drop_repeated(value))
        return false;
    for (cJSON *item = value->child; item; item = item->next)
        if (!settle(item, keep_all, marked))
            return false;
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

cJSON *mb_json_parse(const char *text, size_t n, bool keep_all, size_t *bad)
{
    mb_text rewritten = {0};
    const char *end = NULL;
    bool marked = contains(text, n, "NaN") && !contains(text, n, NAN_MARK);
    if (marked || contains(text, n, "Infinity") || contains(text, n, "\\u")) {
        size_t wrong = rewrite(text, n, &rewritten);
        if (wrong < n || rewritten.failed) {
            if (bad)
                *bad = wrong;
            mb_text_free(&rewritten);
            return NULL;
        }
        text = rewritten.data;
        n = rewritten.length;
    }
    cJSON *value = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    while (value && end < text + n && is_blank(*end))
        end++;
    bool whole = value && end == text + n && settle(value, keep_all, marked);
    if (bad)
        *bad = end ? (size_t)(end - text) : 0;
    if (!whole) {
        cJSON_Delete(value);
        value = NULL;
    }
    mb_text_free(&rewritten);
    return value;
}

const cJSON *mb_json_member(const cJSON *object, const char *name)
{
    const cJSON *found = NULL;
    for (const cJSON *item = object ? object->child : NULL; item; item = item->next) {
        if (item->string && strcmp(item->string, name) == 0)
            found = item;
    }
    return cJSON_IsNull(found) ? NULL : found;
}

bool mb_json_integer(const cJSON *item, int64_t low, int64_t high, int64_t *value)
{
    /* A NAN fails both comparisons. */
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= (double)low && item->valuedouble <= (double)high))
        return false;
    *value = (int64_t)item->valuedouble;
    return true;
}

const char *mb_json_string(const cJSON *object, const char *name)
{
    const cJSON *item = mb_json_member(object, name);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

size_t mb_utf8_python(const char *bytes, size_t n, uint32_t *character)
{
    const unsigned char *b = (const unsigned char *)bytes;
    if (n >= 2 && b[0] == 0xC0 && b[1] == 0x80) {
        *character = 0;
        return 2;
    }
    if (n >= 3 && b[0] == 0xED && b[1] >= 0xA0 && b[1] <= 0xBF && (b[2] & 0xC0) == 0x80) {
        *character = 0xD000u | (uint32_t)(b[1] & 0x3F) << 6 | (uint32_t)(b[2] & 0x3F);
        return 3;
    }
    return mb_utf8_next(bytes, n, character);
}
