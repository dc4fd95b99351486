/*
 * cli.c - flags. One table names each flag of a command, where its value goes and its help line; it parses and
 * checks, and help.c prints it. The flags that set a key of a run's config are not here: the rows of the keys
 * declare them.
 */
#include "driver/command/commands.h"

#include "driver/config/keys.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(mb_cli, field)
#define FLAG_TRUE MB_FLAG_TRUE
#define FLAG_TEXT MB_FLAG_TEXT
#define FLAG_NUMBER MB_FLAG_NUMBER
#define FLAG_SET MB_FLAG_SET
#define FLAG_PLUGIN MB_FLAG_PLUGIN

const mb_flag mb_flags[] = {
    {"--config", "FILE", FLAG_TEXT, AT(config), "run slurm train",
     "run this config (default: the built-in configs/quick.json)"},
    {"--set", "KEY=VALUE", FLAG_SET, 0, "run slurm generate test train",
     "override any config key, e.g. --set methods.NAME.k=1024; of a method: --set k=1024"},
    {"--model", "DIR", FLAG_TEXT, AT(model), "list doctor tokenize logits generate",
     "checkpoint folder, as downloaded, or a GGUF file"},
    {"--data", "DIR", FLAG_TEXT, AT(data), "doctor", "folder of the benchmark files"},
    {"--device", "NAME", FLAG_TEXT, AT(device), "logits generate bench-kernels test", "auto, cpu, cuda or cuda:N"},
    {"--db", "FILE", FLAG_TEXT, AT(database), "list report plot export", "SQLite file of the results"},
    {"--out", "PATH", FLAG_TEXT, AT(out), "report compare show plot export logits new-method unpack",
     "folder of the figures, or the file a sub-command writes"},
    {"--in-tree", NULL, FLAG_TRUE, AT(in_tree), "new-method", "write methods/NAME.c of this source tree"},
    {"--plugin", "FILE.so", FLAG_PLUGIN, 0, NULL, "load a method; also every *.so in $MASKBENCH_PLUGIN_PATH"},
    {"--fresh", NULL, FLAG_TRUE, AT(fresh), "run", "forget what is stored in the database and start again"},
    {"--again", "latency", FLAG_TEXT, AT(again), "run",
     "measure times that are stored already once more, into rows of their own"},
    {"--shard", "I/N", FLAG_TEXT, AT(shard), "run",
     "compute part I of N: 1 to N have the samples, 0 the timed passes; merge joins them"},
    {"--devices", "LIST", FLAG_TEXT, AT(devices), "run slurm",
     "a worker on each device takes the next sample: 0,1 or cuda:0,cuda:1 or cpu,cpu or all"},
    {"--dry-run", NULL, FLAG_TRUE, AT(dry_run), "run slurm train",
     "print the plan and what is stored already; compute nothing. slurm: write the scripts, submit nothing"},
    {"--shards", "N", FLAG_NUMBER, AT(shards), "slurm", "parts that the samples are dealt to"},
    {"--partition", "NAME", FLAG_TEXT, AT(partition), "slurm", "partition of the jobs"},
    {"--time", "LIMIT", FLAG_TEXT, AT(time), "slurm",
     "time limit of a shard, as sbatch takes it; a shard goes on after it"},
    {"--sbatch", "FLAGS", FLAG_TEXT, AT(sbatch), "slurm", "more flags for sbatch: \"--gres=gpu:1 --mem=64G\""},
    {"--status", NULL, FLAG_TRUE, AT(status), "slurm", "how far the shards are, in place of submitting"},
    {"--quiet", NULL, FLAG_TRUE, AT(quiet), NULL, "no progress, no table"},
    {"--verbose", NULL, FLAG_TRUE, AT(verbose), "run test", "a line for every sample, or for every property"},
    {"--profile", NULL, FLAG_TRUE, AT(profile), "run",
     "latency pass once, with NVTX ranges and without timers, for a profiler"},
    {"--audit", NULL, FLAG_TRUE, AT(audit), "run", "latency pass: check outputs of random steps while timing"},
    {"--decode", NULL, FLAG_TRUE, AT(decode), "tokenize", "ids from standard input to text"},
    {"--ids", "FILE", FLAG_TEXT, AT(ids), "logits generate",
     "token ids, separated by white space; generate answers with ids"},
    {"--type", "f32|bf16|f16", FLAG_TEXT, AT(type), "logits generate bench-kernels unpack", "storage type"},
    {"--prompt", "FILE", FLAG_TEXT, AT(prompt), "generate", "text of the user's turn, - for standard input"},
    {"--chat", NULL, FLAG_TRUE, AT(chat), "tokenize", "ids of the text as the user's turn of a chat"},
    {"--method", "NAME", FLAG_TEXT, AT(method), "generate show",
     "attention method; show: or the label of a configuration"},
    {"--max-new-tokens", "N", FLAG_NUMBER, AT(max_new_tokens), "generate", "length of the answer (128)"},
    {"--steps", "N", FLAG_NUMBER, AT(steps), "generate", "fixed steps per block in place of the threshold"},
    {"--trace", NULL, FLAG_TRUE, AT(trace), "generate", "tokens unmasked per step, on standard error"},
    {"--run", "ID", FLAG_TEXT, AT(run), "report show plot export",
     "only this run (default: the newest; export: all)"},
    {"--pred", "DIR", FLAG_TEXT, AT(pred), "export", "the benchmark's official pred/ layout"},
    {"--lm-eval", "DIR", FLAG_TEXT, AT(lm_eval), "export",
     "results and samples as lm-evaluation-harness writes them"},
    {"--sqlite-compat", "FILE", FLAG_TEXT, AT(compat), "export",
     "the whole database as a new file that SQLite 3.26 reads"},
    {"--csv", NULL, FLAG_TRUE, AT(csv), "list report compare export", "comma-separated"},
    {"--jsonl", NULL, FLAG_TRUE, AT(jsonl), "list report compare export bench-kernels", "one JSON object a line"},
    {"--md", NULL, FLAG_TRUE, AT(markdown), "list report compare export help", "Markdown"},
    {"--format", "NAME", FLAG_TEXT, AT(format), "list report compare show export plot",
     "terminal, md, csv, jsonl, latex or html; of a figure: png, svg or pdf"},
    {"--figure", "NAME", FLAG_TEXT, AT(figure), "plot", "only this figure; its paths are printed"},
    {"--full", NULL, FLAG_TRUE, AT(full), "report compare show", "all tables, not a screen of them"},
    {"--figures", "DIR", FLAG_TEXT, AT(figures), "show", "also draw the maps of selected keys into this folder"},
    {"--fail-below", "X", FLAG_TEXT, AT(fail_below), "compare",
     "exit code 4 where a configuration's mean difference is below X points, or a row of A is missing"},
    {"--case", "NAME", FLAG_TEXT, AT(kernel_case), "bench-kernels", "only cases whose name contains this"},
    {"--version", NULL, FLAG_TRUE, AT(version), NULL, "print the version and what it was built with"},
    {"--help", NULL, FLAG_TRUE, AT(help), NULL, "print this, or what one command takes"},
    {.name = NULL},
};
#define NUMBER_MAX                                                                                                \
    ((int64_t)1 << 53) /* numbers pass through JSON: beyond, a double no longer tells them apart                  \
                        */

char mb_flag_letter(const mb_flag *flag)
{
    static const char *const letters[][2] = {
        {"--quiet", "q"}, {"--verbose", "v"}, {"--version", "V"}, {"--help", "h"}};
    for (size_t i = 0; i < sizeof letters / sizeof letters[0]; i++)
        if (strcmp(letters[i][0], flag->name) == 0)
            return *letters[i][1];
    return '\0';
}

/* Whether a list of words, which may be NULL, has this one. */
static bool lists(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *p = words; p && *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == length && strncmp(p, word, length) == 0)
            return true;
    return false;
}

bool mb_flag_belongs(const mb_flag *flag, const char *command)
{
    return !flag->commands || lists(flag->commands, command);
}

bool mb_key_belongs(const mb_key *key, const char *command)
{
    return key->flag && (strcmp(command, "run") == 0 || lists(key->commands, command));
}

static int store_value(mb_cli *cli, const mb_flag *f, const char *value, mb_error *err)
{
    void *field = (char *)cli + f->offset;
    char *end = NULL;
    switch (f->kind) {
    case FLAG_TRUE:
        *(bool *)field = true;
        break;
    case FLAG_TEXT:
        *(const char **)field = value;
        break;
    case FLAG_NUMBER:
        errno = 0;
        *(int64_t *)field = strtoll(value, &end, 10);
        if (errno || end == value || *end || *(int64_t *)field < 0 || *(int64_t *)field > NUMBER_MAX)
            return mb_fail(err, MB_E_INPUT, "%s takes a whole number from 0 to %lld, not \"%s\"", f->name,
                           (long long)NUMBER_MAX, value);
        break;
    case FLAG_SET:
        if (cli->set_count == sizeof cli->sets / sizeof cli->sets[0])
            return mb_fail(err, MB_E_INPUT, "too many --set flags");
        cli->sets[cli->set_count++] = value;
        break;
    case FLAG_PLUGIN:
        if (cli->plugin_count == sizeof cli->plugins / sizeof cli->plugins[0])
            return mb_fail(err, MB_E_INPUT, "too many --plugin flags");
        cli->plugins[cli->plugin_count++] = value;
        break;
    }
    return MB_OK;
}

/* The command line as a shell would take it again. */
static char *quote_command(int argc, char **argv)
{
    mb_text text = {0};
    for (int i = 0; i < argc; i++) {
        bool plain = argv[i][0] && strspn(argv[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                                   "_-./=,:+@%") == strlen(argv[i]);
        mb_text_puts(&text, i ? " " : "");
        if (plain) {
            mb_text_puts(&text, argv[i]);
            continue;
        }
        mb_text_puts(&text, "'");
        for (const char *p = argv[i]; *p; p++) {
            if (*p == '\'')
                mb_text_puts(&text, "'\\''");
            else
                mb_text_append(&text, p, 1);
        }
        mb_text_puts(&text, "'");
    }
    return mb_text_take(&text);
}

/* A flag as it was given: of this table, of a config key, or of both. */
typedef struct given {
    const mb_flag *own;
    const mb_key *key;
    const char *name, *value; /* name for sentences; value NULL: it takes none */
} given;

static const mb_flag *find_flag(const char *word)
{
    size_t length = strcspn(word, "=");
    for (const mb_flag *f = mb_flags; f->name; f++)
        if ((strlen(f->name) == length && strncmp(f->name, word, length) == 0) ||
            (length == 2 && word[1] != '-' && mb_flag_letter(f) == word[1]))
            return f;
    return NULL;
}

/* "unknown flag --limt; did you mean --limit?" */
static int unknown_flag(const char *word, mb_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word, "="), word);
    mb_guess guess = {.word = name};
    for (const mb_flag *f = mb_flags; f->name; f++)
        mb_guess_offer(&guess, f->name, strlen(f->name));
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (key->flag)
            mb_guess_offer(&guess, key->flag, strcspn(key->flag, " "));
    return mb_fail(err, MB_E_INPUT, "unknown flag %s%s; ./harness COMMAND --help lists them", word,
                   mb_guess_phrase(&guess));
}

/* One flag and, where it takes one, its value: behind a "=" or the next word. */
static int read_flag(given *g, char **argv, int argc, int *i, mb_error *err)
{
    const char *word = argv[*i];
    g->own = find_flag(word);
    g->key = mb_config_flag(word);
    if (!g->own && !g->key)
        return unknown_flag(word, err);
    g->name = g->own ? g->own->name : g->key->flag;
    g->value = word[strcspn(word, "=")] == '=' ? strchr(word, '=') + 1 : NULL;
    bool takes = g->key || g->own->kind != FLAG_TRUE;
    if (!takes && g->value)
        return mb_fail(err, MB_E_INPUT, "%s takes no value", g->name);
    if (!takes || g->value)
        return MB_OK;
    if (++*i >= argc && g->key)
        return mb_fail(err, MB_E_INPUT, "%.*s needs a value: %s", (int)strcspn(g->key->flag, " "), g->key->flag,
                       g->key->flag);
    if (*i >= argc)
        return mb_fail(err, MB_E_INPUT, "%s needs a value: %s %s", g->name, g->name, g->own->value);
    g->value = argv[*i];
    return MB_OK;
}

/* A flag that a command does not look at is a misunderstanding: better said than passed over. */
static int check_place(const given *g, const char *command, mb_error *err)
{
    const char *more = g->own ? g->own->commands : g->key->commands;
    if ((g->key && mb_key_belongs(g->key, command)) || (g->own && mb_flag_belongs(g->own, command)))
        return MB_OK;
    return mb_fail(err, MB_E_INPUT, "%.*s says nothing to \"%s\"; it belongs to: %s%s%s",
                   (int)strcspn(g->name, " "), g->name, command, g->key ? "run" : "", g->key && more ? " " : "",
                   more ? more : "");
}

static int store_given(mb_cli *cli, const given *g, mb_error *err)
{
    int rc = g->own ? store_value(cli, g->own, g->value, err) : MB_OK;
    if (rc != MB_OK || !g->key)
        return rc;
    if (cli->value_count == sizeof cli->values / sizeof cli->values[0])
        return mb_fail(err, MB_E_INPUT, "too many flags");
    cli->values[cli->value_count] = (mb_config_value){g->key, g->value};
    return mb_config_value_check(&cli->values[cli->value_count++], err);
}

int mb_cli_parse(mb_cli *cli, int argc, char **argv, mb_error *err)
{
    given *all = calloc((size_t)argc + 1, sizeof *all);
    size_t count = 0;
    memset(cli, 0, sizeof *cli);
    cli->words = calloc((size_t)argc + 1, sizeof *cli->words);
    int rc = all && cli->words ? MB_OK : mb_no_memory(err, "the command line");
    cli->steps = cli->max_new_tokens = -1;
    cli->nothing = argc <= 1;
    cli->command = quote_command(argc, argv);
    cli->default_model = mb_shared_path("models/tiny");
    for (int i = 1; rc == MB_OK && i < argc; i++) {
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            cli->words[cli->word_count++] = argv[i];
            continue;
        }
        rc = read_flag(&all[count], argv, argc, &i, err);
        if (rc == MB_OK)
            rc = store_given(cli, &all[count++], err);
    }
    const char *command = cli->word_count ? cli->words[0] : "run";
    for (size_t k = 0; rc == MB_OK && !cli->help && !cli->version && k < count; k++)
        rc = check_place(&all[k], command, err);
    free(all);
    return rc;
}

int mb_chosen_type(const mb_cli *cli, mb_type preset, mb_type *type, mb_error *err)
{
    static const mb_type types[] = {MB_F32, MB_BF16, MB_F16};
    *type = preset;
    for (size_t i = 0; cli->type && i < sizeof types / sizeof *types; i++)
        if (strcmp(cli->type, mb_type_name(types[i])) == 0) {
            *type = types[i];
            return MB_OK;
        }
    return cli->type ? mb_fail(err, MB_E_INPUT, "--type is f32, bf16 or f16, not \"%s\"", cli->type) : MB_OK;
}

void mb_cli_free(mb_cli *cli)
{
    free(cli->words);
    free(cli->command);
    free(cli->default_model);
    cli->command = cli->default_model = NULL;
}
