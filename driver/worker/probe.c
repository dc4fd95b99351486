/*
 * probe.c - one plug-in loaded and unloaded in a process of its own. The answer comes over a pipe, and only after
 * the last line of foreign code has run: without it the file is refused, whatever the exit code says.
 */
#include "driver/worker/probe.h"

#include "driver/config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_FD 3 /* in the probing process */
#define SLICE_MS 5
#define SLICES 6000 /* half a minute: a large library on a slow disk */
#define PROBED "probed"

extern char **environ;

static int start(pid_t *pid, int answer, const char *path)
{
    const char *const argv[] = {"harness", "probe", path, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc != 0)
        return rc;
    rc = posix_spawnattr_init(&attributes);
    if (rc == 0) {
        /* A group of its own: what it starts ends with it. */
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
        rc = posix_spawn_file_actions_adddup2(&actions, answer, ANSWER_FD);
        rc = rc ? rc : posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        rc = rc ? rc
                : posix_spawn(pid, "/proc/self/exe", &actions, &attributes, (char *const *)(uintptr_t)argv,
                              environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* The status of the process, whoever else holds its pipe. False: its time was up. */
static bool wait_for(pid_t pid, int *status)
{
    bool ended = false;
    for (int i = 0; i < SLICES && !ended; i++) {
        ended = waitpid(pid, status, WNOHANG) == pid;
        if (!ended)
            poll(NULL, 0, SLICE_MS);
    }
    kill(-pid, SIGKILL);
    while (!ended && waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
    return ended;
}

int mb_probe(const char *path, mb_error *err)
{
    int ends[2], status = 0;
    char answer[sizeof err->text + 32];
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return mb_fail(err, MB_E_SYSTEM, "it cannot be tried in a process of its own: %s", strerror(errno));
    int far_end = fcntl(ends[1], F_DUPFD_CLOEXEC, ANSWER_FD + 1);
    int code = far_end < 0 ? errno : start(&pid, far_end, path);
    close(ends[1]);
    if (far_end >= 0)
        close(far_end);
    if (code != 0) {
        close(ends[0]);
        return mb_fail(err, MB_E_SYSTEM, "it cannot be tried in a process of its own: %s", strerror(code));
    }
    bool ended = wait_for(pid, &status);
    ssize_t n = read(ends[0], answer, sizeof answer - 1);
    close(ends[0]);
    answer[n > 0 ? n : 0] = '\0';
    if (!ended)
        return mb_fail(err, MB_E_INPUT, "loading it did not come back for %d s", SLICES * SLICE_MS / 1000);
    if (WIFSIGNALED(status))
        return mb_fail(err, MB_E_INPUT, "it crashed while it was loaded or unloaded: signal %d, %s",
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (strncmp(answer, PROBED, strlen(PROBED)) != 0)
        return mb_fail(err, MB_E_INPUT, "it ended the program while it was loaded: exit code %d",
                       WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    if (answer[strlen(PROBED)] != '\0') /* our own sentence about it */
        return mb_fail(err, MB_E_INPUT, "%s", answer + strlen(PROBED) + 1);
    return MB_OK;
}

int mb_probe_serve(const char *path)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM, SIGINT};
    char answer[sizeof(mb_error) + 32];
    struct rlimit none = {0, 0};
    mb_error err = {0};
    int answer_fd = fcntl(ANSWER_FD, F_DUPFD_CLOEXEC, ANSWER_FD + 1);
    if (answer_fd < 0) {
        fprintf(stderr, "harness: the command probe is what the program starts for its plug-ins; it has no use by "
                        "itself\n");
        return 2;
    }
    close(ANSWER_FD);
    setrlimit(RLIMIT_CORE, &none);
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        signal(fatal[i], SIG_DFL);
    int rc = mb_registry_load(path, &err);
    mb_registry_unload();
    if (rc != MB_OK) { /* whoever asked says which file it is */
        char *front = mb_string_format("plug-in %s: ", path);
        size_t n = front ? strlen(front) : 0;
        if (front && strncmp(err.text, front, n) == 0)
            memmove(err.text, err.text + n, strlen(err.text + n) + 1);
        free(front);
    }
    snprintf(answer, sizeof answer, "%s%s%s", PROBED, rc == MB_OK ? "" : " ", rc == MB_OK ? "" : err.text);
    ssize_t sent = write(answer_fd, answer, strlen(answer));
    _exit(sent == (ssize_t)strlen(answer) ? 0 : 1);
}
