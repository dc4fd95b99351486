/*
 * recorder.h - the queries, keys and values of a stage case, copied out of a play (CPU), and attention over them
 * by brute force in double: the reference for methods that mix keys of one moment with queries of another.
 */
#ifndef MB_TESTS_METHODS_RECORDER_H
#define MB_TESTS_METHODS_RECORDER_H

#include "properties/stage.h"

/* One layer of one forward. q, q_pre: [batch][block][Hq][D]; k, v: [batch][Hkv][slots][D]. */
typedef struct mb_snapshot {
    float *q, *q_pre, *k, *v;
    int32_t prefix[MB_STAGE_BATCH];
} mb_snapshot;

typedef struct mb_recording {
    mb_stage_case c;
    mb_shape shape;
    mb_snapshot *at; /* [blocks][steps+1][layers] */
} mb_recording;

/* Plays the case with a method that only looks. 0 or negative with a sentence. */
int mb_record(const mb_stage_env *env, const mb_stage_case *c, mb_recording *recording, mb_error *err);
void mb_recording_free(mb_recording *recording);
const mb_snapshot *mb_recording_at(const mb_recording *recording, int32_t block, int32_t step, int32_t layer);

/* Scaled logit of row r, query head a of one snapshot's queries against key j of another's cache. */
double mb_recording_logit(const mb_recording *recording, const mb_snapshot *query, const mb_snapshot *cache,
                          int32_t b, int32_t r, int32_t a, int32_t j);
/* mass[j] = mean over rows (all, or the one row `only` >= 0) and the group of KV head h of the probability of
 * prefix key j; the softmax runs over the prefix, and over the block when `all`. */
void mb_recording_mass(const mb_recording *recording, const mb_snapshot *now, int32_t b, int32_t h, int32_t only,
                       bool all, double *mass);

/* Whose query a prefix key is read by: a row of a snapshot; query NULL: the key is left out. */
typedef struct mb_reader {
    const mb_snapshot *query;
    int32_t row;
} mb_reader;
/* out [D] of row r, query head a: prefix key j weighted by the logit of readers[j], block keys by now's own. */
void mb_recording_attend(const mb_recording *recording, const mb_snapshot *now, int32_t b, int32_t r, int32_t a,
                         const mb_reader *readers, double *out);

#endif
