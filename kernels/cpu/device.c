/*
 * device.c - opening the CPU as a device: threads, the arena, copies, clocks.
 *
 * The arena is address space that the kernel backs with memory on first touch. Memory above `arena_used` is
 * always zero: fresh pages are, and release() zeroes what it takes back. Ranges (NVTX) do nothing here.
 */
#include "kernels/cpu/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_DEFAULT ((size_t)64 << 30)
#define ARENA_SMALLEST ((size_t)1 << 28)
#define RETURN_ABOVE ((size_t)1 << 20) /* larger releases give their pages back instead of clearing them */

int mb_cpu_fail(mb_device *device, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(device->error.text, sizeof device->error.text, format, args);
    va_end(args);
    return code;
}

static int usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

int mb_cpu_open(mb_device **device, const mb_device_options *options, mb_error *err)
{
    int rc = MB_OK;
    mb_device *d = calloc(1, sizeof *d);
    *device = NULL;
    if (!d)
        return mb_no_memory(err, "the CPU backend");
    if (options->type != MB_F32 && options->type != MB_BF16 && options->type != MB_F16) {
        rc = mb_fail(err, MB_E_INPUT, "the CPU computes with storage types f32, bf16 and f16 only");
        goto out;
    }
    d->type = options->type;
    d->threads = options->threads > 0 ? options->threads : usable_cores();
    if (d->threads > 1024)
        d->threads = 1024;
    d->private_scratch = calloc((size_t)d->threads, sizeof *d->private_scratch);
    d->pool = mb_cpu_pool_new(d->threads);
    if (!d->private_scratch || !d->pool) {
        rc = mb_fail(err, MB_E_SYSTEM, "cannot start %d threads; ask for fewer", d->threads);
        goto out;
    }
    bool fixed = options->arena_bytes > 0;
    d->arena_bytes = fixed ? (options->arena_bytes + 255) & ~(size_t)255 : ARENA_DEFAULT;
    d->arena = MAP_FAILED;
    while (d->arena == MAP_FAILED) {
        d->arena =
            mmap(NULL, d->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (d->arena == MAP_FAILED && (fixed || d->arena_bytes <= ARENA_SMALLEST)) {
            d->arena = NULL;
            if (options->no_room)
                *options->no_room = true;
            rc = mb_fail(err, MB_E_SYSTEM, "cannot reserve %zu bytes of address space for the CPU's arena",
                         d->arena_bytes);
            goto out;
        }
        if (d->arena == MAP_FAILED)
            d->arena_bytes /= 2;
    }
    *device = d;
out:
    if (rc != MB_OK)
        mb_cpu_close(d);
    return rc;
}

void mb_cpu_close(mb_device *device)
{
    if (!device)
        return;
    mb_cpu_pool_free(device->pool);
    if (device->arena)
        munmap(device->arena, device->arena_bytes);
    for (int i = 0; device->private_scratch && i < device->threads; i++)
        free(device->private_scratch[i]);
    free(device->private_scratch);
    free(device->shared);
    free(device);
}

/* The rest of the first line of a /proc file that starts with key, after its colon; false when there is none. */
static bool proc_value(const char *path, const char *key, char *value, size_t cap)
{
    char line[512];
    bool found = false;
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        char *at = strchr(line, ':');
        if (!at)
            continue;
        at += 1 + strspn(at + 1, " \t");
        at[strcspn(at, "\n")] = '\0';
        snprintf(value, cap, "%s", at);
        found = true;
    }
    fclose(file);
    return found;
}

void mb_cpu_info(mb_device *device, mb_device_info *info)
{
    char value[128];
    memset(info, 0, sizeof *info);
    if (!proc_value("/proc/cpuinfo", "model name", info->name, sizeof info->name))
        snprintf(info->name, sizeof info->name, "CPU");
#if defined(__AVX512F__)
    const char *isa = "AVX-512";
#elif defined(__AVX2__)
    const char *isa = "AVX2";
#else
    const char *isa = "baseline vectors";
#endif
    snprintf(info->detail, sizeof info->detail, "%s, %d thread%s, storage type %s", isa, device->threads,
             device->threads == 1 ? "" : "s", mb_type_name(device->type));
    if (proc_value("/proc/meminfo", "MemTotal", value, sizeof value))
        info->memory_total = (size_t)strtoull(value, NULL, 10) * 1024;
    if (proc_value("/proc/meminfo", "MemAvailable", value, sizeof value))
        info->memory_free = (size_t)strtoull(value, NULL, 10) * 1024;
    size_t left = device->arena_bytes - device->arena_used; /* address space; memory bounds it further */
    info->arena_free = left < info->memory_free ? left : info->memory_free;
}

const char *mb_cpu_error(mb_device *device)
{
    return device ? device->error.text : "";
}

void *mb_cpu_alloc(mb_device *device, size_t bytes)
{
    size_t wanted = bytes < 1 ? 256 : (bytes + 255) & ~(size_t)255;
    if (wanted < bytes || wanted > device->arena_bytes - device->arena_used) {
        mb_cpu_fail(device, MB_E_BUG, "the arena of %zu bytes has no %zu bytes left", device->arena_bytes, bytes);
        return NULL;
    }
    void *at = device->arena + device->arena_used;
    device->arena_used += wanted;
    return at;
}

size_t mb_cpu_mark(mb_device *device)
{
    return device->arena_used;
}

void mb_cpu_release(mb_device *device, size_t mark)
{
    if (mark >= device->arena_used)
        return;
    unsigned char *from = device->arena + mark, *to = device->arena + device->arena_used;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if ((size_t)(to - from) > RETURN_ABOVE) {
        unsigned char *first = device->arena + (mark + page - 1) / page * page;
        unsigned char *last = device->arena + device->arena_used / page * page;
        if (madvise(first, (size_t)(last - first), MADV_DONTNEED) == 0) {
            memset(from, 0, (size_t)(first - from));
            from = last;
        }
    }
    memset(from, 0, (size_t)(to - from));
    device->arena_used = mark;
}

int mb_cpu_upload(mb_device *device, void *dst, const void *host, size_t bytes)
{
    (void)device;
    if (bytes)
        memcpy(dst, host, bytes);
    return MB_OK;
}

int mb_cpu_download(mb_device *device, void *host, const void *src, size_t bytes)
{
    (void)device;
    if (bytes)
        memcpy(host, src, bytes);
    return MB_OK;
}

int mb_cpu_copy(mb_device *device, void *dst, const void *src, size_t bytes)
{
    (void)device;
    if (bytes)
        memmove(dst, src, bytes);
    return MB_OK;
}

int mb_cpu_fill(mb_device *device, void *dst, int byte, size_t bytes)
{
    (void)device;
    if (bytes)
        memset(dst, byte, bytes);
    return MB_OK;
}

int mb_cpu_sync(mb_device *device)
{
    (void)device;
    return MB_OK;
}

int mb_cpu_timer_mark(mb_device *device, int slot)
{
    if (slot < 0 || slot >= MB_TIMER_SLOTS)
        return mb_cpu_fail(device, MB_E_BUG, "timer slot %d is not in 0..%d", slot, MB_TIMER_SLOTS - 1);
    device->timers[slot] = mb_clock_ns();
    return MB_OK;
}

int mb_cpu_timer_elapsed(mb_device *device, int from, int to, double *us)
{
    if (from < 0 || from >= MB_TIMER_SLOTS || to < 0 || to >= MB_TIMER_SLOTS)
        return mb_cpu_fail(device, MB_E_BUG, "timer slots %d, %d are not in 0..%d", from, to, MB_TIMER_SLOTS - 1);
    *us = ((double)device->timers[to] - (double)device->timers[from]) * 1e-3;
    return MB_OK;
}

void mb_cpu_range_push(mb_device *device, const char *name)
{
    (void)device;
    (void)name;
}

void mb_cpu_range_pop(mb_device *device)
{
    (void)device;
}
