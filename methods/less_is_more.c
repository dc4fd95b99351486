/*
 * less_is_more - one set of keys for all heads: every head names its best keys, the names are taken in turns, the
 * most recent keys are kept. Yang et al., LessIsMore, arXiv 2508.07101, section 3. Read: DerrickYLJ/LessIsMore
 * 6753bf7, src/tidal_build/modify_qwen3_lim.py, experiments/reasoning/run_eval_slurm.sh.
 *
 *   middle = floor((1 - recent) k), last = k - middle; the first `sink` keys take their place out of last, if it
 * has it each head: its `middle` best keys among those that are neither first nor last order: all heads' first
 * choice, head by head, then all heads' second one ...; without repeats, cut at `middle` rho = first `sink` +
 * these + last; the layers choose and reuse as in TidalDecode (methods/tidal.c): layers 0 .. s-1 dense; layer s
 * dense, chooses; then sparse on rho, but layer r dense, chooses again
 *
 * Defaults are those of the authors' run script: recent 0.25, sink 4, s 2; r is chosen per model there (12 or 20
 * of 36 layers), auto takes 12/36 of the depth. Differences. The authors' heads are the query heads of one token;
 * here a head is a KV head with the G*B rows that share it, ranked by their mean probability (score = mass) or by
 * the mean of q.K (logits): for one row and G = 1 both are the authors' order. k and the recent keys are those of
 * the prefix, because the block is read anyway. Which keys are cut depends on the order of the heads, there and
 * here.
 */
#include "methods/method.h"

#include <math.h>
#include <stdbool.h>

enum { SCORE_MASS = 0, SCORE_LOGITS = 1 };

typedef struct settings {
    double recent;
    int64_t k, sink, dense_layers, select_layer, reselect_layer;
    int32_t score, rows;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    int32_t sink, last;     /* keys that are always read, within k */
    float *scores, *places; /* [batch][Hkv][stride] */
    mb_page_set named;      /* the middle keys that each head names */
    mb_page_set rho;        /* one for all layers and heads; lives for one forward */
} state;

static int64_t reselect_layer(const settings *options, int32_t layers)
{
    if (options->reselect_layer >= 0)
        return options->reselect_layer;
    int64_t scaled = ((int64_t)layers * 12 + 18) / 36;
    return scaled > options->select_layer ? scaled : options->select_layer + 1;
}

static int supports(const mb_shape *shape, const void *options, mb_error *why)
{
    const settings *o = options;
    if (o->select_layer >= shape->layers) {
        mb_method_fail(why, "select_layer %lld does not exist: the model has layers 0 to %d",
                       (long long)o->select_layer, shape->layers - 1);
        return 1;
    }
    if (reselect_layer(o, shape->layers) <= o->select_layer) {
        mb_method_fail(why, "reselect_layer %lld must be above select_layer %lld", (long long)o->reselect_layer,
                       (long long)o->select_layer);
        return 1;
    }
    return 0;
}

static int open_less(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->options.reselect_layer = reselect_layer(&s->options, shape->layers);
    s->shape = *shape;
    s->scores = host->scores_alloc(host);
    s->places = host->scores_alloc(host);
    host->pages_alloc(host, 1, (int32_t)s->options.k, &s->rho);
    int64_t middle = (int64_t)((double)s->options.k * (1.0 - s->options.recent)), last = s->options.k - middle;
    s->sink = last >= s->options.sink ? (int32_t)s->options.sink : 0;
    s->last = (int32_t)(last - s->sink);
    host->pages_alloc(host, 1, middle > 0 ? (int32_t)middle : 1, &s->named);
    s->named.capacity = middle > 0 ? s->named.capacity : 0;
    return 0;
}

/* Every forward chooses anew. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self, (void)call;
    return MB_MODE_SELECT;
}

/* scores -> rho. */
static int choose(state *s, const mb_call *call)
{
    const mb_host *host = s->host;
    int rc = host->score_edges(host, call, 1, s->sink, s->last, -INFINITY, s->scores);
    if (rc == 0)
        rc = host->top_k(host, call, s->scores, s->named.capacity, NULL, &s->named);
    if (rc == 0)
        rc = host->score_interleave(host, call, s->scores, &s->named, s->places);
    if (rc == 0) /* all places are at most 0 */
        rc = host->score_edges(host, call, 1, s->sink, s->last, 1.0f, s->places);
    return rc == 0 ? host->top_k(host, call, s->places, s->rho.capacity, NULL, &s->rho) : rc;
}

static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const settings *o = &s->options;
    (void)err;
    bool chooses = call->layer == o->select_layer || call->layer == o->reselect_layer;
    if (!chooses) {
        if (call->layer > o->select_layer && call->layer >= o->dense_layers) {
            out->answer = MB_SPARSE;
            out->pages = &s->rho;
        }
        return 0;
    }
    out->answer = MB_DENSE;
    out->select_tokens = 0.5 * call->max_prefix; /* either score takes one more pass over the keys */
    if (o->score == SCORE_MASS) {
        out->want = MB_WANT_MASS;
        out->rows = (mb_row_set)o->rows;
        out->normaliser = MB_OVER_ALL;
        return 0;
    }
    int rc = s->host->key_scores(s->host, call, NULL, 0, (mb_row_set)o->rows, s->scores);
    return rc == 0 ? choose(s, call) : rc;
}

static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    size_t bytes = (size_t)s->shape.batch * (size_t)s->shape.kv_heads * (size_t)s->shape.stride * sizeof(float);
    int rc = s->host->copy(s->host, call, s->scores, call->mass, bytes); /* the host's array stays as it is */
    return rc == 0 ? choose(s, call) : rc;
}

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that all KV heads read; the paper has 1024 to 6144"},
    {"recent", MB_OPTION_REAL, offsetof(settings, recent), 0.25, 0, 1, NULL, "",
     "share of k for the most recent keys and the sink; the paper has 0.25"},
    {"sink", MB_OPTION_INT, offsetof(settings, sink), 4, 0, 1 << 20, NULL, "tokens",
     "first keys that are always read, out of the recent share; 0 where it is smaller; 4 in the authors' runs"},
    {"select_layer", MB_OPTION_INT, offsetof(settings, select_layer), 2, 0, 1024, NULL, "layer",
     "first layer that chooses; the layers before it are dense"},
    {"reselect_layer", MB_OPTION_INT, offsetof(settings, reselect_layer), -1, -1, 1024, NULL, "layer",
     "layer that chooses again; -1 = max(select_layer+1, layers*12/36 rounded), the authors' Qwen3-8B depth; at "
     "or "
     "above the number of layers = none"},
    {"dense_layers", MB_OPTION_INT, offsetof(settings, dense_layers), 2, 0, 1024, NULL, "layers",
     "first layers that stay dense; layers up to select_layer are so anyway"},
    {"score", MB_OPTION_CHOICE, offsetof(settings, score), 0, 0, 0, "mass|logits", "",
     "a head's ranking: mean probability of its rows, or mean q.k; one query, as in the paper, ranks both alike"},
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that the average runs over; the paper has one"},
    MB_OPTION_COMMIT,
    {0}};

MB_METHOD_DEFINE = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "less_is_more",
    .version = "1.0",
    .summary =
        "two layers choose one set for all heads, their choices in turns and the recent keys; the rest reuse",
    .reference = "Yang et al., LessIsMore, arXiv 2508.07101, section 3",
    .caps = MB_CAP_HEAD_ORDER,
    .options = options,
    .options_size = sizeof(settings),
    .supports = supports,
    .open = open_less,
    .state_size = sizeof(state),
    .step_mode = step_mode,
    .select = select_pages,
    .observe = observe,
};
