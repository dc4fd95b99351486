/* file.c - reading, mapping and atomically writing files; making folders. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int mb_file_open(const char *path, int *fd, size_t *size, mb_error *err)
{
    struct stat st;
    int rc = MB_OK;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* opening a pipe would wait for its writer */
    if (*fd < 0)
        return mb_fail(err, MB_E_INPUT, "cannot open %s: %s", path, strerror(errno));
    if (fstat(*fd, &st) != 0)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot read the size of %s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = mb_fail(err, MB_E_INPUT, "%s is %s", path,
                     S_ISDIR(st.st_mode) ? "a folder, not a file" : "not a regular file");
    if (rc != MB_OK) {
        close(*fd);
        *fd = -1;
        return rc;
    }
    fcntl(*fd, F_SETFL, fcntl(*fd, F_GETFL) & ~O_NONBLOCK);
    *size = (size_t)st.st_size;
    return MB_OK;
}

int mb_file_read(const char *path, size_t max, char **data, size_t *size, mb_error *err)
{
    int fd = -1;
    size_t total = 0, done = 0;
    char *buffer = NULL;
    *data = NULL;
    int rc = mb_file_open(path, &fd, &total, err);
    if (rc != MB_OK)
        return rc;
    if (total > max) {
        rc =
            mb_fail(err, MB_E_INPUT, "%s has %zu bytes, more than the %zu that make sense here", path, total, max);
        goto out;
    }
    buffer = malloc(total + 1);
    if (!buffer) {
        rc = mb_no_memory(err, "the %zu bytes of %s", total, path);
        goto out;
    }
    while (done < total) {
        ssize_t n = read(fd, buffer + done, total - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = mb_fail(err, MB_E_SYSTEM, "cannot read %s: %s", path, strerror(errno));
            goto out;
        }
        if (n == 0)
            break; /* it shrank while we read: what is there counts */
        done += (size_t)n;
    }
    buffer[done] = '\0';
    *data = buffer;
    *size = done;
    buffer = NULL;
out:
    free(buffer);
    close(fd);
    return rc;
}

static int write_all(int fd, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

/* Into a device, a FIFO, or the file that a dangling symlink promises. */
static int write_into(const char *path, const void *data, size_t size, mb_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0)
        return mb_fail(err, MB_E_INPUT, "cannot write %s: %s", path, strerror(errno));
    int written = write_all(fd, data, size), number = errno;
    if (close(fd) != 0 && written == 0) {
        written = -1;
        number = errno;
    }
    return written == 0 || number == EPIPE
               ? MB_OK
               : mb_fail(err, MB_E_SYSTEM, "cannot write %s: %s", path, strerror(number));
}

/* A file of the folder takes the place of path when it is whole. */
static int write_beside(const char *path, const void *data, size_t size, mb_error *err)
{
    int rc = MB_OK;
    /* Two programs that write one file do not share the temporary name. */
    char *temporary = mb_string_format("%s.%ld.tmp", path, (long)getpid());
    if (!temporary)
        return mb_no_memory(err, "writing %s", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = mb_fail(err, MB_E_INPUT, "cannot write %s: %s", path, strerror(errno));
        free(temporary);
        return rc;
    }
    /* fsync before the rename: else a crash may leave the new name on a file whose content never reached the disk.
     */
    bool written = write_all(fd, data, size) == 0 && fsync(fd) == 0;
    int number = errno;
    if (close(fd) != 0 && written) {
        written = false;
        number = errno;
    }
    if (!written)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot write %s: %s", path, strerror(number));
    else if (rename(temporary, path) != 0)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot put %s in place: %s", path, strerror(errno));
    if (rc != MB_OK)
        unlink(temporary);
    free(temporary);
    return rc;
}

int mb_file_write(const char *path, const void *data, size_t size, mb_error *err)
{
    struct stat st, own;
    bool there = stat(path, &st) == 0, link = lstat(path, &own) == 0 && S_ISLNK(own.st_mode);
    if (there && S_ISDIR(st.st_mode))
        return mb_fail(err, MB_E_INPUT, "cannot write %s: it is a folder", path);
    if ((there && !S_ISREG(st.st_mode)) || (!there && link))
        return write_into(path, data, size, err);
    char *target = link ? realpath(path, NULL) : NULL;
    int rc = write_beside(target ? target : path, data, size, err);
    free(target);
    return rc;
}

int mb_file_map(const char *path, const unsigned char **data, size_t *size, mb_error *err)
{
    int fd = -1;
    *data = NULL;
    *size = 0;
    int rc = mb_file_open(path, &fd, size, err);
    if (rc != MB_OK)
        return rc;
    if (*size) {
        void *address = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (address == MAP_FAILED)
            rc = mb_fail(err, MB_E_SYSTEM, "cannot map %s: %s", path, strerror(errno));
        else
            *data = address;
    }
    close(fd);
    return rc;
}

void mb_file_unmap(const unsigned char *data, size_t size)
{
    if (data)
        munmap((void *)(uintptr_t)data, size);
}

bool mb_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool mb_folder_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int mb_folder_make(const char *path, mb_error *err)
{
    char *copy = mb_string_copy(path);
    int rc = MB_OK;
    if (!copy)
        return mb_no_memory(err, "making folder %s", path);
    for (char *p = copy + 1; rc == MB_OK; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char end = *p;
        *p = '\0';
        /* EEXIST says nothing yet: what is there may be a file, which the last check finds. */
        if (*copy && mkdir(copy, 0777) != 0 && errno != EEXIST)
            rc = mb_fail(err, MB_E_INPUT, "cannot make folder %s: %s", copy, strerror(errno));
        *p = end;
        if (end == '\0')
            break;
    }
    if (rc == MB_OK && !mb_folder_exists(path))
        rc = mb_fail(err, MB_E_INPUT, "%s exists and is not a folder", path);
    free(copy);
    return rc;
}

int mb_folder_make_parent(const char *file, mb_error *err)
{
    char *folder = mb_string_copy(file);
    if (!folder)
        return mb_no_memory(err, "making the folder of %s", file);
    char *slash = strrchr(folder, '/');
    int rc = MB_OK;
    if (slash && slash != folder) {
        *slash = '\0';
        rc = mb_folder_make(folder, err);
    }
    free(folder);
    return rc;
}
