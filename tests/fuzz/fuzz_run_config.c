/*
 * fuzz_run_config.c - any text as the config of a run, what follows a zero byte as a --set: the result is a
 * refusal with one sentence, or a config whose identity can be made and which reads back from its stored text.
 */
#include "driver/config/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(mb_run_config *config)
{
    char *stored = NULL, *identity = NULL;
    mb_error err = {0};
    mb_run_config again;
    const mb_config_flags none = {0};
    if (config->method_count == 0 || config->samplers.count == 0 || !config->name || !config->results ||
        (!config->model_path && !config->model_shape))
        abort();
    if (mb_config_identity(config, "cpu", &stored, &identity, &err) != MB_OK)
        abort();
    if (mb_config_read(&again, stored, strlen(stored), "stored", &none, &err) != MB_OK)
        abort();
    if (again.method_count != config->method_count || again.task_count != config->task_count ||
        again.seed != config->seed)
        abort();
    mb_config_free(&again);
    free(stored);
    free(identity);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_run_config config;
    mb_error err = {0};
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    const char *zero = memchr(text, '\0', size), *set = zero ? zero + 1 : NULL;
    mb_config_flags flags = {.sets = &set, .set_count = set != NULL};
    if (mb_config_read(&config, text, strlen(text), "run.json", &flags, &err) == MB_OK) {
        check(&config);
        mb_config_free(&config);
    } else if (!err.text[0]) {
        abort();
    }
    free(text);
    return 0;
}
