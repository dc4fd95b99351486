/*
 * chaos.c - a sound method that goes wrong once, in a way that the environment names, for
 * tests/campaign/plugins.py. MASKBENCH_CHAOS="PLACE CALL ACTION VALUE WHERE": at the CALL-th call of the hook
 * PLACE (from 0) it does ACTION with VALUE; WHERE is worker (in a worker or probe only) or all. Without the
 * variable it is sound.
 */
#include "methods/method.h"

#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct settings {
    int64_t k;
} settings;

typedef struct state {
    const mb_host *host;
    mb_shape shape;
    settings options;
    float *scores;
    mb_page_set set;
} state;

static const mb_option options[] = {
    {"k", MB_OPTION_INT, offsetof(settings, k), 8, 1, 1 << 24, NULL, "tokens", "keys that a KV head reads"}, {0}};

static char wanted[16], action[16], where[8];
static long at = -1, value, calls;
static volatile char *volatile nothing;

/* Whether this process is a worker or a probe. */
static int in_worker(void)
{
    char line[64] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
    close(fd);
    const char *word = n > 0 ? line + strlen(line) + 1 : line;
    return strcmp(word, "worker") == 0 || strcmp(word, "probe") == 0;
}

__attribute__((noinline)) static int descend(volatile char *above)
{
    volatile char room[4096];
    room[0] = above ? above[0] : 1;
    return value < 0 ? 0 : descend(room) + room[0]; /* it is never below zero */
}

static void *late(void *unused)
{
    (void)unused;
    usleep((useconds_t)value * 100);
    *nothing = 1;
    return NULL;
}

static void chatter(int fd, long n)
{
    unsigned seed = (unsigned)n;
    for (long i = 0; i < n % 4096; i++) {
        char byte = (char)(rand_r(&seed) >> 7);
        if (write(fd, &byte, 1) != 1)
            return;
    }
}

static void process_state(void)
{
    struct rlimit none = {0, 0};
    switch (value % 10) {
    case 0:
        (void)!chdir("/");
        break;
    case 1:
        setlocale(LC_ALL, "C.UTF-8");
        break;
    case 2:
        umask(0777);
        break;
    case 3:
        fesetround(FE_UPWARD);
        break;
    case 4:
        signal(SIGINT, SIG_IGN), signal(SIGTERM, SIG_IGN), signal(SIGCHLD, SIG_IGN);
        break;
    case 5:
        close(1), close(2);
        break;
    case 6:
        clearenv();
        break;
    case 7:
        setrlimit(RLIMIT_FSIZE, &none);
        break;
    case 8:
        feenableexcept(FE_DIVBYZERO | FE_INVALID);
        break;
    default:
        setpriority(PRIO_PROCESS, 0, 19);
        break;
    }
}

/* What is done; nothing where the method is called for something else. 1: the hook fails. */
static int misbehave(void)
{
    pthread_t thread;
    if (strcmp(action, "segfault") == 0)
        *nothing = 1;
    else if (strcmp(action, "abort") == 0)
        abort();
    else if (strcmp(action, "exit") == 0)
        exit((int)value % 256);
    else if (strcmp(action, "_exit") == 0)
        _exit((int)value % 256);
    else if (strcmp(action, "raise") == 0)
        raise((int)(value % 31) + 1);
    else if (strcmp(action, "hang") == 0)
        for (;;)
            pause();
    else if (strcmp(action, "spin") == 0)
        for (volatile long i = 0;; i++)
            continue;
    else if (strcmp(action, "deep") == 0)
        return descend(NULL) > 0;
    else if (strcmp(action, "thread") == 0)
        (void)pthread_create(&thread, NULL, late, NULL);
    else if (strcmp(action, "chatter") == 0)
        chatter((int)(value % 9), value);
    else if (strcmp(action, "close") == 0)
        close((int)(value % 12));
    else if (strcmp(action, "dup") == 0)
        (void)!dup2(open("/dev/null", O_RDWR), (int)(value % 12));
    else if (strcmp(action, "fork") == 0)
        (void)!fork(); /* both go on */
    else if (strcmp(action, "child") == 0)
        (void)(fork() == 0 && sleep(300));
    else if (strcmp(action, "program") == 0)
        (void)!system("sleep 300 &");
    else if (strcmp(action, "exec") == 0)
        execl("/bin/true", "true", (char *)NULL);
    else if (strcmp(action, "alarm") == 0)
        ualarm(1000, 0);
    else if (strcmp(action, "free") == 0)
        free((void *)(uintptr_t)(4096 * value)); /* never given out */
    else if (strcmp(action, "process") == 0)
        process_state();
    return strcmp(action, "fail") == 0;
}

/* Once, at the call that the environment names. */
static int here(const char *place)
{
    if (at < 0 || strcmp(place, wanted) != 0 || calls++ != at)
        return 0;
    return strcmp(where, "all") == 0 || in_worker();
}

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("MASKBENCH_CHAOS");
    if (!text || sscanf(text, "%15s %ld %15s %ld %7s", wanted, &at, action, &value, where) != 5)
        at = -1;
    if (here("constructor"))
        misbehave();
}

static int hook(const char *place, mb_error *err)
{
    if (here(place) && misbehave())
        return value % 3 ? mb_method_fail(err, "it fails with %ld\n and says \x1b[31mso", value)
                         : (int)(value % 7) - 3;
    return 0;
}

static int open_it(void **self, const mb_host *host, const mb_shape *shape, const void *values, mb_error *err)
{
    state *s = calloc(1, sizeof *s);
    if (!s)
        return mb_method_fail(err, "out of memory");
    *self = s;
    s->host = host;
    s->shape = *shape;
    s->options = *(const settings *)values;
    s->scores = host->scores_alloc(host);
    int rc = s->scores ? host->pages_alloc(host, 1, (int32_t)s->options.k, &s->set) : -1;
    return rc ? rc : hook("open", err);
}

static void close_it(void *self)
{
    hook("close", NULL);
    free(self);
}

static int request_begin(void *self, const mb_call *call, mb_error *err)
{
    (void)self, (void)call;
    return hook("request_begin", err);
}

/* An answer that is no index, no number, or not its own. */
static void spoil(state *s, const mb_call *call, mb_selection *out)
{
    unsigned seed = (unsigned)value;
    static const double shares[] = {-1, NAN, INFINITY, 1e300};
    switch (value % 11) {
    case 0:
        s->set.counts[0] = rand_r(&seed) - 1000;
        break;
    case 1:
        s->set.ids[0] = rand_r(&seed) % 64 - 8;
        break;
    case 2:
        memset(s->set.ids, rand_r(&seed), sizeof *s->set.ids * (size_t)s->set.capacity);
        break;
    case 3:
        s->set.granularity = rand_r(&seed) % 200 - 10;
        break;
    case 4:
        s->set.capacity = rand_r(&seed) % 1000 - 10;
        break;
    case 5:
        out->select_tokens = shares[value / 11 % 4];
        break;
    case 6:
        out->answer = (mb_answer)(rand_r(&seed) % 9 - 3);
        break;
    case 7:
        out->pages = NULL;
        break;
    case 8:
        out->want = (uint32_t)rand_r(&seed), out->answer = MB_DENSE;
        break;
    case 9:
        memset((void *)(uintptr_t)call->k, rand_r(&seed), 256);
        break;
    default:
        memset(s, rand_r(&seed), sizeof *s);
        break;
    }
}

static int select_it(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    state *s = self;
    if (call->phase == MB_PHASE_COMMIT)
        return hook("commit", err);
    int rc = s->host->score_recent(s->host, call, INFINITY, 1.0f, s->scores);
    if (rc == 0)
        rc = s->host->top_k(s->host, call, s->scores, (int32_t)s->options.k, NULL, &s->set);
    out->answer = MB_SPARSE;
    out->pages = &s->set;
    if (rc == 0 && strcmp(action, "spoil") == 0 && here("select"))
        spoil(s, call, out);
    return rc ? rc : hook("select", err);
}

MB_METHOD_DEFINE = {
    .abi = MB_METHOD_ABI,
    .size = sizeof(mb_method),
    .name = "chaos",
    .version = "1.0",
    .summary = "goes wrong once",
    .reference = "none",
    .options = options,
    .options_size = sizeof(settings),
    .open = open_it,
    .close = close_it,
    .request_begin = request_begin,
    .select = select_it,
};
