/*
 * session.c - opening a session (KV cache and buffers of a batch), prefilling prompts into it, filling it with
 * random keys and values. The prefilled state is the snapshot that every decoding starts from.
 */
#include "model/engine/engine.h"
#include "model/engine/team.h"

#include "model/checkpoint/config.h"
#include "model/checkpoint/convert.h"
#include "model/checkpoint/slice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int mb_session_failed(const mb_session *session, int rc, const char *what, mb_error *err)
{
    return mb_fail(err, rc, "%s: %s", what, session->kernels->error(session->device));
}

/* Tokens, flags and lengths lie in one block at fixed places: one upload a step, and addresses that a captured
 * graph may keep. */
mb_input mb_session_input(const mb_session *session)
{
    size_t rows = (size_t)session->batch * (size_t)session->block;
    return (mb_input){.ids = 0,
                      .masked = rows,
                      .masked_weight = 2 * rows,
                      .centre_weight = 3 * rows,
                      .prefix = 4 * rows,
                      .temperature = 4 * rows + (size_t)session->batch,
                      .words = 4 * rows + (size_t)session->batch + 1};
}

/* Hooks between steps read lengths from device memory, where a step's upload has not been yet. */
int mb_session_send_prefix(mb_session *session, mb_error *err)
{
    int rc = session->kernels->upload(session->device, mb_input_at(session, mb_session_input(session).prefix),
                                      session->prefix, (size_t)session->batch * sizeof *session->prefix);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "uploading prefix lengths", err);
}

/* Eight bounds for the life of a session: few graphs, and grids at most an eighth of the capacity too large. */
int32_t mb_session_bound(const mb_session *session, int32_t prefix)
{
    if (!session->kernels->capture_begin)
        return prefix;
    int32_t bucket = (session->capacity / 8 + 63) / 64 * 64;
    int64_t bound = bucket > 0 ? ((int64_t)prefix + bucket - 1) / bucket * bucket : prefix;
    return bound < session->capacity ? (int32_t)bound : session->capacity;
}

/* The batch is the outermost dimension of the cache, so one sequence is a cache by itself. */
mb_kv mb_session_kv_of(const mb_session *session, int32_t layer, int32_t sequence)
{
    mb_kv kv = session->kv[layer];
    size_t bytes = (size_t)sequence * (size_t)kv.kv_heads * (size_t)kv.capacity * (size_t)kv.head_dim *
                   mb_type_size(session->type);
    kv.k = (char *)kv.k + bytes;
    kv.v = (char *)kv.v + bytes;
    kv.batch = 1;
    return kv;
}

/* Takes all device memory of the session. */
static int take_memory(mb_session *session, const mb_buffer_sizes *sizes, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    const mb_model_config *config = session->config;
    for (int32_t l = 0; l < config->layers; l++) {
        mb_kv *kv = &session->kv[l];
        const mb_layer_sizes layer = mb_layer_sizes_of(config, l);
        const size_t bytes = layer.window ? sizes->local_kv_bytes : sizes->kv_bytes;
        *kv = (mb_kv){.batch = session->batch,
                      .kv_heads = layer.kv_heads,
                      .capacity = session->capacity,
                      .head_dim = layer.head_dim};
        kv->k = kernels->alloc(session->device, bytes);
        kv->v = kernels->alloc(session->device, bytes);
        if (!kv->k || !kv->v)
            return mb_session_failed(session, MB_E_SYSTEM, "no device memory for the KV cache", err);
    }
    for (int i = 0; i < MB_BUFFER_COUNT; i++) {
        session->buffer[i] = kernels->alloc(session->device, sizes->bytes[i]);
        if (!session->buffer[i])
            return mb_session_failed(session, MB_E_SYSTEM, "no device memory for a session's buffers", err);
    }
    session->scratch_bytes = sizes->bytes[MB_BUFFER_SCRATCH];
    mb_attention args = {.rows = {.batch = session->batch,
                                  .rows = session->block,
                                  .max_prefix = session->capacity,
                                  .block_keys = session->block},
                         .kv = session->kv[config->layers - 1], /* the last one has no window */
                         .query_heads = config->query_heads};
    size_t wanted = kernels->top_k_scratch(session->batch, config->kv_heads, session->stride);
    size_t votes = kernels->votes_scratch(&args, session->capacity);
    wanted = votes > wanted ? votes : wanted;
    if (wanted > session->scratch_bytes)
        return mb_fail(err, MB_E_BUG, "choosing among %d keys wants %zu bytes of scratch, the plan has %zu",
                       session->capacity, wanted, session->scratch_bytes);
    return MB_OK;
}

/* What no plan can help against; memory is the plan's business. */
static int check_request(const mb_model_config *config, const mb_session_request *request, mb_error *err)
{
    if (request->batch < 1 || request->batch > 4096)
        return mb_fail(err, MB_E_INPUT, "batch %d: use 1 to 4096 sequences", request->batch);
    if (request->capacity < config->block)
        return mb_fail(err, MB_E_INPUT, "capacity %d is smaller than one block of %d tokens", request->capacity,
                       config->block);
    if (config->block > 256)
        return mb_fail(err, MB_E_INPUT, "blocks of %d tokens: up to 256 can be decoded", config->block);
    if (request->capacity > config->positions)
        return mb_fail(err, MB_E_INPUT,
                       "a context of %d tokens is longer than the %d positions of %s (max_position_embeddings)",
                       request->capacity, config->positions, config->name);
    if (request->lanes > 1 && config->canvas.steps > 0)
        return mb_fail(err, MB_E_INPUT, "%d lanes: a model of canvases decodes one sample at a time",
                       request->lanes);
    if (request->lanes < 0 || request->lanes > 64 || (request->lanes > 1 && request->batch != 1))
        return mb_fail(err, MB_E_INPUT, "%d lanes, batch %d: use up to 64 lanes of batch 1", request->lanes,
                       request->batch);
    if (request->prefill_chunk < 0)
        return mb_fail(err, MB_E_INPUT, "prefill chunk %d: use 0 for the default or a positive number",
                       request->prefill_chunk);
    return MB_OK;
}

bool mb_session_arrays_new(mb_session *session, int32_t rows)
{
    const mb_local_layers *local = &session->config->local;
    const size_t batch = (size_t)session->batch;
    const size_t window = local->window > 0 ? (size_t)local->kv_heads * ((size_t)local->window + 1) : 0;
    session->kv = calloc((size_t)session->config->layers, sizeof *session->kv);
    session->snapshot = calloc(batch, sizeof *session->snapshot);
    session->prefix = calloc(batch, sizeof *session->prefix);
    session->prompt = calloc(batch, sizeof *session->prompt);
    session->prompt_count = calloc(batch, sizeof *session->prompt_count);
    session->seed = calloc(batch, sizeof *session->seed);
    session->staging = calloc(mb_session_input(session).words, sizeof *session->staging);
    session->answer = calloc(2 * (size_t)rows, sizeof *session->answer);
    session->window = window ? calloc(batch * window, sizeof *session->window) : NULL;
    return session->kv && session->snapshot && session->prefix && session->prompt && session->prompt_count &&
           session->seed && session->staging && session->answer && (session->window || !window);
}

void mb_session_arrays_free(mb_session *session)
{
    free(session->kv);
    free(session->snapshot);
    free(session->prefix);
    free(session->prompt);
    free(session->prompt_count);
    free(session->seed);
    free(session->staging);
    free(session->answer);
    free(session->window);
}

int mb_session_open(mb_session **session, mb_model *model, const mb_session_request *request, mb_error *err)
{
    mb_buffer_sizes sizes;
    mb_session *s = NULL;
    *session = NULL;
    if (mb_team_leads(model->team))
        return mb_team_session_open(session, model, request, err);
    int rc = check_request(&model->config, request, err);
    if (rc != MB_OK)
        return rc;
    mb_buffer_sizes_make(&model->config, model->type, request, &sizes);
    s = calloc(1, sizeof *s);
    if (!s)
        return mb_no_memory(err, "a session");
    s->model = model;
    s->config = &model->config;
    s->kernels = model->kernels;
    s->device = model->device;
    s->type = model->type;
    s->comm = model->comm;
    s->rank = model->rank;
    s->ranks = model->ranks;
    s->batch = request->batch;
    s->block = model->config.block;
    s->capacity = request->capacity;
    s->stride = sizes.stride;
    s->chunk = sizes.chunk;
    s->graphs = s->has_graphs =
        request->graphs && s->kernels->capture_begin && (!model->comm || mb_comm_captures(model->comm));
    s->measure.counting = true;
    s->invariant = request->invariant;
    s->arena_mark = s->kernels->mark(s->device);
    rc = mb_session_arrays_new(s, sizes.rows) ? take_memory(s, &sizes, err) : mb_no_memory(err, "a session");
    if (rc == MB_OK)
        rc = mb_lanes_open(s, &sizes, err);
    if (rc == MB_OK)
        *session = s;
    else
        mb_session_close(s);
    return rc;
}

void mb_session_close(mb_session *session)
{
    if (!session)
        return;
    if (mb_team_leads(session->team)) {
        mb_team_session_close(session);
        return;
    }
    mb_lanes_close(session);
    session->kernels->release(session->device, session->arena_mark);
    for (int32_t b = 0; session->prompt && b < session->batch; b++)
        free(session->prompt[b]);
    mb_session_arrays_free(session);
    free(session->peers);
    free(session);
}

void mb_session_measure(mb_session *session, const mb_measure *measure)
{
    session->measure = measure ? *measure : (mb_measure){.counting = true};
}

void mb_session_use_graphs(mb_session *session, bool graphs)
{
    for (int32_t i = 0; session->lane && i < session->lanes; i++)
        session->lane[i]->graphs = graphs && session->has_graphs;
    session->graphs = graphs && session->has_graphs;
}

void mb_session_rotate(mb_session *session, uint64_t rotation)
{
    session->rotation = rotation;
}

void mb_session_shape(const mb_session *session, int32_t steps, mb_shape *shape)
{
    mb_shape_make(session->config, session->type, session->batch, session->capacity, steps, shape);
}

/* ---- prefill ---- */

/* One chunk through all layers; its keys join the cache. */
static int prefill_chunk(mb_session *session, int32_t sequence, const int32_t *ids, int32_t first, int32_t n,
                         mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    const mb_model_config *config = session->config;
    mb_input input = mb_session_input(session);
    int32_t *device_ids = mb_input_at(session, input.words), *device_first = mb_input_at(session, input.prefix);
    /* To the kernels a chunk is a block of n rows behind a prefix of `first` tokens. */
    mb_rows rows = {.batch = 1, .rows = n, .prefix_len = device_first, .max_prefix = first, .block_keys = n};
    int rc = kernels->upload(session->device, device_ids, ids, (size_t)n * sizeof *ids);
    if (rc == MB_OK)
        rc = kernels->upload(session->device, device_first, &first, sizeof first);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "prefill", err);
    session->owed = 2 * config->layers;
    session->causal = config->canvas.steps > 0;
    rc = mb_forward_embed(session, 0, device_ids, n, err);
    for (int32_t l = 0; l < config->layers && rc == MB_OK; l++) {
        mb_kv kv = mb_session_kv_of(session, l, sequence);
        rc = mb_forward_qkv(session, l, n, err);
        if (rc == MB_OK)
            rc = mb_forward_rope(session, l, &rows, &kv, NULL, err);
        if (rc != MB_OK)
            break;
        void *q = session->buffer[MB_BUFFER_Q], *out = session->buffer[MB_BUFFER_ATTENDED];
        if (session->causal || n % session->block == 0) {
            rc = kernels->attend_prefill(session->device,
                                         &(mb_prefill){.kv = kv,
                                                       .query_heads = config->query_heads,
                                                       .q = q,
                                                       .first = first,
                                                       .n = n,
                                                       .block = session->causal ? 1 : session->block,
                                                       .window = mb_layer_sizes_of(config, l).window,
                                                       .out = out});
        } else { /* the block that ends the text is cut short: all its rows see all its keys */
            mb_attention args = {.rows = rows,
                                 .kv = kv,
                                 .query_heads = config->query_heads,
                                 .q = q,
                                 .scope = MB_SCOPE_ALL,
                                 .out = out};
            rc = kernels->attend(session->device, &args);
        }
        if (rc != MB_OK)
            return mb_session_failed(session, rc, "attention of the prefill", err);
        rc = mb_forward_mlp(session, l, n, err);
    }
    return rc;
}

/* Logits of rows [0, n) of the chunk that was just run, as fp32 on the host. */
static int read_logits(mb_session *session, int32_t n, float *to, mb_error *err)
{
    size_t vocab = (size_t)session->config->vocab, most = (size_t)session->batch * (size_t)session->block;
    void *piece = malloc(most * vocab * mb_type_size(session->type));
    int rc = piece ? MB_OK : mb_no_memory(err, "logits of %zu tokens", vocab);
    for (int32_t first = 0; first < n && rc == MB_OK; first += (int32_t)most) {
        size_t rows = (size_t)(n - first) < most ? (size_t)(n - first) : most;
        rc = mb_forward_head(session, first, (int64_t)rows, err);
        if (rc != MB_OK)
            break;
        rc = session->kernels->download(session->device, piece, session->buffer[MB_BUFFER_LOGITS],
                                        rows * vocab * mb_type_size(session->type));
        if (rc != MB_OK)
            rc = mb_session_failed(session, rc, "reading logits", err);
        else
            mb_type_convert(to + (size_t)first * vocab, MB_F32, piece, session->type, rows * vocab);
    }
    free(piece);
    return rc;
}

/* Best token of the last of n rows that were just run. */
static int read_best(mb_session *session, int32_t n, int32_t *best, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    int32_t *ids = session->buffer[MB_BUFFER_BEST];
    float probability = 0;
    int rc = mb_forward_head(session, n - 1, 1, err);
    if (rc != MB_OK)
        return rc;
    rc = kernels->top1(session->device, &(mb_top1){.logits = session->buffer[MB_BUFFER_LOGITS],
                                                   .n = 1,
                                                   .vocab = session->config->vocab,
                                                   .confidence = MB_F32,
                                                   .ids = ids,
                                                   .probability = (float *)(ids + 1)});
    if (rc == MB_OK)
        rc = kernels->download(session->device, best, ids, sizeof *best);
    if (rc == MB_OK)
        rc = kernels->download(session->device, &probability, ids + 1, sizeof probability);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "best token of the prefill", err);
    /* NaN fails both comparisons. */
    if (!(probability > 0.0f && probability <= 1.001f))
        return mb_fail(err, MB_E_SAMPLE, "the prefill's logits are not finite");
    return MB_OK;
}

int mb_session_prefill_rows(mb_session *session, int32_t sequence, const int32_t *ids, int32_t from, int32_t to,
                            float *logits, int32_t *best, mb_error *err)
{
    int32_t unit = session->config->canvas.steps > 0 ? 1 : session->block;
    int32_t whole = to / unit * unit; /* a tail shorter than a block gets a chunk of its own */
    int rc = MB_OK;
    for (int32_t first = from; first < to && rc == MB_OK;) {
        int32_t end = first < whole ? whole : to;
        int32_t n = end - first < session->chunk ? end - first : session->chunk;
        bool last = first + n == to;
        rc = prefill_chunk(session, sequence, ids + first, first, n, err);
        if (rc != MB_OK)
            mb_session_quit(session, rc, n);
        if (rc == MB_OK && (logits || (best && last)))
            rc = mb_forward_norm(session, n, err);
        if (rc == MB_OK && logits)
            rc = read_logits(session, n, logits + (size_t)(first - from) * (size_t)session->config->vocab, err);
        if (rc == MB_OK && best && last)
            rc = read_best(session, n, best, err);
        rc = mb_session_agree(session, rc, best, best && last ? sizeof *best : 0, err);
        first += n;
    }
    return rc;
}

/* An id outside the vocabulary would read outside the embedding. */
static int check_ids(const mb_session *session, const int32_t *ids, size_t n, mb_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= session->config->vocab)
            return mb_fail(err, MB_E_SAMPLE, "token %zu of the prompt is %d, the vocabulary has %d", i, ids[i],
                           session->config->vocab);
    for (size_t i = 0; i < n && session->config->canvas.steps > 0; i++)
        for (int k = 0; k < 3; k++)
            if (ids[i] == session->config->canvas.image_ids[k])
                return mb_fail(err, MB_E_SAMPLE,
                               "token %zu of the prompt, %d, stands for an image: only text is read", i, ids[i]);
    return MB_OK;
}

int mb_session_prefill(mb_session *session, int32_t sequence, const int32_t *ids, size_t n, double *us,
                       mb_error *err)
{
    if (us)
        *us = 0;
    if (mb_team_leads(session->team))
        return mb_team_prefill(session, sequence, ids, n, us, err);
    if (sequence < 0 || sequence >= session->batch)
        return mb_fail(err, MB_E_BUG, "sequence %d of a batch of %d", sequence, session->batch);
    if (n > (size_t)session->capacity - (size_t)session->block)
        return mb_fail(err, MB_E_SAMPLE,
                       "a prompt of %zu tokens leaves no room for a block in a cache of %d tokens", n,
                       session->capacity);
    int rc = check_ids(session, ids, n, err);
    if (rc != MB_OK)
        return rc;
    int32_t *copy = malloc((n ? n : 1) * sizeof *copy);
    if (!copy)
        return mb_no_memory(err, "a prompt of %zu tokens", n);
    if (n)
        memcpy(copy, ids, n * sizeof *copy);
    free(session->prompt[sequence]);
    session->prompt[sequence] = copy;
    session->prompt_count[sequence] = n;
    /* Until the prefill has succeeded the sequence is empty: a failure leaves no half snapshot behind. */
    session->snapshot[sequence] = session->prefix[sequence] = 0;
    session->seed[sequence] = -1;
    /* Behind a causal prompt a block begins anywhere. */
    const int32_t unit = session->config->canvas.steps > 0 ? 1 : session->block;
    int32_t whole = (int32_t)(n / (size_t)unit) * unit;
    const mb_kernels *kernels = session->kernels;
    kernels->range_push(session->device, "prefill");
    rc = kernels->timer_mark(session->device, 0);
    if (rc == MB_OK)
        rc = mb_session_prefill_rows(session, sequence, copy, 0, whole, NULL,
                                     whole > 0 ? &session->seed[sequence] : NULL, err);
    else
        mb_session_failed(session, rc, "timer", err);
    if (rc == MB_OK) {
        double elapsed = 0;
        rc = kernels->timer_mark(session->device, 1);
        if (rc == MB_OK)
            rc = kernels->timer_elapsed(session->device, 0, 1, &elapsed);
        if (rc != MB_OK)
            mb_session_failed(session, rc, "timer", err);
        if (us)
            *us = elapsed;
    }
    kernels->range_pop(session->device);
    if (rc == MB_OK)
        session->snapshot[sequence] = session->prefix[sequence] = whole;
    return rc;
}

/* ---- random fill ---- */

/* About normal, variance 1: a sum of four uniforms. */
static float random_normal(mb_random *random)
{
    uint64_t bits = mb_random_next(random);
    int32_t sum = (int32_t)(bits & 0xffff) + (int32_t)(bits >> 16 & 0xffff) + (int32_t)(bits >> 32 & 0xffff) +
                  (int32_t)(bits >> 48);
    return (float)(sum - 2 * 65535) / 37837.0f;
}

/* One side of the cache, keys or values, of the layers of one kind: with a window or without. */
struct fill {
    mb_session *session;
    bool values, local;
    int32_t tokens;
    size_t row;  /* bytes */
    char *first; /* the first head of the first layer of the kind: the source of all others */
    int32_t own; /* the offset of the head that lies where the source is */
    mb_random *random;
    float *numbers; /* room for the tokens of one head */
    void *stored;   /* and in the type of the cache */
};

/* Keys and values of one head are random; every other head, layer and sequence holds the same rows rotated by an
 * offset of its own. Rows of one head are distinct, and the fill runs at the device's copy speed. */
static int fill_head(const struct fill *f, char *to, int32_t shift, mb_error *err)
{
    mb_session *session = f->session;
    const mb_kernels *kernels = session->kernels;
    size_t head = (size_t)shift * f->row, tail = (size_t)(f->tokens - shift) * f->row;
    int rc = kernels->copy(session->device, to, f->first + head, tail);
    if (rc == MB_OK && head > 0)
        rc = kernels->copy(session->device, to + tail, f->first, head);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "random fill", err);
}

/* The heads of one layer, those of the whole model; this rank's are filled. drawn: offsets so far. */
static int fill_layer(struct fill *f, int32_t layer, int64_t *drawn, mb_error *err)
{
    const mb_session *session = f->session;
    const mb_model_config *whole = &session->model->whole;
    const mb_kv *kv = &session->kv[layer];
    const int32_t heads = mb_layer_sizes_of(whole, layer).kv_heads;
    const int32_t from = f->local ? 0 : mb_slice_kv_head(whole, session->ranks, session->rank);
    int rc = MB_OK;
    for (int32_t i = 0; i < session->batch * heads && rc == MB_OK; i++) {
        const int32_t head = i % heads - from, b = i / heads;
        const int32_t shift = (*drawn)++ > 0 ? (int32_t)mb_random_below(f->random, (uint64_t)f->tokens) : 0;
        if (head < 0 || head >= kv->kv_heads)
            continue;
        char *to = (char *)(f->values ? kv->v : kv->k) +
                   (size_t)(b * kv->kv_heads + head) * (size_t)session->capacity * f->row;
        if (to == f->first)
            f->own = shift;
        else
            rc = fill_head(f, to, shift, err);
    }
    return rc;
}

static int fill_side(struct fill *f, mb_error *err)
{
    mb_session *session = f->session;
    const mb_kernels *kernels = session->kernels;
    const size_t width = mb_type_size(session->type), bytes = (size_t)f->tokens * f->row, n = bytes / width;
    int64_t drawn = 0;
    for (size_t i = 0; i < n; i++)
        f->numbers[i] = random_normal(f->random);
    mb_type_convert(f->stored, session->type, f->numbers, MB_F32, n);
    int rc = kernels->upload(session->device, f->first, f->stored, bytes);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "random fill", err);
    for (int32_t l = 0; l < session->config->layers && rc == MB_OK; l++)
        if (mb_layer_is_local(session->config, l) == f->local)
            rc = fill_layer(f, l, &drawn, err);
    if (rc != MB_OK || f->own == 0)
        return rc;
    /* The source itself is turned last. */
    const size_t head = (size_t)f->own * f->row, tail = bytes - head;
    rc = kernels->upload(session->device, f->first, (const char *)f->stored + head, tail);
    if (rc == MB_OK)
        rc = kernels->upload(session->device, f->first + tail, f->stored, head);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "random fill", err);
}

/* Both sides of the layers of one kind, if there are any. */
static int fill_kind(struct fill *f, mb_error *err)
{
    const mb_model_config *config = f->session->config;
    int32_t layer = 0;
    while (layer < config->layers && mb_layer_is_local(config, layer) != f->local)
        layer++;
    if (layer == config->layers || f->tokens == 0)
        return MB_OK;
    f->row = (size_t)mb_layer_sizes_of(config, layer).head_dim * mb_type_size(f->session->type);
    int rc = MB_OK;
    for (int side = 0; side < 2 && rc == MB_OK; side++) {
        f->values = side > 0;
        f->first = f->values ? f->session->kv[layer].v : f->session->kv[layer].k;
        f->own = 0;
        rc = fill_side(f, err);
    }
    return rc;
}

/* Nobody wrote these keys: prompts of token 0 stand for them, so that the samplers run as usual. */
static int fill_prompts(mb_session *session, int32_t tokens, mb_error *err)
{
    for (int32_t b = 0; b < session->batch; b++) {
        int32_t *ids = calloc(tokens > 0 ? (size_t)tokens : 1, sizeof *ids);
        if (!ids)
            return mb_no_memory(err, "a prompt of %d tokens", tokens);
        free(session->prompt[b]);
        session->prompt[b] = ids;
        session->prompt_count[b] = (size_t)tokens;
        session->snapshot[b] = session->prefix[b] = tokens;
        session->seed[b] = 0;
    }
    return MB_OK;
}

int mb_session_fill_random(mb_session *session, int32_t tokens, uint64_t seed, mb_error *err)
{
    if (mb_team_leads(session->team))
        return mb_team_fill_random(session, tokens, seed, err);
    if (tokens < 0 || tokens > session->capacity - session->block)
        return mb_fail(err, MB_E_INPUT, "%d random tokens leave no room for a block in a cache of %d", tokens,
                       session->capacity);
    const mb_model_config *config = session->config;
    const int32_t widest = config->local.head_dim > config->head_dim ? config->local.head_dim : config->head_dim;
    const size_t n = (size_t)(tokens > 0 ? tokens : 1) * (size_t)widest;
    mb_random random = mb_random_named(seed, "random keys and values");
    struct fill f = {.session = session,
                     .tokens = tokens,
                     .random = &random,
                     .numbers = malloc(n * sizeof(float)),
                     .stored = malloc(n * mb_type_size(session->type))};
    int rc = f.numbers && f.stored ? MB_OK : mb_no_memory(err, "%d random keys", tokens);
    for (int kind = 0; kind < 2 && rc == MB_OK; kind++) {
        f.local = kind > 0;
        rc = fill_kind(&f, err);
    }
    if (rc == MB_OK)
        rc = fill_prompts(session, config->canvas.steps > 0 ? tokens : tokens / session->block * session->block,
                          err);
    if (rc != MB_OK)
        goto out;
    rc = session->kernels->sync(session->device);
    if (rc != MB_OK)
        mb_session_failed(session, rc, "random fill", err);
out:
    free(f.numbers);
    free(f.stored);
    return rc;
}
