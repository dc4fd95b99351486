/* sweep.c - the rows of a method's options as configurations; sweep.h says which. */
#include "properties/sweep.h"

#include "methods/registry/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* True when the sweep has a configuration of this text already. */
static bool is_known(const mb_sweep *sweep, const mb_method *method, const char *json)
{
    bool known = false;
    for (size_t i = 0; !known && i < sweep->count; i++) {
        char *other = mb_method_options_json(method, sweep->entries[i].options);
        known = other && strcmp(other, json) == 0;
        free(other);
    }
    return known;
}

/* The given configuration with one option at another value; name NULL: as it is. */
static int add(mb_sweep *sweep, const mb_method *method, const void *options, const char *name, const char *value,
               mb_error *err)
{
    void *copy = mb_method_options_new(method);
    char *label = name ? mb_string_format("%s=%s", name, value) : mb_string_copy("");
    int rc = label && (copy || !options) ? MB_OK : mb_no_memory(err, "the configurations of %s", method->name);
    if (rc == MB_OK && options)
        memcpy(copy, options, mb_method_options_bytes(method));
    if (rc == MB_OK && name)
        rc = mb_method_options_set(method, copy, name, value, name, err);
    char *json = rc == MB_OK ? mb_method_options_json(method, copy) : NULL;
    bool wanted = json && !is_known(sweep, method, json);
    mb_sweep_entry *grown = wanted ? realloc(sweep->entries, (sweep->count + 1) * sizeof *grown) : NULL;
    free(json);
    if (grown) {
        sweep->entries = grown;
        sweep->entries[sweep->count++] = (mb_sweep_entry){label, copy};
        return rc;
    }
    free(label);
    free(copy);
    return rc == MB_OK && wanted ? mb_no_memory(err, "the configurations of %s", method->name) : rc;
}

static int add_words(mb_sweep *sweep, const mb_method *method, const void *options, const mb_option *o,
                     mb_error *err)
{
    int rc = MB_OK;
    for (const char *word = o->choices; rc == MB_OK && *word;) {
        size_t n = strcspn(word, "|");
        char *value = mb_string_format("%.*s", (int)n, word);
        rc = value ? add(sweep, method, options, o->name, value, err) : mb_no_memory(err, "a word");
        free(value);
        word += n + (word[n] == '|');
    }
    return rc;
}

static int add_ends(mb_sweep *sweep, const mb_method *method, const void *options, const mb_option *o,
                    mb_error *err)
{
    const double ends[] = {o->min, o->max};
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < 2; i++) {
        char value[64];
        snprintf(value, sizeof value, o->type == MB_OPTION_INT ? "%.0f" : "%.17g", ends[i]);
        rc = add(sweep, method, options, o->name, value, err);
    }
    return rc;
}

int mb_sweep_make(mb_sweep *sweep, const mb_method *method, const void *options, mb_error *err)
{
    *sweep = (mb_sweep){NULL, 0};
    int rc = add(sweep, method, options, NULL, NULL, err);
    for (const mb_option *o = method->options; rc == MB_OK && o && o->name; o++) {
        if (strcmp(o->name, "k") == 0)
            continue;
        if (o->type == MB_OPTION_CHOICE)
            rc = add_words(sweep, method, options, o, err);
        else if (o->type == MB_OPTION_FILE)
            continue; /* which files there are is not in the table */
        else if (o->type != MB_OPTION_BOOL)
            rc = add_ends(sweep, method, options, o, err);
        else if ((rc = add(sweep, method, options, o->name, "false", err)) == MB_OK)
            rc = add(sweep, method, options, o->name, "true", err);
    }
    return rc;
}

void mb_sweep_free(mb_sweep *sweep)
{
    for (size_t i = 0; i < sweep->count; i++) {
        free(sweep->entries[i].label);
        free(sweep->entries[i].options);
    }
    free(sweep->entries);
    *sweep = (mb_sweep){NULL, 0};
}
