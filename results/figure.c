/*
 * figure.c - builds one figure and lets gnuplot draw it.
 *
 * Everything that gnuplot reads stays in folder/data: NAME.dat, NAME.vars, the script and style.gp, so that
 * `cd folder/data && gnuplot -e "name='NAME'" SCRIPT.gp` draws it again after a change by hand. A warning of
 * gnuplot is kept as NAME.log.
 */
#include "results/figure.h"

#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

extern char **environ;

/* ---- building ---- */

/* The one way of a text to gnuplot. In single quotes gnuplot runs no commands, expands no macros and knows no
 * escape. A quote itself is joined to the string from double quotes: gnuplot 5.4 does not read two doubled ones in
 * a row. Control characters are spelled out: a newline would end the string. */
static void put_string(mb_text *text, const char *value)
{
    mb_text shown = {0};
    mb_text_visible(&shown, value, "");
    mb_text_puts(text, "'");
    for (const char *p = shown.data ? shown.data : ""; *p; p++)
        mb_text_append(text, *p == '\'' ? "'.\"'\".'" : p, *p == '\'' ? 7 : 1);
    mb_text_puts(text, "'");
    text->failed = text->failed || shown.failed;
    mb_text_free(&shown);
}

void figure_begin(figure *f, const char *script, const char *suffix, const char *title)
{
    figure_free(f);
    f->script = script;
    snprintf(f->name, sizeof f->name, "%s%s%s", script, suffix && *suffix ? "-" : "", suffix ? suffix : "");
    for (char *p = f->name; *p; p++) /* a file name that needs no quoting anywhere */
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *p))
            *p = '_';
    mb_text_puts(&f->settings, "figure_title = ");
    put_string(&f->settings, title);
    mb_text_puts(&f->settings, "\nfigure_caption = ");
    put_string(&f->settings, f->caption);
    mb_text_puts(&f->settings, "\nfigure_stamp = ");
    put_string(&f->settings, f->stamp);
    mb_text_puts(&f->settings, "\nfigure_note = ");
    put_string(&f->settings, f->note ? f->note : "");
    mb_text_puts(&f->settings, "\nfigure_footnote = ");
    put_string(&f->settings, f->footnote ? f->footnote : "");
    mb_text_puts(&f->settings, "\n");
}

void figure_panel(figure *f, const char *title)
{
    mb_text_puts(&f->panels, f->panel_count ? ", " : "");
    put_string(&f->panels, title);
    f->panel_count++;
}

void figure_series_begin(figure *f, const char *label, int style, int dash, bool key)
{
    figure_series *grown = realloc(f->series, (f->series_count + 1) * sizeof *grown);
    char *copy = mb_string_copy(label);
    if (!grown || !copy) {
        free(copy);
        f->series = grown ? grown : f->series;
        f->failed = true;
        return;
    }
    f->series = grown;
    grown[f->series_count++] =
        (figure_series){copy, style, dash, (int)f->panel_count, key, INFINITY, -INFINITY, INFINITY, -INFINITY};
    mb_text_printf(&f->data, "%s# panel %zu: ", f->series_count > 1 ? "\n\n" : "", f->panel_count);
    mb_text_visible(&f->data, label, "");
    mb_text_puts(&f->data, "\n");
}

void figure_point(figure *f, double x, double y, double low, double high)
{
    mb_text_printf(&f->data, "%.10g %.10g %.10g %.10g\n", x, y, isnan(low) ? y : low, isnan(high) ? y : high);
    if (f->points++ == 0) {
        f->x_min = f->x_max = x;
    }
    f->x_min = fmin(f->x_min, x);
    f->x_max = fmax(f->x_max, x);
    figure_series *series = f->series_count ? &f->series[f->series_count - 1] : NULL;
    if (series) {
        series->low = fmin(series->low, isnan(low) ? y : fmin(y, low));
        series->high = fmax(series->high, isnan(high) ? y : fmax(y, high));
        series->first = fmin(series->first, x);
        series->last = fmax(series->last, x);
    }
}

static void put_tic(mb_text *tics, const char *axis, size_t *count, double at, const char *text)
{
    char place[48];
    snprintf(place, sizeof place, " #%.10g\n", at); /* ends every tic: looked up to say each only once */
    if (tics->data && strstr(tics->data, place))
        return;
    mb_text format = {0}; /* a tic's text is a format: per cents double */
    for (; *text; text++)
        mb_text_append(&format, *text == '%' ? "%%" : text, *text == '%' ? 2 : 1);
    ++*count;
    mb_text_printf(tics, "%s_tic_at[%zu] = %.10g; %s_tic_text[%zu] = ", axis, *count, at, axis, *count);
    put_string(tics, format.data ? format.data : "");
    tics->failed = tics->failed || format.failed;
    mb_text_free(&format);
    mb_text_puts(tics, place);
}

void figure_x_tic(figure *f, double x, const char *text)
{
    put_tic(&f->x_tics, "x", &f->x_tic_count, x, text);
}

void figure_y_tic(figure *f, double y, const char *text)
{
    put_tic(&f->y_tics, "y", &f->y_tic_count, y, text);
}

void figure_free(figure *f)
{
    mb_text *texts[] = {&f->data, &f->panels, &f->x_tics, &f->y_tics, &f->settings};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        mb_text_free(texts[i]);
    for (size_t i = 0; i < f->series_count; i++)
        free(f->series[i].label);
    free(f->series);
    f->series = NULL;
    f->series_count = f->panel_count = f->points = f->x_tic_count = f->y_tic_count = 0;
}

/* The style of a method: the line that plots/methods.txt has it on; else one behind those, from its name. */
static int named_style(const char *method)
{
    const char *line = mb_embedded_find("plots/methods.txt", NULL);
    int style = 0;
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (; line && *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n')) {
        if (*line == '#')
            continue;
        style++;
        if (strncmp(line, method, strcspn(line, "\n")) == 0 && strlen(method) == strcspn(line, "\n"))
            return style;
    }
    for (const char *p = method; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    /* 15 colours and 9 markers repeat after 45. The first eight colours are those of methods that anybody's is
     * compared with; it gets one of the other seven. */
    return (style + 14) / 15 * 15 + 9 + (int)(hash % 7) + 15 * (int)(hash / 7 % 3);
}

int figure_style(mb_store *store, const char *method)
{
    mb_error err = {0};
    int64_t lossless = 0;
    bool found = false;
    sqlite3_stmt *s = store_statement(store, "SELECT 1 FROM method WHERE name = ?1 AND caps & 8", &err);
    if (!s)
        return 1;
    store_bind(s, "t", method);
    return store_step_integer(store, s, &lossless, &found, "naming colours", &err) == MB_OK && found
               ? 0
               : named_style(method);
}

/* ---- settings ---- */

/* Has an earlier series the same name in the legend? */
static bool key_seen(const figure *f, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (f->series[j].key && strcmp(f->series[j].label, f->series[i].label) == 0)
            return true;
    return false;
}

/* Places and texts of an axis's tics as arrays, and the list that `set xtics` takes: it names the arrays, so that
 * no text is part of what the script evaluates. */
static void put_tics(mb_text *out, const char *axis, const mb_text *tics, size_t count)
{
    size_t room = count ? count : 1;
    mb_text_printf(out, "array %s_tic_at[%zu]\narray %s_tic_text[%zu]\n", axis, room, axis, room);
    mb_text_puts(out, tics->data ? tics->data : "");
    mb_text_printf(out, "%s_tics = \"(", axis);
    for (size_t i = 1; i <= count; i++)
        mb_text_printf(out, "%s%s_tic_text[%zu] %s_tic_at[%zu]", i > 1 ? ", " : "", axis, i, axis, i);
    mb_text_printf(out, ")\"\n%s_tic_count = %zu\n", axis, count);
}

/* An end of every panel's axis: the least or greatest of a field of its series. */
static void put_ends(const figure *f, mb_text *out, const char *name, size_t field, bool greatest)
{
    mb_text_printf(out, "array panel_%s[%zu] = [", name, f->panel_count);
    for (size_t p = 1; p <= f->panel_count; p++) {
        double end = greatest ? -INFINITY : INFINITY;
        for (size_t i = 0; i < f->series_count; i++) {
            double value = *(const double *)(const void *)((const char *)&f->series[i] + field);
            if (f->series[i].panel == (int)p)
                end = greatest ? fmax(end, value) : fmin(end, value);
        }
        mb_text_printf(out, p > 1 ? ", %.10e" : "%.10e", isfinite(end) ? end : 0.0);
    }
    mb_text_puts(out, "]\n");
}

/* The numbers of each panel's series, as one text a panel. */
static void put_panel_blocks(const figure *f, mb_text *out)
{
    mb_text_printf(out, "array panel_blocks[%zu] = [", f->panel_count);
    for (size_t p = 1; p <= f->panel_count; p++) {
        bool first = true;
        mb_text_puts(out, p > 1 ? ", '" : "'");
        for (size_t i = 0; i < f->series_count; i++) {
            if (f->series[i].panel != (int)p)
                continue;
            mb_text_printf(out, first ? "%zu" : " %zu", i);
            first = false;
        }
        mb_text_puts(out, "'");
    }
    mb_text_puts(out, "]\n");
}

/* An integer field of every series. */
static void put_numbers(const figure *f, mb_text *out, const char *name, size_t field)
{
    mb_text_printf(out, "array block_%s[%zu] = [", name, f->series_count);
    for (size_t i = 0; i < f->series_count; i++)
        mb_text_printf(out, i ? ", %d" : "%d", *(const int *)(const void *)((const char *)&f->series[i] + field));
    mb_text_puts(out, "]\n");
}

/* Whether a label has this word, which is not its first. */
static bool has_word(const char *label, const char *word, size_t length)
{
    for (const char *at = strchr(label, ' '); at; at = strchr(at + 1, ' '))
        if (strncmp(at + 1, word, length) == 0 && (at[1 + length] == ' ' || at[1 + length] == '\0'))
            return true;
    return false;
}

/* Whether all methods of the legend, two or more, have this option: then it tells none from another. */
static bool is_common(const figure *f, const char *word, size_t length)
{
    const char *first = NULL;
    bool several = false;
    for (size_t i = 0; i < f->series_count; i++) {
        const figure_series *s = &f->series[i];
        if (!s->key || s->style == 0)
            continue;
        if (!has_word(s->label, word, length))
            return false;
        several = several || (first && strcmp(first, s->label) != 0);
        first = s->label;
    }
    return several;
}

/* A label without the options that all have; those go to `common`, once. */
static void shorten_label(const figure *f, const figure_series *s, mb_text *shown, mb_text *common)
{
    size_t length = strcspn(s->label, " ");
    mb_text_append(shown, s->label, length);
    for (const char *at = s->label + length; *at == ' '; at += 1 + length) {
        length = strcspn(at + 1, " ");
        bool left_out = s->style != 0 && memchr(at + 1, '=', length) && is_common(f, at + 1, length);
        if (!left_out)
            mb_text_append(shown, at, 1 + length);
        else if (!common->data || !has_word(common->data, at + 1, length))
            mb_text_append(common, at, 1 + length);
    }
}

/* The legend: each label once, in the order of the series. What all have stands under the figure. */
static void put_keys(const figure *f, mb_text *out)
{
    size_t keys = 0, widest = 0;
    mb_text entries = {0}, common = {0};
    for (size_t i = 0; i < f->series_count; i++) {
        if (!f->series[i].key || key_seen(f, i))
            continue;
        mb_text label = {0};
        shorten_label(f, &f->series[i], &label, &common);
        const char *shown = label.data ? label.data : "";
        widest = text_columns(shown) > widest ? text_columns(shown) : widest;
        keys++;
        mb_text_printf(&entries, "key_title[%zu] = ", keys);
        put_string(&entries, shown);
        mb_text_printf(&entries, "; key_style[%zu] = %d; key_dash[%zu] = %d\n", keys, f->series[i].style, keys,
                       f->series[i].dash);
        entries.failed = entries.failed || label.failed;
        mb_text_free(&label);
    }
    size_t room = keys ? keys : 1;
    mb_text_printf(out, "keys = %zu\nkey_columns = %zu\n", keys, widest);
    mb_text_printf(out, "array key_title[%zu]\narray key_style[%zu]\narray key_dash[%zu]\n", room, room, room);
    mb_text_puts(out, entries.data ? entries.data : "");
    if (common.data) {
        mb_text_puts(out, "figure_note = figure_note.(figure_note eq '' ? '' : '; ').'all methods:'.");
        put_string(out, common.data);
        mb_text_puts(out, "\n");
    }
    out->failed = out->failed || entries.failed || common.failed;
    mb_text_free(&entries);
    mb_text_free(&common);
}

/* Arrays of the script: see plots/README.md. */
static void put_arrays(figure *f, mb_text *out)
{
    mb_text_printf(out, "panels = %zu\narray panel_title[%zu] = [%s]\n", f->panel_count, f->panel_count,
                   f->panels.data);
    put_panel_blocks(f, out);
    put_numbers(f, out, "style", offsetof(figure_series, style));
    put_numbers(f, out, "dash", offsetof(figure_series, dash));
    put_keys(f, out);
    put_tics(out, "x", &f->x_tics, f->x_tic_count);
    put_tics(out, "y", &f->y_tics, f->y_tic_count);
    mb_text_printf(out, "x_min = %.10e; x_max = %.10e\n", f->x_min, f->x_max);
    put_ends(f, out, "low", offsetof(figure_series, low), false);
    put_ends(f, out, "high", offsetof(figure_series, high), true);
    put_ends(f, out, "first", offsetof(figure_series, first), false);
    put_ends(f, out, "last", offsetof(figure_series, last), true);
}

/* ---- gnuplot ---- */

/* folder/data/FILE */
static int write_text(const figure *f, const char *file, const char *extension, const char *data, size_t size,
                      mb_error *err)
{
    char *path = mb_string_format("%s/data/%s%s", f->folder, file, extension);
    int rc = path ? mb_file_write(path, data, size, err) : mb_no_memory(err, "drawing %s", f->name);
    free(path);
    return rc;
}

static int write_embedded(const figure *f, const char *script, mb_error *err)
{
    char path[256];
    size_t size = 0;
    snprintf(path, sizeof path, "plots/%s.gp", script);
    const char *text = mb_embedded_find(path, &size);
    if (!text)
        return mb_fail(err, MB_E_BUG, "%s is not compiled in", path);
    return write_text(f, script, ".gp", text, size, err);
}

/* Reads what a pipe says until its end; keeps the first part. */
static void read_all(int fd, char *said, size_t cap)
{
    size_t used = 0;
    char rest[512];
    for (;;) {
        bool room = used + 1 < cap;
        ssize_t n = read(fd, room ? said + used : rest, room ? cap - 1 - used : sizeof rest);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += room ? (size_t)n : 0;
    }
    said[used] = '\0';
}

typedef struct drawing {
    pid_t child;
    int fd;
} drawing;

/* Starts gnuplot in folder/data with no shell in between; its standard error goes into a pipe. */
static int start_gnuplot(const figure *f, const char *format, drawing *d, mb_error *err)
{
    char *folder = mb_string_format("%s/data", f->folder);
    char *variables = mb_string_format("name='%s'; format='%s'", f->name, format);
    char *script = mb_string_format("%s.gp", f->script);
    int pipes[2] = {-1, -1}, rc = MB_OK;
    posix_spawn_file_actions_t actions;
    bool have_actions = false;
    if (!folder || !variables || !script) {
        rc = mb_no_memory(err, "drawing %s", f->name);
        goto out;
    }
    if (pipe2(pipes, O_CLOEXEC) != 0 || posix_spawn_file_actions_init(&actions) != 0) {
        rc = mb_fail(err, MB_E_SYSTEM, "cannot start gnuplot: %s", strerror(errno));
        goto out;
    }
    have_actions = true;
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, pipes[1], 2);
    posix_spawn_file_actions_addchdir_np(&actions, folder);
    char *arguments[] = {"gnuplot", "-d", "-e", variables, script, NULL};
    int code = posix_spawnp(&d->child, "gnuplot", &actions, NULL, arguments, environ);
    if (code != 0) {
        d->child = -1;
        rc = mb_fail(
            err, MB_E_SYSTEM,
            "gnuplot cannot be started (%s): install gnuplot-nox (make deps) for figures; the tables do not "
            "need it",
            strerror(code));
        goto out;
    }
    d->fd = pipes[0];
    pipes[0] = -1;
out:
    if (have_actions)
        posix_spawn_file_actions_destroy(&actions);
    for (int i = 0; i < 2; i++)
        if (pipes[i] >= 0)
            close(pipes[i]);
    free(folder);
    free(variables);
    free(script);
    return rc;
}

/* Waits for it; said receives its standard error. */
static int end_gnuplot(const figure *f, const char *format, drawing *d, char *said, size_t said_cap, mb_error *err)
{
    int status = 0;
    read_all(d->fd, said, said_cap);
    close(d->fd);
    while (waitpid(d->child, &status, 0) < 0 && errno == EINTR)
        ;
    d->child = -1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return MB_OK;
    return mb_fail(err, MB_E_SYSTEM, "gnuplot could not draw %s/%s.%s: %s", f->folder, f->name, format, said);
}

/* The files that a figure is drawn as: how many. */
static int choose_formats(const mb_plot_choice *choice, const char *formats[2])
{
    formats[0] = choice && choice->format ? choice->format : "png";
    formats[1] = "svg";
    return choice && choice->format ? 1 : 2;
}

static bool is_wanted(const figure *f)
{
    return !f->choice || !f->choice->figure || strcmp(f->choice->figure, f->script) == 0;
}

static void note_drawn(figure *f, const char *const formats[2], int count)
{
    for (int i = 0; f->choice && f->choice->paths && i < count; i++)
        mb_text_printf(f->choice->paths, "%s/%s.%s\n", f->folder, f->name, formats[i]);
    f->drawn++;
}

int figure_end(figure *f, mb_error *err)
{
    const char *formats[2];
    const int count = choose_formats(f->choice, formats);
    char said[2048];
    int rc = MB_OK;
    if (f->points == 0 || !is_wanted(f))
        goto out;
    put_arrays(f, &f->settings);
    if (f->failed || f->data.failed || f->settings.failed || f->panels.failed || f->x_tics.failed ||
        f->y_tics.failed) {
        rc = mb_no_memory(err, "drawing %s", f->name);
        goto out;
    }
    char *log = mb_string_format("%s/data/%s.log", f->folder, f->name);
    if (log)
        unlink(log); /* of an earlier drawing */
    free(log);
    rc = write_text(f, f->name, ".dat", f->data.data, f->data.length, err);
    if (rc == MB_OK)
        rc = write_text(f, f->name, ".vars", f->settings.data, f->settings.length, err);
    if (rc == MB_OK)
        rc = write_embedded(f, f->script, err);
    drawing drawings[2] = {{-1, -1}, {-1, -1}}; /* both formats at once: most machines have two cores */
    for (int i = 0; rc == MB_OK && i < count; i++)
        rc = start_gnuplot(f, formats[i], &drawings[i], err);
    for (int i = 0; i < 2; i++) {
        if (drawings[i].child < 0)
            continue;
        int ended = end_gnuplot(f, formats[i], &drawings[i], said, sizeof said, rc == MB_OK ? err : NULL);
        rc = rc == MB_OK ? ended : rc;
        if (rc == MB_OK && *said)
            rc = write_text(f, f->name, ".log", said, strlen(said), err);
    }
    if (rc == MB_OK)
        note_drawn(f, formats, count);
out:
    figure_free(f);
    f->failed = false;
    return rc;
}

/* ---- figures from one query ---- */

static double column_real(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? NAN : sqlite3_column_double(s, column);
}

static const char *column_text(sqlite3_stmt *s, int column)
{
    const char *text = column < sqlite3_column_count(s) ? (const char *)sqlite3_column_text(s, column) : NULL;
    return text ? text : "";
}

/* Parts of a stack keep the style of their first appearance. */
static int part_style(const figure *f, const char *label)
{
    int next = 100;
    for (size_t i = 0; i < f->series_count; i++) {
        if (strcmp(f->series[i].label, label) == 0)
            return f->series[i].style;
        next = f->series[i].style >= next ? f->series[i].style + 1 : next;
    }
    return next;
}

int figure_query(figure *f, const char *script, const char *suffix, const char *title, const char *sql,
                 mb_error *err)
{
    char panel[256] = "", series[256] = "";
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(f->store->db, sql, -1, &s, NULL);
    if (code != SQLITE_OK)
        return store_error(f->store, code, "reading a figure's view", err);
    sqlite3_bind_int64(s, 1, f->run_id);
    figure_begin(f, script, suffix, title);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        double x = column_real(s, 3), y = column_real(s, 4);
        if (isnan(x) || isnan(y))
            continue;
        bool new_panel = f->panel_count == 0 || strncmp(panel, column_text(s, 0), sizeof panel - 1) != 0;
        if (new_panel) {
            snprintf(panel, sizeof panel, "%s", column_text(s, 0));
            figure_panel(f, panel);
        }
        if (new_panel || strncmp(series, column_text(s, 1), sizeof series - 1) != 0) {
            bool part = sqlite3_column_type(s, 2) == SQLITE_NULL;
            snprintf(series, sizeof series, "%s", column_text(s, 1));
            int style = part ? part_style(f, series) : figure_style(f->store, column_text(s, 2));
            int dash = sqlite3_column_count(s) > 9 ? sqlite3_column_int(s, 9) : 1;
            figure_series_begin(f, series, style, dash, true);
        }
        figure_point(f, x, y, column_real(s, 5), column_real(s, 6));
        if (*column_text(s, 7))
            figure_x_tic(f, x, column_text(s, 7));
        if (*column_text(s, 8))
            figure_y_tic(f, y, column_text(s, 8));
    }
    sqlite3_finalize(s);
    if (code != SQLITE_DONE) {
        figure_free(f);
        return store_error(f->store, code, "reading a figure's view", err);
    }
    return figure_end(f, err);
}
