/*
 * mmlu.c - LongGenBench's MMLU task: one prompt a subject with its first K test questions, read from
 * MMLU's own CSV files, after five solved examples from the benchmark's JSON file.
 *
 * Deviations, because they depend on tools and on many calls: the official script reads the CSV with pandas, which
 * turns some cells ("None", columns of numbers) into other texts, while cells are taken as they stand here; and it
 * asks again for questions that were left unanswered, while here they count as wrong.
 */
#include "datasets/longgenbench/longgenbench.h"

#include <stdlib.h>
#include <string.h>

#define CELLS 6      /* question, four choices, answer */
#define FIRST_MMLU 6 /* the examples are questions 1 to 5 */

/* One CSV record from *p: RFC 4180 quoting. False: the end, or a record without six cells. */
static bool record_read(const char **p, mb_text cells[CELLS])
{
    size_t cell = 0;
    bool quoted = false;
    const char *s = *p;
    for (size_t i = 0; i < CELLS; i++) {
        mb_text_clear(&cells[i]);
        mb_text_append(&cells[i], "", 0);
    }
    if (!*s)
        return false;
    for (; *s; s++) {
        if (quoted) {
            if (*s == '"' && s[1] == '"')
                s++;
            else if (*s == '"') {
                quoted = false;
                continue;
            }
        } else if (*s == '"') {
            quoted = true;
            continue;
        } else if (*s == ',') {
            cell++;
            continue;
        } else if (*s == '\n' || *s == '\r') {
            break;
        }
        if (cell < CELLS)
            mb_text_append(&cells[cell], s, 1);
    }
    while (*s == '\n' || *s == '\r')
        s++;
    *p = s;
    return cell == CELLS - 1;
}

/* "...\n\nQ: a\nA: b\n\nQ: c\nA: d" -> Question_1:\na\n\n ... Answer_1:\nb\n\n ... */
static void examples_write(const char *text, mb_text *out)
{
    mb_text solved = {0};
    static const char question_mark[] = "\n\nQ: ", answer_mark[] = "\nA: ";
    long long i = 1;
    for (const char *hit = strstr(text, question_mark); hit; i++) {
        const char *from = hit + sizeof question_mark - 1, *next = strstr(from, question_mark);
        const char *end = next ? next : from + strlen(from), *middle = strstr(from, answer_mark);
        if (!middle || middle >= end)
            middle = end;
        const char *answer = middle < end ? middle + sizeof answer_mark - 1 : end;
        const char *stop = strstr(answer, answer_mark); /* split("\nA: ")[1] ends at a second mark */
        if (!stop || stop > end)
            stop = end;
        mb_text_printf(out, "Question_%lld:\n%.*s\n\n", i, (int)(middle - from), from);
        mb_text_printf(&solved, "Answer_%lld:\n%.*s\n\n", i, (int)(stop - answer), answer);
        hit = next;
    }
    mb_text_append(out, solved.data ? solved.data : "", solved.length);
    out->failed = out->failed || solved.failed;
    mb_text_free(&solved);
}

static void system_write(const char *subject, mb_text *out)
{
    size_t size = 0;
    const char *text = mb_prompt_find("longgenbench_mmlu_system.txt", &size);
    char *words = mb_string_format(" %s", subject); /* a blank before every word */
    for (char *p = words; p && *p; p++) {
        if (*p == '_')
            *p = ' ';
    }
    mb_prompt_pair pair = {"subject", words ? words : ""};
    out->failed = out->failed || !text || !words;
    if (text)
        mb_prompt_fill(out, text, size, &pair, 1, false);
    free(words);
}

/* The official script joins all questions by blank lines and cuts the text at blank lines again, so a question
 * that holds one fills several numbers and pushes the last ones out. */
static void pieces_write(const mb_text *joined, int64_t count, mb_text *prompt)
{
    const char *from = joined->data;
    for (int64_t i = 0; i < count && from && *from; i++) {
        const char *end = strstr(from, "\n\n");
        size_t n = end ? (size_t)(end - from) : strlen(from);
        mb_text_printf(prompt, "Question_%lld:\n", (long long)(FIRST_MMLU + i));
        mb_text_append(prompt, from, n);
        mb_text_puts(prompt, "\n\n");
        from = end ? end + 2 : NULL;
    }
    prompt->failed = prompt->failed || joined->failed;
}

static int questions_write(mb_batches *b, const char *path, mb_sample *sample, mb_text *prompt, mb_error *err)
{
    mb_text cells[CELLS] = {{0}}, joined = {0};
    char *csv = NULL;
    size_t size;
    int rc = mb_file_read(path, 64u << 20, &csv, &size, err);
    const char *p = csv;
    if (rc != MB_OK)
        return MB_E_SAMPLE; /* a subject that is not there is a sample that failed */
    for (int64_t i = 0; i < b->batch && *p; i++) {
        if (!record_read(&p, cells)) {
            rc = mb_fail(err, MB_E_SAMPLE, "%s: question %lld has not six cells", path, (long long)i + 1);
            break;
        }
        mb_text_printf(&joined, "%s\n", cells[0].data);
        for (int c = 0; c < 4; c++)
            mb_text_printf(&joined, "(%c) %s", 'A' + c, cells[1 + c].data);
        mb_text_puts(&joined, "\n\n");
        if (!mb_sample_add_answer(sample, cells[5].data, cells[5].length))
            prompt->failed = true;
    }
    pieces_write(&joined, b->batch, prompt);
    for (int c = 0; c < CELLS; c++)
        mb_text_free(&cells[c]);
    mb_text_free(&joined);
    free(csv);
    return rc;
}

int mb_mmlu_next(mb_batches *b, mb_sample **sample, mb_error *err)
{
    mb_text prompt = {0};
    const cJSON *subject = b->subject;
    if (!subject)
        return 0;
    b->subject = subject->next;
    mb_sample *s = mb_sample_new();
    char *path = mb_string_format("%s/%s_test.csv", b->folder, subject->string);
    int rc = MB_E_SYSTEM;
    if (!s || !path)
        goto out;
    s->key = mb_string_copy(subject->string);
    s->source = mb_string_format("%s:1", path);
    s->language = mb_string_copy("en");
    s->group = mb_string_copy(subject->string);
    s->max_new_tokens = b->info->max_new_tokens;
    s->chat = b->info->chat;
    system_write(subject->string, &prompt);
    mb_text_puts(&prompt, "Examples: \n");
    examples_write(cJSON_IsString(subject) ? subject->valuestring : "", &prompt);
    mb_text_puts(&prompt, "Following Question: \n");
    rc = questions_write(b, path, s, &prompt, err);
    s->length = (int64_t)s->answer_count;
    s->prompt = mb_text_take(&prompt);
    if (rc == MB_OK)
        rc = 1;
    if (!s->key || !s->source || !s->language || !s->group || !s->prompt)
        rc = MB_E_SYSTEM;
out:
    if (rc == MB_E_SYSTEM) {
        mb_fail(err, rc, "no memory for the questions of %s", subject->string);
        mb_sample_free(s);
        s = NULL;
    }
    *sample = s;
    mb_text_free(&prompt);
    free(path);
    return rc;
}
