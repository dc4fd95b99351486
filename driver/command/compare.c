/*
 * compare.c - ./harness compare A B: what B does otherwise than A. Each is FILE, FILE:RUN, FILE@BUILD or
 * FILE:RUN@BUILD, so that two files, two runs of a file and two builds of a run are compared alike.
 */
#include "driver/command/commands.h"
#include "driver/os/os.h"
#include "results/results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct side { /* a word taken apart; file is owned, run and build point into it */
    char *file;
    mb_compare_side side;
} side;

/* Cuts what stands behind the last mark off the name of a file that is not there by its whole name. */
static const char *cut(char *file, char mark)
{
    char *at = mb_file_exists(file) ? NULL : strrchr(file, mark);
    if (!at)
        return NULL;
    *at = '\0';
    return at + 1;
}

static int open_side(const char *word, side *s, mb_error *err)
{
    s->file = mb_string_copy(word);
    if (!s->file)
        return mb_no_memory(err, "a path");
    s->side.build = cut(s->file, '@');
    s->side.run = cut(s->file, ':');
    s->side.name = s->file;
    if ((s->side.build && !*s->side.build) || (s->side.run && !*s->side.run))
        return mb_fail(err, MB_E_INPUT,
                       "%s: a run is named as FILE:RUN, a build as FILE@HASH; ./harness list runs FILE "
                       "shows the runs",
                       word);
    return mb_store_open(&s->side.store, s->file, MB_STORE_READ, err);
}

static void close_side(side *s)
{
    mb_store_close(s->side.store, NULL);
    free(s->file);
}

/* --fail-below X: in points, as the verdicts. */
static int limit_of(const mb_cli *cli, double *limit, mb_error *err)
{
    char *end = NULL;
    *limit = NAN;
    if (!cli->fail_below)
        return MB_OK;
    *limit = strtod(cli->fail_below, &end);
    if (end == cli->fail_below || *end || !isfinite(*limit))
        return mb_fail(err, MB_E_INPUT, "--fail-below takes points, such as -1 or -0.5, not \"%s\"",
                       cli->fail_below);
    return MB_OK;
}

/* Exit code 4 where a limit is set and broken; the reason on standard error. */
static int judge(const mb_compare_result *result, double limit)
{
    if (isnan(limit))
        return MB_EXIT_DONE;
    if (result->vanished) {
        mb_say("%zu rows of A are missing in B", result->vanished);
        return MB_EXIT_GATE;
    }
    if (100 * result->worst < limit) {
        mb_say("%s: %+.2f points is below %g", result->worst_config, 100 * result->worst, limit);
        return MB_EXIT_GATE;
    }
    return MB_EXIT_DONE;
}

int mb_command_compare(const mb_cli *cli)
{
    mb_error err = {0};
    mb_text text = {0};
    side a = {0}, b = {0};
    double limit = NAN;
    mb_compare_result result = {0};
    mb_report_options options = {.max_width = mb_terminal_width(), .full = cli->full};
    int rc = mb_chosen_format(cli, &options.format, &err);
    if (rc == MB_OK && cli->word_count != 3)
        rc = mb_fail(&err, MB_E_INPUT, "compare what? ./harness compare A B, each a file, FILE:RUN or FILE@BUILD");
    if (rc == MB_OK)
        rc = limit_of(cli, &limit, &err);
    if (rc == MB_OK)
        rc = open_side(cli->words[1], &a, &err);
    if (rc == MB_OK)
        rc = open_side(cli->words[2], &b, &err);
    if (rc == MB_OK)
        rc = mb_compare(&a.side, &b.side, &options, &text, &result, &err);
    if (rc == MB_OK && result.compared == 0)
        rc = mb_fail(&err, MB_E_INPUT, "%s and %s have no configuration in common: nothing is compared",
                     cli->words[1], cli->words[2]);
    close_side(&a);
    close_side(&b);
    int code = mb_put_text(cli, &text, rc, &err);
    return code ? code : judge(&result, limit);
}
