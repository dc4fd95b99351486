/*
 * tojson.c - the filter "tojson" as transformers sets it: json.dumps(value, ensure_ascii=False), with its options
 * ensure_ascii, indent, separators and sort_keys (Python's json module).
 */
#include "model/template/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct json {
    struct mb_render *r;
    mb_text *out;
    bool ascii, sorted, spread; /* spread: one item a line, each level by `indent` more */
    mb_value indent, comma, colon;
};

static void put(struct json *j, mb_value value, int level);

static void put_text(struct json *j, mb_value text)
{
    mb_text_puts(j->out, "\"");
    for (size_t at = 0, n; at < text.length; at += n) {
        static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
        uint32_t c;
        n = mb_utf8_next(text.text + at, text.length - at, &c);
        const char *known = c && c < 128 ? strchr(from, (int)c) : NULL;
        if (known)
            mb_text_printf(j->out, "\\%c", to[known - from]);
        else if (c < 32 || (j->ascii && c >= 127 && c < 0x10000 && c != 127))
            mb_text_printf(j->out, "\\u%04x", (unsigned)c);
        else if (j->ascii && c >= 0x10000)
            mb_text_printf(j->out, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((c - 0x10000) >> 10)),
                           (unsigned)(0xdc00 + ((c - 0x10000) & 0x3ff)));
        else
            mb_text_append(j->out, text.text + at, n);
    }
    mb_text_puts(j->out, "\"");
}

static void new_line(struct json *j, int level)
{
    if (!j->spread)
        return;
    mb_text_puts(j->out, "\n");
    for (int i = 0; i < level; i++)
        mb_text_append(j->out, j->indent.text, j->indent.length);
}

static void put_list(struct json *j, const struct mb_list *list, int level)
{
    mb_text_puts(j->out, "[");
    for (size_t i = 0; i < list->count && j->r->rc == MB_OK; i++) {
        if (i)
            mb_text_append(j->out, j->comma.text, j->comma.length);
        new_line(j, level + 1);
        put(j, list->items[i], level + 1);
    }
    if (list->count)
        new_line(j, level);
    mb_text_puts(j->out, "]");
}

static void put_key(struct json *j, mb_value key)
{
    mb_text text = {0};
    if (key.kind == MB_KIND_TEXT) {
        put_text(j, key);
        return;
    }
    if (key.kind == MB_KIND_NONE || key.kind == MB_KIND_BOOL)
        mb_text_puts(&text, key.kind == MB_KIND_NONE ? "null" : key.boolean ? "true" : "false");
    else
        mb_value_print(j->r, &text, key);
    mb_text_printf(j->out, "\"%s\"", text.data ? text.data : "");
    mb_text_free(&text);
}

/* Indices of the pairs in the order to write; keys of one kind, or sorting is refused. */
static size_t *order_of(struct json *j, const struct mb_dict *dict)
{
    size_t *order = mb_arena_take(j->r->arena, (dict->count + 1) * sizeof *order);
    if (!order) {
        mb_render_no_memory(j->r);
        return NULL;
    }
    for (size_t i = 0; i < dict->count; i++) {
        size_t at = i;
        while (j->sorted && at > 0 && mb_render_work(j->r, 1) &&
               mb_value_ordered(j->r, '<', dict->pairs[i].key, dict->pairs[order[at - 1]].key)) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    return order;
}

static void put_dict(struct json *j, const struct mb_dict *dict, int level)
{
    size_t *order = order_of(j, dict);
    mb_text_puts(j->out, "{");
    for (size_t i = 0; order && i < dict->count && j->r->rc == MB_OK; i++) {
        if (i)
            mb_text_append(j->out, j->comma.text, j->comma.length);
        new_line(j, level + 1);
        put_key(j, dict->pairs[order[i]].key);
        mb_text_append(j->out, j->colon.text, j->colon.length);
        put(j, dict->pairs[order[i]].value, level + 1);
    }
    if (dict->count)
        new_line(j, level);
    mb_text_puts(j->out, "}");
}

static void put(struct json *j, mb_value value, int level)
{
    if (level > MB_TEMPLATE_DEPTH_MAX)
        mb_render_fail(j->r, "tojson of values nested deeper than %d", MB_TEMPLATE_DEPTH_MAX);
    if (j->out->length > j->r->out_limit)
        mb_render_fail(j->r, "tojson makes a text of more than %zu bytes", j->r->out_limit);
    if (j->r->rc != MB_OK || !mb_render_work(j->r, 1))
        return;
    switch (value.kind) {
    case MB_KIND_NONE:
        mb_text_puts(j->out, "null");
        break;
    case MB_KIND_BOOL:
        mb_text_puts(j->out, value.boolean ? "true" : "false");
        break;
    case MB_KIND_INT:
        mb_text_printf(j->out, "%lld", (long long)value.integer);
        break;
    case MB_KIND_REAL:
        if (isfinite(value.real))
            mb_real_print(j->out, value.real);
        else
            mb_text_puts(j->out, isnan(value.real) ? "NaN" : value.real < 0 ? "-Infinity" : "Infinity");
        break;
    case MB_KIND_TEXT:
        if (mb_render_work(j->r, value.length / 16))
            put_text(j, value);
        break;
    case MB_KIND_DICT:
        put_dict(j, value.dict, level);
        break;
    case MB_KIND_LIST:
        if (value.list->flavour <= MB_TUPLE) {
            put_list(j, value.list, level);
            break;
        }
        /* fall through */
    default:
        mb_render_fail(j->r, "tojson of a \"%s\" is not possible", mb_value_kind_name(value));
    }
}

/* indent=: a number of blanks, or a text. */
static void read_indent(struct json *j, const mb_value *indent)
{
    if (!indent || indent->kind == MB_KIND_NONE)
        return;
    j->spread = true;
    j->comma = mb_value_text(",", 1);
    if (indent->kind == MB_KIND_TEXT) {
        j->indent = *indent;
        return;
    }
    if (indent->kind != MB_KIND_INT || indent->integer < 0 || indent->integer > 64) {
        mb_render_fail(j->r, "tojson(indent=...) takes 0 to 64 blanks");
        return;
    }
    static const char blanks[] = "                                                                ";
    j->indent = mb_value_text(blanks, (size_t)indent->integer);
}

static void read_separators(struct json *j, const mb_value *pair)
{
    if (!pair || pair->kind == MB_KIND_NONE)
        return;
    if (pair->kind != MB_KIND_LIST || pair->list->count != 2 || pair->list->items[0].kind != MB_KIND_TEXT ||
        pair->list->items[1].kind != MB_KIND_TEXT) {
        mb_render_fail(j->r, "tojson(separators=...) takes two texts");
        return;
    }
    j->comma = pair->list->items[0];
    j->colon = pair->list->items[1];
}

mb_value mb_value_json(struct mb_render *r, mb_value value, const struct mb_arguments *arguments)
{
    static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys", NULL};
    const mb_value *ascii = mb_argument(arguments, 0, "ensure_ascii"),
                   *sorted = mb_argument(arguments, 3, "sort_keys");
    mb_text out = {0};
    struct json j = {.r = r,
                     .out = &out,
                     .comma = mb_value_text(", ", 2),
                     .colon = mb_value_text(": ", 2),
                     .ascii = ascii && mb_value_true(r, *ascii),
                     .sorted = sorted && mb_value_true(r, *sorted)};
    mb_arguments_check(r, arguments, "tojson", 4, names);
    read_indent(&j, mb_argument(arguments, 1, "indent"));
    read_separators(&j, mb_argument(arguments, 2, "separators"));
    put(&j, value, 0);
    if (r->rc == MB_OK)
        return mb_value_take(r, &out);
    mb_text_free(&out);
    return value;
}
