/*
 * random - k prefix keys drawn uniformly without replacement: what a budget is worth without any choice.
 *
 *   u[j] = hash(seed, layer, j) in [0, 1);   I = top-k of u
 *
 * No paper. The draw depends on the seed, the layer and the key's position alone, so it is the same for all KV
 * heads, steps and devices, larger budgets contain the smaller ones, and a replayed graph draws what an eager run
 * draws. A new block adds keys to the draw and leaves the numbers of the old ones as they were.
 */
#include "methods/method.h"

typedef struct settings {
    int64_t k, seed;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    float *scores;      /* [batch][Hkv][stride] */
    mb_page_set sets[]; /* [layers] */
} state;

static int open_random(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->scores = host->scores_alloc(host);
    for (int l = shape->first_layer; l < shape->layers; l++)
        host->pages_alloc(host, 1, (int32_t)s->options.k, &s->sets[l]);
    return 0;
}

/* One seed for a layer, far from those of its neighbours (the finaliser of splitmix64). */
static uint64_t layer_seed(const state *s, int32_t layer)
{
    uint64_t x = s->host->seed + 0x9e3779b97f4a7c15u * ((uint64_t)s->options.seed * 1024u + (uint64_t)layer + 1u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    (void)err;
    mb_page_set *set = &s->sets[call->layer];
    int rc = 0;
    if (call->mode == MB_MODE_SELECT) {
        rc = host->score_random(host, call, layer_seed(s, call->layer), s->scores);
        if (rc == 0)
            rc = host->top_k(host, call, s->scores, set->capacity, NULL, set);
    }
    out->answer = MB_SPARSE;
    out->pages = set;
    return rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads"},
    {"seed", MB_OPTION_INT, offsetof(settings, seed), 0, 0, 1 << 30, NULL, "",
     "number of the draw; joined with the seed of the run"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense; 2 equals the methods it is compared with"),
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_random = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "random",
    .version = "1.0",
    .summary = "keys drawn uniformly: the floor that any choice has to beat",
    .reference = "none",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_random,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->sets[0]),
    .step_mode = mb_mode_by_block,
    .select = select_pages,
};
