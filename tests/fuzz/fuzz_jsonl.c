/*
 * fuzz_jsonl.c - any bytes as a task's data file. The first byte picks the task, the rest is the file. Every row
 * is a sample or a sentence with file and line, counting agrees with reading, the stream ends, and what comes out
 * can be scored and written as a prediction line that reads back.
 */
#include "datasets/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const char *task, *file;
} kinds[] = {{"trec", "trec.jsonl"},
             {"lcc_e", "lcc_e.jsonl"},
             {"hotpotqa", "hotpotqa.jsonl"},
             {"passage_retrieval_en", "passage_retrieval_en.jsonl"},
             {"samsum", "samsum.jsonl"},
             {"longbench_v2", "data.json"},
             {"longgenbench_short", "Dataset_short.json"},
             {"longgenbench_gsm8k", "gsm8k_test.jsonl"}};
#define KINDS (sizeof kinds / sizeof kinds[0])

static char folder[] = "/tmp/mb_fuzz_jsonl_XXXXXX";
static int file = -1;

/* The file lives in memory; every task's name in the folder is a link to it. */
static void drop_folder(void)
{
    char path[128];
    for (size_t i = 0; i < KINDS; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, kinds[i].file);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/gsm8k_prompt.txt", folder);
    unlink(path);
    rmdir(folder);
}

static void make_folder(void)
{
    char path[128], target[64];
    file = memfd_create("rows", 0);
    if (file < 0 || !mkdtemp(folder))
        abort();
    atexit(drop_folder);
    snprintf(target, sizeof target, "/proc/%d/fd/%d", (int)getpid(), file);
    for (size_t i = 0; i < KINDS; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, kinds[i].file);
        if (symlink(target, path) != 0)
            abort();
    }
    snprintf(path, sizeof path, "%s/gsm8k_prompt.txt", folder);
    if (mb_file_write(path, "EX", 2, NULL) != MB_OK)
        abort();
}

/* A prediction inside a line of JSON comes back as it was. */
static void line_check(const char *prediction)
{
    mb_text line = {0};
    mb_error reason = {0};
    mb_text_puts(&line, "{\"pred\": \"");
    mb_text_json(&line, prediction);
    mb_text_puts(&line, "\"}");
    cJSON *row = mb_json_object(line.data, line.length, &reason);
    const char *back = mb_json_string(row, "pred");
    if (!back || strcmp(back, prediction) != 0)
        abort();
    cJSON_Delete(row);
    mb_text_free(&line);
}

static void sample_check(const char *task, const mb_sample *sample)
{
    char prediction[256];
    mb_error err = {0};
    double score = -1;
    const char *from = sample->answer_count ? sample->answers[sample->answer_count - 1] : "x";
    size_t n = strnlen(from, sizeof prediction - 1);
    while (n && ((unsigned char)from[n] & 0xC0) == 0x80)
        n--;
    memcpy(prediction, from, n);
    prediction[n] = '\0';
    int rc = mb_sample_score(task, sample, prediction, &score, &err);
    if (rc == MB_OK ? !(score >= 0 && score <= 1) : rc != MB_E_SAMPLE || !err.text[0])
        abort();
    line_check(prediction);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (file < 0)
        make_folder();
    if (size < 1)
        return 0;
    size_t kind = data[0] % KINDS;
    if (ftruncate(file, 0) != 0 || pwrite(file, data + 1, size - 1, 0) != (ssize_t)(size - 1))
        abort();
    mb_task_request request = {.task = kinds[kind].task, .folder = folder};
    mb_task *task = NULL;
    mb_sample *sample = NULL;
    mb_error err = {0};
    int64_t rows = 0;
    if (mb_task_open(&task, &request, &err) != MB_OK)
        abort();
    int64_t promised = mb_task_size(task);
    for (int rc; (rc = mb_task_next(task, &sample, &err)) != 0; rows++) {
        if ((rc != 1 && rc != MB_E_SAMPLE) || rows > (int64_t)size)
            abort();
        if (rc == 1) {
            if (!sample || !sample->prompt || !sample->key || !sample->source)
                abort();
            sample_check(kinds[kind].task, sample);
        } else if (!err.text[0] || (sample && !sample->key)) {
            abort();
        }
        mb_sample_free(sample);
    }
    if (rows != promised)
        abort();
    mb_task_close(task);
    return 0;
}
