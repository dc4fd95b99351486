/*
 * functions.c - what a chat template may call by name (range, dict, namespace, raise_exception, strftime_now), the
 * arguments of any call, and the tests behind "is".
 */
#include "model/template/value.h"

#include <string.h>

#define RANGE_MAX 100000 /* the sandbox's own bound */

const mb_value *mb_argument(const struct mb_arguments *arguments, size_t place, const char *name)
{
    if (place < arguments->count && !arguments->names[place])
        return &arguments->values[place];
    for (size_t i = 0; name && i < arguments->count; i++)
        if (arguments->names[i] && strcmp(arguments->names[i], name) == 0)
            return &arguments->values[i];
    return NULL;
}

bool mb_arguments_check(struct mb_render *r, const struct mb_arguments *arguments, const char *what, size_t most,
                        const char *const names[])
{
    for (size_t i = 0; i < arguments->count; i++) {
        bool known = !arguments->names[i] && i < most;
        for (size_t j = 0; arguments->names[i] && names && names[j]; j++)
            known = known || strcmp(arguments->names[i], names[j]) == 0;
        if (!known && arguments->names[i])
            mb_render_fail(r, "%s has no argument \"%s\" that is supported", what, arguments->names[i]);
        else if (!known)
            mb_render_fail(r, "%s is called with more than the %zu arguments that are supported", what, most);
    }
    return r->rc == MB_OK;
}

/* ---- functions ---- */

static mb_value call_range(struct mb_render *r, const struct mb_arguments *arguments)
{
    int64_t part[3] = {0, 0, 1};
    if (!mb_arguments_check(r, arguments, "range()", 3, NULL))
        return (mb_value){0};
    for (size_t i = 0; i < arguments->count; i++) {
        if (arguments->values[i].kind != MB_KIND_INT)
            return mb_render_fail(r, "range() takes integers, not \"%s\"",
                                  mb_value_kind_name(arguments->values[i]));
        part[i] = arguments->values[i].integer;
    }
    if (arguments->count == 0 || part[2] == 0)
        return mb_render_fail(r, "range() takes one to three integers, the last not 0");
    if (arguments->count == 1) {
        part[1] = part[0];
        part[0] = 0;
    }
    mb_value list = mb_value_list(r->arena, MB_RANGE);
    for (int64_t i = part[0]; part[2] > 0 ? i < part[1] : i > part[1]; i += part[2]) {
        if (list.kind == MB_KIND_LIST && list.list->count == RANGE_MAX)
            return mb_render_fail(r, "range() with more than %d items", RANGE_MAX);
        if (!mb_list_add(r->arena, list, mb_value_int(i)) || !mb_render_work(r, 1))
            return mb_render_no_memory(r);
        if (i > INT64_MAX / 2 || i < INT64_MIN / 2)
            return mb_render_fail(r, "range() over numbers this large");
    }
    return list.kind == MB_KIND_LIST ? list : mb_render_no_memory(r);
}

/* dict(...) and namespace(...): a dict to copy, then names. */
static mb_value call_dict(struct mb_render *r, const struct mb_arguments *arguments, mb_kind kind)
{
    mb_value dict = mb_value_dict(r->arena);
    bool ok = dict.kind == MB_KIND_DICT;
    dict.kind = ok ? kind : dict.kind;
    for (size_t i = 0; ok && i < arguments->count; i++) {
        mb_value value = arguments->values[i];
        const char *name = arguments->names[i];
        if (name && kind == MB_KIND_NAMESPACE && name[0] == '_')
            return mb_render_fail(r, "namespace(%s=...): a name with \"_\" in front is not allowed", name);
        if (name) {
            ok = mb_dict_put(r->arena, dict, mb_value_string(name), value);
            continue;
        }
        if (value.kind != MB_KIND_DICT || i > 0)
            return mb_render_fail(r, "%s() of a \"%s\" is not supported",
                                  kind == MB_KIND_DICT ? "dict" : "namespace", mb_value_kind_name(value));
        for (size_t j = 0; ok && j < value.dict->count; j++)
            ok = mb_dict_put(r->arena, dict, value.dict->pairs[j].key, value.dict->pairs[j].value);
    }
    return ok ? dict : mb_render_no_memory(r);
}

static mb_value call_raise(struct mb_render *r, const struct mb_arguments *arguments)
{
    const mb_value *message = mb_argument(arguments, 0, "message");
    mb_value text = message ? mb_value_as_text(r, *message) : mb_value_text("", 0);
    return mb_render_fail(r, "the template refuses the conversation: %.*s",
                          (int)(text.length < 400 ? text.length : 400), text.text ? text.text : "");
}

static mb_value call_strftime(struct mb_render *r, const struct mb_arguments *arguments)
{
    const mb_value *format = mb_argument(arguments, 0, "format");
    struct tm now;
    char pattern[128], *out;
    if (!format || format->kind != MB_KIND_TEXT || format->length >= sizeof pattern)
        return mb_render_fail(r, "strftime_now() takes a format of fewer than %zu bytes", sizeof pattern);
    memcpy(pattern, format->text, format->length);
    pattern[format->length] = '\0';
    out = mb_arena_take(r->arena, 1024);
    if (!out || !localtime_r(&r->now, &now))
        return mb_render_no_memory(r);
    size_t n = pattern[0] ? strftime(out, 1024, pattern, &now) : 0;
    return mb_value_text(out, n);
}

static const char *const FUNCTIONS[] = {"range", "dict", "namespace", "raise_exception", "strftime_now"};

bool mb_function_known(const char *name)
{
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof FUNCTIONS[0]; i++)
        if (strcmp(name, FUNCTIONS[i]) == 0)
            return true;
    return false;
}

mb_value mb_call_function(struct mb_render *r, mb_value function, const struct mb_arguments *arguments)
{
    switch (function.text[1]) { /* the second letters differ */
    case 'a':
        return function.length == 5      ? call_range(r, arguments)
               : function.text[0] == 'r' ? call_raise(r, arguments)
                                         : call_dict(r, arguments, MB_KIND_NAMESPACE);
    case 'i':
        return call_dict(r, arguments, MB_KIND_DICT);
    default:
        return call_strftime(r, arguments);
    }
}

/* ---- tests ---- */

static bool is_kind(mb_value value, const char *name, bool *known)
{
    const bool number = mb_value_is_number(value);
    const struct {
        const char *name;
        bool holds;
    } kinds[] = {
        {"defined", value.kind != MB_KIND_UNDEFINED},
        {"undefined", value.kind == MB_KIND_UNDEFINED},
        {"none", value.kind == MB_KIND_NONE},
        {"string", value.kind == MB_KIND_TEXT},
        {"number", number},
        {"integer", value.kind == MB_KIND_INT},
        {"float", value.kind == MB_KIND_REAL},
        {"boolean", value.kind == MB_KIND_BOOL},
        {"true", value.kind == MB_KIND_BOOL && value.boolean},
        {"false", value.kind == MB_KIND_BOOL && !value.boolean},
        {"mapping", value.kind == MB_KIND_DICT},
        {"sequence", value.kind == MB_KIND_TEXT || value.kind == MB_KIND_DICT ||
                         (value.kind == MB_KIND_LIST && value.list->flavour <= MB_RANGE)},
        {"iterable", value.kind == MB_KIND_TEXT || value.kind == MB_KIND_DICT || value.kind == MB_KIND_LIST ||
                         value.kind == MB_KIND_UNDEFINED || value.kind == MB_KIND_LOOP},
        {"callable",
         value.kind == MB_KIND_MACRO || value.kind == MB_KIND_FUNCTION || value.kind == MB_KIND_METHOD},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(name, kinds[i].name) == 0) {
            *known = true;
            return kinds[i].holds;
        }
    *known = false;
    return false;
}

static int comparison_of(const char *name)
{
    static const struct {
        const char *names[3];
        int op;
    } table[] = {{{"eq", "equalto", "=="}, MB_OP_EQ},
                 {{"ne", "!=", ""}, MB_OP_NE},
                 {{"lt", "lessthan", "<"}, '<'},
                 {{"le", "<=", ""}, MB_OP_LE},
                 {{"gt", "greaterthan", ">"}, '>'},
                 {{"ge", ">=", ""}, MB_OP_GE},
                 {{"in", "", ""}, 'i'}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        for (int j = 0; j < 3; j++)
            if (strcmp(name, table[i].names[j]) == 0)
                return table[i].op;
    return 0;
}

/* odd, even, divisibleby. */
static bool divides(struct mb_render *r, const char *name, mb_value value, const mb_value *by)
{
    const int64_t divisor = strcmp(name, "divisibleby") != 0 ? 2 : by && by->kind == MB_KIND_INT ? by->integer : 0;
    if (value.kind != MB_KIND_INT || divisor == 0 || divisor == -1) {
        mb_render_fail(r, "\"is %s\" is supported for integers only", name);
        return false;
    }
    return (value.integer % divisor == 0) != (strcmp(name, "odd") == 0);
}

bool mb_apply_test(struct mb_render *r, const char *name, mb_value value, const struct mb_arguments *arguments)
{
    bool known, holds = is_kind(value, name, &known);
    const mb_value *other = mb_argument(arguments, 0, NULL);
    if (known)
        return mb_arguments_check(r, arguments, name, 0, NULL) && holds;
    if (!mb_arguments_check(r, arguments, name, 1, NULL))
        return false;
    const int op = comparison_of(name);
    if (op && !other) {
        mb_render_fail(r, "\"is %s\" needs a value to compare with", name);
        return false;
    }
    switch (op) {
    case 0:
        break;
    case MB_OP_EQ:
        return mb_value_equal(r, value, *other);
    case MB_OP_NE:
        return !mb_value_equal(r, value, *other);
    case 'i':
        return mb_value_in(r, value, *other);
    default:
        return mb_value_ordered(r, op, value, *other);
    }
    if (strcmp(name, "odd") == 0 || strcmp(name, "even") == 0 || strcmp(name, "divisibleby") == 0)
        return divides(r, name, value, other);
    mb_render_fail(r, "the test \"is %s\" is not supported", name);
    return false;
}
