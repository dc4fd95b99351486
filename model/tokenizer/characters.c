/*
 * characters.c - the second kind of tokenizer.json: BPE over characters with byte fallback, as Gemma's files have
 * it (class GemmaTokenizer of transformers 5.24). What it does otherwise than byte-level BPE:
 *
 *   - a space is written U+2581 before anything else; no text has a piece boundary inside
 *   - merges begin with characters; one that is no token is taken apart into the tokens <0x00> .. <0xFF> of its
 *     bytes
 *   - ids become text token by token, U+2581 a space again; a run of byte tokens that is no UTF-8 as a whole
 *     becomes one U+FFFD a byte
 *   - the post processor may put tokens in front of a text (<bos>). mb_tokenizer_encode() leaves them out, since
 *     chat templates write them; mb_tokenizer_begin() has them
 */
#include "model/tokenizer/tokenizer.h"

#include "base/json.h"
#include "model/checkpoint/json.h"

#include <stdio.h>
#include <string.h>

#define MARK "\xE2\x96\x81" /* U+2581 */
#define MARK_BYTES 3

static bool has_text(const cJSON *object, const char *key, const char *text)
{
    const char *value = mb_json_string(object, key);
    return value && strcmp(value, text) == 0;
}

static bool has_type(const cJSON *object, const char *type)
{
    return has_text(object, "type", type);
}

bool mb_characters_is(const cJSON *model)
{
    return cJSON_IsTrue(mb_json_member(model, "byte_fallback"));
}

/* {"type": "Replace", "pattern": {"String": from}, "content": to}. */
static bool replaces(const cJSON *item, const char *from, const char *to)
{
    return has_type(item, "Replace") && has_text(mb_json_member(item, "pattern"), "String", from) &&
           has_text(item, "content", to);
}

/* A split at spaces finds none any more; any other one would cut texts. */
static bool splits_nothing(const cJSON *pre)
{
    return !pre || (has_type(pre, "Split") && has_text(mb_json_member(pre, "pattern"), "String", " ") &&
                    !cJSON_IsTrue(mb_json_member(pre, "invert")));
}

static bool decodes(const cJSON *decoder)
{
    const cJSON *first = has_type(decoder, "Sequence") ? mb_json_member(decoder, "decoders") : NULL;
    first = first ? first->child : NULL;
    const cJSON *second = first ? first->next : NULL, *third = second ? second->next : NULL;
    return replaces(first, MARK, " ") && has_type(second, "ByteFallback") && has_type(third, "Fuse") &&
           !third->next;
}

/* Special tokens, then the text, and nothing behind it. */
static bool begins_only(const cJSON *post)
{
    const cJSON *item, *single = mb_json_member(post, "single");
    bool text = false;
    if (!post)
        return true;
    cJSON_ArrayForEach(item, single) {
        if (text)
            return false;
        text = mb_json_member(item, "Sequence") != NULL;
    }
    return has_type(post, "TemplateProcessing") && text;
}

const char *mb_characters_problem(const cJSON *root)
{
    if (!replaces(mb_json_member(root, "normalizer"), " ", MARK))
        return "its normalizer does not write U+2581 for a space";
    if (!splits_nothing(mb_json_member(root, "pre_tokenizer")))
        return "its pre_tokenizer splits a text elsewhere than at spaces";
    if (!begins_only(mb_json_member(root, "post_processor")))
        return "its post_processor does more than put tokens in front of a text";
    if (!decodes(mb_json_member(root, "decoder")))
        return "its decoder is not U+2581 to a space, ByteFallback and Fuse";
    return NULL;
}

/* The post processor names special tokens; "special_tokens" says which ids each of them is. */
static int read_begin(mb_tokenizer *t, const cJSON *post, const char *where, mb_error *err)
{
    const size_t room = sizeof t->begin / sizeof t->begin[0];
    const cJSON *item, *one;
    cJSON_ArrayForEach(item, mb_json_member(post, "single")) {
        const char *name = mb_json_string(mb_json_member(item, "SpecialToken"), "id");
        const cJSON *token = name ? mb_json_member(mb_json_member(post, "special_tokens"), name) : NULL;
        cJSON_ArrayForEach(one, mb_json_member(token, "ids")) {
            int64_t id = 0;
            if (t->begin_count == room || !mb_model_json_integer(one, 0, t->size - 1, &id))
                return mb_fail(err, MB_E_INPUT,
                               "%s: the post_processor puts more than %zu tokens in front of a text, or one that "
                               "does not exist",
                               where, room);
            t->begin[t->begin_count++] = (int32_t)id;
        }
        if (name && !mb_json_member(token, "ids"))
            return mb_fail(err, MB_E_INPUT, "%s: the post_processor has no ids of its token \"%.64s\"", where,
                           name);
    }
    return MB_OK;
}

int mb_characters_finish(mb_tokenizer *t, const cJSON *root, const char *where, mb_error *err)
{
    return read_begin(t, mb_json_member(root, "post_processor"), where, err);
}

int mb_characters_bytes(mb_tokenizer *t, const char *where, mb_error *err)
{
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        int n = snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        t->byte_ids[byte] = mb_tokenizer_index_find(t, name, (size_t)n);
        if (t->byte_ids[byte] < 0)
            return mb_fail(err, MB_E_INPUT,
                           "%s: the vocabulary has no token %s, so not every text could be written", where, name);
    }
    return MB_OK;
}

bool mb_characters_normalise(mb_text *out, const char *text, size_t n)
{
    const char *end = text + n;
    while (text < end) {
        const char *space = memchr(text, ' ', (size_t)(end - text));
        const char *stop = space ? space : end;
        mb_text_append(out, text, (size_t)(stop - text));
        if (space)
            mb_text_append(out, MARK, MARK_BYTES);
        text = space ? space + 1 : end;
    }
    return !out->failed;
}

size_t mb_characters_symbols(const mb_tokenizer *t, const char *bytes, size_t n, int32_t *ids)
{
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t width = mb_utf8_next(bytes + i, n - i, &c);
        int32_t id = mb_tokenizer_index_find(t, bytes + i, width);
        if (id >= 0)
            ids[count++] = id;
        for (size_t k = 0; id < 0 && k < width; k++)
            ids[count++] = t->byte_ids[(unsigned char)bytes[i + k]];
        i += width;
    }
    return count;
}

/* ---- ids to text ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte that a token <0xXX> stands for, whatever its id; -1 = it is another token. */
static int byte_of(const char *token, size_t n)
{
    if (n != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>')
        return -1;
    int high = hex_digit(token[3]), low = hex_digit(token[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

/* The run of byte tokens that ends here. */
static void put_run(mb_text *out, mb_text *run)
{
    if (run->length && mb_utf8_check(run->data, run->length, NULL))
        mb_text_append(out, run->data, run->length);
    else
        for (size_t i = 0; i < run->length; i++)
            mb_text_puts(out, "\xEF\xBF\xBD");
    mb_text_clear(run);
}

static void put_token(mb_text *out, const char *token, size_t n)
{
    for (size_t i = 0; i < n;) {
        bool mark = n - i >= MARK_BYTES && memcmp(token + i, MARK, MARK_BYTES) == 0;
        mb_text_append(out, mark ? " " : token + i, 1);
        i += mark ? MARK_BYTES : 1;
    }
}

bool mb_characters_decode(const mb_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, mb_text *out)
{
    mb_text run = {0};
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= t->size || !t->tokens[ids[i]].used || (skip_special && t->tokens[ids[i]].special))
            continue; /* no token: left out before the run is looked at */
        const struct mb_token *token = &t->tokens[ids[i]];
        const char *text = t->pool.data + token->offset;
        int byte = byte_of(text, token->length);
        if (byte >= 0) {
            char one = (char)(unsigned char)byte;
            mb_text_append(&run, &one, 1);
        } else {
            put_run(out, &run);
            put_token(out, text, token->length);
        }
    }
    put_run(out, &run);
    bool ok = !run.failed && !out->failed;
    mb_text_free(&run);
    return ok;
}
