/*
 * table.c - the one printer of tables: aligned text for terminals, Markdown, CSV and JSON lines.
 *
 * Terminal and Markdown are for people: reals are rounded, line breaks shown as a sign, columns aligned by what
 * they take on the screen (East Asian characters take two). CSV and JSON lines are for programs: nothing is
 * rounded.
 */
#include "results/paper.h"

#include "base/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- text ---- */

/* C0, DEL, C1: a terminal would obey them. */
static bool is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

/* Length in bytes of the character at text and its columns; a broken byte is one column. */
static size_t next_character(const char *text, size_t *columns)
{
    uint32_t code = 0;
    size_t n = mb_utf8_next(text, strnlen(text, 4), &code);
    /* A control character is shown as a sign or blank. */
    *columns = code == MB_UTF8_INVALID || is_control(code) ? 1 : mb_unicode_columns(code);
    return n;
}

size_t text_columns(const char *text)
{
    size_t total = 0, columns = 0;
    while (*text) {
        text += next_character(text, &columns);
        total += columns;
    }
    return total;
}

/* ---- building ---- */

void table_init(table *t, size_t columns, const char *const *names)
{
    *t = (table){.columns = columns};
    t->names = calloc(columns ? columns : 1, sizeof *t->names);
    t->failed = !t->names;
    for (size_t c = 0; !t->failed && c < columns; c++)
        t->failed = !(t->names[c] = mb_string_copy(names[c]));
}

void table_put(table *t, const char *text, bool number)
{
    if (t->failed)
        return;
    size_t used = t->cell_count;
    if (used == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 64;
        table_cell *cells = realloc(t->cells, capacity * sizeof *cells);
        if (!cells) {
            t->failed = true;
            return;
        }
        t->cells = cells;
        t->capacity = capacity;
    }
    t->cells[used].number = number;
    t->cells[used].text = mb_string_copy(text);
    t->failed = text && !t->cells[used].text;
    t->cell_count++;
}

void table_printf(table *t, bool number, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    table_put(t, text, number);
}

void table_free(table *t)
{
    for (size_t i = 0; t->cells && i < t->cell_count; i++)
        free(t->cells[i].text);
    for (size_t c = 0; t->names && c < t->columns; c++)
        free(t->names[c]);
    free(t->cells);
    free(t->names);
    *t = (table){0};
}

static size_t table_rows(const table *t)
{
    return t->columns ? t->cell_count / t->columns : 0;
}

static const table_cell *table_at(const table *t, size_t row, size_t column)
{
    return &t->cells[row * t->columns + column];
}

/* ---- CSV and JSON lines ---- */

static void csv_field(mb_text *out, const char *text)
{
    if (!text)
        return;
    if (!strpbrk(text, ",\"\r\n")) {
        mb_text_puts(out, text);
        return;
    }
    mb_text_puts(out, "\"");
    for (; *text; text++) {
        if (*text == '"')
            mb_text_puts(out, "\"");
        mb_text_append(out, text, 1);
    }
    mb_text_puts(out, "\"");
}

static void render_csv(const table *t, mb_text *out)
{
    for (size_t c = 0; c < t->columns; c++) {
        mb_text_puts(out, c ? "," : "");
        csv_field(out, t->names[c]);
    }
    mb_text_puts(out, "\n");
    for (size_t r = 0; r < table_rows(t); r++) {
        for (size_t c = 0; c < t->columns; c++) {
            mb_text_puts(out, c ? "," : "");
            csv_field(out, table_at(t, r, c)->text);
        }
        mb_text_puts(out, "\n");
    }
}

static void render_jsonl(const table *t, mb_text *out)
{
    for (size_t r = 0; r < table_rows(t); r++) {
        mb_text_puts(out, "{");
        for (size_t c = 0; c < t->columns; c++) {
            const table_cell *cell = table_at(t, r, c);
            mb_text_puts(out, c ? ", \"" : "\"");
            mb_text_json(out, t->names[c]);
            mb_text_puts(out, "\": ");
            if (!cell->text || (cell->number && strpbrk(cell->text, "nN"))) {
                mb_text_puts(out, "null"); /* no value, or inf/nan, which JSON does not know */
            } else if (cell->number) {
                mb_text_puts(out, cell->text);
            } else {
                mb_text_puts(out, "\"");
                mb_text_json(out, cell->text);
                mb_text_puts(out, "\"");
            }
        }
        mb_text_puts(out, "}\n");
    }
}

/* ---- terminal and Markdown ---- */

/* A control character, or a byte that is none. */
static bool unprintable(const char *text, size_t n)
{
    uint32_t code = 0;
    mb_utf8_next(text, n, &code);
    return code == MB_UTF8_INVALID || is_control(code);
}

/* Text as one line of at most `limit` columns (0: all); what was cut ends in an ellipsis. */
static void put_line(mb_text *out, const char *text, size_t limit, bool markdown)
{
    size_t total = text_columns(text), used = 0, columns = 0;
    bool cut = limit && total > limit;
    while (*text) {
        size_t n = next_character(text, &columns);
        if (cut && used + columns > limit - 1)
            break;
        if (*text == '\n')
            mb_text_puts(out, markdown ? " " : "\xe2\x8f\x8e"); /* return sign */
        else if (*text == '\t' || *text == '\r')
            mb_text_puts(out, " ");
        else if (unprintable(text, n))
            mb_text_puts(out, "\xef\xbf\xbd");
        else if (markdown && *text == '|')
            mb_text_puts(out, "\\|");
        else
            mb_text_append(out, text, n);
        used += columns;
        text += n;
    }
    if (cut)
        mb_text_puts(out, "\xe2\x80\xa6");
}

/* Length of the first head line of name: breaks after _ - / or a blank so that lines stay within width. */
static size_t head_line(const char *name, size_t width)
{
    size_t best = 0, length = strlen(name);
    if (length <= width)
        return length;
    for (size_t i = 0; i < length; i++) {
        if (i >= width && best)
            break;
        if (strchr("_-/ ", name[i]))
            best = i + 1;
    }
    return best ? best : length;
}

static size_t head_lines(const char *name, size_t width, size_t *widest)
{
    size_t lines = 0;
    *widest = 0;
    do {
        size_t n = head_line(name, width);
        size_t shown = n;
        while (shown && name[shown - 1] == ' ')
            shown--;
        *widest = shown > *widest ? shown : *widest;
        name += n;
        lines++;
    } while (*name);
    return lines;
}

static size_t cells_width(const table *t, size_t column)
{
    size_t width = 0;
    for (size_t r = 0; r < table_rows(t); r++) {
        const char *text = table_at(t, r, column)->text;
        size_t w = text ? text_columns(text) : 1;
        width = w > width ? w : width;
    }
    return width;
}

size_t table_width(const table *t, size_t column, bool wrap_head)
{
    size_t cells = cells_width(t, column), head = text_columns(t->names[column]);
    if (wrap_head)
        head_lines(t->names[column], cells > 8 ? cells : 8, &head);
    return head > cells ? head : cells;
}

static bool column_is_number(const table *t, size_t column)
{
    bool any = false;
    for (size_t r = 0; r < table_rows(t); r++) {
        const table_cell *cell = table_at(t, r, column);
        if (cell->text && *cell->text && !cell->number)
            return false;
        any = any || cell->number;
    }
    return any;
}

static void pad(mb_text *out, size_t n)
{
    while (n--)
        mb_text_puts(out, " ");
}

#define NARROWEST 8
#define LABEL_MOST 60 /* a text that needs more to be told from its neighbour is no label */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Width below which two different texts of a column would look alike once they are cut. */
static size_t least_width(const table *t, size_t column)
{
    size_t rows = table_rows(t), least = NARROWEST;
    const char **texts = calloc(rows + 1, sizeof *texts);
    for (size_t r = 0; texts && r < rows; r++) {
        const char *text = table_at(t, r, column)->text;
        texts[r] = text ? text : "";
    }
    if (texts)
        qsort(texts, rows, sizeof *texts, compare_texts);
    for (size_t r = 1; texts && r < rows; r++) {
        const char *a = texts[r - 1], *b = texts[r];
        size_t same = 0, columns = 0, n;
        if (strcmp(a, b) == 0)
            continue;
        for (; *a && *b && (n = next_character(a, &columns)) && strncmp(a, b, n) == 0; a += n, b += n)
            same += columns;
        size_t needed = same + 2 + 1; /* the first character that differs, and the sign of a cut */
        least = needed <= LABEL_MOST && needed > least ? needed : least;
    }
    free(texts);
    return least;
}

/* Takes a column off the widest until all fit. */
static bool narrow(size_t columns, size_t *widths, const size_t *least, int max_width)
{
    for (;;) {
        size_t total = 0, widest = columns;
        for (size_t c = 0; c < columns; c++) {
            total += widths[c] + (c ? 2 : 0);
            if (widths[c] > least[c] && (widest == columns || widths[c] > widths[widest]))
                widest = c;
        }
        if (max_width <= 0 || total <= (size_t)max_width)
            return true;
        if (widest == columns)
            return false;
        widths[widest]--;
    }
}

/* Narrows the widest text column until the table fits, no column below what tells its rows apart. False: it does
 * not fit even so. */
static bool fit(const table *t, size_t *widths, const bool *numbers, int max_width)
{
    size_t *least = calloc(t->columns + 1, sizeof *least);
    bool fits = false;
    for (size_t c = 0; least && c < t->columns; c++)
        least[c] = numbers[c] || max_width <= 0 ? widths[c] : least_width(t, c);
    fits = least && narrow(t->columns, widths, least, max_width);
    free(least);
    return fits;
}

/* The i-th of count cells of a line; the last one on the left has no blanks behind it. */
static void put_cell(mb_text *out, const char *text, size_t width, bool number, size_t i, size_t count)
{
    size_t columns = text_columns(text), space = columns < width ? width - columns : 0;
    mb_text_puts(out, i ? "  " : "");
    if (number)
        pad(out, space);
    put_line(out, text, width, false);
    if (!number && i + 1 < count)
        pad(out, space);
}

/* Some columns of a table on a terminal. */
typedef struct view {
    const table *t;
    const size_t *shown; /* [count] columns */
    size_t count;
    const bool *numbers; /* by column, as the widths */
    const size_t *widths;
    bool wrap_head;
} view;

static size_t view_head_lines(const view *v, size_t column)
{
    size_t widest;
    return v->wrap_head ? head_lines(v->t->names[column], v->widths[column], &widest) : 1;
}

/* What a column's head has on one of `lines` lines; it stands on the last ones. */
static void put_head_line(const view *v, size_t column, size_t line, size_t lines, mb_text *piece)
{
    const char *name = v->t->names[column];
    size_t own = view_head_lines(v, column), n = 0;
    if (line + own < lines)
        return;
    for (size_t skip = 0; skip <= line + own - lines; skip++) {
        name += n;
        n = v->wrap_head ? head_line(name, v->widths[column]) : strlen(name);
    }
    while (n && name[n - 1] == ' ')
        n--;
    mb_text_append(piece, name, n);
}

static void put_head(const view *v, mb_text *out)
{
    size_t lines = 1;
    for (size_t i = 0; i < v->count; i++) {
        size_t n = view_head_lines(v, v->shown[i]);
        lines = n > lines ? n : lines;
    }
    for (size_t line = 0; line < lines; line++) {
        for (size_t i = 0; i < v->count; i++) {
            mb_text piece = {0};
            put_head_line(v, v->shown[i], line, lines, &piece);
            put_cell(out, piece.data ? piece.data : "", v->widths[v->shown[i]], v->numbers[v->shown[i]], i,
                     v->count);
            mb_text_free(&piece);
        }
        mb_text_puts(out, "\n");
    }
}

/* One under the other: the head, a line, the rows. */
static void render_columns(const view *v, mb_text *out)
{
    put_head(v, out);
    for (size_t i = 0; i < v->count; i++) {
        mb_text_puts(out, i ? "  " : "");
        for (size_t n = 0; n < v->widths[v->shown[i]]; n++)
            mb_text_puts(out, "\xe2\x94\x80");
    }
    mb_text_puts(out, "\n");
    for (size_t r = 0; r < table_rows(v->t); r++) {
        for (size_t i = 0; i < v->count; i++) {
            const table_cell *cell = table_at(v->t, r, v->shown[i]);
            put_cell(out, cell->text ? cell->text : "-", v->widths[v->shown[i]], v->numbers[v->shown[i]], i,
                     v->count);
        }
        mb_text_puts(out, "\n");
    }
}

/* A table that is wider than the terminal goes on below, the first column, which says what a row is, repeated. */
static void render_terminal(const table *t, const bool *numbers, size_t *widths, int max_width, bool wrap_head,
                            mb_text *out)
{
    size_t *shown = calloc(t->columns + 1, sizeof *shown);
    if (!shown) {
        out->failed = true;
        return;
    }
    if (!fit(t, widths, numbers, max_width)) /* narrowing does not do it: then nothing is cut */
        for (size_t c = 0; c < t->columns; c++)
            widths[c] = table_width(t, c, wrap_head);
    for (size_t next = 0; next < t->columns;) {
        size_t count = 0, total = 0;
        mb_text_puts(out, next ? "\n" : "");
        if (next) {
            shown[count++] = 0;
            total = widths[0];
        }
        size_t first = count;
        while (next < t->columns &&
               (count == first || max_width <= 0 || total + 2 + widths[next] <= (size_t)max_width)) {
            total += widths[next] + (count ? 2 : 0);
            shown[count++] = next++;
        }
        render_columns(&(view){t, shown, count, numbers, widths, wrap_head}, out);
    }
    free(shown);
}

static void render_markdown(const table *t, const bool *numbers, mb_text *out)
{
    for (size_t c = 0; c < t->columns; c++) {
        mb_text_puts(out, c ? " | " : "| ");
        put_line(out, t->names[c], 0, true);
    }
    mb_text_puts(out, " |\n");
    for (size_t c = 0; c < t->columns; c++)
        mb_text_puts(out, numbers[c] ? "|---:" : "|---");
    mb_text_puts(out, "|\n");
    for (size_t r = 0; r < table_rows(t); r++) {
        for (size_t c = 0; c < t->columns; c++) {
            const char *text = table_at(t, r, c)->text;
            mb_text_puts(out, c ? " | " : "| ");
            put_line(out, text ? text : "-", 0, true);
        }
        mb_text_puts(out, " |\n");
    }
}

void table_render(const table *t, mb_table_format format, int max_width, bool wrap_head, mb_text *out)
{
    size_t *widths = calloc(t->columns ? t->columns : 1, sizeof *widths);
    bool *numbers = calloc(t->columns ? t->columns : 1, sizeof *numbers);
    if (t->failed || !widths || !numbers) {
        out->failed = true;
        goto out;
    }
    if (format == MB_TABLE_CSV) {
        render_csv(t, out);
        goto out;
    }
    if (format == MB_TABLE_JSONL) {
        render_jsonl(t, out);
        goto out;
    }
    if (format == MB_TABLE_HTML) {
        table_render_html(t, out);
        goto out;
    }
    if (format == MB_TABLE_LATEX) {
        table_render_latex(t, out);
        goto out;
    }
    for (size_t c = 0; c < t->columns; c++) {
        widths[c] = table_width(t, c, wrap_head);
        numbers[c] = column_is_number(t, c);
    }
    if (format == MB_TABLE_MARKDOWN)
        render_markdown(t, numbers, out);
    else
        render_terminal(t, numbers, widths, max_width, wrap_head, out);
out:
    free(widths);
    free(numbers);
}

/* ---- queries ---- */

/* A real for people, or with every digit for programs (the shortest text that reads back the same). */
static void put_real(table *t, double value, bool exact)
{
    char text[64];
    if (exact) {
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, value);
            if (strtod(text, NULL) == value)
                break;
        }
    } else if (value != 0 && (fabs(value) < 1e-3 || fabs(value) >= 1e7)) {
        snprintf(text, sizeof text, "%.4g", value);
    } else {
        snprintf(text, sizeof text, "%.*f", fabs(value) >= 1000 ? 1 : 4, value);
    }
    table_put(t, text, true);
}

int mb_table_query(mb_store *store, const char *sql, mb_table_format format, int max_width, mb_text *out,
                   mb_error *err)
{
    sqlite3_stmt *statement = NULL;
    const char *rest = NULL;
    table t = {0};
    bool exact = format == MB_TABLE_CSV || format == MB_TABLE_JSONL;
    int rc = sqlite3_prepare_v2(store->db, sql, -1, &statement, &rest);
    if (rc != SQLITE_OK)
        return mb_fail(err, MB_E_INPUT, "the query is not understood: %s", sqlite3_errmsg(store->db));
    int result = MB_OK;
    if (!statement || !sqlite3_stmt_readonly(statement) || sqlite3_column_count(statement) == 0) {
        result = mb_fail(err, MB_E_INPUT, "the query is not a SELECT: a store is read through its views");
        goto out;
    }
    size_t columns = (size_t)sqlite3_column_count(statement);
    const char *names[128];
    for (size_t c = 0; c < columns && c < 128; c++)
        names[c] = sqlite3_column_name(statement, (int)c);
    table_init(&t, columns < 128 ? columns : 128, names);
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW && !t.failed) {
        for (int c = 0; c < (int)t.columns; c++) {
            switch (sqlite3_column_type(statement, c)) {
            case SQLITE_NULL:
                table_put(&t, NULL, false);
                break;
            case SQLITE_INTEGER:
                table_printf(&t, true, "%lld", (long long)sqlite3_column_int64(statement, c));
                break;
            case SQLITE_FLOAT:
                put_real(&t, sqlite3_column_double(statement, c), exact);
                break;
            default:
                table_put(&t, (const char *)sqlite3_column_text(statement, c), false);
            }
        }
    }
    if (t.failed)
        result = mb_no_memory(err, "the rows of the query");
    else if (rc != SQLITE_DONE)
        result = store_error(store, rc, "running a query", err);
    if (result != MB_OK)
        goto out;
    if (t.cell_count == 0 && !exact) {
        mb_text_puts(out, "(no rows)\n");
    } else {
        size_t total = 0;
        for (size_t c = 0; c < t.columns; c++)
            total += table_width(&t, c, false) + 2;
        table_render(&t, format, max_width, max_width > 0 && total > (size_t)max_width + 2, out);
    }
    if (out->failed)
        result = mb_no_memory(err, "the rows of the query");
out:
    table_free(&t);
    sqlite3_finalize(statement);
    return result;
}
