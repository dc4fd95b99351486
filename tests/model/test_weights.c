/*
 * test_weights.c - what lies on the device after mb_model_open(): bit for bit the checkpoint's numbers in our
 * order, conversions between types, the RoPE table, random weights, and folders whose files do not fit together.
 *
 * The CRC-32 and RoPE constants were computed once with Python from the same files, independently of this program:
 * safetensors.safe_open(), torch.cat() of q|k|v and gate|up, Tensor.float(), zlib.crc32() over the bytes in the
 * order of walk() below; numpy's and torch's casts for the conversions; Hugging Face's rotary formula in torch
 * fp32 for the table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/checkpoint/convert.h"
#include "model/internal.h"
#include "tests/model/folder.h"

#include <math.h>

static uint32_t crc32_of(const void *data, size_t n, uint32_t crc)
{
    static uint32_t table[256];
    const unsigned char *p = data;
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    crc = ~crc;
    while (n--)
        crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
    return ~crc;
}

static mb_device *open_cpu(mb_type type)
{
    mb_device_options options = {.type = type, .threads = 2, .arena_bytes = (size_t)1 << 30};
    mb_device *device = NULL;
    mb_error err = {0};
    if (mb_kernels_cpu()->open(&device, &options, &err) != MB_OK)
        fail_msg("%s", err.text);
    return device;
}

/* CRC of n elements on the device, continued from `crc`. */
static uint32_t device_crc(const mb_model *model, const void *tensor, int64_t n, uint32_t crc)
{
    size_t bytes = (size_t)n * mb_type_size(model->type);
    void *host = malloc(bytes);
    assert_non_null(host);
    assert_non_null(tensor);
    assert_int_equal(model->kernels->download(model->device, host, tensor, bytes), 0);
    crc = crc32_of(host, bytes, crc);
    free(host);
    return crc;
}

static uint32_t walk(const mb_model *model)
{
    const mb_model_config *c = &model->config;
    int64_t hidden = c->hidden, q = (int64_t)c->query_heads * c->head_dim;
    int64_t rows = q + 2 * (int64_t)c->kv_heads * c->head_dim, inner = c->intermediate;
    uint32_t crc = device_crc(model, model->embed, c->vocab * hidden, 0);
    crc = device_crc(model, model->final_norm, hidden, crc);
    for (int32_t l = 0; l < c->layers; l++) {
        const struct mb_layer *layer = &model->layers[l];
        crc = device_crc(model, layer->input_norm, hidden, crc);
        crc = device_crc(model, layer->qkv, rows * hidden, crc);
        if (layer->qkv_bias)
            crc = device_crc(model, layer->qkv_bias, rows, crc);
        if (layer->q_norm) {
            crc = device_crc(model, layer->q_norm, c->head_dim, crc);
            crc = device_crc(model, layer->k_norm, c->head_dim, crc);
        }
        crc = device_crc(model, layer->o, hidden * q, crc);
        crc = device_crc(model, layer->post_norm, hidden, crc);
        crc = device_crc(model, layer->gate_up, 2 * inner * hidden, crc);
        crc = device_crc(model, layer->down, hidden * inner, crc);
    }
    return crc;
}

static mb_model *open_model(const mb_model_request *request, mb_device *device, mb_type type)
{
    mb_model *model = NULL;
    mb_error err = {0};
    if (mb_model_open(&model, request, mb_kernels_cpu(), device, type, &err) != MB_OK)
        fail_msg("%s", err.text);
    return model;
}

static void tiny_weights(void **state)
{
    (void)state;
    static const struct {
        mb_type type;
        uint32_t all, qkv0, gate_up5;
    } cases[] = {{MB_BF16, 0x2201d5f6, 0x272df3ea, 0x35d8501b}, {MB_F32, 0xa8f57664, 0xc7f0e955, 0xefe210be}};
    for (size_t i = 0; i < 2; i++) {
        mb_device *device = open_cpu(cases[i].type);
        size_t before = mb_kernels_cpu()->mark(device);
        mb_model_request request = {.path = "models/tiny"};
        mb_model *model = open_model(&request, device, cases[i].type);
        size_t used = mb_kernels_cpu()->mark(device) - before;
        assert_int_equal(used, mb_model_weight_bytes(&model->config, cases[i].type));
        assert_int_equal(walk(model), cases[i].all);
        assert_int_equal(device_crc(model, model->layers[0].qkv, 768 * 256, 0), cases[i].qkv0);
        assert_int_equal(device_crc(model, model->layers[5].gate_up, 2 * 768 * 256, 0), cases[i].gate_up5);
        assert_ptr_equal(model->lm_head, model->embed);
        assert_null(model->layers[0].qkv_bias);
        assert_non_null(mb_model_tokenizer(model));
        mb_model_close(model);
        assert_int_equal(mb_kernels_cpu()->mark(device), before);
        mb_kernels_cpu()->close(device);
    }
}

static void hashes(void **state)
{
    (void)state;
    mb_device *device = open_cpu(MB_BF16);
    mb_model_request request = {.path = "models/tiny"};
    mb_model *model = open_model(&request, device, MB_BF16);
    char config[MB_HASH_CAP], weights[MB_HASH_CAP], tokenizer[MB_HASH_CAP], file[MB_HASH_CAP];
    mb_error err = {0};
    mb_model_hashes(model, config, weights, tokenizer);
    assert_int_equal(mb_hash_file("models/tiny/config.json", file, &err), MB_OK);
    assert_string_equal(config, file);
    assert_int_equal(mb_hash_file("models/tiny/model.safetensors", file, &err), MB_OK);
    assert_string_equal(weights, file);
    assert_int_equal(mb_hash_file("models/tiny/tokenizer.json", file, &err), MB_OK);
    assert_string_equal(tokenizer, file);
    mb_model_close(model);
    mb_kernels_cpu()->close(device);
}

static void conversions(void **state)
{
    (void)state;
    enum { N = 1000000 };
    uint32_t *bits = malloc(N * sizeof *bits), *wide = malloc(65536 * sizeof *wide);
    uint16_t *half = malloc(N * sizeof *half);
    size_t n = 0;
    for (uint32_t h = 0; h < 65536; h++)
        if ((h & 0x7c00) != 0x7c00)
            half[n++] = (uint16_t)h;
    mb_type_convert(wide, MB_F32, half, MB_F16, n);
    assert_int_equal(crc32_of(wide, n * 4, 0), 0x896e3e93);
    for (uint64_t i = 0; i < N; i++) {
        bits[i] = (uint32_t)(i * 2654435761u + 12345);
        if ((bits[i] & 0x7f800000) == 0x7f800000)
            bits[i] = 0;
    }
    mb_type_convert(half, MB_F16, bits, MB_F32, N);
    assert_int_equal(crc32_of(half, N * 2, 0), 0xb706feca);
    mb_type_convert(half, MB_BF16, bits, MB_F32, N);
    assert_int_equal(crc32_of(half, N * 2, 0), 0xba86ca9d);
    for (uint64_t i = 0; i < N; i++) /* the range around f16's subnormals, normals and overflow */
        bits[i] = 0x33000000u + (uint32_t)(i * 1234567 % 0x15000000u);
    mb_type_convert(half, MB_F16, bits, MB_F32, N);
    assert_int_equal(crc32_of(half, N * 2, 0), 0x3cedee9a);
    assert_true(isnan(mb_type_round(NAN, MB_BF16)) && isnan(mb_type_round(NAN, MB_F16)));
    assert_true(isinf(mb_type_round(INFINITY, MB_BF16)) && isinf(mb_type_round(-INFINITY, MB_F16)));
    assert_true(isinf(mb_type_round(65520.0f, MB_F16)) && mb_type_round(65519.0f, MB_F16) == 65504.0f);
    assert_true(mb_type_round(1.00390625f, MB_BF16) == 1.0f); /* half way: to even */
    assert_true(mb_type_round(1.01171875f, MB_BF16) == 1.015625f);
    free(bits);
    free(wide);
    free(half);
}

static void rope_table(void **state)
{
    (void)state;
    static const struct {
        int position, pair;
        float cosine, sine;
    } spots[] = {
        {1, 0, 0.540302336f, 0.841470957f},       {1, 1, 0.796457887f, 0.604694009f},
        {5, 3, 0.200223893f, 0.979750156f},       {31, 10, 0.915763617f, 0.401717573f},
        {1000, 7, 0.00206832355f, -0.999997854f}, {32767, 0, 0.982263327f, 0.187506557f},
        {32767, 1, -0.960495293f, -0.278296173f}, {32767, 31, 0.998727202f, 0.0504373647f},
        {12345, 16, 0.975597501f, -0.219566733f},
    };
    for (int bf16 = 0; bf16 < 2; bf16++) {
        mb_type type = bf16 ? MB_BF16 : MB_F32;
        mb_device *device = open_cpu(type);
        mb_model_request request = {.path = "models/tiny"};
        mb_model *model = open_model(&request, device, type);
        size_t n = (size_t)32768 * 64;
        float *table = malloc(n * sizeof *table);
        assert_int_equal(mb_kernels_cpu()->download(device, table, model->cos_sin, n * sizeof *table), 0);
        for (size_t i = 0; i < sizeof spots / sizeof spots[0]; i++) {
            const float *row = table + 64 * spots[i].position;
            /* 2e-7: the last bit of cosine and sine may differ between mathematical libraries */
            float tolerance = bf16 ? 0.0f : 2e-7f;
            assert_true(fabsf(row[spots[i].pair] - mb_type_round(spots[i].cosine, type)) <= tolerance);
            assert_true(fabsf(row[32 + spots[i].pair] - mb_type_round(spots[i].sine, type)) <= tolerance);
        }
        for (size_t i = 0; i < n; i++)
            assert_true(table[i] == mb_type_round(table[i], type) && fabsf(table[i]) <= 1.0f);
        for (size_t j = 0; j < 32; j++)
            assert_true(table[j] == 1.0f && table[32 + j] == 0.0f);
        free(table);
        mb_model_close(model);
        mb_kernels_cpu()->close(device);
    }
}

/* ---- random weights ---- */

static void moments(const mb_model *model, const void *tensor, int64_t n, double *mean, double *deviation)
{
    float *host = malloc((size_t)n * sizeof *host);
    double sum = 0, squares = 0;
    assert_int_equal(model->type, MB_F32);
    assert_int_equal(model->kernels->download(model->device, host, tensor, (size_t)n * 4), 0);
    for (int64_t i = 0; i < n; i++) {
        sum += host[i];
        squares += (double)host[i] * host[i];
    }
    *mean = sum / (double)n;
    *deviation = sqrt(squares / (double)n - *mean * *mean);
    free(host);
}

static void random_weights(void **state)
{
    (void)state;
    mb_device *device = open_cpu(MB_F32);
    mb_model_request request = {.shape = "tiny", .seed = 7};
    mb_model *model = open_model(&request, device, MB_F32);
    uint32_t crc = walk(model);
    double mean, deviation;
    assert_null(mb_model_tokenizer(model));
    assert_true(mb_model_config_of(model)->synthetic);
    moments(model, model->layers[3].gate_up, 2 * 768 * 256, &mean, &deviation);
    assert_true(fabs(mean) < 1e-3 && fabs(deviation - 1.0 / 16) < 1e-3);
    moments(model, model->layers[3].down, 768 * 256, &mean, &deviation);
    assert_true(fabs(mean) < 1e-3 && fabs(deviation - 1.0 / sqrt(768.0 * 12)) < 1e-3);
    moments(model, model->layers[0].q_norm, 64, &mean, &deviation);
    assert_true(mean == 1.0 && deviation == 0.0);
    assert_int_not_equal(device_crc(model, model->layers[0].o, 256 * 512, 0),
                         device_crc(model, model->layers[1].o, 256 * 512, 0));
    char a[3][MB_HASH_CAP], b[3][MB_HASH_CAP];
    mb_model_hashes(model, a[0], a[1], a[2]);
    mb_model_close(model);
    model = open_model(&request, device, MB_F32);
    assert_int_equal(walk(model), crc);
    mb_model_close(model);
    request.seed = 8;
    model = open_model(&request, device, MB_F32);
    assert_int_not_equal(walk(model), crc);
    mb_model_hashes(model, b[0], b[1], b[2]);
    assert_string_equal(a[0], b[0]);
    assert_string_not_equal(a[1], b[1]);
    mb_model_close(model);
    mb_kernels_cpu()->close(device);
}

/* Logits of a synthetic model are finite and of ordinary size: its latency is that of ordinary numbers. */
static void random_activations_stay_finite(void **state)
{
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        mb_device *device = open_cpu(bf16 ? MB_BF16 : MB_F32);
        mb_model_request request = {.shape = "tiny", .seed = 1};
        mb_model *model = open_model(&request, device, bf16 ? MB_BF16 : MB_F32);
        int32_t ids[48];
        float *logits = NULL;
        double squares = 0;
        mb_error err = {0};
        for (int i = 0; i < 48; i++)
            ids[i] = i * 41 % 2048;
        if (mb_model_logits(model, ids, 48, &logits, &err) != MB_OK)
            fail_msg("%s", err.text);
        for (size_t i = 0; i < (size_t)48 * 2048; i++) {
            assert_true(isfinite(logits[i]));
            squares += (double)logits[i] * logits[i];
        }
        squares = sqrt(squares / (48.0 * 2048));
        assert_true(squares > 0.05 && squares < 20);
        free(logits);
        mb_model_close(model);
        mb_kernels_cpu()->close(device);
    }
}

/* ---- a small checkpoint with biases and its own head, in shards of f32 and f16 ---- */

struct builder {
    mb_text header, data, map;
    uint64_t total;
};

/* Values -0.5 .. 0.5 in steps of 1/1024, exact in f32 and f16: element i of tensor `salt` is known. */
static float value_of(uint32_t salt, uint32_t i)
{
    return (float)((salt * 37 + i * 11) % 1025) / 1024.0f - 0.5f;
}

static void add(struct builder *b, const char *name, uint32_t salt, int rows, int cols, mb_type type,
                const char *file)
{
    size_t n = (size_t)rows * (size_t)(cols ? cols : 1), begin = b->data.length;
    for (uint32_t i = 0; i < n; i++) {
        float value = value_of(salt, i);
        unsigned char bytes[4];
        mb_type_convert(bytes, type, &value, MB_F32, 1);
        mb_text_append(&b->data, (const char *)bytes, mb_type_size(type));
    }
    mb_text_printf(&b->header, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%d", b->header.length ? ',' : '{', name,
                   type == MB_F32 ? "F32" : "F16", rows);
    if (cols)
        mb_text_printf(&b->header, ",%d", cols);
    mb_text_printf(&b->header, "],\"data_offsets\":[%zu,%zu]}", begin, b->data.length);
    mb_text_printf(&b->map, "%s\"%s\":\"%s\"", b->map.length ? "," : "", name, file);
    b->total += b->data.length - begin;
}

static void finish_shard(struct builder *b, const char *folder, const char *file)
{
    mb_text bytes = {0};
    mb_text_puts(&b->header, "}");
    for (int i = 0; i < 8; i++) {
        char byte = (char)(b->header.length >> (8 * i));
        mb_text_append(&bytes, &byte, 1);
    }
    mb_text_append(&bytes, b->header.data, b->header.length);
    mb_text_append(&bytes, b->data.data, b->data.length);
    folder_put(folder, file, bytes.data, bytes.length);
    mb_text_free(&bytes);
    mb_text_clear(&b->header);
    mb_text_clear(&b->data);
}

#define SMALL_CONFIG(extra)                                                                                       \
    "{\"model_type\":\"Fast_dLLM_Qwen\",\"num_hidden_layers\":1,\"hidden_size\":8,"                               \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":6,\"vocab_size\":700,"             \
    "\"rope_theta\":10000,\"bd_size\":16,\"max_position_embeddings\":64,\"mask_token_id\":662,\"eos_token_id\":"  \
    "658" extra "}"

/* With q_rows other than 8 or without a head the checkpoint is wrong on purpose. */
enum head { HEAD, NO_HEAD, HEAD_LISTED_ONLY, HEAD_OF_EMBEDDING };
static char *small_checkpoint(int q_rows, enum head head, const char *extra_tensor)
{
    char *folder = folder_new();
    struct builder b = {0};
    const char *one = "model-1.safetensors", *two = "model-2.safetensors";
#define LAYER "model.layers.0."
    add(&b, "model.embed_tokens.weight", 1, 700, 8, MB_F16, one);
    add(&b, LAYER "self_attn.v_proj.weight", 4, 4, 8, MB_F32, one);
    add(&b, LAYER "self_attn.q_proj.weight", 2, q_rows, 8, MB_F16, one);
    finish_shard(&b, folder, one);
    add(&b, LAYER "self_attn.k_proj.weight", 3, 4, 8, MB_F32, two);
    add(&b, LAYER "self_attn.q_proj.bias", 5, 8, 0, MB_F32, two);
    add(&b, LAYER "self_attn.k_proj.bias", 6, 4, 0, MB_F32, two);
    add(&b, LAYER "self_attn.v_proj.bias", 7, 4, 0, MB_F16, two);
    add(&b, LAYER "self_attn.o_proj.weight", 8, 8, 8, MB_F32, two);
    add(&b, LAYER "self_attn.rotary_emb.inv_freq", 8, 1, 0, MB_F32, two);
    add(&b, LAYER "input_layernorm.weight", 9, 8, 0, MB_F32, two);
    add(&b, LAYER "post_attention_layernorm.weight", 10, 8, 0, MB_F32, two);
    add(&b, LAYER "mlp.gate_proj.weight", 11, 6, 8, MB_F32, two);
    add(&b, LAYER "mlp.up_proj.weight", 12, 6, 8, MB_F32, two);
    add(&b, LAYER "mlp.down_proj.weight", 13, 8, 6, MB_F32, two);
    add(&b, "model.norm.weight", 14, 8, 0, MB_F32, two);
    if (head == HEAD || head == HEAD_OF_EMBEDDING) /* of another type than the embedding, with the same values */
        add(&b, "lm_head.weight", head == HEAD ? 15 : 1, 700, 8, head == HEAD ? MB_F16 : MB_F32, two);
    if (extra_tensor)
        add(&b, extra_tensor, 16, 8, 0, MB_F32, two);
    finish_shard(&b, folder, two);
    /* total_size as some writers count it: no sum of anything here. */
    char *index = mb_string_format("{\"metadata\":{\"total_size\":%llu},\"weight_map\":{%s%s}}",
                                   (unsigned long long)b.total + 1234, b.map.data,
                                   head == HEAD_LISTED_ONLY ? ",\"lm_head.weight\":\"model-2.safetensors\"" : "");
    folder_put_text(folder, "model.safetensors.index.json", index);
    folder_put_text(folder, "config.json", SMALL_CONFIG(""));
    folder_copy(folder, "tokenizer.json", "tests/model/fixtures/bpe/tokenizer.json");
    free(index);
    mb_text_free(&b.header);
    mb_text_free(&b.data);
    mb_text_free(&b.map);
    return folder;
}

static void check_values(const mb_model *model, const void *tensor, uint32_t first, uint32_t salt, uint32_t n)
{
    float host[8192];
    assert_true(n <= 8192);
    const float *from = (const float *)tensor + first;
    assert_int_equal(model->kernels->download(model->device, host, from, n * sizeof *host), 0);
    for (uint32_t i = 0; i < n; i++)
        assert_true(host[i] == value_of(salt, i));
}

static void small_model_in_shards(void **state)
{
    (void)state;
    char *folder = small_checkpoint(8, HEAD, NULL);
    mb_device *device = open_cpu(MB_F32);
    mb_model_request request = {.path = folder};
    mb_model *model = open_model(&request, device, MB_F32);
    const struct mb_layer *layer = &model->layers[0];
    check_values(model, model->embed, 0, 1, 5600);
    check_values(model, layer->qkv, 0, 2, 64);
    check_values(model, layer->qkv, 64, 3, 32);
    check_values(model, layer->qkv, 96, 4, 32);
    check_values(model, layer->qkv_bias, 0, 5, 8);
    check_values(model, layer->qkv_bias, 8, 6, 4);
    check_values(model, layer->qkv_bias, 12, 7, 4);
    check_values(model, layer->o, 0, 8, 64);
    check_values(model, layer->input_norm, 0, 9, 8);
    check_values(model, layer->post_norm, 0, 10, 8);
    check_values(model, layer->gate_up, 0, 11, 48);
    check_values(model, layer->gate_up, 48, 12, 48);
    check_values(model, layer->down, 0, 13, 48);
    check_values(model, model->final_norm, 0, 14, 8);
    check_values(model, model->lm_head, 0, 15, 5600);
    assert_null(layer->q_norm);
    mb_model_close(model);
    mb_kernels_cpu()->close(device);
    folder_remove(folder);
    free(folder);
}

static void refuse(char *folder, const char *says)
{
    mb_device *device = open_cpu(MB_F32);
    mb_model_request request = {.path = folder};
    mb_model *model = NULL;
    mb_error err = {0};
    size_t before = mb_kernels_cpu()->mark(device);
    int rc = mb_model_open(&model, &request, mb_kernels_cpu(), device, MB_F32, &err);
    if (rc != MB_E_INPUT || !strstr(err.text, says) || !strstr(err.text, folder))
        fail_msg("rc %d, \"%s\", expected \"%s\"", rc, err.text, says);
    assert_null(model);
    assert_int_equal(mb_kernels_cpu()->mark(device), before);
    mb_kernels_cpu()->close(device);
    folder_remove(folder);
    free(folder);
}

static void folders_that_do_not_fit(void **state)
{
    (void)state;
    refuse(small_checkpoint(7, HEAD, NULL), "q_proj.weight has shape [7, 8], config.json makes it [8, 8]");
    refuse(small_checkpoint(8, NO_HEAD, NULL), "lm_head.weight is missing");
    refuse(small_checkpoint(8, HEAD, "model.layers.1.input_layernorm.weight"), "config.json does not explain");
    refuse(small_checkpoint(8, HEAD, LAYER "self_attn.o_proj.bias"), "config.json does not explain");
    refuse(small_checkpoint(8, HEAD, LAYER "self_attn.q_norm.weight"), "config.json does not explain");
    char *folder = small_checkpoint(8, HEAD, NULL);
    folder_put_text(folder, "config.json", SMALL_CONFIG(",\"vocab_size\":660,\"mask_token_id\":659"));
    refuse(folder, "do not belong together");
    folder = small_checkpoint(8, HEAD, NULL);
    folder_put_text(folder, "tokenizer.json", "{}");
    refuse(folder, "tokenizer.json");
    refuse(small_checkpoint(8, HEAD_LISTED_ONLY, NULL), "asks for it and the index lists it");
    /* A tied head of other values: two versions of transformers compute with two matrices. */
    folder = small_checkpoint(8, HEAD, NULL);
    folder_put_text(folder, "config.json", SMALL_CONFIG(",\"tie_word_embeddings\":true"));
    refuse(folder, "lm_head.weight differs from model.embed_tokens.weight");
}

/* A tied head is the embedding, whether it is stored, only listed, or neither. */
static void tied_heads(void **state)
{
    (void)state;
    static const enum head heads[] = {NO_HEAD, HEAD_LISTED_ONLY, HEAD_OF_EMBEDDING};
    for (size_t i = 0; i < 3; i++) {
        char *folder = small_checkpoint(8, heads[i], NULL);
        folder_put_text(folder, "config.json", SMALL_CONFIG(",\"tie_word_embeddings\":true"));
        mb_device *device = open_cpu(MB_F32);
        mb_model_request request = {.path = folder};
        mb_model *model = open_model(&request, device, MB_F32);
        assert_ptr_equal(model->lm_head, model->embed);
        check_values(model, model->lm_head, 0, 1, 5600);
        mb_model_close(model);
        mb_kernels_cpu()->close(device);
        folder_remove(folder);
        free(folder);
    }
}

/* An arena that is too small is an error with a sentence, and gives back what it took. */
static void small_arena(void **state)
{
    (void)state;
    mb_device_options options = {.type = MB_BF16, .threads = 1, .arena_bytes = (size_t)4 << 20};
    mb_device *device = NULL;
    mb_model *model = NULL;
    mb_error err = {0};
    mb_model_request request = {.shape = "tiny"};
    assert_int_equal(mb_kernels_cpu()->open(&device, &options, &err), 0);
    size_t before = mb_kernels_cpu()->mark(device);
    assert_int_equal(mb_model_open(&model, &request, mb_kernels_cpu(), device, MB_BF16, &err), MB_E_SYSTEM);
    assert_non_null(strstr(err.text, "no room"));
    assert_int_equal(mb_kernels_cpu()->mark(device), before);
    mb_kernels_cpu()->close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_weights),
        cmocka_unit_test(hashes),
        cmocka_unit_test(conversions),
        cmocka_unit_test(rope_table),
        cmocka_unit_test(random_weights),
        cmocka_unit_test(random_activations_stay_finite),
        cmocka_unit_test(small_model_in_shards),
        cmocka_unit_test(folders_that_do_not_fit),
        cmocka_unit_test(tied_heads),
        cmocka_unit_test(small_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
