/*
 * table.c - every command of ./harness, a row each (commands.h says what the columns are). A new command is one
 * function, its declaration in commands.h and a row here; the usage and its own help come from the row.
 */
#include "driver/command/commands.h"

#include <string.h>

const mb_command mb_commands[] = {
    {"run", mb_command_run, 1, true, "[--config FILE] [flags]", "run a config: table, SQLite file, figures",
     "The word run may be left out where a flag follows. The same command again continues a run that was\n"
     "stopped, and adds what a config has that the database lacks."},
    {"list", mb_command_list, 3, true, "methods|tasks|models|configs|shapes|figures\nruns [DB]",
     "what there is to choose from", NULL},
    {"help", mb_command_help, 2, true, "METHOD|TASK|COMMAND\nconfig|training [--md]",
     "options of a method, own keys of a task, a command, the keys of a config", NULL},
    {"schema", mb_command_schema, 1, true, "[--plugin FILE.so]",
     "the keys of a config as a JSON Schema, for editors",
     "Write it to a file and name that in a config: \"$schema\": \"./schema.json\". Options of a plug-in are in "
     "it\n"
     "when the plug-in is loaded."},
    {"report", mb_command_report, 2, false, "[DB] [--run ID] [--full] [--format NAME] [--out FILE]",
     "what a stored run says, on a screen or as a page",
     "Formats: terminal, md, csv, jsonl, latex, html. The html page is one file: tables that sort, figures, "
     "answers "
     "to\nopen."},
    {"compare", mb_command_compare, 3, false, "A B [--full] [--format NAME] [--fail-below X]",
     "what run B does otherwise than run A, a verdict a line",
     "A and B are FILE, FILE:RUN or FILE:RUN@BUILD; without a run the one started last. A build is named by the "
     "first\n"
     "letters of its hash (v_cell_all has it); without one the newest rows count."},
    {"show", mb_command_show, 3, false, "DB ITEM [--method NAME] [--full] [--format NAME] [--figures DIR]",
     "one item: prompt, answers side by side, steps, where the selected keys lie",
     "ITEM is its key, or TASK:KEY. Prompt, steps and selected keys are there for samples that a run recorded:\n"
     "config key record.selections."},
    {"plot", mb_command_plot, 2, false, "[DB] [--out DIR]\n[DB] --figure NAME [--format pdf|png|svg]",
     "the figures of a stored run", "./harness list figures names them."},
    {"export", mb_command_export, 2, false,
     "[DB] --csv|--jsonl|--md [--out FILE]\n[DB] --pred DIR|--lm-eval DIR|--sqlite-compat FILE",
     "rows of a stored run for other programs", NULL},
    {"merge", mb_command_merge, SIZE_MAX, false, "RESULT DB...", "databases become one, shards of a run that run",
     "RESULT is made, or gets what it lacks. Rows of one identity are stored once; where one identity has two\n"
     "values, both are shown and nothing is merged. Shards of a run that are missing are named."},
    {"slurm", mb_command_slurm, 1, true, "--config FILE --shards N --partition NAME\n--config FILE --status",
     "a run as a job array of shards and a merge job",
     "Writes RESULT.shards/shard.sh and merge.sh, beside the config's database, and submits them with sbatch. "
     "The\n"
     "same command again continues: a shard computes what its database lacks."},
    {"score", mb_command_score, 2, false, "DIR", "score a folder of predictions in the official layout", NULL},
    {"new-method", mb_command_new_method, 2, true, "NAME [--out DIR]\nNAME --in-tree",
     "a working method to start from, with a config and a test",
     "With --in-tree it writes methods/NAME.c of the source tree and nothing else."},
    {"test", mb_command_test, 2, true, "NAME [--set KEY=VALUE]\nFILE.so [--set KEY=VALUE]",
     "whether a method keeps what every method must keep, over its options",
     "Each choice, both ends of each range, one option at a time around the presets or --set. The method plays "
     "on\n"
     "made-up data without a model. Exit code 1: something is not kept; the line names the case."},
    {"doctor", mb_command_doctor, 1, false, "", "what this machine has and what is missing", NULL},
    {"tokenize", mb_command_tokenize, 1, false, "--model DIR [--decode|--chat]",
     "ids of the text on standard input, or text of its ids", NULL},
    {"logits", mb_command_logits, 1, false, "--model DIR --ids FILE --out FILE.npy", "logits of given tokens",
     NULL},
    {"generate", mb_command_generate, 1, true, "--model DIR --prompt FILE|--ids FILE [--method NAME] [--trace]",
     "answer one prompt", NULL},
    {"train", mb_command_train, 1, false, "--config FILE [--set KEY=VALUE] [--dry-run]",
     "train a model: a Hugging Face folder, a SQLite file of its losses",
     "\"device\": \"cuda\" trains on a GPU. The same command again goes on from the last checkpoint, to\n"
     "the same bits. ./harness help training lists the keys of its config."},
    {"unpack", mb_command_unpack, 2, false, "FILE.gguf --out DIR [--type f32|bf16|f16]",
     "a GGUF file as a checkpoint folder", NULL},
    {"bench-kernels", mb_command_bench_kernels, 1, false, "[--case NAME] [--device NAME]",
     "time the operations of a backend", NULL},
    {"man", mb_command_man, 1, true, "", "the manual page: ./harness man | man -l -", NULL},
    {"completion", mb_command_completion, 2, true, "bash|zsh|fish", "the completions of a shell",
     "bash: source <(./harness completion bash). zsh: the same behind autoload -Uz compinit && compinit. fish:\n"
     "./harness completion fish | source."},
    /* What the program starts for its plug-ins. A worker loads the one that was probed. */
    {"worker", mb_command_worker, 2, true, NULL, NULL, NULL},
    {"probe", mb_command_probe, 2, false, NULL, NULL, NULL},
    {.name = NULL},
};

const mb_variable mb_variables[] = {
    {"MASKBENCH_PLUGIN_PATH", "folders, separated by colons, whose *.so are loaded as methods"},
    {"MASKBENCH_JIEBA_DICT",
     "dictionary of the package jieba, for scores of Chinese tasks; else where python3-jieba has it"},
    {"NO_COLOR", "with any value: nothing is coloured (no-color.org)"},
    {"TERM", "\"dumb\": nothing is coloured"},
    {"TMPDIR", "folder of temporary files (/tmp)"},
    {"XDG_CACHE_HOME", "maskbench/ in it keeps the choice of matrix products on a GPU; else $HOME/.cache"},
    {"MB_FORCE_GENERIC",
     "1: on any GPU the kernels that an sm_80 takes, to test them; a run's environment says so"},
    {"PATH", "where gnuplot is looked for"},
    {.name = NULL},
};

const mb_command *mb_command_find(const char *name)
{
    for (const mb_command *command = mb_commands; command->name; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

int mb_command_unknown(const char *name, mb_error *err)
{
    mb_guess guess = {.word = name};
    for (const mb_command *command = mb_commands; command->name; command++)
        if (command->arguments)
            mb_guess_offer(&guess, command->name, strlen(command->name));
    return mb_fail(err, MB_E_INPUT, "unknown command \"%s\"%s; ./harness --help lists them", name,
                   mb_guess_phrase(&guess));
}
