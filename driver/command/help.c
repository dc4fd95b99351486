/*
 * help.c - what ./harness says about itself: the usage, the help of a command, and `./harness help` on a method, a
 * task or the keys of a config. All of it is printed from the tables that the program works with: commands
 * (table.c), flags (cli.c), config keys (driver/config/keys.c), options of methods and tasks.
 */
#include "driver/command/commands.h"

#include "datasets/datasets.h"
#include "driver/config/keys.h"
#include "driver/config/training.h"
#include "driver/os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMN 26 /* where a summary begins */

/* One line of a list: a name, its value, what it is. A long head has a line of its own. */
static void print_row(const char *name, int length, const char *value, const char *help)
{
    int width = printf("  %.*s%s%s", length, name, *value ? " " : "", value);
    printf("%s%*s%s\n", width < COLUMN ? "" : "\n", width < COLUMN ? COLUMN - width : COLUMN, "", help);
}

static void print_flag(const mb_flag *flag)
{
    char name[64];
    snprintf(name, sizeof name, mb_flag_letter(flag) ? "%s, -%c" : "%s", flag->name, mb_flag_letter(flag));
    print_row(name, (int)strlen(name), flag->value ? flag->value : "", flag->help);
}

static void print_flags(const char *command, bool common)
{
    for (const mb_flag *flag = mb_flags; flag->name; flag++)
        if (!flag->commands == common && mb_flag_belongs(flag, command))
            print_flag(flag);
}

void mb_help_usage(void)
{
    puts("maskbench: attention methods on one block-diffusion language model\n\n"
         "usage: ./harness COMMAND [words] [flags]\n"
         "       ./harness [--config FILE] [flags]   the same as ./harness run\n\ncommands");
    for (const mb_command *command = mb_commands; command->name; command++)
        if (command->arguments)
            print_row(command->name, (int)strlen(command->name), "", command->summary);
    puts("\nflags of every command");
    print_flags("", true);
    puts("\nenvironment");
    for (const mb_variable *variable = mb_variables; variable->name; variable++)
        print_row(variable->name, (int)strlen(variable->name), "", variable->help);
    puts("\n./harness COMMAND --help shows what a command takes, ./harness help config the keys of a config.\n\n"
         "exit codes: 0 done, 1 failure, 2 wrong input, 3 some samples failed, 4 a sanity gate failed, "
         "130 interrupted");
}

/* "./harness NAME ARGUMENTS", a line a way. */
static void print_calls(const mb_command *command)
{
    const char *line = command->arguments, *lead = "usage: ";
    do {
        size_t n = strcspn(line, "\n");
        printf("%s./harness %s%s%.*s\n", lead, command->name, n ? " " : "", (int)n, line);
        line += n + (line[n] == '\n');
        lead = "       ";
    } while (*line);
}

void mb_help_command(const mb_command *command)
{
    bool own = false;
    printf("%s: %s\n\n", command->name, command->summary);
    print_calls(command);
    if (command->details)
        printf("\n%s\n", command->details);
    for (const mb_flag *flag = mb_flags; flag->name; flag++)
        own = own || (flag->commands && mb_flag_belongs(flag, command->name));
    if (own)
        puts("\nflags");
    print_flags(command->name, false);
    bool title = false;
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        if (!mb_key_belongs(key, command->name))
            continue;
        if (!title)
            puts("\nflags that set a key of the config, each a spelling of --set KEY=VALUE");
        title = true;
        print_row(key->flag, (int)strlen(key->flag), "", key->help);
    }
    puts("\nflags of every command");
    print_flags(command->name, true);
}

/* Prints and frees a text; 0, or 1 when it could not be built. */
static int print_text(mb_text *text)
{
    int code = text->failed ? 1 : 0;
    if (!text->failed && text->data)
        fwrite(text->data, 1, text->length, stdout);
    mb_text_free(text);
    return code;
}

/* A task as a config names it, with its own keys. */
static int help_task(const mb_task_info *t)
{
    printf("%s: %s of %s, %s\n  scored by %s, at most %d new tokens%s\n", t->name, t->category, t->benchmark,
           t->language, t->metric, t->max_new_tokens, t->chat ? ", in the chat template" : "");
    printf("\nkeys of a config's {\"task\": \"%s\", ...}\n", t->name);
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (strcmp(key->section, "task") == 0 && strcmp(key->name, MB_CONFIG_KEY_OF(tasks)->shorthand) != 0)
            printf("  %-15s %s\n", key->name, key->help);
    for (const char *line = t->options; line && *line;) {
        size_t n = strcspn(line, "\n");
        printf("  %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
    return 0;
}

static int unknown_topic(const char *name)
{
    mb_error err = {0};
    mb_guess guess = {.word = name};
    mb_guess_offer(&guess, "config", 6);
    mb_guess_offer(&guess, MB_KEY_TRAINING, strlen(MB_KEY_TRAINING));
    for (size_t i = 0; i < mb_registry_count(); i++)
        mb_guess_offer(&guess, mb_registry_at(i)->name, strlen(mb_registry_at(i)->name));
    for (size_t i = 0; i < mb_task_count(); i++)
        mb_guess_offer(&guess, mb_task_at(i)->name, strlen(mb_task_at(i)->name));
    for (const mb_command *command = mb_commands; command->name; command++)
        if (command->arguments)
            mb_guess_offer(&guess, command->name, strlen(command->name));
    mb_fail(&err, 0,
            "no method, no task and no command is named \"%s\"%s; ./harness list methods and list tasks show "
            "them, ./harness help config the keys of a config",
            name, mb_guess_phrase(&guess));
    return mb_exit_fail(MB_E_INPUT, err.text);
}

int mb_command_help(const mb_cli *cli)
{
    mb_text text = {0};
    const char *name = cli->word_count > 1 ? cli->words[1] : "";
    if (!*name) {
        mb_help_usage();
        return 0;
    }
    if (strcmp(name, "config") == 0) {
        if (cli->markdown)
            mb_config_help_markdown(&text);
        else
            mb_config_help(&text);
        return print_text(&text);
    }
    if (strcmp(name, MB_KEY_TRAINING) == 0) {
        if (cli->markdown)
            mb_train_config_help_markdown(&text);
        else
            mb_train_config_help(&text);
        return print_text(&text);
    }
    const mb_method *method = mb_registry_find(name);
    const mb_task_info *task = mb_task_find(name);
    const mb_command *command = mb_command_find(name);
    if (!method && task)
        return help_task(task);
    if (!method && command && command->arguments) {
        mb_help_command(command);
        return 0;
    }
    if (!method)
        return unknown_topic(name);
    char *help = mb_method_help(method);
    if (!help)
        return mb_exit_fail(MB_E_SYSTEM, "no memory");
    fputs(help, stdout);
    free(help);
    return 0;
}

int mb_command_schema(const mb_cli *cli)
{
    cJSON *schema = mb_config_schema();
    char *text = schema ? cJSON_Print(schema) : NULL;
    (void)cli;
    cJSON_Delete(schema);
    if (!text)
        return mb_exit_fail(MB_E_SYSTEM, "no memory for the schema");
    puts(text);
    cJSON_free(text);
    return 0;
}
