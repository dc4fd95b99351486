/*
 * result_wire.h - decode results and recalls as bytes, for workers that hand them to the program that started
 * them: same machine, same build.
 *
 * Each message is a header (what it is, its length, the size of the structs inside), the struct with its pointers
 * cleared, then its arrays. Messages can follow each other in one text. A reader believes nothing: whatever does
 * not add up is refused before anything is copied.
 */
#ifndef MB_RESULT_WIRE_H
#define MB_RESULT_WIRE_H

#include "base/base.h"
#include "model/model.h"

/* Append one message. An allocation that fails shows in text->failed. */
void mb_wire_put_result(mb_text *text, const mb_decode_result *result);
void mb_wire_put_recall(mb_text *text, const mb_recall *recall);

/* Read the message at *at of the n bytes, into a struct of the caller's that the caller frees with
 * mb_decode_result_free or mb_recall_free, and move *at behind it. MB_E_SAMPLE: damaged, of another kind or cut
 * off; MB_E_SYSTEM: no memory. After a failure *result or *recall is zeroed and *at has not moved. */
int mb_wire_get_result(const void *bytes, size_t n, size_t *at, mb_decode_result *result, mb_error *err);
int mb_wire_get_recall(const void *bytes, size_t n, size_t *at, mb_recall *recall, mb_error *err);

#endif
