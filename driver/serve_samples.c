/*
 * serve_samples.c - a worker that computes whole samples on one device: the run opened as usual, over a database
 * in memory that is packed and sent after every sample (devices.h).
 */
#include "driver/devices.h"

#include "driver/config/keys.h"
#include "driver/open.h"
#include "driver/pass/pass.h"
#include "driver/setup.h"
#include "driver/worker/worker.h"

#include <stdlib.h>
#include <string.h>

struct serving {
    mb_run_config config;
    mb_run run;
    mb_sample_stream stream;
    bool open;
};

static int open_order(struct serving *s, const char *text, size_t size, mb_text *answer, mb_error *err)
{
    cJSON *json = cJSON_ParseWithLength(text, size);
    char *config = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(json, MB_SAMPLES_CONFIG));
    const char *device = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, MB_SAMPLES_DEVICE));
    const char *threads = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, MB_SAMPLES_THREADS));
    const mb_config_value values[] = {{MB_CONFIG_KEY_OF(device), device}, {MB_CONFIG_KEY_OF(threads), threads}};
    mb_config_flags flags = {.values = values, .value_count = sizeof values / sizeof values[0]};
    mb_run *run = &s->run;
    int rc = config && device && threads ? MB_OK : mb_fail(err, MB_E_BUG, "a worker got a damaged order");
    if (rc == MB_OK)
        rc = mb_config_read(&s->config, config, strlen(config), "the run's config", &flags, err);
    if (rc == MB_OK) {
        s->config.passes &= MB_RUN_SAMPLES;
        *run = (mb_run){.config = &s->config, .flags = {.quiet = true}};
        mb_progress_begin(&run->progress, true, 0);
        rc = mb_run_inspect(run, err);
    }
    if (rc == MB_OK)
        rc = mb_run_open(run, err);
    if (rc == MB_OK)
        rc = mb_store_open_memory(&run->store, err);
    if (rc == MB_OK)
        rc = mb_run_register(run, "worker", err);
    s->open = rc == MB_OK;
    if (rc == MB_OK)
        mb_text_printf(answer, "%s%s%s", run->device_info.name, *run->device_info.uuid ? ", " : "",
                       run->device_info.uuid);
    free(config);
    cJSON_Delete(json);
    return rc;
}

static int do_sample(struct serving *s, const mb_samples_job *job, const char *stored, size_t size,
                     mb_text *answer, mb_error *err)
{
    mb_run *run = &s->run;
    const mb_samples_done before = {.failed = run->failed_samples,
                                    .seconds_quality = run->seconds_quality,
                                    .seconds_recall = run->seconds_recall,
                                    .alone_again = run->alone_again,
                                    .alone_differ = run->alone_differ};
    if (!s->open || size != MB_SAMPLE_PASSES * run->arm_count)
        return mb_fail(err, MB_E_BUG, "a worker got a damaged order");
    run->stored = stored;
    int rc = mb_run_sample_at(run, &s->stream, job->task, job->index, job->number, err);
    run->stored = NULL;
    const mb_samples_done done = {.failed = run->failed_samples - before.failed,
                                  .seconds_quality = run->seconds_quality - before.seconds_quality,
                                  .seconds_recall = run->seconds_recall - before.seconds_recall,
                                  .alone_again = run->alone_again - before.alone_again,
                                  .alone_differ = run->alone_differ - before.alone_differ,
                                  .differing = (int64_t)run->differing};
    mb_text_append(answer, (const char *)&done, sizeof done);
    return rc == MB_OK ? mb_store_pack(run->store, answer, err) : rc;
}

static int answer_job(void *context, mb_attender_note *note, const mb_text *question, mb_text *out, mb_error *err)
{
    struct serving *s = context;
    mb_samples_job job;
    (void)note; /* no clock runs here: a method that may hang has a worker of its own below this one */
    if (question->length < sizeof job)
        return mb_fail(err, MB_E_BUG, "a worker got a damaged order");
    memcpy(&job, question->data, sizeof job);
    const char *rest = question->data + sizeof job;
    size_t size = question->length - sizeof job;
    return job.open ? open_order(s, rest, size, out, err) : do_sample(s, &job, rest, size, out, err);
}

int mb_serve_samples(mb_error *err)
{
    static struct serving serving; /* lives as long as the process */
    return mb_worker_serve(answer_job, &serving, err);
}
