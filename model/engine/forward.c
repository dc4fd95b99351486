/*
 * forward.c - the transformer as a sequence of kernels: the parts of a layer, and one forward of a block. Rounding
 * points are the kernels' (kernels.h); the order of operations is that of the families' published decoder layers:
 * RMSNorm, q k v, norm of q and k where there is one, RoPE, attention, o, residual, RMSNorm, gate and up, down,
 * residual.
 *
 * Of a split model this is one rank's part: what o and down give are terms of a sum over the ranks.
 *
 * The residual stream x is in MB_BUFFER_X; the output of o and down stays in MB_BUFFER_DELTA until the next
 * normalisation adds it, so that one kernel does both. Nothing here allocates, waits or reads back.
 */
#include "model/engine/engine.h"

#include "model/checkpoint/config.h"
#include "model/engine/team.h"

#include <math.h>

static int failed(const mb_session *session, int rc, int32_t layer, const char *what, mb_error *err)
{
    return mb_fail(err, rc, "layer %d, %s: %s", layer, what, session->kernels->error(session->device));
}

/* The rows of a buffer from `row` on. */
static void *rows_at(const mb_session *session, mb_buffer buffer, int64_t row, int64_t width)
{
    return (char *)session->buffer[buffer] + (size_t)(row * width) * mb_type_size(session->type);
}

/* A product of the forward; where its rows are part of several blocks', it must not matter whose they are. */
static int product(const mb_session *session, const mb_gemm *args)
{
    mb_gemm how = *args;
    how.invariant = session->steady;
    return session->kernels->gemm(session->device, &how);
}

int mb_forward_embed(mb_session *session, int64_t row, const int32_t *ids, int64_t n, mb_error *err)
{
    const mb_model *model = session->model;
    /* Gemma's stream begins times the root of its width, a number of T. */
    const float scale = model->config.wrapped ? mb_type_round(sqrtf((float)model->config.hidden), model->type) : 0;
    int rc = session->kernels->embed(session->device,
                                     &(mb_embed){.ids = ids,
                                                 .scale = scale,
                                                 .n = n,
                                                 .table = model->embed,
                                                 .vocab = model->config.vocab,
                                                 .width = model->config.hidden,
                                                 .out = rows_at(session, MB_BUFFER_X, row, model->config.hidden)});
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "embedding", err);
}

int mb_forward_rms(mb_session *session, mb_rmsnorm args, int64_t n)
{
    args.eps = (float)session->config->norm_eps;
    args.one_rounding = session->config->norm_one_rounding;
    args.n = n;
    args.width = session->config->hidden;
    return session->kernels->add_rmsnorm(session->device, &args);
}

/* The residual stream's next normalisation, delta added first where there is one, and what ended the layer before.
 */
static int norm(mb_session *session, const void *delta, const void *scale, const void *weight, int64_t n)
{
    mb_rmsnorm args = {.x = session->buffer[MB_BUFFER_X],
                       .delta = delta,
                       .scale = scale,
                       .weight = weight,
                       .out = session->buffer[MB_BUFFER_NORMED]};
    return mb_forward_rms(session, args, n);
}

/* The number that a layer's stream is times in the end, where there is one: of prompts and commits another. */
static const void *scalar_of(const mb_session *session, int32_t layer)
{
    const struct mb_layer *weights = &session->model->layers[layer];
    return session->causal ? weights->causal_scalar : weights->scalar;
}

int mb_forward_qkv(mb_session *session, int32_t layer, int64_t n, mb_error *err)
{
    const mb_model_config *config = session->config;
    const struct mb_layer *weights = &session->model->layers[layer];
    int rc = norm(session, layer > 0 ? session->buffer[MB_BUFFER_DELTA] : NULL,
                  layer > 0 ? scalar_of(session, layer - 1) : NULL, weights->input_norm, n);
    if (rc == MB_OK)
        rc = product(session, &(mb_gemm){.a = session->buffer[MB_BUFFER_NORMED],
                                         .weight = weights->qkv,
                                         .bias = weights->qkv_bias,
                                         .m = n,
                                         .n = mb_layer_sizes_of(config, layer).qkv,
                                         .k = config->hidden,
                                         .out = session->buffer[MB_BUFFER_QKV]});
    return rc == MB_OK ? MB_OK : failed(session, rc, layer, "query, key and value", err);
}

int mb_forward_rope(mb_session *session, int32_t layer, const mb_rows *rows, const mb_kv *kv, void *q_pre,
                    mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    const mb_model_config *config = session->config;
    const struct mb_layer *weights = &session->model->layers[layer];
    const mb_layer_sizes sizes = mb_layer_sizes_of(config, layer);
    int rc = MB_OK;
    if (kernels->branch_join) /* a branch reads the queries that are replaced now */
        rc = kernels->branch_join(session->device);
    if (rc == MB_OK) {
        mb_qkv args = {.rows = *rows,
                       .kv = *kv,
                       .query_heads = config->query_heads,
                       .qkv = session->buffer[MB_BUFFER_QKV],
                       .q_norm = weights->q_norm,
                       .k_norm = weights->k_norm,
                       .norm_eps = (float)config->norm_eps,
                       .norm_one_rounding = config->norm_one_rounding,
                       .rotary_dim = sizes.rotary_dim,
                       .cos_sin = sizes.window ? session->model->local_cos_sin : session->model->cos_sin,
                       .q_out = session->buffer[MB_BUFFER_Q],
                       .q_pre = q_pre,
                       .v_norm = config->wrapped,
                       .v_of_k = sizes.value_is_key,
                       /* Gemma's scores are not scaled: the attention's head_dim^-0.5 is taken back here. */
                       .q_scale = config->wrapped ? sqrtf((float)sizes.head_dim) : 0};
        rc = kernels->qkv_finish(session->device, &args);
    }
    return rc == MB_OK ? MB_OK : failed(session, rc, layer, "query, key and value", err);
}

int mb_forward_dense(mb_session *session, const struct mb_layer *weights, int64_t n, int64_t inner)
{
    void **buffer = session->buffer;
    int64_t hidden = session->config->hidden;
    mb_gemm up = {.a = buffer[MB_BUFFER_NORMED],
                  .weight = weights->gate_up,
                  .m = n,
                  .n = 2 * inner,
                  .k = hidden,
                  .out = buffer[MB_BUFFER_GATE_UP]};
    mb_swiglu gate = {buffer[MB_BUFFER_GATE_UP], n, inner, buffer[MB_BUFFER_MLP],
                      session->config->wrapped ? MB_GELU_TANH : MB_SILU};
    mb_gemm down = {.a = buffer[MB_BUFFER_MLP],
                    .weight = weights->down,
                    .m = n,
                    .n = hidden,
                    .k = inner,
                    .out = buffer[MB_BUFFER_DELTA]};
    int rc = product(session, &up);
    if (rc == MB_OK)
        rc = session->kernels->swiglu(session->device, &gate);
    return rc == MB_OK ? product(session, &down) : rc;
}

/* Where the router leaves its answer. */
static int32_t *routes_of(const mb_session *session, int64_t n, float **weights)
{
    const mb_moe *moe = &session->config->moe;
    float *logits = session->buffer[MB_BUFFER_ROUTER];
    *weights = logits + n * moe->experts;
    return (int32_t *)(void *)(*weights + n * moe->per_token);
}

int mb_forward_route(mb_session *session, const struct mb_layer *weights, int64_t n)
{
    const mb_model_config *config = session->config;
    const mb_moe *moe = &config->moe;
    float *factors;
    int32_t *ids = routes_of(session, n, &factors);
    mb_router router = {.n = n,
                        .width = config->hidden,
                        .experts = moe->experts,
                        .top_k = moe->per_token,
                        .groups = moe->groups,
                        .groups_kept = moe->groups_kept,
                        .score = moe->score,
                        .round_logits = moe->rounded || config->wrapped,
                        .round_weights = moe->rounded,
                        .normalise = moe->normalise,
                        .scale = (float)moe->scale,
                        .hidden = session->buffer[MB_BUFFER_NORMED],
                        .weight = weights->router,
                        .bias = weights->router_bias,
                        .expert_scale = weights->expert_scale,
                        .logits = session->buffer[MB_BUFFER_ROUTER],
                        .ids = ids,
                        .weights = factors};
    return session->kernels->route(session->device, &router);
}

int mb_forward_experts(mb_session *session, const struct mb_layer *weights, int64_t n, const void *add, void *out)
{
    const mb_model_config *config = session->config;
    const mb_moe *moe = &config->moe;
    float *factors;
    int32_t *ids = routes_of(session, n, &factors);
    mb_experts experts = {.n = n,
                          .width = config->hidden,
                          .experts = moe->experts,
                          .top_k = moe->per_token,
                          .size = moe->size,
                          .combine = moe->combine,
                          .hidden = session->buffer[MB_BUFFER_NORMED],
                          .ids = ids,
                          .weights = factors,
                          .gate_up = weights->expert_gate_up,
                          .down = weights->expert_down,
                          .add = add,
                          .out = out,
                          .scratch = session->buffer[MB_BUFFER_EXPERTS],
                          .activation = config->wrapped ? MB_GELU_TANH : MB_SILU};
    return session->kernels->experts(session->device, &experts);
}

/* As LLaDA2's sparse block: the routed experts' sum, and on top of it what the shared expert left in
 * MB_BUFFER_DELTA. */
static int expert_mlp(mb_session *session, const struct mb_layer *weights, int64_t n, bool shared)
{
    void *delta = session->buffer[MB_BUFFER_DELTA];
    int rc = mb_forward_route(session, weights, n);
    return rc == MB_OK ? mb_forward_experts(session, weights, n, shared ? delta : NULL, delta) : rc;
}

int mb_forward_mlp(mb_session *session, int32_t layer, int64_t n, mb_error *err)
{
    const mb_model_config *config = session->config;
    const struct mb_layer *weights = &session->model->layers[layer];
    void **buffer = session->buffer;
    int64_t inner = mb_layer_inner(config, layer);
    int rc = product(session, &(mb_gemm){.a = buffer[MB_BUFFER_ATTENDED],
                                         .weight = weights->o,
                                         .m = n,
                                         .n = config->hidden,
                                         .k = mb_layer_sizes_of(config, layer).width,
                                         .out = buffer[MB_BUFFER_DELTA]});
    if (rc != MB_OK)
        return failed(session, rc, layer, "output", err);
    rc = mb_session_sum(session, buffer[MB_BUFFER_DELTA], n * config->hidden, "adding the heads up", err);
    if (rc != MB_OK)
        return rc;
    if (config->wrapped)
        return mb_wrapped_mlp(session, layer, n, err);
    rc = norm(session, buffer[MB_BUFFER_DELTA], NULL, weights->post_norm, n);
    if (rc == MB_OK && inner > 0)
        rc = mb_forward_dense(session, weights, n, inner);
    if (rc == MB_OK && mb_layer_is_moe(config, layer))
        rc = expert_mlp(session, weights, n, inner > 0);
    if (rc != MB_OK)
        return failed(session, rc, layer, "feed-forward", err);
    return mb_session_sum(session, buffer[MB_BUFFER_DELTA], n * config->hidden, "adding the feed-forward up", err);
}

int mb_forward_norm(mb_session *session, int64_t n, mb_error *err)
{
    int rc = norm(session, session->buffer[MB_BUFFER_DELTA], scalar_of(session, session->config->layers - 1),
                  session->model->final_norm, n);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "final normalisation", err);
}

int mb_forward_head(mb_session *session, int64_t first, int64_t n, mb_error *err)
{
    const mb_model_config *config = session->config;
    /* The logits buffer holds one block's rows; a prefill asks for a piece at a time. */
    int rc = product(session, &(mb_gemm){.a = rows_at(session, MB_BUFFER_NORMED, first, config->hidden),
                                         .weight = session->model->lm_head,
                                         .m = n,
                                         .n = config->vocab,
                                         .k = config->hidden,
                                         .out = session->buffer[MB_BUFFER_LOGITS]});
    if (rc == MB_OK && config->softcap > 0)
        rc = session->kernels->softcap(session->device, &(mb_softcap){.values = session->buffer[MB_BUFFER_LOGITS],
                                                                      .n = n * config->vocab,
                                                                      .cap = (float)config->softcap});
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "logits", err);
}

int mb_forward_each(const mb_forward_run *run, mb_attender_turn turn, void *user, mb_error *err)
{
    int rc = turn(run->attender, NULL, user, err);
    for (size_t i = 0; i < run->shadow_count && rc == MB_OK; i++) {
        struct mb_shadow *shadow = &run->shadows[i];
        if (!shadow->failed && turn(shadow->attender, shadow, user, &shadow->error) < 0)
            shadow->failed = true;
    }
    return rc;
}

struct hook_turn {
    mb_hook hook;
    mb_call *call;
    int32_t mode; /* the leader's */
    bool in_step;
};

/* Modes are chosen for a step: the hooks around a block see mode 0. */
static int turn_hook(mb_attender *attender, mb_shadow *shadow, void *user, mb_error *err)
{
    const struct hook_turn *turn = user;
    turn->call->mode = shadow && turn->in_step ? shadow->mode : turn->mode;
    return mb_attender_hook(attender, turn->hook, turn->call, err);
}

int mb_forward_hook(mb_session *session, const mb_forward_run *run, mb_hook hook, int32_t layer, mb_error *err)
{
    mb_call call;
    mb_call_view view;
    mb_call_make(session, run, layer, &call, &view);
    struct hook_turn turn = {hook, &call, run->mode, hook != MB_HOOK_BLOCK_BEGIN && hook != MB_HOOK_BLOCK_END};
    return mb_forward_each(run, turn_hook, &turn, err);
}

/* Rotary embedding, attention and hooks of one lane, on its own rows of what the products made. */
static int lane_work(mb_session *owner, mb_lane_run *lane, int32_t layer)
{
    mb_session *session = lane->session;
    mb_forward_run *run = lane->run;
    const mb_model_config *config = session->config;
    const mb_layer_sizes sizes = mb_layer_sizes_of(config, layer);
    const bool local = mb_layer_is_local(config, layer);
    void *mine[3] = {rows_at(owner, MB_BUFFER_QKV, lane->row, sizes.qkv),
                     rows_at(owner, MB_BUFFER_Q, lane->row, sizes.width),
                     rows_at(owner, MB_BUFFER_ATTENDED, lane->row, sizes.width)};
    static const mb_buffer which[3] = {MB_BUFFER_QKV, MB_BUFFER_Q, MB_BUFFER_ATTENDED};
    mb_rows rows = {.batch = run->batch,
                    .rows = run->rows,
                    .row_offset = run->row_offset,
                    .prefix_len = mb_input_at(session, mb_session_input(session).prefix),
                    .max_prefix = run->max_prefix,
                    .block_keys = session->block};
    for (int i = 0; i < 3; i++)
        session->buffer[which[i]] = mine[i];
    int rc = mb_forward_rope(session, layer, &rows, &session->kv[layer],
                             run->pre_rope ? session->buffer[MB_BUFFER_Q_PRE] : NULL, lane->error);
    if (rc == MB_OK)
        rc = local || session->causal ? mb_canvas_attention(session, run, layer, lane->error)
                                      : mb_layer_attention(session, run, layer, lane->error);
    if (rc == MB_OK && run->phase == MB_PHASE_COMMIT && !local)
        rc = mb_forward_hook(session, run, MB_HOOK_KV_ADDED, layer, lane->error); /* its keys are final now */
    for (int i = 0; i < 3 && session != owner; i++)                               /* a prefill has all rows */
        session->buffer[which[i]] = owner->buffer[which[i]];
    return rc;
}

/* Captures a lane's part of a layer. */
static int lane_capture(mb_session *owner, mb_lane_run *lane, int32_t layer)
{
    const mb_kernels *kernels = owner->kernels;
    mb_graph *graph = NULL;
    int rc = kernels->capture_begin(owner->device);
    if (rc != MB_OK)
        return mb_session_failed(owner, rc, "capturing a layer", lane->error);
    int work = lane_work(owner, lane, layer);
    /* A capture is ended whatever happened inside it, or the device stays in capture mode. */
    rc = kernels->capture_end(owner->device, &graph);
    if (work != MB_OK) {
        kernels->graph_free(owner->device, graph);
        return work;
    }
    if (rc != MB_OK)
        return mb_session_failed(owner, rc, "capturing a layer", lane->error);
    lane->run->part->layer[layer] = graph;
    return MB_OK;
}

/* Captures a lane's part of a layer where that is missing, and replays it. */
static int lane_replay(mb_session *owner, mb_lane_run *lane, int32_t layer)
{
    mb_forward_run *run = lane->run;
    mb_captured *part = run->part;
    bool made = part->layer[layer] != NULL, last = layer + 1 == owner->config->layers;
    int rc = made ? MB_OK : lane_capture(owner, lane, layer);
    if (rc != MB_OK)
        return rc;
    rc = owner->kernels->graph_launch(owner->device, part->layer[layer]);
    if (rc != MB_OK)
        return mb_session_failed(owner, rc, "replaying a layer", lane->error);
    run->replayed = made;
    if (last && !made)
        mb_captured_keep(part, run);
    else if (last)
        mb_captured_tell(part, run);
    return MB_OK;
}

static int lane_layer(mb_session *owner, mb_lane_run *lane, int32_t layer)
{
    mb_captured *part = lane->run->part;
    int rc = mb_lane_bring(owner, lane, layer, lane->error);
    if (rc == MB_OK)
        rc = part ? lane_replay(owner, lane, layer) : lane_work(owner, lane, layer);
    if (rc != MB_OK && part) /* the next such forward begins anew */
        mb_captured_free(owner, part);
    return rc == MB_OK ? mb_lane_keep(owner, lane, layer, lane->error) : rc;
}

/* Rows of nobody: numbers, so that no router meets what an arm that failed has left. */
static int clear_rows(mb_session *session, int64_t from, int64_t to, mb_error *err)
{
    static const mb_buffer which[2] = {MB_BUFFER_X, MB_BUFFER_ATTENDED};
    int rc = MB_OK;
    for (int i = 0; i < 2 && to > from && rc == MB_OK; i++) {
        int64_t width =
            i ? (int64_t)session->config->query_heads * session->config->head_dim : session->config->hidden;
        rc = session->kernels->fill(session->device, rows_at(session, which[i], from, width), 0,
                                    (size_t)((to - from) * width) * mb_type_size(session->type));
    }
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "clearing rows", err);
}

/* Every lane's ids into its rows of the residual stream; *n of them in all. */
static int lanes_begin(mb_session *session, mb_lane_run *lanes, size_t count, int64_t *n, mb_error *err)
{
    int rc = MB_OK;
    *n = 0;
    for (size_t i = 0; i < count && rc == MB_OK; i++) {
        mb_forward_run *run = lanes[i].run;
        int64_t mine = (int64_t)run->batch * run->rows;
        int64_t row = *n;
        if (session->graphs) { /* graphs keep a lane's place */
            row = (int64_t)lanes[i].session->number * session->block;
            rc = clear_rows(session, *n, row, err);
            if (rc != MB_OK)
                break;
        }
        *n = row;
        lanes[i].row = row;
        lanes[i].rc = MB_OK;
        run->sparse_layers = run->layers = 0;
        run->select_share = run->local_tokens = 0;
        rc =
            mb_forward_embed(session, *n, mb_input_at(lanes[i].session, mb_session_input(session).ids), mine, err);
        *n += mine;
    }
    return rc;
}

/* All lanes through one layer; *alive: how many of them have not failed. */
static int lanes_layer(mb_session *session, mb_lane_run *lanes, size_t count, int32_t layer, int64_t n,
                       size_t *alive, mb_error *err)
{
    int rc = mb_forward_qkv(session, layer, n, err);
    *alive = 0;
    for (size_t i = 0; i < count && rc == MB_OK; i++) {
        if (lanes[i].rc == MB_OK)
            lanes[i].rc = lane_layer(session, &lanes[i], layer);
        *alive += lanes[i].rc == MB_OK;
    }
    return rc == MB_OK && *alive > 0 ? mb_forward_mlp(session, layer, n, err) : rc;
}

/* The best tokens of a lane's rows. Tokens and probabilities lie together: one download. */
static int lane_best(mb_session *owner, const mb_lane_run *lane, mb_error *err)
{
    mb_session *session = lane->session;
    int64_t n = (int64_t)lane->run->batch * lane->run->rows, vocab = session->config->vocab;
    int32_t *best = session->buffer[MB_BUFFER_BEST];
    session->buffer[MB_BUFFER_LOGITS] = rows_at(owner, MB_BUFFER_LOGITS, lane->row, vocab);
    int rc = session->kernels->top1(session->device, &(mb_top1){.logits = session->buffer[MB_BUFFER_LOGITS],
                                                                .n = n,
                                                                .vocab = vocab,
                                                                .confidence = lane->run->confidence,
                                                                .ids = best,
                                                                .probability = (float *)(best + n)});
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "best tokens", err);
}

int mb_forward_lanes(mb_session *session, mb_lane_run *lanes, size_t count, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    size_t alive = count;
    int64_t n = 0;
    session->steady = session->invariant;
    session->owed = 2 * session->config->layers;
    /* A session with canvases has one lane. */
    session->causal = session->config->canvas.steps > 0 && lanes[0].run->phase == MB_PHASE_COMMIT;
    int rc = lanes_begin(session, lanes, count, &n, err);
    if (rc == MB_OK && session->config->canvas.steps > 0 && !session->causal)
        rc = mb_canvas_condition(session, lanes[0].run, n, err);
    for (int32_t l = 0; l < session->config->layers && rc == MB_OK && alive > 0; l++)
        rc = lanes_layer(session, lanes, count, l, n, &alive, err);
    if (rc == MB_OK && alive > 0)
        rc = mb_forward_norm(session, n, err);
    if (rc == MB_OK && alive > 0)
        rc = mb_forward_head(session, 0, n, err);
    session->steady = false;
    session->holder = count == 1 && lanes[0].rc == MB_OK ? lanes[0].session->number : -1;
    if (rc == MB_OK && alive > 0 && kernels->branch_join && (rc = kernels->branch_join(session->device)) != MB_OK)
        return mb_session_failed(session, rc, "joining a branch of the graph", err);
    for (size_t i = 0; i < count && rc == MB_OK; i++)
        if (lanes[i].rc == MB_OK)
            rc = lane_best(session, &lanes[i], err);
    return rc;
}

int mb_forward(mb_session *session, mb_forward_run *run, mb_error *err)
{
    mb_lane_run all = {.session = session, .run = run, .error = err};
    int rc = mb_forward_lanes(session, &all, 1, err);
    return rc == MB_OK ? all.rc : rc;
}
