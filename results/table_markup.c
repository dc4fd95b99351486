/*
 * table_markup.c - tables and text as HTML and as LaTeX. What was stored is foreign text: nothing of it is markup,
 * and control characters are shown as a sign.
 */
#include "results/paper.h"

#include <string.h>

void markup_html(mb_text *out, const char *text)
{
    for (; text && *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '&')
            mb_text_puts(out, "&amp;");
        else if (c == '<')
            mb_text_puts(out, "&lt;");
        else if (c == '>')
            mb_text_puts(out, "&gt;");
        else if (c == '"')
            mb_text_puts(out, "&quot;");
        else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            mb_text_puts(out, "\xef\xbf\xbd");
        else
            mb_text_append(out, text, 1);
    }
}

/* Signs of our own texts that pdfLaTeX has no letter for. Other characters behind Latin-1 are spelled [U+4E2D]:
 * one that a font lacks would end the compilation. */
static const struct {
    const char *sign, *latex;
} latex_signs[] = {{"\xc2\xb1", "$\\pm$"},
                   {"\xce\x94", "$\\Delta$"},
                   {"\xe2\x80\xa6", "\\ldots{}"},
                   {"\xc3\x97", "$\\times$"},
                   {"\xe2\x88\x92", "$-$"}};

size_t markup_latex_character(mb_text *out, const char *text)
{
    uint32_t character = 0;
    size_t n = mb_utf8_next(text, strnlen(text, 4), &character);
    if (character >= 0xa1 && character <= 0xff && character != 0xad)
        mb_text_append(out, text, n);
    else if (character == MB_UTF8_INVALID)
        mb_text_puts(out, "?");
    else
        mb_text_printf(out, "[U+%04X]", (unsigned)character);
    return n;
}

void markup_latex(mb_text *out, const char *text)
{
    while (text && *text) {
        unsigned char c = (unsigned char)*text;
        size_t n = 1;
        const char *instead = NULL;
        for (size_t i = 0; i < sizeof latex_signs / sizeof *latex_signs && !instead; i++) {
            if (strncmp(text, latex_signs[i].sign, strlen(latex_signs[i].sign)) == 0) {
                instead = latex_signs[i].latex;
                n = strlen(latex_signs[i].sign);
            }
        }
        if (instead)
            mb_text_puts(out, instead);
        else if (strchr("&%$#_{}", c))
            mb_text_printf(out, "\\%c", c);
        else if (c == '\\')
            mb_text_puts(out, "\\textbackslash{}");
        else if (c == '~')
            mb_text_puts(out, "\\textasciitilde{}");
        else if (c == '^')
            mb_text_puts(out, "\\textasciicircum{}");
        else if (c >= 0x80)
            n = markup_latex_character(out, text);
        else
            mb_text_append(out, c < 0x20 || c == 0x7f ? " " : text, 1);
        text += n;
    }
}

static bool is_number_column(const table *t, size_t column)
{
    bool any = false;
    for (size_t i = column; i < t->cell_count; i += t->columns) {
        const table_cell *cell = &t->cells[i];
        if (cell->text && *cell->text && !cell->number)
            return false;
        any = any || cell->number;
    }
    return any;
}

void table_render_html(const table *t, mb_text *out)
{
    mb_text_puts(out, "<div class=\"wide\"><table>\n<thead><tr>");
    for (size_t c = 0; c < t->columns; c++) {
        mb_text_printf(out, "<th%s>", is_number_column(t, c) ? " class=\"n\"" : "");
        markup_html(out, t->names[c]);
        mb_text_puts(out, "</th>");
    }
    mb_text_puts(out, "</tr></thead>\n<tbody>\n");
    for (size_t i = 0; i + t->columns <= t->cell_count; i += t->columns) {
        mb_text_puts(out, "<tr>");
        for (size_t c = 0; c < t->columns; c++) {
            const table_cell *cell = &t->cells[i + c];
            mb_text_puts(out, is_number_column(t, c) ? "<td class=\"n\">" : "<td>");
            markup_html(out, cell->text ? cell->text : "-");
            mb_text_puts(out, "</td>");
        }
        mb_text_puts(out, "</tr>\n");
    }
    mb_text_puts(out, "</tbody></table></div>\n");
}

void table_render_latex(const table *t, mb_text *out)
{
    mb_text_puts(out, "\\begin{tabular}{");
    for (size_t c = 0; c < t->columns; c++)
        mb_text_puts(out, is_number_column(t, c) ? "r" : "l");
    mb_text_puts(out, "}\n\\toprule\n");
    for (size_t c = 0; c < t->columns; c++) {
        mb_text_puts(out, c ? " & " : "");
        markup_latex(out, t->names[c]);
    }
    mb_text_puts(out, " \\\\\n\\midrule\n");
    for (size_t i = 0; i + t->columns <= t->cell_count; i += t->columns) {
        for (size_t c = 0; c < t->columns; c++) {
            mb_text_puts(out, c ? " & " : "");
            markup_latex(out, t->cells[i + c].text ? t->cells[i + c].text : "-");
        }
        mb_text_puts(out, " \\\\\n");
    }
    mb_text_puts(out, "\\bottomrule\n\\end{tabular}\n");
}
