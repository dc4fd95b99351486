/*
 * jieba_hmm.h - the hidden Markov model that cuts runs of Han characters which no dictionary word covers. Used by
 * jieba.c and held by the tables of jieba_table.h.
 *
 * The tables are jieba's own, read at run time.
 */
#ifndef MB_DATASETS_JIEBA_HMM_H
#define MB_DATASETS_JIEBA_HMM_H

#include "base/base.h"

#define MB_HAN_FIRST 0x4E00u
#define MB_HAN_LAST 0x9FD5u
#define MB_HAN_COUNT (MB_HAN_LAST - MB_HAN_FIRST + 1)
#define MB_HMM_NEVER (-3.14e100) /* log-probability of what the tables do not list */

/* States in the order of their letters, so that "the larger letter wins a tie" is "the larger index wins". */
enum { MB_HMM_B, MB_HMM_E, MB_HMM_M, MB_HMM_S, MB_HMM_STATES };

typedef struct mb_hmm {
    double start[MB_HMM_STATES];
    double trans[MB_HMM_STATES][MB_HMM_STATES]; /* [from][to] */
    double (*emit)[MB_HMM_STATES];              /* [rune - MB_HAN_FIRST], MB_HAN_COUNT rows */
} mb_hmm;

/* Most probable states of a run of Han characters. states: count bytes. False: out of memory. */
bool mb_hmm_decode(const mb_hmm *hmm, const uint32_t *at, size_t count, unsigned char *states);
/* Reads prob_start/trans/emit, Python or JSON text; folder/hmm.json, folder/finalseg/prob_*.py or
 * folder/prob_*.py. */
int mb_hmm_load(mb_hmm *hmm, const char *folder, mb_error *err);

#endif
