/*
 * isolate.h - methods that are not ours, kept away from everybody else's results.
 *
 * On a device that survives a fork (the CPU) a plug-in's hooks run in worker processes only, one per decode. On a
 * GPU, whose context no child can use, they run in process: there the checks of the model room remain, and a
 * rehearsal of open() on counted memory.
 */
#ifndef MB_ISOLATE_H
#define MB_ISOLATE_H

#include "driver/run.h"

bool mb_isolate_is_plugin(const mb_method_spec *spec);
/* Device bytes that open() asks for; of a plug-in measured in a worker. MB_E_SAMPLE: it failed there. */
int mb_isolate_measure(const mb_run *run, const mb_method_spec *spec, const mb_shape *shape, size_t *bytes,
                       char *err, size_t err_cap);
/* Opens a plug-in's arm: sets attender, or isolated, or broken or nothing with the reason. Never fails the run for
 * the plug-in's sake. */
int mb_isolate_open(mb_run *run, mb_arm *arm, int32_t steps, char *err, size_t err_cap);
/* mb_decode() with the arm, in a worker where it is isolated. */
int mb_isolate_decode(mb_run *run, mb_arm *arm, const mb_decode_request *request, mb_decode_result *result,
                      char *err, size_t err_cap);
/* mb_decode_shadow() with an isolated arm as its only shadow. */
int mb_isolate_shadow(mb_run *run, mb_arm *reference, mb_arm *arm, const mb_decode_request *request,
                      mb_recall *recall, char *err, size_t err_cap);
/* One checked block of fixed work in a worker, before a plug-in is timed in process on this session. MB_OK at once
 * for other methods. Unsupported is for mb_attender_open() to say. */
int mb_isolate_rehearse(mb_run *run, mb_session *session, const mb_arm *arm, int32_t steps, char *err,
                        size_t err_cap);

#endif
