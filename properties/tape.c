/*
 * tape.c - operations with their arguments on a tape: every operation of the table has a stand-in that writes its
 * arguments down and runs the real one.
 */
#include "properties/tape.h"

#include "base/base.h"
#include "kernels/cases.h"

#include <stdlib.h>
#include <string.h>

typedef struct operation {
    int kind; /* mb_operation, or one of the two below */
    mb_device *device;
    void *args;        /* malloc'ed */
    mb_page_set pages; /* what args point to, where they do */
} operation;

enum { COPY = MB_OPERATION_COUNT, FILL };

typedef struct copy_args {
    void *dst;
    const void *src; /* of a copy */
    int byte;        /* of a fill */
    size_t n;
} copy_args;

/* One layer of one kind of forward. */
typedef struct tape {
    int32_t mode, layer;
    mb_phase phase;
    int seen; /* times that its forward has come up */
    mb_selection answer;
    operation *operations[2]; /* of select and of attend */
    size_t count[2];
} tape;

struct mb_tapes {
    mb_kernels kernels;
    tape *tapes;
    size_t count;
    int played;
    tape *writing; /* NULL: nothing is written down */
    int hook;
    bool failed; /* no memory */
};

static const mb_kernels *real;
static mb_tapes *current;

/* The page set that arguments of this kind point to, or NULL. */
static const mb_page_set **pages_of(int kind, void *args)
{
    if (kind == MB_OP_attend_sparse)
        return &((mb_attention *)args)->pages;
    return kind == MB_OP_count_work || kind == MB_OP_count_read ? &((mb_key_count *)args)->pages : NULL;
}

static int run(const operation *o)
{
    const copy_args *c = o->args;
    if (o->kind == COPY)
        return real->copy(o->device, c->dst, c->src, c->n);
    return o->kind == FILL ? real->fill(o->device, c->dst, c->byte, c->n)
                           : mb_operation_run(real, o->device, (mb_operation)o->kind, o->args);
}

/* Runs the operation; while a tape is written, a copy of its arguments goes there, as a graph keeps one. */
static int tape_down(int kind, mb_device *device, const void *args, size_t size)
{
    tape *t = current->writing;
    operation now = {.kind = kind, .device = device, .args = (void *)args};
    if (!t)
        return run(&now);
    size_t n = t->count[current->hook];
    operation *grown = realloc(t->operations[current->hook], (n + 1) * sizeof *grown);
    if (grown)
        t->operations[current->hook] = grown;
    now.args = malloc(size);
    if (!grown || !now.args) {
        free(now.args);
        current->failed = true;
        return MB_E_SYSTEM;
    }
    memcpy(now.args, args, size);
    const mb_page_set **pages = pages_of(kind, now.args);
    if (pages && *pages)
        now.pages = **pages;
    grown[n] = now;
    t->count[current->hook]++;
    return run(&now);
}

static int taped_copy(mb_device *device, void *dst, const void *src, size_t n)
{
    copy_args args = {.dst = dst, .src = src, .n = n};
    return tape_down(COPY, device, &args, sizeof args);
}

static int taped_fill(mb_device *device, void *dst, int byte, size_t n)
{
    copy_args args = {.dst = dst, .byte = byte, .n = n};
    return tape_down(FILL, device, &args, sizeof args);
}

#define TAPED(name, arguments)                                                                                    \
    static int taped_##name(mb_device *device, const arguments *args)                                             \
    {                                                                                                             \
        return tape_down(MB_OP_##name, device, args, sizeof *args);                                               \
    }
MB_OPERATIONS(TAPED)

mb_tapes *mb_tapes_new(const mb_kernels *kernels, const mb_kernels **table)
{
    mb_tapes *tapes = calloc(1, sizeof *tapes);
    if (!tapes)
        return NULL;
    real = kernels;
    current = tapes;
    mb_kernels *k = &tapes->kernels;
    *k = *kernels;
    k->copy = taped_copy;
    k->fill = taped_fill;
#define STAND_IN(name, arguments) k->name = taped_##name;
    MB_OPERATIONS(STAND_IN)
    *table = k;
    return tapes;
}

void mb_tapes_clear(mb_tapes *tapes)
{
    for (size_t i = 0; i < tapes->count; i++)
        for (int hook = 0; hook < 2; hook++) {
            for (size_t j = 0; j < tapes->tapes[i].count[hook]; j++)
                free(tapes->tapes[i].operations[hook][j].args);
            free(tapes->tapes[i].operations[hook]);
        }
    free(tapes->tapes);
    tapes->tapes = tapes->writing = NULL;
    tapes->count = 0;
    tapes->played = 0;
}

void mb_tapes_free(mb_tapes *tapes)
{
    mb_tapes_clear(tapes);
    free(tapes);
    current = NULL;
}

int mb_tapes_played(const mb_tapes *tapes)
{
    return tapes->played;
}

static tape *find(mb_tapes *tapes, const mb_call *call)
{
    for (size_t i = 0; i < tapes->count; i++) {
        tape *t = &tapes->tapes[i];
        if (t->mode == call->mode && t->phase == call->phase && t->layer == call->layer)
            return t;
    }
    tape *grown = realloc(tapes->tapes, (tapes->count + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    tapes->tapes = grown;
    grown[tapes->count] = (tape){.mode = call->mode, .layer = call->layer, .phase = call->phase};
    return &grown[tapes->count++];
}

static int play(const tape *t, int hook)
{
    int rc = 0;
    for (size_t i = 0; i < t->count[hook] && rc == 0; i++) {
        operation *o = &t->operations[hook][i];
        const mb_page_set **pages = pages_of(o->kind, o->args);
        if (pages && *pages)
            *pages = &o->pages;
        rc = run(o);
    }
    return rc;
}

/* As the program: the first forward of a kind runs, the second is captured, the others are replayed. */
int mb_tapes_select(mb_tapes *tapes, mb_attender *attender, const mb_call *call, mb_selection *answer,
                    mb_error *err)
{
    tape *t = tapes ? find(tapes, call) : NULL;
    if (!tapes)
        return mb_attender_select(attender, call, answer, err);
    if (!t)
        return MB_E_SYSTEM;
    if (++t->seen > 2) {
        *answer = t->answer;
        tapes->played++;
        return play(t, 0);
    }
    tapes->hook = 0;
    tapes->writing = t->seen == 2 ? t : NULL;
    int rc = mb_attender_select(attender, call, answer, err);
    tapes->writing = NULL;
    t->answer = *answer;
    return rc == 0 && (tapes->failed || answer->want)
               ? mb_fail(err, MB_E_BUG, "a tape holds no by-products and needs memory")
               : rc;
}

int mb_tapes_attend(mb_tapes *tapes, mb_attender *attender, const mb_call *call, void *out, float *lse,
                    mb_error *err)
{
    tape *t = tapes ? find(tapes, call) : NULL;
    if (!tapes)
        return mb_attender_attend(attender, call, out, lse, err);
    if (!t)
        return MB_E_SYSTEM;
    if (t->seen > 2)
        return play(t, 1);
    tapes->hook = 1;
    tapes->writing = t->seen == 2 ? t : NULL;
    int rc = mb_attender_attend(attender, call, out, lse, err);
    tapes->writing = NULL;
    return rc;
}
