/*
 * list.c - `./harness list`: what there is to choose from. For people a kind may have a layout of its own; as rows
 * (--csv, --jsonl, --md) all kinds go through one writer, a value a column.
 */
#include "driver/command/commands.h"
#include "datasets/datasets.h"
#include "driver/config/training.h"
#include "driver/os/os.h"
#include "results/results.h"

#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "counter hit_rate by layer and step (higher is better): ..." */
static void list_counter(const char *name, const char *axes, const mb_counter *words)
{
    const char *unit = words->unit, *better = words->better;
    bool any = *unit || *better;
    mb_print(stdout, "%-16s   counter %s%s%s%s%s%s%s%s%s: %s", "", name, *axes ? " by " : "", axes,
             any ? " (" : "", unit, *unit && *better ? ", " : "", better, *better ? " is better" : "",
             any ? ")" : "", words->help);
}

static int print_methods(const mb_cli *cli)
{
    (void)cli;
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *m = mb_registry_at(i);
        const char *origin = mb_registry_origin(m);
        mb_print(stdout, "%-16s %s%s%s%s", m->name, m->summary, *origin ? "  [" : "", origin, *origin ? "]" : "");
        for (const mb_counter *c = m->counters; c && c->name; c++)
            list_counter(c->name, "", c);
        for (const mb_counter_map *g = m->maps; g && g->name; g++)
            list_counter(g->name, mb_counter_map_axes(g->axes),
                         &(mb_counter){.unit = g->unit, .better = g->better, .help = g->help});
    }
    return 0;
}

static int print_tasks(const mb_cli *cli)
{
    (void)cli;
    const char *benchmark = "";
    for (size_t i = 0; i < mb_task_count(); i++) {
        const mb_task_info *t = mb_task_at(i);
        if (strcmp(benchmark, t->benchmark) != 0) {
            benchmark = t->benchmark;
            printf("%s\n", benchmark);
        }
        printf("  %-24s %-22s %-4s %-17s %5d new tokens\n", t->name, t->category, t->language, t->metric,
               t->max_new_tokens);
    }
    puts("\nA benchmark's name stands for all of its tasks; so do longbench_en (English and code), longbench_zh "
         "and all.\n"
         "./harness help TASK shows the keys that a task has of its own.");
    return 0;
}

static bool is_gguf(const char *path)
{
    const size_t n = path ? strlen(path) : 0;
    return n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}

/* Checkpoint folders and GGUF files below models/ or --model. */
static int list_models(const mb_cli *cli)
{
    char *root = mb_shared_path(cli->model ? cli->model : "models");
    struct dirent **names = NULL;
    int n = root ? scandir(root, &names, NULL, alphasort) : -1, found = 0;
    for (int i = 0; i < n; i++) {
        char *path = mb_string_format("%s/%s", root, names[i]->d_name);
        mb_error err = {0};
        char *config = mb_string_format("%s/config.json", path ? path : "");
        mb_model_request request = {.path = path};
        mb_model_config shape;
        if (names[i]->d_name[0] != '.' && config && (mb_file_exists(config) || is_gguf(path))) {
            found++;
            char experts[64] = "";
            int rc = mb_model_inspect(&request, &shape, &err);
            if (rc == MB_OK && shape.moe.experts > 0)
                snprintf(experts, sizeof experts, "%d of %d experts, ", shape.moe.per_token, shape.moe.experts);
            if (rc == MB_OK)
                mb_print(
                    stdout,
                    "%-32s %s, %d layers, %s%d/%d heads of %d, hidden %d, block %d, %d positions, %.2f GiB in "
                    "bf16",
                    path, mb_family_name(shape.family), shape.layers, experts, shape.query_heads, shape.kv_heads,
                    shape.head_dim, shape.hidden, shape.block, shape.positions,
                    (double)mb_model_weight_bytes(&shape, MB_BF16) / 0x1p30);
            else
                mb_print(stdout, "%-32s %s", path, err.text);
        }
        free(config);
        free(path);
        free(names[i]);
    }
    free(names);
    if (!found)
        mb_print(stdout, "no checkpoint folder below %s", root ? root : "models");
    free(root);
    return 0;
}

static int query_store(const mb_cli *cli, size_t word, const char *sql)
{
    mb_error err = {0};
    mb_store *store = NULL;
    mb_text text = {0};
    mb_table_format format = MB_TABLE_TERMINAL;
    int rc = mb_chosen_format(cli, &format, &err);
    if (rc == MB_OK)
        rc = mb_store_open(&store, mb_chosen_database(cli, word), MB_STORE_READ, &err);
    if (rc == MB_OK)
        rc = mb_table_query(store, sql, format, mb_terminal_width(), &text, &err);
    mb_store_close(store, NULL);
    if (rc != MB_OK) {
        mb_text_free(&text);
        return mb_exit_fail(rc, err.text);
    }
    return mb_print_text(&text);
}

/* What tells runs apart at a glance, in 80 columns; v_runs (--csv, --jsonl) has the rest, whole configs among it.
 */
static const char runs_sql[] = "SELECT run, state, replace(substr(started_at, 1, 16), 'T', ' ') AS started, "
                               "samples, failed, gates_failed AS red, "
                               "device, seed, git FROM v_runs ORDER BY session_id";

/* ---- as rows ---- */

#define COLUMNS 8

typedef struct listing {
    const char *const *columns; /* names, NULL behind the last */
    mb_table_format format;
    mb_text *out;
    size_t rows;
} listing;

static void put_csv(mb_text *out, const char *value)
{
    bool quoted = strpbrk(value, ",\"\n\r") != NULL;
    mb_text_puts(out, quoted ? "\"" : "");
    for (const char *p = value; *p; p++)
        mb_text_append(out, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
    mb_text_puts(out, quoted ? "\"" : "");
}

static void put_cell(const listing *l, size_t i, const char *value)
{
    switch (l->format) {
    case MB_TABLE_CSV:
        mb_text_puts(l->out, i ? "," : "");
        put_csv(l->out, value);
        break;
    case MB_TABLE_JSONL:
        mb_text_printf(l->out, "%s\"%s\": \"", i ? ", " : "{", l->columns[i]);
        mb_text_json(l->out, value);
        mb_text_puts(l->out, "\"");
        break;
    case MB_TABLE_MARKDOWN:
        mb_text_puts(l->out, "| ");
        for (const char *p = value; *p; p++)
            mb_text_append(l->out, *p == '|' ? "\\|" : p, *p == '|' ? 2 : 1);
        mb_text_puts(l->out, " ");
        break;
    default: /* align() makes columns of it */
        mb_text_visible(l->out, value, "");
        mb_text_append(l->out, l->columns[i + 1] ? "\t" : "", l->columns[i + 1] ? 1 : 0);
    }
}

static void end_row(const listing *l)
{
    mb_text_puts(l->out, l->format == MB_TABLE_JSONL ? "}\n" : l->format == MB_TABLE_MARKDOWN ? "|\n" : "\n");
}

/* One row; values as many as there are columns, NULL = "". */
static void put_row(listing *l, const char *const *values)
{
    bool named = l->format == MB_TABLE_CSV || l->format == MB_TABLE_MARKDOWN ||
                 (l->format == MB_TABLE_TERMINAL && l->columns[0] && l->columns[1] && l->columns[2]);
    bool head = l->rows++ == 0 && named;
    for (size_t i = 0; head && l->columns[i]; i++)
        put_cell(l, i, l->columns[i]);
    if (head)
        end_row(l);
    for (size_t i = 0; head && l->format == MB_TABLE_MARKDOWN && l->columns[i]; i++)
        mb_text_puts(l->out, l->columns[i + 1] ? "|---" : "|---|\n");
    for (size_t i = 0; l->columns[i]; i++)
        put_cell(l, i, values[i] ? values[i] : "");
    end_row(l);
}

static size_t characters(const char *text, size_t bytes)
{
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++)
        count += (text[i] & 0xc0) != 0x80; /* UTF-8: not a byte that goes on */
    return count;
}

/* Terminal: rows of cells that end in tabs become columns as wide as their widest cell. */
static void align(const listing *l, mb_text *out)
{
    size_t widths[COLUMNS] = {0}, i = 0;
    const char *end;
    for (const char *cell = l->out->data; cell && *cell; cell = end + 1) {
        end = cell + strcspn(cell, "\t\n");
        size_t width = characters(cell, (size_t)(end - cell));
        widths[i] = width > widths[i] ? width : widths[i];
        i = *end == '\n' ? 0 : i + 1;
    }
    i = 0;
    size_t owed = 0; /* blanks: none at a line's end */
    for (const char *cell = l->out->data; cell && *cell; cell = end + 1) {
        end = cell + strcspn(cell, "\t\n");
        size_t length = (size_t)(end - cell);
        mb_text_printf(out, "%*s%.*s", length ? (int)owed : 0, "", (int)length, cell);
        owed = (length ? 0 : owed) + widths[i] - characters(cell, length) + 2;
        i++;
        if (*end == '\n') {
            mb_text_puts(out, "\n");
            i = owed = 0;
        }
    }
}

static void rows_methods(const mb_cli *cli, listing *l)
{
    (void)cli;
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *m = mb_registry_at(i);
        put_row(l, (const char *const[]){m->name, m->version, m->summary, m->reference, mb_registry_origin(m)});
    }
}

static void rows_tasks(const mb_cli *cli, listing *l)
{
    (void)cli;
    for (size_t i = 0; i < mb_task_count(); i++) {
        const mb_task_info *t = mb_task_at(i);
        char tokens[16];
        snprintf(tokens, sizeof tokens, "%d", t->max_new_tokens);
        put_row(l, (const char *const[]){t->name, t->benchmark, t->category, t->language, t->metric, tokens});
    }
}

/* Entries of a folder that end in suffix, by name, as path and what describe() says of it. */
static void rows_folder(listing *l, const char *folder, const char *file,
                        void (*describe)(listing *, const char *path))
{
    char *root = mb_shared_path(folder);
    struct dirent **names = NULL;
    int n = root ? scandir(root, &names, NULL, alphasort) : -1;
    for (int i = 0; i < n; i++) {
        size_t length = strlen(names[i]->d_name), tail = strlen(file);
        char *path = mb_string_format("%s/%s", root, names[i]->d_name);
        char *inside = *file == '/' && path ? mb_string_format("%s%s", path, file) : NULL;
        bool wanted = *file == '/' ? inside && mb_file_exists(inside)
                                   : length > tail && strcmp(names[i]->d_name + length - tail, file) == 0;
        if (path && names[i]->d_name[0] != '.' && wanted)
            describe(l, path);
        free(inside);
        free(path);
        free(names[i]);
    }
    free(names);
    free(root);
}

static void describe_model(listing *l, const char *path)
{
    mb_error err = {0};
    mb_model_request request = {.path = path};
    mb_model_config shape;
    char layers[16] = "", block[16] = "", positions[16] = "";
    int rc = mb_model_inspect(&request, &shape, &err);
    if (rc == MB_OK) {
        snprintf(layers, sizeof layers, "%d", shape.layers);
        snprintf(block, sizeof block, "%d", shape.block);
        snprintf(positions, sizeof positions, "%d", shape.positions);
    }
    put_row(l, (const char *const[]){path, rc == MB_OK ? mb_family_name(shape.family) : "", layers, block,
                                     positions, err.text});
}

static void rows_models(const mb_cli *cli, listing *l)
{
    rows_folder(l, cli->model ? cli->model : "models", "/config.json", describe_model);
}

/* Whether the file is the config of a training, which is read by keys of its own. */
static bool describe_training(listing *l, const char *path)
{
    mb_error err = {0};
    mb_train_config config;
    const mb_config_flags none = {0};
    if (mb_train_config_load(&config, path, &none, &err) != MB_OK)
        return false;
    put_row(l, (const char *const[]){path, config.name, "training", "", "", "", ""});
    mb_train_config_free(&config);
    return true;
}

/* A config as it stands: what its runs are called and what they do; or what is wrong with it. */
static void describe_config(listing *l, const char *path)
{
    mb_error err = {0};
    mb_config_list list;
    mb_config_flags none = {0};
    char runs[16] = "", arms[16] = "", tasks[16] = "";
    bool good = mb_config_load(&list, path, &none, &err) == MB_OK;
    if (!good && describe_training(l, path))
        return;
    if (good) {
        snprintf(runs, sizeof runs, "%zu", list.count);
        snprintf(arms, sizeof arms, "%zu", list.configs[0].method_count * list.configs[0].samplers.count);
        snprintf(tasks, sizeof tasks, "%zu", list.configs[0].task_count);
    }
    put_row(l, (const char *const[]){path, good ? list.configs[0].name : "", good ? "run" : "", runs, arms, tasks,
                                     err.text});
    if (good)
        mb_config_list_free(&list);
}

static void rows_configs(const mb_cli *cli, listing *l)
{
    (void)cli;
    rows_folder(l, "configs", ".json", describe_config);
}

static void rows_shapes(const mb_cli *cli, listing *l)
{
    (void)cli;
    for (size_t i = 0; mb_model_shape_name(i); i++) {
        mb_error err = {0};
        mb_model_request request = {.shape = mb_model_shape_name(i)};
        mb_model_config shape;
        char size[128] = "";
        if (mb_model_inspect(&request, &shape, &err) == MB_OK)
            snprintf(size, sizeof size, "%s, %d layers, %d/%d heads of %d, %.2f GiB in bf16",
                     mb_family_name(shape.family), shape.layers, shape.query_heads, shape.kv_heads, shape.head_dim,
                     (double)mb_model_weight_bytes(&shape, MB_BF16) / 0x1p30);
        put_row(l, (const char *const[]){request.shape, *err.text ? err.text : size});
    }
}

static void rows_figures(const mb_cli *cli, listing *l)
{
    char name[64], *shows;
    (void)cli;
    for (size_t i = 0; mb_plot_name(i, name, &shows); i++) {
        put_row(l, (const char *const[]){name, shows});
        free(shows);
    }
}

/* A kind of things: how to print it for people (NULL: as the rows are), and its rows. */
static const struct kind {
    const char *name;
    int (*print)(const mb_cli *cli);
    void (*rows)(const mb_cli *cli, listing *l);
    const char *columns[COLUMNS];
} kinds[] = {
    {"methods", print_methods, rows_methods, {"name", "version", "summary", "reference", "plugin"}},
    {"tasks", print_tasks, rows_tasks, {"name", "benchmark", "category", "language", "metric", "new_tokens"}},
    {"models", list_models, rows_models, {"path", "family", "layers", "block", "positions", "problem"}},
    {"configs", NULL, rows_configs, {"path", "name", "kind", "runs", "arms", "tasks", "problem"}},
    {"shapes", NULL, rows_shapes, {"name", "what"}},
    {"figures", NULL, rows_figures, {"name", "shows"}},
};

static int list_kind(const mb_cli *cli, const struct kind *kind)
{
    mb_error err = {0};
    mb_text text = {0};
    listing l = {.columns = kind->columns, .out = &text};
    int rc = mb_chosen_format(cli, &l.format, &err);
    if (rc == MB_OK && l.format != MB_TABLE_TERMINAL && l.format != MB_TABLE_CSV && l.format != MB_TABLE_JSONL &&
        l.format != MB_TABLE_MARKDOWN)
        rc = mb_fail(&err, MB_E_INPUT, "list %s has the formats terminal, csv, jsonl and md", kind->name);
    if (rc != MB_OK)
        return mb_exit_fail(rc, err.text);
    if (l.format == MB_TABLE_TERMINAL && kind->print)
        return kind->print(cli);
    kind->rows(cli, &l);
    if (l.format != MB_TABLE_TERMINAL)
        return mb_print_text(&text);
    mb_text aligned = {0};
    align(&l, &aligned);
    aligned.failed = aligned.failed || text.failed;
    mb_text_free(&text);
    return mb_print_text(&aligned);
}

int mb_command_list(const mb_cli *cli)
{
    const char *what = cli->word_count > 1 ? cli->words[1] : "";
    mb_error err = {0};
    mb_guess guess = {.word = what};
    if (strcmp(what, "runs") == 0)
        return query_store(cli, 2, cli->csv || cli->jsonl ? "SELECT * FROM v_runs" : runs_sql);
    mb_guess_offer(&guess, "runs", 4);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(what, kinds[i].name) == 0)
            return cli->word_count > 2
                       ? mb_exit_fail(MB_E_INPUT, "only list runs takes a further word, a database")
                       : list_kind(cli, &kinds[i]);
        mb_guess_offer(&guess, kinds[i].name, strlen(kinds[i].name));
    }
    mb_fail(&err, 0, "list what? methods, tasks, models, configs, shapes, figures or runs [DB]%s",
            mb_guess_phrase(&guess));
    return mb_exit_fail(MB_E_INPUT, err.text);
}
