/*
 * new_method.c - `./harness new-method NAME`: a working method to start from, with a config that runs it and a
 * test.
 *
 * The templates are the files of methods/examples/, which are built and tested themselves; here they are only
 * renamed. What is written is an out-of-tree plug-in: docs/adding-a-method.md goes on from there.
 */
#include "driver/command/commands.h"
#include "driver/os/os.h"

#include "methods/registry/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_MAX_LENGTH 40

/* Every place where a template speaks of itself. Longer texts first: the last row is part of most of them. */
static const struct {
    const char *text, *with;
} renames[] = {
    {"methods/examples/example.json", "@.json"},
    {"methods/examples/example.c", "@.c"},
    {"\"methods/method.h\"", "\"method.h\""},
    {"-I. ", "$(pkg-config --cflags maskbench) "},
    {"example", "@"},
};

/* C identifier, JSON key, file name: the smallest common set of characters. */
static int check_name(const char *name, mb_error *err)
{
    size_t n = strlen(name);
    if (n == 0 || n > NAME_MAX_LENGTH || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != n ||
        name[0] < 'a')
        return mb_fail(err, MB_E_INPUT,
                       "new-method %s: a name has 1 to %d characters of a-z, 0-9 and _ and begins with a "
                       "letter",
                       name, NAME_MAX_LENGTH);
    const mb_method *other = mb_registry_find(name);
    if (other)
        return mb_fail(err, MB_E_INPUT, "new-method %s: there is a method of this name (%s); choose another", name,
                       other->summary);
    return MB_OK;
}

static char *rename_template(const char *text, const char *name)
{
    mb_text out = {0};
    while (*text) {
        size_t i = 0, rows = sizeof renames / sizeof renames[0];
        while (i < rows && strncmp(text, renames[i].text, strlen(renames[i].text)) != 0)
            i++;
        if (i == rows) {
            mb_text_append(&out, text++, 1);
            continue;
        }
        for (const char *p = renames[i].with; *p; p++) {
            if (*p == '@')
                mb_text_puts(&out, name);
            else
                mb_text_append(&out, p, 1);
        }
        text += strlen(renames[i].text);
    }
    return mb_text_take(&out);
}

static int write_file(const char *template, const char *path, const char *name, bool runs, mb_error *err)
{
    const char *text = mb_embedded_find(template, NULL);
    if (!text)
        return mb_fail(err, MB_E_BUG, "the template %s was not compiled in", template);
    char *renamed = rename_template(text, name);
    int rc = renamed ? mb_file_write(path, renamed, strlen(renamed), err) : mb_no_memory(err, "%s", path);
    free(renamed);
    if (rc == MB_OK && runs && chmod(path, 0755) != 0)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot make %s executable", path);
    return rc;
}

int mb_command_new_method(const mb_cli *cli)
{
    static const struct {
        const char *template, *before, *after;
    } files[] = {{"methods/examples/example.c", "", ".c"},
                 {"methods/examples/example.json", "", ".json"},
                 {"methods/examples/check_example.sh", "check_", ".sh"}};
    enum { FILES = sizeof files / sizeof files[0] };
    const char *folder = cli->out ? cli->out : ".";
    char *paths[FILES] = {NULL};
    mb_error err = {0};
    if (cli->word_count != 2)
        return mb_exit_fail(MB_E_INPUT, "new-method needs a name: ./harness new-method NAME [--out DIR]");
    const char *name = cli->words[1];
    int rc = check_name(name, &err);
    for (size_t i = 0; rc == MB_OK && i < FILES; i++) {
        paths[i] = mb_string_format("%s/%s%s%s", folder, files[i].before, name, files[i].after);
        if (!paths[i])
            rc = mb_no_memory(&err, "a path");
        else if (mb_file_exists(paths[i]))
            rc = mb_fail(&err, MB_E_INPUT, "new-method: %s exists and is not overwritten", paths[i]);
    }
    if (rc == MB_OK)
        rc = mb_folder_make(folder, &err);
    for (size_t i = 0; rc == MB_OK && i < FILES; i++)
        rc = write_file(files[i].template, paths[i], name, *files[i].before != '\0', &err);
    if (rc == MB_OK)
        printf("%s   the method: it works as it is\n%s   a run of it beside the exact method\n"
               "%s   builds it, runs it, checks what must hold for any method\n",
               paths[0], paths[1], paths[2]);
    for (size_t i = 0; i < FILES; i++)
        free(paths[i]);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}
