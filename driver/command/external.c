/*
 * external.c - tokenize, logits, generate: three ways to check the model from outside, each with plain files in
 * and out, so that another implementation can be held against this one.
 */
#include "driver/command/commands.h"
#include "driver/config/keys.h"
#include "driver/open.h"
#include "driver/os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INPUT_MAX ((size_t)1 << 30)
#define ARENA_UNLOADED ((size_t)1 << 20) /* of a model that holds no weights */

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

/* A --set of a command that takes options of a method, too: those have no dot in their names. */
static bool is_config_key(const char *set)
{
    return memchr(set, '.', strcspn(set, "=")) != NULL;
}

/* Flags that set a key of a config, and every --set with a dot in its name, through the config's own rows: one
 * check, one meaning. --steps N is a schedule of N steps. */
static int chosen_keys(const mb_cli *cli, mb_run_config *config, mb_error *err)
{
    const char *sets[2 + sizeof cli->sets / sizeof cli->sets[0]];
    char steps[64];
    mb_config_flags flags = {.sets = sets, .values = cli->values, .value_count = cli->value_count};
    if (cli->steps > 0) {
        snprintf(steps, sizeof steps, "sampler.steps=%lld", (long long)cli->steps);
        sets[flags.set_count++] = "sampler.schedule=fixed";
        sets[flags.set_count++] = steps;
    }
    for (size_t i = 0; i < cli->set_count; i++)
        if (is_config_key(cli->sets[i]))
            sets[flags.set_count++] = cli->sets[i];
    return mb_config_flags_only(config, &flags, err);
}

/* What the commands share: a device and a model. */
typedef struct opened {
    mb_run_config keys; /* of the flags */
    const mb_kernels *kernels;
    mb_device *device;
    mb_model *model;
    mb_model_config config;
} opened;

/* The flags and the model's dimensions; open_model() comes after it. */
static int inspect_model(const mb_cli *cli, opened *o, mb_error *err)
{
    int rc = chosen_keys(cli, &o->keys, err);
    mb_model_request request = mb_open_request(&o->keys, true);
    return rc == MB_OK ? mb_model_inspect(&request, &o->config, err) : rc;
}

/* arena 0: no weight is loaded. */
static int open_model(const mb_cli *cli, mb_type type, size_t arena, opened *o, mb_error *err)
{
    mb_model_request request = mb_open_request(&o->keys, arena == 0);
    mb_device_options options = {
        .type = type, .threads = o->keys.threads, .arena_bytes = arena ? arena : ARENA_UNLOADED};
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
    mb_config_free(&o->keys);
}

/* Ids of a text as the user's turn. */
static int encode_chat(const mb_cli *cli, const mb_text *input, int32_t **ids, size_t *n, mb_error *err)
{
    opened o = {0};
    bool truncated;
    mb_prompt_request request = {.text = input->data, .chat = true};
    int rc = inspect_model(cli, &o, err);
    if (rc == MB_OK)
        rc = open_model(cli, MB_BF16, 0, &o, err);
    if (rc == MB_OK)
        rc = mb_prompt_build(o.model, &request, ids, n, &truncated, err);
    close_model(&o);
    return rc;
}

int mb_command_tokenize(const mb_cli *cli)
{
    mb_error err = {0};
    mb_tokenizer *tokenizer = NULL;
    mb_text input = {0};
    int32_t *ids = NULL;
    size_t n = 0, length = 0;
    char *text = NULL;
    for (size_t i = 0; i < cli->value_count && !cli->chat; i++)
        if (*cli->values[i].key->section) /* --model is a key of the top level */
            return mb_exit_fail(MB_E_INPUT, "tokenize: --chat-template, --thinking, --system, --block and --mask "
                                            "need --chat");
    int rc = mb_tokenizer_open(&tokenizer, cli->model ? cli->model : cli->default_model, &err);
    if (rc == MB_OK)
        rc = read_input(&input, &err);
    if (rc == MB_OK && cli->decode) {
        rc = parse_ids(input.data, "standard input", &ids, &n, &err);
        if (rc == MB_OK)
            rc = mb_tokenizer_decode(tokenizer, ids, n, false, &text, &length, &err);
        if (rc == MB_OK)
            fwrite(text, 1, length, stdout);
    } else if (rc == MB_OK) {
        rc = cli->chat ? encode_chat(cli, &input, &ids, &n, &err)
                       : mb_tokenizer_encode(tokenizer, input.data, input.length, true, &ids, &n, &err);
        for (size_t i = 0; rc == MB_OK && i < n; i++)
            printf("%d%c", ids[i], i + 1 < n ? ' ' : '\n');
    }
    free(text);
    free(ids);
    mb_text_free(&input);
    mb_tokenizer_close(tokenizer);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
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

static int check_ids(const int32_t *ids, size_t n, const char *source, const mb_model_config *config, int32_t most,
                     mb_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= config->vocab)
            return mb_fail(err, MB_E_INPUT, "%s: id %d is not below the vocabulary size %d", source, ids[i],
                           config->vocab);
    if (n == 0 || n > (size_t)most)
        return mb_fail(err, MB_E_INPUT, "%s holds %zu ids; the model takes 1 to %d", source, n, most);
    return MB_OK;
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
    if (!cli->ids || !cli->out)
        return mb_exit_fail(MB_E_INPUT, "logits needs --ids FILE (token ids) and --out FILE.npy");
    int rc = mb_chosen_type(cli, MB_F32, &type, &err);
    if (rc == MB_OK)
        rc = inspect_model(cli, &o, &err);
    if (rc == MB_OK)
        rc = mb_file_read(cli->ids, INPUT_MAX, &text, &size, &err);
    if (rc == MB_OK)
        rc = parse_ids(text, cli->ids, &ids, &n, &err);
    if (rc == MB_OK)
        rc = check_ids(ids, n, cli->ids, &o.config, o.config.positions, &err);
    if (rc == MB_OK) {
        mb_session_request session = {.batch = 1, .capacity = (int32_t)n + 2 * o.config.block};
        mb_memory_plan plan;
        mb_memory_plan_make(&o.config, type, &session, 0, &plan);
        rc = open_model(cli, type, plan.total + n * (size_t)o.config.vocab * 4 + ((size_t)64 << 20), &o, &err);
    }
    if (rc == MB_OK)
        rc = mb_model_logits(o.model, ids, n, &logits, &err);
    if (rc == MB_OK)
        rc = write_npy(cli->out, logits, n, (size_t)o.config.vocab, &err);
    if (rc == MB_OK && !cli->quiet)
        mb_print(stderr, "%s: %zu x %d float32 logits", cli->out, n, o.config.vocab);
    free(logits);
    free(ids);
    free(text);
    close_model(&o);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}

/* One line a step: which positions became which tokens. */
static void print_trace(void *user, const mb_trace_step *step)
{
    const mb_tokenizer *tokenizer = user;
    const char *kind = step->kind == 'C' ? "commit" : step->kind == 's' ? "sub-block" : "denoise";
    mb_text line = {0};
    mb_text_printf(&line, "block %d step %d %s %d rows at %d, %d masked:", step->block, step->step, kind,
                   step->rows, step->prefix + step->row_offset, step->masked_before);
    for (int32_t i = 0; i < step->count; i++) {
        char *text = NULL;
        size_t length = 0;
        if (mb_tokenizer_decode(tokenizer, &step->tokens[i], 1, false, &text, &length, NULL) == MB_OK) {
            mb_text_printf(&line, " %d=", step->positions[i]);
            mb_text_spell(&line, text, length);
        }
        free(text);
    }
    mb_print(stderr, "%s", line.data ? line.data : "");
    mb_text_free(&line);
}

/* One answer to one prompt. */
typedef struct generation {
    const mb_cli *cli;
    const mb_method *method;
    mb_type type;
    int32_t max_new_tokens, capacity; /* tokens */
    opened open;
    mb_session *session;
    mb_attender *attender;
    mb_sampler sampler;
    char *prompt; /* owned */
    int32_t *ids; /* of the prompt, owned */
    size_t count;
    double prefill_us;
} generation;

/* The method's options with every --set on top; *options is the caller's, also after a failure. */
static int read_options(const generation *g, void **options, mb_error *err)
{
    int rc = MB_OK;
    *options = mb_method_options_new(g->method);
    for (size_t i = 0; rc == MB_OK && i < g->cli->set_count; i++) {
        const char *set = g->cli->sets[i], *equals = strchr(set, '=');
        char name[128];
        if (is_config_key(set))
            continue;
        snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - set) : 0, set);
        rc = equals ? mb_method_options_set(g->method, *options, name, equals + 1, name, err)
                    : mb_fail(err, MB_E_INPUT, "--set %s: write it as key=value", set);
    }
    return rc;
}

/* The prompt into a session with the method opened on it. */
static int open_session(generation *g, mb_error *err)
{
    mb_session_request request = {.batch = 1, .capacity = g->capacity};
    const mb_sampler *sampler = &g->sampler;
    void *options = NULL;
    bool unsupported;
    int rc = mb_session_open(&g->session, g->open.model, &request, err);
    if (rc == MB_OK)
        rc = read_options(g, &options, err);
    if (rc == MB_OK)
        rc = mb_attender_open(&g->attender, g->session, g->method, options,
                              sampler->schedule == MB_SCHEDULE_FIXED ? sampler->steps : 0, 1, &unsupported, err);
    free(options);
    return rc == MB_OK ? mb_session_prefill(g->session, 0, g->ids, g->count, &g->prefill_us, err) : rc;
}

/* The text as it is; a terminal, which would obey its control characters, is shown them. */
static void print_answer(const char *text, size_t length)
{
    mb_text whole = {0}, shown = {0};
    mb_text_append(&whole, text, length);
    if (isatty(STDOUT_FILENO) && whole.data)
        mb_text_visible(&shown, whole.data, "\n\t");
    const mb_text *out = shown.data ? &shown : &whole;
    fwrite(out->data ? out->data : "", 1, out->length, stdout);
    fputc('\n', stdout);
    mb_text_free(&whole);
    mb_text_free(&shown);
}

/* Decodes and prints the text. */
static int answer(generation *g, mb_error *err)
{
    const mb_tokenizer *tokenizer = mb_model_tokenizer(g->open.model);
    mb_decode_result result = {0};
    mb_decode_request request = {.sampler = &g->sampler,
                                 .max_new_tokens = g->max_new_tokens,
                                 .extra_stop_id = -1,
                                 .seed = g->open.keys.seed,
                                 .stop = &mb_interrupted,
                                 .trace = g->cli->trace ? print_trace : NULL,
                                 .user = (void *)(uintptr_t)tokenizer};
    char *text = NULL;
    size_t length = 0;
    int rc = mb_decode(g->session, g->attender, &request, &result, err);
    if (rc == MB_OK && !g->cli->ids)
        rc = mb_tokenizer_decode(tokenizer, result.ids, result.count, true, &text, &length, err);
    if (rc == MB_OK && !g->cli->ids) {
        print_answer(text, length);
    }
    for (size_t i = 0; rc == MB_OK && g->cli->ids && i < result.count; i++)
        printf("%d%c", result.ids[i], i + 1 < result.count ? ' ' : '\n');
    if (rc == MB_OK && !g->cli->quiet)
        fprintf(stderr,
                "%zu prompt tokens, prefill %.1f ms; %zu new tokens in %d blocks, %d + %d forwards, %.1f ms; "
                "engaged %.2f, work %.3f\n",
                g->count, g->prefill_us * 1e-3, result.count, result.blocks, result.denoise_forwards,
                result.commit_forwards, result.decode_us * 1e-3, result.engaged, result.work);
    if (rc == MB_OK && !g->cli->quiet && result.edits > 0)
        fprintf(stderr, "%d written tokens were edited\n", result.edits);
    free(text);
    mb_decode_result_free(&result);
    return rc;
}

/* --steps and --max-new-tokens against the model. */
static int check_numbers(generation *g, mb_error *err)
{
    const mb_model_config *config = &g->open.config;
    const int64_t steps = g->cli->steps;
    int64_t most =
        config->positions - 3 * (int64_t)config->block; /* a block of prompt, and what decoding rounds up */
    int64_t wanted = g->cli->max_new_tokens >= 0 ? g->cli->max_new_tokens : 128;
    if (steps == 0 || steps > config->block)
        return mb_fail(err, MB_E_INPUT, "--steps %lld: a block of %s takes 1 to %d steps", (long long)steps,
                       config->name, config->block);
    if (wanted < 1 || wanted > most)
        return mb_fail(err, MB_E_INPUT, "--max-new-tokens %lld: %s has room for 1 to %lld with a prompt",
                       (long long)wanted, config->name, (long long)most);
    g->max_new_tokens = (int32_t)wanted;
    return mb_config_sampler(&g->open.keys, 0, config, &g->sampler, err);
}

/* The method of --method, or the one that equals exact attention. */
static int choose_method(generation *g, mb_error *err)
{
    const char *name = g->cli->method;
    for (size_t i = 0; i < mb_registry_count() && !g->method; i++)
        if (name ? strcmp(mb_registry_at(i)->name, name) == 0 : (mb_registry_at(i)->caps & MB_CAP_LOSSLESS) != 0)
            g->method = mb_registry_at(i);
    return g->method
               ? MB_OK
               : mb_fail(err, MB_E_INPUT, "no method \"%s\"; ./harness list methods shows them", name ? name : "");
}

/* A prompt of token ids, as they are: the answer is printed as ids, too. */
static int read_prompt_ids(generation *g, mb_error *err)
{
    char *text = NULL;
    size_t size = 0;
    int rc = mb_file_read(g->cli->ids, INPUT_MAX, &text, &size, err);
    if (rc == MB_OK)
        rc = parse_ids(text, g->cli->ids, &g->ids, &g->count, err);
    free(text);
    g->prompt = rc == MB_OK ? mb_string_copy("") : NULL;
    return rc;
}

static int read_prompt(generation *g, mb_error *err)
{
    mb_text input = {0}, spelled = {0};
    char *data = NULL;
    size_t size = 0;
    int rc;
    if (strcmp(g->cli->prompt, "-") != 0) {
        rc = mb_file_read(g->cli->prompt, INPUT_MAX, &data, &size, err);
    } else {
        rc = read_input(&input, err);
        size = input.length;
        data = mb_text_take(&input);
    }
    if (rc == MB_OK) {
        mb_text_spell(&spelled, data, size);
        g->prompt = mb_text_take(&spelled);
        if (!g->prompt)
            rc = mb_no_memory(err, "the prompt");
    }
    free(data);
    return rc;
}

/* The model with memory for the session. Capacity before the prompt is tokenised: bytes bound its tokens. */
static int open_planned(generation *g, mb_error *err)
{
    const mb_model_config *config = &g->open.config;
    const char *message = g->open.keys.chat.system;
    const size_t system = message ? strlen(message) : 0;
    int64_t bound = (int64_t)(strlen(g->prompt) + system + g->count) + 512 + g->max_new_tokens + 2 * config->block;
    int32_t capacity = (int32_t)(bound < config->positions ? bound : config->positions);
    g->capacity = capacity / config->block * config->block;
    mb_session_request request = {.batch = 1, .capacity = g->capacity};
    mb_memory_plan plan;
    mb_shape shape;
    void *options = NULL;
    int rc = read_options(g, &options, err);
    if (rc != MB_OK) {
        free(options);
        return rc;
    }
    mb_shape_make(config, g->type, 1, g->capacity, g->sampler.schedule == MB_SCHEDULE_FIXED ? g->sampler.steps : 0,
                  &shape);
    mb_memory_plan_make(config, g->type, &request, mb_attender_bytes(g->method, &shape, options), &plan);
    free(options);
    return open_model(g->cli, g->type, plan.total, &g->open, err);
}

static int tokenize_prompt(generation *g, mb_error *err)
{
    mb_prompt_request request = {
        .text = g->prompt, .chat = true, .hard_limit = g->capacity - g->max_new_tokens - 2 * g->open.config.block};
    bool truncated;
    if (g->cli->ids)
        return check_ids(g->ids, g->count, g->cli->ids, &g->open.config, request.hard_limit, err);
    int rc = mb_prompt_build(g->open.model, &request, &g->ids, &g->count, &truncated, err);
    return rc == MB_E_SAMPLE ? MB_E_INPUT : rc;
}

int mb_command_generate(const mb_cli *cli)
{
    mb_error err = {0};
    generation g = {.cli = cli};
    if (!cli->prompt == !cli->ids)
        return mb_exit_fail(MB_E_INPUT, "generate needs --prompt FILE (- for standard input), or --ids FILE");
    int rc = mb_chosen_type(cli, MB_BF16, &g.type, &err);
    if (rc == MB_OK)
        rc = choose_method(&g, &err);
    if (rc == MB_OK)
        rc = cli->ids ? read_prompt_ids(&g, &err) : read_prompt(&g, &err);
    if (rc == MB_OK)
        rc = inspect_model(cli, &g.open, &err);
    if (rc == MB_OK)
        rc = check_numbers(&g, &err);
    if (rc == MB_OK)
        rc = open_planned(&g, &err);
    if (rc == MB_OK)
        rc = tokenize_prompt(&g, &err);
    if (rc == MB_OK)
        rc = open_session(&g, &err);
    if (rc == MB_OK)
        rc = answer(&g, &err);
    mb_attender_close(g.attender);
    mb_session_close(g.session);
    free(g.ids);
    free(g.prompt);
    close_model(&g.open);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}
