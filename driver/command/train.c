/*
 * train.c - the command train: a config becomes a training; its steps become rows, a line of progress and, at
 * the end, a folder. No mathematics: training/ does it.
 */
#include "driver/command/commands.h"

#include "driver/config/training.h"
#include "driver/os/os.h"
#include "driver/os/progress.h"
#include "results/training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const recipe_names[] = {"block_diffusion", "mage_ft", "uniform_noise"};

/* Who looks on at a training. */
typedef struct looking {
    mb_training_log *log;
    mb_progress progress;
    const mb_train_request *request;
    bool taught;
    int64_t first, done; /* steps of a checkpoint, and by now */
    double loss_first, loss_last, began;
    int64_t tokens;
} looking;

static int on_start(void *self, int64_t step, mb_error *err)
{
    looking *l = self;
    l->first = l->done = step;
    if (step > 0)
        mb_progress_note(&l->progress, "going on after step %lld of %lld", (long long)step,
                         (long long)l->request->steps);
    mb_progress_step(&l->progress, (double)step, false);
    return mb_training_log_cut(l->log, step, err);
}

static int on_step(void *self, const mb_train_step *s, mb_error *err)
{
    looking *l = self;
    char label[96];
    const mb_training_step_row row = {.step = s->step,
                                      .length = s->length,
                                      .tokens = s->tokens,
                                      .targets = s->targets,
                                      .loss = s->loss,
                                      .ce = s->ce,
                                      .kl = l->taught ? s->kl : NAN,
                                      .causal = l->request->causal_weight > 0 ? s->causal : NAN,
                                      .accuracy = s->accuracy,
                                      .gradient_norm = s->norm,
                                      .lr = s->lr,
                                      .seconds = s->seconds};
    if (l->done == l->first)
        l->loss_first = s->loss;
    l->loss_last = s->loss;
    l->done = s->step;
    l->tokens += s->tokens;
    snprintf(label, sizeof label, "step %lld loss %.4f accuracy %.2f norm %.2f %.0f tokens/s", (long long)s->step,
             s->loss, s->accuracy, s->norm, (double)s->tokens / s->seconds);
    mb_progress_label(&l->progress, label);
    mb_progress_step(&l->progress, 1.0, true);
    return mb_training_log_step(l->log, &row, err);
}

static bool on_stop(void *self)
{
    (void)self;
    return mb_interrupted != 0;
}

static void print_part(const char *name, size_t bytes)
{
    if (bytes > 0)
        printf("  %-12s %10.1f MiB\n", name, (double)bytes / 0x1p20);
}

static void print_plan(const mb_train_config *config, const mb_train_plan *plan)
{
    const mb_train_request *r = &config->request;
    const mb_model_config *c = &plan->config;
    mb_print(stdout, "training %s: %s, %lld steps, seed %llu", config->name, recipe_names[r->recipe],
             (long long)r->steps, (unsigned long long)r->seed);
    mb_print(stdout, "model %s: %zu parameters, %d layers, %d/%d heads of %d, hidden %d, block %d, fp32", c->name,
             plan->parameters, c->layers, c->query_heads, c->kv_heads, c->head_dim, c->hidden, c->block);
    if (plan->trained != plan->parameters)
        printf("trained: %zu of an adapter of rank %d\n", plan->trained, r->lora.rank);
    printf("a step: %d micro-batches of at most %lld rows\n", r->accumulate, (long long)plan->rows);
    puts("memory");
    print_part("weights", plan->weights);
    print_part("gradients", plan->gradients);
    print_part("moments", plan->moments);
    print_part("teacher", plan->teacher);
    print_part("adapter", plan->adapter);
    print_part("activations", plan->activations);
    print_part("logits", plan->logits);
    print_part("index", plan->index);
    print_part("total", plan->total);
    mb_print(stdout, "a checkpoint takes %.1f MiB in %s, and twice that while it is replaced",
             (double)plan->trained * 3 * sizeof(float) / 0x1p20, config->out);
}

static int open_device(const mb_train_config *config, const mb_train_plan *plan, const mb_kernels **kernels,
                       mb_device **device, mb_error *err)
{
    mb_error note = {0};
    const mb_device_options options = {.type = MB_F32,
                                       .threads = config->threads,
                                       .arena_bytes = plan->total,
                                       .reduced = config->products == MB_PRODUCTS_MIXED};
    if (config->memory_gib > 0 && (double)plan->total > config->memory_gib * 0x1p30)
        return mb_fail(err, MB_E_INPUT,
                       "the training needs %.2f GiB and memory_gib allows %.2f: fewer tokens, a smaller chunk or "
                       "\"checkpointing\": true help",
                       (double)plan->total / 0x1p30, config->memory_gib);
    return mb_device_open(config->device, &options, kernels, device, &note, err);
}

static int open_log(looking *l, const mb_train_config *config, const mb_train_plan *plan, const char *device,
                    mb_error *err)
{
    const mb_train_request *r = &config->request;
    mb_environment environment;
    mb_environment_read(&environment, config->threads);
    const char *build = mb_code_hash("program");
    const mb_training_row row = {.name = config->name,
                                 .identity = config->identity,
                                 .config = config->stored,
                                 .model = config->model,
                                 .recipe = recipe_names[r->recipe],
                                 .device = device,
                                 .build = build ? build : "unknown",
                                 .git = environment.git,
                                 .parameters = (int64_t)plan->parameters,
                                 .steps = r->steps,
                                 .seed = r->seed,
                                 .threads = environment.threads};
    return mb_training_log_open(&l->log, config->results, &row, err);
}

static void print_end(const looking *l, const mb_train_config *config, double seconds)
{
    if (l->done > l->first)
        printf("%lld steps, loss %.4f at the first and %.4f at the last of them, %.0f tokens/s\n",
               (long long)(l->done - l->first), l->loss_first, l->loss_last, (double)l->tokens / seconds);
    mb_print(stdout, "model in %s, steps in %s", config->out, config->results);
}

static int train(mb_train_config *config, const mb_train_plan *plan, bool quiet, mb_error *err)
{
    looking l = {.request = &config->request, .taught = config->request.recipe == MB_RECIPE_MAGE_FT};
    const mb_train_watch watch = {&l, on_start, on_step, on_stop};
    const mb_kernels *kernels = NULL;
    mb_device *device = NULL;
    mb_error unused = {0};
    int rc = open_device(config, plan, &kernels, &device, err);
    if (rc == MB_OK)
        rc = open_log(&l, config, plan, kernels->name, err);
    if (rc == MB_OK) {
        const uint64_t began = mb_clock_ns();
        mb_progress_begin(&l.progress, quiet, (double)config->request.steps);
        rc = mb_train_run(&config->request, kernels, device, &watch, err);
        mb_progress_end(&l.progress);
        mb_training_log_end(l.log,
                            rc == MB_OK       ? "done"
                            : rc == MB_E_STOP ? "interrupted"
                                              : "failed",
                            rc == MB_OK ? NULL : err->text, rc == MB_OK ? err : &unused);
        if (rc == MB_OK && !quiet)
            print_end(&l, config, (double)(mb_clock_ns() - began) * 1e-9);
    }
    mb_training_log_close(l.log);
    if (device)
        kernels->close(device);
    return rc;
}

int mb_command_train(const mb_cli *cli)
{
    mb_error err = {0};
    mb_train_config config;
    mb_train_plan plan;
    const mb_config_flags flags = {.sets = cli->sets, .set_count = cli->set_count};
    int rc = mb_train_config_load(&config, cli->config, &flags, &err);
    if (rc != MB_OK)
        return mb_exit_fail(rc, err.text);
    rc = mb_train_device_check(config.device, config.products == MB_PRODUCTS_MIXED, &err);
    if (rc == MB_OK)
        rc = mb_train_plan_make(&config.request, &plan, &err);
    if (rc == MB_OK && cli->dry_run)
        print_plan(&config, &plan);
    else if (rc == MB_OK)
        rc = train(&config, &plan, cli->quiet, &err);
    mb_train_config_free(&config);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}
