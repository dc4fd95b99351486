/*
 * bpe.c - byte-pair merges of one piece of text, and a cache of pieces.
 *
 * Rule (as in `tokenizers`): start from single bytes (or characters); while any neighbouring pair has a merge,
 * apply the one of lowest rank, the leftmost first. Short pieces are scanned; long ones (a line of one letter may
 * be a megabyte) use a heap over a linked list, O(n log n). Both give the same ids.
 */
#include "model/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define SCAN_MAX 48        /* bytes of a piece that is scanned */
#define CACHE_PIECE_MAX 64 /* bytes of a piece that is remembered */
#define CACHE_MAX 65536    /* pieces remembered per call */

struct cached {
    uint64_t hash;
    size_t key; /* offset in keys; length + 1 is 0 for an empty slot */
    size_t ids; /* offset in cached_ids */
    uint32_t length, count;
};

struct candidate { /* a pair that may be merged */
    int32_t rank, at, left, right;
};

struct mb_bpe {
    const mb_tokenizer *tokenizer;
    int32_t *ids;
    size_t count, capacity;
    struct cached *cache;
    size_t cache_mask, cache_count;
    mb_text keys;
    int32_t *cached_ids;
    size_t cached_count, cached_capacity;
    /* long pieces: symbol i, its neighbours; -1 at the ends; id -1 = merged away */
    int32_t *symbol, *before, *after;
    size_t symbol_capacity;
    struct candidate *heap;
    size_t heap_count, heap_capacity;
};

/* The cache starts small, since most calls encode a short prompt, and grows with the pieces it meets. */
mb_bpe *mb_bpe_open(const mb_tokenizer *tokenizer)
{
    mb_bpe *bpe = calloc(1, sizeof *bpe);
    if (!bpe)
        return NULL;
    bpe->tokenizer = tokenizer;
    bpe->cache_mask = 255;
    bpe->cache = calloc(bpe->cache_mask + 1, sizeof *bpe->cache);
    if (!bpe->cache) {
        free(bpe);
        return NULL;
    }
    return bpe;
}

void mb_bpe_close(mb_bpe *bpe)
{
    if (!bpe)
        return;
    free(bpe->ids);
    free(bpe->cache);
    mb_text_free(&bpe->keys);
    free(bpe->cached_ids);
    free(bpe->symbol);
    free(bpe->before);
    free(bpe->after);
    free(bpe->heap);
    free(bpe);
}

/* The array with room for `need` >= 1 elements of `size` bytes, or NULL and the array unchanged. Doubles. */
static void *grow(void *array, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity)
        return array;
    size_t larger = *capacity ? *capacity : 64;
    while (larger < need)
        larger *= 2;
    void *grown = realloc(array, larger * size);
    if (grown)
        *capacity = larger;
    return grown;
}

/* Appends ids of a piece to the result. n >= 1. */
static bool push_all(mb_bpe *bpe, const int32_t *ids, size_t n)
{
    int32_t *grown = grow(bpe->ids, &bpe->capacity, bpe->count + n, sizeof *ids);
    if (!grown)
        return false;
    bpe->ids = grown;
    memcpy(bpe->ids + bpe->count, ids, n * sizeof *ids);
    bpe->count += n;
    return true;
}

bool mb_bpe_push(mb_bpe *bpe, int32_t id)
{
    return push_all(bpe, &id, 1);
}

/* Even an empty result is an allocation, so that NULL can mean only one thing. */
int32_t *mb_bpe_take(mb_bpe *bpe, size_t *n)
{
    int32_t *ids = grow(bpe->ids, &bpe->capacity, 1, sizeof *ids);
    if (!ids)
        return NULL;
    *n = bpe->count;
    bpe->ids = NULL;
    bpe->count = bpe->capacity = 0;
    return ids;
}

/* ---- merges ---- */

/* Spreads a pair of small ids over all bits (a multiply-xorshift finaliser). */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    return x ^ (x >> 32);
}

/* At most half full: a search ends after a probe or two, and always ends. */
bool mb_tokenizer_rules_reserve(mb_tokenizer *tokenizer, size_t count)
{
    size_t slots = 64;
    while (slots < 2 * count)
        slots *= 2;
    tokenizer->rules = malloc(slots * sizeof *tokenizer->rules);
    if (!tokenizer->rules)
        return false;
    for (size_t i = 0; i < slots; i++)
        tokenizer->rules[i].rank = -1;
    tokenizer->rule_mask = slots - 1;
    return true;
}

/* The rule of a pair, or the empty slot (rank -1) where it would be. */
static struct mb_bpe_rule *find_rule(const mb_tokenizer *tokenizer, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = mix(key) & tokenizer->rule_mask;
    while (tokenizer->rules[i].rank >= 0 && tokenizer->rules[i].key != key)
        i = (i + 1) & tokenizer->rule_mask;
    return &tokenizer->rules[i];
}

bool mb_tokenizer_rules_put(mb_tokenizer *tokenizer, int32_t left, int32_t right, int32_t rank, int32_t id)
{
    struct mb_bpe_rule *rule = find_rule(tokenizer, left, right);
    if (rule->rank >= 0)
        return false;
    *rule = (struct mb_bpe_rule){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, id};
    return true;
}

/* In place: ids[0..n) single bytes -> merged; returns how many are left. rank[i] belongs to (ids[i], ids[i+1]). */
static size_t merge_scan(const mb_tokenizer *tokenizer, int32_t *ids, size_t n)
{
    struct mb_bpe_rule *rule[SCAN_MAX];
    for (size_t i = 0; i + 1 < n; i++)
        rule[i] = find_rule(tokenizer, ids[i], ids[i + 1]);
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (rule[i]->rank >= 0 && (best == n || rule[i]->rank < rule[best]->rank))
                best = i;
        if (best == n)
            return n;
        ids[best] = rule[best]->id;
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        if (best + 2 < n)
            memmove(rule + best, rule + best + 1, (n - best - 2) * sizeof(rule[0]));
        n--;
        if (best > 0)
            rule[best - 1] = find_rule(tokenizer, ids[best - 1], ids[best]);
        if (best + 1 < n)
            rule[best] = find_rule(tokenizer, ids[best], ids[best + 1]);
    }
}

/* Lowest rank first, leftmost among equals: the order of the definition. */
static bool precedes(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

/* Adds the pair at places `at` and `next` if it can be merged at all. */
static bool heap_push(mb_bpe *bpe, int32_t at, int32_t next)
{
    const struct mb_bpe_rule *rule = find_rule(bpe->tokenizer, bpe->symbol[at], bpe->symbol[next]);
    if (rule->rank < 0)
        return true;
    struct candidate *heap = grow(bpe->heap, &bpe->heap_capacity, bpe->heap_count + 1, sizeof *heap);
    if (!heap)
        return false;
    bpe->heap = heap;
    struct candidate added = {rule->rank, at, bpe->symbol[at], bpe->symbol[next]};
    size_t i = bpe->heap_count++;
    for (; i > 0 && precedes(&added, &bpe->heap[(i - 1) / 2]); i = (i - 1) / 2)
        bpe->heap[i] = bpe->heap[(i - 1) / 2];
    bpe->heap[i] = added;
    return true;
}

/* Removes the best candidate: the last one sinks from the root to its place. */
static struct candidate heap_pop(mb_bpe *bpe)
{
    struct candidate top = bpe->heap[0], last = bpe->heap[--bpe->heap_count];
    size_t i = 0, n = bpe->heap_count;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && precedes(&bpe->heap[child + 1], &bpe->heap[child]))
            child++;
        if (!precedes(&bpe->heap[child], &last))
            break;
        bpe->heap[i] = bpe->heap[child];
        i = child;
    }
    if (n)
        bpe->heap[i] = last;
    return top;
}

static bool reserve_symbols(mb_bpe *bpe, size_t n)
{
    int32_t **arrays[] = {&bpe->symbol, &bpe->before, &bpe->after};
    for (size_t k = 0; n > bpe->symbol_capacity && k < 3; k++) {
        int32_t *larger = realloc(*arrays[k], n * sizeof *larger);
        if (!larger)
            return false;
        *arrays[k] = larger;
    }
    bpe->symbol_capacity = n > bpe->symbol_capacity ? n : bpe->symbol_capacity;
    return true;
}

/* What merges begin with: the tokens of single bytes, those without one left out, or of characters. Returns how
 * many there are, at most n. */
static size_t symbols_of(const mb_tokenizer *tokenizer, const char *bytes, size_t n, int32_t *ids)
{
    size_t count = 0;
    if (tokenizer->characters)
        return mb_characters_symbols(tokenizer, bytes, n, ids);
    for (size_t i = 0; i < n; i++) {
        int32_t id = tokenizer->byte_ids[(unsigned char)bytes[i]];
        if (id >= 0)
            ids[count++] = id;
    }
    return count;
}

/* The linked-list form. Candidates are never removed from the heap when a neighbour changes; they are recognised
 * as outdated when their turn comes. Each merge adds at most two, so the heap sees at most 3n of them. */
static bool merge_long(mb_bpe *bpe, const char *bytes, size_t n)
{
    if (!reserve_symbols(bpe, n))
        return false;
    n = symbols_of(bpe->tokenizer, bytes, n, bpe->symbol);
    for (size_t i = 0; i < n; i++) {
        bpe->before[i] = (int32_t)i - 1;
        bpe->after[i] = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    bpe->heap_count = 0;
    for (size_t i = 0; i + 1 < n; i++)
        if (!heap_push(bpe, (int32_t)i, (int32_t)i + 1))
            return false;
    while (bpe->heap_count) {
        struct candidate c = heap_pop(bpe);
        int32_t next = bpe->after[c.at];
        /* Outdated when one of the two has changed since: a symbol at a place only ever changes by merging. */
        if (next < 0 || bpe->symbol[c.at] != c.left || bpe->symbol[next] != c.right)
            continue;
        bpe->symbol[c.at] = find_rule(bpe->tokenizer, c.left, c.right)->id;
        bpe->symbol[next] = -1;
        bpe->after[c.at] = bpe->after[next];
        if (bpe->after[next] >= 0)
            bpe->before[bpe->after[next]] = c.at;
        if (bpe->before[c.at] >= 0 && !heap_push(bpe, bpe->before[c.at], c.at))
            return false;
        if (bpe->after[c.at] >= 0 && !heap_push(bpe, c.at, bpe->after[c.at]))
            return false;
    }
    for (int32_t i = n ? 0 : -1; i >= 0; i = bpe->after[i])
        if (!mb_bpe_push(bpe, bpe->symbol[i]))
            return false;
    return true;
}

/* ---- the cache ---- */

static uint64_t hash_bytes(const char *bytes, size_t n)
{
    uint64_t hash = 0x9e3779b97f4a7c15ull ^ n;
    for (; n >= 8; n -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = mix(hash ^ word);
    }
    uint64_t word = 0;
    memcpy(&word, bytes, n);
    return mix(hash ^ word);
}

/* The entry of these bytes, or the empty slot where it belongs. */
static struct cached *cache_slot(const mb_bpe *bpe, uint64_t hash, const char *bytes, size_t n)
{
    size_t i = hash & bpe->cache_mask;
    while (bpe->cache[i].length) {
        const struct cached *entry = &bpe->cache[i];
        if (entry->hash == hash && entry->length == n && memcmp(bpe->keys.data + entry->key, bytes, n) == 0)
            break;
        i = (i + 1) & bpe->cache_mask;
    }
    return &bpe->cache[i];
}

/* Doubles the table; entries move by their stored hash, keys stay where they are. */
static bool cache_grow(mb_bpe *bpe)
{
    size_t slots = (bpe->cache_mask + 1) * 2;
    struct cached *larger = calloc(slots, sizeof *larger);
    if (!larger)
        return false;
    for (size_t i = 0; i <= bpe->cache_mask; i++) {
        if (!bpe->cache[i].length)
            continue;
        size_t k = bpe->cache[i].hash & (slots - 1);
        while (larger[k].length)
            k = (k + 1) & (slots - 1);
        larger[k] = bpe->cache[i];
    }
    free(bpe->cache);
    bpe->cache = larger;
    bpe->cache_mask = slots - 1;
    return true;
}

/* Remembers that the piece became the last `count` ids. */
static bool cache_put(mb_bpe *bpe, uint64_t hash, const char *bytes, size_t n, size_t count)
{
    if (bpe->cache_count >= CACHE_MAX)
        return true;
    if (2 * bpe->cache_count > bpe->cache_mask && !cache_grow(bpe))
        return false;
    int32_t *grown = grow(bpe->cached_ids, &bpe->cached_capacity, bpe->cached_count + count, sizeof *grown);
    if (!grown)
        return false;
    bpe->cached_ids = grown;
    struct cached *entry = cache_slot(bpe, hash, bytes, n);
    *entry = (struct cached){hash, bpe->keys.length, bpe->cached_count, (uint32_t)n, (uint32_t)count};
    mb_text_append(&bpe->keys, bytes, n);
    memcpy(bpe->cached_ids + bpe->cached_count, bpe->ids + bpe->count - count, count * sizeof(int32_t));
    bpe->cached_count += count;
    bpe->cache_count++;
    return !bpe->keys.failed;
}

/* Single bytes need no search, long pieces hardly ever repeat; everything between goes through the cache. */
bool mb_bpe_piece(mb_bpe *bpe, const char *bytes, size_t n)
{
    int32_t whole = bpe->tokenizer->whole ? mb_tokenizer_index_find(bpe->tokenizer, bytes, n) : -1;
    const bool one = n == 1 && !bpe->tokenizer->characters;
    if (one)
        whole = bpe->tokenizer->byte_ids[(unsigned char)bytes[0]];
    if (one || whole >= 0)
        return whole < 0 || mb_bpe_push(bpe, whole);
    if (n > CACHE_PIECE_MAX)
        return merge_long(bpe, bytes, n);
    uint64_t hash = hash_bytes(bytes, n);
    const struct cached *entry = cache_slot(bpe, hash, bytes, n);
    if (entry->length)
        return push_all(bpe, bpe->cached_ids + entry->ids, entry->count);
    size_t before = bpe->count;
    if (n > SCAN_MAX) {
        if (!merge_long(bpe, bytes, n))
            return false;
    } else {
        int32_t ids[SCAN_MAX];
        size_t count = symbols_of(bpe->tokenizer, bytes, n, ids);
        if (!push_all(bpe, ids, merge_scan(bpe->tokenizer, ids, count)))
            return false;
    }
    return cache_put(bpe, hash, bytes, n, bpe->count - before);
}
