/*
 * summary.c - the averages that papers print under a LongBench table, from the text of a result.json. Two
 * kinds are in use and differ by points: LongBench's own (mean of six category means) and the plain mean of the 16
 * non-Chinese tasks. Each line says which it is; a mean over a part of the tasks is never printed.
 */
#include "datasets/internal.h"

#include <math.h>
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
    if (!cJSON_IsNumber(item) || isnan(item->valuedouble)) /* NaN: a bucket without rows */
        return false;
    *score = item->valuedouble;
    return true;
}

/* The scores of the tasks that a line is about. */
typedef struct tally {
    double sum[CATEGORY_COUNT], total;
    size_t count[CATEGORY_COUNT], tasks;
    mb_text missing;
} tally;

static void tally_add(tally *t, const mb_task_info *row, double score)
{
    for (size_t c = 0; c < CATEGORY_COUNT; c++) {
        if (strcmp(row->category, categories[c]) == 0) {
            t->sum[c] += score;
            t->count[c]++;
        }
    }
    t->total += score;
    t->tasks++;
}

/* Mean of the means of the categories that have tasks. */
static double category_mean(const tally *t)
{
    double means = 0;
    size_t used = 0;
    for (size_t c = 0; c < CATEGORY_COUNT; c++) {
        if (t->count[c]) {
            means += t->sum[c] / (double)t->count[c];
            used++;
        }
    }
    return means / (double)used;
}

/* One line. by_category: mean of the categories' means instead of the plain mean of the tasks. */
static void mean_write(mb_text *out, const cJSON *result, const char *label, task_filter filter,
                       const char *bucket, bool by_category)
{
    const mb_task_info *row;
    tally t = {0};
    for (size_t i = 0; (row = mb_task_at(i)); i++) {
        double score;
        if (!filter(row))
            continue;
        if (score_find(result, row, bucket, &score))
            tally_add(&t, row, score);
        else
            mb_text_printf(&t.missing, "%s%s", t.missing.length ? ", " : "", row->name);
    }
    if (t.tasks && t.missing.length)
        mb_text_printf(out, "%s: not complete (without %s)\n", label, t.missing.data);
    else if (t.tasks)
        mb_text_printf(out, "%s: %.2f\n", label, by_category ? category_mean(&t) : t.total / (double)t.tasks);
    out->failed = out->failed || t.missing.failed;
    mb_text_free(&t.missing);
}

int mb_score_summary(const char *result_json, mb_text *out, mb_error *err)
{
    cJSON *result = mb_json_parse(result_json, strlen(result_json), false, NULL);
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
