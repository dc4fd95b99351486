/*
 * niah.h - the state of one needle-in-a-haystack stream, shared by niah.c (tasks, keys, order of the grid),
 * build.c (built-in needles) and classic.c (essays and the San Francisco needle).
 *
 * What a requested length L means: chat wrapper + prompt + answer prefix + max_new_tokens <= L, so that a sample
 * always fits a window of L tokens.
 */
#ifndef MB_DATASETS_NIAH_H
#define MB_DATASETS_NIAH_H

#include "datasets/generate/generate.h"

#define MB_NIAH_ASKED_MAX 32 /* needles that one question asks for */

typedef struct mb_niah {
    const mb_task_info *row;
    const mb_codec *codec;
    uint64_t seed;
    int64_t overhead; /* tokens of the chat wrapper */
    mb_task_keys options;
    cJSON *prompts;
    mb_niah_grid grid;
    int64_t samples; /* per cell */
    int64_t keys;    /* needles beside those that are asked for */
    int64_t asked;   /* needles that the answer needs */
    bool one_key;    /* they share one key (niah_multivalue) */
    int64_t max_new_tokens;
    bool answer_prefix;
    const char *form, *kind, *scoring, *layout;
    mb_words adjectives, nouns;
    mb_haystack *haystack; /* NULL: made of needles, or classic */
    /* classic */
    mb_text essays;
    int32_t *essay_ids, *stop_ids;
    size_t essay_count, stop_count;
    char essay_hash[MB_HASH_CAP];
    int64_t at; /* samples yielded */
} mb_niah;

/* The cell that a sample belongs to. */
typedef struct mb_niah_cell {
    int32_t length;
    double depth;
    int64_t number;
    char key[64]; /* "len1024_depth50_2" */
} mb_niah_cell;

int mb_niah_build(mb_niah *niah, const mb_niah_cell *cell, mb_sample *sample, mb_error *err);
int mb_niah_classic_open(mb_niah *niah, mb_error *err);
int mb_niah_classic_build(mb_niah *niah, const mb_niah_cell *cell, mb_sample *sample, mb_error *err);

#endif
