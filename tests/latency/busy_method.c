/* busy_method.c - the CPU's counterpart of tests/cuda/spin_method.cu: exact attention, and layer 0 of each forward
 * keeps the caller busy for a known time of the host's clock. Out of tree. */
#include "methods/method.h"

#include <time.h>

struct busy_options {
    int64_t us;
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int busy_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)host, (void)shape, (void)err;
    *(const void **)self = options;
    return 0;
}

static int busy_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    const struct busy_options *options = self;
    int64_t end = now_ns() + options->us * 1000;
    (void)out, (void)err;
    while (call->layer == 0 && now_ns() < end)
        ;
    return 0;
}

static const mb_option options[] = {
    {"us", MB_OPTION_INT, offsetof(struct busy_options, us), 0, 0, 1e6, NULL, "us", "how long layer 0 is busy"},
    {0}};

static const mb_method method = {.abi = MB_METHOD_ABI,
                                 .size = sizeof(mb_method),
                                 .name = "busy",
                                 .version = "1",
                                 .summary = "exact attention and a known time of waiting",
                                 .reference = "none: a ruler for the latency pass",
                                 .options = options,
                                 .options_size = sizeof(struct busy_options),
                                 .open = busy_open,
                                 .select = busy_select};

const mb_method *mb_method_entry(uint32_t host_abi);

const mb_method *mb_method_entry(uint32_t host_abi)
{
    return host_abi >= MB_METHOD_ABI ? &method : NULL;
}
