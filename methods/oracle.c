/*
 * oracle - the exact block-shared top-k, chosen anew at every denoising step: the upper bound of every method
 * that keeps k prefix keys per KV head.
 *
 *   a[h,j] = mean over rows r of KV head h of exp(s[r,j] - LSE[r]);   I[h] = top-k of a[h,.] (ties: lower index)
 *
 * No paper; the reference that MAGE (arXiv 2602.14209) and its re-implementations measure recall against. The
 * mean runs over all rows of the block and all query heads of the group, because one set of keys serves them all:
 * that is what "block-shared" means in block diffusion. It reads every key twice to choose (once for the
 * log-sum-exp, once for the mass), so it costs more than exact and is never drawn in speed plots.
 *
 * refresh > 1 chooses only every n-th step: the difference to refresh 1 is the error of a stale choice alone.
 */
#include "methods/method.h"

enum { MODE_SELECT = 1, MODE_REUSE = 2 };

typedef struct settings {
    int64_t k, refresh;
    int32_t rows, normaliser;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    float *scores;      /* [batch][Hkv][stride], free again once the layer has chosen */
    mb_page_set sets[]; /* [layers] */
} state;

static int open_oracle(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
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

static int step_mode(void *self, const mb_call *call)
{
    const state *s = self;
    if (call->phase == MB_PHASE_COMMIT)
        return s->options.refresh == 1 ? MODE_SELECT : MODE_REUSE;
    return (call->step - 1) % s->options.refresh == 0 ? MODE_SELECT : MODE_REUSE;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    (void)err;
    mb_page_set *set = &s->sets[call->layer];
    int rc = 0;
    if (call->mode == MODE_SELECT) {
        rc = host->mass(host, call, NULL, (mb_row_set)s->options.rows, (mb_normaliser)s->options.normaliser,
                        s->scores);
        if (rc == 0)
            rc = host->top_k(host, call, s->scores, set->capacity, NULL, set);
        out->select_tokens = call->max_prefix;
    }
    out->answer = MB_SPARSE;
    out->pages = set;
    return rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense; 2 as in the methods that it bounds"),
    {"refresh", MB_OPTION_INT, offsetof(settings, refresh), 1, 1, 1 << 20, NULL, "steps",
     "choose every so many denoising steps; 1 is the oracle proper"},
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that the average runs over; recall is measured against all"},
    {"normaliser", MB_OPTION_CHOICE, offsetof(settings, normaliser), 0, 0, 0, "all|prefix", "",
     "keys that a row's softmax is normalised over: prefix and block, or prefix only"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_oracle = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "oracle",
    .version = "1.0",
    .summary = "exact block-shared top-k of every step: the upper bound of the others",
    .reference = "none; the per-step reference of MAGE's recall, arXiv 2602.14209",
    .caps = MB_CAP_REFERENCE,
    .options = options,
    .options_size = sizeof(settings),
    .open = open_oracle,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->sets[0]),
    .step_mode = step_mode,
    .select = select_pages,
};
