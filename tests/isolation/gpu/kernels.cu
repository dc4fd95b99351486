/* kernels.cu - what the plug-ins of this folder do to a GPU. The spin ends by itself: killing its process is enough
 * for the test, and a machine that others use should not need more. */
#include <cuda_runtime.h>

static __global__ void write_nowhere(int *at)
{
    *at = 1;
}

static __global__ void spin(long long cycles)
{
    long long start = clock64();
    while (clock64() - start < cycles) {
    }
}

extern "C" void launch_write_nowhere(void *stream)
{
    write_nowhere<<<1, 1, 0, (cudaStream_t)stream>>>((int *)8);
}

extern "C" void launch_spin(void *stream)
{
    spin<<<1, 1, 0, (cudaStream_t)stream>>>(20000000000LL); /* about ten seconds */
}
