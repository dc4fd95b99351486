/*
 * longbench.c - LongBench v1: 21 tasks in English, Chinese and code. One JSONL file a task in the official layout;
 * prompts and limits are the official config files (datasets/prompts/); the scorer follows the official eval.py.
 *
 * A row of LongBench-E (e.c) is a row of the same kind under the name <task>_e, so the functions here
 * serve both; base_name() drops the ending.
 */
#include "datasets/generate/generate.h"
#include "datasets/metric/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST ((int64_t)1 << 53) /* of the field "length": more is no number of words */

#define ROW(task, what, tongue, how, wrap)                                                                        \
    {                                                                                                             \
        .name = task, .benchmark = "longbench", .category = what, .language = tongue, .metric = how, .chat = wrap \
    }

static mb_task_info rows[] = {
    ROW("narrativeqa", "single-doc QA", "en", "qa_f1", true),
    ROW("qasper", "single-doc QA", "en", "qa_f1", true),
    ROW("multifieldqa_en", "single-doc QA", "en", "qa_f1", true),
    ROW("multifieldqa_zh", "single-doc QA", "zh", "qa_f1_zh", true),
    ROW("hotpotqa", "multi-doc QA", "en", "qa_f1", true),
    ROW("2wikimqa", "multi-doc QA", "en", "qa_f1", true),
    ROW("musique", "multi-doc QA", "en", "qa_f1", true),
    ROW("dureader", "multi-doc QA", "zh", "rouge_l_zh", true),
    ROW("gov_report", "summarization", "en", "rouge_l", true),
    ROW("qmsum", "summarization", "en", "rouge_l", true),
    ROW("multi_news", "summarization", "en", "rouge_l", true),
    ROW("vcsum", "summarization", "zh", "rouge_l_zh", true),
    ROW("trec", "few-shot learning", "en", "classification", false),
    ROW("triviaqa", "few-shot learning", "en", "qa_f1", false),
    ROW("samsum", "few-shot learning", "en", "rouge_l", false),
    ROW("lsht", "few-shot learning", "zh", "classification", false),
    ROW("passage_count", "synthetic", "en", "count", true),
    ROW("passage_retrieval_en", "synthetic", "en", "retrieval", true),
    ROW("passage_retrieval_zh", "synthetic", "zh", "retrieval_zh", true),
    ROW("lcc", "code completion", "code", "code_sim", false),
    ROW("repobench-p", "code completion", "code", "code_sim", false),
};
#define ROW_COUNT (sizeof rows / sizeof rows[0])

typedef struct longbench {
    mb_task_rows rows;
    cJSON *prompts; /* the official prompt file */
    const char *template_text;
    char name[64]; /* without the ending of LongBench-E */
    bool bucketed;
} longbench;

/* "hotpotqa_e" -> "hotpotqa" for rows of LongBench-E; false: too long a name. */
static bool base_name(const mb_task_info *row, char *out, size_t cap)
{
    size_t n = strlen(row->name);
    if (strcmp(row->benchmark, "longbench_e") == 0 && n > 2)
        n -= 2;
    if (n >= cap)
        return false;
    memcpy(out, row->name, n);
    out[n] = '\0';
    return true;
}

static cJSON *config_read(const char *name)
{
    size_t size = 0;
    const char *text = mb_prompt_find(name, &size);
    return text ? cJSON_ParseWithLength(text, size) : NULL;
}

void mb_longbench_limits(mb_task_info *table, size_t count)
{
    cJSON *limits = config_read("longbench_limits.json");
    char name[64];
    for (size_t i = 0; i < count; i++) {
        const cJSON *limit = base_name(&table[i], name, sizeof name) ? mb_json_member(limits, name) : NULL;
        table[i].max_new_tokens = cJSON_IsNumber(limit) ? limit->valueint : 0;
    }
    cJSON_Delete(limits);
}

/* By the file's own length field (words), never by tokens. */
const char *mb_longbench_bucket(int64_t length)
{
    return length < 4000 ? "0-4k" : length < 8000 ? "4-8k" : "8k+";
}

static void prepare(void)
{
    mb_longbench_limits(rows, ROW_COUNT);
}

void mb_longbench_template_bytes(const mb_task_info *row, mb_text *out)
{
    cJSON *prompts = config_read("longbench_prompts.json");
    char name[64];
    const char *text = base_name(row, name, sizeof name) ? mb_json_string(prompts, name) : NULL;
    if (text)
        mb_text_puts(out, text);
    cJSON_Delete(prompts);
}

int mb_longbench_open(void **state, const mb_task_info *row, const mb_task_request *request, mb_error *err)
{
    static const char *const layouts[] = {"data/", "", "longbench/data/", "longbench/"};
    char files[4][128];
    const char *names[5] = {0};
    static const char *const options[] = {NULL};
    mb_task_keys given;
    int rc = mb_task_keys_open(&given, row->name, request->options, options, err);
    mb_task_keys_close(&given);
    if (rc != MB_OK)
        return rc;
    longbench *lb = calloc(1, sizeof *lb);
    if (!lb)
        return mb_no_memory(err, "opening task %s", row->name);
    *state = lb;
    lb->bucketed = strcmp(row->benchmark, "longbench_e") == 0;
    lb->prompts = config_read("longbench_prompts.json");
    lb->template_text = base_name(row, lb->name, sizeof lb->name) ? mb_json_string(lb->prompts, lb->name) : NULL;
    if (!lb->template_text)
        return mb_fail(err, MB_E_BUG, "datasets/prompts/longbench_prompts.json has no prompt for %s", row->name);
    for (size_t i = 0; i < 4; i++) {
        snprintf(files[i], sizeof files[i], "%s%s.jsonl", layouts[i], row->name);
        names[i] = files[i];
    }
    return mb_task_rows_open(&lb->rows, row, request->folder, names, "longbench", err);
}

void mb_longbench_close(void *state)
{
    longbench *lb = state;
    mb_task_rows_close(&lb->rows);
    cJSON_Delete(lb->prompts);
    free(lb);
}

/* Copies an array of texts; absent or null gives none. */
static int texts_copy(const longbench *lb, const cJSON *row, const char *field, bool required, mb_sample *sample,
                      bool (*add)(mb_sample *, const char *, size_t), mb_error *err)
{
    const cJSON *list = mb_json_member(row, field), *item;
    const char *path = mb_jsonl_path(lb->rows.reader);
    long long line = (long long)mb_jsonl_line(lb->rows.reader);
    if (!list || cJSON_IsNull(list))
        return required ? mb_fail(err, MB_E_SAMPLE, "%s:%lld: field \"%s\" is missing", path, line, field) : MB_OK;
    if (!cJSON_IsArray(list) || (required && !list->child))
        return mb_fail(err, MB_E_SAMPLE, "%s:%lld: field \"%s\" is no list of texts", path, line, field);
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsString(item))
            return mb_fail(err, MB_E_SAMPLE, "%s:%lld: field \"%s\" holds something that is no text", path, line,
                           field);
        if (!add(sample, item->valuestring, strlen(item->valuestring)))
            return mb_fail(err, MB_E_SYSTEM, "%s:%lld: no memory for the row", path, line);
    }
    return MB_OK;
}

static bool has_classes(const mb_task_info *row)
{
    return strcmp(row->metric, "classification") == 0;
}

/* Everything of the sample but key and source. */
static int sample_fill(const longbench *lb, const cJSON *row, mb_sample *sample, mb_error *err)
{
    const mb_task_info *info = lb->rows.info;
    const cJSON *length = mb_json_member(row, "length");
    const char *language = mb_json_string(row, "language");
    mb_text prompt = {0};
    if (!mb_task_rows_text(&lb->rows, row, "_id", err))
        return MB_E_SAMPLE;
    const char *context = mb_task_rows_text(&lb->rows, row, "context", err);
    const char *input = context ? mb_task_rows_text(&lb->rows, row, "input", err) : NULL;
    if (!input)
        return MB_E_SAMPLE;
    if (!cJSON_IsNumber(length))
        return mb_fail(err, MB_E_SAMPLE, "%s:%lld: field \"length\" %s", mb_jsonl_path(lb->rows.reader),
                       (long long)mb_jsonl_line(lb->rows.reader), length ? "is no number" : "is missing");
    if (!mb_json_integer(length, 0, LONGEST, &sample->length))
        return mb_fail(err, MB_E_SAMPLE, "%s:%lld: field \"length\" is no length", mb_jsonl_path(lb->rows.reader),
                       (long long)mb_jsonl_line(lb->rows.reader));
    int rc = texts_copy(lb, row, "answers", true, sample, mb_sample_add_answer, err);
    if (rc == MB_OK)
        rc = texts_copy(lb, row, "all_classes", has_classes(info), sample, mb_sample_add_class, err);
    if (rc != MB_OK)
        return rc;
    const mb_prompt_pair pairs[] = {{"context", context}, {"input", input}};
    mb_prompt_fill(&prompt, lb->template_text, strlen(lb->template_text), pairs, 2, true);
    sample->prompt = mb_text_take(&prompt);
    sample->language = mb_string_copy(language ? language : info->language);
    sample->group = lb->bucketed ? mb_string_copy(mb_longbench_bucket(sample->length)) : NULL;
    sample->max_new_tokens = info->max_new_tokens;
    sample->chat = info->chat;
    sample->truncate_middle = true;
    sample->stop_newline = strcmp(lb->name, "samsum") == 0;
    if (!sample->prompt || !sample->language || (lb->bucketed && !sample->group))
        return mb_no_memory(err, "the row of %s", sample->source);
    return MB_OK;
}

int mb_longbench_next(void *state, mb_sample **sample, mb_error *err)
{
    longbench *lb = state;
    cJSON *row = NULL;
    int rc = mb_task_rows_next(&lb->rows, &row, sample, err);
    if (rc == 1) {
        int filled = sample_fill(lb, row, *sample, err);
        if (filled != MB_OK)
            rc = filled;
    }
    if (rc < 0 && rc != MB_E_SAMPLE) {
        mb_sample_free(*sample);
        *sample = NULL;
    }
    cJSON_Delete(row);
    return rc;
}

/* ---- scoring ---- */
/* Few-shot tasks: the model goes on with further examples, so only its first line counts. */
static bool first_line_only(const mb_task_info *row)
{
    return strcmp(row->category, "few-shot learning") == 0;
}

static int pair_score(const char *metric, const mb_sample *sample, const char *prediction, const char *reference,
                      double *score, mb_error *err)
{
    if (strcmp(metric, "qa_f1") == 0)
        return mb_metric_qa_f1(prediction, reference, score);
    if (strcmp(metric, "qa_f1_zh") == 0)
        return mb_metric_qa_f1_zh(prediction, reference, score, err);
    if (strcmp(metric, "rouge_l") == 0)
        return mb_metric_rouge_l(prediction, reference, score);
    if (strcmp(metric, "rouge_l_zh") == 0)
        return mb_metric_rouge_l_zh(prediction, reference, score, err);
    if (strcmp(metric, "classification") == 0)
        return mb_metric_classification(prediction, reference, sample->classes, sample->class_count, score);
    if (strcmp(metric, "count") == 0)
        return mb_metric_count(prediction, reference, score);
    if (strcmp(metric, "retrieval") == 0)
        return mb_metric_retrieval(prediction, reference, "Paragraph ", score, err);
    if (strcmp(metric, "retrieval_zh") == 0)
        return mb_metric_retrieval(prediction, reference, "段落", score, err);
    if (strcmp(metric, "code_sim") == 0)
        return mb_metric_code(prediction, reference, score);
    return mb_fail(err, MB_E_BUG, "no metric is named %s", metric);
}

int mb_longbench_score(const mb_task_info *row, const mb_sample *sample, const char *prediction, double *score,
                       mb_error *err)
{
    char *line = NULL;
    int rc = MB_OK;
    *score = 0;
    if (has_classes(row) && !sample->class_count)
        return mb_fail(err, MB_E_SAMPLE,
                       "task %s is scored against the list \"all_classes\", which is missing or empty", row->name);
    if (first_line_only(row)) {
        size_t length;
        const char *from = mb_first_line(prediction, &length);
        line = mb_string_format("%.*s", (int)length, from);
        if (!line)
            return mb_no_memory(err, "scoring a prediction");
        prediction = line;
    }
    /* Python's max over the references, which starts at 0. */
    for (size_t i = 0; i < sample->answer_count && rc == MB_OK; i++) {
        double one = 0;
        rc = pair_score(row->metric, sample, prediction, sample->answers[i], &one, err);
        if (rc == MB_OK && one > *score)
            *score = one;
        if (rc == MB_E_SYSTEM)
            mb_fail(err, rc, "no memory to score a prediction");
    }
    free(line);
    return rc;
}

const mb_task_family mb_family_longbench = {
    .name = "longbench",
    .rows = rows,
    .row_count = ROW_COUNT,
    .template_bytes = mb_longbench_template_bytes,
    .open = mb_longbench_open,
    .next = mb_longbench_next,
    .hash = mb_task_rows_hash,
    .size = mb_task_rows_size,
    .close = mb_longbench_close,
    .score = mb_longbench_score,
    .prepare = prepare,
};
