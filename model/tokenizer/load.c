/*
 * load.c - the files of a tokenizer -> its tables.
 *
 * Two layouts: tokenizer.json alone, or vocab.json with merges.txt. Added tokens are the union of what
 * tokenizer.json and added_tokens_decoder of tokenizer_config.json say; a contradiction is an error.
 * added_tokens.json and special_tokens_map.json are the older form of that entry and count only where it is
 * absent, and tokenizer.json wins over them, as in transformers (4.57 and 5.24 were looked at). A token is special
 * when any of them flags it or gives it a role; a role that names no token of the folder is passed over. A
 * tokenizer.json is of one of two kinds, byte-level or over characters (characters.c); one that asks for anything
 * else (another normaliser, a token behind a text) is refused, because loading it anyway would give other ids
 * without anybody noticing.
 */
#include "model/tokenizer/tokenizer.h"

#include "model/checkpoint/json.h"
#include "model/checkpoint/source.h"

#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES ((size_t)256 << 20)

/* NULL for absent and null; get(NULL, ...) is NULL too, so that paths can be chained. */
static const cJSON *get(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

static bool is_type(const cJSON *object, const char *type)
{
    const cJSON *item = get(object, "type");
    return cJSON_IsString(item) && strcmp(item->valuestring, type) == 0;
}

/* ---- vocabulary and merges ---- */

/* A vocabulary that was cut to the bytes of its training text lacks some that are rare or no UTF-8 (SmolLM2's 21
 * of them): controls, and what begins a character above U+3FFFF. The reference leaves them out of a text. */
static bool may_lack(int byte)
{
    return (byte < 32 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 127 || byte == 0xC0 ||
           byte == 0xC1 || byte > 0xF0;
}

/* Appends the bytes that a token of the vocabulary, or half of a merge, stands for in a text. False: none. */
static bool spell_token(const mb_tokenizer *t, mb_text *bytes, const char *token, size_t n)
{
    if (!t->characters)
        return mb_tokenizer_unmap(bytes, token, n);
    for (const char *end = token + n; token < end;) {
        char put[4];
        uint32_t c;
        token += mb_utf8_python(token, (size_t)(end - token), &c);
        mb_text_append(bytes, put, mb_utf8_put(put, c));
    }
    return true;
}

/* {token: id}. Afterwards the single bytes must be tokens: then any text can be encoded and nothing is ever
 * unknown. */
static int read_vocab(mb_tokenizer *t, const cJSON *vocab, const char *where, mb_error *err)
{
    mb_text bytes = {0};
    int rc = MB_OK;
    if (!cJSON_IsObject(vocab))
        return mb_fail(err, MB_E_INPUT, "%s: the vocabulary is missing or no object", where);
    if (!mb_tokenizer_index_reserve(t, (size_t)cJSON_GetArraySize(vocab)))
        return mb_no_memory(err, "the vocabulary of %s", where);
    for (const cJSON *entry = vocab->child; entry && rc == MB_OK; entry = entry->next) {
        int64_t id = 0;
        if (!mb_model_json_integer(entry, 0, INT32_MAX, &id)) {
            rc = mb_fail(err, MB_E_INPUT, "%s: the id of token \"%.64s\" must be a whole number >= 0", where,
                         entry->string);
            break;
        }
        mb_text_clear(&bytes);
        bool mapped = spell_token(t, &bytes, entry->string, strlen(entry->string));
        if (!mapped) { /* never made by merges; kept for decoding, spelled as it is */
            mb_text_clear(&bytes);
            mb_text_unspell(&bytes, entry->string);
        }
        rc = bytes.failed ? mb_no_memory(err, "the vocabulary of %s", where)
                          : mb_tokenizer_add(t, id, bytes.data ? bytes.data : "", bytes.length, where, err);
        if (rc == MB_OK && mapped && bytes.length && !mb_tokenizer_index_put(t, (int32_t)id))
            rc = mb_fail(err, MB_E_INPUT, "%s: token \"%.64s\" is in the vocabulary twice", where, entry->string);
    }
    mb_text_free(&bytes);
    if (rc == MB_OK && t->characters)
        return mb_characters_bytes(t, where, err);
    for (int byte = 0; byte < 256 && rc == MB_OK; byte++) {
        char one = (char)(unsigned char)byte;
        t->byte_ids[byte] = mb_tokenizer_index_find(t, &one, 1);
        if (t->byte_ids[byte] < 0 && !may_lack(byte))
            rc = mb_fail(err, MB_E_INPUT,
                         "%s: the vocabulary has no token for byte %d; this is no byte-level tokenizer", where,
                         byte);
    }
    return rc;
}

/* One merge; left and right as the file spells them. */
typedef struct merge {
    const char *left, *right;
    size_t left_n, right_n;
    int32_t rank;
} merge;

/* bytes: a buffer to work in. */
static int add_merge(mb_tokenizer *t, const merge *m, mb_text *bytes, const char *where, mb_error *err)
{
    const int left_shown = (int)(m->left_n < 64 ? m->left_n : 64),
              right_shown = (int)(m->right_n < 64 ? m->right_n : 64);
    mb_text_clear(bytes);
    /* Both halves go into one buffer; their concatenation is the merged token's bytes. */
    bool ok = m->left_n && m->right_n && spell_token(t, bytes, m->left, m->left_n);
    size_t middle = bytes->length;
    ok = ok && spell_token(t, bytes, m->right, m->right_n) && !bytes->failed;
    int32_t a = ok ? mb_tokenizer_index_find(t, bytes->data, middle) : -1;
    int32_t b = ok ? mb_tokenizer_index_find(t, bytes->data + middle, bytes->length - middle) : -1;
    int32_t whole = ok ? mb_tokenizer_index_find(t, bytes->data, bytes->length) : -1;
    if (a < 0 || b < 0 || whole < 0)
        return mb_fail(err, MB_E_INPUT,
                       "%s: merge %d (\"%.*s\" + \"%.*s\") uses tokens that the "
                       "vocabulary lacks",
                       where, m->rank + 1, left_shown, m->left, right_shown, m->right);
    if (!mb_tokenizer_rules_put(t, a, b, m->rank, whole))
        return mb_fail(err, MB_E_INPUT, "%s: merge %d (\"%.*s\" + \"%.*s\") stands there twice", where,
                       m->rank + 1, left_shown, m->left, right_shown, m->right);
    return MB_OK;
}

/* "left right" -> one merge. */
static int add_merge_line(mb_tokenizer *t, const char *line, size_t n, int32_t rank, mb_text *bytes,
                          const char *where, mb_error *err)
{
    const char *blank = memchr(line, ' ', n);
    if (!blank || memchr(blank + 1, ' ', (size_t)(line + n - blank - 1)))
        return mb_fail(err, MB_E_INPUT, "%s: merge %d must be two tokens with one space between them", where,
                       rank + 1);
    const merge m = {.left = line,
                     .left_n = (size_t)(blank - line),
                     .right = blank + 1,
                     .right_n = (size_t)(line + n - blank - 1),
                     .rank = rank};
    return add_merge(t, &m, bytes, where, err);
}

/* Rank = position in the list. Strings are the older form, pairs the newer one. */
static int read_merges_json(mb_tokenizer *t, const cJSON *merges, const char *where, mb_error *err)
{
    mb_text bytes = {0};
    int rc = MB_OK;
    int32_t rank = 0;
    if (!cJSON_IsArray(merges))
        return mb_fail(err, MB_E_INPUT, "%s: \"merges\" is missing or no list", where);
    if (!mb_tokenizer_rules_reserve(t, (size_t)cJSON_GetArraySize(merges)))
        return mb_no_memory(err, "the merges of %s", where);
    for (const cJSON *item = merges->child; item && rc == MB_OK; item = item->next, rank++) {
        const cJSON *a = cJSON_IsArray(item) ? item->child : NULL, *b = a ? a->next : NULL;
        if (cJSON_IsString(item))
            rc = add_merge_line(t, item->valuestring, strlen(item->valuestring), rank, &bytes, where, err);
        else if (cJSON_IsString(a) && cJSON_IsString(b) && !b->next)
            rc = add_merge(t,
                           &(merge){.left = a->valuestring,
                                    .left_n = strlen(a->valuestring),
                                    .right = b->valuestring,
                                    .right_n = strlen(b->valuestring),
                                    .rank = rank},
                           &bytes, where, err);
        else
            rc = mb_fail(err, MB_E_INPUT, "%s: merge %d must be a string or a pair of strings", where, rank + 1);
    }
    mb_text_free(&bytes);
    return rc;
}

/* merges.txt: one merge a line; only the first line may be a version, since "# #" is a merge like any other. */
static int read_merges_text(mb_tokenizer *t, const char *text, size_t size, const char *where, mb_error *err)
{
    const char *end = text + size, *line = text;
    mb_text bytes = {0};
    size_t lines = 1;
    int32_t rank = 0;
    int rc = MB_OK;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    if (!mb_tokenizer_rules_reserve(t, lines))
        return mb_no_memory(err, "the merges of %s", where);
    while (line < end && rc == MB_OK) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((stop ? stop : end) - line);
        bool version = line == text && n >= 8 && memcmp(line, "#version", 8) == 0;
        if (n && line[n - 1] == '\r')
            n--;
        if (n && !version)
            rc = add_merge_line(t, line, n, rank++, &bytes, where, err);
        line = stop ? stop + 1 : end;
    }
    mb_text_free(&bytes);
    return rc;
}

/* ---- tokenizer.json ---- */

/* The pattern of the pre-tokenizer: a Sequence of a Split by regex and ByteLevel. */
static const char *find_pattern(const cJSON *pre)
{
    const cJSON *list = is_type(pre, "Sequence") ? get(pre, "pretokenizers") : NULL;
    const cJSON *split = list ? list->child : NULL, *level = split ? split->next : NULL;
    if (!is_type(split, "Split") || !is_type(level, "ByteLevel") || level->next)
        return NULL;
    const cJSON *regex = get(get(split, "pattern"), "Regex"), *behavior = get(split, "behavior");
    if (!cJSON_IsString(regex) || !cJSON_IsString(behavior) || strcmp(behavior->valuestring, "Isolated") != 0 ||
        cJSON_IsTrue(get(split, "invert")) || cJSON_IsTrue(get(level, "add_prefix_space")) ||
        !cJSON_IsFalse(get(level, "use_regex")))
        return NULL;
    return regex->valuestring;
}

/* Absent, null and "" all say: none. */
static bool empty_text(const cJSON *item)
{
    return !item || (cJSON_IsString(item) && item->valuestring[0] == '\0');
}

/* A template that puts a token beside the text, or the text twice, is none of these. */
static bool template_adds_nothing(const cJSON *post)
{
    const cJSON *single = get(post, "single");
    return cJSON_IsArray(single) && cJSON_GetArraySize(single) == 1 && get(single->child, "Sequence");
}

/* What is done with the ids in the end. ByteLevel moves offsets only; a sequence is what its parts are. */
static bool adds_nothing(const cJSON *post)
{
    const cJSON *part, *parts = get(post, "processors");
    if (!post || is_type(post, "ByteLevel"))
        return true;
    if (is_type(post, "TemplateProcessing"))
        return template_adds_nothing(post);
    if (!is_type(post, "Sequence") || !cJSON_IsArray(parts))
        return false;
    cJSON_ArrayForEach(part, parts) {
        bool level = is_type(part, "ByteLevel"); /* no sequence in a sequence: nobody writes one */
        if (!level && !(is_type(part, "TemplateProcessing") && template_adds_nothing(part)))
            return false;
    }
    return true;
}

/* Everything in the file that would change ids is looked at; what is not known to be harmless is refused. */
static int check_pipeline(const cJSON *root, const char *where, mb_error *err)
{
    const cJSON *model = get(root, "model"), *normalizer = get(root, "normalizer");
    const cJSON *post = get(root, "post_processor"), *decoder = get(root, "decoder");
    const char *problem = NULL;
    if (!cJSON_IsObject(model) || (get(model, "type") && !is_type(model, "BPE")))
        problem = "its model is not BPE";
    else if (get(model, "dropout") &&
             !(cJSON_IsNumber(get(model, "dropout")) && get(model, "dropout")->valuedouble == 0))
        problem = "it asks for BPE dropout";
    else if (!mb_characters_is(model) && get(model, "unk_token"))
        problem = "it uses unk_token";
    else if (!empty_text(get(model, "continuing_subword_prefix")) || !empty_text(get(model, "end_of_word_suffix")))
        problem = "it uses subword prefixes or word suffixes";
    else if (mb_characters_is(model))
        problem = mb_characters_problem(root);
    else if (normalizer && !is_type(normalizer, "NFC"))
        problem = "its normalizer is not NFC";
    else if (!find_pattern(get(root, "pre_tokenizer")))
        problem = "its pre_tokenizer is not Split (regex, isolated) followed by ByteLevel";
    else if (!adds_nothing(post))
        problem = "its post_processor adds tokens";
    else if (decoder && !is_type(decoder, "ByteLevel"))
        problem = "its decoder is not ByteLevel";
    if (problem)
        return mb_fail(
            err, MB_E_INPUT,
            "%s: %s; only byte-level BPE as in Qwen2 and Qwen3, and BPE with byte fallback as in Gemma, "
            "are supported",
            where, problem);
    return MB_OK;
}

/* Adds a token whose text is as base/json.h spells it. */
static int add_added(mb_tokenizer *t, int64_t id, const char *spelled, struct mb_added_token token,
                     const char *where, mb_error *err)
{
    mb_text text = {0};
    mb_text_unspell(&text, spelled);
    token.text = text.data;
    token.length = text.length;
    token.id = (int32_t)id;
    int rc = text.failed ? mb_no_memory(err, "the added tokens of %s", where)
                         : mb_tokenizer_add_added(t, &token, where, err);
    mb_text_free(&text);
    return rc;
}

/* One added token as {content, special, ...}. Normalised unless it is special, where the file does not say. */
static int read_added(mb_tokenizer *t, int64_t id, const cJSON *entry, const char *where, mb_error *err)
{
    const cJSON *content = get(entry, "content"), *normalized = get(entry, "normalized");
    bool special = cJSON_IsTrue(get(entry, "special"));
    if (!cJSON_IsString(content))
        return mb_fail(err, MB_E_INPUT, "%s: added token %lld has no \"content\"", where, (long long)id);
    if (cJSON_IsTrue(get(entry, "single_word")) || cJSON_IsTrue(get(entry, "lstrip")) ||
        cJSON_IsTrue(get(entry, "rstrip")))
        return mb_fail(err, MB_E_INPUT,
                       "%s: added token \"%.64s\" asks for single_word, lstrip or rstrip, which is not supported",
                       where, content->valuestring);
    return add_added(t, id, content->valuestring,
                     (struct mb_added_token){.special = special,
                                             .normalized = normalized ? cJSON_IsTrue(normalized) : !special},
                     where, err);
}

/* The vocabulary comes before the added tokens, which may repeat entries of it. */
static int read_tokenizer(mb_tokenizer *t, const cJSON *root, const char *where, mb_error *err)
{
    const cJSON *model = get(root, "model"), *entry;
    int rc = check_pipeline(root, where, err);
    t->characters = mb_characters_is(model);
    if (rc == MB_OK)
        rc = read_vocab(t, get(model, "vocab"), where, err);
    if (rc == MB_OK)
        rc = read_merges_json(t, get(model, "merges"), where, err);
    cJSON_ArrayForEach(entry, get(root, "added_tokens")) {
        int64_t id = 0;
        if (rc == MB_OK && !mb_model_json_integer(get(entry, "id"), 0, INT32_MAX, &id))
            rc = mb_fail(err, MB_E_INPUT, "%s: an added token has no id", where);
        if (rc == MB_OK)
            rc = read_added(t, id, entry, where, err);
    }
    if (rc == MB_OK)
        rc = t->characters ? mb_characters_finish(t, root, where, err)
                           : mb_split_compile(&t->split, find_pattern(get(root, "pre_tokenizer")), where, err);
    t->nfc = get(root, "normalizer") && !t->characters;
    t->whole = cJSON_IsTrue(get(model, "ignore_merges"));
    return rc;
}

/* ---- the smaller files ---- */

/* tokenizer_config.json: {"added_tokens_decoder": {"151643": {content, special, ...}}}. */
static int read_config(mb_tokenizer *t, const cJSON *root, const char *where, mb_error *err)
{
    const cJSON *entry;
    int rc = MB_OK;
    cJSON_ArrayForEach(entry, get(root, "added_tokens_decoder")) {
        char *end = NULL;
        long long id = entry->string ? strtoll(entry->string, &end, 10) : -1;
        if (rc == MB_OK && (!end || end == entry->string || *end || id < 0 || id > INT32_MAX))
            rc = mb_fail(err, MB_E_INPUT, "%s: added_tokens_decoder has the key \"%.32s\", no token id", where,
                         entry->string ? entry->string : "");
        if (rc == MB_OK)
            rc = read_added(t, id, entry, where, err);
    }
    return rc;
}

/* ---- roles ---- */

/* Where roles stand: tokenizer_config.json, and special_tokens_map.json (NULL when it does not count). */
struct roles {
    const cJSON *config, *map;
};

static const char *const role_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};
static const char *const role_lists[] = {"additional_special_tokens", "extra_special_tokens"};
#define ROLE_NAMES (sizeof role_names / sizeof role_names[0])
#define ROLE_LISTS (sizeof role_lists / sizeof role_lists[0])

/* "text" or {"content": "text"}; NULL when it is neither. */
static const char *role_text(const cJSON *item)
{
    if (cJSON_IsObject(item))
        item = get(item, "content");
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

/* Calls `visit` with the text of every token that the object gives a role, until one call is not MB_OK. */
static int each_role(const cJSON *object, int (*visit)(void *context, const char *spelled), void *context)
{
    int rc = MB_OK;
    for (size_t i = 0; i < ROLE_NAMES && rc == MB_OK; i++) {
        const char *text = role_text(get(object, role_names[i]));
        if (text)
            rc = visit(context, text);
    }
    for (size_t i = 0; i < ROLE_LISTS && rc == MB_OK; i++) {
        const cJSON *item, *list = get(object, role_lists[i]);
        cJSON_ArrayForEach(item, list) {
            const char *text = role_text(item);
            if (text && rc == MB_OK)
                rc = visit(context, text);
        }
    }
    return rc;
}

static int same_text(void *context, const char *spelled)
{
    return strcmp(context, spelled) == 0 ? MB_E_INPUT : MB_OK;
}

static bool has_role(const struct roles *roles, char *spelled)
{
    return each_role(roles->config, same_text, spelled) != MB_OK ||
           each_role(roles->map, same_text, spelled) != MB_OK;
}

struct role_marks {
    mb_tokenizer *tokenizer;
    const char *where;
    mb_error *err;
};

/* A token of the vocabulary that gets a role is an added token from then on. */
static int mark_special(void *context, const char *spelled)
{
    struct role_marks *marks = context;
    mb_text text = {0};
    int rc = MB_OK;
    mb_text_unspell(&text, spelled);
    if (text.failed || text.length == 0) {
        rc = text.failed ? mb_no_memory(marks->err, "the roles of %s", marks->where) : MB_OK;
    } else {
        const struct mb_added_token *added = mb_tokenizer_find_added(marks->tokenizer, text.data, text.length);
        int32_t id = added ? added->id : mb_tokenizer_index_find(marks->tokenizer, text.data, text.length);
        if (id >= 0)
            rc = add_added(marks->tokenizer, id, spelled, (struct mb_added_token){.special = true}, marks->where,
                           marks->err);
    }
    mb_text_free(&text);
    return rc;
}

/* added_tokens.json: {text: id}, without flags; the roles say which of them are special. */
static int read_added_file(mb_tokenizer *t, const cJSON *root, const struct roles *roles, const char *where,
                           mb_error *err)
{
    int rc = MB_OK;
    for (const cJSON *entry = root->child; entry && rc == MB_OK; entry = entry->next) {
        int64_t id = 0;
        if (!mb_model_json_integer(entry, 0, INT32_MAX, &id))
            return mb_fail(err, MB_E_INPUT, "%s: the id of \"%.64s\" must be a whole number >= 0", where,
                           entry->string);
        bool special = has_role(roles, entry->string);
        bool known =
            mb_tokenizer_find_added_id(t, id) || mb_tokenizer_find_added(t, entry->string, strlen(entry->string));
        if (!known) /* tokenizer.json wins: the file may be of another age */
            rc = add_added(t, id, entry->string,
                           (struct mb_added_token){.special = special, .normalized = !special}, where, err);
    }
    return rc;
}

/* The files beside tokenizer.json or vocab.json. */
static int read_small_files(mb_tokenizer *t, const struct mb_tokenizer_files *files, const char *where,
                            mb_error *err)
{
    cJSON *config = NULL, *added = NULL, *map = NULL;
    char name[512];
    int rc = MB_OK;
    if (files->config) {
        snprintf(name, sizeof name, "%s/tokenizer_config.json", where);
        rc = mb_model_json_parse(&config, files->config, files->config_size, name, err);
        if (rc == MB_OK)
            rc = read_config(t, config, name, err);
    }
    bool older = !get(config, "added_tokens_decoder");
    if (rc == MB_OK && older && files->roles) {
        snprintf(name, sizeof name, "%s/special_tokens_map.json", where);
        rc = mb_model_json_parse(&map, files->roles, files->roles_size, name, err);
    }
    const struct roles roles = {config, map};
    if (rc == MB_OK && older && files->added) {
        snprintf(name, sizeof name, "%s/added_tokens.json", where);
        rc = mb_model_json_parse(&added, files->added, files->added_size, name, err);
        if (rc == MB_OK)
            rc = read_added_file(t, added, &roles, name, err);
    }
    struct role_marks marks = {t, where, err};
    if (rc == MB_OK)
        rc = each_role(config, mark_special, &marks);
    if (rc == MB_OK)
        rc = each_role(map, mark_special, &marks);
    cJSON_Delete(config);
    cJSON_Delete(added);
    cJSON_Delete(map);
    return rc;
}

int mb_tokenizer_build(mb_tokenizer **tokenizer, const struct mb_tokenizer_files *files, const char *where,
                       mb_error *err)
{
    mb_tokenizer *t = calloc(1, sizeof *t);
    cJSON *main_json = NULL;
    char name[512];
    int rc;
    *tokenizer = NULL;
    if (!t)
        return mb_no_memory(err, "a tokenizer of %s", where);
#define NAME(file) (snprintf(name, sizeof name, "%s/%s", where, file), name)
    if (files->tokenizer) {
        NAME("tokenizer.json");
        rc = mb_model_json_parse(&main_json, files->tokenizer, files->tokenizer_size, name, err);
        if (rc == MB_OK)
            rc = read_tokenizer(t, main_json, name, err);
    } else {
        NAME("vocab.json");
        rc = mb_model_json_parse(&main_json, files->vocab, files->vocab_size, name, err);
        if (rc == MB_OK)
            rc = read_vocab(t, main_json, name, err);
        if (rc == MB_OK)
            rc = read_merges_text(t, files->merges, files->merges_size, NAME("merges.txt"), err);
        if (rc == MB_OK)
            rc = mb_split_compile(&t->split, NULL, name, err);
        t->nfc = true;
    }
#undef NAME
    cJSON_Delete(main_json);
    if (rc == MB_OK)
        rc = read_small_files(t, files, where, err);
    if (rc == MB_OK && !mb_tokenizer_sort_added(t))
        rc = mb_no_memory(err, "the added tokens of %s", where);
    if (rc == MB_OK) {
        *tokenizer = t;
    } else {
        mb_tokenizer_close(t);
    }
    return rc;
}

/* ---- the folder ---- */

/* Reads a file when it is there; *data stays NULL otherwise. */
static int read_optional(const char *folder, const char *name, char **data, size_t *size, mb_hash *hash,
                         mb_error *err)
{
    int rc = mb_source_read(folder, name, FILE_MAX_BYTES, data, size, err);
    if (rc == MB_OK && *data)
        mb_hash_add(hash, *data, *size);
    return rc;
}

enum { FILES = 6 };

int mb_tokenizer_open(mb_tokenizer **tokenizer, const char *folder, mb_error *err)
{
    static const char *const names[FILES] = {"tokenizer.json",    "vocab.json",
                                             "merges.txt",        "tokenizer_config.json",
                                             "added_tokens.json", "special_tokens_map.json"};
    char *data[FILES] = {NULL}, hex[MB_HASH_CAP] = "";
    size_t size[FILES] = {0};
    mb_hash *hash = mb_hash_new();
    int rc = MB_OK;
    *tokenizer = NULL;
    if (!hash)
        return mb_no_memory(err, "opening the tokenizer of %s", folder);
    for (int i = 0; i < FILES && rc == MB_OK; i++)
        if (i == 0 || i > 2 || !data[0]) /* with a tokenizer.json the older pair of files is not used */
            rc = read_optional(folder, names[i], &data[i], &size[i], hash, err);
    mb_hash_end(hash, hex);
    if (rc == MB_OK && !data[0] && !(data[1] && data[2]))
        rc =
            mb_fail(err, MB_E_INPUT,
                    "%s has no tokenizer: neither tokenizer.json nor vocab.json with merges.txt is there", folder);
    if (rc == MB_OK) {
        struct mb_tokenizer_files files = {data[0], data[1], data[2], data[3], data[4], data[5],
                                           size[0], size[1], size[2], size[3], size[4], size[5]};
        rc = mb_tokenizer_build(tokenizer, &files, folder, err);
    }
    if (rc == MB_OK)
        memcpy((*tokenizer)->hash, hex, sizeof hex);
    for (int i = 0; i < FILES; i++)
        free(data[i]);
    return rc;
}
