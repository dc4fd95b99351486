/*
 * v2.c - LongBench v2: 503 multiple-choice questions, one data.json (an array) or a JSONL file of the
 * same objects. Official zero-shot prompt, one user message, 128 new tokens; the answer is read out of the
 * response with the official patterns. The group of a sample is "difficulty/length", from which the official
 * splits (easy, hard, short, medium, long) are taken.
 *
 * Official runs sample at temperature 0.1; this harness decodes greedily, as it does everywhere.
 */
#include "datasets/generate/generate.h"
#include "datasets/read/unicode.h"

#include <stdlib.h>
#include <string.h>

static mb_task_info rows[] = {
    {.name = "longbench_v2",
     .benchmark = "longbench_v2",
     .category = "multiple choice",
     .language = "en",
     .metric = "choice",
     .max_new_tokens = 128,
     .chat = true},
};

static const char template_name[] = "longbench_v2_0shot.txt";

/* Placeholder and field, in the official order of replacement: a document that contains "$Q$" is hit by the
 * later replacements there, and so it is here. */
static const struct {
    const char *place, *field;
} places[] = {{"$DOC$", "context"},  {"$Q$", "question"},   {"$C_A$", "choice_A"},
              {"$C_B$", "choice_B"}, {"$C_C$", "choice_C"}, {"$C_D$", "choice_D"}};
#define PLACE_COUNT (sizeof places / sizeof places[0])

static void template_bytes(const mb_task_info *row, mb_text *out)
{
    size_t size = 0;
    const char *text = mb_prompt_find(template_name, &size);
    (void)row;
    if (text)
        mb_text_append(out, text, size);
}

static int v2_open(void **state, const mb_task_info *row, const mb_task_request *request, mb_error *err)
{
    static const char *const names[] = {"longbench_v2/data.json",
                                        "longbench_v2/data.jsonl",
                                        "longbench_v2.jsonl",
                                        "longbench_v2.json",
                                        "data.json",
                                        NULL};
    static const char *const options[] = {NULL};
    mb_task_keys given;
    int rc = mb_task_keys_open(&given, row->name, request->options, options, err);
    mb_task_keys_close(&given);
    if (rc != MB_OK)
        return rc;
    mb_task_rows *v2 = calloc(1, sizeof *v2);
    if (!v2)
        return mb_no_memory(err, "opening task %s", row->name);
    *state = v2;
    return mb_task_rows_open(v2, row, request->folder, names, "longbench_v2", err);
}

static void v2_close(void *state)
{
    mb_task_rows_close(state);
    free(state);
}

/* The code point of n bytes of valid UTF-8 (the reader let nothing else through). */
static bool is_space_at(const char *at, size_t n)
{
    uint32_t c = (unsigned char)at[0];
    c = n == 1 ? c : n == 2 ? c & 0x1F : n == 3 ? c & 0x0F : c & 0x07;
    for (size_t i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)at[i] & 0x3F);
    return mb_rune_is_space(c);
}

/* The part of a text that Python's strip() leaves. */
static const char *stripped(const char *text, size_t *length)
{
    const char *from = text, *end = text + strlen(text);
    while (from < end) {
        unsigned char c = (unsigned char)*from;
        size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        if (!is_space_at(from, n))
            break;
        from += n;
    }
    while (end > from) {
        const char *last = end - 1;
        while (last > from && ((unsigned char)*last & 0xC0) == 0x80)
            last--;
        if (!is_space_at(last, (size_t)(end - last)))
            break;
        end = last;
    }
    *length = (size_t)(end - from);
    return from;
}

/* out = in with every place replaced by n bytes of value (str.replace: not expanded again). */
static void place_replace(const mb_text *in, const char *place, const char *value, size_t n, mb_text *out)
{
    const char *from = in->data ? in->data : "", *end = from + in->length;
    for (const char *hit; (hit = strstr(from, place)); from = hit + strlen(place)) {
        mb_text_append(out, from, (size_t)(hit - from));
        mb_text_append(out, value, n);
    }
    mb_text_append(out, from, (size_t)(end - from));
}

static int prompt_fill(const mb_task_rows *v2, const cJSON *row, mb_sample *sample, mb_error *err)
{
    mb_text now = {0}, next = {0};
    int rc = MB_OK;
    template_bytes(v2->info, &now);
    for (size_t i = 0; i < PLACE_COUNT && rc == MB_OK; i++) {
        size_t n = 0;
        const char *value = mb_task_rows_text(v2, row, places[i].field, err);
        if (!value) {
            rc = MB_E_SAMPLE;
            break;
        }
        value = stripped(value, &n);
        place_replace(&now, places[i].place, value, n, &next);
        if (next.failed)
            rc = mb_no_memory(err, "the row of %s", sample->source);
        mb_text_free(&now);
        now = next;
        next = (mb_text){0};
    }
    if (rc == MB_OK && !(sample->prompt = mb_text_take(&now)))
        rc = mb_no_memory(err, "the row of %s", sample->source);
    mb_text_free(&now);
    mb_text_free(&next);
    return rc;
}

static int sample_fill(const mb_task_rows *v2, const cJSON *row, mb_sample *sample, mb_error *err)
{
    if (!mb_task_rows_text(v2, row, "_id", err))
        return MB_E_SAMPLE;
    const char *answer = mb_task_rows_text(v2, row, "answer", err);
    const char *difficulty = answer ? mb_task_rows_text(v2, row, "difficulty", err) : NULL;
    const char *length = difficulty ? mb_task_rows_text(v2, row, "length", err) : NULL;
    if (!length)
        return MB_E_SAMPLE;
    if (strlen(answer) != 1 || !strchr("ABCD", answer[0]))
        return mb_fail(err, MB_E_SAMPLE, "%s: field \"answer\" is none of A, B, C, D", sample->source);
    int rc = prompt_fill(v2, row, sample, err);
    if (rc != MB_OK)
        return rc;
    sample->group = mb_string_format("%s/%s", difficulty, length);
    sample->language = mb_string_copy(v2->info->language);
    sample->length =
        (int64_t)strlen(sample->prompt); /* the file has classes only; bytes of the prompt order rows */
    sample->max_new_tokens = v2->info->max_new_tokens;
    sample->chat = v2->info->chat;
    sample->truncate_middle = true;
    sample->cut_joined = true;
    if (!sample->group || !sample->language || !mb_sample_add_answer(sample, answer, 1))
        return mb_no_memory(err, "the row of %s", sample->source);
    return MB_OK;
}

static int v2_next(void *state, mb_sample **sample, mb_error *err)
{
    mb_task_rows *v2 = state;
    cJSON *row = NULL;
    int rc = mb_task_rows_next(v2, &row, sample, err);
    if (rc == 1) {
        int filled = sample_fill(v2, row, *sample, err);
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

/* The letter after the first cue that has one; bracketed: "(X)". */
static char letter_after(const char *text, const char *cue, bool bracketed)
{
    for (const char *p = text; (p = strstr(p, cue)); p++) {
        const char *letter = p + strlen(cue);
        if (*letter >= 'A' && *letter <= 'D' && (!bracketed || letter[1] == ')'))
            return *letter;
    }
    return 0;
}

char mb_longbench_v2_answer(const char *response)
{
    char *text = mb_string_copy(response), *to = text;
    if (!text)
        return 0;
    for (const char *p = text; *p; p++) { /* bold marks would split the sentence */
        if (*p != '*')
            *to++ = *p;
    }
    *to = '\0';
    char answer = letter_after(text, "The correct answer is (", true);
    if (!answer)
        answer = letter_after(text, "The correct answer is ", false);
    free(text);
    return answer;
}

static int v2_score(const mb_task_info *row, const mb_sample *sample, const char *prediction, double *score,
                    mb_error *err)
{
    (void)row;
    *score = 0;
    if (sample->answer_count != 1)
        return mb_fail(err, MB_E_SAMPLE, "a question of LongBench v2 has one answer, not %zu",
                       sample->answer_count);
    char answer = mb_longbench_v2_answer(prediction);
    *score = answer && sample->answers[0][0] == answer && sample->answers[0][1] == '\0';
    return MB_OK;
}

const mb_task_family mb_family_longbench_v2 = {
    .name = "longbench_v2",
    .rows = rows,
    .row_count = sizeof rows / sizeof rows[0],
    .template_bytes = template_bytes,
    .open = v2_open,
    .next = v2_next,
    .hash = mb_task_rows_hash,
    .size = mb_task_rows_size,
    .close = v2_close,
    .score = v2_score,
};
