/*
 * adapted.c - an adapter on the device: the sums W + s B A of a layer before it is computed, and, after its
 * backward, the gradients of A and B from those of the sums: dA = s B^T dW, dB = s dW A^T. Without an adapter
 * these functions hand through what they are given.
 */
#include "training/network.h"

#include <stdint.h>
#include <string.h>

/* The tensors of a layer that projections are parts of. */
static const size_t fields[MB_ADAPTED] = {offsetof(struct mb_layer, qkv), offsetof(struct mb_layer, o),
                                          offsetof(struct mb_layer, gate_up), offsetof(struct mb_layer, down)};

static int64_t field_rows(const mb_model_config *c, int i)
{
    const int64_t rows[MB_ADAPTED] = {(int64_t)(c->query_heads + 2 * c->kv_heads) * c->head_dim, c->hidden,
                                      2 * (int64_t)c->intermediate, c->hidden};
    return rows[i];
}

static int64_t field_cols(const mb_model_config *c, int i)
{
    const int64_t cols[MB_ADAPTED] = {c->hidden, (int64_t)c->query_heads * c->head_dim, c->hidden,
                                      c->intermediate};
    return cols[i];
}

size_t mb_adapted_floats(const mb_model_config *config, int i)
{
    return (size_t)(field_rows(config, i) * field_cols(config, i));
}

static void set(struct mb_layer *layer, int i, float *value)
{
    memcpy((char *)layer + fields[i], &value, sizeof value);
}

static float *get(const struct mb_layer *layer, int i)
{
    float *value;
    memcpy(&value, (const char *)layer + fields[i], sizeof value);
    return value;
}

/* The part's place among the adapted tensors. */
static int field_of(const mb_adapter_part *part)
{
    int i = 0;
    while (fields[i] != part->field)
        i++;
    return i;
}

static bool is_adapted(const mb_network *n, int i)
{
    for (size_t k = 0; k < n->adapter.count && n->adapter.parts[k].layer == 0; k++)
        if (n->adapter.parts[k].field == fields[i])
            return true;
    return false;
}

int mb_adapted_map(mb_network *n, float *gradients, mb_error *err)
{
    int rc = mb_parameters_map(&n->config, gradients, &n->gradients, err);
    if (rc != MB_OK)
        return rc;
    n->gradients.top = (struct mb_model){.final_norm = n->unused};
    for (int32_t l = 0; l < n->config.layers; l++) {
        struct mb_layer layer = {.input_norm = n->unused, .post_norm = n->unused};
        if (n->config.qk_norm)
            layer.q_norm = layer.k_norm = n->unused;
        for (int i = 0; i < MB_ADAPTED; i++)
            set(&layer, i, is_adapted(n, i) ? n->summed_gradient[i] : NULL);
        n->gradients.layers[l] = layer;
    }
    return rc;
}

int mb_adapted_layer(mb_network *n, const mb_parameters *weights, int32_t layer, const struct mb_layer **out)
{
    const mb_adapter *adapter = &n->adapter;
    int rc = MB_OK;
    *out = &weights->layers[layer];
    if (adapter->count == 0 || weights != &n->weights)
        return MB_OK;
    n->layer = weights->layers[layer];
    for (int i = 0; rc == MB_OK && i < MB_ADAPTED; i++) {
        if (!is_adapted(n, i))
            continue;
        set(&n->layer, i, n->summed[i]);
        rc = n->kernels->fill(n->device, n->summed[i], 0, mb_adapted_floats(&n->config, i) * sizeof(float));
    }
    for (size_t k = 0; rc == MB_OK && k < adapter->count; k++) {
        const mb_adapter_part *part = &adapter->parts[k];
        if (part->layer != layer)
            continue;
        rc = n->ops->gemm_gradient(n->device, &(mb_gemm_gradient){.dy = n->trained + part->b,
                                                                  .weight = n->trained + part->a,
                                                                  .m = part->rows,
                                                                  .n = adapter->options.rank,
                                                                  .k = part->cols,
                                                                  .da = n->summed[field_of(part)] + part->inside});
    }
    for (int i = 0; rc == MB_OK && i < MB_ADAPTED; i++)
        if (is_adapted(n, i))
            rc = n->ops->train_add(n->device,
                                   &(mb_train_add){get(&weights->layers[layer], i), n->summed[i], n->summed[i],
                                                   (int64_t)mb_adapted_floats(&n->config, i)});
    *out = &n->layer;
    return rc;
}

int mb_adapted_begin(mb_network *n)
{
    int rc = MB_OK;
    for (int i = 0; rc == MB_OK && n->adapter.count > 0 && i < MB_ADAPTED; i++)
        if (is_adapted(n, i))
            rc = n->kernels->fill(n->device, n->summed_gradient[i], 0,
                                  mb_adapted_floats(&n->config, i) * sizeof(float));
    return rc;
}

int mb_adapted_collect(mb_network *n, int32_t layer)
{
    const int64_t rank = n->adapter.options.rank;
    int rc = MB_OK;
    for (size_t k = 0; rc == MB_OK && k < n->adapter.count; k++) {
        const mb_adapter_part *part = &n->adapter.parts[k];
        if (part->layer != layer)
            continue;
        const float *dweight = n->summed_gradient[field_of(part)] + part->inside;
        float *da = n->gradients.base + part->a, *db = n->gradients.base + part->b;
        rc = n->ops->gemm_gradient(n->device, &(mb_gemm_gradient){.dy = n->trained + part->b,
                                                                  .a = dweight,
                                                                  .m = part->rows,
                                                                  .n = rank,
                                                                  .k = part->cols,
                                                                  .dweight = da});
        if (rc == MB_OK)
            rc = n->ops->train_gemm(n->device, &(mb_train_gemm){.a = dweight,
                                                                .weight = n->trained + part->a,
                                                                .m = part->rows,
                                                                .n = rank,
                                                                .k = part->cols,
                                                                .out = n->thin});
        if (rc == MB_OK)
            rc = n->ops->train_add(n->device, &(mb_train_add){db, n->thin, db, part->rows * rank});
    }
    return rc;
}
