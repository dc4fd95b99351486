/*
 * pattern.c - the pre-tokenizer's pattern, from characters to codes.
 *
 * The pattern asks for properties (\p{L}, \s), whose members depend on a version of Unicode. So no regex library
 * is asked about them: text becomes one byte a character, ASCII itself and everything else its general category
 * (base/unicode.h), and the pattern is rewritten to sets of such bytes. PCRE2 then sees plain 8-bit data.
 *
 * What is accepted is what the published patterns of byte-level BPE use and what means the same to the engine of
 * the reference (Oniguruma, Ruby syntax) and to PCRE2; anything else is refused by name. Two traps among it:
 * x{1,2}+ repeats in Ruby and is possessive in PCRE2; ^ and $ match at every line in Ruby. Without regard to case,
 * s is also U+017F and k also U+212A.
 */
#include "model/tokenizer/tokenizer.h"

#include "base/unicode.h"

#include <string.h>

/* Codes of characters beyond ASCII: 0x80 + general category, and three that need one of their own. */
enum { CODE_CATEGORY = 0x80, CODE_NEXT_LINE = 0xA0, CODE_LONG_S, CODE_KELVIN, CODES_END };

#define DEPTH_MAX 64

typedef struct {
    bool has[256];
} code_set;

typedef struct {
    const char *at;
    mb_text *out;
    bool fold[DEPTH_MAX]; /* by depth of brackets: (?i: is around it */
    int depth;
    char folded_before;  /* the letter before this one, inside (?i:, or 0 */
    const char *problem; /* NULL: none so far */
} rewriter;

unsigned char mb_pattern_code(uint32_t c)
{
    if (c < 0x80)
        return (unsigned char)c;
    if (c == 0x85)
        return CODE_NEXT_LINE;
    if (c == 0x17F)
        return CODE_LONG_S;
    if (c == 0x212A)
        return CODE_KELVIN;
    return (unsigned char)(CODE_CATEGORY + mb_unicode_category(c));
}

/* The general category of the characters of a code. */
static enum mb_category category_of(int code)
{
    if (code < 0x80)
        return mb_unicode_category((uint32_t)code);
    if (code < CODE_CATEGORY + MB_CATEGORIES)
        return (enum mb_category)(code - CODE_CATEGORY);
    if (code < CODE_NEXT_LINE) /* codes that no character has */
        return MB_CN;
    return code == CODE_NEXT_LINE ? MB_CC : code == CODE_LONG_S ? MB_LL : MB_LU;
}

/* ---- sets ---- */

/* \s is the property White_Space: category Z and six controls. */
static void add_spaces(code_set *set, bool other)
{
    for (int code = 0; code < CODES_END; code++) {
        enum mb_category category = category_of(code);
        bool space = category == MB_ZS || category == MB_ZL || category == MB_ZP || (code >= 9 && code <= 13) ||
                     code == CODE_NEXT_LINE;
        set->has[code] |= space != other;
    }
}

/* A general category by its letter or its two letters. False: no such name. */
static bool add_category(code_set *set, const char *name, size_t n, bool other)
{
    static const char names[MB_CATEGORIES][3] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd",
                                                 "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
                                                 "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};
    bool known = false;
    if (n < 1 || n > 2)
        return false;
    for (int i = 0; i < MB_CATEGORIES; i++)
        known |= strncmp(names[i], name, n) == 0;
    for (int code = 0; known && code < CODES_END; code++)
        set->has[code] |= (strncmp(names[category_of(code)], name, n) == 0) != other;
    return known;
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* What matches a member without regard to case belongs to the set as well. */
static void add_case(code_set *set)
{
    for (int c = 'a'; c <= 'z'; c++) {
        bool any = set->has[c] || set->has[c - 32];
        set->has[c] = set->has[c - 32] = any;
    }
    set->has[CODE_LONG_S] |= set->has['s'];
    set->has[CODE_KELVIN] |= set->has['k'];
}

/* Writes the set as a PCRE2 class. The bytes that are no code occur in no text. */
static void put_set(mb_text *out, const code_set *set, bool other)
{
    bool empty = true;
    for (int code = 0; code < CODES_END; code++)
        empty &= set->has[code] == other;
    if (empty) {
        mb_text_puts(out, "(?!)");
        return;
    }
    mb_text_puts(out, "[");
    for (int first = 0; first < CODES_END; first++) {
        if (set->has[first] == other)
            continue;
        int last = first;
        while (last + 1 < CODES_END && set->has[last + 1] != other)
            last++;
        mb_text_printf(out, first == last ? "\\x%02x" : "\\x%02x-\\x%02x", (unsigned)first, (unsigned)last);
        first = last;
    }
    mb_text_puts(out, "]");
}

/* ---- the pieces of a pattern ---- */

/* After a backslash: the character that it stands for, or -1 when it is a set or nothing known. */
static int escaped_character(char c)
{
    switch (c) {
    case 'r':
        return '\r';
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'f':
        return '\f';
    case 'v':
        return '\v';
    default:
        return c > ' ' && c < 0x7f && !is_letter(c) && !(c >= '0' && c <= '9') ? c : -1;
    }
}

/* \p{..}, \P{..} with `at` behind the p. Moves past it. */
static void read_property(rewriter *r, code_set *set, bool other)
{
    const char *end = *r->at == '{' ? strchr(r->at, '}') : NULL;
    const char *name = r->at + 1;
    if (end && *name == '^') {
        other = !other;
        name++;
    }
    if (r->fold[r->depth])
        r->problem = "a property inside (?i:";
    else if (!end || !add_category(set, name, (size_t)(end - name), other))
        r->problem = "a property that is no general category";
    else
        r->at = end + 1;
}

/* A backslash and what follows, `at` on the backslash: a character (returned) or a set (added, -1 returned). */
static int read_escape(rewriter *r, code_set *set)
{
    char c = r->at[1];
    int character = escaped_character(c);
    if (c)
        r->at += 2;
    if (character >= 0)
        return character;
    switch (c) {
    case 'p':
    case 'P':
        read_property(r, set, c == 'P');
        break;
    case 's':
    case 'S':
        add_spaces(set, c == 'S');
        break;
    case 'd':
    case 'D':
        (void)add_category(set, "Nd", 2, c == 'D');
        break;
    default:
        r->problem = "a backslash before something else than p, s, d, r, n, t, f, v or a sign";
    }
    return -1;
}

/* One member of a class, `at` on it; a range x-y counts as one. */
static void read_member(rewriter *r, code_set *set)
{
    int first, last;
    if (*r->at == '\\') {
        first = read_escape(r, set);
    } else if ((unsigned char)*r->at >= 0x80 || *r->at == '[' || (r->at[0] == '&' && r->at[1] == '&')) {
        r->problem = "a class inside a class, && or a character beyond ASCII";
        return;
    } else {
        first = *r->at++;
    }
    if (first < 0 || r->at[0] != '-' || r->at[1] == ']' || r->at[1] == '\0') {
        if (first >= 0)
            set->has[first] = true;
        return;
    }
    r->at++;
    last = *r->at == '\\' ? read_escape(r, set) : (unsigned char)*r->at++;
    if (last < first || last >= 0x80 || *r->at == '-')
        r->problem = "a range that is not from an ASCII character to a later one";
    for (int c = first; c <= last && !r->problem; c++)
        set->has[c] = true;
}

/* [...], `at` behind the bracket. */
static void read_class(rewriter *r)
{
    code_set set = {{false}};
    bool other = *r->at == '^';
    r->at += other;
    if (*r->at == ']')
        r->problem = "a class that begins with ]";
    while (!r->problem && *r->at && *r->at != ']')
        read_member(r, &set);
    if (!r->problem && *r->at != ']')
        r->problem = "a class without its ]";
    if (r->problem)
        return;
    r->at++;
    if (r->fold[r->depth])
        add_case(&set);
    put_set(r->out, &set, other);
}

/* A character that stands for itself. */
static void put_character(rewriter *r, int c)
{
    /* Pairs that one character beyond ASCII may match in the reference: sharp s and the ligatures. */
    static const char pairs[][3] = {"ss", "st", "ff", "fi", "fl"};
    bool fold = r->fold[r->depth] && is_letter(c);
    char lower = (char)(c | 0x20);
    for (size_t i = 0; fold && i < sizeof pairs / sizeof pairs[0]; i++)
        if (r->folded_before == pairs[i][0] && lower == pairs[i][1])
            r->problem = "ss, st, ff, fi or fl inside (?i:";
    code_set set = {{false}};
    set.has[c] = true;
    if (fold)
        add_case(&set);
    put_set(r->out, &set, false);
    r->folded_before = fold ? lower : 0;
}

/* ( and what belongs to it, `at` behind the bracket. */
static void open_group(rewriter *r)
{
    static const char *const openings[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    bool fold = r->fold[r->depth], known = *r->at != '?';
    size_t length = 0;
    for (size_t i = 0; !known && i < sizeof openings / sizeof openings[0]; i++)
        if (strncmp(r->at, openings[i], strlen(openings[i])) == 0) {
            known = true;
            length = strlen(openings[i]);
        }
    mb_text_puts(r->out, "(");
    mb_text_append(r->out, r->at, length);
    if (!known && strncmp(r->at, "?i:", 3) == 0) { /* the sets inside are widened instead */
        known = fold = true;
        length = 3;
        mb_text_puts(r->out, "?:");
    }
    if (!known || r->depth + 1 == DEPTH_MAX) {
        r->problem = known ? "more than 63 brackets in one another" : "an option or a group that is not known";
        return;
    }
    r->at += length;
    r->fold[++r->depth] = fold;
}

/* {n}, {n,} or {n,m}, `at` on the brace. */
static void read_count(rewriter *r)
{
    const char *p = r->at + 1;
    size_t digits = strspn(p, "0123456789");
    p += digits;
    if (*p == ',')
        p += 1 + strspn(p + 1, "0123456789");
    if (digits == 0 || *p != '}' || strchr("*+?{", p[1] ? p[1] : ' ')) {
        r->problem = "a brace that is no {n}, {n,} or {n,m}, or a second repetition behind one";
        return;
    }
    mb_text_append(r->out, r->at, (size_t)(p + 1 - r->at));
    r->at = p + 1;
}

static void read_one(rewriter *r)
{
    code_set set = {{false}};
    char c = *r->at;
    int character = -1;
    switch (c) {
    case '\\':
        character = read_escape(r, &set);
        if (character < 0 && !r->problem)
            put_set(r->out, &set, false);
        break;
    case '[':
        r->at++;
        read_class(r);
        break;
    case '(':
        r->at++;
        open_group(r);
        break;
    case ')':
        if (r->depth == 0)
            r->problem = "a bracket that nothing opened";
        else
            r->depth--;
        mb_text_append(r->out, r->at++, 1);
        break;
    case '{':
        read_count(r);
        break;
    case '|':
    case '*':
    case '+':
    case '?':
    case '.':
        mb_text_append(r->out, r->at++, 1);
        break;
    case '^':
    case '$':
        r->problem = "^ or $";
        break;
    default:
        if ((unsigned char)c >= 0x80)
            r->problem = "a character beyond ASCII";
        else
            character = (unsigned char)*r->at++;
    }
    if (character >= 0)
        put_character(r, character);
    else
        r->folded_before = 0;
}

const char *mb_pattern_rewrite(mb_text *out, const char *pattern)
{
    rewriter r = {.at = pattern, .out = out};
    while (*r.at && !r.problem)
        read_one(&r);
    if (!r.problem && r.depth)
        r.problem = "a bracket that is not closed";
    return r.problem;
}
