/*
 * wrapped.c - the second half of Gemma's layers: outputs are normalised before they are added, and experts stand
 * beside the dense part, routed by the stream as it is between the two halves.
 *
 * Order and roundings of DiffusionGemmaEncoderTextLayer and -DecoderTextLayer of transformers 5.24:
 *   x += norm(attention);  a = norm(dense(norm(x)));  b = norm(experts(norm(x)));  x = (x + norm(a + b)) * scalar
 * The last product is left to the next layer's first normalisation, as the sum is elsewhere.
 */
#include "model/engine/engine.h"

#include "model/checkpoint/config.h"

#include <math.h>

/* The router sees x without a norm's weight, times a scale and the root of the width. */
static int route(mb_session *session, const struct mb_layer *weights, int64_t n)
{
    mb_rmsnorm args = {.x = session->buffer[MB_BUFFER_X], .out = session->buffer[MB_BUFFER_NORMED]};
    args.weight = weights->router_scale;
    args.factor = 1.0f / sqrtf((float)session->config->hidden);
    args.eps = (float)session->config->norm_eps;
    args.n = n;
    args.width = session->config->hidden;
    int rc = session->kernels->add_rmsnorm(session->device, &args); /* rounds before its weight */
    return rc == MB_OK ? mb_forward_route(session, weights, n) : rc;
}

int mb_wrapped_mlp(mb_session *session, int32_t layer, int64_t n, mb_error *err)
{
    const struct mb_layer *w = &session->model->layers[layer];
    void **buffer = session->buffer, *x = buffer[MB_BUFFER_X], *normed = buffer[MB_BUFFER_NORMED];
    void *delta = buffer[MB_BUFFER_DELTA], *mixed = buffer[MB_BUFFER_MIXED];
    int rc = mb_forward_rms(session, (mb_rmsnorm){.x = delta, .weight = w->post_norm, .out = delta}, n);
    if (rc == MB_OK)
        rc =
            mb_forward_rms(session, (mb_rmsnorm){.x = x, .delta = delta, .weight = w->pre_norm, .out = normed}, n);
    if (rc == MB_OK)
        rc = mb_forward_dense(session, w, n, mb_layer_inner(session->config, layer));
    if (rc == MB_OK)
        rc = mb_forward_rms(session, (mb_rmsnorm){.x = delta, .weight = w->dense_norm, .out = delta}, n);
    if (rc == MB_OK)
        rc = route(session, w, n);
    if (rc == MB_OK)
        rc = mb_forward_rms(session, (mb_rmsnorm){.x = x, .weight = w->expert_pre_norm, .out = normed}, n);
    if (rc == MB_OK)
        rc = mb_forward_experts(session, w, n, NULL, mixed);
    if (rc == MB_OK)
        rc = mb_forward_rms(session, (mb_rmsnorm){.x = mixed, .weight = w->expert_norm, .out = mixed}, n);
    if (rc == MB_OK)
        rc = mb_forward_rms(session, (mb_rmsnorm){.x = delta, .delta = mixed, .weight = w->out_norm, .out = delta},
                            n);
    return rc == MB_OK
               ? MB_OK
               : mb_fail(err, rc, "layer %d, feed-forward: %s", layer, session->kernels->error(session->device));
}
