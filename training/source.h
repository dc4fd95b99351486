/*
 * source.h - where documents come from: a generator of needles, or a file of JSON lines. A document is a function
 * of (seed, step, number) alone, so that a run that goes on from a checkpoint needs no state of its source.
 */
#ifndef MB_TRAINING_SOURCE_H
#define MB_TRAINING_SOURCE_H

#include "base/base.h"
#include "model/model.h"

typedef enum mb_mark { MB_MARK_TEXT = 0, MB_MARK_ANSWER = 1, MB_MARK_PADDING = 2 } mb_mark;

typedef struct mb_document {
    int32_t *ids;   /* [length]; owned */
    uint8_t *marks; /* [length], of mb_mark; owned */
    int32_t length;
} mb_document;
void mb_document_free(mb_document *document);

/* What a document shall be. */
typedef struct mb_document_request {
    int32_t length, tail; /* tokens; questions and answers fill most of the tail */
    int32_t block;        /* answers are padded to a multiple of it */
    uint64_t seed, number;
} mb_document_request;

typedef struct mb_source mb_source;
/* The needle generator (needles.c). The tokenizer stays the caller's. */
int mb_source_needles(mb_source **source, const mb_tokenizer *tokenizer, mb_error *err);
/* JSON lines (jsonl.c), each an object with text in member `field`; end: the id between two texts. */
int mb_source_jsonl(mb_source **source, const char *path, const char *field, const mb_tokenizer *tokenizer,
                    int32_t end, mb_error *err);
int mb_source_next(mb_source *source, const mb_document_request *request, mb_document *document, mb_error *err);
void mb_source_close(mb_source *source);

/* Internal: a source as its own file fills it. */
struct mb_source {
    int (*next)(mb_source *source, const mb_document_request *request, mb_document *document, mb_error *err);
    void (*close)(mb_source *source); /* frees the source too */
};

#endif
