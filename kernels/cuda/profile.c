/*
 * profile.c - which kernel took how long, through CUPTI's activity records. The library is loaded with dlopen, so
 * the program starts without it; a second profiler on the process is refused in one sentence.
 *
 * Every operation of the table says what it is for (mb_cuda_part_begin/end); outside a profile that costs a
 * comparison. While operations run one by one, an external correlation id carries the part to each kernel. Kernels
 * of a graph replay have no such id: they are the same operations, and those of a name come in the same order, so
 * they take their parts from the sequence that the last eager profile left.
 */
#include "kernels/cuda/backend.h"
#include "kernels/cuda/table.h"

#include <cupti.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES ((size_t)4 << 20)

typedef struct raw_record {
    char name[96];
    uint64_t start, end;
    uint32_t correlation;
    int part; /* -1 until an id or the sequence tells */
} raw_record;

struct mb_cuda_profile {
    void *library;
    bool open, unusable;
    uint32_t gpu; /* whose kernels are collected */
    raw_record *records;
    size_t count, capacity;
    uint32_t *correlations; /* correlation -> part pairs, in order of arrival */
    int *parts;
    size_t pairs, pair_capacity;
    char (*sequence)[96]; /* names and parts of the last profile that ran eagerly */
    int *sequence_parts;
    size_t sequence_count;
    bool out_of_memory;
    __typeof__(&cuptiActivityEnable) enable;
    __typeof__(&cuptiActivityDisable) disable;
    __typeof__(&cuptiActivityRegisterCallbacks) callbacks;
    __typeof__(&cuptiActivityFlushAll) flush;
    __typeof__(&cuptiActivityGetNextRecord) next;
    __typeof__(&cuptiActivityGetNumDroppedRecords) dropped;
    __typeof__(&cuptiActivityPushExternalCorrelationId) push;
    __typeof__(&cuptiActivityPopExternalCorrelationId) pop;
    __typeof__(&cuptiGetVersion) version;
};

/* CUPTI's callbacks carry no user pointer: one profile at a time collects here. */
static mb_cuda_profile *collecting;

static void CUPTIAPI buffer_requested(uint8_t **buffer, size_t *size, size_t *most)
{
    *size = BUFFER_BYTES;
    *buffer = aligned_alloc(8, BUFFER_BYTES);
    *most = 0;
    if (!*buffer)
        *size = 0;
}

static void add_record(mb_cuda_profile *p, const char *name, uint64_t start, uint64_t end, uint32_t correlation)
{
    if (p->count == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 4096;
        raw_record *grown = realloc(p->records, capacity * sizeof *grown);
        if (!grown) {
            p->out_of_memory = true;
            return;
        }
        p->records = grown;
        p->capacity = capacity;
    }
    raw_record *r = &p->records[p->count++];
    snprintf(r->name, sizeof r->name, "%s", name ? name : "?");
    r->start = start;
    r->end = end;
    r->correlation = correlation;
    r->part = -1;
}

static void add_pair(mb_cuda_profile *p, uint32_t correlation, int part)
{
    if (p->pairs == p->pair_capacity) {
        size_t capacity = p->pair_capacity ? 2 * p->pair_capacity : 4096;
        uint32_t *correlations = realloc(p->correlations, capacity * sizeof *correlations);
        p->correlations = correlations ? correlations : p->correlations;
        int *parts = realloc(p->parts, capacity * sizeof *parts);
        p->parts = parts ? parts : p->parts;
        if (!correlations || !parts) {
            p->out_of_memory = true;
            return;
        }
        p->pair_capacity = capacity;
    }
    p->correlations[p->pairs] = correlation;
    p->parts[p->pairs++] = part;
}

static void CUPTIAPI buffer_completed(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size,
                                      size_t valid)
{
    CUpti_Activity *record = NULL;
    mb_cuda_profile *p = collecting;
    (void)context, (void)stream, (void)size;
    while (p && valid && p->next(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            const CUpti_ActivityKernel10 *k = (const CUpti_ActivityKernel10 *)(const void *)record;
            if (k->deviceId == p->gpu)
                add_record(p, k->name, k->start, k->end, k->correlationId);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
            const CUpti_ActivityMemcpy6 *m = (const CUpti_ActivityMemcpy6 *)(const void *)record;
            if (m->deviceId == p->gpu)
                add_record(p, "[copy]", m->start, m->end, m->correlationId);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
            const CUpti_ActivityMemset4 *m = (const CUpti_ActivityMemset4 *)(const void *)record;
            if (m->deviceId == p->gpu)
                add_record(p, "[fill]", m->start, m->end, m->correlationId);
        } else if (record->kind == CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION) {
            const CUpti_ActivityExternalCorrelation *e =
                (const CUpti_ActivityExternalCorrelation *)(const void *)record;
            add_pair(p, e->correlationId, (int)e->externalId - 1);
        }
    }
    free(buffer);
}

static int load(mb_device *device, mb_cuda_profile *p)
{
    static const char *const names[] = {"libcupti.so.13", "libcupti.so", NULL};
    uint32_t version = 0;
    for (int i = 0; names[i] && !p->library; i++)
        p->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!p->library)
        return mb_fail(&device->error, MB_E_INPUT,
                       "no breakdown: libcupti.so does not load; it comes with the CUDA toolkit");
    const struct {
        const char *name;
        void *slot;
    } symbols[] = {{"cuptiActivityEnable", &p->enable},
                   {"cuptiActivityDisable", &p->disable},
                   {"cuptiActivityRegisterCallbacks", &p->callbacks},
                   {"cuptiActivityFlushAll", &p->flush},
                   {"cuptiActivityGetNextRecord", &p->next},
                   {"cuptiActivityGetNumDroppedRecords", &p->dropped},
                   {"cuptiActivityPushExternalCorrelationId", &p->push},
                   {"cuptiActivityPopExternalCorrelationId", &p->pop},
                   {"cuptiGetVersion", &p->version}};
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *address = dlsym(p->library, symbols[i].name);
        if (!address)
            return mb_fail(&device->error, MB_E_INPUT, "no breakdown: libcupti.so lacks %s", symbols[i].name);
        memcpy(symbols[i].slot, &address, sizeof address);
    }
    /* Records are read with the layout of the header; an older library writes other ones. */
    if (p->version(&version) != CUPTI_SUCCESS || version < CUPTI_API_VERSION)
        return mb_fail(&device->error, MB_E_INPUT, "no breakdown: libcupti.so is version %u, %u is needed",
                       version, (unsigned)CUPTI_API_VERSION);
    return MB_OK;
}

void mb_cuda_profile_close(mb_cuda_profile *p)
{
    if (!p)
        return;
    if (p->library && p->flush)
        p->flush(1);
    free(p->records);
    free(p->correlations);
    free(p->parts);
    free(p->sequence);
    free(p->sequence_parts);
    free(p); /* the library stays loaded: its threads may still run */
}

/* External correlation records come with those of the API calls only, so these are collected too, and not read. */
static const CUpti_ActivityKind kinds[] = {
    CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION, CUPTI_ACTIVITY_KIND_RUNTIME, CUPTI_ACTIVITY_KIND_DRIVER,
    CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,    CUPTI_ACTIVITY_KIND_MEMCPY,  CUPTI_ACTIVITY_KIND_MEMSET};

int mb_cuda_profile_begin(mb_device *device)
{
    if (!device->profile)
        device->profile = calloc(1, sizeof *device->profile);
    mb_cuda_profile *p = device->profile;
    if (!p)
        return mb_no_memory(&device->error, "a profile");
    if (p->unusable)
        return mb_fail(&device->error, MB_E_INPUT, "no breakdown: CUPTI could not be started");
    int rc = p->library ? MB_OK : load(device, p);
    if (rc == MB_OK)
        rc = mb_cuda_sync(device);
    if (rc != MB_OK)
        return rc;
    p->count = p->pairs = 0;
    p->out_of_memory = false;
    p->gpu = (uint32_t)device->chip.ordinal; /* other ranks of a model run in this process, too */
    collecting = p;
    CUptiResult status = p->callbacks(buffer_requested, buffer_completed);
    for (size_t i = 0; status == CUPTI_SUCCESS && i < sizeof kinds / sizeof kinds[0]; i++)
        status = p->enable(kinds[i]);
    if (status != CUPTI_SUCCESS) {
        p->unusable = true;
        collecting = NULL;
        return mb_fail(&device->error, MB_E_INPUT,
                       "no breakdown: CUPTI refuses (%d); another profiler is probably attached to this process",
                       (int)status);
    }
    p->open = true;
    return MB_OK;
}

void mb_cuda_part_begin(mb_device *device, mb_part part)
{
    if (device->profile && device->profile->open)
        device->profile->push(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, (uint64_t)part + 1); /* 0 means none */
}

void mb_cuda_part_end(mb_device *device)
{
    uint64_t last;
    if (device->profile && device->profile->open)
        device->profile->pop(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, &last);
}

static int by_start(const void *a, const void *b)
{
    const raw_record *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

typedef struct pair {
    uint32_t correlation;
    int part;
} pair;

static int by_correlation(const void *a, const void *b)
{
    const pair *x = a, *y = b;
    return (x->correlation > y->correlation) - (x->correlation < y->correlation);
}

/* Parts from external ids. Returns how many records got one. */
static size_t assign_ids(mb_cuda_profile *p)
{
    size_t assigned = 0;
    pair *sorted = calloc(p->pairs + 1, sizeof *sorted);
    if (!sorted) {
        p->out_of_memory = true;
        return 0;
    }
    for (size_t i = 0; i < p->pairs; i++)
        sorted[i] = (pair){p->correlations[i], p->parts[i]};
    qsort(sorted, p->pairs, sizeof *sorted, by_correlation);
    for (size_t i = 0; i < p->count; i++) {
        pair key = {p->records[i].correlation, 0};
        const pair *found = bsearch(&key, sorted, p->pairs, sizeof *sorted, by_correlation);
        if (found) {
            p->records[i].part = found->part;
            assigned++;
        } else if (p->records[i].name[0] == '[') {
            p->records[i].part = MB_PART_COPY;
        }
    }
    free(sorted);
    return assigned;
}

/* Remembers an eager profile for the replays to come; what no operation launched is the method's own. */
static void remember(mb_cuda_profile *p)
{
    char(*names)[96] = malloc((p->count + 1) * sizeof *names);
    int *parts = malloc((p->count + 1) * sizeof *parts);
    if (!names || !parts) {
        free(names);
        free(parts);
        p->out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < p->count; i++) {
        if (p->records[i].part < 0)
            p->records[i].part = MB_PART_METHOD;
        memcpy(names[i], p->records[i].name, sizeof names[i]);
        parts[i] = p->records[i].part;
    }
    free(p->sequence);
    free(p->sequence_parts);
    p->sequence = names;
    p->sequence_parts = parts;
    p->sequence_count = p->count;
}

/* Where a graph has two branches its kernels may start in another order than those of the eager forward: the i-th
 * kernel of a name is the i-th of that name. */
static int follow(mb_device *device, mb_cuda_profile *p)
{
    size_t first = 0; /* everything of the sequence before it is taken */
    if (p->count != p->sequence_count)
        return mb_fail(&device->error, MB_E_BUG,
                       "the replay ran %zu kernels, the eager forward %zu: no parts can be told", p->count,
                       p->sequence_count);
    bool *taken = calloc(p->count + 1, sizeof *taken);
    if (!taken)
        return mb_no_memory(&device->error, "the order of a profile");
    for (size_t i = 0; i < p->count; i++) {
        size_t j = first;
        while (j < p->count && (taken[j] || strcmp(p->records[i].name, p->sequence[j]) != 0))
            j++;
        if (j == p->count) {
            free(taken);
            return mb_fail(
                &device->error, MB_E_BUG,
                "kernel %zu of the replay, %.60s, has none of its name left in the eager forward: no parts "
                "can be told",
                i, p->records[i].name);
        }
        taken[j] = true;
        while (first < p->count && taken[first])
            first++;
        p->records[i].part = p->sequence_parts[j];
    }
    free(taken);
    return MB_OK;
}

int mb_cuda_profile_end(mb_device *device, mb_kernel_record **records, size_t *count)
{
    mb_cuda_profile *p = device->profile;
    size_t lost = 0;
    *records = NULL;
    *count = 0;
    int rc = mb_cuda_sync(device);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        p->disable(kinds[i]);
    p->flush(1);
    p->open = false;
    collecting = NULL;
    if (rc != MB_OK)
        return rc;
    if (p->dropped(NULL, 0, &lost) == CUPTI_SUCCESS && lost)
        return mb_fail(&device->error, MB_E_SYSTEM, "CUPTI dropped %zu records", lost);
    qsort(p->records, p->count, sizeof *p->records, by_start);
    if (assign_ids(p) > 0)
        remember(p);
    else
        rc = follow(device, p);
    if (rc == MB_OK && p->out_of_memory)
        rc = mb_no_memory(&device->error, "the records of a profile");
    mb_kernel_record *out = rc == MB_OK ? calloc(p->count + 1, sizeof *out) : NULL;
    if (rc == MB_OK && !out)
        rc = mb_no_memory(&device->error, "the records of a profile");
    for (size_t i = 0; rc == MB_OK && i < p->count; i++) {
        memcpy(out[i].name, p->records[i].name, sizeof out[i].name);
        out[i].start_us = (double)(p->records[i].start - p->records[0].start) * 1e-3;
        out[i].end_us = (double)(p->records[i].end - p->records[0].start) * 1e-3;
        out[i].part = (mb_part)p->records[i].part;
    }
    if (rc == MB_OK) {
        *records = out;
        *count = p->count;
    }
    return rc;
}
