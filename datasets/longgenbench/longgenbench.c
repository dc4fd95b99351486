/*
 * longgenbench.c - the two benchmarks that are called LongGenBench.
 *
 * longgenbench_gsm8k and longgenbench_mmlu put many questions into one prompt (batch.c).
 * longgenbench_short and longgenbench_long ask for a long plan: weeks of a diary, floors, menus, city blocks, each
 * entry opened by "#*#". Their completion rate, the share of entries 1..number that are there, is computed
 * exactly; the three accuracies need a language model as a judge and are not computed.
 *
 * Official runs of the plans sample at temperature 0.95 and stop at "*** finished"; here decoding is the run's own
 * and text after that mark is ignored.
 */
#include "datasets/longgenbench/longgenbench.h"

#include "datasets/read/unicode.h"

#include <stdlib.h>
#include <string.h>

#define ROW(task, what, how, tokens, wrap, help)                                                                  \
    {                                                                                                             \
        .name = task, .benchmark = "longgenbench", .category = what, .language = "en", .metric = how,             \
        .max_new_tokens = tokens, .chat = wrap, .options = help                                                   \
    }

static mb_task_info rows[] = {
    ROW("longgenbench_gsm8k", "batched questions", "batch_numbers", 4096, true,
        "batch: questions in one prompt (35); questions: how many of the file are used (700)"),
    ROW("longgenbench_mmlu", "batched questions", "batch_letters", 4096, true,
        "batch: questions of a subject in its prompt (20)"),
    ROW("longgenbench_short", "long plans", "completion_rate", 16000, false, NULL),
    ROW("longgenbench_long", "long plans", "completion_rate", 32000, false, NULL),
};

typedef struct longgen {
    bool plans;
    mb_task_rows plan;  /* of the planning tasks */
    mb_batches batches; /* of the others */
} longgen;

static void template_bytes(const mb_task_info *row, mb_text *out)
{
    const char *name = strcmp(row->metric, "batch_numbers") == 0   ? "longgenbench_gsm8k_system.txt"
                       : strcmp(row->metric, "batch_letters") == 0 ? "longgenbench_mmlu_system.txt"
                                                                   : NULL;
    size_t size = 0;
    const char *text = name ? mb_prompt_find(name, &size) : NULL;
    if (text)
        mb_text_append(out, text, size);
}

static int longgen_open(void **state, const mb_task_info *row, const mb_task_request *request, mb_error *err)
{
    static const char *const none[] = {NULL};
    static const char *const files[2][5] = {
        {"longgenbench/Dataset_short.json", "longgenbench/Dataset/Dataset_short.json", "Dataset_short.json",
         "Dataset/Dataset_short.json", NULL},
        {"longgenbench/Dataset_long.json", "longgenbench/Dataset/Dataset_long.json", "Dataset_long.json",
         "Dataset/Dataset_long.json", NULL}};
    mb_task_keys given;
    longgen *lg = calloc(1, sizeof *lg);
    if (!lg)
        return mb_no_memory(err, "opening task %s", row->name);
    *state = lg;
    lg->plans = strcmp(row->metric, "completion_rate") == 0;
    if (!lg->plans)
        return mb_batches_open(&lg->batches, row, request, err);
    int rc = mb_task_keys_open(&given, row->name, request->options, none, err);
    mb_task_keys_close(&given);
    if (rc != MB_OK)
        return rc;
    return mb_task_rows_open(&lg->plan, row, request->folder, files[strcmp(row->name, "longgenbench_long") == 0],
                             "longgenbench", err);
}

static void longgen_close(void *state)
{
    longgen *lg = state;
    mb_task_rows_close(&lg->plan);
    mb_batches_close(&lg->batches);
    free(lg);
}

/* "number" is a text with a Python integer ("52") or a number. */
static int64_t number_of(const cJSON *row)
{
    const cJSON *item = mb_json_member(row, "number");
    char *end = NULL;
    int64_t number = 0;
    if (cJSON_IsNumber(item))
        return mb_json_integer(item, 1, 100000, &number) ? number : 0;
    long long n = cJSON_IsString(item) ? strtoll(item->valuestring, &end, 10) : 0;
    return end && end != item->valuestring && *end == '\0' && n >= 1 && n <= 100000 ? n : 0;
}

/* The group is the kind of entry ("Week"), the length their number, the one reference the prefix. */
static int plan_fill(const mb_task_rows *plan, const cJSON *row, mb_sample *sample, mb_error *err)
{
    const char *prompt = mb_task_rows_text(plan, row, "prompt", err);
    const char *type = prompt ? mb_task_rows_text(plan, row, "type", err) : NULL;
    const char *prefix = type ? mb_task_rows_text(plan, row, "prefix", err) : NULL;
    if (!prefix)
        return MB_E_SAMPLE;
    sample->length = number_of(row);
    if (!sample->length)
        return mb_fail(err, MB_E_SAMPLE, "%s: field \"number\" is no whole number from 1", sample->source);
    sample->prompt = mb_string_copy(prompt);
    sample->group = mb_string_copy(type);
    sample->language = mb_string_copy("en");
    sample->max_new_tokens = plan->info->max_new_tokens;
    sample->chat = plan->info->chat;
    if (!sample->prompt || !sample->group || !sample->language ||
        !mb_sample_add_answer(sample, prefix, strlen(prefix)))
        return mb_no_memory(err, "the row of %s", sample->source);
    return MB_OK;
}

static int longgen_next(void *state, mb_sample **sample, mb_error *err)
{
    longgen *lg = state;
    cJSON *row = NULL;
    if (!lg->plans)
        return mb_batches_next(&lg->batches, sample, err);
    int rc = mb_task_rows_next(&lg->plan, &row, sample, err);
    if (rc == 1) {
        int filled = plan_fill(&lg->plan, row, *sample, err);
        if (filled != MB_OK)
            rc = filled;
    }
    if (rc < 0 && rc != MB_E_SAMPLE) {
        mb_sample_free(*sample);
        *sample = NULL;
    }
    cJSON_Delete(row);
    return rc;
}

static void longgen_hash(void *state, char hex[MB_HASH_CAP])
{
    longgen *lg = state;
    if (lg->plans)
        mb_task_rows_hash(&lg->plan, hex);
    else
        mb_batches_hash(&lg->batches, hex);
}

static int64_t longgen_size(void *state)
{
    longgen *lg = state;
    return lg->plans ? mb_task_rows_size(&lg->plan) : mb_batches_size(&lg->batches);
}

/* The number after the first "<type> " that is followed by a digit; -1 = none. */
static int64_t entry_number(const char *block, size_t length, const char *type)
{
    size_t n = strlen(type);
    for (size_t i = 0; i + n + 1 < length; i++) {
        if (memcmp(block + i, type, n) != 0 || block[i + n] != ' ')
            continue;
        int64_t number = -1;
        for (size_t j = i + n + 1; j < length && block[j] >= '0' && block[j] <= '9'; j++)
            number = number > 1000000 ? number : (number < 0 ? 0 : number) * 10 + (block[j] - '0');
        if (number >= 0)
            return number;
    }
    return -1;
}

/* Entries are what lies between "#*#" marks of prefix + prediction; several may carry one number. */
static int completion_rate(const mb_sample *sample, const char *prediction, double *score)
{
    size_t mark = strlen("#*#"), number = (size_t)sample->length, found = 0;
    bool *seen = calloc(number + 1, sizeof *seen);
    char *text = mb_string_format("%s%s", sample->answer_count ? sample->answers[0] : "", prediction);
    int rc = MB_E_SYSTEM;
    if (!seen || !text)
        goto out;
    char *finished = strstr(text, "*** finished");
    if (finished)
        *finished = '\0';
    for (const char *block = text; block;) {
        const char *next = strstr(block, "#*#");
        size_t length = next ? (size_t)(next - block) : strlen(block);
        int64_t entry = entry_number(block, length, sample->group);
        if (entry >= 1 && entry <= sample->length && !seen[entry]) {
            seen[entry] = true;
            found++;
        }
        block = next ? next + mark : NULL;
    }
    *score = (double)found / (double)number;
    rc = MB_OK;
out:
    free(seen);
    free(text);
    return rc;
}

static int longgen_score(const mb_task_info *row, const mb_sample *sample, const char *prediction, double *score,
                         mb_error *err)
{
    int rc;
    *score = 0;
    if (strcmp(row->metric, "completion_rate") != 0)
        rc = mb_batches_score(strcmp(row->metric, "batch_letters") == 0, sample, prediction, score);
    else if (!sample->group || sample->length < 1)
        return mb_fail(err, MB_E_SAMPLE, "a plan needs its kind of entry and their number");
    else
        rc = completion_rate(sample, prediction, score);
    return rc == MB_OK ? rc : mb_fail(err, rc, "no memory to score a prediction");
}

const mb_task_family mb_family_longgenbench = {
    .name = "longgenbench",
    .rows = rows,
    .row_count = sizeof rows / sizeof rows[0],
    .template_bytes = template_bytes,
    .open = longgen_open,
    .next = longgen_next,
    .hash = longgen_hash,
    .size = longgen_size,
    .close = longgen_close,
    .score = longgen_score,
};
