/*
 * jieba_table.h - jieba's dictionary as a table of words and of their beginnings, for jieba.c (the algorithm). The
 * tables are jieba's own, read at run time from where a package or the user put them: the folders are in
 * jieba_table.c.
 */
#ifndef MB_DATASETS_JIEBA_TABLE_H
#define MB_DATASETS_JIEBA_TABLE_H

#include "datasets/metric/jieba_hmm.h"
#include "datasets/read/unicode.h"

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

#endif
