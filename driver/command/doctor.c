/* doctor.c - what this machine has, what is missing, and the one command that provides it. */
#include "driver/command/commands.h"
#include "datasets/datasets.h"
#include "driver/os/os.h"

#include "base/unicode.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

static void line(bool good, const char *what, const char *found, const char *hint)
{
    mb_print(stdout, "  [%s] %-18s %s%s%s", good ? "ok" : "--", what, found, !good && *hint ? "  -> " : "",
             good ? "" : hint);
}

/* True when name is an executable in $PATH. */
static bool in_path(const char *name)
{
    char *path = mb_string_copy(getenv("PATH"));
    bool found = false;
    char *rest = NULL;
    for (char *p = path ? strtok_r(path, ":", &rest) : NULL; p && !found; p = strtok_r(NULL, ":", &rest)) {
        char *full = mb_string_format("%s/%s", p, name);
        found = full && access(full, X_OK) == 0;
        free(full);
    }
    free(path);
    return found;
}

/* By loading it: what a package manager lists and what the loader finds are two things. */
static bool library_loads(const char *const *names)
{
    for (; *names; names++) {
        void *handle = dlopen(*names, RTLD_LAZY | RTLD_LOCAL);
        if (handle) {
            dlclose(handle);
            return true;
        }
    }
    return false;
}

static void check_gpu(void)
{
    static const char *const cupti[] = {"libcupti.so.13", "libcupti.so", NULL};
    static const char *const nvml[] = {"libnvidia-ml.so.1", NULL};
    static const char *const blas[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", NULL};
    char text[128];
    mb_error why = {0};
    int count = mb_cuda_device_count(&why);
    line(mb_kernels_cuda() != NULL, "CUDA in the build", mb_kernels_cuda() ? "yes" : "no",
         "install the CUDA toolkit (nvcc) and run make again");
    snprintf(text, sizeof text, "%d usable", count);
    line(count > 0, "GPU", count > 0 ? text : why.text, "");
    line(library_loads(blas), "cuBLASLt", library_loads(blas) ? "loads" : "not found", "needed on the GPU only");
    line(library_loads(nvml), "NVML", library_loads(nvml) ? "loads" : "not found",
         "comes with the driver; without it clocks are not recorded");
    line(library_loads(cupti), "CUPTI", library_loads(cupti) ? "loads" : "not found",
         "comes with the CUDA toolkit; without it there is no kernel breakdown");
}

static void check_model(const char *path)
{
    mb_error err = {0};
    mb_model_request request = {.path = path};
    mb_model_config shape;
    int rc = mb_model_inspect(&request, &shape, &err);
    line(rc == MB_OK, path, rc == MB_OK ? "checkpoint folder is complete to look at" : err.text, "");
}

int mb_command_doctor(const mb_cli *cli)
{
    mb_environment e;
    struct statvfs disk;
    char text[128];
    mb_environment_read(&e, 0);
    printf("maskbench %s\n", e.git);
    mb_print(stdout, "  %s, %s, %d threads", e.os, e.cpu, e.threads);
    snprintf(text, sizeof text, "%.1f GiB of memory",
             (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 0x1p30);
    line(true, "memory", text, "");
    if (statvfs("results", &disk) == 0 || statvfs(".", &disk) == 0) {
        double free_gib = (double)disk.f_bavail * (double)disk.f_frsize / 0x1p30;
        snprintf(text, sizeof text, "%.1f GiB free where results go", free_gib);
        line(free_gib > 1, "disk", text, "results need a few MiB, checkpoints many GiB");
    }
    line(true, "Unicode", MB_UNICODE_VERSION " for scores and the tokenizer's pattern, NFC of " MB_NFC_VERSION,
         "");
    line(in_path("gnuplot"), "gnuplot", in_path("gnuplot") ? "found" : "not found",
         "install gnuplot (gnuplot-nox on Debian and Ubuntu); without it there are no figures");
    line(in_path("sqlite3"), "sqlite3", in_path("sqlite3") ? "found" : "not found",
         "install sqlite3; only needed to look at results by hand");
    check_gpu();
    check_model(cli->model ? cli->model : cli->default_model);
    const char *data = cli->data ? cli->data : "datasets/data";
    char fetch[MB_FETCH_CAP];
    char *sample = mb_shared_path("datasets/sample"); /* an installed one lies elsewhere */
    mb_fetch_command("longbench", fetch);
    char *hint = mb_string_format("%s downloads it; %s comes with the program", fetch, sample ? sample : "");
    line(mb_folder_exists(data), data, mb_folder_exists(data) ? "found" : "no such folder", hint ? hint : "");
    free(hint);
    free(sample);
    for (size_t i = 0; i < mb_registry_count(); i++)
        if (*mb_registry_origin(mb_registry_at(i)))
            line(true, mb_registry_at(i)->name, mb_registry_origin(mb_registry_at(i)), "");
    printf("  %zu methods, %zu tasks\n", mb_registry_count(), mb_task_count());
    return 0; /* also with lines that miss something: what a run needs of them, the run says */
}
