/*
 * wgmma.cuh - the warpgroup matrix product of sm_90a: descriptors of 128-byte-swizzled tiles, and one wrapper per
 * shape that the kernels use. Everything here is asynchronous: bracket with wgmma_fence / wgmma_commit /
 * wgmma_wait, and hold() the accumulators after the wait so that the compiler reads them only then.
 *
 * Tiles are [rows][64] bf16 panels of 128-byte rows, as the bulk tensor copy writes them. Accumulator element
 * (row, column) of m64nN: thread 4 * (row % 8) + (column % 8) / 2 of warp row / 16, register
 * (column / 8) * 4 + (row / 8 % 2) * 2 + column % 2.
 */
#ifndef MB_CUDA_WGMMA_CUH
#define MB_CUDA_WGMMA_CUH

#include <stdint.h>

namespace mb_cuda {

/* Operand whose rows (M or N) are the tile's rows and whose contraction runs along the channels. Eight rows of
 * 128 bytes are one swizzle atom; the next eight follow 1024 bytes later. */
__device__ __forceinline__ uint64_t rows_descriptor(uint32_t address)
{
    return (uint64_t)((address & 0x3ffffu) >> 4) | (uint64_t)1 << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

/* Operand contracted over the tile's rows: N runs along the channels, 64 a panel, panels `panel` bytes apart. */
__device__ __forceinline__ uint64_t columns_descriptor(uint32_t address, uint32_t panel)
{
    return (uint64_t)((address & 0x3ffffu) >> 4) | (uint64_t)(panel >> 4) << 16 | (uint64_t)64 << 32 |
           (uint64_t)1 << 62;
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int PENDING> __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* Tells the compiler that the registers change here. */
template <int N> __device__ __forceinline__ void hold(float (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(x[i])::"memory");
}

/* The register lists of the instructions below, in sixteens. */
#define MB_LIST0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define MB_LIST1 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define MB_LIST2 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define MB_LIST3 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define MB_FOUR(d, i) "+f"(d[(i)]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define MB_SIXTEEN(d, i) MB_FOUR(d, i), MB_FOUR(d, (i) + 4), MB_FOUR(d, (i) + 8), MB_FOUR(d, (i) + 12)
#define MB_LIST_EIGHT "%48,%49,%50,%51,%52,%53,%54,%55"
#define MB_NAMES64 MB_LIST0 "," MB_LIST1
#define MB_NAMES96 MB_NAMES64 "," MB_LIST2
#define MB_NAMES112 MB_NAMES96 "," MB_LIST_EIGHT
#define MB_NAMES128 MB_NAMES96 "," MB_LIST3
#define MB_REGISTERS64(d) MB_SIXTEEN(d, 0), MB_SIXTEEN(d, 16)
#define MB_REGISTERS96(d) MB_REGISTERS64(d), MB_SIXTEEN(d, 32)
#define MB_REGISTERS112(d) MB_REGISTERS96(d), MB_FOUR(d, 48), MB_FOUR(d, 52)
#define MB_REGISTERS128(d) MB_REGISTERS96(d), MB_SIXTEEN(d, 48)

/* d[64 x N] = or += a[64 x 16] * b[N x 16]^T, both in shared memory, contraction along the channels. */
template <int N>
__device__ __forceinline__ void wgmma_shared(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate);

template <>
__device__ __forceinline__ void wgmma_shared<64>(float (&d)[32], uint64_t a, uint64_t b, bool accumulate)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" MB_NAMES64 "}, %32, %33, p, 1, 1, "
                 "0, 0;\n}\n"
                 : MB_REGISTERS64(d)
                 : "l"(a), "l"(b), "r"((int)accumulate));
}

template <>
__device__ __forceinline__ void wgmma_shared<96>(float (&d)[48], uint64_t a, uint64_t b, bool accumulate)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %50, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" MB_NAMES96 "}, %48, %49, p, 1, 1, "
                 "0, 0;\n}\n"
                 : MB_REGISTERS96(d)
                 : "l"(a), "l"(b), "r"((int)accumulate));
}

template <>
__device__ __forceinline__ void wgmma_shared<112>(float (&d)[56], uint64_t a, uint64_t b, bool accumulate)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %58, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n112k16.f32.bf16.bf16 {" MB_NAMES112 "}, %56, %57, p, 1, 1, "
                 "0, 0;\n}\n"
                 : MB_REGISTERS112(d)
                 : "l"(a), "l"(b), "r"((int)accumulate));
}

template <>
__device__ __forceinline__ void wgmma_shared<128>(float (&d)[64], uint64_t a, uint64_t b, bool accumulate)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" MB_NAMES128 "}, %64, %65, p, 1, 1, "
                 "0, 0;\n}\n"
                 : MB_REGISTERS128(d)
                 : "l"(a), "l"(b), "r"((int)accumulate));
}

/* d[64 x 128] = or += a[64 x 16] * b, a in registers, b in shared memory: ALONG 1: [16 x 128] with N along the
 * channels (columns_descriptor), ALONG 0: [128 x 16]^T, contracted along them (rows_descriptor). */
template <int ALONG>
__device__ __forceinline__ void wgmma_registers(float (&d)[64], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                                uint64_t b, bool accumulate)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" MB_NAMES128 "}, "
                 "{%64,%65,%66,%67}, %68, p, 1, 1, %70;\n}\n"
                 : MB_REGISTERS128(d)
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"((int)accumulate), "n"(ALONG));
}

} /* namespace mb_cuda */

#endif
