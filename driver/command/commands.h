/* commands.h - the sub-commands of ./harness. Each gets its arguments after the name and returns an exit code. */
#ifndef MB_COMMANDS_H
#define MB_COMMANDS_H

#include "driver/config/config.h"

/* Flags every sub-command shares; parsed once by cli.c. */
typedef struct mb_cli {
    const char *config, *model, *data, *database, *out, *device, *type;
    const char *ids, *prompt, *method, *pred, *run, *kernel_case, *again;
    const char *chat_template, *thinking, *system; /* keys of the config's section chat */
    const char *sets[256], *plugins[64], *words[64];
    mb_config_value values[64]; /* flags that set a key of a run's config */
    size_t set_count, plugin_count, word_count, value_count;
    int64_t steps, max_new_tokens;
    bool fresh, dry_run, quiet, help, version, decode, chat, trace, csv, jsonl, markdown, profile, audit, in_tree;
    char *command;       /* the whole command line, quoted for a shell; owned */
    char *default_model; /* models/tiny, where it was found; owned */
} mb_cli;

/* MB_E_INPUT with one sentence for an unknown flag, a missing value or a bad number. */
int mb_cli_parse(mb_cli *cli, int argc, char **argv, mb_error *err);
void mb_cli_free(mb_cli *cli);
void mb_cli_usage(void);

int mb_command_list(const mb_cli *cli);
int mb_command_help(const mb_cli *cli);
int mb_command_report(const mb_cli *cli);
int mb_command_plot(const mb_cli *cli);
int mb_command_export(const mb_cli *cli);
int mb_command_score(const mb_cli *cli);
int mb_command_doctor(const mb_cli *cli);
int mb_command_tokenize(const mb_cli *cli);
int mb_command_logits(const mb_cli *cli);
int mb_command_generate(const mb_cli *cli);
int mb_command_new_method(const mb_cli *cli);
int mb_command_run(const mb_cli *cli);
int mb_command_bench_kernels(const mb_cli *cli);
int mb_command_probe(const mb_cli *cli);
int mb_command_worker(const mb_cli *cli); /* a run starts it, nobody else */

#endif
