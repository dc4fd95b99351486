/*
 * niah.c - needle-in-a-haystack tasks: their table, their options and the order of the grid.
 *
 * A stream walks lengths, then depths, then the samples of a cell, in the order of the config. Samples of one
 * (length, number) share their haystack over all depths, as in the original test: depth is then the only
 * difference along a column of the heat map.
 */
#include "datasets/niah/niah.h"

#include "datasets/metric/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMON_HELP                                                                                               \
    "lengths         token counts: a list, or {\"from\", \"to\", \"count\"}; each holds chat wrapper + prompt + " \
    "new tokens\n"                                                                                                \
    "depths          percents: a list, a count, or {\"from\", \"to\", \"count\"}\n"                               \
    "spacing         linear | sigmoid: how a count of depths is spread\n"                                         \
    "samples         samples per cell of the grid (1)\n"                                                          \
    "score           contains | keywords | digits: the rule of the score (contains)\n"                            \
    "max_new_tokens  generation limit, counted into the length\n"
#define BUILT_IN_HELP                                                                                             \
    COMMON_HELP                                                                                                   \
    "form            number | word | uuid | code: the needle's wording and value (number)\n"                      \
    "haystack        text | noise | needles | path of a folder of .txt files (text)\n"                            \
    "answer_prefix   true puts the beginning of the answer after the assistant header (false)\n"                  \
    "keys            further needles that nobody asks for\n"

static mb_task_info rows[] = {
    {.name = "niah_single",
     .benchmark = "niah",
     .category = "retrieval",
     .language = "en",
     .metric = "contains",
     .max_new_tokens = 64,
     .chat = true,
     .options = BUILT_IN_HELP},
    {.name = "niah_multikey",
     .benchmark = "niah",
     .category = "retrieval",
     .language = "en",
     .metric = "contains",
     .max_new_tokens = 64,
     .chat = true,
     .options = BUILT_IN_HELP},
    {.name = "niah_multivalue",
     .benchmark = "niah",
     .category = "retrieval",
     .language = "en",
     .metric = "contains",
     .max_new_tokens = 128,
     .chat = true,
     .options = BUILT_IN_HELP "values          values of the one key that is asked for (2)\n"},
    {.name = "niah_multiquery",
     .benchmark = "niah",
     .category = "retrieval",
     .language = "en",
     .metric = "contains",
     .max_new_tokens = 128,
     .chat = true,
     .options = BUILT_IN_HELP "queries         keys that are asked for at once (2)\n"},
    {.name = "niah_classic",
     .benchmark = "niah",
     .category = "retrieval",
     .language = "en",
     .metric = "contains",
     .max_new_tokens = 128,
     .chat = true,
     .options =
         COMMON_HELP "haystack        path of a folder of essays (.txt); default: the data folder's essays\n"
                     "prompt          messages | book: the wording around the haystack (messages)\n"},
};

static const char *const built_in_keys[] = {"lengths",        "depths",  "spacing",  "samples",       "score",
                                            "max_new_tokens", "form",    "haystack", "answer_prefix", "keys",
                                            "values",         "queries", NULL};
static const char *const classic_keys[] = {"lengths",        "depths",   "spacing", "samples", "score",
                                           "max_new_tokens", "haystack", "prompt",  NULL};

static bool is_task(const mb_task_info *row, const char *name)
{
    return strcmp(row->name, name) == 0;
}

static void template_bytes(const mb_task_info *row, mb_text *out)
{
    size_t size = 0;
    const char *text = mb_prompt_find("niah.json", &size);
    mb_text_puts(out, row->name);
    mb_text_append(out, text ? text : "", text ? size : 0);
}

static void niah_close(void *state)
{
    mb_niah *niah = state;
    mb_task_keys_close(&niah->options);
    cJSON_Delete(niah->prompts);
    mb_niah_grid_free(&niah->grid);
    mb_words_free(&niah->adjectives);
    mb_words_free(&niah->nouns);
    mb_haystack_close(niah->haystack);
    mb_text_free(&niah->essays);
    free(niah->essay_ids);
    free(niah->stop_ids);
    free(niah);
}

static int open_built_in(mb_niah *niah, mb_error *err)
{
    static const char *const forms[] = {"number", "word", "uuid", "code", NULL};
    static const int32_t lengths[] = {1024, 4096};
    static const double depths[] = {0, 25, 50, 75, 100};
    const mb_task_keys *options = &niah->options;
    int64_t many = 2;
    int rc = mb_niah_grid_read(&niah->grid, options, lengths, 2, depths, 5, err);
    niah->form = "number";
    niah->kind = "text";
    niah->asked = 1;
    niah->keys = is_task(niah->row, "niah_multikey") ? 3 : 0;
    if (rc == MB_OK)
        rc = mb_task_keys_string(options, "form", forms, &niah->form, err);
    if (rc == MB_OK)
        rc = mb_task_keys_string(options, "haystack", NULL, &niah->kind, err);
    if (rc == MB_OK)
        rc = mb_task_keys_bool(options, "answer_prefix", &niah->answer_prefix, err);
    if (rc == MB_OK)
        rc = mb_task_keys_int(options, "keys", 0, 100000, &niah->keys, err);
    bool values = is_task(niah->row, "niah_multivalue"), queries = is_task(niah->row, "niah_multiquery");
    for (size_t i = 0; i < 2 && rc == MB_OK; i++) {
        const char *key = i ? "queries" : "values";
        bool mine = i ? queries : values;
        if (!mine && cJSON_GetObjectItemCaseSensitive(options->root, key))
            rc = mb_fail(err, MB_E_INPUT, "task %s has no option \"%s\"; niah_multi%.5s has it", niah->row->name,
                         key, i ? "query" : "value");
        else if (mine)
            rc = mb_task_keys_int(options, key, 1, MB_NIAH_ASKED_MAX, &many, err);
    }
    if (values || queries)
        niah->asked = many;
    niah->one_key = values;
    if (rc == MB_OK)
        rc = mb_words_load(&niah->adjectives, "datasets/text/niah_adjectives.txt", err);
    if (rc == MB_OK)
        rc = mb_words_load(&niah->nouns, "datasets/text/niah_nouns.txt", err);
    if (rc == MB_OK && strcmp(niah->kind, "needles") != 0)
        rc = mb_haystack_open(&niah->haystack, niah->kind, niah->seed, niah->codec, err);
    return rc;
}

static int niah_open(void **state, const mb_task_info *row, const mb_task_request *request, mb_error *err)
{
    static const char *const rules[] = {"contains", "keywords", "digits", NULL};
    bool classic = is_task(row, "niah_classic");
    mb_niah *niah = calloc(1, sizeof *niah);
    *state = niah;
    if (!niah)
        return mb_no_memory(err, "task %s", row->name);
    niah->row = row;
    niah->codec = request->codec;
    niah->seed = request->seed;
    niah->overhead = request->prompt_overhead;
    niah->samples = 1;
    niah->max_new_tokens = row->max_new_tokens;
    niah->scoring = "contains";
    int rc = mb_generated_open(&niah->options, &niah->prompts, &niah->samples, row->name, request->options,
                               classic ? classic_keys : built_in_keys, "niah.json", err);
    if (rc == MB_OK)
        rc = mb_task_keys_int(&niah->options, "max_new_tokens", 1, 65536, &niah->max_new_tokens, err);
    if (rc == MB_OK)
        rc = mb_task_keys_string(&niah->options, "score", rules, &niah->scoring, err);
    if (rc == MB_OK && classic) {
        int32_t lengths[35];
        double depths[35];
        for (size_t i = 0; i < 35; i++) /* round(linspace(1000, 16000, 35)): the published grid */
            lengths[i] = (int32_t)((1000.0 * 34 + 15000.0 * (double)i) / 34 + 0.5);
        mb_niah_grid_depths(0, 100, 35, false, depths);
        rc = mb_niah_grid_read(&niah->grid, &niah->options, lengths, 35, depths, 35, err);
        if (rc == MB_OK && request->folder)
            niah->kind = request->folder; /* where the essays are looked for when no path is given */
        if (rc == MB_OK)
            rc = mb_niah_classic_open(niah, err);
    } else if (rc == MB_OK)
        rc = open_built_in(niah, err);
    return rc;
}

static int64_t niah_size(void *state)
{
    const mb_niah *niah = state;
    return (int64_t)niah->grid.length_count * (int64_t)niah->grid.depth_count * niah->samples;
}

static int niah_next(void *state, mb_sample **sample, mb_error *err)
{
    mb_niah *niah = state;
    *sample = NULL;
    if (niah->at >= niah_size(niah))
        return 0;
    if (!niah->codec)
        return mb_fail(err, MB_E_INPUT, "task %s is generated to a number of tokens: it needs a tokenizer",
                       niah->row->name);
    mb_niah_cell cell = {.number = niah->at % niah->samples};
    int64_t at = niah->at / niah->samples, depths = (int64_t)niah->grid.depth_count;
    cell.depth = niah->grid.depths[at % depths];
    cell.length = niah->grid.lengths[at / depths];
    snprintf(cell.key, sizeof cell.key, "len%d_depth%g_%lld", cell.length, cell.depth, (long long)cell.number);
    niah->at++;
    mb_sample *made = mb_generated_sample(cell.key, cell.length, (int32_t)niah->max_new_tokens, err);
    if (!made)
        return MB_E_SYSTEM;
    made->depth = cell.depth;
    made->scoring = mb_string_copy(niah->scoring);
    int rc;
    if (!made->scoring)
        rc = mb_no_memory(err, "sample %s", cell.key);
    else if (is_task(niah->row, "niah_classic"))
        rc = mb_niah_classic_build(niah, &cell, made, err);
    else
        rc = mb_niah_build(niah, &cell, made, err);
    if (rc < 0 && rc != MB_E_SAMPLE) {
        mb_sample_free(made);
        return rc;
    }
    *sample = made;
    return rc < 0 ? rc : 1;
}

static void niah_hash(void *state, char hex[MB_HASH_CAP])
{
    const mb_niah *niah = state;
    mb_text text = {0};
    char *options = niah->options.root ? cJSON_PrintUnformatted(niah->options.root) : NULL;
    mb_text_printf(&text, "%s %s seed %llu overhead %lld options %s ", mb_json_string(niah->prompts, "version"),
                   niah->row->name, (unsigned long long)niah->seed, (long long)niah->overhead,
                   options ? options : "{}");
    free(options);
    mb_hash *hash = mb_hash_new();
    if (!hash) {
        memset(hex, '0', MB_HASH_CAP - 1);
        hex[MB_HASH_CAP - 1] = '\0';
    } else {
        mb_hash_add(hash, text.data, text.length);
        if (niah->haystack)
            mb_haystack_hash(niah->haystack, hash);
        mb_hash_add(hash, niah->essay_hash, sizeof niah->essay_hash);
        mb_hash_end(hash, hex);
    }
    mb_text_free(&text);
}

static int niah_score(const mb_task_info *row, const mb_sample *sample, const char *prediction, double *score,
                      mb_error *err)
{
    const char *rule = sample->scoring ? sample->scoring : "contains";
    int rc;
    if (strcmp(rule, "keywords") == 0)
        rc = mb_keyword_score(sample, prediction, score);
    else if (strcmp(rule, "digits") == 0)
        rc = mb_digit_score(sample, prediction, score);
    else if (sample->class_count) {
        /* classic: found when every keyword occurs (a substring test agrees with an LLM judge) */
        const mb_sample keywords = {.answers = sample->classes, .answer_count = sample->class_count};
        rc = mb_contains_score(&keywords, prediction, false, score);
        if (rc == MB_OK)
            *score = *score >= 1 ? 1 : 0;
    } else
        rc = mb_contains_score(sample, prediction, false, score);
    return rc < 0 ? mb_fail(err, rc, "no memory to score a prediction of task %s", row->name) : rc;
}

const mb_task_family mb_family_niah = {
    .name = "niah",
    .rows = rows,
    .row_count = sizeof rows / sizeof *rows,
    .template_bytes = template_bytes,
    .open = niah_open,
    .next = niah_next,
    .hash = niah_hash,
    .size = niah_size,
    .close = niah_close,
    .score = niah_score,
};
