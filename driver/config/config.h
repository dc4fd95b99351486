/*
 * config.h - a run as data: the JSON file, checked key by key, with --set and the flags put on top.
 *
 * One table (config_keys.c) names every key with its type, range, default and help; it validates, documents
 * (`./harness help config`) and fills the struct. Lists are sweeps. The canonical JSON text of the whole config is
 * stored with the run, so that a row can always be traced to what was asked.
 */
#ifndef MB_CONFIG_H
#define MB_CONFIG_H

#include "base/base.h"
#include "methods/registry/registry.h"
#include "model/model.h"

#include <cjson/cJSON.h>

/* A benchmark task with its own keys. */
typedef struct mb_task_spec {
    char *task;    /* one task name, groups are expanded */
    char *options; /* JSON object of the task's own keys, or NULL */
    char *folder;  /* data folder */
    int64_t limit; /* samples, 0 = all */
} mb_task_spec;

/* A method with one choice of options: what a table calls a configuration. */
typedef struct mb_method_spec {
    const mb_method *method;
    void *options; /* struct of the method */
    char *json;    /* canonical text of all options */
    char *label;   /* "name k=256 merge=max": the name and the keys that the config sets */
    int64_t k;     /* token budget, -1 = none */
} mb_method_spec;

typedef struct mb_latency_spec {
    int32_t *contexts, *batches, *steps, *breakdown_contexts;
    size_t context_count, batch_count, step_count, breakdown_count;
    int32_t blocks_min, blocks_max; /* measured blocks per case */
    double seconds;                 /* cap per case and method */
    double error;                   /* stop at this relative standard error of the median */
    bool synthetic_cache;           /* fill the KV cache with random rows in place of a prefill */
    bool largest_batch;             /* also the largest power of two that fits */
    int32_t largest_from;           /* at contexts from here on */
    bool prefill;                   /* time a prefill too */
} mb_latency_spec;

typedef struct mb_run_config {
    char *name, *path;
    cJSON *json; /* after --set and flags; owned */
    uint64_t seed;
    char *device;
    int32_t threads;
    double memory_gib;     /* 0 = what the device has */
    double plugin_seconds; /* without a sign of life from a plug-in */
    /* model */
    char *model_path, *model_shape;
    uint64_t model_seed;
    mb_type type;
    int32_t block, positions, prefill_chunk;
    bool graphs;
    /* work */
    char *data;
    mb_task_spec *tasks;
    size_t task_count;
    mb_method_spec *methods;
    size_t method_count;
    const cJSON **samplers; /* objects; applied on top of the family's defaults */
    size_t sampler_count;
    int64_t limit;
    int32_t max_length;     /* prompt tokens before the middle is cut; 0 = what the model takes */
    int32_t max_new_tokens; /* 0 = the benchmark's own limit */
    bool pass_quality, pass_recall, pass_forced, pass_latency, pass_breakdown;
    int64_t recall_limit; /* samples per task in the recall pass, 0 = all */
    mb_latency_spec latency;
    /* output */
    char *results, *plots;
} mb_run_config;

/* What the command line may put on top of the file. Strings borrowed. */
typedef struct mb_config_flags {
    const char *const *sets; /* "key.path=value" */
    size_t set_count;
    const char *model, *data, *methods, *tasks, *database, *plots, *device;
    int64_t limit; /* -1 = not given */
    int64_t seed;  /* -1 = not given */
} mb_config_flags;

/* path NULL = the embedded configs/quick.json. Every mistake is MB_E_INPUT and a sentence with the key's path. */
int mb_config_load(mb_run_config *config, const char *path, const mb_config_flags *flags, mb_error *err);
/* The same from text; name stands for the file in sentences. */
int mb_config_read(mb_run_config *config, const char *text, size_t size, const char *name,
                   const mb_config_flags *flags, mb_error *err);
void mb_config_free(mb_run_config *config);
/* Applies samplers[i] to the family's default. */
int mb_config_sampler(const mb_run_config *config, size_t i, const mb_model_config *model, mb_sampler *sampler,
                      mb_error *err);
/* The key table as text: name, type, range, default, help. */
void mb_config_help(mb_text *out);

/* ---- shared by config.c and config_keys.c ---- */
typedef enum mb_key_type {
    MB_KEY_STRING,
    MB_KEY_INT,
    MB_KEY_REAL,
    MB_KEY_BOOL,
    MB_KEY_INTS,
    MB_KEY_CHOICE,
    MB_KEY_ANY
} mb_key_type;
typedef struct mb_key {
    const char *section; /* "" top level, "model", "sampler", "latency", "recall" */
    const char *name;
    mb_key_type type;
    double min, max;
    const char *choices; /* CHOICE: "a|b" */
    const char *preset;  /* as printed in the help */
    const char *help;
} mb_key;
extern const mb_key mb_config_keys[]; /* ends with name NULL */

/* Checks that every member of object is a key of section with the right type and range; path is its own path. */
int mb_config_check(const cJSON *object, const char *section, const char *path, mb_error *err);
/* No member of object is named twice: readers of JSON do not agree on which of the two counts. */
int mb_config_check_once(const cJSON *object, const char *path, mb_error *err);

#endif
