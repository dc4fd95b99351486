/*
 * double_sparsity - few channels rank all keys, few keys are then read in full. Yang et al., Double Sparsity,
 * arXiv 2408.07092, section 3. Read: andy-yang-1/DoubleSparse b0575e6, config/offline_calibration.py,
 * evaluation/modify_llama.py.
 *
 *   heavy channels of KV head h:  the D/factor channels with the largest mean |q_c k_c|, q and k of the same token
 *   label of key j: its heavy channels, rounded to 2^bits levels between the smallest and the largest of them
 *   s[h,j] = mean over rows of sum over heavy c of label(q)_c label(K[j])_c;   I[h] = top-k of s[h,.], at every
 * step
 *
 * Differences. The paper calibrates offline on a text, per layer and query head. With channels=FILE that is so
 * here, too: the file has `D/factor` channels for each layer and KV head, in that order, with white space between
 * them. Without a file the first step of a request calibrates on its own block, whose tokens are all [MASK]
 * (statistic = token), or on all pairs of its queries and the prefix's keys (pairs); per KV head, because one set
 * of keys serves the group. The labels lie in the KV type, so memory is not what 4 bits would take; work counts
 * what they would read. bits = 0 ranks by the key cache itself. The G*B rows of a block share one set: their
 * products are averaged. The authors' script has labels of 16 bits by default and 4 in the paper's runs.
 */
#include "methods/method.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MODE_CALIBRATE = 1, MODE_SELECT = 2, MODE_REUSE = 3 };
enum { STATISTIC_TOKEN = 0, STATISTIC_PAIRS = 1 };

typedef struct settings {
    int64_t k, factor, bits, refresh;
    mb_option_file channels;
    int32_t statistic, rows;
} settings;

typedef struct layer_state {
    int32_t *channels; /* [Hkv][count] */
    void *labels;      /* as the layer's cache, rounded and 0 outside of the channels; NULL without bits */
    mb_page_set set;
} layer_state;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    int32_t count;        /* heavy channels of a head */
    float *scores;        /* [batch][Hkv][stride] */
    float *weights;       /* [Hkv][D] of one calibration */
    void *picked;         /* the queries' labels */
    layer_state layers[]; /* [layers] */
} state;

static int32_t channel_count(const settings *o, const mb_shape *shape)
{
    int32_t count = shape->head_dim / (int32_t)o->factor;
    return count < 1 ? 1 : count;
}

/* The file's channels of all layers: [layers][Hkv][count], malloc'ed; NULL with a sentence. */
static int32_t *read_channels(const settings *o, const mb_shape *shape, mb_error *err)
{
    int32_t count = channel_count(o, shape), heads = shape->layers * shape->kv_heads;
    size_t n = (size_t)count * (size_t)heads, found = 0;
    int32_t *channels = calloc(n, sizeof *channels);
    char *end = NULL;
    for (const char *at = o->channels.bytes; channels; at = end) {
        long channel = strtol(at, &end, 10);
        if (end == at)
            break;
        if (found < n && channel >= 0 && channel < shape->head_dim)
            channels[found] = (int32_t)channel;
        else
            n = 0; /* too many, or none of the head's */
        found++;
    }
    if (channels && found == n && n > 0 && strspn(end, " \t\r\n") == strlen(end))
        return channels;
    mb_method_fail(err, "channels: %s must hold %d numbers from 0 to %d for each of %d layers and %d KV heads",
                   o->channels.path, count, shape->head_dim - 1, shape->layers, shape->kv_heads);
    free(channels);
    return NULL;
}

static int supports(const mb_shape *shape, const void *options, mb_error *why)
{
    const settings *o = options;
    int32_t *channels = o->channels.bytes ? read_channels(o, shape, why) : NULL;
    free(channels);
    return o->channels.bytes && !channels;
}

static int upload_channels(state *s, mb_error *err)
{
    const mb_shape *shape = &s->shape;
    int32_t *channels = read_channels(&s->options, shape, err);
    size_t each = (size_t)shape->kv_heads * (size_t)s->count;
    int rc = channels ? 0 : -1;
    for (int l = shape->first_layer; l < shape->layers && rc == 0; l++)
        rc = s->host->upload(s->host, s->layers[l].channels, channels + (size_t)l * each, each * sizeof *channels);
    free(channels);
    return rc;
}

static int open_double_sparsity(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                                mb_error *err)
{
    state *s = *self;
    s->host = host;
    s->options = *(const settings *)options;
    s->shape = *shape;
    s->count = channel_count(&s->options, shape);
    size_t heads = (size_t)shape->kv_heads, dim = (size_t)shape->head_dim;
    s->scores = host->scores_alloc(host);
    s->weights = host->alloc(host, heads * dim * sizeof *s->weights);
    if (s->options.bits > 0)
        s->picked = host->alloc(host, (size_t)shape->batch * (size_t)shape->block * (size_t)shape->query_heads *
                                          dim * (size_t)shape->element_size);
    for (int l = shape->first_layer; l < shape->layers; l++) {
        s->layers[l].channels = host->alloc(host, heads * (size_t)s->count * sizeof *s->layers[l].channels);
        s->layers[l].labels = s->options.bits > 0 ? host->keys_alloc(host) : NULL;
        host->pages_alloc(host, 1, (int32_t)s->options.k, &s->layers[l].set);
    }
    return s->options.channels.bytes ? upload_channels(s, err) : 0;
}

static int step_mode(void *self, const mb_call *call)
{
    const state *s = self;
    int64_t n = s->options.refresh;
    if (call->phase == MB_PHASE_COMMIT)
        return n == 1 ? MODE_SELECT : MODE_REUSE;
    if (call->phase == MB_PHASE_FIRST_STEP)
        return call->block == 0 && !s->options.channels.bytes ? MODE_CALIBRATE : MODE_SELECT;
    return n > 0 && (call->step - 1) % n == 0 ? MODE_SELECT : MODE_REUSE;
}

static int label(const state *s, const mb_call *call, const layer_state *layer, int whole)
{
    return layer->labels ? s->host->key_pick(s->host, call, layer->channels, s->count, (int32_t)s->options.bits,
                                             whole, layer->labels)
                         : 0;
}

/* Labels wait for the channels: without a file those of the prompt are made at the first step. */
static int kv_added(void *self, const mb_call *call, mb_error *err)
{
    const state *s = self;
    bool whole = call->phase == MB_PHASE_PREFILL;
    (void)err;
    return whole && !s->options.channels.bytes ? 0 : label(s, call, &s->layers[call->layer], whole);
}

static int calibrate(const state *s, const mb_call *call, const layer_state *layer)
{
    int rc = s->host->heavy_channels(s->host, call, s->options.statistic == STATISTIC_TOKEN, s->count,
                                     layer->channels, s->weights);
    return rc == 0 ? label(s, call, layer, 1) : rc;
}

static int rank(state *s, const mb_call *call, const layer_state *layer)
{
    mb_call labels = *call;
    int rc = 0;
    if (layer->labels) {
        rc = s->host->query_pick(s->host, call, layer->channels, s->count, (int32_t)s->options.bits, s->picked);
        labels.q = s->picked;
        labels.k = layer->labels;
    }
    return rc == 0 ? s->host->key_scores(s->host, &labels, layer->channels, s->count, (mb_row_set)s->options.rows,
                                         s->scores)
                   : rc;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    layer_state *layer = &s->layers[call->layer];
    int rc = 0;
    out->answer = MB_SPARSE;
    out->pages = &layer->set;
    if (call->mode == MODE_REUSE)
        return 0;
    if (call->mode == MODE_CALIBRATE) {
        rc = calibrate(s, call, layer);
        out->select_tokens = 0.5 * call->max_prefix; /* all channels of all keys, once a request */
    }
    double bits = s->options.bits > 0 ? (double)s->options.bits / (s->shape.element_size * 8) : 1.0;
    out->select_tokens += 0.5 * call->max_prefix * s->count / s->shape.head_dim * bits;
    if (rc == 0)
        rc = rank(s, call, layer);
    return rc == 0 ? s->host->top_k(s->host, call, s->scores, layer->set.capacity, NULL, &layer->set) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads in full"},
    {"factor", MB_OPTION_INT, offsetof(settings, factor), 4, 1, 256, NULL, "",
     "one channel in so many is heavy; the paper has 4 to 8"},
    {"statistic", MB_OPTION_CHOICE, offsetof(settings, statistic), 0, 0, 0, "token|pairs", "",
     "what calibration sums |q k| over: a token's own query and key, as the authors do, or all rows and prefix "
     "keys"},
    {"bits", MB_OPTION_INT, offsetof(settings, bits), 4, 0, 8, NULL, "bits",
     "of a label's channel, of keys and queries; the paper has 4; 0 = the KV type"},
    {"channels", MB_OPTION_FILE, offsetof(settings, channels), 0, 0, 0, NULL, "",
     "calibrated channels: head_dim/factor numbers for each layer and KV head; none = the request calibrates"},
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
    .version = "2.0",
    .summary = "a few heavy channels rank the keys, the best are read in full",
    .reference = "Yang et al., Double Sparsity, arXiv 2408.07092, section 3",
    .options = options,
    .options_size = sizeof(settings),
    .supports = supports,
    .open = open_double_sparsity,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->layers[0]),
    .step_mode = step_mode,
    .kv_added = kv_added,
    .select = select_pages,
};
