/*
 * codecs.h - three small tokenizers for the tests of generated samples. They stress different things: `bytes` is
 * exactly additive, `words` is like a real pre-split (a word with the blank in front of it, or one other byte),
 * and `chunks` (three bytes a token, whatever they are) makes every joint between sentences cost or save tokens.
 */
#ifndef MB_TEST_CODECS_H
#define MB_TEST_CODECS_H

#include "datasets/datasets.h"

#include <stdlib.h>
#include <string.h>

static inline int bytes_encode(void *self, const char *text, size_t length, int32_t **ids, size_t *n)
{
    (void)self;
    *ids = malloc((length + 1) * sizeof **ids);
    for (size_t i = 0; i < length; i++)
        (*ids)[i] = (unsigned char)text[i];
    *n = length;
    return 0;
}

static inline int bytes_decode(void *self, const int32_t *ids, size_t n, char **text)
{
    (void)self;
    *text = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        (*text)[i] = (char)ids[i];
    (*text)[n] = '\0';
    return 0;
}

/* Ids carry up to three bytes: count in bits 24-25, bytes below. */
static inline int chunks_encode(void *self, const char *text, size_t length, int32_t **ids, size_t *n)
{
    (void)self;
    *n = 0;
    *ids = malloc((length / 3 + 2) * sizeof **ids);
    for (size_t i = 0; i < length; i += 3) {
        int32_t id = 0;
        size_t size = length - i < 3 ? length - i : 3;
        for (size_t b = 0; b < size; b++)
            id |= (int32_t)(unsigned char)text[i + b] << (8 * b);
        (*ids)[(*n)++] = id | (int32_t)size << 24;
    }
    return 0;
}

static inline int chunks_decode(void *self, const int32_t *ids, size_t n, char **text)
{
    size_t at = 0;
    (void)self;
    *text = malloc(3 * n + 1);
    for (size_t i = 0; i < n; i++)
        for (int b = 0; b < ids[i] >> 24; b++)
            (*text)[at++] = (char)(ids[i] >> (8 * b) & 255);
    (*text)[at] = '\0';
    return 0;
}

/* Words: the ids are places in one growing list of strings (found by a small hash table). */
typedef struct word_list {
    char **items;
    size_t count, capacity;
    int32_t slots[1 << 16];
} word_list;

static inline int32_t word_id(word_list *list, const char *word, size_t length)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < length; i++)
        h = (h ^ (unsigned char)word[i]) * 16777619u;
    for (size_t slot = h & 0xffff;; slot = (slot + 1) & 0xffff) {
        int32_t id = list->slots[slot] - 1;
        if (id >= 0 && (strncmp(list->items[id], word, length) != 0 || list->items[id][length]))
            continue;
        if (id >= 0)
            return id;
        if (list->count == list->capacity) {
            list->capacity = list->capacity ? 2 * list->capacity : 256;
            list->items = realloc(list->items, list->capacity * sizeof *list->items);
        }
        list->items[list->count] = calloc(length + 1, 1);
        memcpy(list->items[list->count], word, length);
        list->slots[slot] = (int32_t)++list->count;
        return (int32_t)list->count - 1;
    }
}

static inline bool word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 128;
}

static inline int words_encode(void *self, const char *text, size_t length, int32_t **ids, size_t *n)
{
    *n = 0;
    *ids = malloc((length + 1) * sizeof **ids);
    for (size_t i = 0; i < length;) {
        size_t end = i + (text[i] == ' ' && i + 1 < length && word_byte(text[i + 1]));
        if (!word_byte(text[end]))
            end++;
        else
            while (end < length && word_byte(text[end]))
                end++;
        (*ids)[(*n)++] = word_id(self, text + i, end - i);
        i = end;
    }
    return 0;
}

static inline int words_decode(void *self, const int32_t *ids, size_t n, char **text)
{
    const word_list *list = self;
    mb_text out = {0};
    for (size_t i = 0; i < n; i++)
        mb_text_puts(&out, list->items[ids[i]]);
    *text = mb_text_take(&out);
    return 0;
}

static inline void words_free(word_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    free(list);
}

static inline int64_t count_tokens(const mb_codec *codec, const char *text)
{
    int32_t *ids = NULL;
    size_t n = 0;
    codec->encode(codec->self, text, strlen(text), &ids, &n);
    free(ids);
    return (int64_t)n;
}

#endif
