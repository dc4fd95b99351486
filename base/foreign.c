/*
 * foreign.c - the guard around code that is not ours. A library built with -ffast-math flushes denormals for
 * everybody from its constructor on, a locale with a decimal comma breaks every number that is stored as text, and
 * an exit(0) would end a run of days as if it had been finished.
 *
 * The program itself runs in the locale "C" and never changes it.
 */
#include "base/foreign.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int kept_signals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGABRT, SIGFPE,  SIGSEGV, SIGBUS,
                                   SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD, SIGXFSZ};
enum { KEPT_SIGNALS = sizeof kept_signals / sizeof kept_signals[0], STREAMS = 3 };

struct mb_process {
    int folder;           /* descriptor, -1 = not known */
    int streams[STREAMS]; /* copies of standard input, output and error; -1 = closed */
    mode_t mask;
    sigset_t blocked;
    struct sigaction actions[KEPT_SIGNALS];
};

static _Thread_local mb_foreign *current;
static volatile sig_atomic_t is_child; /* of code inside of a guard */

/* ---- the process ---- */

mb_process *mb_process_save(void)
{
    mb_process *state = calloc(1, sizeof *state);
    if (!state)
        return NULL;
    state->folder = open(".", O_PATH | O_CLOEXEC);
    for (int i = 0; i < STREAMS; i++)
        state->streams[i] = fcntl(i, F_DUPFD_CLOEXEC, STREAMS);
    state->mask = umask(0);
    umask(state->mask);
    sigprocmask(SIG_SETMASK, NULL, &state->blocked);
    for (int i = 0; i < KEPT_SIGNALS; i++)
        sigaction(kept_signals[i], NULL, &state->actions[i]);
    return state;
}

void mb_process_restore(const mb_process *state)
{
    if (!state)
        return;
    if (state->folder >= 0 && fchdir(state->folder) != 0)
        fprintf(stderr, "harness: a plug-in left the working folder, and there is no way back\n");
    for (int i = 0; i < STREAMS; i++)
        if (state->streams[i] >= 0)
            dup2(state->streams[i], i);
    umask(state->mask);
    for (int i = 0; i < KEPT_SIGNALS; i++)
        sigaction(kept_signals[i], &state->actions[i], NULL);
    sigprocmask(SIG_SETMASK, &state->blocked, NULL);
}

void mb_process_free(mb_process *state)
{
    if (!state)
        return;
    if (state->folder >= 0)
        close(state->folder);
    for (int i = 0; i < STREAMS; i++)
        if (state->streams[i] >= 0)
            close(state->streams[i]);
    free(state);
}

/* ---- entering and leaving ---- */

/* A process that foreign code forked dies with the one it came from, and at the end of the hook. */
static void in_child(void)
{
    if (!current)
        return;
    is_child = 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

void mb_foreign_enter(mb_foreign *guard, mb_foreign_extent extent)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    guard->outer = current;
    guard->left = false;
    guard->call = "";
    guard->exit_code = 0;
    guard->process = extent == MB_FOREIGN_WHOLE ? mb_process_save() : NULL;
    fegetenv(&guard->floats); /* MXCSR among it where there is one */
    guard->locale = uselocale((locale_t)0);
    current = guard;
}

void mb_foreign_leave(mb_foreign *guard)
{
    current = guard->outer;
    if (is_child)
        mb_foreign_end(0);
    fesetenv(&guard->floats);
    if (uselocale((locale_t)0) != (locale_t)guard->locale)
        uselocale((locale_t)guard->locale);
    const char *locale = setlocale(LC_ALL, NULL);
    if (!locale || strcmp(locale, "C") != 0)
        setlocale(LC_ALL, "C");
    mb_process_restore(guard->process);
    mb_process_free(guard->process);
    guard->process = NULL;
}

bool mb_foreign_failed(const mb_foreign *guard, mb_error *err)
{
    if (guard->left)
        mb_fail(err, MB_E_SAMPLE, "it called %s(%d), which would have ended the program", guard->call,
                guard->exit_code);
    return guard->left;
}

/* ---- the ends of a program ---- */

void mb_foreign_end(int exit_code)
{
    for (;;)
        syscall(SYS_exit_group, exit_code);
}

/* Inside of a guard: back to where it was entered. */
static void come_back(const char *call, int code)
{
    mb_foreign *guard = current;
    if (!guard || is_child)
        return;
    guard->left = true;
    guard->call = call;
    guard->exit_code = code;
    _longjmp(guard->jump, 1);
}

/* This program ends on its first thread; a thread of somebody else has no say in how. */
static int code_of(const char *call, int code)
{
    if (code != 0 || syscall(SYS_gettid) == getpid())
        return code;
    fprintf(stderr, "harness: a thread that is not the program's called %s(0): what is stored stays\n", call);
    return 1;
}

__attribute__((noreturn)) static void end_by_name(const char *name, int code)
{
    void (*function)(int);
    void *symbol = dlsym(RTLD_NEXT, name);
    if (symbol) {
        memcpy(&function, &symbol, sizeof function); /* ISO C has no cast from object to function pointer */
        function(code);
    }
    mb_foreign_end(code);
}

void exit(int code)
{
    come_back("exit", code);
    end_by_name("exit", code_of("exit", code));
}

void quick_exit(int code)
{
    come_back("quick_exit", code);
    end_by_name("quick_exit", code_of("quick_exit", code));
}

void _exit(int code)
{
    come_back("_exit", code);
    mb_foreign_end(code_of("_exit", code));
}

void _Exit(int code)
{
    come_back("_Exit", code);
    mb_foreign_end(code_of("_Exit", code));
}

void abort(void)
{
    come_back("abort", 128 + SIGABRT);
    end_by_name("abort", 0);
}
