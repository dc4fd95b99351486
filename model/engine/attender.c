/*
 * attender.c - an opened method: its memory, its hooks, the calls they see. A hook's failure becomes MB_E_SAMPLE
 * with the method, the hook and the place in front of the method's own sentence: it fails that method's cell.
 */
#include "base/foreign.h"
#include "model/engine/engine.h"
#include "model/checkpoint/config.h"
#include "model/engine/team.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The host's copy of a method built against an older or newer contract: what it does not have is NULL. */
static void copy_method(mb_method *to, const mb_method *from)
{
    size_t size = from->size < sizeof *to ? from->size : sizeof *to;
    memset(to, 0, sizeof *to);
    memcpy(to, from, size);
}

/* The host's part of an option struct lies behind the method's own. */
static const mb_host_options *host_options(const mb_method *method, const void *options)
{
    return (const void *)((const char *)options + MB_HOST_OPTIONS_AT(method));
}

/* What the options say that the host applies; the method is not asked where they hold. dense_layers counts from
 * the model's first layer on: layers with a window in front of layer 0 are among them. */
static void apply_host_options(mb_attender *attender, const void *options)
{
    const mb_method *method = &attender->method;
    mb_shape *shape = &attender->shape;
    const int32_t in_front = shape->first_layer; /* mb_shape_make() */
    shape->first_layer = 0;
    for (const mb_option *o = method->options; options && o && o->name; o++) {
        if (o->offset != MB_OPTION_OF_HOST)
            continue;
        const mb_host_options *values = host_options(method, options);
        if (strcmp(o->name, "dense_layers") != 0) {
            attender->dense_commit = values->commit == 0;
            continue;
        }
        const int64_t dense = values->dense_layers > in_front ? values->dense_layers - in_front : 0;
        shape->first_layer = dense < shape->layers ? (int32_t)dense : shape->layers;
    }
}

static bool is_left_out(const mb_attender *attender, const mb_call *call)
{
    return (attender->dense_commit && call->phase == MB_PHASE_COMMIT) ||
           (call->layer >= 0 && call->layer < attender->shape.first_layer);
}

/* open(), with the state that the host allocates; a failed allocation is its failure even if it did not look. */
static int open_method(mb_attender *attender, const void *options, mb_error *why)
{
    const mb_method *method = &attender->method;
    if (method->state_size) {
        size_t layers = (size_t)attender->shape.layers;
        attender->memory = calloc(1, method->state_size + layers * method->state_layer_size);
        if (!attender->memory)
            return mb_no_memory(why, "the state");
    }
    attender->self = attender->memory;
    mb_foreign guard;
    attender->opening = true;
    mb_foreign_enter(&guard, MB_FOREIGN_WHOLE);
    int rc = MB_FOREIGN_LEFT(&guard)
                 ? MB_E_SAMPLE
                 : method->open(&attender->self, &attender->host, &attender->shape, options, why);
    mb_foreign_leave(&guard);
    mb_foreign_failed(&guard, why);
    attender->opening = false;
    if (attender->exhausted && !why->text[0])
        mb_fail(why, MB_E_SYSTEM,
                "no device memory for all that it asks for, %zu bytes; a smaller k, batch or "
                "context needs less",
                attender->counted);
    return attender->exhausted && rc >= 0 ? MB_E_SYSTEM : rc;
}

/* A method that failed half-way may still own memory behind self. */
static void close_method(mb_attender *attender, bool opened)
{
    mb_foreign guard;
    if (attender->method.close && (opened || attender->self)) {
        mb_foreign_enter(&guard, MB_FOREIGN_WHOLE);
        if (!MB_FOREIGN_LEFT(&guard))
            attender->method.close(attender->self);
        mb_foreign_leave(&guard);
    }
    free(attender->memory);
    attender->memory = attender->self = NULL;
}

size_t mb_attender_bytes(const mb_method *method, const mb_shape *shape, const void *options)
{
    mb_attender attender = {.shape = *shape};
    mb_error err = {0};
    copy_method(&attender.method, method);
    apply_host_options(&attender, options);
    if (attender.method.memory) {
        mb_foreign guard;
        mb_foreign_enter(&guard, MB_FOREIGN_WHOLE);
        size_t bytes = MB_FOREIGN_LEFT(&guard) ? 0 : attender.method.memory(&attender.shape, options);
        mb_foreign_leave(&guard);
        /* It knows nothing of the guards behind its indices: two sets a layer, and some. */
        return bytes + (size_t)(shape->layers + 8) * 8 * MB_GUARD_BYTES;
    }
    mb_host_fill(&attender, 0);
    int rc = open_method(&attender, options, &err);
    close_method(&attender, rc >= 0);
    return attender.counted;
}

/* Whether the forwards of a method can be captured: it says so by step_mode(), or it has nothing but dense
 * answers and no hook that could do more. */
static bool is_capturable(const mb_method *method)
{
    if (method->step_mode)
        return true;
    return (method->caps & MB_CAP_LOSSLESS) && !method->observe && !method->attend && !method->kv_added;
}

/* What the method says to this shape; negative: it cannot run there. */
static int ask_support(const mb_attender *a, const void *options, mb_error *why)
{
    mb_foreign guard;
    mb_foreign_enter(&guard, MB_FOREIGN_WHOLE);
    int answer = MB_FOREIGN_LEFT(&guard) ? -1 : a->method.supports(&a->shape, options, why);
    mb_foreign_leave(&guard);
    mb_foreign_failed(&guard, why);
    return answer;
}

int mb_attender_open(mb_attender **attender, mb_session *session, const mb_method *method, const void *options,
                     int32_t steps, uint64_t seed, bool *unsupported, mb_error *err)
{
    *attender = NULL;
    if (unsupported)
        *unsupported = false;
    if (mb_team_leads(session->team))
        return mb_team_attender_open(attender, session, method, options, steps, seed, unsupported, err);
    mb_attender *a = calloc(1, sizeof *a);
    mb_error why = {0};
    int rc = MB_OK;
    if (!a)
        return mb_no_memory(err, "method %s", method->name);
    copy_method(&a->method, method);
    a->session = session;
    a->process = session->rank == 0 ? mb_process_save() : NULL; /* the process is the same */
    mb_session_shape(session, steps, &a->shape);
    apply_host_options(a, options);
    if (a->method.supports) {
        int answer = ask_support(a, options, &why);
        if (answer != 0) {
            if (unsupported)
                *unsupported = true;
            rc = mb_fail(err, MB_E_INPUT, "%s", why.text[0] ? why.text : "the method does not say why");
            goto out;
        }
    }
    a->arena_mark = session->kernels->mark(session->device);
    session->attenders++;
    mb_host_fill(a, seed);
    int answer = open_method(a, options, &why);
    if (answer < 0) {
        rc = mb_fail(err, MB_E_SAMPLE, "method %s cannot be opened: %s", method->name,
                     why.text[0] ? why.text : "it does not say why");
        close_method(a, false);
        session->kernels->release(session->device, a->arena_mark);
        session->attenders--;
        goto out;
    }
    a->opened = true;
    a->capturable = is_capturable(&a->method);
    *attender = a;
    a = NULL;
out:
    if (a) {
        mb_process_free(a->process);
        free(a->guards);
    }
    free(a);
    return rc;
}

void mb_attender_close(mb_attender *attender)
{
    if (!attender)
        return;
    mb_session *session = attender->session;
    if (mb_team_leads(session->team)) {
        mb_team_attender_close(attender);
        return;
    }
    for (size_t i = 0; i < attender->graph_count; i++)
        mb_captured_free(session, &attender->graphs[i]);
    free(attender->graphs);
    free(attender->guards);
    free(attender->words);
    close_method(attender, true);
    mb_process_restore(attender->process);
    mb_process_free(attender->process);
    session->kernels->release(session->device, attender->arena_mark);
    session->attenders--;
    free(attender->peers);
    free(attender);
}

bool mb_attender_replays(const mb_attender *attender)
{
    return attender->session->graphs && attender->capturable;
}

void mb_call_make(const mb_session *session, const mb_forward_run *run, int32_t layer, mb_call *call,
                  mb_call_view *view)
{
    mb_input input = mb_session_input(session);
    bool forward = run->phase != MB_PHASE_PREFILL;
    memset(call, 0, sizeof *call);
    memset(view, 0, sizeof *view);
    view->session = (mb_session *)session;
    view->rows = (mb_rows){.batch = run->batch,
                           .rows = run->rows,
                           .row_offset = run->row_offset,
                           .prefix_len = mb_input_at(session, input.prefix),
                           .max_prefix = run->max_prefix,
                           .block_keys = forward ? session->block : 0};
    call->size = sizeof *call;
    call->request = run->request;
    call->block = run->block;
    call->step = run->step;
    call->mode = run->mode;
    call->phase = run->phase;
    call->layer = layer < 0 ? layer : mb_layer_number(session->config, layer); /* methods see no local layer */
    call->rows = run->rows;
    call->row_offset = run->row_offset;
    call->masked_rows = run->masked_rows;
    call->max_prefix = run->max_prefix;
    call->prefix_len = view->rows.prefix_len;
    call->masked = mb_input_at(session, input.masked);
    call->stream = session->kernels->stream ? session->kernels->stream(session->device) : NULL;
    call->internal = view;
    if (layer < 0)
        return;
    view->kv = session->kv[layer];
    view->layer = layer;
    call->k = view->kv.k;
    call->v = view->kv.v;
    if (!forward)
        return;
    call->q = session->buffer[MB_BUFFER_Q];
    call->q_pre = run->pre_rope ? session->buffer[MB_BUFFER_Q_PRE] : NULL;
}

/* ---- hooks ---- */

void mb_attender_watch(mb_attender *attender, mb_attender_note *note, int64_t budget)
{
    attender->note = note;
    attender->budget = budget;
    mb_team_watch(attender);
}

static void enter(const mb_attender *attender, mb_foreign *guard, const char *hook, const mb_call *call)
{
    mb_attender_note *note = attender->note;
    mb_foreign_enter(guard, MB_FOREIGN_CALL);
    if (!note)
        return;
    note->layer = call ? call->layer : -1;
    note->block = call ? call->block : 0;
    note->step = call ? call->step : 0;
    strncpy(note->hook, hook, sizeof note->hook - 1);
    note->inside = 1;
    note->beats++;
}

static void leave(const mb_attender *attender, mb_foreign *guard, mb_error *why)
{
    mb_foreign_leave(guard);
    mb_foreign_failed(guard, why);
    if (!attender->note)
        return;
    attender->note->inside = 0;
    attender->note->beats++;
}

static const char *const hook_names[] = {"request_begin", "kv_added", "block_begin", "step_begin",
                                         "observe",       "step_end", "block_end"};

static int hook_failed(const mb_attender *attender, const char *hook, const mb_call *call, const char *why,
                       mb_error *err)
{
    const char *name = attender->method.name;
    if (!why[0]) /* most often it hands on the code of an operation that failed */
        why = attender->session->kernels->error(attender->session->device);
    if (!why[0])
        why = "it does not say why";
    if (call->layer < 0)
        return mb_fail(err, MB_E_SAMPLE, "method %s failed in %s(), block %d, step %d: %s", name, hook,
                       call->block, call->step, why);
    return mb_fail(err, MB_E_SAMPLE, "method %s failed in %s(), layer %d, block %d, step %d: %s", name, hook,
                   call->layer, call->block, call->step, why);
}

static int run_hook(mb_attender *attender, mb_hook hook, const mb_call *call, mb_error *err)
{
    const mb_method *method = &attender->method;
    int (*const hooks[])(void *, const mb_call *, mb_error *) = {
        method->request_begin, method->kv_added, method->block_begin, method->step_begin,
        method->observe,       method->step_end, method->block_end};
    mb_error why = {0};
    if (!hooks[hook])
        return hook == MB_HOOK_OBSERVE ? hook_failed(attender, hook_names[hook], call,
                                                     "select() wants by-products, but there is no observe()", err)
                                       : MB_OK;
    if (hook == MB_HOOK_KV_ADDED && call->layer < attender->shape.first_layer)
        return MB_OK;
    mb_foreign guard;
    enter(attender, &guard, hook_names[hook], call);
    int rc = MB_FOREIGN_LEFT(&guard) ? MB_E_SAMPLE : hooks[hook](attender->self, call, &why);
    leave(attender, &guard, &why);
    return rc < 0 ? hook_failed(attender, hook_names[hook], call, why.text, err) : MB_OK;
}

/* Between a hook and the next nothing of ours depends on more than the float mode and the locale; at the end of a
 * block, outside of the forwards that are timed, the rest of the process is put back. */
int mb_attender_hook(mb_attender *attender, mb_hook hook, const mb_call *call, mb_error *err)
{
    int rc = run_hook(attender, hook, call, err);
    if (hook == MB_HOOK_BLOCK_END)
        mb_process_restore(attender->process);
    return rc;
}

int mb_attender_select(mb_attender *attender, const mb_call *call, mb_selection *selection, mb_error *err)
{
    mb_error why = {0};
    memset(selection, 0, sizeof *selection);
    if (is_left_out(attender, call))
        return MB_OK;
    mb_foreign guard;
    enter(attender, &guard, "select", call);
    int rc =
        MB_FOREIGN_LEFT(&guard) ? MB_E_SAMPLE : attender->method.select(attender->self, call, selection, &why);
    leave(attender, &guard, &why);
    return rc < 0 ? hook_failed(attender, "select", call, why.text, err) : MB_OK;
}

int mb_attender_attend(mb_attender *attender, const mb_call *call, void *out, float *lse, mb_error *err)
{
    mb_error why = {0};
    if (!attender->method.attend)
        return hook_failed(attender, "attend", call, "select() answers that the method attends, but it cannot",
                           err);
    mb_foreign guard;
    enter(attender, &guard, "attend", call);
    int rc = MB_FOREIGN_LEFT(&guard) ? MB_E_SAMPLE : attender->method.attend(attender->self, call, out, lse, &why);
    leave(attender, &guard, &why);
    return rc < 0 ? hook_failed(attender, "attend", call, why.text, err) : MB_OK;
}

int mb_attender_mode(mb_attender *attender, const mb_call *call, int32_t *mode, mb_error *err)
{
    *mode = 0;
    if (!attender->method.step_mode || is_left_out(attender, call))
        return MB_OK;
    mb_foreign guard;
    mb_error why = {0};
    enter(attender, &guard, "step_mode", call);
    *mode = MB_FOREIGN_LEFT(&guard) ? -1 : attender->method.step_mode(attender->self, call);
    leave(attender, &guard, &why);
    if (why.text[0])
        return hook_failed(attender, "step_mode", call, why.text, err);
    if (*mode < 0 || *mode > 7)
        return hook_failed(attender, "step_mode", call, "the mode is not in 0..7", err);
    return MB_OK;
}

int mb_attender_observe(mb_attender *attender, mb_call *call, const mb_selection *selection, float *lse,
                        float *mass, mb_error *err)
{
    mb_session *session = attender->session;
    call->lse = lse;
    call->mass = mass;
    if ((selection->want & MB_WANT_MASS) && !mass) {
        mb_attention args = mb_call_attention(call);
        args.mass = session->buffer[MB_BUFFER_MASS];
        args.mass_stride = session->stride;
        args.row_weight = mb_call_row_weight(call, selection->rows);
        args.lse = lse;
        int rc = MB_OK;
        if (selection->normaliser == MB_OVER_PREFIX) {
            args.scope = MB_SCOPE_PREFIX;
            args.lse = session->buffer[MB_BUFFER_LSE_PREFIX];
            rc = session->kernels->attend(session->device, &args);
        } else {
            rc = session->kernels->mass(session->device, &args);
        }
        if (rc != MB_OK)
            return mb_session_failed(session, rc, "attention mass", err);
        call->mass = args.mass;
    }
    return mb_attender_hook(attender, MB_HOOK_OBSERVE, call, err);
}

int mb_attender_begin(mb_attender *attender, const mb_forward_run *run, mb_error *err)
{
    mb_session *session = attender->session;
    mb_forward_run prefill = *run;
    mb_call call;
    mb_call_view view;
    prefill.phase = MB_PHASE_PREFILL;
    prefill.rows = session->block;
    prefill.row_offset = prefill.step = prefill.block = prefill.masked_rows = prefill.mode = 0;
    attender->request = run->request;
    mb_call_make(session, &prefill, -1, &call, &view);
    int rc = mb_attender_hook(attender, MB_HOOK_REQUEST_BEGIN, &call, err);
    for (int32_t l = 0; l < session->config->layers && rc == MB_OK; l++) {
        if (mb_layer_is_local(session->config, l))
            continue;
        mb_call_make(session, &prefill, l, &call, &view);
        rc = mb_attender_hook(attender, MB_HOOK_KV_ADDED, &call, err);
    }
    return rc;
}

/* What report() may wait with. */
static int read_back(const mb_host *host, void *dst, const void *src, size_t bytes)
{
    const mb_attender *attender = host->internal;
    return attender->session->kernels->download(attender->session->device, dst, src, bytes);
}

/* Guarded calls stand in functions of their own where a local variable would have to outlive the jump. */
static int call_report(mb_attender *attender, double *all, mb_error *why)
{
    mb_foreign guard;
    enter(attender, &guard, "report", NULL);
    int rc = MB_FOREIGN_LEFT(&guard) ? MB_E_SAMPLE : attender->method.report(attender->self, read_back, all, why);
    leave(attender, &guard, why);
    return rc;
}

static int report(mb_attender *attender, double *values, size_t count, mb_error *err)
{
    const mb_counter *counters = attender->method.counters;
    double all[64] = {0};
    mb_error why = {0};
    size_t declared = 0;
    while (counters && declared < 64 && counters[declared].name)
        declared++;
    if (!attender->method.report || declared == 0)
        return MB_OK;
    int rc = call_report(attender, all, &why);
    if (rc < 0)
        return mb_fail(err, MB_E_SAMPLE, "method %s failed in report(): %s", attender->method.name,
                       why.text[0] ? why.text : "it does not say why");
    for (size_t i = 0; i < declared && i < count; i++) {
        if (isinf(all[i])) /* NaN says that there is no value */
            return mb_fail(err, MB_E_SAMPLE, "method %s failed in report(): counter %s is infinite",
                           attender->method.name, counters[i].name);
        values[i] = all[i];
    }
    return MB_OK;
}

int mb_attender_report(mb_attender *attender, double *values, size_t count, mb_error *err)
{
    int rc = report(attender, values, count, err);
    if (!attender->method.report || !attender->method.counters)
        return rc;
    return mb_session_join_counters(attender->session, rc, attender->method.counters, values, count, err);
}

/* ---- counters by layer and step ---- */

#define MOST_STEPS 4096 /* no block has more; a step beyond it is a method's mistake */

struct collector {
    const mb_attender *attender;
    mb_counter_place *values;
    size_t count, capacity;
    int32_t maps;
    char why[256]; /* the first refusal; later ones follow from it */
};

static int refuse(struct collector *c, int code, const char *map, const char *what, int32_t layer, int32_t step)
{
    if (!c->why[0])
        snprintf(c->why, sizeof c->why, "counter map %s, layer %d, step %d: %s", map, layer, step, what);
    return code;
}

/* An axis holds 0 .. most, or nothing but -1. */
static bool on_axis(bool has, int32_t at, int32_t most)
{
    return has ? at >= 0 && at <= most : at == -1;
}

static int put_value(void *to, int32_t map, int32_t layer, int32_t step, double sum, double weight)
{
    struct collector *c = to;
    if (map < 0 || map >= c->maps)
        return refuse(c, MB_E_SAMPLE, "?", "the table has no such row", layer, step);
    const mb_counter_map *row = &c->attender->method.maps[map];
    if (!on_axis(row->axes & MB_BY_LAYER, layer, c->attender->shape.layers - 1) ||
        !on_axis(row->axes & MB_BY_STEP, step, MOST_STEPS))
        return refuse(c, MB_E_SAMPLE, row->name, "there is no such place", layer, step);
    if (!isfinite(sum) || !isfinite(weight) || weight < 0)
        return refuse(c, MB_E_SAMPLE, row->name, "not a finite value with a weight from 0 on", layer, step);
    if (weight == 0)
        return MB_OK;
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 256;
        mb_counter_place *grown = realloc(c->values, capacity * sizeof *grown);
        if (!grown)
            return refuse(c, MB_E_SYSTEM, row->name, "no memory", layer, step);
        c->values = grown;
        c->capacity = capacity;
    }
    c->values[c->count++] = (mb_counter_place){sum, weight, map, layer, step, 0};
    return MB_OK;
}

static int report_maps(mb_attender *attender, mb_counter_place **values, size_t *count, mb_error *err)
{
    const mb_method *method = &attender->method;
    struct collector c = {.attender = attender};
    mb_error why = {0};
    *values = NULL;
    *count = 0;
    while (method->maps && method->maps[c.maps].name)
        c.maps++;
    if (!method->report_maps || c.maps == 0)
        return MB_OK;
    mb_foreign guard;
    enter(attender, &guard, "report_maps", NULL);
    int rc = MB_FOREIGN_LEFT(&guard) ? MB_E_SAMPLE
                                     : method->report_maps(attender->self, read_back, put_value, &c, &why);
    leave(attender, &guard, &why);
    if (c.count)
        qsort(c.values, c.count, sizeof *c.values, mb_place_order);
    for (size_t i = 1; i < c.count; i++)
        if (mb_place_order(&c.values[i - 1], &c.values[i]) == 0)
            refuse(&c, MB_E_SAMPLE, method->maps[c.values[i].map].name, "there are two values", c.values[i].layer,
                   c.values[i].step);
    if (rc < 0 || c.why[0]) {
        free(c.values);
        return mb_fail(err, MB_E_SAMPLE, "method %s failed in report_maps(): %s", method->name,
                       c.why[0]      ? c.why
                       : why.text[0] ? why.text
                                     : "it does not say why");
    }
    *values = c.values;
    *count = c.count;
    return MB_OK;
}

int mb_attender_report_maps(mb_attender *attender, mb_counter_place **values, size_t *count, mb_error *err)
{
    int rc = report_maps(attender, values, count, err);
    if (!attender->method.report_maps || !attender->method.maps)
        return rc;
    rc = mb_session_join_places(attender->session, rc, attender->method.maps, values, count, err);
    if (rc != MB_OK) {
        free(*values);
        *values = NULL;
        *count = 0;
    }
    return rc;
}
