/*
 * score.h - what the scorers of prediction folders share: score.c (LongBench v1 and E), v2.c (LongBench v2),
 * summary.c (averages over tasks). Private to datasets/.
 */
#ifndef MB_DATASETS_SCORE_H
#define MB_DATASETS_SCORE_H

#include "datasets/internal.h"

/* Sum and mean in numpy's order of additions; the mean of nothing is NaN. */
double mb_sum_pairwise(const double *v, size_t n);
double mb_mean_pairwise(const double *v, size_t n);

/* LongBench v2 keeps one file a model with rows that carry "judge": the first row of the first file tells. */
bool mb_score_v2_applies(const char *folder, char *const *files, size_t count);
/* The official result.txt: one line a model, accuracies with one decimal. */
int mb_score_v2(const char *folder, char *const *files, size_t count, mb_text *out, mb_error *err);

#endif
