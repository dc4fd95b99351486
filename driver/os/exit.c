/* exit.c - the one table from result codes to the program's exit codes. */
#include "driver/os/os.h"

#include <stdio.h>

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
    fprintf(stderr, "harness: %s\n", sentence);
    return (int)mb_exit_code(rc);
}
