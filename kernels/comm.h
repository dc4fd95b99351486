/*
 * comm.h - the ranks of one model talk to each other: each is a thread of this process with a device of its own,
 * and all of them do the same things in the same order.
 *
 * Two ways to add what lies on the devices. Linked: the backend's own (NCCL on GPUs), enqueued like an operation,
 * so that a graph can hold it. Not linked: over host memory, for any backend, any number of ranks on one GPU, and
 * with no library; it waits for the device.
 *
 * A rank that fails does not let the others wait: it calls mb_comm_quit(), what the others wait for then fails
 * too, and all meet again in the next mb_comm_agree(), which tells everyone the first failure. A rank whose GPU is
 * broken cannot add to the sums that others wait for: the link is ended, and stays so.
 */
#ifndef MB_KERNELS_COMM_H
#define MB_KERNELS_COMM_H

#include "base/base.h"
#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MB_RANKS_MAX 16
#define MB_LINK_ID_BYTES 128

/* What a backend has for it. */
typedef struct mb_link {
    /* A name for a new link; MB_E_INPUT where the library (NCCL) cannot be had. */
    int (*id)(unsigned char id[MB_LINK_ID_BYTES], mb_error *err);
    /* The ranks' devices, all different, join the link of this name: each from the thread that uses it, at once.
     */
    int (*open)(mb_device *device, const unsigned char id[MB_LINK_ID_BYTES], int rank, int ranks);
    void (*close)(mb_device *device);
    /* data[n] becomes its sum over the ranks. Enqueued, and captured, like an operation; all ranks do the same. */
    int (*sum)(mb_device *device, void *data, int64_t n, mb_type type);
    /* Ends this rank's end of the link for good, from any thread: what waits for a sum goes on, with anything in
     * the data, and every later sum fails. Again: nothing. */
    void (*abort)(mb_device *device);
} mb_link;

struct mb_kernels;
typedef struct mb_comm_group mb_comm_group; /* what the ranks share */
typedef struct mb_comm mb_comm;             /* one rank's end of it */

/* linked: sums go through kernels->link, which must be there; MB_E_INPUT where its library is missing. */
int mb_comm_group_open(mb_comm_group **group, int ranks, const struct mb_kernels *kernels, bool linked,
                       mb_error *err);
/* After the ends of all ranks. */
void mb_comm_group_close(mb_comm_group *group);

/* All ranks call it at once, each in its thread. The device stays the caller's and must outlive the end. */
int mb_comm_open(mb_comm **comm, mb_comm_group *group, int rank, mb_device *device, mb_error *err);
void mb_comm_close(mb_comm *comm);

int mb_comm_ranks(const mb_comm *comm);
int mb_comm_rank(const mb_comm *comm);
/* Whether a graph can hold a sum. */
bool mb_comm_captures(const mb_comm *comm);

/* data[n], in the type's elements on the device, becomes the sum over the ranks: the same bits on all of them, and
 * the same from run to run. Not linked: added in fp32 in the order of the ranks and rounded once. */
int mb_comm_sum(mb_comm *comm, void *data, int64_t n, mb_type type);
/* This rank fails where the others go on to `owed` more sums of this size. To be followed by mb_comm_agree(). */
void mb_comm_quit(mb_comm *comm, int32_t owed, void *data, int64_t n, mb_type type);

/* Host memory: all[ranks][bytes] receives every rank's bytes, in the order of the ranks. */
int mb_comm_gather(mb_comm *comm, const void *mine, size_t bytes, void *all);
/* Host memory: the code of the lowest rank that failed, with its text in err, or MB_OK for all; and then rank 0's
 * data[bytes] in everyone's. data may be NULL with bytes 0. */
int mb_comm_agree(mb_comm *comm, int rc, void *data, size_t bytes, mb_error *err);

#ifdef __cplusplus
}
#endif
#endif
