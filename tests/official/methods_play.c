/*
 * methods_play.c - the tensors and the index of one moment of a method, as JSON: for comparisons with other
 * people's code on the same numbers (methods_compare.py).
 *
 *     methods_play METHOD "name=value ..." BLOCK.STEP.LAYER BLOCK.STEP.LAYER "kv_heads group rows blocks prefix
 * seed"
 *
 * plays the method on made-up queries, keys and values (properties/stage.h, CPU, fp32, one thread, one sequence,
 * four layers, four steps a block, 32 numbers a head). The first moment is that of the tensors, the second that of
 * the index.
 */
#include "methods/registry/registry.h"
#include "properties/stage.h"
#include "tests/methods/recorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_floats(const char *name, const float *values, size_t n)
{
    printf("\"%s\":[", name);
    for (size_t i = 0; i < n; i++)
        printf("%s%.9g", i ? "," : "", (double)values[i]);
    printf("],\n");
}

static int set_options(const mb_method *method, void *options, const char *settings, mb_error *err)
{
    char *copy = mb_string_copy(settings), *rest = copy;
    int rc = copy ? 0 : mb_no_memory(err, "the settings");
    for (char *word; rc == 0 && *settings && (word = strsep(&rest, " "));) {
        char *equals = strchr(word, '=');
        if (equals)
            *equals = '\0';
        rc = equals ? mb_method_options_set(method, options, word, equals + 1, word, err)
                    : mb_fail(err, MB_E_INPUT, "%s: write it as name=value", word);
    }
    free(copy);
    return rc;
}

/* Keys of the slots [0, prefix + rows): what a row sees. */
static void print_tensors(const mb_recording *recording, const mb_snapshot *now)
{
    const mb_shape *s = &recording->shape;
    size_t slots = (size_t)(s->capacity + s->block), heads = (size_t)s->kv_heads, dim = (size_t)s->head_dim;
    printf("\"prefix\":%d,\"slots\":%zu,\"rows\":%d,\"query_heads\":%d,\"kv_heads\":%d,\"dim\":%d,\n",
           now->prefix[0], slots, s->block, s->query_heads, s->kv_heads, s->head_dim);
    print_floats("q", now->q, (size_t)s->block * (size_t)s->query_heads * dim);
    print_floats("k", now->k, heads * slots * dim);
    print_floats("v", now->v, heads * slots * dim);
}

static void print_index(const mb_stage_event *e, int32_t heads)
{
    printf("\"granularity\":%d,\"index\":[", e->granularity);
    for (int32_t h = 0; h < heads; h++) {
        printf("%s[", h ? "," : "");
        for (int32_t i = 0; i < e->counts[h]; i++)
            printf("%s%d", i ? "," : "", e->ids[h * e->capacity + i]);
        printf("]");
    }
    printf("]");
}

static int show(const mb_stage_case *c, const mb_method *method, const void *options, const int32_t at[6],
                mb_error *err)
{
    mb_device_options device = {.type = MB_F32, .threads = 1, .arena_bytes = (size_t)64 << 20};
    mb_stage_env env = {mb_kernels_cpu(), NULL, MB_F32};
    mb_recording recording = {.at = NULL};
    mb_stage_run run = {.count = 0};
    int rc = env.kernels->open(&env.device, &device, err);
    if (rc == 0)
        rc = mb_record(&env, c, &recording, err);
    if (rc == 0)
        rc = mb_stage_play(&env, c, method, options, &run, err);
    const mb_stage_event *e = rc == 0 ? mb_stage_find(&run, at[3], at[4], at[5]) : NULL;
    if (rc == 0 && (!e || !e->counts))
        rc = mb_fail(err, MB_E_INPUT, "block %d step %d layer %d has no index", at[3], at[4], at[5]);
    if (rc == 0) {
        printf("{");
        print_tensors(&recording, mb_recording_at(&recording, at[0], at[1], at[2]));
        print_index(e, c->kv_heads);
        printf("}\n");
    }
    mb_stage_free(&run);
    mb_recording_free(&recording);
    return rc;
}

int main(int argc, char **argv)
{
    mb_stage_case c = {.layers = 4, .head_dim = 32, .steps = 4, .batch = 1};
    mb_error err = {0};
    int32_t at[6];
    unsigned seed;
    const mb_method *method = argc == 6 ? mb_registry_find(argv[1]) : NULL;
    if (!method || sscanf(argv[3], "%d.%d.%d", &at[0], &at[1], &at[2]) != 3 ||
        sscanf(argv[4], "%d.%d.%d", &at[3], &at[4], &at[5]) != 3 ||
        sscanf(argv[5], "%d %d %d %d %d %u", &c.kv_heads, &c.group, &c.block, &c.blocks, &c.prefix[0], &seed) !=
            6) {
        fprintf(stderr,
                "methods_play METHOD \"name=value ...\" BLOCK.STEP.LAYER BLOCK.STEP.LAYER \"kv_heads group "
                "rows blocks prefix seed\"\n");
        return 2;
    }
    c.seed = seed;
    void *options = mb_method_options_new(method);
    int rc = set_options(method, options, argv[2], &err);
    if (rc == 0)
        rc = show(&c, method, options, at, &err);
    free(options);
    mb_registry_unload();
    if (rc != 0)
        fprintf(stderr, "%s\n", err.text);
    return rc == 0 ? 0 : 1;
}
