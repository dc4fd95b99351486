/*
 * keys.c - every key of a config file in one table, and the check of an object against it. The same rows
 * print `./harness help config`; configs/README.md shows them in use.
 */
#include "driver/config/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_TOKENS 2097152.0

const mb_key mb_config_keys[] = {
    {"", "name", MB_KEY_STRING, 0, 0, NULL, "the file's name",
     "name of the run; results/NAME.db and results/NAME/ by default"},
    {"", "seed", MB_KEY_INT, 0, 9007199254740992.0, NULL, "1",
     "seed of everything drawn: samples, methods, synthetic weights' cache"},
    {"", "device", MB_KEY_STRING, 0, 0, NULL, "auto",
     "auto, cpu, cuda or cuda:N; auto takes a working GPU and says which"},
    {"", "threads", MB_KEY_INT, 0, 1024, NULL, "0", "CPU worker threads; 0 = all cores this process may use"},
    {"", "memory_gib", MB_KEY_REAL, 0, 1e6, NULL, "0", "device memory the run may plan with; 0 = what is free"},
    {"", "plugin_seconds", MB_KEY_REAL, 0.1, 1e6, NULL, "600",
     "seconds without a sign of life from a plug-in before its process is ended"},
    {"", "model", MB_KEY_ANY, 0, 0, NULL, "models/tiny",
     "checkpoint folder, or an object with the keys of section model"},
    {"", "data", MB_KEY_STRING, 0, 0, NULL, "datasets/data", "folder of the benchmark files"},
    {"", "tasks", MB_KEY_ANY, 0, 0, NULL, "[]",
     "list of task or group names, or objects {\"task\": NAME, own keys}; see `list tasks`, `help TASK`"},
    {"", "methods", MB_KEY_ANY, 0, 0, NULL, "required",
     "object NAME: {options}; a list of values is a sweep; see `help METHOD`"},
    {"", "sampler", MB_KEY_ANY, 0, 0, NULL, "{}",
     "object with the keys of section sampler, or a list of such objects"},
    {"", "passes", MB_KEY_ANY, 0, 0, NULL, "[\"quality\"]", "list of quality, recall, forced, latency, breakdown"},
    {"", "limit", MB_KEY_INT, 0, 1e9, NULL, "0", "samples per task; 0 = all"},
    {"", "max_length", MB_KEY_INT, 0, MAX_TOKENS, NULL, "0",
     "prompt tokens beyond which the middle is cut; 0 = what the model takes"},
    {"", "max_new_tokens", MB_KEY_INT, 0, 65536, NULL, "0", "overrides the benchmark's own limit; 0 = keep it"},
    {"", "recall", MB_KEY_ANY, 0, 0, NULL, "{}", "object with the keys of section recall"},
    {"", "latency", MB_KEY_ANY, 0, 0, NULL, "{}", "object with the keys of section latency"},
    {"", "results", MB_KEY_STRING, 0, 0, NULL, "results/NAME.db", "SQLite file"},
    {"", "plots", MB_KEY_STRING, 0, 0, NULL, "results/NAME", "folder of the figures; \"\" = draw none"},

    {"model", "path", MB_KEY_STRING, 0, 0, NULL, "", "checkpoint folder as downloaded"},
    {"model", "shape", MB_KEY_STRING, 0, 0, NULL, "",
     "named dimensions for a synthetic model: fast_dllm_v2_7b, sdar_8b, llada2_mini, ..."},
    {"model", "weights", MB_KEY_CHOICE, 0, 0, "checkpoint|random", "checkpoint",
     "random needs shape; such rows are labelled synthetic"},
    {"model", "seed", MB_KEY_INT, 0, 9007199254740992.0, NULL, "1", "seed of random weights"},
    {"model", "type", MB_KEY_CHOICE, 0, 0, "bf16|f32", "bf16", "storage type of activations and KV cache"},
    {"model", "block", MB_KEY_INT, 0, 256, NULL, "0", "block length B; 0 = the checkpoint's"},
    {"model", "positions", MB_KEY_INT, 0, MAX_TOKENS, NULL, "0",
     "overrides max_position_embeddings; 0 = the checkpoint's"},
    {"model", "prefill_chunk", MB_KEY_INT, 0, 65536, NULL, "0", "prompt rows per prefill forward; 0 = default"},
    {"model", "graphs", MB_KEY_BOOL, 0, 1, NULL, "true",
     "replay denoising steps as CUDA graphs where the method allows"},

    {"sampler", "schedule", MB_KEY_CHOICE, 0, 0, "threshold|fixed", "threshold",
     "fixed: T steps per block; threshold: the family's own rule"},
    {"sampler", "steps", MB_KEY_INT, 1, 256, NULL, "B",
     "denoising steps T per block (fixed), or the static rule's"},
    {"sampler", "threshold", MB_KEY_REAL, 0, 1, NULL, "the family's",
     "confidence above which tokens are unmasked (strictly)"},
    {"sampler", "dynamic", MB_KEY_BOOL, 0, 1, NULL, "true",
     "SDAR, LLaDA2: all above the threshold; false = static"},
    {"sampler", "block_cache", MB_KEY_BOOL, 0, 1, NULL, "false",
     "Fast-dLLM v2: sub-block calls on the block cache"},
    {"sampler", "confidence", MB_KEY_CHOICE, 0, 0, "f32|bf16|f16", "the family's",
     "type in which probabilities are compared"},
    {"sampler", "compat_prompt_bug", MB_KEY_BOOL, 0, 1, NULL, "false",
     "Fast-dLLM v2: ignore a prompt of exactly B tokens, as the reference does"},

    {"recall", "limit", MB_KEY_INT, 0, 1e9, NULL, "0",
     "samples per task in the recall pass; 0 = as the quality pass"},

    {"latency", "contexts", MB_KEY_INTS, 32, MAX_TOKENS, NULL, "[4096]", "prefix lengths in tokens"},
    {"latency", "batches", MB_KEY_ANY, 1, 1024, NULL, "[1]",
     "batch sizes; \"largest\" = the largest power of two that fits"},
    {"latency", "largest_from", MB_KEY_INT, 0, MAX_TOKENS, NULL, "0",
     "the batch \"largest\" is measured at contexts from here on"},
    {"latency", "steps", MB_KEY_INTS, 1, 256, NULL, "[B]", "denoising steps per block"},
    {"latency", "blocks_min", MB_KEY_INT, 1, 100000, NULL, "2",
     "measured blocks per case and method, at least; each gives a sample per step"},
    {"latency", "blocks_max", MB_KEY_INT, 1, 100000, NULL, "100", "measured blocks per case and method, at most"},
    {"latency", "seconds", MB_KEY_REAL, 0.01, 1e5, NULL, "15", "time cap per case and method"},
    {"latency", "error", MB_KEY_REAL, 1e-6, 1, NULL, "0.005",
     "stop when the relative standard error of the median is below"},
    {"latency", "synthetic_cache", MB_KEY_BOOL, 0, 1, NULL, "true",
     "random keys and values of realistic norms in place of a prefill"},
    {"latency", "prefill", MB_KEY_BOOL, 0, 1, NULL, "true", "also time one prefill of random tokens per context"},
    {"latency", "breakdown_contexts", MB_KEY_INTS, 32, MAX_TOKENS, NULL, "contexts",
     "where the breakdown pass looks"},
    {NULL, NULL, MB_KEY_ANY, 0, 0, NULL, NULL, NULL},
};

static const char *type_name(mb_key_type type)
{
    switch (type) {
    case MB_KEY_STRING:
        return "text";
    case MB_KEY_INT:
        return "whole number";
    case MB_KEY_REAL:
        return "number";
    case MB_KEY_BOOL:
        return "true or false";
    case MB_KEY_INTS:
        return "list of whole numbers";
    case MB_KEY_CHOICE:
        return "one of";
    case MB_KEY_ANY:
        break;
    }
    return "see help";
}

static int check_number(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    bool whole = key->type != MB_KEY_REAL;
    double number = value->valuedouble;
    if (!cJSON_IsNumber(value) || !isfinite(number) || (whole && number != floor(number)))
        return mb_fail(err, MB_E_INPUT, "config key %s must be a %s", path, whole ? "whole number" : "number");
    if (number < key->min || number > key->max)
        return mb_fail(err, MB_E_INPUT, "config key %s is %.10g; it must lie between %.10g and %.10g", path,
                       number, key->min, key->max);
    return MB_OK;
}

static int check_choice(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    const char *text = cJSON_GetStringValue(value);
    size_t length = text ? strlen(text) : 0;
    for (const char *p = key->choices; text && p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
        size_t n = strcspn(p, "|");
        if (n == length && strncmp(p, text, n) == 0)
            return MB_OK;
    }
    return mb_fail(err, MB_E_INPUT, "config key %s must be one of %s", path, key->choices);
}

static int check_value(const cJSON *value, const mb_key *key, const char *path, mb_error *err)
{
    switch (key->type) {
    case MB_KEY_STRING:
        if (!cJSON_IsString(value))
            return mb_fail(err, MB_E_INPUT, "config key %s must be text in quotes", path);
        return MB_OK;
    case MB_KEY_BOOL:
        if (!cJSON_IsBool(value))
            return mb_fail(err, MB_E_INPUT, "config key %s must be true or false", path);
        return MB_OK;
    case MB_KEY_INT:
    case MB_KEY_REAL:
        return check_number(value, key, path, err);
    case MB_KEY_CHOICE:
        return check_choice(value, key, path, err);
    case MB_KEY_INTS: {
        const cJSON *item;
        if (cJSON_IsNumber(value))
            return check_number(value, key, path, err);
        if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) == 0)
            return mb_fail(err, MB_E_INPUT, "config key %s must be a whole number or a list of them", path);
        cJSON_ArrayForEach(item, value)
        {
            int rc = check_number(item, key, path, err);
            if (rc != MB_OK)
                return rc;
        }
        return MB_OK;
    }
    case MB_KEY_ANY:
        break;
    }
    return MB_OK;
}

int mb_config_check_once(const cJSON *object, const char *path, mb_error *err)
{
    const cJSON *value;
    cJSON_ArrayForEach(value, object)
    {
        for (const cJSON *other = value->next; other; other = other->next)
            if (value->string && strcmp(other->string, value->string) == 0)
                return mb_fail(err, MB_E_INPUT, "config key %s%s%s is given twice", path, *path ? "." : "",
                               value->string);
    }
    return MB_OK;
}

int mb_config_check(const cJSON *object, const char *section, const char *path, mb_error *err)
{
    const cJSON *value;
    if (!cJSON_IsObject(object))
        return mb_fail(err, MB_E_INPUT, "config key %s must be an object { ... }", path);
    int twice = mb_config_check_once(object, path, err);
    if (twice != MB_OK)
        return twice;
    cJSON_ArrayForEach(value, object)
    {
        const mb_key *key = mb_config_keys;
        char full[256];
        snprintf(full, sizeof full, "%s%s%s", path, *path ? "." : "", value->string);
        while (key->name && (strcmp(key->section, section) != 0 || strcmp(key->name, value->string) != 0))
            key++;
        if (!key->name) {
            mb_text known = {0};
            for (key = mb_config_keys; key->name; key++)
                if (strcmp(key->section, section) == 0)
                    mb_text_printf(&known, "%s%s", known.length ? ", " : "", key->name);
            int rc = mb_fail(err, MB_E_INPUT, "unknown config key %s; known here: %s", full,
                             known.data ? known.data : "");
            mb_text_free(&known);
            return rc;
        }
        int rc = check_value(value, key, full, err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

void mb_config_help(mb_text *out)
{
    const char *section = "?";
    mb_text_puts(out, "Keys of a config file (JSON). Any key can be overridden: --set latency.seconds=5,\n"
                      "entries of a list by number: --set sampler.0.steps=16\n");
    for (const mb_key *key = mb_config_keys; key->name; key++) {
        if (strcmp(section, key->section) != 0) {
            section = key->section;
            mb_text_printf(out, "\n%s%s\n", *section ? "section " : "top level", section);
        }
        mb_text_printf(out, "  %-18s %s%s%s", key->name, type_name(key->type), key->choices ? " " : "",
                       key->choices ? key->choices : "");
        if (key->type == MB_KEY_INT || key->type == MB_KEY_REAL || key->type == MB_KEY_INTS)
            mb_text_printf(out, " %.10g..%.10g", key->min, key->max);
        mb_text_printf(out, " (default %s)\n  %-18s %s\n", key->preset, "", key->help);
    }
}
