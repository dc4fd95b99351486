/*
 * convert.c - fp32, bf16 and f16 into each other, exact where the target can hold the value and rounded to
 * nearest even where it cannot; NaN stays NaN. Written on the bits, so that it is the same on every machine.
 */
#include "model/checkpoint/convert.h"

#include <string.h>

/* Through memcpy: the only cast between float and bits that C defines. */
static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Adding just under half of the last kept bit, plus that bit, is round to nearest even. */
static uint16_t to_bf16(float value)
{
    uint32_t bits = to_bits(value);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    uint32_t quiet = bits >> 16 | 0x40u; /* of a NaN, which rounding could carry into infinity */
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

static float from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 1023u;
    if (exponent == 31)
        return from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0)
        return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f; /* zero and subnormals, exact */
    return sign ? -value : value;
}

static uint16_t to_f16(float value)
{
    uint32_t bits = to_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* 65520: rounds to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: subnormal in f16; adding 0.5 makes the FPU round at 2^-24 */
        uint32_t shifted = to_bits(from_bits(magnitude) + 0.5f) - to_bits(0.5f);
        return (uint16_t)(sign | shifted);
    }
    /* Normal range: the same rounding at bit 13, then the exponent's bias from 127 to 15. */
    uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

float mb_type_round(float value, mb_type type)
{
    if (type == MB_BF16)
        return from_bits((uint32_t)to_bf16(value) << 16);
    return type == MB_F16 ? from_f16(to_f16(value)) : value;
}

/* n values of a 2-byte type -> fp32 and back; one loop a type, so that the compiler can vectorise it. */
static void widen(float *out, const unsigned char *src, mb_type from, size_t n)
{
    uint16_t half;
    if (from == MB_F32) {
        memcpy(out, src, n * sizeof *out);
    } else if (from == MB_BF16) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, src + 2 * i, sizeof half);
            out[i] = from_bits((uint32_t)half << 16);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, src + 2 * i, sizeof half);
            out[i] = from_f16(half);
        }
    }
}

static void narrow(unsigned char *out, const float *values, mb_type to, size_t n)
{
    uint16_t half;
    if (to == MB_F32) {
        memcpy(out, values, n * sizeof *values);
    } else if (to == MB_BF16) {
        for (size_t i = 0; i < n; i++) {
            half = to_bf16(values[i]);
            memcpy(out + 2 * i, &half, sizeof half);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            half = to_f16(values[i]);
            memcpy(out + 2 * i, &half, sizeof half);
        }
    }
}

void mb_type_convert(void *dst, mb_type to, const void *src, mb_type from, size_t n)
{
    const unsigned char *in = src;
    unsigned char *out = dst;
    float block[512];
    if (to == from) {
        memcpy(dst, src, n * mb_type_size(to));
        return;
    }
    for (size_t done = 0; done < n; done += 512) {
        size_t count = n - done < 512 ? n - done : 512;
        widen(block, in + done * mb_type_size(from), from, count);
        narrow(out + done * mb_type_size(to), block, to, count);
    }
}
