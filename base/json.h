/*
 * json.h - JSON as Python's json module reads it, for every room that reads files which Python programs wrote:
 * checkpoints, data files, predictions.
 *
 * cJSON parses; what it does otherwise than Python is settled here. NaN, Infinity and -Infinity are numbers. Of a
 * key that stands twice in an object the last one counts. Texts are C strings, so the escape \u0000 becomes the
 * bytes C0 80 and half of a surrogate pair its three bytes (U+D83D: ED A0 BD): neither is UTF-8, so
 * mb_utf8_check() finds them, and mb_utf8_python() reads them back.
 */
#ifndef MB_BASE_JSON_H
#define MB_BASE_JSON_H

#include "base/base.h"

#include <cjson/cJSON.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The value of n bytes with nothing but blanks behind it; cJSON_Delete() frees it. keep_all: objects keep every
 * member, twice or not. NULL: no JSON, or no memory; *bad (may be NULL) is the place in the text, near enough for
 * a line number. At most 1000 levels deep. */
cJSON *mb_json_parse(const char *text, size_t n, bool keep_all, size_t *bad);

/* An object's member; NULL for absent and for null. Of several the last. */
const cJSON *mb_json_member(const cJSON *object, const char *name);
/* The member's text, borrowed; NULL when absent or no text. */
const char *mb_json_string(const cJSON *object, const char *name);

/* A number as an integer, its fraction cut off; false: no number, or one outside of low .. high (within 2^53 of 0,
 * where every integer is a double). The one way from JSON's doubles to integers: a cast of 1e30 is undefined. */
bool mb_json_integer(const cJSON *item, int64_t low, int64_t high, int64_t *value);

/* As mb_utf8_next(), but C0 80 is U+0000 and a surrogate of three bytes is itself. */
size_t mb_utf8_python(const char *bytes, size_t n, uint32_t *character);

#ifdef __cplusplus
}
#endif
#endif
