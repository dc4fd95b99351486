/*
 * commands.h - the sub-commands of ./harness and their flags. Each command gets the parsed command line and
 * returns an exit code. Two tables say all there is to say about them: table.c has a row a command, cli.c a row a
 * flag; the check of a command line and the help are made of the two.
 */
#ifndef MB_COMMANDS_H
#define MB_COMMANDS_H

#include "driver/config/config.h"
#include "results/results.h"

/* Flags every sub-command shares; parsed once by cli.c. */
typedef struct mb_cli {
    const char *config, *model, *data, *database, *out, *device, *type;
    const char *ids, *prompt, *method, *pred, *lm_eval, *compat, *run, *kernel_case, *again, *shard, *devices;
    const char *partition, *time, *sbatch; /* slurm */
    const char *figure;                    /* one kind of figure */
    const char *sets[256], *plugins[64];
    const char **words;         /* [word_count]; the array is owned */
    mb_config_value values[64]; /* flags that set a key of a run's config */
    size_t set_count, plugin_count, word_count, value_count;
    bool nothing; /* neither a word nor a flag was given */
    int64_t steps, max_new_tokens, shards;
    bool status; /* slurm */
    bool fresh, dry_run, quiet, verbose, help, version, decode, chat, trace, csv, jsonl, markdown, profile, audit,
        in_tree;
    char *command;       /* the whole command line, quoted for a shell; owned */
    char *default_model; /* models/tiny, where it was found; owned */
    /* of the commands that read stores */
    const char *format, *fail_below, *figures;
    bool full;
} mb_cli;

typedef enum mb_flag_kind { MB_FLAG_TRUE, MB_FLAG_TEXT, MB_FLAG_NUMBER, MB_FLAG_SET, MB_FLAG_PLUGIN } mb_flag_kind;

/* A flag as a row of the table in cli.c. */
typedef struct mb_flag {
    const char *name, *value; /* "--limit", "N"; value NULL: it takes none */
    mb_flag_kind kind;
    size_t offset;        /* of its field in mb_cli */
    const char *commands; /* where it means something, "run list"; NULL = everywhere */
    const char *help;
} mb_flag;

extern const mb_flag mb_flags[];          /* ends with name NULL */
char mb_flag_letter(const mb_flag *flag); /* 'q' of "-q, --quiet"; 0: it has none */
bool mb_flag_belongs(const mb_flag *flag, const char *command);
/* Whether a command takes the flag of a config key: run does, and those that the key's row names. */
bool mb_key_belongs(const struct mb_key *key, const char *command);

/* A command as a row of the table in table.c. */
typedef struct mb_command {
    const char *name;
    int (*run)(const mb_cli *);
    size_t words;          /* how many it may have, its own name among them */
    bool methods;          /* it looks at methods; plug-ins are loaded for no other */
    const char *arguments; /* behind the name: "DB [ITEM]"; a line a way of calling it; NULL = not for people */
    const char *summary;   /* one line without a full stop */
    const char *details;   /* what else its help says, lines of at most 100 columns; NULL = nothing */
} mb_command;

extern const mb_command mb_commands[]; /* ends with name NULL */
const mb_command *mb_command_find(const char *name);
/* MB_E_INPUT: there is no command of this name; the sentence says which one may be meant. */
int mb_command_unknown(const char *name, mb_error *err);

/* A variable of the environment that the program reads. */
typedef struct mb_variable {
    const char *name, *help;
} mb_variable;

extern const mb_variable mb_variables[]; /* in table.c; ends with name NULL */

/* MB_E_INPUT with one sentence for an unknown flag, a missing value or a bad number. */
int mb_cli_parse(mb_cli *cli, int argc, char **argv, mb_error *err);
void mb_cli_free(mb_cli *cli);
int mb_print_version(void);
/* The usage of the program, and the help of one command, on standard output. */
void mb_help_usage(void);
void mb_help_command(const mb_command *command);

int mb_command_list(const mb_cli *cli);
int mb_command_help(const mb_cli *cli);
int mb_command_schema(const mb_cli *cli);
int mb_command_man(const mb_cli *cli);
int mb_command_completion(const mb_cli *cli);
int mb_command_report(const mb_cli *cli);
int mb_command_compare(const mb_cli *cli);
int mb_command_show(const mb_cli *cli);
int mb_command_plot(const mb_cli *cli);
int mb_command_export(const mb_cli *cli);
int mb_command_merge(const mb_cli *cli);
int mb_command_slurm(const mb_cli *cli);
int mb_command_score(const mb_cli *cli);
int mb_command_doctor(const mb_cli *cli);
int mb_command_tokenize(const mb_cli *cli);
int mb_command_logits(const mb_cli *cli);
int mb_command_generate(const mb_cli *cli);
int mb_command_new_method(const mb_cli *cli);
int mb_command_test(const mb_cli *cli);
int mb_command_run(const mb_cli *cli);
int mb_command_train(const mb_cli *cli);
int mb_command_unpack(const mb_cli *cli);
int mb_command_bench_kernels(const mb_cli *cli);
int mb_command_probe(const mb_cli *cli);
int mb_command_worker(const mb_cli *cli); /* a run starts it, nobody else */

/* ---- cli.c ---- */
/* --type, or the preset without it. */
int mb_chosen_type(const mb_cli *cli, mb_type preset, mb_type *type, mb_error *err);

/* ---- report.c: what the readers of stores share ---- */
/* Prints and frees a text; 0, or 1 when it could not be built. */
int mb_print_text(mb_text *text);
/* The text to --out or standard output where rc is MB_OK, else the sentence; frees it and returns the exit code.
 */
int mb_put_text(const mb_cli *cli, mb_text *text, int rc, mb_error *err);
/* --format, or one of --csv, --jsonl, --md. */
int mb_chosen_format(const mb_cli *cli, mb_table_format *format, mb_error *err);
/* The database a sub-command names: its word, --db, or the only sensible default. */
const char *mb_chosen_database(const mb_cli *cli, size_t word);

#endif
