/*
 * folder.h - throw-away checkpoint folders for the tests of model/: make one, put files in, take it away.
 */
#ifndef MB_TESTS_MODEL_FOLDER_H
#define MB_TESTS_MODEL_FOLDER_H

#include "base/base.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A new empty folder; free() the name after folder_remove(). */
static inline char *folder_new(void)
{
    const char *base = getenv("TMPDIR");
    char *path = mb_string_format("%s/mb-model-XXXXXX", base ? base : "/tmp");
    if (!path || !mkdtemp(path)) {
        perror("mkdtemp");
        exit(1);
    }
    return path;
}

static inline void folder_put(const char *folder, const char *name, const void *data, size_t size)
{
    char *path = mb_string_format("%s/%s", folder, name);
    mb_error err = {0};
    if (mb_file_write(path, data, size, &err) != MB_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    free(path);
}

static inline void folder_put_text(const char *folder, const char *name, const char *text)
{
    folder_put(folder, name, text, strlen(text));
}

static inline void folder_copy(const char *folder, const char *name, const char *from)
{
    char *data = NULL;
    mb_error err = {0};
    size_t size = 0;
    if (mb_file_read(from, (size_t)1 << 30, &data, &size, &err) != MB_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    folder_put(folder, name, data, size);
    free(data);
}

static inline void folder_remove(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char *path = mb_string_format("%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
        free(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
}

#endif
