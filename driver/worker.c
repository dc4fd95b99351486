/*
 * worker.c - fork, run, report, or be killed.
 *
 * Why a process per job and no long-lived worker: the child inherits weights, KV cache and opened reference by
 * copy-on-write, so there is nothing to send but the answer, no state of an earlier job to doubt, and no protocol
 * that foreign code could leave half-way. A fork copies page tables only: milliseconds against a decode.
 *
 * The answer comes through a pipe as one message: struct message, then its bytes. Where the job is, it says in a
 * shared page (mb_attender_note), which outlives it. Time runs only while the note stands still: a slow model is
 * no hanging method. The child leaves by _exit(): nothing of the parent's is flushed or closed twice.
 */
#include "driver/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAGIC 0x6d626a6fu
#define SLICE_MS 50
#define ANSWER_MAX ((uint64_t)1 << 30)

struct message {
    uint32_t magic;
    int32_t code;
    uint64_t bytes;
    char err[1024];
};

/* ---- the child ---- */

static void write_all(int fd, const void *data, size_t n)
{
    const char *at = data;
    while (n > 0) {
        ssize_t written = write(fd, at, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            _exit(EXIT_FAILURE); /* the parent is gone */
        at += written;
        n -= (size_t)written;
    }
}

_Noreturn static void child(const mb_worker_job *job, mb_attender_note *note, int fd, pid_t parent)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM};
    struct message message = {.magic = MAGIC};
    struct rlimit none = {0, 0};
    mb_text answer = {0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
    setrlimit(RLIMIT_CORE, &none); /* a crash here is a row in a table, not a file */
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        signal(fatal[i], SIG_DFL);
    signal(SIGINT, SIG_IGN); /* the parent decides */
    message.code = job->run(job->context, note, &answer, message.err, sizeof message.err);
    if (answer.failed)
        message.code = mb_fail(message.err, sizeof message.err, MB_E_SYSTEM, "no memory for the worker's answer");
    message.bytes = answer.failed ? 0 : answer.length;
    write_all(fd, &message, sizeof message);
    write_all(fd, answer.data, message.bytes);
    _exit(EXIT_SUCCESS);
}

/* ---- the parent ---- */

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
    struct message message;
    if (got->length < sizeof message)
        return false;
    memcpy(&message, got->data, sizeof message);
    return message.magic != MAGIC || got->length - sizeof message >= message.bytes;
}

/* Collects the message. MB_OK: it is complete or the child is gone; MB_E_SAMPLE: time is up; MB_E_STOP. */
static int receive(const mb_worker_job *job, const volatile mb_attender_note *note, int fd, mb_text *got)
{
    uint64_t beats = note->beats, since = mb_clock_ns();
    char buffer[65536];
    while (!is_complete(got) && !got->failed) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = poll(&wait, 1, SLICE_MS);
        if (job->stop && *job->stop)
            return MB_E_STOP;
        if (ready > 0) {
            ssize_t n = read(fd, buffer, sizeof buffer);
            if (n == 0 || (n < 0 && errno != EINTR) || got->length > ANSWER_MAX)
                return MB_OK;
            if (n > 0)
                mb_text_append(got, buffer, (size_t)n);
        }
        if (note->beats != beats || ready > 0) {
            beats = note->beats;
            since = mb_clock_ns();
        }
        if ((double)(mb_clock_ns() - since) * 1e-9 > job->seconds)
            return MB_E_SAMPLE;
    }
    return MB_OK;
}

/* Ends the child and says how it ended by itself, as waitpid() does. */
static int reap(pid_t pid, bool stop_it)
{
    int status = 0;
    if (stop_it)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

static int judge(const mb_worker_job *job, const mb_attender_note *note, int received, int status,
                 const mb_text *got, mb_text *answer, char *err, size_t err_cap)
{
    struct message message;
    char place[128];
    describe_place(note, place, sizeof place);
    if (received == MB_E_STOP)
        return mb_fail(err, err_cap, MB_E_STOP, "interrupted");
    if (received == MB_E_SAMPLE)
        return mb_fail(err, err_cap, MB_E_SAMPLE, "method %s " MB_WORKER_HUNG " %g s %s: its process was ended",
                       job->name, job->seconds, place);
    if (is_complete(got)) {
        memcpy(&message, got->data, sizeof message);
        if (message.magic == MAGIC && got->length == sizeof message + message.bytes) {
            message.err[sizeof message.err - 1] = '\0';
            mb_text_append(answer, got->data + sizeof message, message.bytes);
            if (answer->failed)
                return mb_fail(err, err_cap, MB_E_SYSTEM, "no memory for the answer of a worker");
            return mb_fail(err, err_cap, message.code, "%s", message.err);
        }
    }
    if (WIFSIGNALED(status))
        return mb_fail(err, err_cap, MB_E_SAMPLE, "method %s crashed %s: signal %d, %s", job->name, place,
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
    return mb_fail(err, err_cap, MB_E_SAMPLE, "method %s ended its process %s: exit code %d", job->name, place,
                   WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

int mb_worker_run(const mb_worker_job *job, mb_text *answer, char *err, size_t err_cap)
{
    int ends[2] = {-1, -1}, rc = MB_OK;
    mb_text got = {0};
    mb_attender_note *note =
        mmap(NULL, sizeof *note, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (note == MAP_FAILED || pipe(ends) != 0) {
        rc = mb_fail(err, err_cap, MB_E_SYSTEM, "no worker for method %s: %s", job->name, strerror(errno));
        goto out;
    }
    fflush(NULL); /* or the child could print the parent's buffers again */
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        rc = mb_fail(err, err_cap, MB_E_SYSTEM, "no worker for method %s: %s", job->name, strerror(errno));
        goto out;
    }
    if (pid == 0) {
        close(ends[0]);
        child(job, note, ends[1], parent);
    }
    close(ends[1]);
    ends[1] = -1;
    int received = receive(job, note, ends[0], &got);
    int status = reap(pid, received != MB_OK || is_complete(&got));
    rc = got.failed ? mb_fail(err, err_cap, MB_E_SYSTEM, "no memory for the answer of a worker")
                    : judge(job, note, received, status, &got, answer, err, err_cap);
out:
    if (ends[0] >= 0)
        close(ends[0]);
    if (ends[1] >= 0)
        close(ends[1]);
    if (note != MAP_FAILED)
        munmap(note, sizeof *note);
    mb_text_free(&got);
    return rc;
}
