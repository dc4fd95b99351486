/*
 * bench_problem.c - the arrays of a bench case. Inputs are normal random numbers: a few MiB are drawn on the host
 * and repeated on the device from another start for every array, so a cache of gigabytes costs no transfer and
 * nothing is timed on zeros.
 */
#include "kernels/bench_problem.h"

#include <stdlib.h>
#include <string.h>

/* Arena memory, or NULL when dry or after a failure. */
static void *take(mb_bench_problem *p, size_t bytes)
{
    p->memory += (bytes + 255) / 256 * 256;
    if (p->maker.dry || p->maker.rc != MB_OK)
        return NULL;
    void *memory = p->maker.kernels->alloc(p->maker.device, bytes);
    if (!memory)
        p->maker.rc = MB_E_SYSTEM;
    return memory;
}

/* Repeats the noise over dst: first from the phase to its end, then by doubling what is there. */
static void repeat(mb_bench_problem *p, void *dst, size_t bytes, const void *noise, size_t element)
{
    mb_case_maker *m = &p->maker;
    size_t have = (size_t)(MB_BENCH_NOISE - p->phase) * element;
    have = have < bytes ? have : bytes;
    if (dst && m->rc == MB_OK)
        m->rc = m->kernels->copy(m->device, dst, (const char *)noise + (size_t)p->phase * element, have);
    while (dst && m->rc == MB_OK && have < bytes) {
        size_t next = have < bytes - have ? have : bytes - have;
        m->rc = m->kernels->copy(m->device, (char *)dst + have, dst, next);
        have += next;
    }
    p->phase = (p->phase + 64 * 977) % (MB_BENCH_NOISE / 2); /* 256-byte steps keep vector loads aligned */
}

static void *random_array(mb_bench_problem *p, int64_t n, mb_type type)
{
    size_t element = mb_type_size(type), bytes = (size_t)n * element;
    void *dst = take(p, bytes);
    repeat(p, dst, bytes, type == MB_F32 ? p->noise_f32 : p->noise, element);
    return dst;
}

void *mb_bench_values(mb_bench_problem *p, int64_t n)
{
    return random_array(p, n, p->maker.type);
}

static void *make_array(mb_case_maker *maker, mb_case_array_kind kind, int64_t n, mb_type type)
{
    mb_bench_problem *p = (mb_bench_problem *)maker;
    if (kind == MB_CASE_OUT || kind == MB_CASE_SCRATCH)
        return take(p, (size_t)n * mb_type_size(type));
    if (kind != MB_CASE_SHARED || p->shared_count == (int)(sizeof p->shared / sizeof *p->shared))
        return random_array(p, n, type);
    void **at = &p->shared[p->shared_count++];
    if (maker->call == 0)
        *at = random_array(p, n, type);
    return *at;
}

static void *upload(mb_case_maker *maker, const int32_t *values, int64_t n)
{
    int32_t *dst = take((mb_bench_problem *)maker, (size_t)n * sizeof *values);
    if (dst && maker->rc == MB_OK)
        maker->rc = maker->kernels->upload(maker->device, dst, values, (size_t)n * sizeof *values);
    return dst;
}

mb_bench_problem *mb_bench_problem_new(const mb_kernels *kernels, mb_device *device, mb_type type,
                                       const mb_kernel_case *problem)
{
    mb_bench_problem *p = calloc(1, sizeof *p);
    if (p)
        p->maker = (mb_case_maker){.kernels = kernels,
                                   .device = device,
                                   .type = type,
                                   .problem = problem,
                                   .random = mb_random_named(1, problem->name),
                                   .array = make_array,
                                   .upload = upload};
    return p;
}

int mb_bench_noise(mb_bench_problem *p)
{
    int64_t n = MB_BENCH_NOISE;
    size_t size = mb_type_size(p->maker.type);
    float *values = malloc((size_t)n * 4);
    uint16_t *halves = malloc((size_t)n * 2);
    void *noise = take(p, n * (int64_t)size);
    float *noise_f32 = take(p, n * 4);
    if (!values || !halves)
        p->maker.rc = MB_E_SYSTEM;
    for (int64_t i = 0; p->maker.rc == MB_OK && i < n; i++) {
        /* Sum of four uniforms, variance 1: as good as normal here. */
        double sum = -2.0;
        uint32_t bits;
        for (int j = 0; j < 4; j++)
            sum += mb_random_unit(&p->maker.random);
        values[i] = (float)(sum * 1.7320508075688772);
        memcpy(&bits, &values[i], 4);
        halves[i] = (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16); /* nearest, ties to even */
    }
    if (p->maker.rc == MB_OK)
        p->maker.rc = p->maker.kernels->upload(p->maker.device, noise, size == 2 ? (void *)halves : (void *)values,
                                               (size_t)n * size);
    if (p->maker.rc == MB_OK)
        p->maker.rc = p->maker.kernels->upload(p->maker.device, noise_f32, values, (size_t)n * 4);
    p->noise = noise;
    p->noise_f32 = noise_f32;
    free(values);
    free(halves);
    return p->maker.rc;
}

int mb_bench_make(mb_bench_problem *p, int count, bool dry)
{
    p->maker.dry = dry;
    p->maker.rc = MB_OK;
    p->memory = 0;
    p->phase = 0;
    p->count = count;
    for (int i = 0; i < count && p->maker.rc == MB_OK; i++) {
        p->maker.call = i;
        p->shared_count = 0;
        mb_case_fill(&p->maker, &p->calls[i]);
    }
    return p->maker.rc;
}

int mb_bench_launch(const mb_bench_problem *p, int call)
{
    return mb_operation_run(p->maker.kernels, p->maker.device, p->maker.problem->operation, &p->calls[call].args);
}
