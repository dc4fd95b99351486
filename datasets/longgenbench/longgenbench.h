/*
 * longgenbench.h - the parts of the LongGenBench family: longgenbench.c (the family and the planning tasks),
 * batch.c (many questions answered in one generation), mmlu.c (their MMLU files).
 */
#ifndef MB_DATASETS_LONGGENBENCH_H
#define MB_DATASETS_LONGGENBENCH_H

#include "datasets/generate/generate.h"

/* A task with K questions a prompt. */
typedef struct mb_batches {
    const mb_task_info *info;
    mb_task_rows rows; /* GSM8K's questions */
    char *folder;      /* MMLU's folder */
    char *examples;    /* the solved examples: text (GSM8K) or JSON by subject (MMLU) */
    char *examples_path;
    cJSON *subjects;      /* MMLU: examples, parsed */
    const cJSON *subject; /* MMLU: the next one */
    int64_t batch, questions, asked, given;
} mb_batches;

int mb_batches_open(mb_batches *batches, const mb_task_info *info, const mb_task_request *request, mb_error *err);
int mb_batches_next(mb_batches *batches, mb_sample **sample, mb_error *err);
void mb_batches_hash(mb_batches *batches, char hex[MB_HASH_CAP]);
int64_t mb_batches_size(mb_batches *batches);
void mb_batches_close(mb_batches *batches);
/* Share of right answers, as the benchmark's scripts count. */
int mb_batches_score(bool letters, const mb_sample *sample, const char *prediction, double *score);

/* MMLU (mmlu.c): the next subject's sample; 0 at the end. */
int mb_mmlu_next(mb_batches *batches, mb_sample **sample, mb_error *err);

#endif
