/*
 * figure.h - one figure: panels of series of points, written as a data file and a file of settings beside the
 * compiled-in gnuplot script, then drawn by gnuplot as PNG and SVG.
 */
#ifndef MB_RESULTS_FIGURE_H
#define MB_RESULTS_FIGURE_H

#include "results/store.h"

typedef struct figure_series {
    char *label;
    int style, dash, panel;
    bool key;
    double low, high;   /* of its points, bars included */
    double first, last; /* x */
} figure_series;

typedef struct figure {
    mb_store *store;
    int64_t run_id;
    const char *folder;           /* pictures here, scripts and data in folder/data */
    const char *caption, *stamp;  /* under every title: model, device, git, gates; stamp: a failed gate, or "" */
    const char *note;             /* what the bars of the next figure mean; NULL: it has none */
    const char *footnote;         /* what is to be known of its numbers, a line below; NULL: nothing */
    const mb_plot_choice *choice; /* what is to be drawn; NULL: all, as PNG and SVG */
    int drawn;                    /* pictures so far */
    /* the figure being built */
    const char *script; /* "accuracy_budget": plots/accuracy_budget.gp */
    char name[160];     /* of its files */
    mb_text data, panels, x_tics, y_tics, settings;
    figure_series *series;
    size_t series_count, panel_count, points, x_tic_count, y_tic_count;
    double x_min, x_max;
    bool failed;
    mb_text own_caption, own_stamp; /* of figure_open() */
    char *own_folder;
} figure;

/* ---- plot.c: a figure's surroundings ---- */
/* Makes the folder, writes what scripts share, and fills in store, run, folder, caption and stamp. */
int figure_open(figure *f, mb_store *store, int64_t run_id, const char *folder, mb_error *err);
void figure_close(figure *f);

void figure_begin(figure *f, const char *script, const char *suffix, const char *title);
void figure_panel(figure *f, const char *title);
/* style: from figure_style(), or 100 + i for the i-th part of a stack. key: named in the legend. */
void figure_series_begin(figure *f, const char *label, int style, int dash, bool key);
void figure_point(figure *f, double x, double y, double low, double high);
void figure_x_tic(figure *f, double x, const char *text);
void figure_y_tic(figure *f, double y, const char *text);
/* Writes and draws the figure; without points it is dropped. */
int figure_end(figure *f, mb_error *err);
void figure_free(figure *f); /* frees what a figure in work holds */

/* Colour and marker of a method: 0 for lossless ones, else its line in plots/methods.txt or a number from its
 * name: the same in every figure of every store. */
int figure_style(mb_store *store, const char *method);

/* A figure from one query on one view, with the columns panel, series, method, x, y, low, high, x tic, y tic, dash
 * and with ?1 = run; rows ordered by panel and series. method NULL: a part of a stack. */
int figure_query(figure *f, const char *script, const char *suffix, const char *title, const char *sql,
                 mb_error *err);

/* figures_quality.c, figures_speed.c: all figures of their kind */
int figures_quality(figure *f, mb_error *err);
int figures_speed(figure *f, mb_error *err);

#endif
