/*
 * cpu_stage.h - what the tests of single methods begin with: the stage on the CPU in fp32 (device memory is plain
 * memory, so a test may look at it), options from a line of text, and the comparison of two indices.
 */
#ifndef MB_TESTS_METHODS_CPU_STAGE_H
#define MB_TESTS_METHODS_CPU_STAGE_H

#include "methods/registry/registry.h"
#include "properties/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static mb_stage_env env;

/* Group set-up and tear-down of cmocka. One thread: nothing may depend on how work is shared out. */
static inline int open_env(void **state)
{
    mb_error err = {0};
    mb_device_options options = {.type = MB_F32, .threads = 1, .arena_bytes = (size_t)64 << 20};
    (void)state;
    env = (mb_stage_env){mb_kernels_cpu(), NULL, MB_F32};
    if (env.kernels->open(&env.device, &options, &err) == 0)
        return 0;
    print_error("%s\n", err.text);
    return -1;
}

static inline int close_env(void **state)
{
    (void)state;
    env.kernels->close(env.device);
    return 0;
}

/* Presets with "name=value name=value" on top; the caller frees them. */
static inline void *options_of(const mb_method *method, const char *settings)
{
    mb_error err = {0};
    void *options = mb_method_options_new(method);
    char *copy = mb_string_copy(settings), *rest = copy;
    for (char *word; *settings && (word = strsep(&rest, " "));) {
        char *value = strchr(word, '=');
        *value++ = '\0';
        if (mb_method_options_set(method, options, word, value, word, &err) != 0)
            fail_msg("%s", err.text);
    }
    free(copy);
    return options;
}

/* Plays a built-in method; the run must be freed. */
static inline mb_stage_run play(const mb_stage_case *c, const char *name, const char *settings)
{
    const mb_method *method = mb_registry_find(name);
    mb_stage_run run;
    mb_error err = {0};
    assert_non_null(method);
    void *options = options_of(method, settings);
    if (mb_stage_play(&env, c, method, options, &run, &err) != 0)
        fail_msg("%s %s: %s", name, settings, err.text);
    free(options);
    return run;
}

/* Of one (sequence, KV head): the same pages. */
static inline bool same_index(const mb_stage_event *a, const mb_stage_event *b, int32_t bh)
{
    return a->counts[bh] == b->counts[bh] && a->granularity == b->granularity &&
           memcmp(a->ids + (size_t)bh * (size_t)a->capacity, b->ids + (size_t)bh * (size_t)b->capacity,
                  (size_t)a->counts[bh] * sizeof *a->ids) == 0;
}

#endif
