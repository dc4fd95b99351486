/*
 * select.h - the order of scores, shared by top-k, top-p and votes.
 *
 * A score becomes an unsigned key with the same order: higher score, larger key; +0 and -0 share one; NaN comes
 * after every number; -INFINITY is never chosen. The k best are those above a cut line: a key, and the index up
 * to which its equals belong (ties go to the lower index).
 */
#ifndef MB_KERNELS_CPU_SELECT_H
#define MB_KERNELS_CPU_SELECT_H

#include "kernels/cpu/cpu.h"

#define MB_KEY_NEVER 0u /* -INFINITY */
#define MB_KEY_NAN 1u   /* below every number: the lowest finite float maps to 0x00800000 */

static inline uint32_t mb_cpu_key_of(float score)
{
    uint32_t bits = mb_bits_of(score + 0.0f); /* -0 becomes +0 */
    uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    key = bits == 0xff800000u ? MB_KEY_NEVER : key;
    return (bits & 0x7fffffffu) > 0x7f800000u ? MB_KEY_NAN : key;
}

typedef struct mb_cpu_cut_line {
    uint32_t key;
    int64_t last_equal; /* equals of key up to this index are chosen */
} mb_cpu_cut_line;

/* The line above which the k best of keys lie (all that are eligible, when they are fewer). False: none is. */
bool mb_cpu_cut_find(const uint32_t *keys, int64_t n, int64_t k, mb_cpu_cut_line *line);

static inline bool mb_cpu_cut_above(const mb_cpu_cut_line *line, uint32_t key, int64_t index)
{
    return key > line->key || (key == line->key && index <= line->last_equal);
}

#endif
