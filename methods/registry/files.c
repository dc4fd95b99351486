/*
 * files.c - contents of the files that options of methods name. Options are copied as plain memory and live as
 * long as whoever copied them, so what they point to stays until the registry is unloaded. A file that is read
 * again and has not changed is kept once; one that has changed is another content under the same path.
 */
#include "methods/registry/internal.h"

#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)256 << 20)

typedef struct kept_file {
    char *path, *bytes;
    size_t size;
    char hash[MB_HASH_CAP];
    struct kept_file *next;
} kept_file;

static kept_file *files;

static void free_file(kept_file *file)
{
    if (!file)
        return;
    free(file->path);
    free(file->bytes);
    free(file);
}

static const kept_file *find_file(const kept_file *like)
{
    for (const kept_file *f = files; f; f = f->next)
        if (strcmp(f->path, like->path) == 0 && strcmp(f->hash, like->hash) == 0)
            return f;
    return NULL;
}

static int read_file(const char *path, kept_file **file, mb_error *err)
{
    *file = calloc(1, sizeof **file);
    if (!*file || !((*file)->path = mb_string_copy(path)))
        return mb_no_memory(err, "the path %s", path);
    int rc = mb_file_read(path, MOST_BYTES, &(*file)->bytes, &(*file)->size, err);
    if (rc == MB_OK)
        mb_hash_bytes((*file)->bytes, (*file)->size, (*file)->hash);
    return rc;
}

int mb_registry_file(const char *path, mb_option_file *file, mb_error *err)
{
    kept_file *read = NULL;
    int rc = read_file(path, &read, err);
    if (rc != MB_OK) {
        free_file(read);
        return rc;
    }
    const kept_file *known = find_file(read);
    if (known) {
        free_file(read);
    } else {
        read->next = files;
        files = read;
        known = read;
    }
    *file = (mb_option_file){known->path, known->bytes, known->size, known->hash};
    return MB_OK;
}

void mb_registry_forget_files(void)
{
    while (files) {
        kept_file *next = files->next;
        free_file(files);
        files = next;
    }
}
