/*
 * config.h - a run as data: the JSON file, checked key by key, with --set and the flags put on top.
 *
 * One table (keys.c) names every key with its type, range, default, field and help; it validates, documents
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

/* Whole numbers of a key; owned. */
typedef struct mb_key_ints {
    int32_t *values;
    size_t count;
} mb_key_ints;

/* Objects of a key; the array is owned, the objects belong to the config's JSON. */
typedef struct mb_key_objects {
    const cJSON **values;
    size_t count;
} mb_key_objects;

enum { MB_BATCH_LARGEST = -1 }; /* the word "largest" among the batches */
enum { MB_GROUP_AUTO = 0 };     /* the word "auto" of decode.group */

typedef struct mb_latency_spec {
    mb_key_ints contexts, batches, breakdown_contexts;
    mb_key_ints steps;              /* 0 = as many as a block has tokens */
    int32_t blocks_min, blocks_max; /* measured blocks per case */
    double seconds;                 /* cap per case and method */
    double error;                   /* stop at this relative standard error of the median */
    bool synthetic_cache;           /* fill the KV cache with random rows in place of a prefill */
    bool largest_batch;             /* also the largest power of two that fits; no longer in batches */
    int32_t largest_from;           /* at contexts from here on */
    bool prefill;                   /* time a prefill too */
} mb_latency_spec;

/* The passes of a run, a bit each. */
typedef enum mb_run_passes {
    MB_RUN_QUALITY = 1 << 0,
    MB_RUN_RECALL = 1 << 1,
    MB_RUN_FORCED = 1 << 2,
    MB_RUN_LATENCY = 1 << 3,
    MB_RUN_BREAKDOWN = 1 << 4,
    MB_RUN_SAMPLES = MB_RUN_QUALITY | MB_RUN_RECALL | MB_RUN_FORCED, /* those that need samples */
    MB_RUN_TIMES = MB_RUN_LATENCY | MB_RUN_BREAKDOWN                 /* those that time fixed work */
} mb_run_passes;

typedef enum mb_weights_source { MB_WEIGHTS_READ, MB_WEIGHTS_DRAWN } mb_weights_source;

/* What the text of a special token is in a row of data: that token, as for Hugging Face and LongBench, or text. */
typedef enum mb_special_text { MB_SPECIAL_TOKEN = 0, MB_SPECIAL_TEXT } mb_special_text;

typedef struct mb_run_config {
    char *name, *path;
    char *schema, *base; /* what editors read; the file that this one is based on, which is gone once it is read */
    char *label;         /* what tells it from the other runs of its file: "seed 2"; "" when there is one */
    cJSON *json;         /* after --set and flags; owned */
    uint64_t seed;
    char *device;
    int32_t threads;
    double memory_gib;     /* 0 = what the device has */
    double plugin_seconds; /* without a sign of life from a plug-in */
    /* model: one of the two is NULL, as weights says */
    char *model_path, *model_shape;
    mb_weights_source weights;
    uint64_t model_seed;
    mb_type type;
    int32_t block_size, sub_block, mask, positions, prefill_chunk;
    int32_t parallel; /* devices that one model is split over */
    mb_key_ints stop; /* none: the checkpoint's */
    bool graphs;
    mb_chat chat; /* system is owned */
    mb_special_text special_tokens_in_data;
    /* work */
    char *data;
    mb_task_spec *tasks;
    size_t task_count;
    mb_method_spec *methods;
    size_t method_count;
    mb_key_objects samplers; /* applied on top of the family's defaults */
    int64_t limit;
    int32_t max_length;        /* prompt tokens before the middle is cut; 0 = what the model takes */
    int32_t max_new_tokens;    /* 0 = the benchmark's own limit */
    uint32_t passes;           /* of mb_run_passes */
    int32_t decode_group;      /* arms of a sample that decode together; 1 = one after the other; MB_GROUP_AUTO */
    int64_t recall_limit;      /* samples per task in the recall pass, 0 = all */
    int64_t record_selections; /* samples per task of which prompt, steps and selected keys are kept */
    int64_t record_prompts;    /* samples per task of which the prompt's text is kept */
    mb_latency_spec latency;
    /* output */
    char *results, *plots;
} mb_run_config;

/* A flag that sets a key, and its text. Borrowed. */
typedef struct mb_config_value {
    const struct mb_key *key;
    const char *text;
} mb_config_value;

/* What the command line may put on top of the file. Borrowed. */
typedef struct mb_config_flags {
    const char *const *sets; /* "key.path=value" */
    size_t set_count;
    const mb_config_value *values;
    size_t value_count;
} mb_config_flags;

/* The runs that one file stands for: one, or one for each combination of the entries of its lists. */
typedef struct mb_config_list {
    mb_run_config *configs; /* owned */
    size_t count;
} mb_config_list;

/* path NULL = the embedded configs/quick.json. Every mistake is MB_E_INPUT and a sentence with the key's path; it
 * names the --set or flag that brought it, else the file. */
int mb_config_load(mb_config_list *list, const char *path, const mb_config_flags *flags, mb_error *err);
void mb_config_list_free(mb_config_list *list);
/* One run from text; name stands for the file in sentences. */
int mb_config_read(mb_run_config *config, const char *text, size_t size, const char *name,
                   const mb_config_flags *flags, mb_error *err);
void mb_config_free(mb_run_config *config);
/* Flags and --set alone, without a file: sections model, chat and sampler and the seed, for commands that decode
 * without a run. Methods and tasks stay empty. */
int mb_config_flags_only(mb_run_config *config, const mb_config_flags *flags, mb_error *err);
/* Applies samplers[i] to the family's default. */
int mb_config_sampler(const mb_run_config *config, size_t i, const mb_model_config *model, mb_sampler *sampler,
                      mb_error *err);
/* "key=value key=value" of what the store's row of a sampler has no column for, where it is not the family's
 * default; malloc'ed, NULL in *text where there is nothing. */
int mb_config_sampler_options(const mb_sampler *sampler, const mb_model_config *model, char **text, mb_error *err);
/* The config as it is stored with a run on this device, and the text that tells runs apart: the same without the
 * keys that only extend a run. Both malloc'ed. */
int mb_config_identity(mb_run_config *config, const char *device, char **stored, char **identity, mb_error *err);
/* The key table as text: name, type, range, default, flag, help. */
void mb_config_help(mb_text *out);
/* The same as Markdown tables. */
void mb_config_help_markdown(mb_text *out);
/* The same as a JSON Schema (draft 7) for editors and validators; NULL: no memory. The caller's. */
cJSON *mb_config_schema(void);
/* MB_E_INPUT and a sentence when the text of a flag is no value of its key's type. */
int mb_config_value_check(const mb_config_value *value, mb_error *err);

#endif
