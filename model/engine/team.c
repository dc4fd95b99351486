/*
 * team.c - the ranks of a split model: threads with a device each, which wait for work that goes to all of them.
 */
#include "model/engine/team.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct member {
    mb_team *team;
    int32_t rank;
    pthread_t thread;
    bool started, opened;
    mb_place place;
    int rc;
    mb_error error;
};

struct mb_team {
    int32_t ranks;
    mb_comm_group *group;
    struct member members[MB_RANKS_MAX];
    pthread_mutex_t mutex;
    pthread_cond_t begun, ended;
    mb_team_job job;
    void *user;
    uint64_t jobs;   /* given so far */
    int32_t working; /* ranks behind 0 that are not done with the last one */
    bool running, stop;
    /* while the team is opened */
    const mb_device_options *options;
    const int *ordinals;
};

/* ---- threads ---- */

static void *member_main(void *argument)
{
    struct member *m = argument;
    mb_team *team = m->team;
    pthread_mutex_lock(&team->mutex);
    for (uint64_t done = 0;;) {
        while (team->jobs == done && !team->stop)
            pthread_cond_wait(&team->begun, &team->mutex);
        if (team->stop)
            break;
        done = team->jobs;
        pthread_mutex_unlock(&team->mutex);
        m->error = (mb_error){0};
        m->rc = team->job(team->user, m->rank, &m->error);
        pthread_mutex_lock(&team->mutex);
        if (--team->working == 0)
            pthread_cond_signal(&team->ended);
    }
    pthread_mutex_unlock(&team->mutex);
    return NULL;
}

bool mb_team_leads(const mb_team *team)
{
    return team && !team->running;
}

int mb_team_run(mb_team *team, mb_team_job job, void *user, mb_error *err)
{
    struct member *first = &team->members[0];
    pthread_mutex_lock(&team->mutex);
    team->job = job;
    team->user = user;
    team->jobs++;
    team->working = team->ranks - 1;
    team->running = true;
    pthread_cond_broadcast(&team->begun);
    pthread_mutex_unlock(&team->mutex);
    first->error = (mb_error){0};
    first->rc = job(user, 0, &first->error);
    pthread_mutex_lock(&team->mutex);
    while (team->working > 0)
        pthread_cond_wait(&team->ended, &team->mutex);
    team->running = false;
    pthread_mutex_unlock(&team->mutex);
    for (int32_t r = 0; r < team->ranks; r++)
        if (team->members[r].rc != MB_OK) {
            if (err)
                *err = team->members[r].error;
            return team->members[r].rc;
        }
    return MB_OK;
}

/* ---- opening ---- */

static int open_device(void *user, int32_t rank, mb_error *err)
{
    mb_team *team = user;
    struct member *m = &team->members[rank];
    if (rank == 0)
        return MB_OK;
    mb_device_options options = *team->options;
    options.ordinal = team->ordinals ? team->ordinals[rank] : options.ordinal + rank;
    int rc = m->place.kernels->open(&m->place.device, &options, err);
    m->opened = rc == MB_OK;
    return rc == MB_OK ? rc : mb_fail_prefix(err, rc, "device %d of %d of the model", rank + 1, team->ranks);
}

static int join(void *user, int32_t rank, mb_error *err)
{
    mb_team *team = user;
    mb_place *place = &team->members[rank].place;
    return mb_comm_open(&place->comm, team->group, rank, place->device, err);
}

/* Each from its own thread, which is the one that its GPU is current in. */
static int leave(void *user, int32_t rank, mb_error *err)
{
    mb_team *team = user;
    struct member *m = &team->members[rank];
    (void)err;
    mb_comm_close(m->place.comm);
    if (m->opened)
        m->place.kernels->close(m->place.device);
    return MB_OK;
}

/* Ranks on one GPU, and CPUs, add over host memory. */
static bool is_linked(const mb_kernels *kernels, const int *ordinals, int32_t ranks)
{
    bool different = kernels->link && ranks > 1;
    for (int32_t r = 0; ordinals && r < ranks; r++)
        for (int32_t other = 0; other < r; other++)
            different = different && ordinals[r] != ordinals[other];
    return different;
}

static int start_threads(mb_team *team, mb_error *err)
{
    sigset_t all, before; /* signals are the caller's thread's */
    int rc = MB_OK;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    for (int32_t r = 1; r < team->ranks && rc == MB_OK; r++) {
        struct member *m = &team->members[r];
        m->started = pthread_create(&m->thread, NULL, member_main, m) == 0;
        if (!m->started)
            rc = mb_fail(err, MB_E_SYSTEM, "cannot start a thread for device %d of the model", r + 1);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int mb_team_open(mb_team **team, const mb_kernels *kernels, mb_device *device, const mb_device_options *options,
                 int32_t ranks, const int *ordinals, mb_error *err)
{
    mb_comm_group *group = NULL;
    *team = NULL;
    int rc = mb_comm_group_open(&group, ranks, kernels, is_linked(kernels, ordinals, ranks), err);
    if (rc != MB_OK)
        return rc;
    mb_team *t = calloc(1, sizeof *t);
    if (!t) {
        mb_comm_group_close(group);
        return mb_no_memory(err, "the ranks of a model");
    }
    t->ranks = ranks;
    t->group = group;
    t->options = options;
    t->ordinals = ordinals;
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->begun, NULL);
    pthread_cond_init(&t->ended, NULL);
    for (int32_t r = 0; r < ranks; r++)
        t->members[r] =
            (struct member){.team = t, .rank = r, .place = {kernels, r == 0 ? device : NULL, NULL, r, ranks}};
    rc = start_threads(t, err);
    if (rc == MB_OK)
        rc = mb_team_run(t, open_device, t, err);
    if (rc == MB_OK)
        rc = mb_team_run(t, join, t, err);
    if (rc != MB_OK) {
        mb_team_close(t);
        return rc;
    }
    *team = t;
    return MB_OK;
}

void mb_team_close(mb_team *team)
{
    if (!team)
        return;
    bool whole = true; /* a thread that could not be started answers no job */
    for (int32_t r = 1; r < team->ranks; r++)
        whole = whole && team->members[r].started;
    if (whole)
        mb_team_run(team, leave, team, NULL);
    pthread_mutex_lock(&team->mutex);
    team->stop = true;
    pthread_cond_broadcast(&team->begun);
    pthread_mutex_unlock(&team->mutex);
    for (int32_t r = 1; r < team->ranks; r++)
        if (team->members[r].started)
            pthread_join(team->members[r].thread, NULL);
    pthread_mutex_destroy(&team->mutex);
    pthread_cond_destroy(&team->begun);
    pthread_cond_destroy(&team->ended);
    mb_comm_group_close(team->group);
    free(team);
}

int32_t mb_team_ranks(const mb_team *team)
{
    return team->ranks;
}

const mb_place *mb_team_place(const mb_team *team, int32_t rank)
{
    return &team->members[rank].place;
}
