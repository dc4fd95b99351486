/*
 * telemetry.c - clock, throttle reasons, temperature, power and other processes of the GPU, through NVML. The
 * library comes with the driver and is loaded with dlopen; without it every value says "unknown" and nothing
 * fails. NVML's header is not part of the CUDA toolkit's runtime packages, so the few declarations used here stand
 * below, as its public documentation gives them.
 */
#include "kernels/cuda/backend.h"
#include "kernels/cuda/table.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct nvml_device *nvml_handle;
typedef struct nvml_process { /* nvmlProcessInfo_v2_t */
    unsigned int pid;
    unsigned long long used_memory;
    unsigned int gpu_instance, compute_instance;
} nvml_process;

enum { NVML_CLOCK_SM = 1, NVML_TEMPERATURE_GPU = 0, MAX_PROCESSES = 64 };

struct mb_cuda_nvml {
    void *library;
    nvml_handle handle;
    int (*shutdown)(void);
    int (*driver)(char *version, unsigned int length);
    int (*clock)(nvml_handle, int type, unsigned int *mhz);
    int (*max_clock)(nvml_handle, int type, unsigned int *mhz);
    int (*throttle)(nvml_handle, unsigned long long *reasons);
    int (*temperature)(nvml_handle, int sensor, unsigned int *celsius);
    int (*power)(nvml_handle, unsigned int *milliwatt);
    int (*processes)(nvml_handle, unsigned int *count, nvml_process *list);
};

/* Puts a function of the library, or NULL, into slot; object pointers become function pointers through memory. */
static void find_symbol(void *library, const char *name, void *slot)
{
    void *address = dlsym(library, name);
    memcpy(slot, &address, sizeof address);
}

mb_cuda_nvml *mb_cuda_nvml_open(int ordinal)
{
    char bus[32] = "";
    int (*init)(void) = NULL;
    int (*find)(const char *bus_id, nvml_handle *) = NULL;
    mb_cuda_nvml *nvml = calloc(1, sizeof *nvml);
    if (!nvml)
        return NULL;
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (nvml->library) {
        find_symbol(nvml->library, "nvmlInit_v2", &init);
        find_symbol(nvml->library, "nvmlDeviceGetHandleByPciBusId_v2", &find);
        find_symbol(nvml->library, "nvmlShutdown", &nvml->shutdown);
        find_symbol(nvml->library, "nvmlSystemGetDriverVersion", &nvml->driver);
        find_symbol(nvml->library, "nvmlDeviceGetClockInfo", &nvml->clock);
        find_symbol(nvml->library, "nvmlDeviceGetMaxClockInfo", &nvml->max_clock);
        find_symbol(nvml->library, "nvmlDeviceGetCurrentClocksThrottleReasons", &nvml->throttle);
        find_symbol(nvml->library, "nvmlDeviceGetTemperature", &nvml->temperature);
        find_symbol(nvml->library, "nvmlDeviceGetPowerUsage", &nvml->power);
        find_symbol(nvml->library, "nvmlDeviceGetComputeRunningProcesses_v3", &nvml->processes);
    }
    bool ready = init && find && init() == 0;
    if (!ready || cudaDeviceGetPCIBusId(bus, sizeof bus, ordinal) != cudaSuccess || find(bus, &nvml->handle) != 0)
        nvml->handle = NULL;
    return nvml;
}

void mb_cuda_nvml_close(mb_cuda_nvml *nvml)
{
    if (!nvml)
        return;
    if (nvml->handle && nvml->shutdown)
        nvml->shutdown();
    if (nvml->library)
        dlclose(nvml->library);
    free(nvml);
}

void mb_cuda_nvml_driver(const mb_cuda_nvml *nvml, char *version, size_t cap)
{
    version[0] = '\0';
    if (nvml && nvml->handle && nvml->driver && nvml->driver(version, (unsigned int)cap) != 0)
        version[0] = '\0';
}

int mb_cuda_telemetry(mb_device *device, mb_telemetry *t)
{
    mb_cuda_nvml *nvml = device->nvml;
    unsigned int value = 0, count = MAX_PROCESSES;
    unsigned long long reasons = 0;
    nvml_process list[MAX_PROCESSES];
    *t = (mb_telemetry){.throttle = -1, .temperature = NAN, .power = NAN, .other_processes = -1};
    if (!nvml || !nvml->handle)
        return MB_OK;
    if (nvml->clock && nvml->clock(nvml->handle, NVML_CLOCK_SM, &value) == 0)
        t->sm_mhz = (int32_t)value;
    if (nvml->max_clock && nvml->max_clock(nvml->handle, NVML_CLOCK_SM, &value) == 0)
        t->sm_reference_mhz = (int32_t)value;
    if (nvml->throttle && nvml->throttle(nvml->handle, &reasons) == 0)
        t->throttle = (int64_t)reasons;
    if (nvml->temperature && nvml->temperature(nvml->handle, NVML_TEMPERATURE_GPU, &value) == 0)
        t->temperature = value;
    if (nvml->power && nvml->power(nvml->handle, &value) == 0)
        t->power = value * 1e-3;
    if (nvml->processes && nvml->processes(nvml->handle, &count, list) == 0) {
        t->other_processes = 0;
        for (unsigned int i = 0; i < count && i < MAX_PROCESSES; i++)
            t->other_processes += list[i].pid != (unsigned int)getpid();
    }
    return MB_OK;
}
