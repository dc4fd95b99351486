/*
 * quest - query-aware page sparsity: bounds on each page's keys tell which pages can matter to a query, without
 * reading the keys. Tang et al., ICML 2024, arXiv 2406.10774, section 3.
 *
 *   per page p, channel c:  M[c] = max_{j in p} K[j,c],  m[c] = min_{j in p} K[j,c]   (keys after RoPE)
 *   ub[r,p] = sum_c max(q[r,c] M[c], q[r,c] m[c])  >=  q[r].K[j] for every j in p;    pages = top-(k/page) of ub
 *
 * What differs in block diffusion: the G*B rows of a KV head share one set of pages, so their bounds are merged;
 * the paper has one row and no rule for it. `mean` (mean of the rows' bounds) is the faithful default,
 * `mean_query` (bound of the mean query) is the cheapest and never larger, `softmax` normalises each row over the
 * pages first, which is nearest to an attention mass. The committed prefix is frozen, so a page's bounds are
 * computed once, after the prefill and after each commit, and estimates repeat at every denoising step (refresh =
 * 1), the form that block-diffusion papers compare with. The paper always keeps the page that is being filled;
 * here that is the block itself, and the last prefix page is kept when it can be partial. A budget that is no
 * multiple of the page is rounded up; the authors' code rounds down, to 3 pages at least (rounding = official).
 */
#include "methods/method.h"

enum { MODE_SELECT = 1, MODE_REUSE = 2 };
enum { KEEP_AUTO = 0, KEEP_ALWAYS = 1 };
enum { ROUND_UP = 0, ROUND_OFFICIAL = 1 };

typedef struct settings {
    int64_t k, refresh;
    int32_t page, merge, rows, keep_last, rounding;
} settings;

typedef struct layer_state {
    void *bounds; /* [batch][Hkv][pages][max D | min D] of the KV type */
    mb_page_set set;
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    int32_t page;         /* tokens */
    int32_t keep_last;    /* 1: the last page is always read */
    float *scores;        /* [batch][Hkv][stride], one entry a page */
    layer_state layers[]; /* [layers] */
} state;

static const int32_t page_tokens[] = {16, 32, 64, 128};

static int open_quest(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->page = page_tokens[s->options.page];
    /* The prefix is a whole number of blocks: with blocks of whole pages its last page is always full. */
    s->keep_last =
        s->options.keep_last == KEEP_ALWAYS || (s->options.keep_last == KEEP_AUTO && shape->block % s->page != 0);
    s->scores = host->scores_alloc(host);
    /* Rounded up, a budget of at least the context covers it. */
    int64_t pages = (s->options.k + s->page - 1) / s->page;
    if (s->options.rounding == ROUND_OFFICIAL)
        pages = s->options.k / s->page > 3 ? s->options.k / s->page : 3;
    for (int l = shape->first_layer; l < shape->layers; l++) {
        s->layers[l].bounds = host->bounds_alloc(host, s->page);
        host->pages_alloc(host, s->page, (int32_t)pages, &s->layers[l].set);
    }
    return 0;
}

static int step_mode(void *self, const mb_call *call)
{
    const state *s = self;
    int64_t n = s->options.refresh;
    if (call->phase == MB_PHASE_COMMIT)
        return n == 1 ? MODE_SELECT : MODE_REUSE;
    if (call->phase == MB_PHASE_FIRST_STEP)
        return MODE_SELECT;
    return n > 0 && (call->step - 1) % n == 0 ? MODE_SELECT : MODE_REUSE;
}

static int kv_added(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    void *bounds = s->layers[call->layer].bounds;
    return bounds ? s->host->page_bounds(s->host, call, s->page, call->phase == MB_PHASE_PREFILL, bounds) : 0;
}

static int estimate(state *s, const mb_call *call, layer_state *layer)
{
    const mb_host *host = s->host;
    int rc = host->page_scores(host, call, s->page, layer->bounds, (mb_merge)s->options.merge,
                               (mb_row_set)s->options.rows, s->scores);
    if (rc == 0 && s->keep_last)
        rc = host->score_edges(host, call, s->page, 0, 1, 1e30f, s->scores);
    return rc == 0 ? host->top_k(host, call, s->scores, layer->set.capacity, NULL, &layer->set) : rc;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    layer_state *layer = &s->layers[call->layer];
    out->answer = MB_SPARSE;
    out->pages = &layer->set;
    if (call->mode != MODE_SELECT)
        return 0;
    /* A page's two vectors weigh as much as the key and the value of one token. */
    out->select_tokens = (double)call->max_prefix / s->page;
    return estimate(s, call, layer);
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads, in whole pages"},
    {"page", MB_OPTION_CHOICE, offsetof(settings, page), 0, 0, 0, "16|32|64|128", "tokens", "tokens of a page"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense in all steps"),
    {"refresh", MB_OPTION_INT, offsetof(settings, refresh), 1, 0, 1 << 20, NULL, "steps",
     "estimate anew every so many denoising steps; 1 = each, as in the paper; 0 = only at the first"},
    {"merge", MB_OPTION_CHOICE, offsetof(settings, merge), 0, 0, 0, "mean|max|mean_query|softmax", "",
     "how the bounds of a block's rows become one score a page; the paper has one row and leaves it open"},
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that are merged; open in the paper"},
    {"keep_last", MB_OPTION_CHOICE, offsetof(settings, keep_last), 0, 0, 0, "auto|always|never", "",
     "always read the last prefix page, within the budget; auto: when blocks do not fill whole pages"},
    MB_OPTION_COMMIT,
    {"rounding", MB_OPTION_CHOICE, offsetof(settings, rounding), 0, 0, 0, "up|official", "",
     "k to whole pages: up, or as in the authors' code down to max(3, k / page)"},
    {0}};

const mb_method mb_method_quest = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "quest",
    .version = "1.0",
    .summary = "upper bounds on pages of keys choose the pages, anew at every step",
    .reference = "Tang et al., Quest, ICML 2024, arXiv 2406.10774, section 3",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_quest,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .kv_added = kv_added,
    .select = select_pages,
};
