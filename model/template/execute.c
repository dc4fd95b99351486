/*
 * execute.c - the statements of a chat template: output, if, for, set, macros; the regions in which a variable is
 * seen (a loop's round, a macro and a {% with %} have variables of their own, an {% if %} has none).
 */
#include "model/template/value.h"

#include <string.h>

struct mb_scope *mb_scope_open(struct mb_render *r, struct mb_scope *outer)
{
    struct mb_scope *scope = mb_arena_take(r->arena, sizeof *scope);
    if (scope)
        *scope = (struct mb_scope){.variables = mb_value_dict(r->arena), .outer = outer};
    if (!scope || scope->variables.kind != MB_KIND_DICT) {
        mb_render_no_memory(r);
        return NULL;
    }
    return scope;
}

bool mb_scope_set(struct mb_render *r, const char *name, mb_value value)
{
    if (r->rc == MB_OK && !mb_dict_put(r->arena, r->scope->variables, mb_value_string(name), value))
        mb_render_no_memory(r);
    return r->rc == MB_OK;
}

static void check_output(struct mb_render *r)
{
    if (r->out->failed && r->rc == MB_OK)
        r->rc = mb_no_memory(r->err, "the chat template %s", r->tpl->where);
    if (r->out->length > r->out_limit)
        mb_render_fail(r, "the template writes more than the %zu bytes that it may", r->out_limit);
}

/* A value to a name, to "namespace.name", or the parts of a list to several names. */
static void assign(struct mb_render *r, const struct mb_node *target, mb_value value)
{
    if (target->kind == MB_NODE_NAME) {
        mb_scope_set(r, target->name, value);
        return;
    }
    if (target->kind == MB_NODE_ATTRIBUTE) {
        mb_value space = mb_evaluate(r, target->a);
        if (r->rc == MB_OK && space.kind != MB_KIND_NAMESPACE)
            mb_render_fail(r, "{%% set %s.%s %%}: only a namespace() can be changed", target->a->name,
                           target->name);
        else if (r->rc == MB_OK && target->name[0] == '_')
            mb_render_fail(r, "{%% set %s.%s %%}: a name with \"_\" in front is not allowed", target->a->name,
                           target->name);
        else if (r->rc == MB_OK && !mb_dict_put(r->arena, space, mb_value_string(target->name), value))
            mb_render_no_memory(r);
        return;
    }
    const struct mb_list *parts = mb_value_items(r, value);
    size_t i = 0;
    for (const struct mb_node *name = target->items; name && r->rc == MB_OK; name = name->next, i++)
        if (i < parts->count)
            mb_scope_set(r, name->name, parts->items[i]);
    if (r->rc == MB_OK && i != parts->count)
        mb_render_fail(r, "%zu values cannot be given to %zu names", parts->count, i);
}

mb_value mb_execute_captured(struct mb_render *r, const struct mb_node *list)
{
    mb_text text = {0}, *outer = r->out;
    r->out = &text;
    mb_execute(r, list);
    r->out = outer;
    if (r->rc != MB_OK) {
        mb_text_free(&text);
        return (mb_value){0};
    }
    return mb_value_take(r, &text);
}

/* Applies the filters of a block to its text: the innermost node has no operand. */
static mb_value filter_block(struct mb_render *r, const struct mb_node *filters, mb_value text)
{
    struct mb_arguments arguments;
    if (!filters)
        return text;
    if (filters->a)
        text = filter_block(r, filters->a, text);
    if (r->rc != MB_OK || !mb_evaluate_arguments(r, filters->items, &arguments))
        return text;
    r->line = filters->line;
    return mb_apply_filter(r, filters->name, text, &arguments);
}

static void execute_set(struct mb_render *r, const struct mb_node *node)
{
    mb_value value;
    if (node->flag) {
        struct mb_scope *outer = r->scope, *inner = mb_scope_open(r, outer);
        if (!inner)
            return;
        r->scope = inner;
        value = mb_execute_captured(r, node->body);
        r->scope = outer;
        value = r->rc == MB_OK ? filter_block(r, node->c, value) : value;
    } else
        value = mb_evaluate(r, node->b);
    r->line = r->rc == MB_OK ? node->line : r->line;
    if (r->rc == MB_OK)
        assign(r, node->a, value);
}

/* The items that the loop's own condition leaves. */
static const struct mb_list *filtered(struct mb_render *r, const struct mb_node *node, const struct mb_list *all)
{
    struct mb_scope *outer = r->scope;
    mb_value kept = mb_value_list(r->arena, MB_LIST);
    if (!node->c)
        return all;
    bool ok = kept.kind == MB_KIND_LIST;
    for (size_t i = 0; ok && r->rc == MB_OK && i < all->count; i++) {
        r->scope = mb_scope_open(r, outer);
        if (!r->scope)
            break;
        assign(r, node->a, all->items[i]);
        mb_value holds = r->rc == MB_OK ? mb_evaluate(r, node->c) : (mb_value){0};
        if (r->rc == MB_OK && mb_value_true(r, holds))
            ok = mb_list_add(r->arena, kept, all->items[i]);
    }
    r->scope = outer;
    if (!ok)
        mb_render_no_memory(r);
    return r->rc == MB_OK ? kept.list : NULL;
}

/* One round; false ends the loop. */
static bool execute_round(struct mb_render *r, const struct mb_node *node, struct mb_scope *outer,
                          struct mb_loop *loop)
{
    r->scope = mb_scope_open(r, outer);
    if (!r->scope || !mb_scope_set(r, "loop", (mb_value){.kind = MB_KIND_LOOP, .loop = loop}))
        return false;
    assign(r, node->a, loop->list->items[loop->index]);
    if (r->rc == MB_OK)
        mb_execute(r, node->body);
    enum mb_jump jump = r->jump;
    r->jump = MB_GO_ON;
    return r->rc == MB_OK && jump != MB_JUMP_BREAK;
}

static void execute_for(struct mb_render *r, const struct mb_node *node)
{
    mb_value over = mb_evaluate(r, node->b);
    const struct mb_list *list = r->rc == MB_OK ? mb_value_items(r, over) : NULL;
    struct mb_scope *outer = r->scope;
    list = list ? filtered(r, node, list) : NULL;
    struct mb_loop *loop = list ? mb_arena_take(r->arena, sizeof *loop) : NULL;
    if (!loop) {
        if (r->rc == MB_OK)
            mb_render_no_memory(r);
        return;
    }
    *loop = (struct mb_loop){.list = list, .depth = 1}; /* counts recursive loops only */
    for (size_t i = 0; i < list->count; i++) {
        loop->index = i;
        if (!execute_round(r, node, outer, loop))
            break;
    }
    r->scope = outer;
    if (r->rc == MB_OK && list->count == 0 && node->other)
        mb_execute(r, node->other);
}

static void execute_if(struct mb_render *r, const struct mb_node *node)
{
    while (node && r->rc == MB_OK) {
        mb_value holds = mb_evaluate(r, node->a);
        if (r->rc != MB_OK)
            return;
        if (mb_value_true(r, holds)) {
            mb_execute(r, node->body);
            return;
        }
        /* an elif is one node of its own kind; else is a list of statements */
        if (!node->other || node->other->kind != MB_NODE_IF || !node->other->flag) {
            mb_execute(r, node->other);
            return;
        }
        node = node->other;
    }
}

static void execute_with(struct mb_render *r, const struct mb_node *node)
{
    struct mb_scope *outer = r->scope, *inner = mb_scope_open(r, outer);
    /* the values are those from outside, so they are evaluated before any target is set */
    for (const struct mb_node *target = node->items; target && inner && r->rc == MB_OK;
         target = target->next->next) {
        mb_value value = mb_evaluate(r, target->next);
        r->scope = inner;
        if (r->rc == MB_OK)
            assign(r, target, value);
        r->scope = outer;
    }
    if (inner && r->rc == MB_OK) {
        r->scope = inner;
        mb_execute(r, node->body);
    }
    r->scope = outer;
}

static void execute_macro(struct mb_render *r, const struct mb_node *node)
{
    struct mb_macro *macro = mb_arena_take(r->arena, sizeof *macro);
    if (!macro) {
        mb_render_no_memory(r);
        return;
    }
    *macro = (struct mb_macro){.node = node, .scope = r->scope};
    mb_scope_set(r, node->name, (mb_value){.kind = MB_KIND_MACRO, .macro = macro});
}

static void execute_output(struct mb_render *r, mb_value value)
{
    if (r->rc == MB_OK)
        mb_value_print(r, r->out, value);
    if (r->rc == MB_OK)
        check_output(r);
}

static void execute_one(struct mb_render *r, const struct mb_node *node)
{
    mb_value text;
    switch (node->kind) {
    case MB_NODE_DATA:
        execute_output(r, node->value);
        break;
    case MB_NODE_OUTPUT:
        execute_output(r, mb_evaluate(r, node->a));
        break;
    case MB_NODE_IF:
        execute_if(r, node);
        break;
    case MB_NODE_FOR:
        execute_for(r, node);
        break;
    case MB_NODE_SET:
        execute_set(r, node);
        break;
    case MB_NODE_MACRO:
        execute_macro(r, node);
        break;
    case MB_NODE_WITH:
        execute_with(r, node);
        break;
    case MB_NODE_FILTER_BLOCK:
        text = mb_execute_captured(r, node->body);
        execute_output(r, r->rc == MB_OK ? filter_block(r, node->a, text) : text);
        break;
    case MB_NODE_BREAK:
        r->jump = MB_JUMP_BREAK;
        break;
    case MB_NODE_CONTINUE:
        r->jump = MB_JUMP_CONTINUE;
        break;
    default:
        mb_render_fail(r, "an expression stands in the place of a statement");
    }
}

void mb_execute(struct mb_render *r, const struct mb_node *list)
{
    if (++r->depth > MB_TEMPLATE_WALK_MAX)
        mb_render_fail(r, "statements and calls are nested deeper than %d", MB_TEMPLATE_WALK_MAX);
    for (; list && r->rc == MB_OK && r->jump == MB_GO_ON; list = list->next) {
        r->line = list->line;
        if (mb_render_work(r, 1))
            execute_one(r, list);
    }
    r->depth--;
}

/* ---- macros ---- */

/* The macro's arguments as variables; what is not given has its default, or is undefined. */
static void bind_arguments(struct mb_render *r, const struct mb_macro *macro, const struct mb_arguments *arguments)
{
    size_t place = 0, used = 0;
    for (const struct mb_node *head = macro->node->items; head && r->rc == MB_OK; head = head->next, place++) {
        const mb_value *given = mb_argument(arguments, place, head->name);
        mb_value value = {.kind = MB_KIND_UNDEFINED, .text = head->name, .length = strlen(head->name)};
        used += given != NULL;
        if (given)
            value = *given;
        else if (head->a)
            value = mb_evaluate(r, head->a);
        mb_scope_set(r, head->name, value);
    }
    if (r->rc == MB_OK && used != arguments->count)
        mb_render_fail(r, "macro %s() was called with an argument that it does not have", macro->node->name);
}

mb_value mb_call_macro(struct mb_render *r, const struct mb_macro *macro, const struct mb_arguments *arguments)
{
    struct mb_scope *outer = r->scope;
    mb_value text = {0};
    if (++r->calls > MB_TEMPLATE_DEPTH_MAX)
        return mb_render_fail(r, "macro %s() is called deeper than %d times", macro->node->name,
                              MB_TEMPLATE_DEPTH_MAX);
    struct mb_scope *inner = mb_scope_open(r, macro->scope);
    if (inner) {
        r->scope = inner;
        bind_arguments(r, macro, arguments);
        if (r->rc == MB_OK)
            text = mb_execute_captured(r, macro->node->body);
        r->scope = outer;
    }
    r->calls--;
    return text;
}

/* ---- a whole template ---- */

int mb_template_render(const mb_template *tpl, mb_arena *arena, mb_value variables, size_t input, time_t now,
                       mb_text *out, mb_error *err)
{
    struct mb_scope given = {.variables = variables};
    struct mb_render r = {.tpl = tpl, .arena = arena, .now = now, .err = err, .line = 1};
    mb_text text = {0};
    if (variables.kind != MB_KIND_DICT)
        return mb_no_memory(err, "the chat template %s", tpl->where);
    if (input > SIZE_MAX / 256)
        return mb_fail(err, MB_E_INPUT, "%s: a prompt of %zu bytes is too large", tpl->where, input);
    arena->limit = arena->used + MB_TEMPLATE_MEMORY_MAX + MB_TEMPLATE_COPIES * input;
    r.out_limit = MB_TEMPLATE_OUTPUT_MAX + MB_TEMPLATE_OUTPUT_COPIES * input;
    r.out = &text;
    r.scope = mb_scope_open(&r, &given);
    if (r.scope)
        mb_execute(&r, tpl->body);
    if (r.rc == MB_OK && text.length)
        mb_text_append(out, text.data, text.length);
    if (r.rc == MB_OK && (text.failed || out->failed))
        r.rc = mb_no_memory(err, "the chat template %s", tpl->where);
    mb_text_free(&text);
    return r.rc;
}
