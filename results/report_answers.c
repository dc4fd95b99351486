/*
 * report_answers.c - the items of an HTML report that a reader may open: references and every configuration's
 * answer, those first on which configurations differ most from the reference.
 */
#include "results/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS = 60, ANSWER_BYTES = 2000 };

typedef struct open_item { /* what is being collected */
    int64_t item;
    char title[512];
    mb_text body;
} open_item;

static void put_answer(mb_text *body, sqlite3_stmt *s)
{
    const char *answer = report_text(s, 6);
    size_t n = strlen(answer), shown = n < ANSWER_BYTES ? n : ANSWER_BYTES;
    while (shown < n && shown && ((unsigned char)answer[shown] & 0xc0) == 0x80)
        shown--; /* not within a character */
    mb_text_printf(body, "%s, %s: ", report_text(s, 4), report_text(s, 5));
    if (sqlite3_column_type(s, 7) == SQLITE_NULL)
        mb_text_puts(body, "no score");
    else
        mb_text_printf(body, "%.1f", 100 * sqlite3_column_double(s, 7));
    mb_text_puts(body, "\n    ");
    mb_text_append(body, answer, shown);
    mb_text_puts(body, shown < n ? " ...\n" : "\n");
}

static void close_item(const paper *p, open_item *o)
{
    if (o->body.data)
        paper_details(p, o->title, o->body.data);
    mb_text_free(&o->body);
}

int report_answers(const paper *p, mb_error *err)
{
    open_item o = {.item = -1};
    size_t items = 0;
    int code;
    if (p->format != MB_TABLE_HTML)
        return MB_OK;
    sqlite3_stmt *s = report_query(
        p,
        "WITH differs AS (SELECT item_id, sum(abs(difference)) AS much FROM v_paired_item WHERE run_id = ?1 GROUP "
        "BY "
        "item_id) SELECT s.item_id, s.task, s.item, s.answers, s.sampler, s.config, s.prediction, s.score, "
        "coalesce(d.much, 0) FROM v_samples s LEFT JOIN differs d ON d.item_id = s.item_id WHERE s.run_id = ?1 "
        "AND "
        "s.pass = 'quality' AND s.prediction IS NOT NULL ORDER BY coalesce(d.much, 0) DESC, s.item_id, "
        "s.sampler_id, "
        "s.is_reference DESC, s.config_id",
        err);
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        if (sqlite3_column_int64(s, 0) != o.item) {
            close_item(p, &o);
            if (items++ == ITEMS) {
                code = SQLITE_DONE;
                break;
            }
            if (items == 1)
                paper_section(p, "answers, most different first");
            o.item = sqlite3_column_int64(s, 0);
            snprintf(o.title, sizeof o.title, "%.200s %.280s", report_text(s, 1), report_text(s, 2));
            mb_text_printf(&o.body, "references: %s\n\n", report_text(s, 3));
        }
        put_answer(&o.body, s);
    }
    close_item(p, &o);
    return report_query_end(p, s, code, err);
}
