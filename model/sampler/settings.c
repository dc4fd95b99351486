/*
 * settings.c - what a sampler is set to: the families' published defaults, the modes of LLaDA2.1's model card, and
 * which settings mean something to which family.
 *
 * Sources: Fast-dLLM v2: the model card (threshold 0.9) and generate() of its modeling.py (top_p 0.95). SDAR: its
 * evaluation (threshold 0.95, confidence over all tokens: huggingface_bd3.py) and generate.py (eb_threshold 0.35).
 * LLaDA2.0 and 2.1: generate() of modeling_llada2_moe.py (threshold 0.95, editing_threshold 0.9, max_post_steps
 * 16).
 */
#include "model/sampler/sampler.h"

#include "model/internal.h"

#include <string.h>

#define NEVER_EDIT 2.0 /* a confidence is at most 1 */

void mb_sampler_default(const mb_model_config *config, mb_sampler *sampler)
{
    mb_sampler_preset(config, MB_SCHEDULE_THRESHOLD, MB_SAMPLER_PLAIN, sampler);
}

void mb_sampler_preset(const mb_model_config *config, mb_schedule schedule, mb_sampler_mode mode,
                       mb_sampler *sampler)
{
    *sampler = (mb_sampler){.schedule = schedule,
                            .mode = mode,
                            .steps = config->block,
                            .confidence = MB_BF16,
                            .eb_threshold = 0.35,
                            .top_p = 1,
                            .editing_threshold = NEVER_EDIT,
                            .max_post_steps = 16};
    if (config->canvas.steps > 0) {
        sampler->steps = config->canvas.steps;
        sampler->confidence = MB_F32;
        sampler->remasking = MB_REMASK_ENTROPY;
        sampler->eb_threshold = config->canvas.entropy_bound;
        sampler->temperature = config->canvas.hot;
        return;
    }
    if (config->family == MB_FAMILY_FAST_DLLM_V2) {
        sampler->threshold = 0.9; /* the code's default of 1 is one token a step */
        sampler->top_p = 0.95;
        sampler->confidence_over = MB_CONFIDENCE_KEPT;
        return;
    }
    sampler->threshold = 0.95;
    sampler->remasking = MB_REMASK_DYNAMIC;
    if (config->family != MB_FAMILY_LLADA2)
        return;
    sampler->confidence = MB_F32; /* its logits are cast to fp32 first */
    sampler->confidence_over = MB_CONFIDENCE_KEPT;
    if (schedule == MB_SCHEDULE_THRESHOLD && config->edits)
        sampler->editing_threshold = 0.9;
    if (mode == MB_SAMPLER_QUALITY) {
        sampler->threshold = 0.7;
        sampler->editing_threshold = 0.5;
    } else if (mode == MB_SAMPLER_SPEED) {
        sampler->threshold = 0.5;
        sampler->editing_threshold = 0;
    }
}

const char *mb_sampler_origin(const mb_model_config *config)
{
    if (config->canvas.steps > 0)
        return "DiffusionGemma's rule: a canvas of random tokens, accepted by their entropy; text alone, tensors "
               "of "
               "the vision tower are left out";
    if (config->family != MB_FAMILY_LLADA2)
        return NULL;
    return config->edits ? "LLaDA2.1's rule, which edits written tokens, by max_position_embeddings; sampler key "
                           "editing_threshold 2 turns it off"
                         : "LLaDA2.0's rule, which edits no written token; sampler key mode (quality, speed) is "
                           "LLaDA2.1's";
}

bool mb_sampler_edits(const mb_sampler *sampler)
{
    return sampler->schedule == MB_SCHEDULE_THRESHOLD && sampler->editing_threshold <= 1;
}

/* torch compares a bf16 or fp16 tensor with a number rounded to its type: 0.85 becomes 0.8516 in bf16. */
float mb_sampler_threshold(const mb_sampler *sampler)
{
    return mb_type_round((float)sampler->threshold, sampler->confidence);
}

/* A canvas is accepted by entropy, drawn from all tokens, while its temperature falls. */
static int check_canvas(const mb_model_config *config, const mb_sampler *sampler, mb_error *err)
{
    const char *family = mb_family_name(config->family);
    if (sampler->schedule == MB_SCHEDULE_FIXED)
        return mb_fail(err, MB_E_INPUT, "a sampler of %s has no fixed schedule: it accepts by entropy", family);
    if (sampler->remasking != MB_REMASK_ENTROPY || sampler->block_cache || sampler->eos_early_stop ||
        sampler->editing_threshold <= 1 || sampler->mode != MB_SAMPLER_PLAIN || sampler->top_k != 0 ||
        sampler->top_p != 1)
        return mb_fail(
            err, MB_E_INPUT,
            "a sampler of %s has steps, eb_threshold and temperature (of the first step); the other keys "
            "belong to masks",
            family);
    if (sampler->steps < 1 || !(sampler->eb_threshold > 0) || !(sampler->temperature > config->canvas.cold))
        return mb_fail(
            err, MB_E_INPUT,
            "a sampler of %s needs a step, an eb_threshold above 0, and a temperature above the %g that it "
            "falls to",
            family, config->canvas.cold);
    return MB_OK;
}

int mb_sampler_check(const mb_model_config *config, const mb_sampler *sampler, mb_error *err)
{
    const char *family = mb_family_name(config->family);
    bool fast = config->family == MB_FAMILY_FAST_DLLM_V2, llada2 = config->family == MB_FAMILY_LLADA2;
    bool fixed = sampler->schedule == MB_SCHEDULE_FIXED;
    if (config->canvas.steps > 0)
        return check_canvas(config, sampler, err);
    if (fast && sampler->remasking != MB_REMASK_STATIC)
        return mb_fail(err, MB_E_INPUT, "a sampler of %s has no remasking strategy: it reveals by its threshold",
                       family);
    if (!fast && sampler->block_cache)
        return mb_fail(err, MB_E_INPUT, "a sampler of %s has no block cache: it decodes whole blocks", family);
    if (fixed && sampler->remasking == MB_REMASK_ENTROPY)
        return mb_fail(err, MB_E_INPUT,
                       "the remasking strategy entropy_bounded counts tokens by their entropy, "
                       "the schedule fixed by its steps: choose one");
    if (!llada2 && sampler->eos_early_stop)
        return mb_fail(err, MB_E_INPUT, "a sampler of %s has no early stop: LLaDA2's code has", family);
    if (!llada2 && (sampler->editing_threshold <= 1 || sampler->mode != MB_SAMPLER_PLAIN))
        return mb_fail(err, MB_E_INPUT, "a sampler of %s edits no written token: that is LLaDA2.1's rule", family);
    if (fixed && sampler->editing_threshold <= 1)
        return mb_fail(err, MB_E_INPUT,
                       "editing adds forwards to a block, the schedule fixed has a number of them: choose one");
    return MB_OK;
}
