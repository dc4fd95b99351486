/*
 * test_foreign.c - the guard around code that is not ours: whatever it changes of the process is put back, and
 * none of the ways to end a program ends this one.
 */
#include "base/foreign.h"

#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <cmocka.h>

static void by_exit(void)
{
    exit(0);
}

static void by_underscore(void)
{
    _exit(0);
}

static void by_upper(void)
{
    _Exit(7);
}

static void by_quick(void)
{
    quick_exit(0);
}

static void (*const ends[])(void) = {by_exit, by_underscore, by_upper, by_quick, abort};

static void no_end_ends_the_program(void **state)
{
    (void)state;
    for (volatile size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        mb_foreign outer, guard;
        mb_error err = {0};
        volatile bool outer_left = false, came_through = false;
        mb_foreign_enter(&outer, MB_FOREIGN_CALL);
        if (MB_FOREIGN_LEFT(&outer))
            outer_left = true;
        else {
            mb_foreign_enter(&guard, MB_FOREIGN_WHOLE);
            if (!MB_FOREIGN_LEFT(&guard)) {
                ends[i]();
                came_through = true;
            }
            mb_foreign_leave(&guard);
        }
        mb_foreign_leave(&outer);
        assert_false(came_through || outer_left || outer.left);
        assert_true(guard.left && mb_foreign_failed(&guard, &err));
        assert_non_null(strstr(err.text, "it called "));
        assert_int_equal(guard.exit_code, i == 2 ? 7 : i == 4 ? 134 : 0);
    }
}

/* Outside of a guard they do what they always did. */
static void outside_they_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        int status = 0;
        pid_t pid = fork();
        if (pid == 0)
            ends[i]();
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (i == 4)
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        else
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == (i == 2 ? 7 : 0));
    }
}

/* A product that only a processor that flushes denormals makes zero. */
static bool keeps_denormals(void)
{
    volatile float small = 1e-30f, factor = 1e-10f;
    return small * factor > 0;
}

static void light_state_is_put_back(void **state)
{
    (void)state;
    mb_foreign guard;
    mb_foreign_enter(&guard, MB_FOREIGN_CALL);
#if defined(__SSE__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* flush to zero, denormals are zero: what -ffast-math sets */
    assert_false(keeps_denormals());
#endif
    locale_t own = newlocale(LC_ALL_MASK, "C.UTF-8", (locale_t)0);
    assert_true(own != (locale_t)0);
    uselocale(own);
    assert_non_null(setlocale(LC_ALL, "C.UTF-8"));
    mb_foreign_leave(&guard);
    assert_true(keeps_denormals());
    assert_string_equal(setlocale(LC_ALL, NULL), "C");
    assert_true(uselocale((locale_t)0) == LC_GLOBAL_LOCALE);
    freelocale(own);
}

static void by_signal(int number)
{
    (void)number;
}

static void whole_state_is_put_back(void **state)
{
    (void)state;
    char before[4096], after[4096];
    struct stat out_before, out_after, in_before, in_after;
    struct sigaction present, action; /* a job in the background has SIGINT ignored */
    sigset_t all, blocked;
    mb_foreign guard;
    sigaction(SIGINT, NULL, &present);
    assert_non_null(getcwd(before, sizeof before));
    assert_true(fstat(1, &out_before) == 0 && fstat(0, &in_before) == 0);
    mode_t mask = umask(022);
    mb_foreign_enter(&guard, MB_FOREIGN_WHOLE);
    assert_int_equal(chdir("/"), 0);
    umask(0777);
    signal(SIGINT, by_signal);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    close(0);
    int null = open("/dev/full", O_WRONLY);
    dup2(null, 1);
    mb_foreign_leave(&guard);
    assert_non_null(getcwd(after, sizeof after));
    assert_string_equal(before, after);
    assert_int_equal(umask(mask), 022);
    sigaction(SIGINT, NULL, &action);
    assert_true(action.sa_handler == present.sa_handler);
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    assert_false(sigismember(&blocked, SIGTERM));
    assert_true(fstat(1, &out_after) == 0 && fstat(0, &in_after) == 0);
    assert_true(out_before.st_ino == out_after.st_ino && out_before.st_dev == out_after.st_dev);
    assert_true(in_before.st_ino == in_after.st_ino && in_before.st_dev == in_after.st_dev);
}

/* A child that the code made does not go on with our work. */
static void a_child_ends_with_its_hook(void **state)
{
    (void)state;
    int ends_of_pipe[2];
    char byte;
    mb_foreign guard;
    assert_int_equal(pipe(ends_of_pipe), 0);
    mb_foreign_enter(&guard, MB_FOREIGN_CALL);
    pid_t pid = fork();
    mb_foreign_leave(&guard);
    if (pid == 0) { /* only without the guard */
        ssize_t n = write(ends_of_pipe[1], "x", 1);
        _exit(n == 1);
    }
    close(ends_of_pipe[1]);
    assert_int_equal(read(ends_of_pipe[0], &byte, 1), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(ends_of_pipe[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_end_ends_the_program), cmocka_unit_test(outside_they_end),
        cmocka_unit_test(light_state_is_put_back), cmocka_unit_test(whole_state_is_put_back),
        cmocka_unit_test(a_child_ends_with_its_hook)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
