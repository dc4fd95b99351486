/*
 * exact - every query row reads every key: the reference that the others are compared with.
 *
 *   o[r] = sum_j exp(s[r,j]) V[j] / sum_j exp(s[r,j]),   s[r,j] = q[r].K[j] / sqrt(D),   j over prefix and block
 *
 * Block diffusion changes nothing here: the prefix is frozen while a block is denoised and the rows of the block
 * see each other, so one pass over the keys serves all rows of a KV head. select() answers with the zeroed
 * selection, which is MB_DENSE with nothing wanted; a method cannot be smaller than this file.
 */
#include "methods/method.h"

static int open_exact(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)host, (void)shape, (void)options, (void)err;
    return 0;
}

/* All forwards enqueue the same work. */
static int step_mode(void *self, const mb_call *call)
{
    (void)self, (void)call;
    return 0;
}

static int select_all(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)call, (void)err;
    out->answer = MB_DENSE;
    return 0;
}

const mb_method mb_method_exact = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "exact",
    .version = "1.0",
    .summary = "dense attention over the whole prefix",
    .reference = "Vaswani et al., Attention Is All You Need, section 3.2.1",
    .caps = MB_CAP_LOSSLESS,
    .open = open_exact,
    .step_mode = step_mode,
    .select = select_all,
};
