/*
 * expression.c - the expressions of a chat template -> nodes, with Jinja's order of operators (3.1, parser):
 * if/else, or, and, not, comparisons, + -, ~, * / // %, **, unary signs, then calls, filters and tests.
 */
#include "model/template/syntax.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mb_node *parse_unary(struct mb_parser *p, bool filters);
static struct mb_node *parse_or(struct mb_parser *p);

struct mb_node *mb_parse_fail(struct mb_parser *p, int line, const char *format, ...)
{
    if (p->rc == MB_OK) {
        va_list args;
        va_start(args, format);
        char text[256];
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        p->rc = mb_fail(p->err, MB_E_INPUT, "%s: line %d: %s", p->where, line, text);
    }
    return NULL;
}

struct mb_node *mb_parse_node(struct mb_parser *p, mb_node_kind kind, int line)
{
    struct mb_node *node = p->rc == MB_OK ? mb_arena_take(p->arena, sizeof *node) : NULL;
    if (!node) {
        if (p->rc == MB_OK)
            p->rc = mb_no_memory(p->err, "the chat template %s", p->where);
        return NULL;
    }
    node->kind = kind;
    node->line = line;
    return node;
}

const char *mb_parse_copy(struct mb_parser *p, const struct mb_template_token *token)
{
    char *copy = mb_arena_take(p->arena, token->length + 1);
    if (!copy) {
        if (p->rc == MB_OK)
            p->rc = mb_no_memory(p->err, "the chat template %s", p->where);
        return "";
    }
    if (token->length)
        memcpy(copy, token->text, token->length);
    return copy;
}

bool mb_parse_is_name(const struct mb_template_token *token, const char *name)
{
    return token->kind == MB_TOKEN_NAME && token->length == strlen(name) &&
           memcmp(token->text, name, token->length) == 0;
}

bool mb_parse_is_op(const struct mb_template_token *token, int op)
{
    return token->kind == MB_TOKEN_OPERATOR && token->op == op;
}

bool mb_parse_take_op(struct mb_parser *p, int op)
{
    bool found = p->rc == MB_OK && mb_parse_is_op(p->token, op);
    p->token += found;
    return found;
}

bool mb_parse_take_name(struct mb_parser *p, const char *name)
{
    bool found = p->rc == MB_OK && mb_parse_is_name(p->token, name);
    p->token += found;
    return found;
}

const char *mb_parse_shown(const struct mb_template_token *token, char room[64])
{
    switch (token->kind) {
    case MB_TOKEN_END:
        return "the end of the template";
    case MB_TOKEN_DATA:
        return "text";
    case MB_TOKEN_VARIABLE_BEGIN:
        return "{{";
    case MB_TOKEN_VARIABLE_END:
        return "}}";
    case MB_TOKEN_BLOCK_BEGIN:
        return "{%";
    case MB_TOKEN_BLOCK_END:
        return "%}";
    default:
        break;
    }
    snprintf(room, 64, token->kind == MB_TOKEN_STRING ? "\"%.*s\"" : "%.*s",
             (int)(token->length < 50 ? token->length : 50), token->text ? token->text : "");
    return room;
}

void mb_parse_need_op(struct mb_parser *p, int op, const char *what)
{
    char room[64];
    if (!mb_parse_take_op(p, op))
        mb_parse_fail(p, p->token->line, "%s is expected, not %s", what, mb_parse_shown(p->token, room));
}

/* Appends to a list whose last link is at *end. */
static void append(struct mb_node ***end, struct mb_node *node)
{
    if (node) {
        **end = node;
        *end = &node->next;
    }
}

/* ---- the smallest parts ---- */

static struct mb_node *parse_number(struct mb_parser *p)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_CONSTANT, p->token->line);
    if (!node)
        return NULL;
    errno = 0;
    if (p->token->kind == MB_TOKEN_INTEGER) {
        node->value = mb_value_int(strtoll(p->token->text, NULL, 10));
        if (errno)
            return mb_parse_fail(p, p->token->line, "the number %.40s is too large", p->token->text);
    } else
        node->value = (mb_value){.kind = MB_KIND_REAL, .real = strtod(p->token->text, NULL)};
    p->token++;
    return node;
}

/* Strings that stand side by side are one. */
static struct mb_node *parse_string(struct mb_parser *p)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_CONSTANT, p->token->line);
    size_t length = 0, at = 0;
    const struct mb_template_token *token = p->token;
    for (; token->kind == MB_TOKEN_STRING; token++)
        length += token->length;
    char *text = node ? mb_arena_take(p->arena, length + 1) : NULL;
    if (!text) {
        if (p->rc == MB_OK)
            p->rc = mb_no_memory(p->err, "the chat template %s", p->where);
        return NULL;
    }
    for (; p->token < token; p->token++) {
        if (p->token->length)
            memcpy(text + at, p->token->text, p->token->length);
        at += p->token->length;
    }
    node->value = mb_value_text(text, length);
    return node;
}

static struct mb_node *parse_name(struct mb_parser *p)
{
    static const struct {
        const char *name;
        mb_value value;
    } constants[] = {{"true", {.kind = MB_KIND_BOOL, .boolean = true}},
                     {"True", {.kind = MB_KIND_BOOL, .boolean = true}},
                     {"false", {.kind = MB_KIND_BOOL}},
                     {"False", {.kind = MB_KIND_BOOL}},
                     {"none", {.kind = MB_KIND_NONE}},
                     {"None", {.kind = MB_KIND_NONE}}};
    struct mb_node *node = mb_parse_node(p, MB_NODE_NAME, p->token->line);
    if (!node)
        return NULL;
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (mb_parse_is_name(p->token, constants[i].name)) {
            node->kind = MB_NODE_CONSTANT;
            node->value = constants[i].value;
        }
    node->name = mb_parse_copy(p, p->token);
    p->token++;
    return node;
}

/* Items up to `close`, a comma may stand behind the last. */
static struct mb_node *parse_items(struct mb_parser *p, mb_node_kind kind, int close)
{
    struct mb_node *node = mb_parse_node(p, kind, p->token->line), **end = node ? &node->items : NULL;
    while (p->rc == MB_OK && !mb_parse_take_op(p, close)) {
        if (node->items)
            mb_parse_need_op(p, ',', "\",\"");
        if (mb_parse_take_op(p, close))
            break;
        append(&end, mb_parse_expression(p));
        if (kind == MB_NODE_DICT) {
            mb_parse_need_op(p, ':', "\":\"");
            append(&end, mb_parse_expression(p));
        }
    }
    return node;
}

/* ( ): an expression, or a tuple when a comma or nothing stands in it. */
static struct mb_node *parse_parentheses(struct mb_parser *p)
{
    int line = p->token->line;
    if (mb_parse_take_op(p, ')'))
        return mb_parse_node(p, MB_NODE_TUPLE, line);
    struct mb_node *node = mb_parse_tuple(p, true);
    mb_parse_need_op(p, ')', "\")\"");
    return node;
}

static struct mb_node *parse_primary(struct mb_parser *p)
{
    char room[64];
    switch (p->token->kind) {
    case MB_TOKEN_NAME:
        return parse_name(p);
    case MB_TOKEN_STRING:
        return parse_string(p);
    case MB_TOKEN_INTEGER:
    case MB_TOKEN_REAL:
        return parse_number(p);
    default:
        break;
    }
    if (mb_parse_take_op(p, '('))
        return parse_parentheses(p);
    if (mb_parse_take_op(p, '['))
        return parse_items(p, MB_NODE_LIST, ']');
    if (mb_parse_take_op(p, '{'))
        return parse_items(p, MB_NODE_DICT, '}');
    return mb_parse_fail(p, p->token->line, "an expression is expected, not %s", mb_parse_shown(p->token, room));
}

/* ---- what follows a value ---- */

struct mb_node *mb_parse_arguments(struct mb_parser *p)
{
    struct mb_node *first = NULL, **end = &first;
    bool named = false;
    while (p->rc == MB_OK && !mb_parse_take_op(p, ')')) {
        if (first)
            mb_parse_need_op(p, ',', "\",\" or \")\"");
        if (mb_parse_take_op(p, ')'))
            break;
        if (mb_parse_is_op(p->token, '*') || mb_parse_is_op(p->token, MB_OP_POWER))
            return mb_parse_fail(p, p->token->line, "*arguments and **arguments are not supported");
        struct mb_node *argument = mb_parse_node(p, MB_NODE_ARGUMENT, p->token->line);
        if (argument && p->token->kind == MB_TOKEN_NAME && mb_parse_is_op(p->token + 1, '=')) {
            argument->name = mb_parse_copy(p, p->token);
            p->token += 2;
            named = true;
        } else if (named)
            return mb_parse_fail(p, p->token->line, "an argument without a name stands behind one with a name");
        if (argument)
            argument->a = mb_parse_expression(p);
        append(&end, argument);
    }
    return first;
}

/* a[b], a[b:c:d]; behind the bracket. */
static struct mb_node *parse_item(struct mb_parser *p, struct mb_node *inner)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_ITEM, p->token->line);
    if (!node)
        return NULL;
    node->a = inner;
    struct mb_node **parts[] = {&node->b, &node->c, &node->d};
    for (int i = 0; i < 3 && p->rc == MB_OK; i++) {
        if (!mb_parse_is_op(p->token, ':') && !mb_parse_is_op(p->token, ']'))
            *parts[i] = mb_parse_expression(p);
        if (!mb_parse_take_op(p, ':'))
            break;
        node->kind = MB_NODE_SLICE;
    }
    if (node->kind == MB_NODE_ITEM && !node->b)
        return mb_parse_fail(p, node->line, "an index is missing in [ ]");
    mb_parse_need_op(p, ']', "\"]\"");
    return node;
}

static struct mb_node *parse_attribute(struct mb_parser *p, struct mb_node *inner)
{
    char room[64];
    struct mb_node *node = mb_parse_node(p, MB_NODE_ATTRIBUTE, p->token->line);
    if (!node)
        return NULL;
    node->a = inner;
    if (p->token->kind == MB_TOKEN_INTEGER) {
        node->kind = MB_NODE_ITEM;
        node->b = parse_number(p);
        return node;
    }
    if (p->token->kind != MB_TOKEN_NAME)
        return mb_parse_fail(p, p->token->line, "a name is expected behind \".\", not %s",
                             mb_parse_shown(p->token, room));
    node->name = mb_parse_copy(p, p->token++);
    return node;
}

static struct mb_node *parse_call(struct mb_parser *p, struct mb_node *inner)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_CALL, p->token->line);
    if (node) {
        node->a = inner;
        node->items = mb_parse_arguments(p);
    }
    return node;
}

static struct mb_node *parse_postfix(struct mb_parser *p, struct mb_node *node)
{
    while (p->rc == MB_OK) {
        if (mb_parse_take_op(p, '.'))
            node = parse_attribute(p, node);
        else if (mb_parse_take_op(p, '['))
            node = parse_item(p, node);
        else if (mb_parse_take_op(p, '('))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

struct mb_node *mb_parse_filters(struct mb_parser *p, struct mb_node *inner, bool started)
{
    char room[64];
    while (p->rc == MB_OK && (started || mb_parse_take_op(p, '|'))) {
        struct mb_node *node = mb_parse_node(p, MB_NODE_FILTER, p->token->line);
        started = false;
        if (!node)
            return NULL;
        if (p->token->kind != MB_TOKEN_NAME)
            return mb_parse_fail(p, p->token->line, "a filter's name is expected, not %s",
                                 mb_parse_shown(p->token, room));
        node->name = mb_parse_copy(p, p->token++);
        node->a = inner;
        if (mb_parse_take_op(p, '('))
            node->items = mb_parse_arguments(p);
        inner = node;
    }
    return inner;
}

/* Whether the argument of a test stands here without parentheses. */
static bool starts_argument(const struct mb_template_token *token)
{
    if (token->kind == MB_TOKEN_NAME)
        return !mb_parse_is_name(token, "else") && !mb_parse_is_name(token, "or") &&
               !mb_parse_is_name(token, "and") && !mb_parse_is_name(token, "if");
    return token->kind == MB_TOKEN_STRING || token->kind == MB_TOKEN_INTEGER || token->kind == MB_TOKEN_REAL ||
           mb_parse_is_op(token, '[') || mb_parse_is_op(token, '{');
}

/* a is [not] name [argument]; behind "is". */
static struct mb_node *parse_test(struct mb_parser *p, struct mb_node *inner)
{
    char room[64];
    struct mb_node *node = mb_parse_node(p, MB_NODE_TEST, p->token->line);
    if (!node)
        return NULL;
    node->a = inner;
    node->flag = mb_parse_take_name(p, "not");
    if (p->token->kind != MB_TOKEN_NAME)
        return mb_parse_fail(p, p->token->line, "a test's name is expected, not %s",
                             mb_parse_shown(p->token, room));
    node->name = mb_parse_copy(p, p->token++);
    if (mb_parse_take_op(p, '('))
        node->items = mb_parse_arguments(p);
    else if (mb_parse_is_name(p->token, "is"))
        return mb_parse_fail(p, p->token->line, "tests cannot be chained with \"is\"");
    else if (starts_argument(p->token)) {
        node->items = mb_parse_node(p, MB_NODE_ARGUMENT, p->token->line);
        struct mb_node *argument = node->items ? parse_postfix(p, parse_primary(p)) : NULL;
        if (node->items)
            node->items->a = argument;
    }
    return node;
}

/* Filters, tests and calls on what they give. */
static struct mb_node *parse_filters_and_tests(struct mb_parser *p, struct mb_node *node)
{
    while (p->rc == MB_OK) {
        if (mb_parse_is_op(p->token, '|'))
            node = mb_parse_filters(p, node, false);
        else if (mb_parse_take_name(p, "is"))
            node = parse_test(p, node);
        else if (mb_parse_take_op(p, '('))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

/* ---- operators, from the strongest on ---- */

static struct mb_node *unary(struct mb_parser *p, int op, int line, struct mb_node *operand)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_UNARY, line);
    if (node) {
        node->op = op;
        node->a = operand;
    }
    return node;
}

static struct mb_node *parse_unary(struct mb_parser *p, bool filters)
{
    int line = p->token->line, op = mb_parse_take_op(p, '-') ? '-' : mb_parse_take_op(p, '+') ? '+' : 0;
    struct mb_node *node;
    if (++p->depth > MB_TEMPLATE_DEPTH_MAX)
        mb_parse_fail(p, line, "expressions are nested deeper than %d", MB_TEMPLATE_DEPTH_MAX);
    if (p->rc != MB_OK)
        return NULL;
    node = op ? unary(p, op, line, parse_unary(p, false)) : parse_primary(p);
    node = parse_postfix(p, node);
    if (filters)
        node = parse_filters_and_tests(p, node);
    p->depth--;
    return node;
}

/* A row of operators of one rank, from left to right. */
static struct mb_node *parse_row(struct mb_parser *p, int rank)
{
    static const int ranks[4][5] = {{'+', '-', 0}, {'~', 0}, {'*', '/', MB_OP_FLOOR, '%', 0}, {MB_OP_POWER, 0}};
    if (rank == 4)
        return parse_unary(p, true);
    struct mb_node *left = parse_row(p, rank + 1);
    while (p->rc == MB_OK) {
        int op = 0, line = p->token->line;
        for (int i = 0; ranks[rank][i] && !op; i++)
            op = mb_parse_take_op(p, ranks[rank][i]) ? ranks[rank][i] : 0;
        if (!op)
            break;
        struct mb_node *node = mb_parse_node(p, MB_NODE_BINARY, line);
        if (!node)
            return NULL;
        node->op = op;
        node->a = left;
        node->b = parse_row(p, rank + 1);
        left = node;
    }
    return left;
}

/* The comparison operator at this place, taken; 0 = none. 'i': in, 'o': not in. */
static int take_comparison(struct mb_parser *p)
{
    static const int plain[] = {MB_OP_EQ, MB_OP_NE, MB_OP_LE, MB_OP_GE, '<', '>'};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (mb_parse_take_op(p, plain[i]))
            return plain[i];
    if (mb_parse_take_name(p, "in"))
        return 'i';
    if (p->rc == MB_OK && mb_parse_is_name(p->token, "not") && mb_parse_is_name(p->token + 1, "in")) {
        p->token += 2;
        return 'o';
    }
    return 0;
}

static struct mb_node *parse_compare(struct mb_parser *p)
{
    struct mb_node *left = parse_row(p, 0), *node = NULL, **end = NULL;
    while (p->rc == MB_OK) {
        int line = p->token->line, op = take_comparison(p);
        if (!op)
            break;
        if (!node && (node = mb_parse_node(p, MB_NODE_COMPARE, line))) {
            node->a = left;
            end = &node->items;
        }
        struct mb_node *item = mb_parse_node(p, MB_NODE_COMPARISON, line);
        if (!node || !item)
            return NULL;
        item->op = op;
        item->a = parse_row(p, 0);
        append(&end, item);
    }
    return node ? node : left;
}

static struct mb_node *parse_not(struct mb_parser *p)
{
    int line = p->token->line, count = 0;
    while (mb_parse_take_name(p, "not"))
        count++;
    struct mb_node *node = parse_compare(p);
    if (count > MB_TEMPLATE_DEPTH_MAX)
        return mb_parse_fail(p, line, "expressions are nested deeper than %d", MB_TEMPLATE_DEPTH_MAX);
    while (count-- > 0)
        node = unary(p, 'n', line, node);
    return node;
}

static struct mb_node *join(struct mb_parser *p, mb_node_kind kind, int line, struct mb_node *a, struct mb_node *b)
{
    struct mb_node *node = mb_parse_node(p, kind, line);
    if (node) {
        node->a = a;
        node->b = b;
    }
    return node;
}

static struct mb_node *parse_and(struct mb_parser *p)
{
    struct mb_node *left = parse_not(p);
    int line = p->token->line;
    while (mb_parse_take_name(p, "and"))
        left = join(p, MB_NODE_AND, line, left, parse_not(p));
    return left;
}

static struct mb_node *parse_or(struct mb_parser *p)
{
    struct mb_node *left = parse_and(p);
    int line = p->token->line;
    while (mb_parse_take_name(p, "or"))
        left = join(p, MB_NODE_OR, line, left, parse_and(p));
    return left;
}

struct mb_node *mb_parse_expression(struct mb_parser *p)
{
    struct mb_node *node = parse_or(p);
    int line = p->token->line, rounds = 0;
    while (mb_parse_take_name(p, "if")) {
        struct mb_node *condition = mb_parse_node(p, MB_NODE_CONDITION, line);
        if (!condition)
            return NULL;
        condition->a = node;
        condition->b = parse_or(p);
        if (mb_parse_take_name(p, "else")) {
            if (++p->depth > MB_TEMPLATE_DEPTH_MAX || ++rounds > MB_TEMPLATE_DEPTH_MAX)
                mb_parse_fail(p, line, "expressions are nested deeper than %d", MB_TEMPLATE_DEPTH_MAX);
            condition->c = p->rc == MB_OK ? mb_parse_expression(p) : NULL;
            p->depth--;
        }
        node = condition;
    }
    return node;
}

struct mb_node *mb_parse_tuple(struct mb_parser *p, bool whole)
{
    struct mb_node *first = whole ? mb_parse_expression(p) : parse_or(p);
    if (p->rc != MB_OK || !mb_parse_is_op(p->token, ','))
        return first;
    struct mb_node *node = mb_parse_node(p, MB_NODE_TUPLE, p->token->line), **end = node ? &node->items : NULL;
    if (!node)
        return NULL;
    append(&end, first);
    while (mb_parse_take_op(p, ',')) {
        if (p->token->kind == MB_TOKEN_VARIABLE_END || p->token->kind == MB_TOKEN_BLOCK_END ||
            mb_parse_is_op(p->token, ')') || mb_parse_is_name(p->token, "in"))
            break;
        append(&end, whole ? mb_parse_expression(p) : parse_or(p));
    }
    return node;
}
