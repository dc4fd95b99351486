/*
 * contrast.h - two runs as paired numbers: A before, B after, of one file or two. Samples are paired by model,
 * sampler, configuration, task, item and prompt tokens; times by case.
 */
#ifndef MB_RESULTS_CONTRAST_H
#define MB_RESULTS_CONTRAST_H

#include "results/times.h"

enum contrast_value { /* of one sample; NAN: not measured */
                      VALUE_SCORE,
                      VALUE_WORK,
                      VALUE_FORWARDS, /* denoising forwards per block */
                      VALUE_INDEX,
                      VALUE_MASS,
                      VALUES
};

typedef struct contrast_sample {
    char *model, *sampler, *config, *task, *item, *hash; /* hash: of the prompt's tokens */
    int64_t config_id, sample_id;
    double values[VALUES];
} contrast_sample;

typedef struct contrast_side {
    int64_t run_id;
    char *label;              /* of the run */
    contrast_sample *samples; /* by model, sampler, configuration, task, item, hash */
    size_t count;
    const contrast_sample **used; /* one of each model and task on which something scores */
    size_t used_count;
    times times;
} contrast_side;

/* A configuration under a model and a sampler, on one task or ("*") over the tasks. Texts are borrowed. */
typedef struct contrast_row {
    const char *model, *sampler, *config, *task;
    int64_t order;   /* of the configuration in the file */
    bool in_a, in_b; /* samples, or times */
    bool paired;     /* false: no item is in both; score is the difference of two means */
    int64_t n;       /* items in both */
    int64_t only_a, only_b;
    int64_t lost, won; /* items that B scores lower, higher */
    double score_a, score_b;
    interval score, work, index, mass; /* B - A, 95 % */
    interval forwards;                 /* B / A per block */
    double p;        /* of score, Holm-adjusted: the means among themselves, the tasks among themselves */
    interval faster; /* A's time over B's, geometric mean over the cases of both */
    int64_t cases;
} contrast_row;

typedef struct contrast {
    contrast_side a, b;
    contrast_row *rows; /* by arm; of an arm "*" first */
    size_t count;
    char *other_model; /* B's, where each run has one model and they differ: they are compared all the same */
} contrast;

/* build NULL: what the labels stand for now; else rows of builds whose hash begins so, superseded or not. */
int contrast_load(mb_store *store, const char *run, const char *build, contrast_side *side, mb_error *err);
/* Pairs what c->a and c->b hold. */
int contrast_compute(contrast *c, mb_error *err);
/* A's time over B's of one case. */
interval contrast_faster(const timed_case *a, const timed_case *b);
const timed_case *contrast_find_case(const times *t, const timed_case *like);
void contrast_free(contrast *c);

#endif
