/*
 * faulty.c - a method that is sound or breaks one promise, as its option says: what `./harness test` must find. It
 * reads the first k keys and writes its index from the host, so it runs on the CPU only.
 */
#include "methods/method.h"

#include <signal.h>

enum { NONE, ONE_SHORT, EQUAL, CRASH };

typedef struct settings {
    int64_t k;
    int32_t fault;
} settings;

typedef struct faulty {
    settings set;
    int32_t heads, batch;
    mb_page_set pages;
} faulty;

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 48, 1, 1 << 20, NULL, "tokens", "budget"},
    {"fault", MB_OPTION_CHOICE, offsetof(settings, fault), 0, 0, 0, "none|one_short|equal|crash", "",
     "one_short: all N keys for k = N - 1; equal: N - 1 keys for k = N; crash: select() faults"},
    {.name = NULL},
};

static int faulty_open(void **self, const mb_host *host, const mb_shape *shape, const void *given, mb_error *err)
{
    faulty *f = *self;
    (void)err;
    f->set = *(const settings *)given;
    f->heads = shape->kv_heads;
    f->batch = shape->batch;
    return host->pages_alloc(host, 1, shape->capacity, &f->pages);
}

static int faulty_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    faulty *f = self;
    (void)err;
    if (f->set.fault == CRASH)
        raise(SIGSEGV);
    for (int32_t bh = 0; bh < f->batch * f->heads; bh++) {
        int32_t n = call->prefix_len[bh / f->heads], count = f->set.k < n ? (int32_t)f->set.k : n;
        if (f->set.fault == ONE_SHORT && f->set.k == n - 1)
            count = n;
        if (f->set.fault == EQUAL && f->set.k == n && n > 1)
            count = n - 1;
        for (int32_t i = 0; i < count; i++)
            f->pages.ids[(size_t)bh * (size_t)f->pages.capacity + (size_t)i] = i;
        f->pages.counts[bh] = count;
    }
    out->answer = MB_SPARSE;
    out->pages = &f->pages;
    return 0;
}

MB_METHOD_DEFINE = {.abi = MB_METHOD_ABI,
                    .size = sizeof(mb_method),
                    .name = "faulty",
                    .version = "1",
                    .summary = "reads the first k keys",
                    .reference = "tests/methods/faults",
                    .options = options,
                    .options_size = sizeof(settings),
                    .state_size = sizeof(faulty),
                    .open = faulty_open,
                    .select = faulty_select};
