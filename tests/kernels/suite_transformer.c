/*
 * suite_transformer.c - embed, add_rmsnorm, gemm, qkv_finish, swiglu, top1 against double precision with the
 * rounding points of kernels.h. Where a result passes several roundings, a double-precision intermediate may
 * fall on the other side of a rounding border; those may differ by a step, but only a small share may differ at
 * all, so that a missing rounding is noticed.
 */
#include "tests/kernels/suite.h"

#include <math.h>
#include <string.h>

/* Compares arrays of T that went through the same roundings. */
static void same_roundings(suite *s, const char *what, const float *got, const double *want, const double *slack,
                           int64_t n)
{
    int64_t slips = 0;
    for (int64_t i = 0; i < n; i++) {
        float rounded = suite_round(s->type, want[i]);
        slips += got[i] != rounded;
        suite_close(s, what, i, (double)got[i], (double)rounded, 2.0 * suite_rounding(s->type, slack[i]) + 1e-30);
    }
    if (s->type != MB_F32)
        suite_expect(s, (double)slips <= s->bounds.slips * (double)n + 2.0,
                     "%s: %lld of %lld results are rounded "
                     "differently",
                     what, (long long)slips, (long long)n);
}

static void embed_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    float *table = suite_random(s, p->n * p->k, 1.0);
    int32_t *ids = suite_own(s, (size_t)p->m * 4);
    for (int64_t i = 0; i < p->m; i++)
        ids[i] = (int32_t)mb_random_below(&s->random, (uint64_t)p->n);
    void *out = suite_poison(s, p->m * p->k, s->type);
    suite_ok(s,
             s->kernels->embed(s->device, &(mb_embed){suite_put_ints(s, ids, p->m), p->m,
                                                      suite_put(s, table, p->n * p->k, s->type), p->n, p->k, out,
                                                      p->mode ? 5.5f : 0}),
             "embed");
    float *got = suite_get_guarded(s, out, p->m * p->k, s->type, "embed");
    for (int64_t i = 0; i < p->m * p->k; i++)
        suite_close(
            s, "row", i, (double)got[i],
            (double)suite_round(s->type, (double)table[ids[i / p->k] * p->k + i % p->k] * (p->mode ? 5.5 : 1)),
            s->type == MB_F32 ? 1e-6 : 0.0);
}

/* One vector: y = RMSNorm(v) * w with the roundings of either form, w NULL: none; not rounded at the end. */
static void norm_reference(mb_type type, const double *v, const float *w, int64_t n, double eps, int one_rounding,
                           double *y)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += v[i] * v[i];
    double rstd = 1.0 / sqrt(sum / (double)n + eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = !w ? v[i] * rstd
                  : (one_rounding ? v[i] * rstd : (double)suite_round(type, v[i] * rstd)) * (double)w[i];
}

static void rmsnorm_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    int64_t n = p->m * p->k;
    float *x = suite_random(s, n, 3.0), *delta = suite_random(s, n, 1.0), *w = suite_random(s, p->k, 2.0);
    double *v = suite_own(s, (size_t)n * sizeof *v), *y = suite_own(s, (size_t)n * sizeof *y);
    bool add = p->flags & MB_CASE_DELTA, scaled = p->flags & MB_CASE_WEIGHTS, plain = p->mode & 4;
    const float factor = p->mode & 8 ? 0.14f : 0.0f, scale = suite_round(s->type, 1.3);
    void *x_device = suite_put(s, x, n, s->type), *out = suite_poison(s, n, s->type);
    suite_ok(s,
             s->kernels->add_rmsnorm(
                 s->device, &(mb_rmsnorm){x_device, add ? suite_put(s, delta, n, s->type) : NULL,
                                          plain ? NULL : suite_put(s, w, p->k, s->type), 1e-6f, p->mode & 1, p->m,
                                          p->k, out, scaled ? suite_put(s, &scale, 1, s->type) : NULL, factor}),
             "add_rmsnorm");
    float *sum = suite_get(s, x_device, n, s->type), *got = suite_get_guarded(s, out, n, s->type, "add_rmsnorm");
    for (int64_t i = 0; i < n; i++) {
        v[i] = add ? (double)suite_round(s->type, (double)x[i] + (double)delta[i]) : (double)x[i];
        v[i] = scaled ? (double)suite_round(s->type, v[i] * (double)scale) : v[i];
        suite_close(s, "x", i, (double)sum[i], v[i], s->type == MB_F32 ? 2e-6 : 0.0);
    }
    for (int64_t r = 0; r < p->m; r++)
        norm_reference(s->type, v + r * p->k, plain ? NULL : w, p->k, 1e-6, p->mode & 1, y + r * p->k);
    for (int64_t i = 0; factor != 0.0f && i < n; i++)
        y[i] = (double)suite_round(s->type, y[i]) * (double)factor;
    if (s->type != MB_F32) {
        same_roundings(s, "out", got, y, y, n);
    } else {
        for (int64_t i = 0; i < n; i++)
            suite_close(s, "out", i, (double)got[i], y[i], 2e-6 * fabs(y[i]) + 1e-30);
    }
}

static void gemm_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    float *a = suite_random(s, p->m * p->k, 1.0), *w = suite_random(s, p->n * p->k, 1.0);
    float *bias = suite_random(s, p->n, 2.0);
    bool biased = p->flags & MB_CASE_BIAS;
    void *out = suite_poison(s, p->m * p->n, s->type);
    suite_ok(
        s,
        s->kernels->gemm(s->device,
                         &(mb_gemm){suite_put(s, a, p->m * p->k, s->type), suite_put(s, w, p->n * p->k, s->type),
                                    biased ? suite_put(s, bias, p->n, s->type) : NULL, p->m, p->n, p->k, out, 0}),
        "gemm");
    float *got = suite_get_guarded(s, out, p->m * p->n, s->type, "gemm");
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = biased ? (double)bias[j] : 0.0, size = fabs(sum);
            for (int64_t c = 0; c < p->k; c++) {
                double term = (double)a[i * p->k + c] * (double)w[j * p->k + c];
                sum += term;
                size += fabs(term);
            }
            suite_close(s, "out", i * p->n + j, (double)got[i * p->n + j], sum,
                        s->bounds.product * size + suite_rounding(s->type, sum));
        }
}

static void qkv_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    int64_t dim = p->head_dim, turned = p->k ? p->k : dim, half = turned / 2, heads = p->query_heads,
            kv_heads = p->kv_heads;
    const bool of_keys = p->mode & 4, v_norm = p->mode & 2;
    const double q_scale = p->mode & 8 ? 4.0 : 1.0;
    int64_t width = (heads + (of_keys ? 1 : 2) * kv_heads) * dim, total = (int64_t)p->batch * p->rows,
            capacity = 0;
    int32_t prefix[64];
    for (int32_t b = 0; b < p->batch; b++) {
        prefix[b] = p->prefix[b % 4];
        int64_t need = prefix[b] + p->row_offset + p->rows;
        capacity = need > capacity ? need : capacity;
    }
    capacity += 3;
    int64_t slots = (int64_t)p->batch * kv_heads * capacity;
    float *qkv = suite_random(s, total * width, 2.0), *q_norm = suite_random(s, dim, 2.0);
    float *k_norm = suite_random(s, dim, 2.0), *cos_sin = suite_random(s, capacity * turned, 1.0);
    bool norm = p->flags & MB_CASE_NORM, pre = p->flags & MB_CASE_PRE;
    void *k = suite_poison(s, slots * dim, s->type), *v = suite_poison(s, slots * dim, s->type);
    void *q_out = suite_poison(s, total * heads * dim, s->type),
         *q_pre = suite_poison(s, total * heads * dim, s->type);
    mb_qkv args = {.rows = {.batch = p->batch,
                            .rows = p->rows,
                            .row_offset = p->row_offset,
                            .prefix_len = suite_put_ints(s, prefix, p->batch),
                            .max_prefix = (int32_t)capacity,
                            .block_keys = p->rows + p->row_offset},
                   .kv = {.k = k,
                          .v = v,
                          .batch = p->batch,
                          .kv_heads = p->kv_heads,
                          .capacity = (int32_t)capacity,
                          .head_dim = p->head_dim},
                   .query_heads = p->query_heads,
                   .qkv = suite_put(s, qkv, total * width, s->type),
                   .q_norm = norm ? suite_put(s, q_norm, dim, s->type) : NULL,
                   .k_norm = norm ? suite_put(s, k_norm, dim, s->type) : NULL,
                   .norm_eps = 1e-6f,
                   .norm_one_rounding = p->mode & 1,
                   .v_norm = v_norm,
                   .v_of_k = of_keys,
                   .q_scale = p->mode & 8 ? 4.0f : 0,
                   .rotary_dim = (int32_t)p->k,
                   .cos_sin = suite_put(s, cos_sin, capacity * turned, MB_F32),
                   .q_out = q_out,
                   .q_pre = pre ? q_pre : NULL};
    suite_ok(s, s->kernels->qkv_finish(s->device, &args), "qkv_finish");
    float *got_q = suite_get_guarded(s, q_out, total * heads * dim, s->type, "q_out");
    float *got_pre = suite_get_guarded(s, q_pre, total * heads * dim, s->type, "q_pre");
    float *got_k = suite_get_guarded(s, k, slots * dim, s->type, "k"),
          *got_v = suite_get_guarded(s, v, slots * dim, s->type, "v");
    bool *written = suite_own(s, (size_t)slots);
    double vec[512], want[512], slack[512];
    for (int64_t row = 0; row < total; row++)
        for (int64_t h = 0; h < heads + 2 * kv_heads; h++) {
            int64_t b = row / p->rows, slot = prefix[b] + p->row_offset + row % p->rows;
            const float *from = qkv + row * width + (h >= heads + kv_heads && of_keys ? h - kv_heads : h) * dim;
            const float *angles = cos_sin + slot * turned;
            int64_t kv = h - heads < kv_heads ? h - heads : h - heads - kv_heads;
            int64_t at = ((b * kv_heads + (h < heads ? 0 : kv)) * capacity + slot) * dim;
            if (h >= heads + kv_heads) {
                for (int64_t c = 0; c < dim; c++)
                    vec[c] = want[c] = slack[c] = (double)from[c];
                if (v_norm)
                    norm_reference(s->type, vec, NULL, dim, 1e-6, 1, want);
                for (int64_t c = 0; c < dim; c++)
                    slack[c] = 4.0 * fabs(want[c]);
                same_roundings(s, "v", got_v + at, want, slack, dim);
                continue;
            }
            for (int64_t c = 0; c < dim; c++)
                vec[c] = (double)from[c];
            if (norm)
                norm_reference(s->type, vec, h < heads ? q_norm : k_norm, dim, 1e-6, p->mode & 1, want);
            for (int64_t c = 0; norm && c < dim; c++)
                vec[c] = (double)suite_round(s->type, want[c]);
            for (int64_t c = 0; c < half; c++) {
                double one = vec[c], two = vec[c + half], cosine = (double)angles[c],
                       sine = (double)angles[c + half];
                want[c] = (double)suite_round(s->type, one * cosine) + (double)suite_round(s->type, -two * sine);
                want[c + half] =
                    (double)suite_round(s->type, two * cosine) + (double)suite_round(s->type, one * sine);
                slack[c] = slack[c + half] = 4.0 * (fabs(one) + fabs(two));
            }
            for (int64_t c = turned; c < dim; c++) { /* behind the turning dimensions nothing turns */
                want[c] = vec[c];
                slack[c] = 4.0 * fabs(vec[c]);
            }
            for (int64_t c = 0; q_scale != 1.0 && h < heads && c < dim; c++) {
                want[c] = (double)suite_round(s->type, want[c]) * q_scale;
                slack[c] *= q_scale;
            }
            const float *got = h < heads ? got_q + (row * heads + h) * dim : got_k + at;
            same_roundings(s, h < heads ? "q" : "k", got, want, slack, dim);
            for (int64_t c = 0; pre && h < heads && c < dim; c++)
                suite_close(s, "q_pre", c, (double)got_pre[(row * heads + h) * dim + c], vec[c],
                            4.0 * suite_rounding(s->type, vec[c]));
            if (h >= heads)
                written[at / dim] = true;
        }
    for (int64_t slot = 0; slot < slots; slot++)
        suite_expect(s, written[slot] || (isnan(got_k[slot * dim]) && isnan(got_v[slot * dim + dim - 1])),
                     "slot %lld was not to be written", (long long)slot);
    for (int64_t i = 0; !pre && i < total * heads * dim; i++)
        suite_expect(s, isnan(got_pre[i]), "q_pre was not asked for");
}

static void swiglu_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    int64_t n = p->m * p->k;
    float *gate_up = suite_random(s, 2 * n, 8.0);
    double *want = suite_own(s, (size_t)n * sizeof *want), *slack = suite_own(s, (size_t)n * sizeof *slack);
    gate_up[0] = -200.0f; /* exp overflows on the way */
    gate_up[1] = 200.0f;
    void *out = suite_poison(s, n, s->type);
    suite_ok(s,
             s->kernels->swiglu(s->device, &(mb_swiglu){suite_put(s, gate_up, 2 * n, s->type), p->m, p->k, out,
                                                        (mb_activation)p->mode}),
             "swiglu");
    float *got = suite_get_guarded(s, out, n, s->type, "swiglu");
    for (int64_t i = 0; i < n; i++) {
        double gate = (double)gate_up[i / p->k * 2 * p->k + i % p->k];
        double up = (double)gate_up[i / p->k * 2 * p->k + p->k + i % p->k];
        want[i] = (double)suite_round(s->type, suite_activated((mb_activation)p->mode, gate)) * up;
        /* Far below 0 it is an exponential, whose argument is rounded. */
        slack[i] = fabs(want[i]) * (p->mode == MB_GELU_TANH ? 16.0 : 1.0);
    }
    if (s->type != MB_F32) {
        same_roundings(s, "out", got, want, slack, n);
    } else {
        for (int64_t i = 0; i < n; i++)
            suite_close(s, "out", i, (double)got[i], want[i], 1e-6 * slack[i] + 1e-30);
    }
}

/* x in [0, 1] rounded to fp16 (10 bits, subnormals of 2^-24) or bf16, by arithmetic. */
static double round_probability(mb_type type, double x)
{
    int exponent;
    if (type == MB_F32 || x == 0.0)
        return x;
    if (type == MB_BF16)
        return (double)suite_round(MB_BF16, x);
    frexp(x, &exponent);
    int bit = exponent - 11 < -24 ? -24 : exponent - 11;
    return ldexp(nearbyint(ldexp(x, -bit)), bit);
}

static void top1_case(suite *s)
{
    const mb_kernel_case *p = s->problem;
    float *logits = suite_random(s, p->m * p->n, 6.0);
    /* Row 0: exact ties. Row 1: near ties that the rounding of the probability merges. Row 2: saturated. */
    logits[p->n - 1] = logits[p->n / 2] = 9.0f;
    if (p->m > 1) {
        logits[p->n + p->n / 3] = suite_round(s->type, 20.0 - (s->type == MB_F32 ? 1e-4 : 0.0));
        logits[2 * p->n - 1] = 20.0f;
    }
    if (p->m > 2)
        logits[2 * p->n + 1] = 60.0f;
    int32_t *ids = suite_poison(s, p->m, MB_F32);
    float *probability = suite_poison(s, p->m, MB_F32);
    suite_ok(s,
             s->kernels->top1(s->device, &(mb_top1){suite_put(s, logits, p->m * p->n, s->type), p->m, p->n,
                                                    (mb_type)p->mode, ids, probability}),
             "top1");
    int32_t *got = suite_get_ints(s, ids, p->m);
    float *got_p = suite_get_guarded(s, probability, p->m, MB_F32, "probability");
    for (int64_t r = 0; r < p->m; r++) {
        const float *line = logits + r * p->n;
        double top = -INFINITY, sum = 0.0, best = -1.0;
        int64_t id = 0;
        for (int64_t j = 0; j < p->n; j++)
            top = (double)line[j] > top ? (double)line[j] : top;
        for (int64_t j = 0; j < p->n; j++)
            sum += exp((double)line[j] - top);
        for (int64_t j = 0; j < p->n; j++) {
            double chance = p->mode == MB_F32
                                ? (double)line[j]
                                : round_probability((mb_type)p->mode, exp((double)line[j] - top) / sum);
            if (j == 0 || chance > best) {
                best = chance;
                id = j;
            }
        }
        double step = p->mode == MB_F32 ? s->bounds.probability : p->mode == MB_BF16 ? 0x1p-7 : 0x1p-10;
        suite_expect(s, got[r] >= 0 && got[r] < p->n, "row %lld: id %d", (long long)r, got[r]);
        suite_close(s, "probability", r, (double)got_p[r], round_probability((mb_type)p->mode, 1.0 / sum),
                    step / sum + 6e-8);
        suite_expect(s, (double)got_p[r] == round_probability((mb_type)p->mode, (double)got_p[r]),
                     "row %lld: %.9g is not rounded", (long long)r, (double)got_p[r]);
        suite_expect(s, got[r] == id, "row %lld: best id is %d, not %lld", (long long)r, got[r], (long long)id);
    }
}

void suite_transformer(suite *s)
{
    switch (s->problem->operation) {
    case MB_OP_embed:
        embed_case(s);
        break;
    case MB_OP_add_rmsnorm:
        rmsnorm_case(s);
        break;
    case MB_OP_gemm:
        gemm_case(s);
        break;
    case MB_OP_qkv_finish:
        qkv_case(s);
        break;
    case MB_OP_swiglu:
        swiglu_case(s);
        break;
    default:
        top1_case(s);
        break;
    }
}
