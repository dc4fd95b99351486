/*
 * comm.c - the ranks of one model meet (comm.h): barriers between threads, sums over host memory, agreement on a
 * failure. The backend's link, where there is one, does the sums instead.
 *
 * There are two barriers. Sums and gathers wait at one that breaks: a rank that fails opens it for good, so nobody
 * waits for a rank that is not coming. mb_comm_agree() waits at the other, which every rank reaches, and closes
 * the first one again. What ranks show each other lies in two buffers used in turn: whoever writes the first again
 * has passed a barrier behind everyone's reading of it.
 */
#include "kernels/comm.h"

#include "kernels/cpu/convert.h"
#include "kernels/kernels.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPINS 4000

enum { MEETING, AGREEMENT, BARRIERS };

struct mb_comm_group {
    int ranks, spins;
    const mb_kernels *kernels;
    bool linked;
    unsigned char id[MB_LINK_ID_BYTES]; /* of the link: all ranks join the same */
    pthread_mutex_t mutex;
    pthread_cond_t moved;
    int arrived[BARRIERS];
    _Atomic uint64_t round[BARRIERS];
    _Atomic bool broken;
    mb_device *joined[MB_RANKS_MAX];    /* devices that have joined the link */
    _Atomic bool ended;                 /* and it is no more */
    const void *shown[2][MB_RANKS_MAX]; /* by turn and rank */
    int code[2][MB_RANKS_MAX];
    bool let_go[2][MB_RANKS_MAX]; /* it failed because another rank did */
    mb_error error[2][MB_RANKS_MAX];
    unsigned char *data[2]; /* rank 0's, of an agreement */
    size_t capacity[2];
};

struct mb_comm {
    mb_comm_group *group;
    int rank;
    mb_device *device;
    bool joined; /* the link is open */
    bool let_go; /* since the last agreement */
    unsigned meetings, agreements;
    unsigned char *own[2]; /* what this rank shows */
    size_t capacity[2];
    unsigned char *result; /* of a sum */
    size_t result_capacity;
};

int mb_comm_group_open(mb_comm_group **group, int ranks, const mb_kernels *kernels, bool linked, mb_error *err)
{
    *group = NULL;
    if (ranks < 1 || ranks > MB_RANKS_MAX)
        return mb_fail(err, MB_E_INPUT, "a model over %d devices: use 1 to %d", ranks, MB_RANKS_MAX);
    mb_comm_group *g = calloc(1, sizeof *g);
    if (!g)
        return mb_no_memory(err, "the ranks of a model");
    g->ranks = ranks;
    g->kernels = kernels;
    g->linked = linked;
    g->spins = sysconf(_SC_NPROCESSORS_ONLN) > ranks ? SPINS : 0;
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->moved, NULL);
    int rc = linked ? kernels->link->id(g->id, err) : MB_OK;
    if (rc != MB_OK) {
        mb_comm_group_close(g);
        return rc;
    }
    *group = g;
    return MB_OK;
}

void mb_comm_group_close(mb_comm_group *group)
{
    if (!group)
        return;
    pthread_cond_destroy(&group->moved);
    pthread_mutex_destroy(&group->mutex);
    free(group->data[0]);
    free(group->data[1]);
    free(group);
}

int mb_comm_open(mb_comm **comm, mb_comm_group *group, int rank, mb_device *device, mb_error *err)
{
    mb_comm *c = calloc(1, sizeof *c);
    *comm = NULL;
    if (!c)
        return mb_no_memory(err, "a rank");
    c->group = group;
    c->rank = rank;
    c->device = device;
    if (group->linked) {
        int rc = group->kernels->link->open(device, group->id, rank, group->ranks);
        if (rc != MB_OK) {
            mb_fail(err, rc, "joining %d GPUs: %s", group->ranks, group->kernels->error(device));
            free(c);
            return rc;
        }
        c->joined = true;
        group->joined[rank] = device;
    }
    *comm = c;
    return MB_OK;
}

void mb_comm_close(mb_comm *comm)
{
    if (!comm)
        return;
    if (comm->joined) {
        comm->group->joined[comm->rank] = NULL;
        comm->group->kernels->link->close(comm->device);
    }
    free(comm->own[0]);
    free(comm->own[1]);
    free(comm->result);
    free(comm);
}

int mb_comm_ranks(const mb_comm *comm)
{
    return comm->group->ranks;
}

int mb_comm_rank(const mb_comm *comm)
{
    return comm->rank;
}

bool mb_comm_captures(const mb_comm *comm)
{
    return comm->joined;
}

/* ---- barriers ---- */

static bool is_open(mb_comm_group *g, int barrier, uint64_t round)
{
    return atomic_load(&g->round[barrier]) != round || (barrier == MEETING && atomic_load(&g->broken));
}

/* false: the barrier is broken. */
static bool meet(mb_comm_group *g, int barrier)
{
    pthread_mutex_lock(&g->mutex);
    const uint64_t round = atomic_load(&g->round[barrier]);
    bool through = barrier != MEETING || !atomic_load(&g->broken);
    if (through && ++g->arrived[barrier] == g->ranks) {
        g->arrived[barrier] = 0;
        if (barrier == AGREEMENT)
            atomic_store(&g->broken, false);
        atomic_store(&g->round[barrier], round + 1);
        pthread_cond_broadcast(&g->moved);
    } else if (through) {
        pthread_mutex_unlock(&g->mutex);
        for (int i = 0; i < g->spins && !is_open(g, barrier, round); i++) {
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#endif
        }
        pthread_mutex_lock(&g->mutex);
        while (!is_open(g, barrier, round))
            pthread_cond_wait(&g->moved, &g->mutex);
        through = atomic_load(&g->round[barrier]) != round;
        g->arrived[barrier] -= !through;
    }
    pthread_mutex_unlock(&g->mutex);
    return through;
}

static void *room(unsigned char **buffer, size_t *capacity, size_t bytes)
{
    if (bytes > *capacity) {
        unsigned char *grown = realloc(*buffer, bytes);
        if (!grown)
            return NULL;
        *buffer = grown;
        *capacity = bytes;
    }
    return *buffer;
}

/* Shows `own` to the others and waits until all have shown theirs. */
static int show(mb_comm *c, unsigned turn)
{
    c->group->shown[turn][c->rank] = c->own[turn];
    c->let_go = !meet(c->group, MEETING);
    return c->let_go ? MB_E_SAMPLE : MB_OK;
}

/* ---- sums ---- */

/* Every rank adds all of them: no one waits for another one's result. */
static int sum_over_host(mb_comm *c, void *data, size_t n, mb_type type)
{
    const mb_kernels *kernels = c->group->kernels;
    const size_t bytes = n * mb_type_size(type);
    const unsigned turn = c->meetings++ % 2;
    unsigned char *own = room(&c->own[turn], &c->capacity[turn], bytes);
    unsigned char *result = room(&c->result, &c->result_capacity, bytes);
    if (!own || !result)
        return MB_E_SYSTEM;
    int rc = kernels->download(c->device, own, data, bytes);
    if (rc == MB_OK)
        rc = show(c, turn);
    if (rc != MB_OK)
        return rc;
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (int r = 0; r < c->group->ranks; r++)
            sum += mb_load_one(type, c->group->shown[turn][r], (int64_t)i);
        mb_store_one(type, result, (int64_t)i, sum);
    }
    return kernels->upload(c->device, data, result, bytes);
}

/* The others' sums would wait for this rank's for ever. Its own end is the last: a broken GPU may take long. */
static void end_link(mb_comm *c)
{
    mb_comm_group *g = c->group;
    atomic_store(&g->ended, true);
    for (int i = 1; i <= g->ranks; i++) {
        mb_device *device = g->joined[(c->rank + i) % g->ranks];
        if (device)
            g->kernels->link->abort(device);
    }
}

static int sum_over_link(mb_comm *c, void *data, int64_t n, mb_type type)
{
    int rc = c->group->kernels->link->sum(c->device, data, n, type);
    if (rc != MB_OK && atomic_load(&c->group->ended))
        c->let_go = true;
    else if (rc != MB_OK)
        end_link(c); /* one sum that is missing here puts all later ones out of step */
    return rc;
}

int mb_comm_sum(mb_comm *comm, void *data, int64_t n, mb_type type)
{
    if (comm->group->ranks == 1)
        return MB_OK;
    return comm->joined ? sum_over_link(comm, data, n, type) : sum_over_host(comm, data, (size_t)n, type);
}

void mb_comm_quit(mb_comm *comm, int32_t owed, void *data, int64_t n, mb_type type)
{
    mb_comm_group *g = comm->group;
    pthread_mutex_lock(&g->mutex);
    atomic_store(&g->broken, true);
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->mutex);
    /* On GPUs the others' sums are under way and wait for this rank's, whatever is in them. */
    for (int rc = MB_OK; comm->joined && owed > 0 && rc == MB_OK; owed--)
        rc = sum_over_link(comm, data, n, type);
}

/* ---- host memory ---- */

int mb_comm_gather(mb_comm *comm, const void *mine, size_t bytes, void *all)
{
    const unsigned turn = comm->meetings++ % 2;
    unsigned char *own = room(&comm->own[turn], &comm->capacity[turn], bytes);
    if (!own)
        return MB_E_SYSTEM;
    memcpy(own, mine, bytes);
    int rc = show(comm, turn);
    for (int r = 0; rc == MB_OK && r < comm->group->ranks; r++)
        memcpy((unsigned char *)all + (size_t)r * bytes, comm->group->shown[turn][r], bytes);
    return rc;
}

int mb_comm_agree(mb_comm *comm, int rc, void *data, size_t bytes, mb_error *err)
{
    mb_comm_group *g = comm->group;
    const unsigned turn = comm->agreements++ % 2;
    /* A rank that failed has enqueued what it owes, and its GPU comes to the end of it, unless it is broken. */
    if (rc != MB_OK && comm->joined && !atomic_load(&g->ended) && g->kernels->sync(comm->device) != MB_OK)
        end_link(comm);
    if (comm->rank == 0 && rc == MB_OK && bytes > 0) {
        if (room(&g->data[turn], &g->capacity[turn], bytes))
            memcpy(g->data[turn], data, bytes);
        else
            rc = mb_no_memory(err, "sharing %zu bytes", bytes);
    }
    g->code[turn][comm->rank] = rc;
    g->let_go[turn][comm->rank] = comm->let_go;
    if (rc != MB_OK && err)
        g->error[turn][comm->rank] = *err;
    meet(g, AGREEMENT);
    comm->meetings = 0; /* ranks that failed have missed some */
    comm->let_go = false;
    int first = -1;
    for (int r = 0; r < g->ranks; r++)
        if (g->code[turn][r] != MB_OK && (first < 0 || (g->let_go[turn][first] && !g->let_go[turn][r])))
            first = r;
    if (first >= 0) {
        if (err)
            *err = g->error[turn][first];
        return g->code[turn][first];
    }
    if (comm->rank != 0 && bytes > 0)
        memcpy(data, g->data[turn], bytes);
    return MB_OK;
}
