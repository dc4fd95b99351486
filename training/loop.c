/*
 * loop.c - a training from its first step to its folder. Whatever a step needs is drawn from (seed, step), so
 * nothing but weights, moments and the number of the step has to be kept between steps.
 */
#include "training/loop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything that the result depends on: the caller's text, the weights and the data that it names. */
static int make_identity(mb_training *t, mb_error *err)
{
    const mb_train_request *r = t->request;
    char config[MB_HASH_CAP] = "", data[MB_HASH_CAP] = "", weights[MB_HASH_CAP] = "";
    char *path = mb_string_format("%s/config.json", r->model);
    char *file = mb_string_format("%s/model.safetensors", r->model);
    int rc = path && file ? mb_hash_file(path, config, err) : mb_no_memory(err, "a path");
    if (rc == MB_OK && r->start == MB_START_READ && mb_file_exists(file))
        rc = mb_hash_file(file, weights, err);
    if (rc == MB_OK && r->data && *r->data)
        rc = mb_hash_file(r->data, data, err);
    char *all = mb_string_format("%s|%s|%s|%s", r->identity ? r->identity : "", config, weights, data);
    if (rc == MB_OK && !all)
        rc = mb_no_memory(err, "a path");
    if (rc == MB_OK)
        mb_hash_bytes(all, strlen(all), t->identity);
    free(all);
    free(file);
    free(path);
    return rc;
}

static int open_source(mb_training *t, mb_error *err)
{
    const mb_train_request *r = t->request;
    const mb_model_config *config = &t->network.config;
    const int32_t end = config->stop_count > 0 ? config->stop_ids[0] : 0;
    return r->data && *r->data ? mb_source_jsonl(&t->source, r->data, r->field, t->tokenizer, end, err)
                               : mb_source_needles(&t->source, t->tokenizer, err);
}

static int open_weights(mb_training *t, mb_error *err)
{
    mb_network *n = &t->network;
    int rc = t->request->start == MB_START_DRAWN ? mb_parameters_draw(&n->config, t->request->seed, t->host)
                                                 : mb_parameters_read(&n->config, t->request->model, t->host, err);
    if (rc == MB_OK)
        rc = mb_network_send(n, n->weights.base, t->host, err);
    if (rc == MB_OK && n->adapter.count > 0) {
        mb_adapter_draw(&n->adapter, t->request->seed, t->host);
        return mb_network_send_trained(n, n->trained, t->host, err);
    }
    return rc == MB_OK && n->teacher.base ? mb_network_send(n, n->teacher.base, t->host, err) : rc;
}

static int open_feed(const mb_train_request *request, mb_feed *feed, mb_error *err)
{
    feed->batches = calloc((size_t)request->accumulate, sizeof *feed->batches);
    feed->causal = calloc((size_t)request->accumulate, sizeof *feed->causal);
    return feed->batches && feed->causal ? MB_OK : mb_no_memory(err, "the batches of a step");
}

int mb_training_open(mb_training *t, const mb_train_request *request, const mb_kernels *kernels, mb_device *device,
                     mb_error *err)
{
    mb_network_size size;
    *t = (mb_training){
        .request = request,
        .choice = {
            .k = request->k, .k_max = request->k_max, .p = request->top_p, .dense_layers = request->dense_layers}};
    int rc = mb_train_plan_make(request, &t->plan, err);
    if (rc != MB_OK)
        return rc;
    mb_train_size_make(request, &t->plan.config, &size);
    rc = make_identity(t, err);
    if (rc == MB_OK)
        rc = mb_network_open(&t->network, &t->plan.config, &size, kernels, device, err);
    if (rc == MB_OK)
        rc = mb_tokenizer_open(&t->tokenizer, request->model, err);
    if (rc == MB_OK)
        rc = open_source(t, err);
    t->host = rc == MB_OK ? malloc((t->network.floats + t->network.trained_floats) * sizeof *t->host) : NULL;
    if (rc == MB_OK && !t->host)
        rc = mb_no_memory(err, "a training of %zu parameters", t->plan.parameters);
    if (rc == MB_OK)
        rc = open_feed(request, &t->feed, err);
    if (rc == MB_OK)
        rc = open_feed(request, &t->ahead.feed, err);
    if (rc == MB_OK)
        rc = open_weights(t, err);
    if (rc != MB_OK)
        mb_training_close(t);
    return rc;
}

static void empty_feed(const mb_train_request *request, mb_feed *feed)
{
    for (int32_t i = 0; feed->batches && feed->causal && i < request->accumulate; i++) {
        mb_batch_free(&feed->batches[i]);
        mb_batch_free(&feed->causal[i]);
    }
}

static void close_feed(const mb_train_request *request, mb_feed *feed)
{
    empty_feed(request, feed);
    free(feed->batches);
    free(feed->causal);
}

static void wait_ahead(mb_training *t)
{
    if (t->ahead.running)
        pthread_join(t->ahead.thread, NULL);
    t->ahead.running = false;
}

void mb_training_close(mb_training *t)
{
    wait_ahead(t);
    if (t->request) {
        close_feed(t->request, &t->feed);
        close_feed(t->request, &t->ahead.feed);
    }
    free(t->host);
    mb_source_close(t->source);
    mb_tokenizer_close(t->tokenizer);
    mb_network_close(&t->network);
    *t = (mb_training){0};
}

/* Documents first .. of one micro-batch, and their noise; causal: NULL, or the same for the autoregressive loss.
 */
static int make_batch(mb_training *t, int64_t number, const mb_train_layout *layout, mb_batch *batch,
                      mb_batch *causal, mb_error *err)
{
    const mb_train_request *r = t->request;
    const mb_noise noise = {.full_blocks = r->full_blocks,
                            .text_weight = r->text_weight,
                            .padding_weight = r->padding_weight,
                            .complementary = r->complementary,
                            .token_shift = r->token_shift,
                            .mask_id = t->network.config.mask_id,
                            .uniform = r->recipe == MB_RECIPE_UNIFORM_NOISE ? t->network.config.vocab : 0,
                            .kept_weight = r->kept_weight};
    mb_document *documents = calloc((size_t)layout->documents, sizeof *documents);
    int rc = documents ? MB_OK : mb_no_memory(err, "a batch");
    for (int32_t d = 0; rc == MB_OK && d < layout->documents; d++) {
        /* The second of a pair is drawn as the first is: the same document. */
        const int32_t which = r->complementary ? d / 2 : d;
        const mb_document_request request = {.length = layout->clean,
                                             .tail = layout->tail,
                                             .block = layout->block,
                                             .seed = r->seed,
                                             .number = (uint64_t)(number * MB_DOCUMENTS_MAX + which)};
        rc = mb_source_next(t->source, &request, &documents[d], err);
    }
    if (rc == MB_OK) {
        char name[64];
        snprintf(name, sizeof name, "noise:%lld", (long long)number);
        mb_random random = mb_random_named(r->seed, name);
        rc = mb_batch_make(batch, layout, documents, &noise, &random, err);
        if (rc == MB_OK && causal)
            rc = mb_batch_make_causal(causal, layout, documents, &noise, err);
    }
    for (int32_t d = 0; documents && d < layout->documents; d++)
        mb_document_free(&documents[d]);
    free(documents);
    return rc;
}

/* The micro-batches of a step; reads nothing of the training that changes. */
static int make_feed(mb_training *t, int64_t step, mb_feed *feed, mb_error *err)
{
    const mb_train_layout layout = mb_train_layout_at(t->request, &t->network.config, step);
    int rc = MB_OK;
    empty_feed(t->request, feed);
    for (int32_t i = 0; rc == MB_OK && i < t->request->accumulate; i++)
        rc = make_batch(t, (step - 1) * t->request->accumulate + i, &layout, &feed->batches[i],
                        t->request->causal_weight > 0 ? &feed->causal[i] : NULL, err);
    return rc;
}

static void *make_ahead(void *arg)
{
    mb_training *t = arg;
    t->ahead.rc = make_feed(t, t->ahead.step, &t->ahead.feed, &t->ahead.err);
    return NULL;
}

/* Where no thread starts, the next step makes its own. */
static void start_ahead(mb_training *t, int64_t step)
{
    if (step > t->request->steps || t->ahead.running)
        return;
    t->ahead.step = step;
    t->ahead.running = pthread_create(&t->ahead.thread, NULL, make_ahead, t) == 0;
}

int mb_training_feed(mb_training *t, int64_t step, mb_error *err)
{
    const bool made = t->ahead.running && t->ahead.step == step;
    wait_ahead(t);
    if (!made)
        return make_feed(t, step, &t->feed, err);
    const mb_feed feed = t->feed;
    t->feed = t->ahead.feed;
    t->ahead.feed = feed;
    if (t->ahead.rc != MB_OK && err)
        *err = t->ahead.err;
    return t->ahead.rc;
}

static int not_finite(const mb_training *t, int64_t step, int32_t micro, const char *what, mb_error *err)
{
    const mb_train_layout layout = mb_train_layout_at(t->request, &t->network.config, step);
    return mb_fail(
        err, MB_E_SYSTEM,
        "step %lld, batch %d (%d documents of %d tokens, seed %llu): %s is not finite; the training stops, "
        "its last checkpoint stays; a lower lr, more warmup or a smaller clip may help",
        (long long)step, micro, layout.documents, layout.clean, (unsigned long long)t->request->seed, what);
}

static int add_gradients(mb_training *t, int64_t step, mb_losses *losses, mb_error *err)
{
    double total = 0.0;
    int rc = MB_OK;
    for (int32_t i = 0; i < t->request->accumulate; i++)
        total += t->feed.batches[i].weight_sum;
    for (int32_t i = 0; rc == MB_OK && i < t->request->accumulate; i++) {
        rc = mb_recipe_step(t, &t->feed.batches[i], total, losses, err);
        if (rc == MB_OK && !isfinite(losses->ce + losses->kl))
            rc = not_finite(t, step, i, "the loss", err);
    }
    return rc;
}

/* A loss ten times that of a guess has left what training can mend. Nothing of the step is kept. */
static int check_limit(const mb_training *t, int64_t step, const mb_losses *losses, mb_error *err)
{
    const double limit =
        t->request->loss_limit > 0 ? t->request->loss_limit : 10.0 * log((double)t->network.config.vocab);
    const mb_batch *batch = &t->feed.batches[0];
    if (losses->weight <= 0 || losses->ce / losses->weight <= limit)
        return MB_OK;
    return mb_fail(
        err, MB_E_SYSTEM,
        "step %lld, batches 0 to %d (%d documents of %d tokens each, seed %llu): the loss is %.6g, above "
        "the limit of %.6g nats (config key loss_limit); the training stops, its last checkpoint stays; "
        "a lower lr, more warmup or a smaller clip may help",
        (long long)step, t->request->accumulate - 1, batch->layout.documents, batch->layout.clean,
        (unsigned long long)t->request->seed, losses->ce / losses->weight, limit);
}

static int add_causal(mb_training *t, int64_t step, mb_losses *losses, mb_error *err)
{
    double total = 0.0;
    int rc = MB_OK;
    for (int32_t i = 0; i < t->request->accumulate; i++)
        total += t->feed.causal[i].weight_sum;
    for (int32_t i = 0; rc == MB_OK && i < t->request->accumulate; i++) {
        rc = mb_recipe_step_causal(t, &t->feed.causal[i], total, losses, err);
        if (rc == MB_OK && !isfinite(losses->ce))
            rc = not_finite(t, step, i, "the autoregressive loss", err);
    }
    return rc;
}

int mb_training_step(mb_training *t, mb_train_step *result, mb_error *err)
{
    const mb_train_request *r = t->request;
    const int64_t step = t->step + 1;
    const uint64_t began = mb_clock_ns();
    const mb_update update = {.step = step,
                              .lr = mb_train_lr_at(r, step),
                              .beta1 = r->beta1,
                              .beta2 = r->beta2,
                              .eps = r->eps,
                              .decay = r->decay,
                              .clip = r->clip};
    mb_losses losses = {0}, causal = {0};
    *result = (mb_train_step){.step = step, .lr = update.lr};
    int rc = mb_training_feed(t, step, err);
    if (rc == MB_OK) {
        start_ahead(t, step + 1);
        rc = add_gradients(t, step, &losses, err);
    }
    if (rc == MB_OK)
        rc = check_limit(t, step, &losses, err);
    if (rc == MB_OK && r->causal_weight > 0)
        rc = add_causal(t, step, &causal, err);
    if (rc == MB_OK)
        rc = mb_network_update(&t->network, &update, &result->norm, err);
    if (rc == MB_OK && !isfinite(result->norm))
        rc = not_finite(t, step, r->accumulate - 1, "the gradient", err);
    if (rc != MB_OK)
        return rc;
    const double weight = losses.weight > 0 ? losses.weight : 1.0;
    result->length = t->feed.batches[0].layout.clean;
    for (int32_t i = 0; i < r->accumulate; i++)
        result->tokens += mb_train_rows(&t->feed.batches[i].layout) +
                          (r->causal_weight > 0 ? mb_train_rows(&t->feed.causal[i].layout) : 0);
    result->targets = losses.count;
    result->ce = losses.ce / weight;
    result->kl = losses.kl / weight;
    result->causal = causal.weight > 0 ? causal.ce / causal.weight : 0.0;
    result->loss = result->ce + (mb_recipe_taught(r->recipe) ? r->lambda * result->kl : 0.0) +
                   r->causal_weight * result->causal;
    result->accuracy = losses.count > 0 ? (double)losses.correct / (double)losses.count : 0.0;
    result->seconds = (double)(mb_clock_ns() - began) * 1e-9;
    t->step = step;
    return MB_OK;
}

/* Steps until the last one, or until somebody says stop; a checkpoint now and then and at the end. */
static int run_steps(mb_training *t, const mb_train_watch *watch, mb_error *err)
{
    const mb_train_request *r = t->request;
    int rc = MB_OK;
    while (rc == MB_OK && t->step < r->steps) {
        mb_train_step step;
        const bool stop = watch->stop && watch->stop(watch->self);
        if (stop) {
            rc = mb_training_save(t, err);
            return rc == MB_OK
                       ? mb_fail(err, MB_E_STOP, "stopped after step %lld; the same command goes on from there",
                                 (long long)t->step)
                       : rc;
        }
        rc = mb_training_step(t, &step, err);
        if (rc == MB_OK && watch->step)
            rc = watch->step(watch->self, &step, err);
        if (rc == MB_OK && (t->step % r->save_every == 0 || t->step == r->steps))
            rc = mb_training_save(t, err);
    }
    return rc;
}

int mb_train_run(const mb_train_request *request, const mb_kernels *kernels, mb_device *device,
                 const mb_train_watch *watch, mb_error *err)
{
    mb_training t;
    int rc = mb_training_open(&t, request, kernels, device, err);
    if (rc != MB_OK)
        return rc;
    rc = mb_folder_make(request->out, err);
    if (rc == MB_OK)
        rc = mb_training_resume(&t, err);
    if (rc == MB_OK && watch->start)
        rc = watch->start(watch->self, t.step, err);
    if (rc == MB_OK)
        rc = run_steps(&t, watch, err);
    if (rc == MB_OK)
        rc = mb_training_export(&t, err);
    mb_training_close(&t);
    return rc;
}
