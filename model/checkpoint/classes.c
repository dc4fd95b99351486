/*
 * classes.c - the configuration classes as a table. Sources, with the version that was read:
 *
 *   Fast_dLLM_Qwen  configuration.py of Efficient-Large-Model/Fast_dLLM_v2_7B (written for transformers 4.53);
 *                   mask, sub-block and the one stop token are arguments of its generate()
 *   sdar            configuration_sdar.py of JetAstra/SDAR (a copy of Qwen3's of transformers 4.52); block 4
 *                   and the tokenizer's mask token are defaults of its generate.py
 *   sdar_moe        its own file was not found: the defaults are those of Qwen3-MoE's class of transformers
 *                   4.52, from which the published checkpoint's keys and SDAR's engine (JetEngine,
 *                   models/sdar_moe.py) are made
 *   qwen3           configuration_qwen3.py of transformers 5.24.0
 *   qwen3_moe       configuration_qwen3_moe.py of transformers 5.24.0
 *   llada2_moe      configuration_llada2_moe.py of inclusionAI/LLaDA2.0-mini; mask, block and end are arguments
 *                   of its generate(); LLaDA2.1, which edits, has the same class and differs in its config.json
 *                   by max_position_embeddings 32768 alone (2.0: 16384); norm_topk_prob is not in the class, its
 *                   router always divides by the sum; use_bias is true in the class, but a bias that no file
 *                   holds is zero, and one that it holds is refused with the weights
 *   qwen2, llama    configuration_qwen2.py, configuration_llama.py of transformers 5.24.0
 *   mistral         configuration_mistral.py of transformers 5.24.0
 *
 *   Stable-DiffCoder is a llama by model_type and names its own architecture. Its modeling_stable_diffcoder.py
 *   decodes as SDAR's code does; blocks of 4 are those of its README, the mask is the tokenizer's.
 *
 *   diffusion_gemma configuration_diffusion_gemma.py of transformers 5.24.0; what of it is no size:
 * config_canvas.c
 *
 *   nemotron_labs_diffusion was read in ports of its code (SGLang's model, one for MLX).
 */
#include "model/checkpoint/classes.h"

#include "base/json.h"

#include <string.h>

#define QWEN_SIZES                                                                                                \
    .layers = 32, .hidden = 4096, .query_heads = 32, .kv_heads = 32, .intermediate = 22016, .vocab = 151936,      \
    .positions = 32768, .norm_eps = 1e-6, .rope_theta = 10000, .rotary_factor = 1
#define QWEN_MOE_SIZES                                                                                            \
    .layers = 24, .hidden = 2048, .query_heads = 32, .kv_heads = 4, .intermediate = 6144, .vocab = 151936,        \
    .positions = 32768, .norm_eps = 1e-6, .rope_theta = 10000, .rotary_factor = 1, .experts = true,               \
    .moe = {.experts = 128, .per_token = 8, .size = 768}
#define QWEN3_LAYER .end_id = -1, .qk_norm = true, .qkv_bias_key = "attention_bias", .norm_one_rounding = true
#define LLAMA_SIZES                                                                                               \
    .layers = 32, .hidden = 4096, .query_heads = 32, .intermediate = 11008, .vocab = 32000, .positions = 2048,    \
    .norm_eps = 1e-6, .rope_theta = 10000, .rotary_factor = 1, .end_id = 2, .qkv_bias_key = "attention_bias"
#define LLADA2_SIZES                                                                                              \
    .layers = 24, .hidden = 1024, .query_heads = 16, .kv_heads = 0, .intermediate = MB_UNSAID, .vocab = 30592,    \
    .positions = 16384, .norm_eps = 1e-5, .rope_theta = 10000, .rotary_factor = 0.5, .experts = true,             \
    .moe = {.experts = 16,                                                                                        \
            .per_token = 2,                                                                                       \
            .size = MB_UNSAID,                                                                                    \
            .groups = 8,                                                                                          \
            .groups_kept = 4,                                                                                     \
            .scale = 2.5,                                                                                         \
            .bias = true,                                                                                         \
            .normalise = true}

static const mb_config_class classes[] = {
    {.model_type = "Fast_dLLM_Qwen",
     .family = MB_FAMILY_FAST_DLLM_V2,
     QWEN_SIZES,
     .qkv_bias = true,
     .window_layers = 28,
     .layer_types = true,
     .block = 32,
     .mask_id = 151665,
     .end_id = 151645,
     .one_end = true},
    {.model_type = "sdar",
     .family = MB_FAMILY_SDAR,
     QWEN_SIZES,
     .head_dim = 128,
     QWEN3_LAYER,
     .window_layers = 28,
     .block = 4,
     .mask_id = -1,
     .mask_of_tokenizer = true},
    {.model_type = "sdar_moe",
     .family = MB_FAMILY_SDAR,
     QWEN_MOE_SIZES,
     QWEN3_LAYER,
     .window_layers = 28,
     .block = 4,
     .mask_id = -1,
     .mask_of_tokenizer = true},
    /* Plain Qwen3 is autoregressive: block and mask in the file make it a model of SDAR's kind. */
    {.model_type = "qwen3",
     .family = MB_FAMILY_SDAR,
     QWEN_SIZES,
     .head_dim = 128,
     QWEN3_LAYER,
     .window_layers = 28,
     .layer_types = true,
     .mask_id = -1},
    {.model_type = "qwen3_moe", .family = MB_FAMILY_SDAR, QWEN_MOE_SIZES, QWEN3_LAYER, .mask_id = -1},
    /* Plain Qwen2, as plain Qwen3. */
    {.model_type = "qwen2",
     .family = MB_FAMILY_SDAR,
     QWEN_SIZES,
     .end_id = -1,
     .qkv_bias = true,
     .window_layers = 28,
     .layer_types = true,
     .mask_id = -1},
    {.model_type = "llama",
     .architecture = "StableDiffcoderForCausalLM",
     .family = MB_FAMILY_SDAR,
     LLAMA_SIZES,
     .block = 4,
     .mask_id = -1,
     .mask_of_tokenizer = true},
    {.model_type = "llama", .family = MB_FAMILY_SDAR, LLAMA_SIZES, .mask_id = -1},
    {.model_type = "mistral",
     .family = MB_FAMILY_SDAR,
     .layers = 32,
     .hidden = 4096,
     .query_heads = 32,
     .kv_heads = 8,
     .intermediate = 14336,
     .vocab = 32000,
     .positions = 131072,
     .norm_eps = 1e-6,
     .rope_theta = 10000,
     .rotary_factor = 1,
     .end_id = 2,
     .window = 4096,
     .layer_types = true,
     .mask_id = -1},
    {.model_type = "nemotron_labs_diffusion",
     .family = MB_FAMILY_SDAR,
     .refuse =
         "is not supported yet: it needs causal attention over prompts and finished blocks, and queries that "
         "are scaled by their position (llama_4_scaling_beta)"},
    {.model_type = "diffusion_gemma",
     .family = MB_FAMILY_DIFFUSION_GEMMA,
     .nested = "text_config",
     .experts = true,
     .layers = 30,
     .hidden = 2304,
     .query_heads = 8,
     .kv_heads = 4,
     .head_dim = 256,
     .intermediate = 9216,
     .vocab = 262144,
     .positions = 131072,
     .norm_eps = 1e-6,
     .tied = true,
     .qk_norm = true,
     .norm_one_rounding = true,
     .block = 256,
     .mask_id = -1,
     .end_id = 1},
    {.model_type = "llada2_moe",
     .family = MB_FAMILY_LLADA2,
     LLADA2_SIZES,
     .qk_norm = true,
     .qkv_bias_key = "use_qkv_bias",
     .block = 32,
     .mask_id = 156895,
     .end_id = 156892,
     .one_end = true,
     .edits_from = 32768},
    {.model_type = "llada2_moe_veomni",
     .family = MB_FAMILY_LLADA2,
     .experts = true,
     .refuse =
         "keeps all experts of a layer in one tensor, as training does: use the checkpoint in the hub's layout "
         "(\"llada2_moe\")"},
};
#define CLASS_COUNT (sizeof classes / sizeof classes[0])

/* Whether the file's list has the name. */
static bool names(const cJSON *architectures, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, architectures) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, name) == 0)
            return true;
    }
    return false;
}

const mb_config_class *mb_config_class_find(const char *model_type, const cJSON *architectures)
{
    for (size_t i = 0; i < CLASS_COUNT; i++)
        if (strcmp(classes[i].model_type, model_type) == 0 &&
            (!classes[i].architecture || names(architectures, classes[i].architecture)))
            return &classes[i];
    return NULL;
}

void mb_config_class_list(mb_text *out)
{
    for (size_t i = 0; i < CLASS_COUNT; i++)
        if (!classes[i].refuse && !classes[i].architecture)
            mb_text_printf(out, "%s%s", i ? ", " : "", classes[i].model_type);
}
