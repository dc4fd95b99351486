/*
 * convert.h - numbers between the storage types of checkpoints and devices. Internal to model/.
 */
#ifndef MB_MODEL_CONVERT_H
#define MB_MODEL_CONVERT_H

#include "model/internal.h"

/* n elements of type `from` at src (any alignment) -> type `to` at dst, rounding to nearest even. Types: F32,
 * BF16, F16. */
void mb_type_convert(void *dst, mb_type to, const void *src, mb_type from, size_t n);

#endif
