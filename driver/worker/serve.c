/*
 * serve.c - the worker's side of isolation: opens what the run has open (device, model, session) with one plug-in
 * method on it, and does its jobs. Nothing is stored and nothing printed here but what the plug-in itself prints.
 */
#include "driver/worker/serve.h"

#include "base/json.h"
#include "driver/config/keys.h"
#include "driver/open.h"
#include "driver/os/os.h"
#include "driver/worker/job.h"
#include "driver/worker/result_wire.h"
#include "driver/worker/worker.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fixed work at a real context takes as long as it takes; more sequences than this show nothing new. */
#define REHEARSED_BATCH 8
#define AUDITED_SHARE 0.5 /* of the forwards, until one was audited: a method cannot know which */

struct serving {
    mb_run_config config;
    mb_run run;
    mb_arm arms[2];
    mb_arm *arm, *reference; /* reference NULL: the config has none */
    int32_t *prompt;         /* what the session holds */
    size_t prompt_count;
};

static void enter_open(mb_attender_note *note)
{
    snprintf(note->hook, sizeof note->hook, "open");
    note->layer = -1;
    note->inside = 1;
    note->beats++;
}

/* ---- opening ---- */

/* The two arms that this worker has, out of all that the config gives. */
static int choose_arms(struct serving *s, const char *label, size_t sampler, mb_error *err)
{
    mb_run *run = &s->run;
    const mb_arm *reference = mb_run_reference_arm(run, sampler);
    size_t kept = 0;
    if (reference) {
        s->arms[kept] = *reference;
        s->reference = &s->arms[kept++];
    }
    for (size_t i = 0; i < run->arm_count && !s->arm; i++)
        if (run->arms[i].sampler == sampler && strcmp(run->arms[i].spec->label, label) == 0) {
            s->arms[kept] = run->arms[i];
            s->arm = &s->arms[kept++];
        }
    free(run->arms);
    run->arms = s->arms;
    run->arm_count = kept;
    run->lanes = 1;
    return s->arm ? MB_OK : mb_fail(err, MB_E_BUG, "a worker was asked for the unknown configuration %s", label);
}

static int open_attender(struct serving *s, mb_attender **attender, mb_session *session, int32_t steps,
                         mb_attender_note *note, bool *unsupported, mb_error *err)
{
    const mb_method_spec *spec = s->arm->spec;
    enter_open(note);
    int rc =
        mb_attender_open(attender, session, spec->method, spec->options, steps, s->config.seed, unsupported, err);
    note->inside = 0;
    if (rc == MB_OK)
        mb_attender_watch(*attender, note, mb_arm_budget(s->arm));
    return rc;
}

/* Device, model, session and attenders of the chosen arms. */
static int open_run(struct serving *s, bool rehearsal, mb_attender_note *note, mb_text *answer, mb_error *err)
{
    mb_run *run = &s->run;
    mb_memory_plan plan;
    bool unsupported = false;
    /* A rehearsal has the device to itself, a decoding worker its plan. */
    s->config.passes = (s->config.passes & ~(uint32_t)MB_RUN_TIMES) | (rehearsal ? MB_RUN_LATENCY : 0);
    /* A plan measures open(), so it is tried here first; what follows is ours, and no fault or time of the
     * method's. */
    enter_open(note);
    mb_run_memory(run, 1, run->capacity, -1, s->arm, 1, &plan);
    memset(note, 0, sizeof *note);
    int rc = mb_run_open_model(run, err);
    if (rc != MB_OK || rehearsal)
        return rc;
    if ((rc = mb_run_open_session(run, err)) != MB_OK)
        return rc;
    if (s->reference)
        rc = mb_attender_open(&s->reference->attender, run->session, s->reference->spec->method,
                              s->reference->spec->options, mb_run_scheduled_steps(run, s->reference->sampler),
                              s->config.seed, &unsupported, err);
    if (rc != MB_OK)
        return rc;
    rc = open_attender(s, &s->arm->attender, run->session, mb_run_scheduled_steps(run, s->arm->sampler), note,
                       &unsupported, err);
    if (rc != MB_OK && unsupported) { /* an answer, no failure */
        mb_text_puts(answer, err->text);
        rc = MB_OK;
    }
    return rc;
}

static int open_job(struct serving *s, const char *text, size_t size, mb_attender_note *note, mb_text *answer,
                    mb_error *err)
{
    cJSON *json = cJSON_ParseWithLength(text, size);
    char *config = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(json, MB_JOB_CONFIG));
    const char *label = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, MB_JOB_LABEL));
    const cJSON *sampler = cJSON_GetObjectItemCaseSensitive(json, MB_JOB_SAMPLER);
    const char *methods = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, MB_JOB_METHODS));
    const char *device = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, MB_JOB_DEVICE));
    const mb_config_value values[] = {{MB_CONFIG_KEY_OF(methods), methods}, {MB_CONFIG_KEY_OF(device), device}};
    mb_config_flags flags = {.values = values, .value_count = sizeof values / sizeof values[0]};
    int64_t index = 0;
    bool rehearsal = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, MB_JOB_REHEARSAL));
    int rc = config && label && sampler && methods && device
                 ? MB_OK
                 : mb_fail(err, MB_E_BUG, "a worker got a damaged order");
    if (rc == MB_OK)
        rc = mb_config_read(&s->config, config, strlen(config), "the run's config", &flags, err);
    if (rc == MB_OK) {
        s->run = (mb_run){.config = &s->config, .flags = {.quiet = true}, .serving = true};
        mb_progress_begin(&s->run.progress, true, 0);
        rc = mb_run_inspect(&s->run, err);
    }
    if (rc == MB_OK)
        rc = mb_json_integer(sampler, 0, INT32_MAX, &index)
                 ? choose_arms(s, label, (size_t)index, err)
                 : mb_fail(err, MB_E_BUG, "a worker got a damaged order");
    if (rc == MB_OK)
        rc = open_run(s, rehearsal, note, answer, err);
    free(config);
    cJSON_Delete(json);
    return rc;
}

/* ---- decoding ---- */

static int prefill(struct serving *s, const int32_t *ids, size_t count, mb_error *err)
{
    if (s->prompt && s->prompt_count == count && memcmp(s->prompt, ids, count * sizeof *ids) == 0)
        return MB_OK;
    free(s->prompt);
    s->prompt = malloc((count + 1) * sizeof *ids);
    if (!s->prompt)
        return mb_no_memory(err, "a prompt of %zu tokens", count);
    memcpy(s->prompt, ids, count * sizeof *ids);
    s->prompt_count = count;
    return mb_session_prefill(s->run.session, 0, ids, count, NULL, err);
}

static int decode_job(struct serving *s, const mb_job *job, const int32_t *ids, mb_text *answer, mb_error *err)
{
    mb_run *run = &s->run;
    mb_decode_result result = {0};
    mb_recall recall = {0};
    mb_decode_request request = {.sampler = &run->samplers[s->arm->sampler],
                                 .max_new_tokens = job->max_new_tokens,
                                 .min_new_tokens = job->min_new_tokens,
                                 .extra_stop_id = job->extra_stop_id,
                                 .request = job->request,
                                 .seed = job->seed};
    if (job->forced_count) {
        request.forced = ids + job->prompt_count;
        request.forced_count = job->forced_count;
    }
    if (!s->arm->attender || (job->kind == MB_JOB_SHADOW && !s->reference))
        return mb_fail(err, MB_E_BUG, "a worker was asked to decode before it was ready");
    int rc = prefill(s, ids, job->prompt_count, err);
    if (rc != MB_OK)
        return rc;
    if (job->kind == MB_JOB_DECODE) {
        /* One forward of a sample is audited: what the method attends over is what it shows. */
        mb_audit audit = {.share = AUDITED_SHARE,
                          .most = 1,
                          .random = mb_random_seed(s->config.seed + (uint64_t)job->request),
                          .k = mb_arm_budget(s->arm)};
        mb_measure measure = {.counting = true, .audit = &audit};
        mb_session_measure(run->session, &measure);
        rc = mb_decode(run->session, s->arm->attender, &request, &result, err);
        if (rc == MB_OK)
            mb_wire_put_result(answer, &result);
        mb_session_measure(run->session, NULL);
    } else {
        rc = mb_decode_shadow(run->session, s->reference->attender, &s->arm->attender, 1, &request, &result,
                              &recall, err);
        if (rc == MB_OK)
            mb_wire_put_recall(answer, &recall);
    }
    mb_decode_result_free(&result);
    mb_recall_free(&recall);
    return rc;
}

/* ---- before it is timed ---- */

/* One block whose every index and output is looked at, then some as they are timed: captured and replayed. */
static int rehearse_blocks(struct serving *s, mb_session *session, mb_attender *attender, int32_t steps,
                           mb_attender_note *note, mb_error *err)
{
    mb_decode_result result = {0};
    mb_audit audit = {.share = 1, .random = mb_random_seed(s->config.seed), .k = mb_arm_budget(s->arm)};
    mb_measure measure = {.audit = &audit};
    mb_session_measure(session, &measure);
    int rc = mb_decode_fixed_work(session, attender, 1, steps, NULL, &result, err);
    mb_decode_result_free(&result);
    mb_session_measure(session, NULL);
    mb_attender_watch(attender, NULL, mb_arm_budget(s->arm)); /* a watched method is not replayed */
    for (int turn = 0; turn < 3 && rc == MB_OK && mb_attender_replays(attender); turn++) {
        rc = mb_decode_fixed_work(session, attender, 1, steps, NULL, &result, err);
        mb_decode_result_free(&result);
        note->beats++; /* a block is the sign of life where no hook runs */
    }
    return rc;
}

static int rehearse_job(struct serving *s, const mb_job *job, mb_attender_note *note, mb_error *err)
{
    mb_run *run = &s->run;
    mb_session *session = NULL;
    mb_attender *attender = NULL;
    mb_memory_plan plan;
    mb_device_info info;
    bool unsupported = false;
    int32_t batch = job->batch < REHEARSED_BATCH ? job->batch : REHEARSED_BATCH;
    int32_t capacity = mb_latency_capacity(run, job->context);
    run->kernels->info(run->device, &info);
    enter_open(note);
    for (; batch > 1; batch /= 2) {
        mb_run_memory(run, batch, capacity, job->steps, s->arm, 1, &plan);
        if (plan.total - plan.weights <= info.arena_free)
            break;
    }
    memset(note, 0, sizeof *note);
    mb_session_request request = {.batch = batch,
                                  .capacity = capacity,
                                  .prefill_chunk = s->config.prefill_chunk,
                                  .graphs = s->config.graphs};
    int rc = mb_session_open(&session, run->model, &request, err);
    if (rc == MB_OK)
        rc = mb_session_fill_random(session, job->context, s->config.seed, err);
    if (rc == MB_OK)
        rc = open_attender(s, &attender, session, job->steps, note, &unsupported, err);
    if (rc == MB_OK)
        rc = rehearse_blocks(s, session, attender, job->steps, note, err);
    else if (unsupported)
        rc = MB_OK; /* the pass itself asks again and stores the reason */
    mb_attender_close(attender);
    mb_session_close(session);
    return rc;
}

/* ---- */

static int answer(void *context, mb_attender_note *note, const mb_text *question, mb_text *out, mb_error *err)
{
    struct serving *s = context;
    mb_job job;
    if (question->length < sizeof job)
        return mb_fail(err, MB_E_BUG, "a worker got a damaged order");
    memcpy(&job, question->data, sizeof job);
    const char *rest = question->data + sizeof job;
    size_t size = question->length - sizeof job;
    if (job.kind == MB_JOB_OPEN)
        return open_job(s, rest, size, note, out, err);
    if (job.kind == MB_JOB_REHEARSE)
        return rehearse_job(s, &job, note, err);
    if (size / sizeof(int32_t) < job.prompt_count || size / sizeof(int32_t) - job.prompt_count != job.forced_count)
        return mb_fail(err, MB_E_BUG, "a worker got a damaged order");
    return decode_job(s, &job, (const int32_t *)(const void *)rest, out, err);
}

int mb_serve(mb_error *err)
{
    static struct serving serving; /* lives as long as the process */
    return mb_worker_serve(answer, &serving, err);
}
