/*
 * record.h - a decode of which the prompt, or also the steps and the selected keys are kept: what the config's
 * section record asks for.
 */
#ifndef MB_RECORD_H
#define MB_RECORD_H

#include "driver/arm.h"

typedef struct mb_recorder mb_recorder;

/* NULL with MB_OK: this sample of this arm is not to be recorded (the keys, or the method runs in a process of its
 * own). Else the request is told to report to it. */
int mb_record_begin(const mb_run *run, const mb_prepared *prepared, const mb_arm *arm, mb_decode_request *request,
                    mb_recorder **recorder, mb_error *err);
/* The rows of the recorder, which owns them; with a NULL recorder the row stays as it is. */
int mb_record_finish(mb_recorder *recorder, mb_sample_row *row, mb_error *err);
void mb_record_free(mb_recorder *recorder);

#endif
