/*
 * cases_model.c - cases of the operations of a layer, and what m, n, k and mode of a case mean to them. Calls of
 * one case differ in everything they read, but for the KV cache of qkv_finish and the table of embed: there they
 * differ in what they pick from it. Timed cases carry the shapes of the model families.
 */
#include "kernels/case_macros.h"

#include <stdlib.h>
#include <string.h>

static const mb_kernel_case cases[] = {
    {CASE("embed", embed), TEST, SHAPE(77, 100, 40)},
    {CASE("embed scaled", embed), TEST, SHAPE(33, 50, 72), .mode = 1},
    {CASE("embed scaled odd", embed), TEST, SHAPE(3, 50, 37), .mode = 1},
    {CASE("soft embed", soft_embed), TEST, SHAPE(5, 301, 72)},
    {CASE("soft embed wide", soft_embed), TEST, SHAPE(2, 1030, 130)},
    {CASE("softcap", softcap), TEST, SHAPE(33, 0, 77)},
    {CASE("embed wide", embed), TEST, SHAPE(3, 7, 10000)},

    {CASE("rmsnorm two roundings", add_rmsnorm), TEST, SHAPE(33, 0, 256), .flags = MB_CASE_DELTA},
    {CASE("rmsnorm one rounding", add_rmsnorm), TEST, SHAPE(33, 0, 256), .mode = 1, .flags = MB_CASE_DELTA},
    {CASE("rmsnorm odd width", add_rmsnorm), TEST, SHAPE(5, 0, 1001)},
    {CASE("rmsnorm one row", add_rmsnorm), TEST, SHAPE(1, 0, 3584), .mode = 1},
    {CASE("rmsnorm scaled stream", add_rmsnorm), TEST, SHAPE(5, 0, 96), .mode = 3,
     .flags = MB_CASE_DELTA | MB_CASE_WEIGHTS},
    {CASE("rmsnorm no weight", add_rmsnorm), TEST, SHAPE(5, 0, 1001), .mode = 7, .flags = MB_CASE_WEIGHTS},
    {CASE("rmsnorm factor", add_rmsnorm), TEST, SHAPE(9, 0, 64), .mode = 8},
    {CASE("rmsnorm narrow", add_rmsnorm), TEST, SHAPE(300, 0, 8), .flags = MB_CASE_DELTA},

    {CASE("gemm 1x1x1", gemm), TEST, SHAPE(1, 1, 1), .flags = MB_CASE_BIAS},
    {CASE("gemm block rows", gemm), TEST, SHAPE(32, 768, 256)},
    {CASE("gemm bias", gemm), TEST, SHAPE(32, 100, 264), .flags = MB_CASE_BIAS},
    {CASE("gemm few rows", gemm), TEST, SHAPE(3, 65, 520), .flags = MB_CASE_BIAS},
    {CASE("gemm 17 rows", gemm), TEST, SHAPE(17, 33, 136)},
    {CASE("gemm parts of the depth", gemm), TEST, SHAPE(31, 1208, 2112), .flags = MB_CASE_BIAS},
    {CASE("gemm one row", gemm), TEST, SHAPE(1, 136, 64)},
    {CASE("gemm uneven parts", gemm), TEST, SHAPE(9, 72, 1216)},
    {CASE("gemm deep", gemm), TEST, SHAPE(40, 48, 2056)},
    {CASE("gemm many rows", gemm), TEST, SHAPE(777, 40, 72), .flags = MB_CASE_BIAS},

    {CASE("qkv G4 norm", qkv_finish), TEST, HEADS(8, 2, 64), .rows = 32, LENGTHS(2, 64, 17),
     .flags = MB_CASE_NORM},
    {CASE("qkv G4 one rounding", qkv_finish), TEST, HEADS(8, 2, 64), .rows = 8, LENGTHS(1, 33), .mode = 1,
     .flags = MB_CASE_NORM | MB_CASE_PRE},
    {CASE("qkv G7", qkv_finish), TEST, HEADS(14, 2, 128), .rows = 16, LENGTHS(3, 0, 15, 1000),
     .flags = MB_CASE_PRE},
    {CASE("qkv sub-block", qkv_finish), TEST, HEADS(6, 6, 64), .rows = 8, .row_offset = 16, LENGTHS(2, 64, 0)},
    {CASE("qkv values of keys", qkv_finish), TEST, HEADS(4, 1, 512), .rows = 7, LENGTHS(2, 3, 40), .mode = 15,
     .flags = MB_CASE_NORM | MB_CASE_PRE},
    {CASE("qkv values normalised", qkv_finish), TEST, HEADS(4, 2, 64), .rows = 5, LENGTHS(2, 3, 4), .mode = 11,
     .flags = MB_CASE_NORM},
    {CASE("qkv dim 40", qkv_finish), TEST, HEADS(4, 1, 40), .rows = 5, LENGTHS(2, 3, 4), .flags = MB_CASE_NORM},

    {CASE("qkv half of 128", qkv_finish), TEST, HEADS(16, 4, 128), .rows = 32, LENGTHS(2, 64, 17), .k = 64,
     .flags = MB_CASE_NORM | MB_CASE_PRE},
    {CASE("qkv 24 of 40", qkv_finish), TEST, HEADS(4, 1, 40), .rows = 5, LENGTHS(2, 3, 4), .k = 24, .mode = 1,
     .flags = MB_CASE_NORM},
    {CASE("qkv 2 of 64", qkv_finish), TEST, HEADS(4, 2, 64), .rows = 4, LENGTHS(1, 9), .k = 2,
     .flags = MB_CASE_PRE},

    {CASE("slots of three heads", slots_copy), TEST, HEADS(3, 3, 64), .batch = 1, SHAPE(40, 33, 50), .mode = 7,
     .row_offset = 17},
    {CASE("slots of a batch, dim 5", slots_copy), TEST, HEADS(2, 2, 5), .batch = 2, SHAPE(9, 9, 9)},
    {CASE("no slots", slots_copy), TEST, HEADS(2, 2, 64), .batch = 1, SHAPE(9, 0, 9)},

    {CASE("swiglu", swiglu), TEST, SHAPE(33, 0, 768)},
    {CASE("geglu", swiglu), TEST, SHAPE(33, 0, 96), .mode = MB_GELU_TANH},
    {CASE("geglu odd", swiglu), TEST, SHAPE(3, 0, 101), .mode = MB_GELU_TANH},
    {CASE("swiglu odd", swiglu), TEST, SHAPE(3, 0, 101)},

    {CASE("route with scales of experts", route), TEST, SHAPE(9, 0, 72), EXPERTS(16, 3, 1, 1),
     .flags = MB_CASE_WEIGHTS},
    {CASE("route sigmoid groups", route), TEST, SHAPE(33, 0, 264), EXPERTS(256, 8, 8, 4), .mode = MB_SCORE_SIGMOID,
     .flags = MB_CASE_BIAS},
    {CASE("route sigmoid ties", route), TEST, SHAPE(17, 0, 64), EXPERTS(64, 6, 8, 3), .mode = MB_SCORE_SIGMOID,
     .flags = MB_CASE_BIAS | MB_CASE_TIES},
    {CASE("route softmax", route), TEST, SHAPE(32, 0, 256), EXPERTS(128, 8, 1, 1), .mode = MB_SCORE_SOFTMAX},
    {CASE("route softmax rounded", route), TEST, SHAPE(9, 0, 100), EXPERTS(128, 8, 1, 1), .mode = MB_SCORE_SOFTMAX,
     .flags = MB_CASE_ROUND | MB_CASE_TIES},
    {CASE("route one row", route), TEST, SHAPE(1, 0, 2048), EXPERTS(256, 8, 8, 4), .mode = MB_SCORE_SIGMOID},
    {CASE("route many rows", route), TEST, SHAPE(301, 0, 40), EXPERTS(7, 3, 1, 1), .mode = MB_SCORE_SIGMOID,
     .flags = MB_CASE_BIAS},
    {CASE("route all experts", route), TEST, SHAPE(5, 0, 17), EXPERTS(12, 6, 6, 3), .mode = MB_SCORE_SOFTMAX,
     .flags = MB_CASE_TIES},
    {CASE("route groups of one", route), TEST, SHAPE(8, 0, 48), EXPERTS(16, 4, 16, 5), .mode = MB_SCORE_SIGMOID},
    {CASE("route 1024 experts", route), TEST, SHAPE(3, 0, 32), EXPERTS(1024, 32, 32, 7), .mode = MB_SCORE_SIGMOID,
     .flags = MB_CASE_BIAS},

    {CASE("experts gelu", experts), TEST, SHAPE(9, 24, 40), EXPERTS(8, 2, 1, 1), .mode = MB_COMBINE_STEPS,
     .flags = MB_CASE_PRE},
    {CASE("experts gelu odd", experts), TEST, SHAPE(5, 21, 37), EXPERTS(8, 2, 1, 1), .flags = MB_CASE_PRE},
    {CASE("experts", experts), TEST, SHAPE(32, 48, 80), EXPERTS(16, 4, 1, 1), .flags = MB_CASE_DELTA},
    {CASE("experts in steps", experts), TEST, SHAPE(32, 48, 80), EXPERTS(16, 4, 1, 1), .mode = MB_COMBINE_STEPS},
    {CASE("experts one row", experts), TEST, SHAPE(1, 64, 128), EXPERTS(64, 8, 1, 1), .flags = MB_CASE_DELTA},
    {CASE("experts skewed", experts), TEST, SHAPE(150, 80, 144), EXPERTS(8, 2, 1, 1),
     .flags = MB_CASE_SKEWED | MB_CASE_DELTA},
    {CASE("experts wide", experts), TEST, SHAPE(8, 192, 272), EXPERTS(6, 3, 1, 1), .mode = MB_COMBINE_STEPS,
     .flags = MB_CASE_DELTA},
    {CASE("experts odd widths", experts), TEST, SHAPE(19, 37, 53), EXPERTS(5, 2, 1, 1), .flags = MB_CASE_DELTA},
    {CASE("experts size 24", experts), TEST, SHAPE(9, 24, 72), EXPERTS(5, 2, 1, 1)},
    {CASE("experts one of one", experts), TEST, SHAPE(70, 16, 16), EXPERTS(1, 1, 1, 1)},
    {CASE("experts many rows", experts), TEST, SHAPE(515, 32, 64), EXPERTS(40, 8, 1, 1), .flags = MB_CASE_DELTA},

    {CASE("top1 f32", top1), TEST, SHAPE(9, 1000, 0), .mode = MB_F32},
    {CASE("top1 bf16", top1), TEST, SHAPE(33, 2048, 0), .mode = MB_BF16},
    {CASE("top1 f16", top1), TEST, SHAPE(9, 2047, 0), .mode = MB_F16},
    {CASE("top1 large vocabulary", top1), TEST, SHAPE(2, 151936, 0), .mode = MB_BF16},
    {CASE("top1 tiny vocabulary", top1), TEST, SHAPE(4, 3, 0), .mode = MB_BF16},

    /* ---- timed: the tiny model, Fast-dLLM v2 1.5B (12/2 heads) and 7B (28/4), SDAR 8B (32/8), the expert layers
     * of LLaDA2.0 mini and flash and of SDAR 30B-A3B ---- */

    {CASE("tiny qkv", gemm), BENCH, SHAPE(32, 768, 256)},
    {CASE("tiny gate_up", gemm), BENCH, SHAPE(32, 1536, 256)},
    {CASE("tiny down", gemm), BENCH, SHAPE(32, 256, 768)},
    {CASE("7b qkv", gemm), BENCH, SHAPE(32, 4608, 3584), .flags = MB_CASE_BIAS},
    {CASE("7b output", gemm), BENCH, SHAPE(32, 3584, 3584)},
    {CASE("7b gate_up", gemm), BENCH, SHAPE(32, 37888, 3584)},
    {CASE("7b down", gemm), BENCH, SHAPE(32, 3584, 18944)},
    {CASE("7b qkv batch 8", gemm), BENCH, SHAPE(256, 4608, 3584), .flags = MB_CASE_BIAS},
    {CASE("7b output batch 8", gemm), BENCH, SHAPE(256, 3584, 3584)},
    {CASE("7b gate_up batch 8", gemm), BENCH, SHAPE(256, 37888, 3584)},
    {CASE("7b down batch 8", gemm), BENCH, SHAPE(256, 3584, 18944)},
    {CASE("7b logits", gemm), BENCH, SHAPE(32, 152064, 3584)},

    {CASE("tiny embed", embed), BENCH, SHAPE(32, 2048, 256)},
    {CASE("tiny rmsnorm", add_rmsnorm), BENCH, SHAPE(32, 0, 256), .flags = MB_CASE_DELTA},
    {CASE("tiny qkv finish", qkv_finish), BENCH, HEADS(8, 2, 64), .rows = 32, LENGTHS(1, 2048),
     .flags = MB_CASE_NORM},
    {CASE("tiny swiglu", swiglu), BENCH, SHAPE(32, 0, 768)},
    {CASE("tiny top1", top1), BENCH, SHAPE(32, 2048, 0), .mode = MB_BF16},
    {CASE("7b embed", embed), BENCH, SHAPE(256, 152064, 3584)},
    {CASE("7b rmsnorm", add_rmsnorm), BENCH, SHAPE(32, 0, 3584), .flags = MB_CASE_DELTA},
    {CASE("7b rmsnorm batch 8", add_rmsnorm), BENCH, SHAPE(256, 0, 3584), .flags = MB_CASE_DELTA},
    {CASE("7b qkv finish", qkv_finish), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(1, 131072)},
    {CASE("7b qkv finish batch 8", qkv_finish), BENCH, HEADS(28, 4, 128), .rows = 32, EQUAL(8, 131072)},
    {CASE("7b swiglu", swiglu), BENCH, SHAPE(32, 0, 18944)},
    {CASE("7b swiglu batch 8", swiglu), BENCH, SHAPE(256, 0, 18944)},
    {CASE("tiny route", route), BENCH, SHAPE(32, 0, 256), EXPERTS(32, 4, 4, 2), .mode = MB_SCORE_SIGMOID,
     .flags = MB_CASE_BIAS},
    {CASE("tiny experts", experts), BENCH, SHAPE(32, 64, 256), EXPERTS(32, 4, 1, 1), .flags = MB_CASE_DELTA},
    {CASE("mini shared gate_up", gemm), BENCH, SHAPE(32, 1024, 2048)},
    {CASE("mini qkv finish", qkv_finish), BENCH, HEADS(16, 4, 128), .rows = 32, EQUAL(1, 131072), .k = 64,
     .flags = MB_CASE_NORM},
    {CASE("mini route", route), BENCH, SHAPE(32, 0, 2048), EXPERTS(256, 8, 8, 4), .mode = MB_SCORE_SIGMOID,
     .flags = MB_CASE_BIAS},
    {CASE("mini route 1024 rows", route), BENCH, SHAPE(1024, 0, 2048), EXPERTS(256, 8, 8, 4),
     .mode = MB_SCORE_SIGMOID, .flags = MB_CASE_BIAS},
    {CASE("mini experts one row", experts), BENCH, SHAPE(1, 512, 2048), EXPERTS(256, 8, 1, 1)},
    {CASE("mini experts", experts), BENCH, SHAPE(32, 512, 2048), EXPERTS(256, 8, 1, 1), .flags = MB_CASE_DELTA},
    {CASE("mini experts batch 8", experts), BENCH, SHAPE(256, 512, 2048), EXPERTS(256, 8, 1, 1),
     .flags = MB_CASE_DELTA},
    {CASE("mini experts 1024 rows", experts), BENCH, SHAPE(1024, 512, 2048), EXPERTS(256, 8, 1, 1),
     .flags = MB_CASE_DELTA},
    {CASE("flash experts", experts), BENCH, SHAPE(32, 1024, 4096), EXPERTS(256, 8, 1, 1), .flags = MB_CASE_DELTA},
    {CASE("30b experts", experts), BENCH, SHAPE(32, 768, 2048), EXPERTS(128, 8, 1, 1), .mode = MB_COMBINE_STEPS},
    {CASE("30b experts 1024 rows", experts), BENCH, SHAPE(1024, 768, 2048), EXPERTS(128, 8, 1, 1),
     .mode = MB_COMBINE_STEPS},
    {CASE("7b top1", top1), BENCH, SHAPE(32, 152064, 0), .mode = MB_BF16},
};

static void *values(mb_case_maker *m, int64_t n)
{
    return mb_case_array(m, MB_CASE_IN, n, m->type);
}

static void *out(mb_case_maker *m, int64_t n)
{
    return mb_case_array(m, MB_CASE_OUT, n, m->type);
}

/* m ids, vocabulary n, width k; mode 1: scaled. */
static void embed(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    int32_t *ids = malloc((size_t)c->m * sizeof *ids);
    if (!ids)
        m->rc = MB_E_SYSTEM;
    for (int64_t i = 0; ids && i < c->m; i++)
        ids[i] = (int32_t)mb_random_below(&m->random, (uint64_t)c->n);
    call->args.embed = (mb_embed){.n = c->m, .vocab = c->n, .width = c->k};
    call->args.embed.scale = c->mode ? 5.5f : 0;
    call->args.embed.table = mb_case_array(m, MB_CASE_SHARED, c->n * c->k, m->type);
    call->args.embed.ids = mb_case_upload(m, ids, c->m);
    call->args.embed.out = out(m, c->m * c->k);
    free(ids);
}

/* m rows, width k; mode: 1 one_rounding, 4 no weight, 8 a factor; flags DELTA, WEIGHTS (the stream is scaled). */
static void add_rmsnorm(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_rmsnorm *a = &call->args.add_rmsnorm;
    *a = (mb_rmsnorm){.eps = 1e-6f, .one_rounding = c->mode & 1, .n = c->m, .width = c->k};
    a->x = mb_case_array(m, MB_CASE_INOUT, c->m * c->k, m->type);
    a->delta = c->flags & MB_CASE_DELTA ? values(m, c->m * c->k) : NULL;
    a->weight = c->mode & 4 ? NULL : values(m, c->k);
    a->scale = c->flags & MB_CASE_WEIGHTS ? values(m, 1) : NULL;
    a->factor = c->mode & 8 ? 0.14f : 0;
    a->out = out(m, c->m * c->k);
}

/* m x n x k; flag BIAS. */
static void gemm(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_gemm *a = &call->args.gemm;
    *a = (mb_gemm){.m = c->m, .n = c->n, .k = c->k};
    a->a = values(m, c->m * c->k);
    a->weight = values(m, c->n * c->k);
    a->bias = c->flags & MB_CASE_BIAS ? values(m, c->n) : NULL;
    a->out = out(m, c->m * c->n);
}

/* m rows, width k; mode: mb_activation. */
static void swiglu(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    call->args.swiglu = (mb_swiglu){.gate_up = values(m, 2 * c->m * c->k), .n = c->m, .width = c->k};
    call->args.swiglu.activation = (mb_activation)c->mode;
    call->args.swiglu.out = out(m, c->m * c->k);
}

/* m rows, vocabulary n, width k. */
static void soft_embed(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    const float warm = 0.7f;
    int32_t bits;
    memcpy(&bits, &warm, sizeof bits);
    mb_soft_embed *a = &call->args.soft_embed;
    *a = (mb_soft_embed){.n = c->m, .vocab = c->n, .width = c->k, .scale = 7.0f};
    a->logits = values(m, c->m * c->n);
    a->temperature = (const float *)(const void *)mb_case_upload(m, &bits, 1);
    a->table = values(m, c->n * c->k);
    a->out = out(m, c->m * c->k);
    a->scratch =
        mb_case_array(m, MB_CASE_SCRATCH, (int64_t)(mb_soft_embed_scratch(c->m, c->n) / sizeof(float)), MB_F32);
}

/* m * k values. */
static void softcap(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    call->args.softcap = (mb_softcap){.n = c->m * c->k, .cap = 1.5f};
    call->args.softcap.values = mb_case_array(m, MB_CASE_INOUT, c->m * c->k, m->type);
}

/* m rows, vocabulary n; mode: mb_type of the confidence. */
static void top1(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_top1 *a = &call->args.top1;
    *a = (mb_top1){.n = c->m, .vocab = c->n, .confidence = (mb_type)c->mode};
    a->logits = values(m, c->m * c->n);
    a->ids = mb_case_array(m, MB_CASE_OUT, c->m, MB_I32);
    a->probability = mb_case_array(m, MB_CASE_OUT, c->m, MB_F32);
}

/* m rows, width k, experts; mode: mb_score; flags BIAS, ROUND, TIES. */
static void route(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_router *a = &call->args.route;
    *a = (mb_router){.n = c->m,
                     .width = c->k,
                     .experts = c->experts,
                     .top_k = c->chosen,
                     .groups = c->groups,
                     .groups_kept = c->groups_kept,
                     .score = (mb_score)c->mode,
                     .normalise = 1,
                     .scale = 2.5f};
    a->hidden = values(m, c->m * c->k);
    a->weight = values(m, c->experts * c->k);
    a->bias = c->flags & MB_CASE_BIAS ? mb_case_array(m, MB_CASE_IN, c->experts, MB_F32) : NULL;
    a->expert_scale = c->flags & MB_CASE_WEIGHTS ? values(m, c->experts) : NULL;
    a->logits = mb_case_array(m, MB_CASE_OUT, c->m * c->experts, MB_F32);
    a->ids = mb_case_array(m, MB_CASE_OUT, c->m * c->chosen, MB_I32);
    a->weights = mb_case_array(m, MB_CASE_OUT, c->m * c->chosen, MB_F32);
}

mb_random mb_case_expert_draws(const mb_kernel_case *problem)
{
    return mb_random_named(2, problem->name);
}

void mb_case_draw_experts(const mb_kernel_case *problem, mb_random *draws, int32_t *chosen)
{
    for (int32_t k = 0; k < problem->chosen; k++) {
        bool again = true;
        while (again) {
            chosen[k] = (int32_t)mb_random_below(draws, (uint64_t)problem->experts);
            again = false;
            for (int32_t i = 0; i < k; i++)
                again = again || chosen[i] == chosen[k];
        }
    }
}

/* m rows, width k, experts of size n; mode: mb_combine; flags DELTA, SKEWED, PRE (GELU). */
static void experts(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    mb_experts *a = &call->args.experts;
    int32_t *ids = malloc((size_t)(c->m * c->chosen) * sizeof *ids);
    mb_random draws = mb_case_expert_draws(c);
    if (!ids)
        m->rc = MB_E_SYSTEM;
    for (int64_t r = 0; ids && r < c->m; r++) {
        mb_case_draw_experts(c, &draws, ids + r * c->chosen);
        for (int32_t k = 0; k < c->chosen; k++)
            ids[r * c->chosen + k] = (ids[r * c->chosen + k] + m->call * 37) % c->experts;
    }
    *a = (mb_experts){.n = c->m,
                      .width = c->k,
                      .activation = c->flags & MB_CASE_PRE ? MB_GELU_TANH : MB_SILU,
                      .experts = c->experts,
                      .top_k = c->chosen,
                      .size = (int32_t)c->n,
                      .combine = (mb_combine)c->mode};
    a->hidden = values(m, c->m * c->k);
    a->ids = mb_case_upload(m, ids, c->m * c->chosen);
    a->weights = mb_case_array(m, MB_CASE_IN, c->m * c->chosen, MB_F32);
    a->gate_up = values(m, c->experts * 2 * c->n * c->k);
    a->down = values(m, c->experts * c->n * c->k);
    a->add = c->flags & MB_CASE_DELTA ? values(m, c->m * c->k) : NULL;
    a->out = out(m, c->m * c->k);
    size_t scratch = mb_experts_scratch(c->m, c->k, c->experts, c->chosen, (int32_t)c->n, m->type);
    a->scratch = mb_case_array(m, MB_CASE_SCRATCH, (int64_t)(scratch + 3) / 4, MB_F32);
    free(ids);
}

/* mode: 1 norm_one_rounding, 2 values normalised, 4 and made of the keys, 8 queries scaled; k: rotary_dim; flags
 * NORM, PRE. */
static void qkv_finish(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    int64_t rows = (int64_t)c->batch * c->rows;
    mb_qkv *a = &call->args.qkv_finish;
    *a = (mb_qkv){.rows = mb_case_rows(m),
                  .kv = mb_case_kv(m, MB_CASE_SHARED, mb_case_cache_rows(c)),
                  .query_heads = c->query_heads,
                  .norm_eps = 1e-6f,
                  .norm_one_rounding = c->mode & 1,
                  .v_norm = c->mode >> 1 & 1,
                  .v_of_k = c->mode >> 2 & 1,
                  .q_scale = c->mode & 8 ? 4.0f : 0,
                  .rotary_dim = (int32_t)c->k};
    a->cos_sin = mb_case_array(m, MB_CASE_SHARED, (int64_t)a->kv.capacity * c->head_dim, MB_F32);
    a->qkv = values(m, rows * (c->query_heads + (a->v_of_k ? 1 : 2) * c->kv_heads) * c->head_dim);
    if (c->flags & MB_CASE_NORM) {
        a->q_norm = values(m, c->head_dim);
        a->k_norm = values(m, c->head_dim);
    }
    a->q_out = out(m, rows * c->query_heads * c->head_dim);
    a->q_pre = c->flags & MB_CASE_PRE ? out(m, rows * c->query_heads * c->head_dim) : NULL;
}

/* n slots from `mode` of a cache of `m` on, to slot `row_offset` of one of `k`. */
static void slots_copy(mb_case_maker *m, mb_case_call *call)
{
    const mb_kernel_case *c = m->problem;
    call->args.slots_copy = (mb_slots_copy){.from = mb_case_kv(m, MB_CASE_IN, (int32_t)c->m),
                                            .to = mb_case_kv(m, MB_CASE_INOUT, (int32_t)c->k),
                                            .first = c->mode,
                                            .into = c->row_offset,
                                            .n = (int32_t)c->n};
}

static mb_case_recipe *const recipes[MB_OPERATION_COUNT] = {
    MB_CASE_RECIPE(embed),      MB_CASE_RECIPE(add_rmsnorm), MB_CASE_RECIPE(gemm),
    MB_CASE_RECIPE(qkv_finish), MB_CASE_RECIPE(soft_embed),  MB_CASE_RECIPE(softcap),
    MB_CASE_RECIPE(swiglu),     MB_CASE_RECIPE(route),       MB_CASE_RECIPE(experts),
    MB_CASE_RECIPE(top1),       MB_CASE_RECIPE(slots_copy),
};

const mb_case_list mb_cases_model = {cases, sizeof cases / sizeof *cases, recipes};
