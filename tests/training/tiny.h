/*
 * tiny.h - a network of some 37,000 parameters and a batch for it, for the tests of training: Qwen3's layout
 * with a tied head, or Qwen2's with biases and a head of its own.
 */
#ifndef TESTS_TRAINING_TINY_H
#define TESTS_TRAINING_TINY_H

#include "training/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TINY_BLOCK 4
#define TINY_CLEAN 24
#define TINY_TAIL 12
#define TINY_DOCUMENTS 2
#define TINY_MASK 39
#define TINY_K 3

typedef struct tiny {
    const mb_kernels *kernels;
    mb_device *device;
    mb_network network;
    mb_batch batch;
    mb_choice choice;
    mb_error err;
} tiny;

static inline mb_model_config tiny_config(bool qwen2)
{
    mb_model_config c = {.name = "tiny",
                         .family = qwen2 ? MB_FAMILY_FAST_DLLM_V2 : MB_FAMILY_SDAR,
                         .layers = 3,
                         .hidden = 32,
                         .query_heads = 4,
                         .kv_heads = 2,
                         .head_dim = 20,
                         .rotary_dim = 20,
                         .intermediate = 44,
                         .vocab = 40,
                         .positions = 64,
                         .block = TINY_BLOCK,
                         .sub_block = TINY_BLOCK,
                         .mask_id = TINY_MASK,
                         .rope_theta = 10000.0,
                         .norm_eps = 1e-6};
    c.qkv_bias = qwen2;
    c.qk_norm = !qwen2;
    c.tied = !qwen2;
    return c;
}

/* Random documents with an answer near their end, and their noise; causal: as an autoregressive model has them. */
static inline int tiny_batch(tiny *t, bool complementary, bool token_shift, bool causal)
{
    const mb_train_layout layout = {TINY_DOCUMENTS, TINY_CLEAN, TINY_TAIL, TINY_BLOCK};
    mb_document documents[TINY_DOCUMENTS];
    int32_t ids[TINY_DOCUMENTS][TINY_CLEAN];
    uint8_t marks[TINY_DOCUMENTS][TINY_CLEAN] = {{0}};
    mb_random random = mb_random_seed(7);
    for (int d = 0; d < TINY_DOCUMENTS; d++) {
        for (int i = 0; i < TINY_CLEAN; i++)
            ids[d][i] = (int32_t)mb_random_below(&random, TINY_MASK);
        if (complementary && d % 2)
            memcpy(ids[d], ids[d - 1], sizeof ids[d]);
        memset(marks[d] + TINY_CLEAN - 8, MB_MARK_ANSWER, 5);
        memset(marks[d] + TINY_CLEAN - 3, MB_MARK_PADDING, 3);
        documents[d] = (mb_document){ids[d], marks[d], TINY_CLEAN};
    }
    const mb_noise noise = {.full_blocks = 0.4,
                            .text_weight = 0.1,
                            .padding_weight = 0.05,
                            .complementary = complementary,
                            .token_shift = token_shift,
                            .mask_id = TINY_MASK};
    return causal ? mb_batch_make_causal(&t->batch, &layout, documents, &noise, &t->err)
                  : mb_batch_make(&t->batch, &layout, documents, &noise, &random, &t->err);
}

/* The CPU, or the device that MASKBENCH_TEST_DEVICE names (tests/gpu.sh). */
static inline const char *tiny_device(void)
{
    const char *spec = getenv("MASKBENCH_TEST_DEVICE");
    return spec && *spec ? spec : "cpu";
}

/* Adapters of the projections named, of rank 3 and alpha 4; "" = none. Set before tiny_open(). */
static const char *tiny_targets = "";

/* Bytes that the device has beside the network's, for arrays of a test's own. */
#define TINY_SPARE ((size_t)1 << 20)

/* Weights are drawn and then shaken, so that no norm is 1 and no bias 0. */
static inline int tiny_open(tiny *t, bool qwen2, bool checkpointing, int threads, bool complementary, bool shift)
{
    const mb_model_config config = tiny_config(qwen2);
    const mb_network_size size = {.rows = TINY_DOCUMENTS * (TINY_CLEAN + TINY_TAIL),
                                  .targets = TINY_DOCUMENTS * TINY_CLEAN,
                                  .positions = TINY_CLEAN,
                                  .entries = TINY_DOCUMENTS * TINY_TAIL / TINY_BLOCK,
                                  .clean = TINY_CLEAN,
                                  .capacity = TINY_K,
                                  .chunk = 5,
                                  .checkpointing = checkpointing,
                                  .frozen = true,
                                  .lora = {*tiny_targets ? 3 : 0, 4.0, tiny_targets}};
    mb_network_plan plan;
    mb_error note = {0};
    *t = (tiny){.choice = {.k = TINY_K, .k_max = TINY_K, .dense_layers = 1}};
    mb_network_plan_make(&config, &size, &plan);
    mb_device_options options = {.type = MB_F32, .threads = threads, .arena_bytes = plan.total + TINY_SPARE};
    int rc = mb_device_open(tiny_device(), &options, &t->kernels, &t->device, &note, &t->err);
    if (rc == MB_OK)
        rc = mb_network_open(&t->network, &config, &size, t->kernels, t->device, &t->err);
    if (rc != MB_OK)
        return rc;
    float *host = malloc(t->network.floats * sizeof *host),
          *adapter = malloc(t->network.trained_floats * sizeof *host);
    mb_random random = mb_random_seed(3);
    mb_parameters_draw(&config, 11, host);
    for (size_t i = 0; i < t->network.floats; i++)
        host[i] += (float)(0.3 * (mb_random_unit(&random) - 0.5));
    rc = mb_network_send(&t->network, t->network.weights.base, host, &t->err);
    for (size_t i = 0; i < t->network.trained_floats && *tiny_targets; i++)
        adapter[i] = (float)(0.3 * (mb_random_unit(&random) - 0.5));
    if (rc == MB_OK && *tiny_targets)
        rc = mb_network_send_trained(&t->network, t->network.trained, adapter, &t->err);
    for (size_t i = 0; i < t->network.floats; i++) /* a teacher that is not the student */
        host[i] += (float)(0.1 * (mb_random_unit(&random) - 0.5));
    if (rc == MB_OK && !*tiny_targets) /* else the teacher is the weights without the adapter */
        rc = mb_network_send(&t->network, t->network.teacher.base, host, &t->err);
    free(adapter);
    free(host);
    if (rc == MB_OK)
        rc = tiny_batch(t, complementary, shift, false);
    return rc == MB_OK ? mb_network_feed(&t->network, &t->batch, &t->err) : rc;
}

/* The autoregressive loss in place of the recipe's. */
static inline int tiny_causal(tiny *t)
{
    mb_batch_free(&t->batch);
    int rc = tiny_batch(t, false, false, true);
    return rc == MB_OK ? mb_network_feed(&t->network, &t->batch, &t->err) : rc;
}

static inline void tiny_close(tiny *t)
{
    mb_batch_free(&t->batch);
    mb_network_close(&t->network);
    if (t->device)
        t->kernels->close(t->device);
}

/* ---- memory of the device, seen from the host ---- */

/* bytes of it, malloc'ed; NULL where the device fails. */
static inline void *tiny_copy(const tiny *t, const void *from, size_t bytes)
{
    void *to = malloc(bytes);
    if (to && t->kernels->download(t->device, to, from, bytes) == MB_OK)
        return to;
    free(to);
    return NULL;
}

static inline float tiny_peek(const tiny *t, const float *from)
{
    float value = 0.0f;
    return t->kernels->download(t->device, &value, from, sizeof value) == MB_OK ? value : NAN;
}

static inline int tiny_poke(const tiny *t, float *to, float value)
{
    return t->kernels->upload(t->device, to, &value, sizeof value);
}

/* The loss of a recipe at the present weights: ce, or with `taught` ce + 0.7 kl of the sparse student against the
 * rows that mb_network_teach() kept. Negative codes of the calls come back as they are. */
static inline int tiny_loss(tiny *t, bool taught, bool backward, double *loss)
{
    mb_losses losses = {0};
    const mb_attend_mode mode = taught ? MB_ATTEND_SPARSE : MB_ATTEND_EXACT;
    const mb_loss_request request = {.total = t->batch.weight_sum,
                                     .lambda = 0.7,
                                     .teacher = taught ? &t->network.teacher : NULL,
                                     .backward = backward,
                                     .mode = mode,
                                     .choice = &t->choice};
    int rc = mb_network_forward(&t->network, &t->batch, &t->network.weights, mode, &t->choice, &t->err);
    if (rc == MB_OK)
        rc = mb_network_loss(&t->network, &t->batch, &request, &losses, &t->err);
    *loss = (losses.ce + (taught ? 0.7 * losses.kl : 0.0)) / t->batch.weight_sum;
    return rc;
}

/* What comes before the student: the index, by the weights, and the teacher's rows, by its own. */
static inline int tiny_select(tiny *t)
{
    mb_network *n = &t->network;
    int rc = mb_network_forward(n, &t->batch, &n->weights, MB_ATTEND_SELECT, &t->choice, &t->err);
    if (rc == MB_OK)
        rc = mb_network_forward(n, &t->batch, &n->teacher, MB_ATTEND_EXACT, NULL, &t->err);
    return rc == MB_OK ? mb_network_teach(n, &t->batch, &n->teacher, &t->err) : rc;
}

#endif
