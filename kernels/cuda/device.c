/*
 * device.c - one GPU: stream, arena, copies, graphs, clocks. Everything is enqueued on one stream, so the order of
 * calls is the order of execution; only what a capture puts beside it (branch_begin) is outside that order. The
 * arena is one allocation made at open; nothing is allocated later but the attention workspace, and that only
 * outside a graph capture.
 */
#include "kernels/cuda/backend.h"
#include "kernels/cuda/table.h"

#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT ((size_t)256)
#define WORKSPACE_AT_OPEN ((size_t)192 << 20)
#define KEPT_BACK ((size_t)1 << 30) /* when the arena takes all: graphs, modules, library workspaces */

struct mb_graph {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
};

int mb_cuda_check(mb_device *device, cudaError_t status, const char *what)
{
    if (status == cudaSuccess)
        return MB_OK;
    return mb_fail(&device->error, MB_E_SYSTEM, "CUDA: %s failed: %s", what, cudaGetErrorString(status));
}

int mb_cuda_device_count(mb_error *why)
{
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
        mb_fail(why, 0, "no usable GPU (%s)", status == cudaSuccess ? "none found" : cudaGetErrorString(status));
        return 0;
    }
    return count;
}

static void describe(mb_device *device)
{
    struct cudaDeviceProp properties;
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (cudaGetDeviceProperties(&properties, device->chip.ordinal) != cudaSuccess)
        return;
    snprintf(device->name, sizeof device->name, "%.100s", properties.name);
    snprintf(device->detail, sizeof device->detail, "sm_%d%d, %d SMs, CUDA %d.%d, driver for CUDA %d.%d%s",
             properties.major, properties.minor, properties.multiProcessorCount, runtime / 1000,
             runtime % 1000 / 10, driver / 1000, driver % 1000 / 10,
             device->chip.generic ? ", generic kernels" : "");
    snprintf(device->runtime, sizeof device->runtime, "%d.%d", runtime / 1000, runtime % 1000 / 10);
    size_t used = (size_t)snprintf(device->uuid, sizeof device->uuid, "GPU");
    for (size_t i = 0; i < sizeof properties.uuid.bytes; i++) /* as nvidia-smi prints it: 8-4-4-4-12 digits */
        used += (size_t)snprintf(device->uuid + used, sizeof device->uuid - used, "%s%02x",
                                 i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                                 (unsigned char)properties.uuid.bytes[i]);
}

void mb_cuda_close(mb_device *device)
{
    if (!device)
        return;
    if (device->stream)
        cudaStreamSynchronize(device->stream);
    mb_cuda_link_close(device);
    mb_cuda_profile_close(device->profile);
    mb_cuda_nvml_close(device->nvml);
    mb_cuda_blas_close(device->blas);
    for (int i = 0; i < MB_TIMER_SLOTS; i++)
        if (device->timers[i])
            cudaEventDestroy(device->timers[i]);
    cudaFree(device->partials);
    cudaFree(device->workspace);
    for (int i = 0; i < device->retired_count; i++)
        cudaFree(device->retired[i]);
    cudaFree(device->arena);
    if (device->stream)
        cudaStreamDestroy(device->stream);
    if (device->beside)
        cudaStreamDestroy(device->beside);
    if (device->forked)
        cudaEventDestroy(device->forked);
    if (device->done)
        cudaEventDestroy(device->done);
    free(device);
}

int mb_cuda_open(mb_device **out, const mb_device_options *options, mb_error *err)
{
    size_t free_bytes = 0, total_bytes = 0;
    mb_device *device = calloc(1, sizeof *device);
    int rc = device ? MB_OK : mb_no_memory(err, "a device");
    *out = NULL;
    if (rc != MB_OK)
        return rc;
    device->type = options->type;
    device->reduced = options->reduced;
    if (options->type != MB_BF16 && options->type != MB_F32 && options->type != MB_F16) {
        rc = mb_fail(err, MB_E_INPUT, "the GPU stores activations as bf16, f16 or f32 only");
        goto out;
    }
    if ((rc = mb_cuda_chip_probe(options->ordinal, &device->chip, err)) != MB_OK)
        goto out;
    describe(device);
    if (mb_cuda_check(device, cudaMemGetInfo(&free_bytes, &total_bytes), "reading the memory size") != MB_OK ||
        mb_cuda_check(device, cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking),
                      "making a stream") != MB_OK ||
        mb_cuda_check(device, cudaStreamCreateWithFlags(&device->beside, cudaStreamNonBlocking),
                      "making a stream") != MB_OK ||
        mb_cuda_check(device, cudaEventCreateWithFlags(&device->forked, cudaEventDisableTiming),
                      "making an event") != MB_OK ||
        mb_cuda_check(device, cudaEventCreateWithFlags(&device->done, cudaEventDisableTiming),
                      "making an event") != MB_OK)
        goto failed;
    device->arena_bytes = (options->arena_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t fixed = WORKSPACE_AT_OPEN + MB_MEAN_FLOATS * sizeof(float),
           kept_back = KEPT_BACK + options->spare_bytes;
    if (options->arena_bytes == 0 && free_bytes > fixed + kept_back)
        device->arena_bytes = (free_bytes - fixed - kept_back) / ALIGNMENT * ALIGNMENT;
    if (device->arena_bytes + fixed > free_bytes) {
        if (options->no_room)
            *options->no_room = true;
        rc = mb_fail(err, MB_E_INPUT, "%s has %.2f GiB free of %.2f; %.2f GiB are needed", device->name,
                     (double)free_bytes / 0x1p30, (double)total_bytes / 0x1p30,
                     (double)(device->arena_bytes + fixed) / 0x1p30);
        goto out;
    }
    if (mb_cuda_check(device, cudaMalloc((void **)&device->arena, device->arena_bytes ? device->arena_bytes : 1),
                      "allocating the arena") != MB_OK ||
        mb_cuda_check(device, cudaMalloc(&device->workspace, WORKSPACE_AT_OPEN), "allocating work memory") !=
            MB_OK ||
        mb_cuda_check(device, cudaMalloc((void **)&device->partials, MB_MEAN_FLOATS * sizeof(float)),
                      "allocating work memory") != MB_OK)
        goto failed;
    device->workspace_bytes = WORKSPACE_AT_OPEN;
    for (int i = 0; i < MB_TIMER_SLOTS; i++)
        if (mb_cuda_check(device, cudaEventCreate(&device->timers[i]), "making an event") != MB_OK)
            goto failed;
    device->nvml = mb_cuda_nvml_open(options->ordinal);
    rc = mb_cuda_blas_open(&device->blas, device, err);
    goto out;
failed:
    rc = mb_fail(err, MB_E_SYSTEM, "%s", device->error.text);
out:
    if (rc != MB_OK)
        mb_cuda_close(device);
    else
        *out = device;
    return rc;
}

void mb_cuda_info(mb_device *device, mb_device_info *info)
{
    size_t free_bytes = 0, total_bytes = 0;
    memset(info, 0, sizeof *info);
    if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess)
        free_bytes = total_bytes = 0;
    snprintf(info->name, sizeof info->name, "%s", device->name);
    snprintf(info->detail, sizeof info->detail, "%s", device->detail);
    snprintf(info->runtime, sizeof info->runtime, "%s", device->runtime);
    snprintf(info->uuid, sizeof info->uuid, "%s", device->uuid);
    mb_cuda_nvml_driver(device->nvml, info->driver, sizeof info->driver);
    info->memory_total = total_bytes;
    info->memory_free = free_bytes;
    info->arena_free = device->arena_bytes - device->arena_used;
}

const char *mb_cuda_error(mb_device *device)
{
    return device->error.text;
}

/* ---- memory ---- */

void *mb_cuda_alloc(mb_device *device, size_t bytes)
{
    size_t need = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (need > device->arena_bytes - device->arena_used) {
        mb_fail(&device->error, 0, "the plan of %zu bytes is used up (%zu in use, %zu more asked)",
                device->arena_bytes, device->arena_used, need);
        return NULL;
    }
    void *memory = device->arena + device->arena_used;
    if (mb_cuda_check(device, cudaMemsetAsync(memory, 0, need, device->stream), "clearing memory") != MB_OK)
        return NULL;
    device->arena_used += need;
    return memory;
}

size_t mb_cuda_mark(mb_device *device)
{
    return device->arena_used;
}

void mb_cuda_release(mb_device *device, size_t mark)
{
    device->arena_used = mark;
}

/* Pageable host memory: the call returns when the source was read, so the caller may reuse it. */
int mb_cuda_upload(mb_device *device, void *dst, const void *host, size_t bytes)
{
    return mb_cuda_check(device, cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, device->stream),
                         "copying to the GPU");
}

int mb_cuda_download(mb_device *device, void *host, const void *src, size_t bytes)
{
    int rc = mb_cuda_check(device, cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, device->stream),
                           "copying from the GPU");
    return rc == MB_OK ? mb_cuda_sync(device) : rc;
}

int mb_cuda_copy(mb_device *device, void *dst, const void *src, size_t bytes)
{
    /* Not cudaMemcpyAsync: as a memcpy node of a graph that is slower, and a replay should run what an eager call
     * does. Being kernels, copies have to say what they are: what says nothing counts as a method's own. */
    mb_cuda_part_begin(device, MB_PART_COPY);
    cudaError_t status = mb_launch_copy(device->stream, dst, src, bytes);
    mb_cuda_part_end(device);
    return mb_cuda_check(device, status, "copying on the GPU");
}

int mb_cuda_fill(mb_device *device, void *dst, int byte, size_t bytes)
{
    return mb_cuda_check(device, cudaMemsetAsync(dst, byte, bytes, device->stream), "filling memory");
}

int mb_cuda_sync(mb_device *device)
{
    return mb_cuda_check(device, cudaStreamSynchronize(device->stream), "waiting for the GPU");
}

int mb_cuda_workspace(mb_device *device, size_t bytes)
{
    if (bytes <= device->workspace_bytes)
        return MB_OK;
    if (device->capturing)
        return mb_fail(&device->error, MB_E_BUG,
                       "CUDA: work memory of %zu bytes was first needed inside a graph capture", bytes);
    if (device->retired_count == MB_RETIRED_MAX)
        return mb_fail(&device->error, MB_E_BUG, "CUDA: work memory grew more than %d times under captured graphs",
                       MB_RETIRED_MAX);
    void *larger = NULL;
    int rc = mb_cuda_check(device, cudaMalloc(&larger, bytes), "allocating work memory");
    if (rc == MB_OK)
        rc = mb_cuda_sync(device); /* kernels in flight still use the old one */
    if (rc != MB_OK) {
        cudaFree(larger);
        return rc;
    }
    /* And so does a captured graph whenever it is replayed. Freeing waits for all GPUs that see this one's memory,
     * and one of those may be waiting for a sum with this one. */
    if (device->graph_count > 0 || device->link)
        device->retired[device->retired_count++] = device->workspace;
    else
        cudaFree(device->workspace);
    device->workspace = larger;
    device->workspace_bytes = bytes;
    return MB_OK;
}

static void free_retired(mb_device *device)
{
    while (device->retired_count > 0)
        cudaFree(device->retired[--device->retired_count]);
}

/* ---- graphs ---- */

int mb_cuda_capture_begin(mb_device *device)
{
    int rc = mb_cuda_check(device, cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal),
                           "starting a graph capture");
    device->capturing = rc == MB_OK;
    return rc;
}

static void swap_streams(mb_device *device)
{
    cudaStream_t other = device->beside;
    device->beside = device->stream;
    device->stream = other;
    device->branching = !device->branching;
}

int mb_cuda_branch_begin(mb_device *device)
{
    if (!device->capturing)
        return MB_OK;
    if (device->branching || device->unjoined)
        return mb_fail(&device->error, MB_E_BUG, "CUDA: a graph has one second branch at a time");
    int rc = mb_cuda_check(device, cudaEventRecord(device->forked, device->stream), "recording an event");
    if (rc == MB_OK)
        rc = mb_cuda_check(device, cudaStreamWaitEvent(device->beside, device->forked, 0), "forking a graph");
    if (rc == MB_OK)
        swap_streams(device);
    return rc;
}

int mb_cuda_branch_end(mb_device *device)
{
    if (!device->branching)
        return MB_OK;
    int rc = mb_cuda_check(device, cudaEventRecord(device->done, device->stream), "recording an event");
    swap_streams(device);
    device->unjoined = true;
    return rc;
}

int mb_cuda_branch_join(mb_device *device)
{
    if (!device->unjoined)
        return MB_OK;
    device->unjoined = false;
    return mb_cuda_check(device, cudaStreamWaitEvent(device->stream, device->done, 0), "joining a graph");
}

int mb_cuda_capture_end(mb_device *device, mb_graph **out)
{
    mb_graph *graph = calloc(1, sizeof *graph);
    *out = NULL;
    cudaGraph_t captured = NULL;
    /* Whatever happened inside it, a capture ends on the stream that it began on, with nothing left beside. */
    int joined = mb_cuda_branch_end(device);
    if (joined == MB_OK)
        joined = mb_cuda_branch_join(device);
    device->capturing = device->unjoined = false;
    int rc = mb_cuda_check(device, cudaStreamEndCapture(device->stream, &captured), "ending a graph capture");
    rc = rc == MB_OK ? joined : rc;
    if (rc == MB_OK && !graph) {
        cudaGraphDestroy(captured);
        return mb_no_memory(&device->error, "a graph");
    }
    if (rc == MB_OK) {
        graph->graph = captured;
        rc = mb_cuda_check(device, cudaGraphInstantiate(&graph->executable, captured, 0), "building a graph");
    }
    if (rc != MB_OK) {
        mb_cuda_graph_free(device, graph);
        return rc;
    }
    device->graph_count++;
    *out = graph;
    return MB_OK;
}

int mb_cuda_graph_launch(mb_device *device, mb_graph *graph)
{
    int rc = mb_cuda_link_enter(device);
    if (rc != MB_OK)
        return rc;
    rc = mb_cuda_check(device, cudaGraphLaunch(graph->executable, device->stream), "replaying a graph");
    mb_cuda_link_leave(device);
    return rc;
}

void mb_cuda_graph_free(mb_device *device, mb_graph *graph)
{
    if (!graph)
        return;
    if (graph->executable) { /* else it was never handed out */
        cudaGraphExecDestroy(graph->executable);
        if (--device->graph_count == 0)
            free_retired(device);
    }
    if (graph->graph)
        cudaGraphDestroy(graph->graph);
    free(graph);
}

/* ---- clocks and ranges ---- */

int mb_cuda_timer_mark(mb_device *device, int slot)
{
    if (slot < 0 || slot >= MB_TIMER_SLOTS)
        return mb_fail(&device->error, MB_E_BUG, "timer slot %d does not exist", slot);
    return mb_cuda_check(device, cudaEventRecord(device->timers[slot], device->stream), "recording an event");
}

int mb_cuda_timer_elapsed(mb_device *device, int from, int to, double *us)
{
    float ms = 0;
    int rc = mb_cuda_check(device, cudaEventSynchronize(device->timers[to]), "waiting for an event");
    if (rc == MB_OK)
        rc = mb_cuda_check(device, cudaEventElapsedTime(&ms, device->timers[from], device->timers[to]),
                           "reading a timer");
    *us = (double)ms * 1000.0;
    return rc;
}

void mb_cuda_range_push(mb_device *device, const char *name)
{
    (void)device;
    nvtxRangePushA(name);
}

void mb_cuda_range_pop(mb_device *device)
{
    (void)device;
    nvtxRangePop();
}

void *mb_cuda_stream(mb_device *device)
{
    return device->stream;
}
