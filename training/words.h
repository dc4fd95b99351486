/*
 * words.h - the words of the needle generator and the sentences made of them: words.txt (compiled in) holds the
 * lists of the embedded model's recipe.
 */
#ifndef MB_TRAINING_WORDS_H
#define MB_TRAINING_WORDS_H

#include "base/base.h"

typedef enum mb_lexis_list {
    MB_WORDS_ADJECTIVES,
    MB_WORDS_NOUNS,
    MB_WORDS_VERBS,
    MB_WORDS_ADVERBS,
    MB_WORDS_PREPOSITIONS,
    MB_WORDS_NAMES,
    MB_WORDS_ATTRIBUTES,
    MB_WORDS_FUNCTION,
    MB_WORDS_ONSETS,
    MB_WORDS_VOWELS,
    MB_WORDS_TIMES,
    MB_WORDS_SENTENCES,
    MB_WORDS_PSEUDO, /* made of onsets and vowels, the same for every seed */
    MB_WORDS_SALAD,  /* the function words, then all others in an order of their own */
    MB_WORDS_COUNT
} mb_lexis_list;

typedef struct mb_lexis {
    char *text;   /* what the lists point into */
    mb_text made; /* pseudo words, one after the other */
    const char **list[MB_WORDS_COUNT];
    size_t count[MB_WORDS_COUNT];
    double *zipf; /* [salad]: cumulated 1/(rank + 5) */
} mb_lexis;

int mb_lexis_open(mb_lexis *words, mb_error *err);
void mb_lexis_close(mb_lexis *words);

/* A word of a list. */
const char *mb_lexis_draw(const mb_lexis *words, mb_lexis_list list, mb_random *random);
/* These append to text. */
void mb_lexis_pseudo(const mb_lexis *words, mb_random *random, mb_text *text);
void mb_lexis_grammar(const mb_lexis *words, mb_random *random, mb_text *text); /* a sentence by one of 14 rules */
void mb_lexis_salad(const mb_lexis *words, mb_random *random, mb_text *text);   /* 5 to 18 words by Zipf's law */
/* Uniform in low .. high. */
int32_t mb_lexis_between(mb_random *random, int32_t low, int32_t high);

#endif
