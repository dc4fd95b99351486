/* stage.c - made-up data, the loop over blocks, steps and layers, and the record of what happened. */
#include "properties/made_up.h"
#include "properties/stage.h"
#include "properties/tape.h"

#include "kernels/cpu/convert.h"
#include "model/engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEED 12345u

typedef struct play {
    const mb_stage_env *env;
    const mb_stage_case *c;
    const mb_method *method;
    mb_model_config config; /* as much of one as a shape has */
    mb_session session;     /* as much of one as the attender looks at; cache [batch][kv_heads][slots][head_dim] */
    mb_shape shape;
    mb_attender *attender;
    mb_stage_run *run;
    mb_call call;
    mb_call_view view;
    int32_t prefix[MB_STAGE_BATCH];
    /* device */
    void *q, *q_pre, *out, *block_out, *exact;
    float *lse, *block_lse, *truth;
    /* host */
    float *row; /* [slots][head_dim] and [batch][block][Hq][D], whichever is larger */
    void *packed;
    double *directions; /* [layers][kv_heads][head_dim] */
    int32_t slots;
} play;

/* ---- made-up data ---- */

static int32_t logical_head(const mb_stage_case *c, int32_t slot)
{
    return c->head_order ? c->head_order[slot] : slot;
}

/* What the queries of a KV head look for: keys that point this way get the mass. */
static const double *direction(const play *p, int32_t layer, int32_t head)
{
    return p->directions + (size_t)(layer * p->c->kv_heads + head) * (size_t)p->c->head_dim;
}

static int put(const play *p, void *device, size_t at, const float *values, size_t n)
{
    const mb_stage_env *env = p->env;
    mb_store_row(env->type, p->packed, 0, (int64_t)n, values);
    size_t size = mb_type_size(env->type);
    return env->kernels->upload(env->device, (char *)device + at * size, p->packed, n * size);
}

static int get(const play *p, const void *device, float *values, size_t n)
{
    const mb_stage_env *env = p->env;
    int rc = env->kernels->download(env->device, p->packed, device, n * mb_type_size(env->type));
    mb_load_row(env->type, p->packed, 0, (int64_t)n, values);
    return rc;
}

/* Keys and values of positions [first, first+n) of sequence b, relative to nothing: absolute slots. */
static int put_keys(const play *p, int32_t layer, int32_t b, int32_t first, int32_t n, int32_t version)
{
    const mb_stage_case *c = p->c;
    int rc = 0;
    for (int32_t h = 0; h < c->kv_heads && n > 0 && rc == 0; h++)
        for (int kind = MB_MADE_KEY; kind <= MB_MADE_VALUE && rc == 0; kind++) {
            for (int32_t j = 0; j < n; j++)
                mb_made_vector(c, kind, &(mb_made_place){layer, logical_head(c, h), b, first + j, version},
                               kind == MB_MADE_KEY ? direction(p, layer, logical_head(c, h)) : NULL,
                               p->row + (size_t)j * (size_t)c->head_dim);
            size_t at = ((size_t)(b * c->kv_heads + h) * (size_t)p->slots + (size_t)first) * (size_t)c->head_dim;
            rc = put(p, kind == MB_MADE_KEY ? p->session.kv[layer].k : p->session.kv[layer].v, at, p->row,
                     (size_t)n * (size_t)c->head_dim);
        }
    return rc;
}

/* The query of one row and query head; pre: before RoPE. */
static void make_query(const play *p, bool pre, const mb_made_place *place, int32_t a, float *to)
{
    const mb_stage_case *c = p->c;
    int32_t head = logical_head(c, a / c->group), r = place->position % c->block, step = place->version;
    mb_made_place own = *place;
    own.head = head * c->group + a % c->group;
    own.version = !c->still ? step : r < c->moving_rows && step != 1 ? 2 : 1;
    mb_made_query(c, pre, &own, direction(p, place->layer, head), to);
}

static int put_queries(const play *p, int32_t block, int32_t step, int32_t layer)
{
    const mb_stage_case *c = p->c;
    const int32_t query_heads = c->kv_heads * c->group;
    for (int pre = 0; pre < (p->method->caps & MB_CAP_PRE_ROPE ? 2 : 1); pre++) {
        float *to = p->row;
        for (int32_t b = 0; b < c->batch; b++)
            for (int32_t r = 0; r < c->block; r++)
                for (int32_t a = 0; a < query_heads; a++, to += c->head_dim)
                    make_query(p, pre, &(mb_made_place){layer, 0, b, block * c->block + r, step}, a, to);
        int rc = put(p, pre ? p->q_pre : p->q, 0, p->row, p->run->size);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* ---- one layer ---- */

/* Sets values of unselected prefix keys to NaN; the layer's values before that go to *saved. */
static int poison_values(play *p, const mb_page_set *set, const mb_stage_event *event, void **saved)
{
    const mb_stage_env *env = p->env;
    const mb_shape *shape = &p->shape;
    size_t heads = (size_t)shape->batch * (size_t)shape->kv_heads;
    size_t each = (size_t)p->slots * (size_t)shape->head_dim, size = mb_type_size(env->type);
    char *keep = malloc(heads * each * size), *work = malloc(heads * each * size);
    bool *used = calloc((size_t)p->slots, sizeof *used);
    int rc = keep && work && used ? 0 : MB_E_SYSTEM;
    if (rc == 0)
        rc = env->kernels->download(env->device, keep, p->session.kv[event->layer].v, heads * each * size);
    for (size_t bh = 0; bh < heads && rc == 0; bh++) {
        int32_t n = event->prefix[bh / (size_t)shape->kv_heads], count = event->counts[bh];
        memcpy(work + bh * each * size, keep + bh * each * size, each * size);
        memset(used, count < 0, (size_t)p->slots * sizeof *used);
        for (int32_t i = 0; i < count; i++)
            for (int32_t j = 0; j < set->granularity; j++) {
                int64_t at = (int64_t)event->ids[bh * (size_t)set->capacity + (size_t)i] * set->granularity + j;
                if (at >= 0 && at < p->slots)
                    used[at] = true;
            }
        for (int32_t j = 0; j < n; j++)
            for (int32_t i = 0; i < shape->head_dim && !used[j]; i++) {
                float nan = NAN;
                mb_store_row(env->type, work, (int64_t)(bh * each + (size_t)j * (size_t)shape->head_dim) + i, 1,
                             &nan);
            }
    }
    if (rc == 0)
        rc = env->kernels->upload(env->device, p->session.kv[event->layer].v, work, heads * each * size);
    free(used);
    free(work);
    *saved = keep;
    return rc;
}

static int restore_values(play *p, int32_t layer, const void *saved)
{
    const mb_stage_env *env = p->env;
    size_t floats =
        (size_t)p->shape.batch * (size_t)p->shape.kv_heads * (size_t)p->slots * (size_t)p->shape.head_dim;
    return env->kernels->upload(env->device, p->session.kv[layer].v, saved, floats * mb_type_size(env->type));
}

/* The exact mass of every prefix key, summed over what the index holds. */
static int measure_captured(play *p, mb_stage_event *event)
{
    const mb_shape *shape = &p->shape;
    const mb_host *host = &p->attender->host;
    size_t heads = (size_t)shape->batch * (size_t)shape->kv_heads, n = heads * (size_t)shape->stride;
    float *mass = malloc(n * sizeof *mass);
    int rc = mass ? host->mass(host, &p->call, NULL, MB_ROWS_ALL, MB_OVER_ALL, p->truth) : MB_E_SYSTEM;
    if (rc == 0)
        rc = p->env->kernels->download(p->env->device, mass, p->truth, n * sizeof *mass);
    for (size_t bh = 0; bh < heads && rc == 0; bh++) {
        int32_t prefix = event->prefix[bh / (size_t)shape->kv_heads], count = event->counts[bh];
        double sum = 0;
        for (int32_t j = 0; j < prefix && count < 0; j++)
            sum += (double)mass[bh * (size_t)shape->stride + (size_t)j];
        for (int32_t i = 0; i < count; i++)
            for (int32_t j = 0; j < event->granularity; j++) {
                int64_t at = (int64_t)event->ids[bh * (size_t)event->capacity + (size_t)i];
                at = at * event->granularity + j;
                sum += at >= 0 && at < prefix ? (double)mass[bh * (size_t)shape->stride + (size_t)at] : 0.0;
            }
        event->captured[bh] = sum;
    }
    free(mass);
    return rc;
}

static int record_index(play *p, const mb_page_set *set, mb_stage_event *event)
{
    const mb_stage_env *env = p->env;
    size_t heads = (size_t)p->shape.batch * (size_t)p->shape.kv_heads;
    event->granularity = set->granularity;
    event->capacity = set->capacity;
    event->ids = calloc(heads * (size_t)set->capacity + 1, sizeof *event->ids);
    event->counts = calloc(heads, sizeof *event->counts);
    event->captured = calloc(heads, sizeof *event->captured);
    if (!event->ids || !event->counts || !event->captured)
        return MB_E_SYSTEM;
    int rc = env->kernels->download(env->device, event->counts, set->counts, heads * sizeof *event->counts);
    if (rc == 0)
        rc = env->kernels->download(env->device, event->ids, set->ids,
                                    heads * (size_t)set->capacity * sizeof *event->ids);
    for (size_t bh = 0; bh < heads && rc == 0; bh++)
        if (event->counts[bh] < -1 || event->counts[bh] > set->capacity)
            rc = MB_E_BUG; /* the index cannot even be read */
    return rc == 0 ? measure_captured(p, event) : rc;
}

/* The method's own attention, with the block merged in. */
static int attend_by_method(play *p, mb_error *err)
{
    const mb_host *host = &p->attender->host;
    int rc = mb_tapes_attend(p->c->tapes, p->attender, &p->call, p->out, p->lse, err);
    if (rc == 0)
        rc = host->attend(host, &p->call, MB_SCOPE_BLOCK, NULL, p->block_out, p->block_lse);
    mb_state prefix = {p->out, p->lse, 0}, block = {p->block_out, p->block_lse, 0}, both = {p->out, NULL, 0};
    return rc == 0 ? host->state_merge(host, &p->call, &prefix, &block, &both) : rc;
}

static int attend_dense(play *p, const mb_selection *answer, mb_error *err)
{
    const mb_host *host = &p->attender->host;
    int rc = host->attend(host, &p->call, MB_SCOPE_ALL, NULL, p->out, p->lse);
    if (rc != 0 || answer->want == 0)
        return rc;
    mb_call call = p->call;
    return mb_attender_observe(p->attender, &call, answer, p->lse, NULL, err);
}

static int answer_layer(play *p, mb_stage_event *event, mb_error *err)
{
    const mb_stage_env *env = p->env;
    const mb_host *host = &p->attender->host;
    mb_selection answer = {0};
    void *saved = NULL;
    int rc = env->kernels->fill(env->device, p->session.buffer[MB_BUFFER_WORK], 0, 4 * sizeof(double));
    if (rc == 0)
        rc = mb_tapes_select(p->c->tapes, p->attender, &p->call, &answer, err);
    event->answer = answer;
    if (rc == 0 && answer.pages && answer.answer != MB_DENSE)
        rc = record_index(p, answer.pages, event);
    bool poisoned = rc == 0 && p->c->poison && event->counts;
    if (poisoned)
        rc = poison_values(p, answer.pages, event, &saved);
    if (rc == 0 && answer.answer == MB_DENSE)
        rc = attend_dense(p, &answer, err);
    else if (rc == 0 && answer.answer == MB_ATTEND)
        rc = attend_by_method(p, err);
    else if (rc == 0)
        rc = answer.pages ? host->attend_pages(host, &p->call, answer.pages, MB_SCOPE_ALL, NULL, p->out, p->lse)
                          : MB_E_BUG;
    if (rc == 0)
        rc = get(p, p->out, event->out, p->run->size);
    if (rc == 0)
        rc = env->kernels->download(env->device, &event->read, p->session.buffer[MB_BUFFER_WORK],
                                    sizeof event->read);
    if (poisoned && saved && rc == 0)
        rc = restore_values(p, event->layer, saved);
    free(saved);
    if (rc == 0)
        rc = host->attend(host, &p->call, MB_SCOPE_ALL, NULL, p->exact, NULL);
    return rc == 0 ? get(p, p->exact, event->exact, p->run->size) : rc;
}

/* ---- the loop ---- */

/* Call and view of a layer, -1: none. */
static void at_layer(play *p, int32_t layer)
{
    p->call.layer = layer;
    p->view.kv = layer >= 0 ? p->session.kv[layer] : (mb_kv){0};
    p->call.k = p->view.kv.k;
    p->call.v = p->view.kv.v;
}

static int hook(play *p, mb_hook which, int32_t layer, mb_error *err)
{
    at_layer(p, layer);
    return mb_attender_hook(p->attender, which, &p->call, err);
}

static mb_stage_event *next_event(play *p)
{
    mb_stage_run *run = p->run;
    mb_stage_event *grown = realloc(run->events, (run->count + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    run->events = grown;
    mb_stage_event *event = &run->events[run->count++];
    memset(event, 0, sizeof *event);
    event->block = p->call.block;
    event->step = p->call.step;
    event->layer = p->call.layer;
    event->mode = p->call.mode;
    memcpy(event->prefix, p->prefix, sizeof p->prefix);
    event->out = calloc(run->size, sizeof *event->out);
    event->exact = event->out ? calloc(run->size, sizeof *event->exact) : NULL;
    return event->exact ? event : NULL;
}

/* Masked rows: all at first, fewer each step, none in the commit. */
static int set_masks(play *p, int32_t step)
{
    const mb_stage_case *c = p->c;
    const mb_stage_env *env = p->env;
    size_t n = (size_t)c->batch * (size_t)c->block;
    int32_t masked = step == 0 ? 0 : c->block - (step - 1) * c->block / c->steps;
    float *rows = calloc(3 * n, sizeof *rows);
    if (!rows)
        return MB_E_SYSTEM;
    for (size_t i = 0; i < n; i++) {
        int32_t r = (int32_t)(i % (size_t)c->block);
        rows[i] = r < masked ? 1.0f : 0.0f;
        rows[n + i] = masked == 0 ? 1.0f : rows[i];
        rows[2 * n + i] = r == c->block / 2 ? 1.0f : 0.0f;
    }
    p->call.masked_rows = masked;
    /* The three arrays lie one after the other in a session's input. */
    int rc = env->kernels->upload(env->device, mb_input_at(&p->session, mb_session_input(&p->session).masked),
                                  rows, 3 * n * sizeof *rows);
    free(rows);
    return rc;
}

static int forward_layer(play *p, int32_t block, int32_t step, int32_t layer, mb_error *err)
{
    const mb_stage_case *c = p->c;
    int rc = put_queries(p, block, step, layer);
    for (int32_t b = 0; b < c->batch && rc == 0; b++)
        rc = put_keys(p, layer, b, p->prefix[b], c->block, step == 0 ? 0 : 1000 * (block + 1) + step);
    p->call.q = p->q;
    p->call.q_pre = p->method->caps & MB_CAP_PRE_ROPE ? p->q_pre : NULL;
    at_layer(p, layer);
    mb_stage_event *event = rc == 0 ? next_event(p) : NULL;
    rc = rc == 0 && !event ? MB_E_SYSTEM : rc;
    if (rc == 0)
        rc = answer_layer(p, event, err);
    if (rc == 0 && step == 0)
        rc = hook(p, MB_HOOK_KV_ADDED, layer, err);
    p->call.q = p->call.q_pre = NULL;
    return rc;
}

static int forward(play *p, int32_t block, int32_t step, mb_error *err)
{
    const mb_stage_case *c = p->c;
    p->call.block = block;
    p->call.step = step;
    p->call.phase = step == 0 ? MB_PHASE_COMMIT : step == 1 ? MB_PHASE_FIRST_STEP : MB_PHASE_LATER_STEP;
    bool denoises = step > 0; /* a commit has no step_begin and step_end, as in the decoder */
    int rc = set_masks(p, step);
    p->call.layer = -1;
    if (rc == 0)
        rc = mb_attender_mode(p->attender, &p->call, &p->call.mode, err);
    if (rc == 0 && denoises)
        rc = hook(p, MB_HOOK_STEP_BEGIN, -1, err);
    for (int32_t l = 0; l < c->layers && rc == 0; l++)
        rc = forward_layer(p, block, step, l, err);
    return rc == 0 && denoises ? hook(p, MB_HOOK_STEP_END, -1, err) : rc;
}

static int set_prefix(play *p)
{
    int32_t most = 0;
    for (int32_t b = 0; b < p->c->batch; b++)
        most = p->prefix[b] > most ? p->prefix[b] : most;
    p->call.max_prefix = p->c->tapes ? p->shape.capacity : most; /* a graph serves all lengths */
    p->view.rows.max_prefix = p->call.max_prefix;
    return mb_session_send_prefix(&p->session, NULL);
}

static int play_request(play *p, mb_error *err)
{
    const mb_stage_case *c = p->c;
    int rc = set_prefix(p);
    p->call.phase = MB_PHASE_PREFILL;
    if (rc == 0)
        rc = hook(p, MB_HOOK_REQUEST_BEGIN, -1, err);
    for (int32_t l = 0; l < c->layers && rc == 0; l++) {
        for (int32_t b = 0; b < c->batch && rc == 0; b++)
            rc = put_keys(p, l, b, 0, p->prefix[b], 0);
        if (rc == 0)
            rc = hook(p, MB_HOOK_KV_ADDED, l, err);
    }
    for (int32_t block = 0; block < c->blocks && rc == 0; block++) {
        p->call.block = block;
        p->call.step = 1;
        p->call.phase = MB_PHASE_FIRST_STEP;
        rc = hook(p, MB_HOOK_BLOCK_BEGIN, -1, err);
        for (int32_t step = 1; step <= c->steps && rc == 0; step++)
            rc = forward(p, block, step, err);
        if (rc == 0)
            rc = forward(p, block, 0, err);
        if (rc == 0)
            rc = hook(p, MB_HOOK_BLOCK_END, -1, err);
        for (int32_t b = 0; b < c->batch; b++)
            p->prefix[b] += c->block;
        if (rc == 0)
            rc = set_prefix(p);
    }
    return rc;
}

static int report(play *p, mb_error *err)
{
    size_t layers = (size_t)p->shape.layers, n = (size_t)32 * MB_STAGE_STEPS * layers, count = 0;
    mb_counter_place *values = NULL;
    int rc = mb_attender_report(p->attender, p->run->counters, 32, err);
    if (rc == 0)
        rc = mb_attender_report_maps(p->attender, &values, &count, err);
    if (rc != 0 || !p->method->report_maps)
        return rc;
    p->run->maps = calloc(n, sizeof(double));
    p->run->weights = calloc(n, sizeof(double));
    if (!p->run->maps || !p->run->weights)
        rc = MB_E_SYSTEM;
    for (size_t i = 0; i < count && rc == 0; i++) {
        size_t layer = values[i].layer < 0 ? 0 : (size_t)values[i].layer;
        size_t step = values[i].step < 0 ? 0 : (size_t)values[i].step;
        size_t at = ((size_t)values[i].map * MB_STAGE_STEPS + step) * layers + layer;
        rc = step < MB_STAGE_STEPS ? 0 : MB_E_BUG;
        if (rc == 0) {
            p->run->maps[at] = values[i].sum;
            p->run->weights[at] = values[i].weight;
        }
    }
    free(values);
    return rc;
}

/* A session without a model: sizes, the backend, and the buffers that hooks and operations lead to. */
static void session_fill(play *p)
{
    const mb_stage_case *c = p->c;
    int32_t most = 0;
    for (int32_t b = 0; b < c->batch; b++)
        most = c->prefix[b] > most ? c->prefix[b] : most;
    p->config = (mb_model_config){.layers = c->layers,
                                  .query_heads = c->kv_heads * c->group,
                                  .kv_heads = c->kv_heads,
                                  .head_dim = c->head_dim,
                                  .block = c->block};
    p->session = (mb_session){.config = &p->config,
                              .kernels = p->env->kernels,
                              .device = p->env->device,
                              .type = p->env->type,
                              .batch = c->batch,
                              .block = c->block,
                              .capacity = most + c->blocks * c->block,
                              .prefix = p->prefix,
                              .measure = {.counting = true}};
    mb_session_shape(&p->session, c->adaptive ? 0 : c->steps, &p->shape);
    p->session.stride = p->shape.stride;
}

static int allocate(play *p)
{
    const mb_stage_env *env = p->env;
    const mb_shape *s = &p->shape;
    size_t size = mb_type_size(env->type), heads = (size_t)s->batch * (size_t)s->kv_heads;
    p->slots = s->capacity + s->block;
    size_t cache = heads * (size_t)p->slots * (size_t)s->head_dim;
    size_t rows = (size_t)s->batch * (size_t)s->block, states = rows * (size_t)s->query_heads;
    p->run->size = states * (size_t)s->head_dim;
    size_t largest = p->run->size > cache ? p->run->size : cache;
    p->row = malloc(largest * sizeof *p->row);
    p->packed = malloc(largest * size);
    p->session.kv = calloc((size_t)s->layers, sizeof *p->session.kv);
    p->directions = malloc((size_t)s->layers * (size_t)s->kv_heads * (size_t)s->head_dim * sizeof *p->directions);
    if (!p->row || !p->packed || !p->session.kv || !p->directions)
        return MB_E_SYSTEM;
    for (int32_t i = 0; i < s->layers * s->kv_heads; i++)
        mb_made_direction(p->c, i, p->directions + (size_t)i * (size_t)s->head_dim);
#define TAKE(field, bytes)                                                                                        \
    if (!((field) = env->kernels->alloc(env->device, (bytes))))                                                   \
    return MB_E_SYSTEM
    for (int32_t l = 0; l < s->layers; l++) {
        mb_kv *kv = &p->session.kv[l];
        *kv = (mb_kv){NULL, NULL, s->batch, s->kv_heads, p->slots, s->head_dim};
        TAKE(kv->k, cache * size);
        TAKE(kv->v, cache * size);
    }
    TAKE(p->q, p->run->size * size);
    TAKE(p->q_pre, p->run->size * size);
    TAKE(p->out, p->run->size * size);
    TAKE(p->block_out, p->run->size * size);
    TAKE(p->exact, p->run->size * size);
    TAKE(p->lse, states * sizeof(float));
    TAKE(p->block_lse, states * sizeof(float));
    TAKE(p->truth, heads * (size_t)s->stride * sizeof(float));
    void **buffer = p->session.buffer;
    p->session.scratch_bytes = rows * (size_t)s->query_heads * (size_t)s->stride * 8 + 65536;
    TAKE(buffer[MB_BUFFER_MASS], heads * (size_t)s->stride * sizeof(float));
    TAKE(buffer[MB_BUFFER_LSE_PREFIX], states * sizeof(float));
    TAKE(buffer[MB_BUFFER_LSE_BLOCK], states * sizeof(float));
    TAKE(buffer[MB_BUFFER_INPUT], mb_session_input(&p->session).words * sizeof(int32_t));
    TAKE(buffer[MB_BUFFER_WORK], 4 * sizeof(double));
    TAKE(buffer[MB_BUFFER_SCRATCH], p->session.scratch_bytes);
#undef TAKE
    return 0;
}

int mb_stage_play(const mb_stage_env *env, const mb_stage_case *stage_case, const mb_method *method,
                  const void *options, mb_stage_run *run, mb_error *err)
{
    play p = {.env = env, .c = stage_case, .method = method, .run = run};
    size_t mark = env->kernels->mark(env->device);
    memset(run, 0, sizeof *run);
    mb_fail(err, 0, "%s", "");
    memcpy(p.prefix, stage_case->prefix, sizeof p.prefix);
    session_fill(&p);
    run->shape = p.shape;
    int rc = allocate(&p);
    mb_input input = mb_session_input(&p.session);
    int32_t rows = stage_case->block, *lengths = mb_input_at(&p.session, input.prefix);
    p.view.session = &p.session;
    p.view.rows = (mb_rows){.batch = stage_case->batch, .rows = rows, .prefix_len = lengths, .block_keys = rows};
    p.call = (mb_call){.size = sizeof p.call,
                       .request = 1,
                       .rows = stage_case->block,
                       .prefix_len = p.view.rows.prefix_len,
                       .masked = mb_input_at(&p.session, input.masked),
                       .internal = &p.view,
                       .layer = -1};
    if (rc == 0)
        rc = mb_attender_open(&p.attender, &p.session, method, options, p.shape.steps, SEED, &run->unsupported,
                              err);
    for (int32_t i = 0; i <= stage_case->warmups && rc == 0; i++) {
        mb_stage_run next = {.size = run->size, .shape = run->shape};
        mb_stage_free(run); /* of an earlier request */
        *run = next;
        memcpy(p.prefix, stage_case->prefix, sizeof p.prefix);
        p.call.request = 1 + i;
        rc = play_request(&p, err);
    }
    if (rc == 0)
        rc = report(&p, err);
    run->late_allocations = p.attender ? p.attender->late_allocations : 0;
    mb_attender_close(p.attender);
    if (rc != 0 && err && !*err->text)
        mb_fail(err, rc, "code %d: %s", rc, env->kernels->error(env->device));
    free(p.row);
    free(p.packed);
    free(p.directions);
    free(p.session.kv);
    env->kernels->release(env->device, mark);
    return rc;
}

void mb_stage_free(mb_stage_run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        free(run->events[i].ids);
        free(run->events[i].counts);
        free(run->events[i].captured);
        free(run->events[i].out);
        free(run->events[i].exact);
    }
    free(run->events);
    free(run->maps);
    free(run->weights);
    memset(run, 0, sizeof *run);
}

const mb_stage_event *mb_stage_find(const mb_stage_run *run, int32_t block, int32_t step, int32_t layer)
{
    for (size_t i = 0; i < run->count; i++)
        if (run->events[i].block == block && run->events[i].step == step && run->events[i].layer == layer)
            return &run->events[i];
    return NULL;
}
