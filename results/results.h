/*
 * results.h - the store: one SQLite file, written per sample, read through views.
 *
 * schema.sql and views.sql are compiled in. Writers use the structs below and nothing else; reports, exports and
 * plots read the views only. Every write of a sample is one transaction: a kill loses at most the sample in
 * flight. Identities (environment, model, dataset, configuration, sampler) are stored once and found by hash.
 */
#ifndef MB_RESULTS_H
#define MB_RESULTS_H

#include "base/base.h"

typedef struct mb_store mb_store;

/* SCRATCH: a copy of an existing file in memory. It may be read and written; nothing of it reaches the file. */
typedef enum mb_store_mode { MB_STORE_WRITE = 0, MB_STORE_READ = 1, MB_STORE_SCRATCH = 2 } mb_store_mode;

/* WRITE creates the file and the schema, refuses another application_id or schema version, and fails at once
 * with a clear sentence when another process writes (busy), the folder is read-only or the disk is full. From then
 * on every write checks that the path still leads to the open file: else the rows are saved as PATH.saved-PID and
 * the write is MB_E_SYSTEM. */
int mb_store_open(mb_store **store, const char *path, mb_store_mode mode, mb_error *err);
/* Whether a program was stopped before it could store anything in this file: no store yet, and no damage. */
bool mb_store_is_blank(const char *path);
int mb_store_close(mb_store *store, mb_error *err); /* checkpoints the WAL; NULL is fine */
/* Makes a store that is open for writing an empty one, in one transaction and under the same lock. */
int mb_store_renew(mb_store *store, mb_error *err);
/* While another program holds the file, a write asks `wait` every second with the seconds waited so far: false
 * ends it with MB_E_STOP. Without this a write waits 10 s and is MB_E_SYSTEM. */
void mb_store_on_wait(mb_store *store, bool (*wait)(void *self, int seconds), void *self);

/* ---- identities: insert or find by content; *id receives the row ---- */
typedef struct mb_env_row {
    const char *host, *os, *cpu, *gpu, *gpu_uuid, *driver, *cuda, *device, *git, *build, *detail;
    int32_t threads;
} mb_env_row;
typedef struct mb_model_row {
    const char *name, *family, *config_hash, *weights_hash, *tokenizer_hash, *type;
    int32_t layers, query_heads, kv_heads, head_dim, hidden, block, vocab;
    bool synthetic;
} mb_model_row;
typedef struct mb_dataset_row {
    const char *task, *benchmark, *category, *language, *metric, *file_hash, *prompt_hash, *options_json;
    int32_t max_new_tokens;
} mb_dataset_row;
typedef struct mb_config_row { /* a method configuration */
    const char *method, *version, *summary, *reference;
    const char *origin_hash; /* of the plug-in file, or of the built-in method's compiled code */
    const char *options_json;
    uint64_t caps;     /* MB_CAP_* as stored integer */
    int64_t k;         /* token budget, -1 = none (NULL in the store) */
    const char *label; /* short unique label for tables: "mage k=256" */
} mb_config_row;
typedef struct mb_sampler_row {
    const char *schedule; /* "threshold" or "fixed" */
    int32_t steps, block, sub_block;
    double threshold;
    bool dynamic, block_cache;
    const char *confidence;
    const char *options; /* "key=value key=value" of all else that is not its default; NULL = none */
} mb_sampler_row;
int mb_store_env(mb_store *, const mb_env_row *, int64_t *id, mb_error *err);
int mb_store_model(mb_store *, const mb_model_row *, int64_t *id, mb_error *err);
int mb_store_dataset(mb_store *, const mb_dataset_row *, int64_t *id, mb_error *err);
int mb_store_config(mb_store *, const mb_config_row *, int64_t *id, mb_error *err);
int mb_store_sampler(mb_store *, const mb_sampler_row *, int64_t *id, mb_error *err);
/* The code that computes what is stored from here on: hash of the compiled program (debug information left out)
 * and the commit. Cells of another build are other cells; the views show the newest. */
int mb_store_build(mb_store *, const char *hash, const char *git, mb_error *err);

/* ---- runs and cells ---- */
/* A run is one identity + seed on one store; the same again continues it, with the config text of the newest
 * start. The identity is the caller's: the config without what only extends a run. */
typedef struct mb_shard { /* a part of a run; last 0: all of it */
    int32_t number;       /* 1 to last: samples; 0: the timed passes, which are not split */
    int32_t first, last;  /* first 0: the run has timed passes, else 1 */
} mb_shard;
typedef struct mb_run_row {
    const char *name, *config_json, *identity, *command;
    uint64_t seed;
    int64_t env;
    mb_shard shard; /* what this start computes */
} mb_run_row;
int mb_store_run(mb_store *, const mb_run_row *, int64_t *run_id, mb_error *err);
int mb_store_run_end(mb_store *, int64_t run_id, const char *state /* done | interrupted | failed */,
                     double seconds, int64_t peak_bytes, mb_error *err);

typedef struct mb_cell_key {                      /* run x model x dataset x config x sampler x pass */
    int64_t run, model, dataset, config, sampler; /* dataset 0 for latency cells */
    const char *pass;                             /* "quality", "recall", "forced", "latency", "breakdown" */
} mb_cell_key;
int mb_store_cell(mb_store *, const mb_cell_key *, int64_t *cell_id, mb_error *err);
/* A cell that cannot run at all (method unsupported, dataset missing): state "skipped"/"failed" with reason. */
int mb_store_cell_state(mb_store *, int64_t cell, const char *state, const char *reason, mb_error *err);
/* 1 = this sample of this cell is stored (any status but "failed"), 0 = not. */
int mb_store_has_sample(mb_store *, int64_t cell, const char *sample_key);
/* The same where the cell itself may not be there, and is not to be made. */
int mb_store_cell_has(mb_store *, const mb_cell_key *key, const char *sample_key);
/* Samples that the newest start of a run has stored. */
int64_t mb_store_session_samples(mb_store *, int64_t run);
int64_t mb_store_cell_samples(mb_store *, int64_t cell); /* those that mb_store_has_sample() finds */

/* ---- merging ---- */
/* Merges databases into the result, which is made where there is none, in one transaction: rows of one identity
 * are stored once, shards of a run become that run, different runs stand side by side. MB_E_INPUT and both values
 * where one identity has two; MB_E_STOP when *stop (may be NULL) is set. After an error the result is as it was.
 * notes: a line a run, with the shards that are missing. A path that is the result itself is passed over. */
int mb_store_merge(const char *result, const char *const *paths, size_t count, const volatile int *stop,
                   mb_text *notes, mb_error *err);

/* ---- rows that another process of the same session computes ---- */
/* A store in memory, for one run and session, into which a process stores as usual. */
int mb_store_open_memory(mb_store **store, mb_error *err);
/* What was stored since the last call, as bytes (mb_text data, length); the samples are then forgotten. */
int mb_store_pack(mb_store *, mb_text *bytes, mb_error *err);
/* Such bytes into the newest session of the run, in one transaction; the run must be the same one. */
int mb_store_absorb(mb_store *, int64_t run, const char *bytes, size_t size, mb_error *err);

/* ---- samples ---- */
typedef struct mb_recall_row {
    int32_t layer, step, blocks, heads;
    double index_recall, mass_recall, captured_mass;
    const float *index_head, *mass_head; /* [heads]; negative = this head has no recall */
} mb_recall_row;
typedef struct mb_counter_row {
    const char *name, *unit, *better, *aggregate;
    double value;
} mb_counter_row;
typedef struct mb_grid_row { /* a counter by layer and step, one place */
    const char *name, *unit, *better, *aggregate;
    int32_t layer, step;  /* -1 = not by it; step 0 = commits */
    double total, weight; /* of a mean: numerator and denominator; weight > 0 */
} mb_grid_row;
/* ---- a recorded sample: what schema.sql says of prompt_text, trace, selection ---- */
typedef struct mb_step_row {
    int32_t block, step, masked, prefix;
    const char *written; /* JSON */
} mb_step_row;
typedef struct mb_selection_row {
    int32_t block, layer, step, granularity, prefix, kv_heads;
    const unsigned char *pages; /* NULL: as at the step before */
    size_t size;
} mb_selection_row;
typedef struct mb_record_row {
    const char *prompt;
    const unsigned char *token_bytes;
    size_t token_bytes_size;
    const mb_step_row *steps;
    size_t step_count;
    const mb_selection_row *selections;
    size_t selection_count;
} mb_record_row;

typedef struct mb_sample_row {
    int64_t cell;
    const char *key;    /* mb_sample.key */
    const char *status; /* "ok", "failed", "skipped" */
    const char *error;  /* sentence for failed/skipped, with source */
    const char *prediction, *answers_json, *classes_json, *group;
    const char *token_hash; /* of the prompt's ids */
    double score;           /* NAN = none */
    int64_t length;
    int32_t prompt_tokens, context, new_tokens, blocks, denoise_forwards, commit_forwards;
    double depth; /* -1 = none */
    bool truncated, stopped;
    double engaged, work_attend, work_select;
    double prefill_us, decode_us;
    const int32_t *forwards_histogram;
    int32_t histogram_size;
    int32_t agree, compared;
    const mb_recall_row *recalls;
    size_t recall_count;
    int64_t dense_calls, sparse_calls;
    const mb_counter_row *counters;
    size_t counter_count;
    const mb_grid_row *grids;
    size_t grid_count;           /* rows of one name follow each other */
    const mb_record_row *record; /* NULL: nothing was recorded */
} mb_sample_row;
/* One transaction; replaces a "failed" row of the same key. MB_E_SYSTEM when the disk is full: nothing is lost. */
int mb_store_sample(mb_store *, const mb_sample_row *, mb_error *err);

/* ---- latency ---- */
typedef struct mb_latency_row {
    const char *phase; /* "prefill", "first_step", "later_step", "commit", "block", "request" */
    int32_t context, batch, steps;
    double us;
    int32_t sm_mhz;            /* 0 = unknown */
    int64_t throttle;          /* bit mask, -1 = unknown */
    double temperature, power; /* Celsius, watt; NAN = unknown */
    int32_t other_processes;   /* -1 = unknown */
    bool graph, kept;
    const char *timer; /* "cuda_event", "host_clock" */
} mb_latency_row;
/* Raw samples in one transaction. A case is (cell, session, context, batch, steps, graph, phase): what an earlier
 * start measured stays, what this one stored of a case is replaced. */
int mb_store_latency(mb_store *, int64_t cell, const mb_latency_row *rows, size_t count, mb_error *err);
typedef struct mb_memory_row {
    int32_t context, batch;
    int64_t weights, kv, index, scratch, peak; /* bytes */
} mb_memory_row;
/* 1 = some start has measured the case (phase, context, batch, steps of *which) for this cell, or measured it for
 * the reference's cell while this one could not run there; 0 = it is to be measured. */
int mb_store_has_latency(mb_store *, int64_t cell, int64_t reference, const mb_latency_row *which);
/* 1 = some start has profiled the cell at this context and batch. */
int mb_store_has_breakdown(mb_store *, int64_t cell, int32_t context, int32_t batch);
int mb_store_memory(mb_store *, int64_t cell, const mb_memory_row *row, mb_error *err);
typedef struct mb_breakdown_row {
    int32_t context, batch;
    const char *step_kind; /* "first", "later", "commit" */
    const char *part;      /* "gemm", "dense attention", "selection", ... */
    double us;
    int32_t kernels;
} mb_breakdown_row;
int mb_store_breakdown(mb_store *, int64_t cell, const mb_breakdown_row *rows, size_t count, mb_error *err);
/* Sanity gates and events of a run. */
int mb_store_gate(mb_store *, int64_t run, const char *name, const char *verdict /* pass|fail|skip */,
                  const char *detail, mb_error *err);
/* Whether the gate is stored as failed. */
bool mb_store_gate_failed(mb_store *, int64_t run, const char *name);
int mb_store_event(mb_store *, int64_t run, const char *level, const char *text, mb_error *err);

/* ---- reading: reports and exports from the views ---- */
typedef enum mb_table_format {
    MB_TABLE_TERMINAL = 0,
    MB_TABLE_MARKDOWN,
    MB_TABLE_CSV,
    MB_TABLE_JSONL,
    MB_TABLE_LATEX, /* tables for \\input, with booktabs */
    MB_TABLE_HTML   /* one page that needs no network */
} mb_table_format;
/* terminal, md, csv, jsonl, latex, html; MB_E_INPUT and a sentence for another word. */
int mb_table_format_find(const char *word, mb_table_format *format, mb_error *err);
/* Runs one SELECT and renders its rows; the one table printer of the project. max_width 0 = no limit. */
int mb_table_query(mb_store *, const char *sql, mb_table_format format, int max_width, mb_text *out,
                   mb_error *err);
typedef struct mb_report_options {
    mb_table_format format;
    int max_width;       /* 0: not known */
    bool full;           /* all that the views hold, not a screen of it */
    const char *figures; /* folder that mb_plot_all() drew into, for an HTML page; NULL: none */
} mb_report_options;
/* The comparison report of a run (label or number; NULL = the one started last): accuracy with paired differences,
 * recall, work, forwards, latency, gates. CSV and JSONL: one row per configuration and task, unrounded, whether in
 * full or not. */
int mb_report(mb_store *, const char *run, const mb_report_options *options, mb_text *out, mb_error *err);
/* One side of a comparison of two runs. */
typedef struct mb_compare_side {
    mb_store *store;
    const char *name; /* of the file, for people */
    const char *run;  /* label or number; NULL: the one started last */
    const char
        *build; /* first letters of a build's hash: its rows, superseded or not; NULL: the newest of each label */
} mb_compare_side;
typedef struct mb_compare_result {
    double worst; /* smallest mean difference of scores, B - A in shares; NAN: none */
    char worst_config[256];
    size_t compared, vanished; /* configurations of both; configurations and tasks that only A has */
} mb_compare_result;
/* What B does otherwise than A: scores paired by item, recall, work, forwards, times, each with an interval; rows
 * that appeared or vanished; a verdict a configuration. */
int mb_compare(const mb_compare_side *a, const mb_compare_side *b, const mb_report_options *options, mb_text *out,
               mb_compare_result *result, mb_error *err);
/* A sample to look at: which item, and for the whole of it, which configurations. */
typedef struct mb_show_request {
    const char *run;     /* label or number; NULL: the one started last */
    const char *item;    /* its key, or TASK:KEY */
    const char *method;  /* a method or the label of a configuration; NULL: all */
    const char *figures; /* folder for maps as pictures; NULL: none */
} mb_show_request;
/* Prompt, references, answers beside the reference's with differences marked, steps, and where the selected keys
 * lie, as far as they were recorded. */
int mb_show(mb_store *, const mb_show_request *request, const mb_report_options *options, mb_text *out,
            mb_error *err);
/* Evaluates the gates of a run from the views and stores them (results/README.md, "Statistics and gates"). */
int mb_gates_run(mb_store *, int64_t run, mb_error *err);
/* folder/pred/<model>-<config>/<task>.jsonl of every quality cell of a run; run NULL: of all runs, each with its
 * label in front where there are several. */
int mb_export_pred(mb_store *, const char *run, const char *folder, mb_error *err);
/* The same runs as lm-evaluation-harness leaves its own: folder/<model>__<config>[__<sampler>]/results_<date>.json
 * and samples_<task>_<date>.jsonl. */
int mb_export_lm_eval(mb_store *, const char *run, const char *folder, mb_error *err);
/* All of the database as a file that SQLite 3.26 reads: tables that are not STRICT. MB_E_INPUT: the file exists.
 */
int mb_export_sqlite(mb_store *, const char *path, mb_error *err);
/* CSV or JSONL: v_samples, a row per sample of the run (NULL: of all). TERMINAL or MARKDOWN: the report of the run
 * (NULL: of the newest). */
int mb_export(mb_store *, const char *run, mb_table_format format, mb_text *out, mb_error *err);
/* Draws every figure that the store has data for: PNG and SVG into folder. Returns the number of figures in
 * *drawn; MB_E_SYSTEM with a hint when gnuplot is missing. plots/ scripts are compiled in. */
int mb_plot_all(mb_store *, const char *run, const char *folder, int *drawn, mb_error *err);
/* Which figures, and what is said of them. */
typedef struct mb_plot_choice {
    const char *figure; /* of mb_plot_name(); NULL = all that the run has rows for */
    const char *format; /* "png", "svg" or "pdf"; NULL = PNG and SVG */
    mb_text *paths;     /* receives the path of each picture, a line each; may be NULL */
} mb_plot_choice;
/* The same for a choice. MB_E_INPUT: no such figure or format, or the run has no rows for the figure. */
int mb_plot_some(mb_store *, const char *run, const char *folder, const mb_plot_choice *choice, int *drawn,
                 mb_error *err);
/* i-th kind of figure and one line that says what it shows (malloc'ed); false past the end. */
bool mb_plot_name(size_t i, char name[64], char **shows);

#endif
