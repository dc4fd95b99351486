/*
 * score.c - scores a folder of prediction files in the official layout and writes the text of the official
 * result.json: pred/<model>/<task>.jsonl gives one number a task, pred_e/<model>/ three buckets a task.
 *
 * Sums, means and rounding follow the official scorer's arithmetic (Python sums and round for pred, numpy's
 * pairwise mean and its round for pred_e), so that every printed digit is equal. The order of tasks, which there
 * is the order of the directory, is the benchmark's order here.
 */
#include "datasets/score/score.h"

#include "datasets/metric/metrics.h"

#include <dirent.h>
#include <errno.h>
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

static void task_write(mb_text *out, const char *name, const scores *s, bool buckets)
{
    static const char *const labels[] = {"0-4k", "4-8k", "8k+"};
    mb_text_printf(out, "%s\n    \"%s\": ", out->length > 1 ? "," : "", name);
    if (!buckets) {
        double total = 0;
        for (size_t i = 0; i < s->count; i++)
            total += s->score[i];
        number_write(out, 100 * total / (double)s->count);
        return;
    }
    mb_text_puts(out, "{");
    double *part = malloc((s->count + 1) * sizeof *part);
    out->failed = out->failed || !part;
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

static int texts_take(const cJSON *list, mb_sample *sample, bool (*add)(mb_sample *, const char *, size_t))
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item))
            return MB_E_INPUT;
        if (!add(sample, item->valuestring, strlen(item->valuestring)))
            return MB_E_SYSTEM;
    }
    return MB_OK;
}

/* One line of a prediction file: MB_E_INPUT when it is not one. */
static int row_score(const char *task, const cJSON *row, const char *path, int64_t line, scores *into,
                     mb_error *err)
{
    const char *pred = mb_json_string(row, "pred");
    const cJSON *answers = mb_json_member(row, "answers"), *length = mb_json_member(row, "length");
    double score = 0;
    int rc;
    if (!pred || !cJSON_IsArray(answers))
        return mb_fail(err, MB_E_INPUT, "%s:%lld: a prediction has the text \"pred\" and the list \"answers\"",
                       path, (long long)line);
    mb_sample *sample = mb_sample_new();
    rc = sample ? texts_take(answers, sample, mb_sample_add_answer) : MB_E_SYSTEM;
    if (rc == MB_OK)
        rc = texts_take(mb_json_member(row, "all_classes"), sample, mb_sample_add_class);
    if (rc == MB_E_INPUT)
        mb_fail(err, rc, "%s:%lld: a list of texts holds something else", path, (long long)line);
    if (rc == MB_OK) {
        rc = mb_sample_score(task, sample, pred, &score, err);
        if (rc == MB_E_SAMPLE)
            rc = mb_fail_prefix(err, MB_E_INPUT, "%s:%lld", path, (long long)line);
    }
    if (rc == MB_OK && !scores_add(into, score, cJSON_IsNumber(length) ? (int64_t)length->valuedouble : 0))
        rc = MB_E_SYSTEM;
    if (rc == MB_E_SYSTEM)
        mb_fail(err, rc, "%s:%lld: no memory", path, (long long)line);
    mb_sample_free(sample);
    return rc;
}

static int file_score(const char *path, const char *task, scores *into, mb_error *err)
{
    mb_jsonl *reader = NULL;
    cJSON *row = NULL;
    int rc = mb_jsonl_open(&reader, path, err);
    if (rc != MB_OK)
        return rc;
    while ((rc = mb_jsonl_next(reader, &row, err)) == 1) {
        rc = row_score(task, row, path, mb_jsonl_line(reader), into, err);
        cJSON_Delete(row);
        if (rc != MB_OK)
            break;
    }
    if (rc == MB_E_SAMPLE)
        rc = MB_E_INPUT;
    if (rc == MB_OK && !into->count)
        rc = mb_fail(err, MB_E_INPUT, "%s holds no prediction", path);
    mb_jsonl_close(reader);
    return rc;
}

/* pred_e somewhere in the real path, as the official scorer's --e reads it. */
static bool folder_is_bucketed(const char *folder)
{
    char *real = realpath(folder, NULL);
    const char *path = real ? real : folder;
    bool found = false;
    for (const char *p = path; (p = strstr(p, "pred_e")) && !found; p++)
        found = (p == path || p[-1] == '/') && (p[6] == '/' || p[6] == '\0');
    free(real);
    return found;
}

/* Position of a file's task in the table, or -1. The task's name is what stands before the first dot. */
static int64_t task_position(const char *file)
{
    const mb_task_info *row;
    size_t n = strcspn(file, ".");
    for (size_t i = 0; (row = mb_task_at(i)); i++) {
        if (strlen(row->name) == n && memcmp(row->name, file, n) == 0)
            return (int64_t)i;
    }
    return -1;
}

static int name_compare(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int64_t p = task_position(x), q = task_position(y);
    return p != q ? (p < q ? -1 : 1) : strcmp(x, y);
}

static bool ends_in_jsonl(const char *name)
{
    size_t n = strlen(name);
    return n > 6 && strcmp(name + n - 6, ".jsonl") == 0;
}

/* The .jsonl files of a folder, in table order. */
static int folder_list(const char *folder, char ***files, size_t *count, mb_error *err)
{
    *files = NULL;
    *count = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return mb_fail(err, MB_E_INPUT, "cannot open the folder %s: %s", folder, strerror(errno));
    int rc = MB_OK;
    for (struct dirent *entry; rc == MB_OK && (entry = readdir(dir));) {
        if (!ends_in_jsonl(entry->d_name))
            continue;
        char **more = realloc(*files, (*count + 1) * sizeof *more);
        if (more)
            *files = more;
        if (!more || !(more[*count] = mb_string_copy(entry->d_name)))
            rc = mb_no_memory(err, "listing %s", folder);
        else
            (*count)++;
    }
    closedir(dir);
    if (rc == MB_OK && !*count)
        rc = mb_fail(err, MB_E_INPUT,
                     "%s holds no <task>.jsonl; name the folder of one model, such as pred/my-model", folder);
    if (rc == MB_OK)
        qsort(*files, *count, sizeof **files, name_compare);
    return rc;
}

/* Whether a task's metric needs Chinese words and the dictionary is missing; the reason goes to err. */
static bool is_skipped(const mb_task_info *task, mb_error *err)
{
    return mb_task_ready(task->name, err) != MB_OK;
}

int mb_score_folder(const char *folder, mb_text *out, mb_error *err)
{
    char **files = NULL, *path = NULL;
    size_t count = 0;
    scores s = {0};
    mb_text skipped = {0};
    mb_error reason = {0};
    int rc = folder_list(folder, &files, &count, err);
    bool bucketed = folder_is_bucketed(folder);
    if (rc != MB_OK)
        goto out;
    if (mb_score_v2_applies(folder, files, count)) {
        rc = mb_score_v2(folder, files, count, out, err);
        goto out;
    }
    mb_text_puts(out, "{");
    for (size_t i = 0; i < count && rc == MB_OK; i++) {
        int64_t position = task_position(files[i]);
        const mb_task_info *task = position >= 0 ? mb_task_at((size_t)position) : NULL;
        free(path);
        path = mb_string_format("%s/%s", folder, files[i]);
        scores_free(&s);
        if (!path)
            rc = mb_no_memory(err, "scoring %s", folder);
        else if (!task)
            rc = mb_fail(err, MB_E_INPUT, "%s: no task is named \"%.*s\"", path, (int)strcspn(files[i], "."),
                         files[i]);
        else if (is_skipped(task, &reason))
            mb_text_printf(&skipped, "%s%s", skipped.length ? ", " : "", task->name);
        else
            rc = file_score(path, task->name, &s, err);
        if (s.count && rc == MB_OK)
            task_write(out, task->name, &s, bucketed || strcmp(task->benchmark, "longbench_e") == 0);
    }
    mb_text_puts(out, out->length > 1 ? "\n}" : "}");
    if (rc == MB_OK && (out->failed || skipped.failed))
        rc = mb_no_memory(err, "the result of %s", folder);
    if (rc == MB_OK) /* not an error, but it must be said */
        mb_fail(err, 0, "%s%s%s%s", skipped.length ? "not scored: " : "", skipped.length ? skipped.data : "",
                skipped.length ? ": " : "", skipped.length ? reason.text : "");
out:
    for (size_t i = 0; i < count; i++)
        free(files[i]);
    free(files);
    free(path);
    scores_free(&s);
    mb_text_free(&skipped);
    return rc;
}
