/*
 * jsonl.c - a file of JSON objects, one at a time: JSON Lines, or one JSON array of objects (LongBench v2's
 * data.json). Only the current object is in memory, so a file of any size costs its largest object. A line that
 * cannot be read is told with file and line and the stream goes on: one bad row must not end a run.
 *
 * Invariant: `line` counts the newlines consumed, `start` is the line at which the current object began.
 */
#include "datasets/internal.h"

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
    size_t size;
    rc = mb_file_open(path, &r->fd, &size, err);
    if (rc != MB_OK)
        goto out;
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

/* Where a scan through the array stands. */
typedef struct scan {
    int64_t depth;
    bool string, escaped;
    bool any;  /* inside an element */
    bool done; /* behind one */
} scan;

/* One character inside an element: brackets are counted outside of texts. False: it belongs to no element. */
static bool scan_step(scan *s, char c)
{
    if (s->string) {
        s->string = s->escaped || c != '"';
        s->escaped = !s->escaped && c == '\\';
        return true;
    }
    if (s->depth == 0 && (c == ',' || c == ']')) { /* a bare value ends here */
        s->done = true;
        return false;
    }
    s->string = c == '"';
    if (c == '{' || c == '[')
        s->depth++;
    else if ((c == '}' || c == ']') && s->depth > 0)
        s->done = --s->depth == 0; /* a stray '}' outside is consumed like any character of a broken row */
    return true;
}

/* Passes over what stands between elements. 1 = an element begins, 0 = the chunk or the array ends. */
static int scan_gap(mb_jsonl *r)
{
    for (; r->at < r->filled; r->at++) {
        char c = r->chunk[r->at];
        if (c == '\n')
            r->line++;
        if (is_blank(c) || c == ',')
            continue;
        r->ended = c == ']';
        r->at += r->ended;
        return !r->ended;
    }
    return 0;
}

/* The rest of an element in this chunk. Most bytes are plain text: a quick way to the next that matters. */
static void scan_element(mb_jsonl *r, scan *s)
{
    while (r->at < r->filled && !s->done) {
        char c = r->chunk[r->at];
        if (s->string && !s->escaped) {
            while (c != '"' && c != '\\' && c != '\n' && r->at + 1 < r->filled)
                c = r->chunk[++r->at];
        }
        if (!scan_step(s, c))
            return;
        r->line += c == '\n';
        r->at++;
    }
}

/* The next element of the array into row. One that is no valid JSON inside still ends where its brackets close. */
static int element_read(mb_jsonl *r, mb_error *err)
{
    scan s = {0};
    for (;;) {
        int rc = chunk_fill(r, err);
        if (rc < 0)
            return rc;
        if (rc == 0) {
            r->ended = true;
            if (s.any)
                return 1;
            r->start = r->line + 1;
            return mb_fail(err, MB_E_SAMPLE, "%s:%lld: the file ends before the array does", r->path,
                           (long long)r->start);
        }
        if (!s.any && scan_gap(r)) {
            s.any = true;
            r->start = r->line + 1;
        }
        if (r->ended)
            return 0;
        size_t from = r->at;
        if (s.any)
            scan_element(r, &s);
        row_keep(r, r->chunk + from, r->at - from);
        if (s.done)
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

cJSON *mb_json_object(const char *bytes, size_t n, mb_error *reason)
{
    size_t offset = 0;
    if (!mb_utf8_check(bytes, n, &offset)) {
        mb_fail(reason, 0, "not UTF-8 at byte %zu (0x%02X)", offset + 1, (unsigned char)bytes[offset]);
        return NULL;
    }
    const char *nul = memchr(bytes, '\0', n); /* only its escape is JSON */
    cJSON *object = nul ? NULL : mb_json_parse(bytes, n, false, &offset);
    offset = nul ? (size_t)(nul - bytes) : offset;
    if (cJSON_IsObject(object))
        return object;
    if (object)
        mb_fail(reason, 0, "no JSON object (a row is written {...})");
    else
        mb_fail(reason, 0, "no valid JSON near byte %zu", offset + 1);
    cJSON_Delete(object);
    return NULL;
}

/* The next row that is not blank into reader->row. 1, 0 at the end, or negative. */
static int row_read(mb_jsonl *r, mb_error *err)
{
    while (!r->ended) {
        if (r->row.capacity > KEEP)
            mb_text_free(&r->row);
        mb_text_clear(&r->row);
        r->too_long = false;
        int rc = r->array ? element_read(r, err) : line_read(r, err);
        if (rc <= 0) {
            r->ended = r->ended || rc == 0 || rc == MB_E_SYSTEM;
            return rc;
        }
        if (r->row.failed)
            return mb_fail(err, MB_E_SYSTEM, "%s:%lld: no memory for the row", r->path, (long long)r->start);
        if (r->too_long)
            return mb_fail(err, MB_E_SAMPLE, "%s:%lld: the row is longer than %zu MiB", r->path,
                           (long long)r->start, ROW_MAX >> 20);
        for (size_t i = 0; i < r->row.length; i++)
            if (!is_blank(r->row.data[i]))
                return 1;
    }
    return 0;
}

int mb_jsonl_next(mb_jsonl *reader, cJSON **row, mb_error *err)
{
    mb_error reason = {0};
    *row = NULL;
    int rc = reader->started ? 1 : stream_start(reader, err);
    if (rc < 0)
        return rc;
    rc = row_read(reader, err);
    if (rc <= 0)
        return rc;
    *row = mb_json_object(reader->row.data, reader->row.length, &reason);
    if (reader->row.capacity > KEEP)
        mb_text_free(&reader->row);
    if (!*row)
        return mb_fail(err, MB_E_SAMPLE, "%s:%lld: %s", reader->path, (long long)reader->start, reason.text);
    return 1;
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
