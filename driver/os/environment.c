/* environment.c - what makes two timings comparable or not: host, system, processor, build. */
#include "driver/os/os.h"

#include "base/unicode.h"
#include "version.h" /* generated: the commit */

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

static void read_cpu_name(char *name, size_t cap)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(name, cap, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            colon[strcspn(colon, "\n")] = '\0';
            snprintf(name, cap, "%s", colon + 2);
            break;
        }
    }
    if (file)
        fclose(file);
}

void mb_environment_read(mb_environment *environment, int threads)
{
    struct utsname system;
    cpu_set_t set;
    memset(environment, 0, sizeof *environment);
    if (gethostname(environment->host, sizeof environment->host - 1) != 0)
        snprintf(environment->host, sizeof environment->host, "unknown");
    if (uname(&system) == 0)
        snprintf(environment->os, sizeof environment->os, "%.40s %.60s", system.sysname, system.release);
    read_cpu_name(environment->cpu, sizeof environment->cpu);
    snprintf(environment->git, sizeof environment->git, "%s", MB_VERSION);
    snprintf(environment->build, sizeof environment->build, "compiler %s, Unicode %s, NFC of %s", __VERSION__,
             MB_UNICODE_VERSION, MB_NFC_VERSION);
    environment->threads = threads;
    if (threads <= 0 && sched_getaffinity(0, sizeof set, &set) == 0)
        environment->threads = CPU_COUNT(&set);
}

int64_t mb_peak_memory(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
}

int mb_terminal_width(void)
{
    struct winsize size;
    return isatty(STDOUT_FILENO) == 1 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

bool mb_terminal_colour(int stream)
{
    const char *wish = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(stream) == 1 && !(wish && *wish) && !(terminal && strcmp(terminal, "dumb") == 0);
}
