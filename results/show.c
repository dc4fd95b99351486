/*
 * show.c - ./harness show: one item with its prompt, the answers of all configurations beside the reference's, the
 * steps in which they were written, and where the selected keys lie.
 */
#include "results/show.h"
#include "results/figure.h"
#include "results/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shown {
    const paper *p;
    const mb_show_request *request;
    int64_t item;
    char *task, *key, *references;
    double depth; /* percent; negative: none */
    int64_t context;
    shown_prompt prompt;
} shown;

static char *copy_column(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return mb_string_copy(text ? text : "");
}

/* ---- the item ---- */

static const char items_sql[] =
    "SELECT DISTINCT item_id, task, item, answers, coalesce(depth, -1), coalesce(context, 0) FROM v_samples WHERE "
    "run_id = ?1 AND pass = 'quality' AND (item = ?2 OR task || ':' || item = ?2) ORDER BY item_id";

/* Some items of the run, for a sentence. */
static int no_such_item(const shown *w, mb_error *err)
{
    mb_text some = {0};
    sqlite3_stmt *s =
        store_statement(w->p->store,
                        "SELECT DISTINCT task || ':' || item FROM v_samples WHERE run_id = ? AND pass = "
                        "'quality' ORDER BY item_id LIMIT 4",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", w->p->run);
    while (sqlite3_step(s) == SQLITE_ROW)
        mb_text_printf(&some, "%s%s", some.length ? ", " : "", (const char *)sqlite3_column_text(s, 0));
    sqlite3_reset(s);
    int rc = mb_fail(err, MB_E_INPUT, "%s: the run has no item \"%s\"; it has %s, ... (view v_samples)",
                     w->p->store->path, w->request->item, some.data ? some.data : "none");
    mb_text_free(&some);
    return rc;
}

static int find_item(shown *w, mb_error *err)
{
    sqlite3_stmt *s = store_statement(w->p->store, items_sql, err);
    int code, found = 0;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "it", w->p->run, w->request->item);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        if (found++)
            continue;
        w->item = sqlite3_column_int64(s, 0);
        w->task = copy_column(s, 1);
        w->key = copy_column(s, 2);
        w->references = copy_column(s, 3);
        w->depth = sqlite3_column_double(s, 4);
        w->context = sqlite3_column_int64(s, 5);
    }
    sqlite3_reset(s);
    if (code != SQLITE_DONE)
        return store_error(w->p->store, code, "looking for an item", err);
    if (found == 0)
        return no_such_item(w, err);
    if (found > 1)
        return mb_fail(err, MB_E_INPUT, "%s: %d tasks have an item \"%s\": name one as TASK:ITEM, such as %s:%s",
                       w->p->store->path, found, w->request->item, w->task, w->key);
    return w->task && w->key && w->references ? MB_OK : mb_no_memory(err, "an item");
}

/* ---- the prompt ---- */

size_t show_token_at(const shown_prompt *p, size_t byte)
{
    size_t low = 0, high = p->tokens;
    while (low + 1 < high) { /* the last token that begins at the byte or before it */
        size_t middle = (low + high) / 2;
        if (p->starts[middle] <= byte)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int read_starts(shown_prompt *p, const unsigned char *bytes, size_t size, mb_error *err)
{
    p->starts = calloc(size + 2, sizeof *p->starts);
    if (!p->starts)
        return mb_no_memory(err, "the tokens of a prompt");
    for (size_t i = 0; i < size;) {
        size_t n = 0;
        for (unsigned shift = 0; i < size && shift < 32; shift += 7) {
            n |= (size_t)(bytes[i] & 0x7f) << shift;
            if (!(bytes[i++] & 0x80))
                break;
        }
        p->starts[p->tokens + 1] = p->starts[p->tokens] + n;
        p->tokens++;
    }
    return MB_OK;
}

static int load_prompt(shown *w, mb_error *err)
{
    sqlite3_stmt *s = store_statement(
        w->p->store, "SELECT prompt, token_bytes FROM v_record WHERE run_id = ? AND item_id = ? LIMIT 1", err);
    mb_text bytes = {0};
    int code, rc = MB_OK;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ii", w->p->run, w->item);
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        mb_text_unspell(&bytes, (const char *)sqlite3_column_text(s, 0));
        w->prompt.length = bytes.length;
        w->prompt.text = mb_text_take(&bytes);
        rc = w->prompt.text
                 ? read_starts(&w->prompt, sqlite3_column_blob(s, 1), (size_t)sqlite3_column_bytes(s, 1), err)
                 : mb_no_memory(err, "a prompt");
    }
    sqlite3_reset(s);
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(w->p->store, code, "reading the prompt", err);
    return rc == MB_OK && w->prompt.text ? show_find_needles(w->p->store, &w->prompt, w->references, err) : rc;
}

int show_find_needles(mb_store *store, shown_prompt *p, const char *references, mb_error *err)
{
    sqlite3_stmt *s = store_statement(
        store, "SELECT value FROM json_each(CASE WHEN json_valid(?1) THEN ?1 ELSE '[]' END) WHERE type = 'text'",
        err);
    int rc = MB_OK, code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "t", references);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        const char *answer = (const char *)sqlite3_column_text(s, 0);
        size_t n = strlen(answer);
        for (const char *hit = p->text; rc == MB_OK && n > 1 && (hit = strstr(hit, answer)); hit += n) {
            span *grown = realloc(p->needles, (p->needle_count + 1) * sizeof *grown);
            if (!grown) {
                rc = mb_no_memory(err, "the answers in a prompt");
                break;
            }
            p->needles = grown;
            grown[p->needle_count++] = (span){(size_t)(hit - p->text), (size_t)(hit - p->text) + n};
        }
    }
    sqlite3_reset(s);
    return rc == MB_OK && code != SQLITE_DONE ? store_error(store, code, "reading the references", err) : rc;
}

enum { AROUND = 160 }; /* bytes of the prompt shown around its ends and an answer */

static bool near_needle(const shown_prompt *p, size_t byte)
{
    for (size_t i = 0; i < p->needle_count; i++)
        if (byte + AROUND >= p->needles[i].from && byte < p->needles[i].to + AROUND)
            return true;
    return byte < AROUND || byte + AROUND >= p->length;
}

/* The mark of every answer that begins (or ends) at a byte. */
static void put_marks(const shown_prompt *p, size_t byte, bool ends, const char *mark, mb_text *out)
{
    for (size_t k = 0; k < p->needle_count; k++)
        if ((ends ? p->needles[k].to : p->needles[k].from) == byte)
            mb_text_puts(out, mark);
}

/* The text with the answers marked; in short what stands around them and at its ends. */
static void put_prompt(const shown *w)
{
    const shown_prompt *p = &w->prompt;
    const char *on = w->p->colour ? "\033[1;33m" : "\xe2\x96\xb6",
               *off = w->p->colour ? "\033[0m" : "\xe2\x97\x80";
    mb_text out = {0};
    bool skipping = false;
    for (size_t i = 0; i < p->length; i++) {
        bool inside = ((unsigned char)p->text[i] & 0xc0) == 0x80, before = skipping; /* a character stays whole */
        skipping = inside ? skipping : !w->p->full && !near_needle(p, i);
        if (skipping && !before)
            mb_text_puts(&out, " ... ");
        put_marks(p, i, false, on, &out);
        if (!skipping)
            mb_text_append(&out, p->text[i] ? p->text + i : " ", 1);
        put_marks(p, i + 1, true, off, &out);
    }
    paper_section(w->p, "prompt, with the template's words");
    if (out.data)
        paper_text(w->p, out.data);
    w->p->out->failed = w->p->out->failed || out.failed;
    mb_text_free(&out);
}

/* ---- the answers ---- */

/* Rows of the item that were asked for, the reference's first; ?4: a method, a label, or NULL. */
#define ANSWERS(columns)                                                                                          \
    "SELECT " columns                                                                                             \
    " FROM v_samples s WHERE s.run_id = ?1 AND s.item_id = ?2 AND s.pass = 'quality' AND (?3 IS NULL OR "         \
    "s.method = ?3 OR s.config = ?3 OR s.is_reference) ORDER BY s.sampler_id, s.is_reference DESC, s.config_id"

static sqlite3_stmt *answers(const shown *w, const char *sql, mb_error *err)
{
    sqlite3_stmt *s = store_statement(w->p->store, sql, err);
    if (s)
        store_bind(s, "iit", w->p->run, w->item, w->request->method);
    return s;
}

static void put_answer(const shown *w, sqlite3_stmt *s, const char *reference)
{
    const char *prediction = (const char *)sqlite3_column_text(s, 2);
    char score[32] = "no score";
    mb_text marked = {0};
    if (sqlite3_column_type(s, 3) != SQLITE_NULL)
        snprintf(score, sizeof score, "%.1f", 100 * sqlite3_column_double(s, 3));
    paper_line(w->p, PAPER_PLAIN, "%s, %s: %s%s%s", (const char *)sqlite3_column_text(s, 0),
               (const char *)sqlite3_column_text(s, 1), score, prediction ? "" : ", ",
               prediction ? "" : (const char *)sqlite3_column_text(s, 5));
    if (prediction && reference)
        show_difference(reference, prediction, w->p->colour, &marked);
    else if (prediction)
        mb_text_puts(&marked, prediction);
    if (marked.data)
        paper_text(w->p, marked.data);
    mb_text_free(&marked);
}

static int put_answers(const shown *w, mb_error *err)
{
    static const char sql[] =
        ANSWERS("s.config, s.sampler, s.prediction, s.score, s.is_reference, s.error, s.sampler_id");
    sqlite3_stmt *s = answers(w, sql, err);
    char *reference = NULL;
    int64_t sampler = -1;
    size_t others = 0;
    int code;
    if (!s)
        return MB_E_SYSTEM;
    paper_section(w->p, "answers; [-of the reference alone-] {+of the method alone+}");
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        if (sqlite3_column_int64(s, 6) != sampler) {
            sampler = sqlite3_column_int64(s, 6);
            free(reference);
            reference = NULL;
        }
        put_answer(w, s, reference);
        if (sqlite3_column_int(s, 4) && !reference)
            reference = mb_string_copy((const char *)sqlite3_column_text(s, 2));
        others += !sqlite3_column_int(s, 4);
    }
    free(reference);
    sqlite3_reset(s);
    if (code != SQLITE_DONE)
        return store_error(w->p->store, code, "reading the answers", err);
    return w->request->method && others == 0
               ? mb_fail(err, MB_E_INPUT,
                         "%s: \"%s\" is neither a method nor a configuration with an answer to %s",
                         w->p->store->path, w->request->method, w->key)
               : MB_OK;
}

/* ---- steps ---- */

/* The text that a step wrote. */
static void put_written(mb_text *out, const char *json, mb_store *store)
{
    mb_error err = {0};
    sqlite3_stmt *s = store_statement(
        store, "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?1)", &err);
    if (!s)
        return;
    store_bind(s, "t", json);
    while (sqlite3_step(s) == SQLITE_ROW)
        mb_text_printf(out, " %d=%s", sqlite3_column_int(s, 0), (const char *)sqlite3_column_text(s, 1));
    sqlite3_reset(s);
}

static int put_steps_of(const shown *w, int64_t sample, const char *title, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(w->p->store,
                        "SELECT block, step, masked, json_array_length(written), written FROM v_trace "
                        "WHERE sample_id = ? AND step > 0 ORDER BY i",
                        err);
    mb_text out = {0};
    int code, block = -1;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", sample);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        if (w->p->full) {
            mb_text_printf(&out, "block %d step %d, %d masked:", sqlite3_column_int(s, 0),
                           sqlite3_column_int(s, 1), sqlite3_column_int(s, 2));
            put_written(&out, (const char *)sqlite3_column_text(s, 4), w->p->store);
            mb_text_puts(&out, "\n");
            continue;
        }
        if (sqlite3_column_int(s, 0) != block)
            mb_text_printf(&out, "%sblock %d, tokens a step:", block >= 0 ? "\n" : "", sqlite3_column_int(s, 0));
        block = sqlite3_column_int(s, 0);
        mb_text_printf(&out, " %d", sqlite3_column_int(s, 3));
    }
    sqlite3_reset(s);
    if (out.data) {
        paper_line(w->p, PAPER_PLAIN, "%s", title);
        paper_text(w->p, out.data);
    }
    mb_text_free(&out);
    return code == SQLITE_DONE ? MB_OK : store_error(w->p->store, code, "reading the steps", err);
}

/* ---- maps ---- */

typedef struct recorded { /* a sample with selections */
    int64_t sample;
    size_t layers, steps;
    char title[256];
} recorded;

static int put_maps_of(const shown *w, const recorded *r, figure *f, mb_error *err)
{
    size_t columns = w->p->width > 40 ? (size_t)w->p->width - 32 : 8;
    position_map map;
    mb_text out = {0};
    columns = columns > 128 ? 128 : columns;
    int rc = show_map_load(w->p->store, r->sample, MAP_BY_LAYER, r->layers, columns, &map, err);
    if (rc == MB_OK && map.positions) {
        show_map_text(&map, &w->prompt, "layer", 0, &out);
        if (f)
            show_map_figure(f, &map, &w->prompt, r->title);
    }
    show_map_free(&map);
    if (rc == MB_OK && out.data && w->p->full) {
        rc = show_map_load(w->p->store, r->sample, MAP_BY_STEP, r->steps, columns, &map, err);
        if (rc == MB_OK && map.positions)
            show_map_text(&map, &w->prompt, "step", 1, &out);
        show_map_free(&map);
    }
    if (rc == MB_OK && out.data) {
        paper_line(w->p, PAPER_PLAIN, "%s", r->title);
        paper_text(w->p, out.data);
    }
    mb_text_free(&out);
    return rc;
}

static const char recorded_sql[] = ANSWERS("s.sample_id, s.config, s.sampler, (SELECT o.layers FROM model o WHERE "
                                           "o.id = s.model_id), (SELECT max(t.step) FROM "
                                           "trace t WHERE t.sample_id = s.sample_id), EXISTS (SELECT 1 FROM "
                                           "selection x WHERE x.sample_id = s.sample_id)");

/* Samples of which something was recorded; malloc'ed. */
static int list_recorded(const shown *w, recorded **list, size_t *count, mb_error *err)
{
    sqlite3_stmt *s = answers(w, recorded_sql, err);
    int code, rc = MB_OK;
    *list = NULL;
    *count = 0;
    if (!s)
        return MB_E_SYSTEM;
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        if (sqlite3_column_type(s, 4) == SQLITE_NULL)
            continue;
        recorded *grown = realloc(*list, (*count + 1) * sizeof *grown);
        if (!grown) {
            rc = mb_no_memory(err, "the recorded samples");
            break;
        }
        *list = grown;
        recorded *r = &grown[(*count)++];
        *r = (recorded){.sample = sqlite3_column_int64(s, 0),
                        .layers = (size_t)sqlite3_column_int64(s, 3),
                        .steps = (size_t)sqlite3_column_int64(s, 4)};
        snprintf(r->title, sizeof r->title, "%.120s, %.100s", (const char *)sqlite3_column_text(s, 1),
                 (const char *)sqlite3_column_text(s, 2));
    }
    sqlite3_reset(s);
    return rc == MB_OK && code != SQLITE_DONE ? store_error(w->p->store, code, "reading the records", err) : rc;
}

static int put_recorded(const shown *w, mb_error *err)
{
    recorded *list = NULL;
    size_t count = 0;
    figure drawing = {0}, *f = w->request->figures ? &drawing : NULL;
    int rc = list_recorded(w, &list, &count, err);
    if (rc == MB_OK && count == 0)
        paper_note(w->p,
                   "no steps or selected keys of this item are stored: a run keeps them of the first n samples of "
                   "a task\nwith \"record\": {\"selections\": n} in its config");
    if (rc == MB_OK && count)
        paper_section(w->p, "steps");
    for (size_t i = 0; rc == MB_OK && i < count; i++)
        rc = put_steps_of(w, list[i].sample, list[i].title, err);
    if (rc == MB_OK && count)
        paper_section(w->p, "selected keys: layers by position");
    if (rc == MB_OK && f)
        rc = show_figure_begin(f, w->p->store, w->p->run, w->request->figures, w->task, w->key, err);
    for (size_t i = 0; rc == MB_OK && i < count; i++)
        rc = put_maps_of(w, &list[i], f, err);
    if (f)
        rc = show_figure_end(f, w->p, rc, err);
    free(list);
    return rc;
}

/* ---- all of it ---- */

static int print(const shown *w, mb_error *err)
{
    char title[512];
    snprintf(title, sizeof title, "%.200s, item %.280s", w->task, w->key);
    paper_begin(w->p, title);
    if (w->prompt.text)
        paper_line(w->p, PAPER_PLAIN, "%zu tokens", w->prompt.tokens);
    if (w->depth >= 0)
        paper_line(w->p, PAPER_PLAIN, "needle at %g %% of %lld tokens", w->depth, (long long)w->context);
    paper_line(w->p, PAPER_PLAIN, "references: %s", w->references);
    if (w->prompt.text)
        put_prompt(w);
    int rc = put_answers(w, err);
    if (rc == MB_OK)
        rc = put_recorded(w, err);
    paper_end(w->p);
    return rc;
}

int mb_show(mb_store *store, const mb_show_request *request, const mb_report_options *options, mb_text *out,
            mb_error *err)
{
    paper p = paper_make(options->format, options->max_width, out);
    shown w = {.p = &p, .request = request};
    p.store = store;
    p.full = options->full;
    int rc = paper_for_programs(p.format)
                 ? mb_fail(err, MB_E_INPUT, "show is for people: rows are in v_record, v_trace, v_selection")
                 : store_find_run(store, request->run, &p.run, NULL, err);
    if (rc == MB_OK)
        rc = store_freeze(store, p.run, err);
    if (rc == MB_OK) {
        rc = find_item(&w, err);
        if (rc == MB_OK)
            rc = load_prompt(&w, err);
        if (rc == MB_OK)
            rc = print(&w, err);
        rc = store_thaw(store, rc, err);
    }
    if (rc == MB_OK && out->failed)
        rc = mb_no_memory(err, "a sample");
    free(w.task);
    free(w.key);
    free(w.references);
    free(w.prompt.text);
    free(w.prompt.starts);
    free(w.prompt.needles);
    return rc;
}
