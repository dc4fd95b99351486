/*
 * arena.c - memory that is given back at once, and the values that lie in it: lists, dicts, text.
 *
 * A limit makes a hostile template stop: mb_arena_take() gives NULL beyond it.
 */
#include "model/template/template.h"
#include "model/template/value.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)64 << 10)

struct mb_arena_chunk {
    struct mb_arena_chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

void *mb_arena_take(mb_arena *arena, size_t bytes)
{
    struct mb_arena_chunk *chunk = arena->chunks;
    if (bytes > SIZE_MAX / 4)
        return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    if (arena->limit && arena->used + bytes > arena->limit)
        return NULL;
    if (!chunk || chunk->size - chunk->used < bytes) {
        size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        chunk = calloc(1, sizeof *chunk + size);
        if (!chunk)
            return NULL;
        chunk->size = size;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    void *place = chunk->bytes + chunk->used;
    chunk->used += bytes;
    arena->used += bytes;
    return place;
}

void mb_arena_free(mb_arena *arena)
{
    while (arena->chunks) {
        struct mb_arena_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
    arena->used = 0;
}

mb_value mb_value_string(const char *text)
{
    return text ? mb_value_text(text, strlen(text)) : mb_value_none();
}

mb_value mb_value_list(mb_arena *arena, mb_flavour flavour)
{
    struct mb_list *list = mb_arena_take(arena, sizeof *list);
    if (!list)
        return (mb_value){0};
    list->flavour = flavour;
    return (mb_value){.kind = MB_KIND_LIST, .list = list};
}

mb_value mb_value_dict(mb_arena *arena)
{
    struct mb_dict *dict = mb_arena_take(arena, sizeof *dict);
    return dict ? (mb_value){.kind = MB_KIND_DICT, .dict = dict} : (mb_value){0};
}

bool mb_list_add(mb_arena *arena, mb_value value, mb_value item)
{
    struct mb_list *list = value.list;
    if (value.kind != MB_KIND_LIST)
        return false;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        mb_value *items = mb_arena_take(arena, capacity * sizeof *items);
        if (!items)
            return false;
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = item;
    return true;
}

/* Keys are text, numbers, true, false or none; 1, 1.0 and true are one key, as in Python. */
static bool same_key(const mb_value *a, const mb_value *b)
{
    if (a->kind == MB_KIND_TEXT && b->kind == MB_KIND_TEXT)
        return a->length == b->length && (a->length == 0 || memcmp(a->text, b->text, a->length) == 0);
    if (mb_value_is_number(*a) && mb_value_is_number(*b))
        return mb_value_numbers_equal(*a, *b);
    return a->kind == MB_KIND_NONE && b->kind == MB_KIND_NONE;
}

static struct mb_pair *find(const struct mb_dict *dict, const mb_value *key)
{
    for (size_t i = 0; i < dict->count; i++)
        if (same_key(&dict->pairs[i].key, key))
            return &dict->pairs[i];
    return NULL;
}

const mb_value *mb_dict_find(const struct mb_dict *dict, mb_value key)
{
    const struct mb_pair *pair = find(dict, &key);
    return pair ? &pair->value : NULL;
}

bool mb_dict_put(mb_arena *arena, mb_value value, mb_value key, mb_value item)
{
    struct mb_dict *dict = value.dict;
    if (value.kind != MB_KIND_DICT && value.kind != MB_KIND_NAMESPACE)
        return false;
    struct mb_pair *pair = find(dict, &key);
    if (pair) {
        pair->value = item;
        return true;
    }
    if (dict->count == dict->capacity) {
        size_t capacity = dict->capacity ? dict->capacity * 2 : 4;
        struct mb_pair *pairs = mb_arena_take(arena, capacity * sizeof *pairs);
        if (!pairs)
            return false;
        if (dict->count)
            memcpy(pairs, dict->pairs, dict->count * sizeof *pairs);
        dict->pairs = pairs;
        dict->capacity = capacity;
    }
    dict->pairs[dict->count++] = (struct mb_pair){key, item};
    return true;
}
