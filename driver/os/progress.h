/* progress.h - a bar with the time left on a terminal, plain lines elsewhere, nothing when quiet. */
#ifndef MB_PROGRESS_H
#define MB_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mb_progress {
    bool quiet, terminal, drawn;
    double total, done; /* estimated seconds of work; skipped ones count as done but not for the rate */
    double worked;
    uint64_t started, last; /* nanoseconds */
    char label[96];
} mb_progress;

void mb_progress_begin(mb_progress *progress, bool quiet, double total);
void mb_progress_label(mb_progress *progress, const char *label);
/* A part of the work is done that was estimated to take so many seconds: a latency case takes longer than a
 * sample, and counts for more. worked: it took time; false: it was stored already. */
void mb_progress_step(mb_progress *progress, double seconds, bool worked);
/* Seconds left: those estimated, at the rate that the work really had. Negative: not known yet. */
double mb_progress_left(const mb_progress *progress, double elapsed);
/* A line of text above the bar. */
void mb_progress_note(mb_progress *progress, const char *format, ...) __attribute__((format(printf, 2, 3)));
void mb_progress_end(mb_progress *progress);

#endif
