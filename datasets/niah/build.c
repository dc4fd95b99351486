/*
 * build.c - one sample with the built-in needles: what is hidden, where, and the filler that makes the prompt
 * exactly as long as asked.
 *
 * Lengths are met by counting sentence by sentence and then measuring the whole prompt once: a tokenizer may merge
 * across the joints, and the difference is given back to the filler. A prompt over the length is never returned.
 */
#include "datasets/niah/niah.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_CAP 96
#define ROUNDS 8 /* refills until the measured length fits */

typedef struct needle {
    char key[KEY_CAP], value[KEY_CAP];
    char *text;
    mb_piece piece;
} needle;

/* Everything that one sample needs while it is made. */
typedef struct draft {
    mb_niah *niah;
    const cJSON *form;
    mb_random random;     /* needles: its own stream for every cell */
    unsigned char *taken; /* one bit for each adjective-noun pair */
    needle *needles;      /* asked ones first */
    size_t needle_count, needle_capacity;
    char *query; /* the keys as they stand in the question */
} draft;

static void draw_key(draft *d, char out[KEY_CAP])
{
    const mb_words *a = &d->niah->adjectives, *n = &d->niah->nouns;
    for (size_t tries = 0; tries < 64; tries++) {
        size_t i = (size_t)mb_random_below(&d->random, a->count),
               j = (size_t)mb_random_below(&d->random, n->count);
        size_t bit = i * n->count + j;
        if (d->taken[bit / 8] & (1u << bit % 8))
            continue;
        d->taken[bit / 8] |= (unsigned char)(1u << bit % 8);
        snprintf(out, KEY_CAP, "%s-%s", a->items[i], n->items[j]);
        return;
    }
    /* Nearly all pairs are used up (contexts of millions of tokens): words of our own go on. */
    char word[MB_PSEUDO_CAP], second[MB_PSEUDO_CAP];
    mb_draw_pseudo(&d->random, word);
    mb_draw_pseudo(&d->random, second);
    snprintf(out, KEY_CAP, "%s-%s", word, second);
}

static void draw_value(draft *d, char out[KEY_CAP])
{
    const char *form = d->niah->form;
    char pseudo[MB_PSEUDO_CAP];
    if (strcmp(form, "word") == 0) {
        if (mb_random_below(&d->random, 2)) {
            mb_draw_pseudo(&d->random, pseudo);
            snprintf(out, KEY_CAP, "%s", pseudo);
        } else { /* one draw a statement: the order of a call's arguments is the compiler's */
            const char *adjective = mb_words_draw(&d->niah->adjectives, &d->random);
            snprintf(out, KEY_CAP, "%s %s", adjective, mb_words_draw(&d->niah->nouns, &d->random));
        }
    } else if (strcmp(form, "uuid") == 0) {
        mb_draw_hex(&d->random, 9, out);
        out[4] = '-';
    } else
        mb_draw_digits(&d->random, 7, out);
}

/* Draws one needle. Asked ones may share the first key; no two needles share a value that is asked for. */
static int add_needle(draft *d, bool asked, mb_error *err)
{
    if (d->needle_count == d->needle_capacity) {
        size_t capacity = d->needle_capacity ? 2 * d->needle_capacity : 64;
        needle *more = realloc(d->needles, capacity * sizeof *more);
        if (!more)
            return mb_no_memory(err, "%zu needles", capacity);
        d->needles = more;
        d->needle_capacity = capacity;
    }
    needle *n = &d->needles[d->needle_count];
    *n = (needle){0};
    if (asked && d->niah->one_key && d->needle_count)
        memcpy(n->key, d->needles[0].key, KEY_CAP);
    else
        draw_key(d, n->key);
    size_t asked_count = (size_t)d->niah->asked;
    for (bool again = true; again;) {
        draw_value(d, n->value);
        again = false;
        for (size_t i = 0; i < d->needle_count && i < asked_count; i++)
            again = again || strcmp(n->value, d->needles[i].value) == 0;
    }
    mb_text text = {0};
    const mb_prompt_pair pairs[] = {{"key", n->key}, {"value", n->value}};
    const char *wording = mb_json_string(d->form, "needle");
    mb_text_puts(&text, " ");
    mb_prompt_fill(&text, wording, strlen(wording), pairs, 2, false);
    size_t length = text.length;
    n->text = mb_text_take(&text);
    if (!n->text)
        return mb_no_memory(err, "a needle");
    d->needle_count++;
    int64_t tokens = mb_codec_count(d->niah->codec, n->text, length, err);
    if (tokens < 0)
        return (int)tokens;
    n->piece = (mb_piece){n->text + 1, (uint32_t)(length - 1), (int32_t)tokens};
    return MB_OK;
}

/* "a", or "a, b, and c" (two keys: "a, and b", as RULER joins them). */
static char *join_keys(const draft *d)
{
    mb_text text = {0};
    size_t n = d->niah->one_key ? 1 : (size_t)d->niah->asked;
    for (size_t i = 0; i < n; i++)
        mb_text_printf(&text, "%s%s", !i ? "" : i + 1 == n ? ", and " : ", ", d->needles[i].key);
    return mb_text_take(&text);
}

/* Intro, haystack and question around the given sentences. */
static int write_prompt(const draft *d, const mb_pieces *pieces, mb_text *out, mb_error *err)
{
    const mb_niah *niah = d->niah;
    bool all = niah->asked > 1;
    mb_text haystack = {0}, intro = {0}, question = {0};
    const char *noun = mb_json_string(d->form, "noun"), *kind = mb_json_string(d->form, "intro");
    const char *opening =
        mb_json_string(niah->prompts, !all && strcmp(kind, "one") == 0 ? "intro_one" : "intro_facts");
    const char *asks = mb_json_string(d->form, all ? "question_all" : "question");
    const char *layout = mb_json_string(niah->prompts, "prompt");
    const mb_prompt_pair nouns[] = {{"noun", noun}}, keys[] = {{"key", d->query}};
    mb_prompt_fill(&intro, opening, strlen(opening), nouns, 1, false);
    mb_prompt_fill(&question, asks, strlen(asks), keys, 1, false);
    mb_text_append(&haystack, "", 0);
    for (size_t i = 0; i < pieces->count; i++) {
        mb_text_append(&haystack, " ", 1);
        mb_text_append(&haystack, pieces->items[i].text, pieces->items[i].length);
    }
    mb_text_clear(out);
    if (!haystack.failed && !intro.failed && !question.failed) {
        const mb_prompt_pair parts[] = {
            {"intro", intro.data}, {"haystack", haystack.data}, {"question", question.data}};
        mb_prompt_fill(out, layout, strlen(layout), parts, 3, false);
    } else
        out->failed = true;
    mb_text_free(&haystack);
    mb_text_free(&intro);
    mb_text_free(&question);
    return out->failed ? mb_no_memory(err, "a prompt") : MB_OK;
}

/* Index of the last boundary whose text before it is at most depth percent of all tokens. */
static size_t boundary(const mb_pieces *pieces, double depth)
{
    double target = (double)pieces->tokens * depth / 100.0;
    int64_t before = 0;
    size_t at = 0;
    while (at < pieces->count && (double)(before + pieces->items[at].tokens) <= target)
        before += pieces->items[at++].tokens;
    return at;
}

/* Filler up to budget, the other needles scattered, the asked ones at the depth (and further on, as in the
 * original's multi-needle test: each next one a k-th of the rest deeper, measured on the text as it has grown). */
static int lay_out(draft *d, const char *fill_stream, int64_t budget, double depth, mb_pieces *pieces,
                   mb_error *err)
{
    mb_niah *niah = d->niah;
    size_t asked = (size_t)niah->asked;
    mb_random fill = mb_random_named(niah->seed, fill_stream), scatter = d->random;
    int rc = MB_OK;
    pieces->count = 0;
    pieces->tokens = 0;
    if (niah->haystack)
        rc = mb_haystack_fill(niah->haystack, &fill, budget, pieces, err);
    for (size_t i = asked; i < d->needle_count && rc == MB_OK; i++) {
        const mb_piece *piece = &d->needles[i].piece;
        size_t at = pieces->count; /* a haystack of needles keeps their order */
        if (niah->haystack)
            at = (size_t)mb_random_below(&scatter, pieces->count + 1);
        else if (pieces->tokens + piece->tokens > budget)
            break;
        rc = mb_pieces_insert(pieces, at, piece);
    }
    double step = (100.0 - depth) / (double)asked;
    for (size_t i = 0; i < asked && rc == MB_OK; i++)
        rc = mb_pieces_insert(pieces, boundary(pieces, depth + step * (double)i), &d->needles[i].piece);
    return rc == MB_E_SYSTEM ? mb_fail(err, rc, "no memory for the haystack") : rc;
}

/* Draws the needles; a haystack of needles gets as many as fit the length. */
static int draw_needles(draft *d, int64_t room, mb_error *err)
{
    mb_niah *niah = d->niah;
    int64_t tokens = 0;
    for (int64_t i = 0; i < niah->asked + niah->keys || (!niah->haystack && tokens < room); i++) {
        int rc = add_needle(d, i < niah->asked, err);
        if (rc < 0)
            return rc;
        int32_t n = d->needles[d->needle_count - 1].piece.tokens;
        tokens += n > 0 ? n : 1;
    }
    d->query = join_keys(d);
    return d->query ? MB_OK : mb_no_memory(err, "the question");
}

/* Tokens of the needles that are not filler. */
static int64_t needle_tokens(const draft *d)
{
    int64_t tokens = 0;
    for (size_t i = 0; i < d->needle_count; i++)
        if (d->niah->haystack || i < (size_t)d->niah->asked)
            tokens += d->needles[i].piece.tokens;
    return tokens;
}

/* A prompt with `budget` tokens of haystack into text; its tokens, or negative. */
static int64_t try_budget(draft *d, const mb_niah_cell *cell, const char *prefix, int64_t budget,
                          mb_pieces *pieces, mb_text *text, mb_error *err)
{
    char stream[64];
    snprintf(stream, sizeof stream, "niah/len%d/%lld", cell->length, (long long)cell->number);
    int rc = lay_out(d, stream, budget, cell->depth, pieces, err);
    if (rc == MB_OK)
        rc = write_prompt(d, pieces, text, err);
    return rc < 0 ? rc
                  : mb_codec_measure(d->niah->codec, d->niah->overhead, text->data, text->length, prefix, err);
}

/* The longest prompt of at most `limit` tokens into prompt; its tokens into *tokens. */
static int fit(draft *d, const mb_niah_cell *cell, const char *prefix, int64_t limit, mb_text *prompt,
               int64_t *tokens, mb_error *err)
{
    mb_pieces pieces = {0};
    mb_text text = {0};
    int64_t fixed = needle_tokens(d), best = -1;
    int rc = write_prompt(d, &pieces, &text, err);
    int64_t frame =
        rc < 0 ? rc : mb_codec_measure(d->niah->codec, d->niah->overhead, text.data, text.length, prefix, err);
    if (frame < 0) {
        rc = (int)frame;
        goto out;
    }
    int64_t budget = limit - frame - fixed;
    for (size_t round = 0; round < ROUNDS && budget >= 0; round++) {
        int64_t n = try_budget(d, cell, prefix, budget, &pieces, &text, err);
        if (n < 0) {
            rc = (int)n;
            goto out;
        }
        if (n <= limit && n > best) {
            mb_text keep = *prompt;
            *prompt = text;
            text = keep;
            best = n;
        }
        int64_t joints = n - frame - pieces.tokens; /* what the joints cost or saved */
        if (best == limit || (joints == 0 && n <= limit))
            break;
        budget = limit - frame - fixed - joints - (n > limit && joints <= 0 ? n - limit : 0);
    }
    if (best < 0)
        rc =
            mb_fail(err, MB_E_SAMPLE,
                    "sample %s: %d tokens cannot hold the chat wrapper, the question, %zu needles (%lld tokens in "
                    "all) and %lld new tokens; ask for a longer context",
                    cell->key, cell->length, d->needle_count, (long long)(frame + fixed),
                    (long long)d->niah->max_new_tokens);
    *tokens = best;
out:
    mb_pieces_free(&pieces);
    mb_text_free(&text);
    return rc;
}

int mb_niah_build(mb_niah *niah, const mb_niah_cell *cell, mb_sample *sample, mb_error *err)
{
    draft d = {.niah = niah};
    mb_text prompt = {0}, prefix = {0}, stream = {0};
    int64_t limit = cell->length - niah->max_new_tokens, tokens = 0;
    int rc = MB_E_SYSTEM;
    const cJSON *forms = mb_json_member(niah->prompts, "forms");
    d.form = mb_json_member(forms, niah->form);
    d.taken = calloc(niah->adjectives.count * niah->nouns.count / 8 + 1, 1);
    mb_text_printf(&stream, "%s/%s/%s", niah->row->name, niah->form, cell->key);
    mb_text_append(&prefix, "", 0);
    if (!d.taken || stream.failed || prefix.failed) {
        mb_fail(err, rc, "no memory for sample %s", cell->key);
        goto out;
    }
    d.random = mb_random_named(niah->seed, stream.data);
    rc = draw_needles(&d, limit, err);
    if (rc < 0)
        goto out;
    if (niah->answer_prefix) {
        const mb_prompt_pair keys[] = {{"key", d.query}};
        const char *wording = mb_json_string(d.form, niah->asked > 1 ? "answer_all" : "answer");
        mb_prompt_fill(&prefix, wording, strlen(wording), keys, 1, false);
    }
    rc = fit(&d, cell, prefix.data, limit, &prompt, &tokens, err);
    if (rc < 0)
        goto out;
    free(sample->answer_prefix);
    sample->answer_prefix = mb_text_take(&prefix);
    sample->prompt = mb_text_take(&prompt);
    sample->length = tokens;
    bool good = sample->answer_prefix && sample->prompt;
    for (size_t i = 0; i < (size_t)niah->asked; i++)
        good = good && mb_sample_add_answer(sample, d.needles[i].value, strlen(d.needles[i].value));
    if (!good)
        rc = mb_no_memory(err, "sample %s", cell->key);
out:
    for (size_t i = 0; i < d.needle_count; i++)
        free(d.needles[i].text);
    free(d.needles);
    free(d.taken);
    free(d.query);
    mb_text_free(&prompt);
    mb_text_free(&prefix);
    mb_text_free(&stream);
    return rc;
}
