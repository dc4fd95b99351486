/* recorder.c - see recorder.h. Nothing of the kernels' arithmetic is used here. */
#include "tests/methods/recorder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static mb_recording *recording_now; /* the recorder is a method, and methods get no user pointer */

static float *copy_floats(const void *from, size_t n)
{
    float *to = malloc(n * sizeof *to);
    if (to)
        memcpy(to, from, n * sizeof *to);
    return to;
}

static int record_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)host, (void)options, (void)err;
    recording_now->shape = *shape;
    return 0;
}

static int record_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    const mb_shape *s = &recording_now->shape;
    size_t rows = (size_t)s->batch * (size_t)s->block * (size_t)s->query_heads * (size_t)s->head_dim;
    size_t cache = (size_t)s->batch * (size_t)s->kv_heads * (size_t)(s->capacity + s->block) * (size_t)s->head_dim;
    const mb_snapshot *found = mb_recording_at(recording_now, call->block, call->step, call->layer);
    mb_snapshot *at = &recording_now->at[found - recording_now->at];
    (void)self, (void)out, (void)err;
    at->q = copy_floats(call->q, rows);
    at->q_pre = copy_floats(call->q_pre, rows);
    at->k = copy_floats(call->k, cache);
    at->v = copy_floats(call->v, cache);
    memcpy(at->prefix, call->prefix_len, (size_t)s->batch * sizeof *at->prefix);
    return at->q && at->q_pre && at->k && at->v ? 0 : -1;
}

int mb_record(const mb_stage_env *env, const mb_stage_case *c, mb_recording *recording, mb_error *err)
{
    static const mb_method method = {.abi = MB_METHOD_ABI,
                                     .size = sizeof(mb_method),
                                     .name = "recorder",
                                     .version = "1",
                                     .summary = "",
                                     .reference = "",
                                     .caps = MB_CAP_PRE_ROPE,
                                     .open = record_open,
                                     .select = record_select};
    mb_stage_run run;
    memset(recording, 0, sizeof *recording);
    recording->c = *c;
    recording->c.warmups = 0; /* data depend on nothing that a method remembers: one request is enough */
    recording->at = calloc((size_t)(c->blocks * (c->steps + 1) * c->layers), sizeof *recording->at);
    if (!recording->at || env->type != MB_F32)
        return mb_fail(err, -1, "the recorder needs memory and fp32");
    recording_now = recording;
    int rc = mb_stage_play(env, &recording->c, &method, NULL, &run, err);
    mb_stage_free(&run);
    return rc;
}

void mb_recording_free(mb_recording *recording)
{
    const mb_stage_case *c = &recording->c;
    for (int32_t i = 0; recording->at && i < c->blocks * (c->steps + 1) * c->layers; i++) {
        free(recording->at[i].q);
        free(recording->at[i].q_pre);
        free(recording->at[i].k);
        free(recording->at[i].v);
    }
    free(recording->at);
    memset(recording, 0, sizeof *recording);
}

const mb_snapshot *mb_recording_at(const mb_recording *recording, int32_t block, int32_t step, int32_t layer)
{
    const mb_stage_case *c = &recording->c;
    return &recording->at[(block * (c->steps + 1) + step) * c->layers + layer];
}

static const float *query_at(const mb_recording *recording, const mb_snapshot *query, int32_t b, int32_t r,
                             int32_t a)
{
    const mb_shape *s = &recording->shape;
    return query->q +
           (((size_t)b * (size_t)s->block + (size_t)r) * (size_t)s->query_heads + (size_t)a) * (size_t)s->head_dim;
}

static size_t slot_at(const mb_recording *recording, int32_t b, int32_t a, int32_t j)
{
    const mb_shape *s = &recording->shape;
    size_t head = (size_t)b * (size_t)s->kv_heads + (size_t)(a / (s->query_heads / s->kv_heads));
    return (head * (size_t)(s->capacity + s->block) + (size_t)j) * (size_t)s->head_dim;
}

double mb_recording_logit(const mb_recording *recording, const mb_snapshot *query, const mb_snapshot *cache,
                          int32_t b, int32_t r, int32_t a, int32_t j)
{
    const float *q = query_at(recording, query, b, r, a), *k = cache->k + slot_at(recording, b, a, j);
    double sum = 0;
    for (int32_t i = 0; i < recording->shape.head_dim; i++)
        sum += (double)q[i] * (double)k[i];
    return sum / sqrt(recording->shape.head_dim);
}

void mb_recording_mass(const mb_recording *recording, const mb_snapshot *now, int32_t b, int32_t h, int32_t only,
                       bool all, double *mass)
{
    const mb_shape *s = &recording->shape;
    int32_t group = s->query_heads / s->kv_heads, n = now->prefix[b], rows = 0;
    double *weight = calloc((size_t)(n + s->block), sizeof *weight);
    memset(mass, 0, (size_t)n * sizeof *mass);
    for (int32_t r = 0; r < s->block; r++)
        for (int32_t a = h * group; a < (h + 1) * group; a++) {
            double total = 0;
            if (only >= 0 && r != only)
                continue;
            rows++;
            for (int32_t j = 0; j < n + (all ? s->block : 0); j++) {
                weight[j] = exp(mb_recording_logit(recording, now, now, b, r, a, j));
                total += weight[j];
            }
            for (int32_t j = 0; j < n; j++)
                mass[j] += weight[j] / total;
        }
    for (int32_t j = 0; j < n; j++)
        mass[j] /= rows;
    free(weight);
}

void mb_recording_attend(const mb_recording *recording, const mb_snapshot *now, int32_t b, int32_t r, int32_t a,
                         const mb_reader *readers, double *out)
{
    const mb_shape *s = &recording->shape;
    int32_t n = now->prefix[b];
    double total = 0;
    memset(out, 0, (size_t)s->head_dim * sizeof *out);
    for (int32_t j = 0; j < n + s->block; j++) {
        mb_reader reader = j < n ? readers[j] : (mb_reader){now, r};
        if (!reader.query)
            continue;
        double weight = exp(mb_recording_logit(recording, reader.query, now, b, reader.row, a, j));
        const float *v = now->v + slot_at(recording, b, a, j);
        for (int32_t i = 0; i < s->head_dim; i++)
            out[i] += weight * (double)v[i];
        total += weight;
    }
    for (int32_t i = 0; i < s->head_dim; i++)
        out[i] /= total;
}
