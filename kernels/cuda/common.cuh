/*
 * common.cuh - loads, stores and reductions that the simple kernels share. T is the storage type: float,
 * __nv_bfloat16 or __half; arithmetic is fp32. Reductions add in a fixed order, so results are bit-equal from run to run.
 */
#ifndef MB_CUDA_COMMON_CUH
#define MB_CUDA_COMMON_CUH

#include "kernels/cuda/backend.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>

namespace mb_cuda {

__device__ __forceinline__ float load(const float *p)
{
    return *p;
}
__device__ __forceinline__ float load(const __nv_bfloat16 *p)
{
    return __bfloat162float(*p);
}
__device__ __forceinline__ float load(const __half *p)
{
    return __half2float(*p);
}
__device__ __forceinline__ void store(float *p, float x)
{
    *p = x;
}
__device__ __forceinline__ void store(__nv_bfloat16 *p, float x)
{
    *p = __float2bfloat16_rn(x);
}
__device__ __forceinline__ void store(__half *p, float x)
{
    *p = __float2half_rn(x);
}

/* x rounded to T and widened again. */
template <typename T> __device__ __forceinline__ float rounded(float x);
template <> __device__ __forceinline__ float rounded<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ float rounded<__nv_bfloat16>(float x)
{
    return __bfloat162float(__float2bfloat16_rn(x));
}
template <> __device__ __forceinline__ float rounded<__half>(float x)
{
    return __half2float(__float2half_rn(x));
}

__device__ __forceinline__ float warp_sum(float x)
{
    for (int offset = 16; offset; offset >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x)
{
    for (int offset = 16; offset; offset >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

/* The function of a gate, kernels.h (mb_activation). */
__device__ __forceinline__ float activated(float x, mb_activation activation)
{
    if (activation == MB_GELU_TANH)
        return x / (1.0f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    return x / (1.0f + expf(-x));
}

/* Sum over the block; every thread gets it. shared: 32 floats that nobody else uses until the next barrier. */
__device__ __forceinline__ float block_sum(float x, float *shared)
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0)
        shared[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? shared[lane] : 0.0f);
}

static inline unsigned blocks_for(int64_t n, int64_t per_block)
{
    int64_t blocks = (n + per_block - 1) / per_block;
    return (unsigned)(blocks < 1 ? 1 : blocks > 0x7fffffff ? 0x7fffffff : blocks);
}

/* 4 consecutive elements at once; p aligned to 4 elements. */
__device__ __forceinline__ void load4(const float *p, float v[4])
{
    float4 x = *(const float4 *)p;
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
}
__device__ __forceinline__ void load4(const __nv_bfloat16 *p, float v[4])
{
    uint2 x = *(const uint2 *)p;
    float2 a = __bfloat1622float2(*(__nv_bfloat162 *)&x.x), b = __bfloat1622float2(*(__nv_bfloat162 *)&x.y);
    v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y;
}
__device__ __forceinline__ void load4(const __half *p, float v[4])
{
    uint2 x = *(const uint2 *)p;
    float2 a = __half22float2(*(__half2 *)&x.x), b = __half22float2(*(__half2 *)&x.y);
    v[0] = a.x, v[1] = a.y, v[2] = b.x, v[3] = b.y;
}
/* 8 consecutive elements; p aligned to 16 bytes. */
__device__ __forceinline__ void load8(const float *p, float v[8])
{
    load4(p, v);
    load4(p + 4, v + 4);
}
__device__ __forceinline__ void load8(const __nv_bfloat16 *p, float v[8])
{
    uint4 x = *(const uint4 *)p;
    const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = __uint_as_float(words[i] << 16);
        v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}
__device__ __forceinline__ void load8(const __half *p, float v[8])
{
    uint4 x = *(const uint4 *)p;
    const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = __half22float2(*(const __half2 *)&words[i]);
        v[2 * i] = pair.x;
        v[2 * i + 1] = pair.y;
    }
}
__device__ __forceinline__ void store4(float *p, const float v[4])
{
    *(float4 *)p = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void store4(__nv_bfloat16 *p, const float v[4])
{
    uint2 x;
    *(__nv_bfloat162 *)&x.x = __floats2bfloat162_rn(v[0], v[1]);
    *(__nv_bfloat162 *)&x.y = __floats2bfloat162_rn(v[2], v[3]);
    *(uint2 *)p = x;
}
__device__ __forceinline__ void store4(__half *p, const float v[4])
{
    uint2 x;
    *(__half2 *)&x.x = __floats2half2_rn(v[0], v[1]);
    *(__half2 *)&x.y = __floats2half2_rn(v[2], v[3]);
    *(uint2 *)p = x;
}

} // namespace mb_cuda

/* Runs the statement with T bound to the storage type. */
#define MB_WITH_TYPE(type, ...)                                                                                   \
    do {                                                                                                          \
        if ((type) == MB_BF16) {                                                                                  \
            typedef __nv_bfloat16 T;                                                                              \
            __VA_ARGS__;                                                                                          \
        } else if ((type) == MB_F16) {                                                                            \
            typedef __half T;                                                                                     \
            __VA_ARGS__;                                                                                          \
        } else {                                                                                                  \
            typedef float T;                                                                                      \
            __VA_ARGS__;                                                                                          \
        }                                                                                                         \
    } while (0)

#endif
