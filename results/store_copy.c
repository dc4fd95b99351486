/*
 * store_copy.c - a database with its logs copied to another place, for readers who may not write where it lies.
 *
 * FILE-wal holds what was committed last, FILE-journal what takes back a transaction that was cut off. A copy is
 * whole when none of the files changed while all were read.
 */
#include "results/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ATTEMPTS 5
#define PARTS 3

static const char *const parts[PARTS] = {"", "-wal", "-journal"};

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

/* Size and time of change of the files; zeros where there is none. */
static void look(char *const files[PARTS], struct stat seen[PARTS])
{
    for (size_t i = 0; i < PARTS; i++)
        if (stat(files[i], &seen[i]) != 0)
            memset(&seen[i], 0, sizeof seen[i]);
}

static bool unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static int copy_once(char *const from[PARTS], char *const to[PARTS], mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < PARTS; i++) {
        bool there = false;
        rc = copy_file(from[i], to[i], &there, err);
        if (rc == MB_OK && !there && i == 0)
            rc = mb_fail(err, MB_E_INPUT, "cannot read %s: it is gone", from[i]);
        if (rc == MB_OK && !there)
            unlink(to[i]); /* of an earlier attempt */
    }
    return rc;
}

int store_copy_files(const char *from, const char *to, mb_error *err)
{
    char *of[PARTS], *into[PARTS];
    bool whole = false;
    int rc = MB_OK;
    for (size_t i = 0; i < PARTS; i++) {
        of[i] = mb_string_format("%s%s", from, parts[i]);
        into[i] = mb_string_format("%s%s", to, parts[i]);
        if (!of[i] || !into[i])
            rc = mb_no_memory(err, "copying %s", from);
    }
    for (int attempt = 0; rc == MB_OK && !whole && attempt < ATTEMPTS; attempt++) {
        struct stat before[PARTS], after[PARTS];
        look(of, before);
        rc = copy_once(of, into, err);
        look(of, after);
        whole = true;
        for (size_t i = 0; i < PARTS; i++)
            whole = whole && unchanged(&before[i], &after[i]);
    }
    if (rc == MB_OK && !whole)
        rc = mb_fail(
            err, MB_E_INPUT,
            "%s is being written to, and its folder is read-only for you: read it when the writer has ended",
            from);
    for (size_t i = 0; i < PARTS; i++) {
        free(of[i]);
        free(into[i]);
    }
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
