/*
 * external.c - tokenize, logits, generate: three ways to check the model from outside, each with plain files in
 * and out, so that another implementation can be held against this one.
 */
#include "driver/command/commands.h"
#include "driver/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX ((size_t)1 << 30)

/* All of standard input. */
static int read_input(mb_text *text, mb_error *err)
{
    char buffer[65536];
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, stdin)) > 0 && text->length < INPUT_MAX)
        mb_text_append(text, buffer, n);
    if (ferror(stdin) || text->failed || text->length >= INPUT_MAX)
        return mb_fail(err, MB_E_SYSTEM, "cannot read standard input");
    mb_text_append(text, "", 0);
    return MB_OK;
}

/* Ids separated by white space or commas, JSON brackets allowed. */
static int parse_ids(const char *text, const char *source, int32_t **ids, size_t *count, mb_error *err)
{
    size_t capacity = 1024;
    *count = 0;
    *ids = malloc(capacity * sizeof **ids);
    for (const char *p = text; *ids;) {
        char *end;
        p += strspn(p, " \t\r\n,[]");
        if (!*p)
            return MB_OK;
        long value = strtol(p, &end, 10);
        if (end == p || value < 0 || value > INT32_MAX || (*end && !strchr(" \t\r\n,[]", *end)))
            return mb_fail(err, MB_E_INPUT, "%s: \"%.20s\" is not a token id", source, p);
        p = end;
        if (*count == capacity) {
            int32_t *grown = realloc(*ids, (capacity *= 2) * sizeof *grown);
            if (!grown)
                break;
            *ids = grown;
        }
        (*ids)[(*count)++] = (int32_t)value;
    }
    return mb_no_memory(err, "the token ids");
}

static const char *chosen_model(const mb_cli *cli)
{
    return cli->model ? cli->model : cli->default_model;
}

int mb_command_tokenize(const mb_cli *cli)
{
    mb_error err = {0};
    mb_tokenizer *tokenizer = NULL;
    mb_text input = {0};
    int32_t *ids = NULL;
    size_t n = 0, length = 0;
    char *text = NULL;
    int rc = mb_tokenizer_open(&tokenizer, chosen_model(cli), &err);
    if (rc == MB_OK)
        rc = read_input(&input, &err);
    if (rc == MB_OK && cli->decode) {
        rc = parse_ids(input.data, "standard input", &ids, &n, &err);
        if (rc == MB_OK)
            rc = mb_tokenizer_decode(tokenizer, ids, n, false, &text, &length, &err);
        if (rc == MB_OK)
            fwrite(text, 1, length, stdout);
    } else if (rc == MB_OK) {
        rc = mb_tokenizer_encode(tokenizer, input.data, input.length, true, &ids, &n, &err);
        for (size_t i = 0; rc == MB_OK && i < n; i++)
            printf("%d%c", ids[i], i + 1 < n ? ' ' : '\n');
    }
    free(text);
    free(ids);
    mb_text_free(&input);
    mb_tokenizer_close(tokenizer);
    return rc == MB_OK ? 0 : mb_command_fail(rc, err.text);
}

/* What logits and generate share: a device and a model. */
typedef struct opened {
    const mb_kernels *kernels;
    mb_device *device;
    mb_model *model;
    mb_model_config shape;
} opened;

static int open_model(const mb_cli *cli, mb_type type, size_t arena, opened *o, mb_error *err)
{
    mb_model_request request = {.path = chosen_model(cli)};
    mb_device_options options = {.type = type, .arena_bytes = arena};
    mb_error note = {0};
    int rc = mb_device_open(cli->device ? cli->device : "cpu", &options, &o->kernels, &o->device, &note, err);
    if (rc == MB_OK)
        rc = mb_model_open(&o->model, &request, o->kernels, o->device, type, err);
    return rc;
}

static void close_model(opened *o)
{
    mb_model_close(o->model);
    if (o->device)
        o->kernels->close(o->device);
}

static int chosen_type(const mb_cli *cli, mb_type preset, mb_type *type, mb_error *err)
{
    *type = preset;
    if (!cli->type)
        return MB_OK;
    if (strcmp(cli->type, "f32") == 0)
        *type = MB_F32;
    else if (strcmp(cli->type, "bf16") == 0)
        *type = MB_BF16;
    else
        return mb_fail(err, MB_E_INPUT, "--type is bf16 or f32, not \"%s\"", cli->type);
    return MB_OK;
}

/* NumPy format 1.0, little-endian float32, C order. */
static int write_npy(const char *path, const float *values, size_t rows, size_t columns, mb_error *err)
{
    mb_text file = {0};
    char header[128];
    int n = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                     rows, columns);
    while ((10 + n + 1) % 64 != 0 && n < (int)sizeof header - 2)
        header[n++] = ' ';
    header[n++] = '\n';
    const char magic[10] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, (char)(n & 255), (char)(n >> 8)};
    mb_text_append(&file, magic, sizeof magic);
    mb_text_append(&file, header, (size_t)n);
    mb_text_append(&file, (const char *)values, rows * columns * sizeof *values);
    int rc =
        file.failed ? mb_no_memory(err, "writing %s", path) : mb_file_write(path, file.data, file.length, err);
    mb_text_free(&file);
    return rc;
}

int mb_command_logits(const mb_cli *cli)
{
    mb_error err = {0};
    char *text = NULL;
    size_t size = 0, n = 0;
    int32_t *ids = NULL;
    float *logits = NULL;
    opened o = {0};
    mb_type type = MB_F32;
    mb_model_request request = {.path = chosen_model(cli)};
    if (!cli->ids || !cli->out)
        return mb_command_fail(MB_E_INPUT, "logits needs --ids FILE (token ids) and --out FILE.npy");
    int rc = chosen_type(cli, MB_F32, &type, &err);
    if (rc == MB_OK)
        rc = mb_model_inspect(&request, &o.shape, &err);
    if (rc == MB_OK)
        rc = mb_file_read(cli->ids, INPUT_MAX, &text, &size, &err);
    if (rc == MB_OK)
        rc = parse_ids(text, cli->ids, &ids, &n, &err);
    for (size_t i = 0; rc == MB_OK && i < n; i++)
        if (ids[i] >= o.shape.vocab)
            rc = mb_fail(&err, MB_E_INPUT, "%s: id %d is not below the vocabulary size %d", cli->ids, ids[i],
                         o.shape.vocab);
    if (rc == MB_OK && (n == 0 || n > (size_t)o.shape.positions))
        rc =
            mb_fail(&err, MB_E_INPUT, "%s holds %zu ids; the model takes 1 to %d", cli->ids, n, o.shape.positions);
    if (rc == MB_OK) {
        mb_session_request session = {.batch = 1, .capacity = (int32_t)n + 2 * o.shape.block};
        mb_memory_plan plan;
        mb_memory_plan_make(&o.shape, type, &session, 0, &plan);
        rc = open_model(cli, type, plan.total + n * (size_t)o.shape.vocab * 4 + ((size_t)64 << 20), &o, &err);
    }
    if (rc == MB_OK)
        rc = mb_model_logits(o.model, ids, n, &logits, &err);
    if (rc == MB_OK)
        rc = write_npy(cli->out, logits, n, (size_t)o.shape.vocab, &err);
    if (rc == MB_OK && !cli->quiet)
        fprintf(stderr, "%s: %zu x %d float32 logits\n", cli->out, n, o.shape.vocab);
    free(logits);
    free(ids);
    free(text);
    close_model(&o);
    return rc == MB_OK ? 0 : mb_command_fail(rc, err.text);
}

/* One line a step: which positions became which tokens. */
static void print_trace(void *user, const mb_trace_step *step)
{
    const mb_tokenizer *tokenizer = user;
    fprintf(stderr, "block %d step %d %s %d rows at %d, %d masked:", step->block, step->step,
            step->kind == 'C'   ? "commit"
            : step->kind == 's' ? "sub-block"
                                : "denoise",
            step->rows, step->prefix + step->row_offset, step->masked_before);
    for (int32_t i = 0; i < step->count; i++) {
        char *text = NULL;
        size_t length = 0;
        if (mb_tokenizer_decode(tokenizer, &step->tokens[i], 1, false, &text, &length, NULL) == MB_OK) {
            fprintf(stderr, " %d=", step->positions[i]);
            for (size_t c = 0; c < length; c++)
                fprintf(stderr, (unsigned char)text[c] < 32 ? "\\x%02x" : "%c", (unsigned char)text[c]);
        }
        free(text);
    }
    fputc('\n', stderr);
}

/* Decodes the prompt with the chosen method and prints the text. */
static int generate(const mb_cli *cli, opened *o, const mb_method *method, const int32_t *ids, size_t n,
                    int32_t max_new_tokens, int32_t capacity, mb_error *err)
{
    mb_session_request request = {.batch = 1, .capacity = capacity};
    mb_session *session = NULL;
    mb_attender *attender = NULL;
    mb_decode_result result = {0};
    mb_sampler sampler;
    char *text = NULL;
    size_t length = 0;
    double us = 0;
    bool unsupported;
    void *options = mb_options_new(method);
    mb_sampler_default(&o->shape, &sampler);
    if (cli->steps >= 0) {
        sampler.schedule = MB_SCHEDULE_FIXED;
        sampler.steps = (int32_t)cli->steps;
    }
    int rc = mb_session_open(&session, o->model, &request, err);
    for (size_t i = 0; rc == MB_OK && i < cli->set_count; i++) {
        char name[128];
        const char *equals = strchr(cli->sets[i], '=');
        snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - cli->sets[i]) : 0, cli->sets[i]);
        rc = equals ? mb_options_set(method, options, name, equals + 1, name, err)
                    : mb_fail(err, MB_E_INPUT, "--set %s: write it as key=value", cli->sets[i]);
    }
    if (rc == MB_OK)
        rc = mb_attender_open(&attender, session, method, options,
                              sampler.schedule == MB_SCHEDULE_FIXED ? sampler.steps : 0, 1, &unsupported, err);
    if (rc == MB_OK)
        rc = mb_session_prefill(session, 0, ids, n, &us, err);
    if (rc == MB_OK) {
        mb_decode_request decode = {.sampler = &sampler,
                                    .max_new_tokens = max_new_tokens,
                                    .extra_stop_id = -1,
                                    .stop = &mb_interrupted,
                                    .trace = cli->trace ? print_trace : NULL,
                                    .user = (void *)(uintptr_t)mb_model_tokenizer(o->model)};
        rc = mb_decode(session, attender, &decode, &result, err);
    }
    if (rc == MB_OK)
        rc =
            mb_tokenizer_decode(mb_model_tokenizer(o->model), result.ids, result.count, true, &text, &length, err);
    if (rc == MB_OK) {
        fwrite(text, 1, length, stdout);
        fputc('\n', stdout);
        if (!cli->quiet)
            fprintf(stderr,
                    "%zu prompt tokens, prefill %.1f ms; %zu new tokens in %d blocks, %d + %d forwards, %.1f ms; "
                    "engaged %.2f, work %.3f\n",
                    n, us * 1e-3, result.count, result.blocks, result.denoise_forwards, result.commit_forwards,
                    result.decode_us * 1e-3, result.engaged, result.work);
    }
    free(text);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
    mb_session_close(session);
    free(options);
    return rc;
}

/* --steps and --max-new-tokens against the model. */
static int check_numbers(const mb_cli *cli, const mb_model_config *shape, int32_t *max_new_tokens, mb_error *err)
{
    int64_t most =
        shape->positions - 3 * (int64_t)shape->block; /* a block of prompt, and what decoding rounds up */
    int64_t wanted = cli->max_new_tokens >= 0 ? cli->max_new_tokens : 128;
    if (cli->steps == 0 || cli->steps > shape->block)
        return mb_fail(err, MB_E_INPUT, "--steps %lld: a block of %s takes 1 to %d steps", (long long)cli->steps,
                       shape->name, shape->block);
    if (wanted < 1 || wanted > most)
        return mb_fail(err, MB_E_INPUT, "--max-new-tokens %lld: %s has room for 1 to %lld with a prompt",
                       (long long)wanted, shape->name, (long long)most);
    *max_new_tokens = (int32_t)wanted;
    return MB_OK;
}

int mb_command_generate(const mb_cli *cli)
{
    mb_error err = {0};
    char *prompt = NULL;
    size_t size = 0, n = 0;
    int32_t *ids = NULL;
    bool truncated;
    opened o = {0};
    mb_text input = {0};
    mb_type type = MB_BF16;
    mb_model_request inspect = {.path = chosen_model(cli)};
    const mb_method *method = NULL;
    int32_t max_new_tokens = 0;
    if (!cli->prompt)
        return mb_command_fail(MB_E_INPUT, "generate needs --prompt FILE (- for standard input)");
    int rc = chosen_type(cli, MB_BF16, &type, &err);
    for (size_t i = 0; i < mb_registry_count() && !method; i++)
        if (cli->method ? strcmp(mb_registry_at(i)->name, cli->method) == 0
                        : (mb_registry_at(i)->caps & MB_CAP_LOSSLESS) != 0)
            method = mb_registry_at(i);
    if (rc == MB_OK && !method)
        rc = mb_fail(&err, MB_E_INPUT, "no method \"%s\"; ./harness list methods shows them",
                     cli->method ? cli->method : "");
    if (rc == MB_OK && strcmp(cli->prompt, "-") == 0) {
        rc = read_input(&input, &err);
        prompt = mb_text_take(&input);
    } else if (rc == MB_OK) {
        rc = mb_file_read(cli->prompt, INPUT_MAX, &prompt, &size, &err);
    }
    if (rc == MB_OK)
        rc = mb_model_inspect(&inspect, &o.shape, &err);
    if (rc == MB_OK)
        rc = check_numbers(cli, &o.shape, &max_new_tokens, &err);
    if (rc == MB_OK) {
        /* Capacity before the prompt is tokenised: bytes bound its tokens. */
        int64_t bound = (int64_t)strlen(prompt) + 512 + max_new_tokens + 2 * o.shape.block;
        int32_t capacity = (int32_t)(bound < o.shape.positions ? bound : o.shape.positions);
        capacity = capacity / o.shape.block * o.shape.block;
        mb_session_request session = {.batch = 1, .capacity = capacity};
        mb_memory_plan plan;
        mb_shape shape;
        mb_shape_make(&o.shape, type, 1, capacity, (int32_t)(cli->steps > 0 ? cli->steps : 0), &shape);
        void *options = mb_options_new(method);
        mb_memory_plan_make(&o.shape, type, &session, mb_attender_bytes(method, &shape, options), &plan);
        free(options);
        rc = open_model(cli, type, plan.total, &o, &err);
        mb_prompt_request request = {
            .text = prompt, .chat = true, .hard_limit = capacity - max_new_tokens - 2 * o.shape.block};
        if (rc == MB_OK)
            rc = mb_prompt_build(o.model, &request, &ids, &n, &truncated, &err);
        if (rc == MB_E_SAMPLE)
            rc = MB_E_INPUT;
        if (rc == MB_OK)
            rc = generate(cli, &o, method, ids, n, max_new_tokens, capacity, &err);
    }
    free(ids);
    free(prompt);
    close_model(&o);
    return rc == MB_OK ? 0 : mb_command_fail(rc, err.text);
}
