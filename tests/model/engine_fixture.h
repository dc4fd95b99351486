/*
 * engine_fixture.h - opening models and prompts for the tests of sessions and decoding. Run from the repository's
 * root: models/tiny and tests/model/fixtures are relative to it.
 */
#ifndef MB_TESTS_MODEL_ENGINE_FIXTURE_H
#define MB_TESTS_MODEL_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/engine/engine.h"
#include "tests/model/folder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIXTURES "tests/model/fixtures/engine/"

typedef struct opened {
    const mb_kernels *kernels;
    mb_device *device;
    mb_model *model;
    char *folder; /* a throw-away copy, or NULL */
} opened;

static inline opened open_model(const char *path, mb_type type, int threads)
{
    opened o = {.kernels = mb_kernels_cpu()};
    mb_error err = {0};
    mb_device_options options = {.type = type, .threads = threads, .arena_bytes = (size_t)1 << 30};
    if (o.kernels->open(&o.device, &options, &err) != MB_OK)
        fail_msg("%s", err.text);
    mb_model_request request = {.path = path};
    if (mb_model_open(&o.model, &request, o.kernels, o.device, type, &err) != MB_OK)
        fail_msg("%s", err.text);
    return o;
}

/* A checkpoint of fixtures/engine with the small tokenizer beside it, as a downloaded folder would be. */
static inline opened open_fixture(const char *name, mb_type type)
{
    static const char *const files[3][2] = {{FIXTURES "%s/config.json", "config.json"},
                                            {FIXTURES "%s/model.safetensors", "model.safetensors"},
                                            {"tests/model/fixtures/bpe/tokenizer.json", "tokenizer.json"}};
    char *folder = folder_new();
    mb_error err = {0};
    for (int i = 0; i < 3; i++) {
        char path[256], *data = NULL;
        size_t size = 0;
        if (i < 2)
            snprintf(path, sizeof path, i == 0 ? FIXTURES "%s/config.json" : FIXTURES "%s/model.safetensors",
                     name);
        else
            snprintf(path, sizeof path, "%s", files[i][0]);
        if (mb_file_read(path, 1 << 20, &data, &size, &err) != MB_OK)
            fail_msg("%s", err.text);
        folder_put(folder, files[i][1], data, size);
        free(data);
    }
    opened o = open_model(folder, type, 2);
    o.folder = folder;
    return o;
}

static inline void close_model(opened *o)
{
    mb_model_close(o->model);
    o->kernels->close(o->device);
    if (o->folder) {
        folder_remove(o->folder);
        free(o->folder);
    }
}

/* The tiny model's prompt about one needle, in the wording it was trained on. */
static inline int32_t *needle_prompt(const opened *o, const char *key, const char *value, int sentences, size_t *n)
{
    static const char *const filler[4] = {" The old road follows the river to the mill and then turns north.",
                                          " A baker opened his shop before dawn.",
                                          " Nobody had seen the lantern since the storm.",
                                          " Two boats waited at the pier with their sails down."};
    mb_text text = {0};
    int32_t *ids = NULL;
    mb_error err = {0};
    mb_text_puts(&text, "<|im_start|>user\nThe harbour was quiet in the morning.");
    for (int i = 0; i < sentences; i++) {
        if (i == sentences / 3)
            mb_text_printf(&text, " One of the special magic numbers for %s is: %s.", key, value);
        mb_text_puts(&text, filler[i % 4]);
    }
    mb_text_printf(&text,
                   " What is the special magic number for %s mentioned in the provided text?<|im_end|>\n"
                   "<|im_start|>assistant\nThe special magic number for %s mentioned in the provided text is",
                   key, key);
    assert_int_equal(
        mb_tokenizer_encode(mb_model_tokenizer(o->model), text.data, text.length, true, &ids, n, &err), MB_OK);
    mb_text_free(&text);
    return ids;
}

static inline mb_session *open_session(const opened *o, int32_t batch, int32_t capacity)
{
    mb_session *session = NULL;
    mb_error err = {0};
    mb_session_request request = {.batch = batch, .capacity = capacity};
    if (mb_session_open(&session, o->model, &request, &err) != MB_OK)
        fail_msg("%s", err.text);
    return session;
}

static inline mb_attender *open_attender(mb_session *session, const mb_method *method, const void *options)
{
    mb_attender *attender = NULL;
    mb_error err = {0};
    bool unsupported = false;
    if (mb_attender_open(&attender, session, method, options, 0, 1, &unsupported, &err) != MB_OK)
        fail_msg("%s", err.text);
    return attender;
}

static inline mb_sampler fixed_sampler(int32_t steps)
{
    return (mb_sampler){.schedule = MB_SCHEDULE_FIXED, .steps = steps, .threshold = 0.9, .confidence = MB_BF16};
}

/* ---- a method that attends exactly: what every comparison starts from ---- */

static int dense_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)host, (void)shape, (void)options, (void)err;
    return 0;
}

static int dense_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)call, (void)out, (void)err;
    return 0;
}

static const mb_method dense_method = {.abi = MB_METHOD_ABI,
                                       .size = sizeof(mb_method),
                                       .name = "dense",
                                       .caps = MB_CAP_LOSSLESS,
                                       .open = dense_open,
                                       .select = dense_select};

#endif
