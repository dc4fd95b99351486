/*
 * test_comm.c - ranks that add over a backend's link when one of them fails. The link here is a simulation of NCCL
 * between threads: a sum is enqueued at once, and waiting for a device waits until every rank has enqueued as
 * many, or until the link is aborted. A device can be broken: it then never comes to its sums.
 */
#include "kernels/comm.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define RANKS 3
#define SUMS 5 /* of a forward */

/* One end of the simulated link: what stands behind a device. */
static struct end {
    mb_device *device;
    int enqueued;
    bool broken, aborted;
} ends[RANKS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;

static struct end *end_of(const mb_device *device)
{
    for (int r = 0; r < RANKS; r++)
        if (ends[r].device == device)
            return &ends[r];
    fail_msg("a device that has not joined");
    return NULL;
}

static int link_id(unsigned char id[MB_LINK_ID_BYTES], mb_error *err)
{
    (void)err;
    memset(id, 7, MB_LINK_ID_BYTES);
    return MB_OK;
}

static int link_open(mb_device *device, const unsigned char id[MB_LINK_ID_BYTES], int rank, int ranks)
{
    assert_int_equal(ranks, RANKS);
    assert_int_equal(id[0], 7);
    pthread_mutex_lock(&mutex);
    ends[rank].device = device;
    pthread_mutex_unlock(&mutex);
    return MB_OK;
}

static void link_close(mb_device *device)
{
    (void)device;
}

static int link_sum(mb_device *device, void *data, int64_t n, mb_type type)
{
    (void)data, (void)n, (void)type;
    pthread_mutex_lock(&mutex);
    struct end *end = end_of(device);
    int rc = end->aborted ? MB_E_SYSTEM : MB_OK;
    end->enqueued += rc == MB_OK;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&mutex);
    return rc;
}

static void link_abort(mb_device *device)
{
    pthread_mutex_lock(&mutex);
    end_of(device)->aborted = true;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&mutex);
}

static bool all_came(const struct end *end)
{
    for (int r = 0; r < RANKS; r++)
        if (ends[r].broken || ends[r].enqueued < end->enqueued)
            return false;
    return true;
}

static int wait_for_device(mb_device *device)
{
    pthread_mutex_lock(&mutex);
    const struct end *end = end_of(device);
    while (!end->broken && !end->aborted && !all_came(end))
        pthread_cond_wait(&moved, &mutex);
    int rc = end->broken ? MB_E_SYSTEM : MB_OK;
    pthread_mutex_unlock(&mutex);
    return rc;
}

static const mb_link simulated = {link_id, link_open, link_close, link_sum, link_abort};

/* ---- ranks at work ---- */

enum fault {
    NOTHING,
    SENTENCE,     /* rank 1 fails after two sums, as a method's hook does, and quits */
    BROKEN_LATE,  /* rank 1 has enqueued all, and its device breaks */
    BROKEN_EARLY, /* the device breaks, and rank 1 hears of it after two sums, between forwards */
};

struct member {
    struct work *work;
    int rank, rc, second; /* codes of two forwards */
    mb_error error;
};

struct work {
    mb_comm_group *group;
    const mb_kernels *kernels;
    enum fault fault; /* of the first forward */
    struct member ranks[RANKS];
};

static void break_device(int rank)
{
    pthread_mutex_lock(&mutex);
    ends[rank].broken = true;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&mutex);
}

static int forward(const struct work *w, mb_comm *comm, mb_device *device, enum fault fault, mb_error *err)
{
    const int rank = mb_comm_rank(comm);
    const bool mine = rank == 1 && fault != NOTHING;
    float data[4] = {0};
    for (int i = 0; i < SUMS; i++) {
        if (mine && fault != BROKEN_LATE && i == 2) {
            if (fault == SENTENCE)
                mb_comm_quit(comm, SUMS - i, data, 4, MB_F32);
            else
                break_device(rank);
            return mb_fail(err, fault == SENTENCE ? MB_E_SAMPLE : MB_E_SYSTEM, "planted on rank 1");
        }
        if (mb_comm_sum(comm, data, 4, MB_F32) != MB_OK)
            return mb_fail(err, MB_E_SYSTEM, "rank %d: the link has ended", rank);
    }
    if (mine && fault == BROKEN_LATE)
        break_device(rank);
    return w->kernels->sync(device) == MB_OK ? MB_OK : mb_fail(err, MB_E_SYSTEM, "planted on rank 1");
}

static void *run_rank(void *user)
{
    const struct member *self = user;
    struct work *w = self->work;
    const int rank = self->rank;
    mb_device_options options = {.type = MB_F32, .threads = 1, .arena_bytes = 1 << 20};
    mb_device *device = NULL;
    mb_comm *comm = NULL;
    mb_error *err = &w->ranks[rank].error;
    assert_int_equal(w->kernels->open(&device, &options, err), MB_OK);
    assert_int_equal(mb_comm_open(&comm, w->group, rank, device, err), MB_OK);
    assert_int_equal(mb_comm_agree(comm, MB_OK, NULL, 0, err), MB_OK); /* all have joined */
    w->ranks[rank].rc = mb_comm_agree(comm, forward(w, comm, device, w->fault, err), NULL, 0, err);
    mb_error again = {0};
    w->ranks[rank].second = mb_comm_agree(comm, forward(w, comm, device, NOTHING, &again), NULL, 0, &again);
    mb_comm_close(comm);
    w->kernels->close(device);
    return NULL;
}

/* A hang fails the test: the alarm ends the program. */
static struct work play(enum fault fault)
{
    static mb_kernels kernels;
    struct work w = {.kernels = &kernels, .fault = fault};
    pthread_t threads[RANKS];
    mb_error err = {0};
    kernels = *mb_kernels_cpu();
    kernels.link = &simulated;
    kernels.sync = wait_for_device;
    memset(ends, 0, sizeof ends);
    alarm(60);
    assert_int_equal(mb_comm_group_open(&w.group, RANKS, &kernels, true, &err), MB_OK);
    for (int r = 0; r < RANKS; r++) {
        w.ranks[r].work = &w;
        w.ranks[r].rank = r;
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &w.ranks[r]), 0);
    }
    for (int r = 0; r < RANKS; r++)
        pthread_join(threads[r], NULL);
    mb_comm_group_close(w.group);
    alarm(0);
    return w;
}

static void expect(const struct work *w, int rc, int second, bool aborted)
{
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(w->ranks[r].rc, rc);
        assert_int_equal(w->ranks[r].second, second);
        assert_int_equal(ends[r].aborted, aborted);
        if (rc != MB_OK)
            assert_string_equal(w->ranks[r].error.text, "planted on rank 1");
    }
}

static void a_link_without_a_failure_stays(void **state)
{
    (void)state;
    struct work w = play(NOTHING);
    expect(&w, MB_OK, MB_OK, false);
}

static void a_failure_that_is_no_fault_of_the_device_keeps_the_link(void **state)
{
    (void)state;
    struct work w = play(SENTENCE);
    expect(&w, MB_E_SAMPLE, MB_OK, false);
}

static void a_broken_device_lets_the_others_go(void **state)
{
    (void)state;
    for (enum fault fault = BROKEN_LATE; fault <= BROKEN_EARLY; fault++) {
        struct work w = play(fault);
        expect(&w, MB_E_SYSTEM, MB_E_SYSTEM, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_without_a_failure_stays),
        cmocka_unit_test(a_failure_that_is_no_fault_of_the_device_keeps_the_link),
        cmocka_unit_test(a_broken_device_lets_the_others_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
