/*
 * report_answers.c - the items of an HTML report that a reader may open: references, the prompt where the run kept
 * it, and every configuration's answer. A page has a bounded number of them and of each a bounded part: items with
 * a prompt first, those before others on which configurations differ most from the reference.
 */
#include "results/report.h"
#include "results/show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS = 60, ANSWER_BYTES = 2000, REFERENCE_BYTES = 1000 };
enum {
    ENDS = 1500,
    AROUND = 300,
    NEEDLES = 4
}; /* bytes of a prompt at its ends and around the first references */

typedef struct open_item { /* what is being collected */
    int64_t item;
    table answers;
    bool open;
} open_item;

/* At most n bytes, no character cut. */
static size_t whole_bytes(const char *text, size_t n)
{
    size_t length = strlen(text);
    if (length <= n)
        return length;
    while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static void put_cut(mb_text *out, const char *text, size_t most)
{
    size_t n = whole_bytes(text, most);
    mb_text_append(out, text, n);
    mb_text_puts(out, text[n] ? " ..." : "");
}

/* ---- the prompt ---- */

/* Is the byte in a part that is shown? */
static bool is_shown(const shown_prompt *p, size_t byte)
{
    if (byte < ENDS || byte + ENDS >= p->length)
        return true;
    for (size_t i = 0; i < p->needle_count && i < NEEDLES; i++)
        if (byte + AROUND >= p->needles[i].from && byte < p->needles[i].to + AROUND)
            return true;
    return false;
}

/* The shown parts, with marks around the first references and the bytes of what is left out. */
static void put_excerpt(const shown_prompt *p, mb_text *out)
{
    size_t left = 0;
    for (size_t i = 0; i < p->length; i++) {
        bool inside = ((unsigned char)p->text[i] & 0xc0) == 0x80; /* a character stays whole */
        if (inside ? left > 0 : !is_shown(p, i)) {
            left++;
            continue;
        }
        if (left)
            mb_text_printf(out, "\n[... %zu bytes ...]\n", left);
        left = 0;
        for (size_t n = 0; n < p->needle_count && n < NEEDLES; n++)
            if (p->needles[n].from == i)
                mb_text_puts(out, "\xe2\x96\xb6");
        mb_text_append(out, p->text[i] ? p->text + i : "\x01", 1); /* a sign stands for it, as for others */
        for (size_t n = 0; n < p->needle_count && n < NEEDLES; n++)
            if (p->needles[n].to == i + 1)
                mb_text_puts(out, "\xe2\x97\x80");
    }
}

static int put_prompt(const paper *p, int64_t item, const char *references, int64_t tokens, mb_error *err)
{
    mb_text bytes = {0}, excerpt = {0};
    shown_prompt prompt = {0};
    char summary[96];
    int code, rc = MB_OK;
    sqlite3_stmt *s =
        report_query(p, "SELECT prompt FROM v_record WHERE run_id = ?1 AND item_id = ?2 LIMIT 1", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ii", p->run, item);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        mb_text_unspell(&bytes, report_text(s, 0));
    rc = report_query_end(p, s, code, err);
    prompt.length = bytes.length;
    prompt.text = mb_text_take(&bytes);
    if (rc == MB_OK && prompt.text)
        rc = show_find_needles(p->store, &prompt, references, err);
    if (rc == MB_OK && prompt.text) {
        put_excerpt(&prompt, &excerpt);
        snprintf(summary, sizeof summary, "prompt, %lld tokens", (long long)tokens);
        paper_fold(p, summary);
        paper_text(p, excerpt.data ? excerpt.data : "");
        paper_unfold(p);
    }
    p->out->failed = p->out->failed || excerpt.failed;
    mb_text_free(&excerpt);
    free(prompt.needles);
    free(prompt.text);
    return rc;
}

/* ---- an item ---- */

enum { ITEM, TASK, KEY, REFERENCES, SAMPLER, CONFIG, ANSWER, SCORE, LOST, WON, TOKENS };

static const char answers_sql[] =
    "WITH differs AS (SELECT item_id, sum(abs(difference)) AS much, sum(difference < 0) AS lost, "
    "sum(difference > 0) AS won FROM v_paired_item WHERE run_id = ?1 GROUP BY item_id), "
    "kept AS (SELECT DISTINCT item_id FROM v_record WHERE run_id = ?1) "
    "SELECT s.item_id, s.task, s.item, s.answers, s.sampler, s.config, "
    "coalesce(s.prediction, s.status || ': ' || coalesce(s.error, 'no reason')), s.score, "
    "coalesce(d.lost, 0), coalesce(d.won, 0), s.prompt_tokens "
    "FROM v_samples s LEFT JOIN differs d ON d.item_id = s.item_id LEFT JOIN kept k ON k.item_id = s.item_id "
    "WHERE s.run_id = ?1 AND s.pass = 'quality' "
    "ORDER BY k.item_id IS NULL, coalesce(d.much, 0) DESC, s.item_id, s.sampler_id, s.is_reference DESC, "
    "s.config_id";

static void put_answer(open_item *o, sqlite3_stmt *s)
{
    mb_text answer = {0};
    put_cut(&answer, report_text(s, ANSWER), ANSWER_BYTES);
    table_put(&o->answers, report_text(s, CONFIG), false);
    table_put(&o->answers, report_text(s, SAMPLER), false);
    if (sqlite3_column_type(s, SCORE) == SQLITE_NULL)
        table_put(&o->answers, NULL, true);
    else
        table_printf(&o->answers, true, "%.1f", 100 * sqlite3_column_double(s, SCORE));
    table_put(&o->answers, answer.data ? answer.data : "", false);
    mb_text_free(&answer);
}

static void begin_item(const paper *p, open_item *o, sqlite3_stmt *s)
{
    static const char *const names[] = {"method", "sampler", "score", "answer"};
    char title[512], counts[96] = "";
    mb_text references = {0};
    int lost = sqlite3_column_int(s, LOST), won = sqlite3_column_int(s, WON);
    if (lost + won)
        snprintf(counts, sizeof counts, ": %d below the reference, %d above", lost, won);
    snprintf(title, sizeof title, "%.120s %.240s%s", report_text(s, TASK), report_text(s, KEY), counts);
    paper_fold(p, title);
    put_cut(&references, report_text(s, REFERENCES), REFERENCE_BYTES);
    paper_line(p, PAPER_PLAIN, "references: %s", references.data ? references.data : "");
    mb_text_free(&references);
    o->item = sqlite3_column_int64(s, ITEM);
    o->open = true;
    table_init(&o->answers, sizeof names / sizeof *names, names);
}

static void end_item(const paper *p, open_item *o)
{
    if (!o->open)
        return;
    paper_table(p, &o->answers, false);
    paper_unfold(p);
    table_free(&o->answers);
    o->open = false;
}

int report_answers(const paper *p, mb_error *err)
{
    open_item o = {.item = -1};
    size_t items = 0;
    int code = SQLITE_DONE, rc = MB_OK;
    if (p->format != MB_TABLE_HTML)
        return MB_OK;
    sqlite3_stmt *s = report_query(p, answers_sql, err);
    if (!s)
        return MB_E_SYSTEM;
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        if (sqlite3_column_int64(s, ITEM) != o.item) {
            end_item(p, &o);
            if (items++ == ITEMS) {
                paper_note(p, "more items: ./harness show %s ITEM, keys in v_samples", p->store->path);
                code = SQLITE_DONE;
                break;
            }
            if (items == 1)
                paper_section(p, "prompts and answers, most different first");
            begin_item(p, &o, s);
            rc = put_prompt(p, o.item, report_text(s, REFERENCES), sqlite3_column_int64(s, TOKENS), err);
        }
        put_answer(&o, s);
    }
    end_item(p, &o);
    if (rc == MB_OK)
        return report_query_end(p, s, code, err);
    sqlite3_reset(s);
    return rc;
}
