/*
 * bad.h - a small method that selects the first k keys of every KV head, and the place where each file of this
 * folder goes wrong: misbehave() is called with the method's index at the end of select() and attend(). It works
 * on device memory through mb_host, so that it goes wrong in the same way on every device.
 */
#include "methods/method.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Layer and step at which they do it, unless a file says otherwise. */
#ifndef LAYER
#define LAYER 3
#define STEP 2
#endif

typedef struct settings {
    int64_t k;
} settings;

typedef struct state {
    const mb_host *host;
    mb_shape shape;
    settings options;
    float *scores;
    mb_page_set set;
} state;

static const mb_option options[] = {{"k", MB_OPTION_INT, offsetof(settings, k), 64, 1, 1 << 24, NULL, "tokens",
                                     "prefix keys that a KV head reads"},
                                    {0}};

static void misbehave(state *s, const mb_call *call, mb_selection *out);
static void misbehave_attend(state *s, const mb_call *call, void *out, float *lse);

static int open_it(void **self, const mb_host *host, const mb_shape *shape, const void *values, mb_error *err)
{
    state *s = calloc(1, sizeof *s);
    if (!s)
        return mb_method_fail(err, "out of memory");
#ifdef BREAK_OPEN
    raise(SIGSEGV);
#endif
    *self = s;
    s->host = host;
    s->shape = *shape;
    s->options = *(const settings *)values;
    s->scores = host->scores_alloc(host);
    /* Room for twice the budget, so that breaking it needs no write outside. */
    return s->scores ? host->pages_alloc(host, 1, (int32_t)(2 * s->options.k), &s->set) : -1;
}

static void close_it(void *self)
{
    free(self);
}

static int select_it(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    (void)err;
    if (call->phase == MB_PHASE_COMMIT)
        return 0;
    int rc = s->host->score_recent(s->host, call, INFINITY, 1.0f, s->scores);
    if (rc == 0)
        rc = s->host->top_k(s->host, call, s->scores, (int32_t)s->options.k, NULL, &s->set);
    out->answer = MB_SPARSE;
    out->pages = &s->set;
    if (rc == 0 && call->layer == LAYER && call->step == STEP)
        misbehave(s, call, out);
    return rc;
}

static int attend_it(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    state *s = self;
    (void)err;
    int rc = s->host->attend_pages(s->host, call, &s->set, MB_SCOPE_PREFIX, NULL, out, lse);
    if (rc == 0)
        misbehave_attend(s, call, out, lse);
    return rc;
}

#define METHOD(text)                                                                                              \
    static const mb_method method = {.abi = MB_METHOD_ABI,                                                        \
                                     .size = sizeof(mb_method),                                                   \
                                     .name = text,                                                                \
                                     .version = "1",                                                              \
                                     .summary = "last k keys, until it breaks",                                   \
                                     .reference = "none",                                                         \
                                     .options = options,                                                          \
                                     .options_size = sizeof(settings),                                            \
                                     .open = open_it,                                                             \
                                     .close = close_it,                                                           \
                                     .select = select_it,                                                         \
                                     .attend = attend_it};                                                        \
    const mb_method *mb_method_entry(uint32_t host_abi);                                                          \
    const mb_method *mb_method_entry(uint32_t host_abi)                                                           \
    {                                                                                                             \
        return host_abi == MB_METHOD_ABI ? &method : NULL;                                                        \
    }
#define NO_ATTEND                                                                                                 \
    static void misbehave_attend(state *s, const mb_call *call, void *out, float *lse)                            \
    {                                                                                                             \
        (void)s, (void)call, (void)out, (void)lse;                                                                \
    }
