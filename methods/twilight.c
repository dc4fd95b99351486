/*
 * twilight - a base method names candidates, keys of few bits estimate their weights, the fewest that hold p of
 * the weight are read. Lin et al., Twilight, NeurIPS 2025, arXiv 2502.02770, section 4. Read:
 * tsinghua-ideal/Twilight 843ebcc, twilight/pyimpl/attention.py, quest.py, quantize.py, top_p.py,
 * benchmark/configs/.
 *
 *   base = quest: candidates = the best `candidates` keys in whole pages, by upper bounds; base = none: all keys
 *   w[j] = softmax over the candidates of q.K4[j]; K4[j] = key j rounded to 2^bits levels between its smallest and
 *   largest channel;   I = the fewest keys with sum of w >= p
 *
 * Defaults are the authors' files': 8192 candidates, pages of 16, 4 bits, p 0.85, first two layers dense. p is the
 * only budget; the measured work tells what it costs. Differences. One set serves the G*B rows of a KV head: their
 * estimated probabilities are averaged, each normalised over the prefix (normaliser = all: and over the block);
 * with one row that is the authors' softmax. Their p counts the token itself, here the block is read anyway
 * and does not count. The rounded keys are a copy in the KV type, made once for each key, so memory is not what 4
 * bits would take; work counts what 4 bits would read. The authors' other base, Double Sparsity, is not offered.
 * oracle_top_p is this with exact weights and without a base.
 */
#include "methods/method.h"

#include <stdbool.h>

enum { BASE_QUEST = 0, BASE_NONE = 1 };

typedef struct settings {
    double p;
    int64_t candidates, k_min, k_max, bits;
    int32_t base, page, merge, rows, normaliser;
} settings;

typedef struct layer_state {
    void *bounds; /* [batch][Hkv][pages][max D | min D] of the KV type; NULL without a base */
    void *keys;   /* as the layer's cache, rounded */
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    int32_t page, element_bits;
    float *bound, *scores; /* [batch][Hkv][stride]: of pages, of keys */
    mb_page_set candidates, set;
    layer_state layers[]; /* [layers] */
} state;

static const int32_t page_tokens[] = {16, 32, 64, 128};

static int open_twilight(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                         mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->page = page_tokens[s->options.page];
    s->element_bits = shape->element_size * 8;
    s->scores = host->scores_alloc(host);
    host->pages_alloc(host, 1, s->options.k_max ? (int32_t)s->options.k_max : shape->capacity, &s->set);
    bool base = s->options.base == BASE_QUEST;
    if (base) {
        s->bound = host->scores_alloc(host);
        host->pages_alloc(host, s->page, (int32_t)((s->options.candidates + s->page - 1) / s->page),
                          &s->candidates);
    }
    for (int l = shape->first_layer; l < shape->layers; l++) {
        s->layers[l].bounds = base ? host->bounds_alloc(host, s->page) : NULL;
        s->layers[l].keys = host->keys_alloc(host);
    }
    return 0;
}

/* Every forward chooses. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self, (void)call;
    return MB_MODE_SELECT;
}

static int kv_added(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    const layer_state *layer = &s->layers[call->layer];
    bool whole = call->phase == MB_PHASE_PREFILL;
    (void)err;
    if (!layer->keys)
        return 0;
    int rc = s->host->key_pick(s->host, call, NULL, 0, (int32_t)s->options.bits, whole, layer->keys);
    return rc == 0 && layer->bounds ? s->host->page_bounds(s->host, call, s->page, whole, layer->bounds) : rc;
}

/* Keys outside the best pages get a weight of 0. */
static int keep_candidates(state *s, const mb_call *call, const layer_state *layer)
{
    const mb_host *host = s->host;
    int rc = host->page_scores(host, call, s->page, layer->bounds, (mb_merge)s->options.merge,
                               (mb_row_set)s->options.rows, s->bound);
    if (rc == 0)
        rc = host->top_k(host, call, s->bound, s->candidates.capacity, NULL, &s->candidates);
    return rc == 0 ? host->score_keep(host, call, &s->candidates, 0.0f, s->scores) : rc;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const settings *o = &s->options;
    const mb_host *host = s->host;
    const layer_state *layer = &s->layers[call->layer];
    mb_call rounded = *call;
    (void)err;
    int32_t k_max = s->set.capacity, k_min = o->k_min < k_max ? (int32_t)o->k_min : k_max;
    rounded.k = layer->keys;
    int rc = host->mass(host, &rounded, NULL, (mb_row_set)o->rows, (mb_normaliser)o->normaliser, s->scores);
    if (rc == 0 && layer->bounds)
        rc = keep_candidates(s, call, layer);
    if (rc == 0)
        rc = host->top_p(host, call, s->scores, (float)o->p, k_min, k_max, &s->set);
    out->answer = MB_SPARSE;
    out->pages = &s->set;
    /* Two vectors a page; a key of `bits` for each candidate. */
    double keys = call->max_prefix;
    if (layer->bounds) {
        out->select_tokens = keys / s->page;
        keys = keys < (double)o->candidates ? keys : (double)o->candidates;
    }
    out->select_tokens += 0.5 * keys * (double)o->bits / s->element_bits;
    return rc;
}

static const mb_option options[] = {
    {"p", MB_OPTION_REAL, offsetof(settings, p), 0.85, 0, 1, NULL, "",
     "share of the candidates' estimated weight that the keys must hold"},
    {"base", MB_OPTION_CHOICE, offsetof(settings, base), 0, 0, 0, "quest|none", "",
     "what names the candidates: bounds of pages, or nothing: all keys are"},
    {"candidates", MB_OPTION_INT, offsetof(settings, candidates), 8192, 1, 1 << 24, NULL, "tokens",
     "keys that the base method names, in whole pages"},
    {"bits", MB_OPTION_INT, offsetof(settings, bits), 4, 1, 8, NULL, "bits",
     "of a channel of the estimate's keys"},
    {"page", MB_OPTION_CHOICE, offsetof(settings, page), 0, 0, 0, "16|32|64|128", "tokens",
     "tokens of a page of the base method"},
    {"k_min", MB_OPTION_INT, offsetof(settings, k_min), 1, 0, 1 << 24, NULL, "tokens", "at least so many keys"},
    {"k_max", MB_OPTION_INT, offsetof(settings, k_max), 0, 0, 1 << 24, NULL, "tokens",
     "at most so many keys; 0 = no bound, as in the paper"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense in all steps"),
    {"merge", MB_OPTION_CHOICE, offsetof(settings, merge), 0, 0, 0, "mean|max|mean_query|softmax", "",
     "how the bounds of a block's rows become one score a page; the paper has one row and leaves it open"},
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that are averaged; the paper has one"},
    {"normaliser", MB_OPTION_CHOICE, offsetof(settings, normaliser), 1, 0, 0, "all|prefix", "",
     "keys under a row's softmax before the average: prefix and block, or prefix only"},
    MB_OPTION_COMMIT,
    {0}};

MB_METHOD_DEFINE = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "twilight",
    .version = "1.0",
    .summary = "pages name candidates, keys of 4 bits weigh them, the fewest that hold p are read",
    .reference = "Lin et al., Twilight, NeurIPS 2025, arXiv 2502.02770, section 4",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_twilight,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .kv_added = kv_added,
    .select = select_pages,
};
