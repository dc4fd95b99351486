/*
 * stage.h - a stage on which a method plays without a model: made-up keys, values and queries, and a loop that
 * calls the hooks in the order of method.h. The method is opened and called by the program's own attender
 * (attender.c, attender_ops.c), on as much of a session as that looks at. Everything the method answered and
 * everything that came out of the attention is recorded, beside exact attention on the same data.
 *
 * Made-up data depend on (seed, layer, logical head, position, block, step, row) alone, never on what a method
 * returned: two runs of one case see the same queries. The same code runs on any backend.
 */
#ifndef MB_STAGE_H
#define MB_STAGE_H

#include "base/base.h"
#include "kernels/kernels.h"
#include "methods/method.h"

typedef struct mb_stage_env {
    const mb_kernels *kernels;
    mb_device *device;
    mb_type type; /* the device's storage type */
} mb_stage_env;

#define MB_STAGE_BATCH 4
#define MB_STAGE_HEADS 8 /* KV heads of a case, at most */
#define MB_STAGE_STEPS 16

struct mb_tapes; /* tape.h */

typedef struct mb_stage_case {
    int32_t layers, kv_heads, group, head_dim;
    int32_t block, steps, blocks, batch;
    int32_t prefix[MB_STAGE_BATCH]; /* tokens in front of the first block, per sequence */
    uint64_t seed;
    const int32_t *head_order; /* NULL, or [kv_heads]: slot h holds logical head head_order[h] */
    bool adaptive;             /* the method is not told the number of steps */
    bool poison;               /* values that an answer leaves out are NaN while it is attended to */
    bool still;                /* the same queries at all steps of a block, but for: */
    int32_t moving_rows;       /* rows below this one, which change once, at step 2 */
    int32_t warmups;           /* requests that the method sees before the one that is recorded */
    struct mb_tapes *tapes;    /* forwards are replayed as graphs are; NULL: hooks run in all of them */
} mb_stage_case;

/* One layer of one forward. */
typedef struct mb_stage_event {
    int32_t block, step, layer; /* step 0 = commit */
    int32_t mode;
    int32_t prefix[MB_STAGE_BATCH];
    mb_selection answer;           /* pages is only told from NULL */
    int32_t granularity, capacity; /* of the index; 0 without one */
    int32_t *ids, *counts;         /* [batch][kv_heads][capacity], [batch][kv_heads] */
    double *captured;              /* [batch][kv_heads] exact mass on the index */
    float *out, *exact;            /* [batch][block][query_heads][head_dim] */
    double read;                   /* prefix tokens of count_read(), over sequences and KV heads */
} mb_stage_event;

typedef struct mb_stage_run {
    mb_shape shape;
    mb_stage_event *events;
    size_t count, size;       /* size: floats of out */
    int32_t late_allocations; /* alloc() calls outside open(): must stay 0 */
    bool unsupported;         /* the method says that it cannot serve this shape with these options */
    double counters[32];
    double *maps, *weights; /* [maps][MB_STAGE_STEPS][layers], 0 where nothing was reported */
} mb_stage_run;

/* Plays the case; 0 or negative with a sentence. The run is filled as far as it came; free it in any case. */
int mb_stage_play(const mb_stage_env *env, const mb_stage_case *stage_case, const mb_method *method,
                  const void *options, mb_stage_run *run, mb_error *err);
void mb_stage_free(mb_stage_run *run);
/* The event of (block, step, layer), or NULL. */
const mb_stage_event *mb_stage_find(const mb_stage_run *run, int32_t block, int32_t step, int32_t layer);

#endif
