/*
 * state.c - the checkpoint of a running training: out/training.state.
 *
 * A header, then what is trained (the weights, or an adapter) and both moments as flat fp32 arrays, then the hash
 * of all that. It is written under a temporary name, flushed to the disk and renamed, so that there is a whole one
 * at any moment once there was one.
 */
#include "training/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC "MBTRAIN1"

typedef struct header {
    char magic[8];
    int64_t step;
    uint64_t floats;
    char identity[40];
} header;

static const float *part_of(const mb_training *t, int part)
{
    return part == 0 ? t->network.trained : part == 1 ? t->network.m : t->network.v;
}

static int write_parts(mb_training *t, FILE *file, const char *path, mb_error *err)
{
    header head = {.step = t->step, .floats = t->network.trained_floats};
    char hex[MB_HASH_CAP];
    mb_hash *hash = mb_hash_new();
    if (!hash)
        return mb_no_memory(err, "a checkpoint");
    memcpy(head.magic, MAGIC, sizeof head.magic);
    snprintf(head.identity, sizeof head.identity, "%s", t->identity);
    mb_hash_add(hash, &head, sizeof head);
    bool good = fwrite(&head, sizeof head, 1, file) == 1;
    int rc = MB_OK;
    for (int part = 0; good && rc == MB_OK && part < 3; part++) {
        rc = mb_network_fetch_trained(&t->network, t->host, part_of(t, part), err);
        mb_hash_add(hash, t->host, t->network.trained_floats * sizeof *t->host);
        good = rc != MB_OK ||
               fwrite(t->host, sizeof *t->host, t->network.trained_floats, file) == t->network.trained_floats;
    }
    mb_hash_end(hash, hex);
    good = good && fwrite(hex, sizeof hex, 1, file) == 1 && fflush(file) == 0 && fsync(fileno(file)) == 0;
    if (rc == MB_OK && !good)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot write the checkpoint %s: %s; the one before it is kept", path,
                     strerror(errno));
    return rc;
}

/* The rename itself must reach the disk. */
static void sync_folder(const char *folder)
{
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
        fsync(descriptor);
        close(descriptor);
    }
}

int mb_training_save(mb_training *t, mb_error *err)
{
    char *path = mb_string_format("%s/training.state", t->request->out);
    char *temporary = mb_string_format("%s/training.state.new", t->request->out);
    FILE *file = path && temporary ? fopen(temporary, "wb") : NULL;
    int rc = MB_OK;
    if (!path || !temporary)
        rc = mb_no_memory(err, "a path");
    else if (!file)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot write the checkpoint %s: %s", temporary, strerror(errno));
    if (rc == MB_OK) {
        rc = write_parts(t, file, temporary, err);
        fclose(file);
        if (rc == MB_OK && rename(temporary, path) != 0)
            rc = mb_fail(err, MB_E_SYSTEM, "cannot rename %s: %s", temporary, strerror(errno));
        if (rc != MB_OK)
            unlink(temporary);
        else
            sync_folder(t->request->out);
    }
    free(temporary);
    free(path);
    return rc;
}

/* Arrays to the device, once the hash has said that they are whole. */
static int read_parts(mb_training *t, const unsigned char *data, size_t size, const char *path, mb_error *err)
{
    const size_t bytes = t->network.trained_floats * sizeof(float);
    header head;
    char hex[MB_HASH_CAP];
    if (size >= sizeof head)
        memcpy(&head, data, sizeof head);
    if (size < sizeof head || memcmp(head.magic, MAGIC, sizeof head.magic) != 0)
        return mb_fail(err, MB_E_INPUT, "%s is no checkpoint of a training; remove it or use another folder",
                       path);
    head.identity[sizeof head.identity - 1] = '\0';
    if (strcmp(head.identity, t->identity) != 0 || head.floats != t->network.trained_floats)
        return mb_fail(
            err, MB_E_INPUT,
            "%s belongs to another training (config, model or data differ): use another \"out\" folder or "
            "remove it",
            path);
    if (size == sizeof head + 3 * bytes + MB_HASH_CAP)
        mb_hash_bytes(data, size - MB_HASH_CAP, hex);
    if (size != sizeof head + 3 * bytes + MB_HASH_CAP || head.step < 0 || head.step > t->request->steps ||
        memcmp(hex, data + size - MB_HASH_CAP, MB_HASH_CAP) != 0)
        return mb_fail(err, MB_E_INPUT, "%s is damaged; remove it to begin again", path);
    int rc = MB_OK;
    for (int part = 0; rc == MB_OK && part < 3; part++) {
        memcpy(t->host, data + sizeof head + (size_t)part * bytes, bytes);
        rc = mb_network_send_trained(&t->network, (float *)(uintptr_t)part_of(t, part), t->host, err);
    }
    t->step = head.step;
    return rc;
}

int mb_training_resume(mb_training *t, mb_error *err)
{
    char *path = mb_string_format("%s/training.state", t->request->out);
    const unsigned char *data = NULL;
    size_t size = 0;
    int rc = path ? MB_OK : mb_no_memory(err, "a path");
    if (rc == MB_OK && mb_file_exists(path)) {
        rc = mb_file_map(path, &data, &size, err);
        if (rc == MB_OK)
            rc = read_parts(t, data, size, path, err);
        mb_file_unmap(data, size);
    }
    free(path);
    return rc;
}
