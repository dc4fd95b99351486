/*
 * sampler.h - the control flow of decoding, apart from any network.
 *
 * A sampler decides which forwards run and which tokens they reveal. It sees the network through a few functions,
 * so that the same code drives a session and the tests' stub (stub_network.h). Invariant: the network
 * keeps the length of the cache; it grows only in prefill() and commit(), by the tokens given there.
 */
#ifndef MB_MODEL_SAMPLER_H
#define MB_MODEL_SAMPLER_H

#include "model/model.h"

typedef struct mb_network {
    void *self;
    /* KV-writing, block-causal forward of the first n prompt tokens (a multiple of B) on an empty cache. *next =
     * best token of its last row. A session has done it before: then it only answers. */
    int (*prefill)(void *self, const int32_t *ids, int32_t n, int32_t *next, mb_error *err);
    /* Starts from an empty cache without a prefill (compat_prompt_bug). NULL = nothing to do. */
    int (*forget)(void *self, mb_error *err);
    /* Around the forwards of one block; NULL = not interested. */
    int (*block_begin)(void *self, int32_t block, const int32_t *tokens, mb_error *err);
    int (*block_end)(void *self, int32_t block, const int32_t *tokens, mb_error *err);
    /* Forward of slots row_offset .. row_offset+rows-1 of the block whose B tokens are given, K and V not kept
     * beyond the block. Row r answers its best token and that token's rounded probability: no shift applied. */
    int (*denoise)(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset, int32_t *ids,
                   float *probability, mb_error *err);
    /* Before a denoise() of a canvas: which of its B slots are not accepted yet (1), and the temperature of the
     * last logits as they go into its input from the second step on. NULL: the network has no canvas. */
    int (*canvas)(void *self, const uint8_t *open, double temperature, mb_error *err);
    /* Logits of row r of the last denoise(), fp32 [vocab]. NULL: only greedy samplers run on this network. */
    int (*logits)(void *self, int32_t row, float *values, mb_error *err);
    /* Forward of the finished block: its K and V join the cache. *next = best token of the last row. */
    int (*commit)(void *self, const int32_t *tokens, int32_t *next, mb_error *err);
} mb_network;

/* What chance decides of a canvas; a test puts a reference's draws in its place. Each fills tokens [block]. */
typedef struct mb_canvas_draws {
    void *self;
    int (*noise)(void *self, int32_t *tokens, mb_error *err); /* a new canvas */
    /* A token of each row, out of its probabilities at this step (from 1). */
    int (*draw)(void *self, int32_t step, int32_t *tokens, mb_error *err);
} mb_canvas_draws;

/* Memory of the drawing of a token, [vocab] each, and what came of it. */
typedef struct mb_draw {
    float *logits, *scratch;
    double *weights;
    int32_t id;
    float confidence;
} mb_draw;

/* One decoding: what is asked and, below the line, what came of it. Zero-initialise, fill the first part. */
typedef struct mb_sampling {
    const mb_sampler *sampler;
    mb_family family;
    int32_t block, sub_block, mask_id;
    int32_t vocab;                /* 0: nothing can be drawn */
    mb_canvas canvas;             /* steps 0: blocks of masks */
    const mb_canvas_draws *draws; /* NULL: our own random numbers */
    uint64_t seed;                /* of what is drawn */
    int32_t stop_ids[9], stop_count;
    int32_t max_new_tokens, min_new_tokens; /* stop tokens among the first min_new_tokens are ordinary tokens */
    const int32_t *forced;                  /* forced trajectory, by position after the prompt; NULL = none */
    size_t forced_count;
    void (*trace)(void *user, const mb_trace_step *step);
    void *user;
    /* ---- results ---- */
    int32_t *tokens; /* prompt and new tokens, malloc'ed; count of them */
    int32_t count, prompt, capacity;
    int32_t cached; /* length of the network's cache */
    bool stopped;
    int32_t blocks, denoise_forwards, commit_forwards;
    int32_t histogram[MB_FORWARD_HISTOGRAM];
    int32_t agree, compared;
    int32_t edits; /* written tokens that were replaced */
    mb_draw draw;
} mb_sampling;

/* Runs the family's sampler on a prompt. The caller frees with mb_sampling_free, also after a failure. */
int mb_sampling_run(mb_sampling *sampling, const mb_network *network, const int32_t *prompt, size_t n,
                    mb_error *err);
void mb_sampling_free(mb_sampling *sampling);

/* Length of the sequence when no stop comes: what the cache must hold (without a last seed token). */
int64_t mb_sampling_length(const mb_sampling *sampling, int64_t prompt);

/* ---- shared by the families' files ---- */

/* The families' loops; mb_sampling_run chooses. The prompt is in sampling->tokens already. */
int mb_sample_sdar(mb_sampling *sampling, const mb_network *network, mb_error *err);
int mb_sample_fast_dllm(mb_sampling *sampling, const mb_network *network, mb_error *err);
int mb_sample_llada2(mb_sampling *sampling, const mb_network *network, mb_error *err);
int mb_sample_canvas(mb_sampling *sampling, const mb_network *network, mb_error *err);

/* What one block needs while it is decoded, and where in the text it is. */
typedef struct mb_block_work {
    int32_t *best;             /* [block] tokens, malloc'ed */
    float *confidence;         /* [block] */
    float *entropy;            /* [block]; NULL: the rule asks for none */
    bool *flags;               /* [2*block] */
    int32_t number, at, steps; /* running number, position of the first slot, most denoising steps */
} mb_block_work;
int mb_block_work_make(mb_block_work *work, const mb_sampling *sampling, mb_error *err);
void mb_block_work_free(mb_block_work *work);
/* Opens the block behind what is decoded (masks, block_begin) and denoises it by SDAR's rule, which LLaDA2 shares:
 * row i predicts slot i; which of the masked slots a step reveals is the remasking strategy's (sdar.c). Returns
 * the number of forwards or a negative code. */
int mb_sample_block(mb_sampling *sampling, const mb_network *network, mb_block_work *work, mb_error *err);

/* ---- draw.c ---- */

/* The rows of a denoising forward whose tokens are drawn. */
typedef struct mb_draw_rows {
    int32_t count, position, step; /* rows; absolute position of row 0; from 1 */
    const bool *wanted;            /* [count]; NULL = all */
    int32_t *best;                 /* [count], replaced where the temperature is above 0 */
    float *confidence;
    float *entropy; /* [count] in nats, of the distribution before top_k and top_p; NULL = not asked */
} mb_draw_rows;
/* Replaces the best tokens of a denoise() by drawn ones; nothing happens to a greedy sampler's. */
int mb_sampling_draw(mb_sampling *sampling, const mb_network *network, const mb_draw_rows *rows, mb_error *err);
/* The number in [0, 1) of a draw. */
double mb_draw_unit(uint64_t seed, int32_t position, int32_t step);
/* draw->id and its confidence for logits [vocab] and a number in [0, 1). */
int mb_draw_token(const mb_sampling *sampling, const float *logits, double u, mb_draw *draw, mb_error *err);
/* Nats, at the sampler's temperature (1 for a greedy one); weights: scratch [vocab]. */
double mb_draw_entropy(const mb_sampling *sampling, const float *logits, double *weights);
void mb_draw_free(mb_draw *draw);

/* The threshold as the reference compares it: rounded to the confidence type, as torch rounds a number that is
 * compared with a tensor. */
float mb_sampler_threshold(const mb_sampler *sampler);
/* Tokens that step `step` (from 0) of `steps` reveals: B div steps, one more in the first B mod steps. */
int32_t mb_schedule_share(int32_t block, int32_t steps, int32_t step);
/* Marks the n slots of highest confidence among those where open is set; ties go to the lower slot. */
int32_t mb_choose_best(const float *confidence, const bool *open, int32_t slots, int32_t n, bool *chosen);
/* A row whose best token is [MASK] itself would leave its slot masked, and the reference then repeats the same
 * forward for ever. Such a row ranks behind all others (confidence -1), and where it is chosen all the same it
 * reveals a stop token (or token 0 where there is none). */
void mb_sampling_refuse_mask(const mb_sampling *sampling, int32_t *best, float *confidence, int32_t n);
bool mb_sampling_is_stop(const mb_sampling *sampling, int32_t token);
/* Position of the first stop token in tokens[from, to) with no mask before it, else -1. */
int32_t mb_sampling_stop(const mb_sampling *sampling, int32_t from, int32_t to);
/* First position whose stop tokens count: the prompt's end, or min_new_tokens after it. */
int32_t mb_sampling_stop_from(const mb_sampling *sampling);
/* Forced trajectory: is there a reference token at or behind this position? */
bool mb_sampling_forced_beyond(const mb_sampling *sampling, int32_t position);
/* Forced trajectory: compares tokens[from, to) with the reference and overwrites them. */
void mb_sampling_force(mb_sampling *sampling, int32_t from, int32_t to);
int32_t mb_sampling_masks(const mb_sampling *sampling, const int32_t *tokens, int32_t n);
/* Room for `count` tokens in all; MB_E_SYSTEM when memory is out. */
int mb_sampling_reserve(mb_sampling *sampling, int32_t count, mb_error *err);

/* The three kinds of forward, counted and traced. `at` is the position of the block's first slot. step from 1. */
int mb_sampling_prefill(mb_sampling *sampling, const mb_network *network, int32_t n, int32_t *next, mb_error *err);
int mb_sampling_commit(mb_sampling *sampling, const mb_network *network, int32_t block_number, int32_t at,
                       int32_t *next, mb_error *err);
/* A denoising forward followed by the reveal of `chosen` slots is traced as one event; a chosen slot that holds a
 * token already counts as an edit. */
void mb_sampling_reveal(mb_sampling *sampling, int32_t block_number, int32_t step, int32_t at, int32_t rows,
                        int32_t row_offset, const int32_t *slot_tokens, const bool *chosen);
/* A denoising forward that reveals by a rule of its own: counted and traced as given. */
void mb_sampling_event(mb_sampling *sampling, const mb_trace_step *event);
void mb_sampling_block_done(mb_sampling *sampling, int32_t forwards);

#endif
