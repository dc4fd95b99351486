/*
 * fake_method.h - one method with many behaviours for the tests of attenders: it notes the hooks it sees, chooses
 * the best or the worst keys, a known index, a state of its own, and fails in every way that a method can. It
 * writes device memory directly, so it runs on the CPU only.
 */
#ifndef MB_TESTS_MODEL_FAKE_METHOD_H
#define MB_TESTS_MODEL_FAKE_METHOD_H

#include "tests/model/engine_fixture.h"

/* ---- one method, many behaviours ---- */

enum behaviour {
    DENSE,
    BEST,
    WORST,
    PAGES,
    ALL_PAGES,
    OWN_STATE,
    OWN_NAN,
    OPAQUE_STATE,
    WATCH,
    FAIL,
    UNSORTED,
    NO_PAGES,
    FAIL_OPEN,
    ALTERNATE
};

struct fake_options {
    enum behaviour behaviour;
    int32_t k, granularity;
    mb_row_set rows;
    mb_normaliser normaliser;
};

struct fake {
    struct fake_options options;
    const mb_host *host;
    mb_shape shape;
    float *scores, *zero, *check;
    mb_page_set set;
    mb_text log;
    int32_t observed, selected;
    bool late_alloc;
    double worst_error, smallest_sum, largest_sum;
    uint64_t inputs; /* hash of the first layer's queries of all forwards: of the tokens, nothing a method does */
};

static struct fake *last_fake;

static int fake_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    struct fake *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    *self = f;
    f->options = *(const struct fake_options *)options;
    f->host = host;
    f->shape = *shape;
    f->smallest_sum = INFINITY;
    f->scores = host->scores_alloc(host);
    f->zero = host->scores_alloc(host);
    f->check = host->alloc(host, 1000);
    int32_t granularity = f->options.granularity > 0 ? f->options.granularity : 1;
    if (!f->scores || !f->zero || !f->check ||
        host->pages_alloc(host, granularity, shape->capacity / granularity + 1, &f->set) != 0)
        return -1;
    last_fake = f;
    if (f->options.behaviour == FAIL_OPEN)
        return mb_fail(err, -1, "the moon is not full");
    return 0;
}

static void fake_close(void *self)
{
    struct fake *f = self;
    mb_text_free(&f->log);
    free(f);
}

static void note(struct fake *f, const char *hook, const mb_call *call)
{
    mb_text_printf(&f->log, "%s b%d s%d p%d l%d N%d m%d\n", hook, call->block, call->step, (int)call->phase,
                   call->layer, call->prefix_len[0], call->masked_rows);
}

#define HOOK(name)                                                                                                \
    static int fake_##name(void *self, const mb_call *call, mb_error *err)                                        \
    {                                                                                                             \
        (void)err;                                                                                                \
        note(self, #name, call);                                                                                  \
        return 0;                                                                                                 \
    }
HOOK(request_begin)
HOOK(kv_added)
HOOK(block_begin)
HOOK(step_begin)
HOOK(step_end)
HOOK(block_end)

static void known_pages(struct fake *f, int32_t pages)
{
    for (int32_t h = 0; h < f->shape.kv_heads; h++) {
        f->set.counts[h] = pages;
        for (int32_t i = 0; i < pages; i++)
            f->set.ids[h * f->set.capacity + i] = i;
    }
}

static int choose_keys(struct fake *f, const mb_call *call, bool best)
{
    const mb_host *host = f->host;
    size_t heads = (size_t)f->shape.batch * (size_t)f->shape.kv_heads;
    if (call->phase == MB_PHASE_COMMIT)
        return 0;
    int rc = host->mass(host, call, NULL, MB_ROWS_ALL, MB_OVER_ALL, f->scores);
    if (rc == 0 && !best) /* zero minus mass: the lightest keys first */
        rc = host->fill(host, call, f->zero, 0, heads * (size_t)f->shape.stride * sizeof(float));
    if (rc == 0 && !best)
        rc = host->score_axpby(host, call, -1.0f, f->scores, 0.0f, f->zero);
    if (rc == 0)
        rc = host->top_k(host, call, best ? f->scores : f->zero, f->options.k, NULL, &f->set);
    return rc;
}

static int fake_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    struct fake *f = self;
    note(f, "select", call);
    f->selected++;
    size_t heads = (size_t)f->shape.query_heads * (size_t)f->shape.batch;
    size_t bytes = heads * (size_t)call->rows * (size_t)f->shape.head_dim * (size_t)f->shape.element_size;
    for (size_t i = 0; call->layer == 0 && i < bytes; i++)
        f->inputs = (f->inputs ^ ((const unsigned char *)call->q)[i]) * 0x100000001b3u;
    if (f->host->alloc(f->host, 64))
        f->late_alloc = true; /* no memory outside open() */
    bool commit = call->phase == MB_PHASE_COMMIT;
    switch (f->options.behaviour) {
    case BEST:
    case WORST:
        out->answer = commit ? MB_DENSE : MB_SPARSE;
        out->pages = &f->set;
        return choose_keys(f, call, f->options.behaviour == BEST);
    case PAGES:
    case ALTERNATE:
        known_pages(f, f->options.k);
        out->answer = commit || (f->options.behaviour == ALTERNATE && call->layer % 2) ? MB_DENSE : MB_SPARSE;
        out->pages = &f->set;
        out->select_tokens = commit ? 0 : 8;
        return 0;
    case ALL_PAGES:
        for (int32_t h = 0; h < f->shape.kv_heads; h++)
            f->set.counts[h] = -1;
        out->answer = MB_SPARSE;
        out->pages = &f->set;
        return 0;
    case OWN_STATE:
        out->pages = &f->set;
        known_pages(f, (call->max_prefix + f->set.granularity - 1) / f->set.granularity);
        out->answer = MB_ATTEND;
        return 0;
    case OPAQUE_STATE:
        out->select_tokens = 3;
        out->answer = MB_ATTEND;
        return 0;
    case OWN_NAN:
        out->answer = call->step == 2 ? MB_ATTEND : MB_DENSE;
        return 0;
    case WATCH:
        out->want = MB_WANT_LSE | MB_WANT_MASS;
        out->rows = f->options.rows;
        out->normaliser = f->options.normaliser;
        return 0;
    case FAIL:
        return call->layer == 2 && call->step == 2 ? mb_fail(err, -7, "no luck today") : 0;
    case UNSORTED:
        known_pages(f, 3);
        f->set.ids[1] = 0;
        out->answer = commit ? MB_DENSE : MB_SPARSE;
        out->pages = &f->set;
        return 0;
    case NO_PAGES:
        out->answer = MB_SPARSE;
        return 0;
    default:
        return 0;
    }
}

static int fake_attend(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    struct fake *f = self;
    (void)err;
    int rc = f->host->attend(f->host, call, MB_SCOPE_PREFIX, NULL, out, lse);
    if (rc == 0 && f->options.behaviour == OWN_NAN)
        ((float *)out)[5] = NAN;
    return rc;
}

/* The mass by definition, in double, from queries and keys (fp32 sessions). Returns the sum over prefix keys. */
static double brute_mass(const struct fake *f, const mb_call *call, int32_t head, double *mass)
{
    const float *q = call->q, *k = call->k;
    int32_t prefix = call->prefix_len[0], dim = f->shape.head_dim,
            group = f->shape.query_heads / f->shape.kv_heads;
    int32_t keys = prefix + (f->options.normaliser == MB_OVER_ALL ? f->shape.block : 0), rows = 0, masked = 0;
    double *logit = malloc((size_t)keys * sizeof *logit), sum = 0;
    assert_non_null(logit);
    for (int32_t r = 0; r < call->rows; r++)
        masked += call->masked[r] != 0;
    memset(mass, 0, (size_t)prefix * sizeof *mass);
    k += (size_t)head * (size_t)f->shape.capacity * (size_t)dim;
    for (int32_t r = 0; r < call->rows; r++) {
        if (f->options.rows == MB_ROWS_MASKED && masked > 0 && call->masked[r] == 0)
            continue;
        if (f->options.rows == MB_ROWS_CENTRE && r != f->shape.block / 2)
            continue;
        rows++;
        for (int32_t g = 0; g < group; g++) {
            const float *row =
                q + ((size_t)r * (size_t)f->shape.query_heads + (size_t)(head * group + g)) * (size_t)dim;
            double top = -INFINITY, total = 0;
            for (int32_t j = 0; j < keys; j++) {
                logit[j] = 0;
                for (int32_t c = 0; c < dim; c++)
                    logit[j] += (double)row[c] * (double)k[(size_t)j * (size_t)dim + (size_t)c];
                logit[j] /= sqrt((double)dim);
                top = fmax(top, logit[j]);
            }
            for (int32_t j = 0; j < keys; j++)
                total += exp(logit[j] - top);
            for (int32_t j = 0; j < prefix; j++)
                mass[j] += exp(logit[j] - top) / total;
        }
    }
    for (int32_t j = 0; j < prefix; j++) {
        mass[j] /= (double)rows * group;
        sum += mass[j];
    }
    free(logit);
    return sum;
}

static int fake_observe(void *self, const mb_call *call, mb_error *err)
{
    struct fake *f = self;
    (void)err;
    note(f, "observe", call);
    f->observed++;
    assert_non_null(call->lse);
    assert_non_null(call->mass);
    double *mass = malloc((size_t)f->shape.capacity * sizeof *mass);
    assert_non_null(mass);
    for (int32_t h = 0; h < f->shape.kv_heads; h++) {
        double sum = brute_mass(f, call, h, mass);
        f->smallest_sum = fmin(f->smallest_sum, sum);
        f->largest_sum = fmax(f->largest_sum, sum);
        for (int32_t j = 0; j < call->prefix_len[0]; j++) {
            double got = (double)call->mass[(size_t)h * (size_t)f->shape.stride + (size_t)j];
            f->worst_error = fmax(f->worst_error, fabs(got - mass[j]));
        }
    }
    free(mass);
    return 0;
}

static int fake_report(void *self, int (*read)(const mb_host *, void *dst, const void *src, size_t bytes),
                       double *values, mb_error *err)
{
    struct fake *f = self;
    int32_t count = -9;
    (void)err;
    values[0] = f->selected;
    int rc = read(f->host, &count, f->set.counts, sizeof count);
    values[1] = count;
    return rc;
}

static int fake_supports(const mb_shape *shape, const void *options, mb_error *why)
{
    const struct fake_options *o = options;
    return o->k == 12345 ? mb_fail(why, 1, "block %d is not to my taste", shape->block) : 0;
}

static const mb_counter counters[] = {{"selected", "calls", "", "sum", "calls of select"},
                                      {"count", "pages", "", "mean", "pages of the last index"},
                                      {0}};

static const mb_method fake_method = {.abi = MB_METHOD_ABI,
                                      .size = sizeof(mb_method),
                                      .name = "fake",
                                      .options_size = sizeof(struct fake_options),
                                      .counters = counters,
                                      .supports = fake_supports,
                                      .open = fake_open,
                                      .close = fake_close,
                                      .request_begin = fake_request_begin,
                                      .kv_added = fake_kv_added,
                                      .block_begin = fake_block_begin,
                                      .step_begin = fake_step_begin,
                                      .select = fake_select,
                                      .observe = fake_observe,
                                      .attend = fake_attend,
                                      .step_end = fake_step_end,
                                      .block_end = fake_block_end,
                                      .report = fake_report};

#endif
