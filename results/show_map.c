/*
 * show_map.c - where the selected keys lie: rows are layers or steps, columns are stretches of positions, a cell
 * is the share of its keys that was selected, over KV heads and forwards.
 */
#include "results/show.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the blobs (schema.sql, table selection) ---- */

typedef struct numbers {
    const unsigned char *at, *end;
    bool broken;
} numbers;

static uint64_t next_number(numbers *n)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 63; shift += 7) {
        if (n->at == n->end)
            break;
        unsigned char byte = *n->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
    n->broken = true;
    return 0;
}

static void add_keys(position_map *map, size_t row, size_t from, size_t to)
{
    to = to > map->positions ? map->positions : to;
    for (size_t p = from; p < to; p++)
        map->values[row * map->columns + p * map->columns / map->positions] += 1;
}

/* One row of v_selection. */
static bool add_selection(position_map *map, size_t row, sqlite3_stmt *s)
{
    numbers n = {sqlite3_column_blob(s, 3), NULL, false};
    n.end = n.at ? n.at + sqlite3_column_bytes(s, 3) : NULL;
    int heads = sqlite3_column_int(s, 2);
    size_t page = (size_t)sqlite3_column_int64(s, 1), prefix = (size_t)sqlite3_column_int64(s, 4);
    for (int h = 0; h < heads && !n.broken; h++) {
        uint64_t count = next_number(&n);
        size_t id = 0;
        if (count == 0)
            add_keys(map, row, 0, prefix);
        for (uint64_t i = 1; i < count && !n.broken; i++) {
            id += (size_t)next_number(&n);
            size_t end = (id + 1) * page;
            if (!n.broken && id < prefix)
                add_keys(map, row, id * page, end < prefix ? end : prefix);
        }
    }
    map->weight[row] += heads;
    return !n.broken && page > 0;
}

/* Sums become shares of what a column's keys could have been. */
static void normalise(position_map *map)
{
    for (size_t r = 0; r < map->rows; r++)
        for (size_t c = 0; c < map->columns; c++) {
            size_t first = (c * map->positions + map->columns - 1) / map->columns;
            size_t last = ((c + 1) * map->positions + map->columns - 1) / map->columns;
            double keys = (double)(last - first) * map->weight[r], *value = &map->values[r * map->columns + c];
            *value = keys > 0 ? *value / keys : 0;
            map->most = *value > map->most ? *value : map->most;
        }
}

int show_map_load(mb_store *store, int64_t sample, map_axis axis, size_t rows, size_t columns, position_map *map,
                  mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(store,
                        "SELECT CASE WHEN ?2 THEN step - 1 ELSE layer END, granularity, kv_heads, pages, "
                        "prefix, max(prefix) OVER () FROM v_selection WHERE sample_id = ?1",
                        err);
    int code, rc = MB_OK;
    *map = (position_map){.rows = rows < MAP_CELLS ? rows : MAP_CELLS, .columns = columns};
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ij", sample, (int)(axis == MAP_BY_STEP));
    map->weight = calloc(map->rows + 1, sizeof *map->weight);
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t row = sqlite3_column_int64(s, 0);
        if (!map->positions) {
            map->positions = (size_t)sqlite3_column_int64(s, 5);
            map->columns = columns < map->positions ? columns : map->positions;
            map->values = calloc(map->rows * map->columns + 1, sizeof *map->values);
        }
        if (!map->values || !map->weight)
            rc = mb_no_memory(err, "a map of %zu x %zu", map->rows, map->columns);
        else if (row >= 0 && (size_t)row < map->rows && !add_selection(map, (size_t)row, s))
            rc = mb_fail(err, MB_E_INPUT, "%s: the database is damaged: the pages of a selection are not readable",
                         store->path);
    }
    sqlite3_reset(s);
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(store, code, "reading the selections", err);
    if (rc == MB_OK && map->positions)
        normalise(map);
    return rc;
}

void show_map_free(position_map *map)
{
    free(map->values);
    free(map->weight);
    *map = (position_map){0};
}

/* ---- as characters ---- */

static void put_needles(const position_map *map, const shown_prompt *p, mb_text *out)
{
    mb_text_puts(out, "         ");
    for (size_t c = 0; c < map->columns; c++) {
        size_t first = c * map->positions / map->columns, last = (c + 1) * map->positions / map->columns;
        bool here = false;
        for (size_t i = 0; i < p->needle_count; i++)
            here = here || (show_token_at(p, p->needles[i].from) < last &&
                            show_token_at(p, p->needles[i].to - 1) >= first);
        mb_text_puts(out, here ? "\xe2\x96\xbc" : " ");
    }
    mb_text_puts(out, p->needle_count ? "  a reference answer\n" : "\n");
}

void show_map_text(const position_map *map, const shown_prompt *p, const char *row_name, size_t first_row,
                   mb_text *out)
{
    static const char *const shades[] = {" ",           "\xc2\xb7", "\xe2\x96\x91", "\xe2\x96\x92", "\xe2\x96\x93",
                                         "\xe2\x96\x88"};
    put_needles(map, p, out);
    for (size_t r = 0; r < map->rows; r++) {
        mb_text_printf(out, "%-5s%3zu ", row_name, r + first_row);
        for (size_t c = 0; c < map->columns && map->weight[r] > 0; c++) {
            double share = map->values[r * map->columns + c] / (map->most > 0 ? map->most : 1);
            mb_text_puts(out, shades[share > 0 ? 1 + (int)(4.0 * share) : 0]);
        }
        mb_text_puts(out, map->weight[r] > 0 ? "\n" : "reads all of the prefix, or has no index\n");
    }
    mb_text_printf(out,
                   "         0%*zu\n         \xe2\x96\x88: %.0f %% of the keys there, \xc2\xb7: fewer than a "
                   "fourth of that\n",
                   (int)map->columns - 1, map->positions, 100 * map->most);
}
