/*
 * bench.c - ./harness bench-kernels: every bench case of the kernels on one device, a line each as it is done, or
 * JSON lines. The machine's own ceilings are measured first, in the same process.
 */
#include "driver/command/commands.h"
#include "driver/os/os.h"
#include "kernels/bench.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* On the CPU larger cases would take minutes and say nothing new. */
#define CPU_LIMIT ((size_t)256 * 1000 * 1000)

static bool chosen(const mb_cli *cli, const mb_kernel_case *c)
{
    char both[128];
    snprintf(both, sizeof both, "%s: %s", mb_operation_name(c->operation), c->name);
    return c->use & MB_CASE_BENCH && (!cli->kernel_case || strstr(both, cli->kernel_case));
}

static int print_json(cJSON *object)
{
    char *line = object ? cJSON_PrintUnformatted(object) : NULL;
    cJSON_Delete(object);
    if (!line)
        return MB_E_SYSTEM;
    puts(line);
    free(line);
    return MB_OK;
}

static void add_time(cJSON *object, const mb_bench_time *time)
{
    cJSON_AddNumberToObject(object, "median_us", time->median_us);
    cJSON_AddNumberToObject(object, "p10_us", time->p10_us);
    cJSON_AddNumberToObject(object, "p90_us", time->p90_us);
    cJSON_AddNumberToObject(object, "samples", time->samples);
    cJSON_AddNumberToObject(object, "calls", time->calls);
}

static int print_ceilings(const mb_cli *cli, const mb_kernels *kernels, const mb_device_info *info, mb_type type,
                          const mb_bench_ceilings *c)
{
    const char *name = mb_type_name(type);
    if (cli->jsonl) {
        cJSON *object = cJSON_CreateObject(), *copy, *gemm;
        cJSON_AddStringToObject(object, "backend", kernels->name);
        cJSON_AddStringToObject(object, "device", info->name);
        cJSON_AddStringToObject(object, "detail", info->detail);
        cJSON_AddStringToObject(object, "type", name);
        copy = cJSON_AddObjectToObject(object, "copy");
        cJSON_AddNumberToObject(copy, "block_bytes", (double)c->copy_bytes);
        cJSON_AddNumberToObject(copy, "bytes_per_second", c->copy_rate);
        add_time(copy, &c->copy);
        gemm = cJSON_AddObjectToObject(object, "gemm");
        cJSON_AddNumberToObject(gemm, "width", (double)c->gemm_width);
        cJSON_AddNumberToObject(gemm, "flops_per_second", c->gemm_rate);
        add_time(gemm, &c->gemm);
        return print_json(object);
    }
    printf("%s: %s, %s; arrays in %s\n", kernels->name, info->name, info->detail, name);
    printf("ceilings, measured now: copy of %.0f MB %.1f GB/s (read + written), gemm %lld^3 %.2f TFLOP/s\n",
           (double)c->copy_bytes * 1e-6, c->copy_rate * 1e-9, (long long)c->gemm_width, c->gemm_rate * 1e-12);
    printf("floor: the larger of bytes / copy rate and FLOPs / gemm rate\n\n");
    printf("%-15s %-28s %10s %10s %10s %10s %10s %10s %7s %8s %6s %5s\n", "operation", "case", "median us",
           "p10 us", "p90 us", "MB", "GFLOP", "floor us", "x floor", "GB/s", "TFLOPs", "sets");
    return MB_OK;
}

static int print_row(const mb_cli *cli, const mb_bench_row *row)
{
    const mb_kernel_case *c = row->problem;
    const char *operation = mb_operation_name(c->operation);
    const double us = row->time.median_us;
    if (cli->jsonl) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "operation", operation);
        cJSON_AddStringToObject(object, "case", c->name);
        if (row->skipped[0]) {
            cJSON_AddStringToObject(object, "skipped", row->skipped);
            return print_json(object);
        }
        add_time(object, &row->time);
        cJSON_AddNumberToObject(object, "sets", row->sets);
        cJSON_AddNumberToObject(object, "bytes", row->bytes);
        cJSON_AddNumberToObject(object, "flops", row->flops);
        cJSON_AddNumberToObject(object, "floor_us", row->floor_us);
        cJSON_AddNumberToObject(object, "over_floor", row->over_floor);
        return print_json(object);
    }
    if (row->skipped[0])
        printf("%-15s %-28s %s\n", operation, c->name, row->skipped);
    else
        printf("%-15s %-28s %10.2f %10.2f %10.2f %10.3f %10.3f %10.2f %7.2f %8.1f %6.1f %5d\n", operation, c->name,
               us, row->time.p10_us, row->time.p90_us, row->bytes * 1e-6, row->flops * 1e-9, row->floor_us,
               row->over_floor, row->bytes / us * 1e-3, row->flops / us * 1e-6, row->sets);
    fflush(stdout); /* a long list shows how far it is, also through a pipe */
    return MB_OK;
}

/* All chosen cases. One that fails is said on standard error and fails the command, after the others were timed.
 */
static int bench_all(const mb_cli *cli, const mb_kernels *kernels, mb_device *device, mb_type type, mb_error *err)
{
    const size_t limit = strcmp(kernels->name, "cpu") == 0 ? CPU_LIMIT : 0;
    size_t failed = 0;
    mb_bench_ceilings ceilings;
    mb_device_info info;
    mb_bench_row row;
    kernels->info(device, &info);
    int rc = mb_bench_measure_ceilings(kernels, device, type, &ceilings, err);
    if (rc == MB_OK)
        rc = print_ceilings(cli, kernels, &info, type, &ceilings);
    for (size_t i = 0; rc == MB_OK && mb_kernel_case_at(i); i++) {
        if (!chosen(cli, mb_kernel_case_at(i)))
            continue;
        if (mb_interrupted)
            return mb_fail(err, MB_E_STOP, "interrupted");
        if (mb_bench_case(kernels, device, type, mb_kernel_case_at(i), &ceilings, limit, &row, err) != MB_OK) {
            mb_say("%s", err->text);
            failed++;
        } else if (print_row(cli, &row) != MB_OK) {
            rc = mb_no_memory(err, "the benchmark");
        }
    }
    if (rc == MB_OK && failed)
        rc = mb_fail(err, MB_E_SYSTEM, "%zu cases failed", failed);
    return rc;
}

int mb_command_bench_kernels(const mb_cli *cli)
{
    mb_error note = {0};
    mb_error err = {0};
    mb_device_options options = {.type = MB_BF16};
    const mb_kernels *kernels = NULL;
    mb_device *device = NULL;
    size_t count = 0;
    int rc = MB_OK;
    for (size_t i = 0; mb_kernel_case_at(i); i++)
        count += chosen(cli, mb_kernel_case_at(i));
    if (count == 0)
        rc = mb_fail(&err, MB_E_INPUT, "no bench case's \"operation: name\" contains \"%s\"", cli->kernel_case);
    else
        rc = mb_chosen_type(cli, MB_BF16, &options.type, &err);
    if (rc == MB_OK)
        rc = mb_device_open(cli->device ? cli->device : "auto", &options, &kernels, &device, &note, &err);
    if (rc == MB_OK) {
        if (note.text[0])
            mb_say("%s", note.text);
        rc = bench_all(cli, kernels, device, options.type, &err);
    }
    if (device)
        kernels->close(device);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}
