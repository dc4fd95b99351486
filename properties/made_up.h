/*
 * made_up.h - the queries, keys and values of a stage. They depend on the case's seed and on where they stand
 * alone, never on what a method returned. The queries of a KV head point one way, and so does every eighth of its
 * keys, so that there is something to choose.
 */
#ifndef MB_MADE_UP_H
#define MB_MADE_UP_H

#include "properties/stage.h"

enum { MB_MADE_KEY = 2, MB_MADE_VALUE = 3 };

/* head: a KV head, or a query head for queries. version tells a block's drafts, and the steps of a query, apart.
 */
typedef struct mb_made_place {
    int32_t layer, head, sequence, position, version;
} mb_made_place;

/* What the queries of a KV head look for: [head_dim]; i = layer * kv_heads + head. */
void mb_made_direction(const mb_stage_case *c, int32_t i, double *to);
/* kind: MB_MADE_KEY or MB_MADE_VALUE. towards: the direction that keys are pulled to, NULL: none. to: [head_dim].
 */
void mb_made_vector(const mb_stage_case *c, int kind, const mb_made_place *place, const double *towards,
                    float *to);
/* A row's query: its head's direction, something of its own, and a part that changes with the version. */
void mb_made_query(const mb_stage_case *c, bool pre_rope, const mb_made_place *place, const double *towards,
                   float *to);

#endif
