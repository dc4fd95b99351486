/*
 * filters.c - the filters of chat templates, as Jinja 3.1 has them; any other is refused by its name. What Jinja
 * gives as a generator (items, map, select, ...) is one here, too: true, without a length, read once.
 */
#include "model/template/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef mb_value (*filter_call)(struct mb_render *r, mb_value value, const struct mb_arguments *arguments);

static mb_value filter_trim(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    static const char *const names[] = {"chars", NULL};
    const mb_value *set = mb_argument(arguments, 0, "chars");
    value = mb_value_as_text(r, value);
    if (set && set->kind == MB_KIND_NONE)
        set = NULL;
    if (!mb_arguments_check(r, arguments, "trim", 1, names) || !mb_render_work(r, value.length / 64))
        return value;
    if (set && set->kind != MB_KIND_TEXT)
        return mb_render_fail(r, "trim takes text, not \"%s\"", mb_value_kind_name(*set));
    return mb_text_strip(value, 3, set);
}

static mb_value filter_length(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    if (!mb_arguments_check(r, arguments, "length", 0, NULL))
        return value;
    return mb_value_int(mb_value_length(r, value));
}

static mb_value filter_default(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    static const char *const names[] = {"default_value", "boolean", NULL};
    const mb_value *other = mb_argument(arguments, 0, "default_value"),
                   *boolean = mb_argument(arguments, 1, "boolean");
    if (!mb_arguments_check(r, arguments, "default", 2, names))
        return value;
    if (value.kind == MB_KIND_UNDEFINED || (boolean && mb_value_true(r, *boolean) && !mb_value_true(r, value)))
        return other ? *other : mb_value_text("", 0);
    return value;
}

static mb_value change_case(struct mb_render *r, mb_value value, const struct mb_arguments *arguments, char way)
{
    value = mb_value_as_text(r, value);
    if (r->rc != MB_OK || !mb_arguments_check(r, arguments, "upper, lower, capitalize, title", 0, NULL))
        return value;
    return mb_text_case(r, value, way);
}

static mb_value filter_upper(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return change_case(r, value, arguments, 'u');
}

static mb_value filter_lower(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return change_case(r, value, arguments, 'l');
}

static mb_value filter_capitalize(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return change_case(r, value, arguments, 'c');
}

static mb_value filter_title(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return change_case(r, value, arguments, 't');
}

/* item, item.a, item.a.b: an attribute's name with dots. */
static mb_value dotted(struct mb_render *r, mb_value item, mb_value path)
{
    size_t at = 0;
    while (at <= path.length && r->rc == MB_OK) {
        const char *dot = path.length > at ? memchr(path.text + at, '.', path.length - at) : NULL;
        size_t end = dot ? (size_t)(dot - path.text) : path.length;
        char *rest;
        mb_value key = mb_value_text(path.text + at, end - at);
        char digits[24] = "";
        if (key.length > 0 && key.length < sizeof digits) {
            memcpy(digits, key.text, key.length);
            long long index = strtoll(digits, &rest, 10);
            if (*rest == '\0' && digits[0] >= '0' && digits[0] <= '9')
                key = mb_value_int(index);
        }
        item = mb_get_item(r, item, key);
        at = end + 1;
    }
    return item;
}

static mb_value filter_join(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    static const char *const names[] = {"d", "attribute", NULL};
    const mb_value *mark = mb_argument(arguments, 0, "d"), *path = mb_argument(arguments, 1, "attribute");
    const struct mb_list *items = mb_value_items(r, value);
    mb_value between = mark ? mb_value_as_text(r, *mark) : mb_value_text("", 0);
    mb_text out = {0};
    if (!mb_arguments_check(r, arguments, "join", 2, names) || !items)
        return value;
    for (size_t i = 0; i < items->count && r->rc == MB_OK; i++) {
        if (i)
            mb_text_append(&out, between.text, between.length);
        mb_value_print(r, &out,
                       path && path->kind == MB_KIND_TEXT ? dotted(r, items->items[i], *path) : items->items[i]);
        if (out.length > r->out_limit)
            mb_render_fail(r, "join makes a text of more than %zu bytes", r->out_limit);
    }
    if (r->rc == MB_OK)
        return mb_value_take(r, &out);
    mb_text_free(&out);
    return value;
}

static mb_value filter_replace(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    static const char *const names[] = {"old", "new", "count", NULL};
    const mb_value *old = mb_argument(arguments, 0, "old"), *put = mb_argument(arguments, 1, "new"),
                   *count = mb_argument(arguments, 2, "count");
    if (!mb_arguments_check(r, arguments, "replace", 3, names))
        return value;
    if (!old || !put || (count && count->kind != MB_KIND_INT && count->kind != MB_KIND_NONE))
        return mb_render_fail(r, "replace needs two texts, and a number as the third argument");
    mb_value text = mb_value_as_text(r, value), from = mb_value_as_text(r, *old), to = mb_value_as_text(r, *put);
    if (r->rc != MB_OK)
        return text;
    return mb_text_replace(r, text, from, to, count && count->kind == MB_KIND_INT ? count->integer : -1);
}

static mb_value end_item(struct mb_render *r, mb_value value, bool last)
{
    if (last && value.kind == MB_KIND_LIST && value.list->flavour == MB_GENERATOR)
        return mb_render_fail(r, "last of a generator: put | list in front");
    const struct mb_list *items = mb_value_items(r, value);
    if (!items || items->count == 0)
        return (mb_value){.kind = MB_KIND_UNDEFINED, .text = "(item)", .length = 6};
    return items->items[last ? items->count - 1 : 0];
}

static mb_value filter_first(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "first", 0, NULL) ? end_item(r, value, false) : value;
}

static mb_value filter_last(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "last", 0, NULL) ? end_item(r, value, true) : value;
}

static mb_value copy_list(struct mb_render *r, const struct mb_list *items, mb_flavour flavour, bool backwards)
{
    mb_value list = mb_value_list(r->arena, flavour);
    bool ok = list.kind == MB_KIND_LIST && mb_render_work(r, items->count / 16);
    for (size_t i = 0; ok && i < items->count; i++)
        ok = mb_list_add(r->arena, list, items->items[backwards ? items->count - 1 - i : i]);
    return ok ? list : mb_render_no_memory(r);
}

static mb_value filter_list(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    const struct mb_list *items = mb_value_items(r, value);
    if (!items || !mb_arguments_check(r, arguments, "list", 0, NULL))
        return value;
    return copy_list(r, items, MB_LIST, false);
}

static mb_value filter_reverse(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    const struct mb_list *items = mb_value_items(r, value);
    mb_text out = {0};
    if (!items || !mb_arguments_check(r, arguments, "reverse", 0, NULL))
        return value;
    if (value.kind != MB_KIND_TEXT)
        return copy_list(r, items, MB_GENERATOR, true);
    for (size_t i = items->count; i-- > 0;)
        mb_text_append(&out, items->items[i].text, items->items[i].length);
    return mb_value_take(r, &out);
}

static mb_value filter_items(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    static const struct mb_arguments none;
    mb_value list;
    if (!mb_arguments_check(r, arguments, "items", 0, NULL))
        return value;
    if (value.kind == MB_KIND_UNDEFINED)
        return mb_value_list(r->arena, MB_GENERATOR);
    if (value.kind != MB_KIND_DICT)
        return mb_render_fail(r, "items of a \"%s\": only a dict has them", mb_value_kind_name(value));
    list = mb_call_method(r, (struct mb_bound_method){"items", &value}, &none);
    if (list.kind == MB_KIND_LIST)
        list.list->flavour = MB_GENERATOR;
    return list;
}

/* The arguments behind the first n. */
static struct mb_arguments behind(const struct mb_arguments *arguments, size_t n)
{
    struct mb_arguments rest = {.count = arguments->count > n ? arguments->count - n : 0};
    for (size_t i = 0; i < rest.count; i++) {
        rest.values[i] = arguments->values[i + n];
        rest.names[i] = arguments->names[i + n];
    }
    return rest;
}

/* A name among the arguments, NUL-terminated; NULL: refused. */
static const char *name_argument(struct mb_render *r, const mb_value *value, const char *what)
{
    char *name = value && value->kind == MB_KIND_TEXT ? mb_arena_take(r->arena, value->length + 1) : NULL;
    if (!name)
        mb_render_fail(r, "%s needs a name as text", what);
    else
        memcpy(name, value->text, value->length);
    return name;
}

static mb_value filter_map(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    const struct mb_list *items = mb_value_items(r, value);
    const mb_value *path = mb_argument(arguments, SIZE_MAX, "attribute"),
                   *other = mb_argument(arguments, SIZE_MAX, "default");
    mb_value list = mb_value_list(r->arena, MB_GENERATOR);
    const char *filter = path ? NULL : name_argument(r, mb_argument(arguments, 0, NULL), "map");
    struct mb_arguments rest = behind(arguments, 1);
    if (path && path->kind != MB_KIND_TEXT)
        return mb_render_fail(r, "map takes attribute= as text");
    for (size_t i = 0; items && i < items->count && r->rc == MB_OK; i++) {
        mb_value item =
            path ? dotted(r, items->items[i], *path) : mb_apply_filter(r, filter, items->items[i], &rest);
        if (path && other && item.kind == MB_KIND_UNDEFINED)
            item = *other;
        if (r->rc == MB_OK && !mb_list_add(r->arena, list, item))
            return mb_render_no_memory(r);
    }
    return list;
}

/* select, reject, selectattr, rejectattr: the items of which a test holds, or not. */
static mb_value choose(struct mb_render *r, mb_value value, const struct mb_arguments *arguments, bool attribute,
                       bool wanted)
{
    const struct mb_list *items = mb_value_items(r, value);
    const size_t skip = attribute ? 1 : 0;
    const mb_value *path = attribute ? mb_argument(arguments, 0, NULL) : NULL,
                   *test = mb_argument(arguments, skip, NULL);
    const char *name = test ? name_argument(r, test, "select") : NULL;
    struct mb_arguments rest = behind(arguments, skip + 1);
    mb_value list = mb_value_list(r->arena, MB_GENERATOR);
    if (attribute && (!path || path->kind != MB_KIND_TEXT))
        return mb_render_fail(r, "selectattr and rejectattr need an attribute's name");
    for (size_t i = 0; items && i < items->count && r->rc == MB_OK; i++) {
        mb_value item = attribute ? dotted(r, items->items[i], *path) : items->items[i];
        if (r->rc != MB_OK)
            break;
        bool holds = name ? mb_apply_test(r, name, item, &rest) : mb_value_true(r, item);
        if (r->rc == MB_OK && holds == wanted && !mb_list_add(r->arena, list, items->items[i]))
            return mb_render_no_memory(r);
    }
    return list;
}

static mb_value filter_select(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return choose(r, value, arguments, false, true);
}

static mb_value filter_reject(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return choose(r, value, arguments, false, false);
}

static mb_value filter_selectattr(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return choose(r, value, arguments, true, true);
}

static mb_value filter_rejectattr(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return choose(r, value, arguments, true, false);
}

static mb_value filter_string(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "string", 0, NULL) ? mb_value_as_text(r, value) : value;
}

/* Digits with a sign and blanks around, as int() takes them. */
static bool whole_number(mb_value text, int64_t *number)
{
    char digits[24], *end;
    text = mb_text_strip(text, 3, NULL);
    if (text.length == 0 || text.length > 18)
        return false;
    memcpy(digits, text.text, text.length);
    digits[text.length] = '\0';
    *number = strtoll(digits, &end, 10);
    return *end == '\0' && digits[text.length - 1] >= '0' && digits[text.length - 1] <= '9';
}

static mb_value filter_int(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    int64_t number = 0;
    if (!mb_arguments_check(r, arguments, "int", 0, NULL))
        return value;
    if (value.kind == MB_KIND_INT)
        return value;
    if (value.kind == MB_KIND_BOOL)
        return mb_value_int(value.boolean);
    if (value.kind == MB_KIND_REAL && fabs(value.real) < 9e18)
        return mb_value_int((int64_t)value.real);
    if (value.kind == MB_KIND_TEXT && whole_number(value, &number))
        return mb_value_int(number);
    return mb_render_fail(r, "int of this \"%s\" is not supported", mb_value_kind_name(value));
}

static mb_value filter_abs(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    if (!mb_arguments_check(r, arguments, "abs", 0, NULL))
        return value;
    if (value.kind == MB_KIND_INT && value.integer != INT64_MIN)
        return mb_value_int(value.integer < 0 ? -value.integer : value.integer);
    if (value.kind == MB_KIND_REAL)
        return (mb_value){.kind = MB_KIND_REAL, .real = fabs(value.real)};
    return mb_render_fail(r, "abs of a \"%s\" is not supported", mb_value_kind_name(value));
}

mb_value mb_apply_filter(struct mb_render *r, const char *name, mb_value value,
                         const struct mb_arguments *arguments)
{
    static const struct {
        const char *name;
        filter_call call;
    } known[] = {{"trim", filter_trim},
                 {"length", filter_length},
                 {"count", filter_length},
                 {"default", filter_default},
                 {"d", filter_default},
                 {"upper", filter_upper},
                 {"lower", filter_lower},
                 {"capitalize", filter_capitalize},
                 {"title", filter_title},
                 {"join", filter_join},
                 {"replace", filter_replace},
                 {"first", filter_first},
                 {"last", filter_last},
                 {"list", filter_list},
                 {"reverse", filter_reverse},
                 {"items", filter_items},
                 {"map", filter_map},
                 {"select", filter_select},
                 {"reject", filter_reject},
                 {"selectattr", filter_selectattr},
                 {"rejectattr", filter_rejectattr},
                 {"string", filter_string},
                 {"int", filter_int},
                 {"abs", filter_abs},
                 {"tojson", mb_value_json}};
    if (!mb_render_work(r, 1))
        return value;
    if (++r->calls > MB_TEMPLATE_DEPTH_MAX)
        return mb_render_fail(r, "filters are nested deeper than %d", MB_TEMPLATE_DEPTH_MAX);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            value = known[i].call(r, value, arguments);
            r->calls--;
            return value;
        }
    return mb_render_fail(r, "the filter \"%s\" is not supported", name);
}
