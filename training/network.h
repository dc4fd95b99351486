/*
 * network.h - a dense Qwen2 or Qwen3 transformer forwards and backwards over training batches, on the operations
 * of kernels/training.h. Activations are kept by layer, or, with checkpointing, only each layer's input: the layer
 * is then computed again on the way back, to the same bits.
 */
#ifndef MB_TRAINING_NETWORK_H
#define MB_TRAINING_NETWORK_H

#include "training/adapter.h"
#include "training/batch.h"
#include "training/parameters.h"

/* The largest batch that a network is opened for. */
typedef struct mb_network_size {
    int64_t rows, targets;      /* of a micro-batch */
    int32_t positions;          /* longest document */
    int64_t entries;            /* (document, noisy block) pairs; 0 = no index is ever selected */
    int32_t clean, capacity;    /* with entries: longest clean part; keys of an index */
    int32_t chunk;              /* rows whose logits are held at a time */
    bool checkpointing, frozen; /* frozen: the teacher has weights of its own */
    mb_adapter_options lora;    /* rank 0: all parameters are trained. Else a frozen teacher is the weights without
                                 * the adapter and takes no memory */
} mb_network_size;

/* Device bytes by part. */
typedef struct mb_network_plan {
    size_t weights, gradients, moments, teacher, activations, logits, index, total;
    size_t adapter; /* with one: A, B, and a layer's sums and their gradient */
    size_t trained; /* numbers that are trained */
} mb_network_plan;

#define MB_ADAPTED 4 /* tensors of a layer that projections are parts of */

typedef struct mb_activations { /* of one layer; all fp32 */
    float *normed, *qkv, *turned, *attended, *lse, *middle, *normed2, *gate_up, *product;
} mb_activations;

typedef struct mb_network {
    mb_model_config config;
    mb_network_size size;
    const mb_kernels *kernels;
    const mb_training_kernels *ops;
    mb_device *device;
    size_t arena_mark, floats, exact;          /* floats of the flat array of weights; parameters */
    float *trained;                            /* flat: the weights, or the adapter */
    size_t trained_floats;                     /* of it, the gradients and both moments */
    mb_parameters weights, gradients, teacher; /* teacher.base NULL: the weights themselves */
    float *m, *v;                              /* flat, as what is trained */
    mb_adapter adapter;
    float *summed[MB_ADAPTED], *summed_gradient[MB_ADAPTED]; /* of the layer at work: W + s B A */
    float *thin, *unused;  /* a product's [outputs][rank]; where gradients of frozen vectors go */
    struct mb_layer layer; /* the layer at work */
    float *cos_sin;        /* [positions][rotary_dim] */
    float **inputs;        /* [layers + 1] of [rows][hidden]: each layer's input, the last output */
    mb_activations *kept;  /* [layers], or one with checkpointing */
    float *dx, *dmiddle, *dnormed, *dqkv, *dturned, *dattended, *dgate_up, *dproduct;
    float *gathered, *head_in, *dhead_in, *teacher_in, *logits, *teacher_logits;
    int32_t *ids, *positions, *row, *target;
    float *weight, *distil, *ce, *kl;
    int32_t *correct;
    mb_page_set *index; /* [layers] */
    float *mass;
    int32_t *before; /* [entries]: clean keys before the block */
    void *scratch;
    float *host; /* staging of what goes up and comes down: as long as a flat array, at least */
} mb_network;

/* How the noisy rows of layers >= dense_layers choose their keys. */
typedef struct mb_choice {
    int32_t k, k_max; /* keys of a block and KV head; with p: at least, at most */
    double p;         /* 0: the k best. Else the fewest that hold this share of the mass */
    int32_t dense_layers;
} mb_choice;

typedef enum mb_attend_mode { MB_ATTEND_EXACT, MB_ATTEND_SELECT, MB_ATTEND_SPARSE } mb_attend_mode;

typedef struct mb_losses {
    double ce, kl;          /* sums of weight * loss */
    double weight;          /* sum of weights */
    int64_t correct, count; /* targets */
} mb_losses;

void mb_network_plan_make(const mb_model_config *config, const mb_network_size *size, mb_network_plan *plan);
/* The device is the caller's, opened with MB_F32 and an arena of plan.total bytes. Weights are 0 until
 * mb_network_load(). MB_E_INPUT on a backend that cannot train. */
int mb_network_open(mb_network *network, const mb_model_config *config, const mb_network_size *size,
                    const mb_kernels *kernels, mb_device *device, mb_error *err);
void mb_network_close(mb_network *network);
/* Between host memory of network->floats and a flat array on the device. */
int mb_network_send(mb_network *network, float *to, const float *host, mb_error *err);
int mb_network_fetch(mb_network *network, float *host, const float *from, mb_error *err);

/* The same for what is trained and its moments, of network->trained_floats. */
int mb_network_send_trained(mb_network *network, float *to, const float *host, mb_error *err);
int mb_network_fetch_trained(mb_network *network, float *host, const float *from, mb_error *err);

/* Ids, positions and targets of a batch to the device: what the next calls work on. */
int mb_network_feed(mb_network *network, const mb_batch *batch, mb_error *err);
/* The forward up to the last layer's output. SELECT fills the index on the way, exact; SPARSE reads it. */
int mb_network_forward(mb_network *network, const mb_batch *batch, const mb_parameters *weights,
                       mb_attend_mode mode, const mb_choice *choice, mb_error *err);
/* Keeps what the target rows of the last forward feed to the head, as the teacher of the next loss. */
int mb_network_teach(mb_network *network, const mb_batch *batch, const mb_parameters *weights, mb_error *err);
/* Losses of the last forward, added to *losses. With backward, gradients of
 * sum weight (ce + lambda kl) / total are added to network->gradients. teacher: NULL, or whose head the kept rows
 * go through. */
typedef struct mb_loss_request {
    double total, lambda;
    const mb_parameters *teacher;
    bool backward;
    mb_attend_mode mode; /* of the forward, and its choice */
    const mb_choice *choice;
} mb_loss_request;
int mb_network_loss(mb_network *network, const mb_batch *batch, const mb_loss_request *request, mb_losses *losses,
                    mb_error *err);

typedef struct mb_update {
    int64_t step;                              /* from 1 */
    double lr, beta1, beta2, eps, decay, clip; /* clip: largest norm of the gradient; 0 = any */
} mb_update;
/* AdamW on all parameters; matrices alone decay. *norm: of the gradient before clipping. A norm that is not finite
 * changes nothing and is the caller's to see. Gradients are 0 afterwards. */
int mb_network_update(mb_network *network, const mb_update *update, double *norm, mb_error *err);

/* ---- adapted.c, internal to passes ---- */
size_t mb_adapted_floats(const mb_model_config *config, int tensor);
/* Points network->gradients at a layer's scratch; base: the adapter's gradients. */
int mb_adapted_map(mb_network *network, float *base, mb_error *err);
/* A layer's weights, with the adapter if they are the network's own: valid until the next call. */
int mb_adapted_layer(mb_network *network, const mb_parameters *weights, int32_t layer,
                     const struct mb_layer **out);
/* Around a layer's backward: gradients of the sums are 0; they become those of A and B. */
int mb_adapted_begin(mb_network *network);
int mb_adapted_collect(mb_network *network, int32_t layer);

#endif
