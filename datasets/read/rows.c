/*
 * rows.c - what all tasks that live in a file share: finding the file under the data folder, walking its rows, and
 * saying clearly which row is bad. Every bad row still gives a sample with key and source, so that the run can
 * store it as failed.
 */
#include "datasets/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mb_task_rows_open(mb_task_rows *rows, const mb_task_info *info, const char *folder, const char *const *names,
                      const char *fetch, mb_error *err)
{
    mb_text looked = {0};
    char *path = NULL;
    int rc = MB_OK;
    if (!folder)
        folder = "datasets/data";
    *rows = (mb_task_rows){.info = info, .count = -1};
    for (size_t i = 0; names[i]; i++) {
        free(path);
        path = mb_string_format("%s/%s", folder, names[i]);
        if (!path) {
            rc = mb_no_memory(err, "opening task %s", info->name);
            goto out;
        }
        if (mb_file_exists(path)) {
            rc = mb_jsonl_open(&rows->reader, path, err);
            goto out;
        }
        mb_text_printf(&looked, "%s%s", i ? ", " : "", path);
    }
    char command[MB_FETCH_CAP];
    mb_fetch_command(fetch, command);
    rc = mb_fail(err, MB_E_INPUT,
                 "task %s: no file at %s; %s downloads it, or --data DIR names a folder that has it", info->name,
                 looked.data ? looked.data : folder, command);
out:
    free(path);
    mb_text_free(&looked);
    return rc;
}

int mb_task_rows_next(mb_task_rows *rows, cJSON **row, mb_sample **sample, mb_error *err)
{
    *sample = NULL;
    int rc = mb_jsonl_next(rows->reader, row, err);
    if (rc != 1 && rc != MB_E_SAMPLE)
        return rc;
    rows->read++;
    mb_sample *s = mb_sample_new();
    long long line = (long long)mb_jsonl_line(rows->reader);
    const char *id = *row ? mb_json_string(*row, "_id") : NULL;
    if (id && !mb_utf8_check(id, strlen(id), NULL))
        id = NULL; /* the family says so when it asks for the text */
    if (s) {
        s->source = mb_string_format("%s:%lld", mb_jsonl_path(rows->reader), line);
        s->key = id && *id ? mb_string_copy(id) : mb_string_format("row_%lld", (long long)rows->read);
    }
    if (!s || !s->source || !s->key) {
        mb_sample_free(s);
        cJSON_Delete(*row);
        *row = NULL;
        return mb_no_memory(err, "a row of task %s", rows->info->name);
    }
    *sample = s;
    return rc;
}

const char *mb_task_rows_text(const mb_task_rows *rows, const cJSON *row, const char *field, mb_error *err)
{
    const cJSON *item = mb_json_member(row, field);
    bool text = cJSON_IsString(item);
    if (text && mb_utf8_check(item->valuestring, strlen(item->valuestring), NULL))
        return item->valuestring;
    mb_fail(err, MB_E_SAMPLE, "%s:%lld: field \"%s\" %s", mb_jsonl_path(rows->reader),
            (long long)mb_jsonl_line(rows->reader), field,
            text   ? "holds a NUL or half of a surrogate pair, which is no text for a model"
            : item ? "is no text"
                   : "is missing");
    return NULL;
}

/* Read in pieces: a mapped file would count as memory of the process, and a data file may have gigabytes. */
void mb_task_rows_hash(void *state, char hex[MB_HASH_CAP])
{
    const mb_task_rows *rows = state;
    size_t cap = (size_t)1 << 20, n;
    int fd = -1;
    FILE *file = mb_file_open(mb_jsonl_path(rows->reader), &fd, &n, NULL) == MB_OK ? fdopen(fd, "rb") : NULL;
    char *piece = malloc(cap);
    mb_hash *hash = mb_hash_new();
    hex[0] = '\0';
    if (file && piece && hash) {
        while ((n = fread(piece, 1, cap, file)) > 0)
            mb_hash_add(hash, piece, n);
    }
    if (hash) { /* ending it frees it */
        mb_hash_end(hash, hex);
        if (!file || !piece || ferror(file))
            hex[0] = '\0';
    }
    free(piece);
    if (file)
        fclose(file);
}

int64_t mb_task_rows_size(void *state)
{
    mb_task_rows *rows = state;
    if (rows->count < 0)
        rows->count = mb_jsonl_count(mb_jsonl_path(rows->reader));
    return rows->count;
}

void mb_task_rows_close(mb_task_rows *rows)
{
    mb_jsonl_close(rows->reader);
    rows->reader = NULL;
}
