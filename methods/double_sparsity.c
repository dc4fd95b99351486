/*
 * double_sparsity - few channels rank all keys, few keys are then read in full. Yang et al., Double Sparsity,
 * arXiv 2408.07092, section 3.
 *
 *   heavy channels of KV head h:  the D/factor channels with the largest mean |q_c k_c|
 *   s[h,j] = mean over rows of sum over heavy c of q_c K[j,c];   I[h] = top-k of s[h,.], at every step
 *
 * Differences. The paper calibrates the channels offline on a data set, per layer and query head, and keeps a
 * label cache of those channels in 4 bits. Here the first step of a request calibrates on its own queries and keys
 * (no outside data, and all-[MASK] queries differ from text's), per KV head, because one set of keys serves the
 * group; and the channels are read from the key cache itself, so the traffic is the label cache's in the KV type.
 * The G*B rows of a block share one set: their products are averaged, i.e. the mean query is what ranks.
 */
#include "methods/method.h"

enum { MODE_CALIBRATE = 1, MODE_SELECT = 2, MODE_REUSE = 3 };

typedef struct settings {
    int64_t k, factor, refresh;
    int32_t rows;
} settings;

typedef struct layer_state {
    int32_t *channels; /* [Hkv][count] */
    mb_page_set set;
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    int32_t count;        /* heavy channels of a head */
    float *scores;        /* [batch][Hkv][stride] */
    float *weights;       /* [Hkv][D] of one calibration */
    layer_state layers[]; /* [layers] */
} state;

static int open_double_sparsity(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                                mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    s->count = shape->head_dim / (int32_t)s->options.factor;
    s->count = s->count < 1 ? 1 : s->count;
    size_t heads = (size_t)shape->kv_heads;
    s->scores = host->scores_alloc(host);
    s->weights = host->alloc(host, heads * (size_t)shape->head_dim * sizeof *s->weights);
    for (int l = shape->first_layer; l < shape->layers; l++) {
        s->layers[l].channels = host->alloc(host, heads * (size_t)s->count * sizeof *s->layers[l].channels);
        host->pages_alloc(host, 1, (int32_t)s->options.k, &s->layers[l].set);
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
        return call->block == 0 ? MODE_CALIBRATE : MODE_SELECT;
    return n > 0 && (call->step - 1) % n == 0 ? MODE_SELECT : MODE_REUSE;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    (void)err;
    layer_state *layer = &s->layers[call->layer];
    int rc = 0;
    out->answer = MB_SPARSE;
    out->pages = &layer->set;
    if (call->mode == MODE_REUSE)
        return 0;
    if (call->mode == MODE_CALIBRATE) {
        rc = host->heavy_channels(host, call, 0, s->count, layer->channels, s->weights);
        out->select_tokens = 0.5 * call->max_prefix; /* all channels of all keys, once a request */
    }
    out->select_tokens += 0.5 * call->max_prefix * s->count / s->shape.head_dim;
    if (rc == 0)
        rc = host->key_scores(host, call, layer->channels, s->count, (mb_row_set)s->options.rows, s->scores);
    return rc == 0 ? host->top_k(host, call, s->scores, layer->set.capacity, NULL, &layer->set) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads in full"},
    {"factor", MB_OPTION_INT, offsetof(settings, factor), 4, 1, 256, NULL, "",
     "one channel in so many is heavy; the paper has 4 to 8"},
    {"refresh", MB_OPTION_INT, offsetof(settings, refresh), 1, 0, 1 << 20, NULL, "steps",
     "rank anew every so many denoising steps; 1 = each, as in the paper; 0 = only at the first"},
    MB_OPTION_DENSE_LAYERS(2, "first layers that stay dense in all steps"),
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that the mean query runs over; the paper has one query"},
    MB_OPTION_COMMIT,
    {0}};

const mb_method mb_method_double_sparsity = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "double_sparsity",
    .version = "1.0",
    .summary = "a few heavy channels rank the keys, the best are read in full",
    .reference = "Yang et al., Double Sparsity, arXiv 2408.07092, section 3",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_double_sparsity,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .select = select_pages,
};
