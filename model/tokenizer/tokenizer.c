/*
 * tokenizer.c - text to ids and back (models.md 10.1).
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
    for (size_t i = 0; i < tokenizer->added_count; i++)
        free(tokenizer->added[i].text);
    free(tokenizer->added);
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
    for (size_t i = 0; i < tokenizer->added_count; i++)
        if (tokenizer->added[i].length == n && memcmp(tokenizer->added[i].text, token, n) == 0)
            return tokenizer->added[i].id;
    return n ? mb_tokenizer_index_find(tokenizer, token, n) : -1;
}

/* The longest added token that begins at text[at], or NULL. */
static const struct mb_added_token *added_at(const mb_tokenizer *tokenizer, const char *text, size_t n, size_t at)
{
    unsigned char byte = (unsigned char)text[at];
    for (size_t i = tokenizer->added_first[byte]; i < tokenizer->added_first[byte + 1u]; i++) {
        const struct mb_added_token *token = &tokenizer->added[i];
        if (token->length <= n - at && memcmp(token->text, text + at, token->length) == 0)
            return token;
    }
    return NULL;
}

/* Encodes text that holds no added tokens. */
static int encode_plain(const mb_tokenizer *tokenizer, mb_bpe *bpe, mb_split *split, mb_text *normal,
                        const char *text, size_t n, mb_error *err)
{
    if (tokenizer->nfc) {
        mb_text_clear(normal);
        if (!mb_unicode_nfc(normal, text, n))
            return mb_no_memory(err, "normalising %zu bytes of text", n);
        text = normal->data;
        n = normal->length;
    }
    if (n && !mb_split_text(split, text, n))
        return mb_no_memory(err, "splitting %zu bytes of text", n);
    for (size_t from = 0; from < n;) {
        size_t end = mb_split_next(split);
        if (end <= from || end > n)
            return mb_fail(err, MB_E_INPUT,
                           "the tokenizer's pre-tokenizer pattern takes too many steps on this text (byte %zu)",
                           from);
        if (!mb_bpe_piece(bpe, text + from, end - from))
            return mb_no_memory(err, "encoding a piece of %zu bytes", end - from);
        from = end;
    }
    return MB_OK;
}

int mb_tokenizer_encode(const mb_tokenizer *tokenizer, const char *text, size_t length, bool special,
                        int32_t **ids, size_t *n, mb_error *err)
{
    mb_text repaired = {0}, normal = {0};
    mb_split split = {0};
    mb_bpe *bpe = NULL;
    int rc = MB_OK;
    size_t plain = 0; /* where the text that is not yet encoded begins */
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
    bpe = mb_bpe_open(tokenizer);
    if (!bpe || !mb_split_open(&split, tokenizer->split, 3 * length)) {
        rc = mb_no_memory(err, "tokenising");
        goto out;
    }
    /* A byte that begins no added token costs one look-up; UTF-8 rules out a match inside a character. */
    for (size_t at = 0; special && at < length && rc == MB_OK;) {
        const struct mb_added_token *token = added_at(tokenizer, text, length, at);
        if (!token) {
            at++;
            continue;
        }
        rc = encode_plain(tokenizer, bpe, &split, &normal, text + plain, at - plain, err);
        if (rc == MB_OK && !mb_bpe_push(bpe, token->id))
            rc = mb_no_memory(err, "tokenising");
        at += token->length;
        plain = at;
    }
    if (rc == MB_OK)
        rc = encode_plain(tokenizer, bpe, &split, &normal, text + plain, length - plain, err);
    if (rc == MB_OK) {
        *ids = mb_bpe_take(bpe, n);
        if (!*ids)
            rc = mb_no_memory(err, "tokenising");
    }
out:
    mb_bpe_close(bpe);
    mb_split_close(&split);
    mb_text_free(&repaired);
    mb_text_free(&normal);
    return rc;
}

int mb_tokenizer_decode(const mb_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                        char **text, size_t *length, mb_error *err)
{
    mb_text bytes = {0}, repaired = {0};
    int rc = MB_OK;
    *text = NULL;
    *length = 0;
    for (size_t i = 0; i < n && rc == MB_OK; i++) {
        /* Ids between the last token and the padded vocabulary of the model stand for nothing, as in the
         * reference. */
        if (ids[i] < 0)
            rc = mb_fail(err, MB_E_BUG, "token %zu of %zu to decode is %d", i, n, ids[i]);
        else if (ids[i] < tokenizer->size && !(skip_special && tokenizer->tokens[ids[i]].special))
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
