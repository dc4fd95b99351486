/*
 * pass.c - the forward and the backward of a network, layer by layer.
 *
 * A layer: a = attention(norm(x) Wqkv), y = x + a Wo, z = y + swiglu(norm(y) Wgu) Wd. Backwards the same in
 * reverse; dx of the residual stream is carried along and every branch adds to it. Nothing here knows a backend:
 * it is a list of calls of the two tables of operations.
 */
#include "training/network.h"

#include <string.h>

/* What the functions of a pass share; rc is the first failure, after which every call does nothing. */
typedef struct pass {
    mb_network *n;
    const mb_batch *batch;
    const mb_parameters *weights;
    int64_t rows;
    mb_attend_mode mode;
    const mb_choice *choice;
    int rc;
} pass;

#define CALL(p, table, name, type, ...)                                                                           \
    do {                                                                                                          \
        if ((p)->rc == MB_OK)                                                                                     \
            (p)->rc = (p)->n->table->name((p)->n->device, &(type){__VA_ARGS__});                                  \
    } while (0)

static int finish(const pass *p, const char *what, mb_error *err)
{
    return p->rc == MB_OK ? MB_OK : mb_fail(err, p->rc, "%s: %s", what, p->n->kernels->error(p->n->device));
}

static void norm(pass *p, float *x, const void *weight, int64_t n, float *out)
{
    CALL(p, kernels, add_rmsnorm, mb_rmsnorm, .x = x, .weight = weight, .eps = (float)p->n->config.norm_eps,
         .one_rounding = 1, .n = n, .width = p->n->config.hidden, .out = out);
}

static void norm_back(pass *p, const float *x, const void *weight, const float *dy, int64_t n, bool add, float *dx,
                      void *dweight)
{
    CALL(p, ops, rmsnorm_gradient, mb_rmsnorm_gradient, .x = x, .dy = dy, .weight = weight,
         .eps = (float)p->n->config.norm_eps, .n = n, .width = p->n->config.hidden, .add = add, .dx = dx,
         .dweight = dweight);
}

/* ---- attention ---- */

static int64_t qkv_width(const mb_model_config *c)
{
    return (int64_t)(c->query_heads + 2 * c->kv_heads) * c->head_dim;
}

static mb_train_qkv qkv_of(const pass *p, const struct mb_layer *w, const mb_activations *a)
{
    const mb_model_config *c = &p->n->config;
    return (mb_train_qkv){.n = p->rows,
                          .query_heads = c->query_heads,
                          .kv_heads = c->kv_heads,
                          .head_dim = c->head_dim,
                          .rotary_dim = c->rotary_dim,
                          .positions = p->n->positions,
                          .cos_sin = p->n->cos_sin,
                          .q_norm = w->q_norm,
                          .k_norm = w->k_norm,
                          .norm_eps = (float)c->norm_eps,
                          .qkv = a->qkv,
                          .out = a->turned};
}

static mb_train_attention attention_of(const pass *p, const mb_activations *a)
{
    const mb_model_config *c = &p->n->config;
    return (mb_train_attention){.layout = p->batch->layout,
                                .query_heads = c->query_heads,
                                .kv_heads = c->kv_heads,
                                .head_dim = c->head_dim,
                                .qkv = a->turned,
                                .out = a->attended,
                                .lse = a->lse};
}

static bool is_dense(const pass *p, int32_t layer)
{
    return p->mode == MB_ATTEND_EXACT || !p->choice || layer < p->choice->dense_layers;
}

/* The masses of the exact pass become the layer's index. */
static void choose(pass *p, int32_t layer)
{
    mb_network *n = p->n;
    const mb_train_layout *layout = &p->batch->layout;
    const mb_scores scores = {.values = n->mass,
                              .stride = layout->clean,
                              .batch = layout->documents * (layout->tail / layout->block),
                              .kv_heads = n->config.kv_heads,
                              .prefix_len = n->before,
                              .max_prefix = layout->clean,
                              .page = 1};
    if (p->choice->p > 0)
        CALL(p, kernels, top_p, mb_top_p, .scores = scores, .p = (float)p->choice->p, .k_min = p->choice->k,
             .k_max = p->choice->k_max, .chosen = n->index[layer], .scratch = n->scratch);
    else
        CALL(p, kernels, top_k, mb_top_k, .scores = scores, .k = p->choice->k, .chosen = n->index[layer],
             .scratch = n->scratch);
}

static void attend(pass *p, int32_t layer, const struct mb_layer *w, const mb_activations *a)
{
    const mb_train_qkv qkv = qkv_of(p, w, a);
    mb_train_attention attention = attention_of(p, a);
    mb_train_index index = {p->n->size.capacity, p->n->index[layer].ids, p->n->index[layer].counts};
    const bool dense = is_dense(p, layer);
    if (p->mode == MB_ATTEND_SPARSE && !dense)
        attention.index = &index;
    if (p->mode == MB_ATTEND_SELECT && !dense)
        attention.mass = p->n->mass;
    if (p->rc == MB_OK)
        p->rc = p->n->ops->train_qkv(p->n->device, &qkv);
    if (p->rc == MB_OK)
        p->rc = p->n->ops->train_attend(p->n->device, &attention);
    if (attention.mass)
        choose(p, layer);
}

static void attend_back(pass *p, int32_t layer, const struct mb_layer *w, const mb_activations *a,
                        const struct mb_layer *g)
{
    mb_network *n = p->n;
    mb_train_qkv qkv = qkv_of(p, w, a);
    mb_train_attention attention = attention_of(p, a);
    mb_train_index index = {n->size.capacity, n->index[layer].ids, n->index[layer].counts};
    if (p->mode == MB_ATTEND_SPARSE && !is_dense(p, layer))
        attention.index = &index;
    attention.dout = n->dattended;
    attention.dqkv = n->dturned;
    qkv.dout = n->dturned;
    qkv.dqkv = n->dqkv;
    qkv.dq_norm = g->q_norm;
    qkv.dk_norm = g->k_norm;
    if (p->rc == MB_OK)
        p->rc = n->ops->train_attend_gradient(n->device, &attention);
    if (p->rc == MB_OK)
        p->rc = n->ops->train_qkv_gradient(n->device, &qkv);
}

/* ---- a layer ---- */

static void layer_forward(pass *p, int32_t layer)
{
    mb_network *n = p->n;
    const mb_model_config *c = &n->config;
    const struct mb_layer *w = NULL;
    const mb_activations *a = &n->kept[n->size.checkpointing ? 0 : layer];
    float *x = n->inputs[layer], *out = n->inputs[layer + 1];
    const int64_t rows = p->rows, hidden = c->hidden, inner = c->intermediate;
    const int64_t q = (int64_t)c->query_heads * c->head_dim;
    if (p->rc == MB_OK)
        p->rc = mb_adapted_layer(n, p->weights, layer, &w);
    if (p->rc != MB_OK)
        return;
    norm(p, x, w->input_norm, rows, a->normed);
    CALL(p, ops, train_gemm, mb_train_gemm, .a = a->normed, .weight = w->qkv, .bias = w->qkv_bias, .m = rows,
         .n = qkv_width(c), .k = hidden, .out = a->qkv);
    attend(p, layer, w, a);
    CALL(p, ops, train_gemm, mb_train_gemm, .a = a->attended, .weight = w->o, .m = rows, .n = hidden, .k = q,
         .add = x, .out = a->middle);
    norm(p, a->middle, w->post_norm, rows, a->normed2);
    CALL(p, ops, train_gemm, mb_train_gemm, .a = a->normed2, .weight = w->gate_up, .m = rows, .n = 2 * inner,
         .k = hidden, .out = a->gate_up);
    CALL(p, kernels, swiglu, mb_swiglu, .gate_up = a->gate_up, .n = rows, .width = inner, .out = a->product);
    CALL(p, ops, train_gemm, mb_train_gemm, .a = a->product, .weight = w->down, .m = rows, .n = hidden, .k = inner,
         .add = a->middle, .out = out);
}

/* n->dx: gradient of the layer's output; then of its input. */
static void layer_backward(pass *p, int32_t layer)
{
    mb_network *n = p->n;
    const mb_model_config *c = &n->config;
    const struct mb_layer *w = NULL, *g = &n->gradients.layers[layer];
    const mb_activations *a = &n->kept[n->size.checkpointing ? 0 : layer];
    const int64_t rows = p->rows, hidden = c->hidden, inner = c->intermediate;
    const int64_t q = (int64_t)c->query_heads * c->head_dim;
    if (n->size.checkpointing)
        layer_forward(p, layer);
    if (p->rc == MB_OK)
        p->rc = mb_adapted_layer(n, p->weights, layer, &w);
    if (p->rc == MB_OK)
        p->rc = mb_adapted_begin(n);
    if (p->rc != MB_OK)
        return;
    CALL(p, ops, gemm_gradient, mb_gemm_gradient, .dy = n->dx, .a = a->product, .weight = w->down, .m = rows,
         .n = hidden, .k = inner, .da = n->dproduct, .dweight = g->down);
    CALL(p, ops, swiglu_gradient, mb_swiglu_gradient, .gate_up = a->gate_up, .dy = n->dproduct, .n = rows,
         .width = inner, .dgate_up = n->dgate_up);
    CALL(p, ops, gemm_gradient, mb_gemm_gradient, .dy = n->dgate_up, .a = a->normed2, .weight = w->gate_up,
         .m = rows, .n = 2 * inner, .k = hidden, .da = n->dnormed, .dweight = g->gate_up);
    norm_back(p, a->middle, w->post_norm, n->dnormed, rows, true, n->dx, g->post_norm);
    CALL(p, ops, gemm_gradient, mb_gemm_gradient, .dy = n->dx, .a = a->attended, .weight = w->o, .m = rows,
         .n = hidden, .k = q, .da = n->dattended, .dweight = g->o);
    attend_back(p, layer, w, a, g);
    CALL(p, ops, gemm_gradient, mb_gemm_gradient, .dy = n->dqkv, .a = a->normed, .weight = w->qkv, .m = rows,
         .n = qkv_width(c), .k = hidden, .da = n->dnormed, .dweight = g->qkv, .dbias = g->qkv_bias);
    norm_back(p, n->inputs[layer], w->input_norm, n->dnormed, rows, true, n->dx, g->input_norm);
    if (p->rc == MB_OK)
        p->rc = mb_adapted_collect(n, layer);
}

int mb_network_forward(mb_network *n, const mb_batch *batch, const mb_parameters *weights, mb_attend_mode mode,
                       const mb_choice *choice, mb_error *err)
{
    pass p = {n, batch, weights, mb_train_rows(&batch->layout), mode, choice, MB_OK};
    CALL(&p, kernels, embed, mb_embed, .ids = n->ids, .n = p.rows, .table = weights->top.embed,
         .vocab = n->config.vocab, .width = n->config.hidden, .out = n->inputs[0]);
    for (int32_t layer = 0; layer < n->config.layers; layer++)
        layer_forward(&p, layer);
    return finish(&p, "the forward", err);
}

/* ---- the head ---- */

/* The target rows of the last layer's output, and their norm. */
static void gather(pass *p, float *normed)
{
    mb_network *n = p->n;
    CALL(p, ops, train_gather, mb_train_gather, .x = n->inputs[n->config.layers], .rows = n->row,
         .n = p->batch->targets, .width = n->config.hidden, .out = n->gathered);
    norm(p, n->gathered, p->weights->top.final_norm, p->batch->targets, normed);
}

int mb_network_teach(mb_network *n, const mb_batch *batch, const mb_parameters *weights, mb_error *err)
{
    pass p = {n, batch, weights, mb_train_rows(&batch->layout), MB_ATTEND_EXACT, NULL, MB_OK};
    gather(&p, n->teacher_in);
    return finish(&p, "the teacher's rows", err);
}

/* Logits, losses and gradients of target rows first .. first+count-1; no more logits than these are ever held. */
static void head_chunk(pass *p, const mb_loss_request *request, int64_t first, int64_t count)
{
    mb_network *n = p->n;
    const int64_t hidden = n->config.hidden, vocab = n->config.vocab;
    const bool taught = request->teacher != NULL;
    float *rows = n->head_in + first * hidden;
    CALL(p, ops, train_gemm, mb_train_gemm, .a = rows, .weight = p->weights->top.lm_head, .m = count, .n = vocab,
         .k = hidden, .out = n->logits);
    if (taught)
        CALL(p, ops, train_gemm, mb_train_gemm, .a = n->teacher_in + first * hidden,
             .weight = request->teacher->top.lm_head, .m = count, .n = vocab, .k = hidden,
             .out = n->teacher_logits);
    CALL(p, ops, train_loss, mb_train_loss, .logits = n->logits, .teacher = taught ? n->teacher_logits : NULL,
         .targets = n->target + first, .weight = n->weight + first, .distil = taught ? n->distil + first : NULL,
         .n = count, .vocab = vocab, .dlogits = request->backward ? n->logits : NULL, .ce = n->ce + first,
         .kl = taught ? n->kl + first : NULL, .correct = n->correct + first);
    if (request->backward)
        CALL(p, ops, gemm_gradient, mb_gemm_gradient, .dy = n->logits, .a = rows,
             .weight = p->weights->top.lm_head, .m = count, .n = vocab, .k = hidden,
             .da = n->dhead_in + first * hidden, .dweight = n->gradients.top.lm_head);
}

/* What each row counts in the gradient. */
static int send_factors(mb_network *n, const mb_batch *batch, const mb_loss_request *request)
{
    int rc = MB_OK;
    for (int part = 0; rc == MB_OK && part < 2; part++) {
        const double factor = (part ? request->lambda : 1.0) / (request->total > 0 ? request->total : 1.0);
        for (int32_t i = 0; i < batch->targets; i++)
            n->host[i] = (float)((double)batch->weight[i] * factor);
        rc = n->kernels->upload(n->device, part ? n->distil : n->weight, n->host,
                                (size_t)batch->targets * sizeof(float));
    }
    return rc;
}

static int add_losses(pass *p, bool taught, mb_losses *losses)
{
    mb_network *n = p->n;
    const mb_batch *batch = p->batch;
    const size_t bytes = (size_t)batch->targets * sizeof(float);
    int32_t *correct = (int32_t *)(void *)n->host;
    int rc = n->kernels->download(n->device, n->host, n->ce, bytes);
    for (int32_t i = 0; rc == MB_OK && i < batch->targets; i++)
        losses->ce += (double)batch->weight[i] * (double)n->host[i];
    if (rc == MB_OK && taught)
        rc = n->kernels->download(n->device, n->host, n->kl, bytes);
    for (int32_t i = 0; rc == MB_OK && taught && i < batch->targets; i++)
        losses->kl += (double)batch->weight[i] * (double)n->host[i];
    if (rc == MB_OK)
        rc = n->kernels->download(n->device, correct, n->correct, bytes);
    for (int32_t i = 0; rc == MB_OK && i < batch->targets; i++)
        losses->correct += correct[i];
    losses->weight += batch->weight_sum;
    losses->count += batch->targets;
    return rc;
}

/* From the gradients of the head's rows down to the embedding. */
static void go_back(pass *p)
{
    mb_network *n = p->n;
    const mb_model_config *c = &n->config;
    norm_back(p, n->gathered, p->weights->top.final_norm, n->dhead_in, p->batch->targets, false, n->head_in,
              n->gradients.top.final_norm);
    if (p->rc == MB_OK)
        p->rc = n->kernels->fill(n->device, n->dx, 0, (size_t)(p->rows * c->hidden) * sizeof(float));
    CALL(p, ops, train_scatter, mb_train_gather, .x = n->dx, .rows = n->row, .n = p->batch->targets,
         .width = c->hidden, .out = n->head_in);
    for (int32_t layer = c->layers - 1; layer >= 0; layer--)
        layer_backward(p, layer);
    if (!n->gradients.top.embed)
        return;
    CALL(p, ops, embed_gradient, mb_embed_gradient, .ids = n->ids, .dy = n->dx, .n = p->rows, .vocab = c->vocab,
         .width = c->hidden, .dtable = n->gradients.top.embed);
}

int mb_network_loss(mb_network *n, const mb_batch *batch, const mb_loss_request *request, mb_losses *losses,
                    mb_error *err)
{
    pass p = {n, batch, &n->weights, mb_train_rows(&batch->layout), request->mode, request->choice, MB_OK};
    gather(&p, n->head_in);
    if (p.rc == MB_OK)
        p.rc = send_factors(n, batch, request);
    for (int64_t first = 0; first < batch->targets; first += n->size.chunk) {
        const int64_t left = batch->targets - first;
        head_chunk(&p, request, first, left < n->size.chunk ? left : n->size.chunk);
    }
    if (request->backward && batch->targets > 0)
        go_back(&p);
    if (p.rc == MB_OK) /* last: it waits for the device */
        p.rc = add_losses(&p, request->teacher != NULL, losses);
    return finish(&p, "losses and gradients", err);
}
