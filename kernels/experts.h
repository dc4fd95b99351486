/*
 * experts.h - the arguments of the operations for mixtures of experts: the choice of a router, and what the chosen
 * experts make of the rows. A part of kernels.h, which includes it: its rules hold here.
 */
#ifndef MB_KERNELS_EXPERTS_H
#define MB_KERNELS_EXPERTS_H

#include "base/base.h"
#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- mixture of experts: the routers of Qwen3-MoE (SDAR-MoE) and of LLaDA2 ---- */

/* How the logits of a router become scores. */
typedef enum mb_score {
    MB_SCORE_SOFTMAX = 0, /* over all experts (Qwen3-MoE, SDAR-MoE) */
    MB_SCORE_SIGMOID = 1  /* each expert by itself (LLaDA2) */
} mb_score;

/* The function of a gate; MB_GELU_TANH is GELU with tanh in place of the error function. */
typedef enum mb_activation { MB_SILU = 0, MB_GELU_TANH = 1 } mb_activation;

/* Experts for each of n rows. z = hidden * weight^T in fp32, s = score(z) in fp32, choice c = s + bias. With
 * groups the experts are that many equal stretches; a group counts the sum of its two largest c (its only one,
 * where a group is one expert); only the groups_kept best groups compete. The top_k largest c win. Ties, of groups
 * and of experts: lower index; NaN comes after every number. A winner weighs s (bias never counts), divided by the
 * winners' sum + 1e-20 when normalise, then times scale, in fp32. */
typedef struct mb_router {
    int64_t n, width;
    int32_t experts, top_k;      /* up to MB_EXPERTS_MAX; up to MB_TOP_EXPERTS_MAX and the experts that compete */
    int32_t groups, groups_kept; /* 1, 1 = no groups; groups divides experts */
    mb_score score;
    int32_t round_logits;  /* z is rounded to T first, as a linear layer of T does */
    int32_t round_weights; /* the weights are rounded to T */
    int32_t normalise;
    float scale;
    const void *hidden; /* [n][width] of T */
    const void *weight; /* [experts][width] of T */
    const float *bias;  /* [experts] fp32, or NULL */
    const void
        *expert_scale; /* NULL, or [experts] of T: a weight is times that of its expert in the end, in fp32 */
    float *logits;     /* [n][experts]: z; also the operation's scratch */
    int32_t *ids;      /* [n][top_k], by falling c */
    float *weights;    /* [n][top_k] */
} mb_router;

#define MB_EXPERTS_MAX 1024
#define MB_TOP_EXPERTS_MAX 32

/* How the outputs of a row's experts are added up. */
typedef enum mb_combine {
    MB_COMBINE_SUM = 0,  /* y = T(sum of weight * output in fp32), in the order of the row's list (LLaDA2) */
    MB_COMBINE_STEPS = 1 /* y = T(y + T(weight * output)), by rising expert, from 0 (Qwen3-MoE, SDAR-MoE) */
} mb_combine;

/* The feed-forward layer of the chosen experts: expert e maps a row h to T(m * down[e]^T) with
 * m = T(T(act(T(h * gate[e]^T))) * T(h * up[e]^T)), act the activation. out = y, or T(y + add); out may be add.
 * Weights of an expert that no row chose are not read. */
typedef struct mb_experts {
    int64_t n, width;             /* rows; H */
    int32_t experts, top_k, size; /* size: I, the inner width of one expert */
    mb_combine combine;
    const void *hidden;   /* [n][width] of T */
    const int32_t *ids;   /* [n][top_k], distinct in a row */
    const float *weights; /* [n][top_k] */
    const void *gate_up;  /* [experts][2*size][width] of T: gate rows, then up rows */
    const void *down;     /* [experts][width][size] of T */
    const void *add;      /* NULL, or [n][width] of T */
    void *out;            /* [n][width] of T; not hidden */
    void *scratch;        /* mb_experts_scratch() bytes */
    mb_activation activation;
} mb_experts;

/* Bytes of the three parts of an expert layer's scratch, each a multiple of 256: which pairs (row, place in its
 * list) an expert has; inner activations; outputs of the pairs. The same for every backend, so that a plan needs
 * no device. */
static inline size_t mb_experts_lists_bytes(int64_t n, int32_t experts, int32_t top_k)
{
    return ((size_t)experts + 1 + (size_t)n * (size_t)top_k + 63) / 64 * 256;
}
static inline size_t mb_experts_inner_bytes(int64_t n, int32_t top_k, int32_t size, mb_type type)
{
    size_t rows = (size_t)n * (size_t)(top_k > 3 ? top_k : 3); /* the CPU: gate, up and product of one expert */
    return (rows * (size_t)size * mb_type_size(type) + 255) / 256 * 256;
}
static inline size_t mb_experts_scratch(int64_t n, int64_t width, int32_t experts, int32_t top_k, int32_t size,
                                        mb_type type)
{
    size_t outputs = ((size_t)n * (size_t)top_k * (size_t)width * mb_type_size(type) + 255) / 256 * 256;
    return mb_experts_lists_bytes(n, experts, top_k) + mb_experts_inner_bytes(n, top_k, size, type) + outputs;
}

#ifdef __cplusplus
}
#endif
#endif
