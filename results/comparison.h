/*
 * comparison.h - one comparison as numbers: all configurations of a run under one model and sampler, by task,
 * paired with the reference. Loaded once, used by the report and the accuracy figures, so that both show the same
 * intervals.
 */
#ifndef MB_RESULTS_COMPARISON_H
#define MB_RESULTS_COMPARISON_H

#include "results/store.h"

typedef struct arm_score {
    double score;                      /* 0..1, NAN: none */
    int64_t n;                         /* scored samples */
    interval delta;                    /* paired difference to the reference with 95 % interval; NAN: none */
    double p;                          /* of delta, Holm-adjusted over the table that it stands in; NAN: none */
    double work, work_select, engaged; /* work: all that was read, work_select: of that to choose */
    double forwards;                   /* denoising forwards per block */
    interval forwards_ratio;           /* to the reference, paired by item, 95 % interval; above 1: more */
    double index_recall, mass_recall;
} arm_score;

typedef struct arm {
    int64_t config_id, k; /* k -1: no budget */
    char *label, *method;
    char *curve; /* v_curve: what the arm's line in a figure is called */
    bool is_reference, is_lossless, is_oracle;
    arm_score *tasks;          /* [task_count] */
    arm_score all;             /* means over the used tasks; score NAN unless the arm has all of them */
    double first_us, later_us; /* medians at the longest measured context, NAN: not measured */
    int64_t context, batch;    /* of those */
} arm;

typedef struct comparison {
    int64_t run_id, model_id, sampler_id;
    char *model, *sampler;
    size_t task_count, arm_count;
    char **tasks; /* names, in the order of storing */
    int64_t *datasets;
    bool *used; /* [task_count] false: no configuration scores at all, so the task is in no mean */
    arm *arms;  /* the reference first, then in the order of storing */
} comparison;

/* All comparisons of a run; *list malloc'ed. A run without accuracy has none. */
int comparison_load(mb_store *store, int64_t run_id, comparison **list, size_t *count, mb_error *err);
void comparison_free(comparison *list, size_t count);

#endif
