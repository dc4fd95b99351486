/*
 * qa.c - RULER's question answering: a SQuAD 2.0 or HotpotQA file of the user's, turned into questions with
 * their documents, and samples of n documents.
 *
 * Documents are the distinct paragraphs of the whole file. A sample holds the question's own documents, then for
 * SQuAD other paragraphs of the same article (all of them, where n allows), then any others, shuffled.
 */
#include "datasets/ruler/ruler.h"

#include <stdlib.h>
#include <string.h>

#define FILE_MAX ((size_t)1 << 30)

typedef struct question {
    char *text;
    char **answers;
    size_t answer_count;
    size_t gold_from, gold_count; /* into links: documents that belong to the question */
    size_t more_from, more_count; /* SQuAD: paragraphs of the article, the gold one among them */
} question;

struct mb_ruler_documents {
    char **texts; /* sorted, distinct */
    size_t count, capacity;
    size_t *links; /* document numbers */
    size_t link_count, link_capacity;
    question *questions;
    size_t question_count, question_capacity;
};

/* Room for one more entry. */
static bool room(void **items, size_t size, size_t count, size_t *capacity)
{
    if (count < *capacity)
        return true;
    size_t more = *capacity ? 2 * *capacity : 256;
    void *p = realloc(*items, more * size);
    if (!p)
        return false;
    *items = p;
    *capacity = more;
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_document(mb_ruler_documents *d, char *text)
{
    if (!text || !room((void **)&d->texts, sizeof *d->texts, d->count, &d->capacity)) {
        free(text);
        return false;
    }
    d->texts[d->count++] = text;
    return true;
}

static void sort_documents(mb_ruler_documents *d)
{
    size_t n = 0;
    if (d->count)
        qsort(d->texts, d->count, sizeof *d->texts, by_text);
    for (size_t i = 0; i < d->count; i++) {
        if (n && strcmp(d->texts[i], d->texts[n - 1]) == 0)
            free(d->texts[i]);
        else
            d->texts[n++] = d->texts[i];
    }
    d->count = n;
}

/* Appends the number of a document to links. The text is one of the documents. */
static bool link_document(mb_ruler_documents *d, const char *text)
{
    char **hit = text ? bsearch(&text, d->texts, d->count, sizeof *d->texts, by_text) : NULL;
    if (!hit || !room((void **)&d->links, sizeof *d->links, d->link_count, &d->link_capacity))
        return false;
    d->links[d->link_count++] = (size_t)(hit - d->texts);
    return true;
}

static question *add_question(mb_ruler_documents *d, const char *text)
{
    if (!room((void **)&d->questions, sizeof *d->questions, d->question_count, &d->question_capacity))
        return NULL;
    question *q = &d->questions[d->question_count];
    *q = (question){.text = mb_string_copy(text)};
    if (!q->text)
        return NULL;
    d->question_count++;
    return q;
}

static bool add_answer(question *q, const char *text)
{
    char **more = realloc(q->answers, (q->answer_count + 1) * sizeof *more);
    if (!more)
        return false;
    q->answers = more;
    q->answers[q->answer_count] = mb_string_copy(text);
    return q->answers[q->answer_count] && ++q->answer_count;
}

static int bad_file(const char *path, const char *what, mb_error *err)
{
    return mb_fail(err, MB_E_INPUT, "%s: %s", path, what);
}

/* One SQuAD paragraph's answerable questions. more: where the article's links are. */
static int add_squad_questions(mb_ruler_documents *d, const cJSON *paragraph, size_t more_from, size_t more_count,
                               const char *path, mb_error *err)
{
    const char *context = mb_json_string(paragraph, "context");
    const cJSON *qas = mb_json_member(paragraph, "qas");
    for (const cJSON *qa = qas ? qas->child : NULL; qa; qa = qa->next) {
        const char *text = mb_json_string(qa, "question");
        const cJSON *answers = mb_json_member(qa, "answers");
        if (cJSON_IsTrue(mb_json_member(qa, "is_impossible")))
            continue;
        if (!text || !cJSON_IsArray(answers))
            return bad_file(path, "a question without \"question\" or \"answers\"", err);
        if (!answers->child)
            continue; /* a copy of the file without its answers */
        size_t gold = d->link_count;
        question *q = link_document(d, context) ? add_question(d, text) : NULL;
        if (!q)
            return mb_ruler_memory(err);
        q->gold_from = gold;
        q->gold_count = 1;
        q->more_from = more_from;
        q->more_count = more_count;
        for (const cJSON *a = answers->child; a; a = a->next) {
            const char *answer = mb_json_string(a, "text");
            if (!answer || !add_answer(q, answer))
                return bad_file(path, "an answer without \"text\"", err);
        }
    }
    return MB_OK;
}

/* Both readers go over the file twice: documents are numbered in their sorted order, so all of them are collected
 * before the first is linked. */
static int add_squad_article(mb_ruler_documents *d, const cJSON *article, bool link, const char *path,
                             mb_error *err)
{
    const cJSON *paragraphs = mb_json_member(article, "paragraphs");
    size_t from = d->link_count;
    int rc = MB_OK;
    for (const cJSON *p = paragraphs ? paragraphs->child : NULL; p; p = p->next) {
        const char *context = mb_json_string(p, "context");
        if (!context)
            return bad_file(path, "a paragraph without \"context\"", err);
        if (!(link ? link_document(d, context) : add_document(d, mb_string_copy(context))))
            return mb_ruler_memory(err);
    }
    size_t count = d->link_count - from;
    for (const cJSON *p = link && paragraphs ? paragraphs->child : NULL; p && rc == MB_OK; p = p->next)
        rc = add_squad_questions(d, p, from, count, path, err);
    return rc;
}

static int read_squad(mb_ruler_documents *d, const cJSON *root, const char *path, mb_error *err)
{
    const cJSON *data = mb_json_member(root, "data");
    int rc = MB_OK;
    if (!cJSON_IsArray(data))
        return bad_file(path, "no SQuAD file: the member \"data\" is missing", err);
    for (const cJSON *article = data->child; article && rc == MB_OK; article = article->next)
        rc = add_squad_article(d, article, false, path, err);
    sort_documents(d);
    for (const cJSON *article = data->child; article && rc == MB_OK; article = article->next)
        rc = add_squad_article(d, article, true, path, err);
    return rc;
}

/* "title\n" and the sentences joined; NULL: not of that shape, or out of memory. */
static char *hotpot_document(const cJSON *pair)
{
    const cJSON *title = pair->child, *sentences = title ? title->next : NULL;
    mb_text text = {0};
    if (!cJSON_IsString(title) || !cJSON_IsArray(sentences))
        return NULL;
    mb_text_printf(&text, "%s\n", title->valuestring);
    for (const cJSON *s = sentences->child; s; s = s->next)
        mb_text_puts(&text, cJSON_IsString(s) ? s->valuestring : "");
    return mb_text_take(&text);
}

static int add_hotpot_row(mb_ruler_documents *d, const cJSON *row, bool link, const char *path, mb_error *err)
{
    const char *text = mb_json_string(row, "question"), *answer = mb_json_string(row, "answer");
    const cJSON *context = mb_json_member(row, "context");
    if (!text || !answer || !cJSON_IsArray(context))
        return bad_file(path, "a row without \"question\", \"answer\" or \"context\"", err);
    question *q = link ? add_question(d, text) : NULL;
    if (link && (!q || !add_answer(q, answer)))
        return mb_ruler_memory(err);
    size_t from = d->link_count;
    for (const cJSON *pair = context->child; pair; pair = pair->next) {
        char *document = hotpot_document(pair);
        if (!document)
            return bad_file(path, "a context entry that is no pair of title and sentences", err);
        bool good = link ? link_document(d, document) : add_document(d, document);
        if (link)
            free(document);
        if (!good)
            return mb_ruler_memory(err);
    }
    if (q) {
        q->gold_from = from;
        q->gold_count = d->link_count - from;
    }
    return MB_OK;
}

static int read_hotpot(mb_ruler_documents *d, const cJSON *root, const char *path, mb_error *err)
{
    int rc = MB_OK;
    if (!cJSON_IsArray(root))
        return bad_file(path, "no HotpotQA file: not a JSON array", err);
    for (const cJSON *row = root->child; row && rc == MB_OK; row = row->next)
        rc = add_hotpot_row(d, row, false, path, err);
    sort_documents(d);
    for (const cJSON *row = root->child; row && rc == MB_OK; row = row->next)
        rc = add_hotpot_row(d, row, true, path, err);
    return rc;
}

/* The file that the user named, or the first of the usual places that exists. *path malloc'ed. */
static int find_file(const mb_ruler *ruler, const char *folder, char **path, mb_error *err)
{
    static const char *const squad[] = {"squad/dev-v2.0.json", "dev-v2.0.json", NULL};
    static const char *const hotpot[] = {"hotpotqa/hotpot_dev_distractor_v1.json", "hotpot_dev_distractor_v1.json",
                                         NULL};
    const char *const *places = ruler->task->hotpot ? hotpot : squad;
    const char *given = NULL;
    *path = NULL;
    int rc = mb_task_keys_string(&ruler->options, "file", NULL, &given, err);
    if (rc < 0)
        return rc;
    /* The run's data folder first, then where fetch.sh puts things. */
    const char *const folders[] = {folder ? folder : "datasets/data", "datasets/data"};
    for (size_t i = 0; given ? i < 1 : i < 4; i++) {
        free(*path);
        *path = given ? mb_string_copy(given) : mb_string_format("%s/%s", folders[i / 2], places[i % 2]);
        if (!*path)
            return mb_ruler_memory(err);
        if (mb_file_exists(*path))
            return MB_OK;
    }
    if (given)
        return mb_fail(err, MB_E_INPUT, "task %s: the file %s does not exist", ruler->row->name, given);
    char command[MB_FETCH_CAP];
    mb_fetch_command(ruler->task->hotpot ? "hotpotqa" : "squad", command);
    return mb_fail(err, MB_E_INPUT,
                   "task %s needs %s/%s; run: %s, or name the file with the task's option \"file\"",
                   ruler->row->name, folders[0], places[0], command);
}

int mb_ruler_qa_open(mb_ruler *ruler, const mb_task_request *request, mb_error *err)
{
    char *path = NULL, *data = NULL;
    size_t size = 0;
    cJSON *root = NULL;
    int rc = find_file(ruler, request->folder, &path, err);
    if (rc == MB_OK)
        rc = mb_file_read(path, FILE_MAX, &data, &size, err);
    if (rc < 0)
        goto out;
    mb_hash_bytes(data, size, ruler->data_hash);
    root = cJSON_ParseWithLength(data, size);
    if (!root) {
        const char *at = cJSON_GetErrorPtr();
        rc = mb_fail(err, MB_E_INPUT, "%s: no valid JSON (byte %lld)", path,
                     at && at >= data && at <= data + size ? (long long)(at - data) : 0LL);
        goto out;
    }
    ruler->documents = calloc(1, sizeof *ruler->documents);
    if (!ruler->documents)
        rc = mb_ruler_memory(err);
    else
        rc = ruler->task->hotpot ? read_hotpot(ruler->documents, root, path, err)
                                 : read_squad(ruler->documents, root, path, err);
    if (rc == MB_OK && !ruler->documents->question_count)
        rc = bad_file(path, "holds no answerable question", err);
out:
    cJSON_Delete(root);
    free(data);
    free(path);
    return rc;
}

size_t mb_ruler_qa_count(const mb_ruler *ruler)
{
    return ruler->documents->question_count;
}

void mb_ruler_qa_close(mb_ruler *ruler)
{
    mb_ruler_documents *d = ruler->documents;
    if (!d)
        return;
    for (size_t i = 0; i < d->count; i++)
        free(d->texts[i]);
    for (size_t i = 0; i < d->question_count; i++) {
        for (size_t a = 0; a < d->questions[i].answer_count; a++)
            free(d->questions[i].answers[a]);
        free(d->questions[i].answers);
        free(d->questions[i].text);
    }
    free(d->texts);
    free(d->links);
    free(d->questions);
    free(d);
    ruler->documents = NULL;
}

/* ---- samples ---- */

typedef struct qa_own {
    const question *q;
    size_t *order; /* documents in the order in which they join the sample */
    size_t count;
} qa_own;

static void qa_close(mb_ruler_draft *draft)
{
    qa_own *own = draft->own;
    free(own->order);
    free(own);
    draft->own = NULL;
}

static int qa_write(mb_ruler_draft *draft, int64_t n, mb_text *out, mb_error *err)
{
    const qa_own *own = draft->own;
    const mb_ruler_documents *d = draft->ruler->documents;
    mb_random random = draft->random;
    mb_text context = {0};
    size_t *places = malloc((size_t)n * sizeof *places);
    if (!places)
        return mb_ruler_memory(err);
    mb_draw_order(&random, places, (size_t)n);
    for (size_t i = 0; i < (size_t)n; i++) /* past the pool the documents come again */
        mb_text_printf(&context, "%sDocument %zu:\n%s", i ? "\n\n" : "", i + 1,
                       d->texts[own->order[places[i] % own->count]]);
    free(places);
    const mb_prompt_pair pairs[] = {{"context", context.data}, {"query", own->q->text}};
    int rc = context.failed ? mb_ruler_memory(err) : mb_ruler_fill(draft->ruler, "qa", pairs, 2, out, err);
    mb_text_free(&context);
    return rc;
}

/* Appends the documents of `numbers` that are not placed yet, in a drawn order. */
static int join(mb_ruler_draft *draft, bool *placed, const size_t *numbers, size_t count, mb_error *err)
{
    qa_own *own = draft->own;
    size_t *places = malloc((count + 1) * sizeof *places);
    if (!places)
        return mb_ruler_memory(err);
    mb_draw_order(&draft->random, places, count);
    for (size_t i = 0; i < count; i++) {
        size_t number = numbers ? numbers[places[i]] : places[i];
        if (!placed[number])
            own->order[own->count++] = number;
        placed[number] = true;
    }
    free(places);
    return MB_OK;
}

int mb_ruler_qa_begin(mb_ruler_draft *draft, mb_error *err)
{
    const mb_ruler_documents *d = draft->ruler->documents;
    const question *q = &d->questions[draft->number];
    qa_own *own = draft->own = calloc(1, sizeof *own);
    mb_text prefix = {0};
    if (!own)
        return mb_ruler_memory(err);
    draft->close = qa_close;
    draft->write = qa_write;
    own->q = q;
    own->order = malloc(d->count * sizeof *own->order);
    bool *placed = calloc(d->count, sizeof *placed);
    int rc = own->order && placed ? MB_OK : mb_ruler_memory(err);
    if (rc == MB_OK)
        rc = join(draft, placed, d->links + q->gold_from, q->gold_count, err);
    if (rc == MB_OK) {
        draft->least = (int64_t)own->count;
        rc = join(draft, placed, d->links + q->more_from, q->more_count, err);
    }
    if (rc == MB_OK)
        rc = join(draft, placed, NULL, d->count, err);
    free(placed);
    for (size_t i = 0; i < q->answer_count && rc == MB_OK; i++)
        if (!mb_sample_add_answer(draft->sample, q->answers[i], strlen(q->answers[i])))
            rc = mb_ruler_memory(err);
    if (rc == MB_OK)
        rc = mb_ruler_fill(draft->ruler, "qa_prefix", NULL, 0, &prefix, err);
    if (rc == MB_OK)
        return mb_ruler_set_prefix(draft, &prefix, err);
    mb_text_free(&prefix);
    return rc;
}
