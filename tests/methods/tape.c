/*
 * tape.c - operations with their arguments on a tape. Each taped operation has a struct of its arguments, a player
 * that calls the real one with them, and a stand-in that writes the struct down and plays it.
 */
#include "tests/methods/tape.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

typedef int player(mb_device *device, const void *args);

typedef struct operation {
    player *play;
    mb_device *device;
    void *args; /* malloc'ed */
} operation;

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

static bool write_down(player *play, mb_device *device, const void *args, size_t size)
{
    tape *t = current->writing;
    if (!t)
        return true;
    size_t n = t->count[current->hook];
    operation *grown = realloc(t->operations[current->hook], (n + 1) * sizeof *grown);
    void *copy = malloc(size);
    if (grown)
        t->operations[current->hook] = grown;
    if (!grown || !copy) {
        free(copy);
        current->failed = true;
        return false;
    }
    memcpy(copy, args, size);
    grown[n] = (operation){play, device, copy};
    t->count[current->hook]++;
    return true;
}

#define UNPACK(...) __VA_ARGS__
/* name, fields of the struct, the call with it as `a`, its values, the operation's parameters */
#define TAPED(name, fields, call, values, ...)                                                                    \
    struct name##_args {                                                                                          \
        UNPACK fields                                                                                             \
    };                                                                                                            \
    static int play_##name(mb_device *device, const void *args)                                                   \
    {                                                                                                             \
        const struct name##_args *a = args;                                                                       \
        return real->name call;                                                                                   \
    }                                                                                                             \
    static int taped_##name(mb_device *device, __VA_ARGS__)                                                       \
    {                                                                                                             \
        struct name##_args a = {UNPACK values};                                                                   \
        return write_down(play_##name, device, &a, sizeof a) ? play_##name(device, &a) : MB_E_SYSTEM;             \
    }

TAPED(copy, (void *dst; const void *src; size_t n;), (device, a->dst, a->src, a->n), (dst, src, n), void *dst,
      const void *src, size_t n)
TAPED(fill, (void *dst; int byte; size_t n;), (device, a->dst, a->byte, a->n), (dst, byte, n), void *dst, int byte,
      size_t n)
TAPED(attend, (mb_attention args;), (device, &a->args), (*args), const mb_attention *args)
TAPED(row_distance, (const void *x; const void *y; int64_t n; int32_t dim; float *distance; float *norm;),
      (device, a->x, a->y, a->n, a->dim, a->distance, a->norm), (x, y, n, dim, distance, norm), const void *x,
      const void *y, int64_t n, int32_t dim, float *distance, float *norm)
TAPED(score_edges,
      (float *scores; int64_t stride; int32_t batch, heads; const int32_t *lengths; int32_t page, first, last;
       float value;),
      (device, a->scores, a->stride, a->batch, a->heads, a->lengths, a->page, a->first, a->last, a->value),
      (scores, stride, batch, heads, lengths, page, first, last, value), float *scores, int64_t stride,
      int32_t batch, int32_t heads, const int32_t *lengths, int32_t page, int32_t first, int32_t last, float value)
TAPED(top_k,
      (const float *scores; int64_t stride; int32_t batch, heads; const int32_t *lengths; int32_t longest, page, k;
       const int32_t *dynamic; int32_t capacity; int32_t * ids; int32_t * counts; void *scratch;),
      (device, a->scores, a->stride, a->batch, a->heads, a->lengths, a->longest, a->page, a->k, a->dynamic,
       a->capacity, a->ids, a->counts, a->scratch),
      (scores, stride, batch, heads, lengths, longest, page, k, dynamic, capacity, ids, counts, scratch),
      const float *scores, int64_t stride, int32_t batch, int32_t heads, const int32_t *lengths, int32_t longest,
      int32_t page, int32_t k, const int32_t *dynamic, int32_t capacity, int32_t *ids, int32_t *counts,
      void *scratch)
TAPED(state_merge,
      (int64_t n; int32_t dim; const void *x; mb_type tx; const float *lx; const void *y; mb_type ty;
       const float *ly; void *out; mb_type to; float *lo;),
      (device, a->n, a->dim, a->x, a->tx, a->lx, a->y, a->ty, a->ly, a->out, a->to, a->lo),
      (n, dim, x, tx, lx, y, ty, ly, out, to, lo), int64_t n, int32_t dim, const void *x, mb_type tx,
      const float *lx, const void *y, mb_type ty, const float *ly, void *out, mb_type to, float *lo)
TAPED(rows_copy,
      (int32_t batch, rows, heads, kv, dim; const int32_t *active; const int32_t *missed; const void *src;
       const float *ls; void *dst; float *ld;),
      (device, a->batch, a->rows, a->heads, a->kv, a->dim, a->active, a->missed, a->src, a->ls, a->dst, a->ld),
      (batch, rows, heads, kv, dim, active, missed, src, ls, dst, ld), int32_t batch, int32_t rows, int32_t heads,
      int32_t kv, int32_t dim, const int32_t *active, const int32_t *missed, const void *src, const float *ls,
      void *dst, float *ld)
TAPED(reuse_decide,
      (int32_t batch, rows, heads, kv; const float *distance; const float *norm; float threshold; int relative;
       float share; int32_t * active; int32_t * missed; double *counts; double *groups;),
      (device, a->batch, a->rows, a->heads, a->kv, a->distance, a->norm, a->threshold, a->relative, a->share,
       a->active, a->missed, a->counts, a->groups),
      (batch, rows, heads, kv, distance, norm, threshold, relative, share, active, missed, counts, groups),
      int32_t batch, int32_t rows, int32_t heads, int32_t kv, const float *distance, const float *norm,
      float threshold, int relative, float share, int32_t *active, int32_t *missed, double *counts, double *groups)
TAPED(ring_match,
      (int32_t batch, rows, heads, dim; const void *x; mb_state_ring ring; int any; int32_t * slot;
       float *distance; float *norm;),
      (device, a->batch, a->rows, a->heads, a->dim, a->x, &a->ring, a->any, a->slot, a->distance, a->norm),
      (batch, rows, heads, dim, x, *ring, any, slot, distance, norm), int32_t batch, int32_t rows, int32_t heads,
      int32_t dim, const void *x, const mb_state_ring *ring, int any, int32_t *slot, float *distance, float *norm)
TAPED(ring_gather,
      (int32_t batch, rows, heads, dim; const int32_t *slot; mb_state_ring ring; void *out; float *lse;),
      (device, a->batch, a->rows, a->heads, a->dim, a->slot, &a->ring, a->out, a->lse),
      (batch, rows, heads, dim, slot, *ring, out, lse), int32_t batch, int32_t rows, int32_t heads, int32_t dim,
      const int32_t *slot, const mb_state_ring *ring, void *out, float *lse)
TAPED(ring_reach,
      (int32_t batch, rows, heads, kv; const int32_t *slot; mb_state_ring ring; int32_t age; const int32_t *active;
       const int32_t *missed; int32_t * old; int32_t * reached;),
      (device, a->batch, a->rows, a->heads, a->kv, a->slot, &a->ring, a->age, a->active, a->missed, a->old,
       a->reached),
      (batch, rows, heads, kv, slot, *ring, age, active, missed, old, reached), int32_t batch, int32_t rows,
      int32_t heads, int32_t kv, const int32_t *slot, const mb_state_ring *ring, int32_t age,
      const int32_t *active, const int32_t *missed, int32_t *old, int32_t *reached)

/* Those whose pages lie on the caller's stack. */
struct paged_args {
    mb_attention args;
    mb_rows rows;
    mb_pages pages;
    bool has_pages;
    int32_t kv;
    const int32_t *active;
    double *tokens;
};

static int play_sparse(mb_device *device, const void *args)
{
    const struct paged_args *a = args;
    mb_attention attention = a->args;
    attention.pages = &a->pages;
    return real->attend_sparse(device, &attention);
}

static int taped_sparse(mb_device *device, const mb_attention *args)
{
    struct paged_args a = {.args = *args, .pages = *args->pages};
    return write_down(play_sparse, device, &a, sizeof a) ? play_sparse(device, &a) : MB_E_SYSTEM;
}

static int play_count(mb_device *device, const void *args)
{
    const struct paged_args *a = args;
    return real->count_read(device, &a->rows, a->kv, a->has_pages ? &a->pages : NULL, a->active, a->tokens);
}

static int taped_count(mb_device *device, const mb_rows *rows, int32_t kv, const mb_pages *pages,
                       const int32_t *active, double *tokens)
{
    struct paged_args a = {
        .rows = *rows, .has_pages = pages != NULL, .kv = kv, .active = active, .tokens = tokens};
    if (pages)
        a.pages = *pages;
    return write_down(play_count, device, &a, sizeof a) ? play_count(device, &a) : MB_E_SYSTEM;
}

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
    k->attend = taped_attend;
    k->attend_sparse = taped_sparse;
    k->row_distance = taped_row_distance;
    k->score_edges = taped_score_edges;
    k->top_k = taped_top_k;
    k->state_merge = taped_state_merge;
    k->rows_copy = taped_rows_copy;
    k->reuse_decide = taped_reuse_decide;
    k->ring_match = taped_ring_match;
    k->ring_gather = taped_ring_gather;
    k->ring_reach = taped_ring_reach;
    k->count_read = taped_count;
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
    for (size_t i = 0; i < t->count[hook] && rc == 0; i++)
        rc = t->operations[hook][i].play(t->operations[hook][i].device, t->operations[hook][i].args);
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
