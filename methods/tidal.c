/*
 * tidal - TidalDecode, position-persistent sparse attention: neighbouring layers want the same keys, so two layers
 * choose and the layers above them reuse. Yang et al., ICLR 2025, arXiv 2410.05076, section 3.
 *
 *   layers 0 .. s-1       dense
 *   layer  s              dense; rho = top-k of the exact scores
 *   layers s+1 .. r-1     sparse on rho
 *   layer  r              dense; rho chosen anew
 *   layers r+1 .. L-1     sparse on rho
 *
 * every forward from scratch: nothing is carried from step to step. At s and r the output is the dense one.
 * Block diffusion: the paper ranks by q.K, whose order equals the softmax's for one query. With the G*B rows of a
 * KV head it no longer does; score = mass averages the rows' probabilities, score = logits the raw products (the
 * literal reading). KV head h of layer s feeds KV head h of the layers above (share = head), although that pairing
 * has no meaning across layers; share = all gives every head the ranking of the mean over heads. The paper
 * profiles r per model (13 of 32 layers for Llama-3-8B): auto takes the same depth. Its cache correction is what
 * a dense commit does here.
 */
#include "methods/method.h"

#include <stdbool.h>

enum { SCORE_MASS = 0, SCORE_LOGITS = 1 };
enum { SHARE_HEAD = 0, SHARE_ALL = 1 };

typedef struct settings {
    int64_t k, dense_layers, select_layer, reselect_layer;
    int32_t score, share, rows;
} settings;

typedef struct state {
    const mb_host *host;
    settings options;
    mb_shape shape;
    float *scores;   /* [batch][Hkv][stride] */
    mb_page_set rho; /* one for all layers; lives for one forward */
} state;

/* The paper's r in 32 layers, at the same relative depth, but above s. */
static int64_t reselect_layer(const settings *options, int32_t layers)
{
    if (options->reselect_layer >= 0)
        return options->reselect_layer;
    int64_t scaled = ((int64_t)layers * 13 + 16) / 32;
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

static int open_tidal(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    (void)err;
    s->host = host;
    s->options = *(const settings *)options;
    s->options.reselect_layer = reselect_layer(&s->options, shape->layers);
    s->shape = *shape;
    s->scores = host->scores_alloc(host);
    host->pages_alloc(host, 1, (int32_t)s->options.k, &s->rho);
    return 0;
}

/* Every forward chooses anew. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self, (void)call;
    return MB_MODE_SELECT;
}

/* scores -> rho, after averaging over heads where they share one set. */
static int choose(state *s, const mb_call *call)
{
    const mb_host *host = s->host;
    int rc = s->options.share == SHARE_ALL ? host->score_head_mean(host, call, s->scores) : 0;
    return rc == 0 ? host->top_k(host, call, s->scores, s->rho.capacity, NULL, &s->rho) : rc;
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
     "prefix keys that a KV head reads; the paper's default is 256"},
    {"select_layer", MB_OPTION_INT, offsetof(settings, select_layer), 2, 0, 1024, NULL, "layer",
     "first layer that chooses; the layers before it are dense"},
    {"reselect_layer", MB_OPTION_INT, offsetof(settings, reselect_layer), -1, -1, 1024, NULL, "layer",
     "layer that chooses again; -1 = max(select_layer+1, layers*13/32 rounded), the paper's Llama-3 depth; at or "
     "above the number of layers = none"},
    {"dense_layers", MB_OPTION_INT, offsetof(settings, dense_layers), 2, 0, 1024, NULL, "layers",
     "first layers that stay dense; layers up to select_layer are so anyway"},
    {"score", MB_OPTION_CHOICE, offsetof(settings, score), 0, 0, 0, "mass|logits", "",
     "ranking: mean probability of the block's rows, or mean q.k; one query, as in the paper, ranks both alike"},
    {"share", MB_OPTION_CHOICE, offsetof(settings, share), 0, 0, 0, "head|all", "",
     "a set for each KV head, or one for all; the paper's text and code disagree"},
    {"rows", MB_OPTION_CHOICE, offsetof(settings, rows), 0, 0, 0, "all|masked", "",
     "rows of the block that the average runs over; open in the paper"},
    MB_OPTION_COMMIT_AS(
        "sparse", "attention of the forward that stores a finished block; dense is the paper's cache correction"),
    {0}};

const mb_method mb_method_tidal = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "tidal",
    .version = "1.0",
    .summary = "two layers choose exactly, the layers above them reuse, anew in every forward",
    .reference = "Yang et al., TidalDecode, ICLR 2025, arXiv 2410.05076, section 3",
    .options = options,
    .options_size = sizeof(settings),
    .supports = supports,
    .open = open_tidal,
    .state_size = sizeof(state),
    .step_mode = step_mode,
    .select = select_pages,
    .observe = observe,
};
