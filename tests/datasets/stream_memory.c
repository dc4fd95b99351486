/*
 * stream_memory.c - reads every sample of a task and prints what it cost: rows, bytes of the largest prompt, peak
 * resident memory. Built and run by stream_memory.sh; no test, because the figure belongs to the machine.
 */
#include "datasets/datasets.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    mb_task *task = NULL;
    mb_sample *sample = NULL;
    struct rusage before, after;
    char hex[MB_HASH_CAP];
    mb_error err = {0};
    size_t largest = 0, good = 0, bad = 0;
    if (argc != 3) {
        fprintf(stderr, "usage: stream_memory TASK FOLDER\n");
        return 2;
    }
    mb_task_request request = {.task = argv[1], .folder = argv[2]};
    getrusage(RUSAGE_SELF, &before);
    uint64_t start = mb_clock_ns();
    if (mb_task_open(&task, &request, &err) != MB_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    long long promised = (long long)mb_task_size(task);
    mb_task_hash(task, hex);
    for (int rc; (rc = mb_task_next(task, &sample, &err)) == 1 || rc == MB_E_SAMPLE;) {
        good += rc == 1;
        bad += rc != 1;
        if (rc == 1 && strlen(sample->prompt) > largest)
            largest = strlen(sample->prompt);
        mb_sample_free(sample);
    }
    mb_task_close(task);
    getrusage(RUSAGE_SELF, &after);
    printf("%s: %zu good and %zu bad rows (%lld promised), largest prompt %.0f KiB, %.1f s, peak memory %.1f MiB "
           "(%.1f MiB before opening)\n",
           argv[1], good, bad, promised, (double)largest / 1024, (double)(mb_clock_ns() - start) / 1e9,
           (double)after.ru_maxrss / 1024, (double)before.ru_maxrss / 1024);
    return 0;
}
