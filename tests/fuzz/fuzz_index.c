/*
 * fuzz_index.c - any text as model.safetensors.index.json of a folder with two weight files; what follows a zero
 * byte is laid over the first of them, as pairs of (offset, byte). The folder is refused with a sentence, or every
 * tensor lies in one of the files and is found by its name.
 */
#include "model/checkpoint/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const files[] = {"a.safetensors", "b.safetensors", "model.safetensors.index.json"};
static char folder[] = "/dev/shm/mb_fuzz_index_XXXXXX";
static char images[2][256];
static size_t sizes[2];
static volatile unsigned sink; /* keeps the reads */

static void drop(void)
{
    char path[96];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void put(int file, const void *bytes, size_t size)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", folder, files[file]);
    if (mb_file_write(path, bytes, size, NULL) != MB_OK)
        abort();
}

/* a: one tensor; b: two. */
static void make(void)
{
    static const char *const heads[] = {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}",
                                        "{\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                        "\"z\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[8,16]}}"};
    static const size_t bytes[] = {24, 16};
    if (!mkdtemp(folder))
        abort();
    atexit(drop);
    for (int i = 0; i < 2; i++) {
        uint64_t n = strlen(heads[i]);
        memcpy(images[i], &n, sizeof n);
        memcpy(images[i] + 8, heads[i], n);
        sizes[i] = 8 + n + bytes[i];
        put(i, images[i], sizes[i]);
    }
}

static void check(const mb_checkpoint *checkpoint)
{
    char hex[MB_HASH_CAP];
    mb_error err = {0};
    const mb_tensor *tensor;
    for (size_t i = 0; (tensor = mb_checkpoint_tensor(checkpoint, i)); i++) {
        if (!mb_checkpoint_find(checkpoint, tensor->name))
            abort();
        for (size_t k = 0; k < tensor->bytes; k++)
            sink += tensor->data[k];
    }
    if (mb_checkpoint_find(checkpoint, "") && mb_checkpoint_lacks(checkpoint, ""))
        abort();
    if (mb_checkpoint_hash(checkpoint, hex, &err) != MB_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_checkpoint *checkpoint = NULL;
    mb_error err = {0};
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    const size_t text = zero ? (size_t)(zero - data) : size;
    if (!sizes[0])
        make();
    put(2, text ? (const void *)data : "", text);
    char image[sizeof images[0]];
    memcpy(image, images[0], sizes[0]);
    for (size_t i = text + 1; i + 2 <= size; i += 2)
        image[data[i] % sizes[0]] = (char)data[i + 1];
    put(0, image, sizes[0]);
    int rc = mb_checkpoint_open(&checkpoint, folder, &err);
    if (rc == MB_OK)
        check(checkpoint);
    else if ((rc != MB_E_INPUT && rc != MB_E_SYSTEM) || !err.text[0] || checkpoint)
        abort();
    mb_checkpoint_close(checkpoint);
    return 0;
}
