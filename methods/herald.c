/*
 * herald - one query chooses for the whole block: the [MASK] in its centre, at the first denoising step. HERALD,
 * arXiv 2606.21633, the block-level selection; the retrieval from host memory that the paper builds on it is not
 * part of this method.
 *
 *   a[h,j] = 1/G * sum over the G query heads of exp(s[c,j] - LSE[c]),  c = the centre row;   I[h] = top-k of a
 *
 * The paper's setting is block diffusion with a KV cache, so only two things are ours: the group of query heads
 * that shares a KV head is averaged, as in MAGE, of which this is the single-query form; and the commit forward is
 * dense by default. Choosing costs one row's logits in place of B; the keys are read once more all the same.
 */
#include "methods/method.h"

typedef struct settings {
    int64_t k;
    int32_t normaliser;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_page_set sets[]; /* [layers] */
} state;

static int open_herald(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    for (int l = shape->first_layer; l < shape->layers; l++)
        host->pages_alloc(host, 1, (int32_t)s->options.k, &s->sets[l]);
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
    out->rows = MB_ROWS_CENTRE;
    out->normaliser = (mb_normaliser)s->options.normaliser;
    out->select_tokens = 0.5 * call->max_prefix; /* keys once more, for one row's logits */
    return 0;
}

static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    mb_page_set *set = &s->sets[call->layer];
    (void)err;
    return s->host->top_k(s->host, call, call->mass, set->capacity, NULL, set);
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads; the paper keeps 5 to 10 % of the cache"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense in all steps, as in MAGE"),
    {"normaliser", MB_OPTION_CHOICE, offsetof(settings, normaliser), 0, 0, 0, "all|prefix", "",
     "keys under the softmax: prefix and block, or prefix only; ranks differ between query heads only"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_herald = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "herald",
    .version = "1.0",
    .summary = "the block's centre [MASK] chooses the keys at the first step",
    .reference = "HERALD, arXiv 2606.21633, block-level selection; single-query MAGE",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_herald,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->sets[0]),
    .step_mode = mb_mode_by_block,
    .select = select_pages,
    .observe = observe,
};
