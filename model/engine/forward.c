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

static int failed(const mb_session *session, int rc, int32_t layer, const char *what, mb_error *err)
{
    return mb_fail(err, rc, "layer %d, %s: %s", layer, what, session->kernels->error(session->device));
}

int mb_forward_embed(mb_session *session, const int32_t *ids, int64_t n, mb_error *err)
{
    const mb_model *model = session->model;
    int rc = session->kernels->embed(session->device, &(mb_embed){.ids = ids,
                                                                  .n = n,
                                                                  .table = model->embed,
                                                                  .vocab = model->config.vocab,
                                                                  .width = model->config.hidden,
                                                                  .out = session->buffer[MB_BUFFER_X]});
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "embedding", err);
}

/* The residual stream's next normalisation, delta added first where there is one. */
static int norm(mb_session *session, const void *delta, const void *weight, int64_t n)
{
    const mb_model_config *config = session->config;
    return session->kernels->add_rmsnorm(session->device, &(mb_rmsnorm){.x = session->buffer[MB_BUFFER_X],
                                                                        .delta = delta,
                                                                        .weight = weight,
                                                                        .eps = (float)config->norm_eps,
                                                                        .one_rounding = config->norm_one_rounding,
                                                                        .n = n,
                                                                        .width = config->hidden,
                                                                        .out = session->buffer[MB_BUFFER_NORMED]});
}

int mb_forward_qkv(mb_session *session, int32_t layer, const mb_rows *rows, const mb_kv *kv, void *q_pre,
                   mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    const mb_model_config *config = session->config;
    const struct mb_layer *weights = &session->model->layers[layer];
    /* All sequences of the batch are rows of one product. */
    int64_t n = (int64_t)rows->batch * rows->rows;
    int64_t width = (int64_t)(config->query_heads + 2 * config->kv_heads) * config->head_dim;
    int rc = norm(session, layer > 0 ? session->buffer[MB_BUFFER_DELTA] : NULL, weights->input_norm, n);
    if (rc == MB_OK)
        rc = kernels->gemm(session->device, &(mb_gemm){.a = session->buffer[MB_BUFFER_NORMED],
                                                       .weight = weights->qkv,
                                                       .bias = weights->qkv_bias,
                                                       .m = n,
                                                       .n = width,
                                                       .k = config->hidden,
                                                       .out = session->buffer[MB_BUFFER_QKV]});
    if (rc == MB_OK && kernels->branch_join) /* a branch reads the queries that are replaced now */
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
                       .rotary_dim = config->rotary_dim,
                       .cos_sin = session->model->cos_sin,
                       .q_out = session->buffer[MB_BUFFER_Q],
                       .q_pre = q_pre};
        rc = kernels->qkv_finish(session->device, &args);
    }
    return rc == MB_OK ? MB_OK : failed(session, rc, layer, "query, key and value", err);
}

/* Gate, up, SwiGLU, down of n rows in MB_BUFFER_NORMED: a dense layer's MLP, or the shared expert. */
static int dense_mlp(mb_session *session, const struct mb_layer *weights, int64_t n, int64_t inner)
{
    const mb_kernels *kernels = session->kernels;
    mb_device *device = session->device;
    void **buffer = session->buffer;
    int64_t hidden = session->config->hidden;
    mb_gemm up = {.a = buffer[MB_BUFFER_NORMED],
                  .weight = weights->gate_up,
                  .m = n,
                  .n = 2 * inner,
                  .k = hidden,
                  .out = buffer[MB_BUFFER_GATE_UP]};
    mb_swiglu gate = {buffer[MB_BUFFER_GATE_UP], n, inner, buffer[MB_BUFFER_MLP]};
    mb_gemm down = {.a = buffer[MB_BUFFER_MLP],
                    .weight = weights->down,
                    .m = n,
                    .n = hidden,
                    .k = inner,
                    .out = buffer[MB_BUFFER_DELTA]};
    int rc = kernels->gemm(device, &up);
    if (rc == MB_OK)
        rc = kernels->swiglu(device, &gate);
    return rc == MB_OK ? kernels->gemm(device, &down) : rc;
}

/* As LLaDA2's sparse block: the routed experts' sum, and on top of it what the shared expert left in
 * MB_BUFFER_DELTA. */
static int expert_mlp(mb_session *session, const struct mb_layer *weights, int64_t n, bool shared)
{
    const mb_kernels *kernels = session->kernels;
    const mb_model_config *config = session->config;
    const mb_moe *moe = &config->moe;
    void **buffer = session->buffer;
    float *logits = buffer[MB_BUFFER_ROUTER], *factors = logits + n * moe->experts;
    int32_t *ids = (int32_t *)(void *)(factors + n * moe->per_token);
    mb_router router = {.n = n,
                        .width = config->hidden,
                        .experts = moe->experts,
                        .top_k = moe->per_token,
                        .groups = moe->groups,
                        .groups_kept = moe->groups_kept,
                        .score = moe->score,
                        .round_logits = moe->rounded,
                        .round_weights = moe->rounded,
                        .normalise = moe->normalise,
                        .scale = (float)moe->scale,
                        .hidden = buffer[MB_BUFFER_NORMED],
                        .weight = weights->router,
                        .bias = weights->router_bias,
                        .logits = logits,
                        .ids = ids,
                        .weights = factors};
    mb_experts experts = {.n = n,
                          .width = config->hidden,
                          .experts = moe->experts,
                          .top_k = moe->per_token,
                          .size = moe->size,
                          .combine = moe->combine,
                          .hidden = buffer[MB_BUFFER_NORMED],
                          .ids = ids,
                          .weights = factors,
                          .gate_up = weights->expert_gate_up,
                          .down = weights->expert_down,
                          .add = shared ? buffer[MB_BUFFER_DELTA] : NULL,
                          .out = buffer[MB_BUFFER_DELTA],
                          .scratch = buffer[MB_BUFFER_EXPERTS]};
    int rc = kernels->route(session->device, &router);
    return rc == MB_OK ? kernels->experts(session->device, &experts) : rc;
}

int mb_forward_mlp(mb_session *session, int32_t layer, int64_t n, mb_error *err)
{
    const mb_model_config *config = session->config;
    const struct mb_layer *weights = &session->model->layers[layer];
    void **buffer = session->buffer;
    int64_t inner = mb_layer_inner(config, layer);
    int rc =
        session->kernels->gemm(session->device, &(mb_gemm){.a = buffer[MB_BUFFER_ATTENDED],
                                                           .weight = weights->o,
                                                           .m = n,
                                                           .n = config->hidden,
                                                           .k = (int64_t)config->query_heads * config->head_dim,
                                                           .out = buffer[MB_BUFFER_DELTA]});
    if (rc != MB_OK)
        return failed(session, rc, layer, "output", err);
    rc = mb_session_sum(session, buffer[MB_BUFFER_DELTA], n * config->hidden, "adding the heads up", err);
    if (rc != MB_OK)
        return rc;
    rc = norm(session, buffer[MB_BUFFER_DELTA], weights->post_norm, n);
    if (rc == MB_OK && inner > 0)
        rc = dense_mlp(session, weights, n, inner);
    if (rc == MB_OK && mb_layer_is_moe(config, layer))
        rc = expert_mlp(session, weights, n, inner > 0);
    if (rc != MB_OK)
        return failed(session, rc, layer, "feed-forward", err);
    return mb_session_sum(session, buffer[MB_BUFFER_DELTA], n * config->hidden, "adding the feed-forward up", err);
}

int mb_forward_norm(mb_session *session, int64_t n, mb_error *err)
{
    int rc = norm(session, session->buffer[MB_BUFFER_DELTA], session->model->final_norm, n);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "final normalisation", err);
}

int mb_forward_head(mb_session *session, int64_t first, int64_t n, mb_error *err)
{
    const mb_model_config *config = session->config;
    /* The logits buffer holds one block's rows; a prefill asks for a piece at a time. */
    const char *rows = (const char *)session->buffer[MB_BUFFER_NORMED] +
                       (size_t)first * (size_t)config->hidden * mb_type_size(session->type);
    int rc = session->kernels->gemm(session->device, &(mb_gemm){.a = rows,
                                                                .weight = session->model->lm_head,
                                                                .m = n,
                                                                .n = config->vocab,
                                                                .k = config->hidden,
                                                                .out = session->buffer[MB_BUFFER_LOGITS]});
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

int mb_forward(mb_session *session, mb_forward_run *run, mb_error *err)
{
    const mb_model_config *config = session->config;
    mb_input input = mb_session_input(session);
    int64_t n = (int64_t)run->batch * run->rows;
    mb_rows rows = {.batch = run->batch,
                    .rows = run->rows,
                    .row_offset = run->row_offset,
                    .prefix_len = mb_input_at(session, input.prefix),
                    .max_prefix = run->max_prefix,
                    .block_keys = session->block};
    run->sparse_layers = run->layers = 0;
    run->select_share = 0;
    session->owed = 2 * config->layers;
    int rc = mb_forward_embed(session, mb_input_at(session, input.ids), n, err);
    for (int32_t l = 0; l < config->layers && rc == MB_OK; l++) {
        rc = mb_forward_qkv(session, l, &rows, &session->kv[l],
                            run->pre_rope ? session->buffer[MB_BUFFER_Q_PRE] : NULL, err);
        if (rc == MB_OK)
            rc = mb_layer_attention(session, run, l, err);
        if (rc == MB_OK && run->phase == MB_PHASE_COMMIT)
            rc = mb_forward_hook(session, run, MB_HOOK_KV_ADDED, l, err); /* the commit's keys are final now */
        if (rc == MB_OK)
            rc = mb_forward_mlp(session, l, n, err);
    }
    if (rc == MB_OK)
        rc = mb_forward_norm(session, n, err);
    if (rc == MB_OK)
        rc = mb_forward_head(session, 0, n, err);
    if (rc != MB_OK)
        return rc;
    if (session->kernels->branch_join && (rc = session->kernels->branch_join(session->device)) != MB_OK)
        return mb_session_failed(session, rc, "joining a branch of the graph", err);
    /* Tokens and probabilities lie together: one download. */
    int32_t *best = session->buffer[MB_BUFFER_BEST];
    rc = session->kernels->top1(session->device, &(mb_top1){.logits = session->buffer[MB_BUFFER_LOGITS],
                                                            .n = n,
                                                            .vocab = config->vocab,
                                                            .confidence = run->confidence,
                                                            .ids = best,
                                                            .probability = (float *)(best + n)});
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "best tokens", err);
}
