/*
 * hash.h - the counter hash behind random scores: one number in [0, 1) for every (seed, index), without state,
 * so that every device, head and thread sees the same sequence. Plain C that CUDA compiles as well.
 *
 * The finaliser is splitmix64's (Steele, Lea, Flood 2014) over seed + golden * (index + 1); the upper 24 bits
 * become the mantissa, so fp32 holds every value.
 */
#ifndef MB_KERNELS_HASH_H
#define MB_KERNELS_HASH_H

#include <stdint.h>

#ifdef __CUDACC__
#define MB_HASH_INLINE static __host__ __device__ __forceinline__
#else
#define MB_HASH_INLINE static inline
#endif

MB_HASH_INLINE float mb_hash_unit(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + UINT64_C(0x9E3779B97F4A7C15) * (index + 1);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return (float)(z >> 40) * (1.0f / 16777216.0f);
}

#endif
