/*
 * first_step.c - does the first step of a block know where to look? For a trained folder and its noise: the keys
 * of most mass when the whole block is noise, and how many of the keys of each later state are among them.
 *
 *   first_step CONFIG.json KEY=VALUE...
 *
 * Runs on the CPU. The config is a training's: its model, recipe (uniform_noise: random tokens, else masks),
 * lengths, tails, tokens, k, seed; `steps` batches are read and nothing is trained. A later state has a share of
 * its tokens revealed, the right ones, in a drawn order. Printed: the mean over documents, blocks and KV heads for
 * each layer.
 */
#include "driver/config/training.h"
#include "training/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATES 4 /* shares of noise left: 3/4, 1/2, 1/4 and 1/32 */
#define LAYERS_MAX 64
static const double left[STATES] = {0.75, 0.5, 0.25, 0.03125};

typedef struct measuring {
    mb_training training;
    mb_batch batch; /* its noisy rows as the state has them */
    int32_t *first; /* [layers][heads][k]: ids of the first step; -1 = none */
    int32_t *noise; /* [rows]: what stands in a hidden token's place */
    double *order;  /* [rows]: a row is revealed when the share left falls below it */
    double found[STATES][LAYERS_MAX];
    int64_t count[STATES][LAYERS_MAX];
} measuring;

/* The first noisy row of a document. */
static int32_t noisy_row(const mb_train_layout *layout, int32_t document)
{
    return document * (layout->clean + layout->tail) + layout->clean;
}

static void draw_noise(measuring *m, mb_random *random)
{
    const mb_train_layout *layout = &m->batch.layout;
    const mb_model_config *c = &m->training.network.config;
    const bool uniform = m->training.request->recipe == MB_RECIPE_UNIFORM_NOISE;
    for (int32_t d = 0; d < layout->documents; d++)
        for (int32_t i = 0; i < layout->tail; i++) {
            const int32_t row = noisy_row(layout, d) + i;
            m->noise[row] = uniform ? (int32_t)mb_random_below(random, (uint64_t)c->vocab) : c->mask_id;
            m->order[row] = mb_random_unit(random);
        }
}

static int select_at(measuring *m, double share, mb_error *err)
{
    const mb_train_layout *layout = &m->batch.layout;
    mb_network *n = &m->training.network;
    for (int32_t d = 0; d < layout->documents; d++)
        for (int32_t i = 0; i < layout->tail; i++) {
            const int32_t row = noisy_row(layout, d) + i, clean = row - layout->tail;
            m->batch.ids[row] = m->order[row] < share ? m->noise[row] : m->batch.ids[clean];
        }
    int rc = mb_network_feed(n, &m->batch, err);
    return rc == MB_OK ? mb_network_forward(n, &m->batch, &n->weights, MB_ATTEND_SELECT, &m->training.choice, err)
                       : rc;
}

static bool among(int32_t id, const int32_t *ids, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* state < 0: the first step's keys are kept; else they are compared with this state's. */
static void look(measuring *m, int state)
{
    const mb_network *n = &m->training.network;
    const mb_train_layout *layout = &m->batch.layout;
    const int32_t k = n->size.capacity;
    const int32_t heads = layout->documents * (layout->tail / layout->block) * n->config.kv_heads;
    for (int32_t l = 0; l < n->config.layers; l++)
        for (int32_t h = 0; h < heads; h++) {
            int32_t *first = m->first + ((size_t)l * (size_t)heads + (size_t)h) * (size_t)k;
            const int32_t *ids = n->index[l].ids + (size_t)h * (size_t)k, count = n->index[l].counts[h];
            for (int32_t i = 0; i < k && state < 0; i++)
                first[i] = i < count ? ids[i] : -1;
            if (state < 0 || n->before[h / n->config.kv_heads] <= 2 * k) /* where there is something to choose */
                continue;
            for (int32_t i = 0; i < count; i++)
                m->found[state][l] += among(ids[i], first, k);
            m->count[state][l] += count;
        }
}

static int measure(measuring *m, mb_error *err)
{
    mb_training *t = &m->training;
    int rc = MB_OK;
    for (int64_t step = 1; rc == MB_OK && step <= t->request->steps; step++) {
        mb_random random = mb_random_seed(t->request->seed * 1000003U + (uint64_t)step);
        rc = mb_training_feed(t, step, err);
        if (rc != MB_OK)
            return rc;
        m->batch = t->feed.batches[0];
        draw_noise(m, &random);
        rc = select_at(m, 2.0, err);
        look(m, -1);
        for (int s = 0; rc == MB_OK && s < STATES; s++) {
            rc = select_at(m, left[s], err);
            look(m, s);
        }
    }
    return rc;
}

static void print(const measuring *m)
{
    printf("layer  noise left: 3/4    1/2    1/4   1/32\n");
    for (int32_t l = 0; l < m->training.network.config.layers; l++) {
        printf("%5d            ", l);
        for (int s = 0; s < STATES; s++)
            printf(" %6.3f", m->found[s][l] / (double)(m->count[s][l] > 0 ? m->count[s][l] : 1));
        printf("  of %lld keys\n", (long long)m->count[0][l]);
    }
}

int main(int argc, char **argv)
{
    static measuring m;
    mb_error err = {0}, note;
    mb_train_config config;
    mb_train_plan plan;
    mb_network_size size;
    mb_device *device = NULL;
    const mb_kernels *kernels = NULL;
    const mb_config_flags flags = {.sets = (const char *const *)(argv + 2), .set_count = (size_t)(argc - 2)};
    int rc = argc < 2 ? mb_fail(&err, MB_E_INPUT, "see the head of tests/training/first_step.c")
                      : mb_train_config_load(&config, argv[1], &flags, &err);
    const mb_recipe recipe = rc == MB_OK ? config.request.recipe : MB_RECIPE_MAGE_FT;
    if (rc == MB_OK) {
        config.request.recipe = MB_RECIPE_MAGE_FT; /* what an index is planned for */
        config.request.dense_layers = 0;
        rc = mb_train_plan_make(&config.request, &plan, &err);
    }
    if (rc == MB_OK && plan.config.layers > LAYERS_MAX)
        rc = mb_fail(&err, MB_E_INPUT, "more than %d layers", LAYERS_MAX);
    const mb_device_options options = {.type = MB_F32, .threads = config.threads, .arena_bytes = plan.total};
    if (rc == MB_OK)
        rc = mb_device_open("cpu", &options, &kernels, &device, &note, &err);
    if (rc == MB_OK)
        rc = mb_training_open(&m.training, &config.request, kernels, device, &err);
    if (rc == MB_OK) {
        mb_train_size_make(&config.request, &plan.config, &size);
        config.request.recipe = recipe;
        m.first = calloc((size_t)plan.config.layers * (size_t)size.entries * (size_t)plan.config.kv_heads,
                         (size_t)size.capacity * sizeof *m.first);
        m.noise = calloc((size_t)size.rows, sizeof *m.noise);
        m.order = calloc((size_t)size.rows, sizeof *m.order);
        rc = m.first && m.noise && m.order ? measure(&m, &err) : mb_no_memory(&err, "the keys");
    }
    if (rc == MB_OK)
        print(&m);
    else
        fprintf(stderr, "first_step: %s\n", err.text);
    return rc == MB_OK ? 0 : 1;
}
