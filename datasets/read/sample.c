/*
 * sample.c - making and freeing samples, filling prompt templates, finding the embedded prompt files.
 */
#include "datasets/internal.h"

#include <stdlib.h>
#include <string.h>

static void strings_free(char **strings, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(strings[i]);
    free(strings);
}

void mb_sample_free(mb_sample *sample)
{
    if (!sample)
        return;
    free(sample->key);
    free(sample->prompt);
    free(sample->answer_prefix);
    strings_free(sample->answers, sample->answer_count);
    strings_free(sample->classes, sample->class_count);
    free(sample->language);
    free(sample->group);
    free(sample->source);
    free(sample->scoring);
    free(sample);
}

mb_sample *mb_sample_new(void)
{
    mb_sample *sample = calloc(1, sizeof *sample);
    if (!sample)
        return NULL;
    sample->depth = -1;
    sample->answer_prefix = mb_string_copy("");
    if (!sample->answer_prefix) {
        free(sample);
        return NULL;
    }
    return sample;
}

static bool strings_add(char ***strings, size_t *count, const char *text, size_t length)
{
    char *copy = malloc(length + 1);
    if (!copy)
        return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    /* Room grows in powers of two: the count alone tells when it is used up. */
    if ((*count & (*count - 1)) == 0) {
        char **more = realloc(*strings, (*count ? *count * 2 : 1) * sizeof **strings);
        if (!more) {
            free(copy);
            return false;
        }
        *strings = more;
    }
    (*strings)[(*count)++] = copy;
    return true;
}

bool mb_sample_add_answer(mb_sample *sample, const char *text, size_t length)
{
    return strings_add(&sample->answers, &sample->answer_count, text, length);
}

bool mb_sample_add_class(mb_sample *sample, const char *text, size_t length)
{
    return strings_add(&sample->classes, &sample->class_count, text, length);
}

/* The pair whose `{name}` stands at place; NULL = none. */
static const mb_prompt_pair *pair_at(const char *place, size_t left, const mb_prompt_pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(pairs[i].name);
        if (left >= n + 2 && memcmp(place + 1, pairs[i].name, n) == 0 && place[n + 1] == '}')
            return &pairs[i];
    }
    return NULL;
}

void mb_prompt_fill(mb_text *out, const char *template_text, size_t length, const mb_prompt_pair *pairs,
                    size_t pair_count, bool braces)
{
    size_t plain = 0; /* start of the run of bytes that is copied as it stands */
    for (size_t i = 0; i < length;) {
        char c = template_text[i];
        if (c == '{' || (braces && c == '}')) {
            if (braces && i + 1 < length && template_text[i + 1] == c) {
                mb_text_append(out, template_text + plain, i + 1 - plain);
                i += 2;
                plain = i;
                continue;
            }
            const mb_prompt_pair *pair =
                c == '{' ? pair_at(template_text + i, length - i, pairs, pair_count) : NULL;
            if (pair) {
                mb_text_append(out, template_text + plain, i - plain);
                mb_text_puts(out, pair->value);
                i += strlen(pair->name) + 2;
                plain = i;
                continue;
            }
        }
        i++;
    }
    mb_text_append(out, template_text + plain, length - plain);
}

const char *mb_prompt_find(const char *name, size_t *length)
{
    char path[256] = "datasets/prompts/";
    size_t n = strlen(path);
    if (strlen(name) >= sizeof path - n)
        return NULL;
    memcpy(path + n, name, strlen(name) + 1);
    return mb_embedded_find(path, length);
}
