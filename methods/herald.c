/*
 * herald - centre-row MAGE, after HERALD: one query, the [MASK] in the block's centre, chooses for the whole block
 * at its exact first step. HERALD, arXiv 2606.21633, has the idea of the one query; it is not this method.
 *
 *   a[h,j] = 1/G * sum over the G query heads of exp(s[c,j] - LSE[c]),  c = the centre row;   I[h] = top-k of a
 *
 * In the paper no step is dense: while block n is denoised, the centre query of a drafted block n+1 chooses that
 * block's keys, they are fetched from host memory meanwhile, and the budget is 1.7 to 1.75 times MAGE's. Here
 * there is no draft and no fetching: the block's own first step is dense and chooses, as in MAGE (arXiv
 * 2602.14209), and the group of query heads that shares a KV head is averaged. To compare with the paper, give
 * it 1.7 times MAGE's k. Choosing costs one row's logits in place of B; the keys are read once more all the same.
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
     "prefix keys that a KV head reads; the paper keeps 5 to 10 % of the cache, 1.7 times MAGE's budget"},
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
    .summary = "centre-row MAGE, after HERALD: the block's centre [MASK] chooses at the first step",
    .reference = "HERALD, arXiv 2606.21633, its one centre query and not its drafting; MAGE, arXiv 2602.14209",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_herald,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->sets[0]),
    .step_mode = mb_mode_by_block,
    .select = select_pages,
    .observe = observe,
};
