/*
 * fetch.c - the command that downloads a benchmark's files, as a message names it. The script lies beside the
 * sources, or where `make install` put it; there it is told to write below the working folder, where the program
 * looks first and everybody may write.
 */
#include "datasets/datasets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRIPT "datasets/fetch.sh"
#define DATA "datasets/data"

void mb_fetch_command(const char *set, char text[MB_FETCH_CAP])
{
    char *script = mb_shared_path(SCRIPT);
    const bool installed = script && strcmp(script, SCRIPT) != 0;
    snprintf(text, MB_FETCH_CAP, "bash %s%s %s", installed ? script : SCRIPT, installed ? " --dir " DATA : "",
             set);
    free(script);
}
