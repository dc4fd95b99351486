/*
 * keys.h - a config key as data. One row says all there is to say about a key: its name, type, range, default, the
 * field that it fills, the flag that sets it, whether it only extends a run, and its help.
 *
 * Whatever deals with keys walks these rows and names none of them: the check of a file, the filling of
 * mb_run_config, --set and the flags, the identity of a run, `./harness help config`, the table in
 * configs/README.md. A new key is one row in keys.c and one field in config.h.
 */
#ifndef MB_CONFIG_KEYS_H
#define MB_CONFIG_KEYS_H

#include "driver/config/config.h"

typedef enum mb_key_type {
    MB_KEY_TEXT,     /* char *, owned */
    MB_KEY_PATH,     /* char *, owned: text, looked for among the installed files too (mb_shared_path) */
    MB_KEY_INT,      /* int32_t or int64_t, as size says */
    MB_KEY_REAL,     /* double */
    MB_KEY_BOOL,     /* bool */
    MB_KEY_INTS,     /* mb_key_ints: a whole number or a list; a word of choices stands for its value */
    MB_KEY_CHOICE,   /* an enum: the value of one word of choices; true and false are words, too */
    MB_KEY_CHOICES,  /* uint32_t: the values of a list of words, or-ed together */
    MB_KEY_SECTION,  /* an object with the keys of the section of this name; it has no field of its own */
    MB_KEY_SECTIONS, /* mb_key_objects: one such object or a list of them */
    MB_KEY_OWN       /* what read() makes of it */
} mb_key_type;

typedef struct mb_key_choice {
    const char *word;
    int32_t value;
} mb_key_choice;

typedef struct mb_key {
    const char *section; /* "" = top level, "model", "chat", "sampler", "recall", "latency", "task" */
    const char *name;
    mb_key_type type;
    double min, max;              /* INT, REAL, INTS; both included */
    const mb_key_choice *choices; /* ends with word NULL */
    const char *preset;           /* default as in the file, text without quotes; NULL = found elsewhere */
    const char *preset_words;     /* the default in the help, where preset does not say it */
    size_t offset, size;          /* of the field: in mb_run_config, mb_sampler (section sampler), mb_task_spec */
    const char *flag;             /* "--limit N": a spelling of --set limit=N; NULL = there is none */
    const char *shorthand; /* text in place of the object, or of a list's entry, stands for this key of it */
    const char *rival;     /* the shorthand key that rules this one out when a flag sets it */
    bool extends;          /* another value continues the run; else it is another run */
    /* OWN: fills the config, after all other keys. */
    int (*read)(mb_run_config *config, mb_error *err);
    /* The value that the flag's text stands for, given the file's; malloc'ed. NULL = as the type has it. */
    cJSON *(*choose)(const cJSON *present, const char *text);
    const char *help;
} mb_key;

extern const mb_key mb_config_keys[]; /* section by section; ends with name NULL */

/* NULL: the section has no such key. */
const mb_key *mb_config_key(const char *section, const char *name);
/* The top-level key that fills this field: MB_CONFIG_KEY_OF(tasks). Never NULL. */
#define MB_CONFIG_KEY_OF(field) mb_config_key_at(offsetof(mb_run_config, field))
const mb_key *mb_config_key_at(size_t offset);
/* The key of a flag: "--limit" or "--limit=3". NULL: no key has it. */
const mb_key *mb_config_flag(const char *word);
/* "text", "whole number", ... */
const char *mb_key_type_name(mb_key_type type);

/* ---- fill.c ---- */
/* Checks every member of object against the keys of section; path is the object's own. A section that is open
 * holds keys of somebody else, too. */
int mb_config_check(const cJSON *object, const char *section, const char *path, bool open, mb_error *err);
/* No member of object is named twice: readers of JSON do not agree on which of the two counts. */
int mb_config_check_once(const cJSON *object, const char *path, mb_error *err);
/* Puts the preset of every MB_KEY_SECTIONS that the file lacks into it: their fields borrow from there. */
int mb_config_complete(cJSON *root, mb_error *err);
/* The checked object into the struct at base. A key that is absent gives its preset, or leaves the field alone. */
int mb_config_fill(const cJSON *object, const char *section, void *base, mb_error *err);
/* Frees what the keys of a section own below base. */
void mb_config_release(const char *section, void *base);

/* ---- set.c ---- */
/* --set and the flags on top of the file; flags win. */
int mb_config_apply(cJSON *root, const mb_config_flags *flags, mb_error *err);

/* ---- methods.c ---- */
int mb_config_read_methods(mb_run_config *config, mb_error *err);
int mb_config_read_tasks(mb_run_config *config, mb_error *err);
cJSON *mb_config_choose_methods(const cJSON *present, const char *list);
cJSON *mb_config_choose_tasks(const cJSON *present, const char *list);

#endif
