/*
 * lexer.c - a template's text -> tokens: data, {{ }}, {% %}, {# #}, {% raw %}, white space control.
 *
 * As transformers sets Jinja up: the newline behind a block or comment goes (trim_blocks), the blanks in front of
 * one that stands first on its line go (lstrip_blocks), "-" takes all white space, "+" keeps it; the last newline
 * of the file goes, and \r\n counts as \n (Jinja 3.1, lexer).
 */
#include "model/template/value.h"

#include <stdlib.h>
#include <string.h>

struct lexer {
    mb_arena *arena;
    const char *text, *where;
    size_t size, at;
    int line;
    struct mb_token_list *tokens;
    mb_error *err;
    int rc;
};

static void fail(struct lexer *l, int line, const char *what, const char *advice)
{
    if (l->rc == MB_OK)
        l->rc = mb_fail(l->err, MB_E_INPUT, "%s: line %d: %s%s", l->where, line, what, advice);
}

static void no_memory(struct lexer *l)
{
    if (l->rc == MB_OK)
        l->rc = mb_no_memory(l->err, "the chat template %s", l->where);
}

static void push(struct lexer *l, struct mb_template_token token)
{
    struct mb_token_list *list = l->tokens;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 256;
        struct mb_template_token *items = mb_arena_take(l->arena, capacity * sizeof *items);
        if (!items) {
            no_memory(l);
            return;
        }
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = token;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

/* Bytes of the white space character at `at`, 0 = there is none; beyond ASCII as Python's \s has it. */
static size_t blank_at(const struct lexer *l, size_t at)
{
    uint32_t c;
    size_t n = at < l->size ? mb_utf8_next(l->text + at, l->size - at, &c) : 0;
    return n && mb_is_space(c) ? n : 0;
}

/* The same for the character that ends in front of `end` and does not begin before `from`. */
static size_t blank_before(const struct lexer *l, size_t from, size_t end)
{
    size_t at = end;
    while (at > from && end - at < 4) {
        at--;
        if (((unsigned char)l->text[at] & 0xc0) != 0x80)
            return blank_at(l, at) == end - at ? end - at : 0;
    }
    return 0;
}

static bool here(const struct lexer *l, size_t at, const char *mark)
{
    size_t n = strlen(mark);
    return at + n <= l->size && memcmp(l->text + at, mark, n) == 0;
}

/* Moves over n bytes and counts their lines. */
static void advance(struct lexer *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        l->line += l->text[l->at + i] == '\n';
    l->at += n;
}

static void skip_blanks(struct lexer *l)
{
    size_t n;
    while ((n = blank_at(l, l->at)) > 0)
        advance(l, n);
}

/* The data from `from` up to a mark at `to`. sign: what stands behind the mark ('-', '+' or another). */
static void push_data(struct lexer *l, size_t from, size_t to, char sign, bool variable, int line)
{
    size_t end = to;
    if (sign == '-') {
        size_t n;
        while ((n = blank_before(l, from, end)) > 0)
            end -= n;
    } else if (sign != '+' && !variable) {
        size_t begin = end;
        while (begin > from && (l->text[begin - 1] == ' ' || l->text[begin - 1] == '\t'))
            begin--;
        /* only blanks since the beginning of a line */
        if (begin == 0 || l->text[begin - 1] == '\n')
            end = begin;
    }
    if (end > from)
        push(l, (struct mb_template_token){
                    .kind = MB_TOKEN_DATA, .text = l->text + from, .length = end - from, .line = line});
}

/* Behind a closing mark of a block or comment: its white space. */
static void after_block(struct lexer *l, bool minus)
{
    if (minus)
        skip_blanks(l);
    else if (l->at < l->size && l->text[l->at] == '\n')
        advance(l, 1);
}

/* From "{#" (and its sign, `opening` bytes in all) to behind "#}". */
static void skip_comment(struct lexer *l, size_t opening)
{
    int line = l->line;
    for (size_t i = l->at + opening; i + 1 < l->size; i++)
        if (here(l, i, "#}")) {
            bool signed_end = i > l->at + opening, minus = signed_end && l->text[i - 1] == '-',
                 plus = signed_end && l->text[i - 1] == '+';
            advance(l, i + 2 - l->at);
            if (!plus)
                after_block(l, minus);
            return;
        }
    fail(l, line, "the comment {# is not closed", "");
}

/* Length of "{%- name -%}" at `at`, 0 = something else stands there. *open, *close: '-', '+' or 0. */
static size_t tag_here(const struct lexer *l, size_t at, const char *name, char *open, char *close)
{
    size_t i = at + 2, n = strlen(name);
    *open = *close = 0;
    if (!here(l, at, "{%"))
        return 0;
    if (i < l->size && (l->text[i] == '-' || l->text[i] == '+'))
        *open = l->text[i++];
    while (i < l->size && is_blank(l->text[i]))
        i++;
    if (!here(l, i, name))
        return 0;
    i += n;
    while (i < l->size && is_blank(l->text[i]))
        i++;
    if (i < l->size && (l->text[i] == '-' || l->text[i] == '+'))
        *close = l->text[i++];
    return here(l, i, "%}") ? i + 2 - at : 0;
}

/* At {% raw %}, whose tag is `tag` bytes long: the text up to {% endraw %} is data. */
static void lex_raw(struct lexer *l, size_t tag, char close)
{
    int line = l->line;
    advance(l, tag);
    if (close == '-')
        skip_blanks(l);
    size_t from = l->at;
    int begin = l->line;
    for (size_t i = from; i < l->size; i++) {
        char open;
        size_t n = tag_here(l, i, "endraw", &open, &close);
        if (n == 0)
            continue;
        push_data(l, from, i, open, false, begin);
        advance(l, i + n - l->at);
        if (close != '+')
            after_block(l, close == '-');
        return;
    }
    fail(l, line, "{% raw %} is not closed", "");
}

/* ---- inside of marks ---- */

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* The character of \xhh, \uhhhh, \Uhhhhhhhh with `digits` digits at p; false: broken, or no character. */
static bool hex(const char *p, const char *end, int digits, uint32_t *c)
{
    *c = 0;
    for (int i = 0; i < digits; i++) {
        if (p + i >= end)
            return false;
        char d = p[i];
        int v = d >= '0' && d <= '9' ? d - '0' : (d | 32) >= 'a' && (d | 32) <= 'f' ? (d | 32) - 'a' + 10 : -1;
        if (v < 0)
            return false;
        *c = *c << 4 | (uint32_t)v;
    }
    return *c <= 0x10ffff && !(*c >= 0xd800 && *c < 0xe000);
}

/* One escape at *p, behind the backslash. An unknown one stays as it is, as in Python. */
static size_t unescape(struct lexer *l, const char **p, const char *end, char *out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = *(*p)++;
    const char *known = c ? strchr(from, c) : NULL;
    uint32_t value = 0;
    if (known) {
        out[0] = to[known - from];
        return 1;
    }
    if (c == '\n')
        return 0;
    if (c == 'x' || c == 'u' || c == 'U') {
        int digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (!hex(*p, end, digits, &value))
            fail(l, l->line, "a string has a broken \\x, \\u or \\U", "");
        *p += digits;
        return put_utf8(out, value);
    }
    if (c >= '0' && c <= '7') {
        value = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++)
            value = value * 8 + (uint32_t)(*(*p)++ - '0');
        return put_utf8(out, value);
    }
    if (c == 'N')
        fail(l, l->line, "\\N{...} in a string is not supported", "");
    out[0] = '\\';
    out[1] = c;
    return 2;
}

static void lex_string(struct lexer *l)
{
    const char quote = l->text[l->at], *begin = l->text + l->at + 1, *end = begin, *stop = l->text + l->size;
    while (end < stop && *end != quote)
        end += *end == '\\' && end + 1 < stop ? 2 : 1;
    if (end >= stop) {
        fail(l, l->line, "a string is not closed", "");
        return;
    }
    char *out = mb_arena_take(l->arena, (size_t)(end - begin) + 4);
    size_t n = 0;
    if (!out) {
        no_memory(l);
        return;
    }
    for (const char *p = begin; p < end && l->rc == MB_OK;) {
        if (*p != '\\')
            out[n++] = *p++;
        else {
            p++;
            n += unescape(l, &p, end, out + n);
        }
    }
    push(l, (struct mb_template_token){.kind = MB_TOKEN_STRING, .text = out, .length = n, .line = l->line});
    advance(l, (size_t)(end + 1 - (l->text + l->at)));
}

static bool is_digit(const struct lexer *l, size_t at)
{
    return at < l->size && l->text[at] >= '0' && l->text[at] <= '9';
}

static size_t digits_end(const struct lexer *l, size_t i)
{
    while (is_digit(l, i) || (i < l->size && l->text[i] == '_' && is_digit(l, i + 1)))
        i++;
    return i;
}

/* 12, 1_000, 1.5, 1e9; other bases are refused. */
static void lex_number(struct lexer *l)
{
    size_t i = digits_end(l, l->at);
    bool real = false;
    if (i < l->size && l->text[i] == '.' && is_digit(l, i + 1)) {
        real = true;
        i = digits_end(l, i + 1);
    }
    if (i < l->size && (l->text[i] == 'e' || l->text[i] == 'E')) {
        size_t j = i + 1;
        if (j < l->size && (l->text[j] == '+' || l->text[j] == '-'))
            j++;
        if (is_digit(l, j)) {
            real = true;
            i = digits_end(l, j);
        }
    }
    if (l->text[l->at] == '0' && i == l->at + 1 && i < l->size && strchr("xXbBoO", l->text[i]))
        fail(l, l->line, "numbers with 0x, 0b or 0o are not supported", "");
    char *out = mb_arena_take(l->arena, i - l->at + 1);
    size_t n = 0;
    if (!out) {
        no_memory(l);
        return;
    }
    for (size_t j = l->at; j < i; j++)
        if (l->text[j] != '_')
            out[n++] = l->text[j];
    push(l, (struct mb_template_token){
                .kind = real ? MB_TOKEN_REAL : MB_TOKEN_INTEGER, .text = out, .length = n, .line = l->line});
    l->at = i;
}

static bool is_name_byte(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (!first && c >= '0' && c <= '9');
}

static void lex_operator(struct lexer *l)
{
    static const struct {
        const char *text;
        int op;
    } pairs[] = {{"==", MB_OP_EQ}, {"!=", MB_OP_NE},    {"<=", MB_OP_LE},
                 {">=", MB_OP_GE}, {"//", MB_OP_FLOOR}, {"**", MB_OP_POWER}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (here(l, l->at, pairs[i].text)) {
            push(l, (struct mb_template_token){.kind = MB_TOKEN_OPERATOR,
                                               .op = pairs[i].op,
                                               .line = l->line,
                                               .text = pairs[i].text,
                                               .length = 2});
            l->at += 2;
            return;
        }
    char c = l->text[l->at], shown[2] = {c};
    if (!c || !strchr("+-*/%~()[]{}.,:|;=<>", c)) {
        fail(l, l->line, "unexpected character ", (unsigned char)c < 0x80 ? shown : "(not ASCII)");
        return;
    }
    push(l, (struct mb_template_token){
                .kind = MB_TOKEN_OPERATOR, .op = c, .line = l->line, .text = l->text + l->at, .length = 1});
    l->at++;
}

/* The closing mark at this place: its length, 0 = none. *minus, *plus: the sign in front of it. */
static size_t closing(const struct lexer *l, bool variable, bool *minus, bool *plus)
{
    const char *mark = variable ? "}}" : "%}";
    *minus = l->text[l->at] == '-';
    *plus = !variable && l->text[l->at] == '+';
    if ((*minus || *plus) && here(l, l->at + 1, mark))
        return 3;
    *minus = *plus = false;
    return here(l, l->at, mark) ? 2 : 0;
}

/* One token of an expression; depth counts open brackets, inside of which "}}" is no end. */
static void lex_inner(struct lexer *l, int *depth)
{
    char c = l->text[l->at];
    if (c == '"' || c == '\'')
        lex_string(l);
    else if (c >= '0' && c <= '9')
        lex_number(l);
    else if (is_name_byte(c, true)) {
        size_t i = l->at;
        while (i < l->size && is_name_byte(l->text[i], false))
            i++;
        push(l, (struct mb_template_token){
                    .kind = MB_TOKEN_NAME, .text = l->text + l->at, .length = i - l->at, .line = l->line});
        l->at = i;
    } else {
        *depth += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
        if (*depth < 0)
            fail(l, l->line, "a bracket closes that was not opened", "");
        else
            lex_operator(l);
    }
}

/* From behind "{{" or "{%" to behind the closing mark. */
static void lex_mark(struct lexer *l, bool variable)
{
    int line = l->line, depth = 0;
    push(l, (struct mb_template_token){.kind = variable ? MB_TOKEN_VARIABLE_BEGIN : MB_TOKEN_BLOCK_BEGIN,
                                       .line = line});
    while (l->rc == MB_OK) {
        bool minus, plus;
        skip_blanks(l);
        if (l->at >= l->size) {
            fail(l, line, variable ? "{{ is not closed" : "{% is not closed", "");
            return;
        }
        size_t end = depth == 0 ? closing(l, variable, &minus, &plus) : 0;
        if (end) {
            push(l, (struct mb_template_token){.kind = variable ? MB_TOKEN_VARIABLE_END : MB_TOKEN_BLOCK_END,
                                               .line = l->line});
            l->at += end;
            if (variable && minus)
                skip_blanks(l);
            else if (!variable && !plus)
                after_block(l, minus);
            return;
        }
        lex_inner(l, &depth);
    }
}

/* Jinja's own clean-up of a source: one kind of newline, none at the end. */
static bool normalise(struct lexer *l, const char *source, size_t size)
{
    char *text = mb_arena_take(l->arena, size + 1);
    size_t n = 0;
    if (!text)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (source[i] == '\r' && i + 1 < size && source[i + 1] == '\n')
            continue;
        text[n++] = source[i] == '\r' ? '\n' : source[i];
    }
    l->size = n > 0 && text[n - 1] == '\n' ? n - 1 : n;
    l->text = text;
    return true;
}

int mb_template_lex(mb_arena *arena, const char *source, size_t size, const char *where,
                    struct mb_token_list *tokens, mb_error *err)
{
    struct lexer l = {.arena = arena, .where = where, .tokens = tokens, .err = err, .line = 1};
    size_t from = 0;
    int line = 1;
    *tokens = (struct mb_token_list){0};
    if (!normalise(&l, source, size))
        no_memory(&l);
    while (l.rc == MB_OK && l.at < l.size) {
        bool comment = here(&l, l.at, "{#"), block = here(&l, l.at, "{%"), variable = here(&l, l.at, "{{");
        if (!comment && !block && !variable) {
            advance(&l, 1);
            continue;
        }
        char open = l.at + 2 < l.size ? l.text[l.at + 2] : 0, raw_open, close;
        bool sign = open == '-' || open == '+';
        push_data(&l, from, l.at, sign ? open : 0, variable, line);
        size_t raw = block ? tag_here(&l, l.at, "raw", &raw_open, &close) : 0;
        if (comment)
            skip_comment(&l, sign ? 3 : 2);
        else if (raw)
            lex_raw(&l, raw, close);
        else {
            advance(&l, sign ? 3 : 2);
            lex_mark(&l, variable);
        }
        from = l.at;
        line = l.line;
    }
    if (l.rc == MB_OK)
        push_data(&l, from, l.size, '+', true, line);
    push(&l, (struct mb_template_token){.kind = MB_TOKEN_END, .line = l.line});
    return l.rc;
}
