/*
 * classes.h - the configuration classes that config.json can name with "model_type", and what each of them puts
 * where the file is silent. Internal to model/checkpoint/.
 */
#ifndef MB_MODEL_CLASSES_H
#define MB_MODEL_CLASSES_H

#include "model/model.h"

#define MB_UNSAID (-1) /* the class has no default: the file must say it */

typedef struct mb_config_class {
    const char *model_type;   /* exactly */
    const char *architecture; /* NULL, or what "architectures" must name; such a row stands before the plain one */
    mb_family family;
    bool experts;       /* the layers have experts */
    const char *nested; /* NULL, or the object of the file with the text model's sizes: a canvas model */
    const char *refuse; /* NULL, or why such a checkpoint cannot be loaded */
    /* Sizes; MB_UNSAID where the class leaves them open. kv_heads 0: as many as query heads. head_dim 0: hidden
     * size by query heads. */
    int32_t layers, hidden, query_heads, kv_heads, head_dim, intermediate, vocab, positions;
    double norm_eps, rope_theta, rotary_factor;
    bool tied, qk_norm, qkv_bias;
    const char *qkv_bias_key; /* NULL: whatever the file says, it stays */
    bool norm_one_rounding;   /* RMSNorm of the class's code rounds once, not before the weight as well */
    /* With use_sliding_window the layers from max_window_layers on have a window; this is that key's default, 0 =
     * all layers have one. layer_types: the class reads that list, which decides then. */
    int32_t window_layers;
    bool layer_types;
    int32_t window; /* > 0: "sliding_window" alone gives all layers a window; this is its default */
    /* Block diffusion. 0 and -1: such files have no value of their own; the tokenizer's mask token is asked then.
     */
    int32_t block, mask_id;
    bool mask_of_tokenizer; /* and the block may stand in the folder's name, as "-b32" */
    int32_t end_id;         /* ends a text where no file names a token; -1 = none */
    int32_t edits_from;     /* positions from which a file is of a model that edits written tokens; 0 = never */
    bool one_end;           /* its generate() stops at one token, whatever generation_config.json lists */
    mb_moe moe;             /* size MB_UNSAID as above; shared counts experts here */
} mb_config_class;

/* architectures: the list of that name in the file, or NULL. NULL: no class has this name. */
struct cJSON;
const mb_config_class *mb_config_class_find(const char *model_type, const struct cJSON *architectures);
/* "Fast_dLLM_Qwen, sdar, ...": those that can be loaded. */
void mb_config_class_list(mb_text *out);

#endif
