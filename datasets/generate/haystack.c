/*
 * haystack.c - filler sentences for needle tests: the built-in text, RULER's noise, or the user's essays.
 *
 * The built-in text comes from a phrase table (datasets/text/haystack.txt; its head explains the format). Sentence
 * i of a topic is a function of (seed, topic, i) alone and is made and counted on first use, so that a long
 * context costs two encodings of its text and later samples mostly one. Runs of 5 to 12 sentences share a topic.
 */
#include "datasets/generate/generate.h"

#include <stdlib.h>
#include <string.h>

#define TABLE "datasets/text/haystack.txt"
#define TOPIC_SENTENCES 4096u /* sentences of one topic before they come again: 15 topics hold 1M tokens */
#define TOPICS_MAX 32
#define RECENT 6          /* patterns that must not come again at once */
#define CLOSING_TRIES 400 /* draws for a last sentence that fits exactly */

typedef struct phrase_list {
    size_t topic; /* 0 = [general] */
    const char *name;
    size_t name_length;
    const char **entries;
    size_t count;
} phrase_list;

typedef struct topic {
    const char *name; /* NUL-terminated inside the table */
    const char **patterns;
    size_t pattern_count;
    mb_piece *made;         /* [TOPIC_SENTENCES], text NULL until first used */
    const char **made_from; /* the pattern of each */
} topic;

struct mb_haystack {
    const mb_codec *codec;
    uint64_t seed;
    bool built_in;
    int64_t mean; /* tokens of a built-in sentence, 0 = not measured yet */
    char *text;   /* the phrase table cut into strings, or the essays */
    topic topics[TOPICS_MAX];
    size_t topic_count;
    phrase_list *lists;
    size_t list_count;
    mb_piece *sentences; /* essays and noise: in order, tokens -1 until counted */
    size_t sentence_count;
    char hash[MB_HASH_CAP];
};

int mb_pieces_insert(mb_pieces *pieces, size_t at, const mb_piece *piece)
{
    if (pieces->count == pieces->capacity) {
        size_t capacity = pieces->capacity ? 2 * pieces->capacity : 256;
        mb_piece *more = realloc(pieces->items, capacity * sizeof *more);
        if (!more)
            return MB_E_SYSTEM;
        pieces->items = more;
        pieces->capacity = capacity;
    }
    memmove(pieces->items + at + 1, pieces->items + at, (pieces->count - at) * sizeof *pieces->items);
    pieces->items[at] = *piece;
    pieces->count++;
    pieces->tokens += piece->tokens;
    return MB_OK;
}

void mb_pieces_free(mb_pieces *pieces)
{
    free(pieces->items);
    *pieces = (mb_pieces){0};
}

/* ---- the phrase table ---- */

static int push(const char ***items, size_t *count, const char *item)
{
    if ((*count & (*count - 1)) == 0) { /* grows at powers of two */
        const char **more = realloc(*items, (*count ? 2 * *count : 1) * sizeof *more);
        if (!more)
            return MB_E_SYSTEM;
        *items = more;
    }
    (*items)[(*count)++] = item;
    return MB_OK;
}

/* "name: a | b" into a list of the current topic. */
static int parse_list(mb_haystack *h, char *line, char *colon)
{
    phrase_list *more = realloc(h->lists, (h->list_count + 1) * sizeof *more);
    if (!more)
        return MB_E_SYSTEM;
    h->lists = more;
    phrase_list *list = &h->lists[h->list_count++];
    *list = (phrase_list){.topic = h->topic_count - 1, .name = line, .name_length = (size_t)(colon - line)};
    for (char *entry = colon + 1; entry;) {
        char *bar = strchr(entry, '|');
        char *end = bar ? bar : entry + strlen(entry);
        while (*entry == ' ')
            entry++;
        while (end > entry && end[-1] == ' ')
            end--;
        *end = '\0';
        if (push(&list->entries, &list->count, entry) < 0)
            return MB_E_SYSTEM;
        entry = bar ? bar + 1 : NULL;
    }
    return MB_OK;
}

static int parse_line(mb_haystack *h, char *line, size_t number, mb_error *err)
{
    size_t n = strlen(line);
    int rc = MB_E_BUG;
    if (!n || *line == '#')
        return MB_OK;
    if (*line == '[' && line[n - 1] == ']' && h->topic_count < TOPICS_MAX) {
        line[n - 1] = '\0';
        h->topics[h->topic_count++].name = line + 1;
        return MB_OK;
    }
    char *colon = strchr(line, ':');
    if (h->topic_count && n > 2 && line[0] == '=' && line[1] == ' ') {
        topic *t = &h->topics[h->topic_count - 1];
        rc = push(&t->patterns, &t->pattern_count, line + 2);
    } else if (h->topic_count && colon)
        rc = parse_list(h, line, colon);
    if (rc == MB_E_SYSTEM)
        return mb_fail(err, rc, "no memory for " TABLE);
    return rc < 0 ? mb_fail(err, rc, TABLE ":%zu: no topic, list or sentence", number) : MB_OK;
}

static int parse_table(mb_haystack *h, mb_error *err)
{
    size_t size = 0, number = 0;
    const char *table = mb_embedded_find(TABLE, &size);
    if (!table)
        return mb_fail(err, MB_E_BUG, TABLE " is not compiled into the program");
    h->text = malloc(size + 1);
    if (!h->text)
        return mb_fail(err, MB_E_SYSTEM, "no memory for " TABLE);
    memcpy(h->text, table, size + 1);
    mb_hash_bytes(table, size, h->hash);
    for (char *line = h->text; line;) {
        char *end = strchr(line, '\n');
        if (end)
            *end = '\0';
        int rc = parse_line(h, line, ++number, err);
        if (rc < 0)
            return rc;
        line = end ? end + 1 : NULL;
    }
    for (size_t i = 1; i < h->topic_count; i++) {
        h->topics[i].made = calloc(TOPIC_SENTENCES, sizeof *h->topics[i].made);
        h->topics[i].made_from = calloc(TOPIC_SENTENCES, sizeof *h->topics[i].made_from);
        if (!h->topics[i].made || !h->topics[i].made_from)
            return mb_no_memory(err, "the built-in haystack");
    }
    return h->topic_count > 1 ? MB_OK : mb_fail(err, MB_E_BUG, TABLE " has no topics");
}

/* The topic's own list of that name, else the general one. */
static const phrase_list *find_list(const mb_haystack *h, size_t at, const char *name, size_t length)
{
    const phrase_list *general = NULL;
    for (size_t i = 0; i < h->list_count; i++) {
        const phrase_list *list = &h->lists[i];
        if (list->name_length != length || memcmp(list->name, name, length) != 0)
            continue;
        if (list->topic == at)
            return list;
        if (list->topic == 0)
            general = list;
    }
    return general;
}

/* Fills one pattern. Entries used once in the sentence are not used again. */
static int write_sentence(const mb_haystack *h, size_t at, const char *pattern, mb_random *random, mb_text *out,
                          mb_error *err)
{
    const char *used[16];
    size_t used_count = 0, start = out->length;
    for (const char *c = pattern; *c;) {
        const char *close = *c == '{' ? strchr(c, '}') : NULL;
        if (!close) {
            mb_text_append(out, c++, 1);
            continue;
        }
        bool article = strncmp(c, "{a ", 3) == 0;
        const char *name = c + (article ? 3 : 1);
        const phrase_list *list = find_list(h, at, name, (size_t)(close - name));
        if (!list || used_count == sizeof used / sizeof *used)
            return mb_fail(err, MB_E_BUG, TABLE ": no list for a place of \"%s\"", pattern);
        size_t pick = (size_t)mb_random_below(random, list->count);
        for (size_t i = 0; i < used_count && used_count < list->count;)
            if (used[i] == list->entries[pick]) { /* the next one that is free */
                pick = (pick + 1) % list->count;
                i = 0;
            } else
                i++;
        const char *entry = list->entries[pick];
        used[used_count++] = entry;
        if (article)
            mb_text_puts(out, strchr("aeiou", *entry) ? "an " : "a ");
        mb_text_puts(out, entry);
        c = close + 1;
    }
    if (!out->failed && out->data[start] >= 'a' && out->data[start] <= 'z')
        out->data[start] = (char)(out->data[start] - 'a' + 'A');
    return MB_OK;
}

/* Counts a sentence as it stands in the haystack: with the blank in front. */
static int count_piece(const mb_haystack *h, mb_piece *piece, mb_error *err)
{
    char *text = mb_string_format(" %.*s", (int)piece->length, piece->text);
    if (!text)
        return mb_no_memory(err, "a haystack sentence");
    int64_t n = mb_codec_count(h->codec, text, piece->length + 1, err);
    free(text);
    if (n < 0)
        return (int)n;
    piece->tokens = (int32_t)n;
    return MB_OK;
}

static int built_in_sentence(mb_haystack *h, size_t at, size_t index, const mb_piece **piece, mb_error *err)
{
    topic *t = &h->topics[at];
    mb_piece *made = &t->made[index];
    *piece = made;
    if (made->text)
        return MB_OK;
    char name[96];
    mb_text text = {0}, stream = {0};
    mb_text_printf(&stream, "haystack/%s/%zu", t->name, index);
    size_t n = stream.length < sizeof name ? stream.length : sizeof name - 1;
    memcpy(name, stream.data ? stream.data : "", stream.data ? n : 0);
    name[stream.data ? n : 0] = '\0';
    mb_text_free(&stream);
    mb_random random = mb_random_named(h->seed, name);
    /* Half of the sentences are the topic's own patterns, half the general ones. */
    const topic *from = mb_random_below(&random, 2) ? t : &h->topics[0];
    const char *pattern = from->patterns[mb_random_below(&random, from->pattern_count)];
    int rc = write_sentence(h, at, pattern, &random, &text, err);
    size_t length = text.length;
    char *sentence = mb_text_take(&text);
    if (rc == MB_OK && !sentence)
        rc = mb_no_memory(err, "a haystack sentence");
    mb_piece fresh = {.text = sentence, .length = (uint32_t)length};
    if (rc == MB_OK)
        rc = count_piece(h, &fresh, err);
    if (rc < 0) {
        free(sentence);
        return rc;
    }
    *made = fresh;
    t->made_from[index] = pattern;
    return MB_OK;
}

/* ---- essays and noise: sentences in order ---- */

static int cut_sentences(mb_haystack *h, size_t length, mb_error *err)
{
    size_t count = 0;
    for (size_t pass = 0; pass < 2; pass++) {
        count = 0;
        for (size_t start = 0; start < length;) {
            size_t end = mb_sentence_end(h->text, length, start);
            if (pass)
                h->sentences[count] = (mb_piece){h->text + start, (uint32_t)(end - start), -1};
            count++;
            start = end + (end < length && h->text[end] == ' ');
        }
        if (!pass && !(h->sentences = calloc(count ? count : 1, sizeof *h->sentences)))
            return mb_no_memory(err, "the sentences of the haystack");
    }
    h->sentence_count = count;
    return MB_OK;
}

int mb_haystack_open(mb_haystack **haystack, const char *kind, uint64_t seed, const mb_codec *codec, mb_error *err)
{
    mb_haystack *h = calloc(1, sizeof *h);
    mb_text text = {0};
    mb_hash *hash = mb_hash_new();
    int rc = MB_OK;
    *haystack = NULL;
    if (!h || !hash) {
        rc = mb_no_memory(err, "the haystack");
        goto out;
    }
    h->codec = codec;
    h->seed = seed;
    h->built_in = strcmp(kind, "text") == 0;
    if (h->built_in) {
        rc = parse_table(h, err);
        goto out;
    }
    if (strcmp(kind, "noise") == 0) {
        cJSON *prompts = NULL;
        rc = mb_prompts_load("ruler.json", &prompts, err);
        const char *noise = prompts ? mb_json_string(prompts, "noise") : NULL;
        if (noise)
            mb_text_puts(&text, noise);
        mb_hash_add(hash, "noise", 5);
        cJSON_Delete(prompts);
    } else
        rc = mb_essays_read(kind, &text, hash, err);
    if (rc < 0)
        goto out;
    size_t length = mb_text_squeeze(text.data, text.length);
    h->text = mb_text_take(&text);
    rc = cut_sentences(h, length, err);
out:
    if (hash) {
        char hex[MB_HASH_CAP];
        mb_hash_end(hash, hex);
        if (h && !h->built_in)
            memcpy(h->hash, hex, sizeof hex);
    }
    mb_text_free(&text);
    if (rc < 0)
        mb_haystack_close(h);
    else
        *haystack = h;
    return rc;
}

/* Mean tokens of a sentence, from the first of each topic: the scale of the closing phase below. */
static int measure_mean(mb_haystack *h, mb_error *err)
{
    int64_t sum = 0;
    const mb_piece *piece;
    for (size_t at = 1; at < h->topic_count; at++) {
        int rc = built_in_sentence(h, at, 0, &piece, err);
        if (rc < 0)
            return rc;
        sum += piece->tokens;
    }
    h->mean = sum / (int64_t)(h->topic_count - 1);
    return MB_OK;
}

static int fill_built_in(mb_haystack *h, mb_random *random, int64_t left, mb_pieces *out, mb_error *err)
{
    size_t at = 0, run = 0, tries = 0, recent_at = 0;
    const char *recent[RECENT] = {0};
    const mb_piece *piece, *best = NULL;
    int rc = h->mean ? MB_OK : measure_mean(h, err);
    const int64_t mean = h->mean;
    while (rc == MB_OK && left > 0 && tries < CLOSING_TRIES) {
        if (!run) {
            at = 1 + (size_t)mb_random_below(random, h->topic_count - 1);
            run = 5 + (size_t)mb_random_below(random, 8);
        }
        size_t index = (size_t)mb_random_below(random, TOPIC_SENTENCES);
        rc = built_in_sentence(h, at, index, &piece, err);
        if (rc < 0)
            break;
        bool again = false;
        for (size_t i = 0; i < RECENT; i++)
            again = again || recent[i] == h->topics[at].made_from[index];
        if (again && tries == 0)
            continue;
        /* Near the end a sentence must leave either nothing or room for another one of common length. The closing
         * draws stay in the topic, so that few sentences are made only to be passed over. */
        int64_t rest = left - piece->tokens;
        if (rest != 0 && (rest < mean * 9 / 10 || left <= mean * 13 / 10)) {
            tries++;
            if (rest > 0 && (!best || piece->tokens > best->tokens))
                best = piece;
            continue;
        }
        run--;
        best = NULL;
        left = rest;
        recent[recent_at++ % RECENT] = h->topics[at].made_from[index];
        rc = mb_pieces_insert(out, out->count, piece);
    }
    if (rc == MB_OK && left > 0 && best)
        rc = mb_pieces_insert(out, out->count, best);
    return rc == MB_E_SYSTEM ? mb_fail(err, rc, "no memory for the haystack") : rc;
}

/* Essays start at a random sentence and go round; noise starts at its first. */
static int fill_in_order(mb_haystack *h, mb_random *random, int64_t left, mb_pieces *out, mb_error *err)
{
    size_t at = h->sentence_count > 5 ? (size_t)mb_random_below(random, h->sentence_count) : 0;
    for (;; at = (at + 1) % h->sentence_count) {
        mb_piece *piece = &h->sentences[at];
        int rc = piece->tokens < 0 ? count_piece(h, piece, err) : MB_OK;
        if (rc < 0)
            return rc;
        if (piece->tokens > left || piece->tokens == 0)
            return MB_OK;
        if (mb_pieces_insert(out, out->count, piece) < 0)
            return mb_no_memory(err, "the haystack");
        left -= piece->tokens;
    }
}

int mb_haystack_fill(mb_haystack *haystack, mb_random *random, int64_t budget, mb_pieces *out, mb_error *err)
{
    return haystack->built_in ? fill_built_in(haystack, random, budget, out, err)
                              : fill_in_order(haystack, random, budget, out, err);
}

void mb_haystack_hash(const mb_haystack *haystack, mb_hash *hash)
{
    mb_hash_add(hash, haystack->hash, sizeof haystack->hash);
}

void mb_haystack_close(mb_haystack *haystack)
{
    if (!haystack)
        return;
    for (size_t i = 0; i < haystack->topic_count; i++) {
        for (size_t s = 0; haystack->topics[i].made && s < TOPIC_SENTENCES; s++)
            free((char *)haystack->topics[i].made[s].text);
        free(haystack->topics[i].made);
        free(haystack->topics[i].made_from);
        free(haystack->topics[i].patterns);
    }
    for (size_t i = 0; i < haystack->list_count; i++)
        free(haystack->lists[i].entries);
    free(haystack->lists);
    free(haystack->sentences);
    free(haystack->text);
    free(haystack);
}
