/*
 * jsonl.c - a file of JSON objects, one at a time: JSON Lines, or one JSON array of objects (LongBench v2's
 * data.json). Only the current object is in memory, so a file of any size costs its largest object. A line that
 * cannot be read is told with file and line and the stream goes on: one bad row must not cost a run.
 *
 * Invariant: `line` counts the newlines consumed, `start` is the line at which the current object began.
 */
#include "datasets/internal.h"
#include "datasets/read/unicode.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (256u << 10)
#define ROW_MAX ((size_t)1 << 30) /* a longer row is told as bad and passed over without being kept */
#define KEEP (1u << 20)           /* a row buffer larger than this is given back after the row */

struct mb_jsonl {
    char *path;
    int fd;
    char *chunk;
    size_t at, filled; /* unread part of the chunk */
    bool started, array, ended;
    bool counting; /* rows are only counted: of each, one byte that is no blank is kept */
    int64_t line, start;
    mb_text row;
    bool too_long; /* the current row passed ROW_MAX; its bytes are dropped */
};

int mb_jsonl_open(mb_jsonl **reader, const char *path, mb_error *err)
{
    struct stat st;
    *reader = NULL;
    mb_jsonl *r = calloc(1, sizeof *r);
    if (!r)
        return mb_no_memory(err, "reading %s", path);
    r->fd = -1;
    int rc = MB_OK;
    r->path = mb_string_copy(path);
    r->chunk = malloc(CHUNK);
    if (!r->path || !r->chunk) {
        rc = mb_no_memory(err, "reading %s", path);
        goto out;
    }
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0) {
        rc = mb_fail(err, MB_E_INPUT, "cannot open %s: %s", path, strerror(errno));
        goto out;
    }
    if (fstat(r->fd, &st) != 0 || S_ISDIR(st.st_mode)) {
        rc = mb_fail(err, MB_E_INPUT, "%s is a folder, not a file of JSON lines", path);
        goto out;
    }
    *reader = r;
    r = NULL;
out:
    mb_jsonl_close(r);
    return rc;
}

void mb_jsonl_close(mb_jsonl *reader)
{
    if (!reader)
        return;
    if (reader->fd >= 0)
        close(reader->fd);
    free(reader->path);
    free(reader->chunk);
    mb_text_free(&reader->row);
    free(reader);
}

int64_t mb_jsonl_line(const mb_jsonl *reader)
{
    return reader->start;
}

const char *mb_jsonl_path(const mb_jsonl *reader)
{
    return reader->path;
}

/* Makes at least one unread byte available. 1, 0 at the end of the file, or negative. */
static int chunk_fill(mb_jsonl *r, mb_error *err)
{
    if (r->at < r->filled)
        return 1;
    for (;;) {
        ssize_t n = read(r->fd, r->chunk, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mb_fail(err, MB_E_SYSTEM, "cannot read %s: %s", r->path, strerror(errno));
        r->at = 0;
        r->filled = (size_t)n;
        return n > 0;
    }
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void row_keep(mb_jsonl *r, const char *bytes, size_t n)
{
    if (r->counting) {
        for (size_t i = 0; i < n && !r->row.length; i++) {
            if (!is_blank(bytes[i]))
                mb_text_append(&r->row, bytes + i, 1);
        }
        return;
    }
    if (r->too_long || n > ROW_MAX - r->row.length) {
        r->too_long = true;
        mb_text_clear(&r->row);
        return;
    }
    mb_text_append(&r->row, bytes, n);
}

/* The next line without its newline into row. 1, 0 at the end, or negative. */
static int line_read(mb_jsonl *r, mb_error *err)
{
    bool any = false;
    r->start = r->line + 1;
    for (;;) {
        int rc = chunk_fill(r, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return any; /* the last line may lack its newline */
        any = true;
        const char *from = r->chunk + r->at;
        const char *newline = memchr(from, '\n', r->filled - r->at);
        size_t n = newline ? (size_t)(newline - from) : r->filled - r->at;
        row_keep(r, from, n);
        r->at += n + (newline ? 1 : 0);
        if (newline) {
            r->line++;
            return 1;
        }
    }
}

/* The next element of the array into row: brackets are counted outside strings, so an element that is no valid
 * JSON inside still ends where its brackets close. */
static int element_read(mb_jsonl *r, mb_error *err)
{
    int64_t depth = 0;
    bool string = false, escaped = false, any = false;
    for (;;) {
        int rc = chunk_fill(r, err);
        if (rc < 0)
            return rc;
        if (rc == 0) {
            r->ended = true;
            if (any)
                return 1;
            r->start = r->line + 1;
            return mb_fail(err, MB_E_SAMPLE, "%s:%lld: the file ends before the array does", r->path,
                           (long long)r->start);
        }
        size_t from = r->at;
        bool done = false;
        while (r->at < r->filled && !done) {
            char c = r->chunk[r->at];
            if (!any) { /* between elements */
                if (c == '\n')
                    r->line++;
                if (is_blank(c) || c == ',') {
                    from = ++r->at;
                    continue;
                }
                if (c == ']') {
                    r->at++;
                    r->ended = true;
                    return 0;
                }
                any = true;
                r->start = r->line + 1;
            }
            if (string) {
                if (!escaped) { /* most bytes are plain text: a quick way to the next that matters */
                    while (c != '"' && c != '\\' && c != '\n' && r->at + 1 < r->filled)
                        c = r->chunk[++r->at];
                }
                if (escaped)
                    escaped = false;
                else if (c == '\\')
                    escaped = true;
                else if (c == '"')
                    string = false;
            } else if (c == '"') {
                string = true;
            } else if (c == '{' || c == '[') {
                depth++;
            } else if (c == ']' && depth == 0) { /* a bare value right before the array's end */
                done = true;
                break;
            } else if ((c == '}' || c == ']') && depth > 0) {
                done = --depth == 0; /* a stray '}' outside is consumed like any character of a broken row */
            } else if (c == ',' && depth == 0) {
                done = true;
                break;
            }
            if (c == '\n')
                r->line++;
            r->at++;
        }
        row_keep(r, r->chunk + from, r->at - from);
        if (done)
            return 1;
    }
}

/* Looks at the head of the file: skips the byte order mark, decides between lines and an array. */
static int stream_start(mb_jsonl *r, mb_error *err)
{
    r->started = true;
    int rc = chunk_fill(r, err);
    if (rc <= 0)
        return rc < 0 ? rc : 1;
    if (r->filled >= 3 && memcmp(r->chunk, "\xEF\xBB\xBF", 3) == 0)
        r->at = 3;
    size_t i = r->at;
    while (i < r->filled && is_blank(r->chunk[i]))
        i++;
    if (i < r->filled && r->chunk[i] == '[') {
        for (size_t j = r->at; j < i; j++)
            r->line += r->chunk[j] == '\n';
        r->array = true;
        r->at = i + 1;
    }
    return 1;
}

const cJSON *mb_json_member(const cJSON *object, const char *name)
{
    const cJSON *found = NULL;
    for (const cJSON *item = object ? object->child : NULL; item; item = item->next) {
        if (item->string && strcmp(item->string, name) == 0)
            found = item;
    }
    return found;
}

const char *mb_json_string(const cJSON *object, const char *name)
{
    const cJSON *item = mb_json_member(object, name);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

/* cJSON's strings end at NUL, so an escaped one would silently cut the text. */
static bool has_escaped_nul(const char *bytes, size_t n)
{
    for (const char *p = bytes, *end = bytes + n; (p = memchr(p, '\\', (size_t)(end - p))) && end - p >= 2;
         p += 2) {
        if (p[1] == 'u' && end - p >= 6 && memcmp(p + 2, "0000", 4) == 0)
            return true;
    }
    return false;
}

cJSON *mb_json_object(char *bytes, size_t n, mb_error *reason)
{
    size_t offset = 0;
    const char *end = NULL;
    if (!mb_utf8_check(bytes, n, &offset)) {
        mb_fail(reason, 0, "not UTF-8 at byte %zu (0x%02X)", offset + 1, (unsigned char)bytes[offset]);
        return NULL;
    }
    if (memchr(bytes, '\0', n) || has_escaped_nul(bytes, n)) {
        mb_fail(reason, 0, "holds a NUL character, which no text of a benchmark has");
        return NULL;
    }
    cJSON *object = cJSON_ParseWithLengthOpts(bytes, n, &end, 0);
    if (!object) {
        mb_fail(reason, 0, "no valid JSON near byte %zu", end ? (size_t)(end - bytes) + 1 : (size_t)1);
        return NULL;
    }
    while (end < bytes + n && is_blank(*end))
        end++;
    if (end < bytes + n) {
        mb_fail(reason, 0, "more text after the JSON object, at byte %zu", (size_t)(end - bytes) + 1);
    } else if (!cJSON_IsObject(object)) {
        mb_fail(reason, 0, "no JSON object (a row is written {...})");
    } else {
        return object;
    }
    cJSON_Delete(object);
    return NULL;
}

int mb_jsonl_next(mb_jsonl *reader, cJSON **row, mb_error *err)
{
    mb_error reason = {0};
    *row = NULL;
    if (!reader->started) {
        int rc = stream_start(reader, err);
        if (rc < 0)
            return rc;
    }
    for (;;) {
        if (reader->ended)
            return 0;
        if (reader->row.capacity > KEEP)
            mb_text_free(&reader->row);
        mb_text_clear(&reader->row);
        reader->too_long = false;
        int rc = reader->array ? element_read(reader, err) : line_read(reader, err);
        if (rc <= 0) {
            reader->ended = reader->ended || rc == 0 || rc == MB_E_SYSTEM;
            return rc;
        }
        if (reader->row.failed)
            return mb_fail(err, MB_E_SYSTEM, "%s:%lld: no memory for the row", reader->path,
                           (long long)reader->start);
        if (reader->too_long)
            return mb_fail(err, MB_E_SAMPLE, "%s:%lld: the row is longer than %zu MiB", reader->path,
                           (long long)reader->start, ROW_MAX >> 20);
        bool blank = true;
        for (size_t i = 0; i < reader->row.length && blank; i++)
            blank = is_blank(reader->row.data[i]);
        if (blank)
            continue;
        *row = mb_json_object(reader->row.data, reader->row.length, &reason);
        if (reader->row.capacity > KEEP)
            mb_text_free(&reader->row);
        if (!*row)
            return mb_fail(err, MB_E_SAMPLE, "%s:%lld: %s", reader->path, (long long)reader->start, reason.text);
        return 1;
    }
}

int64_t mb_jsonl_count(const char *path)
{
    mb_jsonl *r = NULL;
    int64_t rows = 0;
    if (mb_jsonl_open(&r, path, NULL) != MB_OK)
        return -1;
    r->counting = true;
    int rc = stream_start(r, NULL);
    while (rc >= 0 && !r->ended) {
        mb_text_clear(&r->row);
        rc = r->array ? element_read(r, NULL) : line_read(r, NULL);
        if (rc == 0)
            break;
        rows += rc == MB_E_SAMPLE || r->row.length > 0; /* rows as the reader yields them, bad ones included */
        if (rc == MB_E_SAMPLE)
            rc = 1;
    }
    mb_jsonl_close(r);
    return rc < 0 ? -1 : rows;
}
