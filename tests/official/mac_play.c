/*
 * mac_play.c - mac over a chain of tokens, as JSON: for a comparison with the authors' kernel on the same numbers
 * (mac_compare.py).
 *
 *     mac_play "name=value ..." "kv_heads group tokens prefix seed"
 *
 * A block of one row with one step is a token that is decoded, and the first steps of earlier blocks are the
 * tokens in front of it: axis=blocks is then the paper's own setting. Played on made-up queries, keys and values
 * (properties/stage.h, CPU, fp32, one thread, one layer, 128 numbers a head, as the kernel wants it). What mac
 * decided is read where it asks: from the operations ring_match and reuse_decide, which are wrapped here.
 */
#include "methods/registry/registry.h"
#include "properties/stage.h"
#include "tests/methods/recorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADS 64

/* Of the forward that is played, and of every block. */
typedef struct decision {
    int32_t slot[HEADS], missed[HEADS], active[HEADS];
} decision;

static const mb_kernels *real;
static decision now, *decided;
static int32_t decided_count;

static int watch_match(mb_device *device, const mb_ring_match *args)
{
    int rc = real->ring_match(device, args);
    memcpy(now.slot, args->slot, (size_t)args->shape.query_heads * sizeof *now.slot);
    return rc;
}

static int watch_decide(mb_device *device, const mb_reuse_decide *args)
{
    int rc = real->reuse_decide(device, args);
    memcpy(now.missed, args->reuse.missed, (size_t)args->shape.query_heads * sizeof *now.missed);
    memcpy(now.active, args->reuse.active, (size_t)args->shape.kv_heads * sizeof *now.active);
    decided[decided_count++] = now;
    memset(now.slot, 0xff, sizeof now.slot);
    return rc;
}

static void print_floats(const char *name, const float *values, size_t n)
{
    printf("\"%s\":[", name);
    for (size_t i = 0; i < n; i++)
        printf("%s%.9g", i ? "," : "", (double)values[i]);
    printf("]");
}

static void print_integers(const char *name, const int32_t *values, int32_t n)
{
    printf("\"%s\":[", name);
    for (int32_t i = 0; i < n; i++)
        printf("%s%d", i ? "," : "", values[i]);
    printf("]");
}

/* Keys or values of one slot, [kv_heads][dim]. */
static void print_slot(const char *name, const float *cache, const mb_shape *s, int32_t slot)
{
    size_t slots = (size_t)(s->capacity + s->block), dim = (size_t)s->head_dim;
    float *row = malloc((size_t)s->kv_heads * dim * sizeof *row);
    for (int32_t h = 0; row && h < s->kv_heads; h++)
        memcpy(row + (size_t)h * dim, cache + ((size_t)h * slots + (size_t)slot) * dim, dim * sizeof *row);
    if (row)
        print_floats(name, row, (size_t)s->kv_heads * dim);
    free(row);
}

static void print_token(const mb_recording *recording, const mb_stage_event *e, const decision *d)
{
    const mb_shape *s = &recording->shape;
    const mb_snapshot *at = mb_recording_at(recording, e->block, e->step, e->layer);
    size_t n = (size_t)s->query_heads * (size_t)s->head_dim;
    printf("{\"position\":%d,", at->prefix[0]);
    print_floats("q", at->q, n);
    printf(",");
    print_floats("q_pre", at->q_pre, n);
    printf(",");
    print_slot("k", at->k, s, at->prefix[0]);
    printf(",");
    print_slot("v", at->v, s, at->prefix[0]);
    printf(",");
    print_integers("slot", d->slot, s->query_heads);
    printf(",");
    print_integers("missed", d->missed, s->query_heads);
    printf(",");
    print_integers("active", d->active, s->kv_heads);
    printf(",");
    print_floats("out", e->out, n);
    printf(",");
    print_floats("exact", e->exact, n);
    printf("}");
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

static void print_chain(const mb_stage_case *c, const mb_recording *recording, const mb_stage_run *run)
{
    const mb_snapshot *last = mb_recording_at(recording, c->blocks - 1, 1, 0);
    const mb_shape *s = &recording->shape;
    size_t cache = (size_t)s->kv_heads * (size_t)(s->capacity + s->block) * (size_t)s->head_dim;
    printf("{\"query_heads\":%d,\"kv_heads\":%d,\"dim\":%d,\"slots\":%d,\n", s->query_heads, s->kv_heads,
           s->head_dim, s->capacity + s->block);
    print_floats("k", last->k, cache);
    printf(",\n");
    print_floats("v", last->v, cache);
    printf(",\n\"tokens\":[");
    for (int32_t i = 0; i < c->blocks; i++) {
        printf("%s", i ? ",\n" : "");
        print_token(recording, mb_stage_find(run, i, 1, 0), &decided[i]);
    }
    printf("]}\n");
}

static int show(const mb_stage_case *c, const mb_method *method, const void *options, mb_error *err)
{
    mb_device_options device = {.type = MB_F32, .threads = 1, .arena_bytes = (size_t)256 << 20};
    mb_kernels watched = *real;
    mb_stage_env env = {&watched, NULL, MB_F32};
    mb_recording recording = {.at = NULL};
    mb_stage_run run = {.count = 0};
    watched.ring_match = watch_match;
    watched.reuse_decide = watch_decide;
    int rc = real->open(&env.device, &device, err);
    if (rc == 0)
        rc = mb_record(&env, c, &recording, err);
    if (rc == 0)
        rc = mb_stage_play(&env, c, method, options, &run, err);
    if (rc == 0 && decided_count != c->blocks)
        rc = mb_fail(err, MB_E_BUG, "%d decisions for %d tokens", decided_count, c->blocks);
    if (rc == 0)
        print_chain(c, &recording, &run);
    mb_stage_free(&run);
    mb_recording_free(&recording);
    return rc;
}

int main(int argc, char **argv)
{
    mb_stage_case c = {.layers = 1, .head_dim = 128, .block = 1, .steps = 1, .batch = 1};
    mb_error err = {0};
    unsigned seed = 0;
    const mb_method *method = mb_registry_find("mac");
    if (argc != 3 || !method ||
        sscanf(argv[2], "%d %d %d %d %u", &c.kv_heads, &c.group, &c.blocks, &c.prefix[0], &seed) != 5 ||
        c.kv_heads < 1 || c.group < 1 || c.kv_heads * c.group > HEADS || c.blocks < 1) {
        fprintf(stderr, "mac_play \"name=value ...\" \"kv_heads group tokens prefix seed\"\n");
        return 2;
    }
    c.seed = seed;
    real = mb_kernels_cpu();
    memset(now.slot, 0xff, sizeof now.slot);
    decided = calloc((size_t)c.blocks + 1, sizeof *decided);
    void *options = mb_method_options_new(method);
    int rc = decided && options ? set_options(method, options, argv[1], &err) : mb_no_memory(&err, "a chain");
    if (rc == 0)
        rc = show(&c, method, options, &err);
    free(options);
    free(decided);
    mb_registry_unload();
    if (rc != 0)
        fprintf(stderr, "%s\n", err.text);
    return rc == 0 ? 0 : 1;
}
