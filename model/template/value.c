/*
 * value.c - what can be done with a template's values: truth, equality, order, membership, length, and str() as
 * Python prints it. Source: Python's data model; Jinja's Undefined prints nothing, is false and has no items.
 */
#include "model/template/value.h"

#include "base/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mb_value mb_render_fail(struct mb_render *r, const char *format, ...)
{
    if (r->rc == MB_OK) {
        va_list args;
        char text[512];
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        r->rc = mb_fail(r->err, MB_E_INPUT, "%s: line %d: %s", r->tpl->where, r->line, text);
    }
    return (mb_value){0};
}

mb_value mb_render_no_memory(struct mb_render *r)
{
    if (r->arena->limit && r->arena->used + 65536 > r->arena->limit / 2)
        return mb_render_fail(r, "the template needs more than the %zu MiB of memory that it may have",
                              r->arena->limit >> 20);
    if (r->rc == MB_OK)
        r->rc = mb_no_memory(r->err, "the chat template %s", r->tpl->where);
    return (mb_value){0};
}

bool mb_render_work(struct mb_render *r, uint64_t steps)
{
    r->steps += steps;
    if (r->steps > MB_TEMPLATE_STEPS_MAX)
        mb_render_fail(r, "the template works longer than the %d steps that it may", MB_TEMPLATE_STEPS_MAX);
    return r->rc == MB_OK;
}

mb_value mb_value_take(struct mb_render *r, mb_text *text)
{
    char *copy = text->failed ? NULL : mb_arena_take(r->arena, text->length + 1);
    mb_value value = {.kind = MB_KIND_TEXT, .text = copy, .length = text->length};
    if (copy && text->length)
        memcpy(copy, text->data, text->length);
    mb_text_free(text);
    return copy ? value : mb_render_no_memory(r);
}

const char *mb_value_kind_name(mb_value value)
{
    static const char *const names[] = {"undefined", "None",      "bool", "int",   "float",    "str",   "list",
                                        "dict",      "namespace", "loop", "macro", "function", "method"};
    static const char *const flavours[] = {"list", "tuple", "range", "view", "generator"};
    return value.kind == MB_KIND_LIST ? flavours[value.list->flavour] : names[value.kind];
}

bool mb_value_is_number(mb_value value)
{
    return value.kind == MB_KIND_BOOL || value.kind == MB_KIND_INT || value.kind == MB_KIND_REAL;
}

static int64_t integer_of(mb_value value)
{
    return value.kind == MB_KIND_BOOL ? value.boolean : value.integer;
}

double mb_value_real(mb_value value)
{
    return value.kind == MB_KIND_REAL ? value.real : (double)integer_of(value);
}

bool mb_value_numbers_equal(mb_value a, mb_value b)
{
    return a.kind == MB_KIND_REAL || b.kind == MB_KIND_REAL ? mb_value_real(a) == mb_value_real(b)
                                                            : integer_of(a) == integer_of(b);
}

bool mb_value_true(struct mb_render *r, mb_value value)
{
    (void)r;
    switch (value.kind) {
    case MB_KIND_UNDEFINED:
    case MB_KIND_NONE:
        return false;
    case MB_KIND_BOOL:
        return value.boolean;
    case MB_KIND_INT:
        return value.integer != 0;
    case MB_KIND_REAL:
        return value.real != 0;
    case MB_KIND_TEXT:
        return value.length > 0;
    case MB_KIND_LIST:
        return value.list->flavour == MB_GENERATOR || value.list->count > 0;
    case MB_KIND_DICT:
        return value.dict->count > 0;
    default:
        return true;
    }
}

static bool deeper(struct mb_render *r)
{
    if (++r->depth > MB_TEMPLATE_WALK_MAX)
        mb_render_fail(r, "values are nested deeper than %d", MB_TEMPLATE_WALK_MAX);
    return mb_render_work(r, 1);
}

static bool lists_equal(struct mb_render *r, const struct mb_list *a, const struct mb_list *b)
{
    if (a == b)
        return true;
    if (a->flavour != b->flavour || a->flavour == MB_GENERATOR || a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!mb_value_equal(r, a->items[i], b->items[i]))
            return false;
    return true;
}

static bool dicts_equal(struct mb_render *r, const struct mb_dict *a, const struct mb_dict *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const mb_value *other = mb_dict_find(b, a->pairs[i].key);
        if (!other || !mb_value_equal(r, a->pairs[i].value, *other))
            return false;
    }
    return true;
}

bool mb_value_equal(struct mb_render *r, mb_value a, mb_value b)
{
    bool equal = false;
    if (!deeper(r))
        return false;
    if (mb_value_is_number(a) && mb_value_is_number(b))
        equal = mb_value_numbers_equal(a, b);
    else if (a.kind == b.kind)
        switch (a.kind) {
        case MB_KIND_TEXT:
            equal = a.length == b.length && (a.length == 0 || memcmp(a.text, b.text, a.length) == 0);
            break;
        case MB_KIND_LIST:
            equal = lists_equal(r, a.list, b.list);
            break;
        case MB_KIND_DICT:
            equal = dicts_equal(r, a.dict, b.dict);
            break;
        case MB_KIND_NONE:
        case MB_KIND_UNDEFINED:
            equal = true;
            break;
        default:
            equal = a.dict == b.dict;
            break;
        }
    r->depth--;
    return equal;
}

static int compare_texts(mb_value a, mb_value b)
{
    size_t n = a.length < b.length ? a.length : b.length;
    int order = n ? memcmp(a.text, b.text, n) : 0;
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

/* Numbers, text, lists item by item: below, at or above 0. */
static int compare(struct mb_render *r, mb_value a, mb_value b)
{
    int order = 0;
    if (!deeper(r))
        return 0;
    if (mb_value_is_number(a) && mb_value_is_number(b)) {
        double x = mb_value_real(a), y = mb_value_real(b);
        int64_t i = integer_of(a), j = integer_of(b);
        order = a.kind == MB_KIND_REAL || b.kind == MB_KIND_REAL ? (x > y) - (x < y) : (i > j) - (i < j);
    } else if (a.kind == MB_KIND_TEXT && b.kind == MB_KIND_TEXT) {
        order = compare_texts(a, b);
    } else if (a.kind == MB_KIND_LIST && b.kind == MB_KIND_LIST && a.list->flavour == b.list->flavour) {
        size_t n = a.list->count < b.list->count ? a.list->count : b.list->count;
        for (size_t i = 0; i < n && order == 0 && r->rc == MB_OK; i++)
            if (!mb_value_equal(r, a.list->items[i], b.list->items[i]))
                order = compare(r, a.list->items[i], b.list->items[i]);
        if (order == 0)
            order = (a.list->count > b.list->count) - (a.list->count < b.list->count);
    } else
        mb_render_fail(r, "\"%s\" and \"%s\" cannot be ordered", mb_value_kind_name(a), mb_value_kind_name(b));
    r->depth--;
    return order;
}

bool mb_value_ordered(struct mb_render *r, int op, mb_value a, mb_value b)
{
    if ((a.kind == MB_KIND_REAL && isnan(a.real)) || (b.kind == MB_KIND_REAL && isnan(b.real)))
        return false;
    int order = compare(r, a, b);
    return op == '<' ? order < 0 : op == '>' ? order > 0 : op == MB_OP_LE ? order <= 0 : order >= 0;
}

bool mb_value_in(struct mb_render *r, mb_value item, mb_value container)
{
    switch (container.kind) {
    case MB_KIND_TEXT:
        if (item.kind != MB_KIND_TEXT) {
            mb_render_fail(r, "\"in\" looks for text in text, not for \"%s\"", mb_value_kind_name(item));
            return false;
        }
        return mb_render_work(r, container.length / 64) && mb_text_find(container, 0, item) != SIZE_MAX;
    case MB_KIND_DICT:
        return mb_dict_find(container.dict, item) != NULL;
    case MB_KIND_UNDEFINED:
        return false;
    case MB_KIND_LIST: {
        const struct mb_list *list = mb_value_items(r, container);
        for (size_t i = 0; list && i < list->count; i++)
            if (mb_value_equal(r, item, list->items[i]))
                return true;
        return false;
    }
    default:
        mb_render_fail(r, "nothing can be in a \"%s\"", mb_value_kind_name(container));
        return false;
    }
}

const struct mb_list *mb_value_items(struct mb_render *r, mb_value value)
{
    mb_value list;
    if (value.kind == MB_KIND_LIST) {
        static const struct mb_list empty;
        if (value.list->flavour == MB_GENERATOR && value.list->spent)
            return &empty;
        value.list->spent = true;
        return value.list;
    }
    if (value.kind != MB_KIND_TEXT && value.kind != MB_KIND_DICT && value.kind != MB_KIND_UNDEFINED) {
        mb_render_fail(r, "a \"%s\" has no items to go over", mb_value_kind_name(value));
        return NULL;
    }
    list = mb_value_list(r->arena, MB_LIST);
    bool ok = list.kind == MB_KIND_LIST;
    if (value.kind == MB_KIND_TEXT)
        for (size_t at = 0, n; ok && at < value.length; at += n) {
            uint32_t c;
            n = mb_utf8_next(value.text + at, value.length - at, &c);
            ok = mb_list_add(r->arena, list, mb_value_text(value.text + at, n));
        }
    else if (value.kind == MB_KIND_DICT)
        for (size_t i = 0; ok && i < value.dict->count; i++)
            ok = mb_list_add(r->arena, list, value.dict->pairs[i].key);
    if (!ok) {
        mb_render_no_memory(r);
        return NULL;
    }
    return list.list;
}

int64_t mb_value_length(struct mb_render *r, mb_value value)
{
    switch (value.kind) {
    case MB_KIND_TEXT:
        mb_render_work(r, value.length / 64);
        return (int64_t)mb_text_characters(value.text, value.length);
    case MB_KIND_DICT:
        return (int64_t)value.dict->count;
    case MB_KIND_UNDEFINED:
        return 0;
    case MB_KIND_LIST:
        if (value.list->flavour != MB_GENERATOR)
            return (int64_t)value.list->count;
        break;
    default:
        break;
    }
    mb_render_fail(r, "a \"%s\" has no length", mb_value_kind_name(value));
    return 0;
}

/* ---- str() ---- */

void mb_real_print(mb_text *out, double value)
{
    char digits[40], plain[64];
    if (isnan(value) || isinf(value)) {
        mb_text_puts(out, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return;
    }
    int precision = 1;
    do
        snprintf(digits, sizeof digits, "%.*e", precision - 1, value);
    while (strtod(digits, NULL) != value && ++precision <= 17);
    char *e = strchr(digits, 'e');
    long exponent = e ? strtol(e + 1, NULL, 10) : 0;
    if (exponent >= -4 && exponent < 16) {
        int decimals = precision - 1 - (int)exponent;
        snprintf(plain, sizeof plain, "%.*f", decimals > 0 ? decimals : 0, value);
        mb_text_puts(out, plain);
        if (decimals <= 0)
            mb_text_puts(out, ".0");
        return;
    }
    mb_text_append(out, digits, (size_t)(e - digits));
    mb_text_printf(out, "e%c%02ld", exponent < 0 ? '-' : '+', labs(exponent));
}

static bool printable(uint32_t c)
{
    switch (mb_unicode_category(c)) {
    case MB_CC:
    case MB_CF:
    case MB_CS:
    case MB_CO:
    case MB_CN:
    case MB_ZL:
    case MB_ZP:
        return false;
    case MB_ZS:
        return c == ' ';
    default:
        return true;
    }
}

static void print_quoted_character(mb_text *out, const char *bytes, size_t n, uint32_t c, char quote)
{
    if (c == '\n' || c == '\r' || c == '\t')
        mb_text_puts(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
    else if (c == (uint32_t)quote || c == '\\')
        mb_text_printf(out, "\\%c", (int)c);
    else if (printable(c))
        mb_text_append(out, bytes, n);
    else
        mb_text_printf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
}

/* repr() of text. */
static void print_quoted(mb_text *out, mb_value text)
{
    bool single = text.length && memchr(text.text, '\'', text.length),
         twofold = text.length && memchr(text.text, '"', text.length);
    char quote = single && !twofold ? '"' : '\'';
    mb_text_append(out, &quote, 1);
    for (size_t at = 0, n; at < text.length; at += n) {
        uint32_t c;
        n = mb_utf8_next(text.text + at, text.length - at, &c);
        print_quoted_character(out, text.text + at, n, c, quote);
    }
    mb_text_append(out, &quote, 1);
}

static void print_inner(struct mb_render *r, mb_text *out, mb_value value);

static void print_list(struct mb_render *r, mb_text *out, const struct mb_list *list)
{
    bool tuple = list->flavour == MB_TUPLE;
    mb_text_puts(out, tuple ? "(" : "[");
    for (size_t i = 0; i < list->count && r->rc == MB_OK; i++) {
        if (i)
            mb_text_puts(out, ", ");
        print_inner(r, out, list->items[i]);
    }
    mb_text_puts(out, !tuple ? "]" : list->count == 1 ? ",)" : ")");
}

/* repr(): inside of lists and dicts. */
static void print_inner(struct mb_render *r, mb_text *out, mb_value value)
{
    if (!deeper(r))
        return;
    if (value.kind == MB_KIND_TEXT)
        print_quoted(out, value);
    else if (value.kind == MB_KIND_UNDEFINED)
        mb_text_puts(out, "Undefined");
    else
        mb_value_print(r, out, value);
    if (out->length > r->out_limit)
        mb_render_fail(r, "the template writes more than the %zu bytes that it may", r->out_limit);
    r->depth--;
}

void mb_value_print(struct mb_render *r, mb_text *out, mb_value value)
{
    switch (value.kind) {
    case MB_KIND_UNDEFINED:
        break;
    case MB_KIND_NONE:
        mb_text_puts(out, "None");
        break;
    case MB_KIND_BOOL:
        mb_text_puts(out, value.boolean ? "True" : "False");
        break;
    case MB_KIND_INT:
        mb_text_printf(out, "%lld", (long long)value.integer);
        break;
    case MB_KIND_REAL:
        mb_real_print(out, value.real);
        break;
    case MB_KIND_TEXT:
        if (mb_render_work(r, value.length / 64))
            mb_text_append(out, value.text, value.length);
        break;
    case MB_KIND_LIST:
        if (value.list->flavour > MB_TUPLE)
            mb_render_fail(r, "a \"%s\" is printed: that writes no text of the conversation (use | list)",
                           mb_value_kind_name(value));
        else
            print_list(r, out, value.list);
        break;
    case MB_KIND_DICT:
        mb_text_puts(out, "{");
        for (size_t i = 0; i < value.dict->count && r->rc == MB_OK; i++) {
            if (i)
                mb_text_puts(out, ", ");
            print_inner(r, out, value.dict->pairs[i].key);
            mb_text_puts(out, ": ");
            print_inner(r, out, value.dict->pairs[i].value);
        }
        mb_text_puts(out, "}");
        break;
    default:
        mb_render_fail(r, "a %s is printed: that writes no text", mb_value_kind_name(value));
    }
}

mb_value mb_value_as_text(struct mb_render *r, mb_value value)
{
    mb_text text = {0};
    if (value.kind == MB_KIND_TEXT)
        return value;
    mb_value_print(r, &text, value);
    return mb_value_take(r, &text);
}
