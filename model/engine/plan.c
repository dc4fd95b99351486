/*
 * plan.c - how much device memory a run takes: the sizes of a session's buffers, listed once for the plan that the
 * user sees and for the session that allocates them. A plan and a session of the same request agree to the byte.
 *
 * Scratch of top-k and votes is a formula, not a question to the backend, so that a plan needs no device; a
 * backend that wants more is refused when the session opens.
 */
#include "model/engine/engine.h"
#include "model/checkpoint/config.h"
#include "model/checkpoint/layout.h"

#include <string.h>

enum { CHUNK_DEFAULT = 1024, ALIGNMENT = 256 };

static size_t padded(size_t bytes)
{
    return bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

void mb_buffer_sizes_make(const mb_model_config *config, mb_type type, const mb_session_request *request,
                          mb_buffer_sizes *sizes)
{
    size_t batch = (size_t)(request->batch > 0 ? request->batch : 1), block = (size_t)config->block;
    size_t capacity = (size_t)(request->capacity > 0 ? request->capacity : 1);
    size_t chunk = (size_t)(request->prefill_chunk > 0 ? request->prefill_chunk : CHUNK_DEFAULT);
    size_t t = mb_type_size(type), rows = batch * block, stride = (capacity + 63) / 64 * 64;
    size_t lanes = (size_t)(request->lanes > 1 ? request->lanes : 1);
    memset(sizes, 0, sizeof *sizes);
    chunk = chunk < capacity ? chunk : capacity;
    chunk = (chunk + block - 1) / block * block;
    const mb_moe *moe = &config->moe;
    size_t wide = larger(chunk, lanes * rows), hidden = (size_t)config->hidden;
    size_t middle =
        larger(moe->experts && !moe->dense_layers ? 0 : (size_t)config->intermediate, (size_t)moe->shared);
    if (moe->beside)
        middle = (size_t)config->intermediate;
    size_t heads = (size_t)config->query_heads, kv_heads = (size_t)config->kv_heads;
    size_t width = heads * (size_t)config->head_dim, kv_width = kv_heads * (size_t)config->head_dim;
    size_t local_kv_width = (size_t)config->local.kv_heads * (size_t)config->local.head_dim;
    size_t widest = larger(width, heads * (size_t)config->local.head_dim); /* of queries */
    size_t widest_kv = larger(kv_width, local_kv_width);
    size_t scores = batch * kv_heads * stride * sizeof(float);
    size_t *bytes = sizes->bytes;
    sizes->chunk = (int32_t)chunk;
    sizes->rows = (int32_t)rows;
    sizes->stride = (int32_t)stride;
    sizes->lanes = (int32_t)lanes;
    sizes->kv_bytes = padded(batch * kv_width * capacity * t);
    sizes->local_kv_bytes = padded(batch * local_kv_width * capacity * t);
    /* Behind the snapshot: the rest of the prompt, the answer, and what fills up its last block. */
    size_t tail = request->answer > 0 ? (size_t)request->answer + 2 * block : capacity;
    sizes->tail = lanes > 1 ? (int32_t)(tail < capacity ? tail : capacity) : 0;
    sizes->tail_bytes = lanes > 1 ? padded(kv_width * (size_t)sizes->tail * t) : 0;

    bytes[MB_BUFFER_X] = bytes[MB_BUFFER_NORMED] = bytes[MB_BUFFER_DELTA] = wide * hidden * t;
    bytes[MB_BUFFER_QKV] = wide * (widest + 2 * widest_kv) * t;
    bytes[MB_BUFFER_Q] = bytes[MB_BUFFER_ATTENDED] = wide * widest * t;
    bytes[MB_BUFFER_GATE_UP] = wide * 2 * middle * t;
    bytes[MB_BUFFER_MLP] = wide * middle * t;
    if (moe->experts) {
        bytes[MB_BUFFER_ROUTER] = wide * ((size_t)moe->experts + 2 * (size_t)moe->per_token) * 4;
        bytes[MB_BUFFER_EXPERTS] =
            mb_experts_scratch((int64_t)wide, config->hidden, moe->experts, moe->per_token, moe->size, type);
    }
    if (config->wrapped)
        bytes[MB_BUFFER_MIXED] = wide * hidden * t;
    if (config->canvas.steps > 0) {
        bytes[MB_BUFFER_SHARES] = mb_soft_embed_scratch((int64_t)rows, config->vocab);
        bytes[MB_BUFFER_WINDOW] = batch * (size_t)config->local.kv_heads * ((size_t)config->local.window + 1) * 4;
    }
    bytes[MB_BUFFER_Q_PRE] = rows * widest * t;
    bytes[MB_BUFFER_STATE_PREFIX] = bytes[MB_BUFFER_STATE_BLOCK] = rows * width * t;
    bytes[MB_BUFFER_LOGITS] = lanes * rows * (size_t)config->vocab * t;
    bytes[MB_BUFFER_LSE] = bytes[MB_BUFFER_LSE_PREFIX] = bytes[MB_BUFFER_LSE_BLOCK] = rows * heads * sizeof(float);
    bytes[MB_BUFFER_MASS] = bytes[MB_BUFFER_MASS_EXACT] = scores;
    /* What a lane has of its own; a chunk's ids lie behind the block's. */
    bytes[MB_BUFFER_INPUT] = lanes * padded((4 * rows + batch + 1 + larger(chunk, 1)) * 4);
    bytes[MB_BUFFER_BEST] = lanes * padded(rows * 2 * 4);
    bytes[MB_BUFFER_WORK] = lanes * padded(4 * sizeof(double));
    /* Votes keep the logits of one KV head's rows, top-k a few words for each (sequence, KV head). */
    bytes[MB_BUFFER_SCRATCH] =
        heads / kv_heads * block * (stride * sizeof(float) + 64) + stride + batch * kv_heads * 64 + 65536;
    for (int i = 0; i < MB_BUFFER_COUNT; i++) {
        bytes[i] = padded(bytes[i]);
        sizes->budget[i] = i == MB_BUFFER_LOGITS ? MB_BUDGET_LOGITS
                           : i >= MB_BUFFER_LSE  ? MB_BUDGET_STATISTICS
                                                 : MB_BUDGET_ACTIVATIONS;
    }
}

_Static_assert((int)MB_ELEMENT_F32 == MB_F32 && (int)MB_ELEMENT_BF16 == MB_BF16 && (int)MB_ELEMENT_F16 == MB_F16,
               "a method's words for a storage type are the kernels'");

/* capacity counts the block as well: a method's bounds cover the keys that a commit adds. first_layer becomes,
 * until a method's options are known, the number of layers in front of the first that methods see. */
void mb_shape_make(const mb_model_config *config, mb_type type, int32_t batch, int32_t capacity, int32_t steps,
                   mb_shape *shape)
{
    int32_t in_front = 0;
    while (in_front < config->layers && mb_layer_is_local(config, in_front))
        in_front++;
    *shape = (mb_shape){.size = sizeof *shape,
                        .first_layer = in_front,
                        .layers = mb_layer_count(config),
                        .query_heads = config->query_heads,
                        .kv_heads = config->kv_heads,
                        .head_dim = config->head_dim,
                        .block = config->block,
                        .batch = batch,
                        .capacity = capacity,
                        .stride = (capacity + 63) / 64 * 64,
                        .steps = steps,
                        .element_size = (int32_t)mb_type_size(type),
                        .element = (mb_element)type};
}

void mb_memory_plan_make(const mb_model_config *config, mb_type type, const mb_session_request *request,
                         size_t method_bytes, mb_memory_plan *plan)
{
    mb_buffer_sizes sizes;
    mb_buffer_sizes_make(config, type, request, &sizes);
    memset(plan, 0, sizeof *plan);
    plan->weights = mb_model_weight_bytes(config, type);
    const size_t global = (size_t)mb_layer_count(config);
    plan->kv = 2 * (global * sizes.kv_bytes + ((size_t)config->layers - global) * sizes.local_kv_bytes) +
               2 * (size_t)config->layers * sizes.tail_bytes * (size_t)sizes.lanes;
    for (int i = 0; i < MB_BUFFER_COUNT; i++) {
        size_t *part = sizes.budget[i] == MB_BUDGET_LOGITS       ? &plan->logits
                       : sizes.budget[i] == MB_BUDGET_STATISTICS ? &plan->statistics
                                                                 : &plan->activations;
        *part += sizes.bytes[i];
    }
    plan->methods = method_bytes;
    plan->total = plan->weights + plan->kv + plan->activations + plan->logits + plan->statistics + plan->methods;
}
