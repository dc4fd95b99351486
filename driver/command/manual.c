/*
 * manual.c - the manual page and the completions of three shells, written from the tables of commands, flags and
 * config keys: `./harness man`, `./harness completion bash|zsh|fish`. `make install` puts them where they are
 * found.
 */
#include "driver/command/commands.h"

#include "datasets/datasets.h"
#include "driver/config/keys.h"
#include "driver/os/os.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- manual page ---- */

/* Text of a manual page: no line may begin as a request, and a hyphen and a backslash mean what they look like. */
static void put_roff(const char *text, size_t n)
{
    bool start = true;
    for (size_t i = 0; i < n; i++) {
        if (start && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", stdout);
        if (text[i] == '-' || text[i] == '\\')
            fputs(text[i] == '-' ? "\\-" : "\\e", stdout);
        else
            putchar(text[i]);
        start = text[i] == '\n';
    }
}

static void man_entry(const char *head, size_t n, const char *help)
{
    fputs(".TP\n.B ", stdout);
    put_roff(head, n);
    putchar('\n');
    put_roff(help, strlen(help));
    putchar('\n');
}

static void man_flag(const mb_flag *flag)
{
    char head[96];
    char letter[8] = "";
    if (mb_flag_letter(flag))
        snprintf(letter, sizeof letter, "-%c, ", mb_flag_letter(flag));
    snprintf(head, sizeof head, "%s%s%s%s", letter, flag->name, flag->value ? " " : "",
             flag->value ? flag->value : "");
    man_entry(head, strlen(head), flag->help);
}

static void man_command(const mb_command *command)
{
    fputs(".SS ", stdout);
    put_roff(command->name, strlen(command->name));
    putchar('\n');
    put_roff(command->summary, strlen(command->summary));
    puts(".\n.PP");
    for (const char *line = command->arguments; *line;) {
        size_t n = strcspn(line, "\n");
        printf(".B harness %s\n", command->name);
        put_roff(line, n);
        puts("\n.br");
        line += n + (line[n] == '\n');
    }
    if (command->details) {
        puts(".PP");
        put_roff(command->details, strlen(command->details));
        putchar('\n');
    }
    for (const mb_flag *flag = mb_flags; flag->name; flag++)
        if (flag->commands && mb_flag_belongs(flag, command->name))
            man_flag(flag);
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (key->flag && mb_key_belongs(key, command->name))
            man_entry(key->flag, strlen(key->flag), key->help);
}

int mb_command_man(const mb_cli *cli)
{
    mb_environment environment;
    (void)cli;
    mb_environment_read(&environment, 0);
    printf(".TH HARNESS 1 \"\" \"maskbench %s\" \"maskbench\"\n.SH NAME\nharness \\- attention methods on one "
           "block\\-diffusion language model\n.SH SYNOPSIS\n.B harness\nCOMMAND [words] [flags]\n.br\n"
           ".B harness\n[\\-\\-config FILE] [flags]\n.SH COMMANDS\n",
           environment.git);
    for (const mb_command *command = mb_commands; command->name; command++)
        if (command->arguments)
            man_command(command);
    puts(".SH FLAGS OF EVERY COMMAND");
    for (const mb_flag *flag = mb_flags; flag->name; flag++)
        if (!flag->commands)
            man_flag(flag);
    puts(".SH CONFIG KEYS\nA config is a JSON file; comments are allowed. Keys of a section are written as "
         "section.key.");
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        char head[128];
        snprintf(head, sizeof head, "%s%s%s", key->section, *key->section ? "." : "", key->name);
        man_entry(head, strlen(head), key->help);
    }
    puts(".SH ENVIRONMENT");
    for (const mb_variable *variable = mb_variables; variable->name; variable++)
        man_entry(variable->name, strlen(variable->name), variable->help);
    puts(".SH EXIT STATUS\n0 done, 1 failure, 2 wrong input, 3 some samples failed, 4 a sanity gate failed, 130 "
         "interrupted.");
    return 0;
}

/* ---- completion ---- */

/* What may stand behind a command, from its ways of calling it: words in small letters, "a|b" each. */
static void put_words(const mb_command *command)
{
    for (const char *line = command->arguments; *line;) {
        size_t n = strcspn(line, "\n"), word = strcspn(line, " \n");
        if (islower((unsigned char)*line))
            for (size_t i = 0; i < word; i++)
                putchar(line[i] == '|' ? ' ' : line[i]);
        putchar(' ');
        line += n + (line[n] == '\n');
    }
    const bool names = strstr(command->arguments, "METHOD") || command->run == mb_command_test;
    for (size_t i = 0; names && i < mb_registry_count(); i++)
        printf("%s ", mb_registry_at(i)->name);
    for (size_t i = 0; strstr(command->arguments, "TASK") && i < mb_task_count(); i++)
        printf("%s ", mb_task_at(i)->name);
}

static void put_flags(const char *command)
{
    for (const mb_flag *flag = mb_flags; flag->name; flag++)
        if (mb_flag_belongs(flag, command))
            printf("%s ", flag->name);
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (key->flag && mb_key_belongs(key, command))
            printf("%.*s ", (int)strcspn(key->flag, " "), key->flag);
}

static void put_commands(void)
{
    for (const mb_command *command = mb_commands; command->name; command++)
        if (command->arguments)
            printf("%s ", command->name);
}

/* The script that both bash and, through bashcompinit, zsh read. */
static void complete_bash(void)
{
    puts("_harness() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} command=run word i words=\n"
         "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "        word=${COMP_WORDS[i]}\n"
         "        case $word in -*) ;; *) command=$word; break ;; esac\n"
         "    done\n"
         "    case $command in");
    for (const mb_command *command = mb_commands; command->name; command++) {
        if (!command->arguments)
            continue;
        printf("    %s) words=\"", command->name);
        put_words(command);
        put_flags(command->name);
        puts("\" ;;");
    }
    fputs("    esac\n    if [ \"$COMP_CWORD\" = 1 ]; then words=\"", stdout);
    put_commands();
    puts("$words\"; fi\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
         "    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n"
         "}\n"
         "complete -o filenames -F _harness harness ./harness");
}

/* Single quotes of a shell's text. */
static void put_quoted(const char *text)
{
    putchar('\'');
    for (const char *p = text; *p; p++)
        fputs(*p == '\'' ? "\\'" : (const char[]){*p, '\0'}, stdout);
    putchar('\'');
}

static void fish_flag(const char *name, size_t n, bool takes, const char *command, const char *help)
{
    printf("complete -c harness -l %.*s%s", (int)n, name, takes ? " -r" : "");
    if (command)
        printf(" -n '__fish_seen_subcommand_from %s'", command);
    fputs(" -d ", stdout);
    put_quoted(help);
    putchar('\n');
}

static void complete_fish(void)
{
    for (const mb_command *command = mb_commands; command->name; command++) {
        if (!command->arguments)
            continue;
        printf("complete -c harness -n __fish_use_subcommand -a %s -d ", command->name);
        put_quoted(command->summary);
        printf("\ncomplete -c harness -n '__fish_seen_subcommand_from %s' -a '", command->name);
        put_words(command);
        puts("'");
        for (const mb_flag *flag = mb_flags; flag->name; flag++)
            if (flag->commands && mb_flag_belongs(flag, command->name))
                fish_flag(flag->name + 2, strlen(flag->name + 2), flag->value != NULL, command->name, flag->help);
        for (const mb_key *key = mb_config_keys; key->name; key++)
            if (key->flag && mb_key_belongs(key, command->name))
                fish_flag(key->flag + 2, strcspn(key->flag + 2, " "), true, command->name, key->help);
    }
    for (const mb_flag *flag = mb_flags; flag->name; flag++)
        if (!flag->commands)
            fish_flag(flag->name + 2, strlen(flag->name + 2), flag->value != NULL, NULL, flag->help);
}

int mb_command_completion(const mb_cli *cli)
{
    const char *shell = cli->word_count > 1 ? cli->words[1] : "";
    if (strcmp(shell, "fish") == 0) {
        complete_fish();
    } else if (strcmp(shell, "bash") == 0) {
        complete_bash();
    } else if (strcmp(shell, "zsh") == 0) {
        puts("#compdef harness\nautoload -Uz bashcompinit && bashcompinit");
        complete_bash();
    } else {
        return mb_exit_fail(MB_E_INPUT, "completion for which shell? bash, zsh or fish");
    }
    return 0;
}
