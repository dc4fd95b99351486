/*
 * split.c - the pre-tokenizer: cutting text into the pieces that byte-pair merges stay inside of.
 *
 * The pattern is the one the tokenizer's file states, run by PCRE2. One difference between regex engines matters:
 * in PCRE2 \s also matches U+180E, which lost its White_Space property in Unicode 6.3; the engine behind the
 * reference implementation follows the property. So \s and \S are spelled out before compiling.
 */
#include "model/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* Exactly White_Space: category Z and the controls below. */
#define SPACES "\\p{Z}\\x{9}-\\x{d}\\x{85}"

static const char qwen_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Writes the pattern with \s and \S spelled out. False: a \S inside a class, which has no such spelling. */
static bool spell_spaces(mb_text *out, const char *pattern)
{
    bool in_class = false;
    for (const char *p = pattern; *p; p++) {
        if (p[0] == '\\' && p[1]) {
            bool space = p[1] == 's', other = p[1] == 'S';
            if (other && in_class)
                return false;
            if (space)
                mb_text_puts(out, in_class ? SPACES : "[" SPACES "]");
            else if (other)
                mb_text_puts(out, "[^" SPACES "]");
            else
                mb_text_append(out, p, 2);
            p++;
            continue;
        }
        if (*p == '[' && !in_class) {
            in_class = true;
            mb_text_append(out, p, 1);
            if (p[1] == '^')
                mb_text_append(out, ++p, 1);
            if (p[1] == ']') /* a closing bracket in first place stands for itself */
                mb_text_append(out, ++p, 1);
            continue;
        }
        if (*p == ']')
            in_class = false;
        mb_text_append(out, p, 1);
    }
    return !out->failed;
}

int mb_split_compile(pcre2_code **code, const char *pattern, const char *where, mb_error *err)
{
    mb_text spelled = {0};
    PCRE2_SIZE offset = 0;
    int error = 0, rc = MB_OK;
    *code = NULL;
    if (!spell_spaces(&spelled, pattern ? pattern : qwen_pattern)) {
        rc = mb_fail(err, MB_E_INPUT, "%s: the pre-tokenizer's pattern has \\S inside brackets", where);
        goto out;
    }
    *code = pcre2_compile((PCRE2_SPTR)spelled.data, spelled.length,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, NULL);
    if (!*code) {
        PCRE2_UCHAR message[160] = "";
        pcre2_get_error_message(error, message, sizeof message);
        rc = mb_fail(err, MB_E_INPUT, "%s: the pre-tokenizer's pattern does not compile: %s", where,
                     (const char *)message);
        goto out;
    }
    (void)pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE); /* without it pcre2_match() interprets, only slower */
out:
    mb_text_free(&spelled);
    return rc;
}

bool mb_split_open(mb_split *split, const pcre2_code *code, size_t longest)
{
    /* A run of n spaces is given back one by one when no line end follows: n steps are legitimate, n*n are not. */
    size_t limit = 10000000 + 8 * longest;
    *split = (mb_split){.code = code};
    split->match = pcre2_match_data_create(1, NULL);
    split->context = pcre2_match_context_create(NULL);
    split->stack = pcre2_jit_stack_create(32 << 10, 1 << 20, NULL);
    if (!split->match || !split->context || !split->stack) {
        mb_split_close(split);
        return false;
    }
    pcre2_set_match_limit(split->context, (uint32_t)(limit < UINT32_MAX ? limit : UINT32_MAX));
    pcre2_jit_stack_assign(split->context, NULL, split->stack);
    return true;
}

void mb_split_close(mb_split *split)
{
    pcre2_match_data_free(split->match);
    pcre2_match_context_free(split->context);
    pcre2_jit_stack_free(split->stack);
    *split = (mb_split){0};
}

size_t mb_split_next(mb_split *split, const char *text, size_t n, size_t from)
{
    /* NOTEMPTY: an empty match would be no piece; the text up to the next real match is one. */
    int rc = pcre2_match(split->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, split->match,
                         split->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return n;
    if (rc < 0)
        return 0;
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(split->match);
    return ends[0] > from ? ends[0] : ends[1];
}
