/*
 * value.h - the state of one rendering, and what can be done with values: truth, comparison, printing as Python
 * prints, text by characters. Internal to model/template/.
 *
 * A function that fails sets render.rc and the error once and returns UNDEFINED (or false, 0); callers look at
 * render.rc before they use what they got.
 */
#ifndef MB_MODEL_TEMPLATE_VALUE_H
#define MB_MODEL_TEMPLATE_VALUE_H

#include "model/template/syntax.h"

/* Variables of one region of the template; looked up inside out. */
struct mb_scope {
    mb_value variables; /* dict */
    struct mb_scope *outer;
};

struct mb_macro {
    const struct mb_node *node;
    struct mb_scope *scope; /* where it was defined */
};

struct mb_loop {
    const struct mb_list *list;
    size_t index;
    int depth;
};

enum mb_jump { MB_GO_ON = 0, MB_JUMP_BREAK, MB_JUMP_CONTINUE };

struct mb_render {
    const struct mb_template *tpl;
    mb_arena *arena;
    mb_text *out; /* of the region that is rendered: the whole, or a macro's, a block's */
    size_t out_limit;
    struct mb_scope *scope;
    time_t now;
    uint64_t steps;
    int line, depth, calls;
    enum mb_jump jump;
    int rc;
    mb_error *err;
};

/* Arguments of a call, filter or test. */
#define MB_ARGUMENTS_MAX 16
struct mb_arguments {
    mb_value values[MB_ARGUMENTS_MAX];
    const char *names[MB_ARGUMENTS_MAX]; /* NULL: by place */
    size_t count;
};

mb_value mb_render_fail(struct mb_render *r, const char *format, ...) MB_PRINTF(2, 3);
mb_value mb_render_no_memory(struct mb_render *r);
/* Counts work; false when the bound is passed. */
bool mb_render_work(struct mb_render *r, uint64_t steps);

/* The argument by place or name; NULL = not given. */
const mb_value *mb_argument(const struct mb_arguments *arguments, size_t place, const char *name);
/* Refuses arguments beyond `most` places and of names other than these (NULL-terminated). */
bool mb_arguments_check(struct mb_render *r, const struct mb_arguments *arguments, const char *what, size_t most,
                        const char *const names[]);

const char *mb_value_kind_name(mb_value value); /* Python's: "str", "int", "list", ... */
bool mb_value_true(struct mb_render *r, mb_value value);
bool mb_value_equal(struct mb_render *r, mb_value a, mb_value b);
/* a < b, a <= b, ... as op says ('<', '>', MB_OP_LE, MB_OP_GE). */
bool mb_value_ordered(struct mb_render *r, int op, mb_value a, mb_value b);
/* item in container. */
bool mb_value_in(struct mb_render *r, mb_value item, mb_value container);
/* What a loop goes over: a list; text gives its characters, a dict its keys, undefined nothing. */
const struct mb_list *mb_value_items(struct mb_render *r, mb_value value);
int64_t mb_value_length(struct mb_render *r, mb_value value);
bool mb_value_is_number(mb_value value); /* int, float or bool */
double mb_value_real(mb_value number);
bool mb_value_numbers_equal(mb_value a, mb_value b); /* 1, 1.0 and true are equal, as in Python */

/* str(value): appends it. */
void mb_value_print(struct mb_render *r, mb_text *out, mb_value value);
/* str(value) as a value. */
mb_value mb_value_as_text(struct mb_render *r, mb_value value);
void mb_real_print(mb_text *out, double value); /* as Python's repr */
/* Takes the growing text as a value and frees it. */
mb_value mb_value_take(struct mb_render *r, mb_text *text);

/* ---- text (text.c) ---- */
size_t mb_text_characters(const char *text, size_t length);
/* Byte offset of the n-th character, at most length. */
size_t mb_text_offset(const char *text, size_t length, size_t n);
/* Python's str.isspace() for one character. */
bool mb_is_space(uint32_t c);
/* strip, lstrip, rstrip: sides 1 = left, 2 = right, 3 = both; set: characters to take, NULL = white space. */
mb_value mb_text_strip(mb_value text, int sides, const mb_value *set);
mb_value mb_text_replace(struct mb_render *r, mb_value text, mb_value old, mb_value put, int64_t most);
/* way: 'u' upper, 'l' lower, 'c' capitalize, 't' title as the filter does, 'T' as the method does. */
mb_value mb_text_case(struct mb_render *r, mb_value text, char way);
/* Offset of the first place from `from` on, or SIZE_MAX. */
size_t mb_text_find(mb_value text, size_t from, mb_value part);

/* ---- evaluating ---- */
mb_value mb_evaluate(struct mb_render *r, const struct mb_node *node);
bool mb_evaluate_arguments(struct mb_render *r, const struct mb_node *items, struct mb_arguments *arguments);
void mb_execute(struct mb_render *r, const struct mb_node *list);
/* Renders statements into a text of their own, in a scope of their own when `scoped`. */
mb_value mb_execute_captured(struct mb_render *r, const struct mb_node *list);
bool mb_scope_set(struct mb_render *r, const char *name, mb_value value);
struct mb_scope *mb_scope_open(struct mb_render *r, struct mb_scope *outer);
mb_value mb_call_macro(struct mb_render *r, const struct mb_macro *macro, const struct mb_arguments *arguments);
mb_value mb_call_function(struct mb_render *r, mb_value function, const struct mb_arguments *arguments);
bool mb_function_known(const char *name);
mb_value mb_call_method(struct mb_render *r, struct mb_bound_method method, const struct mb_arguments *arguments);
/* value.name as a method, or UNDEFINED; a method that Python has and this does not is refused. */
mb_value mb_method_find(struct mb_render *r, const mb_value *value, const char *name);
mb_value mb_apply_filter(struct mb_render *r, const char *name, mb_value value,
                         const struct mb_arguments *arguments);
bool mb_apply_test(struct mb_render *r, const char *name, mb_value value, const struct mb_arguments *arguments);
/* obj.name and obj[key] as Jinja looks them up. */
mb_value mb_get_attribute(struct mb_render *r, mb_value value, const char *name);
mb_value mb_get_item(struct mb_render *r, mb_value value, mb_value key);
/* json.dumps with the filter's options. */
mb_value mb_value_json(struct mb_render *r, mb_value value, const struct mb_arguments *arguments);

#endif
