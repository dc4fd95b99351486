/*
 * spin_method.cu - a method that attends exactly and, at layer 0 of each forward, keeps the GPU busy for a known
 * time: what the harness reports for it must be longer by that time. Out of tree; built to a .so by
 * tests/gpu_latency.sh. Nothing of maskbench is linked.
 */
#include "methods/method.h"

#include <cuda_runtime.h>

struct spin_options {
    int64_t us;
};

/* Waits on the GPU's own clock, which counts nanoseconds. */
__global__ void spin(unsigned long long ns)
{
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - start < ns);
}

static int spin_open(void **self, const mb_host *, const mb_shape *, const void *options, char *, size_t)
{
    *self = const_cast<void *>(options);
    return 0;
}

static int spin_mode(void *, const mb_call *)
{
    return 0;
}

static int spin_select(void *self, const mb_call *call, mb_selection *, char *, size_t)
{
    const spin_options *options = static_cast<const spin_options *>(self);
    if (call->layer == 0 && options->us > 0)
        spin<<<1, 1, 0, static_cast<cudaStream_t>(call->stream)>>>(options->us * 1000ull);
    return cudaGetLastError() == cudaSuccess ? 0 : -1;
}

static const mb_option options[] = {
    {"us", MB_OPTION_INT, offsetof(struct spin_options, us), 0, 0, 1e6, NULL, "us", "how long layer 0 spins"},
    {NULL, MB_OPTION_INT, 0, 0, 0, 0, NULL, NULL, NULL}};

extern "C" const mb_method *mb_method_entry(uint32_t host_abi)
{
    static mb_method method;
    if (host_abi < MB_METHOD_ABI)
        return NULL;
    method.abi = MB_METHOD_ABI;
    method.size = sizeof method;
    method.name = "spin";
    method.version = "1";
    method.summary = "exact attention and a known time of spinning";
    method.reference = "none: a ruler for the latency pass";
    method.options = options;
    method.options_size = sizeof(struct spin_options);
    method.open = spin_open;
    method.step_mode = spin_mode;
    method.select = spin_select;
    return &method;
}
