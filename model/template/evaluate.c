/*
 * evaluate.c - the expressions of a chat template: names, items, slices, operators, calls. Rules as in Jinja 3.1
 * (an unknown name is undefined; undefined prints nothing, but its attributes and sums are errors) and Python.
 */
#include "model/template/value.h"

#include <math.h>
#include <string.h>

mb_value mb_get_attribute(struct mb_render *r, mb_value value, const char *name);

/* ---- lookup ---- */

static const mb_value *find_name(const struct mb_scope *scope, const char *name)
{
    mb_value key = mb_value_string(name);
    for (; scope; scope = scope->outer) {
        const mb_value *found = mb_dict_find(scope->variables.dict, key);
        if (found)
            return found;
    }
    return NULL;
}

static mb_value undefined(const char *name)
{
    return (mb_value){.kind = MB_KIND_UNDEFINED, .text = name, .length = strlen(name)};
}

static mb_value evaluate_name(struct mb_render *r, const struct mb_node *node)
{
    const mb_value *found = find_name(r->scope, node->name);
    if (found)
        return *found;
    if (mb_function_known(node->name))
        return (mb_value){.kind = MB_KIND_FUNCTION, .text = node->name, .length = strlen(node->name)};
    return undefined(node->name);
}

static mb_value loop_neighbour(const struct mb_loop *loop, bool next)
{
    if (next)
        return loop->index + 1 < loop->list->count ? loop->list->items[loop->index + 1] : undefined("nextitem");
    return loop->index > 0 ? loop->list->items[loop->index - 1] : undefined("previtem");
}

static mb_value loop_attribute(struct mb_render *r, const mb_value *value, const char *name)
{
    const struct mb_loop *loop = value->loop;
    const int64_t index = (int64_t)loop->index, count = (int64_t)loop->list->count;
    const struct {
        const char *name;
        mb_value value;
    } known[] = {{"index", mb_value_int(index + 1)},        {"index0", mb_value_int(index)},
                 {"revindex", mb_value_int(count - index)}, {"revindex0", mb_value_int(count - index - 1)},
                 {"first", mb_value_bool(index == 0)},      {"last", mb_value_bool(index + 1 == count)},
                 {"length", mb_value_int(count)},           {"depth", mb_value_int(loop->depth)},
                 {"depth0", mb_value_int(loop->depth - 1)}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].value;
    if (strcmp(name, "previtem") == 0 || strcmp(name, "nextitem") == 0)
        return loop_neighbour(loop, name[0] == 'n');
    if (strcmp(name, "cycle") == 0)
        return mb_method_find(r, value, name);
    return mb_render_fail(r, "loop.%s is not supported", name);
}

/* A value whose address outlives this call, for a method. */
static const mb_value *keep(struct mb_render *r, mb_value value)
{
    mb_value *kept = mb_arena_take(r->arena, sizeof *kept);
    if (!kept) {
        mb_render_no_memory(r);
        return NULL;
    }
    *kept = value;
    return kept;
}

/* Python's attribute first, then the item: {{ message.items }} is the method even where a key is called so. */
mb_value mb_get_attribute(struct mb_render *r, mb_value value, const char *name)
{
    if (value.kind == MB_KIND_UNDEFINED)
        return mb_render_fail(r, "\"%.*s\" is undefined and has no \"%s\"", (int)value.length,
                              value.text ? value.text : "", name);
    if (value.kind == MB_KIND_LOOP) {
        const mb_value *kept = keep(r, value);
        return kept ? loop_attribute(r, kept, name) : (mb_value){0};
    }
    if (value.kind != MB_KIND_NAMESPACE) {
        const mb_value *kept = keep(r, value);
        mb_value method = kept ? mb_method_find(r, kept, name) : (mb_value){0};
        if (r->rc != MB_OK || method.kind != MB_KIND_UNDEFINED)
            return method;
    }
    if (value.kind == MB_KIND_DICT || value.kind == MB_KIND_NAMESPACE) {
        const mb_value *found = mb_dict_find(value.dict, mb_value_string(name));
        if (found)
            return *found;
    }
    return undefined(name);
}

static mb_value list_item(const struct mb_list *list, int64_t index)
{
    if (index < 0)
        index += (int64_t)list->count;
    return index >= 0 && index < (int64_t)list->count ? list->items[index] : undefined("(item)");
}

static mb_value text_item(mb_value text, int64_t index)
{
    if (index < 0)
        index += (int64_t)mb_text_characters(text.text, text.length);
    size_t at = index < 0 ? text.length : mb_text_offset(text.text, text.length, (size_t)index);
    if (at >= text.length)
        return undefined("(item)");
    return mb_value_text(text.text + at, mb_text_offset(text.text + at, text.length - at, 1));
}

mb_value mb_get_item(struct mb_render *r, mb_value value, mb_value key)
{
    if (value.kind == MB_KIND_UNDEFINED)
        return mb_render_fail(r, "\"%.*s\" is undefined and has no items", (int)value.length,
                              value.text ? value.text : "");
    if (value.kind == MB_KIND_DICT) {
        const mb_value *found = mb_dict_find(value.dict, key);
        if (found)
            return *found;
    }
    const int64_t index = key.kind == MB_KIND_BOOL ? key.boolean : key.integer;
    if (key.kind == MB_KIND_INT || key.kind == MB_KIND_BOOL) {
        if (value.kind == MB_KIND_LIST && value.list->flavour <= MB_RANGE)
            return list_item(value.list, index);
        if (value.kind == MB_KIND_TEXT && mb_render_work(r, value.length / 64))
            return text_item(value, index);
        return undefined("(item)");
    }
    if (key.kind == MB_KIND_TEXT) {
        mb_value copy = key;
        char *name = mb_arena_take(r->arena, key.length + 1);
        if (!name)
            return mb_render_no_memory(r);
        memcpy(name, copy.text, copy.length);
        return mb_get_attribute(r, value, name);
    }
    return undefined("(item)");
}

/* ---- slices ---- */

struct slice {
    int64_t start, stop, step, count;
};

static bool slice_part(struct mb_render *r, const struct mb_node *node, int64_t *value, bool *given)
{
    mb_value v = node ? mb_evaluate(r, node) : mb_value_none();
    *given = v.kind == MB_KIND_INT || v.kind == MB_KIND_BOOL;
    *value = v.kind == MB_KIND_BOOL ? v.boolean : v.integer;
    if (r->rc == MB_OK && !*given && v.kind != MB_KIND_NONE)
        mb_render_fail(r, "the parts of a slice [a:b:c] are integers, not \"%s\"", mb_value_kind_name(v));
    return r->rc == MB_OK;
}

static int64_t clamp(int64_t value, int64_t length, int64_t least, int64_t most)
{
    if (value < 0)
        value += length;
    return value < least ? least : value > most ? most : value;
}

/* Python's slice.indices(length). */
static bool slice_indices(struct mb_render *r, const struct mb_node *node, int64_t length, struct slice *s)
{
    bool start_given, stop_given, step_given;
    if (!slice_part(r, node->b, &s->start, &start_given) || !slice_part(r, node->c, &s->stop, &stop_given) ||
        !slice_part(r, node->d, &s->step, &step_given))
        return false;
    if (!step_given)
        s->step = 1;
    if (s->step == 0 || s->step > INT32_MAX || s->step < -INT32_MAX) {
        mb_render_fail(r, "a slice cannot step by %lld", (long long)s->step);
        return false;
    }
    const int64_t least = s->step < 0 ? -1 : 0, most = s->step < 0 ? length - 1 : length;
    s->start = start_given ? clamp(s->start, length, least, most) : s->step < 0 ? most : 0;
    s->stop = stop_given ? clamp(s->stop, length, least, most) : s->step < 0 ? -1 : length;
    const int64_t way = s->step > 0 ? s->stop - s->start : s->start - s->stop;
    const int64_t width = s->step > 0 ? s->step : -s->step;
    s->count = way > 0 ? (way + width - 1) / width : 0;
    return mb_render_work(r, (uint64_t)s->count / 16 + 1);
}

static mb_value slice_text(struct mb_render *r, mb_value text, const struct slice *s)
{
    if (s->step == 1) {
        size_t from = mb_text_offset(text.text, text.length, (size_t)s->start);
        size_t n = s->count ? mb_text_offset(text.text + from, text.length - from, (size_t)s->count) : 0;
        return mb_value_text(text.text + from, n);
    }
    const struct mb_list *characters = mb_value_items(r, text);
    mb_text out = {0};
    for (int64_t i = 0; characters && i < s->count; i++) {
        mb_value c = characters->items[s->start + i * s->step];
        mb_text_append(&out, c.text, c.length);
    }
    return mb_value_take(r, &out);
}

static mb_value evaluate_slice(struct mb_render *r, const struct mb_node *node)
{
    mb_value value = mb_evaluate(r, node->a), out;
    struct slice s;
    if (r->rc != MB_OK)
        return value;
    if (value.kind == MB_KIND_UNDEFINED)
        return mb_render_fail(r, "\"%.*s\" is undefined and has no items", (int)value.length,
                              value.text ? value.text : "");
    if (value.kind != MB_KIND_TEXT && (value.kind != MB_KIND_LIST || value.list->flavour > MB_RANGE))
        return mb_render_fail(r, "a \"%s\" has no slices", mb_value_kind_name(value));
    if (!slice_indices(r, node, mb_value_length(r, value), &s))
        return (mb_value){0};
    if (value.kind == MB_KIND_TEXT)
        return slice_text(r, value, &s);
    out = mb_value_list(r->arena, value.list->flavour);
    for (int64_t i = 0; i < s.count; i++)
        if (!mb_list_add(r->arena, out, value.list->items[s.start + i * s.step]))
            return mb_render_no_memory(r);
    return out.kind == MB_KIND_LIST ? out : mb_render_no_memory(r);
}

/* ---- operators ---- */

static mb_value join_text(struct mb_render *r, mb_value a, mb_value b)
{
    char *out = mb_arena_take(r->arena, a.length + b.length + 1);
    if (!out)
        return mb_render_no_memory(r);
    if (a.length)
        memcpy(out, a.text, a.length);
    if (b.length)
        memcpy(out + a.length, b.text, b.length);
    mb_render_work(r, (a.length + b.length) / 64);
    return mb_value_text(out, a.length + b.length);
}

static mb_value join_lists(struct mb_render *r, const struct mb_list *a, const struct mb_list *b)
{
    mb_value out = mb_value_list(r->arena, a->flavour);
    bool ok = out.kind == MB_KIND_LIST && mb_render_work(r, a->count + b->count);
    for (size_t i = 0; ok && i < a->count + b->count; i++)
        ok = mb_list_add(r->arena, out, i < a->count ? a->items[i] : b->items[i - a->count]);
    return ok ? out : mb_render_no_memory(r);
}

static mb_value repeat(struct mb_render *r, mb_value text, int64_t times)
{
    mb_text out = {0};
    if (times > 0 && text.length > r->out_limit / (uint64_t)times)
        return mb_render_fail(r, "a text is repeated to more than %zu bytes", r->out_limit);
    for (int64_t i = 0; i < times && text.length; i++)
        mb_text_append(&out, text.text, text.length);
    return mb_value_take(r, &out);
}

static mb_value not_for(struct mb_render *r, int op, mb_value a, mb_value b)
{
    const char *shown = op == MB_OP_FLOOR ? "//" : op == MB_OP_POWER ? "**" : NULL;
    const char one[2] = {(char)op};
    mb_value empty = a.kind == MB_KIND_UNDEFINED ? a : b;
    if (empty.kind == MB_KIND_UNDEFINED)
        return mb_render_fail(r, "\"%.*s\" is undefined", (int)empty.length, empty.text ? empty.text : "");
    return mb_render_fail(r, "%s between \"%s\" and \"%s\" is not supported", shown ? shown : one,
                          mb_value_kind_name(a), mb_value_kind_name(b));
}

static mb_value integer_power(struct mb_render *r, int64_t base, int64_t exponent)
{
    int64_t result = 1;
    for (int64_t i = 0; i < exponent; i++)
        if (__builtin_mul_overflow(result, base, &result) || i > 64)
            return mb_render_fail(r, "an integer is too large");
    return mb_value_int(result);
}

/* Division rounds down, and the remainder has the divisor's sign. */
static int64_t floor_divide(int64_t x, int64_t y)
{
    return x / y - (x % y != 0 && (x < 0) != (y < 0));
}

static mb_value integers(struct mb_render *r, int op, int64_t x, int64_t y)
{
    int64_t z = 0;
    bool over = false;
    if ((op == MB_OP_FLOOR || op == '%' || op == '/') && y == 0)
        return mb_render_fail(r, "division by zero");
    if (op == MB_OP_POWER && y >= 0)
        return integer_power(r, x, y);
    switch (op) {
    case '+':
        over = __builtin_add_overflow(x, y, &z);
        break;
    case '-':
        over = __builtin_sub_overflow(x, y, &z);
        break;
    case '*':
        over = __builtin_mul_overflow(x, y, &z);
        break;
    case '/':
        return (mb_value){.kind = MB_KIND_REAL, .real = (double)x / (double)y};
    case MB_OP_POWER:
        return (mb_value){.kind = MB_KIND_REAL, .real = pow((double)x, (double)y)};
    default:
        over = y == -1 && x == INT64_MIN;
        if (!over)
            z = op == '%' ? x - floor_divide(x, y) * y : floor_divide(x, y);
    }
    return over ? mb_render_fail(r, "an integer is too large") : mb_value_int(z);
}

static mb_value reals(struct mb_render *r, int op, double x, double y)
{
    double z = 0;
    if ((op == MB_OP_FLOOR || op == '%' || op == '/') && y == 0)
        return mb_render_fail(r, "division by zero");
    switch (op) {
    case '+':
        z = x + y;
        break;
    case '-':
        z = x - y;
        break;
    case '*':
        z = x * y;
        break;
    case '/':
        z = x / y;
        break;
    case MB_OP_POWER:
        z = pow(x, y);
        break;
    case '%':
        z = x - floor(x / y) * y;
        break;
    default:
        z = floor(x / y);
    }
    return (mb_value){.kind = MB_KIND_REAL, .real = z};
}

static mb_value evaluate_binary(struct mb_render *r, const struct mb_node *node)
{
    mb_value a = mb_evaluate(r, node->a), b = r->rc == MB_OK ? mb_evaluate(r, node->b) : a;
    const int op = node->op;
    if (r->rc != MB_OK)
        return a;
    r->line = node->line;
    if (op == '~') {
        a = mb_value_as_text(r, a);
        b = mb_value_as_text(r, b);
        return r->rc == MB_OK ? join_text(r, a, b) : a;
    }
    if (mb_value_is_number(a) && mb_value_is_number(b)) {
        if (a.kind == MB_KIND_REAL || b.kind == MB_KIND_REAL)
            return reals(r, op, mb_value_real(a), mb_value_real(b));
        return integers(r, op, a.kind == MB_KIND_BOOL ? a.boolean : a.integer,
                        b.kind == MB_KIND_BOOL ? b.boolean : b.integer);
    }
    if (op == '+' && a.kind == MB_KIND_TEXT && b.kind == MB_KIND_TEXT)
        return join_text(r, a, b);
    if (op == '+' && a.kind == MB_KIND_LIST && b.kind == MB_KIND_LIST && a.list->flavour == b.list->flavour &&
        a.list->flavour <= MB_TUPLE)
        return join_lists(r, a.list, b.list);
    if (op == '*' && a.kind == MB_KIND_TEXT && b.kind == MB_KIND_INT)
        return repeat(r, a, b.integer);
    if (op == '*' && a.kind == MB_KIND_INT && b.kind == MB_KIND_TEXT)
        return repeat(r, b, a.integer);
    return not_for(r, op, a, b);
}

static mb_value evaluate_unary(struct mb_render *r, const struct mb_node *node)
{
    mb_value a = mb_evaluate(r, node->a);
    if (r->rc != MB_OK)
        return a;
    if (node->op == 'n')
        return mb_value_bool(!mb_value_true(r, a));
    if (!mb_value_is_number(a))
        return mb_render_fail(r, "a sign %c stands in front of a \"%s\"", node->op, mb_value_kind_name(a));
    if (a.kind == MB_KIND_REAL)
        return node->op == '-' ? reals(r, '-', 0, a.real) : a;
    return integers(r, node->op, 0, a.kind == MB_KIND_BOOL ? a.boolean : a.integer);
}

static mb_value evaluate_compare(struct mb_render *r, const struct mb_node *node)
{
    mb_value left = mb_evaluate(r, node->a);
    for (const struct mb_node *item = node->items; item && r->rc == MB_OK; item = item->next) {
        mb_value right = mb_evaluate(r, item->a);
        bool holds = false;
        if (r->rc != MB_OK)
            break;
        r->line = item->line;
        switch (item->op) {
        case MB_OP_EQ:
            holds = mb_value_equal(r, left, right);
            break;
        case MB_OP_NE:
            holds = !mb_value_equal(r, left, right);
            break;
        case 'i':
            holds = mb_value_in(r, left, right);
            break;
        case 'o':
            holds = !mb_value_in(r, left, right);
            break;
        default:
            holds = mb_value_ordered(r, item->op, left, right);
        }
        if (!holds)
            return mb_value_bool(false);
        left = right;
    }
    return mb_value_bool(r->rc == MB_OK);
}

/* ---- collections and calls ---- */

static mb_value evaluate_list(struct mb_render *r, const struct mb_node *node)
{
    mb_value list = mb_value_list(r->arena, node->kind == MB_NODE_TUPLE ? MB_TUPLE : MB_LIST);
    bool ok = list.kind == MB_KIND_LIST;
    for (const struct mb_node *item = node->items; item && ok && r->rc == MB_OK; item = item->next)
        ok = mb_list_add(r->arena, list, mb_evaluate(r, item));
    return ok ? list : mb_render_no_memory(r);
}

static mb_value evaluate_dict(struct mb_render *r, const struct mb_node *node)
{
    mb_value dict = mb_value_dict(r->arena);
    bool ok = dict.kind == MB_KIND_DICT;
    for (const struct mb_node *item = node->items; item && ok && r->rc == MB_OK; item = item->next->next) {
        mb_value key = mb_evaluate(r, item), value = r->rc == MB_OK ? mb_evaluate(r, item->next) : key;
        if (r->rc == MB_OK && key.kind != MB_KIND_TEXT && key.kind != MB_KIND_NONE && !mb_value_is_number(key))
            return mb_render_fail(r, "a \"%s\" cannot be a key", mb_value_kind_name(key));
        ok = mb_render_work(r, dict.dict->count / 8) && mb_dict_put(r->arena, dict, key, value);
    }
    return ok ? dict : mb_render_no_memory(r);
}

bool mb_evaluate_arguments(struct mb_render *r, const struct mb_node *items, struct mb_arguments *arguments)
{
    arguments->count = 0;
    for (; items && r->rc == MB_OK; items = items->next) {
        if (arguments->count == MB_ARGUMENTS_MAX) {
            mb_render_fail(r, "more than %d arguments are not supported", MB_ARGUMENTS_MAX);
            break;
        }
        arguments->names[arguments->count] = items->name;
        arguments->values[arguments->count] = mb_evaluate(r, items->a);
        arguments->count++;
    }
    return r->rc == MB_OK;
}

static mb_value evaluate_call(struct mb_render *r, const struct mb_node *node)
{
    struct mb_arguments arguments;
    mb_value callee = mb_evaluate(r, node->a);
    if (r->rc != MB_OK || !mb_evaluate_arguments(r, node->items, &arguments))
        return (mb_value){0};
    r->line = node->line;
    switch (callee.kind) {
    case MB_KIND_FUNCTION:
        return mb_call_function(r, callee, &arguments);
    case MB_KIND_METHOD:
        return mb_call_method(r, callee.method, &arguments);
    case MB_KIND_MACRO:
        return mb_call_macro(r, callee.macro, &arguments);
    case MB_KIND_UNDEFINED:
        return mb_render_fail(r, "%.*s() is not defined, or not supported", (int)callee.length,
                              callee.text ? callee.text : "");
    default:
        return mb_render_fail(r, "a \"%s\" cannot be called", mb_value_kind_name(callee));
    }
}

static mb_value evaluate_filter(struct mb_render *r, const struct mb_node *node)
{
    struct mb_arguments arguments;
    mb_value value = mb_evaluate(r, node->a);
    if (r->rc != MB_OK || !mb_evaluate_arguments(r, node->items, &arguments))
        return value;
    r->line = node->line;
    return mb_apply_filter(r, node->name, value, &arguments);
}

static mb_value evaluate_test(struct mb_render *r, const struct mb_node *node)
{
    struct mb_arguments arguments;
    mb_value value = mb_evaluate(r, node->a);
    if (r->rc != MB_OK || !mb_evaluate_arguments(r, node->items, &arguments))
        return value;
    r->line = node->line;
    return mb_value_bool(mb_apply_test(r, node->name, value, &arguments) != node->flag);
}

static mb_value evaluate_condition(struct mb_render *r, const struct mb_node *node)
{
    mb_value chosen = mb_evaluate(r, node->b);
    if (r->rc != MB_OK)
        return chosen;
    if (mb_value_true(r, chosen))
        return mb_evaluate(r, node->a);
    return node->c ? mb_evaluate(r, node->c) : undefined("the inline if-expression without else");
}

/* and, or: the operand that decides. */
static mb_value evaluate_logic(struct mb_render *r, const struct mb_node *node)
{
    mb_value a = mb_evaluate(r, node->a);
    if (r->rc != MB_OK || mb_value_true(r, a) == (node->kind == MB_NODE_OR))
        return a;
    return mb_evaluate(r, node->b);
}

static mb_value evaluate_item(struct mb_render *r, const struct mb_node *node)
{
    mb_value value = mb_evaluate(r, node->a), key = r->rc == MB_OK ? mb_evaluate(r, node->b) : value;
    r->line = r->rc == MB_OK ? node->line : r->line;
    return r->rc == MB_OK ? mb_get_item(r, value, key) : value;
}

static mb_value evaluate_attribute(struct mb_render *r, const struct mb_node *node)
{
    mb_value value = mb_evaluate(r, node->a);
    r->line = r->rc == MB_OK ? node->line : r->line;
    return r->rc == MB_OK ? mb_get_attribute(r, value, node->name) : value;
}

static mb_value dispatch(struct mb_render *r, const struct mb_node *node)
{
    switch (node->kind) {
    case MB_NODE_CONSTANT:
        return node->value;
    case MB_NODE_NAME:
        return evaluate_name(r, node);
    case MB_NODE_LIST:
    case MB_NODE_TUPLE:
        return evaluate_list(r, node);
    case MB_NODE_DICT:
        return evaluate_dict(r, node);
    case MB_NODE_ATTRIBUTE:
        return evaluate_attribute(r, node);
    case MB_NODE_ITEM:
        return evaluate_item(r, node);
    case MB_NODE_SLICE:
        return evaluate_slice(r, node);
    case MB_NODE_CALL:
        return evaluate_call(r, node);
    case MB_NODE_FILTER:
        return evaluate_filter(r, node);
    case MB_NODE_TEST:
        return evaluate_test(r, node);
    case MB_NODE_UNARY:
        return evaluate_unary(r, node);
    case MB_NODE_BINARY:
        return evaluate_binary(r, node);
    case MB_NODE_AND:
    case MB_NODE_OR:
        return evaluate_logic(r, node);
    case MB_NODE_COMPARE:
        return evaluate_compare(r, node);
    case MB_NODE_CONDITION:
        return evaluate_condition(r, node);
    default:
        return mb_render_fail(r, "a statement stands in the place of an expression");
    }
}

mb_value mb_evaluate(struct mb_render *r, const struct mb_node *node)
{
    mb_value value = {0};
    r->line = node->line;
    if (++r->depth > MB_TEMPLATE_WALK_MAX)
        mb_render_fail(r, "expressions are nested deeper than %d", MB_TEMPLATE_WALK_MAX);
    else if (mb_render_work(r, 1))
        value = dispatch(r, node);
    r->depth--;
    return value;
}
