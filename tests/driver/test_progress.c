/* test_progress.c - the time left weighs parts of a run by what they are estimated to take. */
#include "driver/os/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A hundred samples of 1 s and one latency case of 900 s: after the samples, nine tenths are left and not one
 * part. */
static void latency_weighs(void **state)
{
    mb_progress progress;
    (void)state;
    mb_progress_begin(&progress, true, 100 + 900);
    assert_true(mb_progress_left(&progress, 5) < 0);
    for (int i = 0; i < 100; i++)
        mb_progress_step(&progress, 1, true);
    assert_float_equal(mb_progress_left(&progress, 50), 450, 1e-6); /* the machine is twice as fast as assumed */
    mb_progress_step(&progress, 900, true);
    assert_true(mb_progress_left(&progress, 500) < 0);
}

/* What was stored already is done, but says nothing about the rate. */
static void stored_is_no_rate(void **state)
{
    mb_progress progress;
    (void)state;
    mb_progress_begin(&progress, true, 40);
    mb_progress_step(&progress, 20, false);
    assert_true(mb_progress_left(&progress, 1) < 0);
    mb_progress_step(&progress, 10, true);
    assert_float_equal(mb_progress_left(&progress, 30), 30, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(latency_weighs), cmocka_unit_test(stored_is_no_rate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
