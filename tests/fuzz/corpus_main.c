/*
 * corpus_main.c - runs a fuzz target over files without a fuzzer: what fuzzing once found stays found. Built as
 * corpus_NAME from fuzz_NAME.c; without arguments it runs tests/fuzz/corpus/NAME/ and fails when that is empty.
 */
#include "base/base.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes in memory of exactly their size, so that a sanitizer or valgrind sees a step past the end. */
static int run_file(const char *path)
{
    char *text = NULL;
    mb_error err = {0};
    size_t size = 0;
    if (mb_file_read(path, (size_t)64 << 20, &text, &size, &err) != MB_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact) {
        free(text);
        return 1;
    }
    memcpy(exact, text, size);
    free(text);
    printf("%s (%zu bytes)\n", path, size);
    fflush(stdout); /* the last line names the file that crashed */
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 0;
}

static int run_folder(const char *folder, int *files)
{
    struct dirent **entries = NULL;
    int failed = 0, n = scandir(folder, &entries, NULL, alphasort);
    if (n < 0) {
        perror(folder);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            char *path = mb_string_format("%s/%s", folder, entries[i]->d_name);
            failed |= !path || run_file(path);
            free(path);
            (*files)++;
        }
        free(entries[i]);
    }
    free(entries);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0, files = 0;
    for (int i = 1; i < argc; i++) {
        failed |= mb_folder_exists(argv[i]) ? run_folder(argv[i], &files) : run_file(argv[i]);
        files++;
    }
    if (argc == 1) {
        const char *slash = strrchr(argv[0], '/'), *name = strstr(slash ? slash : argv[0], "corpus_");
        char *folder = mb_string_format("tests/fuzz/corpus/%s", name ? name + strlen("corpus_") : "");
        failed = !folder || run_folder(folder, &files);
        free(folder);
    }
    if (!files)
        fprintf(stderr, "no inputs\n");
    return failed || !files;
}
