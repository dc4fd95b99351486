/*
 * shapes.c - what follows from a request before anything runs: dimensions, sizes of batches, the plan of the
 * memory, the learning rate of a step. Everything that can be refused is refused here.
 */
#include "training/loop.h"

#include "model/checkpoint/config.h"

#include <math.h>
#include <string.h>

static void override(int32_t *field, int32_t value)
{
    if (value > 0)
        *field = value;
}

int mb_train_config_make(const mb_train_request *r, mb_model_config *config, mb_error *err)
{
    const mb_model_request request = {.path = r->model, .block = r->block, .mask = r->mask};
    const bool changed = r->layers || r->hidden || r->query_heads || r->kv_heads || r->head_dim || r->intermediate;
    int rc = mb_model_inspect(&request, config, err);
    if (rc == MB_OK)
        rc = mb_parameters_check(config, err);
    if (rc == MB_OK && changed && r->start != MB_START_DRAWN)
        rc = mb_fail(
            err, MB_E_INPUT,
            "config keys layers to intermediate need \"start\": \"random\": a checkpoint has its own sizes");
    if (rc != MB_OK || !changed)
        return rc;
    if (config->rotary_dim == config->head_dim)
        override(&config->rotary_dim, r->head_dim);
    override(&config->layers, r->layers);
    override(&config->hidden, r->hidden);
    override(&config->query_heads, r->query_heads);
    override(&config->kv_heads, r->kv_heads);
    override(&config->head_dim, r->head_dim);
    override(&config->intermediate, r->intermediate);
    return mb_config_finish(config, &request, r->model, err);
}

static int32_t tail_at(const mb_train_request *r, size_t i)
{
    return r->tail_count > i && r->tails[i] > 0 ? r->tails[i] : r->lengths[i];
}

static mb_train_layout layout_of(const mb_train_request *r, const mb_model_config *config, size_t i)
{
    const int32_t length = r->lengths[i], tail = tail_at(r, i), unit = r->complementary ? 2 : 1;
    int32_t documents = r->tokens / (length + tail) / unit * unit;
    return (mb_train_layout){documents < unit ? unit : documents, length, tail, config->block};
}

mb_train_layout mb_train_layout_at(const mb_train_request *r, const mb_model_config *config, int64_t step)
{
    const int64_t stage = (step - 1) * (int64_t)r->length_count / r->steps;
    return layout_of(r, config, (size_t)stage < r->length_count ? (size_t)stage : r->length_count - 1);
}

bool mb_recipe_taught(mb_recipe recipe)
{
    return recipe == MB_RECIPE_MAGE_FT;
}

void mb_train_size_make(const mb_train_request *r, const mb_model_config *config, mb_network_size *size)
{
    *size = (mb_network_size){.chunk = r->chunk, .checkpointing = r->checkpointing};
    const bool taught = mb_recipe_taught(r->recipe);
    size->lora = r->lora;
    for (size_t i = 0; i < r->length_count; i++) {
        const mb_train_layout layout = layout_of(r, config, i);
        const int64_t rows = mb_train_rows(&layout), targets = (int64_t)layout.documents * layout.tail;
        const int64_t entries = targets / layout.block;
        const int64_t causal = r->causal_weight > 0 ? (int64_t)layout.documents * layout.clean : 0;
        size->targets = causal > size->targets ? causal : size->targets;
        size->rows = rows > size->rows ? rows : size->rows;
        size->targets = targets > size->targets ? targets : size->targets;
        size->positions = layout.clean > size->positions ? layout.clean : size->positions;
        if (taught && entries > size->entries)
            size->entries = entries;
    }
    size->clean = size->positions;
    size->capacity = r->top_p > 0 ? r->k_max : r->k;
    size->capacity = size->capacity < size->clean ? size->capacity : size->clean;
    size->frozen = taught && r->teacher == MB_TEACHER_FROZEN;
}

static int check_lengths(const mb_train_request *r, const mb_model_config *config, mb_error *err)
{
    if (r->tail_count && r->tail_count != r->length_count)
        return mb_fail(err, MB_E_INPUT, "config key tails has %zu numbers, lengths has %zu", r->tail_count,
                       r->length_count);
    for (size_t i = 0; i < r->length_count; i++) {
        const int32_t length = r->lengths[i], tail = tail_at(r, i);
        if (length % config->block || tail % config->block || tail > length)
            return mb_fail(err, MB_E_INPUT,
                           "config keys lengths and tails: %d and %d; both must be multiples of the block of %d "
                           "tokens, and a tail is no longer than its document",
                           length, tail, config->block);
        if (length > config->positions)
            return mb_fail(err, MB_E_INPUT, "config key lengths: %d, but the model has %d positions", length,
                           config->positions);
        if (layout_of(r, config, i).documents > MB_DOCUMENTS_MAX)
            return mb_fail(err, MB_E_INPUT, "config key tokens: more than %d documents of %d tokens",
                           MB_DOCUMENTS_MAX, length);
    }
    return MB_OK;
}

static int check_adapter(const mb_train_request *r, const mb_model_config *config, mb_error *err)
{
    mb_adapter adapter;
    if (r->start == MB_START_DRAWN)
        return mb_fail(err, MB_E_INPUT,
                       "config key lora_rank: random weights that never move learn nothing; use "
                       "\"start\": \"checkpoint\"");
    int rc = mb_adapter_open(&adapter, config, &r->lora, err);
    mb_adapter_close(&adapter);
    return rc;
}

int mb_train_plan_make(const mb_train_request *r, mb_train_plan *plan, mb_error *err)
{
    mb_network_size size;
    mb_network_plan bytes;
    *plan = (mb_train_plan){0};
    int rc = mb_train_config_make(r, &plan->config, err);
    if (rc == MB_OK)
        rc = check_lengths(r, &plan->config, err);
    if (rc == MB_OK && mb_recipe_taught(r->recipe) && r->top_p > 0 && r->k_max < r->k)
        rc = mb_fail(err, MB_E_INPUT, "config key k_max is %d, smaller than k, which is %d", r->k_max, r->k);
    if (rc == MB_OK && mb_recipe_taught(r->recipe) && r->start == MB_START_DRAWN)
        rc = mb_fail(err, MB_E_INPUT,
                     "config key start is random: this recipe fine-tunes a model that has learned");
    if (rc == MB_OK && r->lora.rank > 0)
        rc = check_adapter(r, &plan->config, err);
    if (rc != MB_OK)
        return rc;
    mb_train_size_make(r, &plan->config, &size);
    mb_network_plan_make(&plan->config, &size, &bytes);
    mb_parameters_count(&plan->config, &plan->parameters);
    plan->weights = bytes.weights;
    plan->gradients = bytes.gradients;
    plan->moments = bytes.moments;
    plan->teacher = bytes.teacher;
    plan->activations = bytes.activations;
    plan->logits = bytes.logits;
    plan->index = bytes.index;
    plan->adapter = bytes.adapter;
    plan->trained = bytes.trained;
    plan->total = bytes.total;
    plan->rows = size.rows;
    plan->documents = layout_of(r, &plan->config, 0).documents;
    return MB_OK;
}

int mb_train_device_check(const char *device, bool mixed, mb_error *err)
{
    const bool cpu = strcmp(device, "cpu") == 0;
    if (!cpu && strncmp(device, "cuda", 4) != 0)
        return mb_fail(err, MB_E_INPUT,
                       "config key device is \"%s\": a training runs on \"cpu\", \"cuda\" or \"cuda:N\"; its bits "
                       "depend on which, so it does not choose",
                       device);
    if (cpu && mixed)
        return mb_fail(err, MB_E_INPUT, "config key products is mixed, which is a way of GPUs: use \"f32\"");
    return MB_OK;
}

double mb_train_lr_at(const mb_train_request *r, int64_t step)
{
    const double done = (double)(step - 1) / (double)r->steps;
    const double warm = r->warmup > 0 && step < r->warmup ? (double)step / r->warmup : 1.0;
    double fall = done < r->hold || r->hold >= 1 ? 0.0 : (done - r->hold) / (1.0 - r->hold);
    if (r->schedule == MB_LR_CONSTANT)
        fall = 0.0;
    const double left =
        r->schedule == MB_LR_COSINE ? 0.5 * (1.0 + cos(3.14159265358979323846 * fall)) : 1.0 - fall;
    return r->lr * warm * (r->lr_min + (1.0 - r->lr_min) * left);
}
