/*
 * report_figures.c - the figures of a run inside its HTML page. gnuplot gives the parts of every drawing the same
 * names; on one page each drawing gets its own.
 */
#include "results/report.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Marks behind which a name of the drawing stands. */
static const char *const name_marks[] = {"id='", "id=\"", "href='#", "href=\"#", "url(#"};

static void own_names(mb_text *out, const char *svg, size_t number)
{
    for (const char *at = svg; *at;) {
        size_t mark = 0;
        for (size_t i = 0; i < sizeof name_marks / sizeof *name_marks && !mark; i++)
            if (strncmp(at, name_marks[i], strlen(name_marks[i])) == 0)
                mark = strlen(name_marks[i]);
        if (mark) {
            mb_text_append(out, at, mark);
            mb_text_printf(out, "f%zu-", number);
        } else {
            mb_text_append(out, at, 1);
            mark = 1;
        }
        at += mark;
    }
}

static int is_drawing(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 4 && strcmp(entry->d_name + n - 4, ".svg") == 0;
}

static int put_drawing(const paper *p, const char *folder, const char *name, size_t number, mb_error *err)
{
    char *path = mb_string_format("%s/%s", folder, name), *data = NULL;
    size_t size = 0;
    mb_text svg = {0};
    int rc = path ? mb_file_read(path, (size_t)64 << 20, &data, &size, err) : mb_no_memory(err, "a figure");
    if (rc == MB_OK)
        own_names(&svg, data, number);
    if (rc == MB_OK && svg.failed)
        rc = mb_no_memory(err, "a figure");
    if (rc == MB_OK && svg.data)
        paper_figure(p, name, svg.data);
    mb_text_free(&svg);
    free(data);
    free(path);
    return rc;
}

int report_figures(const paper *p, const char *label, const char *folder, mb_error *err)
{
    struct dirent **names = NULL;
    mb_text path = {0};
    int rc = MB_OK;
    if (p->format != MB_TABLE_HTML || !folder)
        return MB_OK;
    mb_text_printf(&path, "%s/", folder);
    store_file_name(&path, label);
    int n = path.failed ? -1 : scandir(path.data, &names, is_drawing, alphasort);
    if (n > 0)
        paper_section(p, "figures");
    for (int i = 0; i < n; i++) {
        if (rc == MB_OK)
            rc = put_drawing(p, path.data, names[i]->d_name, (size_t)i, err);
        free(names[i]);
    }
    free(names);
    mb_text_free(&path);
    return rc;
}
