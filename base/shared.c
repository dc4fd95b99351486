/*
 * shared.c - where an installed program finds what it brought along. The shared folder is found from where the
 * program lies, not from a compiled-in prefix: an installed tree can be moved, and a program in a build folder
 * finds nothing there and keeps to the working folder.
 */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *mb_shared_path(const char *path)
{
    char program[4096], *shared = NULL;
    if (!path || path[0] == '/' || access(path, F_OK) == 0)
        return mb_string_copy(path);
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n > 0) {
        program[n] = '\0';
        for (int up = 0; up < 2; up++) { /* the file's name, then bin */
            char *slash = strrchr(program, '/');
            if (slash)
                *slash = '\0';
        }
        shared = mb_string_format("%s/share/maskbench/%s", program, path);
    }
    if (shared && access(shared, F_OK) == 0)
        return shared;
    free(shared);
    return mb_string_copy(path);
}
