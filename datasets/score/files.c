/*
 * files.c - what a folder of prediction files is: which benchmark's program wrote it, its files in the order of
 * the benchmark's table, and the task of each.
 *
 * Three layouts are read. LongBench's pred/<model>/<task>.jsonl, the same with length buckets in pred_e/<model>/,
 * and NVIDIA/RULER's <task>.jsonl, whose rows have "outputs" where LongBench's have "answers".
 */
#include "datasets/score/score.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* pred_e somewhere in the real path, as the official scorer's --e reads it. */
static bool is_bucketed(const char *folder)
{
    char *real = realpath(folder, NULL);
    const char *path = real ? real : folder;
    bool found = false;
    for (const char *p = path; (p = strstr(p, "pred_e")) && !found; p++)
        found = (p == path || p[-1] == '/') && (p[6] == '/' || p[6] == '\0');
    free(real);
    return found;
}

/* The first row that can be read of the first file tells; a bad one is told later, when it is scored. */
static bool is_ruler(const char *folder, char *const *files, size_t count)
{
    mb_jsonl *reader = NULL;
    cJSON *row = NULL;
    char *path = count ? mb_string_format("%s/%s", folder, files[0]) : NULL;
    bool found = path && mb_jsonl_open(&reader, path, NULL) == MB_OK && mb_jsonl_next(reader, &row, NULL) == 1 &&
                 mb_json_member(row, "outputs") && !mb_json_member(row, "answers");
    cJSON_Delete(row);
    mb_jsonl_close(reader);
    free(path);
    return found;
}

/* Position in the table of the task called prefix + the n bytes of name; -1 = none is. */
static int64_t position_of(const char *prefix, const char *name, size_t n)
{
    const mb_task_info *row;
    size_t before = strlen(prefix);
    for (size_t i = 0; (row = mb_task_at(i)); i++) {
        if (strncmp(row->name, prefix, before) == 0 && strlen(row->name + before) == n &&
            memcmp(row->name + before, name, n) == 0)
            return (int64_t)i;
    }
    return -1;
}

/* A task's name is what stands before the first dot of the file's. RULER's files have it without "ruler_". */
static int64_t position(const char *file, mb_score_layout layout)
{
    size_t n = strcspn(file, ".");
    int64_t found = layout == MB_SCORE_RULER ? position_of("ruler_", file, n) : -1;
    return found >= 0 ? found : position_of("", file, n);
}

const mb_task_info *mb_score_task(const char *file, mb_score_layout layout)
{
    int64_t at = position(file, layout);
    return at >= 0 ? mb_task_at((size_t)at) : NULL;
}

static int by_table(const void *a, const void *b, void *layout)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int64_t p = position(x, *(const mb_score_layout *)layout), q = position(y, *(const mb_score_layout *)layout);
    return p != q ? (p < q ? -1 : 1) : strcmp(x, y);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool ends_in_jsonl(const char *name)
{
    size_t n = strlen(name);
    return n > 6 && strcmp(name + n - 6, ".jsonl") == 0;
}

int mb_score_files_open(mb_score_files *files, const char *folder, mb_error *err)
{
    *files = (mb_score_files){.folder = folder};
    DIR *dir = opendir(folder);
    if (!dir)
        return mb_fail(err, MB_E_INPUT, "cannot open the folder %s: %s", folder, strerror(errno));
    int rc = MB_OK;
    for (struct dirent *entry; rc == MB_OK && (entry = readdir(dir));) {
        if (!ends_in_jsonl(entry->d_name))
            continue;
        char **more = realloc(files->names, (files->count + 1) * sizeof *more);
        if (more)
            files->names = more;
        if (!more || !(more[files->count] = mb_string_copy(entry->d_name)))
            rc = mb_no_memory(err, "listing %s", folder);
        else
            files->count++;
    }
    closedir(dir);
    if (rc == MB_OK && !files->count)
        rc = mb_fail(err, MB_E_INPUT,
                     "%s holds no <task>.jsonl; name the folder of one model, such as pred/my-model", folder);
    if (rc != MB_OK)
        return rc;
    qsort(files->names, files->count, sizeof *files->names, by_name);
    files->layout = is_ruler(folder, files->names, files->count) ? MB_SCORE_RULER
                    : is_bucketed(folder)                        ? MB_SCORE_LONGBENCH_E
                                                                 : MB_SCORE_LONGBENCH;
    qsort_r(files->names, files->count, sizeof *files->names, by_table, &files->layout);
    return MB_OK;
}

void mb_score_files_close(mb_score_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->names[i]);
    free(files->names);
    *files = (mb_score_files){0};
}
