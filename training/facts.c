/*
 * facts.c - drawing facts and putting them into words. RULER's wording (arXiv 2404.06654) is among the forms.
 */
#include "training/facts.h"

#include <stdio.h>
#include <string.h>

typedef enum key_kind { KEY_PLAIN, KEY_PLACE, KEY_ATTRIBUTE } key_kind;
typedef enum value_kind {
    VALUE_NUMBER,
    VALUE_WORD,
    VALUE_UUID,
    VALUE_CODE,
    VALUE_THING,
    VALUE_ATTRIBUTE
} value_kind;

/* %k the key (%a and %b its parts), %v the value. */
typedef struct form {
    double share;
    const char *plural; /* several values, or several such facts, in one question; NULL = never */
    key_kind key;
    value_kind value;
    const char *needle, *question, *answer;
} form;

#define MAGIC(word)                                                                                               \
    " One of the special magic " word "s for %k is: %v.",                                                         \
        " What is the special magic " word " for %k mentioned in the provided text?",                             \
        "The special magic " word " for %k mentioned in the provided text is"

static const form forms[] = {
    {0.34, "numbers", KEY_PLAIN, VALUE_NUMBER, MAGIC("number")},
    {0.16, "words", KEY_PLAIN, VALUE_WORD, MAGIC("word")},
    {0.08, "uuids", KEY_PLAIN, VALUE_UUID, MAGIC("uuid")},
    {0.14, NULL, KEY_PLAIN, VALUE_CODE, " The secret code of the %k is %v.", " What is the secret code of the %k?",
     "The secret code of the %k is"},
    {0.10, NULL, KEY_PLACE, VALUE_THING, " %a keeps the %b in the %v.", " Where does %a keep the %b?",
     "%a keeps the %b in the"},
    {0.10, NULL, KEY_ATTRIBUTE, VALUE_ATTRIBUTE, " Remember that the %a of %b is %v.", " What is the %a of %b?",
     "The %a of %b is"},
    {0.08, NULL, KEY_PLAIN, VALUE_NUMBER, NULL, NULL, NULL}}; /* VAR A = 12345: chains, no key */
#define CHAIN ((int)(sizeof forms / sizeof forms[0]) - 1)
#define UUIDS 2

bool mb_facts_chance(mb_facts *m, double p)
{
    return mb_random_unit(&m->random) < p;
}

static const char *word(mb_facts *m, mb_lexis_list list)
{
    return mb_lexis_draw(m->words, list, &m->random);
}

/* ---- facts ---- */

static void put_digits(mb_facts *m, int32_t n, mb_text *out)
{
    mb_text_printf(out, "%d", mb_lexis_between(&m->random, 1, 9));
    for (int32_t i = 1; i < n; i++)
        mb_text_printf(out, "%d", mb_lexis_between(&m->random, 0, 9));
}

static void put_uuid(mb_facts *m, mb_text *out)
{
    static const int32_t whole[] = {8, 4, 4, 4, 12}, part[] = {4, 4};
    const bool full = mb_facts_chance(m, 0.25);
    const int32_t *sizes = full ? whole : part, count = full ? 5 : 2;
    for (int32_t k = 0; k < count; k++) {
        mb_text_puts(out, k ? "-" : "");
        for (int32_t i = 0; i < sizes[k]; i++)
            mb_text_printf(out, "%x", mb_lexis_between(&m->random, 0, 15));
    }
}

static void put_number(mb_facts *m, mb_text *out)
{
    const int32_t n = mb_facts_chance(m, 0.7) ? 7 : mb_lexis_between(&m->random, 4, 10);
    put_digits(m, n, out);
}

static void put_thing(mb_facts *m, mb_text *out)
{
    const char *adjective = word(m, MB_WORDS_ADJECTIVES);
    mb_text_printf(out, "%s %s", adjective, word(m, MB_WORDS_NOUNS));
}

static void put_word(mb_facts *m, mb_text *out)
{
    const double u = mb_random_unit(&m->random);
    if (u < 0.4)
        mb_text_puts(out, word(m, MB_WORDS_NOUNS));
    else if (u < 0.7)
        mb_lexis_pseudo(m->words, &m->random, out);
    else
        put_thing(m, out);
}

static void put_value(mb_facts *m, value_kind kind, mb_text *out)
{
    const double number = kind == VALUE_CODE ? 0.6 : kind == VALUE_ATTRIBUTE ? 0.4 : -1.0;
    if (kind == VALUE_NUMBER || (number >= 0 && mb_facts_chance(m, number)))
        put_number(m, out);
    else if (kind == VALUE_UUID)
        put_uuid(m, out);
    else if (kind == VALUE_THING)
        put_thing(m, out);
    else
        put_word(m, out);
}

static void take(mb_facts *m, mb_text *text, char to[MB_FACT_CAP])
{
    snprintf(to, MB_FACT_CAP, "%s", text->data && !text->failed ? text->data : "");
    m->failed = m->failed || text->failed;
    mb_text_clear(text);
}

static void draw_key(mb_facts *m, mb_fact *f, mb_text *text)
{
    const double u = mb_random_unit(&m->random);
    const key_kind kind = forms[f->form].key;
    if (kind == KEY_PLACE) {
        mb_text_puts(text, word(m, MB_WORDS_NAMES));
        take(m, text, f->a);
        mb_text_puts(text, word(m, MB_WORDS_NOUNS));
    } else if (kind == KEY_ATTRIBUTE) {
        mb_text_puts(text, word(m, MB_WORDS_ATTRIBUTES));
        take(m, text, f->a);
        mb_text_printf(text, "%s ", word(m, MB_WORDS_NAMES));
        const size_t at = text->length;
        mb_lexis_pseudo(m->words, &m->random, text);
        if (text->data && !text->failed && text->data[at] >= 'a' && text->data[at] <= 'z')
            text->data[at] = (char)(text->data[at] - 'a' + 'A');
    } else if (u >= 0.7 && u < 0.85) {
        mb_lexis_pseudo(m->words, &m->random, text);
        take(m, text, f->a);
        f->b[0] = '\0';
        return;
    } else {
        mb_text_puts(text, word(m, u < 0.7 ? MB_WORDS_ADJECTIVES : MB_WORDS_NOUNS));
        take(m, text, f->a);
        if (u < 0.7)
            mb_text_puts(text, word(m, MB_WORDS_NOUNS));
        else
            mb_lexis_pseudo(m->words, &m->random, text);
    }
    take(m, text, f->b);
}

/* In three of ten a part of an earlier key of the form is taken over: the hard negatives. */
static void share_key(mb_facts *m, mb_fact *f)
{
    const mb_fact *others[MB_FACTS_MAX];
    size_t n = 0;
    for (int32_t i = 0; i < m->count; i++)
        if (m->list[i].form == f->form)
            others[n++] = &m->list[i];
    if (n == 0 || !mb_facts_chance(m, 0.3))
        return;
    const mb_fact *other = others[mb_random_below(&m->random, n)];
    const bool first = mb_facts_chance(m, 0.5);
    if (*other->b && *f->b)
        memcpy(first ? f->a : f->b, first ? other->a : other->b, MB_FACT_CAP);
}

static bool is_known(const mb_facts *m, const mb_fact *f)
{
    for (int32_t i = 0; i < m->count; i++) {
        const mb_fact *other = &m->list[i];
        if (other->form != f->form)
            continue;
        if (f->form != CHAIN && strcmp(other->a, f->a) == 0 && strcmp(other->b, f->b) == 0)
            return true;
        for (int32_t k = 0; f->form == CHAIN && k < other->lines; k++)
            for (int32_t j = 0; j < f->lines; j++)
                if (strcmp(other->names[k], f->names[j]) == 0)
                    return true;
    }
    return false;
}

static void draw_chain(mb_facts *m, mb_fact *f)
{
    static const int32_t hops[] = {1, 1, 2, 2, 3};
    f->lines = hops[mb_random_below(&m->random, 5)];
    for (int32_t k = 0; k < f->lines; k++) {
        bool again = true;
        while (again) {
            for (int i = 0; i < 3; i++)
                f->names[k][i] = (char)('A' + mb_random_below(&m->random, 26));
            again = false;
            for (int32_t j = 0; j < k; j++)
                again = again || strcmp(f->names[j], f->names[k]) == 0;
        }
    }
}

/* Facts of one to three forms. */
void mb_facts_draw(mb_facts *m, int32_t wanted)
{
    static const int32_t counts[] = {1, 1, 2, 3};
    int chosen[3];
    const int32_t kinds = counts[mb_random_below(&m->random, 4)];
    mb_text text = {0};
    for (int32_t k = 0; k < kinds; k++) {
        double u = mb_random_unit(&m->random);
        for (chosen[k] = 0; chosen[k] < CHAIN && u >= forms[chosen[k]].share; chosen[k]++)
            u -= forms[chosen[k]].share;
    }
    m->count = 0;
    while (m->count < wanted && !m->failed) {
        mb_fact *f = &m->list[m->count];
        *f = (mb_fact){.form = chosen[mb_random_below(&m->random, (uint64_t)kinds)], .lines = 1};
        if (f->form == CHAIN) {
            draw_chain(m, f);
            put_digits(m, 5, &text);
            take(m, &text, f->values[0]);
        } else {
            draw_key(m, f, &text);
            share_key(m, f);
            if (forms[f->form].plural && mb_facts_chance(m, 0.12))
                f->lines = f->form == UUIDS ? 1 : mb_lexis_between(&m->random, 2, MB_FACT_VALUES);
            for (int32_t i = 0; i < f->lines; i++) {
                put_value(m, forms[f->form].value, &text);
                take(m, &text, f->values[i]);
            }
        }
        m->count += !is_known(m, f);
    }
    mb_text_free(&text);
}

static void put_key(const mb_fact *f, mb_text *out)
{
    mb_text_printf(out, "%s%s%s", f->a, *f->b ? "-" : "", f->b);
}

static void put_pattern(const char *pattern, const mb_fact *f, int32_t value, mb_text *out)
{
    for (const char *p = pattern; *p; p++) {
        if (*p != '%')
            mb_text_append(out, p, 1);
        else if (*++p == 'k')
            put_key(f, out);
        else
            mb_text_puts(out, *p == 'a' ? f->a : *p == 'b' ? f->b : f->values[value]);
    }
}

void mb_facts_needle(const mb_fact *f, int32_t line, mb_text *out)
{
    if (f->form != CHAIN)
        put_pattern(forms[f->form].needle, f, line, out);
    else if (line == 0)
        mb_text_printf(out, " VAR %s = %s.", f->names[0], f->values[0]);
    else
        mb_text_printf(out, " VAR %s = VAR %s.", f->names[line], f->names[line - 1]);
}

bool mb_facts_plural(const mb_fact *f)
{
    return forms[f->form].plural && f->form < UUIDS && f->lines == 1;
}

/* The question about one fact or several of a plural form, the answer's opening words, the answer. */
void mb_facts_ask(mb_facts *m, const mb_fact *const *f, int32_t n, mb_text *question, mb_text *opening,
                  mb_text *answer)
{
    const form *kind = &forms[f[0]->form];
    const char *middle = " mentioned in the provided text";
    if (f[0]->form == CHAIN) {
        const char *name = f[0]->names[mb_random_below(&m->random, (uint64_t)f[0]->lines)];
        mb_text_printf(question, " What is the value of VAR %s?", name);
        mb_text_printf(opening, "The value of VAR %s is", name);
        mb_text_puts(answer, f[0]->values[0]);
        return;
    }
    if (n == 1 && f[0]->lines == 1) {
        put_pattern(kind->question, f[0], 0, question);
        put_pattern(kind->answer, f[0], 0, opening);
        mb_text_puts(answer, f[0]->values[0]);
        return;
    }
    mb_text_printf(question, " What are all the special magic %s for ", kind->plural);
    mb_text_printf(opening, "The special magic %s for ", kind->plural);
    for (int32_t i = 0; i < n; i++) {
        const char *gap = i == 0 ? "" : i == n - 1 ? ", and " : ", ";
        mb_text_puts(question, gap);
        put_key(f[i], question);
        mb_text_puts(opening, gap);
        put_key(f[i], opening);
        for (int32_t k = 0; k < (n == 1 ? f[0]->lines : 1); k++)
            mb_text_printf(answer, "%s%s", i || k ? ", " : "", f[i]->values[k]);
    }
    mb_text_printf(question, "%s?", middle);
    mb_text_printf(opening, "%s are", middle);
}
