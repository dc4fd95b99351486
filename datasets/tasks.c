/*
 * tasks.c - the one list of task families, and everything of datasets.h that is answered from it: finding a task,
 * expanding a group, opening and reading a stream with its limit, and routing a score to the family.
 *
 * A new family is one file and one line in `families`.
 */
#include "datasets/internal.h"
#include "datasets/metric/metrics.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const mb_task_family *const families[] = {
    &mb_family_longbench,    &mb_family_longbench_e, &mb_family_longbench_v2,
    &mb_family_longgenbench, &mb_family_niah,        &mb_family_ruler,
};
#define FAMILY_COUNT (sizeof families / sizeof families[0])

static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* Fills what the static tables cannot hold: limits from data files and the hash of each task's templates. The
 * hashes live as long as the process. */
static void prepare(void)
{
    for (size_t f = 0; f < FAMILY_COUNT; f++) {
        if (families[f]->prepare)
            families[f]->prepare();
        for (size_t i = 0; i < families[f]->row_count; i++) {
            mb_task_info *row = &families[f]->rows[i];
            mb_text bytes = {0};
            char hex[MB_HASH_CAP] = "";
            families[f]->template_bytes(row, &bytes);
            if (!bytes.failed)
                mb_hash_bytes(bytes.data ? bytes.data : "", bytes.length, hex);
            row->prompt_hash = mb_string_copy(hex);
            if (!row->prompt_hash)
                row->prompt_hash = "";
            mb_text_free(&bytes);
        }
    }
}

/* The i-th row over all families and its family. */
static const mb_task_info *row_at(size_t i, const mb_task_family **family)
{
    pthread_once(&prepared, prepare);
    for (size_t f = 0; f < FAMILY_COUNT; f++) {
        if (i < families[f]->row_count) {
            if (family)
                *family = families[f];
            return &families[f]->rows[i];
        }
        i -= families[f]->row_count;
    }
    return NULL;
}

static const mb_task_info *row_find(const char *name, const mb_task_family **family)
{
    const mb_task_info *row;
    for (size_t i = 0; (row = row_at(i, family)); i++) {
        if (strcmp(row->name, name) == 0)
            return row;
    }
    return NULL;
}

size_t mb_task_count(void)
{
    size_t count = 0;
    for (size_t f = 0; f < FAMILY_COUNT; f++)
        count += families[f]->row_count;
    return count;
}

const mb_task_info *mb_task_at(size_t i)
{
    return row_at(i, NULL);
}

const mb_task_info *mb_task_find(const char *name)
{
    return name ? row_find(name, NULL) : NULL;
}

/* Whether a group name covers the row: a benchmark's name, "all", or LongBench by language. */
static bool group_covers(const char *group, const mb_task_info *row)
{
    bool longbench = strcmp(row->benchmark, "longbench") == 0;
    bool chinese = strcmp(row->language, "zh") == 0;
    if (strcmp(group, "longbench_en") == 0) /* the 16 tasks that most papers average: English and code */
        return longbench && !chinese;
    if (strcmp(group, "longbench_zh") == 0)
        return longbench && chinese;
    return strcmp(group, "all") == 0 || strcmp(group, row->benchmark) == 0;
}

/* "longbench, longbench_e, ...": every benchmark once, in table order. */
static void benchmarks_list(mb_text *out)
{
    const mb_task_info *row;
    const char *last = "";
    for (size_t i = 0; (row = row_at(i, NULL)); i++) {
        if (strcmp(row->benchmark, last) != 0)
            mb_text_printf(out, "%s%s", *last ? ", " : "", row->benchmark);
        last = row->benchmark;
    }
}

int mb_task_expand(const char *group, const char ***names, size_t *count, mb_error *err)
{
    const mb_task_info *row = mb_task_find(group);
    mb_text known = {0};
    int rc = MB_OK;
    *count = 0;
    *names = malloc(mb_task_count() * sizeof **names);
    if (!*names)
        return mb_no_memory(err, "the names of the tasks");
    if (row) {
        (*names)[(*count)++] = row->name;
    } else {
        for (size_t i = 0; group && (row = row_at(i, NULL)); i++) {
            if (group_covers(group, row))
                (*names)[(*count)++] = row->name;
        }
    }
    if (*count == 0) {
        mb_guess guess = {.word = group ? group : ""};
        for (size_t i = 0; (row = row_at(i, NULL)); i++) {
            mb_guess_offer(&guess, row->name, strlen(row->name));
            mb_guess_offer(&guess, row->benchmark, strlen(row->benchmark));
        }
        benchmarks_list(&known);
        rc = mb_fail(err, MB_E_INPUT,
                     "no task and no group is named \"%s\"%s; groups: %s, longbench_en, longbench_zh, all; "
                     "`./harness list tasks` prints every task",
                     guess.word, mb_guess_phrase(&guess), known.data ? known.data : "");
        mb_text_free(&known);
        free(*names);
        *names = NULL;
    }
    return rc;
}

int mb_task_open(mb_task **task, const mb_task_request *request, mb_error *err)
{
    const mb_task_family *family = NULL;
    *task = NULL;
    const mb_task_info *row = request->task ? row_find(request->task, &family) : NULL;
    if (!row)
        return mb_fail(err, MB_E_INPUT, "no task is named \"%s\"; `./harness list tasks` prints them",
                       request->task ? request->task : "");
    mb_task *t = calloc(1, sizeof *t);
    if (!t)
        return mb_no_memory(err, "opening task %s", row->name);
    t->family = family;
    t->info = row;
    t->limit = request->limit;
    int rc = family->open(&t->state, row, request, err);
    if (rc != MB_OK) {
        mb_task_close(t);
        return rc;
    }
    *task = t;
    return MB_OK;
}

int mb_task_next(mb_task *task, mb_sample **sample, mb_error *err)
{
    *sample = NULL;
    if (task->limit > 0 && task->yielded >= task->limit)
        return 0;
    int rc = task->family->next(task->state, sample, err);
    if (rc == 1 || rc == MB_E_SAMPLE)
        task->yielded++;
    return rc;
}

void mb_task_hash(const mb_task *task, char hex[MB_HASH_CAP])
{
    hex[0] = '\0';
    task->family->hash(task->state, hex);
}

int64_t mb_task_size(const mb_task *task)
{
    int64_t size = task->family->size(task->state);
    return task->limit > 0 && size > task->limit ? task->limit : size;
}

void mb_task_close(mb_task *task)
{
    if (!task)
        return;
    if (task->state)
        task->family->close(task->state);
    free(task);
}

int mb_sample_score(const char *task, const mb_sample *sample, const char *prediction, double *score,
                    mb_error *err)
{
    const mb_task_family *family = NULL;
    const mb_task_info *row = task ? row_find(task, &family) : NULL;
    *score = 0;
    if (!row)
        return mb_fail(err, MB_E_INPUT, "no task is named \"%s\"", task ? task : "");
    return family->score(row, sample, prediction ? prediction : "", score, err);
}

int mb_task_ready(const char *task, mb_error *err)
{
    const mb_task_info *row = mb_task_find(task);
    if (!row)
        return mb_fail(err, MB_E_INPUT, "no task is named \"%s\"", task ? task : "");
    bool words = strcmp(row->metric, "qa_f1_zh") == 0 || strcmp(row->metric, "rouge_l_zh") == 0;
    return words ? mb_jieba_ready(err) : MB_OK;
}
