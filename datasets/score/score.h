/*
 * score.h - what the scorers of prediction folders share: files.c (the files of a folder), score.c (LongBench v1
 * and E), v2.c (LongBench v2), summary.c (averages over tasks). Private to datasets/.
 */
#ifndef MB_DATASETS_SCORE_H
#define MB_DATASETS_SCORE_H

#include "datasets/internal.h"

/* Sum and mean in numpy's order of additions; the mean of nothing is NaN. */
double mb_sum_pairwise(const double *v, size_t n);
double mb_mean_pairwise(const double *v, size_t n);

/* ---- files.c ---- */
/* Who wrote a folder. The layouts differ in names of files and members, and in the arithmetic of the mean. */
typedef enum mb_score_layout { MB_SCORE_LONGBENCH, MB_SCORE_LONGBENCH_E, MB_SCORE_RULER } mb_score_layout;
typedef struct mb_score_files {
    const char *folder; /* borrowed */
    mb_score_layout layout;
    char **names; /* the .jsonl files in the order of the task table */
    size_t count;
} mb_score_files;
/* To be closed after a failure, too. */
int mb_score_files_open(mb_score_files *files, const char *folder, mb_error *err);
void mb_score_files_close(mb_score_files *files);
/* The task of a file; NULL = none has that name. */
const mb_task_info *mb_score_task(const char *file, mb_score_layout layout);

/* ---- v2.c ---- */
/* LongBench v2 keeps one file a model with rows that carry "judge": the first row of the first file tells. */
bool mb_score_v2_applies(const char *folder, char *const *files, size_t count);
/* The official result.txt: one line a model, accuracies with one decimal. */
int mb_score_v2(const char *folder, char *const *files, size_t count, mb_text *out, mb_error *err);

#endif
