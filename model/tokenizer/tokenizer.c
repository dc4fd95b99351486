/*
 * tokenizer.c - text to ids and back, with the ids of Hugging Face's `tokenizers` on the same files.
 *
 * Encoding: added tokens are cut out of the raw text (leftmost, longest), the rest is normalised, split into
 * pieces by the pre-tokenizer and merged piece by piece. All state of a call is its own, so calls may run in
 * parallel on one tokenizer.
 */
#include "model/tokenizer/tokenizer.h"

#include "model/tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

/* Also for a half-built one: everything starts zeroed. */
void mb_tokenizer_close(mb_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        if (tokenizer->added[i].match != tokenizer->added[i].text)
            free(tokenizer->added[i].match);
        free(tokenizer->added[i].text);
    }
    free(tokenizer->added);
    free(tokenizer->added_lookup);
    free(tokenizer->tokens);
    free(tokenizer->lookup);
    free(tokenizer->rules);
    mb_text_free(&tokenizer->pool);
    pcre2_code_free(tokenizer->split);
    free(tokenizer);
}

void mb_tokenizer_hash(const mb_tokenizer *tokenizer, char hex[MB_HASH_CAP])
{
    memcpy(hex, tokenizer->hash, MB_HASH_CAP);
}

/* Added tokens win over vocabulary entries of the same bytes, as they do in a text. */
int32_t mb_tokenizer_id(const mb_tokenizer *tokenizer, const char *token)
{
    size_t n = strlen(token);
    const struct mb_added_token *added = mb_tokenizer_find_added(tokenizer, token, n);
    if (added)
        return added->id;
    return n ? mb_tokenizer_index_find(tokenizer, token, n) : -1;
}

const int32_t *mb_tokenizer_begin(const mb_tokenizer *tokenizer, size_t *n)
{
    *n = tokenizer->begin_count;
    return tokenizer->begin;
}

/* The added tokens that are looked for in raw text, and those in normalised text. */
enum { KIND_RAW, KIND_NORMALIZED };

/* What one call of encode works with. */
struct encoding {
    const mb_tokenizer *tokenizer;
    mb_bpe *bpe;
    mb_split split;
    mb_text normal;
    bool special;                /* added tokens are looked for */
    const char *data, *data_end; /* here special ones are text; equal = nowhere */
    mb_error *err;
};

/* The longest added token of a kind that begins at text[at], or NULL. */
static const struct mb_added_token *added_at(const mb_tokenizer *tokenizer, int kind, const char *text, size_t n,
                                             size_t at)
{
    const size_t *first = tokenizer->added_first[kind];
    unsigned char byte = (unsigned char)text[at];
    for (size_t i = first[byte]; i < first[byte + 1u]; i++) {
        const struct mb_added_token *token = &tokenizer->added[i];
        if (token->match_length <= n - at && memcmp(token->match, text + at, token->match_length) == 0)
            return token;
    }
    return NULL;
}

bool mb_tokenizer_normalise(const mb_tokenizer *tokenizer, mb_text *out, const char *text, size_t n)
{
    return tokenizer->characters ? mb_characters_normalise(out, text, n) : mb_unicode_nfc(out, text, n);
}

/* Encodes normalised text that holds no added tokens. */
static int encode_pieces(struct encoding *e, const char *text, size_t n)
{
    if (n && e->tokenizer->characters) /* one piece, however long */
        return mb_bpe_piece(e->bpe, text, n) ? MB_OK : mb_no_memory(e->err, "encoding %zu bytes", n);
    if (n && !mb_split_text(&e->split, text, n))
        return mb_no_memory(e->err, "splitting %zu bytes of text", n);
    for (size_t from = 0; from < n;) {
        size_t end = mb_split_next(&e->split);
        if (end <= from || end > n)
            return mb_fail(e->err, MB_E_INPUT,
                           "the tokenizer's pre-tokenizer pattern takes too many steps on this text (byte %zu)",
                           from);
        if (!mb_bpe_piece(e->bpe, text + from, end - from))
            return mb_no_memory(e->err, "encoding a piece of %zu bytes", end - from);
        from = end;
    }
    return MB_OK;
}

static int encode_text(struct encoding *e, int kind, const char *text, size_t n);

/* Encodes what stands between the added tokens of a kind. */
static int encode_between(struct encoding *e, int kind, const char *text, size_t n)
{
    if (kind == KIND_NORMALIZED)
        return encode_pieces(e, text, n);
    if (e->tokenizer->nfc || e->tokenizer->characters) {
        mb_text_clear(&e->normal);
        if (!mb_tokenizer_normalise(e->tokenizer, &e->normal, text, n))
            return mb_no_memory(e->err, "normalising %zu bytes of text", n);
        text = e->normal.data ? e->normal.data : "";
        n = e->normal.length;
    }
    return encode_text(e, KIND_NORMALIZED, text, n);
}

/* A byte that begins no added token costs one look-up; UTF-8 rules out a match inside a character. */
static int encode_text(struct encoding *e, int kind, const char *text, size_t n)
{
    const mb_tokenizer *t = e->tokenizer;
    bool any = e->special && (kind == KIND_RAW ? t->added_raw > 0 : t->added_raw < t->added_count);
    size_t plain = 0; /* where the text that is not yet encoded begins */
    for (size_t at = 0; any && at < n;) {
        const struct mb_added_token *token = added_at(t, kind, text, n, at);
        if (!token || (token->special && text + at >= e->data && text + at < e->data_end)) {
            at++;
            continue;
        }
        int rc = encode_between(e, kind, text + plain, at - plain);
        if (rc != MB_OK)
            return rc;
        if (!mb_bpe_push(e->bpe, token->id))
            return mb_no_memory(e->err, "tokenising");
        at += token->match_length;
        plain = at;
    }
    return encode_between(e, kind, text + plain, n - plain);
}

static int encode(struct encoding *e, const char *text, size_t length, int32_t **ids, size_t *n)
{
    mb_error *err = e->err;
    mb_text repaired = {0};
    int rc = MB_OK;
    *ids = NULL;
    *n = 0;
    if (length > (size_t)1 << 29) /* positions inside a piece are int32, and NFC may triple the bytes */
        return mb_fail(err, MB_E_INPUT, "%zu bytes are too many to tokenise at once (limit 512 MiB)", length);
    if (!mb_utf8_check(text, length, NULL)) {
        mb_utf8_repair(&repaired, text, length);
        if (repaired.failed) {
            rc = mb_no_memory(err, "reading %zu bytes of text", length);
            goto out;
        }
        text = repaired.data;
        length = repaired.length;
    }
    e->bpe = mb_bpe_open(e->tokenizer);
    if (!e->bpe || !mb_split_open(&e->split, e->tokenizer->split, 3 * length)) {
        rc = mb_no_memory(err, "tokenising");
        goto out;
    }
    rc = encode_text(e, KIND_RAW, text, length);
    if (rc == MB_OK) {
        *ids = mb_bpe_take(e->bpe, n);
        if (!*ids)
            rc = mb_no_memory(err, "tokenising");
    }
out:
    mb_bpe_close(e->bpe);
    mb_split_close(&e->split);
    mb_text_free(&repaired);
    mb_text_free(&e->normal);
    return rc;
}

int mb_tokenizer_encode(const mb_tokenizer *tokenizer, const char *text, size_t length, bool special,
                        int32_t **ids, size_t *n, mb_error *err)
{
    struct encoding e = {.tokenizer = tokenizer, .special = special, .err = err};
    return encode(&e, text, length, ids, n);
}

int mb_tokenizer_encode_data(const mb_tokenizer *tokenizer, const char *text, size_t length, size_t from,
                             size_t to, int32_t **ids, size_t *n, mb_error *err)
{
    struct encoding e = {
        .tokenizer = tokenizer, .special = true, .data = text + from, .data_end = text + to, .err = err};
    *ids = NULL;
    *n = 0;
    if (!mb_utf8_check(text, length, NULL))
        return mb_fail(err, MB_E_SAMPLE, "a prompt whose special tokens are to stay text must be UTF-8");
    for (size_t i = tokenizer->added_raw; i < tokenizer->added_count; i++)
        if (tokenizer->added[i].special)
            return mb_fail(
                err, MB_E_INPUT,
                "the tokenizer looks for its special token %.60s in normalised text, where it cannot be "
                "told from the same text in a row: use \"special_tokens_in_data\": \"token\"",
                tokenizer->added[i].text);
    return encode(&e, text, length, ids, n);
}

size_t mb_tokenizer_special_in(const mb_tokenizer *tokenizer, const char *text, size_t length)
{
    size_t count = 0;
    for (size_t at = 0; at < length;) {
        const struct mb_added_token *token = added_at(tokenizer, KIND_RAW, text, length, at);
        if (!token)
            token = added_at(tokenizer, KIND_NORMALIZED, text, length, at);
        count += token && token->special;
        at += token ? token->match_length : 1;
    }
    return count;
}

int mb_tokenizer_decode(const mb_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                        char **text, size_t *length, mb_error *err)
{
    mb_text bytes = {0}, repaired = {0};
    int rc = MB_OK;
    *text = NULL;
    *length = 0;
    for (size_t i = 0; i < n && rc == MB_OK; i++)
        if (ids[i] < 0)
            rc = mb_fail(err, MB_E_BUG, "token %zu of %zu to decode is %d", i, n, ids[i]);
    if (rc == MB_OK && tokenizer->characters)
        bytes.failed |= !mb_characters_decode(tokenizer, ids, n, skip_special, &bytes);
    for (size_t i = 0; i < n && rc == MB_OK && !tokenizer->characters; i++) {
        /* Ids between the last token and the padded vocabulary of the model stand for nothing, as in the
         * reference. */
        if (ids[i] < tokenizer->size && !(skip_special && tokenizer->tokens[ids[i]].special))
            mb_text_append(&bytes, tokenizer->pool.data + tokenizer->tokens[ids[i]].offset,
                           tokenizer->tokens[ids[i]].length);
    }
    if (rc == MB_OK) {
        mb_utf8_repair(&repaired, bytes.data ? bytes.data : "", bytes.length);
        *length = repaired.length;
        *text = bytes.failed ? NULL : mb_text_take(&repaired);
        if (!*text)
            rc = mb_no_memory(err, "decoding %zu tokens", n);
    }
    mb_text_free(&bytes);
    mb_text_free(&repaired);
    return rc;
}
