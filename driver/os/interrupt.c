/*
 * interrupt.c - SIGINT, SIGTERM, SIGUSR1 and SIGHUP as a flag: whoever computes looks at it and stops where its
 * results are stored.
 */
#include "driver/os/os.h"

#include "base/foreign.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define SAME_SIGNAL 0.5 /* seconds: GNU timeout sends one signal to its child and again to the group of both */

volatile int mb_interrupted;
static struct timespec first; /* when mb_interrupted was set */

static void on_signal(int number)
{
    struct timespec now;
    (void)number;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!mb_interrupted)
        first = now;
    else if (now.tv_sec - first.tv_sec + (now.tv_nsec - first.tv_nsec) * 1e-9 > SAME_SIGNAL)
        mb_foreign_end(MB_EXIT_INTERRUPTED); /* the second one means it */
    mb_interrupted = 1;
}

void mb_interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL); /* what a cluster sends before its time limit, where it is asked to */
    struct sigaction hangup;
    if (sigaction(SIGHUP, NULL, &hangup) == 0 &&
        hangup.sa_handler != SIG_IGN) /* ignored: that is what nohup wants */
        sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* `| head` ends the output, not the run */
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of the write, with the file's name */
}
