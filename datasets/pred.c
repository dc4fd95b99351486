/*
 * pred.c - the official prediction file: one JSON object a line as Python's json.dumps(row, ensure_ascii=False)
 * writes it (", " and ": " between parts, non-ASCII as it is), keys in the official order, so that the official
 * eval.py runs on our output.
 */
#include "datasets/internal.h"
#include "datasets/unicode.h"

#include <string.h>

/* A JSON string. Broken UTF-8, which a cut-off generation may end in, becomes U+FFFD: the file must be UTF-8. */
static void string_write(mb_text *out, const char *string)
{
    mb_text repaired = {0};
    size_t n = strlen(string), offset = 0, plain = 0;
    if (!mb_utf8_check(string, n, &offset)) {
        mb_runes runes = {0};
        mb_runes_decode(&runes, string, n);
        mb_runes_encode(runes.at, runes.count, &repaired);
        out->failed = out->failed || runes.failed || repaired.failed;
        mb_runes_free(&runes);
        string = repaired.data ? repaired.data : "";
        n = repaired.length;
    }
    mb_text_puts(out, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)string[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        mb_text_append(out, string + plain, i - plain);
        plain = i + 1;
        switch (c) {
        case '"':
        case '\\':
            mb_text_printf(out, "\\%c", c);
            break;
        case '\n':
            mb_text_puts(out, "\\n");
            break;
        case '\r':
            mb_text_puts(out, "\\r");
            break;
        case '\t':
            mb_text_puts(out, "\\t");
            break;
        case '\b':
            mb_text_puts(out, "\\b");
            break;
        case '\f':
            mb_text_puts(out, "\\f");
            break;
        default:
            mb_text_printf(out, "\\u%04x", c);
        }
    }
    mb_text_append(out, string + plain, n - plain);
    mb_text_puts(out, "\"");
    mb_text_free(&repaired);
}

static void strings_write(mb_text *out, char *const *strings, size_t count)
{
    mb_text_puts(out, "[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            mb_text_puts(out, ", ");
        string_write(out, strings[i]);
    }
    mb_text_puts(out, "]");
}

int mb_sample_pred_line(const mb_sample *sample, const char *prediction, mb_text *out)
{
    mb_text_puts(out, "{\"pred\": ");
    string_write(out, prediction ? prediction : "");
    mb_text_puts(out, ", \"answers\": ");
    strings_write(out, sample->answers, sample->answer_count);
    mb_text_puts(out, ", \"all_classes\": ");
    if (sample->class_count)
        strings_write(out, sample->classes, sample->class_count);
    else
        mb_text_puts(out, "null");
    mb_text_printf(out, ", \"length\": %lld}\n", (long long)sample->length);
    return out->failed ? MB_E_SYSTEM : MB_OK;
}
