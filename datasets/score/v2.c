/*
 * v2.c - LongBench v2's result table from result files: per model the accuracy over all rows, by difficulty
 * and by length class, as the official result.py prints it. A bucket without rows is "-" (there it is a crash).
 */
#include "datasets/score/score.h"

#include <stdlib.h>
#include <string.h>

enum { OVERALL, EASY, HARD, SHORT, MEDIUM, LONG, COLUMNS };

typedef struct tally {
    int64_t rows[COLUMNS], right[COLUMNS];
} tally;

bool mb_score_v2_applies(const char *folder, char *const *files, size_t count)
{
    mb_jsonl *reader = NULL;
    cJSON *row = NULL;
    char *path = count ? mb_string_format("%s/%s", folder, files[0]) : NULL;
    bool applies = path && mb_jsonl_open(&reader, path, NULL) == MB_OK && mb_jsonl_next(reader, &row, NULL) == 1 &&
                   mb_json_member(row, "judge") && mb_json_string(row, "difficulty");
    cJSON_Delete(row);
    mb_jsonl_close(reader);
    free(path);
    return applies;
}

static int row_count(const cJSON *row, const char *path, int64_t line, tally *t, mb_error *err)
{
    const cJSON *judge = mb_json_member(row, "judge");
    const char *difficulty = mb_json_string(row, "difficulty"), *length = mb_json_string(row, "length");
    if (!cJSON_IsBool(judge) || !difficulty || !length)
        return mb_fail(
            err, MB_E_INPUT,
            "%s:%lld: a result of LongBench v2 has \"judge\" (true or false), \"difficulty\" and \"length\"", path,
            (long long)line);
    bool right = cJSON_IsTrue(judge);
    int columns[3] = {OVERALL, strcmp(difficulty, "easy") == 0 ? EASY : HARD,
                      strcmp(length, "short") == 0    ? SHORT
                      : strcmp(length, "medium") == 0 ? MEDIUM
                                                      : LONG};
    for (int i = 0; i < 3; i++) {
        t->rows[columns[i]]++;
        t->right[columns[i]] += right;
    }
    return MB_OK;
}

static int file_tally(const char *path, tally *t, mb_error *err)
{
    mb_jsonl *reader = NULL;
    cJSON *row = NULL;
    int rc = mb_jsonl_open(&reader, path, err);
    if (rc != MB_OK)
        return rc;
    while ((rc = mb_jsonl_next(reader, &row, err)) == 1) {
        rc = row_count(row, path, mb_jsonl_line(reader), t, err);
        cJSON_Delete(row);
        if (rc != MB_OK)
            break;
    }
    mb_jsonl_close(reader);
    return rc == MB_E_SAMPLE ? MB_E_INPUT : rc;
}

int mb_score_v2(const char *folder, char *const *files, size_t count, mb_text *out, mb_error *err)
{
    mb_text_puts(out, "Model\tOverall\tEasy\tHard\tShort\tMedium\tLong");
    for (size_t i = 0; i < count; i++) {
        tally t = {{0}, {0}};
        char *path = mb_string_format("%s/%s", folder, files[i]);
        if (!path)
            return mb_no_memory(err, "scoring %s", folder);
        int rc = file_tally(path, &t, err);
        free(path);
        if (rc != MB_OK)
            return rc;
        mb_text_printf(out, "\n%.*s", (int)(strlen(files[i]) - strlen(".jsonl")), files[i]);
        for (int c = 0; c < COLUMNS; c++) {
            if (t.rows[c])
                mb_text_printf(out, "\t%.1f", 100 * (double)t.right[c] / (double)t.rows[c]);
            else
                mb_text_puts(out, "\t-");
        }
    }
    if (out->failed)
        return mb_no_memory(err, "the result of %s", folder);
    return mb_fail(err, MB_OK, "%s", "");
}
