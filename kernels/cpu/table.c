/*
 * table.c - the CPU's table of operations. There are no graphs here: the capture entries stay NULL, which
 * tells the model to run every forward eagerly, and so do those that look at a GPU. Everything else is filled: a
 * caller may use any other entry without asking.
 */
#include "kernels/cpu/cpu.h"

#define ENTRY(name, arguments) , .name = mb_cpu_##name

static const mb_kernels table = {
    .name = "cpu" MB_OPERATIONS(ENTRY),
    .open = mb_cpu_open,
    .close = mb_cpu_close,
    .info = mb_cpu_info,
    .error = mb_cpu_error,
    .alloc = mb_cpu_alloc,
    .mark = mb_cpu_mark,
    .release = mb_cpu_release,
    .upload = mb_cpu_upload,
    .download = mb_cpu_download,
    .copy = mb_cpu_copy,
    .fill = mb_cpu_fill,
    .sync = mb_cpu_sync,
    .timer_mark = mb_cpu_timer_mark,
    .timer_elapsed = mb_cpu_timer_elapsed,
    .range_push = mb_cpu_range_push,
    .range_pop = mb_cpu_range_pop,
    .votes_scratch = mb_cpu_votes_scratch,
    .top_k_scratch = mb_cpu_top_k_scratch,
};

const mb_kernels *mb_kernels_cpu(void)
{
    return &table;
}
