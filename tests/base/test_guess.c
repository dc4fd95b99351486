/* test_guess.c - "did you mean": what a mistyped word is taken for, and what is too far off for a guess. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/base.h"

static const char *guess_of(const char *word)
{
    static mb_guess guess;
    static const char *const names[] = {"limit", "list",  "latency", "methods",   "model",
                                        "seed",  "quest", "k",       "--dry-run", "dense_layers"};
    guess = (mb_guess){.word = word};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        mb_guess_offer(&guess, names[i], strlen(names[i]));
    assert_int_equal(*guess.best != '\0', *mb_guess_phrase(&guess) != '\0');
    return guess.best;
}

static void one_letter(void **state)
{
    (void)state;
    assert_string_equal(guess_of("limt"), "limit");      /* left out */
    assert_string_equal(guess_of("limmit"), "limit");    /* too many */
    assert_string_equal(guess_of("latenzy"), "latency"); /* another */
    assert_string_equal(guess_of("lits"), "list");       /* swapped: one step, so nearer than limit */
    assert_string_equal(guess_of("Quest"), "quest");
    assert_string_equal(guess_of("--dryrun"), "--dry-run");
    assert_string_equal(guess_of("denselayers"), "dense_layers");
}

static void too_far(void **state)
{
    (void)state;
    assert_string_equal(guess_of("banana"), "");
    assert_string_equal(guess_of("xyz"), "");
    assert_string_equal(guess_of(""), "");
    char long_word[300];
    memset(long_word, 'a', sizeof long_word - 1);
    long_word[sizeof long_word - 1] = '\0';
    assert_string_equal(guess_of(long_word), "");
}

static void names_that_do_not_end(void **state)
{
    mb_guess guess = {.word = "--limt"};
    (void)state;
    mb_guess_offer(&guess, "--limit N", 7); /* a flag with its value behind */
    assert_string_equal(mb_guess_phrase(&guess), "; did you mean --limit?");
    mb_guess_offer(&guess, "", 0);
    assert_string_equal(guess.best, "--limit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_letter), cmocka_unit_test(too_far),
                                       cmocka_unit_test(names_that_do_not_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
