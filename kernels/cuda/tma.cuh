/*
 * tma.cuh - sm_90 plumbing: mbarriers, the bulk tensor copy with multicast in a cluster of two, named barriers,
 * register reallocation between warpgroups, and the ring of tiles that a producer thread fills and warpgroups
 * drain.
 *
 * Parity convention: a barrier starts in phase 0; wait(parity) returns once the phase of that parity is over. A
 * consumer waits for "full" with its phase bit, the producer for "empty" with the bit inverted, so that its
 * first turn through the ring does not block.
 */
#ifndef MB_CUDA_TMA_CUH
#define MB_CUDA_TMA_CUH

#include <cuda.h>
#include <stdint.h>

namespace mb_cuda
{

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/* Makes initialised barriers visible to the copy engine and to the other block of the cluster. */
__device__ __forceinline__ void barrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra finished;\n"
                 "bra again;\n"
                 "finished:\n"
                 "}\n" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/* Arrives at the barrier with this address in block `rank` of the cluster. No fence of cluster scope: what the
 * arrival releases was read by the tensor cores, whose reads are complete once wgmma_wait returned. */
__device__ __forceinline__ void barrier_arrive_in(uint32_t barrier, uint32_t rank)
{
    asm volatile("{\n"
                 ".reg .b32 remote;\n"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
                 "}\n" ::"r"(barrier),
                 "r"(rank)
                 : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* A box of a 3-D tensor map (channels, slots, heads) to shared memory. */
__device__ __forceinline__ void copy_box(uint32_t destination, const CUtensorMap *map, uint32_t barrier,
                                         int channel, int slot, int head)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                 "[%1, {%3, %4, %5}], [%2];" ::"r"(destination),
                 "l"(map), "r"(barrier), "r"(channel), "r"(slot), "r"(head)
                 : "memory");
}

/* The same box to the same place, and barrier, of both blocks of a cluster of two. */
__device__ __forceinline__ void copy_box_both(uint32_t destination, const CUtensorMap *map, uint32_t barrier,
                                              int channel, int slot, int head)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%4, %5, %6}], [%2], %3;" ::"r"(destination),
                 "l"(map), "r"(barrier), "h"((uint16_t)3), "r"(channel), "r"(slot), "r"(head)
                 : "memory");
}

__device__ __forceinline__ void prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

__device__ __forceinline__ uint32_t cluster_rank()
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* The two halves of a barrier of the cluster that orders no memory but what a fence before it has. */
__device__ __forceinline__ void cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* Named barrier `id` over `threads` threads: wait for all, or only arrive. */
__device__ __forceinline__ void named_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Ordinary stores to shared memory become visible to the tensor cores and the copy engine. */
__device__ __forceinline__ void proxy_fence()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <int COUNT> __device__ __forceinline__ void registers_grow()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> __device__ __forceinline__ void registers_shrink()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* Position in a ring of STAGES buffers. */
template <int STAGES> struct Ring {
    int stage = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

} /* namespace mb_cuda */

#endif
