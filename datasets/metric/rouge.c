/*
 * rouge.c - ROUGE-L in the two flavours that LongBench papers report.
 *
 * pltrdy/rouge 1.0.1 (LongBench) is not the textbook's: sentences end at '.', the longest common subsequences of
 * all sentence pairs are thrown into one set of words, and precision and recall are taken over distinct words.
 * Which subsequence is found among equally long ones therefore matters; the walk back prefers the shorter prefix
 * of the reference only when that is strictly better. That package gives 0 where Python's recursion limit is hit
 * (a sentence pair of about a thousand words); here the true value is given.
 */
#include "datasets/metric/metrics.h"

#include <stdlib.h>
#include <string.h>

/* A text cut into sentences of word numbers. Sentence s is words[starts[s] .. starts[s+1]). */
typedef struct document {
    mb_runes text; /* what the lexicon borrows */
    int32_t *words;
    size_t word_count, word_capacity;
    size_t *starts;
    size_t sentence_count, sentence_capacity;
} document;

static void document_free(document *d)
{
    mb_runes_free(&d->text);
    free(d->words);
    free(d->starts);
}

static bool document_word(document *d, mb_lexicon *lexicon, size_t from, size_t end)
{
    int32_t number = mb_lexicon_number(lexicon, d->text.at ? d->text.at + from : NULL, end - from);
    if (number < 0)
        return false;
    if (d->word_count == d->word_capacity) {
        size_t capacity = d->word_capacity ? d->word_capacity * 2 : 256;
        int32_t *words = realloc(d->words, capacity * sizeof *words);
        if (!words)
            return false;
        d->words = words;
        d->word_capacity = capacity;
    }
    d->words[d->word_count++] = number;
    return true;
}

/* Records where a sentence starts (and, for the last one, where it ends: one more entry than sentences). */
static bool document_mark(document *d, size_t sentence)
{
    if (sentence >= d->sentence_capacity) {
        size_t capacity = d->sentence_capacity ? d->sentence_capacity * 2 : 64;
        size_t *starts = realloc(d->starts, capacity * sizeof *starts);
        if (!starts)
            return false;
        d->starts = starts;
        d->sentence_capacity = capacity;
    }
    d->starts[sentence] = d->word_count;
    return true;
}

/* One piece between full stops: its white-space words; a piece of white space only is one empty word. */
static bool document_sentence(document *d, mb_lexicon *lexicon, size_t from, size_t end)
{
    size_t before = d->word_count;
    if (!document_mark(d, d->sentence_count))
        return false;
    for (size_t i = from; i < end;) {
        size_t stop = i;
        while (stop < end && !mb_rune_is_space(d->text.at[stop]))
            stop++;
        if (stop > i && !document_word(d, lexicon, i, stop))
            return false;
        i = stop + 1;
    }
    if (d->word_count == before && !document_word(d, lexicon, from, from))
        return false;
    d->sentence_count++;
    return true;
}

/* Splits d->text at '.'; empty pieces are dropped. whole: the text is one piece and blanks make no word. */
static bool document_split(document *d, mb_lexicon *lexicon, bool whole)
{
    if (whole) {
        bool blank = true;
        for (size_t i = 0; i < d->text.count && blank; i++)
            blank = mb_rune_is_space(d->text.at[i]);
        if (!blank && !document_sentence(d, lexicon, 0, d->text.count))
            return false;
        return document_mark(d, d->sentence_count);
    }
    for (size_t i = 0; i < d->text.count;) {
        size_t stop = i;
        while (stop < d->text.count && d->text.at[stop] != '.')
            stop++;
        if (stop > i && !document_sentence(d, lexicon, i, stop))
            return false;
        i = stop + 1;
    }
    return document_mark(d, d->sentence_count);
}

/* Adds the words of one longest common subsequence of r and h to the set. lengths: two rows of |h| + 1; up: one
 * bit a cell, set where the walk back goes to the shorter reference prefix. */
static void pair_union(const int32_t *r, size_t rn, const int32_t *h, size_t hn, int32_t *lengths,
                       unsigned char *up, bool *set)
{
    int32_t *above = lengths, *here = lengths + hn + 1;
    size_t stride = hn / 8 + 1;
    memset(above, 0, (hn + 1) * sizeof *above);
    memset(up, 0, rn * stride);
    for (size_t i = 1; i <= rn; i++) {
        here[0] = 0;
        for (size_t j = 1; j <= hn; j++) {
            if (r[i - 1] == h[j - 1]) {
                here[j] = above[j - 1] + 1;
            } else if (above[j] > here[j - 1]) {
                here[j] = above[j];
                up[(i - 1) * stride + j / 8] |= (unsigned char)(1u << (j % 8));
            } else {
                here[j] = here[j - 1];
            }
        }
        int32_t *swap = above;
        above = here;
        here = swap;
    }
    for (size_t i = rn, j = hn; i > 0 && j > 0;) {
        if (r[i - 1] == h[j - 1]) {
            set[r[i - 1]] = true;
            i--;
            j--;
        } else if (up[(i - 1) * stride + j / 8] >> (j % 8) & 1) {
            i--;
        } else {
            j--;
        }
    }
}

static size_t longest_sentence(const document *d)
{
    size_t longest = 0;
    for (size_t s = 0; s < d->sentence_count; s++) {
        size_t n = d->starts[s + 1] - d->starts[s];
        longest = n > longest ? n : longest;
    }
    return longest;
}

static size_t distinct_words(const document *d, bool *seen, size_t lexicon_count)
{
    size_t distinct = 0;
    memset(seen, 0, lexicon_count * sizeof *seen);
    for (size_t i = 0; i < d->word_count; i++) {
        distinct += !seen[d->words[i]];
        seen[d->words[i]] = true;
    }
    return distinct;
}

static double f_score(size_t common, size_t hypothesis, size_t reference)
{
    double p = (double)common / (double)hypothesis, r = (double)common / (double)reference;
    return 2.0 * ((p * r) / (p + r + 1e-8));
}

static int documents_score(const document *hyp, const document *ref, size_t lexicon_count, double *score)
{
    size_t hn = longest_sentence(hyp), rn = longest_sentence(ref), common = 0;
    int rc = MB_E_SYSTEM;
    *score = 0;
    if (!hyp->sentence_count || !ref->sentence_count)
        return MB_OK;
    int32_t *lengths = malloc(2 * (hn + 1) * sizeof *lengths);
    unsigned char *up = malloc(rn * (hn / 8 + 1));
    bool *set = calloc(lexicon_count, sizeof *set);
    if (!lengths || !up || !set)
        goto out;
    size_t n = distinct_words(hyp, set, lexicon_count), m = distinct_words(ref, set, lexicon_count);
    memset(set, 0, lexicon_count * sizeof *set);
    for (size_t i = 0; i < ref->sentence_count; i++) {
        for (size_t j = 0; j < hyp->sentence_count; j++)
            pair_union(ref->words + ref->starts[i], ref->starts[i + 1] - ref->starts[i],
                       hyp->words + hyp->starts[j], hyp->starts[j + 1] - hyp->starts[j], lengths, up, set);
    }
    for (size_t i = 0; i < lexicon_count; i++)
        common += set[i];
    *score = f_score(common, n, m);
    rc = MB_OK;
out:
    free(lengths);
    free(up);
    free(set);
    return rc;
}

/* Length of the longest common subsequence, repeats counted. */
static int plain_score(const document *hyp, const document *ref, double *score)
{
    *score = 0;
    if (!hyp->word_count || !ref->word_count)
        return MB_OK;
    size_t hn = hyp->word_count;
    int32_t *row = calloc(hn + 1, sizeof *row);
    if (!row)
        return MB_E_SYSTEM;
    for (size_t i = 0; i < ref->word_count; i++) {
        int32_t diagonal = 0;
        for (size_t j = 1; j <= hn; j++) {
            int32_t old = row[j];
            if (ref->words[i] == hyp->words[j - 1])
                row[j] = diagonal + 1;
            else if (row[j - 1] > row[j])
                row[j] = row[j - 1];
            diagonal = old;
        }
    }
    *score = f_score((size_t)row[hn], hn, ref->word_count);
    free(row);
    return MB_OK;
}

/* Both texts are in the documents' runes. */
static int texts_score(document *hyp, document *ref, bool plain, double *score)
{
    mb_lexicon *lexicon = mb_lexicon_new();
    int rc = MB_E_SYSTEM;
    if (lexicon && !hyp->text.failed && !ref->text.failed && document_split(hyp, lexicon, plain) &&
        document_split(ref, lexicon, plain))
        rc = plain ? plain_score(hyp, ref, score) : documents_score(hyp, ref, mb_lexicon_count(lexicon), score);
    mb_lexicon_free(lexicon);
    return rc;
}

static int strings_score(const char *prediction, const char *reference, bool plain, double *score)
{
    document hyp = {0}, ref = {0};
    *score = 0;
    mb_runes_decode(&hyp.text, prediction, strlen(prediction));
    mb_runes_decode(&ref.text, reference, strlen(reference));
    int rc = texts_score(&hyp, &ref, plain, score);
    document_free(&hyp);
    document_free(&ref);
    return rc;
}

int mb_metric_rouge_l(const char *prediction, const char *reference, double *score)
{
    return strings_score(prediction, reference, false, score);
}

int mb_metric_rouge_l_plain(const char *prediction, const char *reference, double *score)
{
    return strings_score(prediction, reference, true, score);
}

/* " ".join(jieba.cut(text)) */
static int chinese_spaced(const char *bytes, mb_runes *out, mb_error *err)
{
    mb_runes raw = {0};
    size_t *ends = NULL, count = 0;
    int rc = MB_E_SYSTEM;
    mb_runes_decode(&raw, bytes, strlen(bytes));
    if (!raw.failed)
        rc = mb_jieba_cut(raw.at, raw.count, &ends, &count, err);
    for (size_t t = 0, from = 0; rc == MB_OK && t < count; from = ends[t++]) {
        if (t)
            mb_runes_push(out, ' ');
        mb_runes_append(out, raw.at + from, ends[t] - from);
    }
    free(ends);
    mb_runes_free(&raw);
    return rc;
}

int mb_metric_rouge_l_zh(const char *prediction, const char *reference, double *score, mb_error *err)
{
    document hyp = {0}, ref = {0};
    *score = 0;
    int rc = chinese_spaced(prediction, &hyp.text, err);
    if (rc == MB_OK)
        rc = chinese_spaced(reference, &ref.text, err);
    if (rc == MB_OK)
        rc = texts_score(&hyp, &ref, false, score);
    document_free(&hyp);
    document_free(&ref);
    return rc;
}
