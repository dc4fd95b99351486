/*
 * fuzz_questions.c - any bytes as a data file that a task reads whole: SQuAD and HotpotQA for RULER's questions,
 * the examples and a subject's table for LongGenBench's MMLU. The first byte picks the file. The task is refused
 * with a sentence, or every sample is whole or has a sentence of its own, and there are as many as were promised.
 */
#include "tests/datasets/codecs.h"

#include <stdio.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    const char *task, *file, *options;
} kinds[] = {{"qa_1", "dev-v2.0.json", "{\"lengths\": [160, 512], \"samples\": 2}"},
             {"qa_2", "hotpot_dev_distractor_v1.json", "{\"lengths\": [160, 512], \"samples\": 2}"},
             {"longgenbench_mmlu", "mmlu_prompt.json", "{\"batch\": 3}"},
             {"longgenbench_mmlu", "mmlu/test/law_test.csv", "{\"batch\": 3}"}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static char folder[] = "/dev/shm/mb_fuzz_questions_XXXXXX";
static bool made;

static void put(const char *file, const void *bytes, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (mb_file_write(path, bytes, size, NULL) != MB_OK)
        abort();
}

static void drop(void)
{
    static const char *const folders[] = {"mmlu/test", "mmlu", ""};
    char path[128];
    for (size_t i = 0; i < KINDS; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, kinds[i].file);
        unlink(path);
    }
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, folders[i]);
        rmdir(path);
    }
}

static void make(void)
{
    char path[128];
    made = true;
    if (!mkdtemp(folder))
        abort();
    atexit(drop);
    snprintf(path, sizeof path, "%s/mmlu/test", folder);
    if (mb_folder_make(path, NULL) != MB_OK)
        abort();
}

static void sample_check(const char *task, const mb_sample *sample)
{
    mb_error err = {0};
    double score = -1;
    if (!sample || !sample->prompt || !sample->key || !sample->source)
        abort();
    int rc = mb_sample_score(task, sample, sample->answer_count ? sample->answers[0] : "x", &score, &err);
    if (rc == MB_OK ? !(score >= 0 && score <= 1) : rc != MB_E_SAMPLE || !err.text[0])
        abort();
}

static void read_task(mb_task *task, const char *name)
{
    mb_sample *sample = NULL;
    mb_error err = {0};
    int64_t rows = 0, promised = mb_task_size(task);
    for (int rc; (rc = mb_task_next(task, &sample, &err)) != 0 && rows <= promised; rows++) {
        if (rc == 1)
            sample_check(name, sample);
        else if (rc != MB_E_SAMPLE || !err.text[0] || (sample && !sample->key))
            abort();
        mb_sample_free(sample);
        sample = NULL;
        err = (mb_error){0};
    }
    if (rows != promised)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char csv[] = "\"Who?\",a,b,c,d,B\nWhat?,e,f,g,h,C\n", examples[] = "{\"law\": \"Q: 1\"}";
    const mb_codec codec = {.encode = bytes_encode, .decode = bytes_decode};
    mb_task *task = NULL;
    mb_error err = {0};
    if (size == 0)
        return 0;
    if (!made)
        make();
    const size_t kind = data[0] % KINDS;
    put("mmlu_prompt.json", examples, sizeof examples - 1);
    put("mmlu/test/law_test.csv", csv, sizeof csv - 1);
    put(kinds[kind].file, data + 1, size - 1);
    const mb_task_request request = {
        .task = kinds[kind].task, .folder = folder, .seed = 3, .codec = &codec, .options = kinds[kind].options};
    if (mb_task_open(&task, &request, &err) == MB_OK)
        read_task(task, kinds[kind].task);
    else if (!err.text[0])
        abort();
    mb_task_close(task);
    return 0;
}
