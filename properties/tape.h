/*
 * tape.h - graph replay without a GPU: what a method's select() and attend() enqueue is written to a tape when a
 * forward of a kind (mode, phase) comes up, and from the third such forward on the tape is played and the hooks
 * are not called. What they would have computed on the host from the step, the block or their own memory is then
 * missing or out of date, exactly as when a captured graph runs.
 */
#ifndef MB_TAPE_H
#define MB_TAPE_H

#include "kernels/kernels.h"
#include "methods/method.h"
#include "model/engine/engine.h"

typedef struct mb_tapes mb_tapes;

/* *kernels: the table to open the stage with; its operations are real's. One set of tapes at a time. */
mb_tapes *mb_tapes_new(const mb_kernels *real, const mb_kernels **kernels);
void mb_tapes_free(mb_tapes *tapes);
/* Forget what was written: before a method is opened again, whose memory may lie elsewhere. */
void mb_tapes_clear(mb_tapes *tapes);
/* Layer calls that were played so far. */
int mb_tapes_played(const mb_tapes *tapes);

/* The hook, or its tape. tapes NULL: the hook. */
int mb_tapes_select(mb_tapes *tapes, mb_attender *attender, const mb_call *call, mb_selection *answer,
                    mb_error *err);
int mb_tapes_attend(mb_tapes *tapes, mb_attender *attender, const mb_call *call, void *out, float *lse,
                    mb_error *err);

#endif
