/*
 * needles.c - documents with facts hidden in them and questions about the facts behind them: the generator that
 * the embedded model was trained on, with its forms (RULER's wording, arXiv 2404.06654, among them) and draws of
 * its own.
 *
 * A document: "<|im_start|>user", an introduction, filler with the needles between its sentences, then turns of a
 * question and its answer. Answers and the end of a turn are marked; so is the padding behind it.
 */
#include "training/source.h"
#include "training/facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIES 24 /* attempts with fewer and fewer facts */

typedef struct tokens {
    int32_t *ids;
    size_t count, capacity;
} tokens;

typedef struct spans { /* pieces of tokens, one after the other */
    tokens all;
    size_t *end;
    size_t count, capacity;
} spans;

typedef struct turn {
    tokens body, answer;
    int32_t size; /* with the end of the turn and its padding */
} turn;

typedef struct needles {
    mb_source base;
    const mb_tokenizer *tokenizer;
    mb_lexis words;
    int32_t user, end, pad; /* <|im_start|>, <|im_end|>, <|endoftext|> */
} needles;

/* One document in the making. */
typedef struct making {
    const needles *source;
    mb_facts facts;
    spans lines, fill;
    turn turns[MB_FACTS_MAX];
    int32_t turn_count;
} making;

/* ---- growing ---- */

static void push(making *m, tokens *t, const int32_t *ids, size_t n)
{
    if (t->count + n > t->capacity) {
        const size_t capacity = 2 * (t->count + n) + 64;
        int32_t *grown = realloc(t->ids, capacity * sizeof *grown);
        m->facts.failed = m->facts.failed || !grown;
        if (!grown)
            return;
        t->ids = grown;
        t->capacity = capacity;
    }
    memcpy(t->ids + t->count, ids, n * sizeof *ids);
    t->count += n;
}

static void push_text(making *m, tokens *t, const char *text)
{
    int32_t *ids = NULL;
    size_t n = 0;
    mb_error unused;
    if (!*text)
        return;
    if (mb_tokenizer_encode(m->source->tokenizer, text, strlen(text), false, &ids, &n, &unused) == MB_OK)
        push(m, t, ids, n);
    else
        m->facts.failed = true;
    free(ids);
}

static void close_span(making *m, spans *s)
{
    if (s->count == s->capacity) {
        const size_t capacity = 2 * s->capacity + 64;
        size_t *grown = realloc(s->end, capacity * sizeof *grown);
        m->facts.failed = m->facts.failed || !grown;
        if (!grown)
            return;
        s->end = grown;
        s->capacity = capacity;
    }
    s->end[s->count++] = s->all.count;
}

static void push_span(making *m, spans *s, const char *text)
{
    push_text(m, &s->all, text);
    close_span(m, s);
}

static size_t span_begin(const spans *s, size_t i)
{
    return i ? s->end[i - 1] : 0;
}

static bool chance(making *m, double p)
{
    return mb_facts_chance(&m->facts, p);
}

static void shuffle(making *m, int32_t *order, int32_t n)
{
    for (int32_t i = n; i > 1; i--) {
        const int32_t j = (int32_t)mb_random_below(&m->facts.random, (uint64_t)i), kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

/* Needles in their final order: values of a key and links of a chain follow one another. */
static void write_lines(making *m)
{
    int32_t order[MB_FACTS_MAX * MB_FACT_VALUES], next[MB_FACTS_MAX] = {0}, n = 0;
    mb_text text = {0};
    for (int32_t i = 0; i < m->facts.count; i++)
        for (int32_t k = 0; k < m->facts.list[i].lines; k++)
            order[n++] = i;
    shuffle(m, order, n);
    m->lines.count = m->lines.all.count = 0;
    for (int32_t i = 0; i < n; i++) {
        mb_text_clear(&text);
        mb_facts_needle(&m->facts.list[order[i]], next[order[i]]++, &text);
        push_span(m, &m->lines, text.data ? text.data : "");
    }
    mb_text_free(&text);
}

/* ---- questions ---- */

static void put_user(making *m, tokens *t)
{
    push(m, t, &m->source->user, 1);
    push_text(m, t, "user\n");
}

static void put_sentence(making *m, int kind, spans *s)
{
    mb_text text = {0};
    mb_text_puts(&text, " ");
    if (kind == 0)
        mb_lexis_grammar(&m->source->words, &m->facts.random, &text);
    else if (kind == 1)
        mb_lexis_salad(&m->source->words, &m->facts.random, &text);
    else
        mb_text_puts(&text, mb_lexis_draw(&m->source->words, MB_WORDS_SENTENCES, &m->facts.random));
    push_span(m, s, text.data ? text.data : "");
    mb_text_free(&text);
}

/* One turn; first: without the header, which the document begins with. */
static void write_turn(making *m, turn *t, const mb_fact *const *f, int32_t n, bool first, int32_t block)
{
    mb_text question = {0}, opening = {0}, answer = {0};
    const bool opened = chance(m, 0.5);
    *t = (turn){.size = 0};
    if (opened)
        mb_text_puts(&answer, " ");
    mb_facts_ask(&m->facts, f, n, &question, &opening, &answer);
    if (!first) {
        put_user(m, &t->body);
        if (chance(m, 0.3)) {
            spans extra = {0};
            put_sentence(m, chance(m, 0.7) ? 0 : 1, &extra);
            push(m, &t->body, extra.all.ids, extra.all.count);
            free(extra.all.ids);
            free(extra.end);
        }
    }
    push_text(m, &t->body, question.data ? question.data : "");
    push(m, &t->body, &m->source->end, 1);
    push_text(m, &t->body, "\n");
    push(m, &t->body, &m->source->user, 1);
    push_text(m, &t->body, "assistant\n");
    if (opened)
        push_text(m, &t->body, opening.data ? opening.data : "");
    push_text(m, &t->answer, answer.data ? answer.data : "");
    t->size = (int32_t)(t->body.count + t->answer.count) + 1;
    if (!first)
        t->size = (t->size + block - 1) / block * block;
    mb_text_free(&question);
    mb_text_free(&opening);
    mb_text_free(&answer);
}

static void free_turn(turn *t)
{
    free(t->body.ids);
    free(t->answer.ids);
    *t = (turn){0};
}

static void free_turns(making *m)
{
    for (int32_t i = 0; i < m->turn_count; i++)
        free_turn(&m->turns[i]);
    m->turn_count = 0;
}

/* Turns about facts in random order until `room` tokens are used. */
static void write_turns(making *m, int32_t room, int32_t block)
{
    int32_t order[MB_FACTS_MAX], used = 0, i = 0;
    free_turns(m);
    for (int32_t k = 0; k < m->facts.count; k++)
        order[k] = k;
    shuffle(m, order, m->facts.count);
    while (i < m->facts.count && !m->facts.failed) {
        const mb_fact *group[MB_FACT_VALUES] = {&m->facts.list[order[i++]]};
        int32_t n = 1;
        const bool plural = mb_facts_plural(group[0]);
        if (plural && chance(m, 0.12))
            while (i < m->facts.count && n < MB_FACT_VALUES && m->facts.list[order[i]].form == group[0]->form &&
                   m->facts.list[order[i]].lines == 1)
                group[n++] = &m->facts.list[order[i++]];
        const bool first = m->turn_count == 0;
        turn *t = &m->turns[m->turn_count];
        write_turn(m, t, group, n, first, block);
        if (!first && used + t->size > room) {
            free_turn(t);
            return;
        }
        used += t->size + (first ? 16 : 0);
        m->turn_count++;
    }
}

/* ---- the document ---- */

/* Sentences of one of four mixtures, of wanted tokens exactly: the last one is cut. */
static void write_filler(making *m, size_t wanted)
{
    const double u = mb_random_unit(&m->facts.random);
    const int kind = u < 0.2 ? 2 : u < 0.55 ? 0 : u < 0.7 ? 1 : 3;
    spans *fill = &m->fill;
    fill->count = fill->all.count = 0;
    while (fill->all.count < wanted && !m->facts.failed)
        put_sentence(m, kind == 3 ? (int)mb_random_below(&m->facts.random, 3) : kind, fill);
    fill->all.count = wanted;
    while (fill->count > 1 && span_begin(fill, fill->count - 1) >= wanted)
        fill->count--;
    if (fill->count > 0)
        fill->end[fill->count - 1] = wanted;
}

static int compare_sizes(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

/* Filler with the needles between its sentences. */
static void write_hay(making *m, mb_document *d, int32_t *at)
{
    const spans *fill = &m->fill, *lines = &m->lines;
    size_t *places = calloc(lines->count + 1, sizeof *places), from = 0;
    m->facts.failed = m->facts.failed || !places;
    if (m->facts.failed) {
        free(places);
        return;
    }
    for (size_t i = 0; i < lines->count; i++)
        places[i] = (size_t)mb_random_below(&m->facts.random, fill->count + 1);
    qsort(places, lines->count, sizeof *places, compare_sizes);
    for (size_t i = 0; i <= lines->count; i++) {
        const size_t to = i < lines->count ? span_begin(fill, places[i]) : fill->all.count;
        if (to > from)
            memcpy(d->ids + *at, fill->all.ids + from, (to - from) * sizeof *d->ids);
        *at += (int32_t)(to - from);
        from = to;
        if (i == lines->count)
            break;
        const size_t begin = span_begin(lines, i), n = lines->end[i] - begin;
        memcpy(d->ids + *at, lines->all.ids + begin, n * sizeof *d->ids);
        *at += (int32_t)n;
    }
    free(places);
}

static void write_answers(making *m, mb_document *d, int32_t at, int32_t padding)
{
    for (int32_t i = 0; i < m->turn_count; i++) {
        const turn *t = &m->turns[i];
        const int32_t end = at + t->size + (i == 0 ? padding : 0);
        memcpy(d->ids + at, t->body.ids, t->body.count * sizeof *d->ids);
        at += (int32_t)t->body.count;
        memcpy(d->ids + at, t->answer.ids, t->answer.count * sizeof *d->ids);
        memset(d->marks + at, MB_MARK_ANSWER, t->answer.count + 1);
        at += (int32_t)t->answer.count;
        d->ids[at++] = m->source->end;
        for (; at < end; at++) {
            d->ids[at] = m->source->pad;
            d->marks[at] = MB_MARK_PADDING;
        }
    }
}

/* One attempt with so many facts; false: they do not fit. */
static bool attempt(making *m, const mb_document_request *request, mb_document *d, int32_t room, int32_t facts)
{
    static const char *const introductions[] = {"Some special facts are hidden within the following text. Make "
                                                "sure to memorize them. I will quiz you about "
                                                "them afterwards.\n",
                                                "A special magic number is hidden within the following text. Make "
                                                "sure to memorize it. I will quiz you about "
                                                "the number afterwards.\n",
                                                "Read the text below and answer the question.\n",
                                                "Read the following text.\n", ""};
    const int32_t length = request->length;
    tokens head = {0};
    mb_facts_draw(&m->facts, facts);
    write_lines(m);
    while ((int64_t)m->lines.all.count > length - room - 40 && m->facts.count > 1) {
        m->facts.count = m->facts.count * 4 / 5 > 1 ? m->facts.count * 4 / 5 : 1;
        write_lines(m);
    }
    write_turns(m, room, request->block);
    put_user(m, &head);
    push_text(m, &head, introductions[mb_random_below(&m->facts.random, 5)]);
    int32_t rest = 0, padding = mb_lexis_between(&m->facts.random, 0, request->block - 1);
    for (int32_t i = 1; i < m->turn_count; i++)
        rest += m->turns[i].size;
    int64_t hay = (int64_t)length - rest - m->turns[0].size - padding - (int64_t)head.count;
    if (hay < (int64_t)m->lines.all.count) {
        hay += padding;
        padding = 0;
    }
    const bool fits = !m->facts.failed && hay >= (int64_t)m->lines.all.count;
    if (fits) {
        int32_t at = (int32_t)head.count;
        memset(d->marks, 0, (size_t)length);
        memcpy(d->ids, head.ids, head.count * sizeof *d->ids);
        write_filler(m, (size_t)hay - m->lines.all.count);
        write_hay(m, d, &at);
        if (!m->facts.failed)
            write_answers(m, d, at, padding);
    }
    free(head.ids);
    return fits && !m->facts.failed;
}

static int32_t draw_count(making *m, int32_t length, int32_t room)
{
    int32_t most = (length - room) / 26 > 2 ? (length - room) / 26 : 2, count = most;
    most = most < MB_FACTS_MAX ? most : MB_FACTS_MAX;
    if (length <= 1024)
        return mb_lexis_between(&m->facts.random, 1, most);
    if (chance(m, 0.85)) {
        const double power = 8.0 * mb_random_unit(&m->facts.random);
        for (count = 1; count < (1 << (int)power); count *= 2) {
        }
        count += (int32_t)((power - (double)(int)power) * count);
    }
    return count < most ? count : most;
}

static int next_needles(mb_source *source, const mb_document_request *request, mb_document *d, mb_error *err)
{
    char name[64];
    making *m = calloc(1, sizeof *m);
    bool done = false;
    if (!m)
        return mb_no_memory(err, "a document");
    snprintf(name, sizeof name, "needles:%llu", (unsigned long long)request->number);
    m->source = (const needles *)(const void *)source;
    m->facts.words = &m->source->words;
    m->facts.random = mb_random_named(request->seed, name);
    const double share = mb_random_unit(&m->facts.random);
    int32_t room = request->tail == request->length ? (int32_t)(request->length * (0.35 + 0.25 * share))
                                                    : (int32_t)(request->tail * (0.75 + 0.25 * share)) - 32;
    room = room < 0 ? 0 : room;
    int32_t facts = draw_count(m, request->length, room);
    for (int i = 0; !done && !m->facts.failed && i<TRIES; i++, facts = facts> 1 ? facts / 2 : 1)
        done = attempt(m, request, d, room, facts);
    const bool failed = m->facts.failed;
    free_turns(m);
    free(m->lines.all.ids);
    free(m->lines.end);
    free(m->fill.all.ids);
    free(m->fill.end);
    free(m);
    if (failed)
        return mb_no_memory(err, "a document of %d tokens", request->length);
    return done ? MB_OK
                : mb_fail(err, MB_E_INPUT,
                          "a needle and its question do not fit into %d tokens; use longer documents",
                          request->length);
}

static void close_needles(mb_source *source)
{
    needles *n = (needles *)(void *)source;
    mb_lexis_close(&n->words);
    free(n);
}

int mb_source_needles(mb_source **source, const mb_tokenizer *tokenizer, mb_error *err)
{
    needles *n = calloc(1, sizeof *n);
    *source = NULL;
    if (!n)
        return mb_no_memory(err, "the generator");
    n->base = (mb_source){next_needles, close_needles};
    n->tokenizer = tokenizer;
    n->user = mb_tokenizer_id(tokenizer, "<|im_start|>");
    n->end = mb_tokenizer_id(tokenizer, "<|im_end|>");
    n->pad = mb_tokenizer_id(tokenizer, "<|endoftext|>");
    int rc = n->user >= 0 && n->end >= 0 && n->pad >= 0
                 ? mb_lexis_open(&n->words, err)
                 : mb_fail(err, MB_E_INPUT,
                           "the needle generator writes <|im_start|>, <|im_end|> and <|endoftext|>, "
                           "which this tokenizer lacks; train on a text file (data.path)");
    if (rc != MB_OK) {
        free(n);
        return rc;
    }
    *source = &n->base;
    return MB_OK;
}
