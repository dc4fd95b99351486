/*
 * registry.c - the list of methods. Built-ins come from the generated methods_list.h (one MB_BUILTIN(name) line
 * for every methods/NAME.c), plug-ins are appended by plugin.c. A method is in the list only after every check
 * of its struct has passed, so nobody else needs to look at hooks or option rows again.
 */
#include "methods/registry/internal.h"

#include <stdlib.h>
#include <string.h>

#define MB_BUILTIN(name) extern const mb_method mb_method_##name;
#include "methods_list.h"
#undef MB_BUILTIN

static const mb_method *const builtins[] = {
#define MB_BUILTIN(name) &mb_method_##name,
#include "methods_list.h"
#undef MB_BUILTIN
    NULL};

static mb_registry_entry *plugins;
static size_t plugin_count;

static size_t builtin_count(void)
{
    return sizeof builtins / sizeof builtins[0] - 1;
}

size_t mb_registry_count(void)
{
    return builtin_count() + plugin_count;
}

const mb_method *mb_registry_at(size_t i)
{
    if (i < builtin_count())
        return builtins[i];
    i -= builtin_count();
    return i < plugin_count ? plugins[i].method : NULL;
}

const mb_method *mb_registry_find(const char *name)
{
    for (size_t i = 0; name && i < mb_registry_count(); i++)
        if (strcmp(mb_registry_at(i)->name, name) == 0)
            return mb_registry_at(i);
    return NULL;
}

const char *mb_registry_origin(const mb_method *method)
{
    for (size_t i = 0; i < plugin_count; i++)
        if (plugins[i].method == method)
            return plugins[i].origin;
    return "";
}

bool mb_registry_has_origin(const char *origin)
{
    for (size_t i = 0; i < plugin_count; i++)
        if (strcmp(plugins[i].origin, origin) == 0)
            return true;
    return false;
}

int mb_registry_add(const mb_registry_entry *entry, mb_error *err)
{
    const mb_method *other = mb_registry_find(entry->method->name);
    if (other) {
        const char *origin = mb_registry_origin(other);
        return mb_fail(err, MB_E_INPUT, "the name \"%s\" is taken by %s%s; rename the method", other->name,
                       *origin ? "the plug-in " : "a built-in method", origin);
    }
    mb_registry_entry *grown = realloc(plugins, (plugin_count + 1) * sizeof *plugins);
    if (!grown)
        return mb_no_memory(err, "the methods");
    plugins = grown;
    plugins[plugin_count++] = *entry;
    return MB_OK;
}

void mb_registry_unload(void)
{
    /* Reverse order: a later library may rest on an earlier one. */
    while (plugin_count > 0) {
        mb_registry_entry *entry = &plugins[--plugin_count];
        free(entry->owned);
        free(entry->origin);
        mb_registry_close_library(entry->library);
    }
    free(plugins);
    plugins = NULL;
    mb_registry_forget_files();
}

/* ---- checks of a method's struct ---- */

/* Names travel into JSON keys, SQL rows, file names and plot legends, so the character set is narrow. */
static bool name_is_plain(const char *name, bool dash)
{
    size_t n = strlen(name);
    return n > 0 && n < 64 &&
           strspn(name,
                  dash ? "abcdefghijklmnopqrstuvwxyz0123456789_-" : "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static bool is_one_of(const char *text, const char *const *list)
{
    for (; text && *list; list++)
        if (strcmp(text, *list) == 0)
            return true;
    return false;
}

/* One row of counters or maps; kind: what it is in a sentence. */
static int check_counter(const char *kind, const char *name, const char *unit, const char *better,
                         const char *aggregate, const char *help, mb_error *err)
{
    static const char *const betters[] = {"higher", "lower", "", NULL};
    static const char *const aggregates[] = {"mean", "sum", "max", NULL};
    if (!name_is_plain(name, false))
        return mb_fail(err, MB_E_INPUT, "%s \"%s\": a name consists of a-z, 0-9 and _", kind, name);
    if (!unit || !help)
        return mb_fail(err, MB_E_INPUT, "%s \"%s\": unit and help must not be NULL", kind, name);
    if (!is_one_of(better, betters))
        return mb_fail(err, MB_E_INPUT, "%s \"%s\": better must be \"higher\", \"lower\" or \"\"", kind, name);
    if (!is_one_of(aggregate, aggregates))
        return mb_fail(err, MB_E_INPUT, "%s \"%s\": aggregate must be \"mean\", \"sum\" or \"max\"", kind, name);
    return MB_OK;
}

static int check_counters(const mb_method *method, mb_error *err)
{
    size_t n = 0;
    for (const mb_counter *c = method->counters; c && c->name; c++, n++) {
        int rc = check_counter("counter", c->name, c->unit, c->better, c->aggregate, c->help, err);
        if (rc != MB_OK)
            return rc;
        for (const mb_counter *other = method->counters; other < c; other++)
            if (strcmp(other->name, c->name) == 0)
                return mb_fail(err, MB_E_INPUT, "counter \"%s\": the table has two rows of this name", c->name);
    }
    if (n > MB_REGISTRY_COUNTERS)
        return mb_fail(err, MB_E_INPUT, "%zu counters are declared, at most %d are stored", n,
                       MB_REGISTRY_COUNTERS);
    if (n > 0 && !method->report)
        return mb_fail(err, MB_E_INPUT, "counters are declared but the report() hook is missing");
    return MB_OK;
}

static int check_maps(const mb_method *method, mb_error *err)
{
    size_t n = 0;
    for (const mb_counter_map *g = method->maps; g && g->name; g++, n++) {
        int rc = check_counter("counter map", g->name, g->unit, g->better, g->aggregate, g->help, err);
        if (rc != MB_OK)
            return rc;
        if (g->axes == 0 || (g->axes & ~(MB_BY_LAYER | MB_BY_STEP)))
            return mb_fail(err, MB_E_INPUT, "counter map \"%s\": axes are MB_BY_LAYER, MB_BY_STEP or both",
                           g->name);
        for (const mb_counter_map *other = method->maps; other < g; other++)
            if (strcmp(other->name, g->name) == 0)
                return mb_fail(err, MB_E_INPUT, "counter map \"%s\": the table has two rows of this name",
                               g->name);
    }
    if (n > MB_REGISTRY_COUNTER_MAPS)
        return mb_fail(err, MB_E_INPUT, "%zu counter maps are declared, at most %d are stored", n,
                       MB_REGISTRY_COUNTER_MAPS);
    if (n > 0 && !method->report_maps)
        return mb_fail(err, MB_E_INPUT, "counter maps are declared but the report_maps() hook is missing");
    return MB_OK;
}

int mb_registry_check(const mb_method *method, mb_error *err)
{
    if (!method->name || !name_is_plain(method->name, true))
        return mb_fail(err, MB_E_INPUT, "the method's name \"%s\" must be 1 to 63 characters of a-z, 0-9, _ and -",
                       method->name ? method->name : "(null)");
    if (!method->version || !method->summary || !method->reference)
        return mb_fail(err, MB_E_INPUT, "method \"%s\": version, summary and reference must not be NULL",
                       method->name);
    const char *missing = !method->open ? "open" : !method->select ? "select" : NULL;
    if (missing)
        return mb_fail(err, MB_E_INPUT, "method \"%s\": the required hook %s() is missing", method->name, missing);
    int rc = mb_registry_check_options(method, err);
    if (rc == MB_OK)
        rc = check_counters(method, err);
    if (rc == MB_OK)
        rc = check_maps(method, err);
    return rc == MB_OK ? rc : mb_fail_prefix(err, rc, "method \"%s\"", method->name);
}
