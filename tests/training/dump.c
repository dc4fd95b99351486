/*
 * dump.c - what training computes, as files for another program to compute again: `reference.py` reads them.
 *
 *   dump gradients qwen2|qwen3 plain|taught|causal DIR [TARGETS]   the tiny network of tiny.h: weights, batch,
 * index, gradients, losses dump steps CONFIG.json DIR KEY=VALUE...       a training's initial weights, the batches
 * and losses of its steps
 *
 * On the CPU, or on the device that MASKBENCH_TEST_DEVICE names.
 */
#include "tests/training/tiny.h"

#include "driver/config/training.h"
#include "training/loop.h"

#include <stdio.h>

static const char *folder;

/* A file DIR/name to write into. */
static FILE *create(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
        exit(1);
    }
    return file;
}

static void put_ints(FILE *file, const char *name, const int32_t *values, size_t n)
{
    fprintf(file, "\"%s\": [", name);
    for (size_t i = 0; i < n; i++)
        fprintf(file, "%s%d", i ? ", " : "", values[i]);
    fprintf(file, "], ");
}

/* A batch as one JSON object without its closing brace. */
static void put_batch(FILE *file, const mb_batch *b)
{
    const size_t rows = (size_t)mb_train_rows(&b->layout);
    fprintf(file, "{\"documents\": %d, \"clean\": %d, \"tail\": %d, \"block\": %d, ", b->layout.documents,
            b->layout.clean, b->layout.tail, b->layout.block);
    put_ints(file, "ids", b->ids, rows);
    put_ints(file, "positions", b->positions, rows);
    put_ints(file, "row", b->row, (size_t)b->targets);
    put_ints(file, "target", b->target, (size_t)b->targets);
    fprintf(file, "\"weight\": [");
    for (int32_t i = 0; i < b->targets; i++)
        fprintf(file, "%s%.9g", i ? ", " : "", (double)b->weight[i]);
    fprintf(file, "]");
}

static void put_config(FILE *file, const mb_model_config *c)
{
    fprintf(
        file,
        "\"config\": {\"layers\": %d, \"hidden\": %d, \"query_heads\": %d, \"kv_heads\": %d, \"head_dim\": %d, "
        "\"intermediate\": %d, \"vocab\": %d, \"theta\": %.17g, \"eps\": %.17g, \"tied\": %d, \"qkv_bias\": %d, "
        "\"qk_norm\": %d}",
        c->layers, c->hidden, c->query_heads, c->kv_heads, c->head_dim, c->intermediate, c->vocab, c->rope_theta,
        c->norm_eps, c->tied, c->qkv_bias, c->qk_norm);
}

/* Flat arrays of the device as DIR/name/model.safetensors. */
static int put_tensors(mb_network *n, const float *values, const char *name, mb_error *err)
{
    char path[512];
    float *host = malloc(n->floats * sizeof *host);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int rc = host ? mb_folder_make(path, err) : mb_no_memory(err, "the tensors");
    if (rc == MB_OK)
        rc = mb_network_fetch(n, host, values, err);
    if (rc == MB_OK)
        rc = mb_parameters_write(&n->config, host, MB_F32, path, err);
    free(host);
    return rc;
}

static void put_index(FILE *file, const tiny *t)
{
    const mb_network *n = &t->network;
    const int32_t heads = (int32_t)n->size.entries * n->config.kv_heads, capacity = n->size.capacity;
    fprintf(file, ", \"dense_layers\": %d, \"index\": {", t->choice.dense_layers);
    for (int32_t l = t->choice.dense_layers; l < n->config.layers; l++) {
        int32_t *ids = tiny_copy(t, n->index[l].ids, (size_t)(heads * capacity) * sizeof *ids);
        int32_t *counts = tiny_copy(t, n->index[l].counts, (size_t)heads * sizeof *counts);
        fprintf(file, "%s\"%d\": [", l > t->choice.dense_layers ? ", " : "", l);
        for (int32_t h = 0; ids && counts && h < heads; h++) {
            fprintf(file, "%s[", h ? ", " : "");
            for (int32_t i = 0; i < counts[h]; i++)
                fprintf(file, "%s%d", i ? ", " : "", ids[h * capacity + i]);
            fprintf(file, "]");
        }
        fprintf(file, "]");
        free(ids);
        free(counts);
    }
    fprintf(file, "}");
}

/* An adapter as `peft` has it, and its gradients: that of A is s times that of s A, which is held. */
static int put_adapter(mb_network *n, mb_error *err)
{
    char path[512];
    mb_adapter as_gradient = n->adapter;
    float *host = malloc(n->trained_floats * sizeof *host);
    int rc = host ? mb_network_fetch_trained(n, host, n->trained, err) : mb_no_memory(err, "the adapter");
    snprintf(path, sizeof path, "%s/adapter", folder);
    if (rc == MB_OK)
        rc = mb_adapter_write(&n->adapter, host, "base", path, err);
    as_gradient.scale = 1.0 / n->adapter.scale;
    snprintf(path, sizeof path, "%s/adapter_gradients", folder);
    if (rc == MB_OK)
        rc = mb_network_fetch_trained(n, host, n->gradients.base, err);
    if (rc == MB_OK)
        rc = mb_adapter_write(&as_gradient, host, "base", path, err);
    free(host);
    return rc;
}

static int dump_gradients(bool qwen2, const char *recipe, mb_error *err)
{
    const bool taught = strcmp(recipe, "taught") == 0;
    tiny t;
    double loss = 0;
    int rc = tiny_open(&t, qwen2, false, 1, qwen2 && !taught, qwen2);
    mb_network *n = &t.network;
    if (rc == MB_OK && strcmp(recipe, "causal") == 0)
        rc = tiny_causal(&t);
    if (rc == MB_OK && taught)
        rc = tiny_select(&t);
    if (rc == MB_OK)
        rc = tiny_loss(&t, taught, true, &loss);
    if (rc != MB_OK)
        return mb_fail(err, rc, "%s", t.err.text);
    FILE *file = create("case.json");
    put_batch(file, &t.batch);
    fprintf(file, ", ");
    put_config(file, &n->config);
    if (taught)
        put_index(file, &t);
    fprintf(file, ", \"scale\": %.17g", n->adapter.scale);
    fprintf(file, ", \"lambda\": 0.7, \"taught\": %d, \"loss\": %.17g}\n", taught, loss);
    fclose(file);
    rc = put_tensors(n, n->weights.base, "weights", err);
    if (rc == MB_OK)
        rc = n->adapter.count > 0 ? put_adapter(n, err) : put_tensors(n, n->gradients.base, "gradients", err);
    if (rc == MB_OK)
        rc = put_tensors(n, n->teacher.base, "teacher", err);
    tiny_close(&t);
    return rc;
}

static int put_step(mb_training *t, FILE *file, mb_error *err)
{
    mb_train_step step;
    int rc = mb_training_feed(t, t->step + 1, err);
    if (rc != MB_OK)
        return rc;
    fprintf(file, "%s[", t->step ? ",\n" : "");
    for (int32_t i = 0; i < t->request->accumulate; i++) {
        fprintf(file, i ? ", " : "");
        put_batch(file, &t->feed.batches[i]);
        fprintf(file, "}");
    }
    rc = mb_training_step(t, &step, err);
    fprintf(file, ", {\"lr\": %.17g, \"loss\": %.17g, \"norm\": %.17g}]", step.lr, step.loss, step.norm);
    return rc;
}

static int dump_steps(const char *path, char **sets, size_t count, mb_error *err)
{
    mb_train_config config;
    mb_train_plan plan;
    mb_training t;
    mb_device *device = NULL;
    const mb_kernels *kernels = NULL;
    mb_error note;
    const mb_config_flags flags = {.sets = (const char *const *)sets, .set_count = count};
    int rc = mb_train_config_load(&config, path, &flags, err);
    if (rc == MB_OK)
        rc = mb_train_plan_make(&config.request, &plan, err);
    const mb_device_options options = {.type = MB_F32, .threads = config.threads, .arena_bytes = plan.total};
    if (rc == MB_OK)
        rc = mb_device_open(tiny_device(), &options, &kernels, &device, &note, err);
    if (rc == MB_OK)
        rc = mb_training_open(&t, &config.request, kernels, device, err);
    if (rc != MB_OK)
        return rc;
    rc = put_tensors(&t.network, t.network.weights.base, "weights", err);
    FILE *file = create("steps.json");
    const mb_train_request *r = &config.request;
    fprintf(file, "{\"clip\": %.17g, \"decay\": %.17g, \"beta1\": %.17g, \"beta2\": %.17g, \"eps_adam\": %.17g, ",
            r->clip, r->decay, r->beta1, r->beta2, r->eps);
    put_config(file, &t.network.config);
    fprintf(file, ", \"steps\": [");
    while (rc == MB_OK && t.step < r->steps)
        rc = put_step(&t, file, err);
    fprintf(file, "]}\n");
    fclose(file);
    if (rc == MB_OK)
        rc = put_tensors(&t.network, t.network.weights.base, "trained", err);
    mb_training_close(&t);
    kernels->close(device);
    mb_train_config_free(&config);
    return rc;
}

int main(int argc, char **argv)
{
    mb_error err = {0};
    int rc = MB_E_INPUT;
    if ((argc == 5 || argc == 6) && strcmp(argv[1], "gradients") == 0) {
        tiny_targets = argc == 6 ? argv[5] : "";
        folder = argv[4];
        rc = dump_gradients(strcmp(argv[2], "qwen2") == 0, argv[3], &err);
    } else if (argc >= 4 && strcmp(argv[1], "steps") == 0) {
        folder = argv[3];
        rc = dump_steps(argv[2], argv + 4, (size_t)(argc - 4), &err);
    } else {
        mb_fail(&err, 0, "see the head of tests/training/dump.c");
    }
    if (rc != MB_OK)
        fprintf(stderr, "dump: %s\n", err.text);
    return rc == MB_OK ? 0 : 1;
}
