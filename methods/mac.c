/*
 * mac - MAC-Attention: match, amend, complete. A query that resembles an earlier one reuses that one's attention
 * over the far prefix; only the near keys are read. Yao et al., MLSys 2026, arXiv 2604.00235, and the authors'
 * kernels.
 *
 *   match      d = |q' - q'_stored| before RoPE;   hit  <=>  d < (1 - threshold) * sqrt(2 D)       (their code)
 *   entry      (o, L) over the keys [0, N - amend), from the query that was last computed there
 *   amend      fresh attention over the keys between the entry's end and N - amend joins the entry
 *   complete   fresh attention over the last `amend` keys and the block;  out = merge of all
 *   a miss computes its entry exactly; either way the entry is written back, so that errors can chain: `refresh`
 *
 * The paper decodes one token at a time and matches it against the last M tokens. In block diffusion B queries at
 * fixed positions are repeated over a frozen prefix, which gives two axes (methods.md 5.7). steps: a row is
 * matched against itself one step earlier; same position, same prefix, so that nothing needs amending and amend is
 * 0 unless asked for. blocks: at its first step a block is matched against the rows of the previous one, whose
 * entries end B + amend keys before N: the band in between is read anew. The rows of a KV head share one pass over
 * its keys, so hits save nothing until all of them hit, or all but a share `miss_share`: group modes, per KV head.
 * In a mixed group (some rows miss) hit rows keep their entry as in the paper, or are refreshed by the pass that
 * runs anyway. Prompt queries are not seen by a method: the ring starts with the first block. sqrt(2 D) is the
 * distance of two independent unit-variance vectors; models without q-norm want rule = relative.
 */
#include "methods/method.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { MODE_DENSE = 0, MODE_REFRESH = 1, MODE_STEP = 2, MODE_BLOCK = 3, MODE_REFRESH_FIRST = 4 };
enum { AXIS_STEPS = 0, AXIS_BLOCKS = 1, AXIS_BOTH = 2 };
enum { RULE_ABSOLUTE = 0, RULE_RELATIVE = 1 };
enum { MIXED_KEEP = 0, MIXED_REFRESH = 1 };
enum { MATCH_ROW = 0, MATCH_ANY = 1 };
enum { COUNTS = 4, CLASSES = 3 };   /* reuse_decide's counts; for refreshes, step matches, block matches */

typedef struct settings {
    double threshold, distance, miss_share;
    int64_t amend, refresh, min_prefix, dense_layers;
    int32_t axis, rule, match, mixed, commit;
} settings;

/* Queries before RoPE, entry and its log-sum-exp: [batch][block][Hq][D] of the KV type, [batch][block][Hq]. */
typedef struct entries {
    void *q, *out;
    float *lse;
} entries;

typedef struct layer_state {
    entries now;     /* of this block: what later steps match */
    entries first;   /* of the last block's first step: what the next block matches; is `now` but for axis both */
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    float threshold;              /* on the squared distance, or its ratio to the squared norm */
    int32_t amend, page;          /* tokens that are always fresh; granularity of the sets below */
    int64_t request;              /* whose block the ring holds */
    int32_t block, age;           /* that block; steps since the entries were last computed */
    float *scores;                /* [batch][Hkv][stride] */
    mb_page_set body, band, tail; /* [0, N-amend), the B keys before N-amend, the last amend keys */
    mb_page_set read;             /* counts = active: which KV heads read their prefix in this call */
    int32_t *missed, *slot;       /* [batch][block][Hq] */
    float *distance, *norm;       /* [batch][block][Hq] */
    entries near, fresh, view;    /* scratch: band or tail; recomputed; the rows of a partial forward */
    double *counts;               /* [layers][CLASSES][COUNTS] */
    layer_state layers[];         /* [layers] */
} state;

/* ---- opening ---- */

static int alloc_entries(const state *s, entries *e, bool with_queries)
{
    size_t states = (size_t)s->shape.batch * (size_t)s->shape.block * (size_t)s->shape.query_heads;
    size_t bytes = states * (size_t)s->shape.head_dim * (size_t)s->shape.element_size;
    e->q = with_queries ? s->host->alloc(s->host, bytes) : NULL;
    e->out = s->host->alloc(s->host, bytes);
    e->lse = s->host->alloc(s->host, states * sizeof(float));
    return (with_queries && !e->q) || !e->out || !e->lse ? -1 : 0;
}

/* Pages as large as both the block and the fresh tail allow: their edges then fall on page edges. */
static int32_t page_size(int32_t block, int32_t amend)
{
    for (int32_t page = 128; page >= 16; page = page == 128 ? 64 : page / 2)
        if (amend > 0 && block % page == 0 && amend % page == 0)
            return page;
    return 1;
}

static int alloc_all(state *s)
{
    const mb_host *host = s->host;
    size_t states = (size_t)s->shape.batch * (size_t)s->shape.block * (size_t)s->shape.query_heads;
    int32_t page = s->page, tail = s->amend / page;
    s->scores = host->scores_alloc(host);
    s->missed = host->alloc(host, states * sizeof *s->missed);
    s->slot = host->alloc(host, states * sizeof *s->slot);
    s->distance = host->alloc(host, states * sizeof *s->distance);
    s->norm = host->alloc(host, states * sizeof *s->norm);
    s->counts = host->alloc(host, (size_t)s->shape.layers * CLASSES * COUNTS * sizeof *s->counts);
    if (!s->scores || !s->missed || !s->slot || !s->distance || !s->norm || !s->counts)
        return -1;
    int rc = host->pages_alloc(host, page, (s->shape.capacity + page - 1) / page, &s->body);
    if (rc == 0)
        rc = host->pages_alloc(host, page, (s->shape.block + page - 1) / page, &s->band);
    if (rc == 0)
        rc = host->pages_alloc(host, page, tail > 0 ? tail : 1, &s->tail);
    if (rc == 0)
        rc = host->pages_alloc(host, 128, 1, &s->read);
    if (rc != 0 || alloc_entries(s, &s->near, false) || alloc_entries(s, &s->fresh, false) ||
        alloc_entries(s, &s->view, true))
        return -1;
    for (int l = (int)s->options.dense_layers; l < s->shape.layers; l++) {
        layer_state *layer = &s->layers[l];
        if (alloc_entries(s, &layer->now, true))
            return -1;
        layer->first = layer->now;
        if (s->options.axis == AXIS_BOTH && alloc_entries(s, &layer->first, true))
            return -1;
    }
    return 0;
}

static int open_mac(void **self, const mb_host *host, const mb_shape *shape, const void *options, char *err,
                    size_t err_cap)
{
    state *s = calloc(1, sizeof *s + (size_t)shape->layers * sizeof s->layers[0]);
    if (!s) {
        snprintf(err, err_cap, "out of memory");
        return -1;
    }
    *self = s;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    s->request = s->block = -1;
    const settings *o = &s->options;
    double near = o->threshold < 1 ? 1 - o->threshold : 0;
    double unit = o->rule == RULE_ABSOLUTE ? 2.0 * shape->head_dim : 1.0;
    s->threshold = (float)(o->distance > 0 ? o->distance * o->distance : near * near * unit);
    s->amend = (int32_t)(o->amend >= 0 ? o->amend : o->axis == AXIS_STEPS ? 0 : 256);
    s->page = page_size(shape->block, s->amend);
    if (alloc_all(s) == 0)
        return 0;
    snprintf(err, err_cap, "no device memory for the entries of %d layers", shape->layers);
    return -1;
}

/* ---- when ---- */

static int step_mode(void *self, const mb_call *call)
{
    state *s = self;
    const settings *o = &s->options;
    if (call->max_prefix < o->min_prefix)
        return MODE_DENSE;   /* nothing is stored, so that the next block finds no ring */
    bool mine = s->request == call->request && s->block == call->block;
    if (call->phase == MB_PHASE_COMMIT)
        return o->commit != 0 && mine && o->axis != AXIS_BLOCKS ? MODE_STEP : MODE_DENSE;
    if (call->phase == MB_PHASE_FIRST_STEP) {
        bool ring = o->axis != AXIS_STEPS && s->request == call->request && s->block == call->block - 1;
        s->request = call->request;
        s->block = call->block;
        s->age = 0;
        return ring ? MODE_BLOCK : MODE_REFRESH_FIRST;
    }
    if (o->axis == AXIS_BLOCKS)
        return MODE_DENSE;
    s->age++;
    if (mine && (o->refresh == 0 || s->age < o->refresh))
        return MODE_STEP;
    s->age = 0;
    return MODE_REFRESH;
}

static int request_begin(void *self, const mb_call *call, char *err, size_t err_cap)
{
    state *s = self;
    (void)err, (void)err_cap;
    s->request = s->block = -1;
    return s->host->fill(s->host, call, s->counts, 0,
                         (size_t)s->shape.layers * CLASSES * COUNTS * sizeof *s->counts);
}

/* ---- where: the three stretches of the prefix, from its length on the device ---- */

static int make_set(const state *s, const mb_call *call, float elsewhere, int32_t inner, int32_t outer,
                    mb_page_set *set)
{
    const mb_host *host = s->host;
    int32_t all = s->body.capacity;
    /* Everything, then the last `outer` pages in, then the last `inner` pages out. */
    int rc = host->score_edges(host, call, s->page, all, 0, elsewhere, s->scores);
    if (rc == 0 && outer > 0)
        rc = host->score_edges(host, call, s->page, 0, outer, 1.0f, s->scores);
    if (rc == 0 && inner > 0)
        rc = host->score_edges(host, call, s->page, 0, inner, -INFINITY, s->scores);
    return rc == 0 ? host->top_k(host, call, s->scores, set->capacity, NULL, set) : rc;
}

static int make_sets(state *s, const mb_call *call)
{
    const float never = -INFINITY;
    int32_t tail = s->amend / s->page, band = s->shape.block / s->page;
    int rc = make_set(s, call, 1.0f, tail, 0, &s->body);
    if (rc == 0)
        rc = make_set(s, call, never, tail, tail + band, &s->band);
    return rc == 0 && tail > 0 ? make_set(s, call, never, 0, tail, &s->tail) : rc;
}

/* ---- rows of a forward that does not carry the whole block ---- */

static int move_rows(const state *s, const mb_call *call, void *whole, void *part, size_t size, bool store)
{
    int rc = 0;
    for (int32_t b = 0; b < s->shape.batch && rc == 0; b++) {
        char *at = (char *)whole + ((size_t)b * (size_t)s->shape.block + (size_t)call->row_offset) * size;
        char *rows = (char *)part + (size_t)b * (size_t)call->rows * size;
        rc = s->host->copy(s->host, call, store ? at : rows, store ? rows : at, (size_t)call->rows * size);
    }
    return rc;
}

static int move_entries(const state *s, const mb_call *call, entries *whole, bool store)
{
    size_t heads = (size_t)s->shape.query_heads;
    size_t vectors = heads * (size_t)s->shape.head_dim * (size_t)s->shape.element_size;
    entries part = s->view;
    int rc = move_rows(s, call, whole->q, part.q, vectors, store);
    if (rc == 0)
        rc = move_rows(s, call, whole->out, part.out, vectors, store);
    return rc == 0 ? move_rows(s, call, whole->lse, part.lse, heads * sizeof(float), store) : rc;
}

/* ---- match ---- */

static int match(state *s, const mb_call *call, const entries *stored, bool any)
{
    const mb_host *host = s->host;
    double *counts = s->counts + (size_t)call->layer * CLASSES * COUNTS;
    bool refresh = call->mode == MODE_REFRESH || call->mode == MODE_REFRESH_FIRST;
    int rc = 0;
    if (!refresh && any)
        rc = host->row_match(host, call, call->q_pre, stored->q, s->shape.block, s->slot, s->distance, s->norm);
    else if (!refresh)
        rc = host->row_distance(host, call, call->q_pre, stored->q, s->distance, s->norm);
    counts += (refresh ? 0 : call->mode == MODE_STEP ? 1 : 2) * COUNTS;
    /* No distance is below a negative threshold: a refresh misses everywhere. */
    bool relative = !refresh && s->options.rule == RULE_RELATIVE && s->options.distance <= 0;
    return rc == 0 ? host->reuse_decide(host, call, s->distance, s->norm, refresh ? -1.0f : s->threshold, relative,
                                        (float)s->options.miss_share, s->read.counts, s->missed, counts) : rc;
}

static int select_state(void *self, const mb_call *call, mb_selection *out, char *err, size_t err_cap)
{
    state *s = self;
    if (call->mode == MODE_DENSE || call->layer < s->options.dense_layers)
        return 0;
    bool first = call->phase == MB_PHASE_FIRST_STEP;
    if (first && call->rows != s->shape.block) {
        snprintf(err, err_cap, "the first step of a block has %d of %d rows; its entries need all", call->rows,
                 s->shape.block);
        return -1;
    }
    layer_state *layer = &s->layers[call->layer];
    int rc = first && call->layer == s->options.dense_layers ? make_sets(s, call) : 0;
    if (rc == 0 && call->rows != s->shape.block)
        rc = move_entries(s, call, &layer->now, false);
    const entries *stored = call->mode == MODE_BLOCK              ? &layer->first
                            : call->rows != s->shape.block ? &s->view : &layer->now;
    if (rc == 0)
        rc = match(s, call, stored, call->mode == MODE_BLOCK && s->options.match == MATCH_ANY);
    out->answer = MB_ATTEND;
    out->pages = &s->read;
    /* Read by hits, too: the tail, and the band of a block match. */
    out->select_tokens = s->amend + (call->mode == MODE_BLOCK ? s->shape.block : 0);
    if (out->select_tokens > call->max_prefix)
        out->select_tokens = call->max_prefix;
    return rc;
}

/* ---- amend, complete ---- */

/* now = the ring's entries, moved on by the band: what a block starts from. */
static int start_from_ring(state *s, const mb_call *call, layer_state *layer)
{
    const mb_host *host = s->host;
    entries from = layer->first;
    int rc = 0;
    if (s->options.match == MATCH_ANY) {
        rc = host->row_gather(host, call, s->slot, layer->first.out, layer->first.lse, s->shape.block,
                              s->fresh.out, s->fresh.lse);
        from = s->fresh;
    }
    if (rc == 0)
        rc = host->attend_pages(host, call, &s->band, MB_SCOPE_PREFIX, NULL, s->near.out, s->near.lse);
    if (rc == 0)
        rc = host->state_merge(host, call, from.out, from.lse, s->near.out, s->near.lse, 0, layer->now.out,
                               layer->now.lse);
    /* The paper writes the entry back under the present query, whether it hit or missed. */
    return rc == 0 ? host->rows_copy(host, call, NULL, NULL, call->q_pre, NULL, layer->now.q, NULL) : rc;
}

static int attend(void *self, const mb_call *call, void *out, float *lse, char *err, size_t err_cap)
{
    state *s = self;
    const mb_host *host = s->host;
    layer_state *layer = &s->layers[call->layer];
    const int32_t *active = s->read.counts;
    bool partial = call->rows != s->shape.block;
    const int32_t *missed = s->options.mixed == MIXED_KEEP ? s->missed : NULL;
    entries *now = partial ? &s->view : &layer->now;
    (void)err, (void)err_cap;
    int rc = call->mode == MODE_BLOCK ? start_from_ring(s, call, layer) : 0;
    if (rc == 0)   /* what missed: the far prefix, exactly */
        rc = s->amend == 0 ? host->attend(host, call, MB_SCOPE_PREFIX, active, s->fresh.out, s->fresh.lse)
                           : host->attend_pages(host, call, &s->body, MB_SCOPE_PREFIX, active, s->fresh.out,
                                                s->fresh.lse);
    if (rc == 0)
        rc = host->rows_copy(host, call, active, missed, s->fresh.out, s->fresh.lse, now->out, now->lse);
    if (rc == 0)
        rc = host->rows_copy(host, call, active, missed, call->q_pre, NULL, now->q, NULL);
    if (rc == 0 && partial)
        rc = move_entries(s, call, &layer->now, true);
    if (rc == 0 && call->phase == MB_PHASE_FIRST_STEP && s->options.axis == AXIS_BOTH)
        rc = host->rows_copy(host, call, NULL, NULL, now->q, NULL, layer->first.q, NULL);
    if (rc == 0 && call->phase == MB_PHASE_FIRST_STEP && s->options.axis == AXIS_BOTH)
        rc = host->rows_copy(host, call, NULL, NULL, now->out, now->lse, layer->first.out, layer->first.lse);
    if (rc != 0 || s->amend == 0)
        return rc == 0 ? host->rows_copy(host, call, NULL, NULL, now->out, now->lse, out, lse) : rc;
    rc = host->attend_pages(host, call, &s->tail, MB_SCOPE_PREFIX, NULL, s->near.out, s->near.lse);
    return rc == 0 ? host->state_merge(host, call, now->out, now->lse, s->near.out, s->near.lse, 0, out, lse) : rc;
}

/* ---- counters ---- */

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static int report(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                  double *values, char *err, size_t err_cap)
{
    const state *s = self;
    size_t n = (size_t)s->shape.layers * CLASSES * COUNTS;
    double *counts = calloc(n, sizeof *counts), hits[5] = {0}, rows[5] = {0}, passes = 0, heads = 0;
    int rc = counts ? read(s->host, counts, s->counts, n * sizeof *counts) : -1;
    if (rc != 0)
        snprintf(err, err_cap, "the hit counts cannot be read");
    for (int l = 0; l < s->shape.layers && rc == 0; l++)
        for (int c = 0; c < CLASSES; c++) {
            const double *at = counts + (l * CLASSES + c) * COUNTS;
            int third = 2 + l * 3 / s->shape.layers;
            passes += at[2];
            heads += at[3];
            if (c == 0)
                continue;   /* nothing was matched */
            hits[c - 1] += at[0];
            rows[c - 1] += at[1];
            hits[third] += at[0];
            rows[third] += at[1];
        }
    free(counts);
    values[0] = ratio(hits[0] + hits[1], rows[0] + rows[1]);
    for (int i = 0; i < 5; i++)
        values[1 + i] = ratio(hits[i], rows[i]);
    values[6] = ratio(heads - passes, heads);
    return rc;
}

static const mb_counter counters[] = {
    {"hit_rate", "", "higher", "mean", "matched rows that reuse their entry"},
    {"hit_rate_steps", "", "higher", "mean", "the same among matches of a row with its last step"},
    {"hit_rate_blocks", "", "higher", "mean", "the same among matches of a block with the previous one"},
    {"hit_rate_low", "", "higher", "mean", "the same in the first third of the layers"},
    {"hit_rate_middle", "", "higher", "mean", "the same in the middle third"},
    {"hit_rate_high", "", "higher", "mean", "the same in the last third"},
    {"passes_saved", "", "higher", "mean", "KV heads whose prefix was not read, over all steps that could"},
    {0}};

static const mb_option options[] = {
    {"threshold", MB_OPTION_REAL, offsetof(settings, threshold), 0.45, -10, 1, NULL, "",
     "larger is stricter, 1 never hits; as in the authors' code (a note on the paper reads it the other way)"},
    {"distance", MB_OPTION_REAL, offsetof(settings, distance), 0, 0, 1e6, NULL, "",
     "largest distance of a hit, in place of threshold; 0 = use threshold"},
    {"rule", MB_OPTION_CHOICE, offsetof(settings, rule), 0, 0, 0, "absolute|relative", "",
     "distance against sqrt(2 D), or against the stored query's norm; the paper has the first"},
    {"axis", MB_OPTION_CHOICE, offsetof(settings, axis), 0, 0, 0, "steps|blocks|both", "",
     "what is reused: a row's last step, the previous block's first step, or both"},
    {"match", MB_OPTION_CHOICE, offsetof(settings, match), 0, 0, 0, "row|any", "",
     "axis blocks: match the row at the same place of the previous block, or the nearest of all, as in the paper"},
    {"miss_share", MB_OPTION_REAL, offsetof(settings, miss_share), 0, 0, 1, NULL, "",
     "rows of a KV head that may miss without its prefix being read again; they then keep their entry, too"},
    {"mixed", MB_OPTION_CHOICE, offsetof(settings, mixed), 0, 0, 0, "keep|refresh", "",
     "rows that hit while their KV head is read: keep their entry, as in the paper, or take the fresh one"},
    {"amend", MB_OPTION_INT, offsetof(settings, amend), -1, -1, 1 << 20, NULL, "tokens",
     "nearest prefix keys that are always read; -1 = 0 for axis steps, else 256, the paper's value"},
    {"refresh", MB_OPTION_INT, offsetof(settings, refresh), 0, 0, 1 << 20, NULL, "steps",
     "compute all entries anew every so many steps; 0 = never, as in the paper"},
    {"min_prefix", MB_OPTION_INT, offsetof(settings, min_prefix), 0, 0, 1 << 24, NULL, "tokens",
     "exact attention below this length; the paper has 2048"},
    {"dense_layers", MB_OPTION_INT, offsetof(settings, dense_layers), 0, 0, 1024, NULL, "layers",
     "first layers that stay dense; the paper has none"},
    {"commit", MB_OPTION_CHOICE, offsetof(settings, commit), 0, 0, 0, "dense|reuse", "",
     "attention of the forward that stores a finished block; dense keeps the stored keys exact"},
    {0}};

const mb_method mb_method_mac = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "mac",
    .version = "1.0",
    .summary = "queries that resemble earlier ones reuse their attention over the prefix",
    .reference = "Yao et al., MAC-Attention, MLSys 2026, arXiv 2604.00235",
    .caps = MB_CAP_OPAQUE | MB_CAP_REUSE | MB_CAP_PRE_ROPE,
    .options = options,
    .options_size = sizeof(settings),
    .counters = counters,
    .open = open_mac,
    .close = free,
    .step_mode = step_mode,
    .request_begin = request_begin,
    .select = select_state,
    .attend = attend,
    .report = report,
};
