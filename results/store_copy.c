/*
 * store_copy.c - a database with its log copied to another place, for readers who may not write where it lies.
 *
 * The log (FILE-wal) holds what was committed last. A pair is whole when neither file changed while both were
 * read.
 */
#include "results/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ATTEMPTS 5

static int write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Copies the bytes; *there false: no such file, which is no error. */
static int copy_file(const char *from, const char *to, bool *there, mb_error *err)
{
    char buffer[1 << 16];
    ssize_t n = 0;
    int rc = MB_OK, in = open(from, O_RDONLY | O_CLOEXEC);
    *there = in >= 0;
    if (in < 0)
        return errno == ENOENT ? MB_OK : mb_fail(err, MB_E_INPUT, "cannot read %s: %s", from, strerror(errno));
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool written = out >= 0;
    while (written && ((n = read(in, buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)))
        written = n < 0 || write_all(out, buffer, (size_t)n) == 0;
    if (!written || (out >= 0 && close(out) != 0))
        rc = mb_fail(err, MB_E_SYSTEM, "cannot copy %s to %s: %s", from, to, strerror(errno));
    else if (n < 0)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot read %s: %s", from, strerror(errno));
    close(in);
    return rc;
}

/* Size and time of change of the two files; zeros where there is none. */
static void look(const char *file, const char *log, struct stat seen[2])
{
    memset(seen, 0, 2 * sizeof *seen);
    if (stat(file, &seen[0]) != 0)
        memset(&seen[0], 0, sizeof seen[0]);
    if (stat(log, &seen[1]) != 0)
        memset(&seen[1], 0, sizeof seen[1]);
}

static bool unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int store_copy_files(const char *from, const char *to, mb_error *err)
{
    char *log = mb_string_format("%s-wal", from), *log_copy = mb_string_format("%s-wal", to);
    int rc = log && log_copy ? MB_OK : mb_no_memory(err, "copying %s", from);
    bool whole = false, there = false;
    for (int attempt = 0; rc == MB_OK && !whole && attempt < ATTEMPTS; attempt++) {
        struct stat before[2], after[2];
        look(from, log, before);
        rc = copy_file(from, to, &there, err);
        if (rc == MB_OK && !there)
            rc = mb_fail(err, MB_E_INPUT, "cannot read %s: it is gone", from);
        if (rc == MB_OK)
            rc = copy_file(log, log_copy, &there, err);
        if (rc == MB_OK && !there)
            unlink(log_copy); /* of an earlier attempt */
        look(from, log, after);
        whole = unchanged(&before[0], &after[0]) && unchanged(&before[1], &after[1]);
    }
    if (rc == MB_OK && !whole)
        rc = mb_fail(
            err, MB_E_INPUT,
            "%s is being written to, and its folder is read-only for you: read it when the writer has ended",
            from);
    free(log);
    free(log_copy);
    return rc;
}

void store_remove_files(const char *file)
{
    const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char *name = mb_string_format("%s%s", file, ends[i]);
        if (name)
            unlink(name);
        free(name);
    }
}
