/*
 * training.h - the operations of a training step: gradients of the transformer's parts, attention over the layout
 * [clean | noisy] with its gradient, losses, the optimiser's update.
 *
 * A second table beside that of kernels.h, for a backend may be without it: mb_training_of() gives a backend's
 * table or one sentence. The rules of kernels.h hold, and these:
 *  - Everything is fp32: the device is opened with MB_F32. Parameters are their own fp32 masters. A GPU opened
 * with mb_device_options.reduced may round the operands of products (TF32, bf16); sums stay fp32.
 *  - "Added to" means +=, so that micro-batches accumulate; everything else is written.
 *  - Sums over rows are taken in an order that the shapes alone give: bit-equal for any number of threads.
 */
#ifndef MB_KERNELS_TRAINING_H
#define MB_KERNELS_TRAINING_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The rows of a training batch: each document has `clean` rows at positions 0 .. clean-1, then `tail` rows, the
 * noisy copy of its last `tail` positions. clean and tail are multiples of block; tail <= clean. The three-part
 * mask of block diffusion (BD3-LM, arXiv 2503.09573, section 4): a clean row sees the clean keys of its block and
 * of those before; a noisy row sees the clean keys of the blocks before its own, and the noisy keys of its own
 * block. */
typedef struct mb_train_layout {
    int32_t documents, clean, tail, block;
} mb_train_layout;

static inline int64_t mb_train_rows(const mb_train_layout *layout)
{
    return (int64_t)layout->documents * (layout->clean + layout->tail);
}

/* out = a * weight^T + bias + add. */
typedef struct mb_train_gemm {
    const float *a, *weight; /* [m][k], [n][k] */
    const float *bias;       /* NULL, or [n] */
    const float *add;        /* NULL, or [m][n]; not out */
    int64_t m, n, k;
    float *out; /* [m][n] */
} mb_train_gemm;

/* Gradient of y = a * weight^T + bias: da = dy * weight, dweight += dy^T * a, dbias += column sums of dy. */
typedef struct mb_gemm_gradient {
    const float *dy;     /* [m][n] */
    const float *a;      /* [m][k]; NULL without dweight */
    const float *weight; /* [n][k]; NULL without da */
    int64_t m, n, k;
    float *da;      /* NULL, or [m][k] */
    float *dweight; /* NULL, or [n][k], added to */
    float *dbias;   /* NULL, or [n], added to */
} mb_gemm_gradient;

/* Gradient of y = x * rstd(x) * weight. */
typedef struct mb_rmsnorm_gradient {
    const float *x, *dy; /* [n][width] */
    const float *weight; /* [width] */
    float eps;
    int64_t n, width;
    int32_t add;    /* 1: dx is added to */
    float *dx;      /* [n][width] */
    float *dweight; /* [width], added to */
} mb_rmsnorm_gradient;

/* q and k normalised (where there are weights) and turned by RoPE, v as it is. The gradient reads dout and qkv. */
typedef struct mb_train_qkv {
    int64_t n;
    int32_t query_heads, kv_heads, head_dim, rotary_dim;
    const int32_t *positions;     /* [n] */
    const float *cos_sin;         /* as mb_qkv.cos_sin */
    const float *q_norm, *k_norm; /* NULL, or [head_dim] */
    float norm_eps;
    const float *qkv;         /* [n][(query_heads + 2*kv_heads) * head_dim]: as projected */
    float *out;               /* the same shape; forward only */
    const float *dout;        /* gradient only: of out */
    float *dqkv;              /* gradient only */
    float *dq_norm, *dk_norm; /* gradient only: [head_dim], added to; NULL without the weights */
} mb_train_qkv;

/* Gradient of y = silu(gate) * up. */
typedef struct mb_swiglu_gradient {
    const float *gate_up; /* [n][2*width] */
    const float *dy;      /* [n][width] */
    int64_t n, width;
    float *dgate_up; /* [n][2*width] */
} mb_swiglu_gradient;

/* dtable[ids[i]] += dy[i]. */
typedef struct mb_embed_gradient {
    const int32_t *ids; /* [n] */
    const float *dy;    /* [n][width] */
    int64_t n, vocab, width;
    float *dtable; /* [vocab][width], added to */
} mb_embed_gradient;

/* The clean keys that the noisy rows of a block read, in place of all before it: block b of document d is entry
 * d * tail/block + b. */
typedef struct mb_train_index {
    int32_t capacity;
    const int32_t *ids;    /* [entries][kv_heads][capacity]: distinct positions before the block */
    const int32_t *counts; /* [entries][kv_heads] */
} mb_train_index;

/* Attention over the layout; scale head_dim^-0.5. Forward writes out and lse, the gradient reads them. mass: what
 * the noisy rows of a block give to each clean key before it, the mean over the block's rows and the query heads
 * of a KV head of exp(s - lse); 0 for later keys. */
typedef struct mb_train_attention {
    mb_train_layout layout;
    int32_t query_heads, kv_heads, head_dim;
    const float *qkv;            /* [rows][(query_heads + 2*kv_heads) * head_dim]: after mb_train_qkv */
    const mb_train_index *index; /* NULL: noisy rows read all clean keys before their block */
    float *out;                  /* [rows][query_heads * head_dim] */
    float *lse;                  /* [rows][query_heads] */
    float *mass;                 /* NULL, or [entries][kv_heads][clean]; forward only, without an index */
    const float *dout;           /* gradient only: of out */
    float *dqkv;                 /* gradient only: of qkv */
} mb_train_attention;

/* Losses of rows of logits and their gradient. p = softmax(logits), q = softmax(teacher).
 * ce[i] = -log p[target], kl[i] = sum p (log p - log q): KL(p || q), gradient through p alone (as the
 * self-distillation of arXiv 2602.14209). dlogits = weight[i] * d ce[i] + distil[i] * d kl[i]. */
typedef struct mb_train_loss {
    const float *logits;  /* [n][vocab] */
    const float *teacher; /* NULL, or [n][vocab] */
    const int32_t *targets;
    const float *weight, *distil; /* [n]; distil NULL without a teacher */
    int64_t n, vocab;
    float *dlogits;   /* NULL, or [n][vocab]; may be logits */
    float *ce, *kl;   /* [n]; kl NULL without a teacher */
    int32_t *correct; /* [n]: 1 where the target has the largest logit (ties: lowest id) */
} mb_train_loss;

/* AdamW with decoupled decay (arXiv 1711.05101), as torch.optim.AdamW: w -= lr*decay*w, then
 * w -= lr/correction1 * m / (sqrt(v)/sqrt(correction2) + eps); correction_i = 1 - beta_i^step. The gradient counts
 * times scale (clipping). */
typedef struct mb_adamw {
    float *weight, *m, *v; /* [n] */
    const float *gradient;
    int64_t n;
    float lr, beta1, beta2, eps, decay, scale;
    double correction1, correction2;
} mb_adamw;

/* *sum += sum of squares, in double. */
typedef struct mb_square_sum {
    const float *x;
    int64_t n;
    double *sum; /* host */
} mb_square_sum;

/* out[i] = x[rows[i]]; or, scattered, x[rows[i]] += out[i] with distinct rows. */
typedef struct mb_train_gather {
    float *x;
    const int32_t *rows; /* [n] */
    int64_t n, width;
    float *out; /* [n][width] */
} mb_train_gather;

/* out = x + y over n floats; out may be one of them. */
typedef struct mb_train_add {
    const float *x, *y;
    float *out;
    int64_t n;
} mb_train_add;

/* X(name, struct of its arguments) */
#define MB_TRAINING_OPERATIONS(X)                                                                                 \
    X(train_gemm, mb_train_gemm)                                                                                  \
    X(gemm_gradient, mb_gemm_gradient)                                                                            \
    X(rmsnorm_gradient, mb_rmsnorm_gradient)                                                                      \
    X(train_qkv, mb_train_qkv)                                                                                    \
    X(train_qkv_gradient, mb_train_qkv)                                                                           \
    X(swiglu_gradient, mb_swiglu_gradient)                                                                        \
    X(embed_gradient, mb_embed_gradient)                                                                          \
    X(train_attend, mb_train_attention)                                                                           \
    X(train_attend_gradient, mb_train_attention)                                                                  \
    X(train_loss, mb_train_loss)                                                                                  \
    X(adamw, mb_adamw)                                                                                            \
    X(square_sum, mb_square_sum)                                                                                  \
    X(train_gather, mb_train_gather)                                                                              \
    X(train_scatter, mb_train_gather)                                                                             \
    X(train_add, mb_train_add)

typedef struct mb_training_kernels {
#define MB_TRAINING_ENTRY(name, arguments) int (*name)(mb_device *, const arguments *);
    MB_TRAINING_OPERATIONS(MB_TRAINING_ENTRY)
#undef MB_TRAINING_ENTRY
} mb_training_kernels;

/* The training operations of the backend that a device was opened with; MB_E_INPUT with one sentence where it has
 * none. */
int mb_training_of(const mb_kernels *kernels, const mb_training_kernels **training, mb_error *err);

/* Internal: the tables of the backends; CUDA's only in a build that has it. */
const mb_training_kernels *mb_training_cpu(void);
const mb_training_kernels *mb_training_cuda(void);

#ifdef __cplusplus
}
#endif
#endif
