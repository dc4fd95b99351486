/*
 * head_budget - one budget for all KV heads of a layer, shared out by need: a head whose mass is spread gets more
 * keys than one that looks at few. Feng et al., Ada-KV, arXiv 2407.11550, section 3.3 (algorithm 1), on the scores
 * of MAGE, arXiv 2602.14209 v2, eq. 5.
 *
 *   a[h,j] = mean over rows r of KV head h of exp(s[r,j] - LSE[r]);   the Hkv*k best of {a[h,j]} over all h and j,
 *   with k_min keys guaranteed to every head;   I[h] = those that are of head h
 *
 * The paper allots a cache budget once, after the prompt; here the exact first step of each block allots and
 * chooses, and later steps reuse, so that the only difference to MAGE is who gets the keys. The sum over heads is
 * k*Hkv as in MAGE: equal total cost. The paper's safeguard blends the allotment with the uniform one (alpha =
 * 0.2); a guaranteed k_min does the same job and keeps the sum exact.
 */
#include "methods/method.h"

typedef struct settings {
    int64_t k, k_min;
    int32_t rows, normaliser;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    int32_t k, k_min;
    int32_t *budgets;   /* [batch][Hkv] */
    void *scratch;      /* three score arrays */
    mb_page_set sets[]; /* [layers] */
} state;

static int open_head_budget(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                            mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->k = s->options.k < shape->capacity ? (int32_t)s->options.k : shape->capacity;
    s->k_min = s->options.k_min < s->k ? (int32_t)s->options.k_min : s->k;
    size_t heads = (size_t)shape->batch * (size_t)shape->kv_heads;
    /* One head may take what all the others leave. */
    int64_t most = (int64_t)s->k * shape->kv_heads;
    s->budgets = host->alloc(host, heads * sizeof *s->budgets);
    s->scratch = host->alloc(host, 3 * heads * (size_t)shape->stride * sizeof(float));
    for (int l = shape->first_layer; l < shape->layers; l++)
        host->pages_alloc(host, 1, most < shape->capacity ? (int32_t)most : shape->capacity, &s->sets[l]);
    return 0;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    if (call->mode == MB_MODE_REUSE) {
        out->answer = MB_SPARSE;
        out->pages = &s->sets[call->layer];
        return 0;
    }
    out->answer = MB_DENSE;
    out->want = MB_WANT_MASS;
    out->rows = (mb_row_set)s->options.rows;
    out->normaliser = (mb_normaliser)s->options.normaliser;
    out->select_tokens = 0.5 * call->max_prefix; /* a second pass over the keys */
    return 0;
}

static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    mb_page_set *set = &s->sets[call->layer];
    (void)err;
    int rc = s->host->budget_heads(s->host, call, call->mass, s->k, s->k_min, s->budgets, s->scratch);
    return rc == 0 ? s->host->top_k(s->host, call, call->mass, set->capacity, s->budgets, set) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads, on average over the heads of a layer"},
    {"k_min", MB_OPTION_INT, offsetof(settings, k_min), 32, 0, 1 << 24, NULL, "tokens",
     "keys that every head gets, at most k; the paper's safeguard takes another form"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense in all steps, as in MAGE"),
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows that the average runs over"},
    {"normaliser", MB_OPTION_CHOICE, offsetof(settings, normaliser), 1, 0, 0, "all|prefix", "",
     "keys under the softmax; over the prefix alone every head has mass 1 to spread, over all keys a head that "
     "looks at the block competes with less"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_head_budget = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "head_budget",
    .version = "1.0",
    .summary = "first-step selection with a budget shared among KV heads by need",
    .reference = "Feng et al., Ada-KV, arXiv 2407.11550, algorithm 1, on MAGE's scores",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_head_budget,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->sets[0]),
    .step_mode = mb_mode_by_block,
    .select = select_pages,
    .observe = observe,
};
