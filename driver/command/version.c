/* version.c - `--version`: what was built, what it was built with, and the libraries that are loaded now. */
#include "driver/command/commands.h"

#include "driver/os/os.h"
#include "kernels/kernels.h"
#include "version.h" /* generated: the commit, the CUDA toolkit and what its kernels were compiled for */

#define PCRE2_CODE_UNIT_WIDTH 8
#include <cjson/cJSON.h>
#include <pcre2.h>
#include <sqlite3.h>
#include <stdio.h>
#include <xxhash.h>

/* "name version", as the library itself says it. */
static void print_libraries(void)
{
    char pcre[64] = "unknown";
    unsigned xxhash = XXH_versionNumber();
    if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) < (int)sizeof pcre)
        pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    printf("libraries  SQLite %s, cJSON %s, PCRE2 %s, xxHash %u.%u.%u\n", sqlite3_libversion(), cJSON_Version(),
           pcre, xxhash / 10000, xxhash / 100 % 100, xxhash % 100);
}

int mb_print_version(void)
{
    const char *code = mb_code_hash("program");
    mb_environment environment;
    mb_environment_read(&environment, 0);
    printf("maskbench %s\n", environment.git);
    printf("build      %.8s, %s\n", code ? code : "unknown", environment.build);
    if (mb_kernels_cuda())
        printf("CUDA       %s, kernels for %s\n", MB_CUDA_VERSION, MB_CUDA_TARGETS);
    else
        puts("CUDA       none in this build");
    print_libraries();
    printf("plug-ins   ABI %d\n", MB_METHOD_ABI);
    return 0;
}
