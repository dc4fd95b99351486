/*
 * arm.h - what a run has open while it lasts, and what its passes share: arms, prepared samples, cells, rows and
 * requests of the store and the model, and the memory that arms need.
 *
 * An arm is a method configuration under one sampler: the unit that fills a row of every table. The driver does no
 * mathematics and names no method: the reference is the arm whose method's flags say that it equals exact
 * attention.
 */
#ifndef MB_ARM_H
#define MB_ARM_H

#include "datasets/datasets.h"
#include "driver/config/config.h"
#include "driver/os/progress.h"
#include "results/results.h"

typedef struct mb_run_flags {
    bool fresh, dry_run, quiet, verbose, profile, audit;
    bool again_latency;  /* measure what is measured already anew, into rows of their own */
    mb_shard shard;      /* the part of the run to compute */
    const char *devices; /* a worker each, "0,1"; NULL: this process alone */
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

/* One prepared sample: tokenised, prefilled on demand. */
typedef struct mb_prepared {
    const mb_task_spec *task;
    mb_sample *sample;
    int64_t index;  /* within its task */
    int64_t number; /* running number within the run: seeds and the method's request id */
    int64_t dataset_id;
    int32_t *ids;
    size_t count;
    bool truncated, prefilled;
    double prefill_us;
    char token_hash[MB_HASH_CAP];
    char *answers_json, *classes_json;
} mb_prepared;

typedef struct mb_run {
    mb_run_config *config;
    mb_run_flags flags;
    bool serving; /* this process is a worker: the plug-in that it is for runs here */
    mb_store *store;
    const mb_kernels *kernels;
    mb_device *device;
    mb_device_info device_info;
    mb_model_config model_config;
    mb_model_config rank_config; /* what one device of it holds: model_config where model.parallel is 1 */
    mb_team *team;               /* NULL: one device */
    mb_model *model;
    mb_session *session;
    mb_sampler *samplers; /* [config->samplers.count] */
    int64_t *sampler_ids;
    mb_arm *arms; /* sampler-major, then the config's method order */
    size_t arm_count;
    mb_fault *faults; /* of plug-ins that must not be timed */
    size_t fault_count;
    int64_t run_id, env_id, model_id;
    int32_t answer;                    /* most new tokens of an answer */
    int32_t lanes;                     /* arms of a sample that decode together; 0, 1 = each alone */
    int64_t groups;                    /* that were decoded */
    int64_t alone_again, alone_differ; /* arms of groups that decoded once more alone; of those, other tokens */
    size_t differing;                  /* the last of these, an index of arms */
    int32_t capacity;                  /* tokens the session holds per sequence */
    int32_t chat_overhead;             /* tokens that the chat wrapper adds to a prompt */
    mb_codec codec;
    mb_progress progress;
    int64_t failed_samples;
    int64_t special_rows; /* of the task that runs: those that spell a special token */
    int64_t reused;       /* rows and latency cases that were found in the store */
    /* Samples are computed by workers, one a device (devices.c): the one that gives a sample away; or NULL. */
    int (*give_away)(struct mb_run *run, mb_prepared *prepared, mb_error *err);
    struct mb_devices *devices;
    const char *stored;   /* in such a worker: [MB_SAMPLE_PASSES][arm_count], what the file has of the sample */
    struct mb_deal *deal; /* of the samples among the shards; NULL: all are ours */
    double seconds_setup, seconds_quality, seconds_recall, seconds_latency, seconds_report;
} mb_run;

/* The steps that methods under a sampler are told: 0 when the sampler decides. */
int32_t mb_run_scheduled_steps(const mb_run *run, size_t sampler);
/* Device bytes of a session of this size with these arms opened on it; steps -1 = as their samplers schedule. */
void mb_run_memory(const mb_run *run, int32_t batch, int32_t capacity, int32_t steps, const mb_arm *arms,
                   size_t count, mb_memory_plan *plan);
/* Tokens per sequence that the session of a latency case holds. */
int32_t mb_latency_capacity(const mb_run *run, int32_t context);
/* Most new tokens of a sample: the config's max_new_tokens, the task's own option, the benchmark's limit. */
int32_t mb_run_new_tokens(const mb_run *run, const mb_task_spec *task);

/* The arm of the method that equals exact attention under a sampler, or NULL; the first wants an attender, too. */
mb_arm *mb_run_reference(const mb_run *run, size_t sampler);
mb_arm *mb_run_reference_arm(const mb_run *run, size_t sampler);
/* Whether the arm's method was loaded from a file of somebody else. */
bool mb_arm_is_plugin(const mb_arm *arm);
/* Whether a worker of its own runs the method's hooks: a plug-in's, unless this process is that worker. */
bool mb_arm_wants_worker(const mb_run *run, const mb_arm *arm);
/* Tokens per KV head that a method's selections are held to; 0: any number. */
int64_t mb_arm_budget(const mb_arm *arm);
/* Why an arm must not be timed at a context; NULL: it may. */
const char *mb_arm_fault(const mb_run *run, const mb_arm *arm, int32_t context);

int mb_run_prefill(mb_run *run, mb_prepared *prepared, mb_error *err);
/* The row of a sample with everything but the result filled in. */
void mb_run_sample_row(const mb_prepared *prepared, int64_t cell, mb_sample_row *row);
int mb_run_cell(mb_run *run, const mb_arm *arm, int64_t dataset_id, const char *pass, int64_t *cell,
                mb_error *err);
/* Whether the store has this sample of the cell, computed by this build; counts it as reused. */
bool mb_run_stored(mb_run *run, const mb_prepared *prepared, const mb_arm *arm, const char *pass, int64_t cell);
/* Place of a pass over samples in a list of them: 0 to MB_SAMPLE_PASSES - 1. */
size_t mb_pass_index(const char *pass);
enum { MB_SAMPLE_PASSES = 3 };
/* The answer's limit for one sample. */
int32_t mb_run_answer_tokens(const mb_run *run, const mb_sample *sample);
/* What a decode asks for: sampler, limits, stop flag. */
void mb_run_request(const mb_run *run, const mb_prepared *prepared, size_t sampler, mb_decode_request *request);

#endif
