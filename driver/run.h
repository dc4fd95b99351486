/*
 * run.h - one run of the harness: what is open while it lasts, and the passes over it.
 *
 * setup.c opens everything in order (config -> model dimensions -> device -> weights -> session -> methods ->
 * store); quality.c, recall.c and latency.c are the passes; run.c drives them and finishes with gates, table and
 * plots. The driver knows every room, does no mathematics and names no method: the reference method is the one
 * whose flags say that it equals exact attention.
 */
#ifndef MB_RUN_H
#define MB_RUN_H

#include "datasets/datasets.h"
#include "driver/config/config.h"
#include "driver/os/progress.h"
#include "results/results.h"

/* Set by SIGINT and SIGTERM; every pass looks at it between forwards. */
extern volatile int mb_interrupted;

typedef struct mb_run_flags {
    bool fresh, dry_run, quiet, profile, audit;
} mb_run_flags;

/* A method configuration under one sampler: the unit that fills a row of every table. */
typedef struct mb_arm {
    const mb_method_spec *spec;
    size_t sampler; /* index into mb_run.samplers */
    int64_t config_id;
    mb_attender *attender;     /* NULL when unsupported here */
    char reason[MB_ERROR_CAP]; /* why, then */
    bool isolated;             /* its hooks run in a worker process only; attender is NULL */
    bool broken;               /* it cannot be opened, or hung before: every sample fails with reason */
    struct mb_worker *worker;  /* of an isolated one, while there is one */
} mb_arm;

/* What a rehearsal found wrong with a plug-in at one context. */
typedef struct mb_fault {
    const mb_method_spec *spec;
    int32_t context;
    char reason[MB_ERROR_CAP];
} mb_fault;

typedef struct mb_run {
    mb_run_config *config;
    mb_run_flags flags;
    bool serving; /* this process is a worker: the plug-in that it is for runs here */
    mb_store *store;
    const mb_kernels *kernels;
    mb_device *device;
    mb_device_info device_info;
    mb_model_config shape; /* the model's dimensions */
    mb_model *model;
    mb_session *session;
    mb_sampler *samplers; /* [config->samplers.count] */
    int64_t *sampler_ids;
    mb_arm *arms; /* sampler-major, then the config's method order */
    size_t arm_count;
    mb_fault *faults; /* of plug-ins that must not be timed */
    size_t fault_count;
    int64_t run_id, env_id, model_id;
    int32_t capacity;      /* tokens the session holds per sequence */
    int32_t chat_overhead; /* tokens that the chat wrapper adds to a prompt */
    mb_codec codec;
    mb_progress progress;
    int64_t failed_samples;
    double seconds_setup, seconds_quality, seconds_recall, seconds_latency, seconds_report;
} mb_run;

/* The whole of `./harness --config ...`; returns the program's exit code (0, 1, 2, 3, 4 or 130). */
int mb_run_main(mb_run_config *config, const mb_run_flags *flags, const char *command);

/* ---- setup.c ---- */
/* Model dimensions, samplers, checks that need both; no device yet. */
int mb_run_inspect(mb_run *run, mb_error *err);
/* Device bytes of a session of this size with these arms opened on it; steps -1 = as their samplers schedule. */
void mb_run_plan(const mb_run *run, int32_t batch, int32_t capacity, int32_t steps, const mb_arm *arms,
                 size_t count, mb_memory_plan *plan);
/* Device, weights, session and one attender per arm, in the order of the next two. */
int mb_run_open(mb_run *run, mb_error *err);
int mb_run_open_model(mb_run *run, mb_error *err);
int mb_run_open_session(mb_run *run, mb_error *err);
/* The steps that methods under a sampler are told: 0 when the sampler decides. */
int32_t mb_run_scheduled_steps(const mb_run *run, size_t sampler);
/* The store with the identities of this run. */
int mb_run_open_store(mb_run *run, const char *command, mb_error *err);
void mb_run_close(mb_run *run);
/* Most new tokens of a sample: the config's max_new_tokens, the task's own option, the benchmark's limit. */
int32_t mb_run_new_tokens(const mb_run *run, const mb_task_spec *task);
/* The arm of the method that equals exact attention under a sampler, or NULL; the first wants an attender, too. */
mb_arm *mb_run_reference(const mb_run *run, size_t sampler);
mb_arm *mb_run_reference_arm(const mb_run *run, size_t sampler);

/* ---- plan.c ---- */
/* --dry-run: cells, samples, tokens, memory, and what is stored already. */
int mb_run_print_plan(mb_run *run, mb_error *err);

/* ---- quality.c / recall.c / latency.c ---- */
/* One prepared sample: tokenised, prefilled on demand. */
typedef struct mb_prepared {
    const mb_task_spec *task;
    mb_sample *sample;
    int64_t number; /* running number within the run: seeds and the method's request id */
    int64_t dataset_id;
    int32_t *ids;
    size_t count;
    bool truncated, prefilled;
    double prefill_us;
    char token_hash[MB_HASH_CAP];
    char *answers_json, *classes_json;
} mb_prepared;

/* All tasks: streams samples, prepares each once and hands it to the passes that want it. */
int mb_run_tasks(mb_run *run, mb_error *err);
/* Opens a task to learn its size (-1 = only the file knows) and, with a store, its identity there. A missing file
 * is found here, before any work. */
int mb_run_dataset(mb_run *run, const mb_task_spec *spec, int64_t *samples, int64_t *id, mb_error *err);
int mb_run_prefill(mb_run *run, mb_prepared *prepared, mb_error *err);
/* The row of a sample with everything but the result filled in. */
void mb_run_sample_row(const mb_prepared *prepared, int64_t cell, mb_sample_row *row);
int mb_run_cell(mb_run *run, const mb_arm *arm, int64_t dataset_id, const char *pass, int64_t *cell,
                mb_error *err);
/* What a decode asks for: sampler, limits, stop flag. */
void mb_run_request(const mb_run *run, const mb_prepared *prepared, size_t sampler, mb_decode_request *request);

int mb_quality_sample(mb_run *run, mb_prepared *prepared, mb_error *err);
int mb_forced_sample(mb_run *run, mb_prepared *prepared, mb_error *err);
int mb_recall_sample(mb_run *run, mb_prepared *prepared, mb_error *err);
int mb_latency_pass(mb_run *run, mb_error *err);
int mb_breakdown_pass(mb_run *run, mb_error *err);

/* ---- environment.c ---- */
/* What this machine is; strings live in the struct. */
typedef struct mb_environment {
    char host[64], os[128], cpu[128], git[64], build[160];
    int32_t threads;
} mb_environment;
void mb_environment_read(mb_environment *environment, int threads);
int64_t mb_peak_memory(void); /* bytes, of this process */
int mb_terminal_width(void);  /* columns of standard output; 0 when it is no terminal */

#endif
