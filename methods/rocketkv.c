/*
 * rocketkv - the prompt is thinned out once, then every step ranks what is left by few channels of pages. Behnam
 * et al., RocketKV, ICML 2025, arXiv 2502.14051, section 3. Read: NVlabs/RocketKV 63637c8,
 * pipeline/inf_stream_llm/inf_llm/attention/rocket.py and infllm_utils.py.
 *
 *   stage 1, once a request (SnapKV with a wide pool): kept = the last `window` prompt tokens and the
 *   (keep - window) with the largest probability, maximum over `kernel` neighbours; generated tokens are all kept
 *   stage 2, every step, on pages of the keys: C = the channels with the largest sum over the rows of |q_c|;
 *   s[page] = sum over c in C of (mean q)_c * (M_c if it is positive, else m_c); I = the k best kept keys, page by
 * page
 *
 * keep, page and channels 0 (default) follow the authors' rule for a cache of N tokens (here the largest prefix
 * that the run has room for) and a budget of 2k, half of which is read and half pays for ranking: c = N / 2k, keep
 * = N / c^x with x = min(0.2 + 0.06 log2 c, 0.8); c2 = keep / 2k; page = ceil(sqrt(c2)), channels = floor(D * page
 * / c2). Differences. A method sees no prompt queries: the window's rows are those of the first block at its
 * first, exact step, as in methods/snapkv.c. Nothing is evicted: the cache stays whole and the index hides what
 * would be gone, so a page is `page` neighbours in the prompt, those that are gone included, not neighbours among
 * the kept. The rows are averaged before the ranking, where the authors average the heads' softmax of it: the same
 * for one row. The paper has no dense layers; 2 equals the methods that it is compared with.
 */
#include "methods/method.h"

#include <math.h>

enum { MODE_OBSERVE = 1, MODE_SELECT = 2 };

typedef struct settings {
    int64_t k, keep, page, channels, window, kernel;
} settings;

typedef struct layer_state {
    void *bounds; /* [batch][Hkv][pages][max D | min D] of the KV type; NULL where a page is a token */
    float *gone;  /* [batch][Hkv][stride]: -INFINITY where stage 1 dropped the key, else 0 */
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options; /* without zeros */
    mb_shape shape;
    void *picked;          /* queries with few channels */
    float *pages, *scores; /* [batch][Hkv][stride] */
    mb_page_set kept, set; /* used at once: one for all layers */
    layer_state layers[];  /* [layers] */
} state;

static int64_t clamp(double x, int64_t least, int64_t most)
{
    return x < (double)least ? least : x > (double)most ? most : (int64_t)x;
}

/* The authors' rule for what is 0. */
static void fill_in(settings *o, const mb_shape *shape)
{
    double n = shape->capacity, budget = 2.0 * (double)o->k, c = fmax(1.0, n / budget);
    if (o->keep == 0)
        o->keep = clamp(n / pow(c, fmin(0.2 + 0.06 * log2(c), 0.8)), 1, shape->capacity);
    o->keep = o->keep > o->k ? o->keep : o->k;
    double c2 = fmax(1.0, (double)o->keep / budget);
    if (o->page == 0)
        o->page = (int64_t)(ceil(sqrt(c2)) <= c2 ? ceil(sqrt(c2)) : 1);
    if (o->channels == 0)
        o->channels = clamp(shape->head_dim * (double)o->page / c2, 1, shape->head_dim);
    o->channels = o->channels < shape->head_dim ? o->channels : shape->head_dim;
    o->window = o->window < o->keep ? o->window : o->keep;
}

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

static int open_rocket(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->shape = *shape;
    s->options = *(const settings *)options;
    fill_in(&s->options, shape);
    s->picked = host->alloc(host, (size_t)shape->batch * (size_t)shape->block * (size_t)shape->query_heads *
                                      (size_t)shape->head_dim * (size_t)shape->element_size);
    s->pages = host->scores_alloc(host);
    s->scores = host->scores_alloc(host);
    host->pages_alloc(host, 1, (int32_t)s->options.keep, &s->kept);
    host->pages_alloc(host, 1, (int32_t)s->options.k, &s->set);
    for (int l = shape->first_layer; l < shape->layers; l++) {
        s->layers[l].bounds = s->options.page > 1 ? host->bounds_alloc(host, (int32_t)s->options.page) : NULL;
        s->layers[l].gone = host->scores_alloc(host);
    }
    return 0;
}

/* The first step of the request is exact and thins out the prompt; all others rank. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self;
    return call->phase == MB_PHASE_FIRST_STEP && call->block == 0 ? MODE_OBSERVE : MODE_SELECT;
}

static int kv_added(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    void *bounds = s->layers[call->layer].bounds;
    return bounds ? s->host->page_bounds(s->host, call, (int32_t)s->options.page, call->phase == MB_PHASE_PREFILL,
                                         bounds)
                  : 0;
}

/* Scores of keys by pages and few channels; the mean query of query_pick()'s rows keeps their channels. */
static int estimate(state *s, const mb_call *call, const layer_state *layer)
{
    const mb_host *host = s->host;
    int32_t page = (int32_t)s->options.page;
    mb_call few = *call;
    few.q = s->picked;
    int rc = host->query_pick(host, call, NULL, (int32_t)s->options.channels, 0, s->picked);
    if (rc == 0 && !layer->bounds)
        return host->key_scores(host, &few, NULL, 0, MB_ROWS_ALL, s->scores);
    if (rc == 0)
        rc = host->page_scores(host, &few, page, layer->bounds, MB_MERGE_QUERY, MB_ROWS_ALL, s->pages);
    return rc == 0 ? host->score_spread(host, call, page, s->pages, s->scores) : rc;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    const layer_state *layer = &s->layers[call->layer];
    (void)err;
    if (call->mode == MODE_OBSERVE) {
        out->answer = MB_DENSE;
        out->want = MB_WANT_MASS;
        out->rows = MB_ROWS_ALL;
        out->normaliser = MB_OVER_ALL;
        out->select_tokens = 0.5 * call->max_prefix; /* a second pass over the keys */
        return 0;
    }
    out->answer = MB_SPARSE;
    out->pages = &s->set;
    /* One of a page's two vectors, in few channels. */
    out->select_tokens =
        0.5 * call->max_prefix / (double)s->options.page * (double)s->options.channels / s->shape.head_dim;
    int rc = estimate(s, call, layer);
    if (rc == 0)
        rc = host->score_axpby(host, call, 1.0f, layer->gone, 1.0f, s->scores);
    return rc == 0 ? host->top_k(host, call, s->scores, s->set.capacity, NULL, &s->set) : rc;
}

static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    layer_state *layer = &s->layers[call->layer];
    (void)err;
    int32_t window = (int32_t)s->options.window;
    size_t bytes = (size_t)s->shape.batch * (size_t)s->shape.kv_heads * (size_t)s->shape.stride * sizeof(float);
    int rc = host->copy(host, call, s->pages, call->mass, bytes);
    if (rc == 0) /* the window is cut off before pooling: its mass does not lift its neighbours */
        rc = host->score_edges(host, call, 1, 0, window, 0.0f, s->pages);
    if (rc == 0)
        rc = host->score_smooth(host, call, s->pages, (int32_t)s->options.kernel, MB_POOL_MAX, s->scores);
    if (rc == 0)
        rc = host->score_edges(host, call, 1, 0, window, 1e30f, s->scores);
    if (rc == 0)
        rc = host->top_k(host, call, s->scores, s->kept.capacity, NULL, &s->kept);
    if (rc == 0) /* keys of later blocks stay 0 */
        rc = host->fill(host, call, layer->gone, 0, bytes);
    return rc == 0 ? host->score_keep(host, call, &s->kept, -INFINITY, layer->gone) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads; the authors' token budget is 2k: half is read, half pays for ranking"},
    {"keep", MB_OPTION_INT, offsetof(settings, keep), 0, 0, 1 << 24, NULL, "tokens",
     "prompt tokens that are left after stage 1, at least k; 0 = by the authors' rule, from the largest prefix "
     "and k"},
    {"page", MB_OPTION_INT, offsetof(settings, page), 0, 0, 128, NULL, "tokens",
     "neighbouring keys that are ranked as one; 0 = by the authors' rule"},
    {"channels", MB_OPTION_INT, offsetof(settings, channels), 0, 0, 256, NULL, "",
     "channels of a query that rank; 0 = by the authors' rule"},
    {"window", MB_OPTION_INT, offsetof(settings, window), 32, 0, 1 << 20, NULL, "tokens",
     "last prompt tokens that are always kept"},
    {"kernel", MB_OPTION_INT, offsetof(settings, kernel), 63, 1, 1023, NULL, "tokens", "width of the pool, odd"},
    MB_OPTION_DENSE_LAYERS(
        2, "first layers that stay dense; the paper has 0, 2 equals the methods it is compared with"),
    MB_OPTION_COMMIT,
    {0}};

MB_METHOD_DEFINE = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "rocketkv",
    .version = "1.0",
    .summary = "the prompt is thinned out once, then few channels of pages rank what is left at every step",
    .reference = "Behnam et al., RocketKV, ICML 2025, arXiv 2502.14051, section 3",
    .options = options,
    .options_size = sizeof(settings),
    .supports = supports,
    .open = open_rocket,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .kv_added = kv_added,
    .select = select_pages,
    .observe = observe,
};
