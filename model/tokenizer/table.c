/*
 * table.c - the tables of a tokenizer: tokens by id, ids by bytes, added tokens by first byte, and the
 * byte-level alphabet in which the files spell all of them.
 */
#include "model/tokenizer/tokenizer.h"

#include "model/tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

#define ID_MAX (1 << 22)
#define ADDED_MAX 65536

int mb_tokenizer_add(mb_tokenizer *tokenizer, int64_t id, const char *bytes, size_t n, const char *where,
                     mb_error *err)
{
    if (id < 0 || id >= ID_MAX)
        return mb_fail(err, MB_E_INPUT, "%s: token id %lld is outside 0 to %d", where, (long long)id, ID_MAX - 1);
    if (id >= tokenizer->capacity) {
        int32_t capacity = tokenizer->capacity ? tokenizer->capacity : 1024;
        while (capacity <= id)
            capacity *= 2;
        struct mb_token *tokens = realloc(tokenizer->tokens, (size_t)capacity * sizeof *tokens);
        if (!tokens)
            return mb_fail(err, MB_E_SYSTEM, "%s: no memory for %d tokens", where, capacity);
        memset(tokens + tokenizer->capacity, 0, (size_t)(capacity - tokenizer->capacity) * sizeof *tokens);
        tokenizer->tokens = tokens;
        tokenizer->capacity = capacity;
    }
    struct mb_token *token = &tokenizer->tokens[id];
    if (token->used)
        return mb_fail(err, MB_E_INPUT, "%s: token id %lld is used twice", where, (long long)id);
    *token = (struct mb_token){.offset = tokenizer->pool.length, .length = (uint32_t)n, .used = true};
    mb_text_append(&tokenizer->pool, bytes, n);
    if (tokenizer->pool.failed)
        return mb_no_memory(err, "the tokens of %s", where);
    if (id >= tokenizer->size)
        tokenizer->size = (int32_t)id + 1;
    return MB_OK;
}

int32_t mb_tokenizer_size(const mb_tokenizer *tokenizer)
{
    return tokenizer->size;
}

/* ---- ids by bytes: open addressing, at most half full ---- */

/* Order of bytes matters, zero bytes count. */
static uint64_t hash_bytes(const char *bytes, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a: tokens are short */
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3ull;
    return hash ^ (hash >> 29);
}

bool mb_tokenizer_index_reserve(mb_tokenizer *tokenizer, size_t count)
{
    size_t slots = 64;
    while (slots < 2 * count)
        slots *= 2;
    tokenizer->lookup = malloc(slots * sizeof *tokenizer->lookup);
    if (!tokenizer->lookup)
        return false;
    memset(tokenizer->lookup, 0xff, slots * sizeof *tokenizer->lookup);
    tokenizer->lookup_mask = slots - 1;
    return true;
}

/* The slot of these bytes: theirs, or the empty one where they belong. */
static int32_t *index_slot(const mb_tokenizer *tokenizer, const char *bytes, size_t n)
{
    size_t i = hash_bytes(bytes, n) & tokenizer->lookup_mask;
    for (; tokenizer->lookup[i] >= 0; i = (i + 1) & tokenizer->lookup_mask) {
        const struct mb_token *token = &tokenizer->tokens[tokenizer->lookup[i]];
        if (token->length == n && memcmp(tokenizer->pool.data + token->offset, bytes, n) == 0)
            break;
    }
    return &tokenizer->lookup[i];
}

/* The token must have been added before: the table stores ids and compares their bytes in the pool. */
bool mb_tokenizer_index_put(mb_tokenizer *tokenizer, int32_t id)
{
    const struct mb_token *token = &tokenizer->tokens[id];
    int32_t *slot = index_slot(tokenizer, tokenizer->pool.data + token->offset, token->length);
    if (*slot >= 0)
        return false;
    *slot = id;
    return true;
}

int32_t mb_tokenizer_index_find(const mb_tokenizer *tokenizer, const char *bytes, size_t n)
{
    return *index_slot(tokenizer, bytes, n);
}

/* ---- added tokens ---- */

/* The slot of this text: its own, or the empty one where it belongs. */
static int32_t *added_slot(const mb_tokenizer *tokenizer, const char *text, size_t n)
{
    size_t i = hash_bytes(text, n) & tokenizer->added_lookup_mask;
    for (; tokenizer->added_lookup[i] >= 0; i = (i + 1) & tokenizer->added_lookup_mask) {
        const struct mb_added_token *token = &tokenizer->added[tokenizer->added_lookup[i]];
        if (token->length == n && memcmp(token->text, text, n) == 0)
            break;
    }
    return &tokenizer->added_lookup[i];
}

static void note_added(mb_tokenizer *tokenizer, size_t place)
{
    const struct mb_added_token *token = &tokenizer->added[place];
    *added_slot(tokenizer, token->text, token->length) = (int32_t)place;
    tokenizer->tokens[token->id].added = (uint32_t)place + 1;
}

/* Both ways to find an added token, anew, with room for one more. False: out of memory. */
static bool index_added(mb_tokenizer *tokenizer)
{
    size_t slots = 64;
    while (slots < 2 * (tokenizer->added_count + 1))
        slots *= 2;
    if (!tokenizer->added_lookup || slots > tokenizer->added_lookup_mask + 1) {
        free(tokenizer->added_lookup);
        tokenizer->added_lookup = malloc(2 * slots * sizeof *tokenizer->added_lookup);
        if (!tokenizer->added_lookup)
            return false;
        tokenizer->added_lookup_mask = 2 * slots - 1;
    }
    memset(tokenizer->added_lookup, 0xff, (tokenizer->added_lookup_mask + 1) * sizeof *tokenizer->added_lookup);
    for (size_t i = 0; i < tokenizer->added_count; i++)
        note_added(tokenizer, i);
    return true;
}

struct mb_added_token *mb_tokenizer_find_added(const mb_tokenizer *tokenizer, const char *text, size_t n)
{
    int32_t place = tokenizer->added_lookup ? *added_slot(tokenizer, text, n) : -1;
    return place >= 0 ? &tokenizer->added[place] : NULL;
}

struct mb_added_token *mb_tokenizer_find_added_id(const mb_tokenizer *tokenizer, int64_t id)
{
    uint32_t place = id >= 0 && id < tokenizer->size ? tokenizer->tokens[id].added : 0;
    return place ? &tokenizer->added[place - 1] : NULL;
}

/* A place for one more, in the index as well, or NULL. */
static struct mb_added_token *new_added(mb_tokenizer *tokenizer)
{
    if ((!tokenizer->added_lookup || 2 * (tokenizer->added_count + 1) > tokenizer->added_lookup_mask + 1) &&
        !index_added(tokenizer))
        return NULL;
    if (tokenizer->added_count % 64 == 0) {
        struct mb_added_token *larger =
            realloc(tokenizer->added, (tokenizer->added_count + 64) * sizeof *tokenizer->added);
        if (!larger)
            return NULL;
        tokenizer->added = larger;
    }
    return &tokenizer->added[tokenizer->added_count];
}

/* Contradictions are errors because either reading would silently give other ids to the same text. */
int mb_tokenizer_add_added(mb_tokenizer *tokenizer, const struct mb_added_token *token, const char *where,
                           mb_error *err)
{
    const char *text = token->text;
    size_t n = token->length;
    int32_t id = token->id;
    if (n == 0 || n > 4096 || !mb_utf8_check(text, n, NULL))
        return mb_fail(err, MB_E_INPUT, "%s: the added token with id %d is empty, too long or no UTF-8", where,
                       id);
    struct mb_added_token *same = mb_tokenizer_find_added(tokenizer, text, n);
    struct mb_added_token *other = same ? same : mb_tokenizer_find_added_id(tokenizer, id);
    if (same && same->id == id) { /* the same entry in a second file: special as soon as one of them says so */
        same->special |= token->special;
        tokenizer->tokens[id].special |= token->special;
        return MB_OK;
    }
    if (other)
        return mb_fail(err, MB_E_INPUT, "%s: added token \"%.64s\" (id %d) contradicts \"%.64s\" (id %d)", where,
                       text, id, other->text, other->id);
    if (tokenizer->added_count == ADDED_MAX)
        return mb_fail(err, MB_E_INPUT, "%s: more than %d added tokens", where, ADDED_MAX);
    /* An added token may also stand in the vocabulary, under the same id and with the same text. */
    if (id >= 0 && id < tokenizer->size && tokenizer->tokens[id].used) {
        const struct mb_token *entry = &tokenizer->tokens[id];
        if (entry->length != n || memcmp(tokenizer->pool.data + entry->offset, text, n) != 0)
            return mb_fail(err, MB_E_INPUT,
                           "%s: added token \"%.64s\" has id %d, which the vocabulary gives to another token",
                           where, text, id);
    } else {
        int rc = mb_tokenizer_add(tokenizer, id, text, n, where, err);
        if (rc != MB_OK)
            return rc;
    }
    struct mb_added_token *place = new_added(tokenizer);
    char *copy = malloc(n + 1);
    if (!place || !copy) {
        free(copy);
        return mb_no_memory(err, "the added tokens of %s", where);
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    *place = *token;
    place->text = place->match = copy;
    place->match_length = n;
    tokenizer->tokens[id].special |= token->special;
    note_added(tokenizer, tokenizer->added_count++);
    return MB_OK;
}

/* Raw ones first; longest first within a first byte: the first match is then the longest. */
static int by_kind_byte_and_length(const void *a, const void *b)
{
    const struct mb_added_token *x = a, *y = b;
    unsigned char first_x = (unsigned char)x->match[0], first_y = (unsigned char)y->match[0];
    if (x->normalized != y->normalized)
        return x->normalized ? 1 : -1;
    if (first_x != first_y)
        return first_x < first_y ? -1 : 1;
    if (x->match_length != y->match_length)
        return x->match_length > y->match_length ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* What a normalised token is looked for as, in normalised text. */
static bool set_match(const mb_tokenizer *tokenizer, struct mb_added_token *token)
{
    mb_text normal = {0};
    if (!token->normalized || !(tokenizer->nfc || tokenizer->characters))
        return true;
    bool ok = mb_tokenizer_normalise(tokenizer, &normal, token->text, token->length);
    if (ok && (normal.length != token->length || memcmp(normal.data, token->text, normal.length) != 0)) {
        token->match_length = normal.length;
        token->match = mb_text_take(&normal);
        ok = token->match != NULL;
        if (!ok)
            token->match = token->text;
    }
    mb_text_free(&normal);
    return ok;
}

bool mb_tokenizer_sort_added(mb_tokenizer *tokenizer)
{
    size_t k = 0, n = tokenizer->added_count;
    for (size_t i = 0; i < n; i++)
        if (!set_match(tokenizer, &tokenizer->added[i]))
            return false;
    if (n)
        qsort(tokenizer->added, n, sizeof *tokenizer->added, by_kind_byte_and_length);
    if (n && !index_added(tokenizer)) /* places changed */
        return false;
    while (tokenizer->added_raw < n && !tokenizer->added[tokenizer->added_raw].normalized)
        tokenizer->added_raw++;
    for (size_t kind = 0; kind < 2; kind++) {
        size_t end = kind ? n : tokenizer->added_raw;
        for (size_t byte = 0; byte < 257; byte++) {
            while (k < end && (unsigned char)tokenizer->added[k].match[0] < byte)
                k++;
            tokenizer->added_first[kind][byte] = k;
        }
        k = end;
    }
    return true;
}

/* ---- the byte-level alphabet ---- */

bool mb_tokenizer_unmap(mb_text *bytes, const char *token, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += mb_utf8_next(token + i, n - i, &c);
        bool itself = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255);
        if (!itself) {
            /* The other 68 bytes, in rising order, are U+0100 and on: 0-32, 127-160, 173. */
            if (c < 0x100 || c > 0x143)
                return false;
            c -= 0x100;
            c = c <= 32 ? c : c <= 66 ? c - 33 + 127 : 173;
        }
        char byte = (char)(unsigned char)c;
        mb_text_append(bytes, &byte, 1);
    }
    return true;
}
