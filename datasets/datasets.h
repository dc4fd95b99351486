/*
 * datasets.h - benchmarks as streams of samples, and metrics that turn a prediction into a score.
 *
 * Knows no model: token counts and truncation come from a codec that the caller passes in. A task is a name such
 * as "hotpotqa", "hotpotqa_e", "niah_single", "ruler_vt", "longbench_v2". Every family of tasks is one file with
 * one mb_task_family; the list is in tasks.c.
 */
#ifndef MB_DATASETS_H
#define MB_DATASETS_H

#include "base/base.h"

/* A tokenizer seen from here. encode: ids malloc'ed; text in, added tokens as plain text. 0 or negative. */
typedef struct mb_codec {
    void *self;
    int (*encode)(void *self, const char *text, size_t length, int32_t **ids, size_t *n);
    int (*decode)(void *self, const int32_t *ids, size_t n, char **text);
} mb_codec;

/* One sample. All strings malloc'ed and owned by the sample; NULL where a task has none. */
typedef struct mb_sample {
    char *key;           /* unique within the task, stable between runs ("_id", "len4096_depth50_3") */
    char *prompt;        /* the template filled in, not truncated, no chat wrapper */
    char *answer_prefix; /* put after the assistant header ("" = none) */
    char **answers;      /* references */
    size_t answer_count;
    char **classes; /* all_classes, or NULL */
    size_t class_count;
    int32_t max_new_tokens;
    bool chat;            /* wrap in the chat template */
    bool truncate_middle; /* the benchmark cuts the middle of a prompt that is too long */
    bool cut_joined;   /* as LongBench v2 does it: one token more behind an odd seam, one decoding of both ends */
    bool stop_newline; /* samsum: newline is a stop token and one token is forced */
    int64_t length;    /* the benchmark's own length field, or tokens for generated tasks */
    char *language;    /* "en", "zh", "python", ... */
    char *group;       /* bucket, difficulty, ...: "0-4k", "hard/long"; NULL = none */
    int32_t context;   /* generated tasks: requested tokens; 0 = not a grid task */
    double depth;      /* needle depth in percent, -1 = none */
    char *source;      /* "file:line" or "generated", for error sentences */
    char *scoring;     /* a rule other than the task's own ("keywords", "digits"); NULL = the task's */
} mb_sample;
void mb_sample_free(mb_sample *sample);

/* What the caller asks of a task. Keys that a task does not know are refused by the config reader through
 * mb_task_info.options. */
typedef struct mb_task_request {
    const char *task;
    const char *folder; /* data folder; NULL for tasks that are generated from built-in text */
    int64_t limit;      /* 0 = all */
    uint64_t seed;
    const mb_codec *codec;   /* required by generated tasks */
    const char *options;     /* JSON object of the task's own keys (lengths, depths, ...), or NULL */
    int32_t prompt_overhead; /* tokens that the chat wrapper adds: generated prompts leave room for them */
} mb_task_request;

typedef struct mb_task_info {
    const char *name;      /* "hotpotqa" */
    const char *benchmark; /* "longbench", "longbench_e", "longbench_v2", "niah", "ruler", "longgenbench" */
    const char *category;  /* "multi-doc QA", ... */
    const char *language;
    const char *metric; /* "qa_f1", ... */
    int32_t max_new_tokens;
    bool chat;
    const char *options;     /* help text of the task's own keys, or NULL */
    const char *prompt_hash; /* hash of the template; filled at start */
} mb_task_info;

size_t mb_task_count(void);
const mb_task_info *mb_task_at(size_t i);
const mb_task_info *mb_task_find(const char *name); /* NULL = unknown */
/* Expands "longbench", "longbench_en", "longbench_e", "ruler", "niah", ... or one task name into task names.
 * *names malloc'ed array of borrowed strings. */
int mb_task_expand(const char *group, const char ***names, size_t *count, mb_error *err);

/* Room that the samples of a task take, from the task's own keys. Keys that are wrong count as absent here:
 * mb_task_open refuses them. */
typedef struct mb_task_extent {
    int32_t prompt_tokens; /* of the longest prompt that is generated, answer included; 0: the text decides */
    int32_t new_tokens;    /* limit of an answer; 0: no such task */
} mb_task_extent;
/* options: JSON object of the task's own keys, or NULL. */
mb_task_extent mb_task_extent_of(const char *task, const char *options);

typedef struct mb_task mb_task;
/* Opens the stream. A missing file is MB_E_INPUT with the path looked for and the command that provides it. */
int mb_task_open(mb_task **task, const mb_task_request *request, mb_error *err);
/* 1 and *sample; 0 at the end; MB_E_SAMPLE and a sentence with file and line for a bad row (key and source of a
 * partly filled *sample may be set, the stream goes on); other negatives end the stream. */
int mb_task_next(mb_task *task, mb_sample **sample, mb_error *err);
/* Content hash of the file(s) behind the task, or of generator version + options + seed. */
void mb_task_hash(const mb_task *task, char hex[MB_HASH_CAP]);
/* Samples that the stream will yield; -1 = unknown without reading the file. */
int64_t mb_task_size(const mb_task *task);
void mb_task_close(mb_task *task);

/* Score of one prediction, 0..1 (unrounded): the benchmark's per-row score, maximum over references where the
 * benchmark says so. MB_E_SAMPLE where it cannot be computed (e.g. Chinese without a dictionary). */
int mb_sample_score(const char *task, const mb_sample *sample, const char *prediction, double *score,
                    mb_error *err);

/* MB_OK when the task's metric can be computed on this machine; else MB_E_SAMPLE and the reason: the task's
 * samples are then stored as skipped (Chinese tasks without jieba's dictionary). */
int mb_task_ready(const char *task, mb_error *err);

/* `./harness score DIR`: scores the pred/<model> or pred_e/<model> folder of somebody's run and writes the text of
 * the official result.json into out (LongBench v2 result files: the official result.txt). With MB_OK, err is "" or
 * one sentence that says which tasks are left out and why. */
int mb_score_folder(const char *folder, mb_text *out, mb_error *err);
/* From that result.json text, one line a mean: LongBench's own average (six category means; English and Chinese
 * apart, code shared) and the plain mean over the 16 non-Chinese tasks; per bucket for LongBench-E. A mean whose
 * tasks are not all there is a line that says which are missing. */
int mb_score_summary(const char *result_json, mb_text *out, mb_error *err);

/* "bash datasets/fetch.sh SET", with the script where this program has it: what downloads a set of files. */
#define MB_FETCH_CAP 512
void mb_fetch_command(const char *set, char text[MB_FETCH_CAP]);

#endif
