/*
 * suite_parity.c - operations that have a recipe of arguments and no reference of their own: the backend runs them
 * on inputs that the recipe names, the CPU backend on the same ones, and what was written must agree and stay
 * inside its arrays; entries that neither wrote agree. (On the CPU this compares the backend with itself on one
 * thread: the definition of such an operation is tested where a method uses it.)
 */
#include "tests/kernels/suite.h"

#include <math.h>
#include <string.h>

#define MOST_ARRAYS 24

typedef struct written {
    void *at;
    int64_t n;
    mb_type type;
    bool guarded; /* a guard lies behind it */
} written;

/* One backend's side: arrays come from its suite, numbers from the case's name. */
typedef struct side {
    mb_case_maker maker; /* first: what the recipes see */
    suite *s;
    written arrays[MOST_ARRAYS];
    int count;
} side;

static void *make_array(mb_case_maker *maker, mb_case_array_kind kind, int64_t n, mb_type type)
{
    side *to = (side *)maker;
    void *at;
    if (kind == MB_CASE_OUT || kind == MB_CASE_SCRATCH) {
        at = suite_poison(to->s, n, type == MB_I32 ? MB_F32 : type);
    } else {
        float *host = suite_own(to->s, (size_t)n * sizeof *host);
        for (int64_t i = 0; i < n; i++)
            host[i] = suite_round(type, 2.0 * mb_random_unit(&maker->random) - 1.0);
        at = suite_put(to->s, host, n, type);
    }
    if ((kind == MB_CASE_OUT || kind == MB_CASE_INOUT) && to->count < MOST_ARRAYS)
        to->arrays[to->count++] = (written){at, n, type, kind == MB_CASE_OUT};
    return at;
}

static void *upload(mb_case_maker *maker, const int32_t *values, int64_t n)
{
    side *to = (side *)maker;
    int32_t *at = suite_put_ints(to->s, values, n);
    if (to->count < MOST_ARRAYS) /* sums that grow are uploaded */
        to->arrays[to->count++] = (written){at, n, MB_I32, false};
    return at;
}

static void play(side *to, suite *s, mb_case_call *call)
{
    const mb_kernel_case *problem = s->problem;
    *to = (side){.s = s,
                 .maker = {.kernels = s->kernels,
                           .device = s->device,
                           .type = s->type,
                           .problem = problem,
                           .random = mb_random_named(3, problem->name),
                           .array = make_array,
                           .upload = upload}};
    mb_case_fill(&to->maker, call);
    suite_expect(s, to->maker.rc == MB_OK, "no recipe in kernels/cases*.c makes arguments for %s",
                 mb_operation_name(problem->operation));
    if (to->maker.rc == MB_OK)
        suite_ok(s, mb_operation_run(s->kernels, s->device, problem->operation, &call->args),
                 mb_operation_name(problem->operation));
}

static void compare(suite *s, const written *got, suite *reference, const written *want)
{
    if (got->guarded)
        suite_get_guarded(s, got->at, got->n, got->type == MB_I32 ? MB_F32 : got->type, "output");
    if (got->type == MB_I32) {
        int32_t *x = suite_get_ints(s, got->at, got->n), *y = suite_get_ints(reference, want->at, want->n);
        for (int64_t i = 0; i < got->n; i++)
            suite_expect(s, x[i] == y[i], "entry %lld is %d, not %d", (long long)i, x[i], y[i]);
        return;
    }
    float *x = suite_get(s, got->at, got->n, got->type), *y = suite_get(reference, want->at, want->n, want->type);
    for (int64_t i = 0; i < got->n; i++) {
        bool same = x[i] == y[i] || (isnan(x[i]) && isnan(y[i])); /* what neither wrote; infinities */
        /* Both sides are rounded: where their sums lie on two sides of a tie they are a whole place apart. */
        if (!same)
            suite_close(s, "output", i, (double)x[i], (double)y[i],
                        2e-5 * (1.0 + fabs((double)y[i])) + 2.0 * suite_rounding(got->type, (double)y[i]));
    }
}

void suite_parity_case(suite *s)
{
    static side tested, known;
    mb_case_call call;
    mb_error err = {0};
    mb_device_options options = {.type = s->type, .threads = 1, .arena_bytes = (size_t)256 << 20};
    suite reference = {.kernels = mb_kernels_cpu(), .type = s->type, .bounds = s->bounds, .problem = s->problem};
    suite_expect(s, reference.kernels->open(&reference.device, &options, &err) == MB_OK, "%s", err.text);
    if (!reference.device)
        return;
    suite_begin(&reference, s->problem);
    play(&tested, s, &call);
    play(&known, &reference, &call);
    suite_expect(s, tested.count > 0 && tested.count == known.count, "%d arrays against %d", tested.count,
                 known.count);
    for (int i = 0; i < tested.count && i < known.count; i++)
        compare(s, &tested.arrays[i], &reference, &known.arrays[i]);
    suite_finish(&reference);
    s->failures += reference.failures;
    reference.kernels->close(reference.device);
}
