/*
 * batch.h - one micro-batch on the host: documents with the noisy copy of their tails, and the rows whose logits
 * are held against a target.
 */
#ifndef MB_TRAINING_BATCH_H
#define MB_TRAINING_BATCH_H

#include "kernels/training.h"
#include "training/source.h"

typedef struct mb_batch {
    mb_train_layout layout;
    int32_t *ids;       /* [rows]: of each document clean, then the noisy copy of its tail */
    int32_t *positions; /* [rows] */
    int32_t targets;    /* rows with a target */
    int32_t *row, *target;
    float *weight; /* [targets], above 0 */
    double weight_sum;
} mb_batch;

/* How a tail becomes noisy. A block's share t of masked tokens is uniform, or 1 with probability full_blocks. */
typedef struct mb_noise {
    double full_blocks;
    /* In blocks with a part that is weighed as an answer only answers are masked, except that with probability
     * 0.15 the rest is too, at a share of up to a half. Needs marks from the source; complementary pairs do
     * without. */
    double text_weight, padding_weight; /* weight of a masked token that is no answer; of padding behind one */
    bool complementary; /* two documents of a batch are one: what the first masks the second shows, and the reverse
                         * (Fast-dLLM v2, arXiv 2509.26328, section 3) */
    bool token_shift;   /* position p is predicted by the row of p-1 (Fast-dLLM v2) */
    int32_t mask_id;
    /* Above 0: hidden tokens become ids below it, uniformly drawn, in place of mask_id (the canvas of
     * DiffusionGemma). Nothing in a row tells whether it was replaced, so that tokens which were not are asked
     * too, at kept_weight times their weight. */
    int32_t uniform;
    double kept_weight;
} mb_noise;

/* Fills the batch from documents and its own draws. documents: [layout.documents][layout.clean], of which with
 * complementary noise every second one is a copy of the one before. */
int mb_batch_make(mb_batch *batch, const mb_train_layout *layout, const mb_document *documents,
                  const mb_noise *noise, mb_random *random, mb_error *err);
/* The documents again as an autoregressive model sees them: clean rows alone, blocks of one token, each row asked
 * for the token behind it. With complementary noise one of a pair. Weights are those of the marks. */
int mb_batch_make_causal(mb_batch *batch, const mb_train_layout *layout, const mb_document *documents,
                         const mb_noise *noise, mb_error *err);
void mb_batch_free(mb_batch *batch);

#endif
