/*
 * flashblock - reuse of the prefix's attention output across denoising steps. FlashBlock, arXiv 2602.05305 (ICML
 * 2026), the split of keys into block-external and block-internal.
 *
 *   dirty = tokens unmasked since the prefix was last read
 *   step 1, and a step that finds dirty >= tau:  (o[r], L[r]) = attention over the prefix
 *   otherwise:  (o[r], L[r]) as it was;   always:  out[r] = merge((o[r], L[r]), fresh attention over the block)
 *
 * The paper's setting is block diffusion, so nothing is adapted: while a block is denoised the prefix is frozen
 * and a row keeps its position, hence its cached pair only ages through the row's own query. dirty and tau are the
 * authors' code's, which has tau 2 and 3: at one token a step and tau 2 every second step
 * reads. Their inference code also zeroes the output that is kept for rows unmasked in the meantime, their
 * training code does not; here it is kept. A schedule that unmasks tau or more tokens in every step never reuses.
 * The count is that of the first sequence: a batch moves together. refresh is ours: a bound on the age. It keeps
 * every key, so it has no token budget, and as it chooses none it has no recall.
 */
#include "methods/method.h"

enum { MODE_REFRESH = 1, MODE_REUSE = 2 };

typedef struct settings {
    int64_t tau, refresh;
} settings;

typedef struct layer_state {
    void *out;  /* [batch][block][Hq][D] of the KV type */
    float *lse; /* [batch][block][Hq] */
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    int32_t masked;       /* rows, at the last step */
    int32_t dirty, age;   /* tokens unmasked, steps taken since the prefix was read */
    double reused, later; /* denoising steps after the first of a block */
    mb_page_set everything, nothing;
    layer_state layers[]; /* [layers] */
} state;

static int open_flashblock(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                           mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    size_t states = (size_t)shape->batch * (size_t)shape->block * (size_t)shape->query_heads;
    host->pages_alloc(host, 128, 1, &s->everything);
    host->pages_alloc(host, 128, 1, &s->nothing);
    for (int l = shape->first_layer; l < shape->layers; l++) {
        s->layers[l].out = host->alloc(host, states * (size_t)shape->head_dim * (size_t)shape->element_size);
        s->layers[l].lse = host->alloc(host, states * sizeof(float));
    }
    return 0;
}

/* The two indices that say what was read: all keys (count -1), or none (count 0, as allocated). */
static int request_begin(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    s->reused = s->later = 0;
    size_t heads = (size_t)s->shape.batch * (size_t)s->shape.kv_heads;
    return s->host->fill(s->host, call, s->everything.counts, 0xff, heads * sizeof *s->everything.counts);
}

static int step_mode(void *self, const mb_call *call)
{
    state *s = self;
    if (call->phase == MB_PHASE_COMMIT)
        return MODE_REUSE;
    int32_t updated = s->masked - call->masked_rows;
    s->dirty += updated > 0 ? updated : 0; /* a sampler may mask a row again */
    int refresh = call->phase == MB_PHASE_FIRST_STEP || s->dirty >= s->options.tau ||
                  (s->options.refresh > 0 && s->age + 1 >= s->options.refresh);
    s->masked = call->masked_rows;
    s->age = refresh ? 0 : s->age + 1;
    s->dirty = refresh ? 0 : s->dirty;
    s->later += call->phase != MB_PHASE_FIRST_STEP;
    s->reused += !refresh;
    return refresh ? MODE_REFRESH : MODE_REUSE;
}

static int select_state(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    out->answer = MB_ATTEND;
    out->pages = call->mode == MODE_REFRESH ? &s->everything : &s->nothing;
    return 0;
}

/* Copies the forward's rows between `rows` [batch][call->rows] and `whole` [batch][block], `size` bytes each. */
static int move_rows(const state *s, const mb_call *call, void *whole, void *rows, size_t size, int store)
{
    int rc = 0;
    for (int32_t b = 0; b < s->shape.batch && rc == 0; b++) {
        char *at = (char *)whole + ((size_t)b * (size_t)s->shape.block + (size_t)call->row_offset) * size;
        char *part = (char *)rows + (size_t)b * (size_t)call->rows * size;
        rc = s->host->copy(s->host, call, store ? at : part, store ? part : at, (size_t)call->rows * size);
    }
    return rc;
}

static int attend(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    state *s = self;
    layer_state *layer = &s->layers[call->layer];
    int store = call->mode == MODE_REFRESH;
    size_t heads = (size_t)s->shape.query_heads;
    size_t vectors = heads * (size_t)s->shape.head_dim * (size_t)s->shape.element_size;
    (void)err;
    int rc = store ? s->host->attend(s->host, call, MB_SCOPE_PREFIX, NULL, out, lse) : 0;
    if (rc == 0)
        rc = move_rows(s, call, layer->out, out, vectors, store);
    return rc == 0 ? move_rows(s, call, layer->lse, lse, heads * sizeof *lse, store) : rc;
}

static int report(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                  double *values, mb_error *err)
{
    const state *s = self;
    (void)read, (void)err;
    values[0] = s->later > 0 ? s->reused / s->later : 0;
    return 0;
}

static const mb_option options[] = {
    {"tau", MB_OPTION_INT, offsetof(settings, tau), 2, 1, 1 << 20, NULL, "tokens",
     "read the prefix once so many tokens were unmasked since it was last read; the authors' code has 2 and 3"},
    {"refresh", MB_OPTION_INT, offsetof(settings, refresh), 0, 0, 1 << 20, NULL, "steps",
     "read the prefix at least every so many steps; 0 = no bound, as in the paper"},
    MB_OPTION_DENSE_LAYERS(0, "first layers that stay dense in all steps; the paper has none"),
    MB_OPTION_COMMIT_AS(
        "reuse", "attention of the forward that stores a finished block; dense keeps the stored keys exact"),
    {0}};

static const mb_counter counters[] = {
    {"reuse_rate", "", "higher", "mean", "steps after the first of a block that did not read the prefix"}, {0}};

const mb_method mb_method_flashblock = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "flashblock",
    .version = "1.1",
    .summary = "keeps the prefix's attention output while few tokens change",
    .reference = "FlashBlock, ICML 2026, arXiv 2602.05305",
    .caps = MB_CAP_OPAQUE | MB_CAP_REUSE,
    .options = options,
    .options_size = sizeof(settings),
    .counters = counters,
    .open = open_flashblock,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .request_begin = request_begin,
    .select = select_state,
    .attend = attend,
    .report = report,
};
