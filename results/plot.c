/*
 * plot.c - every figure that a run has data for, as PNG and SVG. What stands under each title (model, device,
 * commit, run) and the stamp of a failed gate is the same on all of them.
 */
#include "results/identity.h"
#include "results/figure.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *column_text(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return text ? text : "";
}

/* "tiny | cpu: AMD EPYC | git 0123 | run quick, 2026-11-22 | 960 samples | seed 1" */
static int make_caption(mb_store *store, int64_t run, mb_text *caption, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(store,
                        "SELECT (SELECT group_concat(DISTINCT name || CASE WHEN synthetic THEN ' (SYNTHETIC "
                        "weights)' ELSE '' END) FROM "
                        "model WHERE id IN (SELECT model_id FROM cell WHERE run_id = ?1)), device, "
                        "coalesce(nullif(gpu, ''), cpu), git, "
                        "run, substr(started_at, 1, 10), samples, seed FROM v_runs WHERE run_id = ?1",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW)
        mb_text_printf(caption, "model %s   device %s (%s)   git %s   run %s, %s, %lld samples, seed %lld",
                       column_text(s, 0), column_text(s, 1), column_text(s, 2), column_text(s, 3),
                       column_text(s, 4), column_text(s, 5), (long long)sqlite3_column_int64(s, 6),
                       (long long)sqlite3_column_int64(s, 7));
    int rc = code == SQLITE_ROW || code == SQLITE_DONE ? MB_OK : store_error(store, code, "reading the run", err);
    sqlite3_reset(s);
    return rc;
}

/* "gates: 3 passed, 1 skipped" into the caption; the names of failed ones into the stamp. */
static int add_gates(mb_store *store, int64_t run, mb_text *caption, mb_text *stamp, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(store,
                        "SELECT count(*), sum(verdict = 'pass'), sum(verdict = 'skip'), "
                        "group_concat(CASE verdict WHEN 'fail' THEN name END, '; ') FROM v_gates WHERE run_id = ?",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW && sqlite3_column_int(s, 0)) {
        mb_text_printf(caption, "   gates: %d passed, %d skipped", sqlite3_column_int(s, 1),
                       sqlite3_column_int(s, 2));
        if (*column_text(s, 3))
            mb_text_printf(stamp, "GATE FAILED: %s", column_text(s, 3));
    }
    int rc =
        code == SQLITE_ROW || code == SQLITE_DONE ? MB_OK : store_error(store, code, "reading the gates", err);
    sqlite3_reset(s);
    return rc;
}

/* The shared style, once. */
static int write_style(const char *folder, mb_error *err)
{
    size_t size = 0;
    const char *style = mb_embedded_find("plots/style.gp", &size);
    char *path = mb_string_format("%s/data/style.gp", folder);
    int rc = MB_OK;
    if (!style)
        rc = mb_fail(err, MB_E_BUG, "plots/style.gp is not compiled in");
    else if (!path)
        rc = mb_no_memory(err, "drawing figures");
    else
        rc = mb_file_write(path, style, size, err);
    free(path);
    return rc;
}

/* Views that figures read, as temporary tables run_X: a view of quantiles is computed once, not once a figure. */
static int read_views(mb_store *store, int64_t run, mb_error *err)
{
    static const char *const views[] = {"recall",    "recall_config", "niah",       "forwards",
                                        "latency",   "speedup",       "break_even", "crossover",
                                        "breakdown", "memory",        "pareto",     "counter_grid"};
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < sizeof views / sizeof *views; i++) {
        char *sql = sqlite3_mprintf("CREATE TEMP TABLE run_%s AS SELECT * FROM v_%s WHERE run_id = %lld", views[i],
                                    views[i], (sqlite3_int64)run);
        rc = sql ? store_exec(store, sql, "reading the views", err) : mb_no_memory(err, "drawing figures");
        sqlite3_free(sql);
    }
    return rc;
}

/* Does no other run of the store have the same file name? */
static bool is_alone(mb_store *store, const char *label, mb_error *err)
{
    sqlite3_stmt *s = store_statement(store, "SELECT label FROM run WHERE label <> ?", err);
    mb_text own = {0};
    int rc = s ? MB_OK : MB_E_SYSTEM;
    store_file_name(&own, label);
    if (s)
        store_bind(s, "t", label);
    while (rc == MB_OK && sqlite3_step(s) == SQLITE_ROW) {
        mb_text other = {0};
        const char *theirs = (const char *)sqlite3_column_text(s, 0);
        store_file_name(&other, theirs ? theirs : "");
        if (own.data && other.data && strcmp(own.data, other.data) == 0)
            rc =
                mb_fail(err, MB_E_INPUT,
                        "the runs \"%s\" and \"%s\" would have one folder of figures, %s: choose another name for "
                        "one of them",
                        label, theirs, own.data);
        mb_text_free(&other);
    }
    if (s)
        sqlite3_reset(s);
    mb_text_free(&own);
    return rc == MB_OK;
}

/* "results/quick/quick#2" as a folder of its own: figures of a run stay with the run. */
static char *run_folder(mb_store *store, const char *run, const char *folder, int64_t *id, mb_error *err)
{
    char *label = NULL;
    mb_text path = {0};
    if (store_find_run(store, run, id, &label, err) != MB_OK)
        return NULL;
    mb_text_printf(&path, "%s/", folder);
    store_file_name(&path, label);
    char *taken = mb_text_take(&path);
    if (!taken)
        mb_no_memory(err, "drawing figures");
    else if (!is_alone(store, label, err)) {
        free(taken);
        taken = NULL;
    }
    free(label);
    return taken;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in a folder that end in suffix ("" = folders only), in order. */
static char **names_in(const char *folder, const char *suffix, size_t *count)
{
    DIR *dir = opendir(folder);
    char **names = NULL;
    *count = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t n = strlen(e->d_name), k = strlen(suffix);
        char *path = mb_string_format("%s/%s", folder, e->d_name);
        bool wanted = e->d_name[0] != '.' && strcmp(e->d_name, "data") != 0 && path &&
                      (k ? n > k && strcmp(e->d_name + n - k, suffix) == 0 : mb_folder_exists(path));
        free(path);
        char **grown = wanted ? realloc(names, (*count + 1) * sizeof *names) : NULL;
        if (!grown)
            continue;
        names = grown;
        if ((names[*count] = mb_string_copy(e->d_name)))
            ++*count;
    }
    if (dir)
        closedir(dir);
    if (names)
        qsort(names, *count, sizeof *names, compare_names);
    return names;
}

/* folder/index.html: the pictures of a run, or the runs of a folder. Names come from store_file_name(), which
 * leaves nothing that HTML would read. */
static int write_index(const char *folder, const char *title, bool runs, mb_error *err)
{
    mb_text html = {0};
    size_t count = 0;
    char **names = names_in(folder, runs ? "" : ".svg", &count), *path = mb_string_format("%s/index.html", folder);
    mb_text_printf(&html, "<!doctype html>\n<meta charset=\"utf-8\">\n<title>%s</title>\n<h1>%s</h1>\n", title,
                   title);
    for (size_t i = 0; i < count; i++) {
        if (runs)
            mb_text_printf(&html, "<p><a href=\"%s/index.html\">%s</a></p>\n", names[i], names[i]);
        else
            mb_text_printf(&html, "<p><img src=\"%s\" alt=\"%s\" style=\"max-width: 100%%\"></p>\n", names[i],
                           names[i]);
        free(names[i]);
    }
    free(names);
    int rc = !path || html.failed ? mb_no_memory(err, "drawing figures")
                                  : mb_file_write(path, html.data, html.length, err);
    free(path);
    mb_text_free(&html);
    return rc;
}

static int draw_all(figure *f, mb_error *err)
{
    int rc = store_freeze(f->store, f->run_id, err);
    if (rc == MB_OK)
        rc = read_views(f->store, f->run_id, err);
    if (rc == MB_OK)
        rc = figures_quality(f, err);
    if (rc == MB_OK)
        rc = figures_speed(f, err);
    return store_thaw(f->store, rc, err);
}

int figure_open(figure *f, mb_store *store, int64_t run_id, const char *folder, mb_error *err)
{
    *f = (figure){.store = store, .run_id = run_id, .own_folder = mb_string_copy(folder)};
    f->folder = f->own_folder;
    char *data = mb_string_format("%s/data", folder);
    int rc = data && f->own_folder ? mb_folder_make(data, err) : mb_no_memory(err, "drawing figures");
    free(data);
    if (rc == MB_OK)
        rc = write_style(folder, err);
    if (rc == MB_OK)
        rc = make_caption(store, run_id, &f->own_caption, err);
    if (rc == MB_OK)
        rc = add_gates(store, run_id, &f->own_caption, &f->own_stamp, err);
    if (rc == MB_OK && (f->own_caption.failed || f->own_stamp.failed))
        rc = mb_no_memory(err, "drawing figures");
    f->caption = f->own_caption.data ? f->own_caption.data : "";
    f->stamp = f->own_stamp.data ? f->own_stamp.data : "";
    return rc;
}

void figure_close(figure *f)
{
    figure_free(f);
    mb_text_free(&f->own_caption);
    mb_text_free(&f->own_stamp);
    free(f->own_folder);
    f->own_folder = NULL;
}

/* choice NULL: all figures. */
static int plot(mb_store *store, const char *run, const char *folder, const mb_plot_choice *choice, int *drawn,
                mb_error *err)
{
    figure f = {0};
    int64_t run_id = 0;
    *drawn = 0;
    char *own = run_folder(store, run, folder, &run_id, err);
    if (!own)
        return err && err->code ? err->code : MB_E_SYSTEM;
    int rc = figure_open(&f, store, run_id, own, err);
    f.choice = choice;
    if (rc == MB_OK)
        rc = draw_all(&f, err);
    if (rc == MB_OK)
        rc = write_index(own, strrchr(own, '/') + 1, false, err);
    if (rc == MB_OK)
        rc = write_index(folder, "Figures by run", true, err);
    *drawn = f.drawn;
    figure_close(&f);
    free(own);
    return rc;
}

bool mb_plot_name(size_t i, char name[64], char **shows)
{
    const char *path, *text;
    for (size_t at = 0; (path = mb_embedded_path(at)); at++) {
        size_t n = strlen(path);
        if (strncmp(path, "plots/", 6) != 0 || n < 10 || strcmp(path + n - 3, ".gp") != 0 ||
            strcmp(path, "plots/style.gp") == 0 || i-- > 0)
            continue;
        snprintf(name, 64, "%.*s", (int)(n - 9), path + 6);
        text = mb_embedded_find(path, NULL);
        text = text && strstr(text, " - ") ? strstr(text, " - ") + 3 : "";
        *shows = mb_string_format("%.*s", (int)strcspn(text, "\n"), text);
        return *shows != NULL;
    }
    return false;
}

static int check_choice(const mb_plot_choice *choice, mb_error *err)
{
    mb_guess guess = {.word = choice->figure ? choice->figure : ""};
    mb_text known = {0};
    char name[64], *shows;
    bool found = !choice->figure;
    if (choice->format && strcmp(choice->format, "png") != 0 && strcmp(choice->format, "svg") != 0 &&
        strcmp(choice->format, "pdf") != 0)
        return mb_fail(err, MB_E_INPUT, "figures are drawn as png, svg or pdf, not \"%s\"", choice->format);
    for (size_t i = 0; mb_plot_name(i, name, &shows); i++) {
        free(shows);
        found = found || strcmp(name, choice->figure) == 0;
        mb_guess_offer(&guess, name, strlen(name));
        mb_text_printf(&known, "%s%s", i ? ", " : "", name);
    }
    int rc = found ? MB_OK
                   : mb_fail(err, MB_E_INPUT, "no figure is named \"%s\"%s; known: %s", choice->figure,
                             mb_guess_phrase(&guess), known.data ? known.data : "");
    mb_text_free(&known);
    return rc;
}

int mb_plot_some(mb_store *store, const char *run, const char *folder, const mb_plot_choice *choice, int *drawn,
                 mb_error *err)
{
    *drawn = 0;
    int rc = check_choice(choice, err);
    if (rc == MB_OK)
        rc = plot(store, run, folder, choice, drawn, err);
    if (rc == MB_OK && choice->figure && *drawn == 0)
        rc = mb_fail(err, MB_E_INPUT, "the run has no rows for the figure %s: it needs another pass or sampler",
                     choice->figure);
    return rc;
}

int mb_plot_all(mb_store *store, const char *run, const char *folder, int *drawn, mb_error *err)
{
    return plot(store, run, folder, NULL, drawn, err);
}
