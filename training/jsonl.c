/*
 * jsonl.c - training text from a file of JSON lines. The file is mapped and its lines are found once; a document
 * is made by beginning at a line that (seed, number) draws and going on through the file, with an end token
 * between two texts, until it is full: text is tokenised when it is needed, and nothing is kept.
 */
#include "training/source.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct jsonl {
    mb_source base;
    const mb_tokenizer *tokenizer;
    char *path, *field;
    int32_t end;
    const unsigned char *data;
    size_t size, count;
    size_t *lines; /* [count]: where each line that is not blank begins */
} jsonl;

static size_t line_length(const jsonl *j, size_t at)
{
    const unsigned char *end = memchr(j->data + at, '\n', j->size - at);
    return end ? (size_t)(end - j->data) - at : j->size - at;
}

static int find_lines(jsonl *j, mb_error *err)
{
    size_t capacity = 0, number = 0;
    for (size_t at = 0; at < j->size; number++) {
        const size_t n = line_length(j, at);
        bool blank = true;
        for (size_t i = at; i < at + n; i++)
            blank = blank && (j->data[i] == ' ' || j->data[i] == '\r' || j->data[i] == '\t');
        if (!blank && j->count == capacity) {
            capacity = 2 * capacity + 1024;
            size_t *grown = realloc(j->lines, capacity * sizeof *grown);
            if (!grown)
                return mb_no_memory(err, "the lines of %s", j->path);
            j->lines = grown;
        }
        if (!blank)
            j->lines[j->count++] = at;
        at += n + 1;
    }
    return j->count ? MB_OK : mb_fail(err, MB_E_INPUT, "%s has no lines; training needs at least one", j->path);
}

/* Tokens of the text of one line, appended to the document at *at as far as there is room. */
static int add_line(const jsonl *j, size_t line, mb_document *d, int32_t *at, mb_error *err)
{
    const size_t begin = j->lines[line];
    cJSON *object = cJSON_ParseWithLength((const char *)j->data + begin, line_length(j, begin));
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, j->field));
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = text ? mb_tokenizer_encode(j->tokenizer, text, strlen(text), true, &ids, &n, err)
                  : mb_fail(err, MB_E_INPUT, "%s: entry %zu is no JSON object with text in \"%s\"", j->path,
                            line + 1, j->field);
    for (size_t i = 0; rc == MB_OK && i < n && *at < d->length; i++)
        d->ids[(*at)++] = ids[i];
    if (rc == MB_OK && *at < d->length)
        d->ids[(*at)++] = j->end;
    free(ids);
    cJSON_Delete(object);
    return rc;
}

static int next_jsonl(mb_source *source, const mb_document_request *request, mb_document *d, mb_error *err)
{
    const jsonl *j = (const jsonl *)(const void *)source;
    char name[64];
    int32_t at = 0;
    int rc = MB_OK;
    snprintf(name, sizeof name, "jsonl:%llu", (unsigned long long)request->number);
    mb_random random = mb_random_named(request->seed, name);
    for (size_t line = (size_t)mb_random_below(&random, j->count); rc == MB_OK && at < d->length; line++)
        rc = add_line(j, line % j->count, d, &at, err);
    return rc;
}

static void close_jsonl(mb_source *source)
{
    jsonl *j = (jsonl *)(void *)source;
    mb_file_unmap(j->data, j->size);
    free(j->lines);
    free(j->path);
    free(j->field);
    free(j);
}

int mb_source_jsonl(mb_source **source, const char *path, const char *field, const mb_tokenizer *tokenizer,
                    int32_t end, mb_error *err)
{
    jsonl *j = calloc(1, sizeof *j);
    *source = NULL;
    if (!j)
        return mb_no_memory(err, "the training text");
    *j = (jsonl){.base = {next_jsonl, close_jsonl},
                 .tokenizer = tokenizer,
                 .path = mb_string_copy(path),
                 .field = mb_string_copy(field),
                 .end = end};
    int rc = j->path && j->field ? mb_file_map(path, &j->data, &j->size, err) : mb_no_memory(err, "%s", path);
    if (rc == MB_OK)
        rc = find_lines(j, err);
    if (rc == MB_OK)
        *source = &j->base;
    else
        close_jsonl(&j->base);
    return rc;
}
