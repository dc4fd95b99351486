/*
 * parameters.h - a model's parameters as one flat array of fp32 with the model's own names for its parts: weights,
 * gradients and both moments of the optimiser have the same layout, so that one walk serves all four.
 */
#ifndef MB_TRAINING_PARAMETERS_H
#define MB_TRAINING_PARAMETERS_H

#include "model/checkpoint/layout.h"

/* One flat array as the model's tensors. */
typedef struct mb_parameters {
    float *base;             /* device, mb_parameters_count() floats; gaps between tensors stay 0 */
    struct mb_model top;     /* embed, final_norm and lm_head (== embed when tied) */
    struct mb_layer *layers; /* [config.layers]; owned */
} mb_parameters;

/* One tensor of the checkpoint. */
typedef struct mb_parameter {
    const char *name; /* "model.layers.0.self_attn.q_proj.weight" */
    const mb_weight_part *part;
    size_t first; /* in the flat array, floats */
    size_t n;
    bool matrix; /* the others are vectors: shape [n], no weight decay */
} mb_parameter;

/* MB_E_INPUT: a model that this version cannot train (a mixture of experts). */
int mb_parameters_check(const mb_model_config *config, mb_error *err);
/* Floats of the flat array, and of the parameters themselves. */
size_t mb_parameters_count(const mb_model_config *config, size_t *exact);
/* Points the tensors into base, which stays the caller's. */
int mb_parameters_map(const mb_model_config *config, float *base, mb_parameters *parameters, mb_error *err);
void mb_parameters_free(mb_parameters *parameters); /* not base */

/* Calls visit for every tensor of the checkpoint, in the order of the flat array, until one does not return MB_OK.
 */
typedef int mb_parameter_visit(void *user, const mb_parameter *parameter);
int mb_parameters_each(const mb_model_config *config, mb_parameter_visit *visit, void *user);

/* Weights of a checkpoint folder, converted to fp32, into host memory of mb_parameters_count() floats. */
int mb_parameters_read(const mb_model_config *config, const char *folder, float *host, mb_error *err);
/* Random weights (host): normal with deviation 0.05 for the embedding, 0.5/sqrt(inputs) for projections, divided
 * by sqrt(2 layers) where they are added to the residual stream; norms 1, biases 0. Every tensor has a stream of
 * its own by (seed, name). */
int mb_parameters_draw(const mb_model_config *config, uint64_t seed, float *host);
/* Writes folder/model.safetensors from host memory, in fp32 or bf16, through a temporary file. */
int mb_parameters_write(const mb_model_config *config, const float *host, mb_type type, const char *folder,
                        mb_error *err);

#endif
