/*
 * pool.c - the threads of the CPU backend and their scratch memory.
 *
 * A job is a number of pieces. Threads claim pieces from one atomic counter, `remaining`; the thread that called
 * takes part, and waits only for pieces that were claimed, never for a thread that slept through the job. Idle
 * threads spin for some microseconds before they sleep, because a forward is dozens of short jobs in a row.
 * Invariant: function, argument and count are written only while no piece is claimed or open, and read only
 * after a piece was claimed.
 */
#include "kernels/cpu/cpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define SPINS 3000

typedef struct worker {
    mb_cpu_pool *pool;
    pthread_t thread;
    int index;
} worker;

struct mb_cpu_pool {
    int threads; /* with the caller */
    int started;
    worker *workers; /* [threads]; entry 0, the caller, is not used */
    mb_cpu_piece *piece;
    void *arg;
    int64_t pieces;
    _Atomic int64_t remaining; /* pieces nobody has claimed yet */
    _Atomic int64_t finished;
    _Atomic int sleepers;
    _Atomic bool waiting; /* the caller sleeps until the last piece is finished */
    _Atomic bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
};

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Claims and runs pieces until none is left. */
static void work(mb_cpu_pool *pool, int index)
{
    int64_t left = atomic_load_explicit(&pool->remaining, memory_order_acquire);
    while (left > 0) {
        if (!atomic_compare_exchange_weak_explicit(&pool->remaining, &left, left - 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        pool->piece(pool->arg, pool->pieces - left, index);
        int64_t pieces = pool->pieces;
        /* After this increment the job may be over and its fields rewritten. */
        if (atomic_fetch_add(&pool->finished, 1) + 1 == pieces && atomic_load(&pool->waiting)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->mutex);
        }
        left = atomic_load_explicit(&pool->remaining, memory_order_acquire);
    }
}

static void *thread_main(void *arg)
{
    worker *self = arg;
    mb_cpu_pool *pool = self->pool;
    while (!atomic_load(&pool->stop)) {
        int spins = 0;
        while (spins < SPINS && atomic_load_explicit(&pool->remaining, memory_order_relaxed) == 0) {
            pause_briefly();
            spins++;
        }
        if (spins == SPINS) {
            /* Count ourselves as asleep before the last look, the caller looks at the count after publishing:
             * one of the two sees the other. */
            pthread_mutex_lock(&pool->mutex);
            atomic_fetch_add(&pool->sleepers, 1);
            while (atomic_load(&pool->remaining) == 0 && !atomic_load(&pool->stop))
                pthread_cond_wait(&pool->wake, &pool->mutex);
            atomic_fetch_sub(&pool->sleepers, 1);
            pthread_mutex_unlock(&pool->mutex);
        }
        work(pool, self->index);
    }
    return NULL;
}

void mb_cpu_run(mb_device *device, int64_t pieces, mb_cpu_piece *piece, void *arg)
{
    mb_cpu_pool *pool = device->pool;
    if (pieces <= 1 || pool->threads == 1) {
        for (int64_t i = 0; i < pieces; i++)
            piece(arg, i, 0);
        return;
    }
    pool->piece = piece;
    pool->arg = arg;
    pool->pieces = pieces;
    atomic_store_explicit(&pool->finished, 0, memory_order_relaxed);
    atomic_store(&pool->remaining, pieces);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
    work(pool, 0);
    for (int spins = 0; spins < SPINS; spins++) {
        if (atomic_load_explicit(&pool->finished, memory_order_acquire) == pieces)
            return;
        pause_briefly();
    }
    /* A thread lost its core with a piece in hand: sleep instead of competing with it. */
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->waiting, true);
    while (atomic_load(&pool->finished) < pieces)
        pthread_cond_wait(&pool->done, &pool->mutex);
    atomic_store(&pool->waiting, false);
    pthread_mutex_unlock(&pool->mutex);
}

mb_cpu_pool *mb_cpu_pool_new(int threads)
{
    mb_cpu_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->threads = threads;
    pool->started = 1;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers)
        goto fail;
    for (int i = 1; i < threads; i++) {
        pool->workers[i] = (worker){.pool = pool, .index = i};
        if (pthread_create(&pool->workers[i].thread, NULL, thread_main, &pool->workers[i]) != 0)
            goto fail;
        pool->started++;
    }
    return pool;
fail:
    mb_cpu_pool_free(pool);
    return NULL;
}

void mb_cpu_pool_free(mb_cpu_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 1; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool);
}

/* Replaces *block by one of at least `bytes`; contents are not kept. */
static bool grow(void **block, size_t *have, size_t bytes)
{
    if (bytes <= *have)
        return true;
    size_t wanted = (bytes + bytes / 4 + 4095) & ~(size_t)4095;
    free(*block);
    *have = 0;
    *block = aligned_alloc(64, wanted);
    if (*block)
        *have = wanted;
    return *block != NULL;
}

int mb_cpu_reserve(mb_device *device, size_t bytes, size_t each)
{
    if (!grow(&device->shared, &device->shared_bytes, bytes))
        return mb_cpu_fail(device, MB_E_SYSTEM, "out of memory: scratch of %zu bytes for an operation", bytes);
    if (each <= device->private_bytes)
        return MB_OK;
    size_t got = 0;
    for (int i = 0; i < device->threads; i++) {
        got = 0;
        if (!grow(&device->private_scratch[i], &got, each)) {
            device->private_bytes = 0;
            return mb_cpu_fail(device, MB_E_SYSTEM, "out of memory: scratch of %zu bytes for each of %d threads",
                               each, device->threads);
        }
    }
    device->private_bytes = got;
    return MB_OK;
}
