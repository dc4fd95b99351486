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

namespace mb_cuda
{

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

/* The operand `bytes` further on in the same tile, without taking the address apart again. */
__device__ __forceinline__ uint64_t further(uint64_t descriptor, uint32_t bytes)
{
    return (descriptor & 0xffffffff00000000ull) | (uint32_t)((uint32_t)descriptor + (bytes >> 4));
}

__device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

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

/* The register lists of the instructions below: operand numbers in eights, C expressions in sixteens. */
#define MB_N0 "%0,%1,%2,%3,%4,%5,%6,%7,"
#define MB_N1 "%8,%9,%10,%11,%12,%13,%14,%15,"
#define MB_N2 "%16,%17,%18,%19,%20,%21,%22,%23,"
#define MB_N3 "%24,%25,%26,%27,%28,%29,%30,%31"
#define MB_N4 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define MB_N5 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define MB_N6 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define MB_N7 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define MB_N8 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define MB_N9 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define MB_N10 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define MB_N11 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define MB_N12 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define MB_N13 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define MB_N14 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define MB_N15 ",%120,%121,%122,%123,%124,%125,%126,%127"
#define MB_NAMES32 MB_N0 MB_N1 MB_N2 MB_N3
#define MB_NAMES40 MB_NAMES32 MB_N4
#define MB_NAMES48 MB_NAMES40 MB_N5
#define MB_NAMES56 MB_NAMES48 MB_N6
#define MB_NAMES64 MB_NAMES56 MB_N7
#define MB_NAMES80 MB_NAMES64 MB_N8 MB_N9
#define MB_NAMES88 MB_NAMES80 MB_N10
#define MB_NAMES128 MB_NAMES88 MB_N11 MB_N12 MB_N13 MB_N14 MB_N15
#define MB_FOUR(d, i) "+f"(d[(i)]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define MB_EIGHT(d, i) MB_FOUR(d, i), MB_FOUR(d, (i) + 4)
#define MB_SIXTEEN(d, i) MB_EIGHT(d, i), MB_EIGHT(d, (i) + 8)
#define MB_FLOATS32(d) MB_SIXTEEN(d, 0), MB_SIXTEEN(d, 16)
#define MB_FLOATS40(d) MB_FLOATS32(d), MB_EIGHT(d, 32)
#define MB_FLOATS48(d) MB_FLOATS32(d), MB_SIXTEEN(d, 32)
#define MB_FLOATS56(d) MB_FLOATS48(d), MB_EIGHT(d, 48)
#define MB_FLOATS64(d) MB_FLOATS48(d), MB_SIXTEEN(d, 48)
#define MB_FLOATS80(d) MB_FLOATS64(d), MB_SIXTEEN(d, 64)
#define MB_FLOATS88(d) MB_FLOATS80(d), MB_EIGHT(d, 80)
#define MB_FLOATS128(d) MB_FLOATS80(d), MB_SIXTEEN(d, 80), MB_SIXTEEN(d, 96), MB_SIXTEEN(d, 112)

/* d[64 x N] = or += a[64 x 16] * b[N x 16]^T, both in shared memory, contraction along the channels. */
template <int N>
__device__ __forceinline__ void wgmma_shared(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate);

/* d[64 x N] = or += a[64 x 16] * b, a in registers, b in shared memory: ALONG 1: [16 x N] with N along the
 * channels (columns_descriptor), ALONG 0: [N x 16]^T, contracted along them (rows_descriptor). */
template <int N, int ALONG>
__device__ __forceinline__ void wgmma_registers(float (&d)[N / 2], const uint32_t *a, uint64_t b, bool accumulate);

/* COUNT = N / 2 accumulators; P0 .. P5 are the numbers of the operands after them. */
#define MB_WGMMA(N, COUNT, P0, P1, P2, P3, P4, P5)                                                                \
    template <>                                                                                                   \
    __device__ __forceinline__ void wgmma_shared<N>(float(&d)[COUNT], uint64_t a, uint64_t b, bool accumulate)    \
    {                                                                                                             \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P2 ", 0;\n"                                            \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" MB_NAMES##COUNT                 \
                     "}, %" #P0 ", %" #P1 ", p, 1, 1, 0, 0;\n}\n"                                                 \
                     : MB_FLOATS##COUNT(d)                                                                        \
                     : "l"(a), "l"(b), "r"((int)accumulate));                                                     \
    }                                                                                                             \
    MB_WGMMA_LEFT(N, COUNT, 0, P0, P1, P2, P3, P4, P5)                                                            \
    MB_WGMMA_LEFT(N, COUNT, 1, P0, P1, P2, P3, P4, P5)
#define MB_WGMMA_LEFT(N, COUNT, ALONG, P0, P1, P2, P3, P4, P5)                                                    \
    template <>                                                                                                   \
    __device__ __forceinline__ void wgmma_registers<N, ALONG>(float(&d)[COUNT], const uint32_t *a, uint64_t b,    \
                                                              bool accumulate)                                    \
    {                                                                                                             \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P5 ", 0;\n"                                            \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" MB_NAMES##COUNT                 \
                     "}, {%" #P0 ",%" #P1 ",%" #P2 ",%" #P3 "}, %" #P4 ", p, 1, 1, " #ALONG ";\n}\n"              \
                     : MB_FLOATS##COUNT(d)                                                                        \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)accumulate));                 \
    }

MB_WGMMA(64, 32, 32, 33, 34, 35, 36, 37)
MB_WGMMA(80, 40, 40, 41, 42, 43, 44, 45)
MB_WGMMA(96, 48, 48, 49, 50, 51, 52, 53)
MB_WGMMA(112, 56, 56, 57, 58, 59, 60, 61)
MB_WGMMA(128, 64, 64, 65, 66, 67, 68, 69)
MB_WGMMA(256, 128, 128, 129, 130, 131, 132, 133)

} /* namespace mb_cuda */

#endif
