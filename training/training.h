/*
 * training.h - what the driver sees of this room: a training as data, its memory before it starts, the run itself.
 *
 * A training is a function of its request alone: two runs are equal bit for bit, whatever the number of threads,
 * and a run that was killed goes on from its last checkpoint to the same bits.
 */
#ifndef MB_TRAINING_TRAINING_H
#define MB_TRAINING_TRAINING_H

#include "base/base.h"
#include "kernels/kernels.h"
#include "model/model.h"

typedef enum mb_recipe {
    MB_RECIPE_BLOCK_DIFFUSION = 0,
    MB_RECIPE_MAGE_FT = 1,
    MB_RECIPE_UNIFORM_NOISE = 2
} mb_recipe;
typedef enum mb_train_start { MB_START_READ = 0, MB_START_DRAWN = 1 } mb_train_start;
typedef enum mb_lr_schedule { MB_LR_COSINE = 0, MB_LR_LINEAR = 1, MB_LR_CONSTANT = 2 } mb_lr_schedule;
typedef enum mb_index_from { MB_INDEX_NOISY = 0, MB_INDEX_MASK = 1 } mb_index_from;
typedef enum mb_teacher { MB_TEACHER_SELF = 0, MB_TEACHER_FROZEN = 1 } mb_teacher;

/* LoRA: see adapter.h. */
typedef struct mb_adapter_options {
    int32_t rank; /* 0 = no adapter */
    double alpha;
    const char *targets; /* names of projections with blanks between them: "q_proj v_proj" */
} mb_adapter_options;

/* Texts and arrays are the caller's. */
typedef struct mb_train_request {
    mb_recipe recipe;
    uint64_t seed;
    const char *model; /* folder: tokenizer, config.json and, with start = checkpoint, the weights */
    mb_train_start start;
    int32_t layers, hidden, query_heads, kv_heads, head_dim,
        intermediate;    /* 0 = config.json's; random start only */
    int32_t block, mask; /* 0 = the model's; the new config.json has what is said here */
    /* data */
    const char *data, *field; /* file of JSON lines and its member with the text; data "" = the needle generator */
    const int32_t *lengths;   /* rising; a training goes through them in equal parts of its steps */
    const int32_t *tails;     /* noisy tokens of a document of that length, 0 = all */
    size_t length_count, tail_count; /* equal, or tail_count 0 */
    int32_t tokens;                  /* rows of a micro-batch; at least one document (with complementary two) */
    int32_t accumulate;              /* micro-batches of a step */
    /* noise: see batch.h */
    double full_blocks, text_weight, padding_weight;
    bool complementary, token_shift;
    double kept_weight;   /* uniform_noise: of tokens that were not replaced */
    double causal_weight; /* of the autoregressive loss beside the recipe's; 0 = none */
    mb_adapter_options lora;
    /* optimiser */
    int64_t steps;
    double lr, lr_min, hold, beta1, beta2, eps, decay, clip; /* lr_min: share of lr at the end; hold: share of the
                                                              * steps before the schedule falls */
    double loss_limit; /* nats: a step's cross entropy above it ends the training; 0 = 10 ln(vocabulary) */
    int32_t warmup;
    mb_lr_schedule schedule;
    /* fine-tuning to sparse attention */
    int32_t k, k_max, dense_layers;
    double top_p, lambda; /* top_p 0: the k best keys */
    mb_index_from index_from;
    mb_teacher teacher;
    /* running */
    bool checkpointing;
    int32_t chunk;      /* rows whose logits are held at a time */
    int32_t save_every; /* steps between checkpoints */
    mb_type output;     /* of model.safetensors */
    const char *out;    /* folder */
    const char
        *identity; /* text of everything that the result depends on: a checkpoint of another one is refused */
} mb_train_request;

/* Device bytes by part, and what a step works on at most. */
typedef struct mb_train_plan {
    size_t parameters, trained; /* numbers; those that are trained */
    size_t weights, gradients, moments, teacher, activations, adapter, logits, index, total;
    int64_t rows;      /* of the largest micro-batch */
    int32_t documents; /* of the shortest length's */
    mb_model_config config;
} mb_train_plan;

/* What a step was. */
typedef struct mb_train_step {
    int64_t step;   /* from 1 */
    int32_t length; /* of its documents */
    int64_t tokens; /* rows, noisy copies among them */
    int64_t targets;
    /* Weighted means; kl 0 without a teacher; causal: the autoregressive cross entropy, 0 without one. */
    double loss, ce, kl, causal; /* loss = ce + lambda kl + causal_weight causal */
    double accuracy;             /* share of targets that were the best token */
    double norm, lr;             /* of the gradient before clipping */
    double seconds;
} mb_train_step;

/* Who looks on. step() and the others may be NULL. */
typedef struct mb_train_watch {
    void *self;
    int (*start)(void *self, int64_t step,
                 mb_error *err); /* steps that a checkpoint has already; then the first */
    int (*step)(void *self, const mb_train_step *step, mb_error *err);
    bool (*stop)(void *self); /* true: save, and end with MB_E_STOP */
} mb_train_watch;

/* MB_E_INPUT for a device that no training runs on, or that does not have the arithmetic. mixed: operands of
 * products are rounded. */
int mb_train_device_check(const char *device, bool mixed, mb_error *err);
/* Checks the request against its model and data; MB_E_INPUT and one sentence with the key's name. */
int mb_train_plan_make(const mb_train_request *request, mb_train_plan *plan, mb_error *err);
/* The whole training: out/ holds training.state (the last checkpoint) and, at the end, a Hugging Face folder. The
 * device was opened with MB_F32 and an arena of plan.total bytes. A loss or gradient that is not finite,
 * or a loss above the limit, is MB_E_SYSTEM with step and batch; the last checkpoint stays. */
int mb_train_run(const mb_train_request *request, const mb_kernels *kernels, mb_device *device,
                 const mb_train_watch *watch, mb_error *err);

#endif
