/*
 * nccl.c - sums over the GPUs of one model through NCCL, which is loaded with dlopen when a model asks for more
 * than one GPU: nothing else needs it. The few declarations of its interface that are used stand here, so a build
 * needs no header of it; they are the same since NCCL 2.10 (bf16).
 *
 * A sum goes onto the device's stream like any operation, so a graph captures it. NCCL adds in an order that
 * depends on the number of GPUs and of elements alone: the same bits on every rank and in every run.
 *
 * Sums over NVLink multicast (NVLS) stay off unless NCCL_NVLS_ENABLE says otherwise: the switch adds in an order
 * of its own.
 *
 * A rank whose GPU is broken leaves the others' sums without an end. Its thread then aborts the communicators of
 * all ranks. NCCL wants nobody else in a communicator that is aborted, so whatever enqueues sums holds its lock.
 */
#include "kernels/cuda/backend.h"
#include "kernels/cuda/table.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How long an abort waits for the lock: who holds it for longer hangs in an enqueue itself, and is let go by it.
 */
#define LOCK_SECONDS 5

enum { NCCL_SUCCESS = 0, NCCL_SUM = 0, NCCL_INT32 = 2, NCCL_FLOAT16 = 6, NCCL_FLOAT32 = 7, NCCL_BFLOAT16 = 9 };

typedef struct nccl_id {
    char bytes[MB_LINK_ID_BYTES];
} nccl_id;
typedef struct nccl_comm nccl_comm;

typedef struct nccl_library {
    void *handle;
    int (*version)(int *version);
    int (*unique_id)(nccl_id *id);
    int (*init_rank)(nccl_comm **comm, int ranks, nccl_id id, int rank);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int operation, nccl_comm *comm,
                      cudaStream_t stream);
    int (*destroy)(nccl_comm *comm);
    int (*abort)(nccl_comm *comm);
    const char *(*error)(int code);
} nccl_library;

struct mb_cuda_link {
    nccl_library nccl;
    nccl_comm *comm; /* NULL: aborted */
    pthread_mutex_t lock;
};

/* The library stays loaded: it has threads of its own. */
static int load(nccl_library *nccl, mb_error *err)
{
    memset(nccl, 0, sizeof *nccl);
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    nccl->handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!nccl->handle)
        return mb_fail(err, MB_E_INPUT,
                       "a model over several GPUs needs NCCL, and libnccl.so.2 does not load: install it (package "
                       "libnccl2, or the wheel nvidia-nccl-cu13 with its folder in LD_LIBRARY_PATH), or leave out "
                       "model.parallel");
    const struct {
        const char *name;
        void *slot;
    } symbols[] = {{"ncclGetVersion", &nccl->version},     {"ncclGetUniqueId", &nccl->unique_id},
                   {"ncclCommInitRank", &nccl->init_rank}, {"ncclAllReduce", &nccl->all_reduce},
                   {"ncclCommDestroy", &nccl->destroy},    {"ncclCommAbort", &nccl->abort},
                   {"ncclGetErrorString", &nccl->error}};
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *address = dlsym(nccl->handle, symbols[i].name);
        if (!address)
            return mb_fail(err, MB_E_INPUT, "libnccl.so.2 lacks %s: another version is needed", symbols[i].name);
        memcpy(symbols[i].slot, &address, sizeof address);
    }
    return MB_OK;
}

static int make_id(unsigned char id[MB_LINK_ID_BYTES], mb_error *err)
{
    nccl_library nccl;
    nccl_id fresh;
    int rc = load(&nccl, err);
    if (rc != MB_OK)
        return rc;
    int status = nccl.unique_id(&fresh);
    if (status != NCCL_SUCCESS)
        return mb_fail(err, MB_E_SYSTEM, "NCCL cannot start: %s", nccl.error(status));
    memcpy(id, fresh.bytes, sizeof fresh.bytes);
    return MB_OK;
}

static int join(mb_device *device, const unsigned char id[MB_LINK_ID_BYTES], int rank, int ranks)
{
    nccl_id joined;
    mb_cuda_link *link = calloc(1, sizeof *link);
    if (!link)
        return mb_no_memory(&device->error, "NCCL");
    memcpy(joined.bytes, id, sizeof joined.bytes);
    int rc = load(&link->nccl, &device->error);
    int status = rc == MB_OK ? link->nccl.init_rank(&link->comm, ranks, joined, rank) : NCCL_SUCCESS;
    if (rc == MB_OK && status != NCCL_SUCCESS)
        rc =
            mb_fail(&device->error, MB_E_SYSTEM, "NCCL: %s (NCCL_DEBUG=INFO says more)", link->nccl.error(status));
    if (rc != MB_OK) {
        free(link);
        return rc;
    }
    pthread_mutex_init(&link->lock, NULL);
    device->link = link;
    return MB_OK;
}

static void abort_link(mb_device *device)
{
    mb_cuda_link *link = device->link;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LOCK_SECONDS;
    bool locked = pthread_mutex_timedlock(&link->lock, &until) == 0;
    nccl_comm *comm = link->comm;
    link->comm = NULL;
    if (comm)
        link->nccl.abort(comm);
    if (locked)
        pthread_mutex_unlock(&link->lock);
}

int mb_cuda_link_enter(mb_device *device)
{
    mb_cuda_link *link = device->link;
    if (!link)
        return MB_OK;
    pthread_mutex_lock(&link->lock);
    if (link->comm)
        return MB_OK;
    pthread_mutex_unlock(&link->lock);
    return mb_fail(
        &device->error, MB_E_SYSTEM,
        "the sums over the GPUs of the model ended when one of them failed: start the run again, it goes "
        "on where it stopped");
}

void mb_cuda_link_leave(mb_device *device)
{
    if (device->link)
        pthread_mutex_unlock(&device->link->lock);
}

void mb_cuda_link_close(mb_device *device)
{
    mb_cuda_link *link = device->link;
    if (!link)
        return;
    cudaStreamSynchronize(device->stream);
    if (link->comm)
        link->nccl.destroy(link->comm);
    pthread_mutex_destroy(&link->lock);
    free(link);
    device->link = NULL;
}

static int sum(mb_device *device, void *data, int64_t n, mb_type type)
{
    const int types[] = {
        [MB_F32] = NCCL_FLOAT32, [MB_BF16] = NCCL_BFLOAT16, [MB_F16] = NCCL_FLOAT16, [MB_I32] = NCCL_INT32};
    mb_cuda_link *link = device->link;
    if (!link)
        return mb_fail(&device->error, MB_E_BUG, "a sum over GPUs that were not joined");
    int rc = mb_cuda_link_enter(device);
    if (rc != MB_OK)
        return rc;
    mb_cuda_part_begin(device, MB_PART_COPY);
    int status = link->nccl.all_reduce(data, data, (size_t)n, types[type], NCCL_SUM, link->comm, device->stream);
    mb_cuda_part_end(device);
    mb_cuda_link_leave(device);
    return status == NCCL_SUCCESS ? MB_OK
                                  : mb_fail(&device->error, MB_E_SYSTEM, "NCCL: %s", link->nccl.error(status));
}

const mb_link mb_cuda_link_table = {
    .id = make_id, .open = join, .close = mb_cuda_link_close, .sum = sum, .abort = abort_link};
