/*
 * split.c - the pre-tokenizer: cutting text into the pieces that byte-pair merges stay inside of.
 *
 * The pattern is the one the tokenizer's file states, rewritten to codes of one byte a character (pattern.c) and
 * run by PCRE2 on the codes of the text. A piece's length in codes is its length in characters, which gives its
 * bytes.
 */
#include "model/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static const char qwen_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

int mb_split_compile(pcre2_code **code, const char *pattern, const char *where, mb_error *err)
{
    mb_text codes = {0};
    PCRE2_SIZE offset = 0;
    int error = 0, rc = MB_OK;
    *code = NULL;
    const char *problem = mb_pattern_rewrite(&codes, pattern ? pattern : qwen_pattern);
    if (problem) {
        rc = mb_fail(err, MB_E_INPUT, "%s: the pre-tokenizer's pattern has %s, which is not supported", where,
                     problem);
        goto out;
    }
    if (codes.failed) {
        rc = mb_no_memory(err, "the pre-tokenizer's pattern of %s", where);
        goto out;
    }
    *code = pcre2_compile((PCRE2_SPTR)(codes.data ? codes.data : ""), codes.length, 0, &error, &offset, NULL);
    if (!*code) {
        PCRE2_UCHAR message[160] = "";
        pcre2_get_error_message(error, message, sizeof message);
        rc = mb_fail(err, MB_E_INPUT, "%s: the pre-tokenizer's pattern does not compile: %s", where,
                     (const char *)message);
        goto out;
    }
    (void)pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE); /* without it pcre2_match() interprets, only slower */
out:
    mb_text_free(&codes);
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
    free(split->codes);
    *split = (mb_split){0};
}

bool mb_split_text(mb_split *split, const char *text, size_t n)
{
    size_t count = 0;
    if (n > split->capacity) {
        unsigned char *codes = realloc(split->codes, n);
        if (!codes)
            return false;
        split->codes = codes;
        split->capacity = n;
    }
    for (size_t i = 0; i < n;) {
        uint32_t c = (unsigned char)text[i];
        i += c < 0x80 ? 1 : mb_utf8_next(text + i, n - i, &c);
        split->codes[count++] = mb_pattern_code(c);
    }
    split->text = text;
    split->count = count;
    split->code_at = split->byte_at = 0;
    return true;
}

/* Bytes of the UTF-8 character that begins with this one. */
static size_t width(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

size_t mb_split_next(mb_split *split)
{
    size_t from = split->code_at, to = split->count;
    /* NOTEMPTY: an empty match would be no piece; the text up to the next real match is one. */
    int rc =
        pcre2_match(split->code, split->codes, split->count, from, PCRE2_NOTEMPTY, split->match, split->context);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc >= 0) {
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(split->match);
        to = ends[0] > from ? ends[0] : ends[1];
    }
    for (; split->code_at < to; split->code_at++)
        split->byte_at += width((unsigned char)split->text[split->byte_at]);
    return to > from ? split->byte_at : 0;
}
