/* main.c - the entry point: flags, plug-ins, then one sub-command or a run. */
#include "driver/command/commands.h"
#include "driver/os/os.h"
#include "driver/worker/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct command {
    const char *name;
    int (*run)(const mb_cli *);
    size_t words; /* how many it may have, its own name among them */
    bool methods; /* it looks at methods; plug-ins are loaded for no other */
} command;

static const command commands[] = {
    {"list", mb_command_list, 3, true},
    {"help", mb_command_help, 2, true},
    {"report", mb_command_report, 2, false},
    {"plot", mb_command_plot, 2, false},
    {"export", mb_command_export, 2, false},
    {"score", mb_command_score, 2, false},
    {"doctor", mb_command_doctor, 1, false},
    {"tokenize", mb_command_tokenize, 1, false},
    {"logits", mb_command_logits, 1, false},
    {"generate", mb_command_generate, 1, true},
    {"new-method", mb_command_new_method, 2, true},
    {"run", mb_command_run, 1, true},
    {"bench-kernels", mb_command_bench_kernels, 1, false},
    /* Not for people: what the program starts for its plug-ins. A worker loads the one that was probed. */
    {"worker", mb_command_worker, 1, true},
    {"probe", mb_command_probe, 2, false}};

static const command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* Plug-ins of $MASKBENCH_PLUGIN_PATH and --plugin, each tried in a process of its own first. */
static int load_plugins(const mb_cli *cli, const command *wanted, mb_error *err)
{
    const char *path = getenv("MASKBENCH_PLUGIN_PATH");
    if (!wanted || !wanted->methods)
        return MB_OK;
    mb_registry_probe(wanted->run == mb_command_worker ? NULL : mb_probe);
    int rc = path && *path ? mb_registry_load_path(path, err) : MB_OK;
    for (size_t i = 0; rc == MB_OK && i < cli->plugin_count; i++)
        rc = mb_registry_load(cli->plugins[i], err);
    return rc;
}

int main(int argc, char **argv)
{
    mb_error err = {0};
    mb_cli cli;
    mb_interrupt_catch();
    int code, rc = mb_cli_parse(&cli, argc, argv, &err);
    const command *wanted = find_command(rc == MB_OK && cli.word_count > 0 ? cli.words[0] : "run");
    if (rc == MB_OK && !cli.help && !cli.version)
        rc = load_plugins(&cli, wanted, &err);
    if (rc != MB_OK) {
        code = mb_exit_fail(rc, err.text);
    } else if (cli.help) {
        mb_cli_usage();
        code = 0;
    } else if (cli.version) {
        mb_environment environment;
        mb_environment_read(&environment, 0);
        printf("maskbench %s (%s)\n", environment.git, environment.build);
        code = 0;
    } else if (wanted && cli.word_count > wanted->words) {
        mb_fail(&err, 0, "%s takes no further word \"%s\"; ./harness --help shows how it is called", cli.words[0],
                cli.words[wanted->words]);
        code = mb_exit_fail(MB_E_INPUT, err.text);
    } else if (wanted) {
        code = wanted->run(&cli);
    } else {
        mb_fail(&err, 0, "unknown command \"%s\"; ./harness --help lists them", cli.words[0]);
        code = mb_exit_fail(MB_E_INPUT, err.text);
    }
    mb_registry_unload();
    mb_cli_free(&cli);
    return mb_exit_output(code);
}
