/*
 * show_diff.c - two answers word by word: what one lost and what it has instead, by the longest common
 * subsequence.
 */
#include "results/show.h"

#include "base/unicode.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = 1500 }; /* the table of the subsequence has their square */

typedef struct words {
    span *at;
    size_t count;
} words;

/* A run of blanks, a run of letters and digits, or one other character; Chinese has no blanks between words. */
static size_t word_length(const char *text)
{
    size_t n = 0;
    uint32_t code;
    if (isspace((unsigned char)*text)) {
        while (isspace((unsigned char)text[n]))
            n++;
        return n;
    }
    while (isalnum((unsigned char)text[n]) && (unsigned char)text[n] < 0x80)
        n++;
    return n ? n : mb_utf8_next(text, strnlen(text, 4), &code);
}

static words split(const char *text)
{
    words w = {.at = calloc(WORDS + 1, sizeof *w.at)};
    for (size_t i = 0; w.at && text[i] && w.count <= WORDS;) {
        size_t n = word_length(text + i);
        w.at[w.count++] = (span){i, i + n};
        i += n;
        if (w.count > WORDS)
            break;
    }
    return w;
}

static bool same_word(const char *a, span x, const char *b, span y)
{
    return x.to - x.from == y.to - y.from && memcmp(a + x.from, b + y.from, x.to - x.from) == 0;
}

/* length[i][j]: of the longest common subsequence of the words from i and from j on. */
static uint16_t *subsequences(const char *a, const words *x, const char *b, const words *y)
{
    size_t width = y->count + 1;
    uint16_t *length = calloc((x->count + 1) * width, sizeof *length);
    for (size_t i = x->count; length && i-- > 0;)
        for (size_t j = y->count; j-- > 0;) {
            uint16_t down = length[(i + 1) * width + j], right = length[i * width + j + 1];
            length[i * width + j] = same_word(a, x->at[i], b, y->at[j])
                                        ? (uint16_t)(length[(i + 1) * width + j + 1] + 1)
                                    : down > right ? down
                                                   : right;
        }
    return length;
}

/* Words [from, to) that only one side has. */
static void put_marked(mb_text *out, const char *text, const words *w, size_t from, size_t to, bool gone,
                       bool colour)
{
    if (from == to)
        return;
    mb_text_puts(out, colour ? (gone ? "\033[31m[-" : "\033[32m{+") : gone ? "[-" : "{+");
    mb_text_append(out, text + w->at[from].from, w->at[to - 1].to - w->at[from].from);
    mb_text_puts(out, gone ? "-]" : "+}");
    mb_text_puts(out, colour ? "\033[0m" : "");
}

void show_difference(const char *a, const char *b, bool colour, mb_text *out)
{
    words x = split(a), y = split(b);
    uint16_t *length = x.at && y.at && x.count <= WORDS && y.count <= WORDS ? subsequences(a, &x, b, &y) : NULL;
    size_t width = y.count + 1, i = 0, j = 0;
    if (!length)
        mb_text_puts(out, b); /* too long to be marked */
    while (length && (i < x.count || j < y.count)) {
        size_t from_i = i, from_j = j;
        while ((i < x.count || j < y.count) &&
               !(i < x.count && j < y.count && same_word(a, x.at[i], b, y.at[j]))) {
            bool skip_a =
                j == y.count || (i < x.count && length[(i + 1) * width + j] >= length[i * width + j + 1]);
            i += skip_a;
            j += !skip_a;
        }
        put_marked(out, a, &x, from_i, i, true, colour);
        put_marked(out, b, &y, from_j, j, false, colour);
        if (i < x.count && j < y.count) {
            mb_text_append(out, b + y.at[j].from, y.at[j].to - y.at[j].from);
            i++;
            j++;
        }
    }
    free(length);
    free(x.at);
    free(y.at);
}
