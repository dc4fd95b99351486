/*
 * template.h - chat templates: the subset of Jinja that checkpoint folders use, rendered as transformers does
 * (an immutable sandbox, trim_blocks, lstrip_blocks, loop controls, {% generation %}; docs/templates.md).
 *
 * A construct that is not known is refused with its name and line, never left out. A template is not ours, so
 * depth, steps, memory and output are bounded; the bounds stand below.
 *
 * Ownership: values and templates live in an arena; mb_arena_free() gives everything back at once.
 */
#ifndef MB_MODEL_TEMPLATE_H
#define MB_MODEL_TEMPLATE_H

#include "base/base.h"

#include <time.h>

/* Bounds. A template longer than this, nested deeper, or working longer is refused. */
#define MB_TEMPLATE_SOURCE_MAX (1 << 20)   /* bytes of the template */
#define MB_TEMPLATE_DEPTH_MAX 100          /* nested brackets, statements, values, macro calls */
#define MB_TEMPLATE_WALK_MAX 1000          /* nested nodes while rendering: a long row of "~" nests to the left */
#define MB_TEMPLATE_STEPS_MAX 20000000     /* evaluated nodes; 64 bytes of text that are read count as one */
#define MB_TEMPLATE_MEMORY_MAX (64u << 20) /* bytes of values, plus MB_TEMPLATE_COPIES times the input's */
#define MB_TEMPLATE_COPIES 64
/* Bytes of output, plus MB_TEMPLATE_OUTPUT_COPIES times the input's. */
#define MB_TEMPLATE_OUTPUT_MAX (16u << 20)
#define MB_TEMPLATE_OUTPUT_COPIES 4

/* ---- memory ---- */

typedef struct mb_arena {
    struct mb_arena_chunk *chunks;
    size_t used, limit; /* bytes handed out; limit 0 = none */
} mb_arena;

void *mb_arena_take(mb_arena *arena, size_t bytes); /* zeroed, aligned to 16; NULL: no memory or over the limit */
void mb_arena_free(mb_arena *arena);

/* ---- values ---- */

typedef enum mb_kind {
    MB_KIND_UNDEFINED = 0,
    MB_KIND_NONE,
    MB_KIND_BOOL,
    MB_KIND_INT,
    MB_KIND_REAL,
    MB_KIND_TEXT,
    MB_KIND_LIST,
    MB_KIND_DICT,
    MB_KIND_NAMESPACE, /* a dict that `set ns.name` may change */
    MB_KIND_LOOP,      /* the loop variable */
    MB_KIND_MACRO,
    MB_KIND_FUNCTION, /* range, dict, namespace, raise_exception, strftime_now */
    MB_KIND_METHOD    /* a method taken from a value, to be called */
} mb_kind;

/* What Python would have in a list's place: it decides about printing, length, truth. */
typedef enum mb_flavour { MB_LIST, MB_TUPLE, MB_RANGE, MB_VIEW, MB_GENERATOR } mb_flavour;

struct mb_loop;
struct mb_macro;
typedef struct mb_value mb_value;

struct mb_list {
    mb_value *items;
    size_t count, capacity;
    mb_flavour flavour;
    bool spent; /* a generator that was read */
};

struct mb_dict { /* in order of insertion */
    struct mb_pair *pairs;
    size_t count, capacity;
};

struct mb_bound_method {
    const char *name;
    const mb_value *self;
};

/* UTF-8; text may hold NUL. For MB_KIND_UNDEFINED and MB_KIND_FUNCTION `text` is the name. */
struct mb_value {
    mb_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct {
            const char *text;
            size_t length;
        };
        struct mb_list *list;
        struct mb_dict *dict;
        struct mb_loop *loop;
        struct mb_macro *macro;
        struct mb_bound_method method;
    };
};

struct mb_pair {
    mb_value key, value;
};

static inline mb_value mb_value_text(const char *text, size_t length)
{
    return (mb_value){.kind = MB_KIND_TEXT, .text = text, .length = length};
}
mb_value mb_value_string(const char *text); /* NUL-terminated; NULL gives none */
static inline mb_value mb_value_bool(bool value)
{
    return (mb_value){.kind = MB_KIND_BOOL, .boolean = value};
}
static inline mb_value mb_value_int(int64_t value)
{
    return (mb_value){.kind = MB_KIND_INT, .integer = value};
}
static inline mb_value mb_value_none(void)
{
    return (mb_value){.kind = MB_KIND_NONE};
}
/* Empty; UNDEFINED when memory ran out. */
mb_value mb_value_list(mb_arena *arena, mb_flavour flavour);
mb_value mb_value_dict(mb_arena *arena);
/* False: no memory. A key that is there is replaced. */
bool mb_list_add(mb_arena *arena, mb_value list, mb_value item);
bool mb_dict_put(mb_arena *arena, mb_value dict, mb_value key, mb_value value);
const mb_value *mb_dict_find(const struct mb_dict *dict, mb_value key); /* NULL = no such key */

/* ---- templates ---- */

typedef struct mb_template mb_template;

/* where: what errors begin with (the file). MB_E_INPUT names the construct and its line. */
int mb_template_open(mb_template **out, const char *source, size_t size, const char *where, mb_error *err);
void mb_template_close(mb_template *tpl);
/* Whether the template's source uses this variable anywhere. */
bool mb_template_uses(const mb_template *tpl, const char *name);
/* Appends the text to out. variables: a dict of the names that the template sees, in `arena`; input: bytes of text
 * in them, which the bounds on memory and output grow with. now: for strftime_now. MB_E_INPUT: the template raised
 * an exception, met something unknown or passed a bound. */
int mb_template_render(const mb_template *tpl, mb_arena *arena, mb_value variables, size_t input, time_t now,
                       mb_text *out, mb_error *err);

#endif
