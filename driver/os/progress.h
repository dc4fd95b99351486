/* progress.h - a bar with the time left on a terminal, plain lines elsewhere, nothing when quiet. */
#ifndef MB_PROGRESS_H
#define MB_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mb_progress {
    bool quiet, terminal, drawn;
    int64_t total, done; /* units of work; skipped ones count as done but not for the rate */
    int64_t worked;
    uint64_t started, last; /* nanoseconds */
    char label[96];
} mb_progress;

void mb_progress_begin(mb_progress *progress, bool quiet, int64_t total);
void mb_progress_label(mb_progress *progress, const char *label);
/* worked: the unit took time; false: it was stored already. */
void mb_progress_step(mb_progress *progress, bool worked);
/* A line of text above the bar. */
void mb_progress_note(mb_progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mb_progress_end(mb_progress *progress);

#endif
