/*
 * test_training.c - a training as a whole, on a model of 35,952 parameters made here: the generator's
 * documents, noise and its pairs, a run that was stopped and goes on to the same bits, refusals, what is written.
 */
#include "training/facts.h"
#include "training/loop.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const int32_t lengths[] = {128, 192}, tails[] = {128, 64};

/* A small model from random weights with the tokenizer of the embedded one. */
static mb_train_request small_request(const char *out)
{
    return (mb_train_request){.model = "models/tiny",
                              .start = MB_START_DRAWN,
                              .layers = 2,
                              .hidden = 16,
                              .query_heads = 2,
                              .kv_heads = 1,
                              .head_dim = 8,
                              .intermediate = 16,
                              .seed = 4,
                              .data = "",
                              .field = "text",
                              .lengths = lengths,
                              .tails = tails,
                              .length_count = 2,
                              .tail_count = 2,
                              .tokens = 256,
                              .accumulate = 2,
                              .full_blocks = 0.4,
                              .text_weight = 0.1,
                              .padding_weight = 0.05,
                              .steps = 6,
                              .lr = 1e-2,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .eps = 1e-8,
                              .decay = 0.1,
                              .clip = 1.0,
                              .warmup = 2,
                              .k = 4,
                              .k_max = 8,
                              .dense_layers = 1,
                              .lambda = 1.0,
                              .chunk = 64,
                              .save_every = 2,
                              .output = MB_F32,
                              .out = out,
                              .identity = "the test's"};
}

typedef struct watching {
    int64_t first, stop_after, steps;
    double losses[16], causal[16], ce[16];
} watching;

static int on_start(void *self, int64_t step, mb_error *err)
{
    (void)err;
    ((watching *)self)->first = step;
    return MB_OK;
}

static int on_step(void *self, const mb_train_step *step, mb_error *err)
{
    watching *w = self;
    (void)err;
    w->losses[step->step] = step->loss;
    w->causal[step->step] = step->causal;
    w->ce[step->step] = step->ce;
    w->steps++;
    return MB_OK;
}

static bool on_stop(void *self)
{
    const watching *w = self;
    return w->stop_after > 0 && w->steps >= w->stop_after;
}

static int run(const mb_train_request *request, int threads, watching *w, mb_error *err)
{
    mb_train_plan plan;
    mb_error note;
    mb_device *device = NULL;
    const mb_kernels *kernels = NULL;
    const mb_train_watch watch = {w, on_start, on_step, on_stop};
    int rc = mb_train_plan_make(request, &plan, err);
    if (rc != MB_OK)
        return rc;
    const mb_device_options options = {.type = MB_F32, .threads = threads, .arena_bytes = plan.total};
    const char *spec = getenv("MASKBENCH_TEST_DEVICE"); /* tests/gpu.sh */
    assert_int_equal(mb_device_open(spec && *spec ? spec : "cpu", &options, &kernels, &device, &note, err), MB_OK);
    rc = mb_train_run(request, kernels, device, &watch, err);
    kernels->close(device);
    return rc;
}

static void remove_folder(const char *folder)
{
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

static char *file_hash(const char *folder, const char *name, char hex[MB_HASH_CAP])
{
    char path[256];
    mb_error err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (mb_hash_file(path, hex, &err) != MB_OK)
        fail_msg("%s", err.text);
    return hex;
}

/* ---- data ---- */

/* The value asked for stands in the text; marks are where answers and their padding are; a document is a function
 * of (seed, number). */
static void needles_can_be_answered(void **state)
{
    mb_error err = {0};
    mb_tokenizer *tokenizer;
    mb_source *source;
    (void)state;
    assert_int_equal(mb_tokenizer_open(&tokenizer, "models/tiny", &err), MB_OK);
    assert_int_equal(mb_source_needles(&source, tokenizer, &err), MB_OK);
    int found = 0, asked = 0;
    for (uint64_t number = 0; number < 24; number++) {
        const mb_document_request request = {512, number % 2 ? 512 : 256, 32, 9, number};
        mb_document d, again;
        assert_int_equal(mb_source_next(source, &request, &d, &err), MB_OK);
        assert_int_equal(mb_source_next(source, &request, &again, &err), MB_OK);
        assert_memory_equal(d.ids, again.ids, 512 * sizeof *d.ids);
        assert_memory_equal(d.marks, again.marks, 512);
        int32_t answer[64], n = 0, first = 0; /* the first answer */
        while (first < 511 && d.marks[first] != MB_MARK_ANSWER)
            first++;
        for (; first + n < 512 && n < 64 && d.marks[first + n] == MB_MARK_ANSWER; n++)
            answer[n] = d.ids[first + n];
        assert_true(n > 1 && first >= 512 - request.tail);
        char *text, *value;
        size_t length;
        assert_int_equal(mb_tokenizer_decode(tokenizer, d.ids, (size_t)first, false, &text, &length, &err), MB_OK);
        assert_int_equal(mb_tokenizer_decode(tokenizer, answer, (size_t)n - 1, false, &value, &length, &err),
                         MB_OK);
        const char *word = value + (*value == ' ');
        asked++;
        /* An answer of several values is a list; its first value stands alone. */
        char one[64];
        snprintf(one, sizeof one, "%.*s", (int)strcspn(word, ","), word);
        found += strstr(text, one) != NULL;
        free(text);
        free(value);
        mb_document_free(&d);
        mb_document_free(&again);
    }
    assert_int_equal(found, asked);
    mb_error reason = {0};
    mb_document d;
    const mb_document_request none = {32, 32, 32, 1, 1};
    assert_int_equal(mb_source_next(source, &none, &d, &reason), MB_E_INPUT);
    assert_non_null(strstr(reason.text, "32 tokens"));
    mb_source_close(source);
    mb_tokenizer_close(tokenizer);
}

static void lines_become_documents(void **state)
{
    const char path[] = "/tmp/mb-training-lines.jsonl",
               text[] = "{\"text\": \"one two\"}\n\n{\"text\": \"three\"}\n";
    mb_error err = {0};
    mb_tokenizer *tokenizer;
    mb_source *source;
    mb_document d;
    (void)state;
    assert_int_equal(mb_tokenizer_open(&tokenizer, "models/tiny", &err), MB_OK);
    assert_int_equal(mb_file_write(path, text, strlen(text), &err), MB_OK);
    assert_int_equal(mb_source_jsonl(&source, path, "text", tokenizer, 7, &err), MB_OK);
    const mb_document_request request = {64, 64, 32, 1, 3};
    assert_int_equal(mb_source_next(source, &request, &d, &err), MB_OK);
    int ends = 0;
    for (int i = 0; i < 64; i++)
        ends += d.ids[i] == 7;
    assert_true(ends > 4); /* both texts, over and over, an end behind each */
    mb_document_free(&d);
    mb_source_close(source);
    assert_int_equal(mb_source_jsonl(&source, path, "body", tokenizer, 7, &err), MB_OK);
    assert_int_equal(mb_source_next(source, &request, &d, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "\"body\""));
    mb_source_close(source);
    mb_tokenizer_close(tokenizer);
    unlink(path);
}

/* What one of a pair masks the other shows; with the shift the row in front is asked, with a short tail a clean
 * row. */
static void pairs_are_complementary(void **state)
{
    const mb_train_layout layout = {2, 32, 16, 8};
    int32_t ids[32];
    uint8_t marks[32] = {0};
    mb_error err = {0};
    mb_batch batch;
    (void)state;
    for (int i = 0; i < 32; i++)
        ids[i] = i;
    const mb_document documents[2] = {{ids, marks, 32}, {ids, marks, 32}};
    const mb_noise noise = {.text_weight = 1, .complementary = true, .token_shift = true, .mask_id = 99};
    mb_random random = mb_random_seed(5);
    assert_int_equal(mb_batch_make(&batch, &layout, documents, &noise, &random, &err), MB_OK);
    assert_int_equal(batch.targets, 16); /* each position of the tail once */
    for (int i = 0; i < 16; i++)
        assert_true((batch.ids[32 + i] == 99) != (batch.ids[48 + 32 + i] == 99));
    for (int32_t i = 0; i < batch.targets; i++) {
        const int32_t row = batch.row[i] % 48, position = row < 32 ? row : row - 32 + 16;
        assert_int_equal(batch.target[i], position + 1);
        assert_true(row >= 32 || row == 15);
    }
    mb_batch_free(&batch);
}

/* ---- a training ---- */

static void equal_for_any_threads_and_when_it_goes_on(void **state)
{
    char one[] = "/tmp/mb-train-XXXXXX", two[] = "/tmp/mb-train-XXXXXX", a[MB_HASH_CAP], b[MB_HASH_CAP];
    mb_error err = {0};
    watching whole = {0}, first = {.stop_after = 3}, rest = {0};
    (void)state;
    assert_true(mkdtemp(one) && mkdtemp(two));
    mb_train_request request = small_request(one);
    if (run(&request, 2, &whole, &err) != MB_OK)
        fail_msg("%s", err.text);
    request.out = two;
    assert_int_equal(run(&request, 1, &first, &err), MB_E_STOP);
    request.checkpointing = true; /* other memory, the same bits */
    assert_int_equal(run(&request, 1, &rest, &err), MB_OK);
    assert_int_equal(rest.first, 3);
    assert_int_equal(rest.steps, 3);
    for (int step = 1; step <= 6; step++)
        assert_true(whole.losses[step] == (step <= 3 ? first : rest).losses[step]);
    assert_string_equal(file_hash(one, "model.safetensors", a), file_hash(two, "model.safetensors", b));
    assert_string_equal(file_hash(one, "training.state", a), file_hash(two, "training.state", b));
    /* The folder is a model that this program opens. */
    mb_model_config config;
    const mb_model_request model = {.path = two};
    assert_int_equal(mb_model_inspect(&model, &config, &err), MB_OK);
    assert_int_equal(config.layers, 2);
    assert_int_equal(config.head_dim, 8);
    /* Fine-tuning begins with it; a second training does not go on from the first one's checkpoint. */
    mb_train_request tuning = small_request(one);
    tuning.model = two;
    tuning.start = MB_START_READ;
    tuning.layers = tuning.hidden = tuning.query_heads = tuning.kv_heads = tuning.head_dim = tuning.intermediate =
        0;
    tuning.recipe = MB_RECIPE_MAGE_FT;
    assert_int_equal(run(&tuning, 1, &rest, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "another training"));
    remove_folder(one);
    tuning.steps = 2;
    tuning.index_from = MB_INDEX_MASK;
    tuning.teacher = MB_TEACHER_FROZEN;
    watching tuned = {0};
    if (run(&tuning, 1, &tuned, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(tuned.steps, 2);
    remove_folder(one);
    remove_folder(two);
}

/* Hidden tokens become any others, each as likely; every token is asked, those that stayed at kept_weight. */
static void noise_is_uniform(void **state)
{
    enum { VOCAB = 50, LENGTH = 4096 };
    const mb_train_layout layout = {1, LENGTH, LENGTH, 32};
    static int32_t ids[LENGTH], seen[VOCAB];
    static uint8_t marks[LENGTH];
    mb_error err = {0};
    mb_batch batch;
    (void)state;
    for (int i = 0; i < LENGTH; i++)
        ids[i] = VOCAB; /* what no draw can be */
    const mb_document document = {ids, marks, LENGTH};
    mb_noise noise = {.full_blocks = 0.4, .text_weight = 1, .mask_id = 99, .uniform = VOCAB, .kept_weight = 0.25};
    mb_random random = mb_random_seed(5);
    assert_int_equal(mb_batch_make(&batch, &layout, &document, &noise, &random, &err), MB_OK);
    assert_int_equal(batch.targets, LENGTH);
    int replaced = 0;
    for (int i = 0; i < LENGTH; i++) {
        const int32_t id = batch.ids[LENGTH + i];
        assert_true(id >= 0 && id <= VOCAB);
        assert_true(batch.weight[i] == (id == VOCAB ? 0.25f : 1.0f));
        assert_int_equal(batch.target[i], VOCAB);
        if (id < VOCAB)
            seen[id]++;
        replaced += id < VOCAB;
    }
    assert_true(replaced > LENGTH / 2 && replaced < LENGTH * 9 / 10);
    for (int i = 0; i < VOCAB; i++) /* 57 each, deviation 7.5 */
        assert_true(seen[i] > replaced / VOCAB / 2 && seen[i] < replaced / VOCAB * 2);
    mb_batch_free(&batch);
    noise.kept_weight = 0;
    assert_int_equal(mb_batch_make(&batch, &layout, &document, &noise, &random, &err), MB_OK);
    assert_true(batch.targets < LENGTH * 9 / 10);
    mb_batch_free(&batch);
}

/* What Fast-dLLM v2 trains with, all at once, from a checkpoint: pairs, shift, the autoregressive loss beside it.
 */
static void an_autoregressive_model_becomes_one_of_blocks(void **state)
{
    char base[] = "/tmp/mb-train-XXXXXX", out[] = "/tmp/mb-train-XXXXXX";
    mb_error err = {0};
    watching first = {0}, alone = {0}, beside = {0};
    (void)state;
    assert_non_null(mkdtemp(base));
    assert_non_null(mkdtemp(out));
    mb_train_request request = small_request(base);
    request.steps = 1;
    assert_int_equal(run(&request, 1, &first, &err), MB_OK);
    request = small_request(out);
    request.model = base;
    request.start = MB_START_READ;
    request.layers = request.hidden = request.query_heads = request.kv_heads = request.head_dim =
        request.intermediate = 0;
    request.complementary = request.token_shift = true;
    request.steps = 2;
    assert_int_equal(run(&request, 1, &alone, &err), MB_OK);
    remove_folder(out);
    request.causal_weight = 0.5;
    request.block = 16;
    request.mask = 7;
    if (run(&request, 2, &beside, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(beside.steps, 2);
    assert_true(beside.causal[1] > 6 && beside.causal[1] < 9); /* ln 2048 is 7.6 */
    assert_true(alone.causal[1] == 0.0);
    assert_true(fabs(beside.losses[1] - beside.ce[1] - 0.5 * beside.causal[1]) < 1e-9);
    mb_model_config config;
    const mb_model_request model = {.path = out};
    assert_int_equal(mb_model_inspect(&model, &config, &err), MB_OK);
    assert_int_equal(config.block, 16);
    assert_int_equal(config.mask_id, 7);
    remove_folder(base);
    remove_folder(out);
}

/* A killed training of an adapter goes on to the same bits; the folder is the base plus s B A; what cannot be is
 * refused. */
static void an_adapter_is_written_and_merged(void **state)
{
    char base[] = "/tmp/mb-train-XXXXXX", one[] = "/tmp/mb-train-XXXXXX", two[] = "/tmp/mb-train-XXXXXX";
    char hash[2][MB_HASH_CAP];
    mb_error err = {0};
    watching first = {0}, whole = {0}, begun = {.stop_after = 2}, rest = {0};
    (void)state;
    assert_non_null(mkdtemp(base));
    assert_non_null(mkdtemp(one));
    assert_non_null(mkdtemp(two));
    mb_train_request request = small_request(base);
    request.steps = 1;
    assert_int_equal(run(&request, 1, &first, &err), MB_OK);
    request = small_request(one);
    request.model = base;
    request.start = MB_START_READ;
    request.layers = request.hidden = request.query_heads = request.kv_heads = request.head_dim =
        request.intermediate = 0;
    request.lora = (mb_adapter_options){2, 8.0, "q_proj o_proj gate_proj"};
    request.steps = 4;
    if (run(&request, 1, &whole, &err) != MB_OK)
        fail_msg("%s", err.text);
    request.out = two;
    assert_int_equal(run(&request, 2, &begun, &err), MB_E_STOP);
    assert_int_equal(run(&request, 1, &rest, &err), MB_OK);
    assert_int_equal(rest.first, 2);
    static const char *const files[] = {"model.safetensors", "training.state", "adapter/adapter_model.safetensors",
                                        "adapter/adapter_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        assert_string_equal(file_hash(one, files[i], hash[0]), file_hash(two, files[i], hash[1]));
    /* Of the merged folder only the adapted tensors moved. */
    mb_model_config config;
    const mb_model_request model = {.path = one};
    mb_adapter adapter;
    assert_int_equal(mb_model_inspect(&model, &config, &err), MB_OK);
    assert_int_equal(mb_adapter_open(&adapter, &config, &request.lora, &err), MB_OK);
    assert_int_equal(adapter.count, 2 * 3);
    const size_t floats = mb_parameters_count(&config, NULL);
    float *was = malloc(floats * sizeof *was), *is = malloc(floats * sizeof *is);
    assert_int_equal(mb_parameters_read(&config, base, was, &err), MB_OK);
    assert_int_equal(mb_parameters_read(&config, one, is, &err), MB_OK);
    size_t moved = 0, allowed = 0;
    for (size_t i = 0; i < floats; i++)
        moved += was[i] != is[i];
    for (size_t k = 0; k < adapter.count; k++) {
        const mb_adapter_part *part = &adapter.parts[k];
        const size_t n = (size_t)(part->rows * part->cols);
        assert_memory_not_equal(was + part->weight, is + part->weight, n * sizeof *was);
        allowed += n;
        memcpy(is + part->weight, was + part->weight, n * sizeof *was);
    }
    assert_true(moved > 0 && moved <= allowed);
    assert_memory_equal(was, is, floats * sizeof *was);
    mb_adapter_close(&adapter);
    free(was);
    free(is);
    mb_train_plan plan;
    request.lora.targets = "q_proj w_proj";
    assert_int_equal(mb_train_plan_make(&request, &plan, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "no projection \"w_proj\""));
    request.lora.targets = "";
    assert_int_equal(mb_train_plan_make(&request, &plan, &err), MB_E_INPUT);
    request = small_request(one);
    request.lora = (mb_adapter_options){2, 8.0, "q_proj"};
    assert_int_equal(mb_train_plan_make(&request, &plan, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "lora_rank"));
    remove_folder(base);
    remove_folder(one);
    remove_folder(two);
}

static void a_loss_that_is_not_finite_ends_it(void **state)
{
    char folder[] = "/tmp/mb-train-XXXXXX", path[64];
    mb_error err = {0};
    watching w = {0};
    (void)state;
    assert_non_null(mkdtemp(folder));
    mb_train_request request = small_request(folder);
    request.lr = 1e30;
    request.lr_min = 1.0;
    request.warmup = 0;
    request.clip = 0;
    request.save_every = 1;
    request.loss_limit = 1e300;
    assert_int_equal(run(&request, 1, &w, &err), MB_E_SYSTEM);
    assert_non_null(strstr(err.text, "step "));
    assert_non_null(strstr(err.text, "batch "));
    assert_non_null(strstr(err.text, "not finite"));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_false(mb_file_exists(path));
    remove_folder(folder);
}

/* A loss that explodes ends it, too, before the step is taken: what stands is the checkpoint before. */
static void a_loss_that_explodes_ends_it(void **state)
{
    char folder[] = "/tmp/mb-train-XXXXXX", path[64];
    mb_error err = {0};
    watching w = {0}, calm = {0};
    (void)state;
    assert_non_null(mkdtemp(folder));
    mb_train_request request = small_request(folder);
    request.lr = 1e3;
    request.lr_min = 1.0;
    request.warmup = 0;
    request.clip = 0;
    request.decay = 0;
    request.save_every = 1;
    assert_int_equal(run(&request, 1, &w, &err), MB_E_SYSTEM);
    assert_non_null(strstr(err.text, "step 2, batches 0 to 1 ("));
    assert_non_null(strstr(err.text, "above the limit of 76.2"));
    assert_int_equal(w.steps, 1);
    snprintf(path, sizeof path, "%s/training.state", folder);
    assert_true(mb_file_exists(path));
    remove_folder(folder);
    request = small_request(folder);
    assert_int_equal(run(&request, 1, &calm, &err), MB_OK);
    request.loss_limit = calm.losses[1] - 1e-3;
    remove_folder(folder);
    assert_int_equal(run(&request, 1, &w, &err), MB_E_SYSTEM);
    assert_non_null(strstr(err.text, "step 1, "));
    remove_folder(folder);
}

/* A checkpoint that cannot be written is an error, and the one before it is gone on from. */
static void a_failed_write_keeps_the_former(void **state)
{
    char folder[] = "/tmp/mb-train-XXXXXX", path[64];
    mb_error err = {0};
    watching first = {.stop_after = 1}, broken = {0}, rest = {0};
    (void)state;
    assert_non_null(mkdtemp(folder));
    const mb_train_request request = small_request(folder);
    assert_int_equal(run(&request, 1, &first, &err), MB_E_STOP);
    snprintf(path, sizeof path, "%s/training.state.new", folder);
    assert_int_equal(mb_folder_make(path, &err), MB_OK); /* where the next one would be written */
    assert_int_equal(run(&request, 1, &broken, &err), MB_E_SYSTEM);
    assert_non_null(strstr(err.text, "cannot write the checkpoint"));
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(run(&request, 1, &rest, &err), MB_OK);
    assert_int_equal(rest.first, 1);
    assert_int_equal(rest.steps, 5);
    remove_folder(folder);
}

/* A damaged checkpoint is said to be one, and is not trained on. */
static void a_damaged_checkpoint_is_refused(void **state)
{
    char folder[] = "/tmp/mb-train-XXXXXX", path[64];
    mb_error err = {0};
    watching w = {.stop_after = 1};
    (void)state;
    assert_non_null(mkdtemp(folder));
    const mb_train_request request = small_request(folder);
    assert_int_equal(run(&request, 1, &w, &err), MB_E_STOP);
    snprintf(path, sizeof path, "%s/training.state", folder);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, 4096, SEEK_SET);
    fputc(255, file);
    fclose(file);
    assert_int_equal(run(&request, 1, &w, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "damaged"));
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(run(&request, 1, &w, &err), MB_E_INPUT);
    remove_folder(folder);
}

static void refuses_what_cannot_be(void **state)
{
    static const int32_t odd[] = {100};
    mb_error err = {0};
    mb_train_plan plan;
    (void)state;
    mb_train_request request = small_request("/tmp/none");
    request.lengths = odd;
    request.tail_count = 0;
    request.length_count = 1;
    assert_int_equal(mb_train_plan_make(&request, &plan, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "multiples of the block"));
    request = small_request("/tmp/none");
    request.start = MB_START_READ;
    assert_int_equal(mb_train_plan_make(&request, &plan, &err), MB_E_INPUT);
    request = small_request("/tmp/none");
    request.recipe = MB_RECIPE_MAGE_FT;
    assert_int_equal(mb_train_plan_make(&request, &plan, &err), MB_E_INPUT);
    request = small_request("/tmp/none");
    assert_int_equal(mb_train_plan_make(&request, &plan, &err), MB_OK);
    assert_true(plan.total > plan.weights && plan.index == 0);
    assert_true(mb_train_lr_at(&request, 1) < request.lr && mb_train_lr_at(&request, 2) > 0.9 * request.lr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(needles_can_be_answered),
        cmocka_unit_test(lines_become_documents),
        cmocka_unit_test(pairs_are_complementary),
        cmocka_unit_test(noise_is_uniform),
        cmocka_unit_test(an_autoregressive_model_becomes_one_of_blocks),
        cmocka_unit_test(an_adapter_is_written_and_merged),
        cmocka_unit_test(equal_for_any_threads_and_when_it_goes_on),
        cmocka_unit_test(a_loss_that_is_not_finite_ends_it),
        cmocka_unit_test(a_loss_that_explodes_ends_it),
        cmocka_unit_test(a_failed_write_keeps_the_former),
        cmocka_unit_test(a_damaged_checkpoint_is_refused),
        cmocka_unit_test(refuses_what_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
