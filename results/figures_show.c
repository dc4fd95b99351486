/*
 * figures_show.c - the maps of selected keys of one item as a picture: a panel a configuration, layers by
 * position.
 */
#include "results/figure.h"
#include "results/show.h"

#include <stdio.h>

int show_figure_begin(figure *f, mb_store *store, int64_t run, const char *folder, const char *task,
                      const char *item, mb_error *err)
{
    char suffix[128], title[300];
    int rc = figure_open(f, store, run, folder, err);
    if (rc != MB_OK)
        return rc;
    snprintf(suffix, sizeof suffix, "%.50s-%.70s", task, item);
    snprintf(title, sizeof title, "Selected keys: %.100s, item %.120s (red: a reference answer)", task, item);
    figure_begin(f, "selection", suffix, title);
    return MB_OK;
}

void show_map_figure(figure *f, const position_map *map, const shown_prompt *p, const char *title)
{
    char tic[32];
    figure_panel(f, title);
    figure_series_begin(f, "", 0, 1, false);
    for (size_t r = 0; r < map->rows; r++) {
        char name[32];
        snprintf(name, sizeof name, "%zu", r);
        figure_y_tic(f, (double)r + 1, name);
        for (size_t c = 0; c < map->columns && map->weight[r] > 0; c++)
            figure_point(f, (double)c + 1, (double)r + 1, map->values[r * map->columns + c], map->most);
    }
    for (size_t i = 0; i < 5; i++) {
        size_t position = i * map->positions / 4;
        snprintf(tic, sizeof tic, "%zu", position);
        figure_x_tic(f, (double)(i * map->columns) / 4 + 0.5, tic);
    }
    if (p->needle_count == 0)
        return;
    figure_series_begin(f, "a reference answer", 1, 1, false); /* the script draws series of this style as lines */
    for (size_t i = 0; i < p->needle_count; i++) {
        double middle =
            0.5 * (double)(show_token_at(p, p->needles[i].from) + show_token_at(p, p->needles[i].to - 1) + 1);
        figure_point(f, middle * (double)map->columns / (double)map->positions + 0.5, 0.5, 0, 0);
    }
}

int show_figure_end(figure *f, const paper *p, int rc, mb_error *err)
{
    if (rc == MB_OK)
        rc = figure_end(f, err);
    if (rc == MB_OK && f->drawn)
        paper_line(p, PAPER_PLAIN, "%d figure in %s", f->drawn, f->folder);
    figure_close(f);
    return rc;
}
