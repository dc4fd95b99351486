/*
 * layout.h - which tensors a model consists of, as data: the one table that planning memory, reading a
 * checkpoint and making random weights all walk. Internal to model/.
 */
#ifndef MB_MODEL_LAYOUT_H
#define MB_MODEL_LAYOUT_H

#include "model/internal.h"

typedef enum mb_weight_kind {
    MB_WEIGHT_EMBED,  /* embedding rows */
    MB_WEIGHT_LINEAR, /* a projection from the normed residual stream */
    MB_WEIGHT_OUTPUT, /* a projection whose result is added to the residual stream: o, down */
    MB_WEIGHT_HEAD,   /* lm_head */
    MB_WEIGHT_BIAS,
    MB_WEIGHT_NORM,
    MB_WEIGHT_BALANCE /* the bias of a router: a vector of fp32, whatever T is; random models have zeros */
} mb_weight_kind;

/* One named tensor of the checkpoint and the rows of the device tensor that it becomes; or, with copies, one
 * tensor of each expert, whose number stands in the name. */
typedef struct mb_weight_part {
    const char *name; /* "model.norm.weight"; inside a layer the rest behind mb_layout_prefix() and "N.", %d =
                       * expert; a whole name behind a "/", %d = layer */
    mb_weight_kind kind;
    int64_t rows, cols;  /* vectors: rows = length, cols = 1, and the checkpoint's shape is [rows] */
    size_t field;        /* offset of the void * in struct mb_layer or struct mb_model */
    int64_t first_row;   /* where the part begins in the device tensor */
    int64_t tensor_rows; /* rows of the whole device tensor */
    int32_t copies;      /* experts; 0 = a single tensor */
    int64_t copy_rows;   /* rows of the device tensor from one expert to the next */
    int64_t planes;      /* 0: [rows][cols]; else the checkpoint's shape is [planes][rows / planes][cols] */
} mb_weight_part;

#define MB_WEIGHT_PARTS_MAX 28

/* "model.layers.": in front of a layer's number. */
const char *mb_layout_prefix(const mb_model_config *config);
/* Beginnings of names that are left out, and what they are for; false: there is no i-th. */
bool mb_layout_skipped(const mb_model_config *config, size_t i, const char **prefix);

/* Parts of one layer, parts of the rest of the model; return how many. A device tensor is named by consecutive
 * parts with the same field, the first of which has first_row 0. */
int mb_layout_layer(const mb_model_config *config, int32_t layer, mb_weight_part parts[MB_WEIGHT_PARTS_MAX]);
int mb_layout_model(const mb_model_config *config, mb_weight_part parts[MB_WEIGHT_PARTS_MAX]);

/* How many tensors of the checkpoint a part is. */
static inline int32_t mb_layout_copies(const mb_weight_part *part)
{
    return part->copies > 0 ? part->copies : 1;
}
/* Whether the part is a vector: shape [rows] in the checkpoint. */
static inline bool mb_layout_is_vector(const mb_weight_part *part)
{
    return part->kind == MB_WEIGHT_NORM || part->kind == MB_WEIGHT_BIAS || part->kind == MB_WEIGHT_BALANCE;
}
/* Type on the device, where weights have type T. */
static inline mb_type mb_layout_type(const mb_weight_part *part, mb_type type)
{
    return part->kind == MB_WEIGHT_BALANCE ? MB_F32 : type;
}

/* Bytes that the arena gives away for a tensor: a multiple of 256. */
size_t mb_layout_padded(size_t bytes);

#endif
