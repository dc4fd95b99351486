/*
 * paper.c - the same report for a terminal, as Markdown, as LaTeX and as one HTML page. The page carries its style
 * sheet and the script that sorts its tables (results/page.css, results/page.js), so that it is one file to send.
 */
#include "results/paper.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 140 /* where the terminal's width is unknown */

bool paper_for_programs(mb_table_format format)
{
    return format == MB_TABLE_CSV || format == MB_TABLE_JSONL;
}

int mb_table_format_find(const char *word, mb_table_format *format, mb_error *err)
{
    static const struct {
        const char *word;
        mb_table_format format;
    } words[] = {{"terminal", MB_TABLE_TERMINAL}, {"md", MB_TABLE_MARKDOWN}, {"csv", MB_TABLE_CSV},
                 {"jsonl", MB_TABLE_JSONL},       {"latex", MB_TABLE_LATEX}, {"html", MB_TABLE_HTML}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(words[i].word, word) != 0)
            continue;
        *format = words[i].format;
        return MB_OK;
    }
    return mb_fail(err, MB_E_INPUT, "--format is one of terminal, md, csv, jsonl, latex, html, not \"%s\"", word);
}

paper paper_make(mb_table_format format, int max_width, mb_text *out)
{
    const char *no_colour = getenv("NO_COLOR"); /* no-color.org */
    return (paper){.format = format,
                   .width = max_width > 0 ? max_width : WIDTH,
                   .out = out,
                   .colour = format == MB_TABLE_TERMINAL && max_width > 0 && !(no_colour && *no_colour) &&
                             isatty(STDOUT_FILENO) == 1};
}

static void put_embedded(mb_text *out, const char *name)
{
    const char *text = mb_embedded_find(name, NULL);
    mb_text_puts(out, text ? text : "");
}

/* A text with its control characters spelled but for `kept`; takes `text`, NULL where there is no memory. */
static char *spelled(const paper *p, char *text, const char *kept)
{
    mb_text shown = {0};
    bool failed = !text;
    if (text)
        mb_text_visible(&shown, text, kept);
    free(text);
    failed = failed || shown.failed;
    char *result = failed ? NULL : shown.data ? mb_text_take(&shown) : mb_string_copy("");
    p->out->failed = p->out->failed || !result;
    mb_text_free(&shown);
    return result;
}

void paper_begin(const paper *p, const char *name)
{
    char *title = spelled(p, mb_string_copy(name), "");
    if (!title)
        return;
    switch (p->format) {
    case MB_TABLE_HTML:
        mb_text_puts(p->out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
        markup_html(p->out, title);
        mb_text_puts(p->out, "</title>\n<style>\n");
        put_embedded(p->out, "results/page.css");
        mb_text_puts(p->out, "</style>\n</head>\n<body>\n<h1>");
        markup_html(p->out, title);
        mb_text_puts(p->out, "</h1>\n");
        break;
    case MB_TABLE_LATEX:
        mb_text_puts(p->out, "% ");
        markup_latex(p->out, title);
        mb_text_puts(p->out, "\n% needs \\usepackage{booktabs}, \\usepackage[T1]{fontenc} and UTF-8\n");
        break;
    case MB_TABLE_MARKDOWN:
        mb_text_printf(p->out, "## %s\n\n", title);
        break;
    default:
        mb_text_printf(p->out, "%s\n", title);
    }
    free(title);
}

void paper_end(const paper *p)
{
    if (p->format != MB_TABLE_HTML)
        return;
    mb_text_puts(p->out, "<script>\n");
    put_embedded(p->out, "results/page.js");
    mb_text_puts(p->out, "</script>\n</body>\n</html>\n");
}

void paper_section(const paper *p, const char *name)
{
    char *title = spelled(p, mb_string_copy(name), "");
    if (!title)
        return;
    switch (p->format) {
    case MB_TABLE_HTML:
        mb_text_puts(p->out, "<h2>");
        markup_html(p->out, title);
        mb_text_puts(p->out, "</h2>\n");
        break;
    case MB_TABLE_LATEX:
        mb_text_puts(p->out, "\n\\paragraph{");
        markup_latex(p->out, title);
        mb_text_puts(p->out, "}\n\n");
        break;
    case MB_TABLE_MARKDOWN:
        mb_text_printf(p->out, "\n### %s\n\n", title);
        break;
    default:
        mb_text_printf(p->out, "\n%s\n\n", title);
    }
    free(title);
}

/* malloc'ed, control characters spelled but for `kept`; NULL and the paper failed: no memory. */
static char *make_text(const paper *p, const char *kept, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *text = n >= 0 ? malloc((size_t)n + 1) : NULL;
    if (text)
        vsnprintf(text, (size_t)n + 1, format, args);
    return spelled(p, text, kept);
}

/* The first word stands out where the mood is not plain. */
static void put_line(const paper *p, paper_mood mood, const char *text)
{
    static const char *const classes[] = {"", " class=\"good\"", " class=\"bad\""};
    switch (p->format) {
    case MB_TABLE_HTML:
        mb_text_printf(p->out, "<p%s>", classes[mood]);
        markup_html(p->out, text);
        mb_text_puts(p->out, "</p>\n");
        break;
    case MB_TABLE_LATEX:
        mb_text_puts(p->out, mood == PAPER_BAD ? "\\noindent\\textbf{" : "\\noindent{}");
        markup_latex(p->out, text);
        mb_text_puts(p->out, mood == PAPER_BAD ? "}\\\\\n" : "\\\\\n");
        break;
    case MB_TABLE_MARKDOWN:
        mb_text_printf(p->out, mood == PAPER_BAD ? "- **%s**\n" : "- %s\n", text);
        break;
    default:
        if (p->colour && mood != PAPER_PLAIN)
            mb_text_printf(p->out, "\033[%sm%s\033[0m\n", mood == PAPER_BAD ? "1;31" : "32", text);
        else
            mb_text_printf(p->out, "%s\n", text);
    }
}

void paper_line(const paper *p, paper_mood mood, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = make_text(p, "", format, args);
    va_end(args);
    if (text)
        put_line(p, mood, text);
    free(text);
}

/* Line breaks become blanks. */
static void unbreak(char *text)
{
    for (; *text; text++)
        if (isspace((unsigned char)*text))
            *text = ' ';
}

void paper_note(const paper *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = make_text(p, "\n", format, args);
    va_end(args);
    if (!text)
        return;
    if (p->format != MB_TABLE_TERMINAL)
        unbreak(text);
    switch (p->format) {
    case MB_TABLE_HTML:
        mb_text_puts(p->out, "<p class=\"note\">");
        markup_html(p->out, text);
        mb_text_puts(p->out, "</p>\n");
        break;
    case MB_TABLE_LATEX:
        mb_text_puts(p->out, "\n{\\small ");
        markup_latex(p->out, text);
        mb_text_puts(p->out, "}\n");
        break;
    default:
        mb_text_printf(p->out, "\n%s\n", text);
    }
    free(text);
}

void paper_table(const paper *p, const table *t, bool wrap_head)
{
    table_render(t, p->format, p->width, wrap_head, p->out);
}

/* Bytes of a colour (SGR) that begins here, which is all that show_difference() and its like write; else 0. */
static size_t colour_length(const char *text)
{
    size_t n = text[0] == '\033' && text[1] == '[' ? 2 : 0;
    if (n)
        n += strspn(text + n, "0123456789;");
    return n && text[n] == 'm' ? n + 1 : 0;
}

/* Control characters of foreign text would be obeyed by a terminal. */
static void put_harmless(mb_text *out, const char *text, bool colour)
{
    while (*text) {
        size_t n = colour ? colour_length(text) : 0;
        mb_text_append(out, text, n);
        text += n;
        for (n = *text != '\0'; text[n] && !(colour && colour_length(text + n)); n++)
            ;
        char *part = mb_string_format("%.*s", (int)n, text);
        if (part)
            mb_text_visible(out, part, "\n\t");
        out->failed = out->failed || !part;
        free(part);
        text += n;
    }
}

/* Signs of our own texts in a verbatim environment, and what would end it, or a block of Markdown. */
static const struct {
    mb_table_format format;
    const char *sign, *instead;
} verbatim_signs[] = {
    {MB_TABLE_MARKDOWN, "```", "'''"},      {MB_TABLE_LATEX, "\\end{verbatim}", "\\end {verbatim}"},
    {MB_TABLE_LATEX, "\xe2\x96\xb6", ">>"}, /* marks of an answer */
    {MB_TABLE_LATEX, "\xe2\x97\x80", "<<"}, {MB_TABLE_LATEX, "\xe2\x96\xbc", "v"},
    {MB_TABLE_LATEX, "\xe2\x96\x91", "."}, /* shades of a map */
    {MB_TABLE_LATEX, "\xe2\x96\x92", ":"},  {MB_TABLE_LATEX, "\xe2\x96\x93", "+"},
    {MB_TABLE_LATEX, "\xe2\x96\x88", "#"}};

static const char *verbatim_sign(mb_table_format format, const char *text, size_t *n)
{
    for (size_t i = 0; i < sizeof verbatim_signs / sizeof *verbatim_signs; i++) {
        *n = strlen(verbatim_signs[i].sign);
        if (verbatim_signs[i].format == format && strncmp(text, verbatim_signs[i].sign, *n) == 0)
            return verbatim_signs[i].instead;
    }
    *n = 1;
    return NULL;
}

static void put_verbatim(mb_text *out, mb_table_format format, const char *text)
{
    for (size_t n; *text; text += n) {
        unsigned char c = (unsigned char)*text;
        const char *instead = verbatim_sign(format, text, &n);
        if (instead)
            mb_text_puts(out, instead);
        else if (c >= 0x80 && format == MB_TABLE_LATEX)
            n = markup_latex_character(out, text);
        else
            mb_text_append(out, (c < 0x20 && c != '\n') || c == 0x7f ? "?" : text, 1);
    }
}

void paper_text(const paper *p, const char *text)
{
    size_t n = strlen(text);
    const char *end = n && text[n - 1] == '\n' ? "" : "\n";
    switch (p->format) {
    case MB_TABLE_HTML:
        mb_text_puts(p->out, "<pre>");
        markup_html(p->out, text);
        mb_text_puts(p->out, "</pre>\n");
        break;
    case MB_TABLE_MARKDOWN:
    case MB_TABLE_LATEX:
        mb_text_puts(p->out, p->format == MB_TABLE_LATEX ? "\\begin{verbatim}\n" : "\n```\n");
        put_verbatim(p->out, p->format, text);
        mb_text_printf(p->out, p->format == MB_TABLE_LATEX ? "%s\\end{verbatim}\n" : "%s```\n\n", end);
        break;
    default:
        put_harmless(p->out, text, p->colour);
        mb_text_puts(p->out, end);
    }
}

void paper_fold(const paper *p, const char *summary)
{
    if (p->format != MB_TABLE_HTML)
        return;
    mb_text_puts(p->out, "<details><summary>");
    markup_html(p->out, summary);
    mb_text_puts(p->out, "</summary>\n");
}

void paper_unfold(const paper *p)
{
    mb_text_puts(p->out, p->format == MB_TABLE_HTML ? "</details>\n" : "");
}

void paper_figure(const paper *p, const char *caption, const char *svg)
{
    const char *drawing = strstr(svg, "<svg");
    if (p->format != MB_TABLE_HTML || !drawing)
        return;
    mb_text_puts(p->out, "<figure>\n");
    mb_text_puts(p->out, drawing);
    mb_text_puts(p->out, "\n<figcaption>");
    markup_html(p->out, caption);
    mb_text_puts(p->out, "</figcaption>\n</figure>\n");
}
