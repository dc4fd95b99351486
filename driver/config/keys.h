/*
 * keys.h - a config key as data. One row says all there is to say about a key: its name, type, range, default, the
 * field that it fills, the flag that sets it, whether it only extends a run, and its help.
 *
 * Whatever deals with keys walks these rows and names none of them: the check of a file, the filling of
 * mb_run_config, --set and the flags, the identity of a run, `./harness help config`, `./harness schema`, the
 * table in configs/README.md. A new key is one row in keys.c and one field in config.h.
 */
#ifndef MB_CONFIG_KEYS_H
#define MB_CONFIG_KEYS_H

#include "driver/config/config.h"

typedef enum mb_key_type {
    MB_KEY_TEXT,     /* char *, owned */
    MB_KEY_PATH,     /* char *, owned: text, looked for among the installed files too (mb_shared_path) */
    MB_KEY_INT,      /* int32_t or int64_t, as size says; a word of choices stands for its value */
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
    const char *section; /* "" = top level, "model", "sampler", "decode", "recall", "latency", "task", ... */
    const char *name;
    mb_key_type type;
    double min, max;              /* INT, REAL, INTS; both included */
    const mb_key_choice *choices; /* ends with word NULL */
    const char *preset;           /* default as in the file, text without quotes; NULL = found elsewhere */
    const char *preset_words;     /* the default in the help, where preset does not say it */
    size_t offset, size;          /* of the field: in mb_run_config, mb_sampler (section sampler), mb_task_spec */
    const char *flag;             /* "--limit N": a spelling of --set limit=N; NULL = there is none */
    const char *commands;         /* commands beside run that take the flag, "generate logits"; NULL = none */
    const char *shorthand; /* text in place of the object, or of a list's entry, stands for this key of it */
    const char *rival;     /* the shorthand key that rules this one out when a flag sets it */
    bool extends;          /* another value continues the run; else it is another run */
    bool separates;        /* in a section that extends: another value is another run all the same */
    /* Of a key that another value of continues the run, one of the two: the column of the store (schema.sql) that
     * tells rows of two values apart, or why no stored row depends on it. */
    const char *stored, *harmless;
    bool lists; /* of the top level: a list of such values makes a run for each */
    /* OWN: fills the config, after all other keys. */
    int (*read)(mb_run_config *config, mb_error *err);
    /* The value that the flag's text stands for, given the file's; malloc'ed. NULL = as the type has it. */
    cJSON *(*choose)(const cJSON *present, const char *text);
    cJSON *(*describe)(void); /* OWN: the JSON Schema of its values; NULL from it: no memory */
    const char *help;
} mb_key;

/* Column of what a sampler's other columns do not say: mb_config_sampler_options() writes it. */
#define MB_KEY_SAMPLER_OPTIONS "sampler.options"

extern const mb_key mb_config_keys[]; /* section by section; ends with name NULL */
/* The keys of a training's config (training.c): one section, of this name, in a table of its own, because no key
 * of a run is among them. */
#define MB_KEY_TRAINING "training"
extern const mb_key mb_train_keys[];
/* The table that has the section. */
const mb_key *mb_config_table(const char *section);
/* The rows of a table as text, and as Markdown tables. */
void mb_config_help_rows(const mb_key *keys, mb_text *out);
void mb_config_help_rows_markdown(const mb_key *keys, mb_text *out);

/* NULL: the section has no such key. */
const mb_key *mb_config_key(const char *section, const char *name);
/* The top-level key that fills this field: MB_CONFIG_KEY_OF(tasks). Never NULL. */
#define MB_CONFIG_KEY_OF(field) mb_config_key_at(offsetof(mb_run_config, field))
const mb_key *mb_config_key_at(size_t offset);
/* The key of a flag: "--limit" or "--limit=3". NULL: no key has it. */
const mb_key *mb_config_flag(const char *word);
/* "text", "whole number", ... */
const char *mb_key_type_name(mb_key_type type);

/* A row's preset as the file would have it; NULL when it has none, or there is no memory. The caller's. */
cJSON *mb_key_preset(const mb_key *key);

#define MB_CONFIG_MAX_BYTES (4u << 20)
#define MB_CONFIG_MAX_ENTRIES 4096 /* of one object or list */
#define MB_CONFIG_MAX_DEPTH 64

/* ---- jsonc.c ---- */
/* The object in the text of a file: JSON with comments and closing commas. text[size] is 0. */
int mb_config_text(const char *text, size_t size, const char *path, cJSON **json, mb_error *err);

/* ---- extends.c ---- */
/* *json, read from path, on top of the file that it is based on, if it names one. */
int mb_config_resolve(cJSON **json, const char *path, mb_error *err);

/* ---- lists.c ---- */
/* How many runs a config stands for. */
int mb_config_count(const cJSON *json, size_t *total, mb_error *err);
/* The config of one of them, the caller's; appends what tells it from the others: "seed 2, model DIR". NULL: no
 * memory. */
cJSON *mb_config_pick(const cJSON *json, size_t number, mb_text *label);

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

/* ---- schema.c ---- */
cJSON *mb_config_describe_methods(void);
cJSON *mb_config_describe_tasks(void);

#endif
