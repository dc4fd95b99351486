/*
 * group.c - decodes that go together: the arms of a sample run block by block, step by step as mb_decode() has
 * them, but the weights are read once for all of them.
 *
 * Each arm's mb_decode() runs on a stack of its own and on a lane: a session with its own prefix lengths
 * and counters, and the buffers and the cache of the session that it belongs to. Where its step wants a forward it
 * hands the run in and leaves its stack; when no arm can go on by itself, one forward computes what all of them
 * wait for (mb_forward_lanes), and they go on. Everything happens on one thread and in the order of the arms:
 * hooks, checks, counters and errors are those of a decode alone, and nothing is locked. An arm that ends or fails
 * is just absent from the next forward.
 *
 * What makes the results those of the arms alone: rows of a product, a norm and the experts do not depend on the
 * rows beside them (mb_gemm.invariant), and everything else is computed for one lane at a time, in one stream.
 */
#include "model/engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

/* Room for a decode and for what a GPU's runtime does inside of a launch; pages that nobody touches cost nothing.
 */
#define STACK_BYTES ((size_t)8 << 20)

enum fiber_state { FIBER_RUNS, FIBER_WAITS, FIBER_ENDED };

typedef struct fiber { /* an arm while it decodes */
    struct mb_group *group;
    mb_session *session; /* its lane */
    mb_group_arm *arm;
    ucontext_t context;
    char *stack;
    enum fiber_state state;
    mb_lane_run lane; /* what it waits for */
} fiber;

struct mb_group {
    mb_session *owner;
    ucontext_t home;
    fiber *fibers;
    mb_lane_run *together; /* scratch of a forward */
    char *best;            /* host copy of MB_BUFFER_BEST */
    size_t best_bytes;     /* of a lane */
    size_t count;
};

/* ---- lanes ---- */

static void lane_free(mb_session *lane)
{
    if (!lane)
        return;
    mb_session_arrays_free(lane); /* the prompt in them is the owner's */
    free(lane->tail);
    free(lane);
}

/* A part of a buffer that has one for each lane. */
static void *part_of(const mb_session *session, const mb_buffer_sizes *sizes, mb_buffer buffer, int32_t lane)
{
    return (char *)session->buffer[buffer] + sizes->bytes[buffer] / (size_t)sizes->lanes * (size_t)lane;
}

/* What a lane writes itself, in every layer. */
static int tail_open(mb_session *lane, const mb_buffer_sizes *sizes, mb_error *err)
{
    const mb_kernels *kernels = lane->kernels;
    lane->tail = calloc((size_t)lane->config->layers, sizeof *lane->tail);
    if (!lane->tail)
        return mb_no_memory(err, "a lane");
    for (int32_t l = 0; l < lane->config->layers; l++) {
        mb_kv *tail = &lane->tail[l];
        *tail = lane->kv[l];
        tail->capacity = sizes->tail;
        tail->k = kernels->alloc(lane->device, sizes->tail_bytes);
        tail->v = kernels->alloc(lane->device, sizes->tail_bytes);
        if (!tail->k || !tail->v)
            return mb_session_failed(lane, MB_E_SYSTEM, "no device memory for the tokens of a lane", err);
    }
    return MB_OK;
}

static int lane_open(mb_session *owner, const mb_buffer_sizes *sizes, int32_t number, mb_error *err)
{
    size_t layers = (size_t)owner->config->layers;
    mb_session *lane = calloc(1, sizeof *lane);
    owner->lane[number] = lane;
    if (!lane)
        return mb_no_memory(err, "a lane");
    *lane = *owner;
    lane->lane = NULL;
    lane->lanes = 1;
    lane->number = number;
    lane->tail = NULL;
    if (!mb_session_arrays_new(lane, sizes->rows))
        return mb_no_memory(err, "a lane");
    memcpy(lane->kv, owner->kv, layers * sizeof *lane->kv);
    static const mb_buffer own[3] = {MB_BUFFER_INPUT, MB_BUFFER_BEST, MB_BUFFER_WORK};
    for (int i = 0; i < 3; i++)
        lane->buffer[own[i]] = part_of(owner, sizes, own[i], number);
    return MB_OK;
}

int mb_lanes_open(mb_session *session, const mb_buffer_sizes *sizes, mb_error *err)
{
    int rc = MB_OK;
    if (session->comm && sizes->lanes > 1)
        return mb_fail(err, MB_E_INPUT, "%d lanes: a model that is split over devices decodes one arm at a time",
                       sizes->lanes);
    session->lanes = sizes->lanes;
    session->lane = calloc((size_t)sizes->lanes, sizeof(mb_session *));
    if (!session->lane)
        return mb_no_memory(err, "%d lanes", sizes->lanes);
    session->lane[0] = session;
    for (int32_t i = 1; i < sizes->lanes && rc == MB_OK; i++)
        rc = lane_open(session, sizes, i, err);
    for (int32_t i = 0; i < sizes->lanes && sizes->lanes > 1 && rc == MB_OK; i++)
        rc = tail_open(session->lane[i], sizes, err);
    return rc;
}

void mb_lanes_close(mb_session *session)
{
    for (int32_t i = 1; session->lane && i < session->lanes; i++)
        lane_free(session->lane[i]);
    free(session->lane);
    free(session->tail);
    session->lane = NULL;
    session->tail = NULL;
}

/* Gives a lane the prompt of its owner. */
static void share_snapshot(const mb_session *owner, mb_session *lane)
{
    lane->snapshot[0] = lane->prefix[0] = owner->snapshot[0];
    lane->prompt[0] = owner->prompt[0];
    lane->prompt_count[0] = owner->prompt_count[0];
    lane->seed[0] = owner->seed[0];
    lane->measure = owner->measure;
}

int mb_lane_bring(mb_session *owner, const mb_lane_run *lane, int32_t layer, mb_error *err)
{
    const mb_session *session = lane->session;
    const bool part =
        lane->run->rows < session->block; /* the block's other keys are those of an earlier forward */
    const int32_t n = session->prefix[0] + (part ? session->block : 0) - session->snapshot[0];
    if (!session->group || owner->holder == session->number || n <= 0)
        return MB_OK;
    int rc = owner->kernels->slots_copy(owner->device, &(mb_slots_copy){.from = session->tail[layer],
                                                                        .to = owner->kv[layer],
                                                                        .into = session->snapshot[0],
                                                                        .n = n});
    return rc == MB_OK ? MB_OK : mb_session_failed(owner, rc, "bringing the keys of a lane", err);
}

int mb_lane_keep(mb_session *owner, const mb_lane_run *lane, int32_t layer, mb_error *err)
{
    const mb_session *session = lane->session;
    if (!session->group || !lane->run->kept)
        return MB_OK;
    int rc = owner->kernels->slots_copy(owner->device,
                                        &(mb_slots_copy){.from = owner->kv[layer],
                                                         .to = session->tail[layer],
                                                         .first = session->prefix[0],
                                                         .into = session->prefix[0] - session->snapshot[0],
                                                         .n = session->block});
    return rc == MB_OK ? MB_OK : mb_session_failed(owner, rc, "keeping the keys of a lane", err);
}

/* ---- the arms' stacks ---- */

/* makecontext() hands on integers only. */
static void fiber_main(unsigned high, unsigned low)
{
    fiber *f = (fiber *)(((uintptr_t)high << 16 << 16) | (uintptr_t)low);
    mb_group_arm *arm = f->arm;
    arm->rc = mb_decode(f->session, arm->attender, arm->request, arm->result, &arm->error);
    f->state = FIBER_ENDED;
} /* goes on at uc_link: home */

static int fiber_begin(fiber *f, mb_error *err)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (f->stack == MAP_FAILED) {
        f->stack = NULL;
        return mb_no_memory(err, "the stack of a decode");
    }
    mprotect(f->stack, page, PROT_NONE); /* a stack that is used up faults, and reaches nobody else's memory */
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = &f->group->home;
    uintptr_t self = (uintptr_t)f;
    makecontext(&f->context, (void (*)(void))fiber_main, 2, (unsigned)(self >> 16 >> 16), (unsigned)self);
    return MB_OK;
}

int mb_group_forward(mb_session *session, mb_forward_run *run, mb_error *err)
{
    struct mb_group *group = session->group;
    fiber *f = group->fibers;
    while (f->session != session)
        f++;
    f->lane = (mb_lane_run){.session = session, .run = run, .error = err};
    f->state = FIBER_WAITS;
    swapcontext(&f->context, &group->home);
    return f->lane.rc;
}

/* The best tokens of all lanes: they lie behind each other. */
static int read_answers(struct mb_group *group, size_t waiting, mb_error *err)
{
    mb_session *owner = group->owner;
    const size_t part = group->best_bytes;
    int rc =
        owner->kernels->download(owner->device, group->best, owner->buffer[MB_BUFFER_BEST], part * group->count);
    if (rc != MB_OK)
        return mb_session_failed(owner, rc, "reading the best tokens", err);
    for (size_t i = 0; i < waiting; i++) {
        const mb_lane_run *lane = &group->together[i];
        memcpy(lane->session->answer, group->best + part * (size_t)lane->session->number,
               2 * (size_t)lane->run->rows * sizeof(int32_t));
    }
    return MB_OK;
}

/* Everyone who can goes on until they wait for a forward or have ended; the forward of all who wait. */
static size_t advance(struct mb_group *group)
{
    mb_error why = {0};
    size_t waiting = 0;
    for (size_t i = 0; i < group->count; i++) {
        fiber *f = &group->fibers[i];
        if (f->state == FIBER_RUNS)
            swapcontext(&group->home, &f->context);
        if (f->state == FIBER_WAITS)
            group->together[waiting++] = f->lane;
    }
    int rc = waiting > 0 ? mb_forward_lanes(group->owner, group->together, waiting, &why) : MB_OK;
    if (rc == MB_OK && waiting > 0)
        rc = read_answers(group, waiting, &why);
    for (size_t i = 0, at = 0; i < group->count; i++) {
        fiber *f = &group->fibers[i];
        if (f->state != FIBER_WAITS)
            continue;
        f->lane.rc = group->together[at++].rc;
        if (f->lane.rc == MB_OK && rc != MB_OK)
            f->lane.rc = mb_fail(f->lane.error, rc, "%s", why.text);
        f->state = FIBER_RUNS;
    }
    return waiting;
}

static int group_begin(struct mb_group *group, mb_session *session, mb_group_arm *arms, mb_error *err)
{
    int rc = MB_OK;
    group->owner = session;
    group->fibers = calloc(group->count, sizeof *group->fibers);
    group->together = calloc(group->count, sizeof *group->together);
    group->best_bytes =
        (size_t)((char *)session->lane[1]->buffer[MB_BUFFER_BEST] - (char *)session->buffer[MB_BUFFER_BEST]);
    group->best = malloc(group->count * group->best_bytes);
    if (!group->fibers || !group->together || !group->best)
        return mb_no_memory(err, "a group of %zu decodes", group->count);
    for (size_t i = 0; i < group->count && rc == MB_OK; i++) {
        group->fibers[i] = (fiber){.group = group, .session = session->lane[i], .arm = &arms[i]};
        if (i > 0)
            share_snapshot(session, session->lane[i]);
        rc = fiber_begin(&group->fibers[i], err);
    }
    return rc;
}

static void group_end(struct mb_group *group)
{
    for (size_t i = 0; group->fibers && i < group->count; i++)
        if (group->fibers[i].stack)
            munmap(group->fibers[i].stack, STACK_BYTES);
    free(group->fibers);
    free(group->together);
    free(group->best);
}

/* Whether every arm can decode in a lane: its answer has room in the tail, and it does not throw the prompt away
 * as compat_prompt_bug does with one of a block, whose keys are everybody's. */
static bool fit_lanes(const mb_session *session, const mb_group_arm *arms, size_t count)
{
    const int64_t prompt = (int64_t)session->prompt_count[0], rest = prompt - session->snapshot[0];
    for (size_t i = 0; i < count; i++) {
        const mb_decode_request *request = arms[i].request;
        if (rest + request->max_new_tokens + session->block > session->tail[0].capacity ||
            (request->sampler->compat_prompt_bug && prompt <= session->block))
            return false;
    }
    return true;
}

int mb_decode_group(mb_session *session, mb_group_arm *arms, size_t count, mb_error *err)
{
    struct mb_group group = {.count = count};
    if (count > (size_t)session->lanes)
        return mb_fail(err, MB_E_BUG, "a group of %zu decodes on a session with %d lanes", count, session->lanes);
    for (size_t i = 0; i < count; i++) {
        arms[i].rc = MB_OK;
        memset(&arms[i].error, 0, sizeof arms[i].error);
        memset(arms[i].result, 0, sizeof *arms[i].result);
    }
    if (count <= 1 || !fit_lanes(session, arms, count)) { /* alone it may replay graphs of whole forwards */
        for (size_t i = 0; i < count; i++)
            arms[i].rc = mb_decode(session, arms[i].attender, arms[i].request, arms[i].result, &arms[i].error);
        return MB_OK;
    }
    session->holder = -1;
    int rc = group_begin(&group, session, arms, err);
    for (size_t i = 0; i < count && rc == MB_OK; i++) {
        session->lane[i]->group = &group;
        arms[i].attender->session = session->lane[i]; /* as large as the one that it was opened on */
    }
    while (rc == MB_OK && advance(&group) > 0)
        ;
    for (size_t i = 0; i < count; i++) {
        session->lane[i]->group = NULL;
        arms[i].attender->session = session;
        arms[i].result->decode_us = NAN; /* of all of them */
    }
    group_end(&group);
    return rc;
}
