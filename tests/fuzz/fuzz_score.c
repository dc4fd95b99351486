/*
 * fuzz_score.c - any bytes as the prediction file of a folder that is scored. The first byte picks the file's
 * name, and so the layout: LongBench, LongBench-E, LongBench v2, RULER. The folder has scores, or is refused with
 * a sentence that names the file; scores are printed as a summary.
 */
#include "datasets/datasets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const files[] = {
    "pred/m/trec.jsonl",          "pred/m/qasper.jsonl",  "pred_e/m/samsum.jsonl",  "pred/m/my-model.jsonl",
    "pred/m/niah_single_1.jsonl", "pred_e/m/lcc_e.jsonl", "pred/m/qasper.txt.jsonl"};
enum { FILES = sizeof files / sizeof files[0] };

static char root[] = "/tmp/mb_fuzz_score_XXXXXX";

static void drop(void)
{
    static const char *const folders[] = {"pred/m", "pred_e/m", "pred", "pred_e", ""};
    char path[128];
    for (size_t i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", root, files[i]);
        unlink(path);
    }
    for (size_t i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/%s", root, folders[i]);
        rmdir(path);
    }
}

static void make(void)
{
    char path[128];
    if (!mkdtemp(root))
        abort();
    atexit(drop);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", root, i ? "pred_e/m" : "pred/m");
        if (mb_folder_make(path, NULL) != MB_OK)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    char path[128], folder[128];
    mb_text out = {0}, summary = {0};
    mb_error err = {0};
    if (size == 0)
        return 0;
    if (!made)
        make();
    made = true;
    const char *name = files[data[0] % FILES];
    snprintf(path, sizeof path, "%s/%s", root, name);
    snprintf(folder, sizeof folder, "%s/%.*s", root, (int)(strrchr(name, '/') - name), name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data + 1, 1, size - 1, file) != size - 1 || fclose(file) != 0)
        abort();
    if (mb_score_folder(folder, &out, &err) == MB_OK) {
        if (!out.data || mb_score_summary(out.data, &summary, &err) != MB_OK)
            if (!err.text[0])
                abort();
    } else if (!err.text[0]) {
        abort();
    }
    mb_text_free(&out);
    mb_text_free(&summary);
    unlink(path);
    return 0;
}
