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

#include <stdlib.h>

enum { MODE_DENSE = 0, MODE_SELECT = 1, MODE_REUSE = 2 };

typedef struct settings {
    int64_t k, dense_layers, refresh;
    int32_t rows, normaliser, commit;
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
    state *s = calloc(1, sizeof *s + (size_t)shape->layers * sizeof s->sets[0]);
    if (!s)
        return mb_method_fail(err, "out of memory");
    *self = s;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    int32_t capacity = s->options.k < shape->capacity ? (int32_t)s->options.k : shape->capacity;
    int rc = (s->scores = host->scores_alloc(host)) ? 0 : -1;
    for (int l = 0; l < shape->layers && rc == 0; l++)
        rc = host->pages_alloc(host, 1, capacity, &s->sets[l]);
    if (rc != 0)
        mb_method_fail(err, "no device memory for the index of %d layers", shape->layers);
    return rc;
}

static int step_mode(void *self, const mb_call *call)
{
    const state *s = self;
    if (call->phase == MB_PHASE_COMMIT)
        return s->options.commit == 0 ? MODE_DENSE : s->options.refresh == 1 ? MODE_SELECT : MODE_REUSE;
    return (call->step - 1) % s->options.refresh == 0 ? MODE_SELECT : MODE_REUSE;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    (void)err;
    if (call->mode == MODE_DENSE || call->layer < s->options.dense_layers)
        return 0;
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
    {"dense_layers", MB_OPTION_INT, offsetof(settings, dense_layers), 2, 0, 1024, NULL, "layers",
     "first layers that stay dense; 2 as in the methods that it bounds"},
    {"refresh", MB_OPTION_INT, offsetof(settings, refresh), 1, 1, 1 << 20, NULL, "steps",
     "choose every so many denoising steps; 1 is the oracle proper"},
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that the average runs over; recall is measured against all"},
    {"normaliser", MB_OPTION_CHOICE, offsetof(settings, normaliser), 0, 0, 0, "all|prefix", "",
     "keys that a row's softmax is normalised over: prefix and block, or prefix only"},
    {"commit", MB_OPTION_CHOICE, offsetof(settings, commit), 0, 0, 0, "dense|sparse", "",
     "attention of the forward that stores a finished block; dense keeps the stored keys exact"},
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
    .close = free,
    .step_mode = step_mode,
    .select = select_pages,
};
