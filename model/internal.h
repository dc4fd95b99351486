/*
 * internal.h - what the files of model/ share and nobody else sees: the layout of an opened model.
 *
 * Invariant: every pointer marked "device" lives in the device's arena and was taken after `arena_mark`;
 * mb_model_close() gives all of them back with one release. A session is therefore closed before its model.
 */
#ifndef MB_MODEL_INTERNAL_H
#define MB_MODEL_INTERNAL_H

#include "model/model.h"

/* Weights of one decoder layer: device pointers to T, row-major [out][in] as nn.Linear stores them. */
struct mb_layer {
    void *input_norm; /* [hidden] */
    void *qkv;        /* [(query_heads + 2*kv_heads) * head_dim][hidden]: all q rows | all k rows | all v rows */
    void *qkv_bias;   /* [(query_heads + 2*kv_heads) * head_dim], or NULL without config.qkv_bias */
    void *q_norm;     /* [head_dim], or NULL without config.qk_norm */
    void *k_norm;     /* [head_dim], or NULL without config.qk_norm */
    void *o;          /* [hidden][query_heads * head_dim] */
    void *post_norm;  /* [hidden] */
    void *gate_up;    /* [2*I][hidden]: all gate rows | all up rows. I: mb_layer_inner(); NULL where that is 0 */
    void *down;       /* [hidden][I] */
    /* Layers with experts; NULL elsewhere. There gate_up and down are the shared expert's. */
    void *router;         /* [experts][hidden] */
    float *router_bias;   /* [experts] fp32 whatever T is, or NULL without config.moe.bias */
    void *expert_gate_up; /* [experts][2*size][hidden]: of each expert all gate rows | all up rows */
    void *expert_down;    /* [experts][hidden][size] */
    /* With config.wrapped; NULL elsewhere. post_norm is that of the attention's output. */
    void *pre_norm;        /* [hidden] in front of the dense part */
    void *dense_norm;      /* [hidden] of the dense part's output */
    void *expert_pre_norm; /* [hidden] in front of the experts */
    void *expert_norm;     /* [hidden] of the experts' output */
    void *out_norm;        /* [hidden] of the sum of both */
    void *router_scale;    /* [hidden] of the router's input */
    void *expert_scale;    /* [experts] */
    void *scalar,
        *causal_scalar; /* [1] the stream is times this in the end: in a canvas, in prompts and commits */
};

/* Where a rank of a model computes. A model on one device is rank 0 of 1 and has no comm. */
typedef struct mb_place {
    const mb_kernels *kernels; /* the caller's */
    mb_device *device;         /* the caller's */
    mb_comm *comm;             /* to the other ranks, or NULL */
    int32_t rank, ranks;
} mb_place;

struct mb_model {
    mb_model_config config;    /* what this rank computes: of a split model a slice (slice.c) */
    mb_model_config whole;     /* the checkpoint's */
    const mb_kernels *kernels; /* the caller's */
    mb_device *device;         /* the caller's */
    mb_comm *comm;             /* NULL: on one device */
    int32_t rank, ranks;
    mb_team *team;                /* rank 0 of a split model, else NULL: calls go to all ranks (team.c) */
    mb_model **peers;             /* rank 0 of a split model: [ranks], from 1 on */
    mb_type type;                 /* storage type T of all weights */
    void *embed;                  /* [vocab][hidden] device */
    void *final_norm;             /* [hidden] device */
    void *lm_head;                /* [vocab][hidden] device; == embed when config.tied */
    struct mb_layer conditioning; /* of a canvas: input_norm, gate_up, down; the rest is NULL */
    struct mb_layer *layers;      /* host array of config.layers entries */
    float *cos_sin;               /* [positions][rotary_dim] device, fp32 rounded to T: cos of rotary_dim/2 angles,
                                     then sin */
    float *local_cos_sin;         /* the same with config.local's rotary_dim, NULL without such layers */
    mb_tokenizer *tokenizer;      /* NULL for synthetic models */
    mb_chat chat;                 /* system is the model's own copy */
    struct mb_chat_template *chat_template; /* NULL: prompts have the family's format */
    char *chat_error; /* why the folder's template cannot be used; told when a prompt needs it */
    char weights_hash[MB_HASH_CAP], tokenizer_hash[MB_HASH_CAP];
    size_t arena_mark; /* mb_kernels.mark() before the first weight */
};

/* mb_model_open() of one rank, in its thread. Ranks but 0 have no tokenizer and no hashes. */
int mb_model_open_rank(mb_model **model, const mb_model_request *request, const mb_place *place, mb_type type,
                       mb_error *err);

/* Rounds an fp32 value to T and back (round to nearest even), as a kernel's store does. */
float mb_type_round(float value, mb_type type);

#endif
