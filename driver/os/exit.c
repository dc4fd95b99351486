/* exit.c - the one table from result codes to the program's exit codes, and the one look at what was printed. */
#include "driver/os/os.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

mb_exit mb_exit_code(int rc)
{
    switch (rc) {
    case MB_OK:
        return MB_EXIT_DONE;
    case MB_E_INPUT:
        return MB_EXIT_USAGE;
    case MB_E_STOP:
        return MB_EXIT_INTERRUPTED;
    default:
        return MB_EXIT_FAILURE;
    }
}

int mb_exit_fail(int rc, const char *sentence)
{
    mb_say("%s", sentence);
    return (int)mb_exit_code(rc);
}

/* Did whoever read standard output leave (`| head -1`)? */
static bool reader_left(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) != 0;
}

int mb_exit_output(int code)
{
    int number = 0;
    bool left = reader_left();
    bool failed = ferror(stdout) != 0; /* of a write long ago, whose reason is gone */
    if (fflush(stdout) != 0) {
        failed = true;
        number = errno;
    }
    left = left || reader_left();
    /* Some file systems say only here that the disk was full. EBADF: there is no standard output at all. */
    if (fclose(stdout) != 0 && errno != EBADF && !failed) {
        failed = true;
        number = errno;
    }
    if (!failed || left)
        return code;
    mb_say("standard output could not be written%s%s", number ? ": " : "", number ? strerror(number) : "");
    return code == MB_EXIT_DONE ? MB_EXIT_FAILURE : code;
}
