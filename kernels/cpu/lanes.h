/*
 * lanes.h - 16 floats as one value, in the compilers' own vectors (GCC and clang alike). Where the target has no
 * registers that wide the compiler splits them. Used where the automatic vectoriser gives up; everything else
 * stays plain loops. Loads and stores need no alignment beyond that of a float.
 */
#ifndef MB_KERNELS_CPU_LANES_H
#define MB_KERNELS_CPU_LANES_H

#include <stdint.h>

#define MB_LANES 16

typedef float mb_lanes __attribute__((vector_size(4 * MB_LANES), aligned(4), may_alias));
typedef int32_t mb_lane_mask __attribute__((vector_size(4 * MB_LANES))); /* -1 where true, 0 where false */

static inline mb_lanes mb_lanes_load(const float *at)
{
    return *(const mb_lanes *)at;
}

static inline void mb_lanes_store(float *at, mb_lanes x)
{
    *(mb_lanes *)at = x;
}

static inline mb_lanes mb_lanes_all(float x)
{
    return x - (mb_lanes){0};
}

/* yes where the mask is set, no elsewhere. */
static inline mb_lanes mb_lanes_select(mb_lane_mask mask, mb_lanes yes, mb_lanes no)
{
    return (mb_lanes)(((mb_lane_mask)yes & mask) | ((mb_lane_mask)no & ~mask));
}

/* The larger one; b where a is NaN. */
static inline mb_lanes mb_lanes_max(mb_lanes a, mb_lanes b)
{
    return mb_lanes_select(a > b, a, b);
}

#endif
