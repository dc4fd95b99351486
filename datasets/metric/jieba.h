/*
 * jieba.h - the tables of Chinese word segmentation, shared by jieba.c (the algorithm), jieba_table.c (reading the
 * files) and jieba_hmm.c (unknown words). The tables are jieba's own, read at run time from where a package or the
 * user put them: folder lookup in jieba_table.c.
 */
#ifndef MB_DATASETS_JIEBA_H
#define MB_DATASETS_JIEBA_H

#include "datasets/metric/metrics.h"

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

/* A word or the beginning of one (frequency 0). */
typedef struct mb_jieba_entry {
    uint64_t hash;
    uint32_t offset; /* of its runes in the arena */
    uint32_t length; /* 0 = free place */
    int64_t frequency;
} mb_jieba_entry;

typedef struct mb_jieba {
    mb_jieba_entry *places;
    size_t capacity, used; /* capacity is a power of two */
    mb_runes arena;
    double log_total; /* log of the sum of all frequencies */
    mb_hmm hmm;
} mb_jieba;

/* The rolling hash of a word: start with 0, add its runes in order. */
static inline uint64_t mb_jieba_hash(uint64_t hash, uint32_t rune)
{
    hash = (hash ^ rune) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
}
/* NULL = neither a word nor the beginning of one. */
const mb_jieba_entry *mb_jieba_find(const mb_jieba *jieba, const uint32_t *at, size_t count, uint64_t hash);

/* The loaded tables, or NULL and the reason. Loaded once, kept for the life of the process. Thread safe. */
const mb_jieba *mb_jieba_tables(mb_error *err);
/* Reads the tables of one folder (or of a dict.txt and the folder it lies in). */
int mb_jieba_load(mb_jieba *jieba, const char *path, mb_error *err);
void mb_jieba_unload(mb_jieba *jieba);

/* jieba_hmm.c: most probable states of a run of Han characters. states: count bytes. False: out of memory. */
bool mb_hmm_decode(const mb_hmm *hmm, const uint32_t *at, size_t count, unsigned char *states);
/* Reads prob_start/trans/emit, Python or JSON text; folder/hmm.json, folder/finalseg/prob_*.py or
 * folder/prob_*.py. */
int mb_hmm_load(mb_hmm *hmm, const char *folder, mb_error *err);

#endif
