/*
 * fuzz_documents.c - any bytes as the JSON lines that a model is trained on. Every document is refused with a
 * sentence that names the file, or is full of tokens of the tokenizer, and comes again when it is asked for again.
 */
#include "model/tokenizer/tokenizer.h"
#include "training/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[] = "/dev/shm/mb_fuzz_documents_XXXXXX";
static mb_tokenizer *tokenizer; /* opened once for all inputs */

static void drop(void)
{
    unlink(path);
    mb_tokenizer_close(tokenizer);
}

static void make(void)
{
    int file = mkstemp(path);
    if (file < 0 || mb_tokenizer_open(&tokenizer, "tests/model/fixtures/bpe", NULL) != MB_OK)
        abort(); /* run it from the root of the repository */
    close(file);
    atexit(drop);
}

static void check(mb_source *source, uint64_t number)
{
    const mb_document_request request = {.length = 96, .tail = 32, .block = 8, .seed = 5, .number = number};
    mb_document documents[2] = {{0}};
    int codes[2];
    for (int i = 0; i < 2; i++) {
        mb_error err = {0};
        codes[i] = mb_source_next(source, &request, &documents[i], &err);
        if (codes[i] != MB_OK && ((codes[i] != MB_E_INPUT && codes[i] != MB_E_SYSTEM) || !strstr(err.text, path)))
            abort();
    }
    if (codes[0] != codes[1])
        abort();
    for (int32_t i = 0; codes[0] == MB_OK && i < request.length; i++)
        if (documents[0].length != request.length || documents[0].ids[i] != documents[1].ids[i] ||
            documents[0].ids[i] < 0 || documents[0].ids[i] >= mb_tokenizer_size(tokenizer))
            abort();
    mb_document_free(&documents[0]);
    mb_document_free(&documents[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_source *source = NULL;
    mb_error err = {0};
    if (!tokenizer)
        make();
    if (mb_file_write(path, data, size, NULL) != MB_OK)
        abort();
    if (mb_source_jsonl(&source, path, "text", tokenizer, 0, &err) == MB_OK)
        for (uint64_t number = 1; number <= 3; number++)
            check(source, number);
    else if (!err.text[0] || source)
        abort();
    mb_source_close(source);
    return 0;
}
