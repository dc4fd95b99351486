/*
 * os.h - what the driver has of the system it runs on: signals, exit codes, the machine's description.
 * progress.h is the other header of the folder.
 */
#ifndef MB_OS_H
#define MB_OS_H

#include "base/base.h"

#include <stdio.h>

/* ---- interrupt.c ---- */
/* Set by SIGINT, SIGTERM, SIGUSR1 and SIGHUP; every pass looks at it between forwards. */
extern volatile int mb_interrupted;
/* From now on the first of these signals sets mb_interrupted, the second one ends the program. */
void mb_interrupt_catch(void);

/* ---- say.c: every line that holds a name from outside goes through here ---- */
/* One line: the format has no newline, one is added. Control characters of what is put into it are spelled \xNN.
 */
void mb_print(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same on standard error, behind "harness: ". */
void mb_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- exit.c ---- */
/* Exit codes of the program: docs/exit-codes.md is the one list of them (tests/driver/check_exit.sh). */
typedef enum mb_exit {
    MB_EXIT_DONE = 0,
    MB_EXIT_FAILURE = 1,
    MB_EXIT_USAGE = 2,
    MB_EXIT_SAMPLES = 3, /* some samples failed, the others are stored */
    MB_EXIT_GATE = 4,    /* a sanity gate failed */
    MB_EXIT_INTERRUPTED = 130
} mb_exit;
/* The exit code of a result code. */
mb_exit mb_exit_code(int rc);
/* Prints "harness: sentence" and gives the exit code of rc. */
int mb_exit_fail(int rc, const char *sentence);
/* The last thing a program does: closes standard output and looks whether all of it was written, which is exit
 * code 1 where `code` is 0. A reader that left (`| head -1`) is no error. */
int mb_exit_output(int code);

/* ---- environment.c ---- */
/* What this machine is; strings live in the struct. */
typedef struct mb_environment {
    char host[64], os[128], cpu[128], git[64], build[160];
    int32_t threads;
} mb_environment;
void mb_environment_read(mb_environment *environment, int threads);
int64_t mb_peak_memory(void); /* bytes, of this process */
/* Whether a stream may be coloured: a terminal that is not dumb, and no $NO_COLOR (no-color.org). */
bool mb_terminal_colour(int stream);
int mb_terminal_width(void); /* columns of standard output; 0 when it is no terminal */

#endif
