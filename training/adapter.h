/*
 * adapter.h - low-rank adaptation (LoRA, arXiv 2106.09685): a projection W of the layers becomes W + s B A with
 * s = alpha / rank; A [rank][inputs] and B [outputs][rank] are trained, everything else stays. A layer's sums are
 * made when the layer is computed, so that passes know nothing of it and every backend has it.
 *
 * The flat array holds s A in place of A: no operation has to scale, and the optimiser's step of A is that of s A
 * at s times the rate (with decay and eps divided by s).
 */
#ifndef MB_TRAINING_ADAPTER_H
#define MB_TRAINING_ADAPTER_H

#include "training/parameters.h"
#include "training/training.h"

/* One adapted tensor of the checkpoint. Offsets in floats. */
typedef struct mb_adapter_part {
    char name[128]; /* "model.layers.0.self_attn.q_proj" */
    int32_t layer;
    size_t field;        /* of the tensor in struct mb_layer that it is a part of */
    size_t inside;       /* where it begins there */
    size_t weight;       /* in the flat array of the weights */
    size_t a, b;         /* in the adapter's */
    int64_t rows, cols;  /* outputs, inputs */
    int64_t tensor_rows; /* of the layer's tensor */
} mb_adapter_part;

typedef struct mb_adapter {
    mb_adapter_options options; /* its text is the caller's */
    double scale;
    mb_adapter_part *parts; /* [count], by layer; owned */
    size_t count;
    size_t floats, exact; /* of the flat array; of its numbers */
} mb_adapter;

/* With rank 0 an adapter without parts. MB_E_INPUT: a target that the model does not have. */
int mb_adapter_open(mb_adapter *adapter, const mb_model_config *config, const mb_adapter_options *options,
                    mb_error *err);
void mb_adapter_close(mb_adapter *adapter);
/* As `peft` begins: A uniform in +-1/sqrt(inputs), by (seed, name); B zero. */
void mb_adapter_draw(const mb_adapter *adapter, uint64_t seed, float *host);
/* Adds the adapter to the weights; both on the host. */
void mb_adapter_merge(const mb_adapter *adapter, const float *host, float *weights);
/* folder/adapter_model.safetensors and adapter_config.json as `peft` reads them: fp32, A without the scale. base:
 * the folder that it belongs to. */
int mb_adapter_write(const mb_adapter *adapter, const float *host, const char *base, const char *folder,
                     mb_error *err);

#endif
