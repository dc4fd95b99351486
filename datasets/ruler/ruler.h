/*
 * ruler.h - the state of one RULER stream and of one sample in the making, shared by ruler.c (tasks, fitting the
 * length, scoring), draft.c, niah.c, words.c (vt, cwe, fwe) and qa.c.
 *
 * A sample is a function of its size n in filler units (lines, words, documents): `write` gives the prompt for any
 * n, and ruler.c looks for the largest n that fits. Everything that does not depend on n is drawn once.
 */
#ifndef MB_DATASETS_RULER_H
#define MB_DATASETS_RULER_H

#include "datasets/generate/generate.h"

typedef struct mb_ruler_documents mb_ruler_documents;

typedef struct mb_ruler {
    const mb_task_info *row;
    const struct mb_ruler_task *task;
    const mb_codec *codec;
    uint64_t seed;
    int64_t overhead, samples;
    mb_task_keys options;
    cJSON *prompts;
    mb_niah_grid grid; /* lengths only */
    mb_words adjectives, nouns, verbs;
    mb_text essay;     /* white space squeezed; niah tasks with an essay haystack */
    const char **pool; /* cwe: all distinct words, sorted */
    size_t pool_count;
    mb_ruler_documents *documents; /* qa */
    char data_hash[MB_HASH_CAP];   /* essay or QA file */
    int64_t last_size;             /* n of the previous sample: the first guess */
    int32_t last_length;
    int64_t at;
} mb_ruler;

typedef struct mb_ruler_draft mb_ruler_draft;
struct mb_ruler_draft {
    mb_ruler *ruler;
    int32_t length;    /* tokens asked for, new tokens included */
    int64_t number;    /* of the sample within its length */
    mb_random random;  /* position after `begin`: write copies it */
    mb_sample *sample; /* begin adds answers and the prefix */
    int64_t least;     /* smallest n that makes a sample */
    void *own;
    int (*write)(mb_ruler_draft *draft, int64_t n, mb_text *out, mb_error *err);
    void (*close)(mb_ruler_draft *draft);
};

/* One of the 13 tasks; niah's parameters as in synthetic.yaml. */
typedef struct mb_ruler_task {
    int (*open)(mb_ruler *ruler, const mb_task_request *request, mb_error *err);
    int (*begin)(mb_ruler_draft *draft, mb_error *err);
    bool any;             /* string_match_part instead of _all */
    const char *haystack; /* "noise", "essay", "needle" */
    bool uuid_keys, uuid_values;
    size_t keys, values, queries;
    bool hotpot;
} mb_ruler_task;

int mb_ruler_niah_open(mb_ruler *ruler, const mb_task_request *request, mb_error *err);
int mb_ruler_niah_begin(mb_ruler_draft *draft, mb_error *err);
int mb_ruler_vt_begin(mb_ruler_draft *draft, mb_error *err);
int mb_ruler_cwe_open(mb_ruler *ruler, const mb_task_request *request, mb_error *err);
int mb_ruler_cwe_begin(mb_ruler_draft *draft, mb_error *err);
int mb_ruler_fwe_begin(mb_ruler_draft *draft, mb_error *err);
int mb_ruler_qa_open(mb_ruler *ruler, const mb_task_request *request, mb_error *err);
int mb_ruler_qa_begin(mb_ruler_draft *draft, mb_error *err);
size_t mb_ruler_qa_count(const mb_ruler *ruler);
void mb_ruler_qa_close(mb_ruler *ruler);

/* ---- draft.c ---- */
/* Fills the prompt file's entry `name`; out is appended to. */
int mb_ruler_fill(const mb_ruler *ruler, const char *name, const mb_prompt_pair *pairs, size_t count, mb_text *out,
                  mb_error *err);
/* Takes the text over as the sample's answer prefix. */
int mb_ruler_set_prefix(mb_ruler_draft *draft, mb_text *prefix, mb_error *err);
int mb_ruler_memory(mb_error *err); /* the sentence for a failed allocation */

#endif
