/*
 * worker.c - starting a worker, asking it, and telling how it ended.
 *
 * A message is struct header and its bytes, in both directions. Time runs only while the note stands still, and
 * not before the method's first hook of a question: loading a model or a long prefill is no hanging method. The
 * worker leaves by _exit() when its socket closes or its parent dies, so nothing is left over however the parent
 * ends.
 */
#include "driver/worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC 0x6d626a6fu
#define SLICE_MS 50
#define CONTINUED_MAX 3  /* times that a stopped worker is told to go on, a question */
#define LAST_MOMENTS 100 /* slices that a worker whose socket is closed has to end by itself */
#define MESSAGE_MAX ((uint64_t)1 << 30)
#define SOCKET_FD 3 /* in the worker */
#define NOTE_FD 4

extern char **environ;

struct header {
    uint32_t magic;
    uint64_t number; /* of the question; an answer has its question's */
    uint64_t bytes;
    mb_error err;
};

struct mb_worker {
    pid_t pid;
    int socket, status;
    bool ended;    /* seen by receive(), with this status */
    int continued; /* by us, in the question that is open */
    uint64_t posted,
        stopped;     /* ns: when the question was posted, since when the process is stopped (0: it is not) */
    double patience; /* seconds until its silence is said once more */
    uint64_t number; /* of the last question */
    mb_attender_note *note;
    mb_text got; /* what has arrived of the answer to a question that was posted */
};

static mb_attender_note *map_note(int fd)
{
    void *at = mmap(NULL, sizeof(mb_attender_note), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

static bool send_all(int fd, const void *data, size_t n)
{
    for (const char *at = data; n > 0;) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

static bool send_message(int fd, uint64_t number, int code, const char *sentence, const mb_text *text)
{
    struct header header = {.magic = MAGIC, .number = number, .bytes = text ? text->length : 0};
    mb_fail(&header.err, code, "%s", sentence);
    return send_all(fd, &header, sizeof header) && (header.bytes == 0 || send_all(fd, text->data, header.bytes));
}

/* ---- starting and ending ---- */

/* The worker's environment is ours but for the list of plug-ins: it loads the one it is for. */
static char **environment_of_worker(void)
{
    size_t n = 0, kept = 0;
    while (environ[n])
        n++;
    char **list = calloc(n + 1, sizeof *list);
    for (size_t i = 0; list && i < n; i++)
        if (strncmp(environ[i], "MASKBENCH_PLUGIN_PATH=", 22) != 0)
            list[kept++] = environ[i];
    return list;
}

/* What a plug-in prints is no part of our standard output. */
static int spawn(pid_t *pid, int socket, int note, const char *const *argv)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char **environment = environment_of_worker();
    if (!environment)
        return ENOMEM;
    int rc = posix_spawnattr_init(&attributes);
    if (rc == 0) /* a group of its own: what it starts ends with it */
        rc = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    if (rc == 0)
        rc = posix_spawn_file_actions_init(&actions);
    if (rc == 0) {
        rc = posix_spawn_file_actions_adddup2(&actions, socket, SOCKET_FD);
        rc = rc ? rc : posix_spawn_file_actions_adddup2(&actions, note, NOTE_FD);
        rc = rc ? rc : posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        rc = rc ? rc
                : posix_spawn(pid, "/proc/self/exe", &actions, &attributes, (char *const *)(uintptr_t)argv,
                              environment);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attributes);
    free(environment);
    return rc;
}

static int start(mb_worker **out, const char *const *argv, const char *what, mb_error *err)
{
    mb_worker *worker = calloc(1, sizeof *worker);
    int ends[2] = {-1, -1}, note = -1, far_end = -1, rc = MB_OK;
    *out = NULL;
    if (worker)
        worker->socket = -1;
    if (!worker || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0 ||
        (note = memfd_create("maskbench note", MFD_CLOEXEC)) < 0 || ftruncate(note, sizeof *worker->note) != 0 ||
        !(worker->note = map_note(note))) {
        rc = mb_fail(err, MB_E_SYSTEM, "no worker for %s: %s", what, strerror(errno));
        goto out;
    }
    worker->socket = ends[0];
    ends[0] = -1;
    /* Out of the way of the numbers that they get in the worker, or one dup2() would overwrite the other. */
    int moved = fcntl(note, F_DUPFD_CLOEXEC, NOTE_FD + 1);
    far_end = fcntl(ends[1], F_DUPFD_CLOEXEC, NOTE_FD + 1);
    int code = moved < 0 || far_end < 0 ? errno : spawn(&worker->pid, far_end, moved, argv);
    if (moved >= 0)
        close(moved);
    if (code != 0) {
        worker->pid = 0;
        rc = mb_fail(err, MB_E_SYSTEM, "no worker for %s: %s", what, strerror(code));
        goto out;
    }
    *out = worker;
    worker = NULL;
out:
    if (note >= 0)
        close(note);
    if (far_end >= 0)
        close(far_end);
    if (ends[0] >= 0)
        close(ends[0]);
    if (ends[1] >= 0)
        close(ends[1]);
    mb_worker_end(worker);
    return rc;
}

int mb_worker_start(mb_worker **out, const char *plugin, mb_error *err)
{
    const char *const argv[] = {"harness", "worker", "--plugin", plugin, NULL};
    char *what = mb_string_format("plug-in %s", plugin);
    int rc = what ? start(out, argv, what, err) : mb_no_memory(err, "a worker");
    free(what);
    return rc;
}

int mb_worker_start_samples(mb_worker **out, const char *const *plugins, size_t count, const char *what,
                            mb_error *err)
{
    const char **argv = calloc(2 * count + 4, sizeof *argv);
    size_t n = 0;
    if (!argv)
        return mb_no_memory(err, "a worker");
    argv[n++] = "harness";
    argv[n++] = "worker";
    argv[n++] = MB_WORKER_SAMPLES;
    for (size_t i = 0; i < count; i++) {
        argv[n++] = "--plugin";
        argv[n++] = plugins[i];
    }
    int rc = start(out, argv, what, err);
    free(argv);
    return rc;
}

/* Waits for the end of the process: for a moment, then by force. Its status as waitpid() gives it; false: it was
 * ended by us. */
static bool reap(mb_worker *worker, int moments, int *status)
{
    bool alone = worker->ended;
    *status = worker->status;
    if (worker->pid <= 0)
        return false;
    for (int i = 0; i < moments && !alone; i++) {
        alone = waitpid(worker->pid, status, WNOHANG) == worker->pid;
        if (!alone)
            poll(NULL, 0, SLICE_MS);
    }
    kill(-worker->pid, SIGKILL); /* its group, which outlives it where it left a child behind */
    if (!alone) {
        kill(worker->pid, SIGKILL);
        while (waitpid(worker->pid, status, 0) < 0 && errno == EINTR)
            ;
    }
    worker->pid = 0;
    worker->ended = false;
    return alone;
}

void mb_worker_end(mb_worker *worker)
{
    int status;
    if (!worker)
        return;
    reap(worker, 0, &status); /* it holds nothing that an orderly end would save */
    if (worker->socket >= 0)
        close(worker->socket);
    if (worker->note)
        munmap(worker->note, sizeof *worker->note);
    mb_text_free(&worker->got);
    free(worker);
}

int mb_worker_process(const mb_worker *worker)
{
    return (int)worker->pid;
}

/* ---- asking ---- */

/* "in select(), layer 3, block 0, step 1" */
static void describe_place(const mb_attender_note *note, char *place, size_t cap)
{
    char hook[sizeof note->hook];
    memcpy(hook, note->hook, sizeof hook);
    hook[sizeof hook - 1] = '\0';
    if (!hook[0])
        snprintf(place, cap, "before its first hook");
    else if (note->layer >= 0)
        snprintf(place, cap, "%s %s(), layer %d, block %d, step %d", note->inside ? "in" : "after", hook,
                 note->layer, note->block, note->step);
    else if (note->step > 0 || note->block > 0)
        snprintf(place, cap, "%s %s(), block %d, step %d", note->inside ? "in" : "after", hook, note->block,
                 note->step);
    else
        snprintf(place, cap, "%s %s()", note->inside ? "in" : "after", hook);
}

/* Whether the whole message has arrived. */
static bool is_complete(const mb_text *got)
{
    struct header header;
    if (got->length < sizeof header)
        return false;
    memcpy(&header, got->data, sizeof header);
    return header.magic != MAGIC || got->length - sizeof header >= header.bytes;
}

/* Whether somebody stopped the process (SIGSTOP); its status is left as it is. */
static bool is_stopped(const mb_worker *worker)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)worker->pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == worker->pid;
}

/* A process that stands still because it was stopped does not hang: it is told to go on, a few times. */
static bool go_on(mb_worker *worker)
{
    return is_stopped(worker) && worker->continued++ < CONTINUED_MAX && kill(worker->pid, SIGCONT) == 0;
}

/* What is waiting to be read. False: the other side is gone, or says more than a message may have. */
static bool read_part(const mb_worker *worker, mb_text *got)
{
    char buffer[65536];
    ssize_t n = read(worker->socket, buffer, sizeof buffer);
    if (n == 0 || (n < 0 && errno != EINTR) || got->length > MESSAGE_MAX)
        return false;
    if (n > 0)
        mb_text_append(got, buffer, (size_t)n);
    return true;
}

/* Collects a message. MB_OK: it is complete or the other side is gone; MB_E_SAMPLE: time is up; MB_E_STOP. A
 * process that stands still because it was stopped does not hang: it is told to go on, a few times. */
static int receive(mb_worker *worker, const mb_worker_question *question, mb_text *got)
{
    const volatile mb_attender_note *note = worker->note;
    uint64_t beats = note->beats, since = mb_clock_ns();
    while (!is_complete(got) && !got->failed) {
        struct pollfd wait = {.fd = worker->socket, .events = POLLIN};
        int ready = poll(&wait, 1, SLICE_MS);
        if (question->stop && *question->stop)
            return MB_E_STOP;
        /* Nothing is waiting to be read and the process is gone: whoever still holds its socket, no answer comes.
         */
        if (ready == 0 && waitpid(worker->pid, &worker->status, WNOHANG) == worker->pid) {
            worker->ended = true;
            return MB_OK;
        }
        if (ready > 0 && !read_part(worker, got))
            return MB_OK;
        if (note->beats != beats || ready > 0 || !note->hook[0]) {
            beats = note->beats;
            since = mb_clock_ns();
        }
        if ((double)(mb_clock_ns() - since) * 1e-9 > question->seconds) {
            if (!go_on(worker))
                return MB_E_SAMPLE;
            since = mb_clock_ns();
        }
    }
    return MB_OK;
}

/* What a worker may say; an interrupt is ours alone. */
static bool is_answer_code(int code)
{
    return code == MB_OK || code == MB_E_INPUT || code == MB_E_SYSTEM || code == MB_E_BUG || code == MB_E_SAMPLE;
}

/* A complete answer. Once a method has run, what the machine refuses is its doing: a broken GPU context, memory.
 */
static int take_answer(const mb_worker_question *question, const mb_text *got, const char *place, bool entered,
                       mb_text *answer, mb_error *err)
{
    struct header header;
    memcpy(&header, got->data, sizeof header);
    header.err.text[sizeof header.err.text - 1] = '\0';
    if (!is_answer_code(header.err.code))
        return mb_fail(err, MB_E_SAMPLE, "method %s broke its process %s: it answers with the unknown code %d",
                       question->name, place, header.err.code);
    mb_text_append(answer, got->data + sizeof header, header.bytes);
    if (answer->failed)
        return mb_no_memory(err, "the answer of a worker");
    if (entered && (header.err.code == MB_E_SYSTEM || header.err.code == MB_E_BUG))
        return mb_fail(err, MB_E_SAMPLE, "method %s broke its process %s: %s", question->name, place,
                       header.err.text);
    return mb_fail(err, header.err.code, "%s", header.err.text);
}

int mb_worker_ask(mb_worker *worker, const mb_worker_question *question, mb_text *answer, mb_error *err)
{
    mb_text got = {0};
    char place[128];
    struct header header;
    memset(worker->note, 0, sizeof *worker->note);
    worker->continued = 0;
    /* A worker that died between two questions is met here and told from its status below. */
    bool sent = send_message(worker->socket, ++worker->number, MB_OK, "", question->text);
    int received = sent ? receive(worker, question, &got) : MB_OK, rc;
    describe_place(worker->note, place, sizeof place);
    if (received == MB_E_STOP) {
        rc = mb_fail(err, MB_E_STOP, "interrupted");
    } else if (received == MB_E_SAMPLE && worker->continued > CONTINUED_MAX) {
        rc = mb_fail(err, MB_E_SAMPLE,
                     "the process of method %s was stopped (SIGSTOP) %s, and again each time it was "
                     "continued: it was ended",
                     question->name, place);
    } else if (received == MB_E_SAMPLE) {
        rc = mb_fail(err, MB_E_SAMPLE, "method %s " MB_WORKER_HUNG " %g s %s: its process was ended",
                     question->name, question->seconds, place);
    } else if (got.failed) {
        rc = mb_no_memory(err, "the answer of a worker");
    } else if (is_complete(&got) && (memcpy(&header, got.data, sizeof header), header.magic == MAGIC) &&
               got.length == sizeof header + header.bytes && header.number != worker->number) {
        rc = mb_fail(err, MB_E_SAMPLE, "method %s answered question %llu with the answer to question %llu %s",
                     question->name, (unsigned long long)worker->number, (unsigned long long)header.number, place);
    } else if (is_complete(&got) && header.magic == MAGIC && got.length == sizeof header + header.bytes) {
        rc = take_answer(question, &got, place, worker->note->hook[0], answer, err);
    } else {
        int status;
        bool alone = reap(worker, is_complete(&got) ? 0 : LAST_MOMENTS, &status);
        if (!alone) /* what it sent is no message, or it closed the socket and goes on */
            rc = mb_fail(err, MB_E_SAMPLE,
                         "method %s cut its process off %s and " MB_WORKER_HUNG " %g s: it was ended",
                         question->name, place, LAST_MOMENTS * SLICE_MS * 1e-3);
        else if (WIFSIGNALED(status))
            rc = mb_fail(err, MB_E_SAMPLE, "method %s crashed %s: signal %d, %s", question->name, place,
                         WTERMSIG(status), strsignal(WTERMSIG(status)));
        else
            rc = mb_fail(err, MB_E_SAMPLE, "method %s ended its process %s: exit code %d", question->name, place,
                         WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    }
    mb_text_free(&got);
    return rc;
}

/* ---- asking several ---- */

int mb_worker_post(mb_worker *worker, const mb_text *question, mb_error *err)
{
    mb_text_clear(&worker->got);
    memset(worker->note, 0, sizeof *worker->note);
    worker->continued = 0;
    worker->stopped = 0;
    worker->patience = 0;
    worker->posted = mb_clock_ns();
    if (question->failed)
        return mb_no_memory(err, "a worker's job");
    /* A worker that died meanwhile is met when its answer is waited for. */
    send_message(worker->socket, ++worker->number, MB_OK, "", question);
    return MB_OK;
}

/* Takes what has arrived. True: the answer is complete, or no more of it comes. */
static bool collect(mb_worker *worker, short events)
{
    char buffer[65536];
    if (events == 0)
        return false;
    ssize_t n = read(worker->socket, buffer, sizeof buffer);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return false;
    if (n > 0)
        mb_text_append(&worker->got, buffer, (size_t)n);
    return n <= 0 || is_complete(&worker->got) || worker->got.failed || worker->got.length > MESSAGE_MAX;
}

/* The answer of a worker that is done, or how it ended. */
static int take_posted(mb_worker *worker, mb_text *answer, mb_error *err)
{
    struct header header;
    int status;
    if (is_complete(&worker->got) && !worker->got.failed) {
        memcpy(&header, worker->got.data, sizeof header);
        header.err.text[sizeof header.err.text - 1] = '\0';
        if (header.magic == MAGIC && header.number == worker->number &&
            worker->got.length == sizeof header + header.bytes) {
            mb_text_append(answer, worker->got.data + sizeof header, header.bytes);
            return answer->failed ? mb_no_memory(err, "the answer of a worker")
                                  : mb_fail(err, header.err.code, "%s", header.err.text);
        }
    }
    reap(worker, LAST_MOMENTS, &status);
    if (WIFSIGNALED(status))
        return mb_fail(err, MB_E_SAMPLE, "its process ended by signal %d, %s", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    return mb_fail(err, MB_E_SAMPLE, "its process ended with exit code %d",
                   WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* Looks after a worker that has not answered. False: it was stopped too often. */
static bool is_well(mb_worker *worker, size_t which, const mb_worker_watch *watch)
{
    const uint64_t now = mb_clock_ns();
    const double silent = (double)(now - worker->posted) * 1e-9;
    char sentence[96];
    if (!is_stopped(worker))
        worker->stopped = 0;
    else if (!worker->stopped)
        worker->stopped = now;
    if (worker->stopped && (double)(now - worker->stopped) * 1e-9 > watch->seconds) {
        if (!go_on(worker))
            return false;
        worker->stopped = 0;
        snprintf(sentence, sizeof sentence, "was stopped (SIGSTOP) for %g s and is told to go on", watch->seconds);
        watch->say(watch->self, which, sentence);
    }
    if (worker->patience == 0)
        worker->patience = watch->seconds;
    if (silent > worker->patience) {
        snprintf(sentence, sizeof sentence, "has not answered for %.0f s; waiting", silent);
        watch->say(watch->self, which, sentence);
        worker->patience *= 2;
    }
    return true;
}

/* Whether the process is gone; its status is left as it is. A child of it may still hold the socket open. */
static bool is_gone(const mb_worker *worker)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)worker->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == worker->pid;
}

/* One round of the wait: what has arrived is taken. True: worker *which has answered or ended, *rc is its code. */
static bool take_one(mb_worker *const *workers, struct pollfd *fds, size_t count, size_t *which, mb_text *answer,
                     int *rc, mb_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!workers[i] || !(collect(workers[i], fds[i].revents) || (!fds[i].revents && is_gone(workers[i]))))
            continue;
        *which = i;
        *rc = take_posted(workers[i], answer, err);
        return true;
    }
    return false;
}

int mb_worker_wait(mb_worker *const *workers, size_t count, const mb_worker_watch *watch, size_t *which,
                   mb_text *answer, mb_error *err)
{
    struct pollfd *fds = calloc(count + 1, sizeof *fds);
    int rc = fds ? MB_OK : mb_no_memory(err, "waiting for workers");
    for (bool waiting = fds != NULL; waiting;) {
        for (size_t i = 0; i < count; i++)
            fds[i] = (struct pollfd){.fd = workers[i] ? workers[i]->socket : -1, .events = POLLIN};
        if (poll(fds, (nfds_t)count, SLICE_MS) < 0)
            continue;
        if (*watch->stop) {
            rc = mb_fail(err, MB_E_STOP, "interrupted");
            break;
        }
        waiting = !take_one(workers, fds, count, which, answer, &rc, err);
        for (size_t i = 0; i < count && waiting; i++) {
            if (!workers[i] || is_well(workers[i], i, watch))
                continue;
            *which = i;
            rc = mb_fail(err, MB_E_SAMPLE,
                         "its process was stopped (SIGSTOP), and again each time it was continued: it was ended");
            waiting = false;
        }
    }
    free(fds);
    return rc;
}

/* ---- the worker's own side ---- */

/* One question. False: the other side is gone. */
static bool read_question(mb_text *question, uint64_t *number)
{
    char buffer[65536];
    mb_text got = {0};
    mb_text_clear(question);
    while (!is_complete(&got)) {
        ssize_t n = read(SOCKET_FD, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || got.failed)
            break;
        mb_text_append(&got, buffer, (size_t)n);
    }
    bool whole = is_complete(&got) && !got.failed;
    if (whole) {
        struct header header;
        memcpy(&header, got.data, sizeof header);
        *number = header.number;
    }
    if (whole)
        mb_text_append(question, got.data + sizeof(struct header), got.length - sizeof(struct header));
    mb_text_free(&got);
    return whole && !question->failed;
}

/* A crash is a row in a table, not a file; who started us decides about interrupts, and we do not outlive it. */
static void behave(void)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM};
    struct rlimit none = {0, 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a parent that died before this line is met as a closed socket */
    setrlimit(RLIMIT_CORE, &none);
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        signal(fatal[i], SIG_DFL);
    signal(SIGINT, SIG_IGN);
}

int mb_worker_serve(mb_worker_answer_fn function, void *context, mb_error *err)
{
    mb_text question = {0};
    uint64_t number = 0;
    int type = 0;
    socklen_t size = sizeof type;
    mb_attender_note *note = NULL;
    if (getsockopt(SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || !(note = map_note(NOTE_FD)))
        return mb_fail(err, MB_E_INPUT,
                       "the command worker is what a run starts for its plug-ins; it has no use by itself");
    /* Programs that a plug-in starts must not hold the socket open. */
    fcntl(SOCKET_FD, F_SETFD, FD_CLOEXEC);
    fcntl(NOTE_FD, F_SETFD, FD_CLOEXEC);
    behave();
    while (read_question(&question, &number)) {
        mb_text answer = {0};
        mb_error sentence = {0};
        int code = function(context, note, &question, &answer, &sentence);
        if (answer.failed)
            code = mb_no_memory(&sentence, "the worker's answer");
        bool sent = send_message(SOCKET_FD, number, code, sentence.text, answer.failed ? NULL : &answer);
        mb_text_free(&answer);
        if (!sent)
            break;
    }
    fflush(NULL);
    _exit(EXIT_SUCCESS); /* nothing of the plug-in runs again, no destructor either */
}
