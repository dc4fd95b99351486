/*
 * batch.c - K questions in one prompt, answered in one generation: GSM8K here, MMLU's files in
 * mmlu.c, the scoring of both.
 *
 * The official scripts write questions, answers and references into a text file and parse that file again; some of
 * what they count comes from the file's own marks ("A_model:Q_3" supplies the number 3, or the letter A, where an
 * answer has none). The score follows that file line by line. The benchmark's figure is correct over counted
 * questions of all batches; a sample's score here is that of its batch, which averages to the same where every
 * batch is answered in full.
 *
 * The system message of the scripts stands in front of the prompt, one blank line between: samples have one turn.
 */
#include "datasets/longgenbench/longgenbench.h"

#include "datasets/read/unicode.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_GSM8K 9 /* the examples are questions 1 to 8 */

/* Finds folder/<names[i]>, the first that exists; NULL and a sentence otherwise. */
static char *find(const mb_task_info *info, const char *folder, const char *const *names, mb_error *err)
{
    mb_text looked = {0};
    char *path = NULL;
    for (size_t i = 0; names[i]; i++) {
        path = mb_string_format("%s/%s", folder ? folder : "datasets/data", names[i]);
        if (path && (mb_file_exists(path) || mb_folder_exists(path)))
            break;
        mb_text_printf(&looked, "%s%s", i ? ", " : "", path ? path : names[i]);
        free(path);
        path = NULL;
    }
    char command[MB_FETCH_CAP];
    mb_fetch_command("longgenbench", command);
    if (!path)
        mb_fail(err, MB_E_INPUT,
                "task %s: nothing at %s; %s downloads it, or --data DIR names a folder that has it", info->name,
                looked.data ? looked.data : "", command);
    mb_text_free(&looked);
    return path;
}

int mb_batches_open(mb_batches *b, const mb_task_info *info, const mb_task_request *request, mb_error *err)
{
    static const char *const known_gsm8k[] = {"batch", "questions", NULL}, *const known_mmlu[] = {"batch", NULL};
    static const char *const questions[] = {"longgenbench/gsm8k_test.jsonl", "gsm8k_test.jsonl",
                                            "gsm8k/test.jsonl", NULL};
    static const char *const prompts[] = {"longgenbench/gsm8k_prompt.txt", "gsm8k_prompt.txt",
                                          "longgenbench/data/LongGenBench_GSM8K_prompt/LongGenBench_prompt.txt",
                                          "data/LongGenBench_GSM8K_prompt/LongGenBench_prompt.txt", NULL};
    static const char *const letters[] = {"longgenbench/mmlu_prompt.json", "mmlu_prompt.json",
                                          "longgenbench/data/LongGenBench_MMLU_prompt/LongGenBench_prompt.json",
                                          "data/LongGenBench_MMLU_prompt/LongGenBench_prompt.json", NULL};
    static const char *const folders[] = {"longgenbench/mmlu/test", "mmlu/test",
                                          "longgenbench/data/MMLU/data/test", "data/MMLU/data/test", NULL};
    bool mmlu = strcmp(info->metric, "batch_letters") == 0;
    mb_task_keys options;
    size_t size;
    *b = (mb_batches){.info = info, .batch = mmlu ? 20 : 35, .questions = 700};
    int rc = mb_task_keys_open(&options, info->name, request->options, mmlu ? known_mmlu : known_gsm8k, err);
    if (rc == MB_OK)
        rc = mb_task_keys_int(&options, "batch", 1, 1000, &b->batch, err);
    if (rc == MB_OK && !mmlu)
        rc = mb_task_keys_int(&options, "questions", 1, 1000000, &b->questions, err);
    mb_task_keys_close(&options);
    if (rc != MB_OK)
        return rc;
    b->examples_path = find(info, request->folder, mmlu ? letters : prompts, err);
    if (!b->examples_path)
        return MB_E_INPUT;
    rc = mb_file_read(b->examples_path, 16u << 20, &b->examples, &size, err);
    if (rc != MB_OK)
        return rc;
    if (!mmlu)
        return mb_task_rows_open(&b->rows, info, request->folder, questions, "longgenbench", err);
    b->folder = find(info, request->folder, folders, err);
    if (!b->folder)
        return MB_E_INPUT;
    b->subjects = cJSON_ParseWithLength(b->examples, size);
    if (!cJSON_IsObject(b->subjects))
        return mb_fail(err, MB_E_INPUT, "%s is no JSON object of examples by subject", b->examples_path);
    b->subject = b->subjects->child;
    return MB_OK;
}

void mb_batches_close(mb_batches *b)
{
    mb_task_rows_close(&b->rows);
    cJSON_Delete(b->subjects);
    free(b->folder);
    free(b->examples);
    free(b->examples_path);
}

void mb_batches_hash(mb_batches *b, char hex[MB_HASH_CAP])
{
    char part[MB_HASH_CAP] = "";
    mb_hash *hash = mb_hash_new();
    if (!hash)
        return;
    mb_hash_add(hash, b->examples, strlen(b->examples));
    mb_hash_add(hash, &b->batch, sizeof b->batch);
    mb_hash_add(hash, &b->questions, sizeof b->questions);
    if (b->folder) { /* MMLU: every subject's file, in the order of the examples */
        for (const cJSON *s = b->subjects->child; s; s = s->next) {
            char *path = mb_string_format("%s/%s_test.csv", b->folder, s->string);
            if (path && mb_hash_file(path, part, NULL) == MB_OK)
                mb_hash_add(hash, part, sizeof part);
            free(path);
        }
    } else {
        mb_task_rows_hash(&b->rows, part);
        mb_hash_add(hash, part, sizeof part);
    }
    mb_hash_end(hash, hex);
}

int64_t mb_batches_size(mb_batches *b)
{
    if (b->folder)
        return cJSON_GetArraySize(b->subjects);
    int64_t rows = mb_task_rows_size(&b->rows);
    rows = rows > b->questions ? b->questions : rows;
    return rows < 0 ? -1 : (rows + b->batch - 1) / b->batch;
}

/* The next question of the file into prompt and sample. As mb_task_rows_next. */
static int question_add(mb_batches *b, int64_t number, mb_text *prompt, mb_sample *sample, mb_error *err)
{
    cJSON *row = NULL;
    mb_sample *one = NULL;
    int rc = mb_task_rows_next(&b->rows, &row, &one, err);
    if (rc == 0 || (rc < 0 && rc != MB_E_SAMPLE))
        return rc;
    const char *question = rc == 1 ? mb_task_rows_text(&b->rows, row, "question", err) : NULL;
    const char *answer = question ? mb_task_rows_text(&b->rows, row, "answer", err) : NULL;
    if (!answer)
        rc = MB_E_SAMPLE;
    else if (!mb_sample_add_answer(sample, answer, strlen(answer)))
        prompt->failed = true;
    else
        mb_text_printf(prompt, "Question_%lld:\n%s\n", (long long)number, question);
    if (!sample->source && one)
        sample->source = mb_string_copy(one->source);
    mb_sample_free(one);
    cJSON_Delete(row);
    return rc;
}

/* A batch with a bad row is a bad sample: its questions are numbered, so none can be left out. */
static int gsm8k_next(mb_batches *b, mb_sample **sample, mb_error *err)
{
    mb_text prompt = {0};
    size_t size = 0;
    const char *system = mb_prompt_find("longgenbench_gsm8k_system.txt", &size);
    mb_sample *s = mb_sample_new();
    int rc = 1, result = 1;
    int64_t asked = 0;
    if (!s || !system) {
        rc = mb_no_memory(err, "a batch of questions");
        goto out;
    }
    mb_text_append(&prompt, system, size);
    mb_text_printf(&prompt, "\n\nExamples: \n%s\n\nFollowing Question: \n", b->examples);
    while (asked < b->batch && b->asked < b->questions) {
        rc = question_add(b, FIRST_GSM8K + asked, &prompt, s, err);
        if (rc == 0 || (rc < 0 && rc != MB_E_SAMPLE))
            break;
        result = rc == MB_E_SAMPLE ? rc : result;
        asked++;
        b->asked++;
    }
    if (rc < 0 && rc != MB_E_SAMPLE)
        goto out;
    rc = 0;
    if (!asked)
        goto out;
    mb_text_puts(&prompt, "\n");
    s->prompt = mb_text_take(&prompt);
    s->key = mb_string_format("batch_%lld", (long long)b->given++);
    s->language = mb_string_copy("en");
    s->length = asked;
    s->max_new_tokens = b->info->max_new_tokens;
    s->chat = b->info->chat;
    rc = result;
    if (!s->prompt || !s->key || !s->language) {
        rc = mb_no_memory(err, "a batch of questions");
        goto out;
    }
    *sample = s;
    s = NULL;
out:
    mb_text_free(&prompt);
    mb_sample_free(s);
    return rc;
}

int mb_batches_next(mb_batches *b, mb_sample **sample, mb_error *err)
{
    return b->folder ? mb_mmlu_next(b, sample, err) : gsm8k_next(b, sample, err);
}

/* ---- scoring ---- */
/* re.findall(r"(?<=:\n)(.*?)(?=\n\n|$)", text, re.DOTALL), stripped: calls back with each found text. */
typedef struct answers {
    mb_text *items;
    size_t count, capacity;
    bool failed;
} answers;

static void answer_add(answers *a, const uint32_t *at, size_t count)
{
    while (count && mb_rune_is_space(at[0])) {
        at++;
        count--;
    }
    while (count && mb_rune_is_space(at[count - 1]))
        count--;
    if (a->count == a->capacity) {
        size_t capacity = a->capacity ? a->capacity * 2 : 64;
        mb_text *items = realloc(a->items, capacity * sizeof *items);
        if (!items) {
            a->failed = true;
            return;
        }
        a->items = items;
        a->capacity = capacity;
    }
    a->items[a->count] = (mb_text){0};
    mb_text_append(&a->items[a->count], "", 0);
    mb_runes_encode(at, count, &a->items[a->count]);
    a->failed = a->failed || a->items[a->count].failed;
    a->count++;
}

static bool ends_here(const mb_runes *t, size_t j)
{
    return j == t->count || (t->at[j] == '\n' && (j + 1 == t->count || t->at[j + 1] == '\n'));
}

static void answers_find(const mb_runes *t, answers *out)
{
    bool must_advance = false; /* an empty match is followed by a non-empty one at the same place */
    for (size_t i = 0, start = 0; i <= t->count && !out->failed;) {
        if (i < 2 || t->at[i - 2] != ':' || t->at[i - 1] != '\n') {
            i++;
            continue;
        }
        size_t end = i + (must_advance && i == start);
        while (end <= t->count && !ends_here(t, end))
            end++;
        if (end > t->count) {
            i++;
            continue;
        }
        answer_add(out, t->at + i, end - i);
        must_advance = end == i;
        start = i = end;
    }
}

/* The last match of \d*\.?\d+ in a text: its bytes. */
static const char *last_number(const char *text, size_t *length)
{
    const char *last = NULL;
    for (const char *p = text; *p;) {
        size_t whole = strspn(p, "0123456789");
        size_t fraction = p[whole] == '.' ? strspn(p + whole + 1, "0123456789") : 0;
        if (!whole && !fraction) {
            p++;
            continue;
        }
        last = p;
        *length = whole + (fraction ? fraction + 1 : 0);
        p += *length;
    }
    return last;
}

static char last_letter(const char *text)
{
    char last = 0;
    for (; *text; text++) {
        if (*text >= 'A' && *text <= 'D')
            last = *text;
    }
    return last;
}

/* model and gold are the file's parts with their marks. */
static bool answer_is_right(bool letters, const mb_text *model, const mb_text *gold)
{
    size_t n = 0, m = 0;
    if (letters)
        return last_letter(model->data) == last_letter(gold->data);
    mb_text plain = {0};
    for (const char *p = model->data; *p; p++) {
        if (*p != ',')
            mb_text_append(&plain, p, 1);
    }
    mb_text_append(&plain, "", 0);
    const char *said = plain.failed ? NULL : last_number(plain.data, &n), *wanted = last_number(gold->data, &m);
    bool right = said && wanted && n == m && memcmp(said, wanted, n) == 0;
    mb_text_free(&plain);
    return right;
}

/* Parses the file that the scripts write. Lines end at \n, \r\n or \r, as Python's text mode reads them. */
static void file_parse(bool letters, const char *file, size_t *questions, size_t *right)
{
    mb_text model = {0}, gold = {0}, *current = NULL;
    bool have_model = false, have_gold = false;
    for (const char *p = file; *p;) {
        size_t n = strcspn(p, "\r\n");
        if (strncmp(p, "Question:", 9) == 0) {
            if (have_model && have_gold)
                *right += answer_is_right(letters, &model, &gold);
            (*questions)++;
            current = NULL;
        } else if (strncmp(p, "A_model:", 8) == 0) {
            mb_text_clear(&model);
            have_model = true;
            current = &model;
        } else if (strncmp(p, "A_gold:", 7) == 0) {
            mb_text_clear(&gold);
            have_gold = true;
            current = &gold;
        }
        if (current) {
            mb_text_append(current, p, n);
            mb_text_puts(current, "\n");
        }
        p += n + (p[n] == '\r' && p[n + 1] == '\n' ? 2 : p[n] != '\0');
    }
    if (have_model && have_gold)
        *right += answer_is_right(letters, &model, &gold);
    mb_text_free(&model);
    mb_text_free(&gold);
}

/* text with every "Answer_" replaced by a newline, as code points. */
static void marks_drop(const char *text, mb_runes *out)
{
    static const char mark[] = "Answer_";
    for (const char *hit; (hit = strstr(text, mark)); text = hit + sizeof mark - 1) {
        mb_runes_decode(out, text, (size_t)(hit - text));
        mb_runes_push(out, '\n');
    }
    mb_runes_decode(out, text, strlen(text));
}

int mb_batches_score(bool letters, const mb_sample *sample, const char *prediction, double *score)
{
    mb_runes text = {0};
    answers found = {0};
    mb_text file = {0};
    size_t questions = 0, right = 0;
    int rc = MB_E_SYSTEM;
    *score = 0;
    marks_drop(prediction, &text);
    if (text.failed)
        goto out;
    answers_find(&text, &found);
    if (found.failed)
        goto out;
    for (size_t i = 0; i < found.count && i < sample->answer_count; i++) /* by order, as zip does */
        mb_text_printf(&file, "Question: \nA_model:Q_%zu\n%s\nA_gold:\n%s\n\n", i, found.items[i].data,
                       sample->answers[i]);
    if (file.failed)
        goto out;
    if (file.data)
        file_parse(letters, file.data, &questions, &right);
    /* GSM8K divides by the questions in the file, MMLU by those asked. */
    if (letters)
        questions = sample->answer_count;
    /* A "Question:" inside an answer makes the scripts count what precedes it once more; no share is above 1. */
    if (right > questions)
        right = questions;
    *score = questions ? (double)right / (double)questions : 0;
    rc = MB_OK;
out:
    for (size_t i = 0; i < found.count; i++)
        mb_text_free(&found.items[i]);
    free(found.items);
    mb_text_free(&file);
    mb_runes_free(&text);
    return rc;
}
