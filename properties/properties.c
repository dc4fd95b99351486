/* properties.c - the inherited properties; properties.h says what each one promises. */
#include "properties/properties.h"

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
#define EDGE_CONTEXT 75 /* no multiple of a page either */

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

int mb_property_supported(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    mb_stage_case c = usual;
    mb_stage_run run;
    c.blocks = 0;
    int rc = play(env, &c, method, options, USUAL_K, &run, err);
    bool unsupported = run.unsupported;
    mb_stage_free(&run);
    return rc == 0 ? 1 : unsupported ? 0 : rc;
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

/* Pages that the KV heads of sequence b read. */
static int64_t pages_read(const mb_stage_event *e, int32_t b, int32_t heads)
{
    int64_t all = (e->prefix[b] + (int64_t)e->granularity - 1) / e->granularity, used = 0;
    for (int32_t bh = b * heads; bh < (b + 1) * heads; bh++)
        used += e->counts[bh] < 0 ? all : e->counts[bh];
    return used;
}

static int valid_ids(const mb_stage_run *run, const mb_stage_event *e, mb_error *err)
{
    int32_t heads = run->shape.kv_heads;
    for (int32_t bh = 0; e->counts && bh < run->shape.batch * heads; bh++) {
        int64_t pages = (e->prefix[bh / heads] + (int64_t)e->granularity - 1) / e->granularity;
        const int32_t *ids = e->ids + (size_t)bh * (size_t)e->capacity;
        for (int32_t at = 0; at < e->counts[bh]; at++)
            if (ids[at] < 0 || ids[at] >= pages || (at > 0 && ids[at] <= ids[at - 1]))
                return breach(err, e, "ids must ascend within the prefix");
    }
    return 0;
}

/* k is what a KV head reads on average: heads of one sequence may share. */
static int valid_budget(const mb_stage_run *run, const mb_stage_event *e, int64_t k, mb_error *err)
{
    const int32_t heads = run->shape.kv_heads;
    const int64_t allowed = e->counts ? (k + e->granularity - 1) / e->granularity * heads : 0;
    for (int32_t b = 0; e->counts && e->answer.answer == MB_SPARSE && b < run->shape.batch; b++) {
        int64_t used = pages_read(e, b, heads);
        if (used > allowed)
            return mb_fail(err, -1,
                           "more than the budget: block %d, %s %d, layer %d: %lld pages where k allows %lld",
                           e->block, e->step ? "step" : "commit, step", e->step, e->layer, (long long)used,
                           (long long)allowed);
    }
    return 0;
}

/* Index, budget and finiteness of one run; k <= 0: no budget to check. Where layers share a budget by a rule of
 * the method's own, a layer may read more than k. */
static int valid(const mb_method *method, const mb_stage_run *run, int64_t k, mb_error *err)
{
    if (run->late_allocations)
        return mb_fail(err, -1, "%d allocations outside open()", run->late_allocations);
    for (size_t i = 0; i < run->count; i++) {
        const mb_stage_event *e = &run->events[i];
        for (size_t j = 0; j < run->size; j++)
            if (!isfinite(e->out[j]))
                return breach(err, e, "the output is not finite");
        int rc = valid_ids(run, e, err);
        if (rc == 0 && k > 0 && !(method->caps & MB_CAP_LAYER_BUDGET))
            rc = valid_budget(run, e, k, err);
        if (rc != 0)
            return rc;
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

/* many captures at least what few does, per sequence and head: in every layer, or summed over the layers of a
 * forward where the method shares its budget among them. */
static int not_less(const mb_method *method, const mb_stage_run *few, const mb_stage_run *many, mb_error *err)
{
    const bool shared = method->caps & MB_CAP_LAYER_BUDGET;
    const int32_t pairs = many->shape.batch * many->shape.kv_heads;
    double gained[MB_STAGE_BATCH * MB_STAGE_HEADS] = {0};
    for (size_t j = 0; j < few->count; j++) {
        const mb_stage_event *a = &few->events[j], *b = &many->events[j];
        const bool last = j + 1 == few->count || a[1].layer == 0;
        if (a->counts && !b->counts)
            return breach(err, b, "a larger budget captures less mass");
        for (int32_t bh = 0; a->counts && bh < pairs; bh++)
            gained[bh] += b->captured[bh] - a->captured[bh];
        for (int32_t bh = 0; (last || !shared) && bh < pairs; bh++) {
            if (gained[bh] < -1e-6)
                return breach(err, b, "a larger budget captures less mass");
            gained[bh] = 0;
        }
    }
    return 0;
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
        if (rc == 0)
            rc = not_less(method, &run[0], &run[1], err);
    }
    mb_stage_free(&run[0]);
    mb_stage_free(&run[1]);
    return rc;
}

/* Whether the index is of single keys, where there is one. */
static bool single_keys(const mb_stage_run *run)
{
    for (size_t i = 0; i < run->count; i++)
        if (run->events[i].granularity > 1)
            return false;
    return true;
}

int mb_property_edges(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    mb_stage_case c = usual;
    int rc = 0;
    c.prefix[0] = c.prefix[1] = EDGE_CONTEXT;
    c.blocks = 1;
    c.still = method->caps & MB_CAP_REUSE;
    for (int64_t k = EDGE_CONTEXT - 1; has_budget(method) && k <= EDGE_CONTEXT + 1 && rc == 0; k++) {
        mb_stage_run run;
        rc = play(env, &c, method, options, k, &run, err);
        if (rc == 0)
            rc = valid(method, &run, k, err);
        if (rc == 0 && k >= EDGE_CONTEXT && single_keys(&run)) /* a part of a page may be dropped or read whole */
            rc = near_exact(env, &run, err);
        if (rc != 0)
            mb_fail_prefix(err, rc, "k = %lld of %d tokens", (long long)k, EDGE_CONTEXT);
        mb_stage_free(&run);
    }
    return rc;
}

int mb_property_index_valid(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    mb_stage_run run;
    int rc = play(env, &usual, method, options, USUAL_K, &run, err);
    if (rc == 0)
        rc = valid(method, &run, has_budget(method) ? USUAL_K : 0, err);
    mb_stage_free(&run);
    return rc;
}

int mb_property_sparse(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err)
{
    mb_stage_case c = usual;
    mb_stage_run run;
    c.blocks = c.batch = 1;
    int rc = play(env, &c, method, options, USUAL_K, &run, err);
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
            rc = valid(method, &run, has_budget(method) ? USUAL_K : 0, err);
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
            rc = valid(method, &run, has_budget(method) ? USUAL_K : 0, err);
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

const mb_property mb_properties[] = {{"not dense everywhere", mb_property_sparse},
                                     {"full budget equals exact", mb_property_full_budget},
                                     {"more budget, more mass", mb_property_monotone},
                                     {"budgets at the context's length", mb_property_edges},
                                     {"index within the contract", mb_property_index_valid},
                                     {"head permutation", mb_property_head_permutation},
                                     {"poisoned values", mb_property_poison},
                                     {"bit-equal runs", mb_property_repeat},
                                     {"short, odd and empty contexts", mb_property_contexts},
                                     {"query group sizes", mb_property_groups},
                                     {NULL, NULL}};
