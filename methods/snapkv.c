/*
 * snapkv - one choice for a whole request: what the end of the prompt attends to is what the answer will need.
 * Li et al., SnapKV, arXiv 2404.14469, section 4.
 *
 *   imp[h,j] = sum over the window's rows of the probability of key j;   smoothed by a pool of width `kernel`
 *   I[h] = top-(k - window) of imp, plus the last `window` prompt tokens; all generated tokens are kept
 *
 * Differences. The observation window of the paper is the last w prompt queries; a method here sees no prompt
 * queries, so the window's rows are those of the first block at its first step, which stand where the paper's
 * answer starts, all [MASK] and full of the question. The last prompt tokens are kept all the
 * same; as in the authors' code they are cut off before the pool, and zeros stand in front of the first key. The
 * paper's code scores query heads on repeated keys; one set per KV head averages its group. The paper evicts; here
 * the cache stays whole and the index hides what would be gone. Generated tokens count against k, so that the
 * budget stays the budget: they come first, oldest first, and the prompt gets the rest.
 */
#include "methods/method.h"

enum { MODE_OBSERVE = 1, MODE_SELECT = 2, MODE_REUSE = 3 };

typedef struct settings {
    int64_t k, window, kernel;
    int32_t pool;
} settings;

typedef struct layer_state {
    float *scores; /* [batch][Hkv][stride]: frozen over the prompt, huge behind it */
    mb_page_set set;
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    float *mass;          /* [batch][Hkv][stride]: without the last prompt tokens */
    layer_state layers[]; /* [layers] */
} state;

static int supports(const mb_shape *shape, const void *options, mb_error *why)
{
    const settings *o = options;
    (void)shape;
    if (o->kernel % 2 == 0) {
        mb_method_fail(why, "kernel must be odd, not %lld", (long long)o->kernel);
        return 1;
    }
    return 0;
}

static int open_snapkv(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    s->mass = host->scores_alloc(host);
    for (int l = shape->first_layer; l < shape->layers; l++) {
        s->layers[l].scores = host->scores_alloc(host);
        host->pages_alloc(host, 1, (int32_t)s->options.k, &s->layers[l].set);
    }
    return 0;
}

/* The first step of the request observes; the first step of a later block lets its new tokens in. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self;
    if (call->phase != MB_PHASE_FIRST_STEP)
        return MODE_REUSE;
    return call->block == 0 ? MODE_OBSERVE : MODE_SELECT;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    layer_state *layer = &s->layers[call->layer];
    if (call->mode == MODE_OBSERVE) {
        out->answer = MB_DENSE;
        out->want = MB_WANT_MASS;
        out->rows = MB_ROWS_ALL;
        out->normaliser = MB_OVER_ALL;
        out->select_tokens = 0.5 * call->max_prefix; /* a second pass over the keys */
        return 0;
    }
    out->answer = MB_SPARSE;
    out->pages = &layer->set;
    if (call->mode != MODE_SELECT)
        return 0;
    return s->host->top_k(s->host, call, layer->scores, layer->set.capacity, NULL, &layer->set);
}

static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    layer_state *layer = &s->layers[call->layer];
    (void)err;
    int32_t k = layer->set.capacity;
    mb_pooling smooth = s->options.pool ? MB_POOL_MAX : MB_POOL_PADDED;
    int32_t window = s->options.window < k ? (int32_t)s->options.window : k;
    size_t bytes = (size_t)s->shape.batch * (size_t)s->shape.kv_heads * (size_t)s->shape.stride * sizeof(float);
    /* Byte 0x7f four times is 3.4e38: tokens that are generated later are above every score. */
    int rc = host->fill(host, call, layer->scores, 0x7f, bytes);
    if (rc == 0)
        rc = host->copy(host, call, s->mass, call->mass, bytes);
    if (rc == 0) /* the window is cut off before pooling: its mass does not lift its neighbours */
        rc = host->score_edges(host, call, 1, 0, window, 0.0f, s->mass);
    if (rc == 0)
        rc = host->score_smooth(host, call, s->mass, (int32_t)s->options.kernel, smooth, layer->scores);
    if (rc == 0)
        rc = host->score_edges(host, call, 1, 0, window, 1e30f, layer->scores);
    return rc == 0 ? host->top_k(host, call, layer->scores, k, NULL, &layer->set) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads, generated ones included; the paper has 1024 to 4096 for the prompt"},
    {"window", MB_OPTION_INT, offsetof(settings, window), 32, 0, 1 << 20, NULL, "tokens",
     "last prompt tokens that are always kept"},
    {"kernel", MB_OPTION_INT, offsetof(settings, kernel), 5, 1, 1023, NULL, "tokens", "width of the pool, odd"},
    {"pool", MB_OPTION_CHOICE, offsetof(settings, pool), 0, 0, 0, "mean|max", "",
     "how scores are pooled along the keys; the paper's code has both"},
    MB_OPTION_DENSE_LAYERS(
        2, "first layers that stay dense; the paper has 0, 2 equals the methods it is compared with"),
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_snapkv = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "snapkv",
    .version = "1.2",
    .summary = "the first step of a request chooses the prompt's keys for all of it",
    .reference = "Li et al., SnapKV, arXiv 2404.14469, section 4",
    .options = options,
    .options_size = sizeof(settings),
    .supports = supports,
    .open = open_snapkv,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .select = select_pages,
    .observe = observe,
};
