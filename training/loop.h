/*
 * loop.h - what the files of a running training share: its state, its recipes, its checkpoint, its folder.
 */
#ifndef MB_TRAINING_LOOP_H
#define MB_TRAINING_LOOP_H

#include "training/network.h"
#include "training/training.h"

#include <pthread.h>

#define MB_DOCUMENTS_MAX 4096 /* of a micro-batch: documents are numbered by it */

/* The micro-batches of a step: [accumulate] each. */
typedef struct mb_feed {
    mb_batch *batches;
    mb_batch *causal; /* with a causal weight, the same documents for the autoregressive loss */
} mb_feed;

/* Those of the next step, made by a thread of their own while the device computes. */
typedef struct mb_ahead {
    pthread_t thread;
    bool running;
    int64_t step; /* whose they are */
    mb_feed feed;
    int rc;
    mb_error err;
} mb_ahead;

typedef struct mb_training {
    const mb_train_request *request;
    mb_train_plan plan;
    mb_network network;
    mb_tokenizer *tokenizer;
    mb_source *source;
    mb_feed feed; /* of the step */
    mb_ahead ahead;
    mb_choice choice;
    int64_t step; /* the last one that is done */
    float *host;  /* [network.floats + network.trained_floats] */
    char identity[MB_HASH_CAP];
} mb_training;

/* ---- shapes.c ---- */
/* Dimensions of the model with the request's in place of config.json's. */
int mb_train_config_make(const mb_train_request *request, mb_model_config *config, mb_error *err);
void mb_train_size_make(const mb_train_request *request, const mb_model_config *config, mb_network_size *size);
/* The layout of a micro-batch of the step's length. */
mb_train_layout mb_train_layout_at(const mb_train_request *request, const mb_model_config *config, int64_t step);
double mb_train_lr_at(const mb_train_request *request, int64_t step);

/* ---- recipes.c ---- */
/* Forward, losses and gradients of one micro-batch; total: weights of all targets of the step. */
int mb_recipe_step(mb_training *training, const mb_batch *batch, double total, mb_losses *losses, mb_error *err);
/* The autoregressive loss and its gradient, causal_weight times, of one micro-batch; total: as above, of the
 * causal batches. */
int mb_recipe_step_causal(mb_training *training, const mb_batch *batch, double total, mb_losses *losses,
                          mb_error *err);
/* Whether the recipe has a teacher and an index. */
bool mb_recipe_taught(mb_recipe recipe);

/* ---- loop.c ---- */
int mb_training_open(mb_training *training, const mb_train_request *request, const mb_kernels *kernels,
                     mb_device *device, mb_error *err);
void mb_training_close(mb_training *training);
/* The micro-batches of a step (from 1) into training->feed. */
int mb_training_feed(mb_training *training, int64_t step, mb_error *err);
/* One whole step: batches, gradients, update. */
int mb_training_step(mb_training *training, mb_train_step *result, mb_error *err);

/* ---- state.c ---- */
/* Writes out/training.state under a temporary name and renames it: the former one stands until then. */
int mb_training_save(mb_training *training, mb_error *err);
/* Reads it where there is one. MB_E_INPUT: it is damaged, or another training's. */
int mb_training_resume(mb_training *training, mb_error *err);

/* ---- folder.c ---- */
/* config.json, model.safetensors and the tokenizer's files. */
int mb_training_export(mb_training *training, mb_error *err);

#endif
