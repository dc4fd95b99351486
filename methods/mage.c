/*
 * mage - [MASK]-guided sparse attention: the first denoising step of a block, exact, already shows which prefix
 * keys all later steps need. Kwon et al., arXiv 2602.14209.
 *
 * v2 (default), "eq. 5", for KV head h with the G*B rows that share it:
 *   a[h,j] = 1/(G*B) * sum_r exp(s[r,j] - LSE[r]),   I[l,h] = top-k_j a[h,j]   at step 1, layers >= 2
 *   steps 2..T read I[l,h] and the current block, renormalised over that set; I is dropped with the block.
 * v1 (rule = votes, budget = layer_adaptive), its algorithm 1: every row names its top-k keys; U_h is the union,
 * the ranking is by votes; a layer's budget follows from how diffuse it is:
 *   s_l = max_h |U_h| * (1 - ln p_h),   K_l = max(k_min, floor(s_l / sum_l s_l * k * layers)),
 * p_h the mass that U_h holds. The sum needs all layers, so the budgets are made after the last layer of step 1,
 * on the device. If K_l exceeds |U_h|, the most recent keys fill the rest.
 *
 * What the paper leaves open here is an option: rows (step 1 of a block with a known first token or the tail of
 * the prompt is not all [MASK]), the softmax's normaliser, and the attention of the commit forward. The
 * paper names no order among keys of equal votes. Here votes + mass/4 in fp32 ranks them: the larger mass is
 * first, but masses closer than fp32 resolves beside the votes (1e-4 at 256 votes) tie and go by the lower index.
 * refresh and refresh_at are not in the paper: a safety net for samplers that re-mask, and a way to measure
 * staleness. A list of early steps is the schedule of PulseCol, arXiv 2605.20813, whose columns are shared by a
 * group of queries as a set here is by the rows of a KV head.
 */
#include "methods/method.h"

#include <stdbool.h>

enum { MODE_SELECT = 1, MODE_REUSE = 2 };
enum { RULE_MASS = 0, RULE_VOTES = 1 };
enum { BUDGET_FIXED = 0, BUDGET_LAYER_ADAPTIVE = 1 };

typedef struct settings {
    int64_t k, refresh, k_min, k_max;
    mb_option_list refresh_at;
    int32_t rows, normaliser, rule, budget;
} settings;

typedef struct layer_state {
    mb_page_set set;
    float *scores; /* votes or a copy of the mass, kept until the budgets are known; NULL when not needed */
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    int32_t k_max;        /* entries that a layer's set can hold */
    float *stats;         /* [sparse layers][batch][Hkv][2]: union size, coverage */
    int32_t *budgets;     /* [sparse layers][batch][Hkv] */
    layer_state layers[]; /* [layers] */
} state;

static int32_t smaller(int64_t a, int64_t b)
{
    return (int32_t)(a < b ? a : b);
}

static void alloc_all(state *s)
{
    const mb_host *host = s->host;
    bool adaptive = s->options.budget == BUDGET_LAYER_ADAPTIVE, votes = s->options.rule == RULE_VOTES;
    size_t sparse = (size_t)(s->shape.layers - s->shape.first_layer);
    size_t heads = (size_t)s->shape.batch * (size_t)s->shape.kv_heads;
    if (adaptive || votes)
        s->stats = host->alloc(host, (sparse + 1) * heads * 2 * sizeof *s->stats);
    if (adaptive)
        s->budgets = host->alloc(host, (sparse + 1) * heads * sizeof *s->budgets);
    /* With fixed budgets a layer has chosen before the next one starts: they share one array. */
    float *shared = votes && !adaptive ? host->scores_alloc(host) : NULL;
    for (int l = s->shape.first_layer; l < s->shape.layers; l++) {
        s->layers[l].scores = adaptive ? host->scores_alloc(host) : shared;
        host->pages_alloc(host, 1, s->k_max, &s->layers[l].set);
    }
}

static int open_mage(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    s->k_max = smaller(s->options.k, shape->capacity);
    if (s->options.budget == BUDGET_LAYER_ADAPTIVE) {
        /* One diffuse layer may take what all the others leave. */
        int64_t most = s->options.k_max ? s->options.k_max : s->options.k * shape->layers;
        s->k_max = smaller(most > s->options.k ? most : s->options.k, shape->capacity);
    }
    alloc_all(s);
    return 0;
}

static int step_mode(void *self, const mb_call *call)
{
    const state *s = self;
    if (call->phase == MB_PHASE_COMMIT)
        return MODE_REUSE;
    if (call->phase == MB_PHASE_FIRST_STEP)
        return MODE_SELECT;
    for (int32_t i = 0; i < s->options.refresh_at.count; i++)
        if (call->step == s->options.refresh_at.values[i])
            return MODE_SELECT;
    return s->options.refresh > 0 && (call->step - 1) % s->options.refresh == 0 ? MODE_SELECT : MODE_REUSE;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    if (call->mode == MODE_REUSE) {
        out->answer = MB_SPARSE;
        out->pages = &s->layers[call->layer].set;
        return 0;
    }
    out->answer = MB_DENSE;
    out->want = MB_WANT_LSE | MB_WANT_MASS;
    out->rows = (mb_row_set)s->options.rows;
    out->normaliser = (mb_normaliser)s->options.normaliser;
    /* The column sums need the final log-sum-exp, hence a second pass over the keys; votes need a third. */
    bool votes = s->options.rule == RULE_VOTES || s->options.budget == BUDGET_LAYER_ADAPTIVE;
    out->select_tokens = (votes ? 1.0 : 0.5) * call->max_prefix;
    return 0;
}

/* v1: scores of one layer, ranked votes first, then mass; keys that nobody named by recency below every vote. */
static int score_votes(state *s, const mb_call *call, size_t heads, size_t at)
{
    const mb_host *host = s->host;
    float *scores = s->layers[call->layer].scores;
    int rc = host->votes(host, call, call->lse, smaller(s->options.k, s->shape.capacity), scores,
                         s->stats + at * heads * 2);
    if (rc != 0)
        return rc;
    if (s->options.rule == RULE_MASS)
        return host->copy(host, call, scores, call->mass, heads * (size_t)s->shape.stride * sizeof *scores);
    rc = host->score_axpby(host, call, 0.25f, call->mass, 1.0f, scores);
    return rc == 0 ? host->score_recent(host, call, 1.0f, 0.5f, scores) : rc;
}

static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    (void)err;
    int32_t first = s->shape.first_layer;
    size_t heads = (size_t)s->shape.batch * (size_t)s->shape.kv_heads;
    layer_state *layer = &s->layers[call->layer];
    int rc = 0;
    if (layer->scores)
        rc = score_votes(s, call, heads, (size_t)(call->layer - first));
    if (s->options.budget == BUDGET_FIXED)
        return rc == 0 ? host->top_k(host, call, layer->scores ? layer->scores : call->mass, s->k_max, NULL,
                                     &layer->set)
                       : rc;
    if (call->layer < s->shape.layers - 1)
        return rc;
    if (rc == 0)
        rc = host->budget_layers(host, call, s->stats, s->shape.layers - first,
                                 smaller(s->options.k, s->shape.capacity), smaller(s->options.k_min, s->k_max),
                                 s->k_max, s->budgets);
    for (int l = first; l < s->shape.layers && rc == 0; l++)
        rc = host->top_k(host, call, s->layers[l].scores, s->k_max, s->budgets + (size_t)(l - first) * heads,
                         &s->layers[l].set);
    return rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads; the mean over layers when the budget is layer_adaptive"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense in all steps"),
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows that the average runs over; the paper's first step is all [MASK], so it does not say"},
    {"normaliser", MB_OPTION_CHOICE, offsetof(settings, normaliser), 0, 0, 0, "all|prefix", "",
     "keys under the softmax: prefix and block (the exact attention's own), or prefix only"},
    {"rule", MB_OPTION_CHOICE, offsetof(settings, rule), 0, 0, 0, "mass|votes", "",
     "ranking: block-average mass (v2), or votes of the rows' own top-k (v1)"},
    {"budget", MB_OPTION_CHOICE, offsetof(settings, budget), 0, 0, 0, "fixed|layer_adaptive", "",
     "k for every layer (v2), or shared among layers by how diffuse they are (v1)"},
    {"k_min", MB_OPTION_INT, offsetof(settings, k_min), 64, 1, 1 << 24, NULL, "tokens",
     "least budget of a layer when layer_adaptive; the paper's value is not known"},
    {"k_max", MB_OPTION_INT, offsetof(settings, k_max), 0, 0, 1 << 24, NULL, "tokens",
     "largest budget of a layer when layer_adaptive; 0 = no bound, as in the paper"},
    {"refresh", MB_OPTION_INT, offsetof(settings, refresh), 0, 0, 1 << 20, NULL, "steps",
     "exact attention and a new choice every so many steps; 0 = only at the first, as in the paper"},
    {"refresh_at", MB_OPTION_LIST, offsetof(settings, refresh_at), 0, 2, 1 << 20, NULL, "steps",
     "exact attention and a new choice at these steps as well: a few early ones, as in PulseCol"},
    MB_OPTION_COMMIT_AS("sparse", "attention of the forward that stores a finished block; the paper does not say, "
                                  "dense keeps the keys exact"),
    {0}};

const mb_method mb_method_mage = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "mage",
    .version = "1.0",
    .summary = "the exact first step of a block chooses the keys of its later steps",
    .reference = "Kwon et al., MAGE, arXiv 2602.14209 v2, eq. 5; v1, algorithm 1",
    .caps = MB_CAP_LAYER_BUDGET, /* where budget = layer_adaptive */
    .options = options,
    .options_size = sizeof(settings),
    .open = open_mage,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .select = select_pages,
    .observe = observe,
};
