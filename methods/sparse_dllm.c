/*
 * sparse_dllm - the selector of Sparse-dLLM: raw logits of the mean query, one set for all heads of a layer. Song
 * et al., arXiv 2508.02558 (AAAI 2026), section 3, and the authors' cache code.
 *
 *   imp[j] = mean over heads of (mean over rows of q).K[j];   max-pooled along the keys, width 3;   keep the best
 *
 * The paper's models are bidirectional: in each block step 0 is dense, step 1 is dense and builds the cache of
 * everything outside the block, prefix and suffix, and the steps after it read the block and the kept part. With a
 * frozen prefix there is no suffix, and the kept part is an index for the rest of the block. Without a softmax one
 * pass over the keys is enough, so choosing costs half of what MAGE's takes. The paper keeps a ratio (0.5); the
 * default is a token budget, so that methods compare at equal cost, and k = 0 is the paper's ratio.
 */
#include "methods/method.h"

enum { MODE_DENSE = 0, MODE_SELECT = 1, MODE_REUSE = 2 };

typedef struct settings {
    int64_t k, dense_steps, kernel;
    double ratio;
    int32_t share, rows;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    int64_t request; /* where the sets in hand were chosen */
    int32_t block;
    float *scores, *pooled; /* [batch][Hkv][stride] */
    int32_t *budgets;       /* [batch][Hkv] tokens when k is 0, else NULL */
    mb_page_set sets[];     /* [layers] */
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

static int open_sparse_dllm(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                            mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->request = s->block = -1;
    s->scores = host->scores_alloc(host);
    s->pooled = host->scores_alloc(host);
    if (s->options.k == 0)
        s->budgets = host->alloc(host, (size_t)shape->batch * (size_t)shape->kv_heads * sizeof *s->budgets);
    for (int l = shape->first_layer; l < shape->layers; l++)
        host->pages_alloc(host, 1, s->options.k > 0 ? (int32_t)s->options.k : shape->capacity, &s->sets[l]);
    return 0;
}

static int step_mode(void *self, const mb_call *call)
{
    state *s = self;
    if (call->phase == MB_PHASE_COMMIT) {
        /* A block that was finished within the dense steps has no set of its own. */
        int chosen = s->request == call->request && s->block == call->block;
        return chosen ? MODE_REUSE : MODE_DENSE;
    }
    if (call->step != s->options.dense_steps)
        return call->step < s->options.dense_steps ? MODE_DENSE : MODE_REUSE;
    s->request = call->request;
    s->block = call->block;
    return MODE_SELECT;
}

/* Logits need no normaliser, so the choice is made before the dense attention of the step. */
static int choose(state *s, const mb_call *call, mb_page_set *set)
{
    const mb_host *host = s->host;
    int rc = host->key_scores(host, call, NULL, 0, (mb_row_set)s->options.rows, s->scores);
    if (rc == 0 && s->options.share)
        rc = host->score_head_mean(host, call, s->scores);
    if (rc == 0)
        rc = host->score_smooth(host, call, s->scores, (int32_t)s->options.kernel, MB_POOL_MAX, s->pooled);
    if (rc == 0 && s->budgets)
        rc = host->budget_ratio(host, call, 1, s->options.ratio, 0, s->budgets);
    return rc == 0 ? host->top_k(host, call, s->pooled, set->capacity, s->budgets, set) : rc;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    if (call->mode == MODE_DENSE)
        return 0;
    if (call->mode == MODE_SELECT) {
        out->select_tokens = 0.5 * call->max_prefix; /* one pass over the keys */
        return choose(s, call, &s->sets[call->layer]);
    }
    out->answer = MB_SPARSE;
    out->pages = &s->sets[call->layer];
    return 0;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 0, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads; 0 = by ratio, as in the paper"},
    {"ratio", MB_OPTION_REAL, offsetof(settings, ratio), 0.5, 0, 1, NULL, "",
     "share of the prefix that is kept when k is 0"},
    {"kernel", MB_OPTION_INT, offsetof(settings, kernel), 3, 1, 1023, NULL, "tokens",
     "width of the max-pool along the keys, odd"},
    {"share", MB_OPTION_BOOL, offsetof(settings, share), 1, 0, 1, NULL, "",
     "one set for all KV heads of a layer, as in the paper"},
    {"dense_steps", MB_OPTION_INT, offsetof(settings, dense_steps), 2, 1, 1 << 20, NULL, "steps",
     "first steps of a block that are dense; the last of them chooses"},
    MB_OPTION_DENSE_LAYERS(0, "first layers that stay dense in all steps; the paper has none"),
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block behind the mean query; the paper has all"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_sparse_dllm = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "sparse_dllm",
    .version = "1.0",
    .summary = "logits of the mean query, max-pooled, choose one set for all heads",
    .reference = "Song et al., Sparse-dLLM, AAAI 2026, arXiv 2508.02558, section 3",
    .options = options,
    .options_size = sizeof(settings),
    .supports = supports,
    .open = open_sparse_dllm,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->sets[0]),
    .step_mode = step_mode,
    .select = select_pages,
};
