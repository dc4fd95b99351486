/*
 * syntax.h - tokens and the tree of a chat template: lexer.c makes the tokens, expression.c and parser.c the tree,
 * which evaluate.c and execute.c walk. Internal to model/template/.
 *
 * Every node knows its line, so that an error while rendering names the place in the template.
 */
#ifndef MB_MODEL_TEMPLATE_SYNTAX_H
#define MB_MODEL_TEMPLATE_SYNTAX_H

#include "model/template/template.h"

typedef enum mb_token_kind {
    MB_TOKEN_END = 0,
    MB_TOKEN_DATA,
    MB_TOKEN_VARIABLE_BEGIN,
    MB_TOKEN_VARIABLE_END,
    MB_TOKEN_BLOCK_BEGIN,
    MB_TOKEN_BLOCK_END,
    MB_TOKEN_NAME,
    MB_TOKEN_STRING,
    MB_TOKEN_INTEGER,
    MB_TOKEN_REAL,
    MB_TOKEN_OPERATOR
} mb_token_kind;

/* Operators of two characters are named by one letter; the others by themselves. */
enum { MB_OP_EQ = 'e', MB_OP_NE = 'n', MB_OP_LE = 'l', MB_OP_GE = 'g', MB_OP_FLOOR = 'd', MB_OP_POWER = 'p' };

struct mb_template_token {
    mb_token_kind kind;
    int op; /* of an operator */
    int line;
    const char *text; /* data, name, decoded string, digits without '_' */
    size_t length;
};

struct mb_token_list {
    struct mb_template_token *items;
    size_t count, capacity;
};

/* Tokens end with MB_TOKEN_END. Their texts lie in the arena. */
int mb_template_lex(mb_arena *arena, const char *source, size_t size, const char *where,
                    struct mb_token_list *tokens, mb_error *err);

typedef enum mb_node_kind {
    /* expressions */
    MB_NODE_CONSTANT,  /* value */
    MB_NODE_NAME,      /* name */
    MB_NODE_LIST,      /* items */
    MB_NODE_TUPLE,     /* items */
    MB_NODE_DICT,      /* items: key, value, key, value, ... */
    MB_NODE_ATTRIBUTE, /* a.name */
    MB_NODE_ITEM,      /* a[b] */
    MB_NODE_SLICE,     /* a[b:c:d] */
    MB_NODE_CALL,      /* a(items) */
    MB_NODE_FILTER,    /* a | name(items); a NULL: of a block */
    MB_NODE_TEST,      /* a is name items; flag: not */
    MB_NODE_UNARY,     /* op a; 'n': not */
    MB_NODE_BINARY,    /* a op b */
    MB_NODE_AND,
    MB_NODE_OR,
    MB_NODE_COMPARE, /* a, then items: one node each, op and operand a; op 'i', 'o': in, not in */
    MB_NODE_COMPARISON,
    MB_NODE_CONDITION, /* a if b else c (NULL) */
    MB_NODE_ARGUMENT,  /* name = a in a call or a macro's head; name NULL: by place */
    /* statements */
    MB_NODE_OUTPUT,       /* {{ a }} */
    MB_NODE_DATA,         /* value */
    MB_NODE_IF,           /* a; body; other: list of statements */
    MB_NODE_FOR,          /* for a in b if c; body; other */
    MB_NODE_SET,          /* set a = b, or a block: body, c: filters */
    MB_NODE_MACRO,        /* name; items: arguments; body */
    MB_NODE_WITH,         /* items: targets and values by turns; body. Also {% generation %} */
    MB_NODE_FILTER_BLOCK, /* a: filters; body */
    MB_NODE_BREAK,
    MB_NODE_CONTINUE
} mb_node_kind;

struct mb_node {
    mb_node_kind kind;
    int op, line;
    bool flag;
    const char *name; /* NUL-terminated */
    mb_value value;
    struct mb_node *a, *b, *c, *d;
    struct mb_node *items; /* a list by `next` */
    struct mb_node *body, *other;
    struct mb_node *next;
};

struct mb_template {
    mb_arena arena;
    const char *where;
    struct mb_node *body;
    struct mb_token_list tokens; /* kept: they say which names the template uses */
};

/* ---- parsing ---- */

struct mb_parser {
    mb_arena *arena;
    const struct mb_template_token *token;
    const char *where;
    mb_error *err;
    int rc, depth, loops; /* loops: around the place, within the macro */
};

/* Sets rc and the error with the token's line; returns NULL. Only the first counts. */
struct mb_node *mb_parse_fail(struct mb_parser *p, int line, const char *format, ...) MB_PRINTF(3, 4);
struct mb_node *mb_parse_node(struct mb_parser *p, mb_node_kind kind, int line);
const char *mb_parse_copy(struct mb_parser *p, const struct mb_template_token *token);
bool mb_parse_is_name(const struct mb_template_token *token, const char *name);
bool mb_parse_is_op(const struct mb_template_token *token, int op);
bool mb_parse_take_op(struct mb_parser *p, int op);
bool mb_parse_take_name(struct mb_parser *p, const char *name);
void mb_parse_need_op(struct mb_parser *p, int op, const char *what);
/* What stands at the place, for an error. */
const char *mb_parse_shown(const struct mb_template_token *token, char room[64]);
struct mb_node *mb_parse_expression(struct mb_parser *p);
/* One expression, or a tuple of several; whole: "a if b else c" is allowed in it. */
struct mb_node *mb_parse_tuple(struct mb_parser *p, bool whole);
/* What stands between a call's parentheses, the opening one taken. */
struct mb_node *mb_parse_arguments(struct mb_parser *p);
/* | name(...) ..., at a name, with `inner` as what is filtered. */
struct mb_node *mb_parse_filters(struct mb_parser *p, struct mb_node *inner, bool started);
struct mb_node *mb_parse_statements(struct mb_parser *p, const char *const ends[]);

#endif
