/*
 * example.c - an attention method outside the maskbench tree. Copy it, rename it, change select().
 *
 * Build, from a folder that holds methods/method.h (or with the installed header's folder after -I):
 *
 *     cc -std=c11 -O2 -fPIC -shared -I. -o example.so methods/examples/example.c
 *
 * Use:
 *
 *     ./harness --plugin ./example.so help example
 *     ./harness --plugin ./example.so --config configs/quick.json --methods exact,example
 *
 * or put the .so into a folder of $MASKBENCH_PLUGIN_PATH. Nothing of maskbench is linked: every function that a
 * method may call arrives in struct mb_host. Inside the tree the same file, as methods/NAME.c with its own .name,
 * is a built-in method after the next `make`.
 *
 * What this method does, so that there is something to read: at the first denoising step of a block it lets the
 * harness attend exactly and asks for the mass that each prefix key received. It smooths the mass along the keys,
 * so that the neighbours of an important token come along, adds the first tokens, keeps the k best, and reuses
 * them for the later steps of the block.
 */
#include "methods/method.h"

#include <string.h>

/* ---- options ------------------------------------------------------------------------------------------------
 * A plain struct, and below a table of rows that write into it. int64_t for INT, double for REAL, int32_t for
 * BOOL and CHOICE. Not required; but a row named "k" makes the method comparable at equal budgets. */
typedef struct settings {
    int64_t k;      /* tokens */
    int64_t sink;   /* tokens */
    int64_t kernel; /* tokens, odd */
} settings;

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 512, 1, 1 << 24, NULL, "tokens",
     "prefix keys that a KV head reads"},
    {"sink", MB_OPTION_INT, offsetof(settings, sink), 4, 0, 1 << 20, NULL, "tokens",
     "first tokens that are always read, within k"},
    {"kernel", MB_OPTION_INT, offsetof(settings, kernel), 5, 1, 63, NULL, "tokens",
     "width of the smoothing; even widths are refused by supports()"},
    /* Applied by the host, as MB_OPTION_DENSE_LAYERS would be: where it says
     * so, the host attends exactly and select() is not called. */
    MB_OPTION_COMMIT_AS("sparse", "attention of the forward that stores a finished block"),
    {0}}; /* the end of the table */

/* ---- counters -----------------------------------------------------------------------------------------------
 * Numbers of your own: they are stored with every sample and printed in the report. Not required. */
static const mb_counter counters[] = {{"blocks", "blocks", "", "sum", "blocks for which an index was chosen"},
                                      {0}};

/* The same by layer, by step, or by both: one value a place. A share hands in numerator and denominator, so that
 * means over samples are right. They end in the view v_counter_grid and in a figure. Not required. */
static const mb_counter_map maps[] = {
    {"reached", "blocks", "", "sum", "blocks that had this denoising step", MB_BY_STEP}, {0}};

enum { MOST_STEPS = 256 };

/* ---- state --------------------------------------------------------------------------------------------------
 * One object per configuration and session. It lives from open() to close(). */
typedef struct state {
    const mb_host *host; /* the functions we may call; valid until close() */
    settings options;
    double blocks; /* host memory: hooks may change it, kernels cannot see it */
    double reached[MOST_STEPS];
    float *scores;      /* device memory: [batch][Hkv][stride] fp32 */
    mb_page_set sets[]; /* [layers], each with its ids and counts in device memory */
} state;

/* supports: 0 = runs; 1 = cannot run with this model or these options, and why. The run then stores a skipped row
 * with the reason. It is the place for checks that a single option's range cannot express. Not required. */
static int supports(const mb_shape *shape, const void *values, mb_error *why)
{
    const settings *o = values;
    (void)shape;
    if (o->kernel % 2 == 0) {
        mb_method_fail(why, "kernel must be odd, not %lld", (long long)o->kernel);
        return 1;
    }
    return 0;
}

/* open: take all memory here; no later hook may allocate. Do not touch device memory yet: the
 * host may be running open() only to count the bytes. Required. */
static int open_example(void **self, const mb_host *host, const mb_shape *shape, const void *values, mb_error *err)
{
    state *s = *self; /* zeroed, state_size bytes and state_layer_size more for each layer */
    (void)err;
    s->host = host;
    s->options = *(const settings *)values;
    s->scores = host->scores_alloc(host);
    for (int l = shape->first_layer; l < shape->layers; l++)
        host->pages_alloc(host, 1, (int32_t)s->options.k, &s->sets[l]); /* granularity 1: an entry is a token */
    return 0; /* where an allocation failed, the host says so */
}

/* step_mode: called before every forward, on the host. Steps with different numbers may do different work; steps
 * with the same number do the same, so that the harness can capture them as CUDA graphs. The answer comes back as
 * call->mode. mb_mode_by_block() of method.h does the same as this one. Leave it out if the work depends on more
 * than that: you then run without graphs. Not required. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self;
    return call->phase == MB_PHASE_FIRST_STEP ? MB_MODE_SELECT : MB_MODE_REUSE;
}

/* request_begin: a new sample starts. Forget what belonged to the last one. Not required. */
static int request_begin(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)call, (void)err;
    s->blocks = 0;
    memset(s->reached, 0, sizeof s->reached);
    return 0;
}

/* kv_added: keys and values of one layer have arrived, after a prefill (the whole prefix) or in a commit forward
 * (one block). Page summaries and label caches are kept up to date here; we need none. Not required. */
static int kv_added(void *self, const mb_call *call, mb_error *err)
{
    (void)self, (void)call, (void)err;
    return 0;
}

/* block_begin, step_end, block_end: call->layer is -1. Not required. */
static int block_begin(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)call, (void)err;
    s->blocks += 1;
    return 0;
}

/* step_begin runs at every denoising step, also where the forward behind it is a replayed graph and select() is
 * not called. So this is a place to count on the host, or to enqueue a copy that files what a kernel counted. */
static int step_begin(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    (void)err;
    if (call->step < MOST_STEPS)
        s->reached[call->step] += 1;
    return 0;
}

/* select: the heart. Called for each layer of each forward, after the layer's queries are known. *out is zeroed,
 * which means "attend exactly, I want nothing". The index in out->pages must be complete on the device when the
 * hook returns, in stream order: enqueue, do not wait. Required. */
static int select_pages(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    switch (call->mode) {
    case MB_MODE_SELECT:
        out->answer = MB_DENSE;
        out->want = MB_WANT_MASS; /* observe() will see call->mass */
        out->rows = MB_ROWS_ALL;
        out->normaliser = MB_OVER_ALL;
        out->select_tokens = 0.5 * call->max_prefix; /* the mass costs a second pass over the keys */
        break;
    case MB_MODE_REUSE:
        out->answer = MB_SPARSE;
        out->pages = &s->sets[call->layer];
        break;
    default:
        out->answer = MB_DENSE;
        break;
    }
    return 0;
}

/* observe: after a dense layer whose selection wanted by-products. call->mass belongs to the host and is valid
 * only now. Required if select() ever sets out->want. */
static int observe(void *self, const mb_call *call, mb_error *err)
{
    state *s = self;
    const mb_host *host = s->host;
    mb_page_set *set = &s->sets[call->layer];
    int32_t sink = s->options.sink < set->capacity ? (int32_t)s->options.sink : set->capacity;
    int rc = host->score_smooth(host, call, call->mass, (int32_t)s->options.kernel, MB_POOL_SUM, s->scores);
    if (rc == 0)
        rc = host->score_edges(host, call, 1, sink, 0, 2.0f, s->scores); /* above every mass, which is <= 1 */
    if (rc == 0)
        rc = host->top_k(host, call, s->scores, set->capacity, NULL, set);
    if (rc != 0)
        mb_method_fail(err, "choosing the keys of layer %d failed", call->layer); /* a sentence, no newline */
    return rc;
}

/* report: the counters' values, in the order of the table, at the end of a request. `read` copies device memory
 * to the host. Required if there are counters. */
static int report(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                  double *values, mb_error *err)
{
    const state *s = self;
    (void)read, (void)err;
    values[0] = s->blocks;
    return 0;
}

/* report_maps: every value of the maps, by put(); here layer is -1, because the map is not by layer. What put()
 * refuses costs the sample. Required if there are maps. */
static int report_maps(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                       mb_counter_put put, void *to, mb_error *err)
{
    const state *s = self;
    int rc = 0;
    (void)read, (void)err;
    for (int32_t step = 1; step < MOST_STEPS && rc == 0; step++)
        if (s->reached[step] > 0)
            rc = put(to, 0, -1, step, s->reached[step], 1);
    return rc;
}

/* ---- the method ---------------------------------------------------------------------------------------------
 * abi and size first. Hooks that are left out are NULL. MB_METHOD_DEFINE also makes the one symbol that the loader
 * looks for, or, in the tree, the one that the registry lists. Required. */
MB_METHOD_DEFINE = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "example", /* Required: a-z, 0-9, _ and - */
    .version = "1.0",  /* Required */
    .summary = "smoothed mass of the first step chooses the keys of the later ones", /* Required */
    .reference = "none; first-step selection with SnapKV's pooling",                 /* Required: paper, section */
    .caps = 0, /* MB_CAP_*: e.g. MB_CAP_PRE_ROPE if you read call->q_pre */
    .options = options,
    .options_size = sizeof(settings),
    .counters = counters,
    .supports = supports,
    .open = open_example,
    .state_size = sizeof(state),
    .state_layer_size = sizeof(((state *)0)->sets[0]),
    .step_mode = step_mode,
    .request_begin = request_begin,
    .kv_added = kv_added,
    .block_begin = block_begin,
    .step_begin = step_begin,
    .select = select_pages,
    .observe = observe,
    .report = report,
    .maps = maps,
    .report_maps = report_maps,
};
