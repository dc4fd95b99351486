/*
 * fuzz_gguf.c - any bytes as a GGUF file: refused with a sentence or described, every tensor inside the file and
 * readable, and its texts are written without reading past anything.
 */
#include "model/checkpoint/gguf_model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_failure(int rc, const mb_error *err)
{
    if (rc != MB_OK && ((rc != MB_E_INPUT && rc != MB_E_SYSTEM) || err->text[0] == '\0'))
        abort();
}

static void write_texts(const mb_gguf *gguf)
{
    int (*const writers[])(const mb_gguf *, mb_text *, mb_error *) = {
        mb_gguf_write_config, mb_gguf_write_tokenizer, mb_gguf_write_tokenizer_config};
    for (size_t i = 0; i < 3; i++) {
        mb_text text = {0};
        mb_error err = {0};
        check_failure(writers[i](gguf, &text, &err), &err);
        mb_text_free(&text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_gguf gguf;
    mb_error err = {0};
    int rc = mb_gguf_parse(&gguf, data, size, "input", &err);
    check_failure(rc, &err);
    if (rc != MB_OK)
        return 0;
    write_texts(&gguf);
    check_failure(mb_gguf_rename(&gguf, &err), &err);
    for (size_t i = 0; i < gguf.tensor_count; i++) {
        const mb_tensor *tensor = &gguf.tensors[i];
        uint64_t elements = 1;
        float value;
        if (!tensor->name)
            continue;
        for (int32_t d = 0; d < tensor->rank; d++)
            elements *= (uint64_t)tensor->shape[d];
        if (tensor->data < data || tensor->data + tensor->bytes > data + size)
            abort();
        for (uint64_t k = 0; k < elements; k += elements / 64 + 1)
            mb_tensor_read(tensor, k, 1, &value, MB_F32);
        mb_tensor_read(tensor, elements - 1, 1, &value, MB_F32);
    }
    mb_gguf_free(&gguf);
    return 0;
}
