/*
 * draw.c - word lists, token counts and everything that is drawn: orders, positions, digits, uuids, pseudo-words.
 *
 * Integer arithmetic on mb_random only; no floating point, so that a draw is the same on every machine.
 */
#include "datasets/generate/generate.h"

#include <stdlib.h>
#include <string.h>

int64_t mb_codec_count(const mb_codec *codec, const char *text, size_t length, mb_error *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = codec->encode(codec->self, text, length, &ids, &n);
    free(ids);
    if (rc < 0)
        return mb_fail(err, rc, "the tokenizer could not encode %zu bytes of generated text", length);
    return (int64_t)n;
}

int64_t mb_codec_measure(const mb_codec *codec, int64_t overhead, const char *prompt, size_t length,
                         const char *prefix, mb_error *err)
{
    int64_t a = mb_codec_count(codec, prompt, length, err);
    int64_t b = *prefix && a >= 0 ? mb_codec_count(codec, prefix, strlen(prefix), err) : 0;
    return a < 0 ? a : b < 0 ? b : overhead + a + b;
}

int mb_words_load(mb_words *words, const char *embedded_path, mb_error *err)
{
    size_t size = 0;
    const char *text = mb_embedded_find(embedded_path, &size);
    *words = (mb_words){0};
    if (!text)
        return mb_fail(err, MB_E_BUG, "%s is not compiled into the program", embedded_path);
    size_t lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    words->bytes = malloc(size + 1);
    words->items = malloc(lines * sizeof *words->items);
    if (!words->bytes || !words->items) {
        mb_words_free(words);
        return mb_no_memory(err, "the word list %s", embedded_path);
    }
    memcpy(words->bytes, text, size + 1);
    char *end = words->bytes + size;
    for (char *line = words->bytes; line < end;) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        char *next = stop ? stop + 1 : end;
        if (!stop)
            stop = end;
        while (stop > line && (stop[-1] == ' ' || stop[-1] == '\r'))
            stop--;
        *stop = '\0';
        if (stop > line)
            words->items[words->count++] = line;
        line = next;
    }
    return MB_OK;
}

void mb_words_free(mb_words *words)
{
    free(words->bytes);
    free(words->items);
    *words = (mb_words){0};
}

const char *mb_words_draw(const mb_words *words, mb_random *random)
{
    return words->items[mb_random_below(random, words->count)];
}

void mb_draw_order(mb_random *random, size_t *order, size_t n)
{
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)mb_random_below(random, i);
        size_t t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}

void mb_draw_sorted(mb_random *random, size_t n, size_t k, size_t *out)
{
    /* Floyd's sampling: k draws for k distinct numbers; kept sorted by insertion, k is small. */
    size_t count = 0;
    for (size_t j = n - k; j < n; j++) {
        size_t x = (size_t)mb_random_below(random, j + 1), at = 0;
        bool taken = false;
        for (size_t i = 0; i < count; i++)
            taken = taken || out[i] == x;
        if (taken)
            x = j;
        while (at < count && out[at] < x)
            at++;
        memmove(out + at + 1, out + at, (count - at) * sizeof *out);
        out[at] = x;
        count++;
    }
}

void mb_draw_digits(mb_random *random, size_t digits, char *out)
{
    for (size_t i = 0; i < digits; i++)
        out[i] = (char)(i ? '0' + (int)mb_random_below(random, 10) : '1' + (int)mb_random_below(random, 9));
    out[digits] = '\0';
}

void mb_draw_hex(mb_random *random, size_t digits, char *out)
{
    for (size_t i = 0; i < digits; i++)
        out[i] = "0123456789abcdef"[mb_random_below(random, 16)];
    out[digits] = '\0';
}

void mb_draw_uuid(mb_random *random, char out[MB_UUID_CAP])
{
    mb_draw_hex(random, 36, out);
    out[8] = out[13] = out[18] = out[23] = '-';
    out[14] = '4';                                /* version */
    out[19] = "89ab"[mb_random_below(random, 4)]; /* variant */
}

void mb_draw_letters(mb_random *random, char first, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(first + (int)mb_random_below(random, 26));
    out[n] = '\0';
}

void mb_draw_pseudo(mb_random *random, char out[MB_PSEUDO_CAP])
{
    static const char *const onset[] = {"b", "br", "c",  "ch", "d",  "dr", "f",  "fl", "g",  "gr",
                                        "h", "j",  "k",  "kl", "l",  "m",  "n",  "p",  "pl", "qu",
                                        "r", "s",  "sh", "sk", "st", "t",  "tr", "v",  "w",  "z"};
    static const char *const vowel[] = {"a", "e", "i", "o", "u", "ai", "ea", "io", "ou"};
    static const char *const coda[] = {"", "", "n", "r", "l", "s", "m", "x", "nd", "rt", "th", "ck"};
    size_t syllables = 2 + (size_t)mb_random_below(random, 2), at = 0;
    for (size_t i = 0; i < syllables; i++) {
        const char *parts[3] = {"", "", ""};
        parts[0] = onset[mb_random_below(random, sizeof onset / sizeof *onset)];
        parts[1] = vowel[mb_random_below(random, sizeof vowel / sizeof *vowel)];
        if (i + 1 == syllables)
            parts[2] = coda[mb_random_below(random, sizeof coda / sizeof *coda)];
        for (size_t p = 0; p < 3; p++) {
            size_t n = strlen(parts[p]);
            memcpy(out + at, parts[p], n);
            at += n;
        }
    }
    out[at] = '\0'; /* at most 3 * (2 + 2) + 2 bytes */
}
