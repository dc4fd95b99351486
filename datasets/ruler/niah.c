/*
 * niah.c - RULER's eight needle tasks: keys, values, needles, and the three haystacks (noise lines, essay
 * words, lines of other needles).
 *
 * Order of things as in scripts/data/synthetic/niah.py: all needles are shuffled; in an essay they stand between
 * sentences at depths drawn from 40 even ones; in a haystack of lines each is put before a drawn line.
 */
#include "datasets/ruler/ruler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTHS 40
#define KEY_CAP 128
#define ESSAY_BYTES 700000u /* of built-in text: about the size of the essays of the original needle test */

typedef struct niah_own {
    const char *type; /* "numbers" or "uuids" */
    char **needles;   /* shuffled */
    size_t needle_count;
    char **lines; /* distractors made so far */
    size_t line_count, line_capacity;
    mb_random line_random;
    char *query;
} niah_own;

/* Counts bytes: the built-in essay text must not depend on the model's tokenizer. */
static int encode_bytes(void *self, const char *text, size_t length, int32_t **ids, size_t *n)
{
    (void)self;
    (void)text;
    *ids = NULL;
    *n = length;
    return 0;
}

static int built_in_essay(mb_ruler *ruler, mb_error *err)
{
    const mb_codec bytes = {.encode = encode_bytes};
    mb_haystack *haystack = NULL;
    mb_pieces pieces = {0};
    mb_random random = mb_random_named(0, "ruler/essay"); /* one text for all seeds, like the essays */
    int rc = mb_haystack_open(&haystack, "text", 0, &bytes, err);
    if (rc == MB_OK)
        rc = mb_haystack_fill(haystack, &random, ESSAY_BYTES, &pieces, err);
    for (size_t i = 0; i < pieces.count; i++) {
        mb_text_append(&ruler->essay, " ", i != 0);
        mb_text_append(&ruler->essay, pieces.items[i].text, pieces.items[i].length);
    }
    mb_pieces_free(&pieces);
    mb_haystack_close(haystack);
    return rc;
}

int mb_ruler_niah_open(mb_ruler *ruler, const mb_task_request *request, mb_error *err)
{
    const char *essay = "text";
    (void)request;
    int rc = mb_words_load(&ruler->adjectives, "datasets/text/ruler_adjectives.txt", err);
    if (rc == MB_OK)
        rc = mb_words_load(&ruler->nouns, "datasets/text/ruler_nouns.txt", err);
    if (rc == MB_OK)
        rc = mb_task_keys_string(&ruler->options, "essay", NULL, &essay, err);
    if (rc < 0 || strcmp(ruler->task->haystack, "essay") != 0)
        return rc;
    rc = strcmp(essay, "text") == 0 ? built_in_essay(ruler, err) : mb_essays_read(essay, &ruler->essay, NULL, err);
    if (rc == MB_OK && ruler->essay.failed)
        rc = mb_ruler_memory(err);
    if (rc == MB_OK) {
        ruler->essay.length = mb_text_squeeze(ruler->essay.data, ruler->essay.length);
        mb_hash_bytes(ruler->essay.data, ruler->essay.length, ruler->data_hash);
    }
    return rc;
}

static void draw_text(const mb_ruler *ruler, bool uuid, bool is_key, mb_random *random, char out[KEY_CAP])
{
    if (uuid)
        mb_draw_uuid(random, out);
    else if (!is_key)
        mb_draw_digits(random, 7, out);
    else {
        const char *adjective = mb_words_draw(&ruler->adjectives, random);
        snprintf(out, KEY_CAP, "%s-%s", adjective, mb_words_draw(&ruler->nouns, random));
    }
}

static char *write_needle(const mb_ruler *ruler, const char *type, const char *key, const char *value)
{
    mb_text text = {0};
    const mb_prompt_pair pairs[] = {{"type", type}, {"key", key}, {"value", value}};
    if (mb_ruler_fill(ruler, "needle", pairs, 3, &text, NULL) < 0) {
        mb_text_free(&text);
        return NULL;
    }
    return mb_text_take(&text);
}

static void niah_close(mb_ruler_draft *draft)
{
    niah_own *own = draft->own;
    for (size_t i = 0; i < own->needle_count; i++)
        free(own->needles[i]);
    for (size_t i = 0; i < own->line_count; i++)
        free(own->lines[i]);
    free(own->needles);
    free(own->lines);
    free(own->query);
    free(own);
    draft->own = NULL;
}

/* Distractors come one after another from a stream of their own, so that a larger haystack extends a smaller. */
static int need_lines(mb_ruler_draft *draft, size_t n, mb_error *err)
{
    niah_own *own = draft->own;
    const mb_ruler *ruler = draft->ruler;
    if (n > own->line_capacity) {
        size_t capacity = n + n / 2;
        char **more = realloc(own->lines, capacity * sizeof *more);
        if (!more)
            return mb_ruler_memory(err);
        own->lines = more;
        own->line_capacity = capacity;
    }
    while (own->line_count < n) {
        char key[KEY_CAP], value[KEY_CAP];
        draw_text(ruler, ruler->task->uuid_keys, true, &own->line_random, key);
        draw_text(ruler, ruler->task->uuid_values, false, &own->line_random, value);
        char *line = write_needle(ruler, own->type, key, value);
        if (!line)
            return mb_ruler_memory(err);
        own->lines[own->line_count++] = line;
    }
    return MB_OK;
}

/* n lines of noise or of other needles; each needle before a drawn line, joined by newlines. */
static int write_lines(mb_ruler_draft *draft, size_t n, mb_text *out, mb_error *err)
{
    niah_own *own = draft->own;
    bool noise = draft->ruler->task->haystack[0] == 'n' && draft->ruler->task->haystack[1] == 'o';
    const char *noise_line = mb_json_string(draft->ruler->prompts, "noise");
    mb_random random = draft->random;
    size_t at[8];
    int rc = noise ? MB_OK : need_lines(draft, n, err);
    if (rc < 0)
        return rc;
    mb_draw_sorted(&random, n, own->needle_count, at);
    for (size_t line = 0, next = 0; line < n; line++) {
        if (next < own->needle_count && at[next] == line) {
            /* official: from the highest index down, the first needle goes to the highest */
            mb_text_puts(out, own->needles[own->needle_count - 1 - next++]);
            mb_text_puts(out, "\n");
        }
        mb_text_puts(out, noise ? noise_line : own->lines[line]);
        if (line + 1 < n)
            mb_text_puts(out, "\n");
    }
    return MB_OK;
}

/* The first n words of the essay, which begins again at its end, into a text of its own. */
static size_t first_words(const mb_text *essay, size_t n, mb_text *out)
{
    size_t at = 0, start = 0;
    while (n) {
        while (at < essay->length && essay->data[at] != ' ')
            at++;
        n--;
        if (at == essay->length || !n) {
            if (out->length)
                mb_text_append(out, " ", 1);
            mb_text_append(out, essay->data + start, at - start);
            at = start = 0;
        } else
            at++;
    }
    return out->length;
}

/* n essay words, cut into sentences, needles between them at drawn depths. */
static int write_essay(mb_ruler_draft *draft, size_t n, mb_text *out, mb_error *err)
{
    niah_own *own = draft->own;
    mb_random random = draft->random;
    mb_text words = {0};
    size_t length = first_words(&draft->ruler->essay, n, &words), sentences = 0, at[8], cut[8];
    if (words.failed) {
        mb_text_free(&words);
        return mb_ruler_memory(err);
    }
    for (size_t start = 0; start < length; sentences++) {
        size_t end = mb_sentence_end(words.data, length, start);
        start = end + (end < length);
    }
    mb_draw_sorted(&random, DEPTHS, own->needle_count, at);
    for (size_t i = 0; i < own->needle_count; i++) /* rint(linspace(0, 100, 40)) percent of the sentences */
        cut[i] = sentences * (size_t)nearbyint(100.0 * (double)at[i] / (DEPTHS - 1)) / 100;
    size_t start = 0, index = 0;
    for (size_t i = 0; i <= own->needle_count; i++) {
        size_t to = i < own->needle_count ? cut[i] : sentences, from = start, end = start;
        for (; index < to; index++) {
            end = mb_sentence_end(words.data, length, start);
            start = end + (end < length);
        }
        if (i)
            mb_text_append(out, " ", 1);
        mb_text_append(out, words.data + from, end > from ? end - from : 0);
        if (i < own->needle_count) {
            mb_text_append(out, " ", 1);
            mb_text_puts(out, own->needles[i]);
        }
    }
    mb_text_free(&words);
    return MB_OK;
}

static int niah_write(mb_ruler_draft *draft, int64_t n, mb_text *out, mb_error *err)
{
    niah_own *own = draft->own;
    const mb_ruler_task *task = draft->ruler->task;
    bool one = task->queries * task->values == 1;
    mb_text context = {0};
    mb_text_append(&context, "", 0);
    int rc = strcmp(task->haystack, "essay") == 0 ? write_essay(draft, (size_t)n, &context, err)
                                                  : write_lines(draft, (size_t)n, &context, err);
    if (rc == MB_OK && context.failed)
        rc = mb_ruler_memory(err);
    if (rc == MB_OK) {
        const char *noun = one ? (task->uuid_values ? "uuid" : "number") : own->type;
        const mb_prompt_pair pairs[] = {{"type", noun}, {"query", own->query}, {"context", context.data}};
        rc = mb_ruler_fill(draft->ruler, one ? "niah_one" : "niah_all", pairs, 3, out, err);
    }
    mb_text_free(&context);
    return rc;
}

/* Keys, values and the needles that tell them, in a random order. */
static int draw_needles(mb_ruler_draft *draft, size_t keys, char key[4][KEY_CAP], char value[4][4][KEY_CAP])
{
    const mb_ruler *ruler = draft->ruler;
    const mb_ruler_task *task = ruler->task;
    niah_own *own = draft->own;
    size_t order[16], count = keys * task->values;
    own->needles = calloc(count, sizeof *own->needles);
    if (!own->needles)
        return MB_E_SYSTEM;
    for (size_t k = 0; k < keys; k++) {
        draw_text(ruler, task->uuid_keys, true, &draft->random, key[k]);
        for (size_t v = 0; v < task->values; v++)
            draw_text(ruler, task->uuid_values, false, &draft->random, value[k][v]);
    }
    mb_draw_order(&draft->random, order, count);
    for (size_t i = 0; i < count; i++) {
        size_t k = order[i] / task->values, v = order[i] % task->values;
        own->needles[own->needle_count] = write_needle(ruler, own->type, key[k], value[k][v]);
        if (!own->needles[own->needle_count])
            return MB_E_SYSTEM;
        own->needle_count++;
    }
    return MB_OK;
}

/* What is asked for, the first `queries` keys of a random order, and the answers. */
static int draw_question(mb_ruler_draft *draft, size_t keys, char key[4][KEY_CAP], char value[4][4][KEY_CAP])
{
    const mb_ruler_task *task = draft->ruler->task;
    niah_own *own = draft->own;
    mb_text query = {0};
    size_t asked[4];
    bool good = true;
    mb_draw_order(&draft->random, asked, keys);
    for (size_t i = 0; i < task->queries; i++) {
        mb_text_printf(&query, "%s%s", !i ? "" : i + 1 == task->queries ? ", and " : ", ", key[asked[i]]);
        for (size_t v = 0; v < task->values; v++)
            good = good && mb_sample_add_answer(draft->sample, value[asked[i]][v], strlen(value[asked[i]][v]));
    }
    own->query = mb_text_take(&query);
    return good && own->query ? MB_OK : MB_E_SYSTEM;
}

int mb_ruler_niah_begin(mb_ruler_draft *draft, mb_error *err)
{
    const mb_ruler *ruler = draft->ruler;
    const mb_ruler_task *task = ruler->task;
    size_t keys = task->keys > task->queries ? task->keys : task->queries;
    char key[4][KEY_CAP], value[4][4][KEY_CAP];
    mb_text prefix = {0};
    niah_own *own = calloc(1, sizeof *own);
    draft->own = own;
    if (!own)
        return mb_ruler_memory(err);
    draft->close = niah_close;
    draft->write = niah_write;
    own->type = task->uuid_values ? "uuids" : "numbers";
    if (draw_needles(draft, keys, key, value) < 0 || draw_question(draft, keys, key, value) < 0)
        return mb_ruler_memory(err);
    own->line_random = draft->random;
    mb_random_next(&draft->random);
    own->line_random.state ^= UINT64_C(0x9e3779b97f4a7c15) >> 3; /* distractors and positions: two streams */
    draft->least = (int64_t)(strcmp(task->haystack, "essay") == 0 ? 1 : own->needle_count);
    bool one = task->queries * task->values == 1;
    const mb_prompt_pair pairs[] = {{"type", one ? (task->uuid_values ? "uuid" : "number") : own->type},
                                    {"query", own->query}};
    int rc = mb_ruler_fill(ruler, one ? "niah_one_prefix" : "niah_all_prefix", pairs, 2, &prefix, err);
    return rc < 0 ? rc : mb_ruler_set_prefix(draft, &prefix, err);
}
