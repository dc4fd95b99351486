/*
 * device.c - choosing a backend from "auto", "cpu", "cuda", "cuda:N". The only place outside kernels/cuda that
 * knows whether this build has CUDA.
 */
#include "base/base.h"
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

#ifndef MB_HAVE_CUDA
const mb_kernels *mb_kernels_cuda(void)
{
    return NULL;
}

int mb_cuda_device_count(mb_error *why)
{
    mb_fail(why, 0, "this build has no CUDA (nvcc was not found when it was built)");
    return 0;
}
#endif

const char *mb_part_name(mb_part part)
{
    static const char *const names[MB_PART_COUNT] = {"gemm",
                                                     "dense attention",
                                                     "selection",
                                                     "sparse attention",
                                                     "block attention",
                                                     "norms and element-wise",
                                                     "sampler",
                                                     "copies",
                                                     "method's own kernels"};
    return part >= 0 && part < MB_PART_COUNT ? names[part] : "unknown";
}

int mb_device_open(const char *spec, const mb_device_options *options, const mb_kernels **kernels,
                   mb_device **device, mb_error *note, mb_error *err)
{
    mb_device_options chosen = *options;
    mb_error why = {0};
    bool automatic = strcmp(spec, "auto") == 0;
    *device = NULL;
    mb_fail(note, 0, "%s", "");
    if (strcmp(spec, "cpu") == 0) {
        *kernels = mb_kernels_cpu();
        return (*kernels)->open(device, &chosen, err);
    }
    if (!automatic && strncmp(spec, "cuda", 4) != 0)
        return mb_fail(err, MB_E_INPUT, "unknown device \"%s\": use auto, cpu, cuda or cuda:N", spec);
    if (!automatic && spec[4] != '\0') {
        char *end = NULL;
        long ordinal = spec[4] == ':' ? strtol(spec + 5, &end, 10) : -1;
        if (!end || end == spec + 5 || *end != '\0' || ordinal < 0 || ordinal > 1024)
            return mb_fail(err, MB_E_INPUT, "unknown device \"%s\": use auto, cpu, cuda or cuda:N", spec);
        chosen.ordinal = (int)ordinal;
    }
    int count = mb_cuda_device_count(&why);
    if (count > chosen.ordinal) {
        *kernels = mb_kernels_cuda();
        int rc = (*kernels)->open(device, &chosen, err);
        if (rc == MB_OK || !automatic)
            return rc;
        why = *err;
    } else if (!automatic) {
        if (count > 0)
            return mb_fail(err, MB_E_INPUT, "device %s: this machine has %d usable GPU(s)", spec, count);
        return mb_fail(err, MB_E_INPUT, "device %s cannot be used: %s; use --device cpu", spec, why.text);
    }
    mb_fail(note, 0, "running on the CPU: %s", why.text);
    *kernels = mb_kernels_cpu();
    return (*kernels)->open(device, &chosen, err);
}
