/*
 * blasst - tiles of keys whose best logit is far below the best one so far are skipped. Yuan et al., BLASST, arXiv
 * 2512.12087, section 3. Read: NVIDIA/Model-Optimizer a2fbac7, modelopt/torch/sparsity/attention_sparsity/methods/
 * flash_skip_softmax.py and modelopt/torch/kernels/sparsity/attention/skip_softmax_helpers.py.
 *
 *   tiles t = 0, 1, ... of the keys, rows r of a KV head: m[r,t] = max over the tile's keys of s[r,j]
 *   tile t is skipped iff m[r,t] - max_{u <= t} m[r,u] < ln(lambda) for every row r; what is left is attended
 * exactly
 *
 * It has no budget: a skipped tile weighs less than lambda times its largest neighbour for every row. The authors
 * decide inside the flash loop, which saves the values and the second product of a skipped tile, never its keys.
 * Here the method attends itself (attend()): the same rule on the same order of tiles first, then attention over
 * the tiles that are left, so the output is the paper's; keys are read twice, and work says so. The rows that must
 * agree are the G*B rows of a KV head, in the authors' kernel 128 rows of one query head. Their calibrated form,
 * lambda = scale / length, is not offered: the length is not known when a graph is captured. Defaults: tiles of
 * 128 keys, lambda 0.001 (their prefill; 0.00001 in decoding). The paper has no dense layers; 2 equals the methods
 * that it is compared with.
 */
#include "methods/method.h"

#include <math.h>

typedef struct settings {
    double lambda;
    int32_t tile;
} settings;

typedef struct state {
    const mb_host *host;
    float least;     /* ln(lambda) */
    float *gaps;     /* [batch][Hkv][stride], one entry a tile */
    float *scratch;  /* [batch][B][Hq][tiles] */
    mb_page_set set; /* one for all layers: it lives for one layer of one forward */
} state;

static const int32_t tile_tokens[] = {128, 64, 32, 16};

static int open_blasst(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    state *s = *self;
    const settings *o = options;
    int32_t tile = tile_tokens[o->tile];
    (void)err;
    s->host = host;
    s->least = (float)log(o->lambda);
    s->gaps = host->scores_alloc(host);
    size_t states = (size_t)shape->batch * (size_t)shape->block * (size_t)shape->query_heads;
    s->scratch = host->alloc(host, states * (size_t)((shape->capacity + tile - 1) / tile) * sizeof *s->scratch);
    host->pages_alloc(host, tile, shape->capacity, &s->set);
    return 0;
}

/* Every forward chooses. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self, (void)call;
    return MB_MODE_SELECT;
}

static int select_tiles(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    (void)err;
    out->answer = MB_ATTEND;
    out->pages = &s->set;
    out->select_tokens = 0.5 * call->max_prefix; /* all keys, no values */
    int rc = host->tile_gaps(host, call, s->set.granularity, s->least, s->gaps, s->scratch);
    return rc == 0 ? host->top_k(host, call, s->gaps, s->set.capacity, NULL, &s->set) : rc;
}

static int attend(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    state *s = self;
    (void)err;
    return s->host->attend_pages(s->host, call, &s->set, MB_SCOPE_PREFIX, NULL, out, lse);
}

static const mb_option options[] = {
    {"lambda", MB_OPTION_REAL, offsetof(settings, lambda), 0.001, 1e-30, 1, NULL, "",
     "a tile is skipped where its best weight is below lambda times the best one so far, for all rows"},
    {"tile", MB_OPTION_CHOICE, offsetof(settings, tile), 0, 0, 0, "128|64|32|16", "tokens", "keys of a tile"},
    MB_OPTION_DENSE_LAYERS(
        2, "first layers that stay dense; the paper has 0, 2 equals the methods it is compared with"),
    MB_OPTION_COMMIT,
    {0}};

MB_METHOD_DEFINE = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "blasst",
    .version = "1.0",
    .summary = "tiles of keys far below the running maximum are skipped, at every step",
    .reference = "Yuan et al., BLASST, arXiv 2512.12087, section 3",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_blasst,
    .state_size = sizeof(state),
    .step_mode = step_mode,
    .select = select_tiles,
    .attend = attend,
};
