/*
 * network.c - opening a network: its memory, planned to the byte by the same walk that takes it; what goes up to
 * the device and comes back; the optimiser's step.
 */
#include "training/network.h"

#include "model/checkpoint/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One walk over all arrays: with a network it takes them from the arena, without it only counts. */
typedef struct taking {
    mb_network *network; /* NULL: count */
    size_t *part;        /* what the next arrays count for */
    bool failed;
} taking;

static void take(taking *t, void *field, size_t elements, size_t each)
{
    const size_t bytes = (elements ? elements : 1) * each;
    *t->part += mb_layout_padded(bytes);
    if (!t->network)
        return;
    void *at = t->network->kernels->alloc(t->network->device, bytes);
    t->failed = t->failed || !at;
    memcpy(field, &at, sizeof at);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The arrays of one layer's activations. */
static void take_kept(taking *t, const mb_model_config *c, size_t rows, mb_activations *kept)
{
    const size_t hidden = (size_t)c->hidden, q = (size_t)c->query_heads * (size_t)c->head_dim;
    const size_t all = q + 2 * (size_t)c->kv_heads * (size_t)c->head_dim, inner = (size_t)c->intermediate;
    take(t, &kept->normed, rows * hidden, sizeof(float));
    take(t, &kept->qkv, rows * all, sizeof(float));
    take(t, &kept->turned, rows * all, sizeof(float));
    take(t, &kept->attended, rows * q, sizeof(float));
    take(t, &kept->lse, rows * (size_t)c->query_heads, sizeof(float));
    take(t, &kept->middle, rows * hidden, sizeof(float));
    take(t, &kept->normed2, rows * hidden, sizeof(float));
    take(t, &kept->gate_up, rows * 2 * inner, sizeof(float));
    take(t, &kept->product, rows * inner, sizeof(float));
}

static void take_work(taking *t, const mb_model_config *c, const mb_network_size *size, mb_network *n)
{
    const size_t rows = (size_t)size->rows, hidden = (size_t)c->hidden, inner = (size_t)c->intermediate;
    const size_t q = (size_t)c->query_heads * (size_t)c->head_dim;
    const size_t all = q + 2 * (size_t)c->kv_heads * (size_t)c->head_dim;
    take(t, &n->cos_sin, (size_t)size->positions * (size_t)c->rotary_dim, sizeof(float));
    take(t, &n->dx, rows * hidden, sizeof(float));
    take(t, &n->dmiddle, rows * hidden, sizeof(float));
    take(t, &n->dnormed, rows * hidden, sizeof(float));
    take(t, &n->dqkv, rows * all, sizeof(float));
    take(t, &n->dturned, rows * all, sizeof(float));
    take(t, &n->dattended, rows * q, sizeof(float));
    take(t, &n->dgate_up, rows * 2 * inner, sizeof(float));
    take(t, &n->dproduct, rows * inner, sizeof(float));
    take(t, &n->ids, rows, sizeof(int32_t));
    take(t, &n->positions, rows, sizeof(int32_t));
}

static void take_head(taking *t, const mb_model_config *c, const mb_network_size *size, mb_network *n)
{
    const size_t targets = (size_t)size->targets, hidden = (size_t)c->hidden;
    const size_t chunk = (size_t)size->chunk * (size_t)c->vocab;
    take(t, &n->gathered, targets * hidden, sizeof(float));
    take(t, &n->head_in, targets * hidden, sizeof(float));
    take(t, &n->dhead_in, targets * hidden, sizeof(float));
    take(t, &n->teacher_in, size->entries ? targets * hidden : 1, sizeof(float));
    take(t, &n->logits, chunk, sizeof(float));
    take(t, &n->teacher_logits, size->entries ? chunk : 1, sizeof(float));
    take(t, &n->row, targets, sizeof(int32_t));
    take(t, &n->target, targets, sizeof(int32_t));
    take(t, &n->correct, targets, sizeof(int32_t));
    take(t, &n->weight, targets, sizeof(float));
    take(t, &n->distil, targets, sizeof(float));
    take(t, &n->ce, targets, sizeof(float));
    take(t, &n->kl, targets, sizeof(float));
}

/* What the choice of keys needs on the backend that needs most: a plan is made before a device is opened. */
static size_t choice_scratch(const mb_model_config *c, const mb_network_size *size)
{
    const mb_kernels *backends[] = {mb_kernels_cpu(), mb_kernels_cuda()};
    size_t most = 256;
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++)
        if (backends[i] && backends[i]->top_k_scratch)
            most = larger(most, backends[i]->top_k_scratch((int32_t)size->entries, c->kv_heads, size->clean));
    return most;
}

static void take_index(taking *t, const mb_model_config *c, const mb_network_size *size, mb_network *n)
{
    const size_t heads = (size_t)size->entries * (size_t)c->kv_heads;
    mb_page_set unused;
    if (size->entries == 0)
        return;
    for (int32_t l = 0; l < c->layers; l++) {
        mb_page_set *set = n->index ? &n->index[l] : &unused;
        *set = (mb_page_set){.granularity = 1, .capacity = size->capacity};
        take(t, &set->ids, heads * (size_t)size->capacity, sizeof(int32_t));
        take(t, &set->counts, heads, sizeof(int32_t));
    }
    take(t, &n->mass, heads * (size_t)size->clean, sizeof(float));
    take(t, &n->before, (size_t)size->entries, sizeof(int32_t));
    take(t, &n->scratch, choice_scratch(c, size), 1);
}

/* The flat arrays: of weights, of what is trained, of its gradients and moments, of the teacher. */
enum { FLAT_WEIGHTS, FLAT_TRAINED, FLAT_GRADIENTS, FLAT_M, FLAT_V, FLAT_TEACHER, FLAT_COUNT };

static void take_flat(taking *t, const mb_model_config *c, const mb_network_size *size, size_t trained,
                      mb_network_plan *plan, float *flat[FLAT_COUNT])
{
    size_t *const parts[FLAT_COUNT] = {&plan->weights, &plan->adapter, &plan->gradients,
                                       &plan->moments, &plan->moments, &plan->teacher};
    const size_t floats = mb_parameters_count(c, NULL);
    for (int i = 0; i < FLAT_COUNT; i++) {
        const bool whole = i == FLAT_WEIGHTS || i == FLAT_TEACHER || size->lora.rank == 0;
        if ((i == FLAT_TRAINED && size->lora.rank == 0) ||
            (i == FLAT_TEACHER && (!size->frozen || size->lora.rank > 0)))
            continue;
        t->part = parts[i];
        take(t, &flat[i], whole ? floats : trained, sizeof(float));
    }
}

/* What an adapter needs while a layer is computed. */
static void take_adapted(taking *t, const mb_model_config *c, const mb_network_size *size, mb_network *n)
{
    size_t most = larger((size_t)c->hidden, (size_t)c->head_dim), outputs = 0;
    if (size->lora.rank == 0)
        return;
    for (int i = 0; i < MB_ADAPTED; i++) {
        take(t, &n->summed[i], mb_adapted_floats(c, i), sizeof(float));
        take(t, &n->summed_gradient[i], mb_adapted_floats(c, i), sizeof(float));
    }
    outputs = larger((size_t)c->query_heads * (size_t)c->head_dim, larger((size_t)c->intermediate, most));
    take(t, &n->thin, outputs * (size_t)size->lora.rank, sizeof(float));
    take(t, &n->unused, most, sizeof(float));
}

/* Everything in the order in which it is taken; trained: floats of an adapter. */
static void take_all(taking *t, const mb_model_config *c, const mb_network_size *size, mb_network *n,
                     size_t trained, mb_network_plan *plan, float *flat[FLAT_COUNT])
{
    mb_activations unused;
    float *input;
    take_flat(t, c, size, trained, plan, flat);
    t->part = &plan->adapter;
    take_adapted(t, c, size, n);
    t->part = &plan->activations;
    for (int32_t l = 0; l <= c->layers; l++)
        take(t, n->inputs ? &n->inputs[l] : &input, (size_t)size->rows * (size_t)c->hidden, sizeof(float));
    for (int32_t l = 0; l < (size->checkpointing ? 1 : c->layers); l++)
        take_kept(t, c, (size_t)size->rows, n->kept ? &n->kept[l] : &unused);
    take_work(t, c, size, n);
    t->part = &plan->logits;
    take_head(t, c, size, n);
    t->part = &plan->index;
    take_index(t, c, size, n);
    plan->total = plan->weights + plan->gradients + plan->moments + plan->teacher + plan->activations +
                  plan->adapter + plan->logits + plan->index;
}

void mb_network_plan_make(const mb_model_config *config, const mb_network_size *size, mb_network_plan *plan)
{
    mb_network none = {0};
    taking t = {0};
    float *flat[FLAT_COUNT];
    mb_adapter adapter;
    mb_error unused;
    *plan = (mb_network_plan){0};
    mb_parameters_count(config, &plan->trained);
    const bool adapted = mb_adapter_open(&adapter, config, &size->lora, &unused) == MB_OK && adapter.count > 0;
    take_all(&t, config, size, &none, adapted ? adapter.floats : 0, plan, flat);
    if (adapted)
        plan->trained = adapter.exact;
    mb_adapter_close(&adapter);
}

static int upload(mb_network *n, void *to, const void *from, size_t bytes, mb_error *err)
{
    int rc = n->kernels->upload(n->device, to, from, bytes);
    return rc < 0 ? mb_fail(err, rc, "sending to the device: %s", n->kernels->error(n->device)) : MB_OK;
}

/* Angles as the model's own table has them in fp32 (model/model.c). */
static int send_angles(mb_network *n, mb_error *err)
{
    const size_t width = (size_t)n->config.rotary_dim, pairs = width / 2, rows = (size_t)n->size.positions;
    float frequency[MB_ROPE_PAIRS_MAX], *table = malloc((rows * width + 1) * sizeof *table);
    if (!table)
        return mb_no_memory(err, "the RoPE table of %zu positions", rows);
    const float attention = mb_rope_frequencies(&n->config, frequency);
    for (size_t p = 0; p < rows; p++)
        for (size_t j = 0; j < pairs; j++) {
            const float angle = (float)p * frequency[j];
            table[p * width + j] = cosf(angle) * attention;
            table[p * width + pairs + j] = sinf(angle) * attention;
        }
    int rc = upload(n, n->cos_sin, table, rows * width * sizeof *table, err);
    free(table);
    return rc;
}

int mb_network_open(mb_network *n, const mb_model_config *config, const mb_network_size *size,
                    const mb_kernels *kernels, mb_device *device, mb_error *err)
{
    mb_network_plan plan = {0};
    float *flat[FLAT_COUNT] = {0};
    *n = (mb_network){.config = *config, .size = *size, .kernels = kernels, .device = device};
    int rc = mb_parameters_check(config, err);
    if (rc == MB_OK)
        rc = mb_adapter_open(&n->adapter, config, &size->lora, err);
    if (rc == MB_OK)
        rc = mb_training_of(kernels, &n->ops, err);
    if (rc != MB_OK)
        return rc;
    n->arena_mark = kernels->mark(device);
    n->floats = mb_parameters_count(config, &n->exact);
    n->inputs = calloc((size_t)config->layers + 1, sizeof *n->inputs);
    n->kept = calloc((size_t)config->layers, sizeof *n->kept);
    n->index = calloc((size_t)config->layers, sizeof *n->index);
    n->trained_floats = n->adapter.count > 0 ? n->adapter.floats : n->floats;
    n->host = malloc(larger(n->floats, larger((size_t)size->targets, (size_t)size->entries)) * sizeof *n->host);
    taking t = {.network = n};
    if (!n->inputs || !n->kept || !n->index || !n->host)
        rc = mb_no_memory(err, "a network of %zu parameters", n->exact);
    if (rc == MB_OK)
        take_all(&t, config, size, n, n->trained_floats, &plan, flat);
    if (rc == MB_OK && t.failed)
        rc = mb_fail(err, MB_E_SYSTEM, "the device has no room for the %.2f GiB of this training",
                     (double)plan.total / 0x1p30);
    n->m = flat[FLAT_M];
    n->v = flat[FLAT_V];
    n->trained = n->adapter.count > 0 ? flat[FLAT_TRAINED] : flat[FLAT_WEIGHTS];
    if (rc == MB_OK)
        rc = mb_parameters_map(config, flat[FLAT_WEIGHTS], &n->weights, err);
    if (rc == MB_OK)
        rc = n->adapter.count > 0 ? mb_adapted_map(n, flat[FLAT_GRADIENTS], err)
                                  : mb_parameters_map(config, flat[FLAT_GRADIENTS], &n->gradients, err);
    if (rc == MB_OK && size->frozen)
        rc = mb_parameters_map(config, flat[n->adapter.count > 0 ? FLAT_WEIGHTS : FLAT_TEACHER], &n->teacher, err);
    if (rc == MB_OK)
        rc = send_angles(n, err);
    if (rc != MB_OK)
        mb_network_close(n);
    return rc;
}

void mb_network_close(mb_network *n)
{
    if (n->inputs)
        n->kernels->release(n->device, n->arena_mark);
    mb_parameters_free(&n->weights);
    mb_parameters_free(&n->gradients);
    mb_parameters_free(&n->teacher);
    mb_adapter_close(&n->adapter);
    free(n->inputs);
    free(n->kept);
    free(n->index);
    free(n->host);
    *n = (mb_network){0};
}

int mb_network_send(mb_network *n, float *to, const float *host, mb_error *err)
{
    return upload(n, to, host, n->floats * sizeof *host, err);
}

static int download(mb_network *n, float *host, const float *from, size_t floats, mb_error *err)
{
    int rc = n->kernels->download(n->device, host, from, floats * sizeof *host);
    return rc < 0 ? mb_fail(err, rc, "fetching from the device: %s", n->kernels->error(n->device)) : MB_OK;
}

int mb_network_fetch(mb_network *n, float *host, const float *from, mb_error *err)
{
    return download(n, host, from, n->floats, err);
}

int mb_network_send_trained(mb_network *n, float *to, const float *host, mb_error *err)
{
    return upload(n, to, host, n->trained_floats * sizeof *host, err);
}

int mb_network_fetch_trained(mb_network *n, float *host, const float *from, mb_error *err)
{
    return download(n, host, from, n->trained_floats, err);
}

/* How many clean keys stand before each noisy block. */
static int send_before(mb_network *n, const mb_batch *batch, mb_error *err)
{
    const mb_train_layout *layout = &batch->layout;
    const int32_t blocks = layout->tail / layout->block, entries = layout->documents * blocks;
    int32_t *before = (int32_t *)(void *)n->host;
    if (entries > n->size.entries)
        return mb_fail(err, MB_E_BUG, "a batch of %d noisy blocks, the network was opened for %lld", entries,
                       (long long)n->size.entries);
    for (int32_t e = 0; e < entries; e++)
        before[e] = layout->clean - layout->tail + e % blocks * layout->block;
    return upload(n, n->before, before, (size_t)entries * sizeof *before, err);
}

int mb_network_feed(mb_network *n, const mb_batch *batch, mb_error *err)
{
    const size_t rows = (size_t)mb_train_rows(&batch->layout), targets = (size_t)batch->targets;
    if ((int64_t)rows > n->size.rows || batch->targets > n->size.targets ||
        batch->layout.clean > n->size.positions)
        return mb_fail(err, MB_E_BUG, "a batch of %zu rows, %zu targets: larger than the network was opened for",
                       rows, targets);
    int rc = upload(n, n->ids, batch->ids, rows * sizeof(int32_t), err);
    if (rc == MB_OK)
        rc = upload(n, n->positions, batch->positions, rows * sizeof(int32_t), err);
    if (rc == MB_OK)
        rc = upload(n, n->row, batch->row, targets * sizeof(int32_t), err);
    if (rc == MB_OK)
        rc = upload(n, n->target, batch->target, targets * sizeof(int32_t), err);
    return rc == MB_OK && n->size.entries > 0 ? send_before(n, batch, err) : rc;
}

/* ---- the optimiser ---- */

typedef struct updating {
    mb_network *network;
    const mb_update *update;
    double scale;
} updating;

/* times: how many times its natural size the array is held at (s A in place of A). */
static int step_array(const updating *u, size_t first, size_t floats, bool decays, double times)
{
    const mb_update *update = u->update;
    mb_network *n = u->network;
    return n->ops->adamw(n->device, &(mb_adamw){.weight = n->trained + first,
                                                .m = n->m + first,
                                                .v = n->v + first,
                                                .gradient = n->gradients.base + first,
                                                .n = (int64_t)floats,
                                                .lr = (float)(update->lr * times),
                                                .beta1 = (float)update->beta1,
                                                .beta2 = (float)update->beta2,
                                                .eps = (float)(update->eps / times),
                                                .decay = decays ? (float)(update->decay / times) : 0.0f,
                                                .scale = (float)u->scale,
                                                .correction1 = 1.0 - pow(update->beta1, (double)update->step),
                                                .correction2 = 1.0 - pow(update->beta2, (double)update->step)});
}

static int update_one(void *user, const mb_parameter *parameter)
{
    return step_array(user, parameter->first, parameter->n, parameter->matrix, 1.0);
}

static int update_adapter(const updating *u)
{
    const mb_adapter *adapter = &u->network->adapter;
    const size_t rank = (size_t)adapter->options.rank;
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < adapter->count; i++) {
        const mb_adapter_part *part = &adapter->parts[i];
        rc = step_array(u, part->a, rank * (size_t)part->cols, true, adapter->scale);
        if (rc == MB_OK)
            rc = step_array(u, part->b, rank * (size_t)part->rows, true, 1.0);
    }
    return rc;
}

/* Sum of squares of the gradient; that of A is s times what is held. */
static int add_squares(mb_network *n, double *sum)
{
    const mb_adapter *adapter = &n->adapter;
    const int64_t rank = adapter->options.rank;
    double a = 0.0, b = 0.0;
    int rc = MB_OK;
    if (adapter->count == 0)
        return n->ops->square_sum(n->device, &(mb_square_sum){n->gradients.base, (int64_t)n->trained_floats, sum});
    for (size_t i = 0; rc == MB_OK && i < adapter->count; i++) {
        const mb_adapter_part *part = &adapter->parts[i];
        rc = n->ops->square_sum(n->device, &(mb_square_sum){n->gradients.base + part->a, rank * part->cols, &a});
        if (rc == MB_OK)
            rc = n->ops->square_sum(n->device,
                                    &(mb_square_sum){n->gradients.base + part->b, rank * part->rows, &b});
    }
    *sum = a * adapter->scale * adapter->scale + b;
    return rc;
}

int mb_network_update(mb_network *n, const mb_update *update, double *norm, mb_error *err)
{
    double sum = 0.0;
    int rc = add_squares(n, &sum);
    *norm = sqrt(sum);
    if (rc == MB_OK && isfinite(*norm)) {
        const bool clipped = update->clip > 0 && *norm > update->clip;
        updating u = {n, update, clipped ? update->clip / (*norm + 1e-6) : 1.0};
        rc = n->adapter.count > 0 ? update_adapter(&u) : mb_parameters_each(&n->config, update_one, &u);
    }
    if (rc == MB_OK)
        rc = n->kernels->fill(n->device, n->gradients.base, 0, n->trained_floats * sizeof(float));
    return rc == MB_OK ? rc : mb_fail(err, rc, "the optimiser: %s", n->kernels->error(n->device));
}
