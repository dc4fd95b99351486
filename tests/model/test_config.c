/*
 * test_config.c - config.json as the published checkpoints write it, every layout that must be refused, damaged
 * files, and the named shapes, whose sizes are compared with the published sizes of the files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/checkpoint/config.h"
#include "tests/model/folder.h"

/* Sizes as in the published 7B; the extra keys come last, and the last of two keys counts. */
#define FAST(extra)                                                                                               \
    "{\"architectures\":[\"Fast_dLLM_QwenForCausalLM\"],\"model_type\":\"Fast_dLLM_Qwen\","                       \
    "\"num_hidden_layers\":28,\"hidden_size\":3584,\"num_attention_heads\":28,\"num_key_value_heads\":4,"         \
    "\"intermediate_size\":18944,\"vocab_size\":152064,\"rope_theta\":1000000.0,\"rope_scaling\":null,"           \
    "\"rms_norm_eps\":1e-06,\"max_position_embeddings\":32768,\"use_sliding_window\":false,"                      \
    "\"sliding_window\":131072,\"max_window_layers\":28,\"bd_size\":32,\"tie_word_embeddings\":false,"            \
    "\"layer_types\":[\"full_attention\"],\"eos_token_id\":151645,\"pad_token_id\":151645,\"hidden_act\":"        \
    "\"silu\"" extra "}"
#define SDAR(extra)                                                                                               \
    "{\"architectures\":[\"SDARForCausalLM\"],\"model_type\":\"sdar\",\"num_hidden_layers\":36,"                  \
    "\"hidden_size\":2560,\"num_attention_heads\":32,\"num_key_value_heads\":8,\"head_dim\":128,"                 \
    "\"intermediate_size\":9728,\"vocab_size\":151936,\"rope_theta\":1000000,\"rms_norm_eps\":1e-06,"             \
    "\"max_position_embeddings\":32768,\"block_size\":4,\"mask_token_id\":151669,\"attention_bias\":false,"       \
    "\"tie_word_embeddings\":false,\"eos_token_id\":151643,\"pad_token_id\":151643" extra "}"

/* As the published LLaDA2.0-mini writes it: neither mask nor block nor end stand in it. */
#define LLADA2(extra)                                                                                             \
    "{\"architectures\":[\"LLaDA2MoeModelLM\"],\"model_type\":\"llada2_moe\",\"num_hidden_layers\":20,"           \
    "\"hidden_size\":2048,\"intermediate_size\":5120,\"first_k_dense_replace\":1,\"hidden_act\":\"silu\","        \
    "\"max_position_embeddings\":16384,\"moe_intermediate_size\":512,\"norm_topk_prob\":true,"                    \
    "\"num_experts_per_tok\":8,\"norm_head\":false,\"num_attention_heads\":16,\"num_experts\":256,"               \
    "\"num_key_value_heads\":4,\"rope_theta\":600000,\"rope_scaling\":null,\"tie_word_embeddings\":false,"        \
    "\"use_bias\":false,\"use_rmsnorm\":true,\"rms_norm_eps\":1e-06,\"head_dim\":128,\"num_shared_experts\":1,"   \
    "\"use_qkv_bias\":false,\"norm_softmax\":false,\"vocab_size\":157184,\"rotary_dim\":64,"                      \
    "\"using_split_qkv_in_self_attention\":false,\"router_dtype\":\"fp32\","                                      \
    "\"moe_router_enable_expert_bias\":true,\"routed_scaling_factor\":2.5,\"n_group\":8,\"topk_group\":4,"        \
    "\"score_function\":\"sigmoid\",\"max_window_layers\":28,\"partial_rotary_factor\":0.5,"                      \
    "\"use_sliding_window\":false" extra "}"
#define SDAR_MOE(extra)                                                                                           \
    "{\"architectures\":[\"SDARMoeForCausalLM\"],\"model_type\":\"sdar_moe\",\"num_hidden_layers\":48,"           \
    "\"hidden_size\":2048,\"num_attention_heads\":32,\"num_key_value_heads\":4,\"head_dim\":128,"                 \
    "\"intermediate_size\":6144,\"moe_intermediate_size\":768,\"num_experts\":128,\"num_experts_per_tok\":8,"     \
    "\"norm_topk_prob\":true,\"decoder_sparse_step\":1,\"mlp_only_layers\":[],\"vocab_size\":151936,"             \
    "\"rope_theta\":1000000,\"rms_norm_eps\":1e-06,\"max_position_embeddings\":32768,\"block_size\":4,"           \
    "\"mask_token_id\":151669,\"attention_bias\":false,\"tie_word_embeddings\":false,\"eos_token_id\":"           \
    "151643" extra "}"

static int parse(mb_model_config *config, const char *json, const char *generation, mb_error *err)
{
    mb_config_files files = {.json = json,
                             .json_size = strlen(json),
                             .generation = generation,
                             .generation_size = generation ? strlen(generation) : 0,
                             .mask_id = -1,
                             .where = "X/config.json"};
    return mb_config_parse(config, &files, NULL, err);
}

static void fast_dllm(void **state)
{
    (void)state;
    mb_model_config c;
    mb_error err = {0};
    assert_int_equal(parse(&c, FAST(""), "{\"eos_token_id\":[151645,151643]}", &err), MB_OK);
    assert_int_equal(c.family, MB_FAMILY_FAST_DLLM_V2);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.block, 32);
    assert_int_equal(c.sub_block, 8);
    assert_int_equal(c.mask_id, 151665);
    /* Its generate() stops at one token, whatever generation_config.json lists. */
    assert_int_equal(c.stop_count, 1);
    assert_int_equal(c.stop_ids[0], 151645);
    assert_true(c.qkv_bias && !c.qk_norm && !c.tied && !c.norm_one_rounding && !c.synthetic);
    assert_true(c.rope_theta == 1e6 && c.norm_eps == 1e-6);
}

static void sdar(void **state)
{
    (void)state;
    mb_model_config c;
    mb_error err = {0};
    assert_int_equal(parse(&c, SDAR(""), NULL, &err), MB_OK);
    assert_int_equal(c.family, MB_FAMILY_SDAR);
    assert_int_equal(c.head_dim, 128); /* not hidden / heads = 80 */
    assert_int_equal(c.block, 4);
    assert_int_equal(c.sub_block, 4);
    assert_int_equal(c.mask_id, 151669);
    assert_int_equal(c.stop_count, 1);
    assert_true(!c.qkv_bias && c.qk_norm && !c.tied && c.norm_one_rounding);
    /* one id is as good as a list */
    assert_int_equal(parse(&c, SDAR(""), "{\"eos_token_id\":151645}", &err), MB_OK);
    assert_int_equal(c.stop_count, 1);
    assert_int_equal(c.stop_ids[0], 151645);
    /* SDAR's generate.py takes the whole list */
    assert_int_equal(parse(&c, SDAR(""), "{\"eos_token_id\":[151645,151643]}", &err), MB_OK);
    assert_true(c.stop_count == 2 && c.stop_ids[0] == 151645 && c.stop_ids[1] == 151643);
    /* a generation_config without eos leaves the decision to config.json */
    assert_int_equal(parse(&c, SDAR(""), "{\"top_p\":1.0}", &err), MB_OK);
    assert_int_equal(c.stop_ids[0], 151643);
    /* theta where newer files keep it: it wins over the one at the top */
    assert_int_equal(
        parse(&c, SDAR(",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5}"), NULL, &err), MB_OK);
    assert_true(c.rope_theta == 5);
}

/* Field by field: a struct has gaps. */
static void assert_same_moe(const mb_moe *a, const mb_moe *b)
{
    assert_true(a->experts == b->experts && a->per_token == b->per_token && a->size == b->size);
    assert_true(a->shared == b->shared && a->dense_layers == b->dense_layers && a->groups == b->groups);
    assert_true(a->groups_kept == b->groups_kept && a->score == b->score && a->combine == b->combine);
    assert_true(a->scale == b->scale && a->bias == b->bias && a->normalise == b->normalise);
    assert_true(a->rounded == b->rounded);
}

static void llada2(void **state)
{
    (void)state;
    mb_model_config c;
    mb_model_request request = {.shape = "llada2_mini"};
    mb_error err = {0};
    assert_int_equal(parse(&c, LLADA2(""), NULL, &err), MB_OK);
    assert_int_equal(c.family, MB_FAMILY_LLADA2);
    assert_string_equal(mb_family_name(c.family), "llada2");
    assert_int_equal(c.rotary_dim, 64);
    assert_int_equal(c.block, 32);
    assert_int_equal(c.sub_block, 32);
    assert_int_equal(c.mask_id, 156895);
    assert_int_equal(c.stop_count, 1);
    assert_int_equal(c.stop_ids[0], 156892); /* no key at all: the sampler's own */
    assert_true(!c.qkv_bias && c.qk_norm && !c.tied && !c.norm_one_rounding && c.rope_theta == 600000);
    assert_int_equal(c.moe.experts, 256);
    assert_int_equal(c.moe.per_token, 8);
    assert_int_equal(c.moe.size, 512);
    assert_int_equal(c.moe.shared, 512);
    assert_int_equal(c.moe.dense_layers, 1);
    assert_int_equal(c.moe.groups, 8);
    assert_int_equal(c.moe.groups_kept, 4);
    assert_int_equal(c.moe.score, MB_SCORE_SIGMOID);
    assert_int_equal(c.moe.combine, MB_COMBINE_SUM);
    assert_true(c.moe.bias && c.moe.normalise && !c.moe.rounded && c.moe.scale == 2.5);
    /* the named shape is this model */
    mb_model_config shape;
    assert_int_equal(mb_model_inspect(&request, &shape, &err), MB_OK);
    assert_same_moe(&shape.moe, &c.moe);
    assert_int_equal(shape.rotary_dim, c.rotary_dim);
    assert_int_equal(shape.mask_id, c.mask_id);
    assert_true(shape.rope_theta == c.rope_theta && shape.synthetic);
    assert_int_equal(mb_model_weight_bytes(&shape, MB_BF16), mb_model_weight_bytes(&c, MB_BF16));
    /* keys override what the sampler says */
    assert_int_equal(parse(&c, LLADA2(",\"mask_token_id\":7,\"block_size\":16,\"eos_token_id\":9"), NULL, &err),
                     MB_OK);
    assert_true(c.mask_id == 7 && c.block == 16 && c.stop_count == 1 && c.stop_ids[0] == 9);
    assert_int_equal(
        parse(&c, LLADA2(",\"eos_token_id\":9,\"pad_token_id\":8"), "{\"eos_token_id\":[9,10]}", &err), MB_OK);
    assert_true(c.stop_count == 1 && c.stop_ids[0] == 9 && !c.edits); /* one token here, too */
    assert_int_equal(parse(&c, LLADA2(",\"max_position_embeddings\":32768"), NULL, &err), MB_OK);
    assert_true(c.edits); /* LLaDA2.1 and later: of a key that stands twice the last counts */
    /* no shared expert, no bias, every layer with experts, one expert a token */
    assert_int_equal(parse(&c,
                           LLADA2(",\"num_shared_experts\":null,\"moe_router_enable_expert_bias\":false,"
                                  "\"first_k_dense_replace\":0,\"num_experts_per_tok\":1"),
                           NULL, &err),
                     MB_OK);
    assert_true(c.moe.shared == 0 && !c.moe.bias && c.moe.dense_layers == 0 && !c.moe.normalise);
}

static void sdar_moe(void **state)
{
    (void)state;
    mb_model_config c, shape;
    mb_model_request request = {.shape = "sdar_30b_a3b"};
    mb_error err = {0};
    assert_int_equal(parse(&c, SDAR_MOE(""), NULL, &err), MB_OK);
    assert_int_equal(c.family, MB_FAMILY_SDAR);
    assert_int_equal(c.rotary_dim, 128);
    assert_int_equal(c.moe.experts, 128);
    assert_int_equal(c.moe.size, 768);
    assert_int_equal(c.moe.shared, 0);
    assert_int_equal(c.moe.score, MB_SCORE_SOFTMAX);
    assert_int_equal(c.moe.combine, MB_COMBINE_STEPS);
    assert_true(!c.moe.bias && c.moe.normalise && c.moe.rounded && c.norm_one_rounding && c.moe.scale == 1);
    assert_int_equal(mb_model_inspect(&request, &shape, &err), MB_OK);
    assert_same_moe(&shape.moe, &c.moe);
    assert_int_equal(mb_model_weight_bytes(&shape, MB_BF16), mb_model_weight_bytes(&c, MB_BF16));
    assert_int_equal(parse(&c, SDAR_MOE(",\"mlp_only_layers\":[0,1],\"norm_topk_prob\":false"), NULL, &err),
                     MB_OK);
    assert_true(c.moe.dense_layers == 2 && !c.moe.normalise);
}

static void tiny_folder(void **state)
{
    (void)state;
    mb_model_config c;
    mb_error err = {0};
    mb_model_request request = {.path = "models/tiny/"};
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
    assert_string_equal(c.name, "tiny");
    assert_int_equal(c.family, MB_FAMILY_SDAR);
    assert_int_equal(c.layers, 6);
    assert_int_equal(c.hidden, 256);
    assert_int_equal(c.query_heads, 8);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 64);
    assert_int_equal(c.intermediate, 768);
    assert_int_equal(c.vocab, 2048);
    assert_int_equal(c.block, 32);
    assert_int_equal(c.sub_block, 32);
    assert_int_equal(c.mask_id, 2047);
    assert_int_equal(c.stop_count, 2); /* <|im_end|> and the padding behind it */
    assert_int_equal(c.stop_ids[0], 2046);
    assert_int_equal(c.stop_ids[1], 2044);
    assert_true(c.tied && c.qk_norm && !c.qkv_bias && c.norm_one_rounding);
    /* the named shape is this model */
    mb_model_config shape;
    request = (mb_model_request){.shape = "tiny"};
    assert_int_equal(mb_model_inspect(&request, &shape, &err), MB_OK);
    assert_true(shape.synthetic);
    shape.synthetic = false;
    assert_memory_equal(shape.stop_ids, c.stop_ids, sizeof c.stop_ids);
    assert_int_equal(mb_model_weight_bytes(&shape, MB_BF16), mb_model_weight_bytes(&c, MB_BF16));
    /* overrides */
    const int32_t stops[] = {5, 6, 5};
    request = (mb_model_request){.path = "models/tiny", .stop_ids = stops, .stop_count = 3};
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
    assert_true(c.stop_count == 2 && c.stop_ids[0] == 5 && c.stop_ids[1] == 6);
    const int32_t outside[] = {2048};
    request = (mb_model_request){.path = "models/tiny", .stop_ids = outside, .stop_count = 1};
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "stop token 2048 is outside the vocabulary of 2048"));
    request = (mb_model_request){.path = "models/tiny", .block = 16, .positions = 131072};
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
    assert_int_equal(c.block, 16);
    assert_int_equal(c.sub_block, 16);
    assert_int_equal(c.positions, 131072);
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "not valid JSON"},
        {"[1]", "object"},
        {"{}", "model_type \"(none)\" is not supported"},
        {"{\"model_type\":\"gpt_neox\"}", "\"gpt_neox\" is not supported"},
        {"{\"model_type\":7,\"architectures\":7}", "not supported"},
        {"{\"model_type\":\"gpt2\",\"architectures\":[\"Qwen2ForCausalLM\"]}", "not supported"},
        {"{\"model_type\":\"qwen3\",\"architectures\":[\"Qwen3ForCausalLM\"]}", "no block-diffusion model"},
        {"{\"model_type\":\"qwen3\",\"mask_token_id\":5}", "no block-diffusion model"},
        {"{\"model_type\":\"qwen3\",\"block_size\":5}", "no block-diffusion model"},
        {"{\"model_type\":\"mixtral\",\"num_local_experts\":8}",
         "\"mixtral\" is not supported: known are Fast_dLLM_Qwen, "},
        {FAST(",\"num_experts\":128"), "have no experts"},
        {"{\"model_type\":\"bailing_moe_v2\"}", "is not supported"},
        /* other networks whose names begin or end alike */
        {SDAR(",\"model_type\":\"qwen3_next\""), "\"qwen3_next\" is not supported"},
        {"{\"model_type\":\"sdar_moe\"}", "--mask ID"},
        {"{\"model_type\":\"sdar\"}", "tokenizer_config.json no \"mask_token\""},
        {"{\"model_type\":\"qwen3_moe\"}", "no block-diffusion model"},
        {SDAR(",\"num_experts\":128"), "have no experts"},
        {SDAR(",\"num_local_experts\":128"), "have no experts"},
        {SDAR_MOE(",\"num_local_experts\":64"), "are one number"},
        {SDAR_MOE(",\"decoder_sparse_step\":2"), "decoder_sparse_step"},
        {SDAR_MOE(",\"mlp_only_layers\":[3]"), "mlp_only_layers"},
        {SDAR_MOE(",\"shared_expert_intermediate_size\":5"), "does not belong to experts of this kind"},
        {SDAR_MOE(",\"num_experts_per_tok\":33"), "num_experts_per_tok"},
        {SDAR_MOE(",\"num_experts\":4"), "8 experts for each token, but only 4"},
        {SDAR_MOE(",\"partial_rotary_factor\":0.5"), "partial_rotary_factor"},
        {LLADA2(",\"model_type\":\"llada2_moe_veomni\""), "all experts of a layer in one tensor"},
        {LLADA2(",\"partial_rotary_factor\":0.25"),
         "\"rotary_dim\" 64 is not head_dim * partial_rotary_factor = 32"},
        {LLADA2(",\"partial_rotary_factor\":0,\"rotary_dim\":null"), "RoPE cannot turn 0 of 128"},
        {LLADA2(",\"use_bias\":true"), "\"use_bias\" true"},
        {LLADA2(",\"use_rmsnorm\":false"), "\"use_rmsnorm\" false"},
        {LLADA2(",\"norm_softmax\":true"), "\"norm_softmax\" true"},
        {LLADA2(",\"norm_head\":true"), "\"norm_head\" true"},
        {LLADA2(",\"use_linear_attention\":true"), "use_linear_attention"},
        {LLADA2(",\"linear_attention_layers\":[3]"), "linear_attention_layers"},
        {LLADA2(",\"using_split_qkv_in_self_attention\":true"), "using_split_qkv"},
        {LLADA2(",\"norm_topk_prob\":false"), "norm_topk_prob"},
        {LLADA2(",\"score_function\":\"softmax\""), "\"score_function\" must be \"sigmoid\""},
        {LLADA2(",\"router_dtype\":\"bf16\""), "\"router_dtype\" must be \"fp32\""},
        {LLADA2(",\"expert_capacity\":48"), "choice of experts by block"},
        {LLADA2(",\"expert_capacity\":0,\"split_token_id\":7"), "deletions and insertions"},
        {LLADA2(",\"intermediate_size\":null"), "\"intermediate_size\" is missing"},
        {LLADA2(",\"moe_intermediate_size\":null"), "\"moe_intermediate_size\" is missing"},
        {LLADA2(",\"use_sliding_window\":true"), "sliding-window"},
        {LLADA2(",\"n_group\":7"), "256 experts cannot be chosen from 4 of 7 groups"},
        {LLADA2(",\"n_group\":256"), "256 experts cannot be chosen from 4 of 256 groups"},
        {LLADA2(",\"topk_group\":9"), "256 experts cannot be chosen from 9 of 8 groups"},
        {LLADA2(",\"first_k_dense_replace\":20"), "all 20 layers are dense"},
        {LLADA2(",\"vocab_size\":156893"), "mask token 156895 is outside"},
        {SDAR(",\"use_sliding_window\":true"), "sliding-window"},
        {SDAR(",\"use_sliding_window\":1"), "true or false"},
        {SDAR(",\"layer_types\":[\"full_attention\",\"sliding_attention\"]"), "full_attention"},
        {SDAR(",\"rope_scaling\":{\"type\":\"ntk\",\"factor\":4}"), "scaled RoPE"},
        {SDAR(",\"rope_scaling\":4"), "must be null or an object"},
        {SDAR(",\"partial_rotary_factor\":0.5"), "partial_rotary_factor"},
        {SDAR(",\"quantization_config\":{}"), "quantised"},
        {SDAR(",\"hidden_act\":\"gelu\""), "silu"},
        {SDAR(",\"num_hidden_layers\":0"), "\"num_hidden_layers\" must be an integer from 1 to 1024"},
        {SDAR(",\"num_hidden_layers\":2.5"), "num_hidden_layers"},
        {SDAR(",\"num_hidden_layers\":1e300"), "num_hidden_layers"},
        {SDAR(",\"num_hidden_layers\":\"36\""), "num_hidden_layers"},
        {SDAR(",\"hidden_size\":-1"), "hidden_size"},
        {SDAR(",\"num_key_value_heads\":5"), "no multiple of 5 KV heads"},
        {SDAR(",\"head_dim\":127"), "odd"},
        {SDAR(",\"vocab_size\":100"), "mask_token_id"},
        {SDAR(",\"mask_token_id\":-1"), "mask_token_id"},
        {SDAR(",\"mask_token_id\":151643"), "both the mask and the end"},
        {SDAR(",\"block_size\":0"), "block_size"},
        {SDAR(",\"rope_theta\":\"big\""), "rope_theta"},
        {SDAR(",\"rms_norm_eps\":-1"), "rms_norm_eps"},
        {SDAR(",\"tie_word_embeddings\":\"no\""), "tie_word_embeddings"},
        {SDAR(",\"eos_token_id\":[],\"pad_token_id\":null"), "no text would ever end"},
        {SDAR(",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]"), "more than 8"},
        {SDAR(",\"eos_token_id\":1e9"), "eos_token_id"},
        {FAST(",\"bd_size\":12"), "sub-block"},
        {FAST(",\"num_attention_heads\":30"), "head_dim"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model_config c;
        mb_error err = {0};
        int rc = parse(&c, cases[i].json, NULL, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].says) || !strstr(err.text, "X/config.json"))
            fail_msg("case %zu: rc %d, \"%s\", expected \"%s\"", i, rc, err.text, cases[i].says);
    }
}

static void requests(void **state)
{
    (void)state;
    static const struct {
        mb_model_request request;
        const char *says;
    } cases[] = {
        {{0}, "no model"},
        {{.path = "a", .shape = "tiny"}, "choose one"},
        {{.shape = "huge"}, "unknown model shape \"huge\": use one of fast_dllm_v2_7b, "},
        {{.shape = "fast_dllm_v2_7b", .block = 12}, "sub-block"},
        {{.shape = "tiny", .block = -1}, "block size -1"},
        {{.shape = "tiny", .positions = 3 << 20}, "positions"},
        {{.path = "models/Fast_dLLM_v2_7B"},
         "models/Fast_dLLM_v2_7B/config.json is missing: give the checkpoint folder with --model DIR (a folder as "
         "downloaded from the Hugging Face hub)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model_config c;
        mb_error err = {0};
        assert_int_equal(mb_model_inspect(&cases[i].request, &c, &err), MB_E_INPUT);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu: \"%s\", expected \"%s\"", i, err.text, cases[i].says);
    }
}

/* Published bytes of the bf16 files: Fast-dLLM v2 7B index total_size, 1.5B with tied head, SDAR 8B, 4B, and the
 * 1.7B file. LLaDA2 and SDAR 30B-A3B: no published size was found; the tensors of their published
 * configs were added up by hand. The RoPE table is ours and padding to 256 bytes comes on top, and the fp32 of a
 * router's bias.
 */
static void published_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *shape;
        uint64_t bytes;
    } cases[] = {
        {"fast_dllm_v2_7b", 15231233024},
        {"fast_dllm_v2_1_5b", 3087428608},
        {"sdar_8b", 16381470720},
        {"sdar_4b", 8822848512},
        {"sdar_1_7b", 2 * 2031739904ull},
        {"tiny", 2 * 6033408},
        {"llada2_mini", 2 * 16255643392ull},
        {"llada2_flash", 2 * 102889705216ull},
        {"sdar_30b_a3b", 2 * 30532122624ull},
        {"diffusion_gemma_26b", 2 * 25250986812ull},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model_config c;
        mb_model_request request = {.shape = cases[i].shape};
        mb_error err = {0};
        assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
        uint64_t table = (uint64_t)c.positions * (uint64_t)(c.rotary_dim + c.local.rotary_dim) * 4;
        uint64_t bytes = mb_model_weight_bytes(&c, MB_BF16) - table, padding = bytes - cases[i].bytes;
        if (bytes < cases[i].bytes || padding >= 256ull * 14 * (uint64_t)c.layers)
            fail_msg("%s: %llu bytes, published %llu", cases[i].shape, (unsigned long long)bytes,
                     (unsigned long long)cases[i].bytes);
    }
}

/* A file that is silent: the defaults of its configuration class. Values of transformers 5.24.0's Qwen3 and
 * Qwen3-MoE classes, and of the classes that the checkpoints of the other families bring with them. */
static void class_defaults(void **state)
{
    (void)state;
    mb_model_config c;
    mb_error err = {0};
#define SILENT(type, rest) "{\"model_type\":\"" type "\",\"eos_token_id\":1" rest "}"
    assert_int_equal(parse(&c, SILENT("sdar", ",\"mask_token_id\":9"), NULL, &err), MB_OK);
    assert_true(c.layers == 32 && c.hidden == 4096 && c.query_heads == 32 && c.kv_heads == 32 &&
                c.head_dim == 128);
    assert_true(c.intermediate == 22016 && c.vocab == 151936 && c.positions == 32768 && c.block == 4);
    assert_true(c.rope_theta == 10000 && c.norm_eps == 1e-6 && !c.tied && !c.qkv_bias && c.rotary_dim == 128);
    assert_int_equal(parse(&c, SILENT("sdar_moe", ",\"mask_token_id\":9"), NULL, &err), MB_OK);
    assert_true(c.layers == 24 && c.hidden == 2048 && c.kv_heads == 4 &&
                c.head_dim == 64); /* no head_dim: divided */
    assert_true(c.moe.experts == 128 && c.moe.per_token == 8 && c.moe.size == 768 && !c.moe.normalise);
    assert_int_equal(parse(&c, SILENT("Fast_dLLM_Qwen", ",\"hidden_size\":2048"), NULL, &err), MB_OK);
    assert_true(c.head_dim == 64 && c.kv_heads == 32 && c.qkv_bias && c.mask_id == 151665 && c.block == 32);
    assert_int_equal(parse(&c,
                           SILENT("llada2_moe", ",\"intermediate_size\":64,\"moe_intermediate_size\":32,"
                                                "\"use_bias\":false,\"mask_token_id\":9"),
                           NULL, &err),
                     MB_OK);
    assert_true(c.layers == 24 && c.hidden == 1024 && c.query_heads == 16 && c.kv_heads == 16 && c.head_dim == 64);
    assert_true(c.vocab == 30592 && c.positions == 16384 && c.norm_eps == 1e-5 && c.rotary_dim == 32);
    assert_true(c.moe.experts == 16 && c.moe.per_token == 2 && c.moe.shared == 0 && c.moe.dense_layers == 0);
    assert_true(c.moe.groups == 8 && c.moe.groups_kept == 4 && c.moe.scale == 2.5 && c.moe.bias);
    /* null is not silence for this key: as many KV heads as query heads */
    assert_int_equal(parse(&c, SDAR(",\"num_key_value_heads\":null"), NULL, &err), MB_OK);
    assert_int_equal(c.kv_heads, 32);
    /* transformers 5's name of the number of experts */
    assert_int_equal(parse(&c, SDAR_MOE(",\"num_experts\":null,\"num_local_experts\":64"), NULL, &err), MB_OK);
    assert_int_equal(c.moe.experts, 64);
    assert_int_equal(parse(&c, LLADA2(",\"num_experts\":null,\"num_local_experts\":128"), NULL, &err), MB_OK);
    assert_int_equal(c.moe.experts, 128);
}

/* A window that no layer has changes nothing. */
static void windows(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        bool loads;
    } cases[] = {
        {SDAR(",\"use_sliding_window\":true,\"sliding_window\":4096,\"max_window_layers\":36"), true},
        {SDAR(",\"use_sliding_window\":true,\"sliding_window\":4096,\"max_window_layers\":35"), false},
        {SDAR(",\"use_sliding_window\":true,\"num_hidden_layers\":28"), true}, /* 28 is the key's default */
        {SDAR(",\"use_sliding_window\":true,\"sliding_window\":null"), true},
        {FAST(",\"use_sliding_window\":true,\"max_window_layers\":21"), true}, /* its layer_types are full */
        {FAST(",\"use_sliding_window\":true,\"max_window_layers\":21,\"layer_types\":null"), false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model_config c;
        mb_error err = {0};
        int rc = parse(&c, cases[i].json, NULL, &err);
        if ((rc == MB_OK) != cases[i].loads || (rc != MB_OK && !strstr(err.text, "sliding-window")))
            fail_msg("case %zu: rc %d, \"%s\"", i, rc, err.text);
    }
}

/* JSON as Python reads it: the last of two keys, NaN and Infinity as numbers. */
static void python_json(void **state)
{
    (void)state;
    mb_model_config c;
    mb_error err = {0};
    assert_int_equal(parse(&c, SDAR(",\"rope_theta\":5000,\"head_dim\":64,\"head_dim\":256"), NULL, &err), MB_OK);
    assert_true(c.rope_theta == 5000 && c.head_dim == 256);
    assert_int_equal(parse(&c, SDAR(",\"initializer_range\":NaN,\"x\":[-Infinity,Infinity]"), NULL, &err), MB_OK);
    assert_int_equal(parse(&c, SDAR(",\"rope_theta\":NaN"), NULL, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "\"rope_theta\" must be a number"));
    assert_int_equal(parse(&c, SDAR(",\"rms_norm_eps\":Infinity"), NULL, &err), MB_E_INPUT);
    assert_int_equal(parse(&c, SDAR(",\"x\":Nan"), NULL, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "not valid JSON"));
}

/* Published SDAR folders have neither mask nor block in config.json. */
static void silent_sdar(void **state)
{
    (void)state;
#define BARE                                                                                                      \
    SDAR(",\"mask_token_id\":null,\"block_size\":null,\"vocab_size\":2048,\"eos_token_id\":1,\"pad_token_id\":"   \
         "null")
    char *folder = folder_new();
    mb_model_request request = {.path = folder};
    mb_model_config c;
    mb_error err = {0};
    folder_put_text(folder, "config.json", BARE);
    folder_put_text(folder, "generation_config.json", "{\"eos_token_id\":7}");
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "--mask ID"));
    request.mask = 11; /* the caller's word is enough */
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
    assert_true(c.mask_id == 11 && c.block == 4);
    request.mask = 0;
    /* the three places where the id may stand */
    folder_put_text(folder, "added_tokens.json", "{\"<|MASK|>\":21}");
    folder_put_text(folder, "tokenizer_config.json", "{\"mask_token\":{\"content\":\"<|MASK|>\"}}");
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
    assert_int_equal(c.mask_id, 21);
    folder_put_text(folder, "tokenizer.json",
                    "{\"added_tokens\":[{\"id\":20,\"content\":\"x\"},"
                    "{\"id\":22,\"content\":\"<|MASK|>\"}]}");
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
    assert_int_equal(c.mask_id, 22);
    folder_put_text(folder, "tokenizer_config.json",
                    "{\"mask_token\":\"<|MASK|>\",\"added_tokens_decoder\":{\"20\":{\"content\":\"x\"},"
                    "\"23\":{\"content\":\"<|MASK|>\"}}}");
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
    assert_int_equal(c.mask_id, 23);
    folder_put_text(folder, "config.json", SDAR(",\"mask_token_id\":30,\"block_size\":16"));
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK); /* what config.json says comes first */
    assert_true(c.mask_id == 30 && c.block == 16);
    request.block = 8;
    request.mask = 31;
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_OK);
    assert_true(c.mask_id == 31 && c.block == 8);
    /* a plain Qwen3 does not become a block-diffusion model by its tokenizer */
    request = (mb_model_request){.path = folder};
    folder_put_text(folder, "config.json", "{\"model_type\":\"qwen3\",\"eos_token_id\":1}");
    assert_int_equal(mb_model_inspect(&request, &c, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "no block-diffusion model"));
    folder_remove(folder);
    free(folder);
    /* the block in a name */
    static const struct {
        const char *path;
        int32_t block;
    } names[] = {{"models/SDAR-8B-Chat-b32", 32},
                 {"SDAR-1.7B-Chat-b8/", 8},
                 {"a-b64/SDAR-8B-Chat", 0},
                 {"SDAR-30B-A3B-Sci", 0},
                 {"SDAR-4B-b16-f32", 16},
                 {"x-b2x", 0},
                 {"x-b0", 0},
                 {"-b4", 4},
                 {"b16", 0},
                 {"x-b99999999999", 0},
                 {"hub/models--JetLM--SDAR-8B-Chat-b16/snapshots/0f3c-b2", 16},
                 {"hub/models--JetLM--SDAR-8B-Chat/snapshots/0f3c/", 0}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (mb_config_block_of(names[i].path) != names[i].block)
            fail_msg("%s: %d", names[i].path, mb_config_block_of(names[i].path));
    mb_config_files files = {.json = BARE, .json_size = strlen(BARE), .mask_id = 5, .block = 64, .where = "x"};
    assert_int_equal(mb_config_parse(&c, &files, NULL, &err), MB_OK);
    assert_true(c.block == 64 && c.mask_id == 5);
    files.json = LLADA2(""); /* other classes have block and mask of their own */
    files.json_size = strlen(files.json);
    assert_int_equal(mb_config_parse(&c, &files, NULL, &err), MB_OK);
    assert_true(c.block == 32 && c.mask_id == 156895);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_dllm),      cmocka_unit_test(sdar),        cmocka_unit_test(llada2),
        cmocka_unit_test(sdar_moe),       cmocka_unit_test(tiny_folder), cmocka_unit_test(refused),
        cmocka_unit_test(class_defaults), cmocka_unit_test(windows),     cmocka_unit_test(python_json),
        cmocka_unit_test(silent_sdar),    cmocka_unit_test(requests),    cmocka_unit_test(published_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
