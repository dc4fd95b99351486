/*
 * lexicon.c - numbers for words: the metrics count and compare words, so each distinct string of code points gets
 * a small number once and everything after works on numbers. Open addressing, linear probing, at most half full.
 */
#include "datasets/read/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    const uint32_t *at; /* borrowed */
    size_t count;
    uint64_t hash;
    int32_t number; /* -1 = free place */
} entry;

struct mb_lexicon {
    entry *places;
    size_t capacity, used;
};

static uint64_t runes_hash(const uint32_t *at, size_t count)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ count;
    for (size_t i = 0; i < count; i++) {
        h = (h ^ at[i]) * 0xBF58476D1CE4E5B9u;
        h ^= h >> 29;
    }
    return h;
}

static entry *places_new(size_t capacity)
{
    entry *places = malloc(capacity * sizeof *places);
    if (places) {
        for (size_t i = 0; i < capacity; i++)
            places[i] = (entry){.number = -1};
    }
    return places;
}

mb_lexicon *mb_lexicon_new(void)
{
    mb_lexicon *lexicon = calloc(1, sizeof *lexicon);
    if (!lexicon)
        return NULL;
    lexicon->capacity = 256;
    lexicon->places = places_new(lexicon->capacity);
    if (!lexicon->places) {
        free(lexicon);
        return NULL;
    }
    return lexicon;
}

static bool lexicon_grow(mb_lexicon *lexicon)
{
    size_t capacity = lexicon->capacity * 2;
    entry *places = places_new(capacity);
    if (!places)
        return false;
    for (size_t i = 0; i < lexicon->capacity; i++) {
        if (lexicon->places[i].number < 0)
            continue;
        size_t j = lexicon->places[i].hash & (capacity - 1);
        while (places[j].number >= 0)
            j = (j + 1) & (capacity - 1);
        places[j] = lexicon->places[i];
    }
    free(lexicon->places);
    lexicon->places = places;
    lexicon->capacity = capacity;
    return true;
}

int32_t mb_lexicon_number(mb_lexicon *lexicon, const uint32_t *at, size_t count)
{
    uint64_t hash = runes_hash(at, count);
    if (lexicon->used * 2 >= lexicon->capacity && !lexicon_grow(lexicon))
        return -1;
    size_t i = hash & (lexicon->capacity - 1);
    for (; lexicon->places[i].number >= 0; i = (i + 1) & (lexicon->capacity - 1)) {
        const entry *e = &lexicon->places[i];
        if (e->hash == hash && e->count == count && (!count || memcmp(e->at, at, count * sizeof *at) == 0))
            return e->number;
    }
    if (lexicon->used >= INT32_MAX)
        return -1;
    lexicon->places[i] = (entry){at, count, hash, (int32_t)lexicon->used};
    return (int32_t)lexicon->used++;
}

size_t mb_lexicon_count(const mb_lexicon *lexicon)
{
    return lexicon->used;
}

void mb_lexicon_free(mb_lexicon *lexicon)
{
    if (lexicon) {
        free(lexicon->places);
        free(lexicon);
    }
}
