/* commands.c - the sub-commands that look things up: list, score; run. */
#include "driver/command/commands.h"
#include "driver/devices.h"
#include "driver/os/os.h"
#include "driver/os/paths.h"
#include "driver/run.h"
#include "driver/worker/probe.h"
#include "driver/worker/serve.h"
#include "driver/worker/worker.h"

#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "counter hit_rate by layer and step (higher is better): ..." */
static void list_counter(mb_text *text, const char *name, const char *axes, const mb_counter *words)
{
    mb_text_printf(text, "%-16s   counter %s%s%s", "", name, *axes ? " by " : "", axes);
    if (*words->unit || *words->better)
        mb_text_printf(text, " (%s%s%s%s)", words->unit, *words->unit && *words->better ? ", " : "", words->better,
                       *words->better ? " is better" : "");
    mb_text_printf(text, ": %s\n", words->help);
}

/* A method's words may be a plug-in's: a terminal must not obey them. */
static void print_visible(mb_text *text)
{
    mb_text shown = {0};
    mb_text_visible(&shown, text->data ? text->data : "", "\n");
    fputs(shown.data ? shown.data : "", stdout);
    mb_text_free(&shown);
    mb_text_free(text);
}

static int list_methods(void)
{
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *m = mb_registry_at(i);
        const char *origin = mb_registry_origin(m);
        mb_text text = {0};
        mb_text_printf(&text, "%-16s %s%s%s%s\n", m->name, m->summary, *origin ? "  [" : "", origin,
                       *origin ? "]" : "");
        for (const mb_counter *c = m->counters; c && c->name; c++)
            list_counter(&text, c->name, "", c);
        for (const mb_counter_map *g = m->maps; g && g->name; g++)
            list_counter(&text, g->name, mb_counter_map_axes(g->axes),
                         &(mb_counter){.unit = g->unit, .better = g->better, .help = g->help});
        print_visible(&text);
    }
    return 0;
}

static int list_tasks(void)
{
    const char *benchmark = "";
    for (size_t i = 0; i < mb_task_count(); i++) {
        const mb_task_info *t = mb_task_at(i);
        if (strcmp(benchmark, t->benchmark) != 0) {
            benchmark = t->benchmark;
            printf("%s\n", benchmark);
        }
        printf("  %-24s %-22s %-4s %-17s %5d new tokens\n", t->name, t->category, t->language, t->metric,
               t->max_new_tokens);
    }
    puts("\nA benchmark's name stands for all of its tasks; so do longbench_en (English and code), longbench_zh "
         "and all.\n"
         "./harness help TASK shows the keys that a task has of its own.");
    return 0;
}

/* Checkpoint folders below models/ or --model. */
static int list_models(const mb_cli *cli)
{
    char *root = mb_shared_path(cli->model ? cli->model : "models");
    struct dirent **names = NULL;
    int n = root ? scandir(root, &names, NULL, alphasort) : -1, found = 0;
    for (int i = 0; i < n; i++) {
        char *path = mb_string_format("%s/%s", root, names[i]->d_name);
        mb_error err = {0};
        char *config = mb_string_format("%s/config.json", path ? path : "");
        mb_model_request request = {.path = path};
        mb_model_config shape;
        if (names[i]->d_name[0] != '.' && config && mb_file_exists(config)) {
            found++;
            char experts[64] = "";
            int rc = mb_model_inspect(&request, &shape, &err);
            if (rc == MB_OK && shape.moe.experts > 0)
                snprintf(experts, sizeof experts, "%d of %d experts, ", shape.moe.per_token, shape.moe.experts);
            if (rc == MB_OK)
                printf("%-32s %s, %d layers, %s%d/%d heads of %d, hidden %d, block %d, %d positions, %.2f GiB in "
                       "bf16\n",
                       path, mb_family_name(shape.family), shape.layers, experts, shape.query_heads,
                       shape.kv_heads, shape.head_dim, shape.hidden, shape.block, shape.positions,
                       (double)mb_model_weight_bytes(&shape, MB_BF16) / 0x1p30);
            else
                printf("%-32s %s\n", path, err.text);
        }
        free(config);
        free(path);
        free(names[i]);
    }
    free(names);
    if (!found)
        printf("no checkpoint folder below %s\n", root ? root : "models");
    free(root);
    return 0;
}

static int query_store(const mb_cli *cli, size_t word, const char *sql)
{
    mb_error err = {0};
    mb_store *store = NULL;
    mb_text text = {0};
    mb_table_format format = MB_TABLE_TERMINAL;
    int rc = mb_chosen_format(cli, &format, &err);
    if (rc == MB_OK)
        rc = mb_store_open(&store, mb_chosen_database(cli, word), MB_STORE_READ, &err);
    if (rc == MB_OK)
        rc = mb_table_query(store, sql, format, mb_terminal_width(), &text, &err);
    mb_store_close(store, NULL);
    if (rc != MB_OK) {
        mb_text_free(&text);
        return mb_exit_fail(rc, err.text);
    }
    return mb_print_text(&text);
}

/* What tells runs apart at a glance, in 80 columns; v_runs (--csv, --jsonl) has the rest, whole configs among it.
 */
static const char runs_sql[] = "SELECT run, state, replace(substr(started_at, 1, 16), 'T', ' ') AS started, "
                               "samples, failed, gates_failed AS red, "
                               "device, seed, git FROM v_runs ORDER BY session_id";

int mb_command_list(const mb_cli *cli)
{
    const char *what = cli->word_count > 1 ? cli->words[1] : "";
    if (strcmp(what, "methods") == 0)
        return list_methods();
    if (strcmp(what, "tasks") == 0)
        return list_tasks();
    if (strcmp(what, "models") == 0)
        return list_models(cli);
    if (strcmp(what, "runs") == 0)
        return query_store(cli, 2, cli->csv || cli->jsonl ? "SELECT * FROM v_runs" : runs_sql);
    return mb_exit_fail(MB_E_INPUT, "list what? methods, tasks, models or runs [DB]");
}

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
        fprintf(stderr, "harness: %s\n", err.text);
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
        if (list->count > 1 && !flags.quiet)
            fprintf(stderr, "%srun %zu of %zu: %s\n", i ? "\n" : "", i + 1, list->count, list->configs[i].label);
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
