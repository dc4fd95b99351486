/*
 * slice.h - which rows and columns of a checkpoint's tensors a rank of a split model has. Internal to model/.
 */
#ifndef MB_MODEL_SLICE_H
#define MB_MODEL_SLICE_H

#include "model/checkpoint/layout.h"

typedef struct mb_slice_place {
    const mb_model_config *whole, *slice;
    int32_t ranks, rank;
} mb_slice_place;

/* Rows of a tensor of the checkpoint that follow each other in the slice. */
typedef struct mb_slice_band {
    int64_t first, rows;
} mb_slice_band;
#define MB_SLICE_BANDS 3

/* The bands of a part, in the order of its rows on the device; returns how many. whole: the same part of the whole
 * model. */
int mb_slice_bands(const mb_weight_part *whole, const mb_weight_part *part, const mb_slice_place *place,
                   mb_slice_band bands[MB_SLICE_BANDS]);
/* The first of the part's columns. */
int64_t mb_slice_column(const mb_weight_part *whole, const mb_weight_part *part, const mb_slice_place *place);
/* The first KV head of a rank among those of the whole model. */
int32_t mb_slice_kv_head(const mb_model_config *whole, int32_t ranks, int32_t rank);

#endif
