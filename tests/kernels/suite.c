/*
 * suite.c - running a case of the suite: host and device memory, poison and guards, comparison, dispatch.
 */
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 64 /* elements behind an output that must stay poison */
#define TOLD 4   /* failures of a case that are printed */

static int told;

void *suite_own(suite *s, size_t bytes)
{
    void *at = calloc(1, bytes ? bytes : 1);
    if (!at || s->owned_count == (int)(sizeof s->owned / sizeof *s->owned)) {
        fprintf(stderr, "suite: out of memory\n");
        exit(1);
    }
    return s->owned[s->owned_count++] = at;
}

void suite_expect(suite *s, bool good, const char *format, ...)
{
    if (good)
        return;
    s->failures++;
    if (told++ >= TOLD)
        return;
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s %s, case \"%s\": ", s->kernels->name, mb_type_name(s->type), s->problem->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
}

void suite_ok(suite *s, int rc, const char *operation)
{
    suite_expect(s, rc == MB_OK, "%s returned %d: %s", operation, rc, s->kernels->error(s->device));
}

void suite_close(suite *s, const char *what, int64_t at, double got, double want, double limit)
{
    bool good = got == want || fabs(got - want) <= limit;
    suite_expect(s, good, "%s[%lld] is %.9g, not %.9g (+- %.3g)", what, (long long)at, got, want, limit);
}

/* Independent of the backend's own rounding: by arithmetic on the exponent, not by bits. */
float suite_round(mb_type type, double x)
{
    int exponent;
    if ((type != MB_BF16 && type != MB_F16) || x == 0.0 || !isfinite(x))
        return (float)x;
    frexp(x, &exponent);
    int digits = type == MB_F16 ? 11 : 8, least = type == MB_F16 ? -24 : -133;
    int bit = exponent - digits < least ? least : exponent - digits;
    double rounded = ldexp(nearbyint(ldexp(x, -bit)), bit);
    return type == MB_F16 && fabs(rounded) > 65504.0 ? copysignf(INFINITY, (float)x) : (float)rounded;
}

double suite_rounding(mb_type type, double x)
{
    return type == MB_F16 ? 0x1.02p-11 * fabs(x) + 0x1p-25 : (type == MB_BF16 ? 0x1.02p-8 : 0x1p-23) * fabs(x);
}

/* The bits of a value that f16 holds, or of a NaN, by arithmetic. */
static uint16_t half_bits(float x)
{
    int exponent;
    float magnitude = fabsf(x), part = frexpf(magnitude, &exponent);
    int bits = isnan(x)             ? 0x7e00
               : magnitude == 0.0f  ? 0
               : isinf(magnitude)   ? 0x7c00
               : exponent - 1 < -14 ? (int)ldexpf(magnitude, 24)
                                    : (exponent + 14) * 1024 + (int)(part * 2048.0f) - 1024;
    return (uint16_t)(bits | (signbit(x) ? 0x8000 : 0));
}

static float half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, rest = bits & 1023;
    float value = exponent == 31  ? (rest ? NAN : INFINITY)
                  : exponent == 0 ? ldexpf((float)rest, -24)
                                  : ldexpf((float)(1024 + rest), exponent - 25);
    return bits & 0x8000 ? -value : value;
}

float *suite_random(suite *s, int64_t n, double scale)
{
    float *values = suite_own(s, (size_t)n * sizeof *values);
    for (int64_t i = 0; i < n; i++)
        values[i] = suite_round(s->type, (2.0 * mb_random_unit(&s->random) - 1.0) * scale);
    return values;
}

static void *device_memory(suite *s, size_t bytes)
{
    void *at = s->kernels->alloc(s->device, bytes);
    if (!at) {
        fprintf(stderr, "suite: the device's arena is too small for case \"%s\"\n", s->problem->name);
        exit(1);
    }
    return at;
}

void *suite_put(suite *s, const float *values, int64_t n, mb_type type)
{
    size_t size = mb_type_size(type);
    unsigned char *bytes = suite_own(s, (size_t)n * size);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], 4);
        if (type == MB_BF16) {
            uint16_t high = (uint16_t)(bits >> 16); /* already rounded */
            memcpy(bytes + 2 * i, &high, 2);
        } else if (type == MB_F16) {
            uint16_t half = half_bits(values[i]);
            memcpy(bytes + 2 * i, &half, 2);
        } else {
            memcpy(bytes + 4 * i, &bits, 4);
        }
    }
    void *at = device_memory(s, (size_t)n * size + 64);
    suite_ok(s, s->kernels->upload(s->device, at, bytes, (size_t)n * size), "upload");
    return at;
}

int32_t *suite_put_ints(suite *s, const int32_t *values, int64_t n)
{
    int32_t *at = device_memory(s, (size_t)n * 4 + 64);
    suite_ok(s, s->kernels->upload(s->device, at, values, (size_t)n * 4), "upload");
    return at;
}

void *suite_poison(suite *s, int64_t n, mb_type type)
{
    size_t bytes = (size_t)(n + GUARD) * mb_type_size(type);
    void *at = device_memory(s, bytes);
    suite_ok(s, s->kernels->fill(s->device, at, 0xff, bytes), "fill");
    return at;
}

float *suite_get(suite *s, const void *device, int64_t n, mb_type type)
{
    size_t size = mb_type_size(type);
    unsigned char *bytes = suite_own(s, (size_t)n * size);
    float *values = suite_own(s, (size_t)n * sizeof *values);
    suite_ok(s, s->kernels->download(s->device, bytes, device, (size_t)n * size), "download");
    if (s->digest)
        mb_hash_add(s->digest, bytes, (size_t)n * size);
    for (int64_t i = 0; i < n; i++) {
        uint16_t high;
        uint32_t bits;
        if (type == MB_BF16) {
            memcpy(&high, bytes + 2 * i, 2);
            bits = (uint32_t)high << 16;
        } else if (type == MB_F16) {
            memcpy(&high, bytes + 2 * i, 2);
            float value = half_value(high);
            memcpy(&bits, &value, 4);
        } else {
            memcpy(&bits, bytes + 4 * i, 4);
        }
        memcpy(&values[i], &bits, 4);
    }
    return values;
}

float *suite_get_guarded(suite *s, const void *device, int64_t n, mb_type type, const char *what)
{
    float *values = suite_get(s, device, n + GUARD, type);
    for (int64_t i = n; i < n + GUARD; i++)
        suite_expect(s, isnan(values[i]), "%s: element %lld behind the end was written", what, (long long)(i - n));
    return values;
}

int32_t *suite_get_ints(suite *s, const int32_t *device, int64_t n)
{
    int32_t *values = suite_own(s, (size_t)n * 4);
    suite_ok(s, s->kernels->download(s->device, values, device, (size_t)n * 4), "download");
    if (s->digest)
        mb_hash_add(s->digest, values, (size_t)n * 4);
    return values;
}

void suite_begin(suite *s, const mb_kernel_case *problem)
{
    s->mark = s->kernels->mark(s->device);
    s->problem = problem;
    s->random = mb_random_named(20260214, problem->name);
    told = 0;
}

void suite_finish(suite *s)
{
    while (s->owned_count > 0)
        free(s->owned[--s->owned_count]);
    suite_ok(s, s->kernels->sync(s->device), "sync");
    s->kernels->release(s->device, s->mark);
}

void suite_run(suite *s, const mb_kernel_case *problem)
{
    suite_begin(s, problem);
    switch (problem->operation) {
    case MB_OP_embed:
    case MB_OP_add_rmsnorm:
    case MB_OP_gemm:
    case MB_OP_qkv_finish:
    case MB_OP_swiglu:
    case MB_OP_top1:
        suite_transformer(s);
        break;
    case MB_OP_route:
    case MB_OP_experts:
        suite_experts(s);
        break;
    case MB_OP_attend:
    case MB_OP_attend_sparse:
    case MB_OP_attend_prefill:
        suite_attention_case(s);
        break;
    case MB_OP_mass:
    case MB_OP_votes:
    case MB_OP_page_bounds:
    case MB_OP_page_scores:
    case MB_OP_key_scores:
    case MB_OP_key_measures:
        suite_index_case(s);
        break;
    case MB_OP_top_k:
    case MB_OP_top_p:
    case MB_OP_score_edges:
    case MB_OP_state_merge:
    case MB_OP_state_downdate:
    case MB_OP_row_distance:
    case MB_OP_count_work:
        suite_scores_case(s);
        break;
    default:
        suite_parity_case(s);
        break;
    }
    suite_finish(s);
}

bool suite_is_chosen(const char *operation)
{
    const char *list = getenv("MASKBENCH_TEST_OPERATIONS");
    size_t length = strlen(operation);
    for (const char *p = list; p && *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (n == length && strncmp(p, operation, n) == 0)
            return true;
        p += n;
    }
    return !list;
}

int suite_run_operation(suite *s, mb_operation operation)
{
    int ran = 0, seen = 0;
    if (!suite_is_chosen(mb_operation_name(operation)))
        return 0;
    for (size_t i = 0; mb_kernel_case_at(i); i++) {
        const mb_kernel_case *problem = mb_kernel_case_at(i);
        if (problem->operation != operation || !(problem->use & MB_CASE_TEST))
            continue;
        if (s->every && seen++ % s->every)
            continue;
        suite_run(s, problem);
        ran++;
    }
    return ran;
}
