/*
 * test_families.c - configuration classes beyond the first three families: Llama's and Mistral's layout, what
 * makes a Llama a Stable-DiffCoder, and families that are known by name and refused with the reason.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/checkpoint/config.h"
#include "model/checkpoint/layout.h"
#include "tests/model/folder.h"

static int parse(mb_model_config *config, const char *json, const mb_model_request *request, mb_error *err)
{
    mb_config_files files = {.json = json, .json_size = strlen(json), .mask_id = -1, .where = "X/config.json"};
    return mb_config_parse(config, &files, request, err);
}

/* Nothing but biases and norms tells the layouts apart. */
static void llama_layout(void **state)
{
    (void)state;
    const mb_model_request request = {.block = 8, .mask = 5};
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    mb_model_config c;
    mb_error err = {0};
    assert_int_equal(parse(&c, "{\"model_type\":\"llama\"}", NULL, &err), MB_E_INPUT);
    assert_non_null(
        strstr(err.text, "give both with \"model\": {\"mask\": ID, \"block\": N} or --mask ID --block N"));
    assert_int_equal(parse(&c, "{\"model_type\":\"llama\"}", &request, &err), MB_OK); /* LlamaConfig's defaults */
    assert_true(c.layers == 32 && c.hidden == 4096 && c.kv_heads == 32 && c.intermediate == 11008);
    assert_true(c.vocab == 32000 && c.positions == 2048 && c.head_dim == 128 && c.rope_theta == 10000);
    assert_true(!c.qkv_bias && !c.qk_norm && !c.norm_one_rounding && !c.tied && c.stop_ids[0] == 2);
    const int n = mb_layout_layer(&c, 0, parts);
    assert_int_equal(n, 9); /* q, k, v, o, gate, up, down and two norms */
    for (int i = 0; i < n; i++)
        assert_null(strstr(parts[i].name, "bias"));
    assert_int_equal(parse(&c, "{\"model_type\":\"llama\",\"mlp_bias\":true}", &request, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "\"mlp_bias\" true is not supported"));
    assert_int_equal(parse(&c, "{\"model_type\":\"qwen2\",\"eos_token_id\":1}", &request, &err), MB_OK);
    assert_true(c.qkv_bias && !c.qk_norm && mb_layout_layer(&c, 0, parts) == 12);
}

static void stable_diffcoder(void **state)
{
    (void)state;
    char *folder = folder_new();
    const mb_model_request request = {.path = folder}, shape = {.shape = "stable_diffcoder_8b"};
    mb_model_config c, s;
    mb_error err = {0};
    folder_put_text(
        folder, "config.json",
        "{\"architectures\":[\"StableDiffcoderForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":4096,"
        "\"intermediate_size\":14336,\"num_hidden_layers\":32,\"num_attention_heads\":32,"
        "\"num_key_value_heads\":8,\"max_position_embeddings\":8192,\"vocab_size\":155136,"
        "\"rope_theta\":500000.0,\"rms_norm_eps\":1e-6,\"attention_bias\":false,\"mlp_bias\":false,"
        "\"eos_token_id\":2,\"tie_word_embeddings\":false}");
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "no \"mask_token\" with an id"));
    /* the name of the mask may stand in the older of two files */
    folder_put_text(folder, "special_tokens_map.json", "{\"mask_token\":{\"content\":\"<[MASK_TOKEN]>\"}}");
    folder_put_text(folder, "tokenizer_config.json",
                    "{\"added_tokens_decoder\":{\"5\":{\"content\":\"<[MASK_TOKEN]>\",\"special\":true}}}");
    if (mb_model_inspect(&request, &c, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_true(c.mask_id == 5 && c.block == 4 && c.sub_block == 4 && c.head_dim == 128 && !c.qk_norm);
    assert_int_equal(mb_model_inspect(&shape, &s, &err), MB_OK);
    assert_int_equal(mb_model_weight_bytes(&s, MB_BF16), mb_model_weight_bytes(&c, MB_BF16));
    assert_true(s.mask_id == 5 && s.block == 4 && s.rope_theta == 500000);
    /* another architecture of the same type is a plain one, whatever its tokenizer says */
    folder_put_text(folder, "config.json", "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"}");
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "no block-diffusion model"));
    folder_remove(folder);
    free(folder);
}

/* MistralConfig has a window of 4096 tokens where the file is silent. */
static void mistral_windows(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int32_t positions;
        const char *says; /* NULL: it loads */
    } cases[] = {
        {"{\"model_type\":\"mistral\",\"sliding_window\":null}", 0, NULL},
        {"{\"model_type\":\"mistral\"}", 0, "a sliding window of 4096 tokens is not supported"},
        {"{\"model_type\":\"mistral\"}", 4096, NULL},
        {"{\"model_type\":\"mistral\",\"sliding_window\":1024}", 4096, "{\"positions\": 1024}"},
        {"{\"model_type\":\"mistral\",\"sliding_window\":32768,\"max_position_embeddings\":32768}", 0, NULL},
        {"{\"model_type\":\"mistral\",\"sliding_window\":0}", 0, "sliding_window"},
        {"{\"model_type\":\"mistral\",\"layer_types\":[\"sliding_attention\"]}", 0, "full_attention"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mb_model_request request = {.block = 8, .mask = 5, .positions = cases[i].positions};
        mb_model_config c;
        mb_error err = {0};
        int rc = parse(&c, cases[i].json, &request, &err);
        if (rc != (cases[i].says ? MB_E_INPUT : MB_OK) || (cases[i].says && !strstr(err.text, cases[i].says)))
            fail_msg("case %zu: %d %s", i, rc, err.text);
    }
}

/* One sentence with what is missing, in place of a complaint about some key. */
static void known_and_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"architectures\":[\"NemotronLabsDiffusionModel\"],\"model_type\":\"nemotron_labs_diffusion\","
         "\"hidden_size\":3072,\"num_hidden_layers\":26,\"intermediate_size\":9216,\"num_attention_heads\":32,"
         "\"num_key_value_heads\":8,\"vocab_size\":131072,\"head_dim\":128,\"block_size\":32,\"mask_token_id\":"
         "100,"
         "\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":16.0,\"rope_theta\":1000000.0,"
         "\"original_max_position_embeddings\":16384,\"llama_4_scaling_beta\":0.1}}",
         "\"nemotron_labs_diffusion\" is not supported yet: it needs causal attention over prompts"},
        {"{\"architectures\":[\"DiffusionGemmaForBlockDiffusion\"],\"model_type\":\"diffusion_gemma\","
         "\"canvas_length\":256,\"tie_word_embeddings\":true,\"text_config\":{\"model_type\":"
         "\"diffusion_gemma_text\",\"hidden_size\":2816,\"num_hidden_layers\":30,\"num_experts\":128,"
         "\"layer_types\":[\"sliding_attention\",\"full_attention\"],\"rope_parameters\":{\"full_attention\":{},"
         "\"sliding_attention\":{}}},\"vision_config\":{}}",
         "\"layer_types\" must be a list of 30 words"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model_config c;
        mb_error err = {0};
        int rc = parse(&c, cases[i][0], NULL, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i][1]))
            fail_msg("%d %s", rc, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_layout),
        cmocka_unit_test(stable_diffcoder),
        cmocka_unit_test(mistral_windows),
        cmocka_unit_test(known_and_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
