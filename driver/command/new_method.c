/*
 * new_method.c - `./harness new-method NAME`: a working method to start from, with a config that runs it and a
 * test; with --in-tree, one file of the source tree, which the next `make` builds in.
 *
 * The templates are the files of methods/examples/, which are built and tested themselves; here they are only
 * renamed. docs/adding-a-method.md goes on from what is written out of the tree.
 */
#include "driver/command/commands.h"
#include "driver/os/os.h"

#include "methods/registry/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_MAX_LENGTH 40

typedef struct rename_row {
    const char *text, *with;
} rename_row;

/* Every place where a template speaks of itself. Longer texts first: the last row is part of most of them. */
static const rename_row outside[] = {
    {"methods/examples/example.json", "@.json"},
    {"methods/examples/example.c", "@.c"},
    {"\"methods/method.h\"", "\"method.h\""},
    {"-I. ", "$(pkg-config --cflags maskbench) "},
    {"example", "@"},
    {NULL, NULL},
};
static const rename_row inside[] = {
    {"methods/examples/example.c", "methods/@.c"},
    {"example.c - an attention method outside the maskbench tree. Copy it, rename it, change select().",
     "@ - what it does, in one line. Author et al., paper, section."},
    {"example", "@"},
    {NULL, NULL},
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

static char *rename_template(const char *text, const char *name, const rename_row *renames)
{
    mb_text out = {0};
    while (*text) {
        const rename_row *row = renames;
        while (row->text && strncmp(text, row->text, strlen(row->text)) != 0)
            row++;
        if (!row->text) {
            mb_text_append(&out, text++, 1);
            continue;
        }
        for (const char *p = row->with; *p; p++) {
            if (*p == '@')
                mb_text_puts(&out, name);
            else
                mb_text_append(&out, p, 1);
        }
        text += strlen(row->text);
    }
    return mb_text_take(&out);
}

static int write_file(const char *template, const char *path, const char *name, const rename_row *renames,
                      bool runs, mb_error *err)
{
    const char *text = mb_embedded_find(template, NULL);
    if (!text)
        return mb_fail(err, MB_E_BUG, "the template %s was not compiled in", template);
    char *renamed = rename_template(text, name, renames);
    int rc = renamed ? mb_file_write(path, renamed, strlen(renamed), err) : mb_no_memory(err, "%s", path);
    free(renamed);
    if (rc == MB_OK && runs && chmod(path, 0755) != 0)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot make %s executable", path);
    return rc;
}

/* methods/NAME.c, and nothing else: the Makefile finds it. */
static int write_in_tree(const mb_cli *cli, mb_error *err)
{
    const char *name = cli->words[1];
    if (cli->out)
        return mb_fail(err, MB_E_INPUT, "new-method: --out and --in-tree exclude each other");
    if (!mb_file_exists("methods/method.h") || !mb_file_exists("Makefile"))
        return mb_fail(err, MB_E_INPUT,
                       "new-method --in-tree: there is no methods/method.h here; run it at the root "
                       "of the source tree");
    char *path = mb_string_format("methods/%s.c", name);
    int rc = path ? MB_OK : mb_no_memory(err, "a path");
    if (rc == MB_OK && mb_file_exists(path))
        rc = mb_fail(err, MB_E_INPUT, "new-method: %s exists and is not overwritten", path);
    if (rc == MB_OK)
        rc = write_file("methods/examples/example.c", path, name, inside, false, err);
    if (rc == MB_OK)
        mb_print(stdout, "%s   the method: it works as it is; `make` builds it in, `./harness help %s` shows it",
                 path, name);
    free(path);
    return rc;
}

int mb_command_new_method(const mb_cli *cli)
{
    static const struct {
        const char *template, *before, *after, *is;
    } files[] = {{"methods/examples/example.c", "", ".c", "the method: it works as it is"},
                 {"methods/examples/example.json", "", ".json", "a run of it beside the exact method"},
                 {"methods/examples/check_example.sh", "check_", ".sh",
                  "builds it, runs it, checks what must hold for any method"}};
    enum { FILES = sizeof files / sizeof files[0] };
    const char *folder = cli->out ? cli->out : ".";
    char *paths[FILES] = {NULL};
    mb_error err = {0};
    if (cli->word_count != 2)
        return mb_exit_fail(MB_E_INPUT, "new-method needs a name: ./harness new-method NAME [--out DIR]");
    const char *name = cli->words[1];
    int rc = check_name(name, &err);
    if (rc == MB_OK && cli->in_tree) {
        rc = write_in_tree(cli, &err);
        return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
    }
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
        rc = write_file(files[i].template, paths[i], name, outside, *files[i].before != '\0', &err);
    for (size_t i = 0; i < FILES; i++) {
        if (rc == MB_OK)
            mb_print(stdout, "%s   %s", paths[i], files[i].is);
        free(paths[i]);
    }
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}
