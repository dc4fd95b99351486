/*
 * quant.h - how the numbers of a tensor lie in its file: plain ones, or blocks of few bits with a scale, as GGUF
 * files have them. Internal to model/.
 */
#ifndef MB_MODEL_QUANT_H
#define MB_MODEL_QUANT_H

#include "model/checkpoint/safetensors.h"

#define MB_QUANT_ELEMENTS_MAX 256

/* A type of ggml: `elements` numbers lie in `bytes` bytes. decode NULL: plain numbers of `type`. */
struct mb_quant {
    uint32_t id;
    const char *name; /* "Q4_K" */
    int32_t elements, bytes;
    mb_type type; /* plain numbers; MB_F32 for blocks */
    /* One block -> `elements` values. Every step but the last is exact in fp32, so that there is one result. */
    void (*decode)(const unsigned char *block, float *values);
};

/* NULL: a type that is not read. */
const struct mb_quant *mb_quant_find(uint32_t id);
/* "F32, F16, ...": the types that are. */
void mb_quant_list(mb_text *out);

/* Elements first .. first + n - 1 of a usable tensor, in the order of its shape, as type `to` at dst. */
void mb_tensor_read(const mb_tensor *tensor, size_t first, size_t n, void *dst, mb_type to);

#endif
