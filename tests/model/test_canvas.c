/*
 * test_canvas.c - DiffusionGemma beside the class of transformers 5.24 (tests/official/diffusion_gemma.py --record
 * made fixtures/canvas): logits of a prompt and of the first two steps, and whole runs with the reference's random
 * draws: what every step accepts, the tokens, the number of steps. Methods see the layers without a window only;
 * folders that ask for something else are refused. MASKBENCH_CANVAS names another folder of such runs.
 */
#include "tests/model/engine_fixture.h"

#include <cjson/cJSON.h>

#define CANVAS "tests/model/fixtures/canvas/"

enum { ROWS = 4, STEPS = 2 }; /* of which golden.f32 has logits */

static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors"};

/* *text: the caller frees it. */
static void read_text(const char *folder, const char *name, char **text, size_t *size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (mb_file_read(path, 1 << 26, text, size, NULL) != MB_OK)
        fail_msg("%s cannot be read", path);
}

/* The fixture with the small tokenizer beside it. */
static char *new_folder(void)
{
    char *folder = folder_new();
    for (size_t i = 0; i < 3; i++) {
        char path[256];
        snprintf(path, sizeof path, CANVAS "%s", files[i]);
        folder_copy(folder, files[i], path);
    }
    folder_copy(folder, "tokenizer.json", "tests/model/fixtures/characters/tokenizer.json");
    return folder;
}

/* On the CPU, or on the device that MASKBENCH_TEST_DEVICE names (tests/gpu.sh). */
static opened open_request(const mb_model_request *request, mb_type type)
{
    const char *spec = getenv("MASKBENCH_TEST_DEVICE");
    opened o = {0};
    mb_device_options options = {.type = type, .threads = 1, .arena_bytes = (size_t)1 << 28};
    mb_error err = {0}, note = {0};
    if (mb_device_open(spec ? spec : "cpu", &options, &o.kernels, &o.device, &note, &err) != MB_OK ||
        mb_model_open(&o.model, request, o.kernels, o.device, type, &err) != MB_OK)
        fail_msg("%s", err.text);
    return o;
}

static opened open_canvas(mb_type type)
{
    char *folder = getenv("MASKBENCH_CANVAS") ? NULL : new_folder();
    opened o = open_request(&(mb_model_request){.path = folder ? folder : getenv("MASKBENCH_CANVAS")}, type);
    o.folder = folder;
    return o;
}

static size_t ids_of(const cJSON *list, int32_t *ids)
{
    size_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        assert_true(n < 1024);
        ids[n++] = item->valueint;
    }
    return n;
}

static double largest_gap(const float *a, const float *b, size_t n)
{
    double gap = 0;
    for (size_t i = 0; i < n; i++)
        gap = fmax(gap, fabs((double)a[i] - (double)b[i]));
    return gap;
}

/* ---- a run with the reference's draws ---- */

struct play {
    const cJSON *run;
    const mb_session *session;
    const float *logits; /* [STEPS][ROWS][vocab] of this run */
    double gap[STEPS];
    int noises, draws, steps;
};

static int next_noise(void *self, int32_t *tokens, mb_error *err)
{
    struct play *play = self;
    (void)err;
    ids_of(cJSON_GetArrayItem(cJSON_GetObjectItem(play->run, "noise"), play->noises++), tokens);
    return MB_OK;
}

static int next_draw(void *self, int32_t step, int32_t *tokens, mb_error *err)
{
    struct play *play = self;
    const size_t n = (size_t)ROWS * (size_t)play->session->config->vocab;
    (void)err;
    if (play->draws < STEPS) {
        float *logits = malloc(n * sizeof *logits);
        assert_non_null(logits);
        assert_int_equal(play->session->kernels->download(play->session->device, logits,
                                                          play->session->buffer[MB_BUFFER_LOGITS],
                                                          n * sizeof *logits),
                         MB_OK);
        double gap = largest_gap(logits, play->logits + (size_t)play->draws * n, n);
        free(logits);
        play->gap[play->draws] = fmax(play->gap[play->draws], gap);
    }
    assert_true(step >= 1);
    ids_of(cJSON_GetArrayItem(cJSON_GetObjectItem(play->run, "draws"), play->draws++), tokens);
    return MB_OK;
}

static int by_slot(const void *a, const void *b)
{
    return ((const int32_t *)a)[0] - ((const int32_t *)b)[0];
}

/* The slots that a step accepted, and their tokens. */
static void check_step(void *user, const mb_trace_step *step)
{
    struct play *play = user;
    int32_t got[256][2];
    if (step->kind != 'd')
        return;
    const cJSON *want = cJSON_GetArrayItem(cJSON_GetObjectItem(play->run, "steps"), play->steps++);
    if (cJSON_GetArraySize(want) != step->count)
        fail_msg("step %d of canvas %d accepts %d slots, the reference %d", step->step, step->block, step->count,
                 cJSON_GetArraySize(want));
    for (int32_t i = 0; i < step->count; i++) {
        got[i][0] = step->positions[i] - step->prefix;
        got[i][1] = step->tokens[i];
    }
    qsort(got, (size_t)step->count, sizeof got[0], by_slot);
    for (int32_t i = 0; i < step->count; i++) {
        const cJSON *pair = cJSON_GetArrayItem(want, i);
        assert_int_equal(got[i][0], cJSON_GetArrayItem(pair, 0)->valueint);
        assert_int_equal(got[i][1], cJSON_GetArrayItem(pair, 1)->valueint);
    }
}

static void play_run(const opened *o, struct play *play)
{
    int32_t prompt[1024], want[1024];
    size_t n = ids_of(cJSON_GetObjectItem(play->run, "prompt"), prompt);
    size_t count = ids_of(cJSON_GetObjectItem(play->run, "tokens"), want);
    mb_session *session = open_session(o, 1, 512);
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    mb_canvas_draws draws = {play, next_noise, next_draw};
    mb_sampler sampler;
    mb_decode_result result = {0};
    mb_error err = {0};
    mb_sampler_default(mb_model_config_of(o->model), &sampler);
    play->session = session;
    mb_decode_request request = {.sampler = &sampler,
                                 .max_new_tokens = cJSON_GetObjectItem(play->run, "new")->valueint,
                                 .extra_stop_id = -1,
                                 .trace = check_step,
                                 .user = play,
                                 .draws = &draws};
    assert_int_equal(mb_session_prefill(session, 0, prompt, n, NULL, &err), MB_OK);
    if (mb_decode(session, attender, &request, &result, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(play->steps, cJSON_GetArraySize(cJSON_GetObjectItem(play->run, "steps")));
    assert_int_equal(result.count, count);
    assert_memory_equal(result.ids, want, count * sizeof *want);
    assert_int_equal(result.denoise_forwards, play->steps);
    assert_true(result.work == 1.0 && result.engaged == 0.0);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
    mb_session_close(session);
}

static void reference_runs(void **state)
{
    (void)state;
    opened o = open_canvas(MB_F32);
    const char *folder = getenv("MASKBENCH_CANVAS") ? getenv("MASKBENCH_CANVAS") : CANVAS;
    size_t size = 0, all = 0;
    char *json = NULL, *numbers = NULL;
    read_text(folder, "golden.json", &json, &size);
    read_text(folder, "golden.f32", &numbers, &all);
    cJSON *root = cJSON_Parse(json);
    const cJSON *run;
    const size_t each = (size_t)STEPS * ROWS * (size_t)mb_model_config_of(o.model)->vocab;
    size_t runs = 0;
    double gap[STEPS] = {0};
    cJSON_ArrayForEach(run, root) {
        struct play play = {.run = run, .logits = (const float *)(const void *)numbers + runs++ * each};
        assert_true(runs * each * sizeof(float) <= all);
        play_run(&o, &play);
        for (int i = 0; i < STEPS; i++)
            gap[i] = fmax(gap[i], play.gap[i]);
    }
    assert_true(runs >= 2);
    print_message("%zu runs, logits within %.1e and %.1e of the reference's\n", runs, gap[0], gap[1]);
    /* The second step takes the first one's logits in, and random weights make a difference larger. */
    assert_true(gap[0] < 1e-4 && gap[1] < 5e-4);
    cJSON_Delete(root);
    free(json);
    free(numbers);
    close_model(&o);
}

/* A prompt is computed causally, in any pieces, by the number that ends a layer there. */
static void prompt_logits(void **state)
{
    (void)state;
    if (getenv("MASKBENCH_CANVAS"))
        skip();
    opened o = open_canvas(MB_F32);
    size_t size = 0, bytes = 0;
    char *json = NULL, *numbers = NULL;
    read_text(CANVAS, "golden.json", &json, &size);
    read_text(CANVAS, "prompt.f32", &numbers, &bytes);
    cJSON *root = cJSON_Parse(json);
    int32_t prompt[1024];
    size_t n = ids_of(cJSON_GetObjectItem(cJSON_GetArrayItem(root, 1), "prompt"), prompt);
    size_t values = n * (size_t)mb_model_config_of(o.model)->vocab;
    float *logits = NULL;
    mb_error err = {0};
    assert_int_equal(bytes, values * sizeof *logits);
    assert_int_equal(mb_model_logits(o.model, prompt, n, &logits, &err), MB_OK);
    double gap = largest_gap(logits, (const float *)(const void *)numbers, values);
    print_message("a prompt's logits within %.1e\n", gap);
    assert_true(gap < 1e-4);
    free(logits);
    cJSON_Delete(root);
    free(json);
    free(numbers);
    close_model(&o);
}

/* ---- methods ---- */

struct seen {
    int32_t layers, head_dim, kv_heads, selects, added, commits, masked;
};
static struct seen seen;

static int watch_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)host, (void)options, (void)err;
    seen.layers = shape->layers;
    seen.head_dim = shape->head_dim;
    seen.kv_heads = shape->kv_heads;
    return 0;
}

static int watch_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)self, (void)out, (void)err;
    assert_int_equal(call->layer, 0);
    seen.selects++;
    seen.commits += call->phase == MB_PHASE_COMMIT;
    seen.masked = call->masked_rows;
    return 0;
}

static int watch_added(void *self, const mb_call *call, mb_error *err)
{
    (void)self, (void)err;
    assert_int_equal(call->layer, 0);
    seen.added++;
    return 0;
}

/* One of the three layers has no window. A commit is exact without being asked. */
static void methods_see_full_layers(void **state)
{
    (void)state;
    if (getenv("MASKBENCH_CANVAS"))
        skip();
    opened o = open_canvas(MB_F32);
    mb_method method = dense_method;
    mb_session *session = open_session(&o, 1, 256);
    mb_decode_result results[2] = {0};
    int32_t prompt[37];
    mb_sampler sampler;
    mb_error err = {0};
    method.open = watch_open;
    method.select = watch_select;
    method.kv_added = watch_added;
    memset(&seen, 0, sizeof seen);
    mb_attender *attender = open_attender(session, &method, NULL);
    assert_true(seen.layers == 1 && seen.head_dim == 32 && seen.kv_heads == 1);
    for (int32_t i = 0; i < 37; i++)
        prompt[i] = 10 + 7 * i;
    mb_sampler_default(mb_model_config_of(o.model), &sampler);
    mb_decode_request request = {.sampler = &sampler, .max_new_tokens = 32, .extra_stop_id = -1, .seed = 3};
    assert_int_equal(mb_session_prefill(session, 0, prompt, 37, NULL, &err), MB_OK);
    sampler.ignore_stop = true;
    for (int i = 0; i < 2; i++)
        assert_int_equal(mb_decode(session, attender, &request, &results[i], &err), MB_OK);
    assert_int_equal(seen.selects, 2 * results[0].denoise_forwards);
    assert_int_equal(seen.commits, 0);
    assert_int_equal(seen.added, 2 * (1 + results[0].commit_forwards));
    assert_int_equal(results[0].commit_forwards, 1);
    assert_true(seen.masked > 0 && seen.masked < 16); /* some slots are accepted at the last step */
    assert_int_equal(results[0].count, 32);
    /* The same seed gives the same text. */
    assert_memory_equal(results[0].ids, results[1].ids, 32 * sizeof *results[0].ids);
    for (int i = 0; i < 2; i++)
        mb_decode_result_free(&results[i]);
    mb_attender_close(attender);
    mb_session_close(session);
    close_model(&o);
}

static int32_t first_layer;

static int note_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)self, (void)host, (void)options, (void)err;
    first_layer = shape->first_layer;
    return 0;
}

/* Keys of one head of a layer, as fp32. */
static void keys_of(const mb_session *session, int32_t layer, int32_t head, float *keys, size_t n)
{
    const mb_kv *kv = &session->kv[layer];
    const float *from = (const float *)kv->k + (size_t)head * (size_t)kv->capacity * (size_t)kv->head_dim;
    assert_int_equal(session->kernels->download(session->device, keys, from, n * sizeof *keys), MB_OK);
}

/* A synthetic model: random keys in both kinds of layers, no two heads alike; fixed work gives the same twice. */
static void synthetic_work(void **state)
{
    static const struct {
        int64_t dense;
        int32_t first;
    } cases[] = {{0, 0}, {2, 0}, {5, 0}, {6, 1}, {1000, 1}};
    static const mb_option options[] = {MB_OPTION_DENSE_LAYERS(2, "as in the test"), {0}};
    enum { TOKENS = 200, WIDTH = 64 };
    static float a[TOKENS * WIDTH], b[TOKENS * WIDTH];
    mb_error err = {0};
    uint64_t digest[2] = {0};
    (void)state;
    opened o = open_request(&(mb_model_request){.shape = "tiny_canvas", .seed = 3, .positions = 1024}, MB_F32);
    mb_session *session = open_session(&o, 2, 256);
    if (mb_session_fill_random(session, TOKENS, 3, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(session->prefix[1], TOKENS); /* a canvas begins anywhere */
    const int32_t other[][3] = {{0, 0, 1}, {0, 0, 3}, {0, 4, 0}, {5, 5, 1}};
    for (int i = 0; i < 4; i++) { /* layer, other layer, its head; layer 5 has no window, and heads of 64 */
        const int32_t width = other[i][0] == 5 ? 64 : 32;
        const size_t n = TOKENS * (size_t)width;
        double squares = 0;
        keys_of(session, other[i][0], 0, a, n);
        keys_of(session, other[i][1], other[i][2], b, n);
        assert_true(memcmp(a, b, n * sizeof *a) != 0);
        for (size_t k = 0; k < n; k++)
            squares += (double)b[k] * (double)b[k];
        assert_true(fabs(squares / (double)n - 1) < 0.1);
    }
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    for (int i = 0; i < 2; i++) {
        mb_decode_result result = {0};
        mb_session_rotate(session, 7);
        if (mb_decode_fixed_work(session, attender, 2, 3, NULL, &result, &err) != MB_OK)
            fail_msg("%s", err.text);
        assert_true(result.work == 1.0 && result.denoise_forwards == 6 && result.commit_forwards == 2);
        digest[i] = result.digest;
        mb_decode_result_free(&result);
    }
    assert_true(digest[0] == digest[1]);
    mb_attender_close(attender);
    /* dense_layers counts the model's layers from the first on; five have a window. */
    mb_method method = dense_method;
    method.open = note_open;
    method.options = options;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_host_options values = {.dense_layers = cases[i].dense};
        attender = open_attender(session, &method, &values);
        assert_int_equal(first_layer, cases[i].first);
        mb_attender_close(attender);
    }
    mb_session_close(session);
    close_model(&o);
}

/* ---- folders ---- */

static void folders(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"use_bidirectional_attention\": null", "\"use_bidirectional_attention\": \"all\"",
         "\"all\" is not supported"},
        {"\"rope_type\": \"proportional\"", "\"rope_type\": \"yarn\"", "proportional"},
        {"\"hidden_activation\": \"gelu_pytorch_tanh\"", "\"hidden_activation\": \"silu\"", "hidden_activation"},
        {"\"text_config\"", "\"texts_config\"", "\"text_config\" is missing"},
        {"\"num_experts\": 8", "\"num_experts\": 9", "config.json makes it"},
        {"\"num_experts\": 8", "\"experts\": 8", "num_experts"},
        {"\"sliding_attention\",", "\"chunked_attention\",", "layer_types"},
        {"\"head_dim\": 32", "\"head_dim\": 48", "config.json makes it"},
        {"\"head_dim\": 32", "\"head_dims\": 32", "\"head_dims\" of layer 2"},
        {"\"canvas_length\": 16", "\"canvas_length\": 0", "canvas_length"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *folder = new_folder();
        size_t size = 0;
        char *text = NULL;
        read_text(folder, "config.json", &text, &size);
        char *at = strstr(text, cases[i].from);
        mb_error err = {0};
        mb_model *model = NULL;
        mb_device *device = NULL;
        mb_device_options options = {.type = MB_F32, .threads = 1, .arena_bytes = (size_t)1 << 26};
        mb_model_request request = {.path = folder};
        if (!at)
            fail_msg("case %zu: the fixture has no %s", i, cases[i].from);
        char *edited =
            mb_string_format("%.*s%s%s", (int)(at - text), text, cases[i].to, at + strlen(cases[i].from));
        folder_put_text(folder, "config.json", edited);
        assert_int_equal(mb_kernels_cpu()->open(&device, &options, &err), MB_OK);
        int rc = mb_model_open(&model, &request, mb_kernels_cpu(), device, MB_F32, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: rc %d, \"%s\", expected \"%s\"", i, rc, err.text, cases[i].says);
        mb_kernels_cpu()->close(device);
        folder_remove(folder);
        free(folder);
        free(edited);
        free(text);
    }
}

static void images_are_refused(void **state)
{
    (void)state;
    if (getenv("MASKBENCH_CANVAS"))
        skip();
    opened o = open_canvas(MB_BF16);
    mb_session *session = open_session(&o, 1, 64);
    mb_error err = {0};
    assert_int_equal(mb_session_prefill(session, 0, (const int32_t[]){2, 599, 3}, 3, NULL, &err), MB_E_SAMPLE);
    assert_non_null(strstr(err.text, "image"));
    mb_session_close(session);
    close_model(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_runs),          cmocka_unit_test(prompt_logits),
        cmocka_unit_test(methods_see_full_layers), cmocka_unit_test(folders),
        cmocka_unit_test(images_are_refused),      cmocka_unit_test(synthetic_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
