/* commands.c - the sub-commands that score and run, and what a run starts. */
#include "driver/command/commands.h"
#include "driver/devices.h"
#include "driver/os/os.h"
#include "driver/run.h"
#include "driver/worker/probe.h"
#include "driver/worker/serve.h"
#include "driver/worker/worker.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int mb_command_score(const mb_cli *cli)
{
    mb_error reason = {0};
    mb_error err = {0};
    mb_text text = {0}, summary = {0};
    if (cli->word_count != 2)
        return mb_exit_fail(MB_E_INPUT, "score which folder? ./harness score DIR, with one TASK.jsonl a task");
    int rc = mb_score_folder(cli->words[1], &text, &err);
    if (rc != MB_OK) {
        mb_text_free(&text);
        return mb_exit_fail(rc, err.text);
    }
    /* Standard output is the official result.json and nothing else; what else there is to say goes beside it. */
    if (*err.text)
        mb_say("%s", err.text);
    if (!cli->quiet && text.data && mb_score_summary(text.data, &summary, &reason) == MB_OK && summary.data)
        fputs(summary.data, stderr);
    mb_text_free(&summary);
    return mb_print_text(&text);
}

#define SHARDS_MAX 1000000

/* "3/16" */
static int read_shard(const char *text, mb_shard *shard, mb_error *err)
{
    int number = -1, last = 0, end = 0;
    if (!text)
        return MB_OK;
    if (sscanf(text, "%7d/%7d%n", &number, &last, &end) != 2 || text[end] || number < 0 || number > last ||
        last < 1 || last > SHARDS_MAX || strspn(text, "0123456789/") != strlen(text))
        return mb_fail(err, MB_E_INPUT, "--shard takes I/N, with N from 1 to %d and I from 0 to N, not \"%s\"",
                       SHARDS_MAX, text);
    *shard = (mb_shard){.number = number, .last = last};
    return MB_OK;
}

/* The runs of a file, one after the other into their database. One that cannot be done ends the program; samples
 * that failed and red gates are told at the end, as of a single run. */
static int run_list(mb_config_list *list, mb_run_flags flags, const char *command)
{
    int worst = MB_EXIT_DONE;
    for (size_t i = 0; i < list->count; i++) {
        if (list->count > 1 && !flags.quiet) {
            fputs(i ? "\n" : "", stderr);
            mb_print(stderr, "run %zu of %zu: %s", i + 1, list->count, list->configs[i].label);
        }
        int code = mb_run_main(&list->configs[i], &flags, command);
        flags.fresh = false; /* the database is new: the next run adds to it */
        if (code != MB_EXIT_DONE && code != MB_EXIT_SAMPLES && code != MB_EXIT_GATE)
            return code;
        if (code != MB_EXIT_DONE && worst != MB_EXIT_SAMPLES)
            worst = code;
    }
    return worst;
}

int mb_command_run(const mb_cli *cli)
{
    mb_error err = {0};
    mb_config_list list;
    mb_config_flags flags = {
        .sets = cli->sets, .set_count = cli->set_count, .values = cli->values, .value_count = cli->value_count};
    mb_run_flags run = {.fresh = cli->fresh,
                        .dry_run = cli->dry_run,
                        .quiet = cli->quiet,
                        .verbose = cli->verbose,
                        .profile = cli->profile,
                        .audit = cli->audit,
                        .devices = cli->devices};
    if (cli->again && strcmp(cli->again, "latency") != 0)
        return mb_exit_fail(mb_fail(&err, MB_E_INPUT,
                                    "--again takes the pass to measure once more: latency, not \"%s\"",
                                    cli->again),
                            err.text);
    run.again_latency = cli->again != NULL;
    if (read_shard(cli->shard, &run.shard, &err) != MB_OK)
        return mb_exit_fail(MB_E_INPUT, err.text);
    int rc = mb_config_load(&list, cli->config, &flags, &err);
    if (rc != MB_OK)
        return mb_exit_fail(rc, err.text);
    int code = run_list(&list, run, cli->command ? cli->command : "./harness");
    mb_config_list_free(&list);
    return code;
}

int mb_command_probe(const mb_cli *cli)
{
    return cli->word_count > 1 ? mb_probe_serve(cli->words[1])
                               : mb_exit_fail(MB_E_INPUT, "the command probe has no use by itself");
}

int mb_command_worker(const mb_cli *cli)
{
    mb_error err = {0};
    bool samples = cli->word_count > 1 && strcmp(cli->words[1], MB_WORKER_SAMPLES) == 0;
    return mb_exit_fail(samples ? mb_serve_samples(&err) : mb_serve(&err), err.text);
}
