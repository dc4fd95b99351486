/*
 * devices.c - which device computes which sample, and what becomes of a sample whose worker died (devices.h).
 *
 * Samples come from the stream in its order; each waits here until a worker is free. Rows arrive as a small
 * database a sample (results/absorb.c), so a sample is stored with all its rows or not at all.
 */
#include "driver/devices.h"

#include "driver/os/os.h"
#include "driver/pass/pass.h"
#include "driver/pass/plan.h"
#include "driver/worker/worker.h"

#include "kernels/kernels.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIES 3 /* of a sample, and of a device in a row */

typedef struct given {
    size_t task;
    int64_t index, number;
    char *stored; /* owned; NULL: no sample */
    size_t wanted;
    int tries;
} given;

typedef enum device_state { DEVICE_OPENING, DEVICE_FREE, DEVICE_BUSY, DEVICE_GONE } device_state;
typedef struct device {
    char *name; /* "cuda:1" */
    mb_worker *worker;
    device_state state;
    given sample;
    int deaths; /* since its last sample */
} device;

struct mb_devices {
    device *all;
    size_t count;
    given *queue; /* samples that no worker has */
    size_t queued, capacity;
    const char **plugins;
    size_t plugin_count;
    mb_error last; /* why a device was given up */
    bool started;  /* a run that finds all its rows starts nobody */
};

/* ---- choosing ---- */

static int add_device(struct mb_devices *d, const char *word, size_t length, mb_error *err)
{
    device *grown = realloc(d->all, (d->count + 1) * sizeof *grown);
    bool number = length > 0 && isdigit((unsigned char)word[0]);
    if (!grown)
        return mb_no_memory(err, "the devices");
    d->all = grown;
    d->all[d->count] = (device){.name = mb_string_format("%s%.*s", number ? "cuda:" : "", (int)length, word)};
    if (!d->all[d->count].name)
        return mb_no_memory(err, "the devices");
    d->count++;
    if (strncmp(d->all[d->count - 1].name, d->all[0].name, 3) != 0)
        return mb_fail(err, MB_E_INPUT, "--devices: %s and %s give other numbers: one run has one kind of device",
                       d->all[0].name, d->all[d->count - 1].name);
    return strcmp(d->all[d->count - 1].name, "cpu") == 0 || strncmp(d->all[d->count - 1].name, "cuda", 4) == 0
               ? MB_OK
               : mb_fail(err, MB_E_INPUT,
                         "--devices takes a list such as 0,1 or cuda:0,cuda:1 or cpu,cpu, or all; "
                         "not \"%.*s\"",
                         (int)length, word);
}

static int read_list(struct mb_devices *d, const char *list, mb_error *err)
{
    int rc = MB_OK;
    mb_error why = {0};
    if (strcmp(list, "all") != 0) {
        for (const char *p = list; rc == MB_OK; p += strcspn(p, ","), p++) {
            rc = add_device(d, p, strcspn(p, ","), err);
            if (!p[strcspn(p, ",")])
                break;
        }
        return rc;
    }
    int gpus = mb_cuda_device_count(&why);
    if (gpus < 1)
        return mb_fail(err, MB_E_INPUT,
                       "--devices all: no GPU can be used: %s; --devices cpu,cpu starts two workers on "
                       "the CPU",
                       why.text);
    for (int i = 0; rc == MB_OK && i < gpus; i++) {
        char word[16];
        snprintf(word, sizeof word, "%d", i);
        rc = add_device(d, word, strlen(word), err);
    }
    return rc;
}

/* The plug-ins that are loaded here, each once: a worker gets them by name. */
static int list_plugins(struct mb_devices *d, mb_error *err)
{
    d->plugins = calloc(mb_registry_count() + 1, sizeof *d->plugins);
    if (!d->plugins)
        return mb_no_memory(err, "the devices");
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const char *path = mb_registry_origin(mb_registry_at(i));
        bool known = !*path;
        for (size_t k = 0; k < d->plugin_count; k++)
            known = known || strcmp(d->plugins[k], path) == 0;
        if (!known)
            d->plugins[d->plugin_count++] = path;
    }
    return MB_OK;
}

int mb_devices_choose(mb_run *run, mb_error *err)
{
    mb_run_config *config = run->config;
    if (!run->flags.devices)
        return MB_OK;
    if (!(config->passes & MB_RUN_SAMPLES))
        return mb_fail(err, MB_E_INPUT,
                       "--devices: the config's passes are timed, and those run on one device alone");
    if (!(run->devices = calloc(1, sizeof *run->devices)))
        return mb_no_memory(err, "the devices");
    int rc = read_list(run->devices, run->flags.devices, err);
    if (rc == MB_OK)
        rc = list_plugins(run->devices, err);
    if (rc != MB_OK)
        return rc;
    char *first = mb_string_copy(run->devices->all[0].name);
    if (!first)
        return mb_no_memory(err, "the devices");
    free(config->device);
    config->device = first;
    if (config->passes & MB_RUN_TIMES)
        mb_progress_note(&run->progress,
                         "the timed passes are left out: the same command without --devices does them");
    config->passes &= MB_RUN_SAMPLES;
    if (run->flags.dry_run) /* a plan is one worker's: it looks at the first device itself */
        mb_devices_close(run);
    return MB_OK;
}

/* ---- workers ---- */

static int threads_of(const mb_run *run)
{
    mb_environment machine;
    int threads = run->config->threads;
    if (threads > 0 || strcmp(run->devices->all[0].name, "cpu") != 0)
        return threads;
    mb_environment_read(&machine, 0);
    threads = machine.threads / (int)run->devices->count;
    return threads > 0 ? threads : 1;
}

static int start_worker(mb_run *run, device *d, mb_error *err)
{
    char threads[16];
    mb_text question = {0};
    mb_samples_job job = {.open = 1};
    snprintf(threads, sizeof threads, "%d", threads_of(run));
    int rc = mb_worker_start_samples(&d->worker, run->devices->plugins, run->devices->plugin_count, d->name, err);
    if (rc != MB_OK)
        return rc;
    cJSON *order = cJSON_CreateObject();
    cJSON_AddItemReferenceToObject(order, MB_SAMPLES_CONFIG, run->config->json);
    cJSON_AddStringToObject(order, MB_SAMPLES_DEVICE, d->name);
    cJSON_AddStringToObject(order, MB_SAMPLES_THREADS, threads);
    char *text = cJSON_PrintUnformatted(order);
    cJSON_Delete(order);
    mb_text_append(&question, (const char *)&job, sizeof job);
    mb_text_puts(&question, text ? text : "");
    rc = text ? mb_worker_post(d->worker, &question, err) : mb_no_memory(err, "a worker's order");
    d->state = DEVICE_OPENING;
    free(text);
    mb_text_free(&question);
    return rc;
}

static int give(device *d, given *sample, mb_error *err)
{
    mb_text question = {0};
    mb_samples_job job = {.task = sample->task, .index = sample->index, .number = sample->number};
    mb_text_append(&question, (const char *)&job, sizeof job);
    mb_text_append(&question, sample->stored, sample->wanted);
    d->sample = *sample;
    d->state = DEVICE_BUSY;
    int rc = mb_worker_post(d->worker, &question, err);
    mb_text_free(&question);
    return rc;
}

static int enqueue(struct mb_devices *d, const given *sample, mb_error *err)
{
    if (d->queued == d->capacity) {
        size_t capacity = d->capacity ? 2 * d->capacity : 8;
        given *grown = realloc(d->queue, capacity * sizeof *grown);
        if (!grown)
            return mb_no_memory(err, "the queue of samples");
        d->queue = grown;
        d->capacity = capacity;
    }
    d->queue[d->queued++] = *sample;
    return MB_OK;
}

/* ---- what comes back ---- */

static int store_rows(mb_run *run, device *d, const mb_text *answer, mb_error *err)
{
    mb_samples_done done;
    const mb_task_spec *task = &run->config->tasks[d->sample.task];
    size_t missing = 0;
    if (answer->length < sizeof done)
        return mb_fail(err, MB_E_BUG, "the worker on %s sent a damaged answer", d->name);
    memcpy(&done, answer->data, sizeof done);
    int rc =
        mb_store_absorb(run->store, run->run_id, answer->data + sizeof done, answer->length - sizeof done, err);
    if (rc == MB_OK)
        rc = mb_group_gate(run, done.alone_again, done.alone_differ, (size_t)done.differing, err);
    for (size_t i = 0; i < d->sample.wanted; i++)
        missing += !d->sample.stored[i];
    run->failed_samples += done.failed;
    run->seconds_quality += done.seconds_quality;
    run->seconds_recall += done.seconds_recall;
    mb_progress_step(&run->progress, (double)missing * mb_plan_sample_seconds(run, task), true);
    free(d->sample.stored);
    d->sample = (given){0};
    d->deaths = 0;
    d->state = DEVICE_FREE;
    return rc;
}

/* A worker that opened its device says what it is. */
static int note_device(mb_run *run, device *d, const mb_text *answer, mb_error *err)
{
    char *text = mb_string_format("device %s: %s", d->name, answer->data ? answer->data : "");
    int rc = text ? mb_store_event(run->store, run->run_id, "note", text, err) : mb_no_memory(err, "a note");
    if (rc == MB_OK)
        mb_progress_note(&run->progress, "%s", text);
    free(text);
    d->state = DEVICE_FREE;
    return rc;
}

/* A worker is gone, with or without a sample. why: how it ended. */
static int bury(mb_run *run, device *d, int code, const mb_error *why, mb_error *err)
{
    struct mb_devices *all = run->devices;
    bool opening = d->state == DEVICE_OPENING;
    int rc = MB_OK;
    mb_progress_note(&run->progress, "worker on %s: %s", d->name, why->text);
    mb_worker_end(d->worker);
    d->worker = NULL;
    d->state = DEVICE_GONE;
    mb_fail(&all->last, code == MB_E_SAMPLE ? MB_E_SYSTEM : code, "device %s: %.900s", d->name, why->text);
    if (d->sample.stored && ++d->sample.tries >= TRIES)
        return mb_fail(err, MB_E_SYSTEM, "sample %lld of task %s ended its worker %d times: %.700s",
                       (long long)d->sample.index + 1, run->config->tasks[d->sample.task].task, TRIES, why->text);
    if (d->sample.stored)
        rc = enqueue(all, &d->sample, err);
    d->sample = (given){0};
    /* What cannot be opened is not tried again, unless its process died over it. */
    if (rc == MB_OK && ++d->deaths < TRIES && !(opening && code != MB_E_SAMPLE))
        rc = start_worker(run, d, err);
    return rc;
}

static void say(void *self, size_t which, const char *sentence)
{
    mb_run *run = self;
    mb_progress_note(&run->progress, "worker on %s (process %d) %s", run->devices->all[which].name,
                     mb_worker_process(run->devices->all[which].worker), sentence);
}

/* Waits for one worker to answer or end, and deals with it. */
static int pump(mb_run *run, mb_error *err)
{
    struct mb_devices *all = run->devices;
    mb_worker **waiting = calloc(all->count, sizeof *waiting);
    size_t which = 0, n = 0;
    mb_text answer = {0};
    mb_error why = {0};
    const mb_worker_watch watch = {&mb_interrupted, run->config->plugin_seconds, say, run};
    if (!waiting)
        return mb_no_memory(err, "the devices");
    for (size_t i = 0; i < all->count; i++) {
        bool asked = all->all[i].state == DEVICE_OPENING || all->all[i].state == DEVICE_BUSY;
        waiting[i] = asked ? all->all[i].worker : NULL;
        n += asked;
    }
    int rc = n ? mb_worker_wait(waiting, all->count, &watch, &which, &answer, &why)
               : mb_fail(err, all->last.code ? all->last.code : MB_E_SYSTEM, "no device is left: %.950s",
                         all->last.text);
    device *d = &all->all[which];
    if (n && rc == MB_E_STOP)
        mb_fail(err, rc, "%s", why.text);
    else if (n && rc != MB_OK)
        rc = bury(run, d, rc, &why, err);
    else if (n)
        rc = d->state == DEVICE_OPENING ? note_device(run, d, &answer, err) : store_rows(run, d, &answer, err);
    mb_text_free(&answer);
    free(waiting);
    return rc;
}

/* Gives every queued sample to a worker; all: and waits until all are stored. */
static int work(mb_run *run, bool whole, mb_error *err)
{
    struct mb_devices *all = run->devices;
    int rc = MB_OK;
    while (rc == MB_OK) {
        size_t busy = 0, open = all->count;
        for (size_t i = 0; i < all->count; i++) {
            busy += all->all[i].state == DEVICE_BUSY;
            if (all->all[i].state == DEVICE_FREE && open == all->count)
                open = i;
        }
        if (all->queued > 0 && open < all->count)
            rc = give(&all->all[open], &all->queue[--all->queued], err);
        else if (all->queued > 0 || (whole && busy > 0))
            rc = pump(run, err);
        else
            break;
    }
    return rc;
}

/* ---- giving samples away ---- */

/* Whether the pass does this arm at all with the sample. */
static bool is_wanted(const mb_run *run, const mb_prepared *prepared, const mb_arm *arm, size_t pass)
{
    static const uint32_t passes[MB_SAMPLE_PASSES] = {MB_RUN_QUALITY, MB_RUN_RECALL, MB_RUN_FORCED};
    const mb_run_config *config = run->config;
    bool shadowed = config->recall_limit == 0 || prepared->index < config->recall_limit;
    bool selects = !(arm->spec->method->caps & (MB_CAP_LOSSLESS | MB_CAP_OPAQUE));
    return (config->passes & passes[pass]) && (passes[pass] != MB_RUN_RECALL || (shadowed && selects));
}

/* What the file has of the sample, and how many rows are missing. A cell is asked for only where it has the
 * sample: which cells there are is the worker's to say. */
static int look_up(mb_run *run, const mb_prepared *prepared, char *stored, size_t *missing, mb_error *err)
{
    static const char *const names[MB_SAMPLE_PASSES] = {"quality", "recall", "forced"};
    int rc = MB_OK;
    *missing = 0;
    for (size_t p = 0; rc == MB_OK && p < MB_SAMPLE_PASSES; p++) {
        for (size_t i = 0; rc == MB_OK && i < run->arm_count; i++) {
            const mb_arm *arm = &run->arms[i];
            char *there = &stored[p * run->arm_count + i];
            mb_cell_key key = {
                run->run_id, run->model_id, prepared->dataset_id, arm->config_id, run->sampler_ids[arm->sampler],
                names[p]};
            int64_t cell = 0;
            *there = 1;
            if (!is_wanted(run, prepared, arm, p))
                continue;
            *there = (char)mb_store_cell_has(run->store, &key, prepared->sample->key);
            if (*there)
                rc = mb_run_cell(run, arm, prepared->dataset_id, names[p], &cell, err);
            run->reused += *there;
            *missing += !*there;
        }
    }
    return rc;
}

static int start_workers(mb_run *run, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && !run->devices->started && i < run->devices->count; i++)
        rc = start_worker(run, &run->devices->all[i], err);
    run->devices->started = true;
    return rc;
}

static int give_away(mb_run *run, mb_prepared *prepared, mb_error *err)
{
    size_t missing = 0, wanted = MB_SAMPLE_PASSES * run->arm_count;
    given sample = {.task = (size_t)(prepared->task - run->config->tasks),
                    .index = prepared->index,
                    .number = prepared->number,
                    .wanted = wanted,
                    .stored = calloc(wanted, 1)};
    int rc = sample.stored ? look_up(run, prepared, sample.stored, &missing, err) : mb_no_memory(err, "a sample");
    if (rc == MB_OK && missing > 0)
        rc = start_workers(run, err);
    if (rc == MB_OK && missing > 0)
        rc = enqueue(run->devices, &sample, err);
    if (rc != MB_OK || missing == 0) {
        free(sample.stored);
        return rc;
    }
    return work(run, false, err);
}

void mb_devices_begin(mb_run *run)
{
    if (run->devices)
        run->give_away = give_away;
}

int mb_devices_finish(mb_run *run, mb_error *err)
{
    return run->devices ? work(run, true, err) : MB_OK;
}

void mb_devices_close(mb_run *run)
{
    struct mb_devices *d = run->devices;
    if (!d)
        return;
    for (size_t i = 0; i < d->count; i++) {
        mb_worker_end(d->all[i].worker);
        free(d->all[i].sample.stored);
        free(d->all[i].name);
    }
    for (size_t i = 0; i < d->queued; i++)
        free(d->queue[i].stored);
    free(d->queue);
    free(d->all);
    free(d->plugins);
    free(d);
    run->devices = NULL;
    run->give_away = NULL;
}
