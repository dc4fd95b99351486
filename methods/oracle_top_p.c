/*
 * oracle_top_p - the exact block-shared top-p, anew at every denoising step: the fewest keys of a KV head that
 * hold p of the prefix mass. Nucleus selection as in Twilight (arXiv 2502.02770), with exact scores.
 *
 *   a[h,j] = mean over rows r of KV head h of exp(s[r,j] - LSE[r]);   I[h] = smallest set with mass >= p * sum a
 *
 * The paper ranks for one query; here one set serves all rows of the block, so the mean mass is what p is a share
 * of; mass on the block does not count, because the block is read anyway. The number of keys follows from
 * the data: it has no token budget, only bounds, and the measured work tells what p costs. An upper bound, not a
 * method: it reads every key twice to choose.
 */
#include "methods/method.h"

typedef struct settings {
    double p;
    int64_t k_min, k_max;
    int32_t rows, normaliser;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    float *scores;   /* [batch][Hkv][stride] */
    mb_page_set set; /* one for all layers: it lives for one layer of one forward */
} state;

static int open_top_p(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->scores = host->scores_alloc(host);
    host->pages_alloc(host, 1, s->options.k_max ? (int32_t)s->options.k_max : shape->capacity, &s->set);
    return 0;
}

/* Every forward chooses. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self, (void)call;
    return MB_MODE_SELECT;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    (void)err;
    int32_t k_max = s->set.capacity;
    int32_t k_min = s->options.k_min < k_max ? (int32_t)s->options.k_min : k_max;
    int rc =
        host->mass(host, call, NULL, (mb_row_set)s->options.rows, (mb_normaliser)s->options.normaliser, s->scores);
    if (rc == 0)
        rc = host->top_p(host, call, s->scores, (float)s->options.p, k_min, k_max, &s->set);
    out->answer = MB_SPARSE;
    out->pages = &s->set;
    out->select_tokens = call->max_prefix;
    return rc;
}

static const mb_option options[] = {
    {"p", MB_OPTION_REAL, offsetof(settings, p), 0.95, 0, 1, NULL, "",
     "share of the prefix mass that the keys must hold"},
    {"k_min", MB_OPTION_INT, offsetof(settings, k_min), 16, 0, 1 << 24, NULL, "tokens", "at least so many keys"},
    {"k_max", MB_OPTION_INT, offsetof(settings, k_max), 0, 0, 1 << 24, NULL, "tokens",
     "at most so many keys; 0 = no bound"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense; 2 as in the methods that it bounds"),
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that the average runs over"},
    {"normaliser", MB_OPTION_CHOICE, offsetof(settings, normaliser), 0, 0, 0, "all|prefix", "",
     "keys under a row's softmax before the average: prefix and block, as recall is measured, or prefix only"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_oracle_top_p = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "oracle_top_p",
    .version = "1.0",
    .summary = "the fewest keys that hold p of the exact mass, at every step",
    .reference = "after Twilight, arXiv 2502.02770, with exact scores",
    .caps = MB_CAP_REFERENCE,
    .options = options,
    .options_size = sizeof(settings),
    .open = open_top_p,
    .state_size = sizeof(state),
    .step_mode = step_mode,
    .select = select_pages,
};
