/*
 * isolate.c - which worker does which job, and what its failures mean for the rows of its arm.
 *
 * Workers are started when they are first needed and kept; each has the model and a cache of its own. Where the
 * device has no room for one more, the others are ended and it is tried again, so that many plug-ins on a small
 * device are slow but not refused.
 */
#include "driver/worker/isolate.h"

#include "driver/os/os.h"
#include "driver/worker/job.h"
#include "driver/worker/result_wire.h"
#include "driver/worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void end_worker(mb_arm *arm)
{
    mb_worker_end(arm->worker);
    arm->worker = NULL;
}

void mb_isolate_end(mb_run *run)
{
    for (size_t i = 0; i < run->arm_count; i++)
        end_worker(&run->arms[i]);
}

/* A worker that failed is not asked again: whatever is wrong in it ends with it. */
static int ask(const mb_run *run, mb_arm *arm, const mb_text *question, mb_text *answer, mb_error *err)
{
    mb_worker_question asked = {.name = arm->spec->method->name,
                                .text = question,
                                .seconds = run->config->plugin_seconds,
                                .stop = &mb_interrupted};
    int rc =
        question->failed ? mb_no_memory(err, "a worker's job") : mb_worker_ask(arm->worker, &asked, answer, err);
    if (rc != MB_OK)
        end_worker(arm);
    return rc;
}

static void put_job(mb_text *question, const mb_job *job)
{
    mb_text_append(question, (const char *)job, sizeof *job);
}

/* ---- opening ---- */

/* The order with which a worker opens the run. */
static void put_order(const mb_run *run, const mb_arm *arm, bool rehearsal, mb_text *question)
{
    const mb_arm *reference = mb_run_reference_arm(run, arm->sampler);
    char *methods = reference && reference != arm
                        ? mb_string_format("%s,%s", reference->spec->method->name, arm->spec->method->name)
                        : mb_string_copy(arm->spec->method->name);
    /* "auto" was decided when the run opened its device; a worker must not decide otherwise. */
    bool decided = strcmp(run->config->device, "auto") == 0 && run->kernels;
    cJSON *order = cJSON_CreateObject();
    cJSON_AddItemReferenceToObject(order, MB_JOB_CONFIG, run->config->json);
    cJSON_AddStringToObject(order, MB_JOB_METHODS, methods ? methods : "");
    cJSON_AddStringToObject(order, MB_JOB_LABEL, arm->spec->label);
    cJSON_AddNumberToObject(order, MB_JOB_SAMPLER, (double)arm->sampler);
    cJSON_AddStringToObject(order, MB_JOB_DEVICE, decided ? run->kernels->name : run->config->device);
    cJSON_AddBoolToObject(order, MB_JOB_REHEARSAL, rehearsal);
    char *text = methods ? cJSON_PrintUnformatted(order) : NULL;
    mb_job job = {.kind = MB_JOB_OPEN};
    put_job(question, &job);
    if (text)
        mb_text_puts(question, text);
    else
        question->failed = true;
    free(text);
    free(methods);
    cJSON_Delete(order);
}

static int open_once(mb_run *run, mb_arm *arm, bool rehearsal, mb_text *answer, mb_error *err)
{
    mb_text question = {0};
    int rc = mb_worker_start(&arm->worker, mb_registry_origin(arm->spec->method), err);
    if (rc == MB_OK) {
        put_order(run, arm, rehearsal, &question);
        rc = ask(run, arm, &question, answer, err);
    }
    mb_text_free(&question);
    return rc;
}

/* The arm's worker, opened if it is not. answer: why the method cannot run here, else nothing. */
static int open_worker(mb_run *run, mb_arm *arm, bool rehearsal, mb_text *answer, mb_error *err)
{
    bool others = false;
    if (arm->worker)
        return MB_OK;
    for (size_t i = 0; i < run->arm_count; i++)
        others = others || run->arms[i].worker;
    int rc = open_once(run, arm, rehearsal, answer, err);
    if (rc != MB_OK && rc != MB_E_SAMPLE && rc != MB_E_STOP && others) { /* who may hold its memory */
        mb_isolate_end(run);
        mb_text_clear(answer);
        rc = open_once(run, arm, rehearsal, answer, err);
    }
    if (rc == MB_OK || rc == MB_E_SAMPLE || rc == MB_E_STOP)
        return rc;
    return mb_fail_prefix(err, MB_E_SAMPLE, "method %s: no worker", arm->spec->method->name);
}

int mb_isolate_open(mb_run *run, mb_arm *arm, mb_error *err)
{
    mb_text answer = {0};
    int rc = open_worker(run, arm, false, &answer, err);
    if (rc == MB_OK && answer.length > 0) {
        snprintf(arm->reason, sizeof arm->reason, "%s", answer.data);
        end_worker(arm);
    } else if (rc == MB_OK) {
        arm->isolated = true;
    } else if (rc == MB_E_SAMPLE) {
        arm->broken = true;
        snprintf(arm->reason, sizeof arm->reason, "%s", err->text);
        mb_progress_note(&run->progress, "failed: %s: %s", arm->spec->label, arm->reason);
        rc = MB_OK;
    }
    mb_text_free(&answer);
    return rc;
}

/* ---- decoding ---- */

/* One that hung will hang again: its other samples need not wait for the clock as well. */
static void retire(mb_arm *arm, const char *err)
{
    if (!strstr(err, MB_WORKER_HUNG))
        return;
    arm->broken = true;
    snprintf(arm->reason, sizeof arm->reason, "not run, because on an earlier sample: %.400s", err);
}

/* Sends a decode or shadow job; the answer's bytes are for result_wire.c. */
static int do_job(mb_run *run, const mb_prepared *prepared, mb_arm *arm, mb_job_kind kind,
                  const mb_decode_request *request, mb_text *answer, mb_error *err)
{
    mb_text question = {0}, opened = {0};
    mb_job job = {.kind = kind,
                  .max_new_tokens = request->max_new_tokens,
                  .min_new_tokens = request->min_new_tokens,
                  .extra_stop_id = request->extra_stop_id,
                  .request = request->request,
                  .seed = request->seed,
                  .prompt_count = prepared->count,
                  .forced_count = request->forced ? request->forced_count : 0};
    int rc = open_worker(run, arm, false, &opened, err);
    if (rc == MB_OK) {
        put_job(&question, &job);
        mb_text_append(&question, (const char *)prepared->ids, prepared->count * sizeof *prepared->ids);
        if (job.forced_count)
            mb_text_append(&question, (const char *)request->forced, job.forced_count * sizeof *request->forced);
        rc = ask(run, arm, &question, answer, err);
    }
    if (rc != MB_OK && rc != MB_E_STOP) {
        rc = MB_E_SAMPLE;
        retire(arm, err->text);
    }
    mb_text_free(&question);
    mb_text_free(&opened);
    return rc;
}

int mb_arm_decode(mb_run *run, const mb_prepared *prepared, mb_arm *arm, const mb_decode_request *request,
                  mb_decode_result *result, mb_error *err)
{
    mb_text answer = {0};
    size_t at = 0;
    if (!arm->isolated)
        return mb_decode(run->session, arm->attender, request, result, err);
    memset(result, 0, sizeof *result);
    int rc = do_job(run, prepared, arm, MB_JOB_DECODE, request, &answer, err);
    if (rc == MB_OK && (rc = mb_wire_get_result(answer.data, answer.length, &at, result, err)) != MB_OK)
        mb_fail_prefix(err, rc, "method %s, from its process", arm->spec->method->name);
    mb_text_free(&answer);
    return rc;
}

int mb_isolate_shadow(mb_run *run, const mb_prepared *prepared, mb_arm *arm, const mb_decode_request *request,
                      mb_recall *recall, mb_error *err)
{
    mb_text answer = {0};
    size_t at = 0;
    memset(recall, 0, sizeof *recall);
    int rc = do_job(run, prepared, arm, MB_JOB_SHADOW, request, &answer, err);
    if (rc == MB_OK && (rc = mb_wire_get_recall(answer.data, answer.length, &at, recall, err)) != MB_OK)
        mb_fail_prefix(err, rc, "method %s, from its process", arm->spec->method->name);
    mb_text_free(&answer);
    return rc;
}

/* ---- before it is timed ---- */

static int add_fault(mb_run *run, const mb_arm *arm, int32_t context, const char *reason, mb_error *err)
{
    mb_fault *grown = realloc(run->faults, (run->fault_count + 1) * sizeof *grown);
    if (!grown)
        return mb_no_memory(err, "what a rehearsal found");
    run->faults = grown;
    grown[run->fault_count] = (mb_fault){.spec = arm->spec, .context = context};
    snprintf(grown[run->fault_count++].reason, sizeof grown->reason, "%s", reason);
    return MB_OK;
}

/* The largest of a list in which 0 stands for `whole`. */
static int32_t largest_of(const int32_t *values, size_t count, int32_t whole)
{
    int32_t largest = 1;
    for (size_t i = 0; i < count; i++) {
        int32_t value = values[i] ? values[i] : whole;
        largest = value > largest ? value : largest;
    }
    return largest;
}

static int rehearse_context(mb_run *run, mb_arm *arm, int32_t context, mb_error *err)
{
    const mb_latency_spec *latency = &run->config->latency;
    mb_job job = {.kind = MB_JOB_REHEARSE,
                  .context = context,
                  .batch = largest_of(latency->batches.values, latency->batches.count, 1),
                  .steps = largest_of(latency->steps.values, latency->steps.count, run->model_config.block)};
    mb_text question = {0}, answer = {0};
    mb_error why = {0};
    if (mb_arm_fault(run, arm, context))
        return MB_OK;
    int rc = open_worker(run, arm, true, &answer, &why);
    if (rc == MB_OK) {
        put_job(&question, &job);
        rc = ask(run, arm, &question, &answer, &why);
    }
    mb_text_free(&question);
    mb_text_free(&answer);
    if (rc == MB_E_STOP)
        return mb_fail(err, rc, "%s", why.text);
    return rc == MB_OK ? MB_OK : add_fault(run, arm, context, why.text, err);
}

int mb_isolate_rehearse(mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    const mb_latency_spec *latency = &config->latency;
    int rc = MB_OK;
    for (size_t i = 0; i < config->method_count && rc == MB_OK; i++) {
        mb_arm *arm = &run->arms[i];
        if (!mb_arm_is_plugin(arm))
            continue;
        for (size_t x = 0; (config->passes & MB_RUN_LATENCY) && x < latency->contexts.count && rc == MB_OK; x++)
            rc = rehearse_context(run, arm, latency->contexts.values[x], err);
        for (size_t x = 0;
             (config->passes & MB_RUN_BREAKDOWN) && x < latency->breakdown_contexts.count && rc == MB_OK; x++)
            rc = rehearse_context(run, arm, latency->breakdown_contexts.values[x], err);
        end_worker(arm); /* the next one has the device to itself */
    }
    return rc;
}
