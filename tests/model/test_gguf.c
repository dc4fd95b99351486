/*
 * test_gguf.c - GGUF files: numbers of every type, whole models of the three architectures, their tokenizer and
 * chat template, and files that must be refused.
 *
 * What is expected was computed by the packages gguf and transformers from the same files
 * (tests/model/fixtures/gguf/make_gguf.py), and by tokenizers with the pre-tokenizer that the model's own
 * tokenizer.json has (digits one by one, then ByteLevel with GPT-2's pattern).
 */
#include "tests/model/engine_fixture.h"

#include "model/checkpoint/gguf.h"
#include "model/checkpoint/source.h"

#define GGUF_FILES "tests/model/fixtures/gguf/"
#define CORPUS "tests/fuzz/corpus/gguf/"
#define VOCAB 300

static char *read_all(const char *path, size_t *size)
{
    char *data = NULL;
    mb_error err = {0};
    if (mb_file_read(path, 1 << 20, &data, size, &err) != MB_OK)
        fail_msg("%s", err.text);
    return data;
}

/* Bit for bit, read at once and in pieces that begin and end inside of blocks. */
static void every_type(void **state)
{
    static const char *const names[] = {"F32",  "F16",  "BF16", "Q4_0", "Q4_1", "Q5_0",
                                        "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"};
    size_t size = 0, wanted_size = 0;
    char *file = read_all(GGUF_FILES "types.gguf", &size),
         *wanted = read_all(GGUF_FILES "types.f32", &wanted_size);
    mb_gguf gguf;
    mb_error err = {0};
    (void)state;
    if (mb_gguf_parse(&gguf, (const unsigned char *)file, size, "types.gguf", &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(gguf.tensor_count, 11);
    assert_int_equal(wanted_size, 11 * 512 * sizeof(float));
    for (size_t i = 0; i < 11; i++) {
        const mb_tensor *tensor = NULL;
        float values[512];
        for (size_t k = 0; k < gguf.tensor_count; k++)
            if (strcmp(gguf.tensors[k].dtype, names[i]) == 0)
                tensor = &gguf.tensors[k];
        assert_non_null(tensor);
        assert_true(tensor->rank == 2 && tensor->shape[0] == 2 && tensor->shape[1] == 256);
        mb_tensor_read(tensor, 0, 512, values, MB_F32);
        if (memcmp(values, wanted + i * sizeof values, sizeof values) != 0)
            fail_msg("type %s", names[i]);
        memset(values, 0, sizeof values);
        for (size_t at = 0, step = 7; at < 512; at += step, step = step % 90 + 13)
            mb_tensor_read(tensor, at, 512 - at < step ? 512 - at : step, values + at, MB_F32);
        if (memcmp(values, wanted + i * sizeof values, sizeof values) != 0)
            fail_msg("type %s in pieces", names[i]);
    }
    mb_gguf_free(&gguf);
    free(file);
    free(wanted);
}

static opened open_gguf(const char *path, int32_t block, mb_type type)
{
    opened o = {.kernels = mb_kernels_cpu()};
    mb_error err = {0};
    mb_device_options options = {.type = type, .threads = 1, .arena_bytes = (size_t)16 << 20};
    mb_model_request request = {.path = path, .block = block, .mask = VOCAB - 1};
    if (o.kernels->open(&o.device, &options, &err) != MB_OK ||
        mb_model_open(&o.model, &request, o.kernels, o.device, type, &err) != MB_OK)
        fail_msg("%s", err.text);
    return o;
}

static void logits_of_transformers(void **state)
{
    static const char *const names[] = {"llama", "qwen2", "qwen3"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char path[128], reference[128];
        size_t size = 0;
        int32_t ids[12];
        float *logits = NULL, largest = 0, worst = 0;
        mb_error err = {0};
        snprintf(path, sizeof path, GGUF_FILES "%s.gguf", names[i]);
        snprintf(reference, sizeof reference, GGUF_FILES "%s.f32", names[i]);
        float *wanted = (float *)(void *)read_all(reference, &size);
        assert_int_equal(size, 12 * VOCAB * sizeof(float));
        for (int k = 0; k < 12; k++)
            ids[k] = 3 * k % VOCAB;
        opened o = open_gguf(path, 1, MB_F32);
        const mb_model_config *config = mb_model_config_of(o.model);
        assert_string_equal(config->name, names[i]);
        assert_true(config->qkv_bias == (i == 1) && config->qk_norm == (i == 2) && config->tied == (i != 1));
        assert_true(config->norm_eps == 1e-5 && config->rope_theta == 50000 && config->positions == 512);
        if (mb_model_logits(o.model, ids, 12, &logits, &err) != MB_OK)
            fail_msg("%s", err.text);
        for (size_t k = 0; k < (size_t)12 * VOCAB; k++) {
            largest = fmaxf(largest, fabsf(wanted[k]));
            worst = fmaxf(worst, fabsf(wanted[k] - logits[k]));
        }
        printf("%s: logits within %.2g of %.3g\n", names[i], (double)worst, (double)largest);
        assert_true(largest > 0.5f && worst <= 1e-5f * largest);
        free(logits);
        free(wanted);
        close_model(&o);
    }
}

static void tokens_and_template(void **state)
{
    /* The second text has a byte without a token, which the reference leaves out. */
    static const struct {
        const char *text;
        int32_t ids[16];
        size_t n;
    } cases[] = {
        {"<|user|> the<extra>  3on", {262, 255, 263, 258, 50, 260}, 6},
        {"the  12 in\x04"
         "er  ",
         {115, 254, 258, 48, 49, 31, 256, 259, 258},
         9},
    };
    opened o = open_gguf(GGUF_FILES "llama.gguf", 4, MB_F32);
    mb_error err = {0};
    int32_t *ids = NULL;
    size_t n = 0, length = 0;
    char *text = NULL;
    bool truncated;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(mb_tokenizer_encode(mb_model_tokenizer(o.model), cases[i].text, strlen(cases[i].text),
                                             true, &ids, &n, &err),
                         MB_OK);
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(ids, cases[i].ids, n * sizeof *ids);
        free(ids);
    }
    const mb_prompt_request request = {.text = "the 1", .chat = true};
    if (mb_prompt_build(o.model, &request, &ids, &n, &truncated, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(mb_tokenizer_decode(mb_model_tokenizer(o.model), ids, n, false, &text, &length, &err), MB_OK);
    assert_string_equal(text, "<|user|>the 1<|end|>");
    assert_int_equal(ids[0], 262); /* as one token */
    assert_int_equal(mb_model_config_of(o.model)->stop_ids[0], 261);
    free(text);
    free(ids);
    close_model(&o);
}

/* The folder has the same numbers and tokens, byte for byte the same ones each time. */
static void unpacked(void **state)
{
    static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                        "model.safetensors"};
    const int32_t ids[5] = {1, 262, 30, 299, 7};
    char *folders[2] = {folder_new(), folder_new()};
    float *logits[2] = {NULL, NULL};
    mb_error err = {0};
    (void)state;
    for (int i = 0; i < 2; i++)
        if (mb_model_unpack(GGUF_FILES "llama.gguf", folders[i], MB_F32, &err) != MB_OK)
            fail_msg("%s", err.text);
    for (size_t i = 0; i < 4; i++) {
        char *path[2], hash[2][MB_HASH_CAP];
        for (int k = 0; k < 2; k++) {
            path[k] = mb_string_format("%s/%s", folders[k], names[i]);
            assert_int_equal(mb_hash_file(path[k], hash[k], &err), MB_OK);
            free(path[k]);
        }
        assert_string_equal(hash[0], hash[1]);
    }
    opened file = open_gguf(GGUF_FILES "llama.gguf", 4, MB_F32), folder = open_gguf(folders[0], 4, MB_F32);
    assert_int_equal(mb_model_logits(file.model, ids, 5, &logits[0], &err), MB_OK);
    assert_int_equal(mb_model_logits(folder.model, ids, 5, &logits[1], &err), MB_OK);
    assert_memory_equal(logits[0], logits[1], 5 * VOCAB * sizeof(float));
    close_model(&folder);
    close_model(&file);
    assert_int_equal(mb_model_unpack(folders[0], folders[1], MB_F32, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "is no file"));
    assert_int_not_equal(mb_model_unpack(GGUF_FILES "llama.gguf", "/dev/null/x", MB_F32, &err), MB_OK);
    for (int i = 0; i < 2; i++) {
        free(logits[i]);
        folder_remove(folders[i]);
        free(folders[i]);
    }
}

/* A causal model needs a mask and a block to be decoded in blocks: never a silent default. */
static void block_and_mask_are_asked_for(void **state)
{
    const mb_model_request request = {.path = GGUF_FILES "qwen3.gguf"};
    mb_model_config config;
    mb_error err = {0};
    (void)state;
    assert_int_equal(mb_model_inspect(&request, &config, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "\"model\": {\"mask\": ID, \"block\": N}"));
}

static void refuse(const char *name, const unsigned char *data, size_t size, const char *says)
{
    char *folder = folder_new(), *path = mb_string_format("%s/x.gguf", folder);
    const mb_model_request request = {.path = path, .block = 1, .mask = 1};
    mb_model_config config;
    mb_error err = {0};
    folder_put(folder, "x.gguf", data, size);
    int rc = mb_model_inspect(&request, &config, &err);
    if (rc != MB_E_INPUT || !strstr(err.text, says) || !strstr(err.text, "x.gguf"))
        fail_msg("%s: %d \"%s\", not \"%s\"", name, rc, err.text, says);
    folder_remove(folder);
    free(folder);
    free(path);
}

static void hostile_files(void **state)
{
    static const char *const cases[][2] = {
        {"empty", "no GGUF file"},
        {"magic", "its version passes its end"},
        {"cut_keys", "passes its end"},
        {"cut_tensors", "passes its end"},
        {"cut_data", "blk.0.attn_q.weight passes its end"},
        {"many_tensors", "the list of tensors passes its end"},
        {"many_keys", "the metadata passes its end"},
        {"long_text", "a key of the metadata passes its end"},
        {"long_array", "the value of x passes its end"},
        {"wide", "a dimension of 4294967296 is impossible"},
        {"far", "t passes its end"},
        {"overlap", "tensors t and u overlap"},
        {"old", "GGUF version 1 is not read"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[128];
        size_t size = 0;
        snprintf(path, sizeof path, CORPUS "%s", cases[i][0]);
        char *data = read_all(path, &size);
        refuse(cases[i][0], (const unsigned char *)data, size, cases[i][1]);
        free(data);
    }
}

/* One byte pattern of a good file replaced by another of the same length. */
static void changed_files(void **state)
{
    static const struct {
        const char *from, *to, *says;
        size_t n;
    } cases[] = {
        {"GGUF\3\0\0\0", "GGUF\0\0\0\3", "big-endian", 8},
        {"architecture\10\0\0\0\5\0\0\0\0\0\0\0llama", "architecture\10\0\0\0\5\0\0\0\0\0\0\0lamma",
         "architecture \"lamma\" are not read, only of llama, qwen2, qwen3", 29},
        {"llama.block_count", "llama.block_kount", "llama.block_kount is not known here", 17},
        {"token_embd.weight", "token_emdb.weight", "token_embd.weight is missing", 17},
        {"attn_output", "attn_outpux", NULL, 11}, /* told by its name when the weights are read */
        {"llama.context_length", "general.ontext_lengt", "llama.context_length is missing", 20},
        {"head_count\4", "head_count\6", "one whole number", 11},
        {"general.name", "general.type", NULL, 12},
    };
    size_t size = 0;
    char *file = read_all(GGUF_FILES "llama.gguf", &size);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *at = memmem(file, size, cases[i].from, cases[i].n);
        if (!at)
            fail_msg("%s is not in the file", cases[i].from);
        memcpy(at, cases[i].to, cases[i].n);
        if (cases[i].says)
            refuse(cases[i].to, (const unsigned char *)file, size, cases[i].says);
        memcpy(at, cases[i].from, cases[i].n);
    }
    free(file);
}

/* What the texts say is asked of the file's tokenizer when it is opened. */
static void tokenizers_that_are_refused(void **state)
{
    static const struct {
        const char *from, *to, *says;
        size_t n;
    } cases[] = {
        {"\4\0\0\0\0\0\0\0gpt2", "\4\0\0\0\0\0\0\0bert", "tokenizers of the kind \"bert\" are not read", 12},
        {"smollm", "smolln", "pre-tokenizer \"smolln\" (tokenizer.ggml.pre) is not known: known are gpt-2, smollm",
         6},
        {"add_bos_token\7\0\0\0\0", "add_bos_token\7\0\0\0\1", "adds a token to every text", 18},
        {"tokenizer.ggml.merges", "tokenizer.ggml.herges", "tokenizer.ggml.merges is missing", 21},
    };
    size_t size = 0;
    char *file = read_all(GGUF_FILES "llama.gguf", &size);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *folder = folder_new(), *path = mb_string_format("%s/x.gguf", folder);
        char *at = memmem(file, size, cases[i].from, cases[i].n);
        mb_tokenizer *tokenizer = NULL;
        mb_error err = {0};
        assert_non_null(at);
        memcpy(at, cases[i].to, cases[i].n);
        folder_put(folder, "x.gguf", file, size);
        int rc = mb_tokenizer_open(&tokenizer, path, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].says))
            fail_msg("%d \"%s\", not \"%s\"", rc, err.text, cases[i].says);
        memcpy(at, cases[i].from, cases[i].n);
        folder_remove(folder);
        free(folder);
        free(path);
    }
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type),
        cmocka_unit_test(logits_of_transformers),
        cmocka_unit_test(tokens_and_template),
        cmocka_unit_test(unpacked),
        cmocka_unit_test(block_and_mask_are_asked_for),
        cmocka_unit_test(hostile_files),
        cmocka_unit_test(changed_files),
        cmocka_unit_test(tokenizers_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
