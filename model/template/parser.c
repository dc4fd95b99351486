/*
 * parser.c - the statements of a chat template -> nodes: if, for, set, macro, with, filter, generation, break,
 * continue. Any other is refused by its name.
 */
#include "model/template/syntax.h"

#include <string.h>

typedef struct mb_node *(*statement_parser)(struct mb_parser *p, int line);

static void need_block_end(struct mb_parser *p)
{
    char room[64];
    if (p->rc == MB_OK && p->token->kind != MB_TOKEN_BLOCK_END)
        mb_parse_fail(p, p->token->line, "\"%%}\" is expected, not %s", mb_parse_shown(p->token, room));
    p->token += p->rc == MB_OK;
}

static bool at_end_tag(const struct mb_template_token *token, const char *const ends[])
{
    if (token->kind != MB_TOKEN_BLOCK_BEGIN)
        return false;
    for (int i = 0; ends[i]; i++)
        if (mb_parse_is_name(token + 1, ends[i]))
            return true;
    return false;
}

/* "%}" of the opening tag, the body, "{% endX" up to and with "%}". */
static struct mb_node *parse_body(struct mb_parser *p, const char *end, int line)
{
    const char *const ends[] = {end, NULL};
    need_block_end(p);
    struct mb_node *body = mb_parse_statements(p, ends);
    if (p->rc == MB_OK && p->token->kind == MB_TOKEN_END)
        return mb_parse_fail(p, line, "{%% %s %%} is missing", end);
    if (p->rc == MB_OK) {
        p->token += 2;
        need_block_end(p);
    }
    return body;
}

/* The place at which a statement of a list that was begun goes on: at "{%" + one of the ends. */
static bool need_tag(struct mb_parser *p, const char *what, int line)
{
    if (p->rc == MB_OK && p->token->kind == MB_TOKEN_END)
        mb_parse_fail(p, line, "{%% %s %%} is missing", what);
    return p->rc == MB_OK;
}

static struct mb_node *parse_if(struct mb_parser *p, int line)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct mb_node *first = mb_parse_node(p, MB_NODE_IF, line), *node = first;
    while (node) {
        node->a = mb_parse_tuple(p, false);
        need_block_end(p);
        node->body = mb_parse_statements(p, ends);
        if (!need_tag(p, "endif", line))
            return NULL;
        p->token++;
        int at = p->token->line;
        if (mb_parse_take_name(p, "elif")) {
            node->other = mb_parse_node(p, MB_NODE_IF, at);
            node = node->other;
            if (node)
                node->flag = true; /* no {% if %} in an else */
        } else if (mb_parse_take_name(p, "else")) {
            node->other = parse_body(p, "endif", line);
            return first;
        } else {
            p->token++;
            need_block_end(p);
            return first;
        }
    }
    return NULL;
}

/* name, or name, name, ...; with: "ns.name" alone is allowed. */
static struct mb_node *parse_target(struct mb_parser *p, bool with)
{
    struct mb_node *tuple = NULL, *first = NULL, **end = &first;
    char room[64];
    bool bracket = mb_parse_take_op(p, '(');
    do {
        if (p->token->kind != MB_TOKEN_NAME || mb_parse_is_name(p->token, "in")) {
            if (first)
                break;
            return mb_parse_fail(p, p->token->line, "a variable's name is expected, not %s",
                                 mb_parse_shown(p->token, room));
        }
        struct mb_node *node = mb_parse_node(p, MB_NODE_NAME, p->token->line);
        if (!node)
            return NULL;
        node->name = mb_parse_copy(p, p->token++);
        if (with && !first && mb_parse_take_op(p, '.')) {
            if (p->token->kind != MB_TOKEN_NAME)
                return mb_parse_fail(p, p->token->line, "a name is expected behind \".\"");
            struct mb_node *attribute = mb_parse_node(p, MB_NODE_ATTRIBUTE, node->line);
            if (!attribute)
                return NULL;
            attribute->a = node;
            attribute->name = mb_parse_copy(p, p->token++);
            return attribute;
        }
        *end = node;
        end = &node->next;
    } while (mb_parse_take_op(p, ','));
    if (bracket)
        mb_parse_need_op(p, ')', "\")\"");
    if (!first || !first->next)
        return first;
    tuple = mb_parse_node(p, MB_NODE_TUPLE, first->line);
    if (tuple)
        tuple->items = first;
    return tuple;
}

static struct mb_node *parse_for(struct mb_parser *p, int line)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    char room[64];
    struct mb_node *node = mb_parse_node(p, MB_NODE_FOR, line);
    if (!node)
        return NULL;
    node->a = parse_target(p, false);
    if (p->rc == MB_OK && !mb_parse_take_name(p, "in"))
        return mb_parse_fail(p, line, "\"in\" is expected in {%% for %%}, not %s", mb_parse_shown(p->token, room));
    node->b = mb_parse_tuple(p, false);
    if (mb_parse_take_name(p, "if"))
        node->c = mb_parse_expression(p);
    if (p->rc == MB_OK && mb_parse_is_name(p->token, "recursive"))
        return mb_parse_fail(p, line, "{%% for ... recursive %%} is not supported");
    need_block_end(p);
    p->loops++;
    node->body = mb_parse_statements(p, ends);
    p->loops--;
    if (!need_tag(p, "endfor", line))
        return NULL;
    p->token++;
    if (mb_parse_take_name(p, "else")) {
        node->other = parse_body(p, "endfor", line);
        return node;
    }
    p->token++;
    need_block_end(p);
    return node;
}

static struct mb_node *parse_set(struct mb_parser *p, int line)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_SET, line);
    if (!node)
        return NULL;
    node->a = parse_target(p, true);
    if (mb_parse_take_op(p, '=')) {
        node->b = mb_parse_tuple(p, true);
        need_block_end(p);
        return node;
    }
    node->flag = true;
    node->c = mb_parse_filters(p, NULL, false);
    node->body = parse_body(p, "endset", line);
    return node;
}

static struct mb_node *parse_macro(struct mb_parser *p, int line)
{
    char room[64];
    struct mb_node *node = mb_parse_node(p, MB_NODE_MACRO, line), **end = node ? &node->items : NULL;
    const int loops = p->loops;
    if (!node)
        return NULL;
    if (p->token->kind != MB_TOKEN_NAME)
        return mb_parse_fail(p, line, "a macro's name is expected, not %s", mb_parse_shown(p->token, room));
    node->name = mb_parse_copy(p, p->token++);
    mb_parse_need_op(p, '(', "\"(\"");
    while (p->rc == MB_OK && !mb_parse_take_op(p, ')')) {
        if (node->items)
            mb_parse_need_op(p, ',', "\",\" or \")\"");
        struct mb_node *argument = mb_parse_node(p, MB_NODE_ARGUMENT, p->token->line);
        if (!argument || p->token->kind != MB_TOKEN_NAME)
            return mb_parse_fail(p, line, "an argument's name is expected, not %s",
                                 mb_parse_shown(p->token, room));
        argument->name = mb_parse_copy(p, p->token++);
        if (mb_parse_take_op(p, '='))
            argument->a = mb_parse_expression(p);
        *end = argument;
        end = &argument->next;
    }
    p->loops = 0;
    node->body = parse_body(p, "endmacro", line);
    p->loops = loops;
    return node;
}

static struct mb_node *parse_with(struct mb_parser *p, int line)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_WITH, line), **end = node ? &node->items : NULL;
    while (p->rc == MB_OK && p->token->kind != MB_TOKEN_BLOCK_END) {
        if (node->items)
            mb_parse_need_op(p, ',', "\",\"");
        struct mb_node *target = parse_target(p, false);
        mb_parse_need_op(p, '=', "\"=\"");
        struct mb_node *value = p->rc == MB_OK ? mb_parse_expression(p) : NULL;
        if (!target || !value)
            return NULL;
        *end = target;
        target->next = value;
        end = &value->next;
    }
    if (node)
        node->body = parse_body(p, "endwith", line);
    return node;
}

/* Its marks serve training only; like every block of a call it has variables of its own. */
static struct mb_node *parse_generation(struct mb_parser *p, int line)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_WITH, line);
    const int loops = p->loops;
    p->loops = 0;
    if (node)
        node->body = parse_body(p, "endgeneration", line);
    p->loops = loops;
    return node;
}

static struct mb_node *parse_filter_block(struct mb_parser *p, int line)
{
    struct mb_node *node = mb_parse_node(p, MB_NODE_FILTER_BLOCK, line);
    if (node) {
        node->a = mb_parse_filters(p, NULL, true);
        node->body = parse_body(p, "endfilter", line);
    }
    return node;
}

static struct mb_node *parse_jump(struct mb_parser *p, int line, mb_node_kind kind, const char *name)
{
    if (p->loops == 0)
        return mb_parse_fail(p, line, "{%% %s %%} stands outside of a loop", name);
    need_block_end(p);
    return mb_parse_node(p, kind, line);
}

static struct mb_node *parse_break(struct mb_parser *p, int line)
{
    return parse_jump(p, line, MB_NODE_BREAK, "break");
}

static struct mb_node *parse_continue(struct mb_parser *p, int line)
{
    return parse_jump(p, line, MB_NODE_CONTINUE, "continue");
}

/* One {% %}, its opening mark taken. */
static struct mb_node *parse_statement(struct mb_parser *p)
{
    static const struct {
        const char *name;
        statement_parser parse;
    } known[] = {{"if", parse_if},
                 {"for", parse_for},
                 {"set", parse_set},
                 {"macro", parse_macro},
                 {"with", parse_with},
                 {"filter", parse_filter_block},
                 {"generation", parse_generation},
                 {"break", parse_break},
                 {"continue", parse_continue}};
    char room[64];
    const int line = p->token->line;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (mb_parse_take_name(p, known[i].name))
            return known[i].parse(p, line);
    return mb_parse_fail(p, line, "{%% %s %%} is not supported", mb_parse_shown(p->token, room));
}

/* {{ }}, {% %} or text at this place. */
static struct mb_node *parse_one(struct mb_parser *p)
{
    char room[64];
    const struct mb_template_token *token = p->token++;
    struct mb_node *node = NULL;
    switch (token->kind) {
    case MB_TOKEN_DATA:
        node = mb_parse_node(p, MB_NODE_DATA, token->line);
        if (node)
            node->value = mb_value_text(token->text, token->length);
        return node;
    case MB_TOKEN_VARIABLE_BEGIN:
        node = mb_parse_node(p, MB_NODE_OUTPUT, token->line);
        if (!node)
            return NULL;
        node->a = mb_parse_tuple(p, true);
        if (p->rc == MB_OK && p->token->kind != MB_TOKEN_VARIABLE_END)
            return mb_parse_fail(p, p->token->line, "\"}}\" is expected, not %s", mb_parse_shown(p->token, room));
        p->token += p->rc == MB_OK;
        return node;
    case MB_TOKEN_BLOCK_BEGIN:
        return parse_statement(p);
    default:
        return mb_parse_fail(p, token->line, "%s is not expected here", mb_parse_shown(token, room));
    }
}

struct mb_node *mb_parse_statements(struct mb_parser *p, const char *const ends[])
{
    struct mb_node *first = NULL, **end = &first;
    if (++p->depth > MB_TEMPLATE_DEPTH_MAX)
        return mb_parse_fail(p, p->token->line, "statements are nested deeper than %d", MB_TEMPLATE_DEPTH_MAX);
    while (p->rc == MB_OK && p->token->kind != MB_TOKEN_END && !at_end_tag(p->token, ends)) {
        struct mb_node *node = parse_one(p);
        if (!node)
            break;
        *end = node;
        end = &node->next;
    }
    p->depth--;
    return first;
}

/* ---- a whole template ---- */

int mb_template_open(mb_template **out, const char *source, size_t size, const char *where, mb_error *err)
{
    static const char *const ends[] = {NULL};
    *out = NULL;
    if (size > MB_TEMPLATE_SOURCE_MAX)
        return mb_fail(err, MB_E_INPUT, "%s: a chat template of %zu bytes is larger than %d", where, size,
                       MB_TEMPLATE_SOURCE_MAX);
    mb_arena arena = {.limit = (size_t)MB_TEMPLATE_MEMORY_MAX + 64 * size};
    mb_template *tpl = mb_arena_take(&arena, sizeof *tpl);
    char *name = mb_arena_take(&arena, strlen(where) + 1);
    if (!tpl || !name) {
        mb_arena_free(&arena);
        return mb_no_memory(err, "the chat template %s", where);
    }
    memcpy(name, where, strlen(where));
    tpl->where = name;
    int rc = mb_template_lex(&arena, source, size, name, &tpl->tokens, err);
    if (rc == MB_OK) {
        struct mb_parser p = {.arena = &arena, .token = tpl->tokens.items, .where = name, .err = err};
        tpl->body = mb_parse_statements(&p, ends);
        if (p.rc == MB_OK && p.token->kind != MB_TOKEN_END)
            mb_parse_fail(&p, p.token->line, "an end tag without a beginning");
        rc = p.rc;
    }
    if (rc != MB_OK) {
        mb_arena_free(&arena);
        return rc;
    }
    tpl->arena = arena;
    *out = tpl;
    return MB_OK;
}

void mb_template_close(mb_template *tpl)
{
    if (tpl) {
        mb_arena arena = tpl->arena; /* tpl itself lies in it */
        mb_arena_free(&arena);
    }
}

bool mb_template_uses(const mb_template *tpl, const char *name)
{
    for (size_t i = 0; i < tpl->tokens.count; i++)
        if (mb_parse_is_name(&tpl->tokens.items[i], name))
            return true;
    return false;
}
