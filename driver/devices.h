/*
 * devices.h - the samples of a run over several devices of one machine: a worker process a device takes the next
 * sample whenever it is free, and one process, this one, stores the rows. A worker that dies is started anew; its
 * sample goes to whichever worker is free next. The timed passes are left out: they want a machine that does
 * nothing else.
 */
#ifndef MB_DEVICES_H
#define MB_DEVICES_H

#include "driver/arm.h"

/* What a worker is asked and answers; serve_samples.c is the other side. */
typedef struct mb_samples_job {
    int32_t open;          /* 1: behind the job stands an order as JSON text; the answer is the device's name */
    uint64_t task;         /* of the config */
    int64_t index, number; /* behind the job: what is stored already, as in mb_run.stored */
} mb_samples_job;
typedef struct mb_samples_done { /* in front of the bytes of mb_store_pack() */
    int64_t failed;
    double seconds_quality, seconds_recall;
    int64_t alone_again, alone_differ, differing; /* of groups: as in mb_run */
} mb_samples_done;
#define MB_SAMPLES_CONFIG "config" /* keys of the order */
#define MB_SAMPLES_DEVICE "device"
#define MB_SAMPLES_THREADS "threads"

/* Reads run->flags.devices ("0,1", "cuda:1", "cpu,cpu", "all") and sets the run up for it; without the flag
 * nothing happens. */
int mb_devices_choose(mb_run *run, mb_error *err);
/* Samples are given away from here on; the first one that is to be computed starts the workers. */
void mb_devices_begin(mb_run *run);
/* Waits until every sample that was given away is stored. */
int mb_devices_finish(mb_run *run, mb_error *err);
/* Ends the workers. */
void mb_devices_close(mb_run *run);

/* The worker's side: what `./harness worker samples` does until the run that started it is gone. */
int mb_serve_samples(mb_error *err);

#endif
