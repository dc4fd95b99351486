/*
 * class.c - the metrics that look for labels and numbers: classification, count, retrieval; and the first
 * line that few-shot tasks are scored on.
 */
#include "datasets/metric/metrics.h"

#include <stdlib.h>
#include <string.h>

const char *mb_first_line(const char *prediction, size_t *length)
{
    while (*prediction == '\n') /* only newlines: blanks stay */
        prediction++;
    *length = strcspn(prediction, "\n");
    return prediction;
}

/*
 * Labels that occur in the prediction, minus those that are part of the reference's own name; 1/n when the
 * reference is among the rest. The official scorer deletes from the list while it iterates over it, so the label
 * after a deleted one is never looked at; that is kept, because it decides scores.
 */
int mb_metric_classification(const char *prediction, const char *reference, char *const *classes,
                             size_t class_count, double *score)
{
    *score = 0;
    if (!class_count)
        return MB_OK;
    const char **found = malloc(class_count * sizeof *found);
    size_t n = 0;
    if (!found)
        return MB_E_SYSTEM;
    for (size_t i = 0; i < class_count; i++) {
        if (strstr(prediction, classes[i]))
            found[n++] = classes[i];
    }
    for (size_t i = 0; i < n; i++) {
        const char *label = found[i];
        if (!strstr(reference, label) || strcmp(label, reference) == 0)
            continue;
        size_t first = 0;
        while (strcmp(found[first], label) != 0)
            first++;
        memmove(found + first, found + first + 1, (n - first - 1) * sizeof *found);
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(found[i], reference) == 0) {
            *score = 1.0 / (double)n;
            break;
        }
    }
    free(found);
    return MB_OK;
}

/* The next maximal run of decimal digits at or after *i. */
static bool digits_next(const mb_runes *text, size_t *i, size_t *from, size_t *end)
{
    while (*i < text->count && !mb_rune_is_digit(text->at[*i]))
        (*i)++;
    *from = *i;
    while (*i < text->count && mb_rune_is_digit(text->at[*i]))
        (*i)++;
    *end = *i;
    return *end > *from;
}

/* Share of the prediction's numbers that equal the wanted code points ("05" is not "5"). */
static int numbers_share(const char *prediction, const uint32_t *wanted, size_t wanted_count, double *score)
{
    mb_runes text = {0};
    size_t i = 0, from, end, numbers = 0, right = 0;
    mb_runes_decode(&text, prediction, strlen(prediction));
    if (text.failed)
        return MB_E_SYSTEM;
    while (digits_next(&text, &i, &from, &end)) {
        numbers++;
        right += end - from == wanted_count && memcmp(text.at + from, wanted, wanted_count * sizeof *wanted) == 0;
    }
    mb_runes_free(&text);
    *score = numbers ? (double)right / (double)numbers : 0;
    return MB_OK;
}

int mb_metric_count(const char *prediction, const char *reference, double *score)
{
    mb_runes wanted = {0};
    *score = 0;
    mb_runes_decode(&wanted, reference, strlen(reference));
    int rc = wanted.failed ? MB_E_SYSTEM : numbers_share(prediction, wanted.at, wanted.count, score);
    mb_runes_free(&wanted);
    return rc;
}

int mb_metric_retrieval(const char *prediction, const char *reference, const char *cue, double *score,
                        mb_error *err)
{
    *score = 0;
    /* The first place where the cue is followed by a digit. */
    for (const char *p = reference; (p = strstr(p, cue)); p++) {
        mb_runes rest = {0};
        const char *number = p + strlen(cue);
        mb_runes_decode(&rest, number, strlen(number));
        size_t n = 0;
        while (n < rest.count && mb_rune_is_digit(rest.at[n]))
            n++;
        int rc = rest.failed ? MB_E_SYSTEM : n ? numbers_share(prediction, rest.at, n, score) : MB_OK;
        mb_runes_free(&rest);
        if (n || rc != MB_OK)
            return rc;
    }
    return mb_fail(err, MB_E_SAMPLE, "the reference \"%.60s\" holds no \"%s\" with a number", reference, cue);
}
