/*
 * jieba.c - Chinese word segmentation, equal to jieba 0.42.1's cut(text, cut_all=False, HMM=True), because the
 * Chinese scores of LongBench count its words.
 *
 * Text is cut into blocks of Han, ASCII letters, digits and +#&._%-. In a block every dictionary word from every
 * position is an edge; the path with the largest sum of log(frequency / total) wins (a dynamic programme from the
 * right). What the path leaves as single characters goes, run by run, to a hidden Markov model (jieba_hmm.c).
 */
#include "datasets/metric/jieba_table.h"
#include "datasets/metric/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Token ends in order; a growable array. */
typedef struct cuts {
    size_t *ends;
    size_t count, capacity;
    bool failed;
} cuts;

static void cut_at(cuts *out, size_t end)
{
    if (out->failed)
        return;
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 128;
        size_t *ends = realloc(out->ends, capacity * sizeof *ends);
        if (!ends) {
            out->failed = true;
            return;
        }
        out->ends = ends;
        out->capacity = capacity;
    }
    out->ends[out->count++] = end;
}

static bool is_han(uint32_t c)
{
    return c >= MB_HAN_FIRST && c <= MB_HAN_LAST;
}

static bool is_alphanumeric(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool in_block(uint32_t c)
{
    return is_han(c) || is_alphanumeric(c) || (c < 0x80 && c && strchr("+#&._%-", (int)c));
}

/* What may follow letters and digits at `from`: (\.\d+)?%?. */
static size_t number_end(const uint32_t *text, size_t from, size_t end)
{
    size_t stop = from, digits = from + 1;
    if (stop < end && text[stop] == '.') {
        while (digits < end && text[digits] >= '0' && text[digits] <= '9')
            digits++;
        if (digits > stop + 1)
            stop = digits;
    }
    return stop < end && text[stop] == '%' ? stop + 1 : stop;
}

/* A run without Han characters inside a block: [a-zA-Z0-9]+(\.\d+)?%? are tokens, so is what lies between. */
static void cut_latin(const uint32_t *text, size_t from, size_t end, cuts *out)
{
    for (size_t i = from; i < end;) {
        size_t stop = i;
        if (!is_alphanumeric(text[i])) {
            while (stop < end && !is_alphanumeric(text[stop]))
                stop++;
        } else {
            while (stop < end && is_alphanumeric(text[stop]))
                stop++;
            stop = number_end(text, stop, end);
        }
        cut_at(out, stop);
        i = stop;
    }
}

/* Han characters that no dictionary word covered: B...E is a word, S alone is one. */
static void cut_han(const mb_jieba *jieba, const uint32_t *text, size_t from, size_t end, cuts *out)
{
    unsigned char *states = malloc(end - from);
    if (!states || !mb_hmm_decode(&jieba->hmm, text + from, end - from, states)) {
        free(states);
        out->failed = true;
        return;
    }
    for (size_t i = from; i < end; i++) {
        if (states[i - from] == MB_HMM_E || states[i - from] == MB_HMM_S)
            cut_at(out, i + 1);
    }
    if (states[end - from - 1] != MB_HMM_E && states[end - from - 1] != MB_HMM_S)
        cut_at(out, end);
    free(states);
}

/* A run of characters that the best path left single. */
static void cut_singles(const mb_jieba *jieba, const uint32_t *text, size_t from, size_t end, cuts *out)
{
    if (from == end)
        return;
    if (end - from > 1) {
        uint64_t hash = 0;
        for (size_t i = from; i < end; i++)
            hash = mb_jieba_hash(hash, text[i]);
        const mb_jieba_entry *word = mb_jieba_find(jieba, text + from, end - from, hash);
        if (!word || !word->frequency) {
            for (size_t i = from; i < end;) {
                size_t stop = i;
                bool han = is_han(text[i]);
                while (stop < end && is_han(text[stop]) == han)
                    stop++;
                if (han)
                    cut_han(jieba, text, i, stop, out);
                else
                    cut_latin(text, i, stop, out);
                i = stop;
            }
            return;
        }
    }
    /* One character, or a dictionary word that the path did not take: as single characters. */
    for (size_t i = from; i < end; i++)
        cut_at(out, i + 1);
}

/* best[i]: log-probability of the best path from i to the block's end; to[i]: where its first word ends. */
static void block_route(const mb_jieba *jieba, const uint32_t *text, size_t n, double *best, size_t *to)
{
    best[n] = 0;
    for (size_t i = n; i-- > 0;) {
        uint64_t hash = 0;
        bool any = false;
        for (size_t end = i + 1; end <= n; end++) {
            hash = mb_jieba_hash(hash, text[end - 1]);
            const mb_jieba_entry *word = mb_jieba_find(jieba, text + i, end - i, hash);
            if (!word)
                break;
            if (!word->frequency)
                continue;
            double value = log((double)word->frequency) - jieba->log_total + best[end];
            if (!any || value >= best[i]) { /* a tie goes to the longer word */
                best[i] = value;
                to[i] = end;
            }
            any = true;
        }
        if (!any) { /* unknown: the character alone, as if it had been seen once */
            const mb_jieba_entry *one = mb_jieba_find(jieba, text + i, 1, mb_jieba_hash(0, text[i]));
            double frequency = one && one->frequency ? (double)one->frequency : 1;
            best[i] = log(frequency) - jieba->log_total + best[i + 1];
            to[i] = i + 1;
        }
    }
}

static void cut_block(const mb_jieba *jieba, const uint32_t *text, size_t from, size_t end, cuts *out)
{
    size_t n = end - from, single = from;
    double *best = malloc((n + 1) * sizeof *best);
    size_t *to = malloc((n + 1) * sizeof *to);
    if (!best || !to) {
        out->failed = true;
    } else {
        block_route(jieba, text + from, n, best, to);
        for (size_t i = 0; i < n; i = to[i]) {
            if (to[i] == i + 1)
                continue;
            cut_singles(jieba, text, single, from + i, out);
            cut_at(out, from + to[i]);
            single = from + to[i];
        }
        cut_singles(jieba, text, single, end, out);
    }
    free(best);
    free(to);
}

int mb_jieba_cut(const uint32_t *text, size_t count, size_t **ends, size_t *token_count, mb_error *err)
{
    cuts out = {0};
    *ends = NULL;
    *token_count = 0;
    const mb_jieba *jieba = mb_jieba_tables(err);
    if (!jieba)
        return MB_E_SAMPLE;
    for (size_t i = 0; i < count && !out.failed;) {
        size_t stop = i;
        while (stop < count && in_block(text[stop]))
            stop++;
        if (stop > i) {
            cut_block(jieba, text, i, stop, &out);
        } else { /* CR LF is one token, every other character is one */
            stop = i + (text[i] == '\r' && i + 1 < count && text[i + 1] == '\n' ? 2 : 1);
            cut_at(&out, stop);
        }
        i = stop;
    }
    if (out.failed) {
        free(out.ends);
        return mb_no_memory(err, "cutting %zu characters into words", count);
    }
    *ends = out.ends;
    *token_count = out.count;
    return MB_OK;
}

int mb_jieba_ready(mb_error *err)
{
    return mb_jieba_tables(err) ? MB_OK : MB_E_SAMPLE;
}
