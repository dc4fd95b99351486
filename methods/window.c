/*
 * window - attention sinks plus the most recent tokens: a fixed mask that never looks at a query.
 *
 *   I = { 0 .. sink-1 } u { N-recent .. N-1 },   sink + recent = k
 *
 * After StreamingLLM (Xiao et al., arXiv 2309.17453, section 3; sink = 4). Two differences, both because the
 * engine keeps the whole cache: keys keep their original positions (the paper re-numbers positions inside its
 * cache), so this is the "sink + window mask" and not a bounded cache; and the window counts back from the start
 * of the current block, which is itself always read in full. It cannot find what lies outside the window: the
 * floor for every method that chooses.
 */
#include "methods/method.h"

typedef struct settings {
    int64_t k, sink;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    float *scores;   /* [batch][Hkv][stride] */
    mb_page_set set; /* one for all layers: it depends on the prefix length alone */
} state;

static int open_window(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    s->scores = host->scores_alloc(host);
    host->pages_alloc(host, 1, (int32_t)s->options.k, &s->set);
    return 0;
}

/* The prefix grows between blocks only, so the first step of a block makes the index for all of it.
 * Members score 1, all others 0: the k best are exactly the members, or everything while N <= k. The length of
 * the prefix is read on the device, so a replayed graph sees the present one. */
static int make_index(state *s, const mb_call *call)
{
    const mb_host *host = s->host;
    int32_t k = s->set.capacity;
    int32_t sink = s->options.sink < k ? (int32_t)s->options.sink : k;
    size_t bytes = (size_t)s->shape.batch * (size_t)s->shape.kv_heads * (size_t)s->shape.stride * sizeof(float);
    int rc = host->fill(host, call, s->scores, 0, bytes);
    if (rc == 0)
        rc = host->score_edges(host, call, 1, sink, k - sink, 1.0f, s->scores);
    if (rc == 0)
        rc = host->top_k(host, call, s->scores, k, NULL, &s->set);
    return rc;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    out->answer = MB_SPARSE;
    out->pages = &s->set;
    return call->mode == MB_MODE_SELECT && call->layer == s->shape.first_layer ? make_index(s, call) : 0;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads: sinks and recent ones together"},
    {"sink", MB_OPTION_INT, offsetof(settings, sink), 4, 0, 1 << 20, NULL, "tokens",
     "first tokens that are always read; at most k"},
    MB_OPTION_DENSE_LAYERS(
        2, "first layers that stay dense; the paper has 0, 2 equals the methods it is compared with"),
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_window = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "window",
    .version = "1.0",
    .summary = "attention sinks and the most recent tokens: a fixed mask",
    .reference = "Xiao et al., StreamingLLM, arXiv 2309.17453, section 3, as a mask over the full cache",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_window,
    .state_size = sizeof(state),
    .step_mode = mb_mode_by_block,
    .select = select_pages,
};
