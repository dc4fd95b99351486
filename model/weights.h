/*
 * weights.h - filling the tensors of a model that is being opened. Internal to model/.
 */
#ifndef MB_MODEL_WEIGHTS_H
#define MB_MODEL_WEIGHTS_H

#include "model/checkpoint/layout.h"
#include "model/checkpoint/safetensors.h"

#define MB_STAGE_BYTES ((size_t)16 << 20)

/* What the loading functions share; owned by mb_model_open_rank(). */
typedef struct mb_weights {
    mb_model *model;
    const mb_checkpoint *checkpoint; /* NULL: random weights */
    uint64_t seed;
    unsigned char *stage; /* MB_STAGE_BYTES */
    const char *folder;
    mb_error *err;
} mb_weights;

/* The name a part has in the checkpoint; layer -1 = outside the layers. copy: the expert, where there are several.
 */
void mb_weights_name(char *name, size_t cap, const mb_weight_part *part, const char *prefix, int32_t layer,
                     int32_t copy);
/* One part, with all its copies, into its rows of the device tensor. whole: the same part of the whole model. Both
 * are elements of the lists that layout.h makes. */
int mb_weights_upload(const mb_weights *load, const mb_weight_part *whole, const mb_weight_part *part,
                      int32_t layer, unsigned char *tensor);
/* The backend's own sentence, with what was being done in front. */
int mb_weights_failed(const mb_weights *load, int rc, const char *what);

#endif
