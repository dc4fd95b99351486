/*
 * lanes.h - 16 floats as one value, in the compilers' own vectors (GCC and clang alike). Where the target has no
 * registers that wide the compiler splits them. Used where the automatic vectoriser gives up; everything else
 * stays plain loops. Loads and stores need no alignment beyond that of a float. Never a parameter or a result: how
 * such vectors are passed depends on the target.
 */
#ifndef MB_KERNELS_CPU_LANES_H
#define MB_KERNELS_CPU_LANES_H

#include <stdint.h>

#define MB_LANES 16

typedef float mb_lanes __attribute__((vector_size(4 * MB_LANES), aligned(4), may_alias));
typedef int32_t mb_lane_mask __attribute__((vector_size(4 * MB_LANES))); /* -1 where true, 0 where false */

/* most = the larger of most and x, lane by lane; a NaN in x is passed over. */
static inline void mb_lanes_raise(mb_lanes *most, const float *x)
{
    mb_lanes value = *(const mb_lanes *)x;
    mb_lane_mask above = value > *most;
    *most = (mb_lanes)(((mb_lane_mask)value & above) | ((mb_lane_mask)*most & ~above));
}

#endif
