/*
 * summary.c - the averages that papers print under a LongBench table, from the text of a result.json. Two
 * kinds are in use and differ by points: LongBench's own (mean of six category means) and the plain mean of the 16
 * non-Chinese tasks. Each line says which it is; a mean over a part of the tasks is never printed.
 */
#include "datasets/internal.h"

#include <stdlib.h>
#include <string.h>

static const char *const categories[] = {"single-doc QA",     "multi-doc QA", "summarization",
                                         "few-shot learning", "synthetic",    "code completion"};
#define CATEGORY_COUNT (sizeof categories / sizeof categories[0])

typedef bool (*task_filter)(const mb_task_info *row);

static bool is_longbench(const mb_task_info *row)
{
    return strcmp(row->benchmark, "longbench") == 0;
}

static bool is_english_or_code(const mb_task_info *row)
{
    return is_longbench(row) && strcmp(row->language, "zh") != 0;
}

static bool is_chinese_or_code(const mb_task_info *row)
{
    return is_longbench(row) && strcmp(row->language, "en") != 0;
}

static bool is_english_without_count(const mb_task_info *row)
{
    return is_english_or_code(row) && strcmp(row->name, "passage_count") != 0;
}

static bool is_extended(const mb_task_info *row)
{
    return strcmp(row->benchmark, "longbench_e") == 0;
}

/* The score of a task in the result; bucket NULL: the task's one number. Names of LongBench-E tasks lose "_e". */
static bool score_find(const cJSON *result, const mb_task_info *row, const char *bucket, double *score)
{
    char name[64];
    size_t n = strlen(row->name) - (is_extended(row) ? 2 : 0);
    if (n >= sizeof name)
        return false;
    memcpy(name, row->name, n);
    name[n] = '\0';
    const cJSON *item = mb_json_member(result, name);
    if (!item)
        item = mb_json_member(result, row->name);
    if (bucket)
        item = mb_json_member(item, bucket);
    if (!cJSON_IsNumber(item))
        return false;
    *score = item->valuedouble;
    return true;
}

/* One line. by_category: mean of the categories' means instead of the plain mean of the tasks. */
static void mean_write(mb_text *out, const cJSON *result, const char *label, task_filter filter,
                       const char *bucket, bool by_category)
{
    const mb_task_info *row;
    double sum[CATEGORY_COUNT] = {0}, total = 0, score;
    size_t count[CATEGORY_COUNT] = {0}, tasks = 0, used = 0;
    mb_text missing = {0};
    for (size_t i = 0; (row = mb_task_at(i)); i++) {
        if (!filter(row))
            continue;
        if (!score_find(result, row, bucket, &score)) {
            mb_text_printf(&missing, "%s%s", missing.length ? ", " : "", row->name);
            continue;
        }
        for (size_t c = 0; c < CATEGORY_COUNT; c++) {
            if (strcmp(row->category, categories[c]) == 0) {
                sum[c] += score;
                count[c]++;
            }
        }
        total += score;
        tasks++;
    }
    if (tasks) {
        mb_text_puts(out, label);
        if (missing.length) {
            mb_text_printf(out, ": not complete (without %s)\n", missing.data);
        } else if (by_category) {
            double means = 0;
            for (size_t c = 0; c < CATEGORY_COUNT; c++) {
                if (count[c]) {
                    means += sum[c] / (double)count[c];
                    used++;
                }
            }
            mb_text_printf(out, ": %.2f\n", means / (double)used);
        } else {
            mb_text_printf(out, ": %.2f\n", total / (double)tasks);
        }
    }
    out->failed = out->failed || missing.failed;
    mb_text_free(&missing);
}

/* The result may hold NaN (an empty bucket), which is Python's JSON and nobody else's. */
static cJSON *result_parse(const char *text)
{
    char *copy = mb_string_copy(text);
    cJSON *result = NULL;
    if (copy) {
        for (char *p = copy; (p = strstr(p, ": NaN")); p += 5)
            memcpy(p, ":null", 5);
        result = cJSON_Parse(copy);
    }
    free(copy);
    return result;
}

int mb_score_summary(const char *result_json, mb_text *out, mb_error *err)
{
    cJSON *result = result_parse(result_json);
    if (!cJSON_IsObject(result)) {
        cJSON_Delete(result);
        return mb_fail(err, MB_E_INPUT, "the result is no JSON object of task scores");
    }
    bool buckets = cJSON_IsObject(result->child);
    if (buckets) {
        mean_write(out, result, "LongBench-E, mean of 13 tasks, 0-4k", is_extended, "0-4k", false);
        mean_write(out, result, "LongBench-E, mean of 13 tasks, 4-8k", is_extended, "4-8k", false);
        mean_write(out, result, "LongBench-E, mean of 13 tasks, 8k+", is_extended, "8k+", false);
    } else {
        mean_write(out, result, "LongBench average (six category means), English", is_english_or_code, NULL, true);
        mean_write(out, result, "LongBench average (six category means), Chinese", is_chinese_or_code, NULL, true);
        mean_write(out, result, "mean of the 16 non-Chinese tasks", is_english_or_code, NULL, false);
        mean_write(out, result, "mean of 15 tasks (the same without passage_count)", is_english_without_count,
                   NULL, false);
        mean_write(out, result, "mean of all 21 tasks", is_longbench, NULL, false);
    }
    cJSON_Delete(result);
    if (out->failed)
        return mb_no_memory(err, "the means");
    return MB_OK;
}
