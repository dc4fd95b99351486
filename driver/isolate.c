/*
 * isolate.c - the jobs that plug-ins do in workers, and how their results cross the pipe.
 *
 * Each job opens the plug-in's attender in the child, on top of the inherited arena, so the parent never runs one
 * of its hooks on the CPU. Results travel as result_wire.c flattens them.
 */
#include "driver/isolate.h"

#include "driver/result_wire.h"
#include "driver/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const mb_run *run;
    mb_session *session;
    const mb_method_spec *spec;
    const mb_shape *shape;           /* measuring */
    mb_attender *reference;          /* shadow pass */
    const mb_decode_request *request;
    int32_t steps;
    bool unsupported;
};

bool mb_isolate_is_plugin(const mb_method_spec *spec)
{
    return *mb_registry_origin(spec->method) != '\0';
}

/* What a plug-in's selections may hold. Methods of the tree are held to theirs by tests; some share k among
 * layers. */
static int64_t budget_of(const mb_method_spec *spec)
{
    bool shared = spec->method->caps & MB_CAP_LAYER_BUDGET;
    return mb_isolate_is_plugin(spec) && !shared ? mb_attender_budget(spec->method, spec->options) : 0;
}

/* Runs a job about a method; a worker's failure of any kind is the method's. */
static int run_job(struct job *job, int (*function)(void *, mb_attender_note *, mb_text *, char *, size_t),
                   mb_text *answer, char *err, size_t err_cap)
{
    mb_worker_job worker = {.name = job->spec->method->name, .seconds = job->run->config->plugin_seconds,
                            .stop = &mb_interrupted, .run = function, .context = job};
    int rc = mb_worker_run(&worker, answer, err, err_cap);
    return rc == MB_OK || rc == MB_E_STOP ? rc : MB_E_SAMPLE;
}

/* One that hung will hang again: its other samples need not wait for the clock as well. */
static void retire(mb_arm *arm, const char *err)
{
    if (!arm->isolated || !strstr(err, MB_WORKER_HUNG))
        return;
    arm->broken = true;
    snprintf(arm->reason, sizeof arm->reason, "not run, because on an earlier sample: %.400s", err);
}

/* In the child: the device, then the attender. */
static int open_here(struct job *job, mb_attender **attender, mb_attender_note *note, char *err, size_t err_cap)
{
    const mb_run *run = job->run;
    int rc = run->kernels->after_fork(run->device);
    if (rc != MB_OK)
        return mb_fail(err, err_cap, rc, "%s", run->kernels->error(run->device));
    snprintf(note->hook, sizeof note->hook, "open");
    note->layer = -1;
    note->inside = 1;
    rc = mb_attender_open(attender, job->session, job->spec->method, job->spec->options, job->steps,
                          run->config->seed, &job->unsupported, err, err_cap);
    note->inside = 0;
    if (rc == MB_OK)
        mb_attender_watch(*attender, note, budget_of(job->spec));
    return rc;
}

/* ---- opening ---- */

static int measure_job(void *context, mb_attender_note *note, mb_text *answer, char *err, size_t err_cap)
{
    struct job *job = context;
    (void)err, (void)err_cap;
    snprintf(note->hook, sizeof note->hook, "open");
    note->layer = -1;
    note->inside = 1;
    size_t bytes = mb_attender_bytes(job->spec->method, job->shape, job->spec->options);
    mb_text_append(answer, (const char *)&bytes, sizeof bytes);
    return MB_OK;
}

int mb_isolate_measure(const mb_run *run, const mb_method_spec *spec, const mb_shape *shape, size_t *bytes,
                       char *err, size_t err_cap)
{
    struct job job = {.run = run, .spec = spec, .shape = shape};
    mb_text answer = {0};
    int rc = MB_OK;
    *bytes = 0;
    if (!mb_isolate_is_plugin(spec)) {
        *bytes = mb_attender_bytes(spec->method, shape, spec->options);
        return MB_OK;
    }
    rc = run_job(&job, measure_job, &answer, err, err_cap);
    if (rc == MB_OK && answer.length == sizeof *bytes)
        memcpy(bytes, answer.data, sizeof *bytes);
    mb_text_free(&answer);
    return rc;
}

static int open_job(void *context, mb_attender_note *note, mb_text *answer, char *err, size_t err_cap)
{
    struct job *job = context;
    mb_attender *attender = NULL;
    int rc = open_here(job, &attender, note, err, err_cap);
    mb_attender_close(attender);
    if (rc != MB_OK && job->unsupported) { /* an answer, no failure */
        mb_text_puts(answer, *err ? err : "the method does not say why");
        return MB_OK;
    }
    return rc;
}

int mb_isolate_open(mb_run *run, mb_arm *arm, int32_t steps, char *err, size_t err_cap)
{
    struct job job = {.run = run, .session = run->session, .spec = arm->spec, .steps = steps};
    mb_shape shape;
    mb_text answer = {0};
    size_t bytes = 0;
    bool unsupported = false;
    int rc;
    if (run->kernels->after_fork) {
        rc = run_job(&job, open_job, &answer, err, err_cap);
        unsupported = rc == MB_OK && answer.length > 0;
        arm->isolated = rc == MB_OK && !unsupported;
        if (unsupported)
            snprintf(arm->reason, sizeof arm->reason, "%s", answer.data);
    } else {
        mb_session_shape(run->session, steps, &shape);
        rc = mb_isolate_measure(run, arm->spec, &shape, &bytes, err, err_cap);
        if (rc == MB_OK)
            rc = mb_attender_open(&arm->attender, run->session, arm->spec->method, arm->spec->options, steps,
                                  run->config->seed, &unsupported, err, err_cap);
        if (rc == MB_OK)
            mb_attender_watch(arm->attender, NULL, budget_of(arm->spec));
        if (unsupported) {
            snprintf(arm->reason, sizeof arm->reason, "%s", err);
            rc = MB_OK;
        }
    }
    mb_text_free(&answer);
    if (rc != MB_E_SAMPLE)
        return rc;
    arm->broken = true;
    snprintf(arm->reason, sizeof arm->reason, "%s", err);
    mb_progress_note(&run->progress, "failed: %s: %s", arm->spec->label, arm->reason);
    return MB_OK;
}

/* ---- decoding ---- */

static int decode_job(void *context, mb_attender_note *note, mb_text *answer, char *err, size_t err_cap)
{
    struct job *job = context;
    mb_attender *attender = NULL;
    mb_decode_result result = {0};
    int rc = open_here(job, &attender, note, err, err_cap);
    if (rc == MB_OK)
        rc = mb_decode(job->session, attender, job->request, &result, err, err_cap);
    if (rc == MB_OK)
        mb_wire_put_result(answer, &result);
    return rc; /* the process ends: nothing is freed */
}

int mb_isolate_decode(mb_run *run, mb_arm *arm, const mb_decode_request *request, mb_decode_result *result,
                      char *err, size_t err_cap)
{
    if (!arm->isolated)
        return mb_decode(run->session, arm->attender, request, result, err, err_cap);
    struct job job = {.run = run, .session = run->session, .spec = arm->spec, .request = request,
                      .steps = mb_run_scheduled_steps(run, arm->sampler)};
    mb_text answer = {0};
    size_t at = 0;
    memset(result, 0, sizeof *result);
    int rc = run_job(&job, decode_job, &answer, err, err_cap);
    if (rc != MB_OK)
        goto out;
    rc = mb_wire_get_result(answer.data, answer.length, &at, result, err, err_cap);
    if (rc != MB_OK)
        mb_fail_prefix(err, err_cap, rc, "method %s, from its process", arm->spec->method->name);
out:
    if (rc != MB_OK) {
        memset(result, 0, sizeof *result);
        retire(arm, err);
    }
    mb_text_free(&answer);
    return rc;
}

static int shadow_job(void *context, mb_attender_note *note, mb_text *answer, char *err, size_t err_cap)
{
    struct job *job = context;
    mb_attender *attender = NULL;
    mb_decode_result result = {0};
    mb_recall recall = {0};
    int rc = open_here(job, &attender, note, err, err_cap);
    if (rc == MB_OK)
        rc = mb_decode_shadow(job->session, job->reference, &attender, 1, job->request, &result, &recall, err,
                              err_cap);
    if (rc == MB_OK)
        mb_wire_put_recall(answer, &recall);
    return rc;
}

int mb_isolate_shadow(mb_run *run, mb_arm *reference, mb_arm *arm, const mb_decode_request *request,
                      mb_recall *recall, char *err, size_t err_cap)
{
    struct job job = {.run = run, .session = run->session, .spec = arm->spec, .request = request,
                      .reference = reference->attender, .steps = mb_run_scheduled_steps(run, arm->sampler)};
    mb_text answer = {0};
    size_t at = 0;
    memset(recall, 0, sizeof *recall);
    int rc = run_job(&job, shadow_job, &answer, err, err_cap);
    if (rc != MB_OK)
        goto out;
    rc = mb_wire_get_recall(answer.data, answer.length, &at, recall, err, err_cap);
    if (rc != MB_OK)
        mb_fail_prefix(err, err_cap, rc, "method %s, from its process", arm->spec->method->name);
out:
    if (rc != MB_OK) {
        memset(recall, 0, sizeof *recall);
        retire(arm, err);
    }
    mb_text_free(&answer);
    return rc;
}

/* ---- before it is timed ---- */

static int rehearse_job(void *context, mb_attender_note *note, mb_text *answer, char *err, size_t err_cap)
{
    struct job *job = context;
    mb_attender *attender = NULL;
    mb_decode_result result = {0};
    mb_audit audit = {.share = 1, .random = mb_random_seed(job->run->config->seed), .k = budget_of(job->spec)};
    mb_measure measure = {.audit = &audit};
    int32_t steps = job->steps > 0 ? job->steps : job->run->shape.block;
    (void)answer;
    int rc = open_here(job, &attender, note, err, err_cap);
    if (rc != MB_OK)
        return job->unsupported ? MB_OK : rc;
    mb_session_measure(job->session, &measure); /* every index and output of the block is looked at */
    return mb_decode_fixed_work(job->session, attender, 1, steps, NULL, &result, err, err_cap);
}

int mb_isolate_rehearse(mb_run *run, mb_session *session, const mb_arm *arm, int32_t steps, char *err,
                        size_t err_cap)
{
    struct job job = {.run = run, .session = session, .spec = arm->spec, .steps = steps};
    mb_text answer = {0};
    if (!mb_isolate_is_plugin(arm->spec) || !run->kernels->after_fork)
        return MB_OK;
    int rc = run_job(&job, rehearse_job, &answer, err, err_cap);
    mb_text_free(&answer);
    return rc;
}
