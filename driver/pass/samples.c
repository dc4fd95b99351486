/*
 * samples.c - the stream of samples: read, tokenised once, prefilled at most once, handed to every pass. A bad
 * sample fails only its own rows: they are stored with file and line, and the run goes on.
 */
#include "driver/pass/pass.h"

#include "driver/os/os.h"
#include "driver/pass/deal.h"

#include <math.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *json_strings(char *const *strings, size_t count)
{
    mb_text out = {0};
    mb_text_puts(&out, "[");
    for (size_t i = 0; i < count; i++) {
        mb_text_puts(&out, i ? ",\"" : "\"");
        mb_text_json(&out, strings[i]);
        mb_text_puts(&out, "\"");
    }
    mb_text_puts(&out, "]");
    return mb_text_take(&out);
}

static int prepare(mb_run *run, mb_prepared *prepared, mb_error *err)
{
    const mb_sample *sample = prepared->sample;
    /* Two blocks more: the prompt's tail begins the first block, and the answer's end fills up the last one. */
    int32_t hard_limit = run->capacity - mb_run_answer_tokens(run, sample) - 2 * run->model_config.block;
    int32_t most = run->config->max_length;
    if (hard_limit < run->model_config.block)
        return mb_fail(err, MB_E_SAMPLE, "an answer of %d tokens leaves no room for a prompt in %d positions",
                       mb_run_answer_tokens(run, sample), run->model_config.positions);
    if (sample->truncate_middle && (most == 0 || most > hard_limit - run->chat_overhead))
        most = hard_limit - run->chat_overhead;
    mb_prompt_request request = {.text = sample->prompt,
                                 .answer_prefix = sample->answer_prefix,
                                 .chat = sample->chat,
                                 .max_tokens = sample->truncate_middle ? most : 0,
                                 .cut_joined = sample->cut_joined,
                                 .special_as_text = run->config->special_tokens_in_data == MB_SPECIAL_TEXT,
                                 .hard_limit = hard_limit};
    run->special_rows +=
        mb_tokenizer_special_in(mb_model_tokenizer(run->model), sample->prompt, strlen(sample->prompt)) > 0;
    int rc = mb_prompt_build(run->model, &request, &prepared->ids, &prepared->count, &prepared->truncated, err);
    if (rc != MB_OK)
        return rc;
    mb_hash_bytes(prepared->ids, prepared->count * sizeof *prepared->ids, prepared->token_hash);
    prepared->answers_json = json_strings(sample->answers, sample->answer_count);
    if (sample->classes)
        prepared->classes_json = json_strings(sample->classes, sample->class_count);
    if (!prepared->answers_json || (sample->classes && !prepared->classes_json))
        return mb_no_memory(err, "a sample");
    return MB_OK;
}

static void prepared_free(mb_prepared *prepared)
{
    mb_sample_free(prepared->sample);
    free(prepared->ids);
    free(prepared->answers_json);
    free(prepared->classes_json);
}

/* A sample that is not run: one failed row with this key in every quality cell of the task. */
static int store_bad_sample(mb_run *run, const mb_prepared *prepared, const char *key, const char *reason,
                            mb_error *err)
{
    run->failed_samples++;
    mb_progress_note(&run->progress, "failed sample of %s: %s", prepared->task->task, reason);
    for (size_t i = 0; i < run->arm_count; i++) {
        int64_t cell = 0;
        int rc = mb_run_cell(run, &run->arms[i], prepared->dataset_id, "quality", &cell, err);
        mb_sample_row row = {
            .cell = cell, .key = key, .status = "failed", .error = reason, .score = NAN, .depth = -1};
        if (rc == MB_OK)
            rc = mb_store_sample(run->store, &row, err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

static int run_passes(mb_run *run, mb_prepared *prepared, int64_t index, mb_error *err)
{
    const mb_run_config *config = run->config;
    int rc = MB_OK;
    if (run->give_away)
        return run->give_away(run, prepared, err);
    uint64_t start = mb_clock_ns();
    if (config->passes & MB_RUN_QUALITY)
        rc = mb_quality_sample(run, prepared, err);
    if (rc == MB_OK && (config->passes & MB_RUN_FORCED))
        rc = mb_forced_sample(run, prepared, err);
    run->seconds_quality += (double)(mb_clock_ns() - start) * 1e-9;
    start = mb_clock_ns();
    if (rc == MB_OK && (config->passes & MB_RUN_RECALL) &&
        (config->recall_limit == 0 || index < config->recall_limit))
        rc = mb_recall_sample(run, prepared, err);
    run->seconds_recall += (double)(mb_clock_ns() - start) * 1e-9;
    return rc;
}

static int store_dataset(mb_run *run, const mb_task_spec *spec, const mb_task *task, int64_t *id, mb_error *err)
{
    const mb_task_info *info = mb_task_find(spec->task);
    char hash[MB_HASH_CAP];
    mb_task_hash(task, hash);
    mb_dataset_row row = {.task = info->name,
                          .benchmark = info->benchmark,
                          .category = info->category,
                          .language = info->language,
                          .metric = info->metric,
                          .file_hash = hash,
                          .prompt_hash = info->prompt_hash ? info->prompt_hash : "",
                          .options_json = spec->options ? spec->options : "{}",
                          .max_new_tokens = mb_run_new_tokens(run, spec)};
    return mb_store_dataset(run->store, &row, id, err);
}

static int open_task(mb_run *run, const mb_task_spec *spec, mb_task **task, mb_error *err)
{
    mb_task_request request = {.task = spec->task,
                               .folder = spec->folder,
                               .limit = spec->limit,
                               .seed = run->config->seed,
                               .codec = &run->codec,
                               .options = spec->options,
                               .prompt_overhead = run->chat_overhead};
    return mb_task_open(task, &request, err);
}

int mb_run_dataset(mb_run *run, const mb_task_spec *spec, int64_t *samples, int64_t *id, mb_error *err)
{
    mb_task *task = NULL;
    int rc = open_task(run, spec, &task, err);
    if (rc == MB_OK) {
        *samples = mb_task_size(task);
        if (run->store)
            rc = store_dataset(run, spec, task, id, err);
    }
    mb_task_close(task);
    return rc;
}

/* A task whose metric cannot be computed here (a dictionary is missing): its cells say so, nothing is decoded. */
static int skip_task(mb_run *run, const mb_task_spec *spec, int64_t dataset_id, const char *reason, mb_error *err)
{
    mb_progress_note(&run->progress, "skipped %s: %s", spec->task, reason);
    for (size_t i = 0; i < run->arm_count; i++) {
        int64_t cell = 0;
        int rc = mb_run_cell(run, &run->arms[i], dataset_id, "quality", &cell, err);
        if (rc == MB_OK)
            rc = mb_store_cell_state(run->store, cell, "skipped", reason, err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Enters a sample's key into the tree of the task's keys; *again: it is there already. */
static int note_key(void **keys, const char *key, bool *again, mb_error *err)
{
    char *copy = mb_string_copy(key);
    void **found = copy ? tsearch(copy, keys, compare_keys) : NULL;
    *again = found && *found != (void *)copy;
    if (!found || *again)
        free(copy);
    return found ? MB_OK : mb_no_memory(err, "the keys of the samples");
}

/* Deals the next sample of the stream to a shard: is it this one? NULL: a bad sample, which has no tokens. Every
 * shard goes through the whole stream, so that all of them deal alike. */
static bool is_ours(mb_run *run, const mb_prepared *prepared)
{
    int64_t tokens = prepared ? (int64_t)prepared->count + mb_run_answer_tokens(run, prepared->sample) : 1;
    return !run->deal || mb_deal_next(run->deal, tokens) == run->flags.shard.number - 1;
}

/* One sample through all passes. What is bad about it is a row, and so is a key that another sample has: the store
 * tells samples by it, and the second one would pass for stored. */
static int run_sample(mb_run *run, mb_prepared *prepared, void **keys, int64_t index, int rc, mb_error *err)
{
    const char *key = prepared->sample && prepared->sample->key ? prepared->sample->key : NULL;
    char other[256];
    bool again = false;
    mb_error reason = {0};
    if (rc == MB_OK && key)
        rc = note_key(keys, key, &again, err);
    if (rc == MB_OK && again) {
        if (!is_ours(run, NULL))
            return MB_OK;
        snprintf(other, sizeof other, "%s (again, sample %lld)", key, (long long)index + 1);
        mb_fail(&reason, 0, "sample %lld has the key %s of an earlier one: every sample needs its own",
                (long long)index + 1, key);
        return store_bad_sample(run, prepared, other, reason.text, err);
    }
    if (rc == MB_OK)
        rc = prepare(run, prepared, err);
    if (rc == MB_OK)
        return is_ours(run, prepared) ? run_passes(run, prepared, index, err) : MB_OK;
    if (rc != MB_E_SAMPLE || !is_ours(run, NULL))
        return rc == MB_E_SAMPLE ? MB_OK : rc;
    mb_fail(&reason, 0, "%s", err->text);
    snprintf(other, sizeof other, "unreadable-%lld", (long long)index);
    return store_bad_sample(run, prepared, key ? key : other, reason.text, err);
}

/* Fewer samples than the task has, or none: its cells say so, and the run ends as one with failed samples. */
static int check_count(mb_run *run, const mb_task_spec *spec, int64_t dataset_id, int64_t planned, int64_t done,
                       mb_error *err)
{
    mb_error reason = {0};
    if (done > 0 && done >= planned)
        return MB_OK;
    if (done > 0)
        mb_fail(&reason, 0, "%s gave %lld of %lld samples", spec->task, (long long)done, (long long)planned);
    else
        mb_fail(&reason, 0, "%s gave no samples: is its data file empty?", spec->task);
    run->failed_samples++;
    mb_progress_note(&run->progress, "failed: %s", reason.text);
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < run->arm_count; i++) {
        int64_t cell = 0;
        rc = mb_run_cell(run, &run->arms[i], dataset_id, "quality", &cell, err);
        if (rc == MB_OK)
            rc = mb_store_cell_state(run->store, cell, "failed", reason.text, err);
    }
    return rc;
}

static int run_samples(mb_run *run, const mb_task_spec *spec, mb_task *task, int64_t dataset_id, int64_t *number,
                       mb_error *err)
{
    void *keys = NULL;
    int64_t index = 0, planned = mb_task_size(task);
    int rc = MB_OK, more = 1;
    for (; rc == MB_OK; index++) {
        mb_prepared prepared = {.task = spec, .index = index, .number = *number, .dataset_id = dataset_id};
        more = mb_task_next(task, &prepared.sample, err);
        if (more == 0)
            break;
        rc = run_sample(run, &prepared, &keys, index, more < 0 ? more : MB_OK, err);
        prepared_free(&prepared);
        (*number)++;
        if (rc == MB_OK && mb_interrupted)
            rc = MB_E_STOP;
    }
    tdestroy(keys, free);
    return rc == MB_OK ? check_count(run, spec, dataset_id, planned, index, err) : rc;
}

/* Rows that spell a special token are encoded as the config says; that there are some is told once a task. */
static int tell_special_rows(const mb_run *run, const mb_task_spec *spec, mb_error *err)
{
    bool as_text = run->config->special_tokens_in_data == MB_SPECIAL_TEXT;
    if (run->special_rows == 0)
        return MB_OK;
    char *text = mb_string_format(
        "%s: %lld rows spell a special token of the tokenizer; it is encoded as %s (\"special_tokens_in_data\": "
        "\"%s\")",
        spec->task, (long long)run->special_rows, as_text ? "text" : "that token, as Hugging Face does",
        as_text ? "text" : "token");
    if (!text)
        return mb_no_memory(err, "an event");
    int rc = mb_store_event(run->store, run->run_id, "warning", text, err);
    free(text);
    return rc;
}

static int run_task(mb_run *run, const mb_task_spec *spec, int64_t *number, mb_error *err)
{
    mb_task *task = NULL;
    int64_t dataset_id = 0;
    mb_error reason = {0};
    int rc = open_task(run, spec, &task, err);
    if (rc != MB_OK)
        return rc;
    rc = store_dataset(run, spec, task, &dataset_id, err);
    mb_progress_label(&run->progress, spec->task);
    run->special_rows = 0;
    if (rc == MB_OK)
        rc = mb_task_ready(spec->task, &reason) == MB_OK ? run_samples(run, spec, task, dataset_id, number, err)
                                                         : skip_task(run, spec, dataset_id, reason.text, err);
    if (rc == MB_OK)
        rc = tell_special_rows(run, spec, err);
    mb_task_close(task);
    return rc;
}

int mb_run_tasks(mb_run *run, mb_error *err)
{
    int64_t number = 0;
    int rc = MB_OK;
    if (run->flags.shard.last > 0 && !(run->deal = mb_deal_new(run->flags.shard.last)))
        return mb_no_memory(err, "the shards of the run");
    for (size_t i = 0; rc == MB_OK && i < run->config->task_count; i++)
        rc = run_task(run, &run->config->tasks[i], &number, err);
    mb_deal_free(run->deal);
    run->deal = NULL;
    return rc;
}

/* ---- a sample by its place, in a worker ---- */

void mb_sample_stream_close(mb_sample_stream *stream)
{
    mb_task_close(stream->task);
    stream->task = NULL;
}

/* Goes to a place of a task. The stream only goes forward: what lies behind is read anew from the start. */
static int seek(mb_run *run, mb_sample_stream *stream, size_t task, int64_t index, mb_error *err)
{
    const mb_task_spec *spec = &run->config->tasks[task];
    int rc = MB_OK;
    if (!stream->task || stream->number != task || stream->next > index) {
        mb_sample_stream_close(stream);
        rc = open_task(run, spec, &stream->task, err);
        if (rc == MB_OK)
            rc = store_dataset(run, spec, stream->task, &stream->dataset_id, err);
        stream->number = task;
        stream->next = 0;
    }
    for (; rc == MB_OK && stream->next < index; stream->next++) {
        mb_sample *passed = NULL;
        int more = mb_task_next(stream->task, &passed, err);
        mb_sample_free(passed);
        if (more == 0 || (more < 0 && more != MB_E_SAMPLE))
            return mb_fail(err, MB_E_INPUT, "task %s ended before its sample %lld: did its file change?",
                           spec->task, (long long)index + 1);
    }
    return rc;
}

int mb_run_sample_at(mb_run *run, mb_sample_stream *stream, size_t task, int64_t index, int64_t number,
                     mb_error *err)
{
    int rc = task < run->config->task_count ? seek(run, stream, task, index, err)
                                            : mb_fail(err, MB_E_BUG, "there is no task %zu", task);
    if (rc != MB_OK)
        return rc;
    mb_prepared prepared = {
        .task = &run->config->tasks[task], .index = index, .number = number, .dataset_id = stream->dataset_id};
    int more = mb_task_next(stream->task, &prepared.sample, err);
    stream->next++;
    if (more != 1)
        rc = mb_fail(err, MB_E_INPUT, "task %s has no sample %lld here: did its file change?", prepared.task->task,
                     (long long)index + 1);
    if (rc == MB_OK)
        rc = prepare(run, &prepared, err);
    if (rc == MB_OK)
        rc = run_passes(run, &prepared, index, err);
    prepared_free(&prepared);
    return rc;
}
