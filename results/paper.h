/*
 * paper.h - what a report is written on: titles, lines, verdicts and tables, the same content for a terminal, as
 * Markdown, LaTeX or one HTML page. CSV and JSON lines are one table and no paper.
 */
#ifndef MB_RESULTS_PAPER_H
#define MB_RESULTS_PAPER_H

#include "results/store.h"

typedef struct paper {
    mb_store *store;
    int64_t run;
    mb_table_format format;
    int width;
    bool colour; /* the reader is a terminal */
    bool full;   /* everything, not a screen of it */
    mb_text *out;
} paper;

typedef enum paper_mood { PAPER_PLAIN, PAPER_GOOD, PAPER_BAD } paper_mood;

/* CSV or JSON lines. */
bool paper_for_programs(mb_table_format format);
/* A paper without a store, of this format; max_width 0: not known. */
paper paper_make(mb_table_format format, int max_width, mb_text *out);
/* The first line, and for HTML and LaTeX what stands in front of it; paper_end() closes the page. */
void paper_begin(const paper *p, const char *title);
void paper_end(const paper *p);
void paper_section(const paper *p, const char *title);
/* One line, an entry of a list where the format has lists. Lines of one list follow each other. */
void paper_line(const paper *p, paper_mood mood, const char *format, ...) MB_PRINTF(3, 4);
/* Small print below a table; line breaks in it are for the terminal. */
void paper_note(const paper *p, const char *format, ...) MB_PRINTF(2, 3);
/* wrap_head: long column names may take several lines (terminal only). */
void paper_table(const paper *p, const table *t, bool wrap_head);
/* Text that keeps its lines and blanks. */
void paper_text(const paper *p, const char *text);
/* What stands between the two is shut in HTML until a reader opens it. HTML only. */
void paper_fold(const paper *p, const char *summary);
void paper_unfold(const paper *p);
/* A drawing, an SVG document; HTML only. */
void paper_figure(const paper *p, const char *caption, const char *svg);

/* ---- table_markup.c ---- */
void table_render_html(const table *t, mb_text *out);
void table_render_latex(const table *t, mb_text *out);
/* Text with what the language reads as its own made harmless. */
void markup_html(mb_text *out, const char *text);
void markup_latex(mb_text *out, const char *text);
/* The character at text, which is no ASCII, where every LaTeX has it, else its number; returns its bytes. */
size_t markup_latex_character(mb_text *out, const char *text);

#endif
