/*
 * fuzz_state.c - any bytes as the checkpoint of a training (training.state): pairs of (offset, byte) laid over a
 * good one, or all of it. The first byte says which, and whether the hash is made to fit. It is refused with a
 * sentence that names the file, or the training stands at a step that it has.
 */
#include "tests/training/tiny.h"
#include "training/loop.h"

#include <stdio.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FLOATS 16 /* of the network's: the file is small */
enum { WHOLE = 1, FITTING = 2 };

static char folder[] = "/dev/shm/mb_fuzz_state_XXXXXX";
static char path[64];
static tiny net;
static mb_train_request request = {.out = folder, .steps = 9};
static mb_training training = {.request = &request, .step = 4, .identity = "the training"};
static float host[FLOATS];
static char *good;
static size_t good_size;

static void drop(void)
{
    unlink(path);
    rmdir(folder);
    free(good);
    tiny_close(&net);
}

static void make(void)
{
    if (!mkdtemp(folder) || tiny_open(&net, false, false, 1, false, false) != MB_OK)
        abort();
    snprintf(path, sizeof path, "%s/training.state", folder);
    atexit(drop);
    training.network = net.network;
    training.network.floats = training.network.trained_floats = FLOATS;
    training.host = host;
    if (mb_training_save(&training, NULL) != MB_OK ||
        mb_file_read(path, 1 << 20, &good, &good_size, NULL) != MB_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_error err = {0};
    if (size == 0)
        return 0;
    if (!good)
        make();
    char *bytes = malloc(good_size + size);
    size_t length = good_size;
    if (!bytes)
        abort();
    memcpy(bytes, good, good_size);
    if (data[0] & WHOLE)
        memcpy(bytes, data + 1, length = size - 1);
    for (size_t i = 1; !(data[0] & WHOLE) && i + 2 <= size; i += 2)
        bytes[data[i] % good_size] = (char)data[i + 1];
    if ((data[0] & FITTING) && length > MB_HASH_CAP)
        mb_hash_bytes(bytes, length - MB_HASH_CAP, bytes + length - MB_HASH_CAP);
    if (mb_file_write(path, bytes, length, NULL) != MB_OK)
        abort();
    free(bytes);
    training.step = 0;
    int rc = mb_training_resume(&training, &err);
    if (rc == MB_OK ? training.step < 0 || training.step > request.steps
                    : (rc != MB_E_INPUT && rc != MB_E_SYSTEM) || !strstr(err.text, path))
        abort();
    return 0;
}
