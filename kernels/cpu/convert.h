/*
 * convert.h - between the storage type T and fp32. bf16 and f16 round to nearest, ties to even; NaN stays NaN
 * (quiet); infinities and zeros keep their sign; what is too large for f16 becomes infinite and what is small
 * keeps its subnormals. fp32 passes through untouched, so that every operation is one piece of code for all types.
 * The loops have no branches, so that compilers vectorise them.
 */
#ifndef MB_KERNELS_CPU_CONVERT_H
#define MB_KERNELS_CPU_CONVERT_H

#include "kernels/kernels.h"

#include <string.h>

static inline uint32_t mb_bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float mb_float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float mb_float_from_bf16(uint16_t x)
{
    return mb_float_of((uint32_t)x << 16);
}

static inline uint16_t mb_bf16_from_float(float x)
{
    uint32_t bits = mb_bits_of(x);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/* Exact: the exponent's bias from 15 to 127 by a product, which renormalises subnormals; infinity and NaN keep the
 * largest exponent. */
static inline float mb_float_from_f16(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, rest = (uint32_t)(x & 0x7fffu) << 13;
    uint32_t finite = mb_bits_of(mb_float_of(rest) * 0x1p112f), special = rest | 0x7f800000u;
    return mb_float_of(sign | (rest >= 0x0f800000u ? special : finite));
}

static inline uint16_t mb_f16_from_float(float x)
{
    uint32_t bits = mb_bits_of(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    /* Below 2^-14 the FPU rounds at 2^-24 when 0.5 is added; else at bit 13, and the bias goes from 127 to 15. */
    uint32_t small = mb_bits_of(mb_float_of(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
    uint32_t finite = magnitude < 0x38800000u ? small : normal;
    uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return (uint16_t)(sign | (magnitude >= 0x477ff000u ? large : finite)); /* 65520 and more round to infinity */
}

/* x rounded to T and back. */
static inline float mb_round_to(mb_type type, float x)
{
    return type == MB_BF16  ? mb_float_from_bf16(mb_bf16_from_float(x))
           : type == MB_F16 ? mb_float_from_f16(mb_f16_from_float(x))
                            : x;
}

/* The same for n values in place. */
static inline void mb_round_row(mb_type type, float *v, int64_t n)
{
    if (type == MB_BF16)
        for (int64_t i = 0; i < n; i++)
            v[i] = mb_float_from_bf16(mb_bf16_from_float(v[i]));
    else if (type == MB_F16)
        for (int64_t i = 0; i < n; i++)
            v[i] = mb_float_from_f16(mb_f16_from_float(v[i]));
}

/* Element i of an array of T. */
static inline float mb_load_one(mb_type type, const void *src, int64_t i)
{
    return type == MB_BF16  ? mb_float_from_bf16(((const uint16_t *)src)[i])
           : type == MB_F16 ? mb_float_from_f16(((const uint16_t *)src)[i])
                            : ((const float *)src)[i];
}

static inline void mb_store_one(mb_type type, void *dst, int64_t i, float x)
{
    if (type == MB_BF16)
        ((uint16_t *)dst)[i] = mb_bf16_from_float(x);
    else if (type == MB_F16)
        ((uint16_t *)dst)[i] = mb_f16_from_float(x);
    else
        ((float *)dst)[i] = x;
}

/* n elements from element `first` of src (of T) to fp32. */
static inline void mb_load_row(mb_type type, const void *src, int64_t first, int64_t n, float *restrict dst)
{
    if (type == MB_BF16) {
        const uint16_t *from = (const uint16_t *)src + first;
        for (int64_t i = 0; i < n; i++)
            dst[i] = mb_float_from_bf16(from[i]);
    } else if (type == MB_F16) {
        const uint16_t *from = (const uint16_t *)src + first;
        for (int64_t i = 0; i < n; i++)
            dst[i] = mb_float_from_f16(from[i]);
    } else {
        memcpy(dst, (const float *)src + first, (size_t)n * sizeof(float));
    }
}

/* n fp32 values to elements first .. of dst (of T). */
static inline void mb_store_row(mb_type type, void *dst, int64_t first, int64_t n, const float *restrict src)
{
    if (type == MB_BF16) {
        uint16_t *to = (uint16_t *)dst + first;
        for (int64_t i = 0; i < n; i++)
            to[i] = mb_bf16_from_float(src[i]);
    } else if (type == MB_F16) {
        uint16_t *to = (uint16_t *)dst + first;
        for (int64_t i = 0; i < n; i++)
            to[i] = mb_f16_from_float(src[i]);
    } else {
        memcpy((float *)dst + first, src, (size_t)n * sizeof(float));
    }
}

#endif
