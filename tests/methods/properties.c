/* properties.c - the inherited properties; properties.h says what each one promises. */
#include "tests/methods/properties.h"

#include "methods/registry/registry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Contexts of two lengths in one batch, neither a multiple of a page; blocks smaller than a page. */
static const mb_stage_case usual = {.layers = 5,
                                    .kv_heads = 3,
                                    .group = 2,
                                    .head_dim = 16,
                                    .block = 8,
                                    .steps = 3,
                                    .blocks = 2,
                                    .batch = 2,
                                    .prefix = {203, 150},
                                    .seed = 7};
#define USUAL_K 48

static int breach(mb_error *err, const mb_stage_event *e, const char *what)
{
    return mb_fail(err, -1, "%s: block %d, %s %d, layer %d", what, e->block, e->step ? "step" : "commit, step",
                   e->step, e->layer);
}

/* A copy of the options with another budget; NULL when out of memory. The method must have a row "k" then. */
static void *options_with(const mb_method *method, const void *options, int64_t k)
{
    void *copy = malloc(mb_method_options_bytes(method));
    if (copy && options)
        memcpy(copy, options, mb_method_options_bytes(method));
    for (const mb_option *o = method->options; copy && o && o->name && k > 0; o++)
        if (strcmp(o->name, "k") == 0)
            memcpy((char *)copy + o->offset, &k, sizeof k);
    return copy;
}

static bool has_budget(const mb_method *method)
{
    for (const mb_option *o = method->options; o && o->name; o++)
        if (strcmp(o->name, "k") == 0)
            return true;
    return false;
}

/* A method that keeps states is exact while the queries stay the same: the cases that ask for exactness then hold
 * them still, which makes it "reuse with unchanged queries equals exact". */
static bool exact_at_full_budget(const mb_method *method)
{
    return has_budget(method) || (method->caps & (MB_CAP_LOSSLESS | MB_CAP_REUSE));
}

static int play(const mb_stage_env *env, const mb_stage_case *c, const mb_method *method, const void *options,
                int64_t k, mb_stage_run *run, mb_error *err)
{
    void *copy = options_with(method, options, k);
    int rc = copy ? mb_stage_play(env, c, method, copy, run, err) : MB_E_SYSTEM;
    free(copy);
    return rc;
}

/* Outputs equal exact attention up to rounding. */
static int near_exact(const mb_stage_env *env, const mb_stage_run *run, mb_error *err)
{
    double tolerance = env->type == MB_F32 ? 2e-5 : 2e-2;
    for (size_t i = 0; i < run->count; i++) {
        const mb_stage_event *e = &run->events[i];
        for (size_t j = 0; j < run->size; j++) {
            double exact = (double)e->exact[j], difference = fabs((double)e->out[j] - exact);
            if (!(difference <= tolerance * (1.0 + fabs(exact))))
                return breach(err, e, "differs from exact attention");
        }
    }
    return 0;
}

/* Index, budget and finiteness of one run; k <= 0: no budget to check. */
static int valid(const mb_stage_run *run, int64_t k, mb_error *err)
{
    if (run->late_allocations)
        return mb_fail(err, -1, "%d allocations outside open()", run->late_allocations);
    for (size_t i = 0; i < run->count; i++) {
        const mb_stage_event *e = &run->events[i];
        for (size_t j = 0; j < run->size; j++)
            if (!isfinite(e->out[j]))
                return breach(err, e, "the output is not finite");
        int64_t budget = e->counts ? (k + e->granularity - 1) / e->granularity : 0, used = 0;
        int32_t heads = run->shape.kv_heads;
        for (int32_t bh = 0; e->counts && bh < run->shape.batch * heads; bh++) {
            int64_t pages = (e->prefix[bh / heads] + (int64_t)e->granularity - 1) / e->granularity;
            const int32_t *ids = e->ids + (size_t)bh * (size_t)e->capacity;
            for (int32_t at = 0; at < e->counts[bh]; at++)
                if (ids[at] < 0 || ids[at] >= pages || (at > 0 && ids[at] <= ids[at - 1]))
                    return breach(err, e, "ids must ascend within the prefix");
            /* k is what a KV head reads on average: heads of one sequence may share. */
            used = (bh % heads ? used : 0) + (e->counts[bh] < 0 ? pages : e->counts[bh]);
            if (k > 0 && e->answer.answer == MB_SPARSE && bh % heads == heads - 1 && used > budget * heads)
                return breach(err, e, "more than the budget");
        }
    }
    return 0;
}

int mb_property_full_budget(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    mb_stage_case c = usual;
    mb_stage_run run;
    if (!exact_at_full_budget(method))
        return 0;
    c.still = method->caps & MB_CAP_REUSE;
    int rc = play(env, &c, method, options, 1 << 12, &run, err);
    if (rc == 0)
        rc = near_exact(env, &run, err);
    mb_stage_free(&run);
    return rc;
}

int mb_property_monotone(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    static const int64_t budgets[] = {16, 48, 128};
    mb_stage_run run[2] = {{.count = 0}, {.count = 0}};
    int rc = 0;
    for (size_t i = 0; has_budget(method) && i < sizeof budgets / sizeof budgets[0] && rc == 0; i++) {
        mb_stage_free(&run[0]);
        run[0] = run[1];
        memset(&run[1], 0, sizeof run[1]);
        rc = play(env, &usual, method, options, budgets[i], &run[1], err);
        for (size_t j = 0; rc == 0 && j < run[0].count; j++) {
            const mb_stage_event *few = &run[0].events[j], *many = &run[1].events[j];
            for (int32_t bh = 0; few->counts && bh < run[0].shape.batch * run[0].shape.kv_heads && rc == 0; bh++)
                if (!many->counts || many->captured[bh] < few->captured[bh] - 1e-6)
                    rc = breach(err, many, "a larger budget captures less mass");
        }
    }
    mb_stage_free(&run[0]);
    mb_stage_free(&run[1]);
    return rc;
}

int mb_property_index_valid(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    mb_stage_run run;
    int rc = play(env, &usual, method, options, USUAL_K, &run, err);
    if (rc == 0)
        rc = valid(&run, has_budget(method) ? USUAL_K : 0, err);
    size_t sparse = 0;
    for (size_t i = 0; rc == 0 && i < run.count; i++)
        sparse += run.events[i].answer.answer != MB_DENSE;
    if (rc == 0 && sparse == 0 && !(method->caps & MB_CAP_LOSSLESS))
        rc = mb_fail(err, -1, "every layer of every step was dense: nothing was tested");
    mb_stage_free(&run);
    return rc;
}

int mb_property_head_permutation(const mb_stage_env *env, const mb_method *method, const void *options,
                                 mb_error *err)
{
    static const int32_t order[] = {2, 0, 1};
    mb_stage_case permuted = usual;
    mb_stage_run straight, turned = {.count = 0};
    permuted.head_order = order;
    if (method->caps & MB_CAP_HEAD_ORDER)
        return 0;
    int rc = play(env, &usual, method, options, USUAL_K, &straight, err);
    if (rc == 0)
        rc = play(env, &permuted, method, options, USUAL_K, &turned, err);
    int32_t heads = usual.kv_heads;
    for (size_t i = 0; rc == 0 && i < straight.count; i++) {
        const mb_stage_event *s = &straight.events[i], *t = &turned.events[i];
        if (s->answer.answer != t->answer.answer || !s->counts != !t->counts)
            rc = breach(err, s, "another answer after a permutation of the heads");
        for (int32_t bh = 0; s->counts && bh < usual.batch * heads && rc == 0; bh++) {
            int32_t from = bh / heads * heads + order[bh % heads], n = s->counts[from];
            if (t->counts[bh] != n ||
                (n > 0 && memcmp(t->ids + (size_t)bh * (size_t)t->capacity,
                                 s->ids + (size_t)from * (size_t)s->capacity, (size_t)n * sizeof *s->ids) != 0))
                rc = breach(err, s, "the index does not follow a permutation of the KV heads");
        }
    }
    mb_stage_free(&straight);
    mb_stage_free(&turned);
    return rc;
}

/* Two runs with equal outputs and equal indices, bit for bit. */
static int same(const mb_stage_run *a, const mb_stage_run *b, const char *what, mb_error *err)
{
    size_t heads = (size_t)a->shape.batch * (size_t)a->shape.kv_heads;
    if (a->count != b->count)
        return mb_fail(err, -1, "%s: %zu layers against %zu", what, a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        const mb_stage_event *x = &a->events[i], *y = &b->events[i];
        if (memcmp(x->out, y->out, a->size * sizeof *x->out) != 0)
            return breach(err, x, what);
        if (!x->counts != !y->counts)
            return breach(err, x, what);
        if (x->counts && memcmp(x->counts, y->counts, heads * sizeof *x->counts) != 0)
            return breach(err, x, what);
        for (size_t bh = 0; x->counts && bh < heads; bh++)
            if (x->counts[bh] > 0 && memcmp(x->ids + bh * (size_t)x->capacity, y->ids + bh * (size_t)y->capacity,
                                            (size_t)x->counts[bh] * sizeof *x->ids) != 0)
                return breach(err, x, what);
    }
    return 0;
}

static int pair(const mb_stage_env *env, const mb_method *method, const void *options, const mb_stage_case *other,
                const char *what, mb_error *err)
{
    mb_stage_run a, b = {.count = 0};
    int rc = play(env, &usual, method, options, USUAL_K, &a, err);
    if (rc == 0)
        rc = play(env, other, method, options, USUAL_K, &b, err);
    if (rc == 0)
        rc = same(&a, &b, what, err);
    mb_stage_free(&a);
    mb_stage_free(&b);
    return rc;
}

int mb_property_poison(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    mb_stage_case poisoned = usual;
    poisoned.poison = true;
    return pair(env, method, options, &poisoned, "NaN in an unselected value reaches the output", err);
}

int mb_property_repeat(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    return pair(env, method, options, &usual, "two runs differ", err);
}

int mb_property_contexts(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    static const int32_t prefixes[][2] = {{0, 0}, {0, 1}, {5, 37}, {48, 40}, {64, 16}, {0, 129}};
    int rc = 0;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0] && rc == 0; i++) {
        mb_stage_case c = usual;
        mb_stage_run run;
        int32_t most = 0;
        memcpy(c.prefix, prefixes[i], sizeof prefixes[i]);
        c.still = method->caps & MB_CAP_REUSE;
        for (int32_t b = 0; b < c.batch; b++)
            most = c.prefix[b] > most ? c.prefix[b] : most;
        rc = play(env, &c, method, options, USUAL_K, &run, err);
        if (rc == 0)
            rc = valid(&run, has_budget(method) ? USUAL_K : 0, err);
        if (rc == 0 && has_budget(method) && most + c.block <= USUAL_K) {
            run.count = run.count / (size_t)c.blocks; /* the prefix of the first block is within the budget */
            rc = near_exact(env, &run, err);
            run.count *= (size_t)c.blocks;
        }
        if (rc != 0)
            mb_fail_prefix(err, rc, "contexts of %d and %d tokens", c.prefix[0], c.prefix[1]);
        mb_stage_free(&run);
    }
    return rc;
}

int mb_property_groups(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    static const int32_t groups[] = {1, 4, 6, 7, 8};
    int rc = 0;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0] && rc == 0; i++) {
        mb_stage_case c = usual;
        mb_stage_run run;
        c.kv_heads = 2;
        c.group = groups[i];
        c.blocks = 1;
        rc = play(env, &c, method, options, USUAL_K, &run, err);
        if (rc == 0)
            rc = valid(&run, has_budget(method) ? USUAL_K : 0, err);
        mb_stage_free(&run);
        c.still = method->caps & MB_CAP_REUSE;
        if (rc == 0 && exact_at_full_budget(method)) {
            rc = play(env, &c, method, options, 1 << 12, &run, err);
            if (rc == 0)
                rc = near_exact(env, &run, err);
            mb_stage_free(&run);
        }
        if (rc != 0)
            mb_fail_prefix(err, rc, "%d query heads a KV head", groups[i]);
    }
    return rc;
}

const mb_property mb_properties[] = {{"full budget equals exact", mb_property_full_budget},
                                     {"more budget, more mass", mb_property_monotone},
                                     {"index within the contract", mb_property_index_valid},
                                     {"head permutation", mb_property_head_permutation},
                                     {"poisoned values", mb_property_poison},
                                     {"bit-equal runs", mb_property_repeat},
                                     {"short, odd and empty contexts", mb_property_contexts},
                                     {"query group sizes", mb_property_groups},
                                     {NULL, NULL}};
