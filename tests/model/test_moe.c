/*
 * test_moe.c - mixture-of-experts checkpoints against programs that share nothing with this one: logits, the
 * router's choices and the sampler's trace (fixtures/make_moe.py: Hugging Face's Qwen3-MoE, and LLaDA2 written in
 * plain PyTorch); how the experts are packed; what is refused.
 */
#include "tests/model/engine_fixture.h"

#include "model/checkpoint/safetensors.h"

#include <cjson/cJSON.h>

static const char *const names[2] = {"llada2", "sdar_moe"};

/* A fixture on the CPU, or on the device that MASKBENCH_TEST_DEVICE names (tests/gpu.sh). */
static opened open_here(const char *name, mb_type type)
{
    const char *spec = getenv("MASKBENCH_TEST_DEVICE");
    mb_error note = {0};
    mb_error err = {0};
    opened o = open_fixture(name, type);
    if (!spec)
        return o;
    mb_model_close(o.model);
    o.kernels->close(o.device);
    mb_device_options options = {.type = type, .threads = 2, .arena_bytes = (size_t)1 << 28};
    mb_model_request request = {.path = o.folder};
    if (mb_device_open(spec, &options, &o.kernels, &o.device, &note, &err) != MB_OK ||
        mb_model_open(&o.model, &request, o.kernels, o.device, type, &err) != MB_OK)
        fail_msg("%s", err.text);
    return o;
}

static int32_t *read_words(const char *path, size_t *n)
{
    char *data = NULL;
    mb_error err = {0};
    size_t size = 0;
    if (mb_file_read(path, 1 << 20, &data, &size, &err) != MB_OK)
        fail_msg("%s", err.text);
    *n = size / 4;
    return (int32_t *)(void *)data;
}

/* ---- a table whose router writes down what it chose ---- */

static struct record {
    const mb_kernels *kernels;
    int32_t ids[4096];
    float weights[4096];
    size_t count;
} record;

static int recording_route(mb_device *device, const mb_router *args)
{
    int rc = record.kernels->route(device, args);
    size_t n = (size_t)(args->n * args->top_k);
    assert_true(record.count + n <= sizeof record.ids / sizeof record.ids[0]);
    record.kernels->download(device, record.ids + record.count, args->ids, n * sizeof *args->ids);
    record.kernels->download(device, record.weights + record.count, args->weights, n * sizeof *args->weights);
    record.count += n;
    return rc;
}

/* ids [layers][n][k] and weights of the fixture against the record, whose forwards were rows 0..63, then the rest.
 */
static void compare_routes(const char *name, bool exact)
{
    char path[256];
    size_t words = 0, seen = 0, moved = 0;
    snprintf(path, sizeof path, FIXTURES "%s.routes", name);
    int32_t *file = read_words(path, &words);
    assert_int_equal(file[0], 0x6d62726f);
    size_t layers = (size_t)file[1], n = (size_t)file[2], k = (size_t)file[3];
    assert_int_equal(words, 4 + layers * n * k * 2);
    assert_int_equal(record.count, layers * n * k);
    for (size_t part = 0; part < 2; part++)
        for (size_t l = 0; l < layers; l++)
            for (size_t r = part ? 64 : 0; r < (part ? n : 64); r++)
                for (size_t i = 0; i < k; i++, seen++) {
                    const int32_t *ids = file + 4 + l * n * k * 2;
                    const float *weights = (const float *)(const void *)(ids + n * k);
                    size_t at = r * k + i;
                    moved += record.ids[seen] != ids[at];
                    if (exact)
                        assert_int_equal(record.ids[seen], ids[at]);
                    if (exact && fabsf(record.weights[seen] - weights[at]) > 2e-5f)
                        fail_msg("%s, layer %zu, row %zu: weight %.7g, not %.7g", name, l, r,
                                 (double)record.weights[seen], (double)weights[at]);
                }
    if (!exact)
        print_message("%s, bf16: %zu of %zu choices differ from fp32's\n", name, moved, seen);
    free(file);
}

/* Block-causal logits against the kept rows of a golden file; best tokens must agree where the lead is more than
 * `clear` of the largest logit. Returns the largest error, relative to the largest logit; *equal: share of equal
 * bits. */
static double compare_logits(const opened *o, const char *name, double clear, double *equal)
{
    char path[256];
    mb_error err = {0};
    size_t words = 0;
    snprintf(path, sizeof path, FIXTURES "%s.golden", name);
    int32_t *file = read_words(path, &words);
    int32_t n = file[1], vocab = file[2], kept = file[3], same = 0;
    const int32_t *ids = file + 4, *best = ids + n, *positions = best + 2 * n;
    const float *lead = (const float *)(const void *)(best + n);
    const float *wanted = (const float *)(const void *)(positions + kept);
    float *logits = NULL;
    double worst = 0, largest = 0;
    record.count = 0;
    if (mb_model_logits(o->model, ids, (size_t)n, &logits, &err) != MB_OK)
        fail_msg("%s", err.text);
    for (int32_t i = 0; i < kept * vocab; i++) {
        float got = logits[(int64_t)positions[i / vocab] * vocab + i % vocab];
        worst = fmax(worst, fabs((double)got - (double)wanted[i]));
        largest = fmax(largest, fabs((double)wanted[i]));
        same += got == wanted[i];
    }
    for (int32_t r = 0; r < n; r++) {
        int32_t top = 0;
        for (int32_t v = 1; v < vocab; v++)
            top = logits[(int64_t)r * vocab + v] > logits[(int64_t)r * vocab + top] ? v : top;
        if ((double)lead[r] > clear * largest)
            assert_int_equal(top, best[r]);
    }
    free(logits);
    free(file);
    *equal = (double)same / ((double)kept * vocab);
    return worst / largest;
}

/* Sets attention.dense of every layer in a folder to 0. */
static void silence_attention(const char *folder)
{
    char *path = mb_string_format("%s/model.safetensors", folder), *data = NULL;
    mb_error err = {0};
    mb_safetensors table = {0};
    size_t size = 0;
    int silenced = 0;
    assert_int_equal(mb_file_read(path, 1 << 20, &data, &size, &err), MB_OK);
    assert_int_equal(mb_safetensors_parse(&table, (unsigned char *)data, size, path, &err), MB_OK);
    for (size_t i = 0; i < table.count; i++)
        if (strstr(table.tensors[i].name, "attention.dense")) {
            memset(data + (table.tensors[i].data - (unsigned char *)data), 0, table.tensors[i].bytes);
            silenced++;
        }
    assert_int_equal(silenced, 3);
    mb_safetensors_free(&table);
    folder_put(folder, "model.safetensors", data, size);
    free(data);
    free(path);
}

/* With the same roundings in the same places bf16 gives the same logits to the bit, router
 * and experts included. Without attention, whose outputs are small sums of large values: fp32 noise turns their
 * rounding here and there, and three layers spread it. */
static void roundings(void **state)
{
    opened o = open_here("llada2", MB_BF16);
    mb_model_request request = {.path = o.folder};
    double equal = 0, error;
    mb_error err = {0};
    (void)state;
    silence_attention(o.folder);
    mb_model_close(o.model);
    if (mb_model_open(&o.model, &request, o.kernels, o.device, MB_BF16, &err) != MB_OK)
        fail_msg("%s", err.text);
    error = compare_logits(&o, "llada2.bf16", 0.02, &equal);
    print_message(
        "llada2, bf16 against bf16: %.1f %% of the logits equal, largest error %.2e of the largest logit\n",
        100 * equal, error);
    assert_true(equal >= (getenv("MASKBENCH_TEST_DEVICE") ? 0.9 : 1.0));
    close_model(&o);
}

/* fp32: logits to 1e-5 (a GPU sums in another order: 1e-4), every choice and weight, ties and group limits among
 * them. bf16: a row whose router is near a border may go to another expert, so only the size of the error is held,
 * over rows that mostly do not. */
static void golden(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        bool wide = i % 2 == 0;
        opened o = open_here(names[i / 2], wide ? MB_F32 : MB_BF16);
        mb_kernels table = *o.kernels;
        record.kernels = o.kernels;
        table.route = recording_route;
        o.model->kernels = &table;
        double equal = 0, error = compare_logits(&o, names[i / 2], wide ? 1e-4 : 0.1, &equal);
        print_message("%s, %s: largest error %.2e of the largest logit\n", names[i / 2], wide ? "f32" : "bf16",
                      error);
        compare_routes(names[i / 2], wide);
        assert_true(error < (!wide ? 0.1 : getenv("MASKBENCH_TEST_DEVICE") ? 1e-4 : 1e-5));
        close_model(&o);
    }
}

/* ---- packing ---- */

/* n bf16 values of a tensor of the file are the fp32 values at `device`. */
static void check_tensor(const mb_checkpoint *file, const char *name, const void *device, size_t offset)
{
    const mb_tensor *tensor = mb_checkpoint_find(file, name);
    if (!tensor)
        fail_msg("%s is not in the fixture", name);
    const float *values = (const float *)device + offset;
    size_t n = tensor->bytes / mb_type_size(tensor->type);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = 0;
        float value;
        if (tensor->type == MB_F32) {
            memcpy(&value, tensor->data + 4 * i, 4);
        } else {
            memcpy((unsigned char *)&bits + 2, tensor->data + 2 * i, 2);
            memcpy(&value, &bits, 4);
        }
        if (values[i] != value)
            fail_msg("%s[%zu] is %.9g on the device, %.9g in the file", name, i, (double)values[i], (double)value);
    }
}

static void check_experts(const mb_checkpoint *file, const mb_model *model, int32_t l)
{
    const mb_model_config *c = &model->config;
    const struct mb_layer *layer = &model->layers[l];
    size_t one = (size_t)c->moe.size * (size_t)c->hidden;
    char name[128];
    for (int32_t e = 0; e < c->moe.experts; e++) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.gate_proj.weight", l, e);
        check_tensor(file, name, layer->expert_gate_up, (size_t)e * 2 * one);
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.up_proj.weight", l, e);
        check_tensor(file, name, layer->expert_gate_up, ((size_t)e * 2 + 1) * one);
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.down_proj.weight", l, e);
        check_tensor(file, name, layer->expert_down, (size_t)e * one);
    }
    snprintf(name, sizeof name, "model.layers.%d.mlp.gate.weight", l);
    check_tensor(file, name, layer->router, 0);
}

static void packing(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        opened o = open_fixture(names[i], MB_F32);
        const mb_model_config *c = mb_model_config_of(o.model);
        mb_checkpoint *file = NULL;
        char name[128];
        mb_error err = {0};
        assert_int_equal(mb_checkpoint_open(&file, o.folder, &err), MB_OK);
        assert_int_equal(o.kernels->mark(o.device),
                         mb_model_weight_bytes(c, MB_F32)); /* nothing else is there yet */
        assert_int_equal(c->moe.dense_layers, 1);
        for (int32_t l = 0; l < c->layers; l++) {
            const struct mb_layer *layer = &o.model->layers[l];
            bool moe = l > 0;
            assert_true((layer->router != NULL) == moe && (layer->expert_down != NULL) == moe);
            assert_true((layer->router_bias != NULL) == (moe && i == 0));
            assert_true((layer->gate_up != NULL) == (!moe || i == 0)); /* dense, or the shared expert's */
            if (moe)
                check_experts(file, o.model, l);
            snprintf(name, sizeof name, "model.layers.%d.mlp.gate.expert_bias", l);
            if (layer->router_bias)
                check_tensor(file, name, layer->router_bias, 0);
            snprintf(name, sizeof name, "model.layers.%d.mlp.shared_experts.up_proj.weight", l);
            if (moe && i == 0)
                check_tensor(file, name, layer->gate_up, (size_t)c->moe.shared * (size_t)c->hidden);
            snprintf(name, sizeof name, "model.layers.%d.attention.query_key_value.weight", l);
            if (i == 0)
                check_tensor(file, name, layer->qkv, 0);
        }
        mb_checkpoint_close(file);
        close_model(&o);
    }
}

/* The bias of a router stays fp32 in a bf16 model; the plan is what a session takes. */
static void memory(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        opened o = open_fixture(names[i], MB_BF16);
        const mb_model_config *c = mb_model_config_of(o.model);
        mb_session_request request = {.batch = 3, .capacity = 160};
        mb_session *session = NULL;
        mb_memory_plan plan;
        mb_error err = {0};
        size_t before = o.kernels->mark(o.device);
        assert_int_equal(before, mb_model_weight_bytes(c, MB_BF16));
        mb_memory_plan_make(c, MB_BF16, &request, 0, &plan);
        assert_int_equal(plan.weights, before);
        assert_int_equal(mb_session_open(&session, o.model, &request, &err), MB_OK);
        assert_int_equal(o.kernels->mark(o.device) - before, plan.total - plan.weights);
        mb_session_close(session);
        if (i == 0) {
            mb_checkpoint *file = NULL;
            assert_int_equal(mb_checkpoint_open(&file, o.folder, &err), MB_OK);
            check_tensor(file, "model.layers.2.mlp.gate.expert_bias", o.model->layers[2].router_bias, 0);
            mb_checkpoint_close(file);
        }
        close_model(&o);
    }
}

/* Standard deviation of n fp32 values on the device; none of them may be what the arena was filled with. */
static double deviation_of(const float *values, size_t n)
{
    double squares = 0;
    size_t zeros = 0;
    for (size_t i = 0; i < n; i++) {
        squares += (double)values[i] * (double)values[i];
        zeros += values[i] == 0.0f;
    }
    assert_true(zeros <= n / 1000);
    return sqrt(squares / (double)n);
}

/* A synthetic model with experts: every expert drawn, the router without a bias, logits of ordinary size. */
static void random_experts(void **state)
{
    mb_device_options options = {.type = MB_F32, .threads = 2, .arena_bytes = (size_t)1 << 28};
    mb_model_request request = {.shape = "tiny_moe", .seed = 3};
    opened o = {.kernels = mb_kernels_cpu()};
    mb_error err = {0};
    int32_t ids[80];
    float *logits = NULL;
    (void)state;
    assert_int_equal(o.kernels->open(&o.device, &options, &err), MB_OK);
    if (mb_model_open(&o.model, &request, o.kernels, o.device, MB_F32, &err) != MB_OK)
        fail_msg("%s", err.text);
    const mb_model_config *c = mb_model_config_of(o.model);
    assert_int_equal(o.kernels->mark(o.device), mb_model_weight_bytes(c, MB_F32));
    size_t one = (size_t)c->moe.size * (size_t)c->hidden;
    const struct mb_layer *last = &o.model->layers[c->layers - 1];
    for (size_t e = 0; e < (size_t)c->moe.experts; e++) {
        double gate_up = deviation_of((float *)last->expert_gate_up + e * 2 * one, 2 * one);
        double down = deviation_of((float *)last->expert_down + e * one, one);
        assert_true(fabs(gate_up * sqrt(c->hidden) - 1) < 0.03);
        assert_true(fabs(down * sqrt(c->moe.size * 2.0 * c->layers) - 1) < 0.03);
        assert_true(last->router_bias[e] == 0.0f);
    }
    for (int i = 0; i < 80; i++)
        ids[i] = i * 41 % 2048;
    if (mb_model_logits(o.model, ids, 80, &logits, &err) != MB_OK)
        fail_msg("%s", err.text);
    double size = deviation_of(logits, (size_t)80 * 2048);
    assert_true(size > 0.05 && size < 20);
    free(logits);
    close_model(&o);
}

/* ---- refusals ---- */

/* Replaces one text of a file by another of the same length. */
static void patch(const char *folder, const char *file, const char *from, const char *to)
{
    char *path = mb_string_format("%s/%s", folder, file), *data = NULL;
    mb_error err = {0};
    size_t size = 0;
    assert_int_equal(strlen(from), strlen(to));
    assert_int_equal(mb_file_read(path, 1 << 20, &data, &size, &err), MB_OK);
    char *at = memmem(data, size, from, strlen(from));
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    folder_put(folder, file, data, size);
    free(data);
    free(path);
}

static void refusals(void **state)
{
    static const struct {
        const char *file, *from, *to, *says;
    } cases[] = {
        {"model.safetensors", "layers.1.mlp.experts.7.up_proj", "layers.1.mlp.experts.7.up_prox",
         "tensor model.layers.1.mlp.experts.7.up_proj.weight is missing"},
        {"model.safetensors", "layers.2.mlp.gate.expert_bias", "layers.2.mlp.gate.expert_bios",
         "tensor model.layers.2.mlp.gate.expert_bias is missing"},
        {"config.json", "\"moe_router_enable_expert_bias\": true", "\"moe_router_enable_expert_bias\":false",
         "have a tensor model.layers.1.mlp.gate.expert_bias that config.json does not explain"},
        {"config.json", "\"num_shared_experts\": 1", "\"num_shared_experts\": 0",
         "mlp.shared_experts.down_proj.weight that config.json does not explain"},
        {"config.json", "\"num_experts\": 16", "\"num_experts\": 12",
         "tensor model.layers.1.mlp.gate.weight has shape [16, 16], config.json makes it [12, 16]"},
        {"config.json", "\"first_k_dense_replace\": 1", "\"first_k_dense_replace\": 2",
         "tensor model.layers.1.mlp.gate_proj.weight"},
        {"config.json", "\"moe_intermediate_size\": 16", "\"moe_intermediate_size\": 24",
         "config.json makes it [24, 16]"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        opened o = open_fixture("llada2", MB_F32);
        mb_model_request request = {.path = o.folder};
        mb_model *model = NULL;
        mb_error err = {0};
        patch(o.folder, cases[i].file, cases[i].from, cases[i].to);
        int rc = mb_model_open(&model, &request, o.kernels, o.device, MB_F32, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: rc %d, \"%s\", expected \"%s\"", i, rc, err.text, cases[i].says);
        close_model(&o);
    }
}

/* ---- the sampler ---- */

struct events {
    const cJSON *next; /* of the fixture's trace */
    int denoised;
};

static int32_t number_at(const cJSON *list, int i)
{
    const cJSON *item = cJSON_GetArrayItem(list, i);
    assert_true(cJSON_IsNumber(item));
    return item->valueint;
}

static void check_event(void *user, const mb_trace_step *step)
{
    struct events *events = user;
    if (step->kind != 'd')
        return;
    assert_non_null(events->next);
    const cJSON *positions = cJSON_GetArrayItem(events->next, 3), *tokens = cJSON_GetArrayItem(events->next, 4);
    assert_int_equal(step->block, number_at(events->next, 0));
    assert_int_equal(step->step, number_at(events->next, 1));
    assert_int_equal(step->masked_before, number_at(events->next, 2));
    assert_int_equal(step->count, cJSON_GetArraySize(positions));
    for (int32_t i = 0; i < step->count; i++) {
        assert_int_equal(step->positions[i], number_at(positions, i));
        assert_int_equal(step->tokens[i], number_at(tokens, i));
    }
    events->next = events->next->next;
    events->denoised++;
}

/* Graphs replay where the device has them. Every forward reveals what the run without a cache revealed; blocks,
 * stop and length are its own. */
static void traces(void **state)
{
    char *text = NULL;
    mb_error err = {0};
    size_t size = 0, words = 0;
    (void)state;
    assert_int_equal(mb_file_read(FIXTURES "llada2.traces.json", 1 << 20, &text, &size, &err), MB_OK);
    cJSON *list = cJSON_ParseWithLength(text, size), *run;
    int32_t *file = read_words(FIXTURES "llada2.golden", &words);
    opened o = open_here("llada2", MB_F32);
    assert_int_equal(cJSON_GetArraySize(list), 5);
    cJSON_ArrayForEach(run, list) {
        const cJSON *tokens = cJSON_GetObjectItem(run, "tokens");
        int32_t stop = cJSON_GetObjectItem(run, "stop")->valueint, eos = mb_model_config_of(o.model)->stop_ids[0];
        struct events events = {.next = cJSON_GetObjectItem(run, "events")->child};
        mb_session_request wanted = {.batch = 1, .capacity = 192, .graphs = true};
        mb_session *session = NULL;
        mb_decode_request request = {.max_new_tokens = cJSON_GetObjectItem(run, "new")->valueint,
                                     .extra_stop_id = stop == eos ? -1 : stop,
                                     .trace = check_event,
                                     .user = &events};
        mb_decode_result result;
        mb_sampler sampler;
        mb_sampler_default(mb_model_config_of(o.model), &sampler);
        assert_int_equal(sampler.confidence, MB_F32);
        assert_true(sampler.threshold == 0.95 && sampler.remasking == MB_REMASK_DYNAMIC && sampler.steps == 32);
        assert_int_equal(mb_session_open(&session, o.model, &wanted, &err), MB_OK);
        mb_attender *attender = open_attender(session, &dense_method, NULL);
        sampler.steps = cJSON_GetObjectItem(run, "steps")->valueint;
        sampler.threshold = cJSON_GetObjectItem(run, "threshold")->valuedouble;
        request.sampler = &sampler;
        assert_int_equal(mb_session_prefill(session, 0, file + 4,
                                            (size_t)cJSON_GetObjectItem(run, "prompt")->valueint, NULL, &err),
                         MB_OK);
        if (mb_decode(session, attender, &request, &result, &err) != MB_OK)
            fail_msg("%s", err.text);
        assert_null(events.next);
        assert_int_equal(result.denoise_forwards, events.denoised);
        assert_int_equal(result.commit_forwards, result.blocks - 1); /* nothing needs the last block's keys */
        assert_int_equal(result.count, cJSON_GetArraySize(tokens));
        for (size_t i = 0; i < result.count; i++)
            assert_int_equal(result.ids[i], number_at(tokens, (int)i));
        assert_int_equal(result.stopped, result.ids[result.count - 1] == stop);
        print_message("%d prompt tokens, %d steps, threshold %g: %d blocks, %d forwards, %zu tokens%s\n",
                      cJSON_GetObjectItem(run, "prompt")->valueint, sampler.steps, sampler.threshold,
                      result.blocks, result.denoise_forwards, result.count, result.stopped ? ", stopped" : "");
        mb_decode_result_free(&result);
        mb_attender_close(attender);
        mb_session_close(session);
    }
    close_model(&o);
    cJSON_Delete(list);
    free(file);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),   cmocka_unit_test(roundings), cmocka_unit_test(traces),
        cmocka_unit_test(packing),  cmocka_unit_test(memory),    cmocka_unit_test(random_experts),
        cmocka_unit_test(refusals),
    };
    /* The others look into the CPU's memory. */
    const struct CMUnitTest anywhere[] = {cmocka_unit_test(golden), cmocka_unit_test(roundings),
                                          cmocka_unit_test(traces)};
    return getenv("MASKBENCH_TEST_DEVICE") ? cmocka_run_group_tests(anywhere, NULL, NULL)
                                           : cmocka_run_group_tests(tests, NULL, NULL);
}
