/*
 * faulty_disk.c - a disk that goes wrong, for tests/campaign/disk.py: loaded with LD_PRELOAD, it counts what the
 * program writes below a folder and lets some of it fail. MASKBENCH_DISK="FIRST COUNT KIND FOLDER": from the
 * FIRST write on, COUNT of them (0: all) fail. KIND is full, broken, quota, or short: half of the bytes are
 * written and nothing fails.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;
static long first = -1, count;
static char kind[16], folder[512];

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("MASKBENCH_DISK");
    if (text && sscanf(text, "%ld %ld %15s %511s", &first, &count, kind, folder) != 4)
        first = -1;
}

/* Whether this write is one of those that fail. */
static int fails(int fd)
{
    char name[64], path[1024];
    if (first < 0)
        return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, path, sizeof path - 1);
    if (n <= 0 || strncmp(path, folder, strlen(folder)) != 0)
        return 0;
    long call = atomic_fetch_add(&calls, 1);
    return call >= first && (count == 0 || call < first + count);
}

static int code(void)
{
    return strcmp(kind, "broken") == 0 ? EIO : strcmp(kind, "quota") == 0 ? EDQUOT : ENOSPC;
}

static void *next(const char *name)
{
    void *at = dlsym(RTLD_NEXT, name);
    if (!at)
        abort();
    return at;
}

#define CALL(result, name, types, arguments) ((result(*) types)(next(name))) arguments

/* How many bytes may be written: all, half of them, or none (-1). */
static ssize_t allowed(int fd, size_t n)
{
    if (n == 0 || !fails(fd))
        return (ssize_t)n;
    if (strcmp(kind, "short") == 0)
        return (ssize_t)((n + 1) / 2);
    errno = code();
    return -1;
}

ssize_t write(int fd, const void *data, size_t n);
ssize_t write(int fd, const void *data, size_t n)
{
    ssize_t some = allowed(fd, n);
    return some < 0 ? -1 : CALL(ssize_t, "write", (int, const void *, size_t), (fd, data, (size_t)some));
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at);
ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    ssize_t some = allowed(fd, n);
    return some < 0 ? -1
                    : CALL(ssize_t, "pwrite", (int, const void *, size_t, off_t), (fd, data, (size_t)some, at));
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at);
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    ssize_t some = allowed(fd, n);
    return some < 0
               ? -1
               : CALL(ssize_t, "pwrite64", (int, const void *, size_t, off64_t), (fd, data, (size_t)some, at));
}

/* A short write is no failure of these. */
static int refused(int fd)
{
    if (strcmp(kind, "short") == 0 || !fails(fd))
        return 0;
    errno = code();
    return 1;
}

int fsync(int fd);
int fsync(int fd)
{
    return refused(fd) ? -1 : CALL(int, "fsync", (int), (fd));
}

int fdatasync(int fd);
int fdatasync(int fd)
{
    return refused(fd) ? -1 : CALL(int, "fdatasync", (int), (fd));
}

int ftruncate64(int fd, off64_t size);
int ftruncate64(int fd, off64_t size)
{
    return refused(fd) ? -1 : CALL(int, "ftruncate64", (int, off64_t), (fd, size));
}

int ftruncate(int fd, off_t size);
int ftruncate(int fd, off_t size)
{
    return refused(fd) ? -1 : CALL(int, "ftruncate", (int, off_t), (fd, size));
}
