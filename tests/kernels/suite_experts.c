/*
 * suite_experts.c - route and experts against double precision. A choice is exact where the reference's margin is
 * wider than what fp32 sums may differ by, and then ids must be equal one by one; ties are made with equal rows of
 * the gate, which every backend must sum to equal bits.
 */
#include "tests/kernels/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- route ---- */

/* One row of the reference: the choice scores after group limiting (-INFINITY = out), scores, chosen ids, and the
 * narrowest margin of any decision on the way. */
struct choice {
    double score[MB_EXPERTS_MAX], value[MB_EXPERTS_MAX], margin;
    int32_t ids[MB_TOP_EXPERTS_MAX];
};

/* The n best of values, ties to the lower index; returns the gap between the last in and the first out. Gaps of 0
 * between equal inputs are wanted ties and do not narrow the margin. */
static double take_best(const double *values, int32_t count, int32_t n, int32_t *ids)
{
    bool taken[MB_EXPERTS_MAX] = {false};
    double gap = INFINITY;
    for (int32_t k = 0; k <= n; k++) {
        int32_t best = -1;
        for (int32_t i = 0; i < count; i++)
            if (!taken[i] && (best < 0 || values[i] > values[best]))
                best = i;
        if (k > 0 && best >= 0 && values[best] > -INFINITY) {
            double step = values[ids[k - 1]] - values[best];
            gap = step > 0.0 && step < gap ? step : gap;
        }
        if (k == n || best < 0)
            break;
        taken[best] = true;
        ids[k] = best;
    }
    return gap;
}

static void reference_choice(const mb_kernel_case *p, const double *z, const float *bias, struct choice *c)
{
    double group[MB_EXPERTS_MAX], top = -INFINITY, sum = 0.0;
    int32_t kept[MB_EXPERTS_MAX], size = p->experts / p->groups;
    for (int32_t e = 0; e < p->experts; e++)
        top = z[e] > top ? z[e] : top;
    for (int32_t e = 0; e < p->experts; e++)
        sum += exp(z[e] - top);
    for (int32_t e = 0; e < p->experts; e++) {
        c->score[e] = p->mode == MB_SCORE_SIGMOID ? 1.0 / (1.0 + exp(-z[e])) : exp(z[e] - top) / sum;
        c->value[e] = c->score[e] + (bias ? (double)bias[e] : 0.0);
    }
    c->margin = INFINITY;
    if (p->groups > 1) {
        for (int32_t g = 0; g < p->groups; g++) {
            int32_t two[2] = {0, 0};
            take_best(c->value + g * size, size, size < 2 ? 1 : 2, two);
            group[g] = c->value[g * size + two[0]] + (size < 2 ? 0.0 : c->value[g * size + two[1]]);
        }
        c->margin = take_best(group, p->groups, p->groups_kept, kept);
        for (int32_t e = 0; e < p->experts; e++) {
            bool in = false;
            for (int32_t g = 0; g < p->groups_kept; g++)
                in = in || kept[g] == e / size;
            c->value[e] = in ? c->value[e] : -INFINITY;
        }
    }
    double gap = take_best(c->value, p->experts, p->chosen, c->ids);
    c->margin = gap < c->margin ? gap : c->margin;
}

static void check_weights(suite *s, int64_t row, const struct choice *c, const int32_t *ids, const float *weights,
                          const float *of_expert, bool rounded)
{
    const mb_kernel_case *p = s->problem;
    double sum = 0.0;
    for (int32_t k = 0; k < p->chosen; k++)
        sum += c->score[ids[k]];
    for (int32_t k = 0; k < p->chosen; k++) {
        double want = rounded ? c->score[ids[k]] : c->score[ids[k]] / (sum + 1e-20) * 2.5;
        if (of_expert)
            want *= (double)of_expert[ids[k]];
        double limit = 4e-6 * fabs(want) + 1e-30 + (rounded ? suite_rounding(s->type, want) : 0.0);
        suite_close(s, "weight", row * p->chosen + k, (double)weights[k], want, limit);
        suite_expect(s, !rounded || weights[k] == suite_round(s->type, (double)weights[k]),
                     "row %lld: weight %.9g is not rounded", (long long)row, (double)weights[k]);
    }
}

/* Equal gate rows e and e+1 (and their bias), equal first and second group; row 0 of hidden is zero, so that every
 * expert ties. */
static void make_ties(const mb_kernel_case *p, float *hidden, float *weight, float *bias)
{
    int64_t size = p->experts / p->groups;
    memset(hidden, 0, (size_t)p->k * sizeof *hidden);
    for (int64_t e = 0; e + 1 < p->experts; e += 2) {
        memcpy(weight + (e + 1) * p->k, weight + e * p->k, (size_t)p->k * sizeof *weight);
        bias[e + 1] = bias[e];
    }
    for (int64_t e = 0; p->groups > 1 && e < size; e++) {
        memcpy(weight + (size + e) * p->k, weight + e * p->k, (size_t)p->k * sizeof *weight);
        bias[size + e] = bias[e];
    }
}

static void route_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    int64_t experts = p->experts, picks = p->m * p->chosen;
    float *hidden = suite_random(s, p->m * p->k, 2.0),
          *weight = suite_random(s, experts * p->k, 2.0 / sqrt((double)p->k));
    float *bias = suite_own(s, (size_t)experts * sizeof *bias);
    bool biased = p->flags & MB_CASE_BIAS, rounded = p->flags & MB_CASE_ROUND;
    float *of_expert = p->flags & MB_CASE_WEIGHTS ? suite_random(s, experts, 2.0) : NULL;
    for (int64_t e = 0; e < experts; e++)
        bias[e] = (float)(2.0 * mb_random_unit(&s->random) - 1.0);
    if (p->flags & MB_CASE_TIES)
        make_ties(p, hidden, weight, bias);
    void *logits = suite_poison(s, p->m * experts, MB_F32), *ids = suite_poison(s, picks, MB_F32);
    void *weights = suite_poison(s, picks, MB_F32);
    mb_router args = {.n = p->m,
                      .width = p->k,
                      .experts = p->experts,
                      .top_k = p->chosen,
                      .groups = p->groups,
                      .groups_kept = p->groups_kept,
                      .score = (mb_score)p->mode,
                      .round_logits = rounded,
                      .round_weights = rounded,
                      .normalise = !rounded,
                      .scale = rounded ? 1.0f : 2.5f,
                      .hidden = suite_put(s, hidden, p->m * p->k, s->type),
                      .weight = suite_put(s, weight, experts * p->k, s->type),
                      .bias = biased ? suite_put(s, bias, experts, MB_F32) : NULL,
                      .expert_scale = of_expert ? suite_put(s, of_expert, experts, s->type) : NULL,
                      .logits = logits,
                      .ids = ids,
                      .weights = weights};
    suite_ok(s, s->kernels->route(s->device, &args), "route");
    float *z = suite_get_guarded(s, logits, p->m * experts, MB_F32, "logits");
    float *w = suite_get_guarded(s, weights, picks, MB_F32, "weights");
    suite_get_guarded(s, ids, picks, MB_F32, "ids");
    int32_t *got = suite_get_ints(s, ids, picks);
    double *line = suite_own(s, (size_t)experts * sizeof *line);
    struct choice *c = suite_own(s, sizeof *c);
    int64_t clear = 0;
    for (int64_t r = 0; r < p->m; r++) {
        for (int64_t e = 0; e < experts; e++) {
            double sum = 0.0, size = 0.0;
            for (int64_t i = 0; i < p->k; i++) {
                double term = (double)hidden[r * p->k + i] * (double)weight[e * p->k + i];
                sum += term;
                size += fabs(term);
            }
            double limit = s->bounds.product * size + (rounded ? suite_rounding(s->type, sum) : 0.0) + 1e-30;
            suite_close(s, "logit", r * experts + e, (double)z[r * experts + e], sum, limit);
            /* Scores and choices are judged on the logits as they came: their error was judged just now. */
            line[e] = (double)z[r * experts + e];
            suite_expect(
                s, !(p->flags & MB_CASE_TIES) || e % 2 == 0 || z[r * experts + e] == z[r * experts + e - 1],
                "row %lld: equal experts %lld and %lld differ", (long long)r, (long long)e - 1, (long long)e);
        }
        reference_choice(p, line, biased ? bias : NULL, c);
        for (int32_t k = 0; k < p->chosen; k++)
            if (got[r * p->chosen + k] < 0 || got[r * p->chosen + k] >= experts) {
                suite_expect(s, false, "row %lld: expert %d", (long long)r, got[r * p->chosen + k]);
                return;
            }
        if (c->margin > 2e-6) { /* fp32 scores are this exact; a sum of two may be off by twice that */
            clear++;
            for (int32_t k = 0; k < p->chosen; k++)
                suite_expect(s, got[r * p->chosen + k] == c->ids[k], "row %lld, place %d: expert %d, not %d",
                             (long long)r, k, got[r * p->chosen + k], c->ids[k]);
        }
        check_weights(s, r, c, got + r * p->chosen, w + r * p->chosen, of_expert, rounded);
    }
    suite_expect(s, clear * 10 >= p->m * 9, "only %lld of %lld rows have a clear choice", (long long)clear,
                 (long long)p->m);
}

/* ---- experts ---- */

/* out = T(h * weight^T) for one row. */
static void linear(suite *s, const double *h, const float *weight, int64_t rows, int64_t width, double *out,
                   double *size)
{
    for (int64_t j = 0; j < rows; j++) {
        double sum = 0.0, terms = 0.0;
        for (int64_t i = 0; i < width; i++) {
            double term = h[i] * (double)weight[j * width + i];
            sum += term;
            terms += fabs(term);
        }
        out[j] = (double)suite_round(s->type, sum);
        size[j] = terms;
    }
}

/* Distinct experts of one row. */
static void pick(suite *s, int32_t *ids)
{
    const mb_kernel_case *p = s->problem;
    bool skewed = p->flags & MB_CASE_SKEWED;
    int32_t most = skewed ? p->experts / 2 : p->experts;
    for (int32_t k = 0; k < p->chosen; k++) {
        bool again = true;
        while (again) {
            ids[k] = skewed && k == 0 ? 0 : (int32_t)mb_random_below(&s->random, (uint64_t)most);
            again = false;
            for (int32_t i = 0; i < k; i++)
                again = again || ids[i] == ids[k];
        }
    }
}

/* The sum over a row's experts with the roundings of the mode; outputs [top_k][width] already of T. */
static double combined(suite *s, const int32_t *ids, const float *weights, const double *outputs, int64_t i)
{
    const mb_kernel_case *p = s->problem;
    double y = 0.0;
    if (p->mode == MB_COMBINE_SUM) {
        for (int32_t k = 0; k < p->chosen; k++)
            y += (double)weights[k] * outputs[k * p->k + i];
        return y;
    }
    for (int32_t e = 0; e < p->experts; e++)
        for (int32_t k = 0; k < p->chosen; k++)
            if (ids[k] == e)
                y = (double)suite_round(
                    s->type, y + (double)suite_round(s->type, (double)weights[k] * outputs[k * p->k + i]));
    return y;
}

static void experts_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    int64_t width = p->k, size = p->n, experts = p->experts, picks = p->m * p->chosen;
    float *hidden = suite_random(s, p->m * width, 2.0), *add = suite_random(s, p->m * width, 2.0);
    float *gate_up = suite_random(s, experts * 2 * size * width, 2.0 / sqrt((double)width));
    float *down = suite_random(s, experts * size * width, 2.0 / sqrt((double)size));
    float *weights = suite_random(s, picks, 1.0);
    int32_t *ids = suite_own(s, (size_t)picks * sizeof *ids);
    const mb_activation activation = p->flags & MB_CASE_PRE ? MB_GELU_TANH : MB_SILU;
    bool added = p->flags & MB_CASE_DELTA, used[MB_EXPERTS_MAX] = {false};
    for (int64_t r = 0; r < p->m; r++)
        pick(s, ids + r * p->chosen);
    for (int64_t i = 0; i < picks; i++)
        used[ids[i]] = true;
    for (int64_t e = 0; e < experts; e++) /* what nobody chose must not be read */
        for (int64_t i = 0; !used[e] && i < size * width; i++)
            gate_up[e * 2 * size * width + i] = gate_up[(e * 2 + 1) * size * width + i] =
                down[e * size * width + i] = NAN;
    /* With something to add the output replaces it, as in the model. */
    void *out = suite_poison(s, p->m * width, s->type);
    if (added)
        suite_ok(s,
                 s->kernels->copy(s->device, out, suite_put(s, add, p->m * width, s->type),
                                  (size_t)(p->m * width) * mb_type_size(s->type)),
                 "copy");
    int64_t bytes = (int64_t)mb_experts_scratch(p->m, width, p->experts, p->chosen, (int32_t)size, s->type);
    mb_experts args = {.n = p->m,
                       .width = width,
                       .experts = p->experts,
                       .top_k = p->chosen,
                       .size = (int32_t)size,
                       .combine = (mb_combine)p->mode,
                       .hidden = suite_put(s, hidden, p->m * width, s->type),
                       .ids = suite_put_ints(s, ids, picks),
                       .weights = suite_put(s, weights, picks, MB_F32),
                       .gate_up = suite_put(s, gate_up, experts * 2 * size * width, s->type),
                       .down = suite_put(s, down, experts * size * width, s->type),
                       .add = added ? out : NULL,
                       .out = out,
                       .scratch = suite_poison(s, bytes / 4, MB_F32),
                       .activation = activation};
    suite_ok(s, s->kernels->experts(s->device, &args), "experts");
    float *got = suite_get_guarded(s, out, p->m * width, s->type, "experts");
    suite_get_guarded(s, (char *)args.scratch + bytes - 4, 1, MB_F32, "scratch");
    double *h = suite_own(s, (size_t)width * 8), *inner = suite_own(s, (size_t)size * 16);
    double *sizes = suite_own(s, (size_t)(2 * size + width) * 8),
           *outputs = suite_own(s, (size_t)(p->chosen * width) * 8);
    double *spread = suite_own(s, (size_t)width * 8);
    int64_t slips = 0;
    for (int64_t r = 0; r < p->m; r++) {
        memset(spread, 0, (size_t)width * 8);
        for (int64_t i = 0; i < width; i++)
            h[i] = (double)hidden[r * width + i];
        for (int32_t k = 0; k < p->chosen; k++) {
            int64_t e = ids[r * p->chosen + k];
            double weight = fabs((double)weights[r * p->chosen + k]);
            linear(s, h, gate_up + e * 2 * size * width, 2 * size, width, inner, sizes);
            for (int64_t i = 0; i < size; i++) {
                double gate = (double)suite_round(s->type, suite_activated(activation, inner[i]));
                inner[i] = (double)suite_round(s->type, gate * inner[size + i]);
            }
            linear(s, inner, down + e * size * width, width, size, outputs + k * width, sizes);
            /* An intermediate on the other side of a rounding border moves the output by a step of one term; the
             * root of their number is what many of them add up to. */
            for (int64_t i = 0; i < width; i++)
                spread[i] += weight * (sizes[i] / sqrt((double)size) * 4.0 + fabs(outputs[k * width + i]) * 2.0);
        }
        for (int64_t i = 0; i < width; i++) {
            double y = combined(s, ids + r * p->chosen, weights + r * p->chosen, outputs, i);
            double want = added ? (double)suite_round(s->type, y) + (double)add[r * width + i] : y;
            double limit =
                suite_rounding(s->type, spread[i] + fabs(y) + fabs(want)) + s->bounds.product * spread[i] * 16.0;
            suite_close(s, "out", r * width + i, (double)got[r * width + i], want, limit);
            slips += got[r * width + i] != suite_round(s->type, want);
        }
    }
    /* The bound above is wide; that a rounding is missing or in another place shows in how many results differ. */
    if (s->type != MB_F32)
        suite_expect(s, (double)slips <= 2.0 * s->bounds.slips * (double)(p->m * width) + 2.0,
                     "experts: %lld of %lld results are rounded differently", (long long)slips,
                     (long long)(p->m * width));
}

void suite_experts(suite *s)
{
    if (s->problem->operation == MB_OP_route)
        route_case(s);
    else
        experts_case(s);
}
