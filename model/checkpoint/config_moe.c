/*
 * config_moe.c - the keys of a mixture of experts in config.json -> mb_moe. Two kinds are known:
 * LLaDA2's (sigmoid, bias, groups, a shared expert) and SDAR's, which is Qwen3's (softmax over all experts).
 *
 * Where the file is silent the class's defaults count (classes.c); a key that would ask for something else than
 * these two is refused.
 */
#include "model/checkpoint/config.h"

#include "model/checkpoint/classes.h"
#include "model/checkpoint/json.h"

#include <string.h>

/* What both kinds have. transformers 5 writes num_local_experts for num_experts. */
static int read_common(mb_moe *moe, const cJSON *root, const char *where, mb_error *err)
{
    int32_t local = 0;
    int rc = mb_model_json_want_int(root, "num_experts", where, 1, MB_EXPERTS_MAX, &moe->experts, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "num_local_experts", where, 1, MB_EXPERTS_MAX, &local, err);
    if (rc == MB_OK && local && mb_json_member(root, "num_experts") && local != moe->experts)
        rc = mb_fail(err, MB_E_INPUT, "%s: \"num_experts\" %d and \"num_local_experts\" %d are one number", where,
                     moe->experts, local);
    moe->experts = local ? local : moe->experts;
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "num_experts_per_tok", where, 1, MB_TOP_EXPERTS_MAX, &moe->per_token,
                                    err);
    if (rc == MB_OK && moe->size == MB_UNSAID)
        rc = mb_model_json_need_int(root, "moe_intermediate_size", where, 1, 1 << 20, &moe->size, err);
    else if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "moe_intermediate_size", where, 1, 1 << 20, &moe->size, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(root, "norm_topk_prob", where, &moe->normalise, err);
    return rc;
}

/* A text that must have one value where it is given. */
static int fixed_text(const cJSON *root, const char *key, const char *value, const char *where, mb_error *err)
{
    const cJSON *item = mb_json_member(root, key);
    if (item && (!cJSON_IsString(item) || strcmp(item->valuestring, value) != 0))
        return mb_fail(err, MB_E_INPUT, "%s: \"%s\" must be \"%s\": nothing else is computed", where, key, value);
    return MB_OK;
}

/* LLaDA2.2: a token's experts come from those that its block of tokens may use, and an edit may delete or insert.
 * Its folder still has the keys of 2.1's groups. */
static int refuse_llada22(const cJSON *root, const char *where, mb_error *err)
{
    const cJSON *capacity = mb_json_member(root, "expert_capacity");
    if (capacity && !cJSON_IsNull(capacity) && !(cJSON_IsNumber(capacity) && capacity->valuedouble == 0))
        return mb_fail(err, MB_E_INPUT,
                       "%s: \"expert_capacity\" asks for LLaDA2.2's choice of experts by block, which is not "
                       "computed: take a checkpoint of LLaDA2.0 or 2.1",
                       where);
    if (mb_json_member(root, "delete_token_id") || mb_json_member(root, "split_token_id"))
        return mb_fail(
            err, MB_E_INPUT,
            "%s: \"delete_token_id\" and \"split_token_id\" ask for LLaDA2.2's deletions and insertions, "
            "which are not decoded: take a checkpoint of LLaDA2.0 or 2.1",
            where);
    return MB_OK;
}

/* LLaDA2's router. Its code (modeling_llada2_moe.py) divides the weights by their sum whenever there are several,
 * whatever norm_topk_prob says: a file that asks for less would not be computed as written. */
static int read_llada2(mb_model_config *config, const cJSON *root, const char *where, mb_error *err)
{
    mb_moe *moe = &config->moe;
    int32_t shared = moe->shared;
    moe->score = MB_SCORE_SIGMOID;
    moe->combine = MB_COMBINE_SUM;
    int rc = refuse_llada22(root, where, err);
    if (rc == MB_OK)
        rc = read_common(moe, root, where, err);
    if (rc == MB_OK && !moe->normalise)
        rc = mb_fail(err, MB_E_INPUT, "%s: \"norm_topk_prob\" false is not supported for LLaDA2", where);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "n_group", where, 1, MB_EXPERTS_MAX, &moe->groups, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "topk_group", where, 1, MB_EXPERTS_MAX, &moe->groups_kept, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(root, "routed_scaling_factor", where, 1e-6, 1e6, &moe->scale, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "num_shared_experts", where, 0, 64, &shared, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "first_k_dense_replace", where, 0, 1024, &moe->dense_layers, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(root, "moe_router_enable_expert_bias", where, &moe->bias, err);
    if (rc == MB_OK)
        rc = fixed_text(root, "score_function", "sigmoid", where, err);
    if (rc == MB_OK)
        rc = fixed_text(root, "router_dtype", "fp32", where, err);
    moe->shared = shared * moe->size;
    moe->normalise = moe->per_token > 1;
    return rc;
}

/* Dense layers of Qwen3-MoE: mlp_only_layers lists them, and every one that decoder_sparse_step does not divide.
 * Only layers at the beginning can be dense here. */
static int read_dense_layers(mb_moe *moe, const cJSON *root, const char *where, mb_error *err)
{
    const cJSON *list = mb_json_member(root, "mlp_only_layers"), *item;
    int32_t step = 1;
    int rc = mb_model_json_want_int(root, "decoder_sparse_step", where, 1, 1024, &step, err);
    if (rc == MB_OK && step != 1)
        rc = mb_fail(err, MB_E_INPUT, "%s: \"decoder_sparse_step\" %d is not supported, only 1", where, step);
    cJSON_ArrayForEach(item, list) {
        int64_t layer = 0;
        if (rc == MB_OK && (!mb_model_json_integer(item, 0, 1024, &layer) || layer != moe->dense_layers++))
            rc = mb_fail(err, MB_E_INPUT, "%s: \"mlp_only_layers\" may list the first layers only, as 0, 1, ...",
                         where);
    }
    return rc;
}

/* SDAR-MoE's router, which is Qwen3-MoE's. The gate is a linear layer of T, and so are the weights: both are
 * rounded. */
static int read_sdar(mb_model_config *config, const cJSON *root, const char *where, mb_error *err)
{
    static const char *const foreign[] = {"n_group",
                                          "n_shared_experts",
                                          "num_shared_experts",
                                          "score_function",
                                          "shared_expert_intermediate_size",
                                          "routed_scaling_factor"};
    mb_moe *moe = &config->moe;
    moe->groups = moe->groups_kept = 1;
    moe->score = MB_SCORE_SOFTMAX;
    moe->combine = MB_COMBINE_STEPS;
    moe->scale = 1;
    moe->rounded = true;
    int rc = read_common(moe, root, where, err);
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0] && rc == MB_OK; i++)
        if (mb_json_member(root, foreign[i]))
            rc = mb_fail(err, MB_E_INPUT, "%s: \"%s\" does not belong to experts of this kind", where, foreign[i]);
    return rc == MB_OK ? read_dense_layers(moe, root, where, err) : rc;
}

int mb_config_read_moe(mb_model_config *config, const mb_moe *preset, const cJSON *root, const char *where,
                       mb_error *err)
{
    mb_moe *moe = &config->moe;
    *moe = *preset;
    int rc = config->family == MB_FAMILY_LLADA2 ? read_llada2(config, root, where, err)
                                                : read_sdar(config, root, where, err);
    if (rc != MB_OK)
        return rc;
    /* The reference looks for the two best of every group, so a group has at least two. */
    if (moe->experts % moe->groups || (moe->groups > 1 && moe->experts / moe->groups < 2) ||
        moe->groups_kept > moe->groups)
        return mb_fail(err, MB_E_INPUT, "%s: %d experts cannot be chosen from %d of %d groups", where,
                       moe->experts, moe->groups_kept, moe->groups);
    if (moe->per_token > moe->experts / moe->groups * moe->groups_kept)
        return mb_fail(err, MB_E_INPUT, "%s: %d experts for each token, but only %d can be chosen", where,
                       moe->per_token, moe->experts / moe->groups * moe->groups_kept);
    if (moe->dense_layers >= config->layers)
        return mb_fail(err, MB_E_INPUT, "%s: all %d layers are dense: no layer has experts", where,
                       config->layers);
    return MB_OK;
}
