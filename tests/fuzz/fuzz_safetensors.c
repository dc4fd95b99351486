/*
 * fuzz_safetensors.c - any bytes as a weight file: the parser must refuse or describe them, and every tensor that
 * it describes must lie inside the file.
 */
#include "model/checkpoint/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_safetensors table;
    mb_error err = {0};
    int rc = mb_safetensors_parse(&table, data, size, "input", &err);
    if (rc != MB_OK) {
        if ((rc != MB_E_INPUT && rc != MB_E_SYSTEM) || err.text[0] == '\0' || table.tensors)
            abort();
        return 0;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < table.count; i++) {
        const mb_tensor *tensor = &table.tensors[i];
        uint64_t elements = 1;
        for (int32_t d = 0; d < tensor->rank; d++)
            elements *= (uint64_t)tensor->shape[d];
        if (tensor->data < data || tensor->data + tensor->bytes > data + size)
            abort();
        if (tensor->usable && elements * mb_type_size(tensor->type) != tensor->bytes)
            abort();
        for (size_t k = 0; k < tensor->bytes; k++)
            sum += tensor->data[k];
        if (mb_safetensors_find(&table, tensor->name) != tensor)
            abort();
    }
    mb_safetensors_free(&table);
    return sum == 0xffffffffu; /* keeps the reads */
}
