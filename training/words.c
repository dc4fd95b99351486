/*
 * words.c - reading words.txt, and sentences: grammatical ones by 14 rules, and salads of words by Zipf's law. The
 * rules are those of the embedded model's recipe; the draws are this program's own.
 */
#include "training/words.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_FILE "training/words.txt"
#define PSEUDO_WORDS 3000
#define PSEUDO_SEED 1234
#define SALAD_SEED 99
#define ZIPF_SHIFT 5.0

static const char *const headings[] = {"adjectives",    "nouns",         "verbs",      "adverbs",
                                       "prepositions",  "names",         "attributes", "function words",
                                       "pseudo onsets", "pseudo vowels", "times",      "sentences"};

int32_t mb_lexis_between(mb_random *random, int32_t low, int32_t high)
{
    return low + (int32_t)mb_random_below(random, (uint64_t)(high - low + 1));
}

const char *mb_lexis_draw(const mb_lexis *words, mb_lexis_list list, mb_random *random)
{
    return words->list[list][mb_random_below(random, words->count[list])];
}

void mb_lexis_pseudo(const mb_lexis *words, mb_random *random, mb_text *text)
{
    static const char *const ends[] = {"", "", "n", "r", "l", "s", "m", "x", "nd", "rt", "th", "ck"};
    const int32_t syllables = mb_lexis_between(random, 2, 3);
    for (int32_t i = 0; i < syllables; i++) {
        mb_text_puts(text, mb_lexis_draw(words, MB_WORDS_ONSETS, random));
        mb_text_puts(text, mb_lexis_draw(words, MB_WORDS_VOWELS, random));
    }
    mb_text_puts(text, ends[mb_random_below(random, sizeof ends / sizeof ends[0])]);
}

/* ---- reading ---- */

static int add_word(mb_lexis *words, int list, const char *word)
{
    const size_t n = words->count[list];
    if (n % 256 == 0) {
        const char **grown = realloc(words->list[list], (n + 256) * sizeof *grown);
        if (!grown)
            return MB_E_SYSTEM;
        words->list[list] = grown;
    }
    words->list[list][words->count[list]++] = word;
    return MB_OK;
}

/* One line of a section: a whole entry of times and sentences, else words. */
static int read_line(mb_lexis *words, int list, char *line)
{
    char *state = NULL;
    if (list == MB_WORDS_TIMES || list == MB_WORDS_SENTENCES)
        return add_word(words, list, line);
    int rc = MB_OK;
    for (char *word = strtok_r(line, " ", &state); rc == MB_OK && word; word = strtok_r(NULL, " ", &state))
        rc = add_word(words, list, word);
    return rc;
}

static int read_lists(mb_lexis *words)
{
    char *state = NULL;
    int list = -1, rc = MB_OK;
    for (char *line = strtok_r(words->text, "\n", &state); rc == MB_OK && line;
         line = strtok_r(NULL, "\n", &state)) {
        if (*line == '[') {
            const size_t length = strcspn(line + 1, "]");
            list = -1;
            for (int i = 0; i <= MB_WORDS_SENTENCES; i++)
                if (strlen(headings[i]) == length && strncmp(headings[i], line + 1, length) == 0)
                    list = i;
        } else if (list >= 0) {
            rc = read_line(words, list, line);
        }
    }
    return rc;
}

/* Pseudo words, one after the other in `made`, and the order of the salad. */
static int make_lists(mb_lexis *words)
{
    static const int rest[] = {MB_WORDS_ADJECTIVES, MB_WORDS_NOUNS, MB_WORDS_VERBS, MB_WORDS_ADVERBS,
                               MB_WORDS_PSEUDO};
    mb_random random = mb_random_seed(PSEUDO_SEED);
    int rc = MB_OK;
    for (int i = 0; i < PSEUDO_WORDS; i++) {
        mb_lexis_pseudo(words, &random, &words->made);
        mb_text_append(&words->made, "", 1);
    }
    if (words->made.failed)
        return MB_E_SYSTEM;
    for (const char *at = words->made.data; rc == MB_OK && at < words->made.data + words->made.length;
         at += strlen(at) + 1)
        rc = add_word(words, MB_WORDS_PSEUDO, at);
    for (size_t i = 0; rc == MB_OK && i < words->count[MB_WORDS_FUNCTION]; i++)
        rc = add_word(words, MB_WORDS_SALAD, words->list[MB_WORDS_FUNCTION][i]);
    const size_t first = words->count[MB_WORDS_SALAD];
    for (size_t k = 0; k < sizeof rest / sizeof rest[0]; k++)
        for (size_t i = 0; rc == MB_OK && i < words->count[rest[k]]; i++)
            rc = add_word(words, MB_WORDS_SALAD, words->list[rest[k]][i]);
    random = mb_random_seed(SALAD_SEED);
    const char **salad = words->list[MB_WORDS_SALAD];
    for (size_t i = words->count[MB_WORDS_SALAD]; rc == MB_OK && i > first + 1; i--) {
        const size_t j = first + mb_random_below(&random, i - first);
        const char *word = salad[i - 1];
        salad[i - 1] = salad[j];
        salad[j] = word;
    }
    return rc;
}

int mb_lexis_open(mb_lexis *words, mb_error *err)
{
    *words = (mb_lexis){.text = mb_string_copy(mb_embedded_find(WORDS_FILE, NULL))};
    if (!words->text)
        return mb_fail(err, MB_E_BUG, "%s was not compiled in", WORDS_FILE);
    int rc = read_lists(words);
    for (int i = 0; rc == MB_OK && i <= MB_WORDS_SENTENCES; i++)
        if (words->count[i] == 0)
            return mb_fail(err, MB_E_BUG, "%s has no list [%s]", WORDS_FILE, headings[i]);
    if (rc == MB_OK)
        rc = make_lists(words);
    words->zipf = rc == MB_OK ? calloc(words->count[MB_WORDS_SALAD] + 1, sizeof *words->zipf) : NULL;
    if (!words->zipf) {
        mb_lexis_close(words);
        return mb_no_memory(err, "the words of the generator");
    }
    double sum = 0.0;
    for (size_t i = 0; i < words->count[MB_WORDS_SALAD]; i++)
        words->zipf[i] = sum += 1.0 / ((double)i + ZIPF_SHIFT);
    return MB_OK;
}

void mb_lexis_close(mb_lexis *words)
{
    for (int i = 0; i < MB_WORDS_COUNT; i++)
        free(words->list[i]);
    free(words->zipf);
    free(words->text);
    mb_text_free(&words->made);
    *words = (mb_lexis){0};
}

/* ---- sentences ---- */

/* An adjective in six of ten, then a noun, in 15 of 100 a word that is none. */
static void thing(const mb_lexis *words, mb_random *random, mb_text *text)
{
    if (mb_random_unit(random) < 0.6)
        mb_text_printf(text, "%s ", mb_lexis_draw(words, MB_WORDS_ADJECTIVES, random));
    const bool known = mb_random_unit(random) < 0.85;
    mb_text_puts(text, mb_lexis_draw(words, known ? MB_WORDS_NOUNS : MB_WORDS_PSEUDO, random));
}

/* A capital stands for a word: A a thing, J adjective, N noun, V verb, D adverb, P preposition, W a name, M a
 * time, C a number to 99, S one to 99999. */
static const char *const rules[] = {"The @A @V the @A @P the @N.",
                                    "@W @V @C @Ns @M.",
                                    "In the @N, a @A @D @V @W's @N.",
                                    "@W and @W @V the @A, but the @A @V them @M.",
                                    "Every @A @P the @N is @J and @J.",
                                    "When the @A @V the @N, @W @D @V it.",
                                    "There was a @A @P the @A, and nobody @V it.",
                                    "The @N of @W is @J.",
                                    "The @A was sold for @S coins @M.",
                                    "It is said that the @N @V a @A @P @W.",
                                    "@W @D @V the @N because the @A was @J.",
                                    "A @A and a @A @V each other @M.",
                                    "If @W @V the @N, then the @A @D @V the @N.",
                                    "The @Ns @P the @A were @J, @J and @J."};

static void word_for(const mb_lexis *words, char kind, mb_random *random, mb_text *text)
{
    static const char kinds[] = "JNVDPWM";
    static const mb_lexis_list lists[] = {MB_WORDS_ADJECTIVES,   MB_WORDS_NOUNS, MB_WORDS_VERBS, MB_WORDS_ADVERBS,
                                          MB_WORDS_PREPOSITIONS, MB_WORDS_NAMES, MB_WORDS_TIMES};
    const char *at = strchr(kinds, kind);
    if (kind == 'A')
        thing(words, random, text);
    else if (kind == 'C')
        mb_text_printf(text, "%d", mb_lexis_between(random, 2, 99));
    else if (kind == 'S')
        mb_text_printf(text, "%d", mb_lexis_between(random, 10, 99999));
    else if (at)
        mb_text_puts(text, mb_lexis_draw(words, lists[at - kinds], random));
}

void mb_lexis_grammar(const mb_lexis *words, mb_random *random, mb_text *text)
{
    for (const char *p = rules[mb_random_below(random, sizeof rules / sizeof rules[0])]; *p; p++) {
        if (*p == '@')
            word_for(words, *++p, random, text);
        else
            mb_text_append(text, p, 1);
    }
}

static const char *zipf_word(const mb_lexis *words, mb_random *random)
{
    const size_t n = words->count[MB_WORDS_SALAD];
    const double wanted = mb_random_unit(random) * words->zipf[n - 1];
    size_t low = 0, high = n - 1;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (words->zipf[middle] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return words->list[MB_WORDS_SALAD][low];
}

void mb_lexis_salad(const mb_lexis *words, mb_random *random, mb_text *text)
{
    const int32_t n = mb_lexis_between(random, 5, 18);
    const int32_t number = mb_random_unit(random) < 0.1 ? mb_lexis_between(random, 0, n - 1) : -1;
    const int32_t comma = n > 8 && mb_random_unit(random) < 0.5 ? mb_lexis_between(random, 3, n - 3) : -1;
    for (int32_t i = 0; i < n; i++) {
        const size_t at = text->length + (i > 0);
        mb_text_puts(text, i ? " " : "");
        if (i == number)
            mb_text_printf(text, "%d", mb_lexis_between(random, 1, 9999));
        else
            mb_text_puts(text, zipf_word(words, random));
        if (i == 0 && text->data && !text->failed)
            text->data[at] = (char)toupper((unsigned char)text->data[at]);
        mb_text_puts(text, i == comma ? "," : "");
    }
    mb_text_puts(text, ".");
}
