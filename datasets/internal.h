/*
 * internal.h - what the files of datasets/ share: the shape of a task family, sample building, the JSONL reader,
 * text with Python's semantics, and the metrics.
 *
 * A family is one file (niah.c, ruler.c, longbench.c, ...) that fills one mb_task_family; tasks.c holds the one
 * array of families and answers everything in datasets.h from it. A family never sees the limit: tasks.c counts.
 */
#ifndef MB_DATASETS_INTERNAL_H
#define MB_DATASETS_INTERNAL_H

#include "base/json.h"
#include "datasets/datasets.h"

/* ---- families ---------------------------------------------------------------------------------------------- */
typedef struct mb_task_family {
    const char *name;   /* "longbench" */
    mb_task_info *rows; /* static table; prompt_hash is filled by tasks.c on first use, leave it NULL */
    size_t row_count;
    /* Appends the bytes that the prompt hash covers: every template that this task's prompts are made of (and, for
     * generated tasks, a version word of the generator). Called once per row; must not fail but by memory. */
    void (*template_bytes)(const mb_task_info *row, mb_text *out);
    /* Makes the private state of one stream. request and its strings live at least as long as the task. */
    int (*open)(void **state, const mb_task_info *row, const mb_task_request *request, mb_error *err);
    /* As mb_task_next. */
    int (*next)(void *state, mb_sample **sample, mb_error *err);
    void (*hash)(void *state, char hex[MB_HASH_CAP]);
    int64_t (*size)(void *state); /* -1 = unknown; the limit is applied by tasks.c */
    void (*close)(void *state);   /* accepts a half-opened state, never NULL */
    /* As mb_sample_score; row is the task's row. */
    int (*score)(const mb_task_info *row, const mb_sample *sample, const char *prediction, double *score,
                 mb_error *err);
    /* Optional (NULL): called once before the first look at the rows, e.g. to fill limits from a data file. */
    void (*prepare)(void);
} mb_task_family;

struct mb_task {
    const mb_task_family *family;
    const mb_task_info *info;
    void *state;
    int64_t limit, yielded; /* bad rows count as yielded: a limit names rows of the file */
};

extern const mb_task_family mb_family_longbench, mb_family_longbench_e, mb_family_longbench_v2,
    mb_family_longgenbench, mb_family_niah, mb_family_ruler;

/* ---- samples (sample.c) ------------------------------------------------------------------------------------- */
/* Zeroed, answer_prefix "", depth -1. NULL: out of memory. */
mb_sample *mb_sample_new(void);
/* Appends a copy of one reference. False: out of memory. */
bool mb_sample_add_answer(mb_sample *sample, const char *text, size_t length);
bool mb_sample_add_class(mb_sample *sample, const char *text, size_t length);

/* Fills `{name}` places of a template; text between braces that names no pair stays. Values are not expanded
 * again (Python's str.format with keyword arguments; `{{` and `}}` become one brace when braces is true). */
typedef struct mb_prompt_pair {
    const char *name, *value;
} mb_prompt_pair;
void mb_prompt_fill(mb_text *out, const char *template_text, size_t length, const mb_prompt_pair *pairs,
                    size_t pair_count, bool braces);
/* A template file: embedded text of datasets/prompts/<name>. NULL = not in the program. */
const char *mb_prompt_find(const char *name, size_t *length);

/* ---- JSONL (jsonl.c): one JSON object a line, or one array of objects; one object in memory ----------------- */
typedef struct mb_jsonl mb_jsonl;
int mb_jsonl_open(mb_jsonl **reader, const char *path, mb_error *err);
/* 1 and *row (the caller's, cJSON_Delete); 0 at the end; MB_E_SAMPLE "file:line: what" for a line that is no JSON
 * object in UTF-8, the next call goes on with the next line; MB_E_SYSTEM ends. Blank lines are passed over. */
int mb_jsonl_next(mb_jsonl *reader, cJSON **row, mb_error *err);
int64_t mb_jsonl_line(const mb_jsonl *reader); /* 1-based number of the line last returned */
const char *mb_jsonl_path(const mb_jsonl *reader);
void mb_jsonl_close(mb_jsonl *reader);
/* Rows that mb_jsonl_next would yield, bad ones included; reads the file but parses nothing. -1: unreadable. */
int64_t mb_jsonl_count(const char *path);
/* One JSON object from n bytes of strict UTF-8, or NULL and the reason. Its texts may hold U+0000 and halves of
 * surrogate pairs, as base/json.h writes them. */
cJSON *mb_json_object(const char *bytes, size_t n, mb_error *reason);

/* ---- tasks that are files (rows.c) ---- */
/* The state of a family whose task is one file of JSON objects. */
typedef struct mb_task_rows {
    const mb_task_info *info;
    mb_jsonl *reader;
    int64_t count; /* rows, counted when first asked for; -1 before */
    int64_t read;  /* rows given so far, bad ones included */
} mb_task_rows;
/* Opens the first of folder/<names[i]> that exists (NULL-terminated; folder NULL = datasets/data). When none does,
 * MB_E_INPUT says where it looked and the command that provides it. */
int mb_task_rows_open(mb_task_rows *rows, const mb_task_info *info, const char *folder, const char *const *names,
                      const char *fetch, mb_error *err);
/* As mb_jsonl_next; for every row, good or bad, *sample is new with key ("_id" where the row has one, else
 * "row_N") and source set. Returns MB_E_SAMPLE with the sample kept. */
int mb_task_rows_next(mb_task_rows *rows, cJSON **row, mb_sample **sample, mb_error *err);
void mb_task_rows_hash(void *rows, char hex[MB_HASH_CAP]);
int64_t mb_task_rows_size(void *rows);
void mb_task_rows_close(mb_task_rows *rows);
/* A text member of the row, borrowed; NULL and MB_E_SAMPLE's sentence with file, line and field when it is
 * missing. */
const char *mb_task_rows_text(const mb_task_rows *rows, const cJSON *row, const char *field, mb_error *err);

/* ---- LongBench v1 and E share rows, templates and metrics (longbench.c) ---- */
int mb_longbench_open(void **state, const mb_task_info *row, const mb_task_request *request, mb_error *err);
int mb_longbench_next(void *state, mb_sample **sample, mb_error *err);
void mb_longbench_close(void *state);
int mb_longbench_score(const mb_task_info *row, const mb_sample *sample, const char *prediction, double *score,
                       mb_error *err);
void mb_longbench_template_bytes(const mb_task_info *row, mb_text *out);
/* Fills max_new_tokens of the rows from prompts/longbench_limits.json. */
void mb_longbench_limits(mb_task_info *rows, size_t count);
/* "0-4k", "4-8k" or "8k+": the bucket of LongBench-E. */
const char *mb_longbench_bucket(int64_t length);

/* ---- LongBench v2's answer (longbench/v2.c): 'A'..'D', or 0 where none can be read ---- */
char mb_longbench_v2_answer(const char *response);

#endif
