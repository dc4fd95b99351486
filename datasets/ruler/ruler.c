/*
 * ruler.c - the 13 tasks of RULER (NVIDIA, 2024): table, options, fitting a sample to its length, scoring.
 *
 * Length rule of the benchmark: chat wrapper + prompt + answer prefix + new tokens <= L. The official generator
 * searches the size once per length and shrinks a sample that is too long by a coarse step; here every sample gets
 * the largest size that fits, so what is missing is less than one filler unit.
 */
#include "datasets/ruler/ruler.h"

#include "datasets/metric/metrics.h"
#include "datasets/read/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBES_MAX 64
#define SIZE_MAX_UNITS ((int64_t)1 << 40)

#define COMMON_HELP                                                                                               \
    "lengths         token counts (4096 to 131072, doubling): wrapper + prompt + new tokens\n"                    \
    "samples         samples per length (500)\n"
#define ESSAY_HELP                                                                                                \
    COMMON_HELP                                                                                                   \
    "essay           haystack: text (built in), or the path of a folder of .txt files or of "                     \
    "PaulGrahamEssays.json\n"
#define QA_HELP                                                                                                   \
    COMMON_HELP                                                                                                   \
    "file            the questions; default: looked for in the data folder\n"

#define ROW(task, kind, tokens, metric_name, help)                                                                \
    {                                                                                                             \
        .name = "ruler_" task, .benchmark = "ruler", .category = kind, .language = "en", .metric = metric_name,   \
        .max_new_tokens = tokens, .chat = true, .options = help                                                   \
    }

static mb_task_info rows[] = {
    ROW("niah_single_1", "retrieval", 128, "string_match_all", COMMON_HELP),
    ROW("niah_single_2", "retrieval", 128, "string_match_all", ESSAY_HELP),
    ROW("niah_single_3", "retrieval", 128, "string_match_all", ESSAY_HELP),
    ROW("niah_multikey_1", "retrieval", 128, "string_match_all", ESSAY_HELP),
    ROW("niah_multikey_2", "retrieval", 128, "string_match_all", COMMON_HELP),
    ROW("niah_multikey_3", "retrieval", 128, "string_match_all", COMMON_HELP),
    ROW("niah_multivalue", "retrieval", 128, "string_match_all", ESSAY_HELP),
    ROW("niah_multiquery", "retrieval", 128, "string_match_all", ESSAY_HELP),
    ROW("vt", "multi-hop tracing", 30, "string_match_all", COMMON_HELP),
    ROW("cwe", "aggregation", 120, "string_match_all", COMMON_HELP),
    ROW("fwe", "aggregation", 50, "string_match_all", COMMON_HELP),
    ROW("qa_1", "question answering", 32, "string_match_part", QA_HELP),
    ROW("qa_2", "question answering", 32, "string_match_part", QA_HELP),
};

#define NIAH(kind, uuid_key, uuid_value, k, v, q)                                                                 \
    {                                                                                                             \
        .open = mb_ruler_niah_open, .begin = mb_ruler_niah_begin, .haystack = kind, .uuid_keys = uuid_key,        \
        .uuid_values = uuid_value, .keys = k, .values = v, .queries = q                                           \
    }

/* In the order of rows. */
static const mb_ruler_task tasks[] = {
    NIAH("noise", false, false, 1, 1, 1),
    NIAH("essay", false, false, 1, 1, 1),
    NIAH("essay", false, true, 1, 1, 1),
    NIAH("essay", false, false, 4, 1, 1),
    NIAH("needle", false, false, 1, 1, 1),
    NIAH("needle", true, true, 1, 1, 1),
    NIAH("essay", false, false, 1, 4, 1),
    NIAH("essay", false, false, 1, 1, 4),
    {.begin = mb_ruler_vt_begin},
    {.open = mb_ruler_cwe_open, .begin = mb_ruler_cwe_begin},
    {.begin = mb_ruler_fwe_begin},
    {.open = mb_ruler_qa_open, .begin = mb_ruler_qa_begin, .any = true},
    {.open = mb_ruler_qa_open, .begin = mb_ruler_qa_begin, .any = true, .hotpot = true},
};

static void template_bytes(const mb_task_info *row, mb_text *out)
{
    size_t size = 0;
    const char *text = mb_prompt_find("ruler.json", &size);
    mb_text_puts(out, row->name);
    mb_text_append(out, text ? text : "", text ? size : 0);
}

static void ruler_close(void *state)
{
    mb_ruler *ruler = state;
    mb_ruler_qa_close(ruler);
    mb_task_keys_close(&ruler->options);
    cJSON_Delete(ruler->prompts);
    mb_niah_grid_free(&ruler->grid);
    mb_words_free(&ruler->adjectives);
    mb_words_free(&ruler->nouns);
    mb_words_free(&ruler->verbs);
    mb_text_free(&ruler->essay);
    free(ruler->pool);
    free(ruler);
}

static int ruler_open(void **state, const mb_task_info *row, const mb_task_request *request, mb_error *err)
{
    static const char *const plain[] = {"lengths", "samples", NULL};
    static const char *const essay[] = {"lengths", "samples", "essay", NULL};
    static const char *const qa[] = {"lengths", "samples", "file", NULL};
    static const int32_t lengths[] = {4096, 8192, 16384, 32768, 65536, 131072};
    mb_ruler *ruler = calloc(1, sizeof *ruler);
    *state = ruler;
    if (!ruler)
        return mb_ruler_memory(err);
    ruler->row = row;
    ruler->task = &tasks[row - rows];
    ruler->codec = request->codec;
    ruler->seed = request->seed;
    ruler->overhead = request->prompt_overhead;
    ruler->samples = 500;
    const mb_ruler_task *task = ruler->task;
    bool has_essay = task->haystack && strcmp(task->haystack, "essay") == 0;
    int rc = mb_generated_open(&ruler->options, &ruler->prompts, &ruler->samples, row->name, request->options,
                               has_essay   ? essay
                               : task->any ? qa
                                           : plain,
                               "ruler.json", err);
    if (rc == MB_OK)
        rc = mb_niah_grid_read(&ruler->grid, &ruler->options, lengths, 6, NULL, 0, err);
    if (rc == MB_OK && task->open)
        rc = task->open(ruler, request, err);
    if (rc == MB_OK && task->any && (int64_t)mb_ruler_qa_count(ruler) < ruler->samples)
        ruler->samples = (int64_t)mb_ruler_qa_count(ruler);
    return rc;
}

static int64_t ruler_size(void *state)
{
    const mb_ruler *ruler = state;
    return (int64_t)ruler->grid.length_count * ruler->samples;
}

/* Prompt of size n into text; its tokens, wrapper and prefix included, or a negative code. */
static int64_t probe(mb_ruler_draft *draft, int64_t n, mb_text *text, mb_error *err)
{
    const mb_ruler *ruler = draft->ruler;
    const char *prefix = draft->sample->answer_prefix;
    mb_text_clear(text);
    int rc = draft->write(draft, n, text, err);
    if (rc < 0)
        return rc;
    if (text->failed)
        return mb_ruler_memory(err);
    return mb_codec_measure(ruler->codec, ruler->overhead, text->data, text->length, prefix, err);
}

/* The search for the largest size that fits: lo fits, hi does not. guess: a size to try first; 0 = none. */
typedef struct search {
    int64_t least, limit; /* smallest size; tokens */
    int64_t lo, lo_tokens, hi, hi_tokens, guess;
} search;

/* The next size to try is where a straight line between lo and hi meets the limit, so that few prompts have to be
 * encoded; halving when the line makes no headway. */
static int64_t search_next(search *s, size_t probes)
{
    int64_t n;
    if (s->guess > s->lo && s->guess < s->hi)
        n = s->guess;
    else if (s->hi == SIZE_MAX_UNITS && s->lo == s->least)
        n = s->lo + 8; /* a first slope */
    else if (s->hi == SIZE_MAX_UNITS)
        n = s->lo + 1 + (s->lo - s->least) * (s->limit - s->lo_tokens) / (s->lo_tokens + 1);
    else
        n = s->lo + (s->hi - s->lo) * (s->limit - s->lo_tokens) / (s->hi_tokens - s->lo_tokens);
    s->guess = 0;
    if (probes > 12 && s->hi < SIZE_MAX_UNITS)
        n = s->lo + (s->hi - s->lo) / 2;
    return n <= s->lo ? s->lo + 1 : n >= s->hi ? s->hi - 1 : n;
}

/* A prompt of size n has so many tokens. */
static void search_learn(search *s, int64_t n, int64_t tokens)
{
    if (tokens > s->limit) {
        s->hi = n;
        s->hi_tokens = tokens;
        if (n - s->lo <= 3)
            s->guess = n - 1;
        return;
    }
    if (s->hi == SIZE_MAX_UNITS && tokens > s->lo_tokens)
        s->guess = n + 1 + (n - s->lo) * (s->limit - tokens) / (tokens - s->lo_tokens);
    else if (s->hi - n <= 3)
        s->guess = n + 1;
    s->lo = n;
    s->lo_tokens = tokens;
}

/* The sample's prompt: the largest size of at most `limit` tokens. */
static int fit(mb_ruler_draft *draft, int64_t limit, mb_error *err)
{
    mb_ruler *ruler = draft->ruler;
    mb_sample *sample = draft->sample;
    mb_text best = {0}, text = {0};
    search s = {.least = draft->least, .limit = limit, .lo = draft->least, .hi = SIZE_MAX_UNITS};
    s.lo_tokens = probe(draft, s.lo, &best, err);
    int rc = s.lo_tokens < 0 ? (int)s.lo_tokens : MB_OK;
    if (rc == MB_OK && s.lo_tokens > limit)
        rc = mb_fail(
            err, MB_E_SAMPLE,
            "sample %s: the smallest prompt has %lld tokens with wrapper and prefix, %lld are left beside %d "
            "new tokens; ask for a longer context",
            sample->key, (long long)s.lo_tokens, (long long)limit, sample->max_new_tokens);
    s.guess = ruler->last_length == draft->length ? ruler->last_size : 0;
    for (size_t i = 0; i < PROBES_MAX && rc == MB_OK && s.hi - s.lo > 1 && s.lo_tokens < limit; i++) {
        int64_t n = search_next(&s, i), tokens = probe(draft, n, &text, err);
        if (tokens < 0) {
            rc = (int)tokens;
            break;
        }
        if (tokens <= limit) {
            mb_text keep = best;
            best = text;
            text = keep;
        }
        search_learn(&s, n, tokens);
    }
    if (rc == MB_OK) {
        ruler->last_length = draft->length;
        ruler->last_size = s.lo;
        sample->length = s.lo_tokens;
        sample->prompt = mb_text_take(&best);
        if (!sample->prompt)
            rc = mb_ruler_memory(err);
    }
    mb_text_free(&best);
    mb_text_free(&text);
    return rc;
}

static int ruler_next(void *state, mb_sample **sample, mb_error *err)
{
    mb_ruler *ruler = state;
    *sample = NULL;
    if (ruler->at >= ruler_size(ruler))
        return 0;
    if (!ruler->codec)
        return mb_fail(err, MB_E_INPUT, "task %s is generated to a number of tokens: it needs a tokenizer",
                       ruler->row->name);
    mb_ruler_draft draft = {.ruler = ruler, .number = ruler->at % ruler->samples};
    draft.length = ruler->grid.lengths[ruler->at / ruler->samples];
    ruler->at++;
    char key[64];
    snprintf(key, sizeof key, "len%d_%lld", draft.length, (long long)draft.number);
    mb_sample *made = mb_generated_sample(key, draft.length, ruler->row->max_new_tokens, err);
    draft.sample = made;
    int rc = made ? MB_OK : MB_E_SYSTEM;
    if (rc == MB_OK) {
        /* The stream does not depend on the length: sample 7 asks for the same key at every length. */
        char *stream = mb_string_format("%s/%lld", ruler->row->name, (long long)draft.number);
        draft.random = mb_random_named(ruler->seed, stream ? stream : "");
        rc = stream ? ruler->task->begin(&draft, err) : mb_ruler_memory(err);
        free(stream);
    }
    if (rc == MB_OK)
        rc = fit(&draft, (int64_t)draft.length - ruler->row->max_new_tokens, err);
    if (draft.close)
        draft.close(&draft);
    if (rc < 0 && rc != MB_E_SAMPLE) {
        mb_sample_free(made);
        return rc;
    }
    *sample = made;
    return rc < 0 ? rc : 1;
}

static void ruler_hash(void *state, char hex[MB_HASH_CAP])
{
    const mb_ruler *ruler = state;
    mb_text text = {0};
    char *options = ruler->options.root ? cJSON_PrintUnformatted(ruler->options.root) : NULL;
    mb_text_printf(&text, "%s %s seed %llu overhead %lld options %s data %s",
                   mb_json_string(ruler->prompts, "version"), ruler->row->name, (unsigned long long)ruler->seed,
                   (long long)ruler->overhead, options ? options : "{}", ruler->data_hash);
    free(options);
    mb_hash_bytes(text.data, text.length, hex);
    mb_text_free(&text);
}

/* str.strip(): moves *from and *count inside the blanks. */
static void strip(const mb_runes *runes, size_t *from, size_t *count)
{
    while (*count && mb_rune_is_space(runes->at[*from])) {
        ++*from;
        --*count;
    }
    while (*count && mb_rune_is_space(runes->at[*from + *count - 1]))
        --*count;
}

/* eval/evaluate.py: strip, control characters become newlines, strip again. NULL: out of memory. */
static char *clean(const char *prediction)
{
    mb_runes runes = {0};
    mb_text out = {0};
    size_t from = 0;
    mb_runes_decode(&runes, prediction, strlen(prediction));
    size_t count = runes.count;
    strip(&runes, &from, &count);
    for (size_t i = from; i < from + count; i++)
        if (runes.at[i] < 0x20)
            runes.at[i] = '\n';
    strip(&runes, &from, &count);
    mb_text_append(&out, "", 0);
    if (count)
        mb_runes_encode(runes.at + from, count, &out);
    bool failed = runes.failed;
    mb_runes_free(&runes);
    if (failed)
        mb_text_free(&out);
    return failed ? NULL : mb_text_take(&out);
}

static int ruler_score(const mb_task_info *row, const mb_sample *sample, const char *prediction, double *score,
                       mb_error *err)
{
    char *text = clean(prediction);
    int rc = text ? mb_contains_score(sample, text, tasks[row - rows].any, score) : MB_E_SYSTEM;
    free(text);
    return rc < 0 ? mb_fail(err, rc, "no memory to score a prediction of task %s", row->name) : rc;
}

const mb_task_family mb_family_ruler = {
    .name = "ruler",
    .rows = rows,
    .row_count = sizeof rows / sizeof *rows,
    .template_bytes = template_bytes,
    .open = ruler_open,
    .next = ruler_next,
    .hash = ruler_hash,
    .size = ruler_size,
    .close = ruler_close,
    .score = ruler_score,
};
