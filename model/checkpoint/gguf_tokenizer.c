/*
 * gguf_tokenizer.c - the tokenizer and chat template inside a GGUF file as tokenizer.json and
 * tokenizer_config.json.
 *
 * Only byte-level BPE is read (tokenizer.ggml.model "gpt2"). The file names its pre-tokenizer and does not hold
 * it: a row of `pre_tokenizers` has the pattern, and whether texts are normalised, as the tokenizer.json has it
 * that such files are made from. Tokens of the kind "control" are special, those "user defined" are found in text
 * and are not; "unused" ones fill the numbering and are left out.
 */
#include "model/checkpoint/gguf_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };

/* Patterns as they stand in tokenizer.json.
 * smollm: digits one by one, then GPT-2's pattern on what is between them, in one pattern: the end of a stretch is
 * a digit or the end of the text. */
static const struct pre_tokenizer {
    const char *name, *pattern;
    bool nfc;
    bool whole;   /* a piece that is a token as it stands is not merged (ignore_merges) */
    bool add_bos; /* where tokenizer.ggml.add_bos_token does not say */
} pre_tokenizers[] = {
    {"gpt-2", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", false, false,
     false},
    {"smollm", "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?![^\\s\\p{N}])|\\s+", false,
     false, false},
    {"qwen2",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     true, false, false},
    {"llama-bpe",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     false, true, true},
};
#define PRE_TOKENIZERS (sizeof pre_tokenizers / sizeof pre_tokenizers[0])

/* What the file holds, once it is known to be there. */
struct vocabulary {
    const mb_gguf *gguf;
    const mb_gguf_value *tokens, *types, *merges; /* types NULL: all are normal */
    const struct pre_tokenizer *pre;
};

static int find_pre(struct vocabulary *v, mb_error *err)
{
    mb_gguf_text model = {"", 0}, pre = {"", 0};
    mb_text known = {0};
    int rc = mb_gguf_want_text(v->gguf, "tokenizer.ggml.model", &model, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_text(v->gguf, "tokenizer.ggml.pre", &pre, err);
    if (rc == MB_OK && !mb_gguf_same(model, "gpt2"))
        rc = mb_fail(err, MB_E_INPUT,
                     "%s: tokenizers of the kind \"%.*s\" are not read, only byte-level BPE (\"gpt2\"): use the "
                     "checkpoint folder",
                     v->gguf->where, (int)(model.length < 64 ? model.length : 64), model.bytes);
    if (rc != MB_OK)
        return rc;
    for (size_t i = 0; i < PRE_TOKENIZERS && !v->pre; i++) {
        if (mb_gguf_same(pre, pre_tokenizers[i].name))
            v->pre = &pre_tokenizers[i];
        mb_text_printf(&known, "%s%s", i ? ", " : "", pre_tokenizers[i].name);
    }
    if (!v->pre)
        rc = mb_fail(
            err, MB_E_INPUT, "%s: the pre-tokenizer \"%.*s\" (tokenizer.ggml.pre) is not known: known are %s",
            v->gguf->where, (int)(pre.length < 64 ? pre.length : 64), pre.bytes, known.data ? known.data : "");
    mb_text_free(&known);
    return rc;
}

static int open_vocabulary(struct vocabulary *v, const mb_gguf *gguf, mb_error *err)
{
    *v = (struct vocabulary){.gguf = gguf};
    int rc = find_pre(v, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_array(gguf, "tokenizer.ggml.tokens", MB_GGUF_STRING, &v->tokens, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_array(gguf, "tokenizer.ggml.token_type", MB_GGUF_I32, &v->types, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_array(gguf, "tokenizer.ggml.merges", MB_GGUF_STRING, &v->merges, err);
    if (rc == MB_OK && (!v->tokens || !v->merges))
        rc = mb_fail(err, MB_E_INPUT, "%s: the key tokenizer.ggml.%s is missing", gguf->where,
                     v->tokens ? "merges" : "tokens");
    if (rc == MB_OK && v->types && v->types->count != v->tokens->count)
        rc = mb_fail(err, MB_E_INPUT, "%s: %llu tokens, but %llu of them have a type", gguf->where,
                     (unsigned long long)v->tokens->count, (unsigned long long)v->types->count);
    return rc;
}

static int64_t token_type(const struct vocabulary *v, uint64_t id)
{
    return v->types ? mb_gguf_integer_at(v->types, id) : TOKEN_NORMAL;
}

/* A token that is placed in front of every text would have to be placed by whoever makes a prompt. */
static int check_bos(const struct vocabulary *v, mb_error *err)
{
    bool bos = v->pre->add_bos, eos = false;
    int rc = mb_gguf_want_bool(v->gguf, "tokenizer.ggml.add_bos_token", &bos, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_bool(v->gguf, "tokenizer.ggml.add_eos_token", &eos, err);
    if (rc == MB_OK && (bos || eos))
        rc = mb_fail(err, MB_E_INPUT,
                     "%s: its tokenizer adds a token to every text (tokenizer.ggml.add_%s_token), which is not "
                     "supported",
                     v->gguf->where, bos ? "bos" : "eos");
    return rc;
}

/* Calls of one token at a time: all of them, or those that are added. */
static void put_added(const struct vocabulary *v, mb_text *json)
{
    const unsigned char *at = v->tokens->data;
    const char *between = "";
    for (uint64_t id = 0; id < v->tokens->count; id++) {
        const mb_gguf_text token = mb_gguf_take_text(&at);
        const int64_t type = token_type(v, id);
        if (type != TOKEN_CONTROL && type != TOKEN_USER)
            continue;
        mb_text_printf(json, "%s\n    {\"id\": %llu, \"content\": \"", between, (unsigned long long)id);
        mb_gguf_write_text(json, token);
        mb_text_printf(json,
                       "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                       "\"special\": %s}",
                       type == TOKEN_CONTROL ? "true" : "false");
        between = ",";
    }
}

static int put_vocabulary(const struct vocabulary *v, mb_text *json, mb_error *err)
{
    const unsigned char *at = v->tokens->data;
    const char *between = "";
    for (uint64_t id = 0; id < v->tokens->count; id++) {
        const mb_gguf_text token = mb_gguf_take_text(&at);
        const int64_t type = token_type(v, id);
        if (type < TOKEN_NORMAL || type >= TOKEN_BYTE)
            return mb_fail(err, MB_E_INPUT, "%s: token %llu is of kind %lld, which byte-level BPE does not have",
                           v->gguf->where, (unsigned long long)id, (long long)type);
        if (type == TOKEN_UNUSED)
            continue;
        mb_text_printf(json, "%s\n      \"", between);
        mb_gguf_write_text(json, token);
        mb_text_printf(json, "\": %llu", (unsigned long long)id);
        between = ",";
    }
    return MB_OK;
}

static void put_merges(const struct vocabulary *v, mb_text *json)
{
    const unsigned char *at = v->merges->data;
    for (uint64_t i = 0; i < v->merges->count; i++) {
        mb_text_puts(json, i ? ",\n      \"" : "\n      \"");
        mb_gguf_write_text(json, mb_gguf_take_text(&at));
        mb_text_puts(json, "\"");
    }
}

int mb_gguf_write_tokenizer(const mb_gguf *gguf, mb_text *json, mb_error *err)
{
    static const char level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
                                "\"use_regex\": false}";
    struct vocabulary v;
    int rc = open_vocabulary(&v, gguf, err);
    if (rc == MB_OK)
        rc = check_bos(&v, err);
    if (rc != MB_OK)
        return rc;
    mb_text_puts(json, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
                       "  \"added_tokens\": [");
    put_added(&v, json);
    mb_text_printf(json, "\n  ],\n  \"normalizer\": %s,\n", v.pre->nfc ? "{\"type\": \"NFC\"}" : "null");
    mb_text_puts(json,
                 "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n    {\"type\": \"Split\", "
                 "\"pattern\": {\"Regex\": \"");
    mb_text_json(json, v.pre->pattern);
    mb_text_printf(
        json,
        "\"}, \"behavior\": \"Isolated\", \"invert\": false},\n    %s\n  ]},\n  \"post_processor\": null,\n"
        "  \"decoder\": %s,\n",
        level, level);
    mb_text_printf(json,
                   "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,\n"
                   "    \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false,\n"
                   "    \"byte_fallback\": false, \"ignore_merges\": %s,\n    \"vocab\": {",
                   v.pre->whole ? "true" : "false");
    rc = put_vocabulary(&v, json, err);
    mb_text_puts(json, "\n    },\n    \"merges\": [");
    put_merges(&v, json);
    mb_text_puts(json, "\n    ]\n  }\n}\n");
    return rc == MB_OK && json->failed ? mb_no_memory(err, "the tokenizer of %s", gguf->where) : rc;
}

/* The text of a token by its id. */
static mb_gguf_text token_at(const struct vocabulary *v, uint64_t wanted)
{
    const unsigned char *at = v->tokens->data;
    mb_gguf_text token = {"", 0};
    for (uint64_t id = 0; id <= wanted; id++)
        token = mb_gguf_take_text(&at);
    return token;
}

int mb_gguf_write_tokenizer_config(const mb_gguf *gguf, mb_text *json, mb_error *err)
{
    static const char *const roles[][2] = {
        {"bos_token", "tokenizer.ggml.bos_token_id"},     {"eos_token", "tokenizer.ggml.eos_token_id"},
        {"unk_token", "tokenizer.ggml.unknown_token_id"}, {"pad_token", "tokenizer.ggml.padding_token_id"},
        {"mask_token", "tokenizer.ggml.mask_token_id"},
    };
    struct vocabulary v;
    mb_gguf_text chat = {NULL, 0};
    int rc = open_vocabulary(&v, gguf, err);
    mb_text_puts(json, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                       "  \"clean_up_tokenization_spaces\": false");
    for (size_t i = 0; i < sizeof roles / sizeof roles[0] && rc == MB_OK; i++) {
        int64_t id = -1;
        rc = mb_gguf_want_int(gguf, roles[i][1], 0, (int64_t)v.tokens->count - 1, &id, err);
        if (rc != MB_OK || id < 0)
            continue;
        mb_text_printf(json, ",\n  \"%s\": \"", roles[i][0]);
        mb_gguf_write_text(json, token_at(&v, (uint64_t)id));
        mb_text_puts(json, "\"");
    }
    if (rc == MB_OK)
        rc = mb_gguf_want_text(gguf, "tokenizer.chat_template", &chat, err);
    if (rc == MB_OK && chat.bytes) {
        mb_text_puts(json, ",\n  \"chat_template\": \"");
        mb_gguf_write_text(json, chat);
        mb_text_puts(json, "\"");
    }
    mb_text_puts(json, "\n}\n");
    return rc == MB_OK && json->failed ? mb_no_memory(err, "the tokenizer of %s", gguf->where) : rc;
}
