/*
 * qa.c - F1 over bags of words, English and Chinese. The normalisation follows SQuAD's evaluation script as
 * LongBench uses it: lower case, ASCII punctuation deleted, whole words a/an/the deleted, split at white space.
 * Two empty bags score 0 (SQuAD's own script says 1).
 */
#include "datasets/metric/metrics.h"

#include <stdlib.h>
#include <string.h>

/* Words of one text as numbers. */
typedef struct bag {
    int32_t *words;
    size_t count, capacity;
} bag;

static bool bag_add(bag *b, mb_lexicon *lexicon, const uint32_t *at, size_t count)
{
    int32_t number = mb_lexicon_number(lexicon, at, count);
    if (number < 0)
        return false;
    if (b->count == b->capacity) {
        size_t capacity = b->capacity ? b->capacity * 2 : 64;
        int32_t *words = realloc(b->words, capacity * sizeof *words);
        if (!words)
            return false;
        b->words = words;
        b->capacity = capacity;
    }
    b->words[b->count++] = number;
    return true;
}

/* c = sum over words of the smaller count; F = 2pr/(p+r) with p = c/|prediction|, r = c/|reference|. */
static int bags_f1(const bag *prediction, const bag *reference, size_t distinct, double *score)
{
    *score = 0;
    if (!prediction->count || !reference->count)
        return MB_OK;
    int32_t *open = calloc(distinct, sizeof *open); /* occurrences of the reference not yet matched */
    if (!open)
        return MB_E_SYSTEM;
    size_t common = 0;
    for (size_t i = 0; i < reference->count; i++)
        open[reference->words[i]]++;
    for (size_t i = 0; i < prediction->count; i++) {
        if (open[prediction->words[i]] > 0) {
            open[prediction->words[i]]--;
            common++;
        }
    }
    free(open);
    if (common) {
        double p = (double)common / (double)prediction->count, r = (double)common / (double)reference->count;
        *score = 2 * p * r / (p + r);
    }
    return MB_OK;
}

static bool is_article(const uint32_t *w, size_t n)
{
    return (n == 1 && w[0] == 'a') || (n == 2 && w[0] == 'a' && w[1] == 'n') ||
           (n == 3 && w[0] == 't' && w[1] == 'h' && w[2] == 'e');
}

/* Blanks out the whole words a, an, the: re.sub(r"\b(a|an|the)\b", " "). A whole word is a maximal run of \w. */
static void articles_blank(mb_runes *text)
{
    for (size_t i = 0; i < text->count;) {
        size_t end = i;
        while (end < text->count && mb_rune_is_word(text->at[end]))
            end++;
        if (is_article(text->at + i, end - i)) {
            for (size_t j = i; j < end; j++)
                text->at[j] = ' ';
        }
        i = end + 1;
    }
}

/* Lower case without punctuation; is_mark adds the language's own marks to the 32 ASCII ones. */
static void normalise(const uint32_t *at, size_t count, bool (*is_mark)(uint32_t), mb_runes *out)
{
    size_t kept = 0;
    mb_runes_lower(at, count, out);
    if (out->failed)
        return;
    for (size_t i = 0; i < out->count; i++) {
        if (!mb_rune_is_ascii_punctuation(out->at[i]) && !(is_mark && is_mark(out->at[i])))
            out->at[kept++] = out->at[i];
    }
    out->count = kept;
}

/* text keeps the code points that the lexicon borrows. */
static bool words_english(const char *bytes, mb_runes *text, mb_lexicon *lexicon, bag *out)
{
    mb_runes raw = {0};
    mb_runes_decode(&raw, bytes, strlen(bytes));
    if (!raw.failed)
        normalise(raw.at, raw.count, NULL, text);
    bool fine = !raw.failed && !text->failed;
    mb_runes_free(&raw);
    if (!fine)
        return false;
    articles_blank(text);
    for (size_t i = 0; i < text->count;) {
        size_t end = i;
        while (end < text->count && !mb_rune_is_space(text->at[end]))
            end++;
        if (end > i && !bag_add(out, lexicon, text->at + i, end - i))
            return false;
        i = end + 1;
    }
    return true;
}

int mb_metric_qa_f1(const char *prediction, const char *reference, double *score)
{
    mb_runes text[2] = {{0}, {0}};
    bag bags[2] = {{0}, {0}};
    mb_lexicon *lexicon = mb_lexicon_new();
    int rc = MB_E_SYSTEM;
    *score = 0;
    if (lexicon && words_english(prediction, &text[0], lexicon, &bags[0]) &&
        words_english(reference, &text[1], lexicon, &bags[1]))
        rc = bags_f1(&bags[0], &bags[1], mb_lexicon_count(lexicon), score);
    for (int i = 0; i < 2; i++) {
        mb_runes_free(&text[i]);
        free(bags[i].words);
    }
    mb_lexicon_free(lexicon);
    return rc;
}

/* The Chinese marks that LongBench deletes. U+300A (left double angle) and U+00B7 are not among them, as there. */
static bool is_chinese_mark(uint32_t c)
{
    static const char marks[] =
        "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕"
        "〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.";
    if (c < 0x2010 || (c >= 0x3400 && c < 0xFE00)) /* quick answer for most characters */
        return c == '.';
    mb_text one = {0};
    mb_runes_encode(&c, 1, &one);
    bool found = one.data && strstr(marks, one.data) != NULL;
    mb_text_free(&one);
    return found;
}

/* Cuts into words, then normalises each word alone: white space inside a token vanishes, an empty one is dropped.
 */
static int words_chinese(const char *bytes, mb_runes *text, mb_lexicon *lexicon, bag *out, mb_error *err)
{
    mb_runes raw = {0}, word = {0};
    size_t *ends = NULL, *kept = NULL, count = 0;
    int rc = MB_E_SYSTEM;
    mb_runes_decode(&raw, bytes, strlen(bytes));
    if (raw.failed)
        goto out;
    rc = mb_jieba_cut(raw.at, raw.count, &ends, &count, err);
    if (rc != MB_OK)
        goto out;
    rc = MB_E_SYSTEM;
    kept = calloc(count + 1, sizeof *kept);
    if (!kept)
        goto out;
    for (size_t t = 0, from = 0; t < count; from = ends[t++]) {
        word.count = 0;
        normalise(raw.at + from, ends[t] - from, is_chinese_mark, &word);
        if (word.failed)
            goto out;
        for (size_t i = 0; i < word.count; i++) {
            if (!mb_rune_is_space(word.at[i]))
                mb_runes_push(text, word.at[i]);
        }
        kept[t] = text->count;
    }
    if (text->failed)
        goto out;
    for (size_t t = 0, from = 0; t < count; from = kept[t++]) {
        if (kept[t] > from && !bag_add(out, lexicon, text->at + from, kept[t] - from))
            goto out;
    }
    rc = MB_OK;
out:
    free(kept);
    free(ends);
    mb_runes_free(&raw);
    mb_runes_free(&word);
    return rc;
}

int mb_metric_qa_f1_zh(const char *prediction, const char *reference, double *score, mb_error *err)
{
    mb_runes text[2] = {{0}, {0}};
    bag bags[2] = {{0}, {0}};
    mb_lexicon *lexicon = mb_lexicon_new();
    int rc = MB_E_SYSTEM;
    *score = 0;
    if (lexicon)
        rc = words_chinese(prediction, &text[0], lexicon, &bags[0], err);
    if (rc == MB_OK)
        rc = words_chinese(reference, &text[1], lexicon, &bags[1], err);
    if (rc == MB_OK)
        rc = bags_f1(&bags[0], &bags[1], mb_lexicon_count(lexicon), score);
    for (int i = 0; i < 2; i++) {
        mb_runes_free(&text[i]);
        free(bags[i].words);
    }
    mb_lexicon_free(lexicon);
    return rc;
}
