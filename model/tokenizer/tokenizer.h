/*
 * tokenizer.h - the tables of an opened tokenizer and the functions its files share. Internal to model/.
 *
 * Invariant: after mb_tokenizer_build() nothing in it changes, so any number of threads may encode and decode.
 */
#ifndef MB_MODEL_TOKENIZER_H
#define MB_MODEL_TOKENIZER_H

#include "model/model.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* The bytes that a token stands for lie in mb_tokenizer.pool. */
struct mb_token {
    size_t offset;
    uint32_t length;
    uint32_t added; /* an added token: its place in mb_tokenizer.added, from 1 on */
    bool used;      /* false: a gap in the numbering */
    bool special;   /* an added token that skip_special drops */
};

/* The pair of tokens `key` = left << 32 | right becomes token id; lower ranks merge first. Empty: rank -1. */
struct mb_bpe_rule {
    uint64_t key;
    int32_t rank, id;
};

/* Text that stands for one id wherever it occurs. It may hold zero bytes. */
struct mb_added_token {
    char *text;  /* as the files have it */
    char *match; /* what is looked for: of a normalised one the normalised form, else text itself */
    size_t length, match_length;
    int32_t id;
    bool special;    /* dropped on request when ids become text */
    bool normalized; /* looked for in normalised text, behind all that are not */
};

struct mb_tokenizer {
    struct mb_token *tokens; /* by id */
    int32_t size;            /* largest id + 1 */
    int32_t capacity;        /* tokens allocated */
    mb_text pool;
    int32_t byte_ids[256]; /* the token of each single byte; -1: it has none and is left out */
    int32_t *lookup;       /* hash table: bytes -> id of the vocabulary, -1 = empty */
    size_t lookup_mask;
    struct mb_bpe_rule *rules; /* hash table */
    size_t rule_mask;
    struct mb_added_token *added;  /* raw ones before normalised ones, by first byte, longest first */
    size_t added_count, added_raw; /* raw ones are 0 .. added_raw - 1 */
    int32_t *added_lookup;         /* hash table: text -> place in added, -1 = empty */
    size_t added_lookup_mask;
    size_t added_first[2][257]; /* those of a kind that begin with byte b: [kind][b] .. [kind][b + 1] - 1 */
    bool nfc;
    bool characters;  /* merges begin with characters, not with bytes (characters.c); nfc is false, split NULL */
    int32_t begin[4]; /* tokens in front of every text that is no chat */
    size_t begin_count;
    bool whole; /* a piece that is a token of the vocabulary is that token, whatever the merges say (ignore_merges)
                 */
    pcre2_code *split; /* the pre-tokenizer's pattern */
    char hash[MB_HASH_CAP];
};

/* The files of a tokenizer in memory; NULL = the folder has none. Either tokenizer or vocab and merges. */
struct mb_tokenizer_files {
    const char *tokenizer, *vocab, *merges, *config, *added, *roles;
    size_t tokenizer_size, vocab_size, merges_size, config_size, added_size, roles_size;
};

int mb_tokenizer_build(mb_tokenizer **tokenizer, const struct mb_tokenizer_files *files, const char *where,
                       mb_error *err);
int32_t mb_tokenizer_size(const mb_tokenizer *tokenizer);
/* Hash of the files it was made of. */
void mb_tokenizer_hash(const mb_tokenizer *tokenizer, char hex[MB_HASH_CAP]);

/* ---- load.c and table.c: filling the tables ---- */

/* Adds a token whose bytes are given. MB_E_INPUT when the id is taken. */
int mb_tokenizer_add(mb_tokenizer *tokenizer, int64_t id, const char *bytes, size_t n, const char *where,
                     mb_error *err);
/* Index of the vocabulary by bytes; `count` is how many will be put in. */
bool mb_tokenizer_index_reserve(mb_tokenizer *tokenizer, size_t count);
bool mb_tokenizer_index_put(mb_tokenizer *tokenizer, int32_t id); /* false: these bytes are there already */
int32_t mb_tokenizer_index_find(const mb_tokenizer *tokenizer, const char *bytes, size_t n); /* -1 = none */
bool mb_tokenizer_rules_reserve(mb_tokenizer *tokenizer, size_t count);
bool mb_tokenizer_rules_put(mb_tokenizer *tokenizer, int32_t left, int32_t right, int32_t rank, int32_t id);
/* An added token; text is copied. The same again only adds to `special`, a contradiction is MB_E_INPUT. */
int mb_tokenizer_add_added(mb_tokenizer *tokenizer, const struct mb_added_token *token, const char *where,
                           mb_error *err);
/* The added token of this text or of this id, or NULL. */
struct mb_added_token *mb_tokenizer_find_added(const mb_tokenizer *tokenizer, const char *text, size_t n);
struct mb_added_token *mb_tokenizer_find_added_id(const mb_tokenizer *tokenizer, int64_t id);
/* Sorts the added tokens and fills added_first. False: out of memory. */
bool mb_tokenizer_sort_added(mb_tokenizer *tokenizer);
/* Byte-level alphabet (GPT-2's: every byte is written as a printable character): appends the bytes that a token's
 * characters stand for. False when a character is outside the alphabet. */
bool mb_tokenizer_unmap(mb_text *bytes, const char *token, size_t n);

/* ---- tokenizer.c ---- */

/* Appends the normalised form of a text. False = out of memory. */
bool mb_tokenizer_normalise(const mb_tokenizer *tokenizer, mb_text *out, const char *text, size_t n);

/* ---- characters.c: BPE over characters with byte fallback ---- */

struct cJSON;
/* Whether the "model" of a tokenizer.json is of this kind. */
bool mb_characters_is(const struct cJSON *model);
/* What of the rest of the file this program does not do; NULL = nothing. The words fit behind "FILE: ". */
const char *mb_characters_problem(const struct cJSON *root);
/* Finds the tokens of single bytes in the vocabulary; MB_E_INPUT when one is missing. */
int mb_characters_bytes(mb_tokenizer *tokenizer, const char *where, mb_error *err);
/* What follows the added tokens: the tokens in front of a text. */
int mb_characters_finish(mb_tokenizer *tokenizer, const struct cJSON *root, const char *where, mb_error *err);
/* Appends the text with U+2581 for each space. False = out of memory. */
bool mb_characters_normalise(mb_text *out, const char *text, size_t n);
/* The tokens that merges begin with, at most one a byte; returns how many. */
size_t mb_characters_symbols(const mb_tokenizer *tokenizer, const char *bytes, size_t n, int32_t *ids);
/* Appends the text of ids, all >= 0. False = out of memory. */
bool mb_characters_decode(const mb_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                          mb_text *out);

/* ---- pattern.c ---- */

/* The code of a character: what the rewritten pattern matches. */
unsigned char mb_pattern_code(uint32_t c);
/* Appends the pattern over codes, for PCRE2 without UTF. NULL, or what the pattern has that is not supported: the
 * words fit behind "the pattern has". */
const char *mb_pattern_rewrite(mb_text *out, const char *pattern);

/* ---- split.c ---- */

/* Compiles the pattern of the pre-tokenizer; NULL = Qwen's. */
int mb_split_compile(pcre2_code **code, const char *pattern, const char *where, mb_error *err);

/* Walks over the pieces of a text. */
typedef struct mb_split {
    const pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    const char *text;     /* borrowed */
    unsigned char *codes; /* of the text, one a character */
    size_t count, capacity;
    size_t code_at, byte_at; /* where the next piece begins */
} mb_split;
bool mb_split_open(mb_split *split, const pcre2_code *code, size_t longest);
void mb_split_close(mb_split *split);
/* Begins a text, well-formed UTF-8, which must stay until its last piece. False: out of memory. */
bool mb_split_text(mb_split *split, const char *text, size_t n);
/* End of the next piece in bytes: a match, or the stretch up to the next match; 0: the pattern gave up. Not to be
 * called behind the last piece. */
size_t mb_split_next(mb_split *split);

/* ---- bpe.c ---- */

/* What one encode call needs: the ids so far, scratch, and a cache from piece to ids. */
typedef struct mb_bpe mb_bpe;
mb_bpe *mb_bpe_open(const mb_tokenizer *tokenizer); /* NULL = out of memory */
void mb_bpe_close(mb_bpe *bpe);
bool mb_bpe_push(mb_bpe *bpe, int32_t id);                   /* false = out of memory, as below */
bool mb_bpe_piece(mb_bpe *bpe, const char *bytes, size_t n); /* encodes one piece */
/* Hands over the ids (malloc'ed, never NULL) or NULL when memory ran out. */
int32_t *mb_bpe_take(mb_bpe *bpe, size_t *n);

#endif
