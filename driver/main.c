/* main.c - the entry point: flags, plug-ins, then one sub-command or a run. */
#include "driver/command/commands.h"
#include "driver/os/os.h"
#include "driver/worker/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Plug-ins of $MASKBENCH_PLUGIN_PATH and --plugin, each tried in a process of its own first. */
static int load_plugins(const mb_cli *cli, const mb_command *wanted, mb_error *err)
{
    const char *path = getenv("MASKBENCH_PLUGIN_PATH");
    if (!wanted->methods)
        return MB_OK;
    mb_registry_probe(wanted->run == mb_command_worker ? NULL : mb_probe);
    int rc = path && *path ? mb_registry_load_path(path, err) : MB_OK;
    for (size_t i = 0; rc == MB_OK && i < cli->plugin_count; i++)
        rc = mb_registry_load(cli->plugins[i], err);
    return rc;
}

static int run_command(const mb_cli *cli)
{
    mb_error err = {0};
    const char *name = cli->word_count > 0 ? cli->words[0] : "run";
    const mb_command *wanted = mb_command_find(name);
    if (cli->version)
        return mb_print_version();
    if (!wanted)
        return mb_exit_fail(mb_command_unknown(name, &err), err.text);
    if (cli->help && cli->word_count > 0 && wanted->arguments) {
        mb_help_command(wanted);
        return 0;
    }
    if (cli->help || cli->nothing) {
        mb_help_usage();
        return 0;
    }
    int rc = load_plugins(cli, wanted, &err);
    if (rc == MB_OK && cli->word_count > wanted->words)
        rc = mb_fail(&err, MB_E_INPUT,
                     "%s takes no further word \"%s\"; ./harness %s --help shows how it is called", name,
                     cli->words[wanted->words], name);
    return rc == MB_OK ? wanted->run(cli) : mb_exit_fail(rc, err.text);
}

int main(int argc, char **argv)
{
    mb_error err = {0};
    mb_cli cli;
    mb_interrupt_catch();
    int rc = mb_cli_parse(&cli, argc, argv, &err);
    int code = rc == MB_OK ? run_command(&cli) : mb_exit_fail(rc, err.text);
    mb_registry_unload();
    mb_cli_free(&cli);
    return mb_exit_output(code);
}
