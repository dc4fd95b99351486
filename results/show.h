/*
 * show.h - inside of ./harness show: one recorded sample as data, and the parts that draw it.
 */
#ifndef MB_RESULTS_SHOW_H
#define MB_RESULTS_SHOW_H

#include "results/figure.h"
#include "results/paper.h"

typedef struct span { /* of positions or bytes, [from, to) */
    size_t from, to;
} span;

/* Prompt of the item: text, where each token begins, and where a reference answer stands in it. */
typedef struct shown_prompt {
    char *text; /* NULL: not recorded */
    size_t length;
    size_t *starts; /* [tokens + 1] byte at which a token begins */
    size_t tokens;
    span *needles; /* bytes */
    size_t needle_count;
} shown_prompt;

enum { MAP_CELLS = 512 }; /* layers, or steps, of a map at most */

/* Share of a stretch of positions that was selected, by row: layers or steps. */
typedef struct position_map {
    size_t rows, columns, positions;
    double *values; /* [rows][columns] mean over KV heads and forwards */
    double *weight; /* [rows] forwards x heads; 0: the row read everything, or nothing is known */
    double most;    /* largest value */
} position_map;

/* The reference answers in the text; references is a JSON list. */
int show_find_needles(mb_store *store, shown_prompt *p, const char *references, mb_error *err);
/* Token at a byte of the prompt. */
size_t show_token_at(const shown_prompt *p, size_t byte);

/* ---- show_map.c ---- */
typedef enum map_axis { MAP_BY_LAYER, MAP_BY_STEP } map_axis;
/* What v_selection holds of a sample; rows: how many there are at least. */
int show_map_load(mb_store *store, int64_t sample, map_axis axis, size_t rows, size_t columns, position_map *map,
                  mb_error *err);
void show_map_free(position_map *map);
/* The map as characters, needles over it. */
void show_map_text(const position_map *map, const shown_prompt *p, const char *row_name, size_t first_row,
                   mb_text *out);

/* ---- figures_show.c ---- */
int show_figure_begin(figure *f, mb_store *store, int64_t run, const char *folder, const char *task,
                      const char *item, mb_error *err);
void show_map_figure(figure *f, const position_map *map, const shown_prompt *p, const char *title);
/* Draws, says where, and frees; returns rc, or its own code where rc is MB_OK. */
int show_figure_end(figure *f, const paper *p, int rc, mb_error *err);

/* ---- show_diff.c ---- */
/* Words of b against words of a: [-gone-] and {+new+}, as git diff --word-diff. colour: for a terminal. */
void show_difference(const char *a, const char *b, bool colour, mb_text *out);

#endif
