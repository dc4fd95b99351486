/*
 * sparsed - SparseD: full attention in the early denoising steps, then one pattern of key blocks per head, reused
 * to the end. Wang et al., ICLR 2026, arXiv 2509.24014, and the authors' code, whose counts are given.
 *
 *   dense steps of T:  ceil(skip*T);  the code's own count, int(skip*T)+2, with inclusive = true
 *   at the last of them:  imp[h,v] = mean over rows and over the keys of block v of exp(s[r,j] - LSE[r])
 *   afterwards:  the int(nb*ratio)+1 best of nb key blocks, or k tokens' worth of them
 *
 * The paper's models are fully bidirectional without a cache: one pattern for the whole generation, one for each
 * block of queries. In block diffusion the queries are the current block, so the pattern lives for one block and
 * is shared by the G*B rows of a KV head; the early steps are the first fifth of that block's T steps. An adaptive
 * sampler has no T, so early_steps stands for it. The paper's isolated selection, which keeps generation keys from
 * being crowded out by the prompt, becomes: choose among the prefix, always read the current block. The authors'
 * code counts the generated blocks' keys into the quota, this one does not. A fixed token budget k is the default,
 * so that methods compare at equal cost; k = 0 is the paper's ratio. Scores are sums over a block and not means:
 * the same order, but for a partial last block, which the paper's zero padding dilutes exactly as a sum does.
 */
#include "methods/method.h"

#include <math.h>

enum { MODE_DENSE = 0, MODE_SELECT = 1, MODE_REUSE = 2 };

typedef struct settings {
    int64_t k, early_steps;
    double skip, ratio;
    int32_t page, inclusive, rows;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    int32_t page;        /* tokens of a key block */
    int32_t dense_steps; /* the last of them chooses */
    int64_t request;     /* where the sets in hand were chosen */
    int32_t block;
    float *scores;      /* [batch][Hkv][stride], one entry a key block */
    int32_t *budgets;   /* [batch][Hkv] key blocks when k is 0, else NULL */
    mb_page_set sets[]; /* [layers] */
} state;

static const int32_t page_tokens[] = {16, 32, 64, 128};

static int32_t count_dense_steps(const settings *options, int32_t steps)
{
    if (steps <= 0)
        return (int32_t)options->early_steps;
    double early = options->skip * steps;
    /* The small term undoes the rounding of skip*T, as in 0.2*15 = 3.0000000000000004. */
    int32_t n = options->inclusive ? (int32_t)early + 2 : (int32_t)ceil(early - 1e-9);
    return n < 1 ? 1 : n;
}

static int open_sparsed(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                        mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->page = page_tokens[s->options.page];
    s->dense_steps = count_dense_steps(&s->options, shape->steps);
    s->request = s->block = -1;
    int64_t tokens = s->options.k > 0 ? s->options.k : shape->capacity;
    s->scores = host->scores_alloc(host);
    if (s->options.k == 0)
        s->budgets = host->alloc(host, (size_t)shape->batch * (size_t)shape->kv_heads * sizeof *s->budgets);
    /* Whole blocks, rounded up: a budget of at least the context then covers it. */
    for (int l = shape->first_layer; l < shape->layers; l++)
        host->pages_alloc(host, s->page, (int32_t)((tokens + s->page - 1) / s->page), &s->sets[l]);
    return 0;
}

static int step_mode(void *self, const mb_call *call)
{
    state *s = self;
    if (call->phase == MB_PHASE_COMMIT) {
        /* A block that was finished within the dense steps has no pattern of its own. */
        int chosen = s->request == call->request && s->block == call->block;
        return chosen ? MODE_REUSE : MODE_DENSE;
    }
    if (call->step != s->dense_steps)
        return call->step < s->dense_steps ? MODE_DENSE : MODE_REUSE;
    s->request = call->request;
    s->block = call->block;
    return MODE_SELECT;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    if (call->mode == MODE_DENSE)
        return 0;
    if (call->mode == MODE_REUSE) {
        out->answer = MB_SPARSE;
        out->pages = &s->sets[call->layer];
        return 0;
    }
    out->answer = MB_DENSE;
    out->want = MB_WANT_MASS;
    out->rows = (mb_row_set)s->options.rows;
    out->normaliser = MB_OVER_ALL;
    out->select_tokens = 0.5 * call->max_prefix; /* a second pass over the keys */
    return 0;
}

static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    mb_page_set *set = &s->sets[call->layer];
    (void)err;
    int rc = host->score_pool(host, call, call->mass, s->page, MB_POOL_SUM, s->scores);
    if (rc == 0 && s->budgets)
        rc = host->budget_ratio(host, call, s->page, s->options.ratio, 1, s->budgets);
    return rc == 0 ? host->top_k(host, call, s->scores, set->capacity, s->budgets, set) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 0, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads, rounded up to whole blocks; 0 = by ratio, as in the paper"},
    {"ratio", MB_OPTION_REAL, offsetof(settings, ratio), 0.3, 0, 1, NULL, "",
     "share of the key blocks kept when k is 0; the paper has 0.3 for long and 0.5 for short contexts"},
    {"page", MB_OPTION_CHOICE, offsetof(settings, page), 1, 0, 0, "16|32|64|128", "tokens",
     "tokens of a key block; the paper has 32 for short and 128 for long contexts"},
    {"skip", MB_OPTION_REAL, offsetof(settings, skip), 0.2, 0, 1, NULL, "",
     "share of a block's denoising steps that stay dense"},
    {"inclusive", MB_OPTION_BOOL, offsetof(settings, inclusive), 0, 0, 1, NULL, "",
     "count the dense steps as the authors' code does: int(skip*T)+2"},
    {"early_steps", MB_OPTION_INT, offsetof(settings, early_steps), 2, 1, 1 << 20, NULL, "steps",
     "dense steps when the sampler decides the number of steps; not in the paper"},
    MB_OPTION_DENSE_LAYERS(0, "first layers that stay dense in all steps; the paper has none"),
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that the average runs over; the paper has all"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_sparsed = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "sparsed",
    .version = "1.0",
    .summary = "dense early steps, then one pattern of key blocks for the rest of the block",
    .reference = "Wang et al., SparseD, ICLR 2026, arXiv 2509.24014",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_sparsed,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->sets[0]),
    .step_mode = step_mode,
    .select = select_pages,
    .observe = observe,
};
