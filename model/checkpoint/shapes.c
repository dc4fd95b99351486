/*
 * shapes.c - named shapes: the published dimensions of each model (its config.json; models/tiny), for synthetic
 * models with random weights. Those of SDAR 1.7B and 30B-A3B are derived from their Qwen3 bases.
 */
#include "model/checkpoint/config.h"

#include <string.h>

#define QWEN_STOPS .stop_ids = {151645, 151643}, .stop_count = 2
#define LLADA2                                                                                                    \
    .family = MB_FAMILY_LLADA2, .head_dim = 128, .rotary_dim = 64, .vocab = 157184, .positions = 16384,           \
    .block = 32, .mask_id = 156895, .stop_ids = {156892}, .stop_count = 1, .qk_norm = true, .rope_theta = 600000

#define LLADA2_MOE                                                                                                \
    .experts = 256, .per_token = 8, .dense_layers = 1, .groups = 8, .groups_kept = 4, .score = MB_SCORE_SIGMOID,  \
    .combine = MB_COMBINE_SUM, .scale = 2.5, .bias = true, .normalise = true

/* Of six layers the last has no window. */
#define FIVE_OF_SIX 1, 1, 1, 1, 1, 0
#define GEMMA                                                                                                     \
    .family = MB_FAMILY_DIFFUSION_GEMMA, .positions = 262144, .mask_id = -1, .qk_norm = true,                     \
    .norm_one_rounding = true, .tied = true, .rope_theta = 1e6, .wrapped = true, .value_is_key = true,            \
    .softcap = 30,                                                                                                \
    .canvas = {.steps = 48,                                                                                       \
               .entropy_bound = 0.1,                                                                              \
               .hot = 0.8,                                                                                        \
               .cold = 0.4,                                                                                       \
               .stable = 1,                                                                                       \
               .confident = 0.005,                                                                                \
               .image_ids = {-1, -1, -1}}
#define GEMMA_MOE                                                                                                 \
    .groups = 1, .groups_kept = 1, .score = MB_SCORE_SOFTMAX, .combine = MB_COMBINE_STEPS, .scale = 1,            \
    .normalise = true, .beside = true

/* clang-format off */
static const mb_model_config shapes[] = {
    {.name = "fast_dllm_v2_7b",
     .family = MB_FAMILY_FAST_DLLM_V2,
     .layers = 28,
     .hidden = 3584,
     .query_heads = 28,
     .kv_heads = 4,
     .head_dim = 128,
     .intermediate = 18944,
     .vocab = 152064,
     .positions = 32768,
     .block = 32,
     .mask_id = 151665,
     QWEN_STOPS,
     .qkv_bias = true},
    {.name = "fast_dllm_v2_1_5b",
     .family = MB_FAMILY_FAST_DLLM_V2,
     .layers = 28,
     .hidden = 1536,
     .query_heads = 12,
     .kv_heads = 2,
     .head_dim = 128,
     .intermediate = 8960,
     .vocab = 151936,
     .positions = 32768,
     .block = 32,
     .mask_id = 151665,
     QWEN_STOPS,
     .qkv_bias = true,
     .tied = true},
    {.name = "sdar_8b",
     .family = MB_FAMILY_SDAR,
     .layers = 36,
     .hidden = 4096,
     .query_heads = 32,
     .kv_heads = 8,
     .head_dim = 128,
     .intermediate = 12288,
     .vocab = 151936,
     .positions = 32768,
     .block = 4,
     .mask_id = 151669,
     QWEN_STOPS,
     .qk_norm = true,
     .norm_one_rounding = true},
    {.name = "sdar_4b",
     .family = MB_FAMILY_SDAR,
     .layers = 36,
     .hidden = 2560,
     .query_heads = 32,
     .kv_heads = 8,
     .head_dim = 128,
     .intermediate = 9728,
     .vocab = 151936,
     .positions = 32768,
     .block = 4,
     .mask_id = 151669,
     QWEN_STOPS,
     .qk_norm = true,
     .norm_one_rounding = true},
    {.name = "sdar_1_7b",
     .family = MB_FAMILY_SDAR,
     .layers = 28,
     .hidden = 2048,
     .query_heads = 16,
     .kv_heads = 8,
     .head_dim = 128,
     .intermediate = 6144,
     .vocab = 151936,
     .positions = 32768,
     .block = 4,
     .mask_id = 151669,
     QWEN_STOPS,
     .qk_norm = true,
     .norm_one_rounding = true},
    {.name = "sdar_30b_a3b",
     .family = MB_FAMILY_SDAR,
     .layers = 48,
     .hidden = 2048,
     .query_heads = 32,
     .kv_heads = 4,
     .head_dim = 128,
     .intermediate = 6144,
     .vocab = 151936,
     .positions = 32768,
     .block = 4,
     .mask_id = 151669,
     QWEN_STOPS,
     .qk_norm = true,
     .norm_one_rounding = true,
     .moe = {.experts = 128,
             .per_token = 8,
             .size = 768,
             .groups = 1,
             .groups_kept = 1,
             .score = MB_SCORE_SOFTMAX,
             .combine = MB_COMBINE_STEPS,
             .scale = 1,
             .normalise = true,
             .rounded = true}},
    /* Sizes of its config.json as Diffulex has them; 8.25 B parameters, as its card says. */
    {.name = "stable_diffcoder_8b",
     .family = MB_FAMILY_SDAR,
     .layers = 32,
     .hidden = 4096,
     .query_heads = 32,
     .kv_heads = 8,
     .head_dim = 128,
     .intermediate = 14336,
     .vocab = 155136,
     .positions = 8192,
     .block = 4,
     .mask_id = 5,
     .stop_ids = {2},
     .stop_count = 1,
     .rope_theta = 500000},
    {.name = "llada2_mini",
     LLADA2,
     .layers = 20,
     .hidden = 2048,
     .query_heads = 16,
     .kv_heads = 4,
     .intermediate = 5120,
     .moe = {LLADA2_MOE, .size = 512, .shared = 512}},
    {.name = "llada2_flash",
     LLADA2,
     .layers = 32,
     .hidden = 4096,
     .query_heads = 32,
     .kv_heads = 4,
     .intermediate = 9216,
     .moe = {LLADA2_MOE, .size = 1024, .shared = 1024}},
    /* 25.25 B parameters, a few of them active: sizes of public copies of its config.json. */
    {.name = "diffusion_gemma_26b",
     GEMMA,
     .layers = 30,
     .hidden = 2816,
     .query_heads = 16,
     .kv_heads = 2,
     .head_dim = 512,
     .intermediate = 2112,
     .vocab = 262144,
     .block = 256,
     .stop_ids = {1, 106, 50},
     .stop_count = 3,
     .rope = {.type = MB_ROPE_PROPORTIONAL, .factor = 1, .turned = 64},
     .local = {.window = 1024, .head_dim = 256, .kv_heads = 8, .rotary_dim = 256, .rope_theta = 1e4,
               .is = {FIVE_OF_SIX, FIVE_OF_SIX, FIVE_OF_SIX, FIVE_OF_SIX, FIVE_OF_SIX}},
     .moe = {GEMMA_MOE, .experts = 128, .per_token = 8, .size = 704}},
    {.name = "tiny",
     .family = MB_FAMILY_SDAR,
     .layers = 6,
     .hidden = 256,
     .query_heads = 8,
     .kv_heads = 2,
     .head_dim = 64,
     .intermediate = 768,
     .vocab = 2048,
     .positions = 32768,
     .block = 32,
     .mask_id = 2047,
     .stop_ids = {2046, 2044},
     .stop_count = 2,
     .qk_norm = true,
     .norm_one_rounding = true,
     .tied = true},
    /* The smallest with experts, for tests and for a look at the latency pass without a GPU. */
    {.name = "tiny_moe",
     .family = MB_FAMILY_LLADA2,
     .layers = 4,
     .hidden = 256,
     .query_heads = 8,
     .kv_heads = 2,
     .head_dim = 64,
     .rotary_dim = 32,
     .intermediate = 768,
     .vocab = 2048,
     .positions = 32768,
     .block = 32,
     .mask_id = 2047,
     .stop_ids = {2046},
     .stop_count = 1,
     .qk_norm = true,
     .rope_theta = 600000,
     .moe = {.experts = 32,
             .per_token = 4,
             .size = 64,
             .shared = 64,
             .dense_layers = 1,
             .groups = 4,
             .groups_kept = 2,
             .score = MB_SCORE_SIGMOID,
             .combine = MB_COMBINE_SUM,
             .scale = 2.5,
             .bias = true,
             .normalise = true}},
    /* The smallest with a canvas and layers of two kinds. */
    {.name = "tiny_canvas",
     GEMMA,
     .layers = 6,
     .hidden = 128,
     .query_heads = 4,
     .kv_heads = 1,
     .head_dim = 64,
     .intermediate = 96,
     .vocab = 1024,
     .block = 32,
     .stop_ids = {1},
     .stop_count = 1,
     .rope = {.type = MB_ROPE_PROPORTIONAL, .factor = 1, .turned = 8},
     .local = {.window = 64, .head_dim = 32, .kv_heads = 2, .rotary_dim = 32, .rope_theta = 1e4,
               .is = {FIVE_OF_SIX}},
     .moe = {GEMMA_MOE, .experts = 8, .per_token = 2, .size = 32}},
};
/* clang-format on */

/* The error lists the known names, since nobody remembers the spelling. */
int mb_config_shape(mb_model_config *config, const mb_model_request *request, mb_error *err)
{
    mb_text known = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(shapes[i].name, request->shape) == 0) {
            mb_text_free(&known);
            *config = shapes[i];
            config->rope_theta = config->rope_theta > 0 ? config->rope_theta : 1e6;
            config->rotary_dim = config->rotary_dim ? config->rotary_dim : config->head_dim;
            config->norm_eps = 1e-6;
            config->synthetic = true;
            mb_hash_bytes(shapes[i].name, strlen(shapes[i].name), config->files_hash);
            return mb_config_finish(config, request, shapes[i].name, err);
        }
        mb_text_printf(&known, "%s%s", i ? ", " : "", shapes[i].name);
    }
    mb_fail(err, 0, "unknown model shape \"%.64s\": use one of %s", request->shape, known.data ? known.data : "");
    mb_text_free(&known);
    return MB_E_INPUT;
}

const char *mb_model_shape_name(size_t i)
{
    return i < sizeof shapes / sizeof shapes[0] ? shapes[i].name : NULL;
}
