/*
 * test_properties.c - the inherited properties for every method of the registry and for the example plug-in, with
 * the default options in fp32 and bf16 storage, and with the variants that change what a method does in fp32.
 */
#include "methods/registry/registry.h"
#include "properties/properties.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A configuration beside the presets. adaptive: the budget differs between layers, so that "k is kept" and
 * "a larger budget never captures less" hold for the sum over layers only. near: some keys are always read, and
 * the pages that it reports say what is read beside them. */
static const struct variant {
    const char *method, *settings;
    bool adaptive, near;
} variants[] = {
    {"oracle", "rows=masked normaliser=prefix", false, false},
    {"oracle", "refresh=2 commit=sparse dense_layers=0", false, false},
    {"mage", "rule=votes", false, false},
    {"mage", "rule=votes budget=layer_adaptive k_min=8", true, false},
    {"mage", "rule=mass budget=layer_adaptive k_min=8 k_max=128", true, false},
    {"mage", "rows=masked normaliser=prefix commit=sparse refresh=2", false, false},
    {"quest", "merge=max", false, false},
    {"quest", "merge=mean_query refresh=0", false, false},
    {"quest", "merge=softmax rows=masked commit=sparse", false, false},
    {"quest", "page=32 keep_last=never refresh=3 commit=sparse dense_layers=0", false, false},
    {"tidal", "score=logits select_layer=0 reselect_layer=3 dense_layers=0", false, false},
    {"tidal", "share=all commit=sparse", false, false},
    {"sparsed", "page=16 inclusive=true commit=sparse", false, false},
    {"sparsed", "k=0 ratio=0.5 skip=0.5 rows=masked", true, false},
    {"window", "sink=0 dense_layers=0", false, false},
    {"window", "sink=64 commit=sparse", false, false},
    {"random", "seed=3 commit=sparse dense_layers=0", false, false},
    {"herald", "normaliser=prefix commit=sparse dense_layers=0", false, false},
    {"snapkv", "pool=max window=0 commit=sparse", false, false},
    {"h2o", "evict=false recent=0", false, false},
    {"h2o", "recent=1 commit=sparse dense_layers=0", false, false},
    {"sparse_dllm", "dense_steps=1 share=false kernel=1 commit=sparse", false, false},
    {"sparse_dllm", "k=0 ratio=0.3", true, false},
    {"double_sparsity", "factor=8 refresh=0 commit=sparse", false, false},
    {"double_sparsity", "factor=1 dense_layers=0 rows=masked", false, false},
    {"less_is_more", "score=logits sink=0 recent=0 commit=sparse", false, false},
    {"blasst", "lambda=0.5 tile=16 commit=sparse dense_layers=0", false, false},
    {"twilight", "p=0.5 candidates=32 bits=2 commit=sparse", false, false},
    {"rocketkv", "keep=40 page=4 channels=5 window=8 kernel=5 commit=sparse dense_layers=0", false, false},
    {"head_budget", "k_min=0 normaliser=all commit=sparse", false, false},
    {"oracle_top_p", "p=0.5 k_max=20 k_min=4 commit=sparse", false, false},
    {"flashblock", "tau=100 refresh=3 commit=reuse", false, false},
    {"mage_residual", "rows=masked commit=sparse dense_layers=0", false, false},
    {"losa", "page=32 active=2 commit=sparse dense_layers=0", false, false},
    {"mac", "threshold=0.5 mixed=refresh commit=reuse", true, false},
    {"mac", "axis=both amend=16 threshold=0.2 match=any", true, true},
    {"mac", "axis=blocks amend=0 rule=relative miss_share=0.5 refresh=2", true, true},
};

/* $MASKBENCH_TEST_DEVICE ("cpu", "cuda") chooses the backend: the properties are the same everywhere. */
static mb_stage_env open_stage(mb_type type)
{
    mb_error note = {0};
    mb_error err = {0};
    const char *spec = getenv("MASKBENCH_TEST_DEVICE");
    mb_stage_env env = {.type = type};
    mb_device_options options = {.type = type, .threads = 1, .arena_bytes = (size_t)64 << 20};
    if (mb_device_open(spec ? spec : "cpu", &options, &env.kernels, &env.device, &note, &err) != 0)
        fail_msg("%s", err.text);
    return env;
}

/* "name=value name=value" into the options. */
static void apply(const mb_method *method, void *options, const char *settings)
{
    char *copy = mb_string_copy(settings), *rest = copy;
    mb_error err = {0};
    for (char *word; (word = strsep(&rest, " "));) {
        char *equals = strchr(word, '=');
        assert_non_null(equals);
        *equals = '\0';
        if (mb_method_options_set(method, options, word, equals + 1, word, &err) != 0)
            fail_msg("%s", err.text);
    }
    free(copy);
}

static void check(const mb_stage_env *env, const mb_method *method, const void *options, const char *label,
                  bool adaptive, bool near)
{
    for (const mb_property *p = mb_properties; p->name; p++) {
        mb_error err = {0};
        if (adaptive && p->check != mb_property_head_permutation && p->check != mb_property_poison &&
            p->check != mb_property_repeat)
            continue;
        if (near && p->check == mb_property_poison)
            continue;
        if (p->check(env, method, options, &err) != 0)
            fail_msg("%s (%s, %s): %s: %s", method->name, label, env->type == MB_F32 ? "fp32" : "bf16", p->name,
                     err.text);
    }
}

static void check_everything(mb_type type)
{
    mb_stage_env env = open_stage(type);
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *method = mb_registry_at(i);
        void *options = mb_method_options_new(method);
        check(&env, method, options, "defaults", false, false);
        free(options);
    }
    for (size_t i = 0; i < sizeof variants / sizeof variants[0] && type == MB_F32; i++) {
        const mb_method *method = mb_registry_find(variants[i].method);
        assert_non_null(method);
        void *options = mb_method_options_new(method);
        apply(method, options, variants[i].settings);
        check(&env, method, options, variants[i].settings, variants[i].adaptive, variants[i].near);
        free(options);
    }
    env.kernels->close(env.device);
}

static void test_fp32(void **state)
{
    (void)state;
    check_everything(MB_F32);
}

static void test_bf16(void **state)
{
    (void)state;
    check_everything(MB_BF16);
}

/* ---- the properties themselves can fail ---- */

enum {
    FAULT_BUDGET,
    FAULT_ORDER,
    FAULT_RANGE,
    FAULT_DRIFT,
    FAULT_HEADS,
    FAULT_ALLOC,
    FAULT_EMPTY,
    FAULT_ONE_SHORT,
    FAULT_EQUAL
};
static int fault;
static mb_page_set broken_set;
static const mb_host *broken_host;
static int64_t broken_k;
static int broken_calls;

static int broken_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)err;
    *self = NULL;
    broken_host = host;
    memcpy(&broken_k, options, sizeof broken_k);
    return host->pages_alloc(host, 1, shape->capacity, &broken_set);
}

static int broken_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)err;
    for (int32_t bh = 0; bh < 6; bh++) { /* two sequences of three heads; CPU only: writes the index directly */
        int32_t *ids = broken_set.ids + (size_t)bh * (size_t)broken_set.capacity;
        int32_t n = call->max_prefix < 8 ? call->max_prefix : 8;
        n = (int32_t)broken_k > n ? n : (int32_t)broken_k;
        n = call->prefix_len[bh / 3] < n ? call->prefix_len[bh / 3] : n;
        for (int32_t i = 0; i < n; i++)
            ids[i] = fault == FAULT_ORDER ? n - 1 - i : i + (fault == FAULT_HEADS ? bh % 3 : 0);
        if (n > 0 && fault == FAULT_RANGE)
            ids[n - 1] = call->prefix_len[bh / 3];
        if (n > 0 && fault == FAULT_DRIFT)
            ids[n - 1] += broken_calls++ % 7;
        if ((fault == FAULT_ONE_SHORT && broken_k == call->prefix_len[bh / 3] - 1) ||
            (fault == FAULT_EQUAL && broken_k == call->prefix_len[bh / 3])) {
            n = call->prefix_len[bh / 3] - (fault == FAULT_EQUAL);
            for (int32_t i = 0; i < n; i++)
                ids[i] = i;
        }
        broken_set.counts[bh] = fault == FAULT_BUDGET ? -1 : fault == FAULT_EMPTY ? 0 : n;
    }
    if (fault == FAULT_ALLOC)
        broken_host->alloc(broken_host, 16);
    out->answer = MB_SPARSE;
    out->pages = &broken_set;
    return 0;
}

static void test_properties_catch_faults(void **state)
{
    /* The faults write the index from the host, so they need plain memory. */
    if (getenv("MASKBENCH_TEST_DEVICE") && strcmp(getenv("MASKBENCH_TEST_DEVICE"), "cpu") != 0)
        skip();
    static const mb_option rows[] = {{"k", MB_OPTION_INT, 0, 48, 1, 1 << 20, NULL, "tokens", "budget"}, {0}};
    static const mb_method broken = {.abi = MB_METHOD_ABI,
                                     .size = sizeof(mb_method),
                                     .name = "broken",
                                     .version = "1",
                                     .summary = "",
                                     .reference = "",
                                     .options = rows,
                                     .options_size = sizeof(int64_t),
                                     .open = broken_open,
                                     .select = broken_select};
    static const struct {
        int fault;
        mb_property_fn *catches;
    } cases[] = {{FAULT_BUDGET, mb_property_index_valid}, {FAULT_ORDER, mb_property_index_valid},
                 {FAULT_RANGE, mb_property_index_valid},  {FAULT_ALLOC, mb_property_index_valid},
                 {FAULT_DRIFT, mb_property_repeat},       {FAULT_HEADS, mb_property_head_permutation},
                 {FAULT_EMPTY, mb_property_full_budget},  {FAULT_ONE_SHORT, mb_property_edges},
                 {FAULT_EQUAL, mb_property_edges}};
    mb_stage_env env = open_stage(MB_F32);
    int64_t options = 48;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_error err = {0};
        fault = cases[i].fault;
        broken_calls = 0;
        if (cases[i].catches(&env, &broken, &options, &err) == 0)
            fail_msg("fault %d was not noticed", fault);
    }
    env.kernels->close(env.device);
}

/* The example plug-in lies beside the test programs: build/tests/methods/X -> build/plugins/example.so. */
static int load_example(void **state)
{
    char path[PATH_MAX] = "";
    mb_error err = {0};
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
    (void)state;
    for (int up = 0; n > 0 && up < 3; up++)
        *strrchr(path, '/') = '\0';
    strcat(path, "/plugins/example.so");
    if (mb_registry_load(path, &err) != 0) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int unload(void **state)
{
    (void)state;
    mb_registry_unload();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_properties_catch_faults),
    };
    return cmocka_run_group_tests(tests, load_example, unload);
}
