/*
 * unicode.c - look-ups in the tables of unicode_tables.c. All are binary searches: the tables stay small enough
 * for the cache, and the one hot loop (the pre-tokenizer) meets long stretches of one run.
 */
#include "base/unicode.h"

#define LAST_CODE_POINT 0x10FFFFu
#define CATEGORY_BITS 5

enum mb_category mb_unicode_category(uint32_t c)
{
    if (c > LAST_CODE_POINT)
        return MB_CN;
    size_t low = mb_unicode_blocks[c >> 12];
    size_t high = c >> 12 < LAST_CODE_POINT >> 12 ? mb_unicode_blocks[(c >> 12) + 1] : mb_unicode_run_count - 1;
    while (low < high) { /* the last run that begins at c or before */
        size_t middle = (low + high + 1) / 2;
        if (mb_unicode_runs[middle] >> CATEGORY_BITS <= c)
            low = middle;
        else
            high = middle - 1;
    }
    return (enum mb_category)(mb_unicode_runs[low] & ((1u << CATEGORY_BITS) - 1));
}

/* c in the ranges, or c itself when none has it. */
static uint32_t other_case(uint32_t c, const struct mb_unicode_case *ranges, size_t count)
{
    size_t low = 0, high = count;
    while (low < high) { /* the first range that ends at c or behind */
        size_t middle = (low + high) / 2;
        if (ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    bool inside =
        low < count && c >= ranges[low].first && (c - ranges[low].first) % (uint32_t)ranges[low].step == 0;
    return inside ? (uint32_t)((int32_t)c + ranges[low].move) : c;
}

uint32_t mb_unicode_lower(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return other_case(c, mb_unicode_lower_ranges, mb_unicode_lower_count);
}

uint32_t mb_unicode_upper(uint32_t c)
{
    if (c < 0x80)
        return c >= 'a' && c <= 'z' ? c - 32 : c;
    return other_case(c, mb_unicode_upper_ranges, mb_unicode_upper_count);
}

static bool is_wide(uint32_t c)
{
    size_t low = 0, high = mb_unicode_wide_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (mb_unicode_wide[middle][1] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < mb_unicode_wide_count && c >= mb_unicode_wide[low][0];
}

unsigned mb_unicode_columns(uint32_t c)
{
    if (c >= 0x20 && c < 0x7f)
        return 1;
    switch (mb_unicode_category(c)) {
    case MB_MN:
    case MB_ME:
    case MB_CC:
    case MB_ZL:
    case MB_ZP:
        return 0;
    case MB_CF:
        return c == 0xAD; /* the soft hyphen is shown */
    default:
        return is_wide(c) ? 2 : 1;
    }
}
