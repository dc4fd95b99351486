/*
 * jsonc.c - the text of a config file to JSON. A file may hold what people write and JSON does not allow: comments
 * from // to the end of the line, comments between slash-star and star-slash, and a comma behind the last member
 * or entry. Each is overwritten with blanks before cJSON reads the text, so that every other character keeps its
 * line and column and an error is found where it stands. Inside of a text in quotes nothing is touched.
 */
#include "driver/config/keys.h"

#include <stdlib.h>
#include <string.h>

/* Line and column of a byte in text, for the sentence about broken JSON. */
static void locate(const char *text, const char *at, int *line, int *column)
{
    *line = 1;
    *column = 1;
    for (; text < at; text++) {
        (*column)++;
        if (*text == '\n') {
            (*line)++;
            *column = 1;
        }
    }
}

/* Behind the text in quotes that begins at p, or the end of the file. */
static char *skip_text(char *p)
{
    for (p++; *p && *p != '"'; p++)
        if (*p == '\\' && p[1])
            p++;
    return *p ? p + 1 : p;
}

static char *blank_line(char *p)
{
    while (*p && *p != '\n')
        *p++ = ' ';
    return p;
}

/* NULL: the comment does not end. */
static char *blank_comment(char *p)
{
    char *end = strstr(p + 2, "*/");
    if (!end)
        return NULL;
    for (; p < end + 2; p++)
        if (*p != '\n' && *p != '\r')
            *p = ' ';
    return p;
}

/* Blanks comments and commas that close a list; NULL, or the comment that does not end. */
static const char *blank(char *text)
{
    char *comma = NULL; /* the comma that was read last, while nothing but blanks follows */
    char before = '\0'; /* what stands in front of it */
    char last = '\0';
    for (char *p = text; *p;) {
        char *start = p;
        if (p[0] == '/' && p[1] == '/') {
            p = blank_line(p);
        } else if (p[0] == '/' && p[1] == '*') {
            if (!(p = blank_comment(p)))
                return start;
        } else if (strchr(" \t\r\n", *p)) {
            p++;
        } else {
            if ((*p == '}' || *p == ']') && comma && !strchr("{[,:", before))
                *comma = ' ';
            comma = *p == ',' ? p : NULL;
            before = *p == ',' ? last : before;
            last = *p;
            p = *p == '"' ? skip_text(p) : p + 1;
        }
    }
    return NULL;
}

/* The bounds of a config, held in one walk: what follows may then look at every pair of two keys of an object. */
static int check_bounds(const cJSON *value, int depth, const char *path, mb_error *err)
{
    size_t count = 0;
    int rc = MB_OK;
    if (depth > MB_CONFIG_MAX_DEPTH)
        return mb_fail(err, MB_E_INPUT, "%s is nested deeper than %d levels: a config is not", path,
                       MB_CONFIG_MAX_DEPTH);
    for (const cJSON *item = value->child; item && rc == MB_OK; item = item->next) {
        if (++count > MB_CONFIG_MAX_ENTRIES)
            return mb_fail(err, MB_E_INPUT, "%s: %s%.64s%s has more than %d entries: write several configs", path,
                           value->string ? "\"" : "the file", value->string ? value->string : "",
                           value->string ? "\"" : "", MB_CONFIG_MAX_ENTRIES);
        rc = check_bounds(item, depth + 1, path, err);
    }
    return rc;
}

int mb_config_text(const char *text, size_t size, const char *path, cJSON **json, mb_error *err)
{
    const char *end = NULL;
    int line, column, rc = MB_OK;
    *json = NULL;
    if (memchr(text, '\0', size))
        return mb_fail(err, MB_E_INPUT, "%s is not a text file", path);
    char *plain = mb_string_copy(text);
    if (!plain)
        return mb_no_memory(err, "the config");
    const char *open = blank(plain);
    if (open) {
        locate(plain, open, &line, &column);
        rc = mb_fail(err, MB_E_INPUT, "%s: the comment that begins at line %d, column %d has no end", path, line,
                     column);
    } else if (!(*json = cJSON_ParseWithLengthOpts(plain, size + 1, &end, true))) {
        locate(plain, end && end <= plain + size ? end : plain + size, &line, &column);
        rc = mb_fail(err, MB_E_INPUT, "%s is not valid JSON at line %d, column %d", path, line, column);
    } else if (!cJSON_IsObject(*json)) {
        cJSON_Delete(*json);
        *json = NULL;
        rc = mb_fail(err, MB_E_INPUT, "%s must hold one JSON object", path);
    } else if ((rc = check_bounds(*json, 0, path, err)) != MB_OK) {
        cJSON_Delete(*json);
        *json = NULL;
    }
    free(plain);
    return rc;
}
