/*
 * isolate.h - methods that are not ours, kept away from everybody else's results: on every device their hooks run
 * in worker processes only, one worker a configuration, ended at its first fault and started anew for the next
 * sample.
 *
 * The one exception is the latency pass, whose ratios need one process and one set of kernels: there a plug-in is
 * timed in process, after a worker has rehearsed what will be timed, on a device that the run has not opened yet.
 */
#ifndef MB_ISOLATE_H
#define MB_ISOLATE_H

#include "driver/arm.h"

/* Opens a plug-in's arm in its worker: sets isolated, or broken, or neither, with the reason. Fails the run for
 * nothing but an interrupt. */
int mb_isolate_open(mb_run *run, mb_arm *arm, mb_error *err);
/* mb_decode() with the arm on the prepared prompt, in its worker where it is isolated. */
int mb_arm_decode(mb_run *run, const mb_prepared *prepared, mb_arm *arm, const mb_decode_request *request,
                  mb_decode_result *result, mb_error *err);
/* mb_decode_shadow() with an isolated arm as its only shadow; the reference decodes there, too. */
int mb_isolate_shadow(mb_run *run, const mb_prepared *prepared, mb_arm *arm, const mb_decode_request *request,
                      mb_recall *recall, mb_error *err);
/* Fixed work of every plug-in at every context that the latency and breakdown passes will time: every index and
 * output checked, then graphs captured and replayed. Before the run opens its device. */
int mb_isolate_rehearse(mb_run *run, mb_error *err);
/* Ends all workers: the GPU is then ours alone. */
void mb_isolate_end(mb_run *run);

#endif
