/*
 * replay_kernels.h - the CPU's operations with graphs: between capture_begin() and capture_end() operations are
 * noted with a copy of their arguments and not run; a launch runs the list. What an operation reads on the host at
 * the time of the call is thus as fixed as in a CUDA graph, so that a replay that would need something new is
 * wrong here, too.
 */
#ifndef MB_REPLAY_KERNELS_H
#define MB_REPLAY_KERNELS_H

#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

typedef struct replay_entry {
    int (*run)(mb_device *device, const void *args);
    void *args;
    mb_page_set pages; /* what args may point to */
} replay_entry;

struct mb_graph {
    replay_entry *entries;
    size_t count;
};

static const mb_kernels *replay_plain; /* the CPU's */
static struct mb_graph *replay_open;   /* the one that is captured */
static size_t replay_launches, replay_alive;

static int replay_note(int (*run)(mb_device *, const void *), const void *args, size_t size, size_t pages_at)
{
    struct mb_graph *g = replay_open;
    g->entries = realloc(g->entries, (g->count + 1) * sizeof *g->entries);
    replay_entry *e = &g->entries[g->count++];
    *e = (replay_entry){.run = run, .args = malloc(size)};
    memcpy(e->args, args, size);
    const mb_page_set *set = NULL;
    if (pages_at)
        memcpy(&set, (char *)e->args + pages_at, sizeof set);
    if (set)
        e->pages = *set; /* the list may move: the pointer is set at a launch */
    return MB_OK;
}

/* Where arguments point to a page set on the host; 0 = nowhere. */
#define REPLAY_PAGES(a)                                                                                           \
    _Generic((a), const mb_attention *                                                                            \
             : offsetof(mb_attention, pages), const mb_key_count *                                                \
             : offsetof(mb_key_count, pages), default                                                             \
             : 0)

#define REPLAY_OPERATION(name, arguments)                                                                         \
    static int replay_run_##name(mb_device *device, const void *args)                                             \
    {                                                                                                             \
        return replay_plain->name(device, args);                                                                  \
    }                                                                                                             \
    static int replay_##name(mb_device *device, const arguments *args)                                            \
    {                                                                                                             \
        return replay_open ? replay_note(replay_run_##name, args, sizeof *args, REPLAY_PAGES(args))               \
                           : replay_plain->name(device, args);                                                    \
    }
MB_OPERATIONS(REPLAY_OPERATION)

typedef struct replay_move {
    void *dst;
    const void *src;
    int byte;
    size_t bytes;
} replay_move;

static int replay_run_copy(mb_device *device, const void *args)
{
    const replay_move *m = args;
    return replay_plain->copy(device, m->dst, m->src, m->bytes);
}

static int replay_copy(mb_device *device, void *dst, const void *src, size_t bytes)
{
    const replay_move m = {dst, src, 0, bytes};
    return replay_open ? replay_note(replay_run_copy, &m, sizeof m, 0) : replay_run_copy(device, &m);
}

static int replay_run_fill(mb_device *device, const void *args)
{
    const replay_move *m = args;
    return replay_plain->fill(device, m->dst, m->byte, m->bytes);
}

static int replay_fill(mb_device *device, void *dst, int byte, size_t bytes)
{
    const replay_move m = {dst, NULL, byte, bytes};
    return replay_open ? replay_note(replay_run_fill, &m, sizeof m, 0) : replay_run_fill(device, &m);
}

static int replay_capture_begin(mb_device *device)
{
    (void)device;
    if (replay_open)
        return MB_E_BUG;
    replay_open = calloc(1, sizeof *replay_open);
    return MB_OK;
}

static int replay_capture_end(mb_device *device, mb_graph **graph)
{
    (void)device;
    *graph = replay_open;
    replay_open = NULL;
    replay_alive++;
    return MB_OK;
}

static int replay_graph_launch(mb_device *device, mb_graph *graph)
{
    int rc = MB_OK;
    for (size_t i = 0; i < graph->count && rc == MB_OK; i++) {
        replay_entry *e = &graph->entries[i];
        const mb_page_set *set = &e->pages;
        if (e->pages.ids && e->run == replay_run_attend_sparse)
            memcpy((char *)e->args + offsetof(mb_attention, pages), &set, sizeof set);
        else if (e->pages.ids && (e->run == replay_run_count_work || e->run == replay_run_count_read))
            memcpy((char *)e->args + offsetof(mb_key_count, pages), &set, sizeof set);
        rc = e->run(device, e->args);
    }
    replay_launches++;
    return rc;
}

static void replay_graph_free(mb_device *device, mb_graph *graph)
{
    (void)device;
    for (size_t i = 0; i < graph->count; i++)
        free(graph->entries[i].args);
    free(graph->entries);
    free(graph);
    replay_alive--;
}

static int replay_branch(mb_device *device)
{
    (void)device;
    return MB_OK;
}

static mb_kernels replay_kernels(void)
{
#define REPLAY_ENTRY(operation, arguments) table.operation = replay_##operation;
    replay_plain = mb_kernels_cpu();
    mb_kernels table = *replay_plain;
    MB_OPERATIONS(REPLAY_ENTRY)
    table.copy = replay_copy;
    table.fill = replay_fill;
    table.capture_begin = replay_capture_begin;
    table.capture_end = replay_capture_end;
    table.graph_launch = replay_graph_launch;
    table.graph_free = replay_graph_free;
    table.branch_begin = table.branch_end = table.branch_join = replay_branch;
    return table;
#undef REPLAY_ENTRY
}

#endif
