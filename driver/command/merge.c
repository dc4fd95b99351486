/*
 * merge.c - ./harness merge RESULT DB...: databases of runs become one; the shards of a run become that run.
 */
#include "driver/command/commands.h"

#include "driver/os/os.h"
#include "results/results.h"

#include <stdio.h>

int mb_command_merge(const mb_cli *cli)
{
    mb_error err = {0};
    mb_text notes = {0};
    if (cli->word_count < 3)
        return mb_exit_fail(MB_E_INPUT, "merge what? ./harness merge RESULT.db DB..., e.g. ./harness merge "
                                        "results/all.db results/part-*.db");
    int rc = mb_store_merge(cli->words[1], cli->words + 2, cli->word_count - 2, &mb_interrupted, &notes, &err);
    if (rc == MB_OK && !cli->quiet && notes.data && !notes.failed)
        fputs(notes.data, stdout);
    mb_text_free(&notes);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}
