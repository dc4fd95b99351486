/*
 * score.c - scores a folder of prediction files as their benchmark's program wrote them and writes the text of
 * LongBench's result.json: one number a task, three buckets a task for LongBench-E.
 *
 * Sums, means and rounding follow the official scorer's arithmetic (Python sums and round for pred, numpy's
 * pairwise mean and its round for pred_e), so that every printed digit is equal. The order of tasks, which there
 * is the order of the directory, is the benchmark's order here.
 */
#include "datasets/score/score.h"

#include "datasets/metric/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Scores of one file, with the length that puts a row into its bucket. */
typedef struct scores {
    double *score;
    int64_t *length;
    size_t count, capacity;
} scores;

static bool scores_add(scores *s, double score, int64_t length)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2 : 256;
        double *more = realloc(s->score, capacity * sizeof *more);
        if (more)
            s->score = more;
        int64_t *lengths = more ? realloc(s->length, capacity * sizeof *lengths) : NULL;
        if (!lengths)
            return false;
        s->length = lengths;
        s->capacity = capacity;
    }
    s->score[s->count] = score;
    s->length[s->count++] = length;
    return true;
}

static void scores_free(scores *s)
{
    free(s->score);
    free(s->length);
    *s = (scores){0};
}

double mb_mean_pairwise(const double *v, size_t n)
{
    return n ? mb_sum_pairwise(v, n) / (double)n : NAN;
}

/* numpy's summation: eight running sums up to 128 numbers, halves (cut at multiples of eight) above. */
double mb_sum_pairwise(const double *v, size_t n)
{
    if (n < 8) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += v[i];
        return sum;
    }
    if (n > 128) {
        size_t half = n / 2;
        half -= half % 8;
        return mb_sum_pairwise(v, half) + mb_sum_pairwise(v + half, n - half);
    }
    double r[8];
    size_t i = 8;
    memcpy(r, v, sizeof r);
    for (; i + 8 <= n; i += 8) {
        for (size_t j = 0; j < 8; j++)
            r[j] += v[i + j];
    }
    double sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    for (; i < n; i++)
        sum += v[i];
    return sum;
}

/* Python's repr of a number with at most two decimals. */
static void number_write(mb_text *out, double value)
{
    char text[64];
    if (isnan(value)) {
        mb_text_puts(out, "NaN");
        return;
    }
    snprintf(text, sizeof text, "%.2f", value);
    size_t n = strlen(text);
    if (text[n - 1] == '0') /* one decimal always stays */
        text[n - 1] = '\0';
    mb_text_puts(out, text);
}

/* RULER divides first and multiplies then, LongBench the other way round: the last digit may hang on it. */
static double percent(const scores *s, mb_score_layout layout)
{
    double total = 0;
    for (size_t i = 0; i < s->count; i++)
        total += s->score[i];
    return layout == MB_SCORE_RULER ? total / (double)s->count * 100 : 100 * total / (double)s->count;
}

static void buckets_write(mb_text *out, const scores *s)
{
    static const char *const labels[] = {"0-4k", "4-8k", "8k+"};
    double *part = malloc((s->count + 1) * sizeof *part);
    out->failed = out->failed || !part;
    mb_text_puts(out, "{");
    for (size_t b = 0; b < 3 && part; b++) {
        size_t n = 0;
        for (size_t i = 0; i < s->count; i++) {
            if (strcmp(mb_longbench_bucket(s->length[i]), labels[b]) == 0)
                part[n++] = s->score[i];
        }
        mb_text_printf(out, "%s\n        \"%s\": ", b ? "," : "", labels[b]);
        number_write(out, nearbyint(100 * mb_mean_pairwise(part, n) * 100) / 100);
    }
    free(part);
    mb_text_puts(out, "\n    }");
}

static void task_write(mb_text *out, const char *name, size_t length, const scores *s, mb_score_layout layout)
{
    mb_text_printf(out, "%s\n    \"%.*s\": ", out->length > 1 ? "," : "", (int)length, name);
    if (layout == MB_SCORE_LONGBENCH_E)
        buckets_write(out, s);
    else
        number_write(out, percent(s, layout));
}

static int texts_take(const cJSON *list, mb_sample *sample, bool (*add)(mb_sample *, const char *, size_t))
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsString(item))
            return MB_E_INPUT;
        if (!add(sample, item->valuestring, strlen(item->valuestring)))
            return MB_E_SYSTEM;
    }
    return MB_OK;
}

/* Pred, references and classes of a row. MB_E_INPUT, and the reason without its place: it is no prediction. */
static int row_sample(const cJSON *row, mb_score_layout layout, mb_sample *sample, mb_error *err)
{
    const char *list = layout == MB_SCORE_RULER ? "outputs" : "answers";
    const cJSON *references = mb_json_member(row, list), *length = mb_json_member(row, "length");
    if (!mb_json_string(row, "pred") || !cJSON_IsArray(references))
        return mb_fail(err, MB_E_INPUT, "a prediction has the text \"pred\" and the list \"%s\"", list);
    if (layout == MB_SCORE_RULER && !references->child)
        return mb_fail(err, MB_E_INPUT, "the list \"outputs\" is empty: nothing can be looked for");
    if (layout == MB_SCORE_LONGBENCH_E && !cJSON_IsNumber(length))
        return mb_fail(err, MB_E_INPUT,
                       "\"length\" %s: it decides into which bucket of LongBench-E the prediction goes",
                       length ? "is no number" : "is missing");
    int rc = texts_take(references, sample, mb_sample_add_answer);
    if (rc == MB_OK)
        rc = texts_take(mb_json_member(row, "all_classes"), sample, mb_sample_add_class);
    sample->length = 0; /* nobody else looks at it, nor does the official scorer */
    if (layout == MB_SCORE_LONGBENCH_E && !mb_json_integer(length, 0, (int64_t)1 << 53, &sample->length))
        return mb_fail(err, MB_E_INPUT, "\"length\" is no length");
    return rc == MB_E_INPUT ? mb_fail(err, rc, "a list of texts holds something else") : rc;
}

/* One line of a prediction file. */
static int row_score(const char *task, const cJSON *row, mb_score_layout layout, scores *into, mb_error *err)
{
    double score = 0;
    mb_sample *sample = mb_sample_new();
    int rc = sample ? row_sample(row, layout, sample, err) : MB_E_SYSTEM;
    if (rc == MB_OK)
        rc = mb_sample_score(task, sample, mb_json_string(row, "pred"), &score, err);
    if (rc == MB_OK && !scores_add(into, score, sample->length))
        rc = MB_E_SYSTEM;
    if (rc == MB_E_SYSTEM)
        mb_fail(err, rc, "no memory");
    mb_sample_free(sample);
    return rc == MB_E_SAMPLE ? MB_E_INPUT : rc;
}

static int file_score(const char *path, const char *task, mb_score_layout layout, scores *into, mb_error *err)
{
    mb_jsonl *reader = NULL;
    cJSON *row = NULL;
    int rc = mb_jsonl_open(&reader, path, err);
    if (rc != MB_OK)
        return rc;
    while ((rc = mb_jsonl_next(reader, &row, err)) == 1) {
        rc = row_score(task, row, layout, into, err);
        cJSON_Delete(row);
        if (rc != MB_OK) {
            mb_fail_prefix(err, rc, "%s:%lld", path, (long long)mb_jsonl_line(reader));
            break;
        }
    }
    if (rc == MB_E_SAMPLE)
        rc = MB_E_INPUT;
    if (rc == MB_OK && !into->count)
        rc = mb_fail(err, MB_E_INPUT, "%s holds no prediction", path);
    mb_jsonl_close(reader);
    return rc;
}

/* Tasks left out because their metric needs a dictionary that is not there, and why. */
struct skipped {
    mb_text names;
    mb_error reason;
};

/* One file's entry of the result. */
static int task_score(const mb_score_files *files, const char *file, struct skipped *skipped, mb_text *out,
                      mb_error *err)
{
    size_t length = strcspn(file, ".");
    const mb_task_info *task = mb_score_task(file, files->layout);
    char *path = mb_string_format("%s/%s", files->folder, file);
    scores s = {0};
    int rc = MB_OK;
    if (!path)
        return mb_no_memory(err, "scoring %s", files->folder);
    if (!task) {
        rc = mb_fail(err, MB_E_INPUT, "%s: no task is named \"%.*s\"", path, (int)length, file);
    } else if (mb_task_ready(task->name, &skipped->reason) != MB_OK) {
        mb_text_printf(&skipped->names, "%s%s", skipped->names.length ? ", " : "", task->name);
    } else {
        /* The name of a LongBench-E task says it, too, whatever the folder is called. */
        bool extended = strcmp(task->benchmark, "longbench_e") == 0;
        mb_score_layout layout = extended ? MB_SCORE_LONGBENCH_E : files->layout;
        rc = file_score(path, task->name, layout, &s, err);
        if (rc == MB_OK)
            task_write(out, file, length, &s, layout);
    }
    free(path);
    scores_free(&s);
    return rc;
}

int mb_score_folder(const char *folder, mb_text *out, mb_error *err)
{
    mb_score_files files;
    struct skipped skipped = {0};
    int rc = mb_score_files_open(&files, folder, err);
    if (rc == MB_OK && mb_score_v2_applies(folder, files.names, files.count)) {
        rc = mb_score_v2(folder, files.names, files.count, out, err);
        goto out;
    }
    mb_text_puts(out, "{");
    for (size_t i = 0; i < files.count && rc == MB_OK; i++)
        rc = task_score(&files, files.names[i], &skipped, out, err);
    mb_text_puts(out, out->length > 1 ? "\n}" : "}");
    if (rc == MB_OK && (out->failed || skipped.names.failed))
        rc = mb_no_memory(err, "the result of %s", folder);
    if (rc == MB_OK && skipped.names.length) /* not an error, but it must be said */
        mb_fail(err, 0, "not scored: %s: %s", skipped.names.data, skipped.reason.text);
    else if (rc == MB_OK)
        mb_fail(err, 0, "%s", "");
out:
    mb_score_files_close(&files);
    mb_text_free(&skipped.names);
    return rc;
}
