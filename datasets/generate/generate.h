/*
 * generate.h - what the families of generated samples (niah/, ruler/) share: word lists, drawing, haystack
 * text, grids of lengths and depths, the reader of a task's own keys.
 *
 * The invariant of all of them: every choice comes from mb_random_named(seed, name of the sample) and from token
 * counts of the codec, never from the C library's random numbers, the clock, the locale or the order of a folder,
 * so that one seed gives the same bytes on every machine.
 */
#ifndef MB_DATASETS_GENERATE_H
#define MB_DATASETS_GENERATE_H

#include "datasets/internal.h"

/* ---- token counts (draw.c) ---- */
/* Tokens of a text under the codec, or a negative code with a sentence. */
int64_t mb_codec_count(const mb_codec *codec, const char *text, size_t length, mb_error *err);

/* Tokens that a sample takes: the chat wrapper's `overhead`, prompt and answer prefix ("" = none); or negative. */
int64_t mb_codec_measure(const mb_codec *codec, int64_t overhead, const char *prompt, size_t length,
                         const char *prefix, mb_error *err);

/* ---- word lists and drawing (draw.c) ---- */
typedef struct mb_words {
    char *bytes; /* the file, cut into strings */
    const char **items;
    size_t count;
} mb_words;
/* An embedded list, one entry a line; blanks at the ends are dropped. */
int mb_words_load(mb_words *words, const char *embedded_path, mb_error *err);
void mb_words_free(mb_words *words);
const char *mb_words_draw(const mb_words *words, mb_random *random);

/* A random order of 0 .. n-1 (Fisher-Yates). */
void mb_draw_order(mb_random *random, size_t *order, size_t n);
/* k distinct numbers of 0 .. n-1, ascending, k <= n. */
void mb_draw_sorted(mb_random *random, size_t n, size_t k, size_t *out);
void mb_draw_digits(mb_random *random, size_t digits, char *out); /* first digit 1-9; out has digits + 1 bytes */
#define MB_UUID_CAP 37
void mb_draw_uuid(mb_random *random, char out[MB_UUID_CAP]); /* version 4, lower case */
void mb_draw_hex(mb_random *random, size_t digits, char *out);
void mb_draw_letters(mb_random *random, char first, size_t n, char *out); /* 'a' or 'A' */
#define MB_PSEUDO_CAP 24
void mb_draw_pseudo(mb_random *random, char out[MB_PSEUDO_CAP]); /* a pronounceable word of 2-3 syllables */

/* ---- the task's own keys: a JSON object (keys.c) ---- */
typedef struct mb_task_keys {
    cJSON *root;      /* NULL = none given */
    const char *task; /* for sentences */
} mb_task_keys;
/* Parses and refuses keys outside known (NULL-terminated). */
int mb_task_keys_open(mb_task_keys *keys, const char *task, const char *json, const char *const *known,
                      mb_error *err);
void mb_task_keys_close(mb_task_keys *keys);
/* Each leaves *value alone when the key is absent; MB_E_INPUT names key and range. */
int mb_task_keys_int(const mb_task_keys *keys, const char *key, int64_t low, int64_t high, int64_t *value,
                     mb_error *err);
int mb_task_keys_bool(const mb_task_keys *keys, const char *key, bool *value, mb_error *err);
/* Borrowed from the keys. choices: NULL-terminated, or NULL = any text. */
int mb_task_keys_string(const mb_task_keys *keys, const char *key, const char *const *choices, const char **value,
                        mb_error *err);

/* What every generated task begins with: its keys (those outside known are refused), the prompt file, how many
 * samples. The caller closes and frees what was opened, also after a failure. */
int mb_generated_open(mb_task_keys *keys, cJSON **prompts, int64_t *samples, const char *task, const char *json,
                      const char *const *known, const char *prompt_file, mb_error *err);
/* A sample of `length` tokens without prompt and answers yet. NULL and a sentence: out of memory. */
mb_sample *mb_generated_sample(const char *key, int32_t length, int32_t max_new_tokens, mb_error *err);

/* ---- grids (grid.c) ---- */
typedef struct mb_niah_grid {
    int32_t *lengths; /* tokens, in the order given */
    size_t length_count;
    double *depths; /* percent */
    size_t depth_count;
} mb_niah_grid;
/* Reads "lengths" and "depths" (datasets/README.md gives the forms); the defaults where they are absent. */
int mb_niah_grid_read(mb_niah_grid *grid, const mb_task_keys *keys, const int32_t *lengths, size_t length_count,
                      const double *depths, size_t depth_count, mb_error *err);
void mb_niah_grid_free(mb_niah_grid *grid);
/* n depths from low to high, ascending: rounded to whole percents (linear) or to three decimals (sigmoid). */
void mb_niah_grid_depths(double low, double high, size_t n, bool sigmoid, double *out);

/* ---- text from files (essays.c) ---- */
/* All *.txt of a folder by name (bytes compared), joined without separator; or one .txt file; or a .json file
 * whose "text" member is the text. Invalid UTF-8 is refused. hash may be NULL. */
int mb_essays_read(const char *path, mb_text *out, mb_hash *hash, mb_error *err);
/* White-space runs become one blank; leading and trailing ones go. In place. */
size_t mb_text_squeeze(char *text, size_t length);
/* End (past the last byte) of the sentence that starts at `start`; datasets/README.md gives the rule. */
size_t mb_sentence_end(const char *text, size_t length, size_t start);

/* ---- haystacks (haystack.c) ---- */
typedef struct mb_piece {
    const char *text; /* one sentence, borrowed */
    uint32_t length;
    int32_t tokens; /* with the blank in front of it */
} mb_piece;
typedef struct mb_pieces {
    mb_piece *items;
    size_t count, capacity;
    int64_t tokens; /* sum over items */
} mb_pieces;
int mb_pieces_insert(mb_pieces *pieces, size_t at, const mb_piece *piece); /* MB_E_SYSTEM: out of memory */
void mb_pieces_free(mb_pieces *pieces);

typedef struct mb_haystack mb_haystack;
/* kind: "text" (built in), "noise" (RULER's five sentences), or the path of essays. */
int mb_haystack_open(mb_haystack **haystack, const char *kind, uint64_t seed, const mb_codec *codec,
                     mb_error *err);
/* Appends sentences of together at most `budget` tokens. What is missing is less than one sentence; the built-in
 * text nearly always meets the budget exactly. The pieces live as long as the haystack. */
int mb_haystack_fill(mb_haystack *haystack, mb_random *random, int64_t budget, mb_pieces *out, mb_error *err);
void mb_haystack_hash(const mb_haystack *haystack, mb_hash *hash);
void mb_haystack_close(mb_haystack *haystack);

/* ---- prompts of the two families as data (keys.c) ---- */
/* datasets/prompts/<name>, parsed once per call; cJSON_Delete. */
int mb_prompts_load(const char *name, cJSON **root, mb_error *err);

#endif
