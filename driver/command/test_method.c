/*
 * test_method.c - `./harness test NAME|PLUGIN.so`: the properties that every method keeps, for one method, over
 * its options. A configuration is tested in a process of its own, which tells what it begins and how it went
 * through a pipe: a method that crashes or hangs fails the property that it was in, and nothing else.
 */
#include "driver/command/commands.h"

#include "driver/os/os.h"
#include "properties/properties.h"
#include "properties/sweep.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARENA_BYTES ((size_t)64 << 20)
#define SECONDS 120 /* for a configuration: some hundred times what one takes */

/* What a test goes through, and what came of it. */
typedef struct tally {
    const mb_method *method;
    const mb_cli *cli;
    mb_type type;
    size_t configurations, skipped, checks, failed;
} tally;

/* One line of a child: a property's number and B (begins), P (passed), F (failed, with a sentence), or U (the
 * configuration is not for this shape, with the reason). */
typedef struct told {
    size_t at; /* of mb_properties */
    char what;
    char sentence[MB_ERROR_CAP];
} told;

static void tell(FILE *to, size_t at, char what, const char *sentence)
{
    char line[MB_ERROR_CAP];
    snprintf(line, sizeof line, "%s", sentence);
    for (char *p = line; *p; p++)
        *p = *p == '\n' ? ' ' : *p;
    fprintf(to, "%zu %c %s\n", at, what, line);
    fflush(to);
}

static bool hear(FILE *from, told *line)
{
    char text[MB_ERROR_CAP + 64];
    int read = 0;
    if (!fgets(text, sizeof text, from) || sscanf(text, "%zu %c %n", &line->at, &line->what, &read) < 2)
        return false;
    text[strcspn(text, "\n")] = '\0';
    snprintf(line->sentence, sizeof line->sentence, "%.*s", MB_ERROR_CAP - 1, text + read);
    return true;
}

/* The child: all properties of one configuration. */
static void test_here(const tally *t, const mb_sweep_entry *entry, FILE *to)
{
    mb_error err = {0}, note = {0};
    mb_stage_env env = {.type = t->type};
    mb_device_options device = {.type = t->type, .threads = 1, .arena_bytes = ARENA_BYTES};
    const char *name = t->cli->device ? t->cli->device : "cpu";
    if (mb_device_open(name, &device, &env.kernels, &env.device, &note, &err) != MB_OK) {
        tell(to, 0, 'B', "");
        tell(to, 0, 'F', err.text);
        return;
    }
    tell(to, 0, 'B', "");
    int supported = mb_property_supported(&env, t->method, entry->options, &err);
    if (supported != 1) {
        tell(to, 0, supported == 0 ? 'U' : 'F', err.text);
    } else {
        for (size_t i = 0; mb_properties[i].name; i++) {
            mb_error why = {0};
            /* An end of a range may mean dense everywhere; what a user gives may not. */
            if (mb_properties[i].check == mb_property_sparse && *entry->label)
                continue;
            tell(to, i, 'B', "");
            bool kept = mb_properties[i].check(&env, t->method, entry->options, &why) == 0;
            tell(to, i, kept ? 'P' : 'F', why.text);
        }
    }
    env.kernels->close(env.device);
}

/* Whether there is colour to print with. */
static const char *red(bool on)
{
    return mb_terminal_colour(STDOUT_FILENO) ? (on ? "\033[31m" : "\033[0m") : "";
}

static void print_failure(tally *t, const char *label, bool *named, const char *property, const char *sentence)
{
    if (!*named) {
        printf("  %sFAILED%s  ", red(true), red(false));
        mb_print(stdout, "%s", label);
    }
    *named = true;
    t->failed++;
    mb_print(stdout, "            %s: %s", property, sentence);
}

/* What the child tells, as it comes. *last: the property that it is in. */
static void listen(tally *t, const char *label, FILE *from, bool *named, const char **last, bool *skipped)
{
    told line;
    while (hear(from, &line)) {
        const char *property = mb_properties[line.at].name;
        t->checks += line.what == 'P' || line.what == 'F';
        *last = line.what == 'B' ? property : NULL;
        if (line.what == 'F')
            print_failure(t, label, named, property, line.sentence);
        else if (line.what == 'P' && t->cli->verbose)
            printf("            %s\n", property);
        *skipped = *skipped || line.what == 'U';
        if (line.what == 'U' && !t->cli->quiet)
            mb_print(stdout, "  skipped %s: %s", label, line.sentence);
    }
}

static int test_one(tally *t, const mb_sweep_entry *entry, mb_error *err)
{
    int ends[2], status = 0;
    bool named = false, skipped = false;
    const char *last = NULL;
    char label[256];
    snprintf(label, sizeof label, "%s%s", *entry->label ? entry->label : "as given",
             t->type == MB_F32 ? "" : ", bf16");
    fflush(NULL);
    if (pipe(ends) != 0)
        return mb_fail(err, MB_E_SYSTEM, "cannot make a pipe");
    pid_t child = fork();
    if (child < 0) {
        close(ends[0]);
        close(ends[1]);
        return mb_fail(err, MB_E_SYSTEM, "cannot start a process");
    }
    if (child == 0) {
        FILE *to = fdopen(ends[1], "w");
        signal(SIGALRM, SIG_DFL);
        alarm(SECONDS);
        if (to)
            test_here(t, entry, to);
        _exit(0);
    }
    close(ends[1]);
    FILE *from = fdopen(ends[0], "r");
    if (from) {
        listen(t, label, from, &named, &last, &skipped);
        fclose(from);
    }
    while (waitpid(child, &status, 0) < 0 && !mb_interrupted)
        continue;
    if (WIFSIGNALED(status) && !mb_interrupted) {
        char sentence[128];
        if (WTERMSIG(status) == SIGALRM)
            snprintf(sentence, sizeof sentence, "not done after %d s", SECONDS);
        else
            snprintf(sentence, sizeof sentence, "the method crashed: %s", strsignal(WTERMSIG(status)));
        t->checks++;
        print_failure(t, label, &named, last ? last : "start", sentence);
    }
    t->configurations++;
    t->skipped += skipped;
    if (!named && !skipped && !t->cli->quiet)
        mb_print(stdout, "  ok      %s", label);
    return mb_interrupted ? mb_fail(err, MB_E_STOP, "interrupted") : MB_OK;
}

/* The options that --set gives, on top of the presets. */
static int read_options(const mb_cli *cli, const mb_method *method, void *options, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < cli->set_count; i++) {
        char *name = mb_string_copy(cli->sets[i]), *equals = name ? strchr(name, '=') : NULL;
        if (!name)
            rc = mb_no_memory(err, "--set");
        else if (!equals)
            rc = mb_fail(err, MB_E_INPUT, "--set %s: write it as key=value, e.g. --set k=64", name);
        if (rc == MB_OK) {
            *equals = '\0';
            rc = mb_method_options_set(method, options, name, equals + 1, "--set", err);
        }
        free(name);
    }
    return rc;
}

static int test_all(tally *t, void *options, mb_error *err)
{
    mb_sweep sweep;
    mb_sweep_entry given = {"", options};
    int rc = mb_sweep_make(&sweep, t->method, options, err);
    if (rc == MB_OK && !t->cli->quiet)
        mb_print(stdout, "%s %s: %zu configurations on %s", t->method->name, t->method->version, sweep.count + 1,
                 t->cli->device ? t->cli->device : "cpu");
    t->type = MB_F32;
    for (size_t i = 0; rc == MB_OK && i < sweep.count; i++)
        rc = test_one(t, &sweep.entries[i], err);
    t->type = MB_BF16;
    if (rc == MB_OK)
        rc = test_one(t, &given, err);
    mb_sweep_free(&sweep);
    return rc;
}

/* The method of this name, or of the plug-in in this file. */
static int find_method(const char *word, const mb_method **method, mb_error *err)
{
    const size_t before = mb_registry_count();
    mb_guess guess = {.word = word};
    if ((*method = mb_registry_find(word)))
        return MB_OK;
    if (strchr(word, '/') || (strlen(word) > 3 && strcmp(word + strlen(word) - 3, ".so") == 0)) {
        int rc = mb_registry_load(word, err);
        *method = rc == MB_OK ? mb_registry_at(before) : NULL;
        return rc;
    }
    for (size_t i = 0; i < before; i++)
        mb_guess_offer(&guess, mb_registry_at(i)->name, strlen(mb_registry_at(i)->name));
    return mb_fail(err, MB_E_INPUT,
                   "no method is named \"%s\"%s; ./harness list methods shows them, and FILE.so is a "
                   "plug-in",
                   word, mb_guess_phrase(&guess));
}

int mb_command_test(const mb_cli *cli)
{
    mb_error err = {0};
    tally t = {.cli = cli};
    if (cli->word_count != 2)
        return mb_exit_fail(MB_E_INPUT, "test which method? ./harness test NAME, or ./harness test FILE.so");
    int rc = find_method(cli->words[1], &t.method, &err);
    if (rc != MB_OK)
        return mb_exit_fail(rc, err.text);
    void *options = mb_method_options_new(t.method);
    rc = read_options(cli, t.method, options, &err);
    if (rc == MB_OK)
        rc = test_all(&t, options, &err);
    free(options);
    if (rc != MB_OK)
        return mb_exit_fail(rc, err.text);
    printf("%zu configurations, %zu checks: ", t.configurations, t.checks);
    if (t.failed)
        printf("%s%zu failed%s\n", red(true), t.failed, red(false));
    else
        printf("all passed%s\n", t.skipped ? ", some configurations are not for this shape" : "");
    return t.failed || t.checks == 0 ? MB_EXIT_FAILURE : MB_EXIT_DONE;
}
