/*
 * code.c - similarity of one line of code: fuzz.ratio/100 of the first line that looks like code.
 *
 * The ratio is an integer percentage. Which ratio depends on what is installed beside the official scorer: without
 * python-Levenshtein it is difflib's (every published LongBench score that was checked), with it an indel ratio.
 * difflib's is Ratcliff/Obershelp: the longest common block, then the same left and right of it, with characters
 * that are too frequent in a long reference (200 and more) left out of the search.
 */
#include "datasets/metric/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The two texts and, per rune of b, whether the search may use it. */
typedef struct matcher {
    const uint32_t *a, *b;
    size_t *next;  /* next position in b with the same rune; b_count = none */
    size_t *first; /* per position of a: first position in b with that rune; b_count = none or popular */
    size_t b_count;
    size_t *run; /* run[j + 1]: length of the common block that ends at a[i], b[j]; zero between rows */
} matcher;

typedef struct window {
    size_t a_low, a_high, b_low, b_high;
} window;

/* Equal runes a[a ..] and b[b ..]. */
typedef struct block {
    size_t a, b, size;
} block;

static int compare_runes(const void *x, const void *y)
{
    uint32_t p = *(const uint32_t *)x, q = *(const uint32_t *)y;
    return p < q ? -1 : p > q;
}

/* Position lists of b's runes, reached from a's positions. Popular: |b| >= 200 and more than |b|/100 + 1 times. */
static bool matcher_index(matcher *m, size_t a_count)
{
    uint32_t *distinct = malloc((m->b_count + 1) * sizeof *distinct);
    size_t *head = NULL, *times = NULL, n = 0;
    bool fine = false;
    if (!distinct)
        return false;
    memcpy(distinct, m->b, m->b_count * sizeof *distinct);
    qsort(distinct, m->b_count, sizeof *distinct, compare_runes);
    for (size_t i = 0; i < m->b_count; i++) {
        if (n == 0 || distinct[i] != distinct[n - 1])
            distinct[n++] = distinct[i];
    }
    head = malloc((n + 1) * sizeof *head);
    times = calloc(n + 1, sizeof *times);
    if (!head || !times)
        goto out;
    for (size_t i = 0; i < n; i++)
        head[i] = m->b_count;
    for (size_t j = m->b_count; j-- > 0;) {
        const uint32_t *place = bsearch(&m->b[j], distinct, n, sizeof *distinct, compare_runes);
        size_t k = (size_t)(place - distinct);
        m->next[j] = head[k];
        head[k] = j;
        times[k]++;
    }
    for (size_t i = 0; i < a_count; i++) {
        const uint32_t *place = bsearch(&m->a[i], distinct, n, sizeof *distinct, compare_runes);
        size_t k = place ? (size_t)(place - distinct) : n;
        bool popular = place && m->b_count >= 200 && times[k] > m->b_count / 100 + 1;
        m->first[i] = place && !popular ? head[k] : m->b_count;
    }
    fine = true;
out:
    free(distinct);
    free(head);
    free(times);
    return fine;
}

/* One row of the table of block lengths: run[j + 1] is the length of the block that ends at (i, j). run is updated
 * in place: going down in b would need the row above, so the last old value is kept. */
static void extend_runs(matcher *m, const window *w, size_t i, block *best)
{
    size_t last_j = 0, last_old = 0;
    bool have_last = false;
    for (size_t j = m->first[i]; j < w->b_high; j = m->next[j]) {
        if (j < w->b_low)
            continue;
        size_t before = have_last && last_j + 1 == j ? last_old : j > w->b_low ? m->run[j] : 0;
        last_old = m->run[j + 1];
        last_j = j;
        have_last = true;
        m->run[j + 1] = before + 1;
        if (before + 1 > best->size)
            *best = (block){i - before, j - before, before + 1};
    }
}

/* The entries that row i of a set read as zero for the next row. */
static void clear_runs(matcher *m, const window *w, size_t i)
{
    for (size_t j = m->first[i]; j < w->b_high; j = m->next[j]) {
        if (j >= w->b_low)
            m->run[j + 1] = 0;
    }
}

/* The longest block of w; among equals the first in a, then the first in b. Then it grows over equal runes, which
 * may be popular ones; with no block found it grows to the right from the window's corner. */
static block longest_block(matcher *m, const window *w)
{
    block best = {w->a_low, w->b_low, 0};
    for (size_t i = w->a_low; i < w->a_high; i++) {
        extend_runs(m, w, i, &best);
        if (i > w->a_low && m->first[i - 1] != m->first[i])
            clear_runs(m, w, i - 1);
    }
    if (w->a_high > w->a_low)
        clear_runs(m, w, w->a_high - 1);
    while (best.a > w->a_low && best.b > w->b_low && m->a[best.a - 1] == m->b[best.b - 1]) {
        best.a--;
        best.b--;
        best.size++;
    }
    while (best.a + best.size < w->a_high && best.b + best.size < w->b_high &&
           m->a[best.a + best.size] == m->b[best.b + best.size])
        best.size++;
    return best;
}

/* Sum of the sizes of all matching blocks, with an explicit stack of windows. */
static bool blocks_total(matcher *m, size_t a_count, size_t *total)
{
    size_t depth = 0, capacity = 64;
    window *stack = malloc(capacity * sizeof *stack);
    if (!stack)
        return false;
    *total = 0;
    stack[depth++] = (window){0, a_count, 0, m->b_count};
    while (depth) {
        window w = stack[--depth];
        block found = longest_block(m, &w);
        size_t i = found.a, j = found.b, size = found.size;
        if (!size)
            continue;
        *total += size;
        if (depth + 2 > capacity) {
            window *more = realloc(stack, 2 * capacity * sizeof *stack);
            if (!more) {
                free(stack);
                return false;
            }
            stack = more;
            capacity *= 2;
        }
        if (w.a_low < i && w.b_low < j)
            stack[depth++] = (window){w.a_low, i, w.b_low, j};
        if (i + size < w.a_high && j + size < w.b_high)
            stack[depth++] = (window){i + size, w.a_high, j + size, w.b_high};
    }
    free(stack);
    return true;
}

static int difflib_matches(const mb_runes *a, const mb_runes *b, size_t *matches)
{
    matcher m = {.a = a->at, .b = b->at, .b_count = b->count};
    int rc = MB_E_SYSTEM;
    m.next = malloc((b->count + 1) * sizeof *m.next);
    m.first = malloc((a->count + 1) * sizeof *m.first);
    m.run = calloc(b->count + 2, sizeof *m.run);
    if (m.next && m.first && m.run && matcher_index(&m, a->count) && blocks_total(&m, a->count, matches))
        rc = MB_OK;
    free(m.next);
    free(m.first);
    free(m.run);
    return rc;
}

static int indel_matches(const mb_runes *a, const mb_runes *b, size_t *matches)
{
    size_t *row = calloc(b->count + 1, sizeof *row);
    if (!row)
        return MB_E_SYSTEM;
    for (size_t i = 0; i < a->count; i++) {
        size_t diagonal = 0;
        for (size_t j = 1; j <= b->count; j++) {
            size_t old = row[j];
            if (a->at[i] == b->at[j - 1])
                row[j] = diagonal + 1;
            else if (row[j - 1] > row[j])
                row[j] = row[j - 1];
            diagonal = old;
        }
    }
    *matches = row[b->count];
    free(row);
    return MB_OK;
}

/* fuzz.ratio: 100 for equal texts (both empty too), 0 when one is empty, else rounded, ties to even. */
static int ratio_of(const char *a, const char *b, int (*matches)(const mb_runes *, const mb_runes *, size_t *),
                    double *ratio)
{
    mb_runes left = {0}, right = {0};
    size_t common = 0;
    int rc = MB_OK;
    *ratio = strcmp(a, b) == 0 ? 100 : 0;
    if (*ratio > 0 || !*a || !*b)
        return MB_OK;
    mb_runes_decode(&left, a, strlen(a));
    mb_runes_decode(&right, b, strlen(b));
    rc = left.failed || right.failed ? MB_E_SYSTEM : matches(&left, &right, &common);
    if (rc == MB_OK) /* in Python's order: 100 times the quotient */
        *ratio = nearbyint(100 * (2.0 * (double)common / (double)(left.count + right.count)));
    mb_runes_free(&left);
    mb_runes_free(&right);
    return rc;
}

/* The first line without '`', '#' and "//", as a copy; "" when every line has one. */
static char *code_line(const char *prediction)
{
    while (*prediction == '\n')
        prediction++;
    for (;;) {
        size_t n = strcspn(prediction, "\n");
        char *line = malloc(n + 1);
        if (!line)
            return NULL;
        memcpy(line, prediction, n);
        line[n] = '\0';
        if (!strpbrk(line, "`#") && !strstr(line, "//"))
            return line;
        free(line);
        if (!prediction[n])
            return mb_string_copy("");
        prediction += n + 1;
    }
}

static int code_score(const char *prediction, const char *reference,
                      int (*matches)(const mb_runes *, const mb_runes *, size_t *), double *score)
{
    char *line = code_line(prediction);
    *score = 0;
    if (!line)
        return MB_E_SYSTEM;
    int rc = ratio_of(line, reference, matches, score);
    *score /= 100;
    free(line);
    return rc;
}

int mb_metric_code(const char *prediction, const char *reference, double *score)
{
    return code_score(prediction, reference, difflib_matches, score);
}

int mb_metric_code_indel(const char *prediction, const char *reference, double *score)
{
    return code_score(prediction, reference, indel_matches, score);
}
