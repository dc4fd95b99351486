/*
 * words.c - RULER's variable tracking (vt), common words (cwe) and frequent words (fwe).
 *
 * The shuffles of the official generator come from a fresh generator with seed 42 for every sample; here they come
 * from the sample's own stream, so that the positions differ from sample to sample. Beyond the 8168 words of the
 * word lists cwe goes on with made-up words, where the official one takes another list.
 */
#include "datasets/ruler/ruler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAIN 5 /* variables of the chain: 4 hops */
#define NAME_CAP 8
#define EXAMPLE_TOKENS 500 /* budget of vt's worked example */
#define COMMON 10          /* cwe: words asked for */
#define ZETA_2 1.6449340668482264

static void free_own(mb_ruler_draft *draft)
{
    free(draft->own);
    draft->own = NULL;
}

/* ---- vt ---- */

typedef struct vt_own {
    char names[2][CHAIN][NAME_CAP]; /* [0] the example's, [1] the sample's */
    char value[2][16];
    int64_t example_lines;
} vt_own;

static void draw_chain(vt_own *own, size_t which, mb_random *random)
{
    for (size_t i = 0; i < CHAIN; i++)
        for (bool again = true; again;) {
            mb_draw_letters(random, 'A', which ? 5 : 3, own->names[which][i]);
            again = false;
            for (size_t j = 0; j < i; j++)
                again = again || strcmp(own->names[which][i], own->names[which][j]) == 0;
        }
    /* 10000 .. 99998 */
    snprintf(own->value[which], sizeof own->value[which], "%d", 10000 + (int)mb_random_below(random, 89999));
}

/* n noise lines with the chain between them, in the template. Every assignment but the first keeps the blank that
 * the official generator leaves before the newline. */
static int write_chain(const mb_ruler_draft *draft, size_t which, int64_t n, mb_text *out, mb_error *err)
{
    const vt_own *own = draft->own;
    const char *noise = mb_json_string(draft->ruler->prompts, "noise");
    mb_random random = draft->random;
    mb_text context = {0};
    size_t at[CHAIN], next = 0;
    mb_random_next(&random);
    random.state += which;
    mb_draw_sorted(&random, (size_t)n, CHAIN, at);
    for (size_t line = 0; line < (size_t)n; line++) {
        if (next < CHAIN && at[next] == line) {
            if (next == 0)
                mb_text_printf(&context, "VAR %s = %s\n", own->names[which][0], own->value[which]);
            else
                mb_text_printf(&context, "VAR %s = VAR %s \n", own->names[which][next],
                               own->names[which][next - 1]);
            next++;
        }
        mb_text_puts(&context, noise);
        if (line + 1 < (size_t)n)
            mb_text_puts(&context, "\n");
    }
    const mb_prompt_pair pairs[] = {{"context", context.data}, {"query", own->value[which]}};
    int rc = context.failed ? mb_ruler_memory(err) : mb_ruler_fill(draft->ruler, "vt", pairs, 2, out, err);
    mb_text_free(&context);
    return rc;
}

static int vt_prefix(const mb_ruler_draft *draft, size_t which, mb_text *out, mb_error *err)
{
    const vt_own *own = draft->own;
    const mb_prompt_pair pairs[] = {{"count", "5"}, {"query", own->value[which]}};
    return mb_ruler_fill(draft->ruler, "vt_prefix", pairs, 2, out, err);
}

/* The worked example: prompt, prefix, the names, an empty line. */
static int write_example(const mb_ruler_draft *draft, int64_t lines, mb_text *out, mb_error *err)
{
    const vt_own *own = draft->own;
    int rc = write_chain(draft, 0, lines, out, err);
    if (rc == MB_OK)
        rc = vt_prefix(draft, 0, out, err);
    for (size_t i = 0; i < CHAIN; i++)
        mb_text_printf(out, " %s", own->names[0][i]);
    mb_text_puts(out, "\n\n");
    return rc;
}

static int vt_write(mb_ruler_draft *draft, int64_t n, mb_text *out, mb_error *err)
{
    const vt_own *own = draft->own;
    int rc = write_example(draft, own->example_lines, out, err);
    return rc < 0 ? rc : write_chain(draft, 1, n, out, err);
}

/* As many noise lines as the example's budget holds. */
static int size_example(mb_ruler_draft *draft, mb_error *err)
{
    vt_own *own = draft->own;
    mb_text text = {0};
    int rc = MB_OK;
    for (own->example_lines = CHAIN; rc == MB_OK; own->example_lines++) {
        mb_text_clear(&text);
        rc = write_example(draft, own->example_lines + 1, &text, err);
        if (rc == MB_OK && text.failed)
            rc = mb_ruler_memory(err);
        int64_t n = rc < 0 ? rc : mb_codec_count(draft->ruler->codec, text.data, text.length, err);
        if (n < 0)
            rc = (int)n;
        if (n > EXAMPLE_TOKENS)
            break;
    }
    mb_text_free(&text);
    return rc;
}

int mb_ruler_vt_begin(mb_ruler_draft *draft, mb_error *err)
{
    vt_own *own = draft->own = calloc(1, sizeof *own);
    mb_text prefix = {0};
    if (!own)
        return mb_ruler_memory(err);
    draft->close = free_own;
    draft->write = vt_write;
    draft->least = CHAIN;
    draw_chain(own, 0, &draft->random);
    draw_chain(own, 1, &draft->random);
    for (size_t i = 0; i < CHAIN; i++)
        if (!mb_sample_add_answer(draft->sample, own->names[1][i], strlen(own->names[1][i])))
            return mb_ruler_memory(err);
    int rc = size_example(draft, err);
    if (rc == MB_OK)
        rc = vt_prefix(draft, 1, &prefix, err);
    if (rc == MB_OK)
        return mb_ruler_set_prefix(draft, &prefix, err);
    mb_text_free(&prefix);
    return rc;
}

/* ---- cwe ---- */

typedef struct cwe_own {
    size_t *order; /* of the pool, one permutation for the list and one for the example */
    size_t *example;
} cwe_own;

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int mb_ruler_cwe_open(mb_ruler *ruler, const mb_task_request *request, mb_error *err)
{
    (void)request;
    int rc = mb_words_load(&ruler->adjectives, "datasets/text/ruler_adjectives.txt", err);
    if (rc == MB_OK)
        rc = mb_words_load(&ruler->nouns, "datasets/text/ruler_nouns.txt", err);
    if (rc == MB_OK)
        rc = mb_words_load(&ruler->verbs, "datasets/text/ruler_verbs.txt", err);
    if (rc < 0)
        return rc;
    const mb_words *lists[] = {&ruler->nouns, &ruler->adjectives, &ruler->verbs};
    size_t count = 0, n = ruler->nouns.count + ruler->adjectives.count + ruler->verbs.count;
    ruler->pool = malloc(n * sizeof *ruler->pool);
    if (!ruler->pool)
        return mb_ruler_memory(err);
    for (size_t l = 0; l < 3; l++) {
        memcpy(ruler->pool + count, lists[l]->items, lists[l]->count * sizeof *ruler->pool);
        count += lists[l]->count;
    }
    qsort(ruler->pool, count, sizeof *ruler->pool, by_text);
    for (size_t i = 0; i < count; i++)
        if (!i || strcmp(ruler->pool[i], ruler->pool[ruler->pool_count - 1]) != 0)
            ruler->pool[ruler->pool_count++] = ruler->pool[i];
    return MB_OK;
}

static void cwe_close(mb_ruler_draft *draft)
{
    cwe_own *own = draft->own;
    free(own->order);
    free(own->example);
    free_own(draft);
}

/* Word number i of a permutation; past the pool a made-up word of three open syllables and an x, all different. */
static void put_word(const mb_ruler *ruler, const size_t *order, size_t i, mb_text *out)
{
    if (i < ruler->pool_count) {
        mb_text_puts(out, ruler->pool[order[i]]);
        return;
    }
    size_t code = (i - ruler->pool_count) * 7919 % 512000; /* 80^3 syllable triples, 7919 is prime to it */
    for (size_t s = 0; s < 3; s++, code /= 80) {
        const char syllable[2] = {"bdfghjklmnprstvz"[code % 80 / 5], "aeiou"[code % 5]};
        mb_text_append(out, syllable, 2);
    }
    mb_text_puts(out, "x");
}

/* The numbered list: `words` words of a permutation, the first ten `often` times, the others `rarely`. */
static int write_list(const mb_ruler_draft *draft, const size_t *order, size_t words, size_t often, size_t rarely,
                      mb_text *out, mb_error *err)
{
    mb_random random = draft->random;
    size_t count = COMMON * often + (words - COMMON) * rarely, at = 0;
    size_t *places = malloc(count * sizeof *places), *list = malloc(count * sizeof *list);
    mb_text context = {0};
    int rc = MB_OK;
    if (!places || !list) {
        rc = mb_ruler_memory(err);
        goto out;
    }
    for (size_t w = 0; w < words; w++)
        for (size_t r = 0; r < (w < COMMON ? often : rarely); r++)
            list[at++] = w;
    mb_draw_order(&random, places, count);
    for (size_t i = 0; i < count; i++) {
        mb_text_printf(&context, "%s%zu. ", i ? " " : "", i + 1);
        put_word(draft->ruler, order, list[places[i]], &context);
    }
    const mb_prompt_pair pairs[] = {{"context", context.data}};
    rc = context.failed ? mb_ruler_memory(err) : mb_ruler_fill(draft->ruler, "cwe", pairs, 1, out, err);
out:
    free(places);
    free(list);
    mb_text_free(&context);
    return rc;
}

static int cwe_write(mb_ruler_draft *draft, int64_t n, mb_text *out, mb_error *err)
{
    const cwe_own *own = draft->own;
    bool brief = draft->length < 4096;
    int rc = write_list(draft, own->example, brief ? 20 : 40, brief ? 3 : 10, brief ? 1 : 3, out, err);
    if (rc == MB_OK)
        rc = mb_ruler_fill(draft->ruler, "cwe_prefix", NULL, 0, out, err);
    for (size_t i = 0; i < COMMON; i++) {
        mb_text_printf(out, " %zu. ", i + 1);
        put_word(draft->ruler, own->example, i, out);
    }
    mb_text_puts(out, "\n");
    if (rc == MB_OK)
        rc = write_list(draft, own->order, (size_t)n, brief ? 6 : 30, brief ? 1 : 3, out, err);
    return rc;
}

int mb_ruler_cwe_begin(mb_ruler_draft *draft, mb_error *err)
{
    const mb_ruler *ruler = draft->ruler;
    cwe_own *own = draft->own = calloc(1, sizeof *own);
    mb_text prefix = {0};
    if (!own)
        return mb_ruler_memory(err);
    draft->close = cwe_close;
    draft->write = cwe_write;
    draft->least = COMMON + 1;
    own->order = malloc(ruler->pool_count * sizeof *own->order);
    own->example = malloc(ruler->pool_count * sizeof *own->example);
    if (!own->order || !own->example)
        return mb_ruler_memory(err);
    mb_draw_order(&draft->random, own->order, ruler->pool_count);
    mb_draw_order(&draft->random, own->example, ruler->pool_count);
    for (size_t i = 0; i < COMMON; i++) {
        const char *word = ruler->pool[own->order[i]];
        if (!mb_sample_add_answer(draft->sample, word, strlen(word)))
            return mb_ruler_memory(err);
    }
    int rc = mb_ruler_fill(ruler, "cwe_prefix", NULL, 0, &prefix, err);
    return rc < 0 ? rc : mb_ruler_set_prefix(draft, &prefix, err);
}

/* ---- fwe ---- */

typedef struct fwe_own {
    size_t count;           /* words of the vocabulary; entry 0 is "..." */
    char words[][NAME_CAP]; /* by rank */
} fwe_own;

/* Rank k (from 1) of n coded words occurs int(n * k^-2 / zeta(2)) times: Zipf with alpha 2. */
static size_t frequency(int64_t n, size_t k)
{
    return (size_t)((double)n * (1.0 / ((double)k * (double)k)) / ZETA_2);
}

static int fwe_write(mb_ruler_draft *draft, int64_t n, mb_text *out, mb_error *err)
{
    const fwe_own *own = draft->own;
    mb_random random = draft->random;
    size_t count = 0, at = 0;
    mb_text context = {0};
    for (size_t k = 0; k < own->count; k++)
        count += frequency(n, k + 1);
    size_t *list = malloc((count + 1) * sizeof *list), *places = malloc((count + 1) * sizeof *places);
    int rc = MB_OK;
    if (!list || !places) {
        rc = mb_ruler_memory(err);
        goto out;
    }
    for (size_t k = 0; k < own->count; k++)
        for (size_t r = frequency(n, k + 1); r; r--)
            list[at++] = k;
    mb_draw_order(&random, places, count);
    mb_text_append(&context, "", 0);
    for (size_t i = 0; i < count; i++) {
        mb_text_puts(&context, i ? " " : "");
        mb_text_puts(&context, own->words[list[places[i]]]);
    }
    const mb_prompt_pair pairs[] = {{"context", context.data}};
    rc = context.failed ? mb_ruler_memory(err) : mb_ruler_fill(draft->ruler, "fwe", pairs, 1, out, err);
out:
    free(list);
    free(places);
    mb_text_free(&context);
    return rc;
}

int mb_ruler_fwe_begin(mb_ruler_draft *draft, mb_error *err)
{
    int64_t room = (int64_t)draft->length - draft->ruler->row->max_new_tokens;
    size_t count = room > 0 ? (size_t)room / 50 : 0;
    mb_text prefix = {0};
    if (count < 5)
        return mb_fail(err, MB_E_SAMPLE, "sample %s: frequent words need at least 300 tokens of context",
                       draft->sample->key);
    fwe_own *own = draft->own = calloc(1, sizeof *own + count * sizeof *own->words);
    if (!own)
        return mb_ruler_memory(err);
    draft->close = free_own;
    draft->write = fwe_write;
    /* From here on rank 4 is always more frequent than rank 5 (n/16 - n/25 >= zeta(2)): no tie in the answer. */
    draft->least = 74;
    own->count = count;
    memcpy(own->words[0], "...", 4);
    for (size_t i = 1; i < count; i++)
        for (bool again = true; again;) {
            mb_draw_letters(&draft->random, 'a', 6, own->words[i]);
            again = false;
            for (size_t j = 1; j < i && i < 4096; j++) /* later ones are too rare to matter (26^6 words) */
                again = again || strcmp(own->words[i], own->words[j]) == 0;
        }
    for (size_t i = 1; i < 4; i++)
        if (!mb_sample_add_answer(draft->sample, own->words[i], strlen(own->words[i])))
            return mb_ruler_memory(err);
    int rc = mb_ruler_fill(draft->ruler, "fwe_prefix", NULL, 0, &prefix, err);
    return rc < 0 ? rc : mb_ruler_set_prefix(draft, &prefix, err);
}
