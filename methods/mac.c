/*
 * mac - MAC-Attention: match, amend, complete. A query that resembles an earlier one reuses that one's attention
 * over the far prefix; only the near keys are read. Yao et al., MLSys 2026, arXiv 2604.00235, and the authors'
 * kernels.
 *
 *   match      d = |q' - q'_stored| before RoPE;   hit  <=>  d < (1 - threshold) * sqrt(2 D)       (their code)
 *   entry      (o, L) over the keys [0, E), E = N - amend when it was written, from the query that was last
 *              computed there
 *   amend      fresh attention over the keys [E, N - amend) joins the entry
 *   complete   fresh attention over the last `amend` keys and the block;  out = merge of all
 *   a miss computes its entry exactly; either way the entry is written back, so that errors can chain: `refresh`
 *
 * The paper decodes one token at a time and matches it against the last M tokens. In block diffusion B queries at
 * fixed positions are repeated over a frozen prefix, which gives two axes (ours). steps: a row is
 * matched against itself one step earlier; same position, same prefix, so that nothing needs amending and amend is
 * 0 unless asked for. blocks: at its first step a block is matched against the first steps of the last `ring`
 * blocks. An entry of d blocks ago ends d*B keys before N - amend, so its row reads a band of d*B keys anew: the
 * ring's bands are read one block of keys at a time, each for the rows whose entry is so old, and a KV head reads
 * the band of its oldest entry, no more. The rows of a KV head share one pass over its keys, so hits save
 * nothing until all of them hit, or all but a share `miss_share`: group modes, per KV head. In a mixed group (some
 * rows miss) hit rows keep their entry as in the paper, or are refreshed by the pass that runs anyway. Prompt
 * queries are not seen by a method: the ring starts with the first block. sqrt(2 D) is the distance of two
 * independent unit-variance vectors; models without q-norm want rule = relative.
 *
 * The forward may be a replayed graph: the age of each place of the ring is device memory that step_begin() fills;
 * the ring is written in step_end(); counts of a step are filed by both.
 */
#include "methods/method.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MODE_DENSE = 0, MODE_REFRESH = 1, MODE_STEP = 2, MODE_BLOCK = 3, MODE_REFRESH_FIRST = 4 };
enum { AXIS_STEPS = 0, AXIS_BLOCKS = 1, AXIS_BOTH = 2 };
enum { RULE_ABSOLUTE = 0, RULE_RELATIVE = 1 };
enum { MIXED_KEEP = 0, MIXED_REFRESH = 1 };
enum { MATCH_ROW = 0, MATCH_ANY = 1 };
enum { MOST_RING = 64 };                                                 /* blocks */
enum { HITS, ROWS, PASSES, HEADS, ALL_HIT, SOME_HIT, NONE_HIT, COUNTS }; /* what reuse_decide counts */
enum { REFRESHED, MATCHED, CLASSES };

typedef struct settings {
    double threshold, distance, miss_share;
    int64_t ring, amend, refresh, min_prefix;
    int32_t axis, rule, match, mixed;
} settings;

/* Queries before RoPE, entry and its log-sum-exp: [batch][block][Hq][D] of the KV type, [batch][block][Hq]; those
 * of a layer, or of all layers that have them, one after the other. */
typedef struct entries {
    void *q, *out;
    float *lse;
} entries;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    float threshold;              /* on the squared distance, or its ratio to the squared norm */
    int32_t amend, page;          /* tokens that are always fresh; granularity of the sets below */
    size_t states;                /* (sequence, row, query head) triples of a layer */
    int64_t request;              /* whose block `now` holds */
    int32_t block, age;           /* that block; steps since its entries were last computed */
    int32_t stored[MOST_RING];    /* the block whose entries a place of the ring holds; -1: none of this request */
    uint8_t *ages;                /* device [ring]: the same as blocks ago, 0 = none */
    float *scores;                /* [batch][Hkv][stride] */
    mb_page_set body, tail;       /* [0, N-amend), the last amend keys */
    mb_page_set bands[MOST_RING]; /* of age d, at d-1: the B keys before N-amend-(d-1)*B */
    int32_t *active, *old;        /* [batch][Hkv]: KV heads that read their prefix; that have a row so old */
    int32_t *missed, *slot, *reached; /* [batch][block][Hq] */
    float *distance, *norm;           /* [batch][block][Hq] */
    entries now;                      /* of this block, all layers: what later steps match */
    entries ring;                     /* of first steps: [ring] times all layers; axis blocks and both */
    entries near, fresh, view;        /* scratch: band or tail; recomputed; the rows of a partial forward */
    double *filed;                    /* [bins][layers][CLASSES][COUNTS], by step; 0: commits */
    double *running;                  /* [layers][CLASSES][COUNTS] of the later step that runs */
    int32_t bins;                     /* the last holds all later steps */
} state;

/* ---- opening ---- */

static size_t vector_bytes(const state *s)
{
    return (size_t)s->shape.head_dim * (size_t)s->shape.element_size;
}

static size_t sheet_bytes(const state *s) /* of the counts of all layers */
{
    return (size_t)s->shape.layers * CLASSES * COUNTS * sizeof(double);
}

static size_t kept_layers(const state *s)
{
    return (size_t)(s->shape.layers - s->shape.first_layer);
}

static void alloc_entries(const state *s, entries *e, size_t times, bool with_queries)
{
    size_t bytes = times * s->states * vector_bytes(s);
    if (with_queries)
        e->q = s->host->alloc(s->host, bytes);
    e->out = s->host->alloc(s->host, bytes);
    e->lse = s->host->alloc(s->host, times * s->states * sizeof(float));
}

/* Entry arrays `states` behind the first. */
static entries entries_at(const state *s, const entries *e, size_t states)
{
    return (entries){(char *)e->q + states * vector_bytes(s), (char *)e->out + states * vector_bytes(s),
                     e->lse + states};
}

static entries of_layer(const state *s, const entries *e, int32_t layer)
{
    return entries_at(s, e, (size_t)(layer - s->shape.first_layer) * s->states);
}

/* Pages as large as both the block and the fresh tail allow: their edges then fall on page edges. */
static int32_t page_size(int32_t block, int32_t amend)
{
    for (int32_t page = 128; page >= 16; page = page == 128 ? 64 : page / 2)
        if (amend > 0 && block % page == 0 && amend % page == 0)
            return page;
    return 1;
}

static void alloc_sets(state *s)
{
    const mb_host *host = s->host;
    int32_t page = s->page, tail = s->amend / page;
    host->pages_alloc(host, page, (s->shape.capacity + page - 1) / page, &s->body);
    host->pages_alloc(host, page, tail > 0 ? tail : 1, &s->tail);
    for (int d = 0; d < s->options.ring && s->options.axis != AXIS_STEPS; d++)
        host->pages_alloc(host, page, (s->shape.block + page - 1) / page, &s->bands[d]);
}

static void alloc_all(state *s)
{
    const mb_host *host = s->host;
    size_t rows = s->states * sizeof(int32_t);
    size_t heads = (size_t)s->shape.batch * (size_t)s->shape.kv_heads * sizeof(int32_t);
    size_t layers = kept_layers(s), ring = s->options.axis != AXIS_STEPS ? (size_t)s->options.ring : 0;
    s->scores = host->scores_alloc(host);
    s->active = host->alloc(host, heads);
    s->old = host->alloc(host, heads);
    s->missed = host->alloc(host, rows);
    s->slot = host->alloc(host, rows);
    s->reached = host->alloc(host, rows);
    s->distance = host->alloc(host, rows);
    s->norm = host->alloc(host, rows);
    s->ages = host->alloc(host, MOST_RING);
    s->filed = host->alloc(host, (size_t)s->bins * sheet_bytes(s));
    s->running = host->alloc(host, sheet_bytes(s));
    alloc_sets(s);
    alloc_entries(s, &s->near, 1, false);
    alloc_entries(s, &s->fresh, 1, false);
    alloc_entries(s, &s->view, 1, true);
    if (layers > 0)
        alloc_entries(s, &s->now, layers, true);
    if (ring * layers > 0)
        alloc_entries(s, &s->ring, ring * layers, true);
}

static int open_mac(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    s->request = s->block = -1;
    s->states = (size_t)shape->batch * (size_t)shape->block * (size_t)shape->query_heads;
    /* A step reveals a token at least, so a block has no more steps than tokens unless it is told to. */
    s->bins = 1 + (shape->steps > shape->block ? shape->steps : shape->block);
    const settings *o = &s->options;
    double near = o->threshold < 1 ? 1 - o->threshold : 0;
    double unit = o->rule == RULE_ABSOLUTE ? 2.0 * shape->head_dim : 1.0;
    s->threshold = (float)(o->distance > 0 ? o->distance * o->distance : near * near * unit);
    s->amend = (int32_t)(o->amend >= 0 ? o->amend : o->axis == AXIS_STEPS ? 0 : 256);
    s->page = page_size(shape->block, s->amend);
    alloc_all(s);
    return 0;
}

/* ---- when ---- */

/* Blocks since the entries at a place of the ring were written; 0: they cannot be matched. */
static int32_t age_of(const state *s, int32_t place, int32_t block)
{
    int32_t age = s->stored[place] < 0 ? 0 : block - s->stored[place];
    return age > 0 && age <= s->options.ring ? age : 0;
}

static int step_mode(void *self, const mb_call *call)
{
    state *s = self;
    const settings *o = &s->options;
    if (call->max_prefix < o->min_prefix)
        return MODE_DENSE; /* nothing is stored, so that the next block finds no entries */
    bool mine = s->request == call->request && s->block == call->block;
    if (call->phase == MB_PHASE_COMMIT)
        return mine && o->axis != AXIS_BLOCKS ? MODE_STEP : MODE_DENSE;
    if (call->phase == MB_PHASE_FIRST_STEP) {
        bool filled = false;
        for (int32_t i = 0; i < o->ring && o->axis != AXIS_STEPS && s->request == call->request; i++)
            filled = filled || age_of(s, i, call->block) > 0;
        s->request = call->request;
        s->block = call->block;
        s->age = 0;
        return filled ? MODE_BLOCK : MODE_REFRESH_FIRST;
    }
    if (o->axis == AXIS_BLOCKS)
        return MODE_DENSE;
    s->age++;
    if (mine && (o->refresh == 0 || s->age < o->refresh))
        return MODE_STEP;
    s->age = 0;
    return MODE_REFRESH;
}

static int request_begin(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    s->request = s->block = -1;
    memset(s->stored, 0xff, sizeof s->stored);
    return s->host->fill(s->host, call, s->filed, 0, (size_t)s->bins * sheet_bytes(s));
}

/* The sums of all earlier blocks at this step; what runs now adds to them. */
static double *filed_at(const state *s, int32_t step)
{
    return s->filed + (size_t)(step < s->bins ? step : s->bins - 1) * (sheet_bytes(s) / sizeof(double));
}

static int step_begin(void *self, const mb_call *call, mb_error *err)
{
    const state *s = self;
    int rc = 0;
    (void)err;
    if (call->phase == MB_PHASE_LATER_STEP && call->mode != MODE_DENSE)
        return s->host->copy(s->host, call, s->running, filed_at(s, call->step), sheet_bytes(s));
    for (int32_t i = 0; i < s->options.ring && call->mode == MODE_BLOCK && rc == 0; i++)
        rc = s->host->fill(s->host, call, s->ages + i, age_of(s, i, call->block), 1);
    return rc;
}

/* The entries of a first step, all layers at once, to their place in the ring. */
static int store_block(state *s, const mb_call *call)
{
    int32_t place = call->block % (int32_t)s->options.ring;
    size_t states = kept_layers(s) * s->states;
    entries to = entries_at(s, &s->ring, (size_t)place * states);
    int rc = s->host->copy(s->host, call, to.q, s->now.q, states * vector_bytes(s));
    if (rc == 0)
        rc = s->host->copy(s->host, call, to.out, s->now.out, states * vector_bytes(s));
    if (rc == 0)
        rc = s->host->copy(s->host, call, to.lse, s->now.lse, states * sizeof(float));
    s->stored[place] = rc == 0 ? call->block : -1;
    return rc;
}

static int step_end(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    if (call->mode == MODE_DENSE || kept_layers(s) == 0)
        return 0;
    if (call->phase == MB_PHASE_LATER_STEP)
        return s->host->copy(s->host, call, filed_at(s, call->step), s->running, sheet_bytes(s));
    return s->options.axis == AXIS_STEPS ? 0 : store_block(s, call);
}

/* ---- where: the stretches of the prefix, from its length on the device ---- */

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
    for (int32_t d = 0; d < s->options.ring && call->mode == MODE_BLOCK && rc == 0; d++)
        rc = make_set(s, call, never, tail + d * band, tail + (d + 1) * band, &s->bands[d]);
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

static int move_entries(const state *s, const mb_call *call, const entries *whole, bool store)
{
    size_t heads = (size_t)s->shape.query_heads, vectors = heads * vector_bytes(s);
    entries part = s->view;
    int rc = move_rows(s, call, whole->q, part.q, vectors, store);
    if (rc == 0)
        rc = move_rows(s, call, whole->out, part.out, vectors, store);
    return rc == 0 ? move_rows(s, call, whole->lse, part.lse, heads * sizeof(float), store) : rc;
}

/* ---- match ---- */

static mb_state_ring ring_of(const state *s, int32_t layer)
{
    entries e = of_layer(s, &s->ring, layer);
    return (mb_state_ring){.blocks = (int32_t)s->options.ring,
                           .pitch = (int64_t)(kept_layers(s) * s->states),
                           .ages = s->ages,
                           .q = e.q,
                           .out = e.out,
                           .lse = e.lse};
}

static int match(state *s, const mb_call *call, const entries *stored)
{
    const mb_host *host = s->host;
    double *counts = call->phase == MB_PHASE_COMMIT       ? filed_at(s, 0)
                     : call->phase == MB_PHASE_FIRST_STEP ? filed_at(s, 1)
                                                          : s->running;
    bool refresh = call->mode == MODE_REFRESH || call->mode == MODE_REFRESH_FIRST;
    int rc = 0;
    if (call->mode == MODE_BLOCK) {
        mb_state_ring ring = ring_of(s, call->layer);
        rc = host->ring_match(host, call, call->q_pre, &ring, s->options.match == MATCH_ANY, s->slot, s->distance,
                              s->norm);
    } else if (!refresh) {
        rc = host->row_distance(host, call, call->q_pre, stored->q, s->distance, s->norm);
    }
    counts += ((size_t)call->layer * CLASSES + (refresh ? REFRESHED : MATCHED)) * COUNTS;
    /* No distance is below a negative threshold: a refresh misses everywhere, and no share of it is let off. */
    bool relative = !refresh && s->options.rule == RULE_RELATIVE && s->options.distance <= 0;
    mb_reuse reuse = {.distance = s->distance,
                      .norm = s->norm,
                      .threshold = refresh ? -1.0f : s->threshold,
                      .relative = relative,
                      .share = refresh ? 0.0f : (float)s->options.miss_share,
                      .active = s->active,
                      .missed = s->missed,
                      .counts = counts,
                      .groups = counts + ALL_HIT};
    return rc == 0 ? host->reuse_decide(host, call, &reuse) : rc;
}

static int select_state(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    if (call->mode == MODE_DENSE)
        return 0;
    bool first = call->phase == MB_PHASE_FIRST_STEP, partial = call->rows != s->shape.block;
    if (first && partial)
        return mb_method_fail(err, "the first step of a block has %d of %d rows; its entries need all", call->rows,
                              s->shape.block);
    entries now = of_layer(s, &s->now, call->layer);
    int rc = first && call->layer == s->shape.first_layer ? make_sets(s, call) : 0;
    if (rc == 0 && partial)
        rc = move_entries(s, call, &now, false);
    if (rc == 0)
        rc = match(s, call, partial ? &s->view : &now);
    out->answer = MB_ATTEND; /* without an index: attend() counts what it reads, as long as a head's bands are */
    /* Read to choose: the stored queries of a KV head's group. */
    double blocks = call->mode == MODE_BLOCK ? (double)s->options.ring : call->mode == MODE_STEP ? 1 : 0;
    out->select_tokens = 0.5 * blocks * call->rows * s->shape.query_heads / s->shape.kv_heads;
    return rc;
}

/* ---- amend, complete ---- */

/* Attention over pages of the prefix, NULL = all of it, with the keys read on the run's account. */
static int attend_counted(const state *s, const mb_call *call, const mb_page_set *pages, const int32_t *heads,
                          const entries *to)
{
    const mb_host *host = s->host;
    int rc = pages ? host->attend_pages(host, call, pages, MB_SCOPE_PREFIX, heads, to->out, to->lse)
                   : host->attend(host, call, MB_SCOPE_PREFIX, heads, to->out, to->lse);
    return rc == 0 ? host->count_read(host, call, pages, heads) : rc;
}

static int merge_near(const state *s, const mb_call *call, const entries *far, void *out, float *lse)
{
    mb_state a = {far->out, far->lse, 0}, b = {s->near.out, s->near.lse, 0}, both = {out, lse, 0};
    return s->host->state_merge(s->host, call, &a, &b, &both);
}

/* now = the matched entries, each moved on by its own band; rows that will be computed anew are left out. */
static int start_from_ring(const state *s, const mb_call *call, const int32_t *missed, const entries *now)
{
    const mb_host *host = s->host;
    mb_state_ring ring = ring_of(s, call->layer);
    int rc = host->ring_gather(host, call, s->slot, &ring, now->out, now->lse);
    for (int32_t age = 1; age <= s->options.ring && rc == 0; age++) {
        mb_reach reach = {s->slot, age, s->active, missed, s->old, s->reached};
        rc = host->ring_reach(host, call, &ring, &reach);
        if (rc == 0)
            rc = attend_counted(s, call, &s->bands[age - 1], s->old, &s->near);
        if (rc == 0)
            rc = merge_near(s, call, now, s->fresh.out, s->fresh.lse);
        if (rc == 0)
            rc = host->rows_copy(host, call, s->old, s->reached, s->fresh.out, s->fresh.lse, now->out, now->lse);
    }
    /* The paper writes the entry back under the present query, whether it hit or missed. */
    return rc == 0 ? host->rows_copy(host, call, NULL, NULL, call->q_pre, NULL, now->q, NULL) : rc;
}

static int attend(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    bool partial = call->rows != s->shape.block;
    const int32_t *missed = s->options.mixed == MIXED_KEEP ? s->missed : NULL;
    entries whole = of_layer(s, &s->now, call->layer), now = partial ? s->view : whole;
    (void)err;
    int rc = call->mode == MODE_BLOCK ? start_from_ring(s, call, missed, &now) : 0;
    if (rc == 0) /* what missed: the far prefix, exactly */
        rc = attend_counted(s, call, s->amend == 0 ? NULL : &s->body, s->active, &s->fresh);
    if (rc == 0)
        rc = host->rows_copy(host, call, s->active, missed, s->fresh.out, s->fresh.lse, now.out, now.lse);
    if (rc == 0)
        rc = host->rows_copy(host, call, s->active, missed, call->q_pre, NULL, now.q, NULL);
    if (rc == 0 && partial)
        rc = move_entries(s, call, &whole, true);
    if (rc != 0 || s->amend == 0)
        return rc == 0 ? host->rows_copy(host, call, NULL, NULL, now.out, now.lse, out, lse) : rc;
    rc = attend_counted(s, call, &s->tail, NULL, &s->near);
    return rc == 0 ? merge_near(s, call, &now, out, lse) : rc;
}

/* ---- counters ---- */

static double share_of(double part, double all)
{
    return all > 0 ? part / all : NAN; /* nothing was counted */
}

/* Host copy of all counts, malloc'ed, or NULL and a sentence. */
static double *read_counts(const state *s, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                           mb_error *err)
{
    size_t bytes = (size_t)s->bins * sheet_bytes(s);
    double *counts = malloc(bytes);
    if (counts && read(s->host, counts, s->filed, bytes) == 0)
        return counts;
    mb_method_fail(err, "the hit counts cannot be read");
    free(counts);
    return NULL;
}

static const double *counts_at(const state *s, const double *counts, int32_t step, int32_t layer, int class)
{
    return counts + (((size_t)step * (size_t)s->shape.layers + (size_t)layer) * CLASSES + (size_t) class) * COUNTS;
}

static int report(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                  double *values, mb_error *err)
{
    const state *s = self;
    double *counts = read_counts(s, read, err);
    double all[COUNTS] = {0}, first[COUNTS] = {0}, passes = 0, heads = 0;
    for (int32_t step = 0; counts && step < s->bins; step++)
        for (int32_t layer = 0; layer < s->shape.layers; layer++) {
            const double *refreshed = counts_at(s, counts, step, layer, REFRESHED);
            const double *matched = counts_at(s, counts, step, layer, MATCHED);
            for (int i = 0; i < COUNTS; i++) {
                all[i] += matched[i];
                first[i] += step == 1 ? matched[i] : 0;
            }
            passes += refreshed[PASSES] + matched[PASSES];
            heads += refreshed[HEADS] + matched[HEADS];
        }
    values[0] = share_of(all[HITS], all[ROWS]);
    values[1] = share_of(all[HITS] - first[HITS], all[ROWS] - first[ROWS]);
    values[2] = share_of(first[HITS], first[ROWS]);
    values[3] = share_of(heads - passes, heads);
    for (int i = 0; i < 3; i++)
        values[4 + i] = share_of(all[ALL_HIT + i], all[HEADS]);
    bool good = counts != NULL;
    free(counts);
    return good ? 0 : -1;
}

static const mb_counter counters[] = {
    {"hit_rate", "", "higher", "mean", "matched rows that reuse their entry"},
    {"hit_rate_steps", "", "higher", "mean", "the same among matches of a row with its last step"},
    {"hit_rate_blocks", "", "higher", "mean", "the same among matches of a block with earlier ones"},
    {"passes_saved", "", "higher", "mean", "KV heads whose prefix was not read, over all steps that could"},
    {"groups_hit", "", "higher", "mean", "matched KV heads all of whose rows hit"},
    {"groups_mixed", "", "lower", "mean", "matched KV heads some of whose rows hit"},
    {"groups_missed", "", "lower", "mean", "matched KV heads none of whose rows hits"},
    {0}};

static const struct map_rule {
    int part, whole;
} map_rules[] = {{HITS, ROWS}, {ALL_HIT, HEADS}, {SOME_HIT, HEADS}, {NONE_HIT, HEADS}};

static const mb_counter_map maps[] = {
    {"hit_rate", "", "higher", "mean", "matched rows that reuse their entry", MB_BY_LAYER | MB_BY_STEP},
    {"groups_hit", "", "higher", "mean", "matched KV heads all of whose rows hit", MB_BY_LAYER | MB_BY_STEP},
    {"groups_mixed", "", "lower", "mean", "matched KV heads some of whose rows hit", MB_BY_LAYER | MB_BY_STEP},
    {"groups_missed", "", "lower", "mean", "matched KV heads none of whose rows hits", MB_BY_LAYER | MB_BY_STEP},
    {0}};

static int report_maps(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                       mb_counter_put put, void *to, mb_error *err)
{
    const state *s = self;
    double *counts = read_counts(s, read, err);
    int rc = counts ? 0 : -1;
    for (int32_t map = 0; maps[map].name && rc == 0; map++)
        for (int32_t step = 0; step < s->bins && rc == 0; step++)
            for (int32_t layer = 0; layer < s->shape.layers && rc == 0; layer++) {
                const double *at = counts_at(s, counts, step, layer, MATCHED);
                rc = put(to, map, layer, step, at[map_rules[map].part], at[map_rules[map].whole]);
            }
    free(counts);
    return rc;
}

static const mb_option options[] = {
    {"threshold", MB_OPTION_REAL, offsetof(settings, threshold), 0.45, -10, 1, NULL, "",
     "larger is stricter, 1 never hits; as in the authors' code (a note on the paper reads it the other way)"},
    {"distance", MB_OPTION_REAL, offsetof(settings, distance), 0, 0, 1e6, NULL, "",
     "largest distance of a hit, in place of threshold; 0 = use threshold"},
    {"rule", MB_OPTION_CHOICE, offsetof(settings, rule), 0, 0, 0, "absolute|relative", "",
     "distance against sqrt(2 D), or against the stored query's norm; the paper has the first"},
    {"axis", MB_OPTION_CHOICE, offsetof(settings, axis), 0, 0, 0, "steps|blocks|both", "",
     "what is reused: a row's last step, earlier blocks' first steps, or both"},
    {"ring", MB_OPTION_INT, offsetof(settings, ring), 16, 1, MOST_RING, NULL, "blocks",
     "axis blocks: earlier blocks that are matched; 16 of 32 tokens are the authors' code's 512 (paper: 1024)"},
    {"match", MB_OPTION_CHOICE, offsetof(settings, match), 0, 0, 0, "row|any", "",
     "axis blocks: match the rows at the same place of earlier blocks, or the nearest of all, as in the paper"},
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
    MB_OPTION_DENSE_LAYERS(0, "first layers that stay dense; the paper has none"),
    MB_OPTION_COMMIT_AS(
        "reuse", "attention of the forward that stores a finished block; dense keeps the stored keys exact"),
    {0}};

const mb_method mb_method_mac = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "mac",
    .version = "1.1",
    .summary = "queries that resemble earlier ones reuse their attention over the prefix",
    .reference = "Yao et al., MAC-Attention, MLSys 2026, arXiv 2604.00235",
    .caps = MB_CAP_OPAQUE | MB_CAP_REUSE | MB_CAP_PRE_ROPE,
    .options = options,
    .options_size = sizeof(settings),
    .counters = counters,
    .open = open_mac,
    .state_size = sizeof(state),
    .step_mode = step_mode,
    .request_begin = request_begin,
    .step_begin = step_begin,
    .select = select_state,
    .attend = attend,
    .step_end = step_end,
    .report = report,
    .maps = maps,
    .report_maps = report_maps,
};
