/*
 * h2o - heavy hitters: keys that have collected the most attention so far, and the most recent ones. Zhang et al.,
 * H2O, arXiv 2306.14048, section 4 (algorithm 1).
 *
 *   c[h,j] <- c[h,j] + mean over rows of the probability of key j;   I[h] = top-(k - recent) of c, plus the last
 *   `recent` keys;   what is not in I is evicted for good
 *
 * Differences. The paper adds up over every query since the start of the prompt; a method here sees the queries of
 * the blocks alone, so counting starts with the first block, once per block at its exact first step (a block's
 * rows are denoised many times, counting them all would weigh them by their number of steps), as a mean over the
 * rows and the group of a KV head. The paper evicts one key per generated token; a block commits B at once and the
 * next first step evicts B. Eviction is simulated: an evicted key's count is set to minus infinity, the cache
 * stays whole and the dense first step still sees it. evict = false forgets nothing, an upper bound of the rule.
 */
#include "methods/method.h"

#include <math.h>

enum { MODE_START = 1, MODE_ADD = 2, MODE_REUSE = 3 };

typedef struct settings {
    int64_t k;
    double recent;
    int32_t evict, rows;
} settings;

typedef struct layer_state {
    float *counts; /* [batch][Hkv][stride]: c */
    mb_page_set set;
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    size_t bytes;         /* of a score array */
    float *ranking;       /* [batch][Hkv][stride]: c with the recent keys on top */
    layer_state layers[]; /* [layers] */
} state;

static int open_h2o(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->bytes = (size_t)shape->batch * (size_t)shape->kv_heads * (size_t)shape->stride * sizeof(float);
    s->ranking = host->scores_alloc(host);
    for (int l = shape->first_layer; l < shape->layers; l++) {
        s->layers[l].counts = host->scores_alloc(host);
        host->pages_alloc(host, 1, (int32_t)s->options.k, &s->layers[l].set);
    }
    return 0;
}

static int step_mode(void *self, const mb_call *call)
{
    (void)self;
    if (call->phase != MB_PHASE_FIRST_STEP)
        return MODE_REUSE;
    return call->block == 0 ? MODE_START : MODE_ADD;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    if (call->mode == MODE_REUSE) {
        out->answer = MB_SPARSE;
        out->pages = &s->layers[call->layer].set;
        return 0;
    }
    out->answer = MB_DENSE;
    out->want = MB_WANT_MASS;
    out->rows = (mb_row_set)s->options.rows;
    out->normaliser = MB_OVER_ALL;
    out->select_tokens = 0.5 * call->max_prefix; /* a second pass over the keys */
    return 0;
}

static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    layer_state *layer = &s->layers[call->layer];
    (void)err;
    int32_t k = layer->set.capacity;
    int32_t recent = (int32_t)(s->options.recent * k);
    int rc = call->mode == MODE_START ? host->fill(host, call, layer->counts, 0, s->bytes) : 0;
    if (rc == 0) /* minus infinity plus a mass stays minus infinity: evicted is evicted */
        rc = host->score_axpby(host, call, 1.0f, call->mass, 1.0f, layer->counts);
    if (rc == 0)
        rc = host->copy(host, call, s->ranking, layer->counts, s->bytes);
    if (rc == 0)
        rc = host->score_edges(host, call, 1, 0, recent, 1e30f, s->ranking);
    if (rc == 0)
        rc = host->top_k(host, call, s->ranking, k, NULL, &layer->set);
    return rc == 0 && s->options.evict ? host->score_keep(host, call, &layer->set, -INFINITY, layer->counts) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads: heavy and recent ones together"},
    {"recent", MB_OPTION_REAL, offsetof(settings, recent), 0.5, 0, 1, NULL, "",
     "share of k that goes to the most recent keys; the paper halves"},
    {"evict", MB_OPTION_BOOL, offsetof(settings, evict), 1, 0, 1, NULL, "",
     "keys that were once left out never come back, as in the paper"},
    MB_OPTION_DENSE_LAYERS(
        2, "first layers that stay dense; the paper has 0, 2 equals the methods it is compared with"),
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block whose attention is counted"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_h2o = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "h2o",
    .version = "1.0",
    .summary = "keys with the most attention so far, and the most recent ones",
    .reference = "Zhang et al., H2O, NeurIPS 2023, arXiv 2306.14048, algorithm 1",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_h2o,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .select = select_pages,
    .observe = observe,
};
