/*
 * options.c - options as data. One table row a key serves four readers: the check of a config value, the
 * defaults, `help METHOD`, and the canonical JSON text under which a configuration is stored and hashed.
 *
 * Invariant: a table that passed mb_registry_check_options() can be written through without further checks.
 */
#include "methods/registry/internal.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Integers pass through double on their way into texts; up to here that loses nothing. */
#define INTEGER_LIMIT 9007199254740992.0

static size_t value_size(mb_option_type type)
{
    switch (type) {
    case MB_OPTION_INT:
        return sizeof(int64_t);
    case MB_OPTION_REAL:
        return sizeof(double);
    case MB_OPTION_LIST:
        return sizeof(mb_option_list);
    case MB_OPTION_FILE:
        return sizeof(mb_option_file);
    case MB_OPTION_BOOL:
    case MB_OPTION_CHOICE:
        break;
    }
    return sizeof(int32_t);
}

static size_t value_alignment(mb_option_type type)
{
    return type == MB_OPTION_LIST   ? _Alignof(mb_option_list)
           : type == MB_OPTION_FILE ? _Alignof(mb_option_file)
                                    : value_size(type);
}

/* Values that are one number, and those that are more. */
static bool is_number(mb_option_type type)
{
    return type != MB_OPTION_LIST && type != MB_OPTION_FILE;
}

/* i-th word of "a|b|c"; its length in *n, NULL past the end. */
static const char *choice_at(const char *choices, int i, size_t *n)
{
    for (; i > 0; i--) {
        choices = strchr(choices, '|');
        if (!choices)
            return NULL;
        choices++;
    }
    *n = strcspn(choices, "|");
    return choices;
}

static int choice_count(const char *choices)
{
    int n = 1;
    for (; *choices; choices++)
        n += *choices == '|';
    return n;
}

static const mb_option *find_option(const mb_method *method, const char *name)
{
    for (const mb_option *o = method->options; o && o->name; o++)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

/* Where a row's value lies: in the method's struct, or in the host's behind it. */
static void *value_at(const mb_method *method, const mb_option *option, const void *options)
{
    size_t offset = option->offset;
    if (offset == MB_OPTION_OF_HOST)
        offset =
            MB_HOST_OPTIONS_AT(method) + (option->type == MB_OPTION_INT ? offsetof(mb_host_options, dense_layers)
                                                                        : offsetof(mb_host_options, commit));
    return (char *)(uintptr_t)options + offset;
}

size_t mb_method_options_bytes(const mb_method *method)
{
    return MB_HOST_OPTIONS_AT(method) + sizeof(mb_host_options);
}

static void store(const mb_method *method, const mb_option *option, void *options, int64_t integer, double real)
{
    void *at = value_at(method, option, options);
    int32_t small = (int32_t)integer;
    switch (option->type) {
    case MB_OPTION_INT:
        memcpy(at, &integer, sizeof integer);
        break;
    case MB_OPTION_REAL:
        memcpy(at, &real, sizeof real);
        break;
    case MB_OPTION_BOOL:
    case MB_OPTION_CHOICE:
        memcpy(at, &small, sizeof small);
        break;
    case MB_OPTION_LIST:
    case MB_OPTION_FILE: /* empty: the only preset */
        memset(at, 0, value_size(option->type));
        break;
    }
}

static double load(const mb_method *method, const mb_option *option, const void *options)
{
    const void *at = value_at(method, option, options);
    int64_t integer = 0;
    int32_t small = 0;
    double real = 0;
    switch (option->type) {
    case MB_OPTION_INT:
        memcpy(&integer, at, sizeof integer);
        return (double)integer;
    case MB_OPTION_REAL:
        memcpy(&real, at, sizeof real);
        return real;
    case MB_OPTION_BOOL:
    case MB_OPTION_CHOICE:
        memcpy(&small, at, sizeof small);
        return small;
    case MB_OPTION_LIST:
    case MB_OPTION_FILE:
        break;
    }
    return 0;
}

/* ---- the table itself ---- */

/* The rows that the host acts on are those of MB_OPTION_DENSE_LAYERS and MB_OPTION_COMMIT. */
static int check_host_option(const mb_option *o, mb_error *err)
{
    bool layers = strcmp(o->name, "dense_layers") == 0 && o->type == MB_OPTION_INT && o->min == 0;
    bool commit = strcmp(o->name, "commit") == 0 && o->type == MB_OPTION_CHOICE && o->choices &&
                  strncmp(o->choices, "dense|", 6) == 0 && choice_count(o->choices) == 2;
    if (!layers && !commit)
        return mb_fail(err, MB_E_INPUT,
                       "the host has no option like this; use MB_OPTION_DENSE_LAYERS or "
                       "MB_OPTION_COMMIT, or an offset in the method's own struct");
    return MB_OK;
}

static int check_place(const mb_method *method, const mb_option *o, mb_error *err)
{
    if (o->offset == MB_OPTION_OF_HOST)
        return check_host_option(o, err);
    size_t size = value_size(o->type);
    if (o->offset > method->options_size || size > method->options_size - o->offset)
        return mb_fail(err, MB_E_INPUT, "offset %zu plus %zu bytes is beyond options_size %zu", o->offset, size,
                       method->options_size);
    size = value_alignment(o->type);
    if (o->offset % size != 0)
        return mb_fail(err, MB_E_INPUT, "offset %zu is not a multiple of the value's %zu bytes", o->offset, size);
    return MB_OK;
}

/* A row of one number: its range, and the preset in it. */
static int check_range(const mb_option *o, mb_error *err)
{
    double min = o->min, max = o->max;
    if (o->type == MB_OPTION_CHOICE) {
        if (!o->choices || !*o->choices)
            return mb_fail(err, MB_E_INPUT, "a choice needs the list of its words in choices");
        min = 0;
        max = choice_count(o->choices) - 1;
    } else if (o->type == MB_OPTION_BOOL) {
        min = 0;
        max = 1;
    }
    if (o->type == MB_OPTION_INT && !(min >= -INTEGER_LIMIT && max <= INTEGER_LIMIT))
        return mb_fail(err, MB_E_INPUT, "min and max of an integer must be within +-2^53");
    if (!(o->preset >= min && o->preset <= max))
        return mb_fail(err, MB_E_INPUT, "the preset %g is not between %g and %g", o->preset, min, max);
    if (o->type != MB_OPTION_REAL && o->preset != floor(o->preset))
        return mb_fail(err, MB_E_INPUT, "the preset %g is not a whole number", o->preset);
    return MB_OK;
}

/* A list or a file. */
static int check_more(const mb_option *o, mb_error *err)
{
    if (o->preset != 0)
        return mb_fail(err, MB_E_INPUT, "the preset of a list or a file is 0, which stands for none");
    if (o->type == MB_OPTION_LIST && !(o->min >= INT32_MIN && o->max <= INT32_MAX && o->min <= o->max))
        return mb_fail(err, MB_E_INPUT, "min and max of a list must be 32-bit numbers");
    return MB_OK;
}

static int check_option(const mb_method *method, const mb_option *o, mb_error *err)
{
    if (strspn(o->name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(o->name) || !*o->name)
        return mb_fail(err, MB_E_INPUT, "a name consists of a-z, 0-9 and _");
    if (!o->help || !o->unit)
        return mb_fail(err, MB_E_INPUT, "unit and help must not be NULL");
    if ((int)o->type < MB_OPTION_INT || (int)o->type > MB_OPTION_FILE)
        return mb_fail(err, MB_E_INPUT, "type %d does not exist", (int)o->type);
    int rc = check_place(method, o, err);
    if (rc != MB_OK)
        return rc;
    rc = is_number(o->type) ? check_range(o, err) : check_more(o, err);
    if (rc != MB_OK)
        return rc;
    if (strcmp(o->name, "k") == 0 && o->type != MB_OPTION_INT)
        return mb_fail(err, MB_E_INPUT, "\"k\" is the token budget and must be of type int");
    if (find_option(method, o->name) != o)
        return mb_fail(err, MB_E_INPUT, "the table has two rows of this name");
    return MB_OK;
}

int mb_registry_check_options(const mb_method *method, mb_error *err)
{
    for (const mb_option *o = method->options; o && o->name; o++) {
        int rc = check_option(method, o, err);
        if (rc != MB_OK)
            return mb_fail_prefix(err, rc, "option \"%s\"", o->name);
    }
    return MB_OK;
}

/* ---- values ---- */

void *mb_method_options_new(const mb_method *method)
{
    if (!method->options || !method->options->name)
        return NULL;
    void *options = calloc(1, mb_method_options_bytes(method));
    for (const mb_option *o = method->options; options && o->name; o++)
        store(method, o, options, (int64_t)o->preset, o->preset);
    return options;
}

static int out_of_range(const mb_option *o, const char *key_path, const char *value, mb_error *err)
{
    return mb_fail(err, MB_E_INPUT, "%s: must be between %.15g and %.15g%s%s, not %s", key_path, o->min, o->max,
                   *o->unit ? " " : "", o->unit, value);
}

static int set_integer(const mb_method *method, const mb_option *o, void *options, const char *value,
                       const char *key_path, mb_error *err)
{
    char *end = NULL;
    errno = 0;
    long long integer = strtoll(value, &end, 10);
    if (end == value || *end != '\0' || strchr(" \t\n\v\f\r", *value))
        return mb_fail(err, MB_E_INPUT, "%s: must be a whole number, not \"%s\"", key_path, value);
    if (errno == ERANGE || (double)integer < o->min || (double)integer > o->max)
        return out_of_range(o, key_path, value, err);
    store(method, o, options, integer, 0);
    return MB_OK;
}

static int set_real(const mb_method *method, const mb_option *o, void *options, const char *value,
                    const char *key_path, mb_error *err)
{
    char *end = NULL;
    double real = strtod(value, &end);
    if (end == value || *end != '\0' || strchr(" \t\n\v\f\r", *value) || isnan(real))
        return mb_fail(err, MB_E_INPUT, "%s: must be a number, not \"%s\"", key_path, value);
    if (!(real >= o->min && real <= o->max))
        return out_of_range(o, key_path, value, err);
    store(method, o, options, 0, real == 0 ? 0.0 : real); /* -0 and 0 are one configuration */
    return MB_OK;
}

static int set_bool(const mb_method *method, const mb_option *o, void *options, const char *value,
                    const char *key_path, mb_error *err)
{
    bool on = strcmp(value, "true") == 0 || strcmp(value, "1") == 0;
    if (!on && strcmp(value, "false") != 0 && strcmp(value, "0") != 0)
        return mb_fail(err, MB_E_INPUT, "%s: must be true or false, not \"%s\"", key_path, value);
    store(method, o, options, on, 0);
    return MB_OK;
}

static int set_choice(const mb_method *method, const mb_option *o, void *options, const char *value,
                      const char *key_path, mb_error *err)
{
    size_t n;
    const char *word;
    for (int i = 0; (word = choice_at(o->choices, i, &n)); i++)
        if (strlen(value) == n && memcmp(word, value, n) == 0) {
            store(method, o, options, i, 0);
            return MB_OK;
        }
    mb_text list = {0};
    for (int i = 0; (word = choice_at(o->choices, i, &n)); i++) {
        mb_text_puts(&list, i ? ", " : "");
        mb_text_append(&list, word, n);
    }
    int rc = mb_fail(err, MB_E_INPUT, "%s: must be one of %s, not \"%s\"", key_path,
                     list.failed || !list.data ? o->choices : list.data, value);
    mb_text_free(&list);
    return rc;
}

static int set_list(const mb_method *method, const mb_option *o, void *options, const char *value,
                    const char *key_path, mb_error *err)
{
    mb_option_list list = {0};
    for (const char *at = value; *at;) {
        char *end = NULL;
        errno = 0;
        long long number = strtoll(at, &end, 10);
        if (end == at || (*end && (*end != ',' || !end[1])) || strchr(" \t\n\v\f\r", *at))
            return mb_fail(err, MB_E_INPUT,
                           "%s: must be whole numbers with commas between them, as 2,5,9, not \"%s\"", key_path,
                           value);
        if (errno == ERANGE || (double)number < o->min || (double)number > o->max)
            return out_of_range(o, key_path, value, err);
        if (list.count == MB_OPTION_LIST_CAP || (list.count > 0 && number <= list.values[list.count - 1]))
            return mb_fail(err, MB_E_INPUT, "%s: must be at most %d numbers that ascend, not \"%s\"", key_path,
                           MB_OPTION_LIST_CAP, value);
        list.values[list.count++] = (int32_t)number;
        at = *end ? end + 1 : end;
    }
    memcpy(value_at(method, o, options), &list, sizeof list);
    return MB_OK;
}

static int set_file(const mb_method *method, const mb_option *o, void *options, const char *value,
                    const char *key_path, mb_error *err)
{
    mb_option_file file = {0};
    int rc = *value ? mb_registry_file(value, &file, err) : MB_OK; /* "" = no file */
    if (rc != MB_OK)
        return mb_fail_prefix(err, rc, "%s", key_path);
    memcpy(value_at(method, o, options), &file, sizeof file);
    return MB_OK;
}

bool mb_method_options_is_file(const mb_method *method, const char *name)
{
    const mb_option *o = find_option(method, name);
    return o && o->type == MB_OPTION_FILE;
}

static int unknown_option(const mb_method *method, const char *name, const char *key_path, mb_error *err)
{
    mb_text list = {0};
    mb_guess guess = {.word = name};
    for (const mb_option *o = method->options; o && o->name; o++) {
        mb_text_printf(&list, "%s%s", o == method->options ? "" : ", ", o->name);
        mb_guess_offer(&guess, o->name, strlen(o->name));
    }
    int rc;
    if (list.data && !list.failed)
        rc = mb_fail(err, MB_E_INPUT, "%s: %s has no option \"%s\"%s; it has %s", key_path, method->name, name,
                     mb_guess_phrase(&guess), list.data);
    else
        rc = mb_fail(err, MB_E_INPUT, "%s: %s has no option \"%s\"; it has none at all", key_path, method->name,
                     name);
    mb_text_free(&list);
    return rc;
}

int mb_method_options_set(const mb_method *method, void *options, const char *name, const char *value,
                          const char *key_path, mb_error *err)
{
    const mb_option *o = find_option(method, name);
    if (!o)
        return unknown_option(method, name, key_path, err);
    switch (o->type) {
    case MB_OPTION_INT:
        return set_integer(method, o, options, value, key_path, err);
    case MB_OPTION_REAL:
        return set_real(method, o, options, value, key_path, err);
    case MB_OPTION_BOOL:
        return set_bool(method, o, options, value, key_path, err);
    case MB_OPTION_CHOICE:
        return set_choice(method, o, options, value, key_path, err);
    case MB_OPTION_LIST:
        return set_list(method, o, options, value, key_path, err);
    case MB_OPTION_FILE:
        return set_file(method, o, options, value, key_path, err);
    }
    return mb_fail(err, MB_E_BUG, "%s: option type %d does not exist", key_path, (int)o->type);
}

int64_t mb_method_options_budget(const mb_method *method, const void *options)
{
    const mb_option *o = find_option(method, "k");
    return o && options ? (int64_t)load(method, o, options) : -1;
}

/* ---- texts ---- */

/* The shortest decimal that reads back as the same double. */
static void put_real(mb_text *text, double value)
{
    char digits[32];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    mb_text_puts(text, digits);
}

static void put_value(mb_text *text, const mb_option *o, double value, bool quote)
{
    size_t n = 0;
    const char *word;
    switch (o->type) {
    case MB_OPTION_INT:
        mb_text_printf(text, "%lld", (long long)value);
        break;
    case MB_OPTION_REAL:
        put_real(text, value);
        break;
    case MB_OPTION_BOOL:
        mb_text_puts(text, value != 0 ? "true" : "false");
        break;
    case MB_OPTION_CHOICE:
        word = choice_at(o->choices, (int)value, &n);
        mb_text_puts(text, quote ? "\"" : "");
        mb_text_append(text, word ? word : "", n);
        mb_text_puts(text, quote ? "\"" : "");
        break;
    case MB_OPTION_LIST:
    case MB_OPTION_FILE:
        mb_text_puts(text, "none");
        break;
    }
}

/* A list or a file: what tells it from others. Of a path only the last name counts: a folder is no identity. */
static void put_more(mb_text *text, const mb_option *o, const void *at)
{
    const mb_option_list *list = at;
    const mb_option_file *file = at;
    mb_text_puts(text, "\"");
    for (int32_t i = 0; o->type == MB_OPTION_LIST && i < list->count; i++)
        mb_text_printf(text, "%s%d", i ? "," : "", list->values[i]);
    if (o->type == MB_OPTION_FILE && file->path) {
        const char *slash = strrchr(file->path, '/');
        mb_text_json(text, slash ? slash + 1 : file->path);
        mb_text_printf(text, " %s", file->hash);
    }
    mb_text_puts(text, "\"");
}

char *mb_method_options_json(const mb_method *method, const void *options)
{
    mb_text text = {0};
    mb_text_puts(&text, "{");
    for (const mb_option *o = method->options; options && o && o->name; o++) {
        mb_text_printf(&text, "%s\"%s\":", o == method->options ? "" : ",", o->name);
        if (is_number(o->type))
            put_value(&text, o, load(method, o, options), true);
        else
            put_more(&text, o, value_at(method, o, options));
    }
    mb_text_puts(&text, "}");
    return mb_text_take(&text);
}

static void put_range(mb_text *text, const mb_option *o)
{
    if (o->type == MB_OPTION_CHOICE) {
        mb_text_puts(text, o->choices);
    } else if (o->type == MB_OPTION_BOOL) {
        mb_text_puts(text, "true|false");
    } else if (o->type == MB_OPTION_FILE) {
        mb_text_puts(text, "a file");
    } else if (o->type == MB_OPTION_LIST) {
        mb_text_printf(text, "a list, as 2,5,9, of %.15g .. %.15g%s%s", o->min, o->max, *o->unit ? " " : "",
                       o->unit);
    } else {
        put_value(text, o, o->min, false);
        mb_text_puts(text, " .. ");
        put_value(text, o, o->max, false);
        mb_text_printf(text, "%s%s", *o->unit ? " " : "", o->unit);
    }
}

const char *mb_counter_map_axes(uint32_t axes)
{
    return axes == MB_BY_LAYER ? "layer" : axes == MB_BY_STEP ? "step" : "layer and step";
}

/* A plug-in's words are no commands to a terminal, and no lines of their own. */
static void end_line(mb_text *text, mb_text *line)
{
    mb_text_visible(text, line->data ? line->data : "", "");
    mb_text_puts(text, "\n");
    text->failed = text->failed || line->failed;
    mb_text_free(line);
}

static void put_line(mb_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put_line(mb_text *text, const char *format, ...)
{
    mb_text line = {0};
    va_list args;
    va_start(args, format);
    char *words = NULL;
    if (vasprintf(&words, format, args) < 0)
        words = NULL;
    va_end(args);
    mb_text_puts(&line, words ? words : "");
    line.failed = line.failed || !words;
    free(words);
    end_line(text, &line);
}

static void put_options(mb_text *text, const mb_method *method)
{
    for (const mb_option *o = method->options; o && o->name; o++) {
        mb_text line = {0};
        mb_text_printf(&line, "  %-16s default ", o->name);
        put_value(&line, o, o->preset, false);
        mb_text_puts(&line, "; ");
        put_range(&line, o);
        end_line(text, &line);
        put_line(text, "  %-16s %s", "", o->help);
    }
}

static void put_counter(mb_text *text, const char *name, const char *axes, const mb_counter *c)
{
    put_line(text, "  %-16s %s%s%s%s%s%s%s (%s over requests)", name, *axes ? "by " : "", axes, *axes ? "; " : "",
             c->unit, *c->unit && *c->better ? ", " : "", c->better, *c->better ? " is better" : "", c->aggregate);
    put_line(text, "  %-16s %s", "", c->help);
}

char *mb_method_help(const mb_method *method)
{
    mb_text text = {0};
    put_line(&text, "%s %s - %s", method->name, method->version, method->summary);
    put_line(&text, "  after: %s", method->reference);
    if (method->caps & MB_CAP_REFERENCE)
        mb_text_puts(&text, "  a reference: costs more than exact attention by design\n");
    if (method->caps & MB_CAP_OPAQUE)
        mb_text_puts(&text, "  reports no index: left out of recall\n");
    if (method->options && method->options->name)
        mb_text_puts(&text, "\noptions\n");
    put_options(&text, method);
    if (method->counters && method->counters->name)
        mb_text_puts(&text, "\ncounters\n");
    for (const mb_counter *c = method->counters; c && c->name; c++)
        put_counter(&text, c->name, "", c);
    if (method->maps && method->maps->name)
        mb_text_puts(&text, "\ncounters by layer and step (view v_counter_grid)\n");
    for (const mb_counter_map *g = method->maps; g && g->name; g++)
        put_counter(
            &text, g->name, mb_counter_map_axes(g->axes),
            &(mb_counter){.unit = g->unit, .better = g->better, .aggregate = g->aggregate, .help = g->help});
    return mb_text_take(&text);
}
