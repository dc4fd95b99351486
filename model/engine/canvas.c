/*
 * canvas.c - what a canvas of random tokens has in place of masks: its input, into which the last step's logits go
 * (self-conditioning), and the attention that is no method's business.
 *
 * Layers with a window: a canvas sees the last window - 1 keys of the prefix and all of itself, whatever the row
 * (DynamicSlidingWindowLayer keeps so many; the decoder of transformers 5.24 has no other mask). That is an
 * attention over an index, so it is one operation with a method's. Commits: causal, exact, in every layer.
 */
#include "model/engine/engine.h"

#include "model/checkpoint/config.h"

#include <math.h>

/* x = norm(x + mlp(norm(expected embedding))), the norm of the sum without a weight. In the first step the
 * expectation is 0, and so is what the feed-forward makes of it. */
int mb_canvas_condition(mb_session *session, const mb_forward_run *run, int64_t n, mb_error *err)
{
    const mb_model *model = session->model;
    const mb_model_config *config = session->config;
    void **buffer = session->buffer, *x = buffer[MB_BUFFER_X], *mixed = buffer[MB_BUFFER_MIXED];
    const bool first = run->phase == MB_PHASE_FIRST_STEP;
    int rc = MB_OK;
    if (!first) {
        mb_soft_embed soft = {.logits = buffer[MB_BUFFER_LOGITS],
                              .n = n,
                              .vocab = config->vocab,
                              .width = config->hidden,
                              .temperature = mb_input_at(session, mb_session_input(session).temperature),
                              .table = model->embed,
                              .scale = mb_type_round(sqrtf((float)config->hidden), session->type),
                              .out = mixed,
                              .scratch = buffer[MB_BUFFER_SHARES]};
        rc = session->kernels->soft_embed(session->device, &soft);
        if (rc == MB_OK)
            rc = mb_forward_rms(session,
                                (mb_rmsnorm){.x = mixed,
                                             .weight = model->conditioning.input_norm,
                                             .out = buffer[MB_BUFFER_NORMED]},
                                n);
        if (rc == MB_OK)
            rc = mb_forward_dense(session, &model->conditioning, n, config->intermediate);
    }
    if (rc == MB_OK)
        rc = mb_forward_rms(session,
                            (mb_rmsnorm){.x = x, .delta = first ? NULL : buffer[MB_BUFFER_DELTA], .out = x}, n);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "self-conditioning", err);
}

int mb_canvas_send_window(mb_session *session, int32_t batch, mb_error *err)
{
    const mb_local_layers *local = &session->config->local;
    if (local->window == 0)
        return MB_OK;
    const size_t sets = (size_t)session->batch * (size_t)local->kv_heads, most = (size_t)local->window;
    int32_t *ids = session->window, *counts = ids + sets * most;
    for (size_t i = 0; i < (size_t)batch * (size_t)local->kv_heads; i++) {
        const int32_t prefix = session->prefix[i / (size_t)local->kv_heads];
        counts[i] = prefix < local->window - 1 ? prefix : local->window - 1;
        for (int32_t k = 0; k < counts[i]; k++)
            ids[i * most + (size_t)k] = prefix - counts[i] + k;
    }
    int rc = session->kernels->upload(session->device, session->buffer[MB_BUFFER_WINDOW], ids,
                                      sets * (most + 1) * sizeof *ids);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "uploading a window", err);
}

/* The rows of a finished canvas: each sees itself and what stands before it. */
static int attend_causal(mb_session *session, const mb_forward_run *run, int32_t layer)
{
    const mb_layer_sizes sizes = mb_layer_sizes_of(session->config, layer);
    const size_t bytes = (size_t)run->rows * (size_t)sizes.width * mb_type_size(session->type);
    int rc = MB_OK;
    for (int32_t b = 0; b < run->batch && rc == MB_OK; b++)
        rc = session->kernels->attend_prefill(
            session->device,
            &(mb_prefill){.kv = session->kv[layer],
                          .sequence = b,
                          .query_heads = session->config->query_heads,
                          .q = (char *)session->buffer[MB_BUFFER_Q] + (size_t)b * bytes,
                          .first = session->prefix[b],
                          .n = run->rows,
                          .block = 1,
                          .window = sizes.window,
                          .out = (char *)session->buffer[MB_BUFFER_ATTENDED] + (size_t)b * bytes});
    return rc;
}

static int attend_window(mb_session *session, mb_forward_run *run, int32_t layer)
{
    const mb_local_layers *local = &session->config->local;
    const size_t sets = (size_t)session->batch * (size_t)local->kv_heads;
    int32_t *ids = session->buffer[MB_BUFFER_WINDOW];
    mb_page_set set = {
        .granularity = 1, .capacity = local->window, .ids = ids, .counts = ids + sets * (size_t)local->window};
    mb_attention args = {.rows = {.batch = run->batch,
                                  .rows = run->rows,
                                  .row_offset = run->row_offset,
                                  .prefix_len = mb_input_at(session, mb_session_input(session).prefix),
                                  .max_prefix = run->max_prefix,
                                  .block_keys = session->block},
                         .kv = session->kv[layer],
                         .query_heads = session->config->query_heads,
                         .q = session->buffer[MB_BUFFER_Q],
                         .scope = MB_SCOPE_ALL,
                         .pages = &set,
                         .out = session->buffer[MB_BUFFER_ATTENDED]};
    run->layers++;
    for (int32_t b = 0; b < run->batch; b++)
        run->local_tokens += (double)local->kv_heads *
                             session->window[sets * (size_t)local->window + (size_t)b * (size_t)local->kv_heads];
    return session->kernels->attend_sparse(session->device, &args);
}

int mb_canvas_attention(mb_session *session, mb_forward_run *run, int32_t layer, mb_error *err)
{
    int rc = session->causal ? attend_causal(session, run, layer) : attend_window(session, run, layer);
    return rc == MB_OK
               ? MB_OK
               : mb_fail(err, rc, "layer %d, attention: %s", layer, session->kernels->error(session->device));
}
