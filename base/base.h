/*
 * base.h - the few things every room needs and none owns: error texts, growable text, files, hashes, random
 * numbers. Knows nothing of models, methods, data or results. Every other room may include it; methods may not
 * (they get theirs from mb_host).
 */
#ifndef MB_BASE_H
#define MB_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Result codes: 0, or one of these. */
#define MB_OK 0
#define MB_E_INPUT (-1)  /* the user's file, key or flag is wrong: exit code 2 */
#define MB_E_SYSTEM (-2) /* the machine said no: memory, disk, device: exit code 1 */
#define MB_E_BUG (-3)    /* a promise inside the program was broken: exit code 1 */
#define MB_E_SAMPLE (-4) /* only this sample is bad: stored as failed, the run goes on */
#define MB_E_STOP (-5)   /* interrupted by the user */

#if defined(__GNUC__)
#define MB_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define MB_PRINTF(a, b)
#endif

/* What went wrong: one of the codes above and one sentence that says what, which object and what to do. The same
 * struct stands in methods/method.h, because a plug-in has no other header. Zero-initialise; a function that
 * succeeds leaves it alone. */
#ifndef MB_ERROR_CAP
#define MB_ERROR_CAP 1024
typedef struct mb_error {
    int code;
    char text[MB_ERROR_CAP]; /* always terminated */
} mb_error;
#endif

/* Writes code and sentence into err (cut at MB_ERROR_CAP; err may be NULL) and returns code. */
int mb_fail(mb_error *err, int code, const char *format, ...) MB_PRINTF(3, 4);
/* Puts "context: " in front of the sentence already in err. Returns code. */
int mb_fail_prefix(mb_error *err, int code, const char *format, ...) MB_PRINTF(3, 4);
/* "no memory for WHAT", with the format naming what. Returns MB_E_SYSTEM. */
int mb_no_memory(mb_error *err, const char *format, ...) MB_PRINTF(2, 3);

/* ---- growable text: zero-initialise, append, free ---- */
typedef struct mb_text {
    char *data; /* NUL-terminated once anything was appended; NULL before */
    size_t length, capacity;
    bool failed; /* an allocation failed: the content is not to be used */
} mb_text;

void mb_text_append(mb_text *text, const char *bytes, size_t n);
void mb_text_puts(mb_text *text, const char *string);
void mb_text_printf(mb_text *text, const char *format, ...) MB_PRINTF(2, 3);
void mb_text_clear(mb_text *text); /* keeps the memory */
void mb_text_free(mb_text *text);
char *mb_text_take(mb_text *text); /* hands over data (malloc'ed, "" when empty; NULL when failed), resets text */

char *mb_string_copy(const char *string); /* malloc'ed; NULL in, NULL out */
char *mb_string_format(const char *format, ...) MB_PRINTF(1, 2);

/* ---- the known name that a mistyped word is nearest to ---- */
/* Set word, offer every name that would do there, use the phrase. */
typedef struct mb_guess {
    const char *word; /* borrowed */
    char best[64];    /* "" while nothing is near enough */
    size_t steps;     /* letters that differ from word to best */
    char phrase[96];
} mb_guess;
/* A name of length letters; more than 63 are never near. The first of equally near ones stays. */
void mb_guess_offer(mb_guess *guess, const char *name, size_t length);
/* "; did you mean NAME?" for the middle of a sentence, or "". */
const char *mb_guess_phrase(const mb_guess *guess);

/* ---- UTF-8 ---- */
#define MB_UTF8_INVALID UINT32_MAX
/* Reads one character from n >= 1 bytes; returns the bytes it takes. A broken sequence is MB_UTF8_INVALID and
 * takes its maximal subpart. No overlong forms, no surrogates, nothing above U+10FFFF. */
size_t mb_utf8_next(const char *bytes, size_t n, uint32_t *character);
/* Writes a code point (U+10FFFF at most) as 1 to 4 bytes and returns how many. */
size_t mb_utf8_put(char bytes[4], uint32_t character);
/* Texts are C strings, so a byte 0 inside one is spelled C0 80, as base/json.h reads it. These append n bytes as
 * such a text, and such a text as its bytes. */
void mb_text_spell(mb_text *text, const char *bytes, size_t n);
void mb_text_unspell(mb_text *bytes, const char *text);
/* False: *offset (may be NULL) is the first bad byte. */
bool mb_utf8_check(const char *bytes, size_t n, size_t *offset);
/* Appends the bytes with U+FFFD for each broken sequence. */
void mb_utf8_repair(mb_text *text, const char *bytes, size_t n);
/* Appends a text as people may be shown it: a control character (C0, DEL, C1) is spelled \xNN, for a terminal
 * would obey it, a broken byte is U+FFFD. Characters of `kept` (may be "") stay. */
void mb_text_visible(mb_text *text, const char *string, const char *kept);
/* Appends a string as the inside of a JSON string, without quotes: what Python's json.dumps(ensure_ascii=False)
 * writes; broken UTF-8 is repaired, because a JSON file must be UTF-8. */
void mb_text_json(mb_text *text, const char *string);

/* ---- files ---- */
/* A regular file for reading, and its bytes; the caller closes it. MB_E_INPUT for anything else: a folder, a
 * device, a pipe, which is not waited for. */
int mb_file_open(const char *path, int *fd, size_t *size, mb_error *err);
/* The whole file, NUL-terminated, malloc'ed; size without the NUL. Refuses folders and files over max bytes. */
int mb_file_read(const char *path, size_t max, char **data, size_t *size, mb_error *err);
/* Writes a temporary file, fsyncs, renames: the old content survives a crash. The target of a symlink is what is
 * replaced; what is no regular file (a device, a FIFO) is written into, and there a reader that left is no error.
 */
int mb_file_write(const char *path, const void *data, size_t size, mb_error *err);
/* Read-only mapping. An empty file maps to NULL with size 0. */
int mb_file_map(const char *path, const unsigned char **data, size_t *size, mb_error *err);
void mb_file_unmap(const unsigned char *data, size_t size);
/* The path itself where it exists (relative: from the working folder), else PREFIX/share/maskbench/path where that
 * does, with PREFIX the folder above the program's bin. Otherwise the path itself, so that an error names what was
 * asked for. malloc'ed; NULL: out of memory. */
char *mb_shared_path(const char *path);
bool mb_file_exists(const char *path);
bool mb_folder_exists(const char *path);
int mb_folder_make(const char *path, mb_error *err);        /* with parents */
int mb_folder_make_parent(const char *file, mb_error *err); /* the folder that a file lies in */

/* ---- content hash: XXH3-128, 32 hex digits ---- */
#define MB_HASH_CAP 33
typedef struct mb_hash mb_hash;
mb_hash *mb_hash_new(void); /* NULL: out of memory */
void mb_hash_add(mb_hash *hash, const void *data, size_t size);
void mb_hash_end(mb_hash *hash, char hex[MB_HASH_CAP]); /* also frees */
void mb_hash_bytes(const void *data, size_t size, char hex[MB_HASH_CAP]);
int mb_hash_file(const char *path, char hex[MB_HASH_CAP], mb_error *err);

/* ---- random numbers: splitmix64, equal on every machine ---- */
typedef struct mb_random {
    uint64_t state;
} mb_random;
mb_random mb_random_seed(uint64_t seed);
/* A stream of its own for (seed, text): the same text gives the same numbers. */
mb_random mb_random_named(uint64_t seed, const char *name);
uint64_t mb_random_next(mb_random *random);
uint64_t mb_random_below(mb_random *random, uint64_t n); /* uniform 0 .. n-1, n > 0, no bias */
double mb_random_unit(mb_random *random);                /* [0, 1) */

/* ---- text files compiled into the program (SQL, gnuplot scripts, prompts, the default config) ---- */
/* Content by repository path ("results/schema.sql"), NUL-terminated; NULL = not embedded. size may be NULL. */
const char *mb_embedded_find(const char *path, size_t *size);
/* i-th embedded path, NULL past the end. */
const char *mb_embedded_path(size_t i);

/* ---- what was compiled ---- */
/* Hash of compiled code without debug information, 32 hex digits: "program" (what a result depends on: base,
 * kernels, model, datasets, passes) or "methods/NAME" of a built-in method. NULL: unknown. */
const char *mb_code_hash(const char *name);

/* ---- time ---- */
uint64_t mb_clock_ns(void); /* monotonic */

#ifdef __cplusplus
}
#endif
#endif
