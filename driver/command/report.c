/*
 * report.c - the sub-commands that write what one store holds: report, plot, export; and what all readers of
 * stores share: the format, the file, where the text goes.
 */
#include "driver/command/commands.h"
#include "driver/os/os.h"
#include "results/results.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mb_print_text(mb_text *text)
{
    int code = text->failed ? 1 : 0;
    if (!text->failed && text->data)
        fwrite(text->data, 1, text->length, stdout);
    mb_text_free(text);
    return code;
}

int mb_put_text(const mb_cli *cli, mb_text *text, int rc, mb_error *err)
{
    if (rc == MB_OK && text->failed)
        rc = mb_no_memory(err, "what was to be printed");
    if (rc == MB_OK && cli->out)
        rc = mb_file_write(cli->out, text->data ? text->data : "", text->length, err);
    if (rc == MB_OK && !cli->out)
        return mb_print_text(text);
    mb_text_free(text);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err->text);
}

int mb_chosen_format(const mb_cli *cli, mb_table_format *format, mb_error *err)
{
    if (cli->format)
        return mb_table_format_find(cli->format, format, err);
    *format = cli->csv        ? MB_TABLE_CSV
              : cli->jsonl    ? MB_TABLE_JSONL
              : cli->markdown ? MB_TABLE_MARKDOWN
                              : MB_TABLE_TERMINAL;
    return MB_OK;
}

const char *mb_chosen_database(const mb_cli *cli, size_t word)
{
    return cli->word_count > word ? cli->words[word] : cli->database ? cli->database : "results/quick.db";
}

/* The figures of a page, in a folder that is there for as long as the page is written; NULL: a reason is printed
 * and the page has none. malloc'ed. */
static char *draw_for_page(mb_store *store, const char *run)
{
    const char *temporary = getenv("TMPDIR");
    mb_error why = {0};
    int drawn = 0;
    char *folder = mb_string_format("%s/maskbench-XXXXXX", temporary && *temporary ? temporary : "/tmp");
    if (!folder || !mkdtemp(folder)) {
        mb_say("the page has no figures: no folder below %s", temporary ? temporary : "/tmp");
        free(folder);
        return NULL;
    }
    if (mb_plot_all(store, run, folder, &drawn, &why) != MB_OK)
        mb_say("the page has no figures: %s", why.text);
    return folder;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

int mb_command_report(const mb_cli *cli)
{
    mb_error err = {0};
    mb_store *store = NULL;
    mb_text text = {0};
    mb_report_options options = {.max_width = mb_terminal_width(), .full = cli->full};
    int rc = mb_chosen_format(cli, &options.format, &err);
    if (rc == MB_OK)
        rc = mb_store_open(&store, mb_chosen_database(cli, 1), MB_STORE_READ, &err);
    options.full = options.full || options.format == MB_TABLE_HTML; /* a page folds, a screen does not */
    char *figures = rc == MB_OK && options.format == MB_TABLE_HTML ? draw_for_page(store, cli->run) : NULL;
    options.figures = figures;
    if (rc == MB_OK)
        rc = mb_report(store, cli->run, &options, &text, &err);
    mb_store_close(store, NULL);
    if (figures)
        nftw(figures, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(figures);
    return mb_put_text(cli, &text, rc, &err);
}

int mb_command_plot(const mb_cli *cli)
{
    mb_error err = {0};
    const char *path = mb_chosen_database(cli, 1);
    mb_store *store = NULL;
    mb_text paths = {0};
    mb_plot_choice choice = {.figure = cli->figure, .format = cli->format, .paths = &paths};
    int drawn = 0;
    size_t stem =
        strlen(path) > 3 && strcmp(path + strlen(path) - 3, ".db") == 0 ? strlen(path) - 3 : strlen(path);
    char *folder = cli->out ? mb_string_copy(cli->out) : mb_string_format("%.*s", (int)stem, path);
    int rc = folder ? mb_store_open(&store, path, MB_STORE_READ, &err) : mb_no_memory(&err, "a path");
    if (rc == MB_OK)
        rc = mb_plot_some(store, cli->run, folder, &choice, &drawn, &err);
    mb_store_close(store, NULL);
    if (rc == MB_OK && cli->figure)
        fputs(paths.data ? paths.data : "", stdout);
    else if (rc == MB_OK)
        mb_print(stdout, "%d figures in %s", drawn, folder);
    mb_text_free(&paths);
    free(folder);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}

/* What goes into files of its own, and the line that says where. */
static int export_files(const mb_cli *cli, mb_store *store, bool quiet, mb_error *err)
{
    int rc = cli->pred ? mb_export_pred(store, cli->run, cli->pred, err) : MB_OK;
    if (rc == MB_OK && cli->lm_eval)
        rc = mb_export_lm_eval(store, cli->run, cli->lm_eval, err);
    if (rc == MB_OK && cli->compat)
        rc = mb_export_sqlite(store, cli->compat, err);
    if (rc != MB_OK || quiet)
        return rc;
    if (cli->pred)
        mb_print(stdout, "predictions in %s/pred", cli->pred);
    if (cli->lm_eval)
        mb_print(stdout, "results in %s/*/results_*.json", cli->lm_eval);
    if (cli->compat)
        mb_print(stdout, "database in %s", cli->compat);
    return rc;
}

int mb_command_export(const mb_cli *cli)
{
    mb_error err = {0};
    mb_store *store = NULL;
    mb_text text = {0};
    mb_table_format format = MB_TABLE_TERMINAL;
    int rc = mb_chosen_format(cli, &format, &err);
    bool rows = format != MB_TABLE_TERMINAL, files = cli->pred || cli->lm_eval || cli->compat;
    if (rc == MB_OK && !files && !rows)
        rc = mb_fail(&err, MB_E_INPUT,
                     "export how? --pred DIR, --lm-eval DIR, --sqlite-compat FILE, --csv, --jsonl or --md");
    if (rc == MB_OK && cli->compat && cli->run)
        rc = mb_fail(&err, MB_E_INPUT, "--sqlite-compat takes the whole database: leave --run out");
    if (rc == MB_OK)
        rc = mb_store_open(&store, mb_chosen_database(cli, 1), MB_STORE_READ, &err);
    if (rc == MB_OK && files)
        rc = export_files(cli, store, rows && !cli->out, &err); /* no line among rows that somebody reads */
    if (rc == MB_OK && rows)
        rc = mb_export(store, cli->run, format, &text, &err);
    mb_store_close(store, NULL);
    return mb_put_text(cli, &text, rc, &err);
}
