/* main.c - the entry point: flags, plug-ins, then one sub-command or a run. */
#include "driver/command/commands.h"
#include "driver/os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int load_plugins(const mb_cli *cli, mb_error *err)
{
    const char *path = getenv("MASKBENCH_PLUGIN_PATH");
    int rc = path && *path ? mb_registry_load_path(path, err) : MB_OK;
    for (size_t i = 0; rc == MB_OK && i < cli->plugin_count; i++)
        rc = mb_registry_load(cli->plugins[i], err);
    return rc;
}

int main(int argc, char **argv)
{
    /* words: how many a command may have, its own name among them. */
    static const struct {
        const char *name;
        int (*run)(const mb_cli *);
        size_t words;
    } commands[] = {{"list", mb_command_list, 3},
                    {"help", mb_command_help, 2},
                    {"report", mb_command_report, 2},
                    {"plot", mb_command_plot, 2},
                    {"export", mb_command_export, 2},
                    {"score", mb_command_score, 2},
                    {"doctor", mb_command_doctor, 1},
                    {"tokenize", mb_command_tokenize, 1},
                    {"logits", mb_command_logits, 1},
                    {"generate", mb_command_generate, 1},
                    {"new-method", mb_command_new_method, 2},
                    {"run", mb_command_run, 1},
                    {"bench-kernels", mb_command_bench_kernels, 1},
                    {"worker", mb_command_worker, 1}}; /* not for people: what a run starts for its plug-ins */
    mb_error err = {0};
    mb_cli cli;
    mb_interrupt_catch();
    int code, rc = mb_cli_parse(&cli, argc, argv, &err);
    if (rc == MB_OK && !cli.help && !cli.version)
        rc = load_plugins(&cli, &err);
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
    } else if (cli.word_count == 0) {
        code = mb_command_run(&cli);
    } else {
        size_t n = sizeof commands / sizeof commands[0], i = 0;
        while (i < n && strcmp(commands[i].name, cli.words[0]) != 0)
            i++;
        if (i < n && cli.word_count > commands[i].words) {
            mb_fail(&err, 0, "%s takes no further word \"%s\"; ./harness --help shows how it is called",
                    cli.words[0], cli.words[commands[i].words]);
            code = mb_exit_fail(MB_E_INPUT, err.text);
        } else if (i < n) {
            code = commands[i].run(&cli);
        } else {
            mb_fail(&err, 0, "unknown command \"%s\"; ./harness --help lists them", cli.words[0]);
            code = mb_exit_fail(MB_E_INPUT, err.text);
        }
    }
    mb_registry_unload();
    mb_cli_free(&cli);
    return mb_exit_output(code);
}
