/*
 * mage_residual - MAGE with a frozen residual: selected keys are read anew at every step, what the unselected
 * ones contributed at step 1 is kept. MAGE, arXiv 2602.14209 v2, eq. 5, for the selection; FlashBlock, arXiv
 * 2602.05305, "complementary residual reuse", for the residual. The combination is in no released code.
 *
 *   step 1:       (o, L) = exact attention over the prefix;  I = top-k of the mean over rows of exp(s[r,j] - L[r])
 *                 (o_I, L_I) = attention over I;  (o_R, L_R) = (o, L) minus (o_I, L_I)   (downdate)
 *   steps 2..T:   out = merge((o_R, L_R), fresh attention over I, fresh attention over the block)
 *
 *   downdate:  rho = exp(L_I - L);  L_R = L + ln(1 - rho);  o_R = (o - rho o_I) exp(L - L_R)
 *
 * Plain MAGE renormalises over I and the block, as if the rest did not exist; here its mass stays in the
 * denominator and its mean value in the output, at the age of step 1. Near rho = 1 the difference is noise, but so
 * is its weight: within 1e-5 the rest counts as empty. The normaliser of the selection is the prefix alone,
 * because the state that is split covers the prefix alone. The residual is kept in fp32.
 */
#include "methods/method.h"

typedef struct settings {
    int64_t k;
    int32_t rows;
} settings;

typedef struct layer_state {
    mb_page_set set;
    float *rest;     /* [batch][block][Hq][D] */
    float *rest_lse; /* [batch][block][Hq] */
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    mb_page_set everything;
    float *scores;          /* [batch][Hkv][stride] */
    void *part;             /* [batch][block][Hq][D] of the KV type: attention over the selected keys */
    float *part_lse;        /* [batch][block][Hq] */
    float *rows, *rows_lse; /* the residual of a forward with fewer rows than the block */
    layer_state layers[];   /* [layers] */
} state;

static int open_mage_residual(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                              mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    size_t states = (size_t)shape->batch * (size_t)shape->block * (size_t)shape->query_heads;
    size_t floats = states * (size_t)shape->head_dim;
    s->scores = host->scores_alloc(host);
    s->part = host->alloc(host, floats * (size_t)shape->element_size);
    s->part_lse = host->alloc(host, states * sizeof(float));
    s->rows = host->alloc(host, floats * sizeof(float));
    s->rows_lse = host->alloc(host, states * sizeof(float));
    host->pages_alloc(host, 128, 1, &s->everything);
    for (int l = shape->first_layer; l < shape->layers; l++) {
        layer_state *layer = &s->layers[l];
        layer->rest = host->alloc(host, floats * sizeof(float));
        layer->rest_lse = host->alloc(host, states * sizeof(float));
        host->pages_alloc(host, 1, (int32_t)s->options.k, &layer->set);
    }
    return 0;
}

/* The index of a step that reads every key: count -1. */
static int request_begin(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    size_t heads = (size_t)s->shape.batch * (size_t)s->shape.kv_heads;
    return s->host->fill(s->host, call, s->everything.counts, 0xff, heads * sizeof *s->everything.counts);
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    layer_state *layer = &s->layers[call->layer];
    out->answer = MB_ATTEND;
    out->pages = call->mode == MB_MODE_SELECT ? &s->everything : &layer->set;
    if (call->mode == MB_MODE_SELECT) { /* one more pass over the keys for the mass, one over the selected keys */
        int32_t k = layer->set.capacity < call->max_prefix ? layer->set.capacity : call->max_prefix;
        out->select_tokens = 0.5 * call->max_prefix + k;
    }
    return 0;
}

/* Copies the forward's rows of the block out of `whole` [batch][block], `size` bytes each. */
static int take_rows(const state *s, const mb_call *call, const void *whole, void *rows, size_t size)
{
    int rc = 0;
    for (int32_t b = 0; b < s->shape.batch && rc == 0; b++)
        rc = s->host->copy(s->host, call, (char *)rows + (size_t)b * (size_t)call->rows * size,
                           (const char *)whole +
                               ((size_t)b * (size_t)s->shape.block + (size_t)call->row_offset) * size,
                           (size_t)call->rows * size);
    return rc;
}

static int attend_first(state *s, const mb_call *call, layer_state *layer, void *out, float *lse)
{
    const mb_host *host = s->host;
    int rc = host->attend(host, call, MB_SCOPE_PREFIX, NULL, out, lse);
    if (rc == 0)
        rc = host->mass(host, call, lse, (mb_row_set)s->options.rows, MB_OVER_PREFIX, s->scores);
    if (rc == 0)
        rc = host->top_k(host, call, s->scores, layer->set.capacity, NULL, &layer->set);
    if (rc == 0)
        rc = host->attend_pages(host, call, &layer->set, MB_SCOPE_PREFIX, NULL, s->part, s->part_lse);
    mb_state total = {out, lse, 0}, part = {s->part, s->part_lse, 0}, rest = {layer->rest, layer->rest_lse, 1};
    return rc == 0 ? host->state_downdate(host, call, &total, &part, &rest) : rc;
}

static int attend(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    state *s = self;
    layer_state *layer = &s->layers[call->layer];
    if (call->mode == MB_MODE_SELECT && call->rows != s->shape.block)
        return mb_method_fail(err, "the first step of a block has %d of %d rows; the residual needs all",
                              call->rows, s->shape.block);
    if (call->mode == MB_MODE_SELECT)
        return attend_first(s, call, layer, out, lse);
    mb_state part = {s->part, s->part_lse, 0}, rest = {layer->rest, layer->rest_lse, 1}, both = {out, lse, 0};
    size_t heads = (size_t)s->shape.query_heads;
    int rc = s->host->attend_pages(s->host, call, &layer->set, MB_SCOPE_PREFIX, NULL, s->part, s->part_lse);
    if (rc == 0 && call->rows != s->shape.block) {
        rc = take_rows(s, call, rest.o, s->rows, heads * (size_t)s->shape.head_dim * sizeof(float));
        if (rc == 0)
            rc = take_rows(s, call, rest.lse, s->rows_lse, heads * sizeof(float));
        rest = (mb_state){s->rows, s->rows_lse, 1};
    }
    return rc == 0 ? s->host->state_merge(s->host, call, &part, &rest, &both) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads anew at every step"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense in all steps, as in MAGE"),
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows that the average runs over; open in the paper"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_mage_residual = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "mage_residual",
    .version = "1.0",
    .summary = "MAGE's keys fresh, the contribution of all others kept from the first step",
    .reference = "MAGE, arXiv 2602.14209 v2, eq. 5, with FlashBlock's residual reuse, arXiv 2602.05305",
    .caps = MB_CAP_RESIDUAL,
    .options = options,
    .options_size = sizeof(settings),
    .open = open_mage_residual,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = mb_mode_by_block,
    .request_begin = request_begin,
    .select = select_pages,
    .attend = attend,
};
