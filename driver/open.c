/*
 * open.c - what a run and a worker open in the same way: dimensions, device, weights, session. Everything that can
 * be refused is refused here, before any work: dimensions against the config, memory against the device.
 */
#include "driver/open.h"

#include "driver/os/os.h"
#include "driver/pass/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_WORK ((size_t)1 << 20)         /* of a device that others compute on: it is asked what it is */
#define WORKER_OVERHEAD ((size_t)1 << 30) /* context and work memory of one more process on a GPU */
#define LINK_OVERHEAD ((size_t)2 << 30)   /* what NCCL takes of a GPU beside the arena, at most */
#define GROUP_ROWS 256                    /* of a product that multiplies as long as it reads the weights */
#define GROUP_MOST 16                     /* lanes */
#define CHAT_ALLOWANCE 256                /* tokens that a chat wrapper may add, before it is measured */

mb_model_request mb_open_request(const mb_run_config *config, bool unloaded)
{
    return (mb_model_request){.path = config->model_path,
                              .shape = config->model_shape,
                              .seed = config->model_seed,
                              .block = config->block_size,
                              .sub_block = config->sub_block,
                              .mask = config->mask,
                              .positions = config->positions,
                              .stop_ids = config->stop.values,
                              .stop_count = config->stop.count,
                              .chat = config->chat,
                              .unloaded = unloaded};
}

/* Tokens per sequence that the longest prompt of the config and its answer take. */
static int find_capacity(mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    /* a token has a byte at least */
    const int64_t wrapper = CHAT_ALLOWANCE + (config->chat.system ? (int64_t)strlen(config->chat.system) : 0);
    int64_t need = 0;
    for (size_t i = 0; i < config->task_count; i++) {
        const mb_task_spec *task = &config->tasks[i];
        int32_t fresh = mb_run_new_tokens(run, task);
        int64_t answer = fresh + 2 * run->model_config.block;
        run->answer = fresh > run->answer ? fresh : run->answer;
        int64_t prompt = mb_task_extent_of(task->task, task->options).prompt_tokens;
        if (prompt > run->model_config.positions)
            return mb_fail(
                err, MB_E_INPUT,
                "task %s asks for %lld tokens but %s has %d positions; choose shorter lengths or another model",
                task->task, (long long)prompt, run->model_config.name, run->model_config.positions);
        if (prompt == 0)
            prompt = config->max_length ? config->max_length : run->model_config.positions;
        if (prompt + wrapper + answer > need)
            need = prompt + wrapper + answer;
    }
    if (need > run->model_config.positions)
        need = run->model_config.positions;
    run->capacity = (int32_t)(need / run->model_config.block * run->model_config.block);
    return MB_OK;
}

/* Lanes for the arms: as many as the config says. "auto" on a GPU: blocks of GROUP_ROWS rows in all, in groups of
 * about the same size, and fewer where memory ends (open_device). On the CPU a product of one block's rows
 * computes as fast as one of more, so that nothing is won there. */
static void choose_lanes(mb_run *run)
{
    const mb_run_config *config = run->config;
    mb_error why = {0};
    int32_t most = config->decode_group, arms = 0;
    for (size_t i = 0; i < run->arm_count; i++) /* plug-ins decode alone, in a worker */
        arms += !mb_arm_is_plugin(&run->arms[i]);
    if (most == MB_GROUP_AUTO) {
        const bool gpu = strncmp(config->device, "cpu", 3) != 0 && mb_cuda_device_count(&why) > 0;
        most = !gpu || config->parallel > 1 || run->model_config.canvas.steps > 0
                   ? 1
                   : GROUP_ROWS / run->model_config.block;
        most = most < 1 ? 1 : most > GROUP_MOST ? GROUP_MOST : most;
        const int32_t groups = (arms + most - 1) / most;
        most = groups > 0 ? (arms + groups - 1) / groups : 1;
    }
    run->lanes = arms < most ? arms : most;
}

int mb_run_inspect(mb_run *run, mb_error *err)
{
    mb_run_config *config = run->config;
    mb_model_request request = mb_open_request(run->config, run->flags.dry_run);
    int rc = mb_model_inspect(&request, &run->model_config, err);
    if (rc != MB_OK)
        return rc;
    rc = mb_model_slice(&run->model_config, config->parallel, &run->rank_config, err);
    if (rc != MB_OK)
        return rc;
    if (run->flags.devices && config->parallel > 1)
        return mb_fail(err, MB_E_INPUT,
                       "--devices starts workers with a device each, and model.parallel splits one model over %d: "
                       "use one of the two",
                       config->parallel);
    if (config->max_length > run->model_config.positions)
        return mb_fail(err, MB_E_INPUT, "config key max_length is %d but %s has %d positions", config->max_length,
                       run->model_config.name, run->model_config.positions);
    run->samplers = calloc(config->samplers.count, sizeof *run->samplers);
    run->sampler_ids = calloc(config->samplers.count, sizeof *run->sampler_ids);
    if (!run->samplers || !run->sampler_ids)
        return mb_no_memory(err, "the run");
    for (size_t i = 0; i < config->samplers.count; i++)
        if ((rc = mb_config_sampler(config, i, &run->model_config, &run->samplers[i], err)) != MB_OK)
            return rc;
    if (run->model_config.synthetic && (config->passes & MB_RUN_SAMPLES) && !run->flags.dry_run)
        return mb_fail(err, MB_E_INPUT,
                       "%s has random weights and no tokenizer: only the passes latency and breakdown make sense",
                       run->model_config.name);
    run->arm_count = config->method_count * config->samplers.count;
    run->arms = calloc(run->arm_count, sizeof *run->arms);
    if (!run->arms)
        return mb_no_memory(err, "the run");
    for (size_t i = 0; i < run->arm_count; i++) {
        run->arms[i].spec = &config->methods[i % config->method_count];
        run->arms[i].sampler = i / config->method_count;
    }
    if (config->decode_group > 1 && config->parallel > 1)
        return mb_fail(
            err, MB_E_INPUT,
            "config key decode.group is %d and model.parallel %d: a model that is split decodes one arm "
            "at a time, leave one of the two out",
            config->decode_group, config->parallel);
    choose_lanes(run);
    return find_capacity(run, err);
}

/* The plan of the arms that are opened in this process; *workers: whether there are others. */
static int plan_arms(const mb_run *run, mb_memory_plan *plan, bool *workers, mb_error *err)
{
    size_t count = 0;
    mb_arm *arms = calloc(run->arm_count + 1, sizeof *arms);
    if (!arms)
        return mb_no_memory(err, "the run");
    for (size_t i = 0; i < run->arm_count; i++)
        if (!mb_arm_wants_worker(run, &run->arms[i]))
            arms[count++] = run->arms[i];
    *workers = count < run->arm_count;
    mb_run_memory(run, 1, run->capacity, -1, arms, count, plan);
    free(arms);
    return MB_OK;
}

/* Half as many lanes where "auto" leaves it to us and there are several; false: they stay. */
static bool halve_lanes(mb_run *run)
{
    if (run->config->decode_group != MB_GROUP_AUTO || run->lanes < 2)
        return false;
    run->lanes /= 2;
    return true;
}

/* plan_arms() with as many lanes as go into so many bytes, where "auto" leaves it to us. */
static int plan_lanes(mb_run *run, size_t bytes, mb_memory_plan *plan, bool *workers, mb_error *err)
{
    int rc = plan_arms(run, plan, workers, err);
    while (rc == MB_OK && plan->total > bytes && halve_lanes(run))
        rc = plan_arms(run, plan, workers, err);
    return rc;
}

/* The GPUs of a split model: those of the list "cuda:0,2", or those from the first on. first: room for "cuda:0".
 */
static int choose_gpus(const mb_run *run, char *first, size_t cap, int ordinals[MB_RANKS_MAX], mb_error *err)
{
    const char *text = run->config->device, *list = strchr(text, ':');
    const int32_t ranks = run->config->parallel;
    int32_t given = 0;
    snprintf(first, cap, "%.*s", (int)strcspn(text, ","), text);
    if (ranks == 1 && !strchr(text, ','))
        return MB_OK;
    for (const char *at = list; at; at = strchr(at + 1, ',')) {
        char *end = NULL;
        long ordinal = strtol(at + 1, &end, 10);
        if (end == at + 1 || (*end && *end != ',') || ordinal < 0 || ordinal > 1024 || given == MB_RANKS_MAX)
            return mb_fail(err, MB_E_INPUT, "device \"%s\": use auto, cpu, cuda, cuda:N or a list as cuda:0,1",
                           text);
        ordinals[given++] = (int)ordinal;
    }
    if (given > 1 && given != ranks)
        return mb_fail(err, MB_E_INPUT, "device \"%s\" lists %d GPUs and model.parallel is %d", text, given,
                       ranks);
    for (int32_t r = given > 0 ? given : 0; r < ranks; r++)
        ordinals[r] = r > 0 ? ordinals[0] + r : 0;
    return MB_OK;
}

/* The other devices of a split model, opened as the first was. */
static int open_team(mb_run *run, const mb_device_options *options, const int *ordinals, mb_error *err)
{
    const int32_t ranks = run->config->parallel;
    const bool gpu = strcmp(run->kernels->name, "cpu") != 0;
    mb_error why = {0};
    if (ranks == 1 || run->flags.dry_run)
        return MB_OK;
    for (int32_t r = 0; gpu && r < ranks; r++)
        if (ordinals[r] >= mb_cuda_device_count(&why))
            return mb_fail(
                err, MB_E_INPUT,
                "model.parallel is %d, and this machine has %d usable GPU(s); \"device\": \"cuda:0,0\" puts "
                "two parts on one",
                ranks, mb_cuda_device_count(&why));
    int rc = mb_team_open(&run->team, run->kernels, run->device, options, ranks, gpu ? ordinals : NULL, err);
    if (rc != MB_OK)
        return rc;
    char *detail = run->device_info.detail; /* stored with the environment of every row */
    snprintf(detail + strlen(detail), sizeof run->device_info.detail - strlen(detail), ", model over %d devices",
             ranks);
    mb_progress_note(&run->progress, "the model is split over %d devices", ranks);
    return MB_OK;
}

/* Threads of one device; 0 = all cores. */
static int threads_of(const mb_run_config *config)
{
    mb_environment machine;
    int threads = config->threads;
    if (config->parallel == 1)
        return threads;
    if (threads == 0) {
        mb_environment_read(&machine, 0);
        threads = machine.threads;
    }
    return threads / config->parallel > 1 ? threads / config->parallel : 1;
}

static int open_device(mb_run *run, mb_error *err)
{
    mb_run_config *config = run->config;
    mb_memory_plan plan;
    mb_error note = {0};
    bool workers = false;
    const size_t most = config->memory_gib > 0 ? (size_t)(config->memory_gib * 0x1p30) : SIZE_MAX;
    int rc = plan_lanes(run, most, &plan, &workers, err);
    if (rc != MB_OK)
        return rc;
    bool no_room = false;
    char first[64];
    int ordinals[MB_RANKS_MAX] = {0};
    if ((rc = choose_gpus(run, first, sizeof first, ordinals, err)) != MB_OK)
        return rc;
    mb_device_options options = {.type = config->type,
                                 .threads = threads_of(config),
                                 .arena_bytes = run->devices ? NO_WORK : plan.total,
                                 .no_room = &no_room};
    if (config->memory_gib > 0 && (double)plan.total > config->memory_gib * 0x1p30)
        return mb_fail(err, MB_E_INPUT,
                       "the plan needs %.2f GiB and memory_gib allows %.2f: fewer methods, a smaller max_length "
                       "or shorter lengths help",
                       (double)plan.total / 0x1p30, config->memory_gib);
    /* Latency cases differ in size and are planned one by one: they share all that there is, less one worker. */
    if (config->passes & MB_RUN_TIMES) {
        options.arena_bytes = (size_t)(config->memory_gib * 0x1p30);
        if (workers && (config->passes & MB_RUN_SAMPLES))
            options.spare_bytes = plan.total + plan.total / 4 + WORKER_OVERHEAD;
    }
    if (config->parallel > 1)
        options.spare_bytes += LINK_OVERHEAD;
    rc = mb_device_open(first, &options, &run->kernels, &run->device, &note, err);
    while (rc != MB_OK && no_room && halve_lanes(run)) {
        no_room = false;
        if ((rc = plan_arms(run, &plan, &workers, err)) != MB_OK)
            return rc;
        options.arena_bytes = plan.total;
        rc = mb_device_open(first, &options, &run->kernels, &run->device, &note, err);
    }
    if (rc != MB_OK && !no_room)
        return rc;
    if (rc != MB_OK)
        return mb_fail_prefix(
            err, rc,
            "the plan needs %.2f GiB (weights %.2f, KV cache %.2f, methods %.2f, work %.2f; fewer "
            "methods, a smaller max_length or shorter lengths help)",
            (double)plan.total / 0x1p30, (double)plan.weights / 0x1p30, (double)plan.kv / 0x1p30,
            (double)plan.methods / 0x1p30, (double)(plan.activations + plan.logits + plan.statistics) / 0x1p30);
    run->kernels->info(run->device, &run->device_info);
    if (!run->devices && (rc = plan_lanes(run, run->device_info.arena_free, &plan, &workers, err)) != MB_OK)
        return rc;
    if (*note.text)
        mb_progress_note(&run->progress, "%s", note.text);
    mb_progress_note(&run->progress, "device %s: %s (%s)", run->kernels->name, run->device_info.name,
                     run->device_info.detail);
    return open_team(run, &options, ordinals, err);
}

int mb_run_open_model(mb_run *run, mb_error *err)
{
    mb_model_request request =
        mb_open_request(run->config, run->flags.dry_run || run->devices); /* workers load it */
    int rc = open_device(run, err);
    request.team = run->team;
    if (rc == MB_OK && !run->serving && !run->devices) /* before weights are drawn or loaded */
        rc = mb_plan_check(run, err);
    return rc == MB_OK ? mb_model_open(&run->model, &request, run->kernels, run->device, run->config->type, err)
                       : rc;
}

/* Who does not take part although the config has groups. */
static void tell_alone(mb_run *run)
{
    int plugins = 0;
    for (size_t i = 0; i < run->arm_count; i++)
        plugins += mb_arm_is_plugin(&run->arms[i]);
    if (run->lanes > 1)
        mb_progress_note(&run->progress, "decode.group: up to %d arms of a sample decode together", run->lanes);
    if (run->config->decode_group != 1 && plugins > 0)
        mb_progress_note(&run->progress, "decode.group: %d arm(s) of plug-ins decode alone", plugins);
}

int mb_run_open_session(mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    tell_alone(run);
    mb_session_request request = {.batch = 1,
                                  .capacity = run->capacity,
                                  .prefill_chunk = config->prefill_chunk,
                                  .graphs = config->graphs,
                                  .lanes = run->lanes,
                                  .answer = run->answer,
                                  .invariant = config->decode_group != 1};
    return mb_session_open(&run->session, run->model, &request, err);
}
