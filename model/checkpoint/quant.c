/*
 * quant.c - the block types of ggml that are read, and elements of a tensor whatever it is stored as.
 *
 * The layouts are those of ggml's reference (ggml-quants.c, version 2 of the quantisation): a block has one or two
 * scales in f16, in the types with K every 16 or 32 numbers have a scale of few bits of their own. Products of
 * scales and small integers fit into the 24 bits of fp32, so only the last operation rounds.
 */
#include "model/checkpoint/quant.h"

#include "model/checkpoint/convert.h"

#include <string.h>

static float half_at(const unsigned char *bytes)
{
    float value;
    mb_type_convert(&value, MB_F32, bytes, MB_F16, 1);
    return value;
}

static uint32_t word_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* ---- blocks of 32 ---- */

static void decode_q4_0(const unsigned char *block, float *values)
{
    const float scale = half_at(block);
    for (int i = 0; i < 16; i++) {
        values[i] = (float)((block[2 + i] & 15) - 8) * scale;
        values[i + 16] = (float)((block[2 + i] >> 4) - 8) * scale;
    }
}

static void decode_q4_1(const unsigned char *block, float *values)
{
    const float scale = half_at(block), least = half_at(block + 2);
    for (int i = 0; i < 16; i++) {
        values[i] = (float)(block[4 + i] & 15) * scale + least;
        values[i + 16] = (float)(block[4 + i] >> 4) * scale + least;
    }
}

static void decode_q5_0(const unsigned char *block, float *values)
{
    const float scale = half_at(block);
    const uint32_t high = word_at(block + 2); /* the fifth bits */
    for (int i = 0; i < 16; i++) {
        int low_bit = (int)(high >> i & 1u) << 4, high_bit = (int)(high >> (i + 16) & 1u) << 4;
        values[i] = (float)((block[6 + i] & 15) + low_bit - 16) * scale;
        values[i + 16] = (float)((block[6 + i] >> 4) + high_bit - 16) * scale;
    }
}

static void decode_q5_1(const unsigned char *block, float *values)
{
    const float scale = half_at(block), least = half_at(block + 2);
    const uint32_t high = word_at(block + 4);
    for (int i = 0; i < 16; i++) {
        int low_bit = (int)(high >> i & 1u) << 4, high_bit = (int)(high >> (i + 16) & 1u) << 4;
        values[i] = (float)((block[8 + i] & 15) + low_bit) * scale + least;
        values[i + 16] = (float)((block[8 + i] >> 4) + high_bit) * scale + least;
    }
}

static void decode_q8_0(const unsigned char *block, float *values)
{
    const float scale = half_at(block);
    for (int i = 0; i < 32; i++)
        values[i] = (float)(signed char)block[2 + i] * scale;
}

/* ---- blocks of 256 ---- */

/* Scale and minimum of the i-th 32 numbers: 6 bits each, 16 of them in 12 bytes. */
static void k_scales(const unsigned char *bytes, int i, float *scale, float *least)
{
    int s = bytes[i < 4 ? i : i + 4], m = bytes[i + 4];
    if (i < 4) {
        s &= 63;
        m &= 63;
    } else {
        s = (bytes[i + 4] & 15) | (bytes[i - 4] >> 6) << 4;
        m = (bytes[i + 4] >> 4) | (bytes[i] >> 6) << 4;
    }
    *scale *= (float)s;
    *least *= (float)m;
}

/* 4 bits of a number lie in `low`; bit `i` of the bytes at `high` (NULL: none) is the fifth of the i-th 32. */
static void decode_k(const unsigned char *block, const unsigned char *high, const unsigned char *low,
                     float *values)
{
    for (int i = 0; i < 8; i++) {
        float scale = half_at(block), least = half_at(block + 2);
        k_scales(block + 4, i, &scale, &least);
        for (int k = 0; k < 32; k++) {
            int byte = low[i / 2 * 32 + k], q = i % 2 ? byte >> 4 : byte & 15;
            if (high)
                q += (high[k] >> i & 1) << 4;
            values[32 * i + k] = scale * (float)q - least;
        }
    }
}

static void decode_q4_k(const unsigned char *block, float *values)
{
    decode_k(block, NULL, block + 16, values);
}

static void decode_q5_k(const unsigned char *block, float *values)
{
    decode_k(block, block + 16, block + 48, values);
}

/* 128 bytes of low bits, 64 of high bits, 16 signed scales, one scale for all. */
static void decode_q6_k(const unsigned char *block, float *values)
{
    const unsigned char *low = block, *high = block + 128, *scales = block + 192;
    const float all = half_at(block + 208);
    for (int i = 0; i < 256; i++) {
        int part = i / 128, row = i % 128 / 32, k = i % 32; /* four rows of 32 share 64 bytes of low bits */
        int byte = low[64 * part + 32 * (row & 1) + k], four = row < 2 ? byte & 15 : byte >> 4;
        int two = high[32 * part + k] >> (2 * row) & 3;
        float scale = all * (float)(signed char)scales[i / 16];
        values[i] = scale * (float)((four | two << 4) - 32);
    }
}

static const struct mb_quant quants[] = {
    {0, "F32", 1, 4, MB_F32, NULL},
    {1, "F16", 1, 2, MB_F16, NULL},
    {30, "BF16", 1, 2, MB_BF16, NULL},
    {2, "Q4_0", 32, 18, MB_F32, decode_q4_0},
    {3, "Q4_1", 32, 20, MB_F32, decode_q4_1},
    {6, "Q5_0", 32, 22, MB_F32, decode_q5_0},
    {7, "Q5_1", 32, 24, MB_F32, decode_q5_1},
    {8, "Q8_0", 32, 34, MB_F32, decode_q8_0},
    {12, "Q4_K", 256, 144, MB_F32, decode_q4_k},
    {13, "Q5_K", 256, 176, MB_F32, decode_q5_k},
    {14, "Q6_K", 256, 210, MB_F32, decode_q6_k},
};
#define QUANT_COUNT (sizeof quants / sizeof quants[0])

const struct mb_quant *mb_quant_find(uint32_t id)
{
    for (size_t i = 0; i < QUANT_COUNT; i++)
        if (quants[i].id == id)
            return &quants[i];
    return NULL;
}

void mb_quant_list(mb_text *out)
{
    for (size_t i = 0; i < QUANT_COUNT; i++)
        mb_text_printf(out, "%s%s", i ? ", " : "", quants[i].name);
}

/* ---- elements ---- */

/* Where a row of the shape lies in the file. Heads stored for interleaved rotation have dimension j and j + d/2
 * side by side. */
static size_t stored_row(const mb_tensor *tensor, size_t row)
{
    if (tensor->interleaved == 0)
        return row;
    const size_t d = (size_t)tensor->shape[0] / (size_t)tensor->interleaved, half = d / 2;
    const size_t head = row / d, at = row % d;
    return head * d + 2 * (at % half) + at / half;
}

/* Numbers `column` .. `column` + n - 1 of a stored row that consists of blocks. */
static void read_blocks(const struct mb_quant *quant, const unsigned char *row, size_t column, size_t n,
                        unsigned char *out, mb_type to)
{
    const size_t each = (size_t)quant->elements;
    float values[MB_QUANT_ELEMENTS_MAX];
    while (n > 0) {
        size_t from = column % each, count = each - from < n ? each - from : n;
        quant->decode(row + column / each * (size_t)quant->bytes, values);
        mb_type_convert(out, to, values + from, MB_F32, count);
        out += count * mb_type_size(to);
        column += count;
        n -= count;
    }
}

void mb_tensor_read(const mb_tensor *tensor, size_t first, size_t n, void *dst, mb_type to)
{
    const struct mb_quant *quant = tensor->quant;
    const size_t element = mb_type_size(tensor->type), wide = mb_type_size(to);
    if (!quant && tensor->interleaved == 0) {
        mb_type_convert(dst, to, tensor->data + first * element, tensor->type, n);
        return;
    }
    const size_t columns = tensor->rank > 1 ? (size_t)tensor->shape[tensor->rank - 1] : 1;
    unsigned char *out = dst;
    for (size_t done = 0; done < n;) {
        const size_t row = stored_row(tensor, (first + done) / columns), column = (first + done) % columns;
        const size_t count = columns - column < n - done ? columns - column : n - done;
        if (quant)
            read_blocks(quant, tensor->data + row * (columns / (size_t)quant->elements) * (size_t)quant->bytes,
                        column, count, out + done * wide, to);
        else
            mb_type_convert(out + done * wide, to, tensor->data + (row * columns + column) * element, tensor->type,
                            count);
        done += count;
    }
}
