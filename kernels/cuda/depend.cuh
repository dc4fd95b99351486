/*
 * depend.cuh - programmatic dependent launch (sm_90 and later): a kernel launched as a dependent may start while
 * the one in front of it on the stream still runs, and waits itself, in the kernel, before it touches what that
 * one reads or writes. Saves the start of each kernel in a row of short ones. Elsewhere nothing happens: kernels
 * then run one after the other.
 */
#ifndef MB_CUDA_DEPEND_CUH
#define MB_CUDA_DEPEND_CUH

#include "kernels/cuda/attention.cuh"

#include <cuda_runtime.h>

namespace mb_cuda
{

/* From here on the next kernel may start, if it was launched as a dependent. */
__device__ __forceinline__ void let_dependents_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Everything that kernels in front wrote is there, and they read nothing any more. Every thread that touches
 * memory of theirs calls this first. */
__device__ __forceinline__ void wait_for_dependency()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Launches a kernel that calls wait_for_dependency() before anything else, as a dependent where the GPU can. */
template <typename... Parameters, typename... Arguments>
static cudaError_t launch_dependent(const mb_cuda_chip *chip, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                    size_t shared, cudaStream_t stream, Arguments... arguments)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = chip->capability >= 90 ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

} // namespace mb_cuda

#endif
