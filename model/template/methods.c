/*
 * methods.c - the methods of text, dicts and loops that chat templates call, as Python has them. One that Python
 * has and this file does not is refused by name; any other name is no method (and so may be a key, or undefined).
 */
#include "model/template/value.h"

#include <string.h>

typedef mb_value (*method_call)(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments);

/* The argument at a place as text; NULL: not given. Another kind of value is refused. */
static const mb_value *text_argument(struct mb_render *r, const struct mb_arguments *arguments, size_t place,
                                     const char *name, const char *what)
{
    const mb_value *value = mb_argument(arguments, place, name);
    if (value && value->kind == MB_KIND_NONE)
        return NULL;
    if (value && value->kind != MB_KIND_TEXT) {
        mb_render_fail(r, "%s takes text, not \"%s\"", what, mb_value_kind_name(*value));
        return NULL;
    }
    return value;
}

static int64_t count_argument(struct mb_render *r, const struct mb_arguments *arguments, size_t place,
                              const char *name)
{
    const mb_value *value = mb_argument(arguments, place, name);
    if (value && value->kind != MB_KIND_INT)
        mb_render_fail(r, "%s= takes an integer, not \"%s\"", name, mb_value_kind_name(*value));
    return value && value->kind == MB_KIND_INT ? value->integer : -1;
}

static mb_value strip(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments, int sides)
{
    const mb_value *set = text_argument(r, arguments, 0, NULL, "strip()");
    mb_arguments_check(r, arguments, "strip()", 1, NULL);
    mb_render_work(r, self->length / 64);
    return r->rc == MB_OK ? mb_text_strip(*self, sides, set) : (mb_value){0};
}

static mb_value call_strip(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return strip(r, self, arguments, 3);
}

static mb_value call_lstrip(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return strip(r, self, arguments, 1);
}

static mb_value call_rstrip(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return strip(r, self, arguments, 2);
}

/* Splits at white space, of which a row counts as one. */
static bool split_blank(struct mb_render *r, mb_value text, int64_t most, mb_value list)
{
    mb_value rest = mb_text_strip(text, 1, NULL);
    while (rest.length > 0) {
        size_t at = 0;
        for (size_t n; at < rest.length; at += n) {
            uint32_t c;
            n = mb_utf8_next(rest.text + at, rest.length - at, &c);
            if (mb_is_space(c))
                break;
        }
        if (most-- == 0) /* the remainder keeps its blanks, but for those at the end */
            return mb_list_add(r->arena, list, mb_text_strip(rest, 2, NULL));
        if (!mb_list_add(r->arena, list, mb_value_text(rest.text, at)))
            return false;
        rest = mb_text_strip(mb_value_text(rest.text + at, rest.length - at), 1, NULL);
    }
    return true;
}

static bool split_at(struct mb_render *r, mb_value text, mb_value mark, int64_t most, mb_value list)
{
    size_t at = 0, place;
    while (most-- != 0 && (place = mb_text_find(text, at, mark)) != SIZE_MAX) {
        if (!mb_list_add(r->arena, list, mb_value_text(text.text + at, place - at)))
            return false;
        at = place + mark.length;
    }
    return mb_list_add(r->arena, list, mb_value_text(text.text + at, text.length - at));
}

static mb_value call_split(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    static const char *const names[] = {"sep", "maxsplit", NULL};
    const mb_value *mark = text_argument(r, arguments, 0, "sep", "split()");
    const int64_t most = count_argument(r, arguments, 1, "maxsplit");
    mb_value list = mb_value_list(r->arena, MB_LIST);
    if (!mb_arguments_check(r, arguments, "split()", 2, names) || !mb_render_work(r, self->length / 64))
        return list;
    if (mark && mark->length == 0)
        return mb_render_fail(r, "split() at an empty text");
    bool ok = list.kind == MB_KIND_LIST &&
              (mark ? split_at(r, *self, *mark, most, list) : split_blank(r, *self, most, list));
    return ok ? list : mb_render_no_memory(r);
}

/* rsplit() with one cut, or without a bound: then it is split(). */
static mb_value call_rsplit(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    static const char *const names[] = {"sep", "maxsplit", NULL};
    const mb_value *mark = text_argument(r, arguments, 0, "sep", "rsplit()");
    const int64_t most = count_argument(r, arguments, 1, "maxsplit");
    mb_value list = mb_value_list(r->arena, MB_LIST);
    if (!mb_arguments_check(r, arguments, "rsplit()", 2, names) || most < 0)
        return r->rc == MB_OK ? call_split(r, self, arguments) : list;
    if (!mark || mark->length == 0 || most != 1)
        return mb_render_fail(r, "rsplit() is supported with a mark and one cut only");
    size_t place = SIZE_MAX;
    for (size_t at = 0, next; (next = mb_text_find(*self, at, *mark)) != SIZE_MAX && mb_render_work(r, 1);
         at = next + 1)
        place = next;
    bool ok = list.kind == MB_KIND_LIST;
    if (place != SIZE_MAX)
        ok = ok && mb_list_add(r->arena, list, mb_value_text(self->text, place));
    size_t from = place != SIZE_MAX ? place + mark->length : 0;
    ok = ok && mb_list_add(r->arena, list, mb_value_text(self->text + from, self->length - from));
    return ok ? list : mb_render_no_memory(r);
}

static mb_value call_splitlines(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    mb_value list = mb_value_list(r->arena, MB_LIST);
    bool ok = list.kind == MB_KIND_LIST && mb_arguments_check(r, arguments, "splitlines()", 0, NULL);
    size_t from = 0;
    for (size_t at = 0, n; ok && at < self->length; at += n) {
        uint32_t c;
        n = mb_utf8_next(self->text + at, self->length - at, &c);
        if (!((c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029))
            continue;
        ok = mb_list_add(r->arena, list, mb_value_text(self->text + from, at - from));
        if (c == '\r' && at + 1 < self->length && self->text[at + 1] == '\n')
            n = 2;
        from = at + n;
    }
    if (ok && from < self->length)
        ok = mb_list_add(r->arena, list, mb_value_text(self->text + from, self->length - from));
    return ok ? list : mb_render_no_memory(r);
}

static bool has_end(const mb_value *self, const mb_value *part, bool at_end)
{
    if (part->length > self->length)
        return false;
    return part->length == 0 ||
           memcmp(self->text + (at_end ? self->length - part->length : 0), part->text, part->length) == 0;
}

/* One text, or a tuple of texts of which one is enough. */
static mb_value test_end(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments, bool end)
{
    const mb_value *part = mb_argument(arguments, 0, NULL);
    const char *what = end ? "endswith()" : "startswith()";
    if (!mb_arguments_check(r, arguments, what, 1, NULL))
        return (mb_value){0};
    if (part && part->kind == MB_KIND_TEXT)
        return mb_value_bool(has_end(self, part, end));
    if (!part || part->kind != MB_KIND_LIST || part->list->flavour != MB_TUPLE)
        return mb_render_fail(r, "%s takes text or a tuple of texts", what);
    bool holds = false;
    for (size_t i = 0; i < part->list->count; i++) {
        if (part->list->items[i].kind != MB_KIND_TEXT)
            return mb_render_fail(r, "%s takes text or a tuple of texts", what);
        holds = holds || has_end(self, &part->list->items[i], end);
    }
    return mb_value_bool(holds);
}

static mb_value call_startswith(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return test_end(r, self, arguments, false);
}

static mb_value call_endswith(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return test_end(r, self, arguments, true);
}

static mb_value remove_end(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments,
                           bool end)
{
    const mb_value *part = text_argument(r, arguments, 0, NULL, "removeprefix()");
    if (r->rc == MB_OK && !part)
        return mb_render_fail(r, "removeprefix() and removesuffix() need a text");
    if (r->rc != MB_OK || !has_end(self, part, end))
        return *self;
    return mb_value_text(self->text + (end ? 0 : part->length), self->length - part->length);
}

static mb_value call_removeprefix(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return remove_end(r, self, arguments, false);
}

static mb_value call_removesuffix(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return remove_end(r, self, arguments, true);
}

static mb_value call_replace(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    static const char *const names[] = {"count", NULL};
    const mb_value *old = text_argument(r, arguments, 0, NULL, "replace()");
    const mb_value *put = text_argument(r, arguments, 1, NULL, "replace()");
    const int64_t most = count_argument(r, arguments, 2, "count");
    if (!mb_arguments_check(r, arguments, "replace()", 3, names))
        return (mb_value){0};
    if (!old || !put)
        return mb_render_fail(r, "replace() needs two texts");
    return mb_text_replace(r, *self, *old, *put, most);
}

static mb_value call_find(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    const mb_value *part = text_argument(r, arguments, 0, NULL, "find()");
    if (!mb_arguments_check(r, arguments, "find()", 1, NULL) || !mb_render_work(r, self->length / 64))
        return (mb_value){0};
    if (!part)
        return mb_render_fail(r, "find() needs a text");
    size_t place = mb_text_find(*self, 0, *part);
    return mb_value_int(place == SIZE_MAX ? -1 : (int64_t)mb_text_characters(self->text, place));
}

static mb_value call_count(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    const mb_value *part = text_argument(r, arguments, 0, NULL, "count()");
    int64_t n = 0;
    if (!mb_arguments_check(r, arguments, "count()", 1, NULL) || !mb_render_work(r, self->length / 64))
        return (mb_value){0};
    if (!part || part->length == 0)
        return mb_render_fail(r, "count() needs a text that is not empty");
    for (size_t at = 0, next; (next = mb_text_find(*self, at, *part)) != SIZE_MAX; at = next + part->length)
        n++;
    return mb_value_int(n);
}

static mb_value call_upper(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "upper()", 0, NULL) ? mb_text_case(r, *self, 'u') : *self;
}

static mb_value call_lower(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "lower()", 0, NULL) ? mb_text_case(r, *self, 'l') : *self;
}

static mb_value call_capitalize(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "capitalize()", 0, NULL) ? mb_text_case(r, *self, 'c') : *self;
}

static mb_value call_title(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "title()", 0, NULL) ? mb_text_case(r, *self, 'T') : *self;
}

static mb_value call_join(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    const mb_value *over = mb_argument(arguments, 0, NULL);
    const struct mb_list *items = over ? mb_value_items(r, *over) : NULL;
    mb_text out = {0};
    if (!over)
        return mb_render_fail(r, "join() needs a list");
    for (size_t i = 0; items && i < items->count; i++) {
        if (items->items[i].kind != MB_KIND_TEXT) {
            mb_text_free(&out);
            return mb_render_fail(r, "join() takes texts, not \"%s\"", mb_value_kind_name(items->items[i]));
        }
        if (i)
            mb_text_append(&out, self->text, self->length);
        mb_text_append(&out, items->items[i].text, items->items[i].length);
    }
    return mb_value_take(r, &out);
}

/* ---- dicts and loops ---- */

static mb_value pairs_of(struct mb_render *r, const mb_value *self, bool keys, bool values)
{
    mb_value list = mb_value_list(r->arena, MB_VIEW);
    bool ok = list.kind == MB_KIND_LIST && mb_render_work(r, self->dict->count);
    for (size_t i = 0; ok && i < self->dict->count; i++) {
        const struct mb_pair *pair = &self->dict->pairs[i];
        mb_value item = keys ? pair->key : pair->value;
        if (keys && values) {
            item = mb_value_list(r->arena, MB_TUPLE);
            ok = mb_list_add(r->arena, item, pair->key) && mb_list_add(r->arena, item, pair->value);
        }
        ok = ok && mb_list_add(r->arena, list, item);
    }
    return ok ? list : mb_render_no_memory(r);
}

static mb_value call_items(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "items()", 0, NULL) ? pairs_of(r, self, true, true) : *self;
}

static mb_value call_keys(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "keys()", 0, NULL) ? pairs_of(r, self, true, false) : *self;
}

static mb_value call_values(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    return mb_arguments_check(r, arguments, "values()", 0, NULL) ? pairs_of(r, self, false, true) : *self;
}

static mb_value call_get(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    const mb_value *key = mb_argument(arguments, 0, NULL), *other = mb_argument(arguments, 1, NULL);
    if (!mb_arguments_check(r, arguments, "get()", 2, NULL))
        return (mb_value){0};
    if (!key)
        return mb_render_fail(r, "get() needs a key");
    const mb_value *found = mb_dict_find(self->dict, *key);
    return found ? *found : other ? *other : mb_value_none();
}

static mb_value call_cycle(struct mb_render *r, const mb_value *self, const struct mb_arguments *arguments)
{
    if (arguments->count == 0)
        return mb_render_fail(r, "loop.cycle() needs values");
    return arguments->values[self->loop->index % arguments->count];
}

/* ---- the table ---- */

struct method {
    mb_kind kind;
    const char *name;
    method_call call;
};

static const struct method METHODS[] = {
    {MB_KIND_TEXT, "strip", call_strip},
    {MB_KIND_TEXT, "lstrip", call_lstrip},
    {MB_KIND_TEXT, "rstrip", call_rstrip},
    {MB_KIND_TEXT, "split", call_split},
    {MB_KIND_TEXT, "rsplit", call_rsplit},
    {MB_KIND_TEXT, "splitlines", call_splitlines},
    {MB_KIND_TEXT, "startswith", call_startswith},
    {MB_KIND_TEXT, "endswith", call_endswith},
    {MB_KIND_TEXT, "removeprefix", call_removeprefix},
    {MB_KIND_TEXT, "removesuffix", call_removesuffix},
    {MB_KIND_TEXT, "replace", call_replace},
    {MB_KIND_TEXT, "find", call_find},
    {MB_KIND_TEXT, "count", call_count},
    {MB_KIND_TEXT, "upper", call_upper},
    {MB_KIND_TEXT, "lower", call_lower},
    {MB_KIND_TEXT, "capitalize", call_capitalize},
    {MB_KIND_TEXT, "title", call_title},
    {MB_KIND_TEXT, "join", call_join},
    {MB_KIND_DICT, "items", call_items},
    {MB_KIND_DICT, "keys", call_keys},
    {MB_KIND_DICT, "values", call_values},
    {MB_KIND_DICT, "get", call_get},
    {MB_KIND_LOOP, "cycle", call_cycle},
};

/* The rest of what Python's types have; those of lists and dicts would change them, which the sandbox forbids. */
static const char *const FOREIGN_TEXT[] = {
    "casefold", "center",     "encode",    "expandtabs", "format",       "format_map", "index",     "isalnum",
    "isalpha",  "isascii",    "isdecimal", "isdigit",    "isidentifier", "islower",    "isnumeric", "isprintable",
    "isspace",  "istitle",    "isupper",   "ljust",      "maketrans",    "partition",  "rfind",     "rindex",
    "rjust",    "rpartition", "swapcase",  "translate",  "zfill",        NULL};
static const char *const FOREIGN_DICT[] = {"clear",   "copy",       "fromkeys", "pop",
                                           "popitem", "setdefault", "update",   NULL};
static const char *const FOREIGN_LIST[] = {"append", "clear", "copy",   "count",   "extend", "index",
                                           "insert", "pop",   "remove", "reverse", "sort",   NULL};

mb_value mb_method_find(struct mb_render *r, const mb_value *value, const char *name)
{
    const char *const *foreign = value->kind == MB_KIND_TEXT   ? FOREIGN_TEXT
                                 : value->kind == MB_KIND_DICT ? FOREIGN_DICT
                                 : value->kind == MB_KIND_LIST ? FOREIGN_LIST
                                                               : NULL;
    for (size_t i = 0; i < sizeof METHODS / sizeof METHODS[0]; i++)
        if (METHODS[i].kind == value->kind && strcmp(METHODS[i].name, name) == 0)
            return (mb_value){.kind = MB_KIND_METHOD, .method = {METHODS[i].name, value}};
    for (; foreign && *foreign; foreign++)
        if (strcmp(*foreign, name) == 0)
            return mb_render_fail(r, "the method %s() of \"%s\" is not supported", name,
                                  mb_value_kind_name(*value));
    return (mb_value){0};
}

mb_value mb_call_method(struct mb_render *r, struct mb_bound_method method, const struct mb_arguments *arguments)
{
    for (size_t i = 0; i < sizeof METHODS / sizeof METHODS[0]; i++)
        if (METHODS[i].kind == method.self->kind && strcmp(METHODS[i].name, method.name) == 0)
            return METHODS[i].call(r, method.self, arguments);
    return mb_render_fail(r, "%s() cannot be called", method.name);
}
