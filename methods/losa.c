/*
 * losa - LoSA: rows whose query hardly changed keep their attention over the prefix, the few that changed get a
 * fresh one over few pages. arXiv 2604.12056 (ICML 2026).
 *
 *   step 1:   (o[r], L[r]) = exact attention over the prefix, for every row
 *   step t:   delta[r] = sum over query heads of |q_t[r] - q_(t-1)[r]|^2;   active = rows with the largest delta
 *             active rows:  (o[r], L[r]) = attention over the block's pages;   stable rows:  as they were
 *             out[r] = merge((o[r], L[r]), fresh attention over the block)
 *
 * Differences. The paper measures the change of the hidden state; a method sees queries, which are one matrix
 * away. The paper picks Quest pages for each active query; the rows of a KV head share their pages here (the union
 * over queries is what makes Quest dense), ranked by Quest's bounds averaged over the block. The
 * kernels compute all rows and keep the active ones: keys read, not FLOPs, are what is saved. The number of active
 * rows is the paper's ablation's best (5). Exact at a full budget only while queries stay the same.
 */
#include "methods/method.h"

enum { MODE_FIRST = 1, MODE_LATER = 2 };

typedef struct settings {
    int64_t k, active;
    int32_t page;
} settings;

typedef struct layer_state {
    void *bounds;  /* Quest's, [batch][Hkv][pages][2][D] */
    void *q, *out; /* [batch][block][Hq][D] of the KV type: last queries, prefix output */
    float *lse;    /* [batch][block][Hq] */
    mb_page_set set;
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    int32_t page;
    mb_page_set everything;
    float *scores;   /* [batch][Hkv][stride], one entry a page */
    float *distance; /* [batch][block][Hq] */
    int32_t *chosen; /* [batch][block][Hq] */
    void *fresh;     /* [batch][block][Hq][D] */
    float *fresh_lse;
    layer_state layers[]; /* [layers] */
} state;

static const int32_t page_tokens[] = {16, 32, 64, 128};

static int open_losa(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    s->page = page_tokens[s->options.page];
    size_t states = (size_t)shape->batch * (size_t)shape->block * (size_t)shape->query_heads;
    size_t bytes = states * (size_t)shape->head_dim * (size_t)shape->element_size;
    s->scores = host->scores_alloc(host);
    s->distance = host->alloc(host, states * sizeof(float));
    s->chosen = host->alloc(host, states * sizeof(int32_t));
    s->fresh = host->alloc(host, bytes);
    s->fresh_lse = host->alloc(host, states * sizeof(float));
    host->pages_alloc(host, 128, 1, &s->everything);
    for (int l = shape->first_layer; l < shape->layers; l++) {
        layer_state *layer = &s->layers[l];
        layer->bounds = host->bounds_alloc(host, s->page);
        layer->q = host->alloc(host, bytes);
        layer->out = host->alloc(host, bytes);
        layer->lse = host->alloc(host, states * sizeof(float));
        host->pages_alloc(host, s->page, (int32_t)((s->options.k + s->page - 1) / s->page), &layer->set);
    }
    return 0;
}

static int request_begin(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    size_t heads = (size_t)s->shape.batch * (size_t)s->shape.kv_heads;
    return s->host->fill(s->host, call, s->everything.counts, 0xff, heads * sizeof *s->everything.counts);
}

static int step_mode(void *self, const mb_call *call)
{
    (void)self;
    return call->phase == MB_PHASE_FIRST_STEP ? MODE_FIRST : MODE_LATER;
}

static int kv_added(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    void *bounds = s->layers[call->layer].bounds;
    return bounds ? s->host->page_bounds(s->host, call, s->page, call->phase == MB_PHASE_PREFILL, bounds) : 0;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    layer_state *layer = &s->layers[call->layer];
    if (call->rows != s->shape.block)
        return mb_method_fail(err, "a forward has %d of %d rows; comparing a row with its last query needs all",
                              call->rows, s->shape.block);
    out->answer = MB_ATTEND;
    out->pages = call->mode == MODE_FIRST ? &s->everything : &layer->set;
    if (call->mode == MODE_FIRST)
        return 0;
    out->select_tokens = (double)call->max_prefix / s->page;
    int rc = host->page_scores(host, call, s->page, layer->bounds, MB_MERGE_MEAN, MB_ROWS_ALL, s->scores);
    return rc == 0 ? host->top_k(host, call, s->scores, layer->set.capacity, NULL, &layer->set) : rc;
}

static int attend(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    layer_state *layer = &s->layers[call->layer];
    int32_t rows = s->options.active < s->shape.block ? (int32_t)s->options.active : s->shape.block;
    int rc;
    (void)err;
    if (call->mode == MODE_FIRST) {
        rc = host->attend(host, call, MB_SCOPE_PREFIX, NULL, layer->out, layer->lse);
    } else {
        rc = host->row_distance(host, call, call->q, layer->q, s->distance, NULL);
        if (rc == 0)
            rc = host->row_top(host, call, s->distance, rows, s->chosen);
        if (rc == 0)
            rc = host->attend_pages(host, call, &layer->set, MB_SCOPE_PREFIX, NULL, s->fresh, s->fresh_lse);
        if (rc == 0)
            rc = host->rows_copy(host, call, NULL, s->chosen, s->fresh, s->fresh_lse, layer->out, layer->lse);
    }
    if (rc == 0)
        rc = host->rows_copy(host, call, NULL, NULL, call->q, NULL, layer->q, NULL);
    return rc == 0 ? host->rows_copy(host, call, NULL, NULL, layer->out, layer->lse, out, lse) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that the active rows of a KV head read, rounded up to whole pages; the paper has 128 to 1024"},
    {"active", MB_OPTION_INT, offsetof(settings, active), 5, 1, 1 << 16, NULL, "rows",
     "rows of a block that are attended anew in a step, those that changed most"},
    {"page", MB_OPTION_CHOICE, offsetof(settings, page), 0, 0, 0, "16|32|64|128", "tokens", "tokens of a page"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense in all steps, as in Quest; open in the paper"),
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_losa = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "losa",
    .version = "1.0",
    .summary = "rows that changed read a few pages, all others keep their prefix state",
    .reference = "LoSA, ICML 2026, arXiv 2604.12056",
    .caps = MB_CAP_REUSE,
    .options = options,
    .options_size = sizeof(settings),
    .open = open_losa,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .request_begin = request_begin,
    .kv_added = kv_added,
    .select = select_pages,
    .attend = attend,
};
