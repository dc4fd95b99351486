/*
 * guess.c - "did you mean": the known name that is nearest to a word which is none. Near is the number of letters
 * to insert, delete, change, or swap with their neighbour (optimal string alignment; Damerau, CACM 7(3), 1964), in
 * either case of letters. One that is further off than a third of the word is no help and is not offered.
 */
#include "base/base.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_LENGTH (sizeof((mb_guess *)0)->best - 1)

static bool same_letter(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

static size_t smallest(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Steps from a to b, of na and nb letters, both at most NAME_MAX_LENGTH. */
static size_t steps_between(const char *a, size_t na, const char *b, size_t nb)
{
    size_t rows[3][NAME_MAX_LENGTH + 1];
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *row = rows[i % 3], *before = rows[(i + 2) % 3], *two_before = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            row[j] = smallest(before[j] + 1, row[j - 1] + 1, before[j - 1] + !same_letter(a[i - 1], b[j - 1]));
            if (i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) && same_letter(a[i - 2], b[j - 1]) &&
                two_before[j - 2] + 1 < row[j])
                row[j] = two_before[j - 2] + 1;
        }
    }
    return rows[na % 3][nb];
}

void mb_guess_offer(mb_guess *guess, const char *name, size_t length)
{
    size_t wanted = strlen(guess->word);
    if (length == 0 || length > NAME_MAX_LENGTH || wanted > NAME_MAX_LENGTH)
        return;
    size_t steps = steps_between(guess->word, wanted, name, length);
    size_t limit = wanted < 6 ? 1 + (wanted > 3) : wanted / 3;
    if (steps > limit || steps >= wanted || (*guess->best && steps >= guess->steps))
        return;
    guess->steps = steps;
    memcpy(guess->best, name, length);
    guess->best[length] = '\0';
    snprintf(guess->phrase, sizeof guess->phrase, "; did you mean %s?", guess->best);
}

const char *mb_guess_phrase(const mb_guess *guess)
{
    return guess->phrase;
}
