/*
 * progress.c - progress on standard error, so that standard output holds results only. A terminal gets one line
 * that is redrawn five times a second; a file or pipe gets a plain line every ten seconds.
 */
#include "driver/os/progress.h"
#include "base/base.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REDRAW_NS 200000000ull
#define LINE_NS 10000000000ull
#define BAR_CELLS 24

void mb_progress_begin(mb_progress *progress, bool quiet, double total)
{
    *progress = (mb_progress){.quiet = quiet, .total = total};
    progress->terminal = isatty(STDERR_FILENO) == 1;
    progress->started = progress->last = mb_clock_ns();
}

static void format_duration(double seconds, char *text, size_t cap)
{
    if (seconds < 100)
        snprintf(text, cap, "%.0f s", seconds);
    else if (seconds < 6000)
        snprintf(text, cap, "%.0f min", seconds / 60);
    else
        snprintf(text, cap, "%.1f h", seconds / 3600);
}

double mb_progress_left(const mb_progress *progress, double elapsed)
{
    if (!(progress->worked > 0) || progress->total <= progress->done)
        return -1;
    return elapsed / progress->worked * (progress->total - progress->done);
}

static void format_left(const mb_progress *progress, char *text, size_t cap)
{
    double left = mb_progress_left(progress, (double)(mb_clock_ns() - progress->started) * 1e-9);
    if (left < 0)
        snprintf(text, cap, "--");
    else
        format_duration(left, text, cap);
}

static void draw(mb_progress *progress)
{
    char left[32];
    format_left(progress, left, sizeof left);
    double share = progress->total > 0 ? progress->done / progress->total : 0;
    if (share > 1)
        share = 1;
    if (progress->terminal) {
        char bar[BAR_CELLS + 1];
        for (int i = 0; i < BAR_CELLS; i++)
            bar[i] = i < (int)(share * BAR_CELLS) ? '#' : '.';
        bar[BAR_CELLS] = '\0';
        fprintf(stderr, "\r[%s] %3.0f%%  left %s  %s\033[K", bar, share * 100, left, progress->label);
        progress->drawn = true;
    } else {
        fprintf(stderr, "%3.0f%%  left %s  %s\n", share * 100, left, progress->label);
    }
    fflush(stderr);
}

static void maybe_draw(mb_progress *progress)
{
    uint64_t now = mb_clock_ns();
    if (progress->quiet || now - progress->last < (progress->terminal ? REDRAW_NS : LINE_NS))
        return;
    progress->last = now;
    draw(progress);
}

void mb_progress_label(mb_progress *progress, const char *label)
{
    mb_text shown = {0};
    mb_text_visible(&shown, label, "");
    snprintf(progress->label, sizeof progress->label, "%s", shown.data ? shown.data : "");
    mb_text_free(&shown);
    maybe_draw(progress);
}

void mb_progress_step(mb_progress *progress, double seconds, bool worked)
{
    progress->done += seconds;
    progress->worked += worked ? seconds : 0;
    maybe_draw(progress);
}

void mb_progress_note(mb_progress *progress, const char *format, ...)
{
    va_list args;
    if (progress->quiet)
        return;
    if (progress->drawn)
        fprintf(stderr, "\r\033[K");
    char said[2 * MB_ERROR_CAP];
    mb_text shown = {0};
    va_start(args, format);
    vsnprintf(said, sizeof said, format, args);
    va_end(args);
    mb_text_visible(&shown, said, "");
    fprintf(stderr, "%s\n", shown.data ? shown.data : "");
    mb_text_free(&shown);
    if (progress->drawn)
        draw(progress);
}

void mb_progress_end(mb_progress *progress)
{
    if (progress->drawn)
        fprintf(stderr, "\r\033[K");
    progress->drawn = false;
}
