/*
 * facts.h - the facts of the needle generator: keys with values in seven forms, and chains of variables; as
 * sentences (needles), as questions and as answers. The forms are those of the embedded model's recipe.
 */
#ifndef MB_TRAINING_FACTS_H
#define MB_TRAINING_FACTS_H

#include "training/words.h"

#define MB_FACTS_MAX 1024
#define MB_FACT_CAP 96 /* bytes of a part of a key, or of a value */
#define MB_FACT_LINKS 3
#define MB_FACT_VALUES 4

typedef struct mb_fact {
    int form;
    char a[MB_FACT_CAP], b[MB_FACT_CAP]; /* parts of the key; a plain key of one part has b "" */
    char values[MB_FACT_VALUES][MB_FACT_CAP];
    char names[MB_FACT_LINKS][4]; /* of a chain */
    int32_t lines;                /* needles: values of a key, links of a chain */
} mb_fact;

typedef struct mb_facts {
    const mb_lexis *words; /* the caller's */
    mb_random random;
    mb_fact list[MB_FACTS_MAX];
    int32_t count;
    bool failed; /* no memory */
} mb_facts;

/* True with probability p. */
bool mb_facts_chance(mb_facts *facts, double p);
/* Facts of one to three forms in place of those that are there; no two of a form have the same key. */
void mb_facts_draw(mb_facts *facts, int32_t wanted);
/* The sentence of a fact's value or link number `line`, a blank in front. */
void mb_facts_needle(const mb_fact *fact, int32_t line, mb_text *out);
/* Whether several facts like this one can be asked for together. */
bool mb_facts_plural(const mb_fact *fact);
/* The question about n facts (more than one: of one plural form), the answer's opening words, the answer. */
void mb_facts_ask(mb_facts *facts, const mb_fact *const *asked, int32_t n, mb_text *question, mb_text *opening,
                  mb_text *answer);

#endif
